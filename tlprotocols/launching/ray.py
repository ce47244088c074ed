"""The backend hydra/launcher=ray: every run is a Ray task, on a cluster that Ray manages or on this machine."""

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from tlprotocols import hardware
from tlprotocols.config.schema import Config, setting
from tlprotocols.errors import ConfigError
from tlprotocols.launching.backend import OnEvent
from tlprotocols.launching.ready import Queue
from tlprotocols.launching.worker import attempt, prepare
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import files, save_if_no_job_reads


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Its options: conf/hydra/launcher/ray.yaml has the values."""

    address: str | None = setting("HOST:PORT of a Ray cluster's head, or auto; null: start Ray on this machine")
    per_gpu: int = setting("runs at a time on one GPU", low=1, high=64)
    dry_run: bool = setting("only print the plan")
    retry_failed: bool = setting("also run again what failed")

    @property
    def is_here(self) -> bool:
        """Runs train on this machine, unless a cluster is named."""
        return self.address is None

    def check(self) -> None:
        """Refuse where Ray is not installed, or where the cluster does not answer. Raises ConfigError."""
        if find_spec("ray") is None:
            raise ConfigError("hydra/launcher", "ray", "needs the package ray: pip install 'tlprotocols[ray]'")
        try:
            _ = self.resources
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError("hydra.launcher.address", self.address, f"no cluster answers ({error})") from error

    def resolve(self, config: Config) -> Config:
        """The configuration as a node sees it: with the cluster's device."""
        machine = config.machine
        device = machine.device if machine.device != "auto" else "cuda" if self.resources.get("GPU") else "cpu"
        return replace(config, machine=replace(machine, device=device))

    def parallel(self, configs: Sequence[Config]) -> int:
        """CPUs, or shares of GPUs."""
        device = configs[0].machine.device
        if self.is_here:
            return len(hardware.slots(device, per_gpu=self.per_gpu))  # refuses cuda where no GPU is
        gpus, cpus = (int(self.resources.get(kind, 0)) for kind in ("GPU", "CPU"))
        return max(1, gpus * self.per_gpu if device == "cuda" else cpus)

    def look(self, plan: Plan) -> Plan:
        """Locks on disk, which the plan has looked at, say all."""
        return plan

    def logs(self, run: Run) -> list[str]:
        """A run's own log has all."""
        return []

    def execute(self, plan: Plan, costs: Cost, on_event: OnEvent) -> dict[str, str]:
        """Execute what remains. Ctrl-C and SIGTERM end the tasks; the state that they saved is kept."""
        queue, running = Queue(plan, on_event), dict[Any, Run]()
        for run in plan.to_run_or_await:
            save_if_no_job_reads(run.config)
        if not plan.to_run_or_await:
            return {}
        ray, gpu = self._connect(), plan.to_run_or_await[0].config.machine.device == "cuda"
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # by now Ray has set its own
        share = 10_000 // self.per_gpu / 10_000 if gpu else 0  # of a GPU; Ray rounds to ten-thousandths
        task = ray.remote(num_cpus=int(not gpu), num_gpus=share, num_returns="streaming", max_retries=0)(execute)
        try:
            while queue.ready or running:
                running |= {task.remote(run, self.per_gpu): run for run in queue.ready}
                queue.ready.clear()
                for events in ray.wait(list(running), num_returns=1)[0]:
                    if _receive(ray, events, running[events], queue):
                        del running[events]
        except KeyboardInterrupt:
            for events in running:
                ray.cancel(events, force=True)
            on_event("note", None, "stopped; run the same command again to resume")
            raise
        finally:
            ray.shutdown()
        return queue.failed

    @cached_property
    def resources(self) -> dict[str, float]:
        """CPUs and GPUs, of this machine or of the cluster."""
        if self.is_here:
            return {"CPU": hardware.cores(), "GPU": hardware.gpus()}
        ray = self._connect()
        found: dict[str, float] = ray.cluster_resources()
        ray.shutdown()
        return found

    def _connect(self) -> Any:
        """The package, connected to the cluster, or to a Ray of our own that no other machine can reach."""
        given: dict[str, Any] = {"address": self.address or "local", "include_dashboard": False}
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if self.address is None:
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen on 127.0.0.1 only; read at the first import
            given |= {"num_cpus": hardware.cores(), "num_gpus": hardware.gpus(), "object_store_memory": 100 * 2**20}
        elif (where := self.address.rpartition(":"))[2].isdigit() and "/" not in where[0]:
            socket.create_connection((where[0], int(where[2])), timeout=10).close()  # Ray itself tries for minutes
        import ray

        ray.init(log_to_driver=False, logging_level=40, **given)  # 40: errors only
        return ray


def execute(run: Run, per_gpu: int) -> Iterator[tuple[str, str]]:
    """The task, in a process of Ray: yields an event as the run begins, and one as it ends."""
    yield "started", ""
    os.environ[hardware.SHARED_BY] = str(per_gpu)
    prepare(os.environ.get("CUDA_VISIBLE_DEVICES") or None)  # Ray has set it
    reason = attempt(run.config, run.role, lambda images: None)
    yield ("finished", "") if reason is None else ("failed", reason)


def _receive(ray: Any, events: Any, run: Run, queue: Queue) -> bool:
    """Act on the next event of a task; returns whether the task has ended."""
    try:
        what, detail = ray.get(next(events))
    except ray.exceptions.RayError as error:  # its process died, or its node; or that node cannot execute it
        detail = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        what, detail = queue.lose(run, detail)
    queue.on_event(what, run, detail)
    if what == "finished":
        os.listdir(files(run.config).row.parent)  # a network file system shows new files after a listing
        queue.finish(run)
    elif what == "failed":
        queue.fail(run, detail)
    return bool(what != "started")
