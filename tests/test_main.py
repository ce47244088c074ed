"""The command line, as typed in any folder: one line and exit code 2 for what cannot be run, and nothing written."""

import re
import subprocess
import sys

import pytest

from tests.conftest import CLASSES, ROOT
from tlprotocols import __version__
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.config.validate import keys
from tlprotocols.records import files
from tlprotocols.results import load
from tlprotocols.training.run import execute


@pytest.fixture
def typed(command, tiny, tmp_path):
    """A command line of the tiny data set, whose results and store are not there yet."""

    def run(*overrides):
        folders = [f"results_dir={tmp_path / 'results'}", f"machine.image_cache={tmp_path / 'store'}"]
        return command("-m", *tiny, *folders, *overrides)

    return run


def refused(ended, tmp_path):
    """The one line with which a command was refused before anything was written."""
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    cache = tmp_path / "store"  # may keep what was read of the image files
    assert sorted(f.name for f in tmp_path.iterdir() if f.name not in ("tree", "store")) == ["elsewhere"]
    assert not cache.exists() or [f.name for f in cache.iterdir()] == ["digests"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    return ended.stderr


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ("layers=9", r"layers=9: must be from 0 to 7 \(conv1..fc8 of alexnet_small"),
        ("layers=x", "layers=x: must be a whole number of at least 0"),
        ("n_per_class=0", "n_per_class=0: must be a whole number of at least 1, or full"),
        ("n_per_class=13", "n_per_class=13: class [a-z]{3} has only 12 training images; give at most 12, or full"),
        ("freeze=7 layers=4", "freeze=7: must be at most layers=4; to freeze random layers say freeze_random=true"),
        ("layer=4", "layer=.*there is no such key; did you mean layers?"),
        ("models=resnet18", r"models=resnet18: there is no such key; did you mean model\?"),
        ("dataset.sid=3", r"dataset.sid=3: there is no such key; did you mean dataset.side\?"),
        ("hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs=2: there is no such key; .*--help lists the launcher's"),
        ("lr.high=interval(0.1,0.2)", "lr.high=interval.*: is sampled, which hydra/sweeper=optuna does"),
        ("dataset.root=nowhere", r"dataset.root=\S*nowhere: is not a folder; it must hold train/CLASS/image files"),
        ("dataset.root=null", "dataset.root=null: is needed; it must hold train/CLASS/image files"),
        (
            "dataset=tiny_imagenet dataset.root=.",
            r"dataset.root=\S*: must be the unpacked tiny-imagenet folder, with train/",
        ),
        ("dataset=nosuch", "dataset=nosuch"),
        ("hydra.launcher.workers=0", "hydra.launcher.workers=0: must be a whole number from 1 to 1024, or null"),
        ("layers=1,2,3 lr.high=-1,0.1", "lr.high=-1: must be a number of at least 0"),
        ("results_dir=a,b", "results_dir=a,b: is no factor: a sweep has one value; give a command for each"),
        ("hydra.launcher.workers=1e9", "hydra.launcher.workers=1000000000.0: must be a whole number from 1 to 1024"),
    ],
)
def test_what_cannot_be_run_is_one_line(typed, tmp_path, overrides, line):
    assert re.search(line, refused(typed(*overrides.split()), tmp_path))


def test_a_path_with_signs_is_given_as_the_error_says(typed, tmp_path):
    line = refused(typed("dataset.root=/x/My Photos, 2020 (a=b)"), tmp_path)
    assert line.endswith(" needs quotes in quotes: \"dataset.root='/x/My Photos, 2020 (a=b)'\"\n")
    line = refused(typed("dataset.root='/x/My Photos, 2020 (a=b)'"), tmp_path)
    assert line.startswith("dataset.root=/x/My Photos, 2020 (a=b): is not a folder")


def test_an_empty_class_folder_is_named(typed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree")
    for file in (root / "train" / "cat").iterdir():
        file.unlink()
    line = refused(typed(f"dataset.root={root}"), tmp_path)
    assert line == f"dataset.root={root}: class cat has no image for train; add some or remove it\n"


def test_one_bad_value_among_twenty_stops_all_twenty(typed, tmp_path):
    seeds = ",".join(map(str, range(10)))
    assert refused(typed("layers=4,8", f"seed={seeds}"), tmp_path).startswith("layers=8: must be from 0 to 7")


def test_a_gpu_that_is_not_there(typed, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = refused(typed("machine.device=cuda"), tmp_path)
    assert line.startswith("machine.device=cuda: needs a GPU")


def test_a_damaged_image_stops_the_sweep_before_it_starts(typed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree")
    damaged = root / "train" / "cat" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    ended = typed(f"dataset.root={root}", "layers=4")
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"dataset.root={damaged}: cannot be read as an image")
    assert not (tmp_path / "results").exists()


def test_all_damaged_images_are_named_at_once_or_left_out(typed, make_shapes, tmp_path):
    root = make_shapes(tmp_path / "tree")
    bad = [root / part / "003.png" for part in ("train/ant", "train/cat", "train/fox", "train/hen")]
    for file in bad:
        file.write_bytes(file.read_bytes()[:60])
    ended = typed(f"dataset.root={root}", "layers=4", "target=A,B")
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"dataset.root={root / 'train'}: 4 files cannot be read as images: ")
    assert all(str(file) in last for file in bad)
    assert last.endswith("fix or delete them, or say dataset.on_bad_image=skip")
    skipped = typed(f"dataset.root={root}", "layers=4", "dataset.on_bad_image=skip", "hydra.launcher.dry_run=true")
    assert skipped.returncode == 0, skipped.stderr
    assert all(str(file) in skipped.stdout + skipped.stderr for file in bad)
    for file in bad:
        file.unlink()
    deleted = typed(f"dataset.root={root}", "layers=4", "hydra.launcher.dry_run=true")
    ids = [re.findall(r"[0-9a-f]{16}", ended.stdout) for ended in (skipped, deleted)]
    assert ids[0] == ids[1] != []  # the same runs as on a folder that never had these files


@pytest.mark.parametrize("values", ["range(7,4)", "glob(*)", "range(4,4)"])
def test_a_sweep_over_no_values_is_one_line(typed, tmp_path, values):
    assert refused(typed(f"layers={values}"), tmp_path).startswith(f"layers={values}: has no value; list them")


def test_the_version_and_the_classes_are_printed(command, tiny, tmp_path):
    assert command("--version").stdout == f"tlprotocols {__version__}\n"
    ended = command("-m", *tiny, "layers=4", "split=0,1", "--classes", f"results_dir={tmp_path / 'results'}")
    lines = [line for line in ended.stdout.splitlines() if " source (" in line or " target (" in line]
    assert [line.split(":")[0] for line in lines] == [
        f"folder split {split} {role} (half {half}, 4 classes)"
        for split in (0, 1)
        for role, half in (("source", "A"), ("target", "B"))
    ]
    named = [set(line.partition(": ")[2].split(", ")) for line in lines]
    assert named[0] | named[1] == named[2] | named[3] == set(CLASSES)
    assert not (tmp_path / "results").exists()


COMMANDS = ("lr_schedule", "results", "predict", "models", "images", "migrate")


@pytest.mark.parametrize("module", ["sweeps", *(f"tlprotocols.{name}" for name in COMMANDS)])
def test_every_command_has_help_and_may_be_cut_by_head(module):
    line = f"set -o pipefail; {sys.executable} -m {module} --help | true"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ended.returncode in (0, 141)
    assert ended.stderr == ""


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_the_networks(command, flag):
    ended = command(flag, module="tlprotocols.models")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "python -m tlprotocols.models resnet50" in ended.stdout


def test_help_names_every_factor_in_a_line(command):
    shown = command("--help").stdout  # no terminal: 80 columns
    groups = ("dataset", "model", "recipe", "base", "classes", "protocol")
    for name in groups:
        assert re.search(rf"^  {name} +\w+ \| ", shown, re.MULTILINE), name
    for key, about in keys():
        filled_in = key.endswith((".name", ".fingerprint", ".digest")) or key in ("protocol", "command")
        if not (filled_in or about["optional"]):
            entries = [entry for entry in re.split(r"\n  (?=\S)", shown) if entry.startswith(f"{key}=")]
            assert len(entries) == 1, key
            assert about["doc"] in " ".join(entries[0].split())
    text = " ".join(shown.split())
    assert "epochs=8 passes over the training images; max_updates sets it (1 to 1000000)" in text
    assert "batch_size=64 training images per update; the last batch of an epoch may be smaller (at least 1)" in text
    assert "hydra.launcher.workers=null worker processes" in text
    assert max(map(len, shown.splitlines())) <= 80


def test_the_configuration_can_be_printed(command):
    ended = command("--cfg", "job", "layers=3", "dataset=cifar10")
    assert ended.returncode == 0
    assert "layers: 3" in ended.stdout
    assert "name: cifar10" in ended.stdout


@pytest.mark.slow
def test_a_sweep_from_any_folder(typed, command, tmp_path):
    ended = typed("layers=4,5", "seed=0")
    assert ended.returncode == 0, ended.stderr
    assert "2 cells, 2 runs, 2 to run, 1 base network first" in ended.stdout
    rows = load(tmp_path / "results")
    assert rows["layers"].tolist() == [4, 5]
    for row in rows.to_dict("records"):
        cells = [re.split(r"\s*│\s*", line.strip("│ ")) for line in ended.stdout.splitlines() if line.startswith("│")]
        (shown,) = (cell for cell in cells if cell[1] == str(row["layers"]))
        assert f"{100 * row['val_top1']:.1f}%" in " ".join(shown)
    again = typed("layers=4,5", "seed=0")
    assert again.returncode == 0
    assert "2 cells, 2 runs, 2 finished" in again.stdout
    table = ended.stdout[ended.stdout.index("┏") :]
    assert again.stdout.endswith(table)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.slow
def test_failed_runs_are_listed_and_the_exit_code_says_so(command, tiny, cfg, tmp_path):
    results = f"results_dir={tmp_path / 'results'}"
    failing = cfg(results, "layers=5")
    files(failing).folder.mkdir(parents=True)
    (files(failing).folder / "log.txt").mkdir()  # cannot be written to
    ended = command("-m", *tiny, results, "layers=0,5", "hydra.launcher.workers=1")  # a passing error: it may be mended
    assert ended.returncode == 1
    assert ended.stderr == "1 of 2 cells have no result: see the reasons above\n"
    said = " ".join(ended.stdout.split())
    assert f"failed {run_id(failing)}" in said
    assert "IsADirectoryError" in said
    assert load(tmp_path / "results")["layers"].tolist() == [0]
    assert "Traceback" in files(failing).accident.read_text()
    (files(failing).folder / "log.txt").rmdir()
    assert command("-m", *tiny, results, "layers=0,5", "hydra.launcher.workers=1").returncode == 0
    assert load(tmp_path / "results")["layers"].tolist() == [0, 5]


@pytest.mark.slow
def test_damaged_weights_of_a_base_are_not_used(command, tiny, cfg, tmp_path):
    """The base is trained again, and the table is that of a sweep that nothing happened to."""
    tables = []
    for name in ("whole", "damaged"):
        results = f"results_dir={tmp_path / name}"
        base = base_of(cfg(results, "layers=5"))
        row = execute(base, role="base")
        if name == "damaged":
            content = bytearray(files(base).weights.read_bytes())
            content[-100] ^= 1
            files(base).weights.write_bytes(content)
        ended = command("-m", *tiny, results, "layers=5,6", "hydra.launcher.workers=1")
        assert ended.returncode == 0, ended.stderr
        assert ("1 base network first" in ended.stdout) is (name == "damaged")
        table = load(tmp_path / name)
        assert table["base_weights"].tolist() == [row["weights_digest"]] * 2
        tables.append(table[["run_id", "train_loss", "val_loss", "val_top1"]])
    assert tables[0].equals(tables[1])


def test_a_launcher_that_composes_by_itself_takes_no_protocol(command, tiny, tmp_path):
    """It would not see that a protocol and another value contradict each other."""
    where = f"results_dir={tmp_path / 'results'}"
    ended = command(*tiny, where, "hydra/launcher=basic", "hydra/sweeper=basic", "protocol=scratch", "layers=7")
    assert ended.returncode == 2
    assert "hydra/launcher=basic: cannot be used with protocol=" in ended.stderr


@pytest.mark.parametrize(
    ("cells", "noted"),
    [
        ("layers=0,5", "trains 7 random layers"),
        ("layers=5,6", ""),
        ("protocol=scratch,commonly_used", ""),
        ("layers=0 high_lr_layers=8 schedule=join_low decay_epochs=0", "trains 8 random layers"),
        ("layers=0 high_lr_layers=8 lr.layers.conv1=1e-6", "trains 1 random layer"),
    ],
)
def test_a_baseline_whose_random_layers_learn_slowly_is_named(command, tiny, cells, noted, tmp_path):
    ended = command("-m", *tiny, *cells.split(), f"results_dir={tmp_path / 'results'}", "hydra.launcher.dry_run=true")
    assert ended.returncode == 0, ended.stderr
    printed = " ".join(ended.stdout.split())
    line = f"note: a cell with layers=0 {noted} below lr.high from the first epoch; the baseline without transfer is"
    assert (f"{line} protocol=scratch" if noted else "note:") in printed if noted else "note:" not in printed


@pytest.mark.slow
def test_a_sweep_whose_every_run_failed_still_names_the_causes(command, tiny, cfg, tmp_path):
    results = f"results_dir={tmp_path / 'results'}"
    failing = cfg(results, "layers=5")
    files(base_of(failing)).folder.mkdir(parents=True)
    (files(base_of(failing)).folder / "log.txt").mkdir()  # cannot be written to
    ended = command("-m", *tiny, results, "layers=5,6", "hydra.launcher.workers=1")
    assert ended.returncode == 1
    assert ended.stderr == "2 of 2 cells have no result: see the reasons above\n"
    assert f"failed {run_id(failing)}" in " ".join(ended.stdout.split())
    assert "IsADirectoryError" in ended.stdout
