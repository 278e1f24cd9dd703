"""Groups per second of GZS-Net's sampler on tuples, without drawing a picture.

    python tests/benchmarks/groups.py [--seconds 1] [--batches 64 512 4096]

The grid is that of letters (52 x 3 x 10 x 10 x 20, equal colours do not exist), a fifth of it held out; a group is a
centre, a partner for each of the five attributes and a stranger. The same once more for a table of as many rows that
holds what training draws, as if its pictures were stored. To reach: 100,000 groups/s. Seconds are CPU time of the one
thread, since others may share the machine, and a rate is the median over calls.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from disentkit.data.base import ArrayData, Renderer
from disentkit.data.combinations import held_out
from disentkit.data.factors import Factor, FactorSpace
from disentkit.data.partners import Partners

SIZES = {"letter": 52, "size": 3, "colour": 10, "background": 10, "font": 20}


class Tuples(Renderer):
    """Letters that nobody draws."""

    name, image_shape = "tuples", (1, 1, 1)
    space = FactorSpace(Factor(name, "category", tuple(range(size))) for name, size in SIZES.items())


def equal_colours(values):
    return values[:, 2] == values[:, 3]


def rate(partners: Partners, key: str, n: int, seconds: float) -> float:
    """Groups, pairs or lists of pairs per second in the median call."""
    rng, took, end = torch.Generator().manual_seed(0), [], time.process_time() + seconds
    partners.draw(key, n, rng)
    while time.process_time() < end or len(took) < 10:
        start = time.process_time()
        partners.draw(key, n, rng)
        took.append(time.process_time() - start)
    return n / statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512, 4096])
    args = parser.parse_args()

    torch.set_num_threads(1)
    start = time.process_time()
    law = held_out(Tuples.space, 0.2, never=equal_colours)
    print(f"law made and checked in {time.process_time() - start:.2f} s: {Tuples.space.grid_size:,} tuples")
    rows = law.allowed(Tuples.space, "cpu")
    stored = ArrayData(torch.zeros(len(rows), 1, 1, dtype=torch.uint8), rows, Tuples.space)
    for name, data in {"law": Tuples().with_law(law), "table": stored}.items():
        start = time.process_time()
        partners = Partners(data, reads=("group", "strangers", "edges"))
        print(f"{name}: partners counted in {time.process_time() - start:.2f} s, left out {partners.left_out}")
        for n in args.batches:
            rates = {key: rate(partners, key, n, args.seconds) for key in ("group", "strangers", "edges")}
            print(
                f"  {n:5} at once: " + ", ".join(f"{key} {found:9,.0f}/s" for key, found in rates.items()), flush=True
            )


if __name__ == "__main__":
    main()
