"""Transformations of pictures by a known amount: the only supervision of Plumerault et al. (ICLR 2020), and no label.

Each takes pictures x (n, C, H, W) in [0, 1] and one t per row, (n,), and gives the target that the generator must reach
and a mask of where that target is known: what a shift or a shrinking uncovers was never seen. There the target is
mid-grey and the mask 0. The whole picture is transformed, background included: that is why a direction for y also moves
a horizon.

Other than in the official code: pictures lie in [0, 1] and not in [-1, 1], so its additive brightness b is 2 t here;
shifts are rounded to the nearest pixel and not towards zero; the scale is e^t, alike for larger and smaller, where
theirs is 1 + t; a mask has one channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from disentkit.errors import one_of

GREY = 0.5  # of pixels where a target is not defined
DEFINED = 0.01  # the least share of defined pixels that a target must have


@dataclass(frozen=True)
class Transform:
    """A transformation of pictures by an amount t; called, it gives (target (n, C, H, W), mask (n, 1, H, W)).

    name      of the factor that it changes
    unit      of t, in words
    reach     the largest |t| of the targets unless told otherwise
    function  (x (n, C, H, W), t (n,)) -> (target, mask); each row by its own t, differentiable in x, and without a
              value read on the host, so that it fits in a CUDA graph
    moved     the axis along which t counts whole pixels, 2 (rows) or 3 (columns); None where t is done as it is: `snap`

    One of your own stands wherever a name does: `Transform("contrast", "ln of the gain", 0.5, my_function)`.
    """

    name: str
    unit: str
    reach: float
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    moved: int | None = None

    def __call__(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        if x.ndim != 4 or t.shape not in ((), (len(x),)):
            shapes = f"{tuple(x.shape)} and {tuple(t.shape)}"
            raise ValueError(f"transform '{self.name}' takes pictures (n, C, H, W) and t (n,), not {shapes}")
        return self.function(x, t.expand(len(x)))


def _pixels(t: Tensor | float, size: int) -> Tensor | float:
    """t as a number of whole pixels of `size`."""
    return torch.round(t * size) if isinstance(t, Tensor) else float(round(t * size))


def _shift(x: Tensor, t: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Every row moved by its own t of the side `dim`, towards higher indices."""
    size, shape = x.shape[dim], [1] * 4
    shape[dim] = size
    places = torch.arange(size, device=x.device).view(shape)
    come_from = places - _pixels(t, size).long().view(-1, 1, 1, 1)  # (n, 1, 1, W) or (n, 1, H, 1)
    known = (come_from >= 0) & (come_from < size)
    moved = x.gather(dim, come_from.clamp(0, size - 1).expand_as(x))
    return torch.where(known, moved, GREY), known.expand_as(x[:, :1]).to(x.dtype)


def shift_x(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """To the right by t of the width, in whole pixels; the columns left behind are undefined."""
    return _shift(x, t, 3)


def shift_y(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Down by t of the height, in whole pixels; the rows left behind are undefined."""
    return _shift(x, t, 2)


def zoom(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """e^t times as large about the centre, bilinear; the frame around a smaller picture is undefined.

    The pixels at that frame's edge are read half from inside: their mask is fractional.
    """
    down, across = _bilinear(t, x.shape[2]), _bilinear(t, x.shape[3])
    mask = (down.sum(3, keepdim=True) * across.sum(3).unsqueeze(2)).clamp(max=1)  # (n, 1, H, W)
    return down @ x @ across.mT + GREY * (1 - mask), mask


def _bilinear(t: Tensor, size: int) -> Tensor:
    """(n, 1, size, size): the weights with which each pixel of a line reads the old ones, none outside."""
    places, middle = torch.arange(size, device=t.device, dtype=t.dtype), (size - 1) / 2
    come_from = middle + (places - middle) * torch.exp(-t)[:, None]  # (n, size)
    return (1 - (come_from[:, None, :, None] - places).abs()).clamp(min=0)


def brighten(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x + t, cut off at 0 and 1; defined everywhere."""
    return (x + t.view(-1, 1, 1, 1)).clamp(0, 1), torch.ones_like(x[:, :1])


TRANSFORMS = {
    "x": Transform("x", "fraction of the width, to the right", 0.25, shift_x, moved=3),
    "y": Transform("y", "fraction of the height, downwards", 0.25, shift_y, moved=2),
    "zoom": Transform("zoom", "ln of the scale", 0.4, zoom),
    "brightness": Transform("brightness", "mean of the picture, in 0 ... 1", 0.2, brighten),
}


def transform(name: str | Transform) -> Transform:
    """The transformation of a name, or the one given; raises UserError for an unknown name."""
    return name if isinstance(name, Transform) else TRANSFORMS[one_of("transform", name, TRANSFORMS)]


def snap(name: str | Transform, t: Tensor | float, size: int | tuple[int, ...]) -> Tensor | float:
    """The t that is really done to pictures of a size: whole pixels for x and y, t elsewhere.

    size  (C, H, W), or one number for the moved side
    """
    moved = transform(name).moved
    if moved is None:
        return t
    side = size if isinstance(size, int) else size[moved - 1]
    return _pixels(t, side) / side


def check(name: str | Transform, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
    """The target and the mask of pictures x, looked at on the host.

    Raises ValueError that names the transformation and t: for t that is not finite, for a target or a mask of a wrong
    shape, for values outside [0, 1], and for a target of which less than 1 % is defined.
    """
    found = transform(name)
    if not bool(torch.as_tensor(t).isfinite().all()):
        raise ValueError(f"transform '{found.name}' needs a finite t, not {t}")
    target, mask = found(x, t)
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))
    for what, got, shape in (("target", target, x.shape), ("mask", mask, (len(x), 1, *x.shape[2:]))):
        if tuple(got.shape) != tuple(shape):
            raise ValueError(f"transform '{found.name}' gave a {what} {tuple(got.shape)}; it must be {tuple(shape)}")
    for what, values in (("was given a picture", x), ("gave a target", target), ("gave a mask", mask)):
        rows = values.detach().flatten(1)
        wrong = ~((rows >= 0) & (rows <= 1)).all(1)  # NaN is wrong too
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            low, high = (float(end) for end in rows[row].aminmax())
            raise ValueError(
                f"transform '{found.name}' at t = {float(t[row]):g} {what} that reaches from {low:g} to {high:g}; "
                f"it must lie in 0 ... 1"
            )
    share = mask.detach().flatten(1).mean(1)
    if bool((share < DEFINED).any()):
        row = int(share.argmin())
        raise ValueError(
            f"transform '{found.name}' at t = {float(t[row]):g} leaves {float(share[row]):.1%} of the picture defined; "
            f"take a smaller t"
        )
    return target, mask
