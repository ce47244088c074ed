"""Other people's plugins of Hydra, and its shell completion: they work to the end, or are refused in one line."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tlprotocols.results import load

OPTUNA = importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None


@pytest.fixture
def typed(command, tiny, tmp_path):
    """A command line of the tiny data set without transfer."""
    return lambda *more: command("-m", *tiny, "layers=0", "high_lr_layers=8", f"results_dir={tmp_path / 'r'}", *more)


def refused(ended, tmp_path):
    assert ended.returncode == 2, ended.stderr
    assert not (tmp_path / "r").exists()
    return ended.stderr.splitlines()[-1]


def test_joblib_is_refused_and_what_does_its_work_is_named(typed, tmp_path):
    ended = typed("hydra/launcher=joblib", "hydra.launcher.n_jobs=4")
    line = refused(ended, tmp_path)
    assert ended.stderr.count("\n") == 1
    assert line.startswith("hydra/launcher=joblib: does not work here; say hydra.launcher.workers=N")


@pytest.mark.skipif(OPTUNA, reason="the plugin is installed")
def test_optuna_without_its_plugin_says_what_to_install(typed, tmp_path):
    line = refused(typed("hydra/sweeper=optuna"), tmp_path)
    assert line.startswith("hydra/sweeper=optuna: needs its plugin and Optuna 2: pip install 'tlprotocols[optuna]'")


@pytest.mark.skipif(not OPTUNA, reason="needs hydra-optuna-sweeper")
@pytest.mark.slow
def test_optuna_finds_the_cell_of_the_highest_accuracy(typed, tmp_path):
    ended = typed("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "lr.high=interval(0.001,0.2)")
    assert ended.returncode == 0, ended.stderr
    table = load(tmp_path / "r")
    assert table["lr.high"].nunique() == 2
    (found,) = (tmp_path / "elsewhere" / "multirun").glob("*/*/optimization_results.yaml")
    assert f"best_value: {table['val_top1'].max()}" in found.read_text()


@pytest.mark.skipif(not OPTUNA, reason="needs hydra-optuna-sweeper")
@pytest.mark.slow
def test_optuna_cannot_choose_without_results(typed, tmp_path):
    line = refused(typed("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.launcher.dry_run=true"), tmp_path)
    assert line.startswith("hydra/sweeper=optuna: chooses by results, so it needs them at once")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("dataset=c", ["dataset=cifar10", "dataset=cifar100"]),
        ("lr.g", ["lr.gamma="]),
        ("hydra/launcher=s", ["hydra/launcher=slurm"]),
    ],
)
def test_bash_completes_factors_and_choices(typed, completed, tmp_path):
    command = Path(sys.executable).with_name("tlprotocols")
    if not command.exists():
        pytest.skip("tlprotocols is not installed here")
    line = f"tlprotocols {typed}"
    script = f"""eval "$(tlprotocols -sc install=bash)"
        COMP_LINE="{line}"; COMP_POINT={len(line)}; COMP_CWORD=1
        hydra_bash_completion; echo "${{COMPREPLY[@]}}" """
    env = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=env)
    assert ended.stdout.split() == completed, ended.stderr
