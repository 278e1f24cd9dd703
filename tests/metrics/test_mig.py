"""MIG on codes whose gap is known, and its information against scikit-learn's."""
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics.oracles import NAMES, Reader, Signals, grid, ideal, turned
from sklearn.metrics import mutual_info_score

from disentkit.codes import Block, CodeSpace
from disentkit.data.base import ArrayData
from disentkit.data.laws import Real
from disentkit.metrics import mig
from disentkit.metrics.mig import binned


@pytest.fixture(scope="module")
def idx():
    return grid(10_000)


@pytest.fixture(scope="module")
def product():
    """Every combination once, so that factors share no information, not even by chance."""
    return np.stack(np.unravel_index(np.arange(3 * 6 * 10 * 20), (3, 6, 10, 20)), axis=1)


def test_factors_as_codes_are_exactly_one(product):
    score = mig(product, product, bins=20)
    assert score["mig"] == pytest.approx(1, abs=1e-9) and score["best"]["factor 3"] == "z3"
    assert score["entropy"]["factor 3"] == pytest.approx(np.log(20))
    assert np.array(score["information"]) == pytest.approx(np.diag(np.log([3, 6, 10, 20])), abs=1e-9)
    # 10 bins for 20 values: half a value is lost, and the normaliser is still the factor's own entropy.
    assert mig(product, product, bins=10)["gaps"]["factor 3"] == pytest.approx(np.log(10) / np.log(20))


def test_duplicates_constants_and_noise_are_near_zero(product, idx):
    twice = np.hstack([product, product])
    assert mig(twice, product)["mig"] == pytest.approx(0, abs=1e-9)
    assert mig(np.ones((len(product), 3)), product)["mig"] == 0
    assert mig(np.random.default_rng(0).normal(size=(10_000, 10)), idx)["mig"] < 0.01
    assert mig(product[:, :1], product)["gaps"]["factor 0"] == pytest.approx(1)  # one column has no second


def test_rotation_costs_the_gap_of_the_rotated_factors(product):
    z = ideal(grid(10_000), " ".join(NAMES))
    straight, rotated = (mig(c, grid(10_000), names=NAMES)["gaps"] for c in (z, turned(z, 3, 4)))
    assert rotated["x"] < 0.1 < 0.7 < straight["x"] and rotated["shape"] == pytest.approx(straight["shape"], abs=0.02)


def test_ranks_better_codes_higher(idx):
    z = ideal(idx, " ".join(NAMES))
    noise = np.random.default_rng(1).normal(size=z.shape)
    scores = [mig(z + level * noise, idx)["mig"] for level in (0, 0.1, 0.3, 1, 10)]
    assert all(high > low + 0.02 for high, low in zip(scores, scores[1:]))


def test_information_is_scikit_learns(idx):
    z = turned(ideal(idx, "x y shape"), 0, 1) + 0.1 * np.random.default_rng(2).normal(size=(len(idx), 3))
    score = mig(z, idx)
    for j in range(3):
        edges = np.histogram(z[:, j], 20)[1][:-1]  # equal-width bins by other means
        for k in range(5):
            theirs = mutual_info_score(np.digitize(z[:, j], edges), idx[:, k])
            assert score["information"][j][k] == pytest.approx(theirs, abs=1e-9)
    top = np.sort(np.array(score["information"]), axis=0)
    gaps = (top[-1] - top[-2]) / [mutual_info_score(v, v) for v in idx.T]
    assert list(score["gaps"].values()) == pytest.approx(gaps.tolist()) and score["mig"] == pytest.approx(gaps.mean())


def test_bins():
    assert binned(np.array([0.0, 0.49, 0.5, 0.99, 1.0]), 2).tolist() == [0, 0, 1, 1, 1]
    assert binned(np.full(3, 0.1), 20).tolist() == [0, 0, 0]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(order=st.permutations(range(5)), scale=st.lists(st.sampled_from([0.5, 2.0, 64.0]), min_size=5, max_size=5),
       seed=st.integers(0, 1000))
def test_order_of_latents_and_rows_and_scale_do_not_matter(order, scale, seed):
    idx = grid(500)
    z = idx + np.random.default_rng(seed).integers(0, 3, size=idx.shape)
    rows = np.random.default_rng(seed).permutation(500)
    other = mig((z[:, order] * scale)[rows], idx[rows])
    assert list(other["gaps"].values()) == pytest.approx(list(mig(z, idx)["gaps"].values()))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 2), st.integers(0, 1)), min_size=8,
                max_size=60))
def test_between_zero_and_one_on_anything(rows):
    table = np.array(rows)
    if (table[:, 2:] == table[0, 2:]).all():
        table[0, 3] = 1 - table[0, 3]
    score = mig(table[:, :2], table[:, 2:])
    assert -1e-9 <= score["mig"] <= 1 + 1e-9


def test_model_and_data():
    score = mig(Reader(lambda x: x, 5), Signals((3, 6, 10, 15, 20)))
    assert score["mig"] > 0.97 and score["settings"]["points"] == 10_000 and score["factors"] == NAMES
    real = mig(Reader(lambda x: x, 5), Signals((3, 6, 10, 15, 20)).with_law(Real()))
    assert 0.5 < real["mig"] < score["mig"]  # counted at the nearest of the grid values, which are not the bins


def test_onehot_is_one_column_by_its_largest_entry():
    codes = CodeSpace([Block("kind", "onehot", (30,)), Block("x"), Block("rest", "onehot", (2,), inferred=False)])

    def rule(x):
        kind = torch.nn.functional.one_hot((x[:, 0] * 29).round().long(), 30)
        return torch.cat([0.6 * kind + 0.01, x[:, [1]], torch.full((len(x), 2), 0.5)], dim=1)  # soft, as encoders are

    score = mig(Reader(rule, codes, pixels=2), Signals((30, 5), ["kind", "x"]))
    assert score["columns"] == ["kind", "x"] and score["left_out"] == {"rest": "not inferred"}
    assert score["mig"] > 0.97  # 30 categories are not squeezed into 20 bins


def test_seed_json_and_global_generators(idx):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    reader, data = Reader(lambda x: x, 5), Signals()
    one, again, other = (mig(reader, data, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert one == again == json.loads(json.dumps(one)) and one["mig"] != other["mig"]
    assert mig(torch.tensor(idx), torch.tensor(idx)) == mig(idx, idx)


def test_one_factor_is_enough_and_constants_are_left_out(idx):
    score = mig(idx, np.column_stack([idx[:, 0], np.zeros(len(idx))]), names=["shape", "colour"])
    assert score["factors"] == ["shape"] and score["settings"]["constant_factors"] == ["colour"] and score["mig"] > 0.99


def test_bad_input(idx):
    def message(*given, **options):
        with pytest.raises(ValueError) as error:
            mig(*given, **options)
        return str(error.value)

    real = np.random.default_rng(0).random((100, 1))
    assert message(idx, idx, bins=1) == "bins must be a whole number of at least 2, got 1"
    assert "factor 'angle' has 100 different values in 100 rows" in message(idx[:100], real, names=["angle"])
    assert "no factor varies" in message(idx, np.zeros((len(idx), 1)))
    nameless = ArrayData(np.zeros((4, 1, 1, 5), dtype=np.float32), name="holiday")
    assert "this metric needs factors; 'holiday' has none" in message(Reader(lambda x: x, 5), nameless)


def test_category_numbers_may_be_any_numbers():
    """Names of categories, so neither order nor size count."""
    v = np.arange(300) % 3
    codes = np.stack([np.array([-1.0, 0.2, 0.4])[v], np.arange(300) % 7], axis=1)
    factors = np.stack([v, np.arange(300) // 100], axis=1)
    plain = mig(np.stack([v, codes[:, 1]], axis=1), factors, categorical=(0,))
    assert mig(codes, factors, categorical=(0,))["gaps"] == plain["gaps"]
