"""`glyphs`: the embedded default data set, Unicode characters drawn in the fonts that matplotlib ships.

A thousand characters (`glyphs.txt`: present in all twelve DejaVu faces, distinct at 16 pixels) are drawn in a
random face, pose and pair of colours, over a shaded and noisy ground. Nothing is downloaded, every image is a
function of its class and its number, and features learned on one half of the characters serve the other half.
"""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tlprotocols.images import Decoder

FACES = tuple(
    f"DejaVu{family}{style}.ttf"
    for family, italic in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{italic}", f"-Bold{italic}")
)
TRAIN, VAL = 100, 20  # images per class
BOX = 64  # side of the box in which a character is drawn before it is posed, in pixels
PARTS = {"train": TRAIN, "val": VAL}


def characters() -> tuple[str, ...]:
    """The thousand characters, in code point order: a class each."""
    lines = Path(__file__).with_name("glyphs.txt").read_text().split()
    return tuple(chr(int(line.removeprefix("U+"), 16)) for line in lines)


def font_folder() -> Path:
    """Where matplotlib keeps its TrueType fonts."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf")


class Glyphs:
    """The source of the store: classes, counts and pictures."""

    def __init__(self) -> None:
        self.characters = characters()
        self.classes = tuple(f"U+{ord(c):04X}" for c in self.characters)
        self.counts = {part: (count,) * len(self.classes) for part, count in PARTS.items()}
        digest = hashlib.sha256(b"version 1")
        for face in FACES:
            digest.update((font_folder() / face).read_bytes())
        digest.update("".join(self.characters).encode())
        self.fingerprint = digest.hexdigest()

    unread = 0  # images: the content is known

    def read(self, advance: Callable[[int], None]) -> None:
        """Nothing is left to read."""

    def decoder(self, part: str, label: int) -> Decoder:
        """What draws one class. Validation pictures are drawn from other numbers."""
        return partial(pictures, self.characters[label], (label, int(part == "val")), PARTS[part])


def pictures(character: str, seeds: tuple[int, int], count: int, side: int) -> np.ndarray:
    """The pictures of one character, uint8 (count, side, side, 3)."""
    draw = np.random.RandomState(seeds)  # legacy generator: its stream never changes
    return np.stack([picture(character, draw, side) for _ in range(count)])


@cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_folder() / face, 40, layout_engine=ImageFont.Layout.BASIC)


@cache
def _stencil(character: str, face: str) -> Image.Image:
    """The upright character in one face, centred, white on black."""
    stencil, font = Image.new("L", (BOX, BOX)), _font(face)
    left, top, right, bottom = font.getbbox(character)
    ImageDraw.Draw(stencil).text(((BOX - left - right) / 2, (BOX - top - bottom) / 2), character, 255, font=font)
    return stencil


def picture(character: str, draw: np.random.RandomState, side: int) -> np.ndarray:
    """One picture, uint8 (side, side, 3): `draw` decides face, pose, colours, ground and noise."""
    stencil = _stencil(character, FACES[draw.randint(len(FACES))])
    angle, shear = np.deg2rad(draw.uniform(-15, 15)), draw.uniform(-0.2, 0.2)
    # the map from picture to stencil: smaller numbers magnify
    scale = BOX / side * draw.uniform(0.62, 0.95, 2)
    turn = np.array([[np.cos(angle), np.sin(angle) + shear], [-np.sin(angle), np.cos(angle)]]) * scale
    middle = side / 2 + draw.uniform(-0.08, 0.08, 2) * side
    shift = BOX / 2 - turn @ middle
    posed = stencil.transform(
        (side, side), Image.Transform.AFFINE, (*turn[0], shift[0], *turn[1], shift[1]), Image.Resampling.BILINEAR
    )
    ink = np.asarray(posed, np.float32)[..., None] / 255
    ground, colour = _two_colours(draw)
    slope = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    shade = draw.uniform(-60, 60, (2, 3)).astype(np.float32)
    backdrop = ground + slope[:, None, None] * shade[0] + slope[None, :, None] * shade[1]
    noise = draw.standard_normal((side, side, 3)).astype(np.float32) * np.float32(draw.uniform(4, 20))
    pixels: np.ndarray = np.clip(backdrop * (1 - ink) + colour * ink + noise, 0, 255)
    return pixels.astype(np.uint8)


def _two_colours(draw: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """A ground and an ink that a reader can tell apart."""
    while True:
        ground, ink = draw.uniform(0, 255, (2, 3)).astype(np.float32)
        if abs(float((ground - ink) @ np.array([0.3, 0.59, 0.11], np.float32))) > 70:
            return ground, ink
