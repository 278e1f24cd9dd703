"""What the trained metrics share: rows held out, categories as features, fits that say nothing."""
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from disentkit.metrics.arrays import ArraySource
from disentkit.metrics.readout import features, fitted, held_out


def table(rows):
    return np.stack(np.unravel_index(np.arange(rows) % 12, (3, 4)), axis=1)


@pytest.mark.parametrize(("rows", "train", "test"), [(600, 400, 200), (100, 67, 33), (4, 3, 1)])
def test_a_third_of_the_rows_is_held_out(rows, train, test):
    found = held_out(ArraySource(table(rows), np.arange(rows)[:, None] % 2))
    assert [len(part) for part in found] == [train, test]
    assert sorted(np.concatenate(found)) == list(range(rows))


def test_the_seed_draws_them():
    one, again, other = (held_out(ArraySource(table(60), table(60), seed=s))[1].tolist() for s in (0, 0, 1))
    assert one == again != other != sorted(other)


def test_a_factor_that_is_held_out_whole():
    rare = np.zeros((9, 2))
    rare[:, 0], rare[4, 1] = np.arange(9) % 2, 1
    seen = set()
    for seed in range(12):
        try:
            assert 4 in held_out(ArraySource(rare, rare, names=["a", "b"], seed=seed))[0]
            seen.add("trained")
        except ValueError as error:
            assert str(error) == ("factor 'b' has a single value in the 6 row(s) drawn for training: give more rows")
            seen.add("held out")
    assert seen == {"trained", "held out"}


def test_numbers_are_features_and_categories_one_each():
    codes = np.array([[0.5, 7], [1.5, -2], [2.5, 7], [3.5, 0]])
    x, owner = features(ArraySource(codes, np.array([[0], [1], [0], [1]]), categorical=[1]))
    assert owner.tolist() == [0, 1, 1, 1]
    assert x.tolist() == [[0.5, 0, 0, 1], [1.5, 1, 0, 0], [2.5, 0, 0, 1], [3.5, 0, 1, 0]]


def test_fits_report_instead_of_warning():
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(200, 3))
    y = (x @ [1, 2, 3] > 0).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fitted(LogisticRegression(max_iter=1), x, y)
        assert fitted(LogisticRegression(max_iter=1000), x, y)
    with pytest.warns(ConvergenceWarning):  # it would have warned
        LogisticRegression(max_iter=1).fit(x, y)


def test_other_warnings_are_not_swallowed():
    def fit(x, y):
        warnings.warn("something else", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="something else"):
        fitted(SimpleNamespace(fit=fit, n_iter_=[1], max_iter=10), None, None)
