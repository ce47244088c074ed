"""What a site needs and what its jobs get: the keys of hydra/launcher=slurm."""

from dataclasses import dataclass

from tlprotocols.config.schema import setting


@dataclass(frozen=True, kw_only=True)
class Options:
    """conf/hydra/launcher/slurm.yaml has the values."""

    partition: str | None = setting("partition; null: the cluster's own default")
    account: str | None = setting("account to charge")
    qos: str | None = setting("quality of service")
    gres: str | None = setting("generic resources, as in gpu:a100:1")
    constraint: str | None = setting("features that a node must have")
    time: int = setting("minutes until a job is requeued", low=1)
    mem_gb: float = setting("memory of a job", low=0.1)
    cpus: int = setting("processors of a job; without GPUs, each works on a run of its own", low=1)
    gpus: int = setting("GPUs of a job", low=0)
    per_gpu: int = setting("runs at a time on a GPU", low=1)
    setup: tuple[str, ...] = setting("shell lines before Python starts")
    parameters: dict[str, str] = setting("any other option of sbatch")
    python: str | None = setting("how a job calls Python")
    pack_minutes: float = setting("work that a job gets, by the plan's estimate", low=0)
    max_array_size: int | None = setting("tasks in an array, at most; null: ask the cluster", low=1)
    max_parallel: int = setting("tasks of an array that run at a time, at most", low=1)
    max_requeues: int = setting("times that a job may reach its time limit", low=0)
    warning: int = setting("seconds before the time limit at which runs save their state", low=5)
    wait: bool = setting("stay until everything has ended; false: submit and leave")
    dry_run: bool = setting("only say what there is and what would run")
    retry_failed: bool = setting("also run again what failed")

    @property
    def workers(self) -> int:
        """Runs that a job works on at a time."""
        return self.gpus * self.per_gpu if self.gpus else self.cpus

    @property
    def device(self) -> str:
        """What its jobs compute on; the machine that submits may have another."""
        return "cuda" if self.gpus or "gpu" in (self.gres or "") else "cpu"
