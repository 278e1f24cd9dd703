"""The official file of 3D Shapes (Burgess and Kim 2018): fetched, checked, and read piece by piece."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disentkit.errors import UserError

FILE = "3dshapes.h5"
URL = f"https://storage.googleapis.com/3d-shapes/{FILE}"
MD5 = "099a2078d58cec4daad0702c55d06868"
STEP = 8192  # pictures that are read at a time


def fetch() -> Path:
    """Download the official h5 (268 MB) into the kit's home, check it, and return its path."""
    from disentkit.data import download

    return download(URL, FILE, MD5, folder="shapes3d")


def place_of(source: str | Path) -> Path:
    """The file that `source` names, or holds."""
    if not isinstance(source, str | Path):
        raise UserError(f"`source` names {FILE} or its folder; {source!r} is none")
    path = Path(source).expanduser()
    return path / FILE if path.is_dir() else path


def read(path: Path, size: int, verify: bool) -> tuple[Tensor, np.ndarray]:
    """Images (N, 3, size, size) uint8 and labels (N, 6) float64 of a 3D Shapes h5.

    Raises UserError for a missing, wrong, truncated or damaged file, or one that memory does not hold.
    """
    import h5py

    if not path.is_file():
        raise UserError(f"no file {path}; `disentkit data fetch shapes3d` downloads it, or put {FILE} there from {URL}")
    try:
        if verify:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != MD5:
                raise UserError(f"{path} is not the official 3D Shapes file (md5 {found}, not {MD5}): get it again")
        with h5py.File(path, "r") as file:
            missing = [key for key in ("images", "labels") if not isinstance(file.get(key), h5py.Dataset)]
            if missing:
                keys = ", ".join(file) or "nothing"
                raise UserError(f"{path} has no {' and no '.join(missing)}, which 3D Shapes has; it holds {keys}")
            images, labels = file["images"], file["labels"]
            right = images.dtype == np.uint8 and images.shape[1:] == (64, 64, 3) and labels.dtype.kind in "fiu"
            if not right or labels.shape != (len(images), 6) or len(images) == 0:
                found = f"images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}"
                raise UserError(f"{path} holds {found}, not 3D Shapes' images uint8 (N, 64, 64, 3), labels (N, 6)")
            return _small_bytes(images, size), labels[:].astype(np.float64)
    except MemoryError:
        raise UserError(f"{path.name} does not fit into memory; without `source` the pictures are drawn") from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # what h5py raises for torn and damaged files
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is no whole 3D Shapes h5 ({why}): download it again") from None


def _small_bytes(images, size: int) -> Tensor:
    """A stored dataset (N, 64, 64, 3) as a tensor (N, 3, size, size), read in pieces of whole chunks of the file."""
    pool = 64 // size
    small = torch.from_numpy(np.empty((len(images), 3, size, size), np.uint8))  # numpy's MemoryError is known as one
    chunk = images.chunks[0] if images.chunks else 1
    step = chunk * max(1, STEP // chunk)
    for start in range(0, len(images), step):
        piece = torch.from_numpy(images[start : start + step]).permute(0, 3, 1, 2)
        if pool > 1:
            piece = piece.unflatten(3, (size, pool)).unflatten(2, (size, pool)).sum((3, 5), dtype=torch.int32)
            piece = (piece + pool * pool // 2) // (pool * pool)
        small[start : start + step] = piece
    return small
