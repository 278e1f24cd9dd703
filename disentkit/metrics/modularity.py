"""Modularity and explicitness (Ridgeway & Mozer 2018, section 3): a number for one factor each, and all to be read.

A code number is modular when it knows about one factor only. With its mutual informations I_jk and the factor k* it
knows most about,

    modularity    = 1/d sum_j ( 1 - sum_{k != k*} I_jk^2 / ((K - 1) I_jk*^2) ).

A code is explicit when a linear classifier can read every factor from all of it:

    explicitness  = 1/K sum_k mean_v AUC(value v of factor k against the rest).

Neither asks that a factor has one number only, as MIG does: duplicated numbers cost nothing.
"""
import numpy as np

from disentkit.metrics.arrays import source, whole
from disentkit.metrics.mig import binned, mutual_information
from disentkit.metrics.readout import features, fitted, held_out


def modularity(codes, factors, *, bins: int = 20, seed: int = 0, names=None, categorical=()) -> dict:
    """Modularity in [0, 1]. Call it with arrays, or as `modularity(model, data)`, which encodes 10,000 pictures.

    codes, factors  (N, d) and (N, K), numpy or torch; or a model that can encode and data with factors. Of a model,
                    inferred blocks of size 1 are scored, and inferred one-hot blocks as one column (the number of their
                    largest entry, never binned); the others are named in `left_out`. The factors of a real-valued law
                    are counted at their nearest grid values.
    bins            equal-width bins between the smallest and the largest value of each code number
    seed            draws the pictures; with arrays nothing is drawn
    names           the K factors' names, for arrays
    categorical     the positions of the columns that hold category numbers, for arrays

    Information is the histogram estimate of `mig`, as in disentanglement_lib. Two things to know: every number counts
    alike, so dead ones decide the score of a code with few live ones; and a dead number scores well above 0, because
    the histogram's bias, (bins - 1)(|v_k| - 1) / 2N nats, is itself unequal over the factors. Only a number without
    any information, a constant say, scores 0.

    Returns a dict ready for JSON: `modularity`, `per_code` {column: its term}, `best` {column: the factor it knows most
    about, None where it knows nothing}, `information` (I_jk in nats, d x K), `dims`, `columns`, `factors`, `left_out`,
    `settings`. Equal factors go to the lower index. Factors with one value are left out and named in the settings.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, data without factors, K < 2.
    """
    bins = whole("bins", bins, least=2)
    src = source(codes, factors, names, seed, onehot=True, categorical=categorical)
    if len(src.factors) < 2:
        raise ValueError(f"this metric needs at least two factors that vary, got one ({src.factors[0]})")
    cut = [np.unique(c, return_inverse=True)[1] if discrete else binned(c, bins)
           for c, discrete in zip(src.codes.T, src.discrete)]
    cut = np.stack(cut, axis=1)  # (N, d)
    information = np.stack([mutual_information(cut, v) for v in src.classes.T], axis=1)  # (d, K)
    per_code = modular(information)
    best = [src.factors[k] if row.any() else None for k, row in zip(information.argmax(axis=1), information)]
    return {
        "modularity": float(per_code.mean()), "per_code": dict(zip(src.columns, per_code.tolist())),
        "best": dict(zip(src.columns, best)), "information": information.tolist(), "dims": len(src.columns),
        "columns": src.columns, "factors": src.factors, "left_out": src.left_out,
        "settings": {"estimator": f"histogram, {bins} equal-width bins", "bins": bins, "seed": int(seed),
                     "protocol": src.protocol, "points": len(src.codes), "constant_factors": src.constant},
    }


def modular(information: np.ndarray) -> np.ndarray:
    """Modularity (d,) of each code number, from its information about the factors (d, K); 0 for a row of zeros."""
    squared = information**2
    top = squared.max(axis=1)
    rest = np.divide(squared.sum(axis=1) - top, top * (squared.shape[1] - 1), out=np.ones_like(top), where=top > 0)
    return 1 - rest


def explicitness(codes, factors, *, seed: int = 0, names=None, categorical=()) -> dict:
    """Explicitness in [0, 1], chance is 0.5. Call it with arrays, or as `explicitness(model, data)` (10,000 pictures).

    codes, factors  as for `modularity`. Two thirds of the rows train the classifiers, the others test them.
    seed            draws the pictures and the rows for the test
    names           the K factors' names, for arrays
    categorical     the positions of the columns that hold category numbers, for arrays: the classifier gets one 0/1
                    feature per category

    The classifier is scikit-learn's LogisticRegression with its usual L2 penalty, on codes scaled to mean 0 and spread
    1 over the training rows; one model over all values of a factor (today's only choice there; older versions trained
    one per value). The AUC is plain, as in disentanglement_lib: not stretched so that chance becomes 0.

    Returns a dict ready for JSON: `explicitness` (rows held out), `explicitness_train`, `per_factor` {factor: rows held
    out}, `dims`, `columns`, `factors`, `left_out`, `note` (None, or what to know), `settings`. A value of a factor that
    no held-out row has (or every one) has no AUC and is left out of the mean.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, data without factors, and too few
    rows to train on.
    """
    from sklearn.linear_model import LogisticRegression  # here, since importing it takes a second

    src = source(codes, factors, names, seed, onehot=True, categorical=categorical)
    train, test = held_out(src)
    x, _ = features(src)
    low, high = x[train].min(axis=0), x[train].max(axis=0)
    x = (x - x[train].mean(axis=0)) / np.where(high > low, x[train].std(axis=0), 1.0)
    found, early = np.zeros((2, len(src.factors))), 0
    for k, v in enumerate(src.classes.T):
        reader = LogisticRegression(max_iter=1000)
        early += not fitted(reader, x[train], v[train])
        for row, part in zip(found, (train, test)):
            row[k] = auc(reader.predict_proba(x[part]), v[part][:, None] == reader.classes_)
        if np.isnan(found[1, k]):
            raise ValueError(f"factor {src.factors[k]!r} cannot be told apart in the {len(test)} row(s) held out for "
                             "the test: give more rows")
    return {
        "explicitness": float(found[1].mean()), "explicitness_train": float(found[0].mean()),
        "per_factor": dict(zip(src.factors, found[1].tolist())), "dims": len(src.columns), "columns": src.columns,
        "factors": src.factors, "left_out": src.left_out,
        "note": f"{early} of {len(src.factors)} classifiers had not converged" if early else None,
        "settings": {"classifier": "sklearn LogisticRegression, C=1, standardised codes", "train": len(train),
                     "test": len(test), "seed": int(seed), "protocol": src.protocol, "points": len(src.codes),
                     "constant_factors": src.constant},
    }


def auc(scores: np.ndarray, is_it: np.ndarray) -> float:
    """Mean over columns of the area under the ROC curve: how often a row that is it outscores one that is not.

    scores, is_it  (n, C); equal scores count half. Columns where all rows are it, or none, are left out; nan where
                   that leaves nothing.
    """
    from scipy.stats import rankdata  # here, since importing it takes half a second

    yes = is_it.sum(axis=0)
    no = len(is_it) - yes
    wins = (rankdata(scores, axis=0) * is_it).sum(axis=0) - yes * (yes + 1) / 2  # (C,)
    both = (yes > 0) & (no > 0)
    return float((wins[both] / (yes * no)[both]).mean()) if both.any() else float("nan")
