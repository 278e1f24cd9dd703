"""Data sets as files for other programs: one npz, or a folder of pictures that says their factors.

    NAME.npz   images (N, H, W) or (N, H, W, 3) uint8; with factors also `factors` (N, K) float32 in the set's own
               units, `names` (K,), and `space`, the FactorSpace as JSON text. `read` makes an ArrayData of it
    NAME/      a png for each image, and `factors.csv` with their factors; `data.load("folder", path=...)` reads it
    NAME/      format "fonts": letters in the layout of the Fonts set, the factors being the folders' names;
               `data.load("fonts_folder", path=...)` reads it

Data with an `attribution` (text: whose work the pictures are, under which licence) takes it along: as `attribution` in
the npz, which `read` gives back, and as `ATTRIBUTION.txt` beside the pictures of a folder.

An export appears by one rename: what has its name is whole.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from disentkit.data import fonts_folder
from disentkit.data.base import ArrayData, Data, Renderer
from disentkit.data.factors import Factor, FactorSpace
from disentkit.data.folder import TABLE
from disentkit.data.laws import Grid
from disentkit.errors import UserError, one_of, whole

FORMATS = ("npz", "folder", "fonts")
ATTRIBUTION = "ATTRIBUTION.txt"
LARGEST = 1_000_000  # no larger grid is written whole
MOST = 100_000_000  # images of an export
BATCH = 1_000
FRUITLESS = 50  # batches without a new tuple, after which a law has no more to give
IN_ONE_FOLDER = 10_000  # pictures; more are divided among subfolders, which file managers can still show


def export(data: Data, out: str | Path, format: str = "npz", images: int | None = None, seed: int = 0) -> Path:
    """Write a data set into the folder `out` as NAME.npz or NAME/ and return that path. Pixels are kept in 8 bits.

    images  how many; None: every stored image, or the whole grid of a renderer in grid order (last factor fastest).
            Fewer are drawn with `seed`, none twice. Under another law than `Grid()`, and from a grid of more than
            1,000,000 tuples, the law draws them, and their number must be said. Format "fonts", which has one place
            for each tuple, leaves out what a law draws again

    Raises UserError where something has that name already, where more are asked for than there are, and where the disk
    refuses; for format "fonts" also for other factors, and two images of one tuple. Then nothing is left.
    """
    if not isinstance(data, Data):
        kind = type(data).__name__
        raise UserError(f"only a data set can be exported, data.load(name) or ArrayData(images), not {kind}")
    if one_of("format", format, FORMATS) == "fonts":
        fonts_folder.check(data)
    images = None if images is None else whole("images", images, 1, MOST)
    count, batches = _batches(data, images, whole("seed", seed, 0), once=format == "fonts")
    out, name = _path(out), re.sub(r"[^\w.+-]+", "_", data.name)
    place = out / (f"{name}.npz" if format == "npz" else name)
    _must_not_exist(place)
    factors = np.empty((count, len(data.space or ())), np.float32)
    bar = tqdm(batches, f"{place.name}: {count:,} images", -(-count // BATCH), disable=count < 5 * BATCH, leave=False)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    draft = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=out))
        _WRITERS[format](draft / place.name, data, factors, _split(bar, factors))
        _must_not_exist(place)
        (draft / place.name).rename(place)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{place} could not be written ({why}), and nothing of it is left; make room, take fewer "
                        "images, or name another folder") from None  # fmt: skip
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # only what is empty goes: a folder made for an export that failed
                folder.rmdir()
    return place


def read(path: str | Path) -> ArrayData:
    """The images and factors of an exported npz; raises UserError for a missing, torn or different file."""
    path = _path(path)
    if not path.is_file():
        raise UserError(f"no file {path}; `disentkit data export NAME --out FOLDER` writes one")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip, or cut short")
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            images, factors, space = file["images"], None, None
            attribution = str(file["attribution"]) if "attribution" in file else ""
            if "factors" in file:
                found = [{k: tuple(v) if isinstance(v, list) else v for k, v in f.items()}
                         for f in json.loads(str(file["space"]))]  # fmt: skip
                factors, space = file["factors"], FactorSpace(Factor(**f) for f in found)
        data = ArrayData(images, factors, space, name=path.stem)
        if attribution:
            data.attribution = attribution  # a further export keeps it
        return data
    except Exception as error:  # numpy, zipfile, zlib and json raise a dozen kinds for a torn or different file
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is no whole npz of `disentkit data export` ({why})") from None


def _path(path: str | Path) -> Path:
    if not isinstance(path, str | Path) or "\0" in str(path):
        raise UserError(f"a path names a file or a folder; {path!r} does not")
    return Path(path).expanduser()


def _must_not_exist(place: Path) -> None:
    if os.path.lexists(place):
        raise UserError(f"{place} is there already; remove it, or name another folder")


def _batches(data: Data, images: int | None, seed: int, once: bool) -> tuple[int, Iterator[dict]]:
    """How many rows an export has, and its batches; once: those that a law draws are all different tuples."""
    rng = torch.Generator().manual_seed(seed)
    data = data.to("cpu")
    rows, there = _rows_of(data)
    if rows is None:
        if images is None:
            raise UserError(f"say how many images of '{data.name}' to draw: no whole grid of it can be written")
        if once:
            return images, _drawn_once(data, images, rng)
        sizes = [min(BATCH, images - start) for start in range(0, images, BATCH)]
        return images, (data.sample(n, rng) for n in sizes)
    if images is not None and images > there:
        raise UserError(f"'{data.name}' has {there:,} images, not {images:,}; leave the number out for all of them")
    if images is None or images == there:
        index = torch.arange(there)
    else:
        index = torch.randperm(there, generator=rng)[:images]
    return len(index), (rows(part) for part in index.split(BATCH))


def _drawn_once(data: Data, images: int, rng: torch.Generator) -> Iterator[dict]:
    """Batches of draws without those whose tuple came before; raises UserError where the law has too few."""
    seen, fruitless = set(), 0
    while (missing := images - len(seen)) and fruitless < FRUITLESS:
        batch, new = data.sample(min(BATCH, max(missing, 100)), rng), []
        for row, values in enumerate(map(tuple, batch["factors"].tolist())):
            if values not in seen and len(new) < missing:
                seen.add(values)
                new.append(row)
        fruitless = 0 if new else fruitless + 1
        if new:
            yield {key: batch[key][new] for key in ("x", "factors")}
    if missing:
        raise UserError(f"the law of '{data.name}' hardly draws more than {len(seen):,} different images: take fewer")


def _rows_of(data: Data):
    """A function from row numbers (n,) to their batch, and how many there are; None where only a law can draw."""
    if isinstance(data, ArrayData):
        return data.rows, len(data)
    if isinstance(data, Renderer) and data.law == Grid() and data.space.grid_size <= LARGEST:
        return lambda index: _rendered(data, data.space.from_grid(data.space.tuple_of(index))), data.space.grid_size
    return None, 0


def _rendered(data: Renderer, values: torch.Tensor) -> dict:
    return {"x": data.render(values), "factors": values}


def _split(batches, factors: np.ndarray) -> Iterator[np.ndarray]:
    """The images of each batch as (n, H, W) or (n, H, W, 3) uint8; its factors go to their rows of `factors` (N, K).

    The latter is one block from the start; a small one kept for each batch would let the heap grow to gigabytes.
    """
    done = 0
    for batch in batches:
        pixels = (batch["x"] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        if factors.shape[1]:
            factors[done : done + len(pixels)] = batch["factors"]
        done += len(pixels)
        yield np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _write_npz(path: Path, data: Data, factors: np.ndarray, parts: Iterator[np.ndarray]) -> None:
    """Batch by batch, so that no export needs the memory of the whole; the same export gives the same bytes."""
    channels, high, wide = data.image_shape
    shape = (len(factors), high, wide) if channels == 1 else (len(factors), high, wide, channels)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w") as file:
        with file.open(_member("images"), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for pixels in parts:
                member.write(pixels)
        rest = {}
        if data.space:
            space = json.dumps([dataclasses.asdict(f) for f in data.space])
            rest = {"factors": factors, "names": np.array(data.space.names), "space": np.array(space)}
        if attribution := getattr(data, "attribution", ""):
            rest["attribution"] = np.array(attribution)
        for name, array in rest.items():
            with file.open(_member(name), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{name}.npy")  # with a fixed date
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def _write_folder(path: Path, data: Data, factors: np.ndarray, parts: Iterator[np.ndarray]) -> None:
    """Pictures whose names sort as their rows stand, with the table that `data.folder` describes."""
    for row, pixels in enumerate(pixels for part in parts for pixels in part):
        _write_png(path / _picture(row, len(factors)), pixels)
    _write_attribution(path, data)
    if data.space:
        with (path / TABLE).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", *data.space.names])
            for row, values in enumerate(factors):
                table.writerow([_picture(row, len(factors)), *map(_cell, data.space, values)])


def _write_fonts(path: Path, data: Data, factors: np.ndarray, parts: Iterator[np.ndarray]) -> None:
    """Pictures in the layout that `data.fonts_folder` describes."""
    place = fonts_folder.Places(data)
    for row, pixels in enumerate(pixels for part in parts for pixels in part):
        where = place(factors[row])  # `_split` has filled in the row
        try:
            _write_png(path / where, pixels)
        except FileExistsError:
            raise UserError(
                f"two images would be {where.as_posix()}, and the layout has room for one: either their factors are "
                "the same, or this disk takes A for a, and a folder on another is needed"
            ) from None
    _write_attribution(path, data)


_WRITERS = {"npz": _write_npz, "folder": _write_folder, "fonts": _write_fonts}


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Raises FileExistsError where there is a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()  # Pillow, writing to a full disk by itself, would not say so
    Image.fromarray(pixels).save(packed, "png")
    with path.open("xb") as file:
        file.write(packed.getvalue())


def _write_attribution(path: Path, data: Data) -> None:
    if attribution := getattr(data, "attribution", ""):
        (path / ATTRIBUTION).write_text(attribution, encoding="utf-8")


def _picture(row: int, count: int) -> str:
    """The name of a row's picture, 0123.png; in a large export it stands in a subfolder, 0002/020123.png."""
    name = f"{row:0{len(str(count - 1))}}.png"
    return f"{row // IN_ONE_FOLDER:04}/{name}" if count > IN_ONE_FOLDER else name


def _cell(factor: Factor, value: np.float32) -> str:
    """A category's word, or the shortest text that gives the number back."""
    if factor.labels:
        return factor.labels[int(value)]
    return np.format_float_positional(value, trim="-")
