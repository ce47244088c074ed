"""A SLURM cluster, a folder of images and a command line for the tests marked `slurm`."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command_line import CommandLine, make_images

SCRIPT = Path(__file__).with_name("cluster")


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
