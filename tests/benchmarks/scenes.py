"""How fast `scenes` are drawn, how exactly they show what was asked for, and what blurring leaves of each change.

    python tests/benchmarks/scenes.py

To reach: 3,000 pictures of 64 pixels per second on one core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from disentkit.data.laws import Real
from disentkit.data.scenes import SIZES, SPACE, Scenes

BLUR = 3 / 128  # standard deviation in picture widths
CHANGES = {"x": 0.1, "y": 0.1, "scale": 0.05, "horizon": 0.1, "light": 0.1, "hue": 0.25, "background": 1, "grain": 1}


def drawn(n: int) -> Tensor:
    return Real().draw(SPACE, n, torch.Generator().manual_seed(0))


def rate(draw: Callable[[Tensor], Tensor], seconds: float = 2.0) -> float:
    """Pictures per second of this process's own time, which other programs disturb less than the clock: the best."""
    values, best, end = drawn(256), math.inf, time.perf_counter() + seconds
    draw(values)
    while time.perf_counter() < end:
        start = time.process_time()
        draw(values)
        best = min(best, time.process_time() - start)
    return len(values) / best


def accuracy(size: int) -> tuple[float, float]:
    """Largest distance of a mask's barycentre from (x, y), in pixels, and error of its area, in pixels."""
    values = drawn(2000)
    mask = Scenes(size).mask(values)[:, 0].double()
    place = (torch.arange(size) + 0.5) / size
    area = mask.sum((1, 2))
    found = torch.stack([(mask.sum(1) * place).sum(1), (mask.sum(2) * place).sum(1)], 1) / area[:, None]
    wrong = area - math.pi / 4 * (size * values[:, 3]) ** 2
    return float(size * (found - values[:, 1:3]).norm(dim=1).max()), float(wrong.abs().max())


def blurred(images: Tensor) -> Tensor:
    sigma = BLUR * images.shape[-1]
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    images = F.conv2d(F.pad(images, [reach] * 4, mode="replicate"), kernel, groups=3)
    return F.conv2d(images, kernel.mT, groups=3)


def change(name: str, by: float, count: int = 500) -> tuple[float, float]:
    """Root mean squared difference of two scenes that differ in one factor, as they are and blurred."""
    values, k = drawn(count), SPACE.index(name)
    other, low, high = values.clone(), SPACE[name].low, SPACE[name].high
    other[:, k] = torch.where(values[:, k] + by > high, values[:, k] - by, values[:, k] + by).clamp(low, high)
    a, b = (Scenes(64).render(v) for v in (values, other))
    return tuple(float((f(a) - f(b)).square().mean().sqrt()) for f in (lambda x: x, blurred))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"{'pixels':>6} {'pictures/s':>10} {'masks/s':>8} {'place, px':>9} {'area, px':>8}")
    for size in SIZES:
        renderer, (place, area) = Scenes(size), accuracy(size)
        pictures, masks = rate(renderer.render), rate(renderer.mask)
        print(f"{size:6} {pictures:10,.0f} {masks:8,.0f} {place:9.3f} {area:8.2f}", flush=True)
    print(f"\n{'changed':>10} {'by':>5} {'rms':>6} {'blurred':>8}")
    for name, by in CHANGES.items():
        plain, smooth = change(name, by)
        print(f"{name:>10} {by:5} {plain:6.3f} {smooth:8.3f}", flush=True)
