"""MixNMatch: Li, Singh, Ojha, Lee 2020, "MixNMatch: Multifactor Disentanglement and Encoding for Conditional Image
Generation", CVPR 2020, arXiv 1911.11758. FineGAN (`methods/finegan.py`) that can be given pictures: four encoders, one
per code, trained with it from the start.

    y^ = E(x) = (E_z, E_b, E_p, E_c)(x)    z = 4 tanh, the others softmax; x a picture, y^ its codes
    x^ = G(y)                              y tied codes, as FineGAN draws them

A picture and its codes must look like a drawn code and its picture. For each code k in {z, b, p, c} by itself there is
a critic D_k of pairs: one critic of all four would see that drawn codes are tied and those of pictures are not.

    critics   sum_k  -D_k(x, y^_k) + D_k(x^, y_k)  +  10 sum_k [(|grad_x~ D_k| - 1)^2 + (|grad_y~ D_k| - 1)^2]
    pair      sum_k   D_k(x, y^_k) - D_k(x^, y_k)                                         G and E lower this
    pred      5 |E_z(x') - z|_1 + 5 CE_b + 10 CE_p + 10 CE_c        x' = G(y'), y' free codes, no gradient to G

Tied codes alone would let E_b and E_c be one function. Free codes y', in which b, p and c are independent, are never
shown to a discriminator, and what E learns from them never reaches G ("relaxed code prediction").

One step updates D_b, D_c, the critics, then G, E, D_p and the code head of D_c together on FineGAN's losses of G, pair
and pred. Means over the batch; |.|_1 is a mean over z, gradients' norms are of one pair. x~ and y~_k lie between real
and drawn pairs at places drawn from U(0, 1) for each row and each tensor.

The paper writes the pair loss with logarithms, the released code (WisconsinAIVision/MixNMatch) has the critics above:
`pair="log"`, with G and E lowering -log D as usual, or "wgan-gp". Weights, layers and schedule of `paper` are those of
that code. Every epoch it loads the average over the live G; here the average only samples.

A background picture brings its own z: E_z of it is the block z_b, which the background's trunk takes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import one_of
from disentkit.methods import finegan
from disentkit.methods.finegan import Codes, FineGAN, StagedGenerator, fake_loss, free, real_loss, right, step, tied
from disentkit.nets import mixnmatch as nets

PAIR, CRITICS, PRED = ("wgan-gp", "log"), ("four", "one", "none"), ("free", "tied")
BOUND = 4.0  # of z as an encoder gives it
WEIGHTS = {"z": 5.0, "b": 5.0, "p": 10.0, "c": 10.0}  # of L_pred


@dataclass(frozen=True)
class Settings(finegan.Settings):
    """Those of FineGAN, and of what is added to it.

    pair      "wgan-gp", as the released code, or "log", as the paper
    lam_gp    the weight of the gradient penalty
    lam_pred  the weight of the relaxed code prediction; 0 leaves it out
    lr_E      the step size of the encoders
    lr_pair   of the critics

    For ablations:
    critics   "four", each of one code; "one" of all codes together; "none"
    pred      "free" codes, or "tied" ones
    lam_rec   the weight of a plain reconstruction |G(E(x)) - x|_1, a mean over pixels; 0 as in the paper
    """

    pair: str = "wgan-gp"
    lam_gp: float = 10.0
    lam_pred: float = 1.0
    lr_E: float = 2e-4
    lr_pair: float = 2e-4
    critics: str = "four"
    pred: str = "free"
    lam_rec: float = 0.0


# QUICK's critics stay behind: they rate drawn pairs above true ones (gap_critics below 0). In minutes faster ones
# did no better (few=True, seed 0, lr_pair=2.5e-3); in longer trainings masks dissolved without them, hence COURSE.
QUICK = Settings(**asdict(replace(finegan.QUICK, steps=650)), lr_E=1e-3, lr_pair=5e-4)
COURSE = Settings(**asdict(replace(finegan.COURSE, steps=5_000)), lr_E=4e-4, lr_pair=1e-3)
PAPER = Settings(z=100, parents=20, children=200, nets="mixnmatch", batch=12, steps=589_000, size=128)


class MixNMatchModel(StagedGenerator):
    """The model: pictures <-> the blocks b and z_b, p, c, z: the moving average of G, and the four encoders."""

    inferred = True

    def __init__(self, image_shape: tuple[int, int, int], s: Settings):
        super().__init__(image_shape, s)
        colours, size = image_shape[:2]
        sizes = {"z": s.z, "b": s.children, "p": s.parents, "c": s.children}
        self.E = nn.ModuleDict(
            {k: nets.Encoder(size, n, s.nets, s.wide, BOUND if k == "z" else None, colours) for k, n in sizes.items()}
        )

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, H) in [0, 1] -> codes (N, D): b, p and c soft, z_b = z."""
        return self.join(soft(self.read(2 * x - 1)))

    def read(self, x: Tensor) -> Codes:
        """E(x) of pictures in [-1, 1]: z, and logits of the others."""
        z, b, p, c = (self.E[k](x) for k in ("z", "b", "p", "c"))
        return Codes(z, b, z, p, c)


def soft(y: Codes) -> Codes:
    """Codes of logits: never the largest only, always all shares."""
    return Codes(y.z_b, y.b.softmax(1), y.z, y.p.softmax(1), y.c.softmax(1))


def prediction_loss(found: Codes, y: Codes) -> dict[str, Tensor]:
    """The weighted terms of L_pred: `found` as an encoder gives it, logits, and the codes y that were drawn."""
    losses = {"z": F.l1_loss(found.z, y.z)} | {k: F.cross_entropy(getattr(found, k), getattr(y, k)) for k in "bpc"}
    return {f"L_pred_{k}": WEIGHTS[k] * loss for k, loss in losses.items()}


def gradient_penalty(values: list[Tensor], inputs: list[Tensor]) -> Tensor:
    """Sum over tensors of the mean of (|gradient| - 1)^2; values (N,) each, of inputs (N, ...) that each belong to one.

    One pass backward for all of them, which is why the inputs must be leaves of their own.
    """
    grads = torch.autograd.grad(torch.stack([v.sum() for v in values]).sum(), inputs, create_graph=True)
    return sum((g.flatten(1).norm(dim=1) - 1).square().mean() for g in grads)


class MixNMatch(FineGAN):
    """An update of D_b, one of D_c, one of the critics, then one of G, E, D_p and the code head of D_c."""

    keeps_players = False
    sampler_class = MixNMatchModel

    def __init__(self, settings: Settings, spec, base=None):
        s = settings
        one_of("pair", s.pair, PAIR)
        one_of("critics", s.critics, CRITICS)
        one_of("pred", s.pred, PRED)
        super().__init__(settings, spec, base)
        colours, size = spec.image_shape[:2]
        sizes = {"z": s.z, "b": s.children, "p": s.parents, "c": s.children}
        sizes = {"four": sizes, "one": {"all": sum(sizes.values())}, "none": {}}[s.critics]
        self.critics = nn.ModuleDict({k: nets.PairCritic(size, n, s.nets, s.wide, colours) for k, n in sizes.items()})
        if s.pair == "wgan-gp":  # differentiated twice
            self.full_precision = tuple(f"critics.{k}" for k in sizes)

    def players(self):
        s = self.settings
        more = {"E": ([self.sampler.E], s.lr_E)} | ({"critics": ([self.critics], s.lr_pair)} if self.critics else {})
        return super().players() | more

    def step(self, opt, batch):
        self.rates_fall(opt)
        s = self.settings
        x, full = 2 * batch["x"] - 1, 2 * batch["full"] - 1  # (B, 3, H, H) and (B, 3, W, W) in [-1, 1]
        y = tied(len(x), s, self.rng)
        made, y_hat = self.G(*y), soft(self.sampler.read(x))
        found = self.update_D_b(opt["D_b"], full, batch["box"], made.B.detach())
        found |= self.update_D_c(opt["D_c"], x, made.C.detach())
        if self.critics:
            real, drawn = self.codes_of(y_hat), self.codes_of(y)
            real = {k: code.detach() for k, code in real.items()}
            found |= self.update_critics(opt["critics"], x, real, made.C.detach(), drawn)
        losses, gauges = self.losses_G(made, y)
        losses |= self.losses_pair(x, y_hat, made.C, y)
        if s.lam_pred:
            more, accuracies = self.losses_pred(len(x))
            losses, gauges = losses | more, gauges | accuracies
        if s.lam_rec:
            losses["L_rec"] = s.lam_rec * F.l1_loss(self.G(*y_hat).C, x)
        for name in ("G", "E"):
            opt[name].zero_grad()
        sum(losses.values()).backward()
        for name in ("G", "E"):
            opt[name].step()
        self.follow()
        return found | {name: loss.detach() for name, loss in losses.items()} | gauges

    # The critics: each sees pictures and one code.
    def codes_of(self, y: Codes) -> dict[str, Tensor]:
        """The code (N, .) that each critic sees."""
        if "all" in self.critics:
            return {"all": torch.cat([y.z, y.b, y.p, y.c], dim=1)}
        return {k: getattr(y, k) for k in self.critics}

    def values(self, x: Tensor, codes: dict[str, Tensor]) -> list[Tensor]:
        """D_k(x, y_k), (N,) for each critic."""
        return [self.critics[k](x, code, self.rng) for k, code in codes.items()]

    def update_critics(self, opt, x, real, C, drawn):
        n, both = len(x), {k: torch.cat([real[k], drawn[k]]) for k in real}
        pairs = [v.split(n) for v in self.values(torch.cat([x, C]), both)]  # no layer mixes rows
        if self.settings.pair == "log":
            loss = sum(real_loss(true) + fake_loss(made) for true, made in pairs)
        else:
            loss = sum(made.mean() - true.mean() for true, made in pairs)
        gap = sum(true.mean() - made.mean() for true, made in pairs).detach()
        if self.settings.pair == "wgan-gp":
            loss = loss + self.settings.lam_gp * self.penalty(x, real, C, drawn)
        step(opt, loss)
        return {"loss_critics": loss.detach(), "gap_critics": gap}

    def penalty(self, x, real, C, drawn) -> Tensor:
        """The gradient penalty of all critics, on pictures and on codes."""
        between = self.between(x, C)
        x_tilde = [between.clone().requires_grad_() for _ in real]  # a leaf per critic
        y_tilde = [self.between(real[k], drawn[k]).requires_grad_() for k in real]
        values = [self.critics[k](a, b, self.rng) for k, a, b in zip(real, x_tilde, y_tilde)]
        return gradient_penalty(values, x_tilde + y_tilde)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """alpha a + (1 - alpha) b, alpha ~ U(0, 1) for each row."""
        alpha = torch.rand(len(a), *[1] * (a.ndim - 1), generator=self.rng, device=a.device)
        return torch.lerp(b, a, alpha)

    # What G and E learn from.
    def losses_pair(self, x, y_hat: Codes, C, y: Codes) -> dict[str, Tensor]:
        """L_pair: drawn pairs should look real, pairs of pictures drawn."""
        if not self.critics:
            return {}
        self.critics.requires_grad_(False)
        n, real, drawn = len(x), self.codes_of(y_hat), self.codes_of(y)
        both = {k: torch.cat([real[k], drawn[k]]) for k in real}
        pairs = [v.split(n) for v in self.values(torch.cat([x, C]), both)]
        self.critics.requires_grad_(True)
        if self.settings.pair == "log":
            return {"L_pair": sum(fake_loss(true) + real_loss(made) for true, made in pairs)}
        return {"L_pair": sum(true.mean() - made.mean() for true, made in pairs)}

    def losses_pred(self, n: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """L_pred on n pictures of free codes, and how often E finds the codes again."""
        s = self.settings
        with torch.no_grad():
            y = (free if s.pred == "free" else tied)(n, s, self.rng)
            x = self.G(*y).C
        found = self.sampler.read(x)
        losses = {name: s.lam_pred * loss for name, loss in prediction_loss(found, y).items()}
        return losses, {f"accuracy_E_{k}": right(getattr(found, k), getattr(y, k)) for k in "bpc"}

    def preview(self, batch):
        """True pictures, their reconstructions and masks, and mixes: the texture of the picture one further left."""
        x, model = batch["x"], self.sampler
        codes = model.encode(x)
        made = model.stages(codes)
        masks = {name: made[name].expand_as(x) for name in ("parent_mask", "child_mask")}
        mixed = model.decode(model.codes.swap(codes, codes.roll(1, 0), "c"))
        again = {"background": made["background"], **masks, "reconstructions": made["child"]}
        return {"pictures": x, **again, "texture of the left neighbour": mixed}

    PRESETS = {
        **{("paper", data): PAPER for data in finegan.SETS},
        **{("course", data): COURSE for data in finegan.SETS},
        **{("quick", data): QUICK for data in finegan.SETS},
        **{("smoke", data): replace(QUICK, **finegan.SMOKE) for data in finegan.SETS},
    }
