"""Sweep files and studies: YAML files that say which cells there are.

A sweep file can be run alone (`python -m tlprotocols -cd sweeps -cn fig1_layers`). It holds values that differ from
the defaults, and a grid under `hydra.sweeper.params`. A study file holds a list of sweeps or studies under `study`,
and under `overrides` what they have in common; its cells are their union, planned as one.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from omegaconf import OmegaConf

from tlprotocols.errors import ConfigError

requested: Path | None = None  # the file whose cells take the place of the grid: `python -m sweeps NAME` sets it
ours: Path | None = None  # the folder of the sweeps that a study may name from anywhere; set there, too
CONFIG_NAME, CONFIG_DIR = ("-cn", "--config-name"), ("-cd", "--config-dir")  # flags of Hydra


def check_no_study(arguments: Sequence[str]) -> None:
    """Refuse a study where Hydra expects a sweep file.

    Raises:
        ConfigError: says how it is run.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    given = dict(pairwise(words))
    name, folder = (next((given[flag] for flag in flags if flag in given), None) for flags in (CONFIG_NAME, CONFIG_DIR))
    file = Path(folder or ".") / f"{str(name).removesuffix('.yaml')}.yaml"
    if name is None or not file.is_file():
        return
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    if isinstance(content, dict) and "study" in content:
        raise ConfigError(CONFIG_NAME[1], name, f"is a study, of several sweeps: python -m sweeps {file}")


def cells(file: Path, arguments: list[str]) -> list[list[str]]:
    """The cells of a sweep or study, in the files' order. Equal cells of several sweeps stay several here; the plan
    runs them once. Otherwise as `cells_by_sweep`."""
    return [cell for sweep in cells_by_sweep(file, arguments).values() for cell in sweep]


def cells_by_sweep(file: Path, arguments: list[str]) -> dict[str, list[list[str]]]:
    """The cells of each sweep of a study, or of a sweep, as lists of overrides on the default configuration.

    `arguments` come from the command line and replace what the files say of the same key: a grid gets narrower or
    wider by them. What some sweeps of a study vary and others hold fixed is replaced only where it is varied.

    Raises:
        ConfigError: there is no such file, or it holds what neither a sweep nor a study may.
    """
    _check_there(file)
    parser = OverridesParser.create()
    given = {override.get_key_element(): text for text in arguments for override in [parser.parse_override(text)]}
    members = [(name, {key: f"{key}={value}" for key, value in member.items()}) for name, member in _members(file, {})]
    varied = [
        {key for key, line in lines.items() if parser.parse_override(line).is_sweep_override()} for _, lines in members
    ]
    found: dict[str, list[list[str]]] = {}
    for (name, member), own in zip(members, varied, strict=True):
        lines = member | {key: text for key, text in given.items() if key in own or not any(key in v for v in varied)}
        (batch,) = BasicSweeper.split_arguments(parser.parse_overrides(list(lines.values())), None)
        found[name] = [*found.get(name, []), *batch]  # the same sweep may be of two studies, with other overrides
    return found


def _members(file: Path, common: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Name, and key to value or to values with commas, of each sweep that a file comes to; `common` goes first."""
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    if "study" in content:
        common = _flat(content.get("overrides") or {}, _typed) | dict(common)
        return [member for name in content["study"] for member in _members(_member_file(name, file), common)]
    if content.pop("defaults", None) != ["config", "_self_"]:
        raise ConfigError("defaults", file.name, "must be [config, _self_] in a sweep file")
    sweeper = (content.pop("hydra", None) or {}).get("sweeper") or {}
    return [(file.stem, _flat(content, _as_it_is) | _flat(sweeper.get("params") or {}, _typed) | dict(common))]


def _member_file(name: str, study: Path) -> Path:
    """The file of a sweep that a study names: beside it, or one of ours."""
    beside = study.with_name(f"{name}.yaml")
    if not beside.exists() and ours is not None and (ours / beside.name).exists():
        return ours / beside.name
    _check_there(beside)
    return beside


def _check_there(file: Path) -> None:
    if not file.is_file():
        names = sorted({path.stem for folder in (file.parent, ours or file.parent) for path in folder.glob("*.yaml")})
        near = difflib.get_close_matches(file.stem, names, n=1)
        hint = f"did you mean {near[0]}? It " if near else ""
        raise ConfigError("study", file.stem, f"{hint}must be a file in {file.parent}, or one of {', '.join(names)}")


def _flat(values: Mapping[str, Any], text: Callable[[Any], str], path: str = "") -> dict[str, str]:
    """Dotted keys, and the `text` of each value."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, text, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = text(value)
    return found


def _typed(value: Any) -> str:
    """A value of a grid, or one that sweeps have in common: as it would be typed, so that a comma lists values."""
    return "null" if value is None else str(value)


def _as_it_is(value: Any) -> str:
    """Any other value: what YAML makes of it stays, as with `-cn`, where it is no override: commas list nothing, and a
    text that looks like a number is none."""
    return Override._get_value_element_as_str(_quoted(value))


def _quoted(value: Any) -> Any:
    """Every text as one in quotes."""
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    return QuotedString(value, Quote.single) if isinstance(value, str) else value
