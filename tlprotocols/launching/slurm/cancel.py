"""End the jobs of a sweep."""

from collections.abc import Mapping
from pathlib import Path

from tlprotocols.launching.backend import OnEvent
from tlprotocols.launching.slurm import queue
from tlprotocols.launching.slurm.claims import Claim, Submission, claims, records
from tlprotocols.launching.slurm.submit import alone, cancel_orphans
from tlprotocols.planning.plan import Plan


def cancel(plan: Plan, results: Path, on_event: OnEvent) -> None:
    """Cancel the jobs that have runs of this plan. Those of other users stay, and those that another sweep needs too:
    jobs that also have runs of it, and bases that runs of it wait for.

    Raises:
        NoAnswer: SLURM is silent, or did not take the request.
    """
    with alone(results) as folder:
        found = records(run for run in plan.runs.values() if run.id not in plan.rows)
        jobs = queue.queued(record.user for record in found.values())
        claimed = claims(found, jobs)
        mine = {claim.job.id: claim for claim in claimed.values() if claim.record.user == queue.user_name()}
        live = {tag: one for tag in {job.tag for job in jobs.values()} - {""} if (one := Submission.read(folder, tag))}
        ours = {id for id, claim in mine.items() if not _elsewhere_too(claim, plan, live)}
        queue.cancel(ours)
        ended = len(ours) + cancel_orphans(folder, jobs)
        on_event("note", None, f"cancelled {ended} jobs; what their runs have saved is kept")
        if len(mine) > len(ours):
            on_event("note", None, f"{len(mine) - len(ours)} jobs go on: another sweep in {results} needs them")
        others = {claim.job.id: claim.record.user for claim in claimed.values() if claim.job.id not in mine}
        if others:
            on_event("note", None, f"{len(others)} jobs go on: they are of {', '.join(sorted(set(others.values())))}")


def _elsewhere_too(claim: Claim, plan: Plan, live: Mapping[str, Submission]) -> bool:
    """Whether a job has, or is awaited by, runs that are not in the plan. `live`: submissions in the queue, by tag."""
    own = live.get(claim.job.tag)
    if own is None:
        return False
    runs = own.task(claim.job.id)
    dependants = [id for other in live.values() if other.base in runs for ids in other.runs for id in ids]
    return any(id not in plan.runs for id in (*runs, *dependants))
