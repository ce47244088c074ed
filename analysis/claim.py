"""A claim: a sentence of the paper, where it stands, and the function that weighs it against a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.evidence import Evidence
from analysis.study import Missing


@dataclass(frozen=True)
class Claim:
    """A named function on the table that knows its sentence."""

    name: str
    where: str
    quote: str
    statistic: str  # what the function computes
    weigh: Callable[[pd.DataFrame], Evidence]

    def __call__(self, table: pd.DataFrame) -> Evidence:
        """The evidence in this table.

        Raises:
            Missing: the table lacks what the claim is about.
        """
        return self.weigh(table)


def claim(where: str, quote: str) -> Callable[[Callable[[pd.DataFrame], Evidence]], Claim]:
    """Make a function a claim."""

    def named(function: Callable[[pd.DataFrame], Evidence]) -> Claim:
        return Claim(function.__name__, where, quote, " ".join((function.__doc__ or "").split()), function)

    return named


def parts(over: Sequence[Any], weigh: Callable[[Any], Evidence]) -> list[Evidence]:
    """The evidence at each of these sizes that the table has.

    Raises:
        Missing: it has none of them.
    """
    found, reason = [], Missing("The table has none of the images per class that this is about.")
    for size in over:
        try:
            found.append(weigh(size))
        except Missing as missing:
            reason = missing
    if not found:
        raise reason
    return found
