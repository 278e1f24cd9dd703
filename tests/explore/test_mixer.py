"""The block explorer without a kernel: buttons are clicked, and the picture is that of the code mixed by the book."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest
import torch
import toys
from explore.models_small import QUARTER_STATS, Bar, Blocks, Linear, Quarters, Scene, pictures
from explore.test_panel import unpack

from disentkit import models
from disentkit.codes import CodeSpace
from disentkit.errors import UserError
from disentkit.explore import Mixer, Panel, frame, images, swap_sheets


def assert_shows(mixer: Mixer, code: torch.Tensor) -> None:
    """The mixer holds this code (1, D), and shows the picture it decodes to, enlarged by a whole number."""
    assert mixer.error == "" and torch.equal(mixer.code, code)
    picture = images.to_uint8(models.decode(mixer.model, code))[0]
    shown = unpack(mixer.picture.value)
    times = shown.shape[0] // picture.shape[0]
    assert times > 1 and np.array_equal(shown, picture.repeat(times, 0).repeat(times, 1))


def test_a_click_feeds_one_block_from_one_picture():
    model, x = Quarters(), pictures()
    mixer, codes = Mixer(model, x), model.encode(x)
    assert_shows(mixer, codes[:1])
    before = mixer.picture.value
    mixer.buttons["f2 from 3"].click()
    assert mixer.state == {"f1": 0, "f2": 2, "f3": 0, "f4": 0} and mixer.picture.value != before
    assert_shows(mixer, model.codes.swap(codes[:1], codes[2:3], "f2"))
    drawn = mixer.render(mixer.state)[..., 0]  # a quarter of picture 3 within picture 1
    whole = (255 * x).round().byte().numpy()[:, 0]
    assert np.array_equal(drawn[:8, 8:], whole[2, :8, 8:]) and np.array_equal(drawn[8:], whole[0, 8:])
    mixer.feed("f2", 0)  # back again: Python counts from 0
    assert mixer.picture.value == before and mixer.state == dict.fromkeys(model.codes.names, 0)


def test_the_marks_follow():
    mixer = Mixer(Quarters(), pictures())

    def marked() -> set[str]:
        return {name for name, button in mixer.buttons.items() if button.button_style == "info"}

    assert marked() == {"f1 from 1", "f2 from 1", "f3 from 1", "f4 from 1"}
    mixer.buttons["f2 from 3"].click()
    mixer.feed("f4", 1)
    assert marked() == {"f1 from 1", "f2 from 3", "f3 from 1", "f4 from 2"}
    assert mixer.buttons["f2 from 3"].description == "●" and mixer.buttons["f2 from 1"].description == "○"


def test_all_but_one_and_all():
    mixer, x = Mixer(Quarters(), pictures()), pictures()
    codes = mixer.model.encode(x)
    assert [label for label, _ in mixer.mode.options] == ["this block", "all but this block", "all blocks"]
    assert mixer.buttons["f2 from 4"].tooltip == "f2 from picture 4"
    mixer.mode.value = 1
    assert mixer.buttons["f2 from 4"].tooltip == "all but f2 from picture 4"
    mixer.buttons["f2 from 4"].click()
    assert_shows(mixer, mixer.model.codes.swap(codes[3:], codes[:1], "f2"))
    mixer.mode.value = 2
    assert mixer.buttons["f2 from 3"].tooltip == "all blocks from picture 3"
    mixer.buttons["f2 from 3"].click()
    assert_shows(mixer, codes[2:3])


def test_a_locked_block_never_changes():
    mixer = Mixer(Quarters(), pictures())
    mixer.feed("f3", 2)
    mixer.locks["f3"].value = True
    assert (
        mixer.locked == ("f3",) and mixer.locks["f3"].description == "locked" and mixer.words.endswith("; locked: f3")
    )
    for change in (lambda: mixer.feed("f3", 1), lambda: mixer.feed_all(3), lambda: mixer.feed_all_but("f1", 1),
                   mixer.random, mixer.reset, mixer.buttons["f3 from 4"].click):  # fmt: skip
        change()
        assert mixer.state["f3"] == 2 and mixer.error == ""
    assert mixer.state == {"f1": 0, "f2": 0, "f3": 2, "f4": 0}
    mixer.lock("f1")
    assert mixer.locks["f1"].value and mixer.locked == ("f1", "f3")
    mixer.buttons["unlock all"].click()
    assert mixer.locked == () and not mixer.locks["f3"].value and mixer.locks["f3"].description == "lock"
    mixer.reset()
    assert set(mixer.state.values()) == {0}
    mixer.lock("f1")
    mixer.lock("f1", on=False)
    assert mixer.locked == ()


def test_words():
    mixer = Mixer(Quarters(), pictures(), QUARTER_STATS)
    assert [group.words for group in mixer.groups] == ["f3 hair", "f1", "f2", "f4"]  # skin is hardly followed
    assert mixer.words == "all 4 blocks from picture 1"
    mixer.feed("f3", 2)
    assert mixer.words == "f3 hair from picture 3, the other 3 blocks from picture 1"
    mixer.feed("f2", 3)
    assert mixer.words == "f3 hair from picture 3, f2 from picture 4, f1 and f4 from picture 1"
    assert f">{mixer.words}<" in mixer.words_line.value and mixer.words in repr(mixer)
    mixer.feed_all_but("f1", 2)
    assert mixer.words == "f1 from picture 1, the other 3 blocks from picture 3"
    mixer.lock("f2")
    mixer.lock("f3")
    assert mixer.words.endswith("; locked: f3 hair and f2") and "locked: f3 hair and f2" in mixer.words_line.value
    assert Mixer(Bar(), 2).words == "way and x from picture 1"
    named = [{"name": "x", "importance": 1.0, "factor": "x", "correlation": 1.0}]
    assert Mixer(Bar(), 2, named).words == "x and way from picture 1"  # no block is called twice by one name


def test_a_change_renders_once_and_encodes_never():
    model = Quarters()
    mixer = Mixer(model, pictures())
    rendered, render = [], mixer.render
    mixer.render = lambda state: rendered.append(1) or render(state)
    assert model.encoded == 1
    for times, change in enumerate((mixer.random, mixer.buttons["reset"].click, lambda: mixer.feed_all(2)), 1):
        change()
        assert len(rendered) == times
    assert model.encoded == 1
    decoded = model.decoded
    mixer.feed("f1", 1)  # the sheet is that of f1 already
    assert model.decoded == decoded + 1


def test_render_is_pure():
    mixer = Mixer(Quarters(), pictures())
    shown, state = mixer.picture.value, mixer.state
    one, two = mixer.render({"f1": 3, "f4": 2}), mixer.render({"f4": 2, "f1": 3, "f2": 0})
    assert one.dtype == np.uint8 and one.shape == (16, 16, 3) and np.array_equal(one, two)
    assert mixer.picture.value == shown and mixer.state == state
    assert np.array_equal(mixer.render({}), mixer.render(state))
    mixer.feed("f1", 3)
    mixer.feed("f4", 2)
    assert np.array_equal(mixer.render(mixer.state), one)


def test_random_draws_with_the_mixers_own_generator():
    states = []
    for seed in (1, 1, 2):
        mixer, before = Mixer(Quarters(), pictures(), seed=seed), torch.get_rng_state()
        for _ in range(3):
            mixer.buttons["random"].click()
        assert torch.equal(torch.get_rng_state(), before)
        states.append(mixer.state)
        assert_shows(mixer, mixer.code)
    assert states[0] == states[1] != states[2]


def test_blocks_of_one_picker_travel_together():
    mixer = Mixer(Scene(), 5)
    codes = mixer.sources.codes
    assert list(mixer.state) == ["b", "shape", "jitter"] and mixer.groups[0].label == "background: b, z"
    for i, name in enumerate(("b", "z", "background"), 1):  # a block's name or the picker's
        mixer.feed(name, i)
        assert_shows(mixer, mixer.model.codes.swap(codes[:1], codes[i : i + 1], ["b", "z"]))
    assert mixer.words == "background from picture 4, shape and jitter from picture 1"
    mixer.lock("z")
    mixer.feed_all(1)
    assert_shows(mixer, mixer.model.codes.swap(codes[1:2], codes[3:4], ["b", "z"]))
    assert np.array_equal(mixer.sheet("z"), mixer.sheet("background"))


def test_what_no_encoder_reads_is_drawn_again():
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mixer = Mixer(Scene(), x)
    space, codes = mixer.model.codes, models.encode(Scene(), x)
    assert "jitter from 1" not in mixer.buttons and {"draw jitter", "draw b"} <= mixer.buttons.keys()
    assert mixer.words == "jitter at the middle of the prior, background and shape from picture 1"
    assert_shows(mixer, codes[:1])
    mixer.buttons["draw jitter"].click()
    first = mixer.code
    assert [b.name for b in space if not torch.equal(b.read(first), b.read(codes[:1]))] == ["jitter"]
    assert mixer.words.startswith("jitter drawn from the prior, ")
    mixer.feed_all(2)  # pictures say nothing of it
    assert_shows(mixer, space.swap(codes[2:], first, "jitter"))
    mixer.draw_again("jitter")
    assert not torch.equal(space.read(mixer.code, "jitter"), space.read(first, "jitter"))

    mixer.draw_again("b")  # of the two that travel together, the one that no encoder reads
    assert torch.equal(space.read(mixer.code, "b"), space.read(codes[2:], "b"))
    assert (space.read(mixer.code, "z") != 0).all() and "background from picture 3 with z drawn" in mixer.words
    assert mixer.buttons["b from 3"].button_style == "info"
    mixer.lock("jitter")
    kept = space.read(mixer.code, "jitter")
    for change in (mixer.random, mixer.reset, lambda: mixer.draw_again("jitter")):
        change()
        assert torch.equal(space.read(mixer.code, "jitter"), kept)
    mixer.unlock_all()
    mixer.random()
    assert not torch.equal(space.read(mixer.code, "jitter"), kept)  # random draws it, too
    mixer.reset()
    assert_shows(mixer, codes[:1])
    with pytest.raises(ValueError, match="no encoder reads 'jitter', so no picture can feed it; draw it again"):
        mixer.feed("jitter", 1)
    with pytest.raises(ValueError, match="an encoder reads 'shape', so it is fed from a source"):
        mixer.draw_again("shape")


def test_codes_hold_blocks_that_no_encoder_reads():
    mixer = Mixer(Blocks(), 4, seed=3)
    codes = mixer.sources.codes
    assert not torch.equal(codes[0], codes[1]) and torch.equal(codes, Mixer(Blocks(), 4, seed=3).sources.codes)
    mixer.buttons["noise from 2"].click()
    mixer.buttons["layout from 3"].click()  # a map
    code = mixer.model.codes.swap(codes[:1], codes[1:2], "noise")
    assert_shows(mixer, mixer.model.codes.swap(code, codes[2:3], "layout"))
    mixer = Mixer(Blocks(), codes)
    assert torch.equal(mixer.sources.codes, codes)
    mixer.draw_again("noise")
    assert mixer.words == "noise drawn from the prior, the other 6 blocks from picture 1"


def test_numbers_outside_all_blocks_are_a_row_of_their_own():
    """A learned direction is a view: the rest of the latent comes from somewhere, too."""
    model = toys.Directions(toys.Settings(), toys.Dots().spec).model
    codes = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    mixer = Mixer(model, codes)
    assert list(mixer.state) == ["zoom", "the rest"]
    mixer.feed("zoom", 1)
    assert torch.allclose(mixer.code, model.codes.swap(codes[:1], codes[1:2], "zoom"))
    mixer.feed_all(2)
    assert torch.allclose(mixer.code, codes[2:], atol=1e-6)
    mixer.reset()
    mixer.feed("the rest", 1)
    assert torch.allclose(mixer.code, model.codes.swap(codes[1:2], codes[:1], "zoom"))
    assert mixer.sheet("the rest").dtype == np.uint8 and mixer.words == "the rest from picture 2, zoom from picture 1"


def test_a_broken_decode_shows_its_error_and_the_next_click_works():
    model = Quarters()
    mixer = Mixer(model, pictures())
    before = mixer.picture.value
    model.broken = "no <script> today"
    mixer.buttons["f2 from 2"].click()
    assert mixer.error == "RuntimeError: no <script> today" and mixer.picture.value == before
    assert "&lt;script&gt;" in mixer.error_line.value and "image/png" not in mixer._repr_mimebundle_()
    assert mixer.words == "f2 from picture 2, the other 3 blocks from picture 1"
    model.broken = None
    mixer.buttons["f2 from 3"].click()
    codes = model.encode(pictures())
    assert_shows(mixer, model.codes.swap(codes[:1], codes[2:3], "f2"))
    assert np.array_equal(unpack(mixer.sheet_picture.value), mixer.sheet())


@pytest.mark.parametrize(
    "model, sources, message",
    [
        (Quarters(), None, "sources are pictures .* or codes \\(n, 256\\), or a number of draws .*, not NoneType"),
        (Quarters(), "photos", "sources are pictures .*, not str"),
        (Quarters(), True, "sources are pictures .*, not \\(\\)"),
        (Quarters(), 0, "1 ... 256 sources can be drawn, not 0"),
        (Quarters(), 10**9, "1 ... 256 sources can be drawn, not 1000000000"),
        (Quarters(), torch.zeros(0, 1, 16, 16), "sources are empty; give at least one"),
        (Quarters(), torch.zeros(2, 1, 8, 8), "reads images \\(N, 1, 16, 16\\), not"),
        (Quarters(), torch.full((2, 256), torch.nan), "sources hold NaN"),
        (Quarters(), torch.full((2, 1, 16, 16), 9.0), "pictures lie in 0 ... 1, .*; divide by 255"),
        (Quarters(), torch.zeros(2, 9), "codes must be \\(N, 256\\), not \\(2, 9\\)"),
        (Blocks(), torch.zeros(2, 3, 8, 8), "Blocks has no encoder, so it reads no pictures; give codes"),
        ("a run", 3, "a panel takes a model .*, not str"),
    ],
)
def test_sources_that_do_not_fit(model, sources, message):
    with pytest.raises(ValueError, match=message) as told:
        Mixer(model, sources)
    assert "\n" not in str(told.value)


def test_blocks_and_sources_that_are_not_there():
    mixer = Mixer(Quarters(), pictures(3))
    with pytest.raises(ValueError, match="no block 'f9'; this code has f1"):
        Mixer(Quarters(), 2, [{"name": "f9", "importance": 1.0}])
    for call in (lambda: mixer.feed("f9", 0), lambda: mixer.lock("f9"), lambda: mixer.sheet("f9"),
                 lambda: mixer.render({"f9": 0})):  # fmt: skip
        with pytest.raises(ValueError, match="no block 'f9'; there are f1, f2, f3, f4"):
            call()
    for source in (3, -1, 1.5, "1", None):
        with pytest.raises(ValueError, match="no source .*; there are 3, counted from 0"):
            mixer.feed("f1", source)
    assert set(mixer.state.values()) == {0} and mixer.error == ""


def test_one_source_is_allowed_and_many_have_no_column_each():
    mixer = Mixer(Quarters(), pictures(1))
    mixer.random()
    assert mixer.words == "all 4 blocks from picture 1" and mixer.error == ""
    mixer = Mixer(Linear(), 20)
    assert "z0 from 16" in mixer.buttons and "z0 from 17" not in mixer.buttons
    mixer.feed("z0", 19)
    assert_shows(mixer, mixer.model.codes.swap(mixer.sources.codes[:1], mixer.sources.codes[19:], "z0"))
    assert mixer.words.startswith("z0 from picture 20, ")


# ---- the sheet below


def test_the_mixers_sheet_is_that_of_the_block_last_fed(tmp_path):
    x = pictures()
    mixer = Mixer(Quarters(), x, QUARTER_STATS)
    shown = unpack(mixer.sheet_picture.value)
    assert np.array_equal(shown, mixer.sheet()) and np.array_equal(
        shown, swap_sheets(Quarters(), x, x, QUARTER_STATS)["f3"]
    )
    mixer.feed("f2", 1)
    assert np.array_equal(unpack(mixer.sheet_picture.value), mixer.sheet("f2"))
    mixer.reset()
    assert np.array_equal(mixer.sheet(), mixer.sheet("f2"))
    path = mixer.save(tmp_path / "sheet.png", "f3")
    assert np.array_equal(unpack(path.read_bytes()), shown)
    with pytest.raises(UserError, match="there is no folder"):
        mixer.save(tmp_path / "nowhere" / "sheet.png")
    bundle = mixer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == mixer.widget.model_id
    assert np.array_equal(unpack(base64.b64decode(bundle["image/png"])), mixer.sheet())
    assert Mixer(Quarters(), pictures(20)).sheet().shape == Mixer(Quarters(), pictures(8)).sheet().shape


def test_the_sheet_waits_for_rest_in_an_event_loop(monkeypatch):
    monkeypatch.setattr(frame, "REST", 0.05)
    mixer = Mixer(Quarters(), pictures())
    drawn, slow = [], mixer._sheet
    mixer._sheet = lambda *a: drawn.append(1) or slow(*a)

    async def click():
        old = mixer.sheet_picture.value
        for name in ("f1 from 2", "f2 from 2", "f3 from 3"):
            before = mixer.picture.value
            mixer.buttons[name].click()
            assert mixer.picture.value != before  # the live picture does not wait
            await asyncio.sleep(0.01)
        assert not drawn and mixer.sheet_picture.value == old
        await asyncio.sleep(0.3)
        assert len(drawn) == 1 and np.array_equal(unpack(mixer.sheet_picture.value), mixer.sheet("f3"))

    asyncio.run(click())


# ---- the same for wide blocks in the ordinary panel, and for every kind of model


def test_the_panel_has_a_source_picker_for_wide_blocks():
    x = pictures()
    panel = Panel(Quarters(), sources=x)
    codes = panel.model.encode(x)
    assert all(panel.controls[name].value == 0 for name in panel.model.codes.names)
    panel.controls["f2"].value = 2
    assert torch.equal(panel.code, panel.model.codes.swap(codes[:1], codes[2:3], "f2")) and panel.error == ""
    panel.code = codes[0] + 0.001
    assert all(panel.controls[name].value is None for name in panel.model.codes.names)  # of no source
    panel.pick(3)
    assert panel.controls["f1"].value == 3
    panel.model.broken = "weights are gone"
    panel.controls["f1"].value = 1
    assert panel.error == "RuntimeError: weights are gone"
    together = Panel(Scene(), sources=3)
    together.feed("z", 1)
    assert torch.equal(together.code, Scene.codes.swap(together.bases[:1], together.bases[1:2], ["b", "z"]))
    unread = Panel(Scene(), sources=torch.rand(2, 3, 8, 8))
    assert unread.controls["jitter"].value == "5 numbers: no encoder reads it" and unread.controls["shape"].value == 0


@pytest.mark.parametrize("name", toys.TOYS)
def test_a_mixer_over_every_kind_of_model(name, toy_runs):
    model, stats = toy_runs[name].model, toy_runs[name].stats
    for sources in (toys.Dots().sample(3, torch.Generator().manual_seed(0))["x"], 3):
        mixer = Mixer(model, sources, stats)
        codes = mixer.sources.codes
        for block in model.codes:
            mixer.reset()
            if mixer.sources.hold(block):
                mixer.buttons[f"{block.name} from 2"].click()
                assert torch.allclose(mixer.code, model.codes.swap(codes[:1], codes[1:2], block.name), atol=1e-6)
            else:
                mixer.buttons[f"draw {block.name}"].click()
            assert not torch.equal(mixer.code, codes[:1])
            assert np.array_equal(unpack(mixer.picture.value)[::16, ::16], mixer.render(mixer.state))
        mixer.reset()
        mixer.feed_all(2)
        assert torch.allclose(mixer.code, codes[2:], atol=1e-6) and mixer.error == ""
        mixer.random()
        assert "image/png" in mixer._repr_mimebundle_() and mixer.error == ""


def test_what_is_no_state_seed_or_code_is_told():
    mixer = Mixer(Quarters(), pictures())
    for call, told in (
        (lambda: mixer.feed(None, 0), "no block 'None'; there are f1"),
        (lambda: mixer.render([("f1", 0)]), "a state is a mapping {block: source}, as mixer.state, not list"),
        (lambda: Mixer(Quarters(), pictures(), seed=1.5), "seed must be a whole number of 0 or more, not 1.5"),
        (lambda: Mixer(Quarters, pictures()), "not the class Quarters"),
        (lambda: Mixer(without_code(), 3), "holds no numbers, so there is nothing to mix"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    assert mixer.state == dict.fromkeys(mixer.model.codes.names, 0)
    for path in (None, 3, "a\0b.png"):
        with pytest.raises(UserError, match="names the file to write|cannot save"):
            mixer.save(path)


def without_code():
    model = Quarters()
    model.codes = CodeSpace([])
    return model


@pytest.mark.parametrize(
    "stats, told",
    [
        (3, "statistics are a list of dicts"),
        ({"name": "f1"}, "statistics are a list of dicts"),
        ([{"importance": 1.0}], "statistics are a list of dicts"),
        ([{"name": "f1", "importance": "much"}], "statistics of 'f1': importance must be a number, not 'much'"),
        ([{"name": "f1", "factor": "hair", "correlation": "a"}], "statistics of 'f1': correlation must be a number"),
    ],
)
def test_statistics_that_are_none_are_told(stats, told):
    with pytest.raises(ValueError, match=told):
        Mixer(Quarters(), pictures(), stats)
