"""What a panel shows for one block: a slider, a category picker, a source picker, or a line that keeps the place.

`control(row, changed, width, feeder)` chooses; a new kind of block gets its control there. A control has a `.widget`
(what is moved) and a `.view` (what is laid out, with the label on the left, `width` pixels wide). It calls
`changed(block, value (1, *shape))` when its user moves it; `show(code)` makes it show a code without calling anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import ipywidgets
import torch
from torch import Tensor

from disentkit.codes import Block
from disentkit.explore import text
from disentkit.explore.ranking import Ranked

Changed = Callable[[Block, Tensor], None]
Feeder = tuple[Tensor, Callable[[int], None]]  # the sources' codes (n, D), and what feeds a block from source i
STRIP = 24  # sources shown at most


def control(row: Ranked, changed: Changed, width: int, feeder: Feeder | None = None):
    """The control for one block; `feeder` where there are sources that can feed it."""
    if row.block.scalar:
        return Slider(row, changed, width)
    if row.block.kind == "onehot":
        return Picker(row, changed, width)
    return SourcePicker(row, *feeder, width) if feeder else Place(row, width)


def label_width(rows: Sequence[Ranked]) -> int:
    """Pixels that hold the longest label; labels are cut at 280."""
    return min(max([60, *(8 * len(row.label) + 16 for row in rows)]), 280)


class Slider:
    """A slider over [row.low, row.high] that widens for a code beyond it, so that no code is changed by being shown."""

    def __init__(self, row: Ranked, changed: Changed, width: int):
        self.block, self.changed = row.block, changed
        self.step = _step(row.high - row.low)
        low, high = row.low, row.high
        if row.block.kind != "uniform":  # a round range puts 0 on a step; a uniform block ends where its prior ends
            low, high = self._below(low), self._above(high)
        self.value = min(max(0.0, low), high)  # what the code holds here; the widget may show it rounded to a step
        self.widget = ipywidgets.FloatSlider(
            self.value, min=low, max=high, step=self.step, description=spaced(row.label), continuous_update=True,
            readout_format=f".{max(0, -math.floor(math.log10(self.step)))}f", layout={"width": "100%"},
            tooltip=f"{row.label}: arrow keys move it", style={"description_width": f"{width}px"},
        )  # fmt: skip
        self.view = self.widget
        self.widget.observe(self._on_value, names="value")

    def show(self, code: Tensor) -> None:
        value = self.block.read(code).item()
        widget = self.widget
        if abs(value - self.value) <= 1e-6 * (widget.max - widget.min):
            return  # also float32's rounding of the very value the slider sent: sending it back would fight the hand
        self.value = value
        # First the range, in a message of its own: a browser that sees the value before the wider range clips it, and
        # hold_sync would send both at once in an order that changes from process to process (ipywidgets keeps a set).
        if value > widget.max:
            widget.max = self._above(value)
        if value < widget.min:
            widget.min = self._below(value)
        widget.value = value

    def _below(self, value: float) -> float:
        return min(value, math.floor(value / self.step + 1e-6) * self.step)

    def _above(self, value: float) -> float:
        return max(value, math.ceil(value / self.step - 1e-6) * self.step)

    def _on_value(self, change) -> None:
        value = change["new"]
        if value == self.value or self._rounded_by_browser(value):
            return
        self.value = value
        self.changed(self.block, torch.full((1, *self.block.shape), value))

    def _rounded_by_browser(self, value: float) -> bool:
        """True where this is no move: a browser rounds a value it is shown to the slider's steps and returns that."""
        steps = (value - self.widget.min) / self.step
        on_step = abs(steps - round(steps)) < 1e-6 or value in (self.widget.min, self.widget.max)
        return on_step and abs(value - self.value) <= self.step * 0.500001


class Picker:
    """Buttons, or a list where there are many, for the vertices of a one-hot block; none is chosen for a soft value."""

    def __init__(self, row: Ranked, changed: Changed, width: int):
        self.block, self.changed, self.index = row.block, changed, None
        labels = text.labels_of(row.block)
        options = [(spaced(label), i) for i, label in enumerate(labels)]
        if len(labels) <= 6:
            tips = [f"{row.name}: {label}" for label in labels]
            self.widget = ipywidgets.ToggleButtons(
                options=options, value=None, tooltips=tips, style={"button_width": "auto"}, layout={"width": "auto"}
            )
        else:
            self.widget = ipywidgets.Dropdown(options=options, value=None, layout={"width": "240px"})
        self.view = labelled(row.label, self.widget, width)  # buttons would put their description on a line above them
        self.widget.observe(self._on_value, names="value")

    def show(self, code: Tensor) -> None:
        self.index = text.vertex(self.block.read(code)[0])
        self.widget.value = self.index

    def _on_value(self, change) -> None:
        if change["new"] is None or change["new"] == self.index:
            return
        self.index = change["new"]
        one = torch.nn.functional.one_hot(torch.tensor([self.index]), self.block.size).float()  # (1, size)
        self.changed(self.block, one.reshape(1, *self.block.shape))


class SourcePicker:
    """Numbered buttons, one per source, that feed a wide or map block; none is chosen for a value of no source."""

    def __init__(self, row: Ranked, sources: Tensor, feed: Callable[[int], None], width: int):
        self.feed, self.index = feed, None
        self.block, self.values = row.block, row.block.read(sources[:STRIP])  # (n, *shape)
        numbers = range(1, len(self.values) + 1)
        self.widget = ipywidgets.ToggleButtons(
            options=[(str(i), i - 1) for i in numbers], value=None,
            tooltips=[f"{row.name} from picture {i}" for i in numbers],
            style={"button_width": "36px"}, layout={"width": "auto"},
        )  # fmt: skip
        self.view = labelled(row.label, self.widget, width)
        self.widget.observe(self._on_value, names="value")

    def show(self, code: Tensor) -> None:
        same = (self.values == self.block.read(code)).flatten(1).all(1).tolist()
        if self.index is None or not same[self.index]:  # of two sources with one value, the one that was picked stays
            self.index = same.index(True) if any(same) else None
        self.widget.value = self.index

    def _on_value(self, change) -> None:
        if change["new"] is None or change["new"] == self.index:
            return
        self.index = change["new"]
        self.feed(self.index)


class Place:
    """A line that names a wide or map block and says what becomes of it."""

    def __init__(self, row: Ranked, width: int):
        shape = " x ".join(map(str, row.block.shape))
        note = "give the panel sources to pick from" if row.block.inferred else "no encoder reads it"
        self.widget = ipywidgets.Label(f"{shape} numbers: {note}", layout={"width": "auto"})
        self.view = labelled(row.label, self.widget, width)

    def show(self, code: Tensor) -> None:
        """A wide block has no control to move."""


def _step(span: float) -> float:
    """The step 1, 2 or 5 times a power of ten that divides `span` into 200 to 500 parts."""
    power = 10.0 ** math.floor(math.log10(span / 200))
    return max(s * power for s in (1, 2, 5) if s * power <= span / 200 * (1 + 1e-9))


def labelled(label: str, widget: ipywidgets.Widget, width: int) -> ipywidgets.Widget:
    """A widget with its label where the sliders have theirs."""
    beside = {"width": f"{width}px", "display": "flex", "justify_content": "flex-end", "margin": "2px 6px 2px 2px"}
    return ipywidgets.HBox([ipywidgets.Label(spaced(label), layout=beside), widget])


def spaced(label: str) -> str:
    """HTML folds runs of spaces; a label keeps them."""
    return label.replace("  ", "\u2002\u2002")
