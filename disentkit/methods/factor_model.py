"""The factor model: from trajectories (z_0, z_t, t) to a direction u and its scale g.

    t = g(<z_t, u>) - g(<z_0, u>),    |u| = 1,  g increasing and piecewise linear

Plumerault, Le Borgne, Hudelot 2020, arXiv 2001.10238, section 2.2. Absolute t is never seen, so differences are fitted,
and g is known up to a constant: g(0) = 0 here. How u is found is ours (`how="mean"`); `how="joint"` is the released
code's, whose penalty keeps |v| small, so that few of its 101 pieces are ever reached.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from disentkit.errors import UserError, one_of, whole
from disentkit.methods.steered import Direction, make_direction

HOW = ("mean", "ridge", "joint")
KNOTS = 4.0  # g has its knots on [-4, 4]: under the prior <z, u> is N(0, 1)
FLATTEST = 1e-2  # the least slope of g, as a share of the straight line's: g must have an inverse


class Pointless(ValueError):
    """Trajectories to which no direction can be fitted."""


@dataclass(frozen=True)
class Trajectories:
    """The ways of n codes under one transformation: z0 (n, D), z (T, n, D), t (T,), ascending, errors (T, n).

    An error is that of the loss at the pair (z, t); infinite where the generator gave NaN.
    """

    name: str
    unit: str
    z0: Tensor
    z: Tensor
    t: Tensor
    errors: Tensor

    def kept(self, keep: float = 0.9, per_t: bool = True) -> Tensor:
        """Which pairs (T, n) are no worse than the share `keep` of the others at the same t, or of all (per_t=False).

        Raises ValueError where not one is left.
        """
        if not 0 < keep <= 1:
            raise ValueError(f"keep is a share above 0 and at most 1, not {keep}")
        whole = self.errors.isfinite()
        if not whole.any():
            raise Pointless(f"not one trajectory of '{self.name}' is left: none was followed, or all met NaN")
        rows = self.errors if per_t else self.errors.reshape(1, -1)
        finite = torch.where(rows.isfinite(), rows, torch.nan)
        worst = finite.nanquantile(keep, dim=1, keepdim=True)  # NaN in a row without any, and nothing is kept there
        return (rows <= worst).reshape(self.errors.shape) & whole

    def subset(self, rows) -> Trajectories:
        """Only these trajectories: numbers or bits (n,)."""
        return replace(self, z0=self.z0[rows], z=self.z[:, rows], errors=self.errors[:, rows])

    def pairs(self, keep: float = 0.9, per_t: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs that are kept: z_0 (M, D), z_t (M, D), t (M,), float64."""
        kept = self.kept(keep, per_t)
        start = self.z0.expand_as(self.z)[kept]
        t = self.t[:, None].expand_as(kept)[kept]
        return start.double(), self.z[kept].double(), t.double()


def fit_direction(
    found: Trajectories, *, pieces: int = 25, keep: float = 0.9, per_t: bool = True, how: str = "mean",
    smooth: float = 0.1,
) -> Direction:  # fmt: skip
    """u and g of one factor from its trajectories (step 5).

    how     "mean": u along the mean of t (z_t - z_0), then g; "ridge": u by ridge regression of t on z_t - z_0, then g;
            "joint": v and g together as in the released code (101 pieces on [-5.05, 5.05] of <z, v>, u = v / |v|)
    pieces  of g, at most 200; 1 is a straight line
    smooth  weight of the mean squared difference of neighbouring slopes

    Raises ValueError for pairs that point nowhere.
    """
    if whole("pieces", pieces) > 200:
        raise UserError(f"g has 200 pieces at most, not {pieces}")
    z0, z, t = found.pairs(keep, per_t)
    step = z - z0
    u = t @ step
    if not u.norm() > 0:
        raise Pointless(f"the trajectories of '{found.name}' do not move, so they have no direction")
    if one_of("way to fit a direction", how, HOW) == "joint":
        u, knots, values = _joint(z0, z, t)
    else:
        if how == "ridge":  # lambda 0.1 for each pair
            u = torch.linalg.solve(step.T @ step + 0.1 * len(t) * torch.eye(step.shape[1]), u)
        u = u / u.norm()
        knots, values = fit_g(z0 @ u, z @ u, t, pieces, smooth)
    return make_direction(found.name, u, knots, values, found.unit)


def fit_g(s0: Tensor, s: Tensor, t: Tensor, pieces: int = 25, smooth: float = 0.1) -> tuple[Tensor, Tensor]:
    """Knots and values (pieces + 1,) of the increasing g with g(s) - g(s0) nearest to t in least squares, (M,) each.

    Absolute t is never seen, so the difference is what is fitted. The slopes p are found by bounded linear least
    squares: g is linear in them.
    """
    knots = torch.linspace(-KNOTS, KNOTS, pieces + 1, dtype=torch.float64)
    ramps = _ramps(s.double(), knots) - _ramps(s0.double(), knots)  # (M, pieces): what each slope adds to g(s) - g(s0)
    line = float((s - s0).double() @ t.double() / (s - s0).double().square().sum().clamp(min=1e-12))
    even = torch.diff(torch.eye(pieces, dtype=torch.float64), dim=0) * (smooth * len(t) / max(pieces - 1, 1)) ** 0.5
    A, b = torch.cat([ramps, even]).numpy(), torch.cat([t.double(), torch.zeros(pieces - 1)]).numpy()
    least = max(abs(line), 1e-6) * FLATTEST
    slopes = torch.from_numpy(lsq_linear(A, b, bounds=(least, np.inf)).x)
    values = torch.cat([torch.zeros(1), (slopes * knots.diff()).cumsum(0)])
    return knots, values - values[0]


def _ramps(s: Tensor, knots: Tensor) -> Tensor:
    """How far s (M,) reaches into each piece (M, pieces); the first and the last piece go on for ever."""
    low, high = knots[:-1].clone(), knots[1:].clone()
    low[0], high[-1] = -torch.inf, torch.inf
    return s[:, None].clamp(low, high) - knots[:-1]


def _joint(z0: Tensor, z: Tensor, t: Tensor, epochs: int = 100, batch: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """u, knots and values as the released code fits them: v and the slopes p together, by Adam.

    MSE of g(<z, v>) - g(<z_0, v>) against t, plus 0.1 |v|^2 and the mean squared difference of neighbouring p, p >= 0.
    """
    rng = torch.Generator().manual_seed(0)
    limit = (6 / (z.shape[1] + 1)) ** 0.5  # Glorot
    v = ((2 * torch.rand(z.shape[1], generator=rng) - 1) * limit).double().requires_grad_()
    p = torch.ones(101, dtype=torch.float64, requires_grad=True)
    knots = torch.linspace(-5.05, 5.05, 102, dtype=torch.float64)
    opt = torch.optim.Adam([v, p], lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(t), generator=rng).split(batch):
            reached = (_clipped(z[rows] @ v, knots) - _clipped(z0[rows] @ v, knots)) @ p
            loss = (reached - t[rows]).square().mean() + 0.1 * v.square().sum() + p.diff().square().mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            with torch.no_grad():
                p.clamp_(min=0)
    v, p = v.detach(), p.detach().clamp(min=FLATTEST)
    values = torch.cat([torch.zeros(1), (p * knots.diff()).cumsum(0)])
    return v / v.norm(), knots / v.norm(), values


def _clipped(s: Tensor, knots: Tensor) -> Tensor:
    """Ramps (M, pieces) of a g that is constant beyond its knots."""
    return s[:, None].clamp(knots[:-1], knots[1:]) - knots[:-1]


def explained(direction: Direction, found: Trajectories, keep: float = 1.0) -> float:
    """R^2 of t by g(<z_t, u>) - g(<z_0, u>) on the pairs of trajectories, best those that it was not fitted to."""
    z0, z, t = found.pairs(keep)
    s0, s = (direction.projection(part.float()) for part in (z0, z))
    missed = direction.g(s) - direction.g(s0) - t
    return float(1 - missed.square().sum() / (t - t.mean()).square().sum())
