"""Networks of StarGAN: generator, the discriminator's trunk, and its two heads.

Two tables, whose inner widths `wide` multiplies. Pictures are in [-1, 1] on both ends. Convolutions pad with zeros.

    "paper"  the released code (yunjey/StarGAN, model.py)
             G      picture and label maps, conv 7x7 64; conv 4x4/2 128, 256; 6 residual blocks of two conv 3x3;
                    deconv 4x4/2 128, 64; conv 7x7 C, tanh. Instance norm (affine), ReLU, no biases
             trunk  6 convs 4x4/2 from 64 doubling to 2048, leaky ReLU 0.01, no norm
    "small"  ours: widths 32, 64, 128 in G with 3 residual blocks; the trunk from 32 doubling, log2 H - 1 convs deep, so
             that its last map is 2x2 (256 channels at 32 pixels, 512 at 64)
    heads    of both: conv 3x3 -> a map of critic's values; conv of the whole last map -> logits. No biases

Under 64 pixels the paper's trunk stops at a 1x1 map. Instance norm knows the present picture only, no running
statistics. It also removes whatever is constant over a map, labels among it: they get through where the padding's zeros
break the constant, which reflected borders would not.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import UserError, finite, one_of

TABLES = ("paper", "small")


class LabelledConv(nn.Conv2d):
    """A convolution of pictures beside label maps, one map per label, constant over it.

    The maps are not made. What a constant map gives is a sum of weights, and differs from place to place only where the
    kernel reaches over the border: it is computed once per label on a small map that has all those places, and the
    middle is stretched. Same result, and with a hundred labels the first layer costs no more than the others.
    """

    def __init__(self, channels: int, labels: int, out: int, kernel: int, stride: int, padding: int, bias: bool):
        super().__init__(channels + labels, out, kernel, stride, padding, bias=bias)
        self.channels = channels

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Pictures (N, C, H, W) and labels (N, L) -> (N, out, H', W')."""
        weight = self.weight[:, self.channels :]  # (out, L, k, k)
        y = F.conv2d(x, self.weight[:, : self.channels], self.bias, self.stride, self.padding)
        ones = x.new_ones(1, 1, self._short(x.shape[2]), self._short(x.shape[3]))
        each = F.conv2d(ones, weight.reshape(-1, 1, *self.kernel_size), None, self.stride, self.padding)
        each = torch.einsum("nl,olhw->nohw", labels, each.reshape(*weight.shape[:2], *each.shape[2:]))
        return y + self._stretch(self._stretch(each, 2, y.shape[2]), 3, y.shape[3])

    def _short(self, side: int) -> int:
        """The smallest side that has a place of every kind: those at each border, and one in the middle."""
        kernel, stride, padding = self.kernel_size[0], self.stride[0], self.padding[0]

        def middle(n: int) -> int:  # places whose kernel sees no border
            return (n + padding - kernel) // stride + 1 - math.ceil(padding / stride)

        while middle(side - stride) >= 1:
            side -= stride
        return side

    def _stretch(self, y: Tensor, dim: int, side: int) -> Tensor:
        """Repeat the first place that sees no border until the side is full."""
        more = side - y.shape[dim]
        if not more:
            return y
        first = math.ceil(self.padding[0] / self.stride[0])
        middle = y.narrow(dim, first, 1)
        shape = list(middle.shape)
        shape[dim] += more
        rest = y.narrow(dim, first + 1, y.shape[dim] - first - 1)
        return torch.cat([y.narrow(dim, 0, first), middle.expand(shape), rest], dim)


class Residual(nn.Module):
    """x + conv 3x3, norm, ReLU, conv 3x3, norm (x)."""

    def __init__(self, channels: int):
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, 1, 1, bias=False) for _ in range(2))
        self.main = nn.Sequential(first, _norm(channels), nn.ReLU(), second, _norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class Generator(nn.Module):
    """G: pictures (N, C, H, H) and labels (N, L) -> pictures (N, C, H, H) in (-1, 1)."""

    def __init__(self, image_shape: tuple[int, int, int], labels: int, table: str = "small", wide: float = 1.0):
        super().__init__()
        _check(image_shape, table, wide)
        channels, blocks = image_shape[0], 6 if table == "paper" else 3
        a, b, c = _widths(64 if table == "paper" else 32, 3, wide)
        self.stem = LabelledConv(channels, labels, a, 7, 1, 3, bias=False)
        layers: list[nn.Module] = [_norm(a), nn.ReLU()]
        for last, out in ((a, b), (b, c)):
            layers += [nn.Conv2d(last, out, 4, 2, 1, bias=False), _norm(out), nn.ReLU()]
        layers += [Residual(c) for _ in range(blocks)]
        for last, out in ((c, b), (b, a)):
            layers += [nn.ConvTranspose2d(last, out, 4, 2, 1, bias=False), _norm(out), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(a, channels, 7, 1, 3, bias=False), nn.Tanh())

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.body(self.stem(x, labels))


def trunk(image_shape: tuple[int, int, int], table: str = "small", wide: float = 1.0) -> nn.Sequential:
    """Pictures (N, C, H, H) -> the last map (N, F, h, h); see `last_map`. Raises UserError for what no table reads."""
    layers: list[nn.Module] = []
    last = image_shape[0]
    for out in _trunk(image_shape, table, wide)[0]:
        layers += [nn.Conv2d(last, out, 4, 2, 1), nn.LeakyReLU(0.01)]
        last = out
    return nn.Sequential(*layers)


def last_map(image_shape: tuple[int, int, int], table: str = "small", wide: float = 1.0) -> tuple[int, int]:
    """(F, h): channels and side of the trunk's last map."""
    channels, side = _trunk(image_shape, table, wide)
    return channels[-1], side


def head_src(image_shape: tuple[int, int, int], table: str = "small", wide: float = 1.0) -> nn.Conv2d:
    """The last map (N, F, h, h) -> the critic's values (N, 1, h, h), high for real."""
    return nn.Conv2d(last_map(image_shape, table, wide)[0], 1, 3, 1, 1, bias=False)


def head_cls(image_shape: tuple[int, int, int], labels: int, table: str = "small", wide: float = 1.0) -> nn.Sequential:
    """The last map (N, F, h, h) -> logits (N, L), those of all attributes side by side."""
    channels, side = last_map(image_shape, table, wide)
    return nn.Sequential(nn.Conv2d(channels, labels, side, bias=False), nn.Flatten())


def _trunk(image_shape: tuple[int, int, int], table: str, wide: float) -> tuple[list[int], int]:
    """Channels of the trunk's layers and the side of its last map."""
    side, depth = _check(image_shape, table, wide), 0
    while side > (1 if table == "paper" else 3) and depth < 6:
        side, depth = side // 2, depth + 1
    return _widths(64 if table == "paper" else 32, depth, wide), side


def _check(image_shape: tuple[int, int, int], table: str, wide: float) -> int:
    one_of("nets", table, TABLES)
    if finite("wide", wide, above=0) > 16:
        raise UserError(f"wide can be 16 at most, not {wide:g}")
    _, height, width = image_shape
    if height != width or height % 4 or not 16 <= height <= 128:
        raise UserError(f"StarGAN reads square pictures of 16, 20 ... 128 pixels, not {height}x{width}")
    return height


def _widths(first: int, layers: int, wide: float) -> list[int]:
    return [max(2, round(first * 2**i * wide)) for i in range(layers)]


def _norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True)
