"""Steering: does the picture do what a direction was asked for, and does it leave the rest alone?

    z' = write(z, t)          the direction's value in z' is t, in the factor's own unit
    m  = instrument(Dec(z'))  what an instrument measures in the picture

A direction follows its factor if m goes with t over many codes z: in rank (Spearman), in size (slope 1) and tightly
(the standard deviation at each t). It leaks into the other factors that change on the way.
Requests are absolute: each code is set to t, not moved by it. No sign is ever turned: a direction that points the wrong
way has a negative slope.

Plumerault et al. (ICLR 2020) draw what is measured against what was asked for, with its standard deviation; the other
scores here are ours.

An instrument (`instruments.py`) is any object with `names` (K,) and `__call__(images (N, C, H, W), codes=None)` ->
(N, K), NaN where it failed. Which of its names are categories or cyclic it says with `factors`, a list of Factor; those
that are not in it are real. How far a direction carries is in `reach.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from torch import Tensor

from disentkit.codes import Block
from disentkit.data.factors import Factor
from disentkit.metrics import readings
from disentkit.metrics.arrays import whole

STEPS = 11  # values that are asked for by default


@dataclass(frozen=True)
class Steering:
    """What was measured along one direction, for n codes at T requested values.

    direction  its name
    requested  the values t (T,), ascending, in the direction's unit
    measured   (T, n, K), NaN where the instrument failed
    start      (n, K), measured at the codes as they were drawn
    names      of the K measured factors
    low, high  t at <z,u> = -2 and 2: the zone that a Gaussian prior mostly draws from
    unit       of t
    factors    {name: Factor} of those whose kind the instrument knows; the others are real
    settings   codes, seed (None where codes were given)

    The methods take the name of a measured factor, by default the direction's own. They are about all values that were
    asked for: by default the zone, else narrow them by `within()`. Standard deviations are those of the population.
    ValueError for a factor that was not measured.
    """

    direction: str
    requested: np.ndarray
    measured: np.ndarray
    start: np.ndarray
    names: tuple[str, ...]
    low: float
    high: float
    unit: str = ""
    factors: Mapping[str, Factor] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)

    def of(self, name: str | None = None) -> np.ndarray:
        """The readings (T, n) of one factor."""
        return self.measured[:, :, self._column(name)]

    def spearman(self, name: str | None = None) -> float:
        """Rank correlation of measured with requested over all codes and values, -1 ... 1; a still factor has 0.

        All codes share each requested value, so where readings differ at all within one, 1 is not reached: with T
        values at most sqrt(1 - 1 / T^2), 0.996 for 11.
        """
        from scipy.stats import rankdata  # here, since importing it takes half a second

        asked, found = self._pairs(name)
        return _correlation(rankdata(asked), rankdata(found)) if len(found) else math.nan

    def slope(self, name: str | None = None) -> float:
        """Slope of the least-squares line of measured on requested: 1 where the picture does what was asked."""
        asked, found = self._pairs(name)
        off = asked - asked.mean() if len(asked) else asked
        return float((off * (found - found.mean())).sum() / (off**2).sum()) if (off != 0).any() else math.nan

    def r2(self, name: str | None = None) -> float:
        """Share of the measured variance that the least-squares line on the requested value explains, 0 ... 1."""
        asked, found = self._pairs(name)
        return _correlation(asked, found) ** 2 if len(found) else math.nan

    def median(self, name: str | None = None) -> np.ndarray:
        """The median (T,) over the codes at each requested value."""
        return readings.median(self.of(name))

    def change(self, name: str | None = None) -> float:
        """How far the median goes from the first requested value to the last."""
        middle = self.median(name)
        return float(middle[-1] - middle[0])

    def std(self, name: str | None = None) -> np.ndarray:
        """Standard deviation (T,) over the codes at each requested value: the paper's red curve."""
        return readings.deviation(self.of(name), self.factors.get(self.names[self._column(name)]))

    def spread(self, name: str | None = None) -> float:
        """The mean of `std` over the requested values: how precisely the direction sets the factor."""
        return readings.mean(self.std(name))

    def failures(self, name: str | None = None) -> np.ndarray:
        """Share (T,) of the codes for which the instrument failed at each requested value."""
        return np.isnan(self.of(name)).mean(axis=1)

    def leaks(self) -> pd.Series:
        """How much each measured factor changes along the direction, its own included.

        Real and cyclic factors: the standard deviation along one code's path, averaged over the codes, over that of the
        untouched pictures; 0 is left alone, 1 changes as much as from picture to picture. For a cyclic factor both are
        `deviation` on the circle. NaN where the factor is the same in all untouched pictures.
        Categories: the share of pictures on the way whose reading differs from that of the untouched picture, 0 ... 1.
        """
        found = {}
        for k, name in enumerate(self.names):
            factor, path, start = self.factors.get(name), self.measured[:, :, k].T, self.start[:, k]  # (n, T), (n,)
            if factor is not None and factor.kind == "category":
                known = np.isfinite(path) & np.isfinite(start)[:, None]
                changed = np.rint(path) != np.rint(start)[:, None]
                found[name] = float(changed[known].mean()) if known.any() else math.nan
            else:
                typical = float(readings.deviation(start, factor))
                varies = typical > 10.0**-readings.DECIMALS
                found[name] = readings.mean(readings.deviation(path, factor)) / typical if varies else math.nan
        return pd.Series(found, name=self.direction)

    def frame(self) -> pd.DataFrame:
        """A row per code, requested value and factor: columns code, t, factor, measured."""
        T, n, K = self.measured.shape
        return pd.DataFrame({
            "code": np.tile(np.repeat(np.arange(n), K), T),
            "t": np.repeat(self.requested, n * K),
            "factor": np.tile(np.array(self.names, dtype=object), T * n),
            "measured": self.measured.ravel(),
        })  # fmt: skip

    def within(self, low: float | None = None, high: float | None = None) -> Steering:
        """The same for the requested values in low ... high only, by default the zone |<z,u>| <= 2.

        Raises ValueError where fewer than two values are left.
        """
        low, high = self.low if low is None else low, self.high if high is None else high
        slack = 1e-6 * max(abs(low), abs(high), 1e-12)  # the ends of the zone went through g and back
        kept = (self.requested >= low - slack) & (self.requested <= high + slack)
        if kept.sum() < 2:
            raise ValueError(f"{kept.sum()} of the {len(kept)} requested values lie in {low:g} ... {high:g}: ask for 2")
        return replace(self, requested=self.requested[kept], measured=self.measured[kept])

    def _column(self, name: str | None) -> int:
        return readings.column(self.names, name, self.direction)

    def _pairs(self, name: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Requested and measured values, (m,) each, where the instrument did not fail."""
        found = self.of(name)
        known = np.isfinite(found)
        return np.broadcast_to(self.requested[:, None], found.shape)[known], found[known]


def steer(
    model,
    direction: str | Block,
    instrument,
    *,
    t: Sequence[float] | None = None,
    n: int = 200,
    seed: int = 0,
    codes: Tensor | None = None,
) -> Steering:
    """Set n codes to each of T values along a direction, decode them and measure.

    direction  a Direction, or the name of one of the model's; any other scalar block will do
    t          the values (T,) in the direction's unit, by default 11 from g(-2) to g(2)
    n, seed    codes drawn from the model's prior: not those that the direction was fitted on
    codes      codes (n, D) instead

    Raises ValueError for an unknown direction, an instrument that is none, fewer than two codes or values, and pictures
    that are not finite.
    """
    readings.check_model(model)
    direction, names = readings.find(model, direction), readings.check_instrument(instrument)
    asked = _values(direction, t)
    drawn = codes is None
    codes = readings.draw(model, n, seed) if drawn else readings.given(model, codes)
    start = readings.measure(model, codes, instrument)
    measured = np.stack(
        [readings.measure(model, direction.write(codes, readings.full(codes, v)), instrument) for v in asked]
    )
    return Steering(
        direction.name, asked, measured, start, names, float(direction.low), float(direction.high), direction.unit,
        _factors(instrument, names), {"codes": len(codes), "seed": seed if drawn else None},
    )  # fmt: skip


def leakage(
    model,
    directions: Mapping[str, str | Block] | Iterable[str | Block] | None,
    instrument,
    *,
    n: int = 200,
    seed: int = 0,
    steps: int = STEPS,
    codes: Tensor | None = None,
) -> pd.DataFrame:
    """How much every measured factor (column) changes along every direction (row): `Steering.leaks`.

    directions  {label: direction}, directions or names; None: all of a Steered model
    steps       values asked for from g(-2) to g(2) of each

    All directions start from the same codes. An instrument that errs adds its own error to every cell: compare with the
    row of a random direction. Raises ValueError as `steer`.
    """
    readings.check_model(model)
    found = readings.several(model, directions)
    codes = readings.draw(model, n, seed) if codes is None else codes
    asked = {label: np.linspace(d.low, d.high, whole("steps", steps, least=2)) for label, d in found.items()}
    rows = {label: steer(model, d, instrument, t=asked[label], codes=codes).leaks() for label, d in found.items()}
    return pd.DataFrame.from_dict({label: row.to_dict() for label, row in rows.items()}, orient="index")


def compare(
    model,
    directions: Mapping[str, str | Block] | Iterable[str | Block] | None,
    instrument,
    name: str | None = None,
    *,
    n: int = 200,
    seed: int = 0,
    codes: Tensor | None = None,
) -> pd.DataFrame:
    """One row per direction, all from the same codes, for a measured factor: baselines, ablations.

    name  the factor that they are meant to steer; by default each direction's own

    Columns: "spearman", "slope", "r2", "change" of the median from g(-2) to g(2), "std" (the mean over t), "leak" and
    "into" (the other factor that changes most, see `Steering.leaks`), "failures" (share). A direction without a fitted
    g is asked for values of <z,u>, so its slope is per <z,u>, and says nothing but the sign.
    Raises ValueError as `steer`.
    """
    readings.check_model(model)
    found, rows = readings.several(model, directions), {}
    codes = readings.draw(model, n, seed) if codes is None else codes
    for label, direction in found.items():
        path = steer(model, direction, instrument, codes=codes)
        own = path.names[readings.column(path.names, name, path.direction)]
        others = path.leaks().drop(own).dropna()
        rows[label] = {
            "spearman": path.spearman(own), "slope": path.slope(own), "r2": path.r2(own), "change": path.change(own),
            "std": path.spread(own), "leak": float(others.max()) if len(others) else math.nan,
            "into": others.idxmax() if len(others) else "", "failures": float(path.failures(own).mean()),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


@dataclass(frozen=True)
class Distribution:
    """How near a measured factor comes to the uniform distribution that was asked for.

    before, after  KS distance 0 ... 1 to it, of plain samples and of redistributed ones
    plain, chosen  what was measured in them, without failures
    offset         measured = offset + t
    low, high      the uniform's ends, as t
    failures       shares of plain and chosen pictures that could not be measured
    """

    before: float
    after: float
    plain: np.ndarray
    chosen: np.ndarray
    offset: float
    low: float
    high: float
    failures: tuple[float, float] = (0.0, 0.0)


def distribution(
    model,
    direction: str | Block,
    instrument,
    low: float,
    high: float,
    n: int = 1000,
    *,
    name: str | None = None,
    seed: int = 0,
    codes: Tensor | None = None,
) -> Distribution:
    """Ask for t uniform in low ... high and measure how near the pictures come: the Kolmogorov-Smirnov distance.

    The zero of t is that of g(0) = 0, not the instrument's: measured = offset + t, with the offset estimated as the
    median reading of the same n codes at t = 0. The distance is to the uniform on offset + low ... offset + high, once
    for the codes as they are drawn and once after `direction.redistribute`. A slope other than 1 shows as a distance.

    Raises ValueError as `steer`, for low not below high, and where fewer than ten readings are left.
    """
    from scipy.stats import ks_1samp, uniform  # here, since importing it takes half a second

    readings.check_model(model)
    direction, names = readings.find(model, direction), readings.check_instrument(instrument)
    if not callable(getattr(direction, "redistribute", None)):
        raise ValueError(f"block '{direction.name}' is no fitted Direction, so no distribution of t can be chosen")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a uniform distribution needs low < high, got {low:g} and {high:g}")
    k = readings.column(names, name, direction.name)
    codes = readings.draw(model, n, seed) if codes is None else readings.given(model, codes)
    spread = direction.redistribute(codes, lambda p: low + (high - low) * p)
    three = codes, spread, direction.write(codes, readings.full(codes, 0.0))
    plain, chosen, zero = (
        part[np.isfinite(part)] for part in (readings.measure(model, c, instrument)[:, k] for c in three)
    )
    fewest = min(map(len, (plain, chosen, zero)))
    if fewest < 10:
        raise ValueError(f"only {fewest} of {len(codes)} readings of '{names[k]}' are known: a distribution needs 10")
    offset = float(np.median(zero))
    asked = uniform(offset + low, high - low).cdf
    before, after = (float(ks_1samp(part, asked).statistic) for part in (plain, chosen))
    failures = tuple(1 - len(part) / len(codes) for part in (plain, chosen))
    return Distribution(before, after, plain, chosen, offset, float(low), float(high), failures)


def profile(model, direction: str | Block) -> pd.Series:
    """Squared norm of u in each block of the model's code, summing to 1: where a direction acts.

    For a generator that reads a chunk of the code at each level, this is the level at which the factor is made; after
    the paper's figure of u's norm per chunk. Directions themselves and blocks without numbers to move (one-hot, maps)
    are left out. Raises ValueError for a block that has no u.
    """
    readings.check_model(model)
    direction = readings.find(model, direction)
    squares = _u(direction) ** 2
    blocks = [b for b in model.codes if not hasattr(b, "u") and b.kind not in ("onehot", "map")]
    return pd.Series({b.name: float(squares[list(b.at)].sum()) for b in blocks}, name=direction.name)


def truth(direction: Block, u_star: Tensor | Sequence[float]) -> float:
    """Cosine of a direction's u with the true one (D,), -1 ... 1, with its sign.

    Raises ValueError for another length and for a true direction of length 0.
    """
    u, true = _u(direction), np.asarray(u_star, dtype=float).ravel()
    if u.shape != true.shape or not np.isfinite(true).all() or not true.any():
        raise ValueError(f"the true direction must be {len(u)} finite numbers, not all 0, got {true.shape}")
    return float(u @ true / np.linalg.norm(u) / np.linalg.norm(true))


def _values(direction: Block, t: Sequence[float] | None) -> np.ndarray:
    asked = np.linspace(direction.low, direction.high, STEPS) if t is None else np.asarray(t, dtype=float).ravel()
    if len(asked) < 2 or not np.isfinite(asked).all() or (np.diff(asked) <= 0).any():
        raise ValueError("t must hold two finite values or more, ascending and without repeats")
    return asked


def _factors(instrument, names: Sequence[str]) -> dict[str, Factor]:
    return {f.name: f for f in getattr(instrument, "factors", ()) if f.name in names}


def _u(direction: Block) -> np.ndarray:
    if not hasattr(direction, "u"):
        raise ValueError(f"block '{getattr(direction, 'name', direction)}' has no u: give a Direction")
    return np.asarray(direction.u, dtype=float)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of (m,) with (m,); 0 where either is constant, since nothing follows a constant."""
    a, b = a - a.mean(), b - b.mean()
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size > 1e-12 else 0.0
