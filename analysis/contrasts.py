"""A family of contrasts that a study declares before its rows exist, and one of four verdicts on each.

*supported* or *contradicted*: the Holm-adjusted two-sided p value within the family is below 0.05. *no effect of the
paper's size*: neither, and the interval at the family's level excludes effects beyond the margin, in the direction that
the paper says. *undecided*: none of these, for want of units (`more_data`) or of rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats

from analysis.frame import Missing
from analysis.statistics import PairedDifference, holm, paired, units_needed

ALPHA = 0.05
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
    """A row per contrast: effect, intervals (95%, and at the family's level), p values, verdict, what would decide."""
    found: list[PairedDifference | Missing] = [_paired(contrast, rows) for contrast in family]
    tested = [d for d in found if isinstance(d, PairedDifference)]
    adjusted = dict(zip(map(id, tested), holm([_two_sided(d) for d in tested]), strict=True))
    level = ALPHA / len(family)
    return pd.DataFrame(
        [_row(contrast, d, adjusted.get(id(d), math.nan), level) for contrast, d in zip(family, found, strict=True)]
    )


def _paired(contrast: Contrast, rows: pd.DataFrame) -> PairedDifference | Missing:
    try:
        return paired(contrast.differences(rows))
    except Missing as reason:
        return reason
    except ValueError:
        return Missing("Fewer than two units are finished.")


def _two_sided(d: PairedDifference) -> float:
    return min(1.0, 2 * min(d.p_above, d.p_below))


def _row(contrast: Contrast, d: PairedDifference | Missing, p_holm: float, level: float) -> dict[str, object]:
    row: dict[str, object] = {"contrast": contrast.name, "where": contrast.where, "sentence": contrast.sentence}
    row |= {"statistic": contrast.statistic, "direction": contrast.direction, "paper": contrast.paper}
    row |= {"margin": contrast.margin, "unit": contrast.unit}
    if isinstance(d, Missing):
        empty = dict.fromkeys(("effect", "low", "high", "family_low", "family_high", "sd", "units", "p", "p_holm"))
        return row | empty | {"verdict": "undecided", "more_data": f"not run: {d}"}
    half = float(stats.t.ppf(1 - level, d.units - 1)) * d.sd / math.sqrt(d.units)
    row |= {"effect": d.mean, "low": d.low, "high": d.high, "family_low": d.mean - half, "family_high": d.mean + half}
    row |= {"sd": d.sd, "units": d.units, "p": _two_sided(d), "p_holm": p_holm}
    verdict = _verdict(contrast, d.mean, half, p_holm)
    more = "" if verdict != "undecided" else _more_data(contrast, d, level)
    return row | {"verdict": verdict, "more_data": more}


def _verdict(contrast: Contrast, effect: float, half: float, p_holm: float) -> str:
    along = effect * contrast.direction
    if p_holm < ALPHA:
        return "supported" if along > 0 else "contradicted"
    return "no effect of the paper's size" if along + half < contrast.margin else "undecided"


def _more_data(contrast: Contrast, d: PairedDifference, level: float) -> str:
    """Units for 80% power if the true effect is the observed one, and if it is the margin."""
    counts = [units_needed(effect, d.sd, level) for effect in (abs(d.mean), contrast.margin)]
    texts = ["more than 1000" if count is None else str(count) for count in counts]
    return f"too noisy: {texts[0]} units if the effect is the observed one, {texts[1]} if it is the margin"
