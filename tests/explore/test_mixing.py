"""The mixing board without a kernel: every quarter of the picture comes from the picture that was picked for it."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from explore.models_mixing import FACTORS, Encoded, Feature, Generator, pictures, quarters
from explore.models_small import Linear, Quarters
from explore.test_panel import unpack
from PIL import Image

from disentkit import models
from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError
from disentkit.explore import MixingBoard, frame, images, sweep_sheet
from disentkit.methods import finegan, mixnmatch

X = pictures()
FIRST = dict(zip(FACTORS, range(4)))
POSE = "feature mode takes shape and pose from one picture"


def board(n: int = 5, **kwargs) -> MixingBoard:
    return MixingBoard(kwargs.pop("model", None) or Encoded(), X[:n], **kwargs)


def from_whom(picture: np.ndarray, sources: torch.Tensor = X) -> list[list[int]]:
    """By quarter of a picture (16, 16, 3) uint8, from which sources it can have come."""
    here = quarters(torch.tensor(np.array(picture)).permute(2, 0, 1)[None] / 255)[0]
    near = (quarters(sources) - here).abs().amax(2) < 0.51 / 255  # (n, 4)
    return [column.nonzero()[:, 0].tolist() for column in near.T]


def shown(board: MixingBoard) -> np.ndarray:
    """What the board shows, (16, 16, 3), after a look at how it was enlarged."""
    picture = unpack(board.picture.value)
    assert picture.shape == (256, 256, 3) and np.array_equal(picture, picture[::16, ::16].repeat(16, 0).repeat(16, 1))
    assert board.error == ""
    return picture[::16, ::16]


def tiles(sheet: np.ndarray, n: int, side: int = 64) -> np.ndarray:
    """The last n tiles (n, 16, 16, 3) of the last row of a sheet."""
    row = sheet[-side - 2 : -2]
    left = (row < 255).any((0, 2)).nonzero()[0].max() + 3 - n * (side + 2)  # a title can be wider than the row
    return np.stack([row[2::4, left + i * (side + 2) : left + i * (side + 2) + side][:, 2::4] for i in range(n)])


def file(picture, name: str = "own.png", kind: str = "PNG") -> dict:
    """What an upload holds."""
    content = picture
    if not isinstance(picture, bytes):
        buffer = io.BytesIO()
        Image.fromarray(images.to_uint8(picture[None])[0]).save(buffer, kind)
        content = buffer.getvalue()
    about = {"name": name, "type": "image/png", "size": len(content), "last_modified": datetime.now(UTC)}
    return about | {"content": memoryview(content)}


# ---- picks


def test_every_factor_starts_with_a_picture_of_its_own():
    mixed = board()
    assert mixed.state == {**FIRST, "mode": "code"} and mixed.words in mixed.words_line.value
    assert mixed.words == "background from picture 1, shape from 2, texture from 3, pose from 4"
    found = from_whom(shown(mixed))
    assert all(k in found[k] for k in range(4)) and [len(f) for f in found].count(1) >= 2
    assert np.array_equal(shown(mixed), mixed.render(mixed.state))
    assert board(n=2).state == {"background": 0, "shape": 1, "texture": 0, "pose": 1, "mode": "code"}


def test_a_click_takes_one_factor_and_its_blocks_travel_together():
    mixed, codes = board(), Encoded().encode(X)
    state = dict(FIRST)
    for factor, i in (("background", 4), ("pose", 0), ("shape", 4), ("texture", 4), ("background", 2)):
        mixed.buttons[f"{factor} from {i + 1}"].click()
        state[factor] = i
        assert mixed.state == state | {"mode": "code"}
        assert all(i in found for i, found in zip(state.values(), from_whom(shown(mixed)), strict=True))
    code = codes[[2]].clone()
    for name, i in (("p", 4), ("c", 4), ("z", 0)):
        code = Encoded.codes.write(code, name, Encoded.codes.read(codes[i : i + 1], name))
    assert np.array_equal(shown(mixed), images.to_uint8(Encoded().decode(code))[0])  # b and z_b are both of picture 3


def test_one_picture_can_feed_all_factors():
    mixed = board()
    for factor in FACTORS:
        mixed.pick(factor, 3)
    assert np.array_equal(shown(mixed), images.to_uint8(X[3:4])[0])
    assert mixed.words == "background from picture 4, shape from 4, texture from 4, pose from 4"


def test_the_marks_follow():
    mixed = board()

    def marked() -> set[str]:
        return {name for name, button in mixed.buttons.items() if button.description == "●"}

    assert marked() == {"background from 1", "shape from 2", "texture from 3", "pose from 4"}
    mixed.pick("texture", 4)
    assert marked() == {"background from 1", "shape from 2", "texture from 5", "pose from 4"}
    assert mixed.buttons["texture from 3"].tooltip == "texture from picture 3"


def test_random_and_reset():
    one, two, seen = board(seed=5), board(seed=5), set()
    for _ in range(8):
        one.random()
        two.buttons["random"].click()
        assert one.state == two.state
        seen.add(tuple(one.state.values()))
    assert len(seen) > 5 and max(max(s[:4]) for s in seen) == 4
    one.reset()
    assert one.state == {**FIRST, "mode": "code"} and np.array_equal(shown(one), board().render({}))


def test_render_is_pure():
    mixed = board(feature=Feature())
    picture, state = mixed.picture.value, mixed.state
    one, two = mixed.render({"pose": 0, "mode": "feature"}), mixed.render({"pose": 0})
    assert not np.array_equal(one, two) and np.array_equal(one, mixed.render({"pose": 3, "mode": "feature"}))
    assert mixed.picture.value == picture and mixed.state == state and np.array_equal(shown(mixed), mixed.render(state))
    assert one.dtype == np.uint8 and one.shape == (16, 16, 3)


def test_an_event_costs_one_decode_and_the_strip_waits_for_rest(monkeypatch):
    monkeypatch.setattr(frame, "REST", 0.05)
    model = Encoded()
    mixed = board(model=model)
    assert model.encoded == [5]

    async def click():
        mixed.vary.value = "texture"
        await asyncio.sleep(0.2)
        old, decoded = mixed.strip_image.value, model.decoded
        assert old and mixed.strip_image.layout.display is None
        for i in range(1, 4):
            mixed.buttons[f"shape from {i}"].click()
            assert model.decoded == decoded + i and mixed.strip_image.value == old
        mixed.random()
        assert model.decoded == decoded + 4
        await asyncio.sleep(0.3)
        assert mixed.strip_image.value != old and model.decoded == decoded + 5
        mixed.vary.value = ""
        mixed.intermediate.value = True
        decoded, staged = model.decoded, model.staged
        mixed.pick("pose", 1)
        assert (model.decoded, model.staged) == (decoded, staged + 1)
        await asyncio.sleep(0.2)

    asyncio.run(click())
    assert model.encoded == [5] and mixed.error == "" and mixed.strip_image.layout.display == "none"


# ---- feature mode


def test_feature_mode_takes_shape_and_pose_from_one_picture_and_says_so():
    feature = Feature()
    mixed = board(feature=feature)
    assert feature.encoded == []
    code = shown(mixed)
    mixed.switch.value = "feature"
    assert feature.encoded == [5] and mixed.state == {**FIRST, "mode": "feature"}
    assert mixed.words == "background from picture 1, shape and pose from 2, texture from 3" in mixed.words_line.value
    found = from_whom(shown(mixed))
    assert 0 in found[0] and 1 in found[1] and 2 in found[2] and 1 in found[3] and 3 not in found[3]
    for factor, (label, buttons, note) in mixed._lines.items():
        grey = factor == "pose"
        assert label.value == ("shape and pose" if factor == "shape" else factor)
        assert [b.disabled for b in buttons.children] == 5 * [grey] and note.children[1].value == (POSE if grey else "")
        assert note.layout.display == (None if grey else "none") and bool(label.style.text_color) == grey
    mixed.buttons["shape from 5"].click()
    found = from_whom(shown(mixed))
    assert 4 in found[1] and 4 in found[3]
    with pytest.raises(ValueError, match=f"'pose' feeds nothing now: {POSE}"):
        mixed.pick("pose", 0)
    with pytest.raises(ValueError, match=POSE):
        mixed.sweep("pose")
    mixed.pick("shape and pose", 1)
    mixed.mode = "code"
    assert np.array_equal(shown(mixed), code) and mixed.switch.value == "code"
    assert not any(button.disabled for button in mixed.buttons.values())
    mixed.mode = "feature"
    assert feature.encoded == [5]


def test_feature_mode_leaves_the_pick_of_a_greyed_row():
    mixed = board(feature=Feature(), seed=1)
    mixed.mode = "feature"
    states = []
    for _ in range(10):
        mixed.random()
        states.append(mixed.state)
    assert {s["pose"] for s in states} == {3} and len({s["shape"] for s in states}) > 2
    assert mixed.buttons["pose from 4"].description == "●"


def test_a_mode_that_fails_changes_nothing():
    class Broken(Feature):
        def encode(self, x):
            raise RuntimeError("no memory left")

    mixed = board(feature=Broken())
    before = mixed.picture.value
    mixed.switch.value = "feature"
    assert mixed.error == "RuntimeError: no memory left" and mixed.switch.value == mixed.mode == "code"
    assert mixed.picture.value == before and not mixed.buttons["pose from 1"].disabled
    mixed.buttons["pose from 1"].click()
    assert mixed.error == "" and mixed.picture.value != before
    known = "a mode is 'code' or 'feature', not "
    for mode, told in (("both", f"{known}'both'"), (1, known), (None, f"{known}None")):
        with pytest.raises(ValueError, match=told):
            mixed.mode = mode
    with pytest.raises(ValueError, match="no feature model was given, so there is no feature mode"):
        board().mode = "feature"
    assert board().switch is None


def test_the_list_of_sweeps_follows_the_mode():
    mixed = board(feature=Feature())
    mixed.vary.value = "shape"
    mixed.mode = "feature"
    assert mixed.vary.value == "shape" and np.array_equal(unpack(mixed.strip_image.value), mixed.sweep("shape"))
    assert [label for label, _ in mixed.vary.options] == ["none", "background", "shape and pose", "texture"]
    mixed.mode = "code"
    mixed.vary.value = "pose"
    mixed.mode = "feature"
    assert mixed.vary.value == "" and mixed.strip_image.layout.display == "none" and mixed.error == ""


# ---- intermediate pictures, sweeps, sheets


def test_intermediate_pictures_come_on_demand():
    mixed = board(feature=Feature())
    assert mixed.stages_image.layout.display == "none" and mixed.model.staged == 0
    mixed.intermediate.value = True
    assert mixed.stages_image.layout.display is None
    assert np.array_equal(unpack(mixed.stages_image.value), mixed.stages_picture())
    parts = mixed.stages()
    assert list(parts) == ["background", "parent_foreground", "parent_mask", "parent", "child_foreground", "child_mask",
                           "child"]  # fmt: skip
    assert np.array_equal(images.to_uint8(parts["child"])[0], shown(mixed))
    sheet = mixed.stages_picture()
    assert sheet.shape[1] >= 7 * 128
    mask = images.to_uint8(parts["child_mask"])[0].repeat(8, 0).repeat(8, 1)
    windows = (sheet[2:130, left : left + 128] for left in range(sheet.shape[1] - 127))
    assert sum(np.array_equal(window, mask) for window in windows) == 1
    old = mixed.stages_image.value
    mixed.mode = "feature"
    assert mixed.stages_image.value != old and np.array_equal(images.to_uint8(mixed.stages()["child"])[0], shown(mixed))
    mixed.intermediate.value = False
    assert mixed.stages_image.layout.display == "none"


def test_a_model_without_stages_has_no_intermediate_pictures():
    class Plain(Encoded):
        stages = None

    mixed = board(model=Plain(), feature=Feature())
    with pytest.raises(ValueError, match="Plain has no stages, so there are no intermediate pictures"):
        mixed.stages_picture()
    mixed.intermediate.value = True
    assert mixed.error == "" and mixed.stages_image.layout.display == "none"
    mixed.mode = "feature"
    assert mixed.stages_image.layout.display is None


@pytest.mark.parametrize("factor", FACTORS)
def test_a_sweep_takes_one_factor_from_each_picture(factor):
    mixed = board()
    mixed.random()
    drawn = tiles(mixed.sweep(factor), 5)
    for i in range(5):
        assert np.array_equal(drawn[i], mixed.render(mixed.state | {factor: i}))
    mixed.vary.value = factor
    assert np.array_equal(unpack(mixed.strip_image.value), mixed.sweep(factor))
    mixed.pick(factor, 0)
    assert np.array_equal(unpack(mixed.strip_image.value), mixed.sweep(factor))


def test_the_sheet_is_that_of_the_sweeps_and_is_saved(tmp_path, monkeypatch):
    mixed = board(title="Quarters", feature=Feature())
    mixed.pick("shape", 4)
    sheet = mixed.sheet()
    assert np.array_equal(sheet, sweep_sheet(Encoded(), X, FIRST | {"shape": 4}, "Quarters"))
    assert not np.array_equal(sheet, sweep_sheet(Encoded(), X)) and np.array_equal(
        board().sheet(), sweep_sheet(Encoded(), X)
    )
    assert np.array_equal(tiles(sheet, 5), [mixed.render(mixed.state | {"pose": i}) for i in range(5)])
    assert np.array_equal(unpack(mixed.save(tmp_path / "a.png").read_bytes()), sheet)
    with pytest.raises(UserError, match="there is no folder"):
        mixed.save(tmp_path / "nowhere" / "a.png")
    bundle = mixed._repr_mimebundle_()
    assert np.array_equal(unpack(base64.b64decode(bundle["image/png"])), sheet)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == mixed.widget.model_id

    monkeypatch.chdir(tmp_path)
    mixed.buttons["save"].click()
    mixed.mode = "feature"
    mixed.buttons["save"].click()
    assert "saved the sheet as mix-1.png" in mixed.words_line.value and mixed.error == ""
    assert np.array_equal(unpack((tmp_path / "mix.png").read_bytes()), sheet)
    assert np.array_equal(unpack((tmp_path / "mix-1.png").read_bytes()), mixed.sheet())
    mixed.pick("shape", 1)
    assert "saved" not in mixed.words_line.value


# ---- own pictures


def test_an_upload_gets_a_column_and_changes_no_pick():
    model, feature = Encoded(), Feature()
    mixed, own = board(model=model, feature=feature), pictures(7)[6]
    before, state = mixed.picture.value, mixed.state
    mixed.upload.value = (file(own, "my <cat>.png"),)
    assert mixed.error == "" and mixed.upload.value == () and mixed.state == state and mixed.picture.value == before
    assert "added &#x27;my &lt;cat&gt;.png&#x27; as picture 6" in mixed.words_line.value
    assert len(mixed._head.children) == 6 and model.encoded == [5, 1] and feature.encoded == []
    sources = torch.cat([X, own[None]])
    mixed.buttons["texture from 6"].click()
    mixed.buttons["pose from 6"].click()
    found = from_whom(shown(mixed), sources)
    assert mixed.words == "background from picture 1, shape from 2, texture from 6, pose from 6"
    assert 0 in found[0] and 1 in found[1] and 5 in found[2] and 5 in found[3]
    assert "added" not in mixed.words_line.value and tiles(mixed.sheet(), 6).shape[0] == 6
    mixed.mode = "feature"
    assert feature.encoded == [6] and mixed.buttons["pose from 6"].disabled
    mixed.upload.value = (file(own), file(X[0], "twin.jpg", "JPEG"))
    assert feature.encoded == [6, 1, 1] and model.encoded == [5, 1, 1, 1] and len(mixed._head.children) == 8
    assert mixed.buttons["pose from 7"].disabled and not mixed.buttons["shape from 7"].disabled
    mixed.buttons["shape from 7"].click()
    assert np.array_equal(quarters(torch.tensor(np.array(shown(mixed))).permute(2, 0, 1)[None])[0, 1::2] / 255,
                          quarters(own[None])[0, 1::2].mul(255).round() / 255)  # fmt: skip


def test_a_bad_upload_is_named_and_nothing_is_lost():
    model = Encoded()
    mixed = board(model=model)
    picture, state, codes = mixed.picture.value, mixed.state, mixed.sources.codes
    mixed.upload.value = (file(b"dear diary", "diary.png"),)
    assert (
        mixed.error == "UserError: 'diary.png' is no picture that can be read; PNG, JPEG, WebP, BMP, GIF and TIFF can"
    )
    assert "role='alert'" in mixed.error_line.value and mixed.upload.value == ()
    assert (mixed.picture.value, mixed.state, len(mixed._head.children)) == (picture, state, 5)
    assert torch.equal(mixed.sources.codes, codes) and model.encoded == [5]
    mixed.upload.value = (file(b"", "none.png"), file(X[0], "good.png"), file(b"\x89PNG\r\n", "half.png"))
    assert "'none.png' is no picture" in mixed.error and "'half.png' is no picture" in mixed.error
    assert "\n" not in mixed.error and "good" not in mixed.error and len(mixed._head.children) == 6
    mixed.buttons["pose from 6"].click()
    assert mixed.error == "" and mixed.state["pose"] == 5


def test_a_model_that_cannot_read_an_upload_loses_nothing():
    class Shy(Encoded):
        def encode(self, x):
            if self.encoded:
                raise RuntimeError("no more")
            return super().encode(x)

    mixed = board(model=Shy())
    mixed.upload.value = (file(X[0]),)
    assert mixed.error == "RuntimeError: no more" and len(mixed.sources.codes) == len(mixed._head.children) == 5
    assert mixed.upload.value == ()
    feature = Feature()
    mixed = board(feature=feature)
    mixed.mode = "feature"
    feature.encode = Shy.encode.__get__(feature, Shy)
    mixed.upload.value = (file(X[0]),)
    assert mixed.error == "RuntimeError: no more" and len(mixed.sources.codes) == len(mixed._head.children) == 5
    mixed.buttons["shape from 1"].click()
    assert mixed.error == "" and mixed.render(mixed.state).shape == (16, 16, 3)


def test_pictures_can_be_added_until_the_board_is_full(tmp_path):
    mixed = MixingBoard(Encoded(), pictures(10))
    path = tmp_path / "eleven.png"
    Image.fromarray(images.to_uint8(X[:1])[0]).save(path)
    assert mixed._full.layout.display == "none" and not mixed.upload.disabled
    assert mixed.add_picture(path) == 10 and "added &#x27;eleven.png&#x27; as picture 11" in mixed.words_line.value
    assert mixed.add_picture(X[1]) == 11 and "added the picture as picture 12" in mixed.words_line.value
    assert torch.equal(mixed._pictures[11], X[1]) and mixed.upload.disabled and mixed._full.layout.display is None
    with pytest.raises(ValueError, match="the board is full: it holds 12 pictures at most"):
        mixed.add_picture(X[2])
    with pytest.raises(UserError, match="there is no file 'none.png'"):
        board().add_picture(tmp_path / "none.png")
    assert mixed.state == {**FIRST, "mode": "code"}


# ---- generators without an encoder


def test_a_generator_mixes_draws_and_refuses_uploads():
    mixed, again = MixingBoard(Generator(), 6, seed=3), MixingBoard(Generator(), 6, seed=3)
    assert torch.equal(mixed.sources.codes, again.sources.codes)
    assert not torch.equal(mixed.sources.codes, MixingBoard(Generator(), 6).sources.codes)
    drawn = Generator().decode(mixed.sources.codes)
    assert np.array_equal(mixed.sources.thumbs, images.to_uint8(drawn))
    mixed.pick("pose", 5)
    found = from_whom(shown(mixed), drawn)
    assert 0 in found[0] and 1 in found[1] and 2 in found[2] and 5 in found[3]
    told = "Generator has no encoder, so its sources are draws from the prior"
    with pytest.raises(ValueError, match=told):
        mixed.add_picture(X[0])
    assert mixed.upload.disabled and mixed._full.children[1].value == f"no own pictures: {told}"
    mixed.upload.value = (file(X[0]),)
    assert mixed.error == f"ValueError: {told}" and len(mixed.sources.codes) == 6
    with pytest.raises(ValueError, match="Generator has no encoder, so it reads no pictures; give codes"):
        MixingBoard(Generator(), X)
    feature = Feature()
    mixed = MixingBoard(Generator(), 3, feature)
    mixed.mode = "feature"
    assert feature.encoded == [3] and 1 in from_whom(shown(mixed), mixed._pictures)[3]


@pytest.mark.parametrize("method", [finegan, mixnmatch])
def test_the_board_mixes_what_the_methods_make(method):
    settings = replace(method.QUICK, wide=0.25)
    shape = (3, settings.size, settings.size)
    torch.manual_seed(0)
    model = (method.StagedGenerator if method is finegan else method.MixNMatchModel)(shape, settings)
    sources = 4 if method is finegan else torch.rand(4, *shape)
    mixed = MixingBoard(model, sources)
    assert mixed.rows == FACTORS and mixed.error == ""
    mixed.pick("texture", 0)
    mixed.intermediate.value = True
    codes = mixed.sources.codes
    code = codes[:1]
    for block, i in (("p", 1), ("c", 0), ("z", 3)):
        code = model.codes.swap(code, codes[i : i + 1], block)
    assert np.array_equal(mixed.render(mixed.state), images.to_uint8(models.decode(model, code))[0])
    assert mixed.error == "" and list(mixed.stages())[-1] == "child" and mixed.sheet().shape[1] > 4 * settings.size


# ---- errors


def test_a_broken_decode_shows_its_error_and_the_next_click_works():
    model = Encoded()
    mixed = board(model=model)
    before, model.broken = mixed.picture.value, "no <script> today"
    mixed.buttons["pose from 3"].click()
    assert mixed.error == "RuntimeError: no <script> today" and mixed.picture.value == before
    assert "&lt;script&gt;" in mixed.error_line.value and "image/png" not in mixed._repr_mimebundle_()
    model.broken = None
    mixed.buttons["pose from 1"].click()
    assert np.array_equal(shown(mixed), mixed.render(FIRST | {"pose": 0}))


class Other(Feature):
    codes = CodeSpace([Block("a", "free", (4,), picker="age"), Block("b", "free", (2,), picker="hair")])


class Wide(Feature):
    image_shape = (3, 32, 32)


class Unread(Encoded):
    """Its encoder reads no block that has a picker."""

    codes = CodeSpace([Block("p", "onehot", (3,), inferred=False, picker="shape")])

    def encode(self, x):
        return self.codes.centre(len(x))


class Silent(Generator):
    codes = Feature.codes


@pytest.mark.parametrize(
    "given, message",
    [
        ({"model": "a run"}, "a panel takes a model"),
        ({"model": Quarters(), "pictures": torch.rand(3, 1, 16, 16)}, "no block of Quarters has a picker"),
        ({"model": Linear(), "pictures": 4}, "no block of Linear has a picker"),
        ({"model": Unread()}, "no encoder reads a block of Unread, so there is nothing to mix"),
        ({"pictures": torch.rand(2, 3, 8, 8)}, "reads images \\(N, 3, 16, 16\\), not \\(2, 3, 8, 8\\)"),
        ({"pictures": 9 * X}, "divide by 255"),
        ({"pictures": X[:0]}, "sources are empty"),
        ({"pictures": X * torch.nan}, "NaN or infinite"),
        ({"pictures": "cats"}, "sources are pictures \\(n, C, H, W\\) or codes"),
        ({"pictures": pictures(13)}, "a board shows at most 12 pictures, not 13; leave some out"),
        ({"feature": "a run"}, "a panel takes a model"),
        ({"feature": Wide()}, "the feature model makes pictures \\(3, 32, 32\\), the model \\(3, 16, 16\\)"),
        ({"feature": Silent()}, "the feature model Silent has no encoder"),
        ({"feature": Other()}, "no row feeds 'age' of the feature model Other; the model's rows are background, shape"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_what_does_not_fit(given, message):
    with pytest.raises(ValueError, match=message) as told:
        MixingBoard(**({"model": Encoded(), "pictures": X} | given))
    assert "\n" not in str(told.value)


def test_factors_and_pictures_that_are_not_there():
    mixed = board()
    for call, told in (
        (lambda: mixed.pick("hair", 0), "no factor 'hair'; there are background, shape, texture, pose"),
        (lambda: mixed.pick("pose", 5), "no source 5; there are 5, counted from 0"),
        (lambda: mixed.pick("pose", "one"), "no source 'one'"),
        (lambda: mixed.sweep("hair"), "no factor 'hair'"),
        (lambda: mixed.render({"hair": 0}), "no row 'hair'; there are background"),
        (lambda: mixed.render({"pose": -1}), "no source -1; there are 5, counted from 0"),
        (lambda: mixed.render({"pose": True}), "no source True"),
        (lambda: mixed.render([0, 1]), "a state is a mapping {row: picture}, not list"),
        (lambda: mixed.render({"mode": "none"}), "a mode is 'code' or 'feature', not 'none'"),
        (lambda: mixed.render({"mode": None}), "a mode is 'code' or 'feature', not None"),
        (lambda: mixed.pick([], 0), "no factor '[]'"),
        (lambda: mixed.render({"mode": "feature"}), "no feature model was given"),
        (lambda: sweep_sheet(Encoded(), X, {"pose": 9}), "no source 9; there are 5"),
        (lambda: sweep_sheet(Quarters(), torch.rand(3, 1, 16, 16)), "no block of Quarters has a picker"),
        (lambda: sweep_sheet(Generator(), X), "has no encoder"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)):
            call()
    assert mixed.state == board().state and mixed.error == ""
