"""What one SLURM task does: a pack of runs, in workers of its own, one thread each."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import active_children
from pathlib import Path
from types import FrameType
from typing import Any, cast

from tlprotocols.config import build
from tlprotocols.errors import ConfigError
from tlprotocols.plan import Plan, Run
from tlprotocols.results import Files, read_row, write_aside
from tlprotocols.scheduler import Claim

SHARED_FOLDER_LAG = 5.0  # seconds until a row that another node wrote must be visible here
LEFT_FOR_REQUEUE = 10.0  # of the seconds between SLURM's warning and the end
FULL = 0.95  # of the job's memory: before SLURM kills the whole job, the largest worker goes


@dataclass(frozen=True)
class Pack:
    """The callable that submitit pickles: it only names runs, whose frozen configurations lie in their folders.

    It can be started any number of times: finished runs are skipped, an interrupted one goes on from its checkpoint.
    """

    results: str
    runs: tuple[tuple[str, str], ...]  # (run id, role)
    base: str | None = None  # the run they copy from
    per_gpu: int = 1
    warning: float = 90.0  # seconds from SLURM's warning to the end

    def __call__(self) -> None:
        """Execute what is not finished."""
        from tlprotocols import local

        signal.signal(signal.SIGTERM, _leave)
        if self.base and not _appears(Files(Path(self.results), self.base).row):
            self._block()
            return
        plan, guard = self._plan(), MemoryGuard(job_memory())
        if not plan.to_run:
            return
        guard.start()
        try:
            local.fill_store(plan, lambda images: None)
        except ConfigError as error:  # an image that cannot be read: every run that needs it will say so
            print(error, file=sys.stderr, flush=True)
        local.carry_out(plan, slots(self.per_gpu), _listener(guard))

    def checkpoint(self) -> Any:
        """submitit calls this when SLURM warns of the time limit or of a preemption, and requeues what it returns.

        The workers save the state of their runs at the end of the epoch, if it comes in time; else an earlier
        checkpoint serves.
        """
        from submitit.helpers import DelayedSubmission

        end = time.monotonic() + max(1.0, self.warning - LEFT_FOR_REQUEUE)
        workers = active_children()
        for worker in workers:
            os.kill(cast(int, worker.pid), signal.SIGUSR2)
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
        return DelayedSubmission(self)

    def _plan(self) -> Plan:
        """These runs and nothing else: no base is trained here."""
        runs = {}
        for id, role in self.runs:
            paths = Files(Path(self.results), id)
            config = build(json.loads(paths.config.read_bytes()))
            lacks_curve = config.curve and not (paths.folder / "curve.csv").exists()
            if read_row(paths.row) is None or lacks_curve:
                runs[id] = Run(id, replace(config, results_dir=self.results), role, None, 0)
        return Plan(cells=tuple(runs), runs=runs, rows={})

    def _block(self) -> None:
        failure = Files(Path(self.results), str(self.base)).failure
        why = failure.read_text().strip().splitlines()[-1] if failure.exists() else "it has no row"
        print(f"blocked: the base {self.base} is not there ({why})", flush=True)


def _appears(path: Path) -> bool:
    """Whether a file is there; a network file system may need a moment and a listing to show it."""
    end = time.monotonic() + SHARED_FOLDER_LAG
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
        if path.parent.is_dir():
            os.listdir(path.parent)
    return True


def _leave(number: int, frame: FrameType | None) -> None:
    """SIGTERM: the job was cancelled, or preempted by a cluster that requeues it by itself. Nothing has failed."""
    raise SystemExit(143)


def slots(per_gpu: int) -> list[int | None]:
    """A worker per CPU of the job, or `per_gpu` on each of its GPUs."""
    from tlprotocols import hardware, local

    if not hardware.gpus():
        return [None] * int(os.environ.get("SLURM_CPUS_PER_TASK", local.cores()))
    # SLURM may have given us GPUs 2 and 3: their numbers stand here, unless there is only one way to see them
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpus = [int(gpu) for gpu in visible] if all(gpu.isdigit() for gpu in visible) else range(hardware.gpus())
    return [gpu for gpu in gpus for _ in range(per_gpu)]


def _listener(guard: "MemoryGuard") -> Callable[[str, Run, object], None]:
    """Prints what happens into the job's log, and completes the reasons of failures."""

    def listen(what: str, run: Run, detail: object) -> None:
        paths = Files(Path(run.config.results_dir), run.id)
        if what == "advance":
            return
        if what == "started":
            claim = Claim.read(paths)
            if claim:
                replace(claim, started=_now()).write(paths)
        killed = guard.take() if what in ("failed", "retried") and "-9" in str(detail) else None
        if killed and what == "failed":
            write_aside(paths.failure, killed)
        print(_now(), what, run.id, killed or detail or "", flush=True)

    return listen


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def job_memory() -> int | None:
    """Bytes that SLURM grants this job; None if it does not limit them."""
    if "SLURM_MEM_PER_NODE" in os.environ:
        return int(os.environ["SLURM_MEM_PER_NODE"]) << 20
    if "SLURM_MEM_PER_CPU" in os.environ:
        return int(os.environ["SLURM_MEM_PER_CPU"]) * int(os.environ.get("SLURM_CPUS_PER_TASK", 1)) << 20
    return None


class MemoryGuard(threading.Thread):
    """Ends the largest worker when the job's memory is nearly full: that costs one run, SLURM would end them all."""

    def __init__(self, limit: int | None) -> None:
        super().__init__(daemon=True)
        self.limit, self.last = limit, ""

    def run(self) -> None:
        """Look five times a second."""
        while self.limit:
            own = {pid: anonymous(pid) for worker in active_children() if (pid := worker.pid)}
            total = sum(own.values()) + anonymous(os.getpid())
            if own and total > FULL * self.limit:
                largest = max(own, key=own.__getitem__)
                self.last = (
                    f"out of memory: its process had {own[largest] / 2**30:.2f} GB of the job's "
                    f"{self.limit / 2**30:.2f} GB; raise hydra.launcher.mem_gb"
                )
                os.kill(largest, signal.SIGKILL)
            time.sleep(0.2)

    def take(self) -> str | None:
        """The reason for the last kill, once."""
        reason, self.last = self.last, ""
        return reason or None


def anonymous(pid: int) -> int:
    """Bytes of a process that no file backs: the mapped images, which all workers share, do not count."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):  # it ended just now
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
