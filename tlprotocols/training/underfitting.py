"""Whether a run trained too little, by its training loss alone: a row says so, and nothing is chosen by it."""

import math
from collections.abc import Sequence

import numpy as np

NEAR_CHANCE = 0.8  # of ln K: so much of the loss of chance is left on the very images that were trained on
FALLING = 0.05  # of ln K, in the last quarter of the epochs: what another quarter would bring about
FITTED = 0.1  # of ln K: below it there is little left to fall


def is_underfitted(losses: Sequence[float], learned: float, classes: int) -> bool:
    """`losses` are the training losses of the epochs, `learned` the loss on the training images after the last one, in
    evaluation mode; all in nats, of K classes.

    Underfitted is a run whose loss is still near ln K, the loss of chance, or was still falling fast when it ended: the
    least-squares line through the last quarter of the epochs falls by more than `FALLING`. The lower of `learned` and
    the last of `losses` counts: dropout raises the one, running means of batch norm may raise the other.
    """
    chance, left = math.log(classes), min(learned, losses[-1])
    if not math.isfinite(learned) or not all(map(math.isfinite, losses)):
        return False
    falls = left > FITTED * chance and fall_of_last_quarter(losses) > FALLING * chance
    return falls or left > NEAR_CHANCE * chance


def fall_of_last_quarter(losses: Sequence[float]) -> float:
    """Nats by which the loss falls in the last quarter of the epochs, two at the least; 0 of fewer than four epochs."""
    if len(losses) < 4:
        return 0.0
    last = losses[-max(2, math.ceil(len(losses) / 4)) :]
    return -float(np.polyfit(range(len(last)), last, 1)[0]) * len(last)
