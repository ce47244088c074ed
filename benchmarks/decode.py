"""Decoding and nothing else, for processes that import nothing else."""

import numpy as np

from tlprotocols.datasets.folders import read_image


def decode(job: tuple[list[str], int]) -> int:
    """Read these files at this side, and count them."""
    files, side = job
    return len(np.stack([read_image(file, side) for file in files]))
