"""One MixNMatch step, as `fit` does it, against the same step written plainly: ratios of steps/s within one run.

    python tests/benchmarks/mixnmatch_step.py [--threads 1] [--rounds 5] [--steps 1] [--sizes 32 64]

The plain step is the algorithm as one would type it in from the paper, in eager float32 PyTorch with default layout and
default Adam. Sides are doubled before a convolution, codes are tiled to maps beside the features, pairs of pictures and
of codes go through the critics one after the other, every critic's gradient is penalised by a call of its own, and
nobody's weights are left out of a backward pass. It has the same weights, losses and updates, and a test of its own at
the start: from the same weights and draws, without noise in the critics, both steps must find the same losses. To
reach: 1.5 times at 64 pixels on a CPU with bf16 instructions. Pictures are drawn beforehand, the contenders
take turns, and a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch
import torch.nn.functional as F
from step import measure, ratio
from torch import Tensor, nn

from disentkit import machine, training
from disentkit.data.emblems import load
from disentkit.data.views import Views
from disentkit.methods import settings_for
from disentkit.methods.finegan import free, tied
from disentkit.methods.mixnmatch import WEIGHTS, MixNMatch
from disentkit.nets import finegan
from disentkit.nets import mixnmatch as nets

KEYS = ("x", "full", "box")


def fresh(settings, spec) -> MixNMatch:
    with machine.seeded(0):
        learner = MixNMatch(settings, spec)
    learner.rng = torch.Generator().manual_seed(1)
    return learner.train()


def ours(settings, spec, batches, dtype):
    """A function that does so many steps just as `fit` does them: layout, precision, the learner's own step."""
    learner, cpu = fresh(settings, spec).to(memory_format=torch.channels_last), torch.device("cpu")
    opt = learner.optimizers()
    batches = [{key: training._channels_last(batch[key]) for key in KEYS} for batch in batches]

    def run(steps: int) -> dict:
        with training._inside_networks(learner, cpu, dtype):
            for i in range(steps):
                losses = learner.step(opt, batches[i % len(batches)])
        return losses

    return run


class Tiled(nn.Conv2d):
    """A convolution of a map and of codes tiled over it."""

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        tiled = codes[:, :, None, None].repeat(1, 1, *x.shape[2:])
        return super().forward(torch.cat([x, tiled], dim=1))


def plainly(net: nn.Module) -> nn.Module:
    """The network with the same weights, each layer as the paper has it."""
    for name, layer in net.named_children():
        if isinstance(layer, finegan.GLU):
            setattr(net, name, nn.GLU(1))
        elif isinstance(layer, nn.Conv2d) and type(layer) is not nn.Conv2d:  # of ours, one that spares itself work
            doubles = getattr(layer, "resize", "") == "up"
            conv = (nn.Conv2d if doubles else Tiled)(layer.in_channels, layer.out_channels, 3, padding=1, bias=False)
            conv.weight = layer.weight
            setattr(net, name, nn.Sequential(nn.Upsample(scale_factor=2), conv) if doubles else conv)
        else:
            plainly(layer)
    return net


def right(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def wrong(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def plain(s, spec, batches):
    """The same step written plainly, float32."""
    player = plainly(fresh(s, spec))
    G, average, E, D_b, D_p, D_c = player.G, player.sampler.G, player.sampler.E, player.D_b, player.D_p, player.D_c
    D, rng, codes = player.critics, player.rng, ("z", "b", "p", "c")

    def adam(lr, *networks):
        return torch.optim.Adam([p for net in networks for p in net.parameters()], lr=lr, betas=(0.5, 0.999))

    opt_G, opt_E = adam(s.lr, G, D_p, D_c.head), adam(s.lr_E, E)
    opt_b, opt_c, opt_D = adam(s.lr_D, D_b), adam(s.lr_D, D_c.trunk, D_c.real), adam(s.lr_pair, D)

    def update(loss, *optimizers):
        for opt in optimizers:
            opt.zero_grad()
        loss.backward()
        for opt in optimizers:
            opt.step()

    def encode(x):
        return {"z": E.z(x), "b": E.b(x).softmax(1), "p": E.p(x).softmax(1), "c": E.c(x).softmax(1)}

    def between(a, b):
        alpha = torch.rand(len(a), *[1] * (a.ndim - 1), generator=rng)
        return (alpha * a + (1 - alpha) * b).detach().requires_grad_()

    def penalty(k, x, y):
        slopes = torch.autograd.grad(D[k](x, y, rng).sum(), [x, y], create_graph=True)
        return sum(((slope.flatten(1).norm(dim=1) - 1) ** 2).mean() for slope in slopes)

    def step(batch, t) -> dict[str, Tensor]:
        x, full, box = 2 * batch["x"] - 1, 2 * batch["full"] - 1, batch["box"]
        y = tied(len(x), s, rng)
        made, found = G(*y), encode(x)
        w = D_b.patches.valid(box)
        (r, a), (r_fake, _) = D_b(full), D_b(made.B.detach())
        real = (w * F.binary_cross_entropy_with_logits(r, torch.ones_like(r), reduction="none")).sum() / w.sum()
        loss_D_b = s.lam_b * (real + wrong(r_fake)) + F.binary_cross_entropy_with_logits(a, w)
        update(loss_D_b, opt_b)
        loss_D_c = right(D_c(x)) + wrong(D_c(made.C.detach()))
        update(loss_D_c, opt_c)
        C, drawn = made.C.detach(), {k: getattr(y, k) for k in codes}
        loss_critics = sum(D[k](C, drawn[k], rng).mean() - D[k](x, found[k].detach(), rng).mean() for k in codes)
        x_tilde = between(x, C)
        y_tilde = {k: between(found[k], drawn[k]) for k in codes}
        loss_critics = loss_critics + s.lam_gp * sum(penalty(k, x_tilde, y_tilde[k]) for k in codes)
        update(loss_critics, opt_D)
        r, a = D_b(made.B)
        losses = {
            "L_bg_adv": s.lam_b * right(r),
            "L_bg_aux": right(a),
            "L_p": F.cross_entropy(D_p(made.P_m * made.P_f), y.p),
            "L_c_adv": right(D_c(made.C)),
            "L_c_info": F.cross_entropy(D_c(made.C_m * made.C_f, code=True), y.c),
        }
        losses["L_pair"] = sum(
            D[k](x, found[k], rng).mean() - D[k](made.C, drawn[k], rng).mean() for k in codes
        )  # fmt: skip
        y = free(len(x), s, rng)
        with torch.no_grad():
            x = G(*y).C
        losses["L_pred_z"] = WEIGHTS["z"] * F.l1_loss(E.z(x), y.z)
        for k in "bpc":
            losses[f"L_pred_{k}"] = WEIGHTS[k] * F.cross_entropy(E[k](x), getattr(y, k))
        update(sum(losses.values()), opt_G, opt_E)
        decay = min(s.ema, (1 + t) / (10 + t))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), G.parameters()):
                slow.copy_(decay * slow + (1 - decay) * fast)
        return {"loss_D_b": loss_D_b, "loss_D_c": loss_D_c, "loss_critics": loss_critics} | losses

    def run(steps: int) -> dict:
        for i in range(steps):
            losses = step(batches[i % len(batches)], i)
        return losses

    return run


def same_losses(settings, spec, batches) -> None:
    """One step of each from the same weights and draws. The critics' noise, which they draw in another order, is 0."""
    noise, nets.NOISE = nets.NOISE, (0.0, 0.0, 0.0)
    found, wanted = ours(settings, spec, batches, torch.float32)(1), plain(settings, spec, batches)(1)
    nets.NOISE = noise
    for name, loss in wanted.items():
        torch.testing.assert_close(found[name], loss.detach(), rtol=2e-3, atol=1e-4, msg=lambda m: f"{name}: {m}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps of each contender in a round")
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64], help="pictures' sides, all else as in quick")
    parser.add_argument("--batch", type=int, help="instead of the preset's")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    for size in args.sizes:
        settings = settings_for("mixnmatch", "emblems", "quick")
        settings = replace(settings, size=size, batch=args.batch or settings.batch)
        data, rng = Views(load(settings.size)), torch.Generator().manual_seed(0)
        batches = [data.sample(settings.batch, rng) for _ in range(3)]
        same_losses(settings, data.spec, batches)
        contenders = {
            "plain float32": plain(settings, data.spec, batches),
            "ours float32": ours(settings, data.spec, batches, torch.float32),
        }
        if machine.has_bf16(torch.device("cpu")):
            contenders["ours bf16"] = ours(settings, data.spec, batches, torch.bfloat16)
        rates = measure(contenders, args.rounds, args.steps)
        print(f"{settings.size} pixels, batch {settings.batch}, nets '{settings.nets}'")
        for name, found in rates.items():
            line = f"  {name:14}  {1000 / statistics.median(found):8.1f} ms/step"
            if name != "plain float32":
                line += "  {:.2f} times the plain step's speed ({:.2f}, {:.2f})".format(
                    *ratio(rates, name, "plain float32")
                )
            print(line, flush=True)


if __name__ == "__main__":
    main()
