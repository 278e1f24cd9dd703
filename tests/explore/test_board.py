"""The attribute board without a kernel: an oracle always gets the true picture, a blind model does not."""

from __future__ import annotations

import asyncio
import base64
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from explore.models_small import Linear, Quarters
from explore.models_small import pictures as quarter_pictures
from explore.models_tiles import TILES, Blind, Oracle, Tiles, board, providers
from explore.test_panel import unpack

from disentkit import models
from disentkit.data import characters, combinations, fonts
from disentkit.data.base import ArrayData, Renderer
from disentkit.data.factors import FactorSpace, category
from disentkit.errors import UserError
from disentkit.explore import AttributeBoard, frame, images
from disentkit.explore.board import Pick
from disentkit.explore.truth import tuple_words
from disentkit.methods import gzsnet
from disentkit.metrics import synthesise
from disentkit.metrics.synthesis import CAP, psnr


def assert_shows(board: AttributeBoard, code: torch.Tensor) -> None:
    """The board shows the picture that this code (1, D) decodes to, and the true one, each enlarged."""
    assert board.error == ""
    expected = [models.decode(board.model, code), *([] if board.missing else [board.truth_picture()])]
    for widget, picture in zip((board.picture, board.true_image), expected):
        picture, shown = images.to_uint8(picture)[0], unpack(widget.value)
        times = shown.shape[0] // picture.shape[0]
        assert times > 1 and np.array_equal(shown, picture.repeat(times, 0).repeat(times, 1))


# ---- picks


def test_an_oracle_gets_the_true_picture_for_every_pick():
    shown, (x, values) = board(), providers()
    shown._show_slowly = lambda: None  # without an event loop every click would draw the sheet
    assert shown.psnr == CAP and shown.words == tuple_words(Tiles.space, values[0])
    for i, name in itertools.product(range(6), Tiles.space.names):
        shown.buttons[f"{name} from {i + 1}"].click()
        k = Tiles.space.index(name)
        assert shown.wanted[k] == values[i, k] and shown.psnr == CAP and shown.error == ""
        assert torch.equal(shown.synthesis(), shown.truth_picture()) and "PSNR 60 dB or more" in shown.words_line.value
    shown.reset()
    for i, name in enumerate(Tiles.space.names, 1):
        shown.pick(name, i)
    assert torch.equal(shown.wanted, values[[1, 2, 3, 4], [0, 1, 2, 3]])
    codes = shown.model.encode(x)
    mixed = codes[1:2]
    for i, name in enumerate(Tiles.space.names[1:], 2):
        mixed = shown.model.codes.swap(mixed, codes[i : i + 1], name)
    assert_shows(shown, mixed)


def test_a_model_that_cannot_combine_is_told_by_its_psnr():
    shown, (_, values) = board(Blind(), n=12), providers(12)
    shown._show_slowly = lambda: None
    found = []
    for i in range(12):
        shown.pick("background", i)
        error = (shown.synthesis() - Tiles().render(shown.wanted[None])).square().mean()
        assert shown.psnr == pytest.approx(psnr(error).item(), abs=1e-3)
        found.append((values[i, 2].item() == 2, shown.psnr == CAP, shown.psnr < 20))
        assert f"PSNR {shown.psnr:.1f} dB" in shown.words_line.value or shown.psnr == CAP
    assert {*found} == {(True, True, False), (False, False, True)}  # right on blue only


def test_the_synthesis_is_that_which_is_measured():
    """The same picture as `metrics.synthesise` makes of the same providers, for networks too."""
    data = characters.Characters(size=32)
    batch = data.sample(9, torch.Generator().manual_seed(0))
    x, values, names = batch["x"], batch["factors"], data.space.names
    nets = gzsnet.GroupAutoencoder(data.image_shape, names, replace(gzsnet.QUICK, wide=0.25, fc=16))
    shown = AttributeBoard(nets, x, values, data)
    shown._show_slowly = lambda: None
    for k, name in enumerate(names):
        shown.pick(name, k + 1)
    made = synthesise(nets, x[None, 1 : len(names) + 1], names)
    assert torch.allclose(shown.synthesis(), made, atol=1e-5)
    assert 0 < shown.psnr < 30 and torch.equal(shown.wanted, values[range(1, len(names) + 1), range(len(names))])


def test_the_marks_follow():
    shown = board()

    def marked() -> dict[str, str]:
        return {n: b.description for n, b in shown.buttons.items() if " from " in n and b.description != "○"}

    assert marked() == {f"{name} from 1": "●" for name in Tiles.space.names}
    shown.pick("colour", 3)
    assert marked() == {"way from 1": "●", "colour from 4": "●", "background from 1": "●", "x from 1": "●"}
    shown.towards("colour", 5, 0.3)
    assert marked() == {"way from 1": "●", "colour from 4": "●", "colour from 6": "◐", "background from 1": "●",
                        "x from 1": "●"}  # fmt: skip
    assert shown.others["colour"].value == 5 and shown.sliders["colour"].value == pytest.approx(0.3)
    shown.towards("colour", 5, 1)
    assert marked()["colour from 4"] == "◐" and marked()["colour from 6"] == "●"
    shown.pick("colour", 3)
    assert shown.sliders["colour"].value == 0 and "colour from 6" not in marked()


# ---- traversals


def test_a_traversal_goes_the_straight_way_and_has_no_psnr():
    shown, (x, values) = board(), providers()
    codes = shown.model.encode(x)
    other = next(i for i in range(6) if values[i, 3] != values[0, 3])
    assert shown.others["x"].value == other  # what differs is offered
    for t in (0.25, 0.75):
        before = shown.picture.value
        shown.sliders["x"].value = t
        assert shown.state["x"] == Pick(0, other, t) and shown.picture.value != before
        assert_shows(shown, shown.model.codes.write(codes[:1], "x", torch.lerp(codes[0, -1], codes[other, -1], t)))
        assert shown.between == ["x"] and shown.psnr is None
        assert shown.wanted[3] == values[other if t > 0.5 else 0, 3]  # the nearer end
        assert "x: between two values there is no true picture" in shown.words_line.value
        assert f"x {100 * t:.0f} % of the way from picture 1 to picture {other + 1}" in shown.fed
    shown.sliders["x"].value = 1
    assert shown.psnr == CAP and shown.between == [] and shown.wanted[3] == values[other, 3]
    assert f"x from picture {other + 1}" in shown.fed
    shown.others["x"].value = 0
    assert shown.state["x"] == Pick(0, 0, 1.0) and shown.wanted[3] == values[0, 3]


def test_between_pictures_that_agree_the_truth_is_known():
    shown, (_, values) = board(), providers()
    name, same = next((name, i) for k, name in enumerate(Tiles.space.names) for i in range(1, 6)
                      if values[i, k] == values[0, k])  # fmt: skip
    shown.towards(name, same, 0.5)
    assert shown.between == [] and shown.psnr == CAP


def test_a_new_pick_ends_a_traversal_and_keeps_two_ends():
    shown = board()
    shown.towards("way", 4, 0.5)
    shown.pick("way", 4)
    provider, other, t = shown.state["way"]
    assert (provider, t) == (4, 0.0) and other != 4
    one = board(n=1)
    one.random()
    assert one.sliders == {} and one.psnr == CAP and one.sheet().shape[1] > 100


# ---- the sheet, the state, errors


def test_the_sheet_holds_every_traversal(tmp_path):
    shown, (x, _) = board(title="Tiles"), providers()
    shown.pick("colour", 2)
    sheet, tiles = shown.sheet(), 66
    path = shown.save(tmp_path / "sheet.png")
    assert np.array_equal(unpack(path.read_bytes()), sheet)
    left = sheet.shape[1] - 8 * tiles
    start, end = shown.state["x"][:2]
    row = sheet[-tiles:-2]  # of x, the last one
    for step, t in ((0, 0.0), (2, 2 / 7), (7, 1.0)):
        drawn = shown.render(shown.state | {"x": Pick(start, end, t)}).repeat(8, 0).repeat(8, 1)
        assert np.array_equal(row[:, left + step * tiles : left + step * tiles + 64], drawn)
    top = sheet[25:89, left : left + 4 * tiles].reshape(64, 4, tiles, 3)[:, :, :64]
    assert all(np.array_equal(top[:, j], images.to_uint8(x)[i].repeat(8, 0).repeat(8, 1))
               for j, i in enumerate((0, 2, 0, 0)))  # fmt: skip
    with pytest.raises(UserError, match="there is no folder"):
        shown.save(tmp_path / "nowhere" / "sheet.png")
    bundle = shown._repr_mimebundle_()
    assert np.array_equal(unpack(base64.b64decode(bundle["image/png"])), sheet)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.widget.model_id


def test_a_change_decodes_once_and_encodes_never_and_the_sheet_waits_for_rest(monkeypatch):
    monkeypatch.setattr(frame, "REST", 0.05)
    model = Oracle()
    shown = board(model)
    assert model.encoded == 1

    async def drag():
        old, drawn = shown.sheet_picture.value, []
        slow, shown._sheet = shown._sheet, lambda *a: drawn.append(1) or slow(*a)
        for i, t in enumerate((0.2, 0.4, 0.6)):
            decoded, before = model.decoded, shown.words_line.value
            shown.sliders["x"].value = t
            assert model.decoded == decoded + 1 and shown.words_line.value != before
            await asyncio.sleep(0.01)
        decoded = model.decoded
        shown.random()
        assert model.decoded == decoded + 1 and not drawn and shown.sheet_picture.value == old
        await asyncio.sleep(0.3)
        assert len(drawn) == 1 and shown.sheet_picture.value != old

    asyncio.run(drag())
    assert model.encoded == 1 and shown.error == ""


def test_render_is_pure():
    shown = board()
    picture, state = shown.picture.value, shown.state
    one, two = shown.render({"x": 3, "way": Pick(1, 2, 1.0)}), shown.render({"way": 2, "x": (3, 0, 0)})
    assert one.dtype == np.uint8 and one.shape == (8, 8, 3) and np.array_equal(one, two)
    assert shown.picture.value == picture and shown.state == state
    assert np.array_equal(shown.render({}), shown.render(state))


def test_a_broken_decode_shows_its_error_and_the_next_click_works():
    model = Oracle()
    shown = board(model)
    before = shown.picture.value
    model.broken = "no <script> today"
    shown.buttons["x from 3"].click()
    assert shown.error == "RuntimeError: no <script> today" and shown.picture.value == before
    assert "&lt;script&gt;" in shown.error_line.value and "image/png" not in shown._repr_mimebundle_()
    shown.sliders["colour"].value = 0.9
    assert shown.error == "RuntimeError: no <script> today"
    model.broken = None
    shown.sliders["colour"].value = 1.0
    assert shown.error == "" and shown.psnr == CAP and np.array_equal(unpack(shown.sheet_picture.value), shown.sheet())


def test_many_pictures_have_no_column_each():
    shown = board(n=20)
    assert "x from 12" in shown.buttons and "x from 13" not in shown.buttons
    shown.pick("x", 19)
    assert shown.psnr == CAP and "x from picture 20" in shown.fed
    for _ in range(5):
        shown.random()
        assert max(pick.provider for pick in shown.state.values()) < 12  # what is asked for can be seen


X, VALUES = providers()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"model": "a run"}, "a panel takes a model"),
        ({"model": Tiles()}, "Tiles has no encoder, so no block can come from a picture"),
        ({"pictures": 5}, "a board takes pictures \\(n, C, H, W\\) in 0 ... 1, not int"),
        ({"pictures": torch.zeros(2, 12)}, "a board takes pictures .*, not \\(2, 12\\)"),
        ({"pictures": X[:0]}, "sources are empty"),
        ({"pictures": X[:, :, :4]}, "reads images \\(N, 3, 8, 8\\), not \\(6, 3, 4, 8\\)"),
        ({"pictures": 9 * X}, "divide by 255"),
        ({"factors": VALUES[:, :3]}, "factors must be \\(n, 4\\) for way, colour, background, x, not \\(6, 3\\)"),
        ({"factors": VALUES[:5]}, "factors must be \\(6, K\\), a row for each picture, not \\(5, 4\\)"),
        ({"factors": VALUES[0]}, "factors must be \\(6, K\\)"),
        ({"factors": VALUES + 5}, "factor 'way' is .*, outside 0 ... 1"),
        ({"factors": VALUES * torch.nan}, "factor 'way' is nan, outside"),
        ({"factors": "many"}, "factors are a table of numbers \\(n, K\\), not str"),
        ({"truth": fonts.Fonts(32)}, "the truth draws pictures \\(3, 32, 32\\), the model \\(3, 8, 8\\)"),
        ({"truth": ArrayData(X, VALUES)}, "the truth is a renderer of the data, such as fonts, not ArrayData"),
        ({"seen": 0.2}, "seen is a law with a rule, or a rule values -> bool, not float"),
        ({"seen": combinations.held_out(toys.Dots.space)}, "the rule of seen is about FactorSpace\\(kind 2"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_what_does_not_fit(given, message):
    with pytest.raises(ValueError, match=message) as told:
        AttributeBoard(**({"model": Oracle(), "pictures": X, "factors": VALUES, "truth": TILES} | given))
    assert "\n" not in str(told.value)


def test_a_model_without_a_block_named_after_an_attribute():
    class Grey(Renderer):
        image_shape, space = (1, 16, 16), FactorSpace([category("hair", "none", "long")])

    told = "no block is named after an attribute \\(hair\\); there are f1, f2, f3, f4"
    with pytest.raises(ValueError, match=told):
        AttributeBoard(Quarters(), quarter_pictures(), torch.zeros(4, 1), Grey())
    assert AttributeBoard(Quarters(), quarter_pictures()).missing and AttributeBoard(Linear(), torch.rand(2, 1, 8, 8))


def test_rows_pictures_and_shares_that_are_not_there():
    shown = board()
    for call, told in (
        (lambda: shown.pick("hair", 0), "no block 'hair'; there are way, colour, background, x"),
        (lambda: shown.pick("way", 6), "no source 6; there are 6, counted from 0"),
        (lambda: shown.towards("way", -1, 0.5), "no source -1"),
        (lambda: shown.towards("way", 1, 1.5), "t is a number in 0 ... 1, the share of the way, not 1.5"),
        (lambda: shown.towards("way", 1, "half"), "t is a number in 0 ... 1, the share of the way, not 'half'"),
        (lambda: shown.towards("way", 1, float("nan")), "t is a number in 0 ... 1"),
        (lambda: shown.render([("way", 0)]), "a state is a mapping {row: pick}, as board.state, not list"),
        (lambda: shown.render({"way": (0, 1, 7)}), "t is a number in 0 ... 1"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    assert shown.state == board().state and shown.error == ""
