"""The networks: a file per family, imported when one of it is built."""

import importlib

from tlprotocols.config.schema import Config
from tlprotocols.training.models.network import Network

__all__ = ["Network", "build"]


def build(config: Config, classes: int) -> Network:
    """The network of a configuration, freshly initialised from torch's default generator."""
    spec = config.model.spec
    family = importlib.import_module(f"tlprotocols.training.models.{spec.family}")
    network: Network = getattr(family, "network" if spec.parts else config.model.name)(config, classes)
    return network
