"""What emblems are made of: patterns of the background, outlines of the shapes, and their colours.

Patterns and outlines are tables of signed distances, made once from their geometry and looked up between their points.
A distance is turned into a share of a pixel only when a picture is drawn, so edges are as sharp as the picture's pixels
allow at every size, and no pattern is finer than they are.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

# ---- background: two muted colours each, as 0xRRGGBB; a pattern is a distance over one period (width, height) in
# widths of the object view, positive where the second colour is.

PALETTES = {
    "rows": (0x8C7B6B, 0xC9B79C),
    "columns": (0x5F7A86, 0xA9C0C4),
    "slants": (0x7C6A86, 0xBFB0C6),
    "checks": (0x6F7F5C, 0xB9C49B),
    "dots": (0xC4A2A6, 0x7A4F5E),
    "cells": (0x4F5D63, 0x93A39F),
    "clouds": (0x6A7A99, 0xCBD2DC),
    "grit": (0x5A5148, 0xA3988A),
    "waves": (0x4E7470, 0xA6C4B4),
    "bricks": (0x94695C, 0xC8B4A8),
}
BAND, CHECK, DOT, CELL, BRICK = 0.18, 0.26, (0.19, 0.062), (0.21, 0.036), (0.30, 0.30, 0.042)  # periods, then widths
WAVE = (0.34, 0.18, 0.04)  # length, distance of the lines, height
NOISE = 2.0  # the noise repeats after so many widths, more than any view shows
SCALES = {"clouds": (1.5, 3.0, 0.05), "grit": (4.5, 6.5, 0.025)}  # waves per width from ... to, standard deviation
SOFT = {"clouds": 0.2, "grit": 0.1}  # where the two colours run into each other over more than a pixel
PATTERN = 128  # points of a table along one period

# ---- object: polygons around (0, 0), to the right and down, then rounded; a shape's own size is about 1

ROUND = 0.035  # radius of all corners
REACH, OUTLINE = 0.9, 180  # a table spans -REACH ... REACH in so many steps
HUES = {"red": 0.0, "yellow": 0.14, "green": 0.36, "blue": 0.6, "magenta": 0.84}
FILLS = ("plain", "stripes", "spots", "two-tone")
STRIPE, SPOT = 0.26, (0.27, 0.085)  # distance of stripes; of spots, and their radius


def _bird() -> list[tuple[float, float]]:
    """A round body with a long tail to the lower left and a short beak to the right."""
    points = []
    for k in range(120):
        angle = 2 * math.pi * k / 120
        far = 0.3
        for towards, long, wide in ((math.radians(145), 0.42, 0.6), (math.radians(-35), 0.14, 0.4)):
            away = abs((angle - towards + math.pi) % (2 * math.pi) - math.pi)
            far += long * max(0.0, 1 - away / wide) ** 1.25
        points.append((far * math.cos(angle), far * math.sin(angle)))
    return points


def _crescent() -> list[tuple[float, float]]:
    """Open to the right, between two circles that meet at its horns."""
    radius, inner, apart = 0.47, 0.37, 0.26
    x = (radius**2 - inner**2 + apart**2) / (2 * apart)
    outer_end, inner_end = math.acos(x / radius), math.atan2(math.sqrt(radius**2 - x**2), x - apart)
    steps = [k / 48 for k in range(49)]
    outer = [outer_end + (2 * math.pi - 2 * outer_end) * k for k in steps]
    back = [2 * math.pi - inner_end - (2 * math.pi - 2 * inner_end) * k for k in steps]
    left = [(radius * math.cos(a) + 0.1, radius * math.sin(a)) for a in outer]
    return left + [(apart + inner * math.cos(a) + 0.1, inner * math.sin(a)) for a in back[1:-1]]


def _star() -> list[tuple[float, float]]:
    """Five arms, the upper one long."""
    points = []
    for k in range(5):
        for far, turn in ((0.64 if k == 0 else 0.4, 2 * k), (0.19, 2 * k + 1)):
            angle = math.pi * turn / 5
            points.append((far * math.sin(angle), 0.1 - far * math.cos(angle)))
    return points


def outlines() -> dict[str, list[tuple[float, float]]]:
    """The corners of each shape before it is rounded."""
    return {
        "bird": _bird(),
        "arrow": [(0, -0.5), (0.34, -0.08), (0.12, -0.08), (0.12, 0.46), (-0.12, 0.46), (-0.12, -0.08), (-0.34, -0.08)],
        "L": [(-0.32, -0.5), (-0.08, -0.5), (-0.08, 0.22), (0.34, 0.22), (0.34, 0.46), (-0.32, 0.46)],
        "crescent": _crescent(),
        "star": _star(),
    }


SHAPES = tuple(outlines())

# All that decides how pictures look; rounded, as the last bit of a sine differs between machines.
_CORNERS = [[(round(x, 4) + 0.0, round(y, 4) + 0.0) for x, y in points] for points in outlines().values()]
MEASURES = (PALETTES, BAND, CHECK, DOT, CELL, BRICK, WAVE, NOISE, SCALES, SOFT, ROUND, HUES, FILLS, STRIPE, SPOT)
MEASURES += (_CORNERS,)


@functools.cache
def corners() -> Tensor:
    """The corners (shapes, points, 2) of all shapes, filled up by repeating the first."""
    shapes = list(outlines().values())
    most = max(map(len, shapes))
    return torch.tensor([points + [points[0]] * (most - len(points)) for points in shapes])


@functools.cache
def distances() -> Tensor:
    """Distances (shapes, OUTLINE + 1, OUTLINE + 1) to the rounded outlines, negative inside; rows go down."""
    place = torch.linspace(-REACH, REACH, OUTLINE + 1, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1)[:, :, None]
    return torch.stack(
        [torch.stack([_distance(row, shape) for row in points]) for shape in outlines().values()]
    )  # a row at a time, which stays in a CPU's cache


def _distance(points: Tensor, shape: list[tuple[float, float]]) -> Tensor:
    """Distances (n,) of points (n, 1, 2) to a polygon that is rounded by ROUND."""
    start = torch.tensor(shape, dtype=torch.float64)
    end = start.roll(-1, 0)
    side = end - start
    along = (((points - start) * side).sum(-1) / side.square().sum(-1)).clamp(0, 1)
    away = (points - start - along[..., None] * side).norm(dim=-1).amin(1)
    (ax, ay), (bx, by), px, py = start.T, end.T, points[..., 0], points[..., 1]
    rise = torch.where(by == ay, torch.ones_like(by), by - ay)  # a level side is never crossed
    crossed = ((ay > py) != (by > py)) & (px < (bx - ax) * (py - ay) / rise + ax)
    return (torch.where(crossed.sum(1) % 2 == 1, -away, away) - ROUND).float()


def band(x: Tensor, period: float, wide: float) -> Tensor:
    """Distance inwards from the edges of bands of width `wide` around the multiples of `period`."""
    return wide / 2 - ((x + period / 2) % period - period / 2).abs()


@functools.cache
def patterns() -> tuple[Tensor, Tensor]:
    """Distances (patterns, PATTERN + 1, PATTERN + 1) over one period, and the periods (patterns, 2) across and down."""
    place = torch.arange(PATTERN, dtype=torch.float64) / PATTERN
    tables, periods = [], []
    for name in PALETTES:
        wide, high = _period(name)
        across, down = place[None, :] * wide, place[:, None] * high
        table = _pattern(name, across, down).expand(PATTERN, PATTERN)
        tables.append(F.pad(table[None], (0, 1, 0, 1), mode="circular")[0])
        periods.append((wide, high))
    return torch.stack(tables).float(), torch.tensor(periods)


def _period(name: str) -> tuple[float, float]:
    slanted = BAND * math.sqrt(2)
    known = {
        "slants": (slanted, slanted), "checks": (CHECK, CHECK), "dots": (DOT[0], DOT[0]), "waves": WAVE[:2],
        "cells": (CELL[0], CELL[0] * math.sqrt(3)), "clouds": (NOISE, NOISE), "grit": (NOISE, NOISE),
        "bricks": BRICK[:2],
    }  # fmt: skip
    return known.get(name, (BAND, BAND))


def _pattern(name: str, x: Tensor, y: Tensor) -> Tensor:
    """One pattern at places x (1, n) and y (n, 1)."""
    if name == "rows":
        return band(y, BAND, BAND / 2)
    if name == "columns":
        return band(x, BAND, BAND / 2)
    if name == "slants":
        return band((x + y) / math.sqrt(2), BAND, BAND / 2)
    if name == "waves":
        return band(y + WAVE[2] * torch.sin(2 * math.pi * x / WAVE[0]), WAVE[1], WAVE[1] / 2)
    if name == "checks":
        a, b = torch.broadcast_tensors(band(x, CHECK, CHECK / 2), band(y, CHECK, CHECK / 2))
        return torch.minimum(a.abs(), b.abs()) * torch.sign(a * b)
    if name == "dots":
        return DOT[1] - _nearest(x, y, DOT[0], [(0.5, 0.5)], DOT[0])[0]
    if name == "cells":  # the border between two cells is where their centres are equally far
        first, second = _nearest(x, y, CELL[0], [(0.0, 0.0), (0.5, 0.5)], CELL[0] * math.sqrt(3))[:2]
        return (second.square() - first.square()) / (2 * CELL[0]) - CELL[1] / 2
    if name == "bricks":
        wide, high, joint = BRICK
        shift = torch.where(y % high < high / 2, 0.0, wide / 2)
        return torch.maximum(band(y, high / 2, joint), band(x + shift, wide, joint))
    return _noise(name, x, y)


def _nearest(x: Tensor, y: Tensor, wide: float, seeds: list[tuple[float, float]], high: float) -> Tensor:
    """Distances (seeds with their repeats, n, n) to points that repeat over (wide, high), nearest first."""
    away = [
        torch.hypot(x - (a + i) * wide, y - (b + j) * high) for a, b in seeds for i in (-1, 0, 1) for j in (-1, 0, 1)
    ]
    return torch.stack(away).sort(0).values


def _noise(name: str, x: Tensor, y: Tensor) -> Tensor:
    """Waves in all directions, of lengths between two ends and with seeded phases, that repeat after NOISE."""
    low, high, spread = SCALES[name]
    rng, total, most = torch.Generator().manual_seed(list(SCALES).index(name)), 0.0, math.ceil(high * NOISE)
    for i in range(most + 1):
        for j in range(-most, most + 1):
            if low <= math.hypot(i, j) / NOISE <= high and (i or j > 0):
                turn = torch.rand((), generator=rng, dtype=torch.float64)
                total = total + torch.cos(2 * math.pi * (i * x / NOISE + j * y / NOISE + turn))
    return total * (spread / total.std())


def colours(rows) -> Tensor:
    """Colours (..., 3) in [0, 1] of nested 0xRRGGBB."""
    rows = torch.tensor(rows)
    return torch.stack([rows >> shift & 255 for shift in (16, 8, 0)], dim=-1) / 255


def pure(hues: Tensor) -> Tensor:
    """Saturated colours (n, 3) of hues (n,)."""
    primaries = torch.tensor((0.0, 4.0, 2.0), device=hues.device)
    return 0.08 + 0.87 * (((hues[:, None] * 6 + primaries) % 6 - 3).abs() - 1).clamp(0, 1)
