"""3D Shapes (Burgess and Kim 2018), drawn by casting rays into its scene or read from its file.

A cube, cylinder, sphere or capsule stands in the middle of a square room, and a camera goes around it on a circle. Six
factors act independently, yet not all of them leave traces alike: the three hues colour large areas, while scale and
shape share one silhouette. The drawn and the real pictures differ by 0.7 grey levels of 255 on average (`Shapes3D`), so
no download is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disentkit.data import raycast, shapes3d_file
from disentkit.data.base import ArrayData, Data, Renderer, StoredGrid
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Grid
from disentkit.data.raycast import Interval, Point, Rays, Spot, Window
from disentkit.errors import UserError

SIZES = (64, 32)
HUES = tuple(i / 10 for i in range(10))
SPACE = FactorSpace(
    [
        Factor("floor_hue", "cyclic", HUES),
        Factor("wall_hue", "cyclic", HUES),
        Factor("object_hue", "cyclic", HUES),
        Factor("scale", "real", tuple((21 + 2 * i) / 28 for i in range(8))),
        category("shape", "cube", "cylinder", "sphere", "capsule"),
        Factor("orientation", "real", tuple(60 * i / 14 - 30 for i in range(15)), unit="deg"),
    ]
)

# The scene. x points right and y away from a camera at orientation 0, z up; the object stands around x = y = 0.
ROOM, WALL = 3.5, 2.0  # half the room's width; height of its walls
EYE, AWAY = 0.75, 2.5  # the camera's height and its distance from the object's axis
FOCAL = 0.5 / math.tan(math.radians(25))  # in picture widths: the camera sees 50 degrees
RADIUS = (0.35, 0.375, 0.425, 0.325)  # half width of cube, cylinder, sphere and capsule at scale 1
HEIGHT = (0.7, 0.75, 0.85, 1.3)
FAR = 20.0  # further than anything in the room

# Light. What is lit has its colour times ambient + head * (facing the camera's line of sight) + lamp.
SKY = (153 / 255, 226 / 255, 249 / 255)
LAMP = Spot((-1.5, 0.5, 7.6), (-1.5, 0.5, 0.0), 10)
AMBIENT, HEAD, LIGHT = 0.346, 0.602, 0.976
GLOSS, EDGE = 0.149, 0.062  # white that the lamp adds on the object's lit side; the cosine over which it sets in
GAIN = 0.983  # floor and walls are a little darker by their texture

SAMPLES = 3  # per pixel and direction; the original was drawn three times as large, without smoothing, and reduced
OBJECT = (4, 62, 10, 54)  # rows and columns of the 64-pixel picture that hold every object, its smoothed edge too
SHADOW = (44, 64, 10, 62)  # every shadow
WALLS, GROUND = (12, 46, 0, 64), (32, 64, 0, 64)  # the walls, and what lies below the horizon


class Shapes3D(Renderer):
    """3D Shapes drawn in batches on any device, on the grid of the original or between its points.

    size  64 as the original, or 32: its area average, but for an edge raster that is twice as coarse
    law   how factor tuples are drawn; `Grid()` without one

    Raises UserError for another size.

    The scene was fitted to 50 original pictures; they lack labels of scale and orientation, which were found with it.
    Its measures came out as the round numbers above: each of them moved by 0.02 fits worse. The original's edges lie on
    thirds of pixels, which gives the raster. Mean absolute difference to the 50 in grey levels of 255: sky 0.07, walls
    0.79, floor 0.97, object 1.46, all 0.67; outlines of the object overlap by 0.987 (intersection over union), one of
    them by 0.950 only (`tests/benchmarks/shapes3d.py`). Left out: the original lights only the corners of small facets,
    which shows as kinks on sphere and capsule, and the floor's darker patches. Orientation's sign is that of the
    official animation, taken to run upwards.
    """

    name = "shapes3d"
    space = SPACE

    def __init__(self, size: int = 64, law=None):
        self.size = _known_size(size)
        self.image_shape = (3, size, size)
        self.law = Grid() if law is None else law
        self._tables: dict[torch.device, _Tables] = {}

    def __repr__(self) -> str:
        return f"Shapes3D({self.size} pixels, {self.law})"

    def render(self, values: Tensor) -> Tensor:
        """Images (n, 3, size, size) float32 in [0, 1] of values (n, 6): three hues, scale, shape 0 ... 3, degrees.

        Hues go around (1 is 0). Scale and orientation beyond their range are drawn at its end and a shape as the
        nearest one: a check would read the values back to the host, so it stays with whoever takes values from outside
        (`space.check`). Raises ValueError for another number of columns.
        """
        if values.ndim != 2 or values.shape[1] != len(self.space):
            raise ValueError(f"factors must be (n, 6) for {', '.join(self.space.names)}, not {tuple(values.shape)}")
        if values.device not in self._tables:
            self._tables[values.device] = _Tables(self.size, values.device)
        tables = self._tables[values.device]
        # So many that their samples stay in a CPU's cache, or fit into any GPU's memory.
        pieces = values.float().split(16 * (64 // self.size) ** 2 if values.device.type == "cpu" else 256)
        return torch.cat([_draw(piece, tables) for piece in pieces])


class _Tables:
    """Constants on a device, and the raster."""

    def __init__(self, size: int, device):
        weights = raycast.lanczos(64, SAMPLES, device)
        if size == 32:  # average every two pixels, and let one sample stand for two
            weights = weights.unflatten(0, (32, 2)).mean(1).unflatten(1, (32 * SAMPLES, 2)).sum(2)
        self.raster = raycast.Raster(weights, FOCAL)
        self.radius, self.height = torch.tensor((RADIUS, HEIGHT), device=device)
        self.sky = torch.tensor(SKY, device=device)[:, None, None]
        self.primaries = torch.tensor((0.0, 4.0, 2.0), device=device)

    def rgb(self, hue: Tensor) -> Tensor:
        """Pure colours (n, 3, 1, 1) of hues (n,): HSV with saturation and value one."""
        return (((hue[:, None] * 6 + self.primaries) % 6 - 3).abs() - 1).clamp(0, 1)[:, :, None, None]


class _View:
    """The camera of each picture of a batch, and the light that it sees."""

    def __init__(self, degrees: Tensor, tables: _Tables):
        self.raster, self.sky = tables.raster, tables.sky
        self.turn = torch.deg2rad(degrees.clamp(-30, 30))
        sin, cos = self.turn.sin(), self.turn.cos()
        self.place = AWAY * sin, -AWAY * cos
        self.back = sin[:, None, None], -cos[:, None, None]  # the level direction towards the camera

    def rays(self, window: Window, count: int | None = None) -> Rays:
        """Rays through the pixels of a window, or through those of a picture of `count` pixels."""
        return raycast.level_camera(*self.place, EYE, self.turn, *self.raster.ahead(window, count))

    def samples(self, window: Window) -> Rays:
        return self.rays(window, self.raster.samples)

    def light(self, point: Point, normal: Point) -> tuple[Tensor, Tensor]:
        """Brightness and added white (n, h, w) at points with unit normals."""
        facing, strength = LAMP.shine(point, normal)
        head = (normal[0] * self.back[0] + normal[1] * self.back[1]).clamp(min=0)
        bright = AMBIENT + HEAD * head + LIGHT * facing.clamp(min=0) * strength
        return bright, GLOSS * strength * (facing / EDGE + 0.5).clamp(0, 1)


def _draw(values: Tensor, tables: _Tables) -> Tensor:
    """Images (n, 3, size, size) of values (n, 6)."""
    view, solid = _View(values[:, 5], tables), _Solid.of(values[:, 3], values[:, 4], tables)
    floor, wall, body = (tables.rgb(hue) for hue in values[:, :3].unbind(1))
    image = _room(view, floor, wall)
    _cast_shadow(image, view, solid, floor)
    _put_object(image, view, solid, body)
    return image.clamp_(0, 1)


# ---- the room


def _room(view: _View, floor: Tensor, wall: Tensor) -> Tensor:
    """The empty room under the sky, (n, 3, size, size)."""
    rays = view.samples(WALLS)
    back, side = _wall_depths(rays)  # (n, 1, samples): the walls are upright
    near = torch.minimum(back, side)
    bottom, top = (view.raster.above((z - EYE) / near, WALLS) for z in (0.0, WALL))
    on_wall = view.raster.join(bottom - top, WALLS)
    on_side = raycast.positive_(back - side) @ view.raster.weights.T  # (n, 1, size)

    rays = view.rays(WALLS)
    back, side = _wall_depths(rays)
    nil, one, right = torch.zeros_like(back), torch.ones_like(back), rays.direction[0].sign()
    x, _, z = point = rays.at(back)
    front = _textured(wall, view.light(point, (nil, -one, nil))[0], _wallpaper(x, z))
    _, y, z = point = rays.at(side)
    aside = _textured(wall, view.light(point, (-right, nil, nil))[0], _wallpaper(-right * y, z))
    walls = front + on_side[:, None] * (aside - front)

    rays = view.rays(GROUND)
    depth = raycast.plane(rays.origin[2], rays.direction[2], 0.0)
    x, y, _ = point = rays.at(depth)
    tiles = 1 + 0.012 * ((3.2 - depth) / 1.4).clamp(0, 1) * _hexagons(y, x)  # far ones are too small to be seen
    ground = _textured(floor, view.light(point, (nil, nil, one))[0], tiles)

    image = torch.cat([view.sky.expand_as(ground), ground], dim=2)  # the horizon is in the middle of the picture
    part = image[:, :, view.raster.part(WALLS)[0]]
    part += on_wall[:, None] * (walls - part)
    return image


def _wall_depths(rays: Rays) -> tuple[Tensor, Tensor]:
    """Depth (n, 1, w) of the back wall and of that side wall which the ray runs towards."""
    (ox, oy, _), (dx, dy, _) = rays.origin, rays.direction
    back, side = raycast.plane(oy, dy, ROOM), raycast.plane(ox, dx, torch.where(dx < 0, -ROOM, ROOM))
    return back.clamp(max=FAR), side.clamp(max=FAR)


def _textured(rgb: Tensor, bright: Tensor, texture: Tensor) -> Tensor:
    return (rgb * (GAIN * bright * texture)[:, None]).clamp(0, 1)


def _hexagons(u: Tensor, v: Tensor) -> Tensor:
    """A honeycomb with five cells per two units of u, as the sum of its three plane waves; 3 in the cells' middles."""
    return 2 * torch.cos(5 * math.pi * u) * torch.cos(8 * math.pi * v) + torch.cos(10 * math.pi * u)


def _wallpaper(along: Tensor, height: Tensor) -> Tensor:
    """The walls' faint texture around 1: honeycomb, and a darker slanted patch every two units."""
    u, v = torch.remainder(along + 0.83, 2) - 1, height - 1.01  # from the patch's middle
    long, short = (0.63 * u - 0.777 * v) / 0.441, (0.777 * u + 0.63 * v) / 0.194
    patch = ((1 - (long * long + short * short).sqrt()) * 2.75 + 0.5).clamp(0, 1)
    return 1 + 0.007 * _hexagons(along, height) - 0.044 * patch


# ---- the object


@dataclass(frozen=True)
class _Solid:
    """The objects of a batch; each field is (n, 1, 1).

    Each is what four upright faces, a tube, a floor and a lid, and a ball have in common. Those that a shape does not
    have are FAR away, so that no image needs a branch.
    """

    radius: Tensor
    height: Tensor
    cube: Tensor  # bool
    flat: Tensor  # bool: has a lid, so cube or cylinder

    @classmethod
    def of(cls, scale: Tensor, shape: Tensor, tables: _Tables) -> _Solid:
        scale = scale.clamp(SPACE["scale"].low, SPACE["scale"].high)
        kind = shape.round().clamp(0, 3).long()
        fields = tables.radius[kind] * scale, tables.height[kind] * scale, kind == 0, kind <= 1
        return cls(*(f[:, None, None] for f in fields))

    def sides(self, rays: Rays) -> tuple[Interval, Interval, Interval]:
        """Between the cube's faces across x and y, and inside the others' tube."""
        half, radius = torch.where(self.cube, self.radius, FAR), torch.where(self.cube, FAR, self.radius)
        x, y = (raycast.slab(o, d, -half, half) for o, d in zip(rays.origin[:2], rays.direction[:2], strict=True))
        return x, y, raycast.tube(rays, radius)

    def floor_and_lid(self, rays: Rays) -> Interval:
        return raycast.slab(rays.origin[2], rays.direction[2], 0.0, self.height)

    def centre(self, rays: Rays, tube: Interval) -> Tensor:
        return raycast.capsule_centre(rays, tube[0], self.radius, 0.0, self.height)

    def edges(self, rays: Rays, sides: tuple[Interval, Interval, Interval]) -> tuple[Tensor, Tensor, Tensor]:
        """In each column of a camera's rays the slopes (n, 1, w) of the object's lower and upper edge, and between them
        of the lid's near edge; all of them 0 where it is not met."""
        near, far = raycast.both(*sides)
        rise = self.height - rays.origin[2]
        brim, back = rise / near, rise / far
        top = torch.where(
            self.flat, torch.maximum(brim, back), raycast.ball_edges(rays, sides[2], self.height - self.radius)[1]
        )
        bottom = torch.where(self.flat, -rays.origin[2] / near, raycast.ball_edges(rays, sides[2], self.radius)[0])
        brim = torch.where(self.flat, brim, top)
        met = near < far
        bottom, brim, top = (torch.where(met, edge, 0.0) for edge in (bottom, brim, top))
        return bottom, brim, top

    def gap(self, rays: Rays, sides: tuple[Interval, Interval, Interval]) -> Tensor:
        """Positive where rays meet the object."""
        near, far = raycast.both(*sides, self.floor_and_lid(rays))
        ball = raycast.ball_gap(rays, self.centre(rays, sides[2]), torch.where(self.flat, FAR, self.radius))
        return torch.minimum(far - near, ball)


def _cast_shadow(image: Tensor, view: _View, solid: _Solid, floor: Tensor) -> None:
    """Darken the floor of `image` where the object hides the lamp."""
    rays = view.samples(SHADOW)
    x, y, z = rays.at(raycast.plane(rays.origin[2], rays.direction[2], 0.0))
    rays = LAMP.rays_to((x, y, torch.zeros_like(z)))
    dark = view.raster.shrink(raycast.positive_(solid.gap(rays, solid.sides(rays))), SHADOW)
    part = image[:, :, *view.raster.part(SHADOW)]
    part += dark[:, None] * (floor * (AMBIENT * GAIN) - part)


def _put_object(image: Tensor, view: _View, solid: _Solid, rgb: Tensor) -> None:
    """Draw the object over `image`: its faces are told apart column by column of samples, and lit once per pixel."""
    rays = view.samples(OBJECT)
    sides = x, y, tube = solid.sides(rays)  # of a camera's rays these depend on the column alone
    bottom, brim, top = (view.raster.above(edge, OBJECT) for edge in solid.edges(rays, sides))  # (n, columns, h)
    flank = solid.cube * raycast.positive_(x[0] - y[0])
    strips = bottom - top, brim - top, (bottom - brim) * flank.mT
    whole, on_lid, on_flank = (view.raster.join(s, OBJECT)[:, None] for s in strips)

    rays = view.rays(OBJECT)
    x, y, tube = solid.sides(rays)
    centre = solid.centre(rays, tube)
    bent = torch.where(solid.flat, tube[0], raycast.ball(rays, centre, solid.radius)[0])
    nil, one = torch.zeros_like(solid.radius), torch.ones_like(solid.radius)

    def face(depth: Tensor, *normal: Tensor) -> Tensor:
        bright, white = view.light(rays.at(depth.clamp(-FAR, FAR)), normal)
        return (rgb * bright[:, None] + white[:, None]).clamp(0, 1)

    bend = [p / solid.radius for p in rays.at(bent)[:2]]
    across, ahead = torch.where(solid.cube, nil, bend[0]), torch.where(solid.cube, -one, bend[1])
    upwards = torch.where(solid.flat, nil, (EYE + bent * rays.direction[2] - centre) / solid.radius)
    front = face(torch.where(solid.cube, y[0], bent), across, ahead, upwards)
    flank = face(x[0], rays.origin[0].sign(), nil, nil)
    lid = face(solid.floor_and_lid(rays)[0], nil, nil, one)

    part = image[:, :, *view.raster.part(OBJECT)]
    part += whole * (front - part) + on_lid * (lid - front) + on_flank * (flank - front)


def _known_size(size: int) -> int:
    if not isinstance(size, int) or size not in SIZES:
        raise UserError(f"shapes3d comes in {' and '.join(map(str, SIZES))} pixels, not {size!r}")
    return size


# ---- the file


def load(size: int = 64, law=None, source: str | Path | None = None, verify: bool = True) -> Data:
    """The renderer, or with `source` the real pictures of the official h5.

    source  path of the official file, or of a folder that holds it. All its pictures are read into memory as bytes
            (5.9 GB; 1.5 GB at size 32, averaged as they are read), which takes a minute or so, and are then indexed
    verify  compare the md5 first; False also accepts a part of the set with the same keys. A part that is a full grid
            by itself is indexed as one, any other is an `ArrayData`

    Raises UserError for a missing, wrong or truncated file, another size, or a law on a part that is no grid.
    """
    if source is None:
        return Shapes3D(size, law)
    _known_size(size)
    path = shapes3d_file.place_of(source)
    images, labels = shapes3d_file.read(path, size, verify)
    space, index = _grid_of(labels, path)
    array = ArrayData(images, space.from_grid(index), space, name="shapes3d")
    if len(index) == space.grid_size and torch.equal(space.tuple_of(torch.arange(len(index))), index):
        return StoredGrid(array, law)
    if law is not None:
        raise UserError(f"{path.name} holds only some tuples of the grid, so no law can draw from it; leave `law` out")
    return array


def _grid_of(labels: np.ndarray, path: Path) -> tuple[FactorSpace, Tensor]:
    """The space of the grid values that occur in labels (N, 6), and each row's indices (N, 6) in it."""
    factors, columns = [], []
    for factor, column in zip(SPACE, labels.T, strict=True):
        distance = np.abs(column[:, None] - np.array(factor.values))  # (N, values)
        wrong = ~(distance.min(1) < 1e-4)
        if wrong.any():
            raise UserError(f"{path}: labels hold {factor.name} {column[wrong][0]:g}, which 3D Shapes has not")
        found, place = np.unique(distance.argmin(1), return_inverse=True)
        if factor.kind == "category":
            factors.append(category(factor.name, *(factor.labels[i] for i in found)))
        else:
            factors.append(Factor(factor.name, factor.kind, tuple(factor.values[i] for i in found), unit=factor.unit))
        columns.append(torch.from_numpy(place.reshape(-1)))
    return FactorSpace(factors), torch.stack(columns, dim=1)
