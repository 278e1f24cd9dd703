"""fit(): the one loop that trains every learner. It owns all that is not the method.

Precision, seeds, threads, checkpoints, interrupts, the progress line, the time limit: here. What a step does: in the
learner. Nothing here knows any method, data set or notebook.
"""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from disentkit.checkpoints import ANEW, CHECKPOINT, check_identity, load_checkpoint, save_checkpoint
from disentkit.errors import UserError, finite, whole
from disentkit.machine import idle_cores, pick_device, pick_precision
from disentkit.models import Learner

MOST_SEED = 2**62 - 1  # the run's generators take 2 seed and 2 seed + 1


@dataclass
class Fitted:
    """What fit did: steps done, seconds spent, why it stopped, and one history row per `read_every` steps.

    stopped: "done", "minutes" (the limit) or "interrupted". rows hold means over the interval; vectors are spread over
    columns.
    """

    steps: int
    seconds: float
    stopped: str
    rows: list[dict[str, float]]
    device: str
    precision: str
    threads: int
    started_at: int = 0
    messages: list[str] = field(default_factory=list)


def _memory_said(fit):
    """Turn PyTorch's error for a full GPU into the line that says what to take."""

    @functools.wraps(fit)
    def run(*args, **options):
        try:
            return fit(*args, **options)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the GPU is out of memory at batch {options['batch']}. Take settings with "
                f"batch={max(1, options['batch'] // 2)}, the preset 'quick', or device='cpu'."
            ) from None

    return run


def check_limits(seed: int, minutes: float | None, threads: int | None) -> None:
    """Raise UserError for a seed, a time limit or a number of threads that cannot be."""
    whole("seed", seed, 0, MOST_SEED)
    if minutes is not None:
        finite("minutes", minutes, above=0)
    if threads is not None:
        whole("threads", threads, 1, 1024)


@_memory_said
def fit(
    learner: Learner,
    data,
    *,
    steps: int,
    batch: int,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    minutes: float | None = None,
    folder: Path | None = None,
    identity: dict | None = None,
    watch: Callable[[int, list[dict], Learner], None] | None = None,
    watch_seconds: float = 4.0,
    checkpoint_seconds: float = 60.0,
    read_every: int = 50,
    graph: bool = False,
    say: Callable[[str], None] = print,
) -> Fitted:
    """Train `learner` on `data` for `steps` steps of `learner.draws` independent batches of `batch` images.

    seed        the run's own generators for data and step come from it; the global ones are never touched. (The weights
                are the caller's: build the learner under `seeded(seed)`.)
    device      "auto" (CUDA, else CPU), "cpu", "cuda", "mps"
    precision   "float32", "bf16" (inside the networks only), "auto" (bf16 where the hardware computes it)
    threads     CPU threads; None takes those that are idle now
    minutes     stop cleanly after this long; the steps that are done count
    folder      where checkpoints go; with one there, training goes on from it
    identity    what must not change between a checkpoint and its resume (settings, data, seed)
    watch       called with (step, rows, learner) every `watch_seconds`, outside the step
    graph       on CUDA, capture the whole step as one graph and replay it

    The same seed, device type, thread count, precision and versions give the same numbers; a resumed run is
    bit-identical on the CPU. Ctrl-C (or the stop button) takes effect between steps. Raises UserError for unusable
    devices and precisions, missing batch keys, a non-finite loss (named, with its first step), GPU memory, and a
    checkpoint that does not fit `identity`.
    """
    started = time.perf_counter()
    check_limits(seed, minutes, threads)
    whole("steps", steps)
    whole("batch", batch)
    device = pick_device(device)
    dtype = pick_precision(precision, device)
    saved = load_checkpoint(folder, say) if folder else None
    if saved:
        check_identity(saved["identity"], identity, folder)
        threads, dtype = saved["threads"], saved["dtype"]
    threads = threads or (idle_cores() if device.type == "cpu" else 1)

    learner.to(device=device, memory_format=torch.channels_last)
    learner.train()
    learner.rng = torch.Generator(device).manual_seed(2 * seed + 1)
    data_rng = torch.Generator(device).manual_seed(2 * seed)
    data = data.to(device)
    opt = learner.optimizers()
    done, rows, before = 0, [], 0.0
    if saved:
        try:
            learner.load_state_dict(saved["learner"])
            for name, state in saved["optimizers"].items():
                opt[name].load_state_dict(state)
        except (RuntimeError, KeyError, ValueError) as e:  # the method's code changed since
            why = " ".join(str(e).split())[:200]
            raise UserError(f"the checkpoint in {folder} does not fit this version ({why}); {ANEW}") from None
        learner.rng.set_state(saved["rng"])
        data_rng.set_state(saved["data_rng"])
        done, rows, before = saved["step"], saved["rows"], saved["seconds"]
    fitted = Fitted(done, before, "done", rows, str(device), str(dtype).removeprefix("torch."), threads, done)

    def draw() -> list[dict[str, Tensor]]:
        batches = [data.sample(batch, data_rng) for _ in range(learner.draws)]
        return [{k: _channels_last(v) for k, v in b.items() if k in learner.reads} for b in batches]

    def checkpoint() -> None:
        if not all(p.isfinite().all() for p in learner.parameters()):
            return  # the next step's loss will say so; no checkpoint holds a broken model
        state = {
            "identity": identity, "step": fitted.steps, "rows": rows, "threads": threads, "dtype": dtype,
            "seconds": before + time.perf_counter() - started, "learner": learner.state_dict(),
            "optimizers": {n: o.state_dict() for n, o in opt.items()},
            "rng": learner.rng.get_state(), "data_rng": data_rng.get_state(), "pending": pending.state(),
        }  # fmt: skip
        if folder and (why := save_checkpoint(folder, state)):
            left = "the one before is kept" if (folder / CHECKPOINT).exists() else "there is none before it"
            why = f"checkpoint at step {fitted.steps} could not be written ({why}); {left}"
            fitted.messages.append(why)
            say(why)

    _require_keys(learner, data, data_rng)
    pending = Pending(**(saved["pending"] if saved else {}))
    bar = tqdm(total=steps, initial=done, unit="step", mininterval=1.0, dynamic_ncols=True, leave=True)
    old_threads = torch.get_num_threads()
    clock = Clock(steps, done, batch * learner.draws, say)
    watched = saved_at = time.perf_counter()
    try:
        torch.set_num_threads(threads)
        with _interrupts() as interrupted, _inside_networks(learner, device, dtype):
            step = _captured(learner, opt, draw, data_rng) if graph and device.type == "cuda" else learner.step
            while fitted.steps < steps:
                learner.t.fill_(fitted.steps)
                pending.add(fitted.steps, step(opt, *draw()))
                fitted.steps += 1
                now = time.perf_counter()
                full = minutes is not None and now - started >= 60 * minutes
                last = fitted.steps == steps or full or interrupted.is_set()
                if last and fitted.steps < steps:
                    fitted.stopped = "interrupted" if interrupted.is_set() else "minutes"
                if fitted.steps % read_every == 0 or (last and fitted.stopped != "interrupted"):
                    rows.extend(pending.read())
                    bar.set_postfix_str(_line(rows[-1], clock.images_per_second(fitted.steps)), refresh=False)
                bar.update(1)
                clock.tick(fitted.steps)
                if watch and (now - watched >= watch_seconds or last):
                    watch(fitted.steps, rows, learner)
                    watched = time.perf_counter()
                if folder and now - saved_at >= checkpoint_seconds and not last:
                    checkpoint()
                    saved_at = time.perf_counter()
                if last:
                    break
            if fitted.stopped == "interrupted":
                checkpoint()
                fitted.rows = rows + pending.read()  # a resumed run reads them at their proper step
    finally:
        torch.set_num_threads(old_threads)
        bar.close()
    learner.eval()
    fitted.seconds = before + time.perf_counter() - started
    return fitted


# ---- precision, the captured step


@contextmanager
def _inside_networks(learner: Learner, device: torch.device, dtype: torch.dtype):
    """The child networks compute in `dtype` and return float32; everything between them stays float32."""
    networks = learner.networks()
    if unknown := set(learner.full_precision) - set(networks):
        has = f"{type(learner).__name__} has {', '.join(networks)}"
        raise ValueError(f"full_precision names {', '.join(unknown)}; {has}")
    nets = [net for name, net in networks.items() if name not in learner.full_precision]
    nets = nets if dtype != torch.float32 else []

    def autocast(net, forward):
        def run(*args, **kwargs):
            if not net.training:  # outside the step, under `frozen`: float32
                return forward(*args, **kwargs)
            with torch.autocast(device.type, dtype):
                out = forward(*args, **kwargs)
            return torch.utils._pytree.tree_map_only(Tensor, Tensor.float, out)

        return run

    for net in nets:
        net.forward = autocast(net, net.forward)
    try:
        yield
    finally:
        for net in nets:
            del net.forward  # the class's own again


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _captured(learner: Learner, opt, draw, data_rng: torch.Generator):
    """The step as one CUDA graph: three steps warm up, the fourth is captured, all later ones are replays."""
    state = data_rng.get_state()
    static = draw()
    data_rng.set_state(state)  # the first step sees the batch it would see without a graph
    losses: dict[str, Tensor] = {}
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(learner.rng)
    seen = 0

    def step(opt, *batches):
        nonlocal losses, seen
        for ours, theirs in zip(static, batches):
            for key, tensor in ours.items():
                tensor.copy_(theirs[key])
        seen += 1
        if seen <= 3:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                warm = learner.step(opt, *static)
            torch.cuda.current_stream().wait_stream(side)
            return warm
        if seen == 4:
            with torch.cuda.graph(graph):
                losses = learner.step(opt, *static)
        graph.replay()
        return {name: value.clone() for name, value in losses.items()}

    return step


# ---- losses: on the device until read


class Pending:
    """Losses that wait on the device; `read` brings them to the host in one copy, means over the interval."""

    def __init__(self, steps=(), values=(), columns=()):
        self.steps: list[int] = list(steps)
        self.values: list[Tensor] = list(values)
        self.columns: list[str] = list(columns)

    def state(self) -> dict:
        """What a checkpoint keeps; raises UserError for non-finite losses: no checkpoint holds a broken model."""
        self.table()
        return {"steps": self.steps, "values": [v.cpu() for v in self.values], "columns": self.columns}

    def add(self, step: int, losses: dict[str, Tensor]) -> None:
        if not self.columns:
            for name, value in losses.items():
                self.columns += [name] if value.ndim == 0 else [f"{name}_{i}" for i in range(value.numel())]
        self.steps.append(step)
        self.values.append(torch.cat([value.detach().float().reshape(-1) for value in losses.values()]))

    def table(self) -> Tensor:
        """(waiting, columns) on the host. Raises UserError that names the first non-finite step and term."""
        if not self.steps:
            return torch.zeros(0, len(self.columns))
        table = torch.stack([v.to(self.values[-1].device) for v in self.values]).cpu().double()
        bad = ~table.isfinite()
        if bad.any():
            at = int(bad.any(1).nonzero()[0])
            term = self.columns[int(bad[at].nonzero()[0])]
            raise UserError(
                f"{term} became {table[at][bad[at]][0]:g} at step {self.steps[at] + 1}; training stopped. "
                "Take a smaller learning rate or precision='float32', and start anew (resume=False, --anew)."
            )
        return table

    def read(self) -> list[dict[str, float]]:
        """The row of the interval, none where nothing waits; then nothing waits any more."""
        table = self.table()
        if not len(table):
            return []
        row = {"step": self.steps[-1] + 1, **dict(zip(self.columns, table.mean(0).tolist()))}
        self.steps, self.values = [], []
        return [row]


def _line(row: dict[str, float], images: float) -> str:
    """The end of the progress line: images/s and the scalar losses."""
    shown = [f"{k} {v:.3g}" for k, v in row.items() if k != "step" and not k[-1].isdigit()]
    return ", ".join([f"{images:.0f} images/s", *shown[:5]])


class Clock:
    """Says after a few steps how long the run will take; knows images per second."""

    def __init__(self, steps: int, done: int, images: int, say):
        self.steps, self.first, self.images, self.say = steps, done + 3, images, say
        self.told = False
        self.start = time.perf_counter()

    def tick(self, step: int) -> None:
        if step == self.first:
            self.start = time.perf_counter()  # the first steps warm up
        spent = time.perf_counter() - self.start
        if not self.told and step >= self.first + 10 and spent > 1:
            self.told = True
            left = spent / (step - self.first) * (self.steps - step)
            rate = (step - self.first) / spent
            self.say(f"{rate:.1f} steps/s: {self.steps - step} steps will take about {duration(left)}")

    def images_per_second(self, step: int) -> float:
        return max(step - self.first, 0) * self.images / max(time.perf_counter() - self.start, 1e-9)


def duration(seconds: float) -> str:
    """"45 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ---- keys, interrupts


def _require_keys(learner: Learner, data, rng: torch.Generator) -> None:
    """Raise before the first step where a batch lacks what the learner reads."""
    state = rng.get_state()
    have = data.sample(1, rng)
    rng.set_state(state)
    missing = [key for key in learner.reads if key not in have]
    if missing:
        raise UserError(
            f"{type(learner).__name__} reads '{missing[0]}', but batches of '{data.name}' hold only {', '.join(have)}"
        )


@contextmanager
def _interrupts():
    """An event that Ctrl-C sets; a second Ctrl-C interrupts at once. Outside the main thread it is never set."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    old = signal.signal(signal.SIGINT, stop)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, old)
