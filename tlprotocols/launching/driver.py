"""A sweep, from its configurations to the table: plan, estimate, announce, execute, report; for every backend."""

import time
from collections.abc import Callable, Mapping, Sequence

from tlprotocols.config.identity import run_id
from tlprotocols.config.schema import Config
from tlprotocols.hardware import cores
from tlprotocols.images import forget, source
from tlprotocols.images.cache import missing_images
from tlprotocols.launching.backend import Backend
from tlprotocols.launching.terminal import Terminal, cautions, footer, table
from tlprotocols.planning.cost import cost
from tlprotocols.planning.plan import Plan, Run, plan, resolved
from tlprotocols.records import Row, add_sweep, files, show_base_as_run

WORTH_A_LINE = 2.0  # seconds


def sweep(configs: Sequence[Config], backend: Backend) -> list[Row | None] | None:
    """Execute whatever of these configurations is not finished. Returns the row of each, None where there is none;
    None in all if nothing was waited for: with `dry_run`, and where the backend left before the end.

    Everything is checked before anything starts: a ConfigError leaves no trace. `dry_run` only prints the plan, which
    is also the state of a sweep that is under way.
    """
    backend.check()
    terminal = Terminal()
    forget()
    _read_contents(terminal, configs)
    configs = [resolved(backend.resolve(config)) for config in configs]
    _check_weights(configs)
    planned = backend.look(plan(configs, backend.retry_failed))
    costs, parallel = cost(planned, backend.is_here), backend.parallel(configs)
    for line in cautions(planned):
        terminal.print(line)
    if backend.dry_run:
        terminal.failures(planned, planned.failures, lambda run: logs(run) + backend.logs(run))
        terminal.status(planned, costs, parallel)
        return None
    terminal.announce(planned, costs, parallel)
    failed = planned.failures
    if planned.to_run or planned.running:
        if backend.is_here:
            _decode(terminal, planned)
        with terminal.training(planned) as on_event:
            ended = backend.execute(planned, costs, on_event)
        if ended is None:
            return None
        failed |= ended
    rows = planned.read_rows()
    for id, row in dict(zip(planned.cells, rows, strict=True)).items():
        if row is not None and id in planned.rows:  # finished before
            add_sweep(planned.runs[id].config)
        if row is not None and row["role"] == "base":
            show_base_as_run(planned.runs[id].config)
        elif row is None and id in planned.running and id not in failed:
            terminal.print(f"running {planned.running[id]}: {planned.name(planned.runs[id])}")
    terminal.print(table(planned, rows, terminal.console.width))
    for line in footer(planned, rows):
        terminal.print(line)
    terminal.failures(planned, failed, lambda run: logs(run) + backend.logs(run))
    return rows


def new_by_sweep(by_sweep: Mapping[str, list[list[str]]], compose: Callable[[list[str]], Config]) -> str:
    """What each sweep of a study adds to the runs of those before it, a line a sweep."""
    seen: set[str] = set()
    lines = []
    for name, cells in by_sweep.items():
        ids = {run_id(compose(cell)) for cell in cells}
        lines.append(f"sweep: {name} cells={len(cells)} runs={len(ids)} new={len(ids - seen)}")
        seen |= ids
    return "\n".join(lines)


def logs(run: Run) -> list[str]:
    """The files that say what a run did."""
    paths = files(run.config)
    return [str(path) for path in (paths.log, paths.failure) if path.exists()]


def _check_weights(configs: Sequence[Config]) -> None:
    """Refuse files of weights that do not fit, before anything starts."""
    if any(config.base.digest for config in configs):
        from tlprotocols.training import weights_file  # needs torch, which a plan otherwise does without

        weights_file.check(configs)


def _read_contents(terminal: Terminal, configs: Sequence[Config]) -> None:
    """Read the content of images that were never read, or that changed: it decides which runs these are."""
    sources = [source(config.dataset, config.machine.image_cache) for config in configs]
    sources += [
        source(config.base.dataset, config.machine.image_cache, "base.dataset")
        for config in configs
        if config.layers and config.base.dataset is not None
    ]
    for listed in {id(found): found for found in sources}.values():
        total, begun = listed.unread, time.monotonic()
        if total:
            with terminal.progress("reading image files", total, "files", always=False) as advance:
                listed.read(advance)
        if time.monotonic() - begun >= WORTH_A_LINE:
            terminal.print(f"{total:,} image files read for their digest ({time.monotonic() - begun:.0f} s)")


def _decode(terminal: Terminal, planned: Plan) -> None:
    missing, begun = missing_images(run.config for run in planned.to_run), time.monotonic()
    total = sum(cache.counts(part)[label] for cache, jobs in missing.items() for part, label in jobs)
    if total:
        with terminal.progress("decoding images", total, "images") as advance:
            for cache, jobs in missing.items():
                cache.ensure(jobs, cores(), advance)
        folders = ", ".join(str(cache.folder) for cache in missing)
        terminal.print(f"{total:,} images decoded into {folders} ({time.monotonic() - begun:.0f} s)")
