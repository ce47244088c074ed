"""A SLURM cluster, a folder of images and a command line for the tests marked `slurm`."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("cluster")
CLASSES, TRAIN, VAL = 4, 400, 4


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands reach a cluster: the running one, or one started for the tests."""
    if not os.environ.get("SLURM_CONF"):
        if not shutil.which("slurmctld"):
            pytest.skip("no SLURM here; `tests/slurm/cluster start`, as root on Debian, installs and starts one")
        if os.geteuid():
            pytest.skip("SLURM does not run here, and starting it needs root")
        folder = tmp_path_factory.mktemp("cluster")
        started = subprocess.run([SCRIPT, "start", folder, "101"], capture_output=True, text=True)
        assert started.returncode == 0, started.stderr
        yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        subprocess.run([SCRIPT, "stop", folder], check=True)
    elif subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip(f"SLURM_CONF={os.environ['SLURM_CONF']}, but sinfo gets no answer")
    else:
        yield dict(os.environ)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise around a colour by class, decoded in a second."""
    return make_images(tmp_path_factory.mktemp("images"))


def make_images(root: Path) -> Path:
    """Such a tree of images."""
    noise = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("val", VAL)):
        for label in range(CLASSES):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 100, (32, 32, 3)) + 30 * np.array([label, 5 - label, label % 2])
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03}.png")
    return root


def heed_ctrl_c() -> None:
    """In a command that begins: a shell lets what it runs in the background, as these tests, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class CommandLine:
    """`python -m tlprotocols` on the small images, in a folder of its own."""

    background: "subprocess.Popen[str]"  # a command that a fixture left running

    def __init__(self, cwd: Path, images: Path, environment: dict[str, str]) -> None:
        self.cwd, self.results = cwd, cwd / "results"
        self.environment = {**environment, "PYTHONPATH": str(ROOT)}
        self.always = [
            *("-m", "dataset=folder", f"dataset.root={images}", f"machine.image_cache={images / 'store'}"),
            *("model.width=0.1", "n_per_class=5", "base.n_per_class=10", "epochs=2", "base.epochs=2"),
        ]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begin a command."""
        command = [sys.executable, "-m", "tlprotocols", *self.always, *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": heed_ctrl_c}
        return subprocess.Popen(command, cwd=self.cwd, env=self.environment, text=True, **options)  # type: ignore[call-overload,no-any-return]

    def __call__(self, *arguments: str, code: int | None = 0) -> str:
        """What a command prints."""
        process = self.start(*arguments)
        printed = process.communicate(timeout=240)[0]
        assert code is None or process.returncode == code, printed
        return str(printed)

    def slurm(self, *arguments: str, code: int | None = 0) -> str:
        """The same with hydra/launcher=slurm and jobs of a test's size."""
        return self(*SLURM, *arguments, code=code)

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout


SLURM = ("hydra/launcher=slurm", "hydra.launcher.mem_gb=2")


@pytest.fixture
def tlp(tmp_path: Path, images: Path, cluster: dict[str, str]) -> CommandLine:
    """A command line with nothing done yet."""
    return CommandLine(tmp_path, images, cluster)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
