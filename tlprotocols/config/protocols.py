"""The name of the protocol whose values a run has: a label of its row, never part of its id."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tlprotocols.config.models import MODELS
from tlprotocols.config.validate import head_epochs, with_depths
from tlprotocols.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())  # of a wheel, of a checkout
READ = (  # what it depends on
    *("model", "layers", "freeze", "high_lr_layers", "decay_epochs", "lr.step", "n_per_class", "epochs", "schedule"),
    *("learn_layers", "head_epochs", "unfreeze_every", "l2_sp", "lr.layer_decay", "max_updates"),
    *("batch_size", "weight_decay", "dropout", "lr.high", "lr.gamma"),
)
LEGACY: dict[str, Any] = {  # a protocol that does not set one of these means this value
    **{"learn_layers": 0, "head_epochs": 0, "unfreeze_every": 0, "l2_sp": 0.0, "lr.layer_decay": 1.0}
}


def by_n(n: int | str, settings: Mapping[int | str, Any]) -> Any:
    """The resolver `${by_n:${n_per_class},{10: 6, full: 5}}`: a value that goes with the size of the data set."""
    if n not in settings:
        raise ConfigError("n_per_class", n, f"must be one of {', '.join(map(str, settings))} with this protocol")
    return settings[n]


OmegaConf.register_new_resolver("by_n", by_n, replace=True)


def protocol_of(row: Mapping[str, Any]) -> str | None:
    """The protocol of conf/protocol/ whose values a row has, or the factors of a run; None if it has those of none.

    Of several, the one that sets most factors: `commonly_used` says more than `frozen`. Where nothing is copied, only
    a protocol that sets `layers` applies: seven random layers at the low learning rate are no fine-tuning. A factor
    that the row lacks, as `decay_epochs` with schedule=cosine, decides nothing; the later ones of `LEGACY` have that.
    """
    return _protocol(*(row.get(key) for key in READ))


@functools.cache
def _protocol(*values: Any) -> str | None:
    row: dict[str, Any] = {key: LEGACY.get(key) if v is None else v for key, v in zip(READ, values, strict=True)}
    if row["model"] not in MODELS or row["layers"] is None:
        return None
    if row["epochs"] is not None:  # else nobody knows yet what half of them is
        row["head_epochs"] = head_epochs(row["head_epochs"], row["epochs"])
    fitting = {}
    for name, content in _files().items():
        setting = LEGACY | named if (named := _resolved(content, row)) else {}
        known = {key: value for key, value in setting.items() if row[key] is not None}
        copies = row["layers"] > 0 or "layers" in named
        if setting and copies and all(row[key] == value for key, value in known.items()):
            fitting[name] = len(named)
    return max(fitting, key=lambda name: fitting[name], default=None)


def named_setting(name: str, model: str, n_per_class: int | str) -> dict[str, Any]:
    """What a protocol of conf/protocol/ that depends on no recipe sets for so many images per class of this model."""
    return _resolved(_files()[name], dict.fromkeys(READ) | {"model": model, "n_per_class": n_per_class})


def _resolved(content: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """What a protocol sets for such a run; empty if it says nothing about its number of images per class."""
    step = row["lr.step"] if row["lr.step"] is not None else row["decay_epochs"]
    own = {"layers": row["layers"], "n_per_class": row["n_per_class"], "lr": {"step": step}, "model": row["model"]}
    try:
        whole: Any = OmegaConf.to_container(OmegaConf.create({**own, "protocol": dict(content)}), resolve=True)
    except Exception as error:  # OmegaConf wraps what a resolver raises
        if "n_per_class" in str(error):
            return {}
        raise
    setting = with_depths({"model": {"name": row["model"]}, **whole["protocol"]})
    if "head_epochs" in setting and row["epochs"] is not None:
        setting["head_epochs"] = head_epochs(setting["head_epochs"], row["epochs"])
    return {key: value for key, value in leaves(setting) if not key.startswith("model.")}


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested mapping, lists as tuples."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield path + key, tuple(value) if isinstance(value, list) else value


@functools.cache
def _files() -> dict[str, dict[str, Any]]:
    """The content of every file, by name."""
    files = sorted((CONF / "protocol").glob("*.yaml"))
    return {file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in files}  # type: ignore[misc]
