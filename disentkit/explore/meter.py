"""An instrument as panels use it: checked once, called on one thread, and what it measured in words."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from disentkit import models

NOT_FOUND = "not found"  # said where an instrument gives NaN


class Meter:
    """What panels ask of an instrument: `names`, its `title`, and values (N, K) that have the shape they should.

    instrument  `names` and a call images (N, C, H, W), codes (N, D) -> values (N, K); None measures nothing. Raises
                ValueError for anything else
    """

    def __init__(self, instrument):
        names = () if instrument is None else getattr(instrument, "names", None)
        if isinstance(instrument, type) or not (instrument is None or callable(instrument)) or names is None:
            kind = f"the class {instrument.__name__}" if isinstance(instrument, type) else type(instrument).__name__
            raise ValueError(f"an instrument has names and is called with images and codes, as those of "
                             f"metrics.instruments; {kind} is none")  # fmt: skip
        self.instrument, self.names = instrument, tuple(names)
        self.title = "" if instrument is None else type(instrument).__name__

    def __bool__(self) -> bool:
        """False where nothing is measured."""
        return self.instrument is not None

    def __call__(self, x: Tensor, codes: Tensor) -> Tensor:
        """Values (N, K), NaN where nothing was found, of pictures (N, C, H, W) and their codes (N, D)."""
        if self.instrument is None:
            return torch.zeros(len(x), 0)
        with models.frozen(self.instrument):  # one thread, no gradients
            values = torch.as_tensor(self.instrument(x, codes)).float().cpu()
        if values.shape != (len(x), len(self.names)):
            names = ", ".join(self.names)
            raise ValueError(f"{self.title} names {names} and must give ({len(x)}, {len(self.names)}) values, "
                             f"not {tuple(values.shape)}")  # fmt: skip
        return values


def decimals(span: float) -> int:
    """Digits after the point that tell a hundredth of a range apart; at least two."""
    return max(2, 1 - math.floor(math.log10(span)))


def number(value: float, digits: int = 2) -> str:
    """A measured value, or that nothing was found."""
    return NOT_FOUND if math.isnan(value) else f"{_rounded(value, digits):.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """A change, always with its sign; what rounds to nothing is +0.00."""
    return f"{_rounded(value, digits):+.{digits}f}"


def changed(value: float | None, before: float | None, digits: int = 2) -> str:
    """`0.61 (+0.09)`: a measured value and its change since the start.

    NaN where nothing was found, None where nothing has been measured yet.
    """
    if value is None:
        return "..."
    if before is None or math.isnan(value):
        return number(value, digits)
    since = f"{NOT_FOUND} at the start" if math.isnan(before) else signed(value - before, digits)
    return f"{number(value, digits)} ({since})"


def _rounded(value: float, digits: int) -> float:
    return round(value, digits) + 0.0  # no -0.00
