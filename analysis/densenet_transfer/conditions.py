"""The conditions of George (2021) as rows, and tables of them with a row per seed and a column per condition.

Letters are those of docs/studies.md; a letter with 32 is the same condition at the native input of 32 pixels.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import Missing, cells, pick, sizes

HEAD, SMALL_HEAD = "512,128", "256"
RATE = 0.001  # of the head, in all conditions but (f)
CONDITIONS = {
    "a": "frozen, enlarged, 512-128, dropout",
    "b": "one hidden layer of 256",
    "c": "no dropout",
    "d": "no early stopping, constant rate",
    "e": "native 32 pixels",
    "f": "native 32 pixels, best by validation",
    "g": "random resized crops, mirrored",
    "h": "all layers learn",
    "i": "all layers learn, native 32 pixels",
    "j": "last block learns",
    "j32": "last block learns, native 32 pixels",
    "k": "from scratch",
    "k32": "from scratch, native 32 pixels",
}
COLUMNS = {  # of the table: column of the rows, its factor
    "test %": ("test_top1", 100),
    "validation %": ("val_top1", 100),
    "training %": ("train_top1", 100),
    "gap, nats": ("gap", 1),
    "epochs to within 0.5 points": ("epochs_to_near_best", 1),
    "epochs trained": ("epochs_trained", 1),
    "epochs before a rate fell": ("epochs_to_first_fall", 1),
    "parameters trained": ("trainable_parameters", 1),
    "peak memory, MB": ("peak_memory_mb", 1),
}


def conditions(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows again, with the column `condition`; a row may be in two of them. Rows of none are left out.

    Raises:
        Missing: there are none.
    """
    enlarged = rows["dataset.upscale"] > 0
    copied = rows["layers"] > 0
    frozen = copied & (rows["freeze"] == rows["layers"])
    plain = frozen & (rows["augment"] == "none")
    called_back = plain & (rows["stop_after"] > 0)
    main = called_back & (rows["lr.high"] == RATE)
    dropout = rows["dropout"] > 0
    two, one = rows["head"].astype(str) == HEAD, rows["head"].astype(str) == SMALL_HEAD
    block, none = copied & (rows["freeze"] == rows["layers"] - 1), copied & (rows["freeze"] == 0)
    which = {
        "a": main & enlarged & two & dropout,
        "b": main & enlarged & one & dropout,
        "c": main & enlarged & two & ~dropout,
        "d": plain & enlarged & (rows["stop_after"] == 0),
        "e": main & ~enlarged & two & dropout,
        "g": frozen & enlarged & (rows["augment"] != "none"),
        "h": none & enlarged,
        "i": none & ~enlarged,
        "j": block & enlarged,
        "j32": block & ~enlarged,
        "k": ~copied & enlarged,
        "k32": ~copied & ~enlarged,
    }
    found = {name: rows[chosen] for name, chosen in which.items()}
    found["f"] = _best_by_validation(rows[called_back & ~enlarged])
    parts = [found[name].assign(condition=name) for name in CONDITIONS if len(found[name])]
    if not parts:
        raise Missing("No finished runs of any condition.")
    return pd.concat(parts)


def _best_by_validation(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the setting of head, dropout and rate with the highest mean validation accuracy."""
    if rows.empty:
        return rows
    setting = ["head", "dropout", "lr.high"]
    best: Any = rows.groupby(setting)["val_top1"].mean().idxmax()
    return pick(rows, **dict(zip(setting, best, strict=True)))


def wide(rows: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """A row per seed and a column per condition, of the smallest number of images per class.

    Raises:
        Missing: a seed has several runs of a condition.
    """
    found: Any = cells(conditions(rows), "condition", value)[sizes(rows)[0]]
    table: pd.DataFrame = found
    return table


def difference(rows: pd.DataFrame, one: str, other: str, value: str = "accuracy") -> "pd.Series[Any]":
    """One condition minus another, by seed.

    Raises:
        Missing: fewer than two seeds have both.
    """
    table = wide(rows, value)
    absent = [name for name in (one, other) if name not in table]
    if absent:
        raise Missing(f"No finished runs of condition {absent[0]} ({CONDITIONS[absent[0]]}).")
    pair = table[[one, other]].dropna()
    if len(pair) < 2:
        raise Missing(f"Fewer than two seeds are finished in conditions {one} and {other}.")
    return pd.Series(pair[one] - pair[other])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per condition: means over seeds, and the number that the text prints. Raises `Missing` as `wide` does."""
    wide(rows)  # where a seed has several runs of a condition, their mean is of no use
    named = conditions(rows)
    found = []
    for name, part in named.groupby("condition", sort=False):
        values = {
            title: float(part[column].mean() * scale) if column in part else None
            for title, (column, scale) in COLUMNS.items()
        }
        found.append({"condition": name, "what": CONDITIONS[str(name)], "seeds": part["seed"].nunique(), **values})
    table = pd.DataFrame(found)
    table["text, validation %"] = (
        table["condition"].map({"a": "88.5", "c": "87 to 88", "e": "80", "f": "83"}).fillna("")
    )
    return table


def published() -> pd.DataFrame:
    """The numbers that the text prints, and those that follow from it."""
    return pd.read_csv(Path(__file__).with_name("published.csv"))
