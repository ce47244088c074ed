"""The arms of the experiment: which network the first convolution was copied from, and whether it was retrained."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.frame import Missing, arranged

BASELINE, SELF, TRANSFERRED = "Baseline", "Non-transferred", "Transferred"
DIVERSE, MORE, EQUAL = "Transferred-Diverse", "Transferred-More-Data", "More classes, equal images"
RANDOM = "Untrained, frozen"
FROZEN = ", frozen"
ARMS = (BASELINE, SELF, TRANSFERRED, DIVERSE, MORE, EQUAL)  # retrained
ALL = (*ARMS, *(f"{arm}{FROZEN}" for arm in (SELF, TRANSFERRED, DIVERSE, MORE)), RANDOM)
MEASURES = {  # column: what it is
    "accuracy": "accuracy on B (%)",
    "train_accuracy": "accuracy on the training images of B (%)",
    "overfit": "training minus reported accuracy (points)",
    "train_eval_loss": "loss on the training images (nats)",
    "probe": "linear probe of A (%)",
}


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `arm`, and with the measures in percent and in points."""
    found = rows.assign(arm=_arm(rows), train_accuracy=100 * rows["train_top1"])
    found["overfit"] = found["train_accuracy"] - found["accuracy"]
    found["probe"] = 100 * rows["probe_top1"] if "probe_top1" in rows else np.nan
    return found


def _arm(rows: pd.DataFrame) -> "pd.Series[str]":
    def column(name: str) -> "pd.Series[Any]":
        return rows[name] if name in rows else pd.Series(None, rows.index, dtype=object)

    copied, source = rows["layers"] > 0, column("classes.source_group")
    fewer = images_per_class(column("base.n_per_class")) != images_per_class(rows["n_per_class"])
    trained = copied & (rows["base"] == "trained")
    of = {
        SELF: copied & (rows["base"] == "self"),
        TRANSFERRED: trained & (source == "A"),
        DIVERSE: trained & (source == "diverse"),
        MORE: trained & (source == "more") & ~fewer,
        EQUAL: trained & (source == "more") & fewer,
    }
    names = np.select([*of.values()], [*of], default=BASELINE)
    frozen = rows["freeze"] > 0
    names = np.where(frozen & ~copied, RANDOM, np.where(frozen, [f"{name}{FROZEN}" for name in names], names))
    return pd.Series(names, rows.index)


def images_per_class(column: "pd.Series[Any]") -> "pd.Series[str]":
    """Numbers of images per class as texts: in a column with missing values pandas makes them fractions."""
    return column.astype(str).str.removesuffix(".0")


def by_arm(rows: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """A measure with a row per (unit, seed) and a column per arm, in the order of `ALL`."""
    wide = arranged(measured(rows), ["arm"], value).dropna(axis=1, how="all")
    return wide[[arm for arm in ALL if arm in wide]]


def pair(rows: pd.DataFrame, one: str, other: str, value: str = "accuracy") -> "tuple[pd.Series[Any], pd.Series[Any]]":
    """A measure of two arms, on the same units and seeds.

    Raises:
        Missing: an arm, or the measure, has no rows.
    """
    wide = by_arm(rows, value)
    absent = [arm for arm in (one, other) if arm not in wide]
    if absent:
        raise Missing(f"No finished runs of {' and of '.join(absent)} with {MEASURES[value]}.")
    both = wide[[one, other]].dropna()
    return both[one], both[other]


def difference(rows: pd.DataFrame, one: str, other: str, value: str = "accuracy") -> "pd.Series[Any]":
    """One arm minus another, by unit and seed; raises `Missing` as `pair` does."""
    first, second = pair(rows, one, other, value)
    return first - second
