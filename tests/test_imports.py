"""Imports point down only, and planning needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tlprotocols

PACKAGE = Path(tlprotocols.__file__).parent
MODULES = sorted(PACKAGE.glob("**/*.py"))


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_the_core_knows_neither_analysis_nor_launchers(file):
    found = {name.split(".")[0] for name in imported(file)}
    assert not found & {"analysis", "hydra_plugins", "sweeps", "benchmarks", "tests"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("config.schema", "torch numpy pandas hydra omegaconf"),
        ("results", "torch torchvision numpy pandas hydra"),
        ("images.splits", "torch torchvision pandas hydra"),
        ("config.compose", "torch torchvision numpy pandas"),
        ("config.validate", "torch torchvision numpy pandas hydra omegaconf"),
        ("launching.worker", "torch torchvision pandas hydra omegaconf"),
        ("training.run", "torchvision pandas hydra omegaconf"),
        ("planning.plan", "torch torchvision pandas"),
        ("launching.driver", "torch torchvision pandas"),
        ("lr_schedule", "torch torchvision numpy pandas"),
        ("__main__", "torch torchvision pandas"),
    ],
)
def test_what_starts_fast_imports_nothing_heavy(module, heavy):
    script = f"import sys, tlprotocols.{module}; print(*(set({heavy.split()}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_a_plan_is_made_without_torch(tiny):
    script = (
        "import sys\n"
        "from tlprotocols.config.compose import load\n"
        "from tlprotocols.planning.plan import plan, resolved\n"
        f"planned = plan([resolved(load(*{tiny}))])\n"
        "assert len(planned.to_run) == 2\n"
        "print('torch' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
