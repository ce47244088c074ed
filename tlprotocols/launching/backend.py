"""What the driver needs of a place where runs are executed: this machine's processes, a SLURM cluster, Ray."""

from collections.abc import Callable, Sequence
from typing import Protocol

from tlprotocols.config.schema import Config
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import Plan, Run

# What happened, to which run, and more about it: ("started", run, ""), ("advance", run, images trained on),
# ("retried", run, reason), ("finished", run, ""), ("failed", run, reason), ("note", None, a line for the user), or
# ("queue", None, how many jobs run and wait).
OnEvent = Callable[[str, Run | None, object], None]


class Backend(Protocol):
    """A place where runs are executed. Its options are the keys of hydra/launcher=NAME."""

    @property
    def dry_run(self) -> bool:
        """Only print the plan."""

    @property
    def retry_failed(self) -> bool:
        """Run again what failed in an earlier attempt."""

    @property
    def is_here(self) -> bool:
        """Runs train on this machine: images are decoded before, and its own throughput counts."""

    def check(self) -> None:
        """Refuse where it cannot work. Raises ConfigError."""

    def resolve(self, config: Config) -> Config:
        """The configuration as its workers see it: with their device."""

    def parallel(self, configs: Sequence[Config]) -> int:
        """How many of these runs, as `resolve` returned them, are executed at a time, at most: for the estimate."""

    def look(self, plan: Plan) -> Plan:
        """The plan with what is queued or executed there, and with what failed there."""

    def logs(self, run: Run) -> list[str]:
        """Files that say more of a run than its own log."""

    def execute(self, plan: Plan, costs: Cost, on_event: OnEvent) -> dict[str, str] | None:
        """Execute what remains, bases before the runs that copy from them. Returns the failures, reason by run id;
        None if it leaves before the end."""
