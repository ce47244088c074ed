"""What SLURM knows, in few calls and without sacct; and the record, in a run's folder, of the job that has the run."""

import dataclasses
import json
import logging
import os
import pwd
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tlprotocols.records import Files, read_json, write_atomic

log = logging.getLogger(__name__)
MAX_ARRAY_SIZE = 1001  # SLURM's own default, where the cluster does not say
ANSWER_WITHIN = 60  # seconds; a controller under load may take that long
TAG = re.compile(r"\btlprotocols:([0-9a-f]{16})\b")  # in the comment of a job
JOBS_A_CALL = 500  # of scancel and scontrol
STATES = ("RUNNING", "COMPLETING", "CONFIGURING")  # all others wait


class NoAnswer(RuntimeError):
    """The SLURM controller did not answer: a passing state of large clusters."""


@dataclass(frozen=True)
class JobRecord:
    """The SLURM job that has a run, as its submission recorded it. The queue decides whether it still counts."""

    job: str  # "12", or "12_3" in an array
    log: str  # what that job prints
    submitted: str
    started: str | None = None  # when the job began this very run
    cluster: str = ""  # numbers of jobs belong to a cluster, and begin anew where one is set up again
    user: str = ""
    tag: str = ""  # of the submission, also in the job's comment: another job of this number does not have it
    mem_gb: float = 0.0
    finished: str | None = None  # when the job finished the run, as it was wanted then, or the run failed by itself

    @property
    def broken_off(self) -> bool:
        """Whether the job began the run and has not finished it."""
        return self.started is not None and self.finished is None

    @staticmethod
    def read(paths: Files) -> "JobRecord | None":
        """The record of a run, if it was ever submitted. A damaged one is named and ignored."""
        try:
            return JobRecord(**read_json(paths.job))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            log.warning("%s: no record of a job (%s)", paths.job, error)
            return None

    def write(self, paths: Files) -> None:
        """Write it into the run's folder."""
        write_atomic(paths.job, json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True)
class Job:
    """A job, or a task of an array, that is in the queue."""

    id: str
    state: str  # "PENDING", "RUNNING", ...
    start: str  # when it began, or is expected to; "N/A" if SLURM does not know
    reason: str  # why it waits
    user: str
    tag: str  # of the submission; "" if the job is none of ours

    def __str__(self) -> str:
        if self.state in STATES:
            return self.state.lower()
        expected = f", expected to start {self.start}" if self.start != "N/A" else ""
        return f"{self.state.lower()} ({self.reason}{expected})"


def queued(users: Iterable[str] = ()) -> dict[str, Job]:
    """All jobs in the queue of this user and these, running or not: one call of squeue.

    Raises:
        NoAnswer: SLURM is silent, which says nothing about the jobs.
    """
    names = ",".join(sorted({user_name(), *users} - {""}))
    answer = _call("squeue", "--noheader", "--array", "--format=%i|%T|%S|%r|%u|%k", f"--user={names}")
    if answer.returncode:
        raise NoAnswer((answer.stderr.strip().splitlines() or ["squeue failed"])[-1])
    found = {}
    for line in answer.stdout.splitlines():
        values = line.strip().split("|", 5)
        if len(values) == 6:  # a comment of several lines has more lines
            id, state, start, reason, user, comment = values
            found[id] = Job(id, state, start, reason, user, tag_in(comment))
    return found


def tag_in(text: str) -> str:
    """The tag of a submission in a job's comment; "" if there is none."""
    found = TAG.search(text)
    return found[1] if found else ""


def summary(jobs: Iterable[Job]) -> str:
    """How many jobs run and how many wait, for what, and when the next is expected to start."""
    jobs = list(jobs)
    waiting = [job for job in jobs if job.state not in STATES]
    text = f"{len(jobs) - len(waiting)} running, {len(waiting)} pending"
    if waiting:
        reasons = Counter(job.reason for job in waiting).most_common()
        text += f" ({', '.join(f'{reason} {count}' for reason, count in reasons)})"
    starts = sorted(job.start for job in waiting if job.start != "N/A")
    return text + (f", the next is expected to start {starts[0]}" if starts else "")


def user_name() -> str:
    """Who submits: the name, or the number of a user who has none here."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


@cache
def cluster_name() -> str:
    """What the cluster calls itself; "" if it has no name.

    Raises:
        NoAnswer: SLURM is silent.
    """
    answer = _call("scontrol", "show", "config")
    if answer.returncode:
        raise NoAnswer((answer.stderr.strip().splitlines() or ["scontrol failed"])[-1])
    found = re.search(r"^ClusterName\s*=\s*(\S+)", answer.stdout, re.MULTILINE)
    return found[1] if found else ""


def max_array_size() -> int:
    """How many tasks an array may have here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config").stdout, re.MULTILINE)
    return int(found[1]) if found else MAX_ARRAY_SIZE


def cancel(jobs: Iterable[str]) -> None:
    """End these jobs.

    Raises:
        NoAnswer: SLURM did not take the request.
    """
    ids = sorted(jobs)
    for start in range(0, len(ids), JOBS_A_CALL):
        answer = _call("scancel", *ids[start : start + JOBS_A_CALL])
        if answer.returncode and "Invalid job id" not in answer.stderr:
            raise NoAnswer((answer.stderr.strip().splitlines() or ["scancel failed"])[-1])


def postpone(jobs: Iterable[str], after: str) -> None:
    """Let pending jobs wait until the job `after` has ended. Those that run already do not mind."""
    for job in sorted(jobs):
        _call("scontrol", "update", f"jobid={job}", f"dependency=afterany:{after}")


def ending(record: JobRecord) -> dict[str, str]:
    """What SLURM remembers of the job of a record, as in {"JobState": "TIMEOUT", ...}: for some minutes after its end,
    then {}; {} also if another job has that number by now."""
    printed = _call("scontrol", "--oneliner", "show", "job", record.job).stdout
    words = printed.split() if tag_in(printed) == record.tag else []
    return dict(word.split("=", 1) for word in words if "=" in word)


def why_lost(record: JobRecord) -> tuple[str, str]:
    """Why a job ended without a result: one of `cancelled`, `memory`, `time`, `node`, `setup`, `unknown`, and a
    sentence. `setup`: its script ended it before Python began."""
    state = ending(record)
    name, code = state.get("JobState", ""), state.get("ExitCode", "")
    refused = re.findall(r"^tlprotocols: (.*)", _tail(record), re.MULTILINE)
    if name == "OUT_OF_MEMORY" or memory_ended(record):
        kind, words = "memory", "out of memory; raise hydra.launcher.mem_gb"
    elif record.started is None and refused and name != "CANCELLED":
        kind, words = "setup", refused[-1]
    elif name in ("CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED"):
        kind = {"CANCELLED": "cancelled", "TIMEOUT": "time"}.get(name, "node")
        words = {"cancelled": "cancelled", "time": "time limit reached", "node": name}[kind]
    elif name:
        last = "" if record.started else "".join(f"; {line}" for line in _tail(record).splitlines()[-1:])
        kind, words = "unknown", f"{name}, exit code {code}{last}"
    else:
        kind, words = "unknown", "out of memory, time limit or cancelled: SLURM has forgotten it"
    return kind, f"its SLURM job {record.job} ended without a result ({words}); log {record.log}"


def memory_ended(record: JobRecord) -> bool:
    """Whether SLURM wrote into the job's output that it was out of memory: without cgroups it says so only there."""
    return re.search(r"memory limit|oom[-_ ]kill", _tail(record), re.IGNORECASE) is not None


def _tail(record: JobRecord) -> str:
    """The end of what a job printed; "" if there is nothing."""
    try:
        with open(record.log, "rb") as file:
            file.seek(max(0, Path(record.log).stat().st_size - 4096))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_WITHIN)
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{command[0]} gave no answer within {ANSWER_WITHIN} s") from error
