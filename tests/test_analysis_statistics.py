"""Paired statistics against values computed by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from analysis import evidence
from analysis.statistics import holm, paired, sign_flip, slopes, units_needed


def test_paired_by_hand():
    """1, 2, 3, 6: mean 3, sd sqrt(14/3), t = 3/1.0801 = 2.7775, two-sided p 0.0691 (3 degrees of freedom)."""
    d = paired([1.0, 2.0, 3.0, 6.0])
    assert d.mean == 3
    assert d.sd == pytest.approx(math.sqrt(14 / 3))
    assert d.low == pytest.approx(3 - 3.18245 * math.sqrt(14 / 3) / 2, abs=1e-4)
    assert 2 * d.p_above == pytest.approx(0.0691, abs=1e-4)
    assert d.p_above + d.p_below == pytest.approx(1)


def test_seeds_are_averaged_within_a_split():
    index = pd.MultiIndex.from_product([[0, 1], [0, 1]], names=["unit", "seed"])
    d = paired(pd.Series([1.0, 3.0, 4.0, 6.0], index))
    assert (d.units, d.mean) == (2, 3.5)
    assert d.sd == pytest.approx(3 / math.sqrt(2))
    with pytest.raises(ValueError, match="two units"):
        paired(pd.Series([1.0, 3.0], index[:2]))


def _share_of_sign_flips(values):
    """Of all assignments of signs, the share whose mean is at least as far from 0 as the observed one."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    return float((abs(signs @ values) >= abs(values.sum()) - 1e-12).mean())


def test_sign_flip_is_exact():
    """Differences of accuracies on 2,500 images are multiples of 0.04 points, so that many means are equal."""
    random = np.random.default_rng(0)
    for n in range(2, 9):
        for values in (random.normal(size=n), 0.04 * random.integers(-5, 6, n)):
            assert sign_flip(values) == pytest.approx(_share_of_sign_flips(values), abs=1e-12)


def test_sign_flip_by_hand():
    assert sign_flip(np.array([1.0, 2.0, 3.0, 6.0])) == 2 / 16
    assert sign_flip(np.array([1.0, -1.0])) == 1
    assert sign_flip(np.arange(1.0, 21.0)) == pytest.approx(1e-4, abs=1e-4)


def test_equal_differences_have_no_t_but_flips():
    assert paired([1.0, 1.0, 1.0]).p_above == 1 / 8
    assert paired([0.0, 0.0, 0.0]).p_above == 0.5
    ahead = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=[4, 5])  # 5 is better by 1, twice
    assert list(evidence.compare_with_best(ahead)) == [1 / 4, 3 / 4]
    assert evidence.best_in(ahead, {5}, "").p == 1 / 4


def test_one_unit_is_no_statistic():
    with pytest.raises(ValueError, match="two units"):
        paired([1.0])


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]
    assert holm([]) == []


def test_units_needed():
    assert units_needed(1.0, 1.0, 0.05) == 10  # Student's t, 80% power
    assert units_needed(0.0, 1.0, 0.05) is None
    assert units_needed(0.001, 1.0, 0.05) is None


def test_slopes():
    wide = pd.DataFrame([[1.0, 2.0, 3.0], [3.0, 3.0, 0.0]])
    assert list(slopes(wide)) == [1.0, -1.5]


def _wide(means: list[float], noise: float) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame(draw.normal(means, noise, (8, len(means))), columns=range(4, 4 + len(means)))


def test_best_level():
    clear, level = _wide([1, 4, 2, 0], 0.1), _wide([1, 1, 1, 1], 0.5)
    assert list(evidence.compare_with_best(clear) < 0.001) == [True, False, True, True]
    assert (evidence.compare_with_best(level) > 0.05).all()
    assert evidence.best_in(clear, {5}, "").p_for < 0.001
    assert evidence.best_in(clear, {6, 7}, "").p_against < 0.001
    assert evidence.best_in(level, {5}, "").p > 0.05


def test_difference_of_best_levels():
    five, seven, level = _wide([1, 4, 2, 0], 0.1), _wide([0, 1, 2, 4], 0.1), _wide([1, 1, 1, 1], 0.5)
    more = evidence.best_greater(seven, five, "", "layers")
    assert (more.effect, more.low, more.high) == (2, 2, 2)
    assert more.p_for < 0.001
    assert evidence.best_greater(five, seven, "", "layers").p_against < 0.001
    assert evidence.best_greater(five, five, "", "layers").p_against < 0.001
    assert evidence.best_differs(five, seven, "", "layers").p_for < 0.001
    assert evidence.best_differs(five, five, "", "layers").p_against < 0.001
    assert evidence.best_differs(five, level, "", "layers").p > 0.05


def test_equivalence_is_two_one_sided_tests():
    close, far = pd.Series([0.1, -0.1, 0.05, 0.0]), pd.Series([3.0, 3.1, 2.9, 3.0])
    assert evidence.equivalent(close, "", 0, 1).p_for < 0.001
    for outside in (far, -far):  # inside means above the lower limit and below the upper one
        assert evidence.equivalent(outside, "", 0, 1).p_against < 0.001
        assert evidence.equivalent(outside, "", 0, 1).p_for > 0.999
    assert evidence.equivalent(far, "", 3, 1).p_for < 0.001
    assert evidence.equivalent(pd.Series([-3.0, 3.0, 1.0, -1.0]), "", 0, 1).p > 0.05


def test_chance_alone_rarely_gives_a_verdict():
    """100 sets of noise: at most 10 are decided at the 5% level, by each kind of evidence."""
    draw, result = np.random.default_rng(0), {"greater": 0, "best_in": 0, "best_greater": 0}
    for _ in range(100):
        one, two = (pd.DataFrame(draw.normal(0, 1, (4, 4))) for _ in range(2))
        result["greater"] += evidence.greater(one[0], "").p < 0.05
        result["best_in"] += evidence.best_in(one, {1}, "").p < 0.05
        result["best_greater"] += evidence.best_greater(one, two, "", "").p < 0.05
    assert max(result.values()) <= 10
