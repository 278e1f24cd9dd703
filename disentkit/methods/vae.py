"""VAE and beta-VAE.

    VAE       Kingma & Welling 2014, arXiv 1312.6114     maximise  E_q[log p(x|z)] - KL(q(z|x) || p(z))
    beta-VAE  Higgins et al. 2017, ICLR                  maximise  E_q[log p(x|z)] - beta KL(q(z|x) || p(z)),  beta > 1

in the form in which Kim & Mnih 2018 (section 2, equation 1) compare FactorVAE with them: Bernoulli likelihood, the
networks of `nets/factorvae.py`. Reductions: sum over pixels and latents, mean over the batch; a mean over the 4,096
pixels would change what beta means as many times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.codes import gaussian_blocks, gaussian_kl
from disentkit.models import Learner, adam
from disentkit.nets.factorvae import decoder, encoder


@dataclass(frozen=True)
class Settings:
    """The paper's symbols; `size` is the pictures' side in pixels, `fc` the width of the fully connected layers."""

    beta: float = 1.0
    d: int = 10
    fc: int = 128
    lr: float = 1e-4
    batch: int = 64
    steps: int = 300_000
    size: int = 64


QUICK = Settings(size=32, steps=5_000, lr=1e-3)
SMOKE = replace(QUICK, steps=30, batch=16)
# Pictures without a renderer: the user's own and those of the paper's last figures.
PICTURES = {
    (preset, data): settings
    for data in ("folder", "celeba", "chairs", "faces", "lpc")
    for preset, settings in {
        "paper": Settings(fc=256, steps=1_000_000),
        "course": Settings(fc=256, steps=25_000, lr=1e-3),
        "quick": replace(QUICK, fc=256),
        "smoke": replace(SMOKE, fc=256),
    }.items()
}


class GaussianVAE(nn.Module):
    """The model that every member of the family trains: d Gaussian blocks of size 1.

    x (N, C, H, H) in [0, 1]  ->  q(z|x) = N(mu, diag sigma^2)  ->  p(x|z) Bernoulli, from logits.
    """

    def __init__(self, image_shape: tuple[int, int, int], d: int, fc: int):
        super().__init__()
        self.image_shape, self.codes = image_shape, gaussian_blocks(d)
        self.encoder = encoder(image_shape, d, fc)
        self.decoder = decoder(image_shape, d, fc)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log sigma^2 of q(z|x), each (N, d)."""
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return mu, logvar

    def encode(self, x: Tensor) -> Tensor:
        """The posterior mean (N, d)."""
        return self.posterior(x)[0]

    def decode(self, codes: Tensor) -> Tensor:
        """The Bernoulli mean (N, C, H, H)."""
        return self.decoder(codes).sigmoid()

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """z ~ N(0, I), (n, d)."""
        return self.codes.prior(n, rng)


def sample(mu: Tensor, logvar: Tensor, rng: torch.Generator) -> Tensor:
    """z ~ N(mu, sigma^2), reparameterised."""
    return mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=rng, device=mu.device)


def reconstruction_loss(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x|z), Bernoulli: summed over pixels, averaged over the batch."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def kl_per_latent(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z_j|x) || N(0, 1)) for every latent, (d,), averaged over the batch."""
    return gaussian_kl(mu, logvar).mean(0)


class VAE(Learner):
    """One batch, one optimiser: loss = reconstruction + beta KL, with beta = 1 for the VAE."""

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.vae = GaussianVAE(spec.image_shape, settings.d, settings.fc)

    @property
    def model(self) -> GaussianVAE:
        return self.vae

    def optimizers(self):
        return {"vae": adam(self.vae.parameters(), self.settings.lr)}

    def step(self, opt, batch):
        x = batch["x"]
        mu, logvar = self.vae.posterior(x)  # (N, d) each
        z = sample(mu, logvar, self.rng)
        recon = reconstruction_loss(self.vae.decoder(z), x)
        kl = kl_per_latent(mu, logvar)  # (d,)

        opt["vae"].zero_grad()
        (recon + self.settings.beta * kl.sum()).backward()
        opt["vae"].step()
        return {"recon": recon.detach(), "kl": kl.detach()}

    PRESETS = {
        ("paper", "dsprites"): Settings(),
        ("course", "dsprites"): Settings(steps=25_000, lr=1e-3),
        ("quick", "dsprites"): QUICK,
        ("smoke", "dsprites"): SMOKE,
        ("quick", "digits"): QUICK,
        ("smoke", "digits"): SMOKE,
        ("quick", "mnist"): QUICK,
        ("smoke", "mnist"): SMOKE,
        # fc=256 wherever pictures have three channels, as public ports do.
        ("paper", "shapes3d"): Settings(d=6, fc=256, steps=1_000_000),
        ("course", "shapes3d"): Settings(d=6, fc=256, steps=25_000, lr=1e-3),
        ("quick", "shapes3d"): replace(QUICK, d=6, fc=256, steps=3_000),
        ("smoke", "shapes3d"): replace(SMOKE, d=6, fc=256),
        ("course", "characters"): Settings(d=16, fc=256, steps=25_000, lr=1e-3),
        ("quick", "characters"): replace(QUICK, d=16, fc=256, steps=3_000),
        ("smoke", "characters"): replace(SMOKE, d=16, fc=256),
        # As many latents as make four per attribute, for the search of `methods/exhaustive.py`.
        **{
            pair: replace(settings, d=20, fc=256)
            for data in ("fonts", "creatures")
            for pair, settings in {
                ("course", data): Settings(steps=25_000, lr=1e-3),
                ("quick", data): replace(QUICK, steps=4_000),
                ("smoke", data): SMOKE,
            }.items()
        },
        **PICTURES,
    }


class BetaVAE(VAE):
    """The VAE with beta > 1; beta = 4 is the value Kim & Mnih compare with on 2D Shapes."""

    PRESETS = {pair: replace(settings, beta=4.0) for pair, settings in VAE.PRESETS.items()}
