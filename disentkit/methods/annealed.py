"""Annealed beta-VAE: Burgess et al. 2018, "Understanding disentangling in beta-VAE", arXiv 1804.03599.

    maximise  E_q[log p(x|z)] - gamma |KL(q(z|x) || p(z)) - C|

The capacity C rises linearly from 0 to C_max nats: first the code may hold almost nothing and takes what lowers the
reconstruction error most, later it may take more, a factor at a time. The absolute value is that of the batch's mean
KL. Networks and likelihood are those of `methods/vae.py`, so that only the objective differs from the beta-VAE.
Reductions: sum over pixels and latents, mean over the batch.

gamma = 1000 and 100,000 of 300,000 steps for the rise are those of google-research/disentanglement_lib, C_max = 25 is
in the middle of its sweep (5 to 100). Shorter presets take the same third of their length, and gamma = 4: at their ten
times larger steps a strong pull to C = 0 at the start can kill most of the encoder's units. Then the KL meets C by
moving every posterior alike, and nothing of the picture is in the code: `recon` stays where it is while `kl` follows C.
On dSprites at 32 pixels and a step size of 1e-3 that happened with gamma = 10, 100 and 1000, and not with 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from disentkit.methods.presets import COMMON
from disentkit.methods.vae import VAE, kl_per_latent, reconstruction_loss, sample


@dataclass(frozen=True)
class Settings:
    """The paper's symbols; C reaches `C_max` nats after `C_steps` steps. The others as in `methods/vae.py`."""

    gamma: float = 1000.0
    C_max: float = 25.0
    C_steps: int = 100_000
    d: int = 10
    fc: int = 128
    lr: float = 1e-4
    batch: int = 64
    steps: int = 300_000
    size: int = 64


class AnnealedVAE(VAE):
    """One batch, one optimiser: loss = reconstruction + gamma |KL - C|."""

    def step(self, opt, batch):
        x, s = batch["x"], self.settings
        mu, logvar = self.vae.posterior(x)  # (N, d) each
        z = sample(mu, logvar, self.rng)
        recon = reconstruction_loss(self.vae.decoder(z), x)
        kl = kl_per_latent(mu, logvar)  # (d,)
        C = s.C_max * (self.t / s.C_steps).clamp(max=1)  # nats

        opt["vae"].zero_grad()
        (recon + s.gamma * (kl.sum() - C).abs()).backward()
        opt["vae"].step()
        return {"recon": recon.detach(), "kl": kl.detach(), "C": C}

    PRESETS = {
        pair: Settings(gamma=1000.0 if pair[0] == "paper" else 4.0, C_steps=common["steps"] // 3, **common)
        for pair, common in COMMON.items()
    }
