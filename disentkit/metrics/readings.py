"""Readings: what an instrument measures in the pictures of codes, checked, and its medians and spreads.

What `steering` and `reach` share. No score is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from disentkit import models
from disentkit.codes import Block
from disentkit.data.factors import Factor
from disentkit.metrics.arrays import whole
from disentkit.metrics.instruments import period

CHUNK = 250  # pictures in memory at a time: 12 MB of 64x64 pixels in colour
DECIMALS = 6  # of a reading; float32 knows no more, and what differs less is arithmetic


def check_model(model) -> None:
    """Raise ValueError where `model` is no model."""
    if hasattr(model, "model") and hasattr(model, "card"):
        raise ValueError("a run is measured through its model: give run.model")
    if not (hasattr(model, "codes") and hasattr(model, "decode")):
        raise ValueError(f"steering measures a model with codes and decode, got {type(model).__name__}")


def check_instrument(instrument) -> tuple[str, ...]:
    """An instrument's names; ValueError where it is none."""
    names = getattr(instrument, "names", None)
    if isinstance(instrument, type) or not callable(instrument) or not isinstance(names, (tuple, list)) or not names:
        raise ValueError(f"an instrument is called with pictures and has names, {type(instrument).__name__} is none")
    return tuple(names)


def find(model, direction: str | Block) -> Block:
    """A direction, or the model's of that name; ValueError where there is none, or it is for another code."""
    found = model.codes[direction] if isinstance(direction, str) else direction
    if not isinstance(found, Block) or not found.scalar:
        raise ValueError(f"a direction is a scalar block or the name of one, not {direction!r}")
    if found.at is None and type(found) is Block:
        raise ValueError(f"block '{found.name}' has no place in a code: give the name of one of the model's")
    u = getattr(found, "u", None)
    if u is not None and len(u) != model.codes.size:
        raise ValueError(f"'{found.name}' is for codes of {len(u)} numbers, this model's have {model.codes.size}")
    return found


def several(model, directions) -> dict[str, Block]:
    """{label: direction} of whatever was given; ValueError for none and for two of one label."""
    if directions is None:
        directions = getattr(model, "directions", None)
        directions = directions if isinstance(directions, Mapping) else {}
    if isinstance(directions, Mapping):
        found = {str(label): find(model, d) for label, d in directions.items()}
    else:
        listed = [find(model, d) for d in ([directions] if isinstance(directions, (str, Block)) else directions)]
        found = {d.name: d for d in listed}
        if len(found) < len(listed):
            raise ValueError("two directions share one name: give them as {label: direction}")
    if not found:
        raise ValueError("there is no direction to measure: name one, or give a model that has some")
    return found


def column(names: Sequence[str], name: str | None, own: str) -> int:
    """The column of a measured factor, by default the one that the direction is named after."""
    name = own if name is None else name
    if name not in names:
        raise ValueError(f"'{name}' is not measured; this instrument measures {', '.join(names)}: give one as name")
    return list(names).index(name)


def draw(model, n: int, seed: int) -> Tensor:
    """n codes (n, D) from the model's prior."""
    rng = torch.Generator().manual_seed(whole("seed", seed, least=0))
    return getattr(model, "prior", model.codes.prior)(whole("n", n, least=2), rng).cpu()


def given(model, codes: Tensor) -> Tensor:
    """Codes (n, D) that were handed in, checked."""
    codes = model.codes.check(codes).cpu()
    if len(codes) < 2 or not codes.isfinite().all():
        raise ValueError(f"steering needs two codes or more, all finite, got {len(codes)}")
    return codes


def measure(model, codes: Tensor, instrument) -> np.ndarray:
    """Readings (n, K) float64 of the pictures of codes (n, D)."""
    return np.concatenate([read(instrument, x, part) for part, x in pictures(model, codes)])


def pictures(model, codes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(codes, pictures) of CHUNK codes at a time; ValueError for pictures that are not finite."""
    for part in codes.split(CHUNK):
        x = models.decode(model, part)
        if not x.isfinite().all():
            raise ValueError("the model's pictures hold NaN or infinite numbers: the model or its codes are broken")
        yield part, x


def read(instrument, x: Tensor, codes: Tensor) -> np.ndarray:
    """What an instrument measures in pictures (n, C, H, W), (n, K); ValueError for an answer that cannot be one."""
    found, names = instrument(x, codes=codes), instrument.names
    found = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found, dtype=float)
    if found.shape != (len(x), len(names)):
        raise ValueError(f"an instrument gives ({len(x)}, {len(names)}) for {', '.join(names)}, not {found.shape}")
    return np.round(np.where(np.isfinite(found), found, np.nan), DECIMALS)


def deviation(values: np.ndarray, factor: Factor | None = None) -> np.ndarray:
    """Standard deviation over the last axis, without NaN; NaN where fewer than two values are known.

    For a cyclic factor sqrt(2 (1 - R)) on the circle, R the length of the mean of the unit vectors, in the factor's
    unit: the same for small spreads, and at most 0.23 of a turn.
    """
    known = np.isfinite(values)
    count, values = known.sum(axis=-1), np.where(known, values, 0.0)
    some = np.maximum(count, 1)
    if factor is not None and factor.kind == "cyclic":
        radian = period(factor) / (2 * math.pi)
        sine, cosine = ((f(values / radian) * known).sum(axis=-1) / some for f in (np.sin, np.cos))
        off = radian * np.sqrt(2 * np.maximum(1 - np.hypot(sine, cosine), 0))
    else:
        middle = values.sum(axis=-1) / some
        off = np.sqrt(((values - middle[..., None]) ** 2 * known).sum(axis=-1) / some)
    return np.where(count >= 2, off, np.nan)


def full(codes: Tensor, value: float) -> Tensor:
    """The same value for each code, (n, 1), as a direction is written."""
    return torch.full((len(codes), 1), float(value))


def median(values: np.ndarray) -> np.ndarray:
    """The median (T,) of each row (T, n) without NaN; NaN for a row without any."""
    return pd.DataFrame(values).median(axis=1).to_numpy()


def mean(values: np.ndarray) -> float:
    """The mean without NaN; NaN where nothing is known."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
