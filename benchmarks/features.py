"""Eight heads on a frozen DenseNet-121 at 64 pixels: features computed once, or a whole forward pass in each epoch."""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.tables import Tables
from benchmarks.timing import alternating, ratio
from tlprotocols.config.compose import load
from tlprotocols.config.schema import Config
from tlprotocols.hardware import one_thread
from tlprotocols.images import source
from tlprotocols.planning.plan import resolved
from tlprotocols.training.run import execute

HEADS = ("null", "[64]", "[128]", "[256]", "[512]", "[512,64]", "[512,128]", "[512,256]")
IMAGES = ("dataset=glyphs", "dataset.side=64", "dataset.pixels=64", "classes=groups")
BODY = ("model=densenet121", "layers=0", "freeze=all", "freeze_random=true", "augment=none", "high_lr_layers=1")


def measure(full: bool = False, *, root: str | None = None, repetitions: int = 1) -> Tables:
    """Seconds of the eight runs in one process, 10 classes of 20 images (full: 50), 5 epochs."""
    one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        ways = {
            cached: _configs(scratch, f"n_per_class={50 if full else 20}", f"machine.cache_features={cached}")
            for cached in ("true", "false")
        }
        times = alternating({name: partial(_run, configs, scratch) for name, configs in ways.items()}, repetitions)
        losses = [[execute(config)["val_loss"] for config in configs] for configs in ways.values()]
    seconds = {name: round(median(found), 1) for name, found in times.items()}
    row = {"cached": seconds["true"], "not cached": seconds["false"], "ratio": round(ratio(times, "false", "true"), 1)}
    return {"features: seconds of 8 heads": [row | {"losses equal": str(losses[0] == losses[1])}]}


def _configs(scratch: str, *overrides: str) -> list[Config]:
    names = source(load(*IMAGES[:3]).dataset, Path(scratch)).classes[:11]
    classes = (f"classes.source=[{names[0]!r}]", f"classes.target=[{','.join(map(repr, names[1:]))}]")
    cached = overrides[-1].rpartition("=")[2]
    folders = (f"machine.image_cache={scratch}/images", f"results_dir={scratch}/{cached}")
    fixed = (*IMAGES, *classes, *BODY, *folders, "epochs=5", *overrides)
    return [resolved(load(*fixed, f"head={head}")) for head in HEADS]


def _run(configs: list[Config], scratch: str) -> None:
    for folder in (Path(configs[0].results_dir), *Path(scratch, "images").glob("features-*")):
        shutil.rmtree(folder, ignore_errors=True)
    for config in configs:
        execute(config)
