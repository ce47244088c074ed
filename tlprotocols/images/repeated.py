"""Images that a run measures accuracy on and that it, or its base, is trained on: a network may know them by heart."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tlprotocols.config.identity import base_of
from tlprotocols.config.schema import Config
from tlprotocols.images.cache import Content, Image, ImageCache, Job, images_needed
from tlprotocols.images.splits import chosen, part_of, probed_classes, target_classes

Place = tuple[str, Image]  # the data set, and the image there: the same one, whatever side it is decoded at
Among = Mapping[tuple[str, Job], Sequence[int] | None]  # places within classes, by data set and class; None: all of it


def repeated_images(configs: Iterable[Config]) -> list[str]:
    """A line for each data set of these runs, whose images are decoded, of which a run measures accuracy on an image
    that is equal, pixel by pixel, to one that it, or its base, is trained on, also on another data set. Published data
    sets have some, so that they are not refused."""
    measured: dict[str, list[Config]] = {}
    for config in {_uses(config): config for config in configs}.values():
        measured.setdefault(_data_set(config), []).append(config)
    lines = []
    for runs in measured.values():
        groups, found = _equal_images(_decoded(runs)), set[Place]()
        among: dict[tuple[str, Job], list[int]] = {}
        for data_set, (part, label, place) in (image for group in groups for image in group):
            among.setdefault((data_set, (part, label)), []).append(place)
        for config in runs:
            found |= _learned_by_base(config)
            if among:
                trained, tested = _trained_on(config, among), _measured_on(config, among)
                found |= {image for group in groups if trained & group for image in tested & group}
        if found:
            cache, (_, (part, label, place)) = ImageCache.of(runs[0]), min(found)
            lines.append(
                f"note: {len(found)} {'images' if len(found) > 1 else 'image'} of {cache.dataset.name} that accuracy is"
                f" measured on {'are equal to images' if len(found) > 1 else 'is equal to one'} that the same run, or"
                f" its base, is trained on, the first being image {place + 1} of class {cache.classes[label]} in {part}"
            )
    return lines


def _uses(config: Config) -> tuple[object, ...]:
    """What decides which images a run is trained and measured on."""
    base = base_of(config)
    classes = (config.dataset, config.classes, config.split, config.target, config.probe)
    images = (config.n_per_class, config.test_per_class, config.fold, config.folds, config.subset)
    return *classes, *images, config.seed if config.subset == "random" else None, base and _uses(base)


def _data_set(config: Config) -> str:
    """The content of the images: their fingerprint."""
    return f"{config.dataset.name} {config.dataset.fingerprint}"


def _decoded(runs: Iterable[Config]) -> dict[Path, tuple[str, ImageCache, set[Job]]]:
    """The classes of these runs and of their bases, by folder: those that are decoded, since a finished base needs no
    images."""
    found: dict[Path, tuple[str, ImageCache, set[Job]]] = {}
    for config in (some for run in runs for some in (run, base_of(run)) if some is not None):
        cache = ImageCache.of(config)
        jobs = images_needed(config)
        found.setdefault(cache.folder, (_data_set(config), cache, set()))[2].update(jobs - set(cache.missing(jobs)))
    return found


def _equal_images(decoded: Mapping[Path, tuple[str, ImageCache, set[Job]]]) -> list[set[Place]]:
    """Groups of images that are equal, of several data sets."""
    sums = [own for _, cache, jobs in decoded.values() if jobs for _, own in cache.checksums(jobs).values()]
    values, counts = np.unique(np.concatenate(sums), return_counts=True)
    groups: dict[Content, set[Place]] = {}
    for data_set, cache, jobs in decoded.values():
        for content, images in cache.by_content(jobs, values[counts > 1]).items() if jobs else ():
            groups.setdefault(content, set()).update((data_set, image) for image in images)
    return [group for group in groups.values() if len(group) > 1]


def _learned_by_base(config: Config) -> set[Place]:
    """Images that the accuracy of a run is measured on, and that its base is trained on: with test_per_class or a fold,
    both of which are cut from training images, where the base learns classes of the run."""
    base = base_of(config)
    if base is None or _data_set(base) != _data_set(config):
        return set()
    cache = ImageCache.of(config)
    common = set(target_classes(config, cache.classes)) & set(target_classes(base, cache.classes))
    if not common:
        return set()
    every = {(_data_set(config), (part, label)): None for part in cache.index["counts"] for label in common}
    return _trained_on(base, every) & _measured_on(config, every)


def _trained_on(config: Config, among: Among) -> set[Place]:
    """Those of some images that the run, its probe, or its base is trained on."""
    found, classes = _used(config, "train", among), ImageCache.of(config).classes
    if config.probe:
        found |= _used(config, "train", among, probed_classes(config, classes))
    base = base_of(config)
    return found | _trained_on(base, among) if base is not None else found


def _measured_on(config: Config, among: Among) -> set[Place]:
    """Those of some images that the accuracy of the run, or of its probe, is measured on."""
    found = _used(config, "val", among) | _used(config, "test", among)
    probed = probed_classes(config, ImageCache.of(config).classes) if config.probe else ()
    return found | _used(config, "val", among, probed)


def _used(config: Config, part: str, among: Among, labels: Sequence[int] | None = None) -> set[Place]:
    """Those of some images that a run uses in one of its parts; `labels` are those that it learns unless given."""
    cache, data_set = ImageCache.of(config), _data_set(config)
    kept = str(part_of(config, part, cache.index["counts"]))
    found = set[Place]()
    for label in target_classes(config, cache.classes) if labels is None else labels:
        if (places := among.get((data_set, (kept, label)), ())) == ():
            continue
        which = chosen(config, part, label, cache.counts(kept)[label])
        which = which if places is None else which[np.isin(which, places)]
        found |= {(data_set, (kept, label, place)) for place in which.tolist()}
    return found
