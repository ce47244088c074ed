"""Who a run is: its factors, the hash of these, and the base network that it copies from."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from tlprotocols.config.schema import Config, Rates, Recipe
from tlprotocols.config.validate import keys

IDENTITY = 1  # version of the rule below; raise it and every id changes
DIGEST = 16  # hexadecimal digits that are kept of a SHA-256: 64 bits
Factors = dict[str, Any]
IDLE = {  # what a value of `optimizer` or `schedule` does not read: left out, so that equal runs have equal ids
    "adam": ("momentum",),
    "adamw": ("momentum",),
    "multistep": ("decay_epochs", "lr.step"),
    "cosine": ("decay_epochs", "lr.step", "lr.gamma"),
    "plateau": ("decay_epochs", "lr.step"),
    "updates": ("decay_epochs", "lr.step"),
    "bit": ("decay_epochs", "lr.step"),
}
LAST_LAYER_ALONE = ("head_epochs", "unfreeze_every", "lr.layer_decay")  # are not read where only that one is trained


def factors(config: Config) -> Factors:
    """Every factor under its override's name, as in the columns of the table.

    What cannot matter is left out: the base of a run that copies nothing, the training of a base that is a file, class
    names unless they are given, the source group of a run that has no network of it, the explicit rate of a layer that
    is frozen or has this rate anyway, and what an optimizer or a schedule does not read. Lists are texts.
    """
    return {key: _text(value) if isinstance(value, tuple) else value for key, value in _identity(config).items()}


def run_id(config: Config) -> str:
    """Same factors, same id, on whatever machine: 64 bits of SHA-256 of the factors in canonical JSON."""
    return identifier(_identity(config), type(config))


def identifier(named: Factors, kind: type = Config) -> str:
    """The id of these factors. A later factor is left out while it has its legacy value.

    A list is hashed as its joined text, unless an item has a comma: such lists stay lists, since ['a,b', 'c'] and
    ['a', 'b,c'] would join to one text.
    """
    legacy = legacy_values(kind)
    content = {key: value for key, value in named.items() if key not in legacy or value != legacy[key]}
    hashed = {
        key: _text(value) if isinstance(value, tuple) and not any("," in str(item) for item in value) else value
        for key, value in content.items()
    }
    text = json.dumps({"identity": IDENTITY, **hashed}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


def base_of(config: Config) -> Config | None:
    """The run whose weights `config` copies; None if it copies none, or a file's.

    It learns the other half (for `base=self` the same one, for `base=dataset` all classes of other images) by the
    recipe under `base.*`, from scratch, with the same split, and the same seed unless `base.seed` is another: hence one
    base for all runs of a split and seed, or of a split.
    """
    if config.layers == 0 or config.base.name in ("none", "weights"):
        return None
    base, half = config.base, config.target
    if base.name == "trained":
        half = "A" if half == "B" else "B"
    recipe: Factors = {field.name: getattr(base, field.name) for field in dataclasses.fields(Recipe)}
    recipe |= {"n_per_class": base.n_per_class, "schedule": base.schedule}
    lr = Rates(**vars(base.lr), low=base.lr.high, layers={}, layer_decay=1.0)
    whole = {"high_lr_layers": len(config.model.stages), "decay_epochs": base.lr.step}
    scratch: Factors = {"layers": 0, "freeze": 0, "freeze_random": False, "subset": "first", "head": None, "fold": None}
    scratch |= {"learn_layers": 0, "head_epochs": 0, "unfreeze_every": 0, "l2_sp": 0.0}
    scratch |= {"curve": False, "probe": False}
    scratch |= {"keep_weights": False, "predictions": False, "protocol": None}
    if base.name != "self":  # other classes: nothing of them is tested on
        scratch["test_per_class"] = 0
    if base.name == "dataset":
        every = dataclasses.replace(config.classes, name="all", source=None, target=None, sizes=None, source_group=None)
        scratch |= {"dataset": base.dataset, "classes": every, "split": 0}
        half = "B"
    changes: Factors = {
        **recipe,
        **whole,
        **scratch,
        "lr": lr,
        "target": half,
        "base": dataclasses.replace(base, name="none", dataset=None, seed=None),
        "seed": config.seed if base.seed is None else base.seed,
    }
    return dataclasses.replace(config, **changes)


def idle_factors(found: Factors) -> set[str]:
    """Factors of a run's recipe and of its base's that its optimizers and schedules do not read."""
    chosen = [(prefix, found.get(prefix + key, "")) for prefix in ("", "base.") for key in ("optimizer", "schedule")]
    idle = {prefix + key for prefix, value in chosen for key in IDLE.get(value, ())}
    own = (("plateau", "lr.patience"), ("updates", "lr.step_updates"))  # what one schedule alone reads
    idle |= {p + key for p in ("", "base.") for schedule, key in own if found.get(f"{p}schedule") != schedule}
    idle |= {key for key in LAST_LAYER_ALONE if found.get(key) is None}
    return idle | {f"{p}dataset.mean" for p in ("", "base.") if found.get(f"{p}dataset.mean_of") == "source"}


@functools.cache
def legacy_values(kind: type = Config) -> Factors:
    """The values that later factors had before they existed."""
    known = {key: about["legacy"] for key, about in keys(kind) if about["factor"]}
    return {key: value for key, value in known.items() if value is not dataclasses.MISSING}


def _identity(config: Config) -> Factors:
    """Every factor that can matter, lists as tuples."""
    found: Factors = {}
    for name, get, about in _getters(type(config)):  # type: ignore[arg-type]  # classes are hashable
        value = get(config)
        if isinstance(value, dict):
            found |= {f"{name}.{layer}": rate for layer, rate in value.items() if not _is_idle(config, layer, rate)}
        else:
            found[name] = tuple(sorted(set(value))) if about["unordered"] and value else value
    if config.layers == 0:
        found["base"] = "none"
    if config.fold is None:
        found["folds"] = None
    if config.freeze == len(config.model.stages) - 1:
        found |= dict.fromkeys(LAST_LAYER_ALONE)
    kept = {"none": (), "weights": ("base.digest",)}.get(found["base"])  # keys of the base that can matter; None: all
    idle = idle_factors(found)
    if found["base"] != "trained" and config.target == "B":  # neither learned nor copied from
        idle.add("classes.source_group")
    return {
        key: value
        for key, value in found.items()
        if value is not None and key not in idle and (kept is None or not key.startswith("base.") or key in kept)
    }


@functools.cache
def _getters(kind: Any) -> list[tuple[str, Callable[[Config], Any], Any]]:
    """Name, access and description of every factor. A group's name stands for the group: `dataset`."""
    return [
        (key.removesuffix(".name"), _inside(key) if about["optional"] else attrgetter(key), about)
        for key, about in keys(kind)
        if about["factor"]
    ]


def _inside(key: str) -> Callable[[Config], Any]:
    """Access to a key of a group that may be None, and then it is None."""
    group, _, name = key.rpartition(".")
    return lambda config: getattr(attrgetter(group)(config), name, None)


def _is_idle(config: Config, layer: str, rate: float) -> bool:
    """Whether an explicit rate of a layer changes nothing: the layer is frozen, or has that rate anyway."""
    place, low = config.model.stages.index(layer), len(config.model.stages) - config.high_lr_layers
    same = place < low and rate == config.lr.low and config.lr.layer_decay == 1
    return same or layer in config.frozen()


def _text(values: tuple[Any, ...]) -> str:
    """A list in a cell of the table: `a,b`; in JSON where an item has a comma itself."""
    texts = [str(value) for value in values]
    return json.dumps(texts, ensure_ascii=False) if any("," in text for text in texts) else ",".join(texts)
