"""Networks of FineGAN: a generator in three stages with two masks, a patch discriminator, two discriminators of codes.

Tables, whose widths `wide` multiplies. Pictures are in [-1, 1], masks in (0, 1). The first two are those of the
released codes (kkanshul/finegan and WisconsinAIVision/MixNMatch), for 128 pixels; "small" is ours, for 64 and 32.

    Up(o), Same(o)   nearest x2 (Up only), conv 3x3 to 2o channels, batch norm, GLU: a sigmoid(g) of the two halves
    Res(n)           x + conv 3x3, batch norm of GLU, batch norm, conv 3x3 of x
    G_b   [b, z] -> linear, batch norm, GLU -> map 4x4 -> Up ... Up -> conv, tanh                          = B
    G_p   [p, z] -> the same trunk -> [., p tiled] -> Same, Res ..., Same                                 = F_p
          F_p -> conv, tanh = P_f;  F_p -> conv, sigmoid = P_m                     P = P_m P_f + (1 - P_m) B
    G_c   [F_p, c tiled] -> Same, Res, Res, Same -> the same two heads = C_f, C_m  C = C_m C_f + (1 - C_m) P
    D_b   convolutions without padding and norm -> two maps of logits, one per patch: real, and background
    D_p   4x4/2 convolutions down to 4x4, conv 3x3 -> conv 3x3, conv 4x4 -> logits of p
    D_c   the same trunk -> the same head for c, and beside it conv 4x4 -> the logit of "real"

Biases only in D_b and in the last layer of a discriminator's head. Leaky ReLU 0.2 in the discriminators. Weights are
orthogonal, scales of batch norms N(1, 0.02).

A patch is what one logit of D_b sees. The patches must cover the view exactly, (n - 1) s + R = W, which is why D_b sees
126 pixels where G draws 128; with other sizes the constants change, so they are derived from the layers here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import UserError, finite
from disentkit.nets.biggan import Conv
from disentkit.nets.stargan import LabelledConv

SLOPE = 0.2


@dataclass(frozen=True)
class Table:
    """Widths of one size of pictures: trunks from the 4x4 map on, and how the parent and the child go on from them.

    parent  Same after p has joined, residual blocks, F_p (a last Same where that is another width than the first)
    child   Same after c has joined, residual blocks, last Same
    patch   (out, kernel, stride) of D_b's convolutions; the heads have the last kernel and stride 1
    view    the side of what D_b sees
    """

    background: tuple[int, ...]
    trunk: tuple[int, ...]
    parent: tuple[int, int, int]
    child: tuple[int, int, int]
    patch: tuple[tuple[int, int, int], ...]
    view: int
    D_p: tuple[int, ...]
    D_c: tuple[int, ...]


PATCH = ((64, 4, 2), (128, 4, 2), (256, 4, 1))
TABLES: dict[tuple[str, int], Table] = {
    ("finegan", 128): Table(
        (1024, 512, 256, 128, 64, 64), (1024, 512, 256, 128, 64, 64), (64, 2, 32), (32, 2, 16), PATCH, 126,
        (64, 128, 256, 512, 1024, 512), (64, 128, 256, 512, 1024, 512),
    ),
    ("mixnmatch", 128): Table(
        (512, 256, 128, 64, 64, 32), (512, 256, 128, 64, 16, 16), (16, 3, 16), (32, 2, 16), PATCH, 126,
        (32, 64, 128, 256, 256, 256), (64, 128, 256, 512, 512, 512),
    ),
    ("small", 64): Table(
        (128, 64, 32, 32, 16), (128, 64, 32, 16, 16), (16, 3, 16), (32, 2, 16),
        ((32, 4, 2), (64, 3, 1), (64, 3, 1)), 62, (16, 32, 64, 64, 64), (32, 64, 128, 128, 128),
    ),
    ("small", 32): Table(
        (64, 32, 32, 16), (64, 32, 16, 8), (8, 3, 8), (16, 2, 8),
        ((16, 3, 1), (32, 3, 1), (32, 3, 1)), 32, (16, 32, 32, 32), (32, 64, 64, 64),
    ),
}  # fmt: skip


def table_of(name: str, size: int, wide: float = 1.0) -> Table:
    """The table of a name and a picture's side, its widths times `wide`; UserError where there is none."""
    if (name, size) not in TABLES:
        known = ", ".join(f"'{n}' at {s}" for n, s in TABLES)
        raise UserError(f"there is no table '{name}' for pictures of {size} pixels; there are {known}")
    table = TABLES[name, size]
    finite("wide", wide, above=0)

    def times(widths):
        return tuple(max(1, round(wide * width)) for width in widths)

    parent, child = ((*times(part[:1]), part[1], *times(part[2:])) for part in (table.parent, table.child))
    patch = tuple((*times([out]), kernel, stride) for out, kernel, stride in table.patch)
    return Table(times(table.background), times(table.trunk), parent, child, patch, table.view, times(table.D_p),
                 times(table.D_c))  # fmt: skip


# ---- patches


@dataclass(frozen=True)
class Patches:
    """A square view of `side` pixels W cut into `grid` x `grid` patches (n) of `field` pixels (R), `stride` s apart.

    Raises ValueError where they do not cover the view exactly.
    """

    side: int
    field: int
    stride: int
    grid: int

    def __post_init__(self):
        if (self.grid - 1) * self.stride + self.field != self.side:
            said = f"({self.grid} - 1) {self.stride} + {self.field} = {(self.grid - 1) * self.stride + self.field}"
            raise ValueError(f"patches do not cover the view: {said} pixels of {self.side}")

    def valid(self, box: Tensor) -> Tensor:
        """w, (N, 1, n, n): 1 where a patch lies on the background, 0 where it touches the box.

        box  (N, 4) x1, y1, x2, y2 in pixels of the view. A box without area is an object outside: all patches are valid
        """
        first = self.stride * torch.arange(self.grid, device=box.device)  # patch i is [s i, s i + R]
        x1, y1, x2, y2 = box.T[:, :, None]  # (N, 1) each
        columns = (first <= x2) & (first + self.field >= x1)  # (N, n)
        rows = (first <= y2) & (first + self.field >= y1)
        there = (x2 > x1) & (y2 > y1)
        touched = rows[:, :, None] & columns[:, None, :] & there[:, :, None]
        return (~touched).float()[:, None]


def patches(size: int, table: str = "") -> Patches:
    """The patches of D_b for pictures of `size` pixels, derived from its layers; without a table, of the first one."""
    table = table or next((name for name, side in TABLES if side == size), "small")
    found = table_of(table, size)
    field, jump = 1, 1
    for _, kernel, stride in (*found.patch, (1, found.patch[-1][1], 1)):
        field, jump = field + (kernel - 1) * jump, jump * stride
    return Patches(found.view, field, jump, (found.view - field) // jump + 1)


# ---- parts


class GLU(nn.Module):
    """a sigmoid(g) of the two halves of the channels.

    PyTorch's own works on the halves where they lie, between each other's channels, which takes several times as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        a, g = (half.contiguous(memory_format=_order(x)) for half in x.chunk(2, dim=1))
        return a * g.sigmoid()


def _order(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.ndim == 4 else torch.contiguous_format


def _up(last: int, out: int) -> nn.Sequential:
    conv = Conv(last, 2 * out, resize="up", bias=False, spectral=False)
    return nn.Sequential(conv, nn.BatchNorm2d(2 * out), GLU())


def same(last: int, out: int) -> nn.Sequential:
    """Same(o): conv 3x3 to 2o channels, batch norm, GLU."""
    return nn.Sequential(nn.Conv2d(last, 2 * out, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * out), GLU())


class Res(nn.Module):
    """x + batch norm of conv of Same(x); nothing after the sum."""

    def __init__(self, n: int):
        super().__init__()
        self.layers = nn.Sequential(same(n, n), nn.Conv2d(n, n, 3, 1, 1, bias=False), nn.BatchNorm2d(n))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Trunk(nn.Module):
    """[code, z] (N, .) -> map (N, widths[-1], H, H), doubled from 4x4 by every width but the first."""

    def __init__(self, codes: int, widths: tuple[int, ...]):
        super().__init__()
        self.first = nn.Sequential(
            nn.Linear(codes, 2 * widths[0] * 16, bias=False), nn.BatchNorm1d(2 * widths[0] * 16), GLU()
        )
        self.ups = nn.Sequential(*(_up(a, b) for a, b in zip(widths, widths[1:])))

    def forward(self, code: Tensor, z: Tensor) -> Tensor:
        x = self.first(torch.cat([code, z], dim=1)).unflatten(1, (-1, 4, 4))
        return self.ups(x.contiguous(memory_format=torch.channels_last))


class Join(nn.Module):
    """A map with a code tiled over it, then Same, residual blocks, and a last Same to another width."""

    def __init__(self, last: int, code: int, widths: tuple[int, int, int]):
        super().__init__()
        first, blocks, out = widths
        self.join = LabelledConv(last, code, 2 * first, 3, 1, 1, bias=False)
        self.norm = nn.Sequential(nn.BatchNorm2d(2 * first), GLU())
        self.res = nn.Sequential(*(Res(first) for _ in range(blocks)))
        self.last = same(first, out) if out != first else nn.Identity()

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.last(self.res(self.norm(self.join(x, code.to(x.dtype)))))


class Heads(nn.Module):
    """A map -> foreground (N, `colours`, H, H) in (-1, 1) and mask (N, 1, H, H) in (0, 1)."""

    def __init__(self, channels: int, colours: int):
        super().__init__()
        self.colours = colours
        self.conv = nn.Conv2d(channels, colours + 1, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x).float()  # float32 from here on: pictures are laid over each other
        front, mask = (part.contiguous(memory_format=_order(y)) for part in y.tensor_split([self.colours], dim=1))
        return front.tanh(), mask.sigmoid()


# ---- the generator


class Stages(NamedTuple):
    """What G makes on its way: pictures (N, 3, H, H) in (-1, 1), masks (N, 1, H, H) in (0, 1), F_p (N, K, H, H)."""

    B: Tensor
    F: Tensor
    P_f: Tensor
    P_m: Tensor
    P: Tensor
    C_f: Tensor
    C_m: Tensor
    C: Tensor


def composite(mask: Tensor, front: Tensor, back: Tensor) -> Tensor:
    """mask * front + (1 - mask) * back: one picture laid over another."""
    return mask * front + (1 - mask) * back


class Generator(nn.Module):
    """G: a background, laid over it a parent's shape, laid over that a child's texture.

    z numbers of the pose code z, N_p parents, N_c children and as many backgrounds. grey: parents have no colour.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], z: int, parents: int, children: int, table: str = "small",
        wide: float = 1.0, grey: bool = False,
    ):  # fmt: skip
        super().__init__()
        colours, size = image_shape[0], image_shape[1]
        t = table_of(table, size, wide)
        self.feature_shape = (t.parent[2], size, size)
        self.background_trunk = Trunk(children + z, t.background)
        self.background_head = nn.Conv2d(t.background[-1], colours, 3, 1, 1, bias=False)
        self.parent_trunk = Trunk(parents + z, t.trunk)
        self.parent_join = Join(t.trunk[-1], parents, t.parent)
        self.parent_heads = Heads(t.parent[2], 1 if grey else colours)
        self.child_join = Join(t.parent[2], children, t.child)
        self.child_heads = Heads(t.child[2], colours)
        released(self)

    def forward(self, z_b: Tensor, b: Tensor, z: Tensor, p: Tensor, c: Tensor) -> Stages:
        """Codes (N, .), one-hot or soft -> all stages. Training has z_b = z."""
        return self.paint(self.feature(z, p), self.background(z_b, b), c)

    def background(self, z_b: Tensor, b: Tensor) -> Tensor:
        """B, (N, 3, H, H)."""
        return self.background_head(self.background_trunk(b, z_b)).float().tanh()

    def feature(self, z: Tensor, p: Tensor) -> Tensor:
        """F_p, (N, K, H, H): all that z and p say of the object."""
        return self.parent_join(self.parent_trunk(p, z), p).float()

    def paint(self, feature: Tensor, B: Tensor, c: Tensor) -> Stages:
        """All stages from F_p, the background and c. The child does not see the parent's mask: it makes its own."""
        P_f, P_m = self.parent_heads(feature)
        P_f = P_f.expand_as(B)  # where it is grey
        P = composite(P_m, P_f, B)
        C_f, C_m = self.child_heads(self.child_join(feature, c))
        return Stages(B, feature, P_f, P_m, P, C_f, C_m, composite(C_m, C_f, P))


# ---- the discriminators


class PatchDiscriminator(nn.Module):
    """D_b: views (N, 3, W, W) -> logits of "real" and of "background" for each patch, (N, 1, n, n) each."""

    def __init__(self, size: int, table: str = "small", wide: float = 1.0, colours: int = 3):
        super().__init__()
        layers, last, t = [], colours, table_of(table, size, wide)
        for out, kernel, stride in t.patch:
            layers += [nn.Conv2d(last, out, kernel, stride), nn.LeakyReLU(SLOPE)]
            last = out
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.Conv2d(last, 2, t.patch[-1][1])
        self.patches = patches(size, table)
        released(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures of another side than W are resized to it, corners on corners."""
        if x.shape[-1] != self.patches.side:
            x = F.interpolate(x, (self.patches.side,) * 2, mode="bilinear", align_corners=True)
        real, background = self.heads(self.trunk(x)).float().chunk(2, dim=1)
        return real, background


def _trunk(widths: tuple[int, ...], size: int, colours: int) -> nn.Sequential:
    """4x4/2 convolutions down to a map of 4x4, then one 3x3 to the last width; batch norm from the second one on."""
    layers, last = [], colours
    for i, out in enumerate(widths[:-1]):
        layers += [nn.Conv2d(last, out, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(out)] if i else []
        layers += [nn.LeakyReLU(SLOPE)]
        last = out
    side = size // 2 ** (len(widths) - 1)
    if side != 4:
        raise ValueError(f"{len(widths) - 1} convolutions leave {side}x{side} of {size} pixels, not 4x4")
    layers += [nn.Conv2d(last, widths[-1], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[-1]), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _code_head(width: int, out: int) -> nn.Sequential:
    """Conv 3x3, batch norm, leaky ReLU, conv 4x4 -> logits (N, out)."""
    conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE), nn.Conv2d(width, out, 4), nn.Flatten())


class ParentDiscriminator(nn.Module):
    """D_p: masked foregrounds P_fm (N, 3, H, H) -> logits of p (N, N_p). It never says what is real."""

    def __init__(self, size: int, parents: int, table: str = "small", wide: float = 1.0, colours: int = 3):
        super().__init__()
        widths = table_of(table, size, wide).D_p
        self.trunk = _trunk(widths, size, colours)
        self.head = _code_head(widths[-1], parents)
        released(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x)).float()


class ChildDiscriminator(nn.Module):
    """D_c: pictures (N, 3, H, H) -> the logit of "real" (N,); masked foregrounds C_fm -> logits of c (N, N_c).

    `head` belongs to the code loss, all else to the adversarial one.
    """

    def __init__(self, size: int, children: int, table: str = "small", wide: float = 1.0, colours: int = 3):
        super().__init__()
        widths = table_of(table, size, wide).D_c
        self.trunk = _trunk(widths, size, colours)
        self.real = nn.Conv2d(widths[-1], 1, 4)
        self.head = _code_head(widths[-1], children)
        released(self)

    def forward(self, x: Tensor, code: bool = False) -> Tensor:
        h = self.trunk(x)
        return self.head(h).float() if code else self.real(h).float().flatten()


def released(net: nn.Module) -> nn.Module:
    """Weights as in the released code: orthogonal, biases 0, scales of batch norms N(1, 0.02), shifts 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
    return net
