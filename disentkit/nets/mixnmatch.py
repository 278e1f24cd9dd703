"""Networks of MixNMatch beside FineGAN's: encoders, pair critics, and for feature mode S and its discriminator.

Li, Singh, Ojha, Lee 2020, "MixNMatch", arXiv 1911.11758; generator and the other discriminators are in
`nets/finegan.py`. Pictures are in [-1, 1]. Two tables, whose widths `wide` multiplies:

    "mixnmatch"  128 pixels, the layers of the released code
                 encoder    conv 4x4 s2 64, 128, 256, 512, 1024 down to 4x4, conv 3x3 512, 512, batch norm after all but
                            the first, leaky ReLU 0.2; conv 4x4 out
                 critic     picture: conv 4x4 s2 16, 32, 64, 128, 256 down to 4x4, conv 4x4 512; code: FC 512, 512, 512
                            with Gaussian noise of 0.5, 0.3, 0.3 added after each; both: FC 1024, FC 1; leaky ReLU 0.2
                 S          Same 32, 32; Down 32, 64, 128, 256, 512, 512 to 2x2; Up 256, 512, 256, 128, 64, K, each but
                            the first of the map before and of the Down at the same side; two Res K
                 D_f        conv 4x4 s2 32, 64, conv 4x4 128, leaky ReLU 0.2; conv 4x4 1; no padding
    "small"      ours, at 64 and 32 pixels
                 encoder    32, 64, 128, 128 (64 pixels) or 16, 32, 64 (32 pixels), conv 3x3 of the last width twice
                 critic     8, 16, 32, 64 and hidden width 128, or 8, 16, 32 and 64
                 S          Down 32, 64, 128, 128 to 4x4, Up 128, 64, 32, K; or 16, 32, 64 and 32, 16, K
                 D_f        conv 4x4 s2 16, conv 3x3 32, 32, 1; or conv 3x3 8, 16, 16, 1

D_f has the patches of D_b, and half its widths in either table. Down is a convolution 4x4 with stride 2, Up a
transposed one, each with batch norm and a gated linear unit. Encoders, S and D_f start as FineGAN's networks do,
critics as PyTorch has it. Critics and D_f normalise nothing; the first return a value, D_f logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import UserError, finite
from disentkit.nets import finegan
from disentkit.nets.finegan import GLU, SLOPE, Res, released, same

NOISE = (0.5, 0.3, 0.3)  # standard deviations in the critic's code branch


@dataclass(frozen=True)
class Table:
    """Widths of one size of pictures; layers that halve the side come outermost first.

    encoder   convolutions that halve the side, then the two that keep it
    critic    convolutions of the picture's branch, and the width of the code's; the joint layer is twice as wide
    down, up  of S, whose last Up has as many channels as the feature map
    """

    encoder: tuple[tuple[int, ...], tuple[int, ...]]
    critic: tuple[tuple[int, ...], int]
    down: tuple[int, ...]
    up: tuple[int, ...]


TABLES: dict[tuple[str, int], Table] = {
    ("mixnmatch", 128): Table(
        ((64, 128, 256, 512, 1024), (512, 512)), ((16, 32, 64, 128, 256), 512), (32, 64, 128, 256, 512, 512),
        (256, 512, 256, 128, 64),
    ),
    ("small", 64): Table(((32, 64, 128, 128), (128, 128)), ((8, 16, 32, 64), 128), (32, 64, 128, 128), (128, 64, 32)),
    ("small", 32): Table(((16, 32, 64), (64, 64)), ((8, 16, 32), 64), (16, 32, 64), (32, 16)),
}  # fmt: skip


def table_of(name: str, size: int, wide: float = 1.0) -> Table:
    """The table of a name and a picture's side, its widths times `wide`; UserError where there is none."""
    if (name, size) not in TABLES:
        known = ", ".join(f"'{n}' at {s}" for n, s in TABLES)
        raise UserError(f"MixNMatch has no table '{name}' for pictures of {size} pixels; it has {known}")
    finite("wide", wide, above=0)

    def times(*widths: int) -> tuple[int, ...]:
        return tuple(max(1, round(wide * width)) for width in widths)

    t = TABLES[name, size]
    encoder, critic = tuple(times(*part) for part in t.encoder), (times(*t.critic[0]), *times(t.critic[1]))
    return Table(encoder, critic, times(*t.down), times(*t.up))


class Encoder(nn.Module):
    """Pictures (N, 3, s, s) in [-1, 1] -> (N, out): logits, or with `bound` values in (-bound, bound).

    Raises UserError for a table or a size that does not exist.
    """

    def __init__(
        self, size: int, out: int, table: str, wide: float = 1.0, bound: float | None = None, colours: int = 3
    ):
        super().__init__()
        halves, after = table_of(table, size, wide).encoder
        self.bound = bound
        layers, last = [], colours
        for width in halves:
            norm = [nn.BatchNorm2d(width)] if layers else []
            layers += [nn.Conv2d(last, width, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(SLOPE)]
            last = width
        for width in after:
            layers += [nn.Conv2d(last, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE)]
            last = width
        self.net = released(nn.Sequential(*layers, nn.Conv2d(last, out, 4), nn.Flatten()))

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        return y if self.bound is None else self.bound * y.float().tanh()


class PairCritic(nn.Module):
    """Pictures (N, 3, s, s) in [-1, 1] and one code (N, code) -> (N,), high for a real picture and its inferred code.

    Noise drawn from `rng` blurs the code, in training and out of it: otherwise a one-hot code would give away that it
    was drawn and a soft one that it was inferred. No layer mixes pairs, so a gradient belongs to one pair alone. Raises
    UserError as Encoder does.
    """

    def __init__(self, size: int, code: int, table: str, wide: float = 1.0, colours: int = 3):
        super().__init__()
        halves, hidden = table_of(table, size, wide).critic
        layers, last = [], colours
        for width in halves:
            layers += [nn.Conv2d(last, width, 4, 2, 1), nn.LeakyReLU(SLOPE)]
            last = width
        self.picture = nn.Sequential(*layers, nn.Conv2d(last, hidden, 4), nn.LeakyReLU(SLOPE), nn.Flatten())
        self.code = nn.ModuleList(nn.Linear(last, hidden) for last in (code, hidden, hidden))
        self.joint = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.LeakyReLU(SLOPE), nn.Linear(2 * hidden, 1))

    def forward(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        hidden = self.code[0].out_features
        noise = torch.randn(len(NOISE), len(y), hidden, generator=rng, device=y.device)  # (3, N, hidden)
        for layer, std, drawn in zip(self.code, NOISE, noise):
            y = F.leaky_relu(layer(y), SLOPE) + std * drawn  # (N, hidden)
        return self.joint(torch.cat([self.picture(x), y], dim=1)).squeeze(1)


def _gated(layer: nn.Module, out: int) -> nn.Sequential:
    """A convolution to 2 * out channels, batch norm, gated linear unit: out channels."""
    return nn.Sequential(layer, nn.BatchNorm2d(2 * out), GLU())


class FeatureNet(nn.Module):
    """S of feature mode: pictures (N, 3, s, s) in [-1, 1] -> the parent stage's feature map (N, channels, s, s).

    Every Up reads the map before it and the Down of the same side; nothing is passed on at the picture's own side.
    Raises UserError as Encoder does.
    """

    def __init__(self, size: int, channels: int, table: str, wide: float = 1.0, colours: int = 3):
        super().__init__()
        t = table_of(table, size, wide)
        down, up = t.down, (*t.up, channels)
        self.first = nn.Sequential(same(colours, down[0]), same(down[0], down[0]))
        self.down, self.up, last = nn.ModuleList(), nn.ModuleList(), down[0]
        for width in down:
            self.down.append(_gated(nn.Conv2d(last, 2 * width, 4, 2, 1), width))
            last = width
        for width, skip in zip(up, [*reversed(down[:-1]), 0]):
            self.up.append(_gated(nn.ConvTranspose2d(last, 2 * width, 4, 2, 1, bias=False), width))
            last = width + skip
        self.last = nn.Sequential(Res(channels), Res(channels))
        released(self)

    def forward(self, x: Tensor) -> Tensor:
        x, seen = self.first(x), []
        for down in self.down:
            x = down(x)
            seen.append(x)
        x = self.up[0](seen.pop())
        for up in self.up[1:]:
            x = up(torch.cat([x, seen.pop()], dim=1))
        return self.last(x)


class FeatureDiscriminator(nn.Module):
    """D_f of feature mode: feature maps (N, channels, s, s) -> logits (N, 1, 24, 24) of patches, high for G's own.

    Maps are resized to the view that the patches of D_b cover exactly. Raises UserError as Encoder does.
    """

    def __init__(self, size: int, channels: int, table: str):
        super().__init__()
        table_of(table, size)
        t = finegan.table_of(table, size, 0.5)
        self.side, last, layers = t.view, channels, []
        for width, kernel, stride in t.patch:
            layers += [nn.Conv2d(last, width, kernel, stride), nn.LeakyReLU(SLOPE)]
            last = width
        self.net = released(nn.Sequential(*layers, nn.Conv2d(last, 1, t.patch[-1][1])))

    def forward(self, feature: Tensor) -> Tensor:
        if feature.shape[-1] != self.side:
            feature = F.interpolate(feature, (self.side, self.side), mode="bilinear", align_corners=True)
        return self.net(feature)
