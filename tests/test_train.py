"""Learning: stopped and resumed is never stopped, bit for bit; what a row says of collapse and divergence."""

import itertools
import math

import numpy as np
import pytest
import safetensors.torch
import torch

from tlprotocols.config.identity import base_of
from tlprotocols.images.cache import ImageCache
from tlprotocols.images.splits import halves
from tlprotocols.records import files, read_row
from tlprotocols.training import checkpoints, optimizers, run, transfer
from tlprotocols.training import loop as train
from tlprotocols.training.loop import Images, Score, evaluate, fit, memory_budget
from tlprotocols.training.run import _curve, execute, network, selected
from tlprotocols.training.underfitting import is_underfitted

CPU = torch.device("cpu")
MACHINES = ("seconds", "images_per_second", "date", "host", "log", "device")  # what may differ between equal runs


class Killed(BaseException):
    """What a test raises where the system would kill."""


def killed_after(epochs):
    heard = []

    def advance(images):
        heard.append(images)
        if len(heard) > epochs:
            raise Killed

    return advance


def numbers(row):
    return {key: value for key, value in row.items() if key not in MACHINES}


def trained(config, net, sgd, done=0, epochs=None):
    for finished, _ in fit(net, sgd, config, selected(config, "train", CPU), done=done):
        if finished == epochs:
            break
    return net, sgd


def bits(net, sgd):
    return [*transfer.weights(net).values(), *kept_by(sgd)]


def kept_by(optimizer):
    """The tensors that an optimizer keeps, in the order of the parameters and of their names."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = [value for parameter in parameters for _, value in sorted(optimizer.state[parameter].items())]
    return [value for value in kept if value is not None]


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        pytest.param(("precision=fp32",), 1, id="fp32"),
        pytest.param(("precision=bf16",), 1, id="bf16"),
        pytest.param(("precision=bf16", "shards=2"), 1, id="shards"),
        pytest.param(("momentum=0",), 0, id="sgd without momentum"),
        pytest.param(("nesterov=true",), 1, id="nesterov"),
        pytest.param(("optimizer=adam",), 3, id="adam: step and two moments"),
        pytest.param(("optimizer=adamw", "weight_decay=0.1", "freeze=2", "freeze_random=true"), 3, id="adamw"),
    ],
)
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_killed_and_resumed_is_never_stopped(cfg, tmp_path, epochs, overrides, kept):
    config = cfg("layers=0", "epochs=4", "dropout=0.3", "decay_epochs=2", "augment=crop_flip", *overrides)
    config_net = network(config, 4)
    whole = bits(*trained(config, config_net, optimizers.optimizer(config_net, config)))
    assert len(whole) == 16 + kept * 2 * (8 - config.freeze)
    first = network(config, 4)
    sgd = optimizers.optimizer(first, config)
    trained(config, first, sgd, epochs=epochs)
    checkpoints.save_state(tmp_path / "checkpoint", first, sgd, checkpoints.State(done=epochs))
    torch.manual_seed(12345)  # nothing may hang on what another process has drawn
    np.random.seed(12345)
    second = network(config, 4)
    sgd = optimizers.optimizer(second, config)
    state = checkpoints.load_state(tmp_path / "checkpoint", second, sgd)
    assert state.done == epochs
    for one, other in zip(whole, bits(*trained(config, second, sgd, done=state.done)), strict=True):
        assert torch.equal(one, other)


def test_restored_tensors_lie_in_memory_as_the_weights_do(cfg, tmp_path):
    config = cfg("layers=0", "optimizer=adam", "epochs=1")
    net = network(config, 4).to(memory_format=torch.channels_last)
    adam = optimizers.optimizer(net, config)
    trained(config, net, adam)
    checkpoints.save_state(tmp_path / "checkpoint", net, adam, checkpoints.State(done=1))
    again = optimizers.optimizer(net, config)
    checkpoints.load_state(tmp_path / "checkpoint", net, again)
    strides = [[value.stride() for value in kept_by(one)] for one in (adam, again)]
    assert strides[0] == strides[1]
    assert net.stages["conv2"].get_parameter("weight").stride() in strides[1]


def test_a_checkpoint_of_another_layout_is_not_used(cfg, tmp_path, monkeypatch):
    """Of a version that wrote momenta under another name: without them the run would go on from other numbers."""
    config = cfg("layers=0")
    net = network(config, 4)
    sgd = optimizers.optimizer(net, config)
    trained(config, net, sgd, epochs=1)
    save = safetensors.torch.save

    def older(tensors, metadata):
        renamed = {name.replace("optimizer/", "momentum/"): value for name, value in tensors.items()}
        digest = checkpoints._digest(metadata["state"], renamed)
        return save(renamed, metadata=metadata | {"digest": digest})

    monkeypatch.setattr(checkpoints, "save", older)
    checkpoints.save_state(tmp_path / "checkpoint", net, sgd, checkpoints.State(done=1))
    assert checkpoints.load_state(tmp_path / "checkpoint", net, sgd).done == 0


@pytest.mark.parametrize("batch", [5, 8, 100])
def test_batches_cut_together_are_the_batches_cut_one_by_one(cfg, monkeypatch, batch):
    config = cfg("layers=0", "epochs=3", "dropout=0.3", "augment=crop_flip", f"batch_size={batch}")
    found = []
    for size in (1, 40000, 2**30):
        monkeypatch.setattr(train, "CUT_AT_ONCE", size)
        net = network(config, 4)
        found.append(bits(*trained(config, net, optimizers.optimizer(net, config))))
    for one, *others in zip(*found, strict=True):
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.parametrize("layers", [0, 5])
def test_a_run_that_was_killed_writes_the_row_of_one_that_was_not(cfg, tmp_path, layers):
    rows = {}
    for name in ("whole", "killed"):
        overrides = (f"layers={layers}", "epochs=5", "curve=true", "machine.checkpoint_minutes=0", "dropout=0.3")
        config = cfg(*overrides, f"results_dir={tmp_path / name}")
        if layers:
            execute(base_of(config), role="base")
        if name == "killed":
            for epochs in (3, 1):
                with pytest.raises(Killed):
                    execute(config, advance=killed_after(epochs))
                assert files(config).checkpoint.exists()
                assert not files(config).row.exists()
        rows[name] = execute(config)
        assert not files(config).checkpoint.exists()
    assert "resumed after epoch 3" in files(config).log.read_text()
    assert numbers(rows["whole"]) == numbers(rows["killed"])
    curves = [(tmp_path / name / "runs" / rows[name]["run_id"] / "curve.csv").read_bytes() for name in rows]
    assert curves[0] == curves[1]


def test_a_diverged_run_that_is_stopped_is_one_that_was_not(cfg, tmp_path):
    """It ends after the epoch that diverged: stopping there leaves no state from which it would go on."""
    overrides = ("layers=0", "epochs=5", "lr.high=1e30", "curve=true", "precision=fp32")
    whole, stopped = (cfg(*overrides, f"results_dir={tmp_path / name}") for name in ("whole", "stopped"))
    epochs = execute(whole)["epochs_trained"]
    assert epochs < 5
    stops = itertools.chain([False] * (epochs - 1), itertools.repeat(True))
    execute(stopped, stop=stops.__next__)
    rows = [read_row(files(config).row) for config in (whole, stopped)]
    assert rows[0]["diverged"]
    assert numbers(rows[0]) == numbers(rows[1])


def test_a_curve_that_is_asked_for_late_is_whole(cfg, tmp_path):
    overrides = ("layers=0", "epochs=3", "machine.checkpoint_minutes=0", f"results_dir={tmp_path}")
    with pytest.raises(Killed):
        execute(cfg(*overrides), advance=killed_after(2))
    row = execute(cfg(*overrides, "curve=true"))
    curve = (tmp_path / "runs" / row["run_id"] / "curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in curve] == ["epoch", "1", "2", "3"]
    assert all(all(line.split(",")) for line in curve)


def test_a_checkpoint_cut_short_begins_again(cfg, tmp_path):
    config = cfg("layers=0", "machine.checkpoint_minutes=0", f"results_dir={tmp_path}")
    with pytest.raises(Killed):
        execute(config, advance=killed_after(1))
    whole = files(config).checkpoint.read_bytes()
    files(config).checkpoint.write_bytes(whole[: len(whole) // 2])
    row = execute(config)
    assert "resumed" not in files(config).log.read_text()
    assert numbers(row) == numbers(execute(cfg("layers=0", f"results_dir={tmp_path / 'other'}")))


def test_a_finished_run_is_not_run_again(cfg, tmp_path):
    config = cfg("layers=0", f"results_dir={tmp_path}")
    row = execute(config)

    def unwanted(images):
        raise AssertionError

    assert execute(config, advance=unwanted) == row == read_row(files(config).row)


def test_seeds_and_splits_give_other_networks(cfg, tmp_path):
    rows = [execute(cfg("layers=0", other, f"results_dir={tmp_path}")) for other in ("seed=0", "seed=1", "split=1")]
    assert len({row["train_loss"] for row in rows}) == 3
    assert len({row["run_id"] for row in rows}) == 3


def test_a_run_learns(cfg, tmp_path):
    row = execute(cfg("layers=0", "epochs=30", "n_per_class=12", "lr.high=0.05", f"results_dir={tmp_path}"))
    assert row["val_top1"] > 0.6  # four classes: chance is 0.25
    assert row["train_eval_loss"] < 1
    assert not row["collapsed"]
    assert not row["diverged"]


def test_a_row_counts_classes_images_and_updates(cfg, tmp_path):
    row = execute(cfg("layers=0", "epochs=3", "n_per_class=9", "batch_size=16", f"results_dir={tmp_path}"))
    found = {key: row[key] for key in ("classes_learned", "train_images", "updates", "n_per_class", "base_id", "role")}
    counts = {"classes_learned": 4, "train_images": 36, "updates": 9}
    assert found == counts | {"n_per_class": 9, "base_id": None, "role": "run"}


def test_a_row_is_the_mean_of_its_halves(cfg, tmp_path):
    row = execute(cfg("layers=0", f"results_dir={tmp_path}"))
    assert row["val_top1"] == pytest.approx((row["val_top1_even"] + row["val_top1_odd"]) / 2)
    assert row["val_top1"] * 16 == pytest.approx(round(row["val_top1"] * 16))


def test_loss_that_is_not_finite_is_called_diverged(cfg, tmp_path):
    row = execute(cfg("layers=0", "epochs=9", "lr.high=1e30", f"results_dir={tmp_path}"))
    assert row["diverged"]
    assert not row["collapsed"]
    assert row["updates"] < 9
    assert not math.isfinite(row["train_loss"])


def test_a_run_at_ln_k_is_called_collapsed(cfg, tmp_path):
    shrunk = ("weight_decay=90", "momentum=0", "lr.high=0.01", "high_lr_layers=8")
    row = execute(cfg("layers=0", "epochs=4", *shrunk, f"results_dir={tmp_path}"))
    assert row["train_loss"] == pytest.approx(math.log(4), abs=0.01)
    assert row["collapsed"]
    assert not row["underfitted"]
    assert not row["diverged"]


LN4 = math.log(4)


@pytest.mark.parametrize(
    ("losses", "learned", "underfitted"),
    [
        pytest.param([LN4, 1.3, 1.22, 1.2], 1.2, True, id="near the loss of chance"),
        pytest.param([LN4, 1.3, 1.22, 1.2], 0.9, False, id="near it with dropout only"),
        pytest.param([LN4, 0.9, 0.8, 0.8], 1.3, False, id="near it by running means only"),
        pytest.param([1.3 - 0.1 * epoch for epoch in range(8)], 0.5, True, id="0.2 nats in the last quarter"),
        pytest.param([1.3 - 0.03 * epoch for epoch in range(8)], 1.0, False, id="0.06 nats in the last quarter"),
        pytest.param([1.3] * 4 + [0.9] * 4, 0.8, False, id="fell before, and no longer"),
        pytest.param([1.3 - 0.1 * epoch for epoch in range(8)], 0.1, False, id="little is left to fall"),
        pytest.param([1.3, 0.4], 0.4, False, id="too few epochs to say how it falls"),
        pytest.param([1.3, math.nan], 1.3, False, id="diverged, and so marked"),
    ],
)
def test_a_run_is_underfitted_near_chance_or_while_its_loss_falls_fast(losses, learned, underfitted):
    assert is_underfitted(losses, learned, classes=4) is underfitted


def test_a_run_of_two_updates_is_called_underfitted_and_one_of_many_is_not(cfg, tmp_path):
    few, many = ("epochs=1",), ("epochs=40", "lr.high=0.05", "high_lr_layers=8", "dropout=0", "augment=none")
    found = [execute(cfg("layers=0", *how, f"results_dir={tmp_path}")) for how in (few, many)]
    assert [row["underfitted"] for row in found] == [True, False]
    assert not any(row["collapsed"] for row in found)


def test_runs_use_the_first_n_of_their_own_classes(cfg):
    config = cfg("layers=0", "split=1", "target=A", "n_per_class=5")
    store = ImageCache.of(config)
    wanted = [store.source.decoder("train", c)(16)[:5] for c in halves(config, store.source.classes)["A"]]
    images, labels = selected(config, "train", CPU)[slice(None)]
    assert np.array_equal(images.numpy(), np.concatenate(wanted))
    assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5


def test_validation_uses_every_image_of_the_target_classes(cfg):
    config = cfg("layers=0", "n_per_class=1")
    store = ImageCache.of(config)
    wanted = [store.source.decoder("val", label)(16) for label in halves(config, store.source.classes)["B"]]
    assert np.array_equal(selected(config, "val", CPU)[slice(None)][0].numpy(), np.concatenate(wanted))


def test_an_evaluation_is_the_mean_over_its_images(cfg):
    config = cfg("layers=0")
    net, images = network(config, 4), selected(config, "val", CPU)
    whole = evaluate(net, config, images)
    one_by_one = [
        evaluate(net, config, Images(images.stored, images.rows[i : i + 1], images.labels[i : i + 1], CPU))
        for i in range(len(images))
    ]
    assert whole.loss == pytest.approx(np.mean([score.loss for score in one_by_one]), rel=1e-5)
    assert whole.top1 == np.mean([score.top1 for score in one_by_one])
    assert whole.right.tolist() == [bool(score.right[0]) for score in one_by_one]


def orders(cfg, *overrides):
    """The order of the images in each of two epochs."""
    still = ("epochs=2", "augment=none", "dropout=0", "lr.high=0", "batch_size=1", "weight_decay=0")
    config, seen = cfg("layers=0", *still, *overrides), []

    class Watched(Images):
        def __getitem__(self, which):
            seen.extend(which.tolist())
            return super().__getitem__(which)

    train = selected(config, "train", CPU)
    net = network(config, 4)
    list(fit(net, optimizers.optimizer(net, config), config, Watched(train.stored, train.rows, train.labels, CPU)))
    return seen[:16], seen[16:]


def test_every_epoch_has_its_own_order(cfg):
    first, second = orders(cfg)
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second


def test_the_seed_alone_decides_the_order(cfg):
    """Replicates of one split differ in it, and runs of several splits do not."""
    assert orders(cfg, "split=1") == orders(cfg, "target=A") == orders(cfg)
    assert len({str(orders(cfg, f"seed={seed}")) for seed in range(4)}) == 4


def test_the_first_image_of_a_class_is_even_and_the_second_odd():
    """Of each class by itself, however many images the classes before it have."""
    right = np.array([True, False, True, True, False, True, False, False])
    halves = run._halves(Score(0.0, 0.5, right), np.array([0, 0, 0, 1, 1, 2, 2, 2]))
    assert halves == {"val_top1_even": 4 / 5, "val_top1_odd": 0 / 3}
    alone = run._halves(Score(0.0, 1.0, right[:1]), np.array([0]))
    assert alone == {"val_top1_even": 1, "val_top1_odd": None}


@pytest.mark.parametrize(
    ("free", "reserved", "allocated", "workers", "expected"),
    [
        pytest.param(80, 0, 0, 1, 40, id="half of what is free"),
        pytest.param(20, 60, 0, 1, 40, id="the same for the second run of a process, which keeps what the first had"),
        pytest.param(40, 40, 40, 1, 20, id="then half of the rest"),
        pytest.param(100, 0, 0, 4, 12, id="four that look at once take half of the GPU together"),
        pytest.param(75, 25, 25, 2, 12, id="half of the rest of a share"),
        pytest.param(10, 0, 0, 2, 5, id="somebody else has nearly all"),
        pytest.param(30, 70, 60, 2, 0, id="more than its share already"),
    ],
)
def test_images_leave_half_of_a_workers_share_of_a_gpu_to_the_network(free, reserved, allocated, workers, expected):
    assert memory_budget(free, 100, reserved, allocated, workers) == expected


def test_a_curve_says_how_soon_a_run_was_good_and_when_its_rates_fell(plain):
    config = plain("schedule=plateau", "lr.patience=2", "curve=true")
    tops, losses = [0.5, 0.8, 0.797, 0.795, 0.801], [3.0, 2.0, 2.5, 2.5, 1.0]
    curve = [{"val_top1": top, "val_loss": loss} for top, loss in zip(tops, losses, strict=True)]
    found = _curve(curve, config)
    assert found["val_top1_best"] == 0.801
    assert found["epochs_to_near_best"] == 2
    assert found["epochs_to_first_fall"] == 4  # epochs 3 and 4 had no lower loss
    assert _curve(curve, plain("curve=true"))["epochs_to_first_fall"] is None
    assert _curve(curve[:3], config)["epochs_to_first_fall"] is None


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_weight_that_is_no_number_is_divergence_where_all_losses_are_numbers(cfg, value):
    """As after an overflow in the last update, of a unit that no image reaches."""
    net = network(cfg("layers=0"), 4)
    assert run._finite(net, 1.0, 2.0)
    assert not run._finite(net, 1.0, value)
    with torch.no_grad():
        net.stages["fc6"].get_parameter("bias")[3] = value
    assert not run._finite(net, 1.0, 2.0)
