"""A claim: a sentence of a paper, its section, and the function that evaluates it on the rows of a study."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TypeVar

import pandas as pd

from analysis.evidence import Evidence, intersection_union
from analysis.frame import Missing, Size

Result = TypeVar("Result")


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and its test; a claim is called like the function that it wraps."""

    name: str
    where: str  # section of the paper
    quote: str
    statistic: str  # what the function computes: its docstring
    units: str  # of which more would decide
    evaluate: Callable[[pd.DataFrame], Evidence]

    def __call__(self, rows: pd.DataFrame) -> Evidence:
        """The evidence in these rows of the study.

        Raises:
            Missing: the rows lack what the claim is about.
        """
        return self.evaluate(rows)


def claim(where: str, quote: str, units: str = "splits") -> Callable[[Callable[[pd.DataFrame], Evidence]], Claim]:
    """Decorator that makes a function a claim."""

    def decorate(function: Callable[[pd.DataFrame], Evidence]) -> Claim:
        return Claim(function.__name__, where, quote, " ".join((function.__doc__ or "").split()), units, function)

    return decorate


def claims_of(*modules: ModuleType) -> tuple[Claim, ...]:
    """All claims that these modules define, in their order."""
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Claim))


def over_sizes(
    sizes: Iterable[Size],
    evaluate: Callable[[Size], Evidence],
    combine: Callable[[Sequence[Evidence]], Evidence] = intersection_union,
) -> Evidence:
    """The combined evidence at these sizes; `missing_sizes` holds those that the rows lack.

    Raises:
        Missing: they lack all of them.
    """
    present, missing = _evaluate_each(sizes, evaluate)
    if not present:
        raise next(iter(missing.values()), Missing("The table has none of the images per class of this claim."))
    return replace(combine(list(present.values())), missing_sizes=tuple(missing))


def by_size(sizes: Iterable[Size], evaluate: Callable[[Size], Result]) -> dict[Size, Result]:
    """The results at those of these sizes that the rows have, ascending.

    Raises:
        Missing: they have fewer than two of them.
    """
    present, missing = _evaluate_each(sizes, evaluate)
    if len(present) < 2:
        reason = f": {next(iter(missing.values()))}" if missing else "."
        raise Missing(f"Needs two or more numbers of images per class{reason}")
    return present


def _evaluate_each(
    sizes: Iterable[Size], evaluate: Callable[[Size], Result]
) -> tuple[dict[Size, Result], dict[Size, Missing]]:
    present: dict[Size, Result] = {}
    missing: dict[Size, Missing] = {}
    for size in sizes:
        try:
            present[size] = evaluate(size)
        except Missing as reason:
            missing[size] = reason
    return present, missing
