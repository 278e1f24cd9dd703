"""Networks of InfoGAN and InfoWGAN-GP: generator, the trunk that D and Q share, and their two heads.

Two tables. All convolutions are 4x4 with stride 2 and padding 1.

    "mnist"     the reference code of InfoGAN (openai/InfoGAN, infogan/models/regularized_gan.py), at 28 pixels:
                G      FC 1024, FC 7*7*128, up 64, up C; batch norm, then ReLU, after all but the last
                trunk  conv 64, conv 128, FC 1024; leaky ReLU (0.01), batch norm before it in all but the first
                heads  D: FC 1.  Q: FC 128, batch norm, leaky ReLU, FC codes
    "dsprites"  those of fjxmlzn/InfoGAN-CR for dSprites at 64 pixels, where the table of Kim & Mnih was not at hand:
                G      FC 128, FC 4*4*64, up 64, 32, 32, C; ReLU (leaky, 0.2, in the maps), then batch norm
                trunk  conv 32, 32, 64, 64, FC 128; leaky ReLU (0.2), spectral norm on every layer
                heads  D: FC 1, spectral norm.  Q: FC 128, leaky ReLU, FC codes

Other sizes: the first table keeps its two convolutions (7*7 becomes 8*8 at 32 pixels), the second leaves layers out
from the middle (32, 32, 64 at 32 pixels), so that its innermost map is always 4x4. Ours: Q's head has no spectral norm,
for bounded logits could not be sure of a category. Weights start as N(0, 0.02), in both reference codes, except where
nothing normalises (`norm=False`, the critic of WGAN-GP): there they are Glorot-uniform, our choice, or the first
critic would be nearly constant. G and the heads return logits or parameters.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from disentkit.errors import finite, one_of
from disentkit.nets.factorvae import CHANNELS, glorot

TABLES = ("mnist", "dsprites")


def _plan(image_shape: tuple[int, int, int], table: str, wide: float) -> tuple[list[int], int, int, float]:
    """Channels from the picture down to the innermost map, that map's side, the FC width, the slope of leaky ReLU."""
    one_of("nets", table, TABLES)
    finite("wide", wide, above=0)
    _, height, width = image_shape
    if table == "mnist":
        if height != width or height % 4:
            raise ValueError(f"nets 'mnist' read square pictures whose side 4 divides, not {height}x{width}")
        channels, side, fc, slope = [64, 128], height // 4, 1024, 0.01
    else:
        if height != width or height not in (8, 16, 32, 64):
            raise ValueError(f"nets 'dsprites' read square pictures of 8, 16, 32 or 64 pixels, not {height}x{width}")
        channels, side, fc, slope = [*CHANNELS[: height.bit_length() - 4], 64], 4, 128, 0.2
    return [_times(n, wide) for n in channels], side, _times(fc, wide), slope


def _times(n: int, wide: float) -> int:
    return max(1, round(n * wide))


def _small(layer: nn.Module) -> nn.Module:
    """Weights N(0, 0.02), or N(1, 0.02) for a batch norm's scale; zero biases."""
    scale = isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    nn.init.normal_(layer.weight, float(scale), 0.02)
    nn.init.zeros_(layer.bias)
    return layer


def generator(image_shape: tuple[int, int, int], d: int, table: str = "mnist", wide: float = 1.0) -> nn.Sequential:
    """Codes (N, d) -> logits (N, C, H, H). `wide` multiplies every inner width. Raises ValueError for other sizes."""
    channels, side, fc, slope = _plan(image_shape, table, wide)

    def after(norm: nn.Module, act: nn.Module) -> list[nn.Module]:
        return [_small(norm), act] if table == "mnist" else [act, _small(norm)]

    inner = side * side * channels[-1]
    layers = [_small(nn.Linear(d, fc)), *after(nn.BatchNorm1d(fc), nn.ReLU())]
    layers += [_small(nn.Linear(fc, inner)), *after(nn.BatchNorm1d(inner), nn.ReLU())]
    layers += [nn.Unflatten(1, (channels[-1], side, side))]
    last = channels[-1]
    for out in reversed(channels[:-1]):
        act = nn.ReLU() if table == "mnist" else nn.LeakyReLU(slope)
        layers += [_small(nn.ConvTranspose2d(last, out, 4, 2, 1)), *after(nn.BatchNorm2d(out), act)]  # doubles the side
        last = out
    return nn.Sequential(*layers, _small(nn.ConvTranspose2d(last, image_shape[0], 4, 2, 1)))


def trunk(
    image_shape: tuple[int, int, int], table: str = "mnist", wide: float = 1.0, norm: bool = True
) -> nn.Sequential:
    """Images (N, C, H, H) -> features (N, F). norm=False: a critic whose gradient is penalised, see `features`."""
    channels, side, fc, slope = _plan(image_shape, table, wide)
    layers: list[nn.Module] = []
    last = image_shape[0]
    for i, out in enumerate(channels):
        layers += [_spectral(_small(nn.Conv2d(last, out, 4, 2, 1)), table, norm)]  # halves the side
        layers += [_small(nn.BatchNorm2d(out))] if norm and table == "mnist" and i else []
        layers += [nn.LeakyReLU(slope)]
        last = out
    layers += [nn.Flatten(), _spectral(_small(nn.Linear(side * side * last, fc)), table, norm)]
    layers += [_small(nn.BatchNorm1d(fc))] if norm and table == "mnist" else []
    layers += [nn.LeakyReLU(slope)]
    net = nn.Sequential(*layers)
    return net if norm else glorot(net)


def head_D(image_shape: tuple[int, int, int], table: str = "mnist", wide: float = 1.0, norm: bool = True) -> nn.Module:
    """Features (N, F) -> one logit (N, 1), high for real; without `norm` it is the critic's value."""
    _, _, fc, _ = _plan(image_shape, table, wide)
    layer = _spectral(_small(nn.Linear(fc, 1)), table, norm)
    return layer if norm else glorot(layer)


def head_Q(
    image_shape: tuple[int, int, int], read: int, table: str = "mnist", wide: float = 1.0, norm: bool = True
) -> nn.Sequential:
    """Features (N, F) -> the parameters (N, read) of Q(c|x): logits of a category, means of continuous codes."""
    _, _, fc, slope = _plan(image_shape, table, wide)
    hidden = _times(128, wide)
    middle = [_small(nn.BatchNorm1d(hidden))] if norm and table == "mnist" else []
    net = nn.Sequential(
        _small(nn.Linear(fc, hidden)), *middle, nn.LeakyReLU(slope), _small(nn.Linear(hidden, read))
    )  # fmt: skip
    return net if norm else glorot(net)


def _spectral(layer: nn.Module, table: str, norm: bool) -> nn.Module:
    return spectral_norm(layer) if norm and table == "dsprites" else layer
