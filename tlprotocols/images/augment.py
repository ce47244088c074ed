"""From stored uint8 images to what a network sees: crop and flip as gathers, then scale, mean and deviation.

Draws are keyed by (seed, epoch, image): they depend neither on the batch, nor on the order, nor on other images.
Given the same draws, every value equals torchvision's RandomCrop, RandomHorizontalFlip, ToTensor and Normalize bit
for bit.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided

from tlprotocols.config.schema import Config, Dataset
from tlprotocols.randomness import stream, uniform


@dataclass(frozen=True)
class Draws:
    """One (top, left, mirrored) per image: int64 (N,), int64 (N,), bool (N,) or None where nothing is mirrored."""

    top: torch.Tensor
    left: torch.Tensor
    flip: torch.Tensor | None

    def __getitem__(self, which: slice) -> "Draws":
        return Draws(self.top[which], self.left[which], None if self.flip is None else self.flip[which])

    def to(self, device: torch.device) -> "Draws":
        """The same draws on another device."""
        flip = None if self.flip is None else self.flip.to(device)
        return Draws(self.top.to(device), self.left.to(device), flip)


def train_draws(config: Config, epoch: int, images: np.ndarray) -> Draws:
    """Draws for the images with these numbers (N,) in one epoch, uniform over all crops and both directions."""
    centre = centre_draws(config.dataset, len(images))
    offsets = config.dataset.side + 2 * config.dataset.pad - config.dataset.pixels + 1
    top, left, flip = (uniform(stream(what, config.seed, epoch), images) for what in ("top", "left", "flip"))
    crops, flips = "crop" in config.augment, "flip" in config.augment
    return Draws(
        torch.from_numpy((top * offsets).astype(np.int64)) if crops else centre.top,
        torch.from_numpy((left * offsets).astype(np.int64)) if crops else centre.left,
        torch.from_numpy(flip < 0.5) if flips else None,
    )


def centre_draws(dataset: Dataset, count: int) -> Draws:
    """The middle crop, not mirrored, as in every evaluation (torchvision's CenterCrop)."""
    gap = dataset.side - dataset.pixels  # negative: a crop of the padded image, which torchvision rounds otherwise
    middle = dataset.pad + (round(gap / 2) if gap > 0 else -(-gap // 2))
    at = torch.full((count,), middle, dtype=torch.int64)
    return Draws(at, at, None)


def crop_and_flip(images: torch.Tensor, draws: Draws, dataset: Dataset) -> torch.Tensor:
    """Crops of uint8 images (B, side, side, 3), padded and mirrored as drawn: uint8 (B, pixels, pixels, 3).

    The same gathers twice: torch's never make the host wait for a GPU, numpy's copy whole lines and take a fifth of
    the time on a CPU.
    """
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


def normalize(images: torch.Tensor, dataset: Dataset) -> torch.Tensor:
    """uint8 (B, pixels, pixels, 3) to float32 (B, 3, pixels, pixels), channels last in memory."""
    lines = images.flatten(2).to(torch.float32)  # (B, pixels, 3 * pixels): long enough to fill vector registers
    values = (dataset.mean, dataset.std, (255.0,) * 3)
    mean, std, white = (_line(v, images.shape[2], images.device) for v in values)
    return lines.div_(white).sub_(mean).div_(std).view(images.shape).permute(0, 3, 1, 2)


@cache
def _line(values: tuple[float, ...], pixels: int, device: torch.device) -> torch.Tensor:
    """One value per channel, repeated for each pixel of a line, on the device once: copying would make it wait.

    255 is one, too: by a number CUDA does not divide, it multiplies by the rounded inverse.
    """
    return torch.tensor(values, dtype=torch.float32).repeat(pixels).to(device)
