"""Two epochs of a run, chosen by validation: that of least loss and that of best accuracy, and the test accuracy there.

The test images are evaluated whenever an epoch is the best so far. Hence no weights are kept for later, and a run that
resumes knows from its curve what it needs.
"""

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from tlprotocols.records import Row

Point = Mapping[str, Any]  # of a curve: one epoch


def least_val_loss(curve: Sequence[Point]) -> Point | None:
    """The first epoch with the least validation loss; None if no loss is a number."""
    return min((point for point in curve if math.isfinite(point["val_loss"])), key=itemgetter("val_loss"), default=None)


def best_val_top1(curve: Sequence[Point]) -> Point | None:
    """The first epoch with the best validation accuracy."""
    return max(curve, key=itemgetter("val_top1"), default=None)


CHOICES = {"least_val_loss": least_val_loss, "best_val_top1": best_val_top1}


def is_best_so_far(point: Point, before: Sequence[Point]) -> bool:
    """Whether one of the choices takes this epoch, of all until now."""
    return any(choose([*before, point]) is point for choose in CHOICES.values())


def columns(curve: Sequence[Point]) -> Row:
    """Number, validation and test accuracy of both epochs; None where there is none."""
    row: Row = {}
    for name, choose in CHOICES.items():
        point = choose(curve) or {}
        row |= {f"{key}_at_{name}": point.get(key) for key in ("epoch", "val_top1", "test_top1")}
    return row
