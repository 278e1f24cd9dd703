"""What a training says while it runs: its losses, which stay on the device until they are read, and its progress."""

from __future__ import annotations

import re
import time

import torch
from torch import Tensor

from disentkit.errors import UserError


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


def is_part(column: str) -> bool:
    """True for a column that holds one number of a vector: kl_0, kl_1, ..."""
    return re.search(r"_\d+$", column) is not None


def line(row: dict[str, float], images: float) -> str:
    """The end of the progress line: images/s and the scalar losses."""
    shown = [f"{k} {v:.3g}" for k, v in row.items() if k != "step" and not is_part(k)]
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
