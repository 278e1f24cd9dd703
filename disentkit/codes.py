"""Codes made of named blocks: the one idea the kit is built on.

A code is a flat tensor (N, D). A `Block` is anything that can be read from a code and written into it; mostly a slice.
A `CodeSpace` is an ordered list of blocks over one code. Two laws hold for every block, and the tests check them:

    write(c, read(c)) = c          read(write(c, v)) = v

On top of them stand the operations that the papers play with: swap, mix, traverse, interpolate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

KINDS = ("gaussian", "uniform", "onehot", "free", "map")


@dataclass(frozen=True)
class Block:
    """One named part of a code.

    kind      gaussian (prior N(0, 1)), uniform (prior U(low, high)), onehot (a point of the simplex: a vertex when
              picked, soft when encoded), free (no prior of its own), map (a feature map, shape (C, H, W))
    shape     shape of one value; (1,) is a scalar, which gets a slider
    low, high the slider's range, in the block's unit
    inferred  False where no encoder reads the block: `encode` fills in the prior's centre
    picker    blocks with the same picker travel together in the source picker
    labels    words for the vertices of a onehot block
    at        positions in the flat code; filled in by CodeSpace where it is left out
    """

    name: str
    kind: str = "free"
    shape: tuple[int, ...] = (1,)
    low: float = -2.0
    high: float = 2.0
    inferred: bool = True
    picker: str | None = None
    labels: tuple[str, ...] | None = None
    unit: str = ""
    at: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"block '{self.name}': unknown kind '{self.kind}'; known: {', '.join(KINDS)}")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"block '{self.name}': shape {self.shape} must hold positive sizes")
        if not self.low < self.high:
            raise ValueError(f"block '{self.name}': low {self.low} must be below high {self.high}")
        if self.labels is not None and len(self.labels) != self.size:
            raise ValueError(f"block '{self.name}': {len(self.labels)} labels for {self.size} categories")
        if self.at is not None and len(self.at) != self.size:
            raise ValueError(f"block '{self.name}': {len(self.at)} positions for shape {self.shape}")
        if self.at is not None and len(set(self.at)) < self.size:
            raise ValueError(f"block '{self.name}': a position comes twice in {self.at}")

    @property
    def size(self) -> int:
        """How many numbers one value holds."""
        return math.prod(self.shape)

    @property
    def scalar(self) -> bool:
        """True where the block is one number on an axis, so that it gets a slider and is one column for a metric."""
        return self.size == 1 and self.kind not in ("onehot", "map")

    @cached_property
    def _indices(self) -> dict[torch.device, slice | Tensor]:
        return {}

    def _index(self, device: torch.device) -> slice | Tensor:
        # A slice, or positions kept on the device: a list would be copied there at every call, and no CUDA graph may.
        if device not in self._indices:
            first, last = self.at[0], self.at[-1] + 1
            near = self.at == tuple(range(first, last))
            self._indices[device] = slice(first, last) if near else torch.tensor(self.at, device=device)
        return self._indices[device]

    def read(self, codes: Tensor) -> Tensor:
        """The block's values, (N, *shape), of codes (N, D)."""
        return codes[:, self._index(codes.device)].reshape(len(codes), *self.shape)

    def write(self, codes: Tensor, value: Tensor) -> Tensor:
        """New codes (N, D) that hold `value`, (N, *shape) or broadcastable to it, in this block."""
        value = torch.as_tensor(value, dtype=codes.dtype, device=codes.device)
        codes = codes.clone()
        codes[:, self._index(codes.device)] = value.expand(len(codes), *self.shape).reshape(len(codes), self.size)
        return codes

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n draws (n, *shape) from the block's own prior; free and map blocks have none and draw from N(0, 1)."""
        if self.kind == "uniform":
            return self.low + (self.high - self.low) * torch.rand(n, *self.shape, generator=rng, device=rng.device)
        if self.kind == "onehot":
            picked = torch.randint(self.size, (n, 1), generator=rng, device=rng.device)
            return (picked == torch.arange(self.size, device=rng.device)).float()  # one_hot() reads values on the host
        return torch.randn(n, *self.shape, generator=rng, device=rng.device)

    def centre(self, device=None) -> Tensor:
        """The middle (*shape) of the block's prior: zeros, the middle of the range, or the uniform simplex point."""
        middle = {"uniform": (self.low + self.high) / 2, "onehot": 1 / self.size}.get(self.kind, 0.0)
        return torch.full(self.shape, middle, device=device)


class CodeSpace:
    """An ordered list of blocks over codes (N, D).

    Blocks without `at` are laid one after another. `size` is D; give it where blocks are views that do not cover the
    whole code (learned directions over a generator's latent). Raises ValueError for two blocks of one name and for
    positions outside the code.
    """

    def __init__(self, blocks: Iterable[Block], size: int | None = None):
        placed, end = [], 0
        for block in blocks:
            if block.at is None:
                block = replace(block, at=tuple(range(end, end + block.size)))
            end = max(end, max(block.at, default=-1) + 1)
            placed.append(block)
        self.blocks = tuple(placed)
        self.size = end if size is None else size
        if end > self.size:
            raise ValueError(f"blocks reach position {end - 1} of a code of {self.size} numbers")
        if len(set(self.names)) < len(self.blocks):
            raise ValueError(f"two blocks share one name: {', '.join(self.names)}")
        self._by_name = {block.name: block for block in self.blocks}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(block.name for block in self.blocks)

    @property
    def scalars(self) -> list[Block]:
        """The blocks that get a slider."""
        return [block for block in self.blocks if block.scalar]

    def __getitem__(self, name: str) -> Block:
        try:
            return self._by_name[name]
        except KeyError:
            raise ValueError(f"no block '{name}'; this code has {', '.join(self.names)}") from None

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __repr__(self) -> str:
        return f"CodeSpace({self.size} numbers: " + ", ".join(f"{b.name} {b.kind}{list(b.shape)}" for b in self) + ")"

    def read(self, codes: Tensor, name: str) -> Tensor:
        """Values (N, *shape) of one block."""
        return self[name].read(self.check(codes))

    def write(self, codes: Tensor, name: str, value: Tensor) -> Tensor:
        """New codes (N, D) with one block's value replaced."""
        return self[name].write(self.check(codes), value)

    def check(self, codes: Tensor) -> Tensor:
        """Return `codes` as float32 (N, D), torch or numpy; raise ValueError for anything else."""
        try:
            # A tensor stays where it is; `as_tensor` would move it to the default device.
            codes = codes.float() if isinstance(codes, Tensor) else torch.as_tensor(codes, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"codes must be a tensor or an array, not {type(codes).__name__}") from None
        if codes.ndim != 2 or codes.shape[1] != self.size:
            raise ValueError(f"codes must be (N, {self.size}), not {tuple(codes.shape)}")
        return codes

    def swap(self, a: Tensor, b: Tensor, names: str | Iterable[str]) -> Tensor:
        """Codes `a` (N, D) with the named blocks taken from `b` (N, D)."""
        for name in [names] if isinstance(names, str) else names:
            a = self.write(a, name, self.read(b, name))
        return a

    def mix(self, a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        """Codes (N, D): block i from `a` where mask[..., i] is 1, from `b` where it is 0. mask: (B,) or (N, B)."""
        mask = torch.as_tensor(mask, device=a.device).bool()
        if mask.shape not in ((len(self),), (len(a), len(self))):
            raise ValueError(f"a mask must be ({len(self)},) or ({len(a)}, {len(self)}), not {tuple(mask.shape)}")
        mask = mask.expand(len(a), len(self))
        mixed, b = self.check(a), self.check(b)
        for i, block in enumerate(self):
            here = mask[:, i].reshape(-1, *[1] * len(block.shape))
            mixed = block.write(mixed, torch.where(here, block.read(a), block.read(b)))
        return mixed

    def traverse(self, code: Tensor, name: str, values: Sequence[float] | Tensor) -> Tensor:
        """Codes (S, D): one code, (D,) or (1, D), with one block set to each of S values (scalars, or (S, *shape))."""
        block = self[name]
        values = torch.as_tensor(values, dtype=code.dtype, device=code.device)
        if values.numel() != len(values) * block.size:
            raise ValueError(f"block '{name}' takes values (S, *{block.shape}), not {tuple(values.shape)}")
        return block.write(self.check(code.reshape(1, -1)).repeat(len(values), 1), values.reshape(-1, *block.shape))

    def interpolate(self, a: Tensor, b: Tensor, steps: int, names: Iterable[str] | None = None) -> Tensor:
        """Codes (steps, D) on the straight way from code `a` to code `b`, (D,) or (1, D), in the named blocks only."""
        a, b = self.check(a.reshape(1, -1)), self.check(b.reshape(1, -1))
        path = a.repeat(steps, 1)
        t = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype)
        for name in self.names if names is None else names:
            block = self[name]
            t_ = t.reshape(-1, *[1] * len(block.shape))
            path = block.write(path, (1 - t_) * block.read(a) + t_ * block.read(b))
        return path

    def regroup(self, groups: Mapping[str, Sequence[str]]) -> CodeSpace:
        """The same code under other blocks: each group is one free block over its members' positions.

        `{"pose": ["z0", "z3"]}`; blocks in no group stay as they are, after the groups.
        """
        members = [name for names in groups.values() for name in names]
        if len(set(members)) < len(members):
            raise ValueError("a block can be in one group only")
        wide = []
        for group, names in groups.items():
            at = tuple(i for name in names for i in self[name].at)
            wide.append(Block(group, "free", (len(at),), at=at))
        return CodeSpace(wide + [block for block in self if block.name not in members], size=self.size)

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n codes (n, D), each block drawn from its own prior."""
        codes = torch.zeros(n, self.size, device=rng.device)
        for block in self:
            codes = block.write(codes, block.prior(n, rng))
        return codes

    def centre(self, n: int = 1, device=None) -> Tensor:
        """n codes (n, D) at the middle of the prior."""
        codes = torch.zeros(n, self.size, device=device)
        for block in self:
            codes = block.write(codes, block.centre(device).expand(n, *block.shape))
        return codes


def gaussian_blocks(d: int) -> CodeSpace:
    """d scalar blocks z0 ... z(d-1) under N(0, 1): the code of the whole VAE family."""
    return CodeSpace(Block(f"z{j}", "gaussian") for j in range(d))


KL_DEAD = 0.01  # nats; a latent with less mean KL than this has collapsed to its prior


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) in nats, of each number by itself."""
    return 0.5 * (mu.square() + logvar.exp() - logvar - 1)
