"""iLab-20M and its part iLab-6pose (Borji, Izadi, Itti 2016): toy vehicles on a turntable, from files of your own.

Which toy, how far it is turned, and which printed background lies behind it: the photographs on which GZS-Net (Ge et
al. 2021) shows three attributes. Its part of the set is one camera, c00, and six rotations.

What a file is called is read from its name, wherever it lies:

    car-i0160-b0001-c00-r00-l0-f1.png    category, instance, background, camera, rotation, light, focus

Documented: the order category, instance, background, camera, rotation (GZS-Net's released code), which camera and
rotations it takes (the same), and the letters i b c r l f before the numbers (the example above, from a public module
that parses such names). Assumed, as no copy was at hand: that the part for GZS-Net keeps these names, that a
background's number means the same scene with every toy, and that instances are numbered within their category, so that
both together say which toy it is. Its ten categories are not picked out: leave other ones out of the folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from disentkit.data.base import ArrayData
from disentkit.data.labelled import place_of, rows_in, to_array
from disentkit.data.pictures import check_size
from disentkit.errors import UserError, one_of

URL = "http://ilab.usc.edu/datasets/fonts"
LIKE = "car-i0160-b0001-c00-r01-l0-f1.png"
TOKENS = {"i": "instance", "b": "background", "c": "camera", "r": "rotation"}
SIX = "r01,r02,r03,r04,r06,r07"
BY = ("identity", "category")
SHOWN = 8  # cameras and poses listed in an error


def load(
    path: str | Path | None = None, size: int = 64, cameras: str = "c00", poses: str = SIX, by: str = "identity"
) -> ArrayData:
    """The pictures of a folder, subfolders included: images (N, 3, size, size) uint8, squeezed to a square, not cut.

    path     the folder; without one, `datasets/ilab` in the kit's home. Any number of the pictures will do
    cameras  which to take, "c00" or several as "c00,c01", or "all"; the camera is no factor, so several mix views
    poses    the six rotations of iLab-6pose, or others, or "all"
    by       "identity": the first factor says which toy it is; "category": only what kind

    Factors, all of them categories: identity (car-i0160), or category (car) by that; background (b0001); pose (r01).
    Pictures of one such tuple that differ in light or focus stay pictures of their own. Pictures that cannot be read,
    or have other names, are left out and named in a warning.

    Raises UserError where no picture is named like this or has the cameras and poses that are asked for.
    """
    check_size(size)
    one_of("by", by, BY)
    wanted = {"c": _numbers("cameras", cameras, "c00"), "r": _numbers("poses", poses, "r01")}
    folder = place_of("ilab", path, LIKE)
    found = rows_in(folder, _parsed, LIKE, _how(folder))
    rows = {}
    for name, (kind, number) in found.items():
        if all(only is None or number[letter] in only for letter, only in wanted.items()):
            which = f"{kind}-i{number['i']:04}" if by == "identity" else kind
            rows[name] = which, f"b{number['b']:04}", f"r{number['r']:02}"
    if not rows:
        there = " and ".join(f"{what} {_there(found, letter)}" for what, letter in (("cameras", "c"), ("poses", "r")))
        raise UserError(f"no picture in {folder} has cameras={cameras} and poses={poses}; there are {there}")
    return to_array(folder, rows, {by: (), "background": (), "pose": ()}, size, "ilab")


def fetch() -> Path:
    """Raise UserError that says where to get the pictures: no checksum is known to check a download by."""
    raise UserError(_how(place_of("ilab", None, LIKE)))


def _how(folder: Path) -> str:
    return (
        f"no pictures in {folder}: unpack iLab-6pose, which {URL} offers, or pictures of iLab-20M there, named like "
        f"{LIKE}; or name another folder with path=..."
    )


def _parsed(name: str) -> tuple[str, dict[str, int]] | None:
    """The category and the numbers by their letter, further letters too; None where one of `TOKENS` is missing."""
    kind, *parts = name.rpartition("/")[2].rpartition(".")[0].split("-")
    matches = [re.fullmatch(r"([a-zA-Z])(\d+)", part) for part in parts]
    number: dict[str, int] = {}
    for match in filter(None, matches):
        number.setdefault(match[1].lower(), int(match[2]))
    return (kind, number) if kind and number.keys() >= TOKENS.keys() else None


def _numbers(what: str, text: str, like: str) -> set[int] | None:
    """The numbers of "c00,c01"; None for "all". Raises UserError for anything else."""
    if isinstance(text, str) and text.strip() == "all":
        return None
    parts = text.split(",") if isinstance(text, str) else [""]
    matches = [re.fullmatch(rf"\s*{like[0]}(\d+)\s*", part) for part in parts]
    if not all(matches):
        raise UserError(f"{what} are named like {like}, several with commas between, or 'all', not {text!r}")
    return {int(match[1]) for match in matches}


def _there(found: dict, letter: str) -> str:
    numbers = sorted({number[letter] for _, number in found.values()})
    return ", ".join(f"{letter}{n:02}" for n in numbers[:SHOWN]) + (" ..." if len(numbers) > SHOWN else "")
