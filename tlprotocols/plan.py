"""What a sweep comes to: cells, the unique runs behind them, what is finished, what remains, bases first.

Pure but for reading which rows exist: it starts nothing and writes nothing.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tlprotocols.datasets import source
from tlprotocols.hardware import precision
from tlprotocols.results import Row, base_of, files, read_row, run_id
from tlprotocols.schema import Config
from tlprotocols.splits import check_counts, chosen, target_classes


@dataclass(frozen=True)
class Run:
    """One training of the plan."""

    id: str
    config: Config
    role: str  # "run": somebody asked for it; "base": it is only copied from
    base: str | None  # id of the run that must be finished before
    images: int  # training images of an epoch

    @property
    def image_passes(self) -> int:
        """Training images times epochs: what a run costs, up to the machine's rate."""
        return self.images * self.config.epochs


@dataclass(frozen=True)
class Plan:
    """A whole sweep."""

    cells: tuple[str, ...]  # run ids in the order of the sweep; equal cells share one
    runs: dict[str, Run]  # every unique run, the bases it needs included
    rows: dict[str, Row]  # of the finished ones

    @property
    def to_run(self) -> list[Run]:
        """What remains, bases first, then the longest first. Finished runs need no base any more."""
        wanted = {id for id in self.cells if id not in self.rows}
        bases = {base for id in wanted if (base := self.runs[id].base)} - set(self.rows)
        order = [self.runs[id] for id in (*bases, *wanted - bases)]
        return sorted(order, key=lambda run: (run.id not in bases, -run.image_passes, run.id))

    @property
    def image_passes(self) -> int:
        """Of all that remains."""
        return sum(run.image_passes for run in self.to_run)


def resolved(config: Config) -> Config:
    """The configuration as it will run here: images listed, no `auto` left. Checks what only the images can tell.

    Raises:
        ConfigError: the images are not there, or some class has too few.
    """
    dataset, machine = config.dataset, config.machine
    listed = source(dataset)
    config = dataclasses.replace(
        config,
        dataset=dataclasses.replace(dataset, fingerprint=listed.fingerprint[:16]),
        precision=precision(config.precision, machine),
        base=dataclasses.replace(config.base, precision=precision(config.base.precision, machine)),
    )
    check_counts(config, listed.classes, listed.counts["train"])
    base = base_of(config)
    if base is not None:
        check_counts(base, listed.classes, listed.counts["train"], "base.n_per_class")
    return config


def plan(configs: Iterable[Config]) -> Plan:
    """Plan a sweep of these configurations (resolved)."""
    cells: list[str] = []
    runs: dict[str, Run] = {}
    for config in configs:
        run = _run(config, "run")
        cells.append(run.id)
        runs[run.id] = run
        base = base_of(config)
        if base is not None and run.base not in runs:
            based = _run(base, "base")
            runs[based.id] = based
    return Plan(tuple(cells), runs, _finished(runs.values()))


def _run(config: Config, role: str) -> Run:
    base, listed = base_of(config), source(config.dataset)
    counts: Sequence[int] = listed.counts["train"]
    images = sum(len(chosen(config, label, counts[label])) for label in target_classes(config, listed.classes))
    return Run(run_id(config), config, role, run_id(base) if base else None, images)


def _finished(runs: Iterable[Run]) -> dict[str, Row]:
    found = {}
    for run in runs:
        paths = files(run.config)
        row = read_row(paths.row)
        if row is not None and (not run.config.curve or (paths.folder / "curve.csv").exists()):
            found[run.id] = row
    return found
