"""The figure of the study: accuracy by variant at the two epochs that validation may choose, and overfitting."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels, study
from analysis.hybrid_densenet.variants import PRINTED, VANILLA, printed, wide
from analysis.statistics import mean_interval

MEASURES = {
    "at_least_loss": ("#0072b2", "at least validation loss"),
    "at_best_accuracy": ("#d55e00", "at best validation accuracy"),
}


def accuracy(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Test accuracy: a mark per run, mean and 95% interval per variant, for both choices of the epoch."""
    ax = panels.new_axes(ax)
    for number, (value, (colour, name)) in enumerate(MEASURES.items()):
        _by_variant(wide(rows, value), ax, colour, 0.24 * number - 0.12)
        place = (0.01, 0.98 - 0.11 * number)
        ax.text(*place, name, color=colour, transform=ax.transAxes, va="top", fontsize=7, weight="bold")
    ax.margins(y=0.2)
    ax.set_ylabel("test top-1 (%)")
    return ax


def gains(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy over Vanilla of the same seed, in points, and the text's two tables."""
    ax, table = panels.new_axes(ax), wide(rows)
    _by_variant(table.sub(table[VANILLA], axis=0), ax, MEASURES["at_least_loss"][0], 0.0)
    for dataset, marker in zip(PRINTED, "D^", strict=True):
        values = printed("test accuracy", dataset)
        places = [place + 0.3 for place, name in enumerate(map(str, table)) if name in values]
        known = [float(values[name] - values[VANILLA]) for name in map(str, table) if name in values]
        ax.plot(places, known, marker, color="0.35", markersize=3.5, fillstyle="none", label=f"printed, {dataset}")
    ax.legend(fontsize=6.5, frameon=False, loc="best")
    ax.axhline(0, color=panels.GREY, linewidth=0.8)
    ax.set_ylabel("points over Vanilla")
    return ax


def overfitting(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Validation minus training loss after the last epoch, both in evaluation mode."""
    ax = panels.new_axes(ax)
    _by_variant(wide(rows, "overfitting"), ax, "black", 0.0)
    ax.set_ylabel("val - train loss (nats)")
    return ax


def _by_variant(table: pd.DataFrame, ax: Axes, colour: str, shift: float) -> None:
    for place, name in enumerate(table):
        mean, low, high = mean_interval(table[name])
        x = place + shift
        ax.plot([x] * len(table), table[name], "o", color=colour, markersize=2.5, alpha=0.4, markeredgewidth=0)
        ax.plot([x - 0.09, x + 0.09], [mean, mean], color=colour, linewidth=1.6)
        ax.plot([x, x], [low, high], color=colour, linewidth=0.9)
    ax.set_xticks(range(table.shape[1]), list(table.columns))


def draw(rows: pd.DataFrame) -> Figure:
    """Accuracy, differences from Vanilla, and overfitting, one above another."""
    with rc_context(panels.STYLE):
        figure = Figure(figsize=(panels.WIDTH, 6.0), layout="constrained")
        top, middle, bottom = figure.subplots(3, 1)
        accuracy(rows, top).set_title("Test accuracy at the epoch that validation chooses")
        gains(rows, middle).set_title("At the least validation loss, over Vanilla of the same seed")
        overfitting(rows, bottom).set_title("Overfitting after the last epoch, in evaluation mode")
        return figure


CAPTION = (
    "A: Drop Channel, B: squeeze-and-excitation, C: checkpointing. Each mark is a run, a bar the mean, a line its 95% "
    "interval over seeds, without adjustment. The printed differences are of single runs."
)
FIGURE = study.Figure("variants", "Variants of DenseNet-BC", draw, lambda rows: CAPTION)
