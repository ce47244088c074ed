"""torchvision's residual networks."""

from torch import nn
from torchvision.models import ResNet
from torchvision.models import resnet18 as published

from tlprotocols.config.schema import Config
from tlprotocols.training.models.network import Network, block, classifier


def resnet18(config: Config, classes: int) -> Network:
    """torchvision's ResNet-18 with torchvision's initialisation. Stages are residual blocks; dropout acts before fc."""
    net: ResNet = published(num_classes=classes)
    head, stage = classifier(config, net.fc, dropout=True)
    net.fc = nn.Identity()
    residual = [*net.layer1, *net.layer2, *net.layer3, *net.layer4]
    modules = [block(conv1=net.conv1, bn1=net.bn1), *residual, stage]
    return Network(net, head, dict(zip(config.model.stages, modules, strict=True)))
