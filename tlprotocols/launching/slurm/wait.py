"""Wait for runs that jobs of the queue execute."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tlprotocols.launching.backend import OnEvent
from tlprotocols.launching.slurm import queue
from tlprotocols.launching.slurm.claims import claims, files_of, records, shared
from tlprotocols.launching.slurm.job import failures_seen
from tlprotocols.launching.slurm.options import Options
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.launching.slurm.submit import may_grow
from tlprotocols.planning.plan import Run, blocked
from tlprotocols.records import finished_row, is_running, reason, write_atomic

FIRST_LOOK, SLOWEST_LOOK = 15.0, 120.0  # seconds between two calls of squeue; it grows
SECOND_LOOK = 4.0  # seconds until a job that left the queue without a result is looked for again
MOST_LOSSES = 3  # times that a run's job may end before the run begins


@dataclass
class Watch:
    """Waits for runs that jobs of the queue will do. Rows on disk are the truth, the queue is a hint."""

    results: Path
    options: Options
    on_event: OnEvent
    failed: dict[str, str]  # reasons by run, added to
    runs: dict[str, Run] = field(default_factory=dict)  # waited for
    again: dict[str, Run] = field(default_factory=dict)  # to be submitted again, by no fault of theirs
    losses: Counter[str] = field(default_factory=Counter)  # jobs of each run that ended before the run began
    absent: set[str] = field(default_factory=set)  # had left the queue when we last looked
    next_look: float = 0.0
    between_looks: float = field(default_factory=lambda: FIRST_LOOK)
    said: str = ""  # of the queue, the last time

    def wait(self, more: bool = False) -> None:
        """Return when every run has ended, or some are to be submitted again. With `more`, which says that runs are
        left for which there was no room, also after every look at the queue."""
        self.next_look = time.monotonic() + self.between_looks
        pause = 0.5
        while True:
            before = len(self.runs)
            self._read_results()
            looked = (self.runs or more) and time.monotonic() >= self.next_look
            if looked:
                self.look_at_queue()
            if self.again or (more and looked) or not (self.runs or more):
                return
            pause = 0.5 if len(self.runs) < before else min(10.0, pause * 1.3)
            time.sleep(min(pause, max(0.1, self.next_look - time.monotonic())))

    def add(self, runs: Mapping[str, Run], new: bool) -> None:
        """Wait for these too; `new` if some of them were submitted just now."""
        self.runs |= runs
        if new:
            self.between_looks = FIRST_LOOK

    def take_back(self) -> None:
        """These could not be submitted again: look for their jobs once more."""
        self.losses -= Counter(self.again.keys())
        self.runs |= self.again
        self.again.clear()

    def _end(self, run: Run, what: str, detail: str) -> None:
        self.runs.pop(run.id)
        if what == "failed":
            self.failed[run.id] = detail
        self.on_event(what, run, detail)

    def _read_results(self) -> None:
        """Two folders are listed, however many runs there are."""
        rows, marks = _listed(self.results / "rows"), _listed(failures_seen(self.results))
        for run in list(self.runs.values()):
            if f"{run.id}.json" in rows and finished_row(run.config, run.role) is not None:
                self._end(run, "finished", "")
            elif run.id in marks:
                self._end_failed(run)
            elif run.base in self.failed:
                self._end(run, "failed", blocked(run, self.failed))

    def _end_failed(self, run: Run) -> bool:
        """End a run that says itself why it failed."""
        paths = files_of(run)
        why = next((path for path in (paths.failure, paths.accident) if path.exists()), None)
        if why:
            self._end(run, "failed", reason(why))
        return why is not None

    def look_at_queue(self) -> None:
        """Ask SLURM once. If it does not answer, nothing has happened."""
        try:
            self._look()
        except queue.NoAnswer as error:
            self._say(f"SLURM gives no answer ({error}); the next query follows")
            self.next_look = time.monotonic() + self.between_looks

    def _look(self) -> None:
        found = records(self.runs.values())
        alive = claims(found, queue.queued(record.user for record in found.values()))
        self._say(f"queue: {queue.summary({claim.job.id: claim.job for claim in alive.values()}.values())}")
        gone = set(self.runs) - set(alive)
        if gone & self.absent:
            self._read_results()  # a row may have come after the last listing
            for id in gone & self.absent & set(self.runs):
                self._handle_lost_job(self.runs[id], found.get(id))
        self.absent = gone - set(self.again)
        self.between_looks = min(SLOWEST_LOOK, 1.5 * self.between_looks)
        self.next_look = time.monotonic() + (SECOND_LOOK if gone else self.between_looks)

    def _say(self, text: str) -> None:
        if text != self.said:
            self.on_event("queue", None, text)
        self.said = text

    def _handle_lost_job(self, run: Run, record: JobRecord | None) -> None:
        """Its job is gone and left no row that has all that is wanted."""
        if self._end_failed(run) or is_running(files_of(run)):  # another process, without a job of ours, has it
            return
        if run.base in self.failed:
            self._end(run, "failed", blocked(run, self.failed))
            return
        if record is None:
            self._submit_again(run, "it has no job")
            return
        if record.finished:  # for a sweep that wanted less: no curve, or no weights of what is a base now
            self._submit_again(run, f"its SLURM job {record.job} left less than is wanted of it; log {record.log}")
            return
        kind, words = queue.why_lost(record)
        if kind == "memory":
            role = "base" if run.role == "base" else "runs"
            if record.started is None or may_grow(record, role, self.options) or shared(run, record):
                self._submit_again(run, words)
                return
            write_atomic(files_of(run).failure, words)  # its own fault: not to be tried again by itself
        elif record.started is None and kind not in ("cancelled", "setup"):
            self._submit_again(run, words)
            return
        self._end(run, "failed", words)

    def _submit_again(self, run: Run, words: str) -> None:
        self.losses[run.id] += 1
        if self.losses[run.id] > MOST_LOSSES:
            self._end(run, "failed", f"{words}, for the {self.losses[run.id]}th time")
            return
        self.again[run.id] = self.runs.pop(run.id)


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
