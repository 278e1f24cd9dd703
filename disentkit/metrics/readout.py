"""What the metrics that train a classifier on codes share: rows held out, code columns as features, quiet fits."""
import warnings

import numpy as np

TEST = 1 / 3  # share of the rows held out; disentanglement_lib trains on 10,000 pictures and tests on 5,000


def held_out(src) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (train, test) of a source's table, drawn by its generator: a third of the rows for the test.

    Raises ValueError where a factor keeps a single value in the training rows, so that no classifier can be trained.
    """
    order = src.rng.permutation(len(src.codes))
    test = max(1, round(TEST * len(order)))
    train, test = order[test:], order[:test]
    still = (src.classes[train] == src.classes[train[:1]]).all(axis=0)
    if still.any():
        name = src.factors[int(still.argmax())]
        raise ValueError(f"factor {name!r} has a single value in the {len(train)} row(s) drawn for training: give more "
                         "rows")
    return train, test


def features(src) -> tuple[np.ndarray, np.ndarray]:
    """(features (N, m), the column each belongs to (m,)): a number is itself, a category one 0/1 feature per value.

    Category numbers have no order, so no line and no threshold may be put between them.
    """
    parts = [(c[:, None] == np.unique(c)).astype(float) if discrete else c[:, None]
             for c, discrete in zip(src.codes.T, src.discrete)]
    return np.hstack(parts), np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])


def fitted(classifier, x: np.ndarray, y: np.ndarray) -> bool:
    """Trains the classifier on features (n, m) and classes (n,); False where it stopped before it had converged.

    scikit-learn says so in a warning, once for each of hundreds of small classifiers; the metrics count them.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(x, y)
    return bool(np.max(classifier.n_iter_) < classifier.max_iter)
