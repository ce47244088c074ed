"""Rows and curves in MLflow, W&B and TensorBoard: read back by, or found in the files of, the real libraries."""

import importlib.util
import json
import sys

import pytest

from tlprotocols.records import Files, file_digest, write_row
from tlprotocols.results import trackers
from tlprotocols.results.__main__ import main
from tlprotocols.training.run import execute

pytestmark = pytest.mark.filterwarnings("ignore")  # of these libraries
LIBRARIES = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",), "tensorboard": ("tensorboard",)}


@pytest.fixture
def needs(monkeypatch):
    """Skips where a library is not installed; nothing leaves the machine."""

    def installed(name):
        for module in LIBRARIES[name]:
            pytest.importorskip(module)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.delenv("WANDB_MODE", raising=False)

    return installed


@pytest.fixture
def results(cfg, tmp_path):
    """Two finished runs, of which one has a curve of three epochs; and their rows."""
    rows = [execute(cfg("layers=0", *more, f"results_dir={tmp_path}")) for more in (("epochs=3", "curve=true"), ())]
    return tmp_path, rows


def by_epoch(path, key):
    """A column of a curve."""
    head, *lines = [line.split(",") for line in (path / "curve.csv").read_text().splitlines()]
    return {int(line[0]): float(line[head.index(key)]) for line in lines}


def from_mlflow(place, row):
    """Values by epoch, factors and texts that MLflow has of a run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tlprotocols").experiment_id
    (run,) = client.search_runs([experiment], f"tags.run_id = '{row['run_id']}'")
    assert run.info.status == "FINISHED"
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: {m.step: m.value for m in found} for key, found in history.items()}, run.data.params, run.data.tags


def from_tensorboard(place, row):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place / row["run_id"])).Reload()
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    start = events.PluginTagToContent("hparams")["_hparams_/session_start_info"].decode(errors="replace")
    assert "n_per_class" in start
    return {key: {e.step: e.value for e in events.Scalars(key)} for key in events.Tags()["scalars"]}


@pytest.mark.parametrize("name", ["mlflow", "tensorboard"])
def test_rows_and_curves_are_what_the_library_reads_back(needs, results, name):
    needs(name)
    folder, (curved, plain) = results
    tracker = trackers.TRACKERS[name](folder / name)
    assert trackers.track(tracker, folder, [row["run_id"] for row in (curved, plain)]) == 2
    assert trackers.track(tracker, folder, [curved["run_id"]]) == 0
    assert tracker.known == trackers.TRACKERS[name](folder / name).known == {curved["run_id"], plain["run_id"]}
    for row, last in ((curved, 3), (plain, 2)):
        values = from_mlflow(folder / name, row)[0] if name == "mlflow" else from_tensorboard(folder / name, row)
        for key in ("val_top1", "val_loss", "train_top1", "updates"):
            assert values[key][last] == pytest.approx(row[key])
    values = from_mlflow(folder / name, curved)[0] if name == "mlflow" else from_tensorboard(folder / name, curved)
    for key in ("train_loss", "val_loss", "val_top1"):
        assert values[key] == pytest.approx(by_epoch(folder / "runs" / curved["run_id"], key))


def test_mlflow_has_factors_as_parameters_and_labels_as_tags(needs, results):
    needs("mlflow")
    folder, (row, _) = results
    trackers.track(trackers.Mlflow(folder / "mlflow"), folder, [row["run_id"]])
    _, params, tags = from_mlflow(folder / "mlflow", row)
    assert {key: params[key] for key in ("layers", "epochs", "lr.high", "dataset")} == {
        key: str(row[key]) for key in ("layers", "epochs", "lr.high", "dataset")
    }
    assert (tags["device"], tags["role"]) == (row["device"], "run")


def test_wandb_keeps_an_offline_run_with_factors_and_numbers(needs, results):
    needs("wandb")
    folder, (curved, plain) = results
    tracker = trackers.Wandb(folder / "wandb")
    ids = [curved["run_id"], plain["run_id"]]
    assert trackers.track(tracker, folder, ids) == 2
    assert trackers.track(trackers.Wandb(folder / "wandb"), folder, ids) == 0
    (kept,) = (folder / "wandb").glob(f"wandb/offline-run-*-{curved['run_id']}/run-{curved['run_id']}.wandb")
    content = kept.read_bytes()
    for said in ("n_per_class", "lr.high", json.dumps(curved["val_loss"]), json.dumps(curved["updates"])):
        assert said.encode() in content, said


def test_the_command_writes_each_run_once(needs, results, monkeypatch, capsys):
    needs("tensorboard")
    folder, rows = results
    monkeypatch.setattr(
        sys, "argv", ["tlprotocols.results", "track", "tensorboard", str(folder), "--to", f"{folder}/t"]
    )
    for written in (2, 0):
        main()
        assert capsys.readouterr().out == f"{written} of 2 runs written -> {folder}/t\n"
    assert {path.name for path in (folder / "t").iterdir()} == {row["run_id"] for row in rows}


def test_a_sweep_writes_its_runs_and_what_was_finished_before(needs, cfg, command, tiny, tmp_path):
    needs("tensorboard")
    execute(cfg("layers=0", f"results_dir={tmp_path / 'r'}"))
    line = ("-m", *tiny, "layers=0", f"results_dir={tmp_path / 'r'}", "hydra.launcher.workers=1")
    ended = command(*line, "seed=0,1", "tracker=tensorboard")
    assert ended.returncode == 0, ended.stderr
    kept = {path.stem for path in (tmp_path / "r" / "rows").iterdir()}
    assert {path.name for path in (tmp_path / "r" / "tensorboard").iterdir()} == kept
    assert len(kept) == 2


class Listed:
    """A tracker that keeps what it is given, and fails on some runs."""

    def __init__(self, place=None, fails=()):
        self.known, self.runs, self.tried, self.fails = set(), {}, [], set(fails)

    def write(self, run):
        self.tried.append(run.row["run_id"])
        if run.row["run_id"] in self.fails:
            raise OSError("a message of\ntwo lines")
        self.runs[run.row["run_id"]] = run


@pytest.fixture
def finished(tmp_path):
    """Rows of eight runs, each with a curve of two epochs."""
    ids = [f"{number:016x}" for number in range(8)]
    for id in ids:
        paths = Files(tmp_path / "r", id)
        paths.folder.mkdir(parents=True)
        paths.row.parent.mkdir(exist_ok=True)
        paths.curve.write_text("epoch,train_loss,val_loss,val_top1\n1,2.5,1.3294,0.25\n2,2.25,1.25,0.5\n")
        row = {"run_id": id, "epochs": 2, "val_loss": 1.25, "curve_digest": file_digest(paths.curve)}
        write_row(paths.row, row)
    return tmp_path / "r", ids


@pytest.mark.parametrize("length", [0, 30, 45, 50, 58, -1])
def test_a_run_whose_curve_is_damaged_is_named_and_written_when_it_is_whole_again(finished, length):
    folder, ids = finished
    tracker, path = Listed(), Files(folder, ids[1]).curve
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    with pytest.raises(trackers.NotWritten, match=rf"^7 of 8 runs written; run {ids[1]}: {path}: damaged"):
        trackers.track(tracker, folder, ids)
    assert set(tracker.runs) == {*ids} - {ids[1]}
    path.write_bytes(whole)
    assert trackers.track(tracker, folder, ids) == 1
    assert tracker.runs[ids[1]].points[0] == (1, {"train_loss": 2.5, "val_loss": 1.3294, "val_top1": 0.25})


@pytest.mark.parametrize("content", ["", "epoch,val_loss\n1,abc\n", "epoch,val_loss\n1,2,3\n", "val_loss\n0.5\n", "\0"])
def test_a_curve_older_than_its_digest_that_is_no_table_is_named(finished, content):
    folder, ids = finished
    paths = Files(folder, ids[0])
    write_row(paths.row, {"run_id": ids[0], "epochs": 2})
    paths.curve.write_text(content)
    with pytest.raises(trackers.NotWritten, match=f"^7 of 8 runs written; run {ids[0]}: {paths.curve}: damaged"):
        trackers.track(Listed(), folder, ids)


def test_a_run_without_its_curve_is_written_as_imported_rows_are(finished):
    folder, ids = finished
    Files(folder, ids[0]).curve.unlink()
    tracker = Listed()
    assert trackers.track(tracker, folder, ids) == 8
    assert [epoch for epoch, _ in tracker.runs[ids[0]].points] == [2]


def test_a_run_that_a_tracker_cannot_write_keeps_no_other_from_being_written(finished):
    folder, ids = finished
    tracker = Listed(fails=ids[2:4])
    with pytest.raises(
        trackers.NotWritten, match=rf"^6 of 8 runs written; run {ids[2]}: OSError: a message of two lines; and 1 more$"
    ):
        trackers.track(tracker, folder, ids)
    assert set(tracker.runs) == {*ids} - {*ids[2:4]}


def test_a_tracker_that_fails_on_three_runs_one_after_the_other_and_on_the_last_is_not_tried_again(finished):
    """It may take minutes each time, where a server does not answer."""
    folder, ids = finished
    tracker = Listed(fails=ids[1:])
    with pytest.raises(
        trackers.NotWritten,
        match=rf"^1 of 5 runs written; run {ids[1]}: OSError: .*; and 3 more, after which 3 were not tried$",
    ):
        trackers.track(tracker, folder, ids)
    assert tracker.tried == [*ids[:4], ids[-1]]


def test_three_runs_that_can_never_be_written_keep_no_later_one_from_the_tracker(finished):
    folder, ids = finished
    tracker = Listed(fails=ids[:4])
    for written in (4, 0):  # the second time these are neighbours, and all there is
        with pytest.raises(trackers.NotWritten, match=rf"^{written} of {written + 4} runs written; run {ids[0]}: "):
            trackers.track(tracker, folder, ids)
    assert set(tracker.runs) == {*ids[4:]}


def test_many_damaged_curves_are_no_failure_of_the_tracker(finished):
    folder, ids = finished
    for id in ids[:4]:
        Files(folder, id).curve.write_text("")
    with pytest.raises(trackers.NotWritten, match=r"^4 of 8 runs written; .*; and 3 more$"):
        trackers.track(Listed(), folder, ids)


def test_the_command_says_how_many_runs_it_wrote_and_why_not_all(finished, monkeypatch, capsys):
    folder, ids = finished
    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda place: Listed(fails=ids[2:3]))
    monkeypatch.setattr("tlprotocols.results.__main__.check", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["tlprotocols.results", "track", "wandb", str(folder)])
    with pytest.raises(SystemExit, match=f"^7 of 8 runs written; run {ids[2]}: OSError: a message of two lines$"):
        main()


def test_a_tracker_that_fails_stops_no_sweep(cfg, tmp_path, monkeypatch, capsys):
    from tlprotocols.launching import driver
    from tlprotocols.launching.local import Local

    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda place: 1 / 0)
    monkeypatch.setattr(trackers, "check", lambda name: None)
    config = cfg("layers=0", "tracker=wandb", f"results_dir={tmp_path / 'r'}")
    execute(config)
    (row,) = driver.sweep([config], Local(workers=1, gpus=1, per_gpu=1, dry_run=False, retry_failed=False))
    assert row["val_top1"] >= 0
    assert "tracker=wandb: ZeroDivisionError: division by zero; later: python -m" in capsys.readouterr().out


def test_a_tracker_that_is_not_installed_is_one_line(command, tiny, tmp_path):
    missing = next((name for name in LIBRARIES if importlib.util.find_spec(name) is None), None)
    if missing is None:
        pytest.skip("all are installed")
    ended = command("-m", *tiny, f"tracker={missing}", f"results_dir={tmp_path / 'r'}")
    assert ended.returncode == 2
    assert ended.stderr == f"tracker={missing}: needs its library: pip install 'tlprotocols[{missing}]'\n"
    assert not (tmp_path / "r").exists()


def test_a_name_tells_runs_from_bases_and_from_each_other():
    cell = {"role": "run", "layers": 5, "n_per_class": 10, "split": 0, "seed": 0}
    one, other = (trackers.Tracked(cell | {"run_id": id}, []).name for id in ("0123456789abcdef", "fedcba9876543210"))
    assert one == "layers=5 n_per_class=10 split=0 seed=0 01234567"
    assert other.endswith(" fedcba98")
    base = {"role": "base", "layers": 0, "split": 1, "target": "A", "seed": 0, "run_id": "00112233aabbccdd"}
    assert trackers.Tracked(base, []).name == "base split=1 target=A seed=0 00112233"
