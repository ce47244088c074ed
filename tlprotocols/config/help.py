"""`python -m tlprotocols --help`, made from the schema and the default configuration: nothing is written twice."""

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from tlprotocols.config.compose import CONF, load
from tlprotocols.config.validate import keys

FILLED_IN = ("dataset.fingerprint", "base.digest", "protocol", "command")
INDENT = 4
HEAD = """\
How many layers to transfer and to freeze, with which learning rates and how
many epochs, given n images per class?

  eight runs and the base network they copy from:
    python -m tlprotocols -m layers=4,5,6,7 n_per_class=10,50
  replicates to compare in pairs:
    python -m tlprotocols -m layers=5,7 split=0,1,2,3 seed=0,1
  the baseline without transfer:
    python -m tlprotocols -m protocol=scratch split=0,1,2,3
  images of your own, in CLASS/ folders:
    python -m tlprotocols -m layers=5,7 dataset=folder dataset.root=PATH
  the plan alone, and which classes are source and target:
    python -m tlprotocols -m layers=5,7 hydra.launcher.dry_run=true
    python -m tlprotocols -m layers=5,7 split=0,1 --classes
  the whole configuration, as it would run:
    python -m tlprotocols --cfg job

A comma sweeps. Finished runs are never run again. Rows go to results_dir:
from tlprotocols.results import load. Also: --version.
"""


def text(local: type) -> str:
    """The help page; `local` has the options of hydra/launcher=local."""
    conf, defaults = CONF, load()
    width = max(40, min(shutil.get_terminal_size().columns, 120))
    lines = [HEAD, "Groups (GROUP=CHOICE):"]
    for group in ("dataset", "model", "recipe", "base", "classes", "protocol", "hydra/launcher"):
        choices = sorted(file.stem for file in (conf / group).glob("*.yaml"))
        lines += _entry(f"{group:15}", " | ".join(choices), width)
    lines += _entry("base.dataset   ", "one of dataset, with base=dataset; base.dataset.KEY as dataset.KEY", width)
    for title, wanted in (("Factors: what enters a run's identity", True), ("Settings of the machine", False)):
        lines += ["", f"{title} (KEY=DEFAULT  meaning):"]
        for key, about in keys():
            if about["factor"] is wanted and not (key in FILLED_IN or key.endswith(".name") or about["optional"]):
                shown = f"{key}={_default(defaults, key)}"
                lines += _entry(f"{shown:34}", f"{about['doc']}{_legal(about)}", width)
    lines += ["", "Settings of hydra/launcher=local (docs/slurm.md has those of slurm):"]
    options = OmegaConf.load(conf / "hydra/launcher/local.yaml")
    for key, about in keys(local):
        shown = f"hydra.launcher.{key}={json.dumps(OmegaConf.select(options, key))}"
        lines += _entry(f"{shown:34}", f"{about['doc']}{_legal(about)}", width)
    return "\n".join(lines)


def _legal(about: Mapping[str, Any]) -> str:
    """The choices, or the range, or both, in brackets."""
    low, high = about.get("low"), about.get("high")
    if low is not None and about["choices"]:
        return f" (at least {low}, or {' | '.join(about['choices'])})"
    if len(about["choices"]) > 1:
        return f" ({' | '.join(about['choices'])})"
    if low is None and high is None:
        return ""
    if low is None or high is None:
        return f" (at least {low})" if high is None else f" (at most {high})"
    return f" ({low} to {high})"


def _entry(name: str, meaning: str, width: int) -> list[str]:
    """A key and its meaning, in lines of at most `width` characters."""
    hang = " " * (len(name) + 3 if len(name) < 35 else 2 + INDENT)
    return textwrap.wrap(f"  {name} {meaning}", width, subsequent_indent=hang, break_on_hyphens=False)


def _default(config: object, key: str) -> str:
    for name in key.split("."):
        config = getattr(config, name)
    if config is None:
        return "null"
    if isinstance(config, tuple):
        return f"[{','.join(map(str, config))}]"
    if isinstance(config, bool):
        return str(config).lower()
    return "" if dataclasses.is_dataclass(config) or isinstance(config, dict) else str(config)
