"""Pictures for panels: uint8 arrays (H, W, 3), enlarged without smoothing, tiled into labelled sheets, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 2  # white pixels between tiles
INK, FAINT = (20, 20, 20), (95, 95, 95)  # text on white, both with a contrast above 6:1
RULE, ROOM = (150, 150, 150), 8  # the line between given and made pictures, and the pixels it stands in
MARGIN, HEAD = 8, 42  # left of a matrix, and above it


def to_uint8(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] as uint8 (N, H, W, 3), rounded; grey ones are repeated to three channels.

    Raises ValueError for other channels than 1 or 3, and where a value is NaN: a broken model must not pass as black.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"pictures must be (N, 1 or 3, H, W), not {tuple(images.shape)}")
    # numpy, for torch hands this little work to a second thread, which is slower wherever the other core is busy
    pixels = np.rint(255 * images.detach().cpu().float().numpy().clip(0, 1))
    if np.isnan(pixels).any():
        raise ValueError("the model's picture holds NaN: its weights or its code are broken")
    pixels = pixels.astype(np.uint8).transpose(0, 2, 3, 1)  # (N, H, W, C)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


def enlarge(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures (..., H, W, 3) enlarged by the whole number that brings H closest to `side` from below; at least 1.

    Nearest neighbour: what a model drew is shown as it is, and a test can read the pixels back.
    """
    times = max(1, side // pictures.shape[-3])
    return pictures.repeat(times, axis=-3).repeat(times, axis=-2)


def png(picture: np.ndarray) -> bytes:
    """PNG bytes of a picture (H, W, 3) uint8, fast rather than small; one channel where all three are the same."""
    grey = picture[..., 0]
    if (picture == grey[..., None]).all():
        picture = np.ascontiguousarray(grey)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def beside(*images: Tensor) -> Tensor:
    """Images (N, C, H, W), which may differ in size and in C, side by side: (N, C, H, sum of W and white gaps).

    Smaller ones are enlarged to the largest H, without smoothing.
    """
    height, channels = max(i.shape[2] for i in images), max(i.shape[1] for i in images)
    parts = []
    for image in images:
        if image.shape[2] != height:
            width = round(image.shape[3] * height / image.shape[2])
            image = torch.nn.functional.interpolate(image, (height, width), mode="nearest-exact")
        parts += [image.expand(-1, channels, -1, -1), image.new_ones(len(image), channels, height, GAP)]
    return torch.cat(parts[:-1], dim=3)


def sheet(rows: Sequence[tuple[Sequence[str], np.ndarray]], title: str = "", tile: int = 64) -> np.ndarray:
    """One picture (H, W, 3) of labelled rows of tiles.

    rows  (lines of text, tiles (n, h, w, 3)) per row; the first line is printed dark, the others fainter. n may differ
    tile  small tiles are enlarged by a whole number up to this height in pixels
    """
    size = 13
    font, line = ImageFont.load_default(size), size + 4
    rows = [(lines, enlarge(tiles, tile)) for lines, tiles in rows]
    texts = [text for lines, _ in rows for text in lines]
    left = max([round(font.getlength(text)) for text in texts], default=0) + 16
    top = line + 8 if title else GAP
    heights = [max(tiles.shape[1], line * len(lines) + 2) + GAP for lines, tiles in rows]
    width = left + max([len(tiles) * (tiles.shape[2] + GAP) for _, tiles in rows], default=0)
    width = max(width, round(font.getlength(title)) + 16)

    canvas = Image.new("RGB", (width, top + sum(heights)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 5), title, INK, font)
    for (lines, tiles), height in zip(rows, heights):
        y = top + (height - GAP - line * len(lines)) // 2
        for i, text in enumerate(lines):
            draw.text((left - 8, y + i * line), text, FAINT if i else INK, font, anchor="ra")
        for i, picture in enumerate(tiles):
            canvas.paste(Image.fromarray(picture), (left + i * (tiles.shape[2] + GAP), top))
        top += height
    return np.asarray(canvas)


def matrix(top: np.ndarray, left: np.ndarray, grid: np.ndarray, title: str, caption: str, tile: int = 64) -> np.ndarray:
    """One picture (H, W, 3): `top` (c, h, w, 3) over the grid (r, c, h, w, 3), `left` (r, h, w, 3) beside it.

    A line parts the given pictures from the made ones. title and caption are printed above, the caption fainter.
    tile  small pictures are enlarged by a whole number up to this height in pixels
    """
    top, left, grid = (enlarge(pictures, tile) for pictures in (top, left, grid))
    high, wide = grid.shape[2] + GAP, grid.shape[3] + GAP  # from one picture to the next
    font, faint = ImageFont.load_default(13), ImageFont.load_default(12)
    width = max(MARGIN + wide + ROOM + wide * len(top), *(int(f.getlength(t)) + 2 * MARGIN for f, t in
                                                         ((font, title), (faint, caption))))  # fmt: skip
    canvas = Image.new("RGB", (width, HEAD + high + ROOM + high * len(left)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, 4), title, INK, font)
    draw.text((MARGIN, 22), caption, FAINT, faint)
    across, down = MARGIN + wide + ROOM, HEAD + high + ROOM  # where the grid begins
    for c, picture in enumerate(top):
        canvas.paste(Image.fromarray(picture), (across + c * wide, HEAD))
    for r, (picture, made) in enumerate(zip(left, grid)):
        canvas.paste(Image.fromarray(picture), (MARGIN, down + r * high))
        for c, tile_ in enumerate(made):
            canvas.paste(Image.fromarray(tile_), (across + c * wide, down + r * high))
    x, y = across - ROOM // 2 - 1, down - ROOM // 2 - 1
    draw.line([(MARGIN, y), (across + wide * len(top) - GAP - 1, y)], RULE)
    draw.line([(x, HEAD), (x, down + high * len(left) - GAP - 1)], RULE)
    return np.asarray(canvas)
