"""DenseNet-BC for small images (Huang et al. 2017, sec. 3), with the options of a hybrid approach: docs/fidelity.md."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import SqueezeExcitation

from tlprotocols.config.schema import Config, Model
from tlprotocols.training.models.network import Network, block, classifier

BOTTLENECK = 4  # channels of a 1x1 convolution, as a multiple of the growth rate
REDUCTION = 16  # of squeeze-and-excitation, whose hidden layer has at least one unit: 12 // 16 is 0


def densenet_bc(config: Config, classes: int) -> Network:
    """Three dense blocks of (depth - 4) / 6 bottlenecks, and transitions that halve the channels (compression 0.5).

    Initialised as Huang et al.'s code: convolutions by He et al.'s normal distribution with fan-out, biases zero.
    """
    model, rate = config.model, config.dropout
    assert model.depth is not None
    assert model.growth is not None
    units = rate if model.drop_channel == "none" else 0.0  # rate of the dropout of single units
    channels, count = 2 * model.growth, (model.depth - 4) // 6
    stages: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for number in (1, 2, 3):
        dense = DenseBlock([Bottleneck(channels + i * model.growth, model, rate) for i in range(count)])
        channels += count * model.growth
        if number == 3:
            stages.append(block(layers=dense, norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))
            break
        convolution = nn.Conv2d(channels, channels // 2, 1, bias=False)
        transition = {"norm": nn.BatchNorm2d(channels), "relu": nn.ReLU(inplace=True), "conv": convolution}
        stages += [dense, block(**transition, drop=nn.Dropout(units), pool=nn.AvgPool2d(2))]
        channels //= 2
    body = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in body.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:  # those of squeeze-and-excitation stay torch's
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    last = nn.Linear(channels, classes)
    nn.init.zeros_(last.bias)
    head, stage = classifier(config, last, dropout=False)
    return Network(body, head, dict(zip(model.stages, [*stages, stage], strict=True)))


class DenseBlock(nn.Module):
    """Bottlenecks, each of which gets the outputs of all before it."""

    def __init__(self, layers: list["Bottleneck"]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, channels, side, side) to (B, channels + layers x growth, side, side)."""
        features = [images]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class Bottleneck(nn.Module):
    """BN-ReLU-conv 1x1-BN-ReLU-conv 3x3, and squeeze-and-excitation if wanted, on the concatenated features.

    `rate` is that of the dropout of units after both convolutions (Huang et al. 2017, sec. 4.2), or in its place of
    channels, before the first batch norm (`before_bn`) or before both convolutions (`before_conv`). With `checkpoint`
    everything as wide as the input is forgotten, and computed again in the backward pass (Pleiss et al. 2017).
    """

    def __init__(self, channels: int, model: Model, rate: float) -> None:
        super().__init__()
        growth, where = model.growth or 0, model.drop_channel
        narrow = BOTTLENECK * growth
        before_bn, before_conv, units = (rate if where == at else 0.0 for at in ("before_bn", "before_conv", "none"))
        self.checkpoint = bool(model.checkpoint)
        self.wide = block(
            drop0=nn.Dropout2d(before_bn),
            norm1=nn.BatchNorm2d(channels),
            relu1=nn.ReLU(inplace=True),
            drop1=nn.Dropout2d(before_conv),
            conv1=nn.Conv2d(channels, narrow, 1, bias=False),
        )
        self.narrow = block(
            drop2=nn.Dropout(units),
            norm2=nn.BatchNorm2d(narrow),
            relu2=nn.ReLU(inplace=True),
            drop3=nn.Dropout2d(before_conv),
            conv2=nn.Conv2d(narrow, growth, 3, padding=1, bias=False),
            **({"se": SqueezeExcitation(growth, max(1, growth // REDUCTION))} if model.se else {}),
            drop4=nn.Dropout(units),
        )

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Outputs (B, c, side, side) of the layers before, of `channels` in all, to (B, growth, side, side)."""
        if self.checkpoint and torch.is_grad_enabled():
            wide = checkpoint(self._wide, *features, use_reentrant=False, context_fn=self._contexts)
        else:
            wide = self._wide(*features)
        return self.narrow(wide)  # type: ignore[no-any-return]

    def _wide(self, *features: torch.Tensor) -> torch.Tensor:
        return self.wide(torch.cat(features, 1))  # type: ignore[no-any-return]

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Of the forward pass, and of its repetition, which draws the same dropout: `checkpoint` sees to that."""
        return nullcontext(), _statistics_kept(self.wide.norm1)  # type: ignore[arg-type]


@contextmanager
def _statistics_kept(norm: nn.BatchNorm2d) -> Iterator[None]:
    """The running statistics move in copies that are dropped: otherwise the repetition would move them once more."""
    kept = dict(norm.named_buffers())
    for name, value in kept.items():
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(norm, name, value)
