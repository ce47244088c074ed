"""AlexNet's eight layers under their names, in torchvision's numbers and in a small version."""

import pytest
import torch
from torchvision.models import AlexNet

from tlprotocols.training import models, transfer

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def alexnet(plain, pixels, *overrides):
    return plain("model=alexnet", f"dataset.side={pixels}", f"dataset.pixels={pixels}", "dropout=0.5", *overrides)


@pytest.mark.parametrize("model", ["alexnet", "alexnet_small"])
def test_the_eight_layers_have_the_papers_names(plain, model):
    config = alexnet(plain, 64, f"model={model}")
    net = models.build(config, 5)
    assert list(net.stages) == LAYERS == list(config.model.stages)
    kinds = [type(module).__name__ for module in net.stages.values()]
    assert kinds == ["Conv2d"] * 5 + ["Linear"] * 3
    assert sum(p.numel() for p in net.parameters()) == sum(v.numel() for v in transfer.weights(net).values())


@pytest.mark.parametrize("pixels", [224, 64])
def test_the_full_size_network_is_torchvisions(plain, pixels):
    torch.manual_seed(0)
    net = models.build(alexnet(plain, pixels), 5).eval()
    torch.manual_seed(0)
    reference = AlexNet(num_classes=5, dropout=0.5).eval()
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    images = torch.randn(1, 3, pixels, pixels)
    with torch.no_grad():
        assert torch.equal(net(images), reference(images))


def leaves(module):
    """The modules that compute something, in their order."""
    return [m for m in module.modules() if not list(m.children())]


@pytest.mark.parametrize("model", ["alexnet", "alexnet_small"])
def test_dropout_acts_before_fc6_and_before_fc7(plain, model):
    body = leaves(models.build(alexnet(plain, 64, f"model={model}", "dropout=0.25"), 5))
    where = [i for i, module in enumerate(body) if isinstance(module, torch.nn.Dropout)]
    assert [body[i].p for i in where] == [0.25, 0.25]
    assert [type(body[i + 1]).__name__ for i in where] == ["Linear", "Linear"]
    assert not isinstance(body[-2], torch.nn.Dropout)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (1, [64, 192, 384, 256, 256, 1024, 1024, 5]),
        (0.25, [16, 48, 96, 64, 64, 256, 256, 5]),
        (0.05, [8, 8, 16, 16, 16, 51, 51, 5]),
    ],
)
def test_width_multiplies_channels_and_units(plain, width, expected):
    net = models.build(plain(f"model.width={width}"), 5)
    assert [module.state_dict()["weight"].shape[0] for module in net.stages.values()] == expected


@pytest.mark.parametrize("pixels", [16, 31, 32, 56, 64, 96])
def test_the_small_network_takes_small_images(plain, pixels):
    net = models.build(plain(f"dataset.side={pixels}", f"dataset.pixels={pixels}", "model.width=0.05"), 7)
    assert net(torch.zeros(2, 3, pixels, pixels)).shape == (2, 7)


def test_the_smallest_images_of_the_full_size_network(plain):
    assert models.build(alexnet(plain, 63), 2)(torch.zeros(1, 3, 63, 63)).shape == (1, 2)


@pytest.mark.parametrize("model", ["alexnet", "alexnet_small"])
def test_initialisation_is_decided_by_the_seed(plain, model):
    nets = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        nets.append(transfer.weights(models.build(alexnet(plain, 64, f"model={model}"), 3)))
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert not any(torch.equal(nets[0][name], nets[2][name]) for name in nets[0] if name.endswith("weight"))
