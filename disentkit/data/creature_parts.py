"""What the toys of `creatures` are made of: solids that rays meet, and what is painted on them, faces above all.

A toy faces -y, towards the camera of pose 0; x points right as seen from there and z up, and the ground is z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from disentkit.data import raycast
from disentkit.data.raycast import Interval, Rays

Vector = tuple[float, float, float]

# ---- solids


@dataclass(frozen=True)
class Part:
    """A solid: one of `SHAPES` moved, turned and stretched.

    centre, axes  the point and the three vectors to which the unit shape's middle and its unit vectors go
    colours       0xrrggbb; the first is the solid's own, the others its paint's
    paint         a name in `PAINTS`
    """

    shape: str
    centre: Vector
    axes: tuple[Vector, Vector, Vector]
    colours: tuple[int, ...]
    paint: str = "plain"

    @property
    def reach(self) -> float:
        """Radius of a ball around the centre that holds the solid."""
        a, b, c = (math.hypot(*axis) for axis in self.axes)
        if self.shape == "ball":
            return max(a, b, c)
        return math.hypot(a, b, c) if self.shape == "box" else math.hypot(max(a, b), c)


def _bowl(rays: Rays) -> Interval:
    """Inside the endless paraboloid x^2 + y^2 = (1 - z) / 2."""
    (ox, oy, oz), (dx, dy, dz) = rays.origin, rays.direction
    a, b, c = dx * dx + dy * dy + 1e-9, ox * dx + oy * dy + dz / 4, ox * ox + oy * oy - (1 - oz) / 2
    root = (b * b - a * c).clamp(min=0).sqrt()
    return (-b - root) / a, (root - b) / a


def _between(rays: Rays, *axes: int) -> Interval:
    return raycast.both(*(raycast.slab(rays.origin[k], rays.direction[k], -1.0, 1.0) for k in axes))


# Where rays are inside the unit shapes, all of them between -1 and 1 along each axis: a ball, a cube, a cylinder along
# z, and a bowl upside down with its rim at z = -1 and its tip at z = 1.
SHAPES: dict[str, Callable[[Rays], Interval]] = {
    "ball": lambda rays: raycast.ball(rays, 0.0, 1.0),
    "box": lambda rays: _between(rays, 0, 1, 2),
    "drum": lambda rays: raycast.both(raycast.tube(rays, 1.0), _between(rays, 2)),
    "horn": lambda rays: raycast.both(_bowl(rays), _between(rays, 2)),
}


def normals(shape: str, points: Tensor) -> Tensor:
    """Outward normals (m, 3), of any length, at points (m, 3) of a unit shape's surface."""
    x, y, z = points.unbind(1)
    if shape == "ball":
        return points
    if shape == "box":
        furthest = points.abs().argmax(1, keepdim=True)
        return torch.zeros_like(points).scatter(1, furthest, points.gather(1, furthest).sign())
    nil, side = torch.zeros_like(x), x * x + y * y
    if shape == "drum":
        end, round_ = z.abs() > 1 - 1e-3, torch.stack([x, y, nil], 1)
        lid = torch.stack([nil, nil, z.sign()], 1)
    else:
        end, round_ = (z < -1 + 1e-3) & (side < 0.995), torch.stack([2 * x, 2 * y, nil + 0.5], 1)
        lid = torch.stack([nil, nil, nil - 1], 1)
    return torch.where(end[:, None], lid, round_)


def _upright(shape: str, centre: Vector, radii: Vector, *colours: int, paint: str = "plain") -> Part:
    a, b, c = radii
    return Part(shape, centre, ((a, 0.0, 0.0), (0.0, b, 0.0), (0.0, 0.0, c)), colours, paint)


def ball(centre: Vector, radii: Vector, *colours: int, paint: str = "plain") -> Part:
    """An upright ellipsoid."""
    return _upright("ball", centre, radii, *colours, paint=paint)


def box(centre: Vector, halves: Vector, *colours: int, paint: str = "plain") -> Part:
    """An upright box, by half its sides."""
    return _upright("box", centre, halves, *colours, paint=paint)


def _along(
    shape: str, start: Vector, end: Vector, radius: float, *colours: int, flat: float = 1.0, paint: str = "plain"
) -> Part:
    """A solid whose z axis runs from `start` to `end`, `radius` wide across and `flat` times that in depth."""
    way = [(b - a) / 2 for a, b in zip(start, end, strict=True)]
    long = math.hypot(*way)
    z = [w / long for w in way]
    x = (1.0, 0.0, 0.0) if abs(z[1]) > 0.99 else (z[2], 0.0, -z[0])  # across, level in depth
    x = [v / math.hypot(*x) for v in x]
    y = (z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0])
    axes = tuple(v * radius for v in x), tuple(v * radius * flat for v in y), tuple(way)
    return Part(shape, tuple(a + w for a, w in zip(start, way, strict=True)), axes, colours, paint)


def limb(start: Vector, end: Vector, radius: float, *colours: int, flat: float = 1.0, paint: str = "plain") -> Part:
    """A long ellipsoid from tip to tip."""
    return _along("ball", start, end, radius, *colours, flat=flat, paint=paint)


def rod(start: Vector, end: Vector, radius: float, *colours: int, paint: str = "plain") -> Part:
    """A cylinder."""
    return _along("drum", start, end, radius, *colours, paint=paint)


def horn(base: Vector, tip: Vector, radius: float, *colours: int, flat: float = 1.0) -> Part:
    """A blunt cone."""
    return _along("horn", base, tip, radius, *colours, flat=flat)


def pairs(*parts: Part) -> list[Part]:
    """Parts and their mirror images on the other side."""

    def turned(vector: Vector) -> Vector:
        return -vector[0], vector[1], vector[2]

    mirrored = [replace(p, centre=turned(p.centre), axes=tuple(turned(a) for a in p.axes)) for p in parts]
    return [*parts, *mirrored]


# ---- paint: colours (m, 3) at points (m, 3) of a unit shape's surface


def rgb(code: int) -> Tensor:
    """A colour (3,) in 0 ... 1 of 0xrrggbb."""
    return torch.tensor([code >> 16, code >> 8 & 255, code & 255]) / 255


def _stripes(points: Tensor) -> Tensor:
    """Three rings across the depth."""
    return torch.cos(points[:, 1] * 9) > 0.35


def _belly(points: Tensor) -> Tensor:
    """An oval in front."""
    return (points[:, 1] < 0) & ((points[:, 0] / 0.62).square() + ((points[:, 2] + 0.15) / 0.8).square() < 1)


def _spots(points: Tensor) -> Tensor:
    """Seven dots on the back, and the line between the wings."""
    dots = torch.tensor([[0.5, -0.35], [0.62, 0.3], [0.28, 0.75]])
    away = torch.stack([points[:, 0].abs(), points[:, 1]], 1)[:, None] - dots
    return ((away.square().sum(2) < 0.05).any(1) | (points[:, 0].abs() < 0.06)) & (points[:, 2] > 0)


def _windows(points: Tensor) -> Tensor:
    """A row of windows along the sides, and a broad one behind."""
    x, y, z = points.unbind(1)
    row = (z > 0.1) & (z < 0.75)
    side, rear = (x.abs() > 0.999) & (torch.cos(y * 8.2) > -0.55), (y > 0.999) & (x.abs() < 0.75)
    return row & (side | rear)


def _panel(points: Tensor) -> Tensor:
    """A plate on the chest."""
    x, y, z = points.unbind(1)
    return (y < -0.999) & (x.abs() < 0.6) & (z.abs() < 0.45)


def _patches(points: Tensor) -> Tensor:
    """Large patches, no two alike."""
    x, y, z = points.unbind(1)
    return torch.sin(4 * y + 2.2 * x + 0.7) + torch.sin(3 * z - 2 * x + 2.5 * y) > 0.35


def _hub(points: Tensor) -> Tensor:
    """The middle of a wheel."""
    return points[:, :2].square().sum(1) < 0.25


def _tip(points: Tensor) -> Tensor:
    """The further half."""
    return points[:, 2] > 0.1


# Where the second colour is; "face" is painted by `face`.
PAINTS: dict[str, Callable[[Tensor], Tensor]] = {
    "stripes": _stripes, "belly": _belly, "spots": _spots, "windows": _windows, "panel": _panel,
    "patches": _patches, "hub": _hub, "tip": _tip,
}  # fmt: skip


def painted(part: Part, points: Tensor) -> Tensor:
    """The colours (m, 3) of a part, but for its face, at points (m, 3) of its unit shape."""
    colours = rgb(part.colours[0]).expand(len(points), 3)
    if part.paint not in PAINTS:
        return colours
    return torch.where(PAINTS[part.paint](points)[:, None], rgb(part.colours[1]), colours)


# ---- faces

EXPRESSIONS = ("neutral", "happy", "surprised", "angry", "asleep")
WHITE, INK, MOUTH, TONGUE = 0xFFFFFF, 0x1E1A26, 0x7A1626, 0xF0707E


def face(part: Part, points: Tensor, expression: str) -> Tensor:
    """The colours (m, 3) of a head at points (m, 3) of its unit shape; a second colour is a patch around the face.

    The face is painted on the front as a slide is thrown on a wall, so it bends around a round head and is seen from
    the sides. It keeps to the front quarter, so from behind, from 135 degrees on, it is not.
    """
    (a, _, _), _, (_, _, c) = part.axes
    least = min(abs(a), abs(c))
    x, z = points[:, 0] * abs(a) / least, points[:, 2] * abs(c) / least
    front = points[:, 1] < (-0.999 if part.shape == "box" else -points[:, 0].abs())
    colours = rgb(part.colours[0]).repeat(len(points), 1)

    def fill(where: Tensor, colour: int) -> None:
        colours[front & where] = rgb(colour)

    def oval(u: Tensor, v: Tensor, wide: float, high: float) -> Tensor:
        return (u / wide).square() + (v / high).square() < 1

    def arc(u: Tensor, v: Tensor, wide: float, bend: float, thick: float) -> Tensor:
        """A line from -wide to wide whose middle lies `bend` above its ends."""
        return (u.abs() < wide) & ((v - bend * (1 - (u / wide).square())).abs() < thick)

    if len(part.colours) > 1:
        broad = front if part.shape == "box" else points[:, 1] < -0.1
        patch = broad & oval(x, z + 0.06, 0.9, 0.82)
        colours[patch] = rgb(part.colours[1])
    u, v = x.abs() - 0.42, z - 0.16  # from an eye's middle
    w = z + 0.46  # from the mouth's middle
    if expression == "neutral":
        fill(oval(u, v, 0.25, 0.3), WHITE)
        fill(oval(u + 0.03, v - 0.01, 0.17, 0.24), INK)
        fill(oval(u + 0.09, v - 0.09, 0.06, 0.07), WHITE)
        fill(arc(x, w, 0.22, -0.05, 0.065), INK)
    elif expression == "happy":
        fill(arc(u, v - 0.02, 0.26, 0.24, 0.095), INK)
        fill(oval(x, w - 0.14, 0.42, 0.44) & (w < 0.14), MOUTH)
        fill(oval(x, w + 0.2, 0.24, 0.16) & oval(x, w - 0.14, 0.42, 0.44), TONGUE)
    elif expression == "surprised":
        fill(oval(u, v - 0.08, 0.36, 0.42), INK)
        fill(oval(u, v - 0.08, 0.3, 0.36), WHITE)
        fill(oval(u, v - 0.08, 0.1, 0.12), INK)
        fill(oval(x, w + 0.04, 0.2, 0.26), MOUTH)
    elif expression == "angry":
        fill(oval(u, v, 0.26, 0.26), WHITE)
        fill(oval(u + 0.06, v + 0.03, 0.13, 0.16), INK)
        fill((u.abs() < 0.36) & ((v - 0.18 - 0.6 * u).abs() < 0.12), INK)
        fill((x.abs() < 0.34) & ((w + 0.02 - 0.1 * (1 - (x / 0.34).square())).abs() < 0.13), INK)
        fill((x.abs() < 0.28) & ((w + 0.02 - 0.1 * (1 - (x / 0.34).square())).abs() < 0.07), WHITE)
    else:
        fill(arc(u, v + 0.08, 0.28, -0.18, 0.09), INK)
        fill(oval(x, w, 0.1, 0.1), MOUTH)
    return colours
