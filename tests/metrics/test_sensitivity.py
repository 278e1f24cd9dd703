"""Both scores against their settings: the rows are the metrics' own, one setting is varied at a time."""
import json

import numpy as np
import pytest
import torch
from metrics.oracles import Reader, Signals, turned

from disentkit.metrics import arrays, betavae_score, factorvae_score, sensitivity
from disentkit.metrics.sensitivity import AT


@pytest.fixture(scope="module")
def code():
    idx = np.stack(np.unravel_index(np.arange(1200) % 120, (4, 5, 6)), axis=1)
    z = (idx - idx.mean(axis=0)) / idx.std(axis=0)
    return turned(z, 0, 2) + 0.5 * np.random.default_rng(0).normal(size=z.shape), idx


def test_rows_are_the_metrics_own_scores(code, monkeypatch):
    monkeypatch.setitem(AT["betavae_score"], "iterations", 500)
    rows = sensitivity(*code, L=[5, 50], votes=[40], iterations=[10, 200], seeds=[0, 3])
    keys = [(r["metric"], r["setting"], r["value"], r["seed"]) for r in rows]
    assert keys == [("factorvae_score", "L", 5, 0), ("factorvae_score", "L", 5, 3), ("factorvae_score", "L", 50, 0),
                    ("factorvae_score", "L", 50, 3), ("factorvae_score", "votes", 40, 0),
                    ("factorvae_score", "votes", 40, 3), ("betavae_score", "L", 5, 0), ("betavae_score", "L", 5, 3),
                    ("betavae_score", "L", 50, 0), ("betavae_score", "L", 50, 3), ("betavae_score", "votes", 40, 0),
                    ("betavae_score", "votes", 40, 3), ("betavae_score", "iterations", 10, 0),
                    ("betavae_score", "iterations", 10, 3), ("betavae_score", "iterations", 200, 0),
                    ("betavae_score", "iterations", 200, 3)]
    score = dict(zip(keys, (r["score"] for r in rows)))
    assert score["factorvae_score", "L", 5, 3] == factorvae_score(*code, L=5, votes=800, seed=3)["pruned"]
    assert score["factorvae_score", "votes", 40, 0] == factorvae_score(*code, L=100, votes=40)["pruned"]
    wanted = betavae_score(*code, L=200, votes=800, classifier="adagrad", iterations=200, seed=3)
    assert score["betavae_score", "iterations", 200, 3] == wanted["score"]
    assert json.loads(json.dumps(rows)) == rows


def test_few_rows_per_vote_cost_the_factorvae_score(code, monkeypatch):
    """Variances of three rows choose the wrong number; those of sixty do not."""
    monkeypatch.setitem(AT["betavae_score"], "iterations", 1)  # not looked at here
    rows = sensitivity(*code, L=[3, 60], votes=[], iterations=[], seeds=range(3))
    mean = {L: np.mean([r["score"] for r in rows if r["metric"] == "factorvae_score" and r["value"] == L])
            for L in (3, 60)}
    assert mean[3] < mean[60] - 0.05


def test_model_and_data_encodes_once(monkeypatch):
    monkeypatch.setattr(arrays, "POINTS", 1000)
    seen = []

    def rule(x):
        seen.append(len(x))
        return x

    data = Signals((1, 4, 5), ["colour", "a", "b"])
    rows = sensitivity(Reader(rule, 3, pixels=3), data, L=[20], votes=[50], iterations=[300], seeds=[0])
    assert sum(seen) == 1000 and len(rows) == 5 and min(r["score"] for r in rows) > 0.99


def test_global_generators_are_left_alone(code):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    sensitivity(*code, L=[5], votes=[], iterations=[20], seeds=[0])
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()


@pytest.mark.parametrize(("options", "message"), [
    ({"L": [100, 1]}, "a value of L must be a whole number of at least 2, got 1"),
    ({"votes": [1]}, "a value of votes must be a whole number of at least 2, got 1"),
    ({"iterations": [0]}, "a value of iterations must be a whole number of at least 1, got 0"),
    ({"seeds": [-1]}, "a seed must be a whole number of at least 0, got -1"),
    ({"factors": np.ones((1200, 2))}, "no factor varies: factor 0, factor 1 has a single value, so there is nothing to "
                                      "measure"),
    ({"factors": np.arange(1200)[:, None] % 3}, "this metric needs at least two factors that vary, got one (factor 0)"),
])
def test_bad_input(code, options, message):
    with pytest.raises(ValueError) as error:
        sensitivity(**{"codes": code[0], "factors": code[1], **options})
    assert str(error.value) == message
