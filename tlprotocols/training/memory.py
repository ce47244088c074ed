"""The memory of one update: weights, momenta, activations, gradients; not the images of the data set.

A GPU counts what its allocator gives out. A processor has no such count, and the high-water mark of a process is that
of all runs that a worker has executed, Python and libraries included. So each storage of a tensor is counted from the
operation that makes it until it is freed: what torch itself would need, without scratch memory inside an operation.
"""

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tlprotocols.config.schema import Config
from tlprotocols.images.augment import centre_draws
from tlprotocols.training import optimizers
from tlprotocols.training.loop import Images, cut
from tlprotocols.training.models import Network
from tlprotocols.training.shards import Gradient

MB = 2**20  # bytes, as torch's and NVIDIA's tools count


def peak_memory_mb(net: Network, config: Config, images: Images) -> float:
    """Peak of one update with the first batch, in MB of 2**20 bytes; with `shards`, of the whole batch at once.

    It changes the weights and the state of random draws: call it when nothing needs them any more. An update before
    it gives the optimizer its momenta.
    """
    device = images.device
    batch, labels = images[slice(0, config.batch_size)]
    crops = cut(batch, centre_draws(config.dataset, len(labels)).to(device), config)
    optimizer = optimizers.optimizer(net, config)
    with Gradient(net, replace(config, shards=1), device) as learn:
        learn.begin(config.epochs)
        learn(crops, labels)
        optimizer.step()
        optimizer.zero_grad()
        states = [value for kept in optimizer.state.values() for value in kept.values() if torch.is_tensor(value)]
        held = sum(value.nbytes for value in (*net.parameters(), *net.buffers(), *states))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            learn(crops, labels)
            optimizer.step()
            return float(held + torch.cuda.max_memory_allocated(device) - before) / MB
        with Peak() as peak:
            learn(crops, labels)
            optimizer.step()
        return float(held + peak.most) / MB


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that operations inside it made, now (`bytes`) and at most (`most`), on a processor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.most = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: to keep torch's compiler away, torch would import it, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {tensor.untyped_storage() for tensor in tree_leaves((args, kwargs)) if torch.is_tensor(tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not torch.is_tensor(tensor):
                continue
            storage = tensor.untyped_storage()
            if storage not in known and storage not in self.seen:  # neither a view of another, nor changed in place
                self.seen.add(storage)
                self.bytes += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes()).atexit = False
        self.most = max(self.most, self.bytes)
        return result

    def _free(self, size: int) -> None:
        self.bytes -= size
