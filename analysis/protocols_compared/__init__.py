"""Later protocols of transfer beside Plested & Gedeon's optimum and the commonly used one, on the same cells."""

import pandas as pd

from analysis.claim import claims_of
from analysis.contrasts import SHOWN, decide
from analysis.panels import Charts, LevelFigure, Levels
from analysis.protocols_compared import claims
from analysis.protocols_compared.conditions import COMMON, named, published
from analysis.protocols_compared.contrasts import OPTIMUM, PAPERS
from analysis.study import Study, Table

TABLES = (
    Table(
        "contrasts",
        "Each protocol against what its paper compares it with",
        "Declared before the rows; Holm-adjusted within the family.",
        lambda rows, selection: decide(PAPERS, rows),
        SHOWN,
    ),
    Table(
        "optimum",
        "Each protocol against the optimum of Plested and Gedeon",
        "Declared before the rows; a family of its own. A verdict is on the sentence that the optimum is better.",
        lambda rows, selection: decide(OPTIMUM, rows),
        SHOWN,
    ),
)


def _charts(rows: pd.DataFrame) -> Charts:
    return {"": named(rows)}


FIGURE = LevelFigure(
    "accuracy",
    "Protocols of transfer",
    _charts,
    lambda rows: Levels("protocol", "protocol", COMMON, COMMON),
    lambda rows: "Accuracy by protocol, and paired differences from the commonly used one.",
)

STUDY = Study(
    name="protocols_compared",
    title="Protocols of transfer compared",
    description=(
        "Linear probe, LP-FT, L2-SP, surgical fine-tuning, gradual unfreezing, rates that fall with depth and "
        "BiT-HyperRule, each with its published settings, beside the optimum and the commonly used protocol."
    ),
    varied=(
        *("layers", "freeze", "n_per_class", "split", "target", "seed", "high_lr_layers", "decay_epochs", "schedule"),
        *("learn_layers", "head_epochs", "unfreeze_every", "l2_sp", "max_updates", "epochs", "batch_size"),
        *("weight_decay", "dropout", "lr.high", "lr.step", "lr.gamma", "lr.layer_decay"),
    ),
    unit=("split", "target"),
    figures=(FIGURE,),
    tables=TABLES,
    claims=claims_of(claims),
    published=published,
    claims_note="The declared families of contrasts are in the tables.",
    prefix="compared_",
    query="split >= 0 and (schedule == 'bit').any()",  # a table without BiT-HyperRule is another study's
)
