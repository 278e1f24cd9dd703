"""ELEGANT: Xiao, Hong, Ma 2018, "ELEGANT: Exchanging Latent Encodings with GAN for Transferring Multiple Face
Attributes", ECCV 2018, arXiv 1803.10562. A baseline of zero-shot synthesis: attributes are taken from other pictures,
by swapping parts of codes, and what the decoder returns is a change of one picture.

Channels of the code z = Enc(x) are shared out among the attributes, each its segment. One step, for pictures A and B
that differ in attribute i:

    z_C = z_A with segment i of z_B          z_D = z_B with segment i of z_A
    C  = clip(A + R(z_C, z_A))               D  = clip(B + R(z_D, z_B))          R: the decoder, with skips from A or B
    A' = clip(A + R(z_A, z_A))               B' = clip(B + R(z_B, z_B))          clip to [-1, 1]

    L_D = 1/4 (BCE_D1 + 1/2 BCE_D2)          real: A, B with their labels; fake: C, D with the labels swapped like z
    L_G = lam_rec (MSE(A', A) + MSE(B', B)) + adv_1 + 1/2 adv_2          adv: BCE of C, D against "real", summed

D1 sees whole pictures, D2 those of half the side, both beside maps of the labels. Losses are means over the batch.

The paper's attributes are there or not there, A has i and B lacks it. Ours have several values: A and B are two
independent draws, labels are the one-hots of all attributes. The released code (Prinsphield/ELEGANT) makes an update
per attribute and step, each with a fresh pair of batches; here i is drawn anew for each pair, on the device, among
the attributes in which the two differ, so a step is one update of all (on letters a fifth of the updates there). Pairs
that agree in everything are swapped all the same, and weigh nothing in the losses of C and D.

From the released code: losses, weights, nets, Adam's settings, weight decay, rates times 0.97 every 3,000 steps, batch
16, 200,000 steps; its pictures have 256 pixels, those of the presets 64. The other presets are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError
from disentkit.methods.stargan import attributes_of, one_hots, picture_block
from disentkit.models import Learner, adam
from disentkit.nets import elegant as nets


@dataclass(frozen=True)
class Settings:
    """Weight of the reconstructions (that of `adv` is 1), and Adam's weight decay.

    nets  "paper" or "small", the tables of `nets/elegant.py`; `wide` multiplies their widths
    lr_G  of Enc and Dec, lr_D of D1 and D2; both times 0.97 after every `fall` steps
    size  the pictures' side in pixels
    """

    lam_rec: float = 5.0
    decay: float = 1e-5
    nets: str = "paper"
    wide: float = 1.0
    lr_G: float = 2e-4
    lr_D: float = 2e-4
    fall: int = field(default=3_000, metadata={"least": 1})
    batch: int = 16
    steps: int = 200_000
    size: int = 64


QUICK = Settings(nets="small", lr_G=5e-4, lr_D=5e-4, batch=16, steps=900, size=32)
COURSE = replace(QUICK, lr_G=2e-4, lr_D=2e-4, steps=20_000, size=64)
SMOKE = {"wide": 0.25, "steps": 10}
SETS = ("fonts", "creatures", "dsprites", "shapes3d", "characters", "folder")


class Exchanger(nn.Module):
    """The model: Enc and Dec.

    Codes (N, D) are the block "picture" (C, H, H) in [0, 1], to which the change is added and whose own code and maps
    the decoder gets, and a map (channels, h, h) per attribute, in the data's order.
    """

    def __init__(self, image_shape: tuple[int, int, int], space, s: Settings):
        super().__init__()
        self.image_shape = tuple(image_shape)
        channels = nets.widths(image_shape, s.nets, s.wide)
        self.side = image_shape[1] // 2 ** len(channels)
        self.segments = shares(channels[-1], space.names)  # channels of each attribute
        maps = [
            Block(name, "map", (n, self.side, self.side), -1.0, 1.0)
            for name, n in zip(space.names, self.segments, strict=True)
        ]
        self.codes = CodeSpace([picture_block(image_shape), *maps])
        self.enc = nets.Encoder(image_shape, s.nets, s.wide)
        self.dec = nets.Decoder(image_shape, s.nets, s.wide)

    def encode(self, x: Tensor) -> Tensor:
        """Images (N, C, H, H) in [0, 1] -> codes: the images and the segments of their code."""
        z, _ = self.enc(2 * x - 1)
        return torch.cat([x.flatten(1), z.flatten(1)], dim=1)  # segments are runs of channels, so of the flat code

    def decode(self, codes: Tensor) -> Tensor:
        """Codes -> images (N, C, H, H) in [0, 1]: the picture, cut off at [0, 1], and its change."""
        x = 2 * self.codes["picture"].read(codes).clamp(0, 1) - 1
        z = codes[:, self.codes["picture"].size :].reshape(len(codes), -1, self.side, self.side)
        own, maps = self.enc(x)
        return (changed(x, self.dec(z, own, maps)) + 1) / 2


def shares(channels: int, names: tuple[str, ...]) -> list[int]:
    """How many channels each attribute gets, as even as rounding allows. Raises UserError where one would get none."""
    m = len(names)
    if channels < m:
        raise UserError(f"a code of {channels} channels cannot be shared out among {m} attributes: make wide larger")
    ends = [round(channels * i / m) for i in range(m + 1)]
    return [b - a for a, b in zip(ends, ends[1:])]


def changed(x: Tensor, residual: Tensor) -> Tensor:
    """Pictures plus their change, cut off at [-1, 1]."""
    return (x + residual).clamp(-1, 1)


def draw_attributes(a: Tensor, b: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """One-hot rows (n, m), the attribute to swap of each pair, and weights (n,). a, b: grid classes (n, m).

    Drawn among the attributes in which the pair differs; the weight is 0 where there is none, else 1.
    """
    differ = a != b
    keys = torch.rand(a.shape, generator=rng, device=a.device).masked_fill(~differ, -1.0)
    picked = keys.argmax(1, keepdim=True) == torch.arange(a.shape[1], device=a.device)
    return picked.float(), differ.any(1).float()


def spread(picked: Tensor, sizes) -> Tensor:
    """Bits (n, m) of the attributes -> bits (n, sum of sizes): each attribute's as often as its size says."""
    return torch.cat([bit[:, None].expand(-1, size) for bit, size in zip(picked.T, sizes, strict=True)], dim=1)


def exchange(a: Tensor, b: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    """a and b, (n, L, ...), with those of the second axis swapped whose bit (n, L) is 1."""
    bits = bits.reshape(*bits.shape, *[1] * (a.ndim - 2)) > 0
    return torch.where(bits, b, a), torch.where(bits, a, b)


class ELEGANT(Learner):
    """Two batches a step: an update of D1 and D2, then one of Enc and Dec."""

    reads = ("x", "factors")
    draws = 2

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        s = settings
        for name in ("lam_rec", "decay"):
            if getattr(s, name) < 0:
                raise UserError(f"{name} must be 0 or more, not {getattr(s, name)}")
        self.space = attributes_of(spec, "ELEGANT")
        self.auto = Exchanger(spec.image_shape, self.space, s)
        labels = sum(self.space.sizes)
        self.D1 = nets.Discriminator(spec.image_shape, labels, s.nets, s.wide)
        self.D2 = nets.Discriminator(spec.image_shape, labels, s.nets, s.wide, halve=True)

    @property
    def model(self) -> Exchanger:
        return self.auto

    def optimizers(self):
        # Step sizes are tensors, so that they can fall without a word from the host.
        lr = {"D": self.settings.lr_D, "G": self.settings.lr_G}
        players = {"D": [*self.D1.parameters(), *self.D2.parameters()], "G": self.auto.parameters()}
        opt = {name: adam(p, torch.tensor(lr[name], device=self.t.device), (0.5, 0.999)) for name, p in players.items()}
        for each in opt.values():
            each.param_groups[0]["weight_decay"] = self.settings.decay
        return opt

    def rates_fall(self, opt):
        """Step sizes of both players times 0.97 after every `fall` steps."""
        times = 0.97 ** (self.t / self.settings.fall).floor()
        opt["D"].param_groups[0]["lr"].copy_(self.settings.lr_D * times)
        opt["G"].param_groups[0]["lr"].copy_(self.settings.lr_G * times)

    def step(self, opt, batch1, batch2):
        self.rates_fall(opt)
        x = torch.cat([2 * batch["x"] - 1 for batch in (batch1, batch2)])  # (2 B, C, H, H) in [-1, 1], first A, then B
        y = torch.cat([one_hots(self.space, batch["factors"]) for batch in (batch1, batch2)])  # (2 B, L)
        classes = [self.space.to_grid(batch["factors"]) for batch in (batch1, batch2)]
        picked, weights = draw_attributes(*classes, self.rng)  # (B, m), (B,)
        weights = torch.cat([weights, weights])
        swapped = torch.cat(exchange(*y.chunk(2), spread(picked, self.space.sizes)))  # labels of C and D
        again, fake = self.pictures(x, picked)
        loss_D = self.update_D(opt["D"], x, y, fake.detach(), swapped, weights)
        return loss_D | self.update_G(opt["G"], x, again, fake, swapped, weights)

    def pictures(self, x: Tensor, picked: Tensor) -> tuple[Tensor, Tensor]:
        """A' and B', then C and D, (2 B, C, H, H) each, of A and B."""
        own, maps = self.auto.enc(x)
        new = torch.cat(exchange(*own.chunk(2), spread(picked, self.auto.segments)))
        residuals = self.auto.dec(torch.cat([own, new]), torch.cat([own, own]), [torch.cat([m, m]) for m in maps])
        same, other = residuals.chunk(2)
        return changed(x, same), changed(x, other)

    def update_D(self, opt, x, y, fake, swapped, weights):
        terms, accuracy = {}, []
        for name, D in (("D1", self.D1), ("D2", self.D2)):
            real, false = D(x, y), D(fake, swapped)  # (2 B, 1) logits
            terms[name] = 2 * (F.softplus(-real).mean() + (weights * F.softplus(false)[:, 0]).mean())  # of A, B, C, D
            accuracy.append(torch.cat([real > 0, false < 0]).float().mean())
        loss = (terms["D1"] + 0.5 * terms["D2"]) / 4
        opt.zero_grad()
        loss.backward()
        opt.step()
        return {"loss_D": loss.detach(), "accuracy_D": torch.stack(accuracy)}

    def update_G(self, opt, x, again, fake, swapped, weights):
        judges = (self.D1, self.D2)
        for D in judges:  # G's loss runs through them but must not teach them
            D.requires_grad_(False)
        recon = 2 * F.mse_loss(again, x)  # of A and B
        adv1, adv2 = (2 * (weights * F.softplus(-D(fake, swapped))[:, 0]).mean() for D in judges)  # of C and D
        opt.zero_grad()
        (self.settings.lam_rec * recon + adv1 + 0.5 * adv2).backward()
        opt.step()
        for D in judges:
            D.requires_grad_(True)
        return {"recon": recon.detach(), "adv1": adv1.detach(), "adv2": adv2.detach()}

    def preview(self, batch):
        """Reconstructions, and pictures with all segments of the one further left."""
        x = batch["x"]
        codes = self.auto.encode(x)
        taken = self.auto.codes.swap(codes, codes.roll(1, 0), self.space.names)
        rows = {"pictures": x, "reconstructions": self.auto.decode(codes)}
        return rows | {"attributes of the left neighbour": self.auto.decode(taken)}

    PRESETS = {
        **{("paper", data): Settings() for data in SETS},
        **{("course", data): COURSE for data in SETS},
        **{("quick", data): QUICK for data in SETS},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SETS},
    }
