"""Rays, where they meet simple solids, what a lamp gives there, and samples filtered down to pixels. No scene is here.

Everything is batched and written in coordinates: a point or direction is a tuple (x, y, z) of tensors that broadcast to
(n, rows, columns). A level camera's rays rise by the same slope along a row of the picture and run in the same vertical
plane along a column, so their coordinates are kept as (n, 1, columns) and (1, rows, 1), and what depends on the column
alone is computed once per column by broadcasting.

A convex solid is met over an interval (near, far) of the ray's parameter, and solids that are cut out of one another
are intervals cut: `both`. A ray that misses has near >= far and still finite numbers (those of its closest approach, or
of the bounding surfaces), so nothing needs a branch, and a hit is `near < far`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Point = tuple[Tensor, Tensor, Tensor]
Interval = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Rays:
    """The points origin + t * direction, t >= 0. Directions need not have length one."""

    origin: Point
    direction: Point

    def at(self, t: Tensor) -> Point:
        x, y, z = (o + t * d for o, d in zip(self.origin, self.direction, strict=True))
        return x, y, z


def level_camera(x: Tensor, y: Tensor, z: float, turn: Tensor, right: Tensor, up: Tensor) -> Rays:
    """The rays of a camera at (x, y, z) that looks level along +y, turned left (counter-clockwise) by `turn`.

    x, y, turn  (n,), the turn in radians
    right, up   (columns,) and (rows,): where a ray meets the plane one unit ahead of the camera (`Raster.ahead`)

    Directions and t count in depth: t is the distance along the line of sight, not along the ray.
    """
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    origin = x[:, None, None], y[:, None, None], torch.full_like(x, z)[:, None, None]
    return Rays(origin, (right * cos - sin, right * sin + cos, up[None, :, None]))


# ---- where rays meet solids


def plane(origin: Tensor, direction: Tensor, at: Tensor | float) -> Tensor:
    """t at which one coordinate is `at`: negative where that lies behind, infinite for rays along the plane."""
    return (at - origin) / direction


def slab(origin: Tensor, direction: Tensor, low: Tensor | float, high: Tensor | float) -> Interval:
    """Where one coordinate lies between low and high."""
    a, b = plane(origin, direction, low), plane(origin, direction, high)
    return torch.minimum(a, b), torch.maximum(a, b)


def tube(rays: Rays, radius: Tensor) -> Interval:
    """Inside the endless upright cylinder around the z axis."""
    (ox, oy, _), (dx, dy, _) = rays.origin, rays.direction
    return _roots(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - radius * radius)


def ball(rays: Rays, height: Tensor | float, radius: Tensor) -> Interval:
    """Inside the sphere around the point (0, 0, height)."""
    (ox, oy, oz), (dx, dy, dz) = rays.origin, rays.direction
    z = oz - height
    a, b = (dx * dx + dy * dy) + dz * dz, (ox * dx + oy * dy) + z * dz
    return _roots(a, b, (ox * ox + oy * oy - radius * radius) + z * z)


def ball_gap(rays: Rays, height: Tensor | float, radius: Tensor) -> Tensor:
    """Positive where a ray meets the sphere around (0, 0, height): the discriminant of `ball`, without its roots.

    b^2 - a c is multiplied out, so that of a camera's rays only what mixes rows and columns is as large as the picture.
    """
    (ox, oy, oz), (dx, dy, dz) = rays.origin, rays.direction
    a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - radius * radius
    z = oz - height
    return (2 * b * dz - a * z).mul_(z).add_(b * b - a * c).sub_(c * (dz * dz))


def capsule_centre(rays: Rays, enter: Tensor, radius: Tensor, low: Tensor | float, high: Tensor) -> Tensor:
    """The height of that ball inside an upright capsule which a ray meets first, if it meets the capsule at all.

    The capsule is an upright cylinder with half balls for ends, from low to high over all, and a ball where high - low
    is 2 radius. A ray enters its `tube` at t = enter, at some height. Where that lies between the ends' centres, the
    ball around this height touches the tube just there; above or below, only the ball at that end can be met.
    """
    return torch.clamp(rays.origin[2] + enter * rays.direction[2], low + radius, high - radius)


def ball_edges(rays: Rays, tube: Interval, height: Tensor | float) -> Interval:
    """Between which slopes a level camera's rays meet the ball around (0, 0, height), for each column (n, 1, columns).

    tube  where the rays are inside the ball's tube: in a column's vertical plane the ball is a circle as wide as that,
          and its tangents through the camera have these slopes. NaN around a camera inside the tube
    """
    (_, _, oz), (dx, dy, _) = rays.origin, rays.direction
    rise, middle, half, power = height - oz, (tube[0] + tube[1]) / 2, (tube[1] - tube[0]) / 2, tube[0] * tube[1]
    root = half * (rise * rise + (dx * dx + dy * dy) * power).sqrt()
    return (middle * rise - root) / power, (middle * rise + root) / power


def both(*intervals: Interval) -> Interval:
    """Inside all of several convex solids."""
    near, far = intervals[0]
    for other in intervals[1:]:
        near, far = torch.maximum(near, other[0]), torch.minimum(far, other[1])
    return near, far


def positive_(gap: Tensor) -> Tensor:
    """1.0 where `gap` is positive and 0.0 elsewhere, in place: a new tensor, of booleans first, takes several times as
    long."""
    return gap.gt_(0)


def _roots(a: Tensor, b: Tensor, c: Tensor) -> Interval:
    """Solutions of a t^2 + 2 b t + c = 0, a > 0; twice the minimum's place where there are none."""
    root = (b * b - a * c).clamp_(min=0).sqrt_()
    return (-b - root) / a, (root - b) / a


# ---- light


@dataclass(frozen=True)
class Spot:
    """A lamp at `place` that shines towards `towards`; its light falls off by a power of the cosine to that axis."""

    place: tuple[float, float, float]
    towards: tuple[float, float, float]
    exponent: int

    def rays_to(self, point: Point) -> Rays:
        """The rays from the lamp to points, which they reach at t = 1."""
        origin = tuple(torch.full_like(point[0][:1, :1, :1], place) for place in self.place)
        x, y, z = (p - place for place, p in zip(self.place, point, strict=True))
        return Rays(origin, (x, y, z))

    def shine(self, point: Point, normal: Point) -> tuple[Tensor, Tensor]:
        """(cosine between normal and lamp, negative on the far side; strength 0 ... 1) at points with unit normals."""
        x, y, z = (p - place for place, p in zip(self.place, point, strict=True))  # from the lamp
        axis = [t - p for p, t in zip(self.place, self.towards, strict=True)]
        length = sum(a * a for a in axis) ** 0.5
        near = (x * x + y * y + z * z).rsqrt()
        facing = (x * normal[0] + y * normal[1] + z * normal[2]) * -near
        along = (x * (axis[0] / length) + y * (axis[1] / length) + z * (axis[2] / length)) * near
        return facing, _power(along.clamp(min=0), self.exponent)


def _power(base: Tensor, exponent: int) -> Tensor:
    """base ** exponent by squaring, which takes a fifth of the time."""
    if exponent == 1:
        return base
    half = _power(base, exponent // 2).square()
    return half * base if exponent % 2 else half


# ---- from samples to pixels


def lanczos(pixels: int, samples: int, device=None) -> Tensor:
    """Weights (pixels, pixels * samples) of a Lanczos filter of three lobes; rows sum to one.

    Applied along rows and columns it reduces pictures like common image libraries do, with their slight overshoot at
    edges; at the rim the filter is cut off and scaled up.
    """
    place = (torch.arange(pixels * samples, device=device) + 0.5) / samples
    away = place - (torch.arange(pixels, device=device)[:, None] + 0.5)  # (pixels, pixels * samples), in pixels
    weights = torch.sinc(away) * torch.sinc(away / 3) * (away.abs() < 3)
    return weights / weights.sum(1, keepdim=True)


Window = tuple[int, int, int, int]


class Raster:
    """The pixels of a square picture, the samples that lie in them, and the filter from these to those.

    weights  (size, samples across the picture), as of `lanczos`
    focal    distance from which the picture is seen as it is, in widths of the picture

    A window is (top, bottom, left, right) in 64ths of the picture.
    """

    def __init__(self, weights: Tensor, focal: float):
        self.weights, self.focal = weights, focal
        self.size, self.samples = weights.shape
        self.heaped = F.pad(weights.cumsum(1), (1, 0)).T  # (samples + 1, size): the weight of the first so many

    def part(self, window: Window, count: int | None = None) -> tuple[slice, slice]:
        """Rows and columns of a window in a picture of `count` pixels, by default the raster's size."""
        top, bottom, left, right = (edge * (count or self.size) // 64 for edge in window)
        return slice(top, bottom), slice(left, right)

    def ahead(self, window: Window, count: int | None = None) -> tuple[Tensor, Tensor]:
        """(right (w,), up (h,)) of the middles of a window's pixels, on the plane one unit ahead of the camera."""
        count = count or self.size
        rows, columns = self.part(window, count)
        places = ((torch.arange(count, device=self.weights.device) + 0.5) / count - 0.5) / self.focal
        return places[columns], -places[rows]

    def shrink(self, samples: Tensor, window: Window) -> Tensor:
        """Pixels (n, h, w) of a window from its samples (n, rows, columns); what lies outside counts as 0."""
        pixels, places = self.part(window), self.part(window, self.samples)
        rows, columns = (self.weights[p, s] for p, s in zip(pixels, places, strict=True))
        return rows @ (samples @ columns.T)

    def above(self, edge: Tensor, window: Window) -> Tensor:
        """How much of a window's rows of pixels lies above an edge, in each column of samples: strips (n, columns, h).

        edge  (n, 1, columns), its height on the plane one unit ahead

        The same as `shrink` makes of samples that are 1 above the edge, but without them.
        """
        crossed = ((0.5 - self.focal * edge[:, 0]) * self.samples).round().clamp(0, self.samples)  # samples above it
        return F.embedding(crossed.long(), self.heaped[:, self.part(window)[0]].contiguous())

    def join(self, strips: Tensor, window: Window) -> Tensor:
        """Pixels (n, h, w) of a window from strips (n, columns, h)."""
        return strips.mT @ self.weights[self.part(window)[1], self.part(window, self.samples)[1]].T
