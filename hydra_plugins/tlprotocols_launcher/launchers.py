"""hydra/launcher=local, slurm and ray: they hand the whole sweep to the driver, each with its backend."""

import shlex
import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tlprotocols.config.compose import Composer
from tlprotocols.config.schema import Config
from tlprotocols.config.validate import read
from tlprotocols.errors import ConfigError
from tlprotocols.launching.backend import Backend
from tlprotocols.records import Row


class SweepLauncher(Launcher):
    """Composes all cells of a sweep, executes what is not finished, and tells Hydra how each cell ended."""

    def __init__(self, **options: Any) -> None:
        """`options`: the keys of conf/hydra/launcher/NAME.yaml."""
        self.options = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in options.items()
        }

    @abstractmethod
    def backend(self) -> Backend:
        """Where runs are executed."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.composer = Composer(hydra_context.config_loader, config)
        self.sweeper = config.hydra.runtime.choices["hydra/sweeper"]
        if self.sweeper == "optuna" and (self.options.get("dry_run") or self.options.get("wait") is False):
            legal = "chooses by results, so it needs them at once: without dry_run, and on SLURM with wait=true"
            raise ConfigError("hydra/sweeper", self.sweeper, legal)
        if self.sweeper == "optuna":  # it leaves a file there
            Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Execute every cell, or none if one of them cannot be executed."""
        rows = self.rows(job_overrides)
        return [
            _returned(list(overrides), rows[number] if rows else None, waited=rows is not None)
            for number, overrides in enumerate(job_overrides)
        ]

    def composed(self, overrides: Sequence[str]) -> Config:
        """The configuration of a cell."""
        command = shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
        return replace(self.composer(overrides), command=command)

    def resolved(self, config: Config) -> Config:
        """The configuration with what its files and the place of execution decide; a bar shows how files are read."""
        from tlprotocols.launching.driver import prepared

        return prepared(config, self.backend())

    def rows(self, cells: Sequence[Sequence[str]], table: bool = True) -> list[Row | None] | None:
        """Execute every cell; the row of each, or None if nothing was waited for. `table`: print them."""
        from tlprotocols.launching.driver import sweep

        return sweep([self.composed(overrides) for overrides in cells], self.backend(), table)


def _returned(overrides: list[str], row: Row | None, waited: bool) -> JobReturn:
    """What a sweeper sees: the accuracy, or the failure."""
    failed = waited and row is None
    job = JobReturn(overrides=overrides, status=JobStatus.FAILED if failed else JobStatus.COMPLETED)
    job.return_value = RuntimeError(f"failed: {' '.join(overrides)}") if failed else row and row["val_top1"]
    return job


class LocalLauncher(SweepLauncher):
    """Worker processes of this machine."""

    def backend(self) -> Backend:
        """Raises ConfigError for an option that is no option, or out of range."""
        from tlprotocols.launching.local import Local

        local: Local = read(Local, self.options, "hydra.launcher.")
        return local


class RayLauncher(SweepLauncher):
    """Tasks of Ray."""

    def backend(self) -> Backend:
        """Raises ConfigError for an option that is no option, or out of range."""
        from tlprotocols.launching.ray import Ray

        ray: Ray = read(Ray, self.options, "hydra.launcher.")
        return ray


class SlurmLauncher(SweepLauncher):
    """Job arrays of a SLURM cluster."""

    def backend(self) -> Backend:
        """Raises ConfigError for an option that is no option, or out of range."""
        from tlprotocols.launching.slurm.cluster import Slurm
        from tlprotocols.launching.slurm.options import Options

        return Slurm(read(Options, self.options, "hydra.launcher."))

    def rows(self, cells: Sequence[Sequence[str]], table: bool = True) -> list[Row | None] | None:
        """Submit every cell, or none if one of them cannot be executed."""
        from tlprotocols.launching.slurm.queue import NoAnswer

        try:
            return super().rows(cells, table)
        except NoAnswer as error:
            raise ConfigError("hydra/launcher", "slurm", f"SLURM gives no answer ({error}); try again later") from error
