"""One beta-TCVAE step against one beta-VAE step, with the same networks on the same CPU: ratios of their times.

    python tests/benchmarks/betatcvae.py [--threads 1] [--rounds 9] [--steps 6]

64x64 pictures, batch 64, ten latents. What beta-TCVAE adds is the (64, 64, 10) table of log densities; to reach: a step
within 1.2 times a beta-VAE step. Pictures are drawn beforehand, the contenders take turns, and a ratio is the median
over rounds of the ratio within a round, so that other work on the machine hurts both alike.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from step import measure, pictures, ratio

from disentkit import machine, training
from disentkit.data.base import Spec
from disentkit.methods import learner_class, settings_for

METHODS = {"beta-VAE": "betavae", "beta-TCVAE, mss": "betatcvae", "beta-TCVAE, mws": "betatcvae"}


def stepping(name: str, batches, **changes):
    """A function that does `steps` steps of a method at its paper preset, as `fit` does them in float32."""
    settings = settings_for(METHODS[name], "dsprites", "paper")
    settings = settings.__class__(**{**vars(settings), **changes})
    with machine.seeded(0):
        learner = learner_class(METHODS[name])(settings, Spec((1, 64, 64)))
    learner.to(memory_format=torch.channels_last).train()
    learner.rng = torch.Generator().manual_seed(1)
    opt = learner.optimizers()
    batches = [{"x": training._channels_last(batch)} for batch in batches]

    def run(steps: int) -> None:
        for i in range(steps):
            learner.t.fill_(i)
            learner.step(opt, batches[i % len(batches)])

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6, help="steps of each contender in a round")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    batches = pictures(64)
    contenders = {name: stepping(name, batches, **({"estimator": name[-3:]} if "," in name else {}))
                  for name in METHODS}  # fmt: skip
    rates = measure(contenders, args.rounds, args.steps)
    print(f"{'':16}  {'ms/step':>8}  {'times a beta-VAE step (lowest, highest round)'}")
    for name, found in rates.items():
        line = f"{name:16}  {1000 / statistics.median(found):8.1f}"
        if name != "beta-VAE":
            line += "  {:.2f} ({:.2f}, {:.2f})".format(*ratio(rates, "beta-VAE", name))
        print(line, flush=True)


if __name__ == "__main__":
    main()
