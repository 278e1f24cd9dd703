"""The oracle: what it says of its directions is what its pictures show."""

import math

import pytest
import torch
from methods.family import rng

from disentkit import models
from disentkit.methods.oracle import FACTORS, OracleGenerator
from disentkit.methods.transforms import TRANSFORMS
from disentkit.models import Model

STEERED = ("x", "y", "zoom", "brightness")
oracle = OracleGenerator()


def codes(n: int = 20, seed: int = 0) -> torch.Tensor:
    return oracle.prior(n, rng(seed))


def measured(model, z: torch.Tensor) -> torch.Tensor:
    """x, y, zoom and brightness (N, 4) from the exact mask and the picture, in the shared units."""
    mask, x = model.mask(z), models.decode(model, z)
    place = (torch.arange(mask.shape[-1]) + 0.5) / mask.shape[-1]
    area = mask.mean((1, 2, 3))
    across, down = (mask * place).mean((1, 2, 3)) / area, (mask * place[:, None]).mean((1, 2, 3)) / area
    return torch.stack([across, down, area.log() / 2, x.mean((1, 2, 3))], 1)


def set_to(model, z: torch.Tensor, name: str, s: float) -> torch.Tensor:
    """The codes with <z, u> = s."""
    u = model.u(name)
    return z + (s - z @ u)[:, None] * u


def test_it_is_a_model():
    assert isinstance(oracle, Model) and oracle.codes.names == ("z",) and oracle.codes.size == 40
    assert not oracle.codes["z"].inferred and not models.can_encode(oracle)
    x = models.decode(oracle, codes())
    assert x.shape == (20, *oracle.image_shape) and oracle.mask(codes()).shape == (20, 1, 64, 64)
    assert oracle.factors == tuple(FACTORS) and oracle.factors[:4] == STEERED


def test_no_picture_leaves_the_range_declared():
    """Not even at the ends of all factors at once."""
    ends = torch.cartesian_prod(*[torch.tensor([-9.0, 9.0])] * 8)
    x = models.decode(oracle, ends @ oracle.directions)
    assert x.min() >= 0 and x.max() <= 1 and x.min() < 0.1 and x.max() > 0.9


def test_u_is_orthonormal_and_the_seeds():
    u = torch.stack([oracle.u(name) for name in oracle.factors])
    torch.testing.assert_close(u @ u.T, torch.eye(8), rtol=0, atol=1e-6)
    assert torch.equal(OracleGenerator().u("x"), oracle.u("x"))
    assert abs(float(OracleGenerator(seed=1).u("x") @ oracle.u("x"))) < 0.7


@pytest.mark.parametrize("size", [64, 32])
def test_factor_values_are_what_the_mask_measures(size):
    model = OracleGenerator(size)
    z = 0.5 * codes(200)
    torch.testing.assert_close(measured(model, z)[:, :3], model.factor_values(z)[:, :3], rtol=0, atol=0.003)


def test_factors_are_uniform_under_the_prior():
    values = oracle.factor_values(codes(20_000))
    for column, (middle, reach) in zip(values.T, FACTORS.values(), strict=True):
        quantiles = column.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
        wanted = middle + reach * torch.tensor([-1, -0.5, 0, 0.5, 1])
        torch.testing.assert_close(quantiles, wanted, rtol=0, atol=0.04 * reach)


@pytest.mark.parametrize("name", STEERED)
def test_an_edit_moves_the_picture_by_g(name):
    """A known direction moved by delta moves what is measured by delta, and the other three not at all."""
    k, z = STEERED.index(name), 0.5 * codes()
    start = measured(oracle, set_to(oracle, z, name, 0.0))
    for s in (-1.5, -0.5, 1.0):
        change = measured(oracle, set_to(oracle, z, name, s)) - start
        wanted = oracle.g(name, s).expand(20)
        torch.testing.assert_close(change[:, k], wanted, rtol=0, atol=0.003)
        others = [j for j in range(3) if j != k]  # the mean of a picture holds the disc's colour, so not brightness
        assert change[:, others].abs().max() < 0.006
    delta = 0.1
    now = z @ oracle.u(name)
    aim = oracle.inverse(name, oracle.g(name, now) + delta)
    moved = measured(oracle, z + (aim - now)[:, None] * oracle.u(name)) - measured(oracle, z)
    torch.testing.assert_close(moved[:, k], torch.full((20,), delta), rtol=0, atol=0.006)


@pytest.mark.parametrize("name", FACTORS)
def test_g_rises_from_zero_and_its_inverse_undoes_it(name):
    s = torch.linspace(-2.5, 2.5, 51)
    t = oracle.g(name, s)
    assert (t.diff() > 0).all() and oracle.g(name, 0.0) == 0 and t.abs().max() < FACTORS[name][1]
    torch.testing.assert_close(oracle.inverse(name, t), s, rtol=0, atol=1e-3)
    slope = (oracle.g(name, 1e-3) / 1e-3).item()
    assert slope == pytest.approx(FACTORS[name][1] * math.sqrt(2 / math.pi), rel=1e-3)
    assert oracle.inverse(name, 1.01 * FACTORS[name][1]).isnan()


@pytest.mark.parametrize("name", FACTORS)
def test_factors_change_the_picture_and_the_rest_of_the_code_does_not(name):
    z = codes()
    x = models.decode(oracle, z)
    assert (models.decode(oracle, z + oracle.u(name)) - x).abs().amax((1, 2, 3)).mean() > 0.02
    idle = torch.randn(40, generator=rng(3))
    idle = idle - idle @ oracle.directions.T @ oracle.directions
    torch.testing.assert_close(models.decode(oracle, z + idle), x, rtol=0, atol=1e-4)


def test_gradients_are_finite_useful_and_stay_in_their_row():
    z = codes().requires_grad_()
    (oracle.decode(z)[3] - 0.5).square().sum().backward()
    assert z.grad.isfinite().all() and (z.grad[3] != 0).any() and (z.grad[:3] == 0).all() and (z.grad[4:] == 0).all()
    far = (30 * codes()).requires_grad_()
    oracle.decode(far).square().sum().backward()
    assert far.grad.isfinite().all()


def test_gradients_are_the_differences():
    model = OracleGenerator(16, d=9).double()
    z = torch.randn(2, 9, generator=rng(), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: model.decode(z).mean((2, 3)), (z,), atol=1e-6)


def test_a_disc_a_radius_off_is_pulled_home():
    z = set_to(oracle, 0.3 * codes(), "x", 0.0)
    target = models.decode(oracle, set_to(oracle, z, "x", 0.5)).requires_grad_(False)
    z.requires_grad_()
    (oracle.decode(z) - target).square().sum().backward()
    assert (z.grad @ oracle.u("x") < 0).all()


def test_rows_do_not_see_each_other():
    z = codes(6)
    for function in (oracle.decode, oracle.mask, oracle.factor_values):
        alone = torch.cat([function(row[None]) for row in z])
        torch.testing.assert_close(function(z), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name, t", [("x", 8 / 64), ("zoom", 0.1), ("zoom", -0.2), ("brightness", 0.1)])
def test_the_transformation_is_the_edit(name, t):
    """Without texture, and with disc and horizon in the middle: a picture transformed is that of the code edited."""
    z = set_to(oracle, torch.zeros(1, 40), "texture", -9.0)
    target, mask = TRANSFORMS[name](models.decode(oracle, z), t)
    edited = models.decode(oracle, set_to(oracle, z, name, float(oracle.inverse(name, t))))
    known = (mask == 1).expand_as(target)
    torch.testing.assert_close(target[known], edited[known], rtol=0, atol=0.01)  # a zoomed horizon is softer
    assert (models.decode(oracle, z) - edited)[known].abs().max() > 0.03


def test_what_a_shift_by_y_asks_for_no_code_of_y_gives():
    """The horizon comes along: the picture of the edited code differs there, and with the horizon moved too it fits."""
    z = set_to(oracle, torch.zeros(1, 40), "texture", -9.0)
    target, mask = TRANSFORMS["y"](models.decode(oracle, z), 8 / 64)
    known = (mask == 1).expand_as(target)
    edited = set_to(oracle, z, "y", float(oracle.inverse("y", 8 / 64)))
    assert (models.decode(oracle, edited) - target)[known].abs().max() > 0.1
    both = set_to(oracle, edited, "horizon", float(oracle.inverse("horizon", 8 / 64)))
    torch.testing.assert_close(models.decode(oracle, both)[known], target[known], rtol=0, atol=1e-5)


def test_tied_moves_the_horizon_with_y_and_nothing_else():
    model = OracleGenerator(tied=0.6)
    for name in oracle.factors:
        if name != "horizon":
            torch.testing.assert_close(model.u(name), oracle.u(name))
    assert float(model.u("y") @ model.u("horizon")) == pytest.approx(0.6, abs=1e-6)
    assert float(model.u("horizon").norm()) == pytest.approx(1, abs=1e-6)
    scores = codes(20_000) @ torch.stack([model.u("y"), model.u("horizon")], 1)
    assert float(torch.corrcoef(scores.T)[0, 1]) == pytest.approx(0.6, abs=0.02)
    z = torch.zeros(1, 40)
    change = model.factor_values(z + model.u("y")) - model.factor_values(z)
    moved = dict(zip(model.factors, change[0].tolist(), strict=True))
    assert moved.pop("y") == pytest.approx(float(model.g("y", 1.0)), abs=1e-6)
    assert moved.pop("horizon") == pytest.approx(float(model.g("horizon", 0.6)), abs=1e-6)
    assert max(map(abs, moved.values())) < 1e-6
    torch.testing.assert_close(OracleGenerator(tied=1.0).u("horizon"), oracle.u("y"))


def test_the_texture_stays_fine_and_without_a_mean():
    for size in (16, 32, 64):
        pattern = OracleGenerator(size).texture
        assert pattern.abs().max() == pytest.approx(1, abs=1e-6) and abs(float(pattern.mean())) < 1e-6
        power = torch.fft.fft2(pattern).abs().square()
        cycles = torch.fft.fftfreq(size) * size
        far = torch.hypot(cycles[:, None], cycles)
        assert power[far < 0.4 * size * 5 / 16].sum() < 1e-6 * power.sum()


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"d": 7}, "d=7: the oracle has 8 factors"),
        ({"size": 8}, "16 pixels or more, not 8"),
        ({"tied": 1.5}, "tied must lie in 0 ... 1, not 1.5"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(ValueError, match=says):
        OracleGenerator(**settings)


@pytest.mark.parametrize("ask", [oracle.u, lambda name: oracle.g(name, 0.0), lambda name: oracle.inverse(name, 0.0)])
def test_unknown_factors(ask):
    with pytest.raises(ValueError, match="no factor 'hue'; the oracle has x, y, zoom"):
        ask("hue")
