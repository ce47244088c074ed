"""A sweep on a SLURM cluster, as a person sees it: what is queued, what comes back, what failed, the table."""

import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from tlprotocols.config.schema import Config
from tlprotocols.errors import RunsFailed
from tlprotocols.launching import pool as local
from tlprotocols.launching.driver import (
    MOST_ROWS,
    cautions,
    mark_asked_for,
    name,
    overview,
    progress_bar,
    read_contents,
    summary,
    table,
)
from tlprotocols.launching.slurm import queue as scheduler
from tlprotocols.launching.slurm import submit as slurm
from tlprotocols.launching.slurm.queue import Claim
from tlprotocols.launching.slurm.submit import Cluster, Submitted
from tlprotocols.planning.cost import Cost, cost, remember
from tlprotocols.planning.plan import Plan, Run, finished_row, plan, resolved
from tlprotocols.results import Row, files, write_aside

FIRST_LOOK, SLOWEST_LOOK = 15.0, 120.0  # seconds between two calls of squeue; it grows
SECOND_LOOK = 4.0  # seconds until a job that left the queue without a result is looked for again


def sweep(configs: Sequence[Config], cluster: Cluster) -> list[Row | None] | None:
    """Submit whatever of these configurations is neither finished nor queued; with `wait`, the rows in the end.

    None if there is nothing to wait for: with `wait=false`, and with `dry_run`, which only prints the state of things.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120, soft_wrap=True)
    cluster.check()
    read_contents(console, configs)
    planned = plan([resolved(slurm.on_nodes(config, cluster)) for config in configs], cluster.retry_failed)
    for line in cautions(planned):
        console.print(line)
    planned, queued = _with_queue(planned, cluster.retry_failed)
    remember([(planned.runs[id].config, row) for id, row in planned.rows.items()])  # nobody may have waited for them
    costs = cost(planned.to_run, here=False)
    if cluster.dry_run:
        _status(console, planned, queued, costs, cluster)
        return None
    failed = {run.id: planned.failed[run.id] for run in planned.runs.values() if run.id in planned.failed}
    failed |= {run.id: _blocked(run, failed) for run in planned.asked if run.base in failed and run.id not in failed}
    submitted = slurm.submit(planned.to_run, costs.seconds, cluster)
    _announce(console, planned, submitted, queued, cluster)
    open_ = [planned.runs[id] for id in dict.fromkeys([run.id for run in planned.to_run] + list(queued))]
    if submitted.refused and not (cluster.wait and submitted.claims):
        raise RunsFailed(f"the cluster took {len(submitted.claims)} runs and no more: {submitted.refused}")
    if not cluster.wait and open_:
        return None
    if open_:
        failed |= _follow(console, planned, open_, cluster)
    rows = local.rows(planned)
    mark_asked_for(planned, rows)
    remember([(run.config, row) for run in open_ if (row := finished_row(run.config, run.role)) is not None])
    console.print(table(planned, rows))
    for id, reason in failed.items():
        _report(console, planned, planned.runs[id], f"[red]failed[/red] {name(planned, planned.runs[id])}: {reason}")
    return rows


def _with_queue(planned: Plan, retry_failed: bool) -> tuple[Plan, dict[str, Claim]]:
    """The plan with what SLURM knows: queued runs are under way; a run whose job ran out of memory has failed."""
    unfinished = [run for run in planned.runs.values() if run.id not in planned.rows]
    queued = slurm.in_queue(unfinished)
    failed = {id: reason for id, reason in planned.failed.items() if id not in queued}
    for run in unfinished if not retry_failed else []:
        claim = Claim.read(files(run.config))
        if (
            claim
            and claim.started
            and run.id not in {*queued, *failed, *planned.running}
            and scheduler.memory_ended(claim)
        ):
            failed[run.id] = f"its SLURM job {claim.job} ran out of memory; raise hydra.launcher.mem_gb"
    return dataclasses.replace(planned, running=planned.running | set(queued), failed=failed), queued


def _blocked(run: Run, failed: Mapping[str, str]) -> str:
    return f"blocked: its base {run.base} failed ({failed[str(run.base)]})"


def _report(console: Console, planned: Plan, run: Run, line: str) -> None:
    """A line about a run, and where to read more."""
    paths, claim = files(run.config), Claim.read(files(run.config))
    logs = [str(path) for path in (paths.log, paths.failure) if path.exists()] + ([claim.log] if claim else [])
    console.print(line)
    console.print(f"       log: {', '.join(logs)}" if logs else "       it never began")


def _status(console: Console, planned: Plan, queued: dict[str, Claim], costs: Cost, cluster: Cluster) -> None:
    """The plan, and where every queued or failed run is."""
    console.print(overview(planned, costs))
    states = scheduler.queued(claim.job for claim in queued.values())
    for id, claim in list(queued.items())[:MOST_ROWS]:
        run = planned.runs[id]
        state = f"{states.get(claim.job, 'ended').lower()} in job {claim.job}"
        _report(console, planned, run, f"{name(planned, run)}: {state}")
    if len(queued) > MOST_ROWS:
        console.print(f"{len(queued) - MOST_ROWS} more are queued: claim.json in a run's folder names its job")
    for run in planned.runs.values():
        reason = planned.failed.get(run.id) or (_blocked(run, planned.failed) if run.base in planned.failed else None)
        if reason and run.id not in planned.rows:
            _report(console, planned, run, f"[red]failed[/red] {name(planned, run)}: {reason}")
    print(summary(planned, costs, cluster.max_parallel * cluster.workers))


def _announce(
    console: Console, planned: Plan, submitted: Submitted, queued: dict[str, Claim], cluster: Cluster
) -> None:
    states = Counter(planned.state(run) for run in planned.asked)
    said = [f"{len(planned.cells)} cells, {len(planned.asked)} runs"]
    said += [f"{count} {state.replace('_', ' ')}" for state, count in states.items()]
    if submitted.claims:
        said += [f"submitted {len(submitted.claims)} in {submitted.packs} tasks of jobs {', '.join(submitted.jobs)}"]
    console.print(", ".join(said))
    if states["failed"]:
        console.print("failed runs stay failed: hydra.launcher.retry_failed=true tries them again")
    if submitted.refused and submitted.claims:
        console.print(f"[red]the cluster took no more[/red] ({submitted.refused}); the same command submits the rest")
    claims = (*submitted.claims.values(), *queued.values())
    jobs = list(dict.fromkeys(claim.job.partition("_")[0] for claim in claims))
    if jobs and not cluster.wait:
        results = next(iter(planned.runs.values())).config.results_dir
        console.print(f"queue   squeue --jobs={','.join(jobs)}")
        console.print(
            "state   the same command with hydra.launcher.dry_run=true; without it, it submits what is missing"
        )
        console.print(f"logs    {results}/slurm/JOB_0_log.out of a job, {results}/runs/RUN_ID/log.txt of a run")
        console.print(f"end     scancel {' '.join(jobs)}")


def _follow(console: Console, planned: Plan, todo: Sequence[Run], cluster: Cluster) -> dict[str, str]:
    """Wait for these runs; those whose job died before it came to them are submitted again."""
    failed: dict[str, str] = {}
    with progress_bar(console) as progress:
        task = progress.add_task("training", total=sum(run.image_passes for run in todo), unit="image passes")

        def listen(what: str, run: Run, detail: str) -> None:
            colour = "green" if what == "finished" else "red"
            console.print(f"[{colour}]{what:8}[/{colour}] {name(planned, run)}  {detail}")
            progress.advance(task, run.image_passes)

        try:
            while todo:
                watch = Watch(list(todo), listen, failed)
                watch.wait()
                if len(watch.again) == len(todo):  # nothing begins here: no use in trying for ever
                    failed |= {run.id: "its SLURM job ended before it began" for run in todo}
                    break
                todo = watch.again
                if todo:
                    more = slurm.submit(todo, cost(todo, here=False).seconds, cluster)
                    console.print(f"submitted {len(todo)} runs again: {', '.join(more.jobs)} ended before they began")
        except KeyboardInterrupt:
            claims = [claim for run in todo if (claim := Claim.read(files(run.config)))]
            jobs = " ".join(sorted({claim.job.partition("_")[0] for claim in claims}))
            console.print(f"the jobs go on; the same command waits for them, scancel {jobs} ends them")
            raise
    return failed


@dataclass
class Watch:
    """Waits for runs that jobs of the queue will do. Rows on disk are the truth, the queue is a hint."""

    runs: list[Run]
    listen: Callable[[str, Run, str], None]
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
        self.listen(what, run, detail)

    def _read_results(self) -> None:
        rows = Path(self.runs[0].config.results_dir) / "rows"
        listed = set(os.listdir(rows)) if rows.is_dir() else set()
        for run in list(self.runs):
            paths = files(run.config)
            if paths.row.name in listed and finished_row(run.config, run.role) is not None:
                self._end(run, "finished", "")
            elif paths.failure.exists():
                self._end(run, "failed", paths.failure.read_text().strip().splitlines()[-1])
            elif run.base in self.failed:
                self._end(run, "failed", _blocked(run, self.failed))

    def _look_at_queue(self) -> None:
        claims = {run.id: claim for run in self.runs if (claim := Claim.read(files(run.config)))}
        try:
            alive = scheduler.queued(claim.job for claim in claims.values())
        except scheduler.NoAnswer:
            alive = {claim.job: "" for claim in claims.values()}
        gone = {run.id for run in self.runs if run.id not in claims or claims[run.id].job not in alive}
        if gone & self.absent:
            self._read_results()  # a row may have come after the last listing
            for run in [run for run in self.runs if run.id in gone & self.absent]:
                self._lose(run, claims.get(run.id))
        self.absent = gone
        self.between_looks = min(SLOWEST_LOOK, 1.5 * self.between_looks)
        self.next_look = time.monotonic() + (SECOND_LOOK if gone else self.between_looks)

    def _lose(self, run: Run, claim: Claim | None) -> None:
        """Its job is gone and left nothing."""
        if run.base in self.failed:
            self._end(run, "failed", _blocked(run, self.failed))
            return
        if claim is None:
            self._end(run, "failed", "it was not submitted; the same command tries again")
            return
        kind, reason = scheduler.why_lost(claim)
        if claim.started is None and kind != "cancelled":
            self.runs.remove(run)
            self.again.append(run)
            return
        if kind == "memory":  # its own fault: not to be tried again by itself
            write_aside(files(run.config).failure, reason)
        self._end(run, "failed", reason)
