"""AlexNet on one GPU: images/s by batch, arithmetic and mode, real crops, several runs at once, and a run's own time.

python -m benchmarks.gpu [--out FILE] [--minutes 8.5]

Needs torch, torchvision and numpy, but no Hydra. One call measures everything, the most important first; a cell that
fails prints its error and the rest goes on; what the time is not enough for is named as skipped. Without CUDA a small
CPU size runs.

A row's setting is `worker`, in which the package trains: one host thread, deterministic algorithms, no cuDNN benchmark;
or `free`: the fastest algorithms that cuDNN finds by trying, which is what the machine could do.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from tlprotocols.config.schema import Config
from tlprotocols.config.validate import build
from tlprotocols.hardware import one_thread
from tlprotocols.images.augment import crop_and_flip, normalize, train_draws
from tlprotocols.training import models, optimizers
from tlprotocols.training.loop import Images, evaluate, fit
from tlprotocols.training.shards import arithmetic

Row = dict[str, Any]
Window = tuple[int, float, float]  # images, and from when to when a process trained on them
PEAK = 790e12  # bf16 operations a second, as measured on an H200; notes on the model are in `roofline`
BANDWIDTH = 4.3e12  # bytes a second
STEP_FLOP = 4.132e9  # of training on one image: three times forward, less conv1's gradient of its input
ACTIVATION_BYTES, PARAMETER_BYTES = 14.1e6, 2.24e9  # an image; a step; both in bf16
STUDY = (
    4 * 640_000 * 90 + 1000 * 6_000_000
)  # image passes: four bases of half of ILSVRC, a thousand runs, 6 M on average


# A copy of what conf/ says, held equal to it by a test. To read conf/ itself takes Hydra's composition (defaults lists,
# interpolations) and a YAML parser, and a machine that has torch alone has neither; a file written from conf/ would be
# a copy too, which nobody can read beside the numbers that it explains.
def configuration(batch: int = 128, precision: str = "bf16", epochs: int = 90, pixels: int = 224) -> Config:
    """`load("dataset=imagenet", "layers=0")`, without Hydra."""
    recipe = {
        **{"epochs": epochs, "batch_size": batch, "shards": 1, "momentum": 0.9, "weight_decay": 1e-4, "dropout": 0.5},
        **{"augment": "crop_flip", "precision": precision},
    }
    decay = {"high": 0.01, "step": 30, "gamma": 0.1}
    protocol = {"layers": 0, "freeze": 0, "freeze_random": False, "high_lr_layers": 1, "decay_epochs": 5}
    data = {
        **{"name": "imagenet", "root": None, "download": False, "side": pixels * 8 // 7, "pixels": pixels, "pad": 0},
        **{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "val_per_class": 50, "fingerprint": ""},
    }
    return build(
        {
            **recipe,
            **protocol,
            **{"n_per_class": 10, "subset": "first", "split": 0, "target": "B", "seed": 0, "schedule": "own_clock"},
            "lr": {**decay, "low": 0.001, "layers": {}},
            "dataset": data,
            "model": {"name": "alexnet", "width": 1},
            "base": {**recipe, "name": "trained", "n_per_class": "full", "lr": decay},
            "classes": {"name": "random", "source": None, "target": None},
            "machine": {"device": "auto", "image_cache": "~/.cache/tlprotocols", "checkpoint_minutes": 5},
            **{"curve": False, "results_dir": "results"},
        }
    )


def roofline(batch: int) -> float:
    """Images/s in bf16 if products ran at PEAK and everything else at BANDWIDTH, one after the other, on an H200."""
    seconds = batch * STEP_FLOP / PEAK + batch * ACTIVATION_BYTES / BANDWIDTH + PARAMETER_BYTES / BANDWIDTH
    return batch / seconds


@dataclass
class Bench:
    """What is measured, with the time that is left for it."""

    device: torch.device
    deadline: float
    classes: int = 500
    pixels: int = 224
    seconds: float = 1.5  # of a timed cell
    rows: dict[str, list[Row]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def cell(self, table: str, name: Row, work: Callable[[], Row], needs: float = 5.0) -> None:
        """Measure one cell, if the time is enough; whatever happens, go on."""
        if time.monotonic() + needs > self.deadline:
            self.skipped.append(f"{table} {name}: no time left")
            return
        begun = time.monotonic()
        if self.device.type == "cuda":
            gc.collect()  # what the cell before left in cycles would count as this one's memory
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            row = name | work()
        except Exception as error:
            row = name | {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
            traceback.print_exc()
        self.rows.setdefault(table, []).append(row)
        print(f"{table}: {json.dumps(row)} ({time.monotonic() - begun:.1f} s)", flush=True)

    def left(self) -> float:
        """Seconds that one cell may still take."""
        return max(10.0, min(120.0, self.deadline - time.monotonic()))

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def rate(self, step: Callable[[], object], images: int) -> float:
        """Images/s of a step of so many images: the median of five stretches."""
        for _ in range(5 if self.device.type == "cuda" else 1):
            step()
        self.wait()
        begun = time.perf_counter()
        step()
        self.wait()
        count = max(1, int(self.seconds / 5 / (time.perf_counter() - begun)))
        found = []
        for _ in range(5):
            begun = time.perf_counter()
            for _ in range(count):
                step()
            self.wait()
            found.append(count * images / (time.perf_counter() - begun))
        return sorted(found)[2]

    def images(self, count: int, on_device: bool = True) -> Images:
        """Random images with random labels."""
        side = self.pixels * 8 // 7
        where = self.device if on_device else torch.device("cpu")
        stored = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, device=where)
        labels = torch.randint(0, self.classes, (count,), device=where)
        return Images(stored, np.arange(count), labels, self.device, resident=on_device)


def settle(setting: str) -> None:
    """Make this process compute as our workers do; if `free`, with whatever algorithms are the fastest."""
    one_thread()
    torch.backends.cudnn.benchmark = setting == "free"
    if setting == "free":
        torch.use_deterministic_algorithms(False)


def prepared(bench: Bench, config: Config, setting: str = "worker") -> tuple[models.Network, torch.optim.Optimizer]:
    """A network and its optimizer on the device."""
    settle(setting)
    torch.manual_seed(0)
    net = models.build(config, bench.classes).to(bench.device).to(memory_format=torch.channels_last)
    return net.train(), optimizers.optimizer(net, config)


def synthetic(bench: Bench, batch: int, precision: str, mode: str, setting: str = "free") -> Row:
    """Training steps on one batch that lies on the device: eager, captured as a CUDA graph, or compiled."""
    config = configuration(batch, precision, pixels=bench.pixels)
    net, sgd = prepared(bench, config, setting)
    pixels = torch.randn(batch, 3, bench.pixels, bench.pixels, device=bench.device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, bench.classes, (batch,), device=bench.device)
    forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(net) if mode == "compiled" else net

    def step() -> None:
        with arithmetic(config, bench.device):
            logits = forward(pixels)
        loss = cross_entropy(logits.float(), labels)
        sgd.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()

    work: Callable[[], object] = _captured(step, sgd) if mode == "graph" else step
    rate = bench.rate(work, batch)
    row: Row = {"images/s": round(rate)}
    if bench.device.type == "cuda":
        if precision == "bf16":  # nothing measured says how fast the other products could be
            row |= {"share of bf16 roofline": round(rate / roofline(batch), 3)}
        row |= {"GiB": round(torch.cuda.max_memory_allocated() / 2**30, 1)}
    return row


def _captured(step: Callable[[], None], sgd: torch.optim.Optimizer) -> Callable[[], None]:
    """The step as a CUDA graph."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    sgd.zero_grad(set_to_none=True)  # so that backward writes new gradients into the graph's memory, adding to none
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def real(bench: Bench, batch: int, precision: str, where: str, count: int = 16384) -> Row:
    """Our own training loop, with crops and flips: images resident on the device, or in pinned host memory."""
    if where == "host":
        count = min(count, 8192)
    config = configuration(batch, precision, epochs=10**6, pixels=bench.pixels)
    net, sgd = prepared(bench, config)
    count = max(batch, count // batch * batch)
    epochs = fit(net, sgd, config, bench.images(count, on_device=where == "device"))
    next(epochs)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        next(epochs)  # reads the loss, hence waits
        times.append(time.perf_counter() - begun)
    return {"images/s": round(count / sorted(times)[1])}


def preparation(bench: Bench, batch: int) -> Row:
    """Gather, crop, flip and normalise alone."""
    settle("worker")
    config, images = configuration(batch, pixels=bench.pixels), bench.images(4 * batch)
    draws = train_draws(config, 0, images.rows).to(bench.device)
    places = torch.randperm(len(images), device=bench.device)

    def prepare() -> None:
        normalize(crop_and_flip(images[places[:batch]][0], draws[slice(0, batch)], config.dataset), config.dataset)

    return {"images/s": round(bench.rate(prepare, batch))}


def determinism(bench: Bench, batch: int) -> Row:
    """What our workers' repeatable algorithms cost: the same steps in both settings, one right after the other."""
    free, worker = (synthetic(bench, batch, "bf16", "eager", setting)["images/s"] for setting in ("free", "worker"))
    return {"free images/s": free, "worker images/s": worker, "share": round(worker / free, 3)}


def split(bench: Bench, n: int = 10, epochs: int = 90, val: int = 50) -> Row:
    """Where the time of a run with n images per class goes: every part once, training from a few of its epochs."""
    parts: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        bench.wait()
        parts[name] = time.perf_counter() - begun
        return result

    line = [sys.executable, "-c", "import torch; torch.cuda.is_available() and torch.zeros(1, device='cuda')"]
    timed("start: import torch, open the device", lambda: subprocess.run(line, check=True, timeout=120))
    config = replace(configuration(256, "bf16", pixels=bench.pixels), epochs=10**6)
    net, sgd = timed("network", lambda: prepared(bench, config))
    host = bench.images(n * bench.classes, on_device=False)
    train = timed("images to the device", host.on_device)
    epochs_done = fit(net, sgd, config, train)
    timed("first epoch, with first calls", lambda: next(epochs_done))
    some = 3
    timed("training", lambda: [next(epochs_done) for _ in range(some)])
    parts["training"] *= (epochs - 1) / some
    tested = bench.images(min(val * bench.classes, 4096))
    evaluate(net, config, tested)  # its first calls would be multiplied
    timed("evaluation", lambda: evaluate(net, config, tested))
    parts["evaluation"] *= (val + n) * bench.classes / len(tested)
    return {name: round(seconds, 3) for name, seconds in parts.items()} | {"sum, s": round(sum(parts.values()), 2)}


def together(
    bench: Bench, runs: int, batch: int, precision: str = "bf16", count: int = 2048, seconds: float = 8.0
) -> Row:
    """Images/s of several processes on one device, each training on its own, that begin when all are ready."""
    context, limit = get_context("spawn"), bench.left()
    arguments = str(bench.device), bench.pixels, batch, precision, count, seconds
    with context.Pool(runs, _meet, (context.Barrier(runs, timeout=limit),)) as pool:
        return combined(pool.starmap_async(one, [arguments] * runs, chunksize=1).get(limit))


def combined(windows: list[Window]) -> Row:
    """What the runs reach together, and in which share of the whole time all of them trained: below 0.9 it is no sum
    of rates of one time."""
    rates = [images / (end - begin) for images, begin, end in windows]
    _, begins, ends = zip(*windows, strict=True)
    shared = max(0.0, min(ends) - max(begins)) / (max(ends) - min(begins))
    return {"images/s": round(sum(rates)), "of each": [round(rate) for rate in rates], "time shared": round(shared, 3)}


GATE: list[Barrier] = []  # of a process of `together`: can be given to a process only when that begins


def _meet(gate: Barrier) -> None:
    GATE.append(gate)


def one(device: str, pixels: int, batch: int, precision: str, count: int, seconds: float) -> Window:
    """One of the processes of `together`."""
    bench = Bench(torch.device(device), time.monotonic() + 600, pixels=pixels)
    config = configuration(batch, precision, epochs=10**6, pixels=pixels)
    net, sgd = prepared(bench, config)
    count = max(batch, count // batch * batch)
    epochs = fit(net, sgd, config, bench.images(count))
    next(epochs)
    GATE[0].wait()
    done, begun = 0, time.monotonic()  # one clock for all processes
    while time.monotonic() - begun < seconds:
        next(epochs)
        done += count
    return done, begun, time.monotonic()


def compiled(bench: Bench, batch: int, precision: str) -> Row:
    """The compiled step, in a process of its own that can be given up."""
    line = [sys.executable, "-m", "benchmarks.gpu", "--compiled", json.dumps([batch, precision, bench.pixels])]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=bench.left())
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip().splitlines()[-1])
    row: Row = json.loads(ended.stdout.splitlines()[-1])
    return row


def run(bench: Bench) -> None:
    """All cells, the most important first."""
    if bench.device.type == "cpu":
        _small(bench)
        return
    for batch in (256, 128, 1024):
        _synthetic(bench, batch, "bf16", "eager", "worker")
        _real(bench, batch, "bf16")
        for mode in ("eager", "graph"):
            _synthetic(bench, batch, "bf16", mode, "free")
    cell: Row = {"batch": 256, "setting": "worker"}
    bench.cell("preparation alone", cell, partial(preparation, bench, 256))
    bench.cell("an n=10 run, s", {"epochs": 90, "setting": "worker"}, partial(split, bench), 30)
    _real(bench, 256, "bf16", "host")
    for batch in (128, 256):
        bench.cell("determinism", {"batch": batch}, partial(determinism, bench, batch), 10)
    for runs in (1, 2, 4):
        cell = {"runs": runs, "batch": 128, "setting": "worker"}
        bench.cell("runs per GPU", cell, partial(together, bench, runs, 128), 30 + 5 * runs)
    for precision in ("tf32", "fp32"):
        for batch in (256, 128, 1024):
            for mode in ("eager", "graph"):
                _synthetic(bench, batch, precision, mode, "free")
    for precision, batch in (("bf16", 128), ("bf16", 256), ("bf16", 1024), ("tf32", 256), ("fp32", 256)):
        _compiled(bench, batch, precision)
    for precision in ("tf32", "fp32"):
        for batch in (256, 128, 1024):
            _synthetic(bench, batch, precision, "eager", "worker")
            _real(bench, batch, precision)
    for precision in ("tf32", "fp32"):
        for batch in (128, 1024):
            _compiled(bench, batch, precision)


def _compiled(bench: Bench, batch: int, precision: str) -> None:
    cell = {"batch": batch, "arithmetic": precision, "mode": "compiled", "setting": "free"}
    bench.cell("synthetic", cell, partial(compiled, bench, batch, precision), 60)


def _synthetic(bench: Bench, batch: int, precision: str, mode: str, setting: str) -> None:
    cell = {"batch": batch, "arithmetic": precision, "mode": mode, "setting": setting}
    bench.cell("synthetic", cell, partial(synthetic, bench, batch, precision, mode, setting), 8)


def _real(bench: Bench, batch: int, precision: str, where: str = "device", count: int = 16384) -> None:
    cell = {"batch": batch, "arithmetic": precision, "images": where, "setting": "worker"}
    bench.cell("real", cell, partial(real, bench, batch, precision, where, count), 15)


def _small(bench: Bench) -> None:
    """What a CPU can do of it in a few seconds."""
    for precision in ("fp32", "bf16"):
        for setting in ("free", "worker"):
            _synthetic(bench, 8, precision, "eager", setting)
        _real(bench, 8, precision, count=16)
    bench.cell("preparation alone", {"batch": 32, "setting": "worker"}, partial(preparation, bench, 32))
    bench.cell("an n=10 run, s", {"epochs": 1, "setting": "worker"}, partial(split, bench, 1, 1, 1), 0)
    bench.skipped += [
        f"{what}: needs CUDA"
        for what in (
            "224 pixels and batches of 128 to 1024",
            "graph and compiled",
            "runs per GPU",
            "tf32",
            "determinism",
        )
    ]


def conclusions(bench: Bench) -> Iterator[str]:
    """The bars, and the hours of the paper's study."""

    def found(table: str, **where: object) -> float | None:
        rows = (row for row in bench.rows.get(table, ()) if all(row.get(key) == value for key, value in where.items()))
        return next((row["images/s"] for row in rows if "images/s" in row), None)

    for precision, batch in product(("bf16", "tf32", "fp32"), (128, 256, 1024)):
        ours = found("real", batch=batch, arithmetic=precision, images="device")
        for setting in ("worker", "free"):
            made = found("synthetic", batch=batch, arithmetic=precision, mode="eager", setting=setting)
            if made and ours:
                said = f"{ours:,} images/s with crops and flips, {ours / made:.1%}"
                yield f"batch {batch}, {precision}, setting worker: {said} of synthetic eager in setting {setting}"
    if bench.device.type == "cuda" and (ours := found("real", batch=256, arithmetic="bf16", images="device")):
        yield f"a study of {STUDY:.3g} image passes (four bases, a thousand runs): {STUDY / ours / 3600:.1f} hours"


def printed(rows: list[Row]) -> Iterator[str]:
    """A table in plain text."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([f"{row.get(key, '')}" for key in keys] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(keys))]
    for line in cells:
        yield "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))


def measured(minutes: float, pixels: int | None = None, seconds: float = 1.5) -> Bench:
    """Everything that there is time for."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if where.type == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # as our workers have it, before the first product
    size: Row = {"pixels": pixels or 224} if where.type == "cuda" else {"pixels": pixels or 112, "classes": 20}
    bench = Bench(where, time.monotonic() + 60 * minutes, seconds=seconds, **size)
    run(bench)
    return bench


def measure(full: bool = False, *, root: str | None = None, minutes: float = 8.5, pixels: int | None = None) -> Any:
    """For `python -m benchmarks`: tables by title."""
    bench = measured(minutes, pixels, seconds=1.5 if torch.cuda.is_available() else 0.2)
    tables = {f"gpu ({bench.device.type}, {bench.pixels} px): {name}": rows for name, rows in bench.rows.items()}
    if bench.skipped:
        tables["gpu: skipped"] = [{"what": what} for what in bench.skipped]
    keys = {title: list(dict.fromkeys(key for row in rows for key in row)) for title, rows in tables.items()}
    return {title: [{key: row.get(key) for key in keys[title]} for row in rows] for title, rows in tables.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", help="file for the numbers, as JSON")
    parser.add_argument("--minutes", type=float, default=8.5, help="when to stop")
    parser.add_argument("--compiled", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compiled:
        batch, precision, pixels = json.loads(args.compiled)
        bench = Bench(torch.device("cuda"), time.monotonic() + 600, pixels=pixels)
        print(json.dumps(synthetic(bench, batch, precision, "compiled")))
        return
    bench = measured(args.minutes)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else f"CPU, {os.cpu_count()} cores"
    print(f"\n{name}, torch {torch.__version__}, {bench.pixels} px, {bench.classes} classes")
    for table, rows in bench.rows.items():
        print(f"\n{table}\n" + "\n".join(printed(rows)))
    said = list(conclusions(bench))
    print("\n" + "\n".join([*said, *(f"skipped: {what}" for what in bench.skipped)]))
    if args.out:
        content = {"machine": name, "torch": torch.__version__, "pixels": bench.pixels, "tables": bench.rows}
        Path(args.out).write_text(json.dumps(content | {"said": said, "skipped": bench.skipped}, indent=1))


if __name__ == "__main__":
    main()
