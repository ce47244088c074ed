"""Images/s into the network's input from our store against torchvision's loader; building, sharing and opening it."""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.decode import decode
from benchmarks.pictures import jpegs
from benchmarks.tables import Row, Tables
from benchmarks.timing import alternating, ratio
from tlprotocols.config.compose import load
from tlprotocols.config.schema import Config
from tlprotocols.hardware import cores
from tlprotocols.images.augment import crop_and_flip, normalize, train_draws
from tlprotocols.images.cache import ImageCache
from tlprotocols.images.folders import ImageFiles
from tlprotocols.planning.plan import resolved
from tlprotocols.training.loop import Images


def measure(full: bool = False, *, root: str | None = None, classes: int = 40, repetitions: int = 5) -> Tables:
    """Loading, building, sharing, on JPEGs of 64 pixels."""
    with tempfile.TemporaryDirectory() as scratch:
        config = resolved(jpegs(root, Path(scratch), classes, Path(scratch) / "store"))
        files = _files(config)
        labels = range(min(len(files.classes), classes * (5 if full else 1)))
        building = [_building(config, labels, min(repetitions, 3))]
        pictures = f"dataset.root={_enlarged(config, Path(scratch) / 'large', classes)}"
        large = load("dataset=folder", pictures, "dataset.side=256", "dataset.pixels=64", "layers=0", "classes=all")
        large = resolved(replace(large, machine=config.machine))
        building.append(_building(large, range(min(classes, 8)), min(repetitions, 3)))
        ImageCache.of(config).ensure([("train", label) for label in labels], cores())
        return {
            "data: images/s into the network's input, one training process": _loading(config, labels, repetitions),
            "data: decoding into the store against decoding alone": building,
            "data: worker processes that share the store": _sharing(config, len(labels)),
        }


def _files(config: Config) -> ImageFiles:
    source = ImageCache.of(config).source
    assert isinstance(source, ImageFiles)
    return source


def _loading(config: Config, labels: range, repetitions: int) -> list[Row]:
    data, store = config.dataset, ImageCache.of(config)
    rows = np.arange(int(store.offsets("train")[len(labels)]))
    images = Images(torch.from_numpy(store.rows("train")), rows, torch.zeros(len(rows), dtype=torch.int64), CPU)
    prepare = transforms.Compose(
        [
            *(transforms.RandomCrop(data.pixels), transforms.RandomHorizontalFlip(), transforms.ToTensor()),
            transforms.Normalize(data.mean, data.std),
        ]
    )
    folder = ImageFolder(str(_files(config).root / "train"), prepare)
    subset = Subset(folder, [i for i, label in enumerate(folder.targets) if label < len(labels)])

    def ours() -> None:
        order = np.random.permutation(len(rows))
        draws, places = train_draws(config, 0, rows[order]), torch.from_numpy(order)
        for start in range(0, len(rows), config.batch_size):
            batch = slice(start, start + config.batch_size)
            normalize(crop_and_flip(images[places[batch]][0], draws[batch], data), data)

    def loader(workers: int) -> DataLoader:
        return DataLoader(subset, config.batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    loaders = {f"DataLoader, {workers} workers": loader(workers) for workers in (0, 1, 2)}
    ways = {name: lambda loader=loader: sum(1 for _ in loader) for name, loader in loaders.items()}
    times = alternating(ways | {"our store": ours}, repetitions)
    found = []
    for name, seconds in times.items():
        rate = len(rows) / sorted(seconds)[len(seconds) // 2]
        found.append({"way": name, "images/s": rate, "ours is faster by": round(ratio(times, name, "our store"), 1)})
    return found


CPU = torch.device("cpu")
LARGE = (500, 375)


def _enlarged(config: Config, root: Path, classes: int, count: int = 50) -> Path:
    """Some of the same images as JPEGs of ILSVRC's usual size."""
    files = _files(config)
    for part in ("train", "val"):
        for label in range(min(classes, 8)):
            folder = root / part / files.classes[label]
            folder.mkdir(parents=True)
            for number, file in enumerate(files.files[part][label][:count]):
                with Image.open(file) as picture:
                    picture.convert("RGB").resize(LARGE).save(folder / f"{number:03}.jpg", quality=95)
    return root


def _building(config: Config, labels: range, repetitions: int) -> Row:
    """The same classes by the same number of fresh processes: with the store, and decoded and thrown away."""
    files, workers, jobs = _files(config), cores(), [("train", label) for label in labels]
    fresh = iter(range(repetitions + 1))
    with Image.open(files.files["train"][0][0]) as picture:
        size = f"{picture.width} x {picture.height}"

    def build() -> None:
        store = ImageCache(config.dataset, ImageCache.of(config).folder.with_name(f"{size}-{next(fresh)}"))
        store.ensure(jobs, workers)

    def only_decode() -> None:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            list(pool.map(decode, [(files.files["train"][label], config.dataset.side) for label in labels]))

    times = alternating({"store": build, "decoding": only_decode}, repetitions, warm=repetitions > 1)
    count = sum(files.counts["train"][label] for label in labels)
    middle = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in times.items()}
    return {
        "pictures": size,
        "side": config.dataset.side,
        "processes": workers,
        "images": count,
        "store images/s": count / middle["store"],
        "decoding images/s": count / middle["decoding"],
        "store / decoding rate": round(ratio(times, "decoding", "store"), 2),
    }


def _use_store(pipe: Connection, config: Config, classes: int) -> None:
    """In a worker: open the store, read every image, say what that holds in memory."""
    begun = time.perf_counter()
    store = ImageCache.of(config)
    rows = torch.from_numpy(store.rows("train"))[: store.offsets("train")[classes]]
    opened = time.perf_counter() - begun
    assert int(rows.sum(dtype=torch.int64)) > 0
    pipe.send(opened)
    pipe.recv()  # all have read everything by now
    mapped = sum(pss for name, pss in _mappings() if name.endswith("train.u8"))
    pipe.send((mapped, _rollup()))
    pipe.recv()


def _mappings() -> Iterator[tuple[str, int]]:
    """Proportional share, in bytes, of every mapping of this process."""
    name = ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            name = words[-1]
        elif words[0] == "Pss:":
            yield name, 1024 * int(words[1])


def _rollup() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _sharing(config: Config, classes: int) -> list[Row]:
    found = []
    size = os.stat(ImageCache.of(config).folder / "train.u8").st_blocks * 512
    for count in (1, 2):
        context, begun = get_context("spawn"), time.perf_counter()
        pipes, processes = [], []
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_use_store, args=(there, config, classes))
            process.start()
            pipes.append(here)
            processes.append(process)
        opened = max(pipe.recv() for pipe in pipes)
        ready = time.perf_counter() - begun
        for pipe in pipes:
            pipe.send(None)
        memory = [pipe.recv() for pipe in pipes]
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join()
        found.append(
            {
                "workers": count,
                "seconds until all have read all": ready,
                "of it opening the store": opened,
                "store on disk, MB": size / 1e6,
                "store in memory, MB": sum(mapped for mapped, _ in memory) / 1e6,
                "copies": round(sum(mapped for mapped, _ in memory) / size, 2),
                "all memory, MB": sum(whole for _, whole in memory) / 1e6,
            }
        )
    return found
