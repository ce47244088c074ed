"""Claims of the 2014 study, evaluated on its published networks."""

from typing import Any

import pandas as pd

from analysis.claim import claim
from analysis.evidence import Evidence, equivalent, greater
from analysis.statistics import slopes
from analysis.yosinski2014.networks import transferred


def _gain(rows: pd.DataFrame, treatment: str) -> "pd.Series[Any]":
    return transferred(rows).query("treatment == @treatment")["gain"].reset_index(drop=True)


@claim(
    "2014, abstract",
    "initializing a network with transferred features [...] can produce a boost to generalization",
    "networks",
)
def tuned_transfer_beats_base(rows: pd.DataFrame) -> Evidence:
    """AnB+ over the base network of its own half, all networks."""
    return greater(_gain(rows, "AnB+"), "AnB+ over own base")


@claim("2014, sec. 4.1 item 5", "[BnB+] do not exhibit this same performance improvement", "networks")
def tuned_selffer_does_not(rows: pd.DataFrame) -> Evidence:
    """BnB+ over the base network of its own half: within 0.3 points of 0."""
    return equivalent(_gain(rows, "BnB+"), "BnB+ over own base", 0.0, 0.3)


@claim("2014, Table 1", "[AnB+ over BnB+:] 1.4 [to] 1.7 [points]", "means of two networks")
def transfer_beats_selffer(rows: pd.DataFrame) -> Evidence:
    """AnB+ minus BnB+, both over their own bases, paired by layer."""
    gains = transferred(rows).pivot_table("gain", "n_layers", "treatment", aggfunc="mean")
    return greater(gains["AnB+"] - gains["BnB+"], "AnB+ minus BnB+, by layer")


@claim("2014, abstract", "specialization of higher layer neurons to their original task", "target halves")
def frozen_transfer_falls_with_depth(rows: pd.DataFrame) -> Evidence:
    """Slope of AnB over layers 1 to 7, one per target half."""
    gains = transferred(rows).query("treatment == 'AnB'").pivot(index="target", columns="n_layers", values="gain")
    return greater(-slopes(gains), "AnB, decrease a layer")
