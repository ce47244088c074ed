"""Carry out a plan on this machine: persistent one-thread worker processes, one run at a time each."""

import dataclasses
import json
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tlprotocols.hardware import SHARED_BY
from tlprotocols.images.cache import Store, images_needed
from tlprotocols.launching.worker import ONE_THREAD, serve
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.results import Row, files, read_row, write_aside

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
    gpu: str | None
    run: Run | None = None


@dataclass
class Pool:
    """Workers that carry out runs as their bases get finished."""

    slots: list[str | None]  # one worker each: the GPU it is pinned to, or None
    listen: Listener
    workers: list[Worker] = field(default_factory=list)

    def start(self, gpu: str | None) -> None:
        """Add a worker."""
        here, there = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=serve, args=(there, gpu), daemon=True)
        given = {**ONE_THREAD, SHARED_BY: str(self.slots.count(gpu))}
        before = {key: os.environ.get(key) for key in given}
        os.environ |= given  # must be there before the child imports torch
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


def carry_out(plan: Plan, slots: list[str | None], listen: Listener) -> dict[str, str]:
    """Carry out what remains of a plan; returns the failures, reason by run id. `listen` hears of every event.

    A run waits for its base; when a base fails, its dependants fail with that reason and everything else goes on. A
    worker that dies costs its run, which is tried once more on a new worker.
    """
    todo = plan.to_run
    for run in todo:
        freeze_config(run)
    queue, pool = Queue(plan, listen), Pool(slots[: len(todo)], listen)
    try:
        for gpu in pool.slots:
            pool.start(gpu)
        while queue.ready or any(worker.run for worker in pool.workers):
            for worker in pool.workers:
                if worker.run is None and queue.ready:
                    worker.run = queue.ready.popleft()
                    listen("started", worker.run, None)
                    with suppress(BrokenPipeError):  # of a worker killed while idle: its end is heard next
                        worker.pipe.send((worker.run.config.results_dir, worker.run.id, worker.run.role))
            _hear(pool, queue)
    finally:
        pool.close()
    return queue.failed


class Queue:
    """Runs that can begin, and runs that wait for their base."""

    def __init__(self, plan: Plan, listen: Listener) -> None:
        self.listen = listen
        self.ready: deque[Run] = deque()
        self.held: dict[str, list[Run]] = {}  # by base
        self.failed: dict[str, str] = {}  # reason by run
        self.retried: set[str] = set()
        for run in plan.to_run:
            if run.base is None or run.base in plan.rows:
                self.ready.append(run)
            else:
                self.held.setdefault(run.base, []).append(run)

    def finish(self, run: Run) -> None:
        """Those that waited for it can begin."""
        self.ready.extend(self.held.pop(run.id, []))

    def fail(self, run: Run, reason: str) -> None:
        """Those that waited for it fail with it."""
        self.failed[run.id] = reason
        for blocked in self.held.pop(run.id, []):
            self.failed[blocked.id] = f"blocked: its base {run.id} failed ({reason})"
            self.listen("failed", blocked, self.failed[blocked.id])


def _hear(pool: Pool, queue: Queue) -> None:
    """Wait for the next words of some worker, and act on them."""
    by_pipe = {worker.pipe: worker for worker in pool.workers if worker.run}
    for pipe in wait(list(by_pipe), timeout=5) if by_pipe else []:
        worker = by_pipe[pipe]  # type: ignore[index]
        run = worker.run
        assert run is not None
        try:
            what, detail = worker.pipe.recv()
        except (EOFError, ConnectionResetError):  # reset: killed before it read its task
            what, detail = _after_death(pool, worker, run, queue)
        pool.listen(what, run, detail)
        if what != "advance":
            worker.run = None
        if what == "finished":
            queue.finish(run)
        if what == "failed":
            queue.fail(run, str(detail))


def _after_death(pool: Pool, worker: Worker, run: Run, queue: Queue) -> tuple[str, str]:
    """Replace a worker that the system killed; its run is tried once more."""
    worker.process.join()
    reason = f"its process ended with exit code {worker.process.exitcode}"
    if worker.process.exitcode == -9:
        reason += " (killed: often the system was out of memory)"
    pool.workers.remove(worker)
    pool.start(worker.gpu)
    if run.id in queue.retried:
        write_aside(files(run.config).failure, reason)
        return "failed", reason
    queue.retried.add(run.id)
    queue.ready.appendleft(run)
    return "retried", reason


def freeze_config(run: Run) -> None:
    """Write down what a run will be: later edits of YAML files change nothing of it."""
    paths = files(run.config)
    paths.folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(run.config, results_dir=str(Path(run.config.results_dir).expanduser()))
    write_aside(paths.config, json.dumps(dataclasses.asdict(config), indent=1))


def missing_images(plan: Plan) -> dict[Store, list[tuple[str, int]]]:
    """Classes that are not in the store yet, by store."""
    needed: dict[Store, set[tuple[str, int]]] = {}
    alike = {(c.dataset, c.classes, c.split, c.target): c for c in (run.config for run in plan.to_run)}
    for config in alike.values():
        needed.setdefault(Store.of(config), set()).update(images_needed(config))
    return {store: missing for store, jobs in needed.items() if (missing := store.missing(jobs))}


def rows(plan: Plan) -> list[Row | None]:
    """The row of every cell, in the order of the sweep; None where a run did not finish."""
    read = {id: read_row(files(plan.runs[id].config).row) for id in dict.fromkeys(plan.cells)}
    return [read[id] for id in plan.cells]
