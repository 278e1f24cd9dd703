"""Pictures whose paths say their factors, as in several sets of the literature: which fit, and how they become data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from disentkit.data.base import ArrayData
from disentkit.data.factors import FactorSpace, category
from disentkit.data.pictures import names_in, read_all
from disentkit.errors import UserError, one_of

NAMED = 5  # paths that do not fit, named in the warning
Row = TypeVar("Row")


def place_of(name: str, path: str | Path | None, holds: str) -> Path:
    """The folder `path`, or that of the data set `name` in the kit's home; raises UserError for what is no path."""
    if path is None:
        from disentkit.data import folder_of

        return folder_of(name)
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names the folder that holds {holds}; {path!r} is none")
    return Path(path).expanduser()


def rows_in(folder: Path, parse: Callable[[str], Row | None], like: str, how: str) -> dict[str, Row]:
    """What `parse` reads from the path of every picture under a folder, by that path "a/b.png", in sorted order.

    parse  gives None for a path that does not fit; one warning counts these and names the first
    like   an example of a path that fits
    how    what a UserError says where there is no picture at all

    Raises UserError where no path fits.
    """
    names = names_in(folder) if folder.is_dir() else []
    if not names:
        raise UserError(how)
    rows = {name: row for name in names if (row := parse(name)) is not None}
    if not rows:
        raise UserError(f"none of the {len(names)} pictures in {folder} is named like {like}, {names[0]} the first")
    if other := [name for name in names if name not in rows]:
        more = f" and {len(other) - NAMED} more" if len(other) > NAMED else ""
        listed = ", ".join(other[:NAMED]) + more
        warnings.warn(
            f"left out {len(other)} of {len(names)} pictures that are not named like {like}: {listed}", stacklevel=3
        )
    return rows


def to_array(
    folder: Path, rows: Mapping[str, Sequence[str]], factors: Mapping[str, Sequence[str]], size: int, name: str
) -> ArrayData:
    """The pictures that are the keys of `rows`, whole, resized to size x size, with a category for each of `factors`.

    rows     for every picture a word for each factor
    factors  for every factor its words in their order; only those that occur become values, others follow, sorted

    Pictures that cannot be read are left out and named in one warning; raises UserError where none can.
    """
    images, names = read_all(folder, list(rows), size, crop=None, name=name)
    found, values = [], np.empty((len(names), len(factors)), np.float32)
    for k, (factor, order) in enumerate(factors.items()):
        words = [rows[n][k] for n in names]
        there = set(words)
        labels = [word for word in order if word in there]
        labels += sorted(there.difference(labels))
        number = {label: i for i, label in enumerate(labels)}
        found.append(category(factor, *labels))
        values[:, k] = [number[word] for word in words]
    return ArrayData(images, values, FactorSpace(found), name=name)


def chosen(what: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The words of `text`, separated by commas, or all known ones for "all"; raises UserError for an unknown one."""
    if not isinstance(text, str):
        raise UserError(f"{what} are words separated by commas, for example '{','.join(known[:2])}', not {text!r}")
    if text.strip() == "all":
        return tuple(known)
    words = [word.strip() for word in text.split(",")]
    for word in words:
        one_of(what, word, [*known, "all"])
    return tuple(word for word in known if word in words)
