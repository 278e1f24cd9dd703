"""The papers' figures, from plain arrays and frames. Functions return a figure or PNG bytes; none shows it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from torch import Tensor

from disentkit.progress import is_part

# Colours that stay apart for colour-blind readers (Okabe & Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
BESIDES = ("all", "pixels", "chance", "random")  # rows of a block metric that are no blocks


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
    """PNG bytes: rows of images by name on the left, the history against steps on the right.

    A panel per scalar, and one per vector (the accuracy of MIX's classifier for each block) with a line per part; six
    panels at most, one of them a vector where there is any.
    """
    scalars = {c: [c] for c in history.columns if c != "step" and not is_part(c)}
    vectors: dict[str, list[str]] = {}
    for column in filter(is_part, history.columns):
        vectors.setdefault(column.rpartition("_")[0], []).append(column)
    first = dict(list(vectors.items())[:1])
    panels = dict(list(scalars.items())[: 6 - len(first)]) | first
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.1, 1])
    for axes, (name, images) in zip(np.atleast_1d(left.subplots(len(rows), 1)), rows.items()):
        axes.imshow(tiles(images, len(images)), interpolation="nearest")
        axes.set_title(name, fontsize=9, loc="left")
        axes.axis("off")
    grid = np.atleast_1d(right.subplots(-(-len(panels) // 3) or 1, min(3, len(panels)) or 1)).ravel()
    for axes, (name, columns), colour in zip(grid, panels.items(), COLOURS):
        for i, column in enumerate(columns):
            seen = history[["step", column]].dropna()  # a probe measures at some steps only
            one = {"color": colour, "linewidth": 1.2} if len(columns) == 1 else {"color": f"C{i}", "linewidth": 0.9}
            axes.plot(seen["step"], seen[column], marker="." if len(seen) < 10 else "", **one)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step", fontsize=7, labelpad=1)
        axes.tick_params(labelsize=7)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    return png(figure)


def curves(panels: dict[str, pd.DataFrame], xlabel: str = "step", ylabel: str = "", dashed: Sequence[str] = (),
           named: Sequence[str] | None = None, log: Sequence[str] = (), title: str = "") -> bytes:  # fmt: skip
    """PNG bytes: panels side by side, {title: frame}; every column of a frame is a line against the frame's index.

    Its name stands at the end of the line, and not where a panel has only one. Values that are not known (NaN) are left
    out; a line of a few points shows them.

    dashed  columns that are drawn dashed and grey: bounds, chance, the truth
    named   the columns that have a name, the others are thin and grey; None: all
    log     axes that are logarithmic: "x", or titles of panels, whose y axis is
    """
    figure = Figure(figsize=(5.5 if len(panels) == 1 else 4.0 * len(panels), 3.0), layout="constrained")
    for axes, (name, frame) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        lines = [column for column in frame if column not in dashed]
        ends, colours = {}, iter(COLOURS * len(frame.columns))
        for column in frame:
            known = frame[column].dropna()
            thin = column in dashed or (named is not None and column not in named and len(lines) > 1)
            colour = "#777777" if column in dashed else "#c4c4c4" if thin else next(colours)
            style = {"linestyle": "--" if column in dashed else "-", "linewidth": 0.8 if thin else 1.4}
            axes.plot(known.index, known, color=colour, marker="o" if len(known) < 30 else "", markersize=3, **style)
            if len(known) and (column in dashed or not thin) and len(frame.columns) > 1:
                ends[column] = (known.index[-1], known.iloc[-1], colour)
        axes.set(title=name, xlabel=xlabel, ylabel=ylabel)
        axes.margins(y=0.08)
        if "x" in log:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
        if name in log:
            axes.set_yscale("log")
            _plain_numbers(axes.yaxis)
        _at_line_ends(axes, ends)
    figure.suptitle(title or None)
    return png(figure)


def _plain_numbers(axis) -> None:
    """Plain numbers at 1, 2, 5 of every decade of a logarithmic axis (from two decades on at 1), no powers of ten."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _at_line_ends(axes, ends: dict[str, tuple]) -> None:
    """Names {name: (x, y, colour)} right of the axes, as high as their lines end, moved apart where they meet."""
    if not ends:
        return
    axes.get_ylim()  # settles the limits, which the transform below reads
    place = axes.transData + axes.transAxes.inverted()
    heights = {name: float(place.transform((x, y))[1]) for name, (x, y, _) in ends.items()}
    order, gap = sorted(heights, key=heights.get), 0.075
    at = np.array([heights[name] for name in order])
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + gap)
    at -= max(0.0, at[-1] - 1.0)  # those that were pushed out at the top push the others down
    for i in range(len(at) - 2, -1, -1):
        at[i] = min(at[i], at[i + 1] - gap)
    for name, y in zip(order, at):
        axes.annotate(name, (1.02, y), xycoords="axes fraction", va="center", fontsize=8, color=ends[name][2])


def bars(table: pd.DataFrame, groups: dict[str, Sequence[str]], dashed: dict[str, float] | None = None,
         ylabel: str = "nats") -> bytes:  # fmt: skip
    """PNG bytes: grouped bars, one colour per row of the table, one panel per group of columns {title: columns}.

    dashed  {name: height} of grey lines across the first panel
    """
    widths = [len(columns) + 1 for columns in groups.values()]
    figure = Figure(figsize=(3 + 1.3 * sum(widths), 3.4), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False, width_ratios=widths)[0]
    wide = 0.8 / len(table)
    for axes, (name, columns) in zip(panels, groups.items()):
        for i, ((row, values), colour) in enumerate(zip(table.iterrows(), COLOURS * len(table))):
            at = np.arange(len(columns)) + (i - (len(table) - 1) / 2) * wide
            drawn = axes.bar(at, values[list(columns)].astype(float), wide, color=colour, label=row)
            axes.bar_label(drawn, fmt=lambda height: f"{height:.3g}" if abs(height) >= 0.005 else "0", fontsize=7)
        axes.set_xticks(np.arange(len(columns)), columns)
        axes.set(title=name, ylabel=ylabel)
        axes.margins(y=0.1)  # room for the numbers
    for name, height in (dashed or {}).items():
        panels[0].axhline(height, color="#777777", linestyle="--", linewidth=0.8)
        where = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        panels[0].annotate(name, (0.99, height), fontsize=8, **where)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(table), fontsize=8)
    return png(figure)


def votes(tables: dict[str, pd.DataFrame], dead: Sequence[str] = ()) -> bytes:
    """PNG bytes: vote tables of the FactorVAE score side by side, {title: latents x factors}; `dead` rows are grey."""
    rows, columns = next(iter(tables.values())).shape
    figure = Figure(figsize=((1.2 + 0.75 * columns) * len(tables) + 0.6, 0.32 * rows + 1.0), layout="constrained")
    for axes, (title, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items()):
        axes.imshow(table, cmap="cividis", aspect="auto")
        axes.set_xticks(range(columns), table.columns)
        axes.set_yticks(range(rows), table.index, fontsize=8)
        axes.set_title(title, fontsize=10)
        for i, (name, row) in enumerate(table.iterrows()):
            for j, count in enumerate(row):
                bright = count > table.to_numpy().max() / 2
                axes.text(j, i, int(count), ha="center", va="center", fontsize=8, color="black" if bright else "white")
            if name in dead:
                axes.axhspan(i - 0.5, i + 0.5, color="#bbbbbb", zorder=2)
                axes.get_yticklabels()[i].set_color("#888888")
    return png(figure)


def matrix(tables: dict[str, pd.DataFrame], title: str = "") -> bytes:
    """PNG bytes: tables of shares (blocks x factors, 0 ... 1) side by side, {title: frame}, every value printed.

    A cell's colour says how far its value is from chance to 1, where the table has a row "chance" or "random"; else
    from 0 to 1. The rows that are no blocks (`BESIDES`) stand below a line, without colour. NaN is left empty.
    """
    apart = {name: [row for row in table.index if row in BESIDES] for name, table in tables.items()}
    longest = {name: max(len(str(row)) for row in table.index) for name, table in tables.items()}
    widths = [0.085 * longest[name] + 0.3 + 0.62 * table.shape[1] for name, table in tables.items()]
    height = 0.28 * max(map(len, tables.values())) + 0.9 + 0.3 * bool(title)
    figure = Figure(figsize=(sum(widths) + 0.2, height), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False, width_ratios=widths)[0]
    for axes, (name, table) in zip(panels, tables.items()):
        table = table.loc[[*table.index.drop(apart[name]), *apart[name]]]
        values = table.to_numpy(dtype=float)
        chance = next((table.loc[row].to_numpy(dtype=float) for row in ("chance", "random") if row in apart[name]), 0)
        shade = np.clip((values - chance) / np.maximum(1 - np.asarray(chance), 1e-9), 0, 1)
        shade[len(table) - len(apart[name]) :] = np.nan
        axes.imshow(shade, cmap="cividis", aspect="auto", vmin=0, vmax=1)
        axes.set_xticks(range(table.shape[1]), table.columns, fontsize=8)
        axes.set_yticks(range(len(table)), table.index, fontsize=8)
        axes.set_title(name, fontsize=10)
        if apart[name]:
            axes.axhline(len(table) - len(apart[name]) - 0.5, color="#777777", linewidth=1.2)
        for (i, j), value in np.ndenumerate(values):
            dark = shade[i, j] <= 0.5  # never for NaN
            if np.isfinite(value):
                colour = "white" if dark else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    figure.suptitle(title or None, fontsize=10)
    return png(figure)


def points(table: pd.DataFrame, x: str, y: str, by: str, label: str | None = None, title: str = "",
           xlabel: str = "", ylabel: str = "", dashed: dict[str, float] | None = None) -> bytes:  # fmt: skip
    """PNG bytes: two columns of a table of runs against each other, one colour and marker per value of `by`.

    A point per row; with `label` these are faint, and a strong point with a name stands at the mean of the rows that
    share its value, a line through the means in the order in which they come. Rows where either column is not known
    (NaN) are left out.

    dashed  {name: height} of grey lines across
    """
    known = table.dropna(subset=[x, y])
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    kinds = list(dict.fromkeys(known[by]))
    for kind, colour, marker in zip(kinds, COLOURS * len(kinds), "osD^vPX*<>" * len(kinds)):
        rows = known[known[by] == kind]
        means = rows.groupby(label, sort=False)[[x, y]].mean() if label else rows[[x, y]]
        line = {"linestyle": "-" if label else "", "linewidth": 0.8, "markersize": 6 if label else 5}
        axes.plot(means[x], means[y], color=colour, marker=marker, label=kind, **line)
        if len(rows) > len(means):
            axes.scatter(rows[x], rows[y], color=colour, marker=marker, s=14, alpha=0.35, linewidths=0)
        for name, (at, height) in means.iterrows() if label else ():
            axes.annotate(name, (at, height), xytext=(5, 4), textcoords="offset points", fontsize=8, color=colour)
    for name, height in (dashed or {}).items():
        axes.axhline(height, color="#777777", linestyle="--", linewidth=0.8)
        axes.annotate(name, (0.99, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axes.set(title=title, xlabel=xlabel or x, ylabel=ylabel or y)
    axes.margins(0.08)
    figure.legend(loc="outside right upper", fontsize=8)
    return png(figure)


def diagram(boxes: dict[str, tuple], arrows: Sequence[tuple], title: str = "", size: tuple = (9.0, 3.0)) -> bytes:
    """PNG bytes: labelled boxes and the arrows between them: a data flow.

    boxes   {name: (x, y, text) or (x, y, text, kind)} with the middle in inches from the lower left; kind "net" is
            filled (it is trained), "data" is not (it flows; the default), "text" has no frame
    arrows  (from, to), (from, to, text) or (from, to, text, "dashed"); the text stands beside the arrow's middle
    size    of the figure, in inches
    """
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(0, size[1]))
    axes.axis("off")
    axes.text(0.1, size[1] - 0.1, title, fontsize=10, va="top")
    looks = {"net": ("#d6e6f2", COLOURS[0]), "data": ("white", "#777777"), "text": ("none", "none")}
    drawn = {}
    for name, (x, y, text, *kind) in boxes.items():
        face, edge = looks[kind[0] if kind else "data"]
        frame = {"boxstyle": "round,pad=0.4", "facecolor": face, "edgecolor": edge}
        drawn[name] = axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=frame)
    for start, end, *more in arrows:
        text, style = [*more, "", "solid"][0], "--" if "dashed" in more else "-"
        (x0, y0), (x1, y1) = (drawn[name].get_position() for name in (start, end))
        patches = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        drawing = {"arrowstyle": "-|>", "color": "#444444", "linestyle": style, **patches}
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=drawing)
        flat = abs(y1 - y0) < abs(x1 - x0)
        at = {"ha": "center", "va": "bottom"} if flat else {"ha": "left", "va": "center"}
        axes.text((x0 + x1) / 2 + 0.05, (y0 + y1) / 2 + 0.05, text, fontsize=8, color="#444444", **at)
    return png(figure)
