"""DenseNet-BC by variant: peak memory and time of an update, one thread, beside the printed numbers of the text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.tables import Row, Tables
from benchmarks.timing import alternating, ratio
from tlprotocols.config.compose import load
from tlprotocols.config.schema import Config
from tlprotocols.hardware import one_thread
from tlprotocols.images.augment import centre_draws
from tlprotocols.training import models, optimizers
from tlprotocols.training.loop import Images, cut
from tlprotocols.training.memory import peak_memory_mb
from tlprotocols.training.shards import Gradient

A, B, C = "model.drop_channel=before_bn", "model.se=true", "model.checkpoint=true"
VARIANTS = {"Vanilla": [], "A": [A], "B": [B], "A+B": [A, B], "A+B+C": [A, B, C]}
READINGS = {"no dropout": ["dropout=0"], "A before convolutions": ["model.drop_channel=before_conv"]}
CLASSES = 100
PUBLISHED = Path(__file__).parents[1] / "analysis" / "hybrid_densenet" / "published.csv"
MEMORY, TIME = "peak memory", "training time minutes"


def measure(full: bool = False, *, root: str | None = None, repetitions: int = 5) -> Tables:
    """Peak memory in both precisions, and time ratios: every round goes through all variants."""
    one_thread()
    size = ["model.depth=100", "batch_size=64"] if full else ["model.depth=22", "batch_size=16"]
    configs = {name: _config(size, chosen) for name, chosen in (VARIANTS | READINGS).items()}
    peaks = {
        precision: {name: _peak(_config(size, [*chosen, f"precision={precision}"])) for name, chosen in which.items()}
        for precision, which in (("fp32", VARIANTS | READINGS), ("bf16", VARIANTS | READINGS))
    }
    times = alternating({name: _update(configs[name]) for name in VARIANTS}, repetitions)
    at = f"depth {configs['A'].model.depth}, batch {configs['A'].batch_size}"
    return {
        f"hybrid: peak memory of an update, MB, {at}": [_memory(name, peaks) for name in VARIANTS | READINGS],
        f"hybrid: time of an update, fp32, {at}": [_time(name, times) for name in VARIANTS],
        f"hybrid: checkpointing, A+B+C over A+B, {at}": [
            {
                "what": "peak memory, fp32",
                "ratio": _round(peaks["fp32"]["A+B+C"] / peaks["fp32"]["A+B"]),
                "printed, CIFAR-100": _printed(MEMORY, "A+B+C", "A+B"),
            },
            {
                "what": "peak memory, bf16",
                "ratio": _round(peaks["bf16"]["A+B+C"] / peaks["bf16"]["A+B"]),
                "printed, CIFAR-100": _printed(MEMORY, "A+B+C", "A+B"),
            },
            {
                "what": "time, fp32",
                "ratio": _round(ratio(times, "A+B+C", "A+B")),
                "printed, CIFAR-100": _printed(TIME, "A+B+C", "A+B"),
            },
        ],
    }


def _config(size: list[str], chosen: list[str]) -> Config:
    recipe = ["dataset=cifar100", "recipe=hybrid_densenet", "layers=0", "high_lr_layers=all"]
    return load(*recipe, *size, *chosen)


def _images(config: Config) -> Images:
    draw = torch.Generator().manual_seed(0)
    count, side = config.batch_size, config.dataset.side
    stored = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=draw)
    return Images(stored, np.arange(count), torch.arange(count) % CLASSES, torch.device("cpu"))


def _network(config: Config) -> models.Network:
    return models.build(config, CLASSES).to(memory_format=torch.channels_last)


def _peak(config: Config) -> float:
    return peak_memory_mb(_network(config), config, _images(config))


def _update(config: Config) -> Callable[[], object]:
    """One update of one network, again and again."""
    net, images = _network(config), _images(config)
    optimizer = optimizers.optimizer(net, config)
    batch, labels = images[slice(None)]
    crops = cut(batch, centre_draws(config.dataset, len(labels)), config)
    learn: Any = Gradient(net, config, images.device)
    learn.begin(0)

    def update() -> None:
        learn(crops, labels)
        optimizer.step()

    return update


def _memory(name: str, peaks: dict[str, dict[str, float]]) -> Row:
    known = _table(MEMORY, "CIFAR-100")
    return {
        "variant": name,
        **{precision: round(found[name]) for precision, found in peaks.items()},
        "printed, CIFAR-100": round(known[name]) if name in known else "",
        **{f"{precision} over Vanilla": _round(found[name] / found["Vanilla"]) for precision, found in peaks.items()},
        "printed over Vanilla": _printed(MEMORY, name, "Vanilla"),
    }


def _time(name: str, times: dict[str, list[float]]) -> Row:
    return {
        "variant": name,
        "seconds": _round(float(np.median(times[name]))),
        "over Vanilla": _round(ratio(times, name, "Vanilla")),
        "printed, CIFAR-100": _printed(TIME, name, "Vanilla"),
        "printed, Tiny ImageNet": _printed(TIME, name, "Vanilla", "Tiny ImageNet"),
    }


def _printed(metric: str, one: str, other: str, dataset: str = "CIFAR-100") -> object:
    known = _table(metric, dataset)
    return known[one] / known[other] if one in known else ""


def _table(metric: str, dataset: str) -> dict[str, float]:
    """A line of the text's Table 1 or 2, by variant."""
    numbers = pd.read_csv(PUBLISHED).query("metric == @metric and dataset == @dataset")
    return dict(zip(numbers["variant"], numbers["value"].astype(float), strict=True))


def _round(value: float) -> float:
    return round(float(value), 3)
