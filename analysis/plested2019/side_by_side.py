"""The declared contrasts and Table 1's losses on the rows of two studies, side by side: what better measuring changed.

python -m analysis.plested2019.side_by_side results/tiny_imagenet/rows.csv results/tiny_imagenet_2/rows.csv
"""

import sys

import pandas as pd

from analysis.contrasts import decide
from analysis.plested2019 import STUDY, published
from analysis.plested2019.contrasts import PRIMARY
from analysis.plested2019.table1 import losses
from analysis.verdicts import evaluate
from tlprotocols.results import load

SHOWN = ("effect", "low", "high", "sd", "units", "verdict")


def contrasts(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """A row per contrast: effect, 95% interval, standard deviation and verdict of both studies, and of those units of
    the second that the first had not: the contrasts were chosen with the first in view."""
    units = ["split", "target"]
    old = pd.MultiIndex.from_frame(first[units].drop_duplicates())
    new = second[~pd.MultiIndex.from_frame(second[units]).isin(old)]
    parts = {"1": first, "2": second, "new": new}
    decided = {name: decide(PRIMARY, rows).set_index("contrast") for name, rows in parts.items()}
    columns = {f"{value}_{name}": table[value] for value in SHOWN for name, table in decided.items()}
    return decided["1"][["unit", "paper", "margin"]].join(pd.DataFrame(columns)).reset_index()


def training_losses(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """A row per cell of Table 1: the training losses of the paper and of both studies, in nats."""
    tables = [losses(rows).set_index(["layers", "n_per_class"])["training"] for rows in (first, second)]
    paper = published.table1()["training loss"]
    return pd.DataFrame({"paper": paper, "first": tables[0], "second": tables[1]}).dropna(subset="paper").reset_index()


def verdicts(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """How many claims have each verdict, in both studies."""
    both = [evaluate(STUDY.claims, rows)["verdict"].value_counts() for rows in (first, second)]
    return pd.DataFrame(dict(zip(("first", "second"), both, strict=True))).fillna(0).astype(int).reset_index()


if __name__ == "__main__":
    old, new = (STUDY.rows(load(path)) for path in sys.argv[1:3])
    for make in (contrasts, training_losses, verdicts):
        print(make(old, new).round(3).to_string(index=False), end="\n\n")
