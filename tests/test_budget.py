"""Runs of exactly so many updates, or until the validation loss no longer falls: what they come to in epochs and
images, that they train that and no more, and that a killed one ends where a whole one does."""

import csv
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.test_train import Killed, bits, killed_after, numbers
from tlprotocols.budget import ends_early, epochs_needed, image_passes, images_of_epoch, passes_of_epoch, updates
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.lr_schedule import falls_on_plateau
from tlprotocols.planning.plan import plan
from tlprotocols.records import files
from tlprotocols.training import optimizers
from tlprotocols.training.checkpoints import State
from tlprotocols.training.loop import evaluate, fit
from tlprotocols.training.run import execute, load_images, measure, network, selected

CPU = torch.device("cpu")
NOTHING_MOVES = ("layers=0", "lr.high=0", "lr.low=0", "epochs=9")


@pytest.mark.parametrize(
    ("wanted", "images", "batch", "by_epoch"),
    [
        pytest.param(7, 10, 4, [10, 10, 4], id="one of the three updates of the third epoch"),
        pytest.param(8, 10, 4, [10, 10, 8], id="two of them"),
        pytest.param(9, 10, 4, [10, 10, 10], id="all of them: the last batch has two images"),
        pytest.param(1, 10, 4, [4], id="a part of the first epoch"),
        pytest.param(3, 10, 16, [10, 10, 10], id="batches larger than the data set"),
        pytest.param(3, 10, 1, [3], id="one image at a time"),
        pytest.param(0, 10, 4, [10, 10, 10, 10, 10], id="no budget: epochs"),
    ],
)
def test_updates_in_epochs_and_images(plain, wanted, images, batch, by_epoch):
    recipe = plain(f"max_updates={wanted}", f"batch_size={batch}", "epochs=5")
    assert epochs_needed(recipe, images) == len(by_epoch)
    assert [images_of_epoch(recipe, images, epoch) for epoch in range(len(by_epoch))] == by_epoch
    assert image_passes(recipe, images, len(by_epoch)) == sum(by_epoch)
    assert updates(recipe, images, len(by_epoch)) == (wanted or 15)


@given(wanted=st.integers(1, 10**6), images=st.integers(1, 10**5), batch=st.integers(1, 1000))
def test_a_budget_is_used_up_exactly_and_in_no_empty_epoch(plain, wanted, images, batch):
    recipe = dataclasses.replace(plain(), max_updates=wanted, batch_size=batch)
    epochs = epochs_needed(recipe, images)
    assert updates(recipe, images, epochs) == wanted
    assert updates(recipe, images, epochs - 1) < wanted
    last = images_of_epoch(recipe, images, epochs - 1)
    assert 1 <= last <= images
    assert (epochs - 1) * images + last == image_passes(recipe, images, epochs)


def weights_after_each_update(config):
    """Of a training: weights and momenta, copied after every update."""
    net = network(config, 4)
    sgd, seen = optimizers.optimizer(net, config), []
    sgd.register_step_post_hook(lambda *_: seen.append([value.clone() for value in bits(net, sgd)]))
    list(fit(net, sgd, config, selected(config, "train", CPU)))
    return seen


@pytest.mark.parametrize(
    ("least", "images", "batch", "by_epoch"),
    [
        pytest.param(6, 10, 4, [[10, 10]] * 2, id="two passes of three updates"),
        pytest.param(7, 10, 4, [[10] * 3] * 2, id="three passes, since two are six updates"),
        pytest.param(3, 10, 4, [[10]] * 2, id="as many as one pass makes"),
        pytest.param(2, 10, 4, [[10]] * 2, id="fewer than one pass makes"),
        pytest.param(3, 10, 16, [[10] * 3] * 2, id="batches larger than the data set"),
        pytest.param(0, 10, 4, [[10]] * 2, id="no floor"),
    ],
)
def test_an_epoch_of_few_images_has_as_many_passes_as_its_updates_need(plain, least, images, batch, by_epoch):
    recipe = plain(f"epoch_updates={least}", f"batch_size={batch}", "epochs=2")
    passes = [passes_of_epoch(recipe, images, epoch) for epoch in range(2)]
    assert [[count for _, count in epoch] for epoch in passes] == by_epoch
    assert [number for epoch in passes for number, _ in epoch] == list(range(sum(map(len, by_epoch))))
    assert image_passes(recipe, images, 2) == sum(map(sum, by_epoch))
    assert updates(recipe, images, 2) >= 2 * least


def test_a_budget_ends_inside_a_pass_of_an_epoch(plain):
    recipe = plain("epoch_updates=6", "max_updates=10", "batch_size=4")
    assert epochs_needed(recipe, 10) == 2
    assert passes_of_epoch(recipe, 10, 1) == [(2, 10), (3, 4)]
    assert (updates(recipe, 10, 2), image_passes(recipe, 10, 2)) == (10, 34)


def test_an_epoch_of_three_passes_is_three_epochs_of_one(cfg):
    """Bit for bit, after every update, where all that is counted in epochs is three times as long."""
    always = ("layers=0", "batch_size=5", "dropout=0.3", "augment=crop_flip", "lr.gamma=0.5", "shards=2")
    few = weights_after_each_update(cfg(*always, "epoch_updates=9", "epochs=2", "lr.step=1", "decay_epochs=1"))
    many = weights_after_each_update(cfg(*always, "epochs=6", "lr.step=3", "decay_epochs=3"))
    assert len(few) == len(many) == 24
    assert all(torch.equal(a, b) for one, other in zip(few, many, strict=True) for a, b in zip(one, other, strict=True))


def test_killed_between_epochs_of_several_passes_and_resumed_is_never_stopped(cfg, tmp_path):
    rows = {}
    for name in ("whole", "killed"):
        overrides = ("layers=0", "epochs=4", "epoch_updates=7", "batch_size=5", "dropout=0.3", "curve=true")
        config = cfg(*overrides, "machine.checkpoint_minutes=0", f"results_dir={tmp_path / name}")
        if name == "killed":
            with pytest.raises(Killed):
                execute(config, advance=killed_after(2))
        rows[name] = execute(config)
    assert numbers(rows["whole"]) == numbers(rows["killed"])
    assert (rows["whole"]["updates"], rows["whole"]["epochs_trained"], rows["whole"]["train_images"]) == (32, 4, 16)
    (run,) = plan([config]).runs.values()
    assert run.image_passes == 4 * 2 * 16


def test_a_folder_of_few_images_has_a_floor_of_updates(plain):
    """50 images: 60 updates before there was a floor; 25,000: as many as without one."""
    for recipe in (plain("dataset=folder"), plain("dataset=folder").base):
        assert updates(recipe, 50, recipe.epochs) == 960
    recipe = plain("dataset=folder")
    assert updates(recipe, 25_000, 30) == updates(dataclasses.replace(recipe, epoch_updates=0), 25_000, 30)


@pytest.mark.parametrize("wanted", [1, 4, 5, 7])
def test_so_many_updates_are_the_first_ones_of_a_longer_run(cfg, wanted):
    """Sixteen images in batches of 5: four updates an epoch, the last one of a single image."""
    always = ("layers=0", "batch_size=5", "dropout=0.3", "augment=crop_flip")
    short = weights_after_each_update(cfg(*always, f"max_updates={wanted}"))
    long = weights_after_each_update(cfg(*always, "epochs=3"))
    assert (len(short), len(long)) == (wanted, 12)
    for one, other in zip(short, long, strict=False):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one, other, strict=True))


def test_killed_and_resumed_in_a_budget_is_never_stopped(cfg, tmp_path):
    rows, heard = dict[str, dict](), dict[str, list]()
    for name in ("whole", "killed"):
        overrides = ("layers=0", "max_updates=14", "batch_size=5", "schedule=cosine", "curve=true", "dropout=0.3")
        config = cfg(*overrides, "machine.checkpoint_minutes=0", f"results_dir={tmp_path / name}")
        if name == "killed":
            with pytest.raises(Killed):
                execute(config, advance=killed_after(2))
        heard[name] = []
        rows[name] = execute(config, advance=heard[name].append)
    assert numbers(rows["whole"]) == numbers(rows["killed"])
    assert heard == {"whole": [16, 16, 16, 10], "killed": [32, 16, 10]}
    row = rows["whole"]
    assert (row["max_updates"], row["updates"], row["epochs"], row["train_images"]) == (14, 14, 4, 16)
    (run,) = plan([config]).runs.values()
    assert (run.image_passes, run.config.epochs) == (58, 4)
    assert len(files(config).curve.read_text().splitlines()) == 5


def test_a_part_of_an_epoch_is_measured_by_its_own_images(cfg, tmp_path):
    config = cfg(*NOTHING_MOVES, "max_updates=14", "batch_size=5", f"results_dir={tmp_path}")
    net, data = network(config, 4), load_images(config, CPU, print)
    *_, (done, loss) = fit(net, optimizers.optimizer(net, config), config, data.train)
    assert loss == pytest.approx(evaluate(net, config, data.train).loss, rel=0.1)  # of 10 images and of 16
    row = measure(net, data, State(done, 2.0, [{"epoch": done, "train_loss": loss}]), config)
    assert (row["images_per_second"], row["updates"]) == (58 / 2, 14)


def test_epochs_follow_from_a_budget_before_the_id(cfg):
    assert run_id(cfg("max_updates=5", "epochs=3")) == run_id(cfg("max_updates=5", "epochs=9"))
    assert run_id(cfg("max_updates=5")) != run_id(cfg("max_updates=6"))
    found = [cfg("max_updates=30", f"n_per_class={n}").epochs for n in (1, 4, 5, "full")]
    assert found == [30, 30, 15, 10]  # of 4, 16, 20 and 48 images in batches of 16


def test_a_base_has_a_budget_of_its_own(cfg, tmp_path):
    config = cfg("layers=3", "base.max_updates=4", "base.epochs=9", f"results_dir={tmp_path}")
    base = base_of(config)
    assert (config.epochs, config.base.epochs, base.epochs, base.max_updates) == (2, 2, 2, 4)
    assert execute(base, role="base")["updates"] == 4
    row = execute(config)
    assert (row["updates"], row["max_updates"], row["base.max_updates"], row["base.epochs"]) == (2, 0, 4, 2)
    assert {run.id for run in plan([config]).runs.values()} == {run_id(base), run_id(config)}


@pytest.mark.parametrize(
    ("losses", "after", "ended"),
    [
        pytest.param([3, 2, 2.5, 2.2, 1], 2, [0, 0, 0, 1, 1], id="two epochs that are not lower than the second"),
        pytest.param([3, 2, 2.5, 1, 2], 2, [0, 0, 0, 0, 0], id="one and one are not two"),
        pytest.param([3, 3], 1, [0, 1], id="equal is not lower"),
        pytest.param([3, 3, 3], 0, [0, 0, 0], id="0: never"),
        pytest.param([float("nan")] * 2, 2, [0, 1], id="what is no number is not lower"),
    ],
)
def test_training_ends_after_so_many_epochs_without_a_lower_loss(plain, losses, after, ended):
    config = plain(f"stop_after={after}")
    assert [ends_early(config, losses[: epoch + 1]) for epoch in range(len(losses))] == ended


@given(losses=st.lists(st.floats(0, 5), min_size=1, unique=True), after=st.integers(1, 6))
def test_training_ends_early_when_the_lowest_loss_is_so_many_epochs_ago(plain, losses, after):
    config = dataclasses.replace(plain(), stop_after=after)
    ended = [ends_early(config, losses[: epoch + 1]) for epoch in range(len(losses))]
    ago = [epoch - losses.index(min(losses[: epoch + 1])) for epoch in range(len(losses))]
    first = next((epoch for epoch in range(len(losses)) if ago[epoch] == after), len(losses))
    assert ended == [epoch >= first for epoch in range(len(losses))]


def curve(config):
    with files(config).curve.open() as file:
        return [float(point["val_loss"]) for point in csv.DictReader(file)]


def test_the_row_says_where_a_run_ended_early(cfg, tmp_path):
    config = cfg(*NOTHING_MOVES, "stop_after=3", "batch_size=5", f"results_dir={tmp_path}")
    heard: list[int] = []
    row = execute(config, advance=heard.append)
    assert (row["epochs"], row["epochs_trained"], row["updates"]) == (9, 4, 16)
    assert heard == [16] * 4
    assert row["val_top1_best"] == row["val_top1"]
    assert len(set(curve(config))) == 1
    assert "ended after epoch 4: no lower val_loss in 3 epochs" in files(config).log.read_text()
    assert execute(cfg(*NOTHING_MOVES, f"results_dir={tmp_path}"))["epochs_trained"] == 9


@pytest.mark.parametrize(
    "overrides",
    [
        ("schedule=plateau", "lr.patience=1", "lr.gamma=0.5"),
        ("schedule=plateau", "lr.patience=1", "optimizer=adam"),
        ("stop_after=2",),
        ("stop_after=3", "schedule=plateau", "lr.patience=1", "max_updates=27"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("epochs", [1, 2])
def test_killed_and_resumed_is_never_stopped_where_the_loss_decides(cfg, tmp_path, overrides, epochs):
    rows, curves = {}, {}
    for name in ("whole", "killed"):
        always = ("layers=0", "epochs=8", "lr.high=0.05", "high_lr_layers=8", "dropout=0.3", "batch_size=5")
        config = cfg(*always, "machine.checkpoint_minutes=0", *overrides, f"results_dir={tmp_path / name}")
        if name == "killed":
            with pytest.raises(Killed):
                execute(config, advance=killed_after(epochs))
        rows[name], curves[name] = execute(config), curve(config)
    assert numbers(rows["whole"]) == numbers(rows["killed"])
    assert curves["whole"] == curves["killed"]
    assert f"resumed after epoch {epochs}" in files(config).log.read_text()
    losses = curves["whole"]
    assert falls_on_plateau(losses[:-1], 1) if config.schedule == "plateau" else ends_early(config, losses)


def test_a_fall_on_a_plateau_is_used_in_the_next_epoch(cfg):
    config = cfg("layers=0", "epochs=4", "schedule=plateau", "lr.patience=1", "lr.gamma=0", "momentum=0")
    config = dataclasses.replace(config, weight_decay=0.0)
    net = network(config, 4)
    sgd, moved = optimizers.optimizer(net, config), []
    losses: list[float] = []
    before = bits(net, sgd)[0].clone()
    train = selected(config, "train", CPU)
    for _, loss in zip(fit(net, sgd, config, train, losses=losses), (2, 1, 1.5, 1.2), strict=True):
        losses.append(loss)
        moved.append(not torch.equal(before, bits(net, sgd)[0]))
        before = bits(net, sgd)[0].clone()
    assert moved == [True, True, True, False]


def test_a_base_may_end_early(cfg, tmp_path):
    overrides = ("base.stop_after=2", "base.epochs=7", "base.lr.high=0", "base.schedule=plateau")
    config = cfg("layers=3", *overrides, f"results_dir={tmp_path}")
    base = execute(base_of(config), role="base")
    assert (base["epochs_trained"], base["stop_after"], base["schedule"]) == (3, 2, "plateau")
    assert execute(config)["epochs_trained"] == 2
