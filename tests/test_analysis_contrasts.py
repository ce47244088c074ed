"""The declared contrasts: four verdicts, on tables whose truth is known."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.contrasts import ALPHA, VERDICTS, Contrast, decide
from analysis.frame import Missing, cells
from analysis.plested2019 import STUDY, experiments, large_n, side_by_side
from analysis.plested2019.contrasts import PRIMARY
from analysis.plested2019.experiments import COMMON, OPTIMAL
from analysis.plested2019.seen_before import statistics
from analysis.report import shown
from tests import synthetic
from tlprotocols.results import load

NO_ROWS = pd.DataFrame()
RESULTS = Path(__file__).parents[1] / "results" / "tiny_imagenet_2"


def contrast(values, direction=1, margin=1.0, name="a"):
    series = pd.Series(
        values, index=pd.MultiIndex.from_tuples([(u, 0) for u in range(len(values))], names=["unit", "seed"])
    )
    return Contrast(name, "sec. 0", "sentence", "statistic", direction, None, margin, "points", lambda rows: series)


@pytest.mark.parametrize(
    ("values", "direction", "verdict"),
    [
        ([5.0, 5.1, 4.9, 5.2], 1, "supported"),
        ([5.0, 5.1, 4.9, 5.2], -1, "contradicted"),
        ([-5.0, -5.1, -4.9, -5.2], -1, "supported"),
        ([0.1, -0.1, 0.05, -0.05], 1, "no effect of the paper's size"),
        ([5.0, -4.0, 3.0, -2.0], 1, "undecided"),
        ([-3.0, -2.0, -8.0, 1.0], 1, "undecided"),
    ],
)
def test_each_of_the_four_verdicts(values, direction, verdict):
    (row,) = decide([contrast(values, direction)], NO_ROWS).to_dict("records")
    assert row["verdict"] == verdict
    assert row["verdict"] in VERDICTS
    assert bool(row["more_data"]) is (verdict == "undecided")


def test_a_family_is_holm_adjusted_and_its_intervals_are_wider():
    one = decide([contrast([1.0, 2.0, 1.5, 1.2])], NO_ROWS).iloc[0]
    ten = decide([contrast([1.0, 2.0, 1.5, 1.2], name=str(k)) for k in range(10)], NO_ROWS).iloc[0]
    assert ten["p_holm"] == pytest.approx(min(1, 10 * one["p"]))
    assert ten["family_low"] < one["family_low"] < one["effect"]
    assert (ten["low"], ten["high"]) == (one["low"], one["high"])


def test_a_contrast_that_was_not_run_says_so():
    def missing(rows):
        raise Missing("No finished runs with layers=6.")

    absent = Contrast("b", "", "", "", 1, None, 1.0, "points", missing)
    some = decide([absent, contrast([1.0, 2.0])], NO_ROWS)
    assert shown(some, ["units"]) == {"units": ["", "2"]}
    rows = decide([absent, contrast([1.0])], NO_ROWS)
    assert rows["verdict"].tolist() == ["undecided", "undecided"]
    assert rows["more_data"].tolist() == [
        "not run: No finished runs with layers=6.",
        "not run: Fewer than two units are finished.",
    ]


def test_the_declared_family_has_ten_contrasts_with_directions_and_margins():
    assert len(PRIMARY) == 10
    assert len({c.name for c in PRIMARY}) == 10
    for c in PRIMARY:
        assert c.direction in (1, -1)
        assert c.margin > 0
        assert c.paper is None or c.margin == pytest.approx(c.paper / 2)


def verdicts(truth):
    rows = STUDY.rows(synthetic.table(truth, noise=0.05, sizes=(10, 25, 50, 100)))
    return decide(PRIMARY, rows).set_index("contrast")["verdict"]


def test_in_the_papers_world_the_contrasts_are_supported():
    found = verdicts(synthetic.paper)
    expected = {c.name for c in PRIMARY} - {"optimal_at_10", "common_over_none"}  # not printed so in that world
    assert {name for name in expected if found[name] == "supported"} == expected


def test_in_the_mirrored_world_they_are_contradicted():
    found = verdicts(synthetic.mirrored)
    assert found["one_high_layer"] == found["low_decay"] == found["gap_over_layers"] == "contradicted"


@pytest.mark.parametrize("units", [4, 8])
def test_under_the_null_a_family_says_something_false_in_at_most_five_percent_of_studies(units):
    """The real size: 400 studies of ten contrasts without any effect; five percent plus three standard errors."""
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        family = [contrast(draw.normal(0, 1, units), name=str(k)) for k in range(10)]
        wrong += bool(decide(family, NO_ROWS)["verdict"].isin(["supported", "contradicted"]).any())
    assert wrong / 400 <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 400)


def test_the_spread_is_pooled_over_contrasts_in_one_unit():
    noisy, calm = contrast([5.0, -4.0, 3.0, -2.0], name="noisy"), contrast([1.0, 1.2, 0.9, 1.1, 0.8], name="calm")
    other = dataclasses.replace(contrast([9.0, -9.0, 9.0], name="other"), unit="nats")
    table = decide([noisy, calm, other], NO_ROWS)
    expected = math.sqrt((3 * np.var([5, -4, 3, -2], ddof=1) + 4 * np.var([1, 1.2, 0.9, 1.1, 0.8], ddof=1)) / 7)
    assert table["pooled_sd"].tolist() == pytest.approx([expected, expected, table["sd"].iloc[2]])


def test_what_would_decide_is_a_range_from_the_pooled_to_the_own_spread():
    noisy, calm = contrast([5.0, -4.0, 3.0, -2.0], name="noisy"), contrast([1.0, 1.2, 0.9, 1.1, 0.8], name="calm")
    more = str(decide([noisy, calm], NO_ROWS).set_index("contrast").loc["noisy", "more_data"])
    found = re.search(r"(\d+) to (\d+) if it is the margin", more)
    assert found is not None
    low, high = map(int, found.groups())
    assert low < high
    alone = str(decide([noisy], NO_ROWS).iloc[0]["more_data"])
    assert re.search(r"(\d+) if it is the margin", alone)


def test_what_the_first_miniature_showed_is_measured_by_unit():
    rows = STUDY.rows(synthetic.table(synthetic.paper, splits=2, sizes=(10, 25)))
    found = {(name, n): values for name, n, values in statistics(rows)}
    name = "accuracy: optimal (Table 2) minus commonly used"
    wide = cells(experiments.protocols(rows), "protocol")
    for n in (10, 25):
        assert found[name, str(n)].tolist() == (wide[n, OPTIMAL] - wide[n, COMMON]).tolist()
        default, of = (
            found["accuracy: default minus commonly used", str(n)],
            "accuracy: default minus optimal (Table 2)",
        )
        assert (default - found[of, str(n)]).tolist() == pytest.approx(found[name, str(n)].tolist())
        both = experiments.freeze(rows).query(f"n_per_class == {n}").pivot_table("accuracy", "unit", "freeze")
        assert found["accuracy: 4 frozen minus none", str(n)].mean() == pytest.approx((both[4] - both[0]).mean())
    assert found["gap: slope over layers at the high rate", "10"].notna().all()


def test_the_units_that_are_new_in_a_second_study_are_shown_alone():
    rows = STUDY.rows(synthetic.table(synthetic.paper, splits=2, sizes=(10, 25)))
    first, new = rows[(rows.target == "B") & (rows.split == 0)], rows[(rows.target == "A") | (rows.split == 1)]
    table = side_by_side.contrasts(first, rows).set_index("contrast")
    alone = decide(PRIMARY, new).set_index("contrast")
    assert table["units_new"].tolist() == [3] * 10 != table["units_2"].tolist() == [4] * 10
    assert table["effect_new"].tolist() == alone["effect"].tolist() != table["effect_2"].tolist()
    assert table["verdict_new"].tolist() == alone["verdict"].tolist()


@pytest.mark.parametrize("n", ["250", "500"])
def test_differences_at_large_n_are_those_of_the_claims_where_both_have_them(n):
    rows = STUDY.rows(load(RESULTS / f"rows_{n}.csv"))
    claims = pd.read_csv(RESULTS / f"claims_{n}.csv").set_index("claim")
    found = pd.DataFrame(large_n.measured(rows)).set_index("difference")
    pairs = {
        "optimal_beats_common": "optimal (Table 2) minus commonly used",
        "all_high_too_aggressive": "6 layers, 30 epochs: one layer high minus eight",
        "four_layers_worse_when_one_high": "one high, 5 epochs: 5 and 6 layers minus 4",
        "low_decay_better_but_for_full": "mean over 4 to 7 layers, one high: 5 minus 30 epochs",
        "five_layers_beat_seven": "all high, 30 epochs: 5 layers minus 7",
    }
    for claim, difference in pairs.items():
        wanted = [claims.loc[claim, name] for name in ("effect", "low", "high", "units")]
        assert [found[name][difference] for name in ("mean", "low", "high", "units")] == pytest.approx(wanted), claim


def test_a_difference_needs_two_units_that_have_all_of_its_settings():
    rows = load(RESULTS / "rows_250.csv").query("split == 0 or layers != 4")
    found = {line["difference"]: line["units"] for line in large_n.measured(STUDY.rows(rows))}
    assert set(found.values()) == {4}
    assert len(found) == 6  # of nine: three have four layers in them
