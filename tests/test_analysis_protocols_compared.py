"""The study of protocols: its sweeps make its protocols, and its declared contrasts follow the rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.contrasts import decide
from analysis.protocols_compared import FIGURE, STUDY
from analysis.protocols_compared import conditions as c
from analysis.protocols_compared.contrasts import OPTIMUM, PAPERS
from analysis.verdicts import evaluate
from tlprotocols.config.compose import composer
from tlprotocols.config.identity import factors, run_id
from tlprotocols.config.studies import cells_by_sweep
from tlprotocols.config.validate import head_epochs

SWEEPS = Path(__file__).parents[1] / "sweeps"
NAMES = {
    **{"scratch": c.SCRATCH, "commonly_used": c.COMMON, "fine_tune": c.FINE_TUNE, "optimal": c.OPTIMAL},
    **{"linear_probe": c.PROBE, "lp_ft": c.LP_FT, "l2_sp": c.L2_SP, "gradual": c.GRADUAL, "layer_decay": c.LAYER_DECAY},
    **{"bit": c.BIT, "freeze=0": c.FIRST, "freeze=2": c.MIDDLE, "freeze=5": c.LAST},
}
AS_PUBLISHED = dict.fromkeys(NAMES.values(), 23.0) | {c.OPTIMAL: 30.0, c.COMMON: 20.0, c.FIRST: 10.0, c.PROBE: 15.0}
REVERSED = dict.fromkeys(NAMES.values(), 16.0) | {c.OPTIMAL: 10.0, c.COMMON: 20.0, c.FIRST: 22.0, c.PROBE: 25.0}


def name_of(cell):
    """The protocol that a cell of a sweep asks for, by its overrides."""
    values = dict(text.split("=", 1) for text in cell)
    return NAMES[values["protocol"] if values["protocol"] != "surgical" else f"freeze={values['freeze']}"]


@pytest.fixture(scope="module")
def planned():
    """The factors of every cell of the miniature, and the protocol that was named."""
    compose = composer()
    found = [cell for sweep in cells_by_sweep(SWEEPS / "tiny_protocols_compared.yaml", []).values() for cell in sweep]
    rows = [factors(config := compose(cell)) | {"run_id": run_id(config), "named": name_of(cell)} for cell in found]
    return pd.DataFrame(row | {"head_epochs": head_epochs(row.get("head_epochs", 0), row["epochs"])} for row in rows)


def rows(planned, truth):
    """Rows with these accuracies by protocol, in percent."""
    draws = np.random.default_rng(1).normal(0, 0.2, len(planned))
    luck = planned["split"] + (planned["target"] == "A") / 2
    top1 = (planned["named"].map(truth) + luck + draws) / 100
    return STUDY.rows(planned.assign(val_top1=0.1, test_top1=top1, val_loss=1.0, train_loss=0.9, role="run"))


def test_every_protocol_is_known_by_its_factors(planned):
    found = c.named(rows(planned, AS_PUBLISHED))
    assert len(found) == len(planned) == 13 * 2 * 4 * 2
    assert (found["protocol"] == found["named"]).all()
    assert set(found.groupby(["protocol", "n_per_class"])["unit"].nunique()) == {8}
    assert planned["run_id"].is_unique


def test_the_figure_names_every_protocol_at_every_size(planned):
    lower = FIGURE.differences(rows(planned, AS_PUBLISHED))
    ticks = lower.get_xticklabels(minor=True)
    assert sorted(tick.get_text() for tick in ticks) == sorted(2 * list(NAMES.values()))
    assert {tick.get_rotation() for tick in ticks} == {90.0}
    assert all(len(np.asarray(line.get_xdata())) <= 2 for line in lower.lines)  # no line joins names


def test_rows_of_another_recipe_are_no_protocols(planned):
    more = planned[planned["named"] == c.COMMON].assign(dropout=0.5)
    found = c.named(rows(pd.concat([planned, more], ignore_index=True), AS_PUBLISHED))
    assert set(found.loc[found["protocol"] == c.COMMON, "dropout"]) == {0.2}


@pytest.mark.parametrize(("truth", "verdict"), [(AS_PUBLISHED, "supported"), (REVERSED, "contradicted")])
def test_contrasts_follow_the_rows(planned, truth, verdict):
    for family in (PAPERS, OPTIMUM):
        table = decide(family, rows(planned, truth))
        assert set(table["verdict"]) == {verdict}, table[["contrast", "verdict"]]
        assert set(table["units"]) == {8}
    assert set(evaluate(STUDY.claims, rows(planned, truth))["verdict"]) == {verdict}


def test_contrasts_without_rows_are_undecided(planned):
    table = decide(OPTIMUM, rows(planned[planned["named"] != c.OPTIMAL], AS_PUBLISHED))
    assert set(table["verdict"]) == {"undecided"}
    assert table["more_data"].str.contains("optimal").all()


def test_the_families_are_the_declared_ones():
    """Changing them after rows exist is a change of the study, to be seen in a diff of this file."""
    assert [contrast.name for contrast in PAPERS] == [
        *("lp_ft", "tuning", "l2_sp", "surgical", "last_block", "gradual", "layer_decay", "bit")
    ]
    assert len({contrast.name for contrast in OPTIMUM}) == 9


def test_the_report_has_the_figure_and_both_families(planned, tmp_path):
    found = rows(planned, AS_PUBLISHED).drop(columns=["accuracy", "gap", "unit", "val_accuracy", "named"])
    written = {path.name for path in report.write(report.collect(found, (STUDY,)), tmp_path)}
    assert {"compared_accuracy.png", "compared_contrasts.csv", "compared_optimum.csv"} <= written


def test_a_table_of_another_study_has_no_section(planned):
    other = planned[planned["named"].isin([c.SCRATCH, c.COMMON, c.OPTIMAL])].assign(val_top1=0.1)
    assert not report.collect(other.assign(val_loss=1.0, train_loss=0.9), (STUDY,)).parts
