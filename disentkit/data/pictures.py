"""Pictures from files: which a folder holds, each brought to one square size, all of them in one array.

Large sets are kept, shrunk, under the kit's home (`cache/`): the 202,599 pictures of CelebA take minutes to decode and
seconds to read back. Such a file is used only while every picture has the name, size and date it had; it may be deleted
at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps
from tqdm import tqdm

from disentkit.errors import UserError
from disentkit.places import home

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
CENTRE = 1 << 30  # as `crop`: the largest central square
NAMED = 20  # broken files named in the warning
LARGE = 5_000  # from so many pictures on they are kept shrunk, and a bar shows how far the reading is


def names_in(folder: Path) -> list[str]:
    """The pictures under a folder, subfolders included, as sorted paths "a/b.png"; hidden ones are left out."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        within = Path(place).relative_to(folder).as_posix()
        names = [f for f in files if f.lower().endswith(ENDINGS) and not f.startswith(".")]
        found += names if within == "." else [f"{within}/{name}" for name in names]
    return sorted(found)


def check_size(size) -> None:
    """Raise UserError unless `size` can be the side of a picture in pixels."""
    if not isinstance(size, int) or size < 1:
        raise UserError(f"size is a number of pixels, not {size!r}")


def read_all(
    folder: Path, names: list[str], size: int, color: bool = True, crop: int | None = CENTRE, name: str = "pictures"
) -> tuple[np.ndarray, list[str]]:
    """The named pictures of a folder as (N, 3 or 1, size, size) uint8, and the names of the N that could be read.

    crop  side of the central square that is kept, in pixels of the original; a smaller picture keeps all the square it
          has. None: the whole picture, its sides squeezed to a square
    name  what the kept file is called

    One warning names the files that cannot be read. Raises UserError where none can, or memory does not suffice.
    """
    kept = _kept_file(folder, size, color, crop, name) if len(names) >= LARGE else None
    state = _state(folder, names) if kept else ""
    images, broken = _from_kept(kept, state, len(names)) if kept else (None, [])
    if images is None:
        images, broken = _decode(folder, names, size, color, crop)
        if kept and len(images):
            _keep(kept, state, images, broken)
    if not len(images):
        found = f"none of its {len(names)} pictures can be read" if names else "it holds no picture"
        raise UserError(f"nothing to load from {folder}: {found}; accepted endings are {' '.join(ENDINGS)}")
    if broken:
        more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        listed = ", ".join(broken[:NAMED]) + more
        warnings.warn(f"left out {len(broken)} of {len(names)} pictures that cannot be read: {listed}", stacklevel=3)
    left_out = set(broken)
    return images, [n for n in names if n not in left_out]


def read(path: Path, size: int, color: bool = True, crop: int | None = CENTRE) -> np.ndarray:
    """One picture as (3 or 1, size, size) uint8: upright, cropped, resized, black where it is transparent.

    Raises whatever its decoder raises.
    """
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip instead of scaling
            picture = Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8))
        elif picture.mode == "F":
            raise ValueError("float pixels have no known range")
        elif picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
        picture = picture.convert("RGB")
    return shrink(picture if color else picture.convert("L"), size, crop)


def shrink(picture: Image.Image, size: int, crop: int | None = CENTRE) -> np.ndarray:
    """A picture of mode RGB or L as (3 or 1, size, size) uint8, cropped and resized (Lanczos)."""
    if crop is not None:
        side = min(*picture.size, crop)
        left, top = ((whole - side) // 2 for whole in picture.size)
        picture = picture.crop((left, top, left + side, top + side))
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))  # (size, size) or (size, size, 3)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _decode(folder: Path, names: list[str], size: int, color: bool, crop: int | None) -> tuple[np.ndarray, list[str]]:
    """Read every picture; the images (N, C, size, size) of those that can be read, and the names of the others."""
    shape = (len(names), 3 if color else 1, size, size)
    try:
        images = np.empty(shape, np.uint8)
    except MemoryError:
        need = f"{np.prod(shape, dtype=float) / 1e9:.1f} GB"
        raise UserError(f"{len(names)} pictures of {size} pixels take {need} of memory; take a smaller size") from None

    def one(i: int) -> bool:
        try:
            images[i] = read(folder / names[i], size, color, crop)
            return True
        except Exception:  # decoders raise a dozen kinds of error; whichever it is, the file is named and left out
            return False

    good = np.zeros(len(names), bool)
    bar = tqdm(total=len(names), desc=folder.name, unit="picture", disable=len(names) < LARGE, dynamic_ncols=True)
    with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding lets other threads run
        for start in range(0, len(names), 1000):  # in parts, so that Ctrl-C need not wait for the rest
            part = range(start, min(start + 1000, len(names)))
            good[start : part.stop] = list(pool.map(one, part))
            bar.update(len(part))
    return images if good.all() else images[good], [n for n, ok in zip(names, good, strict=True) if not ok]


# ---- pictures that are kept, shrunk


def _kept_file(folder: Path, size: int, color: bool, crop: int | None, name: str) -> Path:
    """Where the shrunk pictures of a folder are kept; one file for each way to shrink them."""
    asked = os.fsencode(f"{folder.resolve()} {size} {color} {crop}")
    return home() / "cache" / f"{name}-{hashlib.sha256(asked).hexdigest()[:12]}.npz"


def _state(folder: Path, names: list[str]) -> str:
    """Sixteen hex digits of every picture's name, length and date, and of the version that decodes them."""
    digest = hashlib.sha256(PIL.__version__.encode())
    for name in names:
        digest.update(os.fsencode(name))
        with suppress(OSError):  # a link to nowhere, for example: it will be among the broken ones
            about = os.stat(folder / name)
            digest.update(f"\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _from_kept(path: Path, state: str, count: int) -> tuple[np.ndarray | None, list[str]]:
    """The kept images and the names that could not be read; None where there are none, older or damaged ones."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if str(file["state"]) == state and len(file["broken"]) + len(images := file["images"]) == count:
                return images, file["broken"].tolist()
    except Exception:  # missing, torn or another file: numpy, zipfile and zlib raise a dozen kinds; read anew
        pass
    return None, []


def _keep(path: Path, state: str, images: np.ndarray, broken: list[str]) -> None:
    """Write the kept file by one rename; a disk that refuses is told and costs no more than the next reading."""
    draft = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=".draft-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, state=np.array(state), broken=np.array(broken, dtype=str), images=images)
        os.replace(draft, path)
        draft = None
    except OSError as error:
        why = error.strerror or error
        warnings.warn(f"the shrunk pictures could not be kept in {path.parent} ({why}): next time they are read anew",
                      stacklevel=4)  # fmt: skip
    finally:
        if draft:
            with suppress(OSError):
                os.unlink(draft)
