"""Claims of the text, declared before the first row of a study existed: on accuracy by seeds, on memory as facts."""

import pandas as pd

from analysis.claim import claim
from analysis.evidence import Evidence, greater, intersection_union
from analysis.hybrid_densenet.variants import VANILLA, difference, named

HALF = 0.6  # "approximately half" is at most this
OVERFITTING = "overfitting"


def _over(rows: pd.DataFrame, one: str, other: str) -> Evidence:
    return greater(difference(rows, one, other), f"{one} minus {other}")


def _fact(label: str, value: float, unit: str, holds: bool) -> Evidence:
    return Evidence(label, value, value, value, unit, *((0, 1) if holds else (1, 0)), 0, 0, 0)


@claim("sec. 4.3.1", "integrating only Drop Channel [...] increase, while solely applying SE Blocks improved", "seeds")
def each_helps(rows: pd.DataFrame) -> Evidence:
    """A minus Vanilla and B minus Vanilla, test accuracy at the least validation loss."""
    return intersection_union([_over(rows, "A", VANILLA), _over(rows, "B", VANILLA)])


@claim("sec. 4.3.1", "Drop Channel and SE Blocks achieved the highest accuracy of 74.97%", "seeds")
def both_are_better_than_one(rows: pd.DataFrame) -> Evidence:
    """The order A+B, A, B of Table 1: A+B minus A and A minus B, test accuracy at the least validation loss."""
    return intersection_union([_over(rows, "A+B", "A"), _over(rows, "A", "B")])


@claim("sec. 4.3.1", "combined method boosted the accuracy by approximately 2.3%", "seeds")
def both_help(rows: pd.DataFrame) -> Evidence:
    """A+B minus Vanilla, test accuracy at the least validation loss."""
    return _over(rows, "A+B", VANILLA)


@claim(
    "sec. 4.3.1",
    "the Vanilla DenseNet model is prone to overfitting, while [A+B] handles that problem pretty well",
    "seeds",
)
def vanilla_overfits(rows: pd.DataFrame) -> Evidence:
    """Validation minus training loss after the last epoch, without dropout and augmentation: Vanilla minus A+B."""
    return greater(difference(rows, VANILLA, "A+B", OVERFITTING), f"{VANILLA} minus A+B", "nats")


@claim("sec. 4.3.1", "approximately half the memory usage", "seeds")
def checkpointing_halves_memory(rows: pd.DataFrame) -> Evidence:
    """Peak memory of an update, A+B+C over A+B: at most 0.6 (printed: 0.43 on CIFAR-100, 0.24 on Tiny ImageNet). A
    fact, since all runs of a variant need the same."""
    difference(rows, "A+B+C", "A+B", "peak_memory_mb")
    memory = named(rows).groupby("variant")["peak_memory_mb"].mean()
    ratio = float(memory["A+B+C"] / memory["A+B"])
    return _fact("peak memory, A+B+C over A+B", ratio, "times", ratio <= HALF)


@claim("sec. 3.3", "The tradeoff in this method is higher training time (around 20%)", "seeds")
def checkpointing_costs_time(rows: pd.DataFrame) -> Evidence:
    """Training images per second, A+B minus A+B+C. Only runs on machines of their own measure this; otherwise see the
    benchmark `hybrid`."""
    return greater(difference(rows, "A+B", "A+B+C", "images_per_second"), "A+B minus A+B+C", "images/s")


@claim("sec. 3.3", "these feature maps are not retained permanently and are recomputed", "seeds")
def checkpointing_changes_no_result(rows: pd.DataFrame) -> Evidence:
    """Largest absolute difference of test accuracy between A+B+C and A+B of a seed: none, on a processor with one
    thread; on a GPU sums may be added in another order. A fact."""
    largest = float(difference(rows, "A+B+C", "A+B").abs().max())
    return _fact("largest difference, A+B+C and A+B", largest, "points", largest == 0)
