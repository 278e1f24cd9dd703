"""The drawn 3D Shapes beside 50 real pictures, region by region, and how many are drawn per second.

    DISENTKIT_TEST_DATA=FOLDER python tests/benchmarks/shapes3d.py

FOLDER holds shapes3d/shapes3d_50_samples.npz. To reach: 2,000 images/s on two idle cores.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from render import rate

sys.path.insert(0, str(Path(__file__).parents[1]))

import shapes3d_real as real  # noqa: E402

from disentkit.data.laws import Grid  # noqa: E402
from disentkit.data.shapes3d import SPACE, Shapes3D  # noqa: E402

STEP = 0.02  # by how much the scene's measures are moved


def compare(images: torch.Tensor, values: torch.Tensor) -> None:
    away = real.away(images, values)
    print("absolute difference in grey levels of 255, mean over the colours")
    print(f"{'region':>8} {'of pixels':>9} {'of the mean colour':>18}")
    for name, mask in real.regions(values).items():
        print(f"{name:>8} {away[mask].mean():9.2f} {real.colours_away(images, values, mask).mean():18.2f}")
    each = away[:, :, real.INNER].mean((1, 2))
    print(f"{'all':>8} {each.mean():9.2f}   (worst picture {each.max():.2f})")
    overlap = real.outlines(images, values)
    print(f"outlines of the object, intersection over union: mean {overlap.mean():.3f}, least {overlap.min():.3f}")
    print(f"\nwith one measure of the scene moved by {STEP} down or up, the difference over all pixels rises by")
    for name, (low, high) in real.moved(STEP).items():
        rises = []
        for value in (low, high):
            with real.changed(name.split()[0], value):
                rises.append(real.away(images, values)[:, :, real.INNER].mean() - each.mean())
        print(f"{name:>15} {rises[0]:+.3f} {rises[1]:+.3f}", flush=True)


def cpu_rate(renderer: Shapes3D, batch: int, seconds: float = 1.0) -> float:
    """Images per second of one core's own time, which other programs disturb less than the clock."""
    values = Grid().draw(SPACE, batch, torch.Generator().manual_seed(0))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.thread_time()
        renderer.render(values)
        best = min(best, time.thread_time() - start)
    return batch / best


if __name__ == "__main__":
    folder = os.environ.get("DISENTKIT_TEST_DATA")
    if folder:
        compare(*real.pictures(Path(folder)))
    else:
        print("DISENTKIT_TEST_DATA is not set: no real pictures to compare with")
    print("\nimages/s at 64 pixels")
    torch.set_num_threads(1)
    print(f"1 thread, batch 64: {rate(Shapes3D(), 64):,.0f}; by the core's own time {cpu_rate(Shapes3D(), 64):,.0f}")
    torch.set_num_threads(2)
    print(f"2 threads, batch 64: {rate(Shapes3D(), 64):,.0f} (both cores must be idle)")
