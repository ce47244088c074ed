"""Learning and measuring. The loop is a generator that neither logs nor saves: its caller does."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from tlprotocols.budget import images_of_epoch, passes_of_epoch, updates
from tlprotocols.config.schema import Config, Dataset
from tlprotocols.hardware import SHARED_BY
from tlprotocols.images.augment import Draws, centre_draws, crop_and_flip, train_draws
from tlprotocols.randomness import stream
from tlprotocols.training.models import Network
from tlprotocols.training.models.network import CHUNK
from tlprotocols.training.optimizers import pull_to_start, set_rates
from tlprotocols.training.shards import Gradient, logits

EVALUATED_AT_ONCE = 512  # images; large enough for full speed, small enough for the cache
CUT_AT_ONCE = 2**21  # bytes of images; they stay in the cache
MOVED_AT_ONCE = 4096  # images


@dataclass(frozen=True)
class Images:
    """The images of one part that a run uses, or what the last stage of a network gets of them."""

    stored: torch.Tensor  # uint8 (N, side, side, 3), or features (N, F): the whole part, usually mapped from a cache
    rows: np.ndarray  # int64 (n,): which of them
    labels: torch.Tensor  # int64 (n,): unit of the last layer
    device: torch.device
    resident: bool = False  # `stored` holds these n images alone, and lies with `labels` on the device

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, side, side, 3), or features, and labels (B,) at these places (an index into `labels`), on the
        device."""
        if self.resident:
            return self.stored[which], self.labels[which]
        rows = torch.from_numpy(self.rows)[which]
        if self.device.type == "cpu":
            return self.stored.index_select(0, rows), self.labels[which]
        images = torch.empty((len(rows), *self.stored.shape[1:]), dtype=self.stored.dtype, pin_memory=True)
        torch.index_select(self.stored, 0, rows, out=images)
        pair = images, self.labels[which].pin_memory()
        return pair[0].to(self.device, non_blocking=True), pair[1].to(self.device, non_blocking=True)

    def on_device(self) -> "Images":
        """The same images on their device, if its memory has room for them and the network."""
        size = len(self) * self.stored[0].nbytes
        if self.device.type == "cpu" or size > _gpu_memory_budget(self.device):
            return self
        there = torch.empty((len(self), *self.stored.shape[1:]), dtype=self.stored.dtype, device=self.device)
        for start in range(0, len(self), MOVED_AT_ONCE):
            rows = torch.from_numpy(self.rows[start : start + MOVED_AT_ONCE])
            there[start : start + len(rows)] = self.stored.index_select(0, rows).to(self.device)
        return Images(there, self.rows, self.labels.to(self.device), self.device, resident=True)


def _gpu_memory_budget(device: torch.device) -> int:
    """Bytes on a GPU that the images of one part may take."""
    held = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    return memory_budget(*torch.cuda.mem_get_info(device), *held, int(os.environ.get(SHARED_BY, "1")))


def memory_budget(free: int, total: int, reserved: int, allocated: int, workers: int) -> int:
    """Half of the bytes that this process can still get from a GPU, so that the network has as much.

    What PyTorch keeps of an earlier run (`reserved` and not `allocated`) counts as free. Of the `total`, each worker of
    the GPU has an equal share, since two that look at once would both take what is `free`.
    """
    return max(0, min(free + reserved - allocated, total // workers - allocated) // 2)


@dataclass(frozen=True)
class Score:
    """What an evaluation finds: mean loss in nats, share of right answers, and the answers themselves (N,)."""

    loss: float
    top1: float
    right: np.ndarray


def fit(
    net: Network, optimizer: Optimizer, config: Config, train: Images, *, done: int = 0, losses: Sequence[float] = ()
) -> Iterator[tuple[int, float]]:
    """Learn, one epoch at a time, after the `done` ones. Yields (epochs done, mean training loss of the epoch).

    Order, crops and dropout of a pass over the images are functions of (seed, number of the pass) alone, so that
    stopping between two epochs and going on in another process changes no bit. An epoch is one pass, or with
    `epoch_updates` perhaps several; with `max_updates` the last epoch is the beginning of one. Stops early if the loss
    is no longer a number. `losses` are the validation losses of the epochs so far, to which the caller appends:
    `schedule=plateau` looks at them.
    """
    weights = class_weights(train.labels).to(train.device) if config.class_weights == "balanced" else None
    with Gradient(net, config, train.device, weights) as learn:
        for epoch in range(done, config.epochs):
            set_rates(optimizer, config, epoch, losses)
            total = torch.zeros((), device=train.device)  # read once an epoch: no waiting for the device before
            made = count(updates(config, len(train), epoch))
            for number, images in passes_of_epoch(config, len(train), epoch):
                learn.begin(epoch, number)
                for crops, labels in _batches(train, number, images, config):
                    update = next(made)
                    if config.schedule == "updates":  # the only one whose rates change inside an epoch
                        set_rates(optimizer, config, epoch, losses, update)
                    loss = learn(crops, labels)
                    if config.l2_sp:
                        pull_to_start(optimizer, config.l2_sp)
                    optimizer.step()
                    total.add_(loss, alpha=len(labels))
            mean = total.item() / images_of_epoch(config, len(train), epoch)
            yield epoch + 1, mean
            if not math.isfinite(mean):
                return


def class_weights(labels: torch.Tensor) -> torch.Tensor:
    """Weights of the classes (K,), float32, inverse to their images and 1 on the average over `labels` (N,):
    N / (K count), as class_weight="balanced" of scikit-learn."""
    counts = labels.bincount()
    return len(labels) / (len(counts) * counts.float())


def _batches(train: Images, number: int, images: int, config: Config) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Crops (B, pixels, pixels, 3), or features, and labels (B,) of the first so many images of a pass; several small
    batches are gathered and cut at once."""
    order = np.random.Generator(np.random.PCG64(stream("order", config.seed, number))).permutation(len(train))[:images]
    draws = train_draws(config, number, train.rows[order]).to(train.device)
    places = torch.from_numpy(order).to(train.labels.device)
    size = config.batch_size
    several = size * max(1, CUT_AT_ONCE // (size * 3 * config.dataset.side**2))
    for start in range(0, len(places), several):
        part = slice(start, start + several)
        stored, labels = train[places[part]]
        crops = cut(stored, draws[part], config)
        for first in range(0, len(labels), size):
            yield crops[first : first + size], labels[first : first + size]


@torch.no_grad()
def evaluate(net: Network, config: Config, images: Images) -> Score:
    """Loss and accuracy on the middle crops, dropout off."""
    net.eval()
    loss, right = torch.zeros((), device=images.device), []
    for inputs, labels in middle_crops(config, images):
        answers = logits(net, inputs, config)
        loss += cross_entropy(answers, labels, reduction="sum")
        right.append(answers.argmax(1) == labels)
    found = torch.cat(right).cpu().numpy()
    return Score(loss.item() / len(images), float(found.mean()), found)


def middle_crops(config: Config, images: Images) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Middle crops (B, pixels, pixels, 3), or features, and labels (B,): all images in their order."""
    draws = centre_draws(config.dataset, len(images)).to(images.device)
    several = at_once(config.dataset)
    for start in range(0, len(images), several):
        which = slice(start, start + several)
        batch, labels = images[which]
        yield cut(batch, draws[which], config), labels


def at_once(dataset: Dataset) -> int:
    """Images of one batch of an evaluation: fewer where they are enlarged, so that the memory stays the same."""
    return max(CHUNK, EVALUATED_AT_ONCE * dataset.pixels**2 // dataset.input_pixels**2)


def cut(images: torch.Tensor, draws: Draws, config: Config) -> torch.Tensor:
    """Crops of images as drawn; features as they are."""
    return images if images.is_floating_point() else crop_and_flip(images, draws, config.dataset)
