"""Where images come from. Each source lists its classes and counts and yields the images of one class; the store
decodes them once, whatever the source."""

from functools import cache
from typing import Protocol

import numpy as np

from tlprotocols.schema import Dataset


class Source(Protocol):
    """What the store asks of a data set."""

    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]  # images by part ("train", "val") and label
    fingerprint: str  # changes whenever classes or images do

    def images(self, part: str, label: int, side: int) -> np.ndarray:
        """All images of one class in file order: uint8 (count, side, side, 3)."""


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
