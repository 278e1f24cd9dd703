"""fit: what it promises about precision, seeds, threads, limits, interrupts, checkpoints and errors."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import toys

from disentkit import checkpoints, machine, training
from disentkit.errors import UserError


def often(folder, **options):
    """Options of fit: a checkpoint and a look after every step."""
    return {"folder": folder, "checkpoint_seconds": 0, "watch_seconds": 0, **options}


def at(step: int, act):
    """A `watch` that does `act` once, after that step."""

    def watch(now, rows, learner):
        if now == step:
            act()

    return watch


def interrupt():
    signal.raise_signal(signal.SIGINT)


class Stop(Exception):
    """Leaves fit at once, as a crash would."""


def crash():
    raise Stop


# ---- history


def test_rows_hold_means_over_the_interval():
    learner, seen = toys.build("Toy"), []
    step = learner.step
    learner.step = lambda opt, batch: seen.append(step(opt, batch)) or seen[-1]
    fitted, _ = toys.fit(learner, steps=12)
    assert [row["step"] for row in fitted.rows] == [5, 10, 12]
    assert list(fitted.rows[0]) == ["step", "recon", "code_0", "code_1", "code_2", "code_3"]  # a vector is spread
    for row, part in zip(fitted.rows, (seen[:5], seen[5:10], seen[10:])):
        assert row["recon"] == pytest.approx(sum(s["recon"].item() for s in part) / len(part), rel=1e-6)
        assert row["code_2"] == pytest.approx(sum(s["code"][2].item() for s in part) / len(part), rel=1e-6)
    assert (fitted.steps, fitted.stopped, fitted.device, fitted.threads, fitted.started_at) == (12, "done", "cpu", 1, 0)
    assert not learner.training


def test_reading_more_often_changes_no_number():
    one, two = (toys.fit(toys.build("TwoDraws"), read_every=k)[1] for k in (1, 50))
    assert toys.same(one["weights"], two["weights"]) == ""


def test_watching_changes_no_number():
    def watch(step, rows, learner):
        learner.preview(toys.Dots().sample(4, torch.Generator().manual_seed(step)))
        seen.append(step)

    seen = []
    one, two = (toys.fit(toys.build("Toy"), watch=w, watch_seconds=0)[1] for w in (None, watch))
    assert seen == list(range(1, 13)) and toys.same(one, two) == ""


def test_time_is_a_tensor_that_advances():
    learner, seen = toys.build("Groups"), []
    step = learner.step
    learner.step = lambda opt, batch: seen.append(learner.t.clone()) or step(opt, batch)
    toys.fit(learner, steps=3)
    assert torch.stack(seen).tolist() == [0, 1, 2]


def test_progress_says_how_long_it_will_take(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now.__setitem__(0, now[0] + 0.05) or now[0])
    said = []
    toys.fit(toys.build("Toy"), steps=200, say=said.append)
    assert len(said) == 1 and "steps/s" in said[0] and "will take about" in said[0]
    assert "recon" in capsys.readouterr().err  # the bar


@pytest.mark.parametrize(
    "seconds, text", [(44.6, "45 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_duration(seconds, text):
    assert training.duration(seconds) == text


# ---- precision


class Spy(toys.TwoDraws):
    """Notes what its networks compute in and what the step sees of them."""

    full_precision = ("D",)

    def __init__(self, settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.inner, self.outer, self.losses = {}, {}, []

    def step(self, opt, a, b):
        for name, net in self.networks().items():
            hook = net[0].register_forward_hook(
                lambda m, i, out, name=name: self.inner.setdefault(name, set()).add(out.dtype)
            )
            self.outer.setdefault(name, set()).add(net(torch.zeros(1, net[0].in_features)).dtype)
            hook.remove()
        found = super().step(opt, a, b)
        self.losses += [value.dtype for value in found.values()]
        return found


@pytest.mark.parametrize("precision, inside", [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision(precision, inside):
    with machine.seeded(0):
        learner = Spy(toys.Settings(), toys.Dots().spec)
    forwards = [net.forward.__func__ for net in learner.networks().values()]
    fitted, learned = toys.fit(learner, steps=2, precision=precision)
    assert learner.inner == {"coder.encoder": {inside}, "coder.decoder": {inside}, "D": {torch.float32}}
    assert all(kinds == {torch.float32} for kinds in learner.outer.values())  # what leaves a network is float32
    assert set(learner.losses) == {torch.float32}
    assert all(w.dtype == torch.float32 for w in learned["weights"].values())
    assert [net.forward.__func__ for net in learner.networks().values()] == forwards
    assert not any("forward" in vars(net) for net in learner.networks().values())
    assert fitted.precision == str(inside).removeprefix("torch.")


def test_networks_without_a_forward_of_their_own_are_in_bf16_too():
    """A generator beside its moving average: the one that is trained must not be left out."""
    kinds, learner = [], toys.build("EMA")
    learner.coder.decoder[0].register_forward_hook(lambda m, i, out: kinds.append(out.dtype))
    toys.fit(learner, steps=1, precision="bf16")
    assert set(kinds) == {torch.bfloat16}


def test_forward_is_restored_after_an_error():
    learner = toys.build("Toy")
    with pytest.raises(Stop):
        toys.fit(learner, precision="bf16", watch=at(2, crash), watch_seconds=0)
    assert "forward" not in vars(learner.coder.encoder)


def test_what_is_frozen_in_a_bf16_training_is_float32():
    from disentkit.models import encode

    x = toys.Dots().sample(6, torch.Generator().manual_seed(0))["x"]
    inside = []
    learner = toys.build("Toy")
    toys.fit(
        learner,
        steps=3,
        precision="bf16",
        watch_seconds=0,
        watch=at(3, lambda: inside.append(encode(learner.model, x))),
    )
    assert torch.equal(inside[0], encode(learner.model, x))


def test_full_precision_names_are_checked():
    learner = toys.build("TwoDraws")
    learner.full_precision = ("critic",)
    with pytest.raises(ValueError, match="full_precision names critic; TwoDraws has coder.encoder, coder.decoder, D"):
        toys.fit(learner)


@pytest.mark.parametrize("flags, wanted", [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16),
                                           ({"amx_bf16": True}, torch.bfloat16)])  # fmt: skip
def test_auto_precision_follows_the_processor(flags, wanted, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert machine.pick_precision("auto", torch.device("cpu")) == wanted


# ---- devices


def test_unknown_device_and_precision():
    for options, message in [
        ({"device": "gpu"}, "unknown device 'gpu'; take auto, cpu, cuda or mps"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; take auto, float32 or bf16"),
    ]:
        with pytest.raises(UserError, match=message):
            toys.fit(toys.build("Toy"), **options)


def test_cuda_asked_for_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.pick_device("auto") == torch.device("cpu")
    with pytest.raises(
        UserError, match="device 'cuda' was asked for, but .* Take device='auto', or see: disentkit doctor"
    ):
        toys.fit(toys.build("Toy"), device="cuda")


def test_out_of_gpu_memory():
    learner = toys.build("Toy")

    def step(opt, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    learner.step = step
    with pytest.raises(UserError, match="out of memory at batch 8. Take settings with batch=4, the preset 'quick'"):
        toys.fit(learner)
    assert "forward" not in vars(learner.coder.encoder)


# ---- threads


def test_threads_are_used_recorded_kept_and_given_back(tmp_path, monkeypatch):
    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    with pytest.raises(Stop):
        toys.fit(toys.build("Toy"), **often(tmp_path, threads=7, watch=at(4, crash)))
    assert asked == [7, before]
    fitted, _ = toys.fit(toys.build("Toy"), folder=tmp_path, threads=1)  # going on keeps the number it began with
    assert fitted.threads == 7 and asked == [7, before] * 2
    monkeypatch.setattr(training, "idle_cores", lambda: 5)
    assert toys.fit(toys.build("Toy"), steps=1, threads=None)[0].threads == 5


@pytest.mark.parametrize("usage, most, wanted", [([0, 0], 2, 2), ([97, 3], 2, 1), ([100, 100], 2, 1), ([0, 0], 1, 1),
                                                 ([5, 4, 99, 0], 4, 3)])  # fmt: skip
def test_idle_cores(usage, most, wanted, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(len(usage))), raising=False)
    monkeypatch.setattr(machine.psutil, "cpu_percent", lambda seconds, percpu: usage)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: most)
        assert training.idle_cores() == wanted


BUSY = """
import sys, time
from disentkit import methods, training
from disentkit.data import load

method = methods.learner_class("factorvae")
settings = methods.settings_class("factorvae")(size=64, width=1000, layers=6, batch=64)
data = load("dsprites", size=64)
times = {}
for name, threads in [("idle cores", None), ("one thread", 1)] * 2:
    learner, began = method(settings, data.spec), []
    step = learner.step
    learner.step = lambda *a: began.append(time.perf_counter()) or step(*a)
    fitted = training.fit(learner, data, steps=10, batch=64, threads=threads, say=lambda text: None)
    gaps = sorted(b - a for a, b in zip(began[2:], began[3:]))
    times[name] = min(times.get(name, 9e9), gaps[len(gaps) // 2])
    print(name, fitted.threads, times[name], flush=True)
sys.exit(f"{times}" if times["idle cores"] > 1.5 * times["one thread"] else 0)
"""


@pytest.mark.slow
def test_a_busy_core_does_not_stall_the_training():
    """With one of two cores busy from the start, a step takes at most 1.5 times what it takes with one thread."""
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system cannot bind a process to cores")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("this machine has one core: there is none to keep busy beside the training")
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    env["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    pair = set(cores[:2])
    spin = subprocess.Popen(
        [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{cores[0]}}})\nwhile True: pass"]
    )
    try:
        bind = f"import os\nos.sched_setaffinity(0, {pair})\n"
        done = subprocess.run([sys.executable, "-c", bind + BUSY], env=env, capture_output=True, text=True, timeout=280)
    finally:
        spin.kill()
        spin.wait()
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the limit, the stop button


def test_minutes_stop_cleanly(tmp_path):
    learner = toys.build("Toy")
    fitted, _ = toys.fit(learner, steps=100_000, minutes=0.002)
    assert fitted.stopped == "minutes" and 0 < fitted.steps < 100_000
    assert fitted.rows[-1]["step"] == fitted.steps and not learner.training  # the last steps count, too


def test_the_last_step_is_the_last_step():
    """Neither the limit nor an interrupt makes a finished training look unfinished."""
    assert toys.fit(toys.build("Toy"), steps=1, minutes=1e-9)[0].stopped == "done"
    fitted, _ = toys.fit(toys.build("Toy"), steps=4, watch=at(3, interrupt), watch_seconds=0)
    assert fitted.stopped == "done" and fitted.rows[-1]["step"] == 4


def test_interrupt_takes_effect_between_steps_and_fit_goes_on(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    whole = toys.fit(toys.build("TwoDraws"))[1]
    learner, ends = toys.build("TwoDraws"), []
    step = learner.step

    def interrupted_step(opt, *batches):
        if len(ends) == 6:
            interrupt()  # in the middle of a step
        ends.append(step(opt, *batches))
        return ends[-1]

    learner.step = interrupted_step
    fitted, learned = toys.fit(learner, folder=tmp_path)
    assert (fitted.stopped, fitted.steps, len(ends)) == ("interrupted", 7, 7)  # both players were updated
    assert [row["step"] for row in fitted.rows] == [5, 7]
    assert signal.getsignal(signal.SIGINT) is handler
    assert not learner.training
    again, resumed = toys.fit(toys.build("TwoDraws", seed=5), folder=tmp_path)
    assert (again.started_at, again.stopped) == (7, "done") and again.seconds > fitted.seconds
    assert toys.same(whole, resumed) == ""


def test_a_second_interrupt_interrupts_at_once():
    handler = signal.getsignal(signal.SIGINT)
    learner = toys.build("Toy")
    learner.step = lambda *_: [interrupt(), interrupt()]
    with pytest.raises(KeyboardInterrupt):
        toys.fit(learner)
    assert signal.getsignal(signal.SIGINT) is handler


def test_fit_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(toys.fit(toys.build("Toy"), steps=2)[0].stopped))
    thread.start()
    thread.join()
    assert found == ["done"]


# ---- losses that are no numbers


def broken(bad_step: int, term: str = "recon", value: float = float("nan")):
    learner, count = toys.build("Toy"), []
    step = learner.step

    def bad(opt, batch):
        losses = step(opt, batch)
        count.append(1)
        if len(count) >= bad_step:
            losses[term] = torch.full_like(losses[term], value)
        return losses

    learner.step = bad
    return learner


def test_non_finite_loss_is_named_with_its_first_step():
    with pytest.raises(UserError, match="recon became nan at step 7; training stopped. Take a smaller learning rate"):
        toys.fit(broken(7))
    with pytest.raises(UserError, match="code_0 became -inf at step 12"):
        toys.fit(broken(12, "code", -float("inf")))
    with pytest.raises(UserError, match="recon became inf at step 2"):
        toys.fit(broken(2, value=float("inf")), read_every=1000)


def test_no_checkpoint_holds_a_broken_model(tmp_path):
    with pytest.raises(UserError, match="recon became nan at step 4"):  # found when the checkpoint is written
        toys.fit(broken(4), read_every=1000, **often(tmp_path))
    assert checkpoints.load_checkpoint(tmp_path)["step"] == 3


def test_no_checkpoint_holds_broken_weights(tmp_path):
    """An update can break the weights while the loss, computed before it, still looks well."""
    learner = toys.build("Toy")
    step, count = learner.step, []

    def bad(opt, batch):
        losses = step(opt, batch)
        count.append(1)
        if len(count) == 4:
            learner.coder.decoder[-1].bias.data[0] = float("nan")
        return losses

    learner.step = bad
    with pytest.raises(UserError, match="recon became nan at step 5"):
        toys.fit(learner, **often(tmp_path))
    assert checkpoints.load_checkpoint(tmp_path)["step"] == 3


# ---- checkpoints that are damaged, cannot be written, do not belong


def two_checkpoints(folder) -> list[Path]:
    """Leave a training after its ninth step: checkpoints of step 8 and, the one before, of step 7."""
    with pytest.raises(Stop):
        toys.fit(toys.build("Toy"), **often(folder, watch=at(9, crash), identity={"seed": 0, "settings.lr": 0.001}))
    return [folder / checkpoints.CHECKPOINT, folder / checkpoints.BEFORE]


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_truncated_checkpoint_falls_back_to_the_one_before(tmp_path):
    newest, _ = two_checkpoints(tmp_path)
    whole, said = toys.fit(toys.build("Toy"))[1], []
    halve(newest)
    fitted, resumed = toys.fit(
        toys.build("Toy"), folder=tmp_path, identity={"seed": 0, "settings.lr": 0.001}, say=said.append
    )
    assert said == [f"{newest} is damaged; going on from the one before, step 7"]
    assert fitted.started_at == 7 and toys.same(whole, resumed) == ""


def test_a_kill_between_the_two_renames(tmp_path):
    newest, _ = two_checkpoints(tmp_path)
    newest.unlink()
    assert toys.fit(toys.build("Toy"), folder=tmp_path, identity={"seed": 0, "settings.lr": 0.001})[0].started_at == 7


@pytest.mark.parametrize(
    "damage",
    [
        halve,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * 500),
        lambda path: path.write_bytes(b"abc"),  # which the unpickler meets with an IndexError
        lambda path: torch.save({"step": 1}, path),  # not what a checkpoint holds
    ],
)
def test_both_checkpoints_damaged(tmp_path, damage):
    for path in two_checkpoints(tmp_path):
        damage(path)
    with pytest.raises(
        UserError, match="is damaged and there is no readable one before it; to start anew, train with resume=F"
    ):
        toys.fit(toys.build("Toy"), folder=tmp_path)


@pytest.mark.parametrize("error, why", [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed\nmore"), "the disk is full"),
])  # fmt: skip
def test_full_disk_while_checkpointing(tmp_path, monkeypatch, error, why):
    whole, said, save, kept = toys.fit(toys.build("Toy"))[1], [], torch.save, []

    def full(state, path):
        if state["step"] != 4:
            return save(state, path)
        kept.append((tmp_path / checkpoints.CHECKPOINT).read_bytes())
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Stop):
        toys.fit(toys.build("Toy"), **often(tmp_path, say=said.append, watch=at(5, crash)))
    assert len(said) == 1 and said[0].startswith("checkpoint at step 4 could not be written (") and why in said[0]
    assert (tmp_path / checkpoints.CHECKPOINT).read_bytes() == kept[0]  # the old one is kept,
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == sorted([checkpoints.CHECKPOINT, checkpoints.BEFORE])  # no draft
    fitted, resumed = toys.fit(toys.build("Toy"), **often(tmp_path, say=said.append))  # and training goes on
    assert fitted.started_at == 3 and fitted.messages == said[1:] and len(fitted.messages) == 1
    assert toys.same(whole, resumed) == ""


def test_checkpoint_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    fitted, _ = toys.fit(toys.build("Toy"), **often(tmp_path / "file" / "folder"))
    assert fitted.stopped == "done" and "could not be written" in fitted.messages[0]


def test_a_checkpoint_of_other_code_is_said(tmp_path):
    newest = two_checkpoints(tmp_path)[0]
    state = torch.load(newest)
    state["learner"].popitem()
    torch.save(state, newest)
    with pytest.raises(UserError, match="does not fit this version .*Missing key.*; to start anew, train with resume"):
        toys.fit(toys.build("Toy"), folder=tmp_path, identity=state["identity"])


@pytest.mark.parametrize("now, message", [
    ({"seed": 1, "settings.lr": 0.001}, "had seed = 0, now it is 1. Put it back to go on; to start anew, train "),
    ({"seed": 0, "settings.lr": 0.01}, "had settings.lr = 0.001, now it is 0.01"),
    ({"seed": 0, "settings.lr": 0.001, "data": "other"}, "had data = None, now it is other"),
    (None, "had seed = 0, now it is None"),
])  # fmt: skip
def test_resume_with_something_changed(tmp_path, now, message):
    two_checkpoints(tmp_path)
    with pytest.raises(UserError, match=message):
        toys.fit(toys.build("Toy"), folder=tmp_path, identity=now)


def test_convolutions_resume_bit_identically(tmp_path):
    """Channels-last weights and the state of their optimiser keep their layout on the way through a file."""
    from disentkit.methods.factorvae import FactorVAE, Settings

    def learner():
        with machine.seeded(0):
            return FactorVAE(Settings(d=3, fc=8, width=8, layers=1, size=16), toys.Dots().spec)

    whole = toys.fit(learner())[1]
    with pytest.raises(Stop):
        toys.fit(learner(), **often(tmp_path, watch=at(7, crash)))
    assert toys.same(whole, toys.fit(learner(), folder=tmp_path)[1]) == ""


def test_a_disk_without_locks_is_no_reason_not_to_train(monkeypatch, tmp_path):
    """And no marker is left behind that would outlive a killed process."""
    fcntl = pytest.importorskip("fcntl")

    def missing(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    with checkpoints.alone(tmp_path / "run"):
        assert not checkpoints.is_trained(tmp_path / "run")
    with checkpoints.alone(tmp_path / "run"):
        pass
    assert list(tmp_path.glob("run*")) in ([], [tmp_path / "run.lock"]) and not checkpoints.is_trained(tmp_path / "run")
