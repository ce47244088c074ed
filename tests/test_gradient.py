"""The gradient of a batch in shards: the same sum, whatever the cores, and dropout that no thread can disturb."""

import dataclasses
import time

import pytest
import torch
from torch import nn

from tlprotocols.training import optimizers, transfer
from tlprotocols.training import shards as gradient
from tlprotocols.training.models import build
from tlprotocols.training.shards import Dropout, Gradient

CPU = torch.device("cpu")


def batch(config, images=16):
    draw = torch.Generator().manual_seed(0)
    pixels = config.dataset.pixels
    crops = torch.randint(0, 256, (images, pixels, pixels, 3), dtype=torch.uint8, generator=draw)
    return crops, torch.randint(0, 4, (images,), generator=draw)


def fresh(config):
    torch.manual_seed(0)
    return build(config, 4)


def learned(config, images=16):
    """Loss and gradients of one batch."""
    net = fresh(config)
    transfer.freeze(net, config.frozen())
    with Gradient(net, config, CPU) as learn:
        learn.begin(0)
        loss = learn(*batch(config, images))
    return loss, [weight.grad for weight in net.parameters()]


@pytest.mark.parametrize("shards", [2, 3, 16, 20])
@pytest.mark.parametrize("images", [16, 15, 2, 1])
def test_the_gradient_in_shards_is_the_gradient(cfg, shards, images):
    whole_loss, whole = learned(cfg("dropout=0", "shards=1"), images)
    loss, parts = learned(cfg("dropout=0", f"shards={shards}"), images)
    torch.testing.assert_close(loss, whole_loss)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("last", [1, 2, 3])
def test_no_bit_depends_on_which_shard_ends_first(cfg, monkeypatch, last):
    config = cfg("dropout=0.4", "shards=4", "precision=fp32")  # sums of bf16 gradients are often exact in any order
    expected_loss, expected = learned(config)
    real, ended = gradient._backward, []

    def late(net, crops, labels, *more):
        shard = crops.storage_offset() // crops.numel()  # four images each, cut from one tensor
        time.sleep(0.3 * ((shard - last - 1) % 4))
        loss = real(net, crops, labels, *more)
        ended.append(shard)
        return loss

    monkeypatch.setattr(gradient, "_backward", late)
    loss, found = learned(config)
    assert ended == [(last + 1 + place) % 4 for place in range(4)]
    assert torch.equal(loss, expected_loss)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_second_batch_adds_nothing_to_the_gradient_of_the_first(cfg):
    config = cfg("dropout=0", "shards=2")
    net = fresh(config)
    found = []
    with Gradient(net, config, CPU) as learn:
        for _ in range(2):
            learn.begin(0)
            learn(*batch(config))
            found.append([weight.grad.clone() for weight in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_all_shards_see_an_update(cfg):
    config = cfg("dropout=0", "shards=2")
    net = fresh(config)
    sgd = optimizers.optimizer(net, config)
    with Gradient(net, config, CPU) as learn:
        learn.begin(0)
        before = learn(*batch(config))
        sgd.step()
        learn.begin(0)
        after = learn(*batch(config))
        alone = dataclasses.replace(config, shards=1)
    with Gradient(net, alone, CPU) as learn:
        learn.begin(0)
        torch.testing.assert_close(learn(*batch(config)), after)
    assert after < before


def test_frozen_layers_have_no_gradient_in_any_shard(cfg):
    _, found = learned(cfg("layers=0", "freeze=3", "freeze_random=true", "shards=2"))
    assert [grad is None for grad in found] == [True] * 6 + [False] * 10


def test_shards_drop_different_units_and_each_epoch_its_own(cfg):
    config = cfg("dropout=0.5", "shards=2")
    crops, labels = batch(config, 8)
    twice = crops.repeat(2, 1, 1, 1), labels.repeat(2)  # both shards have the same images
    with Gradient(fresh(config), config, CPU) as learn:
        kept: dict[int, list] = {0: [], 1: []}
        for shard, net in enumerate(learn.nets):
            drops = [module for module in net.modules() if isinstance(module, nn.Dropout | Dropout)]
            assert len(drops) == 2
            last = drops[-1]
            last.register_forward_hook(lambda module, given, units, shard=shard: kept[shard].append(units != 0))
        losses = []
        for epoch in (0, 0, 1):
            learn.begin(epoch)
            losses.append(learn(*twice).item())
    assert losses[0] == losses[1] != losses[2]
    for one, other in zip(kept[0], kept[1], strict=True):
        assert not torch.equal(one, other)
    for seen in kept.values():
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(("width", "expected"), [(1, 0), (2, 1)])
def test_only_a_large_network_shares_the_arena(cfg, monkeypatch, width, expected):
    called = []
    monkeypatch.setattr(gradient, "one_arena", lambda: called.append(True))
    overrides = f"model.width={width}", "dataset.side=32", "dataset.pixels=32"  # the largest layer has 4 MB, 16 MB
    for shards in (1, 2):
        config = cfg(*overrides, f"shards={shards}")
        with Gradient(fresh(config), config, CPU):
            pass
        assert len(called) == (expected if shards == 2 else 0)


def test_our_dropout_is_that_of_torch():
    units = torch.randn(64, 32)
    torch.manual_seed(3)
    expected = nn.Dropout(0.3)(units)
    ours = Dropout(0.3, torch.Generator().manual_seed(3))
    assert torch.equal(ours(units), expected)
    assert torch.equal(ours.eval()(units), units)
    assert torch.equal(Dropout(0, torch.Generator())(units), units)
