"""AAE: gradients go to their own player, the ratio is against the prior, noise reaches the encoder alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from methods.family import batch, build, draw, equal, keeps_the_laws, resumes, rng, weights

from disentkit.methods.aae import AAE, Settings
from disentkit.methods.factorvae import FactorVAE, discriminator_loss, tc_estimate
from disentkit.methods.vae import VAE
from disentkit.models import adam


def small(**settings) -> Settings:
    few = {"d": 4, "fc": 16, "width": 32, "layers": 2, "size": 16, "lr": 1e-3, "lr_D": 1e-3}
    return Settings(**few | settings)


def test_step_equals_a_hand_written_reference():
    learner, reference, x = build(AAE, small(weight=3.0)), build(AAE, small()), batch()["x"]
    E, dec, D = reference.vae.encoder, reference.vae.decoder, reference.D
    opt_vae = torch.optim.Adam([*E.parameters(), *dec.parameters()], lr=1e-3, betas=(0.9, 0.999))
    opt_D = torch.optim.Adam(D.parameters(), lr=1e-3, betas=(0.5, 0.9))
    draws, opt = rng(7), learner.optimizers()
    for _ in range(3):
        losses = learner.step(opt, {"x": x})

        mu, logvar = E(x).chunk(2, 1)
        z = mu + (logvar / 2).exp() * torch.randn(8, 4, generator=draws)
        nll = F.binary_cross_entropy_with_logits(dec(z), x, reduction="none").sum((1, 2, 3)).mean()
        ratio = (D(z)[:, 0] - D(z)[:, 1]).mean()
        grads = torch.autograd.grad(nll + 3.0 * ratio, [*E.parameters(), *dec.parameters()])
        for p, g in zip([*E.parameters(), *dec.parameters()], grads):
            p.grad = g
        opt_vae.step()

        prior = torch.randn(8, 4, generator=draws)
        loss_D = -0.5 * (D(z.detach()).log_softmax(1)[:, 0].mean() + D(prior).log_softmax(1)[:, 1].mean())
        for p, g in zip(D.parameters(), torch.autograd.grad(loss_D, list(D.parameters()))):
            p.grad = g
        opt_D.step()
        for name, wanted in {"recon": nll, "kl_agg": ratio, "loss_D": loss_D}.items():
            torch.testing.assert_close(losses[name], wanted.detach(), rtol=1e-4, atol=1e-4)
    ours = [*learner.vae.encoder.parameters(), *learner.vae.decoder.parameters(), *learner.D.parameters()]
    for p, wanted in zip(ours, [*E.parameters(), *dec.parameters(), *D.parameters()], strict=True):
        torch.testing.assert_close(p, wanted, rtol=1e-3, atol=1e-4)


def test_encoder_gradients_are_unchanged_by_the_discriminators_backward():
    whole, without = build(AAE, small()), build(AAE, small())
    without.update_D = lambda opt, z: (torch.zeros(()), torch.zeros(()))
    for learner in (whole, without):
        learner.step(learner.optimizers(), batch())
    grads = [[p.grad for p in learner.vae.parameters()] for learner in (whole, without)]
    assert all(g is not None and g.abs().sum() > 0 for g in grads[0])
    assert equal(*grads) and equal(weights(whole.vae), weights(without.vae))


def test_each_update_moves_its_own_player_only():
    learner = build(AAE, small())
    opt = learner.optimizers()
    vae, D = weights(learner.vae), weights(learner.D)
    *_, z = learner.update_autoencoder(opt["vae"], batch()["x"])
    assert equal(D, weights(learner.D)) and not equal(vae, weights(learner.vae)) and not z.requires_grad
    assert all(p.grad is None and p.requires_grad for p in learner.D.parameters())
    vae, grads = weights(learner.vae), [p.grad.clone() for p in learner.vae.parameters()]
    learner.update_D(opt["D"], z)
    assert equal(vae, weights(learner.vae)) and equal(grads, [p.grad for p in learner.vae.parameters()])
    assert not equal(D, weights(learner.D))
    owned = {id(p) for group in opt["vae"].param_groups for p in group["params"]}
    assert owned == {id(p) for p in learner.vae.parameters()}
    assert not owned & {id(p) for group in opt["D"].param_groups for p in group["params"]}


def test_there_is_no_kl_per_picture_in_the_objective():
    """weight = 0 is a plain (noisy) autoencoder: the gradient is the reconstruction's alone; `kl` is a gauge."""
    learner, reference, x = build(AAE, small(weight=0.0)), build(AAE, small()), batch()["x"]
    losses = learner.step(learner.optimizers(), {"x": x})
    mu, logvar = reference.vae.posterior(x)
    z = mu + (logvar / 2).exp() * torch.randn(8, 4, generator=rng(7))
    recon = F.binary_cross_entropy_with_logits(reference.vae.decoder(z), x, reduction="sum") / 8
    for p, g in zip(learner.vae.parameters(), torch.autograd.grad(recon, list(reference.vae.parameters()))):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-5)
    assert losses["kl"].shape == (4,) and losses["kl"].sum() > 0


def test_the_discriminator_measures_the_kl_to_the_prior():
    """Codes N(0.8, 1) in each of two latents: KL to N(0, I) is 2 * 0.8^2 / 2 = 0.64 nats; D finds it to 0.12."""
    learner = build(AAE, small(d=2))
    opt, draws = adam(learner.D.parameters(), 2e-3), rng()
    for _ in range(400):
        learner.update_D(opt, torch.randn(512, 2, generator=draws) + 0.8)
    with torch.no_grad():
        found = tc_estimate(learner.D(torch.randn(20_000, 2, generator=draws) + 0.8)).item()
    assert found == pytest.approx(0.64, abs=0.12)


def test_noise_is_on_what_the_encoder_reads_and_not_on_the_target():
    learner, x = build(AAE, small(noise=0.5)), batch()["x"]
    seen = {}
    learner.vae.encoder.register_forward_pre_hook(lambda net, given: seen.update(x=given[0]))
    losses = learner.step(learner.optimizers(), {"x": x})
    noise = torch.randn(x.shape, generator=rng(7))
    torch.testing.assert_close(seen["x"], x + 0.5 * noise)
    mu, logvar = build(AAE, small()).vae.posterior(x + 0.5 * noise)
    draws = rng(7)
    torch.randn(x.shape, generator=draws)
    z = mu + (logvar / 2).exp() * torch.randn(8, 4, generator=draws)
    clean = F.binary_cross_entropy_with_logits(build(AAE, small()).vae.decoder(z), x, reduction="sum") / 8
    torch.testing.assert_close(losses["recon"], clean.detach())


def test_a_discriminator_without_opinion_starts_at_ln2():
    learner = build(AAE, small())
    learner.D[-1].weight.data.zero_()
    losses = learner.step(learner.optimizers(), batch())
    assert losses["loss_D"].item() == pytest.approx(math.log(2), abs=1e-6) and losses["kl_agg"].item() == 0
    assert 0 <= losses["accuracy_D"] <= 1


def test_class_0_is_the_code_and_class_1_the_prior():
    learner = build(AAE, small())
    learner.D = torch.nn.Identity()
    logits = draw(6, 2)
    none = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.0)
    learner.rng = rng(3)
    prior = torch.randn(6, 2, generator=rng(3))
    loss, accuracy = learner.update_D(none, logits.requires_grad_())
    torch.testing.assert_close(loss, discriminator_loss(logits, prior).detach())
    right = (logits[:, 0] > logits[:, 1]).sum() + (prior[:, 0] < prior[:, 1]).sum()
    assert accuracy.item() == pytest.approx(right.item() / 12)


def test_presets_take_factorvaes_discriminator():
    assert set(AAE.PRESETS) == set(VAE.PRESETS)
    for pair, s in AAE.PRESETS.items():
        wanted = FactorVAE.PRESETS[pair]
        assert (s.width, s.layers, s.lr_D) == (wanted.width, wanted.layers, wanted.lr_D)
        assert (s.weight, s.noise) == (1, 0)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_laws_of_the_house(noise, tmp_path):
    keeps_the_laws(AAE, small(noise=noise))
    resumes(AAE, small(noise=noise), tmp_path)
