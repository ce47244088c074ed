"""The study of the generalization boost: arms by their factors, claims and contrasts in worlds whose truth is known,
and the whole of it in miniature on coloured shapes."""

import dataclasses
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torchvision

from analysis import report
from analysis.boost2018 import STUDY, arms
from analysis.boost2018.contrasts import PRIMARY
from analysis.contrasts import decide
from analysis.frame import Missing
from analysis.verdicts import evaluate
from tests import synthetic_boost as world
from tlprotocols.config.identity import base_of
from tlprotocols.config.studies import cells
from tlprotocols.planning.plan import resolved
from tlprotocols.results import export, load
from tlprotocols.training.run import execute

STUDY_FILE = Path(__file__).parents[1] / "sweeps" / "boost2018.yaml"
CLAIMS = {claim.name for claim in STUDY.claims}
CONTRASTS = {contrast.name for contrast in PRIMARY}
NEVER = "no effect of the paper's size"


def claims(truth, **options):
    return dict(evaluate(STUDY.claims, STUDY.rows(world.table(truth, **options)))[["claim", "verdict"]].to_numpy())


def contrasts(truth, **options):
    return dict(decide(PRIMARY, STUDY.rows(world.table(truth, **options)))[["contrast", "verdict"]].to_numpy())


def test_the_family_was_declared_with_directions_and_margins():
    assert len(CONTRASTS) == len(PRIMARY) == 12
    assert len(CLAIMS) == len(STUDY.claims) == 11
    assert {c.name: c.direction for c in PRIMARY if c.direction == -1} == dict.fromkeys(
        ("gap", "gap_over_baseline", "training_loss"), -1
    )
    assert all(c.margin > 0 and c.sentence for c in PRIMARY)
    assert [c.margin for c in PRIMARY if c.paper] == [0.5]  # half of 1 point


def test_in_the_texts_world_its_second_hypothesis_is_supported_and_its_first_is_not():
    found = claims(world.text)
    assert found == dict.fromkeys(CLAIMS, "supported") | {"training_is_better_too": "undecided"}
    first = dict.fromkeys(("training_loss", "training_accuracy"), NEVER)
    assert contrasts(world.text) == dict.fromkeys(CONTRASTS, "supported") | first


def test_in_a_world_of_better_minima_the_first_hypothesis_is_supported():
    found = claims(world.minima)
    assert found["training_is_better_too"] == found["boost_reproduces"] == "supported"
    wrong = ("training_losses_are_close", "gap_is_smaller", "random_initialisation_overfits_more")
    assert {found[name] for name in wrong} == {"contradicted"}
    assert found["better_on_base_data"] == "undecided"
    assert contrasts(world.minima)["base_data"] == NEVER


def test_in_a_world_where_transfer_harms_every_claim_is_contradicted():
    assert claims(world.mirrored) == dict.fromkeys(CLAIMS, "contradicted")
    assert contrasts(world.mirrored) == dict.fromkeys(CONTRASTS, "contradicted")


def test_where_the_source_does_not_matter_only_equivalences_are_supported():
    found = claims(world.nothing)
    assert {name for name in CLAIMS if found[name] == "supported"} == {
        "own_classes_bring_nothing",
        "training_losses_are_close",
    }
    assert "contradicted" not in found.values()
    assert contrasts(world.nothing) == dict.fromkeys(CONTRASTS, NEVER)


def test_noise_decides_nothing():
    assert set(claims(world.nothing, noise=4, draws=3).values()) == {"undecided"}
    assert set(contrasts(world.nothing, noise=4, draws=3).values()) == {"undecided"}


def test_draws_are_units_and_seeds_are_not():
    """Twice as many seeds of the same draws are no more units."""
    for seeds in (1, 4):
        rows = STUDY.rows(world.table(world.text, seeds=seeds))
        assert set(decide(PRIMARY, rows)["units"]) == {8}


def test_differences_are_within_a_draw_and_a_seed():
    """What makes a draw easier for all arms is in no difference."""
    table = world.table(world.text, noise=0)
    assert decide(PRIMARY, STUDY.rows(table)).set_index("contrast")["effect"]["boost"] == pytest.approx(1.5)
    easier = table.assign(test_top1=table["test_top1"] + 0.03 * table["split"] + 0.01 * table["seed"])
    found = decide(PRIMARY, STUDY.rows(easier)).set_index("contrast")
    assert found["effect"]["boost"] == pytest.approx(1.5)
    assert found["sd"]["boost"] == pytest.approx(0, abs=1e-9)
    lame = table.drop(table.query("split == 2 and seed == 1 and base == 'self'").index)
    assert decide(PRIMARY, STUDY.rows(lame)).set_index("contrast")["effect"]["boost"] == pytest.approx(1.5)


def test_a_table_without_the_control_or_without_a_probe_says_so():
    table = world.table(world.text)
    rows = STUDY.rows(table.query("`base.n_per_class` != 333").drop(columns="probe_top1"))
    found = decide(PRIMARY, rows).set_index("contrast")["more_data"]
    assert found["more_images"] == f"not run: No finished runs of {arms.EQUAL} with accuracy on B (%)."
    assert found["base_data"].startswith("not run: No finished runs of Transferred and of Baseline with linear probe")
    with pytest.raises(Missing, match="Fewer than two arms are finished with linear probe"):
        next(figure for figure in STUDY.figures if figure.name == "probe").draw(rows)
    text = next(t for t in STUDY.tables if t.name == "text").make(rows, "all").groupby("item")["here"].agg(list)
    assert text["Expectation 4"][0].startswith("more_data: +4.")
    assert "base_data: not run" in text["Hypothesis H2 regularized init"]


def test_what_the_text_prints_stands_beside_what_was_found():
    rows = STUDY.rows(world.table(world.text))
    text = next(t for t in STUDY.tables if t.name == "text").make(rows, "all").groupby("item").agg(list)
    assert text["text"]["Yosinski boost quoted"] == ["1-2 % higher test accuracy", ""]
    assert text["here"]["Yosinski boost quoted"][0].startswith("boost_over_baseline: +1.4")
    assert text["here"]["Network Transferred-More-Data"] == ["500 images per source class; 16 runs"]
    assert set(text.index) == set(STUDY.published().query("kind == 'printed'")["item"])
    means = next(t for t in STUDY.tables if t.name == "means").make(rows, "all")
    assert list(means["arm"]) == list(arms.ALL)
    assert list(means["runs"]) == [16] * 11


@pytest.fixture(scope="module")
def miniature(cfg, tmp_path_factory):
    """The cells of sweeps/boost2018.yaml on the shapes: two draws of three, three and two classes, two epochs."""
    results = tmp_path_factory.mktemp("boost")
    few = ["dataset=folder", "split=0,1", "seed=0", "classes.sizes=[3,3,2]", "n_per_class=6"]
    for cell in cells(STUDY_FILE, few):
        fixed = [line for line in cell if not line.startswith("dataset=")]
        fixed = ["base.n_per_class=4" if "by_n" in line else line for line in fixed]  # of 5 x 6 images, about 3 x 6
        config = cfg(*fixed, f"results_dir={results}")
        if base_of(config) is not None:
            execute(dataclasses.replace(base_of(config), results_dir=str(results)), "base")
        execute(config)
    return results


def test_the_study_in_miniature_has_every_arm_and_its_report(miniature: Path, tmp_path: Path):
    rows = STUDY.rows(load(miniature))
    counts = arms.measured(rows)["arm"].value_counts()
    assert dict(counts) == dict.fromkeys(arms.ALL, 2)
    assert rows["probe_top1"].between(0, 1).all()
    part = report.collect(load(miniature), (STUDY,)).parts[0]
    assert not part.missing
    assert set(part.tables["contrasts"]["units"]) == {2}
    export(miniature, tmp_path / "rows.csv")
    again = arms.by_arm(STUDY.rows(load(tmp_path / "rows.csv")))
    pd.testing.assert_frame_equal(again, arms.by_arm(rows))


def test_in_the_miniature_each_arm_copied_what_its_name_says(miniature: Path):
    """The base of each run, by its own row: which classes it learned, from how many images."""
    bases = load(miniature, bases=True).set_index("run_id")
    rows = arms.measured(STUDY.rows(load(miniature)))
    retrained = rows[(rows["layers"] == 1) & (rows["freeze"] == 0)]
    of = {
        arm: {(bases["target"][i], bases["classes_learned"][i], bases["train_images"][i]) for i in group["base_id"]}
        for arm, group in retrained.groupby("arm")
    }
    assert of == {
        arms.SELF: {("B", 3, 18)},
        arms.TRANSFERRED: {("A", 3, 18)},
        arms.DIVERSE: {("A", 3, 18)},
        arms.MORE: {("A", 5, 30)},
        arms.EQUAL: {("A", 5, 20)},
    }
    baseline = rows[rows["arm"] == arms.BASELINE].set_index("split")["run_id"]
    own = rows[rows["arm"] == arms.SELF].set_index("split")["base_id"]
    assert dict(own) == dict(baseline)


def test_the_study_reads_cifar_10s_own_files(composed, tmp_path: Path, monkeypatch):
    """The full-size study, of an archive in torchvision's format with six images a class: one arm of one draw."""
    kind, sums = torchvision.datasets.CIFAR10, {}
    data = np.random.RandomState(0).randint(0, 256, (60, 3 * 32 * 32), dtype=np.uint8)
    images = {"data": data, "labels": [number % 10 for number in range(60)]}
    (tmp_path / kind.base_folder).mkdir()
    for name, content in (("train", images), ("test", images), ("meta", {"label_names": list("abcdefghij")})):
        (tmp_path / kind.base_folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5(pickle.dumps(content)).hexdigest()
    monkeypatch.setattr(kind, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(kind, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "label_names", "md5": sums["meta"]})
    where = [f"dataset.root={tmp_path}", f"machine.image_cache={tmp_path}", f"results_dir={tmp_path}"]
    one = ["split=0", "seed=0", "epochs=1", "model.width=0.1", "precision=fp32", "base.precision=fp32"]
    found = [composed(*cell) for cell in cells(STUDY_FILE, [*where, *one, "machine.device=cpu"])]
    (config,) = [c for c in found if c.classes.source_group == "more" and c.base.n_per_class == "full" and not c.freeze]
    config = resolved(config)
    execute(base_of(config), "base")
    row = execute(config)
    assert (row["train_images"], row["classes_learned"], row["dataset"]) == (24, 4, "cifar10")
    assert row["probe_top1"] is not None
