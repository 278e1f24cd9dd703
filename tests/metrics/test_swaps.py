"""Swaps read by a judge: models whose blocks are known, the names, the ceilings and the round trip."""

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from metrics.block_oracles import APART, SHORTCUT, Laid, Sight

from disentkit import models
from disentkit.codes import Block, CodeSpace
from disentkit.data.base import ArrayData
from disentkit.data.factors import FactorSpace, category
from disentkit.data.laws import HeldOut, Real
from disentkit.explore.ranking import ranked
from disentkit.metrics import accuracy_ceilings, block_probes, name_blocks, round_trip, swap_matrix
from disentkit.metrics.blocks import block_stats
from disentkit.metrics.swaps import Swaps, found

DOTS = toys.Dots()
CHANCE = np.array([1 / 2, 1 / 4, 1 / 4, 1 / 3])
NAMES = ["kind", "x", "y", "light"]


@pytest.fixture(scope="module")
def sight():
    return Sight(DOTS)


@pytest.fixture(scope="module")
def apart(sight):
    return swap_matrix(Laid(APART), DOTS, sight, n=600)


def test_each_factor_follows_its_block_only(apart):
    assert list(apart.follows.index) == list(apart.keeps.index) == ["f1", "f2", "f3", "f4", "all", "chance"]
    assert list(apart.follows.columns) == list(apart.keeps.columns) == list(apart.judge.index) == NAMES
    follows, keeps, off = apart.follows.iloc[:4].to_numpy(), apart.keeps.iloc[:4].to_numpy(), ~np.eye(4, dtype=bool)
    assert (np.diag(follows) == 1).all() and (keeps[off] == 1).all()
    assert (follows[off] == np.tile(np.diag(keeps), (4, 1))[off]).all()  # both: the pairs that share the value
    assert np.diag(keeps) == pytest.approx(CHANCE, abs=0.06)
    assert (apart.follows.loc["all"] == 1).all() and (apart.keeps.loc["all"] == np.diag(keeps)).all()
    assert apart.follows.loc["chance"].to_numpy() == pytest.approx(CHANCE, abs=0.005) and (apart.judge == 1).all()
    assert (apart.follows.loc["chance"] == apart.keeps.loc["chance"]).all()
    assert apart.settings == {"pairs": 600, "seed": 0, "codes": "pictures", "constant": []}
    assert apart.note == "600 pairs; the true values are those of the pictures that were encoded"
    assert (
        apart.followed() == ["x", "y", "light"] and apart.followed(1.9) == NAMES
    )  # of two values none is twice chance


def test_chance_is_what_the_draws_say(apart):
    """sum p_k^2 of donors and receivers together, not of the grid."""
    skewed = DOTS.with_law(HeldOut(DOTS.law, lambda v: (v[:, 1] > 4) & (v[:, 2] > 4)))
    swaps = swap_matrix(Laid(APART), skewed, Sight(DOTS), n=500)
    values = skewed.law.allowed(DOTS.space, "cpu")
    p = np.unique(values[:, 1], return_counts=True)[1] / len(values)
    assert swaps.follows.loc["chance", "x"] == pytest.approx((p**2).sum(), abs=0.03) and (p**2).sum() > 0.3


def test_the_shortcut(sight):
    swaps = swap_matrix(Laid(SHORTCUT), DOTS, sight, {"f1": "f1", "dead": ["f2", "f3"]}, n=300)
    assert (swaps.follows.loc["f1"] == 1).all() and (swaps.keeps.loc["dead"] == 1).all()
    assert (swaps.follows.loc["dead"] == swaps.keeps.loc["f1"]).all()
    assert swaps.follows.loc["dead"].to_numpy() == pytest.approx(CHANCE, abs=0.08)


def test_subsets(apart, sight):
    swaps = swap_matrix(Laid(APART), DOTS, sight, {"place": ["f2", "f3"], "rest": ["f1", "f4"]}, n=600)
    assert list(swaps.follows.index) == ["place", "rest", "all", "chance"]
    assert swaps.follows.loc["place", ["x", "y"]].tolist() == swaps.keeps.loc["rest", ["x", "y"]].tolist() == [1, 1]
    for row in ("all", "chance"):
        assert swaps.follows.loc[row].equals(apart.follows.loc[row])  # the same pairs


def test_a_copy_that_the_decoder_never_asks_for(sight):
    """A probe calls it a block that knows x; a swap shows that it has no say."""
    model = Laid({"all but x": ["kind", "y", "light"], "x": ["x"], "copy": ["x"]})
    assert block_probes(model, DOTS, n=300).loc[["x", "copy"], "x"].tolist() == [1, 1]
    swaps = swap_matrix(model, DOTS, sight, n=300)
    assert swaps.follows.loc["x", "x"] == 1 and swaps.follows.loc["copy", "x"] < 0.33
    assert found(swaps)["x"] == ("x", 1.0) and "copy" not in found(swaps)


def test_a_decoder_that_shows_nothing(sight):
    class Grey(Laid):
        def decode(self, codes):
            return torch.full((len(codes), *self.image_shape), 0.3)

    swaps = swap_matrix(Grey(APART), DOTS, sight, n=600)
    assert swaps.follows.iloc[:5].to_numpy() == pytest.approx(np.tile(CHANCE, (5, 1)), abs=0.06)
    assert found(swaps) == {} and swaps.followed() == []


def test_without_an_encoder_values_are_read_by_the_judge(sight):
    swaps = swap_matrix(DOTS, DOTS, sight, n=300)  # the renderer itself: its blocks are its factors
    off = ~np.eye(4, dtype=bool)
    assert (np.diag(swaps.follows.iloc[:4]) == 1).all() and (swaps.keeps.iloc[:4].to_numpy()[off] == 1).all()
    assert (swaps.follows.loc["all"] == 1).all() and swaps.settings["codes"] == "prior"
    assert swaps.note.startswith("300 pairs of codes from the prior, since the model has no encoder; their values are")


def test_blocks_that_no_encoder_reads_are_swapped_too(sight):
    """As in InfoGAN: the pose is noise, which the encoder fills with the prior's centre."""

    class Half(Laid):
        def __init__(self):
            super().__init__({"kind": ["kind"], "noise": ["x", "y"], "light": ["light"]})
            kinds = {"kind": "onehot", "light": "onehot", "noise": "free"}
            self.codes = CodeSpace(
                Block(b.name, kinds[b.name], b.shape, inferred=b.name != "noise") for b in self.codes
            )

    swaps = swap_matrix(Half(), DOTS, sight, n=300)
    assert swaps.settings["codes"] == "prior" and "since a block is not inferred from pictures" in swaps.note
    assert swaps.follows.loc["noise", ["x", "y"]].tolist() == [1, 1] and swaps.follows.loc["kind", "x"] < 0.4
    assert found(swaps)["noise"][0] in ("x", "y")


def test_a_generator_that_shows_one_picture_only(sight):
    class One(toys.Dots):
        def decode(self, codes):
            return super().decode(torch.zeros_like(codes))

    swaps = swap_matrix(One(), DOTS, sight, n=50)
    assert (swaps.follows == 1).all(axis=None) and found(swaps) == {} and swaps.followed() == []


def test_factors_by_their_grid_and_factors_that_stand_still(sight):
    law = HeldOut(DOTS.law, lambda v: v[:, 0] > 0)
    swaps = swap_matrix(Laid(APART), DOTS.with_law(law), sight, n=100)
    assert list(swaps.follows.columns) == ["x", "y", "light"] and swaps.settings["constant"] == ["kind"]
    real = swap_matrix(Laid(APART), DOTS.with_law(Real()), sight, n=300)
    assert (
        real.follows.loc["all", "x"] > 0.9 and real.follows.loc["f2", "x"] > 0.9 and real.follows.loc["f3", "x"] < 0.4
    )


@pytest.mark.parametrize("name", toys.TOYS)
def test_every_toy(name, toy_runs, sight):
    model = toy_runs[name].model
    before = torch.get_rng_state()
    swaps, again = (swap_matrix(model, DOTS, sight, n=60) for _ in range(2))
    assert list(swaps.follows.index) == [*model.codes.names, "all", "chance"]
    assert swaps.follows.equals(again.follows) and torch.equal(before, torch.get_rng_state())
    assert swaps.follows.to_numpy().min() >= 0 and swaps.follows.to_numpy().max() <= 1
    named = name_blocks(block_stats(model, DOTS, n=60), swaps)
    ranked(model.codes, named)
    series = round_trip(model, DOTS, n=20)
    assert list(series.index) == [b.name for b in model.codes if b.inferred]


# ---- names


def table(**rows):
    return pd.DataFrame.from_dict(rows, orient="index", columns=["hair", "hue"])


def test_found_by_hand():
    follows = table(a=[0.55, 0.3], b=[0.5, 0.1], both=[0.52, 0.145], all=[1, 1], chance=[0.5, 0.1])
    assert found(follows) == {"a": ("hue", pytest.approx(2 / 9))}  # 0.05 / 0.5 of hair is less than 0.2 / 0.9 of hue
    assert found(follows, least=0.04)["both"] == ("hue", pytest.approx(0.05)) and "b" not in found(follows, least=0.04)
    swaps = Swaps(follows, follows, follows.loc["all"], {}, "")
    assert swaps.followed() == ["hue"] and swaps.followed(4) == []
    assert swaps.above_chance().loc["a"].tolist() == pytest.approx([0.1, 2 / 9])
    still = table(a=[1, 0.3], chance=[1.0, 0.1])
    assert found(still) == {"a": ("hue", pytest.approx(2 / 9))}  # a factor that never changes follows nothing


def test_names_join_the_statistics(apart):
    stats = [{"name": "f1", "factor": None, "correlation": None}, {"name": "f2", "factor": "light", "correlation": 0.4},
             {"name": "f9", "factor": None, "correlation": None}]  # fmt: skip
    named = name_blocks(stats, apart)
    assert named[0] == {"name": "f1", "factor": "kind", "correlation": 1.0}
    assert named[1:] == stats[1:] and stats[0]["factor"] is None
    model = Laid(APART)
    rows = ranked(model.codes, name_blocks(block_stats(model, DOTS, n=100), apart.follows))
    assert {row.name for row in rows} == {"f1  kind (1.00)", "f2  x (1.00)", "f3  y (1.00)", "f4  light (1.00)"}


# ---- the classifier's ceiling


def test_ceilings():
    space = FactorSpace([category("two", "a", "b"), category("ten", *"abcdefghij")])
    assert accuracy_ceilings(space) == {"two": 0.75, "ten": 0.95}
    factors = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 2]])
    assert accuracy_ceilings(space, factors) == {"two": 1 - (9 + 1) / 16 / 2, "ten": 1 - (1 + 1 + 4) / 16 / 2}
    with pytest.raises(ValueError, match="ceilings are those of a FactorSpace, data.space, not of Dots"):
        accuracy_ceilings(DOTS)


def test_no_guess_beats_the_ceiling():
    """Which of two pictures did the value in the third come from? The best guesser there is, on a skewed factor."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(3, (100_000, 2), p=[0.6, 0.3, 0.1])
    bit = rng.integers(0, 2, len(drawn))
    shown = drawn[np.arange(len(drawn)), bit]
    guess = np.where(drawn[:, 0] == drawn[:, 1], rng.integers(0, 2, len(drawn)), shown == drawn[:, 1])
    space = FactorSpace([category("three", "a", "b", "c")])
    ceiling = accuracy_ceilings(space, torch.from_numpy(drawn.reshape(-1, 1)))["three"]
    assert (guess == bit).mean() == pytest.approx(ceiling, abs=0.005)


# ---- the round trip


def test_round_trip():
    assert round_trip(Laid(APART), DOTS, n=100).tolist() == [0, 0, 0, 0]
    model = Laid({"picture": NAMES, "copy": NAMES, "dead": []})
    series = round_trip(model, DOTS, n=300)
    assert series["picture"] == 0 and np.isnan(series["dead"])
    assert series["copy"] == pytest.approx(0.5, abs=0.1)  # half of the time it comes from the other picture
    assert series.attrs == {"left_out": {}}


def test_round_trip_by_hand(toy_runs):
    model = toy_runs["Groups"].model
    rng = torch.Generator().manual_seed(3)
    a, b = (models.encode(model, DOTS.sample(50, rng)["x"]) for _ in range(2))
    mixed = model.codes.mix(a, b, torch.rand(50, 2, generator=rng) < 0.5)
    back = models.encode(model, models.decode(model, mixed))
    wanted = (back - mixed)[:, :3].norm(dim=1).mean() / (a - b)[:, :3].norm(dim=1).mean()
    assert round_trip(model, DOTS, n=50, seed=3)["x"] == pytest.approx(float(wanted), rel=1e-5)


def test_bad_input(sight, toy_runs):
    model, bare = Laid(APART), ArrayData(np.zeros((5, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="no block 'f9'; this code has f1, f2, f3, f4"):
        swap_matrix(model, DOTS, sight, ["f9"])
    with pytest.raises(ValueError, match="data set 'arrays' has none"):
        swap_matrix(model, bare, sight)
    with pytest.raises(ValueError, match=r"a judge reads pictures: give judging.judge_of\(data\), not str"):
        swap_matrix(model, DOTS, "judge")
    sight_of_others = Sight(DOTS)
    sight_of_others.space = FactorSpace([category("hair", "a", "b")])
    with pytest.raises(ValueError, match=r"this judge reads FactorSpace\(hair 2\), the data set 'dots' has"):
        swap_matrix(model, DOTS, sight_of_others)
    with pytest.raises(ValueError, match="give run.model"):
        swap_matrix(toy_runs["Toy"], DOTS, sight)
    with pytest.raises(ValueError, match="Dots has no encoder, so nothing comes back"):
        round_trip(DOTS, DOTS)
    with pytest.raises(ValueError, match="the frame has no row 'chance'"):
        found(table(a=[1, 1]))
    with pytest.raises(ValueError, match="a model is measured on a data set, got str"):
        round_trip(model, "dots")
    with pytest.raises(ValueError, match="blocks are named by what swap_matrix found, not by dict"):
        name_blocks([], {})
    with pytest.raises(ValueError, match=r"factors must be \(n, 4\)"):
        accuracy_ceilings(DOTS.space, torch.zeros(5, 3))
    with pytest.raises(ValueError, match="give at least one row"):
        accuracy_ceilings(DOTS.space, torch.zeros(0, 4))
    with pytest.raises(ValueError, match="blocks are names, or {row: names}, not int"):
        block_probes(model, DOTS, 3)


def test_broken_models_and_judges_are_told(sight):
    class Broken(Laid):
        def encode(self, x):
            return super().encode(x) * float("nan")

    class OneRow(Sight):
        def read(self, x):
            return super().read(x)[:1]

    for measure in (lambda model: swap_matrix(model, DOTS, sight, n=20), lambda model: round_trip(model, DOTS, n=20)):
        with pytest.raises(ValueError, match="codes hold NaN or infinite numbers: its weights are broken"):
            measure(Broken(APART))
    with pytest.raises(ValueError, match=r"gives a tensor \(20, 4\) of grid numbers, not \(1, 4\)"):
        swap_matrix(Laid(APART), DOTS, OneRow(DOTS), n=20)
    with pytest.raises(ValueError, match="a judge reads pictures"):
        swap_matrix(Laid(APART), DOTS, Sight, n=20)
