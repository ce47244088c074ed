"""The claims of the abstract and sections 2, 3.6 and 4 about whole protocols: optimal, commonly used, no transfer.

Optimal means the settings of the paper's table 2, which are fixed before our data are seen: nothing is selected.
"""

import dataclasses
from typing import Any

import pandas as pd

from analysis.claim import by_size, claim, over_sizes
from analysis.evidence import Evidence, equivalent, greater, growth
from analysis.frame import Missing, Size, at, cells, difference, pick, size_order, sizes, step
from analysis.plested2019 import experiments, published
from analysis.plested2019.experiments import COMMON, NONE, OPTIMAL, all_sizes
from analysis.statistics import mean_of

SMALLER = 100  # images per class at most: the paper gives no number for "smaller"


def _protocols(rows: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    return cells(experiments.protocols(rows), "protocol", value)


def _relative_gain(wide: pd.DataFrame, size: Size) -> "pd.Series[Any]":
    """Optimal over commonly used, in percent of the latter."""
    pair = at(wide, size, [OPTIMAL, COMMON])
    return 100 * (pair[OPTIMAL] / pair[COMMON] - 1)


def _more_overfitting(rows: pd.DataFrame) -> dict[Size, "pd.Series[Any]"]:
    wide = _protocols(rows, "gap")
    return by_size(sizes(rows), lambda n: difference(wide, n, COMMON, OPTIMAL))


@claim("abstract; sec. 4 item 1", "commonly adopted transfer learning protocols results in increased overfitting")
def common_overfits(rows: pd.DataFrame) -> Evidence:
    """Validation minus training loss, commonly used minus optimal, mean over sizes."""
    by_size = _more_overfitting(rows)
    return greater(mean_of(list(by_size.values())), "commonly used minus optimal", "nats")


@claim("abstract; sec. 4 item 1", "particularly as the size of the target dataset decreases [overfitting]")
def common_overfits_most_when_small(rows: pd.DataFrame) -> Evidence:
    """Growth of that difference from size to next smaller size."""
    return growth(_more_overfitting(rows), "nats a size")


@claim("abstract; sec. 3.6; sec. 4 item 5", "using the optimal transfer learning protocols improves results for all")
def optimal_beats_common(rows: pd.DataFrame) -> Evidence:
    """Optimal minus commonly used accuracy, at every size."""
    wide = _protocols(rows)
    return over_sizes(all_sizes(rows), lambda n: greater(difference(wide, n, OPTIMAL, COMMON), f"n={n}"))


@claim("abstract; sec. 3.6; sec. 4 item 5", "particularly important as the size of the dataset decreases")
def optimal_matters_most_when_small(rows: pd.DataFrame) -> Evidence:
    """Growth of the relative gain from size to next smaller size."""
    wide = _protocols(rows)
    return growth(by_size(sizes(rows), lambda n: _relative_gain(wide, n)), "% of the common accuracy a size")


@claim("abstract; sec. 3.6; sec. 5", "an increase in accuracy of 47.8% on our smallest dataset")
def gain_is_47_8(rows: pd.DataFrame) -> Evidence:
    """Relative gain of optimal over commonly used at n=10: within 10 percentage points of the paper's."""
    paper = published.reported_value("text after Table 2 / conclusion", "relative increase", "10")
    return equivalent(_relative_gain(_protocols(rows), 10), "n=10", paper, 10.0, "% of the common accuracy")


@claim(
    "sec. 3.1; sec. 3.6",
    "transfer learning increases [in importance] because training from scratch is no longer viable",
)
def transfer_matters_most_when_small(rows: pd.DataFrame) -> Evidence:
    """Commonly used minus no transfer: growth from size to next smaller size. Collapsed runs are included, though they
    say nothing about the amount of data: the label gives their number."""
    wide = _protocols(rows)
    evidence = growth(by_size(sizes(rows), lambda n: difference(wide, n, COMMON, NONE)), "points a size")
    scratch = experiments.protocols(rows).query("protocol == @NONE")
    collapsed = int(scratch["collapsed"].sum()) if "collapsed" in scratch else 0
    if not collapsed:
        return evidence
    label = f"{evidence.label}; {collapsed} of {len(scratch)} runs without transfer collapsed"
    return dataclasses.replace(evidence, label=label)


@claim(
    "sec. 3.4; abstract",
    "it is not possible to use optimal settings for transfer learning with very large target datasets to perform"
    " transfer learning with smaller target datasets",
)
def small_not_derived_from_large(rows: pd.DataFrame) -> Evidence:
    """Table 2's setting for a size minus its setting for the whole set at that size, up to 100 images per class."""
    few = [n for n in all_sizes(rows) if size_order(n) <= SMALLER]
    return over_sizes(few, lambda n: greater(_over_large(rows, n), f"n={n}"))


def _over_large(rows: pd.DataFrame, size: Size) -> "pd.Series[Any]":
    large = published.table2()["full"]
    of_large = {"layers": large.layers, "freeze": large.freeze, "decay_epochs": step(rows)}
    own = experiments.optimal_settings(rows).get(size)
    if own is None:
        raise Missing(f"No finished runs with the setting of Table 2 at n_per_class={size}.")
    both = []
    for name, setting in (("own", own), ("large", of_large)):
        both.append(pick(rows, n_per_class=size, high_lr_layers=1, **setting).assign(protocol=name))
    return difference(cells(pd.concat(both), "protocol"), size, "own", "large")


@claim("sec. 2", "[the full target datasets have] a minimum of 1,000 per class")
def full_has_1000_a_class(rows: pd.DataFrame) -> Evidence:
    """A fact about ILSVRC2012, not about the table: its development kit says 732 to 1300 (no test)."""
    limits = published.numbers().query("setting == 'ILSVRC2012 devkit'")["value"].iloc[0]
    least = float(limits.split("..")[0])
    return Evidence("least images of a class in ILSVRC2012", least, least, least, "images", 1.0, 0.0, 0, 0.0, 0.0)
