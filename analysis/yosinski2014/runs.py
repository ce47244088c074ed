"""Our runs of the 2014 study, by treatment: baseB, BnB, BnB+, AnB, AnB+.

The first n layers are copied from a network of the same half (B) or of the other half (A), and are frozen or, with a
plus, fine-tuned.
"""

from typing import Any

import pandas as pd

from analysis.frame import Missing, arranged
from analysis.statistics import mean_of

TREATMENTS = ("BnB", "BnB+", "AnB", "AnB+")
SOLVER = [
    "classes",
    "n_per_class",
    "max_updates",
    "lr.high",
    "lr.low",
    "lr.step_updates",
]  # equal for networks compared
LAYERS = [1, 2, 3, 4, 5, 6, 7]  # that were copied in 2014
HALVES = ("random", "yosinski")  # values of `classes` that make random halves


def of_halves(rows: pd.DataFrame) -> pd.DataFrame:
    """Networks of random halves of the classes with `treatment` (baseB for one that copies nothing); where there are
    several solvers or sizes of the training set, those of the most frequent one.

    Raises:
        Missing: there are none.
    """
    halves = rows[rows["classes"].isin(HALVES) & ((rows["freeze"] == 0) | (rows["freeze"] == rows["layers"]))]
    if halves.empty:
        raise Missing("No finished runs on random halves of the classes.")
    solver = halves.groupby(SOLVER, dropna=False, sort=False).ngroup()
    return with_treatment(halves[solver == solver.mode()[0]])


def with_treatment(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `treatment`."""
    names = [_treatment(*row) for row in zip(rows["layers"], rows["freeze"], rows["base"], strict=True)]
    return rows.assign(treatment=names)


def _treatment(layers: int, freeze: int, base: str) -> str:
    if not layers:
        return "baseB"
    return ("BnB" if base == "self" else "AnB") + ("" if freeze else "+")


def accuracy(rows: pd.DataFrame, treatment: str, value: str = "accuracy") -> pd.DataFrame:
    """Of one treatment: a row per (unit, seed), a column per number of layers copied.

    Raises:
        Missing: there are no such runs, or several in one cell.
    """
    networks = of_halves(rows).query("treatment == @treatment")
    if networks.empty:
        raise Missing(f"No finished {treatment} runs.")
    return arranged(networks, ["layers"], value)


def base(rows: pd.DataFrame, value: str = "accuracy") -> "pd.Series[Any]":
    """Of the network that copies nothing, per (unit, seed).

    Raises:
        Missing: there are none.
    """
    return pd.Series(accuracy(rows, "baseB", value)[0])


def all_of(rows: pd.DataFrame, treatment: str, layers: "list[int]") -> pd.DataFrame:
    """The columns of `accuracy` with these numbers of layers.

    Raises:
        Missing: a number of layers has not been run.
    """
    wide = accuracy(rows, treatment)
    if absent := sorted(set(layers) - set(wide)):
        raise Missing(f"No finished {treatment} runs with layers={'|'.join(map(str, absent))}.")
    return wide[layers]


def mean_over(rows: pd.DataFrame, treatment: str, layers: "list[int]") -> "pd.Series[Any]":
    """Mean accuracy of one treatment over these numbers of layers, for units that have all; raises `Missing` as
    `all_of` does."""
    wide = all_of(rows, treatment, layers)
    return mean_of([wide[n] for n in layers])
