"""Two families of contrasts, declared before their first row existed.

`PAPERS`: each protocol against the one that its paper compares it with, in the paper's direction. `OPTIMUM`: each
against the optimum of Plested & Gedeon's Table 2, which they expect to be the best (direction -1).

Units are (split, target half); seeds are averaged. Accuracy is top-1 in percent on images that nothing was chosen by. A
contrast is the mean over the numbers of images per class that the rows have. Margins: half of the paper's effect where
one is known, else one point. Protocols have their own published settings, and none was tuned here.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.contrasts import Contrast
from analysis.frame import Missing, difference, sizes
from analysis.protocols_compared import conditions as c
from analysis.statistics import mean_of


def _gain(one: str, other: str) -> "Callable[[pd.DataFrame], pd.Series[Any]]":
    def differences(rows: pd.DataFrame) -> "pd.Series[Any]":
        table, found = c.wide(rows), sizes(rows, full=False)
        if not found:
            raise Missing("No finished runs with a number of images per class.")
        return mean_of([difference(table, n, one, other) for n in found])

    return differences


def _contrast(
    name: str, where: str, sentence: str, one: str, other: str, direction: int, paper: float | None, margin: float
) -> Contrast:
    statistic = f"{one} minus {other}, mean over n"
    return Contrast(name, where, sentence, statistic, direction, paper, margin, "points", _gain(one, other))


PAPERS = (
    _contrast("lp_ft", "Kumar 2022", "LP-FT gains 1 point in distribution", c.LP_FT, c.COMMON, 1, 1.0, 0.5),
    _contrast("tuning", "Kumar 2022", "fine-tuning gains 2 points in distribution", c.COMMON, c.PROBE, 1, 2.0, 1.0),
    _contrast("l2_sp", "Li 2018", "L2-SP gains 2 points with 30 images a class", c.L2_SP, c.COMMON, 1, 2.0, 1.0),
    _contrast("surgical", "Lee 2023", "tuning one block is at least as good", c.LAST, c.COMMON, 1, None, 1.0),
    _contrast("last_block", "Lee 2023", "the last block where the labels shift", c.LAST, c.FIRST, 1, None, 1.0),
    _contrast("gradual", "Howard 2018", "gradual unfreezing is better", c.GRADUAL, c.COMMON, 1, None, 1.0),
    _contrast(
        "layer_decay", "Bao 2022", "rates that fall with depth are better", c.LAYER_DECAY, c.COMMON, 1, None, 1.0
    ),
    _contrast("bit", "Kolesnikov 2020", "a rule without tuning is enough", c.BIT, c.COMMON, 1, None, 1.0),
)
OPTIMUM = tuple(
    _contrast(
        f"{name} or optimal".replace(" ", "_").replace(",", "").replace("-", "_").lower(),
        "Plested 2019, table 2",
        "the best settings for few images per class",
        *(name, c.OPTIMAL, -1, None, 1.0),
    )
    for name in (c.FINE_TUNE, c.COMMON, c.PROBE, c.LP_FT, c.L2_SP, c.LAST, c.GRADUAL, c.LAYER_DECAY, c.BIT)
)
