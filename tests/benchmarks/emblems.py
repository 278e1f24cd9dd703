"""How fast `emblems` are drawn, how exactly boxes fit, and how well a segmenter's boxes stand in for the true ones.

    python tests/benchmarks/emblems.py [--segmenter]

To reach: 3,000 pictures of 32 pixels per second on one core. The segmenter is opened, or trained where there is none.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from disentkit.data.emblems import SIZES, SPACE, Emblems, Tree
from disentkit.data.laws import Real
from disentkit.data.views import Views, boxes_around, boxes_iou

CHANGES = ("background", "shape", "texture", "rotation", "aspect", "x", "scale", "phase", "pitch", "tint")


def drawn(n: int) -> Tensor:
    return Real().draw(SPACE, n, torch.Generator().manual_seed(0))


def rate(draw: Callable[[], object], count: int, seconds: float = 2.0) -> float:
    """Pictures per second of this process's own time, which other programs disturb less than the clock: the best."""
    best, end = math.inf, time.perf_counter() + seconds
    draw()
    while best == math.inf or time.perf_counter() < end:
        start = time.process_time()
        draw()
        best = min(best, time.process_time() - start)
    return count / best


def misfit(size: int) -> float:
    """Mean distance of a box's edge from the outermost pixel that the object covers by half, in pixels."""
    values = drawn(1000)
    sides = boxes_around(Emblems(size).mask(values) >= 0.5)
    sides = sides[:, 2:] - sides[:, :2]
    return float((size * values[:, SPACE.index("scale")] - sides.amax(1)).abs().mean() / 2)


def change(name: str, size: int, count: int = 300) -> float:
    """Root mean squared difference of two pictures that differ in one factor, which is drawn twice."""
    values, again, k = drawn(count), drawn(2 * count)[count:], SPACE.index(name)
    other = values.clone()
    other[:, k] = again[:, k]
    renderer = Emblems(size)
    return float((renderer.render(values) - renderer.render(other)).square().mean().sqrt())


if __name__ == "__main__":
    torch.set_num_threads(1)
    values, rng = drawn(256), torch.Generator().manual_seed(0)
    print(f"{'pixels':>6} {'pictures/s':>10} {'masks/s':>8} {'with views/s':>12} {'edge, px':>8}")
    for size in SIZES:
        renderer = Emblems(size, Tree(0.75))
        views = Views(renderer)
        pictures, masks = rate(lambda r=renderer: r.render(values), 256), rate(lambda r=renderer: r.mask(values), 256)
        both = rate(lambda v=views: v.sample(256, rng), 256)
        print(f"{size:6} {pictures:10,.0f} {masks:8,.0f} {both:12,.0f} {misfit(size):8.2f}", flush=True)
    print(f"\n{'changed':>10} {'rms at 32':>9} {'at 64':>6}")
    for name in CHANGES:
        print(f"{name:>10} {change(name, 32):9.3f} {change(name, 64):6.3f}", flush=True)
    if "--segmenter" in sys.argv:
        print("\noverlap of a segmenter's boxes with the true ones")
        for few in (False, True):
            for size in (32, 64):
                share = boxes_iou(Emblems(size, few=few), 2000, torch.Generator().manual_seed(1))
                print(f"{size:6} {'few' if few else 'all'} {share:6.3f}", flush=True)
