"""InfoWGAN-GP: InfoGAN with the Wasserstein distance and a gradient penalty, as Kim & Mnih 2018 (section 6, appendix G)
train it on 2D Shapes because InfoGAN diverges there. The GAN part is Gulrajani et al. 2017, "Improved Training of
Wasserstein GANs", arXiv 1704.00028, algorithm 1.

    critic   minimise  E[f(G(z, c))] - E[f(x)] + eta E[(|grad f(x^)|_2 - 1)^2],   x^ = eps x + (1 - eps) G(z, c)
    G and Q  minimise  -E[f(G(z, c))] - lambda L_I(G, Q)

with eps ~ U(0, 1) for each pair of pictures, and L_I as in `methods/infogan.py`. Norms are over all pixels of a
picture, everything else is a mean over the batch; L_I is summed over the codes. The critic takes `n_critic` batches a
step. It has no batch norm, for its gradient must be that of one picture, and stays float32: the penalty is
differentiated twice.

From the paper: the codes (4 continuous and one 3-way category; 5 continuous and none did no better) and the grids
lambda 0, 0.1 ... 1, noise 5, 10, 20, 40, 80, 160, lr_G 1e-3 and 1e-4, lr_D 1e-4 and 1e-5. Not known to us, so ours:
eta, n_critic, the batch and Adam's betas, which are the defaults of WGAN-GP; that Q is a network of its own, trained
with G as its loss is written (public code lets it share the critic's trunk); which point of the grids, and the lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from disentkit.methods import infogan
from disentkit.methods.infogan import GAN, InfoModel, lower_bound, recovered
from disentkit.models import adam
from disentkit.nets.infogan import head_D, trunk


@dataclass(frozen=True)
class Settings(infogan.Settings):
    """Those of InfoGAN, with the weight `eta` of the gradient penalty and `n_critic` critic updates a step."""

    eta: float = 10.0
    n_critic: int = 5


SPRITES = {"noise": 10, "categories": 3, "continuous": 4, "lam": 0.2, "nets": "dsprites", "lr_D": 1e-4, "batch": 64}
QUICK = Settings(nets="dsprites", wide=0.5, lr_D=1e-3, batch=32, steps=1_000, size=32)
QUICK_SPRITES = replace(Settings(**SPRITES), wide=0.5, lr_D=1e-3, batch=32, steps=1_000, size=32)
SMOKE = {"wide": 0.125, "batch": 16, "steps": 10}


def gradient_penalty(f, x: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """E[(|grad f(x^)|_2 - 1)^2], a scalar to differentiate, at points between x and fake, (N, C, H, W) both."""
    eps = torch.rand(len(x), 1, 1, 1, generator=rng, device=x.device)
    between = (eps * x + (1 - eps) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(f(between).sum(), between, create_graph=True)  # (N, C, H, W)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


class InfoWGAN(GAN):
    """`n_critic` batches a step: an update of the critic with each, then one of G and Q."""

    full_precision = ("D",)

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.draws = settings.n_critic
        shape, nets, wide = spec.image_shape, settings.nets, settings.wide
        self.gan = InfoModel(shape, settings, norm=False)
        self.D = nn.Sequential(*trunk(shape, nets, wide, norm=False), head_D(shape, nets, wide, norm=False))

    def optimizers(self):
        betas = (0.0, 0.9)
        return {
            "D": adam(self.D.parameters(), self.settings.lr_D, betas),
            "G": adam(self.gan.parameters(), self.settings.lr_G, betas),
        }

    def step(self, opt, *batches):
        for batch in batches:
            distance, penalty = self.update_D(opt["D"], batch["x"])
        loss_G, L_I, read_back = self.update_G(opt["G"], len(batches[0]["x"]))
        return {"distance": distance, "penalty": penalty, "loss_G": loss_G, "L_I": L_I, "recovered": read_back}

    def update_D(self, opt, x):
        with torch.no_grad():
            fake = self.gan.decode(self.gan.prior(len(x), self.rng))
        real, false = self.D(torch.cat([x, fake])).chunk(2)  # (m, 1) each; nothing in the critic mixes pictures
        distance = real.mean() - false.mean()  # E f(x) - E f(G), the critic's estimate of the Wasserstein distance
        penalty = gradient_penalty(self.D, x, fake, self.rng)
        opt.zero_grad()
        (self.settings.eta * penalty - distance).backward()
        opt.step()
        return distance.detach(), penalty.detach()

    def update_G(self, opt, m):
        c = self.gan.prior(m, self.rng)  # (m, D), noise and codes
        fake = self.gan.decode(c)
        self.D.requires_grad_(False)  # this loss runs through the critic but must not teach it
        loss = -self.D(fake).mean()
        q = self.gan.Q(self.gan.trunk(fake))
        L_I = lower_bound(self.gan, q, c)
        opt.zero_grad()
        (loss - self.settings.lam * L_I).backward()
        opt.step()
        self.D.requires_grad_(True)
        return loss.detach(), L_I.detach(), recovered(self.gan, q, c)

    PRESETS = {
        ("paper", "mnist"): Settings(lr_G=1e-4, lr_D=1e-4, batch=64, steps=20_000),
        ("paper", "dsprites"): Settings(**SPRITES, size=64, steps=60_000),
        ("course", "dsprites"): Settings(**SPRITES, size=64, steps=5_000),
        ("quick", "dsprites"): QUICK_SPRITES,
        ("smoke", "dsprites"): replace(QUICK_SPRITES, **SMOKE),
        ("quick", "digits"): QUICK,
        ("smoke", "digits"): replace(QUICK, **SMOKE),
        ("quick", "mnist"): QUICK,
        ("smoke", "mnist"): replace(QUICK, **SMOKE),
        ("quick", "folder"): QUICK_SPRITES,
        ("smoke", "folder"): replace(QUICK_SPRITES, **SMOKE),
    }
