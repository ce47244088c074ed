"""What a plan will take: image passes over the rate that a machine has shown, or a guess that says so."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

from filelock import FileLock

from tlprotocols.config.schema import Config
from tlprotocols.hardware import device, device_name
from tlprotocols.planning.plan import Run
from tlprotocols.results import Row, write_aside

GUESSED_MACS = {"cpu": 50e9, "cuda": 50e12}  # multiply-adds a second of a forward pass; a training pass takes three
REMEMBERED = 20  # rates per kind of run and machine
START = 4.0  # seconds until a worker process has imported torch
Rates = dict[str, dict[str, dict[str, float]]]  # images per second by kind, name of the device, and run


def kind(config: Config) -> str:
    """Runs of one kind train at one rate on one device: network, pixels, batch, arithmetic, layers that learn,
    whether an epoch ends with an evaluation, and shards."""
    parts = (config.model.name, config.model.width, config.dataset.side, config.dataset.pixels, config.batch_size)
    learning = (f"freeze{config.freeze}", "curve" if config.curve else "no curve", f"shards{config.shards}")
    return "/".join(map(str, (*parts, config.precision, device(config.machine), *learning)))


def rates_file(config: Config) -> Path:
    """Where rates are remembered: beside the decoded images, which machines may share."""
    return Path(config.machine.store).expanduser() / "rates.json"


def remember(runs: Sequence[tuple[Config, Row]]) -> None:
    """Keep the images per second of finished runs for the next plan; a run that is there already counts once."""
    if not runs:
        return
    path = rates_file(runs[0][0])
    with suppress(OSError):  # a store that only a cluster's nodes can write to: the hours of its plans stay a guess
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # two processes take turns, so that neither's rates are lost
            known = _read(path)
            for config, row in runs:
                if row.get("device") and row.get("images_per_second"):  # not of a table that left columns out
                    seen = known.setdefault(kind(config), {}).setdefault(row["device"], {})
                    seen[row["run_id"]] = row["images_per_second"]
                    for id in list(seen)[:-REMEMBERED]:
                        del seen[id]
            write_aside(path, json.dumps(known, indent=1))


def _read(path: Path) -> Rates:
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


def cost(runs: Sequence[Run], here: bool) -> Cost:
    """What these runs will take, each on one worker: `here`, or on a machine of a cluster, no matter which."""
    if not runs:
        return Cost({}, False)
    known = _read(rates_file(runs[0].config))
    seconds, guessed = {}, False
    for run in runs:
        by_device = known.get(kind(run.config), {})
        of_ours = [by_device.get(device_name(device(run.config.machine)), {})] if here else by_device.values()
        rates = list(chain.from_iterable(seen.values() for seen in of_ours))
        guessed |= not rates
        rate = median(rates) if rates else guess(run.config)
        evaluated = run.images + run.val_images  # once, at the end, and forward only
        seconds[run.id] = (run.image_passes + evaluated / 3) / rate
    return Cost(seconds, guessed)


def guess(config: Config) -> float:
    """Images per second of a machine that has not trained this network yet."""
    pixels, width = config.dataset.pixels, config.model.width
    macs = {"alexnet": 714e6 * (pixels / 224) ** 2, "alexnet_small": 45e6 * (pixels / 32) ** 2 * width**2}
    return float(GUESSED_MACS[device(config.machine)] / (3 * macs[config.model.name]))
