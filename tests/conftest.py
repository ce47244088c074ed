"""A data set of coloured shapes, small enough to train on in a second, and configurations that use it."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: here, and in the processes that tests start
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image, ImageDraw

from tlprotocols.config.compose import composer
from tlprotocols.config.schema import Config
from tlprotocols.images.cache import ImageCache
from tlprotocols.planning.plan import resolved

settings.register_profile("repeatable", derandomize=True, deadline=None)  # a test fails every time or never
settings.load_profile("repeatable")
torch.set_num_threads(1)  # two threads wait for each other, ten times as long where another process has a core
ROOT = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # not another copy
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")
COLOURS = ("red", "green", "blue", "yellow", "cyan", "magenta", "white", "orange")
TRAIN, VAL = 12, 4


@pytest.hookimpl(tryfirst=True)  # before -m chooses by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fast ones first; those of analysis/ have its marker."""
    for item in items:
        if item.path.name.startswith("test_analysis"):
            item.add_marker("analysis")
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """Torch's settings of the process are the same after each test: a flushed denormal breaks hypothesis' floats."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)


def shape(label: int, number: int) -> Image.Image:
    """A picture of one class: its colour and its shape, of varying size and place."""
    draw = np.random.RandomState([label, number])
    width, height = (int(n) for n in draw.randint(16, 41, 2))
    picture = Image.new("RGB", (width, height), tuple(int(c) for c in draw.randint(0, 80, 3)))
    left, top = (int(n) for n in draw.randint(1, 5, 2))
    box = (left, top, width - left, height - top)
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if label % 2 else pen.rectangle)(box, fill=COLOURS[label])
    return picture


def make_folder(root: Path, classes: tuple[str, ...] = CLASSES, train: int = TRAIN, val: int = VAL) -> Path:
    """A tree of train/CLASS and val/CLASS."""
    for label, name in enumerate(classes):
        for part, count in (("train", train), ("val", val)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                shape(label, number + 1000 * (part == "val")).save(root / part / name / f"{number:03}.png")
    return root


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes of twelve training and four validation images, as an ImageFolder tree."""
    return make_folder(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def make_shapes() -> Callable[..., Path]:
    """Makes another such tree, to be damaged."""
    return make_folder


@pytest.fixture(scope="session")
def composed() -> Callable[..., Config]:
    """Overrides to a configuration, as the command line composes it, images not looked at."""
    compose = composer()
    return lambda *overrides: compose(overrides)


@pytest.fixture(scope="session")
def plain(composed: Callable[..., Config]) -> Callable[..., Config]:
    """Overrides to a configuration that is the same on every machine: made-up images, arithmetic in fp32."""

    def made(*overrides: str) -> Config:
        config = composed("precision=fp32", "base.precision=fp32", *overrides)
        return dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, fingerprint="0123456789abcdef"))

    return made


@pytest.fixture(scope="session")
def tiny(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a run on the shapes that takes a fraction of a second."""
    store = tmp_path_factory.mktemp("store")
    small = ["dataset.side=16", "dataset.pixels=16", "dataset.pad=2", "model.width=0.1", "n_per_class=4"]
    short = ("epochs=2", "epoch_updates=0", "batch_size=16", "precision=fp32")
    train = [f"{base}{value}" for base in ("", "base.") for value in short]
    machine = [f"machine.image_cache={store}", "machine.device=cpu"]
    return ["dataset=folder", f"dataset.root={shapes}", *small, *train, *machine]


@pytest.fixture(scope="session")
def cfg(composed: Callable[..., Config], tiny: list[str]) -> Callable[..., Config]:
    """Overrides to the configuration of a run on the shapes, whose images are decoded."""
    store = ImageCache.of(resolved(composed(*tiny)))
    store.ensure({(part, label) for part in ("train", "val") for label in range(len(CLASSES))}, workers=1)
    return lambda *overrides: resolved(composed(*tiny, *overrides))


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line, run in an empty folder; `module` is what follows `python -m`."""
    where = tmp_path / "elsewhere"
    where.mkdir()

    def run(*arguments: str, module: str = "tlprotocols", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", module, *arguments]
        return subprocess.run(line, cwd=where, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a process in which, and in those it starts, the packages named cannot be imported."""

    def environment(*packages: str) -> dict[str, str]:
        hiding = tmp_path / "hiding"
        hiding.mkdir()
        for package in packages:
            (hiding / f"{package}.py").write_text(f"raise ImportError('{package} is hidden')\n")
        return {**os.environ, "PYTHONPATH": f"{hiding}{os.pathsep}{os.environ['PYTHONPATH']}"}

    return environment
