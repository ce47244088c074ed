"""The numbers of Plested & Gedeon (2019): its tables and the values in its text (`published.csv`).

`kind` says whether a number is printed or derived from printed ones.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import Size, size_order

STEP = 30  # epochs between two decays of a learning rate, in the paper


@cache
def _numbers() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("published.csv"))


def numbers() -> pd.DataFrame:
    """Every number of the paper, one a row, with its verbatim text."""
    return _numbers().copy()


@dataclass(frozen=True)
class Setting:
    """A column of the paper's table 2; only the last layer starts at the high learning rate."""

    layers: int
    decay: int  # epochs of 30
    freeze: int
    accuracy: float  # percent


@cache
def table2() -> dict[Size, Setting]:
    """The paper's table 2: its best settings per number of training images."""
    settings: dict[Size, Setting] = {}
    size: Any
    for size, column in _numbers().query("source == 'Table 2'").groupby("n_per_class", sort=False):
        value = column.set_index("metric")["value"].astype(float)
        settings["full" if size == "Full" else int(size)] = Setting(
            int(value["layers to transfer"]),
            int(value["initial decay epochs"]),
            int(value["layers to freeze"]),
            float(value["average validation set accuracy"]),
        )
    return settings


def nearest_setting(size: Size) -> Setting:
    """The paper's setting for this size, or for the nearest one that it has (by ratio)."""
    known = table2()
    if size in known:
        return known[size]
    ratios = {n: size_order(n) / size_order(size) for n in known if n != "full"}
    return known[min(ratios, key=lambda n: max(ratios[n], 1 / ratios[n]))]


def table1() -> pd.DataFrame:
    """The paper's table 1: training and validation loss in nats by (layers, images per class)."""
    losses = _numbers().query("source == 'Table 1' and kind == 'printed'")
    losses = losses[losses["metric"].isin(["training loss", "validation loss"])]
    losses = losses.assign(n_per_class=losses["n_per_class"].astype(int), layers=losses["layers"].astype(int))
    losses["value"] = losses["value"].astype(float)
    return losses.pivot(index=["layers", "n_per_class"], columns="metric", values="value")


def reported_value(source: str, metric: str, size: str, layers: str | None = None) -> float:
    """A number of the paper's text, as in `reported_value("sec 3.1", "accuracy", "10", layers="7")`."""
    values = _numbers().query("source == @source and metric == @metric and n_per_class == @size")
    if layers is not None:
        values = values[values["layers"] == layers]
    return float(values["value"].iloc[0])
