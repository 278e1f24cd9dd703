"""Codes whose score is known, on the factor grid of dSprites, made without a single picture.

Also `Signals`, a renderer whose pictures are the factors themselves (one pixel each), and `Reader`, a model that
encodes them by any rule: together they drive the (model, data) forms in no time.
"""
import numpy as np
import torch

from disentkit.codes import CodeSpace, gaussian_blocks
from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace

NAMES = ["shape", "scale", "orientation", "x", "y"]
SIZES = (3, 6, 40, 32, 32)


def grid(n: int | None = 20_000, seed: int = 0) -> np.ndarray:
    """Grid indices (n, 5) drawn uniformly, or with n=None the whole grid of 737,280."""
    if n is None:
        return np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(size, size=n) for size in SIZES], axis=1)


def ideal(idx: np.ndarray, names: str, dead: int = 0, seed: int = 1) -> np.ndarray:
    """One latent of unit spread per factor named, and `dead` ones of pure noise with a spread of 0.02."""
    column = idx[:, [NAMES.index(name) for name in names.split()]]
    noise = 0.02 * np.random.default_rng(seed).normal(size=(len(idx), dead))
    return np.hstack([(column - column.mean(axis=0)) / column.std(axis=0), noise])


def turned(z: np.ndarray, i: int, j: int) -> np.ndarray:
    """Codes with columns i and j rotated into each other by 45 degrees."""
    z = z.copy()
    z[:, i], z[:, j] = (z[:, i] + z[:, j]) / 2**0.5, (z[:, i] - z[:, j]) / 2**0.5
    return z


class Signals(Renderer):
    """Each factor is one pixel in [0, 1], in a row: the picture is its own ideal code."""

    name = "signals"

    def __init__(self, sizes=SIZES, names=NAMES):
        values = [tuple(i / max(size - 1, 1) for i in range(size)) for size in sizes]
        self.space = FactorSpace(Factor(name, "real", v) for name, v in zip(names, values))
        self.image_shape = (1, 1, len(sizes))

    def render(self, values):
        return values.reshape(-1, 1, 1, len(self.space))


class Reader:
    """A model without weights: `rule(pixels (n, K)) -> codes (n, D)`; with `logvar` (D,) it also has a posterior."""

    def __init__(self, rule, codes: int | CodeSpace, pixels: int = len(SIZES), logvar=None):
        self.rule, self.codes = rule, gaussian_blocks(codes) if isinstance(codes, int) else codes
        self.image_shape = (1, 1, pixels)
        if logvar is not None:
            self.posterior = lambda x: (self.encode(x), torch.tensor(logvar).expand(len(x), -1))

    def encode(self, x):
        return self.rule(x.flatten(1))

    def decode(self, codes):
        raise AssertionError("no metric looks at decoded pictures")
