"""The gradient of one batch: at once, or in shards that are computed side by side, one core each."""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tlprotocols.config.schema import Config
from tlprotocols.hardware import one_arena, one_thread
from tlprotocols.images.augment import normalize
from tlprotocols.randomness import stream
from tlprotocols.training.models import Network
from tlprotocols.training.transfer import freeze

LARGE = 2**23  # bytes of one layer's gradient, beyond which a thread's own arena costs more than it gains


def arithmetic(config: Config, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a forward pass has the precision of the configuration."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    if config.precision == "bf16":  # a pass uses each weight once: there is nothing to cache
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return nullcontext()


def logits(net: Network, inputs: torch.Tensor, config: Config) -> torch.Tensor:
    """float32 (B, classes) of crops, uint8 (B, pixels, pixels, 3), or of features (B, F) that were computed before."""
    pixels = None if inputs.is_floating_point() else normalize(inputs, config.dataset)
    with arithmetic(config, inputs.device):
        found = net.head(inputs) if pixels is None else net(pixels)
    return found.float()  # type: ignore[no-any-return]


class Gradient:
    """Puts the gradient of the mean loss of a batch into the `.grad` of the network's weights.

    With `config.shards` above 1 it is the same sum over the same images in parts of a batch, each in a thread of its
    own. The number of parts is a factor, the number of cores is not: parts are added in their order, so that no bit
    depends on which one ended first. A part is a replica of the network that shares its weights and has its own
    gradients and its own dropout. (Batch norm would see its part alone: with it, `config.shards` is 1.) A GPU is
    faster with whole batches, and takes them.
    """

    def __init__(self, net: Network, config: Config, device: torch.device, weights: torch.Tensor | None = None) -> None:
        """`weights` (classes,) multiply the losses of images by class; None: all are 1."""
        shards = config.shards if device.type == "cpu" else 1
        self.config = config
        self.of_class = weights
        self.draws = [torch.Generator() for _ in range(1, shards)]
        self.nets = [net, *(_replica(net, draw) for draw in self.draws)]
        self.weights: list[list[nn.Parameter]] = [[] for net in self.nets]  # that learn in this epoch
        if shards > 1 and max(weight.nbytes for weight in net.parameters() if weight.requires_grad) > LARGE:
            one_arena()
        self.threads = ThreadPoolExecutor(max(1, shards - 1), initializer=one_thread)  # begun when they are needed

    def __enter__(self) -> "Gradient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.threads.shutdown()

    def begin(self, epoch: int, number: int | None = None) -> None:
        """Training mode, the layers that learn in this epoch, and the dropout of a pass over the images, a function of
        (seed, number of the pass) alone; without a number, the pass is the epoch."""
        number = epoch if number is None else number
        torch.manual_seed(stream("dropout", self.config.seed, number))
        for shard, draw in enumerate(self.draws, 1):
            draw.manual_seed(stream("dropout", self.config.seed, number, shard))
        for net in self.nets:
            freeze(net, self.config.frozen(epoch))
            net.train()
        self.weights = [[weight for weight in net.parameters() if weight.requires_grad] for net in self.nets]

    def __call__(self, crops: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of crops (B, pixels, pixels, 3), or features (B, F), and labels (B,). Returns their mean loss, in nats, on
        the device."""
        for weight in chain.from_iterable(self.weights):
            weight.grad = None
        shards = min(len(self.nets), len(labels))  # the last batch of an epoch may have fewer images
        parts = list(zip(self.nets, crops.tensor_split(shards), labels.tensor_split(shards), strict=False))
        begun = [self.threads.submit(_backward, *part, self.config, len(labels), self.of_class) for part in parts[1:]]
        loss = _backward(*parts[0], self.config, len(labels), self.of_class)
        for weights, ended in zip(self.weights[1:], begun, strict=False):
            loss += ended.result()
            for ours, theirs in zip(self.weights[0], weights, strict=True):
                assert ours.grad is not None
                assert theirs.grad is not None
                ours.grad += theirs.grad
        return loss


def _backward(
    net: Network,
    crops: torch.Tensor,
    labels: torch.Tensor,
    config: Config,
    batch: int,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """Adds the gradient of these images' share of the mean over a batch. Returns that share of the loss."""
    found = logits(net, crops, config)
    if weights is None:
        loss = cross_entropy(found, labels) * (len(labels) / batch)
    else:  # torch's weighted mean divides by the weights in a batch, which would undo them where it has one class
        loss = cross_entropy(found, labels, weights, reduction="sum") / batch
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _replica(net: Network, draw: torch.Generator) -> Network:
    """The same network with the same weights, in the same memory, with gradients of its own and dropout from `draw`."""
    twin = copy.deepcopy(net)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        theirs.data = ours.data
    _draw_from(twin, draw)
    return twin


def _draw_from(net: nn.Module, draw: torch.Generator) -> None:
    """Let dropout and torchvision's stochastic depth draw from this generator: torch's default one is shared by all
    threads, first come first served."""
    children: dict[str, Any] = dict(net.named_children())
    for name, module in children.items():
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":  # no import of torchvision
            twin = Dropout(module.p, draw, rows=getattr(module, "mode", "") == "row")
            setattr(net, name, twin.train(module.training))
        else:
            _draw_from(module, draw)


class Dropout(nn.Module):
    """Sets units to 0 with probability `p` and divides the others by 1 - p, drawn from one generator. With `rows`, all
    units of an image together: stochastic depth."""

    def __init__(self, p: float, draw: torch.Generator, rows: bool = False) -> None:
        super().__init__()
        self.p, self.draw, self.rows = p, draw, rows

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Of any shape, an image per row; in training only."""
        if not self.training or self.p == 0:
            return units
        noise = units.new_empty((len(units), *[1] * (units.ndim - 1))) if self.rows else torch.empty_like(units)
        return units * noise.bernoulli_(1 - self.p, generator=self.draw).div_(1 - self.p)
