"""The FactorVAE score on codes whose score is known (simulated ideal codes on the dSprites grid), and on bad input."""
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics.oracles import NAMES, SIZES, Reader, Signals, grid, ideal, turned

from disentkit.codes import Block, CodeSpace
from disentkit.data.base import ArrayData
from disentkit.data.laws import Real
from disentkit.metrics import factorvae_score
from disentkit.metrics.arrays import ArraySource, shares
from disentkit.metrics.factorvae import gini_variance


@pytest.fixture(scope="module")
def idx():
    return grid()


@pytest.fixture(scope="module")
def everything():
    return grid(None)


# Scores of the whole protocol on known codes: pruned, unpruned, how far the draw of the votes may move them.
@pytest.mark.parametrize(("latents", "dead", "pruned", "unpruned", "within"), [
    ("shape scale orientation x y", 0, 1.00, 1.00, 0.0),
    ("shape scale x y", 0, 0.80, 0.80, 0.0),
    ("scale x y", 0, 0.60, 0.60, 0.0),
    ("scale x y", 1, 0.60, 0.65, 0.035),
    ("scale x y", 2, 0.60, 0.71, 0.035),
    ("scale x y", 4, 0.60, 0.76, 0.035),
    ("scale x y", 7, 0.60, 0.77, 0.035),
])
def test_ideal_codes_score_what_they_must(idx, latents, dead, pruned, unpruned, within):
    score = factorvae_score(ideal(idx, latents, dead), idx)
    assert score["pruned"] == pytest.approx(pruned, abs=1e-9)  # equal shares of votes: no luck in it
    assert score["unpruned"] == pytest.approx(unpruned, abs=within + 1e-9)
    assert score["surviving"] == len(latents.split()) and score["dims"] == score["surviving"] + dead


def test_unpruned_dead_latents_flatter_and_training_votes_flatter_more(idx):
    scores = [factorvae_score(ideal(idx, "scale x y", 7), idx, seed=s) for s in range(3)]
    assert 0.75 < np.mean([s["unpruned"] for s in scores]) < 0.81
    assert np.mean([s["unpruned_train"] - s["unpruned"] for s in scores]) > 0.005


def test_x_and_y_rotated_into_each_other(idx):
    assert factorvae_score(turned(ideal(idx, " ".join(NAMES)), 3, 4), idx)["pruned"] == pytest.approx(0.80, abs=0.03)


def test_only_y_clean(everything):
    # With x fixed, both rotated latents have exactly the spread of scale, and the reverse: a tie, which the noise of a
    # real encoder breaks evenly. Without noise rounding decides it always the same way, and the score is 0.47.
    z = turned(ideal(everything, "y x scale"), 1, 2)
    z += 0.05 * np.random.default_rng(3).normal(size=z.shape)
    assert factorvae_score(z, everything)["pruned"] == pytest.approx(0.41, abs=0.03)


def test_noise_scores_chance_and_chance_does_not_depend_on_d(idx):
    noise = np.random.default_rng(4).normal(size=(len(idx), 30))
    scores = [factorvae_score(noise[:, 10 * s:10 * s + 10], idx, seed=s) for s in range(3)]
    assert np.mean([s["pruned"] for s in scores]) == pytest.approx(0.20, abs=0.025)
    assert np.mean([s["pruned_train"] for s in scores]) == pytest.approx(0.25, abs=0.025)
    assert factorvae_score(noise, idx)["pruned"] == pytest.approx(0.20, abs=0.045)


def test_a_better_code_scores_higher(idx):
    codes = [np.random.default_rng(5).normal(size=(len(idx), 3)), ideal(idx, "x"), ideal(idx, "x y"),
             ideal(idx, "x y scale"), ideal(idx, "x y scale shape"), ideal(idx, " ".join(NAMES))]
    scores = [factorvae_score(z, idx)["pruned"] for z in codes]
    assert all(low < high - 0.1 for low, high in zip(scores[1:], scores[2:])) and scores[0] < scores[2] - 0.1


def test_votes_matrix(idx):
    score = factorvae_score(ideal(idx, "x y scale", 2), idx, names=NAMES)
    V = np.array(score["votes"])
    assert V.shape == (5, 5) and V.sum(axis=0).tolist() == [160] * 5
    assert V[3:].sum() == 0  # pruned latents have no vote
    assert V[0, 3] == V[1, 4] == V[2, 1] == 160  # x, y and scale always vote for their own latent
    assert V.max(axis=1).sum() / V.sum() == score["pruned_train"]
    assert score["kept"] == ["z0", "z1", "z2"] and score["factors"] == NAMES


def test_constant_codes_and_nothing_left(idx):
    constant = factorvae_score(np.full((len(idx), 3), 0.1), idx)
    assert constant["surviving"] == 0 and constant["pruned"] == constant["unpruned"] == pytest.approx(0.2)
    assert "no code number survives" in constant["note"]
    dead = factorvae_score(ideal(idx, "x y", 2) * 0.01, idx)
    assert (dead["surviving"], dead["pruned"]) == (0, pytest.approx(0.2)) and dead["unpruned"] > 0.5
    padded = np.column_stack([ideal(idx, "x y scale"), np.full(len(idx), 7.3)])  # 0/0 must win no vote
    assert factorvae_score(padded, idx, prune=0)["unpruned"] == pytest.approx(0.6)
    assert factorvae_score(ideal(idx, "x"), idx)["note"] is None


def test_constant_factor_is_left_out_and_named(idx):
    with_colour = np.column_stack([np.ones(len(idx)), idx])
    score = factorvae_score(ideal(idx, " ".join(NAMES)), with_colour, names=["colour", *NAMES])
    assert score["pruned"] == 1 and score["factors"] == NAMES and score["settings"]["constant_factors"] == ["colour"]


def test_constant_factor_in_data_shifts_no_other():
    data = Signals((1, 5, 6, 7), ["colour", "a", "b", "c"])
    score = factorvae_score(Reader(lambda x: x, 4, pixels=4), data, votes=90)
    assert score["factors"] == ["a", "b", "c"] and score["settings"]["constant_factors"] == ["colour"]
    assert score["pruned"] == 1 and np.array(score["votes"])[1:].tolist() == (30 * np.eye(3)).tolist()


def test_equal_shares_and_no_row_twice():
    counts = np.array([shares(np.random.default_rng(s), 17, 5) for s in range(300)])
    assert (counts.sum(axis=1) == 17).all() and counts.min() == 3 and counts.max() == 4
    assert counts.mean(axis=0) == pytest.approx(3.4, abs=0.15)  # the remainder favours no factor
    src = ArraySource(np.arange(40.0)[:, None], np.arange(40)[:, None] % 4)
    for group in src.groups(0, 8, 50):
        rows = group[:, 0].astype(int)
        assert len(set(rows)) == 8 and len(set(rows % 4)) == 1


def test_a_value_with_fewer_than_L_rows_is_an_error():
    idx = np.stack(np.unravel_index(np.arange(5 * 4 * 3), (5, 4, 3)), axis=1)
    score = factorvae_score(idx, idx, L=12, votes=60)
    assert score["pruned"] == 1 and score["settings"]["smallest_group"] == 12
    assert bad(idx, idx, L=13, names=["a", "b", "c"]) == (
        "factor 'a' has 5 value(s) with fewer than L = 13 rows, the rarest 12: give more rows, merge values or take a "
        "smaller L")


def test_seed_decides_and_global_generators_are_untouched(idx):
    z = np.random.default_rng(6).normal(size=(len(idx), 5))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, again, other = (factorvae_score(z, idx, seed=s) for s in (0, 0, 1))
    reader = Reader(lambda x: x, 5, logvar=[-3.0] * 5)
    assert factorvae_score(reader, Signals(), votes=20) == factorvae_score(reader, Signals(), votes=20)
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert one == again and one["votes"] != other["votes"]


def test_importing_the_metrics_does_not_import_scikit_learn():
    code = f"import sys; sys.path[:] = {sys.path}; import disentkit.metrics; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_result_is_json_and_says_how_it_was_made(idx):
    score = factorvae_score(torch.tensor(ideal(idx, "x y")), torch.tensor(idx), L=50, votes=100, seed=3)
    assert json.loads(json.dumps(score)) == score
    assert {"L": 50, "votes": 100, "eval_votes": 100, "seed": 3, "protocol": "arrays", "prune": "std < 0.05",
            "points": len(idx)}.items() <= score["settings"].items()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(order=st.permutations(range(5)), scale=st.lists(st.sampled_from([0.5, 2.0, -4.0, 64.0]), min_size=5, max_size=5),
       shift=st.integers(-8, 8))
def test_order_scale_and_sign_of_latents_do_not_matter(order, scale, shift):
    idx = grid(1500)
    z = turned(ideal(idx, " ".join(NAMES)), 1, 3) + 0.3 * np.random.default_rng(7).normal(size=idx.shape)
    one = factorvae_score(z, idx, L=20, votes=60, prune=0)
    other = factorvae_score(z[:, order] * scale + shift, idx, L=20, votes=60, prune=0)
    assert other["pruned"] == one["pruned"]
    assert other["votes"] == [one["votes"][j] for j in order]


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_order_of_rows_and_names_of_values_do_not_matter(seed):
    idx = grid(1500)
    shuffled = np.random.default_rng(seed).permutation(len(idx))
    z = ideal(idx, "x y scale shape")
    assert factorvae_score(z[shuffled], -10.5 * idx[shuffled] + 3, L=20, votes=50)["pruned"] == pytest.approx(0.8)


# The (model, data) form.

def test_model_and_data_agree_with_arrays():
    perfect = factorvae_score(Reader(lambda x: 2 * x - 1, 5), Signals())
    assert perfect["pruned"] == perfect["unpruned"] == 1 and perfect["factors"] == NAMES
    assert perfect["settings"]["protocol"] == "model" and perfect["settings"]["points"] == 10_000
    three = factorvae_score(Reader(lambda x: 2 * x[:, [1, 3, 4]] - 1, 3), Signals())
    assert three["pruned"] == pytest.approx(0.6)
    assert three["std"][1] == pytest.approx(2 * np.std(np.linspace(0, 1, 32)), rel=0.03)


def test_real_valued_law_needs_no_grouping():
    assert factorvae_score(Reader(lambda x: x, 5), Signals().with_law(Real()), votes=100)["pruned"] == 1


def test_posterior_prunes_what_collapsed_to_the_prior():
    def rule(x):  # x, y, scale, and one latent that moves little: alive by its spread, or dead by its KL
        return torch.cat([4 * x[:, [1, 3, 4]] - 2, 0.06 * torch.sin(1e4 * x.sum(1, keepdim=True)) * 2**0.5], dim=1)

    by_std = factorvae_score(Reader(rule, 4), Signals(), votes=100)
    by_kl = factorvae_score(Reader(rule, 4, logvar=[-4.0, -4.0, -4.0, 0.0]), Signals(), votes=100)
    assert (by_std["surviving"], by_std["kl"], by_std["settings"]["prune"]) == (4, None, "std < 0.05")
    assert by_kl["kept"] == ["z0", "z1", "z2"] and by_kl["settings"]["prune"] == "std < 0.05 or mean KL < 0.01 nats"
    mu = rule(Signals().sample(10_000, torch.Generator().manual_seed(0))["x"].flatten(1))
    assert by_kl["kl"][0] == pytest.approx(0.5 * float((mu[:, 0] ** 2).mean() + np.exp(-4) + 4 - 1), rel=0.03)
    assert by_kl["kl"][3] == pytest.approx(0.5 * 0.06**2, rel=0.1)


def test_blocks_that_are_not_one_number_are_left_out_and_named():
    codes = CodeSpace([Block("a"), Block("pose", shape=(2,)), Block("kind", "onehot", (3,)), Block("z", inferred=False),
                       Block("b"), Block("m", "map", (1, 1, 1))])
    noise = torch.Generator().manual_seed(0)
    model = Reader(lambda x: torch.cat([x[:, [3]], torch.rand(len(x), 2, generator=noise), torch.eye(3)[[1] * len(x)],
                                        torch.rand(len(x), 1, generator=noise), x[:, [4]], x[:, [1]]], dim=1), codes)
    score = factorvae_score(model, Signals(), votes=100)  # the one-hot block never changes
    assert score["columns"] == ["a", "kind", "b"] and score["pruned"] == pytest.approx(0.4)
    assert score["left_out"] == {"pose": "2 numbers wide", "z": "not inferred", "m": "map"}


# Category numbers: the Gini variance.


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30))
def test_gini_variance_is_the_sum_over_pairs(values):
    column = np.array(values, dtype=float)
    n, pairs = len(values), sum(a != b for a in values for b in values)
    assert gini_variance(column) == pytest.approx(pairs / (2 * n * (n - 1)))


def test_gini_variance_of_two_numbers_is_the_variance():
    column = np.random.default_rng(0).integers(2, size=50).astype(float)
    assert gini_variance(column) == pytest.approx(column.var(ddof=1))


def test_a_category_that_is_a_factor_scores_as_well_as_a_number_that_is(idx):
    codes = np.column_stack([ideal(idx, "x y scale"), np.array([2, 0, 1])[idx[:, 0]]])  # shape, under other numbers
    score = factorvae_score(codes, idx, names=NAMES, votes=200, categorical=[3])
    assert score["pruned"] == pytest.approx(0.8) and score["votes"][3][0] == 40
    # Its numbers are names: three far apart are the same category column.
    far = np.column_stack([codes[:, :3], np.array([5.0, -700.0, 3.0])[codes[:, 3].astype(int)]])
    assert factorvae_score(far, idx, names=NAMES, votes=200, categorical=[3])["votes"] == score["votes"]


def test_a_models_one_hot_block_is_read_as_a_category():
    codes = CodeSpace([Block("kind", "onehot", (3,)), Block("x"), Block("y")])
    onehot = torch.eye(3)
    model = Reader(lambda x: torch.cat([onehot[(x[:, 0] * 2).round().long()], x[:, 3:]], dim=1), codes)
    score = factorvae_score(model, Signals(), votes=100)
    assert score["pruned"] == pytest.approx(0.6) and np.array(score["votes"])[:, [0, 3, 4]].diagonal().min() == 20


# Bad input: one clear line each.

def bad(z=None, v=None, **options):
    idx = grid(300)
    with pytest.raises(ValueError) as error:
        factorvae_score(idx if z is None else z, idx if v is None else v, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_arrays():
    idx = grid(300).astype(float)
    assert "300" in bad(v=idx[:200]) and "200" in bad(v=idx[:200])
    assert "codes must have shape (rows, columns), got (300,)" in bad(idx[:, 0])
    assert "factors must have shape (rows, columns)" in bad(v=idx[:, :0])
    assert "codes must be a table of numbers" in bad([["a", "b"]])
    assert "codes has 1 row(s)" in bad(idx[:1], idx[:1])
    holes = idx.copy()
    holes[5, 2], holes[7, 4] = np.nan, np.inf
    assert "codes holds NaN or infinite numbers in column(s) 2, 4" in bad(holes)
    assert "factors holds NaN or infinite numbers in column(s) 2, 4" in bad(v=holes)
    assert "names has 1 entries for 5 factor columns" in bad(names=["x"])


def test_bad_factors():
    idx = grid(300).astype(float)
    real = idx.copy()
    real[:, 3] = np.random.default_rng(0).random(300)
    message = bad(v=real, names=NAMES)
    assert "factor 'x' has 300 different values in 300 rows: it looks real-valued;" in message and "round it" in message
    lonely = idx.copy()
    lonely[0, 1] = 99
    assert "factor 'scale' has 1 value(s) with a single row" in bad(v=lonely, names=NAMES, L=2)
    assert "no factor varies: a, b has a single value" in bad(v=np.ones((300, 2)), names=["a", "b"])
    assert "at least two factors that vary, got one (scale)" in bad(v=idx[:, 1:2], names=["scale"])


@pytest.mark.parametrize(("options", "message"), [
    ({"L": 1}, "L must be a whole number of at least 2, got 1"),
    ({"L": 10.5}, "L must be a whole number of at least 2, got 10.5"),
    ({"votes": 0}, "votes must be a whole number of at least 1, got 0"),
    ({"votes": True}, "votes must be a whole number of at least 1, got True"),
    ({"prune": -0.1}, "prune must be a standard deviation of 0 or more, got -0.1"),
    ({"prune": float("nan")}, "prune must be a standard deviation of 0 or more, got nan"),
    ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ({"categorical": [5]}, "categorical names column 5, and the codes have 5 columns, counted from 0"),
    ({"categorical": [0.5]}, "a position in categorical must be a whole number of at least 0, got 0.5"),
])
def test_bad_options(options, message):
    assert bad(**options) == message


def test_bad_models_and_data():
    reader, pictures = Reader(lambda x: x, 5), np.zeros((4, 1, 1, 5), dtype=np.float32)
    assert "this metric needs factors; 'holiday' has none" in bad(reader, ArrayData(pictures, name="holiday"))
    assert "a model is scored on a data set, got ndarray" in bad(reader, np.zeros((3, 2)))
    assert "a data set is scored together with a model, got ndarray" in bad(np.zeros((3, 2)), Signals())
    assert "Signals has no encode" in bad(Signals(), Signals())  # a renderer is a model without an encoder
    assert "names and categorical belong to arrays" in bad(reader, Signals(), names=NAMES)
    run = SimpleNamespace(model=reader)
    assert "a run is scored through its model" in bad(run, Signals())
    wide = Reader(lambda x: x, CodeSpace([Block("all", shape=(5,))]))
    assert "has no block this metric can score; left out: all (5 numbers wide)" in bad(wide, Signals())
    broken = Reader(lambda x: torch.where(x > 0.99, torch.nan, x), 5)
    assert "the model's codes hold NaN or infinite numbers in z0, z1, z2, z3, z4" in bad(broken, Signals())


def test_stored_pictures_with_real_valued_factors():
    values = torch.rand(50, 5, generator=torch.Generator().manual_seed(0))
    stored = ArrayData(values.reshape(50, 1, 1, 5), values)
    assert "factor 'f0' has 50 different values in 50 rows: it looks real-valued" in bad(Reader(lambda x: x, 5), stored)
    idx = torch.tensor(grid(400)[:, [0, 1]])
    lonely = idx.clone()
    lonely[:, 1] = (torch.arange(400) == 7).long()
    stored = ArrayData(torch.rand(400, 1, 1, 5, generator=torch.Generator().manual_seed(0)), lonely)
    assert "factor 'f1' has 1 value(s) with a single row" in bad(Reader(lambda x: x, 5), stored)
    stored = ArrayData((idx / torch.tensor(SIZES[:2])).reshape(400, 1, 1, 2), idx)
    assert factorvae_score(Reader(lambda x: x, 2, pixels=2), stored, votes=50)["pruned"] == 1


def test_tables_of_any_number_type_and_no_other():
    codes, factors = np.random.default_rng(0).normal(size=(400, 2)), np.arange(400)[:, None] % 2 + np.zeros((400, 2))
    score = factorvae_score(codes.astype(np.float32), factors, votes=20)["unpruned"]
    assert factorvae_score(torch.tensor(codes).float(), torch.tensor(factors).bool(), votes=20)["unpruned"] == score
    assert 0 <= factorvae_score(torch.tensor(codes).bfloat16(), factors, votes=20)["unpruned"] <= 1
    with pytest.raises(ValueError, match="codes must be a table of numbers .*got complex128"):
        factorvae_score(codes + 1j, factors)
    with pytest.raises(ValueError, match="factors must be a table of numbers .*number the words of a category first"):
        factorvae_score(codes, np.full((400, 2), "square"))
    with pytest.raises(ValueError, match="names must differ, got a, a"):
        factorvae_score(codes, factors, names=["a", "a"])
