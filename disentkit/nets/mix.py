"""Networks of MIX: encoder, decoder, discriminator, and the classifier that sees three pictures at once.

Two tables, whose inner widths `wide` multiplies. Layers of stride 2 in encoder, decoder and discriminator halve or
double the side, rounding up where it is odd (TensorFlow's `SAME`). Pictures are in [-1, 1] on both ends.

    "paper"  the released code for 60-pixel sprites (`model_sprites.py`, `ops_alex.py`)
             encoder        conv 4x4 64, 128, 256, conv 2x2 512, 512, each with instance norm (no affine) and leaky ReLU
                            0.2; FC n*d, leaky ReLU 0.2 on the code itself
             decoder        deconv 4x4 512 from 1x1 to 4x4, ReLU; deconv 3x3 512, 256, 128, instance norm, ReLU;
                            deconv 3x3 C, tanh; no biases
             discriminator  conv 3x3 64, 128, 256, conv 1x1 512 (stride 1), each batch norm, leaky ReLU 0.2; FC 1
             classifier     AlexNet with batch norm after the ReLU of every conv and no dropout: conv 8x8 96 (stride 2,
                            no padding), pool, 5x5 256, pool, 3x3 384, 384, 256, pool, FC 4096, 4096, n
    "small"  ours, for a CPU; at 32 pixels, and at 64 with one layer of 16 more outside
             encoder        conv 4x4 32, 64, 128 down to 4x4, leaky ReLU 0.2; FC 256, FC n*d
             decoder        FC 256, FC 4*4*128, deconv 4x4 64, 32, C, ReLU between; tanh
             discriminator  conv 4x4 32, 64, 128, batch norm from the second on, leaky ReLU 0.2; FC 1
             classifier     conv 4x4 32, 64, 128, batch norm, ReLU; FC 256, n
             Encoder and decoder normalise nothing

Under 48 pixels the paper's table leaves out one layer of 512 on each side, and AlexNet's first conv has stride 1: the
paper's own 28-pixel networks are not in the released code. Discriminator and classifier normalise by the present batch
in training and out of it, as the released code does: there are no running statistics. D and the classifier return
logits.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import UserError, finite, one_of

TABLES = ("paper", "small")
SLOPE = 0.2  # of leaky ReLU


class Halve(nn.Conv2d):
    """A convolution of stride 2 whose output side is half the input's, rounded up; the odd zero row comes last."""

    def __init__(self, channels: int, out: int, kernel: int, side: int, bias: bool = True):
        super().__init__(channels, out, kernel, 2, bias=bias)
        zeros = max(0, (math.ceil(side / 2) - 1) * 2 + kernel - side)
        self.zeros = (zeros // 2, zeros - zeros // 2) * 2
        if zeros % 2 == 0:  # the convolution's own padding is faster
            self.padding, self.zeros = (zeros // 2, zeros // 2), None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.zeros is None else F.pad(x, self.zeros))


class Double(nn.ConvTranspose2d):
    """A transposed convolution of stride 2 from side ceil(side / 2) to `side`: the mirror image of `Halve`."""

    def __init__(self, channels: int, out: int, kernel: int, side: int, bias: bool = True):
        super().__init__(channels, out, kernel, 2, bias=bias)
        surplus = (math.ceil(side / 2) - 1) * 2 + kernel - side
        self.first, self.side = surplus // 2, side
        if surplus % 2 == 0:
            self.padding, self.first = (surplus // 2, surplus // 2), None

    def forward(self, x: Tensor, output_size=None) -> Tensor:
        x = super().forward(x)
        if self.first is None:
            return x
        end = self.first + self.side
        return x[:, :, self.first : end, self.first : end]


def _sides(image_shape: tuple[int, int, int], table: str, wide: float, down_to: int) -> list[int]:
    """The picture's side and each half of it down to `down_to` or less. Raises UserError for what no table reads."""
    one_of("nets", table, TABLES)
    if finite("wide", wide, above=0) > 16:
        raise UserError(f"wide can be 16 at most, not {wide:g}")
    _, height, width = image_shape
    if height != width or not 16 <= height <= 128:
        raise UserError(f"MIX reads square pictures of 16 to 128 pixels, not {height}x{width}")
    sides = [height]
    while sides[-1] > down_to:
        sides.append(math.ceil(sides[-1] / 2))
    return sides


def _times(channels: list[int], wide: float) -> list[int]:
    return [max(2, round(n * wide)) for n in channels]


def _small_channels(halves: int, wide: float) -> list[int]:
    """Widths, outermost first: 128 inside, and half as many a layer further out."""
    return _times([128 // 2**i for i in reversed(range(halves))], wide)


def _paper_channels(halves: int, wide: float) -> list[int]:
    """Widths of the encoder, outermost first: with four halvings one layer of 512 is left out."""
    return _times([64, 128, 256, 512, 512, 512][:halves], wide)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False)


def encoder(image_shape: tuple[int, int, int], size: int, table: str = "small", wide: float = 1.0) -> nn.Sequential:
    """Pictures (N, C, H, H) -> codes (N, size). Raises UserError for a table or a size that does not exist."""
    last, layers = image_shape[0], []
    if table == "small":
        sides = _sides(image_shape, table, wide, 4)
        for side, out in zip(sides, _small_channels(len(sides) - 1, wide)):
            layers += [Halve(last, out, 4, side), nn.LeakyReLU(SLOPE)]
            last = out
        (hidden,) = _times([256], wide)
        layers += [nn.Flatten(), nn.Linear(last * sides[-1] ** 2, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, size)]
        return _he(nn.Sequential(*layers))
    sides = _sides(image_shape, table, wide, 2)
    for side, out in zip(sides, _paper_channels(len(sides) - 1, wide)):
        norm = nn.InstanceNorm2d(out, eps=1e-9)
        layers += [Halve(last, out, 4 if side > 8 else 2, side), norm, nn.LeakyReLU(SLOPE)]
        last = out
    layers += [nn.Flatten(), nn.Linear(last * sides[-1] ** 2, size), nn.LeakyReLU(SLOPE)]
    return _released(nn.Sequential(*layers))


def decoder(image_shape: tuple[int, int, int], size: int, table: str = "small", wide: float = 1.0) -> nn.Sequential:
    """Codes (N, size) -> pictures (N, C, H, H) in (-1, 1)."""
    layers: list[nn.Module]
    if table == "small":
        sides = _sides(image_shape, table, wide, 4)
        channels = _small_channels(len(sides) - 1, wide)
        last, (hidden,) = channels[-1], _times([256], wide)
        layers = [nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, last * sides[-1] ** 2), nn.ReLU()]
        layers += [nn.Unflatten(1, (last, sides[-1], sides[-1]))]
        for side, out in zip(reversed(sides[:-1]), [*reversed(channels[:-1]), image_shape[0]]):
            layers += [Double(last, out, 4, side), nn.ReLU()]
            last = out
        return _he(nn.Sequential(*layers[:-1], nn.Tanh()))
    sides = _sides(image_shape, table, wide, 4)
    channels = _times([512, 512, 256, 128, 64][-len(sides) :] if len(sides) > 4 else [512, 256, 128, 64], wide)
    layers = [nn.Unflatten(1, (size, 1, 1)), nn.ConvTranspose2d(size, channels[0], sides[-1], bias=False), nn.ReLU()]
    last = channels[0]
    for side, out in zip(reversed(sides[1:-1]), channels[1:]):
        layers += [Double(last, out, 3, side, bias=False), nn.InstanceNorm2d(out, eps=1e-9), nn.ReLU()]
        last = out
    layers += [Double(last, image_shape[0], 3, sides[0], bias=False), nn.Tanh()]
    return _released(nn.Sequential(*layers))


def discriminator(image_shape: tuple[int, int, int], table: str = "small", wide: float = 1.0) -> nn.Sequential:
    """Pictures (N, C, H, H) -> one logit (N, 1), high for real."""
    sides, last, layers = _sides(image_shape, table, wide, 4), image_shape[0], []
    widths = _small_channels(len(sides) - 1, wide) if table == "small" else _times([64, 128, 256], wide)
    for i, (side, out) in enumerate(zip(sides, widths)):
        norm = [_batch_norm(out)] if table == "paper" or i else []
        layers += [Halve(last, out, 4 if table == "small" else 3, side), *norm, nn.LeakyReLU(SLOPE)]
        last, end = out, math.ceil(side / 2)
    if table == "paper":
        (out,) = _times([512], wide)
        layers += [nn.Conv2d(last, out, 1), _batch_norm(out), nn.LeakyReLU(SLOPE)]
        last = out
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(last * end**2, 1))
    return _he(net) if table == "small" else _released(net)


def classifier(image_shape: tuple[int, int, int], n: int, table: str = "small", wide: float = 1.0) -> nn.Sequential:
    """Three pictures side by side in channels (N, 3 C, H, H) -> n logits (N, n), one per block."""
    last, layers = 3 * image_shape[0], []
    if table == "small":
        sides = _sides(image_shape, table, wide, 4)
        for side, out in zip(sides, _small_channels(len(sides) - 1, wide)):
            layers += [Halve(last, out, 4, side), _batch_norm(out), nn.ReLU()]
            last = out
        (hidden,) = _times([256], wide)
        layers += [nn.Flatten(), nn.Linear(last * sides[-1] ** 2, hidden), nn.ReLU(), nn.Linear(hidden, n)]
        return _he(nn.Sequential(*layers))
    side = _sides(image_shape, table, wide, 4)[0]
    stride = 2 if side >= 48 else 1
    a, b, c, fc = _times([96, 256, 384, 4096], wide)
    a, b, c = (2 * math.ceil(x / 2) for x in (a, b, c))  # the grouped convolutions need even widths
    end = (side - 8) // stride + 1
    for _ in range(3):
        end = (end - 3) // 2 + 1
    if end < 1:
        raise UserError(f"the paper's classifier needs pictures of 22 pixels or more, not {image_shape[1]}")
    layers = [nn.Conv2d(last, a, 8, stride), nn.ReLU(), _batch_norm(a), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(a, b, 5, padding=2, groups=2), nn.ReLU(), _batch_norm(b), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), _batch_norm(c)]
    layers += [nn.Conv2d(c, c, 3, padding=1, groups=2), nn.ReLU(), _batch_norm(c)]
    layers += [nn.Conv2d(c, b, 3, padding=1, groups=2), nn.ReLU(), _batch_norm(b), nn.MaxPool2d(3, 2)]
    layers += [nn.Flatten(), nn.Linear(b * end**2, fc), nn.ReLU(), nn.Linear(fc, fc), nn.ReLU(), nn.Linear(fc, n)]
    return _released(nn.Sequential(*layers))


def _he(net: nn.Sequential) -> nn.Sequential:
    """Weights that keep the scale of what passes through rectified layers; zero biases."""
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)
            if isinstance(layer, nn.ConvTranspose2d):  # its fan counts every tap, of which stride 2 lets a quarter meet
                fan = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1] / 4
                nn.init.normal_(layer.weight, std=(2 / fan) ** 0.5)
            nn.init.zeros_(layer.bias)
    return net


def _released(net: nn.Sequential) -> nn.Sequential:
    """Weights as in the released code: N(0, 0.01) in convolutions (cut off at two sigma), biases 0.01; N(0, 0.02) in
    transposed convolutions and linear layers, biases 0.02; N(1, 0.02) for a batch norm's scale. That the classifier
    starts so too is our assumption."""
    for layer in net:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.Conv2d):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
            nn.init.constant_(layer.bias, 0.01)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.constant_(layer.bias, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
    return net
