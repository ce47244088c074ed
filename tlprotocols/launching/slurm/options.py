"""What a site needs and what its jobs get: the keys of hydra/launcher=slurm."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tlprotocols.config.schema import setting
from tlprotocols.errors import ConfigError

MARGIN = 3.0  # of a time limit that is taken from an estimate
LEAST_MINUTES, MOST_MINUTES = 15, 24 * 60  # of such a limit; a job that needs more is requeued


@dataclass(frozen=True, kw_only=True)
class BaseJob:
    """What the job of a base network gets; null: what other jobs get."""

    partition: str | None = setting("partition")
    time: int | None = setting("minutes until it is requeued", low=1)
    mem_gb: float | None = setting("memory", low=0.1)
    cpus: int | None = setting("processors; without GPUs, base.shards of them compute", low=1)


@dataclass(frozen=True, kw_only=True)
class Options:
    """conf/hydra/launcher/slurm.yaml has the values."""

    partition: str | None = setting("partition; null: the cluster's own default")
    account: str | None = setting("account to charge")
    qos: str | None = setting("quality of service")
    gres: str | None = setting("generic resources, as in gpu:a100:1")
    constraint: str | None = setting("features that a node must have")
    time: int | None = setting("minutes until a job is requeued; null: three times the estimate", low=1)
    mem_gb: float = setting("memory of a job", low=0.1)
    more_memory: float = setting("times the memory for a run that ran out of it; 1: it fails", low=1)
    cpus: int = setting("processors of a job; without GPUs, each works on a run of its own", low=1)
    gpus: int = setting("GPUs of a job", low=0)
    per_gpu: int = setting("runs at a time on a GPU", low=1)
    base: BaseJob = setting("what the job of a base gets instead")
    setup: tuple[str, ...] = setting("shell lines before Python starts")
    parameters: dict[str, str] = setting("any other option of sbatch")
    python: str | None = setting("how a job calls Python")
    pack_minutes: float = setting("work that a job gets, by the plan's estimate", low=0)
    max_array_size: int | None = setting("tasks in an array, at most; null: ask the cluster", low=1)
    max_parallel: int = setting("tasks of an array that run at a time, at most", low=1)
    max_queued: int | None = setting("tasks of yours in the queue, at most; null: as many as it takes", low=1)
    max_requeues: int = setting("times that a job may reach its time limit", low=0)
    warning: int = setting("seconds before the time limit at which runs save their state", low=5)
    wait: bool = setting("stay until everything has ended; false: submit and leave")
    dry_run: bool = setting("only say what there is and what would run")
    retry_failed: bool = setting("also run again what failed")
    cancel: bool = setting("only end the jobs of this sweep that you submitted")

    @property
    def workers(self) -> int:
        """Runs that a job works on at a time."""
        return self.gpus * self.per_gpu if self.gpus else self.cpus

    @property
    def device(self) -> str:
        """What its jobs compute on; the machine that submits may have another."""
        return "cuda" if self.gpus or "gpu" in (self.gres or "") else "cpu"

    def check(self) -> None:
        """Refuse values that do not fit together.

        Raises:
            ConfigError: runs would have to save their state before they begin.
        """
        least = LEAST_MINUTES if self.time is None else self.time
        for key, minutes in (("time", least), ("base.time", self.base.time or least)):
            if self.warning >= 60 * minutes:
                raise ConfigError(
                    "hydra.launcher.warning",
                    self.warning,
                    f"must be less than {60 * minutes} seconds, which are hydra.launcher.{key}={minutes} minutes",
                )

    def minutes(self, role: str, work: Mapping[str, float]) -> int:
        """The time limit of a job with runs of this role; `work` is the estimate of each, in seconds."""
        fixed = (self.base.time if role == "base" else None) or self.time
        if fixed:
            return fixed
        longest = max(max(work.values(), default=0.0), sum(work.values()) / self.workers)
        return min(MOST_MINUTES, max(LEAST_MINUTES, math.ceil(MARGIN * longest / 60)))

    def memory(self, role: str) -> float:
        """Memory of a job with runs of this role, in GB."""
        return (self.base.mem_gb if role == "base" else None) or self.mem_gb
