"""SGD, Adam or AdamW with a learning rate per layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from tlprotocols.config.schema import Config
from tlprotocols.lr_schedule import rate
from tlprotocols.training.models import Network


def optimizer(net: Network, config: Config) -> Optimizer:
    """The optimizer with one parameter group per learning layer, named after it: layers that never learn are in none.
    Biases with a rate or a decay of their own are a second group of their layer. Call it before the first update: with
    `l2_sp` the groups of copied layers keep the weights that they begin with.

    Adam and AdamW have torch's constants: beta 0.9 and 0.999, epsilon 1e-8 (Kingma & Ba 2015, Alg. 1). The weight
    decay is an L2 penalty in the gradient for sgd and adam, and decoupled for adamw (Loshchilov & Hutter 2019).
    """
    never, copied = config.frozen(), config.model.stages[: config.layers]
    learning = [(layer, module) for layer, module in net.stages.items() if layer not in never]
    groups = [group for layer, module in learning for group in _groups(layer, module, config)]
    if config.l2_sp:
        for group in (group for group in groups if group["name"] in copied):
            group |= {"weight_decay": 0.0, "start": [weight.detach().clone() for weight in group["params"]]}
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
    return name.rpartition(".")[2] in ("bias", "in_proj_bias")  # the latter of torch's attention


def set_rates(optimizer: Optimizer, config: Config, epoch: int, losses: Sequence[float] = (), update: int = 0) -> None:
    """Give every group its rate for the update after so many others, in `epoch`, before which there were these
    validation losses."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("multiple", 1) * rate(config, group["name"], epoch, losses, update)


@torch.no_grad()
def pull_to_start(optimizer: Optimizer, strength: float) -> None:
    """Add to the gradients that of L2-SP, strength / 2 times the squared distance of the copied layers from the weights
    that they began with (Li et al. 2018, eq. 3)."""
    for group in optimizer.param_groups:
        for weight, start in zip(group["params"], group.get("start", ()), strict=False):
            if weight.grad is not None:  # it learns in this epoch
                weight.grad.add_(weight - start, alpha=strength)
