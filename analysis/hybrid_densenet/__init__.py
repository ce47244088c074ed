"""A Hybrid Approach to Image Classification on Densely Connected Convolutional Networks (Ta Nguyen Thanh)."""

from analysis.claim import claims_of
from analysis.contrasts import SHOWN, decide
from analysis.hybrid_densenet import claims
from analysis.hybrid_densenet.contrasts import family
from analysis.hybrid_densenet.figure import FIGURE
from analysis.hybrid_densenet.tables import VARIANTS
from analysis.hybrid_densenet.variants import published
from analysis.study import Study, Table

CONTRASTS = Table(
    "contrasts",
    "The declared family of contrasts",
    "Holm-adjusted within the family. Printed sizes are those of Table 1; for rows of Tiny ImageNet, of Table 2.",
    lambda rows, _: decide(family(rows), rows),
    SHOWN,
)

STUDY = Study(
    name="hybrid_densenet",
    title="A hybrid approach to DenseNet (Ta Nguyen Thanh)",
    description=(
        "DenseNet-BC from scratch, with Drop Channel (A), squeeze-and-excitation (B) and checkpointing (C). The text "
        "has one run a variant and data set; where our data set or network is another, compare signs, not values."
    ),
    varied=("model.drop_channel", "model.se", "model.checkpoint", "dropout", "seed"),
    unit=("seed",),
    figures=(FIGURE,),
    tables=(VARIANTS, CONTRASTS),
    claims=claims_of(claims),
    published=published,
    claims_note="Seeds share the training images: intervals are over initialisation, order, crops and dropout.",
    prefix="hybrid_densenet_",
    query="model == 'densenet_bc' and layers == 0",
)
