"""Where images come from. Each source lists its classes and counts and says how one class is read; the store
decodes them once, whatever the source."""

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np

from tlprotocols.schema import Dataset

Reader = Callable[[int], np.ndarray]  # side -> all images of one class in file order, uint8 (count, side, side, 3)


class Source(Protocol):
    """What the store asks of a data set."""

    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]  # images by part ("train", "val") and label
    fingerprint: str  # changes whenever classes or images do

    def reader(self, part: str, label: int) -> Reader:
        """What reads one class, in whatever process: it carries that class alone, not a list of a million files."""


@cache
def source(dataset: Dataset) -> Source:
    """The source that `dataset` names, listed once per process. Raises ConfigError if the images are not there."""
    if dataset.name == "glyphs":
        from tlprotocols.datasets.glyphs import Glyphs

        return Glyphs()
    if dataset.name in ("cifar10", "cifar100"):
        from tlprotocols.datasets.cifar import Cifar

        return Cifar(dataset)
    from tlprotocols.datasets.folders import ImageFiles

    return ImageFiles(dataset)
