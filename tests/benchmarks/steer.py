"""Move of a slider of the direction panel to new image bytes: a BigGAN of 64 pixels, its oracle beside it.

    python tests/benchmarks/steer.py

Median over 300 events of each kind, as in a kernel: with an event loop running, where the sheet waits for rest. The
generator is that of the `course` preset with random weights, which cost as much as trained ones, and four random
directions (to reach: under 25 ms); once without an instrument, once measured by spectral residual, once with two of the
directions locked. An instrument that takes longer than 5 ms waits for rest, and the line says how many events it was
asked in. Beside it the sheet of paths that follows at rest. Exits with 1 where an event takes longer.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import torch

from disentkit.data.factors import category
from disentkit.explore import Steer
from disentkit.methods.biggan import COURSE, Sampler
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.steered import Steered, make_direction
from disentkit.metrics.instruments import ExactMask, Saliency

EVENTS, LIMIT = 300, 25.0
NAMES = ("x", "y", "zoom", "brightness")


def gan() -> Steered:
    """Four random directions through a generator of 64 pixels with random weights."""
    torch.manual_seed(0)
    base = Sampler((3, 64, 64), category("shape", "disc", "square", "triangle", "star"), COURSE).eval()
    u = torch.randn(len(NAMES), base.codes.size)
    u[:, : base.classes] = 0
    return Steered(base, [make_direction(*pair) for pair in zip(NAMES, u)])


def oracle() -> Steered:
    """The oracle with its true directions."""
    base, s = OracleGenerator(), torch.linspace(-4, 4, 26)
    return Steered(base, [make_direction(name, base.u(name), s, base.g(name, s)) for name in NAMES])


async def measure(model: Steered, instrument, locked: int) -> tuple[list[float], int, float, float]:
    """Milliseconds per event, in how many events was measured, CPU time per event, and milliseconds of a sheet."""
    panel = Steer(model, instrument)
    names = NAMES[locked:]
    for name in NAMES[:locked]:
        panel.lock(name)
    taken, measured, cpu = [], 0, time.process_time()
    for i in range(EVENTS):
        slider, old = panel.controls[names[i % len(names)]], panel.picture.value
        start = time.perf_counter()
        slider.value = slider.min + (slider.max - slider.min) * (0.2 + 0.6 * ((i * 37) % EVENTS) / EVENTS)
        taken.append(1000 * (time.perf_counter() - start))
        measured += panel._now is not None
        assert panel.picture.value != old and not panel.error, (i, panel.error)
    cpu, start = (time.process_time() - cpu) / EVENTS, time.perf_counter()
    panel.sheet()
    return taken, measured, 1000 * cpu, 1000 * (time.perf_counter() - start)


def main() -> int:
    medians, known = [], oracle()
    for what, model, instrument, locked in [
        ("BigGAN, no instrument", gan(), None, 0),
        ("BigGAN, spectral residual", gan(), Saliency(), 0),
        ("BigGAN, spectral residual, two locked", gan(), Saliency(), 2),
        ("oracle, exact mask", known, ExactMask(known), 0),
    ]:
        taken, measured, cpu, sheet = asyncio.run(measure(model, instrument, locked))
        medians.append(statistics.median(taken))
        tail = statistics.quantiles(taken, n=20)[-1]
        print(f"{what}: median {medians[-1]:.2f} ms, 95 % {tail:.2f}, CPU time {cpu:.2f}, limit {LIMIT:g}; "
              f"measured in {measured} of {EVENTS}; the sheet at rest {sheet:.0f} ms")  # fmt: skip
    return 0 if max(medians) < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
