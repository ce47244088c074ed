"""Who a run is, and the table: golden ids, what changes them and what must not, rows that are whole or not there."""

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tlprotocols.config.identity import base_of, factors, identifier, run_id
from tlprotocols.config.schema import Config, factor
from tlprotocols.config.validate import build, keys
from tlprotocols.errors import ConfigError
from tlprotocols.migrate import migrate, new_ids
from tlprotocols.records import files, read_config, read_row, save_config, write_atomic, write_row
from tlprotocols.results import export, identity_of_row, import_rows, load, read_rows, selected

GOLDEN = {
    "": "60f6d566642fd92e",
    "layers=0": "db873d1162edd1e4",
    "layers=4 n_per_class=full split=3 seed=7": "2212afbee0b5231a",
    "protocol=frozen layers=3 base=self": "b33ebac6ebcbde62",
    "dataset=imagenet n_per_class=500 classes=yosinski schedule=both": "1a53ddeeecc1e449",
    "dataset=cifar10 lr.layers.conv1=0.0005 subset=random target=A": "5d571f360e3c2878",
    "classes=groups classes.source=[cat,dog] classes.target=[ship,truck]": "381ef02789a11755",
    "classes=drawn split=5 classes.source_group=diverse": "6d87b3d3d18dfc48",
    "classes=drawn split=5 layers=0": "2f07eccbe97d6671",
}
BEFORE_SHARDS = ("shards=1", "base.shards=1")  # its legacy values: these ids are older than that factor
CANNOT_MATTER = "layers=0 freeze=0"  # nothing is copied: the base is nobody's
GROUPS = {"classes": "groups", "classes.source": "[a]", "classes.target": "[b]"}
OTHER_IMAGES = {"base": "dataset", "base.dataset": "cifar10"}
BOTTLENECKS = {"model": "densenet_bc", "model.width": 1}
OTHER: dict[str, Any] = {  # another legal value of every factor, beside that of the default configuration
    "epochs": 9,
    "epoch_updates": 200,
    "max_updates": 70,
    "stop_after": 3,
    "batch_size": 65,
    "shards": 2,
    "optimizer": "adam",
    "momentum": 0.8,
    "nesterov": "true",
    "weight_decay": 0.01,
    "bias_lr": 2,
    "bias_decay": 0,
    "class_weights": "balanced",
    "dropout": 0.1,
    "augment": "none",
    "precision": "bf16",
    "layers": 5,
    "freeze": 1,
    "freeze_random": "true",
    "head": "[16]",
    "learn_layers": 2,
    "head_epochs": 2,
    "unfreeze_every": 2,
    "l2_sp": 0.1,
    "n_per_class": "full",
    "subset": "random",
    "test_per_class": 5,
    "fold": 1,
    "folds": {"fold": 0, "folds": 2},
    "split": 1,
    "target": "A",
    "seed": 1,
    "high_lr_layers": 2,
    "decay_epochs": 4,
    "schedule": "both",
    "lr.high": 0.5,
    "lr.step": 7,
    "lr.gamma": 0.5,
    "lr.milestones": {"schedule": "multistep", "lr.milestones": "[3,5]"},
    "lr.patience": {"schedule": "plateau", "lr.patience": 3},
    "lr.step_updates": {"schedule": "updates", "lr.step_updates": 50},
    "lr.low": 0.1,
    "lr.layer_decay": 0.5,
    "lr.layers": {"lr.layers.conv1": 0.1},
    "dataset.name": {"dataset.name": "folder"},
    "dataset.side": 33,
    "dataset.resize": "squash",
    "dataset.pixels": 31,
    "dataset.upscale": 48,
    "dataset.pad": 3,
    "dataset.mean": "[0.5,0.5,0.4]",
    "dataset.mean_of": "source",
    "dataset.std": "[0.25,0.25,0.2]",
    "dataset.val_per_class": 21,
    "dataset.val_from_train": "true",
    "dataset.fingerprint": "changed",
    "model.name": {"model": "alexnet", "model.width": 1, "dataset.side": 64, "dataset.pixels": 64},
    "model.width": 0.5,
    "model.depth": BOTTLENECKS | {"model.depth": 22},
    "model.growth": BOTTLENECKS | {"model.growth": 24},
    "model.drop_channel": BOTTLENECKS | {"model.drop_channel": "before_conv"},
    "model.se": BOTTLENECKS | {"model.se": "true"},
    "model.checkpoint": BOTTLENECKS | {"model.checkpoint": "true"},
    "base.epochs": 11,
    "base.epoch_updates": 200,
    "base.max_updates": 70,
    "base.stop_after": 3,
    "base.batch_size": 65,
    "base.shards": 3,
    "base.optimizer": "adamw",
    "base.momentum": 0.8,
    "base.nesterov": "true",
    "base.weight_decay": 0.01,
    "base.bias_lr": 2,
    "base.bias_decay": 0,
    "base.class_weights": "balanced",
    "base.dropout": 0.1,
    "base.augment": "none",
    "base.precision": "bf16",
    "base.name": {"base": "self"},
    "base.n_per_class": "full",
    "base.dataset.name": OTHER_IMAGES,
    "base.dataset.side": OTHER_IMAGES | {"base.dataset.side": 33},
    "base.dataset.resize": OTHER_IMAGES | {"base.dataset.resize": "squash"},
    "base.dataset.pixels": OTHER_IMAGES | {"base.dataset.pixels": 31, "layers": 5},
    "base.dataset.upscale": OTHER_IMAGES | {"base.dataset.upscale": 48, "layers": 5},
    "base.dataset.pad": OTHER_IMAGES | {"base.dataset.pad": 3},
    "base.dataset.mean": OTHER_IMAGES | {"base.dataset.mean": "[0.5,0.5,0.4]"},
    "base.dataset.mean_of": OTHER_IMAGES | {"base.dataset.mean_of": "source"},
    "base.dataset.std": OTHER_IMAGES | {"base.dataset.std": "[0.25,0.25,0.2]"},
    "base.dataset.val_per_class": OTHER_IMAGES | {"base.dataset.val_per_class": 21},
    "base.dataset.val_from_train": OTHER_IMAGES | {"base.dataset.val_from_train": "true"},
    "base.dataset.fingerprint": OTHER_IMAGES,
    "base.digest": {"base": "weights", "base.weights": "somewhere"},
    "base.lr.high": 0.5,
    "base.lr.step": 7,
    "base.lr.gamma": 0.5,
    "base.lr.step_updates": {"base.schedule": "updates", "base.lr.step_updates": 50},
    "base.lr.milestones": {"base.schedule": "multistep", "base.lr.milestones": "[3,5]"},
    "base.lr.patience": {"base.schedule": "plateau", "base.lr.patience": 3},
    "base.schedule": "cosine",
    "base.seed": 5,
    "classes.name": {"classes": "natman"},
    "classes.source": GROUPS,
    "classes.target": GROUPS | {"classes.target": "[c]"},
    "classes.sizes": {"classes": "drawn", "classes.sizes": "[3,3,2]"},
    "classes.source_group": {"classes": "drawn", "classes.source_group": "more"},
}
FACTORS = sorted(key for key, about in keys() if about["factor"])
SETTINGS = {
    "dataset.root": "somewhere",
    "dataset.download": "true",
    "machine.device": "cpu",
    "machine.image_cache": "elsewhere",
    "machine.checkpoint_minutes": 1,
    "machine.cache_features": "false",
    "base.weights": "elsewhere",
    "base.dataset.root": "elsewhere",
    "base.dataset.download": "true",
    "dataset.on_bad_image": "skip",
    "base.dataset.on_bad_image": "skip",
    "curve": "true",
    "probe": "true",
    "keep_weights": "true",
    "predictions": "true",
    "classes_shown": "true",
    "sweep": "pets",
    "tracker": "mlflow",
    "results_dir": "there",
}
NEEDS: dict[str, tuple[str, ...]] = {"base.weights": ("base=weights", "base.weights=somewhere")}  # what a setting is of
NEEDS |= {"dataset.on_bad_image": ("dataset=folder",)}
NEEDS |= {"base.dataset.on_bad_image": ("base=dataset", "base.dataset=folder")}
FILLED_IN = {"protocol", "command"}  # labels
NEEDS |= dict.fromkeys(("base.dataset.root", "base.dataset.download"), ("base=dataset", "base.dataset=cifar10"))


def changed(plain, key, *overrides):
    if key == "dataset.fingerprint":
        config = plain(*overrides)
        return dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, fingerprint="f" * 16))
    values = OTHER[key] if isinstance(OTHER[key], dict) else {key: OTHER[key]}
    config = plain(*(f"{name}={value}" for name, value in values.items()), *overrides)
    if key == "base.digest":
        return dataclasses.replace(config, base=dataclasses.replace(config.base, digest="f" * 16))
    if key == "base.dataset.fingerprint":
        images = dataclasses.replace(config.base.dataset, fingerprint="f" * 16)
        return dataclasses.replace(config, base=dataclasses.replace(config.base, dataset=images))
    return config


@pytest.mark.parametrize(("overrides", "id"), GOLDEN.items())
def test_ids_stay_what_they_are(plain, overrides, id):
    assert run_id(plain(*BEFORE_SHARDS, *overrides.split())) == id


@pytest.mark.parametrize(
    "overrides",
    [
        "dataset=glyphs",
        "weight_decay=0.0005",
        "lr.gamma=1e-1 dropout=0.0",
        "dropout=0",
        "seed=0 split=0 layers=6",
        "layers=6 split=0 seed=0",
        "layers=3 layers=6",
        "n_per_class=10.0",
        "model=alexnet_small recipe=glyphs",
        "lr.layers.conv1=null",
        "dataset.mean=[0.5,0.50,5e-1]",
    ],
)
def test_saying_what_holds_anyway_changes_no_id(plain, overrides):
    assert run_id(plain(*overrides.split())) == run_id(plain())


def test_one_and_one_point_nought_are_one_value(plain):
    assert run_id(plain("lr.high=1")) == run_id(plain("lr.high=1.0"))
    assert run_id(plain("model.width=1")) == run_id(plain("model.width=1.0"))


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_the_machine_is_not_in_the_id(plain, key):
    needed = NEEDS.get(key, ())
    assert run_id(plain(*needed, f"{key}={SETTINGS[key]}")) == run_id(plain(*needed))
    assert key not in factors(plain(*needed))


def test_every_setting_and_every_factor_is_tried_here():
    assert set(OTHER) == set(FACTORS)
    assert set(SETTINGS) | FILLED_IN == {key for key, about in keys() if not about["factor"]}


@pytest.mark.parametrize("key", FACTORS)
def test_every_factor_is_in_the_id(plain, key):
    assert run_id(changed(plain, key)) != run_id(plain())


def test_no_two_changes_give_the_same_id(plain):
    assert len({run_id(changed(plain, key)) for key in FACTORS}) == len(FACTORS)


@pytest.mark.parametrize("key", [key for key in FACTORS if key.startswith("base.")])
def test_the_base_of_a_run_that_copies_nothing_cannot_matter(plain, key):
    assert run_id(changed(plain, key, *CANNOT_MATTER.split())) == run_id(plain(*CANNOT_MATTER.split()))


def test_columns_are_named_as_overrides(plain):
    row = factors(plain("lr.layers.conv1=0.0005", "base=self", "n_per_class=full"))
    found = {key: row[key] for key in ("dataset", "model", "base", "classes", "lr.layers.conv1", "n_per_class")}
    assert found == {
        "dataset": "glyphs",
        "model": "alexnet_small",
        "base": "self",
        "classes": "random",
        "lr.layers.conv1": 0.0005,
        "n_per_class": "full",
    }


def test_a_later_factor_with_its_legacy_value_changes_no_id(plain):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(Config):
        warmup: int = factor("epochs of rising rates", low=0, legacy=0)

    config = plain()
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    assert run_id(Later(**values, warmup=0)) == run_id(config)
    assert run_id(Later(**values, warmup=1)) != run_id(config)
    assert factors(Later(**values, warmup=0))["warmup"] == 0


def test_a_configuration_older_than_a_factor_is_still_read(plain):
    config = plain(*BEFORE_SHARDS)
    frozen = json.loads(json.dumps(dataclasses.asdict(config)))
    del frozen["shards"], frozen["base"]["shards"]
    assert build(frozen) == config
    del frozen["epochs"]
    with pytest.raises(ConfigError, match="epochs=: is missing"):
        build(frozen)


def test_rows_older_than_a_factor_have_its_legacy_value(tmp_path):
    (tmp_path / "rows").mkdir()
    old = {"layers": 0, "base": "none", "val_top1": 0.5}, {"layers": 4, "base": "trained", "val_top1": 0.6}
    new = {"layers": 5, "base": "trained", "val_top1": 0.7, "shards": 1, "base.shards": 2}
    for number, row in enumerate([*old, new]):
        (tmp_path / "rows" / f"{number}.json").write_text(json.dumps({"run_id": str(number), **row}))
    table = load(tmp_path)
    assert list(table["shards"]) == [1, 1, 1]
    assert [None if n != n else n for n in table["base.shards"]] == [None, 1, 2]


def test_a_row_of_a_weights_file_has_no_factors_of_a_base_that_was_trained(plain, tmp_path):
    digest = "0123456789abcdef"
    weights, trained = plain("layers=4", "base=weights", "base.weights=x.safetensors"), plain("layers=4")
    weights = dataclasses.replace(weights, base=dataclasses.replace(weights.base, digest=digest))
    put(tmp_path, [{"run_id": run_id(c), **factors(c), "val_top1": 0.5, "role": "run"} for c in (weights, trained)])
    row = load(tmp_path).set_index("run_id").loc[run_id(weights)].dropna()
    assert {key: row[key] for key in row.index if key.startswith("base.")} == {"base.digest": digest}
    assert row["base"] == "weights"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a,b", "c"], ["a", "b,c"]),
        (["a,b", "c"], ["a", "b", "c"]),
        (["a,b"], ["a", "b"]),
        (['["a', 'b"', ' "c"]'], ["a,b", "c"]),
    ],
)
def test_commas_in_the_names_of_classes_do_not_make_two_runs_one(plain, one, other):
    def config(names):
        made = plain("classes=groups", "classes.source=[x]", "classes.target=[y]")
        return dataclasses.replace(made, classes=dataclasses.replace(made.classes, source=tuple(names)))

    assert run_id(config(one)) != run_id(config(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lr.low=0.0", "lr.low=-0.0"),
        ("weight_decay=0", "weight_decay=-0.0"),
        ("dataset.mean=[0,0,0]", "dataset.mean=[-0.0,0,0]"),
        (
            "classes=groups classes.source=[cat,dog] classes.target=[ship,truck]",
            "classes=groups classes.source=[dog,cat,dog] classes.target=[truck,ship]",
        ),
        ("", "lr.layers.conv1=0.002"),  # lr.low
        ("lr.layers.conv2=0.5", "lr.layers.conv1=0.002 lr.layers.conv2=0.5"),
        ("freeze=2", "freeze=2 lr.layers.conv2=0.5"),
        ("layers=all freeze=all", "layers=all freeze=all head_epochs=2 unfreeze_every=1 lr.layer_decay=0.5"),
        ("optimizer=adam", "optimizer=adam momentum=0.5"),
        ("base.optimizer=adamw", "base.optimizer=adamw base.momentum=0.5"),
        ("", "lr.patience=3"),
        ("", "base.lr.patience=3"),
        ("schedule=plateau", "schedule=plateau decay_epochs=1 lr.step=2 lr.patience=10"),
        ("classes=drawn base=self", "classes=drawn base=self classes.source_group=more"),
        ("classes=drawn layers=0", "classes=drawn layers=0 classes.source_group=diverse"),
        ("schedule=cosine", "schedule=cosine decay_epochs=1 lr.step=2 lr.gamma=0.5"),
        ("base.schedule=cosine", "base.schedule=cosine base.lr.step=2 base.lr.gamma=0.5"),
        ("schedule=multistep lr.milestones=[3]", "schedule=multistep lr.milestones=[3] decay_epochs=1 lr.step=2"),
    ],
)
def test_equal_runs_have_equal_ids(plain, one, other):
    assert run_id(plain(*one.split())) == run_id(plain(*other.split()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "lr.layers.fc8=0.02"),  # lr.high, but it decays with the low rates
        ("", "lr.layers.conv1=0.02"),
        ("freeze=1", "freeze=1 lr.layers.conv2=0.5"),
        ("layers=all freeze=all-1", "layers=all freeze=all-1 head_epochs=2"),
        ("optimizer=adam", "optimizer=adam base.momentum=0.5"),
        ("optimizer=adam", "optimizer=adamw"),
        ("schedule=cosine", "schedule=cosine base.lr.gamma=0.5"),
        ("schedule=plateau", "schedule=plateau lr.patience=3"),
        ("classes=drawn", "classes=drawn classes.source_group=diverse"),
        ("classes=drawn layers=0 target=A", "classes=drawn layers=0 target=A classes.source_group=more"),
        ("base.schedule=plateau", "base.schedule=plateau base.lr.patience=3"),
        ("schedule=multistep lr.milestones=[3]", "schedule=multistep lr.milestones=[4]"),
        ("schedule=multistep lr.milestones=[3]", "schedule=multistep lr.milestones=[3] lr.gamma=0.5"),
        ("dataset.mean=[0.1,0.2,0.3]", "dataset.mean=[0.3,0.2,0.1]"),
    ],
)
def test_unequal_runs_have_unequal_ids(plain, one, other):
    assert run_id(plain(*one.split())) != run_id(plain(*other.split()))


ROWS = Path(__file__).parents[1] / "results" / "tiny_imagenet" / "rows.csv"


def test_the_committed_rows_have_the_ids_of_their_factors():
    rows = read_rows(ROWS)
    assert len(rows) == 512
    assert {row["run_id"] for row in rows} == {identifier(identity_of_row(row)) for row in rows}


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_rows_move_to_another_fingerprint_with_their_bases(tmp_path, kind):
    results = tmp_path / ("rows.csv" if kind == "table" else "results")
    if kind == "table":
        shutil.copy(ROWS, results)
    else:
        import_rows(ROWS, results)
    old = read_rows(results)
    assert migrate(results, "tiny_imagenet", old[0]["dataset.fingerprint"], "f" * 16) == 512
    new = read_rows(results)
    assert {row["dataset.fingerprint"] for row in new} == {"f" * 16}
    assert {row["run_id"] for row in new} == {identifier(identity_of_row(row)) for row in new}
    assert not {row["run_id"] for row in new} & {row["run_id"] for row in old}
    bases = {row["run_id"] for row in new if row["role"] == "base"}
    assert {row["base_id"] for row in new if row["base_id"]} == bases
    assert sorted(row["val_top1"] for row in new) == sorted(row["val_top1"] for row in old)
    assert migrate(results, "tiny_imagenet", "f" * 16, old[0]["dataset.fingerprint"]) == 512
    assert sorted(map(repr, read_rows(results))) == sorted(map(repr, old))


def test_what_is_moved_is_found_by_predict_and_by_a_base_of_other_images(plain, tmp_path):
    """The saved configurations, and the fingerprint of `base.dataset`; an interrupted migration goes on."""
    renewed = "f" * 16
    whole = plain("layers=5", "base=dataset", "base.dataset=glyphs", "dataset=cifar10", f"results_dir={tmp_path}")
    config = dataclasses.replace(
        whole,
        base=dataclasses.replace(whole.base, dataset=dataclasses.replace(whole.base.dataset, fingerprint="0" * 16)),
    )
    base = base_of(config)
    for one in (config, base):
        row = {"run_id": run_id(one), **factors(one), "val_top1": 0.5, "date": "2026", "role": "run"}
        files(one).row.parent.mkdir(parents=True, exist_ok=True)
        write_row(files(one).row, row | {"base_id": run_id(base) if one is config else None})
        save_config(one)
    begun = tmp_path / "runs" / run_id(_with_base_fingerprint(config, renewed))
    begun.mkdir()
    with pytest.raises(ValueError, match=f"{begun} is there already, of a run that was begun; remove it. Nothing was"):
        migrate(tmp_path, "glyphs", "0" * 16, renewed)
    begun.rmdir()
    old_row = files(config).row.read_bytes()
    assert migrate(tmp_path, "glyphs", "0" * 16, renewed) == 2
    moved = _with_base_fingerprint(config, renewed)
    for one in (moved, base_of(moved)):
        assert read_row(files(one).row)["run_id"] == run_id(one)
        assert read_config(files(one)) == one
    assert read_row(files(moved).row)["base_id"] == run_id(base_of(moved))
    files(config).row.write_bytes(old_row)  # as if it had been killed before it removed the row
    assert migrate(tmp_path, "glyphs", "0" * 16, renewed) == 1
    assert len(read_rows(tmp_path)) == 2


def _with_base_fingerprint(config, fingerprint):
    found = dataclasses.replace(config.base.dataset, fingerprint=fingerprint)
    return dataclasses.replace(config, base=dataclasses.replace(config.base, dataset=found))


def test_a_row_whose_id_is_not_its_factors_is_not_moved(tmp_path):
    text = ROWS.read_text().replace(",0.9,0.0005,", ",0.8,0.0005,")
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(ValueError, match="nothing was changed"):
        migrate(tmp_path / "rows.csv", "tiny_imagenet", read_rows(ROWS)[0]["dataset.fingerprint"], "f" * 16)
    assert (tmp_path / "rows.csv").read_text() == text


def base_id(config):
    return run_id(base_of(config))


def test_runs_of_one_split_and_seed_share_one_base(plain):
    runs = [
        "layers=1",
        "layers=7 freeze=3",
        "n_per_class=full",
        "n_per_class=50 subset=random",
        "epochs=3",
        "lr.high=1",
    ]
    runs += ["lr.layers.conv1=1", "schedule=both", "high_lr_layers=8", "decay_epochs=1", "augment=none", "curve=true"]
    runs += ["dropout=0.3", "momentum=0", "weight_decay=0", "batch_size=1", "freeze=7 freeze_random=true", "lr.step=1"]
    assert {base_id(plain(*run.split())) for run in runs} == {base_id(plain())}


@pytest.mark.parametrize(
    "key", ["split", "seed", "target", "dataset.side", "model.width", "base.epochs", "base.lr.high"]
)
def test_each_of_these_has_its_own_base(plain, key):
    assert base_id(changed(plain, key)) != base_id(plain())


def test_the_base_learns_the_other_half_by_its_own_recipe(plain):
    config = plain(
        "target=B", "split=2", "seed=3", "layers=5", "base.epochs=4", "base.lr.high=0.5", "base.n_per_class=9"
    )
    base = base_of(config)
    found = (base.target, base.split, base.seed, base.layers, base.freeze, base.epochs, base.lr.high, base.n_per_class)
    assert found == ("A", 2, 3, 0, 0, 4, 0.5, 9)
    assert base_of(plain("target=A")).target == "B"
    assert base_of(plain("base=self")).target == "B"
    assert base_of(base) is None


def test_no_transfer_needs_no_base(plain):
    assert base_of(plain("layers=0")) is None
    assert base_of(plain("layers=0", "base=none")) is None


def test_a_reader_sees_all_of_a_row_or_none(tmp_path):
    file, done = tmp_path / "row.json", threading.Event()
    texts = [json.dumps({"number": number, "filling": "x" * 1_000_000}) for number in range(30)]

    def write():
        for text in texts:
            write_atomic(file, text)
        done.set()

    writer, read = threading.Thread(target=write), 0
    writer.start()
    while not done.is_set():
        if file.exists():
            assert len(json.loads(file.read_text())["filling"]) == 1_000_000
            read += 1
    writer.join()
    assert read > 0
    assert [f.name for f in tmp_path.iterdir()] == ["row.json"]


def some_rows(n_per_class=(50, "full", 10), bases=("full", 50, None)):
    """Rows of three runs and a base, with what is hard to keep: fractions, missing values, texts like numbers."""
    for number, (n, base) in enumerate(zip(n_per_class, bases, strict=True)):
        yield {
            "run_id": f"000000000000000{number}",
            "base_id": "1234567890123456" if base else None,
            "dataset": "glyphs",
            "dataset.fingerprint": "0000000000001e23",
            "n_per_class": n,
            "layers": 5,
            "base.n_per_class": base,
            "augment": "none",
            "lr.low": 1e-4,
            "val_top1": 0.1 + 0.2 + number / 7,
            "val_loss": 1 / 3,
            "collapsed": number == 1,
            "role": "run",
        }
    yield {"run_id": "b" * 16, "dataset": "glyphs", "n_per_class": 50, "layers": 0, "val_top1": 0.5, "role": "base"}


def put(folder, rows):
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    for row in rows:
        write_atomic(folder / "rows" / f"{row['run_id']}.json", json.dumps(row))


def test_the_table_is_sorted_and_leaves_bases_out(tmp_path):
    put(tmp_path, some_rows())
    assert load(tmp_path)["n_per_class"].tolist() == [10, 50, "full"]
    assert load(tmp_path, bases=True)["run_id"].tolist()[1] == "b" * 16


@pytest.mark.parametrize("kind", ["folders", "csv", "parquet"])
@pytest.mark.parametrize("places", [("one", "two"), ("two", "one")])
def test_equal_runs_of_several_tables_have_the_labels_of_all(tmp_path, places, kind):
    first, second, third, base = some_rows()
    put(tmp_path / "one", [first | {"sweep": "a"}, third, base | {"sweep": "a,c"}])
    put(tmp_path / "two", [first | {"sweep": "b"}, second | {"sweep": "b"}, base | {"role": "run"}])
    given = [tmp_path / place for place in places]
    if kind != "folders":
        given = [folder.with_suffix(f".{kind}") for folder in given]
        for file in given:
            export(file.with_suffix(""), file, bases=True)
    ids = {sweep: set(load(given, sweep=sweep)["run_id"]) for sweep in ("a", "b", "c")}
    assert ids == {
        "a": {first["run_id"], base["run_id"]},
        "b": {first["run_id"], second["run_id"]},
        "c": {base["run_id"]},
    }
    table = load(given).set_index("run_id")
    assert table["sweep"][first["run_id"]] == ("a,b" if places[0] == "one" else "b,a")
    assert len(table) == 4
    assert table["role"][base["run_id"]] == "run"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_older_than_roles_stay_in_a_table_with_newer_ones(plain, tmp_path, suffix):
    configs = [plain(f"seed={seed}") for seed in range(3)]
    rows = [{"run_id": run_id(c), **factors(c), "val_top1": 0.5} for c in configs]
    put(tmp_path / "old", [rows[0], rows[1] | {"role": "run"}, rows[2] | {"role": "base"}])
    export(tmp_path / "old", tmp_path / f"all{suffix}", bases=True)
    import_rows(tmp_path / f"all{suffix}", tmp_path / "new")
    for place in (tmp_path / "old", tmp_path / f"all{suffix}", tmp_path / "new"):
        assert sorted(load(place)["run_id"]) == sorted(row["run_id"] for row in rows[:2]), place


def test_the_table_can_be_read_while_rows_are_added(tmp_path):
    (tmp_path / "rows").mkdir()
    template = next(some_rows())
    adding = threading.Thread(
        target=lambda: [put(tmp_path, [template | {"run_id": f"{number:016}"}]) for number in range(100)]
    )
    adding.start()
    lengths = []
    while adding.is_alive():
        table = load(tmp_path)
        assert len(table) == 0 or table.notna().all(axis=None)
        lengths.append(len(table))
    adding.join()
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 2
    assert len(load(tmp_path)) == 100


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_exported_table_is_the_same_table(tmp_path, suffix):
    put(tmp_path / "results", some_rows())
    file = tmp_path / f"table.{suffix}"
    line = [sys.executable, "-m", "tlprotocols.results", str(tmp_path / "results"), "--export", str(file)]
    ended = subprocess.run(line, capture_output=True, text=True, check=True)
    assert ended.stdout == f"3 rows -> {file}\n"
    kept, table = load(file), load(tmp_path / "results")
    pd.testing.assert_frame_equal(kept, table, check_exact=True)
    assert [type(n) for n in kept["n_per_class"]] == [int, int, str]


def test_a_folder_with_exported_tables_alone_names_them(tmp_path, caplog):
    assert len(load(tmp_path)) == 0
    assert caplog.text == ""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rows.csv").write_text("run_id\n")
    assert len(load(tmp_path)) == 0
    assert (
        f"{tmp_path}: no rows of a sweep here, but exported tables, to be given by name: {tmp_path}/mine/rows.csv"
        in (caplog.text)
    )


def test_a_query_may_name_any_documented_column():
    table = load(ROWS)
    assert "sweep" not in table
    assert len(selected(table, "sweep == 'trial'")) == 0
    assert len(selected(table, "sweep != 'trial' and layers == 5")) == len(selected(table, "layers == 5")) > 0


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_without_rows_can_be_exported(tmp_path, suffix, command):
    (tmp_path / "results" / "rows").mkdir(parents=True)
    file = tmp_path / f"table.{suffix}"
    assert command(str(tmp_path / "results"), "--export", str(file), module="tlprotocols.results").returncode == 0
    assert len(load(file)) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--export", "a.csv"], "nowhere: no results here"),
        ([".", "--export", "a.xls"], "must end in .csv or .parquet"),
    ],
)
def test_what_cannot_be_exported(command, arguments, words):
    ended = command(*arguments, module="tlprotocols.results")
    assert ended.returncode == 1
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_exported_rows_taken_back_are_finished_runs(plain, tmp_path, suffix):
    """What was exported and put into an empty folder is the same table, and taking it twice adds nothing."""
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / f"table.{suffix}"
    configs = [
        plain("layers=0", "n_per_class=full"),
        plain("layers=6", "lr.layers.conv1=0.5"),
        plain("classes=groups", "classes.source=[a]", "classes.target=[b]"),
        plain("schedule=multistep", "lr.milestones=[3]", "base.schedule=multistep", "base.lr.milestones=[3,5]"),
        plain("layers=0", "optimizer=adamw", "schedule=cosine"),
        plain("layers=5", "max_updates=bit", "schedule=bit", "l2_sp=0.1", "lr.layer_decay=0.5"),
        plain("schedule=plateau", "lr.patience=3", "stop_after=2", "max_updates=9", "base.max_updates=7"),
        plain("layers=5", "head=[64]"),  # a text that looks like a number
        plain("layers=5", "head=[64,32]"),
    ]
    odd = dataclasses.replace(configs[2].classes, source=("a,b", 'c "d"', "é"), target=("True", "[1]"))
    configs[2] = dataclasses.replace(configs[2], classes=odd)
    rows = [{"run_id": run_id(c), **factors(c), "val_top1": 0.1 + 0.2, "role": "run"} for c in configs]
    (here / "rows").mkdir(parents=True)
    for row in rows:
        (here / "rows" / f"{row['run_id']}.json").write_text(json.dumps(row))
    for folder, way in ((here, "--export"), (there, "--import")):
        line = [sys.executable, "-m", "tlprotocols.results", str(folder), way, str(file)]
        subprocess.run(line, capture_output=True, check=True)
    pd.testing.assert_frame_equal(load(there), load(here))
    assert import_rows(file, there) == 0
    assert {row["run_id"] for row in read_rows(there)} == {identifier(identity_of_row(row)) for row in read_rows(there)}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_row_that_is_there_gets_the_labels_of_an_imported_one(plain, tmp_path, caplog, suffix):
    ids = [run_id(config) for config in (plain("layers=0"), plain("layers=5"))]
    one, two = (
        {"run_id": run_id(c), **factors(c), "val_top1": 0.5, "role": "run", "sweep": "b", "host": "there"}
        for c in (plain("layers=0"), plain("layers=5"))
    )
    put(tmp_path / "there", [one, two | {"sweep": None}])
    export(tmp_path / "there", tmp_path / f"table.{suffix}")
    (tmp_path / "here" / "rows").mkdir(parents=True)
    write_row(tmp_path / "here" / "rows" / f"{ids[0]}.json", one | {"role": "base", "sweep": "a", "host": "here"})
    write_row(tmp_path / "here" / "rows" / f"{ids[1]}.json", two | {"sweep": "a", "host": "here"})
    assert import_rows(tmp_path / f"table.{suffix}", tmp_path / "here") == 0
    rows = {row["run_id"]: row for row in read_rows(tmp_path / "here")}
    assert rows == {ids[0]: one | {"sweep": "a,b", "host": "here"}, ids[1]: two | {"sweep": "a", "host": "here"}}
    assert not caplog.text


def test_an_imported_row_whose_factors_are_not_its_ids_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS.read_text().replace(",crop_flip,", ",flip,"))
    with pytest.raises(ValueError, match="has other factors than its id says; nothing was imported"):
        import_rows(tmp_path / "rows.csv", tmp_path / "results")
    assert load(tmp_path / "results").empty


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"run_id": "another"}'])
def test_a_broken_row_is_named_and_counts_as_unfinished(tmp_path, caplog, content):
    put(tmp_path, some_rows())
    broken = sorted((tmp_path / "rows").iterdir())[0]
    broken.write_text(content)
    (tmp_path / "rows" / "README.md").write_text("mine")
    assert len(load(tmp_path, bases=True)) == 3
    assert f"{broken}: no result (" in caplog.text
    assert read_row(broken) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0", "dataset=glyphs"], "0: a fingerprint has 16 hexadecimal digits"),
        (["", "dataset=glyphs"], ": a fingerprint has 16 hexadecimal digits"),
        (["0" * 16, "dataset=glyphs"], "no row has dataset=glyphs and dataset.fingerprint=0000000000000000"),
        (["9e3236f01c193f4b", "dataset=glyphs"], "no row has dataset=glyphs"),
    ],
)
def test_what_cannot_be_migrated_changes_nothing(command, tmp_path, arguments, words):
    import_rows(ROWS, tmp_path / "results")
    before = {file: file.read_bytes() for file in (tmp_path / "results" / "rows").iterdir()}
    ended = command(str(tmp_path / "results"), *arguments, module="tlprotocols.migrate")
    assert ended.returncode == 1
    assert words in ended.stderr
    assert {file: file.read_bytes() for file in (tmp_path / "results" / "rows").iterdir()} == before


def test_a_migration_moves_the_folders_of_runs_and_overwrites_no_row(tmp_path):
    import_rows(ROWS, tmp_path)
    row = read_rows(tmp_path)[0]
    folder = tmp_path / "runs" / row["run_id"]
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_text("weights")
    old = row["dataset.fingerprint"]
    migrate(tmp_path, "tiny_imagenet", old, "f" * 16)
    ids = new_ids([row], "tiny_imagenet", old, "f" * 16)
    moved = tmp_path / "runs" / ids[row["run_id"]] / "weights.safetensors"
    assert moved.read_text() == "weights"
    assert read_row(tmp_path / "rows" / f"{ids[row['run_id']]}.json")["log"].split("/")[1] == ids[row["run_id"]]
    import_rows(ROWS, tmp_path)
    there = tmp_path / "rows" / f"{ids[row['run_id']]}.json"
    write_row(there, read_row(there) | {"val_top1": 0.123})  # another measurement than the row that would take its id
    with pytest.raises(ValueError, match=f"row {there.stem} is there already; nothing was changed"):
        migrate(tmp_path, "tiny_imagenet", old, "f" * 16)
