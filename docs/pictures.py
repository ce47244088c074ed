"""Makes the README's pictures: `python docs/pictures.py`. The terminal picture is a real run of the main job."""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from tlprotocols.images.glyphs import Glyphs

HERE = Path(__file__).parent
JOB = ["-m", "layers=4,5,6,7", "n_per_class=10,50"]


def glyph_sheet(rows: int = 8, columns: int = 24, side: int = 32) -> None:
    """Every row is one class."""
    glyphs = Glyphs()
    labels = np.linspace(40, len(glyphs.classes) - 1, rows).astype(int)
    sheet = [np.concatenate(list(glyphs.decoder("train", int(label))(side)[:columns]), axis=1) for label in labels]
    Image.fromarray(np.concatenate(sheet)).save(HERE / "glyphs.png", optimize=True)


def terminal() -> None:
    """What the main job prints, from an empty folder."""
    console = Console(record=True, width=104, file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        settings = {"TLPROTOCOLS_IMAGE_CACHE": f"{folder}/tlprotocols", "COLUMNS": "104"}
        ran = subprocess.run(
            [sys.executable, "-m", "tlprotocols", *JOB],
            cwd=folder,
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )
    console.print(Text(f"$ python -m tlprotocols {' '.join(JOB)}", style="bold"))
    console.print(Text.from_ansi(ran.stdout.replace(folder, "~/.cache")))
    console.save_svg(str(HERE / "terminal.svg"), title="tlprotocols")
    print(ran.stdout)


if __name__ == "__main__":
    glyph_sheet()
    terminal()
