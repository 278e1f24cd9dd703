"""The papers' figures, from plain arrays and frames. Functions return a figure or PNG bytes; none shows it."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

# Colours that stay apart for colour-blind readers (Okabe & Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def png(figure: Figure, dpi: int = 80) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def tiles(images: Tensor | np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images (n, C, H, W) in [0, 1] side by side: (rows * H, columns * W, 3) in [0, 1] with white gaps."""
    images = np.asarray(images, dtype=np.float32)
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.float32)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet


def sheet(images: Tensor | np.ndarray, columns: int, title: str = "", scale: float = 0.9) -> bytes:
    """PNG bytes: images (n, C, H, W) side by side, `columns` to a row, each `scale` inches wide."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(scale * columns, scale * rows + 0.35), layout="constrained")
    axes = figure.subplots()
    axes.imshow(tiles(images, columns), interpolation="nearest")
    axes.set_title(title, fontsize=10, loc="left")
    axes.axis("off")
    return png(figure)


def training_picture(rows: dict[str, Tensor], history: pd.DataFrame) -> bytes:
    """PNG bytes: rows of images by name on the left, every scalar of the history against steps on the right."""
    scalars = [c for c in history.columns if c != "step" and not c[-1].isdigit()]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.1, 1])
    for axes, (name, images) in zip(np.atleast_1d(left.subplots(len(rows), 1)), rows.items()):
        axes.imshow(tiles(images, len(images)), interpolation="nearest")
        axes.set_title(name, fontsize=9, loc="left")
        axes.axis("off")
    shown = scalars[:6]
    grid = np.atleast_1d(right.subplots(-(-len(shown) // 3) or 1, min(3, len(shown)) or 1)).ravel()
    for axes, name, colour in zip(grid, shown, COLOURS):
        axes.plot(history["step"], history[name], color=colour, linewidth=1.2)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in grid[len(shown) :]:
        axes.axis("off")
    return png(figure)
