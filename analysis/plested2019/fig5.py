"""Fig. 5: accuracy by layers frozen; 6 layers transferred, only the last layer at the high rate."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels
from analysis.frame import Missing, Size, cells, pick, sizes, study
from analysis.plested2019.published import table2

TITLE = "Fig. 5  Layers frozen, 6 transferred"
LOOK = panels.Look("freeze", "layers frozen", 0, "none frozen")


def decays(table: pd.DataFrame) -> dict[Size, int]:
    """Per size, the decay_epochs that is shown: the one with most freeze levels, of equal ones the more accurate.

    The paper does not say at which decay_epochs its Fig. 5 was made.
    """
    found = _all(table)
    shown = {}
    for size in sizes(found):
        groups = found[found["n_per_class"] == size].groupby("decay_epochs")
        ranked = pd.DataFrame({"levels": groups["freeze"].nunique(), "accuracy": groups["accuracy"].mean()})
        first: Any = ranked.sort_values(["levels", "accuracy"]).iloc[-1]
        if first["levels"] > 1:
            shown[size] = int(first.name)
    return shown


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """6 layers transferred, only the last layer at lr.high, at the `decays` of each size."""
    found, shown = _all(table), decays(table)
    found = found[found["n_per_class"].map(shown) == found["decay_epochs"]]
    if found.empty:
        raise Missing("No finished runs with layers=6, high_lr_layers=1 and two or more values of freeze.")
    return found


def _all(table: pd.DataFrame) -> pd.DataFrame:
    return pick(study(table), layers=6, high_lr_layers=1)


def draw(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy: the paper's figure."""
    return panels.accuracy(rows(table), LOOK, ax)


def gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What freezing brings, on the same splits."""
    return panels.gains(rows(table), LOOK, ax)


def figure(table: pd.DataFrame) -> Figure:
    """Both panels."""
    return panels.sheet(lambda ax: draw(table, ax), lambda ax: gains(table, ax), TITLE)


def caption(table: pd.DataFrame) -> str:
    """What is drawn."""
    shown = ", ".join(f"{decay} at n={size}" for size, decay in decays(table).items())
    return (
        f"The last layer's high rate falls after this many epochs: {shown} (the paper does not say; shown is the "
        "setting with most freeze levels). Top: mean over class splits with 95% intervals. Bottom: paired differences "
        "from freezing nothing; the best for each size is ringed and named."
    )


def beside(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The freeze row of the paper's Table 2 and ours."""
    found = rows(table)
    wide: Any = cells(found, "freeze")
    return [
        (f"best number frozen, n={size} (Table 2)", str(table2()[size].freeze), str(int(wide[size].mean().idxmax())))
        for size in sizes(found)
        if size in table2()
    ]
