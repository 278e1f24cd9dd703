"""Click on a button of the block explorer to new image bytes: 64x64 pictures, 8 blocks of 64, MIX's decoder.

    python tests/benchmarks/mixer.py

Median over 300 clicks, as in a kernel: with an event loop running, where the sheet waits for rest. The decoder is that
of the paper's code with random weights, at a quarter of its widths (to reach: under 15 ms) and at its own; beside them
the swap sheet of 8x8 pictures that follows at rest. Exits with 1 where a quarter of the widths takes longer.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import torch
from torch import nn

from disentkit.codes import Block, CodeSpace
from disentkit.explore import Mixer
from disentkit.nets import mix

CLICKS, LIMIT = 300, 15.0


class Coder(nn.Module):
    """MIX's encoder and decoder, untrained, with some contrast in the picture, as a trained one has."""

    image_shape = (3, 64, 64)
    codes = CodeSpace(Block(f"f{i}", "free", (64,)) for i in range(1, 9))

    def __init__(self, wide: float):
        super().__init__()
        self.encoder = mix.encoder(self.image_shape, 512, "paper", wide)
        self.decoder = mix.decoder(self.image_shape, 512, "paper", wide)

    def encode(self, x):
        return 100 * self.encoder(2 * x - 1)

    def decode(self, codes):
        return (100 * self.decoder(codes)).sigmoid()


async def measure(wide: float, mode: int) -> tuple[list[float], float, float]:
    """Milliseconds per click in a mode of the mixer, the same in CPU time on average, and those of a sheet."""
    torch.manual_seed(0)
    mixer = Mixer(Coder(wide), torch.rand(8, 3, 64, 64))
    mixer.mode.value = mode
    taken, cpu = [], time.process_time()
    for i in range(CLICKS):
        block, source = (i % 8, (i // 8 + 1) % 8) if mode == 0 else (i // 8 % 8, (i + 1) % 8)
        button, old = mixer.buttons[f"f{block + 1} from {source + 1}"], mixer.picture.value
        start = time.perf_counter()
        button.click()
        taken.append(1000 * (time.perf_counter() - start))
        assert mixer.picture.value != old and not mixer.error, (i, mixer.error)
    cpu, start = (time.process_time() - cpu) / CLICKS, time.perf_counter()
    mixer.sheet()
    return taken, 1000 * cpu, 1000 * (time.perf_counter() - start)


def main() -> int:
    medians = []
    for wide, mode in (0.25, 0), (0.25, 1), (1.0, 0):
        taken, cpu, sheet = asyncio.run(measure(wide, mode))
        medians.append(statistics.median(taken))
        tail = statistics.quantiles(taken, n=20)[-1]
        what = f"width x {wide:g}, a click feeds {('one block', 'all but one')[mode]}"
        print(f"{what}: median {medians[-1]:.2f} ms, 95 % {tail:.2f}, CPU time {cpu:.2f}, limit {LIMIT:g}; "
              f"the sheet at rest {sheet:.0f} ms")  # fmt: skip
    return 0 if max(medians[:2]) < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
