"""A network with `stages`, an ordered map from layer name to the module that holds its weights."""

import torch
from torch import nn


class Network(nn.Module):
    """A sequence of modules, of which some are the named stages that `layers`, `freeze` and rates refer to."""

    def __init__(self, body: nn.Sequential, stages: dict[str, nn.Module]) -> None:
        super().__init__()
        self.body = body
        self.stages = stages  # the same modules again: a plain dict, so that they are registered once

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, pixels, pixels), normalised, to logits (B, classes)."""
        return self.body(images)  # type: ignore[no-any-return]
