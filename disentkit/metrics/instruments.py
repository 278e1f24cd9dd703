"""Instruments: where the object of a picture is and how large, read from the picture itself (or from its code).

    x, y        barycentre of the object's pixels, a fraction of the width and the height: 0.5 is the middle
    zoom        0.5 ln(share of the pixels that are the object's), so that a difference of 0.1 is 10 % larger
    brightness  mean of the picture, 0 ... 1

Plumerault et al. (ICLR 2020, section 3) measure with a saliency network. No such network comes with the kit, and any
instrument errs, so there are four of them and a table of where they disagree: the exact mask of a renderer, a threshold
for white sprites on black, a segmenter that was trained on true masks, and the saliency of Hou & Zhang (2007).

An instrument is a callable with `names` that takes images (N, C, H, W) in [0, 1], and codes (N, D) where it needs them,
to a tensor (N, K) float32 on the CPU, a column per name: x, y, zoom and brightness, then its own. Where less than 0.3 %
of the pixels are the object's there is none, and x, y and zoom are NaN; brightness never is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from disentkit import models
from disentkit.data.base import Renderer
from disentkit.data.factors import Factor
from disentkit.metrics.arrays import whole

NAMES = ("x", "y", "zoom", "brightness")  # the first columns of every instrument
LEAST = 0.003  # share of the pixels below which there is no object: 12 pixels of 64x64
TOLERANCE = {"x": 0.05, "y": 0.05, "zoom": 0.1}  # two instruments that are further apart disagree
CHUNK = 250  # pictures at a time


def moments(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y, area), each (N,), of masks (N, 1, H, W) in [0, 1], hard or soft.

    x and y are the barycentre, a pixel counting at its centre, as fractions of width and height; area is the mean of
    the mask. x and y of an empty mask are NaN. Raises ValueError for another shape.
    """
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"masks must be (N, 1, H, W), not {tuple(mask.shape)}")
    mask = mask[:, 0].float()
    height, width = mask.shape[1:]
    across = (torch.arange(width, device=mask.device) + 0.5) / width
    down = (torch.arange(height, device=mask.device) + 0.5) / height
    total = mask.sum((1, 2))  # (N,)
    x, y = (mask.sum(1) * across).sum(1) / total, (mask.sum(2) * down).sum(1) / total
    return x, y, total / (height * width)


class Instrument:
    """What the instruments share: subclasses write `mask(images, codes) -> (N, 1, h, w)`."""

    names: tuple[str, ...] = NAMES

    def mask(self, images: Tensor, codes: Tensor | None = None) -> Tensor:
        """The object's mask (N, 1, h, w) in [0, 1]; its sides need not be the picture's."""
        raise NotImplementedError(f"{type(self).__name__} must write mask(images, codes)")

    def __call__(self, images: Tensor, codes: Tensor | None = None) -> Tensor:
        """(N, K) float32 on the CPU, a column per name, NaN where no object was found.

        Raises ValueError for pictures of another shape or range, NaN among them.
        """
        images = _pictures(images)
        x, y, area = (value.cpu() for value in moments(self.mask(images, codes)))
        found = torch.stack([x, y, area.log() / 2], dim=1)
        found[area < LEAST] = math.nan
        return torch.cat([found, images.flatten(1).mean(1)[:, None].cpu(), self.besides(images)], dim=1)

    def besides(self, images: Tensor) -> Tensor:
        """The columns (N, K - 4) after the first four."""
        return torch.zeros(len(images), 0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.names)})"


class ExactMask(Instrument):
    """Reads the code, not the picture: `model.mask(codes)`, or a renderer's `mask(values)`, is the true mask.

    Only the brightness is the picture's. Raises ValueError for a model without masks, and called without codes.
    """

    def __init__(self, model):
        if not callable(getattr(model, "mask", None)) or not hasattr(model, "codes"):
            raise ValueError(f"{type(model).__name__} has no exact masks: take Segmented, Saliency or Threshold")
        self.model = model
        either = (model, getattr(model, "base", None))  # a renderer with directions is one, too
        self.renderer = next((m for m in either if isinstance(m, Renderer)), None)

    def mask(self, images: Tensor, codes: Tensor | None = None) -> Tensor:
        if codes is None:
            raise ValueError("exact masks are drawn from codes: call instrument(images, codes)")
        codes = self.model.codes.check(codes)
        if len(codes) != len(images):
            raise ValueError(f"{len(images)} images and {len(codes)} codes: row i of both must belong together")
        codes = codes.to(models.device_of(self.model))
        with models.frozen(self.model):
            parts = [self._mask(part) for part in codes.split(CHUNK)]
        return torch.cat(parts) if parts else images.new_zeros(0, 1, *images.shape[2:])

    def _mask(self, codes: Tensor) -> Tensor:
        return self.model.mask(codes if self.renderer is None else self.renderer.values(codes)).cpu()


class Threshold(Instrument):
    """For light objects on black, dSprites among them: the pixels whose mean over the channels is above `level`."""

    def __init__(self, level: float = 0.5):
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {level!r}")
        self.level = float(level)

    def mask(self, images: Tensor, codes: Tensor | None = None) -> Tensor:
        return (images.mean(1, keepdim=True) > self.level).float()


class Saliency(Instrument):
    """Spectral residual (Hou & Zhang, CVPR 2007), then Otsu's threshold (1979): no training, no codes.

    What is unusual in a picture shows in its log amplitude spectrum, where that leaves its own mean over 3x3
    frequencies. The picture, grey and shrunk, is put together again from this residual and the phase it had; squared
    and blurred (a standard deviation of 2.5/64 of its side) this is the map. It knows no object, only what stands out:
    patterns of the ground and an object's rim do too, so areas are measured badly.

    soft  weigh all pixels by the map instead of a threshold. The rest of the picture then pulls the barycentre to the
          middle, so motion is understated
    side  pixels to which pictures are shrunk. The paper's 64 are meant for photographs; by default half the picture's
          shorter side, 64 at most, for what is one pixel wide is noise

    Raises ValueError for a side below 8.
    """

    def __init__(self, soft: bool = False, side: int | None = None):
        self.soft, self.side = bool(soft), None if side is None else whole("side", side, least=8)

    def mask(self, images: Tensor, codes: Tensor | None = None) -> Tensor:
        found = self.map(images)
        return found if self.soft else (found > otsu(found)[:, None, None, None]).float()

    def map(self, images: Tensor) -> Tensor:
        """Saliency (N, 1, side, side) of images (N, C, H, W), each map from 0 to 1; zeros where a picture is even."""
        side = self.side or max(8, min(64, min(images.shape[2:]) // 2))
        grey = images.float().mean(1, keepdim=True)
        grey = F.interpolate(grey, (side, side), mode="bilinear", antialias=True)
        spectrum = torch.fft.fft2(grey)
        log = (spectrum.abs() + 1e-8).log()
        near = F.avg_pool2d(F.pad(log, (1, 1, 1, 1), mode="circular"), 3, stride=1)  # the spectrum is periodic
        found = torch.fft.ifft2(torch.polar((log - near).exp(), spectrum.angle())).abs().square()
        found = blurred(found, 2.5 / 64 * side)
        low, high = found.amin((1, 2, 3), keepdim=True), found.amax((1, 2, 3), keepdim=True)
        even = grey.amax((1, 2, 3), keepdim=True) - grey.amin((1, 2, 3), keepdim=True) < 1e-4
        return torch.where(even, 0.0, (found - low) / (high - low).clamp(min=1e-20))


class Segmented(Instrument):
    """A trained segmenter's mask above 0.5; with a judge also the factors that are not in the mask.

    segmenter  anything with `mask(images) -> (N, 1, H, W)`, see `segmenter.segmenter_of`; its card says how it errs
    judge      see `judging.judge_of`: a column for each of its factors but x, y and scale. A real factor is the mean of
               the grid values under the judge's softmax, a cyclic one their circular mean, a category the number of the
               likeliest value. They are read also where no object was found

    Raises ValueError for things that are no segmenter or no judge, or read pictures of two shapes.
    """

    def __init__(self, segmenter, judge=None):
        if isinstance(segmenter, type) or not callable(getattr(segmenter, "mask", None)):
            raise ValueError(f"give segmenter.segmenter_of(data), not {type(segmenter).__name__}")
        if judge is not None and not (callable(getattr(judge, "logits", None)) and hasattr(judge, "space")):
            raise ValueError(f"a judge is judging.judge_of(data), not {type(judge).__name__}")
        shapes = [tuple(r.image_shape) for r in (segmenter, judge) if hasattr(r, "image_shape")]
        if len(set(shapes)) > 1:
            raise ValueError(f"the segmenter reads images {shapes[0]}, the judge {shapes[1]}: take two of one size")
        self.segmenter, self.judge = segmenter, judge
        self.factors = [f for f in judge.space if f.name not in (*NAMES, "scale")] if judge else []
        self.names = (*NAMES, *(f.name for f in self.factors))

    def mask(self, images: Tensor, codes: Tensor | None = None) -> Tensor:
        return (self.segmenter.mask(images) > 0.5).float()

    def besides(self, images: Tensor) -> Tensor:
        if not self.factors or not len(images):
            return torch.zeros(len(images), len(self.factors))
        if tuple(images.shape[1:]) != tuple(self.judge.image_shape):
            shape = ", ".join(map(str, self.judge.image_shape))
            raise ValueError(f"this judge reads images (N, {shape}), not {tuple(images.shape)}")
        device, rows = models.device_of(self.judge), []
        with models.frozen(self.judge):
            for part in images.split(CHUNK):
                logits = dict(zip(self.judge.space.names, self.judge.logits(part.to(device))))
                rows.append(torch.stack([expectation(f, logits[f.name].cpu()) for f in self.factors], dim=1))
        return torch.cat(rows).float()


def expectation(factor: Factor, logits: Tensor) -> Tensor:
    """What logits (N, values) say of a factor, (N,): its mean value, for a category the number of the likeliest one.

    The mean of a cyclic factor is the one on the circle. It lies between grid values where the reader is not sure.
    """
    if factor.kind == "category":
        return logits.argmax(1).float()
    shares, values = logits.softmax(1), torch.tensor(factor.values, device=logits.device)
    if factor.kind == "real":
        return shares @ values
    angle = 2 * math.pi * (values - factor.low) / period(factor)
    mean = torch.atan2(shares @ angle.sin(), shares @ angle.cos()) % (2 * math.pi)  # 0 ... 2 pi
    return factor.low + mean * period(factor) / (2 * math.pi)


def period(factor: Factor) -> float:
    """After how much a cyclic factor comes round: 2 pi in radians, else as many steps as it has values."""
    if factor.unit == "rad":
        return 2 * math.pi
    return len(factor) * (factor.high - factor.low) / max(len(factor) - 1, 1)


def otsu(maps: Tensor, bins: int = 256) -> Tensor:
    """Thresholds (N,) of maps (N, 1, H, W): each parts its map so that the variance between the parts is largest.

    Of a histogram of `bins` between the map's ends; what is above belongs to the upper part (Otsu 1979). Of an even map
    it is its value, so that no pixel lies above.
    """
    flat = maps.flatten(1).float()
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    level = ((flat - low) / (high - low).clamp(min=1e-12) * bins).long().clamp(max=bins - 1)
    counts = torch.zeros(len(flat), bins, dtype=flat.dtype, device=flat.device)
    counts.scatter_add_(1, level, torch.ones_like(flat))
    share = counts / flat.shape[1]
    below = share.cumsum(1)  # (N, bins), the share up to and with this bin
    mean = (share * torch.arange(bins, device=flat.device)).cumsum(1)
    between = (mean[:, -1:] * below - mean).square() / (below * (1 - below)).clamp(min=1e-12)
    best = between.argmax(1, keepdim=True)
    edge = low + (best + 1) / bins * (high - low)  # the upper edge of the last bin below
    return torch.where(high > low, edge, high)[:, 0].to(maps.dtype)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Maps (N, 1, H, W) under a Gaussian of standard deviation `sigma` pixels, edges replicated."""
    reach = math.ceil(3 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device) / sigma).square())
    line = (line / line.sum()).to(x.dtype)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), line.view(1, 1, 1, -1))
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), line.view(1, 1, -1, 1))


# ---- how far they can be trusted


def agreement(instruments: Mapping[str, Instrument] | Sequence[Instrument], images: Tensor,
              codes: Tensor | None = None, tolerance: Mapping[str, float] | None = None) -> pd.DataFrame:  # fmt: skip
    """Where instruments disagree: a row per pair of them and each of x, y and zoom.

    instruments  {name: instrument}, or a list, whose names are then their classes'
    tolerance    how far apart two readings may be, by factor; by default 0.05, 0.05 and 0.1

    Columns: `first`, `second`, `factor`; `pictures` in which both found an object, and of these `correlation`, `slope`
    (of the second on the first), `difference` (mean absolute) and `disagree` (the share further apart than the
    tolerance); `one_only`, the share of all pictures in which only one of the two found an object. What cannot be
    said is NaN.

    Raises ValueError for fewer than two instruments, an unknown factor in `tolerance` and pictures as instruments do.
    """
    if not isinstance(instruments, Mapping):
        named = [type(i).__name__ for i in instruments]
        if len(set(named)) < len(named):
            raise ValueError(f"two instruments are called alike ({', '.join(named)}): give {{name: instrument}}")
        instruments = dict(zip(named, instruments))
    if len(instruments) < 2:
        raise ValueError("agreement compares two instruments or more")
    if unknown := set(tolerance or ()) - set(TOLERANCE):
        raise ValueError(f"tolerance has no factor '{sorted(unknown)[0]}'; there are {', '.join(TOLERANCE)}")
    apart = {**TOLERANCE, **(tolerance or {})}
    read = {name: instrument(images, codes)[:, :3].double().numpy() for name, instrument in instruments.items()}
    rows = []
    for a, b in combinations(instruments, 2):
        for k, factor in enumerate(TOLERANCE):
            one, two = read[a][:, k], read[b][:, k]
            both = np.isfinite(one) & np.isfinite(two)
            only = np.isfinite(one) != np.isfinite(two)
            line = _line(one[both], two[both])
            off = np.abs(two - one)[both]
            rows.append({
                "first": a, "second": b, "factor": factor, "pictures": int(both.sum()),
                "correlation": line["correlation"], "slope": line["slope"], "difference": _mean(off),
                "disagree": _mean(off > apart[factor]), "one_only": _mean(only),
            })  # fmt: skip
    return pd.DataFrame(rows)


def error(instrument: Instrument, data, n: int = 1000, seed: int = 0) -> pd.DataFrame:
    """An instrument's error on n fresh pictures whose masks are known: a row per factor that has a true value.

    data  a renderer with `mask(values)`, or data whose batches hold `mask`. Columns of the instrument that are called
          as a factor of the data are compared with that

    Columns: `bias` (mean of measured minus true), `error` (mean absolute), `slope` and `correlation` (of measured on
    true), `failures` (share of the pictures where it found nothing). Differences of a cyclic factor go the short way
    round, and it has no slope. Of a category `error` is the share of wrong answers, and the rest is NaN.

    Raises ValueError for data without masks.
    """
    if not callable(instrument) or not hasattr(instrument, "names"):
        raise ValueError(f"an instrument is a callable with names, not {type(instrument).__name__}")
    rng, data = torch.Generator().manual_seed(whole("seed", seed, least=0)), _with_masks(data).to("cpu")
    measured, true = [], []
    names = [name for name in instrument.names if name in TOLERANCE or (data.space and name in data.space.names)]
    columns = [instrument.names.index(name) for name in names]
    for start in range(0, whole("n", n, least=2), CHUNK):
        batch = data.sample(min(CHUNK, n - start), rng)
        codes = _codes_of(data, batch)
        x, y, area = moments(batch["mask"])
        known = {"x": x, "y": y, "zoom": area.log() / 2}
        known |= {f: batch["factors"][:, data.space.index(f)] for f in names if f not in known}
        true.append(torch.stack([known[name] for name in names], dim=1))
        measured.append(instrument(batch["x"], codes)[:, columns])
    true, measured = (torch.cat(part).double().numpy() for part in (true, measured))
    rows = {}
    for name, a, b in zip(names, true.T, measured.T):
        factor = None if name in TOLERANCE else data.space[name]
        rows[name] = _errors(a, b, factor)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["bias", "error", "slope", "correlation", "failures"])


def _errors(true: np.ndarray, measured: np.ndarray, factor: Factor | None) -> dict[str, float]:
    """A row of `error`."""
    known = np.isfinite(measured) & np.isfinite(true)
    failures = {"failures": _mean(~np.isfinite(measured))}
    true, off = true[known], (measured - true)[known]
    if factor is not None and factor.kind == "category":
        return {"error": _mean(off != 0), **failures}
    if factor is not None and factor.kind == "cyclic":
        turn = period(factor)
        off = (off + turn / 2) % turn - turn / 2
        return {"bias": _mean(off), "error": _mean(np.abs(off)), **failures}
    return {"bias": _mean(off), "error": _mean(np.abs(off)), **_line(true, true + off), **failures}


def _line(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Slope of b on a and their correlation, NaN where one of them does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return {"slope": math.nan, "correlation": math.nan}
    a, b = a - a.mean(), b - b.mean()
    return {"slope": float(a @ b / (a @ a)), "correlation": float(a @ b / np.sqrt((a @ a) * (b @ b)))}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _with_masks(data):
    """Data whose batches hold `mask`."""
    from disentkit.data import complete

    if not hasattr(data, "sample"):
        raise ValueError(f"an instrument's error is measured on a data set, not on {type(data).__name__}")
    try:
        whole_data = complete(data, ("mask",))
        if "mask" in whole_data.sample(1, torch.Generator(whole_data.device).manual_seed(0)):
            return whole_data
    except ValueError:
        pass
    raise ValueError(f"data set '{data.name}' has no masks, so nobody knows where its objects are")


def _codes_of(data, batch: dict[str, Tensor]) -> Tensor | None:
    """The codes of a batch where the data are a renderer, plain or wrapped."""
    inner = getattr(data, "data", data)
    return inner.code_of(batch["factors"]) if isinstance(inner, Renderer) else None


def _pictures(images) -> Tensor:
    """Images float32 (N, C, H, W) in [0, 1]; raises ValueError for anything else."""
    try:
        images = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"images must be a tensor or an array, not {type(images).__name__}") from None
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not min(images.shape[2:]):
        raise ValueError(f"images must be (N, C, H, W) with C 1 or 3, not {tuple(images.shape)}")
    images = images.detach().float() / (255 if images.dtype == torch.uint8 else 1)
    if not images.isfinite().all():
        raise ValueError("the pictures hold NaN or infinite numbers: the model or its codes are broken")
    low, high = (float(end) for end in images.aminmax()) if images.numel() else (0.0, 1.0)
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(f"pictures must lie in 0 ... 1, these reach from {low:g} to {high:g}: rescale them")
    return images
