"""The 50 real pictures of 3D Shapes beside the drawn ones: what the tests and `benchmarks/shapes3d.py` both measure."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disentkit.data import shapes3d
from disentkit.data.shapes3d import SPACE, Shapes3D

# Scale and orientation of the 50 real pictures, which come without: the grid values whose drawn picture is nearest.
SCALES = """
6 5 5 4 1 4 5 7 0 5 1 6 0 3 7 5 1 1 0 6 7 7 1 2 1 4 0 2 2 4 1 5 7 4 6 0 2 1 1 1 4 6 2 3 0 2 7 0 6 1
"""
TURNS = """
4 0 5 8 5 0 10 7 4 6 6 0 10 8 11 10 2 14 7 2 3 3 1 6 6 6 2 14 0 9 2 4 8 0 12 1 0 6 13 10 11 4 10 6 14 8 8 13 2 4
"""
INNER = slice(1, 63)  # the columns compared: the first and the last were restored from under a frame line
LEVELS = 255


def pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """(images (50, 3, 64, 64), values (50, 6)) of a folder of real data."""
    with np.load(folder / "shapes3d" / "shapes3d_50_samples.npz") as file:
        images = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).float() / LEVELS
        known = [file[f"{name}_class"] for name in ("floor_hue", "wall_hue", "object_hue", "shape")]
    scales, turns = (np.array(text.split(), dtype=int) for text in (SCALES, TURNS))
    index = np.stack([*known[:3], scales, known[3], turns], axis=1)
    return images, SPACE.from_grid(torch.from_numpy(index))


def region(values: Tensor, factor: int, size: int = 64) -> Tensor:
    """The pixels (n, size, size) that turn to another colour with the hue of floor (0), wall (1) or object (2)."""
    other = values.clone()
    other[:, factor] = (other[:, factor] + 0.5) % 1
    renderer = Shapes3D(size)
    return (renderer.render(values) - renderer.render(other)).abs().amax(1) > 0.1


def regions(values: Tensor) -> dict[str, Tensor]:
    """Masks (n, 64, 64) of floor, walls, object and sky as they are drawn, where they are compared."""
    masks = {name: region(values, factor) for factor, name in enumerate(("floor", "walls", "object"))}
    masks["sky"] = ~torch.stack(list(masks.values())).any(0)
    inner = torch.zeros(64, dtype=torch.bool)
    inner[INNER] = True
    return {name: mask & inner for name, mask in masks.items()}


def away(images: Tensor, values: Tensor) -> Tensor:
    """Absolute differences (n, 64, 64) between drawn and real pictures in grey levels of 255, mean over the colours."""
    return (Shapes3D().render(values) - images).abs().mean(1) * LEVELS


def colours_away(images: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """How far a region's mean colour is from the real one, in grey levels, mean over the colours: (n,)."""
    difference = (Shapes3D().render(values) - images) * mask[:, None]
    return (difference.sum((2, 3)) / mask.sum((1, 2))[:, None]).abs().mean(1) * LEVELS


def outlines(images: Tensor, values: Tensor) -> Tensor:
    """Intersection over union (n,) of the drawn and the real object.

    In real and drawn pictures alike it is where they differ from the drawn room, with the shadow but without it.
    """
    full = Shapes3D().render(values)
    with changed("_put_object", lambda *args: None):
        empty = Shapes3D().render(values)
    ours, theirs = (((picture - empty).abs().amax(1) > 0.15)[:, :, INNER] for picture in (full, images))
    return (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))


@contextmanager
def changed(name: str, value):
    """Another value for a name of the renderer's module."""
    before = getattr(shapes3d, name)
    setattr(shapes3d, name, value)
    try:
        yield
    finally:
        setattr(shapes3d, name, before)


def moved(step: float) -> dict[str, list]:
    """The scene's measures, each with the values that lie `step` below and above it."""
    found = {}
    for name in ("ROOM", "WALL", "EYE", "AWAY", "RADIUS", "HEIGHT"):
        value = getattr(shapes3d, name)
        if isinstance(value, float):
            found[name] = [value - step, value + step]
            continue
        for k, shape in enumerate(SPACE["shape"].labels):
            found[f"{name} {shape}"] = [(*value[:k], value[k] + by, *value[k + 1 :]) for by in (-step, step)]
    return found
