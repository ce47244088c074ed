"""The figures of the study: each arm's accuracy, training accuracy and probe, and paired differences."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels, study
from analysis.boost2018 import contrasts
from analysis.boost2018.arms import (
    ALL,
    ARMS,
    BASELINE,
    FROZEN,
    MEASURES,
    RANDOM,
    SELF,
    TRANSFERRED,
    by_arm,
    difference,
)
from analysis.frame import Missing, one_unit
from analysis.panels import Comparison
from analysis.selection import has_test
from analysis.statistics import by_unit, mean_interval

RETRAINED, IS_FROZEN, REPORTED, LEARNED = "#0072b2", "#d55e00", "#0072b2", "#e69f00"  # colours
TITLES = {
    "accuracy": "Accuracy on B, by what the first convolution was copied from",
    "overfit": "Training and reported accuracy on B, and the gap between them",
    "probe": "A linear probe of A on the features of networks trained on B",
}
PROBED = (*ARMS, f"{SELF}{FROZEN}", f"{TRANSFERRED}{FROZEN}", RANDOM)


def _dots(ax: Axes, values: "dict[str, pd.Series[Any]]", colour: "dict[str, str] | str") -> None:
    """A line per arm, from the top: units as small dots, their mean with its 95% interval."""
    for y, (arm, series) in enumerate(values.items()):
        shade = colour if isinstance(colour, str) else colour[arm]
        units = by_unit(series.dropna())
        mean, low, high = mean_interval(series)
        ax.plot(units, [y] * len(units), "o", color=shade, markersize=2.2, alpha=0.35, markeredgewidth=0)
        ax.plot([low, high], [y, y], color=shade, linewidth=1.3, solid_capstyle="butt")
        ax.plot(mean, y, "o", color=shade, markersize=4)
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.set_yticks(range(len(values)), list(values))
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)


def _colours(arms: "list[str]") -> dict[str, str]:
    return {arm: IS_FROZEN if arm.endswith("frozen") else RETRAINED for arm in arms}


def _differences(rows: pd.DataFrame, arms: "list[str]", reference: str, value: str, ax: Axes) -> None:
    """Paired differences from the reference, which has none."""
    nothing = pd.Series(dtype=float)
    found = {arm: nothing if arm == reference else difference(rows, arm, reference, value) for arm in arms}
    ax.axvline(0, color=panels.GREY, linewidth=0.8)
    _dots(ax, found, _colours(arms))
    ax.set_xlabel(f"points vs. {reference}")
    ax.tick_params(axis="y", labelleft=False)


def _present(rows: pd.DataFrame, arms: "tuple[str, ...]", value: str) -> "dict[str, pd.Series[Any]]":
    wide = by_arm(rows, value)
    found = {arm: wide[arm] for arm in arms if arm in wide}
    if len(found) < 2:
        raise Missing(f"Fewer than two arms are finished with {MEASURES[value]}.")
    return found


def _panels(title: str, arms: int) -> tuple[Figure, Axes, Axes]:
    """A figure with two panels side by side, a line for each arm."""
    figure = Figure(figsize=(panels.WIDTH, 0.9 + 0.24 * arms), layout="constrained")
    figure.suptitle(title, fontsize=8.5, fontweight="bold", x=0.01, ha="left")
    left, right = figure.subplots(1, 2)
    return figure, left, right


def compare(rows: pd.DataFrame, value: str, arms: "tuple[str, ...]", reference: str) -> Figure:
    """A measure of these arms, and their paired differences from the reference.

    Raises:
        Missing: the reference, or all arms but one, have no rows.
    """
    with rc_context(panels.STYLE):
        found = _present(rows, arms, value)
        figure, left, right = _panels(TITLES[value], len(found))
        _dots(left, found, _colours([*found]))
        left.set_xlabel(MEASURES[value])
        _differences(rows, [*found], reference, value, right)
        return figure


def training(rows: pd.DataFrame) -> Figure:
    """Training and reported accuracy of the retrained arms, and their gap against that of Non-transferred.

    Raises:
        Missing: Non-transferred, or all arms but one, have no rows.
    """
    with rc_context(panels.STYLE):
        reported, learned = _present(rows, ARMS, "accuracy"), _present(rows, ARMS, "train_accuracy")
        figure, left, right = _panels(TITLES["overfit"], len(reported))
        for series, colour in ((learned, LEARNED), (reported, REPORTED)):
            _dots(left, series, colour)
        left.set_xlabel("accuracy (%)")
        for x, text, colour in ((0.02, "reported", REPORTED), (0.98, "training", LEARNED)):
            side: Any = "left" if x < 0.5 else "right"
            left.set_title(text, loc=side, color=colour, fontsize=8)
        _differences(rows, [*reported], SELF, "overfit", right)
        right.set_xlabel("gap vs. Non-transferred")
        return figure


def _caption(text: str, rows: pd.DataFrame) -> str:
    units, seeds = rows["unit"].nunique(), rows["seed"].nunique()
    dots = f"draws ({units}; {seeds} seed{'s' if seeds > 1 else ''} averaged)"
    if one_unit(rows):
        dots = f"seeds of one draw ({seeds})"
    return f"{text} Small dots are {dots}, large ones means with 95% intervals."


def _reported(rows: pd.DataFrame) -> str:
    return "test images" if has_test(rows) else "validation images, by which nothing was chosen"


def _with_paper(rows: pd.DataFrame) -> list[Comparison]:
    """The one number that the text prints, quoted from Yosinski et al. (2014), and its own comparison."""
    lines = []
    for label, printed, contrast in (
        (f"{TRANSFERRED} minus {BASELINE}, points", "1 to 2", contrasts.boost_over_baseline),
        (f"{TRANSFERRED} minus {SELF}, points", "above 0", contrasts.boost),
    ):
        mean, low, high = mean_interval(contrast(rows))
        lines.append((label, printed, f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"))
    return lines


FIGURES = (
    study.Figure(
        "arms",
        TITLES["accuracy"],
        partial(compare, value="accuracy", arms=ALL, reference=SELF),
        lambda rows: _caption(
            f"Blue: all layers retrained; orange: the copied, or untrained, layers frozen. On {_reported(rows)}.", rows
        ),
        _with_paper,
    ),
    study.Figure(
        "training",
        TITLES["overfit"],
        training,
        lambda rows: _caption(
            f"Reported: on {_reported(rows)}. Expectation 2 has Transferred left of 0 in the right panel.", rows
        ),
    ),
    study.Figure(
        "probe",
        TITLES["probe"],
        partial(compare, value="probe", arms=PROBED, reference=BASELINE),
        partial(_caption, "A ridge classifier of the input of the last layer, on the validation images of A."),
    ),
)
