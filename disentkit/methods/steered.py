"""Directions as blocks, and a model that has them: what steers a generator once its directions are found.

A `Direction` is a view of a code: it reads t = g(<z, u>), a factor in its own unit, and writes by the paper's edit
rule,

    z' = z - <z, u> u + alpha u,    alpha = g^-1(t)

(Plumerault, Le Borgne, Hudelot 2020, arXiv 2001.10238, section 2.2), which leaves all that is orthogonal to u alone.
`Steered` puts directions behind the blocks of any model with `decode`, so that panels and metrics meet them as blocks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError
from disentkit.models import device_of

LIKELY = 2.0  # under the prior <z, u> is N(0, 1); beyond two standard deviations a generator has seen little
KEEPS = 0.05  # of its length a direction must keep when others are held


@dataclass(frozen=True)
class Direction(Block):
    """A view of codes (N, D): read t = g(<z, u>), write by moving z along `along` until it reads t.

    u      unit vector (D,), 0 where nothing moves (one-hot blocks)
    s, t   knots of g, both ascending, with g(0) = 0; beyond them g goes on in a straight line
    along  (D,) with <along, u> = 1: the way an edit moves; u itself where it is left out

    low and high are g(-2) and g(2), which 95 % of a Gaussian prior lie between; of other priors see `under`.
    """

    u: tuple[float, ...] = ()
    s: tuple[float, ...] = (-LIKELY, LIKELY)
    t: tuple[float, ...] = (-LIKELY, LIKELY)
    along: tuple[float, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if not math.isclose(math.hypot(*self.u), 1, abs_tol=1e-4):
            raise ValueError(f"direction '{self.name}': u must have length 1, not {math.hypot(*self.u):g}")
        rising = all(a < b for knots in (self.s, self.t) for a, b in zip(knots, knots[1:]))
        if len(self.s) != len(self.t) or len(self.s) < 2 or not rising:
            raise ValueError(f"direction '{self.name}': g needs as many t as s, two or more, both ascending")
        if self.along and len(self.along) != len(self.u):
            raise ValueError(f"direction '{self.name}': along has {len(self.along)} numbers, u {len(self.u)}")

    @cached_property
    def _kept(self) -> dict[torch.device, tuple[Tensor, ...]]:
        return {}

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u, along (D,) and the knots s, t on a device, copied there once."""
        if device not in self._kept:
            parts = self.u, self.along or self.u, self.s, self.t
            self._kept[device] = tuple(torch.tensor(part, device=device) for part in parts)
        return self._kept[device]

    def g(self, s: Tensor) -> Tensor:
        """t of projections s = <z, u>, of any shape."""
        _, _, knots, values = self._tensors(s.device)
        return _through(s, knots, values)

    def inverse(self, t: Tensor) -> Tensor:
        """g^-1: the projection at which a code reads t, of any shape."""
        _, _, knots, values = self._tensors(t.device)
        return _through(t, values, knots)

    def projection(self, codes: Tensor) -> Tensor:
        """<z, u>, (N,), of codes (N, D)."""
        return codes @ self._tensors(codes.device)[0]

    def read(self, codes: Tensor) -> Tensor:
        """t, (N, 1), of codes (N, D)."""
        return self.g(self.projection(codes))[:, None]

    def write(self, codes: Tensor, value: Tensor) -> Tensor:
        """New codes (N, D) that read `value`, (N, 1) or broadcastable to it."""
        value = torch.as_tensor(value, dtype=codes.dtype, device=codes.device).expand(len(codes), 1)[:, 0]
        return self._to(codes, self.inverse(value))

    def move(self, codes: Tensor, delta) -> Tensor:
        """New codes (N, D) that read `delta` more than codes (N, D) do; a number, (N,) or (N, 1)."""
        delta = torch.as_tensor(delta, dtype=codes.dtype, device=codes.device)
        return self.write(codes, self.read(codes) + (delta[:, None] if delta.ndim == 1 else delta))

    def redistribute(self, codes: Tensor, icdf: Callable[[Tensor], Tensor]) -> Tensor:
        """Codes (N, D) of the prior whose t follows another distribution, given by its inverse distribution function.

        alpha = g^-1(icdf(Phi(<z, u>))), with Phi the distribution function of N(0, 1), that of <z, u> under a Gaussian
        prior; under another one the t come out otherwise than asked. icdf: probabilities -> t.
        """
        share = torch.special.ndtr(self.projection(codes))
        return self._to(codes, self.inverse(icdf(share)))

    def _to(self, codes: Tensor, alpha: Tensor) -> Tensor:
        along = self._tensors(codes.device)[1]
        return codes + (alpha - self.projection(codes))[:, None] * along

    def holding(self, others: Iterable[Direction]) -> Direction:
        """The same direction, whose edits leave what the others read as it is.

        The edit moves along u without its part in the span of the others' u. Raises ValueError where nothing is left.
        """
        others = list(others)
        if not others:
            return replace(self, along=())
        u = torch.tensor(self.u, dtype=torch.float64)
        span = torch.tensor([o.u for o in others], dtype=torch.float64)  # (k, D)
        left = u - span.T @ torch.linalg.lstsq(span.T, u[:, None]).solution[:, 0]
        if left.norm() < KEEPS:
            names = ", ".join(o.name for o in others)
            raise ValueError(f"'{self.name}' cannot move while {names} stand still: unlock one of them")
        left = left / (left @ u)
        return replace(self, along=tuple(left.tolist()))

    def under(self, model, n: int = 2000) -> Direction:
        """The same direction, low and high as the 2.3 and 97.7 % of t under a model's prior where that is no Gaussian.

        A sum of uniform numbers, as in InfoGAN, spreads less than N(0, 1) and stays within bounds.
        """
        moved = [block for block in model.codes if any(self.u[i] for i in block.at) and block.kind != "gaussian"]
        if not moved:
            return self
        s = self.projection(draw(model, n, torch.Generator().manual_seed(0)).cpu())
        low, high = self.g(s.quantile(torch.tensor([0.023, 0.977]))).tolist()
        return replace(self, low=low, high=max(high, low + 1e-6))

    def named(self, name: str) -> Direction:
        """The same direction under another name."""
        return replace(self, name=name)

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n draws (n, 1) of t under the prior of z, where <z, u> is N(0, 1)."""
        return self.g(torch.randn(n, 1, generator=rng, device=rng.device))


def _through(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """The piecewise-linear function through (xs, ys), with its first and last piece going on for ever."""
    k = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    slope = (ys[k] - ys[k - 1]) / (xs[k] - xs[k - 1])
    return ys[k - 1] + (x - xs[k - 1]) * slope


def make_direction(name: str, u, s=None, t=None, unit: str = "") -> Direction:
    """A direction from a vector u (D,) of any length and the knots of g; without knots g(s) = s.

    g is shifted so that g(0) = 0. Raises ValueError for vectors without a length and for knots that do not rise.
    """
    u = torch.as_tensor(u, dtype=torch.float64).flatten()
    if not (u.isfinite().all() and u.norm() > 0):
        raise ValueError(f"direction '{name}' has no length: u must hold finite numbers, not only zeros")
    s, t = ((-LIKELY, LIKELY), (-LIKELY, LIKELY)) if s is None else (s, t)
    s, t = (torch.as_tensor(knots, dtype=torch.float64) for knots in (s, t))
    if len(s) == len(t) and len(s) > 1:
        t = t - _through(torch.zeros(1, dtype=torch.float64), s, t)
        low, high = _through(torch.tensor([-LIKELY, LIKELY], dtype=torch.float64), s, t).tolist()
    else:
        low, high = -LIKELY, LIKELY  # Direction says what is wrong
    u = u / u.norm()
    at = (int(u.nonzero()[0]),)  # a view needs one place in the code to be listed at; it is not read
    return Direction(
        name, "free", (1,), low, high, unit=unit, at=at,
        u=tuple(u.tolist()), s=tuple(s.tolist()), t=tuple(t.tolist()),
    )  # fmt: skip


def save_direction(path: str | Path, direction: Direction) -> Path:
    """Write a direction as JSON and return its path; raises UserError where it cannot be written."""
    path = Path(path).expanduser()
    kept = {key: getattr(direction, key) for key in ("name", "unit", "u", "s", "t")}
    draft = path.with_name(path.name + ".draft")  # a full disk must not cost the file that is there
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(kept) + "\n")
        draft.replace(path)
    except OSError as e:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise UserError(f"the direction could not be written to {path} ({e.strerror}); give another path") from None
    return path


def load_direction(path: str | Path, codes: CodeSpace | None = None) -> Direction:
    """A direction from its file; with `codes`, one for codes of that size. Raises UserError for any other file."""
    path = Path(path).expanduser()
    try:
        kept = json.loads(path.read_text())
        u, s, t = (torch.tensor(kept[part], dtype=torch.float64) for part in ("u", "s", "t"))
        direction = make_direction(str(kept["name"]), u, s, t, str(kept["unit"]))
    except OSError as e:
        raise UserError(f"no direction can be read from {path} ({e.strerror})") from None
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RuntimeError) as e:
        why = " ".join(str(e).split())[:120]
        raise UserError(f"{path} is no direction that the kit saved ({why})") from None
    if codes is not None and len(direction.u) != codes.size:
        size = f"codes of {len(direction.u)} numbers, and this model's have {codes.size}"
        raise UserError(f"the direction in {path.name} is for {size}: it belongs to another generator")
    return direction


class Steered(nn.Module):
    """A model with directions: the blocks of `model`, then each direction as a view of the same code.

    `decode`, `encode`, `posterior`, `prior` and `mask` are the base model's, where it has them. The base stays outside
    the module tree. Raises ValueError for two blocks of one name, and for a direction of codes of another size.
    """

    def __init__(self, model, directions: Iterable[Direction] = ()):
        super().__init__()
        checked(model)
        self._outside = (model,)
        directions = list(directions)
        for direction in directions:
            if len(direction.u) != model.codes.size:
                size = f"{len(direction.u)} numbers, and the model's have {model.codes.size}"
                raise ValueError(f"direction '{direction.name}' is for codes of {size}")
        CodeSpace([*model.codes, *directions], size=model.codes.size)  # says so where two blocks share one name
        self._found = {direction.name: direction for direction in directions}
        self.image_shape = tuple(model.image_shape)

    @property
    def base(self):
        """The model that is steered."""
        return self._outside[0]

    @property
    def device(self) -> torch.device:
        return device_of(self.base)

    @property
    def directions(self) -> dict[str, Direction]:
        """The directions by name."""
        return self._found

    @property
    def codes(self) -> CodeSpace:
        return CodeSpace([*self.base.codes, *self.directions.values()], size=self.base.codes.size)

    def modules(self):
        """Its own modules and the base's: `models.frozen` freezes both."""
        yield from super().modules()
        if isinstance(self.base, nn.Module):
            yield from self.base.modules()

    def _apply(self, function, recurse=True):
        # The base is outside the module tree, and `to` must bring it along.
        if isinstance(self.base, nn.Module):
            self.base._apply(function, recurse)
        return super()._apply(function, recurse)

    def with_directions(self, *more: Direction) -> Steered:
        """The same model with more directions; one of a name that is there takes its place."""
        return Steered(self.base, (self.directions | {direction.name: direction for direction in more}).values())

    def decode(self, codes: Tensor) -> Tensor:
        """The base model's images (N, C, H, W) in [0, 1] of codes (N, D)."""
        return self.base.decode(codes)

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n codes (n, D) of the base model's prior; the directions only view them."""
        return draw(self.base, n, rng)

    # None where the base has none: a model that cannot encode has no `encode` to call.
    encode = property(lambda self: getattr(self.base, "encode", None))
    posterior = property(lambda self: getattr(self.base, "posterior", None))
    mask = property(lambda self: getattr(self.base, "mask", None))


def checked(model):
    """The model; raises ValueError for anything else, a run among them."""
    if isinstance(model, type) or not (hasattr(model, "codes") and hasattr(model, "image_shape")):
        hint = "; a run's is run.model" if hasattr(model, "model") else ""
        raise ValueError(f"{type(model).__name__} is no model with codes, image_shape and decode{hint}")
    return model


def draw(model, n: int, rng: torch.Generator) -> Tensor:
    """n codes (n, D) of the model's own prior, or of its blocks' priors where it has none."""
    return getattr(model, "prior", model.codes.prior)(n, rng)


def steerable(codes: CodeSpace) -> Tensor:
    """Which positions (D,) of a code can move along a direction: all but those of one-hot and map blocks."""
    moves = torch.zeros(codes.size, dtype=torch.bool)
    for block in codes:
        if block.kind in ("gaussian", "uniform", "free") and not isinstance(block, Direction):
            moves[list(block.at)] = True
    return moves


@contextmanager
def still(model):
    """Eval mode and weights without gradients, all as before afterwards; gradients still reach the codes."""
    modes = {m: m.training for m in model.modules()} if isinstance(model, nn.Module) else {}
    asked = {p: p.requires_grad for m in modes for p in m.parameters(recurse=False)}
    try:
        for module in modes:
            module.training = False
        for parameter in asked:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, wanted in asked.items():
            parameter.requires_grad_(wanted)


def pictures(model, codes: Tensor) -> Tensor:
    """G(codes), (n, C, H, W), on the model's device; raises UserError where they are not what the model declares."""
    with still(model):
        with torch.no_grad():
            x = model.decode(codes.to(device_of(model))).float()
    shape, name = tuple(model.image_shape), type(model).__name__
    if tuple(x.shape) != (len(codes), *shape):
        raise UserError(f"{name} declares images {shape}, but decodes {len(codes)} codes to {tuple(x.shape)}")
    if not x.flatten(1).isfinite().all(1).any():
        raise UserError(f"{name} decodes every code to NaN: its weights are broken")
    low, high = float(x[x.isfinite()].min()), float(x[x.isfinite()].max())
    if low < -1e-3 or high > 1 + 1e-3:
        hint = " give (x + 1) / 2 of pictures in [-1, 1]" if low < -0.1 and high < 1.1 else ""
        raise UserError(f"images lie in [0, 1], but {name} decodes to {low:.3g} ... {high:.3g}:{hint or ' scale them'}")
    return x
