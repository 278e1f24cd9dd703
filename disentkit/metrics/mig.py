"""The mutual information gap: is each factor known by one code number, and by one only?

    MIG = 1/K sum_k ( I(z_(1); v_k) - I(z_(2); v_k) ) / H(v_k)

where z_(1) and z_(2) are the two code numbers that know most about factor k. All in nats.
"""
import numpy as np

from disentkit.metrics.arrays import source, whole


def mig(codes, factors, *, bins: int = 20, seed: int = 0, names=None, categorical=()) -> dict:
    """Mutual information gap in [0, 1]. Call it with arrays, or as `mig(model, data)`, which encodes 10,000 pictures.

    codes, factors  (N, d) and (N, K), numpy or torch; or a model that can encode and data with factors. Of a model,
                    inferred blocks of size 1 are scored, and inferred one-hot blocks as one column (the number of their
                    largest entry, never binned); the others are named in `left_out`. The factors of a real-valued law
                    are counted at their nearest grid values.
    bins            equal-width bins between the smallest and the largest value of each code number
    seed            draws the pictures; with arrays nothing is drawn
    names           the K factors' names, for arrays
    categorical     the positions of the columns that hold category numbers, for arrays

    Two estimators are published under this name. This is the histogram one (disentanglement_lib: posterior means, 20
    bins, every factor). The original (Chen et al. 2018, beta-TCVAE; the authors' code) integrates over samples of the
    posterior, divides by log |v_k| and leaves out shape. They differ a lot: never put them into one table. A histogram
    also has a bias: pure noise on N rows knows about (bins - 1)(|v_k| - 1) / 2N nats.

    Returns a dict ready for JSON: `mig`, `gaps` {factor: gap}, `best` {factor: column that knows most}, `information`
    (I(z_j; v_k), d x K), `entropy` {factor: H(v_k)}, `dims`, `columns`, `factors`, `left_out`, `settings`. With one
    column the second best is 0; equal ones go to the lower index. Factors with one value are left out and named in the
    settings.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, data without factors.
    """
    bins = whole("bins", bins, least=2)
    src = source(codes, factors, names, seed, onehot=True, categorical=categorical)
    numbered = [np.unique(c, return_inverse=True)[1] if discrete else binned(c, bins)
                for c, discrete in zip(src.codes.T, src.discrete)]  # fmt: skip
    cut = np.stack(numbered, axis=1)  # (N, d)
    information = np.stack([mutual_information(cut, v) for v in src.classes.T], axis=1)  # (d, K)
    entropy = np.array([mutual_information(v[:, None], v)[0] for v in src.classes.T])  # (K,)
    top = np.sort(np.vstack([information, np.zeros_like(entropy)]), axis=0)[::-1]  # zeros: second to a single column
    gaps = (top[0] - top[1]) / entropy  # (K,)
    return {
        "mig": float(gaps.mean()), "gaps": dict(zip(src.factors, gaps.tolist())),
        "best": {name: src.columns[j] for name, j in zip(src.factors, information.argmax(axis=0))},
        "information": information.tolist(), "entropy": dict(zip(src.factors, entropy.tolist())),
        "dims": len(src.columns), "columns": src.columns, "factors": src.factors, "left_out": src.left_out,
        "settings": {"estimator": f"histogram, {bins} equal-width bins", "bins": bins, "seed": int(seed),
                     "protocol": src.protocol, "points": len(src.codes), "constant_factors": src.constant},
    }


def binned(column: np.ndarray, bins: int) -> np.ndarray:
    """Bin numbers 0 ... bins-1 (N,) of numbers (N,), equal widths from smallest to largest; a constant is all bin 0."""
    low, high = column.min(), column.max()
    if low == high:
        return np.zeros(len(column), dtype=int)
    return np.minimum(((column - low) / (high - low) * bins).astype(int), bins - 1)


def mutual_information(cut: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """I(column j; classes) in nats, (d,), of whole numbers cut (N, d) and classes (N,), both counted from 0."""
    d, b, n = cut.shape[1], cut.max() + 1, classes.max() + 1
    cell = (np.arange(d) * b + cut) * n + classes[:, None]  # (N, d): every column has its own b x n cells
    joint = np.bincount(cell.ravel(), minlength=d * b * n).reshape(d, b, n) / len(cut)
    apart = joint.sum(axis=2, keepdims=True) * joint.sum(axis=1, keepdims=True)  # (d, b, n), the two independent
    ratio = np.divide(joint, apart, out=np.ones_like(joint), where=joint > 0)
    return np.maximum((joint * np.log(ratio)).sum(axis=(1, 2)), 0.0)  # rounding may leave -1e-17
