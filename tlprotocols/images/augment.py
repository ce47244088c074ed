"""From stored uint8 images to what a network sees: crop and flip as gathers, then scale, mean and deviation.

Draws are keyed by (seed, epoch, image): they depend neither on the batch, nor on the order, nor on other images.
Given the same draws, every value equals torchvision's RandomCrop, RandomHorizontalFlip, ToTensor and Normalize bit
for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided

from tlprotocols.config.schema import Config, Dataset
from tlprotocols.randomness import stream, uniform

SCALE, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # of torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Draws:
    """A box and a direction per image; every field has one entry per image, (N,)."""

    top: torch.Tensor  # int64
    left: torch.Tensor  # int64
    flip: torch.Tensor | None = None  # bool: mirrored; None: no image is
    height: torch.Tensor | None = None  # int64: of a box that is resized; None: boxes have the size of the input
    width: torch.Tensor | None = None  # int64

    def __getitem__(self, which: slice) -> "Draws":
        return self._each(lambda values: values[which])

    def to(self, device: torch.device) -> "Draws":
        """The same draws on another device."""
        return self._each(lambda values: values.to(device))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Draws":
        rest = (None if values is None else change(values) for values in (self.flip, self.height, self.width))
        return Draws(change(self.top), change(self.left), *rest)


def train_draws(config: Config, epoch: int, images: np.ndarray) -> Draws:
    """Draws for the images with these numbers (N,) in one pass over them (an epoch, unless that has several), uniform
    over all crops and both directions."""

    def draw(what: str) -> np.ndarray:
        return uniform(stream(what, config.seed, epoch), images)

    flip = torch.from_numpy(draw("flip") < 0.5) if "flip" in config.augment else None
    if config.augment == "resized_crop_flip":
        top, left, height, width = map(torch.from_numpy, _boxes(draw, config.dataset.side, len(images)))
        return Draws(top, left, flip, height, width)
    centre = centre_draws(config.dataset, len(images))
    if "crop" not in config.augment:
        return Draws(centre.top, centre.left, flip)
    offsets = config.dataset.side + 2 * config.dataset.pad - config.dataset.pixels + 1
    top, left = (torch.from_numpy((draw(what) * offsets).astype(np.int64)) for what in ("top", "left"))
    return Draws(top, left, flip)


def _boxes(draw: Callable[[str], np.ndarray], side: int, count: int) -> tuple[np.ndarray, ...]:
    """Top, left, height and width, int64 (N,) each, as torchvision's RandomResizedCrop draws them for square images:
    area and ratio are drawn up to ten times until the box fits; else it is the whole image."""
    height, width, fits = np.full(count, side), np.full(count, side), np.zeros(count, bool)
    for attempt in range(TRIES):
        area = side * side * (SCALE[0] + (SCALE[1] - SCALE[0]) * draw(f"area{attempt}"))
        ratio = np.exp(np.log(RATIO[0]) + (np.log(RATIO[1]) - np.log(RATIO[0])) * draw(f"ratio{attempt}"))
        w, h = np.rint(np.sqrt(area * ratio)).astype(np.int64), np.rint(np.sqrt(area / ratio)).astype(np.int64)
        now = ~fits & (w > 0) & (w <= side) & (h > 0) & (h <= side)
        height, width, fits = np.where(now, h, height), np.where(now, w, width), fits | now
    top, left = ((draw(what) * (side - size + 1)).astype(np.int64) for what, size in (("top", height), ("left", width)))
    return top, left, height, width


def centre_draws(dataset: Dataset, count: int) -> Draws:
    """The middle crop, not mirrored, as in every evaluation (torchvision's CenterCrop)."""
    gap = dataset.side - dataset.pixels  # negative: a crop of the padded image, which torchvision rounds otherwise
    middle = dataset.pad + (round(gap / 2) if gap > 0 else -(-gap // 2))
    at = torch.full((count,), middle, dtype=torch.int64)
    return Draws(at, at)


def crop_and_flip(images: torch.Tensor, draws: Draws, dataset: Dataset) -> torch.Tensor:
    """Crops of uint8 images (B, side, side, 3), padded and mirrored as drawn: uint8 (B, pixels, pixels, 3).

    The same gathers twice: torch's never make the host wait for a GPU, numpy's copy whole lines and take a fifth of
    the time on a CPU.
    """
    if draws.height is not None:
        return _resized(images, draws, dataset.pixels)
    if images.device.type == "cpu":
        return torch.from_numpy(_by_lines(images.numpy(), draws, dataset))
    return _by_index(images, draws, dataset)


def _by_index(images: torch.Tensor, draws: Draws, dataset: Dataset) -> torch.Tensor:
    pixels, pad = dataset.pixels, dataset.pad
    if pad:
        images = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
    windows = images.unfold(1, pixels, 1).unfold(2, pixels, 1)  # (B, tops, lefts, 3, pixels, pixels), a view
    crops = windows[torch.arange(len(images), device=images.device), draws.top, draws.left].permute(0, 2, 3, 1)
    if draws.flip is None:
        return crops
    return torch.where(draws.flip[:, None, None, None], crops.flip(2), crops)


def _by_lines(images: np.ndarray, draws: Draws, dataset: Dataset) -> np.ndarray:
    pixels, pad = dataset.pixels, dataset.pad
    if pad:
        side = images.shape[1] + 2 * pad
        inner, images = images, np.zeros((len(images), side, side, 3), np.uint8)
        images[:, pad:-pad, pad:-pad] = inner
    offsets, (image, line, column, byte) = images.shape[1] - pixels + 1, images.strides
    lines = as_strided(
        images, (len(images), offsets, offsets, pixels, 3 * pixels), (image, line, column, line, byte), writeable=False
    )  # a crop is `pixels` lines of 3 * pixels bytes each
    crops: np.ndarray = lines[np.arange(len(images)), draws.top.numpy(), draws.left.numpy()].reshape(
        -1, pixels, pixels, 3
    )
    if draws.flip is not None:
        turned = draws.flip.numpy().nonzero()[0]
        planes = torch.from_numpy(crops[turned]).permute(0, 3, 1, 2)  # torch mirrors channels-last images in one go
        crops[turned] = planes.flip(3).permute(0, 2, 3, 1).numpy()
    return crops


def _resized(images: torch.Tensor, draws: Draws, pixels: int) -> torch.Tensor:
    """Boxes resized to (pixels, pixels) and mirrored: two products with the weights of torch's bilinear interpolation
    with antialias, which torchvision's RandomResizedCrop uses on tensors."""
    assert draws.height is not None
    assert draws.width is not None
    side = images.shape[1]
    rows = _weights(draws.top, draws.height, side, pixels)  # (B, pixels, side)
    columns = _weights(draws.left, draws.width, side, pixels)
    if draws.flip is not None:
        columns = torch.where(draws.flip[:, None, None], columns.flip(1), columns)
    lines = torch.bmm(rows, images.flatten(2).float()).view(len(images), pixels, side, 3)
    crops = torch.einsum("bpsc,bqs->bpqc", lines, columns)
    return crops.round_().clamp_(0, 255).to(torch.uint8)


def _weights(start: torch.Tensor, size: torch.Tensor, side: int, pixels: int) -> torch.Tensor:
    """What each of `side` places contributes to each of `pixels` places of a resized interval: float32,
    (B, pixels, side).

    A triangle around the middle of each new place, as wide as one old place or one new place, whichever is more, cut at
    the ends of the interval.
    """
    scale = (size / pixels)[:, None, None]
    place = torch.arange(side, device=start.device)[None, None, :] + 0.5 - start[:, None, None]
    middle = (torch.arange(pixels, device=start.device)[None, :, None] + 0.5) * scale
    inside = (place > 0) & (place < size[:, None, None])
    weights = (1 - (place - middle).abs() / scale.clamp(min=1)).clamp_(min=0) * inside
    return weights / weights.sum(2, keepdim=True)


def normalize(images: torch.Tensor, dataset: Dataset) -> torch.Tensor:
    """uint8 (B, pixels, pixels, 3) to float32 (B, 3, pixels, pixels), channels last in memory; enlarged if the data set
    says so, after which it is (B, 3, upscale, upscale)."""
    lines = images.flatten(2).to(torch.float32)  # (B, pixels, 3 * pixels): long enough to fill vector registers
    values = (dataset.mean, dataset.std, (255.0,) * 3)
    mean, std, white = (_line(v, images.shape[2], images.device) for v in values)
    found = lines.div_(white).sub_(mean).div_(std).view(images.shape).permute(0, 3, 1, 2)
    if dataset.upscale:
        return torch.nn.functional.interpolate(found, size=(dataset.upscale, dataset.upscale), mode="bilinear")
    return found


@cache
def _line(values: tuple[float, ...], pixels: int, device: torch.device) -> torch.Tensor:
    """One value per channel, repeated for each pixel of a line, on the device once: copying would make it wait.

    255 is one, too: by a number CUDA does not divide, it multiplies by the rounded inverse.
    """
    return torch.tensor(values, dtype=torch.float32).repeat(pixels).to(device)
