"""What George (2021) says about DenseNet-121 on CIFAR-10. The unit is the seed: it decides the training images, the new
layers and their order; the copied network is one and the same."""

import pandas as pd

from analysis.claim import claim
from analysis.densenet_transfer.conditions import conditions, difference
from analysis.evidence import Evidence, equivalent, greater, intersection_union
from analysis.frame import Missing

HALF = 0.5  # points: the least change that the text calls a difference


@claim("Materials and methods", "a worthwhile performance increase if we use two layers", "seeds")
def two_layers_beat_one(rows: pd.DataFrame) -> Evidence:
    """(a) minus (b): hidden layers of 512 and 128 minus one of 256."""
    return greater(difference(rows, "a", "b"), "(a) minus (b)")


@claim("Results", "the validation accuracy results was 0.5% to 1.5% lower than with dropout", "seeds")
def dropout_helps(rows: pd.DataFrame) -> Evidence:
    """(a) minus (c) is above 0."""
    return greater(difference(rows, "a", "c"), "(a) minus (c)")


@claim("Results", "0.5% to 1.5% lower", "seeds")
def dropout_gains_half_to_one_and_a_half(rows: pd.DataFrame) -> Evidence:
    """(a) minus (c) is between 0.5 and 1.5 points."""
    return equivalent(difference(rows, "a", "c"), "(a) minus (c)", 1.0, HALF)


@claim(
    "Results",
    "Learning rate reduction happened more often, but often led to very little real performance increases",
    "seeds",
)
def callbacks_change_little(rows: pd.DataFrame) -> Evidence:
    """(a) minus (d) is within half a point of 0."""
    return equivalent(difference(rows, "a", "d"), "(a) minus (d)", 0.0, HALF)


@claim("Results", "the training accuracy was very similar to the validation accuracy", "seeds")
def no_overfitting(rows: pd.DataFrame) -> Evidence:
    """Training minus validation accuracy of (a) is within two points of 0."""
    chosen = conditions(rows).query("condition == 'a'").set_index(["unit", "seed"])
    if chosen.empty:
        raise Missing("No finished runs of condition a.")
    gap = pd.Series(100 * (chosen["train_top1"] - chosen["val_top1"]))
    return equivalent(gap, "(a), training minus validation", 0.0, 2.0)


@claim("Results", "these results in only 3–5 epochs", "seeds")
def few_epochs(rows: pd.DataFrame) -> Evidence:
    """Epochs until (a) is within half a point of its best validation accuracy: fewer than 5.5."""
    chosen = conditions(rows).query("condition == 'a'").set_index(["unit", "seed"])
    if chosen.empty or "epochs_to_near_best" not in chosen:
        raise Missing("No finished runs of condition a with a curve.")
    return greater(5.5 - chosen["epochs_to_near_best"], "(a), 5.5 minus epochs", "epochs")


@claim(
    "Results",
    "the 88.5% validation accuracy rate was already achieved before any reduction in the learning rate",
    "seeds",
)
def best_before_the_rates_fall(rows: pd.DataFrame) -> Evidence:
    """Epochs before the rates fell (all, if they never did) minus epochs until (a) is near its best: above 0."""
    chosen = conditions(rows).query("condition == 'a'").set_index(["unit", "seed"])
    if chosen.empty or "epochs_to_first_fall" not in chosen:
        raise Missing("No finished runs of condition a with a curve.")
    fell = chosen["epochs_to_first_fall"].fillna(chosen["epochs_trained"])
    return greater(fell - chosen["epochs_to_near_best"], "(a), first fall minus near best", "epochs")


@claim("Alternative methods", "When using not native sizing [...] the results took a significant hit", "seeds")
def native_size_is_worse(rows: pd.DataFrame) -> Evidence:
    """(a) minus (e): enlarged minus native 32 pixels, all else equal."""
    return greater(difference(rows, "a", "e"), "(a) minus (e)")


@claim("Alternative methods", "only able to achieve 83% with optimization for the different image size", "seeds")
def optimising_for_the_native_size_does_not_reach(rows: pd.DataFrame) -> Evidence:
    """(f) minus (e) and (a) minus (f) are both above 0."""
    pairs = (("f", "e"), ("a", "f"))
    parts = [greater(difference(rows, one, other), f"({one}) minus ({other})") for one, other in pairs]
    return intersection_union(parts)


@claim("Alternative methods", "it [data augmentation] showed no improvement in accuracy", "seeds")
def augmentation_gains_nothing(rows: pd.DataFrame) -> Evidence:
    """(g) gains less than half a point over (a)."""
    return greater(difference(rows, "a", "g"), "(a) minus (g), above -0.5", than=-HALF)


@claim("Alternative methods", "Using the smaller (32, 32, 3) image data [...] showed promise in fine tuning", "seeds")
def unfreezing_helps_at_the_native_size(rows: pd.DataFrame) -> Evidence:
    """(i) minus (e): all layers learn minus frozen, at 32 pixels."""
    return greater(difference(rows, "i", "e"), "(i) minus (e)")


@claim("Alternative methods", "but not nearly enough as compared to full size images without fine-tuning", "seeds")
def unfrozen_native_stays_below_frozen_enlarged(rows: pd.DataFrame) -> Evidence:
    """(a) minus (i): frozen and enlarged minus all layers at 32 pixels."""
    return greater(difference(rows, "a", "i"), "(a) minus (i)")


@claim("Conclusion", "train entirely form [sic] scratch, which would take much much longer", "seeds")
def transfer_beats_scratch(rows: pd.DataFrame) -> Evidence:
    """(a) minus (k) with the same number of epochs at most."""
    return greater(difference(rows, "a", "k"), "(a) minus (k)")
