"""The networks, and the stages of one: what `layers`, `freeze` and `high_lr_layers` count.

python -m tlprotocols.models             # the networks
python -m tlprotocols.models resnet50    # its stages
"""

import sys

from tlprotocols.config.models import MODELS, ModelSpec
from tlprotocols.errors import ConfigError, until_pipe_closes


def listing() -> list[str]:
    """A line per network."""
    title = f"{'model':20}{'stages':>7} {'pixels':>9}  least to most side of an input"
    return [title, *(f"{name:20}{len(spec.stages):7} {_range(spec):>9}" for name, spec in MODELS.items())]


def stages(name: str) -> list[str]:
    """A line per stage of a network, with what it is in torchvision's.

    Raises:
        ConfigError: there is no such network.
    """
    if name not in MODELS:
        raise ConfigError("model", name, f"must be one of {', '.join(MODELS)}")
    spec = MODELS[name]
    lines = [f"{n:3}  {stage:16}{spec.parts.get(stage, '')}".rstrip() for n, stage in enumerate(spec.stages, 1)]
    return [f"{name}: {_range(spec)} pixels; {spec.stages[-1]} is always new", *lines]


def _range(spec: ModelSpec) -> str:
    least, most = spec.pixels
    return f"{least}" if least == most else f"{least}-{most}"


def main() -> None:
    """Print the stages of the network on the command line, or the networks."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    try:
        print("\n".join(stages(sys.argv[1]) if len(sys.argv) > 1 else listing()))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    until_pipe_closes(main)
