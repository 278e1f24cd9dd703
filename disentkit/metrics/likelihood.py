"""The importance-weighted bound on log p(x) (Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519), by which models of
one data set can be compared whatever objective trained them (Kim & Mnih, appendix E):

    L_K = E ln 1/K sum_k w_k ,    w_k = p(x|z_k) p(z_k) / q(z_k|x) ,    z_1 ... z_K ~ q(z|x) ,

    ELBO = L_1 <= L_K <= ln p(x) .

Bernoulli p(x|z) over the pixels, p(z) = N(0, I). All in nats, sum over pixels and latents, mean over pictures.
"""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from disentkit.metrics.arrays import whole
from disentkit.metrics.tc import pictures
from disentkit.models import device_of, frozen, posterior

DECODED = 500  # pictures decoded at a time: 8 MB at 64x64 grey
CLAMP = 1e-6  # a decoder that returns probabilities is never surer than this: a wrong pixel costs 13.8 nats at most


def log_likelihood(model, data, *, K: int = 1_000, points: int = 100, seed: int = 0) -> dict:
    """ELBO and L_K of a model over pictures drawn from data.

    model   one with a posterior, whose `decode` gives the Bernoulli means; where it offers `logits(codes)`, these are
            taken, else the means, held 1e-6 away from 0 and 1
    data    any data set; fresh pictures are drawn. L_K says ln p(x) of black and white pictures; of grey ones it is the
            training loss's formula, no normalised likelihood, and `note` says so
    K       importance samples per picture. points * K pictures are decoded
    points  pictures

    Returns a dict ready for JSON: `log_likelihood` (L_K), `stderr` (over the pictures), `elbo` (L_1 over the same
    samples, so never above L_K), `by_K` {k: L_k for k = 1, 10, 100 ... as far as they divide K, and K}, which never
    falls, `ess` (mean effective number of the K samples: near 1 the bound is loose), `note`, `settings`.
    Raises ValueError for a model without posterior, and for a K or points that cannot be.
    """
    K, points = whole("K", K), whole("points", points, least=2)
    if not callable(getattr(model, "posterior", None)):
        hint = " itself: give run.model" if hasattr(model, "model") else " to draw importance samples from"
        raise ValueError(f"{type(model).__name__} has no posterior{hint}")
    x = torch.cat(list(pictures(data, points, whole("seed", seed, least=0))))
    log_w = log_weights(model, x, K, seed)  # (points, K)
    sizes = sorted({10**i for i in range(len(str(K))) if K % 10**i == 0} | {K})
    by_K = {str(k): bound(log_w, k) for k in sizes}  # (points,) each
    share = log_w.softmax(1)
    grey = bool(((x > 0) & (x < 1)).any())
    return {
        "log_likelihood": float(by_K[str(K)].mean()), "stderr": float(by_K[str(K)].std() / points**0.5),
        "elbo": float(by_K["1"].mean()), "by_K": {k: float(values.mean()) for k, values in by_K.items()},
        "ess": float((1 / share.square().sum(1)).mean()),
        "note": "the pictures are grey: compare with the same pictures only" if grey else None,
        "settings": {"estimator": "importance-weighted bound", "K": K, "points": points, "seed": seed,
                     "decoder": "logits" if hasattr(model, "logits") else f"means, clamped by {CLAMP:g}",
                     "protocol": "model"},
    }


def log_weights(model, x: Tensor, K: int, seed: int = 0) -> Tensor:
    """ln w (n, K), float64 on the CPU, of K samples from the posterior of each of n images (n, C, H, W)."""
    device = device_of(model)
    mu, logvar = (v.to(device)[:, None] for v in posterior(model, x))  # (n, 1, d)
    rng = torch.Generator(device).manual_seed(seed)
    noise = torch.randn(len(x), K, mu.shape[2], generator=rng, device=device)
    z = mu + (0.5 * logvar).exp() * noise  # (n, K, d)
    log_pz = -0.5 * (z.double().square() + math.log(2 * math.pi)).sum(2)
    log_qzx = -0.5 * (noise.double().square() + logvar + math.log(2 * math.pi)).sum(2)
    x, codes = x.to(device), z.flatten(0, 1)  # row i of codes belongs to image i // K
    log_pxz = []
    with frozen(model):
        for rows in torch.arange(len(codes), device=device).split(DECODED):
            log_pxz.append(_log_bernoulli(model, codes[rows], x[rows // K]))
    return (torch.cat(log_pxz).reshape(len(x), K) + log_pz - log_qzx).cpu()


def bound(log_w: Tensor, k: int) -> Tensor:
    """L_k (n,) of log weights (n, K), averaged over the K / k groups of k samples; raises ValueError unless k | K."""
    n, K = log_w.shape
    if K % k:
        raise ValueError(f"{K} samples do not fall into groups of {k}")
    return (log_w.reshape(n, K // k, k).logsumexp(2) - math.log(k)).mean(1)


def _log_bernoulli(model, codes: Tensor, x: Tensor) -> Tensor:
    """ln p(x|z) (n,), float64, of codes (n, d) and images (n, C, H, W)."""
    if hasattr(model, "logits"):
        each = F.binary_cross_entropy_with_logits(model.logits(codes), x, reduction="none")
    else:
        each = F.binary_cross_entropy(model.decode(codes).clamp(CLAMP, 1 - CLAMP), x, reduction="none")
    return -each.flatten(1).sum(1, dtype=torch.float64)
