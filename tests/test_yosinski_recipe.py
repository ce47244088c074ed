"""`recipe=yosinski` against the published Caffe solver, network and image preparation of Yosinski et al. (2014), and
the factors that it needs: what each does to the numbers of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from tests.test_train import Killed, killed_after, numbers
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.errors import ConfigError
from tlprotocols.images.augment import centre_draws, normalize
from tlprotocols.images.cache import ImageCache
from tlprotocols.images.folders import read_image
from tlprotocols.images.splits import target_classes
from tlprotocols.lr_schedule import rate
from tlprotocols.records import files, read_row
from tlprotocols.training import models, optimizers
from tlprotocols.training.loop import fit
from tlprotocols.training.models.caffenet import LocalResponseNorm
from tlprotocols.training.run import execute, network, selected, with_mean

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def published(composed):
    return composed("dataset=imagenet", "recipe=yosinski", "layers=3", "freeze=3", "n_per_class=full")


SOLVER = {  # caffe_imagenet_solver.prototxt and train.prototxt of github.com/yosinski/convnet_transfer
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.0005,
    "batch_size": 256,
    "schedule": "updates",  # lr_policy: "step"
    "max_updates": 450_000,
    "bias_lr": 2,  # blobs_lr: 1, 2
    "bias_decay": 0,  # weight_decay: 1, 0
    "dropout": 0.5,
    "augment": "crop_flip",
    "precision": "fp32",
    "stop_after": 0,
}


@pytest.mark.parametrize(("key", "value"), SOLVER.items())
def test_a_run_and_its_base_have_the_published_solver(published, key, value):
    assert getattr(published, key) == getattr(published.base, key) == value


def test_the_rate_falls_tenfold_every_100000_updates_in_every_layer(published):
    assert (published.lr.high, published.lr.low, published.lr.gamma, published.lr.step_updates) == (
        *(0.01, 0.01, 0.1),
        100_000,
    )
    assert published.base.lr.high == 0.01
    for update, expected in {0: 1e-2, 99_999: 1e-2, 100_000: 1e-3, 250_000: 1e-4, 300_000: 1e-5, 449_999: 1e-6}.items():
        for layer in published.model.stages:
            assert rate(published, layer, 0, update=update) == pytest.approx(expected, rel=1e-12)


def test_images_are_prepared_as_published(published):
    data = published.dataset
    assert (data.side, data.resize, data.pixels, data.pad, data.mean_of) == (256, "squash", 227, 0, "source")
    assert data.std == pytest.approx((1 / 255,) * 3, rel=1e-15)  # values stay on Caffe's scale of 0 to 255
    assert int(centre_draws(data, 1).top) == (256 - 227) // 2


PARAMETERS = {  # of train.prototxt, 1000 classes: filters x (inputs / group x size) + biases
    "conv1": 96 * 3 * 11 * 11 + 96,
    "conv2": 256 * 48 * 5 * 5 + 256,
    "conv3": 384 * 256 * 3 * 3 + 384,
    "conv4": 384 * 192 * 3 * 3 + 384,
    "conv5": 256 * 192 * 3 * 3 + 256,
    "fc6": 4096 * 256 * 6 * 6 + 4096,
    "fc7": 4096 * 4096 + 4096,
    "fc8": 1000 * 4096 + 1000,
}
INITIAL = {  # std of the gaussian weights, constant biases
    **{"conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.01, 0), "conv4": (0.01, 1), "conv5": (0.01, 1)},
    **{"fc6": (0.005, 1), "fc7": (0.005, 1), "fc8": (0.01, 0)},
}


def test_caffenet_has_the_published_layers_and_initial_weights(published):
    torch.manual_seed(0)
    net = models.build(published, 1000)
    assert {name: sum(p.numel() for p in m.parameters()) for name, m in net.stages.items()} == PARAMETERS
    assert sum(PARAMETERS.values()) == 60_965_224
    for name, (std, bias) in INITIAL.items():
        layer = net.stages[name].state_dict()
        assert float(layer["weight"].std()) == pytest.approx(std, rel=0.02), name
        assert set(layer["bias"].tolist()) == {bias}, name


def reference(net):
    """The layers in the order of train.prototxt, of torch's own modules, with the weights of `net`."""
    conv = [net.stages[f"conv{i}"] for i in range(1, 6)]
    fc = [net.stages[f"fc{i}"] for i in (6, 7, 8)]
    pool, norm = nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
    first = [conv[0], nn.ReLU(), pool, norm, conv[1], nn.ReLU(), pool, norm]
    rest = [conv[2], nn.ReLU(), conv[3], nn.ReLU(), conv[4], nn.ReLU(), pool, nn.Flatten()]
    return nn.Sequential(*first, *rest, fc[0], nn.ReLU(), nn.Dropout(), fc[1], nn.ReLU(), nn.Dropout(), fc[2])


@pytest.mark.parametrize("pixels", [55, 67])
def test_caffenet_computes_what_the_published_layers_compute_in_their_order(plain, pixels):
    net = models.build(
        plain("model=caffenet", f"dataset.side={pixels}", f"dataset.pixels={pixels}", "model.width=1", "dropout=0.5"), 5
    )
    wanted, images = reference(net), 50 * torch.randn(3, 3, pixels, pixels)
    for train in (False, True):  # with the same draws of dropout after fc6 and after fc7
        outputs = []
        for module in (net, wanted):
            torch.manual_seed(1)
            outputs.append(module.train(train)(images))
        torch.testing.assert_close(*outputs)
    gradients = []
    for module in (net.eval(), wanted.eval()):
        module.zero_grad()
        module(images).square().sum().backward()
        gradients.append(net.get_parameter("body.0.weight").grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=float(1e-4 * gradients[0].abs().max()))
    groups = {name: m.groups for name, m in net.stages.items() if isinstance(m, nn.Conv2d)}
    assert groups == {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}


def test_response_normalisation_is_torchs_where_it_matters():
    maps = 100 * torch.randn(2, 9, 4, 4)
    expected = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)(maps)
    assert not torch.allclose(expected, maps, rtol=0.05)
    torch.testing.assert_close(LocalResponseNorm()(maps), expected)


@pytest.mark.parametrize("size", [(53, 37), (37, 53), (16, 16), (16, 17), (8, 9), (100, 33)])
def test_squash_is_torchvisions_resize_to_a_square(tmp_path, size):
    file = tmp_path / "picture.png"
    noise = np.random.RandomState(0).randint(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    expected = np.asarray(transforms.Resize((16, 16))(Image.fromarray(noise)))
    assert np.array_equal(read_image(file, 16, resize="squash"), expected)
    assert np.array_equal(read_image(file, 16), expected) == (size == (16, 16))


def test_squashed_images_have_a_cache_of_their_own(cfg):
    config = cfg("dataset.resize=squash")
    centre, squash = ImageCache.of(cfg()), ImageCache.of(config)
    assert centre.folder != squash.folder
    squash.ensure({("train", 0)}, workers=1)
    file = sorted((Path(config.dataset.root) / "train" / "ant").iterdir())[0]
    assert np.array_equal(squash.rows("train")[0], read_image(file, 16, resize="squash"))
    assert not np.array_equal(squash.rows("train")[0], read_image(file, 16))


def pixel_mean(config):
    cache, offsets = ImageCache.of(config), ImageCache.of(config).offsets("train")
    parts = [
        cache.rows("train")[offsets[i] :][: int(config.n_per_class)] for i in target_classes(config, cache.classes)
    ]
    return tuple(np.concatenate(parts).reshape(-1, 3).mean(0, dtype=np.float64) / 255)


def test_a_network_subtracts_the_mean_of_the_images_that_its_source_learned(cfg, tmp_path):
    """AnB that of half A, BnB and baseB that of half B, each over the images that were learned; the row says it."""
    common = ("dataset.mean_of=source", "base.n_per_class=3", "n_per_class=2", f"results_dir={tmp_path}")
    other, same, alone = (
        cfg(*common, f"layers={n}", f"base={b}") for n, b in ((4, "trained"), (4, "self"), (0, "none"))
    )
    for config in (other, same):
        execute(base_of(config), role="base")
    means = {}
    for name, config, source in (("AnB", other, base_of(other)), ("BnB", same, base_of(same)), ("baseB", alone, alone)):
        row = execute(config)
        expected = pixel_mean(source)
        means[name] = tuple(map(float, row["pixel_mean"].split(",")))
        assert means[name] == pytest.approx(expected, rel=1e-12)
        assert "dataset.mean" not in row
    assert len(set(means.values())) == 3
    assert read_row(files(base_of(other)).row)["pixel_mean"] == read_row(files(other).row)["pixel_mean"]
    images = selected(other, "train", CPU)
    crops = images.stored[torch.from_numpy(images.rows)]
    expected = (crops.double().div(255) - torch.tensor(means["AnB"]).double()) / torch.tensor(
        other.dataset.std
    ).double()
    found = normalize(crops, with_mean(other, images).dataset)
    torch.testing.assert_close(found.permute(0, 2, 3, 1).double(), expected, rtol=1e-5, atol=1e-5)


def test_cached_features_of_images_with_another_mean_are_others(cfg, tmp_path):
    """Two and four images per class have two means; the features of the first two are not those of the run before."""
    frozen = ("layers=0", "freeze=7", "freeze_random=true", "augment=none", "dropout=0", "dataset.mean_of=source")
    found = {}
    for cached in ("true", "false"):
        for n in (2, 4):
            where = (f"results_dir={tmp_path / cached}", f"machine.cache_features={cached}", f"n_per_class={n}")
            row = execute(cfg(*frozen, *where))
            found[cached, n] = {key: row[key] for key in ("train_loss", "val_loss", "pixel_mean")}
    assert found["true", 2] == found["false", 2]
    assert found["true", 4] == found["false", 4]
    assert found["true", 2]["pixel_mean"] != found["true", 4]["pixel_mean"]


def test_the_mean_of_constants_is_the_written_one(cfg):
    config = cfg("dataset.mean=[0.1,0.2,0.3]")
    assert with_mean(config, selected(config, "train", CPU)) == config
    assert "dataset.mean_of=source: must be constants with base=weights" in refused(
        cfg, "dataset.mean_of=source", "base=weights", "base.weights=x.pt"
    )
    assert run_id(cfg("dataset.mean_of=source", "dataset.mean=[0.1,0.2,0.3]")) == run_id(cfg("dataset.mean_of=source"))


def refused(make, *overrides):
    with pytest.raises(ConfigError) as caught:
        make(*overrides)
    return str(caught.value)


def test_biases_learn_at_their_own_rate_and_without_decay(cfg):
    """Three updates by hand: weights at the layer's rate with decay, biases at twice the rate with none."""
    rates = ("lr.high=0.5", "lr.low=0.25", "weight_decay=0.25", "momentum=0.9", "bias_lr=2", "bias_decay=0")
    config = cfg("layers=0", *rates)
    net = network(config, 4)
    before = {name: value.clone() for name, value in net.named_parameters()}
    sgd = optimizers.optimizer(net, config)
    optimizers.set_rates(sgd, config, 0)
    for _ in range(3):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        sgd.step()
    stage_of = {id(p): layer for layer, module in net.stages.items() for p in module.parameters()}
    for name, value in net.named_parameters():
        lr = 0.5 if stage_of[id(value)] == "fc8" else 0.25
        lr, decay = (2 * lr, 0.0) if name.endswith("bias") else (lr, 0.25)
        expected, velocity = before[name], torch.zeros_like(value)
        for _ in range(3):
            velocity = 0.9 * velocity + (1 + decay * expected)
            expected = expected - lr * velocity
        torch.testing.assert_close(value.detach(), expected)


def test_factors_of_one_are_plain_sgd_bit_for_bit(cfg):
    """Two groups with equal values are one: the multiples alone change what is computed."""
    weights = []
    for multiple in (1, 1 + 1e-15):  # the second has two groups a layer
        config = cfg("layers=0", "epochs=2", f"bias_lr={multiple}", "bias_decay=1", "dropout=0.3")
        net = network(config, 4)
        sgd = optimizers.optimizer(net, config)
        assert len(sgd.param_groups) == (8 if multiple == 1 else 16)
        list(fit(net, sgd, config, selected(config, "train", CPU)))
        weights.append([value.detach().clone() for value in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


SMALL = (
    "layers=0",
    "batch_size=5",
    "schedule=updates",
    "dropout=0.3",
    "augment=crop_flip",
    "bias_lr=2",
    "bias_decay=0",
)


def test_rates_fall_after_so_many_updates_also_inside_an_epoch(cfg):
    """Sixteen images in batches of five are four updates an epoch; the rates fall at the sixth and at the twelfth."""
    config = cfg(*SMALL, "epochs=4", "lr.step_updates=6", "lr.high=0.01", "high_lr_layers=8")
    net = network(config, 4)
    sgd, seen = optimizers.optimizer(net, config), []
    sgd.register_step_post_hook(lambda *_: seen.append([group["lr"] for group in sgd.param_groups[:2]]))
    list(fit(net, sgd, config, selected(config, "train", CPU)))
    weights = [0.01] * 6 + [0.001] * 6 + [0.0001] * 4
    assert [pair[0] for pair in seen] == pytest.approx(weights, rel=1e-12)
    assert [pair[1] for pair in seen] == pytest.approx([2 * value for value in weights], rel=1e-12)


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_killed_and_resumed_is_never_stopped_where_rates_fall_inside_an_epoch(cfg, tmp_path, killed):
    rows = {}
    for name in ("whole", "killed"):
        budget = ("max_updates=14", "lr.step_updates=6", "dataset.mean_of=source", "machine.checkpoint_minutes=0")
        config = cfg(*SMALL, *budget, f"results_dir={tmp_path / name}")
        if name == "killed":
            with pytest.raises(Killed):
                execute(config, advance=killed_after(killed))
        rows[name] = execute(config)
    assert numbers(rows["whole"]) == numbers(rows["killed"])
    assert rows["whole"]["updates"] == 14


def test_the_schedule_by_updates_reads_neither_epochs_nor_decay_epochs(plain):
    by_updates = ("schedule=updates", "lr.step_updates=50")
    assert run_id(plain(*by_updates, "decay_epochs=1", "lr.step=3")) == run_id(plain(*by_updates))
    assert run_id(plain("lr.step_updates=50")) == run_id(plain())  # read by this schedule alone


def test_a_rate_by_updates_has_no_table_by_epochs(command):
    ended = command("schedule=updates", module="tlprotocols.lr_schedule")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("schedule=updates: the images decide how many epochs lr.step_updates=100000")


def test_the_miniature_is_the_recipe_on_a_network_that_trains_at_its_size(composed):
    recipe, small = (composed("dataset=tiny_imagenet", f"recipe={name}") for name in ("yosinski", "miniature_yosinski"))
    same = ("optimizer", "momentum", "weight_decay", "schedule", "bias_lr", "bias_decay", "augment")
    for one, other in ((recipe, small), (recipe.base, small.base), (small, small.base)):
        assert [getattr(one, key) for key in same] == [getattr(other, key) for key in same]
    assert (small.lr.high, small.lr.low, small.base.lr.high) == (0.01, 0.01, 0.01)
    assert (small.model.name, small.dataset.resize, small.dataset.mean_of) == ("alexnet_small", "squash", "source")
    assert (small.max_updates, small.lr.step_updates) == (small.base.max_updates, small.base.lr.step_updates)


def test_caffenet_at_full_size_has_the_shapes_of_the_published_log(published):
    net = models.build(published, 500)
    shapes = []
    for module in net.modules():
        if isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        assert net.eval()(torch.zeros(1, 3, 227, 227)).shape == (1, 500)
    assert shapes == [(96, 27, 27), (256, 13, 13), (256, 6, 6)]
