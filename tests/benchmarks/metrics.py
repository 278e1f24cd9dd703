"""How long each metric takes on 10,000 x 10 codes, and how far the fast DCI is from scikit-learn's trees.

    python tests/benchmarks/metrics.py [--rounds 3] [--rows 3000] [--skip-trees]

The codes are of the kind an encoder gives: the five factors of dSprites' grid (3, 6, 40, 32 and 32 values), scale and
x turned into each other, all noisy, and five dead numbers. scikit-learn's trees would take ten minutes or more on them,
so both engines are compared on fewer rows of three of the factors (shape, scale and x: 41 trees a round instead of
113), with clean codes beside the noisy ones. One thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from disentkit import metrics

SIZES = (3, 6, 40, 32, 32)  # shape, scale, orientation, x, y
TIMED = {
    "mig": (metrics.mig, 1),
    "factorvae_score": (metrics.factorvae_score, 2),
    "betavae_score": (metrics.betavae_score, 5),
    "betavae_score, adagrad": (lambda z, v: metrics.betavae_score(z, v, L=200, classifier="adagrad"), 5),
    "sap": (metrics.sap, 5),
    "sap, continuous": (lambda z, v: metrics.sap(z, v, mode="continuous"), 5),
    "modularity": (metrics.modularity, 5),
    "explicitness": (metrics.explicitness, 5),
    "irs": (metrics.irs, 5),
    "udr, five models": (lambda z, v: metrics.udr([np.roll(z, i, axis=1) for i in range(5)]), 5),
    "udr, ranks": (lambda z, v: metrics.udr([np.roll(z, i, axis=1) for i in range(5)], method="spearman"), 5),
    "gaussian_tc": (lambda z, v: metrics.gaussian_tc(z), 5),
    "kl_split": (lambda z, v: metrics.kl_split(torch.tensor(z).float(), torch.full(z.shape, -2.0)), 5),
    "dci, fast": (metrics.dci, 60),
}  # fmt: skip


def grid(n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n, 10) and factors (n, 5)."""
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(size, size=n) for size in SIZES], axis=1)
    z = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    z[:, [1, 3]] = z[:, [1, 3]] @ np.array([[1, 1], [1, -1]]) / 2**0.5
    z = z + noise * rng.normal(size=z.shape)
    return np.hstack([z, 0.02 * rng.normal(size=z.shape)]), factors


def times(rounds: int) -> None:
    codes, factors = grid(10_000, 0.3)
    metrics.explicitness(codes[:60, :2], factors[:60, :1]), metrics.sap(codes[:60, :1], factors[:60, :1])  # imports
    for name, (metric, limit) in TIMED.items():
        found = []
        for _ in range(1 if limit > 5 else rounds):
            start = time.perf_counter()
            metric(codes, factors)
            found.append(time.perf_counter() - start)
        print(f"{name:24} {np.median(found):7.2f} s  (median of {len(found)}; to stay under {limit} s)", flush=True)


def engines(rows: int) -> None:
    print(f"\nDCI on {rows} rows, three factors      disentanglement  completeness  informativeness  seconds")
    for kind, noise in (("clean", 0.0), ("noisy", 0.3)):
        codes, factors = grid(rows, noise)
        for engine in ("fast", "trees"):
            start = time.perf_counter()
            score = metrics.dci(codes, factors[:, [0, 1, 3]], engine=engine)
            shown = [score[key] for key in ("disentanglement", "completeness", "informativeness")]
            print(f"  {kind} codes, {engine:5}".ljust(37) + "{:15.3f}  {:12.3f}  {:15.3f}".format(*shown)
                  + f"  {time.perf_counter() - start:7.1f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=3000, help="of the comparison of the two DCI engines")
    parser.add_argument("--skip-trees", action="store_true", help="only the times")
    args = parser.parse_args()
    torch.set_num_threads(1)
    times(args.rounds)
    if not args.skip_trees:
        engines(args.rows)


if __name__ == "__main__":
    main()
