"""Yosinski et al. (2014), the study that Plested & Gedeon build on: our runs (`STUDY`), its published logs (`LOGS`)."""

from analysis.claim import claims_of
from analysis.contrasts import SHOWN, decide
from analysis.study import Study, Table
from analysis.yosinski2014 import claims, claims_runs, runs_figure, runs_tables
from analysis.yosinski2014.contrasts import PRIMARY
from analysis.yosinski2014.figure import FIGURE
from analysis.yosinski2014.networks import comparison, layer_means, published, scratch

COMPARISON = Table(
    "comparison",
    "Fine-tuned networks over their base, in points",
    "As printed in 2014, recomputed as means over different target halves (unpaired), and paired: each network against "
    "the base network of its own half. Paired, BnB+ gains about as much as AnB+. A selffer network (BnB+) is one that "
    "copies from the same half.",
    lambda rows, _: comparison(rows),
)
LAYERS = Table(
    "layers",
    "Mean accuracy by layers copied, in percent",
    "Means over the networks that have a log, of all target halves.",
    lambda rows, _: layer_means(rows).reset_index(),
)
SCRATCH = Table(
    "scratch",
    "Training from scratch on fewer images",
    "One network each, on all 1000 classes. A collapsed network has the training loss of chance.",
    lambda rows, _: scratch(rows),
)

CONTRASTS = Table(
    "contrasts",
    "The declared family of contrasts",
    "Holm-adjusted within the family; the rest of this section is secondary.",
    lambda rows, _: decide(PRIMARY, rows),
    SHOWN,
)
OWN_LAYERS = Table(
    "layers",
    "Accuracy by layers copied, and gain over the base of the same half",
    "Percent and points, beside the published networks.",
    lambda rows, _: runs_tables.by_layers(rows),
)
OWN_TABLE1 = Table(
    "table1",
    "Table 1 of 2014: fine-tuned networks over their base and over each other",
    "Ours are paired by unit. Printed ones are means over different halves; of the logs, each over its own base.",
    lambda rows, _: runs_tables.table1(rows),
)
DISSIMILAR = Table(
    "dissimilar",
    "Frozen layers between natural and man-made classes, and of random weights",
    "Features: the target classes, or random weights on all classes. Change is from the network with none frozen.",
    lambda rows, _: runs_tables.dissimilar(rows),
)
REDUCED = Table(
    "reduced",
    "Training from scratch on fewer images of all classes",
    "A collapsed network has the training loss of chance; 1300 in the paper is the whole set.",
    lambda rows, _: runs_tables.reduced(rows),
)

STUDY = Study(
    name="yosinski2014",
    title="Yosinski et al. (2014)",
    description=(
        "How transferable each layer is: baseB, BnB, AnB and the fine-tuned BnB+ and AnB+. Rows of recipe=yosinski and "
        "of its miniature, whose learning rates decay by updates. With other images, compare trends, not values."
    ),
    varied=(
        *("layers", "freeze", "freeze_random", "split", "target", "seed", "n_per_class", "base", "classes"),
        *("epochs", "base.epochs"),  # what updates come to: halves differ in images
        *("max_updates", "lr.high", "lr.low", "lr.step_updates"),  # fewer images have a solver of their own
    ),
    unit=("classes", "split", "target"),
    figures=(runs_figure.LAYERS, runs_figure.DISSIMILAR),
    tables=(CONTRASTS, OWN_LAYERS, OWN_TABLE1, DISSIMILAR, REDUCED),
    claims=claims_of(claims_runs),
    published=published,
    prefix="yosinski2014_runs_",
    query="schedule == 'updates'",
)

LOGS = Study(
    name="yosinski2014_logs",
    title="Yosinski et al. (2014), from its published logs",
    description=(
        "Networks that the authors of 2014 trained, from the logs in github.com/yosinski/convnet_transfer. None "
        "of our runs are used."
    ),
    varied=("layers", "freeze", "split", "target", "n_per_class", "base"),
    unit=("target",),
    figures=(FIGURE,),
    tables=(COMPARISON, LAYERS, SCRATCH),
    claims=claims_of(claims),
    published=published,
    claims_note="Networks of one half share a base network, so the intervals are somewhat too narrow.",
    prefix="yosinski2014_",
    beside=("yosinski2014", "plested2019"),
)
