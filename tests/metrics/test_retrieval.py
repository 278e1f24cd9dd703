"""Retrieval: against average precision by hand and scikit-learn's, the exact expectation of chance, oracles."""

from itertools import permutations

import numpy as np
import pytest
import toys
from metrics.block_oracles import APART, SHORTCUT, Laid
from metrics.oracles import Reader, Signals
from sklearn.metrics import average_precision_score

from disentkit.data.base import ArrayData
from disentkit.metrics import retrieval
from disentkit.metrics.retrieval import expected_precision, mean_precision

DOTS = toys.Dots()


def by_hand(x, classes) -> list[float]:
    """mAP of each factor, query by query and place by place."""
    found = []
    for column in classes.T:
        scores = []
        for q in range(len(x)):
            others = [i for i in range(len(x)) if i != q]
            others.sort(key=lambda i: float(((x[i] - x[q]) ** 2).sum()))
            hits, total = 0, 0.0
            for place, i in enumerate(others, start=1):
                if column[i] == column[q]:
                    hits += 1
                    total += hits / place
            if hits:
                scores.append(total / hits)
        found.append(np.mean(scores))
    return found


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    classes = np.stack([rng.integers(0, 2, 40), rng.integers(0, 5, 40), np.arange(40) // 39], axis=1)
    return rng.normal(size=(40, 3)) + classes[:, :1], classes  # the last factor has a value that comes once


def test_brute_force(drawn):
    assert mean_precision(*drawn) == pytest.approx(by_hand(*drawn))


def test_scikit_learns_average_precision(drawn):
    x, classes = drawn
    distances = np.linalg.norm(x[:, None] - x, axis=2)
    for k, found in enumerate(mean_precision(x, classes)[:2]):
        others = [np.arange(40) != q for q in range(40)]
        theirs = [average_precision_score(classes[o, k] == classes[q, k], -distances[q, o])
                  for q, o in enumerate(others)]  # fmt: skip
        assert found == pytest.approx(np.mean(theirs))


@pytest.mark.parametrize("relevant, others", [(1, 1), (1, 5), (2, 5), (4, 5), (5, 5)])
def test_expectation_of_a_random_order(relevant, others):
    """Every order of the others once, seen from one query."""
    marks = [1] * relevant + [0] * (others - relevant)
    orders = np.array(list(permutations(marks)))
    wanted = (np.where(orders, orders.cumsum(1) / np.arange(1, others + 1), 0).sum(1) / relevant).mean()
    classes = np.array([[0]] * (relevant + 1) + [[1]] * (others - relevant))
    if others - relevant > 1:  # the queries of the other value have something to find as well: leave them without
        classes[relevant + 1 :, 0] = np.arange(1, others - relevant + 1)
    assert expected_precision(classes)[0] == pytest.approx(wanted)


def test_expectation_is_that_of_random_distances():
    rng = np.random.default_rng(0)
    classes = np.stack([rng.choice(3, 300, p=[0.6, 0.3, 0.1]), rng.integers(0, 10, 300)], axis=1)
    drawn = np.mean([mean_precision(rng.normal(size=(300, 2)), classes) for _ in range(20)], axis=0)
    expected = expected_precision(classes)
    assert drawn == pytest.approx(expected, abs=0.01)
    shares = [((np.unique(c, return_counts=True)[1] / 300) ** 2).sum() for c in classes.T]
    assert expected == pytest.approx(np.array(shares), abs=0.03)  # sum p_k^2 is its limit


def test_oracles():
    frame = retrieval(Laid(APART), DOTS, n=400)
    assert list(frame.index) == ["f1", "f2", "f3", "f4", "all", "pixels", "random"]
    blocks, random = frame.iloc[:4].to_numpy(), frame.loc["random"].to_numpy()
    assert np.diag(blocks) == pytest.approx(np.ones(4))
    assert np.abs(blocks - random)[~np.eye(4, dtype=bool)].max() < 0.05
    assert (frame.loc["all"] > random + 0.05).all() and (frame.loc["all"] < 0.95).all()
    assert (frame.loc["pixels", ["x", "y"]] > frame.loc["random", ["x", "y"]] + 0.1).all()
    assert frame.attrs["settings"] == {"n": 400, "seed": 0}


def test_the_shortcut_and_its_dead_blocks():
    frame = retrieval(Laid(SHORTCUT), DOTS, {"f1": "f1", "dead": ["f2", "f3"]}, n=400)
    assert frame.loc["f1"].tolist() == pytest.approx(frame.loc["all"].tolist())
    assert frame.loc["dead"].to_numpy() == pytest.approx(frame.loc["random"].to_numpy(), abs=0.02)


def test_a_value_that_comes_once():
    x = np.array([[0.0], [1.0], [2.0]])
    assert np.isnan(mean_precision(x, np.array([[0], [1], [2]]))[0])
    assert np.isnan(expected_precision(np.array([[0], [1], [2]]))[0])
    assert mean_precision(x, np.array([[0], [0], [1]]))[0] == pytest.approx((1 + 1) / 2)  # queries 0 and 1


def test_bad_input():
    with pytest.raises(ValueError, match="no block 'hair'; this code has z0, z1"):
        retrieval(Reader(lambda p: p, 2, 2), Signals((2, 3), ["a", "b"]), ["hair"])
    with pytest.raises(ValueError, match="Dots has no encoder"):
        retrieval(DOTS, DOTS)
    with pytest.raises(ValueError, match="data set 'arrays' has none"):
        retrieval(Laid(APART), ArrayData(np.zeros((5, 16, 16), np.uint8)))
