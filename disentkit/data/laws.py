"""Laws: how factor tuples are drawn. A held-out rule lives here, so nothing that draws from the law can meet it.

Every law offers `draw(space, n, rng) -> values (n, K)` on the generator's device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from disentkit.data.factors import FactorSpace


@dataclass(frozen=True)
class Grid:
    """Every factor uniform on its grid values, independent of the others."""

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        return space.from_grid(space.draw_grid(n, rng))


@dataclass(frozen=True)
class Real:
    """Categories uniform; real and cyclic factors uniform between their lowest and highest value."""

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        values = Grid().draw(space, n, rng)
        uniform = torch.rand(n, len(space), generator=rng, device=rng.device)
        for k, f in enumerate(space):
            if f.kind != "category":
                values[:, k] = f.low + (f.high - f.low) * uniform[:, k]
        return values


@dataclass(frozen=True)
class Correlated:
    """Grid factors, but with probability `strength` factor `b` sits at the same relative place on its axis as `a`.

    strength 0 is the plain grid, 1 ties the two factors together.
    """

    a: str
    b: str
    strength: float

    def __post_init__(self):
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must lie in 0 ... 1, not {self.strength}")

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        idx = space.draw_grid(n, rng)
        a, b = space.index(self.a), space.index(self.b)
        place = idx[:, a].float() / max(space.sizes[a] - 1, 1)
        tied = (place * (space.sizes[b] - 1)).round().long()
        toss = torch.rand(n, generator=rng, device=rng.device) < self.strength
        idx[:, b] = torch.where(toss, tied, idx[:, b])
        return space.from_grid(idx)

    def partners(self, space: FactorSpace, k: int, values: Tensor, rng: torch.Generator) -> tuple[int, Tensor] | None:
        """Where factor k is one of the two: the other's column, and draws of it (n,) given values (n,) of k."""
        a, b = space.index(self.a), space.index(self.b)
        if k not in (a, b):
            return None
        rows, columns = space.sizes[a], space.sizes[b]
        place = torch.arange(rows, device=rng.device) / max(rows - 1, 1)
        tied = torch.nn.functional.one_hot((place * (columns - 1)).round().long(), columns)
        table = self.strength * tied + (1 - self.strength) / columns  # (a, b): p(b | a), and p(a, b) but for a factor
        # A value of b that no value of a is tied to never comes at strength 1; any partner does for it.
        table = (table if k == a else table.T) + 1e-12
        grid, other = space.table(rng.device), b if k == a else a
        given = (values[:, None] - grid[k]).abs().argmin(1)  # (n,) grid positions
        return other, grid[other][torch.multinomial(table[given], 1, generator=rng)[:, 0]]


@dataclass(frozen=True)
class HeldOut:
    """Another law without the tuples for which `rule(values (n, K)) -> (n,) bool` is true.

    Over `Grid` the allowed tuples are listed once and indexed, so that drawing reads nothing back to the host. Over any
    other law tuples are drawn again until n are left. Either way the rest keep their proportions. Raises ValueError
    where the rule leaves (almost) nothing.
    """

    law: object
    rule: Callable[[Tensor], Tensor]
    _allowed: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __repr__(self) -> str:  # the rule's own text holds an address, another one in every process
        return f"HeldOut({self.law}, {getattr(self.rule, '__qualname__', type(self.rule).__name__)})"

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        if isinstance(self.law, Grid):
            allowed = self.allowed(space, rng.device)
            return allowed[torch.randint(len(allowed), (n,), generator=rng, device=rng.device)]
        kept, have = [], 0
        for _ in range(100):
            values = self.law.draw(space, 2 * n, rng)
            values = values[~self.rule(values)]
            kept.append(values)
            have += len(values)
            if have >= n:
                return torch.cat(kept)[:n]
        raise ValueError(f"the held-out rule leaves too few tuples: {have} of {200 * n} draws passed")

    def allowed(self, space: FactorSpace, device) -> Tensor:
        """The grid tuples (m, K) that the rule leaves, in grid order, on a device."""
        key = space.factors, torch.device(device)
        if key not in self._allowed:
            parts = torch.arange(space.grid_size, device=device).split(1_000_000)
            tuples = [space.from_grid(space.tuple_of(part)) for part in parts]
            self._allowed[key] = torch.cat([values[~self.rule(values)] for values in tuples])
            if not len(self._allowed[key]):
                raise ValueError(f"the held-out rule leaves too few tuples: none of {space.grid_size}")
        return self._allowed[key]


def draw_fixed(law, space: FactorSpace, k: int, n: int, rng: torch.Generator, groups: int = 1) -> Tensor:
    """Values (groups * n, K) in which each run of n rows shares one value of factor k; the law draws the others.

    A tuple that is held out never comes, also not by fixing a value. Raises ValueError for a factor that is not there,
    and for `HeldOut` over another law than `Grid`.
    """
    if not 0 <= k < len(space):
        raise ValueError(f"there is no factor {k}; the {len(space)} factors count from 0")
    if not isinstance(law, HeldOut):
        values = law.draw(space, groups * n, rng).reshape(groups, n, -1)
        values[:, :, k] = values[:, :1, k]
        values = values.reshape(groups * n, -1)
        if isinstance(law, Correlated) and (found := law.partners(space, k, values[:, k], rng)):
            values[:, found[0]] = found[1]
        return values
    if not isinstance(law.law, Grid):
        raise ValueError("a factor can only be fixed under a held-out rule over the law Grid()")
    allowed = law.allowed(space, rng.device)
    allowed = allowed[allowed[:, k].argsort(stable=True)]
    rows = rows_that_share(allowed[:, k].contiguous(), n, rng, groups)
    return allowed[rows]


def rows_that_share(ranked: Tensor, n: int, rng: torch.Generator, groups: int) -> Tensor:
    """Positions (groups * n,) in an ascending column (m,): each run of n shares the value of a row drawn at random."""
    anchor = ranked[torch.randint(len(ranked), (groups,), generator=rng, device=rng.device)]
    start, end = torch.searchsorted(ranked, anchor), torch.searchsorted(ranked, anchor, right=True)
    place = torch.rand(groups, n, generator=rng, device=rng.device) * (end - start)[:, None]
    return torch.minimum(start[:, None] + place.long(), end[:, None] - 1).reshape(-1)
