"""What the tests of StarGAN and ELEGANT share: small labelled pictures of 16 pixels."""

from __future__ import annotations

import torch
from methods.family import rng

from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace, category


class Squares(Renderer):
    """A square in one of three colours on a ground of one of two greys, 16x16."""

    name = "squares"
    image_shape = (3, 16, 16)
    space = FactorSpace([
        category("colour", "red", "green", "blue"),
        Factor("side", "real", (4.0, 8.0)),
        category("ground", "dark", "light"),
    ])  # fmt: skip

    def render(self, values):
        colour, side, ground = (v[:, None, None, None] for v in values.T)
        axis = (torch.arange(16, device=values.device) - 7.5).abs()
        inside = (torch.maximum(axis[:, None], axis) < side / 2).float()  # (n, 1, 16, 16)
        hue = (torch.arange(3, device=values.device)[None, :, None, None] == colour).float()
        return inside * hue + (1 - inside) * (0.2 + 0.5 * ground)


def batches(n: int, draws: int) -> list[dict]:
    return [Squares().sample(n, rng(i)) for i in range(draws)]


def descent(learner, lr: float = 0.01) -> dict:
    """The learner's optimisers as plain descent, which makes no full step of a gradient that is only rounding."""
    learner.rates_fall = lambda opt: None
    made = learner.optimizers().items()
    return {name: torch.optim.SGD(opt.param_groups[0]["params"], lr=lr) for name, opt in made}
