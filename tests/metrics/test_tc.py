"""Total correlation against brute-force loops and on mixtures and Gaussians whose TC is known."""
import json
import math

import numpy as np
import pytest
import torch
from metrics.oracles import Reader, Signals
from torch.distributions import Normal

from disentkit.data.base import ArrayData
from disentkit.data.laws import Real
from disentkit.machine import seeded
from disentkit.methods.betatcvae import minibatch_tc
from disentkit.methods.minibatch_tc import mixture_tc
from disentkit.metrics import tc
from disentkit.metrics.tc import (
    aggregate_codes,
    discriminator_tc,
    gaussian_tc,
    kl_split,
    log_densities,
    tc_by_batch,
    total_correlation,
)
from disentkit.nets.factorvae import discriminator


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def posteriors(N, d, seed=0, width=-2.0):
    return torch.randn(N, d, generator=rng(seed)), width + 0.5 * torch.randn(N, d, generator=rng(seed + 1))


def corners(*signs, sigma=0.01):
    """Narrow posteriors at +-1 in each latent."""
    mu = torch.tensor(signs, dtype=torch.float32)
    return mu, torch.full_like(mu, 2 * math.log(sigma))


# ---- the mixture


@pytest.mark.parametrize("cells", [2**19, 20])
def test_densities_are_those_of_loops(cells, monkeypatch):
    """Also where the codes come in many pieces."""
    monkeypatch.setattr(tc, "CELLS", cells)
    mu, logvar = posteriors(9, 3)
    z = torch.randn(7, 3, generator=rng(5))
    log_q, log_qj = log_densities(z, mu, logvar)
    for s in range(7):
        p = [[Normal(mu[n, j], (logvar[n, j] / 2).exp()).log_prob(z[s, j]).exp().item() for j in range(3)]
             for n in range(9)]
        assert log_q[s].item() == pytest.approx(math.log(sum(math.prod(row) for row in p) / 9), rel=1e-4, abs=1e-5)
        for j in range(3):
            assert log_qj[s, j].item() == pytest.approx(math.log(sum(row[j] for row in p) / 9), rel=1e-4, abs=1e-5)


def test_kl_is_mi_and_tc_and_dimension_wise_kl():
    """The identity of the split: exact for the codes drawn, and with the formula's KL but for the error of sampling."""
    mu, logvar = posteriors(200, 4)
    split = kl_split(mu, logvar, samples=4_000)
    total = split["mi"] + split["tc"] + split["dwkl"]
    formula = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum(1).mean().item()
    assert split["kl"] == pytest.approx(formula, rel=1e-5)
    assert 0 < split["stderr"]["kl"] < 0.1 and abs(total - formula) < 4 * split["stderr"]["kl"]
    fine = kl_split(mu.double(), logvar.double(), samples=20_000)
    assert fine["mi"] + fine["tc"] + fine["dwkl"] == pytest.approx(formula, abs=0.03)
    assert min(split["mi"], split["tc"], split["dwkl"]) > 0


def test_corners_of_a_square():
    """Four corners: two independent bits. Two opposite corners: one bit, which each latent knows."""
    independent = kl_split(*corners((-1, -1), (-1, 1), (1, -1), (1, 1)), samples=400)
    assert independent["tc"] == pytest.approx(0, abs=1e-4) and independent["mi"] == pytest.approx(math.log(4), abs=1e-4)
    tied = kl_split(*corners((-1, -1), (1, 1)), samples=400)
    assert tied["tc"] == pytest.approx(math.log(2), abs=1e-4) and tied["mi"] == pytest.approx(math.log(2), abs=1e-4)
    three = kl_split(*corners((-1, -1, -1), (1, 1, 1)), samples=400)
    assert three["tc"] == pytest.approx(2 * math.log(2), abs=1e-4)


def test_codes_that_are_the_prior_know_nothing():
    split = kl_split(np.zeros((50, 3)), np.zeros((50, 3)))
    assert [split[k] for k in ("mi", "tc", "dwkl", "kl")] == pytest.approx([0, 0, 0, 0], abs=1e-9)


def test_a_shift_of_all_codes_is_dimension_wise_kl():
    split = kl_split(torch.full((50, 2), 3.0), torch.zeros(50, 2), samples=20_000)
    assert split["dwkl"] == pytest.approx(9, abs=0.15) and split["kl"] == pytest.approx(9)
    assert [split["mi"], split["tc"]] == pytest.approx([0, 0], abs=1e-6)


def test_a_gaussian_of_known_tc():
    """Wide posteriors around correlated means: q(z) is nearly Gaussian, and its TC nearly the closed form's."""
    mu = torch.randn(2_000, 2, generator=rng())
    mu[:, 1] = 0.8 * mu[:, 0] + 0.6 * mu[:, 1]
    found = kl_split(mu, torch.full_like(mu, 2 * math.log(0.5)), samples=4_000)
    cov = [[1.25, 0.8], [0.8, 1.25]]
    assert found["tc"] == pytest.approx(gaussian_tc(cov=cov)["tc"], abs=5 * found["stderr"]["tc"] + 0.01)
    assert found["note"] is None


def test_posteriors_that_do_not_overlap_are_noted():
    mu, _ = posteriors(200, 5)
    split = kl_split(mu, torch.full_like(mu, -14.0), samples=200)
    assert split["mi"] == pytest.approx(math.log(200), abs=1e-3) and split["ceiling"] == math.log(200)
    assert split["tc"] == pytest.approx(4 * math.log(200), rel=0.1)  # that of 200 dots, not of the Gaussian behind them
    assert split["note"] == "mi is near ln N = 5.30, its ceiling: take more points"


def test_samples_go_round_the_posteriors():
    """As many codes as posteriors: one from each, so their mean posterior is met exactly."""
    mu = torch.arange(10.0)[:, None].repeat(1, 2) * 100
    split = kl_split(mu, torch.full_like(mu, -20.0), samples=30)
    exact = 0.5 * (mu**2).sum(1).mean().item()  # log q(z|x) - log p(z) is this but for the noise
    assert split["mi"] + split["tc"] + split["dwkl"] == pytest.approx(exact, rel=1e-3)


# ---- of a model


class Pairs(Reader):
    """Codes around both pixels of `Signals`, with noise of its own."""

    def __init__(self, rule=lambda x: x, log_sigma=-1.0, d=2):
        super().__init__(rule, d, pixels=2, logvar=[2 * log_sigma] * d)


def grid():
    return Signals((6, 7), ["a", "b"])


def test_every_picture_of_a_grid_once():
    data, model = grid(), Pairs()
    split = total_correlation(model, data, points=None, samples=2_000)
    every = data.space.from_grid(data.space.tuple_of(torch.arange(42)))
    mu = every[:, :2].clone()
    direct = kl_split(mu, torch.full_like(mu, -2.0), samples=2_000)
    assert split["tc"] == pytest.approx(direct["tc"], abs=1e-5) and split["settings"]["points"] == 42
    assert split["tc"] == pytest.approx(0, abs=0.01)  # x and y are independent over the grid
    turned = total_correlation(Pairs(lambda x: 4 * x @ torch.tensor([[1.0, 1.0], [1.0, -1.0]])), data, points=None)
    assert turned["tc"] > 0.2
    array = ArrayData(data.render(every).numpy(), every.numpy(), data.space)
    assert total_correlation(model, array, points=None, samples=2_000)["tc"] == pytest.approx(split["tc"], abs=1e-5)


def test_drawn_points_and_seeds():
    data, model = grid(), Pairs()
    one, again, other = (total_correlation(model, data, points=300, samples=100, seed=s) for s in (0, 0, 1))
    assert one == again == json.loads(json.dumps(one)) and one["tc"] != other["tc"]
    assert one["settings"] == {"estimator": "Monte Carlo, full mixture", "points": 300, "samples": 100, "seed": 0,
                               "protocol": "model", "every picture": False}
    assert total_correlation(model, data.with_law(Real()), points=50, samples=50)["settings"]["points"] == 50


def test_aggregate_codes_are_drawn_from_q():
    z = aggregate_codes(Pairs(lambda x: 0 * x + 5.0, log_sigma=0.5), grid(), n=2_000)
    assert z.shape == (2_000, 2)
    torch.testing.assert_close(z.mean(0), torch.full((2,), 5.0), atol=0.15, rtol=0)
    torch.testing.assert_close(z.std(0), torch.full((2,), math.exp(0.5)), atol=0.1, rtol=0)


def test_global_generators_are_left_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    total_correlation(Pairs(), grid(), points=50, samples=50)
    aggregate_codes(Pairs(), grid(), n=10)
    tc_by_batch({"mixture": mixture_tc}, batches=[4], N=50, repeats=2, samples=20)
    assert torch.equal(before, torch.get_rng_state()) and (numpy_before == np.random.get_state()[1]).all()


# ---- the discriminator's


def test_discriminator_tc_is_the_mean_log_ratio():
    with seeded(0):
        D = discriminator(3, width=8, layers=1).train()
    z = torch.randn(500, 3, generator=rng())
    with torch.no_grad():
        p = D(z).double().softmax(1)[:, 0]
    found = discriminator_tc(D, z)
    assert found["tc"] == pytest.approx((p / (1 - p)).log().mean().item(), abs=1e-6)
    assert found["stderr"] == pytest.approx((p / (1 - p)).log().std().item() / 500**0.5, rel=1e-4)
    assert D.training and discriminator_tc(D, z.numpy()) == found


def test_a_perfect_discriminator_measures_tc():
    """D = the true ratio of a Gaussian of correlation 0.6 gives its TC."""
    rho, z = 0.6, torch.randn(40_000, 2, generator=rng())
    z[:, 1] = rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]

    class Perfect(torch.nn.Module):
        def forward(self, z):
            x, y = z.T
            ratio = -0.5 * math.log(1 - rho**2) + (2 * rho * x * y - rho**2 * (x**2 + y**2)) / (2 * (1 - rho**2))
            return torch.stack([ratio, torch.zeros_like(ratio)], dim=1)

    found = discriminator_tc(Perfect(), z)
    assert found["tc"] == pytest.approx(-0.5 * math.log(1 - rho**2), abs=4 * found["stderr"])


# ---- the Gaussian's


def test_gaussian_tc_is_the_closed_form():
    a = torch.randn(5, 5, generator=rng()).double().numpy()
    cov = a @ a.T + 0.1 * np.eye(5)
    wanted = 0.5 * (np.log(np.diag(cov)).sum() - np.linalg.slogdet(cov)[1])
    assert gaussian_tc(cov=cov)["tc"] == pytest.approx(wanted)
    assert gaussian_tc(cov=[[1, 0.8], [0.8, 1]])["tc"] == pytest.approx(-0.5 * math.log(0.36))
    assert gaussian_tc(cov=np.diag([1, 5, 1e-9]))["tc"] == pytest.approx(0, abs=1e-12)
    z = np.random.default_rng(0).multivariate_normal(np.zeros(5), cov, 20_000)
    assert gaussian_tc(z)["tc"] == pytest.approx(wanted, abs=0.05)
    assert gaussian_tc(z * [1, 10, 1e-3, 7, 1])["tc"] == pytest.approx(gaussian_tc(torch.tensor(z))["tc"])


def test_gaussian_tc_of_dead_and_duplicated_columns():
    z = np.random.default_rng(0).normal(size=(5_000, 3))
    dead = gaussian_tc(np.column_stack([z, np.zeros(5_000), np.full(5_000, 0.1)]))
    assert dead["tc"] == pytest.approx(gaussian_tc(z)["tc"]) and dead["dims"] == 3
    assert 12 < gaussian_tc(np.column_stack([z, z[:, 0]]))["tc"] < 15
    assert gaussian_tc(np.zeros((10, 2)))["tc"] == 0
    assert gaussian_tc(z[:, :1])["tc"] == pytest.approx(0, abs=1e-12)
    x = np.random.default_rng(0).choice([-1.0, 1.0], size=(20_000, 2))
    blind = np.column_stack([x, x[:, 0] * x[:, 1]])  # the third is known from the two others, without correlation
    assert gaussian_tc(blind)["tc"] < 0.01 < math.log(2) - 0.1 < kl_split(blind[:500], np.full((500, 3), -8.0))["tc"]


# ---- against the batch size


def test_estimators_against_batch_size():
    kinds = {"mss": minibatch_tc, "mws": lambda *given: minibatch_tc(*given, "mws"), "mixture": mixture_tc}
    found = tc_by_batch(kinds, batches=[16, 256], N=2_000, repeats=10)
    assert [(row["batch"], row["estimator"]) for row in found["rows"]] == [(m, k) for m in (16, 256) for k in kinds]
    r = 0.8 / (1 + 0.25**2)
    assert found["gaussian"] == pytest.approx(-0.5 * math.log(1 - r**2), rel=1e-5)
    error = {(row["batch"], row["estimator"]): abs(row["tc"] - found["mixture"]) for row in found["rows"]}
    assert error[256, "mixture"] < error[16, "mixture"]  # too high, and less so with more of the mixture
    assert error[256, "mss"] < error[256, "mixture"] < error[256, "mws"]
    assert found == tc_by_batch(kinds, batches=[16, 256], N=2_000, repeats=10) == json.loads(json.dumps(found))
    assert found["settings"]["repeats"] == 10


def test_the_whole_mixture_as_a_batch_is_the_truth():
    """With all N posteriors in the batch, MSS and the mixture see q(z) itself, but for the noise of the codes."""
    found = tc_by_batch({"mss": minibatch_tc, "mixture": mixture_tc}, batches=[300], N=300, repeats=20, samples=3_000)
    assert [row["tc"] for row in found["rows"]] == pytest.approx([found["mixture"]] * 2, abs=0.05)


# ---- bad input


def test_bad_input():
    def message(call):
        with pytest.raises(ValueError) as error:
            call()
        return str(error.value)

    mu, logvar = posteriors(10, 2)
    data = grid()
    assert "logvar (10, 1): both belong" in message(lambda: kl_split(mu, logvar[:, :1]))
    assert message(lambda: kl_split(mu[:1], logvar[:1])).startswith("mu has 1 row(s)")
    assert "logvar holds NaN or infinite" in message(lambda: kl_split(mu, logvar * math.nan))
    assert message(lambda: kl_split(mu, logvar, samples=1)) == "samples must be a whole number of at least 2, got 1"
    blind = Reader(lambda x: x, 2, pixels=2)
    assert message(lambda: total_correlation(blind, data)) == "Reader has no posterior, so there is no q(z) to sample"
    assert "got ndarray: call it with (model, data)" in message(lambda: total_correlation(Pairs(), np.zeros((4, 2))))
    real = data.with_law(Real())
    assert "'signals' cannot be listed under its law" in message(lambda: total_correlation(Pairs(), real, points=None))
    assert "two logits for each code, not (10, 3)" in message(lambda: discriminator_tc(torch.nn.Linear(2, 3), mu))
    assert message(lambda: gaussian_tc()) == message(lambda: gaussian_tc(mu, cov=np.eye(2)))
    assert "square table" in message(lambda: gaussian_tc(cov=np.ones((2, 3))))
    assert "no covariance" in message(lambda: gaussian_tc(cov=[[1, 2], [2, 1]]))
    assert "got rho=1" in message(lambda: tc_by_batch({}, rho=1))
    assert "batches of at most N = 100" in message(lambda: tc_by_batch({}, N=100))
