"""What a sweep comes to: cells, the unique runs behind them, what is finished, what remains, bases first.

It reads what earlier runs left on disk, starts nothing and writes nothing.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from tlprotocols.budget import epochs_needed, image_passes
from tlprotocols.config.identity import base_of, factors, idle_factors, run_id
from tlprotocols.config.schema import Base, Config, Dataset, Machine
from tlprotocols.config.validate import head_epochs
from tlprotocols.errors import ConfigError
from tlprotocols.hardware import precision
from tlprotocols.images import Source, source
from tlprotocols.images.splits import check_counts, held_out, part_of, probed_classes, target_classes
from tlprotocols.planning.weights_file import find
from tlprotocols.records import Row, files, finished_row, is_running, read_row, reason, sweeps

WANTED = ("curve", "probe", "keep_weights", "predictions")  # what a run leaves beside its row


IN_ANOTHER_PROCESS = "in another process"  # of this machine, or of one with the same folder


@dataclass(frozen=True)
class Run:
    """One training of the plan."""

    id: str
    config: Config
    role: str  # "base": its weights are copied from, so it keeps them; "run" otherwise
    base: str | None  # id of the run that must be finished before
    images: int  # training images of an epoch
    evaluated: int  # images that are only evaluated, once, at the end

    @property
    def image_passes(self) -> int:
        """Images of all epochs: what a run costs, up to the machine's throughput."""
        return image_passes(self.config, self.images, self.config.epochs)


@dataclass(frozen=True)
class Plan:
    """A whole sweep, at one moment."""

    cells: tuple[str, ...]  # run ids in the order of the sweep; equal cells share one
    runs: dict[str, Run]  # every unique run, the bases it needs included
    rows: dict[str, Row]  # of the finished ones
    running: Mapping[str, str]  # where each is that is executed, or queued, elsewhere at this moment
    failed: Mapping[str, str]  # last line of the reason, by run; not tried again unless requested
    awaited: frozenset[str] = frozenset()  # bases that runs of a queue still wait for

    @property
    def requested(self) -> list[Run]:
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
    def failures(self) -> dict[str, str]:
        """Why each run has failed that failed before, or whose base did."""
        found = dict(self.failed)
        for run in self.runs.values():
            if run.id not in found and self.state(run) == "failed":
                found[run.id] = blocked(run, self.failed)
        return found

    @cached_property
    def to_run(self) -> list[Run]:
        """What remains, bases first, then the longest first. Finished runs need no base any more."""
        wanted = {run.id for run in self.requested if self.state(run) == "to_run"}
        needed = self.awaited | {base for id in wanted if (base := self.runs[id].base)}
        bases = {base for base in needed if self.state(self.runs[base]) == "to_run"}
        order = (self.runs[id] for id in bases | wanted)
        return sorted(order, key=lambda run: (run.id not in bases, -run.image_passes, run.id))

    @cached_property
    def to_run_or_await(self) -> list[Run]:
        """What remains, and after it what other processes execute at this moment: a backend that gives these to its
        workers, too, ends with all rows, for a worker waits for the lock of its run and finds the row; or if the other
        process died, it goes on itself."""
        return sorted(dataclasses.replace(self, running={}).to_run, key=lambda run: run.id in self.running)

    @property
    def bases_to_run(self) -> int:
        """How many base networks must be trained that are no cells themselves."""
        return len({run.id for run in self.to_run} - set(self.cells))

    @property
    def image_passes(self) -> int:
        """Of all that remains."""
        return sum(run.image_passes for run in self.to_run)

    @cached_property
    def varying(self) -> list[str]:
        """Factors that differ between the cells that read them, in a row's order; layers and n_per_class always."""
        seen = [(row, idle_factors(row)) for row in (factors(run.config) for run in self.requested)]
        keys = list(dict.fromkeys(key for row, _ in seen for key in row))
        several = [key for key in keys if len({json.dumps(row.get(key)) for row, idle in seen if key not in idle}) > 1]
        fixed = [key for key in ("n_per_class", "layers") if key not in several]
        return [*fixed, *(key for key in several if not key.startswith("base."))]

    def name(self, run: Run) -> str:
        """A run as a person knows it."""
        if run.role == "base":
            config = run.config
            of = f"split {config.split}, half {config.target}"
            if config.classes.source_group and config.target == "A":
                of = f"split {config.split}, source {config.classes.source_group}, {config.n_per_class} per class"
            of = f"all classes of {config.dataset.name}" if config.classes.name == "all" else of
            return f"base {run.id} ({of}, seed {config.seed})"
        row = factors(run.config)
        return " ".join([run.id, *(f"{key}={row[key]}" for key in self.varying if key in row)])

    def read_rows(self) -> list[Row | None]:
        """The row of every cell as it is on disk now, in the order of the sweep; None where a run did not finish."""
        rows = {id: read_row(files(self.runs[id].config).row) for id in dict.fromkeys(self.cells)}
        return [rows[id] for id in self.cells]


def blocked(run: Run, failed: Mapping[str, str]) -> str:
    """Why a run cannot start whose base is among the `failed` ones."""
    return f"blocked: its base {run.base} failed ({failed[str(run.base)]})"


def resolved(config: Config) -> Config:
    """The configuration as it will run here: images listed, weights found, no `auto` left, `epochs` those that
    `max_updates` comes to, `head_epochs` a number. Checks what only the images can tell.

    Raises:
        ConfigError: the images are not there, or some class has too few, or a file of weights is not there.
    """
    machine = config.machine
    config = dataclasses.replace(
        config,
        dataset=_listed(config.dataset, machine, "dataset"),
        precision=precision(config.precision, machine),
        base=_resolved_base(config),
    )
    _check(config, "")
    base = base_of(config)
    if base is not None:
        _check(base, "base.")
    if base is not None and base.max_updates:
        epochs = epochs_needed(base, _images(base, source(base.dataset, machine.image_cache)))
        config = dataclasses.replace(config, base=dataclasses.replace(config.base, epochs=epochs))
    if config.max_updates:
        epochs = epochs_needed(config, _images(config, source(config.dataset, machine.image_cache)))
        config = dataclasses.replace(config, epochs=epochs)
    alone = head_epochs(config.head_epochs, config.epochs)
    if config.head_epochs == "half" and not alone:
        raise ConfigError(
            "head_epochs", "half", "must leave an epoch to the head, and the run has one; give more epochs"
        )
    if alone >= config.epochs and config.freeze < len(config.model.stages) - 1:
        legal = f"must be below the {config.epochs} epochs of the run: else no other layer learns, which is freeze=all"
        raise ConfigError("head_epochs", config.head_epochs, legal)
    return dataclasses.replace(config, head_epochs=alone)


def _resolved_base(config: Config) -> Base:
    base = dataclasses.replace(config.base, precision=precision(config.base.precision, config.machine))
    if config.layers and base.name == "weights":
        path, digest = find(str(base.weights))
        return dataclasses.replace(base, weights=str(path), digest=digest)
    if config.layers and base.name == "dataset":
        assert base.dataset is not None
        return dataclasses.replace(base, dataset=_listed(base.dataset, config.machine, "base.dataset"))
    return base


def _listed(dataset: Dataset, machine: Machine, key: str) -> Dataset:
    """The data set with the fingerprint of its images; `key` is its own, for messages."""
    return dataclasses.replace(dataset, fingerprint=source(dataset, machine.image_cache, key).fingerprint[:16])


def _check(config: Config, path: str) -> None:
    """Refuse what its data set has too few classes or images for."""
    listed = source(config.dataset, config.machine.image_cache)
    learned = len(target_classes(config, listed.classes))
    if learned < 2:
        whose = "the base" if path else "the run"
        legal = f"leaves {whose} {learned} of {len(listed.classes)} classes, and it needs two; give classes=all with"
        raise ConfigError("classes", config.classes.name, f"{legal} base=weights, base=dataset or protocol=scratch")
    check_counts(config, listed.classes, listed.counts, f"{path}n_per_class")
    images, size = _images(config, listed), config.batch_size
    learns = config.model.spec.batch_norm and config.freeze < len(config.model.stages) - 1
    if learns and (images - 1) % size == 0:
        other = next((more for more in range(size + 1, size + images) if (images - 1) % more), images)
        raise ConfigError(
            f"{path}batch_size",
            size,
            f"leaves one of the {images} training images for the last batch, too few for the batch norm of"
            f" {config.model.name}; give another, such as {other}",
        )


def plan(configs: Iterable[Config], retry_failed: bool = False) -> Plan:
    """Plan a sweep of these configurations (resolved)."""
    cells: list[str] = []
    runs: dict[str, Run] = {}
    for config in configs:
        run = _run(config, "run")
        cells.append(run.id)
        if run.id in runs:
            run = _run(_of_equal_cells(config, runs[run.id]), "run")
        runs[run.id] = run
        if run.base is not None:
            known = runs.get(run.base)
            runs[run.base] = _with_sweep_of(config, known) if known else _run(cast(Config, base_of(config)), "base")
    needed = {run.base for run in runs.values() if run.base}
    runs = {id: dataclasses.replace(run, role="base") if id in needed else run for id, run in runs.items()}
    rows = _finished(runs)
    rest = {id: files(run.config) for id, run in runs.items() if id not in rows}
    running = {id: IN_ANOTHER_PROCESS for id, paths in rest.items() if is_running(paths)}
    failed = {id: paths.failure for id, paths in rest.items() if paths.failure.exists() and id not in running}
    reasons = {} if retry_failed else {id: reason(path) for id, path in failed.items()}
    return Plan(tuple(cells), runs, rows, running, reasons)


def _of_equal_cells(config: Config, before: Run) -> Config:
    """The configuration of a cell whose run is planned already: one cell that wants a curve, a probe, weights or
    predictions is enough, and the run has the names of the sweeps of all."""
    wanted: dict[str, Any] = {key: getattr(config, key) or getattr(before.config, key) for key in WANTED}
    named = [before.config.sweep] if before.role == "run" else []  # a sweep that copies from it has no such cell
    return dataclasses.replace(config, **wanted, sweep=_names(*named, config.sweep))


def _with_sweep_of(config: Config, base: Run) -> Run:
    """A base with the name of one more sweep that copies from it; a cell keeps those of the sweeps that request it."""
    names = _names(base.config.sweep, config.sweep)
    if base.role == "run" or names == base.config.sweep:
        return base
    return dataclasses.replace(base, config=dataclasses.replace(base.config, sweep=names))


def _names(*names: str | None) -> str | None:
    return sweeps(*({"sweep": name} for name in names))


def _finished(runs: Mapping[str, Run]) -> dict[str, Row]:
    """The rows of finished runs. A base that something will be copied from must have the weights of its row."""
    rows = {id: row for id, run in runs.items() if (row := finished_row(run.config, "run", False)) is not None}
    copied = {run.base for run in runs.values() if run.base in rows and run.id not in rows}
    return {id: row for id, row in rows.items() if id not in copied or finished_row(runs[id].config, "base")}


def _run(config: Config, role: str) -> Run:
    base, listed = base_of(config), source(config.dataset, config.machine.image_cache)
    labels = target_classes(config, listed.classes)
    images = _images(config, listed)
    evaluated = images + sum(_evaluated(config, listed, part, labels) for part in ("val", "test"))
    if config.probe:
        others = probed_classes(config, listed.classes)
        evaluated += _images(config, listed, others) + _evaluated(config, listed, "val", others)
    return Run(run_id(config), config, role, run_id(base) if base else None, images, evaluated)


def _images(config: Config, listed: Source, of: Sequence[int] | None = None) -> int:
    """Training images of an epoch; or of these labels, as many per class."""
    labels = target_classes(config, listed.classes) if of is None else of
    return sum(n - held_out(config, n) for n in _chosen(config, listed, labels))


def _chosen(config: Config, listed: Source, labels: Sequence[int]) -> list[int]:
    """Training images of these classes, those of the fold that validates included."""
    if config.n_per_class != "full":
        return [int(config.n_per_class)] * len(labels)
    return [listed.counts["train"][label] - config.test_per_class for label in labels]


def _evaluated(config: Config, listed: Source, part: str, labels: Sequence[int]) -> int:
    """Validation or test images of these classes."""
    if part == "test" and config.test_per_class:
        return len(labels) * config.test_per_class
    if part == "val" and config.fold is not None:
        return sum(held_out(config, n) for n in _chosen(config, listed, labels))
    kept = part_of(config, part, listed.counts)
    return sum(listed.counts[kept][label] for label in labels) if kept else 0
