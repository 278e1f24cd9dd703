"""Judges at hand: `judge_of(data)` opens the judge of a data set, or trains it now and keeps it.

    data/judges/NAME-SIZE         what the kit ships, read only
    home()/judges/NAME-SIZE       what was trained here

A judge's folder is a run's: weights (float16), card, history and a picture of what it was trained on. Its card holds
besides the accuracy on each factor, measured on pictures that it was not trained on. A judge belongs to the data whose
fingerprint its card names, and to no other.

To ship one, train it with `judge_of(data, ship=True)`, or copy its folder from home()/judges into data/judges.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from pathlib import Path

import pandas as pd
import torch

from disentkit import checkpoints, machine, runs, training
from disentkit.cards import device_name, factors_from_card, factors_to_card, versions
from disentkit.data.base import ArrayData, Data, Spec
from disentkit.errors import UserError, finite, whole
from disentkit.judges import Judge, Settings
from disentkit.metrics.swaps import judge_accuracy
from disentkit.places import CHECKOUT, home, writable_home

SHIPPED = CHECKOUT / "data" / "judges"
TESTED = 2000  # pictures that accuracies are measured on
HELD_OUT = 1 / 6  # share of stored pictures that a judge is not trained on


def judge_of(
    data: Data,
    *,
    minutes: float | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    bar: bool = True,
    anew: bool = False,
    ship: bool = False,
    say=print,
) -> Judge:
    """The judge of a data set, on the CPU: shipped, kept under home(), or trained now (about a minute on one core).

    minutes   train so long at most; it is kept all the same, and its card says so
    settings  those of the training, by default `Settings(size=...)`; given, only a judge of exactly these is opened
    anew      train also where there is one
    ship      train it and keep it among the shipped ones, for those who make the kit; an older one must go first

    `judge.card["accuracy"]` is {factor: share of right answers}. Interrupted (Ctrl-C), the judge is returned as it
    stands and not kept. Raises UserError for data without factors, settings of another size, and a home that cannot be
    written.
    """
    if not isinstance(data, Data):
        raise UserError(f"a judge belongs to a data set, not to {type(data).__name__}: give data.load(name)")
    if data.space is None:
        raise UserError(f"data set '{data.name}' has no factors, so there is nothing to judge")
    training.check_limits(seed, minutes, threads)
    size = data.image_shape[-1]
    if not isinstance(settings, Settings | None):
        raise UserError(f"settings= takes the Settings of disentkit.judges, not {settings!r}")
    if settings is not None:
        _check(settings)
    if settings is not None and settings.size != size:
        raise UserError(f"the judge's settings say size={settings.size}, but the pictures are {data.image_shape}")
    data = data.to("cpu")
    if not (anew or ship) and (judge := find(data, settings)):
        return judge
    place = SHIPPED if ship else writable_home() / "judges"
    folder = place / re.sub(r"[^\w.+-]+", "_", f"{data.name}-{size}")
    if ship and folder.exists():
        raise UserError(f"{folder} holds a shipped judge already: delete it first, then ship another")
    settings = settings or Settings(size=size)
    with checkpoints.alone(home() / "working" / f"judge-{folder.name}"):
        say(f"training the judge of {data.name} at {size} pixels on true pictures; it is kept in {place}")
        judge, rows = _trained(data, settings, seed, minutes, device, threads, bar, say)
        said = ", ".join(f"{name} {share:.2f}" for name, share in judge.card["accuracy"].items())
        say(f"the judge is right on {said}")
        if judge.card["stopped"] == "interrupted":
            say("it was interrupted, so it is not kept")
            return judge
        history = pd.DataFrame(rows)
        try:
            saved = runs.save(folder, judge, judge.card, history, _picture(judge, data, history), half=True)
        except UserError as e:
            say(f"{e} The judge is used all the same.")
            return judge
    return open_judge(saved)


def find(data: Data, settings: Settings | None = None) -> Judge | None:
    """The newest whole judge of these data, the shipped ones first; None where there is none."""
    fingerprint = None
    for folder in folders():
        try:
            card = runs.read_card(folder)
        except (UserError, OSError):
            continue  # a damaged or foreign judge is no reason not to train one
        if not isinstance(card["data"], dict):
            continue
        asked = None if settings is None else dataclasses.asdict(settings)
        if card["data"].get("name") != data.name or asked not in (None, card["settings"]):
            continue
        fingerprint = fingerprint or data.fingerprint()
        if card["data"].get("fingerprint") != fingerprint or card["image_shape"] != list(data.image_shape):
            continue
        try:
            return open_judge(folder)
        except UserError:
            continue
    return None


def folders() -> list[Path]:
    """Every judge's folder: the shipped ones, then those trained here, newest first."""
    own = home() / "judges"
    found = [[f for f in place.glob("[!.]*/") if (f / "card.json").is_file()] for place in (SHIPPED, own)]
    return sorted(found[0]) + sorted(found[1], key=lambda f: f.stat().st_mtime_ns, reverse=True)


def open_judge(folder: str | Path) -> Judge:
    """A judge from its folder, on the CPU; raises UserError that says what is missing or does not fit."""
    folder = Path(folder)
    try:
        card = runs.read_card(folder)
        spec = Spec(tuple(card["image_shape"]), factors_from_card(card["factors"]))
        with machine.seeded(0):
            judge = Judge(Settings(**card["settings"]), spec)
        judge.load_state_dict(runs.read_weights(folder, card))
        if set(card["accuracy"]) != set(judge.space.names):
            raise ValueError("its card does not say how often it is right on each factor")
    except (TypeError, AttributeError, RuntimeError, KeyError, ValueError, OSError) as e:
        why = " ".join(str(e).split())[:200]
        raise UserError(f"judge '{folder.name}' does not fit this version of the kit: {why}") from None
    judge.card = card
    return judge.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _check(settings: Settings) -> None:
    """Raise UserError for a setting of the wrong type or range."""
    for setting in dataclasses.fields(settings):
        value, what = getattr(settings, setting.name), f"the judge's {setting.name}"
        if setting.type in ("int", int):
            whole(what, value)
        elif finite(what, value, 0 if setting.name == "lr" else -math.inf) < 0:
            raise UserError(f"{what} must be 0 or more, not {value}")


def _trained(data: Data, settings: Settings, seed: int, minutes, device, threads, bar, say) -> tuple[Judge, list[dict]]:
    """A judge with its card, and the rows of its history."""
    known, fresh, tested = _split(data, seed)
    with machine.seeded(seed):
        judge = Judge(settings, data.spec)
    with training.memory_told(settings.batch):
        fitted = training.fit(
            judge, known, steps=settings.steps, batch=settings.batch, seed=seed, minutes=minutes, device=device,
            threads=threads, bar=bar, say=say,
        )  # fmt: skip
    judge.to("cpu").requires_grad_(False)
    with torch.no_grad():  # as it will be opened: float16 is what is kept
        for tensor in judge.state_dict().values():
            tensor.copy_(tensor.half() if tensor.is_floating_point() else tensor)
    accuracy = judge_accuracy(judge, fresh, tested, seed + 1)
    judge.card = {
        "name": f"{data.name}-{settings.size}", "method": "judge", "settings": dataclasses.asdict(settings),
        "data": {"name": data.name, "options": None, "fingerprint": data.fingerprint()},
        "image_shape": list(data.image_shape), "factors": factors_to_card(data.space), "seed": seed, "base": None,
        "blocks": [], "accuracy": {name: round(float(share), 4) for name, share in accuracy.items()},
        "accuracy_on": f"{tested} pictures that it was not trained on", "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1), "stopped": fitted.stopped, "notes": fitted.messages,
        "device": device_name(torch.device(fitted.device)), "threads": fitted.threads, "precision": fitted.precision,
        "versions": versions(), "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    return judge, fitted.rows


def _split(data: Data, seed: int) -> tuple[Data, Data, int]:
    """(data to train on, data to test on, how many to test): stored pictures are parted, a renderer draws new ones."""
    if not isinstance(data, ArrayData):
        return data, data, TESTED
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    held = round(HELD_OUT * len(data))
    if not held:
        raise UserError(f"data set '{data.name}' has {len(data)} pictures, too few to hold some out for a test")
    parts = [
        ArrayData(data.images[rows], data.factors[rows], data.space, data.name) for rows in (order[held:], order[:held])
    ]
    return *parts, min(held, TESTED)


def _picture(judge: Judge, data: Data, history: pd.DataFrame) -> bytes:
    """PNG bytes: ten true pictures, how worn they are in the training, and the curves."""
    from disentkit import plots

    rng = torch.Generator().manual_seed(0)
    x = data.sample(10, rng)["x"]
    seen = judge.worn(x, rng).clamp(0, 1)
    return plots.training_picture({"pictures": x, "as trained": seen}, history)
