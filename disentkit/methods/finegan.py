"""FineGAN: Singh, Ojha, Lee 2019, "FineGAN: Unsupervised Hierarchical Disentanglement for Fine-Grained Object
Generation and Discovery", CVPR 2019, arXiv 1811.11155. Pictures in three stages, from a box each and no other label.

    B = G_b(z, b)                     a background
    P = P_m P_f + (1 - P_m) B         a parent: the shape p in the pose z, laid over it   F_p = G_p(z, p)
    C = C_m C_f + (1 - C_m) P         a child: the texture c, laid over that              from F_p and c

Codes are tied in training: c uniform over N_c children, p = floor(c N_p / N_c), b = c; z ~ N(0, I) is shared by both
trunks. No loss says what a mask is (in `paper`; the short presets add one). Masks form because codes are read from what
the masks let through:

    D_b     lam_b (BCE(r(x), 1) where w = 1, BCE(r(B), 0)) + BCE(a(x), w)     patches of the view x; w = 0 where a patch
                                                                              touches the box (r real, a background)
    D_c     BCE(D_c(x), 1) + BCE(D_c(C), 0)                                   x the object view
    G       lam_b BCE(r(B), 1) + BCE(a(B), 1)                   L_b = L_bg_adv and L_bg_aux
            + CE(D_p(P_m P_f), p)                               L_p: the parent's code, from the masked foreground
            + BCE(D_c(C), 1) + CE(D_c^code(C_m C_f), c)         L_c: looks real, and the child's code

with one backward pass for G, D_p and the code head of D_c, whose trunk learns from the adversarial loss alone. All are
means over the batch, and over patches. The model is a moving average of G (`ema`), whose batch norms take the running
statistics of G along.

The layers, weights and schedule of `paper` are those of the released code, kkanshul/finegan, in which the 10 stands
before the adversarial part only. Ours: logits where it has sigmoids (the same losses), the average's first steps, which
do not hang on to random weights, and four settings that only the short presets use: `lam_area` and `lam_sharp` for the
masks, `grey` parents, and rates that fall (`cosine`).

A run keeps D_b, D_p and D_c beside the model, since hard negatives (`methods/hard_negatives.py`) go on with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError, whole
from disentkit.models import Learner, adam
from disentkit.nets import finegan as nets

STAGES = ("background", "parent_foreground", "parent_mask", "parent", "child_foreground", "child_mask", "child")
BETAS = (0.5, 0.999)
AREA = (0.05, 0.3)  # where a mask's mean may lie before lam_area counts


@dataclass(frozen=True)
class Settings:
    """`z` numbers of the pose code, `parents` N_p shapes, `children` N_c textures and as many backgrounds.

    lam_b     the weight of the background's adversarial loss
    lam_aux   the weight of L_bg_aux; 0 leaves the auxiliary head out of G's loss
    boxes     False takes every patch for background (w = 1), as if there were no boxes
    lam_area  ours, off: how far a picture's mask has its mean outside 0.05 ... 0.3, times this, for both masks. The
              bounds are made for emblems: set it to 0 where objects fill more of their pictures
    lam_sharp ours, off: the mean of 4 m (1 - m) of both masks, times this; 1 where a mask is half open, 0 where sure.
              It grows from 0 over `sharpen` steps: told to be sure too soon, the child's mask closes
    grey      ours, off: P_f has no colour. Where few children share a parent, its colour can stand for theirs, and what
              is left to say of c fits into the background
    nets      "finegan", "mixnmatch" (128 pixels) or "small" (64 and 32), the tables of `nets/finegan.py`; `wide`
              multiplies their widths
    lr        of G and the readers of codes; lr_D of D_b and D_c
    cosine    True lets all rates fall to 0 along a cosine over `steps`; they stay as they are in the released code
    ema       the decay of the moving average
    size      the pictures' side in pixels
    """

    z: int = 16
    parents: int = 5
    children: int = 20
    lam_b: float = 10.0
    lam_aux: float = 1.0
    boxes: bool = True
    lam_area: float = 0.0
    lam_sharp: float = 0.0
    sharpen: int = 1_500
    grey: bool = False
    nets: str = "small"
    wide: float = 1.0
    lr: float = 2e-4
    lr_D: float = 2e-4
    cosine: bool = False
    ema: float = 0.999
    batch: int = 16
    steps: int = 16_000
    size: int = 64


# Minutes or an hour instead of days: 32 pixels (64 take five times as long), faster players whose rates fall, masks
# that are told to be sure. QUICK has codes for emblems with few=True (4 shapes, 8 textures), COURSE for all (5 and 20).
QUICK = Settings(
    z=8, parents=4, children=8, lam_area=20.0, lam_sharp=1.0, sharpen=300, grey=True, lr=1e-3, lr_D=5e-4, cosine=True,
    ema=0.99, steps=800, size=32,
)  # fmt: skip
COURSE = replace(QUICK, parents=5, children=20, lr=4e-4, lr_D=1e-4, ema=0.999, steps=5_000)
PAPER = Settings(z=100, parents=20, children=200, nets="finegan", steps=442_000, size=128)
SMOKE = {"wide": 0.5, "batch": 8, "steps": 8}
SETS = ("emblems", "boxed")


class Codes(NamedTuple):
    """What G takes: z_b (N, Z), b (N, N_c), z (N, Z), p (N, N_p), c (N, N_c); one-hot when drawn, soft when encoded."""

    z_b: Tensor
    b: Tensor
    z: Tensor
    p: Tensor
    c: Tensor


def one_hot(index: Tensor, n: int) -> Tensor:
    """Rows (N, n) of indices (N,); unlike torch's own it reads nothing back to the host."""
    return (index[:, None] == torch.arange(n, device=index.device)).float()


def tied(n: int, s: Settings, rng: torch.Generator) -> Codes:
    """Codes of training: c uniform, b = c, p = floor(c N_p / N_c), one z for background and object."""
    z = torch.randn(n, s.z, generator=rng, device=rng.device)
    index = torch.randint(s.children, (n,), generator=rng, device=rng.device)
    c = one_hot(index, s.children)
    return Codes(z, c, z, one_hot(index * s.parents // s.children, s.parents), c)


def free(n: int, s: Settings, rng: torch.Generator) -> Codes:
    """Codes with no tie: b, p and c uniform, each by itself; still one z for background and object."""
    z = torch.randn(n, s.z, generator=rng, device=rng.device)
    b, p, c = (
        one_hot(torch.randint(k, (n,), generator=rng, device=rng.device), k)
        for k in (s.children, s.parents, s.children)
    )
    return Codes(z, b, z, p, c)


def code_space(s: Settings, inferred: bool) -> CodeSpace:
    """Blocks b and z_b, which a background picture gives together, p (shape), c (texture) and z (pose)."""
    return CodeSpace(
        [
            Block("b", "onehot", (s.children,), inferred=inferred, picker="background"),
            Block("z_b", "gaussian", (s.z,), inferred=inferred, picker="background"),
            Block("p", "onehot", (s.parents,), inferred=inferred, picker="shape"),
            Block("c", "onehot", (s.children,), inferred=inferred, picker="texture"),
            Block("z", "gaussian", (s.z,), inferred=inferred, picker="pose"),
        ]
    )


class StagedGenerator(nn.Module):
    """The model: the moving average of G over the blocks b, z_b, p, c, z. It has no encoder.

    At rest b, p and c are free and the background has a z of its own: ties are for training.
    """

    inferred = False

    def __init__(self, image_shape: tuple[int, int, int], s: Settings):
        super().__init__()
        self.image_shape, self.settings = tuple(image_shape), s
        self.codes = code_space(s, self.inferred)
        self.G = nets.Generator(image_shape, s.z, s.parents, s.children, s.nets, s.wide, s.grey)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, D) -> the child pictures (N, 3, H, H) in [0, 1]."""
        return (self.G(*self.split(codes)).C + 1) / 2

    def stages(self, codes: Tensor) -> dict[str, Tensor]:
        """All stages of codes (N, D) by name, in the order of STAGES, in [0, 1]; masks are (N, 1, H, H)."""
        return shown(self.G(*self.split(codes)))

    def split(self, codes: Tensor) -> Codes:
        """The parts of codes (N, D) that G takes."""
        return Codes(*(self.codes[name].read(codes) for name in ("z_b", "b", "z", "p", "c")))

    def join(self, y: Codes) -> Tensor:
        """Codes (N, D) of their parts."""
        return torch.cat([y.b, y.z_b, y.p, y.c, y.z], dim=1)

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """Codes (n, D), every block drawn by itself."""
        return self.codes.prior(n, rng)

    def tied(self, n: int, rng: torch.Generator) -> Tensor:
        """Codes (n, D) as in training."""
        return self.join(tied(n, self.settings, rng))

    def free(self, n: int, rng: torch.Generator) -> Tensor:
        """Codes (n, D) with no tie between b, p and c, and one z."""
        return self.join(free(n, self.settings, rng))


def shown(y: nets.Stages) -> dict[str, Tensor]:
    """G's stages as pictures in [0, 1], by name."""
    pictures = ((part + 1) / 2 for part in (y.B, y.P_f, y.P, y.C_f, y.C))
    B, P_f, P, C_f, C = pictures
    return dict(zip(STAGES, (B, P_f, y.P_m, P, C_f, y.C_m, C)))


# ---- losses, of logits


def real_loss(logits: Tensor, w: Tensor | None = None) -> Tensor:
    """BCE(., 1): mean of -log sigmoid; over the places where w is 1, if given, and 0 where there are none."""
    if w is None:
        return F.softplus(-logits).mean()
    return (w * F.softplus(-logits)).sum() / w.sum().clamp(min=1)


def fake_loss(logits: Tensor) -> Tensor:
    """BCE(., 0): mean of -log(1 - sigmoid)."""
    return F.softplus(logits).mean()


def area_loss(mask: Tensor) -> Tensor:
    """How far each picture's mean of a mask (N, 1, H, H) lies outside 0.05 ... 0.3, a mean over pictures."""
    area = mask.mean((1, 2, 3))  # (N,)
    return ((AREA[0] - area).relu() + (area - AREA[1]).relu()).mean()


def sharp_loss(mask: Tensor) -> Tensor:
    """Mean of 4 m (1 - m) of a mask (N, 1, H, H): 1 where it is 0.5, 0 where it is 0 or 1."""
    return (4 * mask * (1 - mask)).mean()


class FineGAN(Learner):
    """An update of D_b, one of D_c, then one of G with D_p and the code head of D_c."""

    reads = ("x", "full", "box")
    keeps_players = True  # in the run, for hard negatives
    sampler_class: type = StagedGenerator

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        s, shape = settings, spec.image_shape
        check(s)
        self.sampler = self.sampler_class(shape, s)
        self.sampler.G.requires_grad_(False)
        self.G = nets.Generator(shape, s.z, s.parents, s.children, s.nets, s.wide, s.grey)
        self.D_b = nets.PatchDiscriminator(shape[1], s.nets, s.wide, shape[0])
        self.D_p = nets.ParentDiscriminator(shape[1], s.parents, s.nets, s.wide, shape[0])
        self.D_c = nets.ChildDiscriminator(shape[1], s.children, s.nets, s.wide, shape[0])
        self.sampler.G.load_state_dict(self.G.state_dict())
        if self.keeps_players:
            self.sampler.D_b, self.sampler.D_p, self.sampler.D_c = self.D_b, self.D_p, self.D_c

    @property
    def model(self) -> StagedGenerator:
        return self.sampler

    def optimizers(self):
        # Step sizes are tensors, so that they can fall without a word from the host.
        return {
            name: adam([p for net in players for p in net.parameters()], torch.tensor(lr, device=self.t.device), BETAS)
            for name, (players, lr) in self.players().items()
        }

    def players(self) -> dict[str, tuple[list[nn.Module], float]]:
        """Each optimiser's networks and first step size. G's has all that one backward pass trains together."""
        s = self.settings
        return {
            "D_b": ([self.D_b], s.lr_D),
            "D_c": ([self.D_c.trunk, self.D_c.real], s.lr_D),
            "G": ([self.G, self.D_p, self.D_c.head], s.lr),
        }

    def rates_fall(self, opt) -> None:
        """With `cosine`, all step sizes on their way from the first to 0."""
        if self.settings.cosine:
            share = 0.5 + 0.5 * torch.cos(torch.pi * (self.t / self.settings.steps).clamp(max=1))
            for name, (_, lr) in self.players().items():
                opt[name].param_groups[0]["lr"].copy_(lr * share)

    def step(self, opt, batch):
        self.rates_fall(opt)
        return self.learn(opt, batch, tied(len(batch["x"]), self.settings, self.rng))

    def learn(self, opt, batch, y: Codes) -> dict[str, Tensor]:
        """One update of every player with given codes."""
        x, full = 2 * batch["x"] - 1, 2 * batch["full"] - 1  # (B, 3, H, H) and (B, 3, W, W) in [-1, 1]
        made = self.G(*y)
        found = self.update_D_b(opt["D_b"], full, batch["box"], made.B.detach())
        found |= self.update_D_c(opt["D_c"], x, made.C.detach())
        losses, gauges = self.losses_G(made, y)
        step(opt["G"], sum(losses.values()))
        self.follow()
        return found | {name: loss.detach() for name, loss in losses.items()} | gauges

    def update_D_b(self, opt, full, box, B):
        s = self.settings
        w = self.D_b.patches.valid(box) if s.boxes else torch.ones_like(box[:, :1, None, None])  # (B, 1, n, n)
        r, a = self.D_b(full)  # (B, 1, n, n) each
        w = w.expand_as(r)
        r_fake, _ = self.D_b(B)
        loss = s.lam_b * (real_loss(r, w) + fake_loss(r_fake)) + F.binary_cross_entropy_with_logits(a, w)
        step(opt, loss)
        right = ((w * (r > 0)).sum() / w.sum().clamp(min=1) + (r_fake < 0).float().mean()) / 2
        return {"loss_D_b": loss.detach(), "accuracy_D_b": right, "accuracy_aux": ((a > 0) == (w > 0)).float().mean()}

    def update_D_c(self, opt, x, C):
        # Two passes: in one, batch norm would tell each picture how the other kind looks.
        real, fake = self.D_c(x), self.D_c(C)  # (B,) each
        loss = real_loss(real) + fake_loss(fake)
        step(opt, loss)
        return {"loss_D_c": loss.detach(), "accuracy_D_c": ((real > 0).float().mean() + (fake < 0).float().mean()) / 2}

    def losses_G(self, made: nets.Stages, y: Codes) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weighted terms of G's loss by name, and gauges; the discriminators do not learn from them."""
        s = self.settings
        for net in (self.D_b, self.D_c.trunk, self.D_c.real):
            net.requires_grad_(False)
        r, a = self.D_b(made.B)
        p = self.D_p(made.P_m * made.P_f)  # (B, N_p)
        c = self.D_c(made.C_m * made.C_f, code=True)  # (B, N_c)
        losses = {
            "L_bg_adv": s.lam_b * real_loss(r),
            "L_bg_aux": s.lam_aux * real_loss(a),
            "L_p": F.cross_entropy(p, y.p),
            "L_c_adv": real_loss(self.D_c(made.C)),
            "L_c_info": F.cross_entropy(c, y.c),
        }
        for net in (self.D_b, self.D_c.trunk, self.D_c.real):
            net.requires_grad_(True)
        if s.lam_area:
            losses["L_area"] = s.lam_area * (area_loss(made.P_m) + area_loss(made.C_m))
        if s.lam_sharp:
            grown = s.lam_sharp * (self.t / s.sharpen).clamp(max=1)
            losses["L_sharp"] = grown * (sharp_loss(made.P_m) + sharp_loss(made.C_m))
        gauges = {"accuracy_p": right(p, y.p), "accuracy_c": right(c, y.c)}
        for name, mask in (("parent", made.P_m.detach()), ("child", made.C_m.detach())):
            gauges |= {f"area_{name}": mask.mean(), f"sharp_{name}": ((mask - 0.5).abs() > 0.4).float().mean()}
        return losses, gauges

    @torch.no_grad()
    def follow(self) -> None:
        """average <- d average + (1 - d) G with d = min(ema, (1 + t) / (10 + t)); batch norms' statistics are G's."""
        share = 1 - ((1 + self.t) / (10 + self.t)).clamp(max=self.settings.ema)
        for slow, fast in zip(self.sampler.G.parameters(), self.G.parameters()):
            slow.lerp_(fast, share)
        for slow, fast in zip(self.sampler.G.buffers(), self.G.buffers()):
            slow.copy_(fast)

    def preview(self, batch):
        """True pictures; children of tied codes, which stay the same all the time, with their stages."""
        x = batch["x"]
        codes = self.sampler.tied(len(x), torch.Generator(x.device).manual_seed(0))
        made = self.sampler.stages(codes)
        masks = {name: made[name].expand_as(x) for name in ("parent_mask", "child_mask")}
        return {"pictures": x, "background": made["background"], **masks, "child": made["child"]}

    PRESETS = {
        **{("paper", data): PAPER for data in SETS},
        **{("course", data): COURSE for data in SETS},
        **{("quick", data): QUICK for data in SETS},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SETS},
    }


def step(opt, loss: Tensor) -> None:
    """One update of an optimiser's players."""
    opt.zero_grad()
    loss.backward()
    opt.step()


def right(logits: Tensor, y: Tensor) -> Tensor:
    """The share of logits (B, K) whose largest is the one of y (B, K)."""
    return (logits.detach().argmax(1) == y.argmax(1)).float().mean()


def check(s: Settings) -> None:
    """Raises UserError for settings that cannot be."""
    if s.children % s.parents:
        near = [s.children - s.children % s.parents, s.children + s.parents - s.children % s.parents]
        fits = " or ".join(str(n) for n in near if n)
        raise UserError(
            f"children={s.children} must be a multiple of parents={s.parents}, as every shape has equally many "
            f"textures: take children={fits}"
        )
    for name in (name for name in vars(s) if name.startswith("lam_")):
        if not 0 <= getattr(s, name) < math.inf:
            raise UserError(f"{name} must be a number of 0 or more, not {getattr(s, name)}")
    if s.boxes == "segmenter":
        raise UserError("boxes of a segmenter are an option of the data: data_options={'boxes': 'segmenter'}")
    for name in ("boxes", "cosine", "grey"):
        if not isinstance(getattr(s, name), bool):
            raise UserError(f"{name} is true or false, not {getattr(s, name)!r}")
    if s.wide > 16 or max(s.z, s.children) > 10_000:  # before memory runs out
        raise UserError(f"wide={s.wide:g}, z={s.z}, children={s.children}: take 16, 10,000 and 10,000 at most")
    if s.batch < 2:
        raise UserError(f"batch norm needs two pictures: batch must be 2 or more, not {s.batch}")
    if not 0 <= s.ema < 1:
        raise UserError(f"ema must be 0 or more and below 1, not {s.ema}")
    whole("sharpen", s.sharpen)
