"""Sweeps as tasks of a real Ray: the rows of hydra/launcher=local, bases first, what a dead worker costs."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Timer

import pytest
from filelock import FileLock

from tlprotocols import hardware
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.errors import ConfigError
from tlprotocols.launching import ray as backend
from tlprotocols.launching.driver import sweep
from tlprotocols.launching.local import Local
from tlprotocols.launching.ray import Ray
from tlprotocols.planning.plan import plan
from tlprotocols.records import files
from tlprotocols.results import load

MACHINES = ["seconds", "images_per_second", "date", "host", "log"]  # what may differ between equal runs


def by(address=None, per_gpu=1):
    """The backend; without an address it starts Ray on this machine."""
    return Ray(address=address, per_gpu=per_gpu, dry_run=False, retry_failed=False)


# Older versions of Ray do not wait for the processes that they start.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
# Not imported here: the backend does it, and by then has said where Ray is to listen.
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")


@pytest.fixture(scope="module")
def configs(cfg):
    return lambda folder, *cells: [cfg(f"results_dir={folder}", *cell.split()) for cell in cells]


def children():
    """The names of processes that were started from this one, however indirectly, by id."""
    parents, names = {}, {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended
            names[int(process)] = Path("/proc", process, "cmdline").read_text()
            parents[int(process)] = int(Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[1])
    mine: set[int] = {os.getpid()}
    found: set[int] = set()
    while found != mine:
        found = set(mine)
        mine |= {process for process, parent in parents.items() if parent in mine}
    return {process: names[process] for process in mine - {os.getpid()}}


def opened(process):
    """The files and sockets that a process holds."""
    found = set()
    with suppress(OSError):  # it has ended
        for entry in Path("/proc", str(process), "fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(entry))
    return found


def until(true, seconds=60):
    """Wait for what `true` returns to be true, and return it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def kill(processes):
    for process in processes:
        os.kill(process, signal.SIGKILL)


def listening(processes):
    """Where these processes listen, as the kernel writes it; loopback is 0100007F, also in a mapped address."""
    held = set().union(*map(opened, processes))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in held]


def test_without_the_package_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"hydra/launcher=ray: needs the package ray: pip install 'tlprotocols\[ray\]'"
    ):
        by().check()


@needs_ray
def test_a_cluster_that_does_not_answer_is_refused_at_once():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"hydra.launcher.address={address}: no cluster answers"):
            by(address).check()


def test_nodes_get_the_device_of_the_cluster(cfg):
    given = cfg("machine.device=auto")
    config = by().resolve(given)
    assert config.machine.device == ("cuda" if hardware.gpus() else "cpu")
    assert run_id(config) == run_id(given)


@pytest.mark.skipif(hardware.gpus() > 0, reason="for machines without a GPU")
def test_cuda_is_refused_where_no_gpu_is(cfg):
    with pytest.raises(ConfigError, match=r"machine.device=cuda: needs a GPU"):
        by().parallel([cfg("machine.device=cuda")])


@needs_ray
@pytest.mark.slow
def test_ray_writes_the_rows_of_local(configs, tmp_path):
    cells = ["layers=0", "layers=5", "layers=5 split=1", "layers=5", "layers=7 n_per_class=2"]
    one = Local(workers=1, gpus=None, per_gpu=1, dry_run=False, retry_failed=False)
    sweep(configs(tmp_path / "local", *cells), one)
    rows = sweep(configs(tmp_path / "ray", *cells), by())
    assert [row["layers"] for row in rows] == [0, 5, 5, 5, 7]
    local, other = (load(tmp_path / name, bases=True).drop(columns=MACHINES) for name in ("local", "ray"))
    assert len(local) == 6
    assert other.equals(local)
    assert not [name for name in children().values() if "raylet" in name or "ray::" in name]


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_costs_one_attempt_of_its_run(configs, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "cores", lambda: 1)
    cells = configs(tmp_path, "layers=5 seed=1", "layers=5 seed=2")
    bases = [run_id(base_of(cell)) for cell in cells]
    planned, events, addresses = plan(cells), [], []
    locks = {id: FileLock(files(planned.runs[id].config).lock) for id in bases}  # a worker waits, until it is killed

    def executing():
        return [process for process, name in children().items() if name.startswith("ray::execute")]

    def listen(what, run, detail):
        events.append((what, run.id))
        addresses.extend(listening(children()))
        if what == "retried" and run.id == bases[1]:
            locks[run.id].release()
        if what == "started" and run.id in bases and locks[run.id].is_locked:
            kill(until(executing))

    for lock in locks.values():
        Path(lock.lock_file).parent.mkdir(parents=True)
        lock.acquire()
    failed = by().execute(planned, None, listen)
    locks[bases[0]].release()
    assert {run for what, run in events if what == "retried"} >= set(bases)  # Ray may have assigned a run to a dead one
    assert set(failed) == {bases[0], run_id(cells[0])}
    assert "WorkerCrashedError: The worker died" in failed[bases[0]]
    reason = files(base_of(cells[0])).accident.read_text()
    assert failed[bases[0]] == f"{reason}; the same command tries it again"
    assert failed[run_id(cells[0])].startswith(f"blocked: its base {bases[0]} failed")
    assert [row is None for row in planned.read_rows()] == [True, False]
    assert events.index(("finished", bases[1])) < events.index(("started", run_id(cells[1])))
    assert addresses
    assert {address.rpartition(":")[0][-8:] for address in addresses} == {"0100007F"}


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(hardware.gpus() > 0, reason="pretends to have a GPU")
def test_as_many_runs_share_a_gpu_as_the_option_says(configs, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: 1)
    cells = configs(tmp_path, *(f"layers=0 machine.device=cuda seed={seed}" for seed in range(3)))
    planned, events = plan(cells), []
    locks = [FileLock(files(run.config).lock, thread_local=False) for run in planned.runs.values()]

    def release():
        for lock in locks:
            lock.release()

    def listen(what, run, detail):
        events.append(what)
        if events.count("started") == 2:
            release()

    for lock in locks:
        Path(lock.lock_file).parent.mkdir(parents=True)
        lock.acquire()
    too_late = Timer(30, release)
    too_late.start()
    failed = by(per_gpu=2).execute(planned, None, listen)
    too_late.cancel()
    assert events[:3] == ["started", "started", "failed"]
    assert len(failed) == 3  # there is none
    assert all("CUDA" in reason or "NVIDIA" in reason for reason in failed.values())


@needs_ray
@pytest.mark.slow
def test_ctrl_c_ends_the_tasks_and_keeps_what_they_saved(tiny, tmp_path):
    options = ["hydra/launcher=ray", "layers=0", "epochs=5000", "machine.checkpoint_minutes=0", "results_dir=here"]
    line, before = [sys.executable, "-m", "tlprotocols", *tiny, *options], children()
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            (checkpoint,) = until(lambda: list(tmp_path.glob("here/runs/*/checkpoint.safetensors")))
            tasks = {id: name for id, name in children().items() if id not in before}
        finally:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, _ = process.communicate(timeout=60)
    assert "stopped; run the same command again to resume" in out
    assert process.returncode != 0
    assert any(name.startswith("ray::execute") for name in tasks.values())
    until(lambda: not [process for process in tasks if Path("/proc", str(process)).exists()], seconds=10)
    assert checkpoint.exists()
    assert not list(tmp_path.glob("here/runs/*/failed.txt"))


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_there_executes_the_runs(command, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # its head listens on 127.0.0.1 only
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    options = ["hydra/launcher=ray", f"hydra.launcher.address=127.0.0.1:{port}", f"results_dir={tmp_path / 'results'}"]
    with subprocess.Popen([*head, "--include-dashboard=false"], stdout=subprocess.PIPE, text=True) as cluster:
        assert cluster.stdout is not None
        try:
            until(lambda: "Ray runtime started" in cluster.stdout.readline())
            ended = command("-m", *tiny, *options, "layers=5,6")
        finally:
            cluster.terminate()
    assert ended.returncode == 0, ended.stderr
    assert "2 cells, 2 runs, 2 to run, 1 base network first" in ended.stdout
    assert "on 1 worker" in ended.stdout
    assert len(load(tmp_path / "results")) == 2
