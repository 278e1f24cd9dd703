"""One MIX step, as `fit` does it, against the same step written plainly: ratios of steps/s within one run.

    python tests/benchmarks/mix_step.py [--threads 1] [--rounds 7] [--steps 3] [--presets paper quick]

The plain step is the algorithm as one would type it in from the paper, in eager float32 PyTorch with default layout and
default Adam: x1 and x2 are encoded one after the other, and nobody's weights are left out of a backward pass. It has
the same networks, losses and updates, and a test of its own at the start: from the same weights and mask both steps
must find the same losses. To reach: 1.5 times on a CPU with bf16 instructions. Pictures are drawn beforehand, the
contenders take turns, and a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch
import torch.nn.functional as F
from step import measure, ratio

from disentkit import machine, training
from disentkit.data.characters import Characters
from disentkit.methods import settings_for
from disentkit.methods.mix import MIX, draw_mask


def fresh(settings, spec) -> MIX:
    with machine.seeded(0):
        learner = MIX(settings, spec)
    learner.rng = torch.Generator().manual_seed(1)
    return learner.train()


def ours(settings, spec, batches, dtype):
    """A function that does so many steps just as `fit` does them: layout, precision, the learner's own step."""
    learner, cpu = fresh(settings, spec).to(memory_format=torch.channels_last), torch.device("cpu")
    opt = learner.optimizers()
    pairs = [[{"x": training._channels_last(x)} for x in pair] for pair in batches]

    def run(steps: int) -> dict:
        with training._inside_networks(learner, cpu, dtype):
            for i in range(steps):
                losses = learner.step(opt, *pairs[i % len(pairs)])
        return losses

    return run


def plain(s, spec, batches):
    """The same step written plainly, float32."""
    nets = fresh(s, spec)
    enc, dec, C, D, rng = nets.auto.encoder, nets.auto.decoder, nets.C, nets.D, nets.rng
    players = {"auto": (nets.auto, s.lr), "C": (C, s.lr_C), "D": (D, s.lr_D)}
    opt = {name: torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.999)) for name, (net, lr) in players.items()}

    def run(steps: int) -> dict:
        for i in range(steps):
            x1, x2 = (2 * x - 1 for x in batches[i % len(batches)])
            m = draw_mask(len(x1), s.n, rng, s.mask)
            wide = m.repeat_interleave(s.d, dim=1)
            f1, f2 = enc(x1), enc(x2)
            x3 = dec(wide * f1 + (1 - wide) * f2)
            x4 = dec(wide * enc(x3) + (1 - wide) * f1)
            L_M = F.mse_loss(x4, x1)
            L_G = F.binary_cross_entropy_with_logits(D(x3), torch.ones(len(x1), 1))
            seen = x3 + s.noise * torch.randn(x3.shape, generator=rng) if s.noise else x3
            L_C = F.binary_cross_entropy_with_logits(C(torch.cat([x1, x2, seen], dim=1)), m)
            loss = s.lam_M * L_M + s.lam_G * L_G + s.lam_C * L_C
            if s.lam_AE:
                loss = loss + s.lam_AE * (F.mse_loss(dec(f1), x1) + F.mse_loss(dec(f2), x2))
            opt["auto"].zero_grad()
            opt["C"].zero_grad()
            loss.backward()
            opt["auto"].step()
            opt["C"].step()
            real, fake = D(x1), D(x3.detach())
            loss_D = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
            loss_D = loss_D + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
            opt["D"].zero_grad()
            loss_D.backward()
            opt["D"].step()
        return {"L_M": L_M, "L_G": L_G, "L_C": L_C, "loss_D": loss_D}

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps of each contender in a round")
    parser.add_argument("--presets", nargs="+", default=["quick", "paper"])
    parser.add_argument("--batch", type=int, help="instead of the preset's")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    for preset in args.presets:
        settings = settings_for("mix", "characters", preset)
        settings = replace(settings, batch=args.batch or settings.batch)
        data, rng = Characters(settings.size), torch.Generator().manual_seed(0)
        batches = [[data.sample(settings.batch, rng)["x"] for _ in range(2)] for _ in range(3)]
        contenders = {
            "plain float32": plain(settings, data.spec, batches),
            "ours float32": ours(settings, data.spec, batches, torch.float32),
        }
        first = {name: run(1) for name, run in contenders.items()}
        for loss, value in first["plain float32"].items():
            torch.testing.assert_close(value.detach(), first["ours float32"][loss], rtol=1e-3, atol=1e-4)
        if machine.has_bf16(torch.device("cpu")):
            contenders["ours bf16"] = ours(settings, data.spec, batches, torch.bfloat16)
        rates = measure(contenders, args.rounds, args.steps)
        print(f"{preset}: {settings.size} pixels, batch {settings.batch}, nets '{settings.nets}'")
        for name, found in rates.items():
            line = f"  {name:14}  {1000 / statistics.median(found):8.1f} ms/step"
            if name != "plain float32":
                line += "  {:.2f} times the plain step's speed ({:.2f}, {:.2f})".format(
                    *ratio(rates, name, "plain float32")
                )
            print(line, flush=True)


if __name__ == "__main__":
    main()
