"""Numbers that others published: tables and sentences of Plested & Gedeon (2019), logs of Yosinski et al. (2014).

`kind` says what a number of 2019 is: printed, or derived from printed ones. The table of 2014 has a row per network,
parsed from the training logs in github.com/yosinski/convnet_transfer; 22 networks have no log there.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import Size, order

STEP = 30  # epochs between two falls of the rate, in the paper


@cache
def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parents[1] / name / "published.csv")


def plested2019() -> pd.DataFrame:
    """Every number of the paper, one a row, text included."""
    return _read("plested2019").copy()


def yosinski2014() -> pd.DataFrame:
    """Every network of the 2014 study, one a row."""
    return _read("yosinski2014").copy()


@dataclass(frozen=True)
class Setting:
    """A column of the paper's Table 2; only the last layer starts at the high rate."""

    layers: int
    decay: int  # of 30 epochs
    freeze: int
    accuracy: float  # percent


@cache
def table2() -> dict[Size, Setting]:
    """The paper's Table 2: its best settings per number of training images."""
    told = plested2019().query("source == 'Table 2'")
    found: dict[Size, Setting] = {}
    size: Any
    for size, column in told.groupby("n_per_class", sort=False):
        value = column.set_index("metric")["value"].astype(float)
        found["full" if size == "Full" else int(size)] = Setting(
            int(value["layers to transfer"]),
            int(value["initial decay epochs"]),
            int(value["layers to freeze"]),
            float(value["average validation set accuracy"]),
        )
    return found


def nearest(size: Size) -> Setting:
    """The paper's setting for this size, or for the nearest one that it has (by ratio)."""
    known = table2()
    if size in known:
        return known[size]
    numbers = [n for n in known if n != "full"]
    return known[min(numbers, key=lambda n: max(order(n) / order(size), order(size) / order(n)))]


def table1() -> pd.DataFrame:
    """The paper's Table 1: training and validation loss by (layers, images per class)."""
    told = plested2019().query("source == 'Table 1' and kind == 'printed'")
    told = told[told["metric"].isin(["training loss", "validation loss"])]
    told = told.assign(n_per_class=told["n_per_class"].astype(int), layers=told["layers"].astype(int))
    told["value"] = told["value"].astype(float)
    return told.pivot(index=["layers", "n_per_class"], columns="metric", values="value")


def spoken(source: str, metric: str, size: str, layers: str | None = None) -> float:
    """A number that the paper's text has, as in `spoken("sec 3.1", "accuracy", "10", layers="7")`."""
    told = plested2019().query("source == @source and metric == @metric and n_per_class == @size")
    if layers is not None:
        told = told[told["layers"] == layers]
    return float(told["value"].iloc[0])
