"""Figures 1 to 6 of the paper: what each shows, its caption, and the paper's numbers next to ours."""

import contextlib
import math
from typing import Any

import pandas as pd

from analysis.frame import Missing, at, cells, sizes, step
from analysis.panels import Comparison, LevelFigure, Levels
from analysis.plested2019 import experiments
from analysis.plested2019.experiments import ALL, COMMON, LAYERS, NONE, OPTIMAL
from analysis.plested2019.published import STEP, reported_value, table2
from analysis.statistics import mean_interval

TOP = "Top: mean over class splits with 95% intervals."
BEST = "the best level of each size is ringed and named."
LAYER_LEVELS = Levels("layers", "layers transferred", 7, "7 layers")


def format_interval(mean: float, low: float, high: float) -> str:
    """A mean and its interval, in percent."""
    return f"{mean:.1f}%" if math.isnan(low) else f"{mean:.1f}% [{low:.1f}, {high:.1f}]"


def _compare_layers(rows: pd.DataFrame) -> list[Comparison]:
    """Section 3.1: accuracies at n=10."""
    wide = cells(experiments.layers_all_high(rows), "layers")
    comparisons = []
    for layers in (7, 5):
        paper = reported_value("sec 3.1", "accuracy", "10", str(layers))
        ours = format_interval(*mean_interval(at(wide, 10, [layers], min_units=1)[layers]))
        comparisons.append((f"accuracy, n=10, {layers} layers", f"{paper:.1f}%", ours))
    paper = reported_value("sec 3.1", "relative increase", "10", "7->5")
    gain = _relative_gain(wide, 5, 7)
    return [*comparisons, ("5 instead of 7 layers, n=10, relative", f"+{paper:.1f}%", f"{gain:+.1f}%")]


def _relative_gain(wide: pd.DataFrame, level: Any, reference: Any) -> float:
    """Percent by which the mean of one level exceeds another at n=10, on the same units."""
    pair = at(wide, 10, [level, reference], min_units=1)
    return float(100 * (pair[level].mean() / pair[reference].mean() - 1))


FIG1 = LevelFigure(
    "fig1",
    "Fig. 1  Layers transferred, all layers at the high learning rate",
    lambda rows: {"": experiments.layers_all_high(rows)},
    lambda rows: LAYER_LEVELS,
    lambda rows: f"{TOP} Bottom: paired differences from 7 layers, the common practice; {BEST}",
    _compare_layers,
)

FIG2 = LevelFigure(
    "fig2",
    "Fig. 2  Layers that start at the high learning rate, 6 transferred",
    lambda rows: {"": experiments.high_lr_layers(rows)},
    lambda rows: Levels("high_lr_layers", "last layers at the high learning rate", ALL, "all 8 high"),
    lambda rows: (
        f"{TOP} Bottom: paired differences from the common practice, all 8 layers at the high learning rate; {BEST}"
    ),
)


def _decay_charts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The low setting left, the high one right, as in the paper's caption (its text says the reverse)."""
    decays = experiments.low_and_high_decay(rows)
    return {f"decay_epochs = {decay}": experiments.layers_one_high(rows, decay) for decay in decays}


def _caption_layers_decay(rows: pd.DataFrame) -> str:
    low, high = experiments.low_and_high_decay(rows)
    return (
        f"Left: decay_epochs={low}, right: decay_epochs={high} (lr.step). {TOP} Bottom: paired differences from 7 "
        f"layers; {BEST} The paper's caption and text disagree about which chart is which; here each chart is named "
        "by its setting."
    )


def _compare_decay_gains(rows: pd.DataFrame) -> list[Comparison]:
    """Section 3.3: what a low decay brings at n=10 and n=500."""
    ours, comparisons = experiments.decay_gains(rows), []
    high = cells(experiments.layers_one_high(rows, experiments.low_and_high_decay(rows)[1]), "layers")
    for size in (10, 500):
        if size in ours:
            paper = reported_value("sec 3.3", "increase in accuracy", str(size))
            mean, lower, upper = mean_interval(ours[size])
            relative = 100 * mean / at(high, size, LAYERS).mean().max()
            here = f"{mean:+.2f} [{lower:+.2f}, {upper:+.2f}] points, {relative:+.1f}% relative"
            comparisons.append((f"low over high decay, n={size}", f"+{paper}%", here))
    return comparisons


FIG3 = LevelFigure(
    "fig3",
    "Fig. 3  Layers transferred, only the last layer at the high learning rate",
    _decay_charts,
    lambda rows: LAYER_LEVELS,
    _caption_layers_decay,
    _compare_decay_gains,
)


def _caption_decay(rows: pd.DataFrame) -> str:
    tried = ", ".join(map(str, sorted(experiments.decay_epochs(rows)["decay_epochs"].unique())))
    return (
        f"decay_epochs, left to right: {tried}; lr.step is {step(rows)}. {TOP} "
        f"Bottom: paired differences from lr.step; {BEST}"
    )


def _best_levels(rows: pd.DataFrame, level: str) -> dict[int | str, int]:
    """Per size, the level with the highest mean accuracy; sizes whose levels share no unit are left out."""
    wide, best = cells(rows, level), {}
    for size in sizes(rows):
        with contextlib.suppress(Missing):
            best[size] = experiments.best_level(wide, size)
    return best


def _compare_decay(rows: pd.DataFrame) -> list[Comparison]:
    """Section 3.4 and table 2; the paper's epochs are also scaled to this study's lr.step."""
    scale = step(rows) / STEP
    printed = {10: (10, 10), 50: (0, 3), 100: (0, 3), 250: (0, 3), "full": (STEP, STEP)}
    comparisons = []
    for size, best in _best_levels(experiments.decay_epochs(rows), "decay_epochs").items():
        ours = f"{best} of {STEP * scale:g}"
        if size in printed:
            scaled_ends = sorted({f"{end * scale:.3g}" for end in printed[size]}, key=float)
            paper = f"{'-'.join(map(str, dict.fromkeys(printed[size])))} of {STEP}"
            scaled = f"; {'-'.join(scaled_ends)} at this lr.step" if scale != 1 else ""
            comparisons.append((f"best epochs before decay, n={size}", paper + scaled, ours))
        elif size in table2():
            comparisons.append((f"best epochs, n={size} (Table 2)", f"{table2()[size].decay} of {STEP}", ours))
    return comparisons


FIG4 = LevelFigure(
    "fig4",
    "Fig. 4  Epochs before the high learning rate of the last layer decays",
    lambda rows: {"": experiments.decay_epochs(rows)},
    lambda rows: Levels(
        "decay_epochs", "epochs before the high learning rate decays", step(rows), f"{step(rows)} epochs"
    ),
    _caption_decay,
    _compare_decay,
)


def _caption_freeze(rows: pd.DataFrame) -> str:
    shown = ", ".join(f"{decay} at n={size}" for size, decay in experiments.freeze_decays(rows).items())
    return (
        f"Epochs before the last layer's high learning rate decays: {shown}. The paper does not say which it used; "
        f"shown is the value with most levels of freeze. {TOP} Bottom: paired differences from freezing nothing; {BEST}"
    )


def _compare_freeze(rows: pd.DataFrame) -> list[Comparison]:
    """The freeze row of table 2."""
    ours = _best_levels(experiments.freeze(rows), "freeze")
    return [
        (f"best number frozen, n={size} (Table 2)", str(table2()[size].freeze), str(best))
        for size, best in ours.items()
        if size in table2()
    ]


FIG5 = LevelFigure(
    "fig5",
    "Fig. 5  Layers frozen, 6 transferred",
    lambda rows: {"": experiments.freeze(rows)},
    lambda rows: Levels("freeze", "layers frozen", 0, "none frozen"),
    _caption_freeze,
    _compare_freeze,
)


def _caption_protocols(rows: pd.DataFrame) -> str:
    settings = experiments.optimal_settings(rows).items()
    used = "; ".join(
        f"n={size}: {s['layers']} layers, {s['decay_epochs']} epochs, {s['freeze']} frozen" for size, s in settings
    )
    return (
        f"Optimal: the paper's Table 2 at this study's lr.step of {step(rows)} epochs{used and f' ({used})'}, with "
        f"only the last layer at the high learning rate. Commonly used: 7 layers, all at the high learning rate. {TOP} "
        "Bottom: paired differences from the commonly used protocol."
    )


def _compare_protocols(rows: pd.DataFrame) -> list[Comparison]:
    """The last row of table 2, and the relative gain at n=10."""
    wide, comparisons = cells(experiments.protocols(rows), "protocol"), []
    for size, paper in table2().items():
        if (size, OPTIMAL) in wide:
            ours = format_interval(*mean_interval(wide[(size, OPTIMAL)]))
            comparisons.append((f"optimal protocol, n={size}", f"{paper.accuracy}%", ours))
    try:
        gain = _relative_gain(wide, OPTIMAL, COMMON)
    except Missing:
        return comparisons
    paper_gain = reported_value("text after Table 2 / conclusion", "relative increase", "10")
    return [*comparisons, ("optimal over commonly used, n=10, relative", f"+{paper_gain}%", f"{gain:+.1f}%")]


FIG6 = LevelFigure(
    "fig6",
    "Fig. 6  Optimal, commonly used, no transfer",
    lambda rows: {"": experiments.protocols(rows)},
    lambda rows: Levels(
        "protocol", "protocol", COMMON, "commonly used", {NONE: "#8a8a8a", COMMON: "#e69f00", OPTIMAL: "#0072b2"}
    ),
    _caption_protocols,
    _compare_protocols,
)

FIGURES = (FIG1, FIG2, FIG3, FIG4, FIG5, FIG6)
