"""The claims of the abstract and sections 2, 3.6 and 4 about whole protocols: optimal, commonly used, no transfer.

Optimal means the paper's Table 2 settings (fig6.settings), fixed before the data are seen: nothing is selected.
"""

import dataclasses
from typing import Any

import pandas as pd

from analysis.claim import by_size, claim, over, wanted
from analysis.evidence import Evidence, above, near
from analysis.frame import Missing, Size, at, cells, order, pick, sizes, step, study
from analysis.plested2019 import fig6, published
from analysis.plested2019.claims_layers import mean_of, smallest, trend
from analysis.plested2019.fig6 import COMMON, NONE, OPTIMAL

SMALLER = 100  # images per class that section 4 calls smaller, at most


def _protocols(table: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    return cells(fig6.rows(table), "protocol", value)


def _gain(wide: pd.DataFrame, size: Size, relative: bool = False) -> "pd.Series[Any]":
    pair = at(wide, size, [OPTIMAL, COMMON])
    return 100 * (pair[OPTIMAL] / pair[COMMON] - 1) if relative else pair[OPTIMAL] - pair[COMMON]


def _overfit(table: pd.DataFrame) -> dict[Size, "pd.Series[Any]"]:
    wide = _protocols(table, "gap")
    return by_size(sizes(study(table)), lambda n: -_gain(wide, n))


@claim("abstract; sec. 4 item 1", "commonly adopted transfer learning protocols results in increased overfitting")
def common_overfits(table: pd.DataFrame) -> Evidence:
    """Validation minus training loss, commonly used minus optimal, mean over sizes."""
    found = _overfit(table)
    return above(mean_of(list(found.values())), "commonly used minus optimal", "nats")


@claim("abstract; sec. 4 item 1", "particularly as the size of the target dataset decreases [overfitting]")
def common_overfits_most_when_small(table: pd.DataFrame) -> Evidence:
    """Growth of that difference from size to next smaller size."""
    return trend(_overfit(table), "nats a size")


@claim("abstract; sec. 3.6; sec. 4 item 5", "using the optimal transfer learning protocols improves results for all")
def optimal_beats_common(table: pd.DataFrame) -> Evidence:
    """Optimal minus commonly used accuracy, at every size."""
    wide = _protocols(table)
    return over(wanted(table), lambda n: above(_gain(wide, n), f"n={n}"))


@claim("abstract; sec. 3.6; sec. 4 item 5", "particularly important as the size of the dataset decreases")
def optimal_matters_most_when_small(table: pd.DataFrame) -> Evidence:
    """Growth of the relative gain from size to next smaller size."""
    wide = _protocols(table)
    found = by_size(sizes(study(table)), lambda n: _gain(wide, n, relative=True))
    return trend(found, "% of the common accuracy a size")


@claim("abstract; sec. 3.6; sec. 5", "an increase in accuracy of 47.8% on our smallest dataset")
def gain_is_47_8(table: pd.DataFrame) -> Evidence:
    """Relative gain of optimal over commonly used at the smallest size: within 10 percentage points of the paper's."""
    size, paper = smallest(table), published.spoken("text after Table 2 / conclusion", "relative increase", "10")
    return near(_gain(_protocols(table), size, relative=True), f"n={size}", paper, 10.0, "% of the common accuracy")


@claim(
    "sec. 3.1; sec. 3.6",
    "transfer learning increases [in importance] because training from scratch is no longer viable",
)
def transfer_matters_most_when_small(table: pd.DataFrame) -> Evidence:
    """Commonly used minus no transfer: growth from size to next smaller size. A run that never learned counts as it is,
    though it says nothing about the amount of data: the label says how many there are."""
    wide = _protocols(table)

    def transfer(size: Size) -> "pd.Series[Any]":
        pair = at(wide, size, [COMMON, NONE])
        return pair[COMMON] - pair[NONE]

    found = trend(by_size(sizes(study(table)), transfer), "points a size")
    scratch = fig6.rows(table).query("protocol == @NONE")
    lost = int(scratch["collapsed"].sum()) if "collapsed" in scratch else 0
    told = f"{found.label}; {lost} of {len(scratch)} runs without transfer never learned" if lost else found.label
    return dataclasses.replace(found, label=told)


@claim(
    "abstract; sec. 1; sec. 4 item 2", "protocols for smaller target datasets cannot be derived [from] a large [one]"
)
def small_not_derived_from_large(table: pd.DataFrame) -> Evidence:
    """Table 2's setting for a size minus its setting for the whole set at that size, up to 100 images per class."""
    few = [n for n in wanted(table) if order(n) <= SMALLER]
    return over(few, lambda n: above(_over_large(table, n), f"n={n}"))


def _over_large(table: pd.DataFrame, size: Size) -> "pd.Series[Any]":
    found, large = study(table), published.table2()["full"]
    usual = {"layers": large.layers, "freeze": large.freeze, "decay_epochs": step(found)}
    own = fig6.settings(table).get(size)
    if own is None:
        raise Missing(f"No finished runs with the setting of Table 2 at n_per_class={size}.")
    both = []
    for name, setting in (("own", own), ("large", usual)):
        both.append(pick(found, n_per_class=size, high_lr_layers=1, **setting).assign(protocol=name))
    pair = at(cells(pd.concat(both), "protocol"), size, ["own", "large"])
    return pair["own"] - pair["large"]


@claim("sec. 2", "[the full target datasets have] a minimum of 1,000 per class")
def full_has_1000_a_class(table: pd.DataFrame) -> Evidence:
    """A fact about ILSVRC2012, not about the table: its development kit says 732 to 1300 (no test)."""
    told = published.plested2019().query("setting == 'ILSVRC2012 devkit'")["value"].iloc[0]
    least = float(told.split("..")[0])
    return Evidence("least images of a class in ILSVRC2012", least, least, least, "images", 1.0, 0.0, 0, 0.0, 0.0)
