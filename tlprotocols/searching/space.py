"""What a search varies: the factors of a transfer protocol and its two learning rates, and from where it starts.

A setting is a mapping of overrides, as in {"layers": 6, "freeze": 2, "lr.high": 0.02}.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from tlprotocols.config.identity import IDLE
from tlprotocols.config.protocols import named_setting
from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError
from tlprotocols.searching import prediction

Setting = dict[str, Any]
FACTORS = ("layers", "freeze", "high_lr_layers", "decay_epochs", "lr.high", "lr.low")
BASELINES = ("commonly_used", "linear_probe", "scratch")  # what a recommendation is compared with
SIZES = (10, 25, 50, 100, 250, 500)  # images per class of protocol=optimal, beside all
LAYERS_OF_TABLE2 = 7  # that its AlexNet can copy
FACTOR_OF_RATE = 10.0  # how far lr.high may be from the recipe's, either way
LEAST_SHARE = 0.01  # of lr.low in lr.high


def key_of(override: str) -> str:
    """The key that an override sets, as in `layers` of `++layers=6`."""
    return override.split("=", 1)[0].lstrip("+~")


def space(config: Config, fixed: Sequence[str] = ()) -> dict[str, BaseDistribution]:
    """Ranges of what is searched for such a run, without the factors that are `fixed` by the user or that its schedule
    does not read. `lr.low` is searched as its share of `lr.high`, so that it is never above it."""
    stages, high = len(config.model.stages), config.lr.high
    fewest = max(1, config.freeze) if "freeze" in fixed else 1  # frozen layers are copied ones
    found: dict[str, BaseDistribution] = {
        "layers": IntDistribution(fewest, stages - 1),
        "freeze": IntDistribution(0, stages - 1),
        "high_lr_layers": IntDistribution(1, stages),
        "decay_epochs": IntDistribution(_least_decay(config), config.lr.step),
        "lr.high": FloatDistribution(high / FACTOR_OF_RATE, high * FACTOR_OF_RATE, log=True),
        "lr.low": FloatDistribution(LEAST_SHARE, 1, log=True),
    }
    idle = IDLE.get(config.schedule, ())
    return {key: values for key, values in found.items() if key not in fixed and key not in idle}


def _least_decay(config: Config) -> int:
    """The smallest legal decay_epochs."""
    return 1 if config.schedule == "step_all" else 0


def setting(point: Mapping[str, Any], fixed: Mapping[str, Any]) -> Setting:
    """The setting at a point of the space; `fixed` has the values of the factors outside of it.

    No more layers are frozen than are copied, and rates have two significant digits: they are read, and typed.
    """
    found = {key: value for key, value in point.items() if key not in ("lr.high", "lr.low")}
    layers = found.get("layers", fixed.get("layers", 0))
    if "freeze" in found:
        found["freeze"] = min(found["freeze"], layers)
    if "lr.high" in point:
        found["lr.high"] = rounded(point["lr.high"])
    if "lr.low" in point:
        found["lr.low"] = rounded(point["lr.low"] * float(found.get("lr.high", fixed["lr.high"])))
    return found


def point(values: Mapping[str, Any], ranges: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]) -> Setting:
    """The point of the space at a setting, moved to the edge where the setting is outside."""
    found: Setting = {}
    for key, about in ranges.items():
        value: Any = values.get(key, fixed.get(key))
        if key == "lr.low":
            value = float(value) / float(values.get("lr.high", fixed["lr.high"]))
        assert isinstance(about, IntDistribution | FloatDistribution)
        found[key] = type(about.low)(min(max(value, about.low), about.high))
    return found


def with_fixed(values: Setting, fixed: Mapping[str, Any]) -> Setting:
    """A setting with the user's values in place of its own. No more layers are frozen than are copied: of the two
    factors the one that the user did not give changes."""
    found = values | dict(fixed)
    if "freeze" in fixed:
        return found | {"layers": max(found["layers"], found["freeze"])}
    return found | {"freeze": min(found["freeze"], found["layers"])}


def rounded(rate: float) -> float:
    """Two significant digits."""
    return float(f"{rate:.1e}")


def values_of(config: Config, keys: Sequence[str] = FACTORS) -> Setting:
    """The setting that a configuration has."""
    return {key: attrgetter(key)(config) for key in keys}


def starts(
    compose: Callable[[Sequence[str]], Config], plain: Sequence[str], images: float, rows: pd.DataFrame | None = None
) -> dict[str, Setting]:
    """The settings that a search begins with, by name: the baselines that copy something, the defaults, those of
    Table 2 for the number of images per class nearest to `images`, for another depth in proportion, and, of the user's
    own `rows`, the best ones of the nearest size and those that a regression on all sizes predicts. What the held-out
    images say must not be in `rows`.

    `compose` makes the configuration of overrides; `plain` are the user's, without factors that are searched.
    """
    found = {"fine_tune": values_of(compose(plain))}
    for name in ("commonly_used", "linear_probe"):
        found[name] = values_of(compose([*plain, f"protocol={name}"]))
    config = compose(plain)
    depth = len(config.model.stages) - 1
    best = named_setting("optimal", "alexnet", min(SIZES, key=lambda n: (abs(n - images), n)))
    layers, freeze = (round(depth * best[key] / LAYERS_OF_TABLE2) for key in ("layers", "freeze"))
    in_proportion = {"layers": layers, "freeze": min(freeze, layers)}
    best |= in_proportion | {"decay_epochs": min(max(best["decay_epochs"], _least_decay(config)), config.lr.step)}
    found["table2"] = found["fine_tune"] | best
    return found | {name: found["fine_tune"] | best for name, best in _from_rows(rows, config, images).items()}


def _from_rows(rows: pd.DataFrame | None, config: Config, images: float) -> dict[str, Setting]:
    """What rows of the same network say of so many images per class."""
    if rows is None or rows.empty:
        return {}
    rates = set(FACTORS) - set(prediction.FACTORS)  # sampled anew for each setting: none of its runs would be alike
    table = prediction.measured(rows[rows["model"] == config.model.name], searched=tuple(rates))
    if table.empty:
        return {}
    found = {"own_rows": prediction.best_at(table, prediction.nearest(sorted(set(table["n"])), images))}
    if fitted := prediction.Prediction.fit(table):
        found["predicted"] = fitted.best(table[list(prediction.FACTORS)].drop_duplicates(), images)
    return found


def proposals(
    ranges: Mapping[str, BaseDistribution], seen: Sequence[tuple[Setting, float]], count: int, random: bool
) -> list[Setting]:
    """The next points to try, after those `seen` with their accuracy: by Optuna's tree-structured Parzen estimator, or
    at random. The same points seen, the same proposals."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = len(seen)
    sampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if random
        else optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=10)
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for values, accuracy in seen:
        study.add_trial(optuna.trial.create_trial(params=values, distributions=dict(ranges), value=accuracy))
    return [study.ask(dict(ranges)).params for _ in range(count)]


def check_task(config: Config, overrides: Sequence[str]) -> None:
    """Refuse a task that has no base network to copy from, or whose base would be trained on half of the classes
    without the user having said so."""
    if config.base.name == "none":
        raise ConfigError("base", "none", "has nothing to recommend: give base=weights, dataset or trained")
    if config.layers == 0:
        raise ConfigError("layers", 0, "copies nothing, so that there is nothing to recommend: give another, or none")
    said = "base" in map(key_of, overrides)
    if config.base.name == "trained" and config.dataset.name == "folder" and not said:
        raise ConfigError(
            "base",
            "trained",
            "would be trained on one half of your classes, to recommend for the other half; give base=weights"
            " base.weights=ResNet18_Weights.IMAGENET1K_V1 model=resnet18, or base=dataset base.dataset=NAME"
            " base.dataset.root=PATH; or say base=trained",
        )
