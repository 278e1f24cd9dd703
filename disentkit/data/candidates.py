"""Candidates for partners: the tuples that a law leaves, or the rows of a table, and how many partners each has.

Both kinds of pool number their pictures by places and offer the same: `idx`, `draw`, `propose`, `look`, `all_places`,
`per_value`, `least_relaxed`, `odds`. Kind j of a partner shares exactly attribute j, kind m shares none.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from disentkit.data.base import ArrayData, Data, Renderer
from disentkit.data.combinations import LISTED, check_values, grid_of
from disentkit.data.factors import FactorSpace
from disentkit.data.laws import Grid, HeldOut

RELAX = "take the relaxed sampler, reads=('edges',)"
_SPARSE = 0.05  # where a rule leaves less of the grid than this, partners come from the list of what is left
_MOST_SETS = 10  # attributes: the sets of more are not counted one by one


class Law:
    """The tuples of a grid that a rule leaves; a place is a position in the full grid.

    A proposal has the centre's value where it must agree and another one everywhere else, so only the rule is asked: of
    a grid that can be listed its answers are known beforehand.
    """

    def __init__(self, space: FactorSpace, law, columns: list[int]):
        self.space, self.law, self.columns = space, law, columns
        self.sizes = torch.tensor(space.sizes)
        strict = torch.zeros(len(space), dtype=torch.long)
        strict[columns] = 1
        self.low = torch.stack([torch.zeros_like(strict), strict])  # the least step along each axis: relaxed, exact
        self.moves = torch.ones(len(columns) + 1, len(space), dtype=torch.long)  # by kind, 0 where an axis stays
        self.moves[torch.arange(len(columns)), columns] = 0
        self.allowed = None
        if space.grid_size <= LISTED:
            parts = torch.arange(space.grid_size).split(250_000)
            self.allowed = torch.cat([self._passes(part) for part in parts])

    def _passes(self, places: Tensor) -> Tensor:
        if not isinstance(self.law, HeldOut):
            return torch.ones_like(places, dtype=torch.bool)
        return ~self.law.rule(self.space.from_grid(self.space.tuple_of(places)))

    def to(self, device) -> Law:
        moved = copy.copy(self)
        for name in ("sizes", "low", "moves", "allowed"):
            value = getattr(self, name)
            setattr(moved, name, None if value is None else value.to(device))
        return moved

    def idx(self, places: Tensor) -> Tensor:
        """Grid indices (r, K) of places (r,)."""
        return self.space.tuple_of(places)

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        return self.space.flat_of(grid_of(self.space, self.law.draw(self.space, n, rng)))

    def propose(self, idx: Tensor, kinds: Tensor, rng: torch.Generator, exact: bool) -> tuple[Tensor, Tensor]:
        """Places (r,) that may be partners of idx (r, K), and whether they are (r,)."""
        low = self.low[int(exact)]
        drawn = torch.randint(2**31, idx.shape, generator=rng, device=rng.device)
        step = (low + drawn % (self.sizes - low)) * self.moves[kinds]
        places = self.space.flat_of((idx + step) % self.sizes)
        return places, self._passes(places) if self.allowed is None else self.allowed[places]

    def look(self, idx: Tensor, kind: Tensor, rng: torch.Generator, exact: bool) -> tuple[Tensor, Tensor]:
        if self.allowed is None:
            return kind * 0, kind < 0
        places = self.all_places()
        return _look(self.idx(places)[:, self.columns], places, idx[self.columns], kind, rng, exact)

    def all_places(self) -> Tensor:
        return self.allowed.nonzero()[:, 0]

    def per_value(self) -> list[Tensor]:
        """How many pictures there are with each value of each attribute."""
        if self.allowed is None:
            return [torch.ones(self.space.sizes[k]) for k in self.columns]
        cube, axes = self.allowed.reshape(self.space.sizes).int(), range(len(self.space))
        return [_over(cube, [a for a in axes if a != k]).flatten() for k in self.columns]

    def least_relaxed(self) -> float | None:
        """The least share of proposals that succeed where the rest is free; None where nobody can count them."""
        if self.allowed is None:
            return None
        least = [int(counts.min()) * len(counts) for counts in self.per_value()]
        return min(least) / self.space.grid_size

    def odds(self, kinds: range) -> Tensor | None:
        """(places, len(kinds)): the share of proposals that are partners, 0 where there is none; None as above."""
        if self.allowed is None:
            return None
        cube, places = self.allowed.reshape(self.space.sizes).int(), self.all_places()
        cube = _over(cube, [k for k in range(len(self.space)) if k not in self.columns])
        found = []
        for kind, moves in zip(kinds, self.moves[kinds.start :]):
            count = _differing(cube, [k for j, k in enumerate(self.columns) if j != kind])
            proposed = int(((self.sizes - self.low[1]) * moves).clamp(min=1).prod())
            found.append(count.expand(self.space.sizes).flatten()[places] / proposed)
        return torch.stack(found, dim=1)


class Table:
    """Rows of a table; a place is a row. A proposal is any row that agrees where it must."""

    def __init__(self, space: FactorSpace, idx: Tensor, columns: list[int]):
        self.space, self.columns, self.table = space, torch.tensor(columns), idx
        self.mine = idx[:, columns]  # (N, m)
        n, m = self.mine.shape
        self.order = torch.stack([*(a.argsort(stable=True) for a in self.mine.T), torch.arange(n)])  # (m + 1, N)
        self.count = torch.zeros(m + 1, max(space.sizes), dtype=torch.long)  # by attribute and value
        for j, column in enumerate(self.mine.T):
            self.count[j] = torch.bincount(column, minlength=max(space.sizes))
        self.count[m, 0] = n  # a stranger is proposed from all rows
        self.start = self.count.cumsum(1) - self.count

    def to(self, device) -> Table:
        moved = copy.copy(self)
        for name in ("columns", "table", "mine", "order", "count", "start"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def idx(self, places: Tensor) -> Tensor:
        return self.table[places]

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randint(len(self.table), (n,), generator=rng, device=rng.device)

    def propose(self, idx: Tensor, kinds: Tensor, rng: torch.Generator, exact: bool) -> tuple[Tensor, Tensor]:
        wanted = torch.nn.functional.pad(idx[:, self.columns], (0, 1))  # (r, m + 1): strangers have the run of value 0
        value = wanted.gather(1, kinds[:, None])[:, 0]
        count = self.count[kinds, value]
        drawn = torch.randint(2**40, kinds.shape, generator=rng, device=rng.device)
        at = self.start[kinds, value] + drawn % count.clamp(min=1)
        places = self.order[kinds, at.clamp(max=len(self.table) - 1)]
        good = count > 0  # a held-out centre may have a value that no row has
        return places, good & _fits(self.mine[places], wanted[:, :-1], kinds) if exact else good

    def look(self, idx: Tensor, kind: Tensor, rng: torch.Generator, exact: bool) -> tuple[Tensor, Tensor]:
        return _look(self.mine, self.all_places(), idx[self.columns], kind, rng, exact)

    def all_places(self) -> Tensor:
        return torch.arange(len(self.table), device=self.table.device)

    def per_value(self) -> list[Tensor]:
        return list(self.count[:-1])

    def least_relaxed(self) -> float:
        return 1.0

    def odds(self, kinds: range) -> Tensor:
        sizes = [self.space.sizes[k] for k in self.columns.tolist()]  # of the grid of attributes
        wanted = torch.nn.functional.pad(self.mine, (0, 1))[:, kinds.start :]
        proposed = self.count[torch.arange(kinds.start, kinds.stop), wanted]  # (N, len(kinds))
        return _partner_counts(self.mine, sizes, kinds) / proposed


def pool_of(data: Data, columns: list[int]) -> Law | Table:
    """Where the partners of the attributes `columns` come from. Raises ValueError for other data and laws."""
    space, law = data.space, data.law
    if isinstance(data, ArrayData):
        idx = grid_of(space, data.factors.cpu())
        off = ~torch.isclose(space.from_grid(idx), data.factors.cpu(), atol=1e-6).all(0)
        for name in (space.names[k] for k in columns if off[k]):
            raise ValueError(f"factor '{name}' has values between its grid values, but partners need equal ones")
        return Table(space, idx, columns)
    if not isinstance(data, Renderer):
        raise ValueError(f"partners come from a Renderer or from ArrayData, not from {type(data).__name__}")
    if not isinstance(law.law if isinstance(law, HeldOut) else law, Grid):
        raise ValueError(f"partners need equal values: take the law Grid(), plain or under a held-out rule, not {law}")
    pool = Law(space, law, columns)
    check_values([space.factors[k] for k in columns], pool.per_value())
    if pool.allowed is not None and pool.allowed.float().mean() < _SPARSE:
        return Table(space, pool.idx(pool.all_places()), columns)
    return pool


def _fits(a: Tensor, b: Tensor, kinds: Tensor) -> Tensor:
    """(r,) bool: rows of a and b (r, m) agree exactly on attribute `kinds` (r,), or on none where it is m."""
    return ((a == b) == (kinds[:, None] == torch.arange(a.shape[1], device=a.device))).all(1)


def _look(mine: Tensor, places: Tensor, idx: Tensor, kind: Tensor, rng, exact: bool) -> tuple[Tensor, Tensor]:
    """A random one of all places (N,) with attributes mine (N, m) that are partners of idx (m,), and whether any is."""
    fits = _fits(mine, idx[None], kind[None]) if exact else mine[:, kind] == idx[kind]
    those = places[fits]
    if not len(those):
        return kind * 0, kind < 0
    return those[torch.randint(len(those), (), generator=rng, device=rng.device)], kind >= 0


# ---- who has partners


def _over(cube: Tensor, axes: list[int]) -> Tensor:
    """The sum of a cube of counts over some axes, which stay with size 1."""
    return cube.sum(axes, keepdim=True, dtype=cube.dtype) if axes else cube


def _differing(cube: Tensor, axes: list[int]) -> Tensor:
    """For each tuple how many others differ from it on every one of the axes and agree on the rest.

    To count those that differ on one axis is to take the sum along it less the entry itself.
    """
    for axis in axes:
        cube = _over(cube, [axis]) - cube
    return cube


def _partner_counts(idx: Tensor, sizes: list[int], kinds: range) -> Tensor:
    """(n, len(kinds)): how many rows share exactly the attribute of a kind with each of the rows idx (n, m).

    On a grid that can be listed, rows are counted per tuple first. On any other by inclusion and exclusion: for every
    set of attributes, the rows that agree on it are counted.
    """
    n, m = idx.shape
    if math.prod(sizes) <= LISTED:
        flat = torch.zeros_like(idx[:, 0])
        for column, size in enumerate(sizes):
            flat = flat * size + idx[:, column]
        cube = torch.bincount(flat, minlength=math.prod(sizes)).reshape(sizes).int()
        counts = [_differing(cube, [k for k in range(m) if k != kind]).flatten()[flat] for kind in kinds]
        return torch.stack(counts, dim=1)
    if m > _MOST_SETS:
        raise ValueError(f"partners that differ in all of {m} attributes are not looked for: choose some, or {RELAX}")
    counts = torch.zeros(n, m + 1, dtype=torch.long)
    counts[:, m] = n
    _add_agreeing(idx, 0, torch.zeros_like(idx[:, 0]), [], counts)
    return counts[:, kinds.start :]


def _add_agreeing(idx: Tensor, start: int, key: Tensor, chosen: list[int], counts: Tensor) -> None:
    """Add to counts (n, m + 1), with its sign, how many rows agree on each set of `chosen` and later attributes.

    key  (n,) numbers the tuples of the chosen attributes
    """
    m = idx.shape[1]
    for j in range(start, m):
        finer = (key * (int(idx[:, j].max()) + 1) + idx[:, j]).unique(return_inverse=True)[1]
        same, now = torch.bincount(finer)[finer], [*chosen, j]
        counts[:, now] += (-1) ** (len(now) - 1) * same[:, None]
        counts[:, m] += (-1) ** len(now) * same
        _add_agreeing(idx, j + 1, finer, now, counts)
