"""Figures of our runs of the 2014 study: accuracy by layers copied, and gains over the base of the same target half."""

from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels, study
from analysis.frame import Missing, one_unit
from analysis.statistics import mean_interval
from analysis.yosinski2014.figure import LOOK
from analysis.yosinski2014.runs import LAYERS as LAYERS_COPIED
from analysis.yosinski2014.runs import TREATMENTS, accuracy, base, of_halves
from analysis.yosinski2014.runs_tables import by_layers, dissimilar

SETS = {"natural": ("#009e73", "o"), "man-made": ("#cc79a7", "s"), "random": ("0.35", "^")}  # colour and marker


def draw(rows: pd.DataFrame) -> Figure:
    """Accuracy above, paired gains over baseB below; dashed lines are the gains of the published networks."""
    with rc_context(panels.STYLE):
        figure = Figure(figsize=(panels.WIDTH, 5.4), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        _accuracies(rows, top)
        _gains(rows, bottom)
        top.set_title("Accuracy, mean over target halves")
        bottom.set_title("Gain over the base of the same half (dashed: published)")
        return figure


def _accuracies(rows: pd.DataFrame, ax: Axes) -> None:
    own = base(rows)
    ax.axhline(float(own.mean()), color=panels.GREY, linewidth=0.8)
    ax.text(7.6, float(own.mean()), "base", color="0.3", va="bottom", ha="right", fontsize=7)
    for i, (treatment, (colour, marker, name)) in enumerate(LOOK.items()):
        for _, networks in _wide(rows, treatment).iterrows():
            ax.plot(networks.index + _shift(i), networks, marker, color=colour, markersize=2.6, alpha=0.4, mew=0)
        mean = _wide(rows, treatment).mean()
        ax.plot(mean.index + _shift(i), mean, color=colour, linewidth=1.4, label=name)
    ax.legend(frameon=False, fontsize=7, labelcolor="linecolor", ncols=2)
    ax.set_ylabel(panels.accuracy_label(rows))


def _gains(rows: pd.DataFrame, ax: Axes) -> None:
    table = by_layers(rows)
    ax.axhline(0, color=panels.GREY, linewidth=0.8)
    for i, (treatment, (colour, marker, _)) in enumerate(LOOK.items()):
        part = table[table["treatment"] == treatment]
        x = part["layers"] + _shift(i)
        ax.plot(x, part["gain"], marker=marker, color=colour, markersize=3.2, linewidth=1.4)
        ax.vlines(x, part["gain_low"], part["gain_high"], color=colour, linewidth=0.9)
        if "paper_gain" in part:
            ax.plot(x, part["paper_gain"], "--", color=colour, linewidth=0.9)
    ax.set_xticks(range(1, 8))
    ax.set_xlabel("layers copied")
    ax.set_ylabel("points over own base")


def _wide(rows: pd.DataFrame, treatment: str) -> pd.DataFrame:
    """Accuracy by unit and layers; no rows where the treatment has not been run."""
    try:
        return accuracy(rows, treatment)
    except Missing:
        return pd.DataFrame()


def _shift(i: int) -> float:
    """Treatments stand side by side."""
    return 0.08 * (i - (len(TREATMENTS) - 1) / 2)


def caption(rows: pd.DataFrame) -> str:
    """What is drawn, and of how many networks."""
    halves = of_halves(rows)
    own = base(rows)
    mean, low, high = mean_interval(own)
    interval = "" if low != low else f" [{low:.1f}, {high:.1f}]"
    count = own.index.get_level_values("unit").nunique()
    units = f"{count} seeds of one target half" if one_unit(rows) else f"{count} target halves (units)"
    return (
        f"{len(halves)} networks of {units}; base "
        f"{mean:.1f}%{interval}. Marks are single networks, lines means, bars 95% intervals. Dashed: published "
        "networks, each over the base of its own half; theirs is at 62.5% of 500 classes: sizes are not comparable."
    )


def compare_with_paper(rows: pd.DataFrame) -> "list[panels.Comparison]":
    """Mean gains over 1 to 7 layers, the published networks' and ours, of the treatments that have them all."""
    complete = by_layers(rows).groupby("treatment").filter(lambda lines: set(LAYERS_COPIED) <= set(lines["layers"]))
    table: Any = complete.groupby("treatment")[["paper_gain", "gain"]].mean()
    return [
        (f"{name} over base, mean of 1 to 7 layers", f"{paper:+.2f}", f"{ours:+.2f}")
        for name, paper, ours in zip(table.index, table["paper_gain"], table["gain"], strict=True)
    ]


def draw_dissimilar(rows: pd.DataFrame) -> Figure:
    """Frozen layers between dissimilar halves, and of random weights: change from the network with none frozen."""
    table = dissimilar(rows)
    with rc_context(panels.STYLE):
        ax = panels.new_axes(None)
        for features, (colour, marker) in SETS.items():
            part = table[table["features"] == features]
            ax.plot(part["layers"], part["change"], marker=marker, color=colour, markersize=3.4, label=features)
            ax.plot(part["layers"], part["paper_change"], "--", color=colour, linewidth=0.9)
        ax.axhline(0, color=panels.GREY, linewidth=0.8)
        ax.set_xlabel("layers frozen")
        ax.set_ylabel("points over own base")
        ax.legend(frameon=False, fontsize=7.5)
        figure = ax.figure
        assert isinstance(figure, Figure)
        return figure


LAYERS = study.Figure("layers", "Frozen and fine-tuned layers, our runs", draw, caption, compare_with_paper)
DISSIMILAR = study.Figure(
    "dissimilar",
    "Frozen layers between dissimilar classes, and of random weights",
    draw_dissimilar,
    lambda rows: (
        "Target natural: copied from man-made classes; target man-made: from natural ones; random: all classes, "
        "layers at their initial weights. Dashed: published networks. One network each."
    ),
)
