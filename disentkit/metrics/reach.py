"""Reach: how far a direction carries, before the picture stops changing or falls apart.

    alpha = <z, u> from -6 to 6, for codes whose prior is N(0, 1) there: beyond 3 hardly a code was ever trained

On the way the measured factor moves, more and more slowly, and stands still or falls back. That may be the generator's
doing or the instrument's, which no longer finds its object: so the instrument's failures are counted, a second opinion
on the pictures may be given, and the energy of their fine detail is followed. Measure with two instruments where there
are two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from disentkit.codes import Block
from disentkit.metrics import readings

FLAT = 0.1  # of the slope at the centre; where the local slope is less, the change has stopped
BROKEN = 0.1  # share of pictures; where more are broken, the direction has come to its end
CENTRE = 1.0  # |alpha| up to which the slope at the centre is fitted


@dataclass(frozen=True)
class Reach:
    """What became of n codes as one direction's <z,u> was set to each of A values.

    direction, name  the direction and the measured factor
    alphas, t        what was asked for (A,): <z,u>, and g of it in the direction's unit
    median, std      of the readings that did not fail, (A,)
    slope            local slope (A,) of the median, per unit of <z,u>
    centre           slope of the median within |alpha| <= 1
    failures         share (A,) of codes for which the instrument failed
    broken           share (A,) of pictures that failed or that `breaks` calls broken
    energy           energy of the fine detail (A,), over that of the pictures of the untouched codes
    """

    direction: str
    name: str
    alphas: np.ndarray
    t: np.ndarray
    median: np.ndarray
    std: np.ndarray
    slope: np.ndarray
    centre: float
    failures: np.ndarray
    broken: np.ndarray
    energy: np.ndarray

    @property
    def stops(self) -> tuple[float, float]:
        """The first |alpha| below and above 0 where the change has stopped; NaN where it goes on as far as is known.

        Stopped: the local slope is less than a tenth of that at the centre, or has turned. 0 where nothing changes at
        the centre either.
        """
        if abs(self.centre) < 10.0**-readings.DECIMALS:
            return 0.0, 0.0
        return self._first(self.slope / self.centre < FLAT)

    @property
    def breaks(self) -> tuple[float, float]:
        """The first |alpha| below and above 0 where more than a tenth of the pictures are broken; NaN: none."""
        return self._first(self.broken > BROKEN)

    @property
    def carries(self) -> tuple[float, float]:
        """How far the direction carries, below and above 0: to where it stops or breaks, or the end asked for."""
        ends = -self.alphas[0], self.alphas[-1]
        three = zip(self.stops, self.breaks, ends)
        return tuple(float(min(x for x in side if not math.isnan(x))) for side in three)

    def frame(self) -> pd.DataFrame:
        """A row per alpha: t, median, std, slope, failures, broken, energy."""
        columns = ("t", "median", "std", "slope", "failures", "broken", "energy")
        index = pd.Index(self.alphas, name="alpha")
        return pd.DataFrame({column: getattr(self, column) for column in columns}, index=index)

    def row(self) -> dict[str, float]:
        """One row of a table: where it stops, breaks and how far it carries, below and above 0."""
        sides = {word: getattr(self, word) for word in ("stops", "breaks", "carries")}
        return {
            f"{word} {side}": value for word, pair in sides.items() for side, value in zip(("below", "above"), pair)
        }

    def _first(self, here: np.ndarray) -> tuple[float, float]:
        """|alpha| of the first True seen from 0, to either side; 0 itself counts on both."""
        sides = self.alphas[here & (self.alphas <= 0)], self.alphas[here & (self.alphas >= 0)]
        return tuple(float(np.abs(side).min()) if len(side) else math.nan for side in sides)


def reach(
    model,
    direction: str | Block,
    instrument,
    *,
    name: str | None = None,
    alphas: Sequence[float] | None = None,
    n: int = 100,
    seed: int = 0,
    codes: Tensor | None = None,
    breaks: Callable[[Tensor], Tensor] | None = None,
) -> Reach:
    """Set <z,u> of n codes to each of A values, far beyond where the prior draws from, decode and measure.

    name    the measured factor, by default the direction's own
    alphas  the values (A,) of <z,u>, by default -6, -5.5 ... 6; where the change stops is known to their step
    codes   codes (n, D) instead of n from the model's prior
    breaks  pictures (m, C, H, W) -> (m,) True where one is broken, such as a judge that is not sure of anything

    Raises ValueError as `steer`, and for alphas that do not reach to both sides or hold fewer than three within 1.
    """
    readings.check_model(model)
    direction, names = readings.find(model, direction), readings.check_instrument(instrument)
    k, alphas = readings.column(names, name, direction.name), _alphas(alphas)
    codes = readings.draw(model, n, seed) if codes is None else readings.given(model, codes)
    g = getattr(direction, "g", None)  # a plain block is its own <z,u>
    t = np.asarray(g(torch.tensor(alphas, dtype=torch.float32)), dtype=float) if callable(g) else alphas
    start = np.concatenate([fine_energy(x) for _, x in readings.pictures(model, codes)])
    found, broken, energy = [], [], []
    for value in t:
        there = direction.write(codes, readings.full(codes, value))
        parts = [_look(x, part, instrument, k, breaks) for part, x in readings.pictures(model, there)]
        for kept, part in zip((found, broken, energy), zip(*parts)):
            kept.append(np.concatenate(part))
    found, broken, energy = np.stack(found), np.stack(broken), np.stack(energy).mean(axis=1)  # (A, n), (A, n), (A,)
    median = readings.median(found)
    near = (np.abs(alphas) <= CENTRE) & np.isfinite(median)
    centre = float(np.polyfit(alphas[near], median[near], 1)[0]) if near.sum() > 1 else math.nan
    return Reach(
        direction.name, names[k], alphas, t, median, readings.deviation(found), np.gradient(median, alphas), centre,
        np.isnan(found).mean(axis=1), broken.mean(axis=1), energy / start.mean() if start.any() else energy * np.nan,
    )  # fmt: skip


def fine_energy(x: Tensor, above: float = 0.25) -> np.ndarray:
    """Mean square (n,) of what lies in pictures (n, C, H, W) at more than `above` cycles per pixel.

    0.25 is a wavelength of 4 pixels and half of what pixels can show along an axis; noise and textures live there,
    shapes with their edges mostly do not.
    """
    height, width = x.shape[-2:]
    rows, columns = torch.fft.fftfreq(height, device=x.device), torch.fft.fftfreq(width, device=x.device)
    high = rows[:, None] ** 2 + columns**2 > above**2  # (H, W)
    power = torch.fft.fft2(x.float(), norm="ortho").abs().square() * high
    return power.mean(dim=(1, 2, 3)).double().cpu().numpy()


def _look(x: Tensor, codes: Tensor, instrument, k: int, breaks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Readings of factor k, whether each picture is broken, and its fine energy, (m,) each."""
    found = readings.read(instrument, x, codes)[:, k]
    bad = np.isnan(found)
    if breaks is not None:
        called = np.asarray(breaks(x))
        if called.shape != (len(x),) or called.dtype != bool:
            raise ValueError(
                f"breaks says True or False of each of {len(x)} pictures, not {called.dtype} {called.shape}"
            )
        bad = bad | called
    return found, bad, fine_energy(x)


def _alphas(alphas: Sequence[float] | None) -> np.ndarray:
    alphas = np.linspace(-6, 6, 25) if alphas is None else np.asarray(alphas, dtype=float).ravel()
    whole = len(alphas) and np.isfinite(alphas).all() and (np.diff(alphas) > 0).all()
    if not (whole and alphas[0] < 0 < alphas[-1] and (np.abs(alphas) <= CENTRE).sum() > 2):
        raise ValueError(f"alphas must ascend from below 0 to above 0, three of them within {-CENTRE:g} ... {CENTRE:g}")
    return alphas
