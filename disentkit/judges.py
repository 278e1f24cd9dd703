"""Judges: supervised readers of factors, which say what is to be seen in a picture that a model made.

A judge is trained on true pictures alone and knows no model, so all models are measured by the same eyes. It is a small
convolutional network with one softmax per factor; real and cyclic factors are classes on their grid. What a weak
decoder makes is blurred, and a judge that never saw blur would call such pictures unreadable, or worse, read all of
them alike. So half of the training pictures are blurred a little, and half get a little noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import UserError
from disentkit.models import Learner, adam, device_of, frozen

BATCH = 256  # pictures read at a time


@dataclass(frozen=True)
class Settings:
    """`width` channels of the first layer, `fc` units of the last; `blur` and `noise` of the training pictures.

    blur   at most so many times smoothed by a 5x5 binomial kernel (of standard deviation 1), fractions included
    noise  the largest standard deviation of Gaussian noise
    """

    width: int = 16
    fc: int = 128
    blur: float = 2.0
    noise: float = 0.05
    lr: float = 1e-3
    batch: int = 64
    steps: int = 1000
    size: int = 32


class Judge(Learner):
    """Pictures (N, C, H, W) in [0, 1] -> the grid number of each factor, (N, K).

    Trained by cross-entropy, the mean over factors and batch. Adam, its step falling to zero along a cosine over
    `settings.steps`. Raises UserError for data without factors and for pictures smaller than 8 pixels.
    """

    reads = ("x", "factors")

    def __init__(self, settings: Settings, spec, base=None):
        super().__init__(settings, spec, base)
        if spec.space is None:
            raise UserError("a judge reads factors, and these data have none")
        self.space, self.image_shape = spec.space, tuple(spec.image_shape)
        self.net = network(self.image_shape, settings.width, settings.fc, sum(self.space.sizes))
        self.register_buffer("kernel", binomial(self.image_shape[0]), persistent=False)
        self.card: dict = {}

    @property
    def model(self) -> nn.Module:
        return self

    def optimizers(self):
        return {"judge": adam(self.net.parameters(), torch.tensor(self.settings.lr, device=self.t.device))}

    def step(self, opt, batch):
        s = self.settings
        opt["judge"].param_groups[0]["lr"].copy_(s.lr * (0.5 + 0.5 * torch.cos(torch.pi * self.t / s.steps)))
        classes = self.space.to_grid(batch["factors"])  # (m, K)
        logits = self.logits(self.worn(batch["x"], self.rng))  # K times (m, values)
        loss = torch.stack([F.cross_entropy(part, true) for part, true in zip(logits, classes.T)]).mean()
        opt["judge"].zero_grad()
        loss.backward()
        opt["judge"].step()
        right = torch.stack([part.argmax(1) == true for part, true in zip(logits, classes.T)])  # (K, m)
        return {"loss": loss.detach(), "accuracy": right.float().mean(1)}

    def worn(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Pictures (N, C, H, W): a random half of them blurred, a random half with noise, each as much as it comes."""
        wear = torch.rand(2, len(x), 1, 1, 1, generator=rng, device=x.device).mul(2).sub(1).clamp(min=0)  # half are 0
        for once in range(math.ceil(self.settings.blur)):
            smooth = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), self.kernel, groups=x.shape[1])
            x = x + (self.settings.blur * wear[0] - once).clamp(0, 1) * (smooth - x)
        return x + self.settings.noise * wear[1] * torch.randn(x.shape, generator=rng, device=x.device)

    def logits(self, x: Tensor) -> list[Tensor]:
        """One tensor (N, values) per factor, of pictures (N, C, H, W) on the judge's device."""
        return list(self.net(x).split(self.space.sizes, dim=1))

    def read(self, x: Tensor) -> Tensor:
        """Grid numbers (N, K) int64 on the CPU, a column per factor of `space`; raises ValueError for other shapes."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"this judge reads images (N, {', '.join(map(str, self.image_shape))}), not {tuple(x.shape)}"
            )
        with frozen(self):
            parts = [self.logits(part.to(device_of(self)).float()) for part in x.split(BATCH)]
            return torch.cat([torch.stack([p.argmax(1) for p in part], dim=1) for part in parts]).cpu()


def network(image_shape: tuple[int, int, int], width: int, fc: int, outputs: int) -> nn.Sequential:
    """Images (N, C, H, W) -> logits (N, outputs): 3x3 convolutions that halve the sides until one is 4 or 5 at most."""
    channels, height, side = image_shape
    if min(height, side) < 8:
        raise UserError(f"a judge reads pictures of 8 pixels or more, not {height}x{side}")
    layers: list[nn.Module] = []
    out = width
    while min(height, side) > 5:
        layers += [nn.Conv2d(channels, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        height, side = (height + 1) // 2, (side + 1) // 2
        channels, out = out, min(2 * out, 4 * width)
    layers += [nn.Flatten(), nn.Linear(channels * height * side, fc), nn.ReLU(), nn.Linear(fc, outputs)]
    return nn.Sequential(*layers)


def binomial(channels: int) -> Tensor:
    """The 5x5 binomial kernel, (channels, 1, 5, 5): a blur of standard deviation 1 for each channel."""
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    return (line[:, None] * line).repeat(channels, 1, 1, 1)
