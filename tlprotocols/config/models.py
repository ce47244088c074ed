"""What is known of a network without building it. `layers`, `freeze` and `high_lr_layers` are slices of its stages."""

from collections.abc import Callable
from dataclasses import dataclass

ALEXNET = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


@dataclass(frozen=True)
class ModelSpec:
    """A network: its transferable stages, what may be set, and what it costs."""

    stages: tuple[str, ...]  # input first; the last one is always new
    pixels: tuple[int, int]  # least and most side of an input
    multiply_adds: Callable[[int, float], float]  # of a forward pass of one image, by pixels and width
    width: tuple[float, float] = (1, 1)  # least and most


MODELS = {
    "alexnet": ModelSpec(ALEXNET, (63, 512), lambda pixels, width: 714e6 * (pixels / 224) ** 2),
    "alexnet_small": ModelSpec(
        ALEXNET, (16, 96), lambda pixels, width: 45e6 * (pixels / 32) ** 2 * width**2, (0.05, 4)
    ),
}
