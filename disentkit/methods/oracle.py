"""A generator whose directions are known: the ground truth for every method that looks for directions.

It is no network but a renderer with gradients: a disc in front of a sky and a ground with a fixed fine texture. Its
code z is Gaussian, (N, d), and each factor follows one hidden direction a_k of it:

    factor_k = middle_k + range_k erf(<z, a_k> / sqrt 2),     a_k orthonormal, drawn from `seed`

Under the prior every factor is then uniform on middle +- range, as x is in dSprites. Known are u* = a_k and
g(s) = range_k erf(s / sqrt 2), and no factor ever leaves its range. The texture stays where it is when the disc moves:
a shifted picture has no code that draws it, as with a real generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace

# name: (middle, range). x, y: the disc's centre, fraction of the side; zoom: ln(sqrt(pi) radius), half the ln of the
# disc's share of the pixels; brightness: added to every pixel; horizon: fraction of the height; texture: amplitude;
# colour and background: -1 ... 1 between two colours.
FACTORS = {
    "x": (0.5, 0.3),
    "y": (0.5, 0.3),
    "zoom": (math.log(0.14 * math.sqrt(math.pi)), 0.4),
    "brightness": (0.0, 0.2),
    "horizon": (0.5, 0.2),
    "texture": (0.06, 0.06),
    "colour": (0.0, 1.0),
    "background": (0.0, 1.0),
}
# (colour in the middle, change along the factor). With texture and brightness at their ends no pixel leaves 0 ... 1.
DISC = (0.78, 0.5, 0.5), (0.0, 0.25, -0.25)
SKY = (0.40, 0.48, 0.58), (0.08, 0.0, -0.08)
GROUND = (0.46, 0.40, 0.40), (0.08, 0.0, -0.08)

SOFT = 1 / 3  # how soft the disc's edge is: at the middle size and 64 pixels, a sigmoid of scale 1.5 pixels
EDGE = 1.5 / 64  # the horizon's sigmoid, as a fraction of the height
GRATINGS, FINEST, DENSEST = 8, 20, 5 / 16  # the texture: how many, and the most cycles per picture and per pixel


class OracleGenerator(nn.Module):
    """Codes (N, d) <-> pictures (N, 3, size, size) in [0, 1]: a model with a known u* and g for every factor.

    size  side of the pictures in pixels
    d     numbers in the code; all but eight directions of it change nothing
    tied  how closely the horizon follows y, in 0 ... 1: its direction is tied a_y + sqrt(1 - tied^2) a_horizon, which
          is a unit vector still. So <z, u_y> and <z, u_horizon> are correlated by `tied`, and an edit along u_y moves
          the horizon too. Every u* and g keeps its meaning; with 0 the directions are orthonormal
    seed  of the directions and of the texture

    Raises ValueError for fewer numbers than factors, sizes below 16, and tied outside 0 ... 1.
    """

    factors = tuple(FACTORS)
    directions: Tensor  # (K, d)

    def __init__(self, size: int = 64, d: int = 40, tied: float = 0.0, seed: int = 0):
        super().__init__()
        if size < 16:
            raise ValueError(f"the oracle draws pictures of 16 pixels or more, not {size}")
        if d < len(FACTORS):
            raise ValueError(f"d={d}: the oracle has {len(FACTORS)} factors and needs a code of as many numbers")
        if not 0 <= tied <= 1:
            raise ValueError(f"tied must lie in 0 ... 1, not {tied}")
        self.codes = CodeSpace([Block("z", "gaussian", (d,), inferred=False)])
        self.image_shape = (3, size, size)
        self.tied, self.seed = tied, seed
        rng = torch.Generator().manual_seed(seed)
        a = torch.linalg.qr(torch.randn(d, len(FACTORS), generator=rng, dtype=torch.float64))[0].T  # (K, d)
        y, horizon = self.factors.index("y"), self.factors.index("horizon")
        a[horizon] = tied * a[y] + math.sqrt(1 - tied**2) * a[horizon]
        middles, ranges = torch.tensor(list(FACTORS.values()), dtype=torch.float64).T
        places = (torch.arange(size, dtype=torch.float64) + 0.5) / size  # of the pixels' centres
        for name, values in {
            "directions": a,
            "middles": middles,
            "ranges": ranges,
            "places": places,
            "texture": texture(size, rng),
            "palette": torch.tensor([SKY, GROUND, DISC]).double(),  # (3, 2, channels)
        }.items():
            self.register_buffer(name, values.float())

    def __repr__(self) -> str:
        return (
            f"OracleGenerator({self.image_shape[1]} pixels, d={self.codes.size}, tied={self.tied:g}, seed={self.seed})"
        )

    # ---- what is known

    def u(self, name: str) -> Tensor:
        """The unit direction (d,) of a factor."""
        return self.directions[self.factors.index(self._known(name))]

    def g(self, name: str, s: Tensor | float) -> Tensor:
        """The change of a factor from its middle, in its unit, where <z, u> is s; of the same shape, g(0) = 0."""
        return self._range(name) * torch.erf(torch.as_tensor(s, dtype=torch.float32) / math.sqrt(2))

    def inverse(self, name: str, t: Tensor | float) -> Tensor:
        """s with g(s) = t; infinite at the ends of the factor's range, NaN beyond them."""
        return math.sqrt(2) * torch.erfinv(torch.as_tensor(t, dtype=torch.float32) / self._range(name))

    def factor_values(self, codes: Tensor) -> Tensor:
        """The factors (N, K) of codes (N, d), a column per name of `factors`.

        x, y and zoom are what the exact mask measures, brightness is what is added to every pixel (0 in the middle):
        the mean of the picture changes by it, but holds the colours too.
        """
        return self.middles + self.ranges * torch.erf(codes @ self.directions.T / math.sqrt(2))

    # ---- the picture

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n codes (n, d) from N(0, 1)."""
        return self.codes.prior(n, rng)

    def mask(self, codes: Tensor) -> Tensor:
        """The disc's soft mask, (N, 1, H, W) in [0, 1], of codes (N, d)."""
        return self._mask(self.factor_values(codes))

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1] of codes (N, d), with gradients."""
        values = self.factor_values(codes)
        brightness, horizon, amplitude, colour, background = values[:, 3:, None, None].unbind(1)  # (N, 1, 1)
        sky, ground, disc = (
            middle[:, None] + along * change[:, None] + brightness
            for (middle, change), along in zip(self.palette, (background, background, colour), strict=True)
        )  # (N, 3, 1)
        below = torch.sigmoid((self.places - horizon) / EDGE)  # (N, 1, H)
        rows = torch.lerp(sky, ground, below)  # (N, 3, H)
        behind = rows[..., None] + (amplitude * self.texture)[:, None]  # (N, 3, H, W)
        return torch.lerp(behind, disc[..., None], self._mask(values))

    def _mask(self, values: Tensor) -> Tensor:
        """sigmoid((1 - distance^2 / rho^2) / SOFT), whose area is that of a sharp disc of the radius asked for.

        In the squared distance the picture's rows and columns separate; and as the edge grows with the disc, a zoomed
        disc is a disc again, with exp(2 t) times its area.
        """
        x, y, zoom = values[:, :3].unbind(1)  # (N,)
        # The area is pi rho^2 SOFT softplus(1 / SOFT), and it must be exp(2 zoom).
        area = math.pi * SOFT * math.log1p(math.exp(1 / SOFT))
        scale = (area / SOFT * torch.exp(-2 * zoom))[:, None]  # 1 / (SOFT rho^2), (N, 1)
        across = scale * (self.places - x[:, None]).square()  # (N, W)
        down = 1 / SOFT - scale * (self.places - y[:, None]).square()  # (N, H)
        return torch.sigmoid(down[:, :, None] - across[:, None, :]).unsqueeze(1)

    def _known(self, name: str) -> str:
        if name not in FACTORS:
            raise ValueError(f"no factor '{name}'; the oracle has {', '.join(FACTORS)}")
        return name

    def _range(self, name: str) -> float:
        return FACTORS[self._known(name)][1]


def texture(size: int, rng: torch.Generator) -> Tensor:
    """A fixed pattern (size, size) in -1 ... 1 with mean zero: gratings of random direction, frequency and phase.

    Wavelengths lie within one octave, at 64 pixels between 3.2 and 6.4. Whole numbers of cycles fit into the picture,
    which makes the mean zero.
    """
    turn, fine, phase = torch.rand(3, GRATINGS, 1, 1, generator=rng, dtype=torch.float64)
    cycles = min(FINEST, DENSEST * size) * (0.5 + 0.5 * fine)
    across, down = ((cycles * wave(math.pi * turn)).round() for wave in (torch.cos, torch.sin))
    places = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    pattern = torch.cos(2 * math.pi * (across * places + down * places[:, None] + phase)).sum(0)
    return pattern / pattern.abs().max()
