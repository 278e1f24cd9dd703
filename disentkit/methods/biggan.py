"""BigGAN: Brock, Donahue, Simonyan 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR
2019, arXiv 1809.11096. Small enough for one CPU core: the generator in which continuous directions are searched.

    x' = G(c, z)          c a class, z ~ N(0, I) in chunks z1, z2 ...: one for each level of G, from coarse to fine
    L_D = E max(0, 1 - D(x, c)) + E max(0, 1 + D(x', c))         hinge loss, means over the batch
    L_G = -E D(x', c)
    D(x, c) = linear(h(x)) + <embedding of c, h(x)>              projection, Miyato & Koyama 2018, arXiv 1802.05637

`n_critic` updates of D, each on a batch of its own, then one of G, on the pictures that D saw last. The model is a
moving average of G: after every step  average <- d average + (1 - d) G  with  d = min(ema, (1 + t) / (10 + t)),  so
that the first pictures do not hang on to random weights (in the released code d is 0 for the first 20,000 steps).

Ours, where the released code does otherwise. The average is taken of weights as they are used, already divided by their
largest singular value, so that the model which is kept needs no spectral norm. The statistics of its batch norms are
its own: every step it draws half a batch of pictures without a gradient, and PyTorch's running means go along; there,
they can be gathered once before sampling ("standing statistics"). The classes of the pictures drawn are those of the
batch, so that D cannot tell them by how often a class comes. A class is a value of the data's first category; without
one there is no class, and no projection.

The released code is ajbrock/BigGAN-PyTorch. `paper` takes rates, betas and one update of D from its launch script
`launch_BigGAN_bs256x8.sh`, for ImageNet at 128 pixels with 96 channels and batches of 2,048; widths, batch, decay,
length and pixels are ours, as are the other presets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError
from disentkit.models import Learner, adam
from disentkit.nets import biggan as nets


@dataclass(frozen=True)
class Settings:
    """`chunk` numbers of the latent per level, `embed` numbers of the shared class embedding.

    ch         G has this many channels per unit of the table in `nets/biggan.py`; ch_D the same for D
    attention  the side of the maps with self-attention, in G and in D; 0 for none
    ema        d, the decay of the moving average
    n_critic   updates of D a step
    size       the pictures' side in pixels: 16, 32, 64 or 128
    """

    chunk: int = 16
    embed: int = 32
    ch: int = 8
    ch_D: int = 16
    attention: int = field(default=16, metadata={"least": 0})
    ema: float = 0.999
    n_critic: int = 1
    lr_G: float = 2e-4
    lr_D: float = 8e-4
    batch: int = 16
    steps: int = 16_000
    size: int = 64


COURSE = Settings()
QUICK = Settings(attention=0, ema=0.995, lr_G=3e-4, lr_D=1.2e-3, steps=2_000, size=32)
PAPER = Settings(ch=24, ch_D=32, attention=32, ema=0.9999, lr_G=1e-4, lr_D=4e-4, batch=64, steps=100_000)
SMOKE = {"ch": 1, "ch_D": 2, "batch": 8, "steps": 10}
SETS = ("scenes", "shapes3d", "dsprites", "characters", "creatures", "fonts", "folder")


def first_category(space) -> int | None:
    """The column of the data's first category; None where there is none."""
    found = [k for k, factor in enumerate(space or ()) if factor.kind == "category" and len(factor) > 1]
    return found[0] if found else None


def code_space(image_shape: tuple[int, int, int], factor, chunk: int) -> CodeSpace:
    """The block "class", where there is a factor, and z1, z2 ...: a chunk per level. No encoder reads any."""
    blocks = [Block("class", "onehot", (len(factor),), inferred=False, labels=factor.labels)] if factor else []
    chunks = range(1, nets.levels(image_shape) + 1)
    return CodeSpace(blocks + [Block(f"z{i}", "gaussian", (chunk,), inferred=False) for i in chunks])


class Sampler(nn.Module):
    """The model: the moving average of G, over the blocks `class` and z1, z2 ... It has no encoder."""

    def __init__(self, image_shape: tuple[int, int, int], factor, s: Settings):
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.codes = code_space(image_shape, factor, s.chunk)
        self.classes = len(factor) if factor else 0
        self.G = generator(image_shape, self.classes, s, spectral=False)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, D) -> images (N, C, H, H) in [0, 1]."""
        return (self.G(codes[:, : self.classes], codes[:, self.classes :]) + 1) / 2

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """(c, z) ~ p(c) p(z), (n, D)."""
        return self.codes.prior(n, rng)

    def first_layer(self) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
        """Weight (16 C, chunk) and bias (16 C,) of the layer that makes the first map of z1, and that map's shape."""
        layer = self.G.first
        return layer.weight, layer.bias, self.G.first_shape

    def level_weights(self) -> dict[str, Tensor]:
        """For each chunk the weights (out, chunk) that multiply it: the first layer's, then all gains and biases."""
        found = {"z1": self.G.first.weight}
        for i, block in enumerate(self.G.blocks, 2):
            layers = [layer for norm in (block.norm1, block.norm2) for layer in (norm.gain, norm.bias)]
            found[f"z{i}"] = torch.cat([layer.weight[:, -self.G.chunk :] for layer in layers])
        return found


def generator(image_shape: tuple[int, int, int], classes: int, s: Settings, spectral: bool = True) -> nets.Generator:
    """G as the settings have it."""
    return nets.Generator(image_shape, classes, s.chunk, s.ch, s.embed, s.attention, spectral)


def hinge_D(real: Tensor, fake: Tensor) -> Tensor:
    """L_D: mean of max(0, 1 - D(x)) + max(0, 1 + D(x')), of logits (B,) each."""
    return ((1 - real).relu() + (1 + fake).relu()).mean()


def hinge_G(fake: Tensor) -> Tensor:
    """L_G: mean of -D(x'), of logits (B,)."""
    return -fake.mean()


class BigGAN(Learner):
    """`n_critic` batches a step: an update of D with each, then one of G, then the average goes along."""

    reads = ("x", "factors")

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        s = settings
        if not 0 <= s.ema < 1:
            raise UserError(f"ema must be 0 or more and below 1, not {s.ema}")
        if s.batch < 2:
            raise UserError(f"batch norm needs two pictures: batch must be 2 or more, not {s.batch}")
        self.draws = s.n_critic
        self.column = first_category(spec.space)
        factor = None if self.column is None else spec.space.factors[self.column]
        if factor is None:
            self.reads = ("x",)
        self.average = Sampler(spec.image_shape, factor, s).requires_grad_(False)
        self.G = generator(spec.image_shape, self.average.classes, s)
        self.D = nets.Discriminator(spec.image_shape, self.average.classes, s.ch_D, s.attention)
        self.follow(1.0)

    @property
    def model(self) -> Sampler:
        return self.average

    def optimizers(self):
        betas = (0.0, 0.999)
        return {
            "D": adam(self.D.parameters(), self.settings.lr_D, betas),
            "G": adam(self.G.parameters(), self.settings.lr_G, betas),
        }

    def step(self, opt, *batches):
        for batch in batches:
            x, c = 2 * batch["x"] - 1, self.classes_of(batch)  # (B, C, H, H) in [-1, 1], (B, K)
            last = batch is batches[-1]
            with torch.set_grad_enabled(last):  # G learns from its last pictures only
                fake = self.draw(c)
            of_D = self.update_D(opt["D"], x, fake.detach(), c)
        loss_G = self.update_G(opt["G"], fake, c)
        self.follow(1 - ((1 + self.t) / (10 + self.t)).clamp(max=self.settings.ema))
        with torch.no_grad():  # for the running statistics of the average's batch norms
            c = c[: max(2, len(c) // 2)]
            self.average.G(c, self.draw_z(len(c)))
        return of_D | {"loss_G": loss_G}

    def draw(self, c: Tensor) -> Tensor:
        """Pictures of G (B, C, H, H) in (-1, 1), of classes c (B, K)."""
        nets.power_iteration(self.G)
        return self.G(c, self.draw_z(len(c)))

    def classes_of(self, batch: dict[str, Tensor]) -> Tensor:
        """One-hot classes (B, K) of a batch; (B, 0) where the data have none."""
        if self.column is None:
            return batch["x"].new_zeros(len(batch["x"]), 0)
        k = self.spec.space.to_grid(batch["factors"])[:, self.column]  # (B,)
        return (k[:, None] == torch.arange(self.average.classes, device=k.device)).float()

    def draw_z(self, n: int) -> Tensor:
        """z ~ N(0, I), (n, L chunk)."""
        d = self.average.codes.size - self.average.classes
        return torch.randn(n, d, generator=self.rng, device=self.rng.device)

    def update_D(self, opt, x, fake, c):
        nets.power_iteration(self.D)
        real, false = self.D(torch.cat([x, fake]), torch.cat([c, c])).chunk(2)  # (B,) each; nothing mixes pictures
        loss = hinge_D(real, false)
        opt.zero_grad()
        loss.backward()
        opt.step()
        right = ((real > 0).float().mean() + (false < 0).float().mean()) / 2
        return {"loss_D": loss.detach(), "accuracy_D": right}

    def update_G(self, opt, fake, c):
        self.D.requires_grad_(False)  # this loss runs through D but must not teach it
        loss = hinge_G(self.D(fake, c))
        opt.zero_grad()
        loss.backward()
        opt.step()
        self.D.requires_grad_(True)
        return loss.detach()

    @torch.no_grad()
    def follow(self, share: Tensor | float):
        """average <- average + share (G - average), of weights as they are used."""
        fast = nets.used_weights(self.G)
        for name, slow in self.average.G.named_parameters():
            slow.lerp_(fast[name], share)

    def preview(self, batch):
        x = batch["x"]
        codes = self.average.prior(len(x), torch.Generator(x.device).manual_seed(0))  # the same codes all the time
        return {"pictures": x, "samples": self.average.decode(codes)}

    PRESETS = {
        **{("paper", data): PAPER for data in SETS},
        **{("course", data): COURSE for data in SETS},
        **{("quick", data): QUICK for data in SETS},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SETS},
    }
