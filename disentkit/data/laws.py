"""Laws: how factor tuples are drawn. A held-out rule lives here, so nothing that draws from the law can meet it.

Every law offers `draw(space, n, rng) -> values (n, K)` on the generator's device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class HeldOut:
    """Another law without the tuples for which `rule(values (n, K)) -> (n,) bool` is true.

    Draws again until n tuples are left, so the rest keep their proportions. Raises ValueError where the rule leaves
    (almost) nothing.
    """

    law: object
    rule: Callable[[Tensor], Tensor]

    def __repr__(self) -> str:  # the rule's own text holds an address, another one in every process
        return f"HeldOut({self.law}, {getattr(self.rule, '__qualname__', type(self.rule).__name__)})"

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        kept, have = [], 0
        for _ in range(100):
            values = self.law.draw(space, 2 * n, rng)
            values = values[~self.rule(values)]
            kept.append(values)
            have += len(values)
            if have >= n:
                return torch.cat(kept)[:n]
        raise ValueError(f"the held-out rule leaves too few tuples: {have} of {200 * n} draws passed")
