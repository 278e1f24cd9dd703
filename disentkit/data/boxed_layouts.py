"""Which pictures a folder lists, with a box and a class each: CUB-200-2011, Stanford Dogs, Stanford Cars, a table.

    cub   images.txt, bounding_boxes.txt, image_class_labels.txt, train_test_split.txt, classes.txt, images/
    dogs  Images/CLASS/NAME.jpg, Annotation/CLASS/NAME (XML), train_list.mat, test_list.mat
    cars  cars_train/, cars_test/ and devkit/cars_*_annos*.mat, cars_meta.mat; or car_ims/ and cars_annos.mat
    csv   boxes.csv: file,x,y,w,h or file,x0,y0,x1,y1, and where known label and split (train, test)

Coordinates are pixels from the picture's left and upper edge, whether a set counts from 0 or from 1: it makes a
difference of one pixel at most. No copy of the three sets was at hand: the layouts are those of their descriptions and
of public loaders.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from disentkit.data.pictures import names_in
from disentkit.errors import UserError

LAYOUTS = ("cub", "dogs", "cars", "csv")
SPLITS = ("train", "test", "all")
MARKS = {  # what tells a layout
    "cub": ("images.txt", "bounding_boxes.txt"),
    "dogs": ("Annotation",),
    "cars": ("cars_annos.mat", "devkit", "cars_train"),
    "csv": ("boxes.csv",),
}
CORNERS = ("x0", "y0", "x1", "y1")
SIDES = ("x", "y", "w", "h")
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Listed:
    """The pictures of a split.

    names    their paths below the folder
    boxes    (x0, y0, x1, y1) of each, None where there is none
    labels   the number of each one's class, counted from 0; None where classes are not known
    classes  the words for these numbers, the same in every split
    where    the file or folder that boxes come from
    upright  whether boxes count in the picture as it is shown, turned by its EXIF, or as it is stored
    """

    names: list[str]
    boxes: list[Box | None]
    labels: list[int] | None
    classes: tuple[str, ...]
    where: str
    upright: bool = False


def listed(folder: Path, layout: str, split: str) -> Listed:
    """The pictures of a folder that belong to a split ("train", "test", "all"); layout one of LAYOUTS or "auto".

    Raises UserError where the layout cannot be told, and for files that are missing or hold something else.
    """
    layout = _told(folder) if layout == "auto" else layout
    found = {"cub": _cub, "dogs": _dogs, "cars": _cars, "csv": _csv}[layout](folder, split)
    if not found.names:
        there = "it holds no picture" if split == "all" else "take another split, or name its pictures in the lists"
        raise UserError(f"no picture of {folder} belongs to split '{split}' (layout '{layout}'); {there}")
    return found


def _told(folder: Path) -> str:
    fits = [layout for layout, marks in MARKS.items() if any((folder / mark).exists() for mark in marks)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UserError(f"{folder} fits the layouts {' and '.join(fits)}; say which with layout=...")
    raise UserError(
        f"cannot tell the layout of {folder}: it holds none of images.txt (CUB-200-2011), Annotation/ (Stanford Dogs), "
        "devkit/ or cars_annos.mat (Stanford Cars) and boxes.csv (your own pictures)"
    )


def _needed(folder: Path, name: str, why: str) -> Path:
    path = folder / name
    if not path.exists():
        raise UserError(f"no {name} in {folder}; {why}")
    return path


# ---- CUB-200-2011


def _cub(folder: Path, split: str) -> Listed:
    lists = "the layout 'cub' has images.txt, bounding_boxes.txt and images/"
    names = _lines(_needed(folder, "images.txt", lists), 1)
    sides = _lines(_needed(folder, "bounding_boxes.txt", lists), 4)
    _needed(folder, "images", lists)
    if split != "all":
        why = f"split='{split}' needs it, split='all' does not"
        parts = _lines(_needed(folder, "train_test_split.txt", why), 1)
        sign = "1" if split == "train" else "0"
        names = {number: cells for number, cells in names.items() if parts.get(number) == [sign]}
    labels, classes = None, ()
    if (folder / "image_class_labels.txt").is_file():
        class_of = _lines(folder / "image_class_labels.txt", 1)
        if lacking := [cells[0] for number, cells in names.items() if number not in class_of]:
            raise UserError(f"{folder / 'image_class_labels.txt'} has no line for {lacking[0]}")
        words = _lines(folder / "classes.txt", 1) if (folder / "classes.txt").is_file() else {}
        numbers = _in_order({number for (number,) in class_of.values()} | set(words))
        classes = tuple(words.get(number, [number])[0] for number in numbers)
        place = {number: i for i, number in enumerate(numbers)}
        labels = [place[class_of[number][0]] for number in names]
    where = folder / "bounding_boxes.txt"
    boxes = [_from_sides(sides[n], f"{where}: the box of {names[n][0]}") if n in sides else None for n in names]
    return Listed([f"images/{name}" for (name,) in names.values()], boxes, labels, classes, "bounding_boxes.txt")


def _lines(path: Path, cells: int) -> dict[str, list[str]]:
    """The cells after the number that each line begins with, by that number; raises UserError for other lines."""
    rows: dict[str, list[str]] = {}
    for place, line in enumerate(_text(path).splitlines(), 1):
        number, *rest = line.split(maxsplit=1 if cells == 1 else -1) or [""]
        if not number:
            continue
        rest = [cell.strip() for cell in rest]
        if len(rest) != cells or number in rows:
            why = "repeats a number" if number in rows else f"is not a number and {cells} more"
            raise UserError(f"{path}: line {place} {why}: '{line[:80]}'")
        rows[number] = rest
    return rows


def _in_order(words: Iterable[str]) -> list[str]:
    """Whole numbers by their size, then other words by the alphabet."""

    def place(word: str) -> tuple[bool, int, str]:
        number = word.isdecimal() and len(word) <= 18  # Python refuses to read thousands of digits as a number
        return not number, int(word) if number else 0, word

    return sorted(words, key=place)


# ---- Stanford Dogs


def _dogs(folder: Path, split: str) -> Listed:
    lists = "the layout 'dogs' has Images/ and Annotation/"
    notes = _needed(folder, "Annotation", lists)
    everything = names = names_in(_needed(folder, "Images", lists))
    if split != "all":
        path = _needed(folder, f"{split}_list.mat", f"split='{split}' needs it, split='all' does not")
        part = set(_words(_mat(path, "file_list"), path, "file_list"))
        names = [name for name in everything if name in part]
    classes = tuple(sorted({name.partition("/")[0] for name in everything}))
    place = {word: i for i, word in enumerate(classes)}
    labels = [place[name.partition("/")[0]] for name in names]
    boxes = [_largest(notes / name.rpartition(".")[0]) for name in names]
    return Listed([f"Images/{name}" for name in names], boxes, labels, classes, "Annotation/")


def _largest(path: Path) -> Box | None:
    """The largest box of an annotation, the first of equal ones; None where there is no file or no object in it."""
    path = path if path.is_file() else path.with_name(f"{path.name}.xml")
    if not path.is_file():
        return None
    try:
        found = ElementTree.parse(path).getroot().findall("object/bndbox")
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the last two of encodings it cannot read
        raise UserError(f"{path} is no XML ({error}); take it away with its picture, or mend it") from None
    boxes = [
        _numbers([box.findtext(key, "") for key in ("xmin", "ymin", "xmax", "ymax")], f"{path}: its box")
        for box in found
    ]
    return max(boxes, key=lambda box: max(box[2] - box[0], 0) * max(box[3] - box[1], 0), default=None)


# ---- Stanford Cars


def _cars(folder: Path, split: str) -> Listed:
    whole = folder / "cars_annos.mat"
    if whole.is_file():
        files, meta = [(whole, "relative_im_path", "", "car_ims")], whole
    else:
        files, meta = [], folder / "devkit" / "cars_meta.mat"
        for part in ("train", "test") if split == "all" else (split,):
            _needed(
                folder, f"cars_{part}", "the layout 'cars' has cars_train/ and devkit/, or car_ims/ and cars_annos.mat"
            )
            named = (f"cars_{part}_annos_withlabels.mat", f"cars_{part}_annos.mat")
            places = [place / name for name in named for place in (folder / "devkit", folder)]
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                raise UserError(f"no devkit/cars_{part}_annos.mat in {folder}; it holds the boxes of cars_{part}/")
            files.append((path, "fname", f"cars_{part}/", f"cars_{part}"))
    names, boxes, numbers, known = [], [], [], True
    for path, key, before, place in files:
        rows = np.atleast_1d(_mat(path, "annotations"))
        fields = rows.dtype.names or ()
        if lacking := [f for f in (key, "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2") if f not in fields]:
            raise UserError(f"{path}: its annotations have no field {lacking[0]}")
        known = known and "class" in fields
        seen = {before + str(row[key]) for row in rows}
        for row in rows:
            name, cells = before + str(row[key]), [row[f"bbox_{end}"] for end in ("x1", "y1", "x2", "y2")]
            if "test" in fields and split != "all":
                if bool(_number(row["test"], f"{path}: the field test of {name}")) != (split == "test"):
                    continue
            names.append(name)
            boxes.append(None if any(np.size(c) == 0 for c in cells) else _numbers(cells, f"{path}: the box of {name}"))
            numbers.append(int(_number(row["class"], f"{path}: the class of {name}")) if "class" in fields else 0)
        if "test" not in fields:  # there no list says to which split a picture belongs that is not named
            more = [f"{place}/{name}" for name in names_in(folder / place) if f"{place}/{name}" not in seen]
            names, boxes, numbers = names + more, boxes + [None] * len(more), numbers + [1] * len(more)
    where = " and ".join(path.relative_to(folder).as_posix() for path, *_ in files)
    if not known or not numbers:
        return Listed(names, boxes, None, (), where)
    words = _words(_mat(meta, "class_names"), meta, "class_names") if meta.is_file() else []
    words = words or [str(number) for number in range(1, max(numbers) + 1)]
    if not 1 <= min(numbers) <= max(numbers) <= len(words):
        raise UserError(f"{files[0][0]}: classes reach from {min(numbers)} to {max(numbers)}, {len(words)} have names")
    # Two classes may bear one name, which a category cannot.
    classes = tuple(w if words.count(w) == 1 else f"{w} ({i})" for i, w in enumerate(words, 1))
    return Listed(names, boxes, [number - 1 for number in numbers], classes, where)


def _number(cell, what: str) -> float:
    """A cell of a MATLAB file as a whole number; raises UserError that begins with `what`."""
    if np.size(cell) != 1 or np.asarray(cell).dtype.kind not in "buif" or not float(cell).is_integer():
        raise UserError(f"{what} must be a whole number, not '{str(cell)[:80]}'")
    return float(cell)


def _mat(path: Path, key: str) -> np.ndarray:
    """One entry of a MATLAB file; raises UserError for a torn or another file."""
    import scipy.io

    try:
        return scipy.io.loadmat(path, squeeze_me=True, variable_names=[key])[key]
    except KeyError:
        raise UserError(f"{path} has no entry '{key}'") from None
    except Exception as error:  # scipy raises a dozen kinds for torn and other files
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is no MATLAB file that can be read ({why[:200]})") from None


def _words(entry: np.ndarray, path: Path, key: str) -> list[str]:
    words = np.atleast_1d(entry).tolist()
    if not all(isinstance(word, str) for word in words):
        raise UserError(f"{path}: '{key}' is no list of words")
    return words


# ---- a table of one's own


def _csv(folder: Path, split: str) -> Listed:
    path = _needed(folder, "boxes.csv", "the layout 'csv' has it beside the pictures")
    try:
        head, *rows = [row for row in csv.reader(_text(path).splitlines()) if row] or [[]]
    except csv.Error as error:
        raise UserError(f"{path} is no table of comma-separated text ({error})") from None
    columns = next((c for c in (SIDES, CORNERS) if {"file", *c} <= set(head)), None)
    if columns is None or len(set(head)) < len(head):
        raise UserError(f"{path} must begin with file,x,y,w,h or file,x0,y0,x1,y1, not with '{','.join(head)[:80]}'")
    table: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(head) or not row[head.index("file")]:
            raise UserError(f"{path}: row {number} has not one value for each of {', '.join(head)}")
        cells = dict(zip(head, (cell.strip() for cell in row), strict=True))
        if cells["file"] in table:
            raise UserError(f"{path}: {cells['file']} has two rows")
        if cells.get("split", "train") not in ("train", "test"):
            raise UserError(f"{path}: split of {cells['file']} is train or test, not '{cells['split']}'")
        table[cells["file"]] = cells
    # A picture without a row belongs to what is trained on: without a column `split` everything does.
    everything = [*table, *(name for name in names_in(folder) if name not in table)]
    part = {name: table.get(name, {}).get("split", "train") for name in everything}
    names = [name for name in everything if split in ("all", part[name])]
    if everything and not names and "split" not in head:
        raise UserError(f"{path} has no column split, so split '{split}' is empty; take split='train' or 'all'")
    labels, classes = None, ()
    if "label" in head:
        if blank := [name for name, cells in table.items() if not cells["label"]]:
            raise UserError(f"{path}: {blank[0]} has no label; give every picture one, or leave out the column")
        classes = tuple(_in_order({cells["label"] for cells in table.values()}))
        place = {word: i for i, word in enumerate(classes)}
        labels = [place[table[name]["label"]] if name in table else 0 for name in names]
    box_of = _from_sides if columns is SIDES else _numbers
    boxes: list[Box | None] = []
    for name in names:
        cells = [table[name][c] for c in columns] if name in table else []
        boxes.append(box_of(cells, f"{path}: the box of {name}") if any(cells) else None)
    return Listed(names, boxes, labels, classes, "boxes.csv", upright=True)


# ---- what the layouts share


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); put a whole copy there") from None


def _numbers(cells: Iterable, what: str) -> Box:
    """Four finite numbers; raises UserError that begins with `what`."""
    cells = list(cells)
    try:
        box = tuple(float(cell) for cell in cells)
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4 or not np.isfinite(box).all():
        raise UserError(f"{what} must be four numbers, not '{' '.join(map(str, cells))}'")
    return box


def _from_sides(cells: Iterable, what: str) -> Box:
    x, y, w, h = _numbers(cells, what)
    return x, y, x + w, y + h
