"""What choosing settings on the images that one reports does to the result.

The paper chose its settings on its validation images and reports accuracy on the same. Here each setting is chosen on
the even images of each class and reported on the odd ones, and the reverse; and, what also removes luck of training,
chosen on all other splits and reported on the one left out.
"""

from typing import Any

import numpy as np
import pandas as pd

from analysis.frame import Missing, Size, pick, sizes, study
from analysis.statistics import by_unit, mean_interval

SETTING = ["layers", "high_lr_layers", "decay_epochs", "freeze"]
SELECTIONS = ("all", "heldout")


def candidates(table: pd.DataFrame, size: Size, value: str = "accuracy") -> pd.DataFrame:
    """Accuracy of every transfer setting of this size that was run on the same splits, as many as any was: a row per
    split, a column per setting. Where equally many ran on other splits, those splits that have the most settings."""
    found = study(table)
    if value not in found:
        raise Missing(f"The table has no column {value}.")
    if value.startswith("val_top1"):
        found = found.assign(**{value: 100 * found[value]})
    found = pick(found[found["layers"] > 0], n_per_class=size)
    wide: pd.DataFrame = by_unit(found.pivot_table(value, ["split", "target", "seed"], SETTING, aggfunc="mean"))
    covered = wide.notna()
    widest = covered.loc[:, covered.sum() == covered.sum().max()]
    splits = np.array(widest.T.value_counts().index[0])  # the most frequent column
    same = widest.columns[(widest.to_numpy() == splits[:, None]).all(axis=0)]
    whole: pd.DataFrame = wide.loc[splits, same]
    return whole


def columns(selection: str) -> tuple[str, str]:
    """The accuracy to choose by and the one to report."""
    if selection not in SELECTIONS:
        raise ValueError(f"selection={selection}: must be one of {', '.join(SELECTIONS)}")
    return ("accuracy", "accuracy") if selection == "all" else ("val_top1_even", "val_top1_odd")


def effect(table: pd.DataFrame) -> pd.DataFrame:
    """Per size: accuracy of the best setting as the paper would report it, as held-out images and held-out splits have
    it, and by how much the first is too high, in points with 95% intervals over splits."""
    table, told = study(table), []
    for size in sizes(table):
        try:
            even, odd = (candidates(table, size, f"val_top1_{half}") for half in ("even", "odd"))
        except Missing:
            continue
        if even.shape[1] < 2:
            continue
        by_even, by_odd = even.mean().idxmax(), odd.mean().idxmax()
        seen = (even[by_even] + odd[by_odd]) / 2
        honest = (odd[by_even] + even[by_odd]) / 2
        gap, low, high = mean_interval(seen - honest)
        row = {"n_per_class": size, "settings": even.shape[1], "splits": len(even), "chosen_and_reported": seen.mean()}
        row |= {"heldout_images": honest.mean(), "optimism": gap, "optimism_low": low, "optimism_high": high}
        both = candidates(table, size)
        if len(both) > 1:
            elsewhere = chosen_elsewhere(both)
            row["heldout_splits"] = elsewhere.mean()
            row["optimism_splits"] = both.mean().max() - elsewhere.mean()
        told.append(row)
    if not told:
        raise Missing("No images per class with two or more transfer settings and accuracies by half of the images.")
    return pd.DataFrame(told)


def chosen_elsewhere(wide: pd.DataFrame) -> "pd.Series[float]":
    """Per split, the accuracy of the setting that is best on average over all other splits."""
    values: Any = wide
    picked = {unit: values.loc[unit, wide.drop(index=[unit]).mean().idxmax()] for unit in wide.index}
    return pd.Series(picked, dtype=float)
