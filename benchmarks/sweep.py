"""The main job, layers=4,5,6,7 n_per_class=10,50: ours against a conventional script, from image files to a table.

Both take turns, once for every seed, which draws their weights and the order of their images: seconds are medians,
accuracies means with the smallest and the largest. `planned` is what the plan of one more seed says, from the rates of
the sweep before it, in seconds and without decoding. The quick size has a hundred classes of each half of the glyphs:
starting processes weighs more there than in the main job.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

from benchmarks.pictures import draw
from benchmarks.tables import Row, Tables
from tlprotocols.config.compose import load as configuration
from tlprotocols.images import source
from tlprotocols.images.splits import halves
from tlprotocols.results import load

Outcome = tuple[float, dict[str, float]]  # seconds of a command line, mean accuracy by images per class

GRID = ("layers=4,5,6,7", "n_per_class=10,50")
CLASSES = 100  # of each half, at the quick size


def measure(
    full: bool = False,
    *,
    root: str | None = None,
    repetitions: int = 3,
    classes: int = CLASSES,
    grid: Sequence[str] = GRID,
) -> Tables:
    """Seconds of whole command lines on glyphs; `tiny_sweep` is for `root`."""
    with tempfile.TemporaryDirectory() as scratch:
        return compared(Job(scratch, grid, classes=None if full else classes), repetitions)


def compared(job: "Job", repetitions: int) -> Tables:
    """One row for the conventional script, one for ours."""
    theirs: list[Outcome] = []
    mine: list[Outcome] = []
    for seed in range(repetitions):
        theirs.append(job.conventional(seed))
        mine.append(job.ours(f"seed={seed}", f"machine.image_cache={job.scratch}/store{seed}"))
    reference = median(seconds for seconds, _ in theirs)
    planned = job.planned(f"seed={repetitions}", f"machine.image_cache={job.scratch}/store{repetitions - 1}")
    rows = [_row("conventional", theirs, reference), _row("ours, decoding included", mine, reference)]
    return {job.title: [row | {"planned": seconds} for row, seconds in zip(rows, (None, planned), strict=True)]}


def _row(way: str, outcomes: Sequence[Outcome], reference: float) -> Row:
    seconds = [took for took, _ in outcomes]
    row: Row = {"way": way, "runs": len(seconds), "seconds": median(seconds), "from": min(seconds), "to": max(seconds)}
    row["faster by"] = round(reference / median(seconds), 2)
    for n in outcomes[0][1]:
        found = [100 * accuracy[n] for _, accuracy in outcomes]
        row[f"top-1 {n}"] = f"{mean(found):.1f}% ({min(found):.1f} to {max(found):.1f})"
    return row


class Job:
    """One sweep, to be run in several ways, each time in fresh folders."""

    def __init__(
        self,
        scratch: str,
        grid: Sequence[str] = GRID,
        *,
        root: str | None = None,
        classes: int | None = None,
        epochs: int | None = None,
    ) -> None:
        """On glyphs, or on Tiny ImageNet in `root`; `classes` in each half and epochs, None: those of the main job."""
        self.scratch, self.grid, self.number = Path(scratch), list(grid), 0
        self.last: Path | None = None
        data = [f"dataset={'tiny_imagenet' if root else 'glyphs'}", *([f"dataset.root={root}"] if root else [])]
        whole = configuration(*data)
        listed = source(whole.dataset, whole.machine.image_cache)
        names = {
            side: [listed.classes[label] for label in half[:classes]]
            for side, half in halves(whole, listed.classes).items()
        }
        self.target, self.source = names["B"], names["A"]
        labels = [listed.classes.index(name) for name in self.target + self.source]
        if root:
            self.tree = _official(Path(root), self.scratch / "tree")
        else:
            self.tree = draw(self.scratch / "tree", labels, whole.dataset.side)
        # both read the same tree, so that the variant without a store can, too; the glyph PNGs hold our own pictures
        size = [f"epochs={epochs}", f"base.epochs={epochs}"] if epochs else []
        groups = [f"classes.source=[{','.join(self.source)}]", f"classes.target=[{','.join(self.target)}]"]
        self.data = data if root else self._as_folder()
        self.ours_only = ["classes=groups", *groups, f"machine.image_cache={self.scratch / 'store'}", *size]
        self.recipe = [*self.data, *size]
        config = configuration(*self.recipe)
        n = sum(int(text) for text in grid[1].split("=")[1].split(","))
        runs = len(grid[0].split(","))
        most, base_n = max(listed.counts["train"]), config.base.n_per_class
        base = config.base.epochs * (most if base_n == "full" else int(base_n))
        passes = len(self.target) * (runs * n * config.epochs + base)
        self.title = (
            f"{' '.join(grid)} on {whole.dataset.name}, {len(self.target)} target classes, {passes:,} image passes"
        )

    def _as_folder(self) -> list[str]:
        config = configuration()
        data = config.dataset
        numbers = {"side": data.side, "pixels": data.pixels, "pad": data.pad}
        means = {key: f"[{','.join(map(str, getattr(data, key)))}]" for key in ("mean", "std")}
        values = [f"dataset.{key}={value}" for key, value in (numbers | means).items()]
        return ["dataset=folder", "recipe=glyphs", f"dataset.root={self.tree}", *values]

    def ours(self, *overrides: str, variant: str = "") -> Outcome:
        """Our command line, or that of a variant."""
        results, line = self._line(*overrides)
        seconds, _ = _timed([*(["benchmarks.variants", variant] if variant else ["tlprotocols"]), *line], self.scratch)
        table, self.last = load(results), results
        assert len(table) == 2 * len(self.grid[0].split(",")) or len(self.grid[1].split(",")) != 2
        means = table.groupby(table.n_per_class.astype(str)).val_top1.mean()
        return seconds, {f"n={n}": float(means[n]) for n in sorted(means.index, key=int)}

    def planned(self, *overrides: str) -> float:
        """Seconds that the plan of our command line says."""
        _, line = self._line(*overrides, "hydra.launcher.dry_run=true")
        line += [f"results_dir={self.last}"] if self.last else []  # the rows of the last sweep say the throughput
        _, printed = _timed(["tlprotocols", *line], self.scratch)
        (hours,) = re.findall(r"hours=([\d.]+)", printed)
        return 3600 * float(hours)

    def _line(self, *overrides: str) -> tuple[Path, list[str]]:
        """Where the results go, and the arguments."""
        self.number += 1
        results = self.scratch / f"results{self.number}"
        return results, ["-m", *self.grid, *self.data, *self.ours_only, f"results_dir={results}", *overrides]

    def conventional(self, seed: int) -> Outcome:
        """The same by the other script."""
        self.number += 1
        out = self.scratch / f"conventional{self.number}"
        out.mkdir()
        config = dataclasses.asdict(configuration(*self.recipe))
        (out / "recipe.json").write_text(json.dumps(config))
        (out / "split.json").write_text(json.dumps({"source": self.source, "target": self.target}))
        files = [f"recipe={out / 'recipe.json'}", f"split={out / 'split.json'}"]
        arguments = [f"seed={seed}", f"root={self.tree}", f"out={out}", *files]
        hydra = ["hydra/launcher=basic", f"hydra.sweep.dir={out}/hydra"]
        seconds, _ = _timed(["benchmarks.conventional", "-m", *self.grid, *arguments, *hydra], self.scratch)
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


def _timed(line: Sequence[str], where: Path) -> tuple[float, str]:
    """Seconds of a whole command line, with torch's own choice of threads, and what it prints."""
    here = Path(__file__).parents[1]
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(here), os.environ.get("PYTHONPATH")]))
    begun = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", *line], cwd=where, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, f"{line}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
    return time.perf_counter() - begun, ended.stdout
