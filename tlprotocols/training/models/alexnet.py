"""AlexNet's eight layers for small images."""

from torch import nn

from tlprotocols.config.schema import Config
from tlprotocols.training.models.network import Network, classifier, initialise


def alexnet_small(config: Config, classes: int) -> Network:
    """AlexNet's eight layers for 32 to 64 pixels: smaller first kernels, 2x2 pooling, 1024 units in fc6 and fc7.

    Pooling before the ReLU is the same function with a quarter of the work.
    """
    c1, c2, c3, c4, c5 = (max(8, round(c * config.model.width / 8) * 8) for c in (64, 192, 384, 256, 256))
    units, side = max(16, round(1024 * config.model.width)), (config.dataset.input_pixels + 1) // 2 // 2 // 2 // 2
    body = nn.Sequential(
        *(nn.Conv2d(3, c1, 5, stride=2, padding=2), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c1, c2, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c4, c5, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten()),
        *(nn.Dropout(config.dropout), nn.Linear(c5 * side * side, units), nn.ReLU(inplace=True)),
        *(nn.Dropout(config.dropout), nn.Linear(units, units), nn.ReLU(inplace=True)),
    )
    layers = [module for module in body if isinstance(module, nn.Conv2d | nn.Linear)]
    head, stage = classifier(config, nn.Linear(units, classes), dropout=False)
    net = Network(body, head, dict(zip(config.model.stages, [*layers, stage], strict=True)))
    initialise(net)
    return net
