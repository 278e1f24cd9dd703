"""IRS, the interventional robustness score (Suter et al. 2019): does a code number keep still while the others act?

Fix factor i to a value g and let all other factors do what they will. A code number z_j that stands for factor i alone
stays at E[z_j | g]; the largest distance it can be moved to is

    MPIDA_j(g) = sup over the other factors of | E[z_j | g, others] - E[z_j | g] | .

Averaged over g and divided by the largest distance with nothing fixed, it is the share that factor i leaves free:

    IRS_ji = 1 - E_g[ MPIDA_j(g) ] / ( sup over all factors of | E[z_j | all] - E[z_j] | ) .

A number's score is its best factor's, and the total weighs the numbers by their largest distance, so that dead ones
count little.

Written from the definition; neither the paper nor any code of it was read again for this file. Ours, and open to
comparison: the quantile in place of the supremum, taken above and below the line; clipping at 0.
"""
import numpy as np

from disentkit.metrics.arrays import source


def irs(codes, factors, *, quantile: float = 0.99, seed: int = 0, names=None) -> dict:
    """Robustness in [0, 1]. Call it with arrays, or as `irs(model, data)`, which encodes 10,000 pictures.

    codes, factors  (N, d) and (N, K), numpy or torch; every factor value needs two rows. Or a model that can encode and
                    data with factors, whose inferred blocks of size 1 are scored; the others are named in `left_out`.
                    The factors of a real-valued law are counted at their nearest grid values.
    quantile        this quantile of the distances stands for the supremum, above and below the line; 1 is the largest
                    distance itself, which a single odd picture decides
    seed            draws the pictures; with arrays nothing is drawn
    names           the K factors' names, for arrays

    Each row stands for E[z | all its factors]: exact where the factors say everything about a picture; elsewhere what
    else moves the code counts as not robust. Rows that share a value stand for the intervention: the same thing where
    the factors were drawn independently, not under a correlated law. A value counts as often as it comes.

    Returns a dict ready for JSON: `irs`, `per_code` {column: its best factor's}, `best` {column: that factor, None for
    a number that never moves}, `scores` (IRS_ji, d x K), `deviation` {column: largest distance with nothing fixed, the
    weight}, `dims`, `columns`, `factors`, `left_out`, `note` (None, or what to know), `settings`. A number that never
    moves has 0 and no weight. Below 0, where fixing a factor moves the mean away from the crowd, the score is 0. Equal
    factors go to the lower index. Factors with one value are left out and named in the settings.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, single rows, data without factors.
    """
    if isinstance(quantile, bool) or not (isinstance(quantile, (int, float)) and 0 < quantile <= 1):
        raise ValueError(f"quantile must be above 0 and at most 1, got {quantile!r}")
    src = source(codes, factors, names, seed)
    # Of a table a value with a single row is an error here; of a model it cannot be helped, and is reported.
    smallest = src.smallest_group or min(int(np.unique(v, return_counts=True)[1].min()) for v in src.classes.T)
    constant = (src.codes == src.codes[:1]).all(axis=0)
    free = np.where(constant, 0.0, _distance(src.codes, quantile))  # (d,)
    moving = free > 0
    moved = np.stack([_fixed(src.codes, v, quantile) for v in src.classes.T], axis=1)  # (d, K)
    scores = np.where(moving[:, None], 1 - moved / np.where(moving, free, 1.0)[:, None], 0.0).clip(0, 1)
    per_code = scores.max(axis=1)
    best = [src.factors[k] if alive else None for k, alive in zip(scores.argmax(axis=1), moving)]
    return {
        "irs": float(per_code @ free / max(free.sum(), 1e-300)), "per_code": dict(zip(src.columns, per_code.tolist())),
        "best": dict(zip(src.columns, best)), "scores": scores.tolist(),
        "deviation": dict(zip(src.columns, free.tolist())), "dims": len(src.columns), "columns": src.columns,
        "factors": src.factors, "left_out": src.left_out,
        "note": None if moving.any() else "no code number moves, so there is nothing to measure",
        "settings": {"quantile": quantile, "seed": int(seed), "protocol": src.protocol, "points": len(src.codes),
                     "smallest_group": smallest, "constant_factors": src.constant},
    }


def _fixed(codes: np.ndarray, classes: np.ndarray, quantile: float) -> np.ndarray:
    """E_g[MPIDA(g)] (d,): the distances within each value's rows, averaged as often as the value comes."""
    order = np.argsort(classes, kind="stable")
    groups = np.split(codes[order], np.flatnonzero(np.diff(classes[order])) + 1)
    return sum(len(group) * _distance(group, quantile) for group in groups) / len(codes)


def _distance(codes: np.ndarray, quantile: float) -> np.ndarray:
    """The quantile of |z - mean z| (d,) over rows (n, d)."""
    return np.quantile(np.abs(codes - codes.mean(axis=0)), quantile, axis=0)
