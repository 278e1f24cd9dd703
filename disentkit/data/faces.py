"""3D Faces: grey renderings of the Basel face model (Paysan, Knothe, Amberg, Romdhani, Vetter 2009), made by yourself.

Identity, azimuth, elevation and light, each turned through its whole range for each of the others: of the paper's real
objects the one set whose factors are known. The model's licence lets nobody hand on pictures, so each user renders
them. The FactorVAE paper shows reconstruction errors (Figure 12) and traversals. The array read here is that of the
beta-TCVAE authors: 50 identities x 21 azimuths x 11 elevations x 11 lights, 127,050 pictures of 64x64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from disentkit.data.base import ArrayData, Data, StoredGrid
from disentkit.data.factors import Factor, FactorSpace
from disentkit.data.folder import TABLE, read_folder
from disentkit.data.pictures import check_size, names_in, shrink
from disentkit.errors import UserError

ARRAYS = ("basel_face_renders.pth", "faces.npy")
AXES = ("identity", "azimuth", "elevation", "light")


def load(path: str | Path | None = None, size: int = 64, law=None) -> Data:
    """Your renderings: images (N, 1, size, size) uint8, shrunk where they are larger or smaller.

    path  a file, or a folder that holds one, named basel_face_renders.pth (a tensor) or faces.npy: the array
          (identities, azimuths, elevations, lights, H, W) uint8 of every combination. Or a folder of pictures, with a
          table `factors.csv` where their factors are known (see `data.folder`). Without one, `datasets/faces` in the
          kit's home
    law   how tuples of the array are drawn; a folder of pictures has none

    The factors of the array are places on its axes, counted from 0: identity a category, the others real numbers.
    Raises UserError where there is nothing to read, for arrays of other shapes or dtypes, and as `folder` does.
    """
    check_size(size)
    place = _place(path)
    array = next((f for f in (place, *(place / name for name in ARRAYS)) if f.is_file()), None)
    if array is not None:
        return StoredGrid(_read_array(array, size), law)
    if not place.is_dir() or not names_in(place):
        raise UserError(_how(place))
    if law is not None:
        raise UserError(f"{place} holds pictures, not the whole grid, so no law can draw from it; leave `law` out")
    return read_folder(place, size, color=False, name="faces")


def fetch() -> Path:
    """Raise UserError that says what to render: the face model's licence lets nobody hand on its pictures."""
    raise UserError(_how(_place(None)))


def _how(place: Path) -> str:
    return (
        f"no faces at {place}: the pictures cannot be handed on, so render the Basel face model and put there "
        f"{' or '.join(ARRAYS)}, a uint8 array ({', '.join(AXES)}, 64, 64), or grey pictures with a {TABLE}; "
        "or name another place with path=..."
    )


def _place(path: str | Path | None) -> Path:
    if path is None:
        from disentkit.data import folder_of

        return folder_of("faces")
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names a folder or file of faces; {path!r} is none")
    return Path(path).expanduser()


def _read_array(path: Path, size: int) -> ArrayData:
    """The array of a file as pictures in grid order, with their factors; nothing in the file is run."""
    try:
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
        else:
            found = np.asarray(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # numpy and torch raise a dozen kinds for a torn or different file
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is no array of numpy or torch ({why[:200]})") from None
    if found.ndim != 6 or found.dtype != np.uint8 or 0 in found.shape:
        raise UserError(f"{path} holds {found.dtype} {found.shape}, not uint8 ({', '.join(AXES)}, height, width)")
    counts, (high, wide) = found.shape[:4], found.shape[4:]
    images = found.reshape(-1, 1, high, wide)
    if (high, wide) != (size, size):
        images = np.stack([shrink(Image.fromarray(image[0]), size) for image in images])
    kinds = ("category", "real", "real", "real")
    space = FactorSpace(Factor(a, k, tuple(range(n))) for a, k, n in zip(AXES, kinds, counts, strict=True))
    return ArrayData(images, space.from_grid(space.tuple_of(torch.arange(len(images)))), space, name="faces")
