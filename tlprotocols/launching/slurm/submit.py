"""Put runs into the queue: bases as jobs, the other runs in packs, arrays of packs through submitit."""

import heapq
import math
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from tlprotocols.launching.slurm import queue
from tlprotocols.launching.slurm.claims import Claim, Submission, files_of, orphans, record_interrupted
from tlprotocols.launching.slurm.job import Pack, failures_seen
from tlprotocols.launching.slurm.options import Options
from tlprotocols.launching.slurm.queue import Job, JobRecord
from tlprotocols.planning.cost import cost
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import Files, save_config

PASSING = re.compile(  # what sbatch says when it may take the same job later
    r"MaxSubmit|MaxJobs|MaxJobCount|temporarily|timed out|unable to contact|connection refused|zero bytes|try again",
    re.IGNORECASE,
)
MOST_GROWTHS = 3  # times that the memory of a job is raised


State = tuple[Plan, dict[str, Claim], dict[str, Job]]  # what the queue has of the plan, and all that is in the queue


@dataclass
class Submitted:
    """What one submission put into the queue."""

    plan: Plan  # as it was at that moment
    records: dict[str, JobRecord] = field(default_factory=dict)  # by run
    left: list[Run] = field(default_factory=list)  # for which there was no room
    refused: str = ""  # why the cluster took no more, if it did not
    passing: bool = True  # whether it may take more later
    packs: int = 0
    cancelled: int = 0  # jobs of an interrupted submission

    @property
    def jobs(self) -> list[str]:
        """Job ids, arrays by their first number."""
        return list(dict.fromkeys(record.job.partition("_")[0] for record in self.records.values()))


@dataclass(frozen=True)
class Group:
    """Packs for one array: equal in what they wait for and in what they need."""

    packs: list[list[Run]]
    role: str
    after: str | None  # the run that all of them wait for
    mem_gb: float


def packs(runs: Sequence[Run], seconds: Mapping[str, float], workers: int, minutes: float) -> list[list[Run]]:
    """Runs in as few packs as `minutes` of work on `workers` allow, of about equal time, longest runs first."""
    total = sum(seconds[run.id] for run in runs)
    count = min(len(runs), math.ceil(total / max(60 * minutes * workers, 1e-9)))
    heap = [(0.0, number) for number in range(count)]
    found: list[list[Run]] = [[] for _ in range(count)]
    for run in sorted(runs, key=lambda run: (-seconds[run.id], run.id)):
        load, number = heapq.heappop(heap)
        found[number].append(run)
        heapq.heappush(heap, (load + seconds[run.id], number))
    return found


@contextmanager
def alone(results: Path) -> Iterator[Path]:
    """Submissions and cancellations in one results folder take turns, so that none overlooks the other's jobs, nor
    those of one that was killed. Yields the folder of the jobs' files."""
    folder = results / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        record_interrupted(folder)
        yield folder


def submit(results: Path, state: Callable[[], State], options: Options) -> Submitted:
    """Put into the queue what no job has yet: bases first, each pack after its own base.

    `state` makes the plan from what is on disk and in the queue now: rows may have come, and bases may have been lost.

    Raises:
        NoAnswer: SLURM did not say what is in the queue; nothing was submitted.
    """
    with alone(results) as folder:
        plan, claimed, jobs = state()
        done = Submitted(plan, cancelled=cancel_orphans(folder, jobs))
        if not plan.to_run:
            return done
        seconds = cost(plan, here=False).seconds
        for run in plan.to_run:
            save_config(run.config)
        most = options.max_queued and options.max_queued - sum(job.user == queue.user_name() for job in jobs.values())
        try:
            for group in _groups(plan, seconds, options):
                if group.after and group.after not in done.records and group.after not in claimed:
                    continue  # there was no room for their base
                _submit(group, folder, seconds, options, done, claimed, most)
        except queue.NoAnswer:
            raise
        except (subprocess.CalledProcessError, RuntimeError) as error:  # submitit wraps what sbatch said
            said = str(getattr(error, "stderr", None) or error).strip()
            done.refused, done.passing = said.splitlines()[-1], PASSING.search(said) is not None
        done.left = [run for run in plan.to_run if run.id not in done.records]
        return done


def cancel_orphans(folder: Path, jobs: Mapping[str, Job]) -> int:
    """End what an interrupted submission left in the queue and no run has. Returns how many jobs these were."""
    submissions, lost = orphans(folder, jobs)
    queue.cancel(job.id for job in lost)
    for submission in submissions:
        submission.withdraw()
    return len(lost)


def _groups(plan: Plan, seconds: Mapping[str, float], options: Options) -> Iterator[Group]:
    """Groups of packs, a base before what waits for it."""
    most = options.max_array_size or queue.max_array_size()
    by: dict[tuple[str, str | None, float, bool], list[Run]] = defaultdict(list)
    for run in plan.to_run:
        role = "base" if run.role == "base" else "runs"
        after = run.base if run.base not in plan.rows else None
        ran_out = _ran_out(run)
        # a run that ran out of memory, and gets no more of it by mem_gb, is alone: the next time it is its own fault
        single = role == "base" or (ran_out is not None and ran_out.mem_gb >= options.memory(role))
        by[role, after, _memory(ran_out, role, options), single].append(run)
    for (role, after, mem_gb, single), group in sorted(by.items(), key=lambda item: item[0][0]):
        packed = [[run] for run in group] if single else packs(group, seconds, options.workers, options.pack_minutes)
        for start in range(0, len(packed), most):
            yield Group(packed[start : start + most], role, after, mem_gb)


def _ran_out(run: Run) -> JobRecord | None:
    """The record of the last job of a run, if that ran out of memory while it had the run."""
    record = JobRecord.read(files_of(run))
    return record if record and record.broken_off and queue.memory_ended(record) else None


def _memory(ran_out: JobRecord | None, role: str, options: Options) -> float:
    """What a job gets, in GB: more than the last one of its run, if that was too little."""
    least = options.memory(role)
    if ran_out is None or options.more_memory == 1:
        return least
    return max(least, ran_out.mem_gb * options.more_memory)


def may_grow(record: JobRecord, role: str, options: Options) -> bool:
    """Whether a run whose job ran out of memory is to be tried with more."""
    most = options.memory(role) * options.more_memory**MOST_GROWTHS
    return options.more_memory > 1 and record.mem_gb * options.more_memory <= most


def _submit(
    group: Group,
    folder: Path,
    seconds: Mapping[str, float],
    options: Options,
    done: Submitted,
    claimed: Mapping[str, Claim],
    most: int | None,
) -> None:
    """Submit a group: all of it, or as much as there is room for. A limit that is not known is found by halving.

    Raises:
        CalledProcessError, RuntimeError: the cluster takes not even one.
    """
    begin, size = 0, len(group.packs)
    while begin < len(group.packs):
        if most is not None:
            size = min(size, most - done.packs)
        if size <= 0:
            return
        part = Group(group.packs[begin : begin + size], group.role, group.after, group.mem_gb)
        try:
            _submit_array(part, folder, seconds, options, done, claimed)
            begin += size
        except (subprocess.CalledProcessError, RuntimeError) as error:
            if size == 1 or "MaxSubmit" not in str(getattr(error, "stderr", None) or error):
                raise
            size //= 2


def _submit_array(
    group: Group,
    folder: Path,
    seconds: Mapping[str, float],
    options: Options,
    done: Submitted,
    claimed: Mapping[str, Claim],
) -> None:
    results, before = folder.parent, None
    if group.after:
        before = done.records[group.after].job if group.after in done.records else claimed[group.after].record.job
    for run in (run for pack in group.packs for run in pack):
        paths = Files(results, run.id)
        for former in (paths.failure, paths.accident, failures_seen(results) / run.id):
            former.unlink(missing_ok=True)
    cluster, user = queue.cluster_name(), queue.user_name()  # before sbatch: SLURM may be silent
    submission = Submission.new(folder, ([run.id for run in pack] for pack in group.packs), group.after)
    submission.begin()
    executor = _executor(group, seconds, options, submission, before)
    try:
        with _outside_any_job(), executor.batch():
            jobs = [
                executor.submit(
                    Pack(
                        str(results),
                        tuple((run.id, run.role) for run in pack),
                        group.after,
                        options.per_gpu,
                        options.warning,
                        pack[0].config.machine,  # that of all runs: it is no factor
                    )
                )
                for pack in group.packs
            ]
    except (subprocess.CalledProcessError, RuntimeError):
        submission.withdraw()
        raise
    now = datetime.now(UTC).isoformat(timespec="seconds")
    submission = submission.taken(
        JobRecord(str(job.job_id), str(job.paths.stdout), now, None, cluster, user, submission.tag, group.mem_gb)
        for job in jobs
    )
    submission.record()
    for record, pack in zip(submission.jobs, group.packs, strict=True):
        done.records |= dict.fromkeys([run.id for run in pack], record)
    done.packs += len(group.packs)
    if group.role == "base":  # what waited for a base that was lost waits for this one
        bases = {run.id: done.records[run.id].job for pack in group.packs for run in pack}
        for base, job in bases.items():
            waiting = {c.record.job.partition("_")[0] for id, c in claimed.items() if done.plan.runs[id].base == base}
            queue.postpone(waiting, job)


def _executor(
    group: Group, seconds: Mapping[str, float], options: Options, submission: Submission, after: str | None
) -> Any:
    from submitit import SlurmExecutor

    is_base = group.role == "base"
    of = f"{group.role} of {group.after}" if group.after else group.role
    # a switch, as --hold, is written {hold: true}
    parameters = {key: value == "True" or value for key, value in options.parameters.items()}
    comment = f"tlprotocols:{submission.tag} {of} in {submission.folder.parent}"
    if isinstance(own := parameters.pop("comment", None), str):
        comment = f"{own} {comment}"
    executor = SlurmExecutor(submission.folder, max_num_timeout=options.max_requeues, python=options.python)
    given = {
        "partition": (options.base.partition if is_base else None) or options.partition,
        "account": options.account,
        "qos": options.qos,
        "gres": options.gres,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus or None,
        "additional_parameters": parameters or None,
        # a base that fails must not leave them pending for ever: they start, see that it is not there, and leave
        "dependency": f"afterany:{after}" if after else None,
    }
    cpus = (options.base.cpus if is_base else None) or options.cpus
    work = [{run.id: seconds[run.id] for run in pack} for pack in group.packs]
    executor.update_parameters(
        job_name=f"tlp-{group.role}" + (f"-{group.after[:8]}" if group.after else ""),
        comment=comment,
        time=max(options.minutes(group.role, pack) for pack in work),
        mem=f"{math.ceil(group.mem_gb * 1024)}MB",
        cpus_per_task=cpus,
        array_parallelism=options.max_parallel,
        signal_delay_s=options.warning,
        stderr_to_stdout=True,
        setup=_setup(options),
        srun_args=[f"--cpus-per-task={cpus}"],  # since SLURM 22.05 a step does not get its job's by itself
        **{key: value for key, value in given.items() if value is not None},
    )
    return executor


def _setup(options: Options) -> list[str]:
    """The lines of `setup`, and what says in the job's log which of them failed, or that there is no Python."""
    lines = []
    for line in options.setup:
        lines += [line, _or_end(f"hydra.launcher.setup: this line failed: {line}")]
    python = shlex.split(options.python or shlex.quote(sys.executable))[0]
    lines += [
        f"command -v {shlex.quote(python)} >/dev/null",
        _or_end(f"hydra.launcher.python: {python} is not on this node"),
    ]
    return lines


def _or_end(message: str) -> str:
    words = shlex.quote(f"tlprotocols: {' '.join(message.split())}")
    return f'status=$?; [ $status = 0 ] || {{ echo {words}" (exit code $status on $(hostname))"; exit $status; }}'


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Submit as from a login node: inside a job, SLURM's variables would pass for options of the new ones."""
    from submitit.helpers import clean_env

    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
