"""DIP-VAE I and II: covariances and penalties against loops, the diagonal that ports get wrong, the objective."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from methods.family import batch, build, draw, keeps_the_laws, one_step_down, posteriors, resumes

from disentkit.errors import UserError
from disentkit.methods.dipvae import (
    DIPVAE1,
    DIPVAE2,
    Settings,
    covariance_of_codes,
    covariance_of_means,
    penalties,
)
from disentkit.methods.vae import VAE


def small(**settings) -> Settings:
    return Settings(**{"d": 4, "fc": 16, "size": 16, "lr": 1e-3, "lambda_od": 3.0, "lambda_d": 7.0} | settings)


def by_loops(mu, logvar, codes: bool) -> np.ndarray:
    m, d = mu.shape
    cov = np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            mean_i, mean_j = sum(mu[:, i]) / m, sum(mu[:, j]) / m
            cov[i, j] = sum((mu[n, i] - mean_i) * (mu[n, j] - mean_j) for n in range(m)) / m
        if codes:
            cov[i, i] += sum(np.exp(logvar[n, i]) for n in range(m)) / m
    return cov


@pytest.mark.parametrize("covariance, codes", [(covariance_of_means, False), (covariance_of_codes, True)])
def test_covariances_are_those_of_loops(covariance, codes):
    _, mu, logvar = posteriors(9, 4)
    found = covariance(mu, logvar)
    assert found.shape == (4, 4)
    np.testing.assert_allclose(found, by_loops(mu.double().numpy(), logvar.double().numpy(), codes), rtol=1e-5)


def test_covariance_of_codes_is_that_of_codes_drawn():
    """E_x[diag sigma^2] + Cov_x[mu] is what many codes of the same pictures vary by."""
    mu, logvar = draw(50, 3) @ torch.tensor([[1.0, 0.8, 0], [0, 0.6, 0], [0, 0, 0.1]]), draw(50, 3, seed=1)
    z = mu + (logvar / 2).exp() * draw(8_000, 50, 3, seed=2)
    drawn = torch.cov(z.flatten(0, 1).T, correction=0)
    torch.testing.assert_close(covariance_of_codes(mu, logvar), drawn, atol=0.03, rtol=0)
    off = covariance_of_codes(mu, logvar) - covariance_of_means(mu, logvar)
    torch.testing.assert_close(off, logvar.exp().mean(0).diag(), atol=1e-6, rtol=0)  # nothing beside the diagonal


def test_penalties_are_those_of_loops():
    cov = draw(5, 5)
    cov = cov @ cov.T
    od = sum(cov[i, j].item() ** 2 for i in range(5) for j in range(5) if i != j)
    diagonal = sum((cov[i, i].item() - 1) ** 2 for i in range(5))
    assert [p.item() for p in penalties(cov)] == pytest.approx([od, diagonal], rel=1e-5)
    assert [p.item() for p in penalties(torch.eye(5))] == [0, 0]


@pytest.mark.parametrize("cls, codes", [(DIPVAE1, False), (DIPVAE2, True)])
def test_step_is_one_step_down_the_objective(cls, codes):
    x, terms = batch()["x"], []

    def objective(mu, logvar, z, logits):
        recon = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1).mean()
        cov = torch.cov(mu.T, correction=0)
        variance = [cov[j, j] + (logvar[:, j].exp().mean() if codes else 0) for j in range(4)]
        od = sum(cov[i, j] ** 2 for i in range(4) for j in range(4) if i != j)
        diag = sum((v - 1) ** 2 for v in variance)
        terms.extend([recon, od, diag])
        return recon + kl + 3.0 * od + 7.0 * diag

    losses = one_step_down(build(cls, small()), x, objective)
    for name, wanted in zip(("recon", "od", "diag"), terms, strict=True):
        torch.testing.assert_close(losses[name], wanted.detach(), rtol=1e-4, atol=1e-5)
    assert losses["kl"].shape == (4,)


def test_the_posteriors_width_matters_to_two_only():
    """Only in II does the penalty reach sigma."""
    for covariance, felt in ((covariance_of_means, False), (covariance_of_codes, True)):
        _, mu, logvar = posteriors(9, 4)
        mu.requires_grad_(), logvar.requires_grad_()
        sum(penalties(covariance(mu, logvar))).backward()
        assert mu.grad.abs().sum() > 0 and (logvar.grad is not None) == felt


@pytest.mark.parametrize("cls", [DIPVAE1, DIPVAE2])
def test_codes_become_uncorrelated(cls):
    learner = build(cls, small(lambda_od=50.0, lambda_d=50.0, lr=3e-3))
    opt = learner.optimizers()
    first = learner.step(opt, batch(n=16))
    for _ in range(80):
        last = learner.step(opt, batch(n=16))
    assert last["od"] + last["diag"] < 0.1 * (first["od"] + first["diag"])


def test_presets_weigh_the_diagonal_ten_times_or_equally():
    assert set(DIPVAE1.PRESETS) == set(DIPVAE2.PRESETS) == set(VAE.PRESETS)
    assert all((s.lambda_od, s.lambda_d) == (10, 100) for s in DIPVAE1.PRESETS.values())
    assert all((s.lambda_od, s.lambda_d) == (10, 10) for s in DIPVAE2.PRESETS.values())


@pytest.mark.parametrize("cls", [DIPVAE1, DIPVAE2])
def test_laws_of_the_house(cls, tmp_path):
    keeps_the_laws(cls, small())
    resumes(cls, small(), tmp_path)
    with pytest.raises(UserError, match="one picture has no covariance: batch must be 2 or more, not 1"):
        build(cls, small(batch=1))
