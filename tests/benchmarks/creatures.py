"""How long the toys of `creatures` take to cast, once, how fast they are looked up then, and what each factor changes.

    python tests/benchmarks/creatures.py

To reach: the 800 pictures of 64 pixels in 5 s of one core's own time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch
from render import rate

from disentkit.data import creatures
from disentkit.data.creatures import SIZES, Creatures


def own_time(job: Callable[[], object]) -> float:
    """Seconds of this process alone, which other programs disturb less than the clock."""
    start = time.process_time()
    job()
    return time.process_time() - start


def changes(renderer: Creatures) -> None:
    """How many pixels differ by more than a tenth when one factor takes another value and the others stay."""
    space = renderer.space
    pictures = renderer.render(space.from_grid(space.tuple_of(torch.arange(space.grid_size))))
    pictures = pictures.view(*space.sizes, *renderer.image_shape)
    pixels = renderer.size**2
    for k, factor in enumerate(space):
        rows = pictures.movedim(k, 0)
        if factor.name == "expression":
            rows = rows[:, :, [0, 1, 7]]  # seen from the front and half from the sides
        pairs = itertools.combinations(rows, 2)
        found = torch.stack([((a - b).abs().amax(-3) > 0.1).flatten(-2).sum(-1) for a, b in pairs]).float()
        print(f"{factor.name:>12} {found.mean():6.0f} of {pixels:,} on average, {found.min():4.0f} at least")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(
        f"{'pixels':>6} {'expression':>10} {'table':>7} {'MB':>6} {'looked up/s':>12} {'cast, ms':>9} {'mask, ms':>9}"
    )
    for size, expression in itertools.product(SIZES, (False, True)):
        renderer = Creatures(size, expression=expression)
        seconds = own_time(lambda size=size, expression=expression: creatures._table(size, expression))
        values = renderer.law.draw(renderer.space, 20, torch.Generator().manual_seed(0))
        single = [
            own_time(lambda draw=draw, values=values: draw(values)) / 20 for draw in (renderer.cast, renderer.mask)
        ]
        space = creatures._table(size, expression).numel() / 1e6
        speed, (cast, mask) = rate(renderer, 64), (1000 * t for t in single)
        print(
            f"{size:6} {expression!s:>10} {seconds:5.1f} s {space:6.0f} {speed:12,.0f} {cast:9.1f} {mask:9.1f}",
            flush=True,
        )
    print("\npixels that change with one factor, at 32 pixels")
    changes(Creatures(32, expression=True))
