"""Emblems: one object on a patterned ground, made for the tree that FineGAN and MixNMatch assume.

Four things can be taken from four pictures and mixed: the ground's pattern (`background`), the outline (`shape`), what
the object is filled with (`texture`) and how it lies (`rotation`, `aspect`, `x`, `y`, `scale`). Patterns are
stationary, so a patch of one says which it is; no shape looks like itself when turned; textures turn with the object.
The law `Tree(rho, tree)` plants what the papers assume of birds and dogs: each texture belongs to one shape, and comes
with probability rho before the one background that it shares with its neighbour. At rho 1 a picture's texture tells its
background, which is FineGAN's tie; below 1 it only hints. `independent()` gives all combinations alike: pictures in
which a reader cannot tell one factor by another.
The papers (Singh, Ojha, Lee, "FineGAN", 2019; Li, Singh, Ojha, Lee, "MixNMatch", 2020) use photographs, of which
nobody knows the true mix; this set is the kit's own.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from disentkit.data import emblem_parts as parts
from disentkit.data.base import Data, Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Real, draw_fixed
from disentkit.errors import UserError, one_of

SIZES = (64, 32, 128)
BOXES = ("exact", "segmenter")
VIEW, AWAY = 1.2, 0.25  # the wider view's side in object views, and how far its centre is moved, in its own side
RIM, DARK = 0.02, 0.35  # of the object: its width in object views, and its share of the object's colour
PALE = 0.72  # how white a texture's second colour is
TINT = 0.04  # of a turn of hue, at the ends of `tint`

BACKGROUNDS, SHAPES = tuple(parts.PALETTES), parts.SHAPES
FEW = ("rows", "checks", "dots", "clouds")  # backgrounds

# Hue and fill of each texture. A shape's four textures have all fills and four of the five hues, and each hue and each
# fill belongs to several shapes, so neither tells the shape.
TEXTURES = tuple(((t // 4 + t % 4) % 5, t % 4) for t in range(20))
FEW_TEXTURES = tuple(((t // 2 + t % 2) % 4, (t // 2 + 2 * (t % 2)) % 4) for t in range(8))


def _spread(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(round(low + (high - low) * k / (count - 1), 4) for k in range(count))


def _space(few: bool) -> FactorSpace:
    hues = list(parts.HUES)
    return FactorSpace(
        [
            category("background", *(FEW if few else BACKGROUNDS)),
            category("shape", *(SHAPES[:4] if few else SHAPES)),
            category("texture", *(f"{parts.FILLS[f]} {hues[h]}" for h, f in (FEW_TEXTURES if few else TEXTURES))),
            Factor("rotation", "real", _spread(-60, 60, 9), unit="degrees"),
            Factor("aspect", "real", _spread(0.8, 1.25, 7)),
            Factor("x", "real", _spread(0.44, 0.56, 7)),
            Factor("y", "real", _spread(0.44, 0.56, 7)),
            Factor("scale", "real", _spread(0.62, 0.8, 7)),
            Factor("phase", "cyclic", tuple(k / 12 for k in range(12))),
            Factor("pitch", "real", _spread(0.85, 1.2, 8)),
            Factor("tint", "real", _spread(-1, 1, 5)),
        ]
    )


SPACE, FEW_SPACE = _space(False), _space(True)


@dataclass(frozen=True)
class Tree:
    """Texture uniform; with `tree` each shape has its own textures; with probability `rho` a texture has its own
    background.

    With T textures, S shapes and B backgrounds texture t belongs to shape t // (T / S) and prefers background
    t // (T / B). Without `tree` the shape is uniform, and otherwise so is the background: each is uniform by itself at
    every rho. Real and cyclic factors are uniform between their ends. Raises ValueError for a rho outside 0 ... 1.
    """

    rho: float
    tree: bool = True

    def __post_init__(self):
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho must lie in 0 ... 1, not {self.rho}")

    def draw(self, space: FactorSpace, n: int, rng: torch.Generator) -> Tensor:
        values = Real().draw(space, n, rng)
        return self.fitted(space, space.index("texture"), values, rng)

    def held(self, space: FactorSpace, k: int, values: Tensor, rng: torch.Generator) -> Tensor:
        """Values (n, K) with the same column k, and those of the three factors that depend on it drawn again."""
        three = [space.index(name) for name in ("background", "shape", "texture")]
        if k not in three:
            return values
        values, fresh = values.clone(), Real().draw(space, len(values), rng)
        for other in three:
            if other != k:
                values[:, other] = fresh[:, other]
        return self.fitted(space, k, values, rng)

    def fitted(self, space: FactorSpace, k: int, values: Tensor, rng: torch.Generator) -> Tensor:
        """Independent values (n, K) whose background, shape and texture are made to fit to column k, one of them."""
        b, s, t = (space.index(name) for name in ("background", "shape", "texture"))
        values, count = values.clone(), space.sizes[t]
        shared, each = count // space.sizes[b], count // space.sizes[s]  # textures of one background, of one shape
        # All three are uniform, so the texture of a background is drawn as the background of a texture: with
        # probability rho one of those that prefer it, else any.
        toss, place = torch.rand(2, len(values), generator=rng, device=rng.device)
        if k == b:
            own = values[:, b] * shared + (place * shared).floor().clamp(max=shared - 1)
            values[:, t] = torch.where(toss < self.rho, own, values[:, t])
        elif k == s and self.tree:
            values[:, t] = values[:, s] * each + (place * each).floor().clamp(max=each - 1)
        if k != b:
            values[:, b] = torch.where(toss < self.rho, (values[:, t] / shared + 1e-4).floor(), values[:, b])
        if k != s and self.tree:
            values[:, s] = (values[:, t] / each + 1e-4).floor()
        return values


class Emblems(Renderer):
    """An object on a patterned ground, drawn in batches on any device, with any value between grid points.

    size   64, 32 or 128 pixels
    law    how factor tuples are drawn; `Tree(0.75)` without one
    few    4 backgrounds, 4 shapes and 8 textures instead of 10, 5 and 20
    boxes  "exact", or "segmenter": where `Views` takes an object's box from

    Raises UserError for another size or word.

    rotation    clockwise, in degrees
    aspect      the object's own width over its own height, at equal area, over what they are at 1
    x, y        the centre of the object's box, from the left and from above, in widths of the picture
    scale       the larger side of that box
    phase       where the pattern starts, once around
    pitch       the pattern's period over its own
    tint        turns the hue of the background's two colours a little

    The object is always whole and in front. A pixel's share of it falls linearly over about one pixel across the
    outline (a tenth more or less where `aspect` stretches it).
    """

    def __init__(self, size: int = 64, law=None, few: bool = False, boxes: str = "exact"):
        if type(size) is not int or size not in SIZES:
            raise UserError(f"emblems come in 64, 32 and 128 pixels, not {size!r}")
        if not isinstance(few, bool):
            raise UserError(f"few must be true or false, not {few!r}")
        self.size, self.few, self.boxes = size, few, one_of("boxes", boxes, BOXES)
        self.name = "emblems_few" if few else "emblems"
        self.space = FEW_SPACE if few else SPACE
        self.image_shape = (3, size, size)
        self.law = Tree(0.75) if law is None else law
        self._tables: dict[torch.device, _Tables] = {}

    def __repr__(self) -> str:
        return f"Emblems({self.size} pixels, {self.law}{', few' if self.few else ''}, {self.boxes} boxes)"

    def __getstate__(self) -> dict:  # the tables are made again
        return self.__dict__ | {"_tables": {}}

    def fingerprint(self) -> str:
        # What the law draws and the measures of the picture, not pictures: their pixels are real-valued, and some of
        # them would be rounded to another level on another machine.
        drawn = self.law.draw(self.space, 200, torch.Generator().manual_seed(0))
        measures = repr((parts.MEASURES, TEXTURES, FEW_TEXTURES, FEW, VIEW, AWAY, RIM, DARK, PALE, TINT))
        digest = hashlib.sha256(drawn.numpy().tobytes() + measures.encode())
        return f"{Data.fingerprint(self)} {digest.hexdigest()[:16]}"

    def independent(self) -> Emblems:
        """The same pictures with all factors independent."""
        return Emblems(self.size, Real(), self.few).to(self.device)

    @property
    def side(self) -> int:
        """Pixels of the wider view, which the patches of a background discriminator cover exactly."""
        return 32 if self.size == 32 else self.size - 2

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        values = draw_fixed(self.law, self.space, k, n, rng, groups)
        if isinstance(self.law, Tree):
            values = self.law.held(self.space, k, values, rng)
        return {"x": self.render(values), "factors": values}

    def render(self, values: Tensor) -> Tensor:
        """Images (n, 3, size, size) float32 in [0, 1] of values (n, 11), in the order of `space`.

        Phase goes around (1 is 0). Other values beyond their range are drawn at its end and a category as the nearest
        one: a check would read them back to the host, so it stays with whoever takes values from outside
        (`space.check`). Raises ValueError for another number of columns.
        """
        tables, pieces = self._pieces(values, self.size)
        return torch.cat([_draw(piece, _Frame(self.size), tables) for piece in pieces])

    def mask(self, values: Tensor) -> Tensor:
        """How much of each pixel the object covers, (n, 1, size, size) float32 in [0, 1], of values as `render`."""
        tables, pieces = self._pieces(values, self.size)
        return torch.cat([_Object(piece, _Frame(self.size), tables).cover()[:, None] for piece in pieces])

    def view(self, values: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same scenes seen wider, full (n, 3, w, w), and the objects' boxes in there, (n, 4) float32.

        The window is 1.2 times as wide as the object view, and its centre is moved by up to a quarter of its side
        across and down, drawn from rng. w is `side`: 126 pixels at 128, 62 at 64 and 32 at 32. A box is (x1, y1, x2,
        y2) in pixels, cut to the view; x1 = x2 or y1 = y2 where the object lies outside.
        """
        return self.window(values, self.places(len(values), rng), self.side)

    def places(self, n: int, rng: torch.Generator) -> Tensor:
        """Upper left corners (n, 2) of wider views, in object views from the upper left corner of the object view."""
        moved = (2 * torch.rand(n, 2, generator=rng, device=rng.device) - 1) * (AWAY * VIEW)
        return 0.5 - VIEW / 2 + moved

    def window(self, values: Tensor, corners: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """As `view`, of wider views whose corners (n, 2) are given, in pictures (n, 3, pixels, pixels)."""
        tables, pieces = self._pieces(values, pixels)
        count, full, boxes = len(pieces[0]), [], []
        for piece, corner in zip(pieces, corners.to(values.device).split(count or 1), strict=True):
            frame = _Frame(pixels, corner, VIEW)
            full.append(_draw(piece, frame, tables))
            boxes.append(_Object.box(piece, frame, tables))
        return torch.cat(full), torch.cat(boxes)

    def _pieces(self, values: Tensor, pixels: int) -> tuple[_Tables, tuple[Tensor, ...]]:
        """Constants on the values' device, and values within their ranges in pieces."""
        if values.ndim != 2 or values.shape[1] != len(self.space):
            raise ValueError(f"factors must be (n, 11) for {', '.join(self.space.names)}, not {tuple(values.shape)}")
        if values.device not in self._tables:
            self._tables[values.device] = _Tables(self.few, values.device)
        tables = self._tables[values.device]
        values = torch.minimum(torch.maximum(values.float(), tables.low), tables.high)
        # On a CPU so many that what is in the works stays in its cache.
        count = max(1, 16 * 64**2 // pixels**2) if values.device.type == "cpu" else 1024
        return tables, values.split(count)


class _Tables:
    """Constants on a device."""

    def __init__(self, few: bool, device):
        space = FEW_SPACE if few else SPACE
        ends = [(-math.inf, math.inf) if f.kind == "cyclic" else (f.low, f.high) for f in space]
        self.low, self.high = torch.tensor(ends, device=device).T
        chosen = [BACKGROUNDS.index(name) for name in space["background"].labels]
        tables, periods = parts.patterns()
        self.patterns, self.periods = tables[chosen].to(device), periods[chosen].to(device)
        self.grounds = parts.colours(list(parts.PALETTES.values()))[chosen].to(device)  # (backgrounds, 2, 3)
        self.soft = torch.tensor([parts.SOFT.get(name, 0.0) for name in space["background"].labels], device=device)
        self.outlines, self.corners = parts.distances().to(device), parts.corners().to(device)
        hues, fills = torch.tensor(FEW_TEXTURES if few else TEXTURES).T
        strong = parts.pure(torch.tensor(list(parts.HUES.values())))[hues]
        self.colours = torch.stack([strong, strong.lerp(torch.ones(3), PALE)], dim=1).to(device)  # (textures, 2, 3)
        self.fills = fills.to(device)


class _Frame:
    """Square pictures of windows: `corner` (n, 2) and `side` in object views, the object view itself by default."""

    def __init__(self, pixels: int, corner: Tensor | None = None, side: float = 1.0):
        self.pixels, self.corner, self.side = pixels, corner, side
        self.fine = pixels / side  # pixels per object view

    def places(self, device) -> tuple[Tensor, Tensor]:
        """The pixels' centres from the left (n or 1, 1, w) and from above (n or 1, w, 1), in object views."""
        places = (torch.arange(self.pixels, device=device) + 0.5) / self.fine
        if self.corner is None:
            return places[None, None, :], places[None, :, None]
        x, y = self.corner.T[:, :, None, None]
        return x + places[None, :], y + places[:, None]


class _Object:
    """The object's own frame, at every pixel."""

    def __init__(self, values: Tensor, frame: _Frame, tables: _Tables):
        self.frame = frame
        shape = _index(values[:, 1])
        m, middle, _ = _pose(values, tables)
        place = values[:, 5:7] - middle  # of the shape's own origin
        x, y = frame.places(values.device)
        x, y = x - place[:, 0, None, None], y - place[:, 1, None, None]
        inverse = torch.linalg.inv_ex(m).inverse[..., None, None]
        self.u = inverse[:, 0, 0] * x + inverse[:, 0, 1] * y  # (n, w, w)
        self.v = inverse[:, 1, 0] * x + inverse[:, 1, 1] * y
        self.unit = torch.linalg.det(m).sqrt()[:, None, None]  # object views per unit of the shape
        scaled = [((c + parts.REACH) / (2 * parts.REACH)).clamp(0, 1) for c in (self.u, self.v)]
        self.distance = _look_up(tables.outlines, shape, *scaled) * self.unit  # in object views

    def cover(self, inset: float = 0.0) -> Tensor:
        """A pixel's share (n, w, w) of the object, or of what lies deeper in it than `inset`."""
        return (0.5 - self.frame.fine * (self.distance + inset)).clamp(0, 1)

    @staticmethod
    def box(values: Tensor, frame: _Frame, tables: _Tables) -> Tensor:
        """Boxes (n, 4) in pixels, cut to the picture."""
        half = _pose(values, tables)[2] / 2
        ends = torch.cat([values[:, 5:7] - half, values[:, 5:7] + half], dim=1)
        if frame.corner is not None:
            ends = ends - frame.corner.repeat(1, 2)
        return (ends * frame.fine).clamp(0, frame.pixels)


def _pose(values: Tensor, tables: _Tables) -> tuple[Tensor, Tensor, Tensor]:
    """What takes the shape's own frame to object views (n, 2, 2), the middle of its box from its origin (n, 2) and the
    box's sides (n, 2)."""
    angle, long = torch.deg2rad(values[:, 3]), values[:, 4].sqrt()
    cos, sin = angle.cos(), angle.sin()
    m = torch.stack([cos * long, -sin / long, sin * long, cos / long], dim=1).view(-1, 2, 2)
    corners = tables.corners[_index(values[:, 1])] @ m.mT  # (n, points, 2)
    rounding = parts.ROUND * m.square().sum(2).sqrt()  # a circle becomes an ellipse
    low, high = corners.amin(1) - rounding, corners.amax(1) + rounding
    unit = values[:, 7, None] / (high - low).amax(1, keepdim=True)
    return m * unit[..., None], (low + high) / 2 * unit, (high - low) * unit


def _look_up(tables: Tensor, index: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Tables (k, m + 1, m + 1) of numbers index (n,) at places (n, h, w) in [0, 1], between their points."""
    count, rows = tables.shape[:2]
    atlas = tables.view(1, 1, count * rows, rows)  # one under the other, so that none is copied for a picture
    row = index[:, None, None] * rows + down * (rows - 1)
    grid = torch.stack([2 * across - 1, row * (2 / (count * rows - 1)) - 1], dim=-1).flatten(0, 1)[None]
    found = F.grid_sample(atlas, grid, "bilinear", "border", align_corners=True)
    return found.view(across.shape)


def _draw(values: Tensor, frame: _Frame, tables: _Tables) -> Tensor:
    """Images (n, 3, w, w) of values (n, 11)."""
    image, thing = _ground(values, frame, tables), _Object(values, frame, tables)
    texture = _index(values[:, 2])
    first, second = tables.colours[texture].unbind(1)
    share = _fill(thing, tables.fills[texture][:, None, None])[:, None]
    colour = torch.lerp(first[..., None, None], second[..., None, None], share)
    colour = colour * (DARK + (1 - DARK) * thing.cover(RIM))[:, None]
    return torch.lerp(image, colour, thing.cover()[:, None]).clamp_(0, 1)


def _fill(thing: _Object, fill: Tensor) -> Tensor:
    """The second colour's share (n, w, w); fill (n, 1, 1)."""
    u, v = thing.u, thing.v
    wide, radius = parts.SPOT
    spots = radius - torch.hypot((u + wide / 2) % wide - wide / 2, (v + wide / 2) % wide - wide / 2)
    depth = torch.where(fill == 1, parts.band(v, parts.STRIPE, parts.STRIPE / 2), torch.where(fill == 2, spots, u))
    share = (0.5 + depth * (thing.unit * thing.frame.fine)).clamp(0, 1)
    return torch.where(fill == 0, torch.zeros_like(share), share)


def _ground(values: Tensor, frame: _Frame, tables: _Tables) -> Tensor:
    """The background alone, (n, 3, w, w)."""
    index = _index(values[:, 0])
    pitch, periods = values[:, 9, None, None], tables.periods[index]
    # Once around, the pattern goes one period across and two down: by a single number, but nearly anywhere.
    x, y = frame.places(values.device)
    x = ((x - 0.5) / pitch / periods[:, 0, None, None] + values[:, 8, None, None]) % 1
    y = ((y - 0.5) / pitch / periods[:, 1, None, None] + 2 * values[:, 8, None, None]) % 1
    x, y = torch.broadcast_tensors(x, y)
    depth = _look_up(tables.patterns, index, x, y) * pitch  # in object views
    soft = (tables.soft[index][:, None, None] * pitch).clamp(min=1 / frame.fine)
    first, second = _turned(tables.grounds[index], values[:, 10] * TINT).unbind(1)
    return torch.lerp(first[..., None, None], second[..., None, None], (0.5 + depth / soft).clamp(0, 1)[:, None])


def _turned(colours: Tensor, turn: Tensor) -> Tensor:
    """Colours (n, 2, 3) turned around grey by parts (n,) of a full turn."""
    angle = 2 * math.pi * turn[:, None, None]
    grey = colours.mean(2, keepdim=True)
    aside = (colours.roll(1, 2) - colours.roll(-1, 2)) / math.sqrt(3)
    return grey + angle.cos() * (colours - grey) + angle.sin() * aside


def _index(column: Tensor) -> Tensor:
    return column.round().long()


def load(size: int = 64, rho: float = 0.75, tree: bool = True, few: bool = False, boxes: str = "exact") -> Emblems:
    """Emblems by the law `Tree(rho, tree)`.

    Raises UserError for another size, rho, tree, few or boxes.
    """
    if isinstance(rho, bool) or not isinstance(rho, (int, float)) or not 0 <= rho <= 1:
        raise UserError(f"rho must be a number in 0 ... 1, not {rho!r}")
    if not isinstance(tree, bool):
        raise UserError(f"tree must be true or false, not {tree!r}")
    return Emblems(size, Tree(float(rho), tree), few, boxes)
