"""hydra/sweeper=grid: expands the command line like Hydra's basic sweeper, and hands over all cells in one call."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from hydra.errors import HydraException

from tlprotocols.config import studies
from tlprotocols.config.compose import Composer, check_text
from tlprotocols.errors import ConfigError, RunsFailed


@dataclass
class GridConf:
    """hydra/sweeper=grid."""

    _target_: str = "hydra_plugins.tlprotocols_launcher.grid.GridSweeper"
    params: dict[str, str] | None = field(default=None)


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="tlprotocols")


class GridSweeper(BasicSweeper):
    """Leaves the checking of cells to the launcher, which composes them once instead of twice, and writes no folder."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        """All cells, launched at once."""
        assert self.hydra_context is not None
        assert self.launcher is not None
        assert self.config is not None
        for override in OverridesParser.create().parse_overrides(arguments):
            check_text(override)
        by_sweep = self._cells(arguments)
        if not any(by_sweep.values()):
            raise _no_cells(arguments)
        jobs = self.launcher.launch([cell for cells in by_sweep.values() for cell in cells], initial_job_idx=0)
        if studies.requested and self.config.hydra.launcher.get("dry_run"):
            from tlprotocols.launching.driver import new_by_sweep

            print(new_by_sweep(by_sweep, Composer(self.hydra_context.config_loader, self.config)))
        failed = sum(job.status is JobStatus.FAILED for job in jobs)
        if failed:
            raise RunsFailed(f"{failed} of {len(jobs)} cells have no result: see the reasons above")
        return jobs

    def _cells(self, arguments: list[str]) -> dict[str, list[list[str]]]:
        if studies.requested:
            return studies.cells_by_sweep(studies.requested, arguments)
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (cells,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        return {"grid": cells}


def _no_cells(arguments: Sequence[str]) -> ConfigError:
    """The error for a sweep over values of which there are none: an empty range, or a glob that fits no choice."""
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if not override.is_sweep_override():
            continue
        try:
            values = list(override.sweep_iterator())
        except (HydraException, AssertionError, ValueError):  # of a glob: only groups have choices
            values = []
        if not values:
            key, text = override.key_or_group, str(override.input_line).partition("=")[2]
            return ConfigError(key, text, f"has no value; list them, as in {key}=A,B, or range(4,8) for 4,5,6,7")
    return ConfigError("command line", " ".join(arguments), "has no cells")
