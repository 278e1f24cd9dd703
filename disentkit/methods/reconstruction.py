"""How far a picture is from its target: errors (x, target, mask) -> (n,), and why squared error blurs.

Pictures and targets are (n, C, H, W) in [0, 1], masks (n, 1, H, W), 1 where the target is defined. Every error is a
mean over pixels and channels divided by the mean of the mask, one number per row, and has gradients.

The default is that of Plumerault et al. (ICLR 2020, section 2.1): the difference seen through a Gaussian. A generator's
few numbers cannot say where each hair lies. Squared error asks for it all the same, and the best answer to a detail of
unknown phase is none (`best_amplitude`). Seen through the Gaussian, detail costs nothing, so it stays: blurring the
loss keeps the pictures sharp.

Other than in the official code, whose kernel has an even size (18 for sigma 3), an effective standard deviation of 2.81
and a sum of 6.69: here the size is odd, the sum one and sigma as stated. With pictures in [0, 1] errors are 1/180 of
theirs. The mask is laid on before the blur as well as after it, so that undefined pixels cannot leak into the valid
area.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from disentkit.errors import UserError
from disentkit.methods.transforms import GREY

Error = Callable[[Tensor, Tensor, Tensor], Tensor]
WINDOW, K1, K2 = 1.5, 0.01, 0.03  # of SSIM: the window's standard deviation in pixels, and its constants


class Filtered:
    """The squared error seen through a Gaussian of standard deviation `sigma` pixels: `filtered_error` at one sigma."""

    def __init__(self, sigma: float):
        if not (math.isfinite(sigma) and sigma >= 0):
            raise ValueError(f"sigma must be a finite number of pixels of 0 or more, not {sigma!r}")
        self.sigma = float(sigma)

    def __repr__(self) -> str:
        return f"Filtered({self.sigma:g} pixels)"

    def __call__(self, x: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return filtered_error(x, target, mask, self.sigma)


def filtered_error(x: Tensor, target: Tensor, mask: Tensor, sigma: float) -> Tensor:
    """mean[(m k * (m (x - target)))^2] / mean[m] per row, (n,); `*` convolves with a Gaussian of `sigma` pixels.

    The kernel is separable, has the odd size 2 ceil(3 sigma) + 1 and unit sum, and outside the picture the difference
    is 0. With sigma 0 it is the masked squared error. NaN where no pixel is defined.
    """
    _check(x, target, mask)
    return _masked_mean((mask * blur(mask * (x - target), sigma)).square(), mask)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Pictures (..., H, W) convolved with the Gaussian of `sigma` pixels, 0 outside the picture."""
    if sigma == 0:
        return x
    down, across = (_band(size, sigma, x.device, x.dtype) for size in x.shape[-2:])
    return down @ (x @ across)


@lru_cache(maxsize=64)
def _band(size: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The convolution of a line as a symmetric matrix (size, size): on a CPU faster than a depthwise convolution."""
    return gaussian_band(size, sigma).to(device, dtype)


def gaussian_band(size: int, sigma: float) -> Tensor:
    """(size, size) float64: entry (i, j) is the unit-sum kernel of `sigma` at i - j, and 0 beyond ceil(3 sigma)."""
    reach = math.ceil(3 * sigma)
    kernel = (-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    apart = torch.arange(size)[:, None] - torch.arange(size) + reach
    inside = (apart >= 0) & (apart <= 2 * reach)
    return torch.where(inside, kernel[apart.clamp(0, 2 * reach)], 0.0)


def gain(sigma, wavelength):
    """What a Gaussian of `sigma` pixels leaves of the amplitude at a wavelength in pixels; numbers, arrays or tensors.

    exp(-(2 pi sigma / L)^2 / 2): half at L = 5.34 sigma. The error holds its square.
    """
    return math.e ** (-((2 * math.pi * sigma / wavelength) ** 2) / 2)


def ssim_error(x: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - SSIM per row, (n,): the structural similarity of Wang, Bovik, Sheikh and Simoncelli (2004, eq. 13).

    Their Gaussian window of 11x11 and sigma 1.5, K1 = 0.01, K2 = 0.03, each channel by itself. A window weighs defined
    pixels only, its weights summing to one, and so it is at the border, where they leave windows out.
    """
    _check(x, target, mask)
    weight = blur(mask, WINDOW).clamp(min=1e-6)  # (n, 1, H, W)
    both = torch.stack([x, target, x * x, target * target, x * target])  # (5, n, C, H, W)
    a, b, aa, bb, ab = (blur(mask * both, WINDOW) / weight).unbind()  # the windows' moments
    c1, c2 = K1**2, K2**2
    means = (2 * a * b + c1) / (a * a + b * b + c1)
    spreads = (2 * (ab - a * b) + c2) / ((aa - a * a) + (bb - b * b) + c2)
    return _masked_mean(mask * (1 - means * spreads), mask)


class Features:
    """The distance of two pictures in the eyes of a judge: the squared difference of its maps. It is not LPIPS.

    network  a `disentkit.judges.Judge`, or an nn.Sequential of convolutions with ReLUs
    layers   so many maps, those after the first ReLUs

    At each position the channels are divided by their length, as in LPIPS (Zhang et al. 2018, eq. 1), but every channel
    weighs the same: no person was asked. Undefined pixels are mid-grey in both pictures. The network is copied, frozen
    and in eval mode. Raises ValueError for a network with fewer maps.
    """

    def __init__(self, network: nn.Module, layers: int = 3):
        network = getattr(network, "net", network)
        self.parts: list[nn.Sequential] = []
        part: list[nn.Module] = []
        for module in network.children():
            if len(self.parts) == layers or isinstance(module, (nn.Flatten, nn.Linear)):
                break
            part.append(copy.deepcopy(module))
            if isinstance(module, nn.ReLU):
                self.parts.append(nn.Sequential(*part).eval().requires_grad_(False))
                part = []
        if not 1 <= layers <= len(self.parts):
            raise ValueError(f"layers={layers}: this network has {len(self.parts)} maps after a ReLU")

    def __repr__(self) -> str:
        return f"Features(judge's features, {len(self.parts)} layers)"

    def __call__(self, x: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        _check(x, target, mask)
        a = torch.cat([_greyed(x, mask), _greyed(target, mask)])  # (2 n, C, H, W)
        total = torch.zeros(len(x), device=x.device)
        for part in self.parts:
            a = part.to(x.device)(a)
            # 1e-6 and not LPIPS's 1e-10: where no channel answers, that gave gradients without bound.
            f, g = (a * (a.square().sum(1, keepdim=True) + 1e-6).rsqrt()).chunk(2)
            total = total + (f - g).square().sum(1).mean((1, 2))
        return total / len(self.parts) / mask.mean((1, 2, 3))


def lpips_error(net: str = "alex") -> Error:
    """LPIPS (Zhang et al. 2018) by the package `lpips`, on pictures in [-1, 1] that are mid-grey where undefined.

    Its networks' weights are fetched at the first use. Raises UserError where the package is not installed.
    """
    try:
        import lpips
    except ImportError:
        raise UserError("LPIPS needs the package lpips: pip install lpips; or take Features of a judge") from None
    network = lpips.LPIPS(net=net, verbose=False).eval().requires_grad_(False)

    def error(x: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        _check(x, target, mask)
        a, b = (2 * _greyed(p, mask).expand(-1, 3, -1, -1) - 1 for p in (x, target))  # one channel is shown as grey
        return network.to(x.device)(a, b).flatten(1).mean(1) / mask.mean((1, 2, 3))

    return error


# The errors that a setting can name: each is built for a sigma in pixels, which only the filtered one has.
LOSSES: dict[str, Callable[[float], Error]] = {"filtered": Filtered, "ssim": lambda sigma: ssim_error}


# ---- why squared error blurs


def radial_spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """The power of pictures (n, C, H, W) at each spatial frequency, both (K,): cycles per pixel, and power.

    A mean over pictures, channels and directions, in rings one cycle per picture wide, from 1 to half the shorter side;
    the wavelength in pixels is 1 / frequency. Each picture loses its mean and gets a Hann window, so that its borders,
    which do not meet, put no edge into the spectrum. White noise has its variance at every frequency.
    """
    height, width = x.shape[-2:]
    window = torch.outer(*(torch.hann_window(size, device=x.device) for size in (height, width)))
    window = window / window.square().mean().sqrt()
    x = x - x.mean((2, 3), keepdim=True)
    power = torch.fft.fft2(x * window).abs().square().mean((0, 1)) / (height * width)  # (H, W)
    down, across = (torch.fft.fftfreq(size, device=x.device) for size in (height, width))
    side = min(height, width)
    ring = (torch.hypot(down[:, None], across) * side).round().long().flatten()
    sums, counts = (
        torch.zeros(int(ring.max()) + 1, device=x.device).index_add(0, ring, values)
        for values in (power.flatten(), torch.ones_like(power).flatten())
    )
    rings = torch.arange(1, side // 2 + 1, device=x.device)
    return rings / side, (sums / counts)[rings]


def best_amplitude(amplitude, rho):
    """The amplitude of least squared error, A max(0, rho); numbers, arrays or tensors.

    The target is A exp(i theta), the output has a phase error psi with rho = E cos(psi):
    E |A e^(i theta) - a e^(i theta')|^2 = A^2 + a^2 - 2 A a rho. A phase out of reach has rho 0: no detail is best.
    """
    return amplitude * (rho + abs(rho)) / 2


# ---- parts


def _check(x: Tensor, target: Tensor, mask: Tensor) -> None:
    if x.ndim != 4 or target.shape != x.shape or mask.shape != (len(x), 1, *x.shape[2:]):
        raise ValueError(
            f"pictures (n, C, H, W), targets alike and masks (n, 1, H, W) are compared, "
            f"not {tuple(x.shape)}, {tuple(target.shape)} and {tuple(mask.shape)}"
        )


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean (n,) of values (n, C, H, W) that are 0 where the mask is, divided by the mean of the mask."""
    return values.mean((1, 2, 3)) / mask.mean((1, 2, 3))


def _greyed(x: Tensor, mask: Tensor) -> Tensor:
    """Pictures with mid-grey where they are not to be compared."""
    return GREY + mask * (x - GREY)
