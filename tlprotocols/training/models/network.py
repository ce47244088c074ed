"""A network with `stages`, an ordered map from stage name to the module, or block of modules, with its weights."""

from collections import OrderedDict
from typing import Self

import torch
from torch import nn


class Network(nn.Module):
    """A module, of which the named stages are the parts that `layers`, `freeze` and rates refer to.

    The stages, input first, have every parameter and every buffer of the module, each exactly once.
    """

    def __init__(self, module: nn.Module, stages: dict[str, nn.Module]) -> None:
        super().__init__()
        self.module = module
        self.stages = stages  # the same modules again: a plain dict, so that they are registered once
        self.frozen = 0  # first stages that are in inference mode whatever the mode of the network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, pixels, pixels), normalised, to logits (B, classes)."""
        return self.module(images)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Self:
        """Training mode but for the frozen stages: their running statistics are used and do not move."""
        super().train(mode)
        for stage in list(self.stages.values())[: self.frozen]:
            stage.eval()
        return self


def block(**modules: nn.Module) -> nn.Sequential:
    """A stage of several modules, which keep their names in it: `conv1.bn1.weight`."""
    return nn.Sequential(OrderedDict(modules))


def initialise(net: Network) -> None:
    """He initialisation and zero biases, and a small last layer: a narrow net with PyTorch's default initialisation
    stays on the plateau at ln K for many epochs. Every stage is a convolution or a linear layer."""
    for stage in net.stages.values():
        assert isinstance(stage, nn.Conv2d | nn.Linear)
        assert stage.bias is not None
        nn.init.kaiming_normal_(stage.weight, nonlinearity="relu")
        nn.init.zeros_(stage.bias)
    last = list(net.stages.values())[-1]
    nn.init.normal_(last.weight, std=0.01)  # type: ignore[arg-type]
