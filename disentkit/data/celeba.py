"""CelebA (Liu, Luo, Wang, Tang 2015): 202,599 aligned photographs of faces with 40 attributes, from files of your own.

Faces are what the paper's synthetic sets are not: nobody knows the true factors, light and hair and head and background
vary together, and the attributes are what people noted, some of them matters of taste. The FactorVAE paper shows
reconstruction errors (Figure 12) and traversals and uses no attribute. How it brought the 178x218 pictures to 64x64 is
not established. Two public reimplementations (1Konny/FactorVAE, YannDubs/disentangling-vae) squeeze the whole picture,
as is done here by default; `crop` keeps a central square instead, which leaves faces their proportions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from disentkit.data.base import ArrayData
from disentkit.data.factors import FactorSpace, category
from disentkit.data.pictures import check_size, names_in, read_all
from disentkit.errors import UserError, one_of, whole

URL = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"  # of img_align_celeba.zip
PICTURES, ATTRIBUTES, PARTS = "img_align_celeba", "list_attr_celeba", "list_eval_partition"
SPLITS = {"train": "0", "valid": "1", "test": "2"}  # as the official list of parts numbers them


def load(
    path: str | Path | None = None, size: int = 64, color: bool = True, crop: int | None = None, split: str = "all"
) -> ArrayData:
    """CelebA's aligned pictures in the order of their numbers: images (N, 3 or 1, size, size) uint8, 2.5 GB at 64.

    path   the folder that holds `img_align_celeba/`; without one, `datasets/celeba` in the kit's home. Any number of
           the pictures will do
    crop   None: the whole picture, squeezed; a number: the central square of so many of its 178 pixels
    split  "all", or "train", "valid", "test" of `list_eval_partition.txt`

    Where `list_attr_celeba.txt` lies beside the pictures (or in `Anno/`), its 40 attributes are the factors, each a
    category no, yes; without it there are none. Pictures that cannot be read are left out and named in one warning.

    Raises UserError where the pictures, or the list of a split, are missing, and for lists that are cut short, have
    other columns, or lack a picture.
    """
    check_size(size)
    if crop is not None:
        whole("crop", crop)
    one_of("split of celeba", split, ["all", *SPLITS])
    folder = _folder(path)
    pictures = _beside(folder, PICTURES)
    if pictures is None:
        raise UserError(_how(folder))
    names = names_in(pictures)
    if split != "all":
        parts = _beside(folder, f"{PARTS}.txt", f"{PARTS}.csv")
        if parts is None:
            raise UserError(f"split='{split}' needs {PARTS}.txt, which is not in {folder}; it comes from {URL}")
        part = {name: cells for name, (cells,) in _rows(parts, 1).items()}
        names = [n for n in names if part.get(_file(n)) == SPLITS[split]]
        if not names:
            raise UserError(f"{parts} names none of the pictures in {pictures} for split '{split}'")
    images, names = read_all(pictures, names, size, color, crop, f"celeba-{split}")
    table = _beside(folder, f"{ATTRIBUTES}.txt", f"{ATTRIBUTES}.csv")
    if table is None:
        return ArrayData(images, name="celeba")
    return ArrayData(images, *_attributes(table, names), name="celeba")


def fetch() -> Path:
    """Raise UserError that says where to get CelebA: its terms want you to."""
    raise UserError(_how(_folder(None)))


def _how(folder: Path) -> str:
    return (
        f"no {PICTURES}/ in {folder}: unpack {PICTURES}.zip (202,599 jpg files) from {URL} there, with "
        f"{ATTRIBUTES}.txt and {PARTS}.txt beside it where you want attributes and splits; or name another folder "
        "with path=..."
    )


def _folder(path: str | Path | None) -> Path:
    """The folder around `img_align_celeba/`, also where `path` names that one."""
    if path is None:
        from disentkit.data import folder_of

        return folder_of("celeba")
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names the folder that holds {PICTURES}/; {path!r} is none")
    folder = Path(path).expanduser()
    return folder.parent if folder.name == PICTURES and not (folder / PICTURES).is_dir() else folder


def _beside(folder: Path, *names: str) -> Path | None:
    """The first of the names that is there, directly or in the subfolders of the official release."""
    places = [folder / sub / name for name in names for sub in ("", "Anno", "Eval", "Img")]
    return next((place for place in places if place.exists()), None)


def _file(name: str) -> str:
    """`000001.jpg` of a path below the folder of pictures; some copies hold that folder twice, one in the other."""
    return name.rpartition("/")[2]


def _attributes(path: Path, names: list[str]) -> tuple[np.ndarray, FactorSpace]:
    """Values (N, 40) of the named pictures, 0 or 1, and their space; raises UserError for a list that lacks one."""
    rows = _rows(path, 40)
    header = rows.pop("")
    if lacking := [name for name in names if _file(name) not in rows]:
        raise UserError(
            f"{path} has no row for {len(lacking)} of {len(names)} pictures, {lacking[0]} the first; get the whole "
            f"list from {URL}, or move it away to load the pictures without attributes"
        )
    values = np.array([[cell == "1" for cell in rows[_file(name)]] for name in names], np.float32)
    try:
        return values, FactorSpace(category(attribute, "no", "yes") for attribute in header)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _rows(path: Path, columns: int) -> dict[str, list[str]]:
    """The cells of a list by the file they belong to, and its header, where it has one, by "".

    The official lists are columns between spaces, that of the attributes with a count and a header above; some copies
    are csv with a header. Raises UserError for another number of columns or rows, and for cells that cannot be.
    """
    known = {"1", "-1"} if columns > 1 else set(SPLITS.values())
    try:
        lines = path.read_text(encoding="utf-8").replace(",", " ").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text; get it again from {URL}") from None
    rows, count = {}, None
    for number, line in enumerate(lines, 1):
        name, *cells = line.split() or [""]
        if number == 1 and name.isdecimal() and not cells:
            count = int(name)
        elif number <= 2 and columns > 1 and "" not in rows:
            rows[""] = cells if name == "image_id" else [name, *cells]
            if len(rows[""]) != columns:
                raise UserError(f"{path}: line {number} names {len(rows[''])} attributes, not {columns}")
        elif len(cells) == columns and known.issuperset(cells):
            rows[name] = cells
        elif (name or cells) and not (number == 1 and name == "image_id"):
            raise UserError(f"{path}: line {number} is not a file and {columns} of {' '.join(sorted(known))}")
    found = len(rows) - ("" in rows)
    if count not in (None, found):
        raise UserError(f"{path} says {count} pictures and holds {found}: it was cut short, get it again from {URL}")
    if columns > 1 and "" not in rows:
        raise UserError(f"{path} is empty; get it again from {URL}")
    return rows
