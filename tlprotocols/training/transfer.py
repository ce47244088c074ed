"""What a transfer protocol does to a network before and while it learns: copy, freeze, give each layer its rate."""

from collections.abc import Mapping

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


def freeze(net: Network, layers: int) -> None:
    """Stop the first `layers` layers from learning: no gradient, no decay, no graph is built through them, and their
    batch norm uses its running statistics, which do not move."""
    net.frozen = layers
    for module in list(net.stages.values())[:layers]:
        module.requires_grad_(False)
