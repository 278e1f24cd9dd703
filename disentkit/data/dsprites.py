"""dSprites ("2D Shapes": Matthey, Higgins, Hassabis, Lerchner 2017), drawn from its geometry or read from its file.

One white sprite on black, with five factors that act independently, so nothing in the data ties one to another. What
makes it interesting is what cannot be recovered: a square looks the same every quarter turn, an ellipse every half
turn, and orientation 0 and 2 pi are one picture, so no method can read orientation fully. The drawn and the real
pictures agree but for 1.3 pixels in 100,000 (see `DSprites`), so no download is needed.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disentkit.data.base import ArrayData, Data, Renderer, StoredGrid
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Grid
from disentkit.errors import UserError

FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
URL = f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{FILE}"
MD5 = "7da33b31b13a06f4b04a70402ce90c2e"
SIZES = (64, 32, 16)

SPACE = FactorSpace(
    [
        category("shape", "square", "ellipse", "heart"),
        Factor("scale", "real", tuple((5 + i) / 10 for i in range(6))),
        Factor("orientation", "cyclic", tuple(2 * math.pi * i / 39 for i in range(40)), unit="rad"),
        Factor("x", "real", tuple(i / 31 for i in range(32))),
        Factor("y", "real", tuple(i / 31 for i in range(32))),
    ]
)

# The shapes at scale 1, in pixels of the 64-pixel frame around the sprite's centre, v pointing down.
SQUARE = 9.6  # half the side
ELLIPSE = (12.763, 7.2155)  # half axes, the long one horizontal at orientation 0
HEART = (9.595, 0.662, -1.437)  # half width, height unit, height of the curve's origin
REACH = 13.6  # no shape reaches further from its centre: half the square's diagonal is 13.58


class DSprites(Renderer):
    """dSprites drawn in batches on any device, on the grid of the original or between its points.

    size  64 as the original; 32 and 16 are every second or fourth pixel of its rows and columns: black and white like
          the original, since a grey rim would pay far less for a wrong size or place
    law   how factor tuples are drawn; `Grid()` without one

    Raises UserError for another size.

    Geometry: a pixel is on where its centre lies inside the sprite. The centre is 16 + 32 x, 16 + 32 y pixels, and the
    sprite turns counter-clockwise. Square and ellipse are what they say. The heart is the curve
    u = a sin^3 t, Y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t with the picture's v = c - k Y.

    The constants above were fitted to 66,080 original images by least wrong pixels (each shape by itself). Of their
    270,663,680 pixels 3,542 differ (0.0013 %; square 1,077, ellipse 1,210, heart 1,255, about 22,000 images each),
    almost always one pixel on the rim, which the original's rasteriser put on a slightly coarser raster.
    """

    name = "dsprites"
    space = SPACE

    def __init__(self, size: int = 64, law=None):
        self.size = _known_size(size)
        self.image_shape = (1, size, size)
        self.law = Grid() if law is None else law

    def __repr__(self) -> str:
        return f"DSprites({self.size} pixels, {self.law})"

    def render(self, values: Tensor) -> Tensor:
        """Images (n, 1, size, size) float32 of values (n, 5): shape 0 ... 2, scale, orientation, x, y.

        Scale and position beyond their range are drawn at its end and a shape as the nearest one: a check would read
        the values back to the host, so it stays with whoever takes values from outside (`space.check`).
        """
        if values.ndim != 2 or values.shape[1] != len(self.space):
            raise ValueError(f"factors must be (n, 5) for {', '.join(self.space.names)}, not {tuple(values.shape)}")
        shape, scale, turn, x, y = values.float().unbind(1)  # each (n,)
        scale = scale.clamp(0.5, 1.0)
        cx, cy = 16 + 32 * x.clamp(0, 1), 16 + 32 * y.clamp(0, 1)

        # Only a window around the sprite needs the test, and its corner sits on a whole pixel of the small picture.
        pool = 64 // self.size
        wide = pool * math.ceil((2 * REACH - 1 + pool) / pool)  # 28, 30 or 32 pixels
        left, top = (pool * ((c - wide / 2) / pool).round() for c in (cx, cy))  # (n,) in 0 ... 64 - wide
        centres = torch.arange(pool // 2, wide, pool, device=values.device) + 0.5  # the pixels that are kept
        dx = ((left - cx)[:, None] + centres) / scale[:, None]  # (n, wide / pool)
        dy = ((top - cy)[:, None] + centres) / scale[:, None]
        cos, sin = turn.cos()[:, None], turn.sin()[:, None]
        u = (cos * dx)[:, None, :] - (sin * dy)[:, :, None]  # (n, wide, wide), rows are y
        v = (sin * dx)[:, None, :] + (cos * dy)[:, :, None]
        window = _inside(shape[:, None, None], u, v).float()

        steps = torch.arange(wide // pool, device=values.device)
        rows = (top / pool).long()[:, None, None] + steps[:, None]  # (n, wide, 1)
        columns = (left / pool).long()[:, None, None] + steps  # (n, 1, wide)
        images = torch.zeros(len(values), self.size * self.size, device=values.device)
        images.scatter_(1, (rows * self.size + columns).flatten(1), window.flatten(1))
        return images.view(-1, 1, self.size, self.size)


def _inside(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Which points (n, h, w) of the sprites' own frame lie inside; shape (n, 1, 1) is 0, 1 or 2."""
    uu, vv = u.square(), v.square()
    square = torch.maximum(uu, vv) <= SQUARE**2
    ellipse = uu / ELLIPSE[0] ** 2 + vv / ELLIPSE[1] ** 2 <= 1
    # The heart's curve meets the vertical at u twice, with cos t = +-sqrt(q), q = 1 - (u / a)^(2/3). Its Y, written in
    # cos t, is (4 - 2 q - 8 q^2) + cos t (19 - 8 q), so a point between the two is this far from their middle at most.
    # Beyond |u| = a, q is negative and so is the right-hand side.
    half_width, unit, origin = HEART
    q = 1 - (uu / half_width**2).pow(1 / 3)
    middle = 4 - q * (2 + 8 * q)
    heart = ((origin - v) / unit - middle).square() <= q * (19 - 8 * q).square()
    return torch.where(shape < 0.5, square, torch.where(shape < 1.5, ellipse, heart))


def load(size: int = 64, law=None, source: str | Path | None = None, verify: bool = True) -> Data:
    """The renderer, or with `source` the real pictures of the official npz.

    source  path of the official file, or of a folder that holds it; the full set takes 3.0 GB of memory (uint8)
            and is indexed, not copied
    verify  compare the md5 first; False also accepts a part of the set with the same keys. A part that is a full grid
            by itself is indexed as one, any other is an `ArrayData`

    Raises UserError for a missing, wrong or truncated file, another size, or a law on a part that is no grid.
    """
    if source is None:
        return DSprites(size, law)
    pool = 64 // _known_size(size)
    path = Path(source).expanduser()
    path = path / FILE if path.is_dir() else path
    images, values = _read(path, verify)
    space, index = _grid_of(values, path)
    array = ArrayData(_as_bytes(images, pool), space.from_grid(index), space, name="dsprites")
    if len(index) == space.grid_size and torch.equal(space.tuple_of(torch.arange(len(index))), index):
        return StoredGrid(array, law)
    if law is not None:
        raise UserError(f"{path.name} holds only some tuples of the grid, so no law can draw from it; leave `law` out")
    return array


def fetch() -> Path:
    """Download the official npz (26 MB) into the kit's home, check it, and return its path."""
    from disentkit.data import download

    return download(URL, FILE, MD5, folder="dsprites")


def _known_size(size: int) -> int:
    if size not in SIZES:
        raise UserError(f"dsprites comes in {', '.join(map(str, SIZES))} pixels, not {size}")
    return size


def _read(path: Path, verify: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 64, 64) uint8 0/1 and latent values (N, 5) of a dSprites npz; nothing in it is unpickled."""
    if not path.is_file():
        raise UserError(f"no file {path}; `disentkit data fetch dsprites` downloads it, or put {FILE} there from {URL}")
    if verify:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != MD5:
            raise UserError(f"{path} is not the official dSprites file (md5 {found}, not {MD5}): download it again")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            images, values = file["imgs"], np.asarray(file["latents_values"], dtype=np.float64)
    except MemoryError:
        raise UserError(f"{path.name} does not fit into memory; without `source` the pictures are drawn") from None
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds for a torn, damaged or different file
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is no whole dSprites npz ({why}): download it again") from None
    values = values[:, 1:] if values.ndim == 2 and values.shape[1] == 6 else values  # colour is always white
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (64, 64) or values.shape != (len(images), 5):
        found = f"imgs {images.dtype} {images.shape}, latents_values {values.shape}"
        raise UserError(f"{path} holds {found}, not dSprites' shapes")
    if len(images) == 0 or images.max() > 1:
        raise UserError(f"{path}: imgs must hold 0 and 1 only")
    return images, values


def _grid_of(values: np.ndarray, path: Path) -> tuple[FactorSpace, Tensor]:
    """The space of the grid values that occur in latent values (N, 5), and each row's indices (N, 5) in it.

    Read from the values, for in a part of the set the classes may be counted anew.
    """
    factors, columns = [], []
    for factor, column in zip(SPACE, (values - [1, 0, 0, 0, 0]).T, strict=True):  # the file counts shapes from 1
        step = (factor.high - factor.low) / (len(factor) - 1)  # every factor of dSprites has evenly spaced values
        place = np.rint((column - factor.low) / step)
        wrong = ~(np.abs(factor.low + step * place - column) < 1e-4) | ~((place >= 0) & (place < len(factor)))
        if wrong.any():
            raise UserError(f"{path}: latents_values holds {factor.name} {column[wrong][0]:g}, which dSprites has not")
        found, place = np.unique(place.astype(np.int64), return_inverse=True)
        if factor.kind == "category":
            factors.append(category(factor.name, *(factor.labels[i] for i in found)))
        else:
            factors.append(Factor(factor.name, factor.kind, tuple(factor.values[i] for i in found), unit=factor.unit))
        columns.append(torch.from_numpy(place.reshape(-1)))
    return FactorSpace(factors), torch.stack(columns, dim=1)


def _as_bytes(images: np.ndarray, pool: int) -> np.ndarray:
    """Images of 0 and 1 (N, 64, 64) as bytes 0 or 255, every pool-th pixel of rows and columns; 64 pixels in place."""
    small = images if pool == 1 else images[:, pool // 2 :: pool, pool // 2 :: pool].copy()
    small *= 255
    return small
