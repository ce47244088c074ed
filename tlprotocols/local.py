"""Carry out a plan on this machine: persistent one-thread worker processes, one run at a time each."""

import dataclasses
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tlprotocols.datasets.store import Store, images_needed
from tlprotocols.plan import Plan, Run
from tlprotocols.results import Row, files, read_row, write_aside
from tlprotocols.worker import ONE_THREAD, serve

Listener = Callable[
    [str, Run, object], None
]  # what happened ("started", "advance", "finished", "failed"), to which run


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Worker:
    """The parent's end of a worker process."""

    process: SpawnProcess
    pipe: Connection
    gpu: int | None
    run: Run | None = None


@dataclass
class Pool:
    """Workers that carry out runs as their bases get finished."""

    slots: list[int | None]  # one worker each: the GPU it is pinned to, or None
    listen: Listener
    workers: list[Worker] = field(default_factory=list)

    def start(self, gpu: int | None) -> None:
        """Add a worker."""
        here, there = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=serve, args=(there, gpu), daemon=True)
        before = {key: os.environ.get(key) for key in ONE_THREAD}
        os.environ |= ONE_THREAD  # must be there before the child imports torch
        process.start()
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)
        there.close()
        self.workers.append(Worker(process, here, gpu))

    def close(self) -> None:
        """End the workers: at once those that are busy, as after Ctrl-C."""
        for worker in self.workers:
            if worker.run is None and worker.process.is_alive():
                with suppress(BrokenPipeError):
                    worker.pipe.send(None)
            else:
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
        self.workers.clear()


def carry_out(plan: Plan, slots: list[int | None], listen: Listener) -> dict[str, str]:
    """Carry out what remains of a plan; returns the failures, reason by run id. `listen` hears of every event.

    A run waits for its base; when a base fails, its dependants fail with that reason and everything else goes on. A
    worker that dies costs its run, which is tried once more on a new worker.
    """
    waiting, finished, failed = plan.to_run, set(plan.rows), dict[str, str]()
    retried: set[str] = set()
    for run in waiting:
        freeze_config(run)
    pool = Pool(slots[: len(waiting)], listen)
    try:
        for gpu in pool.slots:
            pool.start(gpu)
        while waiting or any(worker.run for worker in pool.workers):
            for run in [run for run in waiting if run.base in failed]:
                waiting.remove(run)
                failed[run.id] = f"blocked: its base {run.base} failed ({failed[str(run.base)]})"
                listen("failed", run, failed[run.id])
            for worker in pool.workers:
                ready = next((run for run in waiting if run.base is None or run.base in finished), None)
                if worker.run is None and ready is not None:
                    waiting.remove(ready)
                    worker.run = ready
                    listen("started", ready, None)
                    with suppress(BrokenPipeError):  # of a worker killed while idle: its end is heard next
                        worker.pipe.send((ready.config.results_dir, ready.id, ready.role))
            _hear(pool, waiting, finished, failed, retried)
    finally:
        pool.close()
    return failed


def _hear(pool: Pool, waiting: list[Run], finished: set[str], failed: dict[str, str], retried: set[str]) -> None:
    """Wait for the next words of some worker, and act on them."""
    by_pipe = {worker.pipe: worker for worker in pool.workers if worker.run}
    for pipe in wait(list(by_pipe), timeout=5) if by_pipe else []:
        worker = by_pipe[pipe]  # type: ignore[index]
        run = worker.run
        assert run is not None
        try:
            what, detail = worker.pipe.recv()
        except (EOFError, ConnectionResetError):  # reset: killed before it read its task
            what, detail = _after_death(pool, worker, run, waiting, retried)
        pool.listen(what, run, detail)
        if what != "advance":
            worker.run = None
        if what == "finished":
            finished.add(run.id)
        if what == "failed":
            failed[run.id] = str(detail)


def _after_death(pool: Pool, worker: Worker, run: Run, waiting: list[Run], retried: set[str]) -> tuple[str, str]:
    """Replace a worker that the system killed; its run is tried once more."""
    worker.process.join()
    reason = f"its process ended with exit code {worker.process.exitcode}"
    if worker.process.exitcode == -9:
        reason += " (killed: often the system was out of memory)"
    pool.workers.remove(worker)
    pool.start(worker.gpu)
    if run.id in retried:
        write_aside(files(run.config).failure, reason)
        return "failed", reason
    retried.add(run.id)
    waiting.insert(0, run)
    return "retried", reason


def freeze_config(run: Run) -> None:
    """Write down what a run will be: later edits of YAML files change nothing of it."""
    paths = files(run.config)
    paths.folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(run.config, results_dir=str(Path(run.config.results_dir).expanduser()))
    write_aside(paths.config, json.dumps(dataclasses.asdict(config), indent=1))


def fill_store(plan: Plan, advance: Callable[[int], None]) -> None:
    """Decode the images that the remaining runs need, on all cores."""
    for store, jobs in missing_images(plan).items():
        store.ensure(jobs, cores(), advance)


def missing_images(plan: Plan) -> dict[Store, list[tuple[str, int]]]:
    """Classes that are not in the store yet, by store."""
    needed: dict[Store, set[tuple[str, int]]] = {}
    for run in plan.to_run:
        needed.setdefault(Store.of(run.config), set()).update(images_needed(run.config))
    return {store: missing for store, jobs in needed.items() if (missing := store.missing(jobs))}


def rows(plan: Plan) -> list[Row | None]:
    """The row of every cell, in the order of the sweep; None where a run did not finish."""
    read = {id: read_row(files(plan.runs[id].config).row) for id in dict.fromkeys(plan.cells)}
    return [read[id] for id in plan.cells]
