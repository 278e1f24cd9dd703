"""Tiny models for the panel tests: 8 pixels, no training, and one that can be broken on purpose."""

from __future__ import annotations

import torch
from torch import nn

from disentkit.codes import Block, CodeSpace, gaussian_blocks
from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace, category


class Linear(nn.Module):
    """A code of three latents and 64 pixels, linear both ways up to the sigmoid. Counts its decodes; can be broken."""

    def __init__(self, side: int = 8, seed: int = 0):
        super().__init__()
        self.image_shape, self.codes = (1, side, side), gaussian_blocks(3)
        weights = torch.randn(3, side * side, generator=torch.Generator().manual_seed(seed))
        self.weights = nn.Parameter(weights)
        self.decoded, self.broken = 0, None

    def decode(self, codes):
        self.decoded += 1
        if self.broken:
            raise RuntimeError(self.broken)
        return (codes @ self.weights).sigmoid().reshape(-1, *self.image_shape)

    def encode(self, x):
        return x.flatten(1).clamp(1e-6, 1 - 1e-6).logit() @ torch.linalg.pinv(self.weights)

    def prior(self, n, rng):
        return self.codes.prior(n, rng)


class Blocks:
    """A generator with a block of every kind, colour, no encoder, no weights."""

    image_shape = (3, 8, 8)
    codes = CodeSpace([
        Block("shape", "onehot", (3,), labels=("square", "ellipse", "heart")),
        Block("many", "onehot", (8,)),
        Block("x", "uniform", low=0.0, high=1.0, unit="px"),
        Block("jitter", "gaussian", inferred=False),
        Block("noise", "gaussian", (4,), inferred=False),
        Block("style", "free", (2, 2)),
        Block("layout", "map", (2, 2, 2)),
    ])  # fmt: skip

    def decode(self, codes):
        ramp = torch.linspace(-1, 1, 192)
        mix = torch.sin(codes @ torch.arange(1, self.codes.size + 1).float()[:, None] + 3 * ramp)
        return (0.5 + 0.4 * mix).reshape(-1, *self.image_shape)


class Quarters:
    """A picture of 16 pixels whose quarters are its four blocks, wide ones and maps: what a swap does is seen exactly.

    Counts its encodes and decodes; can be broken.
    """

    image_shape = (1, 16, 16)
    codes = CodeSpace([Block("f1", "free", (64,)), Block("f2", "map", (1, 8, 8)), Block("f3", "free", (64,)),
                       Block("f4", "map", (4, 4, 4))])  # fmt: skip

    def __init__(self):
        self.encoded, self.decoded, self.broken = 0, 0, None

    def encode(self, x):
        self.encoded += 1
        quarters = x.reshape(len(x), 2, 8, 2, 8).transpose(2, 3)  # (N, 2, 2, 8, 8)
        return 2 * quarters.reshape(len(x), 256) - 1

    def decode(self, codes):
        self.decoded += 1
        if self.broken:
            raise RuntimeError(self.broken)
        quarters = (codes + 1) / 2
        return quarters.reshape(-1, 2, 2, 8, 8).transpose(2, 3).reshape(-1, 1, 16, 16)


QUARTER_STATS = [
    {"name": "f2", "importance": 0.1, "unit": "change", "factor": None, "correlation": None},
    {"name": "f3", "importance": 0.3, "unit": "change", "factor": "hair", "correlation": 0.91},
    {"name": "f1", "importance": 0.2, "unit": "change", "factor": "skin", "correlation": 0.2},
]


def pictures(n: int = 4) -> torch.Tensor:
    """n pictures for it."""
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(1))


class Scene(Blocks):
    """Blocks that travel together, one of them read by no encoder; and one that travels alone and is not read."""

    codes = CodeSpace([
        Block("b", "onehot", (3,), picker="background"),
        Block("shape", "free", (4,)),
        Block("z", "gaussian", (2,), picker="background", inferred=False),
        Block("jitter", "gaussian", (5,), inferred=False),
    ])  # fmt: skip

    def encode(self, x):
        codes = self.codes.centre(len(x))
        codes = self.codes.write(codes, "b", x.flatten(1)[:, :3].softmax(1))
        return self.codes.write(codes, "shape", x.flatten(1)[:, 3:7])


class Bar(Renderer):
    """A bright bar at x, upright or lying: a renderer of 8 pixels."""

    name, image_shape = "bar", (1, 8, 8)
    space = FactorSpace([category("way", "upright", "lying"), Factor("x", "real", (0.0, 1.0, 2.0, 3.0), unit="px")])

    def render(self, values):
        way, x = values.T[:, :, None]
        bar = torch.exp(-((torch.arange(8, device=values.device)[None] - 2 * x) ** 2) / 2)  # (n, 8)
        upright, lying = bar[:, None, :].expand(-1, 8, 8), bar[:, :, None].expand(-1, 8, 8)
        return torch.where(way[:, :, None] < 0.5, upright, lying)[:, None]
