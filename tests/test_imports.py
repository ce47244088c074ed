"""The order of the house: every import stays in its room or points to a lower floor. What must start fast, or run
where Hydra is not, imports nothing heavy."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.structure import circles, code_lines, floors, graph, imports, modules, retired, room
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.config.schema import Config
from tlprotocols.records import files, save_config

ROOT = Path(__file__).parents[1]
FLOORS = (  # from the top; rooms of one floor do not know each other
    ("analysis", "sweeps", "benchmarks", "tlprotocols.recommend"),
    ("tlprotocols.__main__", "hydra_plugins"),
    ("tlprotocols.launching", "tlprotocols.searching", "tlprotocols.predict"),
    ("tlprotocols.planning", "tlprotocols.training"),
    ("tlprotocols.migrate",),
    ("tlprotocols.results",),
    ("tlprotocols.images",),
    ("tlprotocols.records",),
    ("tlprotocols.budget",),
    ("tlprotocols.lr_schedule", "tlprotocols.hardware", "tlprotocols.processes", "tlprotocols.models"),
    ("tlprotocols.config",),
    ("tlprotocols.disk",),
    ("tlprotocols.errors", "tlprotocols.randomness"),
    ("tlprotocols",),  # its version
)
INSIDE = {  # the same order between the modules of a room
    "tlprotocols.config": (
        ("help",),
        ("compose", "studies"),
        ("identity", "protocols"),
        ("validate",),
        ("checks",),
        ("schema",),
        ("models",),
    ),
    "tlprotocols.launching": (
        ("driver",),
        ("local", "slurm", "ray", "terminal"),
        ("workers",),
        ("ready",),
        ("backend", "worker"),
    ),
}
MODULES = modules(ROOT, ("tlprotocols", "hydra_plugins", "analysis", "sweeps", "benchmarks"))
EDGES = graph(MODULES)


def floor(name: str, order: tuple[tuple[str, ...], ...]) -> int:
    """How far below the top."""
    found = [number for number, names in enumerate(order) if name in names]
    assert found, f"give {name} a floor in {__file__}"
    return found[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_stay_in_their_room_or_point_down(module: str) -> None:
    here = room(module)
    for target in EDGES[module]:
        there = room(target)
        assert here == there or floor(here, FLOORS) < floor(there, FLOORS), f"{module} imports {target}"


@pytest.mark.parametrize("here", INSIDE)
def test_imports_inside_a_room_point_down(here: str) -> None:
    def inside(module: str) -> str:
        return module.removeprefix(f"{here}.").split(".")[0]

    for module in (module for module in MODULES if module.startswith(f"{here}.")):
        for target in (target for target in EDGES[module] if target.startswith(f"{here}.")):
            source, into = inside(module), inside(target)
            down = source == into or floor(source, INSIDE[here]) < floor(into, INSIDE[here])
            assert down, f"{module} imports {target}"


def test_imports_are_absolute() -> None:
    assert [name for file in MODULES.values() for name in imports(file) if name.startswith(".")] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """A package may choose among its own files inside a function, and they may import what the package defines."""
    assert circles(graph(MODULES, deferred=False)) == []
    outward = {a: {b for b in targets if not b.startswith(f"{a}.")} for a, targets in EDGES.items()}
    assert circles(outward) == []


def test_only_one_module_of_the_analysis_names_the_studies() -> None:
    studies = {module.split(".")[1] for module in MODULES if module.startswith("analysis.") and module.count(".") > 1}
    assert studies
    for module in (module for module in MODULES if module.startswith("analysis.") and module != "analysis.studies"):
        own = module.split(".")[1]
        named = {target.split(".")[1] for target in EDGES[module] if target.startswith("analysis.")} & studies
        assert named <= {own}, module


def test_the_structure_of_a_tree_is_measured(tmp_path: Path) -> None:
    package = tmp_path / "tlprotocols"
    package.mkdir()
    (package / "__init__.py").write_text('"""Nothing."""\n')
    (package / "a.py").write_text('"""Two\nlines."""\n\nfrom tlprotocols import b  # first\n\n# second\nasked = b\n')
    (package / "b.py").write_text("from tlprotocols.c import listen_closely\n")
    (package / "c.py").write_text("def listen_closely():\n    import tlprotocols.b\n")
    found = modules(tmp_path)
    edges = graph(found)
    assert edges["tlprotocols.a"] == {"tlprotocols.b"}
    assert circles(edges) == ["tlprotocols.b = tlprotocols.c"]
    assert circles(graph(found, deferred=False)) == []
    assert (floors(edges), floors(graph(found, deferred=False))) == (2, 3)
    assert code_lines(found["tlprotocols.a"].read_text()) == 2
    assert retired(found) == {"asked": 1, "listen": 1}
    line = [sys.executable, "-m", "benchmarks.structure", str(tmp_path)]
    printed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "imports: 3 between modules, 3 between rooms" in printed


HEAVY = "hydra omegaconf pandas torchvision"
DRIVING = "tlprotocols.launching.driver tlprotocols.launching.terminal tlprotocols.launching.local"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("config.schema", f"{HEAVY} torch numpy"),
        ("results", "torch torchvision numpy pandas hydra"),
        ("images.splits", "torch torchvision pandas hydra"),
        ("config.compose", "torch torchvision numpy pandas"),
        ("config.validate", f"{HEAVY} torch numpy"),
        ("launching.worker", f"{HEAVY} torch {DRIVING}"),
        ("launching.slurm.job", f"{HEAVY} torch submitit {DRIVING}"),
        ("training.run", HEAVY),
        ("planning.plan", "torch torchvision pandas"),
        ("launching.driver", "torch torchvision pandas"),
        ("lr_schedule", "torch torchvision numpy pandas"),
        ("__main__", "torch torchvision pandas"),
    ],
)
def test_what_starts_fast_imports_nothing_heavy(module: str, heavy: str) -> None:
    script = f"import sys, tlprotocols.{module}; print(*(set({heavy.split()}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


@pytest.mark.slow
def test_a_slurm_task_trains_where_hydra_cannot_be_imported(
    cfg: Callable[..., Config], tmp_path: Path, without: Callable[..., dict[str, str]]
) -> None:
    config = replace(cfg("layers=4"), results_dir=str(tmp_path))
    base = base_of(config)
    assert base
    pack = []
    for one, role in ((replace(base, results_dir=str(tmp_path)), "base"), (config, "run")):
        save_config(one)
        pack.append((run_id(one), role))
    script = (
        "import sys\n"
        "from tlprotocols.launching.slurm.job import Pack\n"
        "if __name__ == '__main__':\n"
        f"    for one in {pack}: Pack({str(tmp_path)!r}, (one,))()\n"
        f"    print(*({{*{DRIVING.split()}, 'submitit', 'rich'}} & set(sys.modules)), file=sys.stderr)\n"
    )
    (tmp_path / "task.py").write_text(script)
    environment = {**without("hydra", "omegaconf"), "SLURM_CPUS_PER_TASK": "1"}
    line = [sys.executable, str(tmp_path / "task.py")]
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=240)
    assert (ended.returncode, ended.stderr.split()) == (0, []), ended
    assert files(config).row.exists(), ended.stdout


def test_what_is_hidden_cannot_be_imported(without: Callable[..., dict[str, str]]) -> None:
    line = [sys.executable, "-c", "import hydra"]
    assert subprocess.run(line, env=without("hydra"), capture_output=True).returncode == 1
    assert subprocess.run(line, env=dict(os.environ), capture_output=True).returncode == 0


def test_a_plan_is_made_without_torch(tiny: list[str]) -> None:
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
