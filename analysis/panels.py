"""The figures of a level experiment: accuracy by images per class and level, and paired differences below it.

Images per class are ordered categories; within each, the levels (layers, epochs, ...) stand side by side. Bars and
error bars are means over units and their 95% intervals. A collapsed run (loss at ln K: nothing learned) is a hollow
circle, an underfitted one a hollow square, a diverged one a cross.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from analysis.frame import Missing, Size, cells, sizes
from analysis.selection import has_test
from analysis.statistics import by_unit, mean_interval

WIDTH = 4.8  # inches: the text width of the paper
GREY = "0.45"
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "svg.hashsalt": "tlprotocols",
    "svg.fonttype": "path",
    "figure.dpi": 120,
}
FAILURES = {"collapsed": "o", "underfitted": "s", "diverged": "x"}  # columns, and how such runs are marked
MEANINGS = {
    "collapsed": "hollow: collapsed (loss at ln K)",
    "underfitted": "square: underfitted (loss near ln K or falling)",
    "diverged": "x: diverged",
}
DENSE = 32  # up to this many bars, each has its level written below it
ROOM_FOR_DIGITS = 9  # of all levels of a size, below their bars
Charts = dict[str, pd.DataFrame]  # rows by subtitle
Comparison = tuple[str, str, str]  # quantity, the paper's value, our value


@dataclass(frozen=True)
class Levels:
    """The levels of an experiment: their column, their name on the axis, and the one that others are compared with."""

    column: str
    label: str
    reference: Any
    reference_label: str
    colours: "dict[Any, str] | None" = None  # by level, also the legend's; None: dark to light


@dataclass(frozen=True)
class LevelFigure:
    """A figure of one chart, or of several side by side: accuracy above, differences from the reference level below.

    `charts` selects the rows of each chart from a study's rows, `levels` may depend on them too.
    """

    name: str
    title: str
    charts: Callable[[pd.DataFrame], Charts]
    levels: Callable[[pd.DataFrame], Levels]
    caption: Callable[[pd.DataFrame], str]
    compare_with_paper: Callable[[pd.DataFrame], list[Comparison]] = lambda rows: []

    def accuracy(self, rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
        """The upper panel of the first chart."""
        return accuracy(next(iter(self.charts(rows).values())), self.levels(rows), ax)

    def differences(self, rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
        """The lower panel of the first chart."""
        return differences(next(iter(self.charts(rows).values())), self.levels(rows), ax)

    def draw(self, rows: pd.DataFrame) -> Figure:
        """All panels.

        Raises:
            Missing: the rows have one level only, and nothing to compare it with.
        """
        charts, levels = self.charts(rows), self.levels(rows)
        if all(part.groupby("n_per_class")[levels.column].nunique().max() < 2 for part in charts.values()):
            raise Missing(f"No finished runs with two values of {levels.label}.")
        with rc_context(STYLE):
            figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
            grid = figure.subplots(2, len(charts), sharex="col", sharey="row", squeeze=False)
            limits: list[float] = []
            for (subtitle, part), (upper, lower) in zip(charts.items(), grid.T, strict=True):
                accuracy(part, levels, upper).set_title(subtitle, fontweight="normal", fontsize=8)
                limits += differences(part, levels, lower).get_ylim()
            grid[1, 0].set_ylim(min(limits), max(limits))  # shared, but each chart has set its own
            figure.suptitle(self.title, fontsize=8.5, fontweight="bold", x=0.01, ha="left")
            figure.supxlabel(grid[1, 0].get_xlabel(), fontsize=8)
            _share_labels(grid)
            return figure


def _share_labels(grid: "np.ndarray[Any, Any]") -> None:
    """Leave the labels to the outer panels of a figure; several charts have smaller tick labels."""
    for ax in grid.flat:
        ax.set_xlabel("")
    for ax in grid[0]:
        ax.tick_params(axis="x", which="both", labelbottom=False)
    for ax in grid[:, 1:].flat:
        ax.set_ylabel("")
    if grid.shape[1] > 1:
        for ax in grid[1]:
            ax.tick_params(axis="x", which="major", labelsize=6.5)
            ax.tick_params(axis="x", which="minor", labelsize=4.5)


def new_axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    with rc_context(STYLE):
        return Figure(figsize=(WIDTH, 2.4), layout="constrained").subplots()


def accuracy_label(rows: pd.DataFrame) -> str:
    """What `accuracy` is, and on which images, for an axis."""
    return f"{'test' if has_test(rows) else 'validation'} top-1 (%)"


def accuracy(rows: pd.DataFrame, levels: Levels, ax: Axes | None = None) -> Axes:
    """A bar per images per class and level: mean accuracy over units, 95% interval."""
    with rc_context(STYLE):
        ax, wide = new_axes(ax), by_unit(cells(rows, levels.column))
        positions, colours = _positions(wide), _colours(wide, levels)
        for (size, level), x in positions.items():
            mean, low, high = mean_interval(wide[(size, level)])
            ax.bar(x, mean, width=_pitch(wide) * 0.9, color=colours[level], linewidth=0)
            ax.plot([x, x], [low, high], color="black", linewidth=0.8, solid_capstyle="butt")
        _mark_failures(ax, rows, levels, positions)
        _label_axis(ax, wide, levels)
        for level in reversed(_levels(wide)) if levels.colours else ():
            _note(ax, level, color=colours[level], fontsize=8, weight="bold")
        ax.set_ylabel(accuracy_label(rows))
        ax.set_ylim(bottom=0)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        return ax


def differences(rows: pd.DataFrame, levels: Levels, ax: Axes | None = None) -> Axes:
    """Paired differences from the reference level on the same units; the best level of a size has a ring and its
    name."""
    with rc_context(STYLE):
        ax, wide = new_axes(ax), cells(rows, levels.column)  # of the same seed, too
        positions, colours = _positions(wide), _colours(wide, levels)
        ax.axhline(0, color=GREY, linewidth=0.8)
        intervals = [(0.0, 0.0, 0.0)]
        for size in sizes(rows):
            if (size, levels.reference) not in wide:
                continue
            by_level = {level: wide[(size, level)] - wide[(size, levels.reference)] for level in wide[size]}
            by_level = {level: d for level, d in by_level.items() if d.notna().any()}
            _curve(ax, size, by_level, positions, colours, levels)
            intervals += [mean_interval(d) for d in by_level.values()]
        _label_axis(ax, wide, levels)
        failed = any(rows[flag].any() for flag in ("collapsed", "diverged") if flag in rows)
        ax.set_ylim(*_limits(intervals, failed))
        ax.set_ylabel(f"points vs. {levels.reference_label}")
        return ax


def _limits(intervals: list[tuple[float, float, float]], failed: bool) -> tuple[float, float]:
    """Limits that hold all means and intervals; where runs failed, very long intervals are cut."""
    means, lows, highs = (np.array(values) for values in zip(*intervals, strict=True))
    low, high = np.nanmin([*lows, *means]), np.nanmax([*highs, *means])
    if failed:
        span = max(float(means.max() - means.min()), 0.5)
        low, high = max(low, means.min() - 0.7 * span), min(high, means.max() + 0.7 * span)
    return float(low - 0.08 * (high - low)), float(high + 0.22 * (high - low))


def _curve(
    ax: Axes, size: Size, by_level: "dict[Any, pd.Series[Any]]", positions: Any, colours: Any, levels: Levels
) -> None:
    """The differences of one size, joined, with intervals."""
    means = {level: float(by_unit(d.dropna()).mean()) for level, d in by_level.items()}
    xs = {level: positions[(size, level)] for level in means}
    best = max(means, key=lambda level: means[level])
    if levels.colours is None and not isinstance(best, str):  # names have no order
        ax.plot(list(xs.values()), list(means.values()), color="0.75", linewidth=0.8, zorder=1)
    for level, d in by_level.items():
        mean, low, high = mean_interval(d)
        if level != levels.reference:
            ax.plot([xs[level]] * 2, [low, high], color=colours[level], linewidth=1.1, zorder=2)
        ax.plot(xs[level], mean, "o", color=colours[level], markersize=3.4, zorder=3)
    x, y = xs[best], means[best]
    ax.plot(x, y, "o", color="none", markeredgecolor="black", markersize=6, markeredgewidth=0.9, zorder=4)
    if levels.colours is None:
        text = ax.annotate(str(best), (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=7.5)
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _mark_failures(ax: Axes, rows: pd.DataFrame, levels: Levels, positions: Any) -> None:
    """A mark for each run that collapsed, is underfitted or diverged."""
    for flag, marker in FAILURES.items():
        if flag not in rows or not rows[flag].any():
            continue
        failed = rows[rows[flag].fillna(False).astype(bool)]
        xs = [positions[key] for key in zip(failed["n_per_class"], failed[levels.column], strict=True)]
        ax.plot(xs, failed["accuracy"], marker, color="black", fillstyle="none", markersize=4, zorder=5, clip_on=False)
        _note(ax, MEANINGS[flag], color="0.3", fontsize=7)


def _note(ax: Axes, text: str, **style: Any) -> None:
    """A line in the upper left corner, below the lines that are already there."""
    ax.text(0.01, 0.99 - 0.1 * len(ax.texts), text, transform=ax.transAxes, va="top", **style)


def _positions(wide: pd.DataFrame) -> dict[tuple[Size, Any], float]:
    """The x position of each column: sizes at 0, 1, 2, ..., levels around them."""
    levels, pitch = _levels(wide), _pitch(wide)
    columns: Any = wide.columns
    order = list(dict.fromkeys(wide.columns.get_level_values(0)))
    return {
        (size, level): order.index(size) + pitch * (levels.index(level) - (len(levels) - 1) / 2)
        for size, level in columns
    }


def _levels(wide: pd.DataFrame) -> list[Any]:
    """All levels: numbers ascending, names in the order in which they occur."""
    levels = list(dict.fromkeys(wide.columns.get_level_values(1)))
    return levels if isinstance(levels[0], str) else sorted(levels)


def _pitch(wide: pd.DataFrame) -> float:
    return 0.8 / len(_levels(wide))


def _colours(wide: pd.DataFrame, levels: Levels) -> dict[Any, Any]:
    """From dark to light with the level; distinguishable in grey and with colour-blind eyes."""
    names = _levels(wide)
    shades: Any = np.linspace(0.05, 0.85, len(names)) if len(names) > 1 else [0.4]
    return levels.colours or {name: to_hex(colormaps["cividis"](s)) for name, s in zip(names, shades, strict=True)}


def _label_axis(ax: Axes, wide: pd.DataFrame, levels: Levels) -> None:
    """Sizes below the axis; levels below their own bars, or if there are too many, the first and the last."""
    order, names = list(dict.fromkeys(wide.columns.get_level_values(0))), _levels(wide)
    ax.set_xlim(-0.55, len(order) - 0.45)
    ax.set_xticks(range(len(order)), [str(size) for size in order])
    ax.tick_params(axis="x", which="major", length=0, pad=3)
    ax.set_xlabel("training images per class")
    if levels.colours is not None:
        return
    labelled = names if wide.shape[1] <= DENSE else [names[0], names[-1]]
    crowded = sum(map(len, map(str, labelled))) > ROOM_FOR_DIGITS or labelled != names
    upright = crowded and isinstance(names[0], str)  # names have no order from which a missing one could be told
    if upright:
        labelled = names
    elif crowded and len(labelled) > 2:
        labelled = [*names[:-2:2], names[-1]]  # every other one, so that they stay apart
    ticks = {x: str(level) for (_, level), x in _positions(wide).items() if level in labelled}
    ax.set_xticks(list(ticks), list(ticks.values()), minor=True)
    ax.xaxis.remove_overlapping_locs = False  # the middle level has the position of its size
    ax.tick_params(axis="x", which="minor", length=1.5, labelsize=5.5, colors=GREY, pad=1)
    ax.tick_params(axis="x", which="major", pad=10)
    if upright:
        ax.tick_params(axis="x", which="minor", labelsize=6.5, labelrotation=90)
        ax.tick_params(axis="x", which="major", pad=6 + 3.6 * max(map(len, names)))
    ax.set_xlabel(f"{levels.label} (small) by training images per class")
