"""Models of stages whose blocks are known: a renderer that writes its factors into the picture, and all who read them.

The first row of a picture of `Tiles` holds the factor values, so a judge, a segmenter and encoders need no training.
"""

import torch
import torch.nn.functional as F
from torch import nn

from disentkit.codes import Block, CodeSpace
from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Real

SIDE = 16


class Tiles(Renderer):
    """A coloured rectangle on grey: its colour is the texture, its height the shape, the grey the background."""

    name = "tiles"
    image_shape = (3, SIDE, SIDE)
    space = FactorSpace([
        category("background", *"abcdef"), category("shape", *"pqrs"), category("texture", *"uvwxyz"),
        Factor("rotation", "real", tuple(5.0 * k for k in range(-12, 13))), Factor("x", "real", (0.4, 0.5, 0.6)),
        Factor("y", "real", (0.4, 0.5, 0.6)), Factor("scale", "real", (0.3, 0.4, 0.5)),
    ])  # fmt: skip
    law = Real()

    def render(self, values):
        mask, paint = self.mask(values), F.one_hot(values[:, 2].long() % 3, 3) * (0.5 + values[:, 2:3] // 3 / 2)
        ground = values[:, 0].view(-1, 1, 1, 1) / 8
        return self.signed(mask * paint[:, :, None, None] + (1 - mask) * ground.expand(-1, 3, -1, -1), values)

    def signed(self, x, values):
        """Pictures whose first row says how they were made."""
        x, low = x.clone(), torch.tensor([f.low for f in self.space])
        x[:, :, 0, : len(self.space)] = ((values - low) / (torch.tensor([f.high for f in self.space]) - low))[:, None]
        return x

    def values_in(self, x):
        """The values that the first row says; those outside are brought in."""
        low, high = (torch.tensor([getattr(f, end) for f in self.space]) for end in ("low", "high"))
        values = low + x[:, 0, 0, : len(self.space)] * (high - low)
        values[:, :3] = values[:, :3].round()
        return values

    def mask(self, values):
        axis = (torch.arange(SIDE) + 0.5) / SIDE
        half = values[:, 6, None] / 2
        across = (axis - values[:, 4, None]).abs() < half
        down = (axis - values[:, 5, None]).abs() < half * (0.5 + values[:, 1, None] / 6)
        return (down[:, :, None] & across[:, None, :])[:, None].float()


class Reader:
    """A judge that is never wrong: it reads the first row."""

    def __init__(self, data=None):
        self.data = data or Tiles()
        self.space, self.image_shape = self.data.space, self.data.image_shape
        self.net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Identity())

    def read(self, x):
        return self.space.to_grid(self.data.values_in(x))

    def logits(self, x):
        return [30.0 * F.one_hot(column, len(f)) for column, f in zip(self.read(x).T, self.space)]


class Finder:
    """A segmenter that is never wrong."""

    def __init__(self, data=None):
        self.data = data or Tiles()

    def mask(self, x):
        return self.data.mask(self.data.values_in(x))


LAYOUT = {"b": ["background"], "z_b": [], "p": ["shape"], "c": ["texture"], "z": ["rotation", "x", "y", "scale"]}
PICKERS = {"b": "background", "z_b": "background", "p": "shape", "c": "texture", "z": "pose", "F": "shape and pose"}
FEATURE = {"b": ["background"], "z_b": [], "c": ["texture"], "F": ["shape", "rotation", "x", "y", "scale"]}


class Generator:
    """A perfect model in stages whose blocks hold factors laid out at will; it has no encoder.

    A category is a one-hot vector, a real factor a number in -1 ... 1; an empty block is a constant. A factor is taken
    from the last block that has it, and is the first of its values where none has.
    """

    def __init__(self, layout=None, data=None):
        self.data, self.layout = data or Tiles(), layout or LAYOUT
        self.image_shape = self.data.image_shape
        blocks = []
        for name, factors in self.layout.items():
            wide = sum(self._wide(f) for f in factors) or 1
            kind, shape = ("map", (wide, 1, 1)) if name == "F" else ("free", (wide,))
            inferred = callable(getattr(self, "encode", None))
            blocks.append(Block(name, kind, shape, picker=PICKERS[name], inferred=inferred))
        self.codes = CodeSpace(blocks)

    def _wide(self, factor):
        return len(self.data.space[factor]) if self.data.space[factor].kind == "category" else 1

    def prior(self, n, rng):
        return self.codes.prior(n, rng)

    def code_of(self, values):
        columns = dict(zip(self.data.space.names, values.T))
        parts = []
        for factors in self.layout.values():
            parts += [] if factors else [torch.ones(len(values), 1)]
            for name in factors:
                f = self.data.space[name]
                if f.kind == "category":
                    parts.append(F.one_hot(columns[name].long(), len(f)).float())
                else:
                    parts.append((2 * (columns[name] - f.low) / (f.high - f.low) - 1)[:, None])
        return torch.cat(parts, dim=1)

    def values(self, codes):
        found = {f.name: torch.full((len(codes),), f.low) for f in self.data.space}
        for name, factors in self.layout.items():
            parts = self.codes.read(codes, name).flatten(1).split([self._wide(f) for f in factors] or [1], dim=1)
            for factor, part in zip(factors, parts):
                f = self.data.space[factor]
                real = f.low + (part[:, 0].clamp(-1, 1) + 1) / 2 * (f.high - f.low)
                found[factor] = part.argmax(1).float() if f.kind == "category" else real
        return torch.stack([found[name] for name in self.data.space.names], dim=1)

    def decode(self, codes):
        return self.data.render(self.values(codes))

    def stages(self, codes):
        values = self.values(codes)
        mask, child = self.data.mask(values), self.data.render(values)
        return {"background": child, "parent_foreground": child, "parent_mask": mask, "parent": child,
                "child_foreground": child, "child_mask": mask, "child": child}  # fmt: skip


class Mixer(Generator):
    """The same with an encoder."""

    def encode(self, x):
        return self.code_of(self.data.values_in(x))


class Grey(Mixer):
    """Whatever the code, a picture of values drawn at random: it shows nothing that was asked for."""

    def values(self, codes):
        place = torch.arange(codes.numel()).reshape(codes.shape)
        rng = torch.Generator().manual_seed(int((codes.double() * place).abs().sum() * 1e3) % 2**31)
        return self.data.law.draw(self.data.space, len(codes), rng)
