"""AE+DS: an autoencoder with direct supervision, a baseline of Ge et al. 2021 (GZS-Net), arXiv 2009.06586.

The same autoencoder, one block g_j per attribute, but nothing is swapped. A classifier of its own reads each block:

    L = l(D(E(x)), x) + lam_ds sum_j CE(Cls_j(g_j), a_j)             Cls_j: d_j -> 2 d_j -> 2 K_j -> K_j, ReLU

so every block is sufficient for its attribute, and nothing forbids that it holds the others too: a recombined code is
one that D has never met. In the released development code all weights are 1, and one Adam trains everything. lam_ds 0
leaves the plain autoencoder, whose blocks mean nothing. l is a mean over pixels in [-1, 1], here and there (`loss`).
For RaFD that code has blocks of 40, 40 and 20, the preset those of GZS-Net, 60, 20 and 20.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.methods.gzsnet import SMALL, GroupAutoencoder, check, picture_loss, rate
from disentkit.models import Learner, adam


@dataclass(frozen=True)
class Settings:
    """As those of GZS-Net; `lam_ds` weighs the classifiers, `batch` counts pictures."""

    d: int = 20
    d_first: int = field(default=0, metadata={"least": 0})
    lam_ds: float = 1.0
    loss: str = "L1"
    nets: str = "paper"
    fc: int = 4096
    wide: float = 1.0
    lr: float = 1e-4
    anneal: float = 0.0
    batch: int = 18
    steps: int = 1_000_000
    size: int = 128


# As GZS-Net's, and about as long: a step here takes as long as one there and sees twice as many pictures.
QUICK = Settings(d=8, loss="L2", nets="small", fc=256, lr=2e-3, anneal=1.0, batch=64, steps=3_300, size=32)
COURSE = replace(QUICK, wide=0.75, lr=1.5e-3, steps=9_000, size=64)
SMOKE = {"wide": 0.5, "fc": 64, "batch": 8, "steps": 20}


class AEDS(Learner):
    """One batch of labelled pictures, one optimiser."""

    reads = ("x", "factors")

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        check(settings, spec, "AE+DS")
        self.space = spec.space
        self.auto = GroupAutoencoder(spec.image_shape, spec.space.names, settings)
        self.classifiers = nn.ModuleList(
            classifier(block.size, values) for block, values in zip(self.auto.codes, self.space.sizes)
        )

    @property
    def model(self) -> GroupAutoencoder:
        return self.auto

    def optimizers(self):
        return {"all": adam(self.parameters(), torch.tensor(self.settings.lr, device=self.t.device))}

    def step(self, opt, batch):
        s, x = self.settings, batch["x"]
        opt["all"].param_groups[0]["lr"].copy_(rate(self.t, s))
        a = self.space.to_grid(batch["factors"])  # (N, m)
        z = self.auto.encode(x)  # (N, D)
        L_r = picture_loss(self.auto.decoder(z), x, s.loss).mean()
        logits = self.logits(z)
        L_ds = torch.stack([F.cross_entropy(row, true) for row, true in zip(logits, a.T)])  # (m,)

        opt["all"].zero_grad()
        (L_r + s.lam_ds * L_ds.sum()).backward()
        opt["all"].step()
        right = torch.stack([row.argmax(1) == true for row, true in zip(logits, a.T)])  # (m, N)
        return {"L_r": L_r.detach(), "L_ds": L_ds.detach().sum(), "accuracy": right.float().mean(1)}

    def logits(self, z: Tensor) -> list[Tensor]:
        """(N, K_j) for every attribute j, each from its own block of the codes (N, D)."""
        codes = self.auto.codes
        return [net(codes.read(z, name)) for net, name in zip(self.classifiers, codes.names)]

    PRESETS = {
        **{("paper", data): Settings() for data in ("fonts", "fonts_folder")},
        ("paper", "creatures"): Settings(fc=512, size=64),
        **{("paper", data): Settings(d_first=60) for data in ("ilab", "rafd")},
        ("paper", "dsprites"): Settings(d=2, loss="BCE", fc=512, size=64),
        **{("paper", data): Settings(fc=512, size=64) for data in ("characters", "shapes3d", "folder")},
        **{("course", data): COURSE for data in SMALL},
        **{("quick", data): QUICK for data in SMALL},
        **{("smoke", data): replace(QUICK, **SMOKE) for data in SMALL},
        ("course", "dsprites"): replace(COURSE, d=2, loss="BCE"),
        ("quick", "dsprites"): replace(QUICK, d=2, loss="BCE"),
        ("smoke", "dsprites"): replace(QUICK, d=2, loss="BCE", **SMOKE),
    }


def classifier(d: int, values: int) -> nn.Sequential:
    """Block values (N, d) -> logits (N, values)."""
    return nn.Sequential(
        nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, 2 * values), nn.ReLU(), nn.Linear(2 * values, values)
    )
