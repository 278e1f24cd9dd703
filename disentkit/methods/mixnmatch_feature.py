"""Feature mode of MixNMatch: Li, Singh, Ojha, Lee 2020, "MixNMatch: Multifactor Disentanglement and Encoding for
Conditional Image Generation", CVPR 2020, arXiv 1911.11758. Shape and pose from one picture, pixel upon pixel.

A shape p and a pose z say roughly what an object looks like, not where its pixels are. So a second stage, on a run of
MixNMatch, learns a network S from pictures to the feature map F_p that the parent's stage makes of p and z. S(x) then
stands in its place; the parent's trunk is not asked any more, and no pose picture is needed:

    B from b and z_b     parent and child from S(x)     texture from c

The base's generator G (its moving average) and its encoders are frozen. A step draws free codes, z ~ N(0, I), b, p and
c one-hot, in one batch out of five (`soft`) a softmax of N(0, I) for p, so that S meets soft shapes too; G makes of
them F_p and x'. With x a true picture and D_f a discriminator of feature maps, patch by patch,

    L_Df = BCE(D_f(F_p), 1) + BCE(D_f(S(x)), 0)
    L_S  = lam_adv BCE(D_f(S(x)), 1) + lam_1 |S(x') - F_p|_1

means over the batch, patches and the numbers of the map: the second term says what S must find where that is known, the
first keeps it on maps that G can read where it is not. An update of D_f comes first, then one of S.

Losses, networks and the rates of `paper` are those of the released code (WisconsinAIVision/MixNMatch), whose weights
are both 1; its 400 epochs of birds are about 393,000 steps. The other presets are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError
from disentkit.methods.finegan import SETS, fake_loss, free, real_loss, shown, step
from disentkit.methods.hard_negatives import method_of
from disentkit.methods.mixnmatch import MixNMatchModel
from disentkit.models import Learner, adam
from disentkit.nets import mixnmatch as nets
from disentkit.nets.finegan import Stages

KEPT = ("b", "z_b", "c")  # blocks of the base that stay as they are
ROWS = 256  # feature maps are large: so many are drawn at a time


@dataclass(frozen=True)
class Settings:
    """`lam_adv` and `lam_1` weigh the two terms of L_S. Codes and the generator's widths are those of the base.

    soft  the chance that a batch's shapes p are soft
    wide  multiplies the widths of S
    lr    of S; lr_D of D_f
    size  the pictures' side in pixels, that of the base
    """

    lam_adv: float = 1.0
    lam_1: float = 1.0
    soft: float = 0.2
    wide: float = 1.0
    lr: float = 2e-4
    lr_D: float = 2e-5
    batch: int = 12
    steps: int = 393_000
    size: int = 128


COURSE = Settings(lr=1e-3, lr_D=1e-4, batch=16, steps=4_000, size=32)
QUICK = replace(COURSE, steps=600)
SMOKE = {"wide": 0.5, "batch": 8, "steps": 8}


class FeatureMode(nn.Module):
    """The model: the base's generator and encoders, with S in place of the parent's trunk.

    Its blocks are b, z_b, c and the map F, all inferred; its weights are those of S and nothing else. The base stays
    outside the module tree.
    """

    def __init__(self, base: MixNMatchModel, s: Settings):
        super().__init__()
        self._outside = (base,)
        self.image_shape = tuple(base.image_shape)
        kept = [replace(base.codes[name], at=None) for name in KEPT]
        self.codes = CodeSpace([*kept, Block("F", "map", base.G.feature_shape, picker="shape and pose")])
        channels, side, _ = base.G.feature_shape
        self.S = nets.FeatureNet(side, channels, base.settings.nets, s.wide, base.image_shape[0])

    @property
    def base(self) -> MixNMatchModel:
        """The model of the base run: G and its encoders, in code mode."""
        return self._outside[0]

    def modules(self):
        """Its own modules and the base's: `models.frozen` freezes both."""
        yield from super().modules()
        yield from self.base.modules()

    def _apply(self, function, recurse=True):
        # The base is outside the module tree, and `to` must bring it along.
        self.base._apply(function, recurse)
        return super()._apply(function, recurse)

    def encode(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) in [0, 1] -> codes (N, D): b, z_b and c as the base reads them, and S(x)."""
        x, E = 2 * x - 1, self.base.E
        return torch.cat([E["b"](x).softmax(1), E["z"](x), E["c"](x).softmax(1), self.S(x).flatten(1)], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, D) -> the child pictures (N, 3, H, H) in [0, 1]."""
        return (self._paint(codes).C + 1) / 2

    def stages(self, codes: Tensor) -> dict[str, Tensor]:
        """All stages of codes (N, D) by name, as `StagedGenerator.stages` has them."""
        return shown(self._paint(codes))

    def _paint(self, codes: Tensor) -> Stages:
        b, z_b, c, feature = (block.read(codes) for block in self.codes)
        return self.base.G.paint(feature, self.base.G.background(z_b, b), c)

    @torch.no_grad()
    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n codes (n, D): those of the base's prior, with the F_p that its trunk makes of p and z."""
        drawn = self.base.prior(n, rng).to(next(self.S.parameters()).device)  # panels draw on the CPU
        y = self.base.split(drawn)
        feature = torch.cat([self.base.G.feature(*part) for part in zip(y.z.split(ROWS), y.p.split(ROWS))])
        return torch.cat([y.b, y.z_b, y.c, feature.flatten(1)], dim=1).to(rng.device)


class MixNMatchFeature(Learner):
    """An update of D_f, then one of S. base: a run of mixnmatch, whose networks stay as they are."""

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        s = settings
        if base is None:
            raise UserError("feature mode is a second stage of MixNMatch: give base=RUN, a run of mixnmatch")
        if not isinstance(base.model, MixNMatchModel):
            raise UserError(f"feature mode builds on a run of mixnmatch, not on one of {method_of(base)}")
        if tuple(spec.image_shape) != base.model.image_shape:
            raise UserError(f"the data are {tuple(spec.image_shape)}, the base run makes {base.model.image_shape}")
        for name in ("lam_adv", "lam_1"):
            if getattr(s, name) < 0:
                raise UserError(f"{name} must be 0 or more, not {getattr(s, name):g}")
        if not 0 <= s.soft <= 1:
            raise UserError(f"soft is a chance and lies in 0 ... 1, not {s.soft:g}")
        if s.batch < 2:
            raise UserError(f"batch norm needs two pictures: batch must be 2 or more, not {s.batch}")
        self.mixer = FeatureMode(base.model, s)
        channels, side, _ = base.model.G.feature_shape
        self.D_f = nets.FeatureDiscriminator(side, channels, base.model.settings.nets)

    @property
    def model(self) -> FeatureMode:
        return self.mixer

    def optimizers(self):
        s, betas = self.settings, (0.5, 0.999)
        return {"D_f": adam(self.D_f.parameters(), s.lr_D, betas), "S": adam(self.mixer.S.parameters(), s.lr, betas)}

    def step(self, opt, batch):
        x = 2 * batch["x"] - 1  # (B, 3, H, H) in [-1, 1]
        F_p, x_drawn = self.draw(len(x))
        found = self.mixer.S(x)  # (B, K, H, H), for both updates
        of_D = self.update_D(opt["D_f"], F_p, found.detach())
        return of_D | self.update_S(opt["S"], found, x_drawn, F_p)

    @torch.no_grad()
    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """F_p (n, K, H, H) and x' (n, 3, H, H) in [-1, 1] of free codes."""
        y = free(n, self.mixer.base.settings, self.rng)
        soft = torch.randn(y.p.shape, generator=self.rng, device=self.rng.device).softmax(1)
        due = torch.rand((), generator=self.rng, device=self.rng.device) < self.settings.soft
        made = self.mixer.base.G(*y._replace(p=torch.where(due, soft, y.p)))
        return made.F, made.C

    def update_D(self, opt, F_p, found):
        real, fake = self.D_f(F_p), self.D_f(found)  # (B, 1, n, n) each
        loss = real_loss(real) + fake_loss(fake)
        step(opt, loss)
        right = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        return {"L_Df": loss.detach(), "accuracy_Df": right}

    def update_S(self, opt, found, x_drawn, F_p):
        s = self.settings
        self.D_f.requires_grad_(False)  # this loss runs through D_f but must not teach it
        L_adv, L_1 = real_loss(self.D_f(found)), (self.mixer.S(x_drawn) - F_p).abs().mean()
        step(opt, s.lam_adv * L_adv + s.lam_1 * L_1)
        self.D_f.requires_grad_(True)
        return {"L_adv": L_adv.detach(), "L_1": L_1.detach()}

    def preview(self, batch):
        """Pictures, and what both modes make of their codes; last the masks of feature mode."""
        x, base = batch["x"], self.mixer.base
        made = self.mixer.stages(self.mixer.encode(x))
        again = {"code mode": base.decode(base.encode(x)), "feature mode": made["child"]}
        return {"pictures": x, **again, "child mask": made["child_mask"].expand_as(x)}

    PRESETS = {
        **{("paper", data): Settings() for data in SETS},
        **{("course", data): COURSE for data in SETS},
        **{("quick", data): QUICK for data in SETS},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SETS},
    }
