"""Block statistics: what each block of a model's code is worth, which factor it follows. Panels are ordered by them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from disentkit import models
from disentkit.codes import KL_DEAD, Block, gaussian_kl


def block_stats(model, data=None, n: int = 2000, seed: int = 0) -> list[dict]:
    """One dict per block, in code order: name, kind, low, high, importance, unit, factor, correlation.

    importance   KL(q(z_j|x) || N(0, 1)) in nats, averaged over n pictures, where the model has a posterior; elsewhere
                 the mean absolute change of a pixel when the block is swapped between two codes
    low, high    the slider's range: the block's own for gaussian, uniform and onehot blocks, for the others the 1st and
                 99th percentile of the codes
    factor       the factor a scalar block follows best, with `correlation` in 0 ... 1: the absolute rank correlation
                 (Spearman) with a real factor, `correlation_ratio` with a category or a cyclic one. None without
                 factors, for blocks that no encoder reads, and for collapsed latents (less than 0.01 nats): those
                 tremble a little with some factor, and ranks would make that look like knowledge
    """
    rng = torch.Generator().manual_seed(seed)
    batch = data.to("cpu").sample(n, rng) if data is not None else {}
    codes, kl = _codes(model, batch.get("x"), n, rng)
    factors = batch.get("factors")
    found = []
    for block in model.codes:
        values = block.read(codes)
        low, high = block.low, block.high
        if block.kind in ("free", "map") and len(values):
            low, high = (float(q) for q in np.quantile(values.numpy(), [0.01, 0.99]))
            high = max(high, low + 1e-3)
        nats = kl is not None and type(block).read is Block.read  # a direction is no position of the code
        row = {"name": block.name, "kind": block.kind, "low": low, "high": high}
        row["importance"] = float(kl[list(block.at)].sum()) if nats else _change(model, codes, block.name)
        row["unit"] = "nats" if nats else "change"
        row["factor"], row["correlation"] = None, None
        dead = nats and row["importance"] < KL_DEAD
        if block.scalar and block.inferred and not dead and factors is not None and models.can_encode(model):
            row["factor"], row["correlation"] = _best_factor(values[:, 0].numpy(), factors.numpy(), data.space)
        found.append(row)
    return found


def _codes(model, x: Tensor | None, n: int, rng) -> tuple[Tensor, Tensor | None]:
    """Codes (n, D) of pictures or of the prior, and the KL per position (D,) where there is a posterior."""
    if x is None or not models.can_encode(model):
        prior = getattr(model, "prior", model.codes.prior)
        return prior(n, rng).cpu(), None
    if callable(getattr(model, "posterior", None)):
        mu, logvar = models.posterior(model, x)
        return mu, gaussian_kl(mu, logvar).mean(0)
    codes = models.encode(model, x)
    for block in model.codes:
        if not block.inferred:  # encode leaves the prior's centre there
            codes = block.write(codes, block.prior(n, rng))
    return codes, None


def _change(model, codes: Tensor, name: str, pairs: int = 64) -> float:
    """Mean absolute change of a pixel when one block is taken from another code."""
    a, b = codes[:pairs], codes[:pairs].flip(0)
    return float((models.decode(model, model.codes.swap(a, b, name)) - models.decode(model, a)).abs().mean())


def following(model, data, n: int = 2000, seed: int = 0):
    """How strongly each scalar block (row) follows each factor (column), a pandas frame in 0 ... 1.

    The measure is that of `block_stats`; a collapsed latent's row is 0. Raises ValueError for models that cannot encode
    and data without factors.
    """
    import pandas as pd

    if data.space is None:
        raise ValueError(f"data set '{data.name}' has no factors to follow")
    batch = data.to("cpu").sample(n, torch.Generator().manual_seed(seed))
    if not models.can_encode(model):
        raise ValueError(f"{type(model).__name__} has no encoder, so no block follows anything")
    codes, kl = _codes(model, batch["x"], n, torch.Generator().manual_seed(seed))
    blocks = [b for b in model.codes.scalars if b.inferred]
    dead = [kl is not None and type(b).read is Block.read and float(kl[list(b.at)].sum()) < KL_DEAD for b in blocks]
    factors = batch["factors"].numpy()
    strengths = [
        [0.0] * len(data.space) if gone else _strengths(b.read(codes)[:, 0].numpy(), factors, data.space)
        for b, gone in zip(blocks, dead)
    ]
    return pd.DataFrame(strengths, index=[b.name for b in blocks], columns=data.space.names)


def _best_factor(values: np.ndarray, factors: np.ndarray, space) -> tuple[str | None, float]:
    strength = _strengths(values, factors, space)
    best = int(np.argmax(strength))
    return (space.names[best], strength[best]) if strength[best] > 0 else (None, 0.0)


def _strengths(values: np.ndarray, factors: np.ndarray, space) -> list[float]:
    """How strongly values (n,) follow each of the factors (n, K), in 0 ... 1."""
    found = []
    groups = space.to_grid(torch.from_numpy(factors)).numpy()  # a law may draw values between those of the grid
    for k, factor in enumerate(space):
        column = factors[:, k]
        if column.min() == column.max() or values.std() < 1e-6:
            found.append(0.0)
        elif factor.kind == "real":
            found.append(abs(float(spearmanr(values, column).statistic)))
        else:
            found.append(correlation_ratio(values, groups[:, k]))
    return found


def correlation_ratio(values: np.ndarray, groups: np.ndarray) -> float:
    """In 0 ... 1: the root of the share of the variance of `values` (n,) that lies between the groups (n,).

    The share is epsilon squared (Kelley 1935), which chance does not raise: plain eta of pure noise over 40 groups and
    2,000 values is 0.14, more than a weak true factor has.
    """
    _, index = np.unique(groups, return_inverse=True)
    counts = np.bincount(index)
    means = np.bincount(index, values) / counts
    n, k = len(values), len(counts)
    within = ((values - means[index]) ** 2).sum() / max(n - k, 1)
    return float(np.sqrt(max(0.0, 1 - within / values.var(ddof=1))))
