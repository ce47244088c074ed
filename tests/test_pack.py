"""Packs of runs and who has claimed them: what of the SLURM launcher needs no SLURM."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tlprotocols.config.compose import CONF
from tlprotocols.config.schema import Config
from tlprotocols.config.validate import read
from tlprotocols.errors import ConfigError, Stopped
from tlprotocols.launching.driver import sweep
from tlprotocols.launching.slurm import job as pack
from tlprotocols.launching.slurm import queue as scheduler
from tlprotocols.launching.slurm import submit as slurm
from tlprotocols.launching.slurm.cluster import Slurm
from tlprotocols.launching.slurm.options import Options
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.planning.plan import Run
from tlprotocols.records import Files, files
from tlprotocols.training.run import execute

OPTIONS = CONF / "hydra" / "launcher" / "slurm.yaml"


def options(**changes: object) -> dict[str, object]:
    """The values of slurm.yaml."""
    from omegaconf import OmegaConf

    return {**OmegaConf.to_container(OmegaConf.load(OPTIONS)), **changes}  # type: ignore[dict-item]


def cluster(**changes: object) -> Slurm:
    values = {key: value for key, value in options(**changes).items() if key != "_target_"}
    return Slurm(read(Options, values, "hydra.launcher."))


def runs(plain: Callable[..., Config], *seconds: float) -> tuple[list[Run], dict[str, float]]:
    made = [Run(f"run{n}", plain(), "run", None, 0, 0) for n in range(len(seconds))]
    return made, {run.id: value for run, value in zip(made, seconds, strict=True)}


def test_packs_hold_every_run_once_in_about_equal_time(plain: Callable[..., Config]) -> None:
    made, seconds = runs(plain, *[60.0] * 40, *[600.0] * 5)
    found = slurm.packs(made, seconds, workers=1, minutes=30)
    assert sorted(run.id for group in found for run in group) == sorted(seconds)
    loads = [sum(seconds[run.id] for run in group) for group in found]
    assert len(found) == 3
    assert max(loads) - min(loads) <= 60


@pytest.mark.parametrize(
    ("minutes", "workers", "count"),
    [
        pytest.param(0, 1, 6, id="a pack a run"),
        pytest.param(1, 1, 6, id="six minutes"),
        pytest.param(1, 3, 2, id="wide"),
    ],
)
def test_the_number_of_packs(plain: Callable[..., Config], minutes: float, workers: int, count: int) -> None:
    assert len(slurm.packs(*runs(plain, *[60.0] * 6), workers, minutes)) == count


def test_every_parameter_has_a_type_and_a_comment() -> None:
    lines = [line for line in OPTIONS.read_text().splitlines()[2:] if line]
    assert {line.split(":")[0] for line in lines} == {field.name for field in dataclasses.fields(Options)}
    assert all("  # " in line for line in lines)


@pytest.mark.parametrize(
    ("key", "value", "legal"),
    [
        ("time", 0, "a whole number of at least 1"),
        ("mem_gb", "much", "a number of at least 0.1"),
        ("wait", "later", "true or false"),
        ("setup", "module load", "must be a list"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(key: str, value: object, legal: str) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{key}={value}: .*{legal}"):
        cluster(**{key: value})


def test_gpus_of_the_jobs_decide_the_device(plain: Callable[..., Config]) -> None:
    assert cluster(gpus=2).resolve(plain()).machine.device == "cuda"
    assert cluster(gres="gpu:1").resolve(plain()).machine.device == "cuda"
    assert cluster().resolve(plain()).machine.device == "cpu"
    assert cluster(gpus=2, per_gpu=3).options.workers == 6


def test_no_sbatch_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="hydra/launcher=slurm: needs sbatch"):
        cluster().check()


def script(folder: Path, name: str, text: str) -> None:
    """A command of SLURM's that prints given lines."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("known", "printed", "kind"),
    [
        ("JobId=7 JobState=CANCELLED ExitCode=0:15", "", "cancelled"),
        ("JobId=7 JobState=TIMEOUT ExitCode=0:15", "", "time"),
        ("JobId=7 JobState=FAILED ExitCode=137:0", "slurmstepd: error: Exceeded job memory limit", "memory"),
        ("JobId=7 JobState=FAILED ExitCode=1:0", "slurmstepd: error: Detected 1 oom_kill event", "memory"),
        ("JobId=7 JobState=OUT_OF_MEMORY ExitCode=0:125", "", "memory"),
        ("JobId=7 JobState=NODE_FAIL ExitCode=0:0", "", "node"),
        ("", "", "unknown"),
    ],
)
def test_why_a_job_left_nothing(
    known: str, printed: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "scontrol", f'echo "{known}"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "log").write_text(printed)
    found, sentence = scheduler.why_lost(JobRecord("7", str(tmp_path / "log"), "now"))
    assert found == kind
    assert sentence.startswith("its SLURM job 7 ended without a result (")


@pytest.mark.parametrize("wait", [True, False])
def test_a_finished_sweep_submitted_again_submits_nothing_and_prints_its_table(
    wait: bool,
    cfg: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = cfg("layers=0", f"results_dir={tmp_path / 'results'}", f"machine.image_cache={tmp_path / 'store'}")
    row = execute(config)
    script(tmp_path, "srun", "exit 1")
    script(tmp_path, "sbatch", f"touch {tmp_path}/submitted; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert sweep([config], cluster(wait=wait)) == [row]
    assert not (tmp_path / "submitted").exists()
    printed = capsys.readouterr().out
    assert "1 cell, 1 run, 1 finished" in printed
    assert row["run_id"] in printed


def test_a_pack_without_its_base_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pack, "SHARED_FOLDER_LAG", 0.0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    base = Files(tmp_path, "b" * 16)
    base.folder.mkdir(parents=True)
    base.failure.write_text("Traceback\nValueError: no")
    pack.Pack(str(tmp_path), (("a" * 16, "run"),), base.id)()
    assert f"blocked: the base {base.id} is not there (ValueError: no)" in capsys.readouterr().out


def test_a_stopped_run_saves_its_state_and_goes_on(cfg: Callable[..., Config], tmp_path: Path) -> None:
    config = dataclasses.replace(cfg("layers=0", "epochs=4"), results_dir=str(tmp_path / "stopped"))
    seen: list[int] = []
    with pytest.raises(Stopped, match="after epoch 2 of 4"):
        execute(config, advance=seen.append, stop=lambda: len(seen) == 2)
    assert not files(config).row.exists()
    row = execute(config)
    assert "resumed after epoch 2" in files(config).log.read_text()
    whole = execute(dataclasses.replace(config, results_dir=str(tmp_path / "whole")))
    assert {key: row[key] for key in ("train_loss", "val_loss", "val_top1")} == {
        key: whole[key] for key in ("train_loss", "val_loss", "val_top1")
    }
    assert json.loads(files(config).row.read_text())["updates"] == whole["updates"]
