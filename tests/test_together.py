"""Several seeds side by side: the numbers of each alone, failures that stay alone, Ctrl-C for all."""

import signal

import pytest
import torch
import toys

from disentkit import checkpoints, machine, runs, training, workbench
from disentkit.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_pictures")
SEEDS = (0, 1, 2)


def plan(name: str, seed: int, **options) -> dict:
    """The arguments of fit for a toy."""
    usual = {"steps": 12, "batch": 8, "device": "cpu", "precision": "float32", "threads": 1, "read_every": 5}
    learner = {"learner": toys.build(name, seed=seed), "data": toys.Dots(), "seed": seed, "say": toys.quiet}
    return usual | learner | options


def learned(plan: dict, fitted: training.Fitted) -> dict:
    return {"weights": plan["learner"].state_dict(), "rows": fitted.rows}


def alone(name: str, seed: int, **options) -> dict:
    one = plan(name, seed, **options)
    return learned(one, training.fit(**one))


# ---- in fit


@pytest.mark.parametrize("name, precision", [("TwoDraws", "float32"), ("TwoDraws", "bf16"), ("EMA", "float32")])
def test_together_gives_the_numbers_of_alone(name, precision):
    plans = [plan(name, seed, precision=precision) for seed in SEEDS]
    together = [learned(*pair) for pair in zip(plans, training.fit_together(plans))]
    for seed, ours in zip(SEEDS, together):
        assert toys.same(ours, alone(name, seed, precision=precision)) == ""
    assert toys.same(together[0], together[1]) != ""


def test_they_take_turns_and_the_shorter_one_ends_first():
    plans, seen = [plan("Toy", 0, steps=2), plan("TwoDraws", 1, steps=4)], []
    for one in plans:
        step, name = one["learner"].step, type(one["learner"]).__name__
        one["learner"].step = lambda *a, step=step, name=name: seen.append(name) or step(*a)
    fitted = training.fit_together(plans)
    assert seen == ["Toy", "TwoDraws", "Toy", "TwoDraws", "TwoDraws", "TwoDraws"]
    assert [(f.steps, f.stopped) for f in fitted] == [(2, "done"), (4, "done")]
    assert not any(one["learner"].training for one in plans)


def test_nothing_is_trained_before_all_are_ready():
    """A mistake in the second one is known before the first one's first step; the first one goes on all the same."""
    plans = [plan("Toy", 0), plan("Toy", 1)]
    plans[1]["learner"].reads = ("nothing",)
    fitted = training.fit_together(plans)
    assert isinstance(fitted[1], UserError) and "reads 'nothing'" in str(fitted[1])
    assert toys.same(learned(plans[0], fitted[0]), alone("Toy", 0)) == ""


def test_one_that_fails_leaves_the_others_alone():
    plans = [plan("TwoDraws", seed) for seed in SEEDS]
    step, count = plans[1]["learner"].step, []

    def bad(opt, *batches):
        count.append(1)
        return {k: v * float("nan") if len(count) == 4 else v for k, v in step(opt, *batches).items()}

    plans[1]["learner"].step = bad
    fitted = training.fit_together(plans)
    assert isinstance(fitted[1], UserError) and "g became nan at step 4" in str(fitted[1])
    for seed in (0, 2):
        assert toys.same(learned(plans[seed], fitted[seed]), alone("TwoDraws", seed)) == ""


def test_a_full_gpu_is_told_for_the_one_that_met_it():
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    plans = [plan("Toy", 0), plan("Toy", 1, batch=6)]
    plans[1]["learner"].step = full
    fitted = training.fit_together(plans)
    assert fitted[0].stopped == "done" and "out of memory at batch 6. Take settings with batch=3" in str(fitted[1])


def test_control_c_ends_all_of_them_between_steps_and_they_go_on(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    plans = [plan("TwoDraws", seed, folder=tmp_path / str(seed)) for seed in SEEDS]
    step, count = plans[1]["learner"].step, []
    plans[1]["learner"].step = lambda *a: (
        count.append(1), len(count) == 5 and signal.raise_signal(signal.SIGINT), step(*a)
    )[2]  # fmt: skip
    fitted = training.fit_together(plans)
    assert [f.stopped for f in fitted] == ["interrupted"] * 3 and [f.steps for f in fitted] == [6, 5, 5]
    assert all((tmp_path / str(seed) / checkpoints.CHECKPOINT).exists() for seed in SEEDS)
    assert signal.getsignal(signal.SIGINT) is handler
    plans = [plan("TwoDraws", seed, folder=tmp_path / str(seed)) for seed in SEEDS]
    for seed, one, again in zip(SEEDS, plans, training.fit_together(plans)):
        assert again.started_at in (5, 6) and toys.same(learned(one, again), alone("TwoDraws", seed)) == ""


def test_every_turn_has_its_own_threads_and_they_are_given_back(monkeypatch):
    """A checkpoint may bring a thread count of its own; the others must not get it."""
    before, asked = torch.get_num_threads(), []
    plans = [plan("Toy", 0, threads=3, steps=2), plan("Toy", 1, threads=5, steps=2)]
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for one in plans:
        step, wanted = one["learner"].step, one["threads"]
        one["learner"].step = lambda *a, step=step, wanted=wanted: (step(*a), asked[-1] == wanted or pytest.fail())[0]
    training.fit_together(plans)
    assert asked[-1] == before and {3, 5} <= set(asked)


def test_a_second_control_c_leaves_nothing_open():
    plans = [plan("Toy", seed) for seed in SEEDS]
    plans[2]["learner"].step = lambda *_: [signal.raise_signal(signal.SIGINT) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        training.fit_together(plans)
    assert not any("forward" in vars(one["learner"].coder.encoder) for one in plans)


# ---- by way of the workbench


def together(seeds=SEEDS, toy: str = "TwoDraws", **options):
    usual = {"settings": toys.Settings(), "data": toys.Dots(), "device": "cpu", "threads": 1, "say": toys.quiet}
    return workbench.train_together(toy, seeds, **usual | options)


def test_runs_trained_together_are_those_trained_alone():
    found = together(lr=0.01)
    assert [run.name for run in found] == [f"TwoDraws-dots-own-s{seed}" for seed in SEEDS]
    for seed, run in zip(SEEDS, found):
        one = toys.train_run("TwoDraws", seed=seed, lr=0.01)
        assert toys.same(dict(run.model.state_dict()), dict(one.model.state_dict())) == ""
        assert run.history.equals(one.history) and run.stats == one.stats
        drop = ("seconds", "name")
        ours, theirs = ({k: v for k, v in r.card.items() if k not in drop} for r in (run, one))
        assert ours == theirs
    assert not [f for f in (runs.home() / "working").iterdir() if f.is_dir()]


def test_a_name_of_ones_own():
    assert [run.name for run in together((3, 5), name="mine here")] == ["mine_here-s3", "mine_here-s5"]


def test_data_are_loaded_once(monkeypatch):
    from disentkit import data as datasets

    loaded, load = [], datasets.load
    monkeypatch.setattr(datasets, "load", lambda *a, **k: loaded.append(a) or load(*a, **k))
    workbench.train_together("vae", [0, 1], preset="smoke", steps=2, device="cpu", threads=1, say=toys.quiet)
    assert len(loaded) == 1


def test_a_seed_that_fails_is_an_exception_among_runs(monkeypatch):
    step = toys.TwoDraws.step

    def bad(self, opt, *batches):
        losses = step(self, opt, *batches)
        return {k: v / 0 for k, v in losses.items()} if self.rng.initial_seed() == machine.streams(1)[2] else losses

    monkeypatch.setattr(toys.TwoDraws, "step", bad)
    found = together()
    assert [type(run).__name__ for run in found] == ["Run", "UserError", "Run"]
    assert found[0].path and found[2].path


@pytest.mark.parametrize("seeds, message", [
    ([], "seeds must be different whole numbers, one or more"), ([1, 1], "must be different whole numbers"),
    ([0, -1], "seed must be a whole number in 0 ... "), ([0, 0.5], "seed must be a whole number"),
])  # fmt: skip
def test_seeds_that_cannot_be(seeds, message, monkeypatch):
    monkeypatch.setattr(training, "fit_together", lambda *_: pytest.fail("trained"))
    with pytest.raises(UserError, match=message):
        together(seeds)


def test_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA here: several captured graphs on streams of their own cannot be tried")
    plans = [plan("TwoDraws", seed, device="cuda", graph=True) for seed in SEEDS]
    for seed, one, fitted in zip(SEEDS, plans, training.fit_together(plans)):
        wanted = alone("TwoDraws", seed, device="cuda", graph=True)
        for key, weight in wanted["weights"].items():
            torch.testing.assert_close(one["learner"].state_dict()[key], weight, rtol=1e-3, atol=1e-5)
        assert fitted.stopped == "done"
