"""A plan on a SLURM cluster: bases as jobs, the other runs in packs, arrays of packs through submitit."""

import dataclasses
import heapq
import math
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from tlprotocols.config.schema import setting
from tlprotocols.errors import ConfigError
from tlprotocols.launching.pool import freeze_config
from tlprotocols.launching.slurm import queue as scheduler
from tlprotocols.launching.slurm.job import Pack
from tlprotocols.launching.slurm.queue import Claim
from tlprotocols.planning.plan import Run
from tlprotocols.results import Files


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a site asks for and what its jobs get: conf/hydra/launcher/slurm.yaml has the values."""

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

    def check(self) -> None:
        """Refuse where there is no SLURM.

        Raises:
            ConfigError: says so.
        """
        if not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError(
                "hydra/launcher", "slurm", "needs sbatch and srun: start it on a login node of the cluster"
            )


@dataclass
class Submitted:
    """What one submission put into the queue."""

    claims: dict[str, Claim] = field(default_factory=dict)  # by run
    elsewhere: dict[str, Claim] = field(default_factory=dict)  # runs that an earlier submission has in the queue
    refused: str = ""  # why the cluster took no more, if it did not
    packs: int = 0

    @property
    def jobs(self) -> list[str]:
        """Job ids, arrays by their first number."""
        return list(dict.fromkeys(claim.job.partition("_")[0] for claim in self.claims.values()))


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


def submit(runs: Sequence[Run], seconds: Mapping[str, float], cluster: Cluster) -> Submitted:
    """Put into the queue what no job has yet: bases first, each pack after its own base.

    Two submissions of one results folder take turns, so that none overlooks the other's claims.

    Raises:
        NoAnswer: SLURM did not say what is in the queue; nothing was submitted.
    """
    if not runs:
        return Submitted()
    results = Path(runs[0].config.results_dir)
    folder = results / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        done = Submitted(elsewhere=in_queue(runs))
        open_ = [run for run in runs if run.id not in done.elsewhere]
        for run in open_:
            freeze_config(run)
            Files(results, run.id).failure.unlink(missing_ok=True)
        try:
            for group, after in _arrays(open_, seconds, cluster, done):
                _submit_array(group, after, results, cluster, done)
        except subprocess.CalledProcessError as error:
            done.refused = str(error.stderr or error)
        except RuntimeError as error:  # submitit wraps what sbatch said
            done.refused = str(error).strip().splitlines()[-1]
    return done


def in_queue(runs: Sequence[Run]) -> dict[str, Claim]:
    """Claims of those runs whose job is in the queue; a claim whose job is gone is void."""
    claims = {run.id: claim for run in runs if (claim := Claim.read(Files(Path(run.config.results_dir), run.id)))}
    alive = scheduler.queued(claim.job for claim in claims.values())
    return {id: claim for id, claim in claims.items() if claim.job in alive}


def _arrays(
    runs: Sequence[Run], seconds: Mapping[str, float], cluster: Cluster, done: Submitted
) -> Iterator[tuple[list[list[Run]], str | None]]:
    """Packs for one array, and the run id that all of them wait for. A base is claimed before its packs come."""
    most = cluster.max_array_size or scheduler.max_array_size()
    needed = {run.base for run in runs}
    bases = [[run] for run in runs if run.id in needed]
    by_base: dict[str | None, list[Run]] = defaultdict(list)
    for run in runs:
        if run.id not in needed:
            unfinished = run.base in {base.id for (base,) in bases} or run.base in done.elsewhere
            by_base[run.base if unfinished else None].append(run)
    for start in range(0, len(bases), most):
        yield bases[start : start + most], None
    for base, group in by_base.items():
        packed = packs(group, seconds, cluster.workers, cluster.pack_minutes)
        for start in range(0, len(packed), most):
            yield packed[start : start + most], base


def _submit_array(group: list[list[Run]], after: str | None, results: Path, cluster: Cluster, done: Submitted) -> None:
    before = (done.claims | done.elsewhere)[after].job if after else None
    executor = _executor(results / "slurm", cluster, before)
    with _outside_any_job(), executor.batch():
        jobs = [
            executor.submit(
                Pack(
                    str(results),
                    tuple((run.id, run.role) for run in pack),
                    after,
                    cluster.per_gpu,
                    cluster.warning,
                )
            )
            for pack in group
        ]
    for job, pack in zip(jobs, group, strict=True):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for run in pack:
            done.claims[run.id] = Claim(str(job.job_id), str(job.paths.stdout), now)
            done.claims[run.id].write(Files(results, run.id))
    done.packs += len(group)


def _executor(folder: Path, cluster: Cluster, after: str | None) -> Any:
    from submitit import SlurmExecutor

    executor = SlurmExecutor(folder, max_num_timeout=cluster.max_requeues, python=cluster.python)
    given = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "gres": cluster.gres,
        "constraint": cluster.constraint,
        "gpus_per_node": cluster.gpus or None,
        "setup": list(cluster.setup) or None,
        # a switch, as --hold, is written {hold: true}
        "additional_parameters": {k: v == "True" or v for k, v in cluster.parameters.items()} or None,
        # a base that fails must not leave them pending for ever: they start, see that it is not there, and leave
        "dependency": f"afterany:{after}" if after else None,
    }
    executor.update_parameters(
        job_name="tlprotocols",
        time=cluster.time,
        mem=f"{math.ceil(cluster.mem_gb * 1024)}MB",
        cpus_per_task=cluster.cpus,
        array_parallelism=cluster.max_parallel,
        signal_delay_s=cluster.warning,
        stderr_to_stdout=True,
        srun_args=[f"--cpus-per-task={cluster.cpus}"],  # since SLURM 22.05 a step does not get its job's by itself
        **{key: value for key, value in given.items() if value is not None},
    )
    return executor


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Submit as from a login node: inside a job, SLURM's variables would pass for options of the new ones."""
    from submitit.helpers import clean_env

    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield


def on_nodes(config: Any, cluster: Cluster) -> Any:
    """The configuration as the cluster's nodes see it: their device, and no path that depends on where we stand."""
    machine = config.machine
    if machine.device == "auto":
        machine = dataclasses.replace(machine, device=cluster.device)
    results = str(Path(config.results_dir).expanduser().absolute())
    return dataclasses.replace(config, machine=machine, results_dir=results)
