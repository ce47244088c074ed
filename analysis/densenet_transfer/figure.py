"""Accuracy of every condition, and its difference from the main one."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels, study
from analysis.densenet_transfer.conditions import CONDITIONS, wide
from analysis.statistics import mean_interval

PRINTED = {"a": 88.5, "e": 80.0, "f": 83.0}  # validation accuracy, per cent


def accuracy(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A mark per condition with its 95% interval over seeds, and a mark per seed; hollow: the number in the text."""
    table = wide(rows)
    with rc_context(panels.STYLE):
        ax = panels.new_axes(ax)
        names = [name for name in CONDITIONS if name in table]
        for y, name in enumerate(names):
            mean, low, high = mean_interval(table[name])
            ax.plot(table[name], [y] * len(table), ".", color="0.7", markersize=3)
            ax.plot([low, high], [y, y], color="black", linewidth=1.1)
            ax.plot(mean, y, "o", color="#0072b2", markersize=4)
            if name in PRINTED:
                ax.plot(PRINTED[name], y, "D", color="#d55e00", fillstyle="none", markersize=4)
        ax.set_yticks(range(len(names)), [f"({name}) {CONDITIONS[name]}" for name in names])
        ax.invert_yaxis()
        ax.grid(axis="x", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel(panels.accuracy_label(rows))
        return ax


def draw(rows: pd.DataFrame) -> Figure:
    """The one panel."""
    with rc_context(panels.STYLE):
        figure = Figure(figsize=(panels.WIDTH, 3.6), layout="constrained")
        accuracy(rows, figure.subplots())
        return figure


CAPTION = (
    "Means over seeds and 95% intervals; small marks are seeds. Diamonds are validation accuracies that the text "
    "prints, of a network trained on ImageNet and of all 50,000 training images."
)
FIGURE = study.Figure("conditions", "DenseNet-121 to CIFAR-10", draw, lambda rows: CAPTION)
