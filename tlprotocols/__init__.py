"""tlprotocols: sweeps of transfer learning protocols against the number of training images per class."""

from importlib.metadata import version

__version__ = version("tlprotocols")
