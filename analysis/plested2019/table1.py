"""Table 1: training and validation loss by layers transferred, every layer at the high rate, small training sets."""

import pandas as pd

from analysis.frame import Missing, cells, sizes
from analysis.plested2019 import fig1, published
from analysis.statistics import mean_interval

TITLE = "Table 1  Overfitting on small target sets"
SMALL = (10, 25, 50)


def losses(table: pd.DataFrame) -> pd.DataFrame:
    """One row per (layers, images per class): mean losses over splits in nats, their difference with its 95% interval,
    and the paper's printed losses. Training loss is the running loss of the last epoch, as the paper's seems to be."""
    found = fig1.rows(table)
    small = [size for size in sizes(found) if size in SMALL]
    if not small:
        raise Missing("No finished runs of Fig. 1 with 10, 25 or 50 images per class.")
    paper, told = published.table1(), []
    for layers in sorted(found["layers"].unique()):
        for size in small:
            part = found[(found["layers"] == layers) & (found["n_per_class"] == size)]
            if part.empty:
                continue
            gap, low, high = mean_interval(cells(part, "layers", "gap")[(size, layers)])
            row = {"layers": layers, "n_per_class": size, "runs": len(part)}
            row |= {"training": part["train_loss"].mean(), "validation": part["val_loss"].mean()}
            row |= {"difference": gap, "low": low, "high": high}
            if (layers, size) in paper.index:
                printed = paper.loc[(layers, size)]
                row |= {"paper_training": printed["training loss"], "paper_validation": printed["validation loss"]}
                row["paper_difference"] = row["paper_validation"] - row["paper_training"]
            told.append(row)
    return pd.DataFrame(told)


def averages(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's last column: the difference averaged over the sizes, per number of layers, paper's and ours."""
    found = losses(table).reindex(columns=["layers", "paper_difference", "difference"])
    return found.groupby("layers").mean().reset_index()
