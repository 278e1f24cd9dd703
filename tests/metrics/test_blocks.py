"""Block statistics of models whose factors, ranges and importance are known."""

import math

import numpy as np
import pytest
import torch
import toys
from scipy.stats import spearmanr

from disentkit import models
from disentkit.codes import Block, CodeSpace, gaussian_blocks
from disentkit.data.base import ArrayData, Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Real
from disentkit.metrics.blocks import block_stats, correlation_ratio, following


class Pixels(Renderer):
    """The picture is its factors: kind, x and turn, one pixel each, in [0, 1]."""

    name, image_shape = "pixels", (1, 1, 3)
    space = FactorSpace([category("kind", "a", "b", "c"), Factor("x", "real", tuple(range(10))),
                         Factor("turn", "cyclic", tuple(range(0, 360, 9)))])  # fmt: skip
    scale = torch.tensor([2.0, 9.0, 351.0])

    def render(self, values):
        return (values / self.scale).reshape(-1, 1, 1, 3)


class Oracle:
    """Reads the pixels by a rule (n, 3) -> (n, D), with a posterior where it is given; decodes to the first three."""

    image_shape = (1, 1, 3)

    def __init__(self, rule, codes, logvar=None):
        self.rule, self.codes = rule, codes
        if logvar is not None:
            self.posterior = lambda x: (self.encode(x), torch.tensor(logvar).expand(len(x), -1))

    def encode(self, x):
        return self.rule(x.flatten(1))

    def decode(self, codes):
        return torch.nn.functional.pad(codes, (0, 3))[:, :3].reshape(-1, 1, 1, 3)


def noise(x, j: int = 0, spread: float = 1.0):
    """A column that has nothing to do with the picture."""
    return spread * torch.sin(torch.arange(len(x)) * (12.9898 + j)).mul(43758.5453).frac()[:, None]


def test_an_oracle_finds_its_factors():
    model = Oracle(lambda p: torch.cat([-(p[:, 1:2] ** 3), p[:, :1], p[:, 2:], noise(p)], 1), gaussian_blocks(4))
    rows = block_stats(model, Pixels())
    assert [row["factor"] for row in rows[:3]] == ["x", "kind", "turn"]
    assert all(row["correlation"] == pytest.approx(1, abs=1e-6) for row in rows[:3])
    assert rows[3]["correlation"] < 0.08  # noise follows nothing, and no factor of many values by chance
    frame = following(model, Pixels())
    assert frame.shape == (4, 3) and list(frame.columns) == ["kind", "x", "turn"]
    assert frame.loc["z0", "x"] == pytest.approx(1) and frame.loc["z0", ["kind", "turn"]].max() < 0.08
    assert frame.loc["z3"].max() < 0.08


def test_the_measures_are_what_they_say():
    model = Oracle(lambda p: p[:, 1:2] + 0.5 * noise(p), gaussian_blocks(1))
    batch = Pixels().sample(2000, torch.Generator().manual_seed(0))
    z = models.encode(model, batch["x"])[:, 0].numpy()
    wanted = abs(spearmanr(z, batch["factors"][:, 1].numpy()).statistic)
    assert 0.5 < wanted < 0.99 and block_stats(model, Pixels())[0]["correlation"] == pytest.approx(wanted)


def test_correlation_ratio():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 4, 20_000)
    assert correlation_ratio(groups * 2.0, groups) == pytest.approx(1)
    assert correlation_ratio(np.array([3.0, -1, 7, 0])[groups], groups) == pytest.approx(1)  # in no order at all
    mixed = groups + rng.normal(size=20_000)  # variance 1.25 between the groups, 1 within
    assert correlation_ratio(mixed, groups) == pytest.approx(math.sqrt(1.25 / 2.25), abs=0.01)
    chance = [correlation_ratio(rng.normal(size=2000), rng.integers(0, 40, 2000)) ** 2 for _ in range(50)]
    assert np.mean(chance) < 0.008 and np.max(chance) < 0.03  # plain eta^2 would be 39 / 1999 = 0.02 on average


def test_cyclic_factors_under_a_law_between_grid_values():
    """Every value is there once: without the grid each would be a group of its own, and any latent would follow it."""
    model = Oracle(lambda p: torch.cat([p[:, 1:2], p[:, 2:], noise(p)], 1), gaussian_blocks(3))
    rows = block_stats(model, Pixels().with_law(Real()))
    assert [row["factor"] for row in rows[:2]] == ["x", "turn"]
    assert rows[1]["correlation"] > 0.99 and rows[2]["correlation"] < 0.1


def test_kl_is_the_formula():
    logvar = [-2.0, 0.0, -5.0]
    model = Oracle(lambda p: torch.cat([p[:, 1:2], 0 * p[:, :1], 2 * p[:, 2:]], 1), gaussian_blocks(3), logvar)
    rows = block_stats(model, Pixels())
    mu = model.encode(Pixels().sample(2000, torch.Generator().manual_seed(0))["x"])
    wanted = (0.5 * (mu**2 + torch.tensor(logvar).exp() - torch.tensor(logvar) - 1)).mean(0)
    assert [row["importance"] for row in rows] == pytest.approx(wanted.tolist(), rel=1e-5)
    assert [row["unit"] for row in rows] == ["nats"] * 3
    assert rows[1]["importance"] == 0
    assert [(row["low"], row["high"]) for row in rows] == [(-2, 2)] * 3


def test_a_collapsed_latent_follows_nothing():
    """Its mean still moves a little, in perfect order with x, but next to its noise that is nothing."""
    model = Oracle(lambda p: torch.cat([0.01 * p[:, 1:2], p[:, 1:2]], 1), gaussian_blocks(2), [0.0, -4.0])
    dead, alive = block_stats(model, Pixels())
    assert (dead["factor"], dead["correlation"]) == (None, None) and 0 < dead["importance"] < 1e-3
    assert alive["factor"] == "x"


def test_kl_of_a_group_is_the_sum_of_its_members():
    rule, logvar = (lambda p: p), [-2.0, -1.0, -5.0]
    single = block_stats(Oracle(rule, gaussian_blocks(3), logvar), Pixels())
    rows = block_stats(Oracle(rule, gaussian_blocks(3).regroup({"both": ["z2", "z0"]}), logvar), Pixels())
    assert [row["name"] for row in rows] == ["both", "z1"]
    assert rows[0]["importance"] == pytest.approx(single[0]["importance"] + single[2]["importance"], rel=1e-5)
    assert rows[0]["factor"] is None  # a wide block follows no single factor


def test_a_direction_is_measured_by_what_it_changes():
    """It is no position of the code, so no latent's KL is its own, even where the model has a posterior."""
    space = CodeSpace([toys.Direction("x", "free", u=(0.0, 1.0, 0.0), at=(0,))], size=3)
    (row,) = block_stats(Oracle(lambda p: p, space, [0.0, 0.0, 0.0]), Pixels())
    assert row["unit"] == "change" and row["factor"] == "x" and row["correlation"] == pytest.approx(1)
    assert (row["low"], row["high"]) == pytest.approx((0, 1), abs=0.01)  # percentiles of what it reads


def test_without_posterior_importance_is_the_change_of_a_pixel():
    space = CodeSpace([Block("a"), Block("b"), Block("idle")])
    model = Oracle(lambda p: torch.cat([p[:, 1:2], 0.1 * p[:, 1:2], 0 * p[:, :1]], 1), space)
    a, b, idle = block_stats(model, Pixels())
    assert a["importance"] == pytest.approx(10 * b["importance"], rel=1e-4) and idle["importance"] == 0
    batch = Pixels().sample(2000, torch.Generator().manual_seed(0))["x"].flatten(1)[:64, 1]
    assert a["importance"] == pytest.approx((batch - batch.flip(0)).abs().mean().item() / 3, rel=1e-4)


def test_blocks_that_no_encoder_reads_are_drawn_from_their_prior():
    space = CodeSpace([Block("x", "free"), Block("noise", "gaussian", (2,), inferred=False)])
    model = Oracle(lambda p: torch.cat([p[:, 1:2], torch.zeros(len(p), 2)], 1), space)  # the centre, as encoders do
    rows = block_stats(model, Pixels())
    assert rows[1]["importance"] > 0.3 and rows[1]["factor"] is None


def test_ranges():
    space = CodeSpace([Block("u", "uniform", low=-1, high=1), Block("f", "free"), Block("still", "free")])
    rows = block_stats(Oracle(lambda p: torch.cat([p[:, :1], 5 * p[:, 1:2] - 3, 0 * p[:, :1] + 4], 1), space), Pixels())
    assert [(row["low"], row["high"]) for row in rows] == [(-1, 1), pytest.approx((-3, 2)), pytest.approx((4, 4.001))]


def test_without_data_without_factors_without_encoder():
    assert all(row["factor"] is None and row["importance"] > 0 for row in block_stats(toys.Dots()))  # a renderer
    with_data = block_stats(toys.Dots(), toys.Dots(), n=100)
    assert [row["name"] for row in with_data] == ["kind", "x", "y", "light"] and with_data[0]["factor"] is None
    bare = ArrayData(np.random.default_rng(0).random((50, 1, 1, 3)).astype(np.float32)[..., :1])
    model = Oracle(lambda p: p.repeat(1, 3), gaussian_blocks(3))
    model.image_shape = bare.image_shape
    assert all(row["factor"] is None for row in block_stats(model, bare, n=20))
    with pytest.raises(ValueError, match="data set 'arrays' has no factors to follow"):
        following(model, bare)


def test_draws_are_its_own():
    before = torch.get_rng_state()
    model = Oracle(lambda p: p, gaussian_blocks(3))
    assert block_stats(model, Pixels()) == block_stats(model, Pixels())
    assert block_stats(model, Pixels(), seed=1) != block_stats(model, Pixels())
    assert torch.equal(before, torch.get_rng_state())
