"""Adam with one second moment per row, for codes of which each row is a problem of its own.

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) mean_j g_j^2        z <- z - lr m^ / (sqrt(v^) + eps)

(Kingma & Ba 2015, arXiv 1412.6980, algorithm 1, but for the mean over a row's coordinates; m^ and v^ are corrected for
their start at 0.) Ordinary Adam divides each coordinate by its own moment, which makes all coordinates of a step nearly
equally long: not the gradient's direction but that of its signs. Where a code is to move along one hidden direction u,
in a space in which most directions change nothing, nobody corrects the difference, it is the same on every trajectory,
and the mean over trajectories keeps it. A code has no preferred coordinates, and neither has a row's one moment.
"""

from __future__ import annotations

import torch


class RowAdam(torch.optim.Optimizer):
    """Adam for parameters (R, D) with a second moment (R, 1).

    numbers  how many of a row's D coordinates ever have a gradient, which the mean is over; all without it

    Its state is tensors on the parameters' device and nothing else, so that a step can be captured in a CUDA graph, and
    all rows begin afresh where every tensor of it is filled with 0.
    """

    def __init__(
        self, parameters, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        numbers: int | None = None,
    ):  # fmt: skip
        # capturable: load_state_dict then brings the step's tensor to the device, too
        defaults = {"lr": lr, "betas": betas, "eps": eps, "numbers": numbers, "capturable": True}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for z in group["params"]:
                state = self.state[z]
                if not state:
                    state["step"] = torch.zeros((), device=z.device)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(z), torch.zeros_like(z[:, :1])
                state["step"] += 1
                m = state["exp_avg"].lerp_(z.grad, 1 - b1)
                mean = z.grad.square().sum(1, keepdim=True) / (group["numbers"] or z.shape[1])
                v = state["exp_avg_sq"].lerp_(mean, 1 - b2)
                m, v = (moment / (1 - b ** state["step"]) for moment, b in ((m, b1), (v, b2)))
                z.sub_(group["lr"] * m / (v.sqrt() + group["eps"]))
