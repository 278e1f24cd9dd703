"""MIX: Hu, Szabo, Portenier, Favaro, Zwicker 2018, "Disentangling Factors of Variation by Mixing Them", CVPR 2018,
pp. 3399-3407, arXiv 1711.07410. No labels; a deterministic autoencoder whose code is n blocks of d numbers.

One step, for pictures x1, x2 and a mask m of n bits, each 0 or 1 with equal chance:

    f1, f2 = Enc(x1), Enc(x2)
    x3 = Dec(m f1 + (1 - m) f2)      mix: bit 1 takes the block from x1, in this file everywhere
    f3 = Enc(x3)                     encode again
    x4 = Dec(m f3 + (1 - m) f1)      unmix: x1's own blocks where x2's were used

    L_M = E |x4 - x1|^2                                       the blocks of x1 survive the company of others
    L_G = E [log Dsc(x1) + log(1 - Dsc(x3))]                  x3 looks like data
    L_C = E -sum_i [m_i log y_i + (1 - m_i) log(1 - y_i)]     y = Cls(x1, x2, x3): each block leaves a trace in x3

    min over Enc, Dec, Cls, max over Dsc of  lam_M L_M + lam_G L_G + lam_C L_C

Without L_C one block may carry everything and the others nothing: x3 is then x1 or x2, and x4 is x1. The classifier is
no adversary: Enc, Dec and Cls all lower L_C, so one backward pass serves them, and Cls makes its own Adam step.

The paper sums over all 2^n masks and writes norms; here, as in the released code (HuQyang/Disentangling-Factors-of-
Variation-by-Mixing-Them), one random mask stands for the sum, L_M is a mean over pixels in [-1, 1], L_C a mean over
blocks, the generator minimises -log Dsc(x3) (that is what the history calls L_G), and rates fall by 0.9 every 20,000
steps. Two things that the released code has and the paper has not are settings: `lam_AE` adds the plain reconstructions
of x1 and x2 (10 there, with lam_M 10), `mask="batch"` draws one mask for the whole batch. Not settings: it draws a
fresh batch and mask for each player, in the order Enc and Dec, Cls, Dsc; an edit of June 2018 sets the weight of x1's
reconstruction to 0; its bit means the other picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError, one_of
from disentkit.models import Learner, adam
from disentkit.nets import mix as nets

MASKS = ("sample", "batch")
MOST_BLOCKS, MOST_NUMBERS = 256, 65_536  # of a code: more would only fill the memory
ALIVE = 0.6  # a block whose bit the classifier reads more often than this leaves a trace


@dataclass(frozen=True)
class Settings:
    """`n` blocks of `d` numbers; weights of the three losses, and of the released code's reconstructions (0: none).

    mask   "sample", a row of bits per pair, or "batch", one for all
    noise  standard deviation of Gaussian noise on the x3 that Cls sees, in a picture of [-1, 1]; 0 as in the paper.
           Enc, Dec and Cls work together, and noise keeps them from agreeing on marks that no eye sees
    nets   "paper" or "small", the tables of `nets/mix.py`; `wide` multiplies their widths
    lr     of Enc and Dec, lr_C of Cls, lr_D of Dsc; all times 0.9 after every `fall` steps
    size   the pictures' side in pixels
    """

    n: int = 8
    d: int = 64
    lam_M: float = 1.0
    lam_G: float = 1.0
    lam_C: float = 1.0
    lam_AE: float = 0.0
    mask: str = "sample"
    noise: float = 0.0
    nets: str = "paper"
    wide: float = 1.0
    lr: float = 2e-4
    lr_C: float = 2e-4
    lr_D: float = 2e-4
    fall: int = field(default=20_000, metadata={"least": 1})
    batch: int = 64
    steps: int = 100_000
    size: int = 64


# Our own, for a few thousand steps: the released code's reconstructions, the paper's lam_M for CelebA, faster players.
QUICK = Settings(
    d=8, lam_M=30.0, lam_G=0.3, lam_C=0.3, lam_AE=10.0, noise=0.5, nets="small", wide=0.75,
    lr=1e-3, lr_C=5e-4, lr_D=5e-4, fall=450, batch=16, steps=4_500, size=32,
)  # fmt: skip
# Spread over four times as many pixels, the same mark drowns in twice the noise.
COURSE = replace(QUICK, noise=1.0, fall=1_500, steps=24_000, size=64)
SMOKE = {"wide": 0.25, "steps": 20}
SMALL = ("characters", "dsprites", "shapes3d", "digits", "mnist", "celeba", "lpc", "sprites", "folder")  # at 32 pixels


class MixingAutoencoder(nn.Module):
    """The model: images <-> n free blocks f1 ... fn of d numbers."""

    def __init__(self, image_shape: tuple[int, int, int], s: Settings):
        super().__init__()
        self.image_shape = image_shape
        self.codes = CodeSpace(Block(f"f{i + 1}", "free", (s.d,)) for i in range(s.n))
        self.encoder = nets.encoder(image_shape, s.n * s.d, s.nets, s.wide)
        self.decoder = nets.decoder(image_shape, s.n * s.d, s.nets, s.wide)

    def encode(self, x: Tensor) -> Tensor:
        """Images (N, C, H, H) in [0, 1] -> codes (N, n d)."""
        return self.encoder(2 * x - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, n d) -> images (N, C, H, H) in (0, 1)."""
        return (self.decoder(codes) + 1) / 2


def draw_mask(batch: int, n: int, rng: torch.Generator, how: str = "sample") -> Tensor:
    """Bits (batch, n), 0.0 or 1.0 with equal chance: a row per pair, or with "batch" one row for all."""
    rows = 1 if how == "batch" else batch
    return torch.randint(2, (rows, n), generator=rng, device=rng.device).float().expand(batch, n)


def mix(f1: Tensor, f2: Tensor, m: Tensor) -> Tensor:
    """Codes (B, n d): block i of f1 where m[:, i] is 1, of f2 where it is 0. m: (B, n); each bit covers d numbers.

    Raises ValueError where n does not divide the code.
    """
    if m.ndim != 2 or f1.shape[1] % m.shape[1]:
        raise ValueError(f"bits {tuple(m.shape)} do not divide codes of {f1.shape[1]} numbers into blocks")
    wide = m.repeat_interleave(f1.shape[1] // m.shape[1], dim=1)  # (B, n d)
    return wide * f1 + (1 - wide) * f2


def mixing_loss(x4: Tensor, x1: Tensor) -> Tensor:
    """L_M: mean over batch and pixels of the squared error, pictures in [-1, 1]."""
    return F.mse_loss(x4, x1)


def classification_loss(logits: Tensor, m: Tensor) -> Tensor:
    """L_C in nats: mean over batch and blocks. logits, m: (B, n); a coin has ln 2."""
    return F.binary_cross_entropy_with_logits(logits, m)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-L_G, which Dsc minimises: mean of -log Dsc(x1) - log(1 - Dsc(x3)), of logits (B, 1)."""
    return (F.softplus(-real) + F.softplus(fake)).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-log Dsc(x3), a mean, of logits (B, 1): falls where log(1 - Dsc(x3)) falls, with a slope where Dsc is sure."""
    return F.softplus(-fake).mean()


class MIX(Learner):
    """Two batches a step: an update of Enc and Dec with Cls, then one of Dsc."""

    draws = 2

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        s = settings
        one_of("mask", s.mask, MASKS)
        if s.n > MOST_BLOCKS or s.n * s.d > MOST_NUMBERS:
            most = f"{MOST_BLOCKS} blocks and {MOST_NUMBERS:,} numbers at most"
            raise UserError(f"n={s.n} blocks of d={s.d} numbers are too many: {most}")
        for name in ("lam_M", "lam_G", "lam_C", "lam_AE", "noise"):
            if getattr(s, name) < 0:
                raise UserError(f"{name} must be 0 or more, not {getattr(s, name)}")
        if s.batch < 2:
            raise UserError(f"batch norm needs two pictures: batch must be 2 or more, not {s.batch}")
        self.auto = MixingAutoencoder(spec.image_shape, s)
        self.C = nets.classifier(spec.image_shape, s.n, s.nets, s.wide)
        self.D = nets.discriminator(spec.image_shape, s.nets, s.wide)
        self.register_buffer("accuracy", torch.full((s.n,), 0.5))  # of Cls, per block: a mean over about 50 steps

    @property
    def model(self) -> MixingAutoencoder:
        return self.auto

    def optimizers(self):
        # Step sizes are tensors, so that they can fall without a word from the host.
        return {
            name: adam(net.parameters(), torch.tensor(lr, device=self.t.device), (0.5, 0.999))
            for name, (net, lr) in self.players().items()
        }

    def players(self) -> dict[str, tuple[nn.Module, float]]:
        """Each player's network and first step size."""
        s = self.settings
        return {"auto": (self.auto, s.lr), "C": (self.C, s.lr_C), "D": (self.D, s.lr_D)}

    def rates_fall(self, opt):
        """Step sizes of all players times 0.9 after every `fall` steps."""
        times = 0.9 ** (self.t / self.settings.fall).floor()
        for name, (_, lr) in self.players().items():
            opt[name].param_groups[0]["lr"].copy_(lr * times)

    def step(self, opt, batch1, batch2):
        self.rates_fall(opt)
        x1, x2 = 2 * batch1["x"] - 1, 2 * batch2["x"] - 1  # (B, C, H, H) in [-1, 1]
        m = draw_mask(len(x1), self.settings.n, self.rng, self.settings.mask)  # (B, n)
        losses, x3 = self.update_auto(opt, x1, x2, m)
        return losses | self.update_D(opt["D"], x1, x3)

    def update_auto(self, opt, x1, x2, m):
        s, enc, dec = self.settings, self.auto.encoder, self.auto.decoder
        f1, f2 = enc(torch.cat([x1, x2])).chunk(2)  # (B, n d) each
        if s.lam_AE:  # one pass for all that is decoded from f1 and f2
            x3, again1, again2 = dec(torch.cat([mix(f1, f2, m), f1, f2])).chunk(3)
        else:
            x3 = dec(mix(f1, f2, m))
        f3 = enc(x3)
        x4 = dec(mix(f3, f1, m))
        self.D.requires_grad_(False)  # the loss runs through Dsc but must not teach it
        # Where lam_C is 0 the classifier only watches: it learns, for the gauge, and its loss reaches nobody else.
        seen = x3 if s.lam_C else x3.detach()
        seen = seen + s.noise * torch.randn(x3.shape, generator=self.rng, device=x3.device) if s.noise else seen
        logits = self.C(torch.cat([x1, x2, seen], dim=1))  # (B, n)
        terms = {"L_M": mixing_loss(x4, x1), "L_G": generator_loss(self.D(x3)), "L_C": classification_loss(logits, m)}
        loss = s.lam_M * terms["L_M"] + s.lam_G * terms["L_G"] + (s.lam_C or 1.0) * terms["L_C"]
        if s.lam_AE:
            terms["L_AE"] = F.mse_loss(again1, x1) + F.mse_loss(again2, x2)
            loss = loss + s.lam_AE * terms["L_AE"]
        for name in ("auto", "C"):
            opt[name].zero_grad()
        loss.backward()
        for name in ("auto", "C"):
            opt[name].step()
        self.D.requires_grad_(True)
        self.accuracy.lerp_(((logits > 0) == (m > 0)).float().mean(0), 0.02)
        gauges = {"alive": (self.accuracy > ALIVE).float().sum(), "accuracy": self.accuracy.clone()}
        return {name: term.detach() for name, term in terms.items()} | gauges, x3.detach()

    def update_D(self, opt, x1, x3):
        # Two passes: in one, batch norm would tell each picture how the other kind looks.
        loss = discriminator_loss(self.D(x1), self.D(x3))
        opt.zero_grad()
        loss.backward()
        opt.step()
        return {"loss_D": loss.detach()}

    def preview(self, batch):
        """Reconstructions, and mixes in which every other block comes from the picture one further left."""
        x = batch["x"]
        f = self.auto.encode(x)
        m = (torch.arange(self.settings.n, device=x.device) % 2 == 0).float().expand(len(x), -1)
        mixed = self.auto.decode(mix(f, f.roll(1, 0), m))
        return {"pictures": x, "reconstructions": self.auto.decode(f), "mixed with the left neighbour": mixed}

    # `paper`: n, d, weights and 28 or 60 pixels are the paper's; nets, rates and batch those of the released code.
    # Whether the paper's weights stand before sums or means is not established, nor are its steps and CelebA's size.
    PRESETS = {
        ("paper", "mnist"): Settings(d=8, size=28),
        ("paper", "sprites"): Settings(size=60),
        ("paper", "lpc"): Settings(size=60),
        ("paper", "celeba"): Settings(lam_M=30.0),
        **{("paper", data): Settings() for data in ("characters", "dsprites", "shapes3d", "folder")},
        **{("course", data): COURSE for data in SMALL if data not in ("digits", "mnist", "sprites")},
        **{("course", data): replace(COURSE, noise=0.5, size=32) for data in ("digits", "mnist")},
        **{("quick", data): QUICK for data in SMALL},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SMALL},
    }
