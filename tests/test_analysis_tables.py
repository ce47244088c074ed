"""Rows of the study, its experiments, tables 1 and 2, and the selection effect."""

import pandas as pd
import pytest

from analysis import frame, selection
from analysis.frame import Missing
from analysis.plested2019 import STUDY, experiments, figures, published, table1, table2
from tests import synthetic


@pytest.fixture(scope="module")
def paper():
    return synthetic.rows(synthetic.paper, noise=0.05)


def test_rows_of_another_study_are_reported():
    paper = synthetic.table(synthetic.paper)
    other = paper.head(20).assign(dataset="cifar10")
    mixed = pd.concat([other, paper], ignore_index=True)
    assert len(STUDY.rows(mixed)) == len(paper)
    assert STUDY.unused(mixed) == ["20 rows with dataset=cifar10 (this study: imagenet)"]
    assert "accuracy" not in paper


def test_seeds_and_full_are_no_other_study(paper):
    assert STUDY.unused(paper) == []
    assert frame.sizes(paper) == [10, 25, 50, 100, 250, 500, "full"]


def test_table1(paper):
    result = table1.losses(paper).set_index(["layers", "n_per_class"])
    assert result.loc[(4, 10), "paper_training"] == 1.55
    assert result.loc[(7, 10), "difference"] == pytest.approx(synthetic.paper(_cell(7))[1], abs=0.05)
    assert list(table1.averages(paper)["layers"]) == [4, 5, 6, 7]


def _cell(layers):
    return {"n_per_class": 10, "layers": layers, "freeze": 0, "high_lr_layers": 8, "decay_epochs": 30}


def test_table2_finds_the_true_best(paper):
    result = table2.settings(paper).set_index("n_per_class")
    assert dict(result["best"]) == dict(
        zip(result.index, ("6/10/6", "6/5/6", "6/3/0", "6/3/0", "6/3/0", "6/0/0", "5/30/0"), strict=True)
    )
    assert list(result["greedy"]) == list(result["best"])
    assert list(result["paper"][:2]) == ["6/10/6", "6/5/5"]
    assert result.loc["full", "significant"]
    assert result["difference"]["full"] > 0.9
    assert result.loc[10, "paper_setting_here"] == pytest.approx(result.loc[10, "accuracy"])


def test_table2_finds_nothing_in_noise():
    result = table2.settings(synthetic.rows(synthetic.paper, noise=5))
    assert not result["significant"].any()
    assert (result["as_good"] > 1).all()


def test_settings_are_compared_on_the_same_splits(paper):
    """Of an unfinished sweep: every setting ran on one split only, by chance on three different ones."""
    ten = paper[(paper.n_per_class == 10) & (paper.layers > 0)]
    settings = ten.groupby(experiments.SETTING, sort=False).ngroup()
    partial = ten[ten.split == settings.map(lambda number: 0 if number < 3 else 1 if number < 10 else 2)]
    result = selection.candidates(partial, experiments.SETTING, 10)
    assert result.shape[1] == settings.nunique() - 10
    assert result.notna().all(axis=None)
    assert len(selection.effect(partial, experiments.SETTING)) == 1


def test_selection_on_pure_noise_is_optimistic():
    """All settings equally good: what is chosen looks better than it is by the noise that chose it."""
    rows = synthetic.rows(lambda cell: (40.0, 1.0), noise=0.1)
    result = table2.SELECTION.make(rows, "all")
    assert (result["optimism"] > 0).all()  # the synthetic halves of images differ by chance
    assert result["optimism_splits"].mean() > 0.03
    assert result["chosen_and_reported"].between(30, 50).all()


def halves(first, second, names=("val_top1_even", "val_top1_odd")):
    """Rows of two settings, 4 and 5 layers, on two splits, whose accuracies on two sets of images are these."""
    rows = [
        {"n_per_class": 10, "unit": f"split {split}", "seed": 0, "layers": layers, "accuracy": 100 * (a + b) / 2}
        | dict(zip(names, (a, b), strict=True))
        for layers, pairs in ((4, first), (5, second))
        for split, (a, b) in enumerate(pairs)
    ]
    return pd.DataFrame(rows)


def test_the_honest_accuracy_is_that_on_the_half_that_did_not_choose():
    """4 layers are best on the even images, 5 on the odd ones; each is reported on the other half."""
    rows = halves([(0.5, 0.2), (0.6, 0.1)], [(0.3, 0.4), (0.2, 0.6)])
    (found,) = selection.effect(rows, ["layers"]).to_dict("records")
    assert found["chosen_and_reported"] == pytest.approx((55 + 50) / 2)
    assert found["heldout_images"] == pytest.approx((15 + 25) / 2)
    assert found["optimism"] == pytest.approx((55 + 50 - 15 - 25) / 2)


def test_with_test_images_the_honest_accuracy_is_theirs_and_nothing_is_chosen_by_them():
    """5 layers are best on the validation images, 4 on the test images."""
    rows = halves([(30, 70), (40, 60)], [(50, 20), (60, 10)], names=("val_accuracy", "accuracy"))
    rows["test_top1"] = rows["accuracy"] / 100
    (found,) = selection.effect(rows, ["layers"]).to_dict("records")
    assert found["chosen_and_reported"] == pytest.approx(55)
    assert found["heldout_images"] == pytest.approx(15)
    assert found["optimism"] == pytest.approx(55 - 15 - (45 - 40))  # of which 5 points are how hard the images are


def test_heldout_reports_the_other_half(paper):
    shifted = paper.assign(val_top1_odd=paper["val_top1_even"] - 0.1)
    chosen, reported = (table2.settings(shifted, s)["accuracy"] for s in ("all", "heldout"))
    assert (chosen - reported).mean() == pytest.approx(10, abs=0.5)
    with pytest.raises(ValueError, match="heldout"):
        table2.settings(shifted, "holdout")


def test_decays_scale(paper):
    assert experiments.low_and_high_decay(paper) == (5, 30)
    assert experiments.low_and_high_decay(synthetic.rows(synthetic.paper, sizes=(10, 25), scale=3)) == (1, 10)
    with pytest.raises(Missing, match="decay_epochs=30"):
        experiments.low_and_high_decay(paper.query("decay_epochs == 30"))


def test_freezing_is_shown_at_the_decay_with_most_levels(paper):
    assert experiments.freeze_decays(paper) == {10: 10, 25: 5, 50: 3, 100: 3, 250: 3, 500: 0, "full": 30}


def test_the_papers_search_keeps_one_layer_high(paper):
    """As the paper does from section 3.3 on for all sizes, whatever Fig. 2 shows for one of them."""
    six = (paper["high_lr_layers"] == 5) & (paper["n_per_class"] == 25)
    result = table2.settings(paper.assign(accuracy=paper["accuracy"] + 10 * six)).set_index("n_per_class")
    assert (result.loc[25, "best"], result.loc[25, "greedy"]) == ("6/30/0, 5 high", "6/5/6")


def test_table1_without_the_papers_layers(paper):
    few = paper.query("high_lr_layers == 8 and layers == 7").assign(layers=2)
    assert table1.averages(few)["paper_difference"].isna().all()


def test_another_setting_is_not_the_papers(paper):
    ten = paper.query("n_per_class == 500 and not (freeze == 0 and decay_epochs < 20 and high_lr_layers == 1)")
    assert experiments.optimal_settings(ten) == {}
    assert "paper_setting_here" not in table2.settings(ten)


def test_optimal_takes_the_nearest_tried_decay(paper):
    assert experiments.optimal_settings(paper)[10] == {"layers": 6, "freeze": 6, "decay_epochs": 10}
    scaled = synthetic.rows(synthetic.paper, sizes=(10, 25), scale=3)
    assert experiments.optimal_settings(scaled)[10] == {"layers": 6, "freeze": 6, "decay_epochs": 3}


def test_printed_tables_of_2019():
    assert published.table2()[10] == published.Setting(6, 10, 6, 30.8)
    assert published.table2()["full"] == published.Setting(5, 30, 0, 62.1)
    assert published.nearest_setting(20) == published.table2()[25]
    losses = published.table1()
    gaps = (losses["validation loss"] - losses["training loss"]).groupby("layers").mean()
    assert list(gaps) == pytest.approx([2.91, 3.63, 3.90, 4.72], abs=0.005)


def test_with_test_images_settings_are_chosen_on_validation_and_reported_on_test_images():
    """The validation images favour one setting, the test images another: the first is chosen, the second's accuracy
    is nobody's business."""
    table = synthetic.table(synthetic.paper, sizes=(10, 25))
    table["test_top1"] = table["val_top1"] - 0.02
    favoured = (table["layers"] == 4) & (table["high_lr_layers"] == 1) & (table["decay_epochs"] == 5)
    table.loc[favoured, "val_top1"] += 0.2
    hidden = (table["layers"] == 7) & (table["high_lr_layers"] == 1) & (table["decay_epochs"] == 30)
    table.loc[hidden, "test_top1"] += 0.2
    rows = STUDY.rows(table)
    best = table2.settings(rows)
    assert best["best"].tolist() == ["4/5/0", "4/5/0"]
    reported = 100 * table.loc[favoured & (table["n_per_class"] == 10), "test_top1"].mean()
    assert best["accuracy"][0] == pytest.approx(reported)
    effect = selection.effect(rows[rows["layers"] > 0], experiments.SETTING)
    assert (effect["optimism"] > 5).all()


def test_averages_are_over_the_sizes_that_all_numbers_of_layers_have(paper):
    ten = paper[(paper["n_per_class"] == 10) | (paper["layers"] != 7)]
    result = table1.averages(ten).set_index("layers")
    losses = table1.losses(paper).set_index(["n_per_class", "layers"])
    for column in ("difference", "paper_difference"):
        assert result[column].to_dict() == losses.loc[10][column].to_dict()
    with pytest.raises(Missing, match="images per class"):
        table1.averages(ten[(ten["n_per_class"] != 10) | (ten["layers"] == 7)])


def test_steps_of_the_papers_search_are_compared_on_the_same_splits(paper):
    """Split 9 is twenty points easier, and has begun with what is worst there."""
    rows = paper[paper["n_per_class"] == 10]
    easy = rows.query("split == 0 and target == 'A' and layers == 6 and high_lr_layers == 1")
    easy = easy[(easy["decay_epochs"].isin([0, 30]) & (easy["freeze"] == 0)) | (easy["freeze"] == 1)]
    easy = easy.assign(split=9, unit=99, accuracy=easy["accuracy"] + 99, val_accuracy=easy["val_accuracy"] + 99)
    both = pd.concat([rows, easy], ignore_index=True)
    assert table2.greedy(both, 10) == table2.greedy(rows, 10) == (6, 1, 10, 6)
    assert figures._best_levels(experiments.freeze(both), "freeze") == {10: 6}
    assert figures._best_levels(experiments.decay_epochs(both), "decay_epochs") == {10: 10}
    full = paper[paper["n_per_class"] == "full"]
    more = full.query("split == 0 and target == 'A' and layers == 4 and high_lr_layers == 1 and decay_epochs == 5")
    more = more.assign(split=9, unit=99, val_accuracy=more["val_accuracy"] + 99)
    assert table2.greedy(pd.concat([full, more], ignore_index=True), "full") == (5, 1, 30, 0)
