"""Which runs the queue has: the records of jobs in the runs' folders, compared with the jobs that SLURM lists."""

import dataclasses
import json
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlprotocols.launching.slurm import queue
from tlprotocols.launching.slurm.queue import Job, JobRecord
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import Files, write_atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A run that a job of the queue has."""

    record: JobRecord
    job: Job


@dataclass(frozen=True)
class Submission:
    """What one call of sbatch submits: written before it, and with its jobs after it, so that they can be found if we
    are killed meanwhile."""

    folder: Path  # results/slurm
    tag: str
    runs: tuple[tuple[str, ...], ...]  # run ids of each task
    base: str | None  # the run that all of them wait for
    jobs: tuple[JobRecord, ...] = ()  # of each task, as soon as sbatch has taken them

    @staticmethod
    def new(folder: Path, runs: Iterable[Iterable[str]], base: str | None) -> "Submission":
        """One with a tag of its own."""
        return Submission(folder, secrets.token_hex(8), tuple(tuple(ids) for ids in runs), base)

    @staticmethod
    def read(folder: Path, tag: str) -> "Submission | None":
        """The submission of a tag, if it is of this results folder. A damaged file is named and ignored."""
        for path in (folder / "submissions" / f"{tag}.json", folder / "submissions" / f"{tag}.begun"):
            if path.exists():
                try:
                    values = json.loads(path.read_bytes())
                    jobs = tuple(JobRecord(**job) for job in values.get("jobs", ()))  # older files have none
                    return Submission(folder, tag, tuple(map(tuple, values["runs"])), values["base"], jobs)
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    log.warning("%s: no record of a submission (%s)", path, error)
        return None

    def task(self, job: str) -> tuple[str, ...]:
        """The ids of the runs of a job: 12, or 12_3 in an array."""
        return self.runs[int(job.partition("_")[2] or 0)]

    @property
    def begun(self) -> Path:
        """There while sbatch may have taken it and the records of its jobs are not all written."""
        return self.folder / "submissions" / f"{self.tag}.begun"

    def begin(self) -> None:
        """Before sbatch."""
        self.begun.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def taken(self, jobs: Iterable[JobRecord]) -> "Submission":
        """After sbatch, when the jobs can do their work: the same with their records, by task."""
        found = dataclasses.replace(self, jobs=tuple(jobs))
        found._write()
        return found

    def _write(self) -> None:
        jobs = [dataclasses.asdict(job) for job in self.jobs]
        write_atomic(self.begun, json.dumps({"runs": self.runs, "base": self.base, "jobs": jobs}))

    def record(self) -> None:
        """Write the records of the jobs into the runs' folders, those that are not there yet."""
        for job, ids in zip(self.jobs, self.runs, strict=True):
            for paths in (Files(self.folder.parent, id) for id in ids):
                there = JobRecord.read(paths)  # by now the job may have written when it began
                if paths.folder.is_dir() and (there is None or there.tag != self.tag):
                    job.write(paths)
        self.complete()

    def complete(self) -> None:
        """After the records are written."""
        self.begun.replace(self.begun.with_suffix(".json"))

    def withdraw(self) -> None:
        """If sbatch refused it."""
        self.begun.unlink(missing_ok=True)


def records(runs: Iterable[Run]) -> dict[str, JobRecord]:
    """The records of those runs that were ever submitted."""
    return {run.id: found for run in runs if (found := JobRecord.read(files_of(run)))}


def files_of(run: Run) -> Files:
    """Where a planned run's files lie; its id is known, where `records.files` computes it."""
    return Files(Path(run.config.results_dir), run.id)


def claims(found: Mapping[str, JobRecord], jobs: Mapping[str, Job]) -> dict[str, Claim]:
    """Those of these records whose job is in the queue. A record whose job is gone is void; so is one of another
    cluster, or whose number another job has by now.

    Raises:
        NoAnswer: SLURM is silent.
    """
    here = queue.cluster_name() if found else ""
    return {
        id: Claim(record, jobs[record.job])
        for id, record in found.items()
        if record.cluster == here and record.job in jobs and jobs[record.job].tag == record.tag
    }


def shared(run: Run, record: JobRecord) -> bool:
    """Whether the last job of a run had also begun others that it did not finish: any of them may have taken the
    memory. Those that were submitted again since then count as such."""
    results = Path(run.config.results_dir)
    submission = Submission.read(results / "slurm", record.tag)
    others = set(submission.task(record.job)) - {run.id} if submission else ()
    found = [other for id in others if (other := JobRecord.read(Files(results, id)))]
    return any(other.broken_off or other.tag != record.tag for other in found)


def in_queue(runs: Sequence[Run]) -> dict[str, Claim]:
    """The runs that jobs of the queue have.

    Raises:
        NoAnswer: SLURM is silent.
    """
    found = records(runs)
    return claims(found, queue.queued(record.user for record in found.values())) if found else {}


def located(plan: Plan, claimed: Mapping[str, Claim], derived: Mapping[str, str]) -> Plan:
    """The plan with what the queue has: these runs are under way, and those that are not executed yet await their
    base. `derived` are failures that no file says."""
    running = {
        **plan.running,
        **{id: f"{c.job} in job {c.record.job}, log {c.record.log}" for id, c in claimed.items()},
    }
    failed = {id: why for id, why in {**derived, **plan.failed}.items() if id not in running}
    awaited = {base for id in claimed if id not in plan.running and (base := plan.runs[id].base)}
    return dataclasses.replace(plan, running=running, failed=failed, awaited=frozenset(awaited))


def record_interrupted(folder: Path) -> None:
    """Write the records that an interrupted submission did not come to write, if sbatch had taken it: its jobs work.
    Only for the one who holds the lock of submissions."""
    for submission in _begun(folder):
        if submission.jobs:
            submission.record()


def orphans(folder: Path, jobs: Mapping[str, Job]) -> tuple[list[Submission], list[Job]]:
    """Submissions that were interrupted before sbatch had taken all of it, and their jobs: these do nothing, since
    submitit did not come to write down what. Those of other users are theirs to cancel. Only for the one who holds the
    lock of submissions."""
    others = {job.tag for job in jobs.values() if job.user != queue.user_name()}
    submissions = [found for found in _begun(folder) if not found.jobs and found.tag not in others]
    tags = {found.tag for found in submissions}
    return submissions, [job for job in jobs.values() if job.tag in tags]


def _begun(folder: Path) -> list[Submission]:
    tags = [path.stem for path in sorted((folder / "submissions").glob("*.begun"))]
    return [found for tag in tags if (found := Submission.read(folder, tag))]
