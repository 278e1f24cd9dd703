"""Trajectories inverted as one batch, as `Directions` does it, against one trajectory and one target after another.

    python tests/benchmarks/inversion.py [--threads 1 2] [--rounds 5]

50 trajectories towards 10 targets each, 5 to either side of 0, and 50 updates for each target: 250 updates of 100 codes
at once, or 25,000 updates of one code. Both minimise the same error with the same optimiser and the same projection;
alone, every row is a training of its own, typed in plainly. Not all of it is run: in each round 40 updates of one code
and 4 of the batch are timed in turn (BigGAN: 20 and 2), and the medians are scaled to the whole. Printed are wall and
CPU time, the ratios (median over rounds of the ratio within a round, lowest and highest), and how far apart the codes
of both ways end. To reach: 5 times on the oracle, by wall and by CPU time. Exits with 1 where it is less.

The generators: the oracle of 64 pixels, and a BigGAN of the `course` preset with random weights, which cost as much as
trained ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor

from disentkit import machine
from disentkit.data.factors import category
from disentkit.methods.biggan import COURSE, Sampler
from disentkit.methods.directions import Directions, Settings
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.row_adam import RowAdam

LIMIT = 5.0
S = Settings(transforms="x", batch=50, levels=5, steps=250)
ROWS = 2 * S.batch


def gan() -> Sampler:
    """A generator of 64 pixels with random weights."""
    with machine.seeded(0):
        kinds = category("shape", "disc", "square", "triangle", "star")
        return Sampler((3, 64, 64), kinds, COURSE).eval().requires_grad_(False)


def start(model, settings: Settings = S) -> tuple[Directions, Callable[[int], None]]:
    """A learner, and a function that does its update number t, of all rows."""
    with machine.seeded(0):
        learner = Directions(settings, None, SimpleNamespace(model=model))
    opt = {"z": RowAdam([learner.z], settings.lr)}

    def update(t: int) -> None:
        learner.t.fill_(t)
        learner.step(opt)

    return learner, update


def alone(learner: Directions, row: int) -> tuple[Callable[[int], None], Tensor]:
    """A function that does update number t of one row, and the path (levels, D) that it fills."""
    s, (targets, masks) = learner.settings, learner.targets()
    z = torch.nn.Parameter(learner.z.detach()[row : row + 1].clone())
    free, ball = learner.moves, learner.gaussian > 0
    path, optimiser = z.detach().repeat(s.levels, 1), {}

    def update(t: int) -> None:
        level, begins = divmod(t, s.steps // s.levels)
        if begins == 0:
            optimiser["z"] = RowAdam([z], s.lr)
        path[level] = z.detach()[0]
        x = learner.found.decode(z)
        loss = learner.error(x, targets[level, row : row + 1], masks[level, row : row + 1]).sum()
        z.grad = torch.autograd.grad(loss, z)[0] * free
        optimiser["z"].step()
        with torch.no_grad():
            shrink = (ball.sum().sqrt() / (z * ball).norm()).clamp(max=1)
            z.copy_(torch.where(ball, z * shrink, z))

    return update, path


def apart(model, steps: int) -> float:
    """The farthest that the codes of both ways lie apart, as a share of the way gone; two rows of either side."""
    learner, batch = start(model, replace(S, steps=steps))
    rows = [0, 1, S.batch, S.batch + 1]
    singles = {row: alone(learner, row) for row in rows}
    for t in range(steps):
        batch(t)
        for update, _ in singles.values():
            update(t)
    found, z0 = learner.found.paths[:, rows], learner.found.z0[[0, 1, 0, 1]]
    paths = torch.stack([path for _, path in singles.values()], 1)  # (levels, rows, D)
    return float((found - paths).norm(dim=2).max() / (found[-1] - z0).norm(dim=1).min())


def timed(update: Callable[[int], None], steps: range) -> tuple[float, float]:
    """Wall and CPU milliseconds of one update."""
    wall, cpu = time.perf_counter(), time.process_time()
    for t in steps:
        update(t)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return 1000 * wall / len(steps), 1000 * cpu / len(steps)


def measure(what: str, model, many: int, few: int, rounds: int, threads: int) -> float:
    """Time `many` updates of one code and `few` of the batch in turn; the smaller of both clocks' ratios."""
    torch.set_num_threads(threads)
    learner, batch = start(model)
    single, _ = alone(learner, 0)
    one, all_ = [], []
    for i in range(rounds + 1):
        one.append(timed(single, range(i * many, (i + 1) * many)))
        all_.append(timed(batch, range(i * few, (i + 1) * few)))
    print(f"{what}, {threads} thread{'s'[: threads > 1]}")
    ratios = []
    for clock, a, b in zip(("wall", "CPU"), zip(*one[1:]), zip(*all_[1:]), strict=True):  # the first warmed up
        found = [ROWS * x / y for x, y in zip(a, b)]
        ratios.append(statistics.median(found))
        a, b = statistics.median(a), statistics.median(b)
        print(f"  {clock}: one code {a:.2f} ms an update, {ROWS} codes {b:.1f} ms; scaled to all of it "
              f"{a * ROWS * S.steps / 1000:.0f} s against {b * S.steps / 1000:.1f} s; "
              f"{ratios[-1]:.1f} times ({min(found):.1f} ... {max(found):.1f})", flush=True)  # fmt: skip
    return min(ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    oracle, biggan, found = OracleGenerator(64), gan(), []
    torch.set_num_threads(1)
    print(f"codes of both ways apart, of the way gone: oracle {apart(oracle, S.steps):.1e} after {S.steps} updates, "
          f"BigGAN {apart(biggan, 2 * S.levels):.1e} after {2 * S.levels}", flush=True)  # fmt: skip
    for threads in asked.threads:
        found.append(measure("oracle", oracle, 40, 4, asked.rounds, threads))
        measure("BigGAN", biggan, 20, 2, asked.rounds, threads)
    return 0 if min(found) >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
