"""Co-prediction: oracles, leaks, constants, chance, scikit-learn's classifiers beside ours."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import toys
from metrics.oracles import Reader, Signals
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from disentkit.codes import Block, CodeSpace
from disentkit.data.base import ArrayData
from disentkit.data.laws import HeldOut
from disentkit.metrics import CoPrediction, co_prediction
from disentkit.metrics.coprediction import _accuracies, _chance, _order

SIZES, NAMES = (16, 5, 15), ["letter", "size", "hue"]
DATA = Signals(SIZES, NAMES)
EVEN = [1 / 16, 1 / 5, 1 / 15]
both = pytest.mark.parametrize("kind", ["linear", "mlp"])


def reader(rule, widths=SIZES, names=NAMES):
    return Reader(rule, CodeSpace(Block(name, "free", (width,)) for name, width in zip(names, widths)), len(SIZES))


def vectors(p, sizes=SIZES):
    """The one-hot vectors of the three factors shown by pixels (n, 3)."""
    return [F.one_hot((p[:, k] * (size - 1)).round().long(), size).float() for k, size in enumerate(sizes)]


def own(p):
    return torch.cat(vectors(p), 1)


def everything(p):
    return own(p).repeat(1, 3)


def quick(model, data=DATA, kind="mlp", **options):
    return co_prediction(model, data, kind, **({"n": 20_000, "seeds": 2, "steps": 80} | options))  # all 1200


@both
def test_each_block_knows_its_own_attribute_only(kind):
    found = quick(reader(own), kind=kind)
    frame = found.accuracy
    assert list(frame.index) == [*NAMES, "chance"] and list(frame.columns) == list(found.spread.columns) == NAMES
    blocks, off = frame.iloc[:3].to_numpy(), ~np.eye(3, dtype=bool)
    assert (np.diag(blocks) == 1).all() and found.diagonal == 1
    assert np.abs(blocks - EVEN)[off].max() < 0.07  # twice 300 pictures
    assert abs(found.leak) < 0.05 and found.off_diagonal == pytest.approx(blocks[off].mean())
    assert found.chance.tolist() == pytest.approx(EVEN) and (found.spread.to_numpy()[off] > 0).any()
    assert found.settings == {
        "kind": kind, "train": 900, "test": 300, "seeds": 2, "seed": 0, "steps": 80,
        "chance": dict.fromkeys(NAMES, "1 / values"), "constant": [], "missing": [],
    }  # fmt: skip


@both
def test_blocks_that_hold_everything_leak_everything(kind):
    found = quick(reader(everything, (36, 36, 36)), kind=kind)
    assert found.diagonal > 0.999 and found.off_diagonal > 0.999 and found.leak > 0.998


@both
def test_constants_are_at_chance(kind):
    found = quick(reader(lambda p: torch.full((len(p), 36), 7.3)), kind=kind)
    assert np.abs(found.accuracy.iloc[:3].to_numpy() - EVEN).max() < 0.07
    assert abs(found.leak) < 0.05


def test_wrong_names():
    """Each block knows the next attribute."""
    parts = reader(lambda p: torch.cat([vectors(p)[k] for k in (1, 2, 0)], 1), (5, 15, 16))
    found = quick(parts)
    assert found.diagonal == pytest.approx(np.mean(EVEN), abs=0.05)
    frame = found.accuracy
    assert frame.loc["letter", "size"] == frame.loc["size", "hue"] == frame.loc["hue", "letter"] == 1
    assert found.leak == pytest.approx(0.5, abs=0.05)  # three of six entries


def test_a_layer_sees_what_a_line_does_not():
    """Block a holds a * b and b, as signs: a is their product, and no half-plane holds more of it than chance.

    A third attribute, which no block shows, makes 400 pictures of the four.
    """

    def signs(p):
        a, b = (2 * p[:, :2] - 1).T
        return torch.stack([a * b, b, b], 1)

    model = Reader(signs, CodeSpace([Block("a", "free", (2,)), Block("b")]), 3)
    linear, mlp = (quick(model, Signals((2, 2, 100), ["a", "b", "c"]), kind).accuracy for kind in ("linear", "mlp"))
    assert linear.loc["a", "a"] < 0.75 and mlp.loc["a", "a"] == 1  # three of four corners lie in a half-plane
    assert linear.loc["a", "b"] == mlp.loc["a", "b"] == 1 and mlp.loc["b", "a"] == pytest.approx(0.5, abs=0.1)


def test_as_good_as_scikit_learn():
    rng = np.random.default_rng(0)
    classes = np.stack([rng.integers(0, 6, 3000), rng.integers(0, 3, 3000)], axis=1)
    x = rng.normal(size=(3000, 5)) + 1.5 * rng.normal(size=(6, 5))[classes[:, 0]]
    blocks, true = [torch.from_numpy(x).float()], torch.from_numpy(classes)
    for kind, theirs in (
        ("linear", LogisticRegression()),
        ("mlp", MLPClassifier(64, early_stopping=True, random_state=0, max_iter=60)),
    ):
        ours = _accuracies(blocks, true, [6, 3], 750, kind, 3, 0, 200).mean(0)[0]
        theirs.fit(x[750:], classes[750:, 0])
        assert ours[0] == pytest.approx(theirs.score(x[:750], classes[:750, 0]), abs=0.035) and ours[0] > 0.4
        assert ours[1] == pytest.approx(1 / 3, abs=0.06)


def test_a_code_of_each_picture_tells_no_attribute():
    """Other random numbers for each of 800 pictures, drawn five times each: they can be known by heart, not read.

    Measured: a leak of 0.01 and less; 0.40 by a layer and 0.08 by lines where pictures come again in the test.
    """
    data = Signals((10, 8, 10), NAMES)
    table = torch.randn(800, 48, generator=torch.Generator().manual_seed(0))
    codes = reader(lambda p: table[data.space.flat_of(data.space.to_grid(p))], (16, 16, 16))
    for kind in ("mlp", "linear"):
        found = co_prediction(codes, data, kind, n=4000, seeds=2, steps=150)
        assert abs(found.leak) < 0.04 and abs(found.diagonal - found.chance.mean()) < 0.05
        assert found.settings["train"] + found.settings["test"] <= 800


@both
def test_a_clean_code_is_at_chance_where_the_grid_is_small(kind):
    """What is not learned is tested, so by lot a clean code would leak -0.08; measured -0.01."""
    model = Reader(
        lambda p: torch.cat(vectors(p, (10, 8, 10)), 1),
        CodeSpace(Block(n, "free", (d,)) for n, d in zip(NAMES, (10, 8, 10))),
        3,
    )
    found = co_prediction(model, Signals((10, 8, 10), NAMES), kind, seeds=2, steps=80)
    assert found.diagonal == 1 and abs(found.leak) < 0.05


def test_combinations_are_parted_evenly():
    classes = torch.cartesian_prod(*(torch.arange(size) for size in (8, 4, 12)))
    rng = torch.Generator().manual_seed(0)
    a, b = (_order(classes, (8, 4, 12), True, rng) for _ in range(2))
    assert not torch.equal(a, b) and torch.equal(a.sort().values, torch.arange(384))
    for i, j in ((0, 1), (0, 2), (1, 2)):  # a quarter of the pictures with any two values
        counts = [(classes[rows, i] * 12 + classes[rows, j]).bincount() for rows in (a[:96], a)]
        assert torch.equal(4 * counts[0], counts[1])
    pairs = classes[:, :2].unique(dim=0)  # of two attributes alone by lot: nothing is left to be even over
    assert torch.equal(_order(pairs, (8, 4), True, rng).sort().values, torch.arange(32))


def test_scale_and_far_from_zero():
    found = quick(reader(lambda p: 1e4 + 1e-2 * own(p).double()), kind="linear", n=400)
    assert found.diagonal > 0.98


def test_seeds():
    before = torch.get_rng_state()
    noisy = reader(lambda p: own(p) + torch.sin(1e4 * (p @ torch.tensor([1.0, 2, 3])))[:, None])
    a, b, c = (quick(noisy, seed=seed, n=400, steps=30) for seed in (1, 1, 2))
    assert a.accuracy.equals(b.accuracy) and a.spread.equals(b.spread) and not a.accuracy.equals(c.accuracy)
    assert torch.equal(before, torch.get_rng_state())
    assert (quick(noisy, seeds=1, n=400, steps=5).spread == 0).all(axis=None)


def test_chance():
    assert _chance(np.array([50, 50])) == (0.5, "1 / values") and _chance(np.array([52, 48])) == (0.5, "1 / values")
    assert _chance(np.array([900, 50, 50])) == (0.9, "most frequent value")
    skewed = DATA.with_law(HeldOut(DATA.law, lambda v: (v[:, 0] > 0.3) & (v[:, 1] > 0.2)))  # 11 letters in one size
    found = quick(reader(own), skewed, steps=20)
    most = "most frequent value"
    assert found.settings["chance"] == {"letter": most, "size": most, "hue": "1 / values"}
    assert found.chance["size"] == pytest.approx(16 / 36) and found.chance["hue"] == 1 / 15


def test_summaries_by_hand():
    frame = pd.DataFrame(
        [[1.0, 0.4, 0.3], [0.6, 0.8, 0.5], [0.9, 0.9, 0.9], [0.5, 0.2, 0.1]],
        index=["a", "b", "rest", "chance"], columns=["a", "b", "c"],
    )  # fmt: skip
    found = CoPrediction(frame, frame.iloc[:3], {})
    assert found.diagonal == pytest.approx(0.9)
    assert found.off_diagonal == pytest.approx(0.45)  # without "rest", which is no attribute
    assert found.leak == pytest.approx(np.mean([0.2 / 0.8, 0.2 / 0.9, 0.1 / 0.5, 0.4 / 0.9]))
    alone = CoPrediction(frame.loc[["a", "chance"], ["a"]], frame.loc[["a"], ["a"]], {})
    assert alone.diagonal == 1 and np.isnan(alone.off_diagonal) and np.isnan(alone.leak)


def test_what_is_missing_is_named():
    found = quick(reader(own, names=["letter", "size", "rest"]), n=400, steps=60)
    assert found.settings["missing"] == ["hue"] and list(found.accuracy.index) == ["letter", "size", "rest", "chance"]
    assert found.diagonal > 0.98 and found.accuracy.loc["rest", "hue"] > 0.98 and found.leak < 0.2
    still = DATA.with_law(HeldOut(DATA.law, lambda v: v[:, 1] > 0.2))
    assert quick(reader(own), still, n=100, steps=2).settings["constant"] == ["size"]


def test_wide_and_map_blocks():
    model = toys.build("Maps").model  # a map "layout", a number "light"
    found = quick(model, toys.Dots(), n=100, steps=3)
    assert list(found.accuracy.index) == ["layout", "light", "chance"] and found.settings["missing"] == [
        "kind",
        "x",
        "y",
    ]


def test_attributes_that_hang_together_leak():
    """Each letter comes in one size, three or four in the same: even clean blocks tell something of each other."""
    tied = DATA.with_law(HeldOut(DATA.law, lambda v: (v[:, 0] * 4.9).floor() != (v[:, 1] * 4).round()))
    found = quick(reader(own), tied)
    assert found.accuracy.loc["letter", "size"] == 1 and found.leak > 0.15


def test_stored_pictures():
    batch = DATA.sample(90, torch.Generator().manual_seed(0))
    found = quick(reader(own), ArrayData(batch["x"], batch["factors"], DATA.space), n=500, steps=5)
    assert (found.settings["train"], found.settings["test"]) == (68, 22)


def test_bad_input():
    with pytest.raises(ValueError, match="kind must be one of mlp, linear, got 'forest'"):
        co_prediction(reader(own), DATA, "forest")
    with pytest.raises(ValueError, match=r"no block is named after an attribute \(letter, size, hue\); .*probes"):
        quick(reader(own, names=["z0", "z1", "z2"]), n=50)
    with pytest.raises(ValueError, match="Signals has no encoder"):
        co_prediction(DATA, DATA)
    with pytest.raises(ValueError, match="data set 'arrays' has none"):
        co_prediction(reader(own), ArrayData(np.zeros((5, 1, 3), np.uint8)))
    with pytest.raises(ValueError, match="seeds must be a whole number of at least 1, got 0"):
        co_prediction(reader(own), DATA, seeds=0)
    with pytest.raises(ValueError, match="the model's codes hold NaN"):
        co_prediction(reader(lambda p: own(p) * float("nan")), DATA, n=50)
    with pytest.raises(ValueError, match="factor 'letter' has 5 different values in 5 pictures"):
        data = ArrayData(np.zeros((5, 1, 3), np.uint8), [[k, 0, 0] for k in range(5)])
        data.space = toys.FactorSpace(toys.Factor(n, "real", tuple(range(5))) for n in NAMES)
        co_prediction(reader(own), data)
