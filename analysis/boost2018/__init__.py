"""The generalization boost (summeryue.me 2018): does it matter which classes the first layer was trained on?"""

from analysis.boost2018 import claims
from analysis.boost2018.figures import FIGURES
from analysis.boost2018.tables import TABLES, published
from analysis.claim import claims_of
from analysis.study import Study

STUDY = Study(
    name="boost2018",
    title="The generalization boost (summeryue.me, 2018)",
    description=(
        "A text that designs an experiment on CIFAR-10 and has no results: a network of two convolutions and a linear "
        "layer is trained on base classes, its first convolution is copied, and all layers are retrained on classes B. "
        "A unit is a random draw of the classes."
    ),
    varied=(
        *("layers", "freeze", "freeze_random", "split", "seed", "base", "base.n_per_class"),
        "classes.source_group",
    ),
    unit=("split",),
    figures=FIGURES,
    tables=TABLES,
    claims=claims_of(claims),
    published=published,
    claims_note="The text's own comparison is with Non-transferred, whose first convolution was trained on B itself.",
    prefix="boost2018_",
    query="classes == 'drawn'",
)
