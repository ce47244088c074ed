"""What data say about a sentence: an effect with an interval, and two one-sided p values.

`p_for` is the p value of the hypothesis that the sentence is false: where it is small, the sentence is supported.
`p_against` is that of the hypothesis that it is true: where it is small, the sentence is contradicted.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.frame import Missing, Size
from analysis.statistics import PairedDifference, by_unit, p_greater, paired, sign_flip, slopes


@dataclass(frozen=True)
class Evidence:
    """The deciding effect, and the p values of the whole sentence."""

    label: str  # what was compared
    effect: float
    low: float
    high: float
    unit: str
    p_for: float
    p_against: float
    units: int  # independent units behind the effect; 0: a fact or arithmetic, not a test
    distance: float  # from the effect to the threshold
    sd: float  # of the deciding paired difference
    sign_flip: float = math.nan  # two-sided p value of the sign-flip test
    parts: "tuple[Evidence, ...]" = ()
    tests: int = 1  # Bonferroni factor of the deciding p value (number of parts or of rivals)
    missing_sizes: tuple[Size, ...] = ()  # images per class that the sentence is about and the rows lack

    @property
    def p(self) -> float:
        """Two-sided p value: twice the smaller one."""
        return min(1.0, 2 * min(self.p_for, self.p_against))

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.label}: {self.effect:+.2f}{interval} {self.unit}"


def _paired(differences: "pd.Series[Any]", against: float = 0.0) -> PairedDifference:
    try:
        return paired(differences, against)
    except ValueError:
        raise Missing("Fewer than two splits are finished; a test of a difference needs at least two.") from None


def greater(differences: "pd.Series[Any]", label: str, unit: str = "points", than: float = 0.0) -> Evidence:
    """Evidence that the mean difference is above `than` (paired t test)."""
    d = _paired(differences, than)
    flips = sign_flip(by_unit(differences.dropna()).to_numpy() - than)
    return Evidence(label, d.mean, d.low, d.high, unit, d.p_above, d.p_below, d.units, abs(d.mean - than), d.sd, flips)


def equivalent(
    differences: "pd.Series[Any]", label: str, value: float, margin: float, unit: str = "points"
) -> Evidence:
    """Evidence that the mean difference is within `margin` of `value`: two one-sided tests (TOST)."""
    lower, upper = _paired(differences, value - margin), _paired(differences, value + margin)
    inside = max(lower.p_above, upper.p_below)
    outside = min(1.0, 2 * min(lower.p_below, upper.p_above))
    distance = abs(margin - abs(lower.mean - value))
    return Evidence(label, lower.mean, lower.low, lower.high, unit, inside, outside, lower.units, distance, lower.sd)


def growth(differences: "dict[Size, pd.Series[Any]]", unit: str) -> Evidence:
    """Evidence that a difference grows from each size to the next smaller one: its slope over the sizes, ascending."""
    first, *_, last = differences
    return greater(-slopes(pd.DataFrame(differences).dropna()), f"from n={last} down to n={first}", unit)


def intersection_union(parts: Sequence[Evidence]) -> Evidence:
    """Evidence that all parts hold (intersection-union test).

    The largest p value supports the sentence; one part that fails, Bonferroni-adjusted, contradicts it.
    """
    if len(parts) == 1:
        return parts[0]
    weakest, worst = max(parts, key=lambda e: e.p_for), min(parts, key=lambda e: e.p_against)
    against = min(1.0, len(parts) * worst.p_against)
    shown, tests = (worst, len(parts) * worst.tests) if against < weakest.p_for else (weakest, weakest.tests)
    return dataclasses.replace(shown, p_for=weakest.p_for, p_against=against, parts=tuple(parts), tests=tests)


def union_intersection(parts: Sequence[Evidence]) -> Evidence:
    """Evidence that at least one part holds (union-intersection test)."""
    return negate(intersection_union([negate(part) for part in parts]))


def negate(evidence: Evidence) -> Evidence:
    """Evidence for the negated sentence."""
    parts = tuple(negate(part) for part in evidence.parts)
    return dataclasses.replace(evidence, p_for=evidence.p_against, p_against=evidence.p_for, parts=parts)


def compare_with_best(wide: pd.DataFrame) -> "pd.Series[Any]":
    """Multiple comparisons with the best: per level, the p value of the hypothesis that it is the best one.

    `wide` has a row per unit and a column per level. A level's p value is that of its strongest rival, Bonferroni-
    adjusted for the number of rivals. The levels with p > alpha are a 1 - alpha confidence set of the best level.
    """
    values = by_unit(wide).to_numpy()
    n, rivals = len(values), values.shape[1] - 1
    lead = values[:, :, None] - values[:, None, :]  # (unit, rival, level)
    p = p_greater(lead.mean(axis=0), lead.std(axis=0, ddof=1), n)
    p[np.eye(rivals + 1, dtype=bool)] = 1.0
    return pd.Series(np.minimum(1.0, max(1, rivals) * p.min(axis=0)), wide.columns)


def best_in(wide: pd.DataFrame, inside: set[Any], label: str) -> Evidence:
    """Evidence that the best level is one of `inside`; `wide` has a row per unit and a column per level.

    Raises:
        Missing: no level is inside, or none is outside.
    """
    wide = by_unit(wide)
    p, means = compare_with_best(wide), wide.mean()
    within: Any = [level for level in wide if level in inside]
    others: Any = [level for level in wide if level not in inside]
    if not within or not others:
        raise Missing(f"{label}: the table has only {', '.join(map(str, wide.columns))} to choose from.")
    first, rival = means[within].idxmax(), means[others].idxmax()
    d = _paired(wide[first] - wide[rival])
    return Evidence(
        f"{label}: {first} minus {rival}",
        *(d.mean, d.low, d.high),
        unit="points",
        p_for=float(p[others].max()) / 2,  # `Evidence.p` doubles them
        p_against=float(p[within].max()) / 2,
        units=d.units,
        distance=abs(d.mean),
        sd=d.sd,
        tests=wide.shape[1] - 1,
    )


def best_greater(a: pd.DataFrame, b: pd.DataFrame, label: str, unit: str) -> Evidence:
    """Evidence that the best level of `a` is a larger value than the best level of `b`."""
    pa, pb = compare_with_best(a), compare_with_best(b)
    limits = {*pa.index, *pb.index}
    not_greater = min(max(_p_none_best(pa, pa.index > t), _p_none_best(pb, pb.index < t)) for t in limits)
    return _difference_of_best(a, b, label, unit, _p_best_greater(pa, pb), not_greater)


def best_differs(a: pd.DataFrame, b: pd.DataFrame, label: str, unit: str) -> Evidence:
    """Evidence that the best level of `a` differs from the best level of `b`."""
    pa, pb = compare_with_best(a), compare_with_best(b)
    limits = {*pa.index, *pb.index}
    same = min(max(_p_none_best(pa, pa.index != v), _p_none_best(pb, pb.index != v)) for v in limits)
    differs = min(_p_best_greater(pa, pb), _p_best_greater(pb, pa))
    return _difference_of_best(a, b, label, unit, differs, same)


def _p_best_greater(pa: "pd.Series[Any]", pb: "pd.Series[Any]") -> float:
    """The smallest p value, over limits, of "the best of a is at most the limit or the best of b is above it"."""
    limits = {*pa.index, *pb.index}
    return min(max(_p_none_best(pa, pa.index <= t), _p_none_best(pb, pb.index > t)) for t in limits)


def _p_none_best(p: "pd.Series[Any]", which: Any) -> float:
    """The p value of the hypothesis that one of these levels is the best."""
    return float(p[which].max()) if which.any() else 0.0


def _difference_of_best(
    a: pd.DataFrame, b: pd.DataFrame, label: str, unit: str, p_for: float, p_against: float
) -> Evidence:
    """The effect is a difference of best levels, its interval that of their confidence sets (97.5% each)."""
    a, b = by_unit(a), by_unit(b)
    pa, pb = compare_with_best(a), compare_with_best(b)
    best_a: Any = a.mean().idxmax()
    best_b: Any = b.mean().idxmax()
    in_a, in_b = pa.index[pa > 0.025], pb.index[pb > 0.025]
    closest = min(_rivals(a, b, best_a, best_b), key=lambda d: abs(d.mean) / (d.sd or 1e-9))
    return Evidence(
        f"{label}: best {best_a:g} against {best_b:g}",
        *(float(best_a - best_b), float(min(in_a) - max(in_b)), float(max(in_a) - min(in_b)), unit),
        *(p_for, p_against, len(a)),  # two confidence sets: `Evidence.p` doubles them
        *(abs(closest.mean), closest.sd),
        tests=max(a.shape[1], b.shape[1]) - 1,
    )


def _rivals(a: pd.DataFrame, b: pd.DataFrame, best_a: Any, best_b: Any) -> list[PairedDifference]:
    """The differences of which the least certain decides whether the best levels differ."""
    if best_a != best_b and best_b in a and best_a in b:
        return [_paired(a[best_a] - a[best_b]), _paired(b[best_b] - b[best_a])]
    pairs = ((a, best_a), (b, best_b))
    return [_paired(wide[best] - wide[other]) for wide, best in pairs for other in wide if other != best]
