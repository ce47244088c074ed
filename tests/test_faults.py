"""Damaged files, full disks, killed processes: what happened is named, what is finished stays, the rest goes on."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tlprotocols import records
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.disk import check_folder
from tlprotocols.errors import ConfigError, Damaged
from tlprotocols.images.cache import ImageCache
from tlprotocols.launching import driver
from tlprotocols.launching.local import Local
from tlprotocols.launching.ready import Queue
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.launching.worker import attempt
from tlprotocols.planning.cost import cost
from tlprotocols.planning.plan import plan
from tlprotocols.records import files, read_config, read_row, save_config, write_atomic
from tlprotocols.results import load
from tlprotocols.training import checkpoints, models, optimizers, run, transfer
from tlprotocols.training.checkpoints import State

DEEP = "[" * 100_000  # more than Python's parser nests
AGAIN = "the same command tries it again"


@pytest.fixture(scope="module")
def finished(cfg, tmp_path_factory):
    """A results folder with a base, a run that copied from it, and a run without transfer."""
    folder = tmp_path_factory.mktemp("finished")
    config = cfg(f"results_dir={folder}", "layers=5")
    run.execute(base_of(config), role="base")
    run.execute(config)
    run.execute(cfg(f"results_dir={folder}", "layers=0"))
    return folder


@pytest.fixture
def results(finished, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(finished, tmp_path / "results")


def put(path, content):
    """Something in the place of a file: a text, a folder, a pipe, or a link to nowhere."""
    if path.exists():
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    match content:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(path.parent / "nowhere")
        case _:
            path.write_text(content)


def edited(**values):
    """A change of a row: these values in it, None for those that go."""

    def change(row):
        return {key: value for key, value in (row | values).items() if value is not None}

    return change


DAMAGE = {
    "empty": "",
    "cut off": '{"run_id": "0123',
    "a list": "[]",
    "nothing": "null",
    "nested": DEEP,
    "a folder": "folder",
    "a pipe": "pipe",
    "only an id": lambda row: {"run_id": row["run_id"]},
    "without result": edited(val_top1=None),
    "a word as accuracy": edited(val_top1="high"),
    "a word as throughput": edited(images_per_second="fast"),
    "a word as seed": edited(seed="first"),
    "lists as values": lambda row: {key: [value] for key, value in row.items()} | {"run_id": row["run_id"]},
    "a factor gone": edited(momentum=None),
    "another run": edited(run_id="0" * 16),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_row_is_named_and_its_run_alone_is_unfinished(cfg, results, caplog, damage):
    whole, config = (cfg(f"results_dir={results}", layers) for layers in ("layers=0", "layers=5"))
    path = files(config).row
    put(path, damage if isinstance(damage, str) else json.dumps(damage(read_row(path))))
    planned = plan([whole, config])
    cost(planned, here=True)
    assert [run.id for run in planned.to_run] == [run_id(config)]
    assert len(load(results)) <= 2  # a row that lacks a factor is still a row for those who only read
    assert f"{path}: no result (" in caplog.text
    if damage not in ("folder", "pipe"):
        assert run.execute(config)["val_top1"] == read_row(path)["val_top1"]


def test_a_row_with_another_digit_is_not_what_was_written(cfg, results, caplog):
    config = cfg(f"results_dir={results}", "layers=5")
    path = files(config).row
    text = path.read_text()
    loss = json.dumps(read_row(path)["val_loss"])
    digit = loss.index(".") + 2
    other = f"{loss[:digit]}{(int(loss[digit]) + 1) % 10}{loss[digit + 1 :]}"
    path.write_text(text.replace(f'"val_loss": {loss}', f'"val_loss": {other}'))
    assert path.read_text() != text
    assert [run.id for run in plan([config]).to_run] == [run_id(config)]
    assert f"{path}: no result (it is not what was written: its digest differs)" in caplog.text
    assert run.execute(config)["val_loss"] == json.loads(loss)
    undated = json.loads(text)
    assert undated.pop("row_digest")
    path.write_text(json.dumps(undated))  # older than the digest
    assert read_row(path) == undated


@pytest.mark.parametrize("content", ["", "folder", "pipe", "link", "[1]"])
@pytest.mark.parametrize("name", ["README.md", "stray.json"])
def test_stray_files_among_the_rows_stop_nothing(cfg, results, name, content):
    put(results / "rows" / name, content)
    planned = plan([cfg(f"results_dir={results}", cell) for cell in ("layers=0", "layers=5", "layers=3")])
    cost(planned, here=True)
    assert len(planned.to_run) == 1
    assert len(load(results, bases=True)) == 3


@pytest.mark.parametrize("content", ["", "[]", "null", DEEP, "folder", "pipe", '{"layers": 1}'])
def test_a_damaged_saved_configuration_is_named_and_written_anew(cfg, results, content):
    config = cfg(f"results_dir={results}", "layers=5")
    put(files(config).config, content)
    with pytest.raises(Damaged, match=f"{files(config).config}: does not describe run {run_id(config)}"):
        read_config(files(config))
    if content != "folder":
        save_config(config)
        assert run_id(read_config(files(config))) == run_id(config)


@pytest.mark.parametrize("content", ["", "[]", DEEP, "pipe", '{"job": 1}'])
def test_a_damaged_record_of_a_job_is_named_and_ignored(tmp_path, caplog, content):
    paths = records.Files(tmp_path, "0" * 16)
    assert JobRecord.read(paths) is None
    put(paths.folder / "job.json", content)
    assert JobRecord.read(paths) is None
    assert f"{paths.folder / 'job.json'}: no record of a job" in caplog.text


@pytest.mark.parametrize("content", ["", "\udcff", "folder", "pipe"])
def test_an_unreadable_reason_of_a_failure_is_still_a_failure(cfg, results, content):
    config = cfg(f"results_dir={results}", "layers=3")
    path = files(config).failure
    put(path, content) if content != "\udcff" else (put(path, ""), path.write_bytes(b"\xff"))
    assert list(plan([config]).failures) == [run_id(config)]


@pytest.mark.parametrize("content", [DEEP, "pipe", "[]"])
def test_a_damaged_index_of_the_image_cache_is_no_index(cfg, tmp_path, content):
    config = cfg(f"machine.image_cache={tmp_path}")
    cache = ImageCache.of(config)
    cache.ensure({("train", 0)}, workers=1)
    assert ImageCache.of(config).missing({("train", 0)}) == []
    put(cache.folder / "done.json", content)
    assert ImageCache.of(config).missing({("train", 0)}) == [("train", 0)]


def test_weights_that_are_a_folder_are_no_weights(cfg, results):
    config = cfg(f"results_dir={results}", "layers=3")
    put(files(base_of(config)).weights, "folder")
    assert [run.role for run in plan([config]).to_run] == ["base", "run"]


@pytest.mark.parametrize(("saved", "loaded"), [("model.width=0.2", "model.width=0.1"), ("freeze=0", "freeze=2")])
def test_a_whole_checkpoint_of_another_training_begins_it_again(cfg, tmp_path, saved, loaded):
    """Its digest is right and it says that it is this run's: as after a change of the code that kept the id."""
    path, trainings = tmp_path / "checkpoint.safetensors", []
    for overrides in (saved, loaded):
        config = cfg("layers=5", overrides)
        net = models.build(config, 4)
        transfer.freeze(net, config.frozen())
        trainings.append((net, optimizers.optimizer(net, config)))
    net, optimizer = trainings[0]
    for weight in net.parameters():
        weight.grad = weight.detach()
    optimizer.step()
    checkpoints.save_state(path, net, optimizer, State(done=1), "me")
    net, optimizer = trainings[1]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = checkpoints.load_state(path, net, optimizer, "me")
    assert (state.done, path.exists()) == (0, False)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


ERRORS = {
    OSError(errno.EIO, "Input/output error"): True,
    PermissionError(errno.EACCES, "Permission denied"): True,
    MemoryError(): True,
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"): True,
    ConfigError("dataset.root", "/data", "these images changed"): True,
    Damaged("weights are gone"): True,
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"): False,
    ValueError("a bug"): False,
    FloatingPointError("a bug"): False,
}


@pytest.mark.parametrize(("error", "passing"), ERRORS.items(), ids=map(repr, ERRORS))
def test_only_a_runs_own_error_keeps_it_from_being_tried_again(cfg, tmp_path, monkeypatch, error, passing):
    config = cfg(f"results_dir={tmp_path}", "layers=5")
    base = base_of(config)
    files(base).folder.mkdir(parents=True)

    def execute(*_):
        raise error

    monkeypatch.setattr(run, "execute", execute)
    reason = attempt(base, "base", lambda images: None)
    assert reason.startswith(f"{type(error).__name__}: {error}")
    assert (AGAIN in reason) is passing
    planned = plan([config])
    assert [run.role for run in planned.to_run] == (["base", "run"] if passing else [])
    assert bool(planned.failures) is not passing
    kept = files(base).accident if passing else files(base).failure
    assert "Traceback" in kept.read_text()
    assert driver.logs(planned.runs[run_id(base)]) == [str(kept)]


def test_after_weights_were_damaged_the_same_command_trains_the_base_again(cfg, results):
    config = cfg(f"results_dir={results}", "layers=3")
    files(base_of(config)).weights.write_bytes(b"damaged")
    reason = attempt(config, "run", lambda images: None)
    assert "the base's weights are damaged" in reason
    assert reason.endswith(f"the same command trains it again; {AGAIN}")
    assert [run.role for run in plan([config]).to_run] == ["base", "run"]


def test_a_finished_run_leaves_no_reason_and_no_temporary_file(cfg, tmp_path):
    config = cfg(f"results_dir={tmp_path}", "layers=0")
    paths = files(config)
    put(paths.accident, "OSError")
    put(paths.row.with_name(f".{paths.row.name}.999999"), "half of a row")
    put(paths.folder / ".checkpoint.safetensors.999999", "half of a checkpoint")
    run.execute(config)
    assert not paths.accident.exists()
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "row.json"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write_atomic(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("row.json", "old")]


def test_a_launcher_outlives_a_full_disk_while_it_records_a_death(cfg, tmp_path, monkeypatch):
    planned = plan([cfg(f"results_dir={tmp_path}", "layers=0")])
    queue = Queue(planned, lambda what, run, detail: None)
    (run,) = planned.to_run
    monkeypatch.setattr(os, "fsync", full)
    assert queue.lose(run, "killed") == ("retried", "killed")
    assert queue.lose(run, "killed") == ("failed", f"killed; {AGAIN}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def backend(dry_run):
    return Local(workers=1, gpus=None, per_gpu=1, dry_run=dry_run, retry_failed=False)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("/dev/null", "/dev/null is no folder"),
        ("/dev/null/below", "/dev/null is no folder"),
        ("{tmp}/" + 300 * "x", "is too long: a name has 255 bytes at most"),
        ("{tmp}/" + 2000 * "x/", "is too long: .* a path 3800"),
        ("/proc/results", r"/proc cannot be written to \(it keeps no files\)"),
    ],
)
def test_a_results_folder_that_cannot_be_is_refused_in_a_line(cfg, tmp_path, place, why, dry_run):
    config = cfg(f"results_dir={place.format(tmp=tmp_path)}", "layers=0")
    with pytest.raises(ConfigError, match=f"^results_dir=.*{why}"):
        driver.sweep([config], backend(dry_run))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("place", ["/dev/null", "/proc/cache"])
def test_an_image_cache_that_cannot_be_is_refused_in_a_line(cfg, tmp_path, place, dry_run):
    config = cfg(f"results_dir={tmp_path / 'results'}", f"machine.image_cache={place}", "layers=0")
    with pytest.raises(ConfigError, match=rf"^machine.image_cache={place}: /\w+"):
        driver.sweep([config], backend(dry_run))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(path):
    """Write a file until there is no more room."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))


@pytest.mark.slow
def test_a_sweep_on_a_full_and_on_a_read_only_disk(command, tiny, small_disk):
    """What does not fit fails by no fault of its own; when there is room the same command finishes."""
    line = ["-m", *tiny, f"results_dir={small_disk / 'results'}", "layers=5", "hydra.launcher.workers=1"]
    (small_disk / "fill").write_bytes(bytes(40_000))
    ended = command(*line)  # the weights of the base do not fit
    assert (ended.returncode, ended.stderr) == (1, "1 of 1 cells have no result: see the reasons above\n")
    assert f"No space left on device: '{small_disk}" in ended.stdout
    assert [path for path in small_disk.rglob(".*") if path.is_file()] == []
    fill(small_disk / "more")
    ended = command(*line)  # not even the configurations fit
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "No space left on device; finished runs are kept, the same command goes on" in ended.stderr
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ConfigError, match="cannot be written to \\(Read-only file system\\)"):
        check_folder("results_dir", small_disk / "results", write=True)
    subprocess.run(["mount", "-o", "remount,rw,size=4m", small_disk], check=True)
    assert command(*line).returncode == 0


STUCK = """
import sys, time
from multiprocessing import active_children
from tlprotocols.launching import worker, workers

def stuck(gpu):
    while True:  # as an epoch of an hour
        sum(range(1000))

def serve(pipe, gpu):
    worker.prepare = stuck
    worker.serve(pipe, gpu)

if __name__ == "__main__":
    workers.serve = serve
    pool = workers.Pool([None, None], print)
    for slot in pool.slots:
        pool.start(slot)
    print(*(process.pid for process in active_children()), flush=True)
    time.sleep(1000)
"""
DECODING = """
import os, sys, time
from tlprotocols.images import cache

def slow(side):
    print(os.getpid(), flush=True)
    while True:
        sum(range(1000))

class Slow(cache.ImageCache):
    def _task(self, part, label):
        return slow, 16, None, None, 0

if __name__ == "__main__":
    for job in Slow(None, None)._decoded([("train", 0), ("train", 1)], workers=2):
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [STUCK, DECODING], ids=["training", "decoding"])
def test_the_processes_of_a_killed_launcher_end_at_once_whatever_they_compute(tmp_path, script):
    (tmp_path / "launcher.py").write_text(script)
    with subprocess.Popen([sys.executable, tmp_path / "launcher.py"], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        children = [int(word) for word in launcher.stdout.readline().split()]
        while len(children) < 2:
            children.append(int(launcher.stdout.readline()))
        time.sleep(0.5 if script is DECODING else 5)  # until the workers compute
        assert all(map(is_alive, children))
        launcher.kill()
    end = time.monotonic() + 20
    while alive := [child for child in children if is_alive(child)]:
        if time.monotonic() > end:
            for child in alive:
                os.kill(child, signal.SIGKILL)
            pytest.fail("they outlive their launcher")
        time.sleep(0.1)


def is_alive(child):
    """Running, and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
