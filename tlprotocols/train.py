"""Learning and measuring. The loop is a generator that neither logs nor saves: its caller does."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from tlprotocols.augment import centre_draws, cut, normalised, train_draws
from tlprotocols.models import Network
from tlprotocols.randomness import stream
from tlprotocols.schema import Config
from tlprotocols.transfer import set_rates

EVALUATED_AT_ONCE = 512  # images; large enough for full speed, small enough for the cache


@dataclass(frozen=True)
class Images:
    """The images of one part that a run uses."""

    stored: torch.Tensor  # uint8 (N, side, side, 3): the whole part, usually mapped from the store
    rows: np.ndarray  # int64 (n,): which of them
    labels: torch.Tensor  # int64 (n,): unit of the last layer
    device: torch.device

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, side, side, 3) and labels (B,) at these places, on the device."""
        rows = torch.from_numpy(self.rows)[which].to(self.stored.device)
        images = self.stored.index_select(0, rows)
        return images.to(self.device, non_blocking=True), self.labels[which].to(self.device, non_blocking=True)


@dataclass(frozen=True)
class Score:
    """What an evaluation finds: mean loss in nats, share of right answers, and the answers themselves (N,)."""

    loss: float
    top1: float
    right: np.ndarray


def arithmetic(config: Config, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a forward pass has the precision of the configuration."""
    if config.precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    return nullcontext()


def fit(net: Network, sgd: SGD, config: Config, train: Images, *, done: int = 0) -> Iterator[tuple[int, float]]:
    """Learn, one epoch at a time, after the `done` ones. Yields (epochs done, mean training loss of the epoch).

    Order, crops and dropout of an epoch are functions of (seed, epoch) alone, so that stopping between two epochs
    and going on in another process changes no bit. Stops early if the loss is no longer a number.
    """
    for epoch in range(done, config.epochs):
        set_rates(sgd, config, epoch)
        order = np.random.Generator(np.random.PCG64(stream("order", config.seed, epoch))).permutation(len(train))
        draws = train_draws(config, epoch, train.rows[order]).to(train.device)
        torch.manual_seed(stream("dropout", config.seed, epoch))
        places = torch.from_numpy(order)
        total = torch.zeros((), device=train.device)  # read once an epoch: no waiting for the device before
        net.train()
        for start in range(0, len(order), config.batch_size):
            batch = slice(start, start + config.batch_size)
            images, labels = train[places[batch]]
            pixels = normalised(cut(images, draws[batch], config.dataset), config.dataset)
            with arithmetic(config, train.device):
                logits = net(pixels)
            loss = cross_entropy(logits.float(), labels)
            sgd.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()
            total += loss.detach() * len(labels)
        mean = total.item() / len(train)
        yield epoch + 1, mean
        if not math.isfinite(mean):
            return


@torch.no_grad()
def evaluate(net: Network, config: Config, images: Images) -> Score:
    """Loss and accuracy on the middle crops, dropout off."""
    net.eval()
    loss, right = torch.zeros((), device=images.device), []
    for start in range(0, len(images), EVALUATED_AT_ONCE):
        batch, labels = images[slice(start, start + EVALUATED_AT_ONCE)]
        crops = cut(batch, centre_draws(config.dataset, len(labels)).to(images.device), config.dataset)
        with arithmetic(config, images.device):
            logits = net(normalised(crops, config.dataset)).float()
        loss += cross_entropy(logits, labels, reduction="sum")
        right.append(logits.argmax(1) == labels)
    answers = torch.cat(right).cpu().numpy()
    return Score(loss.item() / len(images), float(answers.mean()), answers)
