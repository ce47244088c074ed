"""The primary family of the study: twelve contrasts, declared before its first row existed.

Units are class draws (`split`); seeds are averaged within a draw. Both networks of a difference have the same draw, the
same target classes B and the same seed. Accuracy is that on reported images of B, in points; `gap` is training minus
reported accuracy, the text's measure of overfitting. The text prints one size, that of the boost which it quotes: 1 to
2 points. Margins are half of its lower end for accuracies of B and for gaps, a twentieth of the loss for the loss
("very close"), and one point for the probe. Nothing is chosen by the rows; the recipe was piloted on a draw of its own.
"""

from typing import Any

import pandas as pd

from analysis.boost2018.arms import BASELINE, DIVERSE, EQUAL, MORE, RANDOM, SELF, TRANSFERRED, difference, pair
from analysis.contrasts import Contrast

CLOSE = 5.0  # percent of a loss
HALF_POINT, POINT = 0.5, 1.0


def boost(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Accuracy of Transferred minus Non-transferred."""
    return difference(rows, TRANSFERRED, SELF)


def boost_over_baseline(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Accuracy of Transferred minus Baseline, trained on B alone from random weights."""
    return difference(rows, TRANSFERRED, BASELINE)


def gap(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Gap of Transferred minus that of Non-transferred."""
    return difference(rows, TRANSFERRED, SELF, "overfit")


def gap_over_baseline(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Gap of Transferred minus that of Baseline, initialised randomly."""
    return difference(rows, TRANSFERRED, BASELINE, "overfit")


def diverse(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Accuracy of Transferred-Diverse minus Transferred: as many source classes, as many images."""
    return difference(rows, DIVERSE, TRANSFERRED)


def more_data(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Accuracy of Transferred-More-Data minus Transferred: six source classes for four, half as many images again."""
    return difference(rows, MORE, TRANSFERRED)


def more_classes(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Accuracy of the six source classes with as many images as Transferred has in all, minus Transferred."""
    return difference(rows, EQUAL, TRANSFERRED)


def more_images(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Accuracy of Transferred-More-Data minus the same six source classes with two thirds of the images."""
    return difference(rows, MORE, EQUAL)


def training_loss(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Training loss of Transferred minus that of Non-transferred, in % of the latter (evaluation mode, at the end)."""
    transferred, own = pair(rows, TRANSFERRED, SELF, "train_eval_loss")
    return 100 * (transferred / own - 1)


def training_accuracy(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Training accuracy of Transferred minus that of Non-transferred."""
    return difference(rows, TRANSFERRED, SELF, "train_accuracy")


def base_data(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Linear probe of A: Transferred minus Baseline, both after training on B."""
    return difference(rows, TRANSFERRED, BASELINE, "probe")


def base_data_untrained(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Linear probe of A: Transferred minus the untrained network (its convolutions are never trained)."""
    return difference(rows, TRANSFERRED, RANDOM, "probe")


def _contrast(
    function: Any, where: str, sentence: str, direction: int, margin: float, unit: str, text: float | None = None
) -> Contrast:
    statistic = " ".join((function.__doc__ or "").split())
    return Contrast(function.__name__, where, sentence, statistic, direction, text, margin, unit, function)


PRIMARY = (
    _contrast(
        boost, "experiments", "we first need to reproduce the generalization boost phenomenon", 1, HALF_POINT, "points"
    ),
    _contrast(
        boost_over_baseline,
        "generalization boost",
        "Transferred Network B has a 1-2% higher test accuracy",
        *(1, HALF_POINT, "points", 1.0),
    ),
    _contrast(
        gap,
        "expectation 2",
        "the gap between training and validation accuracy for Network Transferred to be minimum and for Network"
        " Non-transferred to be higher",
        *(-1, HALF_POINT, "points"),
    ),
    _contrast(
        gap_over_baseline,
        "hypothesis 2",
        "a larger gap [...] when initialized randomly than initialized via transfer learning",
        *(-1, HALF_POINT, "points"),
    ),
    _contrast(
        diverse,
        "expectation 3",
        "Network Transferred-Diverse to have better generalization accuracy than Network Transferred",
        *(1, HALF_POINT, "points"),
    ),
    _contrast(
        more_data,
        "expectation 4",
        "Transferred-More-Data to have the best generalization accuracy",
        *(1, HALF_POINT, "points"),
    ),
    _contrast(
        more_classes,
        "hypothesis 2",
        "transferring from a more diverse task A [...] would result in a larger generalization boost",
        *(1, HALF_POINT, "points"),
    ),
    _contrast(
        more_images,
        "hypothesis 2",
        "transferring from [...] a larger dataset A would result in a larger generalization boost",
        *(1, HALF_POINT, "points"),
    ),
    _contrast(
        training_loss,
        "hypothesis 1",
        "it results in a lower loss [...] we should expect the training [loss] on Transferred ConvNet B to be lower",
        *(-1, CLOSE, "%"),
    ),
    _contrast(
        training_accuracy,
        "hypothesis 1",
        "The better performance [...] should not be limited to the generalization accuracy",
        *(1, HALF_POINT, "points"),
    ),
    _contrast(
        base_data,
        "hypothesis 2",
        "The target network with transfer learning would likely lead to a better performance on the base dataset than a"
        " randomly initialized network",
        *(1, POINT, "points"),
    ),
    _contrast(
        base_data_untrained,
        "hypothesis 2",
        "the same, if a randomly initialized network is one that was not trained at all",
        *(1, POINT, "points"),
    ),
)
