"""The primary family of the 2014 study: seven contrasts, declared before the first row of `tiny_yosinski2014` existed.

A unit is (split, target half); seeds are averaged. All are paired within a unit: networks that learn the same classes.
The paper's effects come from the published logs (`layer_means` of `networks`; two from its Table 1), in points of top-1
on 500 classes, where the base is at 62.5; a margin is half of such an effect. A miniature on other images has another
accuracy and other sizes of effect: directions are compared, and a margin says what half the paper's size would be.
Sentences are paraphrases, apart from that of item 5.
"""

from typing import Any

import pandas as pd

from analysis.contrasts import Contrast
from analysis.statistics import slopes
from analysis.yosinski2014.runs import LAYERS, all_of, base, mean_over


def frozen_transfer_falls(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Slope of AnB over 1 to 7 layers."""
    return slopes(all_of(rows, "AnB", LAYERS).dropna())


def frozen_transfer_below_selffer(rows: pd.DataFrame) -> "pd.Series[Any]":
    """AnB minus BnB, mean over 6 and 7 layers."""
    return mean_over(rows, "AnB", [6, 7]) - mean_over(rows, "BnB", [6, 7])


def frozen_selffer_dips(rows: pd.DataFrame) -> "pd.Series[Any]":
    """BnB, mean of 4 and 5 layers minus mean of 1, 2, 6 and 7."""
    return mean_over(rows, "BnB", [4, 5]) - mean_over(rows, "BnB", [1, 2, 6, 7])


def tuned_selffer_recovers(rows: pd.DataFrame) -> "pd.Series[Any]":
    """BnB+ minus BnB, mean over 4 and 5 layers."""
    return mean_over(rows, "BnB+", [4, 5]) - mean_over(rows, "BnB", [4, 5])


def tuned_transfer_beats_base(rows: pd.DataFrame) -> "pd.Series[Any]":
    """AnB+ minus baseB, mean over 1 to 7 layers."""
    return mean_over(rows, "AnB+", LAYERS) - base(rows)


def tuned_transfer_beats_selffer(rows: pd.DataFrame) -> "pd.Series[Any]":
    """AnB+ minus BnB+, mean over 1 to 7 layers."""
    return mean_over(rows, "AnB+", LAYERS) - mean_over(rows, "BnB+", LAYERS)


def boost_grows_with_layers(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Slope of AnB+ over 1 to 7 layers."""
    return slopes(all_of(rows, "AnB+", LAYERS).dropna())


def _contrast(function: Any, where: str, sentence: str, direction: int, paper: float, unit: str = "points") -> Contrast:
    statistic = " ".join((function.__doc__ or "").split())
    name, margin = function.__name__, abs(paper) / 2
    return Contrast(name, where, sentence, statistic, direction, paper, margin, unit, function)


PRIMARY = (
    _contrast(
        frozen_transfer_falls,
        "2014, sec. 4.1 item 4",
        "frozen transferred features lose more the more layers are copied, markedly so from layer 4 on",
        *(-1, -1.37, "points a layer"),
    ),
    _contrast(
        frozen_transfer_below_selffer,
        "2014, sec. 4.1 item 4",
        "features of layers 6 and 7 are specific to their classes: they serve the other half less than their own",
        *(-1, -5.95),
    ),
    _contrast(
        frozen_selffer_dips,
        "2014, sec. 4.1 item 2",
        "frozen at layers 4 and 5, a network loses accuracy even on its own classes (fragile co-adaptation)",
        *(-1, -2.39),
    ),
    _contrast(
        tuned_selffer_recovers,
        "2014, sec. 4.1 item 3",
        "fine-tuning prevents that loss",
        *(1, 3.02),
    ),
    _contrast(
        tuned_transfer_beats_base,
        "2014, sec. 4.1 item 5, table 1",
        "transferred and fine-tuned networks generalize better than those trained from scratch: 1.6 points",
        *(1, 1.6),
    ),
    _contrast(
        tuned_transfer_beats_selffer,
        "2014, sec. 4.1 item 5, table 1",
        "[AnB+ over BnB+: 1.4 points; BnB+] do not exhibit this same performance improvement",
        *(1, 1.4),
    ),
    _contrast(
        boost_grows_with_layers,
        "2014, table 1",
        "the more layers are copied, the larger the gain: 1.6 points for 1-7, 1.8 for 3-7, 2.1 for 5-7",
        *(1, 0.17, "points a layer"),
    ),
)
