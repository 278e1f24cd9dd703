"""StarGAN: Choi, Choi, Kim, Ha, Kim, Choo 2018, "StarGAN: Unified Generative Adversarial Networks for Multi-Domain
Image-to-Image Translation", CVPR 2018, arXiv 1711.09020. A baseline of zero-shot synthesis: the attributes wanted are
given as labels, everything else comes from one picture.

    x' = G(x, c')                      c' the labels wanted, those of another picture of the batch while it learns
    L_D = -E D_src(x) + E D_src(x') + lam_cls L_cls(x, c) + lam_gp E (|grad D_src(x^)|_2 - 1)^2
    L_G = -E D_src(x') + lam_cls L_cls(x', c') + lam_rec E |x - G(x', c)|_1

D has two heads: D_src, the critic of WGAN-GP, a mean over the places of its map (in the penalty, as in the released
code, the sum), and a classifier. x^ lies between x
and x', pictures in [-1, 1]. Labels: L_cls is the sum over the attributes of a cross-entropy, one softmax each, and a
mean over the batch; as a rule of ours, an attribute is a factor of the data, and its classes are the factor's grid
values. `n_critic` updates of D, each on a batch of its own, then one of G on the last of them (in the released code,
yunjey/StarGAN, too). Rates fall linearly to 0 over the second half.

The query is words, not pictures: a value that no label names cannot be asked for. To stand beside models that swap
blocks, the code of a picture is the picture itself and what the classifier reads in it; `decode` is G.

From the released code: losses, weights, nets, Adam's settings, batch 16 and 200,000 updates of D (40,000 steps here);
its pictures have 128 pixels, those of the presets 64. The other presets are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError
from disentkit.methods.infowgan_gp import gradient_penalty
from disentkit.models import Learner, adam
from disentkit.nets import stargan as nets


@dataclass(frozen=True)
class Settings:
    """Weights of the classification, the reconstruction and the gradient penalty; `n_critic` updates of D a step.

    nets  "paper" or "small", the tables of `nets/stargan.py`; `wide` multiplies their widths
    size  the pictures' side in pixels
    """

    lam_cls: float = 1.0
    lam_rec: float = 10.0
    lam_gp: float = 10.0
    n_critic: int = 5
    nets: str = "paper"
    wide: float = 1.0
    lr_G: float = 1e-4
    lr_D: float = 1e-4
    batch: int = 16
    steps: int = 40_000
    size: int = 64


# Our own, for a few hundred steps: more of them, with fewer updates of D each.
QUICK = Settings(n_critic=2, nets="small", wide=0.5, lr_G=1e-3, lr_D=1e-3, batch=8, steps=800, size=32)
COURSE = Settings(nets="small", lr_G=2e-4, lr_D=2e-4, steps=10_000)
SMOKE = {"wide": 0.25, "steps": 10}
SETS = ("fonts", "creatures", "dsprites", "shapes3d", "characters", "folder")


class Translator(nn.Module):
    """The model: G, and the part of D that reads attributes.

    Codes (N, D) are the block "picture" (C, H, H) in [0, 1] and a one-hot block per attribute, in the data's order.
    """

    def __init__(self, image_shape: tuple[int, int, int], space, s: Settings):
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.sizes = space.sizes
        self.codes = CodeSpace([picture_block(image_shape), *(attribute_block(f) for f in space)])
        self.G = nets.Generator(image_shape, sum(space.sizes), s.nets, s.wide)
        self.trunk = nets.trunk(image_shape, s.nets, s.wide)
        self.cls = nets.head_cls(image_shape, sum(space.sizes), s.nets, s.wide)

    def encode(self, x: Tensor) -> Tensor:
        """Images (N, C, H, H) in [0, 1] -> codes: the images and the classifier's softmax of every attribute."""
        read = [part.softmax(1) for part in self.cls(self.trunk(2 * x - 1)).split(self.sizes, dim=1)]
        return torch.cat([x.flatten(1), *read], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes -> images (N, C, H, H) in (0, 1): G of the picture, cut off at [0, 1], and the labels."""
        x = self.codes["picture"].read(codes).clamp(0, 1)
        return (self.G(2 * x - 1, codes[:, self.codes["picture"].size :]) + 1) / 2


def picture_block(image_shape: tuple[int, int, int]) -> Block:
    """The block that holds the picture itself."""
    return Block("picture", "map", tuple(image_shape), 0.0, 1.0)


def attribute_block(factor) -> Block:
    """A one-hot block over a factor's grid values."""
    labels = factor.labels or tuple(f"{value:g}" for value in factor.values)
    return Block(factor.name, "onehot", (len(factor),), labels=labels, unit=factor.unit)


def attributes_of(spec, method: str):
    """The data's factors; raises UserError where there are none, where one has a single value, and where one has the
    name of the picture's block."""
    if spec.space is None or not len(spec.space):
        raise UserError(f"{method} learns from labels, and these data have no factors")
    if "picture" in spec.space.names:
        raise UserError(f"{method} calls a block of its code 'picture': give the factor of that name another one")
    for factor in spec.space:
        if len(factor) < 2:
            why = "no label can be changed: drop it from the data, or add pictures"
            raise UserError(f"attribute '{factor.name}' has one value only, so {why}")
    return spec.space


def one_hots(space, factors: Tensor) -> Tensor:
    """Labels (n, L) of factor values (n, m): the one-hots of all attributes side by side, of the nearest grid value."""
    classes = space.to_grid(factors)  # (n, m)
    each = [(k[:, None] == torch.arange(size, device=k.device)) for k, size in zip(classes.T, space.sizes)]
    return torch.cat(each, dim=1).float()


def classification_loss(logits: Tensor, labels: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """L_cls in nats: a cross-entropy per attribute, summed over them, a mean over the batch. logits, labels: (n, L)."""
    parts = zip(logits.split(sizes, dim=1), labels.split(sizes, dim=1))
    return sum(F.cross_entropy(part, wanted) for part, wanted in parts)


def accuracies(logits: Tensor, labels: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Share of right answers per attribute, (m,)."""
    parts = zip(logits.split(sizes, dim=1), labels.split(sizes, dim=1))
    return torch.stack([(part.argmax(1) == wanted.argmax(1)).float().mean() for part, wanted in parts])


class StarGAN(Learner):
    """`n_critic` batches a step: an update of D with each, then one of G on the last."""

    reads = ("x", "factors")
    full_precision = ("gan.trunk", "src")  # the critic's gradient is differentiated again

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        s = settings
        for name in ("lam_cls", "lam_rec", "lam_gp"):
            if getattr(s, name) < 0:
                raise UserError(f"{name} must be 0 or more, not {getattr(s, name)}")
        self.draws = s.n_critic
        self.space = attributes_of(spec, "StarGAN")
        self.gan = Translator(spec.image_shape, self.space, s)
        self.src = nets.head_src(spec.image_shape, s.nets, s.wide)

    @property
    def model(self) -> Translator:
        return self.gan

    def optimizers(self):
        # Step sizes are tensors, so that they can fall without a word from the host.
        lr = {"D": self.settings.lr_D, "G": self.settings.lr_G}
        D = [p for net in self.judges() for p in net.parameters()]
        players = {"D": D, "G": self.gan.G.parameters()}
        return {
            name: adam(p, torch.tensor(lr[name], device=self.t.device), (0.5, 0.999)) for name, p in players.items()
        }

    def judges(self) -> tuple[nn.Module, ...]:
        """The parts of D: trunk and both heads."""
        return self.gan.trunk, self.gan.cls, self.src

    def rates_fall(self, opt):
        """Step sizes stay for half of the steps and fall linearly to 0 over the other half."""
        share = (2 - 2 * self.t / self.settings.steps).clamp(max=1)
        opt["D"].param_groups[0]["lr"].copy_(self.settings.lr_D * share)
        opt["G"].param_groups[0]["lr"].copy_(self.settings.lr_G * share)

    def step(self, opt, *batches):
        self.rates_fall(opt)
        for batch in batches:
            x, c = 2 * batch["x"] - 1, one_hots(self.space, batch["factors"])  # (B, C, H, H) in [-1, 1], (B, L)
            order = torch.rand(len(c), generator=self.rng, device=c.device).argsort()
            wanted = c[order]  # c', of a shuffled batch
            of_D = self.update_D(opt["D"], x, c, wanted)
        return of_D | self.update_G(opt["G"], x, c, wanted)

    def update_D(self, opt, x, c, wanted):
        s, sizes = self.settings, self.space.sizes
        with torch.no_grad():
            fake = self.gan.G(x, wanted)
        seen = self.gan.trunk(torch.cat([x, fake]))  # nothing in D mixes pictures
        real, false = self.src(seen).chunk(2)  # (B, 1, h, h) each
        logits = self.gan.cls(seen[: len(x)])  # (B, L), of true pictures only
        distance, cls = real.mean() - false.mean(), classification_loss(logits, c, sizes)
        penalty = gradient_penalty(lambda between: self.src(self.gan.trunk(between)), x, fake, self.rng)
        opt.zero_grad()
        (s.lam_cls * cls + s.lam_gp * penalty - distance).backward()
        opt.step()
        terms = {"distance": distance, "penalty": penalty, "cls_real": cls}
        return {name: term.detach() for name, term in terms.items()} | {"accuracy_real": accuracies(logits, c, sizes)}

    def update_G(self, opt, x, c, wanted):
        s, sizes = self.settings, self.space.sizes
        for net in self.judges():  # G's loss runs through them but must not teach them
            net.requires_grad_(False)
        fake = self.gan.G(x, wanted)
        seen = self.gan.trunk(fake)
        logits = self.gan.cls(seen)
        loss, cls = -self.src(seen).mean(), classification_loss(logits, wanted, sizes)
        rec = (x - self.gan.G(fake, c)).abs().mean()
        opt.zero_grad()
        (loss + s.lam_cls * cls + s.lam_rec * rec).backward()
        opt.step()
        for net in self.judges():
            net.requires_grad_(True)
        terms = {"loss_G": loss, "cls_fake": cls, "recon": rec}
        found = {name: term.detach() for name, term in terms.items()}
        return found | {"accuracy_fake": accuracies(logits, wanted, sizes)}

    def preview(self, batch):
        """Reconstructions, and pictures with all the labels that the classifier reads in the one further left."""
        x = batch["x"]
        codes = self.gan.encode(x)
        labels = self.gan.codes.swap(codes, codes.roll(1, 0), self.space.names)
        rows = {"pictures": x, "reconstructions": self.gan.decode(codes)}
        return rows | {"labels of the left neighbour": self.gan.decode(labels)}

    PRESETS = {
        **{("paper", data): Settings() for data in SETS},
        **{("course", data): COURSE for data in SETS},
        **{("quick", data): QUICK for data in SETS},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SETS},
    }
