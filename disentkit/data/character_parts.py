"""How the game characters of `characters` are drawn: limbs, clothes, hair and items as signed distances.

Each is drawn once for a value, a pose and a view, with a dark rim and soft edges, in ink whose colour may still wait
for a body's skin and the hue of a cloth.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

FINE = {32: 2, 48: 2, 64: 1}  # by size: samples per pixel and direction, whose edges are soft besides
RIM = 0.6  # in 32nds of the picture
MIRRORED = (False, True, False, True)  # by direction: the left is a mirrored right side, the back a mirrored front

Point = tuple[float, float]
Colour = tuple[float, ...]

# ---- paint: colours are (red, green, blue, skin, cloth); the last two wait for a body and a hue

SKIN, CLOTH = (0.0, 0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 0.0, 1.0)


def _rgb(code: int) -> Colour:
    return (code >> 16) / 255, (code >> 8 & 255) / 255, (code & 255) / 255, 0.0, 0.0


def _shade(colour: Colour, light: float) -> Colour:
    return tuple(c * light for c in colour)


class _Canvas:
    """A square of ink (6, size, size): five colours multiplied by their cover, and the cover. The frame is 32 x 32.

    x runs right from the middle and y down from the upper edge. Shapes are signed distances, negative inside.
    """

    def __init__(self, size: int):
        self.size, self.fine = size, FINE[size]
        self.unit = 32 / (size * self.fine)
        at = (torch.arange(size * self.fine) + 0.5) * self.unit
        self.x, self.y = at - 16, at[:, None]
        self.ink = torch.zeros(6, len(at), len(at))

    def picture(self) -> Tensor:
        """The ink (6, size, size) in the size that was asked for."""
        return self.ink.unflatten(2, (self.size, self.fine)).mean(3).unflatten(1, (self.size, self.fine)).mean(2)

    def fill(self, shape: Tensor, colour: Colour, strength: float = 1.0) -> None:
        """Lay a shape over what is there."""
        cover = (0.5 - shape / self.unit).clamp(0, 1) * strength
        self.ink.mul_(1 - cover).add_(cover * torch.tensor((*colour, 1.0))[:, None, None])

    def draw(self, shape: Tensor, colour: Colour) -> None:
        """Lay a shape with a dark rim around it over what is there."""
        self.fill(shape - RIM, _shade(colour, 0.3))
        self.fill(shape, colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> Tensor:
        """An ellipse. At the ends of a long one the distance comes out too small, which softens the edge there."""
        u, v = (self.x - x) / rx, (self.y - y) / ry
        return ((u * u + v * v).sqrt() - 1) * min(rx, ry)

    def limb(self, *points: Point, r: float = 1.5) -> Tensor:
        """A thick line through points."""
        return torch.stack([self._line(a, b) for a, b in zip(points, points[1:], strict=False)]).amin(0) - r

    def _line(self, a: Point, b: Point) -> Tensor:
        dx, dy = b[0] - a[0], b[1] - a[1]
        t = (((self.x - a[0]) * dx + (self.y - a[1]) * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0, 1)
        return ((self.x - a[0] - t * dx).square() + (self.y - a[1] - t * dy).square()).sqrt()

    def polygon(self, *points: Point) -> Tensor:
        """A convex polygon, its corners clockwise as seen."""
        sides = []
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
            long = math.hypot(bx - ax, by - ay)
            sides.append(((self.x - ax) * (by - ay) - (self.y - ay) * (bx - ax)) / long)
        return torch.stack(sides).amax(0)

    def box(self, x: float, y: float, w: float, h: float, r: float = 0.5) -> Tensor:
        """A box around (x, y) with half sides w and h and rounded corners."""
        u, v = (self.x - x).abs() - w + r, (self.y - y).abs() - h + r
        return (u.clamp(min=0).square() + v.clamp(min=0).square()).sqrt() + torch.maximum(u, v).clamp(max=0) - r


# ---- the figure


@dataclass(frozen=True)
class _Figure:
    """Joints of a figure. From the front its right hand is at negative x, and from the side it looks to the right.

    A back is drawn as a front and a left side as a right one, and then mirrored.
    """

    view: str
    head: Point
    hips: float  # their height in the picture
    legs: tuple[tuple[Point, Point, Point], ...]  # hip, knee, foot; from the side the first leg is the far one
    shoulders: tuple[Point, Point]  # right and left
    hands: tuple[Point, Point]

    @property
    def side(self) -> bool:
        return self.view in ("left", "right")

    @property
    def back(self) -> bool:
        return self.view == "back"


# Head, hips, legs and hands by pose.
FRONT = {
    "stand": ((0, 9.4), 22, (((-2.1, 22), (-2.3, 25), (-2.5, 28.8)), ((2.1, 22), (2.3, 25), (2.5, 28.8))),
              ((-7.6, 20.8), (7.6, 20.8))),
    "walk": ((1.0, 8.8), 21.4, (((-1.9, 21.6), (-3.0, 24), (-2.8, 26.4)), ((2.0, 21.6), (2.6, 25), (3.0, 29.2))),
             ((-8.8, 18.6), (5.2, 21.6))),
    "cheer": ((0, 9.8), 22.2, (((-2.1, 22), (-3.2, 25), (-4.4, 28.8)), ((2.1, 22), (3.2, 25), (4.4, 28.8))),
              ((-10.2, 9.4), (10.2, 9.4))),
    "crouch": ((0, 13.2), 25.4, (((-2, 25), (-6.6, 25.2), (-5.2, 29)), ((2, 25), (6.6, 25.2), (5.2, 29))),
               ((-8.8, 22.4), (8.8, 22.4))),
}  # fmt: skip
SIDE = {
    "stand": ((0.6, 9.4), 22, (((0.8, 22), (1.0, 25), (1.6, 28.6)), ((-0.6, 22), (-0.6, 25), (-0.8, 28.8))),
              ((6.6, 19.6), (-5.2, 20.6))),
    "walk": ((1.6, 9.0), 21.6, (((0.6, 21.6), (2.6, 24.6), (4.8, 28.6)), ((-0.6, 21.6), (-2.0, 24.8), (-5.0, 27.6))),
             ((7.8, 17.6), (-7.0, 18.8))),
    "cheer": ((0.2, 9.8), 22.2, (((0.8, 22), (1.8, 25), (2.8, 28.8)), ((-0.6, 22), (-1.6, 25), (-2.6, 28.8))),
              ((9.8, 9.6), (-9.6, 10.0))),
    "crouch": ((1.0, 13.2), 25.4, (((0.6, 25), (5.0, 24.6), (4.4, 28.8)), ((-1.0, 25), (1.4, 28.4), (-4.6, 28.8))),
               ((7.4, 22.4), (-5.8, 23.2))),
}  # fmt: skip


def _figure(pose: str, view: str) -> _Figure:
    side = view in ("left", "right")
    head, hips, legs, hands = (SIDE if side else FRONT)[pose]
    right, left = (1.0, -0.8) if side else (-4.9, 4.9)
    return _Figure(view, head, hips, legs, ((right, hips - 5.8), (left, hips - 5.8)), hands)


BLUE, GREEN, PURPLE, SAND, STEEL = (_rgb(c) for c in (0x3B5FC4, 0x3E9A46, 0x8E44AD, 0xD9B36A, 0x9AA6B4))
BROWN, BLACK, WHITE, GOLD = (_rgb(c) for c in (0x7A4A2A, 0x24222C, 0xECEAE2, 0xE8B93A))
BLOND, RED, CHESTNUT, JET, ORB, FLAME = (_rgb(c) for c in (0xF2CF5B, 0xD23B2A, 0xA8561C, 0x3A3850, 0x58E0E8, 0xFFD964))


def _draw_legs(c: _Canvas, f: _Figure, trousers: str) -> None:
    shoes = {"blue long": BROWN, "purple skirt": BLACK, "sand baggy": RED, "steel greaves": STEEL}.get(trousers)
    c.fill(c.ellipse(0, 29.8, 9, 1.9), _rgb(0x000000), 0.4)
    for n, (hip, knee, foot) in enumerate(f.legs):
        dim = 0.75 if f.side and n == 0 else 1.0
        toe = c.ellipse(foot[0] + (1.0 if f.side else 0.12 * foot[0]), foot[1] + 0.6, 2.4 if f.side else 2.1, 1.4)
        c.draw(c.limb(hip, knee, foot, r=1.8), _shade(SKIN, dim))
        c.draw(toe, _shade(shoes or SKIN, dim))
        if trousers == "blue long":
            c.draw(c.limb(hip, knee, (foot[0], foot[1] - 0.9), r=2.2), _shade(BLUE, dim))
        elif trousers == "green shorts":
            c.draw(c.limb(hip, knee, r=2.5), _shade(GREEN, dim))
        elif trousers == "sand baggy":
            ankle = (foot[0], foot[1] - 1.6)
            middle = ((knee[0] + ankle[0]) / 2, (knee[1] + ankle[1]) / 2)
            c.draw(torch.minimum(c.limb(hip, knee, ankle, r=2.2), c.limb(knee, middle, r=2.9)), _shade(SAND, dim))
        elif trousers == "steel greaves":
            c.draw(c.limb(hip, knee, r=2.1), _shade(BLACK, 1.6 * dim))
            c.draw(c.limb(knee, foot, r=2.3), _shade(STEEL, dim))
            c.draw(c.ellipse(*knee, 1.7, 1.5), _shade(WHITE, dim))
    if trousers == "purple skirt":
        low = [knee for _, knee, _ in f.legs]
        left, right = min(x for x, _ in low) - 2.0, max(x for x, _ in low) + 2.0
        bottom = max(y for _, y in low) + 1.3
        c.draw(c.polygon((-2.6, f.hips - 2), (2.6, f.hips - 2), (right, bottom), (left, bottom)) - 0.4, PURPLE)
    elif trousers != "steel greaves":
        colour = {"blue long": BLUE, "green shorts": GREEN, "sand baggy": SAND}[trousers]
        c.fill(c.box(0, f.hips, 2.4 if f.side else 3.8, 1.4), colour)


def _draw_torso(c: _Canvas, f: _Figure, top: str) -> None:
    arms = list(zip(f.shoulders, f.hands, strict=True))
    if f.side:
        far = arms.pop(0 if f.view == "left" else 1)
        _draw_arm(c, far, top, 0.75)
    wide, high, low = (3.7 if f.side else 4.9), f.hips - 7.6, f.hips + 0.6
    corners = (-wide, high), (wide, high), (wide * 0.85, low), (-wide * 0.85, low)
    shape = c.polygon(*corners) - 0.4
    if top == "robe":
        low, flare = f.hips + 2.4, wide + 1.0
        shape = c.polygon((-wide, high), (wide, high), (flare, low), (-flare, low)) - 0.4
    c.draw(shape, CLOTH)
    within = shape + 0.1
    middle = wide * 0.9 if f.side else 0.0
    if top == "stripes":
        for y in (f.hips - 4.6, f.hips - 1.4):
            c.fill(torch.maximum(within, (c.y - y).abs() - 0.8), WHITE)
    elif top == "vest":
        if not f.back:
            c.fill(torch.maximum(within, (c.x - middle).abs() - 1.4), WHITE)
        c.fill(torch.maximum(within, (c.y - f.hips + 0.2).abs() - 0.8), BROWN)
    elif top == "robe":
        c.fill(torch.maximum(within, (c.y - f.hips + 1).abs() - 0.8), GOLD)
        c.fill(torch.maximum(within, low - 0.6 - c.y), _shade(CLOTH, 0.5))
    elif top == "armour":
        plate = torch.maximum(within, c.y - (f.hips - 2.6))
        c.fill(torch.maximum(plate, 1.2 - (c.x - middle).abs()), STEEL)
        c.fill(torch.maximum(within, (c.y - f.hips + 2).abs() - 0.6), BLACK)
    for arm in arms:
        _draw_arm(c, arm, top, 1.0)


def _draw_arm(c: _Canvas, arm: tuple[Point, Point], top: str, dim: float) -> None:
    (ax, ay), (bx, by) = arm
    half = ((ax + bx) / 2, (ay + by) / 2)
    c.draw(c.limb((ax, ay), (bx, by), r=1.3), _shade(SKIN, dim))
    if top == "shirt":
        c.draw(c.limb((ax, ay), half, r=1.7), _shade(CLOTH, dim))
    elif top == "stripes":
        c.draw(c.limb((ax, ay), (bx, by), r=1.5), _shade(CLOTH, dim))
        c.fill(c.limb(half, half, r=1.3), _shade(WHITE, dim))
    elif top == "vest":
        c.draw(c.limb((ax, ay), half, r=1.7), _shade(WHITE, dim))
    elif top == "robe":
        c.draw(c.limb((ax, ay), half, (bx, by), r=1.6), _shade(CLOTH, 0.8 * dim))
        c.draw(c.ellipse(ax * 0.2 + bx * 0.8, ay * 0.2 + by * 0.8, 2.3, 2.3), _shade(CLOTH, 0.8 * dim))
    elif top == "armour":
        c.draw(c.ellipse(ax * 1.05, ay - 0.2, 2.4, 2.1), _shade(STEEL, dim))


def _draw_item(c: _Canvas, f: _Figure, item: str) -> None:
    (x, y), out = f.hands[0], 1 if f.side else -1
    if item == "sword":
        tip, cross = (x + out * 3.0, y - 10.5), (x + out * 0.4, y - 1.8)
        c.draw(c.limb(cross, tip, r=0.9), _rgb(0xDDE6F0))
        c.draw(c.limb((x - out * 2.2, y - 2.4), (x + out * 2.9, y - 1.2), r=0.6), GOLD)
        c.draw(c.limb((x, y), (x - out * 0.5, y + 2.6), r=0.6), BROWN)
    elif item == "shield":
        x, y = x + out * 2.2, y + 1.0
        shape = torch.maximum(c.ellipse(x, y - 1.5, 4.2, 6.2), y - 4 - c.y)
        c.draw(shape, _rgb(0xF0F0F0))
        c.fill(shape + 0.9, _rgb(0xC8312B))
        c.fill(c.box(x, y, 0.7, 3.8), GOLD)
        c.fill(c.box(x, y - 0.8, 2.8, 0.7), GOLD)
    elif item == "staff":
        c.draw(c.limb((x - out * 0.8, y + 8.0), (x + out * 0.9, y - 8.0), r=0.7), BROWN)
        c.draw(c.ellipse(x + out * 1.0, y - 8.4, 2.3, 2.3), ORB)
    elif item == "lantern":
        x, y = x + out * 1.2, y + 4.6
        for r in (6.0, 4.6):
            c.fill(c.ellipse(x, y, r, r), FLAME, 0.22)
        c.draw(c.limb((x - out * 1.2, y - 4), (x, y - 3), r=0.4), BLACK)
        c.draw(c.box(x, y, 2.3, 2.9), FLAME)
        c.draw(c.box(x, y - 2.7, 2.4, 0.7), GOLD)
        c.draw(c.box(x, y + 2.7, 2.4, 0.6), GOLD)


def _draw_head(c: _Canvas, f: _Figure, hair: str) -> None:
    """The head with its hair, and the hands, which nothing covers."""
    x, y = f.head
    for hx, hy in f.hands:
        c.draw(c.ellipse(hx, hy, 1.7, 1.7), SKIN)
    skull = c.ellipse(x, y, 6.3, 6.0)
    if hair == "long blond":
        if f.side:
            c.draw(c.box(x - 3.6, y + 3.5, 3.0, 6.4, 2.0), BLOND)
        else:
            for out in (-1, 1):  # the chest stays free, and in part the back
                c.draw(c.box(x + out * 5.0, y + 3.0, 1.9, 6.4, 1.2), BLOND)
    c.draw(skull, SKIN)
    if f.side:
        c.fill(c.ellipse(x + 6.2, y + 1.6, 0.9, 0.8), SKIN)
        c.fill(c.ellipse(x + 3.4, y + 0.8, 1.5, 1.8), WHITE)
        c.fill(c.ellipse(x + 3.9, y + 0.9, 0.9, 1.4), BLACK)
        c.fill(c.limb((x + 3.4, y + 3.9), (x + 4.6, y + 3.7), r=0.35), _shade(SKIN, 0.5))
    elif not f.back:
        for out in (-2.5, 2.5):
            c.fill(c.ellipse(x + out, y + 0.8, 1.5, 1.8), WHITE)
            c.fill(c.ellipse(x + out * 0.9, y + 0.9, 0.9, 1.4), BLACK)
        c.fill(c.limb((x - 1, y + 4), (x + 1, y + 4), r=0.35), _shade(SKIN, 0.5))
    if hair != "bald":
        _draw_hair(c, f, hair, x, y)


def _draw_hair(c: _Canvas, f: _Figure, hair: str, x: float, y: float) -> None:
    cap = c.ellipse(x, y - 0.3, 6.7, 6.4)
    if f.back:
        cap = torch.maximum(cap, c.y - y - 4.6)
    elif f.side:
        cap = torch.maximum(torch.maximum(cap, -c.ellipse(x + 4.2, y + 3.0, 5.0, 5.0)), c.y - y - 3.6)
    else:
        cap = torch.maximum(torch.maximum(cap, -c.ellipse(x, y + 3.4, 5.6, 5.2)), c.y - y - 1.6)
    if hair == "short brown":
        c.draw(cap, CHESTNUT)
    elif hair == "long blond":
        c.draw(cap, BLOND)
        if f.back:
            c.fill(c.box(x, y + 3.4, 6.0, 5.0, 1.5), BLOND)
    elif hair == "red spikes":
        for k in range(7):
            turn = math.radians(-90 + (k - 3) * 26 - (14 if f.side else 0))
            ux, uy = math.cos(turn), math.sin(turn)
            tip, a, b = ((x + r * ux - s * uy, y + r * uy + s * ux) for r, s in ((9.4, 0), (4.5, 2.4), (4.5, -2.4)))
            c.draw(c.polygon(b, tip, a), RED)
        c.fill(cap, RED)
    elif hair == "black bun":
        c.draw(c.ellipse(x - (3.0 if f.side else 0), y - 7.0, 2.7, 2.5), JET)
        c.draw(cap, JET)
    elif hair == "white hood":
        hood = torch.minimum(c.ellipse(x, y - 0.2, 7.2, 7.0), c.box(x, y + 4.0, 5.6, 3.4, 1.5))
        if not f.back:
            hood = torch.maximum(hood, -c.ellipse(x + (3.2 if f.side else 0), y + 1.2, 4.6, 4.4))
        c.draw(hood, WHITE)


# By layer: how it is drawn, and which view stands for front, left, right and back.
LAYERS = {
    "legs": (_draw_legs, ("front", "right", "right", "front")),
    "torso": (_draw_torso, ("front", "left", "right", "back")),
    "item": (_draw_item, ("front", "right", "right", "front")),
    "head": (_draw_head, ("front", "right", "right", "back")),
}


def sheet(name: str, values: tuple[str, ...], poses: tuple[str, ...], size: int) -> Tensor:
    """Ink (values * poses * 4, 6, size, size) of a layer for its values, by value, pose and direction.

    name    "legs" (values are trousers), "torso" (tops), "item" or "head" (hair)
    size    32, 48 or 64 pixels

    The channels are the red, green and blue that are known, the shares that the skin's and the cloth's colour add, and
    the cover; the first five are multiplied by it. Directions are front, left, right and back.
    """
    draw, views = LAYERS[name]
    pictures = []
    for value, pose in itertools.product(values, poses):
        drawn = {}
        for view in sorted(set(views)):
            canvas = _Canvas(size)
            draw(canvas, _figure(pose, view), value)
            drawn[view] = canvas.picture()
        for view, mirrored in zip(views, MIRRORED, strict=True):
            pictures.append(drawn[view].flip(2) if mirrored else drawn[view])
    return torch.stack(pictures)
