"""The house carries every kind of method the later papers need: one set of tests over all toys, no exceptions."""

import base64
import copy
import io
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from disentkit import models, runs, training, workbench
from disentkit.metrics.blocks import block_stats

pytestmark = pytest.mark.usefixtures("quick_pictures")
every_toy = pytest.mark.parametrize("name", toys.TOYS)


@pytest.fixture(autouse=True)
def _home_of_toys(toy_runs, monkeypatch):
    monkeypatch.setenv("DISENTKIT_HOME", str(toy_runs["EMA"].path.parent.parent))


@pytest.fixture
def base(toy_runs):
    """The base run that every toy is given."""
    return workbench.open_run(toy_runs["EMA"].card["base"]["path"])


# ---- a step that could be captured as one CUDA graph: no value read by the host, nothing brought from it

READS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "allclose", "masked_select", "_unique2", "unique_dim",
         "unique_consecutive", "bincount", "repeat_interleave"}  # fmt: skip
HOST = ("tolist", "numpy", "cpu", "__array__", "item")


class NoHost(TorchDispatchMode):
    """Raises on operations that wait for the device: values read, sizes that depend on values, numbers copied to it."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op._schema.name.removeprefix("aten::")
        if name in READS:
            raise AssertionError(f"{name} reads a value back to the host")
        if name == "lift_fresh":
            raise AssertionError("a tensor made of Python numbers is copied from the host")
        if name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        ):
            raise AssertionError("a boolean mask as index has a size that depends on values")
        return op(*args, **(kwargs or {}))


@contextmanager
def like_a_capture():
    """What fails inside would fail, or wait, on CUDA.

    Tensors made without a device land on `meta`, where nothing can be computed with the CPU's: on CUDA they would be
    made on the host and copied.
    """
    with pytest.MonkeyPatch.context() as patch:
        for method in HOST:
            patch.setattr(torch.Tensor, method, lambda *a, method=method: pytest.fail(f"Tensor.{method} in a step"))
        with torch.device("meta"), NoHost():
            yield


@pytest.mark.parametrize("bad", [
    lambda x: float(x.sum()), lambda x: x.sum().item(), lambda x: 1 if x.sum() > 0 else 0, lambda x: x[x > 0],
    lambda x: x.nonzero(), lambda x: torch.equal(x, x), lambda x: x.unique(), lambda x: x.tolist(), lambda x: x.numpy(),
    lambda x: x + torch.tensor([1.0]), lambda x: x + torch.zeros(4), lambda x: x[[0, 2]], lambda x: torch.where(x > 0),
    lambda x: x.masked_fill_(x > 0, torch.ones(())),
])  # fmt: skip
def test_guard_catches(bad):
    """The guard of the next test is not blind."""
    x = torch.randn(4, generator=torch.Generator().manual_seed(0))
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)), like_a_capture():
        bad(x)


@every_toy
def test_step_stays_on_the_device(name, base):
    learner = toys.build(name, base)
    learner.train()
    learner.rng = torch.Generator().manual_seed(0)
    opt = learner.optimizers()
    batches = [toys.Dots().sample(8, learner.rng) for _ in range(learner.draws)]
    learner.step(opt, *batches)  # a capture warms up first, too
    with like_a_capture():
        losses = learner.step(opt, *batches)
    assert losses and all(value.ndim <= 1 and not value.requires_grad for value in losses.values())


def global_states() -> list:
    return [torch.get_rng_state(), str(np.random.get_state()), str(random.getstate())]


@every_toy
def test_global_randomness_is_left_alone(name, base):
    before = global_states()
    learner = toys.build(name, base)
    toys.fit(learner, steps=3)
    learner.step(learner.optimizers(), *[toys.Dots().sample(4, learner.rng) for _ in range(learner.draws)])
    assert toys.same(before, global_states()) == ""


@every_toy
def test_global_randomness_has_no_say(name, base):
    learned = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learned.append(toys.fit(toys.build(name, base), steps=3)[1])
    assert toys.same(*learned) == ""


@every_toy
def test_same_seed_same_numbers_other_seed_other_numbers(name, base):
    one, two, other = (toys.fit(toys.build(name, base, s), steps=3, seed=s)[1] for s in (0, 0, 1))
    assert toys.same(one, two) == ""
    assert toys.same(one, other) != ""
    # The seed of fit alone, with equal weights to start from, decides the batches and the step's own draws.
    assert toys.same(one, toys.fit(toys.build(name, base, 0), steps=3, seed=1)[1]) != ""


@every_toy
def test_draws_and_reads_are_honoured(name, base):
    learner, seen = toys.build(name, base), []
    step = learner.step
    learner.step = lambda opt, *batches: seen.append(batches) or step(opt, *batches)
    toys.fit(learner, steps=2)
    assert [len(batches) for batches in seen] == [learner.draws] * 2
    for batches in seen:
        assert all(set(batch) == set(learner.reads) for batch in batches)
        assert all(len(batch["x"]) == 8 for batch in batches)
    pictures = [batch["x"] for batches in seen for batch in batches]
    assert not any(torch.equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])  # independent draws


@every_toy
def test_missing_keys_are_said_before_the_first_step(name, base):
    class Bare(toys.Dots):
        def sample(self, n, rng):
            batch = super().sample(n, rng)
            return {"pictures": batch["x"]}

    learner = toys.build(name, base)
    learner.step = lambda *_: pytest.fail("a step was taken")
    with pytest.raises(training.UserError, match=rf"{name} reads 'x', but batches of 'dots' hold only pictures"):
        toys.fit(learner, data=Bare())


# ---- checkpoints


class Stop(Exception):
    """Leaves fit at once, as a crash would."""


def stop_at(step: int):
    def watch(now, rows, learner):
        if now == step:
            raise Stop

    return watch


@every_toy
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_resume_is_bit_identical(name, precision, base, tmp_path):
    _, whole = toys.fit(toys.build(name, base), precision=precision)
    often = {"folder": tmp_path, "checkpoint_seconds": 0, "watch_seconds": 0}
    with pytest.raises(Stop):
        toys.fit(toys.build(name, base), precision=precision, watch=stop_at(8), **often)
    fitted, resumed = toys.fit(toys.build(name, base, seed=9), seed=9, **often)  # all of it comes from the checkpoint
    assert (fitted.started_at, fitted.steps, fitted.precision) == (7, 12, whole_name(precision))
    assert [row["step"] for row in fitted.rows] == [5, 10, 12]
    assert toys.same(whole, resumed) == ""


def whole_name(precision: str) -> str:
    return {"bf16": "bfloat16"}.get(precision, precision)


KILLED = """
import os, signal, sys, pathlib
import toys, torch
from disentkit import methods, training, workbench

base_folder, folder = map(pathlib.Path, sys.argv[1:])
methods.METHODS |= {name: ("toys", name) for name in toys.TOYS}
base = workbench.open_run(base_folder)
toys.fit(toys.build("Toy"), steps=1)  # what PyTorch loads late is loaded once, not in every child
save, written = torch.save, []

def dying_save(state, path):
    written.append(state["step"])
    save(state, path)
    if len(written) == 7:  # killed while the seventh checkpoint is being written
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

for name in toys.TOYS:
    child = os.fork()
    if not child:
        torch.save = dying_save
        toys.fit(toys.build(name, base), folder=folder / name, checkpoint_seconds=0)
        os._exit(0)
    print(name, os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def killed(toy_runs, tmp_path_factory):
    """Folders of trainings of every toy that kill -9 ended, each in a process of its own."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL on this system")
    folder = tmp_path_factory.mktemp("killed")
    root = Path(__file__).parent
    base = runs.base_of(toy_runs["EMA"].path, toy_runs["EMA"].card)
    command = [sys.executable, "-c", KILLED, str(base), str(folder)]
    env = {"PYTHONPATH": f"{root}:{root.parent}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [word for name in toys.TOYS for word in (name, str(int(signal.SIGKILL)))]
    return folder


@every_toy
def test_killed_and_resumed_is_bit_identical(name, killed, base):
    folder = killed / name
    assert (folder / "checkpoint.pt.draft").exists()  # half written when the process died
    _, whole = toys.fit(toys.build(name, base))
    fitted, resumed = toys.fit(toys.build(name, base, seed=9), folder=folder)
    assert fitted.started_at == 6
    assert toys.same(whole, resumed) == ""


# ---- a second stage on a base


@every_toy
def test_base_is_untouched(name, base):
    base = workbench.open_run(base.path)
    base.model.train().requires_grad_(True)  # as no second stage may leave or find it
    before = copy.deepcopy(base.model.state_dict())
    assert any("running_mean" in key for key in before)
    run = toys.train_run(name, base=base)
    assert toys.same(dict(before), dict(base.model.state_dict())) == ""
    assert all(module.training for module in base.model.modules())
    assert all(p.requires_grad and p.grad is None for p in base.model.parameters())
    assert run.card["base"]["weights"] == base.card["weights"]


@every_toy
def test_base_is_no_part_of_the_learner(name, base):
    learner = toys.build(name, base)
    learner.train()
    inside = {id(m) for m in learner.modules()}
    assert learner.base is base
    assert not inside & {id(m) for m in base.model.modules()}
    assert not any(m.training for m in base.model.modules())


# ---- runs


def some_codes(model) -> torch.Tensor:
    prior = getattr(model, "prior", model.codes.prior)  # a model need not have one of its own
    return prior(20, torch.Generator().manual_seed(0))


@every_toy
def test_run_opens_as_it_was_saved(name, toy_runs):
    run = toy_runs[name]
    opened = workbench.open_run(run.path)
    codes = some_codes(run.model)
    assert torch.equal(models.decode(run.model, codes), models.decode(opened.model, codes))
    x = toys.Dots().sample(20, torch.Generator().manual_seed(0))["x"]
    assert torch.equal(models.encode(run.model, x), models.encode(opened.model, x))
    assert set(load_file(run.path / "weights.safetensors")) == set(
        run.model.state_dict()
    )  # no optimiser, no second player
    assert sorted(f.name for f in run.path.iterdir()) == [
        "card.json",
        "history.csv",
        "picture.png",
        "weights.safetensors",
    ]
    assert opened.card == run.card and opened.settings == toys.Settings()
    np.testing.assert_allclose(opened.history, run.history, rtol=1e-5)
    assert not any(p.requires_grad for p in opened.model.parameters())


@every_toy
def test_run_in_half_precision(name, toy_runs, tmp_path):
    run = copy.copy(toy_runs[name])
    opened = workbench.open_run(run.save(tmp_path / "half", half=True))
    whole = (toy_runs[name].path / "weights.safetensors").stat().st_size
    assert (tmp_path / "half" / "weights.safetensors").stat().st_size < 0.75 * whole
    codes = some_codes(run.model)
    torch.testing.assert_close(models.decode(opened.model, codes), models.decode(run.model, codes), rtol=0, atol=1e-2)


@every_toy
def test_card_says_how_the_run_came_about(name, toy_runs):
    card = runs.read_card(toy_runs[name].path)
    assert (card["method"], card["seed"], card["steps"], card["stopped"]) == (name, 0, 12, "done")
    assert (card["device"].split(":")[0], card["threads"]) == ("cpu", 1)
    assert card["precision"] in ("float32", "bfloat16")
    assert card["versions"]["torch"] == torch.__version__
    assert card["factors"][0]["labels"] == ["dot", "ring"]
    assert card["base"]["path"] == "own/EMA-dots-own-s0"


# ---- what stands on a model: statistics, metrics, panels


@every_toy
def test_block_statistics(name, toy_runs):
    model = toy_runs[name].model
    before = global_states()
    rows = block_stats(model, toys.Dots(), n=200)
    assert [row["name"] for row in rows] == list(model.codes.names)
    for block, row in zip(model.codes, rows):
        assert row["low"] < row["high"] and row["importance"] > 0
        assert row["unit"] == "change"  # no toy has a posterior
        assert (row["factor"] is None) == (not (block.scalar and block.inferred))
        assert row["correlation"] is None or 0 < row["correlation"] <= 1
    assert block_stats(model, toys.Dots(), n=200) == rows
    assert toys.same(before, global_states()) == ""


@every_toy
@pytest.mark.parametrize("metric", ["factorvae_score", "betavae_score", "mig"])
def test_metrics(name, metric, toy_runs, monkeypatch):
    from disentkit import metrics
    from disentkit.metrics import arrays

    monkeypatch.setattr(arrays, "POINTS", 500)
    model = toy_runs[name].model
    score = partial(getattr(metrics, metric), model, toys.Dots(), **({} if metric == "mig" else {"L": 5, "votes": 40}))
    if any(block.inferred and block.scalar for block in model.codes):
        assert score()
    else:  # wide and map blocks alone: said, with their names
        with pytest.raises(ValueError, match="left out: " + model.codes.names[0]):
            score()


@every_toy
def test_explorer(name, toy_runs):
    from PIL import Image

    from disentkit.explore import Panel

    run = toy_runs[name]
    panel = Panel(run.model, run.stats)
    assert panel.render(panel.code).dtype == np.uint8
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(panel._repr_mimebundle_()["image/png"]))).convert("RGB"))
    np.testing.assert_array_equal(sheet, panel.sheet())
    for block in run.model.codes.scalars:  # a slider for each, and it moves the picture
        before, slider = models.decode(run.model, panel.code), panel.controls[block.name]
        slider.value = slider.max
        assert run.model.codes.read(panel.code, block.name).item() == pytest.approx(slider.max, rel=1e-5)
        assert not torch.equal(models.decode(run.model, panel.code), before)
    assert panel.error == ""


# ---- on a GPU


@every_toy
def test_captured_step_equals_eager(name, base):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA here: a step captured as one graph cannot be compared with an eager one")
    base = copy.copy(base)
    base.model = copy.deepcopy(base.model).cuda()
    eager, captured = (toys.fit(toys.build(name, base), steps=10, device="cuda", graph=g)[1] for g in (False, True))
    for one, two in zip(eager["rows"], captured["rows"], strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-6)
    for key, weight in eager["weights"].items():
        torch.testing.assert_close(captured["weights"][key], weight, rtol=1e-3, atol=1e-5)
