"""The probabilities that a trained network gives images: those of its validation and test parts, or any others."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tlprotocols.config.schema import Config
from tlprotocols.images.augment import centre_draws
from tlprotocols.images.cache import ImageCache
from tlprotocols.images.folders import ImageFiles
from tlprotocols.images.splits import part_of, target_classes
from tlprotocols.records import write_atomic
from tlprotocols.training.loop import Images, at_once, cut
from tlprotocols.training.models import Network
from tlprotocols.training.shards import logits


@torch.no_grad()
def probabilities(net: Network, config: Config, images: Images) -> np.ndarray:
    """Probabilities (N, classes), float32, on the middle crops, dropout off: of the same logits as the accuracy."""
    net.eval()
    draws, found = centre_draws(config.dataset, len(images)).to(images.device), []
    several = at_once(config.dataset)
    for start in range(0, len(images), several):
        which = slice(start, start + several)
        answers = logits(net, cut(images[which][0], draws[which], config), config)
        found.append(answers.softmax(1).cpu())
    return torch.cat(found).numpy()


def save(path: Path, net: Network, config: Config, parts: dict[str, Images]) -> None:
    """Write a table with a row per image of these parts: `part`, `image`, `class`, `predicted`, and `probabilities`, a
    list in the order of the target classes in classes.json."""
    cache = ImageCache.of(config)
    names = np.array([cache.classes[label] for label in target_classes(config, cache.classes)], dtype=object)
    tables = []
    for part, images in parts.items():
        found = probabilities(net, config, images)
        columns: dict[str, Any] = {"part": part, "image": image_names(config, cache, part, images)}
        columns |= {"class": names[images.labels.cpu().numpy()], "predicted": names[found.argmax(1)]}
        tables.append(pd.DataFrame(columns).assign(probabilities=list(found)))
    content = io.BytesIO()
    pd.concat(tables, ignore_index=True).to_parquet(content, index=False)
    write_atomic(path, content.getvalue())


def image_names(config: Config, cache: ImageCache, part: str, images: Images) -> list[str]:
    """The file of each image, relative to the root; of images that are no files, class and number."""
    kept = str(part_of(config, part, cache.index["counts"]))
    offsets = cache.offsets(kept)
    labels = np.searchsorted(offsets, images.rows, side="right") - 1
    places = [(int(label), int(row - offsets[label])) for label, row in zip(labels, images.rows, strict=True)]
    if isinstance(cache.source, ImageFiles):
        root, files = cache.source.root, cache.source.files[kept]
        return [str(Path(files[label][place]).relative_to(root)) for label, place in places]
    return [f"{kept}/{cache.classes[label]}/{place}" for label, place in places]
