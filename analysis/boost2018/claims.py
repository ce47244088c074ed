"""The sentences of the text as claims: the quoted observations, four expectations, two hypotheses."""

import pandas as pd

from analysis.boost2018 import contrasts
from analysis.boost2018.arms import ARMS, BASELINE, EQUAL, MORE, SELF, by_arm, difference
from analysis.boost2018.contrasts import CLOSE, HALF_POINT
from analysis.claim import claim
from analysis.evidence import Evidence, best_in, equivalent, greater, intersection_union


@claim("experiments", "we first need to reproduce the generalization boost phenomenon")
def boost_reproduces(rows: pd.DataFrame) -> Evidence:
    """Accuracy of Transferred minus Non-transferred."""
    return greater(contrasts.boost(rows), "Transferred minus Non-transferred")


@claim("generalization boost", "Transferred Network B has a 1-2% higher test accuracy [than one only trained on B]")
def transfer_beats_baseline(rows: pd.DataFrame) -> Evidence:
    """Accuracy of Transferred minus Baseline."""
    return greater(contrasts.boost_over_baseline(rows), "Transferred minus Baseline")


@claim("longer training time", "BnB+ did not show a performance improvement")
def own_classes_bring_nothing(rows: pd.DataFrame) -> Evidence:
    """Accuracy of Non-transferred minus Baseline: within half a point of 0."""
    return equivalent(difference(rows, SELF, BASELINE), "Non-transferred minus Baseline", 0.0, HALF_POINT)


@claim("expectation 1", "We compare the training loss [...]. We expect the values to be very close.")
def training_losses_are_close(rows: pd.DataFrame) -> Evidence:
    """Training loss of Transferred against Non-transferred: within 5% of the latter."""
    return equivalent(contrasts.training_loss(rows), "Transferred over Non-transferred", 0.0, CLOSE, "%")


@claim(
    "expectation 2",
    "We expect the gap between training and validation accuracy for Network Transferred to be minimum and for Network"
    " Non-transferred to be higher.",
)
def gap_is_smaller(rows: pd.DataFrame) -> Evidence:
    """Training minus reported accuracy: Non-transferred minus Transferred."""
    return greater(-contrasts.gap(rows), "gap, Non-transferred minus Transferred")


@claim("expectation 3", "We expect Network Transferred-Diverse to have better generalization accuracy")
def diverse_beats_transferred(rows: pd.DataFrame) -> Evidence:
    """Accuracy of Transferred-Diverse minus Transferred."""
    return greater(contrasts.diverse(rows), "Transferred-Diverse minus Transferred")


@claim("expectation 4", "We expect Transferred-More-Data to have the best generalization accuracy.")
def more_data_is_best(rows: pd.DataFrame) -> Evidence:
    """The arm with the best accuracy among the text's networks and the baseline."""
    wide = by_arm(rows)
    printed = [arm for arm in ARMS if arm in wide and arm != EQUAL]  # not our control, which is part of More-Data
    return best_in(wide[printed].dropna(), {MORE}, "best arm")


@claim("hypothesis 1", "The better performance [...] should not be limited to the generalization accuracy.")
def training_is_better_too(rows: pd.DataFrame) -> Evidence:
    """Training loss of Transferred below, and training accuracy above, that of Non-transferred."""
    loss = greater(-contrasts.training_loss(rows), "training loss, Non-transferred over Transferred", "%")
    return intersection_union([loss, greater(contrasts.training_accuracy(rows), "training accuracy")])


@claim("hypothesis 2", "a larger gap [...] when initialized randomly than initialized via transfer learning")
def random_initialisation_overfits_more(rows: pd.DataFrame) -> Evidence:
    """Training minus reported accuracy: Baseline minus Transferred."""
    return greater(-contrasts.gap_over_baseline(rows), "gap, Baseline minus Transferred")


@claim("hypothesis 2", "[it] would likely lead to a better performance on the base dataset")
def better_on_base_data(rows: pd.DataFrame) -> Evidence:
    """Linear probe of A: Transferred minus Baseline, both trained on B."""
    return greater(contrasts.base_data(rows), "probe of A, Transferred minus Baseline")


@claim(
    "hypothesis 2",
    "transferring from a more diverse task A or on a larger dataset A would result in a larger generalization boost",
)
def diversity_and_size_each_help(rows: pd.DataFrame) -> Evidence:
    """Six source classes with the images of four, minus Transferred; and More-Data minus those six."""
    parts = {"more classes, as many images": contrasts.more_classes, "more images, same classes": contrasts.more_images}
    return intersection_union([greater(part(rows), label) for label, part in parts.items()])
