"""Labels of a row: what people find it by, and what never enters an id; and the columns of the table."""

import dataclasses
import json
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tlprotocols.config.identity import base_of, factors, run_id
from tlprotocols.config.protocols import protocol_of
from tlprotocols.planning.plan import plan
from tlprotocols.records import add_labels, add_sweep, files, labelling, read_classes, read_row, save_config, write_row
from tlprotocols.results import ADDED, MEASURED, import_rows, load
from tlprotocols.training.run import execute

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "results" / "tiny_imagenet" / "rows.csv"


@pytest.fixture(scope="module")
def made(cfg, tmp_path_factory):
    """A base and a run with a curve, weights and predictions, executed by way of their saved configurations."""
    folder = tmp_path_factory.mktemp("labels")
    config = cfg(
        *(
            "layers=5",
            "sweep=pets",
            "curve=true",
            "probe=true",
            "dataset.mean_of=source",
            "keep_weights=true",
            "predictions=true",
            f"results_dir={folder}",
        )
    )
    config = dataclasses.replace(config, command="tlprotocols -m layers=5")
    execute(base_of(config), "base")
    save_config(config)
    execute(config)
    return folder, config


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "fine_tune"),
        ("layers=4", "fine_tune"),
        ("layers=4 freeze=4", "frozen"),
        ("layers=7 high_lr_layers=8 decay_epochs=6", "commonly_used"),
        ("layers=7 high_lr_layers=8 decay_epochs=5", None),
        ("protocol=commonly_used schedule=cosine", "commonly_used"),
        ("protocol=scratch", "scratch"),
        ("layers=0", None),  # seven random layers at the low rate are no fine-tuning, and no baseline
        ("layers=6 freeze=5 decay_epochs=5 n_per_class=25", "optimal"),
        ("layers=6 freeze=5 decay_epochs=5 n_per_class=10", None),
        ("high_lr_layers=3", None),
    ],
)
def test_a_run_has_the_name_of_the_protocol_whose_values_it_has(composed, overrides, name):
    config = composed(*overrides.split())
    assert config.protocol == name
    assert protocol_of(factors(config)) == name  # from the row alone, however old
    assert run_id(dataclasses.replace(config, protocol="other", sweep="mine", command="x")) == run_id(config)


def test_a_protocol_of_ones_own_is_the_label(tmp_path):
    from tlprotocols.config.compose import composer

    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol" / "hot.yaml").write_text("# @package _global_\nlr: {high: 0.05}\n")
    assert composer(config_dir=str(tmp_path))(["protocol=hot"]).protocol == "hot"


def test_the_label_of_half_of_the_epochs_waits_for_the_images(composed, cfg):
    given = ("layers=all", "schedule=cosine", "epochs=8")
    assert composed(*given, "head_epochs=4").protocol == "lp_ft"
    assert composed(*given, "head_epochs=4", "max_updates=40").protocol is None  # 4 of 40 epochs
    assert composed(*given, "head_epochs=half", "max_updates=40").protocol == "lp_ft"


def test_a_base_has_the_label_of_its_own_training(composed):
    assert protocol_of(factors(base_of(composed("layers=5")))) == "scratch"
    assert base_of(composed("layers=5")).protocol is None


@pytest.mark.slow
def test_a_row_carries_its_labels(made):
    folder, config = made
    row = load(folder).iloc[0]
    assert (row["protocol"], row["sweep"], row["command"]) == ("fine_tune", "pets", "tlprotocols -m layers=5")
    assert row["dataset_folder"] == Path(config.dataset.root).name
    assert re.fullmatch("[0-9a-f]{12}[+]?", row["commit"] or "0" * 12)
    classes = read_classes(files(config))
    assert (len(classes["source"]), len(classes["target"])) == (4, 4)
    assert not set(classes["source"]) & set(classes["target"])


@pytest.mark.slow
def test_a_run_that_is_trained_once_more_loses_nothing_that_it_had(cfg, tmp_path):
    folder = f"results_dir={tmp_path}"
    first = cfg("layers=0", "sweep=one", "keep_weights=true", "predictions=true", "probe=true", folder)
    before = execute(first)
    files(first).predictions.write_bytes(b"")  # written anew
    after = execute(cfg("layers=0", "sweep=two", "curve=true", folder))
    assert (after["sweep"], len(load(tmp_path, sweep="one")), len(load(tmp_path, sweep="two"))) == ("one,two", 1, 1)
    assert after["weights_digest"] == before["weights_digest"]
    assert after["weights_digest"] is not None
    assert after["probe_top1"] == before["probe_top1"]
    assert after["curve_digest"]
    assert files(first).predictions.stat().st_size
    assert execute(first) == after  # nothing is missing of either
    assert [run.role for run in plan([first]).to_run] == []


@pytest.mark.slow
def test_a_name_that_another_sweep_adds_while_a_run_is_trained_once_more_stays(cfg, tmp_path):
    folder = f"results_dir={tmp_path}"
    first = cfg("layers=0", "sweep=one", folder)
    execute(first)

    def meanwhile(images):
        add_sweep(dataclasses.replace(first, sweep="three"))

    again = execute(cfg("layers=0", "sweep=two", "curve=true", folder), advance=meanwhile)
    assert read_row(files(first).row)["sweep"] == "one,two,three"
    assert again["curve_digest"]


def test_two_sweeps_that_add_their_names_at_once_both_do(tmp_path):
    path = tmp_path / "rows" / "0123.json"
    path.parent.mkdir()
    write_row(path, {"run_id": "0123", "sweep": "old"})
    other = threading.Thread(target=add_labels, args=(path, {"sweep": "b", "role": "base"}))
    with labelling(path):
        other.start()
        other.join(timeout=0.3)  # it has read the row, and waits
        write_row(path, {"run_id": "0123", "sweep": "old,a"})
    other.join()
    assert read_row(path)["sweep"] == "old,a,b"


@pytest.mark.slow
@pytest.mark.parametrize("watched", ["schedule=plateau", "stop_after=2"])
def test_a_curve_of_a_run_that_was_only_watched_is_one_to_come(cfg, tmp_path, watched):
    overrides = ("layers=0", watched, "test_per_class=2", f"results_dir={tmp_path}")
    assert "epoch_at_least_val_loss" not in execute(cfg(*overrides))
    row = execute(cfg(*overrides, "curve=true"))
    assert row["test_top1_at_least_val_loss"] is not None
    assert execute(cfg(*overrides)) == row


@pytest.mark.slow
def test_every_column_is_documented(made):
    """The table of docs/results.md names what a row has beside its factors, and nothing else."""
    _, config = made
    row = read_row(files(config).row)
    assert list(row.keys() - factors(config).keys() - set(MEASURED)) == []
    assert set(MEASURED) <= row.keys()
    text = (ROOT / "docs" / "results.md").read_text()
    table = text[text.index("| column | meaning |") :]
    lines = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    documented = [name for cell in lines for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted({*MEASURED, *ADDED})


def test_a_table_before_its_first_row_has_its_columns(tmp_path):
    table = load(tmp_path)
    assert len(table) == 0
    assert {"layers", "n_per_class", "dataset", "lr.high", "val_top1", "protocol", "images_per_class"} <= set(table)
    assert len(table.query("layers == 5 and protocol == 'scratch'")) == 0


def test_rows_older_than_labels_are_loaded_and_narrowed():
    table = load(ROWS)
    assert set(load(ROWS, protocol="scratch")["layers"]) == {0}
    assert len(load(ROWS, protocol="scratch")) == (table["layers"] == 0).sum()
    assert len(load(ROWS, sweep="mine")) == 0
    assert list(load(ROWS, sweep="mine")) == list(table)


def test_tables_join_and_equal_runs_count_once(tmp_path):
    import_rows(ROWS, tmp_path)
    assert sorted(load([ROWS, tmp_path])["run_id"]) == sorted(load(ROWS)["run_id"])


@pytest.mark.slow
def test_a_run_may_belong_to_several_sweeps(made):
    folder, config = made
    before = files(config).row.read_text()
    add_sweep(config)  # it has this one
    assert files(config).row.read_text() == before
    add_sweep(dataclasses.replace(config, sweep="more"))
    assert len(load(folder, sweep="more")) == len(load(folder, sweep="pets")) == 1
    assert len(load(folder, sweep="mor")) == 0
    files(config).row.write_text(before)


@pytest.mark.slow
def test_a_sweep_over_names_of_sweeps_gives_its_run_all_of_them(command, tiny, tmp_path):
    """Before the run is there and after."""
    where = (*tiny, "layers=0", f"results_dir={tmp_path / 'r'}", "hydra.launcher.workers=1")
    for names, found in (("a,b", "a,b"), ("c,d", "a,b,c,d")):
        ended = command("-m", *where, f"sweep={names}")
        assert ended.returncode == 0, ended.stderr
        assert load(tmp_path / "r")["sweep"].to_list() == [found]
    assert len(load(tmp_path / "r", sweep="a")) == len(load(tmp_path / "r", sweep="d")) == 1


def test_full_is_a_number_for_axes(tmp_path):
    (tmp_path / "rows").mkdir()
    for number, (n, images) in enumerate([("full", 130), (25, 50), (100, 200)]):
        row = {"run_id": str(number), "n_per_class": n, "train_images": images, "classes_learned": 2, "layers": 5}
        (tmp_path / "rows" / f"{number}.json").write_text(json.dumps(row))
    table = load(tmp_path)
    assert table["n_per_class"].to_list() == [25, 100, "full"]
    assert table["images_per_class"].to_list() == [25, 100, 65]
    assert pd.api.types.is_numeric_dtype(table["images_per_class"])


@pytest.mark.slow
def test_predictions_are_those_of_the_accuracy(made):
    folder, config = made
    found = pd.read_parquet(files(config).predictions)
    row = load(folder).iloc[0]
    assert (found["class"] == found["predicted"]).mean() == pytest.approx(row["val_top1"])
    assert found["image"].map(lambda name: (Path(config.dataset.root) / name).exists()).all()
    assert found["probabilities"].map(sum).to_numpy() == pytest.approx(1)
    assert set(found["class"]) == set(read_classes(files(config))["target"])


@pytest.mark.slow
def test_the_network_of_a_run_gives_its_predictions(made, monkeypatch, capsys):
    from tlprotocols.predict import load_model, main, predict

    folder, config = made
    net, loaded, classes = load_model(run_id(config)[:6], folder)
    assert (run_id(loaded), list(classes)) == (run_id(config), read_classes(files(config))["target"])
    assert not net.training
    found = pd.read_parquet(files(config).predictions)
    images = [Path(config.dataset.root) / name for name in found["image"]]
    again = predict(run_id(config), images, folder)
    assert again == pytest.approx(np.stack(found["probabilities"].to_list()), abs=1e-6)
    typed = ["predict", run_id(config), "--results", str(folder), "--top", "1"]
    monkeypatch.setattr(sys, "argv", [*typed, str(images[0])])
    main()
    assert capsys.readouterr().out.split()[1] == found["predicted"][0]
    (folder / "text.png").write_text("no image")
    for given, why in (("nothing.png", "there is no such file"), (f"{folder}/text.png", "cannot be read as an image")):
        monkeypatch.setattr(sys, "argv", [*typed, given])
        with pytest.raises(SystemExit, match=f"^images={given}: {why}") as ended:
            main()
        assert "on_bad_image" not in str(ended.value)


@pytest.mark.slow
def test_a_finished_run_without_what_is_requested_now_is_trained_again(made, cfg, tmp_path):
    """As with a curve: weights and predictions cannot be made without the network."""
    from tlprotocols.records import finished_row

    config = cfg("layers=0", "protocol=scratch", f"results_dir={tmp_path}")
    execute(config)
    assert finished_row(config, "run") is not None
    for wanted in ("keep_weights", "predictions"):
        assert finished_row(dataclasses.replace(config, **{wanted: True}), "run") is None
