"""Which classes and which images: halves by split alone, the published lists, nested subsets."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlprotocols.config.identity import base_of
from tlprotocols.errors import ConfigError
from tlprotocols.images.splits import (
    PUBLISHED,
    check_counts,
    chosen,
    halves,
    probed_classes,
    random_groups,
    random_halves,
    target_classes,
)

SYNSETS = tuple(pd.read_csv(PUBLISHED)["synset"])


@given(count=st.integers(2, 1000), split=st.integers(0, 2**32 - 1))
def test_the_halves_are_disjoint_and_complete(count, split):
    half = random_halves(count, split)
    assert sorted(half["A"] + half["B"]) == list(range(count))
    assert (len(half["A"]), len(half["B"])) == (count // 2, count - count // 2)
    assert half["A"] == sorted(half["A"])
    assert half["B"] == sorted(half["B"])


def test_split_0_of_ten_classes_stays_what_it_is():
    assert random_halves(10, 0) == {"A": [0, 1, 3, 7, 8], "B": [2, 4, 5, 6, 9]}


def test_splits_differ():
    assert len({tuple(random_halves(100, split)["A"]) for split in range(50)}) == 50


def test_a_split_is_not_the_order_of_the_classes():
    assert all(random_halves(100, split)["A"] != list(range(50)) for split in range(50))


@pytest.mark.parametrize("split", range(3))
def test_seed_never_changes_the_classes(plain, split):
    names = [f"class{i}" for i in range(101)]
    found = {str(halves(plain(f"split={split}", f"seed={seed}"), names)) for seed in range(10)}
    assert len(found) == 1


def test_source_and_target_are_the_two_halves(plain):
    names = [f"class{i}" for i in range(10)]
    a, b = (target_classes(plain(f"target={half}"), names) for half in "AB")
    assert (a, b) == ([0, 1, 3, 7, 8], [2, 4, 5, 6, 9])


@pytest.mark.parametrize("split", range(4))
def test_yosinskis_lists_are_those_of_their_script(plain, split):
    a = sorted(np.random.RandomState([split]).choice(np.arange(1000), 500, replace=False).tolist())
    half = halves(plain("classes=yosinski", f"split={split}"), SYNSETS)
    assert half["A"] == a
    assert half["B"] == sorted(set(range(1000)) - set(a))


def test_natural_and_man_made_are_449_and_551(plain):
    half = halves(plain("classes=natman"), SYNSETS)
    assert {side: len(labels) for side, labels in half.items()} == {"A": 449, "B": 551}
    assert SYNSETS[half["A"][0]] == "n01440764"  # tench
    assert SYNSETS[half["B"][-1]] == "n15075141"  # toilet tissue


def test_published_lists_follow_the_names_not_the_numbers(plain):
    config = plain("classes=yosinski", "split=2")
    ordered, turned = (halves(config, names) for names in (SYNSETS, SYNSETS[::-1]))
    assert {SYNSETS[i] for i in ordered["A"]} == {SYNSETS[999 - i] for i in turned["A"]}


def test_there_are_four_published_lists(plain):
    with pytest.raises(ConfigError, match=r"^split=4: must be 0, 1, 2 or 3 with classes=yosinski$"):
        halves(plain("classes=yosinski", "split=4"), SYNSETS)


@pytest.mark.parametrize("classes", ["yosinski", "natman"])
@pytest.mark.parametrize("names", [SYNSETS[:999], (*SYNSETS[:999], "dog")], ids=["999", "a stranger"])
def test_published_lists_need_the_thousand_synsets(plain, classes, names):
    with pytest.raises(ConfigError, match=f"classes={classes}: is for the 1000 synsets of ILSVRC2012"):
        halves(plain(f"classes={classes}"), names)


@given(fewer=st.integers(1, 500), more=st.integers(0, 500), label=st.integers(0, 999), seed=st.integers(0, 99))
@pytest.mark.parametrize("subset", ["first", "random"])
def test_fewer_images_are_among_more(plain, subset, fewer, more, label, seed):
    small, large = (
        chosen(plain(f"n_per_class={n}", f"subset={subset}", f"seed={seed}"), "train", label, 1000)
        for n in (fewer, fewer + more)
    )
    assert len(small) == fewer == len(set(small.tolist()))
    assert set(small) <= set(large)
    assert small.tolist() == sorted(small)


def test_first_n_are_the_first_in_file_order(plain):
    assert chosen(plain("n_per_class=3"), "train", 7, 100).tolist() == [0, 1, 2]


@pytest.mark.parametrize("subset", ["first", "random"])
def test_full_is_all(plain, subset):
    assert chosen(plain("n_per_class=full", f"subset={subset}"), "train", 7, 732).tolist() == list(range(732))


def test_random_subsets_differ_by_seed_and_class(plain):
    drawn = {
        tuple(chosen(plain("subset=random", f"seed={seed}"), "train", label, 100))
        for seed in range(10)
        for label in range(10)
    }
    assert len(drawn) == 100
    assert tuple(range(10)) not in drawn


def test_a_random_subset_takes_every_image_equally_often(plain):
    config = plain("subset=random", "n_per_class=5")
    taken = np.bincount(np.concatenate([chosen(config, "train", label, 20) for label in range(2000)]), minlength=20)
    assert np.square(taken - 500).sum() / 375 < 43.8  # chi-square, 19 degrees of freedom: p = .001


def test_explicit_groups(plain):
    names = ("ant", "bee", "cat", "dog")
    config = plain("classes=groups", "classes.source=[dog,ant]", "classes.target=[cat]")
    assert halves(config, names) == {"A": [0, 3], "B": [2]}


def test_a_group_names_classes_that_exist(plain):
    config = plain("classes=groups", "classes.source=[ant]", "classes.target=[dgo]")
    with pytest.raises(ConfigError, match=r"^classes.target=dgo: is not a class .* ant, bee, cat, dog$"):
        halves(config, ("ant", "bee", "cat", "dog"))


def test_too_many_images_per_class_names_the_class_and_its_count(plain):
    names, counts = [f"class{i}" for i in range(10)], [100] * 10
    counts[5] = 42  # in half B of split 0
    with pytest.raises(ConfigError, match=r"^n_per_class=43: class class5 has only 42 training images"):
        check_counts(plain("n_per_class=43"), names, {"train": counts})
    check_counts(plain("n_per_class=42"), names, {"train": counts})
    check_counts(plain("n_per_class=full"), names, {"train": counts})
    check_counts(dataclasses.replace(plain("n_per_class=100"), target="A"), names, {"train": counts})


TEN = [f"class{i}" for i in range(10)]


@given(sizes=st.tuples(*[st.integers(1, 5)] * 3), more=st.integers(0, 20), split=st.integers(0, 2**32 - 1))
def test_drawn_groups_are_disjoint_and_have_their_sizes(sizes, more, split):
    groups = random_groups(sum(sizes) + more, split, sizes)
    assert tuple(len(groups[name]) for name in "ABC") == sizes
    together = [label for group in groups.values() for label in group]
    assert len(set(together)) == sum(sizes)
    assert set(together) <= set(range(sum(sizes) + more))


def test_draw_0_of_ten_classes_stays_what_it_is():
    groups = random_groups(10, 0, (4, 4, 2))
    assert [sorted(group) for group in groups.values()] == [[0, 1, 3, 7], [4, 6, 8, 9], [2, 5]]


def test_the_eight_draws_of_the_study_differ_and_every_class_is_learned_and_copied_from():
    draws = [random_groups(10, split, (4, 4, 2)) for split in range(8)]
    assert len({str([sorted(group) for group in draw.values()]) for draw in draws}) == 8
    assert all({label for draw in draws for label in draw[name]} == set(range(10)) for name in "AB")


@pytest.mark.parametrize("split", range(20))
def test_sources_of_a_draw(plain, split):
    """A: 4 classes. Diverse: as many, C and two of A. More: A and C. All learn one B, of which no source has any."""
    found = {}
    for source in ("A", "diverse", "more"):
        config = plain("classes=drawn", f"split={split}", "layers=1", f"classes.source_group={source}")
        found[source] = set(target_classes(base_of(config), TEN))
        assert target_classes(config, TEN) == sorted(random_groups(10, split, (4, 4, 2))["B"])
        assert not found[source] & set(target_classes(config, TEN))
        assert probed_classes(config, TEN) == sorted(found["A"])
    c = set(random_groups(10, split, (4, 4, 2))["C"])
    assert (len(found["A"]), len(found["diverse"]), found["more"]) == (4, 4, found["A"] | c)
    assert c < found["diverse"] < found["more"]


def test_a_network_of_the_own_classes_has_those_of_the_draw(plain):
    config = plain("classes=drawn", "split=3", "layers=1", "base=self")
    assert target_classes(base_of(config), TEN) == target_classes(config, TEN)


def test_no_draw_takes_its_classes_from_the_seed(plain):
    found = {str(halves(plain("classes=drawn", "split=3", f"seed={seed}"), TEN)) for seed in range(5)}
    assert len(found) == 1


def test_of_halves_the_one_that_is_not_learned_is_probed(plain):
    for target, other in ("AB", "BA"):
        config = plain(f"target={target}")
        assert probed_classes(config, TEN) == halves(config, TEN)[other]


def test_a_draw_needs_enough_classes(plain):
    with pytest.raises(ConfigError, match=r"^classes.sizes=\[4, 4, 2\]: must be at most 9 together"):
        halves(plain("classes=drawn"), TEN[:9])
