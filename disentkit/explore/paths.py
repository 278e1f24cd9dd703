"""The sheet of paths: a row per direction, the picture at every step of it, under each what was asked and measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from disentkit.explore import images
from disentkit.explore.direction_row import DirectionRow, label
from disentkit.explore.meter import number, signed

TILE, LINE = 64, 13  # pixels: small tiles are enlarged up to this height; a line under a tile


class Way(NamedTuple):
    """One row: a direction, t at each of its n steps, the pictures (n, h, w, 3), and what was measured of them (n,).

    by  what measured it; empty, and `measured` None, where nothing did
    """

    row: DirectionRow
    t: Sequence[float]
    tiles: np.ndarray
    measured: Sequence[float] | None = None
    by: str = ""

    @property
    def words(self) -> list[str]:
        """Beside the row."""
        by = f"measured by {self.by}" if self.by else "not measured"
        return [label(self.row.row), f"t, likely {self.row.likely}", by]

    @property
    def under(self) -> list[list[str]]:
        """Under each picture."""
        asked = [[f"t {signed(t, self.row.digits)}"] for t in self.t]
        if self.measured is None:
            return asked
        return [[*said, number(value, self.row.digits)] for said, value in zip(asked, self.measured)]


def sheet(ways: Sequence[Way], title: str = "") -> np.ndarray:
    """One picture (H, W, 3) of labelled rows of pictures with words under each."""
    return images.sheet([(way.words, captioned(way.tiles, way.under)) for way in ways], title)


def captioned(tiles: np.ndarray, under: Sequence[Sequence[str]]) -> np.ndarray:
    """Tiles (n, h, w, 3), enlarged, with lines of text under each: (n, h', w', 3), the first line dark, others faint.

    Where a line is wider than the tiles, all of them get white on both sides.
    """
    tiles, font = images.enlarge(tiles, TILE), ImageFont.load_default(11)
    n, high, wide = tiles.shape[:3]
    full = max([wide, *(math.ceil(font.getlength(line)) + 4 for lines in under for line in lines)])
    below = LINE * max(len(lines) for lines in under) + 4
    made = np.full((n, high + below, full, 3), 255, np.uint8)
    left = (full - wide) // 2
    made[:, :high, left : left + wide] = tiles
    for tile, lines in zip(made, under):
        canvas = Image.new("RGB", (full, below), "white")
        draw = ImageDraw.Draw(canvas)
        for k, line in enumerate(lines):
            draw.text((full / 2, 1 + k * LINE), line, images.FAINT if k else images.INK, font, anchor="ma")
        tile[high:] = np.asarray(canvas)
    return made
