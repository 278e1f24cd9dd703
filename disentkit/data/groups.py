"""Groups of pictures that share attributes: what GZS-Net learns from (Ge et al. 2021).

An attribute is a factor of the data. Two pictures share an attribute where they have the same value of it, which makes
pictures the nodes and shared attributes the edges of a graph (`multigraph`). A set of other pictures covers a picture
if each of its values occurs in some member (`covers`). `Groups` draws, for each attribute, a partner that shares
exactly that one: together they cover the picture. Every picture it draws comes from the law of the data, so a held-out
combination is neither centre nor partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from disentkit.data.base import ArrayData, Data
from disentkit.data.combinations import grid_of
from disentkit.data.factors import FactorSpace
from disentkit.data.partners import Partners

KEYS = {"group": "group_factors", "edges": "edge_factors", "strangers": "stranger_factors"}


def shared(a: Tensor, b: Tensor) -> Tensor:
    """(n, K) bool: which attributes the tuples a (n, K) and b (n, K) share."""
    return a == b


def multigraph(values: Tensor, space: FactorSpace | None = None) -> Tensor:
    """Edges (E, 3) long, rows (i, k, j) in ascending order with i < k: pictures i and k share attribute j.

    values  (n, K) factor values of n pictures; with `space`, those nearest to one grid value count as equal
    """
    values = values if space is None else grid_of(space, values)
    equal = values[:, None] == values[None]  # (n, n, K)
    order = torch.arange(len(values), device=values.device)
    return (equal & (order[:, None] < order)[:, :, None]).nonzero()


def covers(values: Tensor, i: int, members: Sequence[int]) -> bool:
    """Whether each value of picture i occurs in one of the other pictures `members`; values (n, K).

    Raises ValueError where i is one of them.
    """
    members = list(members)
    if i in members:
        raise ValueError(f"a cover of picture {i} is made of other pictures")
    return bool((values[members] == values[i]).any(0).all())


def cover_sets(values: Tensor, i: int, size: int) -> list[tuple[int, ...]]:
    """The minimal cover sets of picture i with at most `size` members, smallest first: no member can be left out.

    values  (n, K); every combination is tried, so a few dozen pictures are the most
    """
    others, found = [k for k in range(len(values)) if k != i], []
    for count in range(1, size + 1):
        for members in combinations(others, count):
            if not any(set(smaller) <= set(members) for smaller in found) and covers(values, i, members):
                found.append(members)
    return found


class Groups(Data):
    """Data whose batches hold groups: pictures that share attributes, with their factors.

    data        a Renderer whose law is `Grid` or `HeldOut` over it, or ArrayData with factors
    reads       which of these `sample` makes:
                "group"      (n, m + 2, C, H, W): the centre, for each of the m attributes in order a partner that
                             shares exactly this one with it, and a stranger that shares none;
                             with `group_factors` (n, m + 2, K)
                "edges"      (n, m, 2, C, H, W): for each attribute a pair that agrees on it, the rest drawn freely
                             (the relaxed sampler); with `edge_factors` (n, m, 2, K)
                "strangers"  (n, 2, C, H, W): a pair that shares nothing; with `stranger_factors` (n, 2, K)
    attributes  names of factors, all by default (then m = K)

    `x` and `factors` come always: the first picture of the first of these. `partners.left_out` says how many pictures
    cannot be a centre. Raises ValueError as `Partners` does, and for an unknown key.
    """

    def __init__(self, data: Data, reads: Sequence[str] = ("group",), attributes: Sequence[str] | None = None):
        self.reads = (reads,) if isinstance(reads, str) else tuple(reads)
        if not self.reads or (unknown := [key for key in self.reads if key not in KEYS]):
            what = f"no key '{unknown[0]}'" if self.reads else "to be told what to read"
            raise ValueError(f"groups have {what}; there are {', '.join(KEYS)}")
        self.data, self.partners = data, Partners(data, attributes, self.reads)
        self.name, self.image_shape, self.space, self.law = data.name, data.image_shape, data.space, data.law
        self.device = data.device

    def __repr__(self) -> str:
        return f"Groups({self.data}, {', '.join(self.reads)})"

    def to(self, device) -> Groups:
        moved = super().to(device)
        moved.data = self.data.to(device)
        return moved

    def fingerprint(self) -> str:
        return self.data.fingerprint()

    def sample(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        """A batch of n groups, pairs or lists of pairs of each key."""
        batch: dict[str, Tensor] = {}
        for key in self.reads:
            places = self.partners.draw(key, n, rng)
            rows = self._rows(places.flatten())
            batch[key] = rows["x"].reshape(*places.shape, *self.image_shape)
            batch[KEYS[key]] = rows["factors"].reshape(*places.shape, -1)
        first = self.reads[0]
        x, factors = (batch[k].flatten(1, 2) if first == "edges" else batch[k] for k in (first, KEYS[first]))
        return {"x": x[:, 0], "factors": factors[:, 0], **batch}

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        return self.data.sample_fixed(k, n, rng, groups)

    def _rows(self, places: Tensor) -> dict[str, Tensor]:
        """Pictures and factors of places (r,)."""
        if isinstance(self.data, ArrayData):
            return self.data.rows(places)
        values = self.partners.values(places)
        return {"x": self.data.render(values), "factors": values}
