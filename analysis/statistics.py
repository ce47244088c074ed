"""Paired statistics over independent units: mean, spread, t interval, p values, sign-flip tests, Holm's adjustment."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.frame import Missing

SPREAD = 1e-12  # a standard deviation up to this counts as zero: t is undefined, the sign-flip test is not
RESAMPLES = 2**14  # sign flips: exact for up to 14 units, random beyond


@dataclass(frozen=True)
class PairedDifference:
    """The mean of paired differences, its 95% t interval and one-sided p values."""

    mean: float
    sd: float
    low: float
    high: float
    units: int
    p_above: float  # small: the true mean is above the reference
    p_below: float


def by_unit(values: Any) -> Any:
    """Average the seeds of each unit of a Series or DataFrame with the index (unit, seed).

    Seeds of a unit share classes and images, so they are no independent evidence about other classes. In a study of one
    unit its seeds are the units (`Study.rows`). Other indices stay as they are.
    """
    if not {"unit", "seed"} <= set(getattr(values.index, "names", [])):
        return values
    return values.groupby(level="unit").mean()


def paired(differences: "pd.Series[Any] | Sequence[float]", against: float = 0.0) -> PairedDifference:
    """Statistics of the differences between two conditions, one a unit (seeds are averaged); nan is dropped.

    The p values compare the mean with `against`.

    Raises:
        ValueError: fewer than two units.
    """
    values = by_unit(pd.Series(differences, dtype=float).dropna()).to_numpy() - against
    n = len(values)
    if n < 2:
        raise ValueError("paired statistics need at least two units")
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    half_width = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    p_above = float(p_greater(np.array(mean), np.array(sd), n))
    center = mean + against
    return PairedDifference(center, sd, center - half_width, center + half_width, n, p_above, 1 - p_above)


def p_greater(mean: "np.ndarray[Any, Any]", sd: "np.ndarray[Any, Any]", n: int) -> "np.ndarray[Any, Any]":
    """One-sided p values of the t test that the true mean of n differences is above 0, elementwise.

    Differences of accuracies can all be equal. `scipy.stats.ttest_1samp` has no p value for them; here they get that
    of the sign-flip test.
    """
    t = mean * math.sqrt(n) / np.where(sd > SPREAD, sd, 1.0)
    no_spread = np.select([mean > SPREAD, mean < -SPREAD], [0.5**n, 1 - 0.5**n], 0.5)
    return np.where(sd > SPREAD, stats.t.sf(t, n - 1), no_spread)


def sign_flip(values: "np.ndarray[Any, Any]") -> float:
    """Two-sided p value of the sign-flip test of a zero mean; exact for up to 14 units."""

    def mean(sample: "np.ndarray[Any, Any]", axis: int) -> Any:
        return np.round(sample.mean(axis=axis), 12)  # equal means are ties, whatever the order of summation

    test = stats.permutation_test(
        (values,), mean, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES, random_state=0
    )
    return float(test.pvalue)


def mean_interval(values: "pd.Series[Any]") -> tuple[float, float, float]:
    """Mean and ends of its 95% interval over units; a single unit has an interval of nan."""
    series = by_unit(values.dropna())
    if len(series) < 2:
        return float(series.mean()), math.nan, math.nan
    result = paired(series)
    return result.mean, result.low, result.high


def mean_of(conditions: "Sequence[pd.Series[Any]]") -> "pd.Series[Any]":
    """Per unit, the mean over conditions; only units that have all."""
    return pd.concat(conditions, axis=1).dropna().mean(axis=1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the given order (SciPy has none)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def units_needed(distance: float, sd: float, alpha: float, power: float = 0.8, most: int = 1000) -> int | None:
    """The least number of units at which a two-sided t test detects a true mean at this distance from the threshold;
    None: more than `most`."""
    if distance == 0:
        return None

    def suffices(n: int) -> bool:
        wanted = float(stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(power, n - 1))
        return abs(distance) * math.sqrt(n) >= wanted * sd

    n = 2 + bisect.bisect_left(range(2, most + 1), True, key=suffices)  # more units never suffice less
    return n if n <= most else None


def slopes(wide: pd.DataFrame) -> "pd.Series[Any]":
    """Per row, the least-squares slope over the columns, which count as 0, 1, 2, ...

    Raises:
        Missing: there are fewer than two.
    """
    if wide.shape[1] < 2:
        raise Missing("A slope needs two or more levels, or numbers of images per class.")
    x = np.arange(wide.shape[1]) - (wide.shape[1] - 1) / 2
    return pd.Series(wide.to_numpy() @ x / (x @ x), wide.index)
