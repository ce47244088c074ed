"""Files that were written whole and are damaged now: the damage is seen, the file is named, and nothing of it is used.

tests/test_faults.py has rows, configurations and records; tests/test_datasets.py the image cache.
"""

import json
import logging
import shutil

import pytest
import safetensors.torch
import torch

from tlprotocols.config.identity import base_of, run_id
from tlprotocols.errors import Damaged
from tlprotocols.images.folders import read_image
from tlprotocols.images.readable import Readable
from tlprotocols.planning.plan import plan
from tlprotocols.records import files, read_row
from tlprotocols.results import export, import_rows, load, load_curves
from tlprotocols.training import checkpoints, models, optimizers, run
from tlprotocols.training.checkpoints import State


def flipped(content):
    """One bit in the middle is another."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def tensors(change):
    """A change of all tensors of a file of weights."""

    def changed(content):
        return safetensors.torch.save({key: change(value) for key, value in safetensors.torch.load(content).items()})

    return changed


DAMAGE = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "garbage": lambda content: bytes(range(256)) * 10,
    "a bit flipped": flipped,
    "zeros": lambda content: bytes(len(content)),
}
WEIGHTS = DAMAGE | {
    "of another run": tensors(lambda value: value * 2),
    "of other shapes": tensors(lambda value: torch.cat([value, value]) if value.ndim else value),
    "of another type": tensors(lambda value: value.half()),
}


@pytest.fixture(scope="module")
def finished(cfg, tmp_path_factory):
    """A base, and a run with a curve that copied from it."""
    folder = tmp_path_factory.mktemp("finished")
    config = cfg(f"results_dir={folder}", "layers=5", "curve=true")
    run.execute(base_of(config), role="base")
    run.execute(config)
    return folder


@pytest.fixture
def results(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "results")


@pytest.mark.parametrize("damage", WEIGHTS.values(), ids=WEIGHTS)
def test_damaged_weights_of_a_base_are_named_and_the_base_is_trained_again(cfg, results, damage):
    config = cfg(f"results_dir={results}", "layers=3")
    path, digest = files(base_of(config)).weights, read_row(files(base_of(config)).row)["weights_digest"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Damaged, match=f"{path}: the base's weights are "):
        checkpoints.load_weights(path, digest)
    assert [run.role for run in plan([config]).to_run] == ["base", "run"]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_curve_is_named_left_out_and_made_anew(cfg, results, caplog, damage):
    config = cfg(f"results_dir={results}", "layers=5", "curve=true")
    path = files(config).curve
    whole = path.read_bytes()
    assert len(load_curves(results)) == config.epochs
    path.write_bytes(damage(whole))
    assert len(load_curves(results)) == 0
    assert f"{path}: damaged" in caplog.text
    assert [run.id for run in plan([config]).to_run] == [run_id(config)]
    run.execute(config)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_begins_its_run_again(cfg, tmp_path, damage):
    path, config = tmp_path / "checkpoint.safetensors", cfg("layers=0")
    net = models.build(config, 4)
    checkpoints.save_state(path, net, optimizers.optimizer(net, config), State(done=1), "me")
    path.write_bytes(damage(path.read_bytes()))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert checkpoints.load_state(path, net, optimizers.optimizer(net, config), "me").done == 0
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


TABLES = {
    "empty": (lambda content: b"", ("csv", "parquet")),
    "truncated": (DAMAGE["truncated"], ("csv", "parquet")),
    "garbage": (DAMAGE["garbage"], ("csv", "parquet")),
    "zeros": (DAMAGE["zeros"], ("csv", "parquet")),
    "another table": (lambda content: b"a,b\n1,2\n", ("csv",)),
    "a factor changed": (lambda content: content.replace(b",0.1,", b",0.2,", 1), ("csv",)),
}


@pytest.mark.parametrize(("damage", "suffix"), [(d, s) for d, suffixes in TABLES.values() for s in suffixes])
def test_a_damaged_table_is_named_and_nothing_of_it_is_imported(results, tmp_path, damage, suffix):
    table = tmp_path / f"table.{suffix}"
    export(results, table, bases=True)
    content = table.read_bytes()
    table.write_bytes(damage(content))
    assert table.read_bytes() != content
    with pytest.raises(ValueError, match=f"^{table}: ") as caught:
        import_rows(table, tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "new" / "rows").glob("*"))


ROWS = DAMAGE | {
    "a bracket": lambda content: b"{",
    "of another run": lambda content: content.replace(b'"run_id": "', b'"run_id": "0', 1),
    "a number changed": lambda content: content.replace(b'"val_loss": ', b'"val_loss": 1', 1),
}


@pytest.mark.parametrize("damage", ROWS.values(), ids=ROWS)
def test_a_damaged_row_is_replaced_by_an_imported_one(results, tmp_path, damage):
    export(results, tmp_path / "table.csv", bases=True)
    whole = load(results, bases=True)
    path = next((results / "rows").glob("*.json"))
    path.write_bytes(damage(path.read_bytes()))
    assert len(load(results, bases=True)) == 1
    assert import_rows(tmp_path / "table.csv", results) == 1
    assert load(results, bases=True).equals(whole)
    assert import_rows(tmp_path / "table.csv", results) == 0


CONTENTS = ["", "5", "[]", "null", "{}", '{"digest": "x", "found": {}}', "changed"]


@pytest.mark.parametrize("content", CONTENTS)
def test_a_damaged_list_of_bad_images_is_made_anew(make_shapes, tmp_path, caplog, content):
    root = make_shapes(tmp_path / "tree", ("ant",))
    paths = sorted(map(str, (root / "train" / "ant").iterdir()))
    (root / "train" / "ant" / "003.png").write_bytes(b"")

    def listed():
        return Readable(root, tmp_path / "cache", is_bad)(paths)

    def is_bad(file):
        try:
            return read_image(file, 8) is None
        except ValueError:
            return True

    good = listed()
    assert len(good) == len(paths) - 1
    (kept,) = (tmp_path / "cache" / "digests").iterdir()
    kept.write_text(kept.read_text().replace("003", "004") if content == "changed" else content)
    with caplog.at_level(logging.WARNING):
        assert listed() == good
    assert json.loads(kept.read_text())["found"]


def test_undamaged_files_are_used(cfg, results, tmp_path):
    assert plan([cfg(f"results_dir={results}", "layers=5", "curve=true")]).to_run == []
    for suffix in ("csv", "parquet"):
        export(results, tmp_path / f"table.{suffix}", bases=True)
        assert import_rows(tmp_path / f"table.{suffix}", tmp_path / suffix) == 2
        assert load(tmp_path / suffix)["curve_digest"].notna().all()
