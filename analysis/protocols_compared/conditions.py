"""The protocols of conf/protocol/ as rows, each known by its factors."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import Missing, cells

SCRATCH, COMMON, FINE_TUNE, OPTIMAL = "scratch", "commonly used", "fine-tune", "optimal"
PROBE, LP_FT, L2_SP, GRADUAL, LAYER_DECAY, BIT = "linear probe", "LP-FT", "L2-SP", "gradual", "layer decay", "BiT"
FIRST, MIDDLE, LAST = "surgical, first", "surgical, middle", "surgical, last"
BLOCKS = {0: FIRST, 2: MIDDLE, 5: LAST}  # frozen layers below the block of two that learns, of AlexNet
ALL, HIGH = 7, 8  # layers of AlexNet that can be copied, and that can have the high rate
TABLE2 = {10: (6, 6, 10), 25: (6, 5, 5), 50: (6, 5, 3), 100: (6, 1, 3), 250: (6, 1, 3), 500: (6, 0, 0)}
RECIPE = [  # which BiT-HyperRule sets and all others share
    *("batch_size", "weight_decay", "dropout", "epochs", "lr.high", "lr.step", "lr.gamma"),
]
LEGACY = {"learn_layers": 0, "head_epochs": 0, "unfreeze_every": 0, "l2_sp": 0.0, "lr.layer_decay": 1.0}


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows again, with the column `protocol`; rows of none are left out. But for BiT-HyperRule, which has its own,
    they have the recipe that most rows have.

    Raises:
        Missing: no protocol beyond Plested and Gedeon's is among them.
    """
    rows = rows.assign(**{key: rows[key].fillna(value) if key in rows else value for key, value in LEGACY.items()})
    bit = rows["schedule"] == "bit"
    recipes = rows.loc[~bit, RECIPE]
    groups = recipes.fillna(recipes.mode().iloc[0]).groupby(RECIPE, dropna=False).ngroup()  # a cosine has no lr.step
    usual = rows[~bit][groups == groups.mode()[0]] if len(groups) else rows[~bit]
    found = pd.concat([usual.assign(protocol=_protocols(usual)), rows[bit].assign(protocol=BIT)])
    found = found[found["protocol"] != ""]
    if not set(found["protocol"]) - {SCRATCH, COMMON, FINE_TUNE, OPTIMAL, PROBE}:
        raise Missing("No finished runs of a protocol beyond those of Plested and Gedeon.")
    return found


def _protocols(rows: pd.DataFrame) -> "pd.Series[Any]":
    """The name of every row's protocol; empty for rows of none."""
    copied, plain = rows["layers"] == ALL, pd.Series(True, rows.index)
    for key, value in LEGACY.items():
        plain &= rows[key] == value
    clock = rows["schedule"] == "own_clock"
    high, one = rows["high_lr_layers"] == HIGH, rows["high_lr_layers"] == 1
    stepped = clock & (rows["decay_epochs"] == rows["lr.step"]) & high
    free = copied & (rows["freeze"] == 0)
    table2 = rows["n_per_class"].map(lambda n: TABLE2.get(n, (-1, -1, -1)))
    setting = pd.Series(list(zip(rows["layers"], rows["freeze"], rows["decay_epochs"], strict=True)), rows.index)
    which = {
        SCRATCH: plain & stepped & (rows["layers"] == 0),
        COMMON: plain & stepped & free,
        FINE_TUNE: plain
        & clock
        & one
        & (rows["layers"] == ALL - 1)
        & (rows["freeze"] == 0)
        & (rows["decay_epochs"] == 5),
        OPTIMAL: plain & clock & one & (setting == table2),
        PROBE: plain & clock & one & copied & (rows["freeze"] == ALL),
        LP_FT: free & one & (rows["schedule"] == "cosine") & (rows["head_epochs"] > 1) & (rows["unfreeze_every"] == 0),
        L2_SP: free & stepped & (rows["l2_sp"] > 0),
        GRADUAL: free & stepped & (rows["unfreeze_every"] > 0),
        LAYER_DECAY: free & stepped & (rows["lr.layer_decay"] < 1) & (rows["unfreeze_every"] == 0),
    }
    for freeze, name in BLOCKS.items():
        which[name] = copied & one & clock & (rows["learn_layers"] == 2) & (rows["freeze"] == freeze)
    found = pd.Series("", rows.index)
    for name, rows_of_it in which.items():
        found[rows_of_it] = name
    return found


def wide(rows: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """A row per unit and seed; columns are images per class and protocol."""
    return cells(named(rows), "protocol", value)


def published() -> pd.DataFrame:
    """What the texts behind the protocols print."""
    return pd.read_csv(Path(__file__).with_name("published.csv"))
