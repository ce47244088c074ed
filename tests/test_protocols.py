"""Protocols beyond the paper's: which layers learn when, how fast, and how far from where they began."""

import dataclasses
import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy

from tlprotocols.budget import epochs_needed, updates
from tlprotocols.config.compose import CONF, composer
from tlprotocols.config.identity import base_of, factors, run_id
from tlprotocols.config.protocols import protocol_of
from tlprotocols.errors import ConfigError
from tlprotocols.lr_schedule import rate, table
from tlprotocols.planning.plan import resolved
from tlprotocols.training import checkpoints, models, optimizers, transfer
from tlprotocols.training.loop import fit
from tlprotocols.training.run import execute, selected
from tlprotocols.training.shards import Gradient, logits

CPU = torch.device("cpu")
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
PROTOCOLS = sorted(path.stem for path in (CONF / "protocol").glob("*.yaml"))
GRADUAL = ("layers=7", "head_epochs=1", "unfreeze_every=1")


def fresh(config, classes=4):
    torch.manual_seed(0)
    net = models.build(config, classes)
    transfer.freeze(net, config.frozen())
    return net


def clones(net):
    return {name: value.clone() for name, value in transfer.weights(net).items()}


def moved(one, other):
    """Stages of which some bit differs."""
    return list(dict.fromkeys(name.partition(".")[0] for name in one if not torch.equal(one[name], other[name])))


def by_epoch(config):
    """The weights before the first epoch and after each."""
    net = fresh(config)
    found = [clones(net)]
    optimizer = optimizers.optimizer(net, config)
    for _ in fit(net, optimizer, config, selected(config, "train", CPU)):
        found.append(clones(net))
    return found


@pytest.mark.parametrize(("model", "width"), [("alexnet_small", 0.1), ("mobilenet_v3_small", 1)])
def test_the_first_epochs_of_lp_ft_are_those_of_a_linear_probe(cfg, model, width):
    """Bit for bit: the body does not move, running statistics included, and the head learns the same."""
    own = (f"model={model}", f"model.width={width}", "layers=all", "epochs=3", "dropout=0.2", "weight_decay=0.1")
    begun, first, second, third = by_epoch(cfg(*own, "head_epochs=2"))
    probe = by_epoch(cfg(*own, "freeze=all"))
    assert moved(begun, second) == [list(fresh(cfg(*own)).stages)[-1]]
    assert moved(first, probe[1]) == moved(second, probe[2]) == []
    assert len(moved(second, third)) == len(fresh(cfg(*own)).stages)


def test_gradual_unfreezing_adds_a_layer_an_epoch_from_the_last_one_down(cfg):
    found = by_epoch(cfg(*GRADUAL, "freeze=4", "epochs=5"))
    learned = [moved(one, other) for one, other in itertools.pairwise(found)]
    assert learned == [LAYERS[7:], LAYERS[6:], LAYERS[5:], LAYERS[4:], LAYERS[4:]]
    config = cfg(*GRADUAL, "unfreeze_every=3", "head_epochs=2", "epochs=9")
    assert [8 - len(config.frozen(epoch)) for epoch in range(9)] == [1, 1, 2, 2, 2, 3, 3, 3, 4]


def test_of_the_copied_layers_only_a_block_learns(cfg):
    config = cfg("layers=6", "freeze=2", "learn_layers=3", "epochs=1", "weight_decay=0.1")
    before, after = by_epoch(config)
    assert moved(before, after) == ["conv3", "conv4", "conv5", "fc7", "fc8"]  # fc7 is new
    assert [group["name"] for group in optimizers.optimizer(fresh(config), config).param_groups] == moved(before, after)


@pytest.mark.parametrize("shards", [1, 2])
def test_the_penalty_of_l2_sp_is_that_of_autograd(cfg, shards):
    config = cfg("layers=5", "l2_sp=0.5", "weight_decay=0.25", "dropout=0", f"shards={shards}")
    net, crops, labels = fresh(config), torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8), torch.arange(8) % 4
    start, optimizer = clones(net), optimizers.optimizer(net, config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0] * 5 + [0.25] * 3
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight))
    with Gradient(net, config, CPU) as learn:
        learn.begin(0)
        learn(crops, labels)
        plain = [weight.grad.clone() for weight in net.parameters()]
        optimizers.pull_to_start(optimizer, config.l2_sp)
        ours = [weight.grad.clone() for weight in net.parameters()]
    named = {f"{stage}.{name}": p for stage, module in net.stages.items() for name, p in module.named_parameters()}
    away = sum((p - start[name]).square().sum() for name, p in named.items() if name.split(".")[0] in LAYERS[:5])
    for weight, gradient in zip(net.parameters(), plain, strict=True):
        weight.grad = gradient.clone()
    (0.25 * away).backward()
    assert all(torch.equal(one, weight.grad) for one, weight in zip(ours, net.parameters(), strict=True))
    if shards == 1:
        assert all(weight.grad is not None for weight in net.parameters())
        net.zero_grad()
        cross_entropy(logits(net, crops, config), labels).backward()
        assert all(torch.equal(one, weight.grad) for one, weight in zip(plain, net.parameters(), strict=True))


def test_l2_sp_keeps_copied_layers_near_the_base(cfg):
    def distance(strength):
        before, *_, after = by_epoch(cfg("layers=5", f"l2_sp={strength}", "epochs=6", "high_lr_layers=8"))
        return float((after["conv3.weight"] - before["conv3.weight"]).norm())

    assert distance(20) < 0.7 * distance(0)


@pytest.mark.parametrize(
    "overrides",
    [
        ("head_epochs=2",),
        GRADUAL,
        ("l2_sp=0.5",),
        ("freeze=1", "learn_layers=2", "optimizer=adam"),
        (*GRADUAL, "l2_sp=0.5", "optimizer=adamw", "shards=2"),
    ],
)
@pytest.mark.parametrize("stop", [1, 2])
def test_killed_and_resumed_is_never_stopped(cfg, tmp_path, overrides, stop):
    config, file = cfg("layers=5", *overrides, "epochs=4", "dropout=0.3"), tmp_path / "checkpoint"
    images, results = selected(config, "train", CPU), []
    for stopped in (False, True):
        net = fresh(config)
        optimizer = optimizers.optimizer(net, config)
        for done, _ in fit(net, optimizer, config, images):
            if stopped and done == stop:
                checkpoints.save_state(file, net, optimizer, checkpoints.State(done=done))
                break
        if stopped:
            net = fresh(config)
            optimizer = optimizers.optimizer(net, config)
            done = checkpoints.load_state(file, net, optimizer).done
            assert done == stop
            list(fit(net, optimizer, config, images, done=done))
        results.append(clones(net))
    assert moved(*results) == []


def test_shards_freeze_what_the_network_freezes(cfg):
    config = cfg("layers=5", "head_epochs=1", "shards=2", "dropout=0")
    with Gradient(fresh(config), config, CPU) as learn:
        for epoch, learning in ((0, 2), (1, 16)):
            learn.begin(epoch)
            learn(torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8), torch.arange(8) % 4)
            counts = [sum(weight.grad is not None for weight in net.parameters()) for net in learn.nets]
            assert counts == [learning, learning]


def test_rates_fall_geometrically_from_the_last_layer_down(plain):
    config = plain("high_lr_layers=8", "lr.high=0.64", "lr.layer_decay=0.5", "lr.layers.conv2=0.3", "schedule=cosine")
    rates = [0.64, 0.32, 0.16, 0.08, 0.04, 0.02, 0.3, 0.005]
    assert [rate(config, layer, 0) for layer in reversed(LAYERS)] == pytest.approx(rates)
    assert rate(config, "conv1", 4) == pytest.approx(0.0025)  # half of the epochs
    assert run_id(plain("lr.layer_decay=0.5")) != run_id(plain("lr.layer_decay=0.5", "lr.layers.conv1=0.002"))


def test_the_printed_rates_are_nought_while_a_layer_is_frozen(plain):
    found = table(plain(*GRADUAL, "freeze=5", "epochs=4"))
    assert {layer: [value > 0 for value in rates] for layer, rates in found.items()} == {
        "fc6": [False, False, True, True],
        "fc7": [False, True, True, True],
        "fc8": [True, True, True, True],
    }


@pytest.mark.parametrize(
    ("images", "expected"), [(19_999, 500), (20_000, 10_000), (499_999, 10_000), (500_000, 20_000)]
)
def test_updates_of_bit_go_with_the_number_of_images(plain, images, expected):
    recipe = plain("max_updates=bit", "batch_size=512")
    assert updates(recipe, images, epochs_needed(recipe, images)) == expected


def test_epochs_of_bit_are_counted_in_the_images_of_a_run(cfg):
    assert cfg("protocol=bit", "batch_size=512").epochs == 500  # 16 images: an update is an epoch


def test_rates_of_bit_fall_at_30_60_and_90_percent(plain):
    config = plain("protocol=bit", "epochs=20")
    found = [round(rate(config, "conv1", epoch) / 0.003, 9) for epoch in range(20)]
    assert found == [1] * 6 + [0.1] * 6 + [0.01] * 6 + [0.001] * 2
    assert (config.weight_decay, config.dropout, config.batch_size, config.max_updates) == (0, 0, 512, "bit")


def test_protocols_are_different_runs_of_one_base(plain):
    """A base is trained in full, whatever the protocol of the runs that copy from it."""
    configs = {name: plain(f"protocol={name}", "layers=all" if name == "frozen" else "seed=0") for name in PROTOCOLS}
    assert {run_id(base_of(config)) for name, config in configs.items() if name != "scratch"} == {
        run_id(base_of(plain()))
    }
    ids = {name: run_id(config) for name, config in configs.items()}
    assert ids.pop("frozen") == ids["linear_probe"]
    assert len(set(ids.values())) == len(ids)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "optimal"])  # which is about eight layers
def test_protocols_are_relative_to_the_depth_of_a_model(plain, name):
    config = plain("model=swin_t", "model.width=1", f"protocol={name}", "dataset.side=64", "dataset.pixels=64")
    assert name in ("scratch", "frozen", "fine_tune") or config.layers == 16


def test_lp_ft_gives_half_of_the_epochs_to_the_head(cfg, plain):
    config = cfg("protocol=lp_ft", "epochs=9")
    assert (config.head_epochs, config.layers, config.schedule) == (4, 7, "cosine")
    assert plain("protocol=linear_probe").frozen() == tuple(LAYERS[:7])
    assert plain("protocol=surgical", "freeze=2").frozen() == ("conv1", "conv2", "conv5", "fc6", "fc7")


def test_lp_ft_gives_half_of_the_epochs_that_max_updates_comes_to(cfg):
    config = cfg("protocol=lp_ft", "epochs=40", "max_updates=10")  # 16 images in batches of 16: an update an epoch
    assert (config.epochs, config.head_epochs) == (10, 5)
    assert protocol_of(factors(config)) == config.protocol == "lp_ft"
    assert cfg("layers=all", "head_epochs=2", "max_updates=10").head_epochs == 2


@pytest.mark.parametrize("more", ["max_updates=10", "epochs=10"])
def test_half_of_the_epochs_can_be_said_in_any_protocol(tiny, tmp_path, more):
    file = tmp_path / "protocol" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndefaults: [lp_ft, _self_]\nschedule: step_all\n")
    compose = composer(config_dir=str(tmp_path))
    config = resolved(compose([*tiny, "epochs=40", "protocol=mine", more]))
    assert (config.protocol, config.epochs, config.head_epochs, config.schedule) == ("mine", 10, 5, "step_all")
    same = resolved(compose([*tiny, "layers=all", "head_epochs=half", "schedule=step_all", "epochs=40", more]))
    assert run_id(same) == run_id(config)


def test_half_of_the_epochs_is_a_number_in_every_row(cfg):
    named, said = cfg("protocol=lp_ft"), cfg("layers=all", "freeze=0", "head_epochs=half", "schedule=cosine")
    assert factors(named)["head_epochs"] == 1 == factors(said)["head_epochs"]
    assert named.protocol == said.protocol == "lp_ft"
    assert run_id(named) == run_id(said)


@pytest.mark.parametrize(
    ("overrides", "epochs"),
    [("protocol=lp_ft", 4 + 2), ("layers=7 head_epochs=1 unfreeze_every=1", 7 + 2), ("layers=5", 2)],
)
def test_no_run_stops_early_before_all_layers_have_learned(cfg, tmp_path, overrides, epochs):
    """The rates are so low that no epoch has a lower loss than the first."""
    low = ("lr.high=1e-30", "lr.low=1e-30", "weight_decay=0", "dropout=0", "stop_after=1")
    long = f"epochs={8 if 'lp_ft' in overrides else 12}"
    config = cfg(*overrides.split(), *low, long, "base.epochs=1", f"results_dir={tmp_path}")
    execute(base_of(config), "base")
    assert execute(config)["epochs_trained"] == epochs


def test_half_of_one_epoch_is_refused(cfg):
    with pytest.raises(ConfigError, match=r"^head_epochs=half: must leave an epoch to the head"):
        cfg("protocol=lp_ft", "epochs=1")


@pytest.mark.parametrize("overrides", ["epochs=4 head_epochs=4", "epochs=40 head_epochs=10 max_updates=10"])
def test_a_head_that_learns_alone_to_the_end_is_refused(cfg, overrides):
    with pytest.raises(ConfigError, match=r"^head_epochs=\d+: must be below the \d+ epochs of the run"):
        cfg("layers=5", *overrides.split())
    cfg("layers=all", "freeze=all", *overrides.split())  # where nothing else could


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("layers=5 freeze=2 learn_layers=4", r"learn_layers=4: must be at most layers=5 minus freeze=2"),
        ("layers=0 learn_layers=1", r"learn_layers=1: must be at most layers=0"),
        ("layers=0 l2_sp=0.1", r"l2_sp=0.1: must be 0 where no copied layer learns \(layers=0, freeze=0\)"),
        ("layers=5 freeze=5 l2_sp=0.1", r"l2_sp=0.1: must be 0 where no copied layer learns"),
        ("max_updates=bits", r"max_updates=bits: must be one of bit|max_updates=bits: must be a whole number"),
        ("lr.layer_decay=1.5", r"lr.layer_decay=1.5: must be a number from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(plain, overrides, message):
    with pytest.raises(ConfigError, match=message):
        plain(*overrides.split())


def test_the_base_has_none_of_it(plain):
    config = plain("layers=5", "freeze=1", "learn_layers=2", "head_epochs=1", "unfreeze_every=2", "l2_sp=0.1")
    base = base_of(dataclasses.replace(config, lr=dataclasses.replace(config.lr, layer_decay=0.5)))
    assert run_id(base) == run_id(base_of(plain("layers=5")))


def test_every_protocol_runs_from_one_base(cfg, tmp_path):
    names = ("linear_probe", "lp_ft", "l2_sp", "surgical", "gradual", "layer_decay")
    configs = {name: cfg(f"protocol={name}", f"results_dir={tmp_path}") for name in names}
    (base,) = {run_id(base_of(config)): base_of(config) for config in configs.values()}.values()
    execute(base, role="base")
    rows = {name: execute(config) for name, config in configs.items()}
    assert {row["base_id"] for row in rows.values()} == {run_id(base)}
    assert not any(row["diverged"] for row in rows.values())
    whole = rows["l2_sp"]["trainable_parameters"]
    assert rows["linear_probe"]["trainable_parameters"] < rows["surgical"]["trainable_parameters"] < whole
