"""The backend hydra/launcher=local: worker processes of this machine, one run at a time each."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tlprotocols import hardware
from tlprotocols.config.schema import Config, setting
from tlprotocols.launching import workers
from tlprotocols.launching.backend import OnEvent
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import Plan, Run


@dataclass(frozen=True, kw_only=True)
class Local:
    """Its options: conf/hydra/launcher/local.yaml has the values."""

    workers: int | None = setting("worker processes; null: one per core, or one per slot of a GPU", low=1, high=1024)
    gpus: int | None = setting("GPUs to use; null: all", low=1)
    per_gpu: int = setting("runs at a time on one GPU", low=1, high=64)
    dry_run: bool = setting("only print the plan")
    retry_failed: bool = setting("also run again what failed")

    @property
    def is_here(self) -> bool:
        """Runs train on this machine."""
        return True

    def check(self) -> None:
        """It works anywhere."""

    def resolve(self, config: Config) -> Config:
        """Workers see what we see."""
        return config

    def parallel(self, configs: Sequence[Config]) -> int:
        """Workers."""
        return len(self._slots(configs[0]))

    def look(self, plan: Plan) -> Plan:
        """Locks on disk, which the plan has looked at, say all."""
        return plan

    def logs(self, run: Run) -> list[str]:
        """A run's own log has all."""
        return []

    def execute(self, plan: Plan, costs: Cost, on_event: OnEvent) -> dict[str, str]:
        """Execute what remains. Ctrl-C and SIGTERM end the workers; what they did is saved."""
        if not plan.to_run_or_await:
            return {}
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return workers.execute(plan, self._slots(plan.to_run_or_await[0].config), on_event)
        except KeyboardInterrupt:
            on_event("note", None, "stopped; run the same command again to resume")
            raise

    def _slots(self, config: Config) -> list[str | None]:
        return hardware.slots(hardware.device(config.machine), self.workers, self.gpus, self.per_gpu)
