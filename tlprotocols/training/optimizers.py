"""SGD with a learning rate per layer."""

from torch.optim import SGD

from tlprotocols.config.schema import Config
from tlprotocols.lr_schedule import rate
from tlprotocols.training.models import Network


def optimizer(net: Network, config: Config) -> SGD:
    """SGD with one parameter group per learning layer, named after it: frozen layers are in none."""
    groups = [
        {"params": list(module.parameters()), "name": layer}
        for layer, module in list(net.stages.items())[config.freeze :]
    ]
    return SGD(groups, lr=config.lr.high, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)


def set_rates(sgd: SGD, config: Config, epoch: int) -> None:
    """Give every group its layer's rate for `epoch`."""
    for group in sgd.param_groups:
        group["lr"] = rate(config, group["name"], epoch)
