"""Toys on a turntable, cast from our own geometry: who it is, how far it is turned, what it stands on.

The ground turns with the toy and the backdrop and the lamp stay, as on a photographer's turntable: so a picture of a
toy from behind shows its ground from behind as well, and a model that puts identity, pose and background together must
turn the ground by the pose. As a further factor, by option, the toys make faces. No picture of others is used.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from disentkit.data import combinations
from disentkit.data.base import Renderer
from disentkit.data.creature_parts import EXPRESSIONS, SHAPES, Part, face, normals, painted, rgb
from disentkit.data.creature_toys import CREATURES, GROUNDS
from disentkit.data.factors import FactorSpace, category
from disentkit.data.laws import Grid
from disentkit.data.raycast import Rays
from disentkit.errors import UserError, one_of

SIZES = (32, 64, 128)
TURNS = 8
FULL, FEW = 5, 2  # of the unbalanced law: toys with all poses; poses of the others

FACTORS = (
    category("identity", *CREATURES),
    category("pose", *(f"{360 * k // TURNS} deg" for k in range(TURNS))),
    category("background", *GROUNDS),
    category("expression", *EXPRESSIONS),
)
SPACE, SPACE_WITH_EXPRESSION = FactorSpace(FACTORS[:3]), FactorSpace(FACTORS)

# The scene. The camera looks along +y and down; x points right, z up, and the turntable's axis is x = y = 0.
EYE = (0.0, -3.7, 1.65)
DOWN = math.radians(13.5)
FOCAL = 1.45  # in picture widths
FOG = (5.0, 11.0)  # depths, along the line of sight, between which the ground pales into the horizon's colour
SAMPLES = {32: 4, 64: 4, 128: 3}  # per pixel and direction

# Light. Directions point to it; it falls on the toy as ambient (more from above) + lamp + gloss.
LAMP = (-0.48, -0.52, 0.71)
AMBIENT, ABOVE, LIGHT, GLOSS = 0.5, 0.14, 0.48, 0.2
SHADE = (0.36, 0.34)  # how much of the ground's light comes from the lamp and from the open sky
REACH, CELLS = 2.6, 52  # shadows are found on a square of the ground, half as wide as that, of so many cells across


class Creatures(Renderer):
    """Ten toys on a turntable, seen from eight sides, on ten patterned grounds; with `expression` also in five moods.

    size        32, 64 or 128
    law         how factor tuples are drawn; `Grid()` without one
    expression  True adds the factor "expression"; without it every face is neutral

    Raises UserError for another size.

    All factors are categories. Pose k turns toy and ground together by 45 k degrees, counter-clockwise as seen from
    above: 0 faces the camera, 90 looks to the right, 180 away. The lamp, the camera and the backdrop stand still, so a
    shadow always falls to the right and back. What to know:

    - pose moves nearly all pixels, as the ground turns too; no pattern looks the same after a turn by one to seven
      eighths, so the ground alone tells the pose;
    - identity moves those of the toy and of its shadow, and no others; background moves all pixels but the toy's;
    - expression repaints eyes and mouth. A planted limit: seen from behind (135 to 225 degrees) nothing of it shows,
      and from the sides (90 and 270) little, nothing for robot and bus, whose faces are flat.

    How it is made: each toy is cast for each pose, and each ground too, with many samples per pixel. Toys are laid over
    grounds that their shadows darken. All pictures of the grid are kept as bytes on the device and looked up.
    """

    name = "creatures"
    space = SPACE

    def __init__(self, size: int = 64, law=None, expression: bool = False):
        self.size = _known_size(size)
        self.image_shape = (3, size, size)
        self.space = SPACE_WITH_EXPRESSION if expression else SPACE
        self.law = Grid() if law is None else law
        self._tables: dict[torch.device, Tensor] = {}

    def __repr__(self) -> str:
        more = ", expression" if len(self.space) == 4 else ""
        return f"Creatures({self.size} pixels{more}, {self.law})"

    def __getstate__(self) -> dict:  # the table is found again
        return self.__dict__ | {"_tables": {}}

    def render(self, values: Tensor) -> Tensor:
        """Images (n, 3, size, size) float32 in [0, 1] of the tuples nearest to values (n, 3), or (n, 4).

        Values beyond a factor's range are taken at its end: a check would read them back to the host, so it stays with
        whoever takes values from outside (`space.check`). The first batch casts all pictures. Raises ValueError for
        another number of columns.
        """
        self._check(values)
        if values.device not in self._tables:
            self._tables[values.device] = _table(self.size, len(self.space) == 4).to(values.device)
        rows = self.space.flat_of(self.space.to_grid(values))
        return self._tables[values.device][rows].float().div_(255)

    def cast(self, values: Tensor) -> Tensor:
        """As `render`, but cast anew on the CPU: without steps of 1/255, and with the pose anywhere between those of
        the grid (2.5 is 112.5 degrees; it goes around). A picture takes about two hundredths of a second."""

        def draw(identity: str, degrees: float, background: str, mood: str) -> Tensor:
            images, cover = _toy(identity, degrees, (mood,), self.size)
            shade, ground = _shade(identity, degrees, self.size), _ground(background, degrees, self.size)
            return _laid(images, cover, shade, ground)[0]

        return self._each(values, draw, 3, 4)

    def mask(self, values: Tensor) -> Tensor:
        """How much of each pixel the toy covers, (n, 1, size, size) float32 in [0, 1], of values as `cast` takes."""
        return self._each(values, lambda *row: _toy(*row, (), self.size)[1], 1, 2)

    def shade(self, values: Tensor) -> Tensor:
        """What the toy's shadow leaves of the light on each pixel of the ground, (n, 1, size, size) in [0, 1], of
        values as `cast` takes. It is 1 where there is no shadow, and given behind the toy as well."""
        return self._each(values, lambda *row: _shade(*row, self.size), 1, 2)

    def _each(self, values: Tensor, draw: Callable[..., Tensor], channels: int, first: int) -> Tensor:
        """Images (n, channels, size, size) that `draw` makes of the first so many of identity, degrees, background and
        expression; each row once that comes more often."""
        self._check(values)
        made: dict[tuple, Tensor] = {}
        images = torch.empty(len(values), channels, self.size, self.size, device="cpu")
        with _on_cpu():
            nearest, poses = self.space.to_grid(values).tolist(), values[:, 1].tolist()
            for k, (row, pose) in enumerate(zip(nearest, poses, strict=True)):
                labels = [f.labels[i] for f, i in zip(FACTORS, [*row, 0], strict=False)]  # neutral where none is asked
                labels[1] = pose * 360 / TURNS
                key = tuple(labels[:first])
                if key not in made:
                    made[key] = draw(*key)
                images[k] = made[key]
        return images.to(values.device)

    def _check(self, values: Tensor) -> None:
        if values.ndim != 2 or values.shape[1] != len(self.space):
            names = ", ".join(self.space.names)
            raise ValueError(f"factors must be (n, {len(self.space)}) for {names}, not {tuple(values.shape)}")


@functools.cache
def _table(size: int, expression: bool) -> Tensor:
    """All pictures of the grid, (tuples, 3, size, size) uint8 on the CPU: made once, for all renderers."""
    moods = EXPRESSIONS if expression else EXPRESSIONS[:1]
    with _on_cpu():
        table = torch.empty(len(CREATURES), TURNS, len(GROUNDS), len(moods), 3, size, size, dtype=torch.uint8)
        for k in range(TURNS):
            degrees = k * 360 / TURNS
            grounds = torch.stack([_ground(name, degrees, size) for name in GROUNDS])[:, None]
            for i, name in enumerate(CREATURES):
                images, cover = _toy(name, degrees, moods, size)
                pictures = _laid(images, cover, _shade(name, degrees, size), grounds)
                table[i, k] = pictures.mul_(255).round_().byte()
    return table.flatten(0, 3)


def _on_cpu():
    """A context in which new tensors lie on the CPU, also where another device is the default; a device as context
    makes every operation slower, so only there."""
    return contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


# ---- camera


@functools.cache
def _camera(size: int) -> tuple[Tensor, Tensor]:
    """Where the rays start (3,), and their directions (3, samples, samples)."""
    count = size * SAMPLES[size]
    place = ((torch.arange(count) + 0.5) / count - 0.5) / FOCAL
    right, up = place.expand(count, count), -place[:, None].expand(count, count)
    cos, sin = math.cos(DOWN), math.sin(DOWN)
    return torch.tensor(EYE), torch.stack([right, cos + sin * up, cos * up - sin])


def _turn(degrees: float) -> Tensor:
    """The matrix (3, 3) that turns around z, counter-clockwise as seen from above."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _shrunk(samples: Tensor, size: int) -> Tensor:
    """Pixels (..., size, size) from samples: their mean."""
    return F.avg_pool2d(samples, samples.shape[-1] // size)


def _on_ground(size: int) -> tuple[Tensor, Tensor]:
    """Where rays meet the ground: their t, and the points (2, samples, samples); t is infinite above the horizon."""
    eye, ways = _camera(size)
    t = torch.where(ways[2] < -1e-6, -eye[2] / ways[2], math.inf)
    return t, eye[:2, None, None] + t.clamp(max=1e3) * ways[:2]


# ---- ground


def _ground(name: str, degrees: float, size: int) -> Tensor:
    """The empty turntable before its backdrop, (3, size, size)."""
    pattern, colours, top, horizon = GROUNDS[name]
    t, points = _on_ground(size)
    x, y = torch.einsum("ji,jhw->ihw", _turn(degrees)[:2, :2], points)  # turned back into the toy's frame
    image = torch.stack([rgb(c) for c in colours])[pattern(x, y).long()].movedim(-1, 0)
    fog = ((t - FOG[0]) / (FOG[1] - FOG[0])).clamp(0, 1)
    image = image + fog * (rgb(horizon)[:, None, None] - image)
    rise = (_camera(size)[1][2] / 0.1).clamp(0, 1)  # backdrop: from the horizon up
    sky = rgb(horizon)[:, None, None] + rise * (rgb(top) - rgb(horizon))[:, None, None]
    return _shrunk(torch.where(t.isinf(), sky, image), size)


# ---- toys


def _laid(images: Tensor, cover: Tensor, shade: Tensor, grounds: Tensor) -> Tensor:
    """Toys (..., 3, size, size), black where they are not, over grounds in their shadow."""
    return (images + (1 - cover) * shade * grounds).clamp(0, 1)


def _toy(name: str, degrees: float, moods: tuple[str, ...], size: int) -> tuple[Tensor, Tensor]:
    """A toy before black, (expressions, 3, size, size), and how much of each pixel it covers, (1, size, size)."""
    eye, ways = _camera(size)
    turn = _turn(degrees)
    parts = _placed(name, turn)
    near = _on_ground(size)[0].clone()  # what lies below the ground is hidden
    which = torch.full_like(near, -1, dtype=torch.int8)
    windows = [_window(part, turn, size) for part, _, _ in parts]
    for k, ((part, into, shift), window) in enumerate(zip(parts, windows, strict=True)):
        rays = Rays(tuple((into @ eye + shift)[:, None, None]), tuple(_mapped(into, ways[:, *window])))
        enter, leave = SHAPES[part.shape](rays)
        hit = (enter < leave) & (enter > 0) & (enter < near[window])
        near[window] = torch.where(hit, enter, near[window])
        which[window].masked_fill_(hit, k)

    images = torch.zeros(max(len(moods), 1), 3, *near.shape)
    for k, ((part, into, shift), window) in enumerate(zip(parts, windows, strict=True)):
        rows, columns = (which[window] == k).nonzero().unbind(1)
        if not moods or not len(rows):
            continue
        rows, columns = rows + window[0].start, columns + window[1].start
        points = (eye[:, None] + near[rows, columns] * ways[:, rows, columns]).T  # (m, 3) in the room
        local = points @ into.T + shift
        bright, gloss = _lit(points, _unit(normals(part.shape, local) @ into))
        for e, mood in enumerate(moods):
            if e == 0 or part.paint == "face":
                colours = face(part, local, mood) if part.paint == "face" else painted(part, local)
                light = (colours * bright + gloss).clamp_(0, 1)
            images[e, :, rows, columns] = light.T
    return _shrunk(images, size), _shrunk((which >= 0).float()[None], size)


def _placed(name: str, turn: Tensor) -> list[tuple[Part, Tensor, Tensor]]:
    """The parts of a toy, each with the matrix (3, 3) and shift (3,) from the room, where it is turned, to its unit
    shape."""
    parts = CREATURES[name]
    into = torch.linalg.inv(torch.tensor([p.axes for p in parts]).mT)  # (parts, 3, 3)
    shift = -into @ torch.tensor([p.centre for p in parts])[:, :, None]
    return list(zip(parts, into @ turn.T, shift[:, :, 0], strict=True))


def _mapped(matrix: Tensor, points: Tensor) -> Tensor:
    """(3, ...) of points (3, ...)."""
    return (matrix @ points.flatten(1)).view(points.shape)


def _window(part: Part, turn: Tensor, size: int) -> tuple[slice, slice]:
    """Rows and columns of the samples that a part can be seen in."""
    count = size * SAMPLES[size]
    x, y, z = (turn @ torch.tensor(part.centre) - torch.tensor(EYE)).tolist()
    cos, sin = math.cos(DOWN), math.sin(DOWN)
    depth, up, reach = cos * y - sin * z, sin * y + cos * z, part.reach
    places = [
        [(off + way * reach) / (depth + far * reach) for way in (-1, 1) for far in (-1, 1)] for off in (-up, x)
    ]  # down and right, on the plane one unit ahead
    ends = [(min(p), max(p)) for p in places]
    return tuple(
        slice(*(min(max(round((0.5 + FOCAL * e) * count + more), 0), count) for e, more in zip(end, (-1, 1))))
        for end in ends
    )


def _lit(points: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness and added white (m, 1) at points of the room (m, 3) with unit normals."""
    lamp, eye = _unit(torch.tensor(LAMP)), torch.tensor(EYE)
    facing = (normal @ lamp).clamp(min=0)
    halfway = _unit(_unit(eye - points) + lamp)
    close = 0.72 + 0.28 * (points[:, 2] / 0.5).clamp(0, 1)  # little light reaches what is close to the ground
    bright = (AMBIENT + ABOVE * normal[:, 2]) * close + LIGHT * facing
    return bright[:, None], GLOSS * (normal * halfway).sum(1).clamp(min=0).pow(24)[:, None] * (facing > 0)[:, None]


def _unit(vectors: Tensor) -> Tensor:
    return vectors * vectors.square().sum(-1, keepdim=True).rsqrt()


# ---- shadow


@functools.cache
def _lights() -> tuple[Tensor, Tensor]:
    """Directions (k, 3) to a broad lamp and to the open sky, and how much each of them gives (k,)."""
    lamp = _unit(torch.tensor(LAMP))
    across = _unit(torch.linalg.cross(lamp, torch.tensor([0.0, 0.0, 1.0])))
    upwards = torch.linalg.cross(across, lamp)
    angle = torch.arange(7) * (2 * math.pi / 7)
    disc = lamp + 0.13 * (angle.cos()[:, None] * across + angle.sin()[:, None] * upwards)
    angle = torch.arange(8) * (2 * math.pi / 8) + 0.2
    sky = torch.stack([angle.cos(), angle.sin(), torch.tensor([1.0, 2.2]).repeat(4)], dim=1)
    ways = torch.cat([lamp[None], disc, sky])
    return ways, torch.tensor([SHADE[0] / 8] * 8 + [SHADE[1] / 8] * 8)


def _shade(name: str, degrees: float, size: int) -> Tensor:
    """Light (1, size, size) that a toy leaves to the ground, found on a coarse square of it and spread from there."""
    ways, gives = _lights()
    place = ((torch.arange(CELLS) + 0.5) / CELLS * 2 - 1) * REACH
    spots = torch.stack([place.repeat(CELLS), place.repeat_interleave(CELLS), torch.zeros(CELLS * CELLS)])
    hidden = torch.zeros(len(ways), CELLS * CELLS, dtype=torch.bool)
    for part, into, shift in _placed(name, _turn(degrees)):
        origin, way = into @ spots + shift[:, None], into @ ways.T
        enter, leave = SHAPES[part.shape](Rays(tuple(origin[:, None]), tuple(way[:, :, None])))
        hidden |= (enter < leave) & (leave > 0)
    dark = (gives @ hidden.float()).view(1, 1, CELLS, CELLS)
    where = F.avg_pool2d(_on_ground(size)[1], SAMPLES[size]).movedim(0, -1)[None] / REACH
    return 1 - F.grid_sample(dark, where, align_corners=False)[0]  # nothing is dark beyond the square


# ---- loading


def load(
    size: int = 64, split: str = "train", expression: bool = False, held_out: str | float = "unbalanced"
) -> Creatures:
    """The renderer; by default without the combinations that are held out for a test.

    split       "train" draws what is not held out, "test" only what is, "all" both
    held_out    "unbalanced": the second five toys are seen from two sides only, 0 and 45 degrees, and all their other
                poses are held out. A number from 0 to below 1: that share of all combinations, pseudo-random ones

    The two poses are neighbours, since two opposite views would show all of a toy, and a model could cross-fade. So the
    second five show their faces in training and never their backs, which a model can only guess from the build of the
    first five: the truth has a tail or a plate there that nothing has told of.

    Raises UserError for another size, split or text, and for a share that leaves nothing.
    """
    _known_size(size)
    one_of("split of creatures", split, combinations.PARTS)
    if not isinstance(expression, bool):
        raise UserError(f"expression is true or false, not {expression!r}")
    space = SPACE_WITH_EXPRESSION if expression else SPACE
    if held_out == "unbalanced":
        return Creatures(size, combinations.unbalanced(space, "identity", "pose", FULL, FEW, split), expression)
    if isinstance(held_out, bool) or not isinstance(held_out, (int, float)):
        raise UserError(f"creatures: held_out is 'unbalanced' or a share such as 0.2, not {held_out!r}")
    try:
        return Creatures(size, combinations.held_out(space, held_out, split), expression)
    except ValueError as error:
        raise UserError(f"creatures with held_out={held_out!r}: {error}") from None


def _known_size(size: int) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size not in SIZES:
        raise UserError(f"creatures come in {', '.join(map(str, SIZES))} pixels, not {size!r}")
    return size
