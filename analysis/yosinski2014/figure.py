"""The figure of the 2014 study: accuracy by layers copied, gains over the base network, training from scratch."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels, study
from analysis.yosinski2014.networks import base_accuracy, scratch, transferred

LOOK = {  # colour, marker, name
    "BnB": ("#0072b2", "s", "BnB frozen, same half"),
    "BnB+": ("#56b4e9", "s", "BnB+ tuned, same half"),
    "AnB": ("#d55e00", "o", "AnB frozen, other half"),
    "AnB+": ("#e69f00", "o", "AnB+ tuned, other half"),
}


def accuracy(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy by layer: every network a mark, means joined, the base networks a line."""
    return _by_layer(transferred(rows), "top1", base_accuracy(rows), "validation top-1 (%)", panels.new_axes(ax))


def gains(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The same, over the base network of the same target half."""
    ax = _by_layer(transferred(rows), "gain", 0.0, "points over own base", panels.new_axes(ax))
    ax.set_ylim(-3.4, 1.9)  # the range of the fine-tuned networks
    ax.text(3.9, -3.3, "AnB falls to -8.3 at 7", fontsize=7, color=LOOK["AnB"][0], ha="right")
    return ax


def _by_layer(networks: pd.DataFrame, value: str, base: float, label: str, ax: Axes) -> Axes:
    with rc_context(panels.STYLE):
        ax.axhline(base, color=panels.GREY, linewidth=0.8)
        ax.text(7.9, base, "base", color="0.3", va="bottom", ha="right", fontsize=7)
        for i, (treatment, (colour, marker, _)) in enumerate(LOOK.items()):
            part = networks[networks["treatment"] == treatment]
            x = part["n_layers"] + 0.07 * (i - 1.5)
            ax.plot(x, part[value], marker, color=colour, markersize=2.8, alpha=0.55, markeredgewidth=0)
            mean = part.groupby("n_layers")[value].mean()
            ax.plot(mean.index, mean, color=colour, linewidth=1.4)
        ax.set_xlim(0.7, 7.9)
        ax.set_xlabel("layers copied")
        ax.set_ylabel(label)
        return ax


def from_scratch(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Training from scratch on few images of each of 1000 classes: a collapsed network is hollow."""
    networks = scratch(rows)
    with rc_context(panels.STYLE):
        ax = panels.new_axes(ax)
        places = range(len(networks))
        ax.plot(places, networks["top1"], color="0.75", linewidth=0.8, zorder=1)
        for x, (top1, collapsed) in enumerate(zip(networks["top1"], networks["collapsed"], strict=True)):
            ax.plot(x, top1, "o", color="black", markersize=5, fillstyle="none" if collapsed else "full", clip_on=False)
        ax.set_xticks(list(places), [str(n) for n in networks["n_per_class"]])
        ax.set_ylim(bottom=0)
        ax.set_xlabel("training images per class")
        ax.set_ylabel("validation top-1 (%)")
        text = "hollow: collapsed (loss at ln 1000)\nn = 1, 2: training images memorized"
        ax.text(0.02, 0.95, text, transform=ax.transAxes, va="top", fontsize=7.5)
        return ax


def draw(rows: pd.DataFrame) -> Figure:
    """Accuracy, gains over the own base, and training from scratch, one above another."""
    with rc_context(panels.STYLE):
        figure = Figure(figsize=(panels.WIDTH, 6.2), layout="constrained")
        top, middle, bottom = figure.subplots(3, 1, height_ratios=(1.2, 1.2, 0.9))
        accuracy(rows, top).set_title("As plotted in 2014: targets of all halves")
        gains(rows, middle).set_title("The same networks, each over the base of its own target half")
        from_scratch(rows, bottom).set_title("From scratch on fewer images")
        for i, (colour, _, name) in enumerate(LOOK.values()):
            top.text(0.02, 0.44 - 0.11 * i, name, color=colour, transform=top.transAxes, va="top", weight="bold")
        return figure


CAPTION = (
    "Each mark is a network, lines are means. Measure: mean of the ten best of 450 validation tests, as in 2014. 22 of "
    "the 42 fine-tuned networks have no published log, so AnB+ and BnB+ are one or two networks a layer, mostly of the "
    "easiest and of the hardest target half."
)
FIGURE = study.Figure("networks", "Yosinski et al. (2014), from the published logs", draw, lambda rows: CAPTION)
