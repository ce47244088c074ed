"""Fig. 1: accuracy by layers transferred and images per class, every layer at the high rate."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels
from analysis.frame import ALL, at, cells, pick, step, study
from analysis.plested2019.published import spoken
from analysis.statistics import mean_interval

TITLE = "Fig. 1  Layers transferred, all layers at the high rate"
LAYERS = [4, 5, 6, 7]
LOOK = panels.Look("layers", "layers transferred", 7, "7 layers")


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """Every layer at lr.high, nothing frozen; 4 to 7 layers, and fewer if the table has some of 1 to 3."""
    found = study(table)
    found = pick(found, high_lr_layers=ALL, decay_epochs=step(found), freeze=0)
    if not found["layers"].isin([1, 2, 3]).any():
        found = pick(found, layers=LAYERS)
    return found


def draw(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy: the paper's figure."""
    return panels.accuracy(rows(table), LOOK, ax)


def gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What transferring fewer than 7 layers brings, on the same splits."""
    return panels.gains(rows(table), LOOK, ax)


def figure(table: pd.DataFrame) -> Figure:
    """Both panels."""
    return panels.sheet(lambda ax: draw(table, ax), lambda ax: gains(table, ax), TITLE)


def caption(table: pd.DataFrame) -> str:
    """What is drawn."""
    return (
        "Top: mean over class splits with 95% intervals. Bottom: paired differences from 7 layers, the common "
        "practice; the best number of layers for each size is ringed and named."
    )


def beside(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What the paper prints, its value, ours."""
    wide = cells(rows(table), "layers")
    told: list[tuple[str, str, str]] = []
    for layers in (7, 5):
        paper = spoken("sec 3.1", "accuracy", "10", str(layers))
        told.append((f"accuracy, n=10, {layers} layers", f"{paper:.1f}%", _said(wide, layers)))
    paper = spoken("sec 3.1", "relative increase", "10", "7->5")
    pair = at(wide, 10, [5, 7], least=1)
    ours = 100 * (pair[5].mean() / pair[7].mean() - 1)
    return [*told, ("5 instead of 7 layers, n=10, relative", f"+{paper:.1f}%", f"{ours:+.1f}%")]


def _said(wide: pd.DataFrame, layers: Any) -> str:
    at(wide, 10, [layers], least=1)
    return said(*mean_interval(wide[(10, layers)]))


def said(mean: float, low: float, high: float) -> str:
    """A mean and its interval, in percent."""
    return f"{mean:.1f}%" if low != low else f"{mean:.1f}% [{low:.1f}, {high:.1f}]"
