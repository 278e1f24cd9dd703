"""The segmenter: a small network that says which pixels are the object's, trained on rendered pictures and their masks.

A trained generator has no masks to measure its objects by. This network learns them from a renderer, which draws the
true mask with every picture, and then reads the pictures of any model of the same data. It is a U-Net (Ronneberger et
al. 2015): strided convolutions down to a few pixels, which see where the object is, and up again beside what was there
on the way down, which see where it ends. Pictures are worn as a judge's are, since what a generator makes is not sharp.

    data/judges/NAME-SIZE-segmenter       what the kit ships, read only
    home()/judges/NAME-SIZE-segmenter     what was trained here

It is kept as judges are (`judging.py`). Its card holds how it errs on pictures that it was not trained on.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit import judging
from disentkit.data import complete
from disentkit.data.base import Data
from disentkit.errors import UserError
from disentkit.judges import Judge, binomial
from disentkit.metrics.instruments import Segmented, moments
from disentkit.models import Learner, adam, device_of, frozen

BATCH = 256  # pictures read at a time
MARKS = ("iou", "x", "y", "zoom", "failures")  # what its card says


@dataclass(frozen=True)
class Settings:
    """`width` channels at half the picture's side; `blur` and `noise` of the training pictures as a judge's.

    blur   at most so many times smoothed by a 5x5 binomial kernel (of standard deviation 1), fractions included
    noise  the largest standard deviation of Gaussian noise
    """

    width: int = 16
    blur: float = 2.0
    noise: float = 0.05
    lr: float = 3e-3
    batch: int = 32
    steps: int = 800
    size: int = 64


class Segmenter(Learner):
    """Pictures (N, C, H, W) in [0, 1] -> the probability that a pixel is the object's, (N, 1, H, W).

    Trained by binary cross-entropy against the exact soft mask, the mean over pixels and batch. Adam, its step falling
    to zero along a cosine over `settings.steps`. Raises UserError for pictures smaller than 8 pixels.
    """

    reads = ("x", "mask")
    worn = Judge.worn  # pictures wear alike for both

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.image_shape = tuple(spec.image_shape)
        height, side = self.image_shape[1:]
        if min(height, side) < 8:
            raise UserError(f"a segmenter reads pictures of 8 pixels or more, not {height}x{side}")
        self.net = UNet(self.image_shape, settings.width)
        self.register_buffer("kernel", binomial(self.image_shape[0]), persistent=False)
        self.card: dict = {}

    @property
    def model(self) -> nn.Module:
        return self

    def optimizers(self):
        return {"segmenter": adam(self.net.parameters(), torch.tensor(self.settings.lr, device=self.t.device))}

    def step(self, opt, batch):
        s = self.settings
        opt["segmenter"].param_groups[0]["lr"].copy_(s.lr * (0.5 + 0.5 * torch.cos(torch.pi * self.t / s.steps)))
        true = batch["mask"]  # (m, 1, H, W)
        logits = self.net(self.worn(batch["x"], self.rng))  # (m, 1, H, W)
        loss = F.binary_cross_entropy_with_logits(logits, true)
        opt["segmenter"].zero_grad()
        loss.backward()
        opt["segmenter"].step()
        return {"loss": loss.detach(), "iou": overlap(logits.detach() > 0, true > 0.5).nanmean()}

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pictures, their true masks and those found."""
        with frozen(self):
            return {"pictures": batch["x"], "masks": batch["mask"], "found": self.net(batch["x"]).sigmoid()}

    def mask(self, x: Tensor) -> Tensor:
        """Probabilities (N, 1, H, W) on the CPU; raises ValueError for pictures of another shape, and for NaN."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"this segmenter reads images (N, {', '.join(map(str, self.image_shape))}), not {tuple(x.shape)}"
            )
        if not x.isfinite().all():
            raise ValueError("the pictures hold NaN or infinite numbers: the model or its codes are broken")
        with frozen(self):
            parts = [self.net(part.to(device_of(self)).float()).sigmoid() for part in x.split(BATCH)]
        return torch.cat(parts).cpu()


class UNet(nn.Module):
    """Images (N, C, H, W) -> logits (N, 1, H, W).

    All is computed at half the side, which takes a quarter of the time: 2x2 pixels are the channels of one place, going
    in and coming out (Shi et al. 2016). 3x3 convolutions halve the sides until one is 4 or 5 at most; on the way up
    each level joins the one of its size on the way down. `width` channels at first, at most three times as many deeper.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int):
        super().__init__()
        channels, height, side = image_shape
        levels = max(1, math.ceil(math.log2(min(height, side) / 10)))
        wide = [min(width * 2**i, 3 * width) for i in range(levels + 1)]
        self.first = _layer(4 * channels, width)
        self.down = nn.ModuleList(_layer(a, b, stride=2) for a, b in itertools.pairwise(wide))
        self.up, below = nn.ModuleList(), wide[-1]
        for beside in wide[-2::-1]:
            self.up.append(_layer(below + beside, min(beside, 2 * width)))
            below = min(beside, 2 * width)
        self.last = nn.Conv2d(below, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, side = x.shape[-2:]
        x = F.pad(x, (0, side % 2, 0, height % 2), mode="replicate")
        seen = [self.first(F.pixel_unshuffle(x, 2))]
        for layer in self.down:
            seen.append(layer(seen[-1]))
        x = seen.pop()
        for layer in self.up:
            beside = seen.pop()
            x = layer(torch.cat([F.interpolate(x, beside.shape[-2:]), beside], dim=1))
        return F.pixel_shuffle(self.last(x), 2)[..., :height, :side]


def _layer(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def overlap(found: Tensor, true: Tensor) -> Tensor:
    """Intersection over union (N,) of two masks (N, 1, H, W) of truth values; NaN where both are empty."""
    return (found & true).flatten(1).sum(1) / (found | true).flatten(1).sum(1)


# ---- keeping: as judging.py does for judges


def segmenter_of(
    data: Data,
    *,
    minutes: float | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    bar: bool = True,
    anew: bool = False,
    ship: bool = False,
    say=print,
) -> Segmenter:
    """The segmenter of a data set, on the CPU: shipped, kept under home(), or trained now (about a minute on one core).

    data      a renderer with `mask(values)`, or data whose batches hold `mask`; the other arguments as in `judge_of`

    `segmenter.card["errors"]` holds, of pictures that it was not trained on, `iou` (mean intersection over union), the
    mean absolute error of `x`, `y` and `zoom` as `metrics.Segmented` reads them, and `failures` (share of the pictures
    in which it found no object). Raises UserError for data without masks, and as `judge_of` does.
    """
    return judging.kept(
        SEGMENTER, _with_masks(data), minutes=minutes, settings=settings, seed=seed, device=device, threads=threads,
        bar=bar, anew=anew, ship=ship, say=say,
    )  # fmt: skip


def open_segmenter(folder: str | Path) -> Segmenter:
    """A segmenter from its folder, on the CPU; raises UserError that says what is missing or does not fit."""
    return judging.opened(folder, SEGMENTER)


def _with_masks(data: Data) -> Data:
    if not isinstance(data, Data):
        raise UserError(f"a segmenter belongs to a data set, not to {type(data).__name__}: give data.load(name)")
    try:
        masked = complete(data, ("mask",))
        if "mask" in masked.sample(1, torch.Generator(masked.device).manual_seed(0)):
            return masked
    except ValueError:
        pass
    raise UserError(f"data set '{data.name}' draws no masks, so no segmenter can learn from it; 'scenes' does")


def _errors(segmenter: Segmenter, data: Data, n: int, seed: int) -> dict[str, float | None]:
    """The marks of its card, on n fresh pictures; None where no object was found in any."""
    rng, ious, off = torch.Generator().manual_seed(seed), [], []
    instrument = Segmented(segmenter)
    for start in range(0, n, BATCH):
        batch = data.sample(min(BATCH, n - start), rng)
        ious.append(overlap(segmenter.mask(batch["x"]) > 0.5, batch["mask"] > 0.5))
        x, y, area = moments(batch["mask"])
        off.append((instrument(batch["x"])[:, :3] - torch.stack([x, y, area.log() / 2], dim=1)).abs())
    off = torch.cat(off)
    found = [torch.cat(ious).nanmean(), *off.nanmean(0), off[:, 2].isnan().float().mean()]
    return {name: None if value.isnan() else round(float(value), 4) for name, value in zip(MARKS, found)}


def _said(marks: dict[str, float | None]) -> str:
    known = ", ".join(f"{name} {value:.4g}" for name, value in marks.items() if value is not None)
    return f"the segmenter's overlap with the true masks, its mean errors and its share of failures: {known}"


SEGMENTER = judging.Kind(
    "segmenter", Segmenter, Settings, "errors", _errors, lambda segmenter: set(MARKS), "how it errs", _said,
    tail="-segmenter",
)  # fmt: skip
