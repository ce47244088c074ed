"""A sweep on a SLURM cluster, as a person sees it: what is queued, what comes back, what failed, the table."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from tlprotocols import local, scheduler, slurm
from tlprotocols.plan import Plan, Run, plan, resolved
from tlprotocols.results import Row, files, write_aside
from tlprotocols.scheduler import Claim
from tlprotocols.schema import Config
from tlprotocols.slurm import Cluster, Submitted
from tlprotocols.sweep import _mark_asked_for, _name, _progress, table

FIRST_LOOK, SLOWEST_LOOK = 15.0, 120.0  # seconds between two calls of squeue; it grows
SECOND_LOOK = 4.0  # seconds until a job that left the queue without a result is looked for again
GUESSED_RATE = 1500.0  # images per second of a worker that nobody has measured


def sweep(configs: Sequence[Config], cluster: Cluster) -> list[Row | None] | None:
    """Submit whatever of these configurations is neither finished nor queued; with `wait`, the rows in the end."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120, soft_wrap=True)
    cluster.check()
    planned = plan([resolved(slurm.on_nodes(config, cluster)) for config in configs])
    failed = {} if cluster.retry_failed else _failed(planned)
    if cluster.dry_run:
        _status(console, planned, failed)
        return None
    for run in planned.to_run:
        if run.base in failed:
            failed[run.id] = _blocked(run, failed)
    todo = [run for run in planned.to_run if run.id not in failed]
    submitted = slurm.submit(todo, seconds(planned), cluster)
    _announce(console, planned, submitted, cluster)
    if cluster.wait and todo:
        failed |= _follow(console, planned, todo, submitted, cluster)
    rows = local.rows(planned)
    _mark_asked_for(planned, rows)
    if cluster.wait or not todo:
        console.print(table(planned, rows))
    for id, reason in failed.items():
        paths = files(planned.runs[id].config)
        claim = Claim.read(paths)
        console.print(f"[red]failed[/red] {_name(planned, planned.runs[id])}: {reason}")
        console.print("       log: " + ", ".join([str(paths.log), *([claim.log] if claim else [])]), style="dim")
    return rows if cluster.wait or not todo else None


def seconds(planned: Plan) -> dict[str, float]:
    """What each remaining run takes."""
    return {run.id: run.image_passes / GUESSED_RATE for run in planned.to_run}


def _failed(planned: Plan) -> dict[str, str]:
    """Last line of the reason of those that failed before."""
    found = {}
    for run in planned.to_run:
        failure = files(run.config).failure
        if failure.exists():
            found[run.id] = failure.read_text().strip().splitlines()[-1]
    return found


def _blocked(run: Run, failed: dict[str, str]) -> str:
    return f"blocked: its base {run.base} failed ({failed[str(run.base)]})"


def _status(console: Console, planned: Plan, failed: dict[str, str]) -> None:
    """Where every unfinished run is, with its log."""
    queued = slurm.in_queue(planned.to_run)
    states = scheduler.queued(claim.job for claim in queued.values())
    for run in planned.to_run:
        paths, claim = files(run.config), queued.get(run.id)
        state = "missing"
        if claim:
            state = f"{states.get(claim.job, 'ended').lower()} in job {claim.job}, log {claim.log}"
        elif run.id in failed or run.base in failed:
            state = f"failed: {failed.get(run.id) or _blocked(run, failed)}, log {paths.log}"
        console.print(f"{_name(planned, run)}: {state}")
    console.print(f"{len(planned.rows)} finished, {len(queued)} queued, {len(failed)} failed")


def _announce(console: Console, planned: Plan, submitted: Submitted, cluster: Cluster) -> None:
    runs = len(submitted.claims)
    console.print(
        f"{len(planned.cells)} cells, {len(set(planned.cells))} runs, {len(planned.rows)} finished, "
        f"{len(submitted.elsewhere)} queued before; submitted {runs} runs in {submitted.packs} tasks"
        + (f" of jobs {', '.join(submitted.jobs)}" if runs else "")
    )
    if submitted.refused:
        console.print(f"[red]the cluster took no more[/red] ({submitted.refused}); the same command submits the rest")
    jobs = submitted.jobs or list(dict.fromkeys(c.job.partition("_")[0] for c in submitted.elsewhere.values()))
    if jobs and not cluster.wait:
        results = next(iter(planned.runs.values())).config.results_dir
        console.print(f"queue   squeue --jobs={','.join(jobs)}")
        console.print(
            "state   the same command with hydra.launcher.dry_run=true; without it, it submits what is missing"
        )
        console.print(f"logs    {results}/slurm/JOB_0_log.out of a job, {results}/runs/RUN_ID/log.txt of a run")
        console.print(f"end     scancel {' '.join(jobs)}")


def _follow(
    console: Console, planned: Plan, todo: Sequence[Run], submitted: Submitted, cluster: Cluster
) -> dict[str, str]:
    """Wait for these runs; those whose job died before it came to them are submitted again."""
    failed: dict[str, str] = {}
    jobs = submitted.jobs
    with _progress(console) as progress:
        task = progress.add_task("training", total=sum(run.image_passes for run in todo), unit="image passes")

        def listen(what: str, run: Run, detail: str) -> None:
            colour = "green" if what == "finished" else "red"
            console.print(f"[{colour}]{what:8}[/{colour}] {_name(planned, run)}  {detail}")
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
                    more = slurm.submit(todo, seconds(planned), cluster)
                    console.print(f"submitted {len(todo)} runs again: {', '.join(more.jobs)} ended before they began")
                    jobs += more.jobs
        except KeyboardInterrupt:
            console.print(f"the jobs go on; the same command waits for them, scancel {' '.join(jobs)} ends them")
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
            if paths.row.name in listed and (not run.config.curve or (paths.folder / "curve.csv").exists()):
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
