"""Figures of FineGAN and MixNMatch: stages, mixes, masks, patches, transfer and gates. Functions return a figure.

`plots.png` makes PNG bytes of it. Pictures are tensors or arrays (n, 3 or 1, h, w) in [0, 1], boxes (n, 4) in pixels.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from disentkit import plots

STAGES = {"background": "B", "parent_foreground": "P_f", "parent_mask": "P_m", "parent": "P",
          "child_foreground": "C_f", "child_mask": "C_m", "child": "C"}  # fmt: skip
LOWER = ("cross_", "frechet", "texture_distance")  # scores that begin so are good where they are low
GOOD, BAD, GREY = plots.COLOURS[2], plots.COLOURS[5], "#777777"


def stages_sheet(stages: Mapping[str, object], title: str = "") -> Figure:
    """A row per picture, a column per stage: background, parent (foreground, mask, picture), child (the same).

    stages  what `model.stages(codes)` gives, {name: (n, 3 or 1, s, s)}; any of the names of `STAGES`

    Raises ValueError for an unknown stage and for stages of different numbers of pictures.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        raise ValueError(f"stages are {', '.join(STAGES)}, not {', '.join(map(repr, unknown)) or 'nothing'}")
    shown = {name: _pictures(name, stages[name]) for name in STAGES if name in stages}
    heads = {name: f"{name.replace('_', ' ')}\n{_symbol(STAGES[name])}" for name in shown}
    return _columns(shown, heads, (), title)


def mix_sheet(sources: Mapping[str, object], mixes: Mapping[str, object], title: str = "") -> Figure:
    """A row per mix: its sources, a column for each of them, then right of a line what was made of them.

    sources  {what it gives: (n, 3, s, s)}, for example background, shape, texture, pose
    mixes    {how it was made: (n, 3, s, s)}, for example "code mode" and "feature mode"

    Raises ValueError where there are none, or different numbers of pictures.
    """
    if not sources or not mixes:
        raise ValueError("a sheet of mixes needs at least one source and one mix, {name: pictures} each")
    shown = {("from", name): _pictures(name, x) for name, x in sources.items()}
    shown |= {("made", name): _pictures(name, x) for name, x in mixes.items()}
    return _columns(shown, {key: key[1] for key in shown}, (len(sources),), title)


def mask_gauges(masks) -> tuple[float, float]:
    """Mean area of masks (n, 1, s, s), and how sharp they are: the share of pixels below 0.1 or above 0.9."""
    masks = _pictures("masks", masks)
    return float(masks.mean()), float((np.abs(masks - 0.5) > 0.4).mean())


def masks_over_time(record, title: str = "") -> Figure:
    """Mean area of masks and how sharp they are (the share of pixels below 0.1 or above 0.9), against steps.

    record  a training's history (a frame with "step" and columns area_... and sharp_...), or snapshots
            {step: masks (n, 1, s, s)}, of which the first mask is shown at up to eight steps above the curves

    Raises ValueError for a history without such columns and for no snapshots.
    """
    snapshots = {}
    if not isinstance(record, pd.DataFrame):
        snapshots = {int(step): _pictures(f"masks of step {step}", masks) for step, masks in dict(record).items()}
        if not snapshots:
            raise ValueError("there is no snapshot to draw: give {step: masks}")
        rows = [(step, *mask_gauges(masks)) for step, masks in snapshots.items()]
        record = pd.DataFrame(rows, columns=["step", "area_mask", "sharp_mask"])
    found = {start: [c for c in record if str(c).startswith(start)] for start in ("area_", "sharp_")}
    if "step" not in record or not all(found.values()):
        held = ", ".join(map(str, record.columns)) or "nothing"
        raise ValueError(f"a history of masks has the columns step, area_... and sharp_..., this one has {held}")
    figure = Figure(figsize=(8, 2.8 + 1.2 * bool(snapshots)), layout="constrained")
    below = figure
    if snapshots:
        above, below = figure.subfigures(2, 1, height_ratios=[1.2, 2.8])
        at = np.unique(np.linspace(0, len(snapshots) - 1, min(8, len(snapshots))).round().astype(int))
        chosen = [list(snapshots.items())[i] for i in at]
        for axes, (step, masks) in zip(np.atleast_1d(above.subplots(1, len(chosen))), chosen):
            _show(axes, masks[:1], f"step {step}")
    for axes, (start, columns) in zip(below.subplots(1, 2), found.items()):
        for column, colour in zip(columns, plots.COLOURS * len(columns)):
            known = record[["step", column]].dropna()
            name = str(column).removeprefix(start).replace("_", " ")
            axes.plot(known["step"], known[column], color=colour, linewidth=1.4, label=name)
        axes.set(xlabel="step", ylim=(-0.03, 1.03))
        axes.set_title("mean area" if start == "area_" else "sharp pixels (below 0.1 or above 0.9)", fontsize=10)
    if len(columns) > 1:
        axes.legend(fontsize=8)
    figure.suptitle(title or None, fontsize=10)
    return figure


def transfer_heatmap(matrix: pd.DataFrame, chance: Mapping[str, float] | pd.Series, title: str = "") -> Figure:
    """The transfer matrix: row = what a judge reads in the mix, column = the picture that it agrees with.

    A cell's colour says how far its value is from the row's chance to 1. Chance stands right of the rows. NaN is empty.

    matrix  shares of agreement (a correlation, for the pose)
    chance  {row: what an agreement by chance would be}

    Raises ValueError for an empty matrix, and for a row without its chance.
    """
    values = np.asarray(matrix, dtype=float)
    by_chance = dict(chance)
    missing = [row for row in matrix.index if row not in by_chance]
    if not values.size or missing:
        told = f"no chance is given for {', '.join(map(str, missing))}" if missing else "the matrix is empty"
        raise ValueError(f"a transfer matrix needs rows, each with its chance: {told}")
    level = np.array([by_chance[row] for row in matrix.index], dtype=float)[:, None]
    shade = np.clip((values - level) / np.maximum(1 - level, 1e-9), 0, 1)
    figure = Figure(figsize=(2.6 + 0.95 * values.shape[1], 1.3 + 0.45 * len(values)), layout="constrained")
    axes = figure.subplots()
    _cells(axes, values, shade)
    axes.set_xticks(range(values.shape[1]), [f"{c}\nsource" for c in matrix.columns], fontsize=9)
    axes.set_yticks(range(len(values)), [f"{row} read" for row in matrix.index], fontsize=9)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(values)), [f"{v:.2f}" for v in level[:, 0]], fontsize=9, color=GREY)
    right.tick_params(length=0)
    axes.annotate("chance", (1.02, 1.02), xycoords="axes fraction", fontsize=8, color=GREY, va="bottom")
    axes.set_title(title or None, fontsize=10)
    return figure


def ablation_table(frame: pd.DataFrame, title: str = "") -> Figure:
    """Variants x scores, the mean over seeds and, where there are several, half of largest minus smallest behind it.

    A column's colours run from its worst variant to its best; of `LOWER` scores the low ones are good. A column in
    which all variants are the same has no colour. NaN is left empty.

    frame  a row per training: variant, seed, and a column for each score

    Raises ValueError for a frame without variants or scores.
    """
    if "variant" not in frame or not len(frame):
        raise ValueError("an ablation table has a row per training and a column variant")
    scores = frame.drop(columns=["variant", "seed"], errors="ignore").select_dtypes("number").columns
    if not len(scores):
        raise ValueError("an ablation table needs a column of numbers beside variant and seed")
    by = frame.groupby("variant", sort=False)[list(scores)]
    mean, half = by.mean(), (by.max() - by.min()) / 2
    values = mean.to_numpy(dtype=float)
    turned = np.where([str(c).startswith(LOWER) for c in scores], -1, 1) * values
    known = np.isfinite(turned)
    low = np.where(known, turned, math.inf).min(0)
    high = np.where(known, turned, -math.inf).max(0)
    wide = np.where(high - low > 1e-12, high - low, math.nan)
    shade = (turned - low) / wide
    longest = max(len(str(v)) for v in mean.index)
    figure = Figure(figsize=(0.085 * longest + 0.5 + 0.82 * len(scores), 1.2 + 0.34 * len(mean)), layout="constrained")
    axes = figure.subplots()
    texts = np.array([f"{value:.2f}" for value in values.ravel()], object).reshape(values.shape)
    for row in np.flatnonzero(by.size() > 1):
        texts[row] += np.array([f" ±{value:.2f}" for value in half.iloc[row]], object)
    _cells(axes, values, shade, texts, 7)
    heads = [str(c).replace("_", "\n") + ("\n(low)" if str(c).startswith(LOWER) else "") for c in scores]
    axes.set_xticks(range(len(scores)), heads, fontsize=8)
    axes.set_yticks(range(len(mean)), mean.index, fontsize=8)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    figure.suptitle(title or None, fontsize=10)
    return figure


def boxes_sheet(full, box, valid, patches, title: str = "") -> Figure:
    """The wider view with its box, and which patches count as background: a column per picture.

    Above a dot at the middle of every patch, blue where it is clear of the box; the dashed square is one patch. Below
    the map that the discriminator is taught, white 1 and black 0.

    full     (n, 3, w, w); box (n, 4) in pixels, x1, y1, x2, y2; valid (n, 1, g, g) in 0 ... 1
    patches  with `field`, `stride` and `grid`: `nets.finegan.Patches`

    Raises ValueError where these do not fit together.
    """
    full, valid = _pictures("full", full), _pictures("valid", valid)
    box = np.asarray(box, dtype=float)
    n, grid = len(full), patches.grid
    if box.shape != (n, 4) or valid.shape != (n, 1, grid, grid):
        says = f"boxes are ({n}, 4) and maps ({n}, 1, {grid}, {grid}) here"
        raise ValueError(f"{says}, not {box.shape} and {valid.shape}")
    figure = Figure(figsize=(1.7 * n + 0.2, 3.7 + 0.3 * bool(title)), layout="constrained")
    rows = figure.subplots(2, n, squeeze=False)
    middle = np.arange(grid) * patches.stride + patches.field / 2 - 0.5
    across, down = np.meshgrid(middle, middle)
    for picture, (x1, y1, x2, y2), map_, axes, below in zip(full, box, valid, *rows):
        _show(axes, picture[None])
        colours = np.where(map_[0].ravel() > 0.5, plots.COLOURS[0], BAD)
        axes.scatter(across.ravel(), down.ravel(), s=2, c=colours, linewidths=0)
        if x2 > x1 and y2 > y1:
            axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color="white", linewidth=1.5))
        square = {"fill": False, "color": "black", "linestyle": "--", "linewidth": 1}
        axes.add_patch(Rectangle((-0.5, -0.5), patches.field, patches.field, **square))
        _show(below, map_[None], f"{map_.mean():.0%} background")
        below.axis("on")
        below.set(xticks=[], yticks=[])  # a frame: the map's ones are as white as the page
    figure.suptitle(title or None, fontsize=10)
    return figure


def gates_chart(gates: Mapping[str, tuple[float, float]], title: str = "") -> Figure:
    """Gates one by one: a bar for what was reached, a tick for what was asked; green where it was met.

    gates  {name: (reached, asked for at least)}; reached is NaN where it was not measured

    Raises ValueError for no gates, and where an entry is no such pair.
    """
    if not gates:
        raise ValueError("there is no gate to draw: give {name: (reached, asked)}")
    pairs = {name: tuple(pair) if isinstance(pair, tuple | list) else () for name, pair in gates.items()}
    wrong = [
        name
        for name, pair in pairs.items()
        if len(pair) != 2 or not all(isinstance(v, numbers.Real) for v in pair) or not math.isfinite(pair[1])
    ]
    if wrong:
        raise ValueError(f"a gate is (reached, asked), two numbers, not {gates[wrong[0]]!r} as for {wrong[0]}")
    figure = Figure(figsize=(6.6, 0.9 + 0.34 * len(pairs) + 0.3 * bool(title)), layout="constrained")
    axes = figure.subplots()
    for i, (reached, asked) in enumerate(pairs.values()):
        known = math.isfinite(reached)
        colour = GREY if not known else GOOD if reached >= asked else BAD
        axes.barh(i, reached if known else 0, 0.6, color=colour, alpha=0.75)
        axes.plot([asked, asked], [i - 0.42, i + 0.42], color="black", linewidth=1.6)
        word = "not measured" if not known else f"{reached:.2f}, {'met' if reached >= asked else 'missed'}"
        axes.annotate(word, (1.02, i), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(pairs)), pairs, fontsize=9)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    known = [value for pair in pairs.values() for value in pair if math.isfinite(value)]
    axes.set_xlim(min(0.0, *known) * 1.05, max(1.0, *known) * 1.02)
    axes.set_xlabel("black: asked for at least", fontsize=8)
    axes.set_title(title or None, fontsize=10)
    return figure


def _pictures(name: str, images) -> np.ndarray:
    """Pictures (n, 3 or 1, h, w) as float32; ValueError for another shape, none, NaN or values outside [0, 1]."""
    if hasattr(images, "detach"):
        images = images.detach().cpu().float()
    images = np.asarray(images, dtype=np.float32)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"{name} must be pictures (n, 3 or 1, h, w), not {images.shape}")
    if not (images.min() >= -1e-4 and images.max() <= 1 + 1e-4):  # NaN fails too
        raise ValueError(f"{name} must lie in 0 ... 1, these reach from {images.min():g} to {images.max():g}")
    return images.clip(0, 1)


def _symbol(symbol: str) -> str:
    return f"${symbol}$"


def _columns(shown: Mapping, heads: Mapping, rules: tuple[int, ...], title: str) -> Figure:
    """Columns of pictures, one above the other; a line left of the columns whose numbers are in `rules`."""
    counts = {heads[key].split("\n")[0]: len(x) for key, x in shown.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise ValueError(f"every column needs as many pictures: {told}")
    n = next(iter(counts.values()))
    figure = Figure(figsize=(1.15 * len(shown), 1.1 * n + 0.5 + 0.3 * bool(title)), layout="constrained")
    for i, (axes, (key, images)) in enumerate(zip(np.atleast_1d(figure.subplots(1, len(shown))), shown.items())):
        _show(axes, images, heads[key])
        if i in rules:
            axes.plot([-0.06, -0.06], [0, 1], transform=axes.transAxes, color=GREY, linewidth=1.2, clip_on=False)
    figure.suptitle(title or None, fontsize=10)
    return figure


def _show(axes, images: np.ndarray, head: str = "") -> None:
    """Pictures one above the other, without axes."""
    axes.imshow(plots.tiles(images, 1, gap=max(1, images.shape[2] // 32)), interpolation="nearest")
    axes.set_title(head, fontsize=9)
    axes.axis("off")


def _cells(axes, values: np.ndarray, shade: np.ndarray, texts=None, size: int = 9) -> None:
    """A heat map, dark 0 to bright 1, with every known value printed."""
    axes.imshow(shade, cmap="cividis", aspect="auto", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.2f}" if texts is None else texts[i, j]
            colour = "white" if shade[i, j] <= 0.5 else "black"  # black for NaN
            axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
