"""InfoGAN and InfoWGAN-GP from the outside: presets, runs, panels, metrics, settings that may be none."""

import numpy as np
import pytest
import torch
import toys
from methods.family import rng
from methods.gans import BOTH, SMALL, build, pictures

from disentkit import methods, models, plots, previews, workbench
from disentkit.data.base import ArrayData, Spec
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods.infogan import InfoGAN, Settings
from disentkit.methods.infowgan_gp import InfoWGAN

both = pytest.mark.parametrize("name", BOTH)


# ---- presets


@both
def test_presets(name):
    cls, kind = BOTH[name]
    sets = ["digits", "mnist", "folder", "dsprites"] + ["characters"] * (name == "infogan")  # compared with MIX there
    wanted = {(p, d) for d in sets for p in ("smoke", "quick")}
    assert set(cls.PRESETS) == wanted | {("paper", "mnist"), ("course", "dsprites"), ("paper", "dsprites")}
    assert all(type(settings) is kind for settings in cls.PRESETS.values())
    sheet = cls.PRESETS["paper", "mnist"]
    assert (sheet.noise, sheet.categories, sheet.continuous, sheet.size, sheet.nets) == (62, 10, 2, 28, "mnist")
    for preset in ("paper", "course", "quick", "smoke"):
        sprites = cls.PRESETS[preset, "dsprites"]
        assert (sprites.categories, sprites.continuous, sprites.nets) == (3, 4, "dsprites")
        assert sprites.size == (64 if preset in ("paper", "course") else 32)


def test_paper_preset_on_mnist_is_that_of_the_reference():
    paper = InfoGAN.PRESETS["paper", "mnist"]
    assert (paper.lam, paper.lr_G, paper.lr_D, paper.batch, paper.steps, paper.wide) == (1, 1e-3, 2e-4, 128, 5_000, 1)
    opt = InfoGAN(paper, Spec((1, 28, 28))).optimizers()
    assert all(o.param_groups[0]["betas"] == (0.5, 0.999) for o in opt.values())


@pytest.fixture(scope="module")
def gan_runs(tmp_path_factory):
    """A short run of both methods through the workbench."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISENTKIT_HOME", str(tmp_path_factory.mktemp("gans")))
        patch.setattr(plots, "training_picture", lambda rows, history: b"a picture that takes no time")
        own = {name: kind(**SMALL) for name, (_, kind) in BOTH.items()}
        quiet = {"device": "cpu", "threads": 1, "say": toys.quiet, "data": toys.Dots()}
        return {name: workbench.train(name, settings=settings, **quiet) for name, settings in own.items()}


@both
def test_run_opens_as_it_was_saved(name, gan_runs):
    run = gan_runs[name]
    opened = workbench.open_run(run.path)
    codes, x = run.model.prior(20, rng()), pictures(0, 20)
    assert torch.equal(models.decode(run.model, codes), models.decode(opened.model, codes))
    assert torch.equal(models.encode(run.model, x), models.encode(opened.model, x))
    assert {key.split(".")[0] for key in opened.model.state_dict()} == {"G", "trunk", "Q"}  # no head of D's, no critic
    assert opened.settings == run.settings and {"recovered_0", "recovered_1", "recovered_2"} <= set(opened.history)
    found = {row["name"]: row for row in opened.stats}
    assert found["noise"]["factor"] is None and found["c1"]["low"] == -1 and found["c1"]["high"] == 1


@both
def test_picture_of_a_run_shows_samples(name, gan_runs):
    """What Q reads of a picture and G draws of it with the noise at its centre would pass for a reconstruction."""
    model, data = gan_runs[name].model, toys.Dots()
    rows = previews._preview(model, data, 0)
    assert list(rows) == ["pictures", "samples"]
    assert torch.equal(rows["samples"], models.decode(model, model.prior(10, rng())))
    learner = build(name)
    with models.frozen(learner):
        before = learner.rng.get_state()
        live = learner.preview({"x": pictures(0)})
        assert torch.equal(live["samples"], learner.preview({"x": pictures(1)})["samples"])  # the same codes all along
    assert list(live) == ["pictures", "samples"] and torch.equal(before, learner.rng.get_state())


@both
def test_panel_has_sliders_a_category_picker_and_draw_again(name, gan_runs):
    from disentkit.explore import Panel

    run = gan_runs[name]
    panel, space = Panel(run.model, run.stats), run.model.codes
    assert set(panel.controls) == {"noise", "category", "c1", "c2"} and panel.error == ""
    for block in ("c1", "c2"):
        slider, before = panel.controls[block], models.decode(run.model, panel.code)
        assert (slider.min, slider.max) == (-1, 1)
        slider.value = 1.0
        assert space.read(panel.code, block).item() == 1
        assert not torch.equal(models.decode(run.model, panel.code), before)
    assert [index for _, index in panel.controls["category"].options] == [0, 1, 2]
    panel.controls["category"].value = 2
    assert space.read(panel.code, "category").tolist() == [[0, 0, 1]]
    code = panel.code
    panel.buttons["draw noise"].click()
    assert (space.read(panel.code, "noise") != space.read(code, "noise")).all() and panel.error == ""
    assert torch.equal(space.swap(panel.code, code, "noise"), code)  # nothing else has moved
    panel = Panel(run.model, run.stats, sources=pictures(0, 3))
    assert panel.controls["category"].value is None and panel.error == ""  # read from a picture it is soft


@both
def test_metrics_leave_the_noise_out_and_say_so(name, gan_runs, monkeypatch):
    from disentkit import metrics
    from disentkit.metrics import arrays

    monkeypatch.setattr(arrays, "POINTS", 200)
    found = metrics.mig(gan_runs[name].model, toys.Dots())
    assert {"c1", "c2"} <= set(found["columns"]) and found["left_out"]["noise"] == "not inferred"


def test_larger_nets_and_no_category_are_settings(tmp_path):
    small = {"size": 16, "batch": 4, "steps": 1, "wide": 0.25, "nets": "dsprites", "noise": 4}
    quiet = {"data": toys.Dots(), "device": "cpu", "threads": 1, "say": toys.quiet, "settings": Settings(**small)}
    run = workbench.train("infogan", categories=0, continuous=5, wide=0.5, **quiet)
    assert run.model.codes.names == ("noise", "c1", "c2", "c3", "c4", "c5")
    with pytest.raises(UserError, match="setting categories of infogan must be a whole number of 0 or more, not -1"):
        workbench.train("infogan", categories=-1, **quiet)
    with pytest.raises(UserError, match="setting batch of infogan must be a whole number of 1 or more"):
        workbench.train("infogan", batch=0, **quiet)


def test_none_of_a_code_can_be_said_on_the_command_line():
    from disentkit.commands import _changes

    assert _changes(["categories=0", "continuous=5", "nets=mnist"], Settings()) == {
        "categories": 0, "continuous": 5, "nets": "mnist",
    }  # fmt: skip
    with pytest.raises(UserError, match="--set batch: '0' is not a whole number of 1 or more"):
        _changes(["batch=0"], Settings())


def test_colour_pictures_of_ones_own():
    colour = ArrayData(np.random.default_rng(0).random((20, 3, 16, 16), dtype=np.float32))
    for name, (cls, _) in BOTH.items():
        learner = build(name)
        with seeded(0):
            learner = cls(learner.settings, colour.spec)
        fitted, _ = toys.fit(learner, steps=1, data=colour)
        assert fitted.steps == 1 and learner.model.image_shape == (3, 16, 16)


def test_names_in_the_registry():
    assert methods.learner_class("infogan") is InfoGAN and methods.learner_class("infowgan") is InfoWGAN
