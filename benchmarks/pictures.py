"""Folders of image files to measure with: glyphs drawn on the spot, where no other root is given."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tlprotocols.config.compose import load
from tlprotocols.config.schema import Config
from tlprotocols.images.glyphs import Glyphs


def draw(root: Path, labels: Sequence[int], side: int, suffix: str = "png", most: int = 100) -> Path:
    """Glyphs as a tree of train/CLASS/NUMBER and val/CLASS/NUMBER; PNGs hold exactly the pictures of our store."""
    glyphs = Glyphs()
    for part in ("train", "val"):
        for label in labels:
            folder = root / part / glyphs.classes[label]
            folder.mkdir(parents=True)
            for number, picture in enumerate(glyphs.decoder(part, label)(side)[:most]):
                Image.fromarray(picture).save(folder / f"{number:03}.{suffix}", quality=90)
    return root


def jpegs(root: str | None, scratch: Path, classes: int, store: Path) -> Config:
    """Real JPEGs of 64 pixels, cropped to 56: Tiny ImageNet under `root`, else glyphs in a scratch folder."""
    name = "tiny_imagenet" if root else "folder"
    where = root or str(draw(scratch / "jpegs", range(classes), 64, "jpg"))
    crops = ["dataset.side=64", "dataset.pixels=56", "dataset.pad=0"]
    return load(
        f"dataset={name}", f"dataset.root={where}", *crops, f"machine.image_cache={store}", "layers=0", "classes=all"
    )
