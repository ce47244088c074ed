"""hydra/launcher=local: the sweep on this machine, in worker processes."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tlprotocols.config.compose import Composer
from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError
from tlprotocols.results import Row


class LocalLauncher(Launcher):
    """Plans the whole sweep, runs what is not finished, prints the table."""

    def __init__(
        self,
        workers: int | None = None,
        gpus: int | None = None,
        per_gpu: int = 1,
        dry_run: bool = False,
        retry_failed: bool = False,
    ) -> None:
        """Values and meaning: conf/hydra/launcher/local.yaml."""
        self.workers, self.gpus, self.per_gpu = workers, gpus, per_gpu
        self.dry_run, self.retry_failed = dry_run, retry_failed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.composer = Composer(hydra_context.config_loader, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every cell, or none if one of them cannot be run."""
        from tlprotocols.launching.driver import sweep

        self._check()
        configs = [self.composer(overrides) for overrides in job_overrides]
        rows = sweep(configs, self._slots(configs[0]), self.dry_run, self.retry_failed)
        return [self._job(list(overrides), row) for overrides, row in zip(job_overrides, rows, strict=True)]

    def _job(self, overrides: list[str], row: Row | None) -> JobReturn:
        """What a sweeper sees: the accuracy, or the failure."""
        done = row is not None or self.dry_run
        job = JobReturn(overrides=overrides, status=JobStatus.COMPLETED if done else JobStatus.FAILED)
        job.return_value = row["val_top1"] if row else None if done else RuntimeError(f"failed: {' '.join(overrides)}")
        return job

    def _slots(self, config: Config) -> list[str | None]:
        """One per worker: the GPU it is pinned to, or None."""
        from tlprotocols import hardware
        from tlprotocols.launching import pool as local

        if hardware.device(config.machine) == "cpu":
            return [None] * (self.workers or local.cores())
        devices = hardware.visible_gpus()[: self.gpus] * self.per_gpu
        if not devices:
            raise ConfigError("machine.device", "cuda", "needs a GPU, and none is here; say machine.device=cpu or auto")
        return [devices[worker % len(devices)] for worker in range(self.workers or len(devices))]

    def _check(self) -> None:
        for key in ("workers", "gpus", "per_gpu"):
            value = getattr(self, key)
            if not (value is None and key != "per_gpu") and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"hydra.launcher.{key}", value, "must be a whole number of at least 1, or null")
        for key in ("dry_run", "retry_failed"):
            if not isinstance(getattr(self, key), bool):
                raise ConfigError(f"hydra.launcher.{key}", getattr(self, key), "must be true or false")
