"""From the command line to a `Config`: composition by Hydra, types and ranges by the schema. OmegaConf stops here."""

import copy
import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlprotocols.errors import ConfigError
from tlprotocols.schema import Config

CONF = Path(__file__).parent / "conf"


def by_n(n: int | str, settings: Mapping[int | str, Any]) -> Any:
    """The resolver `${by_n:${n_per_class},{10: 6, full: 5}}`: a value that goes with the size of the data set."""
    if n not in settings:
        raise ConfigError("n_per_class", n, f"must be one of {', '.join(map(str, settings))} with this protocol")
    return settings[n]


OmegaConf.register_new_resolver("by_n", by_n, replace=True)


def load(*overrides: str, config_name: str = "config") -> Config:
    """The configuration that `python -m tlprotocols` would run with these overrides: for notebooks and tests."""
    return composer(config_name)(overrides)


def composer(config_name: str = "config", config_dir: str | None = None) -> "Composer":
    """A composer outside of a Hydra application. `config_dir` is searched before the package's own conf/."""
    from hydra._internal.utils import create_config_search_path
    from hydra.core.plugins import Plugins
    from hydra.core.utils import setup_globals
    from hydra.types import RunMode

    setup_globals()
    Plugins.instance()
    path = create_config_search_path(str(CONF))
    if config_dir:
        path.prepend("command-line", f"file://{config_dir}")
    loader = ConfigLoaderImpl(path)
    return Composer(loader, loader.load_configuration(config_name, [], RunMode.MULTIRUN))


@dataclass(frozen=True)
class Template:
    """What a choice of config groups comes to, before single values are set."""

    config: DictConfig
    plain: dict[str, Any]  # the same, interpolations left as they are
    interpolated: bool


class Composer:
    """Composes many cells of one sweep: fully once per choice of config groups, by value within such a choice.

    A full composition takes 50 ms, of which nearly all goes into the defaults list and the YAML files; setting values
    in plain dictionaries takes a tenth of a millisecond. A test holds that both ways agree.
    """

    def __init__(self, loader: Any, master: DictConfig) -> None:
        """`loader` is Hydra's config loader, `master` the sweep's own configuration as Hydra composed it."""
        self.loader, self.master = loader, master
        self.parser = OverridesParser.create(config_loader=loader)
        self.groups = {g for g in master.hydra.runtime.choices if not str(g).startswith("hydra/")}
        self.templates: dict[tuple[str, ...], Template] = {}
        self.parsed: dict[str, Override] = {}

    def __call__(self, overrides: Sequence[str]) -> Config:
        """The configuration of one cell.

        Raises:
            ConfigError: an unknown key, a value of the wrong type or out of range: one line that names it.
        """
        try:
            parsed = [self._parse(override) for override in overrides]
            template = self._template(tuple(str(o.input_line) for o in parsed if o.key_or_group in self.groups))
            values = [o for o in parsed if o.key_or_group not in self.groups]
            cell = _assigned(template, values) or self._merged(template, values)
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error, overrides) from error
        return build(cell)

    def _parse(self, override: str) -> Override:
        if override not in self.parsed:
            (self.parsed[override],) = self.parser.parse_overrides([override])
        return self.parsed[override]

    def _template(self, chosen: tuple[str, ...]) -> Template:
        if chosen not in self.templates:
            whole = self.loader.load_sweep_config(self.master, list(chosen))
            config = OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])
            OmegaConf.set_struct(config, True)
            plain: Any = OmegaConf.to_container(config)
            plain["machine"] = OmegaConf.to_container(config.machine, resolve=True)  # depends on no factor
            self.templates[chosen] = Template(config, plain, "${" in repr(plain))
        return self.templates[chosen]

    def _merged(self, template: Template, values: Sequence[Override]) -> dict[str, Any]:
        """Hydra's own way of applying overrides: for additions, lists and mistakes."""
        cell = template.config.copy()
        self.loader._apply_overrides_to_config(values, cell)
        return typing.cast(dict[str, Any], OmegaConf.to_container(cell, resolve=True))


def _assigned(template: Template, values: Sequence[Override]) -> dict[str, Any] | None:
    """The template with single values set; None if some override is more, or less, than that."""
    cell = copy.deepcopy(template.plain)
    for override in values:
        value, node = override.value(), cell
        *path, last = override.key_or_group.split(".")
        for name in path:
            node = node.get(name, {}) if isinstance(node, dict) else {}
        is_plain = override.type is OverrideType.CHANGE and override.package is None
        is_leaf = isinstance(node, dict) and last in node and not isinstance(node[last], dict | list)
        if not (is_plain and is_leaf) or isinstance(value, dict | list) or "${" in str(value):
            return None
        node[last] = value
    if template.interpolated:
        return typing.cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(cell), resolve=True))
    return cell


def build(values: Mapping[str, Any]) -> Config:
    """Typed and checked configuration of nested plain values, as YAML or a frozen configuration file holds them."""
    config: Config = read(Config, values)
    config.check()
    return config


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
        if name not in values:
            raise ConfigError(path + name, "", "is missing from the configuration")
        read_fields[name] = _value(hints[name], values[name], path + name, field.metadata)
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
        return _value(rest[0], value, key, about)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(key, value, "must be a list, as in [a,b]")
        return tuple(_value(kinds[0], v, key, about) for v in value)
    number = next((k for k in (bool, int, float) if k is hint or k in kinds), None)
    if about["choices"] and (value in about["choices"] or number is None):
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
    legal = f"must be {noun}{_range(about)}{''.join(f', or {c}' for c in about['choices'])}"
    right = isinstance(value, bool) if kind is bool else isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or (kind is int and value != int(value)):
        raise ConfigError(key, value, legal)
    if kind is not bool and not (
        (about["low"] is None or value >= about["low"]) and (about["high"] is None or value <= about["high"])
    ):
        raise ConfigError(key, value, legal)
    return kind(value)


def _range(about: Mapping[str, Any]) -> str:
    low, high = about["low"], about["high"]
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else ""


def keys(kind: type = Config, path: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Every key that can be set, dotted, with what the schema says of it."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    hints = _hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found += keys(typing.cast(type, hint), f"{path}{field.name}.")
        else:
            found.append((path + field.name, field.metadata))
    return found


def unknown(key: str, value: object = "...") -> ConfigError:
    """The error for a key that no factor and no setting has."""
    known = [name for name, _ in keys()]
    if key.startswith("hydra."):
        return ConfigError(key, value, "there is no such key; python -m tlprotocols --cfg hydra lists Hydra's")
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"keys are {', '.join(k for k in known if '.' not in k)}, ..."
    return ConfigError(key, value, f"there is no such key; {hint} (python -m tlprotocols --help lists all)")


def explained(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Hydra's and OmegaConf's many-line complaints in one line."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ConfigError):
            return inner
        if isinstance(inner, OmegaConfBaseException) and "is not in struct" in str(inner):
            key = str(inner.full_key)
            return unknown(key, next((o.split("=", 1)[1] for o in overrides if o.startswith(f"{key}=")), "..."))
        if isinstance(inner, MissingConfigException) and "/" in (inner.missing_cfg_file or ""):
            group, _, choice = str(inner.missing_cfg_file).rpartition("/")
            return ConfigError(group, choice, f"must be one of {', '.join(inner.options or [])}")
        inner = inner.__cause__ or inner.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = "; ".join(line for line in lines if "HYDRA_FULL_ERROR" not in line)
    return ConfigError("command line", " ".join(overrides), words)
