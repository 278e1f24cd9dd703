"""Prints how long the metrics take on arrays of 10,000 x 10 codes, on one thread.

Run as `python tests/benchmarks/metrics.py`.
"""
import time

import numpy as np
import torch

from disentkit.metrics import betavae_score, factorvae_score, mig

SIZES = (3, 6, 40, 32, 32)  # the factor grid of dSprites


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(10_000, 10))
    factors = np.stack([rng.integers(size, size=len(codes)) for size in SIZES], axis=1)
    betavae_score(codes, factors, votes=10)  # importing scikit-learn is not the metric's time
    for metric, limit in ((mig, "1 s"), (factorvae_score, "2 s"), (betavae_score, "none")):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            metric(codes, factors)
            times.append(time.perf_counter() - start)
        print(f"{metric.__name__:16} {np.median(times):6.3f} s  (median of 5; limit {limit})")


if __name__ == "__main__":
    main()
