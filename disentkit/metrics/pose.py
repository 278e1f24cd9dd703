"""Pose: what the block z knows of where and how the object stands, and what else changes with it.

`pose_r2` asks the encoder: ridge regression from E_z(x) to the pose. `pose_invariance` asks the generator: the judge
should see the same background, shape and texture whatever z is.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from disentkit import models
from disentkit.data.base import Renderer
from disentkit.metrics.arrays import whole
from disentkit.metrics.mixes import (
    CATEGORIES,
    agreement,
    check_encoder,
    check_judge,
    draw_codes,
    draws,
    generator,
    independent,
    pictures,
    portions,
    read,
)
from disentkit.metrics.subsets import check_model, features

BLOCK = "z"
TEST = 1 / 3  # share of the pictures held out
RIDGE = 1e-3  # of features scaled to 1


def pose_r2(model, data, n: int = 3000, seed: int = 0) -> pd.Series:
    """R^2 on held-out pictures of sin and cos of the rotation, x, y and ln(scale), linear in E_z(x), and their "mean".

    Of n pictures with independent factors, a third of them held out. At most 1; 0 knows no more than the mean, and it
    may fall below. Targets that the data do not have are left out. Raises ValueError for models without a block z or
    without an encoder, for data that are not rendered or have no pose, and for fewer than 30 pictures.
    """
    data = independent(data)
    check_encoder(model, data)
    _check_block(model)
    if whole("n", n, least=0) < 30:
        raise ValueError(f"{n} pictures are too few to hold a third of them out; give thousands")
    rng, codes, values = generator(seed), [], []
    for count in portions(model, n):
        batch = data.sample(count, rng)
        codes.append(features(model.codes, models.encode(model, batch["x"]), [BLOCK]))
        values.append(batch["factors"])
    x, targets = np.concatenate(codes), _pose(data, torch.cat(values))
    held = round(TEST * n)
    found = ridge_r2(x[held:], targets.to_numpy()[held:], x[:held], targets.to_numpy()[:held])
    series = pd.Series(found, index=targets.columns, name="R2")
    return pd.concat([series, pd.Series({"mean": series.mean()})]).rename("R2")


def ridge_r2(x: np.ndarray, y: np.ndarray, new: np.ndarray, true: np.ndarray) -> np.ndarray:
    """R^2 (K,) on (new (M, m), true (M, K)) of ridge regression fitted to (x (N, m), y (N, K))."""
    middle, spread = x.mean(0), x.std(0)
    moving = spread > 1e-9 * np.maximum(1, np.abs(middle))
    x, new = (((part - middle) / np.where(moving, spread, 1))[:, moving] for part in (x, new))
    weights = np.linalg.solve(x.T @ x / len(x) + RIDGE * np.eye(x.shape[1]), x.T @ (y - y.mean(0)) / len(x))
    off = true - (y.mean(0) + new @ weights)
    return 1 - (off**2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)


def pose_invariance(model, data, judge, n: int = 500, seed: int = 0) -> pd.DataFrame:
    """How often the judge sees the same background, shape and texture (rows) when only z is another one.

        same    the share of n pictures that keep the value; ideal 1
        chance  the same of two pictures with nothing in common; of a model that always shows the same texture it is 1

    Codes come from pictures with independent factors, z from the next of them; without an encoder from the prior. Only
    z is changed, so where the background has a z of its own (z_b) that stays. Raises ValueError for models without a
    block z, or with neither encoder nor prior, and as `transfer`.
    """
    data = independent(data)
    check_model(model, data)
    check_judge(judge, data)
    _check_block(model)
    rng, before, after = generator(seed), [], []
    for count in portions(model, n):
        codes = _codes(model, data, max(count, 2), rng)
        before.append(read(judge, pictures(model, codes), CATEGORIES))
        turned = pictures(model, model.codes.swap(codes, codes.roll(1, 0), BLOCK))
        after.append(read(judge, turned, CATEGORIES))
    before, after = torch.cat(before), torch.cat(after)
    shares = {
        name: [agreement(after[:, k], before[:, k], True), _share_a_value(before[:, k])]
        for k, name in enumerate(CATEGORIES)
    }
    return pd.DataFrame.from_dict(shares, orient="index", columns=["same", "chance"])


def _codes(model, data: Renderer, n: int, rng: torch.Generator) -> Tensor:
    if draws(model) and not models.can_encode(model):
        return draw_codes(model, n, rng)
    check_encoder(model, data)
    return models.encode(model, data.sample(n, rng)["x"])


def _share_a_value(classes: Tensor) -> float:
    """The probability that two rows of classes (n,) share a value."""
    return float((classes.unique(return_counts=True)[1].double() / len(classes)).square().sum())


def _pose(data: Renderer, values: Tensor) -> pd.DataFrame:
    """Targets (n, K) of factor values."""
    columns = {name: values[:, data.space.index(name)].double().numpy() for name in data.space.names}
    found = {}
    if "rotation" in columns:
        angle = columns["rotation"] * math.pi / 180
        found |= {"sin rotation": np.sin(angle), "cos rotation": np.cos(angle)}
    found |= {name: columns[name] for name in ("x", "y") if name in columns}
    if "scale" in columns:
        found["log scale"] = np.log(columns["scale"])
    if not found:
        raise ValueError(f"data set '{data.name}' has no rotation, x, y or scale, so there is no pose to read")
    return pd.DataFrame(found)


def _check_block(model) -> None:
    if BLOCK not in model.codes.names:
        raise ValueError(f"no block '{BLOCK}' carries the pose; this code has {', '.join(model.codes.names)}")
