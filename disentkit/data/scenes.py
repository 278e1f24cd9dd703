"""Scenes: one flat object before sky and ground, made for directions along which a picture changes by degrees.

Place, size and brightness are real-valued and can be measured in a picture again, in the units in which a model is
asked to move them, so how far a direction reaches and what else it moves has a true answer. The fine noise of the
ground carries no meaning: another pattern weighs a quarter as much in a squared error as a move by a tenth of the
width, and next to nothing once both are blurred. The planted confounder is the law `Tied("y", "horizon", rho)`: at rho
above 0 objects that stand low in the picture tend to come with a low horizon, and a direction of `y` that was learned
from such pictures is tempted to carry the horizon along. At rho 0 all factors are independent.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from disentkit.data.base import Data, Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Correlated, Real
from disentkit.errors import UserError

SIZES = (64, 32, 128)
GRAINS = 32


def _steps(first: int, last: int, by: int) -> tuple[float, ...]:
    """Hundredths from first to last."""
    return tuple(i / 100 for i in range(first, last + 1, by))


# Points, inner radius over outer radius, and radius of the rounding over outer radius: a polygon is a star whose inner
# corners lie on the sides. The last number turns it, in points.
SHAPES = {
    "disc": (4, 0.0, 1.0, 0.0),
    "square": (4, 0.5**0.5, 0.1, 0.5),
    "triangle": (3, 0.5, 0.22, 0.0),
    "star": (5, 0.55, 0.06, 0.0),
}

# Sky at the top and at the horizon, ground at the horizon and at the bottom, as 0xRRGGBB.
BACKGROUNDS = {
    "meadow": (0x5B9BD5, 0xCFE6F5, 0x8DB46A, 0x4E7B3C),
    "desert": (0x86B4CF, 0xF7E3BE, 0xDABA84, 0xB3814B),
    "dusk": (0x3A3766, 0xF0A183, 0x6B5468, 0x382F45),
    "snow": (0x8496A8, 0xBCC7D1, 0xD6D9DA, 0xABB8C6),
}

SPACE = FactorSpace(
    [
        category("shape", *SHAPES),
        Factor("x", "real", _steps(25, 75, 5)),
        Factor("y", "real", _steps(25, 75, 5)),
        Factor("scale", "real", _steps(16, 36, 2)),
        Factor("hue", "cyclic", tuple(i / 24 for i in range(24))),
        category("background", *BACKGROUNDS),
        Factor("horizon", "real", _steps(35, 75, 5)),
        Factor("light", "real", _steps(55, 100, 5)),
        category("grain", *map(str, range(GRAINS))),
    ]
)

SOFT = 1 / 24  # width of the horizon's edge, in picture heights
GRAIN = 0.1  # the noise's standard deviation times sqrt(3): as if it were uniform within that
RIM = 0.02  # of the object, in picture widths
DARK, SHADE = 0.35, 0.25  # the rim's share of the object's colour; how much darker the object is on its lower right


@dataclass(frozen=True)
class Tied(Correlated):
    """Real-valued factors, but with probability `strength` factor `b` sits at the same relative place on its axis as
    `a`: their correlation is `strength`.

    Categories are uniform; other real and cyclic factors are uniform between their ends, as by the law `Real`. Raises
    ValueError for a strength outside 0 ... 1, and when drawing for a category or a factor that is not there.
    """

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        values = Real().draw(space, n, rng)
        a = space.index(self.a)
        other, tied = self.partners(space, a, values[:, a], rng)
        values[:, other] = tied
        return values

    def partners(self, space: FactorSpace, k: int, values: Tensor, rng: torch.Generator) -> tuple[int, Tensor] | None:
        """Where factor k is one of the two: the other's column, and draws of it (n,) given values (n,) of k."""
        pair = [space.index(self.a), space.index(self.b)]
        for f in (space[self.a], space[self.b]):
            if f.kind == "category":
                raise ValueError(f"'{f.name}' is a category: only real and cyclic factors can be tied")
        if k not in pair:
            return None
        mine, other = space.factors[k], pair[1] if k == pair[0] else pair[0]
        toss, place = torch.rand(2, len(values), generator=rng, device=rng.device)
        place = torch.where(toss < self.strength, (values - mine.low) / ((mine.high - mine.low) or 1.0), place)
        theirs = space.factors[other]
        return other, theirs.low + (theirs.high - theirs.low) * place


class Scenes(Renderer):
    """An object before sky and ground, drawn in batches on any device, with any value between grid points.

    size  64, 32 or 128 pixels
    law   how factor tuples are drawn; `Real()` without one, for the grid's values are only marks on an axis

    Raises UserError for another size.

    x, y        the object's barycentre as a fraction of the width, from the left, and of the height, from above
    scale       the diameter of a disc of the same area, as a fraction of the width: a star has as many pixels as a disc
    hue         the object's colour, once around
    horizon     its height as a fraction of the picture's, from above
    light       multiplies the whole picture
    grain       one of 32 patterns of noise on the ground. Each size has its own, as fine as its pixels allow

    The object is always whole and in front. All edges are smooth: a pixel's share of the object falls linearly over one
    pixel across the outline, and the horizon is softer.
    """

    name = "scenes"
    space = SPACE

    def __init__(self, size: int = 64, law=None):
        if type(size) is not int or size not in SIZES:
            raise UserError(f"scenes come in 64, 32 and 128 pixels, not {size!r}")
        self.size = size
        self.image_shape = (3, size, size)
        self.law = Real() if law is None else law
        self._tables: dict[torch.device, _Tables] = {}

    def __repr__(self) -> str:
        return f"Scenes({self.size} pixels, {self.law})"

    def __getstate__(self) -> dict:  # the tables are made again
        return self.__dict__ | {"_tables": {}}

    def fingerprint(self) -> str:
        # What the law draws and the measures of the scene, not pictures: their pixels are real-valued, and some of them
        # would be rounded to another level on another machine.
        drawn = self.law.draw(self.space, 200, torch.Generator().manual_seed(0))
        measures = repr((SHAPES, BACKGROUNDS, SOFT, GRAIN, RIM, DARK, SHADE))
        digest = hashlib.sha256(drawn.numpy().tobytes() + measures.encode())
        return f"{Data.fingerprint(self)} {digest.hexdigest()[:16]}"

    def render(self, values: Tensor) -> Tensor:
        """Images (n, 3, size, size) float32 in [0, 1] of values (n, 9), in the order of `space`.

        Hue goes around (1 is 0). Other values beyond their range are drawn at its end and a category as the nearest
        one: a check would read them back to the host, so it stays with whoever takes values from outside
        (`space.check`). Raises ValueError for another number of columns.
        """
        tables, pieces = self._pieces(values)
        return torch.cat([_draw(piece, tables) for piece in pieces])

    def mask(self, values: Tensor) -> Tensor:
        """How much of each pixel the object covers, (n, 1, size, size) float32 in [0, 1], of values as `render`."""
        tables, pieces = self._pieces(values)
        return torch.cat([_cover(_outline(piece, tables)[0], tables)[:, None] for piece in pieces])

    def _pieces(self, values: Tensor) -> tuple[_Tables, tuple[Tensor, ...]]:
        """Constants on the values' device, and values within their ranges in pieces."""
        if values.ndim != 2 or values.shape[1] != len(self.space):
            raise ValueError(f"factors must be (n, 9) for {', '.join(self.space.names)}, not {tuple(values.shape)}")
        if values.device not in self._tables:
            self._tables[values.device] = _Tables(self.size, values.device)
        tables = self._tables[values.device]
        values = torch.minimum(torch.maximum(values.float(), tables.low), tables.high)
        # On a CPU so many that what is in the works stays in its cache.
        count = max(1, 16 * 64**2 // self.size**2) if values.device.type == "cpu" else 1024
        return tables, values.split(count)


class _Tables:
    """Constants on a device."""

    def __init__(self, size: int, device):
        self.size = size
        self.centres = (torch.arange(size, device=device) + 0.5) / size  # of pixels, in picture widths
        ends = [(-math.inf, math.inf) if f.kind == "cyclic" else (f.low, f.high) for f in SPACE]
        self.low, self.high = torch.tensor(ends, device=device).T
        self.shapes = torch.tensor([_measures(*shape) for shape in SHAPES.values()], device=device)
        rows = [[(c >> shift & 255) / 255 for shift in (16, 8, 0)] for row in BACKGROUNDS.values() for c in row]
        self.colours = torch.tensor(rows, device=device).view(len(BACKGROUNDS), 4, 3)
        self.noise = _noise(size).to(device)
        self.primaries = torch.tensor((0.0, 4.0, 2.0), device=device)

    def rgb(self, hue: Tensor) -> Tensor:
        """Colours (n, 3, 1, 1) of hues (n,): strong, but not pure."""
        pure = (((hue[:, None] * 6 + self.primaries) % 6 - 3).abs() - 1).clamp(0, 1)
        return (0.1 + 0.85 * pure)[:, :, None, None]


def _noise(size: int) -> Tensor:
    """The ground's patterns (GRAINS, size, size): noise without its low frequencies, and without its mean."""
    rng = torch.Generator().manual_seed(2105)
    white = torch.rand(GRAINS, 1, size, size, generator=rng, device="cpu")
    smooth = F.avg_pool2d(F.pad(white, (2, 2, 2, 2), mode="circular"), 5, stride=1)
    fine = (white - smooth)[:, 0]
    return fine * (GRAIN / math.sqrt(3) / fine.std((1, 2), keepdim=True))


def _measures(points: int, inner: float, rounding: float, turn: float) -> tuple[float, ...]:
    """A shape with the area of a disc of diameter 1: the angle of half a point, the outer corner, the inner corner's
    place along and across the point, radius of the rounding, turn in radians."""
    half = math.pi / points
    along, across = inner * math.cos(half), inner * math.sin(half)
    if inner == 0:
        outer, area = 0.0, math.pi * rounding**2
    else:
        # A rounded shape is all that lies closer to the star than the rounding. Beside the star itself that are strips
        # along its sides, sectors at the points, which turn by a full circle and what the inner corners turn back, and
        # less what two strips share at the inner corners.
        outer, side = 1.0, math.hypot(1 - along, across)
        back = math.pi - 2 * (half + math.atan2(across, 1 - along))  # at each inner corner; 0 in a polygon
        area = points * (inner * math.sin(half) + 2 * side * rounding)
        area += rounding**2 * (math.pi + points * (back / 2 - math.tan(back / 2)))
    unit = math.sqrt(math.pi / 4 / area)
    return half, outer * unit, along * unit, across * unit, rounding * unit, turn * 2 * half


def _outline(values: Tensor, tables: _Tables) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (n, size, size) to the object's outline, negative inside, and the pixels' places from its centre, to
    the right (n, 1, size) and down (n, size, 1); all in picture widths."""
    half, outer, along, across, rounding, turn = tables.shapes[_index(values[:, 0])].T[:, :, None, None]
    scale = values[:, 3, None, None]
    right, down = (tables.centres - values[:, 1, None])[:, None], (tables.centres - values[:, 2, None])[:, :, None]
    # Each point of the star is folded onto its half: then the outline is one straight line from tip to inner corner.
    far = (right.square() + down.square()).sqrt()
    angle = ((torch.atan2(right, -down) + (turn + half)) % (2 * half) - half).abs()
    u, v = far * angle.cos() - outer * scale, far * angle.sin()  # from the tip, along the point and across it
    du, dv = (along - outer) * scale, across * scale  # the line
    square = (du.square() + dv.square()).clamp(min=1e-12)
    place = (u * (du / square) + v * (dv / square)).clamp(0, 1)
    away = ((u - place * du).square() + (v - place * dv).square()).sqrt()
    return torch.where(u * dv < v * du, -away, away) - rounding * scale, right, down


def _cover(distance: Tensor, tables: _Tables) -> Tensor:
    return (0.5 - tables.size * distance).clamp_(0, 1)


def _draw(values: Tensor, tables: _Tables) -> Tensor:
    """Images (n, 3, size, size) of values (n, 9)."""
    image = _backdrop(values, tables)
    distance, right, down = _outline(values, tables)
    shade = 1 - SHADE * (0.5 + (right + down) / (2 * values[:, 3, None, None])).clamp_(0, 1)
    shade *= 1 - (1 - DARK) * _cover(-RIM - distance, tables)
    image.lerp_(tables.rgb(values[:, 4]) * shade[:, None], _cover(distance, tables)[:, None])
    return image.mul_(values[:, 7, None, None, None])


def _backdrop(values: Tensor, tables: _Tables) -> Tensor:
    """Sky and ground in full light, (n, 3, size, size)."""
    horizon, row = values[:, 6, None, None], tables.centres
    top, low, far, near = tables.colours[_index(values[:, 5])][:, :, :, None].unbind(1)  # each (n, 3, 1)
    sky = torch.lerp(top, low, (row / horizon).clamp(max=1))
    ground = torch.lerp(far, near, ((row - horizon) / (1 - horizon)).clamp(min=0))
    part = ((row - horizon) / SOFT + 0.5).clamp(0, 1)  # (n, 1, size): the ground's
    grain = part[:, 0, :, None] * tables.noise[_index(values[:, 8])]
    return torch.lerp(sky, ground, part)[..., None] + grain[:, None]


def _index(column: Tensor) -> Tensor:
    return column.round().long()


def load(size: int = 64, rho: float = 0.0) -> Scenes:
    """The scenes with independent factors, or with `y` and `horizon` correlated by rho (0 ... 1).

    Raises UserError for another size or rho.
    """
    if isinstance(rho, bool) or not isinstance(rho, (int, float)) or not 0 <= rho <= 1:
        raise UserError(f"rho must be a number in 0 ... 1, not {rho!r}")
    return Scenes(size, Tied("y", "horizon", rho) if rho else Real())
