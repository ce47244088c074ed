"""Which runs of a plan can begin: those whose base is finished."""

from collections import deque

from tlprotocols.launching.backend import OnEvent
from tlprotocols.planning.plan import Plan, Run, blocked
from tlprotocols.records import files, write_atomic


class Queue:
    """Runs that can begin, and runs that wait for their base."""

    def __init__(self, plan: Plan, on_event: OnEvent) -> None:
        self.on_event = on_event
        self.ready: deque[Run] = deque()
        self.waiting: dict[str, list[Run]] = {}  # by base
        self.failed: dict[str, str] = {}  # reason by run
        self.retried: set[str] = set()
        for run in plan.to_run:
            if run.base is None or run.base in plan.rows:
                self.ready.append(run)
            else:
                self.waiting.setdefault(run.base, []).append(run)

    def finish(self, run: Run) -> None:
        """Those that waited for it can begin."""
        self.ready.extend(self.waiting.pop(run.id, []))

    def fail(self, run: Run, reason: str) -> None:
        """Those that waited for it fail with it."""
        self.failed[run.id] = reason
        for dependant in self.waiting.pop(run.id, []):
            self.failed[dependant.id] = blocked(dependant, self.failed)
            self.on_event("failed", dependant, self.failed[dependant.id])

    def lose(self, run: Run, reason: str) -> str:
        """The process that had it died: "retried" the first time, "failed" the second. The caller says so."""
        if run.id in self.retried:
            write_atomic(files(run.config).failure, reason)
            return "failed"
        self.retried.add(run.id)
        self.ready.appendleft(run)
        return "retried"
