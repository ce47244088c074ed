"""A sweep on this machine, as a person sees it: what will run, a bar with the time left, what failed, the table."""

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tlprotocols.config.schema import Config
from tlprotocols.images import source
from tlprotocols.launching import pool as local
from tlprotocols.planning.cost import Cost, cost, remember
from tlprotocols.planning.plan import Plan, Run, plan, resolved
from tlprotocols.results import Row, factors, files, read_row, run_id, write_aside

MEASURED = {"val_top1": "top-1", "val_loss": "val loss", "train_loss": "train loss", "base_top1": "base top-1"}
MARKS = ("collapsed", "diverged", "base_collapsed", "base_diverged")
WORTH_A_LINE = 2.0  # seconds
MOST_ROWS = 60  # of a table in a terminal


def sweep(
    configs: Sequence[Config], slots: list[str | None], dry_run: bool = False, retry_failed: bool = False
) -> list[Row | None]:
    """Run whatever of these configurations is not finished; returns the row of each, None where there is none.

    Everything is checked before anything starts: a ConfigError leaves no trace. `slots` are the workers, each with
    the GPU it is pinned to. `dry_run` only prints the plan, which is also the state of a sweep that is under way.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    read_contents(console, configs)
    planned = plan([resolved(config) for config in configs], retry_failed)
    costs = cost(planned.to_run, here=True)
    for line in cautions(planned):
        console.print(line, soft_wrap=True)
    if dry_run:
        console.print(overview(planned, costs))
        print(summary(planned, costs, len(slots)))
        return local.rows(planned)
    _announce(console, planned, costs, len(slots))
    failed = {
        run.id: f"in an earlier attempt ({planned.failed[run.id]})" for run in planned.asked if run.id in planned.failed
    }
    if planned.to_run:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the workers are ended, too, when somebody ends us
        try:
            _fill_store(console, planned)
            failed |= _carry_out(console, planned, slots)
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on from here")
            raise
    rows = local.rows(planned)
    mark_asked_for(planned, rows)
    console.print(table(planned, rows))
    for id, reason in failed.items():
        paths = files(planned.runs[id].config)
        console.print(f"[red]failed[/red] {name(planned, planned.runs[id])}: {reason}", soft_wrap=True)
        console.print(f"       log: {paths.log}, {paths.failure}", soft_wrap=True)
    for id in planned.running:
        console.print(f"running in another process: {name(planned, planned.runs[id])}", soft_wrap=True)
    return rows


def read_contents(console: Console, configs: Sequence[Config]) -> None:
    """Read the content of images that were never read, or that changed: it decides which runs these are."""
    for listed in {id(s): s for s in (source(c.dataset, c.machine.store) for c in configs)}.values():
        total = listed.unread
        if not total:
            continue
        begun = time.monotonic()
        with progress_bar(console if console.is_terminal else Console(stderr=True, quiet=True)) as progress:
            task = progress.add_task("reading image files", total=total, unit="files")
            listed.read(lambda images, task=task: progress.advance(task, images))  # type: ignore[misc]
        if time.monotonic() - begun >= WORTH_A_LINE:
            console.print(f"{total:,} image files read for their digest ({time.monotonic() - begun:.0f} s)")


def cautions(planned: Plan) -> list[str]:
    """What a reader of the table should know of it, a line each."""
    weak = [run for run in planned.asked if run.config.layers == 0 and not run.config.all_new_layers_high]
    if not weak:
        return []
    rest = len(weak[0].config.model.stages) - weak[0].config.high_lr_layers
    return [
        f"note: layers=0 with high_lr_layers={weak[0].config.high_lr_layers} trains {rest} random layers at the low"
        " rate; the baseline without transfer is protocol=scratch"
    ]


def summary(planned: Plan, costs: Cost, slots: int) -> str:
    """The plan in one line that a script can read."""
    states = Counter(planned.state(run) for run in planned.asked)
    todo = planned.to_run
    bases = len({run.id for run in todo} - set(planned.cells))
    hours = costs.hours(todo, slots)
    return (
        f"plan: cells={len(planned.cells)} runs={len(planned.asked)} finished={states['finished']}"
        f" running={states['running']} failed={states['failed']} to_run={states['to_run']} bases={bases}"
        f" image_passes={planned.image_passes} hours={hours:.3f}"
    )


def shared(by_sweep: Mapping[str, list[list[str]]], compose: Callable[[list[str]], Config]) -> str:
    """What each sweep of a study adds to the runs of those before it, a line a sweep."""
    seen: set[str] = set()
    lines = []
    for name, cells in by_sweep.items():
        ids = {run_id(compose(cell)) for cell in cells}
        lines.append(f"sweep: {name} cells={len(cells)} runs={len(ids)} not_in_those_above={len(ids - seen)}")
        seen |= ids
    return "\n".join(lines)


def overview(planned: Plan, costs: Cost) -> Table:
    """How the runs stand, per base network and images per class."""
    shown = Table(caption="hours are a guess: this machine has not trained such runs yet" if costs.guessed else None)
    for name in ("base", "of", "n", "runs", "finished", "running", "failed", "to run", "image passes"):
        shown.add_column(name, justify="left" if name in ("base", "of") else "right")
    by: dict[tuple[str | None, str], list[Run]] = {}
    for run in planned.asked:
        by.setdefault((run.base, str(run.config.n_per_class)), []).append(run)
    for (base, n), runs in by.items():
        states = Counter(planned.state(run) for run in runs)
        done = "" if base is None else "finished" if base in planned.rows else planned.state(planned.runs[base])
        passes = sum(run.image_passes for run in runs if planned.state(run) == "to_run")
        counts = [str(states[state]) for state in ("finished", "running", "failed", "to_run")]
        of = f"split {runs[0].config.split} half {runs[0].config.target} seed {runs[0].config.seed}" if base else ""
        shown.add_row(f"{base} {done}" if base else "none", of, n, str(len(runs)), *counts, f"{passes:,}")
    return shown


def table(planned: Plan, rows: Sequence[Row | None]) -> Table:
    """The swept factors and what was measured, one line a unique run."""
    varying = _varying(planned)
    unique = {id: row for id, row in zip(planned.cells, rows, strict=True) if row is not None}
    results = planned.runs[planned.cells[0]].config.results_dir
    more = f"{len(unique) - MOST_ROWS} more; " if len(unique) > MOST_ROWS else ""
    shown = Table(
        caption=f'{more}all columns: from tlprotocols.results import load; load("{results}")', caption_justify="left"
    )
    for name in ("run", *varying, *MEASURED.values(), ""):
        shown.add_column(name, justify="right" if name != "run" else "left")
    for id, row in list(unique.items())[:MOST_ROWS]:
        values = [
            f"{100 * row[k]:.1f}%" if "top1" in k and row.get(k) is not None else _number(row.get(k)) for k in MEASURED
        ]
        marks = ", ".join(mark.replace("_", " ") for mark in MARKS if row.get(mark))
        shown.add_row(id, *(str(row.get(key, "")) for key in varying), *values, marks)
    return shown


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _varying(planned: Plan) -> list[str]:
    """Factors that differ between the cells, in the schema's order; layers and n_per_class in any case."""
    seen = [factors(planned.runs[id].config) for id in dict.fromkeys(planned.cells)]
    keys = list(dict.fromkeys(key for row in seen for key in row))
    several = [key for key in keys if len({json.dumps(row.get(key)) for row in seen}) > 1]
    fixed = [key for key in ("n_per_class", "layers") if key not in several]
    return [*fixed, *(key for key in several if not key.startswith("base."))]


def name(planned: Plan, run: Run) -> str:
    """A run as a person knows it."""
    if run.role == "base":
        return f"base {run.id} (split {run.config.split}, half {run.config.target}, seed {run.config.seed})"
    row = factors(run.config)
    return " ".join([run.id, *(f"{key}={row[key]}" for key in _varying(planned) if key in row)])


def _announce(console: Console, planned: Plan, costs: Cost, slots: int) -> None:
    todo, states = planned.to_run, Counter(planned.state(run) for run in planned.asked)
    said = [f"{len(planned.cells)} cells, {len(planned.asked)} runs"]
    said += [f"{count} {state.replace('_', ' ')}" for state, count in states.items()]
    if todo:
        bases = len({run.id for run in todo} - set(planned.cells))
        about = f"{3600 * costs.hours(todo, slots) / 60:.1f} minutes{' (a guess)' if costs.guessed else ''}"
        said += [f"{bases} base network{'s' * (bases > 1)} first"] if bases else []
        said += [f"{planned.image_passes:,} image passes on {slots} workers, about {about}"]
    console.print(", ".join(said))
    if states["failed"]:
        console.print("failed runs stay failed: hydra.launcher.retry_failed=true tries them again")


def progress_bar(console: Console) -> Progress:
    """With the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(
        *columns,
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        console=console,
    )


def _fill_store(console: Console, planned: Plan) -> None:
    missing = local.missing_images(planned)
    total = sum(store.counts(part)[label] for store, jobs in missing.items() for part, label in jobs)
    if not total:
        return
    begun = time.monotonic()
    with progress_bar(console) as progress:
        task = progress.add_task("decoding images", total=total, unit="images")
        for store, jobs in missing.items():
            store.ensure(jobs, local.cores(), lambda images: progress.advance(task, images))
    console.print(
        f"{total:,} images decoded into {', '.join(str(s.folder) for s in missing)} ({time.monotonic() - begun:.0f} s)"
    )


def _carry_out(console: Console, planned: Plan, slots: list[str | None]) -> dict[str, str]:
    done: dict[str, int] = {}  # images trained on, by run
    begun: dict[str, float] = {}
    with progress_bar(console) as progress:
        task = progress.add_task("training", total=planned.image_passes, unit="image passes")

        def listen(what: str, run: Run, detail: object) -> None:
            if what == "started":
                begun[run.id], done[run.id] = time.monotonic(), 0
                return
            if what == "advance":
                done[run.id] += int(str(detail))
            elif what == "retried":
                console.print(f"[yellow]again[/yellow]  {name(planned, run)}: {detail}")
                done[run.id] = 0
            else:
                done[run.id] = run.image_passes  # also when it stopped early: nothing of it is left to do
                seconds = f"{time.monotonic() - begun[run.id]:.1f} s" if run.id in begun else str(detail)
                colour = "green" if what == "finished" else "red"
                console.print(f"[{colour}]{what:8}[/{colour}] {name(planned, run)}  {seconds}")
            if what == "finished":
                remember([(run.config, row)] if (row := read_row(files(run.config).row)) else [])
            progress.update(task, completed=sum(done.values()))

        return local.carry_out(planned, slots, listen)


def mark_asked_for(planned: Plan, rows: Sequence[Row | None]) -> None:
    """A base that somebody asks for as a run, too, becomes a row of the table."""
    for id, row in dict(zip(planned.cells, rows, strict=True)).items():
        if row is not None and row["role"] == "base":
            write_aside(files(planned.runs[id].config).row, json.dumps(row | {"role": "run"}, indent=1))
