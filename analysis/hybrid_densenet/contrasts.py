"""The family of contrasts, declared before the first row of a study existed. Units are seeds.

The first five are differences of printed accuracies, the sixth is what Figure 7 shows. The last three ask why the
text's Vanilla lies 5.05 points below the DenseNet paper's network on CIFAR-100: dropout beside augmentation, which that
paper does not have, and the choice of the epoch by loss, which may rise after the rate has fallen while accuracy does
not. Margins: half of the printed difference where there is one (the total of 5.05 in the last), else half a point; 0.1
nats for a loss.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.contrasts import Contrast
from analysis.hybrid_densenet.variants import NO_DROPOUT, VANILLA, difference, gain, wide

PAIRS = (("A", VANILLA), ("B", VANILLA), ("A+B", VANILLA), ("A+B", "A"), ("A", "B"))
BELOW = 5.05  # points: 77.73 (Huang et al. 2017, C100+) minus 72.68


def family(rows: pd.DataFrame) -> Sequence[Contrast]:
    """The contrasts, with the printed sizes of the rows' data set."""
    return (
        *(_over(one, other, gain(rows, one, other)) for one, other in PAIRS),
        Contrast(
            name="Vanilla overfits",
            where="sec. 4.3.1, Fig. 7",
            sentence="the Vanilla DenseNet is prone to overfitting",
            statistic="Validation minus training loss after the last epoch, without dropout and augmentation: "
            "Vanilla minus A+B.",
            direction=1,
            paper=None,
            margin=0.1,
            unit="nats",
            differences=lambda rows: difference(rows, VANILLA, "A+B", "overfitting"),
        ),
        Contrast(
            name="dropout costs",
            where="Huang et al. 2017, sec. 4.2",
            sentence="a dropout layer [on] the three datasets without data augmentation",
            statistic="Test accuracy at the least validation loss: Vanilla without dropout minus Vanilla.",
            direction=1,
            paper=None,
            margin=0.5,
            unit="points",
            differences=lambda rows: difference(rows, NO_DROPOUT, VANILLA),
        ),
        Contrast(
            name="least loss costs",
            where="sec. 4.2",
            sentence="we evaluate the model with the least validation loss",
            statistic="Test accuracy of Vanilla at the best validation accuracy minus at the least validation loss.",
            direction=1,
            paper=None,
            margin=0.5,
            unit="points",
            differences=lambda rows: chosen_by_accuracy(rows, VANILLA),
        ),
        Contrast(
            name="both cost",
            where="Table 1; Huang et al. 2017, Table 2",
            sentence="72.68 against 77.73",
            statistic="Test accuracy: Vanilla without dropout at the best validation accuracy minus Vanilla at the "
            "least validation loss.",
            direction=1,
            paper=BELOW,
            margin=BELOW / 2,
            unit="points",
            differences=lambda rows: chosen_by_accuracy(rows, NO_DROPOUT),
        ),
    )


def chosen_by_accuracy(rows: pd.DataFrame, variant: str) -> "pd.Series[Any]":
    """Test accuracy of a variant at the best validation accuracy minus Vanilla's at the least validation loss."""
    difference(rows, variant, VANILLA)  # Missing where there are no runs of one of them
    return pd.Series(wide(rows, "at_best_accuracy")[variant] - wide(rows)[VANILLA])


def _over(one: str, other: str, points: float) -> Contrast:
    return Contrast(
        name=f"{one} over {other}",
        where="Tables 1 and 2",
        sentence=f"{points:+.2f} points, printed",
        statistic=f"Test accuracy at the least validation loss: {one} minus {other}.",
        direction=1,
        paper=points,
        margin=points / 2,
        unit="points",
        differences=lambda rows: difference(rows, one, other),
    )
