"""Panels driven without a kernel: a slider's value is set, the bytes change, and they are those of the code."""

from __future__ import annotations

import asyncio
import base64
import io

import nbformat
import numpy as np
import pytest
import torch
import toys
from explore.models_small import Bar, Blocks, Linear
from PIL import Image

from disentkit import data, models, runs, workbench
from disentkit.errors import UserError
from disentkit.explore import Panel, frame, images

STATS = [
    {"name": "z0", "low": -2.0, "high": 2.0, "importance": 0.02, "unit": "nats", "factor": None, "correlation": None},
    {"name": "z2", "low": -1.0, "high": 3.0, "importance": 2.1, "unit": "nats", "factor": "x", "correlation": 0.981},
    {"name": "z1", "low": -2.0, "high": 2.0, "importance": 0.9, "unit": "nats", "factor": "y", "correlation": 0.5},
]


def unpack(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def assert_shows(panel: Panel, code) -> None:
    """The live picture is decode(code), computed here without the panel, enlarged by a whole number."""
    x = models.decode(panel.model, torch.as_tensor(code).reshape(1, -1))[0]  # (C, H, W)
    expected = (x.expand(3, -1, -1).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    shown = unpack(panel.picture.value)
    times = shown.shape[0] // expected.shape[0]
    assert 1 < times and max(shown.shape) <= 256
    assert np.array_equal(shown, expected.repeat(times, 0).repeat(times, 1))


def test_a_slider_changes_the_picture_to_that_of_its_code():
    panel = Panel(Linear())
    before, sheet = panel.picture.value, panel.sheet_picture.value
    panel.controls["z1"].value = 1.5
    assert torch.equal(panel.code, torch.tensor([[0.0, 1.5, 0.0]]))
    assert np.abs(unpack(before).astype(int) - unpack(panel.picture.value)).max() > 20
    assert_shows(panel, [0.0, 1.5, 0.0])
    assert panel.sheet_picture.value != sheet
    assert np.array_equal(unpack(panel.sheet_picture.value), panel.sheet())
    assert panel.error == "" and panel.error_line.value == ""


def test_render_is_pure():
    panel = Panel(Linear())
    code = torch.tensor([0.3, -0.7, 1.0])
    shown, state = panel.picture.value, panel.code
    first, second = panel.render(code), panel.render(tuple(code.tolist()))
    assert first.dtype == np.uint8 and first.shape == (8, 8, 3) and np.array_equal(first, second)
    assert panel.picture.value == shown and torch.equal(panel.code, state)


def test_sliders_are_ordered_and_labelled_by_importance():
    panel = Panel(Linear(), STATS)
    assert list(panel.controls) == ["z2", "z1", "z0"]
    assert [row.label for row in panel.rows] == ["z2  x (0.98)  2.1 nats", "z1  y (0.50)  0.9 nats", "z0  0.0 nats"]
    slider = panel.controls["z2"]
    assert slider.description.split() == ["z2", "x", "(0.98)", "2.1", "nats"]
    assert (slider.min, slider.max) == (-1.0, 3.0) and slider.continuous_update
    assert list(Panel(Linear()).controls) == ["z0", "z1", "z2"]
    assert list(Panel(Linear(), STATS[1:]).controls) == ["z2", "z1", "z0"]  # no statistics: last
    change = [{"name": "z1", "importance": 0.0213, "unit": "change"}]
    assert Panel(Linear(), change).rows[0].label == "z1  0.021 change"
    with pytest.raises(ValueError, match="no block 'z7'"):
        Panel(Linear(), [{"name": "z7", "importance": 1.0}])


def test_a_label_names_no_factor_that_is_hardly_followed():
    """A weak correlation, or a strong one of a latent that tells next to nothing, is no finding."""
    stat = {"name": "z1", "low": -2.0, "high": 2.0, "importance": 2.0, "unit": "nats", "factor": "x"}
    for correlation, importance, unit, label in [
        (0.31, 2.0, "nats", "z1  x (0.31)  2.0 nats"),
        (0.29, 2.0, "nats", "z1  2.0 nats"),
        (0.5, 0.012, "nats", "z1  0.0 nats"),
        (0.5, 0.012, "change", "z1  x (0.50)  0.012 change"),
        (None, 2.0, "nats", "z1  x  2.0 nats"),
    ]:
        found = [stat | {"correlation": correlation, "importance": importance, "unit": unit}]
        assert Panel(Linear(), found).rows[0].label == label


def shipped_runs():
    return sorted(path.parent.name for path in runs.SHIPPED.glob("*/card.json"))


@pytest.mark.parametrize("name", shipped_runs())
def test_the_first_control_of_a_shipped_run_changes_its_picture_and_reset_brings_it_back(name):
    run = workbench.open_run(f"shipped/{name}")
    wide = not run.model.codes.scalars
    pictures = torch.rand(2, *run.model.image_shape, generator=torch.Generator().manual_seed(0))
    sources = (pictures if models.can_encode(run.model) else 2) if wide else None
    panel = Panel(run.model, run.stats, sources)
    before = panel.render(panel.code)
    if wide:  # no slider, but a source for each block
        panel.feed(panel.rows[0].block.name, 1)
    else:
        slider = panel.controls[next(row.block.name for row in panel.rows if row.block.scalar)]
        slider.value = slider.max
    assert np.abs(panel.render(panel.code).astype(int) - before).max() > 20
    panel.reset()
    assert np.array_equal(panel.render(panel.code), before) and panel.error == ""


def test_setting_many_sliders_at_once_renders_once():
    panel = Panel(Linear(), sources=torch.tensor([[0.5, -0.5, 1.0]]))
    rendered = []
    render = panel.render
    panel.render = lambda state: rendered.append(1) or render(state)
    panel.random()
    assert len(rendered) == 1 and all(abs(panel.controls[f"z{j}"].value - panel.code[0, j]) < 1e-6 for j in range(3))
    panel.code = torch.tensor([1.0, 1.0, 1.0])
    assert len(rendered) == 2
    panel.buttons["reset"].click()
    assert len(rendered) == 3 and [panel.controls[f"z{j}"].value for j in range(3)] == [0.5, -0.5, 1.0]
    assert_shows(panel, [0.5, -0.5, 1.0])


def test_random_draws_with_the_panels_own_generator():
    codes = []
    for seed in (1, 1, 2):
        panel = Panel(Linear(), seed=seed)
        state = torch.get_rng_state()
        panel.buttons["random"].click()
        assert torch.equal(torch.get_rng_state(), state)
        codes.append(panel.code)
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])


def test_a_code_beyond_the_range_widens_the_slider_and_stays_as_it_is():
    panel = Panel(Linear())
    code = torch.tensor([[-7.123, 0.1, 5.0001]])
    panel.code = code
    assert torch.equal(panel.code, code)
    low, high = panel.controls["z0"], panel.controls["z2"]
    assert low.min <= -7.123 and abs(low.value + 7.123) < 1e-6 and high.max >= 5.0001
    panel.controls["z1"].value = 0.5  # another slider leaves them alone
    assert torch.equal(panel.code, torch.tensor([[-7.123, 0.5, 5.0001]]))


def test_the_browsers_rounding_of_a_slider_is_not_a_move():
    """A browser snaps a value it is shown to the slider's steps and sends it back; the code must keep its digits."""
    panel = Panel(Linear())
    code = torch.tensor([[0.1234567, -1.0371, 0.0]])
    panel.code = code
    shown = panel.picture.value
    for name in ("z0", "z1"):
        slider = panel.controls[name]
        slider.value = slider.min + round((slider.value - slider.min) / slider.step) * slider.step
    assert torch.equal(panel.code, code) and panel.picture.value == shown
    panel.controls["z0"].value += panel.controls["z0"].step  # the next step is a move
    assert abs(panel.code[0, 0] - 0.14) < 1e-6


def test_a_broken_decode_shows_an_escaped_line_and_does_not_raise():
    model = Linear()
    panel = Panel(model)
    before = panel.picture.value
    model.broken = "no <script> today\nsecond line"
    panel.controls["z0"].value = 1.0
    assert panel.error == "RuntimeError: no <script> today"
    assert "&lt;script&gt;" in panel.error_line.value and "<script>" not in panel.error_line.value
    assert panel.picture.value == before
    assert "image/png" not in panel._repr_mimebundle_()
    model.broken = None
    panel.controls["z0"].value = 0.5
    assert panel.error == "" and panel.error_line.value == ""
    assert_shows(panel, [0.5, 0.0, 0.0])


def test_a_model_that_draws_nan_is_an_error_and_not_a_black_picture():
    model = Linear()
    panel = Panel(model)
    with torch.no_grad():
        model.weights.fill_(float("nan"))
    panel.controls["z0"].value = 1.0
    assert "NaN" in panel.error


def test_the_sheet():
    panel = Panel(Linear(), STATS, title="three")
    sheet = panel.sheet(columns=4)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert sheet.shape[0] == 25 + 3 * (64 + images.GAP)  # a title line and three rows of tiles
    panel.code = [0.1, 0.2, 0.3]
    sheet = panel.sheet(columns=4)
    left = sheet.shape[1] - 4 * (64 + images.GAP)
    for i, (j, low, high) in enumerate([(2, -1.0, 3.0), (1, -2.0, 2.0), (0, -2.0, 2.0)]):  # rows by importance
        for k, value in enumerate(np.linspace(low, high, 4)):
            code = torch.tensor([0.1, 0.2, 0.3])
            code[j] = value
            top, at = 25 + i * (64 + images.GAP), left + k * (64 + images.GAP)
            tile = sheet[top : top + 64, at : at + 64]
            # decoded in one batch, where sums may be rounded another way: one step of 255
            assert np.abs(tile.astype(int) - panel.render(code).repeat(8, 0).repeat(8, 1)).max() <= 1
    assert (sheet[:, : left - 8] < 100).any()  # labels


def test_the_sheet_waits_for_rest_in_an_event_loop(monkeypatch):
    monkeypatch.setattr(frame, "REST", 0.05)
    panel = Panel(Linear())
    drawn = []
    slow = panel._sheet
    panel._sheet = lambda *a: drawn.append(1) or slow(*a)

    async def drag():
        old = panel.sheet_picture.value
        for value in (0.5, 1.0, 1.5):
            panel.controls["z0"].value = value
            assert_shows(panel, [value, 0.0, 0.0])  # the live picture does not wait
            await asyncio.sleep(0.01)
        assert not drawn and panel.sheet_picture.value == old
        await asyncio.sleep(0.3)
        assert len(drawn) == 1 and panel.sheet_picture.value != old and panel.field.value == panel.text

    asyncio.run(drag())


def test_save(tmp_path):
    panel = Panel(Linear())
    path = panel.save(tmp_path / "sheet.png", columns=3)
    assert np.array_equal(unpack(path.read_bytes()), panel.sheet(columns=3))
    with pytest.raises(UserError, match="there is no folder .*make it first"):
        panel.save(tmp_path / "nowhere" / "sheet.png")
    with pytest.raises(UserError, match="cannot save"):
        panel.save(tmp_path)


def test_every_kind_of_block_has_its_control():
    panel = Panel(Blocks())
    assert panel.error == ""
    code = panel.code
    panel.controls["shape"].value = 2
    assert panel.code[0, :3].tolist() == [0, 0, 1] and torch.equal(panel.code[0, 3:], code[0, 3:])
    assert_shows(panel, panel.code)
    panel.controls["many"].value = 5
    assert panel.code[0, 3:11].argmax() == 5
    assert panel.controls["style"].value == "2 x 2 numbers: give the panel sources to pick from"
    assert panel.controls["noise"].value == "4 numbers: no encoder reads it"
    panel.text = "shape=[0.2, 0.3, 0.5]"  # soft: nothing is picked, and the code stays soft
    assert panel.controls["shape"].value is None
    assert torch.allclose(panel.code[0, :3], torch.tensor([0.2, 0.3, 0.5]))
    panel.controls["shape"].value = 0
    assert panel.code[0, :3].tolist() == [1, 0, 0]
    # rows of the sheet: 3 and 8 categories, two scalars; wide blocks have none
    assert panel.sheet().shape[0] == 4 * (64 + images.GAP) + images.GAP


def test_draw_again_draws_one_uninferred_block_from_its_prior():
    panel = Panel(Blocks())
    assert {name for name in panel.buttons if name.startswith("draw ")} == {"draw jitter", "draw noise"}
    space, before, shown = panel.model.codes, panel.code, panel.picture.value
    panel.buttons["draw noise"].click()
    changed = {block.name for block in space if not torch.equal(block.read(panel.code), block.read(before))}
    assert changed == {"noise"} and panel.picture.value != shown
    panel.buttons["draw jitter"].click()
    assert abs(panel.controls["jitter"].value - space.read(panel.code, "jitter").item()) < 1e-6 != 0.0


def test_base_pictures_are_encoded_and_picked():
    model = Linear()
    codes = torch.tensor([[0.5, 0.25, -1.0], [1.0, -1.0, 0.0]])
    panel = Panel(model, sources=models.decode(model, codes))
    assert torch.allclose(panel.code, codes[:1], atol=1e-3)
    panel.buttons["picture 2"].click()
    assert torch.allclose(panel.code, codes[1:], atol=1e-3)
    assert panel.buttons["picture 2"].button_style == "info" and panel.buttons["picture 1"].button_style == ""
    panel.controls["z0"].value = -2.0
    panel.buttons["reset"].click()
    assert torch.allclose(panel.code, codes[1:], atol=1e-3)
    panel = Panel(model, sources=codes)
    panel.pick(1)
    assert torch.equal(panel.code, codes[1:])


@pytest.mark.parametrize(
    "sources, message",
    [
        (torch.zeros(2, 1, 9, 9), "reads images"),
        (torch.zeros(2, 5), "codes must be"),
        (torch.zeros(0, 3), "empty"),
        (torch.zeros(3), "sources are pictures"),
        (data.load("digits"), "sources are pictures .* or codes .*, not ArrayData"),
        (torch.full((1, 1, 8, 8), 255.0), "pictures lie in 0 ... 1, these reach 255 ... 255; divide by 255"),
        (torch.full((1, 3), torch.nan), "sources hold NaN or infinite numbers"),
    ],
)
def test_sources_that_do_not_fit(sources, message):
    with pytest.raises(ValueError, match=message):
        Panel(Linear(), sources=sources)


def test_pictures_without_an_encoder():
    with pytest.raises(ValueError, match="no encoder"):
        Panel(Blocks(), sources=torch.zeros(2, 3, 8, 8))


def test_a_code_of_the_wrong_shape_or_not_finite_is_refused():
    panel = Panel(Linear())
    nan = float("nan")
    for code, message in [([0.0, 1.0], "codes must be"), (torch.zeros(2, 3), "one code"), ([0, nan, 0], "finite")]:
        with pytest.raises(ValueError, match=message):
            panel.code = code
    assert torch.equal(panel.code, torch.zeros(1, 3))


def test_text_round_trip_and_typing():
    for model in (Linear(), Blocks(), Bar()):
        panel = Panel(model, seed=3)
        panel.random()
        code, line = panel.code, panel.text
        panel.reset()
        assert not torch.equal(panel.code, code)
        panel.field.value = line
        assert torch.equal(panel.code, code) and panel.text == line == panel.field.value
    panel = Panel(Linear())
    panel.field.value = "z1=1.5"
    assert panel.text == "z0=0, z1=1.5, z2=0"
    panel.field.value = "[1, 2, -3e-1]"
    assert torch.equal(panel.code, torch.tensor([[1.0, 2.0, -0.3]]))


@pytest.mark.parametrize(
    "line, message",
    [
        ("z1=one", "z1: 'one' is not a number"),
        ("z9=1", "no block 'z9'; this code has z0, z1, z2"),
        ("1, 2", "takes 3 number(s), not 2"),
        ("z0=1, z1", "'z1' is not name=value"),
        ("z0=nan", "not a finite number"),
        ("", "takes 3 number(s), not 0"),
    ],
)
def test_bad_text_shows_a_clear_line_and_changes_nothing(line, message):
    panel = Panel(Linear())
    panel.field.value = "z0=1"
    panel.field.value = line
    assert message in panel.error and panel.code[0, 0] == 1
    with pytest.raises(ValueError):
        panel.text = line


def test_an_unknown_category_is_named():
    panel = Panel(Blocks())
    panel.field.value = "shape=circle"
    assert "no 'circle'; it has square, ellipse, heart" in panel.error


def test_the_display_bundle_has_a_sheet_that_html_shows_without_a_kernel():
    from nbconvert import HTMLExporter

    panel = Panel(Linear(), title="three")
    bundle = panel._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.widget.model_id
    assert np.array_equal(unpack(base64.b64decode(bundle["image/png"])), panel.sheet())
    cell = nbformat.v4.new_code_cell("panel", outputs=[nbformat.v4.new_output("display_data", data=bundle)])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert bundle["image/png"][:200] in page


def test_the_panel_of_a_renderer_is_the_panel_of_true_factors():
    panel = Panel(Bar())
    panel.controls["way"].value = 1
    panel.controls["x"].value = 3.0
    assert np.array_equal(panel.render(panel.code)[:, 0, 0], np.round(255 * np.exp(-((np.arange(8.0) - 6) ** 2) / 2)))
    assert_shows(panel, panel.code)
    assert panel.text == "way=lying, x=3"


def test_the_panel_of_dsprites():
    shapes = data.load("dsprites")
    panel = Panel(shapes)
    assert list(panel.controls) == ["shape", "scale", "orientation", "x", "y"] and panel.error == ""
    panel.controls["shape"].value = 2
    panel.controls["x"].value = 0.9
    values = shapes.values(panel.code)
    assert values[0, 0] == 2 and abs(values[0, 3] - 0.9) < 1e-6
    assert np.array_equal(panel.render(panel.code), images.to_uint8(shapes.render(values))[0])
    panel.random()
    assert panel.error == ""


def test_large_pictures_and_many_channels():
    assert images.enlarge(np.zeros((5, 300, 200, 3), np.uint8), 256).shape == (5, 300, 200, 3)
    with pytest.raises(ValueError, match="1 or 3"):
        images.to_uint8(torch.zeros(1, 2, 4, 4))
    grey = np.random.default_rng(0).integers(0, 255, (4, 4, 1), np.uint8).repeat(3, 2)
    colour = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)
    for picture in (grey, colour):
        assert np.array_equal(unpack(images.png(picture)), picture)


@pytest.mark.parametrize("name", toys.TOYS)
def test_a_panel_over_every_kind_of_model(name):
    settings, dots = toys.Settings(), toys.Dots()
    base = type("Run", (), {"model": toys.Toy(settings, dots.spec).model})
    model = toys.TOYS[name](settings, dots.spec, base).model
    pictures = dots.sample(3, torch.Generator().manual_seed(0))["x"]
    panel = Panel(model, sources=pictures)
    assert panel.error == "" and list(panel.controls) == list(model.codes.names)
    for block in model.codes.scalars:
        low, high = panel.controls[block.name].min, panel.controls[block.name].max
        panel.controls[block.name].value = low + 0.3 * (high - low)
        assert abs(block.read(panel.code).item() - (low + 0.3 * (high - low))) < 1e-4
    panel.random()
    code, line = panel.code, panel.text
    panel.reset()
    assert torch.allclose(panel.code, models.encode(model, pictures[:1]), atol=1e-5)
    panel.text = line
    assert torch.equal(panel.code, code) and panel.error == ""


def test_a_learned_direction_is_a_slider_over_a_view():
    """A block that reads and writes the whole latent: its code is told by its numbers, and may drift in the others."""
    model = toys.Directions(toys.Settings(), toys.Dots().spec).model
    panel = Panel(model)
    panel.code = [1.0, 0.0, 0.0, 0.0]
    assert abs(panel.controls["zoom"].value - 0.5) < 1e-6 and panel.controls["zoom"].description == "zoom [px]"
    panel.controls["zoom"].value = 1.5
    assert torch.allclose(panel.code, torch.tensor([[1.5, -0.5, 0.5, 0.5]]))
    assert panel.text == "[1.5, -0.5, 0.5, 0.5]"
    panel.text = "zoom=0.25"
    assert abs(panel.controls["zoom"].value - 0.25) < 1e-6


def test_a_slider_is_sent_its_wider_range_before_the_value_beyond_it(monkeypatch):
    """In one message their order would be that of a set: a browser that reads the value first clips it."""
    panel = Panel(Linear())
    slider, sent = panel.controls["z0"], []
    monkeypatch.setattr(type(slider), "send_state", lambda self, key=None: sent.append((self, key)))
    for value, bound in (3.5, "max"), (-3.5, "min"):
        sent.clear()
        panel.text = f"z0={value}"
        assert [key for widget, key in sent if widget is slider] == [bound, "value"]


def test_what_is_no_source_code_or_count_is_told():
    panel = Panel(Linear(), sources=2)
    for call, told in (
        (lambda: panel.pick(-1), "no source -1; there are 2, counted from 0"),
        (lambda: panel.feed("z0", 2), "no source 2; there are 2"),
        (lambda: panel.sheet(-1), "columns must be a whole number of 1 or more, not -1"),
        (lambda: panel.render(None), "codes must be a tensor or an array, not NoneType"),
        (lambda: setattr(panel, "code", "abc"), "codes must be a tensor or an array, not str"),
        (lambda: setattr(panel, "text", 3), "a code is written as text, for example z0=0.5, not int"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    assert torch.equal(panel.code, panel.bases[:1])


def test_a_range_without_end_is_the_blocks_own():
    panel = Panel(Linear(), [{"name": "z0", "low": -np.inf, "high": np.inf}, {"name": "z1", "low": None}])
    assert (panel.controls["z0"].min, panel.controls["z0"].max) == (-2.0, 2.0)
    assert (panel.controls["z1"].min, panel.controls["z1"].max) == (-2.0, 2.0)
