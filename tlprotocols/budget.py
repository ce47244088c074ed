"""How long a run trains: whole epochs, or exactly so many updates, of which the last epoch may have a part only; or
until the validation loss no longer falls.

An epoch is one pass over the training images, or as many as `epoch_updates` needs. Order and crops of a pass are
functions of (seed, number of the pass): a part of an epoch is the beginning of that epoch.
"""

import math
from collections.abc import Sequence

from tlprotocols.config.schema import Recipe
from tlprotocols.lr_schedule import falls_on_plateau

BIT = ((20_000, 500), (500_000, 10_000), (math.inf, 20_000))  # updates for fewer images than so many


def epochs_needed(recipe: Recipe, images: int) -> int:
    """Epochs over `images` training images that `max_updates` comes to, the last one perhaps in part; else `epochs`."""
    wanted = _max_updates(recipe, images)
    return math.ceil(wanted / _updates_per_epoch(recipe, images)) if wanted else recipe.epochs


def updates(recipe: Recipe, images: int, epochs: int) -> int:
    """Updates after so many epochs of `images` training images."""
    done = epochs * _updates_per_epoch(recipe, images)
    return min(done, _max_updates(recipe, images) or done)


def image_passes(recipe: Recipe, images: int, epochs: int) -> int:
    """Images trained on after so many epochs of `images` training images, an image as often as it was seen."""
    whole, rest = divmod(updates(recipe, images, epochs), _updates_per_pass(recipe, images))
    return whole * images + min(images, rest * recipe.batch_size)


def images_of_epoch(recipe: Recipe, images: int, epoch: int) -> int:
    """Images that `epoch` (0 is the first) trains on, an image as often as it is seen: all of them in each pass, unless
    the updates end in it."""
    return image_passes(recipe, images, epoch + 1) - image_passes(recipe, images, epoch)


def passes_of_epoch(recipe: Recipe, images: int, epoch: int) -> list[tuple[int, int]]:
    """The passes of an epoch: of each, its number among all passes of the run, and how many images it trains on."""
    whole, rest = divmod(images_of_epoch(recipe, images, epoch), images)
    first = epoch * _passes(recipe, images)
    return [(first + place, count) for place, count in enumerate([*[images] * whole, rest]) if count]


def ends_early(recipe: Recipe, losses: Sequence[float]) -> bool:
    """Whether training ends after the epochs that had these validation losses: `stop_after` epochs without a lower one.

    The rule of EarlyStopping in Keras with min_delta=0. The weights are those of the last epoch, not of the best one.
    """
    return recipe.stop_after > 0 and falls_on_plateau(losses, recipe.stop_after) > 0


def _max_updates(recipe: Recipe, images: int) -> int:
    """`max_updates` as a number. `bit`: of BiT-HyperRule (Kolesnikov et al. 2020, sec. 3.3)."""
    if recipe.max_updates == "bit":
        return next(updates for most, updates in BIT if images < most)
    return int(recipe.max_updates)


def _passes(recipe: Recipe, images: int) -> int:
    """Passes over the images in an epoch: as few as make `epoch_updates` updates."""
    return max(1, math.ceil(recipe.epoch_updates / _updates_per_pass(recipe, images)))


def _updates_per_epoch(recipe: Recipe, images: int) -> int:
    return _passes(recipe, images) * _updates_per_pass(recipe, images)


def _updates_per_pass(recipe: Recipe, images: int) -> int:
    return max(1, math.ceil(images / recipe.batch_size))
