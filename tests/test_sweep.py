"""Sweeps by real processes: each run once, the same rows however many workers, failures and kills survived."""

import dataclasses
import json
import os
import signal
from multiprocessing import active_children

import pytest
from filelock import FileLock

from tlprotocols.config.compose import composer
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.hardware import SHARED_BY, precision
from tlprotocols.images.splits import random_halves
from tlprotocols.launching import terminal, workers
from tlprotocols.launching.driver import absolute, sweep
from tlprotocols.launching.local import Local
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.records import files, read_row, save_config
from tlprotocols.results import load
from tlprotocols.training.run import execute

MACHINES = ["seconds", "images_per_second", "date", "host", "log"]  # what may differ between equal runs
CELLS = ["layers=0", "layers=5", "layers=5 split=1", "layers=5", "layers=7 n_per_class=2"]


def by(workers):
    """The local backend with so many workers."""
    return Local(workers=workers, gpus=None, per_gpu=1, dry_run=False, retry_failed=False)


@pytest.fixture(scope="module")
def configs(cfg):
    return lambda folder, cells=CELLS: [cfg(f"results_dir={folder}", *cell.split()) for cell in cells]


@pytest.fixture(scope="module")
def swept(configs, tmp_path_factory):
    """A results folder after a sweep of five cells by one worker, and what the sweep returned."""
    folder = tmp_path_factory.mktemp("one")
    return folder, sweep(configs(folder), by(1))


def numbers(folder):
    return load(folder, bases=True).drop(columns=MACHINES)


def test_paths_are_absolute_before_anything_is_planned(composed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    given = ["dataset=folder", "dataset.root=images", "machine.image_cache='~/cache'", "results_dir=here"]
    config = absolute(composed(*given, "base=dataset", "base.dataset=cifar10", "base.dataset.root=more"))
    assert config.dataset.root == f"{tmp_path}/images"
    assert config.base.dataset.root == f"{tmp_path}/more"
    assert (config.machine.image_cache, config.results_dir) == ("/home/me/cache", f"{tmp_path}/here")
    assert absolute(composed("dataset=glyphs")).dataset.root is None
    assert absolute(config) == config
    assert run_id(absolute(config)) == run_id(config)


@pytest.mark.slow
def test_every_cell_has_a_row_and_equal_cells_share_one(swept):
    folder, rows = swept
    assert [row["layers"] for row in rows] == [0, 5, 5, 5, 7]
    assert rows[1] == rows[3]
    assert len(load(folder)) == 4
    assert load(folder, bases=True)["role"].value_counts().to_dict() == {"run": 4, "base": 2}


@pytest.mark.slow
def test_runs_of_a_split_copy_from_one_base_that_a_row_names(swept):
    folder, (scratch, five, other_split, _, seven) = swept
    table = load(folder, bases=True).set_index("run_id")
    assert scratch["base_id"] is None
    assert five["base_id"] == seven["base_id"] != other_split["base_id"]
    for row in (five, other_split):
        base = table.loc[row["base_id"]]
        assert (base["role"], base["target"], base["split"]) == ("base", "A", row["split"])
        assert base["val_top1"] == row["base_top1"]
        assert base["date"] <= row["date"]


@pytest.mark.slow
def test_the_second_time_nothing_runs(swept, configs, capsys):
    folder, rows = swept
    before = {file: file.stat().st_mtime_ns for file in folder.glob("**/*")}
    assert sweep(configs(folder), by(1)) == rows
    assert {file: file.stat().st_mtime_ns for file in folder.glob("**/*")} == before
    assert "5 cells, 4 runs, 4 finished" in capsys.readouterr().out


@pytest.mark.slow
def test_runs_that_finished_in_the_precision_of_another_machine_are_named(composed, tiny, tmp_path, capsys):
    def configs(cells):
        return [composed(*tiny, f"results_dir={tmp_path}", *cell.split()) for cell in cells]

    here = precision("auto", composed(*tiny).machine)
    there = "fp32" if here == "bf16" else "bf16"
    keys, look = ("precision", "base.precision"), dataclasses.replace(by(1), dry_run=True)
    named, auto = (" ".join(f"{key}={value}" for key in keys) for value in (there, "auto"))
    scratch = "protocol=scratch"
    sweep(configs([f"{cell} {named}" for cell in (scratch, "layers=5")]), by(1))
    capsys.readouterr()

    def notes(*cells):
        sweep(configs(cells), look)
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]

    (line,) = notes(*[f"{cell} {auto}" for cell in (scratch, "layers=5", "layers=6")])
    assert f"2 runs of this sweep finished in {there}, but precision=auto is {here} here" in line
    assert named in line
    assert notes(f"layers=5 {named}", f"layers=6 {named}") == []
    assert notes(f"{scratch} {auto} seed=1", f"layers=5 precision={here} base.precision={here}") == []
    assert f"; precision={there} keeps" in notes(f"layers=5 precision=auto base.precision={there}")[0]


@pytest.mark.slow
def test_finished_runs_that_have_another_protocol_s_name_are_counted(composed, tiny, tmp_path, capsys):
    file = tmp_path / "protocol" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndefaults: [scratch, _self_]\n")
    own = composer(config_dir=str(tmp_path))
    given = [*tiny, f"results_dir={tmp_path / 'results'}"]
    sweep([composed(*given, "protocol=scratch")], by(1))
    capsys.readouterr()
    sweep([own([*given, "protocol=mine"]), own([*given, "protocol=mine", "seed=1"])], by(1))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "protocol=mine" in line]
    assert line.startswith("note: a finished run has the values of protocol=mine, and in the table the name scratch")
    sweep([own([*given, "protocol=mine", "seed=1"])], by(1))
    assert "note:" not in capsys.readouterr().out


@dataclasses.dataclass(frozen=True)
class Beside(Local):
    """As a run of this sweep starts, another command saves its own configuration of that run, or finishes it."""

    finishes: bool = False
    waits: bool = True

    def execute(self, planned, costs, on_event):
        def beside(what, run, detail):
            if what == "started":
                other = dataclasses.replace(run.config, curve=False, sweep="one")
                save_config(other)
                if self.finishes:
                    execute(other, run.role)
            on_event(what, run, detail)

        return super().execute(planned, costs, beside) if self.waits else None


@pytest.mark.slow
@pytest.mark.parametrize(("curve", "finishes"), [(True, False), (True, True), (False, True)])
def test_a_sweep_beside_another_has_its_curves_and_its_label(configs, tmp_path, curve, finishes):
    cells = [f"layers=0 curve={str(curve).lower()} sweep=two"]
    sweep(configs(tmp_path, cells), Beside(**vars(by(1)), finishes=finishes))
    table = load(tmp_path, sweep="two")
    assert len(table) == 1
    assert ("val_top1_best" in table and table["val_top1_best"].notna().all()) == curve
    assert len(load(tmp_path, sweep="one")) == finishes


@pytest.mark.slow
def test_a_sweep_that_is_not_waited_for_labels_what_was_finished(configs, tmp_path):
    sweep(configs(tmp_path, ["layers=0 sweep=one"]), by(1))
    later = configs(tmp_path, ["layers=0 sweep=two", "layers=0 seed=1 sweep=two"])
    assert sweep(later, Beside(**vars(by(1)), waits=False)) is None
    assert len(load(tmp_path, sweep="two")) == 1


@pytest.mark.slow
def test_two_workers_write_the_rows_of_one(swept, configs, tmp_path):
    sweep(configs(tmp_path), by(2))
    assert numbers(tmp_path).equals(numbers(swept[0]))


@pytest.mark.slow
def test_a_frozen_configuration_says_what_ran(swept, configs):
    folder, rows = swept
    frozen = json.loads((folder / "runs" / rows[1]["run_id"] / "config.json").read_text())
    assert (frozen["layers"], frozen["n_per_class"], frozen["precision"]) == (5, 4, "fp32")


@pytest.mark.slow
def test_what_hangs_on_a_failed_base_fails_and_nothing_else(configs, tmp_path):
    cells = configs(tmp_path, ["layers=5 seed=1", "layers=0", "layers=6 seed=1"])
    files(base_of(cells[0])).folder.mkdir(parents=True)
    (files(base_of(cells[0])).folder / "log.txt").mkdir()  # cannot be written to
    planned, events = plan(cells), []
    failed = workers.execute(planned, [None], lambda what, run, detail: events.append((what, run.id)))
    assert set(failed) == {run_id(base_of(cells[0])), run_id(cells[0]), run_id(cells[2])}
    assert failed[run_id(cells[0])].startswith(f"blocked: its base {run_id(base_of(cells[0]))} failed")
    assert ("finished", run_id(cells[1])) in events
    assert [row is None for row in planned.read_rows()] == [True, False, True]


@pytest.mark.slow
def test_a_damaged_image_found_by_a_worker_is_named_and_other_classes_runs_finish(
    composed, tiny, make_shapes, tmp_path
):
    root = make_shapes(tmp_path / "tree")
    folders = [f"machine.image_cache={tmp_path / 'store'}", f"results_dir={tmp_path / 'results'}"]
    folders.append(f"dataset.root={root}")
    halves = [composed(*tiny, *folders, "layers=0", f"target={half}") for half in "AB"]
    label = random_halves(8, 0)["A"][0]
    damaged = root / "train" / sorted(f.name for f in (root / "train").iterdir())[label] / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    bad, good = map(resolved, halves)
    planned = plan([bad, good])
    failed = workers.execute(planned, [None], lambda what, run, detail: None)  # nobody filled the store before
    assert list(failed) == [run_id(bad)]
    assert f"dataset.root={damaged}: cannot be read as an image" in failed[run_id(bad)]
    assert [row is None for row in planned.read_rows()] == [True, False]


def tell(pipe, gpu):
    """In place of a worker: what it would find."""
    pipe.send((gpu, os.environ[SHARED_BY]))


@pytest.mark.slow
def test_a_worker_is_told_how_many_share_its_gpu(monkeypatch):
    monkeypatch.setattr(workers, "serve", tell)
    pool = workers.Pool(["2", "3", "2"], lambda what, run, detail: None)
    for gpu in pool.slots:
        pool.start(gpu)
    events = [worker.pipe.recv() for worker in pool.workers]
    pool.close()
    assert events == [("2", "2"), ("3", "1"), ("2", "2")]
    assert SHARED_BY not in os.environ


def kill(processes):
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_run_goes_on(swept, configs, tmp_path):
    planned, events = plan(configs(tmp_path, ["layers=0 machine.checkpoint_minutes=0"])), []

    def listen(what, run, detail):
        events.append(what)
        if what == "advance" and events.count(what) == 1:
            kill(active_children())

    assert workers.execute(planned, [None], listen) == {}
    assert events.count("retried") == 1
    assert events[-1] == "finished"
    killed, whole = (read_row(folder / "rows" / f"{planned.cells[0]}.json") for folder in (tmp_path, swept[0]))
    assert [key for key in whole if killed[key] != whole[key] and key not in MACHINES] == []


@pytest.mark.slow
def test_what_another_process_executes_is_waited_for_after_all_else(configs, tmp_path):
    """A second command finds the first one at work, and ends with all rows; here the first one dies without its."""
    cells = configs(tmp_path, ["layers=5", "layers=0"])
    held, events = files(base_of(cells[0])), []
    held.folder.mkdir(parents=True)
    lock = FileLock(held.lock)
    lock.acquire()
    planned = plan(cells)
    assert planned.running == {held.id: "in another process"}

    def listen(what, run, detail):
        events.append((what, run.id))
        if (what, run.id) == ("finished", run_id(cells[1])):
            lock.release()

    assert workers.execute(planned, [None], listen) == {}
    assert all(planned.read_rows())
    ended = [id for what, id in events if what == "finished"]
    assert ended.index(run_id(cells[1])) < ended.index(held.id)


@pytest.mark.slow
def test_a_worker_killed_while_it_waits_is_replaced(configs, tmp_path):
    planned, events = plan(configs(tmp_path, ["layers=5", "layers=6"])), []

    def listen(what, run, detail):
        events.append(what)
        if what == "advance" and events.count(what) == 1:  # the base is trained; the second worker has nothing to do
            kill(sorted(active_children(), key=lambda process: process.pid)[1:])

    assert workers.execute(planned, [None, None], listen) == {}
    assert all(planned.read_rows())


@pytest.mark.slow
def test_a_run_that_kills_its_worker_twice_has_failed_until_the_next_command(configs, tmp_path):
    cells = configs(tmp_path, ["layers=0 seed=1", "layers=0 seed=2"])

    def listen(what, run, detail):
        if what == "started" and run.id == run_id(cells[0]):
            kill(active_children())

    planned = plan(cells)
    failed = workers.execute(planned, [None], listen)
    assert list(failed) == [run_id(cells[0])]
    assert "exit code -9" in failed[run_id(cells[0])]
    assert failed[run_id(cells[0])].startswith(files(cells[0]).accident.read_text())
    assert [run.id for run in plan(cells).to_run] == [run_id(cells[0])]
    assert [row is None for row in planned.read_rows()] == [True, False]


def test_the_table_has_a_column_of_warnings_only_where_a_run_needs_attention(configs, tmp_path):
    planned = plan(configs(tmp_path, ["layers=0", "layers=5"]))
    fine = {"val_top1": 0.5, "val_loss": 1.0, "train_loss": 1.0}
    headers = {column.header for column in terminal.table(planned, [fine, fine]).columns}
    assert "warning" not in headers
    marked = terminal.table(planned, [fine, {**fine, "diverged": True, "base_collapsed": True}])
    assert {column.header for column in marked.columns} == headers | {"warning"}
    assert [cell for cell in marked.columns[-1].cells if cell]
