"""The panel: a slider per block of a model's code, the picture the code decodes to, and the sheet of traversals.

The state is one flat code. Every control changes the code, and `render` turns a code into a picture; nothing else does.
The live picture follows each slider event. The sheet, forty times as dear, follows when the sliders have been at rest
for a moment: core widgets report a drag's values but not its end, and a rest serves the mouse and the keyboard alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from disentkit import models
from disentkit.codes import Block
from disentkit.explore import images, text
from disentkit.explore.controls import STRIP, Feeder, control, label_width
from disentkit.explore.frame import Frame, Sources, count, draw, save, sheet_image, sources_of, thumbnails
from disentkit.explore.ranking import Ranked, ranked
from disentkit.explore.swapping import group_named, groups_of, travel

THUMB = 56  # height of a source's thumbnail


class Panel(Frame):
    """A panel over one model. As the last expression of a cell it shows itself; `panel.widget` is its widget.

    model    codes (N, D) -> images (N, C, H, W); a renderer gives the panel of true factors
    stats    a dict per block (name, low, high, importance, unit, factor, correlation), as a run's `stats`: order,
             labels and ranges of the sliders. None: code order and the blocks' own ranges
    sources  pictures (n, C, H, W) in [0, 1] that the model encodes, codes (n, D), or a number of draws from the prior:
             where exploring starts, and what feeds wide and map blocks
    title    a line above
    seed     of the panel's own draws

    Raises ValueError for statistics of unknown blocks and for sources that do not fit the model. What fails later,
    while someone drags, is shown in a line of the panel, and `panel.error` holds it.
    """

    columns = 10  # of the sheet

    def __init__(self, model, stats: Sequence[dict] | None = None, sources=None, title: str = "", seed: int = 0):
        super().__init__(model, title, seed)
        self.rows: list[Ranked] = ranked(model.codes, stats)
        none = Sources(np.zeros((0, 1, 1, 3), np.uint8), torch.zeros(0, model.codes.size))
        self.sources = none if sources is None else sources_of(model, sources, self.rng)
        self.bases: Tensor = self.sources.codes  # (n, D)
        self.base: Tensor = self.bases[0] if len(self.bases) else self._start()  # (D,)
        self._code = self.base[None].clone()  # (1, D)
        self._controls = [control(row, self._moved, label_width(self.rows), self._feeder(row)) for row in self.rows]
        # What people and notebooks reach for: a block's widget (the buttons by name are `buttons`).
        self.controls = {row.block.name: c.widget for row, c in zip(self.rows, self._controls)}
        self.widget = self._layout(self.sources.thumbs)
        self._mark_base(0)
        self._show()

    # The state and its picture.
    @property
    def code(self) -> Tensor:
        """The present code (1, D). Setting it, to (1, D) or (D,), draws the picture once."""
        return self._code.clone()

    @code.setter
    def code(self, code) -> None:
        self._set(code)

    @property
    def text(self) -> str:
        """The present code as text that reads back to the same code; setting `z3=1.5` changes that block alone."""
        return text.write(self.model.codes, self._code)

    @text.setter
    def text(self, line: str) -> None:
        self._set(text.read(self.model.codes, line, self._code))

    def render(self, state) -> np.ndarray:
        """The picture (H, W, 3) uint8 of a code, (1, D) or (D,), at the model's own size. Pure."""
        return images.to_uint8(models.decode(self.model, self._one(state)))[0]

    def sheet(self, columns: int | None = None) -> np.ndarray:
        """The traversal sheet (H, W, 3) uint8 of the present code: a row per block, by importance.

        As figure 6 of Kim & Mnih 2018: a scalar goes from the low to the high end of its range in `columns` steps, all
        else as in the present code. A one-hot block goes through its categories; wide and map blocks have no row.
        """
        return self._sheet(self.columns if columns is None else count("columns", columns, least=1), self.title)

    def _sheet(self, columns: int, title: str) -> np.ndarray:
        shown = [row for row in self.rows if row.block.scalar or row.block.kind == "onehot"]
        rows = [(row, self._values(row, columns)) for row in shown]
        if not rows:
            return self.render(self._code)
        codes = [self.model.codes.traverse(self._code, row.block.name, values) for row, values in rows]  # (S, D) each
        tiles = images.to_uint8(models.decode(self.model, torch.cat(codes)))
        tiles = np.split(tiles, np.cumsum([len(c) for c in codes])[:-1])
        return images.sheet([(_lines(row), part) for (row, _), part in zip(rows, tiles)], title)

    def save(self, path: str | Path, columns: int | None = None) -> Path:
        """Write the sheet as PNG and return its path. Raises UserError where it cannot be written."""
        return save(path, self.sheet(columns))

    # What the buttons do.
    def random(self) -> None:
        """A code from the model's prior, drawn with the panel's own generator."""
        self._set(draw(self.model, 1, self.rng))

    def reset(self) -> None:
        """Back to the code of the base picture."""
        self._set(self.base)

    def pick(self, i: int) -> None:
        """Make source i the base picture and go there."""
        i = self._source(i)
        self.base = self.bases[i]
        self._mark_base(i)
        self._set(self.base)

    def draw_again(self, name: str) -> None:
        """A new draw of one block from its prior."""
        block = self.model.codes[name]
        self._moved(block, block.prior(1, self.rng))

    def feed(self, name: str, i: int) -> None:
        """Take one block, and those that share its picker, from source i."""
        group, i = group_named(groups_of(self.model.codes), name), self._source(i)
        self._set(travel(self.model.codes, self._code, self.bases[i : i + 1], group))

    # How a change travels: code -> controls and picture -> (at rest) sheet and text.
    def _moved(self, block: Block, value: Tensor) -> None:
        with self._errors():
            self._code = block.write(self._code, value)
            self._show()

    def _set(self, code) -> None:
        code = self._one(code)
        if not torch.isfinite(code).all():
            raise ValueError("a code holds finite numbers only; this one has NaN or infinity")
        self._code = code.clone()
        self._show()

    def _one(self, code) -> Tensor:
        """A code, (1, D) or (D,), as (1, D); raises ValueError for anything else."""
        try:
            code = torch.as_tensor(code).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            pass  # `check` says it
        else:
            code = code.reshape(1, -1) if code.ndim == 1 else code
        code = self.model.codes.check(code)
        if len(code) != 1:
            raise ValueError(f"a panel holds one code (1, {code.shape[1]}), not {tuple(code.shape)}")
        return code

    def _show(self) -> None:
        with self._errors():
            for shown in self._controls:
                shown.show(self._code)
            self.picture.value = images.png(images.enlarge(self.render(self._code), self._side))
        self._at_rest(self._show_slowly)

    def _show_slowly(self) -> None:
        with self._errors(fresh=False):
            self.field.value = self.text
            self.sheet_picture.value = images.png(self._sheet(self.columns, ""))  # the panel's title stands above it

    # What it looks like.
    def _layout(self, thumbs: np.ndarray) -> ipywidgets.Widget:
        self.picture = self._live()
        wide = self.picture.width
        self.sheet_picture = sheet_image()
        example = self.rows[0].block.name if self.rows else "z0"
        self.field = ipywidgets.Text(
            description="code", continuous_update=False, layout={"width": "100%"}, style={"description_width": "44px"},
            tooltip=f"the present code; edit it and press Enter, or write one block: {example}=0.5",
        )  # fmt: skip
        self.field.observe(self._typed, names="value")
        buttons = ipywidgets.HBox(
            [
                self._button("random", "random", "a code drawn from the model's prior", self.random, flex="1 1 0"),
                self._button("reset", "reset", "back to the code of the base picture", self.reset, flex="1 1 0"),
            ],
            layout={"width": f"{max(int(wide), 180)}px", "margin": "6px 0 0 0"},
        )
        left = ipywidgets.VBox([*self._above_picture(wide), self.picture, buttons], layout={"margin": "0 16px 0 0"})
        right = [self._with_draw(row, shown.view) for row, shown in zip(self.rows, self._controls)]
        right = ipywidgets.VBox(right + self._below_controls(), layout={"flex": "1 1 420px", "min_width": "380px"})
        middle = ipywidgets.HBox([left, right], layout={"flex_flow": "row wrap", "overflow": "visible"})
        parts = [self._strip(thumbs), middle, self.error_line, self.field, self.sheet_picture]
        return self._titled(*parts)

    def _feeder(self, row: Ranked) -> Feeder | None:
        """What a source picker for the block needs, where the sources say anything about it."""
        if not self.sources.hold(row.block):
            return None

        def feed(i: int) -> None:
            with self._errors():
                self.feed(row.block.name, i)

        return self.bases, feed

    def _above_picture(self, wide: int) -> list[ipywidgets.Widget]:
        return []

    def _below_controls(self) -> list[ipywidgets.Widget]:
        return []

    def _with_draw(self, row: Ranked, widget: ipywidgets.Widget) -> ipywidgets.Widget:
        """The block's control; beside it 'draw again' where no encoder reads the block."""
        if row.block.inferred:
            return widget
        name = row.block.name
        tooltip, action = f"draw {name} from its prior; no encoder reads it", partial(self.draw_again, name)
        button = self._button(f"draw {name}", "draw again", tooltip, action, flex="none", width="96px")
        return ipywidgets.HBox([widget, button], layout={"justify_content": "space-between"})

    def _strip(self, thumbs: np.ndarray) -> ipywidgets.Widget | None:
        """Thumbnails (n, H, W, 3) of the sources, a button under each."""
        if not len(thumbs):
            return None
        boxes, (shown, wide) = [], thumbnails(thumbs[:STRIP], THUMB)
        for i, thumb in enumerate(shown):
            name, action = f"picture {i + 1}", partial(self.pick, i)
            button = self._button(name, f"{i + 1}", f"start from {name}", action, width=f"{wide}px", padding="0")
            boxes.append(ipywidgets.VBox([thumb, button]))
        more = f" (the first {STRIP} of {len(thumbs)})" if len(thumbs) > STRIP else ""
        return ipywidgets.HBox([ipywidgets.Label(f"start from{more}"), *boxes], layout={"flex_flow": "row wrap"})

    def _mark_base(self, chosen: int) -> None:
        for i in range(min(len(self.bases), STRIP)):
            self.buttons[f"picture {i + 1}"].button_style = "info" if i == chosen else ""
            self.buttons[f"picture {i + 1}"].style.font_weight = "bold" if i == chosen else "normal"

    def _typed(self, change) -> None:
        if change["new"] != self.text:
            with self._errors():
                self.text = change["new"]

    def _values(self, row: Ranked, columns: int) -> Tensor:
        """The values (S, *shape) along one row of the sheet."""
        if row.block.kind == "onehot":
            return torch.eye(row.block.size)
        return torch.linspace(row.low, row.high, columns)

    def _start(self) -> Tensor:
        """Where exploring starts without sources: the middle of the prior, the first of every category."""
        code = self.model.codes.centre()
        for block in self.model.codes:
            if block.kind == "onehot":
                code = block.write(code, torch.eye(block.size)[:1])
        return code[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {type(self.model).__name__}: {self.text}"


def _lines(row: Ranked) -> list[str]:
    if row.block.kind == "onehot":
        words = ", ".join(text.labels_of(row.block))
        reach = words if len(words) <= 28 else f"{row.block.size} categories"
    else:
        reach = f"{row.low:.3g} to {row.high:.3g}"
    return [row.name, ",  ".join(part for part in (row.weight, reach) if part)]
