"""From a task to a recommendation: the search, the comparison on held-out images, what is printed and kept of them."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
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
from tlprotocols.planning.plan import resolved
from tlprotocols.records import Files, Row, write_atomic
from tlprotocols.results import load
from tlprotocols.searching import comparison, figure, space
from tlprotocols.searching.comparison import Interval
from tlprotocols.searching.search import REPLICATES, Options, Search, Tried, typed

NAME = "recommended"
HELD_OUT = ("test_per_class", "dataset.val_per_class", "dataset.val_from_train")  # which images are held out


class Launcher(Protocol):
    """What is needed of a launcher of Hydra's."""

    options: dict[str, Any]

    def composed(self, overrides: Sequence[str]) -> Config:
        """The configuration of these overrides."""

    def resolved(self, config: Config) -> Config:
        """The configuration as it will run."""

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

    def sure(self) -> str:
        """Whether it is better than the others, in words."""
        found: dict[str, list[str]] = {}
        for other in self.compared:
            if other != NAME:
                found.setdefault(self._verdict(other), []).append(other)
        return "; ".join(words.format(" and ".join(others)) for words, others in found.items())

    def _verdict(self, other: str) -> str:
        gain = self.compared[other][1]
        if other in self.same:
            return "{} itself"
        if gain.low > 0:
            return "better than {}"
        if gain.high < 0:
            return "worse than {}: take that"
        return f"not told apart from {{}} by {self.images:,} images"


@dataclass(frozen=True)
class OwnFile:
    """The file that the user began with (`-cn`), if any: the flags that name it, and the keys that it sets itself."""

    flags: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()


def recommend(
    arguments: Sequence[str], launcher: Launcher, options: Options, own: OwnFile = OwnFile()
) -> Recommendation | None:
    """Search, compare, print. None with `dry_run`, which prints the plan of the first settings.

    Raises:
        ConfigError: there is nothing to search, a search cannot wait for its runs, or one of them cannot be trained.
        RunsFailed: a network of the comparison failed.
    """
    task = _task(arguments, launcher, own)

    def execute(cells: list[list[str]]) -> list[Row | None]:
        rows = launcher.rows(cells, table=False)
        if rows is None and not launcher.options.get("dry_run"):
            raise ConfigError("hydra.launcher.wait", "false", "must be true: a search needs the results of its runs")
        if rows is None:
            raise DryRun
        return rows

    console = Console(highlight=False)
    search = Search(task, launcher.composed, execute, options, launcher.resolved)
    _check_cells(search)
    named = ", ".join(search.ranges)
    console.print(
        f"searching {named} for {options.budget}: {search.config.folds}-fold cross-validation", soft_wrap=True
    )
    try:
        best = search.run(_images(search.config), _rows(search.config))
    except DryRun:
        console.print(f"dry run: for {options.budget} a search would go on from", soft_wrap=True)
        for name, values in search.beginning().items():
            console.print(f"  {name:14}{_spoken(values)}", soft_wrap=True)
        return None
    found = _compared(search, best, own.flags)
    _keep(search, found)
    _print(console, search, found)
    return found


class DryRun(Exception):
    """Nothing was executed."""


def _task(arguments: Sequence[str], launcher: Launcher, own: OwnFile) -> list[str]:
    """The user's overrides, and all images where they name no number of them; with a base of other classes, all classes
    are targets unless they say otherwise.

    Raises:
        ConfigError: they give what the search sets.
    """
    config, given = launcher.composed(arguments), {space.key_of(text): text for text in arguments}
    names = {*given, *own.keys}
    more = ["n_per_class=full"] if "n_per_class" not in names else []
    more += ["classes=all"] if config.base.name in ("weights", "dataset") and "classes" not in names else []
    more += ["base.seed=0"] if config.base.name != "weights" and "base.seed" not in names else []  # one base network
    more += ["sweep=recommend"] if "sweep" not in names else []
    for key in ("fold", "protocol", "seed"):
        if key in given:
            raise ConfigError(key, given[key].partition("=")[2], "is chosen by the search; leave it out")
    for key in space.FACTORS:
        if key in own.keys - set(given):
            legal = f"is searched, and stands in the file of {' '.join(own.flags)}; give it as an override instead"
            raise ConfigError(key, attrgetter(key)(config), f"{legal}, which is not searched, or leave it out")
    return [*arguments, *more]


def _check_cells(search: Search) -> None:
    """Refuse, before anything is trained, a task of which a fold or a network of the comparison cannot be trained."""
    folds = [[*search.overrides, *search.fold(fold)] for fold in range(search.config.folds)]
    for cell in (*folds, search.overrides, *_baselines(search).values()):
        search.resolve(search.compose(cell))


def _baselines(search: Search) -> dict[str, list[str]]:
    """The overrides of what a recommendation is compared with, by name."""
    return {name: [*search.plain, f"protocol={name}"] for name in space.BASELINES}


def _images(config: Config) -> float:
    """Training images per class; with `full` the median."""
    if config.n_per_class != "full":
        return int(config.n_per_class)
    listed = source(config.dataset, config.machine.image_cache)
    return median(listed.counts["train"][label] for label in target_classes(config, listed.classes))


def _rows(config: Config) -> pd.DataFrame | None:
    """The rows of the results folder that were cross-validated on these training images. All others, of more or fewer
    images too, may have been measured on the images that this recommendation is measured on in the end."""
    folder = Path(config.results_dir).expanduser()
    if not folder.is_dir():
        return None
    rows = load(folder)
    if not {"fold", "dataset.fingerprint", *HELD_OUT} <= set(rows):  # no run of this folder has one of them
        return None
    rows = rows[rows["fold"].notna()]
    if rows.empty:
        return None
    same = rows["dataset.fingerprint"] == resolved(config).dataset.fingerprint
    for key in HELD_OUT:
        same &= rows[key] == attrgetter(key)(config)
    whole = round(_images(replace(config, n_per_class="full")))  # a size like the others, for those who compare sizes
    sizes = rows["n_per_class"].astype(str)
    return rows.assign(n_per_class=sizes.where(sizes != "full", str(whole)))[same]


def _compared(search: Search, best: Tried, flags: Sequence[str]) -> Recommendation:
    """Train the chosen setting and the baselines on all training images, and compare them on the held-out ones."""
    settings = {NAME: [*search.overrides, *typed(best.setting)], **_baselines(search)}
    seeds = range(REPLICATES)
    cells = [
        [*overrides, f"seed={seed}", "predictions=true", *(["keep_weights=true"] if name == NAME else [])]
        for name, overrides in settings.items()
        for seed in seeds
    ]
    rows = [row for row in search.executed(cells) if row is not None]
    if len(rows) < len(cells):
        raise RunsFailed("a network of the comparison has no result; the same command tries it again")
    results = Path(search.config.results_dir).expanduser()
    files = [Files(results, row["run_id"]) for row in rows]
    right = {
        name: comparison.correct(files[place * REPLICATES : (place + 1) * REPLICATES], search.balanced)
        for place, name in enumerate(settings)
    }
    own = [text for text in (*search.plain, *typed(best.setting)) if text != "sweep=recommend"]
    return Recommendation(
        setting=best.setting,
        command=shlex.join(["python", "-m", "tlprotocols", *flags, *own, "keep_weights=true"]),
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


def _spoken(values: space.Setting) -> str:
    return "  ".join(f"{key}={value}" for key, value in values.items())


def _print(console: Console, search: Search, found: Recommendation) -> None:
    """The recommendation, the comparison, how sure it is, and the next commands."""
    complete = [one for one in search.tried if len(one.folds) == len(search.best.folds)]
    folds, results = len(search.best.folds), str(search.config.results_dir)
    what = "balanced accuracy" if search.balanced else "accuracy"
    table = Table(title=f"{what} on {found.images:,} images that nothing was chosen by", title_justify="left")
    table.add_column("protocol")
    table.add_column("accuracy", justify="right")
    table.add_column("recommended is above by", justify="right")
    for name, (accuracy, gain) in found.compared.items():
        table.add_row(name, accuracy.text(), "" if name in (NAME, *found.same) else gain.text(sign=True))
    measured = "1 fold" if folds == 1 else f"{folds} folds"
    lines = [
        f"{found.tried} settings tried in {found.seconds:.0f} s, {len(complete)} of them on {measured}",
        f"[bold]recommended[/bold]  {_spoken(found.setting)}",
        table,
        f"95% intervals over images and {REPLICATES} seeds, for these training images",
        f"the recommended setting is {found.sure()}",
        f"train it:  {found.command}",
        f"use it:    python -m tlprotocols.predict {found.run} PHOTO.jpg --results {shlex.quote(results)}",
        f"weights:   {found.weights}",
        f"figure:    {search.folder / 'figure.png'}",
    ]
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, str), markup=line == lines[1])
