"""Photographs with a box around their object, from files of your own: what FineGAN and MixNMatch learn from.

Singh, Ojha, Lee (FineGAN, CVPR 2019) and Li, Singh, Ojha, Lee (MixNMatch, CVPR 2020) train on CUB-200-2011, Stanford
Dogs and Stanford Cars. The box is their only supervision, and it has two uses: a window around it is the picture of the
object, and the patches of the whole picture that it does not touch teach what background is. Each picture is therefore
seen twice, as in the authors' public code:

    object view  a window 1.5 times the box's larger side around its centre, clipped to the picture, its shorter side
                 brought to 76/64 of `size`; a random crop, flipped or not
    full view    the whole picture, its shorter side brought to 76/64 of the view (126, 62, 32 at 128, 64, 32 pixels); a
                 random crop, flipped or not by a toss of its own, and the box goes along

Of a window or picture longer than twice its shorter side only that much is kept, around the box: no authors' step, it
bounds the memory. Both are kept as uint8, one after another without padding: a batch's crops are one look-up by index.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from disentkit.data.base import Data
from disentkit.data.boxed_layouts import LAYOUTS, SPLITS, Box, Listed, listed
from disentkit.data.factors import FactorSpace, category
from disentkit.data.laws import rows_that_share
from disentkit.data.pictures import LARGE
from disentkit.errors import UserError, one_of, whole

FULL = {128: 126, 64: 62, 32: 32}  # side of the full view for each side of the object view
LONGEST = 2  # a stored picture is at most so many times as long as its shorter side
MEGAPIXELS = 50  # larger pictures are refused before they are decoded
BEYOND = 1.0  # pixels that a box may reach beyond its picture: sets count from 0 or from 1
SAMPLED = 2000  # pictures that the fingerprint reads
PLACES = {
    "CUB-200-2011": "https://www.vision.caltech.edu/datasets/cub_200_2011",
    "Stanford Dogs": "http://vision.stanford.edu/aditya86/ImageNetDogs",
}


@dataclass(frozen=True)
class Plan:
    """How one picture is kept: two regions (left, upper, right, lower) of it, and their sides (high, wide) after."""

    object_region: tuple[int, int, int, int]
    object_sides: tuple[int, int]
    full_region: tuple[int, int, int, int]
    full_sides: tuple[int, int]
    box: Box  # in the kept full view, in its pixels


@dataclass(frozen=True)
class Ragged:
    """Pictures of many sizes in one tensor: pixels (P, 3) uint8, row after row, picture after picture.

    start, high, wide  (N,) long: where each begins, and its sides
    """

    pixels: Tensor
    start: Tensor
    high: Tensor
    wide: Tensor

    def to(self, device) -> Ragged:
        moved = {key: getattr(self, key).to(device) for key in ("pixels", "start", "high", "wide")}
        return replace(self, **moved)

    def crop(self, index: Tensor, at: Tensor, flip: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Square crops (n, 3, side, side) float32 in [0, 1] of pictures `index` (n,), and their corners (n, 2) x, y.

        at    (n, 2) in [0, 1): where between leftmost and rightmost, uppermost and lowest the crop lies
        flip  (n,) bool: mirrored after cropping
        """
        wide = self.wide[index]
        room = torch.stack([wide, self.high[index]], 1) - side  # (n, 2)
        corner = torch.minimum((at * (room + 1)).long(), room)
        steps = torch.arange(side, device=index.device)
        columns = corner[:, :1] + torch.where(flip[:, None], steps.flip(0), steps)  # (n, side)
        rows = corner[:, 1:] + steps
        places = (self.start[index, None] + rows * wide[:, None])[:, :, None] + columns[:, None]  # (n, side, side)
        crops = self.pixels.index_select(0, places.flatten()).reshape(-1, side, side, 3)
        return crops.permute(0, 3, 1, 2).contiguous().float() / 255, corner


class Boxed(Data):
    """Pictures with boxes; batches hold, drawn anew each time,

        x        (n, 3, size, size) the object view
        full     (n, 3, w, w) the full view, w = FULL[size]
        box      (n, 4) float32: the object's box in `full`, in pixels (x1, y1, x2, y2), 0 <= x1 <= x2 <= w, clipped to
                 the view; x1 = x2 or y1 = y2 where the crop left the object out
        factors  (n, 1) its class, where classes are known

    files  the pictures' paths below the folder
    flip   whether both views are mirrored, each with probability 1/2
    note   what was left out and why; "" where nothing was

    Made by `load`, which says what may be wrong.
    """

    name = "boxed"

    def __init__(
        self, objects: Ragged, fulls: Ragged, boxes: Tensor, size: int, files: list[str], labels: Tensor | None = None,
        space: FactorSpace | None = None, flip: bool = True, note: str = "",
    ):  # fmt: skip
        self.objects, self.fulls, self.boxes = objects, fulls, boxes
        self.size, self.image_shape, self.view = size, (3, size, size), FULL[size]
        self.files, self.labels, self.space, self.flip, self.note = files, labels, space, flip, note
        self._digest = self._digested()

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        classes = f", {len(self.space['label'])} classes" if self.space else ""
        note = f"; {self.note}" if self.note else ""
        return f"Boxed({len(self)} pictures {self.image_shape}{classes}, {self.nbytes / 1e6:.1f} MB{note})"

    @property
    def nbytes(self) -> int:
        """Bytes of the kept pictures."""
        return self.objects.pixels.nbytes + self.fulls.pixels.nbytes

    def to(self, device) -> Boxed:
        moved = super().to(device)
        moved.objects, moved.fulls, moved.boxes = (part.to(device) for part in (self.objects, self.fulls, self.boxes))
        moved.labels = None if self.labels is None else self.labels.to(device)
        return moved

    def fingerprint(self) -> str:
        return f"{self.name} {len(self)} {self.image_shape} {self.space} flip {self.flip} {self._digest}"

    def sample(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return self.rows(torch.randint(len(self), (n,), generator=rng, device=rng.device), rng)

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        if self.labels is None:
            raise ValueError(f"data set '{self.name}' has no factors here, so none can be held fixed")
        if k != 0:
            raise ValueError(f"there is no factor {k}; the only one counts as 0")
        order = self.labels.argsort(stable=True)
        return self.rows(order[rows_that_share(self.labels[order], n, rng, groups)], rng)

    def rows(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """The batch of the pictures (n,) named by `index`; the crops and flips are drawn."""
        draws = torch.rand(len(index), 6, generator=rng, device=rng.device)
        flips = draws[:, 4:] < (0.5 if self.flip else 0.0)  # (n, 2): each view has a toss of its own
        x, _ = self.objects.crop(index, draws[:, :2], flips[:, 0], self.size)
        full, corner = self.fulls.crop(index, draws[:, 2:4], flips[:, 1], self.view)
        box = (self.boxes[index] - corner.repeat(1, 2)).clamp(0, self.view)
        mirrored = torch.stack([self.view - box[:, 2], box[:, 1], self.view - box[:, 0], box[:, 3]], 1)
        batch = {"x": x, "full": full, "box": torch.where(flips[:, 1:], mirrored, box)}
        return batch if self.labels is None else {**batch, "factors": self.labels[index, None]}

    def _digested(self) -> str:
        """Sixteen hex digits of boxes, classes and every picture of a small set, an even sample of a large one."""
        digest = hashlib.sha256(self.boxes.numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        for i in np.unique(np.linspace(0, len(self) - 1, min(len(self), SAMPLED)).astype(int)):
            for kept in (self.objects, self.fulls):
                start, count = int(kept.start[i]), int(kept.high[i] * kept.wide[i])
                digest.update(kept.pixels[start : start + count].numpy().tobytes())
        return digest.hexdigest()[:16]


def load(
    path: str | Path, size: int = 64, layout: str = "auto", split: str = "train", most: int | None = None,
    missing: str = "error", flip: bool = True,
) -> Boxed:  # fmt: skip
    """The pictures of a folder whose lists name a box for each, `Boxed`; all are read now.

    layout   "cub", "dogs", "cars", "csv" (see `boxed_layouts`), or "auto": told from the files that are there
    split    "train", "test" or "all"; a table without a column `split` is all "train"
    most     so many of the pictures at most, 2 or more, picked once and for all
    missing  "skip" leaves out pictures whose box is missing, empty or outside the picture, and `note` counts them;
             "error" names the first
    flip     whether views are mirrored at random

    A picture takes 178, 44 or 11 KB of memory at 128, 64 or 32 pixels on average (of 354 photographs of pets), and at
    most 272, 67 or 18. Boxes may reach one pixel beyond their picture and are clipped to it. The one factor is `label`,
    a category of the classes of the whole set.

    Raises UserError for settings that cannot be, files of the layout that are missing or hold something else, a split
    without pictures, and by the file's name for a picture that is not there, cannot be read or has more than 50
    megapixels, and for a box as above.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names a folder of pictures with boxes; {path!r} is none")
    if type(size) is not int or size not in FULL:
        raise UserError(f"boxed pictures come in sizes {', '.join(map(str, sorted(FULL)))}, not {size!r}")
    one_of("layout", layout, ["auto", *LAYOUTS])
    one_of("split", split, SPLITS)
    one_of("missing", missing, ("error", "skip"))
    if not isinstance(flip, bool):
        raise UserError(f"flip is true or false, not {flip!r}")
    if most is not None:
        whole("most", most, 2)
    try:
        folder = Path(path).expanduser()
        there = folder.is_dir()
    except (OSError, RuntimeError):  # a name that is too long, the home of nobody
        folder, there = Path(str(path)[:80]), False
    if not there:
        raise UserError(f"no folder {folder}; {_how()}")
    found = listed(folder, layout, split)
    left_out: dict[str, int] = {}
    keep = _with_box(folder, found, missing, left_out)
    if most is not None and most < len(keep):
        keep = sorted(random.Random(0).sample(keep, most))
    sides = _each(lambda i: _sides(folder, found.names[i], found.upright), keep, "looking")
    inside = {i: _clipped(found.boxes[i], *wh) for i, wh in zip(keep, sides, strict=True)}
    if outside := [(i, wh) for i, wh in zip(keep, sides, strict=True) if inside[i] is None]:
        (i, (wide, high)), count = outside[0], len(outside)
        where = f"({', '.join(f'{v:g}' for v in found.boxes[i])})"
        if missing == "error":
            raise UserError(
                f"the box x0, y0, x1, y1 = {where} of {found.names[i]} lies outside its picture of {wide}x{high} "
                f"pixels; mend it in {found.where} in {folder}, or leave such pictures out with missing='skip'"
            )
        left_out["a box outside the picture"] = count
    plans = {i: planned(inside[i], *wh, size) for i, wh in zip(keep, sides, strict=True) if inside[i] is not None}
    note = f"left out: {', '.join(f'{n} with {why}' for why, n in left_out.items())}" if left_out else ""
    if not plans:
        raise UserError(f"no picture of split '{split}' in {folder} has a box that can be used; {note}")
    objects, fulls = _decoded(folder, found, plans)
    boxes = torch.tensor([plan.box for plan in plans.values()], dtype=torch.float32)
    labels = space = None
    if found.labels is not None:
        labels = torch.tensor([found.labels[i] for i in plans], dtype=torch.float32)
        space = FactorSpace([category("label", *found.classes)])
    return Boxed(objects, fulls, boxes, size, [found.names[i] for i in plans], labels, space, flip, note)


def fetch() -> Path:
    """Raise UserError that says where to get the pictures: their terms want you to."""
    raise UserError(_how())


def _how() -> str:
    sets = ", ".join(f"{name} ({place})" for name, place in PLACES.items())
    return f"unpack {sets}, Stanford Cars, or your own pictures with a boxes.csv, and name their folder with path=..."


def planned(box: Box, wide: int, high: int, size: int) -> Plan:
    """How a picture of wide x high pixels with a box inside it is kept, both views as the file's docstring says."""
    x0, y0, x1, y1 = box
    cx, cy = math.floor((x0 + x1) / 2), math.floor((y0 + y1) / 2)
    reach = max(1, math.floor(0.75 * max(x1 - x0, y1 - y0)))
    window = max(0, cx - reach), max(0, cy - reach), min(wide, cx + reach), min(high, cy + reach)
    object_region, object_sides = _kept(window, cx, cy, size * 76 // 64)
    region, sides = _kept((0, 0, wide, high), cx, cy, FULL[size] * 76 // 64)
    across, down = sides[1] / (region[2] - region[0]), sides[0] / (region[3] - region[1])
    xs = [min(max(x - region[0], 0), region[2] - region[0]) * across for x in (x0, x1)]
    ys = [min(max(y - region[1], 0), region[3] - region[1]) * down for y in (y0, y1)]
    return Plan(object_region, object_sides, region, sides, (xs[0], ys[0], xs[1], ys[1]))


def _kept(region: tuple[int, int, int, int], cx: int, cy: int, shorter: int):
    """A region, cut around (cx, cy) where it is too long, and its sides (high, wide) once the shorter is `shorter`."""
    left, upper, right, lower = region
    least = min(right - left, lower - upper)
    wide, high = min(right - left, LONGEST * least), min(lower - upper, LONGEST * least)
    left = min(max(cx - wide // 2, left), right - wide)
    upper = min(max(cy - high // 2, upper), lower - high)
    return (left, upper, left + wide, upper + high), (high * shorter // least, wide * shorter // least)


# ---- boxes and pictures


def _with_box(folder: Path, found: Listed, missing: str, left_out: dict[str, int]) -> list[int]:
    """The places of the pictures that have a box with an area; counts the others, or raises UserError for them."""
    none = [i for i, box in enumerate(found.boxes) if box is None]
    empty = [i for i, b in enumerate(found.boxes) if b is not None and not (b[2] > b[0] and b[3] > b[1])]
    skip = "leave such pictures out with missing='skip'"
    if none and missing == "error":
        raise UserError(
            f"no box for {len(none)} of {len(found.names)} pictures in {folder}, {found.names[none[0]]} the first: the "
            f"background stage of FineGAN needs a box per picture; add them to {found.where}, or {skip}"
        )
    if empty and missing == "error":
        x0, y0, x1, y1 = found.boxes[empty[0]]
        raise UserError(
            f"the box of {found.names[empty[0]]} is empty, {x1 - x0:g} wide and {y1 - y0:g} high; mend it in "
            f"{found.where} in {folder}, or {skip}"
        )
    left_out |= {why: len(those) for why, those in (("no box", none), ("an empty box", empty)) if those}
    out = {*none, *empty}
    return [i for i in range(len(found.names)) if i not in out]


def _clipped(box: Box, wide: int, high: int) -> Box | None:
    """The box inside its picture; None where it reaches beyond by more than a pixel."""
    x0, y0, x1, y1 = box
    if min(x0, y0) < -BEYOND or x1 > wide + BEYOND or y1 > high + BEYOND:
        return None
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(wide)), min(y1, float(high))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _sides(folder: Path, name: str, upright: bool) -> tuple[int, int]:
    """Width and height of a picture, read without decoding it; raises UserError for one too large or unreadable."""
    try:
        with Image.open(folder / name) as picture:
            wide, high = picture.size
            if wide * high > MEGAPIXELS * 1_000_000:
                raise Image.DecompressionBombError
            # Orientations 5 ... 8 lie on their side.
            return (high, wide) if upright and picture.getexif().get(0x0112, 1) >= 5 else (wide, high)
    except Image.DecompressionBombError:
        raise UserError(
            f"{name} in {folder} has more than {MEGAPIXELS} megapixels; shrink it, or take it off the list"
        ) from None
    except Exception as error:  # decoders raise a dozen kinds of error
        raise _unreadable(folder, name, error) from None


def _unreadable(folder: Path, name: str, error: Exception) -> UserError:
    why = "it is not there" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
    return UserError(
        f"{name} in {folder} cannot be read ({why.splitlines()[0][:200]}); put a whole copy there, or take it off the "
        "list"
    )


def _decoded(folder: Path, found: Listed, plans: dict[int, Plan]) -> tuple[Ragged, Ragged]:
    """The object views and the full views of the planned pictures."""
    object_views = _room([plan.object_sides for plan in plans.values()])
    full_views = _room([plan.full_sides for plan in plans.values()])

    def one(place: int) -> None:
        i = order[place]
        plan, name = plans[i], found.names[i]
        try:
            with Image.open(folder / name) as opened:
                picture = _rgb(ImageOps.exif_transpose(opened) if found.upright else opened)
            for kept, region, (high, wide) in (
                (object_views, plan.object_region, plan.object_sides),
                (full_views, plan.full_region, plan.full_sides),
            ):
                start = int(kept.start[place])
                shrunk = picture.crop(region).resize((wide, high), Image.Resampling.LANCZOS)
                kept.pixels[start : start + high * wide] = torch.from_numpy(np.array(shrunk)).reshape(-1, 3)
        except Exception as error:  # decoders raise a dozen kinds of error
            raise _unreadable(folder, name, error) from None

    order = list(plans)
    _each(one, range(len(order)), "reading")
    return object_views, full_views


def _room(sides: list[tuple[int, int]]) -> Ragged:
    """Room for pictures of these sides (high, wide)."""
    high, wide = torch.tensor(sides).T.contiguous()
    ends = (high * wide).cumsum(0)
    try:
        pixels = np.empty((int(ends[-1]), 3), np.uint8)
    except MemoryError:
        need = f"{3 * int(ends[-1]) / 1e9:.1f} GB"
        raise UserError(f"{len(sides):,} pictures take {need} of memory; take a smaller size, or most=...") from None
    return Ragged(torch.from_numpy(pixels), ends - high * wide, high, wide)


def _rgb(picture: Image.Image) -> Image.Image:
    """A picture in colour, black where it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip instead of scaling
        return Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("float pixels have no known range")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    return picture.convert("RGB")


def _each(function: Callable, places, what: str) -> list:
    """`function` of every place, in threads; a bar where there are many. Raises what the first of them raises."""
    done: list = []
    bar = tqdm(total=len(places), desc=what, unit="picture", disable=len(places) < LARGE, dynamic_ncols=True)
    with bar, warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is refused in our own words
        for start in range(0, len(places), 1000):  # in parts, so that Ctrl-C need not wait for the rest
            part = places[start : start + 1000]
            done += pool.map(function, part)
            bar.update(len(part))
    return done
