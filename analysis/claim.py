"""A claim: a sentence of the paper, where it stands, and the function that weighs it against a table."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pandas as pd

from analysis.evidence import Evidence, every
from analysis.frame import Missing, Size, order, sizes, study
from analysis.plested2019.published import table2

Found = TypeVar("Found")


@dataclass(frozen=True)
class Claim:
    """A named function on the table that knows its sentence."""

    name: str
    where: str
    quote: str
    statistic: str  # what the function computes
    units: str  # what there could be more of
    weigh: Callable[[pd.DataFrame], Evidence]

    def __call__(self, table: pd.DataFrame) -> Evidence:
        """The evidence in this table.

        Raises:
            Missing: the table lacks what the claim is about.
        """
        return self.weigh(table)


def claim(where: str, quote: str, units: str = "splits") -> Callable[[Callable[[pd.DataFrame], Evidence]], Claim]:
    """Make a function a claim."""

    def named(function: Callable[[pd.DataFrame], Evidence]) -> Claim:
        return Claim(function.__name__, where, quote, " ".join((function.__doc__ or "").split()), units, function)

    return named


def wanted(table: pd.DataFrame, full: bool = True) -> list[Size]:
    """The paper's images per class and the table's, ascending; `full=False` leaves the whole set out."""
    found = {*table2(), *sizes(study(table))}
    return sorted((size for size in found if full or size != "full"), key=order)


def over(
    which: Iterable[Size],
    weigh: Callable[[Size], Evidence],
    join: Callable[[Sequence[Evidence]], Evidence] = every,
) -> Evidence:
    """The evidence at each of these sizes, joined; it keeps which of them the table lacks.

    Raises:
        Missing: it lacks all of them.
    """
    found, absent = _each(which, weigh)
    if not found:
        raise next(iter(absent.values()), Missing("The table has none of the images per class that this is about."))
    return replace(join(list(found.values())), absent=tuple(absent))


def by_size(which: Iterable[Size], weigh: Callable[[Size], Found]) -> dict[Size, Found]:
    """What is found at each of these sizes that the table has, ascending.

    Raises:
        Missing: it has fewer than two of them.
    """
    found, absent = _each(which, weigh)
    if len(found) < 2:
        why = f": {next(iter(absent.values()))}" if absent else "."
        raise Missing(f"Needs two or more numbers of images per class{why}")
    return found


def _each(which: Iterable[Size], weigh: Callable[[Size], Found]) -> tuple[dict[Size, Found], dict[Size, Missing]]:
    found: dict[Size, Found] = {}
    absent: dict[Size, Missing] = {}
    for size in which:
        try:
            found[size] = weigh(size)
        except Missing as missing:
            absent[size] = missing
    return found, absent
