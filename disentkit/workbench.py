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
import json
import platform
import re
import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from disentkit import __version__, checkpoints, machine, models, runs, training
from disentkit import data as datasets
from disentkit.data.base import Data, Spec
from disentkit.data.factors import Factor, FactorSpace
from disentkit.errors import UserError, finite, whole
from disentkit.methods import learner_class, settings_class, settings_for
from disentkit.metrics.blocks import block_stats

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
    say=print,
    **changes,
) -> Run:
    """Train a method on a data set and keep the run under home(); see `training.fit` for seed, device and minutes.

    settings     the method's Settings, instead of the preset's; `changes` replace single ones of either (gamma=10)
    base         an earlier run, for methods that are a second stage; it is copied, and stays as it is
    precision    "auto" | "float32" | "bf16"; by default "auto", and "float32" for the preset `paper`
    resume       go on where the same training was interrupted; False starts anew
    live         the moving picture; by default in notebooks only
    data_options what `data.load` takes beside the size, for example path= for data="folder"

    Interrupted (Ctrl-C, the stop button), it returns the run as it stands, with path None, and going on is calling
    it again. Raises UserError for everything in the arguments that cannot be.
    """
    cls = learner_class(method)
    data_name = _name_of(data)
    precision = precision or ("float32" if preset == "paper" else "auto")
    training.check_limits(seed, minutes, threads)
    target = machine.pick_device(device)
    machine.pick_precision(precision, target)
    own = settings is not None
    settings = _settings(method, data, data_name, preset, settings, changes)
    preset = ("own" if own else preset) + ("+" if changes else "")
    spec_data, loaded = _load(data, settings, data_options)
    base = open_run(base) if isinstance(base, str | Path) else base
    if base is not None and base.path is None:
        raise UserError(f"the base run '{base.name}' is not saved; save it first, with run.save()")
    name = re.sub(r"[^\w.+-]+", "_", f"{method}-{data_name}-{preset.rstrip('+')}-s{seed}")
    folder = runs.home() / "working" / name
    _let_go(name)
    spec = loaded.spec
    if tuple(spec.image_shape)[-1] != settings.size:
        raise UserError(f"the settings say size={settings.size}, but the pictures are {tuple(spec.image_shape)}")
    if base is not None:
        base = dataclasses.replace(base, model=copy.deepcopy(base.model).to(target).eval().requires_grad_(False))
    with machine.seeded(seed):
        learner = cls(settings, spec, base)
    identity = {
        "method": method, "seed": seed, "device": target.type, "data": loaded.fingerprint(),
        "base": base.card["weights"] if base is not None else None,
        **{f"settings.{k}": v for k, v in dataclasses.asdict(settings).items()},
    }  # fmt: skip
    watch = _live_picture(loaded, seed) if (live if live is not None else _in_notebook()) else None
    with checkpoints.alone(folder):
        if not resume:  # only now, when nothing in the arguments can stop the new training any more
            shutil.rmtree(folder, ignore_errors=True)
        known = (folder / checkpoints.CHECKPOINT).exists() or (folder / checkpoints.BEFORE).exists()
        say(f"{name}: " + ("going on where it was interrupted" if known else f"starting anew from seed {seed}"))
        fitted = training.fit(
            learner, loaded, steps=settings.steps, batch=settings.batch, seed=seed, device=device, minutes=minutes,
            precision=precision, threads=threads,
            folder=folder, identity=identity, watch=watch, say=say, read_every=max(1, min(50, settings.steps // 100)),
        )  # fmt: skip
    model = learner.model
    _latest[name] = model
    card = {
        "name": name, "method": method, "preset": preset, "settings": dataclasses.asdict(settings), "data": spec_data,
        "image_shape": list(spec.image_shape), "factors": _factors_to_card(spec.space), "seed": seed,
        "device": device_name(target), "threads": fitted.threads, "precision": fitted.precision, "versions": versions(),
        "date": datetime.date.today().isoformat(), "seconds": round(fitted.seconds, 1), "steps": fitted.steps,
        "stopped": fitted.stopped, "notes": fitted.messages, "scores": {},
        "base": None if base is None else {"path": runs.address(base.path), "weights": base.card["weights"]},
        "blocks": block_stats(model, loaded),
    }  # fmt: skip
    run = Run(model, card, pd.DataFrame(fitted.rows), settings, picture=_picture(model, loaded, seed, fitted.rows))
    if watch:
        watch.finish(run.picture)
    if fitted.stopped == "interrupted":
        where = f"step {fitted.steps} of {settings.steps}"
        kept = (folder / checkpoints.CHECKPOINT).exists()
        then = "Call again to go on." if kept else "No checkpoint could be written: keep it with run.save()."
        say(f"interrupted at {where}; the model is yours as it stands. {then}")
        return run
    try:
        say(f"saved as {run.save()}")
        shutil.rmtree(folder, ignore_errors=True)
    except UserError as e:
        say(f"{e} The model is still here: make room, then run.save().")
    return run


def load_or_train(
    method: str, *, data: str | Data = "dsprites", preset: str = "quick", seed: int = 0, **options
) -> Run:
    """Open the newest whole run of exactly these settings, data, base and seed, or train it; options as in `train`."""
    name = _name_of(data)
    changes = {k: options[k] for k in options if k in {f.name for f in dataclasses.fields(settings_class(method))}}
    wanted = _settings(method, data, name, preset, options.get("settings"), changes)
    base = options.get("base")
    base = options["base"] = open_run(base) if isinstance(base, str | Path) else base
    asked = [method, _data_to_card(data, wanted, options.get("data_options")), seed, dataclasses.asdict(wanted)]
    asked += [base and base.card.get("weights"), "done"]
    for folder in runs.folders():
        try:
            card = runs.read_card(folder)
        except UserError:
            continue  # a run of another version is no reason not to train
        base_then = card["base"] and card["base"]["weights"]
        then = [card["method"], card["data"], card["seed"], card["settings"], base_then, card.get("stopped")]
        if then == _plain(asked):
            return open_run(folder)
    return train(method, data=data, preset=preset, seed=seed, **options)


def open_run(name: str | Path) -> Run:
    """A run from its name or folder, its model on the CPU; raises UserError that says what is missing or changed."""
    folder = runs.find(name)
    card = runs.read_card(folder)
    try:
        base = runs.base_of(folder, card)
        base = open_run(base) if base else None
        settings = settings_class(card["method"])(**card["settings"])
        spec = Spec(tuple(card["image_shape"]), _factors_from_card(card["factors"]))
        with machine.seeded(0):
            model = learner_class(card["method"])(settings, spec, base).model
        model.load_state_dict(runs.read_weights(folder, card))
        history = pd.read_csv(folder / "history.csv")
        picture = (folder / "picture.png").read_bytes()
    except (TypeError, RuntimeError, KeyError, ValueError, OSError) as e:
        why = " ".join(str(e).split())[:200]  # PyTorch says which weights do not fit in further lines
        raise UserError(f"run '{folder.name}' does not fit this version of the kit: {why}") from None
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # as in training: the same bits
    return Run(model, card, history, settings, folder, picture)


def score(run: Run, data: Data | None = None, **options) -> dict:
    """FactorVAE score, beta-VAE score and MIG of a run; kept in its card. `options` go to the FactorVAE score."""
    from disentkit import metrics

    data = data or run.data()
    scores = {
        "factorvae_score": metrics.factorvae_score(run.model, data, **options),
        "betavae_score": metrics.betavae_score(run.model, data),
        "mig": metrics.mig(run.model, data),
    }
    run.card["scores"] = scores
    if run.path is not None and run.path.resolve().parent != runs.SHIPPED:
        try:
            runs.write_card(run.path, run.card)
        except OSError as e:
            print(f"the card in {run.path} could not be written ({e.strerror}), so it has not these scores; make room")
    return scores


# ---- the parts of train


def _name_of(data) -> str:
    if not isinstance(data, str | Data):
        kind = type(data).__name__
        raise UserError(f"data= takes a data set's name, or a Data such as ArrayData(images), not {kind}")
    return data if isinstance(data, str) else data.name


def _settings(method: str, data, data_name: str, preset: str, settings, changes: dict):
    """The preset's settings (own data take those of their name, else of `folder`), or the given ones; with changes."""
    if settings is None:
        own = not isinstance(data, str) and (preset, data_name) not in learner_class(method).PRESETS
        settings = settings_for(method, "folder" if own else data_name, preset)
    if not dataclasses.is_dataclass(settings):
        raise UserError(f"settings= takes the Settings of the method's file, not {settings!r}")
    known = [f.name for f in dataclasses.fields(settings)]
    for key in changes:
        if key not in known:
            raise UserError(f"{method} has no setting '{key}'; it has {', '.join(known)}")
    settings = dataclasses.replace(settings, **changes)
    for setting in dataclasses.fields(settings):
        value, what = getattr(settings, setting.name), f"setting {setting.name} of {method}"
        if setting.type in ("int", int):
            whole(what, value)
        elif setting.type in ("float", float):
            finite(what, value, 0 if setting.name.startswith("lr") else -np.inf)
    return settings


def _load(data, settings, options: dict | None) -> tuple[dict, Data]:
    card = _data_to_card(data, settings, options)
    return card, datasets.load(data, **card["options"]) if isinstance(data, str) else data


def _data_to_card(data, settings, options: dict | None) -> dict:
    if isinstance(data, str):
        options = {"size": settings.size, **(options or {})}
        options = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
        for key, value in options.items():
            if not isinstance(value, str | int | float | bool | None):
                raise UserError(f"a card cannot keep {key}={value}; give data=data.load('{data}', {key}=...) instead")
        return {"name": data, "options": options}
    return {"name": data.name, "options": None, "fingerprint": data.fingerprint()}


def _let_go(name: str) -> None:
    """Free the device memory of the model that an earlier training of this name left behind."""
    if (old := _latest.pop(name, None)) is not None:
        old.to("cpu")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _picture(model, data: Data, seed: int, rows: list[dict]) -> bytes:
    from disentkit import plots

    return plots.training_picture(_preview(model, data, seed), pd.DataFrame(rows))


def _preview(model, data: Data, seed: int) -> dict[str, torch.Tensor]:
    """Ten fixed pictures and what the model makes of them; the training's generators are not touched."""
    x = data.to("cpu").sample(10, torch.Generator().manual_seed(seed))["x"]
    if not models.can_encode(model):
        codes = model.prior(10, torch.Generator(models.device_of(model)).manual_seed(seed))
        return {"pictures": x, "samples": models.decode(model, codes)}
    return {"pictures": x, "reconstructions": models.decode(model, models.encode(model, x))}


def _live_picture(data: Data, seed: int):
    from disentkit.explore.live import Live

    return Live(data.to("cpu").sample(10, torch.Generator().manual_seed(seed)))


def _in_notebook() -> bool:
    """True inside a Jupyter kernel."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def versions() -> dict[str, str]:
    """What the card says about software."""
    python = platform.python_version()
    return {"disentkit": __version__, "python": python, "torch": torch.__version__, "numpy": np.__version__}


def device_name(device: torch.device) -> str:
    """The card's word for a device: the GPU's name, or cpu with the processor's."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    processor = str(torch.cpu.get_capabilities().get("cpu_name", "") or platform.processor())
    return f"{device.type}: {processor}".rstrip(": ")


def _factors_to_card(space: FactorSpace | None) -> list[dict] | None:
    return None if space is None else _plain([dataclasses.asdict(f) for f in space])


def _factors_from_card(factors: list[dict] | None) -> FactorSpace | None:
    if factors is None:
        return None
    tuples = [{k: tuple(v) if isinstance(v, list) else v for k, v in f.items()} for f in factors]
    return FactorSpace(Factor(**f) for f in tuples)


def _plain(value):
    """As it comes back from JSON: tuples are lists."""
    return json.loads(json.dumps(value))
