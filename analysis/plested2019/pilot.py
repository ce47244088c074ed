"""Which recipe of the pilot (`sweeps/tiny_pilot.yaml`) has training losses nearest to the twelve of Table 1.

python -m analysis.plested2019.pilot results/tiny_imagenet_2/pilot.csv
"""

import sys

import pandas as pd

from analysis.plested2019 import published
from tlprotocols.results import load

RECIPE = ["augment", "dropout", "weight_decay"]  # what the pilot varies
CELL = ["n_per_class", "layers"]


def table1_losses() -> "pd.Series[float]":
    """The paper's training losses in nats, by images per class and layers transferred: 12 values."""
    numbers = published.numbers()
    printed = numbers[(numbers["source"] == "Table 1") & (numbers["metric"] == "training loss")]
    index = pd.MultiIndex.from_arrays([printed["n_per_class"].astype(int), printed["layers"].astype(int)], names=CELL)
    return pd.Series(printed["value"].astype(float).to_numpy(), index)


def distances(rows: pd.DataFrame) -> pd.DataFrame:
    """Per recipe: the mean absolute difference of its training losses from Table 1's, in nats, the mean difference, and
    how many of the twelve cells it has; the nearest first."""
    paper = table1_losses()
    found = {}
    for recipe, part in rows.groupby(RECIPE):
        losses = part.set_index(CELL)["train_loss"]
        difference = (losses - paper).dropna()
        found[recipe] = {"distance": difference.abs().mean(), "difference": difference.mean(), "cells": len(difference)}
    table = pd.DataFrame.from_dict(found, orient="index")
    table.index.names = RECIPE
    return table.sort_values("distance").reset_index()


if __name__ == "__main__":
    print(distances(load(sys.argv[1])).round({"distance": 3, "difference": 3}).to_string(index=False))
