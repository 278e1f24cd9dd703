"""A renderer of four factors with held-out combinations, and models of it that are right and wrong by construction."""

from __future__ import annotations

from dataclasses import replace

import torch

from disentkit.codes import Block, CodeSpace
from disentkit.data import combinations
from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.explore import AttributeBoard

COLOURS = {"red": (0.9, 0.1, 0.2), "green": (0.1, 0.6, 0.2), "blue": (0.1, 0.2, 0.9)}


def same_colours(values):
    return values[:, 1] == values[:, 2]


class Tiles(Renderer):
    """A bar in one colour on a ground of another, 8x8."""

    name, image_shape = "tiles", (3, 8, 8)
    space = FactorSpace([category("way", "A", "B"), category("colour", *COLOURS), category("background", *COLOURS),
                         Factor("x", "real", (1.0, 3.0, 5.0), unit="px")])  # fmt: skip

    def render(self, values):
        way, colour, ground, x = values.T
        table = torch.tensor(list(COLOURS.values()))
        bar = torch.exp(-((torch.arange(8) + 0.5 - x[:, None]) ** 2) / 2)  # (n, 8)
        upright, lying = bar[:, None, None, :].expand(-1, 1, 8, 8), bar[:, None, :, None].expand(-1, 1, 8, 8)
        share = torch.where(way[:, None, None, None] < 0.5, upright, lying)
        colour, ground = (table[c.long()][:, :, None, None] for c in (colour, ground))
        return torch.lerp(ground, colour, share)


class Oracle:
    """The renderer as a model; its encoder finds the very tuple in the grid. Counts; can be broken."""

    image_shape = Tiles.image_shape

    def __init__(self):
        self.tiles, self.encoded, self.decoded, self.broken = Tiles(), 0, 0, None
        self.codes = self.tiles.codes
        self.grid = Tiles.space.from_grid(Tiles.space.tuple_of(torch.arange(Tiles.space.grid_size)))
        self.all = self.tiles.render(self.grid).flatten(1)

    def encode(self, x):
        self.encoded += 1
        same = (x.flatten(1)[:, None] - self.all).abs().amax(2) < 1e-6
        # Of tuples that look alike, in which bar and ground have one colour, the first.
        return self.tiles.code_of(self.grid[same.int().argmax(1)])

    def decode(self, codes):
        self.decoded += 1
        if self.broken:
            raise RuntimeError(self.broken)
        return self.tiles.decode(codes)


class Blind(Oracle):
    """It cannot combine: the ground is always blue."""

    def decode(self, codes):
        return super().decode(self.codes.write(codes, "background", torch.tensor([0.0, 0.0, 1.0])))


class Painter(Oracle):
    """As StarGAN: a picture to be edited, and labels. What no label names, here x, comes from the picture."""

    def __init__(self):
        super().__init__()
        labels = [block for block in self.codes if block.name != "x"]
        self.codes = CodeSpace([Block("picture", "map", self.image_shape, 0.0, 1.0),
                                *(replace(block, at=None) for block in labels)])  # fmt: skip

    def encode(self, x):
        read = super().encode(x)
        return torch.cat([x.flatten(1), read[:, :-1]], dim=1)  # x is the last number

    def decode(self, codes):
        x = super().encode(self.codes.read(codes, "picture").reshape(-1, *self.image_shape))[:, -1:]
        return super().decode(torch.cat([codes[:, 192:], x], dim=1))


LAW = combinations.held_out(Tiles.space, 0.3, "train", same_colours, seed=1)
TILES = Tiles().with_law(LAW)


def providers(n: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    batch = TILES.sample(n, torch.Generator().manual_seed(seed))
    return batch["x"], batch["factors"]


def board(model=None, n: int = 6, truth=TILES, **more) -> AttributeBoard:
    x, values = providers(n)
    return AttributeBoard(model or Oracle(), x, values, truth, **more)
