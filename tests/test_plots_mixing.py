"""Figures of mixing show the pictures and numbers that they were given, and refuse what does not fit in one line."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from disentkit import plots, plots_mixing
from disentkit.plots_mixing import STAGES

PATCHES = SimpleNamespace(side=12, field=4, stride=2, grid=5)  # (5 - 1) * 2 + 4 = 12


def drawn(figure):
    """The figure, once it has been drawn: the layout is settled, and warns where it cannot be."""
    figure.savefig(io.BytesIO(), format="png", dpi=60)
    return figure


def pictures(n=2, channels=3, side=8, seed=0):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


def stages(n=2):
    return {name: pictures(n, 1 if "mask" in name else 3, seed=i) for i, name in enumerate(STAGES)}


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_stages_are_columns_in_their_order_whatever_order_they_come_in():
    given = stages()
    figure = drawn(plots_mixing.stages_sheet(dict(reversed(given.items())), "title"))
    heads = [axes.get_title().split("\n") for axes in figure.axes]
    assert [head[1] for head in heads] == [f"${symbol}$" for symbol in STAGES.values()]
    assert [head[0] for head in heads] == [name.replace("_", " ") for name in STAGES]
    for axes, name in zip(figure.axes, STAGES):
        expected = given[name].movedim(1, -1).expand(-1, -1, -1, 3)
        np.testing.assert_allclose(shown(axes)[:8], expected[0], atol=1e-6)
        np.testing.assert_allclose(shown(axes)[9:], expected[1], atol=1e-6)


def test_a_part_of_the_stages_is_enough_and_wrong_ones_are_named():
    assert len(drawn(plots_mixing.stages_sheet({"child": pictures()})).axes) == 1
    with pytest.raises(ValueError, match="stages are background, .*, not 'sky'"):
        plots_mixing.stages_sheet({"sky": pictures()})
    with pytest.raises(ValueError, match="not nothing"):
        plots_mixing.stages_sheet({})
    with pytest.raises(ValueError, match="as many pictures: parent 2, child 3"):
        plots_mixing.stages_sheet({"parent": pictures(), "child": pictures(3)})
    with pytest.raises(ValueError, match=r"child must be pictures \(n, 3 or 1, h, w\), not \(2, 2, 8, 8\)"):
        plots_mixing.stages_sheet({"child": pictures(channels=2)})


@pytest.mark.parametrize("bad", [-1.0, 2.0, math.nan])
def test_pictures_outside_their_range_are_refused(bad):
    broken = pictures()
    broken[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="child must lie in 0 ... 1"):
        plots_mixing.stages_sheet({"child": broken})


def test_mixes_stand_right_of_a_line():
    given = {name: pictures(3, seed=i) for i, name in enumerate(("background", "shape", "texture", "pose"))}
    made = {"code mode": pictures(3, seed=8), "feature mode": pictures(3, seed=9)}
    figure = drawn(plots_mixing.mix_sheet(given, made))
    assert [axes.get_title() for axes in figure.axes] == [*given, *made]
    assert [len(axes.lines) for axes in figure.axes] == [0, 0, 0, 0, 1, 0]
    np.testing.assert_allclose(shown(figure.axes[5])[:8], made["feature mode"][0].movedim(0, -1), atol=1e-6)
    same = {"child": pictures(), "shape": pictures()}
    assert len(drawn(plots_mixing.mix_sheet(same, same)).axes) == 4  # a source and a mix may share a name
    with pytest.raises(ValueError, match="at least one source and one mix"):
        plots_mixing.mix_sheet(given, {})
    with pytest.raises(ValueError, match="as many pictures"):
        plots_mixing.mix_sheet(given, {"mix": pictures(1)})


def test_gauges_of_masks_with_known_answers():
    half, decided = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, 1, 4, 4)
    decided[:, :, :, :1] = 1
    assert plots_mixing.mask_gauges(half) == (0.5, 0.0)
    assert plots_mixing.mask_gauges(decided) == (0.25, 1.0)
    assert plots_mixing.mask_gauges(torch.cat([half, decided])) == (0.375, 0.5)


def test_masks_over_time_from_a_history_and_from_snapshots():
    history = pd.DataFrame({
        "step": [1, 2, 3], "area_parent": [0.5, math.nan, 0.2], "area_child": [0.4, 0.3, 0.1], "L_p": [1.0, 1, 1],
        "sharp_parent": [0.1, 0.2, 0.9], "sharp_child": [0.2, 0.3, 0.8],
    })  # fmt: skip
    area, sharp = drawn(plots_mixing.masks_over_time(history, "t")).axes
    assert [line.get_ydata().tolist() for line in area.lines] == [[0.5, 0.2], [0.4, 0.3, 0.1]]
    assert sharp.lines[1].get_ydata().tolist() == [0.2, 0.3, 0.8]
    assert [t.get_text() for t in sharp.get_legend().get_texts()] == ["parent", "child"]
    snapshots = {step: torch.full((1, 1, 4, 4), level) for step, level in ((0, 0.5), (10, 0.75), (20, 1.0))}
    *tiles, area, sharp = drawn(plots_mixing.masks_over_time(snapshots)).axes
    assert [axes.get_title() for axes in tiles] == ["step 0", "step 10", "step 20"] and shown(tiles[1]).max() == 0.75
    assert area.lines[0].get_xydata().tolist() == [[0, 0.5], [10, 0.75], [20, 1]]
    assert sharp.lines[0].get_ydata().tolist() == [0, 0, 1]


def test_masks_over_time_says_what_is_missing():
    with pytest.raises(ValueError, match="this one has step, L_p"):
        plots_mixing.masks_over_time(pd.DataFrame({"step": [1], "L_p": [0.0]}))
    with pytest.raises(ValueError, match="no snapshot"):
        plots_mixing.masks_over_time({})


def test_transfer_is_shaded_from_the_chance_of_its_row():
    factors = ["background", "shape"]
    matrix = pd.DataFrame([[0.9, 0.1], [np.nan, 0.6]], index=factors, columns=factors)
    figure = drawn(plots_mixing.transfer_heatmap(matrix, {"background": 0.1, "shape": 0.2}))
    axes = figure.axes[0]
    shade = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shade, [[8 / 9, 0], [np.nan, 0.5]])
    assert texts(axes) == ["0.90", "0.10", "0.60", "chance"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["background read", "shape read"]
    with pytest.raises(ValueError, match="no chance is given for shape"):
        plots_mixing.transfer_heatmap(matrix, {"background": 0.1})
    with pytest.raises(ValueError, match="the matrix is empty"):
        plots_mixing.transfer_heatmap(pd.DataFrame(), {})


def test_an_ablation_prints_means_and_spreads_and_knows_which_scores_are_better_low():
    frame = pd.DataFrame({
        "variant": ["full", "full", "bare"], "seed": [0, 1, 0], "nmi_p": [0.6, 0.8, 0.2], "frechet": [2.0, 4.0, 9.0],
        "iou_code": [math.nan] * 3, "all_right": [0.5, 0.5, 0.5],
    })  # fmt: skip
    axes = drawn(plots_mixing.ablation_table(frame)).axes[0]
    shade = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shade, [[1, 1, np.nan, np.nan], [0, 0, np.nan, np.nan]])
    assert texts(axes) == ["0.70 ±0.10", "3.00 ±1.00", "0.50 ±0.00", "0.20", "9.00", "0.50"]
    heads = [t.get_text() for t in axes.get_xticklabels()]
    assert heads == ["nmi\np", "frechet\n(low)", "iou\ncode", "all\nright"]
    assert texts(drawn(plots_mixing.ablation_table(frame[frame.seed == 0])).axes[0])[0] == "0.60"
    with pytest.raises(ValueError, match="a column variant"):
        plots_mixing.ablation_table(frame.drop(columns="variant"))
    with pytest.raises(ValueError, match="a column of numbers"):
        plots_mixing.ablation_table(frame[["variant", "seed"]])


def test_boxes_are_drawn_where_they_are_and_dots_tell_the_valid_patches():
    full, valid = pictures(2, side=12), torch.ones(2, 1, 5, 5)
    valid[0, 0, 1, 2] = 0
    box = torch.tensor([[2.0, 3, 7, 11], [4, 4, 4, 9]])  # the second is empty
    figure = drawn(plots_mixing.boxes_sheet(full, box, valid, PATCHES))
    first, second, below, _ = figure.axes
    frame, patch = first.patches
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (1.5, 2.5, 5, 8)
    assert (patch.get_width(), patch.get_height()) == (4, 4) and len(second.patches) == 1
    dots = first.collections[0]
    odd = [tuple(c) != tuple(dots.get_facecolors()[0]) for c in dots.get_facecolors()]
    assert np.asarray(dots.get_offsets())[odd].tolist() == [[5.5, 3.5]]  # column 2, row 1
    assert below.get_title() == "96% background"
    with pytest.raises(ValueError, match=r"boxes are \(2, 4\) and maps \(2, 1, 5, 5\) here, not \(1, 4\)"):
        plots_mixing.boxes_sheet(full, box[:1], valid, PATCHES)
    with pytest.raises(ValueError, match="full must be pictures"):
        plots_mixing.boxes_sheet(full[0], box, valid, PATCHES)


def test_gates_say_met_and_missed():
    gates = {
        "shape": (0.7, 0.6),
        "texture": (0.3, 0.4),
        "mask": (0.5, 0.5),
        "pose": (math.nan, 0.1),
        "gain": (-0.2, 0.1),
    }
    axes = drawn(plots_mixing.gates_chart(gates)).axes[0]
    assert texts(axes) == ["0.70, met", "0.30, missed", "0.50, met", "not measured", "-0.20, missed"]
    assert [line.get_xdata()[0] for line in axes.lines] == [0.6, 0.4, 0.5, 0.1, 0.1]
    assert [bar.get_width() for bar in axes.patches] == [0.7, 0.3, 0.5, 0, -0.2]
    with pytest.raises(ValueError, match="no gate to draw"):
        plots_mixing.gates_chart({})
    with pytest.raises(ValueError, match="not 0.5 as for shape"):
        plots_mixing.gates_chart({"shape": 0.5})
    for pair in (("0.5", 0.6), (None, 0.6), (0.5, None)):
        with pytest.raises(ValueError, match="a gate is .*two numbers, not .* as for shape"):
            plots_mixing.gates_chart({"shape": pair})


def test_a_figure_becomes_png_bytes():
    assert plots.png(plots_mixing.gates_chart({"shape": (0.7, 0.6)}))[:4] == b"\x89PNG"
