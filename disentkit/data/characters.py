"""Small game characters, drawn wholly from our own geometry: eight factors, each of them plain to see.

A figure with a big head stands before a dark ground, as in a role-playing game. Seven factors are categories (who it
is, what it wears and carries, what it does, where it looks), and one is the hue of its top's cloth. They are what an
artist would call parts, so a method that mixes the parts of two pictures has something to find, and whoever looks at
the mixture can say what was taken from where. No picture of others is used.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from disentkit.data import character_parts
from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Grid
from disentkit.errors import UserError

SIZES = (32, 48, 64)
SPACE = FactorSpace(
    [
        category("body", "pale", "tan", "brown", "green"),
        category("hair", "bald", "short brown", "long blond", "red spikes", "black bun", "white hood"),
        category("top", "shirt", "stripes", "vest", "robe", "armour"),
        category("trousers", "blue long", "green shorts", "purple skirt", "sand baggy", "steel greaves"),
        category("item", "none", "sword", "shield", "staff", "lantern"),
        category("pose", "stand", "walk", "cheer", "crouch"),
        category("direction", "front", "left", "right", "back"),
        Factor("hue", "cyclic", tuple(k / 8 for k in range(8))),
    ]
)
GROUND = (0.13, 0.13, 0.18)  # behind the figure
SKINS = ((0.98, 0.84, 0.72), (0.84, 0.60, 0.38), (0.40, 0.25, 0.18), (0.50, 0.74, 0.40))
OVER = (True, False, True, False)  # by direction: the item, in the right hand, is nearer than the body


class Characters(Renderer):
    """Game characters drawn in batches on any device.

    size  32, 48 or 64
    law   how factor tuples are drawn; `Grid()` without one

    Raises UserError for another size.

    The 384,000 tuples of the grid are as many pictures: each factor shows in every pose and from every direction. No
    confounder is planted, as `Grid` ties no factor to another (`Correlated` would), but some come with any picture:

    - hue colours the top's cloth and nothing else, so there is a lot of it on a robe, little on a vest or armour, and
      it can meet the colour of the trousers, the hair or the green body;
    - body is the skin: below a hood and seen from behind there is little more of it than two hands;
    - item is in the right hand, before the body from the front and the right, behind it from the back and the left. So
      left is not a mirrored right: what is mirrored is the outline of a figure without an item;
    - back lacks the face and nothing else, so it is hardest to tell from front where the head is bald;
    - pose and direction move all other parts and so change about twice as many pixels as hair, and three to five times
      as many as the rest (at 32 pixels 360 and 290 of 1,024 differ by more than a tenth on average; hair 160, body 90,
      the others 70 to 80): what is led by the error of pixels finds them first.

    How it is made: legs, torso, item and head are drawn once for each of their values, pose and direction, with soft
    edges, and kept on the device. A picture is looked up in these layers, which are laid over each other.
    """

    name = "characters"
    space = SPACE

    def __init__(self, size: int = 32, law=None):
        self.size = _known_size(size)
        self.image_shape = (3, size, size)
        self.law = Grid() if law is None else law
        self._tables: dict[torch.device, _Tables] = {}

    def __repr__(self) -> str:
        return f"Characters({self.size} pixels, {self.law})"

    def render(self, values: Tensor) -> Tensor:
        """Images (n, 3, size, size) float32 in [0, 1] of values (n, 8): seven categories, and the hue.

        The hue takes any value and goes around (1 is 0). A category between or beyond its values is drawn as the
        nearest one: a check would read the values back to the host, so it stays with whoever takes values from outside
        (`space.check`). The first batch on a device makes the tables. Raises ValueError for another number of columns.
        """
        if values.ndim != 2 or values.shape[1] != len(self.space):
            raise ValueError(f"factors must be (n, 8) for {', '.join(self.space.names)}, not {tuple(values.shape)}")
        if values.device not in self._tables:
            self._tables[values.device] = _Tables(self.size, values.device)
        tables = self._tables[values.device]
        # So many that their layers stay in a CPU's cache, or fit into any GPU's memory.
        pieces = values.float().split(32 * (64 // self.size) ** 2 if values.device.type == "cpu" else 1024)
        return torch.cat([_draw(piece, tables) for piece in pieces])


class _Tables:
    """Every layer of every figure on a device, (entries, 4 or 5, size, size), and other constants.

    Channels 0 ... 2 are the layer's light and 3 is what it lets through; a torso's 4 takes the cloth's colour. Entries
    are counted by body (items have none), value, pose and direction, the last one fastest.
    """

    def __init__(self, size: int, device):
        self.legs, self.torso, self.item, self.head = (layer.to(device) for layer in _layers(size))
        self.last = torch.tensor([len(f) - 1 for f in SPACE][:7], device=device)
        self.over = torch.tensor(OVER, device=device)
        self.ground = torch.tensor(GROUND, device=device)[:, None, None]
        self.primaries = torch.tensor((0.0, 4.0, 2.0), device=device)

    def cloth(self, hue: Tensor) -> Tensor:
        """Colours (n, 3) of hues (n,): HSV with saturation 0.75 and value 0.95."""
        pure = (((hue[:, None] * 6 + self.primaries) % 6 - 3).abs() - 1).clamp(0, 1)
        return 0.95 * (0.25 + 0.75 * pure)


def _draw(values: Tensor, tables: _Tables) -> Tensor:
    """Images (n, 3, size, size) of values (n, 8): the layers from back to front."""
    picks = torch.minimum(values[:, :7].round().long().clamp(min=0), tables.last)  # (n, 7)
    body, hair, top, trousers, item, pose, direction = picks.unbind(1)
    look = 4 * pose + direction
    over = tables.over[direction]
    cloth = tables.cloth(values[:, 7])[:, :, None, None]  # (n, 3, 1, 1)

    image = tables.ground
    for layer in (
        tables.item[16 * item * ~over + look],
        tables.legs[(5 * body + trousers) * 16 + look],
        tables.torso[(5 * body + top) * 16 + look],
        tables.item[16 * item * over + look],
        tables.head[(6 * body + hair) * 16 + look],
    ):
        image = torch.addcmul(layer[:, :3], image, layer[:, 3:4])
        if layer.shape[1] == 5:
            image.addcmul_(cloth, layer[:, 4:])
    return image.clamp_(0, 1)


@functools.cache
def _layers(size: int) -> tuple[Tensor, ...]:
    """Legs, torsos, items and heads on the CPU, each (entries, 4 or 5, size, size): made once, for all renderers."""
    with torch.device("cpu"):  # also where another device is the default
        skins = torch.tensor(SKINS)[:, None, :, None, None]
        layers = (("legs", "trousers"), ("torso", "top"), ("item", "item"), ("head", "hair"))
        inks = {n: character_parts.sheet(n, SPACE[factor].labels, SPACE["pose"].labels, size) for n, factor in layers}
    made = []
    for name, ink in inks.items():
        light, skin, cloth, cover = ink[:, :3], ink[:, 3:4], ink[:, 4:5], ink[:, 5:]
        if name != "item":
            light = (light + skin * skins).flatten(0, 1)
        rest = torch.cat([1 - cover, cloth] if name == "torso" else [1 - cover], dim=1)
        made.append(torch.cat([light, rest.repeat(len(light) // len(rest), 1, 1, 1)], dim=1))
    return tuple(made)


def load(size: int = 32, law=None) -> Characters:
    """The renderer; raises UserError for another size."""
    return Characters(size, law)


def _known_size(size: int) -> int:
    if not isinstance(size, int) or size not in SIZES:
        raise UserError(f"characters come in {', '.join(map(str, SIZES))} pixels, not {size!r}")
    return size
