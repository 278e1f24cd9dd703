"""Steering on models whose directions are known: they do what was asked, leak what they must, and fail in one line."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from disentkit import metrics
from disentkit.codes import Block, CodeSpace
from disentkit.data.factors import Factor, category
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.steered import Steered, make_direction
from disentkit.metrics import ExactMask, readings, steering
from disentkit.metrics.reach import fine_energy, reach
from disentkit.metrics.steering import compare, distribution, leakage, profile, steer, truth

STEP = 0.08  # what one unit of a latent adds to its pixel


class Pixels:
    """A class and six latents in two chunks; latent j is pixel j, 0.5 + 0.08 z_j."""

    image_shape = (1, 8, 8)
    codes = CodeSpace([
        Block("class", "onehot", (2,)), Block("z1", "gaussian", (4,)), Block("z2", "gaussian", (2,)),
    ])  # fmt: skip

    def decode(self, codes):
        x = torch.zeros(len(codes), 64)
        x[:, :6] = (0.5 + STEP * codes[:, 2:]).clamp(0, 1)
        return x.reshape(-1, 1, 8, 8)


class Constant(Pixels):
    def decode(self, codes):
        return torch.full((len(codes), 1, 8, 8), 0.5)


class Reader:
    """Reads the first pixels; x is not found where it is below `lost`."""

    names = ("x", "y", "hue", "shape", "dead")
    factors = (Factor("hue", "cyclic", tuple(k / 8 for k in range(8))), category("shape", "disc", "star"))

    def __init__(self, lost=-1.0):
        self.lost = lost

    def __call__(self, images, codes=None):
        x = images.flatten(1)
        found = torch.stack([x[:, 0], x[:, 1], (8 * x[:, 2]) % 1, (x[:, 3] > 0.5).float(), x[:, 63]], dim=1)
        found[found[:, 0] < self.lost, 0] = math.nan
        return found


def towards(*weights, name="x", slope=STEP):
    """A direction over the latents, g(s) = slope s."""
    return make_direction(name, [0.0, 0.0, *weights, *[0.0] * (6 - len(weights))], [-2, 2], [-2 * slope, 2 * slope])


X, TILTED = towards(1.0), towards(0.8, 0.6)


# ---- what is measured along one direction


def test_a_perfect_direction_does_what_was_asked():
    found = steer(Pixels(), X, Reader(), n=50)
    assert found.requested == pytest.approx(np.linspace(-0.16, 0.16, 11)) and found.measured.shape == (11, 50, 5)
    assert found.of("x") == pytest.approx(np.tile(0.5 + found.requested[:, None], 50), abs=2e-6)
    assert found.spearman() > 0.99 and found.slope() == pytest.approx(1, abs=1e-4) and found.r2() > 0.9999
    assert found.std() == pytest.approx(np.zeros(11), abs=2e-6) and found.change() == pytest.approx(0.32, abs=1e-5)
    assert found.slope("y") == pytest.approx(0, abs=1e-6) and found.r2("y") < 1e-6  # every y comes at every t


def test_a_direction_of_the_wrong_sign_is_not_turned():
    found = steer(Pixels(), towards(-1.0), Reader(), n=20)
    assert found.slope() == pytest.approx(-1, abs=1e-4) and found.spearman() < -0.99 and found.change() < 0


def test_scores_are_those_of_the_textbooks_with_failures_left_out():
    found = steer(Pixels(), TILTED, Reader(lost=0.45), n=60)
    asked, got = np.repeat(found.requested, 60), found.of("x").ravel()
    known = np.isfinite(got)
    line = stats.linregress(asked[known], got[known])
    assert 0.3 < known.mean() < 0.9
    assert found.spearman() == pytest.approx(stats.spearmanr(asked[known], got[known]).statistic)
    assert (found.slope(), found.r2()) == pytest.approx((line.slope, line.rvalue**2))
    assert found.failures() == pytest.approx(1 - known.reshape(11, 60).mean(1)) and not found.failures("y").any()
    assert found.median()[5] == pytest.approx(np.nanmedian(found.of("x")[5]))
    assert found.std()[5] == pytest.approx(np.nanstd(found.of("x")[5]))


def test_the_spread_of_a_tilted_direction_is_what_it_leaves_alone():
    """x = c alpha + (z_x - c <z,u>): the bracket has the variance 1 - c^2 and no request can change it."""
    found = steer(Pixels(), TILTED, Reader(), n=4000, t=[-0.1, 0.0, 0.1])
    assert found.std() == pytest.approx(np.full(3, STEP * 0.6), rel=0.05)
    assert found.spread() == pytest.approx(found.std().mean()) and found.slope() == pytest.approx(0.8, abs=0.02)


def test_leaks_are_the_spread_along_the_path_over_that_of_samples():
    found = steer(Pixels(), TILTED, Reader(), n=2000)
    leaks = found.leaks()
    along = np.linspace(-2, 2, 11).std()
    assert leaks["x"] == pytest.approx(0.8 * along, rel=0.05) and leaks["y"] == pytest.approx(0.6 * along, rel=0.05)
    assert leaks["hue"] == pytest.approx(0, abs=1e-4) and leaks["shape"] == 0
    assert math.isnan(leaks["dead"])  # the same in all pictures: nothing to compare with


def test_a_category_leaks_the_share_of_readings_that_change():
    found = steer(Pixels(), towards(0, 0, 0, 1.0, name="shape"), Reader(), n=200)
    start = found.start[:, 3]
    changed = np.mean([[(t > 1e-9) != s for s in start] for t in found.requested])
    assert found.leaks()["shape"] == pytest.approx(changed) and 0.4 < changed < 0.6
    assert found.leaks()["x"] == pytest.approx(0, abs=1e-4)


def test_a_cyclic_factor_is_measured_on_the_circle():
    hue = Reader.factors[0]
    near = np.array([0.98, 0.99, 0.0, 0.01, 0.02])  # across the seam
    assert readings.deviation(near, hue) == pytest.approx(np.std([-0.02, -0.01, 0, 0.01, 0.02]), rel=0.01)
    assert readings.deviation(np.arange(8) / 8, hue) == pytest.approx(math.sqrt(2) / (2 * math.pi))
    turned = Factor("turn", "cyclic", (0.0, 1.0), unit="rad")
    assert readings.deviation(np.array([0.1, 2 * math.pi - 0.1]), turned) == pytest.approx(0.1, rel=0.01)
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, 2.0]])
    np.testing.assert_allclose(readings.deviation(values), [1.0, np.nan])
    along = steer(Pixels(), towards(0, 0, 1.0, name="hue"), Reader(), n=100).leaks()
    assert 0.9 < along["hue"] < 1.2  # 0.64 of a turn to and fro: as far from each other as samples are


def test_frame_is_long_and_says_what_was_measured():
    found = steer(Pixels(), X, Reader(), n=3, t=[0.0, 0.1])
    frame = found.frame()
    assert len(frame) == 2 * 3 * 5 and list(frame) == ["code", "t", "factor", "measured"]
    row = frame[(frame.code == 2) & (frame.t == 0.1) & (frame.factor == "y")]
    assert row.measured.item() == found.measured[1, 2, 1]


def test_within_leaves_the_values_that_were_asked_for_there():
    found = steer(Pixels(), X, Reader(), n=5, t=np.linspace(-0.4, 0.4, 11))
    assert found.within().requested == pytest.approx([-0.16, -0.08, 0, 0.08, 0.16])
    assert found.within(0.1, 0.3).measured.shape == (2, 5, 5)
    with pytest.raises(ValueError, match="1 of the 11 requested values lie in 0.01 ... 0.1"):
        found.within(0.01, 0.1)


def test_the_seed_says_which_codes_and_batches_do_not_matter(monkeypatch):
    state = torch.random.get_rng_state()
    a, b, other = (steer(Pixels(), X, Reader(), n=20, seed=seed) for seed in (1, 1, 2))
    assert (a.measured == b.measured).all() and (a.start != other.start).any()
    assert (torch.random.get_rng_state() == state).all() and a.settings == {"codes": 20, "seed": 1}
    monkeypatch.setattr(readings, "CHUNK", 7)
    assert steer(Pixels(), X, Reader(), n=20, seed=1).measured == pytest.approx(a.measured, abs=2e-6)
    codes = Pixels.codes.prior(20, torch.Generator().manual_seed(1))
    given = steer(Pixels(), X, Reader(), codes=codes)
    assert (given.start == a.start).all() and given.settings == {"codes": 20, "seed": None}


def test_names_of_a_steered_model_and_plain_blocks_will_do():
    model = Steered(Pixels(), [X])
    assert (steer(model, "x", Reader(), n=9).measured == steer(Pixels(), X, Reader(), n=9).measured).all()

    class Scalars(Pixels):
        codes = CodeSpace([Block("class", "onehot", (2,)), *(Block(f"z{j}", "gaussian") for j in range(6))])

    found = steer(Scalars(), "z0", Reader(), n=9)  # asked for in its own unit, -2 ... 2
    assert found.slope("x") == pytest.approx(STEP, rel=1e-3)


# ---- tables over directions


def test_leakage_has_a_row_per_direction_from_the_same_codes():
    model = Steered(Pixels(), [X, towards(0, 1.0, name="y")])
    table = leakage(model, None, Reader(), n=100)
    assert list(table.index) == ["x", "y"] and list(table) == list(Reader.names)
    assert table.loc["x", "x"] > 0.9 and table.loc["x", "y"] < 1e-3 and table.loc["y", "x"] < 1e-3
    one = leakage(model, {"ours": "x"}, Reader(), n=100)
    assert one.loc["ours"].to_dict() == pytest.approx(table.loc["x"].to_dict(), nan_ok=True)
    assert steer(model, "x", Reader(), n=100).leaks().equals(table.loc["x"])


def test_compare_names_the_worst_leak():
    given = {"true": X, "tilted": TILTED, "other": towards(0, 0, 0, 0, 1.0)}
    table = compare(Pixels(), given, Reader(), "x", n=300)
    assert table.loc["true", "slope"] == pytest.approx(1, abs=1e-3) and table.loc["true", "leak"] < 1e-3
    assert table.loc["tilted", "into"] == "y" and 0.6 < table.loc["tilted", "leak"] < 0.9
    assert table.loc["other", ["spearman", "slope", "r2", "change"]].abs().max() < 1e-3
    assert (table["failures"] == 0).all() and table.loc["true", "change"] == pytest.approx(0.32, abs=1e-4)


# ---- the distribution that was asked for


def test_redistributed_samples_are_near_the_uniform_that_was_asked_for():
    found = distribution(Pixels(), X, Reader(), -0.1, 0.2, n=600)
    assert found.offset == pytest.approx(0.5, abs=1e-5)
    share = np.clip((np.sort(found.plain) - 0.4) / 0.3, 0, 1)
    steps = np.arange(601) / 600
    assert found.before == pytest.approx(max((steps[1:] - share).max(), (share - steps[:-1]).max()))
    assert found.before > 0.15 and found.after < 1.63 / math.sqrt(600)  # the 1 % bound of a uniform sample
    assert 0.4 - 1e-5 <= found.chosen.min() and found.chosen.max() <= 0.7 + 1e-5


def test_a_distribution_needs_readings_and_a_fitted_direction():
    with pytest.raises(ValueError, match="only 0 of 30 readings of 'x' are known"):
        distribution(Pixels(), X, Reader(lost=2.0), -0.1, 0.1, n=30)
    with pytest.raises(ValueError, match="low < high, got 0.1 and 0.1"):
        distribution(Pixels(), X, Reader(), 0.1, 0.1, n=30)
    with pytest.raises(ValueError, match="'plain' is no fitted Direction"):
        distribution(Pixels(), Block("plain", at=(2,)), Reader(), -1.0, 1.0, n=30, name="x")


# ---- how far it carries


class Saturating(Pixels):
    """x goes on to |z| = 3 and stands still; beyond 4 the picture is noise."""

    def decode(self, codes):
        x = super().decode(codes).flatten(1)
        z = codes[:, 2]
        x[:, 0] = 0.5 + STEP * z.clamp(-3, 3)
        board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
        x[:, 8:] = x[:, 8:] + 0.5 * board.flatten()[8:] * (z > 4)[:, None]
        return x.reshape(-1, 1, 8, 8)


def test_reach_says_where_the_change_stops_and_the_picture_breaks():
    found = reach(Saturating(), X, Reader(lost=0.29), n=20)
    assert found.alphas[0] == -6 and found.t == pytest.approx(STEP * found.alphas)
    assert math.isnan(found.stops[0]) and found.stops[1] == 3.5  # half the slope at 3; nothing is found from -3 on
    assert found.breaks[0] == 3.0 and math.isnan(found.breaks[1]) and found.carries == (3.0, 3.5)


def test_reach_on_both_sides_with_a_second_opinion_and_fine_detail():
    noisy = lambda x: x.flatten(1)[:, 8:].amax(1) > 0.2  # noqa: E731
    found = reach(Saturating(), X, Reader(), n=20, breaks=noisy)
    assert found.stops == (3.5, 3.5) and math.isnan(found.breaks[0]) and found.breaks[1] == 4.5
    assert found.carries == (3.5, 3.5) and not found.failures.any()
    at = dict(zip(found.alphas, found.energy))
    assert at[5.0] > 5 and at[0.0] == pytest.approx(1, rel=0.2)
    assert found.frame().loc[6.0, "broken"] == 1 and found.row()["breaks above"] == 4.5
    assert found.centre == pytest.approx(STEP, rel=1e-3) and found.slope[12] == pytest.approx(STEP, rel=1e-3)


def test_reach_refuses_alphas_and_opinions_that_cannot_be():
    for alphas in ([0, 1, 2], [-1, 0], [-6, 0, 6], [1, 0, -1]):
        with pytest.raises(ValueError, match="alphas must ascend from below 0 to above 0"):
            reach(Pixels(), X, Reader(), n=5, alphas=alphas)
    with pytest.raises(ValueError, match="breaks says True or False of each of 5 pictures"):
        reach(Pixels(), X, Reader(), n=5, breaks=lambda x: x.mean())


def test_fine_energy_is_that_of_short_waves():
    place = torch.arange(32.0)
    board = ((place[:, None] + place) % 2 - 0.5).reshape(1, 1, 32, 32)
    slow = torch.cos(2 * math.pi * 4 * place / 32).expand(1, 1, 32, 32)
    assert fine_energy(board) == pytest.approx([0.25], rel=1e-5) and fine_energy(slow) < 1e-9
    x = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert fine_energy(x, above=0) == pytest.approx(x.var((2, 3), correction=0).mean(1).numpy(), rel=1e-4)


# ---- where u is


def test_profile_splits_u_over_the_chunks_and_truth_keeps_the_sign():
    u = make_direction("x", [0, 0, 3.0, 0, 0, 0, 4.0, 0])
    model = Steered(Pixels(), [u])
    assert profile(model, "x").to_dict() == pytest.approx({"z1": 0.36, "z2": 0.64})
    assert truth(TILTED, X.u) == pytest.approx(0.8) and truth(TILTED, -torch.tensor(X.u)) == pytest.approx(-0.8)
    for wrong in ([1.0, 0.0], [0.0] * 8, [math.nan] * 8):
        with pytest.raises(ValueError, match="must be 8 finite numbers, not all 0"):
            truth(X, wrong)
    with pytest.raises(ValueError, match="'z' has no u: give a Direction"):
        profile(Pixels(), Block("z", at=(2,)))


# ---- models that ignore their code, instruments that see nothing, and what cannot be asked


def test_a_model_that_ignores_its_code_follows_nothing():
    found = steer(Constant(), X, Reader(), n=10)
    assert [found.spearman(), found.r2(), found.spread(), found.change(), found.slope()] == pytest.approx([0] * 5)
    assert found.leaks().drop("shape").isna().all() and found.leaks()["shape"] == 0
    assert reach(Constant(), X, Reader(), n=10).stops == (0, 0)
    table = compare(Constant(), [X], Reader(), n=10)
    assert table.loc["x", "leak"] == 0 and table.loc["x", "into"] == "shape"


def test_an_instrument_that_sees_nothing_gives_nan_and_no_warning():
    found = steer(Pixels(), X, Reader(lost=2.0), n=10)
    numbers = found.spearman(), found.slope(), found.r2(), found.spread(), found.change(), found.leaks()["x"]
    assert np.isnan(numbers).all() and (found.failures() == 1).all() and np.isnan(found.median()).all()
    assert found.slope("y") == pytest.approx(0, abs=1e-6)
    far = reach(Pixels(), X, Reader(lost=2.0), n=10)
    assert far.breaks == (0, 0) and np.isnan(far.stops).all() and far.carries == (0, 0)


@pytest.mark.parametrize(("change", "says"), [
    ({"model": object()}, "measures a model with codes and decode, got object"),
    ({"direction": "nowhere"}, "no block 'nowhere'; this code has class, z1, z2"),
    ({"direction": "z1"}, "a direction is a scalar block"),
    ({"direction": 3}, "a direction is a scalar block or the name of one, not 3"),
    ({"direction": Block("loose")}, "'loose' has no place in a code"),
    ({"direction": make_direction("x", [1.0, 0.0])}, "for codes of 2 numbers, this model's have 8"),
    ({"instrument": Reader}, "has names, type is none"),
    ({"instrument": lambda images, codes=None: images}, "has names, function is none"),
    ({"n": 1}, "n must be a whole number of at least 2, got 1"),
    ({"seed": -1}, "seed must be a whole number of at least 0"),
    ({"t": [0.1]}, "t must hold two finite values or more"),
    ({"t": [0.2, 0.1]}, "ascending and without repeats"),
    ({"codes": torch.zeros(1, 8)}, "needs two codes or more, all finite, got 1"),
    ({"codes": torch.full((3, 8), math.nan)}, "needs two codes or more, all finite"),
    ({"codes": torch.zeros(3, 7)}, r"codes must be \(N, 8\)"),
])  # fmt: skip
def test_what_cannot_be_steered_is_said_in_one_line(change, says):
    asked = {"model": Pixels(), "direction": X, "instrument": Reader(), "n": 5} | change
    with pytest.raises(ValueError, match=says) as e:
        steer(asked.pop("model"), asked.pop("direction"), asked.pop("instrument"), **asked)
    assert "\n" not in str(e.value)


def test_wrong_factors_and_answers_are_named():
    found = steer(Pixels(), X, Reader(), n=5)
    for ask in (found.spearman, found.std, found.of):
        with pytest.raises(ValueError, match="'z' is not measured; this instrument measures x, y, hue, shape, dead"):
            ask("z")
    with pytest.raises(ValueError, match="'random' is not measured"):
        steer(Pixels(), X.named("random"), Reader(), n=5).slope()

    class Short(Reader):
        def __call__(self, images, codes=None):
            return super().__call__(images)[:, :2]

    with pytest.raises(ValueError, match=r"gives \(5, 5\) for x, y, hue, shape, dead, not \(5, 2\)"):
        steer(Pixels(), X, Short(), n=5)

    class Broken(Pixels):
        def decode(self, codes):
            return super().decode(codes) * math.nan

    with pytest.raises(ValueError, match="pictures hold NaN"):
        steer(Broken(), X, Reader(), n=5)


def test_tables_need_directions_of_different_names():
    with pytest.raises(ValueError, match="there is no direction to measure"):
        leakage(Pixels(), None, Reader(), n=5)
    with pytest.raises(ValueError, match="two directions share one name"):
        leakage(Pixels(), [X, TILTED], Reader(), n=5)


# ---- the oracle: true u* and g


@pytest.fixture(scope="module")
def oracle():
    known = OracleGenerator(32)
    s = torch.linspace(-4, 4, 161)
    names = ("x", "y", "zoom", "brightness")
    return Steered(known, [make_direction(name, known.u(name), s, known.g(name, s)) for name in names])


def test_the_oracles_true_directions_score_full_marks(oracle):
    instrument = ExactMask(oracle)
    for name in ("x", "y", "zoom"):
        found = steer(oracle, name, instrument, n=40)
        assert found.spearman() > 0.99 and found.slope() == pytest.approx(1, abs=0.03) and found.r2() > 0.99
        assert found.leaks().drop(name).max() < 0.06 and 0.85 < found.leaks()[name] < 1.15
        assert truth(oracle.directions[name], oracle.base.u(name)) == pytest.approx(1, abs=1e-5)
    brightness = steer(oracle, "brightness", instrument, n=40)  # read off the picture, which holds colours too
    assert brightness.slope() == pytest.approx(1, abs=0.03) and brightness.spread() > 0.005


def test_a_direction_that_is_none_of_the_oracles_moves_nothing(oracle):
    known, rng = oracle.base, torch.Generator().manual_seed(0)
    u = torch.randn(40, generator=rng)
    u = u - known.directions.T @ (known.directions @ u)
    table = compare(oracle, {"true": "x", "random": make_direction("x", u)}, ExactMask(oracle), "x", n=40)
    assert abs(table.loc["random", "spearman"]) < 1e-2 and abs(table.loc["random", "change"]) < 1e-4
    assert table.loc["random", "leak"] < 1e-3 and table.loc["true", "spearman"] > 0.99


def test_the_oracles_x_takes_the_distribution_asked_for(oracle):
    found = distribution(oracle, "x", ExactMask(oracle), -0.2, 0.2, n=400)
    assert found.offset == pytest.approx(0.5, abs=1e-3)
    assert found.before > 0.13 and found.after < 1.63 / math.sqrt(400)


def test_the_oracles_x_stops_where_its_erf_is_flat(oracle):
    """The slope of erf(a / sqrt 2) is a tenth of that at 0 from a = sqrt(2 ln 10) = 2.146 on."""
    found = reach(oracle, "x", ExactMask(oracle), n=10, alphas=np.linspace(-4, 4, 81))
    assert found.stops == pytest.approx((2.3, 2.3), abs=0.11)  # the slope at the centre is that of |alpha| <= 1
    assert np.isnan(found.breaks).all() and found.carries == found.stops


def test_steering_is_named_by_the_package():
    assert metrics.steer is steering.steer and metrics.reach is reach and metrics.leakage is leakage
