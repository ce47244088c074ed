"""Yosinski et al. (2014), the study that Plested & Gedeon build on, from its published training logs."""

from analysis.claim import claims_of
from analysis.study import Study, Table
from analysis.yosinski2014 import claims
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

STUDY = Study(
    name="yosinski2014",
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
    reads_results=False,
)
