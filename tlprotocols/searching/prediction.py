"""The best setting for a number of images per class that was not measured, from rows of other numbers.

A ridge regression of the accuracy, less its mean at each number of images, on the factors of the protocol, their
squares and products, and all of these times log n. `python -m analysis.unseen_n` measures what it is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tlprotocols.config.validate import keys

FACTORS = ("layers", "freeze", "high_lr_layers", "decay_epochs")
REPLICATES = ("n_per_class", "split", "target", "seed", "fold", "test_per_class")  # and sizes, and how many images test
PENALTY = 1.0  # of the ridge, on features of unit variance: the usual value, not chosen by any result
LEAST = 8  # settings of a size, and
SIZES = 3  # sizes, without which nothing is predicted


def alike(rows: pd.DataFrame, searched: Sequence[str] = ()) -> pd.DataFrame:
    """Of the transfer runs with a number of images per class the largest group that agrees in every factor beside
    `FACTORS`, replicates, and those that were `searched` with them."""
    kept = rows[(rows["layers"] > 0) & rows[list(FACTORS)].notna().all(axis=1)]
    kept = kept[pd.to_numeric(kept["n_per_class"], errors="coerce").notna()]
    names = {key.removesuffix(".name") for key, about in keys() if about["factor"]}
    names -= {*FACTORS, *REPLICATES, *searched}
    others = kept[[key for key in kept if key in names or str(key).startswith("lr.layers.")]].copy()
    for epochs, updates in (("epochs", "max_updates"), ("base.epochs", "base.max_updates")):
        if {epochs, updates} <= set(others):  # so many updates come to other epochs with other numbers of images
            others[epochs] = others[epochs].where(others[updates].fillna(0) == 0)
    if others.empty:
        return kept
    groups = others.groupby(list(others), dropna=False, sort=False).ngroup()
    return kept[groups == groups.mode()[0]]


def measured(rows: pd.DataFrame, value: str = "val_top1", searched: Sequence[str] = ()) -> pd.DataFrame:
    """The mean accuracy of each setting and size, of runs that are `alike`: columns n, `FACTORS`, accuracy.
    Settings that fewer units ran than others of their size are left out."""
    kept = alike(rows, searched)
    kept = kept.assign(n=kept["n_per_class"].astype(int), unit=kept["split"].astype(str) + kept["target"])
    groups = kept.groupby(["n", *FACTORS])
    found = groups.agg(accuracy=(value, "mean"), units=("unit", "nunique")).reset_index()
    found[list(FACTORS)] = found[list(FACTORS)].astype(int)
    most = found.groupby("n")["units"].transform("max")
    return found[found["units"] == most].drop(columns="units").reset_index(drop=True)


def best_at(table: pd.DataFrame, n: int) -> dict[str, Any]:
    """The most accurate setting of a size of `measured`."""
    there = table[table["n"] == n]
    return _setting(there.iloc[int(there["accuracy"].to_numpy().argmax())])


def nearest(sizes: Sequence[int], n: float) -> int:
    """The size nearest to `n` by their ratio; the smaller one of two."""
    return min(sizes, key=lambda size: (abs(np.log(size / n)), size))


@dataclass(frozen=True)
class Prediction:
    """A fitted regression."""

    weights: np.ndarray
    depth: int  # layers of the rows' networks that can be copied
    longest: int  # decay_epochs in the rows

    @staticmethod
    def fit(table: pd.DataFrame) -> "Prediction | None":
        """Fit a table of `measured`; None if it has too few sizes or settings."""
        counts = table.groupby("n").size()
        table = table[table["n"].isin(counts[counts >= LEAST].index)]
        if table["n"].nunique() < SIZES:
            return None
        depth, longest = int(table["layers"].max()), max(1, int(table["decay_epochs"].max()))
        empty = Prediction(np.zeros(0), depth, longest)
        n = table["n"].to_numpy()
        features = _less_means(empty.features(table, n), n)
        spread = features.std(0)
        spread[spread == 0] = 1
        features /= spread
        wanted = features.T @ _less_means(table["accuracy"].to_numpy(), n)
        weights = np.linalg.solve(features.T @ features + PENALTY * np.eye(features.shape[1]), wanted)
        return Prediction(weights / spread, depth, longest)

    def features(self, settings: pd.DataFrame, n: Any) -> np.ndarray:
        """(settings, features); `n` is a number, or one for each."""
        layers, freeze = (settings[key].to_numpy() / self.depth for key in ("layers", "freeze"))
        high = settings["high_lr_layers"].to_numpy() / (self.depth + 1)
        decay = np.log1p(settings["decay_epochs"].to_numpy()) / np.log1p(self.longest)
        first = layers, freeze, high, decay = [2 * one - 1 for one in (layers, freeze, high, decay)]
        products = [layers * freeze, layers * high, layers * decay, high * decay]
        every = np.column_stack([*first, *(one**2 for one in first), *products])
        return np.column_stack([every, every * np.log(np.broadcast_to(n, len(settings)) / 100)[:, None]])

    def best(self, settings: pd.DataFrame, n: float) -> dict[str, Any]:
        """Which of these settings is predicted to be best with `n` images per class."""
        return _setting(settings.iloc[int((self.features(settings, n) @ self.weights).argmax())])


def _less_means(values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Values less their mean at each size."""
    means: np.ndarray = values - pd.DataFrame(values).groupby(n).transform("mean").to_numpy().reshape(values.shape)
    return means


def _setting(row: "pd.Series[Any]") -> dict[str, Any]:
    return {key: int(row[key]) for key in FACTORS}
