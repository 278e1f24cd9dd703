"""DCI (Eastwood & Williams 2018): which code numbers does a predictor of the factors use?

One classifier per factor k reads its value from the whole code; R[j, k] >= 0 says how much it used code number j. With
P[j, k] = R[j, k] / sum_k R[j, k], Q[j, k] = R[j, k] / sum_j R[j, k] and entropies H in base K and d,

    disentanglement  sum_j rho_j (1 - H_K(P[j, .]))     each number is used for one factor only
    completeness     sum_k rho_k (1 - H_d(Q[., k]))     each factor is read from one number only
    informativeness  the classifiers' accuracy          everything about the factors can be read

where rho is a row's or column's share of all importance. Predictor and importances are left open by the definition, and
the scores depend on both: the paper's lasso and random forests, and boosted trees as here, do not belong in one table.
Completeness depends on d as well; compare codes of one length.

The predictor here is disentanglement_lib's: scikit-learn's GradientBoostingClassifier as it comes, which is 100 rounds
of one tree of depth 3 per class with a step of 0.1, and its impurity importances. For dSprites' 3+6+40+32+32 values
that makes 11,300 trees and takes minutes to tens of minutes. The fast engine is the same algorithm, written so that all
classes' trees of a round grow at the same time on codes cut into at most 255 bins of equally many rows: a histogram of
the residuals is then one sparse matrix product. Where a code number has no more than 255 different values, and on up to
1,000 training rows, nothing is cut and both engines find the same trees, but for equally good splits, of which both
draw one (scikit-learn differs from itself as much, from seed to seed), and for where between two rows of a node a
threshold lies (which moves a few rows of the test). Elsewhere trees cannot single out a row, which scikit-learn's do.
That matters where a classifier fits noise. Measured: clean codes score alike; on noisy ones disentanglement and
completeness came out lower, by some 0.01 for factors of 3 and 6 values (3,000 and 10,000 rows) and by 0.08 and 0.06 for
two factors of 32 (10,000 rows), and more bins did not help. So scores of different engines do not belong in one table
either. tests/benchmarks/metrics.py prints the difference for a problem of its own.
"""
import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit, softmax

from disentkit.metrics.arrays import source
from disentkit.metrics.readout import features, held_out

ROUNDS, DEPTH, STEP = 100, 3, 0.1  # scikit-learn's defaults
BINS, UNCUT = 255, 1_000  # bins of a code number; training rows up to which each value has its own
ENGINES = ("fast", "trees")


def dci(codes, factors, *, engine: str = "fast", seed: int = 0, names=None, categorical=()) -> dict:
    """Disentanglement, completeness and informativeness in [0, 1]. Call it with arrays, or as `dci(model, data)`.

    codes, factors  (N, d) and (N, K), numpy or torch; or a model that can encode and data with factors, of which 10,000
                    pictures are encoded. Two thirds of the rows, drawn by the seed, train the classifiers, the others
                    test them. Of a model, inferred blocks of size 1 are scored, and inferred one-hot blocks as one
                    column (the number of their largest entry); the others are named in `left_out`. The factors of a
                    real-valued law are counted at their nearest grid values.
    engine          "fast", or "trees" for scikit-learn's own GradientBoostingClassifier, the reference
    seed            draws the pictures, the rows for the test, and the winner between equally good splits
    names           the K factors' names, for arrays
    categorical     the positions of the columns that hold category numbers, for arrays: the trees see one 0/1 feature
                    per category, and their importances are added up

    Returns a dict ready for JSON: `disentanglement`, `completeness`, `informativeness` (mean accuracy over the factors
    on the rows held out), `informativeness_train`, `importances` (R, d x K, each factor's adding up to 1), `per_code`
    {column: 1 - H_K}, `per_factor` {factor: 1 - H_d}, `accuracy` {factor: on the rows held out}, `dims`, `columns`,
    `factors`, `left_out`, `note` (None, or what to know), `settings`.

    Decided here: a number that no classifier uses has 0, with weight 0; when none is used all is 0. With one column
    completeness is 1 for every factor that uses it. As in the reference, 1e-11 is added to R within the entropies.
    Factors with one value are left out and named in the settings.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, data without factors, K < 2, and
    too few rows to train on.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    src = source(codes, factors, names, seed, onehot=True, categorical=categorical)
    d, K = len(src.columns), len(src.factors)
    if K < 2:
        raise ValueError(f"this metric needs at least two factors that vary, got one ({src.factors[0]})")
    train, test = held_out(src)
    x, owner = features(src)
    R, right = np.zeros((d, K)), np.zeros((K, 2))
    grow = boosted if engine == "fast" else _reference
    for k, v in enumerate(src.classes.T):
        used, *right[k] = grow(x[train], v[train], x[test], v[test], src.rng)
        np.add.at(R[:, k], owner, used)
    per_code, per_factor = concentration(R), concentration(R.T)  # (d,), (K,)
    total = max(R.sum(), 1e-300)
    how = f"codes in at most {most_bins(len(train))} bins" if engine == "fast" else "sklearn GradientBoostingClassifier"
    return {
        "disentanglement": float(per_code @ R.sum(axis=1) / total),
        "completeness": float(per_factor @ R.sum(axis=0) / total),
        "informativeness": float(right[:, 1].mean()), "informativeness_train": float(right[:, 0].mean()),
        "importances": R.tolist(), "per_code": dict(zip(src.columns, per_code.tolist())),
        "per_factor": dict(zip(src.factors, per_factor.tolist())),
        "accuracy": dict(zip(src.factors, right[:, 1].tolist())), "dims": d, "columns": src.columns,
        "factors": src.factors, "left_out": src.left_out,
        "note": None if R.any() else "no classifier could use any code number, so no importance is there to compare",
        "settings": {"engine": engine,
                     "classifier": f"{ROUNDS} rounds of trees of depth {DEPTH}, step {STEP}, {how}",
                     "train": len(train), "test": len(test), "seed": int(seed), "protocol": src.protocol,
                     "points": len(src.codes), "constant_factors": src.constant},
    }


def concentration(R: np.ndarray) -> np.ndarray:
    """1 - H of each row (n,) of importances (n, m), in base m: 1 for a row with one entry, 0 for an even or empty one.

    A row of one column has nothing to spread over: 1, or 0 where it is empty.
    """
    if R.shape[1] == 1:
        return (R[:, 0] > 0).astype(float)
    p = R + 1e-11
    p /= p.sum(axis=1, keepdims=True)
    return 1 + (p * np.log(p)).sum(axis=1) / np.log(R.shape[1])


def _reference(x, v, x_test, v_test, rng) -> tuple[np.ndarray, float, float]:
    """As `boosted`, by scikit-learn."""
    from sklearn.ensemble import GradientBoostingClassifier  # here, since importing it takes a second

    trees = GradientBoostingClassifier(random_state=int(rng.integers(2**31))).fit(x, v)
    return np.abs(trees.feature_importances_), float(trees.score(x, v)), float(trees.score(x_test, v_test))


def boosted(x, v, x_test, v_test, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Boosted trees: (importances (m,), adding up to 1 or all 0; accuracy in training; accuracy on the test rows).

    x, v  features (n, m) and classes (n,) that train; likewise for the test. A class that did not train is never
    answered. Each round fits, for every class at the same time, a regression tree to the residual y - p of the softmax
    (of the sigmoid where there are two classes), and a leaf adds STEP times one Newton step.
    """
    values, y = np.unique(v, return_inverse=True)
    n, m = x.shape
    bins, size = cut(x, np.vstack([x, x_test]))  # (n + n_test, m) whole numbers below size
    C = 1 if len(values) == 2 else len(values)  # trees per round
    target = (y[:, None] == np.arange(len(values))[-C:]).astype(float)  # (n, C)
    prior = target.mean(axis=0)
    logits = np.tile(np.log(prior / (1 - prior) if C == 1 else prior), (len(bins), 1))  # (n + n_test, C)
    # Row (feature, bin) of `cells` marks the training rows in that bin: cells @ residuals is every histogram at once.
    place = (bins[:n] + size * np.arange(m)).ravel()
    cells = csr_matrix((np.ones(n * m), (place, np.repeat(np.arange(n), m))), shape=(m * size, n))
    rows, trees, used = np.arange(len(bins))[:, None], np.arange(C), np.zeros(m)
    counts = np.repeat(cells @ np.ones((n, 1)), C, axis=1)  # (m size, C)
    for _ in range(ROUNDS):
        p = expit(logits[:n]) if C == 1 else softmax(logits[:n], axis=1)
        residual = target - p  # (n, C)
        leaf = np.zeros((len(bins), C), dtype=np.intp)  # where each row stands in each tree
        nodes = [(cells @ residual, counts)]
        for level in range(DEPTH):
            splits = [_best_split(*(h.reshape(m, size, C) for h in node), rng) for node in nodes]
            feature, last, gain = (np.stack(part) for part in zip(*splits))  # (nodes, C) each
            np.add.at(used, feature, gain)
            right = bins[rows, feature[leaf, trees]] > last[leaf, trees]  # (n + n_test, C)
            if level < DEPTH - 1:
                nodes = [half for i, node in enumerate(nodes)
                         for half in _halves(cells, residual, node, (leaf[:n] == i) & ~right[:n])]
            leaf = 2 * leaf + right
        slot, slots = (leaf + 2**DEPTH * trees)[:n].ravel(), 2**DEPTH * C
        slope = np.bincount(slot, residual.ravel(), slots)
        curve = np.bincount(slot, (p * (1 - p)).ravel(), slots)
        newton = np.divide(slope, curve, out=np.zeros(slots), where=curve > 1e-150)
        if C > 1:
            newton *= (C - 1) / C  # Friedman's factor for C logits of which one is redundant
        logits += STEP * newton[leaf + 2**DEPTH * trees]
    answer = values[(logits[:, 0] > 0).astype(int) if C == 1 else logits.argmax(axis=1)]
    return used / max(used.sum(), 1e-300), float((answer[:n] == v).mean()), float((answer[n:] == v_test).mean())


def most_bins(rows: int) -> int:
    """Bins of a code number at most, for so many training rows."""
    return rows if rows <= UNCUT else BINS


def cut(train: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, int]:
    """(bin numbers (N, m) of features x (N, m), how many bins at most), with edges from the training rows (n, m).

    One bin per value up to `most_bins` values, each edge half way to the next; beyond, equally many rows per bin.
    """
    edges, most = [], most_bins(len(train))
    for column in train.T:
        values = np.unique(column)
        if len(values) > most:
            values = np.unique(np.quantile(column, (np.arange(most) + 0.5) / most, method="nearest"))
        edges.append((values[1:] + values[:-1]) / 2)
    return np.stack([np.searchsorted(e, c) for e, c in zip(edges, x.T)], axis=1), max(map(len, edges)) + 1


def _best_split(sums: np.ndarray, counts: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The split of one node that lowers the squared error most, for every tree: (feature, last bin to the left, gain).

    sums, counts  residuals and rows in each bin, (m, size, C); the three results are (C,). Equally good features draw
    lots, or the first of two equal code numbers would get all importance. Without a split every row goes to the left.
    """
    left, n_left = sums.cumsum(axis=1), counts.cumsum(axis=1)
    all_, n = left[:1, -1:], n_left[:1, -1:]  # (1, 1, C), the same for every feature
    product = n_left * (n - n_left)
    gain = np.divide((left * n - all_ * n_left) ** 2, product, out=np.zeros_like(left), where=product > 0)
    last = gain.argmax(axis=1)  # (m, C)
    top = np.take_along_axis(gain, last[:, None], axis=1)[:, 0]  # (m, C)
    lots = np.where(top >= top.max(axis=0) * (1 - 1e-9), rng.random(top.shape), -1.0)
    feature, tree = lots.argmax(axis=0), np.arange(top.shape[1])
    gain = top[feature, tree] / np.maximum(n[0, 0], 1)
    return feature, np.where(gain > 0, last[feature, tree], sums.shape[1]), gain


def _halves(cells, residual: np.ndarray, node, left: np.ndarray):
    """Histograms of a node's two children: those of the left one's rows (n, C) are made, the right one has the rest."""
    sums, counts = cells @ (residual * left), cells @ left.astype(float)
    return (sums, counts), (node[0] - sums, node[1] - counts)
