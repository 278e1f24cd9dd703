"""Figures of steering: what was measured against what was asked for, and what lies behind it. PNG bytes, as `plots`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from disentkit import plots
from disentkit.metrics.reach import Reach
from disentkit.metrics.steering import Distribution, Steering

ZONE = "#eef2f5"  # where |<z,u>| <= 2, what a Gaussian prior mostly draws from
RED = "#D55E00"
GREY = "#777777"


def steering(found: Steering, name: str | None = None, kind: str = "violin", title: str = "") -> bytes:
    """PNG bytes: the measured factor at each requested value over the codes, and its standard deviation in red.

    The zone |<z,u>| <= 2 is shaded; the dashed line has slope 1 through the median at the middle of the zone: what a
    perfect direction would do. Both vertical axes have the same scale. Where the instrument failed for a tenth of the
    codes or more, the share is printed below.

    name  the measured factor, by default the direction's own
    kind  "violin", or "box" (quartiles, whiskers to the 5th and the 95th percentile)

    Raises ValueError for a factor that was not measured and another kind.
    """
    if kind not in ("violin", "box"):
        raise ValueError(f"kind is violin or box, not {kind!r}")
    values, t, std, failed = found.of(name), found.requested, found.std(name), found.failures(name)
    name = found.direction if name is None else name
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    axes = figure.subplots()
    edge = 0.6 * np.diff(t).min()
    axes.set_xlim(t[0] - edge, t[-1] + edge)
    axes.axvspan(found.low, found.high, color=ZONE, linewidth=0, zorder=0)
    shown = [i for i, row in enumerate(values) if np.isfinite(row).any()]
    rows = [values[i][np.isfinite(values[i])] for i in shown]
    at, wide = t[shown], 0.8 * np.diff(t).min()
    if rows and kind == "violin":
        drawn = axes.violinplot(rows, positions=at, widths=wide, showextrema=False, side="both")
        for body in drawn["bodies"]:
            body.set(facecolor=plots.COLOURS[0], alpha=0.35)
    elif rows:
        line = {"color": plots.COLOURS[0]}
        axes.boxplot(rows, positions=at, widths=0.7 * wide, whis=(5, 95), showfliers=False, manage_ticks=False,
                     boxprops=line, whiskerprops=line, capprops=line, medianprops=line)  # fmt: skip
    middle = found.median(name)
    axes.plot(t, middle, color=plots.COLOURS[0], marker="o", markersize=3, linewidth=1.2)
    centre = np.nanargmin(np.where(np.isfinite(middle), np.abs(t - (found.low + found.high) / 2), np.inf))
    if np.isfinite(middle[centre]):
        axes.plot(t, middle[centre] + t - t[centre], color=GREY, linestyle="--", linewidth=0.8)
    for x, share in zip(t, failed):
        if share >= 0.1:
            where = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
            axes.annotate(f"{share:.0%}\nfail", (x, 0.01), fontsize=6, color=GREY, **where)
    right = axes.twinx()
    right.plot(t, std, color=RED, linewidth=1.4)
    low, high = axes.get_ylim()
    right.set_ylim(0, high - low)  # the same scale as on the left, or a tiny spread would look as large as a wide one
    right.set_ylabel("standard deviation", color=RED)
    right.tick_params(axis="y", colors=RED)
    unit = f" ({found.unit})" if found.unit else ""
    axes.set(xlabel=f"requested {found.direction}{unit}", ylabel=f"measured {name}")
    axes.set_title(title or None, fontsize=10)
    return plots.png(figure)


def levels(profiles: pd.DataFrame | Mapping[str, pd.Series], title: str = "squared norm of u") -> bytes:
    """PNG bytes: how much of u lies in each chunk of the code, a bar per direction: rows of a frame of `profile`s."""
    frame = profiles if isinstance(profiles, pd.DataFrame) else pd.DataFrame(dict(profiles)).T
    return plots.bars(frame, {title: list(frame.columns)}, ylabel="share")


def leakage(tables: pd.DataFrame | Mapping[str, pd.DataFrame], title: str = "") -> bytes:
    """PNG bytes: frames of `metrics.leakage`, direction x measured factor, every value printed, dark 0 to bright 1."""
    tables = {"": tables} if isinstance(tables, pd.DataFrame) else dict(tables)
    # A direction called "random" is a row like any other: `matrix` would take it for the level of chance.
    rows = {row: f"{row} direction" for row in plots.BESIDES}
    return plots.matrix({name: table.rename(index=rows) for name, table in tables.items()}, title)


def reach(found: Reach | Mapping[str, Reach], title: str = "") -> bytes:
    """PNG bytes: over <z,u>, the median of the measured factor, the share of broken pictures, the fine detail's energy.

    One line per direction, {name: Reach}. On the first panel a dot is where the change stops, a cross where the
    pictures break. The zone |<z,u>| <= 2 is shaded.
    """
    found = {found.direction: found} if isinstance(found, Reach) else dict(found)
    figure = Figure(figsize=(11, 3.0), layout="constrained")
    names = " and ".join(dict.fromkeys(r.name for r in found.values()))
    panels = {f"measured {names} (median)": "median", "broken pictures (share)": "broken",
              "fine detail (energy, 1: untouched)": "energy"}  # fmt: skip
    drawn = figure.subplots(1, 3)
    for axes, (says, column) in zip(drawn, panels.items()):
        axes.axvspan(-2, 2, color=ZONE, linewidth=0, zorder=0)
        for (label, one), colour in zip(found.items(), plots.COLOURS * len(found)):
            axes.plot(one.alphas, getattr(one, column), color=colour, linewidth=1.4, label=label)
        axes.set(xlabel="<z,u>")
        axes.set_title(says, fontsize=10)
    for one, colour in zip(found.values(), plots.COLOURS * len(found)):
        for ends, marker in ((one.stops, "o"), (one.breaks, "x")):
            at = np.array([sign * end for sign, end in zip((-1, 1), ends) if np.isfinite(end)])
            height = one.median[np.isin(one.alphas, at)]
            drawn[0].plot(one.alphas[np.isin(one.alphas, at)], height, color=colour, marker=marker, linestyle="")
    drawn[1].set_ylim(-0.03, 1.03)
    if len(found) > 1:
        figure.legend(*drawn[1].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.suptitle(title or None, fontsize=10)
    return plots.png(figure)


def g_curve(directions, points=None, title: str = "") -> bytes:
    """PNG bytes: g of a direction, or of several {name: direction}, and the pairs behind it.

    points  (m, 3) numbers <z_0,u>, <z_t,u>, t, or the Trajectories that the (one) direction was fitted to. A pair only
            tells a difference, t = g(<z_t,u>) - g(<z_0,u>): it is drawn at <z_t,u>, t above g(<z_0,u>), so that it lies
            on the curve if g explains it
    """
    several = dict(directions) if isinstance(directions, Mapping) else {directions.name: directions}
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-2, 2, color=ZONE, linewidth=0, zorder=0)
    for (label, direction), colour in zip(several.items(), plots.COLOURS * len(several)):
        _g(axes, direction, label, colour)
    if points is not None:
        direction = next(iter(several.values()))
        start, end, t = _pairs(direction, points)
        height = np.asarray(direction.g(torch.tensor(start, dtype=torch.float32)), dtype=float) + t
        axes.scatter(end, height, s=6, color=GREY, alpha=0.4, linewidths=0, zorder=1)
    unit = next(iter(several.values())).unit
    axes.set(xlabel="<z,u>", ylabel="t" + (f" ({unit})" if unit else ""))
    axes.set_title(title or (f"g of {next(iter(several))}" if len(several) == 1 else None), fontsize=10)
    if len(several) > 1:
        axes.legend(fontsize=8)
    return plots.png(figure)


def distribution(found: Distribution, bins: int = 30, title: str = "") -> bytes:
    """PNG bytes: histograms of the measured factor in plain and in redistributed samples, dashed what was asked for."""
    ends = found.offset + found.low, found.offset + found.high
    every = np.concatenate([found.plain, found.chosen, ends])
    edges = np.linspace(every.min(), every.max(), bins + 1)
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    three = ("plain samples", found.plain, found.before), ("asked for", found.chosen, found.after)
    for axes, (says, values, distance) in zip(panels, three):
        axes.hist(values, edges, density=True, color=plots.COLOURS[0], alpha=0.6)
        axes.plot([ends[0], *ends, ends[1]], [0, *[1 / (ends[1] - ends[0])] * 2, 0], color=GREY, linestyle="--")
        axes.set_title(f"{says}: KS distance {distance:.2f}", fontsize=10)
        axes.set_xlabel("measured")
    panels[0].set_ylabel("density")
    figure.suptitle(title or None, fontsize=10)
    return plots.png(figure)


def _g(axes: Axes, direction, label: str, colour: str) -> None:
    """g as a line, its straight continuations dashed, its knots as dots."""
    s, t = np.asarray(direction.s), np.asarray(direction.t)
    ends = np.array([min(s[0], -4.0) - 0.5, max(s[-1], 4.0) + 0.5])
    far = np.asarray(direction.g(torch.tensor(ends, dtype=torch.float32)), dtype=float)
    axes.plot([ends[0], s[0]], [far[0], t[0]], color=colour, linestyle="--", linewidth=1.2)
    axes.plot([s[-1], ends[1]], [t[-1], far[1]], color=colour, linestyle="--", linewidth=1.2)
    axes.plot(s, t, color=colour, linewidth=1.6, marker="o", markersize=3, label=label, zorder=2)


def _pairs(direction, points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """<z_0,u>, <z_t,u> and t, (m,) each."""
    if callable(getattr(points, "pairs", None)):
        start, end, t = points.pairs()
        u = np.asarray(direction.u)
        return np.asarray(start) @ u, np.asarray(end) @ u, np.asarray(t)
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points are (m, 3) numbers, <z_0,u>, <z_t,u> and t, or Trajectories, not {points.shape}")
    return tuple(points.T)
