"""The claims of sections 3.2 and 3.4: how many layers at the high learning rate, and for how many epochs."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.claim import by_size, claim, over_sizes
from analysis.evidence import Evidence, best_greater, best_in, greater, intersection_union
from analysis.frame import Missing, Size, at, cells, difference, levels, pick, sizes, step
from analysis.plested2019 import experiments
from analysis.plested2019.experiments import ALL, all_sizes
from analysis.plested2019.published import STEP
from analysis.statistics import mean_of, slopes

MEDIUM = (50, 100, 250)  # images per class that section 3.4 calls medium


@claim(
    "sec. 3.2", "accuracy increases as the number of layers trained at a high learning rate decreases, for all [sizes]"
)
def fewer_high_layers_better(rows: pd.DataFrame) -> Evidence:
    """Slope of accuracy over 1 to 8 layers at the high learning rate, at every size."""
    wide = cells(experiments.high_lr_layers(rows), "high_lr_layers")
    return over_sizes(all_sizes(rows), lambda n: greater(-slopes(_levels(wide, n)), f"n={n}", "points a layer"))


@claim("sec. 3.2", "a noticeable drop [...] when the final two layers are trained with a high learning rate")
def drop_at_two_high_layers(rows: pd.DataFrame) -> Evidence:
    """1 minus 2 layers and 3 minus 2 layers at the high learning rate, each a mean over sizes: both above 0."""
    wide = cells(experiments.high_lr_layers(rows), "high_lr_layers")
    trios = [at(wide, n, [1, 2, 3]) for n in sizes(rows) if all((n, k) in wide for k in (1, 2, 3))]
    if not trios:
        raise Missing("No finished runs with layers=6 and high_lr_layers=1|2|3.")
    return intersection_union(
        [greater(mean_of([t[k] - t[2] for t in trios]), f"{k} minus 2 high layers") for k in (1, 3)]
    )


@claim("sec. 3.2", "the fine-tuning hyperparameters used in [19] [...] are too aggressive")
def all_high_too_aggressive(rows: pd.DataFrame) -> Evidence:
    """Only the last layer minus all 8 layers at the high learning rate, at every size."""
    wide = cells(experiments.high_lr_layers(rows), "high_lr_layers")
    return over_sizes(all_sizes(rows), lambda n: greater(difference(wide, n, 1, ALL), f"n={n}"))


@claim("sec. 3.4", "training for 30 epochs initially at a high learning rate of 0.01 is too aggressive")
def step_epochs_too_aggressive(rows: pd.DataFrame) -> Evidence:
    """Some decay_epochs below lr.step beats lr.step itself, at every size but the whole set."""
    top = step(rows)
    return over_sizes(all_sizes(rows, full=False), lambda n: _best(rows, n, lambda d: d < top))


@claim("sec. 3.4", "for the smallest dataset 10 epochs [of 30 is optimal]")
def ten_epochs_best_when_smallest(rows: pd.DataFrame) -> Evidence:
    """The decay_epochs nearest to a third of lr.step beats every other at n=10."""
    wide, third = cells(experiments.decay_epochs(rows), "decay_epochs"), step(rows) * 10 / STEP
    tried = [level for level in levels(wide, 10) if level > 0]
    if not tried:
        raise Missing("No finished runs of Fig. 4 with n_per_class=10.")
    aim = min(tried, key=lambda d: abs(d - third))
    return _best(rows, 10, lambda d: d == aim)


@claim("sec. 3.4", "for medium sized datasets with 50, 100 and 250 training examples per class 0 to 3 epochs")
def few_epochs_best_when_medium(rows: pd.DataFrame) -> Evidence:
    """The best decay_epochs is at most a tenth of lr.step, at 50, 100 and 250 images per class."""
    most = step(rows) * 3 / STEP
    return over_sizes(MEDIUM, lambda n: _best(rows, n, lambda d: d <= most))


@claim("sec. 3.4", "for the largest dataset 30 epochs is optimal")
def step_epochs_best_on_full(rows: pd.DataFrame) -> Evidence:
    """decay_epochs=lr.step beats every other on the whole set."""
    top = step(rows)
    return _best(rows, "full", lambda d: d == top)


@claim("sec. 3.4", "as the size of the target dataset decreases the number of epochs to train [...] increases")
def smaller_wants_more_epochs(rows: pd.DataFrame) -> Evidence:
    """The best decay_epochs at the smallest size is above that at the largest number."""
    (small, few), *_, (large, many) = by_size(sizes(rows, full=False), lambda n: _curve(rows, n)).items()
    return best_greater(few, many, f"n={small} against n={large}", "epochs")


@claim("sec. 3.4", "The weights for smaller datasets should be updated less times at a high learning rate")
def smaller_wants_fewer_updates(rows: pd.DataFrame) -> Evidence:
    """The best number of updates at the high learning rate is larger at 250 images per class (or 100, or 50) than at
    the smallest. (By the paper's own Table 2 it is 200 at 10, 1467 at 250, but 0 at 500, with batches of 256.)"""
    curves = by_size(sizes(rows, full=False), lambda n: _in_updates(_curve(rows, n), updates_per_epoch(rows, n)))
    (small, few), *others = curves.items()
    medium = [(size, wide) for size, wide in others if size in MEDIUM]
    if not medium:
        raise Missing("No finished runs of Fig. 4 at 50, 100 or 250 images per class and at a smaller number.")
    large, many = medium[-1]
    return best_greater(many, few, f"n={large} against n={small}", "updates")


@claim("sec. 3.4", "10 epochs on our smallest dataset [is] the same number of weight updates as [...] 1 epoch [at] 100")
def ten_epochs_are_one(rows: pd.DataFrame) -> Evidence:
    """Updates of an epoch at n=100 over those at n=10: 10, within rounding to whole batches (arithmetic, no test)."""
    few, many = (updates_per_epoch(rows, n) for n in (10, 100))
    ratio = many / few
    slack = (1 / few + 1 / many) * ratio  # the last batch of an epoch may be smaller
    holds = abs(ratio - 10) <= slack
    return Evidence(
        "updates an epoch, n=100 over n=10", ratio, ratio, ratio, "times", *((0, 1) if holds else (1, 0)), 0, 0, 0
    )


def updates_per_epoch(rows: pd.DataFrame, size: Size) -> float:
    """Median number of updates of an epoch; `Missing` where the rows do not say."""
    rows = pick(rows, n_per_class=size)
    if "updates" not in rows:
        raise Missing("The table has no column updates.")
    return float((rows["updates"] / rows["epochs"]).median())


def _in_updates(decays: pd.DataFrame, per_epoch: float) -> pd.DataFrame:
    """The same columns, in updates instead of epochs."""
    epochs: Any = decays.columns
    return decays.set_axis([decay * per_epoch for decay in epochs], axis=1)


def _levels(wide: pd.DataFrame, size: Size) -> pd.DataFrame:
    """All levels of one size; at least three."""
    present = levels(wide, size)
    if len(present) < 3:
        raise Missing(f"Fewer than three levels of {wide.columns.names[1]} at n_per_class={size}.")
    return at(wide, size, present)


def _curve(rows: pd.DataFrame, size: Size) -> pd.DataFrame:
    """Fig. 4 at one size; at least three levels, or the position of the best one means nothing."""
    return _levels(cells(experiments.decay_epochs(rows), "decay_epochs"), size)


def _best(rows: pd.DataFrame, size: Size, inside: Callable[[int], bool]) -> Evidence:
    """The best decay_epochs of one size is one of those inside."""
    curves = cells(experiments.decay_epochs(rows), "decay_epochs")
    wide: Any = at(curves, size, levels(curves, size))
    return best_in(wide, {level for level in wide if inside(level)}, f"n={size}, epochs")
