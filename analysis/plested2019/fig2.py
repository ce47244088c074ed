"""Fig. 2: accuracy by the number of last layers that start at the high rate; 6 layers transferred."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels
from analysis.frame import ALL, pick, step, study

TITLE = "Fig. 2  Layers that start at the high rate, 6 transferred"
LOOK = panels.Look("high_lr_layers", "last layers at the high rate", ALL, "all 8 high")


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """6 layers transferred, none frozen, the high rate kept for lr.step epochs."""
    found = study(table)
    found = pick(found, layers=6, freeze=0, decay_epochs=step(found), high_lr_layers=list(range(1, ALL + 1)))
    pick(found, high_lr_layers=list(range(1, ALL)))
    return found


def draw(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy: the paper's figure."""
    return panels.accuracy(rows(table), LOOK, ax)


def gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What a low rate for the first layers brings, on the same splits."""
    return panels.gains(rows(table), LOOK, ax)


def figure(table: pd.DataFrame) -> Figure:
    """Both panels."""
    return panels.sheet(lambda ax: draw(table, ax), lambda ax: gains(table, ax), TITLE)


def caption(table: pd.DataFrame) -> str:
    """What is drawn."""
    return (
        "Top: mean over class splits with 95% intervals. Bottom: paired differences from the common practice, all "
        "8 layers at the high rate; the best number for each size is ringed and named."
    )


def beside(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The paper prints no number here."""
    return []
