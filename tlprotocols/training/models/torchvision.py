"""torchvision's networks, each built from its entry in config/models.py: which modules make up a stage."""

from torch import nn
from torchvision import models as published

from tlprotocols.config.schema import Config
from tlprotocols.training.models.network import Network, block, classifier

SIDES = ((6, 6), (7, 7))  # of what AlexNet and VGG pool to; with 224 pixels it has this size before


def network(config: Config, classes: int) -> Network:
    """The network of torchvision's name, with its initialisation and its stochastic depth, which acts in stages that
    learn. Dropout acts where torchvision has it in the classifier, else before the last layer."""
    net: nn.Module = getattr(published, config.model.name)(num_classes=classes)
    *inner, last = config.model.spec.parts.values()
    stages = [_stage(net, names.split()) for names in inner]
    before, name = net.get_submodule(last.rpartition(".")[0]), last.rpartition(".")[2]
    linear = before.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    drops = [module for module in before.children() if isinstance(module, nn.Dropout)]
    for module in drops:
        module.p = config.dropout
    with_head = not drops or drops[-1] is list(before.children())[-2]
    if drops and with_head:
        drops[-1].p = 0
    setattr(before, name, nn.Identity())
    pool = getattr(net, "avgpool", None)
    if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in SIDES and config.dataset.input_pixels // 32 == 7:
        net.avgpool = nn.Identity()  # the mean over one element; its CUDA backward is not deterministic
    head, stage = classifier(config, linear, dropout=with_head)
    return Network(net, head, dict(zip(config.model.stages, [*stages, stage], strict=True)))


def _stage(net: nn.Module, names: list[str]) -> nn.Module:
    """One module as it is; several, or parameters beside them, as a block in which they keep their own names."""
    if len(names) == 1:
        return net.get_submodule(names[0])
    modules = dict(net.named_modules())
    stage = block(**{name.rpartition(".")[2]: modules[name] for name in names if name in modules})
    for name in names:
        if name not in modules:
            stage.register_parameter(name.rpartition(".")[2], net.get_parameter(name))
    return stage
