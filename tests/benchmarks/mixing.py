"""Click on a button of the mixing board to new image bytes: MixNMatch at 64x64 with random weights.

    python tests/benchmarks/mixing.py

Median over 300 clicks, as in a kernel: with an event loop running, where the strip of a sweep waits for rest. In a
click are the mix, the marks and the words (to reach: under 40 ms); in the second line the intermediate pictures, too,
in the third feature mode. Beside them the strip that follows at rest. Exits with 1 where a click in code mode takes
longer.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import replace

import torch

from disentkit.explore import MixingBoard
from disentkit.methods import mixnmatch_feature
from disentkit.methods.mixnmatch import COURSE, MixNMatchModel
from disentkit.methods.mixnmatch_feature import FeatureMode

EVENTS, LIMIT, PICTURES, SIZE = 300, 40.0, 8, 64


def models() -> tuple[MixNMatchModel, FeatureMode]:
    """Code mode and feature mode."""
    torch.manual_seed(0)
    code = MixNMatchModel((3, SIZE, SIZE), replace(COURSE, size=SIZE))
    return code, FeatureMode(code, replace(mixnmatch_feature.COURSE, size=SIZE))


async def measure(mode: str, intermediate: bool) -> tuple[list[float], float, float]:
    """Milliseconds per click, the same in CPU time on average, and those of a strip."""
    code, feature = models()
    board = MixingBoard(code, torch.rand(PICTURES, *code.image_shape), feature)
    board.mode, board.intermediate.value = mode, intermediate
    names = list(board._ways[mode].rows)
    taken, cpu = [], time.process_time()
    for i in range(EVENTS):
        name, told = names[i % len(names)], board.words_line.value
        button = board.buttons[f"{name} from {(board.state[name] + 1) % PICTURES + 1}"]
        start = time.perf_counter()
        button.click()
        taken.append(1000 * (time.perf_counter() - start))
        assert board.words_line.value != told and not board.error, (i, board.error)
    cpu, start = (time.process_time() - cpu) / EVENTS, time.perf_counter()
    board.sweep(names[0])
    return taken, 1000 * cpu, 1000 * (time.perf_counter() - start)


def main() -> int:
    medians = []
    for mode, intermediate in ("code", False), ("code", True), ("feature", False):
        taken, cpu, strip = asyncio.run(measure(mode, intermediate))
        medians.append(statistics.median(taken))
        tail = statistics.quantiles(taken, n=20)[-1]
        what = f"{mode} mode{', intermediate pictures' if intermediate else ''}"
        print(f"{what}: median {medians[-1]:.2f} ms, 95 % {tail:.2f}, CPU time {cpu:.2f}, limit {LIMIT:g}; "
              f"the strip at rest {strip:.0f} ms")  # fmt: skip
    return 0 if medians[0] < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
