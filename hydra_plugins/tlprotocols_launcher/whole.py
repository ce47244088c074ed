"""The sweeper: expands the command line like Hydra's basic one, and hands over all cells in one call."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus

from tlprotocols.config import studies
from tlprotocols.config.compose import Composer
from tlprotocols.errors import RunsFailed


@dataclass
class WholeConf:
    """hydra/sweeper=whole."""

    _target_: str = "hydra_plugins.tlprotocols_launcher.whole.WholeSweeper"
    params: dict[str, str] | None = field(default=None)
    study: str | None = None  # file of a study, whose cells take the place of the grid


ConfigStore.instance().store(group="hydra/sweeper", name="whole", node=WholeConf, provider="tlprotocols")


class WholeSweeper(BasicSweeper):
    """Leaves the checking of cells to the launcher, which composes them once instead of twice, and writes no folder."""

    def __init__(self, params: dict[str, str] | None = None, study: str | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)
        self.study = study

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        """All cells of the grid, launched at once."""
        assert self.hydra_context is not None
        assert self.launcher is not None
        assert self.config is not None
        if self.study:
            by_sweep = studies.cells_by_sweep(Path(self.study), arguments)
            cells = [cell for sweep in by_sweep.values() for cell in sweep]
        else:
            parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
            (cells,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        jobs = self.launcher.launch(cells, initial_job_idx=0)
        if self.study and self.config.hydra.launcher.get("dry_run"):
            from tlprotocols.launching.driver import shared

            print(shared(by_sweep, Composer(self.hydra_context.config_loader, self.config)))
        failed = sum(job.status is JobStatus.FAILED for job in jobs)
        if failed:
            raise RunsFailed(f"{failed} of {len(jobs)} cells have no result; their reasons stand above")
        return jobs
