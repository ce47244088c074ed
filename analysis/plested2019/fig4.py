"""Fig. 4: accuracy by the epochs before the high rate of the last layer falls; 6 layers transferred."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels
from analysis.frame import Missing, cells, pick, sizes, step, study
from analysis.plested2019.published import STEP, table2

TITLE = "Fig. 4  Epochs before the high rate of the last layer falls"


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """6 layers transferred, none frozen, only the last layer at lr.high; at least two decay_epochs."""
    found = pick(study(table), layers=6, freeze=0, high_lr_layers=1)
    if found["decay_epochs"].nunique() < 2:
        raise Missing("No finished runs with layers=6, high_lr_layers=1 and two or more decay_epochs.")
    return found


def _look(table: pd.DataFrame) -> panels.Look:
    high = step(study(table))
    return panels.Look("decay_epochs", "epochs before the fall", high, f"{high} epochs")


def draw(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy: the paper's figure."""
    return panels.accuracy(rows(table), _look(table), ax)


def gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What an earlier fall brings, on the same splits."""
    return panels.gains(rows(table), _look(table), ax)


def figure(table: pd.DataFrame) -> Figure:
    """Both panels."""
    return panels.sheet(lambda ax: draw(table, ax), lambda ax: gains(table, ax), TITLE)


def caption(table: pd.DataFrame) -> str:
    """What is drawn."""
    found = rows(table)
    tried = ", ".join(str(decay) for decay in sorted(found["decay_epochs"].unique()))
    return (
        f"Epochs tried, left to right: {tried}; lr.step is {step(found)}. Top: mean over class splits with 95% "
        "intervals. Bottom: paired differences from lr.step; the best for each size is ringed and named."
    )


def best(table: pd.DataFrame) -> dict[int | str, int]:
    """Per images per class, the decay_epochs with the highest mean accuracy."""
    found = rows(table)
    wide: Any = cells(found, "decay_epochs")
    return {size: int(wide[size].mean().idxmax()) for size in sizes(found)}


def beside(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What the paper prints, its value, ours; epochs of the paper scaled to this study's lr.step."""
    scale = step(study(table)) / STEP
    printed = {10: (10, 10), 50: (0, 3), 100: (0, 3), 250: (0, 3), "full": (STEP, STEP)}
    told = []
    for size, ours in best(table).items():
        if size in printed:
            ends = sorted({f"{end * scale:.3g}" for end in printed[size]}, key=float)
            paper = f"{'-'.join(str(e) for e in dict.fromkeys(printed[size]))} of {STEP}"
            scaled = f"; {'-'.join(ends)} at this lr.step" if scale != 1 else ""
            told.append((f"best epochs before the fall, n={size}", paper + scaled, f"{ours} of {STEP * scale:g}"))
        elif size in table2():
            told.append(
                (f"best epochs, n={size} (Table 2)", f"{table2()[size].decay} of {STEP}", f"{ours} of {STEP * scale:g}")
            )
    return told
