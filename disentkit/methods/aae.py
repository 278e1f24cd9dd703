"""Adversarial autoencoder (Makhzani et al. 2015, arXiv 1511.05644) in the form in which Kim & Mnih 2018 (section 5)
set it beside FactorVAE:

    maximise  E_q[log p(x|z)] - KL(q(z) || p(z))

Compared with the VAE the term I(x; z) is gone: the code may know as much of the picture as it likes, as long as all
codes together look like the prior. That is no bound on log p(x). KL(q(z) || p(z)) cannot be computed from a batch, so
a discriminator D that tells z ~ q(z) from z ~ p(z) gives the density ratio, as FactorVAE's gives it for TC:

    KL(q(z) || p(z))  ~  E_q(z)[ l_0(z) - l_1(z) ]

with the two logits l of D, class 0 = "from q", class 1 = "from the prior". D, the encoder and the decoder are those of
FactorVAE. Nothing has to be permuted, so one batch a step is enough. Reductions: sum over pixels, mean over the batch.

`weight` multiplies the KL (1 in the objective above). `noise` is the standard deviation of Gaussian noise added to the
pictures that the encoder reads, while the decoder has to return the clean ones; 0 leaves it out. Presets: step sizes
and sizes of D are FactorVAE's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from disentkit.methods.factorvae import FactorVAE, discriminator_loss, tc_estimate
from disentkit.methods.presets import COMMON
from disentkit.methods.vae import GaussianVAE, kl_per_latent, reconstruction_loss, sample
from disentkit.models import Learner, adam
from disentkit.nets.factorvae import discriminator


@dataclass(frozen=True)
class Settings:
    """`weight` of the KL, `noise` on the encoder's pictures; `lr_D`, `width`, `layers` are D's, the rest the VAE's."""

    weight: float = 1.0
    noise: float = 0.0
    d: int = 10
    fc: int = 128
    width: int = 1000
    layers: int = 6
    lr: float = 1e-4
    lr_D: float = 1e-4
    batch: int = 64
    steps: int = 300_000
    size: int = 64


class AAE(Learner):
    """One batch a step: the autoencoder's codes, detached, are D's real ones; the other class is drawn from p(z)."""

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.vae = GaussianVAE(spec.image_shape, settings.d, settings.fc)
        self.D = discriminator(settings.d, settings.width, settings.layers)

    @property
    def model(self) -> GaussianVAE:
        return self.vae

    def optimizers(self):
        return {
            "vae": adam(self.vae.parameters(), self.settings.lr),
            "D": adam(self.D.parameters(), self.settings.lr_D, betas=(0.5, 0.9)),
        }

    def step(self, opt, batch):
        recon, kl, kl_agg, z = self.update_autoencoder(opt["vae"], batch["x"])
        loss_D, accuracy = self.update_D(opt["D"], z)
        return {"recon": recon, "kl": kl, "kl_agg": kl_agg, "loss_D": loss_D, "accuracy_D": accuracy}

    def update_autoencoder(self, opt, x):
        noisy = x
        if self.settings.noise:
            noisy = x + self.settings.noise * torch.randn(x.shape, generator=self.rng, device=x.device)
        mu, logvar = self.vae.posterior(noisy)  # (m, d) each
        z = sample(mu, logvar, self.rng)
        recon = reconstruction_loss(self.vae.decoder(z), x)
        self.D.requires_grad_(False)  # the autoencoder's loss runs through D but must not teach it
        kl_agg = tc_estimate(self.D(z))  # the same log ratio l_0 - l_1, against the prior
        opt.zero_grad()
        (recon + self.settings.weight * kl_agg).backward()
        opt.step()
        self.D.requires_grad_(True)
        kl = kl_per_latent(mu.detach(), logvar.detach())  # a gauge only: no term of the objective
        return recon.detach(), kl, kl_agg.detach(), z.detach()

    def update_D(self, opt, z):
        # z is detached: D's loss must not reach the encoder.
        z_prior = torch.randn(z.shape, generator=self.rng, device=z.device)
        logits, logits_prior = self.D(torch.cat([z, z_prior])).chunk(2)  # (m, 2) each
        loss = discriminator_loss(logits, logits_prior)
        opt.zero_grad()
        loss.backward()
        opt.step()
        right = torch.cat([logits[:, 0] > logits[:, 1], logits_prior[:, 0] < logits_prior[:, 1]])
        return loss.detach(), right.float().mean()

    PRESETS = {
        pair: Settings(width=D.width, layers=D.layers, lr_D=D.lr_D, **COMMON[pair])
        for pair, D in FactorVAE.PRESETS.items()
    }
