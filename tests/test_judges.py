"""Judges: what they learn, what their pictures are worn by, and how `judge_of` keeps, finds and refuses them."""

import dataclasses
import json
import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
import toys
from metrics.block_oracles import APART, Laid
from safetensors.torch import load_file
from test_toys import global_states, like_a_capture

from disentkit import judging, machine, runs, training
from disentkit.data.base import ArrayData, Spec
from disentkit.data.laws import HeldOut
from disentkit.errors import UserError
from disentkit.judges import Judge, Settings, network
from disentkit.judging import judge_of
from disentkit.metrics.swaps import judge_accuracy, swap_matrix

pytestmark = pytest.mark.usefixtures("quick_pictures")
SMALL = Settings(width=8, fc=16, batch=16, steps=6, size=16)
DOTS = toys.Dots()


@pytest.fixture(autouse=True)
def _nothing_is_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(judging, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(judging, "TESTED", 200)


def build(settings=SMALL, data=DOTS) -> Judge:
    with machine.seeded(0):
        return Judge(settings, data.spec)


quick = partial(judge_of, settings=SMALL, device="cpu", threads=1, bar=False, say=toys.quiet)


@pytest.fixture
def never(monkeypatch):
    """From here on, training is a failure."""
    return lambda: monkeypatch.setattr(training, "fit", lambda *a, **k: pytest.fail("trained instead of opened"))


# ---- the learner


def test_it_learns_to_read():
    judge = build(dataclasses.replace(SMALL, steps=150, lr=3e-3, blur=0.0))  # blur makes a bright dot a dim one
    fitted = training.fit(judge, DOTS, steps=150, batch=64, device="cpu", threads=1, bar=False, say=toys.quiet)
    accuracy = judge_accuracy(judge, DOTS, 500)
    assert (accuracy > 0.9).all() and list(accuracy.index) == ["kind", "x", "y", "light"]
    assert fitted.rows[-1]["loss"] < 0.5 * fitted.rows[0]["loss"] and "accuracy_3" in fitted.rows[0]
    batch = DOTS.sample(300, torch.Generator().manual_seed(5))
    read = judge.read(batch["x"])
    assert read.dtype == torch.int64 and read.shape == (300, 4)
    assert torch.equal(read, torch.cat([judge.read(part) for part in batch["x"].split(7)]))  # no batch statistics


def test_the_step_could_be_captured():
    judge = build()
    judge.rng = torch.Generator().manual_seed(0)
    opt, batch = judge.optimizers(), DOTS.sample(8, judge.rng)
    judge.step(opt, batch)
    with like_a_capture():
        losses = judge.step(opt, batch)
    assert all(value.ndim <= 1 and not value.requires_grad for value in losses.values())
    assert list(judge.networks()) == ["net"] and judge.reads == ("x", "factors")


def test_same_seed_same_numbers_and_no_others_draws():
    before = global_states()
    one, two, other = (toys.fit(build(), steps=3, seed=s)[1] for s in (0, 0, 1))
    assert toys.same(one, two) == "" and toys.same(one, other) != "" and toys.same(before, global_states()) == ""


def test_the_step_size_falls_to_zero():
    judge, seen = build(), []
    judge.rng = torch.Generator().manual_seed(0)
    opt = judge.optimizers()
    for t in (0, 3, 6):
        judge.t.fill_(t)
        judge.step(opt, DOTS.sample(4, judge.rng))
        seen.append(float(opt["judge"].param_groups[0]["lr"]))
    assert seen == pytest.approx([1e-3, 5e-4, 0], abs=1e-9)


def test_worn_pictures():
    x = DOTS.sample(400, torch.Generator().manual_seed(0))["x"]
    rng = torch.Generator().manual_seed(1)
    blurred = build(dataclasses.replace(SMALL, noise=0.0)).worn(x, rng)
    changed = (blurred - x).flatten(1).abs().amax(1) > 0
    assert 0.4 < changed.float().mean() < 0.6  # half of them
    assert (blurred.amax((1, 2, 3)) <= x.amax((1, 2, 3)) + 1e-6).all() and blurred.min() >= 0
    assert (blurred - x).flatten(1).abs().amax() > 0.2
    noisy = build(dataclasses.replace(SMALL, blur=0.0, noise=0.1)).worn(x, rng) - x
    spread = noisy.flatten(1).std(1)
    assert 0.4 < (spread == 0).float().mean() < 0.6 and 0.08 < spread.max() < 0.11
    assert torch.equal(build(dataclasses.replace(SMALL, blur=0.0, noise=0.0)).worn(x, rng), x)
    assert build().kernel.sum() == pytest.approx(1) and "kernel" not in build().state_dict()
    flat = torch.full((50, 1, 16, 16), 0.3)
    assert torch.allclose(build(dataclasses.replace(SMALL, noise=0.0)).worn(flat, rng), flat)  # edges included


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 60, 60), (1, 33, 20), (3, 64, 64)])
def test_any_size(shape):
    assert network(shape, 4, 8, 5)(torch.zeros(2, *shape)).shape == (2, 5)


def test_what_a_judge_refuses():
    with pytest.raises(UserError, match="a judge reads factors, and these data have none"):
        Judge(SMALL, Spec((1, 16, 16)))
    with pytest.raises(UserError, match="a judge reads pictures of 8 pixels or more, not 4x4"):
        Judge(SMALL, Spec((1, 4, 4), DOTS.space))
    with pytest.raises(ValueError, match=r"this judge reads images \(N, 1, 16, 16\), not \(2, 3, 16, 16\)"):
        build().read(torch.zeros(2, 3, 16, 16))


# ---- judge_of


def test_trained_once_then_opened(never):
    said = []
    judge = quick(DOTS, say=said.append)
    folder = runs.home() / "judges" / "dots-16"
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json",
        "history.csv",
        "picture.png",
        "weights.safetensors",
    ]
    assert all(w.dtype == torch.float16 for w in load_file(folder / "weights.safetensors").values() if w.ndim)
    assert said[0] == f"training the judge of dots at 16 pixels on true pictures; it is kept in {folder.parent}"
    assert said[-1].startswith("the judge is right on kind 0.")
    never()
    again, without = quick(DOTS), judge_of(DOTS, say=toys.quiet)  # settings that are not given do not count
    x = DOTS.sample(200, torch.Generator().manual_seed(3))["x"]
    for other in (again, without):
        assert torch.equal(other.read(x), judge.read(x)) and not other.training
        assert other.card == judge.card and not any(p.requires_grad for p in other.parameters())


def test_the_card(monkeypatch):
    judge = quick(DOTS, seed=3)
    card = json.loads((runs.home() / "judges" / "dots-16" / "card.json").read_text())
    assert card == judge.card
    assert (card["method"], card["seed"], card["steps"], card["stopped"]) == ("judge", 3, 6, "done")
    assert card["settings"] == dataclasses.asdict(SMALL) and card["data"]["fingerprint"] == DOTS.fingerprint()
    assert card["accuracy_on"] == "200 pictures that it was not trained on" and card["versions"]["torch"]
    assert card["accuracy"] == judge_accuracy(judge, DOTS, 200, 4).round(4).to_dict()  # of the weights as kept


def test_a_judge_belongs_to_its_data():
    law = HeldOut(DOTS.law, lambda v: (v[:, 0] > 0) & (v[:, 1] > 6))
    whole, part = quick(DOTS), quick(DOTS.with_law(law))
    assert part.card["data"]["fingerprint"] != whole.card["data"]["fingerprint"]
    assert {f.name for f in judging.folders()} == {"dots-16", "dots-16-2"}
    assert quick(DOTS).card == whole.card and quick(DOTS.with_law(law)).card == part.card
    swap_matrix(DOTS, DOTS.with_law(law), whole, n=10)  # which does not keep anyone from taking it


def test_shipped_ones_come_first(never):
    shipped = quick(DOTS, ship=True, seed=1)
    assert (judging.SHIPPED / "dots-16" / "weights.safetensors").is_file() and not (runs.home() / "judges").exists()
    own = quick(DOTS, anew=True)
    with pytest.raises(UserError, match="dots-16 holds a shipped judge already: delete it first"):
        quick(DOTS, ship=True)
    never()
    assert quick(DOTS).card == shipped.card != own.card
    (judging.SHIPPED / "dots-16" / "weights.safetensors").write_bytes(b"cut short")
    assert quick(DOTS).card == own.card  # a damaged one is passed over


def test_other_settings_are_another_judge():
    first = quick(DOTS)
    other = quick(DOTS, settings=dataclasses.replace(SMALL, steps=7))
    assert (first.card["steps"], other.card["steps"]) == (6, 7) and quick(DOTS).card == first.card


@pytest.mark.parametrize("file", ["card.json", "weights.safetensors"])
def test_a_damaged_judge_is_trained_anew(file):
    judge, folder = quick(DOTS), runs.home() / "judges" / "dots-16"
    (folder / file).write_text("{")
    with pytest.raises(UserError, match=file):
        judging.open_judge(folder)
    assert quick(DOTS).card["accuracy"] == judge.card["accuracy"]
    assert (folder.parent / "dots-16-2" / "card.json").is_file()


@pytest.mark.parametrize("key, value", [("data", None), ("factors", "x"), ("accuracy", {"kind": 1.0}), ("settings", 3)])
def test_a_judge_whose_card_is_broken_is_trained_anew(key, value):
    judge, folder = quick(DOTS), runs.home() / "judges" / "dots-16"
    (folder / "card.json").write_text(json.dumps(judge.card | {key: value}))
    assert quick(DOTS).card["accuracy"] == judge.card["accuracy"]
    assert (folder.parent / "dots-16-2" / "card.json").is_file()
    if key != "data":
        with pytest.raises(UserError, match="judge 'dots-16' does not fit this version of the kit: "):
            judging.open_judge(folder)


def test_a_folder_in_place_of_the_weights():
    quick(DOTS)
    weights = runs.home() / "judges" / "dots-16" / "weights.safetensors"
    weights.unlink()
    weights.mkdir()
    with pytest.raises(UserError, match="does not fit .* Is a directory"):
        judging.open_judge(weights.parent)
    assert judging.find(DOTS) is None


@pytest.mark.parametrize(
    "name, value, told",
    [("width", 0, "whole number of 1"), ("fc", "a", "whole number"), ("lr", 0.0, "above 0"), ("blur", np.nan, "finite"),
     ("noise", -1.0, "must be 0 or more, not -1.0")],
)  # fmt: skip
def test_settings_that_cannot_be(never, name, value, told):
    never()
    with pytest.raises(UserError, match=f"the judge's {name} must be .*{told}|the judge's {name} {told}"):
        quick(DOTS, settings=dataclasses.replace(SMALL, **{name: value}))


def test_a_judge_of_another_version():
    judge, folder = quick(DOTS), runs.home() / "judges" / "dots-16"
    card = judge.card | {"settings": judge.card["settings"] | {"width": 9}}
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="judge 'dots-16' does not fit this version of the kit: Error"):
        judging.open_judge(folder)


def test_stored_pictures_are_held_out():
    batch = DOTS.sample(60, torch.Generator().manual_seed(0))
    data = ArrayData(batch["x"].numpy(), batch["factors"].numpy(), DOTS.space, "mine")
    known, fresh, count = judging._split(data, 0)
    assert (len(known), len(fresh), count) == (50, 10, 10)
    parts = [{image.numpy().tobytes() for image in part.images} for part in (known, fresh, data)]
    assert parts[0] | parts[1] == parts[2]
    judge = quick(data)
    assert judge.card["accuracy_on"] == "10 pictures that it was not trained on"
    swaps = swap_matrix(Laid(APART), data, judge, n=20)
    assert swaps.judge.to_dict() == judge.card["accuracy"]  # the others it knows by heart
    few = ArrayData(np.zeros((2, 16, 16), np.uint8), np.array([[0], [1]]))
    with pytest.raises(UserError, match="data set 'arrays' has 2 pictures, too few"):
        quick(few)


def test_minutes_and_interrupts(monkeypatch):
    short = quick(DOTS, minutes=1e-6)
    assert short.card["stopped"] == "minutes" and short.card["steps"] == 1 and judging.find(DOTS).card == short.card
    step = Judge.step

    def stop(self, opt, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, opt, batch)

    monkeypatch.setattr(Judge, "step", stop)
    said = []
    judge = quick(DOTS, anew=True, say=said.append)
    assert said[-1] == "it was interrupted, so it is not kept" and judge.card["steps"] == 1
    assert [f.name for f in judging.folders()] == ["dots-16"] and judge.read(torch.zeros(1, 1, 16, 16)).shape == (1, 4)


def test_a_full_disk_leaves_the_judge(monkeypatch):
    def full(*args, **options):
        raise UserError("the run could not be saved: No space left on device.")

    monkeypatch.setattr(runs, "save", full)
    said = []
    judge = quick(DOTS, say=said.append)
    assert said[-1].endswith("No space left on device. The judge is used all the same.")
    assert judge.read(torch.zeros(1, 1, 16, 16)).shape == (1, 4)


def test_bad_input(monkeypatch, tmp_path):
    for data, told in {
        "dsprites": "a judge belongs to a data set, not to str: give data.load",
        ArrayData(np.zeros((5, 16, 16), np.uint8)): "data set 'arrays' has no factors, so there is nothing to judge",
    }.items():
        with pytest.raises(UserError, match=told):
            quick(data)
    with pytest.raises(UserError, match=r"the judge's settings say size=32, but the pictures are \(1, 16, 16\)"):
        quick(DOTS, settings=Settings(size=32))
    with pytest.raises(UserError, match="settings= takes the Settings of disentkit.judges, not {'steps': 3}"):
        quick(DOTS, settings={"steps": 3})
    with pytest.raises(UserError, match="minutes must be a finite number above 0"):
        quick(DOTS, minutes=0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write to"):
        quick(DOTS)
