"""Each claim of Plested & Gedeon (2019): its sentence, effect, interval, p value and verdict.

A verdict is *supported* or *contradicted* where the Holm-adjusted p value is below 0.05, and *undecided* otherwise:
then `more_data` says how many splits would decide it if what was seen is true. Facts and arithmetic have no p value.
"""

import math
from collections.abc import Sequence

import pandas as pd

from analysis.claim import Claim
from analysis.evidence import Evidence
from analysis.frame import Missing, study
from analysis.plested2019 import claims_freezing, claims_layers, claims_protocols, claims_rates
from analysis.statistics import holm, units_needed

ALPHA = 0.05
ONE_SPLIT = "Its units are seeds of one class split: they tell nothing about other classes."
SHOWN = ("label", "effect", "low", "high", "unit", "units", "sign_flip")
CLAIMS: tuple[Claim, ...] = tuple(
    found
    for module in (claims_protocols, claims_layers, claims_rates, claims_freezing)
    for found in vars(module).values()
    if isinstance(found, Claim)
)


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """One row per claim of the paper; a claim that the table cannot speak to is undecided. `more_data` says what is
    missing, at which of the claim's images per class nothing was judged, and that seeds of one split are no splits."""
    rows = study(table)
    found = weigh(rows, CLAIMS)
    if len(rows[["split", "target"]].drop_duplicates()) == 1:
        tested = found["units"].fillna(0) > 0
        found.loc[tested, "more_data"] = (found["more_data"] + f" {ONE_SPLIT}").str.strip()
    return found


def weigh(table: pd.DataFrame, claims: Sequence[Claim]) -> pd.DataFrame:
    """The verdicts on these claims, Holm-adjusted among themselves."""
    weighed: list[tuple[Claim, Evidence | Missing]] = []
    for claim in claims:
        try:
            weighed.append((claim, claim(table)))
        except Missing as missing:
            weighed.append((claim, missing))
    tested = [e for _, e in weighed if isinstance(e, Evidence) and e.units]
    adjusted = dict(zip(map(id, tested), holm([e.p for e in tested]), strict=True))
    alpha = ALPHA / max(1, len(tested))
    return pd.DataFrame([_row(claim, e, adjusted.get(id(e), math.nan), alpha) for claim, e in weighed])


def _row(claim: Claim, evidence: Evidence | Missing, p_holm: float, alpha: float) -> dict[str, object]:
    row: dict[str, object] = {"claim": claim.name, "where": claim.where, "quote": claim.quote}
    row["statistic"] = claim.statistic
    if isinstance(evidence, Missing):
        nothing = dict.fromkeys((*SHOWN, "p", "p_holm"))
        return row | nothing | {"verdict": "undecided", "more_data": str(evidence), "parts": ""}
    told = {name: getattr(evidence, name) for name in SHOWN}
    fact = not evidence.units
    told |= {"p": math.nan if fact else evidence.p, "p_holm": p_holm}
    decided = fact or p_holm < ALPHA
    verdict = ("supported" if evidence.p_for < evidence.p_against else "contradicted") if decided else "undecided"
    more = [] if decided else [more_data(evidence, alpha, claim.units)]
    if evidence.absent:
        more.append(f"Nothing was judged at n={', '.join(map(str, evidence.absent))}.")
    return row | told | {"verdict": verdict, "more_data": " ".join(more), "parts": "; ".join(map(str, evidence.parts))}


def more_data(evidence: Evidence, alpha: float, units: str = "splits") -> str:
    """How many units would decide, were the seen effect and spread true: 80% power at the strictest Holm level."""
    seen = f"{evidence.label} is {evidence.distance:.2g} from the value that decides, sd {evidence.sd:.2g} over {units}"
    needed = units_needed(evidence.distance, evidence.sd, alpha / evidence.tests)
    if needed is None:
        return f"More than 1000 {units}: {seen}."
    if needed <= evidence.units:
        return f"{evidence.units} {units} would do for {evidence.label} alone; more are needed for all parts at once."
    return f"About {needed - evidence.units} more {units}, {needed} in all: {seen}."
