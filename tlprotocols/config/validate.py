"""Plain nested values to a `Config`, typed and checked: works where Hydra is not installed, as in a worker."""

import dataclasses
import difflib
import functools
import math
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from tlprotocols.config.checks import check
from tlprotocols.config.models import MODELS
from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError

DEPTH = re.compile(r"all(?:-(\d+))?")


def build(values: Mapping[str, Any]) -> Config:
    """Typed and checked configuration of nested plain values, as YAML or a saved configuration file holds them."""
    config: Config = read(Config, with_depths(values) if isinstance(values, Mapping) else values)
    check(config)
    return config


def with_depths(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with numbers of layers in place of `all` and `all-K`, which are relative to the model's depth."""
    model = values.get("model")
    spec = MODELS.get(str(model.get("name"))) if isinstance(model, Mapping) else None
    found = dict(values)
    for key, new in (("layers", 1), ("freeze", 1), ("high_lr_layers", 0)):  # the last layer is always new
        depth = DEPTH.fullmatch(found[key]) if isinstance(found.get(key), str) else None
        if spec and depth:
            found[key] = max(0, len(spec.stages) - new - int(depth[1] or 0))
    return found


def head_epochs(value: int | str, epochs: int) -> int:
    """The number of epochs in which the head learns alone, of a run of so many: `half` is half of them."""
    return epochs // 2 if value == "half" else int(value)


def read(kind: Any, values: Any, path: str = "") -> Any:
    """An instance of the dataclass `kind`; `path` is the key under which `values` stand, for messages."""
    if not isinstance(values, Mapping):
        raise ConfigError(path.rstrip("."), values, "is a group of keys; set one of them, or choose a file of conf/")
    hints, fields = _hints(kind), {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise unknown(f"{path}{key}", values[key])
    read_fields = {}
    for name, field in fields.items():
        if name in values:
            read_fields[name] = _value(hints[name], values[name], path + name, field.metadata)
        elif (legacy := field.metadata["legacy"]) is not dataclasses.MISSING:
            read_fields[name] = legacy  # saved, or written as a recipe, before the factor existed
        else:
            raise ConfigError(path + name, "", "is missing from the configuration")
    return kind(**read_fields)


_hints = functools.cache(typing.get_type_hints)


def _value(hint: Any, value: Any, key: str, about: Mapping[str, Any]) -> Any:
    """`value` as the type `hint`, inside its range."""
    if dataclasses.is_dataclass(hint):
        return read(hint, value, key + ".")
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(key, value, "is a group of keys; set one of them")
        return {k: _value(kinds[1], v, f"{key}.{k}", about) for k, v in value.items() if v is not None}
    if type(None) in kinds:
        if value is None:
            return None
        rest = [k for k in kinds if k is not type(None)]
        return _value(rest[0], value, key, {**about, "nullable": True})
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(key, value, "must be a list, as in [a,b]")
        return tuple(_value(kinds[0], v, key, about) for v in value)
    number = next((k for k in (bool, int, float) if k is hint or k in kinds), None)
    if about["choices"] and (
        number is None or (str in kinds and value in about["choices"])
    ):  # depths are numbers by now
        return _choice(value, key, about)
    return _number(number, value, key, about) if number else _text(value, key)


def _choice(value: Any, key: str, about: Mapping[str, Any]) -> str:
    if value not in about["choices"]:
        raise ConfigError(key, value, f"must be one of {', '.join(about['choices'])}")
    return str(value)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, (str, int, float)):
        raise ConfigError(key, value, "must be text")
    return str(value)


def _number(kind: type, value: Any, key: str, about: Mapping[str, Any]) -> Any:
    noun = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
    others = [*about["choices"], *(["null"] if about.get("nullable") else [])]
    legal = f"must be {noun}{_range(about)}{''.join(f', or {other}' for other in others)}"
    right = isinstance(value, bool) if kind is bool else isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or (kind is int and value != int(value)):
        raise ConfigError(key, value, legal)
    if kind is not bool and not (
        (about["low"] is None or value >= about["low"]) and (about["high"] is None or value <= about["high"])
    ):
        raise ConfigError(key, value, legal)
    return value if kind is bool else kind(value) + 0  # -0.0 becomes 0.0


def _range(about: Mapping[str, Any]) -> str:
    low, high = about["low"], about["high"]
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else ""


ELSEWHERE = {  # what a key is called elsewhere
    "learning_rate": "lr.high or lr.low",
    "lr.base": "lr.high or lr.low",
    "freeze_layers": "freeze",
    "n_layers": "layers",
    "dry_run": "hydra.launcher.dry_run",
    "workers": "hydra.launcher.workers",
    "num_workers": "hydra.launcher.workers",
}


@functools.cache
def keys(kind: type = Config, path: str = "") -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Every key that can be set, dotted, with what the schema says of it, its `type`, and whether it is `optional`: of
    a group that may be null."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    hints = _hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        group = next((k for k in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(k)), None)
        if group is not None:
            inner = keys(typing.cast(type, group), f"{path}{field.name}.")
            found += [(key, {**about, "optional": about["optional"] or group is not hint}) for key, about in inner]
        else:
            found.append((path + field.name, {**field.metadata, "type": hint, "optional": False}))
    return tuple(found)


def unknown(key: str, value: object = "...") -> ConfigError:
    """The error for a key that no factor and no setting has."""
    known = [name for name, _ in keys()]
    if key.startswith("hydra."):
        ours = key.startswith("hydra.launcher.")
        listed = "--help lists the launcher's" if ours else "--cfg hydra lists Hydra's"
        return ConfigError(key, value, f"there is no such key; python -m tlprotocols {listed}")
    if key in known:
        return ConfigError(key, value, "has no place in what was chosen; it is of another choice of its group")
    near = difflib.get_close_matches(key, [*known, *(name.removesuffix(".name") for name in known)], n=1)
    meant = ELSEWHERE.get(key) or (near[0] if near else None)
    plain = (name for name in known if "." not in name and name != "command")
    hint = f"did you mean {meant}?" if meant else f"keys are {', '.join(plain)}, ..."
    return ConfigError(key, value, f"there is no such key; {hint} (python -m tlprotocols --help lists all)")
