"""AlexNet: torchvision's, and a small one of the same eight layers for 32 to 64 pixels."""

from torch import nn

from tlprotocols.config.schema import Config
from tlprotocols.training.models.network import Network


def alexnet(config: Config, classes: int) -> Network:
    """torchvision's AlexNet with torchvision's initialisation. Dropout acts before fc6 and before fc7."""
    from torchvision.models import AlexNet  # takes longer to import than torch, and the small networks need it not

    net = AlexNet(num_classes=classes, dropout=config.dropout)
    pool: nn.Module = net.avgpool
    if config.dataset.pixels // 32 - 1 == 6:
        pool = nn.Identity()  # the mean over one element; its CUDA backward is not deterministic
    return _named(config, nn.Sequential(*net.features, pool, nn.Flatten(), *net.classifier))


def alexnet_small(config: Config, classes: int) -> Network:
    """AlexNet's eight layers for 32 to 64 pixels: smaller first kernels, 2x2 pooling, 1024 units in fc6 and fc7.

    He initialisation and zero biases, and a small last layer: a narrow net with PyTorch's default initialisation
    stays on the plateau at ln K for many epochs. Pooling before the ReLU is the same function with a quarter of the
    work.
    """
    c1, c2, c3, c4, c5 = (max(8, round(c * config.model.width / 8) * 8) for c in (64, 192, 384, 256, 256))
    units, side = max(16, round(1024 * config.model.width)), (config.dataset.pixels + 1) // 2 // 2 // 2 // 2
    body = nn.Sequential(
        *(nn.Conv2d(3, c1, 5, stride=2, padding=2), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c1, c2, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c4, c5, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten()),
        *(nn.Dropout(config.dropout), nn.Linear(c5 * side * side, units), nn.ReLU(inplace=True)),
        *(nn.Dropout(config.dropout), nn.Linear(units, units), nn.ReLU(inplace=True)),
        nn.Linear(units, classes),
    )
    net = _named(config, body)
    for stage in net.stages.values():
        assert isinstance(stage, nn.Conv2d | nn.Linear)
        assert stage.bias is not None
        nn.init.kaiming_normal_(stage.weight, nonlinearity="relu")
        nn.init.zeros_(stage.bias)
    last = net.stages[config.model.stages[-1]]
    nn.init.normal_(last.weight, std=0.01)  # type: ignore[arg-type]
    return net


def _named(config: Config, body: nn.Sequential) -> Network:
    layers = [module for module in body if isinstance(module, nn.Conv2d | nn.Linear)]
    return Network(body, dict(zip(config.model.stages, layers, strict=True)))
