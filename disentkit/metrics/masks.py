"""Mask IoU: do the masks of a model that composes its pictures lie where the object is? No mask was ever shown to it.

    generated   the child's mask C_m > 0.5 of drawn codes, against what a segmenter finds in the finished picture
    parent      the parent's mask P_m > 0.5, against the same
    code        C_m > 0.5 of the code that an encoder reads from a true picture x, against the true mask of x: shape
                and pose survive the one-hot p and a few numbers z, the outline pixel for pixel does not
    feature     the same in feature mode, where a map carries shape and pose

IoU is the area that two masks share over the area that either covers, its mean over pictures. Pictures in which both
are empty are left out; where one is, it is 0. Where that leaves no picture, the mean is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from disentkit import models
from disentkit.metrics.mixes import (
    MASKS,
    Drawn,
    check_encoder,
    check_masks,
    check_segmenter,
    draw_pictures,
    draws,
    generator,
    in_feature_mode,
    independent,
    portions,
    stages,
)
from disentkit.metrics.subsets import check_model

SURE = 0.1  # a mask's pixel is decided where it is below this or above 1 - this


def mask_iou(
    model, data, segmenter=None, feature=None, n: int = 500, seed: int = 0, made: Drawn | None = None
) -> dict[str, float | dict[str, float]]:
    """{"generated", "parent", "code", "feature": mean IoU, see above; "area", "bimodality": {"parent", "child"}}.

    model      with `stages(codes)`; in code mode or in feature mode
    segmenter  see `segmenter.segmenter_of(data.independent())`; anything with `mask(x) -> (N, 1, H, W)`. Without one
               nothing is drawn
    feature    a model in feature mode on top of `model`
    made       pictures that `model` drew already, by `draw_pictures`, instead of n new ones

    What a model cannot do is left out: without a prior there is no "generated", without an encoder no "code". Feature
    mode draws nothing of its own, see `draw_pictures`.
    `area` is the mean share of the picture that a mask covers, `bimodality` the share of its pixels outside 0.1 ...
    0.9, both of drawn codes, or of encoded ones where nothing is drawn. An area near 1 or 0 is a collapse: the child
    paints all, or nothing. Raises ValueError for models without masks, data that are not rendered or have no masks, and
    pictures that are not finite.
    """
    data = independent(data)
    for each in (model, *([] if feature is None else [feature])):
        check_model(each, data)
        if not callable(getattr(each, "stages", None)):
            raise ValueError(f"{type(each).__name__} has no masks: it offers no stages(codes)")
    found, looked = {}, None
    if segmenter is not None and draws(model):
        check_segmenter(segmenter)
        made = made or draw_pictures(model, n, seed)
        seen, looked = segmenter.mask(made.x), made.masks
        found = {name: _mean(iou(made.masks[mask], seen)) for name, mask in (("generated", "child"), ("parent",) * 2)}
    for name, each in (("feature" if in_feature_mode(model) else "code", model), ("feature", feature)):
        if each is not None and models.can_encode(each):
            masks, true = _encoded(each, data, n, seed)
            found[name] = _mean(iou(masks["child"], true))
            looked = looked or masks
    if looked is None:
        raise ValueError(f"{type(model).__name__} has no encoder: give a segmenter for the pictures that it draws")
    found["area"] = {name: float(mask.float().mean()) for name, mask in looked.items()}
    return found | {"bimodality": {name: decided(mask) for name, mask in looked.items()}}


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (N,) of masks (N, 1, H, W) in [0, 1], each above 0.5; NaN where both are empty."""
    a, b = (mask.flatten(1) > 0.5 for mask in (a, b))
    return (a & b).sum(1) / (a | b).sum(1)


def decided(mask: Tensor) -> float:
    """The share of a mask's pixels outside 0.1 ... 0.9."""
    return float(((mask < SURE) | (mask > 1 - SURE)).float().mean())


def _encoded(model, data, n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """The masks of the codes of n pictures, and the pictures' true ones."""
    check_masks(data)
    check_encoder(model, data)
    rng, masks, true = generator(seed), {name: [] for name in MASKS}, []
    for count in portions(model, n):
        batch = data.sample(count, rng)
        made = stages(model, models.encode(model, batch["x"]))
        true.append(data.mask(batch["factors"]).half())
        for name, key in MASKS.items():
            masks[name].append(made[key].half())
    return {name: torch.cat(parts) for name, parts in masks.items()}, torch.cat(true)


def _mean(ious: Tensor) -> float:
    return float(ious.nanmean().nan_to_num(0.0))
