"""Folders of images as people have them: each is read with the right number of images of the right classes, or refused
in a line that names the file, the class or the folder and says what to do."""

import dataclasses
import os
import shutil
import signal
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tlprotocols import images
from tlprotocols.errors import ConfigError
from tlprotocols.images import source
from tlprotocols.images.cache import ImageCache

CLASSES = ("ant", "bee", "cat")
COLOURS = np.array([(200, 20, 20), (20, 200, 20), (20, 20, 200)])
SIDE = 16
LIMIT = 20  # seconds
FOLDER = ("train", "bee")
TO_DO = "fix or delete this file, or say dataset.on_bad_image=skip"


def picture(label, number=9, size=(20, 18)):
    """Of the colour of a class, and like no other."""
    red, green, blue = COLOURS[label]
    return Image.new("RGB", size, (int(red) + number, int(green), int(blue)))


def make(root, classes=CLASSES, train=4, val=2):
    """A tree that is as it should be: the colour of a class is that of its place in the order of names."""
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(sorted(map(os.fsdecode, classes))):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                with open(folder / f"{number}.png", "wb") as file:
                    picture(label % 3, number + 10 * (part == "val")).save(file, "png")
    return root


def png(width, height, bits, rows=b""):
    """The bytes of a PNG file in RGB, whatever is in it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


TREES: dict[
    str, tuple[Callable[..., object], Any]
] = {}  # by name: what makes the tree, and either its counts or the end of the line that refuses it


def tree(expected):
    """Add a tree that a function makes."""

    def add(function):
        TREES[function.__name__.replace("_", " ")] = (function, expected)
        return function

    return add


def more(name, expected, change, classes=CLASSES):
    """Add a tree: one as it should be, and then a change of it, a function of the root and the folder of the bees."""

    def build(root):
        make(root, classes)
        change(root, root / "train" / "bee")

    TREES[name] = (build, expected)


def odd(name, expected, file, image, **options):
    """Add a tree with one more training image of a bee."""
    more(name, expected, lambda root, bee: image().save(bee / file, **options))


def written(name, expected, file, content):
    """The same, of bytes."""
    more(name, expected, lambda root, bee: (bee / file).write_bytes(content))


def counts(train=(4, 4, 4), val=(2, 2, 2)):
    return {"train": train, "val": val}


def bad(why, file="train/bee/x.png"):
    return f"/{file}: cannot be read as an image ({why}); {TO_DO}"


FIVE = counts((4, 5, 4))
GREY = "its grey values have more than 8 bits (mode {}): convert it to 8 bits"
LAYOUT = "must hold train/CLASS/image files and val/CLASS/image files (or test/, or both), or CLASS/image files alone"
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))

# files that are no images
more("dangling link", bad("No such file or directory"), lambda root, bee: (bee / "x.png").symlink_to("nowhere"))
more("link to itself", bad("Too many levels of symbolic links"), lambda root, bee: (bee / "x.png").symlink_to("x.png"))
more("pipe", bad("it is no regular file"), lambda root, bee: os.mkfifo(bee / "x.png"))
more("device", bad("it is no regular file"), lambda root, bee: (bee / "x.png").symlink_to("/dev/zero"))
written("zero bytes", bad("cannot identify..."), "x.png", b"")
written("text named .jpg", bad("cannot identify...", "train/bee/x.jpg"), "x.jpg", b"<html>404</html>")
written("AppleDouble file", bad("cannot identify...", "train/bee/._0.png"), "._0.png", b"\0\5\x16\7")
written("Thumbs.db", counts(), "Thumbs.db", b"\xd0\xcf\x11\xe0")
written("unfinished download", counts(), "x.png.part", b"\x89PNG")


@tree(bad("it is no regular file"))
def a_socket(root):
    make(root)
    folder = os.open(root / "train" / "bee", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/x.png")  # such an address has 107 bytes at most
    os.close(folder)


@tree(bad("image file is truncated...", "train/bee/x.jpg"))
def truncated_jpeg(root):
    make(root)
    file = root / "train" / "bee" / "x.jpg"
    NOISE.save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])


@tree(bad("...", "train/bee/0.png"))
def a_flipped_bit(root):
    make(root)
    file = root / "train" / "bee" / "0.png"
    content = bytearray(file.read_bytes())
    content[45] ^= 0x80
    file.write_bytes(content)


# kinds of images
written("decompression bomb", "decompression bomb...; " + TO_DO, "x.png", png(60_000, 60_000, 8))
deep = b"".join(b"\0" + struct.pack(">HHH", 0x1480, 0xC800, 0x1480) * 20 for _ in range(20))
written("16-bit colour", FIVE, "x.png", png(20, 20, 16, deep))
odd("16-bit grey", bad(GREY.format("I;16")), "x.png", lambda: Image.fromarray(np.full((20, 20), 25_600, np.uint16)))
odd(
    "32-bit grey",
    bad(GREY.format("I"), "train/bee/x.tif"),
    "x.tif",
    lambda: Image.fromarray(np.full((20, 20), 7, np.int32)),
)
odd(
    "floating point",
    bad(GREY.format("F"), "train/bee/x.tif"),
    "x.tif",
    lambda: Image.fromarray(np.full((20, 20), 0.5, np.float32)),
)
for mode, suffix in (("1", "png"), ("L", "jpg"), ("P", "png"), ("CMYK", "jpg"), ("RGBA", "png"), ("YCbCr", "jpg")):
    odd(f"mode {mode}", FIVE, f"x.{suffix}", lambda mode=mode: picture(1).convert(mode))
odd(
    "rotated by EXIF",
    FIVE,
    "x.jpg",
    lambda: picture(1),
    exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0",
)
odd("animated GIF", counts(), "x.gif", lambda: picture(1), save_all=True, append_images=[picture(2)])
odd(
    "animated GIF named .png",
    FIVE,
    "x.png",
    lambda: picture(1),
    format="gif",
    save_all=True,
    append_images=[picture(2)],
)
odd("many pages", FIVE, "x.tif", lambda: picture(1), save_all=True, append_images=[picture(2)])
odd("PNG named .jpg", FIVE, "x.jpg", lambda: picture(1), format="png")
odd("upper case suffix", FIVE, "X.PNG", lambda: picture(1))
odd("one pixel", FIVE, "x.png", lambda: picture(1, size=(1, 1)))
odd("thin", FIVE, "x.png", lambda: picture(1, size=(1, 900)))
LONG = "it has {} pixels, too long and thin to enlarge"
odd("too thin", bad(LONG.format("1 x 5000")), "x.png", lambda: picture(1, size=(1, 5000)))
odd("too long", bad(LONG.format("60000 x 1")), "x.png", lambda: picture(1, size=(60_000, 1)))

# names
ODD = (
    "a,b",
    "c=d",
    "[e]",
    "[f]",
    "-g",
    " h",
    "i ",
    "😀",
    "{j}",
    "k'l",
    'm"n',
    "$o",
    "~p",
    "%q",
    "#r",
    "*",
    "é",
    "a\nb",
)
NAMES = {
    "names that mean something to a shell": ODD,
    "255 bytes": ("n" * 255, "é" * 127),
    "no UTF-8": (b"\xff", b"\xfe"),
}
for name, classes in NAMES.items():
    expected = counts(len(classes) * (4,), len(classes) * (2,))
    TREES[name] = (lambda root, classes=classes: make(root, classes), expected)
TREES["twelve numbers"] = (lambda root: make(root, tuple(map(str, range(12)))), counts(12 * (4,), 12 * (2,)))
TREES["names that differ in case"] = (lambda root: make(root, ("Bee", "bee")), counts((4, 4), (2, 2)))


@tree(bad("cannot identify...", r"train/a\nb/x\n\udcff.png"))
def damaged_file_of_a_name_in_two_lines(root):
    make(root, ("a\nb", "c"))
    (root / "train" / "a\nb" / "x\n\udcff.png").write_bytes(b"")


# classes
NOTHING = ": class dog has no image for train; add some or remove it"
DIFFER = ": train/ and val/ have different classes: {}; each needs a folder in both"


def empty_class(root, bee):
    for part in ("train", "val"):
        (root / part / "dog").mkdir()


def in_its_place(root, bee):
    shutil.rmtree(bee)
    bee.touch()


more("empty class", NOTHING, empty_class)
more("class that val lacks", DIFFER.format("['bee']"), lambda root, bee: shutil.rmtree(root / "val" / "bee"))
more("class that train lacks", DIFFER.format("['bee']"), lambda root, bee: shutil.rmtree(bee))
more("class named otherwise", DIFFER.format("['Bee', 'bee']"), lambda root, bee: bee.rename(bee.with_name("Bee")))
more("file in place of a class", DIFFER.format("['bee']"), in_its_place)
more("__MACOSX among the classes", DIFFER.format("['__MACOSX']"), lambda root, bee: (root / "train/__MACOSX").mkdir())
more("__MACOSX beside train", counts(), lambda root, bee: (root / "__MACOSX").mkdir())
more("hidden folder among the classes", counts(), lambda root, bee: (root / "train" / ".git").mkdir())
more("images beside the classes", counts(), lambda root, bee: picture(1).save(root / "train" / "x.png"))
more(
    "image in train and val",
    counts(val=(2, 3, 2)),
    lambda root, bee: shutil.copy(bee / "0.png", root / "val/bee/x.png"),
)
TREES["one image a class"] = (lambda root: make(root, train=1, val=1), counts((1, 1, 1), (1, 1, 1)))
TREES["one class"] = (
    lambda root: make(root, ("ant",)),
    ": train/ has one class only, ['ant']: a class is a folder right below train/",
)


@tree(DIFFER.format("['0', '00', '01', '02', '1']"))
def digits_with_and_without_zeros(root):
    make(root, ("0", "1", "2"))
    for name in "012":
        (root / "val" / name).rename(root / "val" / f"0{name}")


@tree(counts((4, 6, 4)))
def images_at_several_depths(root):
    make(root)
    deep = root / "train" / "bee" / "more" / "most"
    deep.mkdir(parents=True)
    picture(1, 8).save(deep / "x.png")
    picture(1).save(deep.parent / "x.png")


@tree(counts((4, 4, 4, 4)[:3]))
def a_folder_named_as_an_image(root):
    make(root)
    (root / "train" / "bee" / "x.png").mkdir()


@tree(": train/ has one class only, ['more']: a class is a folder right below train/")
def classes_one_level_lower(root):
    make(root)
    for part in ("train", "val"):
        (root / part / "more").mkdir()
        for name in CLASSES:
            (root / part / name).rename(root / part / "more" / name)


# roots
TREES["a file"] = (lambda root: root.touch(), f": is not a folder; it {LAYOUT}")
TREES["nothing"] = (lambda root: None, f": is not a folder; it {LAYOUT}")
TREES["a link to itself"] = (lambda root: root.symlink_to(root.name), f": is not a folder; it {LAYOUT}")
TREES["an empty folder"] = (lambda root: root.mkdir(), f": {LAYOUT}")
TREES["one level too high"] = (lambda root: make(root / "data"), f": {LAYOUT}")
more("val only", f": {LAYOUT}", lambda root, bee: shutil.rmtree(root / "train"))
CALL = ": holds {0}/ and {1}/: call them train/ and val/ (or test/), or give one as dataset.root"
more("validation", CALL.format("train", "validation"), lambda root, bee: (root / "val").rename(root / "validation"))
more(
    "validation and test",
    CALL.format("train", "valid"),
    lambda root, bee: ((root / "val").rename(root / "valid"), shutil.copytree(root / "valid", root / "test")),
)


@tree(CALL.format("Train", "Val"))
def parts_in_capitals(root):
    make(root, train=30)  # enough to take them for classes
    for part in ("train", "val"):
        (root / part).rename(root / part.capitalize())


@tree("/tree: one/ is no class but holds train/ itself; give dataset.root={root}/one")
def two_data_sets(root):
    make(root / "one", train=30)
    make(root / "two", train=30)


@tree(": class __MACOSX has 0 images: add some, or remove its folder")
def macosx_among_classes_alone(root):
    make(root, train=30)
    shutil.rmtree(root / "val")
    (root / "train" / "__MACOSX").mkdir()


# rights
DENIED = "/{}: cannot be read (Permission denied); let this user read it, or give another folder"
more(
    "image that may not be read",
    bad("Permission denied", "train/bee/0.png"),
    lambda root, bee: (bee / "0.png").chmod(0),
)
more("class that may not be read", DENIED.format("train/bee"), lambda root, bee: bee.chmod(0))
more("class that may only be listed", bad("Permission denied", "train/bee/0.png"), lambda root, bee: bee.chmod(0o444))
more("part that may not be read", DENIED.format("train"), lambda root, bee: (root / "train").chmod(0))
more("root that may not be read", DENIED.format("tree/train"), lambda root, bee: root.chmod(0))


@tree(DENIED.format("train/bee/more"))
def folder_of_a_class_that_may_not_be_read(root):
    make(root)
    (root / "train" / "bee" / "more").mkdir()
    picture(1).save(root / "train" / "bee" / "more" / "x.png")
    (root / "train" / "bee" / "more").chmod(0)


@tree(counts())
def a_root_that_may_not_be_written_to(root):
    make(root)
    for path in (*root.rglob("*"), root):
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def place():
    """A folder of a user who may not do everything, as root may."""
    Image.init()
    folder = Path(tempfile.mkdtemp(prefix="hostile"))  # pytest's own is closed to others
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"still at work after {LIMIT} seconds"))
    signal.alarm(LIMIT)
    yield folder
    signal.alarm(0)
    if os.getuid() == 0:
        os.seteuid(0)
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def outcome(composed, root):
    """What a sweep knows of the images, all decoded; or the line of its refusal."""
    given = (f"dataset.side={SIDE}", f"dataset.pixels={SIDE}", "model.width=0.1")
    config = composed("dataset=folder", *given, f"machine.image_cache={root.parent / 'cache'}")
    dataset = dataclasses.replace(config.dataset, root=str(root))
    try:
        found = source(dataset, config.machine.image_cache)
        dataset = dataclasses.replace(dataset, fingerprint=found.fingerprint[:16])
        cache = ImageCache.of(dataclasses.replace(config, dataset=dataset))
        cache.ensure({(part, label) for part in found.counts for label in range(len(found.classes))}, workers=1)
    except ConfigError as error:
        return str(error)
    return cache


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("build", "expected"), TREES.values(), ids=TREES)
def test_a_tree_is_read_as_it_is_or_refused_in_a_line(composed, place, build, expected):
    root = place / "tree"
    build(root)
    images.forget()
    found = outcome(composed, root)
    if isinstance(expected, str):
        assert isinstance(found, str), found
        assert found.startswith(("dataset.root=", "dataset.val_per_class="))
        begin, _, end = expected.replace("{root}", str(root)).partition("...")  # where Pillow's own words stand
        assert begin in found
        assert found.endswith(end or begin)
        assert "\n" not in found
        assert found.isprintable()
        return
    assert isinstance(found, ImageCache), found
    assert {part: tuple(of) for part, of in found.index["counts"].items()} == expected
    for part, of in expected.items():
        colours = found.rows(part).mean((1, 2))
        labels = np.repeat(np.arange(len(of)), of)
        coloured = np.ptp(colours, axis=1) > 10  # not those in grey
        assert (~coloured).sum() <= 1
        assert np.abs(colours - COLOURS[labels % 3])[coloured].max() < 25


@pytest.mark.slow
def test_names_of_any_bytes_are_printed(command, tmp_path):
    root = make(tmp_path / "[old]", ("ant", "[f]", "a\nb", b"\xff"))
    bad = root / "train" / "ant" / "x\udcff.png"
    given = (
        f"dataset.root='{root}'",
        f"machine.image_cache={tmp_path / 'cache'}",
        "n_per_class=2",
        "base.n_per_class=2",
    )
    listed = command("dataset=folder", *given, "layers=5", "--classes")
    assert listed.returncode == 0, listed.stderr
    assert all(name in listed.stdout for name in ("ant", "[f]", "\\udcff"))
    bad.write_bytes(b"")
    refused = command("dataset=folder", *given, "layers=5", "epochs=1", "base.epochs=1")
    assert refused.returncode == 2
    assert f"{root}/train/ant/x\\udcff.png: cannot be read as an image" in refused.stderr
    assert refused.stderr.count("\n") == 1
