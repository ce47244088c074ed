"""What one SLURM task does: a pack of runs, in workers of its own, one thread each."""

import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import active_children
from pathlib import Path
from types import FrameType
from typing import Any, cast

from tlprotocols.config.schema import Machine
from tlprotocols.errors import ConfigError
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import Files, finished_row, read_config, reason

SHARED_FOLDER_LAG = 5.0  # seconds until a row that another node wrote must be visible here
LEFT_FOR_REQUEUE = 10.0  # of the seconds between SLURM's warning and the end


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
    machine: Machine | None = None  # the nodes' device and folders; a run's own file has those of who last began it

    def __call__(self) -> None:
        """Execute what is not finished."""
        from tlprotocols.hardware import cores
        from tlprotocols.images.cache import missing_images
        from tlprotocols.launching import workers

        signal.signal(signal.SIGTERM, _leave)
        if self.base and not self._has_base():
            self._block()
            return
        plan = self._plan()
        if not plan.to_run:
            return
        try:
            for cache, jobs in missing_images(run.config for run in plan.to_run).items():
                cache.ensure(jobs, cores())
        except ConfigError as error:  # an image that cannot be read: every run that needs it will say so
            print(error, file=sys.stderr, flush=True)
        workers.execute(plan, _slots(self.per_gpu), _on_event)

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
            config = replace(read_config(paths), results_dir=self.results)
            config = replace(config, machine=self.machine or config.machine)
            if finished_row(config, role) is None:
                runs[id] = Run(id, config, role, None, 0, 0)
            elif (record := JobRecord.read(paths)) and record.broken_off:  # finished as SLURM ended us
                replace(record, finished=_now()).write(paths)
        return Plan(tuple(runs), runs, rows={}, running={}, failed={})

    def _has_base(self) -> bool:
        """Whether the base is finished, and has its weights: somebody may have removed them since the submission."""
        paths = Files(Path(self.results), str(self.base))
        if not _appears(paths.row):
            return False
        try:
            config = replace(read_config(paths), results_dir=self.results)
        except (OSError, ValueError):
            return False
        return finished_row(config, "base") is not None

    def _block(self) -> None:
        paths = Files(Path(self.results), str(self.base))
        without = "its weights are gone or damaged" if paths.row.exists() else "it has no row"
        why = next((reason(path) for path in (paths.failure, paths.accident) if path.exists()), without)
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


def _slots(per_gpu: int) -> list[str | None]:
    """A worker per CPU of the job, or `per_gpu` on each of its GPUs."""
    from tlprotocols import hardware

    if hardware.gpus():
        return hardware.slots("cuda", per_gpu=per_gpu)
    return hardware.slots("cpu", int(os.environ.get("SLURM_CPUS_PER_TASK", hardware.cores())))


def _on_event(what: str, run: Run | None, detail: object) -> None:
    """Print what happens into the job's log, and record when a run began and when it ended."""
    if run is None or what == "advance":
        return
    paths = Files(Path(run.config.results_dir), run.id)
    ended = what == "finished" or (what == "failed" and paths.failure.exists())  # not by an accident of the machine
    record = JobRecord.read(paths) if what == "started" or ended else None
    if record:
        started = _now() if what == "started" else record.started
        replace(record, started=started, finished=_now() if ended else None).write(paths)
    if what == "failed":
        marks = failures_seen(paths.results)
        marks.mkdir(parents=True, exist_ok=True)
        (marks / run.id).touch()
    print(_now(), what, run.id, detail or "", flush=True)


def failures_seen(results: Path) -> Path:
    """The folder with an empty file for each run that failed in a job: who waits lists it, instead of thousands."""
    return results / "slurm" / "failed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
