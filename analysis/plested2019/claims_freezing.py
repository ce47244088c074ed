"""The claims of section 3.5: how many layers to freeze."""

import pandas as pd

from analysis.claim import by_size, claim, over_sizes
from analysis.evidence import Evidence, best_in, equivalent, greater, intersection_union
from analysis.frame import Missing, Size, at, cells, levels, size_order
from analysis.plested2019 import experiments
from analysis.plested2019.claims_layers import MARGIN
from analysis.plested2019.experiments import all_sizes
from analysis.statistics import slopes

VERY_SMALL = 25  # images per class


def _over_none(rows: pd.DataFrame, size: Size, least: int) -> "pd.Series[float]":
    """Accuracy with `least` or more layers frozen, their mean, minus that with none."""
    wide = cells(experiments.freeze(rows), "freeze")
    frozen = [level for level in levels(wide, size) if level >= least]
    if not frozen:
        raise Missing(f"No finished runs with n_per_class={size}, layers=6 and freeze>={least}.")
    complete = at(wide, size, [0, *frozen])
    return complete[frozen].mean(axis=1) - complete[0]


def _larger(rows: pd.DataFrame, than: int) -> list[Size]:
    return [size for size in all_sizes(rows) if size_order(size) > than]


@claim("sec. 3.5", "freezing a high number of layers results in a significant increase [at] 10 and 25")
def freezing_helps_very_small(rows: pd.DataFrame) -> Evidence:
    """Mean of 4 to 6 frozen layers minus none, at up to 25 images per class."""
    few = [n for n in all_sizes(rows) if size_order(n) <= VERY_SMALL]
    return over_sizes(few, lambda n: greater(_over_none(rows, n, 4), f"n={n}, 4 to 6 frozen minus none"))


@claim("sec. 3.5", "[at] 50 training examples per class, freezing layers has very little effect")
def freezing_does_little_at_50(rows: pd.DataFrame) -> Evidence:
    """Mean of all frozen settings minus none at n=50: within 1 point of 0."""
    return equivalent(_over_none(rows, 50, 1), "n=50, frozen minus none", 0, MARGIN)


@claim("sec. 3.5", "freezing more than one layer quickly becomes detrimental as the size [...] continues to grow")
def freezing_hurts_when_larger(rows: pd.DataFrame) -> Evidence:
    """Mean of 2 or more frozen layers minus none: below 0 at the largest size, and falling from n=50 upwards."""
    gains = by_size(_larger(rows, 49), lambda n: _over_none(rows, n, 2))
    first, *_, last = gains
    falling = slopes(pd.DataFrame(gains).dropna())
    worst = greater(-gains[last], f"n={last}, none minus 2 or more frozen")
    return intersection_union([worst, greater(-falling, f"fall from n={first} to n={last}", "points a size")])


@claim("sec. 1; sec. 4 item 4", "Freezing layers [...] rarely results in the best results [but] for very small")
def freezing_rarely_best(rows: pd.DataFrame) -> Evidence:
    """Freezing none beats every other choice, among them one layer, at every size above 25. (The paper's own Table 2
    freezes 5, 1 and 1 layers at n = 50, 100 and 250.)"""
    wide = cells(experiments.freeze(rows), "freeze")
    larger = _larger(rows, VERY_SMALL)
    return over_sizes(larger, lambda n: best_in(at(wide, n, sorted({0, 1, *levels(wide, n)})), {0}, f"n={n}, frozen"))
