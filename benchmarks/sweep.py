"""The main job, layers=4,5,6,7 n_per_class=10,50, ours against a conventional script; then each technique switched off.

The quick size has a hundred classes of each half of the glyphs, or a few epochs of Tiny ImageNet: starting processes
weighs more than in the main job, and the base network's luck moves all accuracies of a column (its draws differ
between the two programs), so that accuracies can be compared at the full size alone.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.pictures import draw
from benchmarks.tables import Row, Tables
from tlprotocols.config import load as configuration
from tlprotocols.datasets import source
from tlprotocols.results import load
from tlprotocols.splits import halves

GRID = ("layers=4,5,6,7", "n_per_class=10,50")
FP32 = ("precision=fp32", "base.precision=fp32")
EPOCHS = 4  # of Tiny ImageNet at the quick size
OFF: dict[str, tuple[str, tuple[str, ...]]] = {  # technique that is off: variant of the program, overrides
    "bf16 (fp32 instead)": ("", FP32),
    "two workers (one, with one thread)": ("", ("hydra.launcher.workers=1",)),
    "one thread each (one process, two threads)": ("two_threads", ("hydra.launcher.workers=1",)),
    "evaluation at the end (after every epoch)": ("", ("curve=true",)),
    "the store (files decoded in every epoch)": ("loader", ()),
    "persistent workers (a process per run)": ("process_per_run", ()),
    "channels last": ("contiguous", ()),
}


def measure(
    full: bool = False,
    *,
    root: str | None = None,
    classes: int = 100,
    epochs: int | None = None,
    grid: Sequence[str] = GRID,
    off: Sequence[str] | None = None,
) -> Tables:
    """Seconds of whole command lines, from images to a finished table: on glyphs, and on Tiny ImageNet if `root` says
    where it is. `full` leaves the breakdown out."""
    off = off if off is not None else () if full else tuple(OFF)
    with tempfile.TemporaryDirectory() as scratch:
        tables = _measured(Job(Path(scratch), None, None if full else classes, epochs, list(grid)), off)
    if root:
        with tempfile.TemporaryDirectory() as scratch:
            job = Job(Path(scratch), root, None, epochs if full else epochs or EPOCHS, list(grid))
            tables |= _measured(job, off)
    return tables


def _measured(job: "Job", off: Sequence[str]) -> Tables:
    first = job.ours()  # decodes
    (theirs, accuracy), (mine, our_accuracy) = job.conventional(), job.ours()
    rows = [
        _row("conventional", theirs, theirs, accuracy),
        _row("ours, images decoded before", mine, theirs, our_accuracy),
        _row("ours, images decoded within", first[0], theirs, first[1]),
    ]
    breakdown: list[Row] = [{"without": "nothing: all on", "seconds": mine, "times slower": 1.0}]
    for name in off:
        seconds, _ = job.ours(*OFF[name])
        breakdown.append({"without": name, "seconds": seconds, "times slower": round(seconds / mine, 2)})
    title = f"sweep: {' '.join(job.grid)} on {job.what}, {job.count} target classes, {job.passes:,} image passes"
    switched = {f"sweep: ours on {job.what} with one technique switched off": breakdown} if off else {}
    return {title: rows} | switched


def _row(way: str, seconds: float, theirs: float, accuracy: dict[str, float]) -> Row:
    shown = {f"top-1 {n}": f"{100 * value:.1f}%" for n, value in accuracy.items()}
    return {"way": way, "seconds": seconds, "faster by": round(theirs / seconds, 2), **shown}


class Job:
    """One sweep, to be run in several ways, each time in fresh folders."""

    def __init__(
        self, scratch: Path, root: str | None, classes: int | None, epochs: int | None, grid: list[str]
    ) -> None:
        """`classes` in each half; None: the real halves."""
        self.scratch, self.grid, self.number = scratch, grid, 0
        data = [f"dataset={'tiny_imagenet' if root else 'glyphs'}", *([f"dataset.root={root}"] if root else [])]
        whole = configuration(*data)
        listed = source(whole.dataset)
        names = {
            side: [listed.classes[label] for label in half[:classes]]
            for side, half in halves(whole, listed.classes).items()
        }
        self.target, self.source = names["B"], names["A"]
        self.what, self.count = whole.dataset.name, len(self.target)
        labels = [listed.classes.index(name) for name in self.target + self.source]
        if root:
            self.tree = _official(Path(root), scratch / "tree")
        else:
            self.tree = draw(scratch / "tree", labels, whole.dataset.side)
        # both read the same tree, so that the variant without a store can, too; the glyph PNGs hold our own pictures
        size = [f"epochs={epochs}", f"base.epochs={epochs}"] if epochs else []
        groups = [f"classes.source=[{','.join(self.source)}]", f"classes.target=[{','.join(self.target)}]"]
        self.data = data if root else self._as_folder()
        self.ours_only = ["classes=groups", *groups, f"machine.store={scratch / 'store'}", *size]
        self.recipe = [*self.data, *size]
        config = configuration(*self.recipe)
        n = sum(int(text) for text in grid[1].split("=")[1].split(","))
        runs = len(grid[0].split(","))
        most, base_n = max(listed.counts["train"]), config.base.n_per_class
        base = config.base.epochs * (most if base_n == "full" else int(base_n))
        self.passes = self.count * (runs * n * config.epochs + base)

    def _as_folder(self) -> list[str]:
        config = configuration()
        data = config.dataset
        numbers = {"side": data.side, "pixels": data.pixels, "pad": data.pad}
        means = {key: f"[{','.join(map(str, getattr(data, key)))}]" for key in ("mean", "std")}
        values = [f"dataset.{key}={value}" for key, value in (numbers | means).items()]
        return ["dataset=folder", "recipe=glyphs", f"dataset.root={self.tree}", *values]

    def ours(self, variant: str = "", overrides: Sequence[str] = ()) -> tuple[float, dict[str, float]]:
        """Seconds and mean accuracy by images per class."""
        self.number += 1
        results = self.scratch / f"results{self.number}"
        module = ["benchmarks.variants", variant] if variant else ["tlprotocols"]
        line = [*module, "-m", *self.grid, *self.data, *self.ours_only, f"results_dir={results}", *overrides]
        seconds = _timed(line, self.scratch)
        table = load(results)
        assert len(table) == 2 * len(self.grid[0].split(",")) or len(self.grid[1].split(",")) != 2
        means = table.groupby(table.n_per_class.astype(str)).val_top1.mean()
        return seconds, {f"n={n}": float(means[n]) for n in sorted(means.index, key=int)}

    def conventional(self) -> tuple[float, dict[str, float]]:
        """The same by the other script."""
        self.number += 1
        out = self.scratch / f"conventional{self.number}"
        out.mkdir()
        config = dataclasses.asdict(configuration(*self.recipe))
        (out / "recipe.json").write_text(json.dumps(config))
        (out / "split.json").write_text(json.dumps({"source": self.source, "target": self.target}))
        asked = [f"root={self.tree}", f"out={out}", f"recipe={out / 'recipe.json'}", f"split={out / 'split.json'}"]
        hydra = ["hydra/launcher=basic", f"hydra.sweep.dir={out}/hydra"]
        seconds = _timed(["benchmarks.conventional", "-m", *self.grid, *asked, *hydra], self.scratch)
        rows = [json.loads(file.read_text()) for file in out.glob("*-*.json")]
        ns = sorted({row["n_per_class"] for row in rows})
        return seconds, {f"n={n}": mean(row["val_top1"] for row in rows if row["n_per_class"] == n) for n in ns}


def _official(root: Path, tree: Path) -> Path:
    """Tiny ImageNet's validation images in folders by class, which is the first thing that everybody makes."""
    (tree / "val").mkdir(parents=True)
    (tree / "train").symlink_to(root.resolve() / "train")
    for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
        file, name = line.split("\t")[:2]
        if (root / "train" / name).is_dir():
            (tree / "val" / name).mkdir(exist_ok=True)
            (tree / "val" / name / file).symlink_to(root.resolve() / "val" / "images" / file)
    return tree


def _timed(line: Sequence[str], where: Path) -> float:
    """A whole command line, with torch's own choice of threads."""
    here = Path(__file__).parents[1]
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(here), os.environ.get("PYTHONPATH")]))
    begun = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", *line], cwd=where, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, f"{line}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
    return time.perf_counter() - begun
