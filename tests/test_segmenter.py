"""The segmenter: what it learns, and how it is kept beside the judges without being taken for one."""

import dataclasses
import json
from functools import partial

import pytest
import torch
import toys
from discs import Discs
from safetensors.torch import load_file
from test_toys import global_states, like_a_capture

from disentkit import judging, machine, runs, training
from disentkit.data import complete, scenes
from disentkit.data.base import ArrayData, Spec
from disentkit.errors import UserError
from disentkit.judges import Judge
from disentkit.metrics import Segmented, instrument_error
from disentkit.places import CHECKOUT
from disentkit.segmenter import MARKS, SEGMENTER, Segmenter, Settings, UNet, open_segmenter, overlap, segmenter_of

pytestmark = pytest.mark.usefixtures("quick_pictures")
SMALL = Settings(width=8, batch=16, steps=6, size=16)
DISCS = Discs()
MASKED = complete(DISCS, ("mask",))


@pytest.fixture(autouse=True)
def _nothing_is_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(judging, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(judging, "TESTED", 200)


def build(settings=SMALL) -> Segmenter:
    with machine.seeded(0):
        return Segmenter(settings, DISCS.spec)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


quick = partial(segmenter_of, settings=SMALL, device="cpu", threads=1, bar=False, say=toys.quiet)
judge_of = partial(
    judging.judge_of, settings=judging.Settings(width=8, fc=16, batch=16, steps=3, size=16), device="cpu", threads=1,
    bar=False, say=toys.quiet,
)  # fmt: skip


@pytest.fixture
def never(monkeypatch):
    """From here on, training is a failure."""
    return lambda: monkeypatch.setattr(training, "fit", lambda *a, **k: pytest.fail("trained instead of opened"))


# ---- the learner


def test_it_learns_to_find_the_object():
    segmenter = build(dataclasses.replace(SMALL, steps=120, lr=2e-2, blur=0.0))
    fitted = training.fit(segmenter, MASKED, steps=120, batch=32, device="cpu", threads=1, bar=False, say=toys.quiet)
    assert fitted.rows[-1]["loss"] < 0.5 * fitted.rows[0]["loss"] and fitted.rows[-1]["iou"] > 0.7
    errors = instrument_error(Segmented(segmenter), DISCS, 300)
    assert (errors["correlation"] > [0.98, 0.98, 0.7]).all() and (errors["failures"] == 0).all()
    batch = MASKED.sample(300, rng(5))
    found = segmenter.mask(batch["x"])
    assert found.shape == (300, 1, 16, 16) and 0 <= found.min() and found.max() <= 1
    assert overlap(found > 0.5, batch["mask"] > 0.5).mean() > 0.75
    parts = torch.cat([segmenter.mask(part) for part in batch["x"].split(7)])
    assert torch.allclose(found, parts, atol=1e-5)  # no batch statistics


def test_the_step_could_be_captured():
    segmenter = build()
    segmenter.rng = rng()
    opt, batch = segmenter.optimizers(), MASKED.sample(8, segmenter.rng)
    segmenter.step(opt, batch)
    with like_a_capture():
        losses = segmenter.step(opt, batch)
    assert all(value.ndim <= 1 and not value.requires_grad for value in losses.values())
    assert list(segmenter.networks()) == ["net"] and segmenter.reads == ("x", "mask")


def test_same_seed_same_numbers_and_no_others_draws():
    before = global_states()
    one, two, other = (toys.fit(build(), steps=3, seed=s, data=MASKED)[1] for s in (0, 0, 1))
    assert toys.same(one, two) == "" and toys.same(one, other) != "" and toys.same(before, global_states()) == ""


def test_pictures_wear_as_a_judges_do():
    segmenter = build(dataclasses.replace(SMALL, steps=9))
    judge = Judge(judging.Settings(width=8, fc=16, size=16, blur=SMALL.blur, noise=SMALL.noise), DISCS.spec)
    x = DISCS.sample(20, rng())["x"]
    assert torch.equal(segmenter.worn(x, rng(1)), judge.worn(x, rng(1)))
    assert list(segmenter.preview(MASKED.sample(3, rng()))) == ["pictures", "masks", "found"]


def test_overlap():
    a = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    b = a.clone()
    a[0, 0, 0], b[0, 0, :, 0] = True, True  # they share one of three pixels
    a[1] = True
    assert overlap(a, b)[:2].tolist() == pytest.approx([1 / 3, 0]) and overlap(a, b)[2].isnan()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 60, 60), (1, 33, 20), (3, 64, 64), (3, 128, 128)])
def test_any_size(shape):
    net = UNet(shape, 4)
    assert net(torch.zeros(2, *shape)).shape == (2, 1, *shape[1:])
    with torch.no_grad():
        for weight in net.parameters():
            weight.abs_()  # so that no unit is off
    x = torch.rand(1, *shape, generator=rng()).requires_grad_()
    net.eval()(x)[0, 0, -1, -1].backward()
    assert x.grad[0, :, -1, -1].abs().sum() > 0  # each pixel is answered beside itself


def test_it_is_small():
    assert sum(p.numel() for p in Segmenter(Settings(), Spec((3, 64, 64))).parameters()) < 100_000


def test_what_a_segmenter_refuses():
    with pytest.raises(UserError, match=r"a segmenter reads pictures of 8 pixels or more, not 4x16"):
        Segmenter(SMALL, Spec((1, 4, 16)))
    with pytest.raises(ValueError, match=r"this segmenter reads images \(N, 3, 16, 16\), not \(2, 1, 16, 16\)"):
        build().mask(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match="the pictures hold NaN or infinite numbers"):
        build().mask(torch.full((2, 3, 16, 16), torch.nan))


# ---- segmenter_of


def test_trained_once_then_opened(never):
    said = []
    segmenter = quick(DISCS, say=said.append)
    folder = runs.home() / "judges" / "discs-16-segmenter"
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json", "history.csv", "picture.png", "weights.safetensors"]  # fmt: skip
    assert all(w.dtype == torch.float16 for w in load_file(folder / "weights.safetensors").values() if w.ndim)
    assert said[0] == f"training the segmenter of discs at 16 pixels on true pictures; it is kept in {folder.parent}"
    assert said[-1].startswith("the segmenter's overlap with the true masks, its mean errors and its share of failures")
    card = json.loads((folder / "card.json").read_text())
    assert card == segmenter.card and tuple(card["errors"]) == MARKS and card["method"] == "segmenter"
    assert card["errors_on"] == "200 pictures that it was not trained on"
    assert card["data"]["fingerprint"] == DISCS.fingerprint() and card["settings"] == dataclasses.asdict(SMALL)
    never()
    x = DISCS.sample(50, rng(3))["x"]
    for other in (quick(DISCS), quick(MASKED), segmenter_of(DISCS, say=toys.quiet), open_segmenter(folder)):
        assert torch.equal(other.mask(x), segmenter.mask(x)) and not other.training and other.card == card
        assert not any(p.requires_grad for p in other.parameters())


def test_the_card_tells_the_error(monkeypatch):
    monkeypatch.setattr(judging, "TESTED", 300)
    segmenter = quick(DISCS, settings=dataclasses.replace(SMALL, steps=60, lr=1e-2), seed=4)
    errors, rest = segmenter.card["errors"], instrument_error(Segmented(segmenter), DISCS, 300, seed=5)
    batch = MASKED.sample(300, rng(5))
    iou = overlap(segmenter.mask(batch["x"]) > 0.5, batch["mask"] > 0.5).mean()
    assert errors["iou"] == pytest.approx(float(iou), abs=0.02) and 0.5 < errors["iou"] <= 1
    assert [errors[name] for name in ("x", "y", "zoom")] == pytest.approx(rest["error"].tolist(), rel=0.2)


def test_one_that_finds_nothing_says_so():
    segmenter = build()
    with torch.no_grad():
        segmenter.net.last.bias.fill_(-50)
    marks = SEGMENTER.measure(segmenter, MASKED, 20, 0)
    assert marks == {"iou": 0, "x": None, "y": None, "zoom": None, "failures": 1}
    assert SEGMENTER.said(marks).endswith(": iou 0, failures 1")


def test_judges_and_segmenters_are_two_kinds(never):
    segmenter, judge = quick(DISCS), judge_of(DISCS)
    own = runs.home() / "judges"
    assert [f.name for f in judging.folders()] == ["discs-16"]
    assert sorted(f.name for f in own.iterdir()) == ["discs-16", "discs-16-segmenter"]
    with pytest.raises(UserError, match="judge 'discs-16-segmenter' does not fit .* it is a segmenter"):
        judging.open_judge(own / "discs-16-segmenter")
    with pytest.raises(UserError, match="segmenter 'discs-16' does not fit .* it is a judge"):
        open_segmenter(own / "discs-16")
    never()
    assert quick(DISCS).card == segmenter.card and judge_of(DISCS).card == judge.card
    instrument = Segmented(segmenter, judge)
    assert instrument.names == ("x", "y", "zoom", "brightness", "hue", "ground", "light")
    assert instrument(DISCS.sample(30, rng())["x"]).shape == (30, 7)


def test_shipped_ones_come_first(never):
    shipped = quick(DISCS, ship=True, seed=1)
    assert (judging.SHIPPED / "discs-16-segmenter" / "weights.safetensors").is_file()
    own = quick(DISCS, anew=True)
    with pytest.raises(UserError, match="discs-16-segmenter holds a shipped segmenter already: delete it first"):
        quick(DISCS, ship=True)
    never()
    assert quick(DISCS).card == shipped.card != own.card
    (judging.SHIPPED / "discs-16-segmenter" / "weights.safetensors").write_bytes(b"cut short")
    assert quick(DISCS).card == own.card  # a damaged one is passed over


@pytest.mark.parametrize("key, value", [("errors", {"iou": 1.0}), ("settings", 3), ("image_shape", [3, 32])])
def test_a_broken_card(key, value):
    segmenter, folder = quick(DISCS), runs.home() / "judges" / "discs-16-segmenter"
    (folder / "card.json").write_text(json.dumps(segmenter.card | {key: value}))
    with pytest.raises(UserError, match="segmenter 'discs-16-segmenter' does not fit this version of the kit: "):
        open_segmenter(folder)
    assert quick(DISCS).card["errors"] == segmenter.card["errors"]
    assert (folder.parent / "discs-16-segmenter-2" / "card.json").is_file()


@pytest.mark.parametrize("size", [64, 32])
def test_the_shipped_ones_of_scenes(size):
    """They belong to the scenes as they are drawn now, and read them as their cards say."""
    data, place = scenes.load(size), CHECKOUT / "data" / "judges"
    segmenter, judge = open_segmenter(place / f"scenes-{size}-segmenter"), judging.open_judge(place / f"scenes-{size}")
    for reader in (segmenter, judge):
        assert reader.card["data"] == {"name": "scenes", "options": None, "fingerprint": data.fingerprint()}
        assert reader.card["stopped"] == "done"
    assert segmenter.card["errors"]["iou"] > 0.95 and segmenter.card["errors"]["failures"] == 0
    errors = instrument_error(Segmented(segmenter, judge), data, 200)
    assert (errors.loc[["x", "y", "zoom"], "error"] < [0.005, 0.005, 0.03]).all()
    assert (errors.loc[["hue", "horizon", "light"], "error"] < [0.03, 0.02, 0.02]).all()
    assert (errors.loc[["background", "grain"], "error"] < 0.02).all()


def test_bad_input():
    batch = DISCS.sample(20, rng())
    stored = ArrayData(batch["x"].numpy(), batch["factors"].numpy(), DISCS.space, "mine")
    for data, told in {
        "scenes": r"a segmenter belongs to a data set, not to str: give data.load\(name\)",
        toys.Dots(): "data set 'dots' draws no masks, so no segmenter can learn from it; 'scenes' does",
        stored: "data set 'mine' draws no masks",
    }.items():
        with pytest.raises(UserError, match=told):
            quick(data)
    with pytest.raises(UserError, match=r"the segmenter's settings say size=32, but the pictures are \(3, 16, 16\)"):
        quick(DISCS, settings=Settings(size=32))
    with pytest.raises(UserError, match="settings= takes the Settings of disentkit.segmenter, not {'steps': 3}"):
        quick(DISCS, settings={"steps": 3})
    with pytest.raises(UserError, match="the segmenter's width must be a whole number of 1 or more, not 0"):
        quick(DISCS, settings=dataclasses.replace(SMALL, width=0))
    with pytest.raises(UserError, match="minutes must be a finite number above 0"):
        quick(DISCS, minutes=0)
