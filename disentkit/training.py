"""fit(): the one loop that trains every learner. It owns all that is not the method.

Precision, seeds, threads, checkpoints, interrupts, probes, the time limit: here. What a step does: in the learner.
Nothing here knows any method, data set or notebook. `fit_together` takes turns between several trainings.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from disentkit.checkpoints import ANEW, CHECKPOINT, check_identity, load_checkpoint, save_checkpoint
from disentkit.errors import UserError, finite, whole
from disentkit.machine import idle_cores, pick_device, pick_precision, streams
from disentkit.models import Learner, frozen
from disentkit.progress import Clock, Pending, duration, line

__all__ = ["Fitted", "check_limits", "duration", "fit", "fit_together", "memory_told", "stepwise"]

MOST_SEED = 2**62 - 1


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


@contextmanager
def memory_told(batch: int):
    """Turn PyTorch's error for a full GPU into the line that says what to take."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(
            f"the GPU is out of memory at batch {batch}. Take settings with batch={max(1, batch // 2)}, the preset "
            "'quick', or device='cpu'."
        ) from None


def check_limits(seed: int, minutes: float | None, threads: int | None) -> None:
    """Raise UserError for a seed, a time limit or a number of threads that cannot be."""
    whole("seed", seed, 0, MOST_SEED)
    if minutes is not None:
        finite("minutes", minutes, above=0)
    if threads is not None:
        whole("threads", threads, 1, 1024)


def fit(learner: Learner, data, **options) -> Fitted:
    """Train `learner` on `data`; the options are those of `stepwise`.

    The same seed, device type, thread count, precision and versions give the same numbers; a resumed run is
    bit-identical on the CPU. Ctrl-C (or the stop button) takes effect between steps. Raises UserError for unusable
    devices and precisions, missing batch keys, a non-finite loss (named, with its first step), GPU memory, and a
    checkpoint that does not fit `identity`.
    """
    fitted = fit_together([{"learner": learner, "data": data, **options}])[0]
    if isinstance(fitted, Exception):
        raise fitted
    return fitted


def fit_together(trainings: list[dict]) -> list[Fitted | Exception]:
    """Several trainings in one process, one step of each in turn; every dict holds the arguments of `fit`.

    Each gives the numbers that `fit` gives for it alone, on the CPU to the bit. On a GPU each has a stream of its own,
    so that their small kernels can overlap; take `graph=True` there, or the one Python that starts all the kernels is
    what they wait for. (Never tried: no GPU was at hand.) One that fails has its exception in place of its `Fitted`,
    and the others go on. Ctrl-C ends all of them between steps.
    """
    states: list[Fitted | Exception | None] = [None] * len(trainings)
    several, threads = len(trainings) > 1, torch.get_num_threads()
    with _interrupts() as interrupted:
        turns = {i: stepwise(**options, interrupted=interrupted) for i, options in enumerate(trainings)}
        on_gpu = [several and pick_device(t.get("device", "auto")).type == "cuda" for t in trainings]
        gpu = [torch.cuda.Stream() if on else None for on in on_gpu]
        if any(gpu):
            torch.cuda.synchronize()  # what they share was made on the ordinary stream
        try:
            while turns:
                for i, turn in list(turns.items()):
                    if several and isinstance(states[i], Fitted):
                        torch.set_num_threads(states[i].threads)
                    try:
                        stream = torch.cuda.stream(gpu[i]) if gpu[i] else nullcontext()
                        with memory_told(trainings[i]["batch"]), stream:
                            state = next(turn, None)
                    except Exception as error:
                        state = None
                        states[i] = error
                    if state is None:
                        del turns[i]
                    else:
                        states[i] = state
        finally:
            for turn in turns.values():
                turn.close()
            torch.set_num_threads(threads)
            if any(gpu):
                torch.cuda.synchronize()  # what the streams computed is read on the ordinary one
    return states


def stepwise(
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
    probe: Callable[[Learner], dict[str, float]] | None = None,
    probe_every: int | None = None,
    checkpoint_seconds: float = 60.0,
    read_every: int = 50,
    graph: bool = False,
    bar: bool = True,
    say: Callable[[str], None] = print,
    interrupted: threading.Event | None = None,
) -> Iterator[Fitted]:
    """`fit` as a generator that yields when all is ready and after every step, always the same, growing `Fitted`.

    steps       of `learner.draws` independent batches of `batch` images each
    seed        the run's own generators for data and step come from it; the global ones are never touched. (The weights
                are the caller's: build the learner under `seeded(seed)`.)
    device      "auto" (CUDA, else CPU), "cpu", "cuda", "mps"
    precision   "float32", "bf16" (inside the networks only), "auto" (bf16 where the hardware computes it)
    threads     CPU threads; None takes those that are idle now
    minutes     stop cleanly after this long; the steps that are done count
    folder      where checkpoints go; with one there, training goes on from it
    identity    what must not change between a checkpoint and its resume (settings, data, seed)
    watch       called with (step, rows, learner) every `watch_seconds`, outside the step
    probe       called with the learner every `probe_every` steps and after the last one; what it returns, numbers by
                name, joins the history's row of that step. It must not draw from the run's generators.
    graph       on CUDA, capture the whole step as one graph and replay it
    bar         show the progress line
    interrupted ends the training between two steps once it is set
    """
    started = time.perf_counter()
    check_limits(seed, minutes, threads)
    whole("steps", steps)
    whole("batch", batch)
    if probe_every is not None:
        whole("probe_every", probe_every)
    interrupted = interrupted or threading.Event()
    device = pick_device(device)
    dtype = pick_precision(precision, device)
    saved = load_checkpoint(folder, say) if folder else None
    if saved:
        check_identity(saved["identity"], identity, folder)
        asked = {"threads": threads, "precision": None if precision == "auto" else dtype}
        threads, dtype = saved["threads"], saved["dtype"]
        for name, kept in {"threads": threads, "precision": dtype}.items():
            if asked[name] not in (None, kept):
                say(f"going on with {name} {str(kept).removeprefix('torch.')}, as it began; {ANEW}")
    threads = threads or (idle_cores() if device.type == "cpu" else 1)

    learner.to(device=device, memory_format=torch.channels_last)
    learner.train()
    _, data_seed, step_seed = streams(seed)
    learner.rng = torch.Generator(device).manual_seed(step_seed)
    data_rng = torch.Generator(device).manual_seed(data_seed)
    data = data.to(device)
    opt = learner.optimizers()
    done, rows, before = 0, [], 0.0
    if saved:
        try:
            learner.load_state_dict(saved["learner"])
            for name, state in saved["optimizers"].items():
                opt[name].load_state_dict(state)
                for group in opt[name].param_groups:  # step sizes that are tensors come back where they were saved
                    group["lr"] = group["lr"].to(device) if isinstance(group["lr"], Tensor) else group["lr"]
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

    def checkpoint(told: bool = True) -> None:
        if not all(p.isfinite().all() for p in learner.parameters()):
            return  # the next step's loss will say so; no checkpoint holds a broken model
        state = {
            "identity": identity, "step": fitted.steps, "rows": rows, "threads": threads, "dtype": dtype,
            "seconds": before + time.perf_counter() - started, "learner": learner.state_dict(),
            "optimizers": {n: o.state_dict() for n, o in opt.items()},
            "rng": learner.rng.get_state(), "data_rng": data_rng.get_state(), "pending": pending.state(),
        }  # fmt: skip
        if folder and (why := save_checkpoint(folder, state)) and told:
            left = "the one before is kept" if (folder / CHECKPOINT).exists() else "there is none before it"
            why = f"checkpoint at step {fitted.steps} could not be written ({why}); {left}"
            fitted.messages.append(why)
            say(why)

    _require_keys(learner, data, data_rng)
    pending = Pending(**(saved["pending"] if saved else {}))
    bar = tqdm(total=steps, initial=done, unit="step", mininterval=1.0, dynamic_ncols=True, leave=True, disable=not bar)
    clock = Clock(steps, done, batch * learner.draws, say)
    watched = saved_at = time.perf_counter()
    try:
        torch.set_num_threads(threads)
        yield fitted
        with _inside_networks(learner, device, dtype):
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
                ended = last and fitted.stopped != "interrupted"
                probing = probe is not None and (ended or (probe_every and fitted.steps % probe_every == 0))
                if fitted.steps % read_every == 0 or ended or probing:
                    rows.extend(pending.read())
                    bar.set_postfix_str(line(rows[-1], clock.images_per_second(fitted.steps)), refresh=False)
                if probing:
                    rows[-1] |= _probed(probe, learner, data_rng, rows[-1])
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
                yield fitted
            checkpoint(told=fitted.stopped == "interrupted")  # also when done, for what comes after may fail
            if fitted.stopped == "interrupted":
                fitted.rows = rows + pending.read()  # a resumed run reads them at their proper step
    finally:
        bar.close()
    learner.eval()
    fitted.seconds = before + time.perf_counter() - started


def _probed(probe, learner: Learner, data_rng: torch.Generator, row: dict) -> dict[str, float]:
    """What the probe measures; meanwhile eval mode, no gradients, float32, one thread."""
    before = [learner.rng.get_state(), data_rng.get_state()]
    with frozen(learner):
        found = {name: float(value) for name, value in probe(learner).items()}
    if not all(torch.equal(a, b) for a, b in zip(before, [learner.rng.get_state(), data_rng.get_state()])):
        raise ValueError("the probe drew from the run's generators, which changes the training: give it one of its own")
    if taken := [name for name in found if name in row]:
        raise ValueError(f"the probe measures '{taken[0]}', but the history has a column of that name already")
    return found


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
