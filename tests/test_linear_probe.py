"""The linear probe: an exact classifier of features, which changes nothing of a run but one column."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tlprotocols.config.identity import base_of, run_id
from tlprotocols.errors import ConfigError
from tlprotocols.images.augment import normalize
from tlprotocols.images.cache import ImageCache, images_needed
from tlprotocols.images.splits import probed_classes
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.records import finished_row
from tlprotocols.training.linear_probe import PENALTY, probe
from tlprotocols.training.loop import Images, middle_crops
from tlprotocols.training.models import build
from tlprotocols.training.run import execute, probed, selected

CPU = torch.device("cpu")
DRAWN = ("classes=drawn", "classes.sizes=[3,3,2]", "model=convnet", "model.width=0.1")


def test_it_is_ridge_regression_of_the_classes(cfg):
    """The same answers as the textbook's normal equations on the features, computed with numpy."""
    config = cfg(*DRAWN, "layers=0", "probe=true")
    torch.manual_seed(0)
    net = build(config, 3).eval()

    @torch.no_grad()
    def features(images):
        pairs = [(net.body(normalize(x, config.dataset)), labels) for x, labels in middle_crops(config, images)]
        return (torch.cat(part).double().numpy() for part in zip(*pairs, strict=True))

    (x, y), (tested, wanted) = (features(images) for images in probed(config, CPU))
    y, mean, sd = y.astype(int), x.mean(0), x.std(0)
    kept = sd > 0
    z = (x[:, kept] - mean[kept]) / sd[kept]
    one_hot = np.eye(3)[y] - np.eye(3)[y].mean(0)
    slopes = np.linalg.solve(z.T @ z + PENALTY * len(z) * np.eye(z.shape[1]), z.T @ one_hot)
    scores = (tested[:, kept] - mean[kept]) / sd[kept] @ slopes + np.eye(3)[y].mean(0)
    assert probe(net, config, *probed(config, CPU)) == pytest.approx((scores.argmax(1) == wanted).mean())


def test_its_images_are_those_of_the_source_group_A_and_none_that_was_trained_on_is_tested(cfg):
    config = cfg(*DRAWN, "classes.source_group=more", "layers=1", "probe=true", "split=3", "base.n_per_class=4")
    cache = ImageCache.of(config)
    labels = probed_classes(config, cache.classes)
    train, tested = probed(config, CPU)
    assert (len(train), len(tested)) == (3 * 4, 3 * 4)
    base = dataclasses.replace(base_of(config), classes=dataclasses.replace(config.classes, source_group="A"))
    assert np.array_equal(train.rows, selected(base, "train", CPU).rows)
    assert set(tested.rows.tolist()) == {4 * label + place for label in labels for place in range(4)}
    assert images_needed(config) > images_needed(dataclasses.replace(config, probe=False))


def test_a_run_is_the_same_run_with_and_without_it(cfg, tmp_path):
    """It is a measurement: same id, same bits; a finished run that lacks it is run again, one that has it is not."""
    settings = (*DRAWN, "layers=0", "protocol=scratch", f"results_dir={tmp_path}")
    without, with_it = cfg(*settings), cfg(*settings, "probe=true")
    assert run_id(without) == run_id(with_it)
    before = execute(without)
    assert "probe_top1" not in before
    assert finished_row(with_it, "run") is None
    after = execute(with_it)
    assert 0 <= after["probe_top1"] <= 1
    same = ("train_loss", "train_eval_loss", "val_loss", "val_top1")
    assert [after[key] for key in same] == [before[key] for key in same]
    assert finished_row(with_it, "run") == finished_row(without, "run") == after


def test_the_plan_counts_its_images(cfg):
    """Of each of three target classes 4 training and 4 validation images, and as many of the three of A."""
    for switch, evaluated in (("false", 3 * (4 + 4)), ("true", 6 * (4 + 4))):
        (run,) = plan([cfg(*DRAWN, "layers=0", f"probe={switch}")]).requested
        assert (run.images, run.evaluated) == (3 * 4, evaluated)


def test_a_network_whose_features_are_computed_once_is_probed_on_the_same_ones(cfg, tmp_path):
    """The untrained arm: both convolutions frozen at random weights, with and without the cache of features."""
    frozen = ("layers=0", "freeze=2", "freeze_random=true", "augment=none", "dropout=0", "probe=true")
    rows = [
        execute(cfg(*DRAWN, *frozen, f"machine.cache_features={cached}", f"results_dir={tmp_path / cached}"))
        for cached in ("true", "false")
    ]
    assert [row["features_cached"] for row in rows] == [True, False]
    assert rows[0]["probe_top1"] == rows[1]["probe_top1"]


def test_the_base_of_a_probed_run_is_not_probed(cfg):
    assert not base_of(cfg(*DRAWN, "layers=1", "probe=true")).probe


def test_the_baseline_is_the_base_of_the_own_classes_and_keeps_its_probe(cfg):
    """With one recipe for both, as in recipe=boost2018, one network serves both, whatever the order."""
    recipe = ["lr.low=${lr.high}", "base.lr.high=${lr.high}", "base.lr.step=${lr.step}", "base.n_per_class=4"]
    recipe += ("base.weight_decay=${weight_decay}", "base.augment=${augment}", "base.dropout=${dropout}")
    recipe += ("base.shards=1", "shards=1", "high_lr_layers=all", "decay_epochs=${lr.step}", "probe=true")
    baseline, own = cfg(*DRAWN, *recipe, "layers=0"), cfg(*DRAWN, *recipe, "layers=1", "base=self")
    for order in ((baseline, own), (own, baseline)):
        planned = plan(order)
        assert len(planned.runs) == 2
        assert planned.runs[run_id(baseline)].role == "base"
        assert planned.runs[run_id(baseline)].config.probe


def test_features_that_are_not_numbers_have_the_accuracy_of_the_first_class(cfg):
    config = cfg(*DRAWN, "layers=0", "probe=true")
    train, tested = probed(config, CPU)
    net = build(config, 3)
    nn.init.constant_(next(net.stages["conv2"].parameters()), float("nan"))
    assert probe(net, config, train, tested) == pytest.approx(1 / 3)


def test_an_untrained_network_tells_colours_apart(cfg):
    """The classes of the shapes differ in colour: random features suffice, shuffled labels do not."""
    config = cfg(*DRAWN, "layers=0", "probe=true", "n_per_class=12", "model.width=1")
    train, tested = probed(config, CPU)
    torch.manual_seed(0)
    net = build(config, 3)
    turned = Images(tested.stored, tested.rows, (tested.labels + 1) % 3, tested.device)
    assert probe(net, config, train, tested) > 0.6
    assert probe(net, config, train, turned) < 0.4


def test_classes_with_too_few_images_to_be_probed_are_named(cfg, composed, tiny, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "few")
    config = cfg(*DRAWN, "layers=0", "n_per_class=12")
    label = probed_classes(config, ImageCache.of(config).classes)[0]
    name = ImageCache.of(config).classes[label]
    (root / "train" / name / "000.png").unlink()

    few = (*tiny, *DRAWN, "layers=0", "n_per_class=12", f"dataset.root={root}", f"machine.image_cache={tmp_path}")
    assert resolved(composed(*few))
    with pytest.raises(ConfigError, match=f"^n_per_class=12: class {name} has only 11 training images"):
        resolved(composed(*few, "probe=true"))
