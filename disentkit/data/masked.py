"""Masks beside the pictures: which pixels show the object, known exactly where pictures are drawn.

A network that finds the object in a picture learns from them, and so does whatever measures a picture on the object
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from disentkit.data.base import Data

KEYS = ("mask",)


class Masked(Data):
    """A renderer whose batches also hold `mask` (n, 1, H, W) float32 in [0, 1]: the object's share of each pixel.

    data   a Renderer with `mask(values (n, K))`, such as `Scenes` or `Creatures`
    reads  ("mask",): the keys to be added

    Raises ValueError for an unknown key and for data that have no masks.
    """

    def __init__(self, data: Data, reads: Sequence[str] = KEYS):
        self.reads = (reads,) if isinstance(reads, str) else tuple(reads)
        if unknown := [key for key in self.reads if key not in KEYS]:
            raise ValueError(f"masked data have no key '{unknown[0]}'; there are {', '.join(KEYS)}")
        if not callable(getattr(data, "mask", None)):
            raise ValueError(f"data set '{data.name}' has no masks of its pictures; scenes and creatures have")
        self.data = data
        self.name, self.image_shape, self.space, self.law = data.name, data.image_shape, data.space, data.law
        self.device = data.device

    def __repr__(self) -> str:
        return f"Masked({self.data})"

    def to(self, device) -> Masked:
        moved = super().to(device)
        moved.data = self.data.to(device)
        return moved

    def fingerprint(self) -> str:
        return self.data.fingerprint()

    def sample(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return self._with_mask(self.data.sample(n, rng))

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        return self._with_mask(self.data.sample_fixed(k, n, rng, groups))

    def _with_mask(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**batch, "mask": self.data.mask(batch["factors"])}
