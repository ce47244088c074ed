"""What a transfer protocol does to a network before and while it learns: copy, freeze, give each layer its rate."""

from collections.abc import Collection, Mapping

import torch

from tlprotocols.training.models import Network


def weights(net: Network) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under `stage.name`, such as `conv1.weight`."""
    named = ((f"{layer}.{name}", value) for layer, m in net.stages.items() for name, value in m.state_dict().items())
    return dict(named)


def copy(source: Mapping[str, torch.Tensor], target: Network, layers: int) -> None:
    """Give `target` the first `layers` layers of `source` (`weights` of a base of the same widths)."""
    for layer, module in list(target.stages.items())[:layers]:
        state = {name: source[f"{layer}.{name}"] for name in module.state_dict()}
        module.load_state_dict(state)


def freeze(net: Network, layers: Collection[str]) -> None:
    """Stop these layers from learning, and let all others learn: no gradient, no decay, and they are in inference mode:
    their batch norm uses its running statistics, which do not move."""
    net.frozen = frozenset(layers)
    for layer, module in net.stages.items():
        module.requires_grad_(layer not in net.frozen)
