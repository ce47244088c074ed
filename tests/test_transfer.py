"""What a protocol does to a network: which layers are the base's, which learn, and at what rate."""

import dataclasses
import functools
import hashlib
import json
import math
import random

import pytest
import torch

from tlprotocols.config.identity import base_of
from tlprotocols.errors import Stopped
from tlprotocols.planning.plan import plan
from tlprotocols.records import files, read_config, read_row, save_config
from tlprotocols.training import checkpoints, optimizers, transfer
from tlprotocols.training.loop import fit
from tlprotocols.training.run import execute, network, selected

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
CPU = torch.device("cpu")
PROTOCOLS = [
    pytest.param(3, 3, id="A3B"),
    pytest.param(3, 0, id="A3B+"),
    pytest.param(7, 0, id="A7B+ (commonly used)"),
    pytest.param(6, 4, id="A6B with 4 frozen"),
    pytest.param(7, 7, id="A7B"),
    pytest.param(1, 1, id="A1B"),
    pytest.param(0, 0, id="scratch"),
    pytest.param(0, 3, id="random frozen"),
    pytest.param(2, 5, id="A2B and 3 random frozen"),
]


@pytest.fixture(scope="module")
def results(cfg, tmp_path_factory):
    """A results folder in which the bases of split 0 and seed 0 are trained."""
    folder = tmp_path_factory.mktemp("results")
    for base in ("trained", "self"):
        execute(base_of(cfg(f"results_dir={folder}", f"base={base}")), role="base")
    return folder


@pytest.fixture(scope="module")
def protocol(cfg, results):
    def made(copied, frozen, *overrides):
        return cfg(f"results_dir={results}", f"layers={copied}", f"freeze={frozen}", "freeze_random=true", *overrides)

    return made


def same(one, other):
    """Layers whose every bit is equal."""
    names = {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}
    return tuple(layer for layer in LAYERS if layer not in names)


def copied_weights(net):
    return {name: value.clone() for name, value in transfer.weights(net).items()}


def base_weights(config):
    paths = files(base_of(config))
    return checkpoints.load_weights(paths.weights, read_row(paths.row)["weights_digest"])


@pytest.mark.parametrize(("copied", "frozen"), PROTOCOLS)
def test_before_training_the_first_layers_are_the_bases_bit_for_bit(protocol, copied, frozen):
    config = protocol(copied, frozen)
    net = copied_weights(network(config, 4))
    fresh = copied_weights(network(protocol(0, 0), 4))
    assert same(net, base_weights(protocol(7, 0))) == LAYERS[:copied]
    assert {layer for layer in same(net, fresh) if layer not in LAYERS[:copied]} == set(LAYERS[copied:])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("copied", "frozen"), PROTOCOLS)
def test_only_layers_that_are_not_frozen_move(protocol, copied, frozen, precision):
    config = protocol(copied, frozen, "epochs=1", "weight_decay=0.1", f"precision={precision}")
    net = network(config, 4)
    before = copied_weights(net)
    list(fit(net, optimizers.optimizer(net, config), config, selected(config, "train", CPU)))
    assert same(before, transfer.weights(net)) == LAYERS[:frozen]


def test_a_base_of_the_target_classes_is_another_network(protocol):
    trained, itself = protocol(4, 0), protocol(4, 0, "base=self")
    assert same(base_weights(trained), base_weights(itself)) == ()
    assert same(copied_weights(network(itself, 4)), base_weights(itself)) == LAYERS[:4]


@pytest.mark.parametrize(("copied", "frozen"), PROTOCOLS)
def test_frozen_layers_have_no_gradient_and_are_in_no_group(protocol, copied, frozen):
    config = protocol(copied, frozen)
    net = network(config, 4)
    sgd = optimizers.optimizer(net, config)
    net(torch.zeros(2, 3, 16, 16)).sum().backward()
    assert tuple(layer for layer in LAYERS if net.stages[layer].weight.grad is None) == LAYERS[:frozen]
    assert tuple(group["name"] for group in sgd.param_groups) == LAYERS[frozen:]


@pytest.mark.parametrize(("copied", "frozen"), PROTOCOLS)
def test_every_learning_parameter_is_in_exactly_one_group(protocol, copied, frozen):
    config = protocol(copied, frozen)
    net = network(config, 4)
    grouped = [id(p) for group in optimizers.optimizer(net, config).param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    assert len(grouped) == 2 * (8 - frozen)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("copied", "frozen"), PROTOCOLS)
def test_every_layer_that_learns_decays_whatever_is_frozen(protocol, copied, frozen, name):
    config = protocol(copied, frozen, "weight_decay=0.125", f"optimizer={name}")
    groups = optimizers.optimizer(network(config, 4), config).param_groups
    assert [group["weight_decay"] for group in groups] == [0.125] * (8 - frozen)


def test_every_group_has_its_layers_rate(protocol):
    config = protocol(6, 2, "high_lr_layers=2", "decay_epochs=3", "lr.step=5", "lr.layers.conv4=0.5", "lr.high=0.02")
    sgd = optimizers.optimizer(network(config, 4), config)
    expected = {
        0: [0.001, 0.5, 0.001, 0.001, 0.02, 0.02],
        2: [0.001, 0.5, 0.001, 0.001, 0.02, 0.02],
        3: [0.001, 0.5, 0.001, 0.001, 0.002, 0.002],
        5: [0.0001, 0.05, 0.0001, 0.0001, 0.002, 0.002],
        8: [0.0001, 0.05, 0.0001, 0.0001, 0.0002, 0.0002],
    }
    for epoch, rates in expected.items():
        optimizers.set_rates(sgd, config, epoch)
        assert [group["lr"] for group in sgd.param_groups] == pytest.approx(rates)


def test_the_rate_of_the_epoch_is_the_one_that_is_used(protocol):
    config = protocol(
        6, 0, "epochs=3", "high_lr_layers=8", "decay_epochs=1", "lr.gamma=0", "weight_decay=0", "momentum=0"
    )
    net = network(config, 4)
    sgd, after = optimizers.optimizer(net, config), [copied_weights(net)]
    for _ in fit(net, sgd, config, selected(config, "train", CPU)):
        after.append(copied_weights(net))
    assert same(after[0], after[1]) == ()
    assert same(after[1], after[2]) == same(after[2], after[3]) == LAYERS


def test_one_update_is_sgd_with_momentum_and_decay(protocol):
    config = protocol(0, 0, "lr.high=0.5", "high_lr_layers=8", "momentum=0.9", "weight_decay=0.25")
    net = network(config, 4)
    sgd, before = optimizers.optimizer(net, config), copied_weights(net)["conv1.weight"]
    optimizers.set_rates(sgd, config, 0)
    weight, expected, velocity = net.stages["conv1"].state_dict()["weight"], before, torch.zeros_like(before)
    for _ in range(3):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        sgd.step()
        velocity = 0.9 * velocity + (1 + 0.25 * expected)
        expected = expected - 0.5 * velocity
    torch.testing.assert_close(weight, expected)


def adam(weight, gradients, rate, decay, decoupled):
    """Kingma & Ba (2015), Alg. 1, and the decay of Loshchilov & Hutter (2019), Alg. 2, written by hand."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        if decoupled:
            weight = weight - rate * decay * weight
        else:
            gradient = gradient + decay * weight
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight = weight - rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return weight


def nesterov(weight, gradients, rate, decay):
    """Sutskever et al. (2013) in the form of torch: the step looks ahead along the velocity."""
    velocity = torch.zeros_like(weight)
    for gradient in gradients:
        gradient = gradient + decay * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - rate * (gradient + 0.9 * velocity)
    return weight


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param("optimizer=adam", functools.partial(adam, decoupled=False), id="adam"),
        pytest.param("optimizer=adamw", functools.partial(adam, decoupled=True), id="adamw"),
        pytest.param("nesterov=true", nesterov, id="sgd with nesterov"),
    ],
)
def test_updates_are_those_of_the_papers_at_the_rate_of_each_layer(protocol, overrides, expected):
    config = protocol(0, 0, "lr.high=0.5", "lr.low=0.25", "lr.layers.conv2=0.125", "weight_decay=0.25", overrides)
    net = network(config, 4)
    optimizer = optimizers.optimizer(net, config)
    optimizers.set_rates(optimizer, config, 0)
    gradients = [1.0, -0.5, 2.0]
    before = copied_weights(net)
    for gradient in gradients:
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    for layer, rate in (("conv1", 0.25), ("conv2", 0.125), ("fc8", 0.5)):
        weight = before[f"{layer}.weight"]
        wanted = expected(weight, [torch.full_like(weight, gradient) for gradient in gradients], rate, 0.25)
        torch.testing.assert_close(net.stages[layer].get_parameter("weight").detach(), wanted)


@pytest.mark.parametrize("overrides", ["optimizer=adam", "optimizer=adamw", "nesterov=true"])
def test_a_base_is_trained_by_an_optimizer_of_its_own(protocol, overrides):
    config = base_of(protocol(3, 0, f"base.{overrides}"))
    key, value = overrides.split("=")
    assert getattr(config, key) in (value, True)
    sgd = protocol(3, 0, f"base.{overrides}")
    assert (sgd.optimizer, sgd.nesterov) == ("sgd", False)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("frozen", [0, 3])
def test_frozen_layers_do_not_move_with_any_optimizer(protocol, name, frozen):
    config = protocol(3, frozen, "epochs=1", "weight_decay=0.1", f"optimizer={name}")
    net = network(config, 4)
    before = copied_weights(net)
    list(fit(net, optimizers.optimizer(net, config), config, selected(config, "train", CPU)))
    assert same(before, transfer.weights(net)) == LAYERS[:frozen]


def test_a_base_whose_weights_are_gone_is_named(protocol, cfg, tmp_path):
    with pytest.raises(ValueError, match=r"weights.safetensors: the base's weights are gone; the same command"):
        network(cfg(f"results_dir={tmp_path}", "layers=3"), 4)


def flipped(path, draw):
    """The file with one bit of it changed."""
    content, place = bytearray(path.read_bytes()), draw.randrange(path.stat().st_size)
    content[place] ^= 1 << draw.randrange(8)
    return bytes(content)


def test_twenty_random_bytes_of_a_bases_weights_are_each_found_and_the_base_is_trained_again(cfg, tmp_path):
    config, draw = cfg(f"results_dir={tmp_path}", "layers=3"), random.Random(0)
    base = base_of(config)
    row = execute(base, role="base")
    weights = files(base).weights
    whole = weights.read_bytes()
    assert row["weights_digest"] == hashlib.sha256(whole).hexdigest()[:16]
    for _ in range(20):
        weights.write_bytes(flipped(weights, draw))
        with pytest.raises(ValueError, match=r"weights.safetensors: the base's weights are damaged \(digest"):
            network(config, 4)
        assert [run.role for run in plan([config]).to_run] == ["base", "run"]
        weights.write_bytes(whole)
    assert [run.role for run in plan([config]).to_run] == ["run"]
    weights.write_bytes(flipped(weights, draw))
    assert execute(base, role="base")["weights_digest"] == row["weights_digest"]
    assert weights.read_bytes() == whole


def test_a_row_says_which_weights_it_was_copied_from(cfg, tmp_path):
    config = cfg(f"results_dir={tmp_path}", "layers=3")
    base = execute(base_of(config), role="base")
    row = execute(config)
    assert row["base_weights"] == base["weights_digest"]
    assert not row["base_diverged"]
    assert not row["base_collapsed"]
    assert row["weights_digest"] is None  # only bases keep theirs
    alone = execute(cfg(f"results_dir={tmp_path}", "layers=0"))
    assert alone["base_weights"] is alone["base_diverged"] is None


def test_a_base_without_a_digest_is_trained_again(cfg, tmp_path):
    config = cfg(f"results_dir={tmp_path}", "layers=3")
    execute(base_of(config), role="base")
    path = files(base_of(config)).row
    row = json.loads(path.read_text())
    del row["weights_digest"]
    path.write_text(json.dumps(row))
    assert [run.role for run in plan([config]).to_run] == ["base", "run"]


def test_the_runs_of_a_base_that_diverged_say_so(cfg, tmp_path):
    config = cfg(f"results_dir={tmp_path}", "layers=3", "base.lr.high=1e30", "base.epochs=3")
    assert execute(base_of(config), role="base")["diverged"]
    assert execute(config)["base_diverged"]


@pytest.mark.parametrize("rate", ["1e308", "1e38", "1e30"])
def test_weights_that_are_no_numbers_after_one_epoch_are_called_diverged(cfg, tmp_path, rate):
    """The mean loss of the only epoch is a number: it was computed before the update that broke the weights."""
    broken = ("layers=0", "high_lr_layers=8", "epochs=1", "batch_size=48", "n_per_class=full", f"lr.high={rate}")
    row = execute(cfg(f"results_dir={tmp_path}", *broken))
    assert math.isfinite(row["train_loss"])
    assert row["diverged"]


def test_a_flipped_byte_of_a_checkpoint_makes_the_run_begin_again(cfg, tmp_path):
    config, draw = cfg(f"results_dir={tmp_path}", "layers=0", "epochs=3"), random.Random(0)
    whole = execute(cfg(f"results_dir={tmp_path / 'other'}", "layers=0", "epochs=3"))
    net = network(config, 4)
    sgd = optimizers.optimizer(net, config)
    path = files(config).checkpoint
    path.parent.mkdir(parents=True)
    for _ in range(20):
        checkpoints.save_state(path, net, sgd, checkpoints.State(done=1, curve=[{"epoch": 1, "train_loss": 9.0}]))
        path.write_bytes(flipped(path, draw))
        assert checkpoints.load_state(path, net, sgd).done == 0
        assert not path.exists()
    assert execute(config)["train_loss"] == whole["train_loss"]


@pytest.mark.parametrize("other", ["seed=1", "freeze=3", "epochs=4"])
def test_a_checkpoint_of_another_run_is_not_used(cfg, tmp_path, other):
    """Two interrupted runs whose checkpoints were exchanged give the numbers of runs that nothing happened to."""
    cells = [["layers=0", "epochs=3"], ["layers=0", "epochs=3", "freeze_random=true", other]]
    whole = [execute(cfg(f"results_dir={tmp_path / 'whole'}", *cell)) for cell in cells]
    configs = [cfg(f"results_dir={tmp_path / 'cut'}", *cell) for cell in cells]
    for config in configs:
        with pytest.raises(Stopped):
            execute(config, stop=lambda: True)
    one, two = (files(config).checkpoint for config in configs)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert [execute(config)["val_loss"] for config in configs] == [row["val_loss"] for row in whole]


def test_a_run_whose_base_was_replaced_while_it_was_interrupted_begins_again(cfg, tmp_path):
    config = cfg(f"results_dir={tmp_path}", "layers=3", "epochs=3")
    first = execute(base_of(config), role="base")
    with pytest.raises(Stopped):
        execute(config, stop=lambda: True)
    paths = files(base_of(config))
    net = network(base_of(cfg(f"results_dir={tmp_path}", "layers=3", "seed=5")), 4)
    second = first | {"weights_digest": checkpoints.save_weights(paths.weights, net)}
    paths.row.write_text(json.dumps(second))
    row = execute(config)
    assert row["base_weights"] == second["weights_digest"]
    assert "resumed" not in files(config).log.read_text()


def test_a_requested_run_that_becomes_a_base_stays_in_the_table_with_its_curve(cfg, tmp_path):
    base = dataclasses.replace(base_of(cfg(f"results_dir={tmp_path}", "layers=3")), curve=True)
    before = execute(base)
    execute(dataclasses.replace(base, curve=False), role="base")
    after = read_row(files(base).row)
    assert (after["role"], after["val_top1_best"]) == ("run", before["val_top1_best"])
    assert after["weights_digest"]
    assert plan([cfg(f"results_dir={tmp_path}", "layers=3")]).to_run[0].role == "run"


def test_a_configuration_that_changed_on_disk_is_refused(cfg, tmp_path):
    config = cfg(f"results_dir={tmp_path}", "layers=0")
    (planned,) = plan([config]).to_run
    save_config(planned.config)
    paths = files(config)
    assert read_config(paths) == config
    text = paths.config.read_text()
    for damaged in (
        text.replace('"epochs": 2', '"epochs": 3', 1),
        text[:-9],
        "",
        text.replace('"layers": 0', '"layers": 9'),
    ):
        paths.config.write_text(damaged)
        with pytest.raises(ValueError, match=f"does not describe run {paths.id}"):
            read_config(paths)
