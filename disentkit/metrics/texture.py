"""Texture distance: has the object of a mixed picture the colours of the picture that its texture was taken from?

A texture is compared by its histogram of colours alone: joint over red, green and blue, BINS levels each, of the pixels
of the object, normalised. The distance of two histograms is half of the chi-square sum,

    d(a, b) = 1/2 sum_i (a_i - b_i)^2 / (a_i + b_i)          0 for the same, 1 where they share no colour

It knows nothing of stripes and spots, and the same stripe in two sizes has not quite the same histogram, so what is
found for mixes is told beside what true pictures of one texture and of two have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from disentkit.metrics.mixes import Mixed, check_masks, check_segmenter, independent, mix_pictures, pickers
from disentkit.metrics.transfer import picker_of

BINS = 4  # levels of each colour: 64 bins in all, for an object of 64x64 pixels has about a thousand
CHUNK = 250  # pictures at a time


def texture_distance(
    model, data, segmenter, n: int = 500, seed: int = 0, made: Mixed | None = None
) -> dict[str, float]:
    """Mean distances d of n mixes as in `transfer` (or of those made already), and of the pictures they are made of.

        mixed     the mix, in the segmenter's mask, to the source of its texture, in the true one
        other     the mix to the source of something else, which has another texture: a mix that takes no texture from
                  its source has this for `mixed`, too
        same      two true pictures of one texture; no mix can be expected to be nearer
        apart     two true pictures of two textures
        failures  the share of the mixes in which the segmenter found no object; they are left out

    Raises ValueError as `transfer` does, and for data without masks.
    """
    data = independent(data)
    check_masks(data)
    check_segmenter(segmenter)
    columns, texture = list(pickers(model.codes)), data.space.index("texture")
    source = columns.index(picker_of("texture", columns))
    made, rows = made or mix_pictures(model, data, n, seed), {"mixed": [], "other": [], "same": [], "apart": []}
    for values, x in zip(made.values.split(CHUNK), made.x.split(CHUNK)):
        given, another = values[:, source], values[:, source - 1]
        alike = another.clone()
        alike[:, texture] = given[:, texture]  # another picture with the same texture
        of_mix = histograms(x, segmenter.mask(x))
        of_given, of_another, of_alike = (histograms(data.render(v), data.mask(v)) for v in (given, another, alike))
        rows["mixed"].append(chi_square(of_mix, of_given))
        rows["other"].append(chi_square(of_mix, of_another))
        rows["same"].append(chi_square(of_alike, of_given))
        rows["apart"].append(chi_square(of_another, of_given))
    rows = {name: torch.cat(parts) for name, parts in rows.items()}
    return {name: float(part.nanmean()) for name, part in rows.items()} | {
        "failures": float(rows["mixed"].isnan().double().mean())
    }


def histograms(x: Tensor, mask: Tensor) -> Tensor:
    """Shares (N, BINS^3) of the colours of pictures (N, 3, H, W) in [0, 1] where masks (N, 1, H, W) are above 0.5.

    NaN for an empty mask.
    """
    level = (x * BINS).long().clamp(0, BINS - 1)  # (N, 3, H, W)
    colour = ((level[:, 0] * BINS + level[:, 1]) * BINS + level[:, 2]).flatten(1)
    inside = (mask > 0.5).flatten(1).double()
    counts = torch.zeros(len(x), BINS**3, dtype=torch.float64).scatter_add_(1, colour, inside)
    return counts / counts.sum(1, keepdim=True)


def chi_square(a: Tensor, b: Tensor) -> Tensor:
    """Distances (N,) in 0 ... 1 of normalised histograms (N, bins)."""
    return 0.5 * ((a - b).square() / (a + b).where(a + b != 0, 1)).sum(1)
