"""IRS on codes whose robustness is known, and its definition in loops."""
import json

import numpy as np
import pytest
import torch
from metrics.oracles import Reader, Signals, turned

from disentkit.codes import Block, CodeSpace
from disentkit.metrics import arrays, irs

SIZES = (3, 5, 5)


@pytest.fixture(scope="module")
def idx():
    """Every combination of three factors eight times: 600 rows."""
    return np.stack(np.unravel_index(np.arange(600) % 75, SIZES), axis=1).astype(float)


def test_factors_as_codes_and_duplicates_are_one(idx):
    score = irs(idx, idx, names=["a", "b", "c"])
    assert score["irs"] == 1 and score["best"] == {"z0": "a", "z1": "b", "z2": "c"} and score["note"] is None
    assert irs(np.hstack([idx, -3 * idx]), idx)["irs"] == 1
    # With another factor fixed a number moves as far as ever.
    assert np.array(score["scores"]) == pytest.approx(np.eye(3))
    assert irs((idx - 2) ** 3, idx)["irs"] == 1  # any function of one factor


def test_constant_numbers_have_no_weight(idx):
    constant = irs(np.full((600, 2), 0.1), idx)
    assert constant["irs"] == 0 and constant["best"] == {"z0": None, "z1": None}
    assert constant["note"] == "no code number moves, so there is nothing to measure"
    padded = irs(np.column_stack([idx, np.full(600, 0.1)]), idx)
    assert padded["irs"] == 1 and padded["per_code"]["z3"] == 0 and padded["deviation"]["z3"] == 0


def test_rotation_halves_it_and_noise_has_none(idx):
    rotated = irs(turned(idx, 1, 2), idx, quantile=1)
    # (b + c) / sqrt 2 moves by 2 sqrt 2 from its mean, and with b fixed by half of it.
    assert list(rotated["per_code"].values()) == pytest.approx([1, 0.5, 0.5])
    assert rotated["deviation"]["z1"] == pytest.approx(2 * 2**0.5)
    assert rotated["irs"] == pytest.approx((1 + 0.5 * 2 * 2 * 2**0.5) / (1 + 2 * 2 * 2**0.5))
    noise = np.random.default_rng(0).normal(size=(600, 4))
    assert irs(noise, idx)["irs"] < 0.25
    levels = [irs(idx + level * np.random.default_rng(1).normal(size=idx.shape), idx)["irs"] for level in (0, 0.2, 1)]
    assert levels[0] > levels[1] + 0.1 > levels[2] + 0.2


@pytest.mark.parametrize("quantile", [0.9, 1])
def test_the_definition_in_loops(idx, quantile):
    z = (idx @ np.random.default_rng(0).normal(size=(3, 3)))[:400]
    factors = idx[:400]
    score = irs(z, factors, quantile=quantile)
    scores = np.zeros((3, 3))
    for j in range(3):
        free = np.quantile(np.abs(z[:, j] - z[:, j].mean()), quantile)
        for k in range(3):
            moved = []
            for g in factors[:, k]:  # a value as often as it comes
                rows = z[factors[:, k] == g, j]
                moved.append(np.quantile(np.abs(rows - rows.mean()), quantile))
            scores[j, k] = max(1 - np.mean(moved) / free, 0)
        assert score["deviation"][f"z{j}"] == pytest.approx(free)
    assert np.array(score["scores"]) == pytest.approx(scores)
    weight = np.array(list(score["deviation"].values()))
    assert score["irs"] == pytest.approx((scores.max(axis=1) * weight).sum() / weight.sum())


def test_one_odd_picture_decides_the_supremum_only(idx):
    odd = idx.copy()
    odd[7, 0] = 20
    assert irs(odd, idx, quantile=0.9)["per_code"]["z0"] > 0.95 > 0.8 > irs(odd, idx, quantile=1)["per_code"]["z0"]


def test_model_and_data(monkeypatch):
    monkeypatch.setattr(arrays, "POINTS", 600)
    codes = CodeSpace([Block("x"), Block("kind", "onehot", (3,)), Block("y"), Block("v", inferred=False)])

    def rule(x):
        return torch.cat([x[:, [0]], torch.zeros(len(x), 3), -x[:, [1]], torch.zeros(len(x), 1)], dim=1)

    score = irs(Reader(rule, codes, pixels=2), Signals((4, 5), ["a", "b"]))
    assert score["irs"] == 1 and score["best"] == {"x": "a", "y": "b"}
    assert score["left_out"] == {"kind": "onehot", "v": "not inferred"}
    assert score["settings"]["protocol"] == "model" and score["settings"]["smallest_group"] > 50


def test_settings_seed_json_and_global_generators(idx, monkeypatch):
    monkeypatch.setattr(arrays, "POINTS", 300)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    mixed = Reader(lambda x: x @ torch.tensor([[1.0, 0.5], [0.2, 1]]), 2, pixels=2)
    one, again, other = (irs(mixed, Signals((4, 5), ["a", "b"]), seed=s) for s in (0, 0, 1))
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert one == again == json.loads(json.dumps(one)) and one["irs"] != other["irs"]
    assert irs(torch.tensor(idx), torch.tensor(idx)) == irs(idx, idx, seed=0)
    with_colour = irs(idx, np.column_stack([np.ones(600), idx]), names=["colour", "a", "b", "c"])
    assert with_colour["irs"] == 1 and with_colour["settings"] == {
        "quantile": 0.99, "seed": 0, "protocol": "arrays", "points": 600, "smallest_group": 120,
        "constant_factors": ["colour"]}


@pytest.mark.parametrize(("options", "message"), [
    ({"quantile": 0}, "quantile must be above 0 and at most 1, got 0"),
    ({"quantile": "most"}, "quantile must be above 0 and at most 1, got 'most'"),
    ({"factors": np.zeros((60, 2))}, "no factor varies: factor 0, factor 1 has a single value, so there is nothing to "
                                     "measure"),
    ({"factors": np.eye(60)[:, :1]}, "factor 'factor 0' has 1 value(s) with a single row, and this metric compares "
                                     "rows that share a value: give more rows or merge values"),
    ({"codes": np.full((60, 2), np.nan)}, "codes holds NaN or infinite numbers in column(s) 0, 1"),
    ({"codes": np.zeros((1, 2)), "factors": np.zeros((1, 2))},
     "codes has 1 row(s); a metric needs at least 2, better thousands"),
])
def test_bad_input(options, message):
    table = np.stack(np.unravel_index(np.arange(60) % 12, (3, 4)), axis=1)
    with pytest.raises(ValueError) as error:
        irs(**{"codes": table, "factors": table, **options})
    assert str(error.value) == message
