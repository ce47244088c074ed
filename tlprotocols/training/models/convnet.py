"""A network of two convolutions, for small images and for a first look at anything."""

from torch import nn

from tlprotocols.config.schema import Config
from tlprotocols.training.models.network import Network, classifier, initialise


def convnet(config: Config, classes: int) -> Network:
    """Two 5x5 convolutions, each with 2x2 pooling, and one linear layer. Dropout acts before the linear layer."""
    c1, c2 = (max(8, round(channels * config.model.width / 8) * 8) for channels in (32, 64))
    side = config.dataset.input_pixels // 2 // 2
    body = nn.Sequential(
        *(nn.Conv2d(3, c1, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c1, c2, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten()),
    )
    head, last = classifier(config, nn.Linear(c2 * side * side, classes), dropout=True)
    net = Network(body, head, dict(zip(config.model.stages, [body[0], body[3], last], strict=True)))
    initialise(net)
    return net
