"""A member of a sweep, in the process that trains it: train or open, measure, say in a row what came of it."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass

import pandas as pd

from disentkit import workbench
from disentkit.data.base import Data
from disentkit.errors import UserError
from disentkit.probes import READY
from disentkit.tables import FAILED

FULL = "full"  # the measure that is `workbench.score`
OWN = {"preset", "recon", "kl", "seconds", "threads", "precision", "device", "run", "disentkit", "torch", FAILED}
_turn = threading.Lock()  # a process trains one member at a time, however many threads a dask worker has


@dataclass(frozen=True)
class Member:
    """One training of a sweep. asked: what its row is known by; changes: the settings that the sweep sets."""

    asked: dict
    changes: dict

    @property
    def seed(self) -> int:
        return self.asked["seed"]

    @property
    def words(self) -> str:
        return " ".join([*(f"{k}={short(v)}" for k, v in self.changes.items()), f"seed={self.seed}"])


@dataclass(frozen=True)
class Task:
    """What all members share: for `workbench.train`, for measuring, and what a worker has to know."""

    method: str
    data: str | Data
    preset: str
    options: dict
    measures: tuple
    home: str
    parent: int  # the process that asked


def train_members(chunk: list[Member], task: Task) -> list[tuple[Member, dict | None]]:
    """Train and measure; the rest of each member's row, None for one that Ctrl-C ended. Failures are rows, too."""
    if os.getpid() != task.parent:
        os.environ["DISENTKIT_HOME"] = task.home
        _end_with(task.parent)
    with _turn:
        return [(member, _row(run, member.asked, task)) for member, run in zip(chunk, _trained(chunk, task))]


def _trained(chunk: list[Member], task: Task) -> list[workbench.Run | Exception]:
    """The runs, opened where they are finished already."""
    asked, changes = chunk[0].asked, chunk[0].changes
    stem = [task.method, asked["data"], task.preset, *([asked["precision"]] if "precision" in asked else [])]
    name = "-".join([*stem, *(f"{k}{short(v)}" for k, v in changes.items())])
    options = {"data": task.data, "preset": task.preset, **task.options, **changes}
    found = {}
    try:
        found = {m.seed: workbench.finished(task.method, seed=m.seed, **options) for m in chunk}
        left = [seed for seed, run in found.items() if run is None]
        options |= {"name": name, "say": _quiet}
        if len(left) == 1:
            found[left[0]] = workbench.train(task.method, seed=left[0], live=False, **options)
        elif left:
            found |= zip(left, workbench.train_together(task.method, left, **options))
    except Exception as error:  # whatever it was, the other members go on
        found = {m.seed: found.get(m.seed) or error for m in chunk}
    return [found[m.seed] for m in chunk]


def _row(run: workbench.Run | Exception, asked: dict, task: Task) -> dict | None:
    row = {"preset": task.preset}
    if isinstance(run, Exception):
        return row | {FAILED: reason(run)}
    card = run.card
    if card["stopped"] == "interrupted":
        return None
    if run.path is None:
        return row | {FAILED: f"the run could not be saved in {task.home}; make room"}
    try:
        row |= _measured(run, asked, task)
    except Exception as error:
        return row | {FAILED: f"trained, but not measured: {reason(error)}"}
    return row | _ends(run.history) | {
        "seconds": card["seconds"], "threads": card["threads"], "precision": card["precision"],
        "device": card["device"], "run": run.name, "disentkit": card["versions"]["disentkit"],
        "torch": card["versions"]["torch"], FAILED: "",
    }  # fmt: skip


def _measured(run: workbench.Run, asked: dict, task: Task) -> dict[str, float]:
    data = run.data() if isinstance(task.data, str) else task.data
    found = {}
    for measure in task.measures:
        if measure == FULL:
            found |= _full(workbench.score(run, data))
        else:
            found |= (measure if callable(measure) else READY[measure])(run.model, data)
    if taken := [name for name in found if name in asked or name in OWN]:
        raise ValueError(f"a measure is called '{taken[0]}', which is a column of the table already")
    return found


def _full(scores: dict) -> dict[str, float]:
    """The columns of what `workbench.score` found: of scalar columns, wide blocks, attributes or mixing."""
    found = {}
    if "mig" in scores:
        f = scores["factorvae_score"]
        found |= {"factorvae": f["pruned"], "factorvae_unpruned": f["unpruned"], "surviving": float(f["surviving"])}
        found |= {"betavae": scores["betavae_score"]["score"], "mig": scores["mig"]["mig"]}
    if "blocks" in scores:
        blocks = scores["blocks"]
        found["followed"] = float(len(blocks["followed"]))
        if "alive" in blocks:
            found["alive"] = blocks["alive"]
    if "co_prediction" in scores:
        found |= {name: scores["co_prediction"][name] for name in ("diagonal", "off_diagonal")}
    if "zero_shot" in scores:
        found["zero_shot_psnr"] = scores["zero_shot"]["psnr"]
    found |= {name.replace(" ", "_"): gate["measured"] for name, gate in scores.get("gates", {}).items()}
    return found


def _ends(history: pd.DataFrame) -> dict[str, float]:
    """recon and the sum of kl of the history's last row, to the six digits that its file keeps."""
    last, found = history.iloc[-1], {}
    for name in ("recon", "kl"):
        columns = [column for column in history.columns if re.fullmatch(rf"{name}(_\d+)?", column)]
        if columns:
            found[name] = float(f"{sum(float(f'{last[column]:.6g}') for column in columns):.6g}")
    return found


def reason(error: Exception) -> str:
    """One line."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _end_with(parent: int) -> None:
    """End this process when `parent` is gone: killed, it would leave members training that nobody asks for."""
    if os.getppid() != parent or any(thread.name == "sweep" for thread in threading.enumerate()):
        return  # a worker of a cluster has a parent of its own

    def look():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, name="sweep", daemon=True).start()


def short(value) -> str:
    """40 for 40.0, and as many digits as the value has."""
    rounded = f"{value:g}" if isinstance(value, float) else str(value)
    return rounded if not isinstance(value, float) or float(rounded) == value else repr(value)


def _quiet(text: str) -> None:
    """In place of print: several members would speak at once."""
