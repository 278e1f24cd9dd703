"""Two models side by side under one set of sliders.

A pair is a model of its own: its code is what the sliders hold, its picture is two or three pictures side by side. So
the ordinary panel explores it, and `render(state)` stays a pure function of the slider values.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from disentkit import models
from disentkit.codes import Block, CodeSpace
from disentkit.explore import images
from disentkit.explore.controls import label_width
from disentkit.explore.panel import Panel
from disentkit.explore.ranking import Ranked, ranked

TILE, SPACE = 64, 10  # pixels of a sheet: its tiles' height, as `images.sheet` enlarges them, and the room between them


class Reading:
    """What `right` makes of the pictures that `left` draws: the true picture | its reconstruction. Code: left's."""

    def __init__(self, left, right):
        self.left, self.right, self.codes = left, right, left.codes
        self.image_shape = _shape_beside(left.image_shape, right.image_shape)

    def read(self, codes: Tensor) -> Tensor:
        """The right model's codes (N, D') of left's pictures of codes (N, D)."""
        return models.encode(self.right, _fit(models.decode(self.left, codes), self.right.image_shape))

    def decode(self, codes: Tensor) -> Tensor:
        return images.beside(models.decode(self.left, codes), models.decode(self.right, self.read(codes)))

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        return getattr(self.left, "prior", self.left.codes.prior)(n, rng)


class Ranks:
    """One picture read by two models, whose blocks move in pairs: picture | left | right.

    Code: which picture (one-hot), and a shift per pair in -1 ... 1. At 0 each model shows the picture as it read it; 1
    is half of each block's own range upwards. A right block that changes the picture the other way round is mirrored.
    A pair is named after the factor found for both, `x: z3 | z7`, or `by rank: z1 | z0` where there is none.
    """

    def __init__(self, left, right, pictures: Tensor, left_stats=None, right_stats=None):
        self.sides = (left, right)
        self.pictures = pictures  # (n, C, H, W)
        self.bases = [models.encode(m, _fit(pictures, m.image_shape)) for m in self.sides]  # (n, D) each
        pairs = _paired(ranked(left.codes, left_stats), ranked(right.codes, right_stats))
        self.ranks: list[tuple[Ranked, Ranked, float]] = []
        blocks = [Block("picture", "onehot", (len(pictures),), labels=tuple(str(i + 1) for i in range(len(pictures))))]
        for a, b in pairs:
            sign = self._sign(a, b)
            what = a.factor if a.factor and a.factor == b.factor else "by rank"
            name = f"{what}: {a.block.name} | {b.block.name}" + (" mirrored" if sign < 0 else "")
            blocks.append(Block(name, "uniform", low=-1.0, high=1.0))
            self.ranks.append((a, b, sign))
        self.codes = CodeSpace(blocks)
        self.image_shape = _shape_beside(pictures.shape[1:], left.image_shape, right.image_shape)

    def decode(self, codes: Tensor) -> Tensor:
        chosen = self.codes["picture"].read(codes).argmax(1)  # (N,)
        shown = [self.pictures[chosen]]
        for side, (model, base) in enumerate(zip(self.sides, self.bases)):
            z = base[chosen]
            for rank, block in zip(self.ranks, self.codes.blocks[1:]):
                sign = rank[2] if side else 1.0
                z = _shifted(z, rank[side], sign * block.read(codes))
            shown.append(models.decode(model, z))
        return images.beside(*shown)

    def _sign(self, a: Ranked, b: Ranked) -> float:
        """-1 where a step up in `a` and a step up in `b` change the first pictures in opposite ways, else 1."""
        steps = []
        for model, base, row in zip(self.sides, self.bases, (a, b)):
            up, down = (models.decode(model, _shifted(base[:8], row, torch.tensor([[s]]))) for s in (1.0, -1.0))
            steps.append(_fit((up - down).mean(1, keepdim=True), (1, 16, 16)))
        return -1.0 if (steps[0] * steps[1]).sum() < 0 else 1.0


class Compare(Panel):
    """Two models under one set of sliders; which comparison it is follows from what `left` can do.

    left draws from true factors (a renderer: it has no encoder), right encodes:
        the sliders are left's. Shown: the true picture and right's reconstruction of it; beside them, which of right's
        latents moved since the present slider was taken up. `sources` are codes of left, as for a panel.
    both encode:
        the same picture is read by both; one slider per pair shifts the i-th block found for the same factor in both,
        then the i-th most important ones. Latents that tell less than 0.05 nats have no slider: nothing would be
        compared with something. `sources` are the pictures (n, C, H, W).

    left_stats, right_stats  block statistics, as for a panel. Raises ValueError where neither comparison is possible.
    """

    columns = 5  # of the sheet, whose tiles are two or three pictures wide

    def __init__(self, left, right, left_stats: Sequence[dict] | None = None, right_stats: Sequence[dict] | None = None,
                 sources=None, names: tuple[str, str] = ("left", "right"), title: str = "", seed: int = 0):  # fmt: skip
        if not models.can_encode(right):
            raise ValueError(f"{type(right).__name__} has no encoder, so it cannot read what the other one shows")
        self._taken_up: str | None = None
        self._latents = [row for row in ranked(right.codes, right_stats)]
        if not models.can_encode(left):
            self.names = names
            super().__init__(Reading(left, right), left_stats, sources, title, seed)
            return
        if sources is None:
            raise ValueError("two models that encode need sources: pictures (n, C, H, W) that both read")
        self.names = ("picture", *names)
        pictures = torch.as_tensor(sources).detach().cpu()
        if pictures.ndim != 4 or len(pictures) == 0:
            raise ValueError(f"sources must be pictures (n, C, H, W), not {tuple(pictures.shape)}")
        pictures = pictures / 255 if pictures.dtype == torch.uint8 else pictures.float()
        super().__init__(Ranks(left, right, pictures, left_stats, right_stats), None, None, title, seed)

    def moved(self) -> dict[str, float]:
        """How far each scalar latent of `right` moved since the slider was taken up, as a share of its range."""
        change = self.model.read(self._code), self.model.read(self._before)
        rows = [row for row in self._latents if row.block.scalar]
        return {r.label: ((r.block.read(change[0]) - r.block.read(change[1])) / (r.high - r.low)).item() for r in rows}

    def _moved(self, block: Block, value: Tensor) -> None:
        if block.name != self._taken_up:
            self._taken_up, self._before = block.name, self._code
        super()._moved(block, value)

    def _set(self, code) -> None:
        self._taken_up = None
        super()._set(code)

    def _show(self) -> None:
        if self._taken_up is None:
            self._before = self._code
        super()._show()
        if isinstance(self.model, Reading) and not self.error:
            with self._errors(fresh=False):
                self.bars.value = _bars(self.moved(), self._taken_up, self.names[1], label_width(self._latents))

    def _sheet(self, columns: int, title: str) -> np.ndarray:
        """The panel's sheet with room between the tiles, and over each of them who drew which part of it."""
        counts = [columns if row.block.scalar else row.block.size for row in self.rows if not _wide(row.block)]
        if not counts:
            return super()._sheet(columns, title)
        sheet, (high, wide) = super()._sheet(columns, ""), self.model.image_shape[1:]
        step = wide * max(1, TILE // high) + images.GAP  # from one tile to the next
        left = sheet.shape[1] - step * max(counts)
        tiles = [sheet[:, left + step * i :][:, :step] for i in range(max(counts))]
        room = np.full((len(sheet), SPACE, 3), 255, np.uint8)
        parts = [sheet[:, :left], *(part for tile in tiles for part in (tile, room))]
        heads = _heads(self.names, step, step + SPACE, max(counts), left, title)
        return np.concatenate([heads, np.concatenate(parts, axis=1)])

    @property
    def _side(self) -> int:
        return 192

    def _above_picture(self, wide: int) -> list[ipywidgets.Widget]:
        cells = "".join(f"<span style='flex: 1 1 0'>{html.escape(name)}</span>" for name in self.names)
        return [ipywidgets.HTML(f"<div style='display: flex; text-align: center; width: {wide}px'>{cells}</div>")]

    def _below_controls(self) -> list[ipywidgets.Widget]:
        self.bars = ipywidgets.HTML()
        return [self.bars]


def _paired(left: list[Ranked], right: list[Ranked]) -> list[tuple[Ranked, Ranked]]:
    """Living scalar blocks in pairs, each used once: by common factor, best correlation first; then by importance."""
    left, right = ([row for row in rows if row.block.scalar and not row.dead] for rows in (left, right))
    pairs = []
    for factor in dict.fromkeys(row.factor for row in left if row.factor):
        both = [[row for row in rows if row.factor == factor] for rows in (left, right)]
        ordered = [sorted(rows, key=lambda row: -(row.correlation or 0)) for rows in both]
        pairs += zip(*ordered)
    used = [{pair[side].block.name for pair in pairs} for side in (0, 1)]
    rest = [[row for row in rows if row.block.name not in names] for rows, names in zip((left, right), used)]
    return pairs + list(zip(*rest))


def _wide(block: Block) -> bool:
    """True for a block that has no row in a sheet."""
    return not (block.scalar or block.kind == "onehot")


def _heads(names: Sequence[str], wide: int, step: int, count: int, left: int, title: str) -> np.ndarray:
    """The top (h, left + count * step, 3) of a sheet: the title, and the names side by side over every tile."""
    font, line, each = ImageFont.load_default(11), 13, wide / len(names)
    lines = [_wrapped(name, font, each - 4) for name in names]
    top = 22 if title else 2
    canvas = Image.new("RGB", (left + count * step, top + line * max(map(len, lines)) + 2), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 4), title, images.INK, ImageFont.load_default(13))
    for i in range(count):
        for k, words in enumerate(lines):
            for row, text in enumerate(words):
                y = canvas.height - line * (len(words) - row)
                draw.text((left + i * step + each * (k + 0.5), y), text, images.FAINT, font, anchor="ma")
    return np.asarray(canvas)


def _wrapped(name: str, font, wide: float) -> list[str]:
    """The words of a name in lines of at most `wide` pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in name.split():
        longer = f"{lines[-1]} {word}" if lines else word
        lines = [*lines[:-1], longer] if lines and font.getlength(longer) <= wide else [*lines, word]
    return lines or [""]


def _shifted(codes: Tensor, row: Ranked, shift: Tensor) -> Tensor:
    """Codes (N, D) with one block moved by shift (N, 1) or (1, 1), in halves of its range."""
    return row.block.write(codes, row.block.read(codes) + shift * (row.high - row.low) / 2)


def _fit(x: Tensor, image_shape: Sequence[int]) -> Tensor:
    """Pictures (N, C, H, W) at the size of image_shape: means over areas where it is smaller, else nearest."""
    size = tuple(image_shape[1:])
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="area" if size[0] < x.shape[2] else "nearest-exact")


def _shape_beside(*shapes: Sequence[int]) -> tuple[int, int, int]:
    return tuple(images.beside(*(torch.zeros(1, *shape) for shape in shapes)).shape[1:])


def _bars(moved: dict[str, float], taken_up: str | None, name: str, label_px: int) -> str:
    """A bar per latent from the middle outwards; the number beside it says the same in text."""
    what = f"since <b>{html.escape(taken_up)}</b> was taken up" if taken_up else "(take up a slider)"
    lines = [f"<div style='margin: 8px 0 4px 0'>{html.escape(name)}: latents that moved {what}, % of their range</div>"]
    for label, share in moved.items():
        width = min(abs(share), 1.0) * 50
        left = 50 - (width if share < 0 else 0)
        lines.append(
            "<div style='display: flex; line-height: 18px; font-size: 12px'>"
            f"<span style='width: {label_px}px; text-align: right; padding-right: 8px'>{html.escape(label)}</span>"
            "<span style='flex: 1; position: relative; background: rgba(128, 128, 128, 0.15); margin: 3px 0'>"
            f"<span style='position: absolute; left: {left:.1f}%; width: {width:.1f}%; height: 12px;"
            " background: #0072b2'></span></span>"
            f"<span style='width: 56px; text-align: right'>{_percent(share)}</span></div>"
        )
    return "".join(lines)


def _percent(share: float) -> str:
    return f"{round(100 * share):+d} %" if round(100 * share) else "0 %"
