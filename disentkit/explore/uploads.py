"""A reader's own picture, from a file or an array, as a model reads it: upright, its central square, the model's size.

What an upload holds is not known beforehand. Its format and its size are read from the header first, and nothing of
`MEGAPIXELS` or more is ever decoded: a file of a few kilobytes can hold a picture that fills the memory.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disentkit.data import pictures
from disentkit.errors import UserError
from disentkit.explore import images

MEGAPIXELS = 50  # a picture has fewer
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # whatever the ending says; no other decoder is asked


def from_file(source: str | Path | bytes, shape: tuple[int, int, int], name: str = "") -> Tensor:
    """A picture file as (C, H, W) in [0, 1]; its central square is resized to `shape`, a square of C = 1 or 3 channels.

    source  a path, or the bytes of a file
    name    what errors call it; left out, the path's own

    Raises UserError, which names the file, for one that is missing, that is no picture, that is damaged, and, before it
    is decoded, for one of 50 megapixels or more.
    """
    memory = isinstance(source, bytes | bytearray | memoryview)
    name = " ".join(str(name or ("upload" if memory else Path(source).name)).split())
    name = f"'{name[:80]}'"
    if memory:
        source = io.BytesIO(source)
    else:
        try:
            source = Path(source).expanduser()
            there = source.is_file()
        except (OSError, RuntimeError, ValueError):  # a name that is too long, a home that nobody has, a zero byte
            there = False
        if not there:
            raise UserError(f"there is no file {name} in {Path(source).parent}; give the path of a picture")
    channels, size = shape[0], _side(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, on large and on odd files: what matters is said here
        _check(source, name)
        try:
            pixels = pictures.read(source, size, color=channels == 3)
        except Exception:  # decoders raise a dozen kinds of error
            raise UserError(f"{name} is damaged or cut off, so it cannot be read; save it again as PNG") from None
    return torch.from_numpy(np.array(pixels)).float() / 255


def _check(source: Path | io.BytesIO, name: str) -> None:
    """Raise UserError for what is no picture and for what is too large, having read no more than the header."""
    limit = f"a picture has less than {MEGAPIXELS}; make it smaller first"
    try:
        with Image.open(source, formats=FORMATS) as opened:
            mega = opened.width * opened.height / 1e6
    except Image.DecompressionBombError:
        raise UserError(f"{name} has far more than {MEGAPIXELS} megapixels; {limit}") from None
    except Exception:
        raise UserError(f"{name} is no picture that can be read; PNG, JPEG, WebP, BMP, GIF and TIFF can") from None
    if mega >= MEGAPIXELS:
        raise UserError(f"{name} has {mega:.0f} megapixels; {limit}")
    if isinstance(source, io.BytesIO):
        source.seek(0)


def from_array(array, shape: tuple[int, int, int]) -> Tensor:
    """A picture in memory as (C, H, W) in [0, 1]: as it is where it has the model's shape, else as one from a file.

    array  (C, h, w) or (h, w, C) with C = 1 or 3, or (1, C, h, w); floats in [0, 1], or uint8. Raises ValueError
           for anything else.
    """
    wanted = "a picture is (C, H, W) with 1 or 3 channels, in 0 ... 1 or uint8"
    try:
        x = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
        x = x.detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{wanted}, or the path of a file, not {type(array).__name__}") from None
    x = x[0] if x.ndim == 4 and len(x) == 1 else x
    if x.ndim == 3 and x.shape[0] not in (1, 3) and x.shape[2] in (1, 3):
        x = x.permute(2, 0, 1)
    if x.ndim != 3 or x.shape[0] not in (1, 3) or not x.numel():
        raise ValueError(f"{wanted}, not {tuple(x.shape)}")
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if not (x.min() >= -1e-3 and x.max() <= 1 + 1e-3):  # NaN too
        raise ValueError(f"{wanted}; this one reaches from {x.min():g} to {x.max():g}")
    x = x.clamp(0, 1)
    if tuple(x.shape) == tuple(shape):
        return x
    picture = Image.fromarray(images.to_uint8(x[None])[0])
    pixels = pictures.shrink(picture if shape[0] == 3 else picture.convert("L"), _side(shape))
    return torch.from_numpy(np.array(pixels)).float() / 255


def _side(shape: tuple[int, int, int]) -> int:
    channels, high, wide = shape
    if high != wide or channels not in (1, 3):
        raise ValueError(f"pictures are brought to a square of 1 or 3 channels; this model reads {tuple(shape)}")
    return high
