"""Judges at hand: `judge_of(data)` opens the judge of a data set, or trains it now and keeps it.

    data/judges/NAME-SIZE         what the kit ships, read only
    home()/judges/NAME-SIZE       what was trained here

A judge's folder is a run's: weights (float16), card, history and a picture of what it was trained on. Its card holds
besides the accuracy on each factor, measured on pictures that it was not trained on. A judge belongs to the data whose
fingerprint its card names, and to no other.

To ship one, train it with `judge_of(data, ship=True)`, or copy its folder from home()/judges into data/judges.

Segmenters (`segmenter.py`) are kept in the same way beside the judges; a `Kind` says in what they differ, and the
functions here that take one serve both.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from disentkit import checkpoints, machine, runs, training
from disentkit.cards import device_name, factors_from_card, factors_to_card, versions
from disentkit.data.base import ArrayData, Data, Spec
from disentkit.errors import UserError, finite, whole
from disentkit.judges import Judge, Settings
from disentkit.metrics.swaps import judge_accuracy
from disentkit.models import Learner
from disentkit.places import CHECKOUT, home, writable_home

SHIPPED = CHECKOUT / "data" / "judges"
TESTED = 2000  # pictures that accuracies are measured on
HELD_OUT = 1 / 6  # share of stored pictures that a judge is not trained on


@dataclasses.dataclass(frozen=True)
class Kind:
    """In what one kind of reader differs from another, as far as its keeping goes.

    word      what it is called, in lines and as `method` in its card
    learner   built from (settings, spec)
    settings  the dataclass of its settings
    marks     the key of its card that holds how good it is
    measure   (learner, data, pictures, seed) -> those marks, {name: number}
    expected  learner -> the names that its marks must have
    lacking   what a damaged card fails to say
    said      marks -> the line that reports them
    tail      at the end of its folder's name
    """

    word: str
    learner: type[Learner]
    settings: type
    marks: str
    measure: Callable[[Learner, Data, int, int], dict[str, float]]
    expected: Callable[[Learner], set[str]]
    lacking: str
    said: Callable[[dict[str, float]], str]
    tail: str = ""


def _accuracy(judge: Judge, data: Data, n: int, seed: int) -> dict[str, float]:
    return {name: round(float(share), 4) for name, share in judge_accuracy(judge, data, n, seed).items()}


JUDGE = Kind(
    "judge", Judge, Settings, "accuracy", _accuracy, lambda judge: set(judge.space.names),
    "how often it is right on each factor",
    lambda marks: "the judge is right on " + ", ".join(f"{name} {share:.2f}" for name, share in marks.items()),
)  # fmt: skip


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
    return kept(
        JUDGE, data, minutes=minutes, settings=settings, seed=seed, device=device, threads=threads, bar=bar, anew=anew,
        ship=ship, say=say,
    )  # fmt: skip


def kept(
    kind: Kind,
    data: Data,
    *,
    minutes,
    settings,
    seed: int,
    device: str,
    threads,
    bar: bool,
    anew: bool,
    ship: bool,
    say,
) -> Learner:
    """`judge_of` for any kind of reader, of data that it is known to suit."""
    training.check_limits(seed, minutes, threads)
    size = data.image_shape[-1]
    if not isinstance(settings, kind.settings | None):
        raise UserError(f"settings= takes the Settings of {kind.settings.__module__}, not {settings!r}")
    if settings is not None:
        _check(settings, kind)
    if settings is not None and settings.size != size:
        raise UserError(f"the {kind.word}'s settings say size={settings.size}, but the pictures are {data.image_shape}")
    data = data.to("cpu")
    if not (anew or ship) and (reader := find(data, settings, kind)):
        return reader
    place = SHIPPED if ship else writable_home() / "judges"
    folder = place / (re.sub(r"[^\w.+-]+", "_", f"{data.name}-{size}") + kind.tail)
    if ship and folder.exists():
        raise UserError(f"{folder} holds a shipped {kind.word} already: delete it first, then ship another")
    settings = settings or kind.settings(size=size)
    with checkpoints.alone(home() / "working" / f"judge-{folder.name}"):
        say(f"training the {kind.word} of {data.name} at {size} pixels on true pictures; it is kept in {place}")
        reader, rows = _trained(data, settings, seed, minutes, device, threads, bar, say, kind)
        say(kind.said(reader.card[kind.marks]))
        if reader.card["stopped"] == "interrupted":
            say("it was interrupted, so it is not kept")
            return reader
        history = pd.DataFrame(rows)
        try:
            saved = runs.save(folder, reader, reader.card, history, _picture(reader, data, history), half=True)
        except UserError as e:
            say(f"{e} The {kind.word} is used all the same.")
            return reader
    return opened(saved, kind)


def find(data: Data, settings=None, kind: Kind = JUDGE) -> Learner | None:
    """The newest whole judge of these data, the shipped ones first; None where there is none."""
    fingerprint = None
    for folder in folders(kind):
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
            return opened(folder, kind)
        except UserError:
            continue
    return None


def folders(kind: Kind = JUDGE) -> list[Path]:
    """The folder of every judge that its card calls one: the shipped ones, then those trained here, newest first."""
    own = home() / "judges"
    found = [[f for f in place.glob("[!.]*/") if _method(f) == kind.word] for place in (SHIPPED, own)]
    return sorted(found[0]) + sorted(found[1], key=lambda f: f.stat().st_mtime_ns, reverse=True)


def _method(folder: Path) -> str | None:
    """The method that a folder's card names; None without a card that can be read."""
    try:
        return runs.read_card(folder)["method"]
    except (UserError, OSError):
        return None


def open_judge(folder: str | Path) -> Judge:
    """A judge from its folder, on the CPU; raises UserError that says what is missing or does not fit."""
    return opened(folder, JUDGE)


def opened(folder: str | Path, kind: Kind) -> Learner:
    """A reader from its folder, on the CPU; raises UserError that says what is missing or does not fit."""
    folder = Path(folder)
    try:
        card = runs.read_card(folder)
        if card["method"] != kind.word:
            raise ValueError(f"its card says that it is a {card['method']}")
        spec = Spec(tuple(card["image_shape"]), factors_from_card(card["factors"]))
        with machine.seeded(0):
            reader = kind.learner(kind.settings(**card["settings"]), spec)
        reader.load_state_dict(runs.read_weights(folder, card))
        if set(card[kind.marks]) != kind.expected(reader):
            raise ValueError(f"its card does not say {kind.lacking}")
    except (TypeError, AttributeError, RuntimeError, KeyError, ValueError, OSError) as e:
        why = " ".join(str(e).split())[:200]
        raise UserError(f"{kind.word} '{folder.name}' does not fit this version of the kit: {why}") from None
    reader.card = card
    return reader.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _check(settings, kind: Kind) -> None:
    """Raise UserError for a setting of the wrong type or range."""
    for setting in dataclasses.fields(settings):
        value, what = getattr(settings, setting.name), f"the {kind.word}'s {setting.name}"
        if setting.type in ("int", int):
            whole(what, value)
        elif finite(what, value, 0 if setting.name == "lr" else -math.inf) < 0:
            raise UserError(f"{what} must be 0 or more, not {value}")


def _trained(data: Data, settings, seed: int, minutes, device, threads, bar, say, kind: Kind) -> tuple[Learner, list]:
    """A reader with its card, and the rows of its history."""
    known, fresh, tested = _split(data, seed)
    with machine.seeded(seed):
        reader = kind.learner(settings, data.spec)
    with training.memory_told(settings.batch):
        fitted = training.fit(
            reader, known, steps=settings.steps, batch=settings.batch, seed=seed, minutes=minutes, device=device,
            threads=threads, bar=bar, say=say,
        )  # fmt: skip
    reader.to("cpu").requires_grad_(False)
    with torch.no_grad():  # as it will be opened: float16 is what is kept
        for tensor in reader.state_dict().values():
            tensor.copy_(tensor.half() if tensor.is_floating_point() else tensor)
    reader.card = {
        "name": f"{data.name}-{settings.size}", "method": kind.word, "settings": dataclasses.asdict(settings),
        "data": {"name": data.name, "options": None, "fingerprint": data.fingerprint()},
        "image_shape": list(data.image_shape), "factors": factors_to_card(data.space), "seed": seed, "base": None,
        "blocks": [], kind.marks: kind.measure(reader, fresh, tested, seed + 1),
        f"{kind.marks}_on": f"{tested} pictures that it was not trained on", "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1), "stopped": fitted.stopped, "notes": fitted.messages,
        "device": device_name(torch.device(fitted.device)), "threads": fitted.threads, "precision": fitted.precision,
        "versions": versions(), "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    return reader, fitted.rows


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


def _picture(reader: Learner, data: Data, history: pd.DataFrame) -> bytes:
    """PNG bytes: ten true pictures, what the reader makes of them, and the curves."""
    from disentkit import plots

    rng = torch.Generator().manual_seed(0)
    batch = data.sample(10, rng)
    seen = {"pictures": batch["x"], "as trained": reader.worn(batch["x"], rng).clamp(0, 1)}
    return plots.training_picture(seen | reader.preview(batch), history)
