"""A network with `stages`, an ordered map from stage name to the module, or block of modules, with its weights."""

from collections import OrderedDict
from typing import Self

import torch
from torch import nn
from torch.nn.functional import pad

from tlprotocols.config.schema import Config

CHUNK = 32  # images that a body without randomness sees at once


class Network(nn.Module):
    """A body, from images to features, and a head, from features to logits. The named stages are the parts that
    `layers`, `freeze` and rates refer to.

    The stages, input first, have every parameter and every buffer of the network, each exactly once; the last one is in
    the head and all others are in the body.
    """

    def __init__(self, body: nn.Module, head: nn.Module, stages: dict[str, nn.Module]) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.stages = stages  # the same modules again: a plain dict, so that they are registered once
        self.frozen: frozenset[str] = frozenset()  # stages in inference mode, whatever the mode of the network
        self.features_as: torch.dtype | None = None  # if set, the body has one output per image, of this type

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, pixels, pixels), normalised, to logits (B, classes)."""
        features = self.body(images) if self.features_as is None else self.features(images)
        return self.head(features)  # type: ignore[no-any-return]

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, pixels, pixels) to features (B, F) of `features_as`, in chunks of one size, the last one
        filled up: convolutions round differently in batches of different sizes."""
        assert self.features_as is not None
        chunks = [pad(part, (0, 0, 0, 0, 0, 0, 0, CHUNK - len(part))) for part in images.split(CHUNK)]  # type: ignore[no-untyped-call]
        with torch.no_grad():
            found = [self.body(part.contiguous(memory_format=torch.channels_last)) for part in chunks]
        return torch.cat(found)[: len(images)].to(self.features_as)

    def train(self, mode: bool = True) -> Self:
        """Training mode but for the frozen stages: their running statistics are used and do not move."""
        super().train(mode)
        for name in self.frozen:
            self.stages[name].eval()
        return self


def block(**modules: nn.Module) -> nn.Sequential:
    """A stage of several modules, which keep their names in it: `conv1.bn1.weight`."""
    return nn.Sequential(OrderedDict(modules))


def classifier(config: Config, last: nn.Linear, dropout: bool) -> tuple[nn.Module, nn.Module]:
    """The head of a network and its last stage, in place of the linear layer `last`: that layer itself, after
    `dropout`; or with `head=[H1,H2,...]` hidden layers with ReLU, each with dropout after it, and a linear layer."""
    if config.head is None:
        return (nn.Sequential(nn.Dropout(config.dropout), last) if dropout else last), last
    modules: list[nn.Module] = []
    inputs = last.in_features
    for units in config.head:
        modules += [nn.Linear(inputs, units), nn.ReLU(inplace=True), nn.Dropout(config.dropout)]
        inputs = units
    stage = nn.Sequential(*modules, nn.Linear(inputs, last.out_features))
    return stage, stage


def initialise(net: Network) -> None:
    """He initialisation and zero biases, and a small last layer: a narrow net with PyTorch's default initialisation
    stays on the plateau at ln K for many epochs. Every stage has convolutions and linear layers only."""
    modules = [module for stage in net.stages.values() for module in stage.modules()]
    layers = [module for module in modules if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        assert layer.bias is not None
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    nn.init.normal_(layers[-1].weight, std=0.01)
