"""Networks of ELEGANT: encoder, residual decoder with skips, conditional discriminator.

Two tables, whose widths `wide` multiplies; all convolutions are 3x3 with stride 2 and zero padding of 1, and halve or
double the side. Pictures are in [-1, 1].

    "paper"  the released code (Prinsphield/ELEGANT, nets.py)
             encoder        64, 128, 256, 512, 512, leaky ReLU 0.2; the last map is the code
             decoder        the code wanted beside the picture's own; 512, 256, 128, 64, ReLU; C, 2 tanh
             discriminator  picture and label maps; 64, 128, 256, 512, leaky ReLU 0.2; FC 1
    "small"  ours: an encoder 32, 64, 128, 128 and its mirror image, a discriminator 32, 64, 128, 128. At 32 pixels
             both leave out the last layer, so that the code is 4x4x128

All layers but the decoder's last and the FC normalise: at each place the vector of channels gets length 1, times a gain
and plus an offset that all places and channels share. Skips are added: the encoder's map of a side joins the decoder's
map of that side. Weights start as N(0, 0.02). The discriminator returns logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import UserError, finite, one_of
from disentkit.nets.stargan import LabelledConv

TABLES = {"paper": (64, 128, 256, 512, 512), "small": (32, 64, 128, 128)}
SLOPE = 0.2  # of leaky ReLU


class Normalise(nn.Module):
    """Vectors of channels, at each place, of length 1; times one gain, plus one offset."""

    def __init__(self):
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.gain + self.offset


def widths(image_shape: tuple[int, int, int], table: str = "small", wide: float = 1.0) -> list[int]:
    """Channels of the encoder's layers, outermost first. Raises UserError for what no table reads."""
    one_of("nets", table, TABLES)
    if finite("wide", wide, above=0) > 16:
        raise UserError(f"wide can be 16 at most, not {wide:g}")
    _, height, width = image_shape
    found = list(TABLES[table])
    if table == "small" and height < 64:
        found.pop()
    side = 2 ** len(found)
    if height != width or height % side or not side <= height <= 256:
        raise UserError(f"nets '{table}' of ELEGANT read square pictures whose side {side} divides, "
                        f"not {height}x{width}")  # fmt: skip
    return [max(2, round(n * wide)) for n in found]


class Encoder(nn.Module):
    """Pictures (N, C, H, H) -> the code (N, F, h, h), and the maps before it, largest first."""

    def __init__(self, image_shape: tuple[int, int, int], table: str = "small", wide: float = 1.0):
        super().__init__()
        last, layers = image_shape[0], []
        for out in widths(image_shape, table, wide):
            layers.append(nn.Sequential(nn.Conv2d(last, out, 3, 2, 1), Normalise(), nn.LeakyReLU(SLOPE)))
            last = out
        self.layers = nn.ModuleList(layers)
        _small(self)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps.pop(), maps


class Decoder(nn.Module):
    """The code wanted and the picture's own, (N, F, h, h) each, and the picture's maps -> a residual in (-2, 2)."""

    def __init__(self, image_shape: tuple[int, int, int], table: str = "small", wide: float = 1.0):
        super().__init__()
        channels = widths(image_shape, table, wide)
        last, layers = 2 * channels[-1], []
        for out in reversed(channels[:-1]):
            layers.append(nn.Sequential(nn.ConvTranspose2d(last, out, 3, 2, 1, 1), Normalise(), nn.ReLU()))
            last = out
        self.layers = nn.ModuleList(layers)
        self.last = nn.ConvTranspose2d(last, image_shape[0], 3, 2, 1, 1)
        _small(self)

    def forward(self, wanted: Tensor, own: Tensor, maps: list[Tensor]) -> Tensor:
        x = torch.cat([wanted, own], dim=1)
        for layer, skip in zip(self.layers, reversed(maps)):
            x = layer(x) + skip
        return 2 * self.last(x).tanh()


class Discriminator(nn.Module):
    """Pictures (N, C, H, H) and labels (N, L) -> one logit (N, 1), high for real. `halve`: it sees half the side."""

    def __init__(
        self, image_shape: tuple[int, int, int], labels: int, table: str = "small", wide: float = 1.0, halve=False
    ):
        super().__init__()
        channels, self.halve = widths(image_shape, table, wide)[:4], halve
        last, side = channels[0], image_shape[1] // (4 if halve else 2)
        self.first = LabelledConv(image_shape[0], labels, last, 3, 2, 1, bias=True)
        layers: list[nn.Module] = [Normalise(), nn.LeakyReLU(SLOPE)]
        for out in channels[1:]:
            layers += [nn.Conv2d(last, out, 3, 2, 1), Normalise(), nn.LeakyReLU(SLOPE)]
            last, side = out, (side + 1) // 2
        self.rest = nn.Sequential(*layers, nn.Flatten(), nn.Linear(last * side**2, 1))
        _small(self)
        nn.init.zeros_(self.rest[-1].bias)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.rest(self.first(F.avg_pool2d(x, 2) if self.halve else x, labels))


def _small(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
