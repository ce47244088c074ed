"""Images as they come: odd modes, odd sizes, damaged files, every layout, one cache that decodes only what is used."""

import dataclasses
import hashlib
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageFont
from torchvision import transforms

from tlprotocols import images as datasets
from tlprotocols.config.identity import base_of
from tlprotocols.errors import ConfigError
from tlprotocols.images import cache as store_module
from tlprotocols.images import folders, source
from tlprotocols.images.cache import ImageCache, images_needed
from tlprotocols.images.folders import ImageFiles, read_image
from tlprotocols.images.glyphs import FACES, Glyphs, characters, font_folder
from tlprotocols.images.repeated import repeated_images
from tlprotocols.images.splits import target_classes
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.records import files
from tlprotocols.training.run import execute, selected

NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 256, (37, 53, 3), dtype=np.uint8))


def dataset(composed, *overrides):
    return composed(*overrides).dataset


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("L", "jpg"), ("P", "png"), ("CMYK", "jpg"), ("RGBA", "png"), ("LA", "png"), ("1", "png")],
)
def test_every_mode_is_read_as_torchvision_reads_it(tmp_path, mode, suffix):
    file = tmp_path / f"picture.{suffix}"
    NOISE.convert(mode).save(file)
    with Image.open(file) as opened:
        assert opened.mode == mode
    expected = transforms.CenterCrop(16)(transforms.Resize(16)(torchvision.datasets.folder.pil_loader(str(file))))
    assert np.array_equal(read_image(file, 16), np.asarray(expected))


@pytest.mark.parametrize("side", [16, 32, 37])
@pytest.mark.parametrize(
    "size", [(53, 37), (37, 53), (37, 37), (32, 32), (32, 33), (100, 33), (31, 64), (16, 17), (8, 9)]
)
def test_resize_and_middle_crop_are_torchvisions(tmp_path, size, side):
    file = tmp_path / "picture.png"
    NOISE.resize(size).save(file)
    with Image.open(file) as opened:
        expected = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])(opened.convert("RGB"))
    found = read_image(file, side)
    assert found.shape == (side, side, 3)
    assert np.array_equal(found, np.asarray(expected))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # decoders have more to say of some formats
@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp", "ppm", "tif", "webp"])
def test_a_truncated_image_names_its_path(tmp_path, suffix):
    whole, file = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    NOISE.save(whole)
    content = whole.read_bytes()
    for length in (*range(0, 40, 3), 100, len(content) // 2):
        file.write_bytes(content[:length])
        with pytest.raises(ConfigError) as caught:
            read_image(file, 16)
        assert str(caught.value).startswith(f"dataset.root={file}: cannot be read as an image")


def test_a_text_that_is_called_jpeg_names_its_path(tmp_path):
    file = tmp_path / "n01440764_1.JPEG"
    file.write_text("<html>404</html>")
    with pytest.raises(ConfigError, match=r"n01440764_1.JPEG: cannot be read as an image"):
        read_image(file, 16)


def folder(composed, root, *overrides):
    config = composed(
        "dataset=folder", f"dataset.root={root}", f"machine.image_cache={root.parent / 'cache'}", *overrides
    )
    return source(config.dataset, config.machine.image_cache)


def test_a_folder_is_read_as_torchvisions_imagefolder(composed, shapes):
    found = folder(composed, shapes)
    for part in ("train", "val"):
        reference = torchvision.datasets.ImageFolder(str(shapes / part))
        assert list(found.classes) == reference.classes
        listed = [(file, label) for label, files in enumerate(found.files[part]) for file in files]
        assert listed == reference.samples


def test_test_will_do_for_val(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    (root / "val").rename(root / "test")
    assert folder(composed, root).counts == {"train": (12, 12), "val": (4, 4)}


@pytest.mark.parametrize("below", [".", "train"])
def test_a_folder_without_val_holds_out_the_last_images(composed, make_shapes, tmp_path, below):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    found = folder(composed, root / "train" if below == "." else root, "dataset.val_per_class=5")
    if below == "train":
        assert found.counts == {"train": (12, 12), "val": (4, 4)}
        shutil.rmtree(root / "val")
        datasets.forget()
        found = folder(composed, root, "dataset.val_per_class=5")
    names = {part: [file[-7:] for file in found.files[part][1]] for part in ("train", "val")}
    assert names == {
        "train": ["000.png", "001.png", "002.png", "003.png", "004.png", "005.png", "006.png"],
        "val": ["007.png", "008.png", "009.png", "010.png", "011.png"],
    }


def test_too_few_images_to_hold_out_names_the_class(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee")) / "train"
    with pytest.raises(ConfigError, match=r"^dataset.val_per_class=12: class ant has 12 images: give 11 or less"):
        folder(composed, root, "dataset.val_per_class=12")


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_class_folder_is_named(composed, make_shapes, tmp_path, part):
    root = make_shapes(tmp_path / "tree", ("ant", "bee", "cat"))
    for file in (root / part / "bee").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=f"class bee has no image for {part}"):
        folder(composed, root)


def test_train_and_val_have_the_same_classes(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee", "cat"))
    shutil.rmtree(root / "val" / "bee")
    with pytest.raises(ConfigError, match=r"train/ and val/ have different classes: \['bee'\]"):
        folder(composed, root)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("folder", "train/CLASS/image files and val/CLASS/image files"),
        ("imagenet", "train/WNID/*.JPEG and val/WNID/*.JPEG"),
        ("tiny_imagenet", "train/WNID/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt"),
        ("cifar10", "the folder that holds cifar-10-batches-py/; dataset.download=true fetches it there"),
        ("cifar100", "the folder that holds cifar-100-python/; dataset.download=true fetches it there"),
    ],
)
@pytest.mark.parametrize("root", ["null", "nowhere", "empty"])
def test_a_missing_root_says_what_must_be_there(composed, tmp_path, name, layout, root):
    (tmp_path / "empty").mkdir()
    value = root if root == "null" else tmp_path / root
    with pytest.raises(ConfigError) as caught:
        source(dataset(composed, f"dataset={name}", f"dataset.root={value}"), tmp_path)
    line = str(caught.value)
    assert line.startswith(f"dataset.root={value}: ")
    assert "\n" not in line
    assert layout in line or (root == "empty" and "must hold an intact cifar-10" in line)


@pytest.mark.parametrize("change", ["rename", "remove", "class", "swap", "byte", "order"])
def test_the_fingerprint_tells_other_images_apart(composed, make_shapes, tmp_path, change):
    one, other = (make_shapes(tmp_path / name, ("ant", "bee")) for name in ("one", "other"))
    overrides = [f"machine.image_cache={tmp_path / 'cache'}"]
    assert folder(composed, one, *overrides).fingerprint == folder(composed, other, *overrides).fingerprint
    bee = other / "train" / "bee"
    last, first = bee / "011.png", bee / "000.png"
    match change:
        case "rename":
            last.rename(last.with_name("0110.png"))
        case "remove":
            last.unlink()
        case "class":
            for part in ("train", "val"):
                (other / part / "bee").rename(other / part / "cow")
        case "swap":
            shutil.copy(first, last)
        case "byte":
            last.write_bytes(last.read_bytes()[:-1] + b"x")
        case "order":
            one_of_them = last.read_bytes()
            last.write_bytes(first.read_bytes())
            first.write_bytes(one_of_them)
    datasets.forget()  # as another process
    assert folder(composed, one, *overrides).fingerprint != folder(composed, other, *overrides).fingerprint


def test_twenty_random_bytes_are_each_another_fingerprint(composed, make_shapes, tmp_path):
    """The size stays, and the time of the last change is put back: as a disk fails, or as an archive is unpacked."""
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    images, draw, seen = sorted(root.glob("*/*/*.png")), random.Random(0), set()
    seen.add(folder(composed, root).fingerprint)
    for _ in range(20):
        file = draw.choice(images)
        before, content, place = os.stat(file), bytearray(file.read_bytes()), draw.randrange(10**6)
        content[place % len(content)] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        datasets.forget()
        seen.add(folder(composed, root).fingerprint)
    assert len(seen) == 21


def test_unchanged_images_are_read_once(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    assert folder(composed, root).unread == 32
    first = folder(composed, root).fingerprint
    datasets.forget()
    assert folder(composed, root).unread == 0
    assert folder(composed, root).fingerprint == first
    (root / "val" / "ant" / "000.png").touch()
    datasets.forget()
    assert folder(composed, root).unread == 4
    assert folder(composed, root).fingerprint == first


def test_a_damaged_digest_is_read_anew(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    first = folder(composed, root).fingerprint
    (kept,) = (root.parent / "cache" / "digests").iterdir()
    whole = kept.read_bytes()
    digit = whole.index(b'"val/bee"') + 30
    flipped = whole[:digit] + (b"0" if whole[digit : digit + 1] != b"0" else b"1") + whole[digit + 1 :]
    for content in (b"", b"{", b"[]", b"null", b'{"classes": 5, "digest": 5}', flipped):
        kept.write_bytes(content)
        datasets.forget()
        assert folder(composed, root).fingerprint == first


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_image_file_is_named(composed, make_shapes, tmp_path, kind):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    odd = root / "train" / "bee" / "odd.png"
    if kind == "link":
        odd.symlink_to(tmp_path / "nowhere.png")
    else:
        os.mkfifo(odd)
    with pytest.raises(ConfigError, match=r"bee/odd.png: cannot be read as an image"):
        folder(composed, root)


LOOPS = {  # links of the class ant, or of two classes, that would be followed for ever; the one that is named
    "itself": ({"train/ant/more": "."}, "ant/more"),
    "the root": ({"train/ant/up": "../.."}, "ant/up"),
    "another class and back": ({"train/ant/x": "../bee", "train/bee/y": "../ant"}, "(ant/x/y|ant/x)"),
}


@pytest.mark.parametrize(("links", "named"), LOOPS.values(), ids=LOOPS)
def test_links_that_lead_round_in_circles_are_named(composed, make_shapes, tmp_path, links, named):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    for link, target in links.items():
        (root / link).symlink_to(target)
    with pytest.raises(ConfigError, match=rf"{named}: is a link to a folder that holds it; remove the link"):
        folder(composed, root)


def test_a_class_may_be_a_link_to_a_folder_elsewhere(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    first = folder(composed, root)
    (root / "train" / "bee").rename(tmp_path / "elsewhere")
    (root / "train" / "bee").symlink_to(tmp_path / "elsewhere")
    datasets.forget()
    assert (folder(composed, root).counts, folder(composed, root).fingerprint) == (first.counts, first.fingerprint)


def test_a_class_that_is_a_link_to_nowhere_is_named(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    for part in ("train", "val"):
        (root / part / "cat").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"train/cat: is a link to what is not there; fix or remove it"):
        folder(composed, root)


@pytest.mark.parametrize("root", ["/", "/..", "//"])
def test_the_whole_file_system_is_no_data_set(composed, root):
    dataset = composed("dataset=folder", f"dataset.root={root}").dataset
    with pytest.raises(ConfigError, match="is the whole file system; it must hold train/CLASS/image files"):
        source(dataset, "cache")


def test_the_search_for_images_among_other_files_is_bounded(composed, make_shapes, tmp_path, monkeypatch):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    for number in range(30):
        (root / "train" / "bee" / f"{number}.txt").touch()
    assert folder(composed, root).counts["train"] == (12, 12)
    monkeypatch.setattr(folders, "OTHERS", 29)
    datasets.forget()
    with pytest.raises(ConfigError, match="train/bee: holds more than 29 entries that are no images: is it a class"):
        folder(composed, root)


def test_names_that_are_no_utf8_are_names(composed, tiny, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee", "cat"))
    for part in ("train", "val"):
        os.rename(root / part / "ant", os.fsencode(root / part) + b"/\xfe")
        os.rename(root / part / "bee" / "000.png", os.fsencode(root / part / "bee") + b"/\xff.png")
    folders = [f"dataset.root={root}", f"machine.image_cache={tmp_path / 'cache'}", f"results_dir={tmp_path}"]
    config = resolved(composed(*tiny, *folders, "layers=0", "split=1"))
    ImageCache.of(config).ensure(images_needed(config), workers=1)
    assert ImageCache.of(config).classes == ["bee", "cat", "\udcfe"]
    assert execute(config)["val_top1"] >= 0


def test_images_that_are_trained_and_measured_on_are_noted(composed, tiny, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree")
    names = sorted(f.name for f in (root / "train").iterdir())
    shutil.copy(root / "val" / names[2] / "001.png", root / "train" / names[2] / "twin.png")
    shutil.copy(root / "val" / names[5] / "003.png", root / "train" / names[2] / "other.png")  # of another class
    folders = [f"dataset.root={root}", f"machine.image_cache={tmp_path / 'cache'}"]
    configs = [resolved(composed(*tiny, *folders, "layers=0", "classes=all", f"n_per_class={n}")) for n in (4, "full")]
    ImageCache.of(configs[0]).ensure(images_needed(configs[0]), workers=1)
    assert repeated_images(configs) == [
        "note: 2 images of folder that accuracy is measured on are equal to images that the same run, or its base,"
        f" is trained on, the first being image 2 of class {names[2]} in val"
    ]
    assert repeated_images(configs[:1]) == []  # the four images of a class are others
    (root / "train" / names[2] / "twin.png").unlink()
    (root / "train" / names[2] / "other.png").unlink()
    datasets.forget()
    whole = [resolved(composed(*tiny, *folders, "layers=0", f"target={half}")) for half in "AB"]
    ImageCache.of(whole[0]).ensure(images_needed(whole[0]), workers=1)  # half of the cache is not decoded: all black
    assert repeated_images(whole[:1]) == []


@pytest.mark.parametrize(
    ("overrides", "count", "where"),
    [
        (["fold=0,1,2,3,4", "n_per_class=full"], 8, "image 1 of class ant in train"),
        (["fold=0", "n_per_class=full"], 2, "image 1 of class ant in train"),
        (["fold=1", "n_per_class=5"], 1, "image 2 of class bee in train"),
        (["fold=2", "n_per_class=5"], 0, ""),
        (["test_per_class=1", "n_per_class=full"], 1, "image 14 of class ant in train"),
        (["test_per_class=1", "n_per_class=2"], 0, ""),
        (["test_per_class=1", "fold=0,1,2,3,4", "n_per_class=full"], 7, "image 1 of class ant in train"),
        (["dataset.val_from_train=true", "dataset.val_per_class=1", "n_per_class=full"], 1, "class ant in val"),
        (["n_per_class=full"], 0, ""),
    ],
)
def test_images_twice_among_the_training_images_are_noted_where_they_are_measured_on(
    composed, tiny, make_shapes, tmp_path, overrides, count, where
):
    """Of the ants the first three are there again at the end, one of the bees is in front of itself."""
    root = make_shapes(tmp_path / "tree", ("ant", "bee", "cat"), train=11)
    ants, bees = root / "train" / "ant", root / "train" / "bee"
    for number in range(3):
        shutil.copy(ants / f"{number:03}.png", ants / f"copy{number}.png")
    shutil.copy(bees / "000.png", bees / "0.png")
    folders = [f"dataset.root={root}", f"machine.image_cache={tmp_path / 'cache'}"]
    values = [override.partition("=") for override in overrides]
    cells = itertools.product(*([f"{key}={value}" for value in listed.split(",")] for key, _, listed in values))
    configs = [resolved(composed(*tiny, *folders, "layers=0", "classes=all", *cell)) for cell in cells]
    ImageCache.of(configs[0]).ensure(images_needed(configs[0]), workers=1)
    found = repeated_images(configs)
    assert len(found) == (count > 0)
    assert all(line.startswith(f"note: {count} image") and line.endswith(where) for line in found)


def test_an_image_that_the_base_has_learned_is_noted(composed, tiny, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree")
    base = resolved(composed(*tiny, f"dataset.root={root}", f"machine.image_cache={tmp_path / 'cache'}", "layers=3"))
    base = dataclasses.replace(base, base=dataclasses.replace(base.base, n_per_class="full"))
    names = sorted(f.name for f in (root / "train").iterdir())
    own, other = target_classes(base, names)[0], target_classes(base_of(base), names)[0]
    shutil.copy(root / "val" / names[own] / "000.png", root / "train" / names[other] / "000.png")
    datasets.forget()
    config = resolved(dataclasses.replace(base, dataset=dataclasses.replace(base.dataset, fingerprint="")))
    runs = [config, base_of(config)]
    for run in runs:
        ImageCache.of(run).ensure(images_needed(run), workers=1)
    (found,) = repeated_images(runs)
    assert repeated_images([config]) == [found]  # the base is finished: it is not among the runs to come
    assert found.startswith("note: 1 image of folder")
    assert found.endswith(f"image 1 of class {names[own]} in val")
    assert repeated_images([dataclasses.replace(config, layers=0)]) == []


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ("base=dataset test_per_class=2 n_per_class=4", 16),  # of eight classes
        ("base=dataset fold=0 folds=4 n_per_class=4", 8),
        ("base=dataset", 0),
        ("base=dataset dataset.val_from_train=true dataset.val_per_class=2", 16),  # whose base cuts none from training
        ("base=dataset base.dataset.side=24 test_per_class=2 n_per_class=4", 16),  # the same files, decoded again
        ("base=dataset base.dataset.val_from_train=true base.dataset.val_per_class=2", 0),
        ("classes=groups test_per_class=2", 4),  # two of the four target classes are source classes
        ("classes=groups fold=0 folds=4", 2),
        ("classes=groups", 0),
        ("base=self test_per_class=2", 0),
    ],
)
def test_images_that_are_measured_on_after_the_base_has_learned_them_are_noted(
    composed, tiny, shapes, tmp_path, overrides, count
):
    names = sorted(f.name for f in (shapes / "train").iterdir())
    given = [*tiny, f"machine.image_cache={tmp_path}", "layers=3", "base.n_per_class=full", *overrides.split()]
    if "base=dataset" in overrides:
        own = [f"base.{key}" for key in tiny if key.startswith("dataset.")]
        given += ["classes=all", "base.dataset=folder", *own, f"base.dataset.root={shapes}"]
    if "groups" in overrides:
        given += [f"classes.source=[{','.join(names[:4])}]", f"classes.target=[{','.join(names[2:6])}]"]
    config = resolved(composed(*given))
    for run in (config, base_of(config)):
        ImageCache.of(run).ensure(images_needed(run), workers=1)
    found = repeated_images([config])
    assert [line.split()[1] for line in found] == [str(count)] * (count > 0)


def test_a_damaged_list_of_validation_images_is_named(composed, tmp_path):
    (tmp_path / "train" / "n1" / "images").mkdir(parents=True)
    (tmp_path / "val").mkdir()
    for content in (b"val_0.JPEG n1\n", b"val_0.JPEG\t\xff\n\n"):
        (tmp_path / "val" / "val_annotations.txt").write_bytes(content)
        datasets.forget()
        with pytest.raises(ConfigError, match=r"val_annotations.txt: line [12] is no file, tab and class"):
            source(composed("dataset=tiny_imagenet", f"dataset.root={tmp_path}").dataset, tmp_path / "cache")


def test_tiny_imagenet_given_as_a_folder_is_named(composed, tmp_path):
    for folder in ("train/n1/images", "train/n2/images", "val/images"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn1\n")
    with pytest.raises(
        ConfigError, match=r"^dataset=folder: \S+ is laid out as Tiny ImageNet: say dataset=tiny_imagenet"
    ):
        source(composed("dataset=folder", f"dataset.root={tmp_path}").dataset, tmp_path / "cache")


def test_tiny_imagenets_official_layout(composed, tmp_path):
    wnids, notes = ("n01443537", "n01629819", "n01641577"), []
    (tmp_path / "val" / "images").mkdir(parents=True)
    for label, wnid in enumerate(wnids):
        (tmp_path / "train" / wnid / "images").mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (64, 64), (label, number, 0)).save(
                tmp_path / "train" / wnid / "images" / f"{wnid}_{number}.JPEG"
            )
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("a box")
    for number, label in enumerate((2, 0, 1, 0, 2, 1)):
        Image.new("RGB", (64, 64), (100 + label,) * 3).save(tmp_path / "val" / "images" / f"val_{number}.JPEG")
        notes.append(f"val_{number}.JPEG\t{wnids[label]}\t0\t0\t62\t62\n")
    notes.append("val_9.JPEG\tn99999999\t0\t0\t62\t62\n")  # of a class that was not unpacked
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(notes))
    found = source(dataset(composed, "dataset=tiny_imagenet", f"dataset.root={tmp_path}"), tmp_path)
    assert isinstance(found, ImageFiles)
    assert found.classes == wnids
    assert found.counts == {"train": (3, 3, 3), "val": (2, 2, 2)}
    for label in range(3):
        assert np.abs(found.decoder("val", label)(64).astype(int) - (100 + label)).max() == 0
        assert [file[-6:] for file in found.files["train"][label]] == ["0.JPEG", "1.JPEG", "2.JPEG"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_torchvisions_format(composed, tmp_path, monkeypatch, name):
    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    data = np.random.RandomState(0).randint(0, 256, (20, 3 * 32 * 32), dtype=np.uint8)
    labels = [number % 3 for number in range(20)]
    contents = {
        "train": {"data": data, "labels" if name == "cifar10" else "fine_labels": labels},
        "test": {"data": data[::-1], "labels" if name == "cifar10" else "fine_labels": labels[::-1]},
        "meta": {"label_names" if name == "cifar10" else "fine_label_names": ["ant", "bee", "cat"]},
    }
    (tmp_path / kind.base_folder).mkdir()
    sums = {}
    for file, content in contents.items():
        pickled = pickle.dumps(content)
        (tmp_path / kind.base_folder / file).write_bytes(pickled)
        sums[file] = hashlib.md5(pickled).hexdigest()
    key = "label_names" if name == "cifar10" else "fine_label_names"
    monkeypatch.setattr(kind, "train_list", [["train", sums["train"]]])  # the sums of this archive, not of the real one
    monkeypatch.setattr(kind, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": key, "md5": sums["meta"]})
    found = source(dataset(composed, f"dataset={name}", f"dataset.root={tmp_path}"), tmp_path)
    pictures = data.reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)
    assert found.classes == ("ant", "bee", "cat")
    assert found.counts == {"train": (7, 7, 6), "val": (7, 7, 6)}
    assert np.array_equal(found.decoder("train", 1)(32), pictures[1::3])
    assert np.array_equal(found.decoder("val", 1)(32), pictures[1::3][::-1])
    assert found.decoder("val", 2)(24).shape == (6, 24, 24, 3)
    cut = dataset(composed, f"dataset={name}", f"dataset.root={tmp_path}", "dataset.val_from_train=true")
    parts = source(dataclasses.replace(cut, val_per_class=2), tmp_path)
    assert parts.counts == {"train": (5, 5, 4), "val": (2, 2, 2), "test": (7, 7, 6)}
    assert np.array_equal(parts.decoder("train", 1)(32), pictures[1::3][:-2])
    assert np.array_equal(parts.decoder("val", 1)(32), pictures[1::3][-2:])
    assert np.array_equal(parts.decoder("test", 1)(32), pictures[1::3][::-1])
    assert parts.fingerprint != found.fingerprint


def test_glyphs_are_a_thousand_characters_of_every_face():
    drawn = characters()
    assert len(set(drawn)) == 1000
    assert drawn == tuple(sorted(drawn))
    assert len(FACES) == 12
    for face in FACES:
        font = ImageFont.truetype(font_folder() / face, 40, layout_engine=ImageFont.Layout.BASIC)
        missing, absent = (bytes(font.getmask(chr(code))) for code in (0x10FFFE, 0x10FFFF))
        assert missing == absent
        shapes = {c: (font.getbbox(c), bytes(font.getmask(c))) for c in drawn}
        assert [c for c, (_, mask) in shapes.items() if mask == missing or not any(mask)] == []


def test_glyphs_are_drawn_the_same_every_time():
    first, again = (Glyphs().decoder("train", 33)(32) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (100, 32, 32, 3)
    assert Glyphs().decoder("val", 33)(32).shape == (20, 32, 32, 3)


def test_no_two_pictures_of_a_glyph_are_equal():
    pictures = [p.tobytes() for part in ("train", "val") for p in Glyphs().decoder(part, 500)(32)]
    assert len(set(pictures)) == 120


def test_glyphs_do_not_hang_on_what_was_drawn_before():
    alone = Glyphs().decoder("val", 7)(16)
    other = Glyphs()
    other.decoder("train", 3)(16)
    assert np.array_equal(other.decoder("val", 7)(16), alone)


@pytest.fixture
def store(composed, tiny, tmp_path):
    return ImageCache.of(composed(*tiny, f"machine.image_cache={tmp_path / 'store'}"))


def test_the_store_decodes_only_what_is_asked(store):
    heard: list[int] = []
    store.ensure({("train", 2), ("val", 5)}, 1, heard.append)
    assert sum(heard) == 12 + 4
    everything = [(part, label) for part in ("train", "val") for label in range(8)]
    assert set(everything) - set(store.missing(everything)) == {("train", 2), ("val", 5)}
    rows = store.rows("train")
    assert np.array_equal(rows[24:36], store.source.decoder("train", 2)(16))
    assert not rows[:24].any()
    assert not rows[36:].any()


def test_the_store_decodes_nothing_twice(store):
    store.ensure({("train", 2)}, 1)
    with open(store.folder / "train.u8", "r+b") as file:
        file.write(bytes(8 * 12 * 16 * 16 * 3))
    store.ensure({("train", 2), ("train", 3)}, 1)
    assert not store.rows("train")[24:36].any()
    assert np.array_equal(store.rows("train")[36:48], store.source.decoder("train", 3)(16))


def everything(store):
    return {(part, label) for part in ("train", "val") for label in range(8)}


def trained_on(store, part="train"):
    """What a new process that trains on all images finds in the store, and which classes it decoded again."""
    there = ImageCache(store.dataset, store.folder)
    there.ensure(everything(there), 1)
    rows = np.arange(there.offsets(part)[-1])
    again = there.verify(part, rows)
    return there.rows(part).copy(), again


@pytest.mark.parametrize("harm", ["cut", "gone", "empty", "checksums cut", "checksums gone", "done.json cut", "purged"])
def test_a_store_that_lost_a_file_is_decoded_again(store, harm):
    store.ensure(everything(store), 1)
    whole = trained_on(store)[0]
    images, checksums, done = (store.folder / name for name in ("train.u8", "train.crc32", "done.json"))
    match harm:
        case "cut":
            os.truncate(images, images.stat().st_size // 2)
        case "gone":
            images.unlink()
        case "empty":
            os.truncate(images, 0)
        case "checksums cut":
            os.truncate(checksums, 8)
        case "checksums gone":
            checksums.unlink()
        case "done.json cut":
            os.truncate(done, 9)
        case "purged":  # as a scratch file system does: only what is small and new stays
            images.unlink()
            checksums.unlink()
    assert np.array_equal(trained_on(store)[0], whole)


def test_zeroed_pages_of_the_store_are_found_and_decoded_again(store):
    store.ensure(everything(store), 1)
    whole = trained_on(store)[0]
    size = (store.folder / "train.u8").stat().st_size
    (store.folder / "train.u8").write_bytes(bytes(size))
    (store.folder / "train.crc32").write_bytes(bytes(4 * len(whole)))
    images, again = trained_on(store)
    assert np.array_equal(images, whole)
    assert again == list(store.classes)


@pytest.mark.parametrize("name", ["train.u8", "train.crc32"])
def test_twenty_random_bytes_of_the_store_are_each_found(store, name):
    store.ensure(everything(store), 1)
    whole, draw = trained_on(store)[0], random.Random(0)
    for _ in range(20):
        with open(store.folder / name, "r+b") as file:
            place = draw.randrange((store.folder / name).stat().st_size)
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ (1 << draw.randrange(8))]))
        images, again = trained_on(store)
        label = place * 8 // (store.folder / name).stat().st_size
        assert again == [store.classes[label]]
        assert np.array_equal(images, whole)
    assert trained_on(store)[1] == []


def test_a_run_on_a_damaged_store_equals_one_on_a_whole_one_and_its_log_says_so(composed, tiny, tmp_path):
    rows = []
    for number, harm in enumerate((False, True)):
        config = resolved(
            composed(
                *tiny, "layers=0", f"machine.image_cache={tmp_path / 'store'}", f"results_dir={tmp_path / str(number)}"
            )
        )
        if harm:
            with open(ImageCache.of(config).folder / "train.u8", "r+b") as file:
                file.write(bytes(8 * 12 * 16 * 16 * 3))
        rows.append(execute(config))
    assert [rows[0][key] for key in ("train_loss", "val_loss")] == [rows[1][key] for key in ("train_loss", "val_loss")]
    assert "the image cache was damaged: class" in files(config).log.read_text()


@pytest.mark.parametrize("harm", ["gone", "first classes only", "zeroed"])
def test_a_store_purged_between_two_runs_of_one_process_is_found(composed, tiny, tmp_path, harm):
    """A purge during a sweep: the first run checked the images, the second one of the same process finds others."""
    rows = []
    for results, target, layers in (("whole", "B", 0), ("one", "A", 0), ("one", "B", 0)):
        folders = [f"machine.image_cache={tmp_path / results}-store", f"results_dir={tmp_path / results}"]
        config = resolved(composed(*tiny, f"layers={layers}", f"target={target}", "n_per_class=full", *folders))
        cache = ImageCache.of(config)
        if (results, target) == ("one", "B"):
            cache.ensure(images_needed(config), 1)
            images = cache.folder / "train.u8"
            match harm:
                case "gone":
                    images.unlink()
                case "first classes only":
                    images.write_bytes(images.read_bytes()[: 3 * 12 * 16 * 16 * 3])
                case "zeroed":
                    images.write_bytes(bytes(images.stat().st_size))
        rows.append(execute(config))
    assert [rows[0][key] for key in ("train_loss", "val_loss")] == [rows[2][key] for key in ("train_loss", "val_loss")]
    check = ImageCache.of(config)
    assert check.missing(images_needed(config)) == []
    assert not set(_black(check)) & {label for _, label in images_needed(config)}


def _black(cache):
    """Labels of the classes that done.json has, and that are black."""
    decoded = {label for label in range(8) if not cache.missing([("train", label)])}
    rows, offsets = cache.rows("train"), cache.offsets("train")
    return [label for label in decoded if not rows[offsets[label] : offsets[label + 1]].any()]


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "3", '{"done": [[1, 2]], "index": {}}', "changed"])
def test_a_damaged_list_of_decoded_classes_is_distrusted(store, content):
    store.ensure(everything(store), 1)
    whole = trained_on(store)[0]
    done = store.folder / "done.json"
    done.write_text(done.read_text().replace("[12, 12", "[12, 11") if content == "changed" else content)
    assert np.array_equal(trained_on(store)[0], whole)


def test_a_worker_lists_no_original_images_once_they_are_decoded(cfg, monkeypatch):
    config = cfg("layers=0")
    monkeypatch.setattr(datasets, "_listed", lambda *_: pytest.fail("listed the images"))
    monkeypatch.setattr(store_module, "source", lambda *_: pytest.fail("listed the images"))
    ImageCache.of(config).ensure(images_needed(config), workers=1)
    assert len(selected(config, "train", torch.device("cpu"))) == 4 * 4


def test_images_that_change_after_the_plan_are_refused(composed, tiny, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree")
    config = resolved(composed(*tiny, "layers=0", f"dataset.root={root}", f"machine.image_cache={tmp_path / 'store'}"))
    label = sorted(images_needed(config))[0][1]
    changed = root / "train" / ImageCache.of(config).classes[label] / "003.png"
    changed.write_bytes((root / "train" / ImageCache.of(config).classes[label] / "004.png").read_bytes())
    with pytest.raises(ConfigError, match="these images changed after the sweep was planned"):
        ImageCache.of(config).ensure(images_needed(config), 1)
    datasets.forget()
    with pytest.raises(ConfigError, match="its images changed after the sweep was planned"):
        ImageCache.of(config).ensure(images_needed(config), 1)


@pytest.mark.slow
def test_two_trees_with_the_same_names_are_two_data_sets(composed, tiny, make_shapes, tmp_path):
    """A can be learned, B is noise in files of the same names and sizes: B must not get A's row, nor A's pixels."""
    trees = [make_shapes(tmp_path / name) for name in "AB"]
    for tree in trees:
        for number, file in enumerate(sorted(tree.glob("*/*/*.png"))):
            with Image.open(file) as opened:
                picture = opened.resize((24, 24))
            if tree.name == "B":
                noise = np.random.RandomState(number).randint(0, 256, (24, 24, 3), dtype=np.uint8)
                picture = Image.fromarray(noise)
            picture.save(file.with_suffix(".ppm"))
            file.unlink()
    sizes = [[file.stat().st_size for file in sorted(tree.glob("*/*/*"))] for tree in trees]
    assert sizes[0] == sizes[1]
    rows = []
    for tree in trees:
        own = [
            f"dataset.root={tree}",
            f"machine.image_cache={tmp_path / 'store'}",
            f"results_dir={tmp_path / 'results'}",
        ]
        config = resolved(composed(*tiny, *own, "layers=0", "epochs=30", "n_per_class=full", "high_lr_layers=8"))
        assert plan([config]).to_run
        rows.append(execute(config))
    assert rows[0]["dataset.fingerprint"] != rows[1]["dataset.fingerprint"]
    assert rows[0]["val_top1"] > 0.9
    assert rows[1]["val_top1"] < 0.6


def test_a_reading_process_is_sent_its_class_alone(store):
    sent = pickle.dumps(store.source.decoder("train", 2))
    others = [name for label, name in enumerate(store.source.classes) if label != 2]
    assert store.source.classes[2].encode() in sent
    assert not any(f"/{name}/".encode() in sent for name in others)


def test_stored_rows_are_the_sources_images(cfg):
    store = ImageCache.of(cfg())
    for part in ("train", "val"):
        whole = np.concatenate([store.source.decoder(part, label)(16) for label in range(8)])
        assert np.array_equal(store.rows(part), whole)


def test_a_change_of_the_mapped_images_never_reaches_the_disk(cfg):
    store = ImageCache.of(cfg())
    before = store.rows("val")[0].copy()
    store.rows("val")[0] = 255 - before
    assert np.array_equal(store.rows("val")[0], before)


def test_other_sides_and_other_images_have_other_folders(composed, tiny, shapes, make_shapes, tmp_path):
    other = make_shapes(tmp_path / "other", ("ant", "bee"))
    overrides = [[], ["dataset.side=20"], [f"dataset.root={other}"]]
    assert len({ImageCache.of(composed(*tiny, *added)).folder for added in overrides}) == 3
    assert len({ImageCache.of(composed(*tiny, f"dataset.root={shapes}/../{shapes.name}")).folder}) == 1


def test_a_damaged_image_in_the_store_names_its_path_and_spares_the_rest(composed, tiny, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    (root / "train" / "bee" / "007.png").write_bytes(b"\x89PNG")
    store = ImageCache.of(composed(*tiny, f"dataset.root={root}", f"machine.image_cache={tmp_path / 'store'}"))
    with pytest.raises(ConfigError, match=r"bee/007.png: cannot be read as an image"):
        store.ensure({("train", 0), ("train", 1)}, 1)
    assert ("train", 1) in store.missing([("train", 0), ("train", 1)])
    store.ensure({("train", 0)}, 1)
    assert np.array_equal(store.rows("train")[:12], store.source.decoder("train", 0)(16))


def test_a_process_killed_while_it_decodes_leaves_what_it_had_decoded(store, tiny, tmp_path):
    jobs = {(part, label) for part in ("train", "val") for label in range(8)}
    script = (
        "import os, signal, sys\n"
        "from tlprotocols.config.compose import load\n"
        "from tlprotocols.images import cache as store\n"
        "store.KEPT_AFTER, classes = 0.0, []\n"
        "def advance(images):\n"
        "    classes.append(images)\n"
        "    if len(classes) == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"store.ImageCache.of(load(*sys.argv[1:])).ensure({jobs}, 1, advance)\n"
    )
    line = [sys.executable, "-c", script, *tiny, f"machine.image_cache={tmp_path / 'store'}"]
    assert subprocess.run(line, check=False).returncode == -signal.SIGKILL
    assert len(store.missing(jobs)) == 16 - 5  # it first heard of those already there, and died with the sixth
    store.ensure(jobs, 1)
    for part in ("train", "val"):
        whole = np.concatenate([store.source.decoder(part, label)(16) for label in range(8)])
        assert np.array_equal(store.rows(part), whole)


@pytest.mark.slow
def test_two_processes_that_fill_the_store_at_once_agree(store, composed, tiny, tmp_path):
    jobs = [(part, label) for part in ("train", "val") for label in range(8)]
    script = (
        "import sys\n"
        "from tlprotocols.config.compose import load\n"
        "from tlprotocols.images.cache import ImageCache\n"
        "if __name__ == '__main__':\n"
        f"    ImageCache.of(load(*sys.argv[1:])).ensure({jobs}, 2)\n"
    )
    file = tmp_path / "fill.py"
    file.write_text(script)
    line = [sys.executable, str(file), *tiny, f"machine.image_cache={tmp_path / 'store'}"]
    processes = [subprocess.Popen(line) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert store.missing(jobs) == []
    for part in ("train", "val"):
        whole = np.concatenate([store.source.decoder(part, label)(16) for label in range(8)])
        assert np.array_equal(store.rows(part), whole)
