"""Your own pictures: every image file under a folder, brought to one square size, with factors where a table has them.

The table is `factors.csv` in the folder: a row for each picture, its first column `file` (the path below the folder),
one further column for each factor.

    file,shape,x
    0001.png,heart,0.25
    sub/0002.png,square,0.5

Words make a category, its labels in alphabetical order; the whole numbers 0 ... n-1 one without labels; any other
numbers a real factor. `disentkit data export --format folder` writes such a folder.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from disentkit.data.base import ArrayData
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.pictures import ENDINGS, check_size, names_in, read_all
from disentkit.errors import UserError

TABLE = "factors.csv"


def load(path: str | Path, size: int = 64, color: bool = True) -> ArrayData:
    """Pictures under `path`, subfolders included, in the order of their names: images (N, 3 or 1, size, size) uint8.

    Each is turned upright (EXIF), cropped to its central square and resized; transparent parts become black, the ground
    of the kit's other data. color=False makes them grey. Hidden files are left out. Files that cannot be read are
    left out too, and one warning names them. Factors (N, K) come from `factors.csv`, where there is one.

    Raises UserError where `path` is no folder, holds no picture, or none that can be read, and for a table that lacks
    a picture or holds what is no factor.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names a folder of pictures; {path!r} is none")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; `path` names a folder of pictures ({' '.join(ENDINGS)})")
    check_size(size)
    return read_folder(folder, size, color, name="folder")


def read_folder(folder: Path, size: int, color: bool, name: str) -> ArrayData:
    """What `load` says, of a folder that is there, as the data set `name`."""
    images, names = read_all(folder, names_in(folder), size, color, name=name)
    if not (folder / TABLE).is_file():
        return ArrayData(images, name=name)
    space, values = read_table(folder / TABLE, names)
    return ArrayData(images, values, space, name)


def read_table(path: Path, names: list[str]) -> tuple[FactorSpace, np.ndarray]:
    """The factors of a table and their values (N, K) float32 for the N named pictures; rows of others are left out.

    Raises UserError for a table that has no factor, two rows for one picture or none for another, a row of another
    length, or a cell that is empty or not finite.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table of comma-separated text ({error})") from None
    if head[:1] != ["file"] or len(head) < 2:
        raise UserError(f"{path} must begin with the line file,FACTOR,..., not with '{','.join(head)[:80]}'")
    cells = {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(head) or not all(row):
            raise UserError(f"{path}: row {number} ({row[0]}) has not one value for each of {', '.join(head)}")
        if row[0] in cells:
            raise UserError(f"{path}: {row[0]} has two rows")
        cells[row[0]] = row[1:]
    if lacking := [name for name in names if name not in cells]:
        raise UserError(
            f"{path} has no row for {len(lacking)} of {len(names)} pictures, {lacking[0]} the first; "
            f"complete it, or move it away to load the pictures without factors"
        )
    try:
        found = [_factor(*column) for column in zip(head[1:], *(cells[name] for name in names), strict=True)]
        return FactorSpace(factor for factor, _ in found), np.array([v for _, v in found], np.float32).T
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _factor(name: str, *cells: str) -> tuple[Factor, list[float]]:
    """A factor over the values of its column, and its value in every row; raises ValueError for NaN and infinities."""
    try:
        values = [float(np.float32(cell)) for cell in cells]  # the grid holds the very numbers that batches hold
    except ValueError:
        labels = sorted(set(cells))
        return category(name, *labels), [float(labels.index(cell)) for cell in cells]
    if not np.isfinite(values).all():
        raise ValueError(f"factor '{name}' holds NaN or infinite values")
    grid = tuple(sorted(set(values)))
    kind = "category" if grid == tuple(range(len(grid))) else "real"
    return Factor(name, kind, grid), values
