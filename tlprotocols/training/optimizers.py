"""SGD, Adam or AdamW with a learning rate per layer."""

from collections.abc import Sequence
from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer

from tlprotocols.config.schema import Config
from tlprotocols.lr_schedule import rate
from tlprotocols.training.models import Network


def optimizer(net: Network, config: Config) -> Optimizer:
    """The optimizer with one parameter group per learning layer, named after it: frozen layers are in none.

    Adam and AdamW have torch's constants: beta 0.9 and 0.999, epsilon 1e-8 (Kingma & Ba 2015, Alg. 1). The weight
    decay is an L2 penalty in the gradient for sgd and adam, and decoupled for adamw (Loshchilov & Hutter 2019).
    """
    groups: list[dict[str, Any]] = [
        {"params": list(module.parameters()), "name": layer}
        for layer, module in list(net.stages.items())[config.freeze :]
    ]
    lr, decay = config.lr.high, config.weight_decay
    match config.optimizer:
        case "adam":
            return Adam(groups, lr=lr, weight_decay=decay, fused=True)
        case "adamw":
            return AdamW(groups, lr=lr, weight_decay=decay, fused=True)
    momentum, nesterov = config.momentum, config.nesterov
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay, fused=True)


def set_rates(optimizer: Optimizer, config: Config, epoch: int, losses: Sequence[float] = ()) -> None:
    """Give every group its layer's rate for `epoch`, before which there were these validation losses."""
    for group in optimizer.param_groups:
        group["lr"] = rate(config, group["name"], epoch, losses)
