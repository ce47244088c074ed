"""Weights and resume states as safetensors, written atomically: nothing here loads a pickle."""

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch.optim import Optimizer

from tlprotocols.config.identity import DIGEST
from tlprotocols.errors import Damaged
from tlprotocols.records import write_atomic
from tlprotocols.training.models import Network
from tlprotocols.training.transfer import weights


@dataclass
class State:
    """The state of a training between two epochs, without its weights and what the optimizer keeps of each."""

    done: int = 0  # epochs
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)


def save_weights(path: Path, net: Network) -> str:
    """Write the weights of a network, under `layer.parameter`. Returns the digest of the file, for the row."""
    content = save({name: value.contiguous().cpu() for name, value in weights(net).items()})
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()[:DIGEST]


def load_weights(path: Path, digest: str | None) -> dict[str, torch.Tensor]:
    """What `save_weights` wrote and gave this digest.

    Raises:
        Damaged: the file is gone or damaged; it is named.
    """
    content = path.read_bytes() if path.exists() else b""
    found = hashlib.sha256(content).hexdigest()[:DIGEST]
    if not content or found != digest:
        what = f"are damaged (digest {found}, its row says {digest})" if content else "are gone"
        raise Damaged(f"{path}: the base's weights {what}; the same command trains it again")
    return load(content)


def save_state(path: Path, net: Network, optimizer: Optimizer, state: State, of: str = "") -> None:
    """Weights, what the optimizer keeps, and epoch: all that the next epoch depends on. `of` names the run and the
    weights that it copied."""
    tensors = {f"weight/{name}": value.contiguous().cpu() for name, value in weights(net).items()}
    for number, kept in optimizer.state_dict()["state"].items():  # by number of the parameter, as torch counts them
        for name, value in kept.items():
            if value is not None:  # sgd without momentum
                tensors[f"optimizer/{number}/{name}"] = value.contiguous().cpu()
    text = json.dumps({"of": of, **vars(state)})
    write_atomic(path, save(tensors, metadata={"state": text, "digest": _digest(text, tensors)}))


def load_state(
    path: Path, net: Network, optimizer: Optimizer, of: str = "", needed: AbstractSet[str] = frozenset()
) -> State:
    """Put a training back to where `save_state` left it; a fresh state if there is no checkpoint, a damaged one, one
    of another layout, one `of` something else, or one whose curve lacks what is `needed` at every epoch."""
    if not path.exists():
        return State()
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            text, digest = file.metadata()["state"], file.metadata()["digest"]
        content = json.loads(text)
        whole = digest == _digest(text, tensors) and content.pop("of") == of
        state = State(**content)
        kept = {name: value for name, value in tensors.items() if name.startswith("optimizer/")}
        shapes = {name.removeprefix("weight/"): value.shape for name, value in tensors.items() if name not in kept}
        usable = (
            whole
            and shapes == {name: value.shape for name, value in weights(net).items()}
            and all(needed <= point.keys() for point in state.curve)
        )
        if usable:
            _restore(optimizer, kept)
    except (SafetensorError, KeyError, IndexError, TypeError, ValueError):
        usable = False
    if not usable:  # the run begins again
        path.unlink()
        return State()
    for layer, module in net.stages.items():
        module.load_state_dict({name: tensors[f"weight/{layer}.{name}"] for name in module.state_dict()})
    return state


def _restore(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give an optimizer the tensors that `save_state` names `optimizer/NUMBER/NAME`, each in its parameter's memory
    format: fused updates walk through both in one order."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        _, number, name = key.split("/")
        like = parameters[int(number)]
        same_shape = value.shape == like.shape
        kept.setdefault(int(number), {})[name] = torch.empty_like(like).copy_(value) if same_shape else value
    optimizer.load_state_dict({"state": kept, "param_groups": optimizer.state_dict()["param_groups"]})


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    sha = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
