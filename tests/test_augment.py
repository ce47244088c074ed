"""Crop, flip and normalisation are torchvision's, bit for bit; draws depend on seed, epoch and image alone."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as tv

from tlprotocols.images.augment import Draws, _by_index, centre_draws, crop_and_flip, normalize, train_draws

SIDE = 20
PICTURES = np.random.RandomState(0).randint(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
IMAGES = np.arange(20_000)


def prepared(config, draws):
    stored = torch.from_numpy(PICTURES)
    return normalize(crop_and_flip(stored, draws, config.dataset), config.dataset)


def flips(draws):
    return torch.zeros(len(draws.top), dtype=torch.bool) if draws.flip is None else draws.flip


def by_torchvision(config, draws):
    """Pad, RandomCrop, RandomHorizontalFlip, ToTensor, Normalize, with these draws in place of random ones."""
    data, made = config.dataset, []
    for picture, top, left, flip in zip(PICTURES, draws.top.tolist(), draws.left.tolist(), flips(draws), strict=True):
        crop = tv.crop(tv.pad(Image.fromarray(picture), data.pad), top, left, data.pixels, data.pixels)
        tensor = tv.to_tensor(tv.hflip(crop) if flip else crop)
        made.append(tv.normalize(tensor, list(data.mean), list(data.std)))
    return torch.stack(made)


def sized(config, pixels, pad):
    return dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, side=SIDE, pixels=pixels, pad=pad))


@pytest.mark.parametrize("augment", ["none", "crop", "flip", "crop_flip"])
@pytest.mark.parametrize(("pixels", "pad"), [(20, 0), (20, 4), (16, 0), (17, 3), (24, 2)])
@pytest.mark.parametrize("dataset", ["glyphs", "cifar10", "imagenet"])
def test_training_images_are_torchvisions(plain, dataset, augment, pixels, pad):
    config = sized(plain(f"dataset={dataset}", f"augment={augment}"), pixels, pad)
    draws = train_draws(config, 3, np.arange(len(PICTURES)))
    assert torch.equal(prepared(config, draws), by_torchvision(config, draws))


@pytest.mark.parametrize("augment", ["none", "crop", "flip", "crop_flip"])
@pytest.mark.parametrize(("pixels", "pad"), [(20, 0), (20, 4), (16, 0), (17, 3), (24, 2)])
def test_a_gpu_cuts_what_a_cpu_cuts(plain, augment, pixels, pad):
    config, stored = sized(plain(f"augment={augment}"), pixels, pad), torch.from_numpy(PICTURES)
    draws = train_draws(config, 3, np.arange(len(PICTURES)))
    assert torch.equal(_by_index(stored, draws, config.dataset), crop_and_flip(stored, draws, config.dataset))


@pytest.mark.parametrize("pixels", [20, 19, 18, 17, 16, 15])
@pytest.mark.parametrize("pad", [0, 3])
def test_the_middle_crop_is_torchvisions(plain, pixels, pad):
    config = sized(plain(), pixels, pad)
    crops = crop_and_flip(torch.from_numpy(PICTURES), centre_draws(config.dataset, len(PICTURES)), config.dataset)
    for picture, crop in zip(PICTURES, crops, strict=True):
        assert np.array_equal(np.asarray(tv.center_crop(Image.fromarray(picture), pixels)), crop.numpy())


@pytest.mark.parametrize("pixels", [21, 22, 23, 24])
def test_a_middle_crop_larger_than_the_image_is_torchvisions(plain, pixels):
    config = sized(plain(), pixels, 2)
    crops = crop_and_flip(torch.from_numpy(PICTURES), centre_draws(config.dataset, len(PICTURES)), config.dataset)
    for picture, crop in zip(PICTURES, crops, strict=True):
        assert np.array_equal(np.asarray(tv.center_crop(Image.fromarray(picture), pixels)), crop.numpy())


@pytest.mark.parametrize("which", [0, 7, 39])
def test_a_mirrored_corner(plain, which):
    config = sized(plain(), 16, 0)
    draws = Draws(torch.tensor([4]), torch.tensor([0]), torch.tensor([True]))
    crop = crop_and_flip(torch.from_numpy(PICTURES[which : which + 1]), draws, config.dataset)[0]
    assert np.array_equal(crop.numpy(), PICTURES[which, 4:20, 15::-1])


def drawn(config, epoch=0, images=IMAGES):
    draws = train_draws(config, epoch, images)
    return torch.stack([draws.top, draws.left, flips(draws).long()], 1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("epoch", [0, 29])
def test_draws_are_uniform(plain, seed, epoch):
    config = sized(plain("augment=crop_flip", f"seed={seed}"), 20, 2)  # 5 tops, 5 lefts, 2 directions
    top, left, flip = drawn(config, epoch).T.numpy()
    counts = np.bincount(top * 10 + left * 2 + flip, minlength=50)
    assert len(counts) == 50
    assert np.square(counts - 400).sum() / 400 < 85.4  # chi-square, 49 degrees of freedom: p = .001


def test_consecutive_images_are_drawn_independently(plain):
    config = sized(plain("augment=crop_flip"), 20, 2)
    top = drawn(config)[:, 0].numpy()
    counts = np.bincount(top[:-1:2] * 5 + top[1::2], minlength=25)
    assert np.square(counts - 400).sum() / 400 < 51.2  # chi-square, 24 degrees of freedom: p = .001


def test_a_draw_depends_on_the_image_alone(plain):
    config = sized(plain("augment=crop_flip"), 16, 2)
    shuffled = np.random.RandomState(0).permutation(20_000)[:300]
    assert torch.equal(drawn(config, images=shuffled), drawn(config)[shuffled])
    assert torch.equal(drawn(config, images=shuffled[5:6]), drawn(config)[shuffled[5:6]])


@pytest.mark.parametrize("changed", ["epoch", "seed"])
def test_every_epoch_and_every_seed_draws_anew(plain, changed):
    config = sized(plain("augment=crop_flip"), 16, 2)
    other = sized(plain("augment=crop_flip", "seed=1"), 16, 2) if changed == "seed" else config
    same = (drawn(config, 0) == drawn(other, int(changed == "epoch"))).float().mean(0)
    assert same.numpy() == pytest.approx([1 / 9, 1 / 9, 1 / 2], abs=0.02)


def test_nothing_else_changes_the_draws(plain):
    config = sized(plain("augment=crop_flip"), 16, 2)
    other = sized(plain("augment=crop_flip", "layers=3", "n_per_class=50", "split=2", "lr.high=1"), 16, 2)
    assert torch.equal(drawn(config), drawn(other))


@pytest.mark.parametrize(("augment", "varied"), [("none", ""), ("crop", "top left"), ("flip", "flip")])
def test_only_what_augment_names_varies(plain, augment, varied):
    draws = train_draws(sized(plain(f"augment={augment}"), 16, 0), 0, IMAGES)
    parts = {"top": draws.top, "left": draws.left, "flip": flips(draws)}
    found = [name for name, values in parts.items() if len(set(values.tolist())) > 1]
    assert found == varied.split()


def resized_config(plain, side, pixels):
    return plain("augment=resized_crop_flip", f"dataset.side={side}", f"dataset.pixels={pixels}", "dataset.pad=0")


@pytest.mark.parametrize(("side", "pixels"), [(36, 32), (64, 56), (64, 48), (32, 32)])
def test_resized_crops_are_torchvisions_given_the_same_box(plain, side, pixels):
    config = resized_config(plain, side, pixels)
    images = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (200, side, side, 3), dtype=np.uint8))
    draws = train_draws(config, 0, np.arange(200))
    found = crop_and_flip(images, draws, config.dataset)
    for number in range(200):
        box = [int(values[number]) for values in (draws.top, draws.left, draws.height, draws.width)]
        expected = tv.resized_crop(images[number].permute(2, 0, 1), *box, [pixels, pixels], antialias=True)
        expected = tv.hflip(expected) if draws.flip[number] else expected
        difference = (found[number].permute(2, 0, 1).int() - expected.int()).abs()
        assert difference.max() <= 1  # of 255: the order of rounding
        assert (difference > 0).float().mean() < 0.02


def test_boxes_are_drawn_as_torchvision_draws_them(plain):
    """Area, ratio and place have its distributions: quantiles of 20,000 boxes of each."""
    config = resized_config(plain, 64, 56)
    draws = train_draws(config, 0, np.arange(20000))
    blank = torch.zeros(3, 64, 64)
    torch.manual_seed(0)
    theirs = np.array([transforms.RandomResizedCrop.get_params(blank, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(20000)])
    ours = np.stack([draws.top, draws.left, draws.height, draws.width], 1)
    for column in range(4):
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert abs(np.quantile(ours[:, column], share) - np.quantile(theirs[:, column], share)) <= 1
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= 64).all()


def test_a_box_depends_on_its_image_and_epoch_alone(plain):
    config = resized_config(plain, 64, 56)
    whole, some = train_draws(config, 3, np.arange(100)), train_draws(config, 3, np.array([70, 5]))
    for field in ("top", "left", "flip", "height", "width"):
        assert getattr(whole, field)[[70, 5]].tolist() == getattr(some, field).tolist()
    assert train_draws(config, 4, np.arange(100)).height.tolist() != whole.height.tolist()
