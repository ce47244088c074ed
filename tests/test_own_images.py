"""Images of one's own: a report before training, and classes of unequal size."""

import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from tlprotocols.errors import BadImages
from tlprotocols.images.__main__ import main
from tlprotocols.images.folders import ImageFiles, read_image
from tlprotocols.planning.plan import resolved
from tlprotocols.training.loop import Score, class_weights
from tlprotocols.training.run import balanced, execute, network
from tlprotocols.training.shards import Gradient, logits

CPU = torch.device("cpu")
NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 256, (24, 24, 3), dtype=np.uint8))


def test_a_report_of_images_that_are_as_they_should_be(shapes, command):
    ended = command(str(shapes), module="tlprotocols.images")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "8 classes, 128 images" in ended.stdout
    assert "train 96 images, 12 a class" in ended.stdout
    assert "shorter sides from 16 to 3" in ended.stdout
    assert "unequal" not in ended.stdout


def test_a_report_finds_what_is_wrong(make_shapes, tmp_path, command):
    root = make_shapes(tmp_path / "shapes", classes=("ant", "bee", "cat"), train=6, val=2)
    train = root / "train"
    (train / "ant" / "000.png").write_bytes(b"no image")
    (train / "ant" / "001.png").write_bytes((train / "ant" / "002.png").read_bytes()[:60])
    shutil.copy(train / "bee" / "000.png", root / "val" / "bee" / "leak.png")
    shutil.copy(train / "bee" / "001.png", train / "cat" / "other_name.png")
    shutil.copy(train / "bee" / "002.png", train / "bee" / "twice.png")
    for number in range(7):
        shutil.copy(train / "cat" / "000.png", train / "cat" / f"more{number}.png")
    ended = command("dataset=folder", f"dataset.root={root}", module="tlprotocols.images")
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = ended.stdout.splitlines()
    assert "train 27 images, 6 to 14 a class (ant to cat)" in lines
    assert any(line.startswith("classes are unequal by 2.3: ") for line in lines)
    assert lines[lines.index("cannot be read (dataset.on_bad_image=skip leaves them out): 2") + 1].startswith(
        f"  {train}/ant/000.png (cannot identify image file)"
    )
    assert lines[lines.index("the same image in two parts: 1") + 1] == (
        f"  {train}/bee/000.png = {root}/val/bee/leak.png"
    )
    assert lines[lines.index("the same image in two classes: 1") + 1].endswith("cat/other_name.png")
    twice = lines.index(
        "the same image twice in one class of train (with fold=, test_per_class or recommend one may be trained on and"
        " the other measured on): 8"
    )
    assert lines[twice + 1] == f"  {train}/bee/002.png = {train}/bee/twice.png"
    assert lines[-1] == "the same image twice in one class of val: 0"


def test_a_report_reads_images_as_a_sweep_does(make_shapes, tmp_path, command, composed):
    root = make_shapes(tmp_path / "shapes", classes=("ant", "bee"), train=4, val=2)
    grey, long = root / "train" / "ant" / "000.png", root / "train" / "bee" / "000.png"
    Image.fromarray(np.full((20, 20), 1000, np.uint16)).save(grey)
    Image.new("RGB", (2002, 2)).save(long)
    ended = command(str(root), module="tlprotocols.images")
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = ended.stdout.splitlines()
    at = lines.index("cannot be read (dataset.on_bad_image=skip leaves them out): 2")
    assert lines[at + 1].startswith(f"  {grey} (its grey values have more than 8 bits")
    assert lines[at + 2] == f"  {long} (it has 2002 x 2 pixels, too long and thin to enlarge)"
    files = ImageFiles(composed("dataset=folder", f"dataset.root={root}").dataset, tmp_path / "cache")
    for label, line in enumerate(lines[at + 1 : at + 3]):
        with pytest.raises(BadImages) as raised:
            files.decoder("train", label)(8)
        ((path, why),) = raised.value.files.items()
        assert line == f"  {path} ({why})"


def test_a_report_says_what_is_left_out(make_shapes, tmp_path, command):
    root = make_shapes(tmp_path / "shapes", classes=("ant", "bee"), train=4, val=2)
    for name in ("a.heic", "b.HEIC", "c.gif", "notes.txt"):
        (root / "train" / "ant" / name).touch()
    for folder in (root, root / "train", root / "train" / "ant" / "more"):
        folder.mkdir(exist_ok=True)
        shutil.copy(root / "val" / "bee" / "000.png", folder / "lost.png")
    (root / "round").symlink_to(root)
    ended = command(str(root), module="tlprotocols.images")
    assert (
        f"left out: 2 .heic, 1 .gif (convert them to .jpg or .png); 2 in no folder of a class, the first being"
        f" {root}/lost.png\n" in ended.stdout
    )
    assert "train 9 images" in ended.stdout  # those of a folder in that of a class are of the class


def test_a_report_says_which_images_are_stored_rotated(make_shapes, tmp_path, command):
    root = make_shapes(tmp_path / "shapes", classes=("ant", "bee"), train=4, val=2)
    upright, sideways = Image.Exif(), Image.Exif()
    upright[274], sideways[274] = 1, 6
    ant = root / "train" / "ant"
    for name, exif in (
        ("a.jpg", sideways),
        ("b.jpg", upright),
        ("c.png", sideways),
        ("d.jpg", b"Exif\0\0no TIFF file"),
    ):
        NOISE.save(ant / name, exif=exif)
    ended = command(str(root), module="tlprotocols.images")
    assert ended.stderr == ""
    line = f"stored rotated (EXIF orientation), and trained on as stored: 2, the first being {ant}/a.jpg; ImageMagick's"
    assert line in ended.stdout
    assert np.array_equal(read_image(ant / "c.png", NOISE.height), np.asarray(NOISE))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Photos (1)",
            "a, b",
            "it's",
            'the "best"',
            "#1",
            "R&D",
            "~old",
            "[x]",
            "{y}",
            "${z}",
            "a=b",
            "end ",
            " ",
            "null",
        ),
        *("dataset=glyphs", "50%", "back\\slash", "a\\", "k: v", "@home", "!", "ünï", "*?", "$HOME", "1e3", "-m"),
    ],
)
def test_a_report_of_a_folder_of_any_name(make_shapes, tmp_path, monkeypatch, capsys, name):
    make_shapes(tmp_path / name, classes=("ant", "bee"), train=2, val=1)
    monkeypatch.chdir(tmp_path)
    for given in (name, f"./{name}", str(tmp_path / name)):
        monkeypatch.setattr(sys, "argv", ["images", given])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert (ended.value.code, printed.err) == (0, "")
        assert printed.out.startswith(f"2 classes, 6 images in {tmp_path / name}\n")


def test_of_many_unreadable_images_a_sweep_names_the_first_and_a_report_all(make_shapes, tmp_path, command):
    root = make_shapes(tmp_path / "shapes", classes=("ant", "bee"), train=8, val=2)
    bad = sorted((root / "train" / "ant").iterdir())[:5]
    for file in bad:
        file.write_bytes(b"no image")
    data = ("dataset=folder", f"dataset.root={root}", "dataset.on_bad_image=skip", "hydra.launcher.dry_run=true")
    whole = ("classes=all", "protocol=scratch", "n_per_class=2")
    ended = command(*data, *whole, f"results_dir={tmp_path / 'results'}")
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout + ended.stderr
    assert f"left out {bad[0]}, {bad[1]}, {bad[2]} and 2 more" in said
    assert str(bad[3]) not in said
    reported = command(str(root), module="tlprotocols.images").stdout
    assert all(f"  {file} (cannot identify image file)\n" in reported for file in bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("nowhere",), "dataset.root=nowhere: "), (("dataset=glyphs",), "dataset=glyphs: must be folder, imagenet or ")],
)
def test_a_report_of_nothing_is_one_line(command, arguments, message):
    ended = command(*arguments, module="tlprotocols.images")
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_weights_of_classes_are_inverse_to_their_images_and_one_on_the_average():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2] * 3)
    found = class_weights(labels)
    assert found.tolist() == pytest.approx([2 / 3, 4 / 3, 4 / 3])
    assert found[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize("shards", [1, 3])
def test_the_gradient_with_weights_is_that_of_the_weighted_mean(cfg, shards):
    config = cfg("layers=0", "dropout=0", f"shards={shards}")
    net, weights = network(config, 4), torch.tensor([0.5, 1.0, 2.0, 4.0])
    crops, labels = torch.randint(0, 256, (7, 16, 16, 3), dtype=torch.uint8), torch.tensor([0, 0, 1, 2, 3, 3, 3])
    with Gradient(net, config, CPU, weights) as learn:
        learn.begin(0)
        loss = learn(crops, labels)
    ours = [weight.grad.clone() for weight in net.parameters()]
    net.zero_grad()
    each = cross_entropy(logits(net, crops, config), labels, reduction="none") * weights[labels]
    each.mean().backward()
    torch.testing.assert_close(loss, each.mean().detach())
    for one, weight in zip(ours, net.parameters(), strict=True):
        torch.testing.assert_close(one, weight.grad, rtol=1e-4, atol=1e-6)


def test_balanced_accuracy_is_the_mean_over_classes():
    labels = torch.tensor([0] * 8 + [1] * 2).numpy()
    right = torch.tensor([True] * 8 + [True, False]).numpy()
    assert balanced(Score(0.0, 0.9, right), labels) == pytest.approx(0.75)


def test_a_run_on_unequal_classes_says_both_accuracies(make_shapes, tmp_path, composed, tiny):

    root = make_shapes(tmp_path / "shapes", train=8, val=6)
    for name in ("ant", "cat", "eel"):
        for number in range(3, 8):
            (root / "train" / name / f"{number:03}.png").unlink()
        for number in range(1, 6):
            (root / "val" / name / f"{number:03}.png").unlink()
    own = (*tiny, f"dataset.root={root}", "classes=all", "layers=0", "base=none", "n_per_class=full")
    rows = []
    for weights in ("none", "balanced"):
        config = resolved(
            composed(*own, "model=convnet", f"class_weights={weights}", "epochs=1", f"results_dir={tmp_path}")
        )
        rows.append(execute(config))
    for row in rows:
        assert row["val_balanced_top1"] != row["val_top1"]
        assert row["test_balanced_top1"] is None
    assert rows[0]["train_loss"] != rows[1]["train_loss"]
    assert rows[0]["run_id"] != rows[1]["run_id"]
