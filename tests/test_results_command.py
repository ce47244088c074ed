"""python -m tlprotocols.results: list, show, compare, delete, prune, import, export."""

import json
import sys
from pathlib import Path

import pytest

from tlprotocols.images.cache import ImageCache, images_needed
from tlprotocols.records import Files
from tlprotocols.results import load
from tlprotocols.results.__main__ import main

ROWS = Path(__file__).parents[1] / "results" / "tiny_imagenet" / "rows.csv"


@pytest.fixture
def typed(monkeypatch, capsys):
    """The command line; returns what it printed."""

    def run(*arguments, answer=""):
        import io

        monkeypatch.setattr(sys, "argv", ["tlprotocols.results", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def results(tmp_path):
    """Three runs and the base of two of them."""
    (tmp_path / "rows").mkdir()
    for id, layers, role in (("aa11", 4, "run"), ("aa22", 5, "run"), ("bb33", 0, "run"), ("cc44", 0, "base")):
        row = {"run_id": id, "layers": layers, "n_per_class": 10, "val_top1": 0.1 * layers, "role": role}
        (tmp_path / "rows" / f"{id}.json").write_text(json.dumps(row | {"sweep": "pets" if layers else None}))
        files = Files(tmp_path, id)
        files.folder.mkdir(parents=True)
        (files.weights if role == "base" else files.checkpoint).write_bytes(bytes(20_000))
    return tmp_path


def test_list_shows_a_line_per_run(typed, results):
    shown = typed("list", results)
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ["bb33", "aa11", "aa22"]
    assert "50.0%" in shown
    assert typed("list", results, "--sweep", "pets").splitlines()[-1] == f"2 runs in {results}"
    assert "cc44" in typed("list", results, "--bases")
    assert typed("list", results, "--query", "layers == 5").count("aa22") == 1


def test_show_and_compare_take_the_beginning_of_an_id(typed, results):
    shown = typed("show", "bb", results)
    assert "layers" in shown
    assert "checkpoint.safetensors" in shown
    differ = typed("compare", "aa1", "aa2", results).splitlines()
    assert [line.split()[0] for line in differ[1:]] == ["layers", "val_top1"]
    with pytest.raises(SystemExit, match=r"run=aa: 2 runs in .* have an id that begins so"):
        typed("show", "aa", results)


@pytest.mark.parametrize(("answer", "left"), [("n\n", 3), ("", 3), ("y\n", 1)])
def test_delete_asks_first(typed, results, answer, left):
    shown = typed("delete", "--query", "layers > 0", results, answer=answer)
    assert "delete 2 runs with their folders?" in shown
    assert len(load(results)) == left
    assert Files(results, "aa11").folder.exists() == (left == 3)


def test_delete_by_a_bad_query_deletes_nothing(typed, results):
    with pytest.raises(SystemExit, match="is no query of this table"):
        typed("delete", "--query", "layers", results, "--yes")
    assert len(load(results)) == 3


def test_a_query_that_compares_full_with_a_number_is_refused_with_the_column_that_has_numbers(typed, results):
    row = {"run_id": "dd55", "layers": 4, "n_per_class": "full", "val_top1": 0.5, "role": "run"}
    (results / "rows" / "dd55.json").write_text(json.dumps(row | {"train_images": 90, "classes_learned": 3}))
    with pytest.raises(SystemExit, match="images_per_class is n_per_class as a number"):
        typed("list", results, "--query", "n_per_class > 20")
    assert "1 runs in" in typed("list", results, "--query", "images_per_class > 20")
    with pytest.raises(SystemExit) as refused:
        typed("list", results, "--query", "layers")
    assert "images_per_class" not in str(refused.value)


def test_prune_says_sizes_and_deletes_what_is_named(typed, results, tmp_path):
    cache = tmp_path / "cache"
    (cache / "glyphs-32px-0123456789abcdef-2").mkdir(parents=True)  # decoding was killed before its first done.json
    (cache / "glyphs-32px-0123456789abcdef-2" / "train.u8").write_bytes(bytes(50_000))
    shown = typed("prune", results, "--image-cache", cache)
    counts = {line.split()[0]: line.split()[1] for line in shown.splitlines()[:3]}
    assert counts == {"weights": "1", "checkpoints": "3", "caches": "1"}
    assert "kB" in shown
    typed("prune", results, "--image-cache", cache, "--checkpoints", "--caches", "--yes")
    assert not list(results.glob("runs/*/checkpoint.safetensors"))
    assert not list(cache.iterdir())
    assert Files(results, "cc44").weights.exists()
    assert len(load(results, bases=True)) == 4


NO_CACHES = [  # folders of a user's own, and a file in each
    ("photos-512px-originals", "cat/000.png"),
    ("folder-512px-0123456789abcdef-2", "train/cat/000.png"),
    ("folder-512px-0123456789abcdef-2", "000.png"),
    ("folder-512px-0123456789abcdef-2", "train.u8/000.png"),
    ("512px-train", "train.u8"),
    ("my-512px-0123456789abcdef", "done.json"),
]


@pytest.mark.parametrize(("name", "file"), NO_CACHES)
def test_prune_deletes_no_folder_that_is_no_image_cache(typed, results, tmp_path, monkeypatch, name, file):
    kept = tmp_path / "data" / name / file
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"original")
    shown = typed("prune", results, "--image-cache", tmp_path / "data", "--caches", "--yes")
    assert shown.splitlines()[2].split() == ["caches", "0", "0", "B"]
    monkeypatch.setenv("TLPROTOCOLS_IMAGE_CACHE", str(tmp_path / "data"))
    typed("prune", results, "--caches", "--yes")
    assert kept.read_bytes() == b"original"


def test_prune_deletes_a_cache_that_is_a_link_neither_as_link_nor_as_folder(typed, results, tmp_path):
    name = "glyphs-32px-0123456789abcdef-2"
    (tmp_path / "disk" / name).mkdir(parents=True)
    (tmp_path / "disk" / name / "train.u8").write_bytes(b"decoded")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).symlink_to(tmp_path / "disk" / name)
    typed("prune", results, "--image-cache", tmp_path / "cache", "--caches", "--yes")
    assert (tmp_path / "cache" / name / "train.u8").read_bytes() == b"decoded"


def test_prune_knows_every_image_cache_that_a_sweep_made(typed, results, tmp_path, cfg):
    for resize in ("centre", "squash"):
        config = cfg(f"dataset.resize={resize}", f"machine.image_cache={tmp_path / 'cache'}", "layers=0")
        ImageCache.of(config).ensure(images_needed(config), workers=1)
    assert len(list((tmp_path / "cache").glob("folder-*"))) == 2
    typed("prune", results, "--image-cache", tmp_path / "cache", "--caches", "--yes")
    assert not list((tmp_path / "cache").glob("folder-*"))


def test_prune_names_what_it_asks_about(typed, results, tmp_path):
    cache = tmp_path / "cache" / "glyphs-32px-0123456789abcdef-2"
    cache.mkdir(parents=True)
    (cache / "train.u8").write_bytes(bytes(50_000))
    shown = typed("prune", results, "--image-cache", tmp_path / "cache", "--caches", "--checkpoints", answer="n\nn\n")
    assert f"  {cache}\ndelete " in shown
    assert f" of caches in {tmp_path / 'cache'}? (" in shown
    assert f"  {Files(results, 'aa11').checkpoint}\n" in shown
    assert f" of checkpoints in {results}? (" in shown
    assert cache.is_dir()


def test_prune_deletes_no_weights_of_another_program(typed, tmp_path):
    """A folder `runs` is no sign of ours: its runs have a saved configuration or a row."""
    other = tmp_path / "runs" / "exp1" / "weights.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"weights")
    typed("prune", tmp_path, "--image-cache", tmp_path / "cache", "--weights", "--yes")
    assert other.read_bytes() == b"weights"


def test_import_names_a_row_that_it_cannot_replace(typed, tmp_path):
    typed("import", ROWS, tmp_path)
    path = sorted((tmp_path / "rows").iterdir())[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(SystemExit, match=str(path)):
        typed("import", ROWS, tmp_path)


def test_import_and_export_in_either_spelling(typed, tmp_path):
    assert typed("import", ROWS, tmp_path / "a") == f"512 new rows in {tmp_path / 'a'}\n"
    assert typed(tmp_path / "b", "--import", ROWS) == f"512 new rows in {tmp_path / 'b'}\n"
    typed("export", tmp_path / "new.csv", tmp_path / "a", "--bases")
    typed(tmp_path / "b", "--export", tmp_path / "old.csv", "--bases")
    assert (tmp_path / "new.csv").read_text() == (tmp_path / "old.csv").read_text()
    assert sorted(load(tmp_path / "new.csv")["run_id"]) == sorted(load(ROWS)["run_id"])
