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


def betavae_score(codes, factors, *, L: int = 64, votes: int = 800, seed: int = 0, names=None) -> dict:
    """Accuracy in [0, 1] of a linear classifier; chance is 1/K. Call it with arrays, or with (model, data).

    codes, factors  (N, d) and (N, K), numpy or torch, two rows or more per factor value. Or a model that can encode
                    and data with factors: every vote encodes 2 L new pictures, 4 * votes * L in all. Only inferred
                    blocks of size 1 are scored; the others are named in `left_out`.
    L               pairs per vote
    votes           votes that train the classifier, 2 or more; as many fresh ones evaluate it
    names           the K factors' names, for arrays

    The classifier is scikit-learn's LogisticRegression with its usual L2 penalty on unscaled features and L = 64, as in
    disentanglement_lib, but with 800 votes where that library takes 10,000 (and 5,000 fresh ones). It is not the
    paper's own linear classifier, and scores of different classifiers do not belong in one table. Code numbers of very
    different size are penalised unequally.

    Returns a dict ready for JSON: `score` (fresh votes), `train` (the votes that trained the classifier), `dims`,
    `columns`, `factors`, `left_out`, `settings`. Factors with one value are left out and named in the settings.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, data without factors, K < 2.
    """
    from sklearn.linear_model import LogisticRegression  # here, since importing it takes a second

    L, votes = whole("L", L), whole("votes", votes, least=2)  # one vote shows the classifier one factor only
    src = source(codes, factors, names, seed)
    if len(src.factors) < 2:
        raise ValueError(f"this metric needs at least two factors that vary, got one ({src.factors[0]})")
    (train, train_label), (test, test_label) = (_features(src, L, votes) for _ in range(2))
    classifier = LogisticRegression(max_iter=1000).fit(train, train_label)
    return {
        "score": float(classifier.score(test, test_label)), "train": float(classifier.score(train, train_label)),
        "dims": len(src.columns), "columns": src.columns, "factors": src.factors, "left_out": src.left_out,
        "settings": {"L": L, "votes": votes, "eval_votes": votes, "classifier": "sklearn LogisticRegression, C=1",
                     "seed": int(seed), "protocol": src.protocol, "points": len(src.codes),
                     "smallest_group": src.smallest_group, "constant_factors": src.constant},
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
