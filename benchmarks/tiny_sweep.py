"""The main job as in `sweep`, on Tiny ImageNet: at the quick size with four epochs, which train no network well.

With so few epochs the luck of the one base network moves all accuracies of a column: it draws other numbers in the two
programs. Compare those of the full size.
"""

import tempfile

from benchmarks.sweep import Job, compared
from benchmarks.tables import Tables

EPOCHS = 4  # at the quick size


def measure(full: bool = False, *, root: str | None = None, repetitions: int = 3) -> Tables:
    """Seconds of whole command lines; nothing without `root`."""
    if root is None:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        return compared(Job(scratch, root=root, epochs=None if full else EPOCHS), repetitions)
