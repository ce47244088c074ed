"""What a person sees of a sweep: the plan, a bar with the time left, what failed, the table."""

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import mean, stdev
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tlprotocols.config.schema import Config
from tlprotocols.images import source
from tlprotocols.images.splits import target_classes
from tlprotocols.launching.backend import OnEvent
from tlprotocols.lr_schedule import slow_layers
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import IN_ANOTHER_PROCESS, Plan, Run
from tlprotocols.records import Row, files

MEASURED = {"val_top1": "top-1", "val_loss": "val loss", "train_loss": "train loss", "base_top1": "base top-1"}
GUESS = "a guess that may be ten times too short or too long"
MARKS = ("collapsed", "underfitted", "diverged", "base_collapsed", "base_diverged")
REPLICATES = ("split", "target", "seed", "fold")  # runs that differ in these alone are averaged
MOST_ROWS = 60  # of a table or a list in a terminal


class Terminal:
    """The console of one sweep."""

    def __init__(self) -> None:
        known = sys.stdout.isatty() or "COLUMNS" in os.environ
        self.console = Console(highlight=False, markup=False, width=None if known else 120)

    def print(self, content: object) -> None:
        """A line, however long, or a table."""
        self.console.print(content, soft_wrap=isinstance(content, str | Text))

    @contextmanager
    def progress(self, what: str, total: int, unit: str, always: bool = True) -> Iterator[Callable[[int], None]]:
        """A bar; yields what advances it. Without `always` only where there is a terminal."""
        if not (always or self.console.is_terminal):
            yield lambda count: None
            return
        with self._bar() as bar:
            task = bar.add_task(what, total=total, unit=unit)
            yield lambda count: bar.advance(task, count)

    @contextmanager
    def training(self, planned: Plan) -> Iterator[OnEvent]:
        """A bar of image passes, and a line for every run that ends; yields what receives the events."""
        done: dict[str, int] = {}  # images trained on, by run
        started: dict[str, float] = {}
        total = {run.id: run.image_passes for run in planned.to_run}
        bar, below = self._bar(), Progress(TextColumn("  {task.description}", markup=False), console=self.console)
        lines: dict[str, TaskID] = {}  # of runs that are executed now, below the bar
        both = Live(Group(bar, below), console=self.console, refresh_per_second=4)
        with both if self.console.is_terminal else bar:
            task = bar.add_task("training", total=sum(total.values()), unit="image passes", visible=False)

            def on_event(what: str, run: Run | None, detail: object) -> None:
                if what == "queue" and self.console.is_terminal:  # changes often: it has one place there
                    bar.update(task, description=str(detail), visible=True)
                    return
                if run is None:
                    self.print(detail)
                    return
                if what == "advance" and self.console.is_terminal:
                    text = f"{planned.name(run)}  {progress_of(run)}"[: self.console.width - 3]
                    if run.id not in lines:
                        lines[run.id] = below.add_task("")
                    below.update(lines[run.id], description=text)
                elif what not in ("started", "advance") and run.id in lines:
                    below.remove_task(lines.pop(run.id))
                if what == "started":
                    started[run.id], done[run.id] = time.monotonic(), 0
                elif what == "advance":
                    done[run.id] = done.get(run.id, 0) + int(str(detail))
                elif what == "retried":
                    self.print(Text.assemble(("again   ", "yellow"), f" {planned.name(run)}: {detail}"))
                    done[run.id] = 0
                else:
                    done[run.id] = run.image_passes  # also when it stopped early: nothing of it is left to do
                    seconds = duration(time.monotonic() - started[run.id]) if run.id in started else ""
                    colour = "green" if what == "finished" else "red"
                    self.print(Text.assemble((f"{what:8}", colour), f" {planned.name(run)}  {detail or seconds}"))
                total.setdefault(run.id, run.image_passes)  # of an earlier command, and waited for
                bar.update(task, completed=sum(done.values()), total=sum(total.values()), visible=True)

            yield on_event

    def _bar(self) -> Progress:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        return Progress(*columns, MofNCompleteColumn(), TextColumn("{task.fields[unit]}"), console=self.console)

    def announce(self, planned: Plan, costs: Cost, parallel: int) -> None:
        """What will happen now, in a line."""
        states = Counter(planned.state(run) for run in planned.requested)
        parts = [plural(len(planned.cells), "cell"), plural(len(planned.requested), "run")]
        parts += [f"{count:,} {state.replace('_', ' ')}" for state, count in states.items()]
        if planned.to_run:
            bases = planned.bases_to_run
            parts += [f"{plural(bases, 'base network')} first"] if bases else []
            about = duration(3600 * costs.hours(planned.to_run, parallel)) + (f" ({GUESS})" if costs.guessed else "")
            parts += [f"{planned.image_passes:,} image passes on {plural(parallel, 'worker')}, about {about}"]
        self.print(", ".join(parts))
        if waits := list(planned.running.values()).count(IN_ANOTHER_PROCESS):
            self.print(f"{plural(waits, 'run')} in another process, for which this command waits")
        if states["failed"]:
            self.print("failed runs stay failed: hydra.launcher.retry_failed=true tries them again")

    def status(self, planned: Plan, costs: Cost, parallel: int) -> None:
        """The plan, where every run is that is elsewhere, and the line for scripts."""
        self.print(overview(planned, costs, self.console.width))
        for id, where in list(planned.running.items())[:MOST_ROWS]:
            self.print(f"{planned.name(planned.runs[id])}: {where}")
        if len(planned.running) > MOST_ROWS:
            self.print(f"{len(planned.running) - MOST_ROWS} more are running or queued")
        if any(run.config.classes_shown for run in planned.requested):
            for line in classes_of(planned):
                self.print(line)
        print(summary(planned, costs, parallel))

    def failures(self, planned: Plan, failed: Mapping[str, str], logs: Callable[[Run], list[str]]) -> None:
        """Every run that failed, why, and where to read more."""
        for id, reason in failed.items():
            run = planned.runs[id]
            self.print(Text.assemble(("failed", "red"), f" {planned.name(run)}: {reason}"))
            found = logs(run)
            self.print(f"       log: {', '.join(found)}" if found else "       it never began")


def classes_of(planned: Plan) -> list[str]:
    """Source and target classes of every class split of a plan: what base networks learn, and what runs learn."""
    lines: dict[str, None] = {}
    for run in planned.requested:
        base = planned.runs[run.base] if run.base else None
        split = f"{run.config.dataset.name} split {run.config.split}"
        for role, one in (("source", base), ("target", run)):
            if one is not None:
                known = source(one.config.dataset, one.config.machine.image_cache).classes
                names = [known[label] for label in target_classes(one.config, known)]
                half = f"half {one.config.target}, {len(names)} classes"
                lines[f"{split} {role} ({half}): {', '.join(names)}"] = None
    return list(lines)


def progress_of(run: Run) -> str:
    """`epoch 3 of 8, loss 1.23`: the last line of the run's log, if it is that of an epoch."""
    try:
        last = files(run.config).log.read_text().splitlines()[-1].split()
        found = dict(zip(last[2::2], last[3::2], strict=False))  # after date and time: key value key value
        return f"epoch {int(found['epoch'])} of {run.config.epochs}, loss {float(found['train_loss']):.3g}"
    except (OSError, LookupError, ValueError):
        return ""


def plural(count: int, noun: str, ending: str = "s") -> str:
    """`1 cell`, `2 cells`."""
    return f"{count:,} {noun}{ending * (count != 1)}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `11 days 10 h`."""
    minutes, hours, days = round(seconds / 60), round(seconds / 3600), int(seconds // 86400)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{days} days {int(seconds % 86400 // 3600)} h"


def size(count: float) -> str:
    """`512 B`, `1.2 MB`, `252.0 GB`."""
    exponent = next(power for power in (0, 1, 2, 3) if count < 1000 ** (power + 1) or power == 3)
    return f"{count / 1000**exponent:,.{min(exponent, 1)}f} {('B', 'kB', 'MB', 'GB')[exponent]}"


def summary(planned: Plan, costs: Cost, parallel: int) -> str:
    """The plan in one line that a script can read."""
    states = Counter(planned.state(run) for run in planned.requested)
    return (
        f"plan: cells={len(planned.cells)} runs={len(planned.requested)} finished={states['finished']}"
        f" running={states['running']} failed={states['failed']} to_run={states['to_run']} bases={planned.bases_to_run}"
        f" image_passes={planned.image_passes} hours={costs.hours(planned.to_run, parallel):.3f}"
    )


def overview(planned: Plan, costs: Cost, width: int = 120) -> Table:
    """How the runs stand, per base network and images per class."""
    by: dict[tuple[str | None, str], list[Run]] = {}
    for run in planned.requested:
        by.setdefault((run.base or run.config.base.digest, str(run.config.n_per_class)), []).append(run)
    states = {group: Counter(planned.state(run) for run in runs) for group, runs in by.items()}
    shown = {"base": [_base(planned, weights, runs[0]) for (weights, _), runs in by.items()]}
    shown["of"] = [_half(planned.runs[runs[0].base].config) if runs[0].base else "" for runs in by.values()]
    shown |= {"n": [n for _, n in by], "runs": [str(len(runs)) for runs in by.values()]}
    for state in ("finished", "running", "failed", "to_run"):
        if state not in ("running", "failed") or any(count[state] for count in states.values()):
            shown[state.replace("_", " ")] = [str(count[state]) for count in states.values()]
    remaining = ([run for run in runs if planned.state(run) == "to_run"] for runs in by.values())
    shown["image passes"] = [f"{sum(run.image_passes for run in runs):,}" for runs in remaining]
    table = _fitted(shown, width, whole=set(shown) - {"of"})
    table.caption = f"hours are {GUESS}: no such run has finished here yet" if costs.guessed else None
    return table


def _half(config: Config) -> str:
    """What a base network learned."""
    what = f"all of {config.dataset.name}" if config.classes.name == "all" else f"half {config.target}"
    return f"split {config.split} {what} seed {config.seed}"


def _base(planned: Plan, weights: str | None, run: Run) -> str:
    if run.base is None:
        return f"weights {weights}" if weights else "none"
    return f"{run.base}\n{planned.state(planned.runs[run.base]).replace('_', ' ')}"


def table(planned: Plan, rows: Sequence[Row | None], width: int = 120) -> Table:
    """The swept factors and what was measured, a line per cell: replicates, which differ in split, target half and seed
    alone, are averaged, with the standard deviation of their accuracy. Columns that are too many for `width` characters
    are left out, accuracy never."""
    unique = {id: row for id, row in zip(planned.cells, rows, strict=True) if row is not None}
    factors = _columns(planned, list(unique.values()))
    cells: dict[tuple[str, ...], list[Row]] = {}
    for row in unique.values():
        cells.setdefault(tuple(str(row.get(key, "")) for key in factors), []).append(row)
    listed = dict(list(cells.items())[:MOST_ROWS])
    several = max(map(len, cells.values()), default=1) > 1
    first = {"runs" if several else "run": [str(len(g)) if several else g[0]["run_id"] for g in listed.values()]}
    shown = first | {key: [cell[place] for cell in listed] for place, key in enumerate(factors)}
    shown |= {name: [_mean(key, group) for group in listed.values()] for key, name in MEASURED.items()}
    marks = [_marks(group) for group in listed.values()]
    shown |= {"warning": marks} if any(marks) else {}  # a column only where a run needs attention
    for name in ("run", "base top-1", "train loss", "val loss", "runs"):
        if _width(shown) > width:
            shown.pop(name, None)
    return _fitted(shown, width, whole={"run", "runs", *MEASURED.values()})


def _columns(planned: Plan, rows: Sequence[Row]) -> list[str]:
    """The varying factors beside those that tell replicates apart; several protocols by name, and then without the
    factors that follow from the name."""
    factors = [key for key in planned.varying if key not in REPLICATES]
    of_base = dict.fromkeys(key for row in rows for key in row if key.startswith("base."))
    factors += [key for key in of_base if len({str(row[key]) for row in rows if key in row}) > 1]
    named = {id: run.config.protocol for id, run in planned.runs.items() if id in planned.cells}
    if len(set(named.values())) < 2 or None in named.values():
        return factors
    values: dict[str, set[tuple[str, str]]] = {key: set() for key in factors}
    for row in rows:
        row["protocol"] = row.get("protocol") or named[row["run_id"]]  # of an older row
        for key in factors:
            values[key].add((row["protocol"], str(row.get(key, ""))))
    several = {key for key in factors if len(values[key]) > len({protocol for protocol, _ in values[key]})}
    kept = [key for key in factors if key in ("layers", "n_per_class") or key in several]
    return ["protocol", *kept]


def _width(shown: Mapping[str, Sequence[str]]) -> int:
    """Characters of a table: of each column its widest text, a border, and a space on either side."""
    columns = ([line for text in [name, *texts] for line in text.split("\n")] for name, texts in shown.items())
    return 1 + sum(3 + max(map(len, lines)) for lines in columns)


def _fitted(shown: Mapping[str, Sequence[str]], width: int, whole: Collection[str]) -> Table:
    """A table whose `whole` columns are never cut; the others are folded if they must be."""
    table = Table(caption_justify="left")
    for name in shown:
        justify: Any = "left" if name in ("run", "protocol", "warning", "base", "of") else "right"
        table.add_column(name, justify=justify, no_wrap=name in whole, overflow="fold", min_width=3)
    for line in zip(*shown.values(), strict=True):
        table.add_row(*line)
    table.width = min(width, _width(shown)) if _width(shown) > width else None
    return table


def _marks(group: Sequence[Row]) -> str:
    """What went wrong with the runs of a cell, and with how many of them."""
    counts = {mark.replace("_", " "): sum(bool(row.get(mark)) for row in group) for mark in MARKS}
    few = {mark: f"{count} " if count < len(group) else "" for mark, count in counts.items() if count}
    return ", ".join(f"{few[mark]}{mark}" for mark in few)


def _mean(key: str, group: Sequence[Row]) -> str:
    """The mean of a measurement over the runs of a cell; of accuracy, with its standard deviation. Empty where a run
    lacks it, as one that diverged its loss."""
    values: list[Any] = [row.get(key) for row in group]
    if None in values:
        return ""
    shown = _number(key, mean(values))
    return f"{shown[:-1]} ± {100 * stdev(values):.1f}%" if key == "val_top1" and len(values) > 1 else shown


def footer(planned: Plan, rows: Sequence[Row | None]) -> list[str]:
    """What the table leaves out, and the next commands."""
    unique = {id: row for id, row in zip(planned.cells, rows, strict=True) if row is not None}
    results = planned.runs[planned.cells[0]].config.results_dir
    seen = [key for key in REPLICATES if key in planned.varying]
    lines = [f"± is the standard deviation over the runs of a cell ({', '.join(seen)})"] if seen else []
    if len({row["run_id"] for row in unique.values()}) > MOST_ROWS:
        lines.append(f"the first {MOST_ROWS} cells at most are shown")
    place = shlex.quote(str(results))
    return [
        *lines,
        f"runs:        python -m tlprotocols.results list {place}",
        f'all columns: from tlprotocols.results import load; load("{results}")',
        f"figures:     python -m analysis --results {place} --out report",
    ]


def _number(key: str, value: float) -> str:
    return f"{100 * value:.1f}%" if "top1" in key else f"{value:.3f}"


def cautions(planned: Plan) -> list[str]:
    """What somebody who reads the table should know, a line each."""
    return [*_slow_scratch(planned), *_common_classes(planned), *_half_of_the_classes(planned)]


def _common_classes(planned: Plan) -> list[str]:
    groups = [
        run.config.classes for run in planned.requested if run.config.layers and run.config.base.name == "trained"
    ]
    common = sorted({name for classes in groups for name in set(classes.source or ()) & set(classes.target or ())})
    if not common:
        return []
    names = ", ".join(common[:5]) + (", ..." if len(common) > 5 else "")
    return [f"note: the base is trained on {plural(len(common), 'target class', 'es')}: {names} in classes.source too"]


def _half_of_the_classes(planned: Plan) -> list[str]:
    """A base of other images has not seen any of the classes, so that a sweep of half of them is hardly meant."""
    halves = [
        run.config
        for run in planned.requested
        if run.config.dataset.name == "folder"
        and run.config.base.name in ("weights", "dataset")
        and run.config.classes.name == "random"
    ]
    if not halves:
        return []
    known = source(halves[0].dataset, halves[0].machine.image_cache).classes
    learned = len(target_classes(halves[0], known))
    return [
        f"note: {learned} of the {len(known)} classes are learned (half {halves[0].target}); with classes=all, all are"
    ]


def _slow_scratch(planned: Plan) -> list[str]:
    scratch = [run.config for run in planned.requested if run.config.layers == 0]
    slow = max((slow_layers(config) for config in scratch), default=0)
    if not slow:
        return []
    return [
        f"note: a cell with layers=0 trains {plural(slow, 'random layer')} below lr.high from the first epoch;"
        " the baseline without transfer is protocol=scratch"
    ]
