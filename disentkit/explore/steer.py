"""The direction panel: a slider per learned direction in its own unit, the measured value beside what was asked for.

The state is one flat code and the code it started from. A slider writes its direction's value into the code (see
`methods.steered`); locked directions are held meanwhile. An event costs one decode. The picture comes first; what the
instrument measures follows at once where that is cheap, else when the sliders have been at rest for a moment, as the
sheet of paths does.
"""

from __future__ import annotations

import html
import math
import numbers
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from disentkit import models, places
from disentkit.codes import Block
from disentkit.errors import SHOWN, UserError
from disentkit.explore import images, paths, text
from disentkit.explore.controls import Picker, labelled
from disentkit.explore.direction_row import DirectionRow, label
from disentkit.explore.frame import Frame, count, draw, save, sheet_image, show_words
from disentkit.explore.meter import Meter, changed
from disentkit.explore.ranking import Ranked, ranked
from disentkit.methods.steered import Direction, load_direction, save_direction

CHEAP = 0.005  # seconds: what takes longer to measure waits for rest
SEEDS = 2**31 - 1
FILE_NAME = re.compile(r"[^\W_][\w +-]{0,79}")  # what can be the name of a file on any system


class Steer(Frame):
    """A panel over one model with directions. As the last expression of a cell it shows itself.

    model       a `Steered`: a model of any kind and directions through its code
    instrument  `names` and a call images (N, C, H, W), codes (N, D) -> values (N, K), NaN where it found nothing (see
                `metrics.instruments`). None: nothing is measured, and the panel says so
    stats       a dict per block (name, low, high, importance, ...), as a run's `stats`: order, labels and the likely
                range of the sliders. None: the order of the directions, and g(-2) ... g(2)
    title       a line above
    seed        of the code it starts from, drawn from the model's prior
    folder      where directions are saved; by default `directions` below the kit's home

    t is the value of a direction, t = g(<z, u>), in its unit, 0 in the middle of the prior. What was asked for is the
    change of t since the start: the code drawn, or set from outside. A locked direction keeps its t while another one
    is moved; `reset` and `draw` replace the whole code. Another class leaves every t as it is.

    Raises ValueError for a model without directions, an instrument that is none and statistics of unknown blocks. What
    fails later, while someone drags, is shown in a line of the panel, and `panel.error` holds it.
    """

    columns = 7  # of the sheet

    def __init__(self, model, instrument=None, stats: Sequence[dict] | None = None, title: str = "", seed: int = 0,
                 folder: str | Path | None = None):  # fmt: skip
        super().__init__(model, title, seed)
        if not isinstance(getattr(model, "directions", None), Mapping) or not model.directions:
            raise ValueError(
                f"{type(model).__name__} has no directions to steer; learn some first, as by directions.learn(model), "
                "or give it one: Steered(model, [direction])"
            )
        self.meter, self.folder = Meter(instrument), folder
        found = [row for row in ranked(model.codes, stats) if row.block.name in model.directions]
        width = min(max(60, *(8 * len(label(row)) + 16 for row in found)), 280)
        self.rows = {row.block.name: DirectionRow(row, self._moved, self._toggled, width) for row in found}
        blocks = [row for row in ranked(model.codes, None) if row.block.kind == "onehot"]
        self._pickers = {row.block.name: Picker(row, self._picked, width) for row in blocks}
        # What people and notebooks reach for: the sliders and locks by direction, the pickers by block.
        self.controls = {name: row.widget for name, row in self.rows.items()}
        self.locks = {name: row.lock for name, row in self.rows.items()}
        self.pickers = {name: picker.widget for name, picker in self._pickers.items()}
        self._width = width
        self._locked: set[str] = set()
        self._held: dict[str, Direction] = {}  # by direction, as it moves while those are locked
        self._picture: Tensor | None = None  # (1, C, H, W) of the code
        self._now: Tensor | None = None  # (K,), measured of it
        self._before: Tensor | None = None  # (K,), of the start
        self._cost = 0.0  # seconds that the last measurement took
        self._drawn: int | None = _seed(seed)  # the start is this seed's code; None where it was set from outside
        self.widget = self._layout()
        self._begin(self._prior(seed))

    # The state and its picture.
    @property
    def code(self) -> Tensor:
        """The present code (1, D). Setting it, to (1, D) or (D,), makes it the start, too."""
        return self._code.clone()

    @code.setter
    def code(self, code) -> None:
        code = self._one(code).clone()
        if not torch.isfinite(code).all():
            raise ValueError("a code holds finite numbers only; this one has NaN or infinity")
        self._drawn = None
        self._begin(code)

    @property
    def start(self) -> Tensor:
        """The code (1, D) that `reset` goes back to."""
        return self._start.clone()

    @property
    def t(self) -> dict[str, float]:
        """By direction its value, in its unit."""
        return {name: row.read(self._code) for name, row in self.rows.items()}

    @property
    def locked(self) -> tuple[str, ...]:
        """The names of the locked directions."""
        return tuple(name for name in self.rows if name in self._locked)

    def measured(self) -> dict[str, float]:
        """What the instrument measures of the present picture, by factor; NaN where it found nothing."""
        if self._now is None:
            self._measure()
        return dict(zip(self.meter.names, self._now.tolist()))

    def render(self, state) -> np.ndarray:
        """The picture (H, W, 3) uint8 of a code, (1, D) or (D,), at the model's own size. Pure."""
        return images.to_uint8(self._decode(self._one(state)))[0]

    def sheet(self, columns: int | None = None) -> np.ndarray:
        """The sheet of paths (H, W, 3) uint8: a row per direction, from g(-2) to g(2) in `columns` steps.

        All else is as in the present code, locked directions held. Under each picture stand t and the measured value.
        """
        return self._sheet(self.columns if columns is None else count("columns", columns, least=1), self.title)

    def save(self, path: str | Path, columns: int | None = None) -> Path:
        """Write the sheet as PNG and return its path. Raises UserError where it cannot be written."""
        return save(path, self.sheet(columns))

    # What sliders and buttons do.
    def set(self, name: str, value: float) -> None:
        """Bring a direction to t = value, in its unit; the locked ones keep their t.

        Raises ValueError for a locked direction, and for one that the locked ones leave no way to move.
        """
        if name in self._locked:
            raise ValueError(f"'{name}' is locked; lock('{name}', False) lets it go")
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"'{name}' is set to a finite number, not {value!r}")
        self._code = self.held(name).write(self._code, torch.full((1, 1), float(value)))
        self._show()

    def held(self, name: str) -> Direction:
        """A direction as it moves now, with the locked ones held. ValueError where they leave it no way to move."""
        if name not in self._held:
            direction, others = self._row(name).direction, [self.rows[n].direction for n in self.locked if n != name]
            self._held[name] = direction.holding(others) if others else direction
        return self._held[name]

    def lock(self, name: str, on: bool = True) -> None:
        """Keep a direction's t while others are moved; `on=False` lets it go."""
        row = self._row(name)
        (self._locked.add if on else self._locked.discard)(name)
        self._held.clear()
        row.keep(bool(on))
        self._at_rest(self._show_slowly)

    def draw(self, seed: int | None = None) -> None:
        """Start from the code that the prior gives with a seed, the present class kept.

        seed  left out: that of the field; if the start is that seed's code already, the next one
        """
        if seed is None:
            seed = self.seed_field.value
            seed = (seed + 1) % (SEEDS + 1) if seed == self._drawn else seed
        code = self._prior(_seed(seed))
        for name in self._pickers:
            code = self.model.codes.swap(code, self._code, name)
        self.seed_field.value = self._drawn = seed
        self._begin(code)

    def pick(self, block: str, which: int | str) -> None:
        """Set a class, by its number from 0 or its label. Every direction keeps its t, and the start gets it, too."""
        if block not in self._pickers:
            raise ValueError(f"no class '{block}' to pick; this model has {', '.join(self._pickers) or 'none'}")
        block = self._pickers[block].block
        labels = text.labels_of(block)
        which = labels.index(which) if which in labels else which
        if not isinstance(which, numbers.Integral) or not 0 <= which < len(labels):
            raise ValueError(f"{block.name}: no '{which}'; it has {', '.join(labels[:SHOWN])}")
        self._set_class(block, torch.eye(len(labels))[which].reshape(1, *block.shape))

    def reset(self) -> None:
        """Every direction back to where it was at the start."""
        self._code = self._start.clone()
        self._show()

    def add(self, direction: Direction) -> None:
        """Add a direction with a slider of its own; raises ValueError where it does not fit or its name is taken."""
        if not isinstance(direction, Direction):
            raise ValueError(f"a panel adds a Direction, as load_direction gives, not {type(direction).__name__}")
        name = direction.name
        if name in self.model.codes.names:
            raise ValueError(f"there is a block '{name}' already; give it another name: direction.named('...')")
        self.model = self.model.with_directions(direction)
        direction = self.model.directions[name]
        row = DirectionRow(Ranked(direction, direction.low, direction.high), self._moved, self._toggled, self._width)
        self.rows[name], self.controls[name], self.locks[name] = row, row.widget, row.lock
        self._stack.children += (row.view,)
        self.which.options = list(self.rows)
        self._show()

    def save_direction(self, name: str, as_name: str | None = None) -> Path:
        """Write a direction as JSON, under its own or another name, and return the path; locks are not kept.

        Raises UserError where it cannot be written, and where that file holds another direction.
        """
        direction = self._row(name).direction.named(as_name or name)
        if not isinstance(direction.name, str) or not FILE_NAME.fullmatch(direction.name):
            raise UserError(f"{direction.name!r} cannot name a file; name a direction in plain words, for example 'x'")
        folder = places.writable_home() / "directions" if self.folder is None else Path(self.folder).expanduser()
        path = folder / f"{direction.name}.json"
        if not path.exists():
            save_direction(path, direction)
        elif not _same(load_direction(path), direction):
            raise UserError(f"{path} holds another direction; choose another name, or remove that file first")
        show_words(self.words_line, html.escape(f"saved {name} as {path}"))
        return path

    # How a change travels: code -> sliders and picture -> measured values -> (at rest) sheet.
    def _begin(self, code: Tensor) -> None:
        self._start, self._code, self._before = code, code.clone(), None
        self._show()

    def _moved(self, direction: Block, value: Tensor) -> None:
        with self._errors():
            try:
                self.set(direction.name, value.item())
            except ValueError:
                self.rows[direction.name].show(self._code)  # the slider goes back
                raise

    def _toggled(self, name: str, on: bool) -> None:
        with self._errors():
            self.lock(name, on)

    def _picked(self, block: Block, value: Tensor) -> None:
        with self._errors():
            self._set_class(block, value)

    def _set_class(self, block: Block, value: Tensor) -> None:
        self._start, self._code = block.write(self._start, value), block.write(self._code, value)
        self._before = None
        self._show()

    def _show(self) -> None:
        self._picture = self._now = None
        with self._errors():
            for shown in (*self.rows.values(), *self._pickers.values()):
                shown.show(self._code)
            self._picture = self._decode(self._code)
            self.picture.value = images.png(images.enlarge(images.to_uint8(self._picture)[0], self._side))
            try:
                if self._cost < CHEAP:
                    self._measure()
            finally:
                self._tell()
        self._at_rest(self._show_slowly)

    def _show_slowly(self) -> None:
        with self._errors(fresh=False):
            if self._now is None:
                self._measure()
                self._tell()
            self.sheet_picture.value = images.png(self._sheet(self.columns, ""))  # the panel's title stands above it

    def _decode(self, codes: Tensor) -> Tensor:
        """Pictures (N, C, H, W) on the CPU."""
        return models.decode(self.model, codes)

    def _measure(self) -> None:
        """Measure the present picture and, where that has not been done yet, the one at the start."""
        if not self.meter:
            self._now = self._before = torch.zeros(0)
            return
        if self._picture is None:
            self._picture = self._decode(self._code)
        began = time.perf_counter()
        now = self.meter(self._picture, self._code)[0]
        self._cost = time.perf_counter() - began
        if self._before is None:
            same = torch.equal(self._start, self._code)
            self._before = now if same else self.meter(self._decode(self._start), self._start)[0]
        self._now = now

    def _tell(self) -> None:
        """Below every slider what was asked for and what was measured; below all what else was measured."""
        names = self.meter.names
        now, before = ([None] * len(names) if v is None else v.tolist() for v in (self._now, self._before))
        values = dict(zip(names, zip(now, before)))
        for name, row in self.rows.items():
            row.tell(row.read(self._code) - row.read(self._start), values.get(name))
        said = f"measured by {self.meter.title}" if self.meter else "no instrument was given, so nothing is measured"
        others = ", ".join(f"{name} {changed(*both)}" for name, both in values.items() if name not in self.rows)
        said = html.escape(f"{said}; also {others}" if others else said)
        said = f"<div style='color: #5f5f5f; line-height: 18px'>{said}</div>"
        if self.others.value != said:
            self.others.value = said

    # The sheet.
    def _sheet(self, columns: int, title: str) -> np.ndarray:
        steps, codes = [], []
        for name, row in self.rows.items():
            try:
                direction, t = self.held(name), torch.linspace(row.row.low, row.row.high, columns)
            except ValueError:  # the locked ones leave it no way to move: it stays where it is
                direction, t = row.direction, torch.tensor([row.read(self._code)])
            steps.append(t.tolist())
            codes.append(direction.write(self._code.repeat(len(t), 1), t[:, None]))
        x, ends = self._decode(torch.cat(codes)), np.cumsum([len(part) for part in codes])[:-1]
        values = dict(zip(self.meter.names, self.meter(x, torch.cat(codes)).T.numpy()))  # (S,) each
        ways = []
        for i, (name, row) in enumerate(self.rows.items()):
            tiles, by = np.split(images.to_uint8(x), ends)[i], self.meter.title if name in values else ""
            measured = np.split(values[name], ends)[i].tolist() if by else None
            ways.append(paths.Way(row, steps[i], tiles, measured, by))
        return paths.sheet(ways, title)

    # What it looks like.
    def _layout(self) -> ipywidgets.Widget:
        self.picture, self.sheet_picture = self._live(), sheet_image()
        self.words_line, self.others = ipywidgets.HTML(), ipywidgets.HTML()
        wide = f"{max(int(self.picture.width), 228)}px"
        self.seed_field = ipywidgets.BoundedIntText(
            self._drawn, min=0, max=SEEDS, description="seed", tooltip="of the code that 'draw' starts from",
            style={"description_width": "36px"}, layout={"flex": "1 1 90px", "width": "auto", "min_width": "0"},
        )  # fmt: skip
        tip, flex = "start from the code of this seed; again: from the next one", {"flex": "none", "width": "64px"}
        tip_back = "every direction back to where it was at the start"
        buttons = [self.seed_field, self._button("draw", "draw", tip, self.draw, **flex),
                   self._button("reset", "reset", tip_back, self.reset, **flex)]  # fmt: skip
        left = [self.picture, ipywidgets.HBox(buttons, layout={"width": wide, "margin": "6px 0 0 0"})]
        left = ipywidgets.VBox(left, layout={"margin": "0 16px 0 0", "flex": "none"})
        self._stack = ipywidgets.VBox([row.view for row in self.rows.values()])
        right = [*(picker.view for picker in self._pickers.values()), self._stack, self.others, self._saving()]
        right = ipywidgets.VBox(right, layout={"flex": "1 1 420px", "min_width": "380px"})
        middle = ipywidgets.HBox([left, right], layout={"flex_flow": "row wrap", "overflow": "visible"})
        return self._titled(middle, self.error_line, self.words_line, self.sheet_picture)

    def _saving(self) -> ipywidgets.Widget:
        """Which direction is saved, under which name."""
        auto = {"width": "auto", "flex": "1 1 100px"}
        self.which = ipywidgets.Dropdown(options=list(self.rows), tooltip="the direction to save", layout=auto)
        self.name_field = ipywidgets.Text(placeholder="its own name", tooltip="a name to save it under", layout=auto)
        tip, look = "write it as a file; locks are not kept", {"width": "auto", "flex": "none"}
        button = self._button("save direction", "save direction", tip, self._save_clicked, **look)
        return labelled("save", ipywidgets.HBox([self.which, self.name_field, button]), 60)

    def _save_clicked(self) -> None:
        self.save_direction(self.which.value, self.name_field.value.strip())

    def _prior(self, seed: int) -> Tensor:
        """The code (1, D) that the prior gives with a seed."""
        return self.model.codes.check(draw(self.model, 1, torch.Generator().manual_seed(seed)))

    def _one(self, code) -> Tensor:
        """A code, (1, D) or (D,), as (1, D); raises ValueError for anything else."""
        code = torch.as_tensor(code)[None] if np.ndim(code) == 1 else code
        code = self.model.codes.check(code).detach().cpu()
        if len(code) != 1:
            raise ValueError(f"a panel holds one code (1, {code.shape[1]}), not {tuple(code.shape)}")
        return code

    def _row(self, name: str) -> DirectionRow:
        if name not in self.rows:
            raise ValueError(f"no direction '{name}'; there are {', '.join(self.rows)}")
        return self.rows[name]

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value:.3g}" for name, value in self.t.items())
        return f"{type(self).__name__} of {type(self.model).__name__}: {said}"


def _seed(seed: int) -> int:
    if count("seed", seed) > SEEDS:
        raise ValueError(f"seed must be at most {SEEDS}, not {seed}")
    return int(seed)


def _same(one: Direction, other: Direction) -> bool:
    """Whether two directions are one, but for the rounding of a file."""
    pairs = [(getattr(one, part), getattr(other, part)) for part in ("u", "s", "t")]
    return one.name == other.name and one.unit == other.unit and all(
        len(a) == len(b) and np.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in pairs
    )  # fmt: skip
