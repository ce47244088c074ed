"""The two panels that every figure is made of: accuracy by images per class and level, and paired differences.

Images per class are ordered categories. Within each, levels (layers, epochs, ...) stand side by side. Bars and error
bars are means over class splits and their 95% intervals. A collapsed run (loss at ln K: it never learned) is a hollow
circle, a diverged one a cross.
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

from analysis.frame import Size, cells, sizes
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
FAILURES = {"collapsed": "o", "diverged": "x"}  # columns, and how such runs are marked
DENSE = 32  # up to so many bars each has its level written below it


@dataclass(frozen=True)
class Look:
    """What the levels of a figure are called and which of them is the usual one."""

    level: str  # column
    name: str  # of the level, on the axis
    usual: Any  # the level that others are compared with
    usual_name: str
    colours: "dict[Any, str] | None" = None


def sheet(
    top: Callable[[Axes], Axes], bottom: Callable[[Axes], Axes], title: str, height: float = 4.0, width: float = WIDTH
) -> Figure:
    """One figure of two panels, accuracy above differences."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(1, 1), sharex=True)
        top(upper)
        bottom(lower)
        upper.set_xlabel("")
        upper.tick_params(axis="x", which="both", labelbottom=False)
        upper.set_title(title)
        return figure


def axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a figure of their own."""
    if ax is not None:
        return ax
    with rc_context(STYLE):
        return Figure(figsize=(WIDTH, 2.4), layout="constrained").subplots()


def accuracy(rows: pd.DataFrame, look: Look, ax: Axes | None = None) -> Axes:
    """A bar per images per class and level: mean accuracy over splits, 95% interval."""
    with rc_context(STYLE):
        ax, wide = axes(ax), by_unit(cells(rows, look.level))
        places = _places(wide)
        for (size, level), x in places.items():
            mean, low, high = mean_interval(wide[(size, level)])
            ax.bar(x, mean, width=_pitch(wide) * 0.9, color=_colours(wide, look)[level], linewidth=0)
            ax.plot([x, x], [low, high], color="black", linewidth=0.8, solid_capstyle="butt")
        _mark_failures(ax, rows, look, places)
        _dress(ax, wide, look)
        ax.set_ylabel("validation top-1 (%)")
        ax.set_ylim(bottom=0)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        return ax


def gains(rows: pd.DataFrame, look: Look, ax: Axes | None = None) -> Axes:
    """Paired differences from the usual level, over the same splits; the best level of a size is ringed and named."""
    with rc_context(STYLE):
        ax, wide = axes(ax), by_unit(cells(rows, look.level))
        places, colours = _places(wide), _colours(wide, look)
        ax.axhline(0, color=GREY, linewidth=0.8)
        drawn = [(0.0, 0.0, 0.0)]
        for size in sizes(rows):
            if (size, look.usual) not in wide:
                continue
            found = {level: wide[(size, level)] - wide[(size, look.usual)] for level in wide[size]}
            found = {level: d for level, d in found.items() if d.notna().any()}
            _curve(ax, size, found, places, colours, look)
            drawn += [mean_interval(d) for d in found.values()]
        _dress(ax, wide, look)
        ax.set_ylim(*_limits(drawn, failed=any(rows[flag].any() for flag in FAILURES if flag in rows)))
        ax.set_ylabel(f"points over {look.usual_name}")
        return ax


def _limits(drawn: list[tuple[float, float, float]], failed: bool) -> tuple[float, float]:
    """All means and their intervals; where runs failed, whose intervals are very long, what squeezes no other."""
    means, lows, highs = (np.array(values) for values in zip(*drawn, strict=True))
    low, high = np.nanmin([*lows, *means]), np.nanmax([*highs, *means])
    if failed:
        span = max(float(means.max() - means.min()), 0.5)
        low, high = max(low, means.min() - 0.7 * span), min(high, means.max() + 0.7 * span)
    return float(low - 0.08 * (high - low)), float(high + 0.22 * (high - low))


def _curve(
    ax: Axes, size: Size, found: "dict[Any, pd.Series[Any]]", places: Any, colours: dict[Any, Any], look: Look
) -> None:
    """The differences of one size, joined, with intervals."""
    means = {level: float(by_unit(d.dropna()).mean()) for level, d in found.items()}
    if look.colours is None:
        ax.plot([places[(size, level)] for level in means], list(means.values()), color="0.75", linewidth=0.8, zorder=1)
    best = max(means, key=lambda level: means[level])
    for level, d in found.items():
        x, (mean, low, high) = places[(size, level)], mean_interval(d)
        if level != look.usual:
            ax.plot([x, x], [low, high], color=colours[level], linewidth=1.1, zorder=2)
        ax.plot(x, mean, "o", color=colours[level], markersize=3.4, zorder=3)
        if level == best:
            ax.plot(x, mean, "o", color="none", markeredgecolor="black", markersize=6, markeredgewidth=0.9, zorder=4)
            if look.colours is None:
                word = ax.annotate(str(level), (x, mean), (0, 5), textcoords="offset points", ha="center", fontsize=7.5)
                word.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _mark_failures(ax: Axes, rows: pd.DataFrame, look: Look, places: Any) -> None:
    """Runs that never learned or diverged, each on its own."""
    for flag, marker in FAILURES.items():
        if flag not in rows or not rows[flag].any():
            continue
        failed = rows[rows[flag].fillna(False).astype(bool)]
        xs = [places[(size, level)] for size, level in zip(failed["n_per_class"], failed[look.level], strict=True)]
        ax.plot(xs, failed["accuracy"], marker, color="black", fillstyle="none", markersize=4, zorder=5, clip_on=False)
        word = "hollow: never learned (loss at ln K)" if flag == "collapsed" else "x: diverged"
        note(ax, word, color="0.3", fontsize=7)


def note(ax: Axes, text: str, **look: Any) -> None:
    """A line in the upper left corner, below those that are there."""
    ax.text(0.01, 0.99 - 0.1 * len(ax.texts), text, transform=ax.transAxes, va="top", **look)


def _places(wide: pd.DataFrame) -> dict[tuple[Size, Any], float]:
    """Where each column stands: sizes at 0, 1, 2, ..., levels around them."""
    levels, pitch = _levels(wide), _pitch(wide)
    columns: Any = wide.columns
    order = list(dict.fromkeys(wide.columns.get_level_values(0)))
    return {
        (size, level): order.index(size) + pitch * (levels.index(level) - (len(levels) - 1) / 2)
        for size, level in columns
    }


def _levels(wide: pd.DataFrame) -> list[Any]:
    found = list(dict.fromkeys(wide.columns.get_level_values(1)))
    return found if isinstance(found[0], str) else sorted(found)


def _pitch(wide: pd.DataFrame) -> float:
    return 0.8 / len(_levels(wide))


def _colours(wide: pd.DataFrame, look: Look) -> dict[Any, Any]:
    """From dark to light with the level; distinguishable in grey and with colour-blind eyes."""
    levels = _levels(wide)
    shades: Any = np.linspace(0.05, 0.85, len(levels)) if len(levels) > 1 else [0.4]
    return look.colours or {level: to_hex(colormaps["cividis"](s)) for level, s in zip(levels, shades, strict=True)}


def _dress(ax: Axes, wide: pd.DataFrame, look: Look) -> None:
    """Sizes below the axis; levels below their own bars, or if there are too many, the first and the last."""
    order, levels = list(dict.fromkeys(wide.columns.get_level_values(0))), _levels(wide)
    ax.set_xlim(-0.55, len(order) - 0.45)
    ax.set_xticks(range(len(order)), [str(size) for size in order])
    ax.tick_params(axis="x", which="major", length=0, pad=3)
    ax.set_xlabel("training images per class")
    if look.colours is not None:
        return
    told = levels if wide.shape[1] <= DENSE else [levels[0], levels[-1]]
    ticks = {x: str(level) for (_, level), x in _places(wide).items() if level in told}
    ax.set_xticks(list(ticks), list(ticks.values()), minor=True)
    ax.xaxis.remove_overlapping_locs = False  # the middle level stands where its size does
    ax.tick_params(axis="x", which="minor", length=1.5, labelsize=5.5, colors=GREY, pad=1)
    ax.tick_params(axis="x", which="major", pad=10)
    ax.set_xlabel(f"{look.name} (small) by training images per class")
