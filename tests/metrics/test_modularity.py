"""Modularity and explicitness on known codes, against scikit-learn's information and ROC areas."""
import json

import numpy as np
import pytest
import torch
from metrics.oracles import Reader, Signals, turned
from sklearn.metrics import mutual_info_score, roc_auc_score

from disentkit.codes import Block, CodeSpace
from disentkit.metrics import arrays, explicitness, modularity
from disentkit.metrics.modularity import auc, modular

SIZES = (3, 5, 5)


@pytest.fixture(scope="module")
def idx():
    """Every combination of three factors eight times: 600 rows, in which no factor tells about another."""
    return np.stack(np.unravel_index(np.arange(600) % 75, SIZES), axis=1)


# ---- modularity


def test_factors_as_codes_and_duplicates_are_one(idx):
    score = modularity(idx, idx, names=["a", "b", "c"])
    assert score["modularity"] == pytest.approx(1) and score["best"] == {"z0": "a", "z1": "b", "z2": "c"}
    assert np.array(score["information"]) == pytest.approx(np.diag(np.log(SIZES)), abs=1e-9)
    assert modularity(np.hstack([idx, -idx]), idx)["modularity"] == pytest.approx(1)
    assert modularity(idx[:, [2]], idx)["modularity"] == pytest.approx(1)  # what is missing costs nothing


def test_constants_have_none_and_rotation_halves_it(idx):
    constant = modularity(np.column_stack([idx, np.full((600, 3), 0.1)]), idx)
    assert constant["modularity"] == pytest.approx(0.5) and constant["per_code"]["z5"] == 0
    assert constant["best"]["z5"] is None
    # A number that knows as much about the one factor as about the other of three: 1 - 1/(K-1).
    rotated = modularity(turned(idx.astype(float), 1, 2), idx)
    assert list(rotated["per_code"].values()) == pytest.approx([1, 0.5, 0.5])


def test_a_dead_number_scores_well_above_zero(idx):
    """The bias the docstring warns of: information by chance is unequal."""
    noise = np.random.default_rng(0).normal(size=(600, 8))
    assert modularity(noise, idx)["modularity"] > 0.2


def test_the_formula_with_scikit_learns_information(idx):
    z = idx @ np.random.default_rng(0).normal(size=(3, 4)) + np.random.default_rng(1).normal(size=(600, 4))
    terms = []
    for column in z.T:
        cut = np.digitize(column, np.histogram(column, 20)[1][:-1])
        known = sorted(mutual_info_score(cut, v) for v in idx.T)
        terms.append(1 - (known[0] ** 2 + known[1] ** 2) / (2 * known[2] ** 2))
    score = modularity(z, idx)
    assert list(score["per_code"].values()) == pytest.approx(terms)
    assert score["modularity"] == pytest.approx(np.mean(terms))
    assert modular(np.array([[0.0, 0, 0], [2, 0, 0], [1, 1, 1]])).tolist() == [0, 1, 0]


def test_categories_are_not_binned():
    kind = np.arange(1200) % 60
    factors = np.column_stack([kind % 30, kind // 30])  # 60 kinds, under numbers in no order
    codes = np.column_stack([(7 * factors[:, 0]) % 31 - 15, factors[:, 1]])
    assert modularity(codes, factors, categorical=[0])["modularity"] == pytest.approx(1)
    assert modularity(codes, factors, categorical=[0])["information"][0][0] == pytest.approx(np.log(30))
    assert modularity(codes, factors)["information"][0][0] < np.log(30) - 0.1


# ---- explicitness


def test_what_a_line_can_read(idx):
    noise = np.random.default_rng(0).normal(size=idx.shape)
    straight = explicitness(idx, idx, names=["a", "b", "c"])
    assert straight["explicitness"] > 0.99 and straight["per_factor"]["a"] > 0.99 and straight["note"] is None
    rotated = explicitness(turned(idx.astype(float), 1, 2), idx)
    assert rotated["explicitness"] == pytest.approx(straight["explicitness"], abs=0.01)  # a line reads mixtures too
    assert explicitness(np.hstack([idx, -idx]), idx)["explicitness"] > 0.99
    assert explicitness(np.full((600, 2), 0.1), idx)["explicitness"] == 0.5
    assert explicitness(noise, idx)["explicitness"] == pytest.approx(0.5, abs=0.06)
    missing = explicitness(idx[:, :2], idx)["per_factor"]
    assert missing["factor 1"] > 0.99 and missing["factor 2"] == pytest.approx(0.5, abs=0.1)
    both = (idx[:, [1]] + idx[:, [2]]) % 2  # whether they are alike: no line sees it
    assert explicitness(idx[:, 1:], np.column_stack([both, idx[:, 1]]))["per_factor"]["factor 0"] < 0.62


def test_scale_and_shift_do_not_matter(idx):
    z = idx + np.random.default_rng(0).normal(size=idx.shape)
    one, other = (explicitness(c, idx)["explicitness"] for c in (z, z * [1e-3, 1, 1e3] + 50))
    assert other == pytest.approx(one, abs=1e-3)


def test_auc_is_scikit_learns_also_with_ties():
    rng = np.random.default_rng(0)
    scores, classes = rng.integers(0, 6, (200, 4)) / 6, rng.integers(0, 4, 200)
    is_it = classes[:, None] == np.arange(4)
    wanted = [roc_auc_score(is_it[:, c], scores[:, c]) for c in range(4)]
    assert auc(scores, is_it) == pytest.approx(np.mean(wanted))
    assert auc(scores, is_it & (np.arange(4) < 2)) == pytest.approx(np.mean(wanted[:2]))  # what no row has is left out
    assert np.isnan(auc(scores, is_it & False))


def test_classifiers_that_stop_early_are_noted(idx, monkeypatch):
    import sklearn.linear_model as linear

    monkeypatch.setattr(linear, "LogisticRegression", lambda max_iter: LogisticRegression(max_iter=2))
    from sklearn.linear_model._logistic import LogisticRegression
    assert explicitness(idx, idx)["note"] == "3 of 3 classifiers had not converged"


# ---- both


@pytest.mark.parametrize("metric", [modularity, explicitness])
def test_model_and_data(metric, monkeypatch):
    monkeypatch.setattr(arrays, "POINTS", 600)
    codes = CodeSpace([Block("kind", "onehot", (3,)), Block("x"), Block("rest", shape=(2,))])

    def rule(x):
        kind = torch.nn.functional.one_hot((x[:, 0] * 2).round().long(), 3)
        return torch.cat([0.6 * kind + 0.01, x[:, [1]], torch.zeros(len(x), 2)], dim=1)

    score = metric(Reader(rule, codes, pixels=2), Signals((3, 5), ["kind", "x"]))
    assert score[metric.__name__] > 0.98 and score["columns"] == ["kind", "x"]
    assert score["left_out"] == {"rest": "2 numbers wide"} and score["factors"] == ["kind", "x"]
    assert score["settings"]["protocol"] == "model" and score["settings"]["points"] == 600


@pytest.mark.parametrize("metric", [modularity, explicitness])
def test_settings_seed_json_and_global_generators(metric, idx):
    z = idx + np.random.default_rng(0).normal(size=idx.shape)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, again, other = (metric(torch.tensor(z), torch.tensor(idx), seed=s) for s in (0, 0, 1))
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert one == again == json.loads(json.dumps(one)) and other["settings"]["seed"] == 1
    assert {"seed": 0, "protocol": "arrays", "points": 600, "constant_factors": []}.items() <= one["settings"].items()
    # Nothing is drawn for the one; the other holds out other rows.
    assert (one["modularity"] == other["modularity"] if metric is modularity
            else one["explicitness"] != other["explicitness"])
    with_colour = metric(z, np.column_stack([np.ones(600), idx]), names=["colour", "a", "b", "c"])
    assert with_colour["factors"] == ["a", "b", "c"] and with_colour["settings"]["constant_factors"] == ["colour"]


@pytest.mark.parametrize("metric", [modularity, explicitness])
@pytest.mark.parametrize(("options", "message"), [
    ({"factors": np.zeros((60, 2))}, "no factor varies: factor 0, factor 1 has a single value, so there is nothing to "
                                     "measure"),
    ({"codes": np.full((60, 2), np.inf)}, "codes holds NaN or infinite numbers in column(s) 0, 1"),
    ({"codes": np.zeros((1, 2)), "factors": np.zeros((1, 2))},
     "codes has 1 row(s); a metric needs at least 2, better thousands"),
    ({"categorical": [2]}, "categorical names column 2, and the codes have 2 columns, counted from 0"),
    ({"codes": np.zeros((59, 2))}, "codes have 59 rows and factors 60: row i of both must belong to the same picture"),
])
def test_bad_input(metric, options, message):
    table = np.stack(np.unravel_index(np.arange(60) % 12, (3, 4)), axis=1)
    with pytest.raises(ValueError) as error:
        metric(**{"codes": table, "factors": table, **options})
    assert str(error.value) == message


def test_bad_input_of_one():
    def message(metric, codes, factors, **options):
        with pytest.raises(ValueError) as error:
            metric(codes, factors, **options)
        return str(error.value)

    table = np.stack(np.unravel_index(np.arange(60) % 12, (3, 4)), axis=1)
    assert message(modularity, table, table, bins=1) == "bins must be a whole number of at least 2, got 1"
    assert message(modularity, table, table[:, :1]) == ("this metric needs at least two factors that vary, got one "
                                                        "(factor 0)")
    assert message(explicitness, np.zeros((2, 1)), np.array([[0], [1]])) == (
        "factor 'factor 0' has a single value in the 1 row(s) drawn for training: give more rows")
    assert message(explicitness, np.zeros((4, 1)), np.array([[0], [1], [0], [1]])) == (
        "factor 'factor 0' cannot be told apart in the 1 row(s) held out for the test: give more rows")
