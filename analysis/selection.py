"""How much choosing a setting on the reported images inflates its accuracy.

Papers often choose settings on the validation images and report the accuracy on the same images. Here each setting is
chosen on the even images of each class and reported on the odd ones, and vice versa; and, to remove the luck of
training as well, chosen on all other splits and reported on the one left out.
"""

from typing import Any

import numpy as np
import pandas as pd

from analysis.frame import Missing, Size, pick, sizes
from analysis.statistics import by_unit, mean_interval

SELECTIONS = ("all", "heldout")


def candidates(rows: pd.DataFrame, setting: list[str], size: Size, value: str = "accuracy") -> pd.DataFrame:
    """The accuracies of the settings of one size that were run on the same units: a row per unit, a column per setting.

    `setting` names the factors of a setting. Of the sets of units that some setting ran on, the one is taken that has
    most settings times units, so that one run of a new unit takes no other setting out of the comparison; of equal ones
    that with more units. Of their seeds those count that all of these settings have, or all seeds if some unit has no
    such seed.

    Raises:
        Missing: the rows have no such size, none with values of the whole setting, or no column `value`.
    """
    if value not in rows:
        raise Missing(f"The table has no column {value}.")
    if value.startswith("val_top1"):
        rows = rows.assign(**{value: 100 * rows[value]})
    runs = pick(rows, n_per_class=size).pivot_table(value, ["unit", "seed"], setting, aggfunc="mean")
    wide: pd.DataFrame = by_unit(runs)
    if wide.empty:
        raise Missing(f"No finished runs with n_per_class={size} and values of {', '.join(setting)}.")
    covered = wide.notna()
    units = max(covered.T.drop_duplicates().to_numpy(), key=lambda one: _compared(covered, one))
    same = covered.columns[covered.loc[units].all()]
    complete: pd.DataFrame = wide.loc[units, same]
    paired = by_unit(runs[same].dropna())
    return paired if list(paired.index) == list(complete.index) else complete


def _compared(covered: pd.DataFrame, units: "np.ndarray[Any, Any]") -> tuple[int, int]:
    """How many accuracies a comparison on these units has, and how many units."""
    count = int(units.sum())
    return count * int(covered.loc[units].all().sum()), count


def has_test(rows: pd.DataFrame) -> bool:
    """Whether the rows have accuracies on test images, by which nothing may be chosen."""
    return "test_top1" in rows and bool(rows["test_top1"].notna().any())


def columns(selection: str, rows: pd.DataFrame) -> tuple[str, str]:
    """The column to choose by and the one to report.

    Raises:
        ValueError: an unknown selection.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection={selection}: must be one of {', '.join(SELECTIONS)}")
    if has_test(rows):
        return "val_accuracy", "accuracy"
    return ("accuracy", "accuracy") if selection == "all" else ("val_top1_even", "val_top1_odd")


def effect(rows: pd.DataFrame, setting: list[str]) -> pd.DataFrame:
    """One row per size: accuracy of the best setting as chosen and reported on the same images, on held-out images and
    on held-out splits, and by how much the first is too high (`optimism`, in points, 95% intervals over units).

    Where the rows have test images, these are the held-out ones, and `optimism` leaves out how much easier or harder
    they are for all settings.

    Raises:
        Missing: no size has two settings with accuracies by half of the images.
    """
    effects = [row for size in sizes(rows) if (row := _effect(rows, setting, size))]
    if not effects:
        raise Missing("No images per class with two or more transfer settings and accuracies by half of the images.")
    return pd.DataFrame(effects)


def _effect(rows: pd.DataFrame, setting: list[str], size: Size) -> dict[str, Any] | None:
    names = ("val_accuracy", "accuracy") if has_test(rows) else ("val_top1_even", "val_top1_odd")
    try:
        even, odd = (candidates(rows, setting, size, name) for name in names)
    except Missing:
        return None
    if even.shape[1] < 2:
        return None
    if has_test(rows):
        return _effect_on_test(even, odd, size)
    by_even, by_odd = even.mean().idxmax(), odd.mean().idxmax()
    same_images = (even[by_even] + odd[by_odd]) / 2
    heldout = (odd[by_even] + even[by_odd]) / 2
    optimism, low, high = mean_interval(same_images - heldout)
    row: dict[str, Any] = {"n_per_class": size, "settings": even.shape[1], "splits": len(even)}
    row |= {"chosen_and_reported": same_images.mean(), "heldout_images": heldout.mean()}
    row |= {"optimism": optimism, "optimism_low": low, "optimism_high": high}
    both = candidates(rows, setting, size)
    if len(both) > 1:
        row["heldout_splits"] = chosen_elsewhere(both).mean()
        row["optimism_splits"] = both.mean().max() - row["heldout_splits"]
    return row


def _effect_on_test(val: pd.DataFrame, test: pd.DataFrame, size: Size) -> dict[str, Any]:
    """The setting with the best validation accuracy: that accuracy, and the one on test images."""
    best = val.mean().idxmax()
    optimism, low, high = mean_interval(val[best] - test[best] - (val - test).mean(axis=1))
    row: dict[str, Any] = {"n_per_class": size, "settings": val.shape[1], "splits": len(val)}
    row |= {"chosen_and_reported": val[best].mean(), "heldout_images": test[best].mean()}
    row |= {"optimism": optimism, "optimism_low": low, "optimism_high": high}
    if len(test) > 1:
        row["heldout_splits"] = chosen_elsewhere(test).mean()
        row["optimism_splits"] = test.mean().max() - row["heldout_splits"]
    return row


def chosen_elsewhere(wide: pd.DataFrame) -> "pd.Series[float]":
    """Per unit, the accuracy of the setting that is best on average over all other units."""
    values: Any = wide
    chosen = {unit: values.loc[unit, wide.drop(index=[unit]).mean().idxmax()] for unit in wide.index}
    return pd.Series(chosen, dtype=float)
