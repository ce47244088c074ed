"""The published 2014 networks: means as printed in logs and paper, the comparison paired by target half."""

import pytest

from analysis.verdicts import evaluate
from analysis.yosinski2014 import LOGS, networks

ROWS = networks.published()

MEANS = {
    "BnB": (0.6267, 0.6235, 0.6211, 0.6048, 0.5935, 0.6188, 0.6232),
    "AnB": (0.6282, 0.6239, 0.6189, 0.5998, 0.5780, 0.5806, 0.5425),
    "BnB+": (0.6177, 0.6215, 0.6313, 0.6287, 0.6301, 0.6276, 0.6266),
    "AnB+": (0.6373, 0.6358, 0.6426, 0.6398, 0.6446, 0.6460, 0.6465),
}
REDUCED = {1300: 0.5518, 1000: 0.5409, 750: 0.5147, 500: 0.4757, 250: 0.3843, 2: 0.0044, 1: 0.0038}


@pytest.mark.parametrize("treatment", MEANS)
def test_layer_means(treatment):
    result = networks.layer_means(ROWS)[treatment] / 100
    assert list(result) == pytest.approx(MEANS[treatment], abs=6e-5)  # four printed digits


def test_base():
    assert networks.base_accuracy(ROWS) == pytest.approx(62.51, abs=0.005)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("unpaired_over_base", (1.67, 1.88, 2.06)),
        ("unpaired_over_selffer", (1.56, 1.50, 1.76)),
        ("AnB+_paired", (0.97, 1.16, 1.16)),
        ("BnB+_paired", (0.94, 1.14, 1.03)),
        ("paired_over_selffer", (0.03, 0.03, 0.13)),
    ],
)
def test_comparison(column, values):
    assert list(networks.comparison(ROWS)[column]) == pytest.approx(values, abs=0.006)


def test_every_tuned_network_beats_its_own_base():
    tuned = networks.transferred(ROWS).query("treatment in ['AnB+', 'BnB+']").groupby("treatment")["gain"]
    assert dict(tuned.size()) == {"AnB+": 10, "BnB+": 10}
    assert dict(tuned.min().round(2)) == {"AnB+": 0.32, "BnB+": 0.26}


def test_reduced_sets_collapsed():
    result = networks.scratch(ROWS).set_index("n_per_class")
    assert list(result.index[result["collapsed"]]) == [5, 10, 25, 50, 100]
    for n, top1 in REDUCED.items():
        assert result["top1"][n] / 100 == pytest.approx(top1, abs=6e-5)


def test_verdicts_on_published_networks():
    result = evaluate(LOGS.claims, ROWS).set_index("claim")["verdict"]
    assert dict(result) == {
        "tuned_transfer_beats_base": "supported",
        "tuned_selffer_does_not": "contradicted",
        "transfer_beats_selffer": "undecided",
        "frozen_transfer_falls_with_depth": "supported",
    }
