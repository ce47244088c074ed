"""What is known of a network without building it. `layers`, `freeze` and `high_lr_layers` are slices of its stages.

A new network is an entry here, a function of its name in training/models/FAMILY.py and a file in conf/model/.
"""

from collections.abc import Callable
from dataclasses import dataclass

ALEXNET = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
RESNET18 = ("conv1", *(f"layer{group}_{block}" for group in (1, 2, 3, 4) for block in (0, 1)), "fc")
DENSENET_BC = ("stem", "block1", "transition1", "block2", "transition2", "block3", "classifier")
DENSENET = ("stem", "block1", "transition1", "block2", "transition2", "block3", "transition3", "block4", "classifier")


@dataclass(frozen=True)
class ModelSpec:
    """A network: its transferable stages, what may be set, and what it costs."""

    family: str  # file of training/models/ with its builder
    stages: tuple[str, ...]  # input first; the last one is always new
    pixels: tuple[int, int]  # least and most side of an input
    multiply_adds: Callable[..., float]  # of a forward pass of one image, by pixels, width and the options
    width: tuple[float, float] = (1, 1)  # least and most
    batch_norm: bool = False  # some stage has running statistics, and its output depends on the whole batch
    by_pixels: str | None = None  # first stage whose number of weights depends on the pixels
    dropout_inside: bool = False  # dropout acts before a stage that is not the last one
    options: tuple[str, ...] = ()  # keys of `model` beside name and width; null for every other network


def _densenet_bc(pixels: int, width: float, depth: int = 100, growth: int = 12, **_: object) -> float:
    """Three blocks of bottlenecks, on channels and pixels that two transitions halve."""
    channels, total = 2 * growth, 3 * 9 * 2 * growth * pixels**2
    for side in (pixels, pixels // 2, pixels // 4):
        for _layer in range((depth - 4) // 6):
            total += side**2 * 4 * growth * (channels + 9 * growth)
            channels += growth
        if side > pixels // 4:  # a transition
            channels //= 2
            total += side**2 * 2 * channels**2
    return float(total)


MODELS = {
    "alexnet": ModelSpec(
        "alexnet", ALEXNET, (63, 512), lambda pixels, width: 714e6 * (pixels / 224) ** 2, dropout_inside=True
    ),
    "caffenet": ModelSpec(
        "caffenet",
        ALEXNET,
        (55, 512),
        lambda pixels, width: 724e6 * (pixels / 227) ** 2,
        by_pixels="fc6",
        dropout_inside=True,
    ),
    "alexnet_small": ModelSpec(
        "alexnet",
        ALEXNET,
        (16, 96),
        lambda pixels, width: 45e6 * (pixels / 32) ** 2 * width**2,
        (0.05, 4),
        by_pixels="fc6",
        dropout_inside=True,
    ),
    "convnet": ModelSpec(
        "convnet",
        ("conv1", "conv2", "fc"),
        (8, 96),
        lambda pixels, width: (2.5e6 * width + 13e6 * width**2) * (pixels / 32) ** 2,
        (0.05, 4),
        by_pixels="fc",
    ),
    "resnet18": ModelSpec(
        "resnet", RESNET18, (16, 512), lambda pixels, width: 1814e6 * (pixels / 224) ** 2, batch_norm=True
    ),
    "densenet121": ModelSpec(
        "densenet", DENSENET, (29, 512), lambda pixels, width: 2834e6 * (pixels / 224) ** 2, batch_norm=True
    ),
    "densenet_bc": ModelSpec(
        "densenet_bc",
        DENSENET_BC,
        (16, 96),
        _densenet_bc,
        batch_norm=True,
        options=("depth", "growth", "drop_channel", "se", "checkpoint"),
    ),
}
