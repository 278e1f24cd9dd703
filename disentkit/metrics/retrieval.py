"""Retrieval: do pictures whose blocks are near share a factor's value? Mean average precision, block by block.

Each picture in turn is the query; the others are ranked by L2 distance in one block only; relevant are those with the
query's value of the factor. With r relevant ones among the N others, at places i_1 < ... < i_r,

    AP = 1/r sum_j j / i_j          mAP = the mean of AP over the queries
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from disentkit.metrics.block_probes import squared_distances
from disentkit.metrics.subsets import Blocks, features, look, rows_of


def retrieval(model, data, blocks: Blocks = None, n: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean average precision of each factor (column) by the distance in each block (row), in 0 ... 1.

    blocks  names, or {row: names} for blocks taken together; by default every block that an encoder reads
    n       pictures; of stored ones different ones are drawn, so at most as many as there are

    Below the blocks stand "all" (the blocks of the whole code side by side), "pixels" (distance between the pictures
    themselves) and "random", what a random order gives on average, see `expected_precision`. A map block is its mean
    over positions. Equally distant pictures stay in the order in which they were drawn. A query whose value no other
    picture has is left out, and a factor of which that holds everywhere is NaN. `frame.attrs` as in `block_probes`.

    Raises ValueError for unknown blocks, models that cannot encode and data without factors.
    """
    seen = look(model, data, n, seed, pixels=True)
    rows, left_out = rows_of(model.codes, blocks)
    rows = rows | {"all": [b.name for b in model.codes if b.inferred]}
    table = {row: mean_precision(features(model.codes, seen.codes, names), seen.classes) for row, names in rows.items()}
    table["pixels"] = mean_precision(seen.pixels, seen.classes)
    table["random"] = expected_precision(seen.classes)
    frame = pd.DataFrame.from_dict(table, orient="index", columns=seen.names)
    frame.attrs = {"left_out": left_out, "constant": seen.still, "settings": {"n": len(seen.codes), "seed": seed}}
    return frame


def mean_precision(x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """mAP (K,) of rows x (n, m), ranked by L2 distance, for each column of their classes (n, K)."""
    count = len(x)
    squares = squared_distances(x, x)
    np.fill_diagonal(squares, -1)  # the query itself comes first, and is dropped
    order = squares.argsort(1, kind="stable")[:, 1:]  # (n, n - 1)
    places = np.arange(1, count)
    found = []
    for column in classes.T:
        relevant = column[order] == column[:, None]  # (n, n - 1)
        precision = relevant.cumsum(1, dtype=np.int32) / places
        total = relevant.sum(1)
        found.append(_mean(np.where(relevant, precision, 0).sum(1) / np.maximum(total, 1), total))
    return np.array(found)


def expected_precision(classes: np.ndarray) -> np.ndarray:
    """mAP (K,) of a random order, exactly, from the counts of the classes (n, K).

    A query with r relevant among N others has on average AP = (H + (r-1)/(N-1) (N - H)) / N with H = 1 + 1/2 + ... +
    1/N: place i holds a relevant one with probability r/N, and then (i-1)(r-1)/(N-1) of those before it are relevant.
    For many pictures this is sum_k p_k^2, the chance that two pictures share the value.
    """
    others = len(classes) - 1
    harmonic = (1 / np.arange(1, others + 1)).sum()
    found = []
    for column in classes.T:
        _, index, counts = np.unique(column, return_inverse=True, return_counts=True)
        relevant = (counts - 1)[index]  # (n,) for each query
        precision = (harmonic + (relevant - 1) / max(others - 1, 1) * (others - harmonic)) / others
        found.append(_mean(precision, relevant))
    return np.array(found)


def _mean(precision: np.ndarray, relevant: np.ndarray) -> float:
    """The mean over the queries (n,) that have something to find."""
    return float(precision[relevant > 0].mean()) if (relevant > 0).any() else float("nan")
