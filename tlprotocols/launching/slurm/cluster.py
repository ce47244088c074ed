"""The backend hydra/launcher=slurm: the sweep as job arrays. Rows on disk are the truth, the queue is a hint."""

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError, RunsFailed
from tlprotocols.launching.backend import OnEvent
from tlprotocols.launching.slurm import queue
from tlprotocols.launching.slurm.options import Options
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.launching.slurm.submit import Submitted, in_queue, submit
from tlprotocols.launching.slurm.wait import Watch
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import files


@dataclass(frozen=True)
class Slurm:
    """Submits what is neither finished nor queued, and waits if `wait` says so."""

    options: Options

    @property
    def dry_run(self) -> bool:
        """Only print the plan and where every run is."""
        return self.options.dry_run

    @property
    def retry_failed(self) -> bool:
        """Run again what failed in an earlier attempt."""
        return self.options.retry_failed

    @property
    def is_here(self) -> bool:
        """Runs train on nodes of the cluster, which decode the images that they need."""
        return False

    def check(self) -> None:
        """Refuse where there is no SLURM.

        Raises:
            ConfigError: says so.
        """
        if not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError(
                "hydra/launcher", "slurm", "needs sbatch and srun: start it on a login node of the cluster"
            )

    def resolve(self, config: Config) -> Config:
        """The configuration as the cluster's nodes see it: their device, and an absolute path of the results."""
        machine = config.machine
        if machine.device == "auto":
            machine = dataclasses.replace(machine, device=self.options.device)
        results = str(Path(config.results_dir).expanduser().absolute())
        return dataclasses.replace(config, machine=machine, results_dir=results)

    def parallel(self, configs: Sequence[Config]) -> int:
        """Runs of all tasks that may run at a time."""
        return self.options.max_parallel * self.options.workers

    def look(self, plan: Plan) -> Plan:
        """The plan with what SLURM knows: queued runs are under way; a run whose job ran out of memory has failed."""
        unfinished = [run for run in plan.runs.values() if run.id not in plan.rows]
        records = in_queue(unfinished)
        states = queue.queued(record.job for record in records.values())
        where = {
            id: f"{states.get(record.job, 'ended').lower()} in job {record.job}, log {record.log}"
            for id, record in records.items()
        }
        failed = {id: reason for id, reason in plan.failed.items() if id not in records}
        for run in unfinished if not self.retry_failed else []:
            record = JobRecord.read(files(run.config))
            known = {*records, *failed, *plan.running}
            if record and record.started and run.id not in known and queue.memory_ended(record):
                failed[run.id] = f"its SLURM job {record.job} ran out of memory; raise hydra.launcher.mem_gb"
        return dataclasses.replace(plan, running={**plan.running, **where}, failed=failed)

    def logs(self, run: Run) -> list[str]:
        """What the job of a run printed."""
        record = JobRecord.read(files(run.config))
        return [record.log] if record else []

    def execute(self, plan: Plan, costs: Cost, on_event: OnEvent) -> dict[str, str] | None:
        """Submit what remains, and wait for it and for what is queued, unless `wait` is false.

        Raises:
            RunsFailed: the cluster took fewer runs than there are, and nothing is waited for.
        """
        submitted = submit(plan.to_run, costs.seconds, self.options)
        self._announce(plan, submitted, on_event)
        if submitted.refused and not (self.options.wait and submitted.records):
            raise RunsFailed(f"the cluster took {len(submitted.records)} runs and no more: {submitted.refused}")
        waited = dict.fromkeys([run.id for run in plan.to_run] + list(plan.running))
        if not self.options.wait and waited:
            return None
        return self._follow([plan.runs[id] for id in waited], plan.failures, costs.seconds, on_event)

    def _announce(self, plan: Plan, submitted: Submitted, on_event: OnEvent) -> None:
        if submitted.records:
            tasks = f"{submitted.packs} tasks of jobs {', '.join(submitted.jobs)}"
            on_event("note", None, f"submitted {len(submitted.records)} in {tasks}")
        if submitted.refused and submitted.records:
            line = f"[red]the cluster took no more[/red] ({submitted.refused}); the same command submits the rest"
            on_event("note", None, line)
        if not self.options.wait:
            results, jobs = next(iter(plan.runs.values())).config.results_dir, self._jobs(plan.runs.values())
            for line in (
                f"queue   squeue --jobs={','.join(jobs)}",
                "state   the same command with hydra.launcher.dry_run=true; without it, it submits what is missing",
                f"logs    {results}/slurm/JOB_0_log.out of a job, {results}/runs/RUN_ID/log.txt of a run",
                f"cancel  scancel {' '.join(jobs)}",
            ):
                on_event("note", None, line)

    def _jobs(self, runs: Iterable[Run]) -> list[str]:
        """The jobs of these runs that are in the queue, arrays by their first number."""
        return list(dict.fromkeys(record.job.partition("_")[0] for record in in_queue(list(runs)).values()))

    def _follow(
        self, runs: list[Run], failed: dict[str, str], seconds: Mapping[str, float], on_event: OnEvent
    ) -> dict[str, str]:
        """Wait for these runs; those whose job died before it came to them are submitted again."""
        try:
            while runs:
                watch = Watch(list(runs), on_event, failed)
                watch.wait()
                if len(watch.again) == len(runs):  # nothing begins here: no use in trying for ever
                    failed |= {run.id: "its SLURM job ended before it began" for run in runs}
                    break
                runs = watch.again
                if runs:
                    more = submit(runs, {run.id: seconds.get(run.id, 0.0) for run in runs}, self.options)
                    line = f"submitted {len(runs)} runs again: {', '.join(more.jobs)} ended before they began"
                    on_event("note", None, line)
        except KeyboardInterrupt:
            jobs = " ".join(sorted(self._jobs(runs)))
            on_event("note", None, f"the jobs go on; the same command waits for them, scancel {jobs} ends them")
            raise
        return failed
