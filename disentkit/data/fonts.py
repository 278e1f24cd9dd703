"""Fonts (Ge, Abu-El-Haija, Xin, Itti, "Zero-shot Synthesis with Group-Supervised Learning", 2021), drawn anew.

A letter in one colour on a ground of another. Five factors that are plain to see, each of which can be taken from
another picture: which letter, how large, its colour, the ground's colour, the face. The colours and sizes are those of
the original; its faces were whatever its machine had, so the kit takes free faces that it can name (`glyphs.PINNED`).
Position, rotation, texture and words, as in the second version of the original, are options.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from disentkit.data import combinations, glyphs
from disentkit.data.base import Renderer
from disentkit.data.factors import FactorSpace, category
from disentkit.data.laws import Grid
from disentkit.errors import UserError, one_of, whole

SIZES = (32, 64, 128)
SPLITS = ("train", "test", "all")
COLOURS = {
    "red": (220, 20, 60),
    "orange": (255, 165, 0),
    "yellow": (255, 255, 0),
    "green": (0, 128, 0),
    "cyan": (0, 255, 255),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
    "pink": (255, 192, 203),
    "chocolate": (210, 105, 30),
    "silver": (192, 192, 192),
}
EMS = {"letter": (80, 100, 120), "word": (40, 50, 60)}  # small, medium, large: em in pixels of a picture of 128
EXTRAS = {
    "position": ("up", "mid", "down"),
    "rotation": ("0", "90", "180", "270"),
    "texture": ("none", "cloud", "wood", "marble"),
}
FIT = 224  # pixels of the raster of 256 that a glyph may take where it moves, so that every move shows
COLOUR, BACKGROUND = 2, 3  # columns


class Fonts(Renderer):
    """Coloured letters drawn in batches on any device.

    size   32, 64 or 128
    law    how factor tuples are drawn; `Grid()` without one, which also draws letters in the colour of their ground
    faces  a folder of further faces (.ttf, .otf), after the pinned ones
    extra  further factors, "position,rotation,texture" or some of them: in this order, after the five
    words  short words, at half the size, in place of letters
    letters  those that are used, as a text such as "ABCDE"; all 52 without one
    pinned   so many of the pinned faces, spread evenly over the list; all without a number

    Raises UserError for another size, an unknown extra or letter, and a folder without a usable face.

    How it is made: every glyph is drawn once as a soft mask with its bounding box in the middle, and kept on the
    device. A picture is a look-up and a blend of two colours. Where a glyph at the largest size is wider or higher than
    the picture (W of bold faces), its face is drawn smaller at all three sizes, so that nothing is cut off: size is
    exact within a face. Of a letter's extent in pixels, size, letter and face each have a part.

    - position puts the bounding box against the upper or lower border, a pixel of 64 apart. For it to show in every
      picture, faces are drawn smaller still where they need it: no glyph is larger than 7/8 of the picture.
    - rotation turns the glyph counter-clockwise about its middle, by degrees. It cannot be read from an O or, at half
      turns, from H, I, N, S, X, Z and their like.
    - texture multiplies the whole picture by a grey pattern, the same one in every picture.
    """

    name = "fonts"

    def __init__(
        self,
        size: int = 64,
        law=None,
        faces: str | Path | None = None,
        extra: str | Sequence[str] = "",
        words: bool = False,
        letters: str = "",
        pinned: int | None = None,
    ):
        self.size = _known_size(size)
        self.image_shape = (3, size, size)
        self.law = Grid() if law is None else law
        self.faces = _several(glyphs.pinned(), pinned)
        if faces is not None:
            self.faces += glyphs.faces_in(faces, self.faces)
        self.extra = _known_extra(extra)
        if not isinstance(words, bool):
            raise UserError(f"words is true or false, not {words!r}")
        kind, texts = ("word", glyphs.WORDS) if words else ("letter", _known_letters(letters))
        self._glyphs = self.faces, texts, EMS[kind], self.size
        if "position" in self.extra:
            self._glyphs += (FIT,)
        self.space = FactorSpace(
            [
                category(kind, *self._glyphs[1]),
                category("size", "small", "medium", "large"),
                category("colour", *COLOURS),
                category("background", *COLOURS),
                category("font", *(face.label for face in self.faces)),
                *(category(name, *EXTRAS[name]) for name in self.extra),
            ]
        )
        self._tables: dict[torch.device, _Tables] = {}

    def __repr__(self) -> str:
        kinds = " and ".join([f"{self.space.names[0]}s", *self.extra])
        return f"Fonts({kinds}, {len(self.faces)} faces, {self.size} pixels, {self.law})"

    def render(self, values: Tensor) -> Tensor:
        """Images (n, 3, size, size) float32 in [0, 1] of values (n, 5), or more with extras: all of them categories.

        A category between or beyond its values is drawn as the nearest one: a check would read the values back to the
        host, so it stays with whoever takes values from outside (`space.check`). The first batch on a device makes the
        tables. Raises ValueError for another number of columns.
        """
        if values.ndim != 2 or values.shape[1] != len(self.space):
            expected = f"(n, {len(self.space)}) for {', '.join(self.space.names)}"
            raise ValueError(f"factors must be {expected}, not {tuple(values.shape)}")
        if values.device not in self._tables:
            self._tables[values.device] = self._make_tables(values.device)
        images = torch.empty(len(values), *self.image_shape, device=values.device)
        # So many that a piece stays in a CPU's cache, or fits into any GPU's memory.
        piece = 32 * 64**2 // self.size**2 if values.device.type == "cpu" else 1024
        for part, out in zip(values.float().split(piece), images.split(piece), strict=True):
            self._draw(part, out)
        return images

    def _make_tables(self, device) -> _Tables:
        with torch.device("cpu"):  # also where another device is the default
            masks = glyphs.masks(*self._glyphs)
            turns = torch.arange(self.size**2).view(self.size, self.size)
            made = _Tables(
                masks=masks,
                colours=torch.tensor(list(COLOURS.values()))[:, :, None, None] / 255,
                last=torch.tensor(self.space.sizes) - 1,
                turns=torch.stack([turns.rot90(k) for k in range(4)]).flatten(1),
                moves=_moves(masks.view(-1, self.size, self.size)) if "position" in self.extra else torch.zeros(0),
                textures=_textures(self.size),
            )
        return _Tables(*(table.to(device) for table in made))

    def _draw(self, values: Tensor, out: Tensor) -> None:
        """Draw values (n, K) into out (n, 3, size, size)."""
        tables = self._tables[values.device]
        picks = torch.minimum(values.round().long().clamp(min=0), tables.last).unbind(1)
        glyph, size, colour, background, font = picks[:5]
        extra = dict(zip(self.extra, picks[5:], strict=True))
        entry = (glyph * 3 + size) * len(self.faces) + font
        mask = tables.masks[entry]  # (n, size * size) uint8
        if "position" in extra or "rotation" in extra:
            rotation = extra.get("rotation", torch.zeros_like(entry))
            # Which pixel of the mask each pixel of the picture shows: first moved back, then turned back.
            pixels = tables.turns[0].expand(len(values), -1)
            if "position" in extra:
                down = tables.moves[rotation, entry, extra["position"]]
                pixels = (pixels - self.size * down[:, None]) % self.size**2
            if "rotation" in extra:
                pixels = tables.turns.view(-1)[pixels + self.size**2 * rotation[:, None]]
            mask = mask.gather(1, pixels)
        share = mask.view(-1, 1, self.size, self.size).float().div_(255)
        # lerp is exact at both ends, so glyph and ground have the very colours of the table.
        torch.lerp(tables.colours[background], tables.colours[colour], share, out=out)
        if "texture" in extra:
            out.mul_(tables.textures[extra["texture"]])


class _Tables(NamedTuple):
    """What a device keeps."""

    masks: Tensor  # (entries, size * size) uint8, an entry for each glyph, size and face, the face fastest
    colours: Tensor  # (10, 3, 1, 1)
    last: Tensor  # (K,) each factor's last value
    turns: Tensor  # (4, size * size): the pixel that comes to each place by so many quarter turns
    moves: (
        Tensor  # (4, entries, 3): rows that a turned glyph goes down for each position; empty where none is asked for
    )
    textures: Tensor  # (4, 1, size, size)


def _moves(masks: Tensor) -> Tensor:
    """Rows (4, entries, 3) that masks (entries, size, size) go down, by quarter turns and position; up is negative."""
    size = masks.shape[1]
    rows, columns = (masks.amax(axis) > 0 for axis in (2, 1))  # (entries, size)
    top, left = (used.int().argmax(1) for used in (rows, columns))
    below, right = (used.flip(1).int().argmax(1) for used in (rows, columns))  # free pixels after the last one used
    apart = max(1, size // 64)
    above, below = torch.stack([top, right, below, left]), torch.stack([below, left, top, right])  # by quarter turns
    return torch.stack([apart - above, torch.zeros_like(above), below - apart], dim=2)


# ---- textures, from our own formulas


@functools.cache
def _textures(size: int) -> Tensor:
    """What each texture multiplies a picture by: (4, 1, size, size) float32 in 0.4 ... 1."""
    middles = (torch.arange(128, dtype=torch.float64) + 0.5) / 128
    v, u = torch.meshgrid(middles, middles, indexing="ij")  # down and right, in 0 ... 1
    cloud = ((_noise(3 * u, 3 * v, 5) - 0.25) / 0.5).clamp(0, 1)
    across = 11 * ((u - 0.35).square() + (v - 0.4).square() / 8).sqrt() + 0.8 * _noise(3 * u, 1.5 * v, 2)
    ring = across - across.floor()  # a year's growth, darker to its end; a board cut lengthwise
    wood = 0.8 * ring.pow(2) * (1 - ring.pow(12)) + 0.3 * _noise(40 * u, 2 * v, 1)
    marble = 1 - (torch.pi * (2 * u + 1.5 * v + 3 * _noise(2.5 * u, 2.5 * v, 5))).sin().abs().pow(0.6)
    dark = torch.stack([torch.zeros_like(u), cloud, wood.clamp(0, 1), marble])
    light = (1 - 0.6 * dark).unflatten(2, (size, -1)).mean(3).unflatten(1, (size, -1)).mean(2)
    return light[:, None].float()


def _noise(u: Tensor, v: Tensor, octaves: int) -> Tensor:
    """Smooth noise in 0 ... 1 at points (h, w): random values on a lattice, blended; each octave half as coarse."""
    total, weight = torch.zeros_like(u), 0.0
    for octave in range(octaves):
        x, y = u * 2**octave, v * 2**octave
        i, j = x.floor().long(), y.floor().long()
        s, t = ((d * d * (3 - 2 * d)) for d in (x - i, y - j))
        near, far = (torch.lerp(_lattice(i, j + k, octave), _lattice(i + 1, j + k, octave), s) for k in (0, 1))
        total += torch.lerp(near, far, t) / 2**octave
        weight += 1 / 2**octave
    return total / weight


def _lattice(i: Tensor, j: Tensor, octave: int) -> Tensor:
    """A random-looking number in 0 ... 1 for each whole-numbered point, the same on every machine."""
    mixed = (i * 73_856_093 ^ j * 19_349_663 ^ (octave + 1) * 83_492_791) & 0xFFFFFF
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 11)) * 0x5BD1E9) & 0xFFFFFF
    return (mixed ^ (mixed >> 13)).double() / 0xFFFFFF


# ---- as data


def same_colours(values: Tensor) -> Tensor:
    """Which tuples (n,) of values (n, K) show nothing: glyph and ground have one colour."""
    return values[:, COLOUR].round() == values[:, BACKGROUND].round()


def load(
    size: int = 64,
    split: str = "train",
    held_out: float = 0.2,
    faces: str | Path | None = None,
    extra: str | Sequence[str] = "",
    words: bool = False,
    letters: str = "",
    pinned: int | None = None,
) -> Fonts:
    """The renderer with a law that holds combinations out and never draws a letter in the colour of its ground.

    split     "train" draws what is not held out, "test" what is, "all" both
    held_out  share of the combinations that are held out, 0 ... 1; every value of every factor stays in training
    faces     a folder of further faces, `Fonts`' path
    extra, words, letters, pinned  as of `Fonts`

    Raises UserError for another size, split or share, an unknown extra or letter, and a folder without a usable face.
    """
    one_of("split", split, SPLITS)
    fonts = Fonts(size, None, faces, extra, words, letters, pinned)
    try:
        return fonts.with_law(combinations.held_out(fonts.space, held_out, split, same_colours))
    except (TypeError, ValueError) as error:
        raise UserError(f"fonts with held_out={held_out!r}: {error}") from None


def _known_size(size: int) -> int:
    if not isinstance(size, int) or size not in SIZES:
        raise UserError(f"fonts come in {', '.join(map(str, SIZES))} pixels, not {size!r}")
    return size


def _known_letters(letters: str) -> tuple[str, ...]:
    """The letters that are asked for, all without any."""
    if not isinstance(letters, str) or len(set(letters)) < len(letters) or not set(letters) <= set(glyphs.LETTERS):
        raise UserError(f"letters is a text of different letters A-Z and a-z, such as 'ABCDE', not {letters!r}")
    if len(letters) == 1:
        raise UserError(f"one letter is no choice: give two or more, not {letters!r}")
    return tuple(letters or glyphs.LETTERS)


def _several(faces: tuple[glyphs.Face, ...], pinned: int | None) -> tuple[glyphs.Face, ...]:
    """So many of the faces, the first and the last and others spread evenly between them."""
    if pinned is None:
        return faces
    whole("pinned", pinned, 2, len(faces))
    return tuple(faces[round(i * (len(faces) - 1) / (pinned - 1))] for i in range(pinned))


def _known_extra(extra: str | Sequence[str]) -> tuple[str, ...]:
    """The extras that are asked for, in the order of EXTRAS."""
    if not isinstance(extra, str | Sequence):
        raise UserError(f"extra names factors, for example 'position,rotation', not {extra!r}")
    asked = [name.strip() for name in extra.split(",") if name.strip()] if isinstance(extra, str) else extra
    for name in asked:
        one_of("extra", name, EXTRAS)
    return tuple(name for name in EXTRAS if name in asked)
