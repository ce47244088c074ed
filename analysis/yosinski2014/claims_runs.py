"""Claims of the 2014 paper on our runs, secondary to the declared contrasts. Sentences are those of `claims`, or
paraphrases without quotation marks in the paper's order."""

import pandas as pd

from analysis.claim import claim
from analysis.evidence import Evidence, equivalent, greater, intersection_union
from analysis.frame import Missing, arranged, pick
from analysis.yosinski2014.runs import LAYERS, all_of, base, mean_over

UNITS = "target halves"


@claim("2014, sec. 4.1 item 4", "paraphrase: layers 1 and 2 transfer almost perfectly", UNITS)
def first_layers_are_general(rows: pd.DataFrame) -> Evidence:
    """AnB minus baseB, mean over 1 and 2 layers: within 1 point of 0."""
    return equivalent(mean_over(rows, "AnB", [1, 2]) - base(rows), "AnB over base, 1 and 2 layers", 0.0, 1.0)


@claim(
    "2014, abstract",
    "transferred features from almost any number of layers can produce a boost to generalization",
    UNITS,
)
def every_number_of_layers_boosts(rows: pd.DataFrame) -> Evidence:
    """AnB+ over baseB at each number of layers."""
    wide, own = all_of(rows, "AnB+", LAYERS), base(rows)
    return intersection_union([greater((wide[n] - own).dropna(), f"AnB+ over base, {n} layers") for n in wide])


@claim("2014, sec. 4.1 item 5", "[BnB+] do not exhibit this same performance improvement", UNITS)
def tuned_selffer_stays_at_base(rows: pd.DataFrame) -> Evidence:
    """BnB+ minus baseB, mean over 1 to 7 layers: within 0.3 points of 0."""
    return equivalent(mean_over(rows, "BnB+", LAYERS) - base(rows), "BnB+ over base", 0.0, 0.3)


@claim("2014, sec. 4.2", "paraphrase: features transfer worse between dissimilar halves of the classes", UNITS)
def dissimilar_halves_transfer_worse(rows: pd.DataFrame) -> Evidence:
    """Frozen transfer of 7 layers over the base, natural and man-made targets, below the mean of random halves."""
    part = pick(rows, classes="natman")
    wide = arranged(part[part["freeze"] == part["layers"]], ["layers"])
    if not {0, 7} <= set(wide):
        raise Missing("No finished runs with classes=natman and layers=0|7.")
    random = (mean_over(rows, "AnB", [7]) - base(rows)).mean()
    return greater(random - (wide[7] - wide[0]), "7 layers, loss beyond that of random halves")
