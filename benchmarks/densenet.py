"""DenseNet-121 with a new head: seconds of an epoch and peak memory of the conditions of George (2021), as ratios."""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.tables import Row, Tables
from benchmarks.timing import Times, alternating
from tlprotocols.config.compose import load
from tlprotocols.config.schema import Config
from tlprotocols.hardware import one_thread
from tlprotocols.images import source
from tlprotocols.planning.plan import resolved
from tlprotocols.training.run import execute

LARGE, NATIVE = "dataset.upscale=224", "dataset.upscale=0"
FROZEN, LEARNING, LAST = "freeze=all", "freeze=0", "freeze=all-1"
NOT_CACHED = "machine.cache_features=false"
CONDITIONS = {
    "(a) frozen, features cached, 224": (LARGE, FROZEN),
    "(a) frozen, not cached, 224": (LARGE, FROZEN, NOT_CACHED),
    "(g) frozen, random crops, 224": (LARGE, FROZEN, "augment=resized_crop_flip"),
    "(j) last block learns, 224": (LARGE, LAST),
    "(h) all layers learn, 224": (LARGE, LEARNING),
    "(e) frozen, features cached, 32": (NATIVE, FROZEN),
    "(e) frozen, not cached, 32": (NATIVE, FROZEN, NOT_CACHED),
    "(j) last block learns, 32": (NATIVE, LAST),
    "(i) all layers learn, 32": (NATIVE, LEARNING),
}
RATIOS = (  # one over the other, and what the text prints of it
    ("(h) all layers learn, 224", "(a) frozen, not cached, 224", "40 or 100"),
    ("(i) all layers learn, 32", "(e) frozen, not cached, 32", "10"),
    ("(a) frozen, not cached, 224", "(e) frozen, not cached, 32", "up to 10"),
    ("(g) frozen, random crops, 224", "(a) frozen, not cached, 224", "2"),
    ("(a) frozen, not cached, 224", "(a) frozen, features cached, 224", ""),
    ("(h) all layers learn, 224", "(a) frozen, features cached, 224", ""),
    ("(g) frozen, random crops, 224", "(a) frozen, features cached, 224", ""),
)
IMAGES = ("dataset=glyphs", "recipe=densenet_transfer", "dataset.val_per_class=1", "dataset.val_from_train=false")
BODY = ("classes=groups", "layers=0", "freeze_random=true", "head=[512,128]", "batch_size=32")
EACH_EPOCH = ("stop_after=0", "curve=true")  # never stopped early, evaluated after each epoch
# epochs of two runs: loading, building and the features are in both, not in the difference
FEW, MANY, MANY_CACHED = 1, 3, 2001


def measure(full: bool = False, *, root: str | None = None, repetitions: int = 1) -> Tables:
    """Seconds of an epoch, its evaluation included: 100 training images (full: 500), 10 for validation, 10 classes."""
    one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        classes = _classes(scratch)
        configs = {
            (name, epochs): _config(scratch, *classes, *chosen, f"n_per_class={50 if full else 10}", f"epochs={epochs}")
            for name, chosen in CONDITIONS.items()
            for epochs in (FEW, _many(name))
        }
        peaks = {name: execute(configs[name, FEW])["peak_memory_mb"] for name in CONDITIONS}  # the warm round
        ways = {str(key): partial(_run, config, scratch) for key, config in configs.items()}
        times = _of_an_epoch(alternating(ways, repetitions, warm=False))
    return {
        "densenet: an epoch with its evaluation": [_row(name, times, peaks) for name in CONDITIONS],
        "densenet: ratios of seconds": [
            {"what": f"{one} / {other}", "ratio": _ratio(times, one, other), "printed": printed}
            for one, other, printed in RATIOS
        ],
    }


def _classes(scratch: str) -> tuple[str, str]:
    names = source(load(*IMAGES).dataset, Path(scratch)).classes[:11]
    return f"classes.source=[{names[0]!r}]", f"classes.target=[{','.join(map(repr, names[1:]))}]"


def _config(scratch: str, *overrides: str) -> Config:
    folders = (f"machine.image_cache={scratch}/images", f"results_dir={scratch}/results")
    return resolved(load(*IMAGES, *BODY, *EACH_EPOCH, *folders, *overrides))


def _run(config: Config, scratch: str) -> None:
    for folder in (Path(config.results_dir), *Path(scratch, "images").glob("features-*")):
        shutil.rmtree(folder, ignore_errors=True)
    execute(config)


def _many(name: str) -> int:
    return MANY_CACHED if "features cached" in name else MANY


def _of_an_epoch(times: Times) -> Times:
    found: Times = {}
    for name in CONDITIONS:
        rounds = zip(times[str((name, FEW))], times[str((name, _many(name)))], strict=True)
        found[name] = [(long - short) / (_many(name) - FEW) for short, long in rounds]
    return found


def _row(name: str, times: Times, peaks: dict[str, float]) -> Row:
    return {"condition": name, "seconds": float(f"{median(times[name]):.3g}"), "peak memory, MB": round(peaks[name])}


def _ratio(times: Times, one: str, other: str) -> float:
    return float(f"{median(a / b for a, b in zip(times[one], times[other], strict=True)):.3g}")
