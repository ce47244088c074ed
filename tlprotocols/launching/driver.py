"""A sweep, from its configurations to the table: plan, estimate, announce, execute, report; for every backend."""

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter, itemgetter
from pathlib import Path

from tlprotocols.config.identity import run_id
from tlprotocols.config.schema import Config, Dataset
from tlprotocols.config.validate import keys
from tlprotocols.disk import check_folder, free_bytes
from tlprotocols.errors import ConfigError
from tlprotocols.hardware import cores, device, memory_bytes, precision
from tlprotocols.images import forget, source
from tlprotocols.images.cache import ImageCache, Job, missing_images
from tlprotocols.images.repeated import repeated_images
from tlprotocols.launching.backend import Backend, OnEvent
from tlprotocols.launching.terminal import Terminal, cautions, footer, plural, size, table
from tlprotocols.planning.cost import cost
from tlprotocols.planning.plan import Plan, Run, plan, resolved
from tlprotocols.records import Row, add_sweep, files, finished_row, show_base_as_run
from tlprotocols.results import trackers

WORTH_A_LINE = 2.0  # seconds
MOST_FEATURES = 2**15  # that the head of a network gets


def sweep(configs: Sequence[Config], backend: Backend, table_shown: bool = True) -> list[Row | None] | None:
    """Execute whatever of these configurations is not finished. Returns the row of each, None where there is none;
    None in all if nothing was waited for: with `dry_run`, and where the backend left before the end.

    Everything is checked before anything starts: a ConfigError leaves no trace. `dry_run` only prints the plan, which
    is also the state of a sweep that is under way.
    """
    backend.check()
    _check_settings(configs)
    if configs[0].tracker:
        trackers.check(configs[0].tracker)
    results = Path(configs[0].results_dir).expanduser()
    check_folder("results_dir", results, write=False)
    given = [absolute(config) for config in configs]
    terminal = Terminal()
    forget()
    _read_contents(terminal, given)
    configs = [resolved(backend.resolve(config)) for config in given]
    _check_weights(configs)
    planned = backend.look(plan(configs, backend.retry_failed))
    costs, parallel = cost(planned, backend.is_here), backend.parallel(configs)
    if planned.to_run:
        check_folder("results_dir", results, write=True)
    missing = missing_images(run.config for run in planned.to_run)
    notes = _memory(planned.to_run, missing, parallel) if backend.is_here else []
    notes += [*_finished_in_another_precision(given, planned), *_finished_by_another_name(planned)]
    for line in [*cautions(planned), *notes, *_room(missing, backend.is_here, backend.dry_run)]:
        terminal.print(line)
    if backend.dry_run:
        terminal.failures(planned, planned.failures, lambda run: logs(run) + backend.logs(run))
        terminal.status(planned, costs, parallel)
        return None
    terminal.announce(planned, costs, parallel)
    failed = planned.failures
    if planned.to_run or planned.running:
        if backend.is_here:
            _decode(terminal, missing)
            for line in repeated_images(run.config for run in planned.to_run):
                terminal.print(line)
        with terminal.training(planned) as on_event:
            ended = backend.execute(planned, costs, _tracking(on_event, configs[0]))
        if ended is None:
            for id in planned.rows:
                add_sweep(planned.runs[id].config)
            return None
        failed |= ended
    rows = planned.read_rows()
    for id, row in dict(zip(planned.cells, rows, strict=True)).items():
        if row is not None:  # finished before, or by another sweep that runs beside this one
            add_sweep(planned.runs[id].config)
        if row is not None and row.get("role") == "base":
            show_base_as_run(planned.runs[id].config)
        elif row is None and id in planned.running and id not in failed:
            terminal.print(f"running {planned.running[id]}: {planned.name(planned.runs[id])}")
    for line in _tracked(configs[0], planned.runs):
        terminal.print(line)
    if table_shown:
        terminal.print(table(planned, rows, terminal.console.width))
        for line in footer(planned, rows):
            terminal.print(line)
    terminal.failures(planned, failed, lambda run: logs(run) + backend.logs(run))
    return rows


def _tracking(on_event: OnEvent, config: Config) -> OnEvent:
    """The same receiver of events, which also lets the tracker write each run that is finished."""
    if config.tracker is None:
        return on_event

    def both(what: str, run: Run | None, detail: object) -> None:
        on_event(what, run, detail)
        if what == "finished" and run is not None:
            for line in _tracked(config, [run.id]):
                on_event("note", None, line)

    return both


def _tracked(config: Config, ids: Iterable[str]) -> list[str]:
    """Let the tracker, if there is one, write these runs as far as they are finished. What it cannot do stops no sweep:
    a line says so."""
    if config.tracker is None:
        return []
    results = Path(config.results_dir)
    try:
        trackers.track(_tracker(config.tracker, results), results, list(ids))
    except Exception as error:  # of whatever the library does: a server, a disk, a login
        again = f"python -m tlprotocols.results track {config.tracker} {results}"
        what = str(error) if isinstance(error, trackers.NotWritten) else f"{type(error).__name__}: {error}"
        return [f"tracker={config.tracker}: {what}; later: {again}"]
    return []


@functools.cache
def _tracker(name: str, results: Path) -> trackers.Tracker:
    return trackers.TRACKERS[name](trackers.place_of(name, results))


def absolute(config: Config) -> Config:
    """The same with no path relative to our working directory or home: other processes and nodes have their own."""

    def whole(path: str) -> str:
        return str(Path(path).expanduser().absolute())

    def listed(dataset: Dataset) -> Dataset:
        return replace(dataset, root=dataset.root and whole(dataset.root))

    base = replace(config.base, dataset=config.base.dataset and listed(config.base.dataset))
    machine = replace(config.machine, image_cache=whole(config.machine.image_cache))
    return replace(
        config, dataset=listed(config.dataset), base=base, machine=machine, results_dir=whole(config.results_dir)
    )


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
    return [str(path) for path in (paths.log, paths.failure, paths.accident) if path.exists()]


def _check_weights(configs: Sequence[Config]) -> None:
    """Refuse files of weights that do not fit, before anything starts."""
    if any(config.base.digest for config in configs):
        from tlprotocols.training import weights_file  # needs torch, which a plan otherwise does without

        weights_file.check(configs)


def prepared(config: Config, backend: Backend) -> Config:
    """The configuration as a sweep of it would run it, with the digests of its files and the backend's device."""
    given = absolute(config)
    _read_contents(Terminal(), [given])
    return resolved(backend.resolve(given))


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


def _check_settings(configs: Sequence[Config]) -> None:
    """Refuse a sweep over what is no factor: such cells are one run, and one of the values would be ignored."""
    for key, about in keys():
        if about["factor"] or not key.startswith(("machine.", "results_dir", "tracker")):
            continue
        values = list(dict.fromkeys(attrgetter(key)(config) for config in configs))
        if len(values) > 1:
            shown = ",".join(map(str, values))
            raise ConfigError(key, shown, "is no factor: a sweep has one value; give a command for each")


def _memory(runs: Sequence[Run], missing: Mapping[ImageCache, list[Job]], parallel: int) -> list[str]:
    """A line where `parallel` runs at a time may need more memory than this machine has.

    Raises:
        ConfigError: a single run needs more, or decoding a single class does. Memory of a GPU is not estimated.
    """
    there = memory_bytes()
    for cache, jobs in missing.items():
        need = 2 * max(cache.bytes([job]) for job in jobs)  # its images one by one, and together
        if need > there:
            legal = f"decoding a class needs {size(need)} of memory and {size(there)} are here; give a smaller side"
            raise ConfigError("dataset.side", cache.dataset.side, legal)
    suspects = {
        (c.model, c.dataset.input_pixels, c.batch_size, c.shards, c.head, c.freeze, run.images): run
        for run in runs
        for c in [run.config]
        if device(c.machine) == "cpu" and parallel * _most_bytes(run) > there
    }
    if not suspects:
        return []
    from tlprotocols.training.memory_estimate import bytes_needed  # needs torch, which a plan otherwise does without

    need, config = max(
        ((bytes_needed(run.config, run.images), run.config) for run in suspects.values()), key=itemgetter(0)
    )
    if need > there:
        what = f"{config.model.name} of width {config.model.width:g}, shards={config.shards}"
        legal = f"a run needs about {size(need)} of memory ({what}) and {size(there)} are here; lower one of these"
        raise ConfigError("batch_size", config.batch_size, legal)
    if parallel * need <= there:
        return []
    fit = f"{size(there)} are here for {parallel} at a time; hydra.launcher.workers={int(there // need)} fits"
    return [f"note: a run needs about {size(need)} of memory, and {fit}"]


def _finished_by_another_name(planned: Plan) -> list[str]:
    """A line where a protocol of the user's own has the values of finished runs that have another name: the name is a
    label, and the table finds these rows by the one that they have."""
    pairs = [(row.get("protocol"), planned.runs[id].config.protocol) for id, row in planned.rows.items()]
    other = [pair for pair in pairs if None not in pair and pair[0] != pair[1]]
    if not other:
        return []
    had, wanted = other[0]
    runs = "a finished run has" if len(other) == 1 else f"{len(other)} finished runs have"
    return [f"note: {runs} the values of protocol={wanted}, and in the table the name {had}, under which load finds it"]


def _finished_in_another_precision(given: Sequence[Config], planned: Plan) -> list[str]:
    """A line where runs to run have finished on a machine on which `auto` stands for another precision. Here they are
    other runs: a sweep that changes machines would start anew without a word."""
    to_run = {run.id: run.config for run in planned.to_run}
    found, named = set[str](), dict[str, tuple[str, str]]()
    for before, id in zip(given, planned.cells, strict=True):
        auto = [key for key in ("precision", "base.precision") if attrgetter(key)(before) == "auto"]
        if not auto or id not in to_run:
            continue
        config = to_run[id]
        here = precision("auto", config.machine)
        there = "fp32" if here == "bf16" else "bf16"
        other = replace(
            config,
            precision=there if "precision" in auto else config.precision,
            base=replace(config.base, precision=there) if "base.precision" in auto else config.base,
        )
        if finished_row(other, "run", verify=False) is not None:
            found.add(id)
            named |= dict.fromkeys(auto, (here, there))
    if not found:
        return []
    here, there = next(iter(named.values()))
    slow = " (slow on this processor)" if there == "bf16" else ""
    return [
        f"note: {plural(len(found), 'run')} of this sweep finished in {there}, but precision=auto is {here} here: they"
        f" will run in {here}, too; {' '.join(f'{key}={there}' for key in named)} keeps to {there}{slow}"
    ]


def _most_bytes(run: Run) -> float:
    """No run needs more: every weight, and every output of a layer, comes from a multiplication or more."""
    config, images = run.config, min(run.config.batch_size, run.images)
    model = config.model
    multiply_adds: float = model.spec.multiply_adds(config.dataset.input_pixels, model.width, **model.options)
    multiply_adds += sum(a * b for a, b in pairwise([MOST_FEATURES, *(config.head or [])]))
    return 4 * multiply_adds * (3 + config.shards + images / 4)


def _room(missing: Mapping[ImageCache, list[Job]], here: bool, dry_run: bool) -> list[str]:
    """What decoding will write and where, a line for each folder of image caches.

    Raises:
        ConfigError: it does not fit there (`dry_run` says so in a line); on a cluster, whose nodes may have a folder of
            that name, nobody looks.
    """
    lines = []
    for folder in dict.fromkeys(cache.folder.parent for cache in missing):
        caches = {cache: jobs for cache, jobs in missing.items() if cache.folder.parent == folder}
        need = sum(cache.bytes(jobs) for cache, jobs in caches.items())
        if not here:
            lines.append(f"image cache: up to {size(need)} to be decoded into {folder}")
            continue
        check_folder("machine.image_cache", folder, write=True)
        free = free_bytes(folder)
        if need > free:
            error = ConfigError(
                "machine.image_cache",
                folder,
                f"{size(need)} of decoded images are to be written and {size(free)} are free; give a folder with room"
                " (or set TLPROTOCOLS_IMAGE_CACHE), a smaller dataset.side, or fewer splits at a time",
            )
            if not dry_run:
                raise error
            lines.append(f"this sweep will be refused: {error}")
            continue
        lines.append(f"image cache: {size(need)} to be decoded into {folder}, {size(free)} are free")
    return lines


def _decode(terminal: Terminal, missing: Mapping[ImageCache, list[Job]]) -> None:
    begun = time.monotonic()
    total = sum(cache.counts(part)[label] for cache, jobs in missing.items() for part, label in jobs)
    if total:
        with terminal.progress("decoding images", total, "images") as advance:
            for cache, jobs in missing.items():
                cache.ensure(jobs, cores(), advance)
        folders = ", ".join(str(cache.folder) for cache in missing)
        terminal.print(f"{total:,} images decoded into {folders} ({time.monotonic() - begun:.0f} s)")
