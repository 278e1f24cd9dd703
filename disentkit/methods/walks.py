"""Directions found without inverting the generator: what the directions of Plumerault et al. 2020 are compared with.

    random_direction        any direction; the floor that every other must stand above
    linear_walk             Jahanian, Chai, Isola 2020, "On the 'steerability' of generative adversarial networks",
                            arXiv 1907.07171: w* = argmin_w E_{z,t} L(G(z + t w), T_t(G(z)))
    closed_form_direction   Spingarn, Banner, Michaeli 2021, "GAN 'steerability' without optimization",
                            arXiv 2012.05328: q = (W' D^2 W)^-1 W' D (P - D) b, from the first layer alone
    sefa                    Shen & Zhou 2021, "Closed-form factorization of latent semantics in GANs",
                            arXiv 2007.06600: eigenvectors of A'A, A the weights that read the code
    ganspace                Harkonen et al. 2020, "GANSpace: discovering interpretable GAN controls",
                            arXiv 2004.02546: PCA of first-layer features, then min_U sum |U x_j - z_j|^2

The first three follow a factor that is asked for by name. The last two give a list in which nobody knows what a row
does; `best` picks the one that follows a factor, and for that it needs an instrument.

All return rows of unit length over the flat code (D,), zero where nothing moves: one-hot and map blocks. Where the
length means something, `walk_step` and `closed_form_step` return the step of the code per unit of t, and `calibrated`
makes a Direction of it, whose g is a straight line.

What a method needs from the model: `linear_walk` a decode with gradients; the closed form and GANSpace a first map,
`model.first_layer() -> (W (out, d), b (out,), (C, H, W))` or a decoder that is a Sequential with an Unflatten; SeFa
`model.level_weights() -> {block: (out, d)}` or a decoder that begins with a Linear. A renderer has neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import finite, whole
from disentkit.methods import reconstruction
from disentkit.methods.steered import Direction, Steered, checked, draw, make_direction, steerable
from disentkit.methods.transforms import Transform, snap, transform
from disentkit.models import decode, device_of, frozen

DRAWS = 4_096  # codes for a regression or a PCA
SPARE = 8  # singular vectors beyond k that the search for the first k carries along
ENLARGE = 2  # how many times `closed_form` enlarges the first map for "zoom"


def moving(model) -> list[int]:
    """Positions of the flat code that a direction may move: those of no one-hot and no map block, ascending."""
    at = steerable(model.codes).nonzero().flatten().tolist()
    if not at:
        raise ValueError(f"{type(model).__name__} has no block that a direction could run through: {model.codes!r}")
    return at


def unit(w: Tensor) -> Tensor:
    """`w` (..., D) at length 1, on the CPU; ValueError for a row that is zero, NaN or infinite."""
    w = w.detach().double().cpu()
    length = w.norm(dim=-1, keepdim=True)
    if not bool(((length > 0) & length.isfinite()).all()):
        raise ValueError("a direction came out as zero, NaN or infinite: it has no unit length")
    return (w / length).float()


def placed(part: Tensor, at: list[int], size: int) -> Tensor:
    """(..., size): `part` (..., d) at the positions `at` of the flat code, zeros elsewhere."""
    whole = part.new_zeros(*part.shape[:-1], size)
    whole[..., at] = part
    return whole


def calibrated(name: str, w: Tensor, unit: str = "") -> Direction:
    """The Direction of a step `w` (D,) per unit of t: u = w / |w| and g(s) = s / |w|."""
    length = float(w.norm())
    return make_direction(name, w, s=[-length, length], t=[-1.0, 1.0], unit=unit)


# ---- any direction


def random_direction(model, seed: int = 0) -> Tensor:
    """u (D,), uniform on the sphere of the positions that move."""
    at = moving(model)
    part = torch.randn(len(at), generator=torch.Generator().manual_seed(seed))
    return unit(placed(part, at, model.codes.size))


# ---- Jahanian et al. 2020


def walk_step(
    model,
    towards: str | Transform,
    *,
    steps: int = 300,
    batch: int = 8,
    lr: float = 0.03,
    seed: int = 0,
    reach: float | None = None,
    loss: reconstruction.Error | None = None,
) -> Tensor:
    """w (D,): the step of the code per unit of t that a linear walk learns.

        w* = argmin_w E_{z,t} L(G(z + t w), T_t(G(z)))        z from the prior, t uniform in -reach ... reach

    towards  the transformation T, by name or itself; t is in its unit, so zoom walks in ln of the scale, as theirs does
    reach    the transformation's own without one
    loss     L; the masked squared error without one, `reconstruction` has others

    Adam on w alone, from N(0, 0.1^2). Their code takes lr 1e-3 (zoom 1e-4), batches of 4 and 20,000 samples. Raises
    ValueError where the loss is no longer finite.
    """
    for what, value in {"steps": steps, "batch": batch}.items():
        whole(what, value)
    finite("lr", lr, above=0)
    model, T = bare(model), transform(towards)
    reach, loss = T.reach if reach is None else reach, loss or reconstruction.Filtered(0)
    at, rng, device = moving(model), torch.Generator().manual_seed(seed), device_of(model)
    part = (0.1 * torch.randn(len(at), generator=rng)).to(device).requires_grad_()
    opt = torch.optim.Adam([part], lr)
    with frozen(model), torch.enable_grad():
        for step in range(steps):
            z = draw(model, batch, rng).to(device)  # (n, D)
            t = snap(T, reach * (2 * torch.rand(batch, generator=rng) - 1), tuple(model.image_shape)).to(device)  # (n,)
            with torch.no_grad():
                target, mask = T(model.decode(z), t)
            error = loss(model.decode(z + t[:, None] * placed(part, at, z.shape[1])), target, mask).mean()
            if not error.isfinite():
                smaller = f"take a smaller lr than {lr:g}, or a smaller reach than {reach:g}"
                raise ValueError(f"the walk's loss is {float(error.detach()):g} at step {step}: {smaller}")
            (part.grad,) = torch.autograd.grad(error, [part])  # of w only: the model's weights get no gradient
            opt.step()
    return placed(part.detach(), at, model.codes.size).cpu()


def linear_walk(model, towards: str | Transform, **settings) -> Tensor:
    """u (D,), the unit vector of `walk_step`, which names the settings."""
    return unit(walk_step(model, towards, **settings))


# ---- Spingarn et al. 2021


def shifted(maps: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """P maps (C, H, W) and the cells (H, W) where it is defined: P moves the maps by one cell, or enlarges them.

    "x" moves to the right, "y" downwards; "zoom" enlarges by ENLARGE about the middle, bilinearly, and is defined
    everywhere. Raises ValueError for other names.
    """
    _, height, width = maps.shape
    defined, moved = torch.ones(height, width, dtype=torch.bool), maps.clone()
    if name == "x":
        moved[:, :, 1:], defined[:, 0] = maps[:, :, :-1], False
    elif name == "y":
        moved[:, 1:], defined[0] = maps[:, :-1], False
    elif name == "zoom":
        theta = torch.eye(2, 3, dtype=maps.dtype)[None] / ENLARGE
        grid = F.affine_grid(theta, [1, 1, height, width], align_corners=False)
        moved = F.grid_sample(maps[None], grid, align_corners=False)[0]
    else:
        raise ValueError(f"cells of a map can move by x, y or zoom, not by '{name}'")
    return moved, defined


def closed_form(W: Tensor, b: Tensor, shape: tuple[int, int, int], name: str) -> Tensor:
    """q (d,): the step of z after which the first map W z + b looks moved, Spingarn et al. 2021.

        q = argmin_q E_z |D (W (z + q) + b) - P (W z + b)|^2 = (W' D^2 W)^-1 W' D (P - D) b

    W (C H W, d), b (C H W,), shape (C, H, W) of the map; P moves it, D is 0 at the cells where the moved map is
    undefined, see `shifted`. The codes' mean is 0, so only b says what the map looks like. Where W' D^2 W has no
    inverse, the shortest of all solutions.
    """
    if b is None or not b.any():
        raise ValueError("the closed form reads the first layer's bias, and this layer has none")
    W, b = W.detach().double().cpu(), b.detach().double().cpu()
    moved, defined = shifted(b.view(shape), name)
    D = defined.expand(shape).flatten()
    return torch.linalg.lstsq(W[D], (moved.flatten() - b)[D], driver="gelsd").solution.float()


def closed_form_step(model, name: str) -> Tensor:
    """w (D,): the step of the code per unit of t, from `closed_form`; x, y and zoom.

    One cell of a map of 4x4 is a quarter of the picture's width, and an enlargement ln(ENLARGE) of zoom.
    """
    W, b, shape, at = first_layer(bare(model))
    q = closed_form(W, b, shape, name)
    t = {"x": 1 / shape[2], "y": 1 / shape[1], "zoom": math.log(ENLARGE)}[name]
    return placed(q / t, at, model.codes.size)


def closed_form_direction(model, name: str) -> Tensor:
    """u (D,), the unit vector of `closed_form_step`."""
    return unit(closed_form_step(model, name))


# ---- Shen & Zhou 2021


def eigenvectors(A: Tensor, k: int) -> Tensor:
    """(min(k, d), d): eigenvectors of A'A, the largest eigenvalue first. A (out, d); its rows are brought to length 1.

    argmax_n |A n|^2 under |n| = 1. The unit rows are those of the released code: one vector of d weights per output.
    """
    A = F.normalize(A.detach().double().cpu(), dim=1)
    return torch.linalg.eigh(A.T @ A).eigenvectors.T.flip(0)[:k].float()


def sefa(model, k: int = 8) -> Tensor:
    """(m, D): up to k unit eigenvectors of each chunk of the code, chunk after chunk. No row has a name: see `best`.

    A sign carries no meaning either.
    """
    whole("k", k)
    found = [placed(eigenvectors(A, k), at, model.codes.size) for A, at in level_weights(bare(model)).values()]
    return unit(torch.cat(found))


# ---- Harkonen et al. 2020


def ganspace(
    model, k: int = 8, *, features: Callable[[Tensor], Tensor] | None = None, n: int = DRAWS, seed: int = 0
) -> Tensor:
    """(k, D): unit columns of U, the edits z + U x along the first k principal components x of the features.

        x_j = V' (f(z_j) - mean),  V the first k principal axes of f(z_1) ... f(z_n);   min_U sum_j |U x_j - z_j|^2

    features  codes (N, D) -> anything (N, ...); without it the first map, see `first_map`. PCA of z ~ N(0, I) itself
              would mean nothing: all its axes are alike
    n         codes drawn from the prior

    No row has a name: see `best`. Raises ValueError where the features have fewer than k dimensions.
    """
    whole("k", k)
    model = bare(model)
    at = moving(model)
    if features is None:
        features, at = first_map(model)
    codes = draw(model, n, torch.Generator().manual_seed(seed))
    with frozen(model):
        f = torch.cat([features(part.to(device_of(model))).flatten(1).cpu() for part in codes.split(256)]).double()
    f = f - f.mean(0)
    with torch.random.fork_rng(devices=[]):  # it draws from the global generator
        torch.random.default_generator.manual_seed(seed)
        _, s, axes = torch.svd_lowrank(f, min(k + SPARE, *f.shape), niter=8)  # a whole SVD would take half a minute
    rank = int((s > s[0] * 1e-5).sum())
    if rank < k:
        raise ValueError(f"the features have {rank} dimensions: {k} principal components cannot be taken from them")
    z = codes[:, at].double()
    U = torch.linalg.lstsq(f @ axes[:, :k], z - z.mean(0), driver="gelsd").solution  # (k, d)
    return unit(placed(U, at, model.codes.size))


# ---- which of a list follows a factor


def follows(model, instrument, name: str, codes: Tensor, reach: float = 2.0, points: int = 5) -> Callable:
    """A score for `best`: u (D,) -> Spearman's rank correlation of <z, u> with the measured factor `name`.

    Each of the codes (N, D) is moved along u to `points` values of <z, u> in -reach ... reach, and `instrument` (see
    `metrics/instruments.py`) measures the pictures; rows that it cannot measure are left out. Take codes that nothing
    is evaluated on later: picking by an instrument is fitting.
    """
    if name not in instrument.names:
        raise ValueError(f"this instrument measures {', '.join(instrument.names)}, not '{name}'")
    column, alpha = instrument.names.index(name), torch.linspace(-reach, reach, points)
    codes = model.codes.check(codes).cpu()

    def score(u: Tensor) -> float:
        moved = codes[None] + (alpha[:, None] - codes @ u)[..., None] * u  # (points, N, D)
        flat = moved.flatten(0, 1)
        value = instrument(decode(model, flat), flat)[:, column]
        asked, seen = alpha.repeat_interleave(len(codes)), value.isfinite()
        return spearman(asked[seen], value[seen])

    return score


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of a and b, (n,) each, ties at their mean rank; 0 where one of them is constant."""
    if len(a) < 2:
        return 0.0
    ranks = torch.stack([_ranks(a), _ranks(b)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    spread = ranks.norm(dim=1).prod()
    return float(ranks.prod(0).sum() / spread) if spread > 0 else 0.0


def best(directions: Tensor, score: Callable[[Tensor], float]) -> Tensor:
    """The row of `directions` (k, D) whose score is farthest from 0, turned round where the score is negative.

    SeFa and GANSpace do not know which factor a row moves, nor which way: here an instrument says both. A method that
    is judged by its own instrument on the same codes looks better than it is; see `follows`.
    """
    scores = torch.tensor([float(score(u)) for u in directions])
    if not (scores.isfinite() & (scores != 0)).any():
        raise ValueError(
            "no direction could be scored: every score is 0, NaN or infinite; does the instrument see any?"
        )
    row = int(scores.abs().nan_to_num(-1.0, -1.0, -1.0).argmax())
    return directions[row] * (-1.0 if scores[row] < 0 else 1.0)


def sefa_best(model, score: Callable[[Tensor], float], k: int = 8) -> Tensor:
    """u (D,): the row of `sefa` that follows a factor best by `score`, which needs an instrument: see `follows`."""
    return best(sefa(model, k), score)


def ganspace_best(model, score: Callable[[Tensor], float], k: int = 8, **settings) -> Tensor:
    """u (D,): the row of `ganspace` that follows a factor best by `score`, which needs an instrument: see `follows`."""
    return best(ganspace(model, k, **settings), score)


# ---- the model


def bare(model):
    """The model without its directions."""
    return checked(model.base if isinstance(model, Steered) else model)


def first_map(model) -> tuple[Callable[[Tensor], Tensor], list[int]]:
    """codes (N, D) -> the first feature maps (N, C, H, W), and the positions of the code that they depend on.

    The model's own `first_layer`, or a Sequential `decoder` or `G` up to the last Linear before its first Unflatten.
    Raises ValueError for a model that has neither.
    """
    if callable(getattr(model, "first_layer", None)):
        W, b, shape = model.first_layer()
        at = _input(model, W.shape[1])
        return lambda codes: F.linear(codes[:, at], W, b).view(-1, *shape), at
    net = _decoder(model)
    here = next((i for i, layer in enumerate(net) if isinstance(layer, nn.Unflatten)), None)
    if here is None or len(net[here].unflattened_size) != 3:
        raise ValueError(f"{type(model).__name__} never unflattens its features into a map: {_ask('first_layer')}")
    shape = tuple(net[here].unflattened_size)
    last = max(i for i in range(here) if isinstance(net[i], nn.Linear))
    return lambda codes: net[: last + 1](codes).view(-1, *shape), moving(model)


def first_layer(model) -> tuple[Tensor, Tensor | None, tuple[int, int, int], list[int]]:
    """W (C H W, d), b (C H W,), (C, H, W) and the d positions of the code that W reads.

    Exact where the model has `first_layer` or where one Linear makes the map. Where a nonlinear layer comes before it,
    as in the VAE's decoder, the affine map that is nearest over the prior: W and b by least squares. That is ours.
    """
    if callable(getattr(model, "first_layer", None)):
        W, b, shape = model.first_layer()
        return W, b, tuple(shape), _input(model, W.shape[1])
    maps, at = first_map(model)
    codes = draw(model, DRAWS, torch.Generator().manual_seed(0))
    with frozen(model):
        y = maps(codes.to(device_of(model))).cpu()
    z = torch.cat([codes[:, at], torch.ones(DRAWS, 1)], dim=1).double()
    both = torch.linalg.lstsq(z, y.flatten(1).double(), driver="gelsd").solution.float()  # (d + 1, C H W)
    return both[:-1].T, both[-1], tuple(y.shape[1:]), at


def level_weights(model) -> dict[str, tuple[Tensor, list[int]]]:
    """{chunk: (A (out, d), the d positions of the code that A reads)}."""
    if callable(getattr(model, "level_weights", None)):
        return {name: (A, list(model.codes[name].at)) for name, A in model.level_weights().items()}
    at = moving(model)
    return {"code": (_decoder(model)[0].weight[:, at], at)}


def _decoder(model) -> nn.Sequential:
    for name in ("decoder", "G"):
        net = getattr(model, name, None)
        if isinstance(net, nn.Sequential) and len(net) and isinstance(net[0], nn.Linear):
            if net[0].in_features == model.codes.size:
                return net
    raise ValueError(
        f"{type(model).__name__} has no linear first layer to read: {_ask('first_layer or level_weights')}"
    )


def _ask(what: str) -> str:
    return f"give the model a method {what}, or take random_direction or linear_walk"


def _input(model, d: int) -> list[int]:
    """The d positions of the code that a first layer reads: all that move, or the first block of d numbers."""
    at = moving(model)
    if len(at) == d:
        return at
    for block in model.codes:
        if block.size == d and set(block.at) <= set(at):
            return list(block.at)
    raise ValueError(f"the first layer reads {d} numbers, but no block of {model.codes!r} has as many")


def _ranks(x: Tensor) -> Tensor:
    """Ranks (n,) from 0, ties at their mean."""
    _, place, count = x.double().unique(return_inverse=True, return_counts=True)
    upto = count.cumsum(0).double()
    return (upto - (count + 1) / 2)[place]
