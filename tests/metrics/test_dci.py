"""DCI: the fast engine is scikit-learn's algorithm, and the scores are what they must be on known codes."""
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics.oracles import Reader, Signals, grid, ideal, turned
from scipy.stats import entropy

from disentkit.codes import Block, CodeSpace
from disentkit.metrics import arrays, dci
from disentkit.metrics.dci import BINS, _reference, boosted, concentration, cut

SMALL = (3, 4, 5)


@pytest.fixture(scope="module")
def idx():
    """360 rows of a grid of 3 x 4 x 5."""
    return np.stack(np.unravel_index(np.arange(360) % 60, SMALL), axis=1)


def noisy(idx, level=0.3, seed=0):
    return idx + level * np.random.default_rng(seed).normal(size=idx.shape)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_fast_engine_is_scikit_learns_algorithm(classes):
    """Noisy classes and few values: no two splits are equally good, so no lots are drawn and every tree is the same."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(0, size, 1500) for size in (3, 4, 5)]).astype(float)
    y = np.digitize(x @ [1, 2, 0.5] + 8 * rng.normal(size=1500), [5] if classes == 2 else [0, 5, 10])
    parts = x[:1000], y[:1000], x[1000:], y[1000:]
    ours, theirs = (engine(*parts, np.random.default_rng(1)) for engine in (boosted, _reference))
    assert ours[0] == pytest.approx(theirs[0], abs=1e-9) and ours[0].sum() == pytest.approx(1)
    assert ours[1:] == theirs[1:]


def test_between_equally_good_splits_lots_are_drawn_on_both_sides():
    """Clean classes leave nodes of few rows, where several features split alike: one of scikit-learn's own answers."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(0, size, 400) for size in (5, 9, 30, 7)]).astype(float)
    y = ((x[:, 1] + 0.3 * x[:, 2] + rng.integers(0, 3, 400)) > 10).astype(int)
    parts = x[:300], y[:300], x[300:], y[300:]
    theirs = np.array([_reference(*parts, np.random.default_rng(s))[0] for s in range(6)])
    ours = np.array([boosted(*parts, np.random.default_rng(s))[0] for s in range(6)])
    spread = np.ptp(theirs, axis=0).max()
    assert spread > 1e-6  # or there were no lots to draw
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 2 * spread


def test_both_engines_score_alike(idx):
    z = np.round(noisy(idx[:300, :2], 0.5), 1)  # some 50 different values: nothing is cut
    fast, trees = (dci(z, idx[:300, :2], engine=engine, names="ab") for engine in ("fast", "trees"))
    for key in ("disentanglement", "completeness", "informativeness", "informativeness_train"):
        assert fast[key] == pytest.approx(trees[key], abs=0.02), key
    assert np.array(fast["importances"]) == pytest.approx(np.array(trees["importances"]), abs=0.01)
    assert "GradientBoostingClassifier" in trees["settings"]["classifier"] and trees["settings"]["engine"] == "trees"


@pytest.mark.slow
def test_engines_rank_codes_alike():
    idx = grid(1200)[:, :2]
    z = ideal(grid(1200), "shape scale x")
    codes = [z, turned(z, 0, 1), z + 0.5 * np.random.default_rng(0).normal(size=z.shape)]
    fast, trees = ([dci(c, idx, engine=e)["disentanglement"] for c in codes] for e in ("fast", "trees"))
    assert np.argsort(fast).tolist() == np.argsort(trees).tolist() and fast == pytest.approx(trees, abs=0.02)


def test_factors_as_codes_are_one(idx):
    score = dci(idx, idx, names=["a", "b", "c"])
    assert score["disentanglement"] == pytest.approx(1, abs=1e-6) == score["completeness"]
    assert score["informativeness"] == score["informativeness_train"] == 1
    assert np.array(score["importances"]) == pytest.approx(np.eye(3), abs=1e-6)
    assert score["accuracy"] == {"a": 1, "b": 1, "c": 1} and score["note"] is None


def test_duplicates_cost_completeness_only(idx):
    score = dci(np.hstack([idx, -idx]), idx)
    assert score["disentanglement"] == pytest.approx(1, abs=1e-6) and score["informativeness"] == 1
    assert score["completeness"] == pytest.approx(1 - np.log(2) / np.log(6), abs=0.01)  # lots share evenly


def test_constants_noise_and_rotation(idx):
    constant = dci(np.full((len(idx), 2), 0.1), idx)
    assert constant["disentanglement"] == constant["completeness"] == 0 and "no classifier" in constant["note"]
    assert constant["informativeness"] == pytest.approx(np.mean([1 / n for n in SMALL]), abs=0.06)
    padded = dci(np.column_stack([idx, np.ones((len(idx), 3))]), idx)
    assert padded["disentanglement"] == pytest.approx(1, abs=1e-6)  # dead numbers have no weight
    assert padded["per_code"]["z5"] == pytest.approx(0, abs=1e-9)
    noise = dci(np.random.default_rng(0).normal(size=(len(idx), 5)), idx)
    assert noise["disentanglement"] < 0.05 and noise["completeness"] < 0.05
    straight, rotated = (dci(c, idx) for c in (noisy(idx), turned(noisy(idx), 0, 2)))
    for key in ("disentanglement", "completeness"):
        assert rotated[key] < straight[key] - 0.2


def test_a_single_column_and_the_weights():
    idx = np.stack(np.unravel_index(np.arange(300) % 12, (3, 4)), axis=1)
    one = dci(idx[:, :1], idx)
    assert one["dims"] == 1 and one["completeness"] == 1
    R = np.array([[0.9, 0.2, 0.0], [0.1, 0.2, 0.0], [0.0, 0.6, 0.0]])
    rows = [1 - entropy(row + 1e-11, base=3) for row in R]
    assert concentration(R) == pytest.approx(rows) and concentration(R.T)[2] == pytest.approx(0, abs=1e-9)
    score = dci(np.column_stack([idx[:, 0] + 3 * idx[:, 1], idx[:, 0]]), idx)
    R = np.array(score["importances"])
    share = R.sum(axis=1) / R.sum()
    parts = [s * (1 - entropy(r + 1e-11, base=2)) for s, r in zip(share, R)]
    assert score["disentanglement"] == pytest.approx(sum(parts))
    share = R.sum(axis=0) / R.sum()
    parts = [s * (1 - entropy(c + 1e-11, base=2)) for s, c in zip(share, R.T)]
    assert score["completeness"] == pytest.approx(sum(parts)) and share == pytest.approx([0.5, 0.5])


def test_the_order_of_latents_and_their_scale_do_not_matter(idx):
    z = noisy(idx)
    one, scaled = dci(z, idx), dci(z * [4.0, 0.5, 2.0] + 8, idx)
    assert np.array(scaled["importances"]) == pytest.approx(np.array(one["importances"]), abs=1e-9)
    # Equally good splits draw lots by position, so another order draws others: the same scores but for those.
    order = [2, 0, 1]
    other = dci(z[:, order], idx)
    assert other["disentanglement"] == pytest.approx(one["disentanglement"], abs=0.005)
    assert np.array(other["importances"]) == pytest.approx(np.array(one["importances"])[order], abs=0.005)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), d=st.integers(1, 4), levels=st.sampled_from([2, 3, 50]))
def test_between_zero_and_one_on_anything(seed, d, levels):
    rng = np.random.default_rng(seed)
    score = dci(rng.integers(0, levels, (40, d)), rng.integers(0, 3, (40, 2)), seed=seed)
    for key in ("disentanglement", "completeness", "informativeness", "informativeness_train"):
        assert -1e-9 <= score[key] <= 1 + 1e-9


def test_categories_are_features_of_their_own(idx):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 12, 600)
    factors = np.column_stack([np.array([0, 1, 2] * 4)[kind], rng.integers(0, 3, 600)])
    codes = np.column_stack([kind * 7 - 3, factors[:, 1] + 0.1 * rng.normal(size=600)])  # any numbers, in no order
    score = dci(codes, factors, categorical=[0])
    assert np.array(score["importances"]) == pytest.approx(np.eye(2), abs=0.02) and score["informativeness"] == 1
    assert score["dims"] == 2


def test_bins():
    x = np.array([[0.0], [1.0], [3.0], [3.0]])
    bins, size = cut(x, np.array([[-9.0], [0.5], [0.6], [2.5], [99.0]]))
    assert bins[:, 0].tolist() == [0, 0, 1, 2, 2] and size == 3  # a value on an edge goes left, as in scikit-learn
    many = np.random.default_rng(0).normal(size=(5000, 1))
    bins, size = cut(many, many)
    assert size <= BINS and np.bincount(bins[:, 0]).max() < 2 * 5000 / BINS
    assert cut(many[:1000], many[:1000])[1] == 1000 and cut(many[:1001], many[:1001])[1] <= BINS


def test_a_value_that_never_trained_is_just_missed(idx):
    rare = idx.copy()
    rare[7, 0] = 3
    for seed in range(20):
        if dci(idx[:30], rare[:30], seed=seed)["accuracy"]["factor 0"] < 1:
            return
    raise AssertionError("in twenty splits the single row was never held out")


def test_model_and_data(monkeypatch):
    monkeypatch.setattr(arrays, "POINTS", 900)
    codes = CodeSpace([Block("kind", "onehot", (3,)), Block("x"), Block("rest", shape=(2,))])

    def rule(x):
        kind = torch.nn.functional.one_hot((x[:, 0] * 2).round().long(), 3)
        return torch.cat([0.6 * kind + 0.01, x[:, [1]], torch.zeros(len(x), 2)], dim=1)

    score = dci(Reader(rule, codes, pixels=2), Signals((3, 5), ["kind", "x"]))
    assert score["columns"] == ["kind", "x"] and score["left_out"] == {"rest": "2 numbers wide"}
    assert score["disentanglement"] == pytest.approx(1, abs=1e-6) and score["factors"] == ["kind", "x"]
    assert {"protocol": "model", "train": 600, "test": 300}.items() <= score["settings"].items()


def test_settings_seed_json_and_global_generators(idx):
    z = noisy(idx, 1.0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    z, idx = z[:150], idx[:150]
    one, again, other = (dci(torch.tensor(z), torch.tensor(idx), seed=s) for s in (0, 0, 1))
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert one == again == json.loads(json.dumps(one)) and one["importances"] != other["importances"]
    assert {"engine": "fast", "train": 100, "test": 50, "seed": 0, "protocol": "arrays", "points": 150,
            "constant_factors": []}.items() <= one["settings"].items()
    with_colour = dci(idx, np.column_stack([np.ones(len(idx)), idx]), names=["colour", "a", "b", "c"])
    assert with_colour["factors"] == ["a", "b", "c"] and with_colour["settings"]["constant_factors"] == ["colour"]


@pytest.mark.parametrize(("options", "message"), [
    ({"engine": "lasso"}, "engine must be one of fast, trees, got 'lasso'"),
    ({"factors": grid(60)[:, :1]}, "this metric needs at least two factors that vary, got one (factor 0)"),
    ({"factors": grid(59)}, "codes have 60 rows and factors 59: row i of both must belong to the same picture"),
    ({"codes": np.full((60, 2), np.nan)}, "codes holds NaN or infinite numbers in column(s) 0, 1"),
    ({"codes": np.zeros((1, 2)), "factors": np.zeros((1, 2))},
     "codes has 1 row(s); a metric needs at least 2, better thousands"),
    ({"codes": np.zeros((2, 1)), "factors": np.array([[0, 1], [1, 0]])},
     "factor 'factor 0' has a single value in the 1 row(s) drawn for training: give more rows"),
    ({"factors": np.zeros((60, 2))}, "no factor varies: factor 0, factor 1 has a single value, so there is nothing to "
                                     "measure"),
    ({"codes": np.zeros(60)}, "codes must have shape (rows, columns), got (60,)"),
])
def test_bad_input(options, message):
    with pytest.raises(ValueError) as error:
        dci(**{"codes": grid(60), "factors": grid(60), **options})
    assert str(error.value) == message
