"""Paired statistics: one difference per class split, its mean, spread and interval, and how chance would do."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

SPREAD = 1e-12  # a standard deviation up to here is none: t is undefined, sign flips are not
EXACT = 14  # up to so many units all sign flips are counted, beyond it 10,000 are drawn


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences, its 95% t interval and one-sided p values."""

    mean: float
    sd: float
    low: float
    high: float
    units: int
    p_above: float  # of "the true mean is above"
    p_below: float


def by_unit(values: Any) -> Any:
    """Average replicates (seeds) within (split, target): they share classes and images, so they are no new evidence
    about other classes. If there is only one (split, target), the seeds are all there is and stay."""
    names = getattr(values.index, "names", [])
    if not {"split", "target", "seed"} <= set(names):
        return values
    if values.index.droplevel("seed").is_unique:
        return values.droplevel("seed") if len(values) > 1 else values
    averaged = values.groupby(level=["split", "target"]).mean()
    return averaged if len(averaged) > 1 else values


def paired(differences: "pd.Series[Any] | Sequence[float]", against: float = 0.0, level: float = 0.95) -> Paired:
    """Statistics of differences between two conditions, one a (split, target), seeds averaged.

    The p values compare the mean with `against`.

    Raises:
        ValueError: fewer than two units.
    """
    series = by_unit(pd.Series(differences, dtype=float).dropna())
    values = series.to_numpy() - against
    n = len(values)
    if n < 2:
        raise ValueError("paired statistics need at least two units")
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n)
    if sd > SPREAD:
        p_above = float(stats.t.sf(mean * math.sqrt(n) / sd, n - 1))
    else:
        p_above = 0.5 if abs(mean) <= SPREAD else (0.5**n if mean > 0 else 1 - 0.5**n)
    return Paired(mean + against, sd, mean + against - half, mean + against + half, n, p_above, 1 - p_above)


def sign_flip(values: "np.ndarray[Any, Any]") -> float:
    """The share of sign assignments whose mean is at least as far from 0 as the seen one (its own included)."""
    n = len(values)
    if n <= EXACT:
        signs = np.array(list(itertools.product((1, -1), repeat=n)))
        return float((abs(signs @ values) >= abs(values.sum()) - 1e-12).mean())
    signs = np.random.default_rng(0).choice((1, -1), (10_000, n))
    return float(((abs(signs @ values) >= abs(values.sum()) - 1e-12).sum() + 1) / 10_001)


def mean_interval(values: "pd.Series[Any]") -> tuple[float, float, float]:
    """Mean and 95% interval over splits; the interval is nan for a single one."""
    series = by_unit(values.dropna())
    if len(series) < 2:
        return float(series.mean()), math.nan, math.nan
    found = paired(series)
    return found.mean, found.low, found.high


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p values that can be compared with one alpha, however many there are."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = worst
    return adjusted


def units_needed(distance: float, sd: float, alpha: float, power: float = 0.8, most: int = 1000) -> int | None:
    """Least number of units at which a two-sided t test finds a true mean at this distance; None: more than `most`."""
    if distance == 0:
        return None
    for n in range(2, most + 1):
        wanted = float(stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(power, n - 1))
        if abs(distance) * math.sqrt(n) >= wanted * sd:
            return n
    return None


def slopes(wide: pd.DataFrame) -> "pd.Series[Any]":
    """Per unit, the least-squares slope over the columns, which count as 0, 1, 2, ..."""
    x = np.arange(wide.shape[1]) - (wide.shape[1] - 1) / 2
    return pd.Series(wide.to_numpy() @ x / (x @ x), wide.index)
