"""The figures and tables of any sweep: which factors tell its cells apart, paired intervals, the best cell's equals."""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import panels, provenance, report, selection, sweep, sweep_figures
from analysis.__main__ import main
from analysis.studies import STUDIES
from tests import synthetic

FINE_TUNE = {"high_lr_layers": 1, "decay_epochs": 5, "protocol": "fine_tune", "base": "trained", "base.epochs": 8}
SCRATCH = {"layers": 0, "high_lr_layers": 8, "decay_epochs": 6, "protocol": "scratch", "base": "none"}


def rows(*cells: dict[str, Any], splits: int = 4, seeds: int = 1, noise: float = 0.0) -> pd.DataFrame:
    """A row per cell, split and seed. A split is 5 points better than the one before, in all cells."""
    draw = np.random.default_rng(3)
    lines: list[dict[str, Any]] = []
    for cell, split, seed in itertools.product(cells, range(splits), range(seeds)):
        line = {"dataset": "glyphs", "model": "alexnet_small", "n_per_class": 10, "freeze": 0, "lr.step": 6}
        line |= {"classes": "random", "schedule": "own_clock"}
        line |= FINE_TUNE | {"split": split, "target": "B", "seed": seed} | cell
        top1 = (line.pop("mean", 40.0) + 5 * split + noise * draw.normal()) / 100
        line |= {"val_top1": top1, "val_loss": 2.0, "train_loss": 1.0, "collapsed": False, "diverged": False}
        lines.append(line | {"seconds": 3.0, "run_id": f"{len(lines):016x}", "log": f"{len(lines)}"})
    return pd.DataFrame(lines)


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    return sweep_figures.study(table, pd.DataFrame()).rows(table)


FIRST: list[dict[str, Any]] = [{"layers": layers, "n_per_class": n} for layers in (4, 5, 6, 7) for n in (10, 50)]


def test_factors_that_follow_from_others_do_not_name_cells():
    assert sweep.swept(rows(*FIRST)) == ["n_per_class", "layers"]
    with_baseline = rows(*FIRST, SCRATCH, SCRATCH | {"n_per_class": 50})
    assert sweep.swept(with_baseline) == ["n_per_class", "layers"]  # only scratch has layers=0
    assert sweep.swept(rows({"layers": 6}, SCRATCH)) == ["protocol"]  # the name says it all
    mixed = rows({"layers": 5}, {"layers": 5, "high_lr_layers": 3, "protocol": None}, {"layers": 6})
    assert sweep.swept(mixed) == ["layers", "high_lr_layers"]


def test_sampled_rates_decide_no_other_factor():
    """Four trials of Optuna: each rate occurs once, and every other value goes with it by chance."""
    trials = [
        {"layers": 1, "lr.high": 0.0090, "weight_decay": 0.0007},
        {"layers": 1, "lr.high": 0.0012, "weight_decay": 0.0019},
        {"layers": 2, "lr.high": 0.0115, "weight_decay": 0.0074},
        {"layers": 1, "lr.high": 0.0450, "weight_decay": 0.0041},
    ]
    assert sweep.swept(rows(*trials)) == ["layers", "weight_decay", "lr.high"]
    grid = [{"layers": layers, "lr.high": 0.01, "weight_decay": 0.0005} for layers in (1, 2, 3)]
    assert sweep.swept(rows(*grid, *trials)) == ["layers", "weight_decay", "lr.high"]


def test_of_factors_that_change_together_one_names_the_cells_and_the_report_says_which_others():
    recipes = [{"epochs": e, "batch_size": 10 * e, "base.epochs": e} for e in (5, 10, 20)]
    table = rows(*recipes)
    assert sweep.swept(table) == ["epochs"]
    equal = [{"lr.high": rate, "base.lr.high": rate} for rate in (0.01, 0.02)]
    assert sweep.swept(rows(*equal)) == ["lr.high"]
    said = sweep_figures.study(table, pd.DataFrame()).description
    assert said.endswith("cells apart: epochs. With them change batch_size, base.epochs. All others are equal.")


def test_the_table_of_cells_has_every_swept_factor_with_its_digits():
    cells = [
        {"layers": 6, "lr.high": high, "lr.low": low, "weight_decay": 0.0004}
        for high in (0.01, 0.02)
        for low in (0.001, 0.002)
    ]
    table = prepared(rows(*cells, {"layers": 6, "lr.high": 0.01, "lr.low": 0.001, "weight_decay": 0.00125}))
    shown = report.shown(sweep.means(table, sweep.swept(table)))
    assert shown["lr.high"] == ["0.01", "0.01", "0.02", "0.02", "0.01"]
    assert shown["lr.low"] == ["0.001", "0.002", "0.001", "0.002", "0.001"]
    assert shown["weight decay"] == ["0.0004", "0.0004", "0.0004", "0.0004", "0.00125"]


def test_replicates_are_no_factors():
    assert sweep.swept(rows({"layers": 5}, splits=4, seeds=2)) == []


def test_no_cell_averages_over_settings():
    """Scratch and fine-tuning at one n are two cells, with their own means."""
    means = sweep.means(prepared(rows({"layers": 6, "mean": 60}, SCRATCH | {"mean": 20})), ["protocol"])
    assert means.set_index("protocol")["accuracy"].round(6).to_dict() == {"fine_tune": 67.5, "scratch": 27.5}


def test_intervals_leave_out_the_differences_between_units():
    """Two cells that differ by exactly one point on every split, while splits differ by five points."""
    table = prepared(rows({"layers": 5}, {"layers": 6, "mean": 41}))
    wide = table.groupby(["unit", "seed", "layers"])["accuracy"].mean().unstack("layers")
    found = sweep.intervals(wide)
    assert found["mean"].to_list() == pytest.approx([47.5, 48.5])
    assert (found["high"] - found["low"]).max() < 1e-9
    alone = sweep.intervals(wide[[5]])  # nothing to pair with: the spread of the splits
    assert float((alone["high"] - alone["low"]).iloc[0]) > 10


def test_width_of_a_paired_interval_is_that_of_the_differences():
    """With two cells, the corrected interval of a mean is that of the difference, times one over the root of two."""
    from analysis.statistics import paired

    table = prepared(rows({"layers": 5}, {"layers": 6}, noise=2.0))
    wide = table.groupby(["unit", "seed", "layers"])["accuracy"].mean().unstack("layers")
    found, d = sweep.intervals(wide), paired(wide[5] - wide[6])
    assert (found["high"] - found["low"]).to_list() == pytest.approx([(d.high - d.low) / 2**0.5] * 2)


def test_the_best_cell_and_those_that_cannot_be_told_from_it():
    cells: list[dict[str, Any]] = [{"layers": 5, "mean": 50}, {"layers": 6, "mean": 50.2}, {"layers": 7, "mean": 30}]
    table = prepared(rows(*cells, noise=1.0))
    line = sweep.best(table, ["layers"]).iloc[0]
    assert {line["best"], line["not_told_apart"]} == {"layers=5", "layers=6"}
    assert line["as_good"] == 1
    assert (line["cells"], line["compared"], line["units"]) == (3, 3, 4)


def test_cells_are_compared_on_the_seeds_that_all_have():
    common = rows({"layers": 5, "epochs": 3, "mean": 41.0}, {"layers": 5, "epochs": 4, "mean": 41.0}, splits=3)
    more = rows({"layers": 5, "epochs": 4, "mean": 30.0}, splits=3).assign(seed=1)
    wide = selection.candidates(prepared(pd.concat([common, more], ignore_index=True)), ["epochs"], 10)
    assert wide.to_numpy() == pytest.approx(np.array([[41, 41], [46, 46], [51, 51]]))
    apart = pd.concat(
        [rows({"layers": 5, "epochs": 3, "mean": 41.0}), rows({"layers": 5, "epochs": 4}).assign(seed=1)],
        ignore_index=True,
    )
    (line,) = sweep.best(prepared(apart), ["epochs"]).to_dict("records")
    assert (line["best"], line["units"], line["compared"]) == ("epochs=3", 4, 2)  # of no common seed: the units' means


def test_differences_in_the_lower_panels_are_of_the_same_seeds():
    common = rows(*({"layers": layers, "mean": mean} for layers, mean in ((5, 41.0), (6, 41.0), (7, 42.0))), splits=3)
    more = rows({"layers": 6, "mean": 30.0}, splits=3).assign(seed=1)
    both = prepared(pd.concat([common, more], ignore_index=True))
    ax = panels.differences(both, panels.Levels("layers", "layers", 5, "five layers"))
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines if line.get_marker() == "o"])
    assert drawn == pytest.approx(np.array([0, 0, 1, 1]))  # the last one is the ring


def test_accuracies_on_test_images_are_not_compared_with_those_on_validation_images():
    table = rows({"layers": 5, "epochs": 3, "mean": 41.0}, {"layers": 5, "epochs": 4, "mean": 40.0})
    tested = table.assign(test_top1=table["val_top1"].where(table["epochs"] == 3) - 0.2)
    seen = prepared(tested)
    assert seen["accuracy"].tolist() == pytest.approx((100 * table["val_top1"]).tolist())
    assert sweep_figures._label(seen, "accuracy") == "validation top-1 (%)"
    said = sweep_figures.study(tested, pd.DataFrame()).description
    assert "4 of the runs have no test images: all accuracies are on validation images." in said
    whole = tested.assign(test_top1=table["val_top1"] - 0.2)
    assert prepared(whole)["accuracy"].tolist() == pytest.approx((100 * whole["test_top1"]).tolist())
    assert "test images" not in sweep_figures.study(whole, pd.DataFrame()).description


def test_a_split_that_has_begun_leaves_the_intervals_of_other_cells_as_they_are():
    draw = np.random.default_rng(0)
    wide = pd.DataFrame(draw.normal(np.array([[20], [30], [40], [50]]), 0.3, (4, 4)), columns=list("ABCD"))
    before = sweep.intervals(wide)
    after = sweep.intervals(pd.concat([wide, pd.DataFrame({"A": [60.0]}, index=[4])]))
    pd.testing.assert_frame_equal(before, after)
    two = sweep.intervals(pd.concat([wide, pd.DataFrame({"A": [60.0], "B": [60.3]}, index=[4])]))
    assert ((two["high"] - two["low"]) < 2 * (before["high"] - before["low"])).all()
    assert two.loc["C":].equals(before.loc["C":])


def test_large_numbers_and_close_rates_name_different_cells():
    assert [sweep.text(value) for value in (20240101.0, 5.0, 0.0012345678, 0.001, float("nan"))] == [
        *("20240101", "5", "0.0012345678", "0.001", "none")
    ]
    table = rows({"base.seed": 20240101.0}, {"base.seed": 20240102.0}, SCRATCH | {"base.seed": np.nan})
    assert len(sweep.means(prepared(table), ["base.seed"])) == 3


def test_each_data_set_has_a_best_cell_of_its_own():
    cells = [
        {"layers": layers, "dataset.fingerprint": name, "mean": 40.0 + sign * layers}
        for layers in (4, 5)
        for name, sign in (("aa", 1), ("bb", -1))
    ]
    table = prepared(rows(*cells))
    found = sweep.best(table, sweep.swept(table)).set_index("of")["best"]
    assert found.to_dict() == {"dataset.fingerprint=aa": "layers=5", "dataset.fingerprint=bb": "layers=4"}


def test_folds_are_no_units():
    folds = [
        rows({"layers": 5, "epochs": 3, "mean": 40.0 + fold}, splits=1, seeds=2).assign(fold=fold) for fold in range(5)
    ]
    (line,) = sweep.means(prepared(pd.concat(folds, ignore_index=True)), ["epochs"]).to_dict("records")
    assert (line["runs"], line["units"], line["accuracy"], line["sd"]) == (10, 2, pytest.approx(42), pytest.approx(0))


def test_epochs_that_updates_come_to_name_no_cells():
    cells = [
        {"n_per_class": n, "max_updates": updates, "epochs": {0: 3, 5: 50 // n}[updates]}
        for n in (10, 50)
        for updates in (0, 5)
    ]
    assert sweep.swept(rows(*cells)) == ["n_per_class", "max_updates"]


def test_a_caption_says_which_settings_have_no_line():
    cells: list[dict[str, Any]] = [{"layers": layers, "n_per_class": n} for layers in (5, 7) for n in (10, 50)]
    table = prepared(rows(*cells, {"layers": 3, "n_per_class": 10, "mean": 80.0}))
    said = sweep_figures.caption(table, ["n_per_class", "layers"], "n_per_class", "accuracy")
    assert "Of 3 settings of the other factors, the 2 with most values of n_per_class" in said


def test_one_run_per_cell_has_points_without_intervals_and_says_so(tmp_path: Path, monkeypatch, capsys):
    """README's first sweep, then README's analysis."""
    rows(*FIRST, splits=1).to_csv(tmp_path / "table.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["analysis", "--results", f"{tmp_path}/table.csv", "--out", f"{tmp_path}/out"])
    main()
    said = capsys.readouterr().out
    assert "no section on plested2019: No finished runs with" in said
    assert "no runs of the studies yosinski2014, densenet_transfer" in said
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"sweep_by_layers.png", "sweep_by_n_per_class.svg", "sweep_gap.svg", "sweep_cells.csv"} <= written
    assert not {name for name in written if name.startswith(("fig", "yosinski", "claims"))}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "points without intervals" in page
    assert "nothing can be tested" in page
    assert "Plested" not in page
    assert "Claims" not in page


def test_panels_lines_and_bars():
    figure = sweep_figures.draw(prepared(rows(*FIRST)), ["n_per_class", "layers"], "layers", "accuracy", "title")
    assert [ax.get_title("left") for ax in figure.axes] == ["n_per_class=10", "n_per_class=50"]
    assert not figure.axes[0].patches
    table = prepared(rows({"layers": 6}, SCRATCH))
    figure = sweep_figures.draw(table, ["protocol"], "protocol", "accuracy", "title")
    assert len(figure.axes[0].patches) == 2
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["fine_tune", "scratch"]


def test_full_comes_after_numbers_and_scratch_is_named():
    table = prepared(rows(*[{"layers": 5, "n_per_class": n} for n in ("full", 100, 25)], SCRATCH))
    assert sweep.ordered(table["n_per_class"]) == [10, 25, 100, "full"]
    assert sweep.is_numeric(sweep.ordered(table["n_per_class"]))
    figure = sweep_figures.draw(table, ["n_per_class", "layers"], "layers", "accuracy", "title")
    assert "0\nscratch" in [tick.get_text() for tick in figure.axes[0].get_xticklabels()]


@pytest.mark.parametrize("mark", ["collapsed", "underfitted", "diverged"])
def test_runs_that_need_attention_are_hollow_and_counted(mark):
    table = rows({"layers": 5}, {"layers": 6})
    table.loc[table["layers"] == 6, mark] = True
    assert sweep.means(prepared(table), ["layers"])[mark].tolist() == [0, 4]
    figure = sweep_figures.draw(prepared(table), ["layers"], "layers", "accuracy", "title")
    hollow = [line for line in figure.axes[0].lines if line.get_color() == "white"]
    assert [np.asarray(line.get_xdata()).tolist() for line in hollow] == [[1.0]]
    assert "Hollow" in sweep_figures.caption(prepared(table), ["layers"], "layers", "accuracy")


def test_of_many_settings_those_with_most_levels_are_shown():
    """Eight high_lr_layers at one layer, and four layers at two of them: the figure of layers shows these two."""
    cells = [{"layers": 6, "high_lr_layers": k, "protocol": None} for k in range(1, 9)]
    cells += [{"layers": m, "high_lr_layers": k, "protocol": None} for m in (4, 5, 7) for k in (1, 8)]
    table = prepared(rows(*cells))
    seen = sweep_figures.view(table, ["n_per_class", "layers", "high_lr_layers"], "layers")
    assert sorted(seen.rows["line"].unique()) == ["high_lr_layers=1", "high_lr_layers=8"]
    assert (seen.panels, seen.settings) == ("n_per_class", 8)


def test_curves_are_drawn_where_runs_have_one():
    table = rows({"layers": 5}, {"layers": 6})
    points = [
        {"run_id": id, "epoch": e, "train_loss": 2.0, "val_loss": 2.0, "val_top1": 0.3}
        for id in table["run_id"][:2]
        for e in (1, 2)
    ]
    names = [figure.name for figure in sweep_figures.study(table, pd.DataFrame(points)).figures]
    assert "curves" in names
    assert "curves" not in [figure.name for figure in sweep_figures.study(table, pd.DataFrame()).figures]
    figure = sweep_figures.draw_curves(prepared(table), ["layers"], pd.DataFrame(points))
    assert [len(np.asarray(line.get_xdata())) for line in figure.axes[0].lines] == [2]


def test_the_papers_sections_stand_before_the_sweep_where_rows_speak_to_them():
    collected = report.collect(synthetic.table(synthetic.paper, splits=2, sizes=(10,)), STUDIES)
    assert collected.sections[-1].study.name == "sweep"
    assert "plested2019" in [part.study.name for part in collected.parts]
    assert len(collected.sweep.used) == collected.rows


@pytest.mark.parametrize("query", ["layers ==", "nothing == 3", "layers = 3", "layers + 1", "1"])
def test_a_query_that_is_none_is_one_line(tmp_path: Path, monkeypatch, query: str):
    rows(*FIRST, splits=1).to_csv(tmp_path / "table.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["analysis", "--results", f"{tmp_path}/table.csv", "--query", query])
    with pytest.raises(SystemExit) as ended:
        main()
    assert str(ended.value).startswith(f"query={query}: is no query of this table")
    assert "\n" not in str(ended.value)


def test_a_curve_ends_where_the_first_of_its_runs_ends():
    """One run has three epochs at 90%, the other nine at 10%: no epoch has the mean of one of them alone."""
    table = rows({"layers": 5}, {"layers": 6}, splits=2)
    points = [
        {"run_id": id, "epoch": e, "train_loss": 2.0, "val_loss": 2.0, "val_top1": top1}
        for id, last, top1 in zip(table["run_id"], (3, 9, 3, 3), (0.9, 0.1, 0.4, 0.4), strict=True)
        for e in range(1, last + 1)
    ]
    figure = sweep_figures.draw_curves(prepared(table), ["layers"], pd.DataFrame(points))
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}
    assert {name: values.round(6).tolist() for name, values in drawn.items()} == {
        "layers=5": [50, 50, 50],
        "layers=6": [40, 40, 40],
    }


def test_cells_with_curves_are_ranked_by_their_runs():
    """layers=1 has 40% and 80%, 60 in the mean of its runs, and 44 in that of its epochs; six others have 50%."""
    table = rows(*({"layers": layers} for layers in range(1, 8)), splits=2)
    table["val_top1"] = np.where(table["layers"] == 1, np.where(table["split"] == 0, 0.4, 0.8), 0.5)
    points = [
        {"run_id": id, "epoch": e, "train_loss": 2.0, "val_loss": 2.0, "val_top1": 0.3}
        for id, first in zip(table["run_id"], (table["layers"] == 1) & (table["split"] == 0), strict=True)
        for e in range(1, 10 if first else 2)
    ]
    figure = sweep_figures.draw_curves(prepared(table), ["layers"], pd.DataFrame(points))
    assert "layers=1" in [line.get_label() for line in figure.axes[0].lines]


def test_a_base_counts_once_in_the_facts():
    """Two bases of one unit and seed, at 20% and 60%; two of the three runs have the first."""
    table = rows({"layers": 5}, {"layers": 6}, splits=1).assign(base_id=["a", "b"], base_top1=[0.2, 0.6])
    table = pd.concat([table, table.head(1).assign(run_id="c", freeze=1)], ignore_index=True)
    said = dict(provenance.facts(prepared(table), ("split", "target"), len(table)))
    assert said["base networks"] == "top-1 40.0% (20.0 to 60.0) on their own classes"
