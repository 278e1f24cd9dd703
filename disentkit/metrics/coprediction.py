"""Co-prediction: which attribute can be read from which block, by small classifiers on frozen codes.

For each block i and attribute j a classifier learns to say attribute j from block i alone, and is tested on pictures
that it did not learn from. The ideal is the identity: 1 on the diagonal, chance everywhere else. High beside the
diagonal, an attribute leaks into a block that is not its own.

    mlp     one hidden layer of WIDTH units, ReLU
    linear  multinomial logistic regression

Both by Adam, cross-entropy, and a fixed number of steps; GZS-Net (Ge et al., ICLR 2021) reports such a matrix, which
classifiers it uses is not established. All classifiers of a table are trained at once, as batched matrix products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from disentkit.data.base import ArrayData, Data
from disentkit.metrics.arrays import whole
from disentkit.metrics.subsets import Seen, features, look, rows_of
from disentkit.models import adam

KINDS = ("mlp", "linear")
WIDTH = 64
TEST = 1 / 4  # share of the pictures held out
STEPS, BATCH, LR = 400, 128, 2e-2  # the step size falls to zero along a cosine
LUCK = 4  # standard errors by which the most frequent value must beat an even share to count as chance


@dataclass(frozen=True)
class CoPrediction:
    """What `co_prediction` found.

    accuracy  shares in 0 ... 1, the mean over seeds: a row per block that is inferred, a column per attribute, and
              below them "chance"
    spread    the standard deviation over the seeds, of the same rows but "chance"
    settings  kind, pictures learned from and tested on, seeds, seed; `chance` {attribute: which it is}; `constant`, the
              attributes left out; `missing`, the attributes that no block is named after
    """

    accuracy: pd.DataFrame
    spread: pd.DataFrame
    settings: dict

    @property
    def chance(self) -> pd.Series:
        """What a guesser without a code gets, by attribute."""
        return self.accuracy.loc["chance"]

    @property
    def diagonal(self) -> float:
        """The mean accuracy over attributes of the block of that name; ideal 1."""
        return float(np.mean([self.accuracy.loc[name, name] for name in self._own()]))

    @property
    def off_diagonal(self) -> float:
        """The mean of all other entries in the attributes' blocks; NaN where there is no other. Ideal: chance."""
        return self._others(self.accuracy)

    @property
    def leak(self) -> float:
        """The same mean of (accuracy - chance) / (1 - chance): 0 at chance, 1 where every block knows everything."""
        return self._others((self.accuracy - self.chance) / (1 - self.chance))

    def _own(self) -> list[str]:
        return [name for name in self.accuracy.columns if name in self.spread.index]

    def _others(self, frame: pd.DataFrame) -> float:
        found = [frame.loc[row, name] for row in self._own() for name in frame.columns if row != name]
        return float(np.mean(found)) if found else float("nan")


def co_prediction(
    model, data, kind: str = "mlp", n: int = 4000, seeds: int = 3, seed: int = 0, steps: int = STEPS
) -> CoPrediction:
    """Accuracy of reading each attribute of `data` from each block of the model, on pictures held out.

    kind   "mlp" or "linear", see above
    n      pictures drawn, a quarter of them held out; of stored ones different ones, so at most as many as there are.
           Of a renderer each combination is kept once, so there are at most as many pictures as there are different
           combinations, and fewer than n of a small grid
    seeds  how often: each time another split, other first weights and other mini-batches, all drawn from `seed`

    Chance is 1 over the number of values that occur, or the share of the most frequent one where that is larger by more
    than the luck of the draw. Codes are scaled by mean and spread of the training split; a map block is its mean over
    positions. Attributes with a single value are left out. The global generator is left alone.

    Of a grid that is seen nearly whole, combinations are held out evenly (`_order`); where that cannot be, with fewer
    than three attributes or fewer than four values of one, clean codes read somewhat below chance.

    Attributes that hang together in the law of `data` (creatures seen in two poses only) are read from each other's
    blocks, however clean these are: take data in which they are independent, those with nothing held out.

    Raises ValueError for an unknown kind, models that cannot encode or have no block named after an attribute, and data
    without factors.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    seeds, steps = whole("seeds", seeds), whole("steps", steps)
    seen = _once(look(model, data, n, seed), data)
    rows, _ = rows_of(model.codes)
    missing = [name for name in seen.names if name not in rows]
    if len(missing) == len(seen.names):
        raise ValueError(
            f"no block is named after an attribute ({', '.join(seen.names)}); this code has "
            f"{', '.join(model.codes.names)}: see block_probes"
        )
    count = len(seen.codes)
    held = round(TEST * count)
    if not held:
        raise ValueError(f"{count} different pictures are too few to hold a quarter of them out; give thousands")
    columns = [np.unique(c, return_inverse=True, return_counts=True)[1:] for c in seen.classes.T]
    classes = torch.from_numpy(np.stack([index for index, _ in columns], axis=1))  # (N, K), counted from 0
    sizes = [len(counts) for _, counts in columns]
    blocks = [torch.from_numpy(features(model.codes, seen.codes, names)).float() for names in rows.values()]
    even = not isinstance(data, ArrayData)
    found = _accuracies(blocks, classes, sizes, held, kind, seeds, seed, steps, even)  # (S, B, K)
    index, names = list(rows), list(seen.names)
    accuracy = pd.DataFrame(found.mean(0), index=index, columns=names)
    chance = [_chance(counts) for _, counts in columns]
    accuracy.loc["chance"] = [share for share, _ in chance]
    settings = {
        "kind": kind, "train": count - held, "test": held, "seeds": seeds, "seed": seed, "steps": steps,
        "chance": {name: which for name, (_, which) in zip(names, chance)}, "constant": seen.still, "missing": missing,
    }  # fmt: skip
    return CoPrediction(accuracy, pd.DataFrame(found.std(0), index=index, columns=names), settings)


def _once(seen: Seen, data: Data) -> Seen:
    """Each combination once, where pictures are drawn by a law; stored ones are different pictures already.

    A law draws with replacement, so what is tested would be known by heart. Values between grid points count as the
    nearest, as in `classes`: two pictures of one grid tuple may differ a little, but they have all answers in common.
    """
    if isinstance(data, ArrayData):
        return seen
    first = np.sort(np.unique(seen.classes, axis=0, return_index=True)[1])
    return replace(seen, codes=seen.codes[torch.from_numpy(first)], classes=seen.classes[first])


def _chance(counts: np.ndarray) -> tuple[float, str]:
    """(share, what it is) of the better of two guessers, given how often each value occurs."""
    even, most = 1 / len(counts), counts.max() / counts.sum()
    if most > even + LUCK * math.sqrt(even * (1 - even) / counts.sum()):
        return float(most), "most frequent value"
    return even, "1 / values"


def _accuracies(
    blocks, classes: Tensor, sizes, held: int, kind: str, seeds: int, seed: int, steps: int, even: bool = False
) -> np.ndarray:
    """Accuracies (S, B, K) on held-out rows, of features (N, d) per block and classes (N, K); `even` as `_order`."""
    rng, threads = torch.Generator().manual_seed(seed), torch.get_num_threads()
    wide = max(block.shape[1] for block in blocks)
    x = torch.stack([F.pad(block, (0, wide - block.shape[1])) for block in blocks])  # (B, N, D)
    order = torch.stack([_order(classes, sizes, even, rng) for _ in range(seeds)])  # (S, N)
    test, train = order[:, :held], order[:, held:]
    x = torch.stack([_scaled(x, rows) for rows in train])  # (S, B, N, D)
    fans = torch.tensor([float(block.shape[1]) for block in blocks])
    try:
        torch.set_num_threads(1)  # two are slower for matrices this small
        with torch.enable_grad():
            weights = _learn(x, classes, train, sizes, fans, kind, steps, rng)
        with torch.no_grad():
            found = [_right(weights, x[s], classes, rows, s, sizes) for s, rows in enumerate(test)]
    finally:
        torch.set_num_threads(threads)
    return torch.stack(found).double().numpy()


def _order(classes: Tensor, sizes, even: bool, rng: torch.Generator) -> Tensor:
    """The rows of classes (N, K) in an order of which the first are held out: by lot, or `even` for each tuple once.

    Of a small grid nothing is left but what was not learned from, so the value most often learned beside another one is
    the one tested least, and clean codes would read below chance. So tuples are parted by the sum of their numbers,
    shuffled, modulo 4: of those with any two given values about a quarter is held out. This takes a third attribute,
    with four values at least.
    """
    order, parts = torch.randperm(len(classes), generator=rng), round(1 / TEST)
    if even and len(sizes) > 2 and min(sizes) >= parts:
        sums = sum(torch.randperm(size, generator=rng)[column] for size, column in zip(sizes, classes.T))
        order = order[(sums[order] % parts).argsort(stable=True)]
    return order


def _scaled(x: Tensor, train: Tensor) -> Tensor:
    """Features (B, N, D) with mean 0 and spread 1 over the rows `train`; features that do not move are 0."""
    part = x[:, train].double()
    middle, spread = part.mean(1, keepdim=True), part.std(1, keepdim=True, correction=0)
    moving = spread > 1e-9 * middle.abs().clamp(min=1)
    return torch.where(moving, (x - middle) / torch.where(moving, spread, 1), 0).float()


def _learn(x: Tensor, classes: Tensor, train: Tensor, sizes, fans: Tensor, kind: str, steps: int, rng) -> list[Tensor]:
    """The weights of S x B x K classifiers, each tensor (S, B, K, fan in, fan out) or its biases (S, B, K, 1, out)."""
    (s, b, _, d), k = x.shape[:3] + x.shape[3:], len(sizes)
    hidden = torch.full((b,), float(WIDTH))
    layers = [(d, WIDTH, fans), (WIDTH, max(sizes), hidden)] if kind == "mlp" else [(d, max(sizes), fans)]
    weights = []
    for fan_in, fan_out, fan in layers:
        reach = fan.rsqrt().reshape(1, b, 1, 1, 1)  # padding does not count
        for rows in (fan_in, 1):
            draw = torch.rand(s, b, k, rows, fan_out, generator=rng) * 2 - 1
            weights.append((draw * reach).requires_grad_())
    opt, mask, size = adam(weights, LR), _mask(sizes), min(BATCH, train.shape[1])
    seed_of = torch.arange(s)[:, None]
    for step in range(steps):
        opt.param_groups[0]["lr"] = LR * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        rows = train.gather(1, torch.randint(train.shape[1], (s, size), generator=rng))  # (S, n)
        part = x[seed_of, :, rows].transpose(1, 2)[:, :, None]  # (S, B, 1, n, D)
        true = classes[rows].transpose(1, 2)[:, None].expand(s, b, k, size)  # (S, B, K, n)
        logits = _logits(weights, part) + mask
        loss = F.cross_entropy(logits.flatten(0, 3), true.flatten()) * (s * b * k)  # each as if it were alone
        opt.zero_grad()
        loss.backward()
        opt.step()
    return weights


def _logits(weights: list[Tensor], x: Tensor) -> Tensor:
    """Logits (..., K, n, C) of features (..., 1, n, D)."""
    for i in range(0, len(weights), 2):
        x = (x.relu() if i else x) @ weights[i] + weights[i + 1]
    return x


def _mask(sizes) -> Tensor:
    """(K, 1, C): 0 for the values that an attribute has, -inf where it is padded to the one with most."""
    values = torch.arange(max(sizes))
    return torch.stack([torch.where(values < size, 0.0, -math.inf)[None] for size in sizes])


def _right(weights: list[Tensor], x: Tensor, classes: Tensor, rows: Tensor, s: int, sizes) -> Tensor:
    """The share (B, K) read rightly of the rows, by the classifiers of seed s."""
    read = (_logits([w[s] for w in weights], x[:, None, rows]) + _mask(sizes)).argmax(-1)  # (B, K, n)
    return (read == classes[rows].T).float().mean(-1)
