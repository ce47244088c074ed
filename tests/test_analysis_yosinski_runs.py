"""Our runs of the 2014 study, on synthetic rows whose truth is that of the published networks, or its mirror image."""

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.contrasts import decide
from analysis.frame import Missing
from analysis.plested2019 import STUDY as PLESTED
from analysis.verdicts import evaluate
from analysis.yosinski2014 import LOGS, STUDY, networks, runs, runs_figure, runs_tables
from analysis.yosinski2014.contrasts import PRIMARY

MEANS = networks.layer_means(networks.published())
BASE = networks.base_accuracy(networks.published())


def cell(accuracy, layers=0, freeze=0, base="none", **more):
    row = {"layers": layers, "freeze": freeze, "base": base, "classes": "random", "split": 0, "target": "B", "seed": 0}
    row |= {"n_per_class": "full", "freeze_random": False, "dataset": "imagenet", "model": "caffenet"}
    row |= {"schedule": "updates", "max_updates": 450_000, "epochs": 180, "base.epochs": 180 if layers else None}
    row |= {"lr.high": 0.01, "lr.low": 0.01, "lr.step_updates": 100_000, "collapsed": False, "diverged": False}
    row |= {"lr.step": 40, "decay_epochs": None, "high_lr_layers": 8, "base_top1": 0.6}
    return row | {"val_top1": accuracy / 100, "val_loss": 2.0, "train_loss": 1.0} | more


def table(sign=1.0, noise=0.02, units=4, others=True):
    """Every treatment at the published means: base + sign x (treatment - base) + what is easy in a target half."""
    draw, rows = np.random.default_rng(0), []
    for number in range(units):
        place, luck = {"split": number // 2, "target": "AB"[number % 2]}, draw.normal(0, 1)
        for treatment in runs.TREATMENTS:
            base = "self" if treatment.startswith("B") else "trained"
            for n in range(1, 8):
                mean = BASE + sign * (MEANS[treatment][n] - BASE) + luck + draw.normal(0, noise)
                rows.append(cell(mean, n, 0 if "+" in treatment else n, base, **place))
        rows.append(cell(BASE + luck + draw.normal(0, noise), **place))
    if others:
        for target, first in (("A", 65.3), ("B", 53.7)):
            for n in range(8):
                natman = {"classes": "natman", "target": target}
                rows.append(cell(first - 3.5 * n + draw.normal(0, noise), n, n, "trained" if n else "none", **natman))
        for n in range(8):
            frozen = {"classes": "all", "freeze_random": True}
            rows.append(cell(57 - 9 * n if n < 3 else 1.0, 0, n, **frozen))
        fewer = {"classes": "all", "max_updates": 200_000, "lr.high": 0.0125, "lr.low": 0.0125, "freeze_random": False}
        rows += [cell(0.1, n_per_class=n, collapsed=True, **fewer) for n in (5, 10, 25, 50, 100)]
        rows += [cell(55.0, n_per_class="full", **fewer)]
    for number, row in enumerate(rows):
        row["run_id"] = f"{number:016x}"
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def rows():
    return STUDY.rows(table())


def test_the_study_has_all_its_rows_and_the_2019_study_none_of_them(rows):
    assert len(rows) == len(table()) == 4 * 29 + 16 + 8 + 6
    with pytest.raises(Missing):
        PLESTED.rows(table())


def test_a_unit_is_a_target_half_of_one_way_to_split_the_classes(rows):
    assert rows.groupby("unit")[["classes", "split", "target"]].nunique().max().max() == 1
    assert rows["unit"].nunique() == 4 + 2 + 1


@pytest.mark.parametrize(("sign", "verdict"), [(1.0, "supported"), (-1.0, "contradicted")])
def test_each_contrast_has_the_direction_of_the_published_networks(sign, verdict):
    found = decide(PRIMARY, STUDY.rows(table(sign))).set_index("contrast")
    assert dict(found["verdict"]) == {contrast.name: verdict for contrast in PRIMARY}
    assert set(found["units"]) == {4}
    for contrast in PRIMARY:  # what is declared as the paper's effect is what its logs give, up to the printed digit
        assert sign * found["effect"][contrast.name] == pytest.approx(contrast.paper, rel=0.15), contrast.name
        assert contrast.paper * contrast.direction > 0
        assert contrast.margin == abs(contrast.paper) / 2


def test_an_absent_layer_leaves_its_contrasts_undecided(rows):
    part = rows[~((rows["layers"] == 5) & (rows["freeze"] == 5))]
    found = decide(PRIMARY, part).set_index("contrast")
    assert "not run: No finished AnB runs with layers=5." in found["more_data"]["frozen_transfer_falls"]
    assert found["verdict"]["frozen_transfer_below_selffer"] == "supported"


def test_gains_are_paired_with_the_base_of_the_same_half(rows):
    """Halves differ by points, and the intervals of paired gains are those of the noise alone."""
    found = runs_tables.by_layers(rows).set_index(["treatment", "layers"])
    assert len(found) == 28
    assert rows[rows["layers"] == 0].query("classes == 'random'")["accuracy"].std() > 0.4
    assert (found["gain_high"] - found["gain_low"]).max() < 0.25
    assert found["gain"]["AnB", 7] == pytest.approx(54.25 - 62.51, abs=0.1)
    logs = networks.transferred(networks.published()).query("treatment == 'AnB+' and n_layers == 3")
    assert found["paper_gain"]["AnB+", 3] == pytest.approx(logs["gain"].mean())
    assert set(found["units"]) == {4}


def test_table_1_of_2014_is_printed_beside_ours(rows):
    found = runs_tables.table1(rows).set_index("layers")
    assert list(found["printed_over_base"]) == [1.6, 1.8, 2.1]
    assert list(found["AnB+_over_base"]) == pytest.approx([1.67, 1.88, 2.06], abs=0.05)
    assert list(found["AnB+_over_BnB+"]) == pytest.approx([1.56, 1.50, 1.76], abs=0.05)


def test_dissimilar_classes_and_random_weights_stand_beside_the_published_ones(rows):
    found = runs_tables.dissimilar(rows).set_index(["features", "layers"])
    assert len(found) == 24
    assert found["change"]["natural", 7] == pytest.approx(-24.5, abs=0.2)
    assert found["paper_change"]["man-made", 7] == pytest.approx(29.14 - 53.72, abs=0.01)
    assert found["paper_change"]["natural", 7] == pytest.approx(39.90 - 65.34, abs=0.01)
    assert found["paper_top1"]["random", 2] == pytest.approx(40.26, abs=0.01)
    assert found["top1"]["random", 0] == pytest.approx(57)  # of its own solver, not of that for fewer images


def test_reduced_sets_stand_beside_the_published_ones_with_those_that_collapsed(rows):
    found = runs_tables.reduced(rows).set_index("n_per_class")
    assert list(found.index) == [5, 10, 25, 50, 100, "full"]
    assert list(found["collapsed"]) == list(found["paper_collapsed"]) == [True] * 5 + [False]
    assert found["paper_top1"]["full"] == pytest.approx(55.18, abs=0.01)


def test_claims_of_the_published_means(rows):
    found = evaluate(STUDY.claims, rows).set_index("claim")["verdict"]
    assert dict(found) == {
        "first_layers_are_general": "supported",
        "every_number_of_layers_boosts": "supported",
        "tuned_selffer_stays_at_base": "supported",  # as plotted: means over different halves
        "dissimilar_halves_transfer_worse": "supported",
    }
    mirrored = evaluate(STUDY.claims, STUDY.rows(table(-1.0))).set_index("claim")["verdict"]
    assert mirrored["every_number_of_layers_boosts"] == "contradicted"


def test_the_report_has_the_runs_and_the_logs(tmp_path):
    made = report.collect(table(), (STUDY, LOGS))
    assert [part.missing for part in made.parts] == [{}, {}]
    assert made.rows_in_no_study == 0
    names = {file.name for file in report.write(made, tmp_path)}
    assert {"yosinski2014_runs_layers.svg", "yosinski2014_runs_contrasts.csv", "yosinski2014_claims.csv"} <= names
    assert "AnB+ over base, mean of 1 to 7 layers" in (tmp_path / "report.html").read_text()


def test_a_miniature_with_halves_alone_says_what_is_missing():
    (part,) = report.collect(table(others=False), (STUDY,)).parts
    assert set(part.missing) == {"dissimilar", "reduced"}
    assert part.missing["dissimilar"] == "No finished runs with classes=natman or freeze_random=true."


def test_a_range_of_layers_needs_all_of_them():
    """Of AnB+ only 6 and 7 layers are finished."""
    rows = STUDY.rows(table(others=False))
    late = rows[(rows["base"] != "trained") | (rows["freeze"] > 0) | (rows["layers"] > 5)]
    with pytest.raises(Missing, match=r"No finished AnB\+ runs with layers=5\."):
        runs_tables.table1(late)
    most = rows[(rows["base"] != "trained") | (rows["freeze"] > 0) | (rows["layers"] > 2)]
    assert list(runs_tables.table1(most)["layers"]) == ["3-7", "5-7"]
    named = [quantity for quantity, *_ in runs_figure.compare_with_paper(most)]
    assert named == [f"{name} over base, mean of 1 to 7 layers" for name in ("AnB", "BnB", "BnB+")]
    claim = evaluate(STUDY.claims, late).set_index("claim").loc["every_number_of_layers_boosts"]
    assert claim["more_data"] == "No finished AnB+ runs with layers=1|2|3|4|5."
