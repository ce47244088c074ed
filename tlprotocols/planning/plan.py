"""What a sweep comes to: cells, the unique runs behind them, what is finished, what remains, bases first.

Pure but for reading what earlier runs left on disk: it starts nothing and writes nothing.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from tlprotocols.config.schema import Config
from tlprotocols.hardware import precision
from tlprotocols.images import source
from tlprotocols.images.splits import check_counts, target_classes
from tlprotocols.results import Row, base_of, files, is_running, read_row, run_id, weights_digest


@dataclass(frozen=True)
class Run:
    """One training of the plan."""

    id: str
    config: Config
    role: str  # "base": its weights are copied from, so it keeps them; "run" otherwise
    base: str | None  # id of the run that must be finished before
    images: int  # training images of an epoch
    val_images: int

    @property
    def image_passes(self) -> int:
        """Training images times epochs: what a run costs, up to the machine's rate."""
        return self.images * self.config.epochs


@dataclass(frozen=True)
class Plan:
    """A whole sweep, at one moment."""

    cells: tuple[str, ...]  # run ids in the order of the sweep; equal cells share one
    runs: dict[str, Run]  # every unique run, the bases it needs included
    rows: dict[str, Row]  # of the finished ones
    running: frozenset[str]  # in some other process at this moment
    failed: dict[str, str]  # last line of the reason, by run; not tried again unless asked for

    @property
    def asked(self) -> list[Run]:
        """The unique runs behind the cells, in their order."""
        return [self.runs[id] for id in dict.fromkeys(self.cells)]

    def state(self, run: Run) -> str:
        """`finished`, `running`, `failed` (or blocked by a base that failed) or `to_run`."""
        if run.id in self.rows:
            return "finished"
        if run.id in self.running:
            return "running"
        return "failed" if run.id in self.failed or run.base in self.failed else "to_run"

    @property
    def to_run(self) -> list[Run]:
        """What remains, bases first, then the longest first. Finished runs need no base any more."""
        wanted = {run.id for run in self.asked if self.state(run) == "to_run"}
        bases = {base for id in wanted if (base := self.runs[id].base) and base not in self.rows}
        order = (self.runs[id] for id in bases | wanted)
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
    listed = source(dataset, machine.store)
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


def plan(configs: Iterable[Config], retry_failed: bool = False) -> Plan:
    """Plan a sweep of these configurations (resolved)."""
    cells: list[str] = []
    runs: dict[str, Run] = {}
    for config in configs:
        run = _run(config, "run")
        cells.append(run.id)
        runs[run.id] = run
        if run.base is not None and run.base not in runs:
            runs[run.base] = _run(cast(Config, base_of(config)), "base")
    needed = {run.base for run in runs.values() if run.base}
    runs = {id: dataclasses.replace(run, role="base") if id in needed else run for id, run in runs.items()}
    rows = {id: row for id, run in runs.items() if (row := finished_row(run.config, run.role, False)) is not None}
    copied = {run.base for run in runs.values() if run.base in rows and run.id not in rows}
    rows = {id: row for id, row in rows.items() if id not in copied or finished_row(runs[id].config, "base")}
    rest = {id: files(run.config) for id, run in runs.items() if id not in rows}
    running = frozenset(id for id, paths in rest.items() if is_running(paths))
    failed = {id: paths.failure for id, paths in rest.items() if paths.failure.exists() and id not in running}
    reasons = {id: path.read_text().strip().splitlines()[-1] for id, path in failed.items()}
    return Plan(tuple(cells), runs, rows, running, {} if retry_failed else reasons)


def finished_row(config: Config, role: str, verify: bool = True) -> Row | None:
    """The row of a run that has left all that is asked of it: None if it must still run.

    A curve if there should be one, and a base's weights, which other runs do not keep. `verify` compares these with the
    digest in the row: a base whose weights are damaged, or have no digest, is trained again.
    """
    paths = files(config)
    row = read_row(paths.row)
    if row is None or (config.curve and not paths.curve.exists()):
        return None
    if role != "base":
        return row
    digest = row.get("weights_digest")
    whole = weights_digest(paths.weights) == digest if verify else paths.weights.exists()
    return row if digest and whole else None


def _run(config: Config, role: str) -> Run:
    base, listed = base_of(config), source(config.dataset, config.machine.store)
    counts: Sequence[int] = listed.counts["train"]
    labels, n = target_classes(config, listed.classes), config.n_per_class
    images = sum(counts[label] for label in labels) if n == "full" else len(labels) * int(n)
    val_images = sum(listed.counts["val"][label] for label in labels)
    return Run(run_id(config), config, role, run_id(base) if base else None, images, val_images)
