"""Probes on blocks: oracles, constants, subsets, maps, stored pictures, and scikit-learn's probes beside ours."""

import numpy as np
import pytest
import torch
import toys
from metrics.block_oracles import APART, SHORTCUT, Laid
from metrics.oracles import Reader, Signals
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from disentkit import models
from disentkit.codes import Block, CodeSpace
from disentkit.data.base import ArrayData
from disentkit.data.laws import HeldOut, Real
from disentkit.metrics import block_probes
from disentkit.metrics.block_probes import balanced, linear, nearest
from disentkit.metrics.subsets import features, look

DOTS = toys.Dots()
CHANCE = [1 / 2, 1 / 4, 1 / 4, 1 / 3]
both = pytest.mark.parametrize("kind", ["linear", "nearest"])


@both
def test_each_factor_is_read_from_its_block_only(kind):
    frame = block_probes(Laid(APART), DOTS, kind=kind, n=1500)
    assert list(frame.index) == ["f1", "f2", "f3", "f4", "all", "chance"]
    assert list(frame.columns) == ["kind", "x", "y", "light"]
    assert frame.loc["chance"].tolist() == CHANCE and (frame.loc["all"] == 1).all()
    blocks = frame.iloc[:4].to_numpy()
    assert (np.diag(blocks) == 1).all()
    off = ~np.eye(4, dtype=bool)
    assert np.abs(blocks - CHANCE)[off].max() < 0.1  # 500 pictures held out


@both
def test_the_shortcut_is_seen(kind):
    frame = block_probes(Laid(SHORTCUT), DOTS, kind=kind, n=600)
    assert (frame.loc["f1"] > 0.95).all()  # of 96 pictures the nearest probe has not met every one
    assert frame.loc["f2"].tolist() == frame.loc["f3"].tolist() == CHANCE  # a constant says one value, always


def test_linear_is_discriminant_analysis():
    rng = np.random.default_rng(0)
    classes = np.stack([rng.integers(0, 3, 3000), rng.integers(0, 5, 3000)], axis=1)
    x = (
        rng.normal(size=(3000, 6))
        + rng.normal(size=(3, 6))[classes[:, 0]]
        + 0.7 * rng.normal(size=(5, 6))[classes[:, 1]]
    )
    read = linear(x[:2000], classes[:2000], x[2000:])
    for k, values in enumerate((3, 5)):
        theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(values, 1 / values))
        theirs.fit(x[:2000], classes[:2000, k])
        assert (theirs.predict(x[2000:]) == read[:, k]).mean() > 0.98  # the same but for RIDGE
        assert 1.5 / values < (read[:, k] == classes[2000:, k]).mean() < 0.95


def test_linear_finds_a_value_between_two_others():
    """One number that follows an ordered factor, which one-against-all least squares reads at its two ends only."""
    values = np.random.default_rng(0).integers(0, 5, (1000, 1))
    x = values + 0.1 * np.random.default_rng(1).normal(size=values.shape)
    assert (linear(x[:700], values[:700], x[700:]) == values[700:]).mean() > 0.99
    assert (linear(1e6 + x[:700], values[:700], 1e6 + x[700:]) == values[700:]).mean() > 0.99


def test_features_that_do_not_move_are_of_no_use():
    values = np.random.default_rng(0).integers(0, 2, (300, 1))
    x = np.hstack([np.full((300, 1), 0.1), values])
    assert (linear(x[:200], values[:200], x[200:]) == values[200:]).all()
    assert len(np.unique(linear(x[:200, :1], values[:200], x[200:, :1]))) == 1


def test_nearest_is_the_nearest():
    rng = np.random.default_rng(0)
    x, classes = rng.normal(size=(300, 4)), rng.integers(0, 3, (300, 2))
    theirs = KNeighborsClassifier(1).fit(x[:200], classes[:200]).predict(x[200:])
    assert (nearest(x[:200], classes[:200], x[200:]) == theirs).all()
    assert (nearest(1e4 + x[:200], classes[:200], 1e4 + x[200:]) == theirs).all()  # far from zero as well


def test_balanced():
    rng = np.random.default_rng(0)
    true, read = rng.choice(4, 500, p=[0.7, 0.1, 0.1, 0.1]), rng.integers(0, 4, 500)
    assert balanced(read, true) == pytest.approx(balanced_accuracy_score(true, read))
    assert balanced(np.zeros(500), true) == 0.25  # though 0.7 of the answers are right


def test_blocks_that_tell_only_together():
    """x + noise in one block, the noise in the other."""
    noise = 2 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    model = Reader(lambda p: torch.cat([p[:, :1] + noise[: len(p)], noise[: len(p)]], 1),
                   CodeSpace([Block("sum"), Block("noise")]), 2)  # fmt: skip
    data = Signals((3, 4), ["x", "y"])
    frame = block_probes(model, data, {"both": ["sum", "noise"], "one": "sum"}, n=400)
    assert list(frame.index) == ["both", "one", "all", "chance"]
    assert frame.loc["both", "x"] == frame.loc["all", "x"] == 1 and frame.loc["one", "x"] < 0.6
    assert list(block_probes(model, data, "noise", n=100).index) == ["noise", "all", "chance"]
    assert list(block_probes(model, data, ["noise", "sum"], n=100).index)[:2] == ["noise", "sum"]


def test_map_blocks_are_pooled():
    space = CodeSpace([Block("layout", "map", (2, 2, 2)), Block("light", "free")])
    values = torch.arange(18.0).reshape(2, 9)
    assert features(space, values, ["layout"]).tolist() == [[1.5, 5.5], [10.5, 14.5]]
    assert features(space, values, ["light", "layout"]).tolist() == [[8, 1.5, 5.5], [17, 10.5, 14.5]]
    signs = torch.tensor([3.0, -3.0, 1.0, -1.0])  # of mean 0: they hide b from the pooled block
    model = Reader(lambda p: torch.cat([p[:, :1] + signs, p[:, 1:2] * signs, p[:, 2:]], 1), space, 3)
    frame = block_probes(model, Signals((2, 2, 2), ["a", "b", "c"]), n=300)
    assert frame.loc["layout", "a"] == 1 and abs(frame.loc["layout", "b"] - 0.5) < 0.2 and frame.loc["light", "c"] == 1


def test_what_is_left_out_is_named():
    space = CodeSpace([Block("kind", "onehot", (2,)), Block("noise", "gaussian", (2,), inferred=False)])

    def encode(p):
        return torch.cat([p[:, :1], 1 - p[:, :1], torch.zeros(len(p), 2)], 1)

    model, data = Reader(encode, space, 2), Signals((2, 3), ["kind", "still"])
    data = data.with_law(HeldOut(data.law, lambda v: v[:, 1] > 0))
    frame = block_probes(model, data, n=60)
    assert list(frame.index) == ["kind", "all", "chance"] and list(frame.columns) == ["kind"]
    assert frame.attrs["left_out"] == {"noise": "not inferred"} and frame.attrs["constant"] == ["still"]
    assert frame.attrs["settings"] == {"kind": "linear", "train": 40, "test": 20, "seed": 0}
    with pytest.raises(ValueError, match="no encoder reads block 'noise', so it can only be measured by swaps"):
        block_probes(model, data, {"two": ["kind", "noise"]})


def test_values_between_those_of_the_grid():
    data = Signals((4, 5), ["x", "y"])
    frame = block_probes(Reader(lambda p: p, 2, 2), data.with_law(Real()), n=900)
    assert frame.loc["chance"].tolist() == [1 / 4, 1 / 5] and frame.loc["z0", "x"] > 0.9 and frame.loc["z1", "x"] < 0.35


def test_no_stored_picture_is_in_both_halves():
    """Codes that know every picture by heart and nothing of its class."""
    rng = np.random.default_rng(0)
    data = ArrayData(rng.random((400, 8, 8)).astype(np.float32), rng.integers(0, 2, (400, 1)))
    model = Reader(lambda p: p, 64, 64)
    model.image_shape = (1, 8, 8)
    assert len(look(model, data, 3000, 0).codes.unique(dim=0)) == 400 == len(look(model, data, 3000, 0).codes)
    frame = block_probes(model, data, {"some": ["z0", "z1"]}, kind="nearest", n=3000)
    assert frame.attrs["settings"]["test"] == 133 and abs(frame.loc["all", "f0"] - 0.5) < 0.15


def test_draws_are_its_own(toy_runs):
    before = torch.get_rng_state()
    model = toy_runs["Maps"].model
    one, two, other = (block_probes(model, DOTS, n=300, seed=s) for s in (0, 0, 1))
    assert one.equals(two) and not one.equals(other) and torch.equal(before, torch.get_rng_state())
    assert models.encode(model, DOTS.sample(2, torch.Generator())["x"]).shape == (2, 33)


@pytest.mark.parametrize("name", toys.TOYS)
def test_every_toy(name, toy_runs):
    frame = block_probes(toy_runs[name].model, DOTS, n=150)
    inferred = [b.name for b in toy_runs[name].model.codes if b.inferred]
    assert list(frame.index) == [*inferred, "all", "chance"] and frame.to_numpy().min() >= 0


def test_bad_input(toy_runs):
    model = Laid(APART)
    for told, change in {
        "kind must be one of linear, nearest, got 'forest'": {"kind": "forest"},
        "no block 'f9'; this code has f1, f2, f3, f4": {"blocks": ["f9"]},
        "row 'both' takes at least one block and each block once": {"blocks": {"both": ["f1", "f1"]}},
        r"row 'none' takes at least one block and each block once, not \[\]": {"blocks": {"none": []}},
        "there is no block to measure: name one": {"blocks": []},
        "a row cannot be called 'all'": {"blocks": {"all": ["f1"]}},
        "n must be a whole number of at least 2": {"n": 1},
    }.items():
        with pytest.raises(ValueError, match=told):
            block_probes(model, DOTS, **change)
    bare = ArrayData(np.zeros((5, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="this metric needs factors; data set 'arrays' has none"):
        block_probes(model, bare)
    with pytest.raises(ValueError, match="a model is measured on a data set, got list"):
        block_probes(model, [1])
    with pytest.raises(ValueError, match="Dots has no encoder: its blocks can only be measured by swaps"):
        block_probes(DOTS, DOTS)
    with pytest.raises(ValueError, match="give run.model"):
        block_probes(toy_runs["Toy"], DOTS)
    with pytest.raises(ValueError, match="measure a model with codes and decode, got str"):
        block_probes("mix", DOTS)
    broken = Reader(lambda p: p / 0, 2, 2)
    with pytest.raises(ValueError, match="the model's codes hold NaN or infinite numbers"):
        block_probes(broken, Signals((2, 3), ["a", "b"]), n=50)
    many = ArrayData(np.zeros((9, 16, 16), np.uint8), np.arange(9.0)[:, None] / 3)
    with pytest.raises(ValueError, match="factor 'f0' has 9 different values in 9 pictures"):
        block_probes(model, many)
    same = ArrayData(np.zeros((9, 16, 16), np.uint8), np.ones((9, 1)))
    with pytest.raises(ValueError, match="no factor of 'arrays' varies in 9 pictures"):
        block_probes(model, same)
