"""A wheel has all that a checkout has, and works in an empty folder; a checkout works without being installed."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tlprotocols.results import load

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "conf", "hydra_plugins", "sweeps", "tlprotocols")
FILES = (*PACKAGES, "results/tiny_imagenet", "pyproject.toml", "README.md", "LICENSE")
TINY = ("epochs=1", "base.epochs=1", "base.n_per_class=2", "model.width=0.1")
NARROWED = ("dataset=glyphs", "n_per_class=10,25", "hydra.launcher.dry_run=true")
Command = Callable[..., str]
pytestmark = pytest.mark.slow


def succeeded(*line: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a command prints."""
    ended = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=cwd, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what belongs into it: a build folder of the checkout would add files that are gone."""
    copy = tmp_path_factory.mktemp("copy")
    for name in FILES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    out = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    succeeded(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", out, copy)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a virtual environment that has what this interpreter has, except for tlprotocols."""
    environment = tmp_path_factory.mktemp("environment")
    succeeded(sys.executable, "-m", "venv", "--without-pip", environment)
    links = environment / "links"
    links.mkdir()
    folders = {path for path in sys.path if path in site.getsitepackages() or path.endswith("site-packages")}
    for entry in (entry for folder in folders for entry in Path(folder).iterdir()):
        if "tlprotocols" not in entry.name and entry.suffix != ".pth" and not (links / entry.name).is_symlink():
            (links / entry.name).symlink_to(entry)
    purelib = sysconfig.get_path("purelib", vars={"base": str(environment)})
    (Path(purelib) / "links.pth").write_text(f"{links}\n")
    return environment / "bin"


@pytest.fixture(scope="module")
def installed(wheel: Path, scripts: Path) -> Path:
    """The same with the wheel."""
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--ignore-installed")  # egg-info of a checkout
    succeeded(sys.executable, "-m", "pip", "--python", scripts / "python", "install", *options, wheel)
    return scripts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty one."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def run(installed: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A command of the installed wheel in that folder, or in one below it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment.setdefault("TLPROTOCOLS_IMAGE_CACHE", str(tmp_path_factory.mktemp("cache")))

    def command(name: str, *arguments: str, below: str = "") -> str:
        return succeeded(installed / name, *arguments, cwd=folder / below, env=environment)

    return command


@pytest.fixture(scope="module")
def swept(run: Command, folder: Path) -> Path:
    """The folder after a tiny sweep."""
    assert "1 run, 1 to run, 1 base" in run("python", "-m", "tlprotocols", "-m", *TINY, "layers=4", "n_per_class=2")
    assert len(load(folder / "results")) == 1
    return folder


def test_a_wheel_has_every_file(wheel: Path) -> None:
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).glob("**/*") if path.is_file()}
    here = {str(path) for path in files if "__pycache__" not in path.parts} | {"analysis/tiny_imagenet/rows.csv"}
    assert found == {f"tlprotocols/{path}" if path.startswith("conf/") else path for path in here}


def test_help_and_analysis(run: Command, swept: Path) -> None:
    assert "GROUP=CHOICE" in run("python", "-m", "tlprotocols", "--help")
    assert "first open out/report.html" in run("python", "-m", "analysis", "--results", "results", "--out", "out")
    assert (swept / "out" / "report.html").exists()
    assert "512" in run(
        "python", "-c", "import analysis, tlprotocols.results as r; print(len(r.read_rows(analysis.EXAMPLE)))"
    )


def test_sweep_files_of_the_wheel_and_of_ones_own(run: Command, swept: Path) -> None:
    sweeps = run("python", "-c", "import sweeps; print(*sweeps.__path__)").strip()
    assert "plan: cells=32 " in run("python", "-m", "tlprotocols", "-cd", sweeps, "-cn", "fig1_layers", *NARROWED)
    assert "plan: cells=64 " in run("tlprotocols", "-cd", sweeps, "-cn", "fig1_layers", "hydra.launcher.dry_run=true")
    assert "plan: cells=64 " in run("tlprotocols-sweeps", "fig1_layers", "hydra.launcher.dry_run=true")
    (swept / "mine").mkdir()
    grid = "hydra: {sweeper: {params: {layers: '4,5', n_per_class: 2}}}\n"
    (swept / "mine" / "depth.yaml").write_text(f"defaults: [config, _self_]\n{grid}")
    planned = run("python", "-m", "tlprotocols", "-cd", "mine", "-cn", "depth", *TINY, "hydra.launcher.dry_run=true")
    assert "plan: cells=2 runs=2 finished=1 " in planned


def test_a_study(run: Command, folder: Path) -> None:
    assert "tiny_plested2019" in run("python", "-m", "sweeps", "--help")
    assert "fig6_optimal" in run("python", "-m", "sweeps", "plested2019", *NARROWED)


def test_the_commands_work_beside_modules_of_the_users_own(run: Command, swept: Path) -> None:
    (swept / "own").mkdir()
    for name in ("analysis.py", "sweeps.py"):
        (swept / "own" / name).write_text("raise SystemExit('of the user')\n")
    assert "GROUP=CHOICE" in run("tlprotocols", "--help", below="own")
    arguments = ("fig1_layers", "dataset=glyphs", "split=0", "layers=4", "n_per_class=3", *TINY)
    assert "1 run, 1 to run" in run("tlprotocols-sweeps", *arguments, "results_dir=../results", below="own")
    assert len(load(swept / "results")) == 2
    assert "first open out" in run("tlprotocols-analysis", "--results", "../results", "--out", "out", below="own")


def test_a_checkout_works_that_is_not_installed(scripts: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = succeeded(scripts / "python", "-m", "tlprotocols", "--help", cwd=tmp_path, env=environment)
    assert "GROUP=CHOICE" in printed


def test_a_gpu_machine_needs_torch_and_the_tree(
    scripts: Path, tmp_path: Path, without: Callable[..., dict[str, str]]
) -> None:
    needless = ("hydra", "omegaconf", "safetensors", "rich", "pandas", "pyarrow", "submitit", "filelock", "yaml")
    script = "import benchmarks.gpu; benchmarks.gpu.configuration()"
    succeeded(scripts / "python", "-c", script, cwd=tmp_path, env=without(*needless))
