"""Training, validation and test images: no image is in two parts, and nothing is trained or chosen by the test part."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
import torch

from tlprotocols.config.identity import base_of, run_id
from tlprotocols.errors import ConfigError, Stopped
from tlprotocols.images import source
from tlprotocols.images.cache import ImageCache, images_needed
from tlprotocols.images.splits import chosen, halves
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.records import files
from tlprotocols.training import checkpoints, optimizers
from tlprotocols.training.run import execute, load_images, network, selected

CPU = torch.device("cpu")


def test_without_test_images_the_id_is_what_it_was(plain):
    assert run_id(plain("test_per_class=0")) == run_id(plain())
    assert run_id(plain("test_per_class=5")) != run_id(plain())


@pytest.mark.parametrize("subset", ["first", "random"])
@pytest.mark.parametrize("n", [1, 5, 9, "full"])
def test_no_image_is_trained_and_tested_on(plain, subset, n):
    config = plain(f"n_per_class={n}", f"subset={subset}", "test_per_class=3")
    train, test = (set(chosen(config, part, 4, 12).tolist()) for part in ("train", "test"))
    assert test == {9, 10, 11}
    assert not train & test
    assert len(train) == (9 if n == "full" else n)
    assert chosen(config, "val", 4, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("n", "fits"), [(9, True), (10, False), ("full", True)])
def test_test_images_count_against_the_images_of_a_class(cfg, n, fits):
    if fits:
        cfg(f"n_per_class={n}", "test_per_class=3")
        return
    line = (
        r"^n_per_class=10: class \w+ has only 12 training images, and test_per_class keeps 3; give at most 9, or full"
    )
    with pytest.raises(ConfigError, match=line):
        cfg(f"n_per_class={n}", "test_per_class=3")


def test_more_test_images_than_a_class_has(cfg):
    with pytest.raises(
        ConfigError, match=r"^test_per_class=12: class \w+ has only 12 training images; give at most 11"
    ):
        cfg("n_per_class=full", "test_per_class=12")


def test_the_test_part_is_the_end_of_the_training_images(cfg):
    config = cfg("layers=0", "test_per_class=5")
    cache = ImageCache.of(config)
    labels = halves(config, cache.classes)["B"]
    wanted = np.concatenate([cache.source.decoder("train", label)(16)[-5:] for label in labels])
    images, units = selected(config, "test", CPU)[slice(None)]
    assert np.array_equal(images.numpy(), wanted)
    assert units.tolist() == [unit for unit in range(4) for _ in range(5)]


def test_a_row_has_its_test_accuracy_or_says_that_there_is_none(cfg, tmp_path):
    row = execute(cfg("layers=0", "test_per_class=5", f"results_dir={tmp_path}"))
    assert row["test_images"] == 20
    assert row["test_top1"] * 20 == pytest.approx(round(row["test_top1"] * 20))
    assert row["test_loss"] > 0
    without = execute(cfg("layers=0", f"results_dir={tmp_path}"))
    assert (without["test_images"], without["test_top1"], without["test_loss"]) == (0, None, None)


LONG = ("layers=0", "epochs=8", "test_per_class=5", "curve=true", "batch_size=4", "n_per_class=7", "lr.high=0.5")


def accuracies(row):
    return {key: value for key, value in row.items() if "_at_" in key}


def test_the_test_part_is_measured_at_the_epochs_that_validation_chooses(cfg, tmp_path):
    """Independently: runs of so many epochs end with the same weights, since the rates do not look ahead."""
    row = execute(cfg(*LONG, f"results_dir={tmp_path}"))
    with (tmp_path / "runs" / row["run_id"] / "curve.csv").open() as file:
        curve = [{key: float(value) for key, value in line.items() if value} for line in csv.DictReader(file)]
    losses, tops = ([point[key] for point in curve] for key in ("val_loss", "val_top1"))
    assert row["epoch_at_least_val_loss"] == 1 + losses.index(min(losses))
    assert row["epoch_at_best_val_top1"] == 1 + tops.index(max(tops))  # the first of several
    assert row["val_top1_at_best_val_top1"] == row["val_top1_best"] == max(tops)
    for name in ("least_val_loss", "best_val_top1"):
        epoch = row[f"epoch_at_{name}"]
        short = execute(cfg(*LONG, f"epochs={epoch}", f"results_dir={tmp_path / str(epoch)}"))
        assert short["test_top1"] == row[f"test_top1_at_{name}"] == curve[epoch - 1]["test_top1"]
        assert short["val_top1"] == row[f"val_top1_at_{name}"]
    best = [min(losses[:n]) == losses[n - 1] < min(losses[: n - 1], default=9e9) for n in range(1, 9)]
    best = [b or tops[n] > max(tops[:n], default=-1) for n, b in enumerate(best)]
    assert best == ["test_top1" in point for point in curve]  # nowhere else is it looked at
    assert not all(best)


def test_a_killed_run_has_the_test_accuracies_of_one_that_was_not(cfg, tmp_path):
    rows = {}
    for name in ("whole", "killed"):
        config = cfg(*LONG, "machine.checkpoint_minutes=0", f"results_dir={tmp_path / name}")
        for _ in range(3 if name == "killed" else 0):
            with pytest.raises(Stopped):
                execute(config, stop=lambda: True)
        rows[name] = execute(config)
    assert rows["whole"]["test_top1_at_least_val_loss"] is not None
    assert accuracies(rows["whole"]) == accuracies(rows["killed"])


def test_a_checkpoint_without_test_accuracies_is_of_another_training(cfg, tmp_path):
    """Of a run that began before they were measured: it begins again."""
    config = cfg(*LONG, "machine.checkpoint_minutes=0", f"results_dir={tmp_path}")
    with pytest.raises(Stopped):
        execute(config, stop=lambda: True)
    net = network(config, 4)
    sgd, path = optimizers.optimizer(net, config), files(config).checkpoint
    of = f"{run_id(config)} None"
    state = checkpoints.load_state(path, net, sgd, of)
    assert state.done == 1
    for point in state.curve:
        del point["test_top1"]
    checkpoints.save_state(path, net, sgd, state, of)
    execute(config)
    assert "resumed" not in (tmp_path / "runs" / run_id(config) / "log.txt").read_text()


def test_without_test_images_or_numbers_there_is_no_test_accuracy(cfg, tmp_path):
    row = execute(cfg("layers=0", "curve=true", f"results_dir={tmp_path / 'none'}"))
    assert row["test_top1_at_least_val_loss"] is None
    assert row["val_top1_at_least_val_loss"] >= 0
    assert accuracies(execute(cfg("layers=0", "test_per_class=5", f"results_dir={tmp_path / 'last'}"))) == {}
    diverged = execute(cfg(*LONG, "lr.high=1e30", f"results_dir={tmp_path / 'diverged'}"))
    assert diverged["diverged"]
    assert diverged["test_top1_at_best_val_top1"] is not None


def test_what_is_trained_does_not_depend_on_the_test_part(cfg, tmp_path):
    """With n below what is kept back, the same images are trained on: the same losses to the last bit."""
    rows = [execute(cfg("layers=0", f"test_per_class={k}", f"results_dir={tmp_path}")) for k in (0, 5)]
    assert rows[0]["train_loss"] == rows[1]["train_loss"]
    assert rows[0]["val_loss"] == rows[1]["val_loss"]


def test_a_base_on_other_classes_is_shared_and_a_base_on_the_target_classes_keeps_its_hands_off(cfg):
    trained = [base_of(cfg(f"test_per_class={k}", "layers=3")) for k in (0, 5)]
    assert run_id(trained[0]) == run_id(trained[1])
    own = base_of(cfg("test_per_class=5", "layers=3", "base=self"))
    assert own.test_per_class == 5
    assert run_id(own) != run_id(base_of(cfg("layers=3", "base=self")))
    assert len(load_images(own, CPU, print).train) == 4 * 7


def test_the_plan_counts_what_is_evaluated(cfg):
    (run,) = plan([cfg("layers=0", "test_per_class=5", "n_per_class=full")]).requested
    assert (run.images, run.evaluated) == (4 * 7, 4 * (7 + 4 + 5))


@pytest.fixture
def three_parts(make_shapes, tmp_path):
    """A tree with train/, val/ and test/."""
    root = make_shapes(tmp_path / "tree")
    shutil.copytree(root / "val", root / "test")
    (root / "test" / "ant" / "000.png").unlink()
    return root


def test_a_folders_own_test_images_are_its_test_part(composed, tiny, three_parts, tmp_path):
    folders = [f"dataset.root={three_parts}", f"machine.image_cache={tmp_path / 'cache'}"]
    config = resolved(composed(*tiny, *folders, "layers=0", f"results_dir={tmp_path}"))
    assert {part: len(counts) for part, counts in source_of(config).counts.items()} == {"train": 8, "val": 8, "test": 8}
    assert {part for part, _ in images_needed(config)} == {"train", "val", "test"}
    row = execute(config)
    assert row["test_images"] in (15, 16)
    with pytest.raises(ConfigError, match=r"^test_per_class=3: must be 0: this data set has its own test images"):
        resolved(dataclasses.replace(config, test_per_class=3))


def source_of(config):
    return source(config.dataset, config.machine.image_cache)


def test_a_test_folder_without_a_val_folder_is_still_for_validation(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    (root / "val").rename(root / "test")
    config = composed("dataset=folder", f"dataset.root={root}", f"machine.image_cache={tmp_path / 'cache'}")
    assert set(source_of(config).counts) == {"train", "val"}


def test_held_out_images_become_test_images_where_validation_is_cut_from_train(composed, tiny, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree")
    folders = [f"dataset.root={root}", f"machine.image_cache={tmp_path / 'cache'}"]
    cut = ["dataset.val_from_train=true", "dataset.val_per_class=3"]
    config = resolved(composed(*tiny, *folders, *cut, "layers=0", f"results_dir={tmp_path}"))
    listed = source_of(config)
    assert {part: set(counts) for part, counts in listed.counts.items()} == {"train": {9}, "val": {3}, "test": {4}}
    plain_listing = source_of(composed(*tiny, *folders))
    for label in range(8):
        whole = plain_listing.decoder("train", label)(16)
        assert np.array_equal(listed.decoder("train", label)(16), whole[:9])
        assert np.array_equal(listed.decoder("val", label)(16), whole[9:])
        assert np.array_equal(listed.decoder("test", label)(16), plain_listing.decoder("val", label)(16))
    assert execute(config)["test_images"] == 16


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["dataset.val_per_class=12"], r"^dataset.val_per_class=12: must be below 12, the images of class ant"),
        (["dataset=glyphs", "recipe=glyphs"], r"^dataset.val_from_train=True: must be false for glyphs"),
    ],
)
def test_validation_images_that_cannot_be_cut(composed, tiny, overrides, line):
    config = composed(*tiny, "dataset.val_from_train=true", *overrides)
    with pytest.raises(ConfigError, match=line):
        source_of(config)


def test_a_tree_with_validation_and_test_images_keeps_them(composed, tiny, three_parts, tmp_path):
    folders = [f"dataset.root={three_parts}", f"machine.image_cache={tmp_path / 'cache'}"]
    with pytest.raises(
        ConfigError, match=r"^dataset.val_from_train=True: must be false: this data set has val/ and test/"
    ):
        source_of(composed(*tiny, *folders, "dataset.val_from_train=true"))
