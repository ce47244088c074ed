"""What a run needs of a machine's memory, from the shapes of its network: nothing is computed."""

import torch
from torch import nn

from tlprotocols.config.schema import Config
from tlprotocols.training import models, transfer

KEPT = {"sgd": 1, "adam": 2, "adamw": 2}  # tensors that an optimizer keeps of each weight


def bytes_needed(config: Config, images: int) -> int:
    """An estimate of the bytes of one run on a CPU that learns `images` images an epoch: its weights, their gradients
    in each shard, what the optimizer keeps, and the outputs, for a batch, of all modules that a gradient passes."""
    outputs: list[int] = []

    def count(module: nn.Module, given: object, output: torch.Tensor) -> None:
        if output.requires_grad and not getattr(module, "inplace", False):
            outputs.append(output.nbytes)

    pixels = config.dataset.input_pixels
    with torch.device("meta"):
        net = models.build(config, 1000)  # classes hardly matter
        transfer.freeze(net, config.frozen())
        for module in net.modules():
            if not list(module.children()):
                module.register_forward_hook(count)
        net.eval()
        net.head(net.body(torch.zeros(1, 3, pixels, pixels)))
    weights = sum(weight.nbytes for weight in net.parameters())
    learning = sum(weight.nbytes for weight in net.parameters() if weight.requires_grad)
    batch = min(config.batch_size, images)
    copies = min(config.shards, batch) + KEPT[config.optimizer]
    of_image = sum(outputs) // (2 if config.precision == "bf16" else 1) + 4 * 3 * pixels**2
    return weights + learning * copies + batch * of_image
