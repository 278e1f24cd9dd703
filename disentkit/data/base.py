"""What every data set offers: batches with their factors, drawn by a law on the device that trains.

A data set is a `Renderer` (factor values -> images, no file at all) or `ArrayData` (stored images). A batch is a dict
of tensors whose first axis is n: `x` (n, C, H, W) float32 in [0, 1] and, where factors are known, `factors` (n, K).
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from disentkit.codes import Block, CodeSpace
from disentkit.data.factors import Factor, FactorSpace
from disentkit.data.laws import Grid, draw_fixed, rows_that_share


@dataclass(frozen=True)
class Spec:
    """What a method must know of its data: the image shape (C, H, W) and the factors, None where there are none."""

    image_shape: tuple[int, int, int]
    space: FactorSpace | None = None


class Data:
    """A source of batches. Subclasses set `name`, `image_shape`, `space` and write `sample` and `sample_fixed`."""

    name: str = "data"
    image_shape: tuple[int, int, int]
    space: FactorSpace | None = None
    law: object = Grid()
    device = torch.device("cpu")

    @property
    def spec(self) -> Spec:
        return Spec(tuple(self.image_shape), self.space)

    def to(self, device) -> Data:
        """The same data on another device."""
        moved = copy.copy(self)
        moved.device = torch.device(device)
        return moved

    def fingerprint(self) -> str:
        """Text that changes when the data does; a run that is resumed must meet the one it started with."""
        return f"{self.name} {tuple(self.image_shape)} {self.space}"

    def sample(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        """A batch of n independent draws."""
        raise NotImplementedError(f"{type(self).__name__} must write sample(n, rng)")

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        """A batch of groups * n rows; each run of n rows shares one value of factor k, the other factors are drawn."""
        raise NotImplementedError(f"{type(self).__name__} must write sample_fixed(k, n, rng, groups)")


class Renderer(Data):
    """Factor values -> images. Subclasses set `name`, `image_shape`, `space` and write `render`.

    A renderer is a model too: its code is its factors (a category is a one-hot block), so the panel that explores a
    trained model is, on a renderer, the panel of true factors.
    """

    law: object = Grid()

    def render(self, values: Tensor) -> Tensor:
        """Images (n, C, H, W) float32 in [0, 1] of factor values (n, K), which may lie between grid values."""
        raise NotImplementedError(f"{type(self).__name__} must write render(values)")

    def with_law(self, law) -> Renderer:
        """The same renderer, whose factor tuples are drawn by another law."""
        other = copy.copy(self)
        other.law = law
        return other

    def fingerprint(self) -> str:
        # What the law draws, not its text: a held-out rule is a function, whose text differs from process to process.
        # And some pictures, since a renderer may have options of its own; in 16 levels, as the last bit may differ
        # between machines.
        drawn = self.law.draw(self.space, 200, torch.Generator().manual_seed(0))
        pictures = (self.to("cpu").render(drawn[:20]) * 15).round().byte()
        digest = hashlib.sha256(drawn.numpy().tobytes() + pictures.numpy().tobytes())
        return f"{super().fingerprint()} {digest.hexdigest()[:16]}"

    def sample(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        values = self.law.draw(self.space, n, rng)
        return {"x": self.render(values), "factors": values}

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        values = draw_fixed(self.law, self.space, k, n, rng, groups)
        return {"x": self.render(values), "factors": values}

    # A renderer as a model.
    @property
    def codes(self) -> CodeSpace:
        return CodeSpace(_block_of(f) for f in self.space)

    def values(self, codes: Tensor) -> Tensor:
        """Factor values (n, K) of codes (n, D)."""
        space = self.codes
        columns = [b.read(codes).argmax(-1) if b.kind == "onehot" else b.read(codes)[:, 0] for b in space]
        return torch.stack([c.float() for c in columns], dim=1)

    def code_of(self, values: Tensor) -> Tensor:
        """Codes (n, D) of factor values (n, K): the inverse of `values`."""
        space = self.codes
        codes = torch.zeros(len(values), space.size, device=values.device)
        for k, block in enumerate(space):
            value = values[:, k : k + 1]
            if block.kind == "onehot":
                value = torch.nn.functional.one_hot(value[:, 0].long(), block.size)
            codes = block.write(codes, value)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Images (n, C, H, W) of codes (n, D)."""
        return self.render(self.values(codes))

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n codes (n, D) of tuples drawn by the law."""
        return self.code_of(self.law.draw(self.space, n, rng))


def _block_of(factor: Factor) -> Block:
    if factor.kind == "category":
        return Block(factor.name, "onehot", (len(factor),), labels=factor.labels)
    return Block(factor.name, "uniform", (1,), factor.low, factor.high, unit=factor.unit)


class ArrayData(Data):
    """Stored images, with their factors where these are known.

    images   (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3; uint8 0 ... 255, or float in [0, 1]
    factors  (N, K) values, or None
    space    their FactorSpace; without one, each column becomes a factor f0, f1, ... of its distinct values
             (a category where they are 0 ... n-1)

    Raises ValueError for other shapes, dtypes or ranges. Images stay as they were given (uint8 keeps them small) and
    become float32 when drawn.
    """

    def __init__(self, images, factors=None, space: FactorSpace | None = None, name: str = "arrays"):
        self.name = name
        self.images = _as_images(images)  # (N, C, H, W)
        self.image_shape = tuple(self.images.shape[1:])
        self.factors = None
        if factors is not None:
            try:
                factors = torch.as_tensor(np.asarray(factors), dtype=torch.float32)
            except (TypeError, ValueError, RuntimeError):
                raise ValueError("factors must be a table of numbers; number the words of a category first") from None
            if factors.ndim != 2 or len(factors) != len(self.images):
                raise ValueError(f"factors must be ({len(self.images)}, K), not {tuple(factors.shape)}")
            if not torch.isfinite(factors).all():
                raise ValueError("factors hold NaN or infinite values")
            self.space = space or _space_of(factors)
            self.factors = self.space.check(factors)
        elif space is not None:
            raise ValueError("a FactorSpace was given without factors")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"ArrayData({self.name}: {len(self)} images {self.image_shape}, {self.space})"

    def to(self, device) -> ArrayData:
        moved = super().to(device)
        moved.images = self.images.to(device)
        moved.factors = None if self.factors is None else self.factors.to(device)
        return moved

    def fingerprint(self) -> str:
        # Every image of a small set, an even sample of a large one: enough to notice other or reordered data.
        rows = torch.linspace(0, len(self) - 1, min(len(self), 2000)).long()
        digest = hashlib.sha256(self.images[rows].cpu().numpy().tobytes())
        if self.factors is not None:
            digest.update(self.factors[rows].cpu().numpy().tobytes())
        return f"{self.name} {len(self)} {self.image_shape} {self.space} {digest.hexdigest()[:16]}"

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """The batch of the rows (n,) named by `index`."""
        x = self.images[index]
        batch = {"x": x.float() / 255 if x.dtype == torch.uint8 else x}
        if self.factors is not None:
            batch["factors"] = self.factors[index]
        return batch

    def sample(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return self.rows(torch.randint(len(self), (n,), generator=rng, device=rng.device))

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        if self.factors is None:
            raise ValueError(f"data set '{self.name}' has no factors, so none can be held fixed")
        if not 0 <= k < len(self.space):
            raise ValueError(f"there is no factor {k}; the {len(self.space)} factors count from 0")
        order = self.factors[:, k].argsort(stable=True)
        return self.rows(order[rows_that_share(self.factors[order, k], n, rng, groups)])


class StoredGrid(Renderer):
    """A full grid of stored images, indexed directly: a renderer whose `render` looks up the nearest grid tuple.

    array  every tuple of `array.space` once, in grid order (last factor fastest)
    """

    def __init__(self, array: ArrayData, law=None):
        self.array, self.name, self.space, self.image_shape = array, array.name, array.space, array.image_shape
        self.law = Grid() if law is None else law

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        return f"StoredGrid({self.name}: {len(self)} images {self.image_shape}, {self.law})"

    @property
    def images(self) -> Tensor:
        """All images, (N, C, H, W) uint8, in grid order."""
        return self.array.images

    def to(self, device) -> StoredGrid:
        moved = copy.copy(super().to(device))
        moved.array = self.array.to(device)
        return moved

    def fingerprint(self) -> str:
        return f"{self.array.fingerprint()} {super().fingerprint()}"

    def render(self, values: Tensor) -> Tensor:
        """Images (n, C, H, W) float32 in [0, 1] of the grid tuples nearest to values (n, K)."""
        return self.array.rows(self.space.flat_of(self.space.to_grid(values)))["x"]

    def sample(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return self._on_grid(super().sample(n, rng))

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        return self._on_grid(super().sample_fixed(k, n, rng, groups))

    def _on_grid(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with the factors of the pictures that were found, where a law drew between grid points."""
        return {**batch, "factors": self.space.from_grid(self.space.to_grid(batch["factors"]))}


def _as_images(images) -> Tensor:
    """Check images and bring them to (N, C, H, W), uint8 or float32 in [0, 1]."""
    try:
        images = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"images must be one array of numbers, not {type(images).__name__}") from None
    if images.dtype == torch.uint8:
        pass
    elif images.is_floating_point():
        images = images.float()
        low, high = (float(images.min()), float(images.max())) if images.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise ValueError(f"float images must lie in 0 ... 1, these reach from {low:g} to {high:g}; divide by 255?")
    else:
        raise ValueError(f"images must be uint8 or float, not {images.dtype}")
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (N, H, W), (N, H, W, C) or (N, C, H, W), not {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError("there are no images" if len(images) == 0 else "the images have no pixels")
    return images.contiguous()


def _space_of(factors: Tensor) -> FactorSpace:
    """A factor f0, f1, ... for each column, over the values that occur."""
    found = []
    for k, column in enumerate(factors.T):
        values = tuple(float(v) for v in column.unique())
        kind = "category" if list(values) == list(range(len(values))) else "real"
        found.append(Factor(f"f{k}", kind, values))
    return FactorSpace(found)
