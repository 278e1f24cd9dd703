"""The workbench: train, open and score runs. The one module that knows methods, data, training and runs.

    run = workbench.train("factorvae", data="dsprites", preset="quick", seed=0)
    run.model, run.card, run.history, run.stats
    run = workbench.open_run("factorvae-dsprites-course-s0")
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import gc
import re
import shutil
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from disentkit import checkpoints, machine, previews, runs, scores, training
from disentkit import data as datasets
from disentkit import probes as measures
from disentkit.cards import data_to_card, device_name, factors_from_card, factors_to_card, probes_to_card, versions
from disentkit.cards import plain as _plain
from disentkit.data.base import Data, Spec
from disentkit.errors import UserError
from disentkit.methods import changed_settings, learner_class, settings_class, settings_for
from disentkit.metrics.blocks import block_stats
from disentkit.places import writable_home

_latest: weakref.WeakValueDictionary[str, torch.nn.Module] = weakref.WeakValueDictionary()


@dataclass(eq=False)
class Run:
    """A trained model with its papers. `path` is None while it is not on disk: interrupted, or the disk full."""

    model: Any
    card: dict
    history: pd.DataFrame
    settings: Any
    path: Path | None = None
    picture: bytes = b""

    @property
    def stats(self) -> list[dict]:
        """Block statistics, see `metrics.blocks.block_stats`."""
        return self.card["blocks"]

    @property
    def name(self) -> str:
        return self.path.name if self.path else self.card["name"]

    def data(self) -> Data:
        """The data set it was trained on; raises UserError for arrays that were handed in, which no card can keep."""
        spec = self.card["data"]
        if spec["options"] is None:
            raise UserError(f"run '{self.name}' was trained on arrays of your own; pass them as data=")
        return datasets.load(spec["name"], **spec["options"])

    def save(self, folder: str | Path | None = None, half: bool = False) -> Path:
        """Write the run, by default under home(); returns its folder. half: float16 weights."""
        folder = Path(folder) if folder else runs.home() / "runs" / self.card["name"]
        self.path = runs.save(folder, self.model, self.card, self.history, self.picture, half)
        self.card = runs.read_card(self.path)  # with the hash of its weights
        if self.card["stopped"] != "interrupted":  # then nothing is left to go on with
            shutil.rmtree(runs.home() / "working" / self.card["name"], ignore_errors=True)
        return self.path

    def __repr__(self) -> str:
        c = self.card
        steps, spent = f"{c['steps']} of {c['settings']['steps']} steps", training.duration(c["seconds"])
        return f"Run({self.name}: {steps} in {spent} on {c['device']}, {c['stopped']})"


def train(
    method: str,
    *,
    data: str | Data = "dsprites",
    preset: str = "quick",
    seed: int = 0,
    device: str = "auto",
    minutes: float | None = None,
    settings=None,
    base: str | Path | Run | None = None,
    precision: str | None = None,
    threads: int | None = None,
    resume: bool = True,
    live: bool | None = None,
    data_options: dict | None = None,
    probes=(),
    probe_every: int | None = None,
    name: str | None = None,
    graph: bool = False,
    bar: bool = True,
    say=print,
    **changes,
) -> Run:
    """Train a method on a data set and keep the run under home(); see `training.stepwise` for device, graph and bar.

    settings     the method's Settings, instead of the preset's; `changes` replace single ones of either (gamma=10)
    base         an earlier run, for methods that are a second stage; it is copied, and stays as it is
    precision    "auto" | "float32" | "bf16"; by default "auto", and "float32" for the preset `paper`
    minutes      stop cleanly after so long
    resume       go on where the same training was interrupted; False starts anew
    live         the moving picture; by default in notebooks only
    data_options what `data.load` takes beside the size, for example path= for data="folder"
    probes       measures of `disentkit.probes`, by name or as functions (model, data) -> {name: number}; they join the
                 history every `probe_every` steps and after the last one, and change nothing in the training
    name         the run is called NAME-sSEED; by default METHOD-DATA-PRESET-sSEED

    Interrupted (Ctrl-C, the stop button), it returns the run as it stands, with path None, and going on is calling
    it again. Raises UserError for everything in the arguments that cannot be.
    """
    plan = _plan(
        method, data=data, preset=preset, seed=seed, device=device, minutes=minutes, settings=settings, base=base,
        precision=precision, threads=threads, data_options=data_options, probes=probes, probe_every=probe_every,
        name=name, graph=graph, bar=bar, say=say, **changes,
    )  # fmt: skip
    if live if live is not None else previews.in_notebook():
        plan.options["watch"] = previews.live_picture(plan.data, seed)
    with checkpoints.alone(plan.folder):
        _begin(plan, resume)
        return _finish(plan, training.fit(plan.learner, plan.there, **plan.options))


def train_together(method: str, seeds: Sequence[int], *, resume: bool = True, **options) -> list[Run | Exception]:
    """Train one setting from several seeds side by side, one step of each in turn; options as in `train`, bar `live`.

    On a GPU, which one small model leaves idle for the most part, each step is captured as a graph and the seeds
    overlap (never tried: no GPU was at hand). On the CPU the numbers are those of each seed alone, and together they
    take as long as one after the other. A card's seconds are those of all seeds. A seed that fails has its exception in
    place of its run; the others go on.
    """
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(f"seeds must be different whole numbers, one or more, not {list(seeds)}")
    options = {"graph": True, "bar": True, "threads": None} | options
    if options["threads"] is None and machine.pick_device(options.get("device", "auto")).type == "cpu":
        options["threads"] = machine.idle_cores()
    plans: list[_Plan] = []
    for seed in seeds:
        plans.append(_plan(method, seed=seed, like=plans[0] if plans else None, **options))
        options["bar"] = False  # one line for all
    with ExitStack() as stack:
        for plan in plans:
            stack.enter_context(checkpoints.alone(plan.folder))
        for plan in plans:
            _begin(plan, resume)
        fitted = training.fit_together([{"learner": p.learner, "data": p.there, **p.options} for p in plans])
        return [f if isinstance(f, Exception) else _finish(p, f) for p, f in zip(plans, fitted)]


def load_or_train(method: str, **options) -> Run:
    """Open the newest whole run of exactly these settings, data, base and seed, or train it; options as in `train`."""
    if isinstance(options.get("base"), str | Path):
        options["base"] = open_run(options["base"])
    return finished(method, **options) or train(method, **options)


def finished(
    method: str, *, data: str | Data = "dsprites", preset: str = "quick", seed: int = 0, **options
) -> Run | None:
    """The newest whole run of exactly these settings, data, base, seed and probes, opened; None where there is none.

    Options as in `train`. The device, threads and `auto` precision do not count; a run with probes is as good as one
    without.
    """
    changes = {k: options[k] for k in options if k in {f.name for f in dataclasses.fields(settings_class(method))}}
    wanted = settings_of(method, data, preset, options.get("settings"), changes)
    base = options.get("base")
    base = _opened(base)
    measured = probes_to_card(options.get("probes", ()), options.get("probe_every"))
    source = data_to_card(data, wanted, options.get("data_options"))
    asked = [method, source["name"], source["options"], seed, dataclasses.asdict(wanted)]
    asked += [base and base.card.get("weights"), "done"]
    fingerprint = None  # of the data, which are loaded only where a run is found
    precision = {"bf16": "bfloat16", "float32": "float32"}.get(options.get("precision"))
    for folder in runs.folders():
        try:
            card = runs.read_card(folder)
        except UserError:
            continue  # a run of another version is no reason not to train
        base_then = card["base"] and card["base"]["weights"]
        then = [card["method"], card["data"]["name"], card["data"]["options"], card["seed"], card["settings"]]
        same = [*then, base_then, card.get("stopped")] == _plain(asked) and measured in (None, card.get("probes"))
        if same and precision in (None, card.get("precision")):
            if fingerprint is None:
                fingerprint = (datasets.load(data, **source["options"]) if source["options"] else data).fingerprint()
            if card["data"].get("fingerprint") != fingerprint:
                continue
            try:
                return open_run(folder)
            except UserError:
                continue  # nor is a damaged one
    return None


def open_run(name: str | Path) -> Run:
    """A run from its name or folder, its model on the CPU; raises UserError that says what is missing or changed."""
    folder = runs.find(name)
    card = runs.read_card(folder)
    try:
        base = runs.base_of(folder, card)
        base = open_run(base) if base else None
        settings = settings_class(card["method"])(**card["settings"])
        spec = Spec(tuple(card["image_shape"]), factors_from_card(card["factors"]))
        with machine.seeded(0):
            model = learner_class(card["method"])(settings, spec, base).model
        model.load_state_dict(runs.read_weights(folder, card))
        history = pd.read_csv(folder / "history.csv")
        picture = (folder / "picture.png").read_bytes()
    except (TypeError, AttributeError, RuntimeError, KeyError, ValueError, OSError) as e:
        why = " ".join(str(e).split())[:200]  # PyTorch says which weights do not fit in further lines
        raise UserError(f"run '{folder.name}' does not fit this version of the kit: {why}") from None
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # as in training: the same bits
    return Run(model, card, history, settings, folder, picture)


def score(run: Run, data: Data | None = None, *, more: bool = False, **options) -> dict:
    """What disentanglement can be measured, see `scores.measure`; `options` go to the FactorVAE score.

    FactorVAE score, beta-VAE score and MIG (more: and those of `scores.MORE`) of columns, the block metrics of wide
    blocks. Kept in the run's card, in which wide blocks are named, unless `data` are others than it was trained on.
    """
    data = data or run.data()
    found = scores.measure(run.model, data, more=more, history=run.history, **options)
    if data.fingerprint() != run.card["data"].get("fingerprint"):
        return found
    run.card["scores"] |= found
    run.card["blocks"] = scores.named(run.stats, run.model.codes, found)
    if run.path is not None and run.path.resolve().parent != runs.SHIPPED:
        try:
            runs.write_card(run.path, run.card)
        except OSError as e:
            print(f"the card in {run.path} could not be written ({e.strerror}), so it has not these scores; make room")
    return found


# ---- the parts of train


def _opened(base: str | Path | Run | None) -> Run | None:
    if isinstance(base, str | Path):
        return open_run(base)
    if base is not None and not hasattr(base, "card"):
        raise UserError(f"base= is a run, or names one, not {base!r}")
    return base


@dataclass
class _Plan:
    """One training, checked and built: the learner, the data here and on the device, and what fit and the card get."""

    learner: Any
    data: Data
    there: Data
    folder: Path
    base: Run | None
    card: dict
    options: dict


def _plan(
    method: str, *, data="dsprites", preset="quick", seed=0, device="auto", minutes=None, settings=None, base=None,
    precision=None, threads=None, data_options=None, probes=(), probe_every=None, name=None, graph=False, bar=True,
    say=print, like: _Plan | None = None, **changes,
) -> _Plan:  # fmt: skip
    """All that `train` does before the first step. like: the plan of another seed, whose data serve this one too."""
    cls = learner_class(method)
    data_name = _name_of(data)
    precision = precision or ("float32" if preset == "paper" else "auto")
    training.check_limits(seed, minutes, threads)
    target = machine.pick_device(device)
    machine.pick_precision(precision, target)
    own = settings is not None
    settings = settings_of(method, data, preset, settings, changes)
    preset = ("own" if own else preset) + ("+" if changes else "")
    spec_data = data_to_card(data, settings, data_options)
    here = like.data if like else datasets.load(data, **spec_data["options"]) if isinstance(data, str) else data
    spec_data["fingerprint"] = here.fingerprint()
    with training.memory_told(settings.batch):
        there = like.there if like else here.to(target)
    base = _opened(base)
    if base is not None and base.path is None:
        raise UserError(f"the base run '{base.name}' is not saved; save it first, with run.save()")
    if base is not None and base.card["data"]["name"] != data_name:
        theirs = f"was trained on {base.card['data']['name']}, and data= says {data_name}"
        raise UserError(f"the base run '{base.name}' {theirs}: give the base's data")
    probe, probed = measures.probe(probes, there), probes_to_card(probes, probe_every)
    name = re.sub(r"[^\w.+-]+", "_", f"{name or f'{method}-{data_name}-' + preset.rstrip('+')}-s{seed}")
    folder = writable_home() / "working" / name
    _let_go(name)
    spec = here.spec
    if tuple(spec.image_shape)[-1] != settings.size:
        raise UserError(f"the settings say size={settings.size}, but the pictures are {tuple(spec.image_shape)}")
    if base is not None:
        base = dataclasses.replace(base, model=copy.deepcopy(base.model).to(target).eval().requires_grad_(False))
    with machine.seeded(seed):
        learner = cls(settings, spec, base)
    try:
        there = datasets.complete(there, learner.reads)
    except ValueError as error:  # labels that make no groups, for example
        raise UserError(str(error)) from None
    identity = {
        "method": method, "seed": seed, "device": target.type, "data": spec_data["fingerprint"],
        "base": base.card["weights"] if base is not None else None,
        **{f"settings.{k}": v for k, v in dataclasses.asdict(settings).items()},
    }  # fmt: skip
    card = {
        "name": name, "method": method, "preset": preset, "settings": dataclasses.asdict(settings), "data": spec_data,
        "image_shape": list(spec.image_shape), "factors": factors_to_card(spec.space), "seed": seed,
        "device": device_name(target), "probes": probed,
    }  # fmt: skip
    options = {
        "steps": settings.steps, "batch": settings.batch, "seed": seed, "device": device, "precision": precision,
        "threads": threads, "minutes": minutes, "folder": folder, "identity": identity, "probe": probe,
        "probe_every": probe_every, "graph": graph, "bar": bar, "say": say,
        "read_every": max(1, min(50, settings.steps // 100)),
    }  # fmt: skip
    return _Plan(learner, here, there, folder, base, card, options)


def _begin(plan: _Plan, resume: bool) -> None:
    if not resume:  # only now, when nothing in the arguments can stop the new training any more
        shutil.rmtree(plan.folder, ignore_errors=True)
    known = (plan.folder / checkpoints.CHECKPOINT).exists() or (plan.folder / checkpoints.BEFORE).exists()
    how = "going on where it was interrupted" if known else f"starting anew from seed {plan.card['seed']}"
    plan.options["say"](f"{plan.card['name']}: {how}")


def _finish(plan: _Plan, fitted: training.Fitted) -> Run:
    """The run, saved, or as it stands where it was interrupted."""
    learner, folder, say, watch = plan.learner, plan.folder, plan.options["say"], plan.options.get("watch")
    model, base = learner.model, plan.base
    _latest[plan.card["name"]] = model
    card = plan.card | {
        "threads": fitted.threads, "precision": fitted.precision, "versions": versions(),
        "date": datetime.date.today().isoformat(), "seconds": round(fitted.seconds, 1), "steps": fitted.steps,
        "stopped": fitted.stopped, "notes": fitted.messages, "scores": {},
        "base": None if base is None else {"path": runs.address(base.path), "weights": base.card["weights"]},
        "blocks": block_stats(model, plan.data, n=min(2000, max(64, 2**25 // model.codes.size))),  # maps are large
    }  # fmt: skip
    picture = previews.picture(model, plan.data, card["seed"], fitted.rows)
    run = Run(model, card, pd.DataFrame(fitted.rows), learner.settings, picture=picture)
    if watch:
        watch.finish(run.picture)
    if fitted.stopped == "interrupted":
        where = f"step {fitted.steps} of {learner.settings.steps}"
        kept = (folder / checkpoints.CHECKPOINT).exists()
        then = "Call again to go on." if kept else "No checkpoint could be written: keep it with run.save()."
        say(f"interrupted at {where}; the model is yours as it stands. {then}")
        return run
    try:
        say(f"saved as {run.save()}")
    except UserError as e:
        say(f"{e} The model is still here: make room, then run.save().")
    return run


def _name_of(data) -> str:
    if not isinstance(data, str | Data):
        kind = type(data).__name__
        raise UserError(f"data= takes a data set's name, or a Data such as ArrayData(images), not {kind}")
    return data if isinstance(data, str) else data.name


def settings_of(method: str, data: str | Data, preset: str, settings=None, changes: dict | None = None):
    """The preset's settings (own data take those of their name, else of `folder`), or the given ones; with changes.

    Raises UserError for an unknown setting, and for a value of the wrong type or range.
    """
    changes = changes or {}
    if settings is None:
        name = _name_of(data)
        own = not isinstance(data, str) and (preset, name) not in learner_class(method).PRESETS
        settings = settings_for(method, "folder" if own else name, preset)
    if not isinstance(settings, settings_class(method)):
        raise UserError(f"settings= takes the Settings of the method's file, not {settings!r}")
    return changed_settings(method, settings, changes)


def _let_go(name: str) -> None:
    """Free the device memory of the model that an earlier training of this name left behind."""
    if (old := _latest.pop(name, None)) is not None:
        old.to("cpu")
    if torch.cuda.is_available():
        gc.collect()  # it takes longer than a small training, so only where memory is dear
        torch.cuda.empty_cache()
