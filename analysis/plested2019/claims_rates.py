"""The claims of sections 3.2 and 3.4: how many layers at the high rate, and for how long."""

from typing import Any

import pandas as pd

from analysis.claim import by_size, claim, over, wanted
from analysis.evidence import Evidence, above, best_above, best_in, every
from analysis.frame import ALL, Missing, Size, at, cells, levels, pick, sizes, step, study
from analysis.plested2019 import fig2, fig4
from analysis.plested2019.claims_layers import mean_of, numbers, smallest
from analysis.plested2019.published import STEP
from analysis.statistics import slopes

MEDIUM = (50, 100, 250)  # images per class that section 3.4 calls medium


@claim(
    "sec. 3.2", "accuracy increases as the number of layers trained at a high learning rate decreases, for all [sizes]"
)
def fewer_high_layers_better(table: pd.DataFrame) -> Evidence:
    """Slope of accuracy over 1 to 8 layers at the high rate, at every size."""
    wide = cells(fig2.rows(table), "high_lr_layers")
    return over(wanted(table), lambda n: above(-slopes(_levels(wide, n)), f"n={n}", "points a layer"))


@claim("sec. 3.2", "a noticeable drop [...] when the final two layers are trained with a high learning rate")
def drop_at_two_high_layers(table: pd.DataFrame) -> Evidence:
    """1 minus 2 layers and 3 minus 2 layers at the high rate, each a mean over sizes: both above 0."""
    wide = cells(fig2.rows(table), "high_lr_layers")
    trios = [at(wide, n, [1, 2, 3]) for n in sizes(study(table)) if all((n, k) in wide for k in (1, 2, 3))]
    if not trios:
        raise Missing("No finished runs with layers=6 and high_lr_layers=1|2|3.")
    return every([above(mean_of([t[k] - t[2] for t in trios]), f"{k} minus 2 high layers") for k in (1, 3)])


@claim("sec. 3.2", "the fine-tuning hyperparameters used in [19] [...] are too aggressive")
def all_high_too_aggressive(table: pd.DataFrame) -> Evidence:
    """Only the last layer minus all 8 layers at the high rate, at every size."""
    wide = cells(fig2.rows(table), "high_lr_layers")
    return over(wanted(table), lambda n: above(_difference(at(wide, n, [1, ALL])), f"n={n}"))


@claim("sec. 3.4", "training for 30 epochs initially at a high learning rate of 0.01 is too aggressive")
def step_epochs_too_aggressive(table: pd.DataFrame) -> Evidence:
    """Some decay_epochs below lr.step beats lr.step itself, at every size but the whole set."""
    top = step(study(table))
    return over(wanted(table, full=False), lambda n: _best(table, n, lambda d: d < top))


@claim("sec. 3.4", "for the smallest dataset 10 epochs [of 30 is optimal]")
def ten_epochs_best_when_smallest(table: pd.DataFrame) -> Evidence:
    """The decay_epochs nearest to a third of lr.step beats every other at the smallest size."""
    wide, size = cells(fig4.rows(table), "decay_epochs"), smallest(table)
    third = step(study(table)) * 10 / STEP
    tried = [level for level in levels(wide, size) if level > 0]
    if not tried:
        raise Missing(f"No finished runs of Fig. 4 with n_per_class={size}.")
    aim = min(tried, key=lambda d: abs(d - third))
    return _best(table, size, lambda d: d == aim)


@claim("sec. 3.4", "for medium sized datasets with 50, 100 and 250 training examples per class 0 to 3 epochs")
def few_epochs_best_when_medium(table: pd.DataFrame) -> Evidence:
    """The best decay_epochs is at most a tenth of lr.step, at 50, 100 and 250 images per class."""
    most = step(study(table)) * 3 / STEP
    return over(MEDIUM, lambda n: _best(table, n, lambda d: d <= most))


@claim("sec. 3.4", "for the largest dataset 30 epochs is optimal")
def step_epochs_best_on_full(table: pd.DataFrame) -> Evidence:
    """decay_epochs=lr.step beats every other on the whole set."""
    top = step(study(table))
    return _best(table, "full", lambda d: d == top)


@claim("sec. 3.4", "as the size of the target dataset decreases the number of epochs to train [...] increases")
def smaller_wants_more_epochs(table: pd.DataFrame) -> Evidence:
    """The best decay_epochs at the smallest size is above that at the largest number."""
    (small, few), *_, (large, many) = by_size(numbers(table), lambda n: _curve(table, n)).items()
    return best_above(few, many, f"n={small} against n={large}", "epochs")


@claim("sec. 3.4", "The weights for smaller datasets should be updated less times at a high learning rate")
def smaller_wants_fewer_updates(table: pd.DataFrame) -> Evidence:
    """The best number of updates at the high rate is larger at 250 images per class (or 100, or 50) than at the
    smallest. (By the paper's own Table 2 it is 200 at 10, 1467 at 250, but 0 at 500.)"""
    found = by_size(numbers(table), lambda n: _updates(_curve(table, n), per_epoch(table, n)))
    (small, few), *others = found.items()
    medium = [(size, wide) for size, wide in others if size in MEDIUM]
    if not medium:
        raise Missing("No finished runs of Fig. 4 at 50, 100 or 250 images per class beside smaller ones.")
    large, many = medium[-1]
    return best_above(many, few, f"n={large} against n={small}", "updates")


@claim("sec. 3.4", "10 epochs on our smallest dataset [is] the same number of weight updates as [...] 1 epoch [at] 100")
def ten_epochs_are_one(table: pd.DataFrame) -> Evidence:
    """Updates of an epoch at n=100 over those at n=10: 10, within rounding to whole batches (arithmetic, no test)."""
    few, many = (per_epoch(table, n) for n in (10, 100))
    ratio = many / few
    slack = (1 / few + 1 / many) * ratio  # the last batch of an epoch may be smaller
    holds = abs(ratio - 10) <= slack
    return Evidence(
        "updates an epoch, n=100 over n=10", ratio, ratio, ratio, "times", *((0, 1) if holds else (1, 0)), 0, 0, 0
    )


def per_epoch(table: pd.DataFrame, size: Size) -> float:
    """Updates of an epoch."""
    rows = pick(study(table), n_per_class=size)
    if "updates" not in rows:
        raise Missing("The table has no column updates.")
    return float((rows["updates"] / rows["epochs"]).median())


def _updates(decays: pd.DataFrame, an_epoch: float) -> pd.DataFrame:
    """The same columns, in updates instead of epochs."""
    named: Any = decays.columns
    return decays.set_axis([decay * an_epoch for decay in named], axis=1)


def _levels(wide: pd.DataFrame, size: Size) -> pd.DataFrame:
    """All levels of one size; at least three."""
    found = levels(wide, size)
    if len(found) < 3:
        raise Missing(f"Fewer than three levels of {wide.columns.names[1]} at n_per_class={size}.")
    return at(wide, size, found)


def _curve(table: pd.DataFrame, size: Size) -> pd.DataFrame:
    """Fig. 4 at one size; at least three levels, or nothing can be told of where its best one is."""
    return _levels(cells(fig4.rows(table), "decay_epochs"), size)


def _decays(table: pd.DataFrame, size: Size) -> pd.DataFrame:
    wide = cells(fig4.rows(table), "decay_epochs")
    return at(wide, size, levels(wide, size))


def _best(table: pd.DataFrame, size: Size, inside: Any) -> Evidence:
    wide = _decays(table, size)
    return best_in(wide, {level for level in wide if inside(level)}, f"n={size}, epochs")


def _difference(pair: pd.DataFrame) -> "pd.Series[Any]":
    return pair.iloc[:, 0] - pair.iloc[:, 1]
