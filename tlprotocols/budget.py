"""How long a run trains: whole epochs, or exactly so many updates, of which the last epoch may have a part only; or
until the validation loss no longer falls.

Order and crops of an epoch are functions of (seed, epoch): a part of an epoch is the beginning of that epoch.
"""

import math
from collections.abc import Sequence

from tlprotocols.config.schema import Recipe
from tlprotocols.lr_schedule import falls_on_plateau


def epochs_needed(recipe: Recipe, images: int) -> int:
    """Epochs of `images` training images that `max_updates` comes to, the last one perhaps in part; else `epochs`."""
    return math.ceil(recipe.max_updates / _updates_per_epoch(recipe, images)) if recipe.max_updates else recipe.epochs


def updates(recipe: Recipe, images: int, epochs: int) -> int:
    """Updates after so many epochs of `images` training images."""
    done = epochs * _updates_per_epoch(recipe, images)
    return min(done, recipe.max_updates) if recipe.max_updates else done


def image_passes(recipe: Recipe, images: int, epochs: int) -> int:
    """Images trained on after so many epochs of `images` training images, an image as often as it was seen."""
    whole, rest = divmod(updates(recipe, images, epochs), _updates_per_epoch(recipe, images))
    return whole * images + min(images, rest * recipe.batch_size)


def images_of_epoch(recipe: Recipe, images: int, epoch: int) -> int:
    """How many of `images` training images `epoch` (0 is the first) learns: all, unless the updates end in it."""
    return image_passes(recipe, images, epoch + 1) - image_passes(recipe, images, epoch)


def ends_early(recipe: Recipe, losses: Sequence[float]) -> bool:
    """Whether training ends after the epochs that had these validation losses: `stop_after` epochs without a lower one.

    The rule of EarlyStopping in Keras with min_delta=0. The weights are those of the last epoch, not of the best one.
    """
    return recipe.stop_after > 0 and falls_on_plateau(losses, recipe.stop_after) > 0


def _updates_per_epoch(recipe: Recipe, images: int) -> int:
    return max(1, math.ceil(images / recipe.batch_size))
