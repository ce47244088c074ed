"""What a person sees of a sweep: the plan, a bar with the time left, what failed, the table."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tlprotocols.launching.backend import OnEvent
from tlprotocols.lr_schedule import slow_layers
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import Row

MEASURED = {"val_top1": "top-1", "val_loss": "val loss", "train_loss": "train loss", "base_top1": "base top-1"}
MARKS = ("collapsed", "diverged", "base_collapsed", "base_diverged")
MOST_ROWS = 60  # of a table or a list in a terminal


class Terminal:
    """The console of one sweep."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

    def print(self, content: object) -> None:
        """A line, however long, or a table."""
        self.console.print(content, soft_wrap=isinstance(content, str))

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
        with self._bar() as bar:
            task = bar.add_task("training", total=sum(total.values()), unit="image passes", visible=False)

            def on_event(what: str, run: Run | None, detail: object) -> None:
                if run is None:
                    self.print(detail)
                    return
                if what == "started":
                    started[run.id], done[run.id] = time.monotonic(), 0
                elif what == "advance":
                    done[run.id] = done.get(run.id, 0) + int(str(detail))
                elif what == "retried":
                    self.print(f"[yellow]again   [/yellow] {planned.name(run)}: {detail}")
                    done[run.id] = 0
                else:
                    done[run.id] = run.image_passes  # also when it stopped early: nothing of it is left to do
                    seconds = f"{time.monotonic() - started[run.id]:.1f} s" if run.id in started else ""
                    colour = "green" if what == "finished" else "red"
                    self.print(f"[{colour}]{what:8}[/{colour}] {planned.name(run)}  {detail or seconds}")
                total.setdefault(run.id, run.image_passes)  # of an earlier command, and waited for
                bar.update(task, completed=sum(done.values()), total=sum(total.values()), visible=True)

            yield on_event

    def _bar(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        return Progress(*columns, MofNCompleteColumn(), TextColumn("{task.fields[unit]}"), console=self.console)

    def announce(self, planned: Plan, costs: Cost, parallel: int) -> None:
        """What will happen now, in a line."""
        states = Counter(planned.state(run) for run in planned.requested)
        parts = [plural(len(planned.cells), "cell"), plural(len(planned.requested), "run")]
        parts += [f"{count:,} {state.replace('_', ' ')}" for state, count in states.items()]
        if planned.to_run:
            bases = planned.bases_to_run
            parts += [f"{plural(bases, 'base network')} first"] if bases else []
            about = duration(3600 * costs.hours(planned.to_run, parallel)) + (" (a guess)" if costs.guessed else "")
            parts += [f"{planned.image_passes:,} image passes on {plural(parallel, 'worker')}, about {about}"]
        self.print(", ".join(parts))
        if states["failed"]:
            self.print("failed runs stay failed: hydra.launcher.retry_failed=true tries them again")

    def status(self, planned: Plan, costs: Cost, parallel: int) -> None:
        """The plan, where every run is that is elsewhere, and the line for scripts."""
        self.print(overview(planned, costs))
        for id, where in list(planned.running.items())[:MOST_ROWS]:
            self.print(f"{planned.name(planned.runs[id])}: {where}")
        if len(planned.running) > MOST_ROWS:
            self.print(f"{len(planned.running) - MOST_ROWS} more are running or queued")
        print(summary(planned, costs, parallel))

    def failures(self, planned: Plan, failed: Mapping[str, str], logs: Callable[[Run], list[str]]) -> None:
        """Every run that failed, why, and where to read more."""
        for id, reason in failed.items():
            run = planned.runs[id]
            self.print(f"[red]failed[/red] {planned.name(run)}: {reason}")
            found = logs(run)
            self.print(f"       log: {', '.join(found)}" if found else "       it never began")


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


def overview(planned: Plan, costs: Cost) -> Table:
    """How the runs stand, per base network and images per class."""
    shown = Table(caption="hours are a guess: this machine has not trained such runs yet" if costs.guessed else None)
    for name in ("base", "of", "n", "runs", "finished", "running", "failed", "to run", "image passes"):
        shown.add_column(name, justify="left" if name in ("base", "of") else "right")
    by: dict[tuple[str | None, str], list[Run]] = {}
    for run in planned.requested:
        by.setdefault((run.base or run.config.base.digest, str(run.config.n_per_class)), []).append(run)
    for (weights, n), runs in by.items():
        states, base = Counter(planned.state(run) for run in runs), runs[0].base
        done = "" if base is None else "finished" if base in planned.rows else planned.state(planned.runs[base])
        passes = sum(run.image_passes for run in runs if planned.state(run) == "to_run")
        counts = [str(states[state]) for state in ("finished", "running", "failed", "to_run")]
        of = f"split {runs[0].config.split} half {runs[0].config.target} seed {runs[0].config.seed}" if base else ""
        name = f"{base} {done}" if base else f"weights {weights}" if weights else "none"
        shown.add_row(name, of, n, str(len(runs)), *counts, f"{passes:,}")
    return shown


def table(planned: Plan, rows: Sequence[Row | None]) -> Table:
    """The swept factors and what was measured, one line a unique run."""
    unique = {id: row for id, row in zip(planned.cells, rows, strict=True) if row is not None}
    results = planned.runs[planned.cells[0]].config.results_dir
    more = f"{len(unique) - MOST_ROWS} more; " if len(unique) > MOST_ROWS else ""
    shown = Table(
        caption=f'{more}all columns: from tlprotocols.results import load; load("{results}")', caption_justify="left"
    )
    listed = list(unique.items())[:MOST_ROWS]
    marks = [", ".join(mark.replace("_", " ") for mark in MARKS if row.get(mark)) for _, row in listed]
    marked = any(marks)  # a column only where a run needs attention
    for name in ("run", *planned.varying, *MEASURED.values(), *["warning"] * marked):
        shown.add_column(name, justify="right" if name != "run" else "left")
    for (id, row), mark in zip(listed, marks, strict=True):
        values = [_number(key, row.get(key)) for key in MEASURED]
        shown.add_row(id, *(str(row.get(key, "")) for key in planned.varying), *values, *[mark] * marked)
    return shown


def _number(key: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}%" if "top1" in key else f"{value:.3f}"


def cautions(planned: Plan) -> list[str]:
    """What somebody who reads the table should know, a line each."""
    return [*_slow_scratch(planned), *_common_classes(planned)]


def _common_classes(planned: Plan) -> list[str]:
    groups = [
        run.config.classes for run in planned.requested if run.config.layers and run.config.base.name == "trained"
    ]
    common = sorted({name for classes in groups for name in set(classes.source or ()) & set(classes.target or ())})
    if not common:
        return []
    names = ", ".join(common[:5]) + (", ..." if len(common) > 5 else "")
    return [f"note: the base is trained on {plural(len(common), 'target class', 'es')}: {names} in classes.source too"]


def _slow_scratch(planned: Plan) -> list[str]:
    scratch = [run.config for run in planned.requested if run.config.layers == 0]
    slow = max((slow_layers(config) for config in scratch), default=0)
    if not slow:
        return []
    return [
        f"note: a cell with layers=0 trains {plural(slow, 'random layer')} below lr.high from the first epoch;"
        " the baseline without transfer is protocol=scratch"
    ]
