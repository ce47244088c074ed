"""Decoding and nothing else, for processes that import nothing else."""

from tlprotocols.images.folders import read_images


def decode(job: tuple[list[str], int]) -> int:
    """Read these files at this side, and count them."""
    files, side = job
    return len(read_images(files, None, side))
