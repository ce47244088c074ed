"""Weights and resume states as safetensors, written aside and renamed: nothing here loads a pickle."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch.optim import SGD

from tlprotocols.models import Network
from tlprotocols.results import write_aside
from tlprotocols.transfer import weights


@dataclass
class State:
    """Where a training stands between two epochs, beside its weights and momenta."""

    done: int = 0  # epochs
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)


def save_weights(path: Path, net: Network) -> None:
    """The weights of a network, under `layer.parameter`."""
    write_aside(path, save({name: value.contiguous().cpu() for name, value in weights(net).items()}))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """What `save_weights` wrote. Raises FileNotFoundError or ValueError naming the file."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: the base's weights are gone; the same command trains it again")
    try:
        return load_file(path)
    except SafetensorError as error:
        text = (
            f"{path}: the base's weights are damaged ({error}); remove the file, and the same command trains it again"
        )
        raise ValueError(text) from error


def save_state(path: Path, net: Network, sgd: SGD, state: State) -> None:
    """Weights, momenta and epoch: all that the next epoch depends on."""
    tensors = {f"weight/{name}": value.contiguous().cpu() for name, value in weights(net).items()}
    for number, parameter in enumerate(_learning(sgd)):
        momentum = sgd.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum/{number}"] = momentum.contiguous().cpu()
    write_aside(path, save(tensors, metadata={"state": json.dumps(vars(state))}))


def load_state(path: Path, net: Network, sgd: SGD) -> State:
    """Put a training back to where `save_state` left it; a fresh state if there is no checkpoint."""
    if not path.exists():
        return State()
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            state = State(**json.loads(file.metadata()["state"]))
    except SafetensorError:  # a disk that filled up: the run begins again
        path.unlink()
        return State()
    for layer, module in net.stages.items():
        module.load_state_dict({name: tensors[f"weight/{layer}.{name}"] for name in module.state_dict()})
    for number, parameter in enumerate(_learning(sgd)):
        if f"momentum/{number}" in tensors:
            momentum = torch.empty_like(parameter)
            sgd.state[parameter]["momentum_buffer"] = momentum.copy_(tensors[f"momentum/{number}"])
    return state


def _learning(sgd: SGD) -> list[torch.Tensor]:
    return [parameter for group in sgd.param_groups for parameter in group["params"]]
