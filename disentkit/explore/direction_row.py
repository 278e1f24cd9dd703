"""What the direction panel shows for one direction: a slider with its likely range, a lock, and a line of words."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import replace

import ipywidgets
import torch
from torch import Tensor

from disentkit.explore.controls import Changed, Slider, spaced
from disentkit.explore.meter import NOT_FOUND, changed, decimals, signed
from disentkit.explore.ranking import Ranked

FAR = 3.0  # a slider reaches from g(-FAR) to g(FAR); the likely values are those from g(-2) to g(2)
LOCK, LEFT, RIGHT = 68, 13, 158  # pixels: the lock's width; what lies beside the slider's track, to align the band


class DirectionRow:
    """One direction: `.slider` (a `controls.Slider`), `.lock`, `.note`, and `.view`, which lays them out.

    row      the direction with what is known of it; low ... high is its likely range
    changed  called with (direction, value (1, 1)) when its user moves the slider
    locked   called with (name, on) when its user clicks on the lock
    """

    def __init__(self, row: Ranked, changed: Changed, locked: Callable[[str, bool], None], width: int):
        self.row, self.direction = row, row.block
        low, high = self.direction.g(torch.tensor([-FAR, FAR])).tolist()
        wide = replace(row, low=min(low, row.low), high=max(high, row.high))
        self.slider, self.widget = (made := Slider(wide, changed, width)), made.widget
        self.widget.description = spaced(label(row))
        self.widget.tooltip = f"{label(row)}: arrow keys move it; 95 % of the prior lie in the shaded range"
        self.lock = ipywidgets.ToggleButton(
            description="lock", tooltip=f"keep {self.direction.name} while another direction is moved",
            layout={"width": f"{LOCK}px", "height": "26px", "margin": "1px 2px 1px 4px", "padding": "0",
                    "flex": "none"},
        )  # fmt: skip
        self.lock.observe(lambda change: locked(self.direction.name, change["new"]), names="value")
        self.note = ipywidgets.HTML(layout={"margin": f"-6px 0 4px {width + 4}px"})
        self.view = ipywidgets.VBox([ipywidgets.HBox([self.widget, self.lock]), self.note])

    @property
    def digits(self) -> int:
        """After the point of the numbers that are said about it."""
        return decimals(self.widget.max - self.widget.min)

    @property
    def likely(self) -> str:
        """Its likely range, `-0.26 to +0.26`."""
        return f"{signed(self.row.low, self.digits)} to {signed(self.row.high, self.digits)}"

    def read(self, code: Tensor) -> float:
        """t of a code (1, D)."""
        return self.direction.read(code).item()

    def show(self, code: Tensor) -> None:
        """Bring the slider to a code (1, D) without calling anything."""
        self.slider.show(code)

    def keep(self, on: bool) -> None:
        """Show whether the direction is locked."""
        with self.lock.hold_sync():
            self.lock.value, self.lock.description = on, "locked" if on else "lock"
            self.lock.button_style = "warning" if on else ""
        self.widget.disabled = on

    def tell(self, asked: float, measured: tuple[float | None, float | None] | None) -> None:
        """Say below the slider what was asked for since the start, and what was measured.

        measured  of the present picture and of that at the start, NaN where nothing was found, None where nothing has
                  been measured yet; None alone where nothing measures this direction
        """
        said = f"asked {signed(asked, self.digits)}"
        if measured is None:
            said += ", not measured"
        elif measured[0] is not None and math.isnan(measured[0]):
            said += f", {NOT_FOUND}"
        else:
            said += f", measured {changed(*measured, self.digits)}"
        self._say(said)

    def _say(self, words: str) -> None:
        """Show words under the slider, below the band of its likely range; sent only where they are new."""
        low, span = self.widget.min, self.widget.max - self.widget.min
        left, right = (100 * (t - low) / span for t in (self.row.low, self.row.high))
        said = (f"<div style='position: relative; height: 4px; margin: 0 {RIGHT}px 0 {LEFT}px'>"
                f"<div style='position: absolute; left: {left:.1f}%; width: {right - left:.1f}%; height: 4px;"
                f" background: #7fb6dd'></div></div><div style='line-height: 18px'>{html.escape(words)}"
                f"<span style='color: #5f5f5f'>; likely {self.likely}</span></div>")  # fmt: skip
        if self.note.value != said:
            self.note.value = said


def label(row: Ranked) -> str:
    """`x (fraction of the width)`, and how much it carries where that is known."""
    unit = f" ({row.block.unit})" if row.block.unit else ""
    return "  ".join(part for part in (row.block.name + unit, row.weight) if part)
