"""The search: settings are cross-validated on the training images until the budget of time is used up.

Brackets of new settings go through successive halving (Jamieson & Talwalkar 2016): all are measured on one fold, the
better half on a second one, and half of these on all. What the search does next is a function of the rows so far, so
that the same command, begun again, repeats its steps without training and goes on where it ended.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from statistics import mean

import pandas as pd

from tlprotocols.config.identity import DIGEST, run_id
from tlprotocols.config.schema import Config, setting
from tlprotocols.errors import ConfigError
from tlprotocols.planning.plan import resolved
from tlprotocols.records import Row, read_json, write_atomic
from tlprotocols.searching import space
from tlprotocols.searching.space import Setting

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SAMPLERS = ("tpe", "random")
BRACKET = 12  # settings that begin together
FIRST = 4  # of a random search
REPLICATES = 3  # seeds of each network that is compared in the end
Execute = Callable[[list[list[str]]], list[Row | None]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `recommend`; their values are in conf/hydra/sweeper/recommend.yaml."""

    budget: str = setting("time to search, as in 90s, 10m or 2h; a base network is trained before it begins")
    sampler: str = setting("where settings come from: what was good so far, or chance alone", choices=SAMPLERS)

    @property
    def seconds(self) -> float:
        """The budget.

        Raises:
            ConfigError: it is no time.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", self.budget)
        if not found or not float(found[1]):
            raise ConfigError("budget", self.budget, "must be a time, as in 90s, 10m or 2h")
        return float(found[1]) * SECONDS[found[2]]


@dataclass(frozen=True)
class Step:
    """Some settings that were measured together."""

    settings: int
    runs: int  # that count against the budget
    seconds: float
    cut: bool = False  # the budget allowed for fewer than there were


@dataclass
class Tried:
    """A setting, and its accuracy on each fold that it was measured on."""

    setting: Setting
    name: str = ""  # of a setting that the search began with
    folds: dict[int, float] = field(default_factory=dict)


@dataclass
class Search:
    """One search. `compose` makes the configuration of overrides; `execute` returns the rows of lists of overrides."""

    overrides: Sequence[str]  # of the user: the task
    compose: Callable[[Sequence[str]], Config]
    execute: Execute
    options: Options
    resolve: Callable[[Config], Config] = resolved  # with the digests of its files, as it will run
    clock: Callable[[], float] = time.monotonic  # seconds
    tried: list[Tried] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)  # in this command, repeated ones included

    def __post_init__(self) -> None:
        """Raises ConfigError if there is nothing to search."""
        space.check_task(self.config, self.overrides)
        self.seconds, self.ranges = self.options.seconds, space.space(self.config, list(self.fixed))
        if not self.ranges:
            raise ConfigError("command line", " ".join(self.overrides), "leaves nothing to search; leave out a factor")
        task = self.resolve(self.config)
        self.files = {key: value for key, value in _digests(task).items() if value}
        text = json.dumps([run_id(task), sorted(self.fixed), self.options.sampler])
        name = hashlib.sha256(text.encode()).hexdigest()[:DIGEST]
        self.folder = Path(self.config.results_dir).expanduser() / "recommend" / name
        self._read_state()

    def _read_state(self) -> None:
        """What earlier commands did. With a larger budget, what the smaller one cut is done again, in full."""
        state, found = self.folder / "state.json", {}
        if state.exists():
            try:
                found = dict(read_json(state))
            except (ValueError, TypeError) as error:
                raise ConfigError("state", state, "is damaged; remove it, and the same command goes on") from error
        self.earlier = [Step(**step) for step in found.get("steps", [])]
        self.ended = float(found.get("ended", 0))  # the largest budget that was used up
        self.starts: dict[str, Setting] = found.get("starts", {})  # of the first command: rows have come since
        self.before = Step(**found.get("before", vars(Step(0, 0, 0.0))))  # what is not repeated, but was spent
        cuts = [place for place, step in enumerate(self.earlier) if step.cut]
        if cuts and self.seconds > self.ended:
            again = self.earlier[cuts[0] :]
            runs, seconds = sum(step.runs for step in again), sum(step.seconds for step in again)
            self.before = Step(0, self.before.runs + runs, self.before.seconds + seconds)
            self.earlier = self.earlier[: cuts[0]]

    @cached_property
    def config(self) -> Config:
        """The task, with the default setting."""
        return self.compose(self.overrides)

    @cached_property
    def fixed(self) -> Setting:
        """The factors that the user gave, out of those that are searched."""
        names = set(map(space.key_of, self.overrides))
        return space.values_of(self.config, [key for key in space.FACTORS if key in names])

    @cached_property
    def plain(self) -> list[str]:
        """The user's overrides without the factors that are searched: a protocol sets its own."""
        return [override for override in self.overrides if space.key_of(override) not in self.fixed]

    @property
    def balanced(self) -> bool:
        """Whether settings are chosen and compared by balanced accuracy: where the user gives weights to classes."""
        return self.config.class_weights != "none"

    @property
    def spent(self) -> float:
        """Seconds, of this command and of earlier ones."""
        return self.before.seconds + sum(step.seconds for step in self.steps)

    def run(self, images: float, rows: pd.DataFrame | None = None) -> Tried:
        """Search until the budget is used up; `images` per class are there. Returns the setting that was chosen.
        `rows` are earlier ones, of which good settings are tried first.

        Raises:
            ConfigError: no run has a result.
        """
        if self.options.sampler == "tpe" and not self.starts:
            self.starts = space.starts(self.compose, self.plain, images, rows)
        first = [Tried(values, name) for name, values in self.beginning().items()] or self._proposed(FIRST)
        self._measure(first[:1], 1, counted=False)  # the base network is trained by then
        self._measure(first, 1)  # from the time of these the others are planned
        while self._bracket(first):
            first = []
        self.ended = max(self.ended, self.seconds)
        self._save()
        return self.best

    def beginning(self) -> dict[str, Setting]:
        """The settings to begin with, with the user's values; of equal ones the first."""
        found: dict[str, Setting] = {}
        for name, values in self.starts.items():
            one = space.with_fixed(values, self.fixed)
            found |= {name: one} if one not in found.values() else {}
        return found

    @property
    def best(self) -> Tried:
        """Of the settings that were measured on most folds, the most accurate one."""
        most = max(len(one.folds) for one in self.tried)
        return max((one for one in self.tried if len(one.folds) == most), key=self.accuracy)

    def accuracy(self, one: Tried) -> float:
        """Mean over the folds of a setting, corrected for how much easier or harder these are than all folds together,
        as the settings with all folds tell."""
        complete = [other.folds for other in self.tried if len(other.folds) == self.config.folds]
        if not complete:
            return mean(one.folds.values())
        whole = mean(mean(values.values()) for values in complete)
        return whole + mean(value - mean(other[fold] for other in complete) for fold, value in one.folds.items())

    def _bracket(self, first: list[Tried]) -> bool:
        """Take new settings, `first` among them, through all folds. Returns whether the budget allowed it."""
        group = self._measure([*first, *self._proposed(BRACKET - len(first))], 1)
        for folds in (2, self.config.folds):
            if not group:
                return False
            kept = sorted(group, key=self.accuracy, reverse=True)[: max(1, len(group) // 2)]
            group = self._measure(kept, folds)
        return bool(group)

    def _proposed(self, count: int) -> list[Tried]:
        """New settings."""
        values = space.values_of(self.config)
        seen = [(space.point(one.setting, self.ranges, values), self.accuracy(one)) for one in self.tried]
        points = space.proposals(self.ranges, seen, count, self.options.sampler == "random")
        found = [space.with_fixed(space.setting(point, values), self.fixed) for point in points]
        known = [one.setting for one in self.tried]
        return [Tried(one) for place, one in enumerate(found) if one not in known and one not in found[:place]]

    def _measure(self, group: list[Tried], folds: int, counted: bool = True) -> list[Tried]:
        """Measure settings on the first `folds` folds, as many of them as the budget allows. Returns those measured."""
        todo = [[fold for fold in range(folds) if fold not in one.folds] for one in group]
        place, begun = len(self.steps), self.clock()
        before = self.earlier[place] if place < len(self.earlier) else None
        size = (
            before.settings if before else self._affordable([len(which) for which in todo]) if counted else len(group)
        )
        cells = [(one, fold) for one, which in zip(group[:size], todo, strict=False) for fold in which]
        overrides = [[*self.overrides, *typed(one.setting), *self.fold(fold)] for one, fold in cells]
        try:
            rows = self.executed(overrides) if overrides else []
        except KeyboardInterrupt:  # what was trained by now is not trained again, and its time is spent
            self.before = replace(self.before, seconds=self.before.seconds + counted * (self.clock() - begun))
            self._save()
            raise
        for (one, fold), row in zip(cells, rows, strict=True):
            if row is not None:
                one.folds[fold] = row["val_balanced_top1" if self.balanced else "val_top1"]
        seconds = before.seconds if before else self.clock() - begun if counted else 0.0
        self.steps.append(Step(size, len(cells) if counted else 0, seconds, cut=size < len(group)))
        self.tried += [one for one in group if one.folds and not any(one is other for other in self.tried)]
        if not self.tried:
            raise ConfigError("command line", " ".join(self.overrides), "no run of the search has a result; see above")
        self._save()
        return [one for one in group[:size] if len(one.folds) >= folds]

    def executed(self, cells: list[list[str]]) -> list[Row | None]:
        """The rows of lists of overrides.

        Raises:
            ConfigError: they are of other images, or of another file of weights, than those that the search began with.
        """
        rows = self.execute(cells)
        for row in rows:
            for key, value in self.files.items():
                if row is not None and row.get(key) not in (None, "", value):
                    name = key.replace("fingerprint", "root").replace("digest", "weights")
                    legal = "changed during the search; the same command begins a new search with what is there now"
                    raise ConfigError(name, attrgetter(name)(self.config), legal)
        return rows

    def fold(self, fold: int) -> list[str]:
        """The overrides of one fold."""
        return [f"fold={fold}", f"seed={self.config.seed + fold}"]

    def _affordable(self, runs: Sequence[int]) -> int:
        """How many settings, which need so many runs each, can be measured in time for the comparison at the end."""
        if self.seconds <= self.ended:
            return 0
        before = self.before.runs + sum(step.runs for step in self.steps)
        if not before:
            return len(runs)
        each = self.spent / before
        at_end = each * REPLICATES * (1 + len(space.BASELINES)) * self.config.folds / (self.config.folds - 1)
        left = self.seconds - self.spent - at_end
        needed = [each * sum(runs[: count + 1]) for count in range(len(runs))]
        return sum(seconds <= left for seconds in needed)

    def _save(self) -> None:
        """Keep what was done; of an earlier command that went further, what is not repeated yet."""
        steps = [*self.steps, *self.earlier[len(self.steps) :]]
        state = {
            "starts": self.starts,
            "ended": self.ended,
            "before": vars(self.before),
            "steps": [vars(step) for step in steps],
        }
        text = json.dumps(state, indent=1)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "state.json", text)


def _digests(config: Config) -> dict[str, str | None]:
    """What the images and the weights of a task are, by the columns of a row."""
    base = config.base.dataset
    return {
        "dataset.fingerprint": config.dataset.fingerprint,
        "base.dataset.fingerprint": base.fingerprint if base else None,
        "base.digest": config.base.digest,
    }


def typed(setting: Setting) -> list[str]:
    """A setting as overrides."""
    return [f"{key}={value}" for key, value in setting.items()]
