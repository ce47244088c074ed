"""What SLURM knows, in few calls and without sacct; and the record, in a run's folder, of the job that has the run."""

import dataclasses
import json
import logging
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tlprotocols.records import Files, read_json, write_atomic

log = logging.getLogger(__name__)
MAX_ARRAY_SIZE = 1001  # SLURM's own default, where the cluster does not say
ANSWER_WITHIN = 60  # seconds; a controller under load may take that long


class NoAnswer(RuntimeError):
    """The SLURM controller did not answer: a passing state of large clusters."""


@dataclass(frozen=True)
class JobRecord:
    """The SLURM job that has a run, as its submission recorded it. The queue decides whether it still counts."""

    job: str  # "12", or "12_3" in an array
    log: str  # what that job prints
    submitted: str
    started: str | None = None  # when the job began this very run

    @staticmethod
    def read(paths: Files) -> "JobRecord | None":
        """The record of a run, if it was ever submitted. A damaged one is named and ignored."""
        try:
            return JobRecord(**read_json(_file(paths)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            log.warning("%s: no record of a job (%s)", _file(paths), error)
            return None

    def write(self, paths: Files) -> None:
        """Write it into the run's folder."""
        write_atomic(_file(paths), json.dumps(dataclasses.asdict(self)))


def _file(paths: Files) -> Path:
    return paths.folder / "job.json"


def queued(jobs: Iterable[str]) -> dict[str, str]:
    """State of those jobs that are in the queue, running or not: one call of squeue for all of them.

    Raises:
        NoAnswer: SLURM is silent, which says nothing about the jobs.
    """
    parents = sorted({job.partition("_")[0] for job in jobs})
    if not parents:
        return {}
    answer = _call("squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={','.join(parents)}")
    if answer.returncode and "Invalid job id" not in answer.stderr:
        raise NoAnswer((answer.stderr.strip().splitlines() or ["squeue failed"])[-1])
    return dict(line.split(maxsplit=1) for line in answer.stdout.splitlines() if line.strip())


def max_array_size() -> int:
    """How many tasks an array may have here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config").stdout, re.MULTILINE)
    return int(found[1]) if found else MAX_ARRAY_SIZE


def ending(job: str) -> dict[str, str]:
    """What SLURM remembers of a job, as in {"JobState": "TIMEOUT", ...}: for some minutes after its end, then {}."""
    words = _call("scontrol", "--oneliner", "show", "job", job).stdout.split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def why_lost(record: JobRecord) -> tuple[str, str]:
    """Why a job ended without a result: one of `cancelled`, `memory`, `time`, `node`, `unknown`, and a sentence."""
    state = ending(record.job)
    name, code = state.get("JobState", ""), state.get("ExitCode", "")
    if name == "OUT_OF_MEMORY" or memory_ended(record):
        kind, words = "memory", "out of memory; raise hydra.launcher.mem_gb"
    elif name in ("CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED"):
        kind = {"CANCELLED": "cancelled", "TIMEOUT": "time"}.get(name, "node")
        words = {"cancelled": "cancelled", "time": "time limit reached", "node": name}[kind]
    elif name:
        kind, words = "unknown", f"{name}, exit code {code}"
    else:
        kind, words = "unknown", "out of memory, time limit or cancelled: SLURM has forgotten it"
    return kind, f"its SLURM job {record.job} ended without a result ({words}); log {record.log}"


def memory_ended(record: JobRecord) -> bool:
    """Whether SLURM wrote into the job's output that it was out of memory: without cgroups it says so only there."""
    try:
        with open(record.log, "rb") as file:
            file.seek(max(0, Path(record.log).stat().st_size - 4096))
            return re.search(rb"memory limit|oom[-_ ]kill", file.read(), re.IGNORECASE) is not None
    except OSError:
        return False


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_WITHIN)
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{command[0]} gave no answer within {ANSWER_WITHIN} s") from error
