"""George (2021), "Transfer learning to generalize with DenseNet": DenseNet-121 to CIFAR-10."""

from analysis.claim import claims_of
from analysis.densenet_transfer import claims
from analysis.densenet_transfer.conditions import published, summary
from analysis.densenet_transfer.figure import FIGURE
from analysis.study import Study, Table

CONDITIONS = Table(
    "conditions",
    "The conditions (a) to (k)",
    "Means over seeds. The text prints validation accuracies after training on 50,000 images from ImageNet's weights.",
    lambda rows, _: summary(rows),
)

STUDY = Study(
    name="densenet_transfer",
    title="George (2021): DenseNet-121 to CIFAR-10",
    description=(
        "A frozen DenseNet-121 with a new head, its input enlarged or native, and what else the text tried. Rows from "
        "another base network than ImageNet's or with fewer images say how conditions compare, not how high they get."
    ),
    varied=(
        *("layers", "freeze", "high_lr_layers", "head", "dropout", "augment", "stop_after", "seed", "base"),
        *("dataset.upscale", "lr.high", "lr.gamma", "base.digest"),
    ),
    unit=("seed",),
    figures=(FIGURE,),
    tables=(CONDITIONS,),
    claims=claims_of(claims),
    published=published,
    claims_note="Conditions share their base network: the intervals are about seeds, not about other base networks.",
    prefix="densenet_transfer_",
    query="model == 'densenet121' and classes == 'all'",
)
