"""Table 1: training and validation loss by layers transferred, every layer at the high learning rate, small sets."""

from typing import Any

import pandas as pd

from analysis.frame import Missing, cells, pick
from analysis.plested2019 import experiments, published
from analysis.statistics import mean_interval
from analysis.study import Table

SMALL = (10, 25, 50)  # images per class of the paper's table


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per (layers, images per class): mean losses over units in nats, their difference with its 95% interval,
    and the paper's printed losses. Training loss is the running loss of the last epoch, as the paper's seems to be.

    Raises:
        Missing: no runs of figure 1 with 10, 25 or 50 images per class.
    """
    rows = pick(experiments.layers_all_high(rows), n_per_class=list(SMALL))
    paper: Any = published.table1()
    lines = []
    for (layers, size), part in rows.groupby(["layers", "n_per_class"]):
        gap, low, high = mean_interval(cells(part, "layers", "gap")[(size, layers)])
        line: dict[str, Any] = {"layers": layers, "n_per_class": size, "runs": len(part)}
        line |= {"training": part["train_loss"].mean(), "validation": part["val_loss"].mean()}
        line |= {"difference": gap, "low": low, "high": high}
        if (layers, size) in paper.index:
            printed = paper.loc[(layers, size)]
            line |= {"paper_training": printed["training loss"], "paper_validation": printed["validation loss"]}
            line["paper_difference"] = line["paper_validation"] - line["paper_training"]
        lines.append(line)
    return pd.DataFrame(lines)


def averages(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's last column: the difference averaged over the sizes that all numbers of layers have, the paper's and
    ours.

    Raises:
        Missing: there is no such size.
    """
    columns = losses(rows).reindex(columns=["layers", "n_per_class", "paper_difference", "difference"])
    counts = columns.groupby("n_per_class")["difference"].transform("count")
    common = columns[counts == columns["layers"].nunique()].drop(columns="n_per_class")
    if common.empty:
        raise Missing("No images per class that all numbers of layers of Fig. 1 have been run with.")
    return common.groupby("layers").mean().reset_index()


TABLE1 = Table(
    "table1",
    "Table 1: overfitting on small target sets",
    "Losses in nats, all layers at the high learning rate. Difference: validation minus training loss, with the 95% "
    "interval of its mean over splits.",
    lambda rows, _: losses(rows),
)
AVERAGES = Table(
    "table1_averages",
    "Table 1, last column: average difference by layers",
    "Validation minus training loss in nats, mean over the sizes above that all numbers of layers have.",
    lambda rows, _: averages(rows),
)
