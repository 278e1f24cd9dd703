"""A training step while another process keeps one core busy, against a step with one thread on a free core.

    python tests/benchmarks/busy.py [--steps 12]

`fit` counts the idle cores when it starts and takes so many threads. The third line shows what it spares: two threads
on one core wait for each other. On a machine that is busy already the clock says nothing: there only the CPU column is
to be compared, which shows that a step costs the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from disentkit import machine, training
from disentkit.data.dsprites import DSprites
from disentkit.methods.factorvae import FactorVAE, Settings

SPIN = "while True: pass"


def step_cost(steps: int, threads: int | None) -> tuple[float, float, int]:
    """Medians per step of `fit`, pictures and all: ms on the clock, ms of CPU; and the threads it took."""
    data = DSprites(64)
    with machine.seeded(0):
        learner = FactorVAE(Settings(), data.spec)
    clock: list[float] = []
    cpu: list[float] = []

    def note(step, rows, learner):
        clock.append(1000 * time.perf_counter())
        cpu.append(1000 * time.process_time())

    fitted = training.fit(
        learner, data, steps=steps + 3, batch=64, threads=threads, watch=note, watch_seconds=0.0, say=lambda line: None
    )
    each = [[b - a for a, b in zip(t[2:], t[3:])] for t in (clock, cpu)]  # the first steps warm up
    return statistics.median(each[0]), statistics.median(each[1]), fitted.threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    steps = parser.parse_args().steps
    print(f"{os.cpu_count()} cores, load before the start {os.getloadavg()[0]:.1f}", flush=True)
    alone = step_cost(steps, threads=1)
    busy = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        time.sleep(0.5)
        chosen, two = step_cost(steps, threads=None), step_cost(steps, threads=2)
    finally:
        busy.terminate()
        busy.wait()
    print(f"{'':34}{'ms/step':>8}{'times':>8}{'CPU ms/step':>14}")
    named = ("one thread, nobody else", f"a busy core, fit takes {chosen[2]}", "a busy core, two threads")
    for name, (clock, cpu, _) in zip(named, (alone, chosen, two)):
        print(f"{name:34}{clock:8.0f}{clock / alone[0]:8.2f}{cpu:14.0f}")


if __name__ == "__main__":
    main()
