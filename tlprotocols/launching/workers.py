"""Worker processes of this machine, seen from their parent: start them, give them runs, replace those that die."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from tlprotocols.hardware import SHARED_BY
from tlprotocols.launching.backend import OnEvent
from tlprotocols.launching.ready import Queue
from tlprotocols.launching.worker import ONE_THREAD, serve
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import save_if_no_job_reads


def execute(plan: Plan, slots: list[str | None], on_event: OnEvent) -> dict[str, str]:
    """Execute what remains of a plan; returns the failures, reason by run id.

    `slots` has an entry per worker: the GPU it is pinned to, or None. A run waits for its base; when a base fails, its
    dependants fail with that reason and everything else goes on. A worker that dies costs its run, which is tried once
    more on a new worker.
    """
    todo = plan.to_run_or_await
    for run in todo:
        save_if_no_job_reads(run.config)
    queue, pool = Queue(plan, on_event), Pool(slots[: len(todo)], on_event)
    try:
        for gpu in pool.slots:
            pool.start(gpu)
        while queue.ready or any(worker.run for worker in pool.workers):
            for worker in pool.workers:
                if worker.run is None and queue.ready:
                    worker.run = queue.ready.popleft()
                    on_event("started", worker.run, "")
                    with suppress(BrokenPipeError):  # of a worker killed while idle: its end is received next
                        worker.pipe.send((worker.run.config, worker.run.role))
            _receive(pool, queue)
    finally:
        pool.close()
    return queue.failed


@dataclass
class Worker:
    """The parent's end of a worker process."""

    process: SpawnProcess
    pipe: Connection
    gpu: str | None
    run: Run | None = None


@dataclass
class Pool:
    """The worker processes."""

    slots: list[str | None]  # one worker each: the GPU it is pinned to, or None
    on_event: OnEvent
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


def _receive(pool: Pool, queue: Queue) -> None:
    """Wait for the next message of some worker, and act on it."""
    by_pipe = {worker.pipe: worker for worker in pool.workers if worker.run}
    for pipe in wait(list(by_pipe), timeout=5) if by_pipe else []:
        worker = by_pipe[pipe]  # type: ignore[index]
        run = worker.run
        assert run is not None
        try:
            what, detail = worker.pipe.recv()
        except (EOFError, ConnectionResetError):  # reset: killed before it read its task
            what, detail = _after_death(pool, worker, run, queue)
        pool.on_event(what, run, detail or "")
        if what != "advance":
            worker.run = None
        if what == "finished":
            queue.finish(run)
        if what == "failed":
            queue.fail(run, str(detail))


def _after_death(pool: Pool, worker: Worker, run: Run, queue: Queue) -> tuple[str, str]:
    """Replace a worker that the system killed."""
    worker.process.join()
    reason = f"its process ended with exit code {worker.process.exitcode}"
    if worker.process.exitcode == -9:
        reason += " (killed: often the system was out of memory)"
    pool.workers.remove(worker)
    pool.start(worker.gpu)
    return queue.lose(run, reason)
