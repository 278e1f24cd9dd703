"""FactorVAE's objective with TC computed straight from the batch, without a discriminator: to see what goes wrong.

    maximise  E_q[log p(x|z)] - KL(q(z|x) || p(z)) - gamma TC_batch

    TC_batch = 1/m sum_i [ log 1/m sum_k q(z_i|x_k)  -  sum_j log 1/m sum_k q(z_ij|x_k) ]

is the TC of the mixture of the batch's m posteriors, as if these were all the images there are. Any TC of such a
mixture is sum_j I_j - I, where I_j is what latent j tells about which of the m images it came from, and I what all of
them tell together. A trained q(z|x) is so narrow that no image's posterior reaches the code of another: then I = ln m
whatever the encoder does, the estimate goes up to (d - 1) ln m, and what is left to minimise is sum_j I_j. So every
latent is punished for what it knows, dependent on the others or not. The gauge `mi` is I: watch it come near ln m.

The idea is Kim & Mnih's appendix D as we recall it. The appendix was not read again, so nothing here is quoted from it;
the lines above are derived, and checked in our tests. Networks, likelihood and reductions are those of
`methods/vae.py`; gamma is FactorVAE's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from disentkit.errors import UserError
from disentkit.methods.betatcvae import kl_terms
from disentkit.methods.factorvae import FactorVAE
from disentkit.methods.presets import COMMON
from disentkit.methods.vae import VAE, kl_per_latent, reconstruction_loss, sample


@dataclass(frozen=True)
class Settings:
    """The paper's symbols. The others as in `methods/vae.py`."""

    gamma: float = 40.0
    d: int = 10
    fc: int = 128
    lr: float = 1e-4
    batch: int = 64
    steps: int = 300_000
    size: int = 64


def mixture_terms(z: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mi, tc, dwkl) in nats of the mixture of the batch's posteriors, from codes and posteriors (m, d) each."""
    m = len(z)
    return kl_terms(z, mu, logvar, torch.full((m, m), -math.log(m), device=z.device))


def mixture_tc(z: Tensor, mu: Tensor, logvar: Tensor, N: int | None = None) -> Tensor:
    """TC_batch alone. N is not used; it is there so that this can stand beside `betatcvae.minibatch_tc`."""
    return mixture_terms(z, mu, logvar)[1]


class MinibatchTC(VAE):
    """One batch, one optimiser: loss = reconstruction + KL + gamma TC_batch."""

    def __init__(self, settings: Settings, spec, base=None):
        if settings.batch < 2:
            raise UserError(f"one picture has no total correlation: batch must be 2 or more, not {settings.batch}")
        super().__init__(settings, spec, base)

    def step(self, opt, batch):
        x = batch["x"]
        mu, logvar = self.vae.posterior(x)  # (m, d) each
        z = sample(mu, logvar, self.rng)
        recon = reconstruction_loss(self.vae.decoder(z), x)
        kl = kl_per_latent(mu, logvar)  # (d,)
        mi, tc, _ = mixture_terms(z, mu, logvar)

        opt["vae"].zero_grad()
        (recon + kl.sum() + self.settings.gamma * tc).backward()
        opt["vae"].step()
        return {"recon": recon.detach(), "kl": kl.detach(), "tc": tc.detach(), "mi": mi.detach()}

    PRESETS = {pair: Settings(gamma=FactorVAE.PRESETS[pair].gamma, **common) for pair, common in COMMON.items()}
