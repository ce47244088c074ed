"""Fig. 3: accuracy by layers transferred for a low and a high decay_epochs; only the last layer at the high rate."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels
from analysis.frame import Missing, at, cells, pick, sizes, step, study
from analysis.plested2019.fig1 import LAYERS
from analysis.plested2019.published import STEP, spoken
from analysis.statistics import mean_interval

TITLE = "Fig. 3  Layers transferred, only the last layer at the high rate"
LOOK = panels.Look("layers", "layers transferred", 7, "7 layers")


def decays(table: pd.DataFrame) -> tuple[int, int]:
    """The low and the high decay_epochs: of those tried with several numbers of layers, the one nearest to 5 in 30,
    and lr.step.

    Raises:
        Missing: the table has no such two.
    """
    found = study(table)
    high = step(found)
    found = pick(found, high_lr_layers=1, freeze=0, layers=LAYERS)
    counts = found.groupby("decay_epochs")["layers"].nunique()
    lower = [int(decay) for decay in counts.index[counts > 1] if 0 < decay < high]
    if not lower or counts.get(high, 0) < 2:
        have = ", ".join(str(decay) for decay in counts.index[counts > 1]) or "none"
        raise Missing(
            "No finished runs of several numbers of layers with high_lr_layers=1 at both a low decay_epochs and "
            f"decay_epochs={high} (lr.step); found: {have}."
        )
    return min(lower, key=lambda decay: abs(decay - 5 * high / STEP)), high


def rows(table: pd.DataFrame, decay: int) -> pd.DataFrame:
    """Only the last layer at lr.high, for `decay` epochs; nothing frozen."""
    return pick(study(table), high_lr_layers=1, freeze=0, layers=LAYERS, decay_epochs=decay)


def draw(table: pd.DataFrame, ax: Axes | None = None, *, decay: int | None = None) -> Axes:
    """Accuracy: one chart of the paper's two; the low decay unless given."""
    return panels.accuracy(rows(table, decay or decays(table)[0]), LOOK, ax)


def gains(table: pd.DataFrame, ax: Axes | None = None, *, decay: int | None = None) -> Axes:
    """What transferring fewer than 7 layers brings, on the same splits."""
    return panels.gains(rows(table, decay or decays(table)[0]), LOOK, ax)


def figure(table: pd.DataFrame) -> Figure:
    """The low setting left, the high one right, as the paper's caption has it (its text says the reverse)."""
    with rc_context(panels.STYLE):
        figure = Figure(figsize=(panels.WIDTH, 4.0), layout="constrained")
        grid = figure.subplots(2, 2, sharey="row", sharex="col")
        figure.suptitle(TITLE, fontsize=8.5, fontweight="bold", x=0.01, ha="left")
        reach: list[float] = []
        for side, decay in zip((0, 1), decays(table), strict=True):
            draw(table, grid[0, side], decay=decay)
            reach += gains(table, grid[1, side], decay=decay).get_ylim()
            grid[0, side].set_title(f"decay_epochs = {decay}", fontweight="normal", fontsize=8)
            grid[0, side].tick_params(axis="x", which="both", labelbottom=False)
            for ax in grid[:, side]:
                ax.set_xlabel("")
                ax.tick_params(axis="x", which="major", labelsize=6.5)
                ax.tick_params(axis="x", which="minor", labelsize=4.5)
        grid[1, 0].set_ylim(min(reach), max(reach))  # shared: the second chart drawn has set its own
        for ax in grid[:, 1]:
            ax.set_ylabel("")
        figure.supxlabel("layers transferred (small) by training images per class", fontsize=8)
        return figure


def caption(table: pd.DataFrame) -> str:
    """What is drawn."""
    low, high = decays(table)
    return (
        f"Left: decay_epochs={low}, right: decay_epochs={high} (lr.step). Top: mean over class splits "
        "with 95% intervals. Bottom: paired differences from 7 layers; the best number for each size is ringed and "
        "named. The paper's caption and text disagree about which chart is which; here a chart is named by its setting."
    )


def lifts(table: pd.DataFrame) -> pd.DataFrame:
    """Per split, low minus high decay, each at the number of layers that is best on average: a column per size."""
    low, high = (cells(rows(table, decay), "layers") for decay in decays(table))
    found = {}
    for size in sizes(rows(table, decays(table)[0])):
        try:
            a, b = at(low, size, LAYERS), at(high, size, LAYERS)
        except Missing:
            continue
        found[size] = a[a.mean().idxmax()] - b[b.mean().idxmax()]
    return pd.DataFrame(found)


def beside(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What the paper prints, its value, ours."""
    ours, told = lifts(table), []
    for size in (10, 500):
        if size in ours:
            paper = spoken("sec 3.3", "increase in accuracy", str(size))
            mean, low, high = mean_interval(ours[size])
            before = at(cells(rows(table, decays(table)[1]), "layers"), size, LAYERS).mean().max()
            here = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}] points, {100 * mean / before:+.1f}% relative"
            told.append((f"low over high decay, n={size}", f"+{paper}%", here))
    return told
