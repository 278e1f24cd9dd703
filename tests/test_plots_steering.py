"""Figures of steering show what was measured: medians, spreads, zones, and no warning where nothing was."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from disentkit import plots, plots_steering
from disentkit.methods.directions import Trajectories
from disentkit.methods.steered import make_direction
from disentkit.metrics.reach import Reach
from disentkit.metrics.steering import Distribution, Steering


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a test draws, instead of their bytes."""
    figures = []

    def keep(figure: Figure, dpi: int = 80) -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)  # the layout is settled, and warns where it cannot be
        figures.append(figure)
        return buffer.getvalue()

    monkeypatch.setattr(plots, "png", keep)
    return figures


def found(failed=0, spread=0.02):
    """x asked for at five values, slope 1 and the offset 0.5, at the last of them `failed` of 20 readings missing."""
    t = np.linspace(-0.4, 0.4, 5)
    noise = spread * np.random.default_rng(0).standard_normal((5, 20))
    measured = np.stack([0.5 + t[:, None] + noise, np.zeros((5, 20))], axis=2)
    measured[-1, :failed, 0] = math.nan
    return Steering("x", t, measured, measured[0], ("x", "flat"), -0.25, 0.25, "of the width")


@pytest.mark.parametrize("kind", ["violin", "box"])
def test_steering_draws_medians_the_spread_and_the_zone(drawn, kind):
    steering = found()
    plots_steering.steering(steering, kind=kind)
    left, right = drawn[0].axes
    lines = [line.get_xydata() for line in left.lines]
    assert any(line.shape == (5, 2) and np.allclose(line[:, 1], steering.median()) for line in lines)
    slopes = [line for line in left.lines if line.get_linestyle() == "--"]
    assert np.diff(slopes[-1].get_ydata()) == pytest.approx(np.full(4, 0.2))
    assert right.lines[0].get_ydata() == pytest.approx(steering.std())
    assert np.diff(right.get_ylim()) == pytest.approx(np.diff(left.get_ylim()))  # one scale
    zone = left.patches[0]
    assert (zone.get_x(), zone.get_width()) == pytest.approx((-0.25, 0.5))
    assert left.get_xlabel() == "requested x (of the width)" and left.get_ylabel() == "measured x"


def test_steering_says_where_the_instrument_failed_and_survives_where_it_always_does(drawn):
    plots_steering.steering(found(failed=5))
    plots_steering.steering(found(failed=20))
    plots_steering.steering(found(), name="flat")
    nothing = found()
    nothing.measured[:] = math.nan
    plots_steering.steering(nothing)
    said = [[t.get_text() for t in figure.axes[0].texts] for figure in drawn]
    assert said == [["25%\nfail"], ["100%\nfail"], [], ["100%\nfail"] * 5]
    with pytest.raises(ValueError, match="'y' is not measured"):
        plots_steering.steering(found(), name="y")
    with pytest.raises(ValueError, match="kind is violin or box, not 'dots'"):
        plots_steering.steering(found(), kind="dots")


def test_levels_are_bars_per_chunk(drawn):
    rows = {"x": pd.Series({"z1": 0.75, "z2": 0.25}), "y": pd.Series({"z1": 0.5, "z2": 0.5})}
    plots_steering.levels(rows)
    plots_steering.levels(pd.DataFrame(rows).T)
    for figure in drawn:
        assert [bar.get_height() for bar in figure.axes[0].patches] == [0.75, 0.25, 0.5, 0.5]
        assert [t.get_text() for t in figure.legends[0].get_texts()] == ["x", "y"]


def test_a_random_direction_is_a_row_of_the_leakage_like_any_other(drawn):
    table = pd.DataFrame({"x": [1.1, 0.3], "y": [0.1, np.nan]}, index=["x", "random"])
    plots_steering.leakage(table)
    axes = drawn[0].axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["x", "random direction"]
    assert [t.get_text() for t in axes.texts] == ["1.10", "0.10", "0.30"]
    shade = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shade, [[1, 0.1], [0.3, np.nan]])  # its own value, not its way from chance


def a_reach(**change):
    alphas = np.linspace(-3, 3, 7)
    zeros = np.zeros(7)
    parts = {
        "direction": "x", "name": "x", "alphas": alphas, "t": alphas, "median": np.tanh(alphas), "std": zeros,
        "slope": np.gradient(np.tanh(alphas), alphas), "centre": 0.76, "failures": zeros,
        "broken": np.array([0.5, 0, 0, 0, 0, 0.2, 0.4]), "energy": zeros + 1,
    }  # fmt: skip
    return Reach(**(parts | change))


def test_reach_marks_where_the_change_stops_and_the_pictures_break(drawn):
    one = a_reach()
    assert one.stops == (3, 3) and one.breaks == (3, 2)
    plots_steering.reach({"ours": one, "empty": a_reach(median=np.full(7, math.nan), slope=np.full(7, math.nan))})
    plots_steering.reach(one)
    axes = drawn[0].axes[0]
    marks = {line.get_marker(): line.get_xdata().tolist() for line in axes.lines[2:4]}
    assert marks == {"o": [-3, 3], "x": [-3, 2]}
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == ["ours", "empty"] and not drawn[1].legends


def test_g_passes_through_its_knots_and_its_pairs(drawn):
    direction = make_direction("x", [1.0, 0.0], [-1, 0, 1], [-1, 0, 3], unit="px")
    start, end = np.array([-1.0, 0.5, 0.0]), np.array([0.5, -0.5, 2.0])
    t = np.array([2.5, -2.0, 6.0])  # g(end) - g(start), by hand
    plots_steering.g_curve(direction, np.stack([start, end, t], axis=1))
    axes = drawn[0].axes[0]
    assert axes.lines[-1].get_xydata() == pytest.approx(np.array([[-1, -1], [0, 0], [1, 3]]))
    np.testing.assert_allclose(axes.collections[0].get_offsets(), np.stack([end, [1.5, -0.5, 6.0]], axis=1))
    assert axes.lines[1].get_xydata()[1] == pytest.approx([4.5, 13.5])  # goes on with its last slope
    assert axes.get_ylabel() == "t (px)"
    plots_steering.g_curve({"one": direction, "two": make_direction("x", [0.0, 1.0])})
    assert [text.get_text() for text in drawn[1].axes[0].get_legend().get_texts()] == ["one", "two"]
    with pytest.raises(ValueError, match=r"points are \(m, 3\) numbers"):
        plots_steering.g_curve(direction, np.zeros((4, 2)))


def test_g_takes_the_trajectories_that_it_was_fitted_to(drawn):
    z0, t = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([-1.0, 1.0])
    z = z0 + t[:, None, None] * torch.tensor([1.0, 0.0])
    plots_steering.g_curve(make_direction("x", [1.0, 0.0]), Trajectories("x", "", z0, z, t, torch.zeros(2, 2)))
    offsets = np.asarray(drawn[0].axes[0].collections[0].get_offsets())
    assert sorted(map(tuple, offsets.tolist())) == [(-1, -1), (0, 0), (1, 1), (2, 2)]  # all on g(s) = s


def test_distribution_draws_what_was_asked_for(drawn):
    rng = np.random.default_rng(0)
    plots_steering.distribution(Distribution(0.3, 0.05, rng.normal(0.5, 0.1, 100), rng.random(100), 0.5, -0.5, 0.5))
    before, after = drawn[0].axes
    assert (
        before.get_title() == "plain samples: KS distance 0.30" and after.get_title() == "asked for: KS distance 0.05"
    )
    assert after.lines[0].get_xydata().tolist() == [[0, 0], [0, 1], [1, 1], [1, 0]]
