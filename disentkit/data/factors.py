"""Factors: the true causes behind a picture, and the grid of their values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("category", "real", "cyclic")


@dataclass(frozen=True)
class Factor:
    """One factor of variation.

    values  its grid values, ascending, in the data set's own unit; a category's values are its indices 0 ... n-1
    labels  words for a category's values
    """

    name: str
    kind: str = "real"
    values: tuple[float, ...] = (0.0,)
    labels: tuple[str, ...] | None = None
    unit: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"factor '{self.name}': unknown kind '{self.kind}'; known: {', '.join(KINDS)}")
        if not self.values or list(self.values) != sorted(set(self.values)):
            raise ValueError(f"factor '{self.name}': there must be values, ascending and without repeats")
        if self.kind == "category" and list(self.values) != list(range(len(self.values))):
            raise ValueError(f"factor '{self.name}': the values of a category are its indices 0 ... n-1")
        if self.labels is not None and len(self.labels) != len(self.values):
            raise ValueError(f"factor '{self.name}': {len(self.labels)} labels for {len(self.values)} values")

    @property
    def low(self) -> float:
        return float(self.values[0])

    @property
    def high(self) -> float:
        return float(self.values[-1])

    def __len__(self) -> int:
        return len(self.values)


def category(name: str, *labels: str) -> Factor:
    """A factor that takes one of the named values."""
    return Factor(name, "category", tuple(range(len(labels))), tuple(labels))


class FactorSpace:
    """K named factors; tuples of their values are rows of a float tensor (n, K)."""

    def __init__(self, factors: Iterable[Factor]):
        self.factors = tuple(factors)
        self.names = tuple(f.name for f in self.factors)
        self.sizes = tuple(len(f) for f in self.factors)
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"two factors share one name: {', '.join(self.names)}")
        # One padded table on the CPU, moved to a device once by `table`, so that indexing never reads back to the host.
        longest = max(self.sizes, default=0)
        padded = [[*f.values, *[math.inf] * (longest - len(f))] for f in self.factors]
        self._tables = {torch.device("cpu"): torch.tensor(padded, dtype=torch.float32)}  # (K, longest)

    @property
    def grid_size(self) -> int:
        """How many tuples the full grid has."""
        return math.prod(self.sizes)

    def index(self, name: str) -> int:
        """The column of a factor; raises ValueError for an unknown one."""
        if name not in self.names:
            raise ValueError(f"no factor '{name}'; there are {', '.join(self.names)}")
        return self.names.index(name)

    def __getitem__(self, name: str) -> Factor:
        return self.factors[self.index(name)]

    def __iter__(self) -> Iterator[Factor]:
        return iter(self.factors)

    def __len__(self) -> int:
        return len(self.factors)

    def __eq__(self, other) -> bool:
        return isinstance(other, FactorSpace) and self.factors == other.factors

    def __repr__(self) -> str:
        return "FactorSpace(" + ", ".join(f"{f.name} {len(f)}" for f in self) + ")"

    def table(self, device) -> Tensor:
        """The grid values, (K, longest), padded with inf, on a device."""
        device = torch.device(device)
        if device not in self._tables:
            self._tables[device] = self._tables[torch.device("cpu")].to(device)
        return self._tables[device]

    def from_grid(self, idx: Tensor) -> Tensor:
        """Values (n, K) float32 of grid indices (n, K)."""
        table = self.table(idx.device)
        return table[torch.arange(len(self), device=idx.device), idx.long()]

    def to_grid(self, values: Tensor) -> Tensor:
        """Nearest grid indices (n, K) of values (n, K); a cyclic factor's neighbours are found by value, not angle."""
        return (values.float().unsqueeze(-1) - self.table(values.device)).abs().argmin(-1)

    def tuple_of(self, flat: Tensor) -> Tensor:
        """Grid indices (n, K) of positions (n,) in the full grid; the last factor moves fastest."""
        idx = []
        for size in reversed(self.sizes):
            idx.append(flat % size)
            flat = flat // size
        return torch.stack(idx[::-1], dim=-1)

    def flat_of(self, idx: Tensor) -> Tensor:
        """Positions (n,) in the full grid of grid indices (n, K): the inverse of `tuple_of`."""
        flat = torch.zeros_like(idx[:, 0])
        for column, size in enumerate(self.sizes):
            flat = flat * size + idx[:, column]
        return flat

    def draw_grid(self, n: int, rng: torch.Generator) -> Tensor:
        """Grid indices (n, K), each factor uniform and independent."""
        sizes = self.table(rng.device).isfinite().sum(1)  # (K,), on the device without a copy from the host
        uniform = torch.rand(n, len(self), generator=rng, device=rng.device)
        return torch.minimum((uniform * sizes).long(), sizes - 1)  # the product may round up to the size

    def check(self, values: Tensor) -> Tensor:
        """Return values as float32 (n, K); raise ValueError where the shape is wrong or a value is out of range."""
        values = torch.as_tensor(values, dtype=torch.float32)
        if values.ndim != 2 or values.shape[1] != len(self):
            raise ValueError(f"factors must be (n, {len(self)}) for {', '.join(self.names)}, not {tuple(values.shape)}")
        for k, f in enumerate(self):
            column = values[:, k]
            bad = ~((column >= f.low - 1e-6) & (column <= f.high + 1e-6))
            if f.kind == "category":
                bad |= column != column.round()
            if bad.any():
                shown = f"0 ... {len(f) - 1}" if f.kind == "category" else f"{f.low:g} ... {f.high:g}"
                raise ValueError(f"factor '{f.name}' is {column[bad][0]:g}, outside {shown}")
        return values
