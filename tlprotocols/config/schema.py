"""Every factor of a run: its name, its type, its legal values and one line of help.

Types and ranges stand here, values in `conf/*.yaml`, and neither holds both. A field made by `factor` changes what
is computed and enters the identity of a run; one made by `setting` belongs to the machine and does not.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from tlprotocols.config.models import MODELS, ModelSpec

BASE_SCHEDULES = ("own_clock", "multistep", "cosine", "plateau", "updates")  # of one group of layers
SCHEDULES = (
    *("own_clock", "join_low", "extra_step", "step_all", "both"),
    *("multistep", "cosine", "plateau", "updates", "bit"),
)
RESIZES = ("centre", "squash")
MEANS = ("constants", "source")
AUGMENTS = ("none", "crop", "flip", "crop_flip", "resized_crop_flip")
OPTIMIZERS = ("sgd", "adam", "adamw")
CLASS_WEIGHTS = ("none", "balanced")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
DATASETS = ("glyphs", "tiny_imagenet", "cifar10", "cifar100", "imagenet", "folder")
BASES = ("trained", "self", "dataset", "weights", "none")
TRACKERS = ("mlflow", "wandb", "tensorboard")
DROPS = ("none", "before_bn", "before_conv")
DEPTHS = ("all", "all-K")  # of a model: all layers that can be copied or frozen, or all layers at all; all but K
CLASSES = ("random", "yosinski", "natman", "groups", "drawn", "all")
SOURCE_GROUPS = ("A", "diverse", "more")


def factor(
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    legacy: object = dataclasses.MISSING,
    unordered: bool = False,
) -> Any:
    """A value that changes what is computed. `legacy` is the value that a later factor had before it existed:
    while a run has it, its id stays what it was. `unordered`: a list whose order and repetitions change nothing."""
    return _field(doc, low, high, choices, True, legacy, unordered)


def setting(
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    legacy: object = dataclasses.MISSING,
) -> Any:
    """A value of the machine or of the record keeping: it never enters an id. `legacy`: as of a factor."""
    return _field(doc, low, high, choices, False, legacy, False)


def label(doc: str) -> Any:
    """What a row says of its run beside factors: two configurations that differ in it alone are equal."""
    return _field(doc, None, None, (), False, None, False, compare=False)


def _field(
    doc: str, low: Any, high: Any, choices: Any, is_factor: bool, legacy: object, unordered: bool, compare: bool = True
) -> Any:
    about = {"doc": doc, "low": low, "high": high, "choices": choices, "factor": is_factor}
    return dataclasses.field(compare=compare, metadata=about | {"legacy": legacy, "unordered": unordered})


@dataclass(frozen=True, kw_only=True)
class Decay:
    """A learning rate that falls in steps."""

    high: float = factor("initial learning rate of the layers at the high rate", low=0)
    step: int = factor("epochs between two decays of a learning rate", low=1)
    gamma: float = factor("factor by which a learning rate decays", low=0, high=1)
    milestones: tuple[int, ...] | None = factor("epochs at which all rates decay (multistep)", low=1, legacy=None)
    patience: int = factor("epochs without a lower val_loss until all rates decay (plateau)", low=1, legacy=10)
    step_updates: int = factor("updates between two decays of all rates (updates)", low=1, legacy=100_000)


@dataclass(frozen=True, kw_only=True)
class Rates(Decay):
    """The two rates of a transfer protocol, and explicit ones for single layers."""

    low: float = factor("initial learning rate of all other layers", low=0)
    layers: dict[str, float] = factor("initial learning rate of one layer, as in lr.layers.conv1=0.0005", low=0)
    layer_decay: float = factor("factor of the rates from a layer to the one below it", low=0, high=1, legacy=1.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained, whatever it was copied from."""

    epochs: int = factor("passes over the training images; max_updates sets it", low=1, high=10**6)
    epoch_updates: int = factor(
        "least updates of an epoch: of few images, it has as many passes as that takes; 0: one pass",
        low=0,
        high=10**6,
        legacy=0,
    )
    max_updates: int | str = factor(
        "train for exactly so many updates instead; 0: for epochs; bit: by the number of images",
        low=0,
        choices=("bit",),
        legacy=0,
    )
    stop_after: int = factor("end after so many epochs without a lower val_loss; 0: never early", low=0, legacy=0)
    batch_size: int = factor("training images per update; the last batch of an epoch may be smaller", low=1)
    shards: int = factor("parts of a batch computed in parallel, one core each; 1 on a GPU", low=1, high=1024, legacy=1)
    optimizer: str = factor("how gradients become updates", choices=OPTIMIZERS, legacy="sgd")
    momentum: float = factor("momentum of SGD; adam and adamw do not read it", low=0, high=1)
    nesterov: bool = factor("Nesterov's momentum instead of the classical one (sgd only)", legacy=False)
    weight_decay: float = factor("L2 penalty, on the layers that learn; for adamw decoupled: rate times this", low=0)
    bias_lr: float = factor("learning rate of biases, as a multiple of that of their layer", low=0, legacy=1.0)
    bias_decay: float = factor("weight decay of biases, as a multiple of weight_decay", low=0, legacy=1.0)
    class_weights: str = factor(
        "weights of classes in the loss; balanced: by the inverse of their training images",
        choices=CLASS_WEIGHTS,
        legacy="none",
    )
    dropout: float = factor("share of units dropped before the last layer (AlexNet: fc6 and fc7)", low=0, high=0.99)
    augment: str = factor("random augmentation of training images", choices=AUGMENTS)
    precision: str = factor("arithmetic; auto: bf16 where the processor is built for it, else fp32", choices=PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Where images come from and what the deterministic part of their preparation is."""

    name: str = factor("the images", choices=DATASETS)
    root: str | None = setting("folder of the images; glyphs need none")
    download: bool = setting("let torchvision fetch cifar10 and cifar100 into the root")
    side: int = factor("side of the square that images become, in pixels", low=8, high=4096)
    resize: str = factor(
        "how: centre: the middle square, after the shorter side; squash: the whole image, whatever its aspect ratio",
        choices=RESIZES,
        legacy="centre",
    )
    pixels: int = factor("side of the crop that a network sees", low=8)
    upscale: int = factor("side that crops are enlarged to for the network; 0: not enlarged", low=0, legacy=0)
    pad: int = factor("black pixels added on every side before a random crop", low=0, high=1024)
    mean: tuple[float, ...] = factor("mean of red, green, blue that is subtracted, on a scale of 0 to 1")
    mean_of: str = factor(
        "which mean: constants: dataset.mean; source: of the images that the base network learned, or else its own",
        choices=MEANS,
        legacy="constants",
    )
    std: tuple[float, ...] = factor("standard deviation of red, green, blue that is divided by", low=1e-6)
    val_per_class: int = factor(
        "last training images of a class that are its validation images, if it needs some", low=1
    )
    on_bad_image: str = setting(
        "a file that cannot be decoded stops the sweep, or is left out", choices=("error", "skip"), legacy="error"
    )
    val_from_train: bool = factor("validate on training images; its own held-out images are test images", legacy=False)
    fingerprint: str = factor("digest of class names, file names and content; filled in when images are listed")

    @property
    def input_pixels(self) -> int:
        """Side of what the network gets."""
        return self.upscale or self.pixels


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network."""

    name: str = factor("the network", choices=tuple(MODELS))
    width: float = factor("channels and units, as a multiple of the model's own", low=0.05, high=4)
    depth: int | None = factor("layers of densenet_bc: 6 times the bottlenecks of a block, and 4", low=10, legacy=None)
    growth: int | None = factor("channels that each bottleneck of densenet_bc adds", low=1, high=256, legacy=None)
    drop_channel: str | None = factor(
        "dropout of whole channels, and where in a bottleneck of densenet_bc; none: of units, after each convolution",
        choices=DROPS,
        legacy=None,
    )
    se: bool | None = factor("squeeze-and-excitation at the end of each bottleneck of densenet_bc", legacy=None)
    checkpoint: bool | None = factor("compute wide activations of densenet_bc twice, not keep them", legacy=None)

    @property
    def spec(self) -> ModelSpec:
        """What is known of the network without building it."""
        return MODELS[self.name]

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the transferable layers, input first; the last one is always new."""
        return self.spec.stages

    @property
    def options(self) -> dict[str, Any]:
        """What only this network has, by name: `depth` and others of densenet_bc."""
        return {name: getattr(self, name) for name in self.spec.options}


@dataclass(frozen=True, kw_only=True)
class Base(Recipe):
    """The network that a run copies from, and how that one was trained: itself a run."""

    name: str = factor(
        "trained on the source classes; self: on the target classes; dataset: on other images; weights: a file; none",
        choices=BASES,
    )
    n_per_class: int | str = factor("training images per class of the base, or full", low=1, choices=("full",))
    schedule: str = factor("how its rate falls; own_clock: every lr.step", choices=BASE_SCHEDULES, legacy="own_clock")
    lr: Decay = factor("the base's learning rate")
    dataset: Dataset | None = factor("the base's images (base=dataset): all their classes are learned", legacy=None)
    seed: int | None = factor("replicate of the base; null: the seed of the run", low=0, legacy=None)
    weights: str | None = setting("a file, or torchvision's name as in ResNet18_Weights.IMAGENET1K_V1", legacy=None)
    digest: str | None = factor("hash of the weights' content; filled in when the file is found", legacy=None)


@dataclass(frozen=True, kw_only=True)
class Classes:
    """How the classes fall into half A and half B."""

    name: str = factor(
        "random halves by split, yosinski's four lists, natman, explicit groups; drawn: three random groups by split;"
        " all: every class is a target",
        choices=CLASSES,
    )
    source: tuple[str, ...] | None = factor("names of the source classes (classes=groups)", unordered=True)
    target: tuple[str, ...] | None = factor("names of the target classes (classes=groups)", unordered=True)
    sizes: tuple[int, ...] | None = factor("classes in the groups A, B and C (classes=drawn)", low=1, legacy=None)
    source_group: str | None = factor(
        "source classes (classes=drawn): A; diverse: C and so much of A that they are as many as A; more: A and C",
        choices=SOURCE_GROUPS,
        legacy=None,
    )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What differs between computers and must not differ in results."""

    device: str = setting("where to compute", choices=("auto", "cpu", "cuda"))
    image_cache: str = setting("folder of the decoded images, shared by all runs; ~ is your home")
    checkpoint_minutes: float = setting("least time between two checkpoints of a run", low=0)
    cache_features: bool = setting("compute what a last stage gets once, where all else is frozen", legacy=True)


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """One run: everything that decides its numbers, and the settings of the machine."""

    layers: int = factor("first layers copied from the base network; 0: no transfer", low=0, choices=DEPTHS)
    freeze: int = factor("first layers that never learn", low=0, choices=DEPTHS)
    freeze_random: bool = factor("allow freeze > layers, that is layers frozen at their random weights")
    learn_layers: int = factor(
        "copied layers that learn, after the frozen ones; those above them are frozen too; 0: all", low=0, legacy=0
    )
    head_epochs: int | str = factor(
        "first epochs, in which only the last layer learns, or half of all", low=0, choices=("half",), legacy=0
    )
    unfreeze_every: int = factor(
        "epochs after which one more layer learns, from the last one down; 0: all at once", low=0, legacy=0
    )
    l2_sp: float = factor(
        "L2 penalty on the distance of copied layers from the base's weights, instead of weight_decay",
        low=0,
        legacy=0.0,
    )
    n_per_class: int | str = factor("training images per target class, nested, or full", low=1, choices=("full",))
    test_per_class: int = factor("last training images per target class that are only tested on", low=0, legacy=0)
    fold: int | None = factor(
        "which of `folds` parts of these images is for validation instead; null: none", low=0, legacy=None
    )
    folds: int = factor("parts of the training images of each class (with fold)", low=2, legacy=5)
    subset: str = factor(
        "which images: the first in file order, or a random order by seed", choices=("first", "random")
    )
    split: int = factor("which class split", low=0, high=2**32 - 1)
    target: str = factor("which half of the split is learned; the other half is the source", choices=("A", "B"))
    seed: int = factor("which replicate of initialisation and order", low=0)
    high_lr_layers: int = factor("last layers that start at lr.high; the rest at lr.low", low=0, choices=DEPTHS)
    decay_epochs: int = factor("epochs before the high learning rate decays", low=0)
    schedule: str = factor("how rates decay: what decay_epochs does, or without it", choices=SCHEDULES)
    lr: Rates = factor("learning rates")
    head: tuple[int, ...] | None = factor(
        "units of hidden layers of the last stage, as in [512,128]; null: one linear layer", low=1, legacy=None
    )
    dataset: Dataset = factor("images")
    model: Model = factor("network")
    base: Base = factor("what is copied from")
    classes: Classes = factor("class split")
    machine: Machine = setting("the computer")
    curve: bool = setting("also evaluate after every epoch and keep the curve")
    probe: bool = setting(
        "also fit a linear probe of the source classes to the trained network's features", legacy=False
    )
    keep_weights: bool = setting("keep the weights of every run, not of base networks alone", legacy=False)
    predictions: bool = setting("keep the predicted probabilities of every image", legacy=False)
    classes_shown: bool = setting("let a dry run print source and target classes (--classes)", legacy=False)
    tracker: str | None = setting("also write each finished run to this tracker", choices=TRACKERS, legacy=None)
    sweep: str | None = label("a name of your own for the rows of this sweep")
    protocol: str | None = label("the protocol whose values the run has; filled in")
    command: str | None = label("the command line; filled in")
    results_dir: str = setting("folder of the results")

    @property
    def watched(self) -> bool:
        """Whether the network is evaluated after every epoch: for the curve, or since training depends on val_loss."""
        return self.curve or self.stop_after > 0 or self.schedule == "plateau"

    def frozen(self, epoch: int | None = None) -> tuple[str, ...]:
        """The layers that do not learn in `epoch` (0 is the first); without it, those that never learn.

        `head_epochs` are those of linear probing before fine-tuning (Kumar et al. 2022, sec. 3.4), `unfreeze_every` is
        gradual unfreezing (Howard & Ruder 2018, sec. 3.3), and `learn_layers` is surgical fine-tuning (Lee et al.
        2023, sec. 2), with the new layers beside the block.
        """
        stages, first = self.model.stages, self.freeze
        if epoch is not None and epoch < int(self.head_epochs):
            first = len(stages) - 1
        elif epoch is not None and self.unfreeze_every:
            more = 1 + (epoch - int(self.head_epochs)) // self.unfreeze_every
            first = max(first, len(stages) - 1 - more)
        above = range(self.freeze + self.learn_layers, self.layers) if self.learn_layers else range(0)
        return tuple(stage for place, stage in enumerate(stages) if place < first or place in above)

    @property
    def all_learn_from(self) -> int:
        """The first epoch (0 is the first) in which no layer is frozen that ever learns; `epochs` if there is none."""
        return next((epoch for epoch in range(self.epochs) if self.frozen(epoch) == self.frozen()), self.epochs)

    @property
    def fixed_features(self) -> bool:
        """Whether the last stage gets the same features of an image in every epoch: all others are frozen, and neither
        augmentation nor dropout acts before it."""
        drops = self.dropout > 0 and self.model.spec.dropout_inside
        return self.freeze == len(self.model.stages) - 1 and self.augment == "none" and not drops

    @property
    def caches_features(self) -> bool:
        """Whether a run computes the features of its images once, before it trains."""
        return self.fixed_features and self.machine.cache_features
