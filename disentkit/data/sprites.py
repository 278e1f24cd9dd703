"""Sprites of Reed, Zhang, Zhang and Lee ("Deep Visual Analogy-Making", 2015): 672 game characters, from your own files.

The set that the MIX paper and others train on: 60x60 pictures of characters who act, seen from four sides. Seven labels
tell the characters apart. What makes it hard: a weapon belongs to the character and is seen in some actions only.

No copy of the archive was at hand here. Its layout is that of two public loaders, a fork of visual-analogy-tensorflow
and one for edflow; what neither says is left without a name. A file `sprites_<k>.mat` (MATLAB 7.3, which is HDF5) holds
one character: `sprites`, 21 animations of which the last is an extra that is not used, each (frames, 10800) in 0 ... 1
as MATLAB stores it, column by column; and `labels`, 7 numbers. The 20 are five actions from four views. No loader says
which of the two moves fastest. Taken here is action by action, since then the animations that show a weapon, 5-12 and
17-20 in one of the loaders, make up whole actions where they count from 1, as MATLAB does. `sprites_splits.mat` numbers
the characters of the parts from 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from disentkit.data.base import ArrayData
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.pictures import check_size, shrink
from disentkit.errors import UserError, one_of

FILE = "nips2015-analogy-data.tar.gz"
URL = f"http://www.scottreed.info/files/{FILE}"
SPLITS = {"train": "trainidx", "valid": "validx", "test": "testidx"}
PARTS = "sprites_splits.mat"
SIDE = 60
USED = 20  # animations of a character; one more is left out
VIEWS = 4
LABELS = 7
WEAPON = 6  # the place of the weapon among the labels, counted from 0
SHOWN = {0: range(17, 21), 1: range(5, 13)}  # the animations, counted from 1, in which a weapon is seen


def load(path: str | Path | None = None, split: str = "train", size: int = SIDE) -> ArrayData:
    """Every frame of every character of a part: images (N, 3, size, size) uint8, 10,800 bytes each at 60 pixels.

    path   the folder that holds `sprites_*.mat`, or one around it as unpacked (`sprites/`, `data/sprites/`); without
           one, `datasets/sprites` in the kit's home. Any number of the characters will do
    split  "train", "valid" or "test" of `sprites_splits.mat`, or "all"
    size   60 as stored; any other is resized

    Factors, all of them categories: label_1 ... label_6 and weapon, the character's seven labels, named by the numbers
    in the files; action and view, numbered; and the frame within its animation. Weapon is what is seen of it: "none" in
    an animation that hides it, else its number. After a public loader, 0 shows in animations 17-20 and 1 in 5-12; it
    says nothing of other numbers, which are taken to show in all.

    Raises UserError where files are missing, damaged or of another layout, and for a part none of whose characters is
    there.
    """
    one_of("split of sprites", split, ["all", *SPLITS])
    check_size(size)
    folder = _folder(path)
    files = {int(m[1]): f for f in folder.glob("sprites_*.mat") if (m := re.fullmatch(r"sprites_(\d+)\.mat", f.name))}
    if not files:
        raise UserError(_how(folder))
    numbers = sorted(files) if split == "all" else _numbers_of(folder, split, sorted(files))
    # The labels of all, so that the parts share one space of factors.
    labels = {number: _read(files[number], _labels_in) for number in sorted(files)}
    lengths = {number: _read(files[number], _lengths_in) for number in numbers}
    count = sum(sum(each) for each in lengths.values())
    if not count:
        raise UserError(f"the {len(numbers)} characters of {folder} have no frame in their first {USED} animations")
    try:
        images = np.empty((count, 3, size, size), np.uint8)
    except MemoryError:
        need = f"{count * 3 * size * size / 1e9:.1f} GB"
        raise UserError(f"{count:,} pictures of {size} pixels take {need} of memory; take a smaller size") from None
    end = 0
    for number in tqdm(numbers, "sprites", unit="character", disable=len(numbers) < 100, dynamic_ncols=True):
        if not sum(lengths[number]):
            continue
        start, end = end, end + sum(lengths[number])
        images[start:end] = _resized(_read(files[number], _frames_in), size)
    values, space = _factors(numbers, labels, lengths)
    return ArrayData(images, values, space, name="sprites")


def fetch() -> Path:
    """Raise UserError that says where to get the archive: no checksum is known to check a download by."""
    raise UserError(_how(_folder(None)))


def _how(folder: Path) -> str:
    return (
        f"no sprites_<number>.mat in {folder}: unpack {URL} there, so that it or its data/sprites/ holds them and "
        f"{PARTS}; or name another folder with path=..."
    )


def _folder(path: str | Path | None) -> Path:
    """The folder that holds the characters, also where `path` names one around it."""
    if path is None:
        from disentkit.data import folder_of

        folder = folder_of("sprites")
    elif isinstance(path, str | Path):
        folder = Path(path).expanduser()
    else:
        raise UserError(f"`path` names the folder that holds sprites_*.mat; {path!r} is none")
    within = [folder, folder / "sprites", folder / "data" / "sprites"]
    return next((f for f in within if any(f.glob("sprites_*.mat"))), folder)


# ---- the files


def _numbers_of(folder: Path, split: str, there: list[int]) -> list[int]:
    """The characters of a part that are there, by the numbers of their files."""
    path, key = folder / PARTS, SPLITS[split]
    if not path.is_file():
        raise UserError(f"split='{split}' needs {PARTS}, which is not in {folder}; take split='all' without it")
    parts = _splits_in(path)
    if key not in parts:
        raise UserError(f"{path} has no {key}, the numbers of the characters of '{split}'; it holds {', '.join(parts)}")
    last = max(int(numbers.max()) for numbers in parts.values())
    # The numbers count from 1; the loaders disagree whether those in the names of the files count from 0.
    if 0 not in there and last not in there:
        raise UserError(
            f"{folder} has neither sprites_0.mat nor sprites_{last}.mat, so it cannot be told whether its files are "
            f"numbered from 0 or from 1; add one of them, or take split='all'"
        )
    first = 0 if 0 in there else 1
    numbers = sorted({int(n) - 1 + first for n in parts[key]} & set(there))
    if not numbers:
        raise UserError(f"none of the {len(there)} characters in {folder} belongs to split '{split}' of {path.name}")
    return numbers


def _splits_in(path: Path) -> dict[str, np.ndarray]:
    """The numbers (n,) of the parts by their key, from a MATLAB file of either kind."""
    import h5py
    import scipy.io

    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                found = {key: file[key][()] for key in SPLITS.values() if isinstance(file.get(key), h5py.Dataset)}
        else:
            found = scipy.io.loadmat(path, variable_names=list(SPLITS.values()))
        found = {key: np.asarray(found[key]).reshape(-1) for key in SPLITS.values() if key in found}
    except Exception as error:  # scipy and h5py raise a dozen kinds for torn and other files
        raise UserError(f"{path} is no whole MATLAB file ({_why(error)}); get it again from {URL}") from None
    for key, numbers in found.items():
        if numbers.dtype.kind not in "fiu" or not len(numbers) or not (numbers >= 1).all() or (numbers % 1).any():
            raise UserError(f"{path}: {key} must hold numbers of characters, counted from 1")
    if not found:
        raise UserError(f"{path} has none of {', '.join(SPLITS.values())}; get it again from {URL}")
    return found


def _read(path: Path, part: Callable):
    """What `part(file, path)` finds in a character's file; raises UserError for a damaged one."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return part(file, path)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # what h5py raises for damaged files
        raise UserError(f"{path} is no whole MATLAB 7.3 file ({_why(error)}); get it again from {URL}") from None


def _why(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _entry(file, path: Path, key: str):
    import h5py

    found = file.get(key)
    if not isinstance(found, h5py.Dataset):
        raise UserError(
            f"{path} has no array '{key}', which Reed's sprites have; it holds {', '.join(file) or 'nothing'}"
        )
    return found


def _labels_in(file, path: Path) -> list[int]:
    found = _entry(file, path, "labels")
    values = np.asarray(found[()]).reshape(-1) if found.dtype.kind in "fiu" else np.empty(0)
    if values.shape != (LABELS,) or not np.isfinite(values).all() or (values % 1).any():
        raise UserError(f"{path}: labels is {found.dtype} {found.shape}, not {LABELS} whole numbers")
    return values.astype(int).tolist()


def _animations_in(file, path: Path) -> list:
    """The animations that are used, each a stored array (frames, 10800)."""
    import h5py

    cells = _entry(file, path, "sprites")
    if h5py.check_ref_dtype(cells.dtype) is not h5py.Reference:
        raise UserError(f"{path}: sprites is {cells.dtype} {cells.shape}, not a cell for each animation")
    refs = cells[()].reshape(-1)
    if len(refs) not in (USED, USED + 1):
        raise UserError(f"{path}: sprites has {len(refs)} animations, not {USED + 1} (of which the last is not used)")
    found = [file[ref] for ref in refs[:USED]]
    for k, each in enumerate(found, 1):
        if each.ndim != 2 or each.shape[1] != 3 * SIDE * SIDE or each.dtype.kind not in "fu":
            raise UserError(f"{path}: animation {k} is {each.dtype} {each.shape}, not (frames, {3 * SIDE * SIDE})")
    return found


def _lengths_in(file, path: Path) -> list[int]:
    return [len(animation) for animation in _animations_in(file, path)]


def _frames_in(file, path: Path) -> np.ndarray:
    """The frames of a character, animation by animation, (n, 3, 60, 60) uint8."""
    found = []
    for k, animation in enumerate(_animations_in(file, path), 1):
        pixels = animation[()]
        if pixels.dtype != np.uint8:
            if not ((pixels >= -1e-6) & (pixels <= 1 + 1e-6)).all():
                low, high = pixels.min(), pixels.max()
                raise UserError(f"{path}: animation {k} reaches from {low:g} to {high:g}, not from 0 to 1")
            pixels = (pixels * 255).round().clip(0, 255).astype(np.uint8)
        found.append(pixels.reshape(-1, 3, SIDE, SIDE).swapaxes(2, 3))  # MATLAB stores column after column
    return np.concatenate(found)


def _resized(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames (n, 3, 60, 60) uint8 as (n, 3, size, size)."""
    if size == SIDE:
        return frames
    return np.stack([shrink(Image.fromarray(np.ascontiguousarray(f.transpose(1, 2, 0))), size) for f in frames])


# ---- the factors


def _factors(numbers: list[int], labels: dict[int, list[int]], lengths: dict[int, list[int]]):
    """Values (N, 10) of all frames in their order, and their space."""
    columns = np.array(list(labels.values()))
    known = [np.unique(column) for column in columns.T]  # of each label the numbers that occur
    words = [[str(value) for value in values] for values in known]
    words[WEAPON] = ["none", *words[WEAPON]]
    names = [f"label_{k + 1}" for k in range(LABELS)]
    names[WEAPON] = "weapon"
    longest = max(max(each) for each in lengths.values())
    space = FactorSpace(
        [category(name, *found) for name, found in zip(names, words, strict=True)]
        + [category("action", *map(str, range(1, USED // VIEWS + 1))), category("view", *map(str, range(1, VIEWS + 1)))]
        + [Factor("frame", "category", tuple(range(longest)))]
    )
    rows = []
    for number in numbers:
        places = [int(np.searchsorted(values, label)) for values, label in zip(known, labels[number], strict=True)]
        weapon = labels[number][WEAPON]
        for k, length in enumerate(lengths[number]):
            seen = k + 1 in SHOWN.get(weapon, range(1, USED + 1))
            here = [*places[:WEAPON], places[WEAPON] + 1 if seen else 0, k // VIEWS, k % VIEWS]
            rows.append(np.column_stack([np.tile(here, (length, 1)), np.arange(length)]))
    return torch.from_numpy(np.concatenate(rows)).float(), space
