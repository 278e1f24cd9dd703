"""ES: exhaustive search, the way in which Ge, Abu-El-Haija, Xin, Itti 2021 ("Zero-shot Synthesis with Group-Supervised
Learning", ICLR) let models that learned without labels (beta-VAE, beta-TCVAE) take part in zero-shot synthesis. Nothing
is trained here.

Every latent of a trained model is ranked for every attribute on labelled pictures, then the latents are shared out
among the attributes, equally many to each (100 latents and 5 attributes: 20 each), and an attribute is taken from a
picture by copying its group. The scoring rule is not in the authors' code, which holds only the groups that came out,
and the paper's text was not at hand. This is ours:

    s[d, j] = I(bin of z_d; class of attribute j)      mutual information in nats, z_d cut into bins of equal frequency
              less its mean over d, divided by its standard deviation over d
    groups  = the sharing out with the largest sum of s, exactly: an assignment problem (Kuhn 1955) in which each
              attribute stands as many times as it gets latents

Without the standardisation the attribute with the most classes, whose information is largest, would pick first.

    view = search(run.model, pictures, factors, data.space)
    view.codes.names          # the attributes, then blocks that are no scalars
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from disentkit import models

BINS = 20


def importance(codes, classes, bins: int = BINS) -> np.ndarray:
    """How much each latent says of each attribute, (d, K): binned mutual information, z-scored per attribute.

    codes    (N, d) numbers, torch or numpy; each column is cut into at most `bins` bins of equal frequency (equal
             values share a bin)
    classes  (N, K) class numbers

    A column is 0 where no latent says more than another. Raises ValueError for tables that are none, whose rows do not
    match, or that hold NaN or infinite numbers.
    """
    codes, classes = _table(codes, "codes"), _table(classes, "classes")
    if len(codes) != len(classes):
        raise ValueError(f"codes have {len(codes)} rows and classes {len(classes)}: row i of both must be one picture")
    if bins < 2:
        raise ValueError(f"bins must be 2 or more, not {bins}")
    binned = [_bins(column, bins) for column in codes.T]
    numbered = [np.unique(column, return_inverse=True)[1] for column in classes.T]
    nats = np.array([[_information(a, b) for b in numbered] for a in binned])  # (d, K)
    spread = nats.std(axis=0)
    return np.where(spread > 1e-12, (nats - nats.mean(axis=0)) / np.maximum(spread, 1e-12), 0.0)


def assign(scores, sizes: Mapping[str, int]) -> dict[str, list[int]]:
    """{attribute: numbers of its latents, ascending}, the sharing out of the largest total score.

    scores  (d, K), a column per attribute in the order of `sizes`
    sizes   {attribute: how many latents it gets}; the latents that are left over belong to no attribute

    Raises ValueError where the columns do not match, or where there are fewer latents than are given away.
    """
    scores, names = _table(scores, "scores"), list(sizes)
    counts = np.array([sizes[name] for name in names], dtype=int)
    if scores.shape[1] != len(names):
        raise ValueError(f"scores have {scores.shape[1]} columns for {len(names)} attributes")
    if len(names) == 0 or counts.min() < 1:
        raise ValueError("every attribute must get a latent or more")
    if counts.sum() > len(scores):
        raise ValueError(f"{len(scores)} latents cannot be shared out among attributes that get {counts.sum()}")
    owner = np.repeat(np.arange(len(names)), counts)  # each attribute's column, as often as it gets latents
    rows, columns = linear_sum_assignment(scores[:, owner], maximize=True)
    return {name: sorted(int(d) for d in rows[owner[columns] == j]) for j, name in enumerate(names)}


def balanced(latents: int, names) -> dict[str, int]:
    """{attribute: how many latents}, equally many each; what is left over goes to the first ones, one more each."""
    names = list(names)
    if latents < len(names):
        raise ValueError(f"{latents} latents cannot be shared out among {len(names)} attributes, one each at least")
    each, more = divmod(latents, len(names))
    return {name: each + (j < more) for j, name in enumerate(names)}


class Regrouped(nn.Module):
    """A model under the blocks of its attributes: the same codes, weights and pictures, other names.

    `codes` has a free block per attribute, then the model's blocks that are no scalars. `groups` {attribute: names of
    the model's blocks}, `scores` (d, K) or None.
    """

    def __init__(self, model, groups: Mapping[str, list[str]], scores: np.ndarray | None = None):
        super().__init__()
        self.model, self.image_shape = model, tuple(model.image_shape)
        self.groups, self.scores = {name: list(members) for name, members in groups.items()}, scores
        self.codes = model.codes.regroup(self.groups)
        if callable(getattr(model, "posterior", None)):
            self.posterior = model.posterior

    @property
    def device(self) -> torch.device:
        return models.device_of(self.model)

    def encode(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> codes (N, D), those of the model."""
        return self.model.encode(x)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, D) -> images (N, C, H, W) in [0, 1]."""
        return self.model.decode(codes)

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n codes (n, D), drawn as the model draws them."""
        return getattr(self.model, "prior", self.model.codes.prior)(n, rng)


def search(model, batch, factors, space, sizes: Mapping[str, int] | None = None, bins: int = BINS) -> Regrouped:
    """The model under blocks regrouped by attribute.

    batch    pictures (N, C, H, W), or their codes (N, D); some thousands
    factors  (N, K) values in `space`
    sizes    {attribute: how many latents}, in the order of `space`; without it, `balanced`

    Latents are the scalar blocks that the model infers. Raises ValueError where there are fewer than attributes, and
    for pictures and factors that do not match.
    """
    batch = torch.as_tensor(batch)
    codes = models.encode(model, batch) if batch.ndim == 4 else model.codes.check(batch).cpu()
    classes = space.to_grid(space.check(torch.as_tensor(factors).cpu()))  # (N, K)
    latents = [block for block in model.codes.scalars if block.inferred]
    if sizes is None:
        sizes = balanced(len(latents), space.names)
    if tuple(sizes) != space.names:
        raise ValueError(f"sizes name {', '.join(sizes)}, but the attributes are {', '.join(space.names)}")
    scores = importance(torch.cat([block.read(codes) for block in latents], dim=1), classes, bins)
    groups = {name: [latents[d].name for d in found] for name, found in assign(scores, sizes).items()}
    return Regrouped(model, groups, scores)


def _table(values, what: str) -> np.ndarray:
    """Numbers (N, m) as float64, all finite."""
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{what} must be a table (rows, columns), not {values.shape}")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{what} hold NaN or infinite numbers")
    return values


def _bins(column: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each value, (N,): bins of equal frequency, where values that are equal share one."""
    edges = np.unique(np.quantile(column, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, column, side="right")


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information in nats of two columns of class numbers."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1 / len(a))
    apart = table.sum(1, keepdims=True) * table.sum(0)
    there = table > 0
    return float((table[there] * np.log(table[there] / apart[there])).sum())
