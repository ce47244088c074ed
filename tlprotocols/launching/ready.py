"""Which runs of a plan can begin: those whose base is finished."""

from collections import deque

from tlprotocols.launching.backend import OnEvent
from tlprotocols.launching.worker import AGAIN, keep_reason
from tlprotocols.planning.plan import Plan, Run, blocked
from tlprotocols.records import files


class Queue:
    """Runs that can begin, and runs that wait for their base."""

    def __init__(self, plan: Plan, on_event: OnEvent) -> None:
        self.on_event = on_event
        self.ready: deque[Run] = deque()
        self.waiting: dict[str, list[Run]] = {}  # by base
        self.failed: dict[str, str] = {}  # reason by run
        self.retried: set[str] = set()
        for run in plan.to_run_or_await:
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

    def lose(self, run: Run, reason: str) -> tuple[str, str]:
        """The process that had it died: ("retried", reason) the first time, ("failed", reason) the second, when this
        sweep has no more of it. It may have been killed by anybody, so that the next command tries again."""
        if run.id in self.retried:
            keep_reason(files(run.config).accident, reason)
            return "failed", f"{reason}; {AGAIN}"
        self.retried.add(run.id)
        self.ready.appendleft(run)
        return "retried", reason
