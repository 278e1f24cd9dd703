"""Which factor can be read from which block: probes on blocks of any width.

Two probes, both trained on two thirds of the pictures and tested on the others:

    linear   linear discriminant analysis: the class whose mean is nearest, in the metric of the covariance within the
             classes, W^-1. One solve per block and factor, no iterations. (One-against-all least squares is as fast but
             blind to a value between two others: on one latent that follows a position it finds the two ends only.)
    nearest  the class of the nearest picture by L2 distance within the block

A high number says that the block knows the factor, not that it alone does, and not that the decoder asks this block
for it: a swap shows that (`metrics.swaps`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from disentkit.metrics.subsets import Blocks, features, look, rows_of

KINDS = ("linear", "nearest")
TEST = 1 / 3  # share of the pictures held out
RIDGE = 1e-3  # added to the within-class variance of features scaled to 1; a block as sharp as a one-hot has none


def block_probes(
    model, data, blocks: Blocks = None, kind: str = "linear", n: int = 3000, seed: int = 0
) -> pd.DataFrame:
    """Balanced accuracy on held-out pictures of reading each factor (column) from each block (row), in 0 ... 1.

    blocks  names, or {row: names} for blocks taken together; by default every block that an encoder reads
    kind    "linear" or "nearest", see above
    n       pictures; of stored ones different ones are drawn, so at most as many as there are

    Below the blocks stand "all", the blocks of the whole code side by side, and "chance", one over the number of values
    that occur. A map block is its mean over positions, a one-hot block its vector. Real and cyclic factors are classes
    on their grid, factors with a single value are left out. `frame.attrs` names what is missing: `left_out` {block:
    why}, `constant` [factor], and the `settings`.

    Raises ValueError for an unknown kind or block, models that cannot encode and data without factors.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    seen = look(model, data, n, seed)
    rows, left_out = rows_of(model.codes, blocks)
    rows = rows | {"all": [b.name for b in model.codes if b.inferred]}
    count = len(seen.codes)
    order = np.random.default_rng(seed).permutation(count)
    train, test = order[round(TEST * count) :], order[: round(TEST * count)]
    if not len(test):
        raise ValueError(f"{count} pictures are too few to hold a third of them out; give thousands")
    probe = linear if kind == "linear" else nearest
    table = {}
    for row, names in rows.items():
        x = features(model.codes, seen.codes, names)  # (N, m)
        read = probe(x[train], seen.classes[train], x[test])  # (tests, K)
        table[row] = [balanced(r, c) for r, c in zip(read.T, seen.classes[test].T)]
    table["chance"] = [1 / len(np.unique(c)) for c in seen.classes.T]
    frame = pd.DataFrame.from_dict(table, orient="index", columns=seen.names)
    frame.attrs = {"left_out": left_out, "constant": seen.still}
    frame.attrs["settings"] = {"kind": kind, "train": len(train), "test": len(test), "seed": seed}
    return frame


def linear(x: np.ndarray, classes: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Classes (M, K) that discriminant analysis, all classes equally likely, reads from features `new` (M, m).

    It learns from features x (N, m) and classes (N, K). Features that do not move are of no use.
    """
    middle, spread = x.mean(0), x.std(0)
    moving = spread > 1e-9 * np.maximum(1, np.abs(middle))
    x, new = (((part - middle) / np.where(moving, spread, 1))[:, moving] for part in (x, new))
    if not moving.any():
        return np.repeat(classes[:1], len(new), axis=0)
    total, found = x.T @ x / len(x), []
    for column in classes.T:
        values, index, counts = np.unique(column, return_inverse=True, return_counts=True)
        means = np.zeros((len(values), x.shape[1]))
        np.add.at(means, index, x)
        means /= counts[:, None]  # (values, m)
        within = total - (means * (counts / len(x))[:, None]).T @ means  # (m, m)
        weights = np.linalg.solve(within + RIDGE * np.eye(len(within)), means.T)  # (m, values)
        found.append(values[(new @ weights - 0.5 * (means.T * weights).sum(0)).argmax(1)])
    return np.stack(found, axis=1)


def nearest(x: np.ndarray, classes: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Classes (M, K) of the row of x (N, m) nearest to each row of `new` (M, m); of equally near ones the first."""
    return classes[squared_distances(new, x).argmin(1)]


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared L2 distances (M, N) of rows (M, m) to rows (N, m), rounded so that equal rows are equally far."""
    middle = b.mean(0)
    a, b = a - middle, b - middle
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.round(squares / max(squares.mean(), 1e-300), 10)  # in units of their mean


def balanced(read: np.ndarray, true: np.ndarray) -> float:
    """The share read rightly (M,), averaged over the true classes (M,) that occur."""
    _, index, counts = np.unique(true, return_inverse=True, return_counts=True)
    return float((np.bincount(index, read == true) / counts).mean())
