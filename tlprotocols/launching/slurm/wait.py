"""Wait for runs that jobs of the queue execute."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from tlprotocols.launching.backend import OnEvent
from tlprotocols.launching.slurm import queue
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.planning.plan import Run, blocked
from tlprotocols.records import files, finished_row, reason, write_atomic

FIRST_LOOK, SLOWEST_LOOK = 15.0, 120.0  # seconds between two calls of squeue; it grows
SECOND_LOOK = 4.0  # seconds until a job that left the queue without a result is looked for again


@dataclass
class Watch:
    """Waits for runs that jobs of the queue will do. Rows on disk are the truth, the queue is a hint."""

    runs: list[Run]
    on_event: OnEvent
    failed: dict[str, str]  # reasons by run, added to
    again: list[Run] = field(default_factory=list)  # never begun, since their job died by no fault of theirs
    absent: set[str] = field(default_factory=set)  # had left the queue when we last looked
    next_look: float = 0.0
    between_looks: float = FIRST_LOOK

    def wait(self) -> None:
        """Return when every run has ended."""
        self.next_look = time.monotonic() + self.between_looks
        pause = 0.5
        while True:
            before = len(self.runs)
            self._read_results()
            if self.runs and time.monotonic() >= self.next_look:
                self._look_at_queue()
            if not self.runs:
                return
            pause = 0.5 if len(self.runs) < before else min(10.0, pause * 1.3)
            time.sleep(min(pause, max(0.1, self.next_look - time.monotonic())))

    def _end(self, run: Run, what: str, detail: str) -> None:
        self.runs.remove(run)
        if what == "failed":
            self.failed[run.id] = detail
        self.on_event(what, run, detail)

    def _read_results(self) -> None:
        rows = Path(self.runs[0].config.results_dir) / "rows"
        listed = set(os.listdir(rows)) if rows.is_dir() else set()
        for run in list(self.runs):
            paths = files(run.config)
            if paths.row.name in listed and finished_row(run.config, run.role) is not None:
                self._end(run, "finished", "")
            elif why := next((path for path in (paths.failure, paths.accident) if path.exists()), None):
                self._end(run, "failed", reason(why))
            elif run.base in self.failed:
                self._end(run, "failed", blocked(run, self.failed))

    def _look_at_queue(self) -> None:
        records = {run.id: record for run in self.runs if (record := JobRecord.read(files(run.config)))}
        try:
            alive = queue.queued(record.job for record in records.values())
        except queue.NoAnswer:
            alive = {record.job: "" for record in records.values()}
        gone = {run.id for run in self.runs if run.id not in records or records[run.id].job not in alive}
        if gone & self.absent:
            self._read_results()  # a row may have come after the last listing
            for run in [run for run in self.runs if run.id in gone & self.absent]:
                self._handle_lost_job(run, records.get(run.id))
        self.absent = gone
        self.between_looks = min(SLOWEST_LOOK, 1.5 * self.between_looks)
        self.next_look = time.monotonic() + (SECOND_LOOK if gone else self.between_looks)

    def _handle_lost_job(self, run: Run, record: JobRecord | None) -> None:
        """Its job is gone and left nothing."""
        if run.base in self.failed:
            self._end(run, "failed", blocked(run, self.failed))
            return
        if record is None:
            self._end(run, "failed", "it was not submitted; the same command tries again")
            return
        kind, words = queue.why_lost(record)
        if record.started is None and kind != "cancelled":
            self.runs.remove(run)
            self.again.append(run)
            return
        if kind == "memory":  # its own fault: not to be tried again by itself
            write_atomic(files(run.config).failure, words)
        self._end(run, "failed", words)
