"""The learning rate of every layer at every epoch: a pure function of the configuration, and for `plateau` of the
validation losses so far.

python -m tlprotocols.lr_schedule decay_epochs=3 high_lr_layers=2 epochs=90
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

from tlprotocols.config.schema import Config
from tlprotocols.config.validate import head_epochs
from tlprotocols.errors import ConfigError, until_pipe_closes


def rate(config: Config, layer: str, epoch: int, losses: Sequence[float] = (), update: int = 0) -> float:
    """Learning rate of `layer` in `epoch` (0 is the first). `losses` are the validation losses after each epoch before,
    `update` how many updates were made before, which `updates` alone reads.

    The last `high_lr_layers` layers start at `lr.high`, the others at `lr.low`; `lr.layers` names exceptions, which
    fall with the low group. What `decay_epochs` means is not said in full by the paper (sec. 3.2 to 3.4): the five
    readings are the first five values of `schedule`. The others do not use it. `multistep` and `plateau`: all layers
    fall at the same epochs, given or found by `falls_on_plateau`. `cosine`: each falls in steps of an epoch along half
    a cosine, which would be 0 at epoch `epochs` (Loshchilov & Hutter 2017, eq. 5, without restarts). `bit`: all fall
    after 30, 60 and 90% of the epochs (Kolesnikov et al. 2020, BiT-HyperRule). `updates`: all layers fall every
    `lr.step_updates` updates, also inside an epoch (policy "step" of Caffe).

    A rate that `lr.layers` does not name is multiplied by `lr.layer_decay` once for every layer above: discriminative
    rates (Howard & Ruder 2018, sec. 3.2: 1/2.6).
    """
    lr, stages = config.lr, config.model.stages
    falls = epoch // lr.step  # of a group that falls every `step` epochs
    since = epoch - config.decay_epochs  # epochs since the high rate's first fall, negative before it
    late_falls = 0 if since < 0 else 1 + since // lr.step
    is_high = stages.index(layer) >= len(stages) - config.high_lr_layers and layer not in lr.layers
    initial = lr.high if is_high else lr.layers.get(layer, lr.low)
    below = 0 if layer in lr.layers else len(stages) - 1 - stages.index(layer)
    match config.schedule:
        case "own_clock":  # the high group falls at D, then every `step`; the low group knows nothing of D
            falls = late_falls if is_high else falls
        case "join_low":  # from D on the high group has the low group's rate
            initial = lr.low if is_high and since >= 0 else initial
        case "extra_step":  # everything falls every `step`; the high group falls once more at D
            falls += is_high and since >= 0
        case "step_all":  # everything falls every D
            falls = epoch // config.decay_epochs
        case "both":  # everything falls at D, then every `step`
            falls = late_falls
        case "multistep":
            falls = sum(epoch >= milestone for milestone in lr.milestones or ())
        case "plateau":
            falls = falls_on_plateau(losses[:epoch], lr.patience)
        case "updates":
            falls = update // lr.step_updates
        case "bit":
            falls = sum(10 * epoch >= tenths * config.epochs for tenths in (3, 6, 9))
        case "cosine":
            return initial * lr.layer_decay**below * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    return initial * lr.layer_decay**below * lr.gamma**falls


def falls_on_plateau(losses: Sequence[float], patience: int) -> int:
    """How often a rate has fallen that falls after `patience` epochs without a lower loss, then waits as long again.

    The rule of ReduceLROnPlateau in Keras with min_delta=0: lower means lower than every loss before. A loss that is
    not a number is no improvement.
    """
    lowest, waited, falls = math.inf, 0, 0
    for loss in losses:
        waited = 0 if loss < lowest else waited + 1
        lowest = min(lowest, loss) if loss == loss else lowest
        if waited == patience:
            falls, waited = falls + 1, 0
    return falls


def table(config: Config) -> dict[str, list[float]]:
    """Rates by layer, one per epoch, 0 in those in which it is frozen; layers that never learn have none."""
    config = replace(config, head_epochs=head_epochs(config.head_epochs, config.epochs))
    epochs = range(config.epochs)
    frozen, never = [config.frozen(epoch) for epoch in epochs], config.frozen()
    return {
        layer: [0.0 if layer in frozen[epoch] else rate(config, layer, epoch) for epoch in epochs]
        for layer in config.model.stages
        if layer not in never
    }


def slow_layers(config: Config) -> int:
    """How many layers that are neither copied nor frozen begin below `lr.high`."""
    new = config.model.stages[max(config.layers, config.freeze) :]
    return sum(rate(config, layer, 0) < config.lr.high for layer in new)


def main() -> None:
    """Print the table of the configuration on the command line, equal epochs folded."""
    until_pipe_closes(_main)


def _main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(f"{(__doc__ or '').strip()}\n\nOverrides are those of python -m tlprotocols; its --help lists them.")
        return
    from tlprotocols.config.compose import load

    try:
        config = load(*sys.argv[1:])
        if config.max_updates and not any(argument.startswith("epochs=") for argument in sys.argv[1:]):
            legal = "the images decide how many epochs that is; say epochs=K, as in the row of such a run"
            raise ConfigError("max_updates", config.max_updates, legal)
        if config.schedule == "updates":
            legal = f"the images decide how many epochs lr.step_updates={config.lr.step_updates} comes to"
            raise ConfigError("schedule", "updates", legal)
        rates = table(config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    rows = list(zip(*rates.values(), strict=True))
    print(" ".join(["epochs".ljust(9), *(f"{layer:>8}" for layer in rates)]))
    start = 0
    for epoch, row in enumerate(rows):
        if epoch + 1 == len(rows) or rows[epoch + 1] != row:
            print(" ".join([f"{start}-{epoch}".ljust(9), *(f"{value:8.3g}" for value in row)]))
            start = epoch + 1
    if config.schedule == "plateau":
        print(f"times {config.lr.gamma:g} whenever {config.lr.patience} epochs brought no lower val_loss")


if __name__ == "__main__":
    main()
