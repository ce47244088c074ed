"""DenseNet-BC of the hybrid study: its size, its layers, where dropout acts, and that checkpointing changes no bit."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import DenseNet
from torchvision.ops import SqueezeExcitation

from tlprotocols.config.validate import build
from tlprotocols.errors import ConfigError
from tlprotocols.training import models, transfer
from tlprotocols.training.models.densenet_bc import Bottleneck

A, B, C = "model.drop_channel=before_bn", "model.se=true", "model.checkpoint=true"
PLACES = ("none", "before_bn", "before_conv")


@pytest.fixture
def built(plain):
    """A network of densenet_bc with the weights of seed 0; ten classes."""

    def made(*overrides, depth=16):
        config = plain("model=densenet_bc", f"model.depth={depth}", *overrides)
        torch.manual_seed(0)
        return models.build(config, 10)

    return made


def count(module):
    return sum(value.numel() for value in module.parameters())


def trained(net, steps=3, autocast=False):
    """Every parameter and buffer after so many updates on random images, and the state of random draws."""
    torch.manual_seed(1)
    sgd = torch.optim.SGD(net.parameters(), 0.1, 0.9, nesterov=True, weight_decay=1e-4)
    net.train()
    for _ in range(steps):
        images, labels = torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))
        sgd.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
            logits = net(images)
        cross_entropy(logits.float(), labels).backward()
        sgd.step()
    return {**net.state_dict(), "draws": torch.get_rng_state()}


def test_it_has_the_published_number_of_parameters(built):
    """0.8 M in Huang et al. (2017): counted by hand for k=12, 16 bottlenecks a block, ten classes."""
    k, channels, total = 12, 24, 3 * 9 * 24
    for number in range(3):
        for _ in range(16):
            total += 2 * channels + channels * 4 * k + 2 * 4 * k + 4 * k * 9 * k  # BN, 1x1, BN, 3x3
            channels += k
        total += 2 * channels  # BN of the transition, or the last one
        if number < 2:
            total += channels * (channels // 2)
            channels //= 2
    assert channels == 342
    assert count(built(depth=100)) == total + 342 * 10 + 10 == 769_162


def test_options_are_independent_and_add_what_they_say(built):
    """Squeeze-and-excitation of 12 channels by 16 has one hidden unit: 12 + 1 + 12 + 12 more per bottleneck."""
    plain = count(built())
    for drop in PLACES:
        for checkpoint in ("true", "false"):
            chosen = f"model.drop_channel={drop}", f"model.checkpoint={checkpoint}"
            assert count(built(*chosen)) == plain
            assert count(built(B, *chosen)) == plain + 6 * 37
    assert [m.fc1.out_channels for m in built(B).modules() if isinstance(m, SqueezeExcitation)] == [1] * 6
    wide = built(B, "model.growth=32")
    assert {m.fc1.out_channels for m in wide.modules() if isinstance(m, SqueezeExcitation)} == {2}


def test_a_block_computes_what_torchvisions_does(built):
    net = built("dropout=0")
    theirs = DenseNet(12, (2,), 24, bn_size=4, num_classes=2).features.denseblock1
    ours = net.stages["block1"]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(3, 24, 8, 8)
    assert torch.equal(ours.train()(images), theirs.train()(images))


def test_initialisation_is_hes_by_fan_out(built):
    for module in built(depth=100).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def kinds(module):
    return [type(m).__name__ for m in module.modules() if not list(m.children()) and getattr(m, "p", 1) > 0]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("none", "BatchNorm2d ReLU Conv2d Dropout BatchNorm2d ReLU Conv2d Dropout"),
        ("before_bn", "Dropout2d BatchNorm2d ReLU Conv2d BatchNorm2d ReLU Conv2d"),
        ("before_conv", "BatchNorm2d ReLU Dropout2d Conv2d BatchNorm2d ReLU Dropout2d Conv2d"),
    ],
)
def test_where_dropout_acts(built, place, expected):
    net = built(f"model.drop_channel={place}", "dropout=0.2")
    assert {" ".join(kinds(m)) for m in net.modules() if isinstance(m, Bottleneck)} == {expected}
    transition = "BatchNorm2d ReLU Conv2d Dropout AvgPool2d" if place == "none" else "BatchNorm2d ReLU Conv2d AvgPool2d"
    assert " ".join(kinds(net.stages["transition1"])) == transition


def test_drop_channel_drops_whole_channels(built):
    net = built("model.drop_channel=before_bn", "dropout=0.5")
    seen = []
    layer = next(m for m in net.modules() if isinstance(m, Bottleneck))
    layer.wide.get_submodule("norm1").register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net.train()(torch.randn(4, 3, 32, 32))
    dead = (seen[0] == 0).flatten(2)
    assert torch.equal(dead.all(2), dead.any(2))
    assert 0.3 < dead.all(2).float().mean() < 0.7


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("se", ["true", "false"])
@pytest.mark.parametrize("place", PLACES)
def test_checkpointing_changes_no_bit(built, place, se, autocast):
    """Parameters, running statistics and the state of random draws: the repetition moves no statistic twice."""
    chosen = f"model.drop_channel={place}", f"model.se={se}", "dropout=0.2"
    once, twice = (trained(built(*chosen, *more), autocast=autocast) for more in ((), (C,)))
    assert [name for name in once if not torch.equal(once[name], twice[name])] == []
    assert once["body.1.layers.0.wide.norm1.num_batches_tracked"] == 3


def test_checkpointing_keeps_less(built):
    """Bytes kept for the backward pass."""
    kept = []
    for more in ((), (C,)):
        net = built(A, B, *more, depth=40).train()
        seen: dict[int, int] = {}

        def keep(tensor, seen=seen):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = net(torch.randn(4, 3, 32, 32)).sum()
        kept.append(sum(seen.values()))
        loss.backward()
    assert kept[1] < 0.7 * kept[0]


def test_a_frozen_block_needs_no_repetition(built):
    net = built(C)
    transfer.freeze(net, ("stem", "block1"))
    before = [value.clone() for value in net.stages["block1"].state_dict().values()]
    trained(net, steps=1)
    assert all(torch.equal(a, b) for a, b in zip(before, net.stages["block1"].state_dict().values(), strict=True))


def test_blocks_see_all_that_came_before(built):
    net = built("model.growth=4")
    norms = [m.wide.get_submodule("norm1") for m in net.modules() if isinstance(m, Bottleneck)]
    widths = [norm.num_features for norm in norms]
    assert widths == [8, 12, 8, 12, 8, 12]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=densenet_bc", "model.depth=20"], "model.depth=20: must be 6 times the .*, such as 16 or 22$"),
        (
            ["model=densenet_bc", "model.se=null"],
            "model.se=null: is needed for densenet_bc; conf/model/densenet_bc.yaml",
        ),
        (
            ["model=alexnet_small", "model.depth=22"],
            "model.depth=22: must be null for alexnet_small; it is of densenet_bc",
        ),
        (
            ["model=densenet_bc", "model.drop_channel=maybe"],
            "model.drop_channel=maybe: must be one of none, before_bn,",
        ),
        (["model=densenet_bc", "model.se=3"], "model.se=3: must be true or false, or null"),
    ],
)
def test_wrong_options_are_refused_in_one_line(composed, overrides, message):
    with pytest.raises(ConfigError, match=message) as refused:
        composed(*overrides)
    assert "\n" not in str(refused.value)


def test_a_configuration_saved_before_these_options_is_read(plain):
    saved = dataclasses.asdict(plain())
    for name in ("depth", "growth", "drop_channel", "se", "checkpoint"):
        del saved["model"][name]
    assert build(saved) == plain()
