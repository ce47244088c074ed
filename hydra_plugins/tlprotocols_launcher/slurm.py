"""hydra/launcher=slurm: the sweep as jobs of a SLURM cluster."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tlprotocols.config.compose import Composer, read
from tlprotocols.errors import ConfigError


class SlurmLauncher(Launcher):
    """Plans the whole sweep, submits what is neither finished nor queued, and waits if asked to."""

    def __init__(self, **options: Any) -> None:
        """`options`: conf/hydra/launcher/slurm.yaml."""
        self.options = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.composer = Composer(hydra_context.config_loader, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit every cell, or none if one of them cannot be run."""
        from tlprotocols.launching.slurm.queue import NoAnswer
        from tlprotocols.launching.slurm.submit import Cluster
        from tlprotocols.launching.slurm.wait import sweep

        cluster: Cluster = read(Cluster, self.options, "hydra.launcher.")
        configs = [self.composer(overrides) for overrides in job_overrides]
        try:
            rows = sweep(configs, cluster)
        except NoAnswer as error:
            raise ConfigError("hydra/launcher", "slurm", f"SLURM gives no answer ({error}); try again later") from error
        returns = []
        for number, overrides in enumerate(job_overrides):
            row = rows[number] if rows else None
            failed = rows is not None and row is None
            job = JobReturn(overrides=list(overrides), status=JobStatus.FAILED if failed else JobStatus.COMPLETED)
            job.return_value = RuntimeError(f"failed: {' '.join(overrides)}") if failed else row and row["val_top1"]
            returns.append(job)
        return returns
