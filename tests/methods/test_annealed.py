"""Annealed beta-VAE: the capacity's rise, the absolute value on both sides of it, one step down the objective."""

import pytest
import torch.nn.functional as F
from methods.family import batch, build, equal, keeps_the_laws, one_step_down, resumes

from disentkit.methods.annealed import AnnealedVAE, Settings
from disentkit.methods.vae import VAE, kl_per_latent


def small(**settings) -> Settings:
    few = {"d": 4, "fc": 16, "size": 16, "lr": 1e-3, "gamma": 10.0, "C_max": 5.0, "C_steps": 100}
    return Settings(**few | settings)


def test_capacity_rises_in_a_straight_line_and_then_stays():
    learner = build(AnnealedVAE, small())
    opt, found = learner.optimizers(), []
    for t in (0, 25, 100, 250):
        learner.t.fill_(t)
        found.append(learner.step(opt, batch())["C"].item())
    assert found == pytest.approx([0, 1.25, 5, 5])


@pytest.mark.parametrize("t, side", [(0, 1), (100, -1)])
def test_step_is_one_step_down_the_objective(t, side):
    """At C = 0 the KL is pressed down, below C = 5 nats it is pulled up."""
    learner = build(AnnealedVAE, small())
    learner.t.fill_(t)

    def objective(mu, logvar, z, logits):
        recon = F.binary_cross_entropy_with_logits(logits, batch()["x"], reduction="none").flatten(1).sum(1).mean()
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1).mean()
        assert (kl > 5 * t / 100) == (side > 0)
        return recon + side * 10.0 * (kl - 5 * t / 100)

    losses = one_step_down(learner, batch()["x"], objective)
    assert losses["kl"].shape == (4,) and losses["recon"] > 0


def test_the_absolute_value_is_of_the_batch_mean():
    """Where the mean KL is C, pictures above and below it cancel and no pull is left; |KL_i - C| would pull each."""
    start = build(AnnealedVAE, small())
    C = kl_per_latent(*start.vae.posterior(batch()["x"])).sum().item()
    grads = []
    for gamma in (0.0, 1e4):
        learner = build(AnnealedVAE, small(gamma=gamma, C_max=C))
        learner.t.fill_(100)
        learner.step(learner.optimizers(), batch())
        grads.append([p.grad for p in learner.vae.parameters()])
    assert equal(*grads)


def test_the_code_follows_the_capacity():
    learner = build(AnnealedVAE, small(gamma=100.0, C_max=3.0, C_steps=60, lr=3e-3))
    opt = learner.optimizers()
    for t in range(150):
        learner.t.fill_(t)
        losses = learner.step(opt, batch())
    assert losses["kl"].sum().item() == pytest.approx(3.0, abs=0.5)


def test_presets_reach_the_capacity_after_a_third():
    assert set(AnnealedVAE.PRESETS) == set(VAE.PRESETS)
    paper = AnnealedVAE.PRESETS["paper", "dsprites"]
    assert (paper.gamma, paper.C_max, paper.C_steps, paper.steps) == (1000, 25, 100_000, 300_000)
    assert all(s.C_steps == s.steps // 3 for s in AnnealedVAE.PRESETS.values())
    assert {s.gamma for (preset, _), s in AnnealedVAE.PRESETS.items() if preset != "paper"} == {4}


def test_laws_of_the_house(tmp_path):
    keeps_the_laws(AnnealedVAE, small())
    resumes(AnnealedVAE, small(), tmp_path)
