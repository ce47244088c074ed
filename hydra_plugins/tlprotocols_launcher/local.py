"""hydra/launcher=local: the sweep on this machine, in worker processes."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tlprotocols.config import Composer
from tlprotocols.errors import ConfigError


class LocalLauncher(Launcher):
    """Plans the whole sweep, runs what is not finished, prints the table."""

    def __init__(self, workers: int | None = None) -> None:
        """`workers`: processes; None is one per core, or one per GPU."""
        self.workers = workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.composer = Composer(hydra_context.config_loader, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every cell, or none if one of them cannot be run."""
        from tlprotocols import hardware, local
        from tlprotocols.sweep import sweep

        configs = [self.composer(overrides) for overrides in job_overrides]
        on_gpus = hardware.device(configs[0].machine) == "cuda"
        if on_gpus and not hardware.gpus():
            raise ConfigError("machine.device", "cuda", "needs a GPU, and none is here; say machine.device=cpu or auto")
        slots: list[int | None] = list(range(hardware.gpus())) if on_gpus else [None] * local.cores()
        if self.workers is not None:
            if not isinstance(self.workers, int) or self.workers < 1:
                raise ConfigError(
                    "hydra.launcher.workers", self.workers, "must be a whole number of at least 1, or null"
                )
            slots = [slots[i % len(slots)] for i in range(self.workers)]
        rows = sweep(configs, slots)
        returns = []
        for row, overrides in zip(rows, job_overrides, strict=True):
            job = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED if row else JobStatus.FAILED)
            job.return_value = row["val_top1"] if row else RuntimeError(f"failed: {' '.join(overrides)}")
            returns.append(job)
        return returns
