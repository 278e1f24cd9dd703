"""Probes: measured while a model trains, in the history at their step, and without any say in the training."""

import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
import toys

from disentkit import models, plots, probes, runs, workbench
from disentkit.codes import gaussian_blocks
from disentkit.data.base import ArrayData
from disentkit.data.factors import Factor, FactorSpace
from disentkit.errors import UserError
from disentkit.metrics import arrays

pytestmark = pytest.mark.usefixtures("quick_pictures")


def bias(learner) -> dict[str, float]:
    """A probe that encodes and decodes fixed pictures, as the ready ones do."""
    x = toys.Dots().sample(6, torch.Generator().manual_seed(0))["x"]
    back = models.decode(learner.model, models.encode(learner.model, x))
    return {"error": float((back - x).abs().mean()), "steps_done": float(learner.t) + 1}


def without(rows: list[dict], *names: str) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in names} for row in rows]


# ---- in fit


@pytest.mark.parametrize("name, precision", [
    ("Toy", "float32"), ("Critic", "float32"), ("EMA", "float32"), ("EMA", "bf16"), ("TwoDraws", "bf16"),
])  # fmt: skip
def test_a_probe_changes_nothing_in_the_training(name, precision):
    """Batch norm, two players, one-hot codes, bf16: weights, optimisers and losses are equal to the bit."""
    _, plain = toys.fit(toys.build(name), precision=precision)
    _, probed = toys.fit(toys.build(name), precision=precision, probe=bias, probe_every=5)
    assert toys.same(plain["weights"], probed["weights"]) == ""
    assert toys.same(plain["optimizers"], probed["optimizers"]) == ""
    assert plain["rows"] == without(probed["rows"], "error", "steps_done")


def test_values_stand_at_their_step_and_nowhere_else():
    fitted, _ = toys.fit(toys.build("Toy"), steps=12, probe=bias, probe_every=4)  # losses are read every 5
    assert [row["step"] for row in fitted.rows] == [4, 5, 8, 10, 12]
    assert [row.get("steps_done") for row in fitted.rows] == [4, None, 8, None, 12]
    assert all("recon" in row for row in fitted.rows)
    fitted, _ = toys.fit(toys.build("Toy"), steps=7, probe=bias)  # without an interval: at the end
    assert [row.get("steps_done") for row in fitted.rows] == [None, 7]


def test_a_probed_training_resumes_as_if_it_had_not_stopped(tmp_path):
    whole = toys.fit(toys.build("EMA"), probe=bias, probe_every=3)[1]

    class Stop(Exception):
        pass

    def stop(step, rows, learner):
        if step == 8:
            raise Stop

    often = {"folder": tmp_path, "checkpoint_seconds": 0, "watch_seconds": 0, "probe": bias, "probe_every": 3}
    with pytest.raises(Stop):
        toys.fit(toys.build("EMA"), watch=stop, **often)
    fitted, resumed = toys.fit(toys.build("EMA", seed=9), **often)
    assert fitted.started_at == 7 and toys.same(whole, resumed) == ""


def test_a_probe_sees_a_frozen_model():
    def look(learner):
        seen.append((learner.training, torch.is_grad_enabled(), torch.get_num_threads()))
        return {}

    seen, threads = [], torch.get_num_threads()
    learner = toys.build("EMA")
    toys.fit(learner, steps=2, threads=2, probe=look, probe_every=1)
    assert seen == [(False, False, 1)] * 2 and torch.get_num_threads() == threads


@pytest.mark.parametrize("probe, message", [
    (lambda learner: {"noise": float(torch.rand(1, generator=learner.rng))}, "drew from the run's generators"),
    (lambda learner: {"recon": 1.0}, "measures 'recon', but the history has a column of that name"),
])  # fmt: skip
def test_a_probe_that_would_spoil_the_run_is_refused(probe, message):
    with pytest.raises(ValueError, match=message):
        toys.fit(toys.build("Toy"), probe=probe, probe_every=2)


def test_an_interval_that_cannot_be():
    with pytest.raises(UserError, match="probe_every must be a whole number of 1 or more, not 0"):
        toys.fit(toys.build("Toy"), probe=bias, probe_every=0)


# ---- by way of the workbench


def middle(model, data) -> dict[str, float]:
    return {"middle": float(models.decode(model, model.codes.centre(1)).mean())}


def test_a_run_keeps_what_its_probes_measured():
    run = toys.train_run("Toy", probes=[middle], probe_every=4)
    assert run.card["probes"] == {"names": ["middle"], "every": 4}
    text = (run.path / "history.csv").read_text().splitlines()
    assert text[0].endswith(",middle") and text[1].endswith(",") and not text[4].endswith(",")
    kept = workbench.open_run(run.path).history
    assert kept["middle"].notna().tolist() == [step in (4, 8, 12) for step in kept["step"]]
    assert kept["middle"].iloc[-1] == pytest.approx(middle(run.model, None)["middle"], rel=1e-5)
    plain = toys.train_run("Toy")
    assert plain.card["probes"] is None
    assert toys.same(dict(plain.model.state_dict()), dict(run.model.state_dict())) == ""


def test_a_run_without_the_probes_is_not_the_one_asked_for(monkeypatch):
    def trained(**options):
        usual = {"settings": toys.Settings(), "data": toys.Dots(), "device": "cpu", "threads": 1, "say": toys.quiet}
        return workbench.load_or_train("Toy", **usual | options)

    plain = trained()
    probed = trained(probes=[middle], probe_every=4)
    assert probed.path != plain.path
    monkeypatch.setattr(workbench, "train", lambda *a, **k: pytest.fail("trained instead of opened"))
    assert trained(probes=[middle], probe_every=4).path == probed.path
    assert trained().path in (plain.path, probed.path)


@pytest.mark.parametrize("options, message", [
    ({"probes": ["score"]}, "unknown measure 'score'. Did you mean 'scores'"),
    ({"probe_every": 5}, "probe_every=5 measures nothing: name the measures"),
    ({"probes": "recon", "probe_every": 0}, "probe_every must be a whole number of 1 or more, not 0"),
])  # fmt: skip
def test_mistakes_are_said_before_the_training(options, message, monkeypatch):
    monkeypatch.setattr(toys.Toy, "step", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(UserError, match=message):
        toys.train_run("Toy", **options)
    assert not list((runs.home() / "working").glob("*/"))


def test_scores_need_factors():
    with pytest.raises(UserError, match="scores need two factors or more that vary; data set 'arrays' has none"):
        probes.probe(["scores"], ArrayData(np.zeros((4, 16, 16), np.uint8)))
    one = FactorSpace([Factor("digit", "real", (0.0, 1.0)), Factor("same", "real", (3.0,))])
    data = ArrayData(np.zeros((2, 16, 16), np.uint8), np.array([[0, 3], [1, 3]]), one, "few")
    with pytest.raises(UserError, match="'few' has only digit, same"):
        probes.probe("scores", data)
    assert probes.probe((), data) is None


def test_the_picture_of_a_training_shows_probes(monkeypatch):
    import io

    from PIL import Image

    monkeypatch.undo()
    rows = [{"step": s, "recon": 1 / s, **({"middle": 0.5 * s} if s % 2 else {})} for s in range(1, 8)]
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda self, x, y, **k: drawn.append((list(x), list(y))))
    picture = plots.training_picture({"pictures": torch.zeros(10, 1, 8, 8)}, pd.DataFrame(rows))
    assert Image.open(io.BytesIO(picture)).size == (880, 256)
    assert drawn[1] == ([1, 3, 5, 7], [0.5, 1.5, 2.5, 3.5])


# ---- the ready ones


class Written(torch.nn.Module):
    """Reads its code from the first pixels of a picture, where `data` has written the factors."""

    image_shape = (1, 4, 4)

    def __init__(self, read, d: int):
        super().__init__()
        self.codes, self.read = gaussian_blocks(d), read

    def encode(self, x):
        return self.read(x.flatten(1))

    def decode(self, codes):
        return torch.full((len(codes), *self.image_shape), 0.5)


@pytest.fixture
def written(monkeypatch):
    """A full grid of three factors with five values, each in a pixel of its own."""
    monkeypatch.setattr(arrays, "POINTS", 2_000)
    values = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    images = np.zeros((len(values), 4, 4), np.float32)
    images[:, 0, :3] = values
    space = FactorSpace([Factor(name, "real", tuple(np.linspace(0, 1, 5).tolist())) for name in "abc"])
    return ArrayData(images, values, space, "written")


def test_scores_of_the_factors_themselves_are_high_and_of_constants_chance(written):
    good = probes.scores(Written(lambda x: x[:, :3], 3), written)
    assert list(good) == ["factorvae", "factorvae_unpruned", "surviving", "betavae", "mig"]
    assert good["factorvae"] == 1 and good["surviving"] == 3 and good["betavae"] > 0.95 and good["mig"] > 0.95
    bad = probes.scores(Written(lambda x: x[:, :3] * 0, 3), written)
    assert bad["factorvae"] == pytest.approx(1 / 3, abs=0.02) and bad["surviving"] == 0 and bad["mig"] == 0
    assert all(type(value) is float for value in good.values())


def test_measures_draw_from_nothing_that_others_use(written):
    model = Written(lambda x: x[:, :3], 3)
    before = [torch.get_rng_state(), str(np.random.get_state()), str(random.getstate())]
    assert probes.scores(model, written) == probes.scores(model, written)
    assert probes.recon(model, written) == probes.recon(model, written)
    assert toys.same(before, [torch.get_rng_state(), str(np.random.get_state()), str(random.getstate())]) == ""


def test_reconstruction_error_on_fixed_pictures(written):
    grey = Written(lambda x: x[:, :3], 3)
    assert probes.recon(grey, written)["recon_fixed"] == pytest.approx(16 * math.log(2), rel=1e-5)
    grey.decode = lambda codes: torch.zeros(len(codes), 1, 4, 4)  # surely black, where 12 of the pictures are not
    error = probes.recon(grey, written)["recon_fixed"]
    x = written.sample(probes.FIXED, torch.Generator().manual_seed(0))["x"]
    assert error == pytest.approx(float(x.sum()) / len(x) * -math.log(probes.SURE), rel=1e-3)


def test_reconstruction_error_draws_from_the_posterior(written):
    """A VAE's error at the mean may be far from the one that it is trained for."""

    class Wide(Written):
        def posterior(self, x):
            return torch.zeros(len(x), 3), torch.zeros(len(x), 3)

    seen = []
    wide = Wide(lambda x: x[:, :3], 3)
    wide.decode = lambda codes: seen.append(codes) or torch.full((len(codes), 1, 4, 4), 0.5)
    probes.recon(wide, written)
    assert torch.cat(seen).std(0).numpy() == pytest.approx(np.ones(3), abs=0.1)


def test_true_total_correlation(monkeypatch):
    """The probe hands on what metrics.tc says, under names that no method's history has."""
    from disentkit.metrics import tc

    asked = []
    monkeypatch.setattr(tc, "total_correlation", lambda *a: asked.append(a) or {"tc": 1.5, "mi": 2.5, "dwkl": 3.5})
    assert probes.tc("model", "data") == {"tc_true": 1.5, "mi_true": 2.5, "dwkl_true": 3.5}
    assert asked == [("model", "data")]


@pytest.mark.slow
def test_all_ready_measures_while_a_factorvae_trains():
    options = {"preset": "smoke", "device": "cpu", "threads": 1, "say": toys.quiet}
    plain = workbench.train("factorvae", **options)
    run = workbench.train("factorvae", probes=list(probes.READY), probe_every=15, **options)
    assert toys.same(dict(plain.model.state_dict()), dict(run.model.state_dict())) == ""
    columns = ["factorvae", "mig", "recon_fixed", "tc_true"]
    assert run.history[columns].notna().all(axis=1).tolist() == [step in (15, 30) for step in run.history["step"]]
