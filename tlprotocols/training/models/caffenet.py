"""CaffeNet: the AlexNet of the Caffe reference models, as Yosinski et al. (2014) trained it."""

import torch
from torch import nn
from torch.nn.functional import pad

from tlprotocols.config.schema import Config
from tlprotocols.training.models.network import Network, classifier

STD = {"fc6": 0.005, "fc7": 0.005}  # of the initial weights; 0.01 in all other layers
BIAS = {"conv2": 1.0, "conv4": 1.0, "conv5": 1.0, "fc6": 1.0, "fc7": 1.0}  # initial; 0 in all other layers


class LocalResponseNorm(nn.Module):
    """x / (1 + alpha / 5 times the sum of squares over 5 neighbouring channels) ** beta, as Krizhevsky et al. (2012)
    sec. 3.3 and Caffe's LRN layer. torch's own has no deterministic gradient on a GPU (it pools in three dimensions).
    """

    SIZE, ALPHA, BETA = 5, 1e-4, 0.75

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Of maps (B, channels, height, width)."""
        channels, reach = maps.shape[1], self.SIZE // 2
        squares = pad(maps.square(), (0, 0, 0, 0, reach, reach))
        total = sum(squares[:, first : first + channels] for first in range(self.SIZE))
        return maps * (1 + self.ALPHA / self.SIZE * total) ** -self.BETA


def caffenet(config: Config, classes: int) -> Network:
    """Eight layers; groups of 2 in conv2, conv4 and conv5; pooling before local response normalisation; dropout after
    fc6 and after fc7. Gaussian weights, and biases of 1 in five layers (train.prototxt of the published code)."""
    side = config.dataset.input_pixels
    side = (side - 11) // 4 + 1
    for _ in range(3):
        side = -((3 - side) // 2) + 1  # Caffe's pooling rounds up
    body = nn.Sequential(
        *(nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(inplace=True), _pool(), LocalResponseNorm()),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(inplace=True), _pool(), LocalResponseNorm()),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(inplace=True), _pool(), nn.Flatten()),
        *(nn.Linear(256 * side * side, 4096), nn.ReLU(inplace=True), nn.Dropout(config.dropout)),
        *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(config.dropout)),
    )
    head, last = classifier(config, nn.Linear(4096, classes), dropout=False)
    layers = [*(module for module in body if isinstance(module, nn.Conv2d | nn.Linear)), last]
    net = Network(body, head, dict(zip(config.model.stages, layers, strict=True)))
    for name, stage in net.stages.items():
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.bias is not None
                nn.init.normal_(layer.weight, std=STD.get(name, 0.01))
                nn.init.constant_(layer.bias, BIAS.get(name, 0.0))
    return net


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
