"""The minibatch TC as an objective: the formula, and why it cannot work."""

import math

import pytest
import torch
import torch.nn.functional as F
from methods.family import batch, build, draw, keeps_the_laws, one_step_down, posteriors, resumes, rng
from torch.distributions import Normal

from disentkit.errors import UserError
from disentkit.methods.factorvae import FactorVAE
from disentkit.methods.minibatch_tc import MinibatchTC, Settings, mixture_tc, mixture_terms
from disentkit.methods.vae import VAE


def small(**settings) -> Settings:
    return Settings(**{"d": 4, "fc": 16, "size": 16, "lr": 1e-3, "gamma": 10.0} | settings)


def by_loops(z, mu, logvar):
    m, d = z.shape
    p = [[[Normal(mu[k, j], (logvar[k, j] / 2).exp()).log_prob(z[i, j]).exp() for j in range(d)] for k in range(m)]
         for i in range(m)]  # fmt: skip
    joint = [sum(math.prod(p[i][k]) for k in range(m)) / m for i in range(m)]
    apart = [math.prod(sum(p[i][k][j] for k in range(m)) / m for j in range(d)) for i in range(m)]
    return sum((a / b).log() for a, b in zip(joint, apart)) / m


def test_it_is_the_tc_of_the_batchs_mixture():
    given = [v.double() for v in posteriors(5, 3)]
    assert mixture_tc(*given).item() == pytest.approx(by_loops(*given).item(), rel=1e-6)


def test_step_is_one_step_down_the_objective():
    x, terms = batch()["x"], []

    def objective(mu, logvar, z, logits):
        recon = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1).mean()
        terms.extend([recon, by_loops(z, mu, logvar)])
        return recon + kl + 10.0 * terms[1]

    losses = one_step_down(build(MinibatchTC, small()), x, objective)
    torch.testing.assert_close(losses["recon"], terms[0].detach())
    torch.testing.assert_close(losses["tc"], terms[1].detach(), rtol=1e-4, atol=1e-5)
    assert list(losses) == ["recon", "kl", "tc", "mi"]


def test_narrow_posteriors_look_entangled_whatever_they_are():
    """Independent latents (TC 0) and four copies of one (TC infinite) get the same number, (d - 1) ln m."""
    m, d = 64, 4
    order = torch.rand(m, d, generator=rng()).argsort(0).float()  # each latent holds the same 64 values, shuffled
    logvar = torch.full((m, d), -10.0)
    for mu in (order, order[:, :1].repeat(1, d)):
        z = mu + (logvar / 2).exp() * draw(m, d)
        mi, tc, _ = mixture_terms(z, mu, logvar)
        assert tc.item() == pytest.approx((d - 1) * math.log(m), abs=1e-4)
        assert mi.item() == pytest.approx(math.log(m), abs=1e-4)


def test_where_posteriors_do_not_overlap_the_gradient_is_gone():
    for gap, felt in ((0.5, True), (50.0, False)):
        mu = (gap * torch.arange(16.0)[:, None].repeat(1, 3)).requires_grad_()
        z = mu + 0.1 * draw(16, 3)
        (slope,) = torch.autograd.grad(mixture_tc(z, mu, torch.full((16, 3), -2.0)), mu)
        assert (slope.abs().max() > 1e-2) == felt


def test_it_is_what_each_latent_knows_less_what_all_know():
    """TC_batch = sum_j I_j - I, to the last digit: with I at ln m, only what single latents know can be lowered."""
    z, mu, logvar = posteriors(16, 4)
    mi, tc, _ = mixture_terms(z, mu, logvar)
    alone = [mixture_terms(*(v[:, [j]] for v in (z, mu, logvar)))[0] for j in range(4)]
    torch.testing.assert_close(tc, sum(alone) - mi)


def test_it_punishes_independent_latents_for_what_they_know():
    """A grid of 8 x 8 codes has no TC at all. The whole grid as one batch says so, a quarter of it does not."""
    grid = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))  # (64, 2)
    quarter = grid[torch.randperm(64, generator=rng())[:16]]

    def tc(mu, sigma):
        return mixture_tc(mu + sigma * draw(*mu.shape), mu, torch.full_like(mu, 2 * math.log(sigma)))

    assert abs(tc(grid, 0.1)) < 1e-2
    assert tc(quarter, 0.1) > 0.7 and tc(quarter, 0.5) < tc(quarter, 0.1) - 0.2  # lowered by knowing less


def test_presets_take_factorvaes_gamma():
    assert set(MinibatchTC.PRESETS) == set(VAE.PRESETS)
    for pair, s in MinibatchTC.PRESETS.items():
        assert s.gamma == FactorVAE.PRESETS[pair].gamma


def test_laws_of_the_house(tmp_path):
    keeps_the_laws(MinibatchTC, small())
    resumes(MinibatchTC, small(), tmp_path)
    with pytest.raises(UserError, match="batch must be 2 or more, not 1"):
        build(MinibatchTC, small(batch=1))
