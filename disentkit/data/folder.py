"""Your own pictures: every image file under a folder, brought to one square size. They have no factors."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from disentkit.data.base import ArrayData
from disentkit.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NAMED = 20  # broken files named in the warning


def load(path: str | Path, size: int = 64, color: bool = True) -> ArrayData:
    """Pictures under `path`, subfolders included, in the order of their names: images (N, 3 or 1, size, size) uint8.

    Each is turned upright (EXIF), cropped to its central square and resized; transparent parts become black, the ground
    of the kit's other data. color=False makes them grey. Hidden files are left out. Files that cannot be read are
    left out too, and one warning names them.

    Raises UserError where `path` is no folder, holds no picture, or none that can be read.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names a folder of pictures; {path!r} is none")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; `path` names a folder of pictures ({' '.join(ENDINGS)})")
    if not isinstance(size, int) or size < 1:
        raise UserError(f"size is a number of pixels, not {size!r}")
    names = sorted(
        name.as_posix()
        for name in (found.relative_to(folder) for found in folder.rglob("*") if found.is_file())
        if name.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in name.parts)
    )
    pictures, broken = [], []
    for name in names:
        try:
            pictures.append(_read(folder / name, size, color))
        except Exception:  # decoders raise a dozen kinds of error; whichever it is, the file is named and left out
            broken.append(name)
    if not pictures:
        found = f"none of its {len(names)} pictures can be read" if names else "it holds no picture"
        raise UserError(f"nothing to load from {folder}: {found}; accepted endings are {' '.join(ENDINGS)}")
    if broken:
        more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        listed = ", ".join(broken[:NAMED]) + more
        warnings.warn(f"left out {len(broken)} of {len(names)} pictures that cannot be read: {listed}", stacklevel=2)
    return ArrayData(np.stack(pictures), name="folder")


def _read(path: Path, size: int, color: bool) -> np.ndarray:
    """One picture as (3 or 1, size, size) uint8."""
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip instead of scaling
            picture = Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8))
        elif picture.mode == "F":
            raise ValueError("float pixels have no known range")
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
        picture = ImageOps.fit(picture.convert("RGB" if color else "L"), (size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)  # (size, size, 3) or (size, size)
    return pixels.transpose(2, 0, 1) if color else pixels[None]
