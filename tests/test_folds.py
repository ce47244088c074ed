"""Cross-validation: each of the n images of a class validates in one fold and is learned in all others."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlprotocols.config.identity import base_of, factors, run_id
from tlprotocols.errors import ConfigError
from tlprotocols.images.splits import chosen, held_out
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.training.run import execute, selected

CPU = torch.device("cpu")


@given(st.integers(2, 7), st.integers(0, 30), st.sampled_from(["first", "random"]), st.booleans())
def test_folds_share_the_chosen_images_out(plain, folds, more, subset, full):
    n, whole = folds + more, plain("fold=0", "folds=2", "n_per_class=2")
    size = "full" if full else n
    whole = dataclasses.replace(whole, folds=folds, subset=subset, n_per_class=size, fold=None)
    count = n if full else n + 5
    images = chosen(whole, "train", 3, count).tolist()
    parts = []
    for fold in range(folds):
        config = dataclasses.replace(whole, fold=fold)
        train, val = (chosen(config, part, 3, count).tolist() for part in ("train", "val"))
        assert sorted(train + val) == images
        assert len(val) == held_out(config, n) in (n // folds, -(-n // folds))
        parts += val
    assert sorted(parts) == images


def test_without_a_fold_a_run_is_what_it_was(plain):
    assert run_id(plain("fold=null")) == run_id(plain()) == run_id(plain("folds=3"))
    assert not {"fold", "folds"} & set(factors(plain("folds=3")))
    ids = [run_id(plain(*values)) for values in (["fold=0"], ["fold=1"], ["fold=0", "folds=4"])]
    assert len({*ids, run_id(plain())}) == 4


def test_all_folds_copy_one_base(plain):
    bases = {run_id(base_of(plain(*fold))) for fold in ([], ["fold=0"], ["fold=3"], ["fold=1", "folds=2"])}
    assert len(bases) == 1


def test_the_own_validation_images_become_test_images(cfg, tmp_path):
    config, whole = cfg("layers=0", "n_per_class=10", "fold=2", f"results_dir={tmp_path}"), cfg("n_per_class=10")
    for part, of in (("test", "val"), ("val", "train")):
        images, units = selected(config, part, CPU)[slice(None)]
        other, theirs = selected(whole, of, CPU)[slice(None)]
        kept = np.ones(len(other), bool) if part == "test" else np.tile(np.arange(10) % 5 == 2, 4)
        assert np.array_equal(images.numpy(), other.numpy()[kept])
        assert np.array_equal(units, theirs[kept])
    row = execute(config)
    assert (row["train_images"], row["test_images"], row["n_per_class"]) == (4 * 8, 4 * 4, 10)
    assert row["val_top1"] * 8 == pytest.approx(round(row["val_top1"] * 8))


@pytest.mark.parametrize("n", [10, "full"])
def test_a_plan_counts_the_images_of_a_fold(cfg, n):
    (whole,) = plan([cfg("layers=0", f"n_per_class={n}")]).requested
    (run,) = plan([cfg("layers=0", f"n_per_class={n}", "fold=1")]).requested
    (tested,) = plan([cfg("layers=0", f"n_per_class={10 if n == 10 else n}", "fold=1", "test_per_class=2")]).requested
    count = 10 if n == 10 else 12
    held = 2 if n == 10 else 3  # of 12: the second, the seventh and the twelfth
    assert (whole.images, whole.evaluated) == (4 * count, 4 * (count + 4))
    assert (run.images, run.evaluated) == (4 * (count - held), 4 * (count + 4))
    assert tested.evaluated == 4 * (10 + 2)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["fold=5"], "fold=5: must be below folds=5"),
        (["fold=0", "n_per_class=3"], "folds=5: must be at most n_per_class=3, which they divide"),
        (
            ["fold=0", "n_per_class=10", "base=self"],
            "fold=0: must be null with base=self, whose base network learns all the folds",
        ),
        (
            ["fold=0", "folds=13", "n_per_class=full"],
            r"folds=13: class \w+ has only 12 training images; give folds=12 or less, add images, or leave",
        ),
        (
            ["fold=0", "folds=5", "n_per_class=full", "test_per_class=10"],
            r"folds=5: class \w+ has only 12 training images, and test_per_class keeps 10; give folds=2, add images",
        ),
        (["fold=0", "n_per_class=10", "test_per_class=11"], "folds=5: .* keeps 11; add images, or leave the class out"),
        (["fold=0", "n_per_class=10", "test_per_class=6"], "n_per_class=10: .*keeps 6; give at most 6, or full"),
        (
            ["n_per_class=full", "test_per_class=12"],
            r"test_per_class=12: class \w+ has only 12 .*; give at most 11, to",
        ),
    ],
)
def test_folds_that_cannot_be(cfg, overrides, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        plan([cfg(*overrides)])


def test_a_class_smaller_than_the_folds_runs_with_as_many_folds_as_the_error_says(
    composed, tiny, make_shapes, tmp_path
):
    root = make_shapes(tmp_path / "shapes", ("ant", "bee", "dog"), train=6)
    for number in range(3, 6):
        (root / "train" / "dog" / f"{number:03}.png").unlink()
    where = (f"dataset.root={root}", f"results_dir={tmp_path / 'results'}", "layers=0", "classes=all")
    for n in ("full", 5):  # neither fewer images, nor all, would do
        with pytest.raises(ConfigError, match=r"^folds=5: class dog has only 3 training images; give folds=3 or "):
            plan([resolved(composed(*tiny, *where, "fold=0", f"n_per_class={n}"))])
    config = resolved(composed(*tiny, *where, "fold=2", "folds=3", "n_per_class=full"))
    assert len(plan([config]).requested) == 1
    row = execute(config)
    assert row["train_images"] == 4 + 4 + 2
    assert row["val_top1"] * (2 + 2 + 1) == pytest.approx(round(row["val_top1"] * 5))


def test_features_of_a_fold_are_those_of_its_images(cfg, tmp_path):
    """One file has the features of all training images: those that validate are not taken for other ones."""
    probe = ("layers=0", "freeze=all", "freeze_random=true", "augment=none", "dropout=0", "n_per_class=10")
    cache = f"machine.image_cache={tmp_path}/cache"
    kept = [execute(cfg(*probe, cache, fold, f"results_dir={tmp_path}/1")) for fold in ("fold=null", "fold=1")]
    anew = execute(cfg(*probe, "fold=1", "machine.cache_features=false", f"results_dir={tmp_path}/2"))
    assert [row["features_cached"] for row in (*kept, anew)] == [True, True, False]
    for key in ("train_loss", "val_loss", "val_top1", "test_loss", "test_top1"):
        assert kept[1][key] == anew[key], key


def test_early_stopping_watches_the_fold(cfg, tmp_path):
    """The row's accuracy on validation images is that of the fold, which training may look at, and not the test's."""
    row = execute(cfg("layers=0", "n_per_class=10", "fold=0", "stop_after=1", "epochs=3", f"results_dir={tmp_path}"))
    assert row["val_top1_best"] * 8 == pytest.approx(round(row["val_top1_best"] * 8))
    assert row["test_top1"] * 16 == pytest.approx(round(row["test_top1"] * 16))
