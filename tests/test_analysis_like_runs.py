"""Only like runs are averaged and compared: of the same factors, measured on like images, on the same units."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import boost2018, densenet_transfer, hybrid_densenet, protocols_compared, sweep_figures
from analysis.boost2018.arms import by_arm
from analysis.boost2018.figures import FIGURES as BOOST_FIGURES
from analysis.contrasts import decide
from analysis.densenet_transfer.conditions import summary
from analysis.densenet_transfer.conditions import wide as by_condition
from analysis.frame import Missing, arranged, cells
from analysis.hybrid_densenet.variants import wide as by_variant
from analysis.plested2019 import STUDY
from analysis.plested2019.contrasts import PRIMARY
from analysis.protocols_compared import conditions
from analysis.provenance import facts
from analysis.selection import candidates
from analysis.sweep import best, means
from analysis.verdicts import evaluate
from analysis.yosinski2014 import STUDY as YOSINSKI
from analysis.yosinski2014 import runs
from tests import synthetic, synthetic_boost
from tests.test_analysis_hybrid import table as hybrid_table
from tests.test_analysis_yosinski_runs import table as yosinski_table
from tlprotocols.results import load

RESULTS = Path(__file__).parents[1] / "results"
SMALL = (10, 25)


def committed(study: str) -> pd.DataFrame:
    return load(RESULTS / study / "rows.csv")


def another(rows: pd.DataFrame, **factors: Any) -> pd.DataFrame:
    """These rows and the same again as other runs, which differ in these factors and are ten points worse."""
    worse: Any = {key: rows[key] - 0.1 for key in rows if str(key).startswith(("test_top1", "val_top1"))}
    return rows.assign(run_id=[f"{number:016x}" for number in range(10**6, 10**6 + len(rows))], **worse, **factors)


def on_test_images(splits: int = 4) -> pd.DataFrame:
    """Rows in the paper's world, with 400 test images a class."""
    table = synthetic.table(synthetic.paper, splits=splits, sizes=SMALL)
    return table.assign(test_top1=table["val_top1"] - 0.02, test_per_class=400, test_images=20_000)


# One cell


def test_runs_that_differ_in_a_factor_are_not_averaged_in_one_cell():
    rows = STUDY.rows(synthetic.table(synthetic.paper, splits=2, sizes=SMALL))
    frozen = rows[(rows["layers"] == 6) & (rows["high_lr_layers"] == 1) & (rows["decay_epochs"] == 5)]
    with pytest.raises(Missing) as reason:
        cells(frozen, "layers")
    said = str(reason.value)
    assert "n_per_class=25, layers=6, split=0, target=A, seed=0" in said
    assert "freeze (0, 1, 2, 3, 4, 5, 6)" in said
    assert '--query "freeze != ' in said
    assert cells(frozen, "freeze").shape == (4, 8)


def test_the_same_run_twice_is_one_and_tables_without_ids_are_told_apart_by_their_factors():
    rows = STUDY.rows(synthetic.table(synthetic.paper, splits=2, sizes=(10,))).query("high_lr_layers == 8")
    pd.testing.assert_frame_equal(cells(pd.concat([rows, rows]), "layers"), cells(rows, "layers"))
    nameless = pd.concat([rows, rows], ignore_index=True).drop(columns="run_id")
    pd.testing.assert_frame_equal(cells(nameless, "layers"), cells(rows, "layers"))
    with pytest.raises(Missing, match="dropout"):
        cells(nameless.assign(dropout=[0.0] * len(rows) + [0.5] * len(rows)), "layers")
    older = rows.assign(run_id="f", dropout=None), rows.assign(dropout=0.5)
    with pytest.raises(Missing, match=r'dropout \(0.5, none\)\. .* --query "dropout != 0.5"'):
        cells(pd.concat(older), "layers")
    halves = rows.assign(unit=rows["split"])
    with pytest.raises(Missing, match=r"split=0, seed=0: they differ in target \(A, B\)\."):
        cells(halves, "layers")
    with pytest.raises(Missing, match="does not say in what they differ"):
        cells(pd.concat([rows, rows.assign(run_id="f")]), "layers")


@pytest.mark.parametrize(
    ("protocol", "change"),
    [
        ("l2_sp", {"l2_sp": 1.0}),
        ("layer_decay", {"lr.layer_decay": 0.5}),
        ("gradual", {"unfreeze_every": 3}),
        ("linear_probe", {"decay_epochs": 30.0}),
    ],
)
def test_a_protocol_with_two_settings_has_no_mean(protocol: str, change: dict[str, Any]):
    table = committed("tiny_protocols")
    both = pd.concat([table, another(table[table["protocol"] == protocol], **change)], ignore_index=True)
    (factor,) = change
    with pytest.raises(Missing, match=f"differ in {factor} ") as reason:
        conditions.wide(protocols_compared.STUDY.rows(both))
    if protocol == "linear_probe":  # whose decay_epochs other protocols have, too
        return
    query = str(reason.value).split('"')[1]
    left = conditions.wide(protocols_compared.STUDY.rows(both.query(query)))
    pd.testing.assert_frame_equal(left, conditions.wide(protocols_compared.STUDY.rows(table)))


@pytest.mark.parametrize("change", [{"epochs": 30}, {"lr.step": 10.0}, {"lr.gamma": 0.5}])
def test_protocols_have_one_recipe(change: dict[str, Any]):
    table = committed("tiny_protocols")
    both = pd.concat([table, another(table[table["protocol"] == "scratch"], **change)], ignore_index=True)
    left = conditions.wide(protocols_compared.STUDY.rows(both))
    pd.testing.assert_frame_equal(left, conditions.wide(protocols_compared.STUDY.rows(table)))


def test_two_places_of_drop_channel_and_two_dropouts_are_no_one_variant():
    table = hybrid_table()
    for name, change in (("A", {"model.drop_channel": "before_conv"}), ("B", {"dropout": 0.0})):
        which = (table["model.drop_channel"] != "none") == (name == "A")
        part = table[which & (table["model.se"] == (name == "B")) & ~table["model.checkpoint"] & (table["dropout"] > 0)]
        both = pd.concat([table, another(part, **change)], ignore_index=True)
        with pytest.raises(Missing, match=f"variant={name}"):
            by_variant(hybrid_densenet.STUDY.rows(both))


def test_one_and_two_copied_layers_are_no_one_arm():
    table = synthetic_boost.table(synthetic_boost.text)
    both = pd.concat([table, another(table[table["layers"] == 1], layers=2)], ignore_index=True)
    with pytest.raises(Missing, match="layers"):
        by_arm(boost2018.STUDY.rows(both))


@pytest.mark.parametrize("change", [{"lr.high": 0.5}, {"head": "64"}, {"dropout": 0.9}])
def test_a_condition_with_two_rates_heads_or_dropouts_has_no_mean(change: dict[str, Any]):
    table = committed("tiny_densenet_transfer")
    scratch = table[(table["layers"] == 0) & (table["dataset.upscale"] > 0)]
    rows = densenet_transfer.STUDY.rows(pd.concat([table, another(scratch, **change)], ignore_index=True))
    for make in (by_condition, summary):
        with pytest.raises(Missing, match="condition=k"):
            make(rows)


def test_networks_of_two_kinds_are_no_one_treatment():
    table = yosinski_table(others=False)
    both = pd.concat([table, another(table[table["freeze"] == 3], **{"base.epochs": 9})], ignore_index=True)
    with pytest.raises(Missing, match=r"base\.epochs"):
        runs.accuracy(YOSINSKI.rows(both), "AnB")


# Images


def test_a_few_rows_without_test_images_are_left_out_and_named():
    table, more = on_test_images(), synthetic.table(synthetic.mirrored, splits=1, sizes=(50,)).head(8)
    more = more.assign(run_id=[f"f{number:015x}" for number in range(8)], test_per_class=0, test_images=0)
    both = pd.concat([table, more], ignore_index=True)
    rows = STUDY.rows(both)
    assert rows["run_id"].tolist() == table["run_id"].tolist()
    assert rows["accuracy"].tolist() == pytest.approx((100 * table["test_top1"]).tolist())
    assert STUDY.unused(both) == ["8 rows without test images (this study: accuracy on test images)"]


def test_where_most_rows_have_no_test_images_all_are_on_validation_images():
    table = on_test_images()
    some = table.assign(test_top1=table["test_top1"].where(table["n_per_class"] == 10))
    some.loc[table.index[:20], "test_top1"] = np.nan
    rows = STUDY.rows(some)
    assert rows["accuracy"].tolist() == pytest.approx((100 * table["val_top1"]).tolist())
    assert STUDY.unused(some) == []


def test_rows_of_one_size_are_measured_on_the_same_images():
    """A quarter of n=25 was tested on other images; n=10 on others throughout, which is no comparison."""
    table = on_test_images()
    few = (table["n_per_class"] == 25) & (table["split"] == 0)
    mixed = table.assign(test_per_class=400 - 150 * (few | (table["n_per_class"] == 10)))
    mixed["test_images"] = 50 * mixed["test_per_class"]
    rows = STUDY.rows(mixed)
    assert rows.groupby("n_per_class")["test_per_class"].unique().map(list).to_dict() == {10: [250], 25: [400]}
    assert STUDY.unused(mixed) == [f"{few.sum()} rows of n_per_class=25 with test_per_class=250 (this study: 400)"]
    other = mixed.assign(test_per_class=0, test_images=20_000 - few)  # of a folder with a part test/
    assert STUDY.unused(other) == []  # a split's own images, all of them
    other.loc[few & (table["layers"] == 4), "test_images"] = 7
    count = (few & (table["layers"] == 4)).sum()
    assert STUDY.unused(other) == [f"{count} rows of n_per_class=25 with test_images=7 (this study: 19999)"]


def test_classes_with_other_numbers_of_images_stay_in_one_study():
    """Natural and man-made classes are no halves of equal size."""
    table = yosinski_table().assign(test_per_class=0, test_top1=0.5)
    table["test_images"] = table["classes"].map({"random": 500, "natman": 551, "all": 1000})
    table.loc[(table["classes"] == "natman") & (table["target"] == "B"), "test_images"] = 449
    assert len(YOSINSKI.rows(table)) == len(table)


# Units


def split_of_seeds() -> pd.DataFrame:
    """Figure 2 on split 0 alone, of three more seeds there; all else on four splits."""
    table = synthetic.table(synthetic.paper, noise=0.05, sizes=SMALL)
    second = (table["layers"] == 6) & (table["freeze"] == 0) & (table["decay_epochs"] == 30)
    kept = table[~second | ((table["split"] == 0) & (table["target"] == "B"))]
    one = kept[second[kept.index]]
    seeds = [another(one, seed=seed).assign(val_top1=one["val_top1"] + 0.0003 * seed) for seed in (1, 2, 3)]
    for number, more in enumerate(seeds):
        more["run_id"] = [f"{number}e{place:014x}" for place in range(len(more))]
    return pd.concat([kept, *seeds], ignore_index=True)


def test_seeds_of_one_split_are_no_splits_where_others_have_more():
    rows = STUDY.rows(split_of_seeds())
    assert rows["unit"].nunique() == 8
    found = decide(PRIMARY, rows).set_index("contrast").loc["one_high_layer"]
    assert (found["verdict"], found["more_data"]) == (
        "undecided",
        "not run: Fewer than 2 splits are finished at n_per_class=10, high_lr_layers=1|8.",
    )
    claim = evaluate(STUDY.claims, rows).set_index("claim").loc["all_high_too_aggressive"]
    assert claim["verdict"] == "undecided"
    line = means(rows[(rows["high_lr_layers"] == 3) & (rows["n_per_class"] == 10)], ["high_lr_layers"]).iloc[0]
    assert (line["runs"], line["units"]) == (4, 1)


def of_one_split() -> pd.DataFrame:
    table = synthetic.table(synthetic.paper, noise=0.05, sizes=SMALL)
    return table.assign(seed=table.groupby(["split", "target"]).ngroup(), split=0, target="B")


def test_in_a_study_of_one_split_seeds_are_the_units_and_contrasts_say_so():
    rows = STUDY.rows(of_one_split())
    assert (rows["unit"] == rows["seed"]).all()
    found = decide(PRIMARY, rows).set_index("contrast")
    assert found["units"]["one_high_layer"] == 8
    said = found["more_data"][found["units"].fillna(0) > 0]
    assert said.str.endswith("All seeds belong to one class split, so this may not hold for other classes.").all()
    several = decide(PRIMARY, STUDY.rows(synthetic.table(synthetic.paper, sizes=SMALL)))
    assert not several["more_data"].str.contains("All seeds").any()
    assert dict(facts(rows, STUDY.unit, len(rows)))["units"] == "1 (split, target), whose 8 seeds stand for units"
    of_sweep = sweep_figures.study(of_one_split(), pd.DataFrame())
    said_there = of_sweep.figures[0].caption(of_sweep.rows(of_one_split()))
    assert said_there.startswith("Means over 8 seeds of one class split, which say nothing about other classes.")


def test_a_figure_of_one_draw_has_seeds_as_dots():
    rows = boost2018.STUDY.rows(synthetic_boost.table(synthetic_boost.text, draws=1, seeds=4))
    assert "Small dots are seeds of one draw (4), large ones means" in BOOST_FIGURES[0].caption(rows)


# Settings


def test_the_first_run_of_a_new_split_does_not_choose_the_best_setting():
    """Six settings on four units, and one of them on a fifth: the six are compared on the four."""
    rows = [
        {"n_per_class": 10, "unit": unit, "seed": 0, "layers": layers, "accuracy": 10.0 * layers + unit}
        for layers in range(1, 7)
        for unit in range(5 if layers == 1 else 4)
    ]
    assert candidates(pd.DataFrame(rows), ["layers"], 10).shape == (4, 6)
    few = [row for row in rows if int(row["layers"]) < 3 or int(row["unit"]) < 1]  # two settings on four, four on one
    assert candidates(pd.DataFrame(few), ["layers"], 10).shape == (4, 2)


def test_one_run_of_a_new_split_leaves_the_best_cell_as_it_is():
    table = committed("tiny_imagenet")
    scratch = table[(table["layers"] == 0) & (table["n_per_class"] == 10)].head(1)
    both = pd.concat([table, another(scratch, split=4)], ignore_index=True)
    settings = ["n_per_class", "layers", "freeze", "high_lr_layers", "decay_epochs"]
    before, after = (best(sweep_figures.study(one, pd.DataFrame()).rows(one), settings) for one in (table, both))
    pd.testing.assert_frame_equal(before, after)


def test_columns_are_arranged_by_their_levels():
    rows = pd.DataFrame({"unit": [0, 0, 1], "seed": 0, "layers": [7, 4, 4], "accuracy": [1.0, 2.0, 3.0]})
    assert list(arranged(rows, ["layers"])) == [4, 7]
