"""Held-out combinations: which factor tuples of a grid are for training and which are kept for a test.

A value alone never tells whether a model can combine what it knows: the test must ask for combinations that training
has not shown, of values that it has. Such a rule is an object here, not a bare function, so it can be pickled, read,
and turned around (`unseen`). A rule sits in a law (`disentkit.data.laws.HeldOut`), so what draws from the law cannot
meet a held-out tuple. Every value of every factor stays in training, which is checked where a law is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace
from disentkit.data.laws import Grid, HeldOut

PARTS = ("train", "test", "all")
LISTED = 3_000_000  # tuples: larger grids are never listed, their laws draw again what a rule refuses
_PIECE = 250_000  # tuples looked at together while a grid is checked
_SAMPLE = 4096  # tuples tried for each value of a grid that is not listed


@dataclass(frozen=True, kw_only=True)
class Rule:
    """True for the tuples that `part` does not draw; subclasses write `held(idx)`.

    space  the factors
    part   "train" draws what is not held out, "test" what is, "all" both
    never  values (n, K) -> (n,) bool: tuples that do not exist, in no part
    """

    space: FactorSpace = field(hash=False)
    part: str = "train"
    never: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self):
        if self.part not in PARTS:
            raise ValueError(f"unknown part '{self.part}'; there are {', '.join(PARTS)}")

    def __repr__(self) -> str:  # no address in it, so the same rule has the same text in every process
        never = "" if self.never is None else f", never {_name_of(self.never)}"
        return f"{self._text()}, part {self.part}{never}"

    def __call__(self, values: Tensor) -> Tensor:
        """(n,) bool for values (n, K); values between grid points count as the nearest."""
        if self.part == "all":
            out = torch.zeros(len(values), dtype=torch.bool, device=values.device)
        else:
            held = self.held(grid_of(self.space, values))
            out = held if self.part == "train" else ~held
        return out if self.never is None else out | self.never(values)

    def held(self, idx: Tensor) -> Tensor:
        """(n,) bool for grid indices (n, K): which are held out of training."""
        raise NotImplementedError(f"{type(self).__name__} must write held(idx)")

    def of(self, part: str) -> Rule:
        """The same rule for another part."""
        return replace(self, part=part)

    def _text(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, kw_only=True, repr=False)
class Scattered(Rule):
    """Tuples all over the grid are held out: those whose grid position, hashed with the seed, is below `share`.

    The share that is found differs from the one asked for as the share of so many coin tosses does.
    """

    share: float = 0.2
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.share < 1:
            raise ValueError(f"share must lie in 0 ... 1, and 1 itself leaves nothing to train on, not {self.share}")

    def held(self, idx: Tensor) -> Tensor:
        return _hash(self.space.flat_of(idx), self.seed) < round(self.share * 2**32)

    def _text(self) -> str:
        return f"Scattered(share {self.share:g}, seed {self.seed})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Unbalanced(Rule):
    """The first `full` values of factor `a` come with all values of `b`, the others with its first `few` values."""

    a: str = ""
    b: str = ""
    full: int = 1
    few: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.a == self.b:
            raise ValueError(f"an unbalanced law needs two factors, not '{self.a}' twice")
        for text, factor, count in (("full", self.a, self.full), ("few", self.b, self.few)):
            size = self.space.sizes[self.space.index(factor)]
            if not 1 <= count <= size:
                raise ValueError(f"{text} must lie in 1 ... {size}, the values of '{factor}', not {count}")

    def held(self, idx: Tensor) -> Tensor:
        return (idx[:, self.space.index(self.a)] >= self.full) & (idx[:, self.space.index(self.b)] >= self.few)

    def _text(self) -> str:
        return f"Unbalanced({self.a} {self.full} full, {self.b} {self.few} for the others)"


@dataclass(frozen=True, repr=False)
class Combinations(HeldOut):
    """`HeldOut` over `Grid` by a `Rule`; a grid of more than `LISTED` tuples is drawn from without being listed."""

    def __repr__(self) -> str:
        return f"HeldOut({self.law}, {self.rule})"

    def __getstate__(self) -> dict:  # the listed tuples are found again
        return self.__dict__ | {"_allowed": {}}

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        if space.grid_size <= LISTED:
            return super().draw(space, n, rng)
        return HeldOut(_Unlisted(), self.rule).draw(space, n, rng)

    def allowed(self, space: FactorSpace, device) -> Tensor:
        if space.grid_size > LISTED:
            raise ValueError(f"a grid of {space.grid_size:,} tuples is too large to list those that a rule leaves")
        return super().allowed(space, device)


class _Unlisted:
    """Draws as `Grid` does, but is none, so `HeldOut` draws again what its rule refuses instead of listing the rest."""

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        return Grid().draw(space, n, rng)


def held_out(
    space: FactorSpace,
    share: float = 0.2,
    part: str = "train",
    never: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> HeldOut:
    """A law over `Grid` that holds out about `share` of the grid's tuples, pseudo-random ones.

    part   "train" draws the others, "test" only these, "all" both
    never  values (n, K) -> (n,) bool: tuples that do not exist, such as a letter in the colour of its ground

    Which tuples are held out hangs on their place in the grid and the seed alone: not on torch's version, the device or
    the part. Raises ValueError where a value of a factor would be left without a training picture, or a part is empty.
    """
    return _law(Scattered(space=space, share=share, part=part, never=never, seed=seed))


def unbalanced(
    space: FactorSpace,
    a: str,
    b: str,
    full: int,
    few: int,
    part: str = "train",
    never: Callable[[Tensor], Tensor] | None = None,
) -> HeldOut:
    """A law over `Grid`: factor `a`'s first `full` values come with every value of `b`, its others only with `few`.

    The combinations that are missing are held out. Raises ValueError for counts outside the factors' values and where
    a part is empty.
    """
    return _law(Unbalanced(space=space, a=a, b=b, full=full, few=few, part=part, never=never))


def unseen(data: Renderer) -> Renderer:
    """The same renderer, whose law draws only what its own law holds out of training.

    Raises ValueError where nothing is held out, where the law was made neither by `held_out` nor by `unbalanced`, and
    where the data are the held-out part already.
    """
    rule = getattr(getattr(data, "law", None), "rule", None)
    if not isinstance(data, Renderer) or not isinstance(rule, Rule):
        raise ValueError(f"data set '{data.name}' has no combinations held out by `held_out` or `unbalanced`")
    if rule.part == "all":
        raise ValueError(f"data set '{data.name}' holds no combination out: take its part 'train'")
    if rule.part == "test":
        raise ValueError(f"data set '{data.name}' draws only held-out combinations already: give the part 'train'")
    return data.with_law(_law(rule.of("test")))


def every(data: Renderer) -> Renderer:
    """The same renderer, whose law draws what is held out as well; unchanged where its law holds nothing out."""
    rule = getattr(getattr(data, "law", None), "rule", None)
    return data.with_law(_law(rule.of("all"))) if isinstance(rule, Rule) else data


def grid_of(space: FactorSpace, values: Tensor) -> Tensor:
    """Nearest grid indices (n, K) of values (n, K), as `space.to_grid`, in memory that does not grow with the sizes."""
    table, columns = space.table(values.device), values.float().T.contiguous()
    middles = (table[:, 1:] + table[:, :-1]) / 2
    found = [torch.bucketize(columns[k], middles[k, : size - 1].contiguous()) for k, size in enumerate(space.sizes)]
    return torch.stack(found, dim=1)


def check_values(factors: Iterable[Factor], left: list[Tensor]) -> None:
    """Raise ValueError for the first value that no picture is left with.

    left  for each factor, how many pictures a rule leaves with each of its values
    """
    for factor, counts in zip(factors, left):
        for place in (counts == 0).nonzero()[:1, 0].tolist():
            value = f"'{factor.labels[place]}'" if factor.labels else f"{factor.values[place]:g}"
            raise ValueError(f"the held-out rule leaves no picture with {factor.name} {value}")


def _law(rule: Rule) -> Combinations:
    """The law of a rule, once its training part is known to hold every value, and its own part something."""
    space, train = rule.space, rule.of("train")
    left, some = [torch.zeros(size, dtype=torch.long) for size in space.sizes], False
    for idx in _pieces(space):
        values = space.from_grid(idx)
        kept = idx[~train(values)]
        for k, size in enumerate(space.sizes):
            left[k] += torch.bincount(kept[:, k], minlength=size)
        some = some or rule.part != "test" or bool((~rule(values)).any())
    check_values(space, left)
    if not some:
        raise ValueError(f"no combination is held out by {rule.of('test')}")
    return Combinations(Grid(), rule)


def _pieces(space: FactorSpace) -> Iterator[Tensor]:
    """The grid indices (n, K) of a grid, piece by piece; of one too large to list, a sample for each value."""
    if space.grid_size <= LISTED:
        for part in torch.arange(space.grid_size).split(_PIECE):
            yield space.tuple_of(part)
        return
    rng = torch.Generator().manual_seed(0)
    for k, size in enumerate(space.sizes):
        for value in range(size):
            idx = space.draw_grid(_SAMPLE, rng)
            idx[:, k] = value
            yield idx


def _hash(position: Tensor, seed: int) -> Tensor:
    """Numbers (n,) in 0 ... 2^32 - 1 that look random, of positions (n,) int64: multiply, shift, exclusive or.

    No product exceeds 63 bits, so every device and version finds the same.
    """
    low = 2**32 - 1
    mixed = torch.full_like(position, 0x9E3779B9)  # nothing up its sleeve: 2^32 over the golden ratio
    for part in (seed & low, position & low, position >> 32):
        mixed = mixed ^ part
        for _ in range(3):
            mixed = ((mixed >> 16) ^ mixed) * 0x45D9F3B & low
        mixed = (mixed >> 16) ^ mixed
    return mixed


def _name_of(function) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
