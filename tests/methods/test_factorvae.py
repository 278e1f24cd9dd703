"""FactorVAE: algorithms 1 and 2 to the letter. Gradients go where the paper says, and the discriminator measures TC."""

import math

import pytest
import torch
import torch.nn.functional as F

from disentkit.data.base import Spec
from disentkit.machine import seeded
from disentkit.methods.factorvae import FactorVAE, Settings, discriminator_loss, permute_dims, tc_estimate
from disentkit.methods.vae import kl_per_latent
from disentkit.models import adam
from disentkit.nets.factorvae import discriminator


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(**settings) -> FactorVAE:
    small = {"d": 4, "fc": 16, "width": 32, "layers": 2, "size": 16, "gamma": 10.0, "lr": 1e-3, "lr_D": 1e-3}
    with seeded(0):
        learner = FactorVAE(Settings(**small | settings), Spec((1, 16, 16)))
    learner.rng = rng(7)
    return learner


def batch(seed: int, n: int = 8) -> dict:
    return {"x": torch.rand(n, 1, 16, 16, generator=rng(seed))}


def weights(net) -> list:
    return [p.detach().clone() for p in net.parameters()]


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---- algorithm 1


def test_permute_dims_keeps_every_column_and_breaks_rows():
    z = torch.randn(200, 5, generator=rng())
    permuted = permute_dims(z, rng(1))
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)  # the multiset of each column
    order = torch.stack(
        [(z[:, j] == permuted[:, j, None]).float().argmax(1) for j in range(5)]
    )  # where each value came from
    assert all(
        (order[i] != order[j]).float().mean() > 0.9 for i in range(5) for j in range(i)
    )  # a permutation per column
    assert all((order[j] != torch.arange(200)).float().mean() > 0.9 for j in range(5))
    assert torch.equal(permute_dims(z, rng(1)), permuted) and not torch.equal(permute_dims(z, rng(2)), permuted)


def test_permute_dims_makes_correlated_latents_independent():
    a = torch.randn(20_000, 1, generator=rng())
    z = torch.cat([a, a + 0.1 * torch.randn(20_000, 1, generator=rng(1))], dim=1)
    assert torch.corrcoef(z.T)[0, 1] > 0.99 and abs(torch.corrcoef(permute_dims(z, rng(2)).T)[0, 1]) < 0.03


# ---- the density ratio


def test_losses_of_the_discriminator():
    zero = torch.zeros(6, 2)
    assert discriminator_loss(zero, zero).item() == pytest.approx(math.log(2))
    sure = torch.tensor([[9.0, -9.0]]).expand(6, 2)  # "from q": right for the first argument, wrong for the second
    assert discriminator_loss(sure, -sure) < 1e-6 and discriminator_loss(-sure, sure) > 10
    logits, other = torch.randn(6, 2, generator=rng()), torch.randn(6, 2, generator=rng(1))
    wanted = -0.5 * (logits.log_softmax(1)[:, 0].mean() + other.log_softmax(1)[:, 1].mean())
    torch.testing.assert_close(discriminator_loss(logits, other), wanted)


def test_a_discriminator_without_opinion_starts_at_ln2():
    learner = build()
    learner.D[-1].weight.data.zero_()
    losses = learner.step(learner.optimizers(), batch(0), batch(1))
    assert losses["loss_D"].item() == pytest.approx(math.log(2), abs=1e-6) and losses["tc"].item() == 0


def test_tc_is_the_log_ratio_of_class_0():
    logits = torch.randn(50, 2, generator=rng())
    D = logits.softmax(1)[:, 0]
    torch.testing.assert_close(tc_estimate(logits), (D / (1 - D)).log().mean())
    assert tc_estimate(torch.tensor([[1.0, 0.0]])) > 0 > tc_estimate(torch.tensor([[0.0, 1.0]]))


def test_the_discriminator_measures_the_tc_of_a_gaussian():
    """Two normal latents of correlation 0.8 have TC = 1/2 ln 1/(1 - 0.8^2) = 0.511 nats; D finds it to 0.08."""
    rho = 0.8
    with seeded(0):
        D = discriminator(2, width=64, layers=2)
    opt, draws = adam(D.parameters(), 2e-3), rng()

    def latents(n: int) -> torch.Tensor:
        a, b = torch.randn(2, n, generator=draws)
        return torch.stack([a, rho * a + math.sqrt(1 - rho**2) * b], dim=1)

    for _ in range(400):
        loss = discriminator_loss(D(latents(512)), D(permute_dims(latents(512), draws)))
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        assert tc_estimate(D(latents(20_000))).item() == pytest.approx(0.5 * math.log(1 / (1 - rho**2)), abs=0.08)
        assert loss.item() < math.log(2) - 0.05


# ---- algorithm 2


def test_step_equals_a_hand_written_reference():
    learner, one, two, gamma = build(), batch(0), batch(1), 10.0
    reference = build()
    E, dec, D = reference.vae.encoder, reference.vae.decoder, reference.D
    opt_vae = torch.optim.Adam([*E.parameters(), *dec.parameters()], lr=1e-3, betas=(0.9, 0.999))
    opt_D = torch.optim.Adam(D.parameters(), lr=1e-3, betas=(0.5, 0.9))
    draws, opt = rng(7), learner.optimizers()
    for _ in range(3):
        losses = learner.step(opt, one, two)

        mu, logvar = E(one["x"]).chunk(2, 1)
        z = mu + (logvar / 2).exp() * torch.randn(8, 4, generator=draws)
        nll = F.binary_cross_entropy_with_logits(dec(z), one["x"], reduction="none").sum((1, 2, 3)).mean()
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1).mean()
        tc = (D(z)[:, 0] - D(z)[:, 1]).mean()
        grads = torch.autograd.grad(nll + kl + gamma * tc, [*E.parameters(), *dec.parameters()])
        for p, g in zip([*E.parameters(), *dec.parameters()], grads):
            p.grad = g
        opt_vae.step()

        mu2, logvar2 = E(two["x"]).detach().chunk(2, 1)
        z2 = mu2 + (logvar2 / 2).exp() * torch.randn(8, 4, generator=draws)
        order = torch.rand(8, 4, generator=draws).argsort(0)
        z_perm = torch.stack([z2[order[:, j], j] for j in range(4)], 1)
        loss_D = -0.5 * (D(z.detach()).log_softmax(1)[:, 0].mean() + D(z_perm).log_softmax(1)[:, 1].mean())
        for p, g in zip(D.parameters(), torch.autograd.grad(loss_D, list(D.parameters()))):
            p.grad = g
        opt_D.step()

        for name, wanted in {"recon": nll, "tc": tc, "loss_D": loss_D}.items():
            torch.testing.assert_close(losses[name], wanted.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(losses["kl"].sum(), kl.detach(), rtol=1e-4, atol=1e-4)
    ours = [*learner.vae.encoder.parameters(), *learner.vae.decoder.parameters(), *learner.D.parameters()]
    for p, wanted in zip(ours, [*E.parameters(), *dec.parameters(), *D.parameters()], strict=True):
        torch.testing.assert_close(p, wanted, rtol=1e-3, atol=1e-4)


def test_encoder_gradients_are_unchanged_by_the_discriminators_backward():
    """The trap of public ports: D's loss, back-propagated through the VAE's graph, teaches the encoder to please D."""
    whole, without = build(), build()
    without.update_D = lambda opt, z, x: (torch.zeros(()), torch.zeros(()))
    whole.step(whole.optimizers(), batch(0), batch(1))
    without.step(without.optimizers(), batch(0), batch(1))
    grads = [[p.grad for p in learner.vae.parameters()] for learner in (whole, without)]
    assert all(g is not None and g.abs().sum() > 0 for g in grads[0])
    assert equal(*grads) and equal(weights(whole.vae), weights(without.vae))


def test_each_update_moves_its_own_player_only():
    learner = build()
    opt = learner.optimizers()
    vae, D = weights(learner.vae), weights(learner.D)
    *_, z = learner.update_vae(opt["vae"], batch(0)["x"])
    assert equal(D, weights(learner.D)) and not equal(vae, weights(learner.vae))
    assert all(p.grad is None for p in learner.D.parameters()) and all(p.requires_grad for p in learner.D.parameters())
    assert not z.requires_grad

    vae, grads = weights(learner.vae), [p.grad.clone() for p in learner.vae.parameters()]
    learner.update_D(opt["D"], z, batch(1)["x"])
    assert equal(vae, weights(learner.vae)) and equal(grads, [p.grad for p in learner.vae.parameters()])
    assert not equal(D, weights(learner.D))
    owned = {id(p) for group in opt["vae"].param_groups for p in group["params"]}
    assert owned == {id(p) for p in learner.vae.parameters()}  # optimisers do not share a weight
    assert not owned & {id(p) for group in opt["D"].param_groups for p in group["params"]}


def test_the_second_batch_reaches_the_discriminator_only():
    learned = []
    for second in (1, 2):
        learner = build()
        learner.step(learner.optimizers(), batch(0), batch(second))
        learned.append(learner)
    assert FactorVAE.draws == 2
    assert equal(weights(learned[0].vae), weights(learned[1].vae))
    assert not equal(weights(learned[0].D), weights(learned[1].D))


def test_gamma_weighs_tc_in_the_vaes_loss():
    """gamma = 0 is the VAE; with gamma the encoder feels D, the decoder does not."""
    grads = {}
    for gamma in (0.0, 10.0, 20.0):
        learner = build(gamma=gamma)
        learner.update_vae(learner.optimizers()["vae"], batch(0)["x"])
        grads[gamma] = [[p.grad for p in net.parameters()] for net in (learner.vae.encoder, learner.vae.decoder)]
    assert equal(grads[0.0][1], grads[10.0][1])
    for none, ten, twenty in zip(grads[0.0][0], grads[10.0][0], grads[20.0][0]):
        torch.testing.assert_close(twenty - none, 2 * (ten - none), rtol=1e-2, atol=2e-3)
    assert not equal(grads[0.0][0], grads[10.0][0])


def test_repeating_the_batch_leaves_the_loss_equal(monkeypatch):
    from disentkit.methods import factorvae

    monkeypatch.setattr(factorvae, "sample", lambda mu, logvar, rng: mu)
    losses = []
    for times in (1, 2):
        learner = build()
        x = batch(0)["x"].repeat(times, 1, 1, 1)
        recon, kl, tc, _ = learner.update_vae(learner.optimizers()["vae"], x)
        losses.append([recon, kl, tc, *[p.grad for p in learner.vae.parameters()]])
    for one, two in zip(*losses, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_history_has_what_the_notebook_plots():
    learner = build()
    losses = learner.step(learner.optimizers(), batch(0), batch(1))
    assert {k: v.ndim for k, v in losses.items()} == {"recon": 0, "kl": 1, "tc": 0, "loss_D": 0, "accuracy_D": 0}
    assert 0 <= losses["accuracy_D"] <= 1 and losses["kl"].shape == (4,)
    mu, logvar = build().vae.posterior(batch(0)["x"])
    torch.testing.assert_close(losses["kl"], kl_per_latent(mu, logvar).detach())


def test_paper_preset_is_written_out():
    paper = FactorVAE.PRESETS["paper", "dsprites"]
    assert (paper.gamma, paper.lr, paper.lr_D, paper.width, paper.layers) == (40, 1e-4, 1e-4, 1000, 6)
    opt = FactorVAE(paper, Spec((1, 64, 64))).optimizers()
    assert opt["vae"].param_groups[0]["betas"] == (0.9, 0.999) and opt["D"].param_groups[0]["betas"] == (0.5, 0.9)
    assert [p.numel() for p in opt["D"].param_groups[0]["params"]][:2] == [10_000, 1000]
