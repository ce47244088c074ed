"""The study of DenseNet-121 on CIFAR-10: its sweeps make its conditions, and its claims follow the rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.densenet_transfer import STUDY
from analysis.densenet_transfer.conditions import CONDITIONS, conditions, summary, wide
from analysis.densenet_transfer.figure import accuracy
from analysis.frame import Missing
from analysis.verdicts import evaluate
from tlprotocols.config.compose import composer
from tlprotocols.config.identity import factors, run_id
from tlprotocols.config.studies import cells

SWEEPS = Path(__file__).parents[1] / "sweeps"
AS_PRINTED = {  # accuracies in percent in which every sentence of the text is true
    **{"a": 88.5, "b": 87.5, "c": 87.5, "d": 88.5, "e": 80.0, "f": 83.0, "g": 88.0},
    **{"h": 90.0, "i": 84.0, "j": 89.0, "j32": 82.0, "k": 60.0, "k32": 55.0},
}
REVERSED = {  # in which none is
    **{"a": 80.0, "b": 82.0, "c": 82.0, "d": 82.0, "e": 84.0, "f": 83.0, "g": 84.0},
    **{"h": 70.0, "i": 82.0, "j": 70.0, "j32": 70.0, "k": 85.0, "k32": 85.0},
}


@pytest.fixture(scope="module")
def planned():
    """The factors of every cell of the miniature."""
    compose = composer()
    configs = [compose(cell) for cell in cells(SWEEPS / "tiny_densenet_transfer.yaml", [])]
    return pd.DataFrame([factors(config) | {"run_id": run_id(config)} for config in configs])


def rows(planned, truth, near=3, fall=6, train=0.5):
    """Rows with these accuracies by condition; training accuracy is `train` points above validation accuracy."""
    table = planned.assign(val_loss=1.0, train_loss=0.9, val_top1=0.5, epochs_trained=10, trainable_parameters=1)
    named = conditions(table.assign(val_top1=np.where(table["lr.high"] == 0.0003, 0.6, 0.5)))
    luck = dict(enumerate(np.random.default_rng(3).normal(0, 0.1, 4)))
    for name, part in named.groupby("condition"):
        for index, seed in part["seed"].items():
            noise = np.random.default_rng([index, seed]).normal(0, 0.05)
            table.loc[index, "val_top1"] = (truth[name] + luck[seed] + noise) / 100
    rest = ~table.index.isin(named.index)
    table.loc[rest, "val_top1"] = 0.3
    table["epochs_to_near_best"] = near + np.array([0.0, 0.1, 0.0, 0.1])[table["seed"]]
    table["epochs_to_first_fall"] = fall + np.array([0.1, 0.0, 0.0, 0.1])[table["seed"]]
    table["train_top1"] = table["val_top1"] + (train + np.array([0.0, 0.1, 0.2, 0.1])[table["seed"]]) / 100
    return STUDY.rows(table.assign(test_top1=table["val_top1"]))


def test_every_condition_has_a_run_per_seed(planned):
    named = conditions(STUDY.rows(planned.assign(val_top1=0.5, val_loss=1.0, train_loss=1.0)))
    counts = named.groupby("condition")["seed"].agg(["nunique", "size"])
    assert set(counts.index) == set(CONDITIONS)
    assert set(counts["nunique"]) == set(counts["size"]) == {4}


def test_the_main_condition_is_the_texts(planned):
    (row,) = conditions(rows(planned, AS_PRINTED)).query("condition == 'a' and seed == 0").to_dict("records")
    assert row["head"] == "512,128"
    assert (row["layers"], row["freeze"], row["high_lr_layers"]) == (8, 8, 1)
    assert row["dropout"] > 0
    assert row["stop_after"] > 0
    assert row["schedule"] == "plateau"
    assert row["dataset.upscale"] == 64


def test_the_best_native_setting_is_chosen_by_validation_alone(planned):
    table = rows(planned, AS_PRINTED)
    native = (table["dataset.upscale"] == 0) & (table["freeze"] == 8) & (table["augment"] == "none")
    table.loc[native & (table["head"] == "256") & (table["stop_after"] > 0) & (table["dropout"] == 0), "val_top1"] = (
        0.99
    )
    table.loc[native & (table["head"] == "512,128"), "test_top1"] = 1.0
    chosen = conditions(table).query("condition == 'f'")
    assert set(chosen["head"]) == {"256"}
    assert set(chosen["dropout"]) == {0.0}


def test_every_claim_is_supported_where_the_text_is_right(planned):
    table = evaluate(STUDY.claims, rows(planned, AS_PRINTED))
    assert set(table.set_index("claim")["verdict"]) == {"supported"}


def test_every_claim_is_contradicted_where_it_is_wrong(planned):
    table = evaluate(STUDY.claims, rows(planned, REVERSED, near=8, fall=2, train=9))
    wrong = table[table["verdict"] != "contradicted"]
    assert list(wrong["claim"]) == []


def test_claims_without_rows_are_undecided(planned):
    found = rows(planned, AS_PRINTED)
    table = evaluate(STUDY.claims, found[found["freeze"] == 0]).set_index("claim")
    assert set(table["verdict"]) == {"undecided"}
    assert "condition a" in str(table.loc["two_layers_beat_one", "more_data"])


def test_the_summary_has_a_row_per_condition_and_the_printed_numbers(planned):
    table = summary(rows(planned, AS_PRINTED)).set_index("condition")
    assert list(table.index) == list(CONDITIONS)
    assert table.loc["a", "test %"] == pytest.approx(88.5, abs=0.3)
    assert table.loc["a", "text, validation %"] == "88.5"
    assert table.loc["a", "seeds"] == 4


def test_the_report_has_the_figure_and_the_table(planned, tmp_path):
    found = rows(planned, AS_PRINTED).drop(columns=["accuracy", "gap", "unit", "val_accuracy"])
    written = {path.name for path in report.write(report.collect(found, (STUDY,)), tmp_path)}
    assert {"densenet_transfer_conditions.png", "densenet_transfer_claims.csv", "report.html"} <= written


def test_rows_of_other_networks_are_no_conditions(planned):
    with pytest.raises(Missing):
        STUDY.rows(planned.assign(model="resnet18", val_top1=0.5, val_loss=1.0, train_loss=1.0))
    assert wide(rows(planned, AS_PRINTED)).shape == (4, len(CONDITIONS))


def test_the_published_numbers_are_the_texts():
    numbers = STUDY.published().set_index("metric")["value"]
    assert "88.5" in set(numbers["CIFAR-10 validation accuracy"].astype(str))


def test_the_figure_says_on_which_images_accuracy_is(planned):
    table = rows(planned, AS_PRINTED)
    assert accuracy(table).get_xlabel() == "test top-1 (%)"
    assert accuracy(STUDY.rows(table.assign(test_top1=np.nan))).get_xlabel() == "validation top-1 (%)"
