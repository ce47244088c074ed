"""Weights that were not trained here (`base=weights`): read without running code, and compared with the network.

A file is safetensors or a state dict of torch.save. Its names are those of our base networks, `stage.name`, or those
of the network itself, which for torchvision's networks are torchvision's.
"""

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors

from tlprotocols.config.identity import DIGEST
from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError
from tlprotocols.training import models

Tensors = dict[str, torch.Tensor]
LISTED = 3  # names of each kind in an error
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")  # published before names had no dots
COUNTER = "num_batches_tracked"  # of batch norm; absent before PyTorch 0.4.1, and decides nothing


def check(configs: Iterable[Config]) -> None:
    """Refuse runs whose base is a file that does not fit their network, each file read once.

    Raises:
        ConfigError: names the file and what does not fit.
    """
    different = {
        (c.base.weights, c.base.digest, c.model, c.dataset.input_pixels, c.layers): c for c in configs if _is_copied(c)
    }
    path, tensors = None, Tensors()
    for config in sorted(different.values(), key=lambda c: str(c.base.weights)):
        if config.base.weights != path:
            path, tensors = config.base.weights, read(config)
        with torch.device("meta"):
            net = models.build(config, 2)
        fitted(tensors, net, config)


def load(config: Config, net: models.Network) -> Tensors:
    """The weights of the first `layers` stages, under `stage.name`.

    Raises:
        ConfigError: the file is not the one that was planned with, or does not fit.
    """
    return fitted(read(config), net, config)


def read(config: Config) -> Tensors:
    """All tensors of the file, under its own names.

    Raises:
        ConfigError: it is not the file of the digest, is damaged, holds something else, or a pickle with code in it.
    """
    path = Path(str(config.base.weights))
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest()[:DIGEST] != config.base.digest:
        raise ConfigError("base.weights", path, "changed after the sweep was planned; run the same command again")
    try:
        found = _parsed(content)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        what = f"holds a pickle with code in it ({code[1]}), which is not run" if code else _damage(error)
        raise ConfigError("base.weights", path, f"{what}; save net.state_dict() alone") from error
    except Exception as error:  # whatever a parser makes of a file that is damaged, or no weights
        raise ConfigError("base.weights", path, _damage(error)) from error
    if not (isinstance(found, Mapping) and found and all(torch.is_tensor(value) for value in found.values())):
        holds = _some(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise ConfigError("base.weights", path, f"is no state dict: it holds {holds}; save net.state_dict() alone")
    return {OLD_DENSENET.sub(r"\1\2", str(name)): value for name, value in found.items()}


def _parsed(content: bytes) -> object:
    if content[8:9] == b"{":  # safetensors: the length of a header, and the header in JSON
        return load_safetensors(content)
    if content[:2] == b"PK" and (part := zipfile.ZipFile(io.BytesIO(content)).testzip()):
        raise ValueError(f"the checksum of {part} does not fit")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _damage(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"is damaged, or no file of weights ({lines[0][:100] if lines else type(error).__name__})"


def fitted(tensors: Tensors, net: models.Network, config: Config) -> Tensors:
    """Those of the first `layers` stages, under `stage.name`: all of them, of the right shapes, and no others.

    Raises:
        ConfigError: says which are missing, of another shape, or unknown.
    """
    names = _names(net)
    needed = {name: own for name, own in names.items() if name.partition(".")[0] in list(net.stages)[: config.layers]}
    ours = sum(name in tensors for name in needed) > sum(own in tensors for own in needed.values())
    layout = {name if ours else own: name for name, own in names.items()}  # the file's name: ours
    wanted = {theirs: name for theirs, name in layout.items() if name in needed}
    state = {name: value for m in net.stages.items() for name, value in _named(*m).items()}
    problems = []
    missing = [theirs for theirs in wanted if theirs not in tensors and not theirs.endswith(COUNTER)]
    if missing:
        problems.append(f"missing {_some(missing)}")
    shapes = [
        f"{theirs} {_kind(tensors[theirs])} instead of {_kind(state[name])}"
        for theirs, name in wanted.items()
        if theirs in tensors and _kind(tensors[theirs]) != _kind(state[name])
    ]
    if shapes:
        problems.append(f"of another shape {_some(shapes)}")
    last = tuple(f"{module}." for module in list(config.model.spec.parts.values())[-1:])  # new: nobody's
    others = [theirs for theirs in tensors if theirs not in layout and not theirs.startswith(last)]
    unknown = [theirs for theirs in others if _parts(theirs, layout) & set(wanted)]
    if unknown:
        problems.append(f"unknown {_some(unknown)}")
    broken = [theirs for theirs in wanted if theirs in tensors and not tensors[theirs].isfinite().all()]
    if broken:
        problems.append(f"not finite {_some(broken)}")
    if problems:
        stages = f"{config.layers} of {len(net.stages)} stages of {config.model.name}"
        if prefix := _prefix(tensors, needed.values()) or _prefix(tensors, needed):
            renamed = f'{{name.removeprefix("{prefix}"): x for name, x in state.items()}}'
            problems.append(f"its names begin with {prefix}: save {renamed}")
        raise ConfigError("base.weights", config.base.weights, f"does not fit {stages}: {'; '.join(problems)}")
    return {name: tensors.get(theirs, torch.zeros((), dtype=torch.int64)) for theirs, name in wanted.items()}


def _names(net: models.Network) -> dict[str, str]:
    """The network's own name of every weight, by `stage.name`."""
    own = {id(value): name.removeprefix("body.") for name, value in net.state_dict(keep_vars=True).items()}
    return {name: own[id(value)] for stage in net.stages.items() for name, value in _named(*stage).items()}


def _named(stage: str, module: torch.nn.Module) -> Tensors:
    return {f"{stage}.{name}": value for name, value in module.state_dict(keep_vars=True).items()}


def _prefix(tensors: Tensors, names: Iterable[str]) -> str:
    """What all of these names have before them in the file, as DataParallel's `module.`; empty if that is nothing."""
    first, *others = (name for name in names if not name.endswith(COUNTER))
    found = (theirs.removesuffix(first) for theirs in tensors if theirs.endswith(f".{first}"))
    return next((prefix for prefix in found if all(prefix + name in tensors for name in others)), "")


def _kind(tensor: torch.Tensor) -> str:
    """Shape, and the type if it is not that of weights."""
    return f"{tuple(tensor.shape)}{'' if tensor.is_floating_point() else f' of {tensor.dtype}'}"


def _parts(name: str, known: Iterable[str]) -> set[str]:
    """The known names in the innermost module of an unknown name that has any: they tell whose it is."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        inside = ".".join(parts[:depth]) + "."
        if found := {other for other in known if other.startswith(inside)}:
            return found
    return set()


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more


def _is_copied(config: Config) -> bool:
    return config.base.name == "weights" and config.layers > 0
