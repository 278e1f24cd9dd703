"""The workbench: train, open, load_or_train, score; what it says, what it refuses, what it lets go."""

import dataclasses
import gc
import os
import signal
import types
import weakref
from functools import partial

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from disentkit import machine, methods, models, plots, runs, training, workbench
from disentkit.data import load
from disentkit.data.base import ArrayData
from disentkit.data.laws import Correlated, HeldOut
from disentkit.errors import UserError

METHODS = list(methods.METHODS)
BOXED = ("finegan", "finegan_hard", "mixnmatch", "mixnmatch_feature")  # they learn from boxes, which emblems have
NO_VAES = ("infogan", "infowgan", "mix", "gzsnet", "aeds", "stargan", "elegant", "biggan", "directions", *BOXED)
SECOND = {"directions": "vae", "finegan_hard": "finegan", "mixnmatch_feature": "mixnmatch"}  # stages, and their bases
pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture(autouse=True)
def _nothing_is_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")


def smoke(method: str, **options) -> workbench.Run:
    return workbench.train(method, **{"preset": "smoke", "device": "cpu", "threads": 1, "say": toys.quiet} | options)


def needed(method: str) -> dict:
    """What a method must be given besides: data with boxes, or a trained model to build on."""
    more = {"data": "emblems"} if method in BOXED else {}
    return more | ({"base": smoke(SECOND[method], steps=2, **more)} if method in SECOND else {})


@pytest.fixture
def never(monkeypatch):
    """From here on, training is a failure."""

    def use():
        monkeypatch.setattr(workbench, "train", lambda *a, **k: pytest.fail("trained instead of opened"))

    return use


# ---- from training to scores


@pytest.mark.parametrize("method", METHODS)
def test_train_save_open_score(method, never):
    before, more = torch.get_rng_state(), needed(method)
    name = f"{method}-{more.get('data', 'dsprites')}-smoke-s0"
    run = smoke(method, steps=6, **more)
    assert torch.equal(before, torch.get_rng_state())
    assert run.path == runs.home() / "runs" / name
    assert (run.card["preset"], run.card["steps"], run.card["stopped"]) == ("smoke+", 6, "done")
    assert [row["name"] for row in run.stats] == list(run.model.codes.names)
    assert not (runs.home() / "working" / run.name).exists()
    assert repr(run).startswith(f"Run({name}: 6 of 6 steps in ")

    opened = workbench.open_run(run.name)
    codes = getattr(run.model, "prior", run.model.codes.prior)(8, torch.Generator().manual_seed(0))
    assert torch.equal(models.decode(run.model, codes), models.decode(opened.model, codes))
    x = run.data().sample(8, torch.Generator().manual_seed(0))["x"]
    if models.can_encode(run.model):
        assert torch.equal(models.encode(run.model, x), models.encode(opened.model, x))

    never()
    assert workbench.load_or_train(method, preset="smoke", steps=6, **more).path == run.path


@pytest.fixture
def few_pictures(monkeypatch):
    """Scores of no worth, in no time."""
    from disentkit import metrics
    from disentkit.metrics import arrays

    monkeypatch.setattr(arrays, "POINTS", 200)
    monkeypatch.setattr(metrics, "betavae_score", partial(metrics.betavae_score, L=5, votes=20))


def test_score_is_kept_in_the_card(few_pictures):
    run = smoke("vae", steps=2)
    scores = workbench.score(run, L=5, votes=20)
    assert set(scores) == {"factorvae_score", "betavae_score", "mig"}
    again = workbench.open_run(run.path)  # the card is still one that opens
    assert again.card["scores"] == workbench._plain(scores)
    assert again.card["weights"] == run.card["weights"]


@pytest.mark.slow
def test_more_scores(few_pictures):
    run = smoke("vae", steps=2)
    scores = workbench.score(run, more=True, L=5, votes=20)
    assert set(scores) == {"factorvae_score", "betavae_score", "mig", *workbench.scores.MORE}
    assert workbench.open_run(run.path).card["scores"] == workbench._plain(scores)


def test_shipped_runs_are_not_written_by_score(monkeypatch, few_pictures):
    run = toys.train_run("Toy")
    run.save(runs.SHIPPED / "course")
    monkeypatch.chdir(runs.SHIPPED)
    written = (runs.SHIPPED / "course" / "card.json").read_bytes()
    workbench.score(workbench.open_run("course"), toys.Dots(), L=5, votes=20)
    assert (runs.SHIPPED / "course" / "card.json").read_bytes() == written


def test_scores_on_other_data_stay_out_of_the_card(few_pictures):
    run = smoke("vae", steps=2)
    tied = load("dsprites", size=32, law=Correlated("x", "y", 1.0))
    assert workbench.score(run, tied, L=5, votes=20)["mig"]
    assert run.card["scores"] == {} == workbench.open_run(run.path).card["scores"]


def test_a_run_finds_its_files_from_any_folder(monkeypatch, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        Image.new("L", (32, 32), 10 * i).save(pictures / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    options = {"data": "folder", "data_options": {"path": "pictures", "color": False}, "steps": 2}
    run = smoke("vae", **options)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(workbench.open_run(run.path).data()) == 20
    options["data_options"] = {"path": pictures, "color": False}
    there = {"preset": "smoke", "device": "cpu", "threads": 1, "say": toys.quiet} | options
    assert workbench.load_or_train("vae", **there).path == run.path
    Image.new("L", (32, 32), 255).save(pictures / "0.png")  # other pictures, the same folder
    assert workbench.load_or_train("vae", **there).path != run.path


def test_what_fails_after_the_last_step_costs_no_training(monkeypatch):
    def refuse(*args, **more):
        raise RuntimeError("no statistics today")

    options = {"steps": 4, "seed": 3}
    with monkeypatch.context() as patch:
        patch.setattr(workbench, "block_stats", refuse)
        with pytest.raises(RuntimeError, match="no statistics today"):
            smoke("vae", **options)
    said = []
    monkeypatch.setattr(models.Learner, "step", lambda *a: pytest.fail("trained again"))
    monkeypatch.setattr(methods.learner_class("vae"), "step", lambda *a: pytest.fail("trained again"))
    run = smoke("vae", **options, say=said.append)
    assert said[0].endswith("going on where it was interrupted") and run.card["steps"] == 4 and run.path.exists()


def test_other_threads_on_resume_are_said(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(workbench, "block_stats", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            smoke("vae", steps=4, precision="float32")
    said = []
    run = smoke("vae", steps=4, threads=2, precision="float32", say=said.append)
    assert run.card["threads"] == 1 and any(s.startswith("going on with threads 1, as it began") for s in said)
    assert not any("precision" in s for s in said)


def test_same_seed_same_run_other_seed_other_run():
    weights = [dict(toys.train_run("TwoDraws", seed=s).model.state_dict()) for s in (0, 0, 1)]
    assert toys.same(weights[0], weights[1]) == "" and toys.same(weights[0], weights[2]) != ""


def test_own_arrays():
    batch = toys.Dots().sample(64, torch.Generator().manual_seed(0))
    data = ArrayData(
        (batch["x"][:, 0] * 255).byte().numpy(), batch["factors"].numpy(), toys.Dots().space, "my pictures/2024"
    )
    run = workbench.train("vae", data=data, settings=methods.settings_class("vae")(size=16, steps=3, batch=8),
                          device="cpu", threads=1, say=toys.quiet)  # fmt: skip
    assert run.path.parent == runs.home() / "runs" and run.path.name == "vae-my_pictures_2024-own-s0"
    assert run.stats[0]["factor"] in (None, *data.space.names)
    opened = workbench.open_run(run.path)
    with pytest.raises(UserError, match="was trained on arrays of your own; pass them as data="):
        opened.data()


def test_own_arrays_take_the_settings_of_a_folder():
    data = ArrayData(np.zeros((20, 32, 32), np.uint8), name="mine")
    run = smoke("vae", data=data, steps=1)
    assert run.name == "vae-mine-smoke-s0" and run.settings == dataclasses.replace(
        methods.settings_for("vae", "folder", "smoke"), steps=1
    )
    assert workbench.load_or_train("vae", data=data, preset="smoke", steps=1).path == run.path


def test_pictures_without_factors():
    data = ArrayData(np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8), name="mine")
    settings = methods.settings_class("vae")(size=16, steps=2, batch=4)
    run = workbench.train("vae", data=data, settings=settings, device="cpu", threads=1, say=toys.quiet)
    assert all(row["factor"] is None for row in run.stats) and run.card["factors"] is None
    assert workbench.open_run(run.path).model.image_shape == (3, 16, 16)


# ---- load_or_train takes exactly what was asked for


def trained(**options):
    usual = {"settings": toys.Settings(), "data": toys.Dots(), "device": "cpu", "threads": 1, "say": toys.quiet}
    return workbench.load_or_train("Toy", **usual | options)


def test_load_or_train_opens_only_the_very_same(toy_runs, monkeypatch):
    first = trained()
    others = [
        trained(seed=1), trained(lr=0.5), trained(data=toys.Dots().with_law(Correlated("x", "y", 1.0))),
        trained(base=toy_runs["EMA"]),
    ]  # fmt: skip
    assert len({run.path for run in [first, *others]}) == 5
    monkeypatch.setattr(workbench, "train", lambda *a, **k: pytest.fail("trained instead of opened"))
    assert trained().path == first.path
    assert trained(data=toys.Dots().with_law(Correlated("x", "y", 1.0))).path == others[2].path
    assert trained(lr=0.5).path == others[1].path


def test_load_or_train_is_not_fooled_by_a_law_or_an_unfinished_run():
    settings = {"preset": "smoke", "steps": 2, "device": "cpu", "threads": 1, "say": toys.quiet}
    tied = workbench.train("vae", data=load("dsprites", size=32, law=Correlated("x", "y", 1.0)), **settings)
    early = workbench.train("vae", minutes=1e-9, **settings)
    assert early.card["stopped"] == "minutes" and early.card["steps"] == 1
    whole = workbench.load_or_train("vae", **settings)
    assert whole.path not in (tied.path, early.path) and whole.card["stopped"] == "done"
    assert workbench.load_or_train("vae", **settings).path == whole.path


def test_load_or_train_takes_the_newest_and_passes_over_damaged_ones():
    one, two = toys.train_run("Toy"), toys.train_run("Toy")
    os.utime(one.path, (2e9, 2e9))
    assert trained().path == one.path
    (one.path / "card.json").write_text("{")
    assert trained().path == two.path


# ---- anew, or going on


def interrupted(step: int = 5, **options) -> workbench.Run:
    """A training that the stop button ended after `step` steps."""
    fit = training.fit

    def stopped(learner, data, **kwargs):
        one, count = learner.step, []
        learner.step = lambda *a: (count.append(1), len(count) == step and signal.raise_signal(signal.SIGINT), one(*a))[
            2
        ]
        return fit(learner, data, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fit", stopped)
        return toys.train_run("TwoDraws", **options)


def test_an_interrupted_training_goes_on_and_another_starts_anew():
    whole, said = toys.train_run("TwoDraws"), []
    run = interrupted(say=said.append)
    assert run.path is None and run.card["stopped"] == "interrupted" and run.card["steps"] == 5
    assert said[0] == "TwoDraws-dots-own-s0: starting anew from seed 0"
    assert said[1] == "interrupted at step 5 of 12; the model is yours as it stands. Call again to go on."
    assert models.decode(run.model, run.model.prior(2, torch.Generator())).shape == (2, 1, 16, 16)
    kept = workbench.open_run(run.save())  # it can be kept as it stands
    assert kept.card["stopped"] == "interrupted" and kept.history["step"].iloc[-1] == 5

    said.clear()
    resumed = toys.train_run("TwoDraws", say=said.append)
    assert said[0] == "TwoDraws-dots-own-s0: going on where it was interrupted"
    assert toys.same(dict(whole.model.state_dict()), dict(resumed.model.state_dict())) == ""
    assert resumed.card["steps"] == 12 and resumed.card["stopped"] == "done"

    said.clear()
    again = toys.train_run("TwoDraws", say=said.append)  # a finished one is not interrupted
    assert said[0].endswith("starting anew from seed 0")
    assert toys.same(dict(whole.model.state_dict()), dict(again.model.state_dict())) == ""


def test_resume_false_starts_anew_and_changes_are_refused():
    interrupted()
    with pytest.raises(
        UserError, match="had settings.lr = 0.001, now it is 0.5. Put it back to go on; to start anew, train "
    ):
        toys.train_run("TwoDraws", lr=0.5)
    with pytest.raises(UserError, match="had data = .*, now it is"):
        toys.train_run("TwoDraws", data=toys.Dots().with_law(HeldOut(toys.Dots().law, lambda v: v[:, 0] == 0)))
    said = []
    run = toys.train_run("TwoDraws", lr=0.5, resume=False, say=said.append)
    assert said[0].endswith("starting anew from seed 0") and run.card["stopped"] == "done"


# ---- what a card says


def test_paper_is_float32_also_with_changes(monkeypatch):
    monkeypatch.setattr(machine, "has_bf16", lambda device: True)
    small = {"steps": 1, "batch": 2, "device": "cpu", "threads": 1, "say": toys.quiet}
    assert workbench.train("vae", preset="paper", **small).card["precision"] == "float32"
    run = workbench.train("vae", preset="smoke", **small)
    assert (run.card["precision"], run.card["preset"], run.card["settings"]["batch"]) == ("bfloat16", "smoke+", 2)


def test_own_settings_are_not_called_a_preset():
    assert toys.train_run("Toy").card["preset"] == "own"


def test_trouble_on_the_way_stands_in_the_card(monkeypatch):
    def full(folder, state):
        return "No space left on device"

    fit = training.fit
    monkeypatch.setattr(training, "save_checkpoint", full)
    monkeypatch.setattr(training, "fit", lambda *a, **k: fit(*a, checkpoint_seconds=0, **k))
    run = toys.train_run("Toy")
    assert "checkpoint at step 1 could not be written (No space left on device)" in run.card["notes"][0]


# ---- what it refuses


@pytest.mark.parametrize("method, options, message", [
    ("factorvea", {}, "unknown method 'factorvea'. Did you mean 'factorvae'"),
    ("vae", {"preset": "quik"}, "unknown preset 'quik'. Did you mean 'quick'"),
    ("vae", {"data": "dsprite"}, "has no preset 'smoke' for data 'dsprite'"),
    ("vae", {"preset": "paper", "data": "digits"}, "no preset 'paper' for data 'digits'; it has .* own settings="),
    ("vae", {"gama": 1}, "vae has no setting 'gama'; it has beta, d"),
    ("vae", {"data_options": {"sise": 32}}, "unknown option for data set 'dsprites': 'sise'. Did you mean 'size'"),
    ("vae", {"data_options": {"law": Correlated("x", "y", 1.0)}}, "a card cannot keep law=.*; give data=data.load"),
    ("vae", {"data_options": {"size": 64}}, r"the settings say size=32, but the pictures are \(1, 64, 64\)"),
    ("vae", {"device": "gpu"}, "unknown device 'gpu'"),
    ("vae", {"device": "cpu:x"}, "unknown device 'cpu:x'"),
    ("vae", {"precision": "half"}, "unknown precision 'half'"),
    ("vae", {"preset": "smoke+"}, r"unknown preset 'smoke\+'"),
    ("vae", {"data": np.zeros((4, 32, 32))}, "data= takes a data set's name, or a Data .*, not ndarray"),
    ("vae", {"settings": {"steps": 3}}, "settings= takes the Settings of the method's file, not {'steps': 3}"),
    ("vae", {"steps": "many"}, "setting steps of vae must be a whole number of 1 or more, not 'many'"),
    ("vae", {"steps": 2.5}, "not 2.5"),
    ("vae", {"steps": True}, "not True"),
    ("vae", {"batch": 0}, "setting batch of vae must be a whole number of 1 or more, not 0"),
    ("vae", {"beta": float("nan")}, "setting beta of vae must be a finite number, not nan"),
    ("vae", {"lr": -1.0}, "setting lr of vae must be a finite number above 0, not -1.0"),
    ("vae", {"seed": -1}, "seed must be a whole number in 0 ... [0-9]+, not -1"),
    ("vae", {"seed": 2**62}, "seed must be a whole number in 0 ... "),
    ("vae", {"minutes": 0}, "minutes must be a finite number above 0, not 0"),
    ("vae", {"threads": 0}, "threads must be a whole number in 1 ... 1024, not 0"),
    ("vae", {"base": "nothing"}, "no run 'nothing': there are none"),
])  # fmt: skip
def test_errors_say_what_was_wrong(method, options, message):
    with pytest.raises(UserError, match=message):
        smoke(method, **options)


def test_load_or_train_refuses_the_same():
    with pytest.raises(UserError, match="unknown preset 'quik'"):
        workbench.load_or_train("vae", preset="quik")
    with pytest.raises(UserError, match="unknown method 'x'"):
        workbench.load_or_train("x")


# ---- memory


def test_the_learner_is_freed():
    made = []

    class Watched(toys.TwoDraws):
        __module__ = toys.__name__  # where its Settings stand

        def __init__(self, *args):
            super().__init__(*args)
            made.extend([weakref.ref(self), weakref.ref(self.D)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toys, "TwoDraws", Watched)
        run = toys.train_run("TwoDraws")
    gc.collect()
    assert [ref() for ref in made] == [None, None]  # its optimisers and players, too, while the model lives
    assert run.model.codes.size == 4


def test_a_replaced_model_is_let_go(monkeypatch):
    run, moved = toys.train_run("Toy"), []
    run.model.to = moved.append  # what would free the memory of a GPU
    other = toys.train_run("Toy", seed=1)
    assert moved == [] and other.model is not run.model
    toys.train_run("Toy")
    assert moved == ["cpu"]
    gone = weakref.ref(other.model)
    del other
    gc.collect()
    assert gone() is None  # the workbench itself keeps no model alive


def test_live_picture(capsys):
    run = toys.train_run("Toy", live=True)
    assert "Image" in capsys.readouterr().out and run.picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("columns", [0, 1, 5, 9])
def test_picture_of_a_training(columns, monkeypatch):
    """Pictures and curves of any number of losses; columns of vectors are left out."""
    import io

    import pandas as pd
    from PIL import Image

    monkeypatch.undo()
    rows = [{"step": s, **{f"loss{chr(97 + i)}": 1 / s for i in range(columns)}, "kl_0": 1.0} for s in (1, 2, 3)]
    pictures = {
        name: torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)) for name in ("pictures", "again")
    }
    image = Image.open(io.BytesIO(plots.training_picture(pictures, pd.DataFrame(rows if columns else []))))
    assert image.size == (880, 256)


# ---- presets


@pytest.mark.parametrize("method", METHODS)
def test_presets(method, monkeypatch):
    monkeypatch.setattr(torch.nn.init, "orthogonal_", lambda weight, *a: weight)  # takes seconds where nets are wide
    presets = methods.learner_class(method).PRESETS
    assert {p for p, _ in presets} == {"smoke", "quick", "course", "paper"}
    seen = set()
    for (preset, data), settings in presets.items():
        assert methods.settings_for(method, data, preset) is settings
        spec = _spec(data, settings.size)
        if (settings, spec.image_shape) in seen:
            continue
        seen.add((settings, spec.image_shape))
        learner = methods.learner_class(method)(settings, spec, _base(method, data, preset, spec))
        x = torch.zeros(2, *learner.model.image_shape)
        codes = learner.model.encode(x) if models.can_encode(learner.model) else learner.model.codes.centre(2)
        assert learner.model.decode(codes).shape == x.shape
        rates = [getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name.startswith("lr")]
        assert settings.steps > 0 and settings.batch > 1 and rates and all(0 < rate < 0.1 for rate in rates)
        assert settings.size <= 32 if preset in ("smoke", "quick") else settings.size in (28, 32, 60, 64, 128)
        least = {"directions": 50, "finegan_hard": 100}.get(method, 500)  # a step of these does much
        assert settings.steps <= 60 if preset == "smoke" else settings.steps >= least
        with pytest.raises(dataclasses.FrozenInstanceError):
            settings.size = 1
    if method not in NO_VAES:
        paper = presets["paper", "dsprites"]
        assert (paper.d, paper.batch, paper.steps, paper.lr, paper.size, paper.fc) == (10, 64, 300_000, 1e-4, 64, 128)


def _base(method: str, data: str, preset: str, spec):
    """A run for second stages: an untrained model of the first one, as that preset has it; None for the others."""
    if method not in SECOND:
        return None
    first = SECOND[method]
    if first == "vae":
        settings = dataclasses.replace(methods.settings_for("vae", "dsprites", "quick"), size=spec.image_shape[-1])
    else:
        settings = methods.settings_for(first, data, preset)
    return types.SimpleNamespace(model=methods.learner_class(first)(settings, spec).model)


def _spec(data: str, size: int):
    from disentkit.data.base import Spec

    coloured = ("folder", "shapes3d", "celeba", "chairs", "characters", "lpc", "sprites", "fonts", "fonts_folder",
                "creatures", "ilab", "rafd", "scenes", "emblems", "boxed")  # fmt: skip
    return Spec((3 if data in coloured else 1, size, size), toys.Dots.space)


@pytest.mark.parametrize("method, other", [("gzsnet", "aeds"), ("aeds", "gzsnet"), ("stargan", "elegant")])
def test_settings_of_another_method(method, other):
    settings = methods.settings_for(other, "folder", "smoke")
    with pytest.raises(UserError, match="settings= takes the Settings of the method's file, not Settings"):
        workbench.train(method, data=toys.Dots(), settings=settings, size=16, say=toys.quiet)


@pytest.mark.parametrize("options, told", [
    ({"base": 3}, "base= is a run, or names one, not 3"),
    ({"data_options": 3}, "data_options= maps names to values"),
])  # fmt: skip
def test_what_is_no_run_and_no_mapping_is_told(options, told):
    with pytest.raises(UserError, match=told):
        smoke("vae", **options)


def test_data_without_boxes_are_told_what_is_needed():
    with pytest.raises(UserError, match="its background stage needs boxes, which 'emblems' and 'boxed' have"):
        smoke("finegan", data="dsprites")
