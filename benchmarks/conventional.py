"""What one would write without tlprotocols: a Hydra application, ImageFolder, DataLoader, one training a job.

python -m benchmarks.conventional -m root=TREE recipe=recipe.json split=split.json layers=4,5,6,7 n_per_class=10,50

The same networks, images, epochs and rates as ours, in fp32 with torch's defaults, evaluated after every epoch; the
base network is trained by the first job that finds none.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.config_store import ConfigStore
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tlprotocols.config.identity import base_of
from tlprotocols.config.schema import Config
from tlprotocols.config.validate import build
from tlprotocols.lr_schedule import rate
from tlprotocols.training import models


@dataclass
class Experiment:
    """The command line."""

    root: str = "???"
    out: str = "conventional"
    layers: int = 6
    n_per_class: int = 10
    workers: int = 2
    recipe: str = "???"  # file with our configuration: network, epochs, rates
    split: str = "???"  # file with the names of the source and target classes
    seed: int = 0


ConfigStore.instance().store("conventional", Experiment)


class Chosen(Subset):
    """The first n images of some classes."""

    def __init__(self, whole: ImageFolder, names: list[str], n: int | None) -> None:
        whole.target_transform = {whole.class_to_idx[name]: unit for unit, name in enumerate(names)}.__getitem__
        seen = {whole.class_to_idx[name]: 0 for name in names}
        chosen = []
        for place, label in enumerate(whole.targets):
            if label in seen and (n is None or seen[label] < n):
                seen[label] += 1
                chosen.append(place)
        super().__init__(whole, chosen)


def loaders(cfg: Any, ours: Config, names: list[str], n: int | None) -> tuple[DataLoader, DataLoader]:
    """Shuffled and augmented for training, as they are for validation."""
    data = ours.dataset
    normalise = [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
    flips = [transforms.RandomHorizontalFlip()] if "flip" in ours.augment else []
    crop = transforms.RandomCrop(data.pixels, padding=data.pad or None)
    train = ImageFolder(f"{cfg.root}/train", transforms.Compose([crop, *flips, *normalise]))
    val = ImageFolder(f"{cfg.root}/val", transforms.Compose([transforms.CenterCrop(data.pixels), *normalise]))
    options = {"num_workers": cfg.workers, "persistent_workers": cfg.workers > 0}
    return (
        DataLoader(Chosen(train, names, n), ours.batch_size, shuffle=True, **options),
        DataLoader(Chosen(val, names, None), 256, **options),
    )


@torch.no_grad()
def accuracy(net: nn.Module, loader: DataLoader) -> float:
    """Top-1."""
    net.eval()
    right = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)  # type: ignore[arg-type]


def train(cfg: Any, ours: Config, names: list[str], n: int | None, weights: dict[str, Any]) -> tuple[Any, float]:
    """A network that starts from these weights, and its accuracy at the end."""
    torch.manual_seed(cfg.seed)
    net = models.build(ours, len(names))
    for layer in ours.model.stages[: ours.layers]:
        net.stages[layer].load_state_dict(weights[layer])
    groups = [{"params": list(module.parameters()), "name": layer} for layer, module in net.stages.items()]
    sgd = torch.optim.SGD(groups, lr=ours.lr.high, momentum=ours.momentum, weight_decay=ours.weight_decay)
    training, validation = loaders(cfg, ours, names, n)
    top1 = 0.0
    for epoch in range(ours.epochs):
        for group in sgd.param_groups:
            group["lr"] = rate(ours, group["name"], epoch)
        net.train()
        for images, labels in training:
            loss = nn.functional.cross_entropy(net(images), labels)
            sgd.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()
        top1 = accuracy(net, validation)
    return net, top1


@hydra.main(version_base="1.3", config_path=None, config_name="conventional")
def main(cfg: Any) -> None:
    """One job."""
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    recipe = json.loads(Path(cfg.recipe).read_text())
    split = json.loads(Path(cfg.split).read_text())
    ours = build(recipe | {"layers": cfg.layers, "n_per_class": cfg.n_per_class})
    saved = out / "base.pt"
    if not saved.exists():
        base = base_of(ours)
        assert base is not None
        n = None if base.n_per_class == "full" else int(base.n_per_class)
        net, _ = train(cfg, base, split["source"], n, {})
        torch.save({layer: module.state_dict() for layer, module in net.stages.items()}, saved)
    _, top1 = train(cfg, ours, split["target"], cfg.n_per_class, torch.load(saved, weights_only=True))
    row = {"layers": cfg.layers, "n_per_class": cfg.n_per_class, "val_top1": top1}
    (out / f"{cfg.layers}-{cfg.n_per_class}.json").write_text(json.dumps(row))


if __name__ == "__main__":
    main()
