"""Networks of GZS-Net: an encoder and a decoder around a flat code.

Two tables, whose inner widths `wide` multiplies and whose linear layers have `fc` units. Pictures are square, of 16,
32, 64 or 128 pixels; the encoder takes them in [-1, 1], and what the decoder gives is brought there by the model.

    "paper"  the released code (`model_share.py`): StarGAN's generator, cut in the middle by linear layers. IN is
             instance norm with affine and without running statistics; convolutions have no bias
             encoder  conv 7x7 64, IN, ReLU; conv 4x4 128, 256, 256, 256 (stride 2), each IN, ReLU; residual block of
                      two conv 3x3 256; FC fc, ReLU; FC D
             decoder  FC fc, ReLU; FC to the encoder's last map; residual block; deconv 4x4 256, 256, 128, 64
                      (stride 2), each IN, ReLU; conv 7x7 C
             128 pixels and fc = 4096 for photographs, 64 and 512 for dSprites
    "small"  ours, for a CPU; normalises nothing, since instance norm takes away what a flat ground's colour is
             encoder  conv 4x4 32, 64, 128 down to 4x4 (at 64 pixels one more of 128, at 128 two), leaky ReLU 0.2;
                      FC fc, FC D
             decoder  the mirror image, ReLU
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from disentkit.errors import UserError, finite, one_of, whole

TABLES = ("paper", "small")
SIZES = (16, 32, 64, 128)
SLOPE = 0.2  # of leaky ReLU
MOST_FC = 16_384


class Residual(nn.Module):
    """x + conv-IN-ReLU-conv-IN, which keeps the shape."""

    def __init__(self, channels: int):
        super().__init__()
        conv = [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2)]
        self.body = nn.Sequential(conv[0], _norm(channels), nn.ReLU(), conv[1], _norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def encoder(image_shape: tuple[int, int, int], size: int, table: str, fc: int, wide: float = 1.0) -> nn.Sequential:
    """Pictures (N, C, H, H) in [-1, 1] -> codes (N, size). Raises UserError for a table or a size there is not."""
    widths, side = _widths(image_shape, table, fc, wide)
    layers: list[nn.Module] = []
    if table == "paper":
        last = widths[0]
        layers += [nn.Conv2d(image_shape[0], last, 7, padding=3, bias=False), _norm(last), nn.ReLU()]
        for out in widths[1:]:
            layers += [nn.Conv2d(last, out, 4, 2, 1, bias=False), _norm(out), nn.ReLU()]
            last = out
        layers += [Residual(last), nn.Flatten(), nn.Linear(last * side**2, fc), nn.ReLU(), nn.Linear(fc, size)]
        return nn.Sequential(*layers)
    last = image_shape[0]
    for out in widths:
        layers += [nn.Conv2d(last, out, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        last = out
    layers += [nn.Flatten(), nn.Linear(last * side**2, fc), nn.LeakyReLU(SLOPE), nn.Linear(fc, size)]
    return _he(nn.Sequential(*layers))


def decoder(image_shape: tuple[int, int, int], size: int, table: str, fc: int, wide: float = 1.0) -> nn.Sequential:
    """Codes (N, size) -> (N, C, H, H) without bounds: tanh or sigmoid makes pictures of it."""
    widths, side = _widths(image_shape, table, fc, wide)
    last = widths[-1]
    layers: list[nn.Module] = [nn.Linear(size, fc), nn.ReLU(), nn.Linear(fc, last * side**2)]
    if table == "paper":
        layers += [nn.Unflatten(1, (last, side, side)), Residual(last)]
        for out in reversed(widths[:-1]):
            layers += [nn.ConvTranspose2d(last, out, 4, 2, 1, bias=False), _norm(out), nn.ReLU()]
            last = out
        return nn.Sequential(*layers, nn.Conv2d(last, image_shape[0], 7, padding=3, bias=False))
    layers += [nn.ReLU(), nn.Unflatten(1, (last, side, side))]
    for out in [*reversed(widths[:-1]), image_shape[0]]:
        layers += [nn.ConvTranspose2d(last, out, 4, 2, 1), nn.ReLU()]
        last = out
    return _he(nn.Sequential(*layers[:-1]))


def _widths(image_shape: tuple[int, int, int], table: str, fc: int, wide: float) -> tuple[list[int], int]:
    """Channels, outermost first, and the side of the innermost map."""
    one_of("nets", table, TABLES)
    if finite("wide", wide, above=0) > 16:
        raise UserError(f"wide can be 16 at most, not {wide:g}")
    whole("fc", fc, 1, MOST_FC)
    _, height, side = image_shape
    if height != side or side not in SIZES:
        known = ", ".join(map(str, SIZES))
        raise UserError(f"GZS-Net's networks read square pictures of {known} pixels, not {height}x{side}")
    if table == "paper":
        if side < 32:  # instance norm has no meaning on a map of one pixel
            raise UserError(f"the paper's networks read pictures of 32 pixels or more, not {side}; take nets='small'")
        return [max(2, round(n * wide)) for n in (64, 128, 256, 256, 256)], side // 16
    halves = int(math.log2(side // 4))
    return [max(2, round(min(32 * 2**i, 128) * wide)) for i in range(halves)], 4


def _norm(channels: int) -> nn.InstanceNorm2d:
    # The released code keeps running statistics and never uses them: whoever calls eval() there gets other pictures.
    return nn.InstanceNorm2d(channels, affine=True)


def _he(net: nn.Sequential) -> nn.Sequential:
    """Weights that keep the scale of what passes through rectified layers; zero biases."""
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)
        elif isinstance(layer, nn.ConvTranspose2d):  # its fan counts every tap, of which stride 2 lets a quarter meet
            fan = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1] / 4
            nn.init.normal_(layer.weight, std=(2 / fan) ** 0.5)
        if getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias)
    return net
