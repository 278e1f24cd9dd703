"""UDR on codes that agree up to order and sign, that mix each other, and that died; and its formula in loops."""
import json

import numpy as np
import pytest
import torch
from metrics.oracles import Reader, Signals, turned
from scipy.stats import spearmanr

from disentkit.codes import Block, CodeSpace
from disentkit.data.base import ArrayData
from disentkit.metrics import udr
from disentkit.metrics.udr import agreement, relations


@pytest.fixture(scope="module")
def z():
    """Three independent numbers, 800 rows."""
    return np.random.default_rng(0).uniform(-1, 1, size=(800, 3))


def test_the_same_numbers_in_another_order_and_sign(z):
    codes = [z, -z[:, [2, 0, 1]], 5 * z[:, [1, 0, 2]] + 3]
    ranks, lasso = (udr(codes, method=m) for m in ("spearman", "lasso"))
    # A partner's 1 squared, over 1 and the chance correlations with the others.
    assert min(ranks["scores"]) > 0.9 and max(ranks["scores"]) <= 1
    assert lasso["scores"] == pytest.approx([0.9] * 3, abs=0.01)  # a lasso's coefficient is 1 less its penalty
    assert ranks["note"] is None and ranks["active"] == [["z0", "z1", "z2"]] * 3


def test_noise_mixtures_and_duplicates_score_less(z):
    noise = np.random.default_rng(1).normal(size=z.shape)
    assert udr([z, noise], method="lasso")["scores"] == [0, 0]
    assert max(udr([z, noise], method="spearman")["scores"]) < 0.1
    mixed = turned(z, 0, 1)
    for method in ("lasso", "spearman"):
        scores = udr([z, z[:, ::-1], z[:, [1, 2, 0]], mixed], method=method)
        assert scores["scores"][3] == min(scores["scores"]) < max(scores["scores"]) - 0.2
        assert scores["best"] != 3
    # Two partners: half of the strength each, in the direction that has the choice.
    assert agreement(np.array([[1.0, 0, 1, 0], [0, 1, 0, 1]])) == pytest.approx((0.5 + 1) / 2)
    assert udr([z, np.hstack([z, z])])["scores"] == pytest.approx([0.9 * 0.75] * 2, abs=0.01)


def test_median_over_the_others(z):
    scores = udr([z, z, z, np.random.default_rng(1).normal(size=z.shape)], method="lasso")
    assert scores["scores"] == pytest.approx([0.9, 0.9, 0.9, 0], abs=0.01)  # one outlier among three does not count
    pairs = np.array(scores["pairs"], dtype=float)
    assert np.isnan(np.diag(pairs)).all() and scores["pairs"][0][0] is None
    assert scores["scores"] == pytest.approx(np.nanmedian(pairs, axis=0).tolist())


def test_the_formula_in_loops(z):
    a, b = z @ np.array([[1, 0.5], [0, 1], [0.3, 0]]), z + 0.5 * np.random.default_rng(2).normal(size=z.shape)
    R = np.array([[abs(spearmanr(a[:, i], b[:, j]).statistic) for j in range(3)] for i in range(2)])
    assert relations(a, b, "spearman")[0] == pytest.approx(R)
    rows = [max(row) ** 2 / sum(row) for row in R]
    columns = [max(column) ** 2 / sum(column) for column in R.T]
    assert udr([a, b], method="spearman")["pairs"][0][1] == pytest.approx((sum(rows) / 2 + sum(columns) / 3) / 2)


def test_lasso_of_uncorrelated_numbers_is_a_soft_threshold():
    """Columns without correlation: a coefficient is the correlation less 0.1, or 0."""
    a = np.linalg.qr(np.column_stack([np.ones(400), np.random.default_rng(0).normal(size=(400, 3))]))[0][:, 1:]
    b = a @ np.array([[0.8, 0.05], [-0.6, 0], [0, 1]])
    correlation = np.array([[np.corrcoef(a[:, i], b[:, j])[0, 1] for j in range(2)] for i in range(3)])
    R, converged = relations(a, b, "lasso")
    assert converged and R == pytest.approx(np.maximum(np.abs(correlation) - 0.1, 0), abs=1e-4)


def test_dead_numbers_are_left_out(z):
    padded = np.hstack([z, np.full((800, 2), 0.1), 0.01 * np.random.default_rng(1).normal(size=(800, 1))])
    by_kl = udr([z, padded], [[1, 1, 1], [1, 1, 1, 0, 0, 0.01]], method="lasso")
    assert by_kl["scores"] == pytest.approx([0.9, 0.9], abs=0.01) and by_kl["active"][1] == ["z0", "z1", "z2"]
    constant = udr([z, padded], method="lasso")  # without KLs only the constant ones can be told
    assert constant["active"][1] == ["z0", "z1", "z2", "z5"] and constant["settings"]["dead"] == "constant"
    gone = udr([z, np.ones((800, 2)), z])
    assert gone["scores"][1] == 0 and gone["note"] == "model 1 has no active number"
    assert gone["scores"][0] == pytest.approx(0.45, abs=0.01)  # the median of 0 and 0.9


def test_models_and_data():
    data = Signals((5, 6, 7), ["a", "b", "c"])
    codes = CodeSpace([Block("x"), Block("y"), Block("z"), Block("kind", "onehot", (2,)), Block("v", inferred=False)])
    wide = Reader(lambda x: torch.cat([-x[:, [2, 0, 1]], torch.zeros(len(x), 3)], dim=1), codes, pixels=3)
    dead = Reader(lambda x: torch.cat([4 * x, 0.01 * x[:, :1]], dim=1), 4, pixels=3, logvar=[-3.0, -3.0, -3.0, 0.0])
    found = udr([wide, dead], data, points=600)
    assert found["scores"] == pytest.approx([0.9, 0.9], abs=0.05)
    assert found["left_out"] == [{"kind": "onehot", "v": "not inferred"}, {}]
    assert found["columns"] == [["x", "y", "z"], ["z0", "z1", "z2", "z3"]] and found["active"][1] == ["z0", "z1", "z2"]
    assert found["settings"] == {"method": "lasso, penalty 0.1", "seed": 0, "dead": "mean KL <= 0.01 nats or constant",
                                 "protocol": "model", "points": 600}
    nameless = ArrayData(torch.rand(50, 1, 1, 3, generator=torch.Generator().manual_seed(0)))
    assert udr([wide, wide], nameless, points=50)["dims"] == [3, 3]  # no factors are needed


def test_settings_seed_json_and_global_generators(z):
    data, reader = Signals((5, 6, 7), ["a", "b", "c"]), Reader(lambda x: x, 3, pixels=3)
    mixed = Reader(lambda x: x @ torch.tensor([[1.0, 1, 0], [1, -1, 0], [0, 0, 1]]), 3, pixels=3)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, again, other = (udr([reader, mixed], data, points=200, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert one == again == json.loads(json.dumps(one)) and one["scores"] != other["scores"]
    assert udr([torch.tensor(z), torch.tensor(z)]) == udr((z, z))


@pytest.mark.parametrize(("codes", "kl", "options", "message"), [
    ("z", None, {"method": "pearson"}, "method must be one of lasso, spearman, got 'pearson'"),
    ("z", None, {"points": 1}, "points must be a whole number of at least 2, got 1"),
    ("z", None, {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ([np.ones((4, 2))], None, {}, "this metric compares models: give a list of two or more tables of codes, or of "
                                  "models"),
    (np.ones((4, 2)), None, {}, "this metric compares models: give a list of two or more tables of codes, or of "
                                "models"),
    ([np.eye(3), np.eye(4)], None, {}, "the tables have 3, 4 rows: row n of each must belong to the same picture"),
    ([np.eye(3), np.full((3, 2), np.nan)], None, {}, "codes 1 holds NaN or infinite numbers in column(s) 0, 1"),
    ([np.ones((1, 2))] * 2, None, {}, "codes 0 has 1 row(s); a metric needs at least 2, better thousands"),
    ("z", [[1, 1, 1]], {}, "kl has 1 entries for 2 tables of codes"),
    ("z", 3, {}, "kl must be a list of KLs per column, one entry for each table of codes, or the models' data; got "
                 "int"),
    ("z", [[1, 1], None], {}, "kl 0 must hold 3 finite numbers, one per column of codes 0"),
    ([Reader(lambda x: x, 5)] * 2, None, {}, "models are compared on pictures: call udr([model, ...], data)"),
    ("z", Signals(), {}, "entry 0, ndarray, is no model that can encode: give a list of models and their data, or a "
                         "list of tables of codes and a list of KLs"),
    ([Reader(lambda x: x, CodeSpace([Block("all", shape=(5,))]))] * 2, Signals(), {},
     "model 0, Reader, has no inferred block of size 1 to compare"),
    ([Reader(lambda x: x * torch.nan, 5)] * 2, Signals(), {},
     "the codes of model 0 holds NaN or infinite numbers in column(s) 0, 1, 2, 3, 4"),
])
def test_bad_input(z, codes, kl, options, message):
    with pytest.raises(ValueError) as error:
        udr([z, z] if isinstance(codes, str) else codes, kl, **options)
    assert str(error.value) == message
