"""The papers' figures: names stand where their lines end, axes bear plain numbers, nothing is silently cut off."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from disentkit import plots
from disentkit.metrics import subsets


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


def names(axes) -> dict[str, float]:
    """The names beside the axes and their heights, as shares of the axes."""
    return {t.get_text(): t.xy[1] for t in axes.texts}


def test_names_stand_where_their_lines_end(drawn):
    frame = pd.DataFrame({"low": [50.0, 0.0], "high": [60.0, 100.0], "bound": [100.0, 50.0]}, index=[1, 1000])
    plots.curves({"one": frame, "two": frame * 1e-3}, dashed=["bound"])
    for axes in drawn[0].axes:
        at, (bottom, top) = names(axes), axes.get_ylim()
        for name in frame:
            end = axes.lines[list(frame).index(name)].get_ydata()[-1]
            assert at[name] == pytest.approx((end - bottom) / (top - bottom), abs=0.01)


def test_names_of_lines_that_meet_are_moved_apart_and_stay_beside_the_axes(drawn):
    plots.curves({"ten": pd.DataFrame({f"z{j}": [0.0, 1.0 - 1e-3 * j] for j in range(10)})})
    heights = sorted(names(drawn[0].axes[0]).values())
    assert np.diff(heights).min() > 0.05 and -0.01 <= heights[0] and heights[-1] <= 1.01


def test_unnamed_lines_are_grey_and_a_single_line_never_is(drawn):
    frame = pd.DataFrame({"z0": [0.0, 1.0], "z1": [0.0, 2.0], "z2": [np.nan, np.nan]})
    plots.curves({"many": frame, "one": frame[["z1"]]}, named=["z0"])
    many, one = drawn[0].axes
    assert list(names(many)) == ["z0"] and not names(one)
    assert [line.get_color() for line in many.lines[:2]] == [plots.COLOURS[0], "#c4c4c4"]
    assert one.lines[0].get_color() == plots.COLOURS[0]


def test_logarithmic_axes_bear_plain_numbers(drawn):
    plots.curves({"loss": pd.DataFrame({"recon": [700.0, 80.0]}, index=[300, 10_000])}, log=["x", "loss"])
    axes = drawn[0].axes[0]
    ticks = [[t.get_text() for t in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis)]
    assert "1,000" in ticks[0] and "100" in ticks[1]
    assert not any("$" in text for text in ticks[0] + ticks[1])


def test_bars_say_their_heights(drawn):
    table = pd.DataFrame({"TC": [1.25, -1e-8], "error": [120.0, 140.0]}, index=["VAE", "ours"])
    plots.bars(table, {"parts": ["TC"], "reconstruction": ["error"]}, dashed={"ln N": 2.0})
    parts, right = drawn[0].axes
    assert {t.get_text() for t in parts.texts} == {"1.25", "0", "ln N"}
    assert [bar.get_height() for bar in right.patches] == [120.0, 140.0]
    assert parts.get_ylim()[1] > 2.0 and [t.get_text() for t in drawn[0].legends[0].get_texts()] == ["VAE", "ours"]


def test_votes_grey_out_the_dead():
    table = pd.DataFrame([[9, 0], [1, 8], [3, 3]], index=["z0", "z1", "z2"], columns=["x", "y"])
    pictures = [io.BytesIO(plots.votes({"votes": table}, dead=dead)) for dead in ((), ("z1",))]
    alive, dead = (np.asarray(Image.open(picture).convert("RGB")) for picture in pictures)
    changed = np.flatnonzero((alive != dead).any((1, 2)))
    assert alive.shape == dead.shape and len(changed) and changed.max() - changed.min() < 0.5 * len(alive)


def test_points_stand_at_the_means_of_the_runs_that_share_a_label(drawn):
    runs = pd.DataFrame({
        "kind": ["a", "a", "a", "b"], "weight": ["w 1", "w 1", "w 2", "w 1"],
        "error": [10.0, 30.0, 50.0, 70.0], "score": [0.2, 0.4, 0.9, np.nan],
    })  # fmt: skip
    plots.points(runs, "error", "score", by="kind", label="weight", dashed={"chance": 0.2})
    axes = drawn[0].axes[0]
    assert axes.lines[0].get_xydata() == pytest.approx(np.array([[20.0, 0.3], [50.0, 0.9]]))
    assert len(axes.collections[0].get_offsets()) == 3  # every run, faintly
    assert [t.get_text() for t in axes.texts] == ["w 1", "w 2", "chance"]
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == ["a"]  # b has no score


def test_points_without_labels_are_the_runs_themselves(drawn):
    runs = pd.DataFrame({"kind": ["a", "b", "a"], "x": [1.0, 2.0, 3.0], "y": [4.0, 5.0, 6.0]})
    plots.points(runs, "x", "y", by="kind")
    axes = drawn[0].axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 4], [3, 6]], [[2, 5]]]
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 2 and not axes.texts
    assert axes.lines[0].get_linestyle() == "None"


def test_an_arrow_of_a_diagram_ends_at_its_boxes(drawn):
    boxes = {"x": (1.0, 1.0, "picture"), "E": (4.0, 1.0, "encoder", "net"), "D": (4.0, 3.0, "D", "net")}
    plots.diagram(boxes, [("x", "E", "reads"), ("E", "D", "", "dashed")], "flow", size=(6.0, 4.0))
    axes = drawn[0].axes[0]
    said = {t.get_text(): t for t in axes.texts}
    assert {"flow", "picture", "encoder", "D", "reads"} <= set(said)
    arrows = [t.arrow_patch for t in axes.texts if getattr(t, "arrow_patch", None)]
    assert [a.get_linestyle() for a in arrows] == ["-", "--"]
    assert arrows[0].patchA is said["picture"].get_bbox_patch() and arrows[0].patchB is said["encoder"].get_bbox_patch()
    with pytest.raises(KeyError):
        plots.diagram(boxes, [("x", "nowhere")])


def test_matrix_prints_every_value_and_colours_blocks_by_their_way_from_chance(drawn):
    frame = pd.DataFrame({"hair": [0.5, 1.0, 0.5, 0.9], "hue": [0.125, np.nan, 0.125, 1.0]},
                         index=["f1", "f2", "chance", "all"])  # fmt: skip
    plots.matrix({"swap": frame, "no chance": frame.iloc[:2]}, title="blocks")
    swap, plain = drawn[0].axes
    assert [t.get_text() for t in swap.get_yticklabels()] == ["f1", "f2", "chance", "all"]
    assert [t.get_text() for t in swap.texts] == ["0.50", "0.12", "1.00", "0.50", "0.12", "0.90", "1.00"]
    shade = np.ma.filled(swap.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shade, [[0, 0], [1, np.nan], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_allclose(np.ma.filled(plain.images[0].get_array(), np.nan)[0], [0.5, 0.125])
    assert len(swap.lines) == 1 and not plain.lines  # the line above the rows that are no blocks


def test_matrix_puts_other_rows_last_and_allows_chance_of_one(drawn):
    assert set(plots.BESIDES) == set(subsets.RESERVED)  # the rows that block metrics put below the blocks
    plots.matrix({"swap": pd.DataFrame({"hair": [1.0, 1.0, 1.0]}, index=["all", "chance", "f1"])})
    axes = drawn[0].axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["f1", "all", "chance"]
    assert np.ma.filled(axes.images[0].get_array(), np.nan)[0, 0] == 0
