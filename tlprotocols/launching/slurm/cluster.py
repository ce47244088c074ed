"""The backend hydra/launcher=slurm: the sweep as job arrays. Rows on disk are the truth, the queue is a hint."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError, RunsFailed
from tlprotocols.launching.backend import OnEvent
from tlprotocols.launching.slurm import queue
from tlprotocols.launching.slurm.cancel import cancel
from tlprotocols.launching.slurm.claims import Claim, claims, files_of, located, records, shared
from tlprotocols.launching.slurm.locks import check_locks
from tlprotocols.launching.slurm.options import Options
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.launching.slurm.submit import State, Submitted, may_grow, submit
from tlprotocols.launching.slurm.wait import Watch
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import Plan, Run, plan
from tlprotocols.records import write_atomic


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
        """Refuse where there is no SLURM, and options that do not fit together.

        Raises:
            ConfigError: says so.
        """
        if not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError(
                "hydra/launcher", "slurm", "needs sbatch and srun: start it on a login node of the cluster"
            )
        self.options.check()

    def resolve(self, config: Config) -> Config:
        """The configuration as the cluster's nodes see it: with their device."""
        machine = config.machine
        if machine.device == "auto":
            machine = dataclasses.replace(machine, device=self.options.device)
        return dataclasses.replace(config, machine=machine)

    def parallel(self, configs: Sequence[Config]) -> int:
        """Runs of all tasks that may run at a time."""
        return self.options.max_parallel * self.options.workers

    def look(self, plan: Plan) -> Plan:
        """The plan with what SLURM knows: queued runs are under way; a run whose job ran out of memory has failed. A
        dry run does with what is on disk if SLURM gives no answer."""
        found = records(_unfinished(plan))
        if not found:
            return plan
        try:
            jobs = queue.queued(record.user for record in found.values())
            claimed = claims(found, jobs)
            return located(plan, claimed, self._ran_out(plan, found, claimed, self.retry_failed))
        except queue.NoAnswer as error:
            if not self.dry_run:
                raise
            where = {
                id: f"submitted {record.submitted} as job {record.job}, unless that has ended:"
                f" SLURM gives no answer ({error}); log {record.log}"
                for id, record in found.items()
                if id not in plan.failed
            }
            return dataclasses.replace(plan, running={**where, **plan.running})

    def _ran_out(
        self, plan: Plan, found: Mapping[str, JobRecord], claimed: Mapping[str, Claim], retry_failed: bool
    ) -> dict[str, str]:
        """The runs whose last job ran out of memory by their own fault, and the reason in words."""
        return {
            id: f"its SLURM job {record.job} ran out of memory; raise hydra.launcher.mem_gb"
            for id, record in found.items()
            if not (retry_failed or id in claimed)
            and record.broken_off
            and queue.memory_ended(record)
            and not may_grow(record, plan.runs[id].role, self.options)
            and not shared(plan.runs[id], record)
        }

    def logs(self, run: Run) -> list[str]:
        """What the job of a run printed."""
        record = JobRecord.read(files_of(run))
        return [record.log] if record else []

    def execute(self, plan: Plan, costs: Cost, on_event: OnEvent) -> dict[str, str] | None:
        """Submit what remains, and wait for it and for what is queued, unless `wait` is false. With `cancel`, end the
        jobs of the sweep instead.

        Raises:
            RunsFailed: the cluster took fewer runs than there are, and nothing is waited for.
        """
        results = Path(next(iter(plan.runs.values())).config.results_dir)
        if self.options.cancel:
            cancel(plan, results, on_event)
            return None
        if note := check_locks(results):
            on_event("note", None, note)
        configs = [run.config for run in plan.requested]
        submitted = submit(results, lambda: self._state(configs, {}, self.retry_failed), self.options)
        self._announce(submitted, results, on_event)
        if submitted.refused and not (self.options.wait and (submitted.records or submitted.passing)):
            raise RunsFailed(f"the cluster took {len(submitted.records)} runs and no more: {submitted.refused}")
        if not self.options.wait and (submitted.plan.to_run or submitted.plan.running):
            return None
        return self._follow(submitted, results, on_event)

    def _state(self, configs: Sequence[Config], failed: Mapping[str, str], retry_failed: bool) -> State:
        """The plan as it is now on disk and in the queue. What has `failed` while we waited stays so."""
        now = plan(configs, retry_failed)
        found = records(_unfinished(now))
        jobs = queue.queued(record.user for record in found.values())
        claimed = claims(found, jobs)
        now = dataclasses.replace(now, failed={**now.failed, **failed})
        ran_out = self._ran_out(now, found, claimed, retry_failed)
        for id, why in ran_out.items():  # it stays so, whatever becomes of those that shared the job
            write_atomic(files_of(now.runs[id]).failure, why)
        return located(now, claimed, ran_out), claimed, jobs

    def _announce(self, submitted: Submitted, results: Path, on_event: OnEvent) -> None:
        if submitted.cancelled:
            on_event("note", None, f"{submitted.cancelled} jobs of an interrupted submission were cancelled")
        if submitted.records:
            packs, jobs = submitted.packs, submitted.jobs
            tasks = f"{packs} task{'s' * (packs != 1)} of job{'s' * (len(jobs) != 1)} {', '.join(jobs)}"
            on_event("note", None, f"submitted {len(submitted.records)} in {tasks}")
        if submitted.left and (submitted.records or submitted.passing):
            why = submitted.refused or f"hydra.launcher.max_queued={self.options.max_queued}"
            later = "they follow as jobs end" if self.options.wait else "the same command submits them"
            rest = later if submitted.passing else "the same command submits the rest"
            on_event("note", None, f"{len(submitted.left)} are not submitted ({why}); {rest}")
        if not self.options.wait:
            jobs = self._jobs(submitted.plan)
            for line in (
                f"queue   squeue --jobs={','.join(jobs)}",
                "state   the same command with hydra.launcher.dry_run=true; without it, it submits what is missing",
                f"logs    {results}/slurm/JOB_0_log.out of a job, {results}/runs/RUN_ID/log.txt of a run",
                "cancel  the same command with hydra.launcher.cancel=true",
            ):
                on_event("note", None, line)

    def _jobs(self, plan: Plan) -> list[str]:
        """The jobs that are recorded for unfinished runs, arrays by their first number; SLURM is not queried."""
        found = records(_unfinished(plan)).values()
        return list(dict.fromkeys(record.job.partition("_")[0] for record in found))

    def _follow(self, submitted: Submitted, results: Path, on_event: OnEvent) -> dict[str, str]:
        """Wait for these runs; those whose job died before it came to them are submitted again, and those for which
        there was no room as there is."""
        configs = [run.config for run in submitted.plan.requested]
        watch = Watch(results, self.options, on_event, dict(submitted.plan.failures))
        self._watch(submitted, watch)
        try:
            while True:
                watch.wait(more=bool(submitted.left))
                if not (watch.runs or watch.again or submitted.left):
                    return watch.failed
                try:
                    submitted = submit(results, lambda: self._state(configs, watch.failed, False), self.options)
                except queue.NoAnswer:
                    watch.take_back()
                    continue
                if submitted.records:
                    self._announce(submitted, results, on_event)
                self._watch(submitted, watch)
        except KeyboardInterrupt:
            line = "the jobs go on; the same command waits for them, with hydra.launcher.cancel=true it ends them"
            on_event("note", None, line)
            raise

    def _watch(self, submitted: Submitted, watch: Watch) -> None:
        """Wait for what is in the queue now, and for what was lost and has ended in the meantime."""
        now, left = submitted.plan, {run.id for run in submitted.left}
        if submitted.refused and not submitted.passing:
            why = f"it was not submitted: {submitted.refused}; the same command tries again"
            watch.failed |= dict.fromkeys(left, why)
            submitted.left, left = [], set()
        watch.failed |= {id: why for id, why in now.failures.items() if id not in watch.failed}
        waited = {**watch.again, **{run.id: run for run in now.to_run}, **{id: now.runs[id] for id in now.running}}
        waited = {id: run for id, run in waited.items() if id not in left | set(watch.failed)}
        watch.add(waited, new=bool(submitted.records))
        watch.again.clear()


def _unfinished(plan: Plan) -> list[Run]:
    return [run for run in plan.runs.values() if run.id not in plan.rows]
