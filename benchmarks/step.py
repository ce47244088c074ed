"""Training images/s against the sum of the network's bare convolutions and matrix products, one thread.

The limit does every convolution and every product of a step (forward, gradient of the weights, and gradient of the
data where some layer below learns) with operands that lie ready in the same shape, precision and memory format, and
nothing else: no data, no pooling, no ReLU, no bias, no loss, no update, no Python but a loop.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.tables import Row, Tables
from benchmarks.timing import alternating, ratio
from tlprotocols.config.compose import load
from tlprotocols.config.schema import Config
from tlprotocols.hardware import one_thread, processor_has_bf16
from tlprotocols.training import models, optimizers
from tlprotocols.training.loop import Images, fit

NETS = {  # name: overrides, classes
    "alexnet_small, glyphs 32 px": (["dataset=glyphs", "layers=0"], 500),
    "alexnet_small of width 1, glyphs 32 px": (["dataset=glyphs", "layers=0", "model.width=1"], 500),
    "alexnet_small, Tiny ImageNet 56 px": (["dataset=tiny_imagenet", "layers=0"], 50),
    "alexnet 64 px": (["dataset=imagenet", "layers=0", "dataset.pixels=64", "dataset.side=72", "batch_size=32"], 100),
}
LARGE = {"alexnet 224 px": (["dataset=imagenet", "layers=0", "batch_size=32"], 500)}
TOP = 10  # operators of the profile


def measure(full: bool = False, *, root: str | None = None, nets: tuple[str, ...] = (), steps: int = 0) -> Tables:
    """The share of the limit that training reaches, and where the rest goes."""
    one_thread()
    chosen = {name: net for name, net in (NETS | (LARGE if full else {})).items() if not nets or name in nets}
    precisions = ("bf16", "fp32") if processor_has_bf16() else ("fp32",)
    rows = [_share(name, p, steps, 9 if full else 5) for name in chosen for p in precisions]
    small, best = next(iter(chosen)), precisions[0]
    return {
        "step: share of the limit set by bare convolutions and matrix products": rows,
        f"step: where the time of {small} in {best} goes": _profile(small, best, steps),
    }


def _share(name: str, precision: str, steps: int, repetitions: int) -> Row:
    config, classes = _config(name, precision)
    steps = steps or (2 if config.model.name == "alexnet" else 25 if config.model.width < 1 else 5)
    epochs, bare = _training(config, classes, steps), _bare(config, classes)

    def limit() -> None:
        for _ in range(steps):
            for kernel in bare:
                kernel()

    times = alternating({"ours": lambda: next(epochs), "limit": limit}, repetitions)
    images = steps * config.batch_size
    found = {way: images / sorted(seconds)[len(seconds) // 2] for way, seconds in times.items()}
    return {
        "network": name,
        "batch": config.batch_size,
        "precision": precision,
        "limit images/s": found["limit"],
        "ours images/s": found["ours"],
        "share": round(ratio(times, "limit", "ours"), 3),
    }


def _config(name: str, precision: str) -> tuple[Config, int]:
    overrides, classes = (NETS | LARGE)[name]
    return load(*overrides, f"precision={precision}", "epochs=1000000"), classes


def _training(config: Config, classes: int, steps: int) -> Iterator[object]:
    """Epochs of `steps` batches of random images."""
    draw = torch.Generator().manual_seed(0)
    count, side = steps * config.batch_size, config.dataset.side
    stored = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=draw)
    labels = torch.randint(0, classes, (count,), generator=draw)
    net = models.build(config, classes).to(memory_format=torch.channels_last)
    images = Images(stored, np.arange(count), labels, torch.device("cpu"))
    return fit(net, optimizers.optimizer(net, config), config, images)


def _bare(config: Config, classes: int) -> list[Callable[[], object]]:
    """One call per convolution and matrix product of a step."""
    kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
    net = models.build(config, classes).to(memory_format=torch.channels_last)
    sizes: list[tuple[nn.Module, torch.Size, torch.Size]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        sizes.append((module, inputs[0].shape, output.shape))

    for stage in net.stages.values():
        stage.register_forward_hook(note)
    net(torch.zeros(config.batch_size, 3, config.dataset.pixels, config.dataset.pixels))
    return [kernel for place, size in enumerate(sizes) for kernel in _kernels(*size, kind, below=place > 0)]


def _kernels(
    module: nn.Module, inputs: torch.Size, outputs: torch.Size, kind: torch.dtype, below: bool
) -> Iterator[Callable[[], object]]:
    shape: dict[str, Any] = {"memory_format": torch.channels_last} if len(inputs) == 4 else {}
    assert isinstance(module, nn.Conv2d | nn.Linear)
    weight = module.weight.detach().to(kind)
    into, out = (torch.randn(size).to(kind).contiguous(**shape) for size in (inputs, outputs))
    if isinstance(module, nn.Linear):
        yield lambda: torch.mm(into, weight.t())
        yield lambda: torch.mm(out.t(), into)
        if below:
            yield lambda: torch.mm(out, weight)
        return
    at: Any = (module.stride, module.padding, module.dilation)
    mask = [below, True, False]
    yield lambda: torch.conv2d(into, weight, None, *at)
    yield lambda: torch.ops.aten.convolution_backward(out, into, weight, None, *at, False, [0, 0], 1, mask)


def _profile(name: str, precision: str, steps: int) -> list[Row]:
    config, classes = _config(name, precision)
    epochs = _training(config, classes, steps or 25)
    next(epochs)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        next(epochs)
    found = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total, count = sum(event.self_cpu_time_total for event in found), steps or 25
    named = [(event.key, event.self_cpu_time_total, event.count) for event in found[:TOP]]
    rest = (f"{len(found) - TOP} others", *(sum(numbers) for numbers in zip(*_numbers(found[TOP:]), strict=True)))
    return [
        {
            "operator": key,
            "share": round(time / total, 3),
            "microseconds a step": time / count,
            "calls a step": n // count,
        }
        for key, time, n in [*named, rest]
    ]


def _numbers(events: Any) -> list[tuple[float, int]]:
    return [(event.self_cpu_time_total, event.count) for event in events]
