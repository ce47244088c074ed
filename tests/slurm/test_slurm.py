"""The sweep on a real SLURM cluster of one machine."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import ROOT, SLURM, CommandLine
from tests.kills import ABOUT_THE_MACHINE
from tests.slurm.conftest import until
from tests.slurm.kills import disturb
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.config.schema import Config
from tlprotocols.config.validate import build
from tlprotocols.results import load

pytestmark = pytest.mark.slurm


def lines(results: Path, containing: str) -> dict[str, int]:
    """How many lines of each run's log contain a text."""
    return {log.parent.name: log.read_text().count(containing) for log in results.glob("runs/*/log.txt")}


def job_of(results: Path, run: str) -> str:
    return str(json.loads((results / "runs" / run / "job.json").read_text())["job"])


@pytest.fixture(scope="module", autouse=True)
def past_its_time(
    tmp_path_factory: pytest.TempPathFactory, images: Path, cluster: dict[str, str]
) -> Iterator[CommandLine]:
    """A run that needs longer than its job's one minute, in the background of the other tests."""
    tlp = CommandLine(tmp_path_factory.mktemp("long"), images, cluster)
    tlp("layers=0", "n_per_class=300", "epochs=10")
    rate = load(tlp.results)["seconds"][0] / 10
    epochs = int(75 / rate)
    limits = ("hydra.launcher.time=1", "hydra.launcher.warning=15", "machine.checkpoint_minutes=60")
    tlp.background = tlp.start(*SLURM, "layers=0", "n_per_class=300", f"epochs={epochs}", *limits)
    yield tlp
    if tlp.background.poll() is None:
        tlp.background.kill()
        tlp.background.communicate()
        records = tlp.results.glob("runs/*/job.json")
        tlp.ask("scancel", *(job_of(tlp.results, record.parent.name) for record in records))


def test_rows_are_those_of_the_local_launcher(tlp: CommandLine) -> None:
    sweep = ("layers=4,5", "n_per_class=5,10")
    printed = tlp.slurm(*sweep)
    tlp(*sweep, "results_dir=local")
    on_slurm, here = load(tlp.results, bases=True), load(tlp.cwd / "local", bases=True)
    assert len(on_slurm) == 5
    assert on_slurm.drop(columns=ABOUT_THE_MACHINE).equals(here.drop(columns=ABOUT_THE_MACHINE)), printed
    assert all((tlp.results / log).exists() for log in on_slurm["log"])


def test_overlapping_submissions_return_at_once_and_run_each_run_once(tlp: CommandLine) -> None:
    printed = tlp.slurm("layers=4,5", "hydra.launcher.wait=false")
    (jobs,) = re.findall(r"squeue --jobs=(\S+)", printed)
    assert "submitted 3 in 2 tasks" in printed
    assert tlp.ask("squeue", "--noheader", f"--jobs={jobs}")
    status = tlp.slurm("layers=4,5", "hydra.launcher.dry_run=true")
    assert status.count(" in job ") == 3, status
    assert "plan: cells=2 runs=2 finished=0 running=2 failed=0 to_run=0" in status
    at_once = [tlp.start(*SLURM, "layers=5,6"), tlp.start(*SLURM, "layers=6,5")]
    printed = "".join(process.communicate(timeout=240)[0] for process in at_once)
    assert printed.count("submitted 1 in 1 task of job ") == 1, printed
    assert [process.returncode for process in at_once] == [0, 0]
    until(lambda: len(load(tlp.results)) == 3)
    assert list(lines(tlp.results, "begins").values()) == [1] * 4


def test_a_cancelled_job_is_resumed_by_the_same_command(tlp: CommandLine) -> None:
    sweep = ("layers=0", "n_per_class=100", "epochs=60", "machine.checkpoint_minutes=0")
    tlp.slurm(*sweep, "hydra.launcher.wait=false")
    (folder,) = (tlp.results / "runs").iterdir()
    until(lambda: (folder / "checkpoint.safetensors").exists())
    job = job_of(tlp.results, folder.name)
    tlp.ask("scancel", job)
    until(lambda: not tlp.ask("squeue", "--noheader", f"--jobs={job}"))
    assert not (tlp.results / "rows" / f"{folder.name}.json").exists()
    tlp.slurm(*sweep)
    assert lines(tlp.results, "resumed after epoch") == {folder.name: 1}
    assert len(load(tlp.results)) == 1


def test_ctrl_c_leaves_the_jobs(tlp: CommandLine) -> None:
    process = tlp.start(*SLURM, "layers=0", "+hydra.launcher.parameters.hold=true")
    until(lambda: list(tlp.results.glob("runs/*/job.json")))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=10)[0]
    assert process.returncode == 130
    assert "the jobs go on" in printed
    (folder,) = (tlp.results / "runs").iterdir()
    job = job_of(tlp.results, folder.name)
    assert tlp.ask("squeue", "--noheader", f"--jobs={job}")
    assert "cancelled 1 jobs" in tlp.slurm("layers=0", "hydra.launcher.cancel=true")
    until(lambda: not tlp.ask("squeue", "--noheader", f"--jobs={job}"))


def test_what_sbatch_refuses_is_said_in_one_line(tlp: CommandLine) -> None:
    printed = tlp.slurm("layers=0", "hydra.launcher.partition=nowhere", code=1)
    assert "the cluster took 0 runs and no more: " in printed
    assert "invalid partition specified: nowhere" in printed
    assert "Traceback" not in printed


def test_an_array_is_cut_at_the_clusters_limit(tlp: CommandLine) -> None:
    limit = int(re.findall(r"MaxArraySize\s*=\s*(\d+)", tlp.ask("scontrol", "show", "config"))[0])
    alone = ("hydra.launcher.pack_minutes=0", "hydra.launcher.partition=closed", "hydra.launcher.wait=false")
    printed = tlp.slurm("layers=0", "seed=range(1200)", *alone)
    assert "submitted 1200 in 1200 tasks" in printed
    (jobs,) = re.findall(r"squeue --jobs=(\S+)", printed)
    queued = tlp.ask("squeue", "--noheader", "--array", "--format=%F", f"--jobs={jobs}").split()
    tlp.ask("scancel", *jobs.split(","))
    assert len(queued) == 1200
    assert max(queued.count(job) for job in set(queued)) == min(limit, 1200)


def test_a_base_that_fails_blocks_its_dependants_and_nothing_else(tlp: CommandLine) -> None:
    sweep = ("layers=0,4,5",)
    tlp.slurm(*sweep, "hydra.launcher.dry_run=true")
    copying = build_frozen(tlp, "layers=4")
    base = run_id(base_of(copying))
    (tlp.results / "runs" / base / "weights.safetensors" / "in the way").mkdir(parents=True)
    printed = tlp.slurm(*sweep, code=1)
    assert len(load(tlp.results)) == 1
    assert printed.count(f"blocked: its base {base} failed (IsADirectoryError") >= 2
    jobs = {job_of(tlp.results, config.parent.name) for config in tlp.results.glob("runs/*/config.json")}
    until(lambda: not jobs & set(tlp.ask("squeue", "--noheader", "--array", "--format=%i").split()))


def test_a_base_that_is_lost_while_runs_wait_is_trained_again_before_them(tlp: CommandLine) -> None:
    tlp.slurm("layers=4")
    (weights,) = tlp.results.glob("runs/*/weights.safetensors")
    tlp.slurm("layers=5,6", "hydra.launcher.wait=false", "+hydra.launcher.parameters.hold=true")
    jobs = {job_of(tlp.results, path.parent.name).split("_")[0] for path in tlp.results.glob("runs/*/job.json")}
    held = [job for job in jobs if "JobHeldUser" in tlp.ask("squeue", "--noheader", "--format=%r", f"--jobs={job}")]
    weights.unlink()
    status = tlp.slurm("layers=5,6", "hydra.launcher.dry_run=true")
    assert "running=2 failed=0 to_run=0 bases=1" in status, status
    process = tlp.start(*SLURM, "layers=5,6")
    until(lambda: len(list((tlp.results / "slurm").glob("*_submission.sh"))) == 4)
    for job in held:
        tlp.ask("scontrol", "release", job)
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed
    assert re.findall(r"submitted \d+", printed) == ["submitted 1"], "the queued runs waited for the new base"
    assert len(load(tlp.results)) == 3


def test_kills_change_nothing(tlp: CommandLine) -> None:
    assert disturb(tlp, kills=4) == ["command", "cancel", "requeue", "job"]


def test_a_setup_line_that_fails_is_named(tlp: CommandLine) -> None:
    printed = tlp.slurm("layers=0", "hydra.launcher.setup=[module-of-another-site load x]", code=1)
    words = "hydra.launcher.setup: this line failed: module-of-another-site load x (exit code 127"
    assert words in re.sub(r"\s+", " ", printed), printed


def build_frozen(tlp: CommandLine, *overrides: str) -> Config:
    """The configuration of a cell, as its submission froze it."""
    tlp.slurm(*overrides, "hydra.launcher.wait=false", "+hydra.launcher.parameters.hold=true")
    found = [build(json.loads(path.read_bytes())) for path in tlp.results.glob("runs/*/config.json")]
    tlp.ask("scancel", *{job_of(tlp.results, run_id(config)).split("_")[0] for config in found})
    shutil.rmtree(tlp.results)
    return next(config for config in found if config.layers)


def test_three_faults_cost_three_runs(tlp: CommandLine) -> None:
    sweep = ["layers=0", "n_per_class=5,6,7,400", "batch_size=1600", "epochs=60", "epoch_updates=0", "model.width=1"]
    sweep += ["dataset.upscale=96"]  # so that a batch of 800 images needs 1.4 GB, and one of 14 a tenth of it
    sweep += ["hydra.launcher.mem_gb=1.6", "hydra.launcher.pack_minutes=0"]
    tlp.slurm(*sweep, "hydra.launcher.wait=false", "+hydra.launcher.parameters.hold=true")
    by_n = {}
    for path in tlp.results.glob("runs/*/config.json"):
        config = build(json.loads(path.read_bytes()))
        by_n[config.n_per_class] = run_id(config)
    tlp.ask("scancel", *{job_of(tlp.results, id).split("_")[0] for id in by_n.values()})
    (tlp.results / "runs" / by_n[5] / "checkpoint.safetensors" / "in the way").mkdir(parents=True)
    process = tlp.start(*SLURM, *sweep)
    kill_workers(tlp, by_n[6], times=2)
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 1, printed
    assert load(tlp.results)["run_id"].to_list() == [by_n[7]], printed
    reasons = re.sub(r"\s+", " ", printed)
    for n, cause in ((5, "OSError"), (6, "exit code -9"), (400, "out of memory")):
        named = [line for line in reasons.split("failed ") if by_n[n] in line and cause in line]
        assert named, printed
        assert f"slurm/{job_of(tlp.results, by_n[n])}_0_log.out" in reasons
        kept = "failed.txt" if n == 400 else "interrupted.txt"  # the others may do the next time
        assert cause in (tlp.results / "runs" / by_n[n] / kept).read_text()


def kill_workers(tlp: CommandLine, run: str, times: int) -> None:
    """Send SIGKILL to the worker that has a run, and to the one that replaces it."""
    killed: set[int] = set()

    def worker() -> int | None:
        record = json.loads((tlp.results / "runs" / run / "job.json").read_text())
        return next((pid for pid in workers_of(record["job"]) if record["started"] and pid not in killed), None)

    for _ in range(times):
        until(worker)
        pid = worker()
        assert pid
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)


def workers_of(job: str) -> Iterator[int]:
    """Processes of an array task that pack.py started."""
    array, task = job.split("_")
    marks = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={task}".encode()}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            spawned = b"spawn_main" in (process / "cmdline").read_bytes()
            if spawned and marks <= set((process / "environ").read_bytes().split(b"\0")):
                yield int(process.name)


def test_editing_a_yaml_file_after_submission_changes_nothing(tlp: CommandLine, tmp_path: Path) -> None:
    for package in ("tlprotocols", "hydra_plugins", "conf"):
        shutil.copytree(ROOT / package, tmp_path / "copy" / package)
    tlp.environment["PYTHONPATH"] = str(tmp_path / "copy")
    tlp.always = [word for word in tlp.always if not word.startswith("epochs")]
    tlp.slurm("layers=0", "hydra.launcher.wait=false", "+hydra.launcher.parameters.hold=true")
    recipe = tmp_path / "copy" / "conf" / "recipe" / "training" / "small.yaml"
    was = int(re.findall(r"^epochs: (\d+)", recipe.read_text(), re.MULTILINE)[0])
    recipe.write_text(recipe.read_text().replace(f"epochs: {was}", "epochs: 1"))
    (folder,) = (tlp.results / "runs").iterdir()
    tlp.ask("scontrol", "release", job_of(tlp.results, folder.name))
    until(lambda: (tlp.results / "rows" / f"{folder.name}.json").exists())
    assert load(tlp.results)["epochs"][0] == was


def test_a_job_at_its_time_limit_is_requeued_and_finishes(past_its_time: CommandLine) -> None:
    tlp = past_its_time
    printed = tlp.background.communicate(timeout=200)[0]
    assert tlp.background.returncode == 0, printed
    table = load(tlp.results)
    row = table[table["epochs"] == table["epochs"].max()].iloc[0]
    assert lines(tlp.results, "stopped after epoch")[row["run_id"]] >= 1
    assert lines(tlp.results, "resumed after epoch")[row["run_id"]] >= 1
    state = tlp.ask("scontrol", "--oneliner", "show", "job", job_of(tlp.results, row["run_id"]))
    assert int(re.findall(r"Restarts=(\d+)", state)[0]) >= 1
