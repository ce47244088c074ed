"""`python -m tlprotocols` as a process, on a folder of images that are decoded in a second."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
CLASSES, TRAIN, VAL = 4, 400, 4
SLURM = ("hydra/launcher=slurm", "hydra.launcher.mem_gb=2")


def make_images(root: Path, train: int = TRAIN) -> Path:
    """A tree of images: noise around a colour by class."""
    noise = np.random.default_rng(0)
    for part, count in (("train", train), ("val", VAL)):
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
        self.cwd, self.results, self.image_cache = cwd, cwd / "results", images / "store"
        self.environment = {**environment, "PYTHONPATH": str(ROOT)}
        self.always = [
            *("-m", "dataset=folder", f"dataset.root={images}", f"machine.image_cache={self.image_cache}"),
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
