"""Hard negatives: what FineGAN (Singh, Ojha, Lee 2019, arXiv 1811.11155) goes on with when it has been trained.

Some codes still make distorted pictures. They show by this: D_c does not read from the masked foreground C_m C_f the
texture c that made it. So of `pool` times a batch of tied codes (z, c) those are kept whose

    softmax(D_c^code(C_m C_f))_c

is lowest, a batch of them, and all players make an ordinary update with these.

The released code (kkanshul/finegan) takes 1,500 iterations at most, every other one with hard negatives. A step here is
two of them, first an ordinary one and then a hard one, each with pictures of its own: a step never branches on what it
counts. As there, G begins at its moving average; the average goes on from where it stands, without the warm start of
FineGAN's own training. Codes are judged in parts of a batch, with batch norms as in training. Codes, networks, losses
and the average's decay are the base's. The steps of the other presets are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from disentkit.errors import UserError
from disentkit.methods.finegan import SETS, Codes, FineGAN, StagedGenerator, tied
from disentkit.models import Learner


@dataclass(frozen=True)
class Settings:
    """`pool` batches of codes are drawn for one batch of hard ones. All that is not here is taken from the base.

    lr    of G and the readers of codes; lr_D of D_b and D_c
    size  the pictures' side in pixels, that of the base
    """

    pool: int = 10
    lr: float = 2e-4
    lr_D: float = 2e-4
    batch: int = 16
    steps: int = 750
    size: int = 128


COURSE = Settings(steps=250, size=32)
QUICK = replace(COURSE, steps=150)
SMOKE = {"pool": 3, "batch": 8, "steps": 4}
PLAYERS = ("D_b", "D_p", "D_c")


def method_of(base) -> str:
    """The method of a base run, in words."""
    return getattr(base, "card", {}).get("method", type(base.model).__name__)


class HardNegatives(Learner):
    """Two batches a step: an ordinary update of FineGAN, then one on hard negatives. base: a run of finegan."""

    reads = FineGAN.reads
    draws = 2

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        s = settings
        if base is None:
            raise UserError("hard negatives are a second stage of FineGAN: give base=RUN, a run of finegan")
        model = base.model
        if not (isinstance(model, StagedGenerator) and all(hasattr(model, name) for name in PLAYERS)):
            raise UserError(f"hard negatives build on a run of finegan, not on one of {method_of(base)}")
        if tuple(spec.image_shape) != model.image_shape:
            raise UserError(f"the data are {tuple(spec.image_shape)}, the base run makes {model.image_shape}")
        ours = {"lr": s.lr, "lr_D": s.lr_D, "batch": s.batch, "steps": s.steps}
        self.gan = FineGAN(replace(model.settings, **ours), spec)
        self.gan.sampler.load_state_dict(model.state_dict())  # with the discriminators
        self.gan.G.load_state_dict(self.gan.sampler.G.state_dict())
        self.gan.t.fill_(1e9)  # the average's warm start is long over

    @property
    def model(self) -> StagedGenerator:
        return self.gan.sampler

    def optimizers(self):
        return self.gan.optimizers()

    def step(self, opt, usual, other):
        n = len(usual["x"])
        found = self.gan.learn(opt, usual, tied(n, self.gan.settings, self.rng))
        y, gauges = self.hardest(n)
        hard = self.gan.learn(opt, other, y)
        return found | {f"hard_{name}": loss for name, loss in hard.items() if name.startswith("L_")} | gauges

    @torch.no_grad()
    def hardest(self, n: int) -> tuple[Codes, dict[str, Tensor]]:
        """The n of `pool` n tied codes from whose pictures D_c reads their own c least; gauges of both."""
        drawn = [tied(n, self.gan.settings, self.rng) for _ in range(self.settings.pool)]
        sure = torch.cat([self.sure(y) for y in drawn])  # (pool n,)
        worst = sure.topk(n, largest=False).indices
        y = Codes(*(torch.cat(parts).index_select(0, worst) for parts in zip(*drawn)))
        return y, {"sure_of_all": sure.mean(), "sure_of_hard": sure.index_select(0, worst).mean()}

    def sure(self, y: Codes) -> Tensor:
        """The probability (N,) that D_c gives to the c of codes y on C_m C_f."""
        made = self.gan.G(*y)
        return (self.gan.D_c(made.C_m * made.C_f, code=True).softmax(1) * y.c).sum(1)

    def preview(self, batch):
        """As FineGAN's."""
        return self.gan.preview(batch)

    PRESETS = {
        **{("paper", data): Settings() for data in SETS},
        **{("course", data): COURSE for data in SETS},
        **{("quick", data): QUICK for data in SETS},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SETS},
    }
