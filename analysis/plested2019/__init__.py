"""Plested & Gedeon (2019): how many layers to transfer and freeze, with which learning rates, by images per class."""

from analysis.claim import claims_of
from analysis.contrasts import SHOWN, decide
from analysis.plested2019 import (
    claims_freezing,
    claims_layers,
    claims_protocols,
    claims_rates,
    published,
)
from analysis.plested2019.contrasts import PRIMARY
from analysis.plested2019.figures import FIGURES
from analysis.plested2019.table1 import AVERAGES, TABLE1
from analysis.plested2019.table2 import SELECTION, TABLE2
from analysis.study import Study, Table

CONTRASTS = Table(
    "contrasts",
    "The declared family of contrasts",
    "Holm-adjusted within the family; the rest of this report is secondary.",
    lambda rows, selection: decide(PRIMARY, rows),
    SHOWN,
)

STUDY = Study(
    name="plested2019",
    title="Plested & Gedeon (2019)",
    description=(
        "The paper trained AlexNet on halves of ImageNet’s 1000 classes. Where our runs use a different setup (see "
        "Provenance), compare trends, not values."
    ),
    varied=(
        *("layers", "freeze", "n_per_class", "split", "target", "seed", "high_lr_layers", "decay_epochs"),
        "test_per_class",  # the same networks, measured on more images
    ),
    unit=("split", "target"),
    figures=FIGURES,
    tables=(CONTRASTS, TABLE1, AVERAGES, TABLE2, SELECTION),
    claims=claims_of(claims_protocols, claims_layers, claims_rates, claims_freezing),
    published=published.numbers,
    query="classes != 'drawn' and schedule != 'updates'",
)
