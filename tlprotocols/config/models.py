"""What is known of a network without building it. `layers`, `freeze` and `high_lr_layers` are slices of its stages.

A new network is an entry here, a function of its name in training/models/FAMILY.py and a file in conf/model/; one of
torchvision's needs no function: its entry says which modules make up a stage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Parts = dict[str, str]  # stage: names of its modules, and of parameters outside of them, in torchvision's network


def _blocks(stage: str, module: str, *counts: int) -> Parts:
    """A stage per block, in groups of so many: `layer1_0` is `layer1.0`."""
    places = [(group, block) for group, count in enumerate(counts, 1) for block in range(count)]
    return {f"{stage}{group}_{block}": f"{module}{group}.{block}" for group, block in places}


def _downsampled(stage: str, last: str, *counts: int) -> Parts:
    """A stage per block, in groups of so many, and one for the downsampling between two groups; `last` is the norm
    after the last block, and belongs to it."""
    parts = {"stem": "features.0"}
    for group, count in enumerate(counts, 1):
        parts |= {f"block{group}_{block}": f"features.{2 * group - 1}.{block}" for block in range(count)}
        parts |= {f"{stage}{group}": f"features.{2 * group}"} if group < len(counts) else {}
    parts[f"block{len(counts)}_{counts[-1] - 1}"] += f" {last}"
    return parts


ALEXNET = dict(
    **{f"conv{number}": f"features.{place}" for number, place in enumerate((0, 3, 6, 8, 10), 1)},
    **{"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"},
)
VGG16 = dict(
    **{
        f"conv{number}": f"features.{place}"
        for number, place in enumerate((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), 1)
    },
    **{"fc14": "classifier.0", "fc15": "classifier.3", "fc16": "classifier.6"},
)
RESNET18 = {"conv1": "conv1 bn1", **_blocks("layer", "layer", 2, 2, 2, 2), "fc": "fc"}
RESNET50 = {"conv1": "conv1 bn1", **_blocks("layer", "layer", 3, 4, 6, 3), "fc": "fc"}
DENSENET = {
    "stem": "features.conv0 features.norm0",
    **{
        stage: f"features.{module}{number}"
        for number in (1, 2, 3)
        for stage, module in ((f"block{number}", "denseblock"), (f"transition{number}", "transition"))
    },
    "block4": "features.denseblock4 features.norm5",
    "classifier": "classifier",
}
DENSENET_BC = ("stem", "block1", "transition1", "block2", "transition2", "block3", "classifier")
MOBILENET_V3_SMALL = {
    "stem": "features.0",
    **{f"block{number}": f"features.{number}" for number in range(1, 12)},
    **{"conv12": "features.12", "hidden": "classifier.0", "classifier": "classifier.3"},
}
EFFICIENTNET_B0 = {
    "stem": "features.0",
    **_blocks("block", "features.", 1, 2, 2, 3, 3, 4, 1),
    **{"conv8": "features.8", "classifier": "classifier.1"},
}
CONVNEXT_TINY = _downsampled("downsample", "classifier.0", 3, 3, 9, 3) | {"classifier": "classifier.2"}
SWIN_T = _downsampled("merge", "norm", 2, 2, 6, 2) | {"head": "head"}
VIT_B_16 = {
    "patches": "conv_proj class_token encoder.pos_embedding",
    **{f"block{number}": f"encoder.layers.encoder_layer_{number}" for number in range(12)},
    "head": "heads.head",
}
VIT_B_16["block11"] += " encoder.ln"


@dataclass(frozen=True)
class ModelSpec:
    """A network: its transferable stages, what may be set, and what it costs."""

    family: str  # file of training/models/ with its builder
    stages: tuple[str, ...]  # input first; the last one is always new
    pixels: tuple[int, int]  # least and most side of an input
    multiply_adds: Callable[..., float]  # of a forward pass of one image, by pixels, width and the options
    tensors: Callable[..., int]  # number of parameter tensors, by the options: operations of an update go with it
    width: tuple[float, float] = (1, 1)  # least and most
    batch_norm: bool = False  # some stage has running statistics, and its output depends on the whole batch
    by_pixels: str | None = None  # first stage whose number of weights depends on the pixels
    dropout_inside: bool = False  # dropout acts between two stages before the last one, whatever is frozen
    options: tuple[str, ...] = ()  # keys of `model` beside name and width; null for every other network
    parts: Mapping[str, str] = field(default_factory=dict)  # of a network of torchvision's, by stage


def _torchvision(
    parts: Parts, multiply_adds: float, tensors: int, least: int, most: int = 512, **more: Any
) -> ModelSpec:
    """A network of torchvision's, with its multiply-adds at 224 pixels and its number of parameter tensors."""

    def at(pixels: int, width: float) -> float:
        return multiply_adds * (pixels / 224) ** 2

    return ModelSpec("torchvision", tuple(parts), (least, most), at, lambda: tensors, parts=parts, **more)


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
    "alexnet": _torchvision(ALEXNET, 714e6, 16, 63, dropout_inside=True),
    "caffenet": ModelSpec(
        "caffenet",
        tuple(ALEXNET),
        (55, 512),
        lambda pixels, width: 724e6 * (pixels / 227) ** 2,
        lambda: 16,
        by_pixels="fc6",
        dropout_inside=True,
    ),
    "alexnet_small": ModelSpec(
        "alexnet",
        tuple(ALEXNET),
        (16, 96),
        lambda pixels, width: 45e6 * (pixels / 32) ** 2 * width**2,
        lambda: 16,
        (0.05, 4),
        by_pixels="fc6",
        dropout_inside=True,
    ),
    "convnet": ModelSpec(
        "convnet",
        ("conv1", "conv2", "fc"),
        (8, 96),
        lambda pixels, width: (2.5e6 * width + 13e6 * width**2) * (pixels / 32) ** 2,
        lambda: 6,
        (0.05, 4),
        by_pixels="fc",
    ),
    "vgg16": _torchvision(VGG16, 15470e6, 32, 32, dropout_inside=True),
    "resnet18": _torchvision(RESNET18, 1814e6, 62, 16, batch_norm=True),
    "resnet50": _torchvision(RESNET50, 4089e6, 161, 16, batch_norm=True),
    "densenet121": _torchvision(DENSENET, 2834e6, 364, 29, batch_norm=True),
    "mobilenet_v3_small": _torchvision(MOBILENET_V3_SMALL, 57e6, 142, 16, batch_norm=True),
    "efficientnet_b0": _torchvision(EFFICIENTNET_B0, 386e6, 213, 16, batch_norm=True),
    "convnext_tiny": _torchvision(CONVNEXT_TINY, 4456e6, 182, 32),
    "vit_b_16": _torchvision(VIT_B_16, 17564e6, 152, 224, 224),
    "swin_t": _torchvision(SWIN_T, 4491e6, 173, 32),
    "densenet_bc": ModelSpec(
        "densenet_bc",
        DENSENET_BC,
        (16, 96),
        _densenet_bc,
        lambda depth=100, se=False, **_: 11 + (depth - 4) // 2 * (10 if se else 6),
        batch_norm=True,
        options=("depth", "growth", "drop_channel", "se", "checkpoint"),
    ),
}
