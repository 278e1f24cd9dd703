"""SAP, the separated attribute predictability (Kumar et al. 2018, section 3): is one code number ahead of the others?

    SAP = 1/K sum_k ( S[(1), k] - S[(2), k] )

where S[j, k] says how well code number j alone predicts factor k, and (1), (2) are the two best. Either the accuracy of
a linear support vector machine on rows held out, one against the rest for each value, or the squared correlation. The
two give very different numbers (a line cannot tell 40 positions apart, a correlation sees that they are in order), so
never put them into one table; in particular scores that mix them, factor by factor, are higher than purely discrete
ones.
"""
import numpy as np

from disentkit.metrics.arrays import source
from disentkit.metrics.readout import features, fitted, held_out

MODES = ("discrete", "continuous")


def sap(codes, factors, *, mode: str = "discrete", seed: int = 0, names=None, categorical=()) -> dict:
    """SAP in [0, 1]. Call it with arrays, or as `sap(model, data)`, which encodes 10,000 pictures.

    codes, factors  (N, d) and (N, K), numpy or torch; or a model that can encode and data with factors. Of a model,
                    inferred blocks of size 1 are scored; one-hot blocks too where the mode is discrete, as one column
                    (the number of their largest entry). The others are named in `left_out`. The factors of a
                    real-valued law are counted at their nearest grid values.
    mode            "discrete": accuracy of LinearSVC(C=0.01, class_weight="balanced") on unscaled codes, trained on two
                    thirds of the rows and tested on the others, as disentanglement_lib does (on 10,000 and 5,000);
                    "continuous": squared correlation over all rows with the number of the factor's value, 0 for a code
                    number whose variance is below 1e-12
    seed            draws the pictures and the rows for the test
    names           the K factors' names, for arrays
    categorical     the positions of the columns that hold category numbers, for arrays and the discrete mode: the
                    classifier gets one 0/1 feature per category

    Returns a dict ready for JSON: `sap`, `gaps` {factor: gap}, `best` {factor: column that predicts it best}, `scores`
    (S, d x K), `dims`, `columns`, `factors`, `left_out`, `note` (None, or what to know), `settings`. With one column
    the second best is 0; equal ones go to the lower index. Factors with one value are left out and named in the
    settings.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, data without factors, too few rows
    to train on, and categories in the continuous mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    src = source(codes, factors, names, seed, onehot=mode == "discrete", categorical=categorical)
    if mode == "discrete":
        S, early, rows = _accuracies(src)
    elif any(src.discrete):
        raise ValueError("category numbers have no correlation: score them with mode='discrete'")
    else:
        S, early, rows = correlations(src.codes, src.classes.astype(float)), 0, {}
    top = np.sort(np.vstack([S, np.zeros(S.shape[1])]), axis=0)[::-1]  # zeros: second to a single column
    gaps = top[0] - top[1]  # (K,)
    return {
        "sap": float(gaps.mean()), "gaps": dict(zip(src.factors, gaps.tolist())),
        "best": {name: src.columns[j] for name, j in zip(src.factors, S.argmax(axis=0))},
        "scores": S.tolist(), "dims": len(src.columns), "columns": src.columns, "factors": src.factors,
        "left_out": src.left_out, "note": f"{early} of {S.size} classifiers had not converged" if early else None,
        "settings": {"mode": mode, "predictor": "sklearn LinearSVC, C=0.01, class_weight=balanced" if rows else
                     "squared correlation", **rows, "seed": int(seed), "protocol": src.protocol,
                     "points": len(src.codes), "constant_factors": src.constant},
    }


def correlations(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squared correlation (d, K) of codes (N, d) with values (N, K); 0 where the codes' variance is below 1e-12."""
    codes, values = codes - codes.mean(axis=0), values - values.mean(axis=0)
    spread = (codes**2).sum(axis=0)  # (d,)
    moving = spread > 1e-12 * (len(codes) - 1)
    shared = (codes.T @ values) ** 2 / (values**2).sum(axis=0)  # (d, K)
    return np.where(moving, 1.0, 0.0)[:, None] * shared / np.where(moving, spread, 1.0)[:, None]


def _accuracies(src) -> tuple[np.ndarray, int, dict]:
    """(accuracies (d, K) on the rows held out, how many classifiers stopped early, {"train": rows, "test": rows})."""
    from sklearn.svm import LinearSVC  # here, since importing it takes a second

    train, test = held_out(src)
    x, owner = features(src)
    S, early = np.zeros((len(src.columns), len(src.factors))), 0
    for j in range(len(S)):
        one = x[:, owner == j]  # (N, 1), or (N, categories)
        for k, v in enumerate(src.classes.T):
            # The primal problem: strictly convex, so it has the minimum of the dual that older versions solved.
            machine = LinearSVC(C=0.01, class_weight="balanced", dual=False, max_iter=10_000)
            early += not fitted(machine, one[train], v[train])
            S[j, k] = machine.score(one[test], v[test])
    return S, early, {"train": len(train), "test": len(test)}
