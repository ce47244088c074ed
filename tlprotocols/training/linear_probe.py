"""A linear probe: how well the features that a network has learned separate other classes."""

from collections.abc import Iterator

import torch
from torch.nn.functional import one_hot

from tlprotocols.config.schema import Config
from tlprotocols.images.augment import normalize
from tlprotocols.training.loop import Images, middle_crops
from tlprotocols.training.models import Network
from tlprotocols.training.shards import arithmetic

PENALTY = 1.0  # of ridge regression, per image, for features of variance 1: chosen on the pilot's class draw


@torch.no_grad()
def probe(net: Network, config: Config, train: Images, tested: Images) -> float:
    """Top-1 on `tested` of a linear classifier of the features of `train`, images of classes that the network need not
    have been trained on.

    Features are the input of the head in evaluation mode. The classifier is ridge regression of the classes on
    the standardized features (Hastie, Tibshirani & Friedman 2009, sec. 3.4 and 4.2): its solution is unique, and needs
    no learning rate, no epochs and no seed. Features that are not finite have the accuracy of the first class.
    """
    classes = int(train.labels.max()) + 1
    count, x_sum, y_sum, xx, xy = 0, *(torch.zeros((), dtype=torch.float64, device=train.device) for _ in range(4))
    for x, labels in _features(net, config, train):
        y = one_hot(labels, classes).to(x.dtype)
        x_sum, y_sum = x_sum + x.sum(0).double(), y_sum + y.sum(0).double()
        xx, xy, count = xx + (x.T @ x).double(), xy + (x.T @ y).double(), count + len(x)
    mean, prior = x_sum / count, y_sum / count
    variance = (xx.diagonal() / count - mean.square()).clamp(min=0)
    scale = torch.where(variance > 1e-12, variance, 1.0).rsqrt()  # a feature that never varies stays 0
    covariance = scale[:, None] * (xx / count - mean.outer(mean)) * scale
    covariance.diagonal().add_(PENALTY)
    slopes = scale[:, None] * (xy / count - mean.outer(prior))
    if covariance.isfinite().all():
        slopes = scale[:, None] * torch.linalg.solve(covariance, slopes)
    right = [((x.double() - mean) @ slopes + prior).argmax(1) == y for x, y in _features(net, config, tested)]
    return float(torch.cat(right).double().mean())


def _features(net: Network, config: Config, images: Images) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Features (B, d) and labels (B,), all images in their order."""
    net.eval()
    for crops, labels in middle_crops(config, images):
        with arithmetic(config, images.device):
            pixels = normalize(crops, config.dataset)
            found = net.body(pixels) if net.features_as is None else net.features(pixels)
        yield found.flatten(1).float(), labels
