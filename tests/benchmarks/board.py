"""Click on a button, or move of a slider, of the attribute board to new image bytes: fonts at 64x64, GZS-Net.

    python tests/benchmarks/board.py

Median over 300 events of each kind, as in a kernel: with an event loop running, where the sheet waits for rest. In an
event are the synthesis, the true picture, the PSNR and the words. The networks are those of GZS-Net's `course` preset
with random weights (to reach: under 20 ms) and of its `paper` preset at 64 pixels; beside them the sheet of traversals
that follows at rest. Exits with 1 where `course` takes longer.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import replace

import torch

from disentkit.data import fonts
from disentkit.explore import AttributeBoard
from disentkit.methods.gzsnet import COURSE, GroupAutoencoder, Settings

EVENTS, LIMIT, PICTURES = 300, 20.0, 8
NETS = {"course": COURSE, "paper": replace(Settings(), size=64)}


async def measure(settings: Settings, slide: bool) -> tuple[list[float], float, float]:
    """Milliseconds per click or slider event, the same in CPU time on average, and those of a sheet."""
    torch.manual_seed(0)
    data = fonts.load(64)
    batch = data.sample(PICTURES, torch.Generator().manual_seed(0))
    model = GroupAutoencoder(data.image_shape, data.space.names, settings)
    board = AttributeBoard(model, batch["x"], batch["factors"], data)
    names, taken, cpu = data.space.names, [], time.process_time()
    for i in range(EVENTS):
        name, told = names[i % len(names)], board.words_line.value
        button, slider = board.buttons[f"{name} from {(i // len(names) + 1) % PICTURES + 1}"], board.sliders[name]
        start = time.perf_counter()
        if slide:
            slider.value = 0.2 + 0.005 * (i % 120)
        else:
            button.click()
        taken.append(1000 * (time.perf_counter() - start))
        assert board.words_line.value != told and not board.error, (i, board.error)
    cpu, start = (time.process_time() - cpu) / EVENTS, time.perf_counter()
    board.sheet()
    return taken, 1000 * cpu, 1000 * (time.perf_counter() - start)


def main() -> int:
    medians = []
    for nets, slide in ("course", False), ("course", True), ("paper", False):
        taken, cpu, sheet = asyncio.run(measure(NETS[nets], slide))
        medians.append(statistics.median(taken))
        tail = statistics.quantiles(taken, n=20)[-1]
        what = f"{nets}, {'a move of a slider' if slide else 'a click'}"
        print(f"{what}: median {medians[-1]:.2f} ms, 95 % {tail:.2f}, CPU time {cpu:.2f}, limit {LIMIT:g}; "
              f"the sheet at rest {sheet:.0f} ms")  # fmt: skip
    return 0 if max(medians[:2]) < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
