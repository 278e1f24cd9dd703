"""InfoGAN: Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
Adversarial Nets", arXiv 1606.03657; one of the two GANs that Kim & Mnih 2018 compare FactorVAE with.

    min_{G,Q} max_D  E_x[log D(x)] + E_{z,c}[log(1 - D(G(z, c)))] - lambda L_I(G, Q)

A picture is drawn from noise z, which nobody reads back, and from codes c. The lower bound on their mutual information

    L_I(G, Q) = E_{c ~ p(c), x ~ G(z, c)}[log Q(c|x)] + H(c)  <=  I(c; G(z, c))

is high where the network Q can tell from the picture which codes made it. Q(c|x) is a softmax for a category, whose
bound ends at ln(categories), and N(mu(x), 1) for c ~ U(-1, 1): with its spread fixed, as the reference code has it, the
bound of such a code ends at ln 2 - ln(2 pi)/2 = -0.23 nats, and only its slope matters.

As in the reference code (openai/InfoGAN): D and Q share their trunk; G's loss is -log D(G(z, c)); -lambda L_I stands in
both losses, so that gradients flow through Q in both updates, but each update moves its own player, and Q's weights are
part of D's. Losses are means over the batch, L_I is summed over the codes.

Early stopping. Kim & Mnih report that InfoGAN diverges on 2D Shapes and show one stopped early. The stop is `steps`
(`--set steps=...`): no weight or rate depends on how many steps are still to come, so a shorter run is the beginning of
the longer one, bit for bit on a CPU. Where to stop is read from the history (and the live picture): `accuracy_D` near 1
says that D has won and teaches G little more, a falling `recovered` that G has begun to lose its codes.

Sources of the presets: `paper` on mnist is the launcher of the reference code; `paper` on dsprites takes the codes of
Kim & Mnih (4 continuous and one 3-way category), the nets, rates, lambda, noise and 28 epochs of fjxmlzn/InfoGAN-CR.
The other presets are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError
from disentkit.models import Learner, adam
from disentkit.nets.infogan import generator, head_D, head_Q, trunk


@dataclass(frozen=True)
class Settings:
    """`noise` numbers U(-1, 1), a category of so many values (0 for none), so many `continuous` codes U(-1, 1).

    lam   lambda, the weight of L_I
    nets  "mnist" or "dsprites", the tables of `nets/infogan.py`; `wide` multiplies their widths (2 for larger nets)
    size  the pictures' side in pixels
    """

    noise: int = field(default=62, metadata={"least": 0})
    categories: int = field(default=10, metadata={"least": 0})
    continuous: int = field(default=2, metadata={"least": 0})
    lam: float = 1.0
    nets: str = "mnist"
    wide: float = 1.0
    lr_G: float = 1e-3
    lr_D: float = 2e-4
    batch: int = 128
    steps: int = 5_000
    size: int = 28


SPRITES = {"noise": 5, "categories": 3, "continuous": 4, "nets": "dsprites", "lr_D": 2e-3, "batch": 64}
# Spectral norm on digits too: with the table "mnist" at a quarter of its width D was right on 99 % after 1,000 steps.
QUICK = Settings(nets="dsprites", lr_D=1e-3, batch=64, steps=2_000, size=32)
QUICK_SPRITES = Settings(**SPRITES, steps=2_000, size=32)
SMOKE = {"wide": 0.125, "batch": 16, "steps": 20}


def code_space(noise: int, categories: int, continuous: int) -> CodeSpace:
    """The blocks `noise` (not inferred), `category` (one-hot), c1, c2 ...; UserError where Q has nothing to read."""
    if categories == 1:
        raise UserError("categories=1 is no choice: take 2 or more, or 0 for none")
    if not categories and not continuous:
        raise UserError("InfoGAN needs a code that Q reads: categories or continuous above 0")
    blocks = [Block("noise", "uniform", (noise,), -1.0, 1.0, inferred=False)] if noise else []
    blocks += [Block("category", "onehot", (categories,))] if categories else []
    return CodeSpace(blocks + [Block(f"c{i + 1}", "uniform", low=-1.0, high=1.0) for i in range(continuous)])


class InfoModel(nn.Module):
    """The model of both methods: codes -> G -> pictures, and pictures -> trunk -> Q -> the codes that are inferred."""

    def __init__(self, image_shape: tuple[int, int, int], s: Settings, norm: bool = True):
        super().__init__()
        self.image_shape, self.codes = image_shape, code_space(s.noise, s.categories, s.continuous)
        self.read = [block for block in self.codes if block.inferred]
        self.G = generator(image_shape, self.codes.size, s.nets, s.wide)
        self.trunk = trunk(image_shape, s.nets, s.wide, norm)
        self.Q = head_Q(image_shape, sum(block.size for block in self.read), s.nets, s.wide, norm)

    def decode(self, codes: Tensor) -> Tensor:
        """G: codes (N, D) -> images (N, C, H, H) in (0, 1)."""
        return self.G(codes).sigmoid()

    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, D): softmax of Q for the category, Q's means for the continuous codes; the noise at its centre."""
        codes = self.codes.centre(len(x), x.device)
        for block, part in self.parts(self.Q(self.trunk(x))):
            codes = block.write(codes, part.softmax(1) if block.kind == "onehot" else part)
        return codes

    def parts(self, q: Tensor) -> Iterator[tuple[Block, Tensor]]:
        """Each inferred block with its parameters (N, size) out of those of all, q (N, sum of sizes)."""
        return zip(self.read, q.split([block.size for block in self.read], dim=1))

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """(z, c) ~ p(z) p(c), (n, D)."""
        return self.codes.prior(n, rng)


def log_q(block: Block, parameters: Tensor, c: Tensor) -> Tensor:
    """log Q(c|x) in nats, (N,), of one block's values c (N, size) under its parameters (N, size)."""
    if block.kind == "onehot":
        return (c * parameters.log_softmax(1)).sum(1)
    return -0.5 * ((c - parameters).square() + math.log(2 * math.pi)).sum(1)  # N(mu, 1)


def entropy(block: Block) -> float:
    """H(c) in nats, of one category or one continuous code."""
    return math.log(block.size) if block.kind == "onehot" else math.log(block.high - block.low)


def lower_bound(model: InfoModel, q: Tensor, codes: Tensor) -> Tensor:
    """L_I in nats, a scalar: summed over the codes, averaged over the batch. q: Q's output on G(codes)."""
    return sum(log_q(b, part, b.read(codes)).mean() + entropy(b) for b, part in model.parts(q))


def recovered(model: InfoModel, q: Tensor, codes: Tensor) -> Tensor:
    """How well Q reads each code back, (blocks,): accuracy of the category, 1 - mse / variance of the others."""
    found = []
    for block, part in model.parts(q):
        c = block.read(codes)
        if block.kind == "onehot":
            found.append((part.argmax(1) == c.argmax(1)).float().mean())
        else:
            found.append(1 - (part - c).square().mean() * 12 / (block.high - block.low) ** 2)
    return torch.stack(found).detach()


class GAN(Learner):
    """What both methods share: `self.gan` is the model, and the live picture shows samples.

    A picture read by Q and drawn again with the noise at its centre is no reconstruction: nobody has read the noise.
    """

    gan: InfoModel

    def __init__(self, settings: Settings, spec, base=None):
        if settings.batch < 2:
            raise UserError(f"batch norm needs two pictures: batch must be 2 or more, not {settings.batch}")
        super().__init__(settings, spec, base)

    @property
    def model(self) -> InfoModel:
        return self.gan

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = batch["x"]
        rng = torch.Generator(x.device).manual_seed(0)  # one set of codes for the whole training
        return {"pictures": x, "samples": self.gan.decode(self.gan.prior(len(x), rng))}


class InfoGAN(GAN):
    """One batch a step: an update of D with Q, then one of G, each with codes of its own."""

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.gan = InfoModel(spec.image_shape, settings)
        self.D = head_D(spec.image_shape, settings.nets, settings.wide)

    def optimizers(self):
        D = [*self.gan.trunk.parameters(), *self.D.parameters(), *self.gan.Q.parameters()]
        betas = (0.5, 0.999)
        return {
            "D": adam(D, self.settings.lr_D, betas),
            "G": adam(self.gan.G.parameters(), self.settings.lr_G, betas),
        }

    def step(self, opt, batch):
        loss_D, accuracy = self.update_D(opt["D"], batch["x"])
        loss_G, L_I, read_back = self.update_G(opt["G"], len(batch["x"]))
        return {"loss_D": loss_D, "loss_G": loss_G, "L_I": L_I, "accuracy_D": accuracy, "recovered": read_back}

    def update_D(self, opt, x):
        c = self.gan.prior(len(x), self.rng)  # (m, D), noise and codes
        with torch.no_grad():
            fake = self.gan.decode(c)
        # Two passes: in one, batch norm would tell each picture how the other kind looks.
        real = self.D(self.gan.trunk(x))  # (m, 1) logits
        features = self.gan.trunk(fake)
        false = self.D(features)
        loss = (F.softplus(-real) + F.softplus(false)).mean()  # -log D(x) - log(1 - D(G(z, c)))
        opt.zero_grad()
        (loss - self.settings.lam * lower_bound(self.gan, self.gan.Q(features), c)).backward()
        opt.step()
        return loss.detach(), torch.cat([real > 0, false < 0]).float().mean()

    def update_G(self, opt, m):
        c = self.gan.prior(m, self.rng)
        judges = (self.gan.trunk, self.D, self.gan.Q)
        for net in judges:  # G's loss runs through them but must not teach them
            net.requires_grad_(False)
        features = self.gan.trunk(self.gan.decode(c))
        loss = F.softplus(-self.D(features)).mean()  # -log D(G(z, c))
        q = self.gan.Q(features)
        L_I = lower_bound(self.gan, q, c)
        opt.zero_grad()
        (loss - self.settings.lam * L_I).backward()
        opt.step()
        for net in judges:
            net.requires_grad_(True)
        return loss.detach(), L_I.detach(), recovered(self.gan, q, c)

    PRESETS = {
        ("paper", "mnist"): Settings(),
        ("paper", "dsprites"): Settings(**SPRITES, lam=0.05, size=64, steps=322_560),
        ("course", "dsprites"): Settings(**SPRITES, size=64, steps=25_000),
        ("quick", "dsprites"): QUICK_SPRITES,
        ("smoke", "dsprites"): replace(QUICK_SPRITES, **SMOKE),
        ("quick", "digits"): QUICK,
        ("smoke", "digits"): replace(QUICK, **SMOKE),
        ("quick", "mnist"): replace(QUICK, lr_D=4e-4),
        ("smoke", "mnist"): replace(QUICK, **SMOKE),
        ("quick", "characters"): replace(QUICK, categories=6, continuous=6),
        ("smoke", "characters"): replace(QUICK, categories=6, continuous=6, **SMOKE),
        ("quick", "folder"): QUICK_SPRITES,
        ("smoke", "folder"): replace(QUICK_SPRITES, **SMOKE),
    }
