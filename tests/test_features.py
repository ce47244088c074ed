"""Heads, enlarged inputs, and features that are computed once where everything before the head is frozen."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as torchvision

from tlprotocols.config.identity import base_of, run_id
from tlprotocols.config.models import MODELS
from tlprotocols.errors import ConfigError
from tlprotocols.images.augment import normalize
from tlprotocols.images.cache import ImageCache
from tlprotocols.launching.driver import sweep
from tlprotocols.launching.local import Local
from tlprotocols.planning.cost import cost, guess, kind_of
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.records import files, read_row
from tlprotocols.training import features, models, transfer
from tlprotocols.training.models.network import CHUNK
from tlprotocols.training.run import execute, load_images, network

CPU = torch.device("cpu")
PROBE = ("layers=all", "freeze=all", "high_lr_layers=1", "augment=none", "epochs=3", "batch_size=5")
MEASURED_ANEW = ("seconds", "images_per_second", "date", "log", "features_cached", "peak_memory_mb")
DROPPED = [name for name, spec in MODELS.items() if not spec.dropout_inside]


@pytest.fixture
def probe(composed, tiny, tmp_path):
    """A feature extractor on the shapes, its base trained."""

    def made(*overrides, model="convnet", results="results"):
        width = max(0.1, MODELS[model].width[0])
        own = (f"model={model}", f"model.width={width}", f"results_dir={tmp_path / results}")
        config = resolved(composed(*tiny, *own, f"machine.image_cache={tmp_path}/cache", *PROBE, *overrides))
        if (base := base_of(config)) is not None:
            execute(base, role="base")
        return config

    return made


def rows_of(folder):
    return sorted(path.name for path in folder.glob("features-*"))


def without_clocks(row):
    return {key: value for key, value in row.items() if key not in MEASURED_ANEW}


def test_a_head_of_hidden_layers_has_the_published_number_of_parameters(plain):
    # DenseNet-121's 1024 features, 512 and 128 hidden units, 10 classes
    config = plain("model=densenet121", "head=[512,128]", "dropout=0.3")
    head = models.build(config, 10).stages["classifier"]
    assert isinstance(head, nn.Sequential)
    assert sum(value.numel() for value in head.parameters()) == 591_754
    assert [type(m).__name__ for m in head] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [m.p for m in head if isinstance(m, nn.Dropout)] == [0.3, 0.3]


@pytest.mark.parametrize("model", MODELS)
def test_a_head_replaces_the_last_stage_of_every_model(plain, model):
    side = max(32, MODELS[model].pixels[0])
    overrides = (f"model={model}", f"dataset.side={side}", f"dataset.pixels={side}")
    with torch.device("meta"):
        one = models.build(plain(*overrides), 5)
        net = models.build(plain(*overrides, "head=[7]"), 5)
        assert net(torch.zeros(2, 3, side, side)).shape == (2, 5)
    assert [m.out_features for m in list(net.stages.values())[-1].modules() if isinstance(m, nn.Linear)] == [7, 5]
    in_stages = [id(v) for stage in net.stages.values() for v in (*stage.parameters(), *stage.buffers())]
    assert sorted(in_stages) == sorted(id(v) for v in (*net.parameters(), *net.buffers()))
    assert [type(m) for m in net.body.modules()] == [type(m) for m in one.body.modules()]


def test_a_base_has_a_head_of_one_layer_whatever_the_runs_have(plain):
    bases = {run_id(base_of(plain(*overrides))) for overrides in ((), ("head=[16]",), ("head=[16,8]",))}
    assert len(bases) == 1


@pytest.mark.parametrize("head", ["[]", "[0]", "16", "[a]"])
def test_a_head_that_is_none_is_refused(plain, head):
    with pytest.raises(ConfigError, match=r"^head(\[|=)"):
        plain(f"head={head}")


def test_enlarged_inputs_are_torchvisions_bilinear_resize(plain):
    dataset = plain("dataset.upscale=80").dataset
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    plain_input = normalize(images, dataclasses.replace(dataset, upscale=0))
    expected = torchvision.resize(plain_input, [80, 80], antialias=False)
    assert torch.equal(normalize(images, dataset), expected)


def test_a_network_for_large_images_takes_small_ones_enlarged(plain):
    overrides = ("model=alexnet", "recipe=plested2019", "dataset.pixels=32", "dataset.side=32")
    with pytest.raises(ConfigError, match=r"dataset.pixels=32: must be from 63"):
        plain(*overrides)
    config = plain(*overrides, "dataset.upscale=224")
    net = models.build(config, 5)
    assert net(normalize(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), config.dataset)).shape == (1, 5)
    for wrong in (31, 62, 513):
        with pytest.raises(ConfigError, match=f"dataset.upscale={wrong}: must be 0, or from 63 to 512"):
            plain(*overrides, f"dataset.upscale={wrong}")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["convnet", "resnet18", "efficientnet_b0"])
def test_cached_features_change_no_bit(probe, model, precision):
    rows, nets = [], []
    for cached in ("true", "false"):
        config = probe(
            *("head=[16]", "dropout=0.3", f"precision={precision}", f"machine.cache_features={cached}"),
            model=model,
            results=cached,
        )
        rows.append(execute(dataclasses.replace(config), role="base"))
        nets.append(files(config).weights.read_bytes())
    assert [row["features_cached"] for row in rows] == [True, False]
    assert without_clocks(rows[0]) == without_clocks(rows[1])
    assert nets[0] == nets[1]
    assert rows[0]["train_loss"] != rows[0]["train_eval_loss"]  # dropout acts in the head


def test_features_depend_on_no_other_image(probe):
    config = probe(model="resnet18")
    net = network(config, 4).to(memory_format=torch.channels_last)
    net.eval()
    images = torch.randn(CHUNK + 9, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    whole = net.features(images)
    assert torch.equal(net.features(images[3:4]), whole[3:4])
    assert torch.equal(net.features(images.flip(0)), whole.flip(0))


def test_features_are_computed_once_for_all_runs_of_a_base(probe, tmp_path, monkeypatch):
    passed = []
    original = models.Network.features

    def counted(net, images):
        passed.append(len(images))
        return original(net, images)

    monkeypatch.setattr(models.Network, "features", counted)
    for seconds in ("0.01", "0.02", "0.03"):
        execute(probe(f"lr.high={seconds}"))
    assert sum(passed) == 4 * (4 + 4)  # four target classes, four training and four validation images each
    assert len(rows_of(tmp_path / "cache")) == 1
    execute(probe("n_per_class=6"))
    assert sum(passed) == 4 * (6 + 4)
    execute(probe("seed=1"))  # another base
    assert len(rows_of(tmp_path / "cache")) == 2


@pytest.mark.parametrize("damage", ["features", "crc32", "gone", "short"])
def test_damaged_features_are_computed_again(probe, tmp_path, damage):
    config = probe()
    first = execute(config)
    (folder,) = (tmp_path / "cache").glob("features-*")
    file = folder / f"train.{'crc32' if damage == 'crc32' else 'features'}"
    content = bytearray(file.read_bytes())
    content[8] ^= 1
    match damage:
        case "gone":
            file.unlink()
        case "short":
            file.write_bytes(content[: len(content) // 2])
        case _:
            file.write_bytes(content)
    files(config).row.unlink()
    assert without_clocks(execute(config)) == without_clocks(first)


@pytest.mark.parametrize(
    "changed",
    ["augment=flip", "freeze=all-1", "machine.cache_features=false", pytest.param("layers=0 freeze=1", id="scratch")],
)
def test_what_is_not_fixed_is_not_cached(probe, tmp_path, changed):
    row = execute(probe(*changed.split(), "freeze_random=true"))
    assert not row["features_cached"]
    assert rows_of(tmp_path / "cache") == []


@pytest.mark.parametrize("model", MODELS)
def test_dropout_inside_a_model_is_where_the_specification_says(plain, model):
    side = max(32, MODELS[model].pixels[0])
    images = (f"dataset.side={side}", f"dataset.pixels={side}")
    config = plain(f"model={model}", *images, "dropout=0.5", "layers=all", "freeze=all")
    with torch.device("meta"):
        net = models.build(config, 5)
    transfer.freeze(net, list(net.stages)[:-1])
    net.train()
    draws = [m for m in net.body.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p]
    assert bool(draws) == MODELS[model].dropout_inside


def test_random_frozen_layers_have_features_too(probe):
    one, other = (execute(probe("layers=0", "freeze=all", "freeze_random=true", f"seed={seed}")) for seed in (0, 1))
    assert one["features_cached"]
    assert other["features_cached"]
    assert one["train_loss"] != other["train_loss"]


def test_test_images_have_features_as_well(probe):
    on, off = (execute(probe("test_per_class=3", f"machine.cache_features={c}", results=c)) for c in ("true", "false"))
    assert on["test_images"] == 12
    assert without_clocks(on) == without_clocks(off)


def test_two_workers_share_features(probe, tmp_path):
    configs = [probe(f"head=[{units}]") for units in (4, 8, 12)]
    assert all(row for row in sweep(configs, Local(workers=2, gpus=None, per_gpu=1, dry_run=False, retry_failed=False)))
    assert len(rows_of(tmp_path / "cache")) == 1
    assert len({read_row(files(config).row)["train_loss"] for config in configs}) == 3


def test_a_plan_counts_the_body_once(probe):
    configs = [probe(f"head=[{units}]") for units in (4, 8, 12)]
    less, same, more = sorted(cost(plan(configs), here=True).seconds.values())
    assert less == same < more
    assert guess(configs[0]) >= guess(dataclasses.replace(configs[0], augment="flip"))
    assert len({kind_of(config) for config in configs}) == 3


def test_trainable_parameters_are_those_of_the_stages_that_learn(probe):
    config = probe("head=[16]")
    net = network(config, 4)
    expected = sum(value.numel() for value in net.stages["fc"].parameters())
    assert execute(config)["trainable_parameters"] == expected


def test_features_keep_the_order_of_the_images(probe):
    config = probe()
    images = load_images(config, CPU, print).train
    net = network(config, 4).to(memory_format=torch.channels_last)
    found = features.features(net, config, {"train": images})["train"]
    batch, labels = images[torch.arange(len(images))]
    assert torch.equal(found[torch.arange(len(images))][1], labels)
    pixels = normalize(batch, config.dataset)  # images of 16 pixels, a crop of 16
    assert np.array_equal(found[slice(0, 8)][0].numpy(), net.features(pixels)[:8].numpy())
    assert ImageCache.of(config).folder.exists()
