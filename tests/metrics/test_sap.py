"""SAP on codes whose gap is known: both modes, against numpy's correlations and scikit-learn's other solver."""
import json

import numpy as np
import pytest
import torch
from metrics.oracles import NAMES, Reader, Signals, turned

from disentkit.codes import Block, CodeSpace
from disentkit.metrics import arrays, sap
from disentkit.metrics.sap import correlations

SIZES = (3, 4, 5, 5)


@pytest.fixture(scope="module")
def idx():
    """Every combination of four factors four times: 1,200 rows, in which no factor tells about another."""
    return np.stack(np.unravel_index(np.arange(1200) % 300, SIZES), axis=1)


def test_factors_as_codes(idx):
    score = sap(idx, idx, mode="continuous", names=["a", "b", "c", "d"])
    assert score["sap"] == pytest.approx(1) and np.array(score["scores"]) == pytest.approx(np.eye(4), abs=1e-12)
    assert score["best"] == {"a": "z0", "b": "z1", "c": "z2", "d": "z3"}
    # A category number is known exactly, from the others one guesses: 1 - 1/n, the most that accuracies can give.
    known = sap(idx, idx, categorical=range(4))
    assert list(known["gaps"].values()) == pytest.approx([1 - 1 / n for n in SIZES], abs=0.06)
    # One line per value cannot single out a value between two others: what the discrete mode does to ordered numbers.
    lines = sap(idx, idx)
    assert lines["sap"] < known["sap"] - 0.1 and lines["best"]["factor 3"] == "z3"


def test_constants_duplicates_and_noise(idx):
    noise = np.random.default_rng(0).normal(size=(len(idx), 5))
    for mode in ("discrete", "continuous"):
        assert sap(np.full((len(idx), 2), 0.1), idx, mode=mode)["sap"] == 0
        assert sap(np.hstack([idx, idx[:, ::-1]]), idx, mode=mode)["sap"] == pytest.approx(0, abs=1e-12)
        assert sap(noise, idx, mode=mode)["sap"] < 0.05
    assert sap(1e-9 * noise, idx, mode="continuous")["sap"] == 0  # below the smallest variance that counts
    assert sap(idx[:, :1], idx, mode="continuous")["gaps"]["factor 0"] == pytest.approx(1)  # one column has no second


def test_rotation_costs_the_gap_of_the_rotated_factors(idx):
    score = sap(turned(idx.astype(float), 2, 3), idx, mode="continuous")
    assert list(score["gaps"].values()) == pytest.approx([1, 1, 0, 0], abs=1e-9)
    assert np.array(score["scores"])[2:, 2:] == pytest.approx(np.full((2, 2), 0.5))
    straight, rotated = (sap(z, idx)["gaps"]["factor 3"] for z in (idx, turned(idx.astype(float), 2, 3)))
    assert rotated < straight - 0.1


def test_correlations_are_numpys(idx):
    z = idx @ np.random.default_rng(0).normal(size=(4, 3)) + np.random.default_rng(1).normal(size=(len(idx), 3))
    wanted = [[np.corrcoef(z[:, j], idx[:, k])[0, 1] ** 2 for k in range(4)] for j in range(3)]
    assert correlations(z, idx.astype(float)) == pytest.approx(np.array(wanted))


def test_accuracies_are_those_of_the_dual_problem(idx):
    """The reference's setting, solved by the other algorithm of the library, on rows held out by the same seed."""
    from sklearn.svm import LinearSVC

    idx = idx[::2, :2]
    z = idx + 0.4 * np.random.default_rng(0).normal(size=idx.shape)
    order = np.random.default_rng(0).permutation(len(idx))
    test, train = order[:200], order[200:]
    found = sap(z, idx)
    for j in range(2):
        for k in range(2):
            machine = LinearSVC(C=0.01, class_weight="balanced", dual=True, max_iter=100_000, random_state=0)
            machine.fit(z[train, j:j + 1], idx[train, k])
            assert found["scores"][j][k] == pytest.approx(machine.score(z[test, j:j + 1], idx[test, k]), abs=0.02)
    assert found["note"] is None and found["settings"]["train"] == 400


def test_model_and_data(monkeypatch):
    monkeypatch.setattr(arrays, "POINTS", 600)
    codes = CodeSpace([Block("kind", "onehot", (3,)), Block("x"), Block("rest", shape=(2,))])

    def rule(x):
        kind = torch.nn.functional.one_hot((x[:, 0] * 2).round().long(), 3)
        return torch.cat([0.6 * kind + 0.01, x[:, [1]], torch.zeros(len(x), 2)], dim=1)

    data = Signals((3, 2), ["kind", "x"])
    score = sap(Reader(rule, codes, pixels=2), data)
    assert score["columns"] == ["kind", "x"] and score["left_out"] == {"rest": "2 numbers wide"}
    assert list(score["gaps"].values()) == pytest.approx([2 / 3, 1 / 2], abs=0.1)
    line = sap(Reader(rule, codes, pixels=2), data, mode="continuous")  # a category has no correlation
    assert line["columns"] == ["x"] and line["left_out"]["kind"] == "onehot"
    assert line["settings"]["protocol"] == "model" and line["settings"]["points"] == 600


def test_settings_seed_json_and_global_generators(idx):
    z = idx + np.random.default_rng(0).normal(size=idx.shape)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, again, other = (sap(torch.tensor(z[:300]), torch.tensor(idx[:300]), seed=s) for s in (0, 0, 1))
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert one == again == json.loads(json.dumps(one)) and one["sap"] != other["sap"]
    assert one["settings"] == {"mode": "discrete", "predictor": "sklearn LinearSVC, C=0.01, class_weight=balanced",
                               "train": 200, "test": 100, "seed": 0, "protocol": "arrays", "points": 300,
                               "constant_factors": []}
    with_colour = sap(idx, np.column_stack([np.ones(len(idx)), idx]), mode="continuous", names=["colour", *"abcd"])
    assert with_colour["sap"] == pytest.approx(1) and with_colour["settings"]["constant_factors"] == ["colour"]
    assert with_colour["settings"]["predictor"] == "squared correlation"


@pytest.mark.parametrize(("options", "message"), [
    ({"mode": "lasso"}, "mode must be one of discrete, continuous, got 'lasso'"),
    ({"mode": "continuous", "categorical": [0]}, "category numbers have no correlation: score them with "
                                                 "mode='discrete'"),
    ({"categorical": [2]}, "categorical names column 2, and the codes have 2 columns, counted from 0"),
    ({"factors": np.zeros((60, 2))}, "no factor varies: factor 0, factor 1 has a single value, so there is nothing to "
                                     "measure"),
    ({"codes": np.full((60, 2), np.nan)}, "codes holds NaN or infinite numbers in column(s) 0, 1"),
    ({"codes": np.zeros((1, 2)), "factors": np.zeros((1, 2))},
     "codes has 1 row(s); a metric needs at least 2, better thousands"),
    ({"codes": np.zeros((2, 1)), "factors": np.array([[0], [1]])},
     "factor 'factor 0' has a single value in the 1 row(s) drawn for training: give more rows"),
    ({"names": NAMES}, "names has 5 entries for 2 factor columns"),
])
def test_bad_input(options, message):
    table = np.stack(np.unravel_index(np.arange(60) % 12, (3, 4)), axis=1)
    with pytest.raises(ValueError) as error:
        sap(**{"codes": table, "factors": table, **options})
    assert str(error.value) == message
