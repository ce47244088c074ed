"""What contradicts itself in a configuration whose values are each in their range."""

import dataclasses

from tlprotocols.config.models import MODELS
from tlprotocols.config.schema import DATASETS, SOURCE_GROUPS, Config, Dataset, Decay, Recipe
from tlprotocols.errors import ConfigError


def check(config: Config) -> None:
    """Refuse what cannot be run.

    Raises:
        ConfigError: names the key, its value and what is legal.
    """
    count = len(config.model.stages)
    names = f"{config.model.stages[0]}..{config.model.stages[-1]} of {config.model.name}"
    for key, value, most in (
        ("layers", config.layers, count - 1),
        ("freeze", config.freeze, count - 1),
        ("high_lr_layers", config.high_lr_layers, count),
    ):
        if value > most:
            raise ConfigError(key, value, f"must be from 0 to {most} ({names}; the last layer is always new)")
    if config.freeze > config.layers and not config.freeze_random:
        raise ConfigError(
            "freeze",
            config.freeze,
            f"must be at most layers={config.layers}; to freeze random layers say freeze_random=true",
        )
    if config.learn_layers and config.freeze + config.learn_layers > config.layers:
        legal = (
            f"must be at most layers={config.layers} minus freeze={config.freeze}, or 0; the new layers always learn"
        )
        raise ConfigError("learn_layers", config.learn_layers, legal)
    if config.l2_sp and config.freeze >= config.layers:
        legal = f"must be 0 where no copied layer learns (layers={config.layers}, freeze={config.freeze})"
        raise ConfigError("l2_sp", config.l2_sp, legal)
    _check_base(config)
    _check_fold(config)
    if config.head is not None and not config.head:
        raise ConfigError("head", "[]", "must be null, or units of at least one hidden layer, as in [256]")
    if config.schedule == "step_all" and config.decay_epochs == 0:
        raise ConfigError("decay_epochs", 0, "must be at least 1 with schedule=step_all")
    for name in config.lr.layers:
        if name not in config.model.stages:
            raise ConfigError(f"lr.layers.{name}", config.lr.layers[name], f"must name one of {names}")
    _check_recipe("", config, config.schedule, config.lr)
    _check_recipe("base.", config.base, config.base.schedule, config.base.lr)
    _check_pixels(config, "dataset", config.dataset)
    _check_width(config)
    _check_options(config)
    _check_shards(config)
    if config.dataset.mean_of == "source" and config.layers and config.base.name in ("weights", "dataset"):
        legal = f"must be constants with base={config.base.name}, whose images are not those of dataset"
        raise ConfigError("dataset.mean_of", "source", legal)
    _check_groups(config)
    if config.classes.name == "drawn":
        _check_drawn(config, config.classes.sizes or (), config.classes.source_group)
    if config.probe and config.classes.name == "all":
        raise ConfigError("probe", "true", "must be false with classes=all, which has no source classes")
    if config.classes.name in ("groups", "natman", "all") and config.split:
        raise ConfigError(
            "split", config.split, f"must be 0 with classes={config.classes.name}, which has one split only"
        )
    if config.classes.name == "all" and config.target != "B":
        raise ConfigError("target", config.target, "must be B with classes=all, which has no halves")


def _check_fold(config: Config) -> None:
    if config.fold is None:
        return
    if config.fold >= config.folds:
        raise ConfigError("fold", config.fold, f"must be below folds={config.folds}")
    if config.n_per_class != "full" and int(config.n_per_class) < config.folds:
        raise ConfigError("folds", config.folds, f"must be at most n_per_class={config.n_per_class}, which they divide")
    if config.layers and config.base.name == "self":
        raise ConfigError("fold", config.fold, "must be null with base=self, whose base network learns all the folds")


def _check_drawn(config: Config, sizes: tuple[int, ...], source: str | None) -> None:
    if len(sizes) != 3:
        raise ConfigError("classes.sizes", list(sizes), "must be three numbers, the classes of A, B and C: [4,4,2]")
    if source is None:
        raise ConfigError("classes.source_group", None, f"must be one of {', '.join(SOURCE_GROUPS)}")
    if source == "diverse" and sizes[2] >= sizes[0]:
        legal = f"needs fewer classes in C than in A (classes.sizes={list(sizes)}); say classes.source_group=A or more"
        raise ConfigError("classes.source_group", source, legal)


def _check_groups(config: Config) -> None:
    classes = config.classes
    if classes.name != "groups":
        for key, names in (("source", classes.source), ("target", classes.target)):
            if names is not None:
                raise ConfigError(f"classes.{key}", list(names), "is for classes=groups; say so, or leave it out")
        return
    if not (classes.source and classes.target):
        raise ConfigError("classes", "groups", "needs classes.source=[...] and classes.target=[...], class names")
    if set(classes.source) == set(classes.target):
        legal = "must differ from classes.source; to copy from a base on the target classes say base=self"
        raise ConfigError("classes.target", list(classes.target), legal)


def _check_base(config: Config) -> None:
    base = config.base
    if base.weights is not None and base.name != "weights":
        raise ConfigError("base.weights", base.weights, f"must be null with base={base.name}; say base=weights")
    if not config.layers:
        return
    if base.name == "none":
        raise ConfigError("layers", config.layers, "must be 0 with base=none; say base=trained or base=self to copy")
    if base.name == "trained" and config.classes.name == "all":
        raise ConfigError(
            "base", "trained", "has no classes of its own with classes=all; say base=weights, dataset, self or none"
        )
    if base.name == "weights" and not base.weights:
        raise ConfigError(
            "base.weights", None, "is needed: a file, or a name as ResNet18_Weights.IMAGENET1K_V1 of torchvision"
        )
    if base.name == "dataset":
        if base.dataset is None:
            raise ConfigError("base.dataset", None, f"is needed: one of {', '.join(DATASETS)}")
        _check_pixels(config, "base.dataset", base.dataset)
        fixed, own, theirs = config.model.spec.by_pixels, config.dataset, base.dataset
        if fixed in config.model.stages[: config.layers] and theirs.input_pixels != own.input_pixels:
            key, wanted = ("upscale" if images.upscale else "pixels" for images in (theirs, own))
            raise ConfigError(
                f"base.dataset.{key}",
                theirs.input_pixels,
                f"must be dataset.{wanted}={own.input_pixels} where {fixed} of {config.model.name} is copied;"
                f" or copy at most layers={config.model.stages.index(fixed)}",
            )


def _check_shards(config: Config) -> None:
    for key, recipe in (("shards", config), ("base.shards", config.base)):
        if config.model.spec.batch_norm and recipe.shards > 1:
            raise ConfigError(key, recipe.shards, f"must be 1: batch norm of {config.model.name} needs a whole batch")


def _check_pixels(config: Config, path: str, dataset: Dataset) -> None:
    least, most = config.model.spec.pixels
    padded = dataset.side + 2 * dataset.pad
    if dataset.upscale:
        if not max(least, dataset.pixels) <= dataset.upscale <= most:
            legal = f"must be 0, or from {max(least, dataset.pixels)} to {most} for {config.model.name}"
            raise ConfigError(f"{path}.upscale", dataset.upscale, f"{legal} ({path}.pixels={dataset.pixels})")
        least, most = 1, padded
    if least > padded:
        legal = f"must be from {least} to {most} for {config.model.name}; smaller images need {path}.upscale={least}"
        raise ConfigError(f"{path}.pixels", dataset.pixels, legal)
    if not least <= dataset.pixels <= min(most, padded):
        raise ConfigError(
            f"{path}.pixels",
            dataset.pixels,
            f"must be from {least} to {min(most, padded)} for {config.model.name} "
            f"({path}.side={dataset.side}, {path}.pad={dataset.pad})",
        )
    for key in ("mean", "std"):
        if len(getattr(dataset, key)) != 3:
            raise ConfigError(f"{path}.{key}", list(getattr(dataset, key)), "must be three numbers")


def _check_width(config: Config) -> None:
    thin, wide = config.model.spec.width
    if not thin <= config.model.width <= wide:
        legal = f"must be {thin}" if thin == wide else f"must be from {thin} to {wide}"
        raise ConfigError("model.width", config.model.width, f"{legal} for {config.model.name}")


def _check_options(config: Config) -> None:
    model = config.model
    for name in (field.name for field in dataclasses.fields(model) if field.metadata["legacy"] is None):
        value, owners = getattr(model, name), [other for other, spec in MODELS.items() if name in spec.options]
        if value is None and name in model.options:
            legal = f"is needed for {model.name}; conf/model/{model.name}.yaml has a value"
            raise ConfigError(f"model.{name}", None, legal)
        if value is not None and name not in model.options:
            raise ConfigError(f"model.{name}", value, f"must be null for {model.name}; it is of {', '.join(owners)}")
    if model.depth is not None and model.depth % 6 != 4:
        below = (model.depth - 4) // 6 * 6 + 4
        legal = f"must be 6 times the bottlenecks of a block, and 4, such as {below} or {below + 6}"
        raise ConfigError("model.depth", model.depth, legal)


def _check_recipe(prefix: str, recipe: Recipe, schedule: str, lr: Decay) -> None:
    """Refuse what contradicts itself in a recipe, whose keys begin with `prefix`."""
    if recipe.nesterov and (recipe.optimizer != "sgd" or recipe.momentum == 0):
        legal = f"needs {prefix}optimizer=sgd and {prefix}momentum above 0"
        raise ConfigError(f"{prefix}nesterov", "true", f"{legal} (they are {recipe.optimizer} and {recipe.momentum})")
    given = lr.milestones
    if schedule == "multistep" and given is None:
        legal = f"needs {prefix}lr.milestones=[...], the epochs at which the rates fall"
        raise ConfigError(f"{prefix}schedule", schedule, legal)
    if given is not None and schedule != "multistep":
        legal = f"needs {prefix}schedule=multistep (it is {schedule})"
        raise ConfigError(f"{prefix}lr.milestones", list(given), legal)
    if given is not None and (not given or list(given) != sorted(set(given))):
        raise ConfigError(f"{prefix}lr.milestones", list(given), "must be rising epochs, as in [30,60]")
