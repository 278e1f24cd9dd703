"""GZS-Net: Ge, Abu-El-Haija, Xin, Itti 2021, "Zero-shot Synthesis with Group-Supervised Learning", ICLR 2021, arXiv
2009.06586. Labels, but only as "these two agree in that attribute"; a deterministic autoencoder z = E(x) with one block
of numbers per attribute, z = [g_1, ..., g_m].

One step, for a picture x, partners x^[j] that share attribute j with x and no other, and xbar that shares none:

    1  self    L_r  = sum over all drawn pictures of l(D(E(x)), x)       nothing gets lost
    2  swap    u, v = swap_j(E(x), E(x^[j])), for EVERY attribute j
               L_sr = sum_j l(D(u), x) + l(D(v), x^[j])                  the two agree in j, so nothing may change
    3  cycle   swap block j of x and xbar, decode, encode again, swap back, decode
               L_csr = l(x_2nd, x) + l(xbar_2nd, xbar)                   from a wrong picture there is no way back

    min over E, D of  L_r + lam_sr L_sr + lam_csr L_csr

A block that never takes a turn in step 2 is where the network hides everything. Step 3 draws one j for each x. Terms
are sums over pictures, as in the released code (gyhandy/Group-Supervised-Learning); l is a mean over pixels in [-1, 1]
(`loss` L1 or L2), or for black and white pictures the binary cross-entropy summed over pixels (BCE).

What the released code does besides or instead, each a setting:

    lam_cover   1 there for Fonts: D([g_1(x^[1]), ..., g_m(x^[m])]) must be x, which is rebuilt from its partners alone
    lam_csr     0 there: step 3 is commented out of the total
    lam_latent  0 there: a picture of swapped blocks, encoded again, must have these blocks (mean absolute difference).
                There it is any recombination, here the two pictures of step 3
    sampler     "edge" is its relaxed sampler: for each j a pair of its own that agrees in j, the rest left to chance;
                no picture has partners for all j then, so there is no L_cover

Without step 3 the stranger is drawn all the same and counts in L_r (there Fonts has 6 pictures a group, here 7). That
the loader holds nothing out and that training pictures are shown through a sigmoid after tanh is not repeated. `ramp`
is ours: step 3 sets in over so many steps, since at first it would learn from pictures that show nothing. How the paper
weighs its terms is not established.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError, one_of
from disentkit.models import Learner, adam
from disentkit.nets import gzsnet as nets

LOSSES = ("L1", "L2", "BCE")
SAMPLERS = ("group", "edge")
MOST_NUMBERS = 65_536  # of a code


@dataclass(frozen=True)
class Settings:
    """`d` numbers per attribute, `d_first` in the first one's block where it needs more (0: as many).

    lam_sr, lam_csr, lam_cover, lam_latent  weights of the terms above; 0 leaves a term out
    ramp     steps over which lam_csr and lam_latent rise from 0
    sampler  "group" or "edge", see above
    nets     "paper" or "small", the tables of `nets/gzsnet.py`, with `fc` and `wide`
    anneal   share of the steps, the last ones, in which lr falls to 0 along a cosine; 0 as in the released code
    batch    groups of m + 2 pictures (edge: of 2 m + 2)
    size     the pictures' side in pixels
    """

    d: int = 20
    d_first: int = field(default=0, metadata={"least": 0})
    lam_sr: float = 1.0
    lam_csr: float = 1.0
    lam_cover: float = 0.0
    lam_latent: float = 0.0
    ramp: int = field(default=0, metadata={"least": 0})
    loss: str = "L1"
    sampler: str = "group"
    nets: str = "paper"
    fc: int = 4096
    wide: float = 1.0
    lr: float = 1e-4
    anneal: float = 0.0
    batch: int = 4
    steps: int = 1_000_000
    size: int = 128


# Our own, for minutes on a CPU: a small network, larger steps that fall, small blocks, L2, which asks for a glyph's
# outlines sooner than L1, and the released code's cover term, weighing as much as ten swaps: without it every block
# learns a little of everything, and the four that were not swapped outvote the one that was.
QUICK = Settings(
    d=8, lam_cover=10.0, ramp=500, loss="L2", nets="small", fc=256, lr=2e-3, anneal=1.0, batch=4, steps=2_800, size=32,
)  # fmt: skip
COURSE = replace(QUICK, ramp=1_000, wide=0.75, lr=1.5e-3, steps=12_000, size=64)
SMOKE = {"wide": 0.5, "fc": 64, "batch": 4, "steps": 20}
SMALL = ("fonts", "creatures", "characters", "shapes3d", "folder", "fonts_folder", "ilab", "rafd")


class GroupAutoencoder(nn.Module):
    """The model: pictures <-> a free block per attribute, named as it is."""

    def __init__(self, image_shape: tuple[int, int, int], names: tuple[str, ...], s: Settings):
        super().__init__()
        self.image_shape, self.bits = image_shape, s.loss == "BCE"
        widths = [s.d_first or s.d, *[s.d] * (len(names) - 1)]
        self.codes = CodeSpace(Block(name, "free", (d,)) for name, d in zip(names, widths))
        self.encoder = nets.encoder(image_shape, self.codes.size, s.nets, s.fc, s.wide)
        self.decoder = nets.decoder(image_shape, self.codes.size, s.nets, s.fc, s.wide)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (N, C, H, H) in [0, 1] -> codes (N, D)."""
        return self.encoder(2 * x - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, D) -> pictures (N, C, H, H) in [0, 1]."""
        return self.pictures(self.decoder(codes))

    def pictures(self, raw: Tensor) -> Tensor:
        """What the decoder network gives -> pictures in [0, 1]."""
        return raw.sigmoid() if self.bits else (raw.tanh() + 1) / 2


def swap(z: Tensor, other: Tensor, codes: CodeSpace, name: str) -> tuple[Tensor, Tensor]:
    """swap_j: both codes (N, D) with block `name` exchanged."""
    return codes.swap(z, other, name), codes.swap(other, z, name)


def picture_loss(raw: Tensor, x: Tensor, loss: str) -> Tensor:
    """l, (N,): of what the decoder network gives, (N, C, H, H), against pictures in [0, 1]."""
    if loss == "BCE":
        return F.binary_cross_entropy_with_logits(raw, x, reduction="none").sum((1, 2, 3))
    error = raw.tanh() - (2 * x - 1)
    return (error.abs() if loss == "L1" else error.square()).mean((1, 2, 3))


def rate(t: Tensor, s) -> Tensor:
    """The step size at step t: `lr`, and in the last `anneal` of the steps falling to 0 along a cosine."""
    left = ((s.steps - t) / max(s.anneal * s.steps, 1)).clamp(0, 1)
    return s.lr * (0.5 - 0.5 * torch.cos(torch.pi * left)) if s.anneal else torch.full_like(t, s.lr)


class GZSNet(Learner):
    """One batch of groups, one optimiser."""

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        check(settings, spec, "GZS-Net")
        self.auto = GroupAutoencoder(spec.image_shape, spec.space.names, settings)
        self.reads = ("group",) if settings.sampler == "group" else ("edges", "strangers")

    @property
    def model(self) -> GroupAutoencoder:
        return self.auto

    def optimizers(self):
        # The step size is a tensor, so that it can fall without a word from the host.
        return {"auto": adam(self.auto.parameters(), torch.tensor(self.settings.lr, device=self.t.device))}

    def pictures_of(self, batch) -> tuple[Tensor, list[tuple[int, int]]]:
        """All drawn pictures (B, P, C, H, H), and which two are swapped in: every attribute, and last the cycle."""
        m = len(self.auto.codes)
        if self.settings.sampler == "group":  # x, m partners, xbar
            return batch["group"], [(0, j + 1) for j in range(m)] + [(0, m + 1)]
        pictures = torch.cat([batch["edges"].flatten(1, 2), batch["strangers"]], dim=1)
        return pictures, [(2 * j, 2 * j + 1) for j in range(m + 1)]

    def step(self, opt, batch):
        s, auto, codes = self.settings, self.auto, self.auto.codes
        opt["auto"].param_groups[0]["lr"].copy_(rate(self.t, s))
        cover, cycle = s.lam_cover and s.sampler == "group", s.lam_csr or s.lam_latent
        x, pairs = self.pictures_of(batch)  # (B, P, C, H, H)
        z = self.encoded(x)  # (B, P, D)

        made, true = [*z.unbind(1)], [*x.unbind(1)]  # 1: every picture from its own code
        if s.lam_sr:
            for name, (a, b) in zip(codes.names, pairs):  # 2: both pictures of a pair after the swap
                made += swap(z[:, a], z[:, b], codes, name)
                true += [x[:, a], x[:, b]]
        if cover:
            made.append(torch.cat([codes.read(z[:, b], name) for name, (_, b) in zip(codes.names, pairs)], dim=1))
            true.append(x[:, 0])
        if cycle:  # 3: block j of x and xbar exchanged, another j for each
            first, last = pairs[-1]
            j = self.drawn_block(len(x))  # (B, m)
            between = [codes.mix(z[:, last], z[:, first], j), codes.mix(z[:, first], z[:, last], j)]
            made += between

        raw = self.decoded(torch.stack(made, dim=1))  # (B, Q, C, H, H), in one pass
        error = self.errors(raw[:, : len(true)], torch.stack(true, dim=1))  # (Q,)
        P = x.shape[1]
        swaps = 2 * len(codes) if s.lam_sr else 0
        terms = {"L_r": error[:P].sum()}
        loss = terms["L_r"]
        if s.lam_sr:
            terms["L_sr"] = error[P : P + swaps].sum()
            loss = loss + s.lam_sr * terms["L_sr"]
        if cover:
            terms["L_cover"] = error[P + swaps]
            loss = loss + s.lam_cover * terms["L_cover"]
        if cycle:
            ramp = (self.t / s.ramp).clamp(max=1) if s.ramp else 1.0
            again = self.encoded(auto.pictures(raw[:, len(true) :]))  # (B, 2, D)
            back = codes.mix(again[:, 1], again[:, 0], j), codes.mix(again[:, 0], again[:, 1], j)
            if s.lam_csr:
                ends = torch.stack([x[:, first], x[:, last]], dim=1)
                terms["L_csr"] = self.errors(self.decoded(torch.stack(back, dim=1)), ends).sum()
                loss = loss + ramp * s.lam_csr * terms["L_csr"]
            if s.lam_latent:
                terms["L_latent"] = (again - torch.stack(between, dim=1)).abs().mean()
                loss = loss + ramp * s.lam_latent * terms["L_latent"]

        opt["auto"].zero_grad()
        loss.backward()
        opt["auto"].step()
        return {name: term.detach() for name, term in terms.items()}

    def encoded(self, x: Tensor) -> Tensor:
        """Codes (B, P, D) of pictures (B, P, C, H, H) in [0, 1], in one pass."""
        flat = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.auto.encode(flat).unflatten(0, x.shape[:2])

    def decoded(self, z: Tensor) -> Tensor:
        """What the decoder network gives, (B, Q, C, H, H), of codes (B, Q, D), in one pass."""
        return self.auto.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def errors(self, raw: Tensor, x: Tensor) -> Tensor:
        """l of each of Q pictures, (Q,), a mean over the batch; raw, x: (B, Q, C, H, H)."""
        return picture_loss(raw.flatten(0, 1), x.flatten(0, 1), self.settings.loss).unflatten(0, x.shape[:2]).mean(0)

    def drawn_block(self, n: int) -> Tensor:
        """(n, m) True at one attribute of each row, drawn with equal chance."""
        m = len(self.auto.codes)
        picked = torch.randint(m, (n, 1), generator=self.rng, device=self.t.device)
        return picked == torch.arange(m, device=self.t.device)

    def preview(self, batch):
        """Reconstructions, and for each attribute pictures that take it from the left neighbour."""
        x = batch["x"]
        z = self.auto.encode(x)
        rows = {"pictures": x, "reconstructions": self.auto.decode(z)}
        for name in self.auto.codes.names:
            rows[f"{name} of the left neighbour"] = self.auto.decode(self.auto.codes.swap(z, z.roll(1, 0), name))
        return rows

    # `paper`: the three terms are the paper's; blocks, networks, step size and batch are the released code's for Fonts,
    # iLab, RaFD and dSprites, 1,000,000 steps its authors' in development. For the other data size and fc are ours.
    PRESETS = {
        **{("paper", data): Settings() for data in ("fonts", "fonts_folder")},
        ("paper", "creatures"): Settings(nets="paper", fc=512, size=64),
        ("paper", "ilab"): Settings(d_first=60),
        ("paper", "rafd"): Settings(d_first=60),
        ("paper", "dsprites"): Settings(d=2, loss="BCE", fc=512, size=64),
        **{("paper", data): Settings(fc=512, size=64) for data in ("characters", "shapes3d", "folder")},
        **{("course", data): COURSE for data in SMALL},
        **{("quick", data): QUICK for data in SMALL},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SMALL},
        ("course", "dsprites"): replace(COURSE, d=2, loss="BCE"),
        ("quick", "dsprites"): replace(QUICK, d=2, loss="BCE"),
        ("smoke", "dsprites"): replace(QUICK, d=2, loss="BCE", **SMOKE),
    }


def check(settings, spec, what: str) -> None:
    """Raise UserError for data without attributes and for settings that cannot be."""
    space = spec.space
    if space is None or not len(space):
        raise UserError(f"{what} learns from labels, and these data have none: give data with factors (factors.csv)")
    for factor in space:
        if len(factor) < 2:
            why = "no partner can differ in it: drop it from the data, or add pictures"
            raise UserError(f"attribute '{factor.name}' has one value only, so {why}")
    if len(space) < 2:
        raise UserError(f"with '{space.names[0]}' as the only attribute nothing can be exchanged: {what} needs two")
    one_of("loss", settings.loss, LOSSES)
    for name in ("lam_sr", "lam_csr", "lam_cover", "lam_latent", "lam_ds", "anneal"):
        if getattr(settings, name, 0.0) < 0:
            raise UserError(f"{name} must be 0 or more, not {getattr(settings, name)}")
    if settings.anneal > 1:
        raise UserError(f"anneal is a share of the steps, 1 at most, not {settings.anneal}")
    one_of("sampler", getattr(settings, "sampler", "group"), SAMPLERS)
    if settings.d > MOST_NUMBERS or settings.d_first > MOST_NUMBERS:
        raise UserError(f"a block can hold {MOST_NUMBERS:,} numbers at most")
