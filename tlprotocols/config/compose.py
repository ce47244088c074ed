"""From the command line to a `Config`: composition by Hydra, types and ranges by `validate`. OmegaConf stops here."""

import copy
import dataclasses
import functools
import re
import shlex
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlprotocols.config.checks import check
from tlprotocols.config.identity import IDLE
from tlprotocols.config.protocols import CONF as CONF
from tlprotocols.config.protocols import READ, leaves, protocol_of
from tlprotocols.config.schema import Config
from tlprotocols.config.validate import keys, read, unknown, with_depths
from tlprotocols.errors import ConfigError


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


def full_name(override: str) -> str:
    """`base.dataset=NAME` as Hydra calls this choice of a group: `dataset@base.dataset=NAME`."""
    return f"dataset@{override}" if override.startswith("base.dataset=") else override


def check_choice(override: Override) -> Override:
    """The override itself.

    Raises:
        ConfigError: it chooses a file of conf/ by a number, which Hydra answers with a traceback.
    """
    group = override.key_or_group
    chosen = override.type is not OverrideType.DEL and not override.is_sweep_override() and (CONF / group).is_dir()
    if chosen and isinstance(override.value(), bool | int | float):
        choices = ", ".join(sorted(file.stem for file in (CONF / group).glob("*.yaml")))
        key, value = override.package or group, str(override.input_line).partition("=")[2]
        raise ConfigError(key, value, f"must be one of {choices}")
    return override


def check_text(override: Override) -> Override:
    """The override itself.

    Raises:
        ConfigError: it gives a text that Hydra would read as a number, and so change: a class 1.10 would be 1.1.
    """
    key, typed = override.key_or_group, str(override.input_line).partition("=")[2]
    if key not in _texts() or override.type is OverrideType.DEL:
        return override
    tokens = re.split(r"[\[\],\s]+", typed)
    read_as = Counter(str(value) for value in _plain(override.value()) if type(value) in (int, float))
    changed = sorted((read_as - Counter(tokens)).elements())
    if changed:
        quoted = re.sub(r"'[^']*'|([^\[\],\s']+)", lambda text: f"'{text[1]}'" if text[1] else text[0], typed)
        legal = f"would be read as the number {changed[0]}; a text that looks like a number needs quotes in quotes"
        raise ConfigError(key, typed, f'{legal}: "{key}={quoted}"')
    return override


def _plain(value: Any) -> list[Any]:
    """The single values in one that an override gives: of a list, or of several to sweep over."""
    several = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else None
    return [value] if several is None else [one for some in several for one in _plain(some)]


@functools.cache
def _texts() -> frozenset[str]:
    """The keys whose values are texts, or lists of texts, of any kind."""
    kinds = (str, str | None, tuple[str, ...], tuple[str, ...] | None)
    return frozenset(key for key, about in keys() if about["type"] in kinds and not about["choices"])


@dataclass(frozen=True)
class Template:
    """What a choice of config groups comes to, before single values are set."""

    config: DictConfig
    plain: dict[str, Any]  # the same, interpolations left as they are
    interpolated: bool
    protocol: dict[str, Any]  # name and values of the protocol that was chosen, interpolations left as they are


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
            config: Config = read(Config, with_depths(cell))
            check_protocol(config, cell, template.protocol)
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error, overrides) from error
        check_filled_in(config)
        try:
            check(config)
        except ConfigError as error:
            raise naming_the_protocol(error, template.protocol) from error
        return dataclasses.replace(config, protocol=_label(config, template.protocol))

    def _parse(self, override: str) -> Override:
        if override not in self.parsed:
            (found,) = self.parser.parse_overrides([full_name(override)])
            if found.is_choice_sweep() or found.is_range_sweep():
                key, _, value = override.partition("=")
                quoted = f"; {_in_quotes(key, value)}" if set(value) & set(" /") else ""
                raise ConfigError(key, value, f"lists values, where one is needed{quoted}")
            self.parsed[override] = check_text(check_choice(found))
        return self.parsed[override]

    def _template(self, chosen: tuple[str, ...]) -> Template:
        if chosen not in self.templates:
            whole = self.loader.load_sweep_config(self.master, list(chosen))
            config = OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])
            OmegaConf.set_struct(config, True)
            plain: Any = OmegaConf.to_container(config)
            plain["machine"] = OmegaConf.to_container(config.machine, resolve=True)  # depends on no factor
            protocol = self._protocol(whole.hydra.runtime.choices.protocol)
            self.templates[chosen] = Template(config, plain, "${" in repr(plain), protocol)
        return self.templates[chosen]

    def _protocol(self, name: str | None) -> dict[str, Any]:
        """The name of the protocol that was chosen and what it sets; empty if none was named."""
        return {} if name is None else {"name": name, **protocol_values(self.loader, name)}

    def _merged(self, template: Template, values: Sequence[Override]) -> dict[str, Any]:
        """Hydra's own way of applying overrides: for additions, lists and mistakes."""
        cell = template.config.copy()
        self.loader._apply_overrides_to_config(values, cell)
        return typing.cast(dict[str, Any], OmegaConf.to_container(cell, resolve=True))


def protocol_values(loader: Any, name: str) -> dict[str, Any]:
    """What the file of a protocol sets, and the protocols in its defaults list; interpolations are left as they are."""
    loaded = loader.repository.load_config(f"protocol/{name}")
    others = [entry for entry in loaded.defaults_list or [] if not entry.is_self()]
    below = [protocol_values(loader, str(entry.path).rpartition("/")[2]) for entry in others]
    return typing.cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(*below, loaded.config)))


def check_protocol(config: Config, cell: Mapping[str, Any], protocol: Mapping[str, Any]) -> None:
    """Refuse a cell that names a protocol and gives another value for what the protocol sets.

    `cell` is the plain configuration, from which interpolations of the protocol take their values.
    """
    if not protocol:
        return
    whole: Any = {**cell, "protocol": protocol}
    if "${" in repr(protocol):
        whole = OmegaConf.to_container(OmegaConf.create(whole), resolve=True)
    for key, value in leaves(with_depths({"model": cell["model"], **whole["protocol"]})):
        if key.startswith("model."):
            continue
        found = attrgetter(key)(config) if key != "name" else value
        if found != value:
            raise ConfigError(
                key,
                found,
                f"protocol={protocol['name']} means {key}={value}; leave one of the two out, or use two commands:"
                " their rows join in one table",
            )


def naming_the_protocol(error: ConfigError, protocol: Mapping[str, Any]) -> ConfigError:
    """The same error; where the key is one that the protocol sets, it says so, as nobody may have typed that key."""
    key, value, legal = error.args
    if key == "name" or key not in dict(leaves(protocol)):
        return error
    return ConfigError(key, value, f"{legal}; protocol={protocol['name']} sets it")


def _label(config: Config, protocol: Mapping[str, Any]) -> str | None:
    """The protocol whose values a run has; one of the user's own files where that was named."""
    name = protocol.get("name")
    if name is not None and not (CONF / "protocol" / f"{name}.yaml").exists():
        return str(name)
    row = {key: attrgetter(key)(config) for key in READ if key not in IDLE.get(config.schedule, ())}
    unknown_yet = {"epochs": None} if config.max_updates else {}  # the images decide how many
    return protocol_of(row | {"model": config.model.name} | unknown_yet)


def check_filled_in(config: Config) -> None:
    """Refuse values for what is computed from files, which would be ignored."""
    base = config.base.dataset
    for key, value in (
        ("dataset.fingerprint", config.dataset.fingerprint),
        ("base.dataset.fingerprint", base.fingerprint if base else ""),
        ("base.digest", config.base.digest),
    ):
        if value:
            raise ConfigError(key, value, "is computed from the files; leave it out")


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
            hint = "; a data set without a recipe of its own needs recipe=small or another" if group == "recipe" else ""
            return ConfigError(group, choice, f"must be one of {', '.join(inner.options or [])}{hint}")
        if "Could not override 'dataset@base.dataset'" in str(inner):
            value = next((o.split("=", 1)[1] for o in overrides if "base.dataset=" in o), "...")
            return ConfigError("base.dataset", value, "is for base=dataset; say so, or leave it out")
        if "does not support sweep type" in str(inner):
            sampled = next((o for o in overrides if "interval(" in o or "tag(" in o), " ".join(overrides))
            key, _, value = sampled.partition("=")
            return ConfigError(key, value, "is sampled, which hydra/sweeper=optuna does; or list values, as in A,B")
        if isinstance(inner, OverrideParseException):
            key, equals, value = inner.override.removeprefix("dataset@").partition("=")
            if not equals:
                return ConfigError("command line", inner.override, "must be KEY=VALUE, as in layers=4")
            if value.endswith(","):
                return ConfigError(key, value, f"ends with a comma; list values without spaces, as in {key}=A,B")
            return ConfigError(key, value, f"cannot be parsed; {_in_quotes(key, value)}")
        inner = inner.__cause__ or inner.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = "; ".join(line for line in lines if "HYDRA_FULL_ERROR" not in line)
    return ConfigError("command line", " ".join(overrides), words)


def _in_quotes(key: str, value: str) -> str:
    """How a value is given that holds signs of Hydra's grammar, as a shell needs it."""
    word = f"{key}={QuotedString(value, Quote.single).with_quotes()}"
    typed = shlex.quote(word) if set(word) & set('"$`!') or "\\\\" in word else f'"{word}"'
    return f"one text with spaces, commas, brackets or other signs needs quotes in quotes: {typed}"
