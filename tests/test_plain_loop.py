"""A fine-tuned cell, written once more as a plain loop: torchvision's transforms on the files, SGD and rates by hand.

It shares nothing with the package but the definition of the network. What its draws are functions of is part of what
a run is, and is written out here too.
"""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torchvision.transforms import functional, transforms

from tests.conftest import make_folder
from tlprotocols.config.identity import base_of
from tlprotocols.planning.plan import resolved
from tlprotocols.records import files
from tlprotocols.training import models
from tlprotocols.training.run import execute

SEED, SPLIT, N, SIDE, PIXELS, PAD, BATCH, EPOCHS = 3, 1, 5, 20, 16, 2, 8, 3
COPIED, FROZEN, MOMENTUM, DECAY, DROPOUT = 5, 2, 0.9, 0.01, 0.2
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
RATES = {  # by epoch: lr.low falls after two epochs, lr.high after decay_epochs=1, conv4 has its own
    "conv3": (0.005, 0.005, 0.0005),
    "conv4": (0.001, 0.001, 0.0001),
    "conv5": (0.005, 0.005, 0.0005),
    "fc6": (0.005, 0.005, 0.0005),
    "fc7": (0.02, 0.002, 0.002),
    "fc8": (0.02, 0.002, 0.002),
}
CELL = [
    *(f"seed={SEED}", f"split={SPLIT}", f"n_per_class={N}", f"layers={COPIED}", f"freeze={FROZEN}"),
    *(f"dataset.side={SIDE}", f"dataset.pixels={PIXELS}", f"dataset.pad={PAD}", "augment=crop_flip"),
    *(f"batch_size={BATCH}", f"epochs={EPOCHS}", f"momentum={MOMENTUM}", f"weight_decay={DECAY}", f"dropout={DROPOUT}"),
    *("lr.high=0.02", "lr.low=0.005", "lr.layers.conv4=0.001", "lr.step=2", "lr.gamma=0.1"),
    *("high_lr_layers=2", "decay_epochs=1", "schedule=own_clock", "shards=1", "precision=fp32", "model.width=0.2"),
]


def key(*purpose):
    """The seed of one purpose."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, purpose)).encode()).digest()[:8], "big") >> 1


def draw(what, epoch, image):
    """A number from 0 to 1 for one image of one epoch: SplitMix64 (Steele et al. 2014, Fig. 17)."""
    z = (image * 0x9E3779B97F4A7C15 + key(what, SEED, epoch)) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return ((z ^ z >> 31) >> 11) / 2**53


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """The shapes as JPEGs."""
    root = make_folder(tmp_path_factory.mktemp("jpegs"), train=6, val=3)
    for png in root.rglob("*.png"):
        Image.open(png).save(png.with_suffix(".jpg"), quality=90)
        png.unlink()
    return root


def target_files(root, part):
    """(place among all images of the part, file, label) of those of the target half, B."""
    classes = sorted(folder.name for folder in (root / part).iterdir())
    half = sorted(np.random.RandomState([SPLIT]).permutation(len(classes))[len(classes) // 2 :])
    every = [(name, file) for name in classes for file in sorted((root / part / name).iterdir())]
    by_class = {name: [(place, file) for place, (of, file) in enumerate(every) if of == name] for name in classes}
    names = [classes[label] for label in half]
    return [(place, file, label) for label, name in enumerate(names) for place, file in by_class[name]]


def opened(file):
    return transforms.Compose([transforms.Resize(SIDE), transforms.CenterCrop(SIDE)])(Image.open(file).convert("RGB"))


def tensor(picture, dataset):
    return functional.normalize(functional.to_tensor(picture), dataset.mean, dataset.std)


def batch(pictures, dataset):
    return torch.stack([tensor(picture, dataset) for picture in pictures]).contiguous(memory_format=torch.channels_last)


def augmented(place, file, epoch):
    picture = functional.pad(opened(file), [PAD] * 4)
    top, left = (int(draw(what, epoch, place) * (SIDE + 2 * PAD - PIXELS + 1)) for what in ("top", "left"))
    picture = functional.crop(picture, top, left, PIXELS, PIXELS)
    return functional.hflip(picture) if draw("flip", epoch, place) < 0.5 else picture


def measured(net, images, dataset):
    """Mean loss and accuracy on the middle crops."""
    net.eval()
    with torch.no_grad():
        logits = net(batch([functional.center_crop(opened(file), PIXELS) for _, file, _ in images], dataset))
    labels = torch.tensor([label for _, _, label in images])
    loss = cross_entropy(logits, labels, reduction="sum").item() / len(labels)
    return loss, (logits.argmax(1) == labels).float().mean().item()


def plain_loop(config, root, base):
    """What a row says of the run, computed by hand from the files and the weights of the base."""
    train = [image for image in target_files(root, "train") if int(image[1].stem) < N]
    torch.manual_seed(key("initialisation", SEED))
    net = models.build(config, 4).to(memory_format=torch.channels_last)
    weights = dict(
        zip([f"{layer}.{name}" for layer in LAYERS for name in ("weight", "bias")], net.parameters(), strict=True)
    )
    with torch.no_grad():
        for name, value in load_file(base).items():
            if name.split(".")[0] in LAYERS[:COPIED]:
                weights[name].copy_(value)
    learning = {name: weight for name, weight in weights.items() if name.split(".")[0] in LAYERS[FROZEN:]}
    velocity = {name: torch.zeros_like(weight) for name, weight in learning.items()}
    for epoch in range(EPOCHS):
        torch.manual_seed(key("dropout", SEED, epoch))
        net.train()
        losses = []
        order = np.random.Generator(np.random.PCG64(key("order", SEED, epoch))).permutation(len(train))
        for first in range(0, len(order), BATCH):
            images = [train[place] for place in order[first : first + BATCH]]
            crops = batch([augmented(place, file, epoch) for place, file, _ in images], config.dataset)
            loss = cross_entropy(net(crops), torch.tensor([label for _, _, label in images]))
            losses += [loss.item()] * len(images)
            gradients = torch.autograd.grad(loss, list(learning.values()))
            with torch.no_grad():
                for (name, weight), gradient in zip(learning.items(), gradients, strict=True):
                    velocity[name] = MOMENTUM * velocity[name] + gradient + DECAY * weight
                    weight.sub_(RATES[name.split(".")[0]][epoch] * velocity[name])
    found = {"train_loss": np.mean(losses)}
    found["train_eval_loss"], found["train_top1"] = measured(net, train, config.dataset)
    found["val_loss"], found["val_top1"] = measured(net, target_files(root, "val"), config.dataset)
    return found


@pytest.mark.slow
def test_a_fine_tuned_cell_is_a_plain_loop_with_torchvisions_transforms(composed, tiny, jpegs, tmp_path):
    folders = [f"dataset.root={jpegs}", f"machine.image_cache={tmp_path / 'cache'}", f"results_dir={tmp_path}"]
    config = resolved(composed(*tiny, *folders, *CELL))
    base = execute(base_of(config), role="base")
    assert base["val_top1"] > 0  # it is a trained network, from another half
    row = execute(config)
    expected = plain_loop(config, jpegs, files(base_of(config)).weights)
    found = {name: row[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-6)  # arithmetic has 7 digits
