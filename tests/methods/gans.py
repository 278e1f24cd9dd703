"""What the tests of both GANs share: small learners on 16 pixels."""

from __future__ import annotations

import torch
from methods.family import rng

from disentkit.data.base import Spec
from disentkit.machine import seeded
from disentkit.methods import infogan, infowgan_gp

SMALL = {
    "noise": 6, "categories": 3, "continuous": 2, "nets": "dsprites", "wide": 0.125, "size": 16, "steps": 4, "batch": 8
}  # fmt: skip
BOTH = {"infogan": (infogan.InfoGAN, infogan.Settings), "infowgan": (infowgan_gp.InfoWGAN, infowgan_gp.Settings)}


def build(name: str = "infogan", seed: int = 0, **settings):
    """A learner with the weights of `seed`; its own draws come from `rng(7)`."""
    cls, kind = BOTH[name]
    settings = kind(**SMALL | settings)
    with seeded(seed):
        learner = cls(settings, Spec((1, settings.size, settings.size)))
    learner.rng = rng(7)
    return learner.train()


def descent(learner, lr: float = 0.01) -> dict:
    """The learner's optimisers as plain descent, which makes no full step of a gradient that is only rounding."""
    made = learner.optimizers().items()
    return {name: torch.optim.SGD(opt.param_groups[0]["params"], lr=lr) for name, opt in made}


def pictures(seed: int, n: int = 8, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 1, size, size, generator=rng(seed))


def batches(learner) -> list[dict]:
    return [{"x": pictures(i, size=learner.settings.size)} for i in range(learner.draws)]
