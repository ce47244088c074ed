"""torchvision's densely connected networks."""

from torch import nn
from torchvision.models import DenseNet
from torchvision.models import densenet121 as published

from tlprotocols.config.schema import Config
from tlprotocols.training.models.network import Network, block, classifier


def densenet121(config: Config, classes: int) -> Network:
    """torchvision's DenseNet-121 with torchvision's initialisation. Dropout acts before the classifier."""
    net: DenseNet = published(num_classes=classes)
    head, stage = classifier(config, net.classifier, dropout=True)
    net.classifier = nn.Identity()
    parts = dict(net.features.named_children())
    first = {name: parts.pop(name) for name in ("conv0", "norm0")}
    last = {name: parts.pop(name) for name in ("denseblock4", "norm5")}
    between = [part for name, part in parts.items() if name.startswith(("denseblock", "transition"))]
    modules = [block(**first), *between, block(**last), stage]
    return Network(net, head, dict(zip(config.model.stages, modules, strict=True)))
