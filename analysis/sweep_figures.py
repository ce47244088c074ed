"""The figures and tables of any sweep as a `Study`: one figure per swept factor, then gap, curves and time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from analysis import sweep
from analysis.frame import Missing
from analysis.panels import FAILURES, STYLE, WIDTH, accuracy_label
from analysis.study import Figure, Study, Table

LINES = 6  # in a panel
PANELS = 6
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # Okabe & Ito's
LABELS = {"gap": "validation minus training loss (nats)", "seconds": "seconds of a run"}


@dataclass(frozen=True)
class View:
    """One figure of a sweep: its rows, and which factor is where."""

    rows: pd.DataFrame  # with the column `line`: the name of the setting of the other factors
    factor: str  # on the x axis
    panels: str  # a panel per level of this factor; "": one panel
    same: str  # what all lines have in common
    settings: int  # of the other factors; more than are shown


def view(rows: pd.DataFrame, factors: Sequence[str], factor: str) -> View:
    """Which rows a figure of `factor` shows, and how. Images per class on the x axis have one panel; another factor has
    a panel per level of the next one. A line is a setting of all other factors; of many, those with most levels of
    `factor` are shown, and of equal ones the most accurate. Nothing is averaged over settings."""
    others = [f for f in factors if f != factor]
    panels = others[0] if others and factor != "n_per_class" else ""
    rest = [f for f in others if f != panels]
    named = rows.assign(line=sweep.names(rows, rest), level=rows[factor].map(sweep.text))
    ranked = named.groupby("line", sort=False).agg(levels=("level", "nunique"), accuracy=("accuracy", "mean"))
    ranked = ranked.sort_values(["levels", "accuracy"], ascending=False)
    joined = ranked[ranked["levels"] > 1] if (ranked["levels"] > 1).any() else ranked  # a line needs two points
    shown = named[named["line"].isin(joined.index[:LINES])]
    varied = [f for f in rest if shown[f].map(sweep.text).nunique() > 1]
    same = " ".join(f"{f}={sweep.text(shown[f].iloc[0])}" for f in rest if f not in varied)
    return View(shown.assign(line=sweep.names(shown, varied)), factor, panels, same, len(ranked))


def draw(rows: pd.DataFrame, factors: Sequence[str], factor: str, value: str, title: str) -> Canvas:
    """Means and paired intervals of `value` against one factor: lines if its levels are numbers, bars if not."""
    seen = view(rows, factors, factor)
    groups = _panels(seen)
    with rc_context(STYLE):
        across = 2 if len(groups) in (2, 4) else min(3, len(groups))
        down = math.ceil(len(groups) / across)
        canvas = Canvas(figsize=(WIDTH, 0.6 + 2.2 * down), layout="constrained")
        grid = canvas.subplots(down, across, squeeze=False)
        for ax, (subtitle, part) in zip(grid.flat, groups.items(), strict=False):
            _panel(ax, part, seen, value)
            ax.set_title(subtitle, fontweight="normal", fontsize=8)
        for ax in grid.flat[max(0, len(groups) - across) : len(groups)]:
            ax.set_xlabel(factor)
        for ax in grid.flat[len(groups) :]:
            ax.remove()
        canvas.supylabel(_label(rows, value), fontsize=8)
        canvas.suptitle(title, fontsize=8.5, fontweight="bold", x=0.01, ha="left")
        handles: dict[str, Any] = {}
        for ax in grid.flat[: len(groups)]:
            handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        if len(handles) > 1:
            columns = 1 if max(map(len, handles)) > 36 else 2
            canvas.legend(
                handles.values(), handles, loc="outside lower center", ncols=columns, fontsize=7, frameon=False
            )
        return canvas


def _label(rows: pd.DataFrame, value: str) -> str:
    return LABELS.get(value, accuracy_label(rows))


def _panels(seen: View) -> dict[str, pd.DataFrame]:
    """Rows by subtitle; of many levels, some that are spread over all."""
    if not seen.panels:
        return {"": seen.rows}
    levels = sweep.ordered(seen.rows[seen.panels])
    kept = [levels[i] for i in np.linspace(0, len(levels) - 1, min(len(levels), PANELS)).round().astype(int)]
    texts = seen.rows[seen.panels].map(sweep.text)
    return {f"{seen.panels}={sweep.text(level)}": seen.rows[texts == sweep.text(level)] for level in kept}


def _panel(ax: Axes, part: pd.DataFrame, seen: View, value: str) -> None:
    levels = sweep.ordered(seen.rows[seen.factor])
    places = {sweep.text(level): place for place, level in enumerate(levels)}
    lines = list(seen.rows["line"].unique())
    wide = part.groupby(["unit", "seed", "line", "level"])[value].mean().unstack(["line", "level"])
    points = sweep.intervals(wide)
    cells: Any = points.index
    for number, (line, colour) in enumerate(zip(lines, COLOURS, strict=False)):
        levels_here = sorted((level for name, level in cells if name == line), key=places.__getitem__)
        own = points.loc[[(line, level) for level in levels_here]]
        x = np.array([places[level] for level in levels_here], dtype=float)
        numeric = sweep.is_numeric(levels)
        x += (number - (len(lines) - 1) / 2) * (0.06 if numeric else 0.8 / len(lines))
        if numeric:
            ax.plot(x, own["mean"], "o-", color=colour, markersize=3.5, linewidth=1, label=line)
        else:
            ax.bar(x, own["mean"], 0.72 / len(lines), color=colour, label=line)
        ends = colour if numeric else "black"
        ax.vlines(x, own["low"].fillna(own["mean"]), own["high"].fillna(own["mean"]), color=ends, linewidth=1.1)
        failed = [any(_failed(part, line, level)) for level in levels_here]
        ax.plot(x[failed], own["mean"][failed], "o", color="white", markeredgecolor="black", markersize=3.5, zorder=4)
    if value == "accuracy" and len(points):
        _ring(ax, points, places, lines, sweep.is_numeric(levels))
    ax.set_xticks(range(len(levels)), [_tick(part, seen.factor, level) for level in levels])
    ax.set_xlim(-0.5, len(levels) - 0.5)
    if len(levels) > 4:
        ax.tick_params(axis="x", labelsize=6.5, rotation=0 if sweep.is_numeric(levels) else 20)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)


def _failed(part: pd.DataFrame, line: str, level: str) -> "pd.Series[bool]":
    """Which runs of a cell collapsed, are underfitted or diverged."""
    runs = part[(part["line"] == line) & (part["level"] == level)]
    flags = [flag for flag in FAILURES if flag in runs]
    return runs[flags].fillna(False).astype(bool).any(axis=1)


def _ring(ax: Axes, points: pd.DataFrame, places: dict[str, int], lines: list[str], numeric: bool) -> None:
    """Mark the best cell of a panel."""
    best: Any = points["mean"].idxmax()
    line, level = best
    pitch = 0.06 if numeric else 0.8 / len(lines)
    x = places[level] + (lines.index(line) - (len(lines) - 1) / 2) * pitch
    ax.plot(x, points["mean"].max(), "o", color="none", markeredgecolor="black", markersize=8, markeredgewidth=0.9)


def _tick(part: pd.DataFrame, factor: str, level: Any) -> str:
    """A level, and the protocol that it alone stands for: `0` is `scratch`."""
    shown = sweep.text(level)
    if factor != "layers" or "protocol" not in part or shown != "0":
        return shown
    protocols = part.loc[part[factor].map(sweep.text) == shown, "protocol"].dropna().unique()
    return f"{shown}\n{protocols[0]}" if len(protocols) == 1 else shown


def caption(rows: pd.DataFrame, factors: Sequence[str], factor: str, value: str) -> str:
    """What a figure shows, what is held fixed, and what the intervals are."""
    seen = view(rows, factors, factor)
    parts = [sweep.replicates(rows) + "."]
    if rows["unit"].nunique() > 1:
        parts.append(
            "Error bars: 95% intervals without the differences between units, for comparisons within a panel "
            "(Cousineau-Morey), not adjusted for their number."
        )
    if value == "accuracy":
        parts.append("The best of a panel's cells has a ring. Each panel has its own scale.")
    if any(flag in seen.rows and seen.rows[flag].fillna(False).any() for flag in FAILURES):
        parts.append(
            "Hollow: some run of the cell collapsed (loss at ln K), is underfitted (near ln K, or falling fast), or "
            "diverged."
        )
    lines = seen.rows["line"].nunique()
    if seen.settings > lines:
        parts.append(
            f"Of {seen.settings} settings of the other factors, the {lines} with most values of {factor}, and of equal "
            "ones the most accurate; cells.csv has all."
        )
    if seen.same:
        parts.append(f"All with {seen.same}.")
    if seen.panels and len(sweep.ordered(seen.rows[seen.panels])) > PANELS:
        parts.append(f"{PANELS} of {len(sweep.ordered(seen.rows[seen.panels]))} values of {seen.panels} have a panel.")
    return " ".join(parts)


def draw_curves(rows: pd.DataFrame, factors: Sequence[str], curves: pd.DataFrame) -> Canvas:
    """Validation accuracy and losses by epoch, a column per number of images per class, for its most accurate cells."""
    shown = _with_curves(rows, curves)
    sizes = sweep.ordered(shown["n_per_class"])[:PANELS]
    rest = [f for f in factors if f != "n_per_class"]
    with rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 4.2), layout="constrained")
        grid = canvas.subplots(2, len(sizes), sharex="col", squeeze=False)
        for (upper, lower), size in zip(grid.T, sizes, strict=True):
            part = shown[shown["n_per_class"] == size]
            part = part.assign(cell=sweep.names(part, rest))
            best = part.drop_duplicates("run_id").groupby("cell")["accuracy"].mean().nlargest(LINES).index
            for cell, colour in zip(best, COLOURS, strict=False):
                runs = part[part["cell"] == cell]
                common = runs[runs["epoch"] <= runs.groupby("run_id")["epoch"].max().min()]
                mean = common.groupby("epoch")[["val_top1", "train_loss", "val_loss"]].mean()
                upper.plot(mean.index, 100 * mean["val_top1"], color=colour, linewidth=1, label=cell)
                lower.plot(mean.index, mean["val_loss"], color=colour, linewidth=1)
                lower.plot(mean.index, mean["train_loss"], color=colour, linewidth=1, linestyle=":")
            upper.set_title(f"n_per_class={sweep.text(size)}", fontweight="normal", fontsize=8)
            upper.legend(fontsize=5.5, frameon=False)
            lower.set_xlabel("epoch")
            lower.xaxis.get_major_locator().set_params(integer=True)
        grid[0, 0].set_ylabel("validation top-1 (%)")
        grid[1, 0].set_ylabel("loss (nats)")
        return canvas


def _with_curves(rows: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    found = rows.drop(columns=["val_top1", "val_loss", "train_loss"]).merge(curves, on="run_id")
    if found.empty or "val_top1" not in found:
        raise Missing("No run has a curve: the same command with curve=true trains and keeps them.")
    return found


def study(table: pd.DataFrame, curves: pd.DataFrame) -> Study:
    """The figures and tables of this table, whatever it varies. `curves` as of `tlprotocols.results.load_curves`."""
    query, folds = "", table["fold"].notna() if "fold" in table else pd.Series(False, table.index)
    if folds.any() and not folds.all():  # runs that learned a part of the images are no replicates of those of all
        query, table = "fold != fold", table[~folds]
    factors = sweep.swept(table)
    varied = tuple(str(key) for key in table if table[key].map(sweep.text).nunique() > 1)
    shown = factors or ["n_per_class"]
    main = next((f for f in shown if f != "n_per_class"), "n_per_class")
    figures = [
        *(_figure(f"by_{f}", f"Accuracy by {f}", factors, f, "accuracy") for f in shown),
        _figure("gap", "Validation minus training loss", factors, main, "gap"),
    ]
    if not curves.empty:
        words = (
            "Means over the runs that have a curve, to the last epoch of the shortest; below, solid is validation and "
            "dotted is training loss."
        )
        drawn = partial(draw_curves, factors=factors, curves=curves)
        figures.append(Figure("curves", "Accuracy and losses by epoch", drawn, lambda rows: words))
    if "seconds" in table and table["seconds"].notna().any():
        figures.append(_figure("time", "Seconds of a run", factors, main, "seconds"))
    return Study(
        name="sweep",
        title="This sweep",
        description=_description(factors, sweep.varying(table)) + _measured(table),
        varied=varied,
        unit=("split", "target"),
        figures=tuple(figures),
        tables=_tables(factors),
        claims=(),
        published=pd.DataFrame,
        prefix="sweep_",
        query=query,
        mixed=True,
    )


def _figure(name: str, title: str, factors: Sequence[str], factor: str, value: str) -> Figure:
    return Figure(
        name.replace(".", "_"),
        title,
        lambda rows: draw(rows, factors, factor, value, title),
        lambda rows: caption(rows, factors, factor, value),
    )


def _description(factors: Sequence[str], varying: Sequence[str]) -> str:
    if not factors:
        return "All runs have the same factors, but for split, target half and seed."
    others = [factor for factor in varying if factor not in factors]
    more = f" With them change {', '.join(others)}." if others else ""
    return f"Swept factors that tell its cells apart: {', '.join(factors)}.{more} All others are equal."


def _measured(table: pd.DataFrame) -> str:
    tested = table["test_top1"].notna() if "test_top1" in table else pd.Series(False, table.index)
    if tested.all() or not tested.any():
        return ""
    return f" {len(tested) - tested.sum():,} of the runs have no test images: all accuracies are on validation images."


def _tables(factors: Sequence[str]) -> tuple[Table, ...]:
    best = Table(
        "best",
        "The best cell, and its equals",
        "For each number of images per class, and data set, classes or test images where these differ: of the cells "
        "that ran on the same units (compared, of all cells), the one with the highest mean, and those that a paired "
        "test cannot tell from it (multiple comparisons with the best, 5%, over the units, and seeds, that they "
        "share). Without test images the best one is chosen and reported on the same validation images, so that its "
        "accuracy is somewhat too high; --selection heldout avoids that.",
        lambda rows, chosen_by: sweep.best(rows, factors, chosen_by),
    )
    cells = Table(
        "cells",
        "All cells",
        "Mean and standard deviation (sd) over units, in percent; gap is validation minus training loss in nats. One "
        "run has no sd.",
        lambda rows, _: sweep.means(rows, factors),
    )
    return best, cells
