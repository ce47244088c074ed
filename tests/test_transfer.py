"""What a protocol does to a network: which layers are the base's, which learn, and at what rate."""

import pytest
import torch

from tlprotocols import checkpoints, transfer
from tlprotocols.results import base_of, files
from tlprotocols.run import execute, network, selected
from tlprotocols.train import fit

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
    return checkpoints.load_weights(files(base_of(config)).weights)


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
    list(fit(net, transfer.optimizer(net, config), config, selected(config, "train", CPU)))
    assert same(before, transfer.weights(net)) == LAYERS[:frozen]


def test_a_base_of_the_target_classes_is_another_network(protocol):
    trained, itself = protocol(4, 0), protocol(4, 0, "base=self")
    assert same(base_weights(trained), base_weights(itself)) == ()
    assert same(copied_weights(network(itself, 4)), base_weights(itself)) == LAYERS[:4]


@pytest.mark.parametrize(("copied", "frozen"), PROTOCOLS)
def test_frozen_layers_have_no_gradient_and_are_in_no_group(protocol, copied, frozen):
    config = protocol(copied, frozen)
    net = network(config, 4)
    sgd = transfer.optimizer(net, config)
    net(torch.zeros(2, 3, 16, 16)).sum().backward()
    assert tuple(layer for layer in LAYERS if net.stages[layer].weight.grad is None) == LAYERS[:frozen]
    assert tuple(group["name"] for group in sgd.param_groups) == LAYERS[frozen:]


@pytest.mark.parametrize(("copied", "frozen"), PROTOCOLS)
def test_every_learning_parameter_is_in_exactly_one_group(protocol, copied, frozen):
    config = protocol(copied, frozen)
    net = network(config, 4)
    grouped = [id(p) for group in transfer.optimizer(net, config).param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    assert len(grouped) == 2 * (8 - frozen)


def test_every_group_has_its_layers_rate(protocol):
    config = protocol(6, 2, "high_lr_layers=2", "decay_epochs=3", "lr.step=5", "lr.layers.conv4=0.5", "lr.high=0.02")
    sgd = transfer.optimizer(network(config, 4), config)
    expected = {
        0: [0.001, 0.5, 0.001, 0.001, 0.02, 0.02],
        2: [0.001, 0.5, 0.001, 0.001, 0.02, 0.02],
        3: [0.001, 0.5, 0.001, 0.001, 0.002, 0.002],
        5: [0.0001, 0.05, 0.0001, 0.0001, 0.002, 0.002],
        8: [0.0001, 0.05, 0.0001, 0.0001, 0.0002, 0.0002],
    }
    for epoch, rates in expected.items():
        transfer.set_rates(sgd, config, epoch)
        assert [group["lr"] for group in sgd.param_groups] == pytest.approx(rates)


def test_the_rate_of_the_epoch_is_the_one_that_is_used(protocol):
    config = protocol(
        6, 0, "epochs=3", "high_lr_layers=8", "decay_epochs=1", "lr.gamma=0", "weight_decay=0", "momentum=0"
    )
    net = network(config, 4)
    sgd, after = transfer.optimizer(net, config), [copied_weights(net)]
    for _ in fit(net, sgd, config, selected(config, "train", CPU)):
        after.append(copied_weights(net))
    assert same(after[0], after[1]) == ()
    assert same(after[1], after[2]) == same(after[2], after[3]) == LAYERS


def test_one_update_is_sgd_with_momentum_and_decay(protocol):
    config = protocol(0, 0, "lr.high=0.5", "high_lr_layers=8", "momentum=0.9", "weight_decay=0.25")
    net = network(config, 4)
    sgd, before = transfer.optimizer(net, config), copied_weights(net)["conv1.weight"]
    transfer.set_rates(sgd, config, 0)
    weight, expected, velocity = net.stages["conv1"].weight, before, torch.zeros_like(before)
    for _ in range(3):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        sgd.step()
        velocity = 0.9 * velocity + (1 + 0.25 * expected)
        expected = expected - 0.5 * velocity
    torch.testing.assert_close(weight.detach(), expected)


def test_a_base_whose_weights_are_gone_is_named(protocol, cfg, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights.safetensors: the base's weights are gone; the same command"):
        network(cfg(f"results_dir={tmp_path}", "layers=3"), 4)
