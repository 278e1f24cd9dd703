"""Real handwritten digits: 1,797 small ones that come with scikit-learn, and MNIST from its original files.

The only labelled factor is which digit it is. Slant, width and stroke are the ones worth finding, and nobody labelled
them, so what a method learns here is judged by eye and by how well `digit` is kept apart.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from disentkit.data.base import ArrayData
from disentkit.data.factors import FactorSpace, category
from disentkit.errors import UserError

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# The four files of LeCun, Cortes and Burges with their md5; "train" and "test" name (images, labels).
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
SPLITS = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
SPACE = FactorSpace([category("digit", *"0123456789")])


def load_digits(size: int = 32) -> ArrayData:
    """scikit-learn's digits (UCI, Alpaydin and Kaynak 1998): images (1797, 1, size, size), factor `digit`.

    The originals are 8x8 with ink counts 0 ... 16; they are divided by 16 and enlarged bilinearly, which invents no
    edges that were not scanned. Raises UserError for a size under 8.
    """
    from sklearn import datasets

    if not isinstance(size, int) or size < 8:
        raise UserError(f"digits come in 8 pixels or more, not {size}")
    found = datasets.load_digits()
    small = torch.from_numpy(found.images / 16).float().unsqueeze(1)  # (1797, 1, 8, 8)
    images = torch.nn.functional.interpolate(small, (size, size), mode="bilinear", align_corners=False).clamp(0, 1)
    return ArrayData(images, found.target[:, None], SPACE, name="digits")


def load_mnist(source: str | Path | None = None, split: str = "train", size: int = 32) -> ArrayData:
    """MNIST from its original idx.gz files: images (60000 or 10000, 1, size, size) uint8, factor `digit`.

    source  the folder that holds them; without one, the folder `disentkit data fetch mnist` fills
    size    28 as the original, or 32: the same with a border of two black pixels

    Raises UserError for another split or size, and for a missing, wrong or truncated file.
    """
    if split not in SPLITS:
        raise UserError(f"mnist has the splits {' and '.join(SPLITS)}, not '{split}'")
    if size not in (28, 32):
        raise UserError(f"mnist comes in 28 or 32 pixels, not {size}")
    if source is None:
        from disentkit.data import folder_of

        source = folder_of("mnist")
    images, labels = (Path(source).expanduser() / name for name in SPLITS[split])
    pixels, digits = read_idx(images, ndim=3), read_idx(labels, ndim=1)
    if pixels.shape[1:] != (28, 28) or len(pixels) != len(digits) or digits.max(initial=0) > 9:
        raise UserError(f"{images} {pixels.shape} and {labels.name} {digits.shape} do not belong together as MNIST")
    border = (size - 28) // 2
    pixels = np.pad(pixels, ((0, 0), (border, border), (border, border)))
    return ArrayData(pixels, digits[:, None], SPACE, name="mnist")


def fetch_mnist() -> Path:
    """Download the four files of MNIST (12 MB), check them, and return their folder."""
    from disentkit.data import download

    return [download(MIRROR + name, name, md5, folder="mnist") for name, md5 in MD5.items()][0].parent


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array with `ndim` axes in a gzipped IDX file: two zero bytes, type 8, ndim, big-endian sizes, data.

    Raises UserError for a missing file, another kind of file, or one that is shorter or longer than it says.
    """
    if not path.is_file():
        raise UserError(f"no file {path}; `disentkit data fetch mnist` downloads it, or put it there from {MIRROR}")
    try:
        raw = bytearray(gzip.decompress(path.read_bytes()))  # writable, as torch wants its arrays
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no whole gzip file ({error}): download it again") from None
    if raw[:4] != bytes((0, 0, 8, ndim)) or len(raw) < 4 + 4 * ndim:
        start = raw[:4].hex() or "nothing"
        raise UserError(f"{path} starts with {start}, not with the mark of an IDX file, 000008{ndim:02x}")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", ndim, offset=4))
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
    if len(data) != math.prod(shape):
        raise UserError(f"{path} holds {len(data)} bytes, but says {shape}: download it again")
    return data.reshape(shape)
