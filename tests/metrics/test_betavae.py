"""The beta-VAE score: 1 on factors, chance on noise, and the flaw for which FactorVAE's own score was made."""
import json

import numpy as np
import pytest
import torch
from metrics.oracles import NAMES, Reader, Signals, grid, ideal, turned

from disentkit.metrics import betavae_score, factorvae_score
from disentkit.metrics.betavae import Adagrad


@pytest.fixture(scope="module")
def idx():
    return grid(10_000)


def test_one_on_factors_and_chance_on_noise(idx):
    best = betavae_score(ideal(idx, " ".join(NAMES)), idx, names=NAMES)
    assert best["score"] == best["train"] == 1 and best["factors"] == NAMES
    noise = np.random.default_rng(0).normal(size=(len(idx), 10))
    assert betavae_score(noise, idx)["score"] == pytest.approx(0.2, abs=0.045)
    assert betavae_score(np.ones((len(idx), 2)), idx)["score"] == pytest.approx(0.2)


def test_the_flaw_one_factor_may_be_missing_and_latents_mixed(idx):
    missing = ideal(idx, "scale orientation x y")  # K-1 factors
    assert betavae_score(missing, idx)["score"] > 0.98 and factorvae_score(missing, idx)["pruned"] == pytest.approx(0.8)
    # Five numbers that each mix four factors: no number is clean, yet the linear classifier reads the mixture.
    mixed = ideal(idx, " ".join(NAMES)) @ (np.ones((5, 5)) - np.eye(5))
    assert betavae_score(mixed, idx)["score"] > 0.85 and factorvae_score(mixed, idx)["pruned"] < 0.4
    two_missing = ideal(idx, "scale x y")
    assert betavae_score(two_missing, idx)["score"] == pytest.approx(0.8, abs=0.04)  # not the whole code is free


def test_pairs_share_the_factor_and_are_different_rows():
    from disentkit.metrics.arrays import ArraySource
    rows = np.arange(6.0)[:, None]
    src = ArraySource(rows, np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 0], [1, 1]]))
    one, two = src.pairs(0, 4000)[:, :, 0].astype(int).T
    assert ((one < 2) == (two < 2)).all() and (one != two).all()
    assert (np.bincount(one, minlength=6) > 500).all() and (np.bincount(two, minlength=6) > 500).all()


def test_model_and_data(idx):
    score = betavae_score(Reader(lambda x: x, 5), Signals(), L=32, votes=100)
    assert score["score"] == 1 and score["settings"]["protocol"] == "model" and score["left_out"] == {}
    blind = betavae_score(Reader(lambda x: torch.zeros(len(x), 2), 2), Signals(), L=8, votes=50)
    assert blind["score"] == pytest.approx(0.2)


def test_seed_json_and_global_generators(idx):
    z = turned(ideal(idx, "x y scale"), 0, 2)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, again, other = (betavae_score(z, idx, L=4, votes=300, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert one == again == json.loads(json.dumps(one)) and one["score"] != other["score"]


# ---- the classifier trained by single steps


def test_adagrad_scores_what_the_logistic_regression_does(idx):
    best = betavae_score(ideal(idx, " ".join(NAMES)), idx, L=200, classifier="adagrad", iterations=1000)
    assert best["score"] == best["train"] == 1
    assert best["settings"]["classifier"] == "linear, 1000 steps of Adagrad, rate 0.01, batch 10"
    assert betavae_score(idx, idx, votes=50)["settings"]["classifier"] == "sklearn LogisticRegression, C=1"
    noise = np.random.default_rng(0).normal(size=(len(idx), 10))
    assert betavae_score(noise, idx, L=20, classifier="adagrad")["score"] == pytest.approx(0.2, abs=0.045)
    assert betavae_score(np.ones((len(idx), 2)), idx, L=20, classifier="adagrad")["score"] == pytest.approx(0.2)
    two_missing = betavae_score(ideal(idx, "scale x y"), idx, classifier="adagrad")
    assert two_missing["score"] == pytest.approx(0.8, abs=0.04)


def test_adagrad_takes_pytorchs_steps():
    x, y = np.random.default_rng(0).normal(size=(25, 3)), np.arange(25) % 4
    ours = Adagrad(40, np.random.default_rng(1)).fit(x, y)
    line = torch.nn.Linear(3, 4, dtype=torch.float64)
    torch.nn.init.zeros_(line.weight), torch.nn.init.zeros_(line.bias)
    opt, rng = torch.optim.Adagrad(line.parameters(), lr=0.01), np.random.default_rng(1)
    orders = [rng.permutation(25) for _ in range(20)]
    for step in range(40):  # two whole batches of ten, then a new order
        rows = orders[step // 2][10 * (step % 2):][:10]
        opt.zero_grad()
        torch.nn.functional.cross_entropy(line(torch.tensor(x[rows])), torch.tensor(y[rows])).backward()
        opt.step()
    assert ours.W == pytest.approx(line.weight.detach().numpy().T)
    assert ours.b == pytest.approx(line.bias.detach().numpy())
    assert ours.score(x, y) == np.mean((x @ ours.W + ours.b).argmax(axis=1) == y)
    assert Adagrad(5, rng).fit(x[:4], y[:4]).W.shape == (3, 4)  # fewer rows than a batch


def test_more_steps_learn_more(idx):
    mixed = ideal(idx, " ".join(NAMES)) @ (np.ones((5, 5)) - np.eye(5))
    few, many = (betavae_score(mixed, idx, classifier="adagrad", iterations=n) for n in (10, 10_000))
    assert many["train"] > few["train"] + 0.1


@pytest.mark.parametrize(("options", "message"), [
    ({"L": 0}, "L must be a whole number of at least 1, got 0"),
    ({"votes": 1}, "votes must be a whole number of at least 2, got 1"),
    ({"votes": "many"}, "votes must be a whole number of at least 2, got 'many'"),
    ({"factors": grid(300)[:, :1]}, "this metric needs at least two factors that vary, got one (factor 0)"),
    ({"classifier": "forest"}, "classifier must be one of logistic, adagrad, got 'forest'"),
    ({"iterations": 0}, "iterations must be a whole number of at least 1, got 0"),
    ({"factors": np.column_stack([np.arange(300) == 7, grid(300)[:, 0]])},
     "factor 'factor 0' has 1 value(s) with a single row, and this metric compares rows that share a value: give more "
     "rows or merge values"),
    ({"factors": grid(299)}, "codes have 300 rows and factors 299: row i of both must belong to the same picture"),
])
def test_bad_input(options, message):
    with pytest.raises(ValueError) as error:
        betavae_score(**{"codes": grid(300), "factors": grid(300), **options})
    assert str(error.value) == message
