"""Total correlation: how far the codes of all pictures are from having independent latents.

    KL(q(z|x) || p(z))  =  I(x; z)  +  KL(q(z) || prod_j q(z_j))  +  sum_j KL(q(z_j) || p(z_j))        on average over x
                              mi                  tc                            dwkl

with the aggregate posterior q(z) = 1/N sum_n q(z|x_n). Four ways to measure the middle term stand here:

    kl_split, total_correlation   all three terms by Monte Carlo over the mixture of N posteriors (Figure 7's truth)
    discriminator_tc              FactorVAE's density ratio, which falls short of the truth (Figure 7)
    gaussian_tc                   as if the codes were Gaussian: sees correlation only
    tc_by_batch                   what estimators from one batch make of a Gaussian of known TC

All in nats. Not here: the minibatch estimators themselves, which belong to the methods that train with them.
"""
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from disentkit.codes import gaussian_kl
from disentkit.data.base import ArrayData, Renderer
from disentkit.data.laws import Grid
from disentkit.metrics.arrays import CHUNK, POINTS, table, whole
from disentkit.models import device_of, frozen, posterior

CELLS = 2**19  # Gaussian terms of one latent at a time: they stay in the cache
FLOOR = 1e-12  # below it an eigenvalue of a correlation matrix is rounding


def log_densities(z: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """log q(z) (S,) and log q(z_j) (S, d) of codes z (S, d) under the mixture of N posteriors mu, logvar (N, d) each.

    Full mixture, by log-sum-exp, in pieces, in the tensors' own precision and on their device: S N d Gaussian terms.
    """
    N, d = mu.shape
    mu, scale = mu.T.contiguous(), (-0.5 * logvar.T).exp().contiguous()  # (d, N): one latent lies together
    const = -0.5 * (logvar.T + math.log(2 * math.pi))  # (d, N)
    log_q, log_qj = [], []
    for part in z.split(max(1, CELLS // N)):  # (s, d)
        joint, each = torch.zeros(len(part), N, dtype=z.dtype, device=z.device), []
        for j in range(d):
            term = ((part[:, j, None] - mu[j]) * scale[j]).square_().mul_(-0.5).add_(const[j])  # (s, N)
            joint += term
            each.append(term.logsumexp(1))
        log_q.append(joint.logsumexp(1))
        log_qj.append(torch.stack(each, dim=1))
    return torch.cat(log_q) - math.log(N), torch.cat(log_qj) - math.log(N)


def kl_split(mu, logvar, *, samples: int = 1_000, seed: int = 0) -> dict:
    """KL = mi + tc + dwkl of N given posteriors, by Monte Carlo over their full mixture.

    mu, logvar  (N, d) each, numpy or torch, two rows or more; tensors are computed with on their own device. float32,
                float64 where either is
    samples     codes z ~ q(z): the posteriors take turns in a random order, each giving one code before any gives two

    Returns a dict ready for JSON: `mi`, `tc`, `dwkl`; `kl` (exact, from the formula: the three sum to it but for the
    error of sampling); `stderr` {term: standard error of its mean over the samples, `kl` that of the sum}; `ceiling`
    (ln N, the most that mi can be); `note` (None, or what to know); `settings`.

    The N posteriors are all that q(z) knows. Where mi comes near ln N they hardly overlap, and the terms are those of
    these N pictures, not of the data they were drawn from: tc then falls as N grows. A note says so.
    Raises ValueError for bad shapes, fewer than two rows, NaN.
    """
    mu, logvar = _posteriors(mu, logvar)
    samples, seed = whole("samples", samples, least=2), whole("seed", seed, least=0)
    rng = torch.Generator(mu.device).manual_seed(seed)
    N = len(mu)
    order = torch.cat([torch.randperm(N, generator=rng, device=mu.device) for _ in range(-(-samples // N))])[:samples]
    noise = torch.randn(samples, mu.shape[1], generator=rng, device=mu.device, dtype=mu.dtype)
    z = mu[order] + (0.5 * logvar[order]).exp() * noise  # (S, d)

    constant = math.log(2 * math.pi)
    log_qzx = -0.5 * (noise.square() + logvar[order] + constant).sum(1)  # (S,)
    log_pz = -0.5 * (z.square() + constant).sum(1)
    log_qz, log_qzj = log_densities(z, mu, logvar)
    log_product = log_qzj.sum(1)
    terms = {"mi": log_qzx - log_qz, "tc": log_qz - log_product, "dwkl": log_product - log_pz, "kl": log_qzx - log_pz}
    found = {name: float(term.double().mean()) for name, term in terms.items()}
    ceiling = math.log(N)
    return {
        **found, "kl": float(gaussian_kl(mu, logvar).double().sum(1).mean()),
        "stderr": {name: float(term.double().std() / samples**0.5) for name, term in terms.items()},
        "ceiling": ceiling,
        "note": f"mi is near ln N = {ceiling:.2f}, its ceiling: take more points" if found["mi"] > ceiling - 0.5
        else None,
        "settings": {"estimator": "Monte Carlo, full mixture", "points": N, "samples": samples, "seed": seed,
                     "protocol": "arrays"},
    }


def total_correlation(model, data, *, points: int | None = POINTS, samples: int = 1_000, seed: int = 0) -> dict:
    """TC of a model's aggregate posterior over data, with mi and dwkl (Kim & Mnih, Figure 7: "true" TC).

    model    one with a posterior; the mixture is computed on its device
    data     any data set
    points   how many pictures are drawn for the mixture; None takes every picture of stored data or of a renderer's
             grid once, which is the paper's q(z). 10,000 pictures know at most ln 10,000 = 9.2 nats of mi; see
             `kl_split` for what that does to tc
    samples  codes z ~ q(z); cost is samples * points * d Gaussian terms

    Returns what `kl_split` does. Raises ValueError for a model without posterior, and for points=None on data that
    cannot be listed.
    """
    mu, logvar = posteriors(model, data, points, seed)
    device = device_of(model)
    split = kl_split(mu.to(device), logvar.to(device), samples=samples, seed=seed)
    every = {"every picture": points is None, "protocol": "model"}
    return {**split, "settings": {**split["settings"], **every}}


def posteriors(model, data, points: int | None = POINTS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """mu and logvar (N, d) on the CPU of `points` pictures drawn from data, or of all of them (None)."""
    if not callable(getattr(model, "posterior", None)):
        hint = " itself: give run.model" if hasattr(model, "model") else ", so there is no q(z) to sample"
        raise ValueError(f"{type(model).__name__} has no posterior{hint}")
    found = [posterior(model, x) for x in pictures(data, points, seed)]
    mu, logvar = (torch.cat(parts) for parts in zip(*found))
    return mu, logvar


def aggregate_codes(model, data, n: int = 1_000, seed: int = 0) -> Tensor:
    """Fresh codes z ~ q(z), (n, d) on the CPU: n pictures drawn from data, one code from the posterior of each."""
    mu, logvar = posteriors(model, data, whole("n", n, least=2), seed)
    return mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=torch.Generator().manual_seed(seed))


def discriminator_tc(D, z) -> dict:
    """The discriminator's estimate of TC: the mean of l_0 - l_1 over codes z ~ q(z), (S, d).

    D has two logits, class 0 = "from q(z)", as `nets.factorvae.discriminator`; z numpy or torch, for example
    `aggregate_codes(model, data)`. It may be negative. Also right for an AAE's D, whose ratio is KL(q(z) || p(z)).

    Returns `tc`, `stderr` (over the codes), `settings`. Raises ValueError for bad codes and for other than two logits.
    """
    z = torch.from_numpy(table(z, "codes")).float()
    with frozen(D):
        logits = D(z.to(device_of(D))).double().cpu()
    if logits.shape != (len(z), 2):
        raise ValueError(f"the discriminator must return two logits for each code, not {tuple(logits.shape)}")
    ratio = logits[:, 0] - logits[:, 1]
    return {"tc": float(ratio.mean()), "stderr": float(ratio.std() / len(z) ** 0.5),
            "settings": {"estimator": "density ratio of a discriminator", "samples": len(z), "protocol": "arrays"}}


def gaussian_tc(codes=None, *, cov=None) -> dict:
    """TC of a Gaussian with the covariance of codes (N, d), or with `cov` (d, d): -1/2 ln det of the correlations.

    The same number as 1/2 (sum_j ln S_jj - ln det S) for a covariance S. Columns without variance depend on nothing and
    are left out. Where columns determine each other TC is infinite; eigenvalues of the correlations are held above
    1e-12, so it stops at about 13.5 nats for a duplicate. It is a lower bound where the marginals are Gaussian, and
    blind to dependence without correlation.

    Returns `tc`, `dims` (columns that count), `settings`. Raises ValueError for bad shapes, NaN, a matrix that is no
    covariance.
    """
    if (codes is None) == (cov is None):
        raise ValueError("give either codes (N, d) or cov=(d, d)")
    if cov is None:
        values = table(codes, "codes")
        cov, source = np.atleast_2d(np.cov(values, rowvar=False)), f"{len(values)} codes"
    else:
        cov, source = np.atleast_2d(np.asarray(cov, dtype=np.float64)), "covariance"
        if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or not np.isfinite(cov).all():
            raise ValueError(f"cov must be a square table of finite numbers, got shape {cov.shape}")
        if not np.allclose(cov, cov.T) or np.linalg.eigvalsh(cov).min() < -1e-8 * max(np.trace(cov), FLOOR):
            raise ValueError("cov is no covariance: it must be symmetric, without negative eigenvalues")
    std = np.sqrt(np.diag(cov))
    moving = std > FLOOR**0.5 * max(std.max(), FLOOR)
    correlation = cov[np.ix_(moving, moving)] / np.outer(std[moving], std[moving])
    tc = -0.5 * np.log(np.maximum(np.linalg.eigvalsh(correlation), FLOOR)).sum()
    return {"tc": float(max(tc, 0.0)), "dims": int(moving.sum()),
            "settings": {"estimator": "Gaussian, closed form", "source": source}}


def tc_by_batch(estimators: dict[str, Callable], *, batches=(16, 64, 256, 1024), d: int = 5, rho: float = 0.8,
                sigma: float = 0.25, N: int = 20_000, repeats: int = 20, samples: int = 500, seed: int = 0) -> dict:
    """What estimators of TC from one batch say about a Gaussian whose TC is known.

    The N "images" have posteriors N(mu, sigma^2 I) around means drawn from a Gaussian of unit variances in which the
    first two of d latents are correlated by rho. So q(z) is nearly Gaussian, and narrow posteriors make it hard.

    estimators  name -> function(z, mu, logvar, N) -> TC, all (m, d): `methods.betatcvae.minibatch_tc` and the like
    batches     the batch sizes m, each 2 or more and at most N
    repeats     batches drawn of each size, the same ones for every estimator
    samples     codes for `mixture`

    Returns `rows`, one dict per size and estimator (`batch`, `estimator`, `tc` (mean), `std` (over the batches), ready
    for a frame), `mixture` (the Monte-Carlo TC of the N posteriors: what the estimators aim at), `gaussian` (its limit
    for large N, -1/2 ln(1 - r^2) with r = rho / (1 + sigma^2)), `settings`. Raises ValueError for impossible settings.
    """
    d, N, repeats = whole("d", d, least=2), whole("N", N, least=2), whole("repeats", repeats, least=2)
    seed, batches = whole("seed", seed, least=0), [whole("a batch size", m, least=2) for m in batches]
    if not (-1 < rho < 1 and 0 < sigma < math.inf and max(batches) <= N):
        raise ValueError(f"this needs -1 < rho < 1, sigma above 0 and batches of at most N = {N}; got rho={rho}, "
                         f"sigma={sigma}, batches={batches}")
    rng = torch.Generator().manual_seed(seed)
    mu = torch.randn(N, d, generator=rng)
    mu[:, 1] = rho * mu[:, 0] + math.sqrt(1 - rho**2) * mu[:, 1]
    logvar = torch.full_like(mu, 2 * math.log(sigma))
    rows = []
    with torch.no_grad():
        for m in batches:
            values = {name: [] for name in estimators}
            for _ in range(repeats):
                part = mu[torch.randperm(N, generator=rng)[:m]]  # (m, d)
                z = part + sigma * torch.randn(part.shape, generator=rng)
                for name, estimate in estimators.items():
                    values[name].append(float(estimate(z, part, logvar[:m], N)))
            rows += [{"batch": m, "estimator": name, "tc": float(np.mean(v)), "std": float(np.std(v, ddof=1))}
                     for name, v in values.items()]
    limit = torch.eye(d) * (1 + sigma**2)
    limit[0, 1] = limit[1, 0] = rho
    return {
        "rows": rows, "mixture": kl_split(mu, logvar, samples=samples, seed=seed)["tc"],
        "gaussian": gaussian_tc(cov=limit)["tc"],
        "settings": {"batches": batches, "d": d, "rho": rho, "sigma": sigma, "N": N, "repeats": repeats,
                     "samples": samples, "seed": seed},
    }


def _posteriors(mu, logvar) -> tuple[Tensor, Tensor]:
    """Both as tensors (N, d) of one precision on mu's device, checked."""
    device = mu.device if isinstance(mu, Tensor) else "cpu"
    double = any(v.dtype in (torch.float64, np.float64) for v in (mu, logvar) if hasattr(v, "dtype"))
    mu, logvar = (torch.from_numpy(table(v, name)) for v, name in ((mu, "mu"), (logvar, "logvar")))
    if mu.shape != logvar.shape:
        raise ValueError(f"mu is {tuple(mu.shape)} and logvar {tuple(logvar.shape)}: both belong to the same pictures")
    dtype = torch.float64 if double else torch.float32
    return mu.to(device, dtype), logvar.to(device, dtype)


def pictures(data, points: int | None, seed: int):
    """Yields images (n, C, H, W) a chunk at a time: `points` drawn ones, or with None each one once."""
    if not hasattr(data, "sample"):
        raise ValueError(f"a model is measured on a data set, got {type(data).__name__}: call it with (model, data)")
    if points is not None:
        points, rng = whole("points", points, least=2), torch.Generator(data.device).manual_seed(seed)
        for start in range(0, points, CHUNK):
            yield data.sample(min(CHUNK, points - start), rng)["x"]
    elif isinstance(data, ArrayData):
        for rows in torch.arange(len(data), device=data.images.device).split(CHUNK):
            yield data.rows(rows)["x"]
    elif isinstance(data, Renderer) and isinstance(data.law, Grid):
        for flat in torch.arange(data.space.grid_size, device=data.device).split(CHUNK):
            yield data.render(data.space.from_grid(data.space.tuple_of(flat)))
    else:
        raise ValueError(f"the pictures of {data.name!r} cannot be listed under its law: give points=, how many")
