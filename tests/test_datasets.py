"""Images as they come: odd modes, odd sizes, damaged files, every layout, one store that decodes only what is asked."""

import hashlib
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torchvision
from PIL import Image, ImageFont
from torchvision import transforms

from tlprotocols.datasets import source
from tlprotocols.datasets.folders import ImageFiles, read_image
from tlprotocols.datasets.glyphs import FACES, Glyphs, characters, font_folder
from tlprotocols.datasets.store import Store
from tlprotocols.errors import ConfigError

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
    return ImageFiles(dataset(composed, "dataset=folder", f"dataset.root={root}", *overrides))


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
        found = folder(composed, root, "dataset.val_per_class=5")
    names = {part: [file[-7:] for file in found.files[part][1]] for part in ("train", "val")}
    assert names == {
        "train": ["000.png", "001.png", "002.png", "003.png", "004.png", "005.png", "006.png"],
        "val": ["007.png", "008.png", "009.png", "010.png", "011.png"],
    }


def test_too_few_images_to_hold_out_names_the_class(composed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee")) / "train"
    with pytest.raises(ConfigError, match=r"^dataset.val_per_class=12: class ant has 12 images"):
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
        source(dataset(composed, f"dataset={name}", f"dataset.root={value}"))
    line = str(caught.value)
    assert line.startswith(f"dataset.root={value}: ")
    assert "\n" not in line
    assert layout in line or (root == "empty" and "must hold an intact cifar-10" in line)


@pytest.mark.parametrize("change", ["rename", "remove", "class"])
def test_the_fingerprint_tells_other_images_apart(composed, make_shapes, tmp_path, change):
    one, other = (make_shapes(tmp_path / name, ("ant", "bee")) for name in ("one", "other"))
    assert folder(composed, one).fingerprint == folder(composed, other).fingerprint
    last = other / "train" / "bee" / "011.png"
    match change:
        case "rename":
            last.rename(last.with_name("0110.png"))
        case "remove":
            last.unlink()
        case "class":
            for part in ("train", "val"):
                (other / part / "bee").rename(other / part / "cow")
    assert folder(composed, one).fingerprint != folder(composed, other).fingerprint


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
    found = source(dataset(composed, "dataset=tiny_imagenet", f"dataset.root={tmp_path}"))
    assert found.classes == wnids
    assert found.counts == {"train": (3, 3, 3), "val": (2, 2, 2)}
    for label in range(3):
        assert np.abs(found.reader("val", label)(64).astype(int) - (100 + label)).max() == 0
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
    found = source(dataset(composed, f"dataset={name}", f"dataset.root={tmp_path}"))
    pictures = data.reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)
    assert found.classes == ("ant", "bee", "cat")
    assert found.counts == {"train": (7, 7, 6), "val": (7, 7, 6)}
    assert np.array_equal(found.reader("train", 1)(32), pictures[1::3])
    assert np.array_equal(found.reader("val", 1)(32), pictures[1::3][::-1])
    assert found.reader("val", 2)(24).shape == (6, 24, 24, 3)


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
    first, again = (Glyphs().reader("train", 33)(32) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (100, 32, 32, 3)
    assert Glyphs().reader("val", 33)(32).shape == (20, 32, 32, 3)


def test_no_two_pictures_of_a_glyph_are_equal():
    pictures = [p.tobytes() for part in ("train", "val") for p in Glyphs().reader(part, 500)(32)]
    assert len(set(pictures)) == 120


def test_glyphs_do_not_hang_on_what_was_drawn_before():
    alone = Glyphs().reader("val", 7)(16)
    other = Glyphs()
    other.reader("train", 3)(16)
    assert np.array_equal(other.reader("val", 7)(16), alone)


@pytest.fixture
def store(composed, tiny, tmp_path):
    return Store.of(composed(*tiny, f"machine.store={tmp_path / 'store'}"))


def test_the_store_decodes_only_what_is_asked(store):
    heard = []
    store.ensure({("train", 2), ("val", 5)}, 1, heard.append)
    assert sum(heard) == 12 + 4
    everything = [(part, label) for part in ("train", "val") for label in range(8)]
    assert set(everything) - set(store.missing(everything)) == {("train", 2), ("val", 5)}
    rows = store.rows("train")
    assert np.array_equal(rows[24:36], store.source.reader("train", 2)(16))
    assert not rows[:24].any()
    assert not rows[36:].any()


def test_the_store_decodes_nothing_twice(store):
    store.ensure({("train", 2)}, 1)
    (store.folder / "train.u8").write_bytes(bytes(8 * 12 * 16 * 16 * 3))
    store.ensure({("train", 2), ("train", 3)}, 1)
    assert not store.rows("train")[24:36].any()
    assert np.array_equal(store.rows("train")[36:48], store.source.reader("train", 3)(16))


def test_a_reading_process_is_sent_its_class_alone(store):
    sent = pickle.dumps(store.source.reader("train", 2))
    others = [name for label, name in enumerate(store.source.classes) if label != 2]
    assert store.source.classes[2].encode() in sent
    assert not any(f"/{name}/".encode() in sent for name in others)


def test_stored_rows_are_the_sources_images(cfg):
    store = Store.of(cfg())
    for part in ("train", "val"):
        whole = np.concatenate([store.source.reader(part, label)(16) for label in range(8)])
        assert np.array_equal(store.rows(part), whole)


def test_a_change_of_the_mapped_images_never_reaches_the_disk(cfg):
    store = Store.of(cfg())
    before = store.rows("val")[0].copy()
    store.rows("val")[0] = 255 - before
    assert np.array_equal(store.rows("val")[0], before)


def test_other_sides_and_other_images_have_other_folders(composed, tiny, shapes, make_shapes, tmp_path):
    other = make_shapes(tmp_path / "other", ("ant", "bee"))
    overrides = [[], ["dataset.side=20"], [f"dataset.root={other}"]]
    assert len({Store.of(composed(*tiny, *asked)).folder for asked in overrides}) == 3
    assert len({Store.of(composed(*tiny, f"dataset.root={shapes}/../{shapes.name}")).folder}) == 1


def test_a_damaged_image_in_the_store_names_its_path_and_spares_the_rest(composed, tiny, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree", ("ant", "bee"))
    (root / "train" / "bee" / "007.png").write_bytes(b"\x89PNG")
    store = Store.of(composed(*tiny, f"dataset.root={root}", f"machine.store={tmp_path / 'store'}"))
    with pytest.raises(ConfigError, match=r"bee/007.png: cannot be read as an image"):
        store.ensure({("train", 0), ("train", 1)}, 1)
    assert ("train", 1) in store.missing([("train", 0), ("train", 1)])
    store.ensure({("train", 0)}, 1)
    assert np.array_equal(store.rows("train")[:12], store.source.reader("train", 0)(16))


def test_a_process_killed_while_it_decodes_leaves_what_it_had_decoded(store, tiny, tmp_path):
    jobs = {(part, label) for part in ("train", "val") for label in range(8)}
    script = (
        "import os, signal, sys\n"
        "from tlprotocols.config import load\n"
        "from tlprotocols.datasets import store\n"
        "store.KEPT_AFTER, classes = 0.0, []\n"
        "def advance(images):\n"
        "    classes.append(images)\n"
        "    if len(classes) == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"store.Store.of(load(*sys.argv[1:])).ensure({jobs}, 1, advance)\n"
    )
    line = [sys.executable, "-c", script, *tiny, f"machine.store={tmp_path / 'store'}"]
    assert subprocess.run(line, check=False).returncode == -signal.SIGKILL
    assert len(store.missing(jobs)) == 16 - 5  # it first heard of those already there, and died with the sixth
    store.ensure(jobs, 1)
    for part in ("train", "val"):
        whole = np.concatenate([store.source.reader(part, label)(16) for label in range(8)])
        assert np.array_equal(store.rows(part), whole)


@pytest.mark.slow
def test_two_processes_that_fill_the_store_at_once_agree(store, composed, tiny, tmp_path):
    jobs = [(part, label) for part in ("train", "val") for label in range(8)]
    script = (
        "import sys\n"
        "from tlprotocols.config import load\n"
        "from tlprotocols.datasets.store import Store\n"
        "if __name__ == '__main__':\n"
        f"    Store.of(load(*sys.argv[1:])).ensure({jobs}, 2)\n"
    )
    file = tmp_path / "fill.py"
    file.write_text(script)
    line = [sys.executable, str(file), *tiny, f"machine.store={tmp_path / 'store'}"]
    processes = [subprocess.Popen(line) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert store.missing(jobs) == []
    for part in ("train", "val"):
        whole = np.concatenate([store.source.reader(part, label)(16) for label in range(8)])
        assert np.array_equal(store.rows(part), whole)
