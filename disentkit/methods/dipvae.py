"""DIP-VAE I and II: Kumar, Sattigeri, Balakrishnan 2018, "Variational Inference of Disentangled Latent Concepts from
Unlabeled Observations", arXiv 1711.00848.

    maximise  ELBO - lambda_od sum_{i != j} [Cov]_ij^2 - lambda_d sum_i ([Cov]_ii - 1)^2

    I    Cov = Cov_x[mu(x)], of the posterior means
    II   Cov = Cov_q(z)[z] = E_x[diag sigma^2(x)] + Cov_x[mu(x)], of the codes themselves (law of total variance)

The aggregate posterior is drawn to the prior's covariance, the unit matrix, by second moments only: no discriminator,
and no dependence beyond correlation is seen. Covariances are those of the batch, with 1/m. In II sigma^2 adds to the
diagonal alone, with its mean over the batch: some public versions take the diagonal of an (m, d) matrix in its place.
Networks and likelihood are those of `methods/vae.py`. Reductions: sum over pixels and latents, mean over the batch.

The weights follow the sweep of google-research/disentanglement_lib: lambda_od from 1 to 50, lambda_d ten times as large
in I and equal in II; lambda_od = 10 here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from disentkit.errors import UserError
from disentkit.methods.presets import COMMON
from disentkit.methods.vae import VAE, kl_per_latent, reconstruction_loss, sample


@dataclass(frozen=True)
class Settings:
    """The paper's symbols, off-diagonal and diagonal weight. The others as in `methods/vae.py`."""

    lambda_od: float = 10.0
    lambda_d: float = 100.0
    d: int = 10
    fc: int = 128
    lr: float = 1e-4
    batch: int = 64
    steps: int = 300_000
    size: int = 64


def covariance_of_means(mu: Tensor, logvar: Tensor) -> Tensor:
    """Cov_x[mu(x)] (d, d) over the batch (m, d)."""
    centred = mu - mu.mean(0)
    return centred.T @ centred / len(mu)


def covariance_of_codes(mu: Tensor, logvar: Tensor) -> Tensor:
    """Cov_q(z)[z] (d, d): what the noise of the posteriors, (m, d), adds lies on the diagonal."""
    return covariance_of_means(mu, logvar) + logvar.exp().mean(0).diag()


def penalties(cov: Tensor) -> tuple[Tensor, Tensor]:
    """(sum_{i != j} Cov_ij^2, sum_i (Cov_ii - 1)^2) of a covariance (d, d)."""
    diagonal = cov.diagonal()
    return (cov - diagonal.diag()).square().sum(), (diagonal - 1).square().sum()


class DIPVAE1(VAE):
    """One batch, one optimiser: loss = reconstruction + KL + lambda_od od + lambda_d diag, on the means' covariance."""

    covariance = staticmethod(covariance_of_means)

    def __init__(self, settings: Settings, spec, base=None):
        if settings.batch < 2:
            raise UserError(f"one picture has no covariance: batch must be 2 or more, not {settings.batch}")
        super().__init__(settings, spec, base)

    def step(self, opt, batch):
        x, s = batch["x"], self.settings
        mu, logvar = self.vae.posterior(x)  # (m, d) each
        z = sample(mu, logvar, self.rng)
        recon = reconstruction_loss(self.vae.decoder(z), x)
        kl = kl_per_latent(mu, logvar)  # (d,)
        od, diag = penalties(self.covariance(mu, logvar))

        opt["vae"].zero_grad()
        (recon + kl.sum() + s.lambda_od * od + s.lambda_d * diag).backward()
        opt["vae"].step()
        return {"recon": recon.detach(), "kl": kl.detach(), "od": od.detach(), "diag": diag.detach()}

    PRESETS = {pair: Settings(**common) for pair, common in COMMON.items()}


class DIPVAE2(DIPVAE1):
    """The same on the codes' covariance; lambda_d = lambda_od."""

    covariance = staticmethod(covariance_of_codes)
    PRESETS = {pair: replace(settings, lambda_d=settings.lambda_od) for pair, settings in DIPVAE1.PRESETS.items()}
