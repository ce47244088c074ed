"""The claims of sections 3.1 to 3.3 about how many layers to transfer."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.claim import by_size, claim, over, wanted
from analysis.evidence import Evidence, above, best_above, best_differs, best_in, every, near, some
from analysis.frame import Missing, Size, at, cells, order, sizes, study
from analysis.plested2019 import fig1, fig3, published
from analysis.plested2019.fig1 import LAYERS
from analysis.statistics import slopes

Compare = Callable[[pd.DataFrame, pd.DataFrame, str, str], Evidence]
SMALL = (10, 25, 50)  # images per class of Table 1
MARGIN = 1.0  # points within which two accuracies count as about equal


def _all_high(table: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    return cells(fig1.rows(table), "layers", value)


def _one_high(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    low, high = fig3.decays(table)
    return cells(fig3.rows(table, low), "layers"), cells(fig3.rows(table, high), "layers")


def numbers(table: pd.DataFrame) -> list[Size]:
    """The images per class of the table, without `full`."""
    return sizes(study(table), full=False)


def smallest(table: pd.DataFrame) -> Size:
    """The smallest number of images per class."""
    return numbers(table)[0]


def trend(found: "dict[Size, pd.Series[Any]]", unit: str) -> Evidence:
    """How much a difference grows from one size to the next smaller one."""
    first, *_, last = found
    return above(-slopes(pd.DataFrame(found).dropna()), f"from n={last} down to n={first}", unit)


def mean_of(found: "list[pd.Series[Any]]") -> "pd.Series[Any]":
    """Per unit, the mean over conditions; only units that have all."""
    return pd.concat(found, axis=1).dropna().mean(axis=1)


@claim("sec. 3.1", "for the full target dataset size the accuracy increases slightly with the number of layers")
def full_gains_with_layers(table: pd.DataFrame) -> Evidence:
    """Slope of accuracy over 4 to 7 layers, all at the high rate, whole set."""
    return above(slopes(at(_all_high(table), "full", LAYERS)), "n=full", "points a layer")


@claim(
    "sec. 3.1", "as soon as the size of the dataset is halved [...] better to transfer only five layers [than] seven"
)
def five_layers_beat_seven(table: pd.DataFrame) -> Evidence:
    """5 minus 7 layers, all at the high rate, at every size but the whole set."""
    wide = _all_high(table)
    return over(wanted(table, full=False), lambda n: above(_minus(wide, n, 5, 7), f"n={n}"))


@claim("sec. 3.1", "This result is most pronounced for the smallest dataset [+12.2% relative]")
def five_over_seven_most_when_smallest(table: pd.DataFrame) -> Evidence:
    """Relative gain of 5 over 7 layers at the smallest size minus its mean over the other numbers."""
    wide = _all_high(table)
    gain = by_size(numbers(table), lambda n: 100 * (at(wide, n, [5, 7])[5] / at(wide, n, [5, 7])[7] - 1))
    return _smallest_over_others(gain, "% of 7 layers' accuracy")


def _smallest_over_others(found: "dict[Size, pd.Series[Any]]", unit: str) -> Evidence:
    (smallest, first), *others = found.items()
    return above(first - mean_of([other for _, other in others]), f"n={smallest} minus the others", unit)


@claim("sec. 3.1, Table 1", "overfitting is much more pronounced when more layers are transferred")
def more_layers_overfit_more(table: pd.DataFrame) -> Evidence:
    """Slope of validation minus training loss over 4 to 7 layers at 10, 25 and 50 images per class."""
    wide = _all_high(table, "gap")
    return over(SMALL, lambda n: above(slopes(at(wide, n, LAYERS)), f"n={n}", "nats a layer"))


@claim("sec. 3.1, Table 1", "for smaller target datasets overfitting is much more pronounced [with more layers]")
def layers_overfit_most_when_small(table: pd.DataFrame) -> Evidence:
    """Growth of that slope from size to next smaller size, over the sizes of Table 1."""
    wide = _all_high(table, "gap")
    found = by_size(SMALL, lambda n: slopes(at(wide, n, LAYERS)))
    return trend(found, "nats a layer and size")


@claim("sec. 3.2", "[six layers] produced either the top or comparable to the top accuracy across all [...] sizes")
def six_layers_top_or_close(table: pd.DataFrame) -> Evidence:
    """6 minus every other number of layers, all at the high rate, at every size: above -1 point."""
    wide, rivals = _all_high(table), [layers for layers in LAYERS if layers != 6]

    def close(size: Size) -> Evidence:
        return every([above(_minus(wide, size, 6, m), f"n={size}, 6 minus {m}", than=-MARGIN) for m in rivals])

    return over(wanted(table), close)


@claim("sec. 3.3", "with a high setting [...] the optimal number [...] is five, for all but the two smallest")
def five_best_at_high_decay(table: pd.DataFrame) -> Evidence:
    """5 layers beat every other number at decay_epochs=lr.step, only the last layer at the high rate."""
    wide = _one_high(table)[1]
    rest = [n for n in wanted(table) if order(n) > 25]
    return over(rest, lambda n: best_in(at(wide, n, LAYERS), {5}, f"n={n}"))


@claim("sec. 3.3", "when a low setting [...] is used the optimal number [...] is six, for all [...] except the largest")
def six_best_at_low_decay(table: pd.DataFrame) -> Evidence:
    """6 layers beat every other number at the low decay_epochs, at every size but the whole set."""
    wide = _one_high(table)[0]
    return over(wanted(table, full=False), lambda n: best_in(at(wide, n, LAYERS), {6}, f"n={n}"))


@claim("sec. 3.3, Fig. 3", "with a low (5) left and high (30) right [so that the text's 'left' is the low setting]")
def fig3_read_by_its_caption(table: pd.DataFrame) -> Evidence:
    """The text read by the caption's sides: the high decay favours 6 over 5 layers more than the low one does."""
    return above(-_six_over_five(table), "6 minus 5 layers, high minus low decay")


@claim("sec. 3.3; sec. 4 item 3", "the interaction between number of layers to transfer and [...] hyperparameters")
def low_decay_favours_six(table: pd.DataFrame) -> Evidence:
    """(6 minus 5 layers at the low decay) minus (the same at the high decay), mean over all sizes but the whole."""
    return above(_six_over_five(table), "6 minus 5 layers, low minus high decay")


def _six_over_five(table: pd.DataFrame) -> "pd.Series[Any]":
    low, high = _one_high(table)
    return mean_of([_minus(low, n, 6, 5) - _minus(high, n, 6, 5) for n in numbers(table) if (n, 6) in low])


def _minus(wide: pd.DataFrame, size: Size, one: Any, other: Any) -> "pd.Series[Any]":
    pair = at(wide, size, [one, other])
    return pd.Series(pair[one] - pair[other])


def _lift(table: pd.DataFrame, size: Size) -> "pd.Series[Any]":
    """Low minus high decay, mean over 4 to 7 layers: no layer is chosen, so nothing is selected."""
    low, high = _one_high(table)
    return mean_of([_minus_at(low, high, size, layers) for layers in LAYERS])


def _minus_at(low: pd.DataFrame, high: pd.DataFrame, size: Size, layers: int) -> "pd.Series[Any]":
    return pd.Series(at(low, size, [layers])[layers] - at(high, size, [layers])[layers])


@claim("sec. 3.3", "The lower initial decay setting also results in higher accuracies for all but the largest dataset")
def low_decay_better_but_for_full(table: pd.DataFrame) -> Evidence:
    """Low minus high decay, mean over 4 to 7 layers, at every size but the whole set."""
    return over(wanted(table, full=False), lambda n: above(_lift(table, n), f"n={n}"))


@claim("sec. 3.3", "the accuracy on the largest dataset is lower when a small number of epochs before decay are used")
def low_decay_worse_on_full(table: pd.DataFrame) -> Evidence:
    """High minus low decay on the whole set, mean over 4 to 7 layers."""
    return above(-_lift(table, "full"), "n=full, high minus low decay")


@claim("sec. 3.3", "The biggest increase in accuracy is [...] on the smallest dataset")
def decay_gain_biggest_when_smallest(table: pd.DataFrame) -> Evidence:
    """Low minus high decay at the smallest size minus its mean over the other numbers."""
    return _smallest_over_others(by_size(numbers(table), lambda n: _lift(table, n)), "points")


@claim("sec. 3.3", "[an increase of] 3.5% on the smallest dataset")
def decay_gain_is_3_5(table: pd.DataFrame) -> Evidence:
    """Low minus high decay at n=10, each at its own best layers; read as points, within 1 point of the paper's."""
    paper = published.spoken("sec 3.3", "increase in accuracy", "10")
    lifts = fig3.lifts(table)
    if 10 not in lifts:
        raise Missing("No finished runs of Fig. 3 with n_per_class=10.")
    return near(lifts[10], "n=10, low minus high decay", paper, MARGIN)


@claim("sec. 3.3", "the increase on the second largest dataset is only 0.07%")
def decay_gain_vanishes_at_500(table: pd.DataFrame) -> Evidence:
    """Low minus high decay at n=500, each at its own best layers, within half a point of the paper's."""
    paper = published.spoken("sec 3.3", "increase in accuracy", "500")
    lifts = fig3.lifts(table)
    if 500 not in lifts:
        raise Missing("No finished runs of Fig. 3 with n_per_class=500.")
    return near(lifts[500], "n=500, low minus high decay", paper, MARGIN / 2)


@claim("sec. 3.3", "[all layers high:] four layers rather than five or six produces only marginally lower results")
def four_layers_marginal_when_all_high(table: pd.DataFrame) -> Evidence:
    """Mean of 5 and 6 layers minus 4, all at the high rate, mean over sizes: within 1 point of 0."""
    wide = _all_high(table)
    found = [_over_four(wide, n) for n in sizes(study(table)) if (n, 4) in wide]
    if not found:
        raise Missing("No finished runs of Fig. 1 with 4 layers.")
    return near(mean_of(found), "5 and 6 minus 4 layers", 0, MARGIN)


@claim("sec. 3.3", "when just the final [...] layer is trained with a high learning rate [...] only four [...] lower")
def four_layers_worse_when_one_high(table: pd.DataFrame) -> Evidence:
    """Mean of 5 and 6 layers minus 4, only the last layer at the high rate, low decay, at every size."""
    wide = _one_high(table)[0]
    return over(wanted(table), lambda n: above(_over_four(wide, n), f"n={n}"))


def _over_four(wide: pd.DataFrame, size: Size) -> "pd.Series[Any]":
    trio = at(wide, size, [4, 5, 6])
    return (trio[5] + trio[6]) / 2 - trio[4]


@claim(
    "abstract; sec. 1; sec. 3.3", "the optimal number of layers to transfer [...] will likely be estimated incorrectly"
)
def layers_misestimated(table: pd.DataFrame) -> Evidence:
    """At some size the best number of layers with all at the high rate is another than with only the last one."""
    return over(wanted(table), lambda n: _shift(table, n, best_differs), some)


@claim("sec. 4 item 3", "overestimated for small and medium sized target datasets and underestimated for large")
def overestimated_small_underestimated_large(table: pd.DataFrame) -> Evidence:
    """The best number with all layers at the high rate is above the one with only the last layer, but for the whole
    set, where it is below. (By the paper's own Fig. 1 and Table 2 it is the reverse: 5 against 6, and 7 against 5.)"""
    found = over(wanted(table), lambda n: _shift(table, n, _below if n == "full" else best_above))
    # without the whole set the sentence can be found false, not true
    return dataclasses.replace(found, p_for=1.0) if "full" in found.absent else found


def _shift(table: pd.DataFrame, size: Size, compare: Compare) -> Evidence:
    """All high against only the last layer high, at the paper's better decay: low, but high for the whole set."""
    gentle = _one_high(table)[size == "full"]
    return compare(at(_all_high(table), size, LAYERS), at(gentle, size, LAYERS), f"n={size}", "layers")


def _below(a: pd.DataFrame, b: pd.DataFrame, label: str, unit: str) -> Evidence:
    """Evidence that the best of `a` is below the best of `b`."""
    return best_above(b, a, f"{label}, reversed", unit)
