"""From a task to a recommendation: the search, the comparison on held-out images, what is printed and kept of them."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import pandas as pd
from rich.console import Console
from rich.table import Table

from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError, RunsFailed
from tlprotocols.images import source
from tlprotocols.images.splits import target_classes
from tlprotocols.records import Files, Row, write_atomic
from tlprotocols.results import load
from tlprotocols.searching import comparison, figure, space
from tlprotocols.searching.comparison import Interval
from tlprotocols.searching.search import REPLICATES, Options, Search, Tried, typed

NAME = "recommended"
SHOWN = 5  # settings of the search that are listed


class Launcher(Protocol):
    """What is needed of a launcher of Hydra's."""

    options: dict[str, Any]

    def composed(self, overrides: Sequence[str]) -> Config:
        """The configuration of these overrides."""

    def rows(self, cells: Sequence[Sequence[str]], table: bool = True) -> list[Row | None] | None:
        """Execute what is not finished. Returns a row for each, or None if nothing was waited for."""


@dataclass(frozen=True)
class Recommendation:
    """What a search came to."""

    setting: space.Setting
    command: str  # that trains it
    tried: int  # settings
    images: int  # held out
    seconds: float  # of the search
    compared: dict[str, tuple[Interval, Interval]]  # accuracy, and how far the recommended one is above it
    run: str  # whose weights are kept
    weights: Path
    same: tuple[str, ...] = ()  # the protocols of the comparison that have the same settings

    def sure(self, other: str) -> str:
        """Whether it is better than another protocol, in words."""
        gain = self.compared[other][1]
        if other in self.same:
            return f"{other} itself"
        if gain.low > 0:
            return f"better than {other}"
        if gain.high < 0:
            return f"worse than {other}: take that"
        return f"not told apart from {other} by {self.images:,} images"


def recommend(arguments: Sequence[str], launcher: Launcher, options: Options) -> Recommendation | None:
    """Search, compare, print. None with `dry_run`, which prints the plan of the first settings.

    Raises:
        ConfigError: there is nothing to search, or a search cannot wait for its runs.
        RunsFailed: a network of the comparison failed.
    """
    task = _task(arguments, launcher)

    def execute(cells: list[list[str]]) -> list[Row | None]:
        rows = launcher.rows(cells, table=False)
        if rows is None and not launcher.options.get("dry_run"):
            raise ConfigError("hydra.launcher.wait", "false", "must be true: a search needs the results of its runs")
        if rows is None:
            raise DryRun
        return rows

    console = Console(highlight=False)
    search = Search(task, launcher.composed, execute, options)
    named = ", ".join(search.ranges)
    console.print(
        f"searching {named} for {options.budget}: {search.config.folds}-fold cross-validation", soft_wrap=True
    )
    try:
        best = search.run(_images(search.config), _rows(search.config))
    except DryRun:
        console.print(f"dry run: a search goes on from these for {options.budget}", soft_wrap=True)
        return None
    found = _compared(search, best, execute)
    _keep(search, found)
    _print(console, search, found)
    return found


class DryRun(Exception):
    """Nothing was executed."""


def _task(arguments: Sequence[str], launcher: Launcher) -> list[str]:
    """The user's overrides; with a base of other classes, all classes are targets unless they say otherwise."""
    config, names = launcher.composed(arguments), {text.split("=", 1)[0] for text in arguments}
    more = ["classes=all"] if config.base.name in ("weights", "dataset") and "classes" not in names else []
    more += ["base.seed=0"] if config.base.name != "weights" and "base.seed" not in names else []  # one base network
    more += ["sweep=recommend"] if "sweep" not in names else []
    for key in ("fold", "protocol", "seed"):
        if key in names:
            value = next(text.split("=", 1)[1] for text in arguments if text.startswith(f"{key}="))
            raise ConfigError(key, value, "is chosen by the search; leave it out")
    return [*arguments, *more]


def _images(config: Config) -> float:
    """Training images per class; with `full` the median."""
    if config.n_per_class != "full":
        return int(config.n_per_class)
    listed = source(config.dataset, config.machine.image_cache)
    return median(listed.counts["train"][label] for label in target_classes(config, listed.classes))


def _rows(config: Config) -> pd.DataFrame | None:
    """The rows of the results folder, if there is one."""
    folder = Path(config.results_dir).expanduser()
    return load(folder) if folder.is_dir() else None


def _compared(search: Search, best: Tried, execute: Any) -> Recommendation:
    """Train the chosen setting and the baselines on all training images, and compare them on the held-out ones."""
    settings = {NAME: [*search.overrides, *typed(best.setting)]}
    settings |= {name: [*search.plain, f"protocol={name}"] for name in space.BASELINES}
    seeds = range(REPLICATES)
    cells = [
        [*overrides, f"seed={seed}", "predictions=true", *(["keep_weights=true"] if name == NAME else [])]
        for name, overrides in settings.items()
        for seed in seeds
    ]
    rows = execute(cells)
    if any(row is None for row in rows):
        raise RunsFailed("a network of the comparison has no result; the same command tries it again")
    results = Path(search.config.results_dir).expanduser()
    files = [Files(results, row["run_id"]) for row in rows]
    right = {
        name: comparison.correct(files[place * REPLICATES : (place + 1) * REPLICATES])
        for place, name in enumerate(settings)
    }
    own = [text for text in (*search.overrides, *typed(best.setting)) if text != "sweep=recommend"]
    return Recommendation(
        setting=best.setting,
        command=shlex.join(["python", "-m", "tlprotocols", *own, "keep_weights=true"]),
        tried=len(search.tried),
        images=right[NAME].shape[1],
        seconds=search.spent,
        compared=comparison.compared(right, NAME),
        run=files[0].id,
        weights=files[0].weights,
        same=tuple(
            name for place, name in enumerate(settings) if place and files[place * REPLICATES].id == files[0].id
        ),
    )


def _keep(search: Search, found: Recommendation) -> None:
    """Write recommendation.json and the figure."""
    compared = {
        name: {"accuracy": asdict(accuracy), "gain": asdict(gain)} for name, (accuracy, gain) in found.compared.items()
    }
    content = {**asdict(replace(found, compared={})), "weights": str(found.weights), "compared": compared}
    content["settings"] = [
        {**one.setting, "name": one.name, "accuracy": search.accuracy(one), "folds": len(one.folds)}
        for one in search.tried
    ]
    write_atomic(search.folder / "recommendation.json", json.dumps(content, indent=1))
    figure.draw(search, found.compared, found.images, search.folder / "figure.png")


def _print(console: Console, search: Search, found: Recommendation) -> None:
    """The recommendation, the comparison, how sure it is, and the next commands."""
    complete = [one for one in search.tried if len(one.folds) == len(search.best.folds)]
    folds, results = len(search.best.folds), str(search.config.results_dir)
    table = Table(title=f"accuracy on {found.images:,} images that nothing was chosen by", title_justify="left")
    table.add_column("protocol")
    table.add_column("accuracy", justify="right")
    table.add_column("recommended is above by", justify="right")
    for name, (accuracy, gain) in found.compared.items():
        table.add_row(name, accuracy.text(), "" if name in (NAME, *found.same) else gain.text(sign=True))
    chosen = "  ".join(f"{key}={value}" for key, value in found.setting.items())
    measured = "1 fold" if folds == 1 else f"{folds} folds"
    lines = [
        f"{found.tried} settings tried in {found.seconds:.0f} s, {len(complete)} of them on {measured}",
        f"[bold]recommended[/bold]  {chosen}",
        table,
        f"95% intervals over images and {REPLICATES} seeds, for these training images",
        "the recommended setting is " + "; ".join(found.sure(name) for name in space.BASELINES),
        f"train it:  {found.command}",
        f"use it:    python -m tlprotocols.predict {found.run} PHOTO.jpg --results {shlex.quote(results)}",
        f"weights:   {found.weights}",
        f"figure:    {search.folder / 'figure.png'}",
    ]
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, str), markup=line == lines[1])
