"""What a board says of the tuple asked for: its words, whether training could show it, and what is missing."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from explore.models_tiles import LAW, TILES, Oracle, Painter, Tiles, board, providers, same_colours
from explore.test_board import assert_shows

from disentkit import models
from disentkit.codes import CodeSpace
from disentkit.data import characters, combinations, fonts
from disentkit.data.groups import Groups
from disentkit.data.laws import Grid, HeldOut
from disentkit.explore import AttributeBoard
from disentkit.explore.board import Pick
from disentkit.explore.truth import HELD_OUT, KNOWN, NEVER, tuple_words
from disentkit.methods import elegant, stargan
from disentkit.metrics.synthesis import CAP


def test_words():
    values = torch.tensor([0.0, 0.0, 2.0, 3.0])
    assert tuple_words(Tiles.space, values) == "way A, red on blue, x 3 px"
    face = fonts.Fonts(32)
    R = torch.tensor([17.0, 2.0, 0.0, 5.0, 0.0])
    assert tuple_words(face.space, R) == f"letter R, large, red on blue, {face.faces[0].label}"
    said = tuple_words(characters.Characters(size=32).space, torch.zeros(8))
    assert said == "pale, bald, shirt, blue long, item none, stand, front, hue 0"
    shown = board()
    shown.pick("colour", 2)
    assert shown.fed == "colour from picture 3, the other 3 blocks from picture 1" and shown.words in repr(shown)
    assert f"<b>{shown.words}</b>" in shown.words_line.value and shown.fed in shown.words_line.value


# ---- what training left out


def test_the_verdict_follows_the_law():
    shown, (_, values) = board(n=4), providers(4)
    seen = set()
    for picks in itertools.product(range(4), repeat=4):
        shown._state = {name: Pick(i, i) for name, i in zip(Tiles.space.names, picks)}
        wanted = shown.wanted[None]
        assert torch.equal(wanted[0], values[list(picks), range(4)])
        never = same_colours(wanted).item()
        held = not never and LAW.rule(wanted).item()
        assert shown.verdict == (NEVER if never else HELD_OUT if held else KNOWN)
        seen.add(shown.verdict)
    assert seen == {NEVER, HELD_OUT, KNOWN}


def test_surprise_asks_for_what_was_held_out():
    shown = board()
    asked = set()
    for _ in range(5):
        shown.buttons["surprise"].click()
        assert shown.error == "" and shown.verdict == HELD_OUT and HELD_OUT in shown.words_line.value
        assert LAW.rule(shown.wanted[None]).item() and not same_colours(shown.wanted[None]).item()
        asked.add(shown.words)
    assert len(asked) > 1
    one = board(n=1)
    one.buttons["surprise"].click()
    assert one.error == "ValueError: none of 4,096 combinations of these pictures that were tried is held out"


def test_every_form_of_seen():
    x, values = providers()
    plain = HeldOut(Grid(), lambda v: v[:, 0] == 1)
    for truth, seen, verdict in (
        (Tiles().with_law(LAW), None, KNOWN),
        (combinations.unseen(TILES), None, KNOWN),  # the held-out part: the same rule
        (Groups(TILES), None, KNOWN),
        (Tiles(), TILES, KNOWN),
        (Tiles(), LAW, KNOWN),
        (Tiles(), None, ""),
        (TILES, combinations.held_out(Tiles.space, 0.3, "all"), ""),
        (Tiles(), plain, HELD_OUT if values[0, 0] == 1 else KNOWN),
        (TILES, lambda v: torch.ones(len(v), dtype=torch.bool), HELD_OUT),
    ):
        shown = AttributeBoard(Oracle(), x, values, truth, seen)
        assert shown.verdict == verdict and shown.psnr == CAP
        assert ("surprise" in shown.buttons) == bool(verdict)
        assert ("what training left out is not known" in shown.words_line.value) == (not verdict)
    with pytest.raises(ValueError, match="no law says which combinations training leaves out"):
        AttributeBoard(Oracle(), x, values, Tiles()).surprise()


def test_random_draws_with_the_boards_own_generator():
    states = []
    for seed in (1, 1, 2):
        shown, before = board(seed=seed), torch.get_rng_state()
        shown._show_slowly = lambda: None  # without an event loop every click would draw the sheet
        for _ in range(5):
            shown.buttons["random"].click()
            assert shown.verdict != NEVER
        shown.surprise()
        assert torch.equal(torch.get_rng_state(), before) and shown.psnr == CAP
        states.append(shown.state)
    assert states[0] == states[1] != states[2]
    shown.buttons["reset"].click()
    assert shown.state == board().state and shown.fed == "all 4 blocks from picture 1"


# ---- what is missing, and other models


def test_without_factors_or_truth_only_the_synthesis_is_shown():
    x, values = providers()
    for given, lacking in (
        ({}, "factors= (their true values) and truth= (a renderer of the data)"),
        ({"factors": values}, "truth= (a renderer of the data)"),
        ({"truth": TILES}, "factors= (their true values)"),
    ):
        shown = AttributeBoard(Oracle(), x, **given)
        assert shown.missing == f"no ground truth: beside pictures give {lacking}"
        assert shown.missing in shown.words_line.value and "surprise" not in shown.buttons
        assert shown.wanted is shown.psnr is shown.truth_picture() is None and shown.verdict == ""
        shown.towards("colour", 2, 0.5)
        shown.random()
        assert_shows(shown, shown._mixed(shown.state))
        assert shown.words == shown.fed and shown.sheet().dtype == np.uint8
        with pytest.raises(ValueError, match="nothing says which tuple is asked for: no ground truth"):
            shown.surprise()


def test_a_block_that_is_no_attribute_is_a_row_and_carries_what_no_block_is_named_after():
    shown, (_, values) = board(Painter()), providers()
    assert [group.name for group in shown.groups] == ["way", "colour", "background", "picture"]
    assert shown._label(shown.groups[3]) == "picture to be edited" and shown.psnr == CAP
    shown.pick("colour", 2)
    shown.pick("picture", 4)
    expected = values[[0, 2, 0, 4], [0, 1, 2, 3]]
    assert torch.equal(shown.wanted, expected) and shown.psnr == CAP
    other = next(i for i in range(6) if values[i, 3] != values[4, 3])
    shown.towards("picture", other, 0.6)
    assert shown.between == ["picture"] and shown.wanted[3] == values[other, 3]
    less = Painter()
    less.codes = CodeSpace([b for b in less.codes if b.name != "picture"], size=less.codes.size)
    assert board(less).groups[-1].name == "the rest" and board(less).missing == ""  # what lies in no block carries it


def test_an_attribute_that_nothing_gives_is_told():
    class Short(Oracle):
        def __init__(self):
            super().__init__()
            hidden = (replace(b, inferred=b.name != "x") for b in self.codes)
            self.codes = CodeSpace(hidden)

    shown = board(Short())
    assert shown.missing == "no ground truth: no block of the code is named after x" and shown.psnr is None
    assert "x from 1" not in shown.buttons
    shown.random()
    assert shown.error == ""


def test_blocks_of_one_picker_are_one_row():
    class Together(Oracle):
        def __init__(self):
            super().__init__()
            both = {"colour", "background"}
            self.codes = CodeSpace(replace(b, picker="colours" if b.name in both else None) for b in self.codes)

    shown, (_, values) = board(Together()), providers()
    assert list(shown.state) == ["way", "colour", "x"]
    for name in ("background", "colours"):
        shown.reset()
        shown.pick(name, 3)
        assert torch.equal(shown.wanted, values[[0, 3, 3, 0], range(4)]) and shown.psnr == CAP


@pytest.mark.parametrize("name", ("Toy", "Critic", "Groups", "Directions", "Regrouped", "Maps"))
def test_a_board_over_every_kind_of_code(name):
    model = toys.TOYS[name](toys.Settings(), toys.Dots().spec).model
    if not models.can_encode(model):
        pytest.skip("it has no encoder")
    batch = toys.Dots().sample(3, torch.Generator().manual_seed(0))
    x, codes = batch["x"], models.encode(model, batch["x"])
    shown = AttributeBoard(model, x)
    assert_shows(shown, codes[:1])
    for group in shown.groups:
        shown.reset()
        shown.buttons[f"{group.name} from 2"].click()
        if group.rows:
            assert_shows(shown, model.codes.swap(codes[:1], codes[1:2], group.names))
        shown.sliders[group.name].value = 0.5
    assert "image/png" in shown._repr_mimebundle_() and shown.error == ""


def test_the_baselines_have_boards():
    x, values = providers(3)
    data = Tiles()
    nets = (stargan.Translator((3, 32, 32), data.space, replace(stargan.QUICK, wide=0.25)),
            elegant.Exchanger((3, 32, 32), data.space, replace(elegant.QUICK, wide=0.25)))  # fmt: skip
    x = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    for model in nets:
        shown = AttributeBoard(model, x)
        assert {*Tiles.space.names, "picture"} == {*shown.state}
        for name in shown.state:
            before = shown.picture.value
            shown.sliders[name].value = 1.0
            assert shown.picture.value != before and shown.error == ""
