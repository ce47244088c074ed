"""What data say about a sentence: an effect with an interval, and two p values, one for it and one against it.

The p value *for* tests "the sentence is false", the one *against* tests "the sentence is true", each one-sided.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.frame import Missing, Size
from analysis.statistics import SPREAD, Paired, by_unit, paired, sign_flip


@dataclass(frozen=True)
class Evidence:
    """The effect that decides, and the p values of the whole sentence."""

    label: str  # what was compared
    effect: float
    low: float
    high: float
    unit: str
    p_for: float
    p_against: float
    units: int
    distance: float  # from the effect to the value that would not decide
    sd: float  # of the deciding paired difference
    sign_flip: float = math.nan
    parts: "tuple[Evidence, ...]" = ()
    tests: int = 1  # by which the deciding p value was multiplied (Bonferroni over parts or rivals)
    absent: tuple[Size, ...] = ()  # images per class that the sentence is about and the table lacks

    @property
    def p(self) -> float:
        """Two-sided: the better of the two, doubled."""
        return min(1.0, 2 * min(self.p_for, self.p_against))

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.label}: {self.effect:+.2f}{interval} {self.unit}"


def _paired(differences: "pd.Series[Any]", against: float = 0.0) -> Paired:
    try:
        return paired(differences, against)
    except ValueError:
        raise Missing("Fewer than two splits are finished, and a difference needs two to be judged.") from None


def above(differences: "pd.Series[Any]", label: str, unit: str = "points", than: float = 0.0) -> Evidence:
    """Evidence that the mean difference is above `than`."""
    d = _paired(differences, than)
    flips = sign_flip(by_unit(differences.dropna()).to_numpy() - than)
    return Evidence(label, d.mean, d.low, d.high, unit, d.p_above, d.p_below, d.units, abs(d.mean - than), d.sd, flips)


def near(differences: "pd.Series[Any]", label: str, value: float, margin: float, unit: str = "points") -> Evidence:
    """Evidence that the mean difference is within `margin` of `value`: two one-sided tests."""
    over, under = _paired(differences, value - margin), _paired(differences, value + margin)
    inside = max(over.p_above, under.p_below)
    outside = min(1.0, 2 * min(over.p_below, under.p_above))
    distance = abs(margin - abs(over.mean - value))
    return Evidence(label, over.mean, over.low, over.high, unit, inside, outside, over.units, distance, over.sd)


def every(parts: Sequence[Evidence]) -> Evidence:
    """All parts hold: as strong as the weakest; one part that fails (Bonferroni over the parts) contradicts it."""
    if len(parts) == 1:
        return parts[0]
    weakest, worst = max(parts, key=lambda e: e.p_for), min(parts, key=lambda e: e.p_against)
    against = min(1.0, len(parts) * worst.p_against)
    shown, tests = (worst, len(parts) * worst.tests) if against < weakest.p_for else (weakest, weakest.tests)
    return dataclasses.replace(shown, p_for=weakest.p_for, p_against=against, parts=tuple(parts), tests=tests)


def some(parts: Sequence[Evidence]) -> Evidence:
    """At least one part holds."""
    return opposite(every([opposite(part) for part in parts]))


def opposite(evidence: Evidence) -> Evidence:
    """Evidence for the negated sentence."""
    return dataclasses.replace(
        evidence,
        p_for=evidence.p_against,
        p_against=evidence.p_for,
        parts=tuple(opposite(part) for part in evidence.parts),
    )


def excluded(wide: pd.DataFrame) -> "pd.Series[Any]":
    """Per level, the p value of "this is not the best one": some other level beats it, Bonferroni over the others.

    The levels with p > alpha are a confidence set of the best level.
    """
    wide = by_unit(wide)
    values = wide.to_numpy()
    n, rivals = len(values), values.shape[1] - 1
    lead = values[:, :, None] - values[:, None, :]  # (unit, rival, level)
    mean, sd = lead.mean(axis=0), lead.std(axis=0, ddof=1)
    t = mean * math.sqrt(n) / np.where(sd > SPREAD, sd, 1.0)
    even = np.select([mean > SPREAD, mean < -SPREAD], [0.5**n, 1 - 0.5**n], 0.5)  # as in `paired`
    p = np.where(sd > SPREAD, stats.t.sf(t, n - 1), even)
    p[np.eye(rivals + 1, dtype=bool)] = 1.0
    return pd.Series(np.minimum(1.0, max(1, rivals) * p.min(axis=0)), wide.columns)


def best_in(wide: pd.DataFrame, inside: set[Any], label: str) -> Evidence:
    """Evidence that the best level is one of `inside`; `wide` has a row per unit and a column per level."""
    wide = by_unit(wide)
    p, means = excluded(wide), wide.mean()
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


def best_above(a: pd.DataFrame, b: pd.DataFrame, label: str, unit: str) -> Evidence:
    """Evidence that the best level of `a` is a larger value than the best level of `b`."""
    a, b = by_unit(a), by_unit(b)
    pa, pb = excluded(a), excluded(b)
    limits = sorted({*pa.index, *pb.index})
    above = min(max(_most(pa, pa.index <= t), _most(pb, pb.index > t)) for t in limits)
    not_above = min(max(_most(pa, pa.index > t), _most(pb, pb.index < t)) for t in limits)
    return _difference_of_best(a, b, pa, pb, label, unit, above, not_above)


def best_differs(a: pd.DataFrame, b: pd.DataFrame, label: str, unit: str) -> Evidence:
    """Evidence that the best level of `a` is another one than the best level of `b`."""
    a, b = by_unit(a), by_unit(b)
    pa, pb = excluded(a), excluded(b)
    limits = sorted({*pa.index, *pb.index})
    above = min(max(_most(pa, pa.index <= t), _most(pb, pb.index > t)) for t in limits)
    below = min(max(_most(pb, pb.index <= t), _most(pa, pa.index > t)) for t in limits)
    same = min(max(_most(pa, pa.index != v), _most(pb, pb.index != v)) for v in limits)
    return _difference_of_best(a, b, pa, pb, label, unit, min(above, below), same)


def _most(p: "pd.Series[Any]", where: Any) -> float:
    """The p value of excluding all of these levels."""
    return float(p[where].max()) if where.any() else 0.0


def _difference_of_best(
    a: pd.DataFrame,
    b: pd.DataFrame,
    pa: "pd.Series[Any]",
    pb: "pd.Series[Any]",
    label: str,
    unit: str,
    p_for: float,
    p_against: float,
) -> Evidence:
    """The effect is a difference of best levels, its interval that of their confidence sets (97.5% each)."""
    one: Any = a.mean().idxmax()
    two: Any = b.mean().idxmax()
    in_a, in_b = pa.index[pa > 0.025], pb.index[pb > 0.025]
    if one != two and two in a and one in b:
        tests = [_paired(a[one] - a[two]), _paired(b[two] - b[one])]
    else:
        tests = [_paired(w[best] - w[other]) for w, best in ((a, one), (b, two)) for other in w if other != best]
    closest = min(tests, key=lambda d: abs(d.mean) / (d.sd or 1e-9))
    return Evidence(
        f"{label}: best {one:g} against {two:g}",
        *(float(one - two), float(min(in_a) - max(in_b)), float(max(in_a) - min(in_b)), unit),
        *(p_for, p_against, len(a)),  # two confidence sets: `Evidence.p` doubles them
        *(abs(closest.mean), closest.sd),
        tests=max(a.shape[1], b.shape[1]) - 1,
    )
