"""Frechet distance: how far apart are generated and true pictures, in the eyes of a judge?

    d^2 = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

of two Gaussians with the means and covariances of the judge's features: its last hidden layer. The formula is that of
the FID (Heusel et al., NeurIPS 2017), the network is not: the judge is a small one that was trained on this one data
set, so the number can be compared with others of the same judge and the same number of pictures, and with no FID in any
paper. Few pictures bias d^2 upwards: hold it against that of true pictures and other true pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from disentkit import models
from disentkit.metrics.arrays import table
from disentkit.metrics.mixes import Drawn, draw_pictures, generator
from disentkit.metrics.subsets import check_model

CHUNK = 250  # pictures at a time


def frechet(model, data, judge, n: int = 2000, draw: str = "prior", seed: int = 0, made: Drawn | None = None) -> float:
    """Squared Frechet distance of n pictures of the model and n true ones, drawn by the law of `data`. Not an FID.

    draw  "prior", or "tied" where the model offers it: codes that belong together as in training. Compare the former
          with `data.independent()`, the latter with the training data
    made  pictures that the model drew already, by `draw_pictures`; n is then how many of them count

    A renderer is a model too: `frechet(data, data, judge)` is the floor, what n true pictures have to n others. Raises
    ValueError for a model that draws nothing, a judge that has no layers, and pictures that are not finite.
    """
    check_model(model, data, factors=False)
    if not isinstance(getattr(judge, "net", None), torch.nn.Sequential):
        raise ValueError(f"features are a judge's last hidden layer, and {type(judge).__name__} has no layers")
    if tuple(model.image_shape) != tuple(data.image_shape):
        theirs = f"data set '{data.name}' {tuple(data.image_shape)}: give the data that it was trained on"
        raise ValueError(f"the model makes pictures {tuple(model.image_shape)}, {theirs}")
    made = made or draw_pictures(model, n, seed, draw)
    data, rng, true = data.to("cpu"), generator(seed + 1), []
    n = min(n, len(made.x))
    for start in range(0, n, CHUNK):
        true.append(features(judge, data.sample(min(CHUNK, n - start), rng)["x"]))
    return frechet_distance(features(judge, made.x[:n]), torch.cat(true))


def features(judge, x: Tensor) -> Tensor:
    """The judge's last hidden layer (n, fc), on the CPU, of pictures (n, C, H, W)."""
    with models.frozen(judge):
        return torch.cat([judge.net[:-1](part.to(models.device_of(judge))).cpu() for part in x.split(256)])


def frechet_distance(a, b) -> float:
    """d^2 of the Gaussians fitted to rows (N, m) and (M, m), see above; at least 0."""
    a, b = table(a, "features"), table(b, "features")
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return max(0.0, float(apart + np.trace(first) + np.trace(second) - 2 * cross))
