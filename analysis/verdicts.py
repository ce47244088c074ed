"""The verdict on each claim of a study: effect, interval, p value, and what would decide it.

A verdict is *supported* or *contradicted* where the Holm-adjusted p value is below 0.05, and *undecided* otherwise:
then `more_data` says how many units would decide it if the observed effect were the true one. Facts and arithmetic have
no p value and no verdict: they are `true` or `false`.
"""

import math
from collections.abc import Sequence

import pandas as pd

from analysis.claim import Claim
from analysis.evidence import Evidence
from analysis.frame import Missing, one_unit
from analysis.statistics import holm, units_needed

ALPHA = 0.05
SHOWN = ("label", "effect", "low", "high", "unit", "units", "sign_flip")  # fields of `Evidence` that become columns


def evaluate(claims: Sequence[Claim], rows: pd.DataFrame) -> pd.DataFrame:
    """One row per claim, Holm-adjusted among all that these rows can test; the others are undecided.

    `more_data` says what is missing or how much more is needed, and where all rows belong to one unit.
    """
    outcomes = [(claim, _evidence(claim, rows)) for claim in claims]
    tested = [e for _, e in outcomes if isinstance(e, Evidence) and e.units]
    adjusted = dict(zip(map(id, tested), holm([e.p for e in tested]), strict=True))
    alpha = ALPHA / max(1, len(tested))
    table = pd.DataFrame([_row(claim, e, adjusted.get(id(e), math.nan), alpha) for claim, e in outcomes])
    return with_note(table, rows)


def with_note(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """A table of tests, whose `more_data` says so where all rows belong to one unit and its seeds were tested."""
    if one_unit(rows):
        tests = table["units"].fillna(0) > 0
        note = " All seeds belong to one class split, so this may not hold for other classes."
        table.loc[tests, "more_data"] = (table["more_data"] + note).str.strip()
    return table


def _evidence(claim: Claim, rows: pd.DataFrame) -> Evidence | Missing:
    try:
        return claim(rows)
    except Missing as reason:
        return reason


def _row(claim: Claim, evidence: Evidence | Missing, p_holm: float, alpha: float) -> dict[str, object]:
    row: dict[str, object] = {"claim": claim.name, "where": claim.where, "quote": claim.quote}
    row["statistic"] = claim.statistic
    if isinstance(evidence, Missing):
        empty = dict.fromkeys((*SHOWN, "p", "p_holm"))
        return row | empty | {"verdict": "undecided", "more_data": str(evidence), "parts": ""}
    row |= {name: getattr(evidence, name) for name in SHOWN}
    is_fact = not evidence.units
    row |= {"p": math.nan if is_fact else evidence.p, "p_holm": p_holm}
    decided = is_fact or p_holm < ALPHA
    words = ("true", "false") if is_fact else ("supported", "contradicted")
    verdict = words[evidence.p_for >= evidence.p_against] if decided else "undecided"
    more = [] if decided else [more_data(evidence, alpha, claim.units)]
    if evidence.missing_sizes:
        more.append(f"Not tested at n={', '.join(map(str, evidence.missing_sizes))}.")
    return row | {"verdict": verdict, "more_data": " ".join(more), "parts": "; ".join(map(str, evidence.parts))}


def more_data(evidence: Evidence, alpha: float, units: str = "splits") -> str:
    """How many units would decide if the observed effect and spread were true: 80% power at the strictest Holm
    level."""
    observed = (
        f"effect {evidence.distance:.2g} from the threshold, sd {evidence.sd:.2g} over {units} ({evidence.label})"
    )
    needed = units_needed(evidence.distance, evidence.sd, alpha / evidence.tests)
    if needed is None:
        return f"Needs more than 1000 {units}: {observed}."
    if needed <= evidence.units:
        return f"{evidence.units} {units} suffice for {evidence.label} alone; all parts together need more."
    return f"Needs about {needed} {units}, {needed - evidence.units} more: {observed}."
