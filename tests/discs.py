"""A renderer with exact masks, small and quick: a disc of any colour before a grey that gets darker downwards."""

import math

import torch

from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Real


class Discs(Renderer):
    """16x16 in colour: x, y (centre, fraction of the side), scale (diameter, the same), hue, and a ground of two."""

    name = "discs"
    law = Real()
    space = FactorSpace([
        Factor("x", "real", (0.3, 0.4, 0.5, 0.6, 0.7)),
        Factor("y", "real", (0.3, 0.4, 0.5, 0.6, 0.7)),
        Factor("scale", "real", (0.3, 0.4, 0.5)),
        Factor("hue", "cyclic", (0.0, 0.25, 0.5, 0.75)),
        category("ground", "light", "dark"),
        Factor("light", "real", (0.6, 0.8, 1.0)),
    ])  # fmt: skip

    def __init__(self, size: int = 16):
        self.size, self.image_shape = size, (3, size, size)

    def mask(self, values):
        x, y, scale = (v[:, None, None] for v in values[:, :3].T)
        axis = (torch.arange(self.size, device=values.device) + 0.5) / self.size
        away = ((axis - x).square() + (axis[:, None] - y).square()).sqrt() - scale / 2  # (n, H, W)
        return (0.5 - self.size * away).clamp(0, 1)[:, None]

    def render(self, values):
        hue, ground, light = (v[:, None, None, None] for v in values[:, 3:].T)
        mask = self.mask(values)
        turn = torch.tensor([0.0, 1 / 3, 2 / 3], device=values.device)[:, None, None]
        colour = 0.6 + 0.4 * torch.cos(2 * math.pi * (hue - turn))
        shade = torch.linspace(1, 0.7, self.size, device=values.device)[:, None]
        return light * (mask * colour + (1 - mask) * (0.5 - 0.3 * ground) * shade)
