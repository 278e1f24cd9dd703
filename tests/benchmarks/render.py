"""How many dSprites and 3D Shapes pictures are drawn per second. Run: python tests/benchmarks/render.py"""

import time

import torch

from disentkit.data.base import Renderer
from disentkit.data.dsprites import DSprites
from disentkit.data.laws import Grid
from disentkit.data.shapes3d import Shapes3D


def rate(renderer: Renderer, batch: int, seconds: float = 0.5) -> float:
    """Images per second: the best of the single renders that fit into `seconds`, for the machine may be shared."""
    values = Grid().draw(renderer.space, batch, torch.Generator().manual_seed(0))
    renderer.render(values)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        renderer.render(values)
        best = min(best, time.perf_counter() - start)
    return batch / best


if __name__ == "__main__":
    print(f"{'threads':>7} {'data':>8} {'pixels':>6} {'batch':>5} {'images/s':>9}")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for kind in (DSprites, Shapes3D):
            for size in (64, 32):
                for batch in (64, 128, 256, 512):
                    renderer = kind(size)
                    speed = rate(renderer, batch)
                    print(f"{threads:7} {renderer.name:>8} {size:6} {batch:5} {speed:9,.0f}", flush=True)
