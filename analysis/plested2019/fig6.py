"""Fig. 6: the paper's optimal protocol, the commonly used one, and no transfer, by images per class."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels
from analysis.frame import ALL, Missing, Size, at, cells, pick, sizes, step, study
from analysis.plested2019.fig1 import said
from analysis.plested2019.published import STEP, nearest, spoken, table2
from analysis.statistics import mean_interval

TITLE = "Fig. 6  Optimal, commonly used, no transfer"
NONE, COMMON, OPTIMAL = "no transfer", "commonly used", "optimal"
LOOK = panels.Look(
    "protocol", "protocol", COMMON, "commonly used", {NONE: "#bbbbbb", COMMON: "#e69f00", OPTIMAL: "#0072b2"}
)


def settings(table: pd.DataFrame) -> dict[Size, dict[str, int]]:
    """Per size, the setting of the paper's Table 2, if the table has it. Where lr.step is not the paper's 30 epochs,
    its decay_epochs is scaled, and the nearest one that was tried within an epoch of that is taken."""
    found = study(table)
    scale, chosen = step(found) / STEP, {}
    for size in sizes(found):
        paper = nearest(size)
        there = (found["n_per_class"] == size) & (found["layers"] == paper.layers) & (found["freeze"] == paper.freeze)
        tried = found.loc[there & (found["high_lr_layers"] == 1), "decay_epochs"]
        decay = min(tried, key=lambda d: abs(d - paper.decay * scale), default=math.inf)
        if abs(decay - paper.decay * scale) < 1:
            chosen[size] = {"layers": paper.layers, "freeze": paper.freeze, "decay_epochs": int(decay)}
    return chosen


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """The three protocols, named in the column `protocol`."""
    found = study(table)
    high = {"high_lr_layers": ALL, "decay_epochs": step(found), "freeze": 0}
    parts = [_named(found, NONE, layers=0, **high), _named(found, COMMON, layers=7, **high)]
    for size, setting in settings(table).items():
        parts.append(_named(found, OPTIMAL, n_per_class=size, high_lr_layers=1, **setting))
    joined = pd.concat([part for part in parts if len(part)] or [found.head(0).assign(protocol="")])
    if joined["protocol"].nunique() < 2:
        have = ", ".join(joined["protocol"].unique()) or "none"
        raise Missing(f"Fewer than two of the protocols optimal, commonly used and no transfer are finished: {have}.")
    return joined


def _named(found: pd.DataFrame, protocol: str, **factors: object) -> pd.DataFrame:
    try:
        return pick(found, **factors).assign(protocol=protocol)
    except Missing:
        return found.head(0).assign(protocol=protocol)


def draw(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy: the paper's figure."""
    found = rows(table)
    ax = panels.accuracy(found, LOOK, ax)
    present = [name for name in (OPTIMAL, COMMON, NONE) if (found["protocol"] == name).any()]
    for name in present:
        colour = "0.4" if name == NONE else LOOK.colours[name] if LOOK.colours else None
        panels.note(ax, name, color=colour, fontsize=8, weight="bold")
    return ax


def gains(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What the optimal protocol and no transfer bring over the commonly used one, on the same splits."""
    return panels.gains(rows(table), LOOK, ax)


def figure(table: pd.DataFrame) -> Figure:
    """Both panels."""
    return panels.sheet(lambda ax: draw(table, ax), lambda ax: gains(table, ax), TITLE)


def caption(table: pd.DataFrame) -> str:
    """What is drawn."""
    used = "; ".join(
        f"n={size}: {s['layers']} layers, {s['decay_epochs']} epochs, {s['freeze']} frozen"
        for size, s in settings(table).items()
    )
    epochs = step(study(table))
    return (
        f"Optimal is the paper's Table 2 at this study's lr.step of {epochs} epochs{used and f' ({used})'}, with only "
        "the last layer at the high rate. Commonly used: 7 layers, all at the high rate. Top: mean over class splits "
        "with 95% intervals. Bottom: paired differences from the commonly used protocol."
    )


def beside(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What the paper prints, its value, ours."""
    wide = cells(rows(table), "protocol")
    told = []
    for size, paper in table2().items():
        if (size, OPTIMAL) in wide:
            ours = said(*mean_interval(wide[(size, OPTIMAL)]))
            told.append((f"optimal protocol, n={size}", f"{paper.accuracy}%", ours))
    if (10, OPTIMAL) not in wide or (10, COMMON) not in wide:
        return told
    pair = at(wide, 10, [OPTIMAL, COMMON], least=1)
    gain = 100 * (pair[OPTIMAL].mean() / pair[COMMON].mean() - 1)
    paper_gain = spoken("text after Table 2 / conclusion", "relative increase", "10")
    return [*told, ("optimal over commonly used, n=10, relative", f"+{paper_gain}%", f"{gain:+.1f}%")]
