"""The variants: A is Drop Channel, B squeeze-and-excitation, C checkpointing; and the printed numbers of each."""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import Missing, arranged

VANILLA, NO_DROPOUT, TIME = "Vanilla", "no dropout", "training time minutes"
ORDER = (VANILLA, "A", "B", "A+B", "A+B+C", NO_DROPOUT)
PRINTED = {"CIFAR-100": "cifar100", "Tiny ImageNet": "tiny_imagenet"}  # Tables 1 and 2
LEAST, BEST = "test_top1_at_least_val_loss", "test_top1_at_best_val_top1"


@cache
def _numbers() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("published.csv"))


def published() -> pd.DataFrame:
    """Every number of the text, one a row, and the error of the DenseNet paper's network."""
    return _numbers().copy()


def printed(metric: str, dataset: str) -> "pd.Series[float]":
    """A line of Table 1 (CIFAR-100) or Table 2 (Tiny ImageNet), by variant."""
    found = _numbers().query("metric == @metric and dataset == @dataset and table.str.startswith('Table')")
    return found.set_index("variant")["value"].astype(float)


def gain(rows: pd.DataFrame, one: str, other: str) -> float:
    """A printed difference of accuracies, in points: of Table 2 for rows of Tiny ImageNet, else of Table 1."""
    of_tiny = (rows["dataset"] == "tiny_imagenet").all()
    accuracy = printed("test accuracy", "Tiny ImageNet" if of_tiny else "CIFAR-100")
    return float(round(accuracy[one] - accuracy[other], 2))


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their `variant`, accuracies in percent, and `overfitting`: validation minus training loss in nats,
    both without dropout and augmentation, which would raise the training loss of some variants alone.

    Raises:
        Missing: the epochs at which the text tests are not known.
    """
    if LEAST not in rows or rows[LEAST].isna().all():
        raise Missing("No finished runs with curve=true and test images: the text tests at the least validation loss.")
    letters = {
        "A": rows["model.drop_channel"] != "none",
        "B": rows["model.se"].astype(bool),
        "C": rows["model.checkpoint"].astype(bool),
    }
    texts = pd.Series("", rows.index)
    for letter, has in letters.items():
        texts = texts.where(~has, texts + f"+{letter}")
    texts = texts.str.removeprefix("+").where(texts != "", VANILLA)
    texts = texts.where(rows["dropout"] > 0, texts.str.replace(VANILLA, NO_DROPOUT))
    measures: Any = {"at_least_loss": 100 * rows[LEAST], "at_best_accuracy": 100 * rows[BEST]}
    return rows.assign(variant=texts, overfitting=rows["val_loss"] - rows["train_eval_loss"], **measures)


def wide(rows: pd.DataFrame, value: str = "at_least_loss") -> pd.DataFrame:
    """A row per unit and seed, a column per variant."""
    table = arranged(named(rows), ["variant"], value)
    return table[[name for name in ORDER if name in table]]


def difference(rows: pd.DataFrame, one: str, other: str, value: str = "at_least_loss") -> "pd.Series[Any]":
    """Per unit, one variant minus another.

    Raises:
        Missing: there are no runs of one of them, or fewer than two units have both.
    """
    table = wide(rows, value)
    for name in (one, other):
        if name not in table:
            raise Missing(f"No finished runs of the variant {name}.")
    pairs = (table[one] - table[other]).dropna()
    if len(pairs) < 2:
        raise Missing(f"Fewer than two seeds of both {one} and {other} are finished.")
    return pairs
