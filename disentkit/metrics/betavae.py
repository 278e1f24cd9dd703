"""The beta-VAE score (Higgins et al. 2017): can a line tell which factor two pictures share?

One vote: pick a factor k, take L pairs of pictures that share its value (a new value for each pair, everything else
free), and describe the vote by the mean absolute difference of their codes,

    f = 1/L sum_l |z(x_1,l) - z(x_2,l)|  in R^d ,        label k.

A linear classifier learns k from f; the score is its accuracy on fresh votes. Kim & Mnih 2018 show why this is not
enough: it reaches 1 although only K-1 factors are disentangled (the last is "none of the others"), and a linear map may
read a factor from a mixture of code numbers. Near-ceiling values are normal.
"""
import numpy as np

from disentkit.metrics.arrays import shares, source, whole

CLASSIFIERS = ("logistic", "adagrad")
BATCH, RATE = 10, 0.01  # of Adagrad


def betavae_score(codes, factors, *, L: int = 64, votes: int = 800, seed: int = 0, names=None,
                  classifier: str = "logistic", iterations: int = 10_000) -> dict:
    """Accuracy in [0, 1] of a linear classifier; chance is 1/K. Call it with arrays, or with (model, data).

    codes, factors  (N, d) and (N, K), numpy or torch, two rows or more per factor value. Or a model that can encode
                    and data with factors: every vote encodes 2 L new pictures, 4 * votes * L in all. Only inferred
                    blocks of size 1 are scored; the others are named in `left_out`.
    L               pairs per vote
    votes           votes that train the classifier, 2 or more; as many fresh ones evaluate it
    names           the K factors' names, for arrays
    classifier      "logistic", or "adagrad": a linear classifier trained by single steps, see `Adagrad`
    iterations      steps of Adagrad; the logistic regression runs until it has converged

    The classifier is scikit-learn's LogisticRegression with its usual L2 penalty on unscaled features and L = 64, as in
    disentanglement_lib, but with 800 votes where that library takes 10,000 (and 5,000 fresh ones). It is not the
    paper's own linear classifier, and scores of different classifiers do not belong in one table. Code numbers of very
    different size are penalised unequally.

    L=200 with classifier="adagrad" is meant to come nearer to Kim & Mnih's appendix B, whose settings are recalled here
    and were not read again. The score then depends on `iterations`: see `metrics.sensitivity`.

    Returns a dict ready for JSON: `score` (fresh votes), `train` (the votes that trained the classifier), `dims`,
    `columns`, `factors`, `left_out`, `settings`. Factors with one value are left out and named in the settings.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, data without factors, K < 2, an
    unknown classifier.
    """
    from sklearn.linear_model import LogisticRegression  # here, since importing it takes a second

    L, votes = whole("L", L), whole("votes", votes, least=2)  # one vote shows the classifier one factor only
    iterations = whole("iterations", iterations)
    if classifier not in CLASSIFIERS:
        raise ValueError(f"classifier must be one of {', '.join(CLASSIFIERS)}, got {classifier!r}")
    src = source(codes, factors, names, seed)
    if len(src.factors) < 2:
        raise ValueError(f"this metric needs at least two factors that vary, got one ({src.factors[0]})")
    (train, train_label), (test, test_label) = (_features(src, L, votes) for _ in range(2))
    if classifier == "logistic":
        line, how = LogisticRegression(max_iter=1000).fit(train, train_label), "sklearn LogisticRegression, C=1"
    else:
        line = Adagrad(iterations, src.rng).fit(train, train_label)
        how = f"linear, {iterations} steps of Adagrad, rate {RATE}, batch {BATCH}"
    return {
        "score": float(line.score(test, test_label)), "train": float(line.score(train, train_label)),
        "dims": len(src.columns), "columns": src.columns, "factors": src.factors, "left_out": src.left_out,
        "settings": {"L": L, "votes": votes, "eval_votes": votes, "classifier": how, "seed": int(seed),
                     "protocol": src.protocol, "points": len(src.codes), "smallest_group": src.smallest_group,
                     "constant_factors": src.constant},
    }


def _features(src, L: int, votes: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean absolute differences (votes, d), the factor shared in each vote (votes,))."""
    counts = shares(src.rng, votes, len(src.factors))
    rows = []
    for k, count in enumerate(counts.tolist()):
        if count:
            pair = src.pairs(k, count * L)  # (count L, 2, d)
            rows.append(np.abs(pair[:, 0] - pair[:, 1]).reshape(count, L, -1).mean(axis=1))  # (count, d)
    return np.concatenate(rows), np.repeat(np.arange(len(counts)), counts)


class Adagrad:
    """A linear classifier trained by single steps: the answer is argmax_k (x @ W + b)_k.

    Each step takes the softmax cross-entropy of BATCH rows, going round all rows in an order drawn anew each time (all
    rows at once where there are fewer). W and b start at 0, and so do the sums of squared gradients, as in PyTorch.
    """

    def __init__(self, iterations: int, rng: np.random.Generator):
        self.iterations, self.rng = iterations, rng

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Adagrad":
        """x, y: features (n, d) and classes (n,), whole numbers from 0."""
        x = np.column_stack([x, np.ones(len(x))])  # (n, d + 1): the last weight is the bias
        target = np.eye(y.max() + 1)[y]  # (n, K)
        weights = np.zeros((x.shape[1], target.shape[1]))  # (d + 1, K)
        squares, batch = np.full_like(weights, 1e-20), min(BATCH, len(x))  # 1e-20: no 0 is divided by 0
        at = len(x)
        for _ in range(self.iterations):
            if at + batch > len(x):
                order, at = self.rng.permutation(len(x)), 0
            rows, at = order[at:at + batch], at + batch
            logits = x[rows] @ weights  # (batch, K)
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            slope = x[rows].T @ (p - target[rows]) / batch  # (d + 1, K)
            squares += slope**2
            weights -= RATE * slope / np.sqrt(squares)
        self.W, self.b = weights[:-1], weights[-1]
        return self

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        """The share of right answers."""
        return float(((x @ self.W + self.b).argmax(axis=1) == y).mean())
