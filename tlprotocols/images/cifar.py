"""CIFAR-10 and CIFAR-100 in torchvision's formats."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tlprotocols.config.schema import Dataset
from tlprotocols.errors import ConfigError
from tlprotocols.images import Decoder, cut_validation


class Cifar:
    """The source of the store for torchvision's CIFAR archives: pickles, which torchvision checks by MD5."""

    def __init__(self, dataset: Dataset) -> None:
        """Read the archives, fetching them first if `dataset.download` says so."""
        from torchvision.datasets import CIFAR10, CIFAR100

        kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset.name]
        root = Path(dataset.root or "").expanduser()
        if dataset.root is None or not (root.is_dir() or dataset.download):
            need = f"is needed: the folder that holds {kind.base_folder}/; dataset.download=true fetches it there"
            raise ConfigError("dataset.root", dataset.root, need)
        try:
            parts = {
                part: kind(str(root), train=part == "train", download=dataset.download) for part in ("train", "val")
            }
        except RuntimeError as error:
            need = f"must hold an intact {kind.base_folder}/ ({error}); dataset.download=true fetches it"
            raise ConfigError("dataset.root", dataset.root, need) from error
        self.classes = tuple(parts["train"].classes)
        whole = np.concatenate([np.asarray(archive.data) for archive in parts.values()])
        self.data = np.ascontiguousarray(whole)  # torchvision's is a transposed view
        labels, first = {part: np.asarray(archive.targets) for part, archive in parts.items()}, len(parts["train"])
        self.rows: dict[str, list[np.ndarray]] = {
            part: [np.flatnonzero(found == label) + (part == "val") * first for label in range(len(self.classes))]
            for part, found in labels.items()
        }
        if dataset.val_from_train:
            self.rows = cut_validation(dataset, self.classes, self.rows)
        self.counts = {part: tuple(map(len, rows)) for part, rows in self.rows.items()}
        self.fingerprint = hashlib.sha256(f"{dataset.name} {self.counts}".encode()).hexdigest()

    unread = 0  # images: the content is known

    def read(self, advance: Callable[[int], None]) -> None:
        """Nothing is left to read."""

    def decoder(self, part: str, label: int) -> Decoder:
        """What reads one class, in the archive's order."""
        return partial(resized, self.data[self.rows[part][label]])


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Images uint8 (count, any, any, 3) as (count, side, side, 3)."""
    if side == images.shape[1]:
        return images
    return np.stack([np.asarray(Image.fromarray(x).resize((side, side), Image.Resampling.BILINEAR)) for x in images])
