"""SGD, Adam or AdamW with a learning rate per layer."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from tlprotocols.config.schema import Config
from tlprotocols.lr_schedule import rate
from tlprotocols.training.models import Network


def optimizer(net: Network, config: Config) -> Optimizer:
    """The optimizer with one parameter group per learning layer, named after it: frozen layers are in none. Biases with
    a rate or a decay of their own are a second group of their layer.

    Adam and AdamW have torch's constants: beta 0.9 and 0.999, epsilon 1e-8 (Kingma & Ba 2015, Alg. 1). The weight
    decay is an L2 penalty in the gradient for sgd and adam, and decoupled for adamw (Loshchilov & Hutter 2019).
    """
    learning = list(net.stages.items())[config.freeze :]
    groups = [group for layer, module in learning for group in _groups(layer, module, config)]
    lr, decay = config.lr.high, config.weight_decay
    match config.optimizer:
        case "adam":
            return Adam(groups, lr=lr, weight_decay=decay, fused=True)
        case "adamw":
            return AdamW(groups, lr=lr, weight_decay=decay, fused=True)
    momentum, nesterov = config.momentum, config.nesterov
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay, fused=True)


def _groups(layer: str, module: nn.Module, config: Config) -> list[dict[str, Any]]:
    """The parameters of one layer: all, or those that are no biases and those that are."""
    if config.bias_lr == config.bias_decay == 1:
        return [{"params": list(module.parameters()), "name": layer}]
    named = list(module.named_parameters())
    weights = {"params": [value for name, value in named if not _is_bias(name)], "name": layer}
    biases = {"params": [value for name, value in named if _is_bias(name)], "name": layer, "multiple": config.bias_lr}
    return [weights, biases | {"weight_decay": config.bias_decay * config.weight_decay}]


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] == "bias"


def set_rates(optimizer: Optimizer, config: Config, epoch: int, losses: Sequence[float] = (), update: int = 0) -> None:
    """Give every group its rate for the update after so many others, in `epoch`, before which there were these
    validation losses."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("multiple", 1) * rate(config, group["name"], epoch, losses, update)
