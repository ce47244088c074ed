"""What a plan will take: image passes over the throughput of finished runs of the same kind, or a guess."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tlprotocols.config.models import MODELS
from tlprotocols.config.schema import Config
from tlprotocols.hardware import device, device_name
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import Row, recent_rows

GUESSED_MACS = {"cpu": 50e9, "cuda": 50e12}  # multiply-adds a second of a forward pass; a training pass takes three
GUESSED_CALLS = {"cpu": 60e-6, "cuda": 120e-6}  # seconds of an update per parameter tensor, however small it is
GUESSED_HEAD = 20e3  # images a second that a last stage is trained with, on cached features
ROWS_READ = 500  # newest rows of a results folder that the throughput is taken from
OPTIONS = sorted({name for spec in MODELS.values() for name in spec.options})  # of all networks, keys of `model`
START = 4.0  # seconds until a worker process has imported torch


@dataclass(frozen=True)
class Cost:
    """Seconds of every run of a plan, and whether some of them are guessed."""

    seconds: Mapping[str, float]
    guessed: bool

    def hours(self, runs: Sequence[Run], parallel: int) -> float:
        """Time until all are done, `parallel` at a time, longest first, none before its base."""
        free, ended = [START] * max(1, min(parallel, len(runs))), dict[str, float]()
        for run in runs:  # in the order of Plan.to_run
            slot = min(range(len(free)), key=free.__getitem__)
            begun = max(free[slot], ended.get(run.base or "", 0.0))
            free[slot] = ended[run.id] = begun + self.seconds[run.id]
        return max(ended.values(), default=0.0) / 3600


def cost(plan: Plan, here: bool) -> Cost:
    """What the rest of a plan will take, each run on one worker: `here`, or on a cluster's machine, no matter which.

    The throughput is that of the newest rows in the results folder.
    """
    if not plan.to_run:
        return Cost({}, False)
    rows = [*plan.rows.values(), *recent_rows(Path(plan.to_run[0].config.results_dir).expanduser(), ROWS_READ)]
    seen: dict[tuple[object, ...], dict[str, float]] = {}
    for row in rows:
        if (row.get("images_per_second") or 0) > 0:  # a table that was imported may lack it
            seen.setdefault(_kind_of_row(row), {})[row["run_id"]] = row["images_per_second"]
    seconds, guessed, bodies = {}, False, set()
    for run in plan.to_run:
        kind = kind_of(run.config)
        name = device_name(device(run.config.machine))
        found = [by_run for (on, *other), by_run in seen.items() if tuple(other) == kind and (on == name or not here)]
        known = [rate for by_run in found for rate in by_run.values()]
        guessed |= not known
        rate = median(known) if known else guess(run.config)
        seconds[run.id] = (run.image_passes + run.evaluated / 3) / rate  # evaluated: forward only
        body = (run.base, run.config.dataset, run.config.split, run.config.target)
        if run.config.caches_features and body not in bodies:  # the first of them computes the features
            bodies.add(body)
            seconds[run.id] += run.evaluated / 3 / _guess_whole(run.config)
    return Cost(seconds, guessed)


def kind_of(config: Config) -> tuple[object, ...]:
    """Runs of one kind train at one throughput on one device: network, pixels, batch, arithmetic, layers that learn,
    shards, optimizer, whether an epoch ends with an evaluation, the last stage, whether its features are cached, and
    the network's options."""
    parts = (config.model.name, config.model.width, config.dataset.side, config.dataset.pixels, config.batch_size)
    more = (config.precision, config.freeze, config.shards, config.optimizer, config.watched)
    head = config.head and ",".join(map(str, config.head))
    options = [getattr(config.model, name) for name in OPTIONS]
    learning = (config.learn_layers, config.head_epochs, config.unfreeze_every)
    return (*parts, *more, config.dataset.upscale, head, config.caches_features, *options, *learning)


def _kind_of_row(row: Row) -> tuple[object, ...]:
    """The device of a row, and its kind."""
    keys = ("device", "model", "model.width", "dataset.side", "dataset.pixels", "batch_size", "precision", "freeze")
    later = (row.get("shards", 1), row.get("optimizer", "sgd"), row.get("val_top1_best") is not None)
    last = (row.get("dataset.upscale", 0), row.get("head"), row.get("features_cached", False))
    options = [row.get(f"model.{name}") for name in OPTIONS]
    learning = (row.get(key, 0) for key in ("learn_layers", "head_epochs", "unfreeze_every"))
    return (*(row.get(key) for key in keys), *later, *last, *options, *learning)


def guess(config: Config) -> float:
    """Images per second of a machine that has not trained this network yet."""
    return max(GUESSED_HEAD, _guess_whole(config)) if config.caches_features else _guess_whole(config)


def _guess_whole(config: Config) -> float:
    model, kind = config.model, device(config.machine)
    multiply_adds = model.spec.multiply_adds(config.dataset.input_pixels, model.width, **model.options)
    update = config.batch_size * 3 * multiply_adds / GUESSED_MACS[kind]
    return config.batch_size / (update + model.spec.tensors(**model.options) * GUESSED_CALLS[kind])
