"""Fonts from files: the layout of the published set (Ge, Abu-El-Haija, Xin, Itti 2021), read, and written by `export`.

    LETTER/SIZE/COLOUR/BACKGROUND/FONT/LETTER_SIZE_COLOUR_BACKGROUND_FONT.png
    A/small/red/Yellow/dejavusans/A_small_red_Yellow_dejavusans.png

Letters are A-Z and a-z, sizes small, medium and large, colours the ten of `fonts.COLOURS`, of which the set writes only
"Yellow" with a capital. The fonts were those of its authors' machine, about a hundred. Pictures are 128x128; where both
colours would be one there is none. Factors come from the folders, since the names of fonts may hold underscores. A disk
that takes A for a cannot hold this layout.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from disentkit.data.base import ArrayData, Data
from disentkit.data.fonts import COLOURS
from disentkit.data.glyphs import LETTERS
from disentkit.data.labelled import place_of, rows_in, to_array
from disentkit.data.pictures import check_size
from disentkit.errors import UserError, whole

URL = "http://ilab.usc.edu/datasets/fonts"
LIKE = "A/small/red/blue/FONT/A_small_red_blue_FONT.png"
FACTORS = {  # in the order of the folders, with the order of their values
    "letter": tuple(LETTERS),
    "size": ("small", "medium", "large"),
    "colour": tuple(COLOURS),
    "background": tuple(COLOURS),
    "font": (),
}
WRITTEN = {"yellow": "Yellow"}  # colours that the layout writes otherwise than `COLOURS`


def load(path: str | Path | None = None, size: int | None = 64, most: int | None = None) -> ArrayData:
    """The pictures of a folder in the published layout: images (N, 3, size, size) uint8, 12,288 bytes each at 64.

    path  the folder that holds A/, B/ ..., or one around it; without one, `datasets/fonts_folder` in the kit's home.
          Any number of the pictures will do
    size  side to which every picture is resized; None: as they are stored, which must be one square size
    most  so many of the pictures at most, picked once and for all: the whole set takes 17 GB of memory at 64

    Factors, all of them categories, as in the data set `fonts`: letter, size, colour, background, font. Their values
    are those that occur: letters A-Z a-z, sizes and colours in the usual order, fonts in alphabetical order. Pictures
    that cannot be read, or whose path is another, are left out and named in a warning.

    Raises UserError where there is no such picture, and with size=None for pictures of several sizes.
    """
    if size is not None:
        check_size(size)
    folder = place_of("fonts_folder", path, LIKE)
    rows = rows_in(folder, _parsed, LIKE, _how(folder))
    if most is not None and whole("most", most) < len(rows):
        picked = set(random.Random(0).sample(range(len(rows)), most))
        rows = {name: row for i, (name, row) in enumerate(rows.items()) if i in picked}
    return to_array(folder, rows, FACTORS, size or _stored_size(folder, list(rows)), "fonts_folder")


def fetch() -> Path:
    """Raise UserError that says where to get the set: no checksum is known to check a download by."""
    raise UserError(_how(place_of("fonts_folder", None, LIKE)))


def _how(folder: Path) -> str:
    return (
        f"no pictures in {folder}: unpack the Fonts set of {URL} there, so that it holds {LIKE}, or name another "
        "folder with path=...; `disentkit data export fonts --format fonts` writes such a one"
    )


def _parsed(name: str) -> tuple[str, ...] | None:
    """The five words of a path, colours as in `COLOURS`; None where folders and file do not say the same."""
    *folders, file = name.split("/")
    words = folders[-len(FACTORS) :]
    if len(words) < len(FACTORS) or file.rpartition(".")[0] != "_".join(words):
        return None
    letter, size, *colours, font = words
    return letter, size, *(c.lower() if c.lower() in COLOURS else c for c in colours), font


def _stored_size(folder: Path, names: list[str]) -> int:
    """The one side of all pictures that can be opened; raises UserError where they differ or are not square."""
    first, known = "", None
    for name in names:
        try:
            with Image.open(folder / name) as opened:
                found = opened.size
        except Exception:  # decoders raise a dozen kinds of error; reading will name the file
            continue
        told = f"{name} in {folder} is {found[0]}x{found[1]}"
        if found[0] != found[1]:
            raise UserError(f"{told}, which is no square: say to which size=... pictures are brought")
        first, known = first or name, known or found
        if found != known:
            raise UserError(f"{told}, but {first} {known[0]}x{known[1]}: say to which size=... all are brought")
    return known[0] if known else 1


# ---- writing


def check(data: Data) -> None:
    """Raise UserError unless the factors of data are the five of the layout, categories all of them."""
    space = data.space
    names = space.names if space else ()
    if sorted(names) != sorted(FACTORS) or any(factor.kind != "category" for factor in space):
        raise UserError(
            f"format 'fonts' is for the categories {', '.join(FACTORS)}, but '{data.name}' has "
            f"{', '.join(names) or 'no factors'}"
        )


class Places:
    """Where the layout has pictures of data that passed `check`: a function from their factors to a path.

    Words become names of folders that every system takes: other characters than letters, digits and ._+- and spaces
    become underscores, and of two words that would be one the later gets another underscore.
    """

    def __init__(self, data: Data):
        self._columns = [(data.space.index(name), _folders(data.space[name])) for name in FACTORS]

    def __call__(self, values) -> Path:
        """The path below the folder of the export, for values (5,)."""
        words = [folders[int(values[column])] for column, folders in self._columns]
        return Path(*words, "_".join(words) + ".png")


def _folders(factor) -> list[str]:
    """A folder's name for each value of a factor."""
    written: Mapping[str, str] = WRITTEN if factor.name in ("colour", "background") else {}
    upper_too = factor.name == "letter"  # where A and a are two values; fonts may differ on any disk
    found, taken = [], set()
    for label in factor.labels or map(str, range(len(factor))):
        word = re.sub(r"[^\w.+\- ]", "_", written.get(label, label)).strip(" .") or "_"
        while (key := word if upper_too else word.lower()) in taken:
            word += "_"
        taken.add(key)
        found.append(word)
    return found
