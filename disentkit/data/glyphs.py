"""Letters and words as soft masks: a pinned list of free faces, those of a user's folder, and one table of bytes.

The pinned faces come with matplotlib, which lays their licences beside them: DejaVu (`LICENSE_DEJAVU`), STIX
(`LICENSE_STIX`) and BaKoMa Computer Modern (in matplotlib's own LICENSE). They are named by file, so that another
version with more faces draws the same data set.

Every glyph is drawn once at each of its three sizes on a raster of 256 pixels, and its table entry is the mean over
blocks of that. So pictures of 32, 64 and 128 pixels show one figure, and hinting, which moves outlines to whole pixels
of the raster, hardly shows.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from disentkit.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
WORDS = tuple("ant bee cat dog egg fox gem hat ice jar key leg nut owl pig red sun tie van web".split())
RASTER = 256  # pixels of the raster's side
FIT = 240  # no glyph is wider or higher on the raster: a pixel of 32 stays free at every border
CANVAS = (2 * RASTER, 2 * RASTER)  # a glyph is drawn here first, to find its bounding box
ENDINGS = (".ttf", ".otf")
NAMED = 3  # rejected files named with their reason

PINNED = {
    "DejaVu Sans": "DejaVuSans.ttf",
    "DejaVu Sans bold": "DejaVuSans-Bold.ttf",
    "DejaVu Sans oblique": "DejaVuSans-Oblique.ttf",
    "DejaVu Sans bold oblique": "DejaVuSans-BoldOblique.ttf",
    "DejaVu Mono": "DejaVuSansMono.ttf",
    "DejaVu Mono bold": "DejaVuSansMono-Bold.ttf",
    "DejaVu Mono oblique": "DejaVuSansMono-Oblique.ttf",
    "DejaVu Mono bold oblique": "DejaVuSansMono-BoldOblique.ttf",
    "DejaVu Serif": "DejaVuSerif.ttf",
    "DejaVu Serif bold": "DejaVuSerif-Bold.ttf",
    "DejaVu Serif italic": "DejaVuSerif-Italic.ttf",
    "DejaVu Serif bold italic": "DejaVuSerif-BoldItalic.ttf",
    "STIX": "STIXGeneral.ttf",
    "STIX bold": "STIXGeneralBol.ttf",
    "STIX italic": "STIXGeneralItalic.ttf",
    "STIX bold italic": "STIXGeneralBolIta.ttf",
    "Computer Modern": "cmr10.ttf",
    "Computer Modern bold": "cmb10.ttf",
    "Computer Modern italic": "cmti10.ttf",
    "Computer Modern sans": "cmss10.ttf",
    "Computer Modern typewriter": "cmtt10.ttf",
}


@dataclass(frozen=True)
class Face:
    """A file that holds a face, and what it is called."""

    label: str
    path: str


@functools.cache
def pinned() -> tuple[Face, ...]:
    """The pinned faces in their order; raises UserError where matplotlib came without one of them."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    if missing := [file for file in PINNED.values() if not (folder / file).is_file()]:
        raise UserError(f"matplotlib came without the face {missing[0]} in {folder}: install matplotlib anew")
    return tuple(Face(label, str(folder / file)) for label, file in PINNED.items())


@functools.cache
def masks(faces: tuple[Face, ...], texts: tuple[str, ...], ems: tuple[int, ...], size: int, fit: int = FIT) -> Tensor:
    """Every glyph's mask (texts * ems * faces, size * size) uint8 on the CPU, 255 inside; the face moves fastest.

    ems  the sizes in pixels of a picture of 128
    fit  how wide and high a glyph may be, in pixels of the raster

    A glyph lies with its bounding box in the middle of the picture. Where one of a face's glyphs exceeds `fit` at the
    largest em, all of that face is drawn smaller, so that nothing is cut off and its sizes keep their proportion.
    """
    table = np.empty((len(texts), len(ems), len(faces), size, size), np.uint8)
    frame = Image.new("L", (RASTER, RASTER))
    for f, face in enumerate(faces):
        raster = [em * RASTER / 128 for em in ems]
        large = _inks(face.path, texts, max(raster))
        scale = 1.0
        while (widest := max(max(ink.size) for ink in large)) > fit:
            scale *= min(fit / widest, 0.995)  # again and again, for hinting bends the proportion
            large = _inks(face.path, texts, max(raster) * scale)
        for e, em in enumerate(raster):
            for t, ink in enumerate(large if em == max(raster) else _inks(face.path, texts, em * scale)):
                frame.paste(0, (0, 0, RASTER, RASTER))
                frame.paste(ink, ((RASTER - ink.width) // 2, (RASTER - ink.height) // 2))
                table[t, e, f] = np.asarray(frame.reduce(RASTER // size))
    return torch.from_numpy(table.reshape(-1, size * size))


def _inks(path: str, texts: Sequence[str], em: float) -> list[Image.Image]:
    """What a face draws for each text, cut to its bounding box; what reaches the canvas's rim is as large as that.

    Raises ValueError for a text that draws nothing.
    """
    font = ImageFont.truetype(path, em, layout_engine=ImageFont.Layout.BASIC)  # the same with and without libraqm
    canvas = Image.new("L", CANVAS)
    draw = ImageDraw.Draw(canvas)
    inks = []
    for text in texts:
        draw.text((CANVAS[0] / 2, CANVAS[1] / 2), text, fill=255, font=font, anchor="mm")
        box = canvas.getbbox()
        if box is None:
            raise ValueError(f"draws nothing for '{text}'")
        whole = min(box[:2]) > 0 and box[2] < CANVAS[0] and box[3] < CANVAS[1]
        inks.append(canvas.crop(box) if whole else canvas.copy())
        canvas.paste(0, box)
    return inks


# ---- a folder of one's own


def faces_in(folder: str | Path, known: tuple[Face, ...] = ()) -> tuple[Face, ...]:
    """The usable faces (.ttf, .otf) under a folder, in the order of their names.

    A face must draw all 52 letters, each unlike the others, and not as one of the faces before it (`known` first).
    Files that do not are left out, and one warning says why. Raises UserError where none is left.
    """
    if not isinstance(folder, str | Path):
        raise UserError(f"`faces` names a folder ({' '.join(ENDINGS)}); {folder!r} is none")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; `faces` names a folder ({' '.join(ENDINGS)})")
    files = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith(".") and p.is_file()
    )
    if not files:
        raise UserError(f"{folder} holds no face: no file ends in {' or '.join(ENDINGS)}")

    seen = {_print_of(_inks(face.path, LETTERS, 60)): face.label for face in known}
    labels = [face.label for face in known]
    found, rejected = [], []
    for file in files:
        try:
            mark = _print_of(_checked(str(file)))
            if mark in seen:
                raise ValueError(f"draws what {seen[mark]} draws")
        except (OSError, ValueError) as error:  # Pillow's reading errors are OSErrors
            rejected.append(f"{file.relative_to(folder).as_posix()} {_reason(error)}")
            continue
        label = _label(file, labels)
        labels.append(label)
        seen[mark] = label
        found.append(Face(label, str(file.resolve())))
    more = f"; and {len(rejected) - NAMED} more" if len(rejected) > NAMED else ""
    told = "; ".join(rejected[:NAMED]) + more
    if not found:
        raise UserError(f"none of the {len(files)} faces in {folder} can be used: {told}")
    if rejected:
        warnings.warn(f"left out {len(rejected)} of {len(files)} faces in {folder}: {told}", stacklevel=3)
    return tuple(found)


def _checked(path: str) -> list[Image.Image]:
    """The 52 letters of a face; raises ValueError where one is not there or is no letter of its own."""
    inks = _inks(path, LETTERS, 60)
    try:
        absent = _bytes_of(_inks(path, "\uffff", 60)[0])  # no character at all: what is drawn for one that lacks
    except ValueError:
        absent = b""
    pictures: dict[bytes, str] = {}
    for letter, ink in zip(LETTERS, inks, strict=True):
        if ink.size == CANVAS:
            raise ValueError(f"draws '{letter}' many times larger than its em")
        picture = _bytes_of(ink)
        if picture == absent:
            raise ValueError(f"has no '{letter}'")
        if picture in pictures:
            raise ValueError(f"draws '{letter}' as '{pictures[picture]}'")
        pictures[picture] = letter
    return inks


def _bytes_of(ink: Image.Image) -> bytes:
    return bytes(str(ink.size), "ascii") + ink.tobytes()


def _print_of(inks: list[Image.Image]) -> bytes:
    return b"".join(_bytes_of(ink) for ink in inks)


def _label(file: Path, taken: list[str]) -> str:
    """A face's own name, "Family Style"; its file's name where it has none or another face has that name."""
    family, style = ImageFont.truetype(str(file), 10).getname()
    name = " ".join(part for part in (family, style) if part and part not in ("Regular", "Book"))
    for label in (name, file.stem):
        if label and label not in taken:
            return label
    return os.fspath(file)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be opened ({error.strerror or error})"
    return str(error)
