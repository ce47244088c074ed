"""What a plan will take: image passes over the rate that this machine has shown, or a guess that says so."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tlprotocols.hardware import device
from tlprotocols.plan import Run
from tlprotocols.results import Row, write_aside
from tlprotocols.schema import Config

GUESSED_MACS = {"cpu": 50e9, "cuda": 50e12}  # multiply-adds a second of a forward pass; a training pass takes three
REMEMBERED = 20  # rates per kind of run
START = 4.0  # seconds until a worker process has imported torch


def kind(config: Config) -> str:
    """Runs of one kind train at one rate: network, pixels, batch, arithmetic, device, share of layers that learn."""
    parts = (config.model.name, config.model.width, config.dataset.side, config.dataset.pixels, config.batch_size)
    return "/".join(map(str, (*parts, config.precision, device(config.machine), f"freeze{config.freeze}")))


def rates_file(config: Config) -> Path:
    """Where this machine remembers its rates: beside the decoded images."""
    return Path(config.machine.store).expanduser() / "rates.json"


def remember(runs: Sequence[tuple[Config, Row]]) -> None:
    """Keep the images per second of finished runs for the next plan."""
    if not runs:
        return
    path = rates_file(runs[0][0])
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = defaultdict(list, _read(path))
    for config, row in runs:
        seen[kind(config)] = [*seen[kind(config)], row["images_per_second"]][-REMEMBERED:]
    write_aside(path, json.dumps(seen, indent=1))


def _read(path: Path) -> dict[str, list[float]]:
    return json.loads(path.read_text()) if path.exists() else {}


@dataclass(frozen=True)
class Cost:
    """Seconds of every run of a plan, and whether some of them are guessed."""

    seconds: Mapping[str, float]
    guessed: bool

    def hours(self, runs: Sequence[Run], slots: int) -> float:
        """Time until all are done on `slots` workers, longest first, none before its base."""
        free, ended = [START] * max(1, min(slots, len(runs))), dict[str, float]()
        for run in runs:  # in the order of Plan.to_run
            slot = min(range(len(free)), key=free.__getitem__)
            begun = max(free[slot], ended.get(run.base or "", 0.0))
            free[slot] = ended[run.id] = begun + self.seconds[run.id]
        return max(ended.values(), default=0.0) / 3600


def cost(runs: Sequence[Run]) -> Cost:
    """What these runs will take, each on one worker."""
    if not runs:
        return Cost({}, False)
    known = _read(rates_file(runs[0].config))
    seconds, guessed = {}, False
    for run in runs:
        rates = known.get(kind(run.config))
        guessed |= rates is None
        rate = median(rates) if rates else guess(run.config)
        evaluated = run.images + run.val_images  # once, at the end, and forward only
        seconds[run.id] = (run.image_passes + evaluated / 3) / rate
    return Cost(seconds, guessed)


def guess(config: Config) -> float:
    """Images per second of a machine that has not trained this network yet."""
    pixels, width = config.dataset.pixels, config.model.width
    macs = {"alexnet": 714e6 * (pixels / 224) ** 2, "alexnet_small": 45e6 * (pixels / 32) ** 2 * width**2}
    return float(GUESSED_MACS[device(config.machine)] / (3 * macs[config.model.name]))
