"""Partners: for a tuple of factor values, pictures that share exactly one attribute with it, or none (for `groups`).

A partner is proposed so that it agrees where it must, and looked at again: a tuple of the grid must be one that the law
draws, a row of a table must differ elsewhere. Proposals that fail are made anew, and where luck does not help the whole
list is searched, so a partner that comes back is always a true one and a true one is always found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from disentkit.data.base import Data
from disentkit.data.candidates import RELAX, pool_of
from disentkit.data.combinations import grid_of

_TRIES, _ROUNDS = 8, 12  # proposals at once for a partner whose first one failed, twice as many each round
_AT_ONCE = 200_000  # proposals in memory
_READ_BACK = ("cpu",)  # devices where a look at the outcome costs nothing; on others the number of tries is fixed
_FAILS = 1e-9  # how often that many tries may fail (a spare group, found before, stands in for it)
_MOST_TRIES = 256  # for each partner; where that may not do, every device looks at the outcome


class Partners:
    """Draws partners for tuples: pictures that share exactly one attribute with them, or none.

    data        a Renderer whose law is `Grid` or `HeldOut` over it, or ArrayData with factors
    attributes  names of factors, all by default; the others are part of a picture, but nobody asks whether they agree
    reads       what `draw` will be asked for, "group", "strangers", "edges": for the first two it is counted here who
                can be a centre; partners of given tuples need none of them

    left_out    {"group": ..., "strangers": ...}: how many pictures cannot be the centre, as some partner is lacking;
                None where the grid is too large to be counted
    Only what the law draws is a partner, but any tuple may ask for some, a held-out one too. Raises ValueError for data
    without factors, other laws, an attribute with one value only, a value that a rule leaves no picture with, and where
    no picture can be the centre of what `reads` asks for.
    """

    def __init__(self, data: Data, attributes: Sequence[str] | None = None, reads: Sequence[str] = ("group",)):
        if data.space is None:
            raise ValueError(f"data set '{data.name}' is unlabelled, so nobody knows what its pictures share")
        self.name, self.space = data.name, data.space
        self.attributes = tuple(self.space.names if attributes is None else attributes)
        columns = [self.space.index(name) for name in self.attributes]
        if not columns or len(set(columns)) < len(columns):
            raise ValueError("name each attribute once, and at least one")
        pool = pool_of(data, columns)
        for name, counts in zip(self.attributes, pool.per_value()):
            if (counts > 0).sum() == 1:
                raise ValueError(
                    f"attribute '{name}' has one value only, so nothing can be swapped: drop it or add data"
                )
        cpu = torch.device("cpu")
        self._pools = {cpu: pool}
        self._spares: dict[tuple, Tensor] = {}
        self._centres: dict[tuple, Tensor] = {}
        self._tries = {"edges": _tries_for(pool.least_relaxed())}
        self.left_out: dict[str, int | None] = {}
        for key in ("group", "strangers"):
            if key in reads:
                self._count(key, pool, cpu)

    def __len__(self) -> int:
        """m, the number of attributes."""
        return len(self.attributes)

    def partners(self, centres: Tensor, rng: torch.Generator) -> Tensor:
        """(n, m, K) values: row j shares exactly attribute j with centres (n, K). ValueError where there is none."""
        return self._given(centres, range(len(self)), rng)

    def strangers(self, centres: Tensor, rng: torch.Generator) -> Tensor:
        """(n, K) values that share no attribute with centres (n, K). ValueError where there are none."""
        return self._given(centres, range(len(self), len(self) + 1), rng)[:, 0]

    def edges(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, m, 2, K) values: pair j agrees on attribute j, the rest is drawn freely (the relaxed sampler)."""
        return self.values(self.draw("edges", n, rng))

    # Places number pictures: rows of stored ones, else positions in a list or in the full grid.

    def values(self, places: Tensor) -> Tensor:
        """Factor values (..., K) of places (...)."""
        idx = self._pool(places.device).idx(places.flatten())
        return self.space.from_grid(idx).reshape(*places.shape, -1)

    def draw(self, key: str, n: int, rng: torch.Generator) -> Tensor:
        """Places: of "group" (n, m + 2), centre, partners and stranger; "strangers" (n, 2); "edges" (n, m, 2).

        On a CPU the outcome of every proposal is looked at. Elsewhere nothing is read back to the host in the common
        case: so many proposals are made at once that one in 10^9 partners is not found, and then a group that was found
        before takes the place of this one.
        """
        pool, tries = self._pool(rng.device), self._tries.get(key)
        blind = tries is not None and rng.device.type not in _READ_BACK
        if key == "edges":
            return self._draw_edges(pool, n, rng, tries if blind else None)
        if not blind:
            return self._draw_seen(key, pool, n, rng)
        spare = (key, rng.device)
        if spare not in self._spares:
            own = torch.Generator(rng.device).manual_seed(0)
            self._spares[spare] = self._draw_seen(key, pool, 1, own)
        centres = self._draw_centres(key, pool, n, rng)
        places, found = self._find(pool, pool.idx(centres), self._kinds(key), rng, tries)
        places = torch.cat([centres[:, None], places], dim=1)
        return torch.where(found.all(1, keepdim=True), places, self._spares[spare])

    def _draw_seen(self, key: str, pool, n: int, rng: torch.Generator) -> Tensor:
        made, have = [], 0
        for _ in range(100):
            centres = self._draw_centres(key, pool, n - have, rng)
            places, found = self._find(pool, pool.idx(centres), self._kinds(key), rng)
            made.append(torch.cat([centres[:, None], places], dim=1)[found.all(1)])
            have += len(made[-1])
            if have == n:
                return torch.cat(made)
        raise ValueError(f"too few pictures of '{self.name}' have the partners that '{key}' needs: {RELAX}")

    def _draw_edges(self, pool, n: int, rng: torch.Generator, tries: int | None) -> Tensor:
        first = pool.draw(n * len(self), rng)
        kinds = torch.arange(len(self), device=rng.device).repeat(n)
        second, found = self._search(pool, pool.idx(first), kinds, rng, False, tries)
        second = torch.where(found, second, first)  # a picture agrees with itself: a dull pair, but never a wrong one
        return torch.stack([first, second], dim=1).reshape(n, len(self), 2)

    def _kinds(self, key: str) -> range:
        """Kind j shares exactly attribute j, kind m shares none."""
        return range(len(self) if key == "strangers" else 0, len(self) + 1)

    def _pool(self, device: torch.device):
        if device not in self._pools:
            self._pools[device] = self._pools[torch.device("cpu")].to(device)
        return self._pools[device]

    def _draw_centres(self, key: str, pool, n: int, rng: torch.Generator) -> Tensor:
        cpu, here = (key, torch.device("cpu")), (key, rng.device)
        if cpu not in self._centres:
            return pool.draw(n, rng)
        if here not in self._centres:
            self._centres[here] = self._centres[cpu].to(rng.device)
        centres = self._centres[here]
        return centres[torch.randint(len(centres), (n,), generator=rng, device=rng.device)]

    def _given(self, centres: Tensor, kinds: range, rng: torch.Generator) -> Tensor:
        idx = grid_of(self.space, self.space.check(centres).to(rng.device))
        places, found = self._find(self._pool(rng.device), idx, kinds, rng)
        if not found.all():
            i, at = (~found).nonzero()[0].tolist()
            told = ", ".join(f"{f.name} {f.labels[k] if f.labels else f.values[k]}" for f, k in zip(self.space, idx[i]))
            what = [f"'{name}' alone" for name in self.attributes] + ["nothing"]
            raise ValueError(f"data set '{self.name}' has no picture that shares {what[kinds[at]]} with {told}")
        return self.values(places)

    def _find(self, pool, idx: Tensor, kinds: range, rng: torch.Generator, tries=None) -> tuple[Tensor, Tensor]:
        """Places and whether there is one, both (n, len(kinds)), for centres idx (n, K)."""
        each = torch.arange(kinds.start, kinds.stop, device=rng.device).repeat(len(idx))
        places, found = self._search(pool, idx.repeat_interleave(len(kinds), dim=0), each, rng, True, tries)
        return places.reshape(-1, len(kinds)), found.reshape(-1, len(kinds))

    def _search(self, pool, idx, kinds, rng: torch.Generator, exact: bool, tries=None) -> tuple[Tensor, Tensor]:
        """Places (r,) and whether there is one (r,) for idx (r, K), kinds (r,): after `tries`, or when all is done."""
        if tries is not None:
            return _several(pool, idx, kinds, rng, exact, tries)
        places, found = pool.propose(idx, kinds, rng, exact)
        for round_ in range(_ROUNDS):
            left = (~found).nonzero()[:, 0]
            if not len(left):
                return places, found
            tries = min(_TRIES << round_, max(_TRIES, _AT_ONCE // len(left)))
            places[left], found[left] = _several(pool, idx[left], kinds[left], rng, exact, tries)
        left = (~found).nonzero()[:, 0]
        for i in left.tolist():
            places[i], found[i] = pool.look(idx[i], kinds[i], rng, exact)
        return places, found

    def _count(self, key: str, pool, cpu: torch.device) -> None:
        """Find who can be a centre of `key`; raise ValueError where nobody can."""
        kinds = self._kinds(key)
        odds = pool.odds(kinds)
        counted = odds is not None
        if not counted:
            rng = torch.Generator().manual_seed(0)
            odds = self._find(pool, pool.idx(pool.draw(100, rng)), kinds, rng)[1].float()
        has = odds > 0
        for kind, some in zip(kinds, has.any(0).tolist()):
            if not some and kind < len(self):
                raise ValueError(
                    f"no picture of '{self.name}' shares '{self.attributes[kind]}' alone with another one, as pictures "
                    f"that agree on it agree on something else too: {RELAX}"
                )
        whole = has.all(1)
        if not whole.any():
            lack = "shares nothing with another one" if key == "strangers" else "has every partner that a group needs"
            raise ValueError(f"no picture of '{self.name}' {lack}: {RELAX}")
        self.left_out[key] = int((~whole).sum()) if counted else None
        if counted:
            self._centres[key, cpu] = pool.all_places()[whole]
            self._tries[key] = _tries_for(float(odds[whole].min()))


def _several(pool, idx: Tensor, kinds: Tensor, rng: torch.Generator, exact: bool, tries: int) -> tuple[Tensor, Tensor]:
    """Of so many proposals each the first that is good, and whether any is."""
    again = idx.repeat_interleave(tries, dim=0), kinds.repeat_interleave(tries)
    tried, good = (t.reshape(-1, tries) for t in pool.propose(*again, rng, exact))
    first = good.byte().argmax(1, keepdim=True)
    return tried.gather(1, first)[:, 0], good.any(1)


def _tries_for(odds: float | None) -> int | None:
    """How many proposals all fail once in 10^9 times; None where these are too many to be made at once."""
    if odds is None or odds <= 0:
        return None
    tries = 1 if odds >= 1 else math.ceil(math.log(_FAILS) / math.log1p(-odds))
    return tries if tries <= _MOST_TRIES else None
