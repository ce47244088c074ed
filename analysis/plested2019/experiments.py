"""The runs of each experiment of the paper, one query a figure. All take the rows of the study."""

import math
from typing import Any

import pandas as pd

from analysis.frame import Missing, Size, at, cells, levels, pick, size_order, sizes, step
from analysis.plested2019.published import STEP, nearest_setting, table2
from analysis.statistics import by_unit

ALL = 8  # high_lr_layers of an AlexNet whose layers all start at lr.high
LAYERS = [4, 5, 6, 7]  # transferred, in figures 1 and 3
SETTING = ["layers", "high_lr_layers", "decay_epochs", "freeze"]  # the factors that table 2 chooses
NONE, COMMON, OPTIMAL = "no transfer", "commonly used", "optimal"  # the protocols of figure 6


def all_sizes(rows: pd.DataFrame, full: bool = True) -> list[Size]:
    """The paper's images per class and those of the rows, ascending; `full=False` leaves the whole set out."""
    known = {*table2(), *sizes(rows)}
    return sorted((size for size in known if full or size != "full"), key=size_order)


def layers_all_high(rows: pd.DataFrame) -> pd.DataFrame:
    """Figure 1: every layer at lr.high, nothing frozen; 4 to 7 layers, and fewer if the rows have some of 1 to 3."""
    picked = pick(rows, high_lr_layers=ALL, decay_epochs=step(rows), freeze=0)
    return picked if picked["layers"].isin([1, 2, 3]).any() else pick(picked, layers=LAYERS)


def high_lr_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """Figure 2: 6 layers transferred, none frozen, the high learning rate kept for lr.step epochs."""
    picked = pick(rows, layers=6, freeze=0, decay_epochs=step(rows), high_lr_layers=list(range(1, ALL + 1)))
    pick(picked, high_lr_layers=list(range(1, ALL)))  # the common setting alone is no experiment
    return picked


def low_and_high_decay(rows: pd.DataFrame) -> tuple[int, int]:
    """The two decay_epochs of figure 3: of those run with several numbers of layers the one nearest to the paper's 5
    of 30, and lr.step.

    Raises:
        Missing: the rows have no such two.
    """
    high = step(rows)
    picked = pick(rows, high_lr_layers=1, freeze=0, layers=LAYERS)
    counts = picked.groupby("decay_epochs")["layers"].nunique()
    lower = [int(decay) for decay in counts.index[counts > 1] if 0 < decay < high]
    if not lower or counts.get(high, 0) < 2:
        present = ", ".join(str(decay) for decay in counts.index[counts > 1]) or "none"
        raise Missing(
            "No finished runs of several numbers of layers with high_lr_layers=1 at both a low decay_epochs and "
            f"decay_epochs={high} (lr.step); present: {present}."
        )
    return min(lower, key=lambda decay: abs(decay - 5 * high / STEP)), high


def layers_one_high(rows: pd.DataFrame, decay: int) -> pd.DataFrame:
    """A chart of figure 3: only the last layer at lr.high, for `decay` epochs; nothing frozen."""
    return pick(rows, high_lr_layers=1, freeze=0, layers=LAYERS, decay_epochs=decay)


def decay_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Low minus high decay, each at its own best number of layers: a row per unit, a column per size."""
    low, high = (cells(layers_one_high(rows, decay), "layers") for decay in low_and_high_decay(rows))
    gains = {}
    for size in sizes(rows):
        try:
            a, b = at(low, size, LAYERS), at(high, size, LAYERS)
        except Missing:
            continue
        gains[size] = a[a.mean().idxmax()] - b[b.mean().idxmax()]
    return pd.DataFrame(gains)


def decay_epochs(rows: pd.DataFrame) -> pd.DataFrame:
    """Figure 4: 6 layers transferred, none frozen, only the last layer at lr.high; at least two decay_epochs."""
    picked = pick(rows, layers=6, freeze=0, high_lr_layers=1)
    if picked["decay_epochs"].nunique() < 2:
        raise Missing("No finished runs with layers=6, high_lr_layers=1 and two or more decay_epochs.")
    return picked


def freeze_decays(rows: pd.DataFrame) -> dict[Size, int]:
    """The decay_epochs that figure 5 shows for each size: the one with most levels of freeze, and of equal ones the
    more accurate. The paper does not say which it used."""
    picked = pick(rows, layers=6, high_lr_layers=1)
    shown = {}
    for size in sizes(picked):
        groups = picked[picked["n_per_class"] == size].groupby("decay_epochs")
        ranked = pd.DataFrame({"levels": groups["freeze"].nunique(), "accuracy": groups["accuracy"].mean()})
        first: Any = ranked.sort_values(["levels", "accuracy"]).iloc[-1]
        if first["levels"] > 1:
            shown[size] = int(first.name)
    return shown


def freeze(rows: pd.DataFrame) -> pd.DataFrame:
    """Figure 5: 6 layers transferred, only the last layer at lr.high, for the `freeze_decays` of each size."""
    picked, shown = pick(rows, layers=6, high_lr_layers=1), freeze_decays(rows)
    picked = picked[picked["n_per_class"].map(shown) == picked["decay_epochs"]]
    if picked.empty:
        raise Missing("No finished runs with layers=6, high_lr_layers=1 and two or more values of freeze.")
    return picked


def best_level(wide: pd.DataFrame, size: Size) -> int:
    """The level of one size with the highest mean, on the units that have all of its levels.

    Raises:
        Missing: no unit has them all.
    """
    best: Any = by_unit(at(wide, size, levels(wide, size), min_units=1)).mean().idxmax()
    return int(best)


def optimal_settings(rows: pd.DataFrame) -> dict[Size, dict[str, int]]:
    """The paper's setting of table 2 for each size, where the rows have it.

    Where lr.step is not the paper's 30 epochs, its decay_epochs is scaled, and the nearest one within an epoch is used.
    """
    scale, chosen = step(rows) / STEP, {}
    for size in sizes(rows):
        paper = nearest_setting(size)
        same = (rows["n_per_class"] == size) & (rows["layers"] == paper.layers) & (rows["freeze"] == paper.freeze)
        tried = rows.loc[same & (rows["high_lr_layers"] == 1), "decay_epochs"]
        decay = min(tried, key=lambda d: abs(d - paper.decay * scale), default=math.inf)
        if abs(decay - paper.decay * scale) < 1:
            chosen[size] = {"layers": paper.layers, "freeze": paper.freeze, "decay_epochs": int(decay)}
    return chosen


def protocols(rows: pd.DataFrame) -> pd.DataFrame:
    """Figure 6: no transfer, the commonly used protocol and the optimal one, named in the column `protocol`."""
    common = {"high_lr_layers": ALL, "decay_epochs": step(rows), "freeze": 0}
    parts = [_named(rows, NONE, layers=0, **common), _named(rows, COMMON, layers=7, **common)]
    for size, setting in optimal_settings(rows).items():
        parts.append(_named(rows, OPTIMAL, n_per_class=size, high_lr_layers=1, **setting))
    joined = pd.concat([part for part in parts if len(part)] or [rows.head(0).assign(protocol="")])
    if joined["protocol"].nunique() < 2:
        present = ", ".join(joined["protocol"].unique()) or "none"
        raise Missing(
            f"Fewer than two of the protocols optimal, commonly used and no transfer are finished: {present}."
        )
    return joined


def _named(rows: pd.DataFrame, protocol: str, **factors: object) -> pd.DataFrame:
    try:
        return pick(rows, **factors).assign(protocol=protocol)
    except Missing:
        return rows.head(0).assign(protocol=protocol)
