"""The claims of section 3.5: how many layers to freeze."""

import pandas as pd

from analysis.claim import by_size, claim, over, wanted
from analysis.evidence import Evidence, above, best_in, every, near
from analysis.frame import Missing, Size, at, cells, levels, order
from analysis.plested2019 import fig5
from analysis.plested2019.claims_layers import MARGIN
from analysis.statistics import slopes

VERY_SMALL = 25  # images per class


def _over_none(table: pd.DataFrame, size: Size, least: int) -> "pd.Series[float]":
    """Accuracy with `least` or more layers frozen, their mean, minus that with none."""
    wide = cells(fig5.rows(table), "freeze")
    frozen = [level for level in levels(wide, size) if level >= least]
    if not frozen:
        raise Missing(f"No finished runs with n_per_class={size}, layers=6 and freeze>={least}.")
    found = at(wide, size, [0, *frozen])
    return found[frozen].mean(axis=1) - found[0]


def _larger(table: pd.DataFrame, than: int) -> list[Size]:
    return [size for size in wanted(table) if order(size) > than]


@claim("sec. 3.5", "freezing a high number of layers results in a significant increase [at] 10 and 25")
def freezing_helps_very_small(table: pd.DataFrame) -> Evidence:
    """Mean of 4 to 6 frozen layers minus none, at up to 25 images per class."""
    few = [n for n in wanted(table) if order(n) <= VERY_SMALL]
    return over(few, lambda n: above(_over_none(table, n, 4), f"n={n}, 4 to 6 frozen minus none"))


@claim("sec. 3.5", "[at] 50 training examples per class, freezing layers has very little effect")
def freezing_does_little_at_50(table: pd.DataFrame) -> Evidence:
    """Mean of all frozen settings minus none at n=50: within 1 point of 0."""
    return near(_over_none(table, 50, 1), "n=50, frozen minus none", 0, MARGIN)


@claim("sec. 3.5", "freezing more than one layer quickly becomes detrimental as the size [...] continues to grow")
def freezing_hurts_when_larger(table: pd.DataFrame) -> Evidence:
    """Mean of 2 or more frozen layers minus none: below 0 at the largest size, and falling from n=50 upwards."""
    found = by_size(_larger(table, 49), lambda n: _over_none(table, n, 2))
    first, *_, last = found
    falling = slopes(pd.DataFrame(found).dropna())
    worst = above(-found[last], f"n={last}, none minus 2 or more frozen")
    return every([worst, above(-falling, f"fall from n={first} to n={last}", "points a size")])


@claim("sec. 1; sec. 4 item 4", "Freezing layers [...] rarely results in the best results [but] for very small")
def freezing_rarely_best(table: pd.DataFrame) -> Evidence:
    """Freezing none beats every other choice, at every size above 25. (The paper's own Table 2 freezes 5, 1 and 1
    layers at n = 50, 100 and 250.)"""
    wide = cells(fig5.rows(table), "freeze")

    def none(n: Size) -> Evidence:
        return best_in(at(wide, n, levels(wide, n)), {0}, f"n={n}, frozen")

    return over(_larger(table, VERY_SMALL), none)
