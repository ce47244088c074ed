"""The networks of the 2014 study (`published.csv`), and their comparison redone within target halves.

The file has a row per network, parsed from the training logs in github.com/yosinski/convnet_transfer; 22 networks have
no log there. AnB: first n layers copied from the other half of the classes and frozen. BnB: from the same half. A plus:
fine-tuned. The 2014 paper subtracts means over different target halves; here each network is compared with the base
network of its own half.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.statistics import paired

TREATMENTS = ("BnB", "BnB+", "AnB", "AnB+")
RANGES = ((1, 7), (3, 7), (5, 7))
PRINTED = {(1, 7): (1.6, 1.4), (3, 7): (1.8, 1.4), (5, 7): (2.1, 1.7)}  # Table 1: AnB+ over base, AnB+ over BnB+
CHANCE = 6.9077  # nats, ln 1000


@cache
def _read() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("published.csv"))


def published() -> pd.DataFrame:
    """Every network of the 2014 study, one a row; the other functions take these rows."""
    return _read().copy()


def transferred(rows: pd.DataFrame) -> pd.DataFrame:
    """Transferred networks with a log: `top1` (mean of the ten best tests, the paper's measure) in percent, and `gain`
    over the base network of the same target half."""
    logged = rows[rows["mean10best_top1"].notna()].copy()
    logged["top1"] = 100 * logged["mean10best_top1"]
    base = logged[logged["treatment"] == "baseB"].set_index("target")["top1"]
    networks = logged[logged["treatment"].isin(TREATMENTS)].copy()
    networks["gain"] = networks["top1"] - networks["target"].map(base)
    return networks


def base_accuracy(rows: pd.DataFrame) -> float:
    """Mean accuracy of the eight base networks, percent."""
    return float(100 * rows.loc[rows["treatment"] == "baseB", "mean10best_top1"].mean())


def layer_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy by treatment and layer, percent."""
    return transferred(rows).pivot_table("top1", "n_layers", "treatment", aggfunc="mean")[list(TREATMENTS)]


def scratch(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks trained from scratch on reduced sets, and whether each collapsed."""
    reduced = rows[rows["treatment"] == "reduced-n"].sort_values("n_per_class")
    columns = {
        "n_per_class": reduced["n_per_class"].astype(int),
        "top1": 100 * reduced["mean10best_top1"],
        "train_loss": reduced["mean_train_loss_last1000it"],
        "collapsed": (reduced["mean_train_loss_last1000it"] - CHANCE).abs() < 0.01,
    }
    return pd.DataFrame(columns).reset_index(drop=True)


def comparison(rows: pd.DataFrame) -> pd.DataFrame:
    """The 2014 Table 1 three ways, in points: as printed, as means over different halves, and paired by half.

    A mean is over layers, of the means of their networks. Intervals treat layers as independent; but only two halves
    have fine-tuned networks, and those of one half share a base network, so the true ones are wider.
    """
    networks, base = transferred(rows), base_accuracy(rows)
    return pd.DataFrame([_compare(networks, base, *layers) for layers in RANGES])


def _compare(networks: pd.DataFrame, base: float, first: int, last: int) -> dict[str, Any]:
    part = networks[networks["n_layers"].between(first, last)]
    means = part.groupby(["treatment", "n_layers"])[["top1", "gain"]].mean()
    other, same = means.loc["AnB+"], means.loc["BnB+"]
    other_gain, same_gain = paired(list(other["gain"])), paired(list(same["gain"]))
    line: dict[str, Any] = {"layers": f"{first}-{last}"}
    line |= {"printed_over_base": PRINTED[first, last][0], "unpaired_over_base": other["top1"].mean() - base}
    line |= {"AnB+_paired": other_gain.mean, "AnB+_low": other_gain.low, "AnB+_high": other_gain.high}
    line |= {"BnB+_paired": same_gain.mean, "BnB+_low": same_gain.low, "BnB+_high": same_gain.high}
    line |= {"printed_over_selffer": PRINTED[first, last][1]}
    line |= {"unpaired_over_selffer": other["top1"].mean() - same["top1"].mean()}
    return line | {"paired_over_selffer": other_gain.mean - same_gain.mean}
