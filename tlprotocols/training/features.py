"""What the last stage gets, computed once where all other stages are frozen, and shared by all runs of a sweep.

A folder per body and kind of images lies beside the image cache. It holds for each part `train.features`, rows (F,) as
the image cache has images, and `train.crc32`, a checksum per image, which is 0 where none was computed yet. Features of
an image depend neither on its batch nor on other images: they have the same bits as without the cache.
"""

import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from tlprotocols.config.identity import factors
from tlprotocols.config.schema import Config
from tlprotocols.hardware import device_name
from tlprotocols.images.augment import centre_draws, normalize
from tlprotocols.images.cache import CHECKSUM, ImageCache
from tlprotocols.images.splits import part_of
from tlprotocols.training.loop import Images, at_once, cut
from tlprotocols.training.models import Network
from tlprotocols.training.shards import arithmetic


def features(net: Network, config: Config, parts: dict[str, Images]) -> dict[str, Images]:
    """What the last stage gets of these images, by part. `net` is on the device of the images."""
    net.eval()
    folder = Path(config.machine.image_cache).expanduser() / f"features-{_digest(net, config, parts)}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        counts = ImageCache.of(config).index["counts"]
        return {
            part: _features(net, config, images, folder / str(part_of(config, part, counts)))
            for part, images in parts.items()
        }


def _features(net: Network, config: Config, images: Images, path: Path) -> Images:
    """The features of one part; those that are missing or damaged are computed."""
    units = next(module for module in net.head.modules() if isinstance(module, nn.Linear)).in_features
    count = int(images.rows.max()) + 1
    stored, sums = path.with_suffix(".features"), path.with_suffix(".crc32")
    assert net.features_as is not None
    bits = np.dtype(f"u{net.features_as.itemsize}")  # numpy has no bfloat16
    for file, size in ((stored, count * units * bits.itemsize), (sums, count * CHECKSUM.itemsize)):
        with open(file, "ab") as opened:
            os.truncate(opened.fileno(), max(size, opened.tell()))
    rows = np.memmap(stored, bits, "r+", shape=(count, units))
    kept = np.memmap(sums, CHECKSUM, "r+", shape=(count,))
    todo = np.array([i for i, row in enumerate(images.rows.tolist()) if kept[row] != _checksum(rows[row])], np.int64)
    draws = centre_draws(config.dataset, at_once(config.dataset)).to(images.device)
    for start in range(0, len(todo), at_once(config.dataset)):
        places = torch.from_numpy(todo[start : start + at_once(config.dataset)])
        batch, _ = images[places.to(images.labels.device)]
        pixels = normalize(cut(batch, draws[: len(places)], config), config.dataset)
        with arithmetic(config, images.device):
            found = net.features(pixels).cpu()
        at = images.rows[places.numpy()]
        rows[at] = found.view(getattr(torch, f"uint{8 * bits.itemsize}")).numpy()
        kept[at] = [_checksum(row) for row in rows[at]]
    tensor = torch.from_numpy(np.memmap(stored, bits, "c", shape=(count, units))).view(net.features_as)
    return Images(tensor, images.rows, images.labels.cpu(), images.device).on_device()


def _checksum(row: np.ndarray) -> int:
    """CRC-32 of an image's features, never 0."""
    return zlib.crc32(row.data) or 1


def _digest(net: Network, config: Config, parts: dict[str, Images]) -> str:
    """Of all that features depend on: weights of the body, images and their preparation, arithmetic, machine."""
    known = {key: value for key, value in factors(config).items() if key.split(".")[0] in ("dataset", "model")}
    where = device_name(next(iter(parts.values())).device.type)
    content = known | {"precision": config.precision, "device": where, "torch": torch.__version__}
    sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, value in net.body.state_dict().items():
        sha.update(f"{name} {tuple(value.shape)}".encode())
        sha.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
