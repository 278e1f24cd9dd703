"""beta-TCVAE: Chen, Li, Grosse, Duvenaud 2018, "Isolating Sources of Disentanglement in VAEs", arXiv 1802.04942.

    KL(q(z|x) || p(z))  =  I(x; z)  +  KL(q(z) || prod_j q(z_j))  +  sum_j KL(q(z_j) || p(z_j))        on average over x
                              mi                  tc                            dwkl

    maximise  E_q[log p(x|z)] - alpha mi - beta tc - gamma_dw dwkl

With alpha = gamma_dw = 1 that is the VAE's bound minus (beta - 1) tc, FactorVAE's objective with gamma = beta - 1; what
differs is how tc is estimated. Here q(z) of the N training images is estimated from the m images of the batch, as a
mixture of their posteriors: log q(z_i) ~ log sum_k W_ik q(z_i|x_k), and per latent likewise.

    mws  minibatch-weighted: W_ik = 1 / (N m). Biased: log q(z) comes out too low. In tc the constants leave
         (d - 1) ln(N m), so it is far from the true value, while its gradient does not feel them.
    mss  minibatch-stratified: W is `stratified_weights`, whose rows sum to 1, an unbiased estimate of q(z). Its log,
         and so tc, is still biased, but less, and feels changes that mws does not see at small batches.

Either may give a negative tc. Networks and likelihood are those of `methods/vae.py`. Reductions: sum over pixels and
latents, mean over the batch. beta = 6 is the authors' code's; their batch of 2,048 is not taken here, since all members
are compared with the same training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from disentkit.errors import UserError, one_of
from disentkit.methods.presets import COMMON, IMAGES
from disentkit.methods.vae import VAE, kl_per_latent, reconstruction_loss, sample


@dataclass(frozen=True)
class Settings:
    """alpha, beta and gamma_dw (the paper's gamma) weigh the three terms; N is the number of training images.

    `estimator` is "mss" or "mws". The others as in `methods/vae.py`. For pictures of your own give their N: the presets
    have 10,000 there.
    """

    alpha: float = 1.0
    beta: float = 6.0
    gamma_dw: float = 1.0
    N: int = 737_280
    estimator: str = "mss"
    d: int = 10
    fc: int = 128
    lr: float = 1e-4
    batch: int = 64
    steps: int = 300_000
    size: int = 64


def log_density(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log q(z_ij | x_k) of every code under every posterior, from (m, d) each to (m, m, d) with axes i, k, j."""
    return -0.5 * ((z[:, None] - mu).square() * (-logvar).exp() + logvar + math.log(2 * math.pi))


def stratified_weights(m: int, N: int, device=None) -> Tensor:
    """W (m, m) of minibatch-stratified sampling; every row sums to 1. With M = m - 1 other images in the batch:

        1 / N            on the diagonal, for each code's own image, which is one of N
        (N - M) / (N M)  once in each row (here: one to the right, the last row at its left end)
        1 / M            everywhere else

    Many public versions write the first two into columns 0 and 1 instead: then only one code's own image is weighed
    right, the others with 1 / M, and the estimate hardly sees tc any more.
    """
    M = m - 1
    W = torch.full((m, m), 1 / M, device=device)
    W.fill_diagonal_(1 / N)
    W.diagonal(1).fill_((N - M) / (N * M))
    W[-1, 0].fill_((N - M) / (N * M))
    return W


def log_weights(estimator: str, m: int, N: int, device=None) -> Tensor:
    """log W (m, m) of the estimator "mss" or "mws"."""
    if estimator == "mws":
        return torch.full((m, m), -math.log(N * m), device=device)
    return stratified_weights(m, N, device).log()


def kl_terms(z: Tensor, mu: Tensor, logvar: Tensor, log_W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mi, tc, dwkl) of codes z ~ q(z|x), posteriors (m, d) each, and log weights (m, m); means over the batch.

    Their sum is log q(z|x) - log p(z), the sampled KL, whatever the weights are.
    """
    log_q = log_density(z, mu, logvar)  # (m, m, d)
    log_qzx = log_q.diagonal().sum(0)  # (m,), log q(z_i|x_i)
    log_qz = (log_W + log_q.sum(2)).logsumexp(1)  # (m,)
    log_qzj = (log_W[:, :, None] + log_q).logsumexp(1).sum(1)  # (m,), sum_j log q(z_ij)
    log_pz = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)  # (m,)
    return (log_qzx - log_qz).mean(), (log_qz - log_qzj).mean(), (log_qzj - log_pz).mean()


def minibatch_tc(z: Tensor, mu: Tensor, logvar: Tensor, N: int, estimator: str = "mss") -> Tensor:
    """The estimate of tc alone, a scalar in nats, from codes and posteriors (m, d) of m of N images."""
    return kl_terms(z, mu, logvar, log_weights(one_of("estimator", estimator, ("mss", "mws")), len(z), N, z.device))[1]


class BetaTCVAE(VAE):
    """One batch, one optimiser: loss = reconstruction + alpha mi + beta tc + gamma_dw dwkl."""

    def __init__(self, settings: Settings, spec, base=None):
        one_of("estimator", settings.estimator, ("mss", "mws"))
        if not 2 <= settings.batch <= settings.N:
            raise UserError(f"beta-TCVAE needs 2 <= batch <= N, the number of training images; batch is "
                            f"{settings.batch} and N is {settings.N}")  # fmt: skip
        super().__init__(settings, spec, base)

    def step(self, opt, batch):
        x, s = batch["x"], self.settings
        mu, logvar = self.vae.posterior(x)  # (m, d) each
        z = sample(mu, logvar, self.rng)
        recon = reconstruction_loss(self.vae.decoder(z), x)
        mi, tc, dwkl = kl_terms(z, mu, logvar, log_weights(s.estimator, len(x), s.N, x.device))

        opt["vae"].zero_grad()
        (recon + s.alpha * mi + s.beta * tc + s.gamma_dw * dwkl).backward()
        opt["vae"].step()
        kl = kl_per_latent(mu.detach(), logvar.detach())  # (d,)
        return {"recon": recon.detach(), "mi": mi.detach(), "tc": tc.detach(), "dwkl": dwkl.detach(), "kl": kl}

    PRESETS = {
        pair: Settings(N=(IMAGES | {"fonts": 236_179, "creatures": 500}).get(pair[1], 10_000), **common)
        for pair, common in COMMON.items()
    }
