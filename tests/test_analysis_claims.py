"""Claims on planted tables: true, false and too noisy ones get the right verdict."""

import pandas as pd
import pytest

from analysis import claims
from analysis.claims import CLAIMS, verdicts
from analysis.study import Missing
from tests import planted

FACTS = {"full_has_1000_a_class": "contradicted", "ten_epochs_are_one": "supported"}
# what the paper says of its figures and its figures do not: protocol as its text has it makes these false
NOT_IN_ITS_FIGURES = {"fig3_read_by_its_caption", "overestimated_small_underestimated_large"}
# what stays true, or becomes it, when every effect of the paper is reversed
SURVIVES = {*NOT_IN_ITS_FIGURES, "layers_misestimated", "smaller_wants_fewer_updates"}


def _found(table: pd.DataFrame) -> dict[str, str]:
    return dict(verdicts(table)[["claim", "verdict"]].itertuples(index=False))


def _expected(usual: str, other: set[str], otherwise: str) -> dict[str, str]:
    return {c.name: FACTS.get(c.name, otherwise if c.name in other else usual) for c in CLAIMS}


def test_every_claim_has_a_sentence():
    assert len(CLAIMS) == len({c.name for c in CLAIMS}) == 40
    assert all(c.quote and c.where and c.statistic for c in CLAIMS)


def test_true_claims_are_supported():
    found = _found(planted.table(planted.paper, noise=0.05))
    assert found == _expected("supported", NOT_IN_ITS_FIGURES, "contradicted")


def test_false_claims_are_contradicted():
    found = _found(planted.table(planted.mirrored, noise=0.05))
    assert found == _expected("contradicted", SURVIVES, "supported")


def test_an_optimum_that_never_moves_contradicts_those_that_move():
    found = _found(planted.table(planted.settled, noise=0.05))
    assert found["layers_misestimated"] == "contradicted"
    assert found["smaller_wants_fewer_updates"] == "contradicted"


def test_noise_decides_nothing_and_says_what_would():
    told = verdicts(planted.table(planted.paper, noise=8, splits=2))
    assert dict(told[["claim", "verdict"]].itertuples(index=False)) == _expected("undecided", set(), "")
    assert told[told["verdict"] == "undecided"]["more_data"].str.contains("splits|No number").all()


def test_a_scaled_study_needs_no_thirty():
    """A third of the epochs, lr.step 10: the same claims."""
    table = planted.table(planted.paper, noise=0.05, sizes=(10, 25, 50, 100), scale=3)
    found = verdicts(table).set_index("claim")
    assert found.loc["optimal_beats_common", "verdict"] == "supported"
    assert found.loc["step_epochs_too_aggressive", "verdict"] == "supported"
    assert "full" in found.loc["step_epochs_best_on_full", "more_data"]


def test_one_experiment_alone():
    table = planted.table(planted.paper, noise=0.05).query("layers == 6 and freeze == 0 and high_lr_layers == 1")
    found = verdicts(table).set_index("claim")
    assert found.loc["few_epochs_best_when_medium", "verdict"] == "supported"
    assert found.loc["five_layers_beat_seven", "more_data"].startswith("No finished runs")


def test_one_split_decides_nothing():
    table = planted.table(planted.paper, noise=0.05).query("split == 0 and target == 'B'")
    found = verdicts(table).query("claim not in @FACTS")
    assert (found["verdict"] == "undecided").all()


def test_an_empty_table_says_so():
    with pytest.raises(Missing, match="no rows"):
        claims.verdicts(planted.table(planted.paper).head(0))
