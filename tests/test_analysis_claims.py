"""Claims on synthetic tables: true, false and too noisy ones get the right verdict."""

import dataclasses

import pandas as pd
import pytest

from analysis.evidence import greater
from analysis.frame import Missing
from analysis.plested2019 import STUDY
from analysis.verdicts import evaluate, more_data
from tests import synthetic

FACTS = {"full_has_1000_a_class": "false", "ten_epochs_are_one": "true"}  # no tests, so no verdicts
# claims of the text that the paper's own figures contradict; synthetic.paper follows the figures
NOT_IN_ITS_FIGURES = {"fig3_read_by_its_caption", "overestimated_small_underestimated_large"}
# what stays true, or becomes it, when every effect of the paper is reversed
SURVIVES = {*NOT_IN_ITS_FIGURES, "layers_misestimated", "smaller_wants_fewer_updates"}


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    return evaluate(STUDY.claims, rows)


def _by_claim(rows: pd.DataFrame) -> dict[str, str]:
    return dict(verdicts(rows)[["claim", "verdict"]].itertuples(index=False))


def _expected(usual: str, other: set[str], otherwise: str) -> dict[str, str]:
    return {c.name: FACTS.get(c.name, otherwise if c.name in other else usual) for c in STUDY.claims}


def test_every_claim_has_a_sentence():
    assert len(STUDY.claims) == len({c.name for c in STUDY.claims}) == 41
    assert all(c.quote and c.where and c.statistic for c in STUDY.claims)


def test_true_claims_are_supported():
    result = _by_claim(synthetic.rows(synthetic.paper, noise=0.05))
    assert result == _expected("supported", NOT_IN_ITS_FIGURES, "contradicted")


def test_false_claims_are_contradicted():
    result = _by_claim(synthetic.rows(synthetic.mirrored, noise=0.05))
    assert result == _expected("contradicted", SURVIVES, "supported")


def test_an_optimum_that_never_moves_contradicts_those_that_move():
    result = _by_claim(synthetic.rows(synthetic.settled, noise=0.05))
    assert result["layers_misestimated"] == "contradicted"
    assert result["smaller_wants_fewer_updates"] == "contradicted"


def test_noise_decides_nothing_and_more_data_says_what_would():
    table = verdicts(synthetic.rows(synthetic.paper, noise=8, splits=2))
    assert dict(table[["claim", "verdict"]].itertuples(index=False)) == _expected("undecided", set(), "")
    assert table[table["verdict"] == "undecided"]["more_data"].str.contains("splits|No number").all()


def test_a_scaled_study_needs_no_thirty():
    """A third of the epochs, lr.step 10: the same claims."""
    table = synthetic.rows(synthetic.paper, noise=0.05, sizes=(10, 25, 50, 100), scale=3)
    result = verdicts(table).set_index("claim")
    assert result.loc["optimal_beats_common", "verdict"] == "supported"
    assert result.loc["step_epochs_too_aggressive", "verdict"] == "supported"
    assert "full" in result["more_data"]["step_epochs_best_on_full"]


def test_a_table_of_one_size_names_the_sizes_not_tested():
    result = verdicts(synthetic.rows(synthetic.paper, noise=0.05, sizes=(10,))).set_index("claim")
    assert result.loc["optimal_beats_common", "verdict"] == "supported"
    assert result.loc["optimal_beats_common", "more_data"] == "Not tested at n=25, 50, 100, 250, 500, full."
    assert "two or more numbers" in result["more_data"]["optimal_matters_most_when_small"]


def test_half_of_a_sentence_can_be_false_and_not_true():
    """Overestimated for small sets, underestimated for large ones: without the whole set there is no large one."""
    name, sizes = "overestimated_small_underestimated_large", (10, 25, 50, 100)
    assert _by_claim(synthetic.rows(synthetic.paper, noise=0.05, sizes=sizes))[name] == "contradicted"
    swapped = synthetic.rows(synthetic.paper, noise=0.05, sizes=sizes)
    high = swapped["high_lr_layers"] == 8
    swapped.loc[high, "layers"] = swapped.loc[high, "layers"].replace({5: 7, 7: 5})
    assert _by_claim(swapped)[name] == "undecided"


def test_an_unfinished_size_does_not_hide_a_finished_one():
    """Of n=100 only Figs. 1 and 6 are finished: the other experiments give the same for 10, 25 and 50 as without it."""
    whole = synthetic.rows(synthetic.paper, noise=0.05, sizes=(10, 25, 50, 100))
    unfinished = whole.query("n_per_class != 100 or high_lr_layers == 8 or (freeze == 1 and decay_epochs == 3)")
    without = whole.query("n_per_class != 100")
    names = ["decay_gain_biggest_when_smallest", "smaller_wants_more_epochs", "smaller_wants_fewer_updates"]
    for name in names:
        one, other = (verdicts(table).set_index("claim").loc[name] for table in (unfinished, without))
        assert (one["effect"], one["p"], one["label"]) == (other["effect"], other["p"], other["label"])


def test_seeds_of_one_split_are_distinguished_from_splits():
    table = synthetic.table(synthetic.paper, noise=0.05)
    unit = table.groupby(["split", "target"], sort=False).ngroup()
    result = verdicts(STUDY.rows(table.assign(seed=unit, split=0, target="B")))
    tested = result[result["units"] > 0]
    assert tested["more_data"].str.contains("All seeds belong to one class split").all()
    assert not verdicts(STUDY.rows(table))["more_data"].str.contains("All seeds").any()


def test_more_data_counts_the_comparisons():
    evidence = dataclasses.replace(greater(pd.Series([1.0, 2.0, 3.0, 6.0]), "here"), distance=1.0, sd=1.0)
    alone, of_seven = (more_data(dataclasses.replace(evidence, tests=tests), 0.05) for tests in (1, 7))
    assert alone == "Needs about 10 splits, 6 more: effect 1 from the threshold, sd 1 over splits (here)."
    assert "Needs about 16 splits, 12 more" in of_seven


def test_one_experiment_alone():
    table = synthetic.rows(synthetic.paper, noise=0.05).query("layers == 6 and freeze == 0 and high_lr_layers == 1")
    result = verdicts(table).set_index("claim")
    assert result.loc["few_epochs_best_when_medium", "verdict"] == "supported"
    assert result["more_data"]["five_layers_beat_seven"].startswith("No finished runs")


def test_one_split_decides_nothing():
    table = synthetic.rows(synthetic.paper, noise=0.05).query("split == 0 and target == 'B'")
    result = verdicts(table).query("claim not in @FACTS")
    assert (result["verdict"] == "undecided").all()


def test_an_empty_table_says_so():
    with pytest.raises(Missing, match="no rows"):
        STUDY.rows(synthetic.table(synthetic.paper).head(0))
