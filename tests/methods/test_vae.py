"""The VAE family: loss terms against independent formulas, reductions, networks of the paper's size, learning."""

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

from disentkit.data.base import Spec
from disentkit.machine import seeded
from disentkit.methods.vae import VAE, BetaVAE, GaussianVAE, Settings, kl_per_latent, reconstruction_loss, sample
from disentkit.nets.factorvae import decoder, discriminator, encoder


def draw(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(n: int, size: int = 16, channels: int = 1) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


# ---- terms


def test_kl_is_the_formula_of_the_gaussian():
    mu, logvar = draw(50, 6), draw(50, 6, seed=1)
    wanted = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(kl_per_latent(mu, logvar), wanted)
    assert kl_per_latent(torch.zeros(3, 2), torch.zeros(3, 2)).tolist() == [0, 0]


def test_reconstruction_is_the_likelihood_of_the_bernoulli():
    logits, x = draw(7, 1, 8, 8), pictures(7, 8).round()
    wanted = -Bernoulli(logits=logits).log_prob(x).sum((1, 2, 3)).mean()
    torch.testing.assert_close(reconstruction_loss(logits, x), wanted)


def test_zero_logits_cost_ln2_a_pixel():
    x = pictures(3, 64).round()
    assert reconstruction_loss(torch.zeros_like(x), x).item() == pytest.approx(2839.1, abs=0.1)
    assert reconstruction_loss(torch.zeros(2, 3, 64, 64), pictures(2, 64, 3)).item() == pytest.approx(8517.4, abs=0.1)


def test_sum_over_pixels_and_latents_mean_over_batch():
    logits, x, mu, logvar = draw(5, 1, 8, 8), pictures(5, 8), draw(5, 3), draw(5, 3, seed=1)
    twice = [t.repeat(2, *[1] * (t.ndim - 1)) for t in (logits, x, mu, logvar)]
    torch.testing.assert_close(reconstruction_loss(*twice[:2]), reconstruction_loss(logits, x))
    torch.testing.assert_close(kl_per_latent(*twice[2:]), kl_per_latent(mu, logvar))
    wide = reconstruction_loss(logits.repeat(1, 1, 1, 2), x.repeat(1, 1, 1, 2))  # twice the pixels
    torch.testing.assert_close(wide, 2 * reconstruction_loss(logits, x))


def test_sample_has_the_posteriors_moments_and_its_gradient():
    mu, logvar = torch.tensor([[1.0, -2.0]], requires_grad=True), torch.tensor([[0.0, -2.0]], requires_grad=True)
    z = sample(mu.expand(40_000, 2), logvar.expand(40_000, 2), torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), mu[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), (0.5 * logvar[0]).exp(), atol=0.02, rtol=0)
    z.square().mean(0).sum().backward()  # E z^2 = mu^2 + sigma^2
    torch.testing.assert_close(mu.grad, 2 * mu.detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(logvar.grad, logvar.detach().exp(), atol=0.05, rtol=0)


# ---- networks: layer by layer, the counts of the fact sheet


def test_networks_have_the_number_of_weights_of_public_ports():
    assert count(encoder((1, 64, 64), 10)) == 249_172 and count(decoder((1, 64, 64), 10)) == 248_833
    assert count(encoder((3, 64, 64), 6, 256)) == 381_900 and count(decoder((3, 64, 64), 6, 256)) == 381_315
    assert count(encoder((3, 64, 64), 10, 256)) == 383_956 and count(decoder((3, 64, 64), 10, 256)) == 382_339
    assert count(discriminator(10)) == 5_018_002


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_smaller_pictures_leave_out_layers(size, channels):
    with seeded(0):
        down, up = encoder((channels, size, size), 4), decoder((channels, size, size), 4)
    assert down(pictures(2, size, channels)).shape == (2, 8)
    assert up(draw(2, 4)).shape == (2, channels, size, size)
    convs = [m for m in down if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convs] == {8: [64], 16: [32, 64], 32: [32, 32, 64], 64: [32, 32, 64, 64]}[size]
    assert isinstance(up[-1], torch.nn.ConvTranspose2d)  # logits
    biases = [m.bias for m in [*down, *up] if getattr(m, "bias", None) is not None]
    assert biases and all((b == 0).all() for b in biases)


@pytest.mark.parametrize("shape", [(1, 64, 32), (1, 28, 28), (3, 128, 128)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=f"square pictures of 8, 16, 32 or 64 pixels, not {shape[1]}x{shape[2]}"):
        encoder(shape, 4)


# ---- the model and the learner


def build(cls=VAE, **settings):
    with seeded(0):
        learner = cls(Settings(**{"d": 4, "fc": 32, "size": 16, "lr": 1e-3} | settings), Spec((1, 16, 16)))
    learner.rng = torch.Generator().manual_seed(7)
    return learner


def test_model_speaks_of_means():
    model, x = build().model, pictures(5)
    mu, logvar = model.posterior(x)
    assert mu.shape == logvar.shape == (5, 4) and torch.equal(model.encode(x), mu)
    assert torch.equal(model.decode(mu), torch.sigmoid(model.decoder(mu)))
    assert [b.kind for b in model.codes] == ["gaussian"] * 4
    z = model.prior(5000, torch.Generator().manual_seed(0))
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05
    assert isinstance(model, GaussianVAE)


@pytest.mark.parametrize("cls, beta", [(VAE, 1.0), (BetaVAE, 4.0)])
def test_step_is_one_step_down_the_objective(cls, beta):
    learner, x = build(cls, beta=beta), pictures(6)
    noise = torch.randn(6, 4, generator=torch.Generator().manual_seed(7))  # what the step will draw

    mu, logvar = learner.vae.encoder(x).chunk(2, dim=1)
    logits = learner.vae.decoder(mu + (logvar / 2).exp() * noise)
    recon = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
    kl = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(1).mean()
    wanted = torch.autograd.grad(recon + beta * kl, list(learner.vae.parameters()))

    losses = learner.step(learner.optimizers(), {"x": x})
    torch.testing.assert_close(losses["recon"], recon.detach())
    torch.testing.assert_close(losses["kl"].sum(), kl.detach())
    for p, g in zip(learner.vae.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-5)


def test_it_overfits_one_batch():
    """decode(encode(x)) learns a handful of pictures by heart."""
    learner = build(fc=64, lr=3e-3)
    x = torch.zeros(4, 1, 16, 16)
    for i in range(4):
        x[i, 0, 2 + 3 * i : 6 + 3 * i, 4:12] = 1
    opt = learner.optimizers()
    first = learner.step(opt, {"x": x})["recon"].item()
    for _ in range(150):
        last = learner.step(opt, {"x": x})["recon"].item()
    assert first > 150 and last < 15
    with torch.no_grad():
        assert (learner.model.decode(learner.model.encode(x)) - x).abs().mean() < 0.05


def test_presets_of_beta_vae_are_those_of_the_vae():
    assert set(BetaVAE.PRESETS) == set(VAE.PRESETS)
    assert all(s.beta == 4 for s in BetaVAE.PRESETS.values()) and all(s.beta == 1 for s in VAE.PRESETS.values())
