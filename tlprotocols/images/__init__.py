"""Where images come from. Each source lists its classes and counts and says how one class is decoded; the cache
decodes them once, whatever the source."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tlprotocols.config.schema import Dataset
from tlprotocols.errors import ConfigError

Decoder = Callable[[int], np.ndarray]  # side -> all images of one class in file order, uint8 (count, side, side, 3)


class Source(Protocol):
    """What the image cache needs of a data set."""

    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]  # images by part ("train", "val") and label

    @property
    def fingerprint(self) -> str:
        """Differs whenever classes, or the content of images, differ. Hexadecimal."""

    @property
    def unread(self) -> int:
        """Images whose content must still be read before the fingerprint is known."""

    def read(self, advance: Callable[[int], None]) -> None:
        """Read that content. `advance` receives numbers of images."""

    def decoder(self, part: str, label: int) -> Decoder:
        """What decodes one class, in whatever process: it carries that class alone, not a list of a million files."""


def source(dataset: Dataset, image_cache: str | Path, key: str = "dataset") -> Source:
    """The source that `dataset` names, listed once per process; `image_cache` keeps what is known of its content. `key`
    is that of the data set, for messages.

    Raises:
        ConfigError: the images are not there.
    """
    try:
        return _listed(replace(dataset, fingerprint=""), Path(image_cache).expanduser())
    except ConfigError as error:
        wrong, value, legal = error.args
        raise ConfigError(wrong.replace("dataset", key, 1), value, legal) from error


def cut_validation(
    dataset: Dataset, classes: Sequence[str], parts: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """The parts with `dataset.val_from_train`: the last `val_per_class` training images of each class are for
    validation, and the data set's own held-out images are for testing. A part has a list or an array per class.

    Raises:
        ConfigError: it has validation and test images already, or some class has too few training images.
    """
    if "test" in parts:
        raise ConfigError("dataset.val_from_train", True, "must be false: this data set has val/ and test/")
    held = dataset.val_per_class
    for name, images in zip(classes, parts["train"], strict=True):
        if len(images) <= held:
            raise ConfigError("dataset.val_per_class", held, f"must be below {len(images)}, the images of class {name}")
    train = parts["train"]
    return {"train": [x[:-held] for x in train], "val": [x[-held:] for x in train], "test": list(parts["val"])}


def forget() -> None:
    """List the images anew at the next call: they may have changed since."""
    _listed.cache_clear()


@functools.cache
def _listed(dataset: Dataset, image_cache: Path) -> Source:
    if dataset.name == "glyphs":
        if dataset.val_from_train:
            raise ConfigError(
                "dataset.val_from_train", True, "must be false for glyphs; test_per_class=K keeps test images"
            )
        from tlprotocols.images.glyphs import Glyphs

        return Glyphs()
    if dataset.name in ("cifar10", "cifar100"):
        from tlprotocols.images.cifar import Cifar

        return Cifar(dataset)
    from tlprotocols.images.folders import ImageFiles

    return ImageFiles(dataset, image_cache)
