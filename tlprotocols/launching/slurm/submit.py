"""Put runs into the queue: bases as jobs, the other runs in packs, arrays of packs through submitit."""

import heapq
import math
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from tlprotocols.launching.slurm import queue
from tlprotocols.launching.slurm.job import Pack
from tlprotocols.launching.slurm.options import Options
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.planning.plan import Run
from tlprotocols.records import Files, files, save_config


@dataclass
class Submitted:
    """What one submission put into the queue."""

    records: dict[str, JobRecord] = field(default_factory=dict)  # by run
    elsewhere: dict[str, JobRecord] = field(default_factory=dict)  # runs that an earlier submission has in the queue
    refused: str = ""  # why the cluster took no more, if it did not
    packs: int = 0

    @property
    def jobs(self) -> list[str]:
        """Job ids, arrays by their first number."""
        return list(dict.fromkeys(record.job.partition("_")[0] for record in self.records.values()))


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


def submit(runs: Sequence[Run], seconds: Mapping[str, float], options: Options) -> Submitted:
    """Put into the queue what no job has yet: bases first, each pack after its own base.

    Two submissions of one results folder take turns, so that none overlooks the other's jobs.

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
            save_config(run.config)
            for reason in (Files(results, run.id).failure, Files(results, run.id).accident):
                reason.unlink(missing_ok=True)
        try:
            for group, after in _arrays(open_, seconds, options, done):
                _submit_array(group, after, results, options, done)
        except subprocess.CalledProcessError as error:
            done.refused = str(error.stderr or error)
        except RuntimeError as error:  # submitit wraps what sbatch said
            done.refused = str(error).strip().splitlines()[-1]
    return done


def in_queue(runs: Sequence[Run]) -> dict[str, JobRecord]:
    """The records of those runs whose job is in the queue; a record whose job is gone is void."""
    records = {run.id: record for run in runs if (record := JobRecord.read(files(run.config)))}
    alive = queue.queued(record.job for record in records.values())
    return {id: record for id, record in records.items() if record.job in alive}


def _arrays(
    runs: Sequence[Run], seconds: Mapping[str, float], options: Options, done: Submitted
) -> Iterator[tuple[list[list[Run]], str | None]]:
    """Packs for one array, and the run id that all of them wait for. A base is submitted before its packs."""
    most = options.max_array_size or queue.max_array_size()
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
        packed = packs(group, seconds, options.workers, options.pack_minutes)
        for start in range(0, len(packed), most):
            yield packed[start : start + most], base


def _submit_array(group: list[list[Run]], after: str | None, results: Path, options: Options, done: Submitted) -> None:
    before = (done.records | done.elsewhere)[after].job if after else None
    executor = _executor(results / "slurm", options, before)
    with _outside_any_job(), executor.batch():
        jobs = [
            executor.submit(
                Pack(
                    str(results),
                    tuple((run.id, run.role) for run in pack),
                    after,
                    options.per_gpu,
                    options.warning,
                )
            )
            for pack in group
        ]
    for job, pack in zip(jobs, group, strict=True):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for run in pack:
            done.records[run.id] = JobRecord(str(job.job_id), str(job.paths.stdout), now)
            done.records[run.id].write(Files(results, run.id))
    done.packs += len(group)


def _executor(folder: Path, options: Options, after: str | None) -> Any:
    from submitit import SlurmExecutor

    executor = SlurmExecutor(folder, max_num_timeout=options.max_requeues, python=options.python)
    given = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "gres": options.gres,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus or None,
        "setup": list(options.setup) or None,
        # a switch, as --hold, is written {hold: true}
        "additional_parameters": {k: v == "True" or v for k, v in options.parameters.items()} or None,
        # a base that fails must not leave them pending for ever: they start, see that it is not there, and leave
        "dependency": f"afterany:{after}" if after else None,
    }
    executor.update_parameters(
        job_name="tlprotocols",
        time=options.time,
        mem=f"{math.ceil(options.mem_gb * 1024)}MB",
        cpus_per_task=options.cpus,
        array_parallelism=options.max_parallel,
        signal_delay_s=options.warning,
        stderr_to_stdout=True,
        srun_args=[f"--cpus-per-task={options.cpus}"],  # since SLURM 22.05 a step does not get its job's by itself
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
