"""tlprotocols: sweeps of transfer learning protocols against the number of training images per class."""

__version__ = "0.2.0"
