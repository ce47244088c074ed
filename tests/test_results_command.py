"""python -m tlprotocols.results: list, show, compare, delete, prune, import, export."""

import json
import sys
from pathlib import Path

import pytest

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
    (cache / "glyphs-32px-0123-2").mkdir(parents=True)
    (cache / "glyphs-32px-0123-2" / "train.u8").write_bytes(bytes(50_000))
    shown = typed("prune", results, "--image-cache", cache)
    counts = {line.split()[0]: line.split()[1] for line in shown.splitlines()[:3]}
    assert counts == {"weights": "1", "checkpoints": "3", "caches": "1"}
    assert "kB" in shown
    typed("prune", results, "--image-cache", cache, "--checkpoints", "--caches", "--yes")
    assert not list(results.glob("runs/*/checkpoint.safetensors"))
    assert not list(cache.iterdir())
    assert Files(results, "cc44").weights.exists()
    assert len(load(results, bases=True)) == 4


def test_import_and_export_in_either_spelling(typed, tmp_path):
    assert typed("import", ROWS, tmp_path / "a") == f"512 new rows in {tmp_path / 'a'}\n"
    assert typed(tmp_path / "b", "--import", ROWS) == f"512 new rows in {tmp_path / 'b'}\n"
    typed("export", tmp_path / "new.csv", tmp_path / "a", "--bases")
    typed(tmp_path / "b", "--export", tmp_path / "old.csv", "--bases")
    assert (tmp_path / "new.csv").read_text() == (tmp_path / "old.csv").read_text()
    assert sorted(load(tmp_path / "new.csv")["run_id"]) == sorted(load(ROWS)["run_id"])
