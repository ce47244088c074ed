"""A family of contrasts that a study declares before its rows exist, and one of four verdicts on each.

*supported* or *contradicted*: the Holm-adjusted two-sided p value within the family is below 0.05. *no effect of the
paper's size*: neither, and the interval at the family's level excludes effects beyond the margin, in the direction that
the paper says. *undecided*: none of these, for want of units (`more_data`) or of rows.

The standard deviation of a contrast enters its test; the one that is pooled over all contrasts in the same unit of
measurement says how many units would decide it, since a few units know their own spread badly.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats

from analysis.frame import Missing
from analysis.statistics import PairedDifference, holm, paired, units_needed
from analysis.verdicts import with_note

ALPHA = 0.05
MOST = 1000  # units that anybody would count
SHOWN = (  # columns of the report's table
    *("contrast", "statistic", "effect", "low", "high", "unit", "units", "p_holm", "paper", "margin", "verdict"),
    "more_data",
)
VERDICTS = ("supported", "contradicted", "no effect of the paper's size", "undecided")


@dataclass(frozen=True)
class Contrast:
    """A difference that a paper says is positive (`direction` 1) or negative (-1), one value a unit."""

    name: str
    where: str  # section of the paper
    sentence: str  # what the paper says
    statistic: str  # what is computed
    direction: int
    paper: float | None  # the size of the paper's effect, where it is known; None: not printed
    margin: float  # effects smaller than this, in the paper's direction, are none of the paper's size
    unit: str
    differences: Callable[[pd.DataFrame], "pd.Series[Any]"]  # rows of the study -> a value per unit


def decide(family: Sequence[Contrast], rows: pd.DataFrame) -> pd.DataFrame:
    """A row per contrast: effect, intervals (95%, and at the family's level), p values, verdict, what would decide,
    and where all rows belong to one unit."""
    found: list[PairedDifference | Missing] = [_paired(contrast, rows) for contrast in family]
    tested = [d for d in found if isinstance(d, PairedDifference)]
    adjusted = dict(zip(map(id, tested), holm([_two_sided(d) for d in tested]), strict=True))
    level, pools = ALPHA / len(family), _pooled(family, found)
    table = pd.DataFrame(
        [
            _row(contrast, d, adjusted.get(id(d), math.nan), level, pools.get(contrast.unit, math.nan))
            for contrast, d in zip(family, found, strict=True)
        ]
    )
    return with_note(table.astype({"units": "Int64"}), rows)  # some may not have run: no 8.0


def _pooled(family: Sequence[Contrast], found: Sequence[PairedDifference | Missing]) -> dict[str, float]:
    """By unit of measurement, the root of the mean variance of the contrasts, weighted by their degrees of freedom."""
    pairs = [(c.unit, d) for c, d in zip(family, found, strict=True) if isinstance(d, PairedDifference)]
    return {
        unit: math.sqrt(
            sum((d.units - 1) * d.sd**2 for u, d in pairs if u == unit)
            / sum(d.units - 1 for u, d in pairs if u == unit)
        )
        for unit in {unit for unit, _ in pairs}
    }


def _paired(contrast: Contrast, rows: pd.DataFrame) -> PairedDifference | Missing:
    try:
        return paired(contrast.differences(rows))
    except Missing as reason:
        return reason
    except ValueError:
        return Missing("Fewer than two units are finished.")


def _two_sided(d: PairedDifference) -> float:
    return min(1.0, 2 * min(d.p_above, d.p_below))


def _row(
    contrast: Contrast, d: PairedDifference | Missing, p_holm: float, level: float, pooled: float
) -> dict[str, object]:
    row: dict[str, object] = {"contrast": contrast.name, "where": contrast.where, "sentence": contrast.sentence}
    row |= {"statistic": contrast.statistic, "direction": contrast.direction, "paper": contrast.paper}
    row |= {"margin": contrast.margin, "unit": contrast.unit}
    if isinstance(d, Missing):
        columns = ("effect", "low", "high", "family_low", "family_high", "sd", "pooled_sd", "units", "p", "p_holm")
        empty = dict.fromkeys(columns)
        return row | empty | {"verdict": "undecided", "more_data": f"not run: {d}"}
    half = float(stats.t.ppf(1 - level, d.units - 1)) * d.sd / math.sqrt(d.units)
    row |= {"effect": d.mean, "low": d.low, "high": d.high, "family_low": d.mean - half, "family_high": d.mean + half}
    row |= {"sd": d.sd, "pooled_sd": pooled, "units": d.units, "p": _two_sided(d), "p_holm": p_holm}
    verdict = _verdict(contrast, d.mean, half, p_holm)
    more = "" if verdict != "undecided" else _more_data(contrast, d, level, pooled)
    return row | {"verdict": verdict, "more_data": more}


def _verdict(contrast: Contrast, effect: float, half: float, p_holm: float) -> str:
    along = effect * contrast.direction
    if p_holm < ALPHA:
        return "supported" if along > 0 else "contradicted"
    return "no effect of the paper's size" if along + half < contrast.margin else "undecided"


def _more_data(contrast: Contrast, d: PairedDifference, level: float, pooled: float) -> str:
    """Units for 80% power, at the contrast's own and at the pooled standard deviation, if the true effect is the
    observed one, and if it is the margin."""
    texts = []
    for effect in (abs(d.mean), contrast.margin):
        counts = [units_needed(effect, sd, level) or MOST + 1 for sd in sorted((d.sd, pooled))]
        shown = [f"more than {MOST}" if count > MOST else str(count) for count in counts]
        texts.append(" to ".join(dict.fromkeys(shown)))
    return f"too noisy: {texts[0]} units if the effect is the observed one, {texts[1]} if it is the margin"
