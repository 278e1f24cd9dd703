"""The block explorer: which source feeds which block of a code, chosen under thumbnails, and the picture that makes.

The state is one source per group of blocks (see `swapping.Group`); `render` turns a state into a picture. Sources are
encoded once, so a click costs one decode. The swap sheet of the block last fed follows when the buttons are at rest.

People count pictures from 1; in Python sources count from 0, as everywhere in the kit.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from disentkit import models
from disentkit.explore import images
from disentkit.explore.controls import label_width, labelled
from disentkit.explore.frame import CHOSEN, FREE, Frame, Sources, numbered, save, sheet_image, show_words, sources_of
from disentkit.explore.swapping import (
    REMAINDER,
    Group,
    assembled,
    drawn_sheet,
    group_named,
    groups_of,
    listed,
    who_feeds,
)

COLUMNS = 16  # sources with a column of buttons, at most
SHEET = 8  # sources in the sheet, at most
THUMB, LOCK = 44, 64  # pixels: a thumbnail's height, a lock's width
MODES = (("this block", "the block of the row, from the picture of the column"),
         ("all but this block", "every block but that of the row, from the picture of the column"),
         ("all blocks", "every block, from the picture of the column"))  # fmt: skip


class Feed(NamedTuple):
    """What a group of blocks can be fed from: a code (1, D), the words for it, and its source's number if it is one."""

    code: Tensor
    words: str
    source: int | None = None


class Mixer(Frame):
    """A matrix of blocks and sources over one model. As the last expression of a cell it shows itself.

    model    codes (N, D) -> images (N, C, H, W). Any kind of block can be mixed; blocks with one `Block.picker` travel
             together, and numbers of the code outside all blocks are a row of their own, `the rest`
    sources  pictures (n, C, H, W) in [0, 1] that the model encodes, codes (n, D), or a number of draws from the prior.
             One is allowed, though it leaves nothing to mix
    stats    a dict per block (name, importance, unit, factor, correlation), as a run's `stats`: order and labels
    title    a line above
    seed     of the mixer's own draws

    A block that no encoder reads cannot be fed from pictures: it starts at the middle of its prior and can be drawn
    again. A locked block keeps what it has, whatever is clicked or called.

    Raises ValueError for statistics of unknown blocks and for sources that do not fit the model. What fails later,
    while someone clicks, is shown in a line of the mixer, and `mixer.error` holds it.
    """

    def __init__(self, model, sources, stats: Sequence[dict] | None = None, title: str = "", seed: int = 0):
        super().__init__(model, title, seed)
        self.groups: list[Group] = groups_of(model.codes, stats)
        if not self.groups:
            raise ValueError(f"the code of {type(model).__name__} holds no numbers, so there is nothing to mix")
        self.sources = sources_of(model, sources, self.rng)
        self._group = {name: group.name for group in self.groups for name in group.names}  # of each block
        codes = self.sources.codes.split(1)
        self._feeds = [Feed(code, f"from picture {i + 1}", i) for i, code in enumerate(codes)]
        self._feeds.append(Feed(codes[0], "at the middle of the prior"))  # for what an encoder left there
        self._fed = {group.name: group.held_by(self.sources) for group in self.groups}
        self._state = self._first()
        self._locked: set[str] = set()
        self._last = next((group for group in self.groups if self._fed[group.name]), None)
        self._sheet_of: Group | None = None
        # What people and notebooks reach for: the buttons and locks by name, as `f3 from 2` and `f3`.
        self.locks: dict[str, ipywidgets.ToggleButton] = {}
        self.widget = self._layout()
        self._show()

    # The state and its picture.
    @property
    def state(self) -> dict[str, int]:
        """By block, the source that feeds it, from 0; draws follow on. One picker's first block stands for them all."""
        return dict(self._state)

    @property
    def code(self) -> Tensor:
        """The mixed code (1, D)."""
        return self._mixed(self._state)

    @property
    def locked(self) -> tuple[str, ...]:
        """The names of the locked blocks."""
        return tuple(group.name for group in self.groups if group.name in self._locked)

    @property
    def words(self) -> str:
        """Which source feeds which block: `f1 hair from picture 3, the other 7 blocks from picture 1; locked: f2`."""
        said = who_feeds((group.words, self._feeds[self._state[group.name]].words) for group in self.groups)
        locked = [group.words for group in self.groups if group.name in self._locked]
        return said + (f"; locked: {listed(locked)}" if locked else "")

    def render(self, state: Mapping[str, int]) -> np.ndarray:
        """The picture (H, W, 3) uint8 of a state, at the model's own size. Pure.

        state  by block, the source that feeds it, as in `mixer.state`; a block it leaves out is as after `reset`
        """
        return images.to_uint8(models.decode(self.model, self._mixed(state)))[0]

    def sheet(self, block: str | None = None) -> np.ndarray:
        """The swap sheet (H, W, 3) uint8 of a block over the first 8 sources; left out, of the block last fed."""
        group = self._last if block is None else group_named(self.groups, block)
        return self._sheet(group, f"{self.title}: {group.heading}" if self.title and group else "")

    def _sheet(self, group: Group | None, title: str) -> np.ndarray:
        if group is None:  # no block can be fed: there is nothing to swap
            return self.render(self._state)
        thumbs, codes, encoded = self.sources
        shown = Sources(thumbs[:SHEET], codes[:SHEET], encoded)
        return drawn_sheet(self.model, shown, shown, group, title)

    def save(self, path: str | Path, block: str | None = None) -> Path:
        """Write the swap sheet as PNG and return its path. Raises UserError where it cannot be written."""
        return save(path, self.sheet(block))

    # What the buttons do. Sources count from 0 here.
    def feed(self, block: str, source: int) -> None:
        """Take a block, and those that travel with it, from a source."""
        group = self._feedable(block)
        self._take({group.name: self._source(source)}, group)

    def feed_all_but(self, block: str, source: int) -> None:
        """Take every block from a source, but for this one and those that travel with it."""
        group = group_named(self.groups, block)
        self._take({name: self._source(source) for name in self._all() if name != group.name}, group)

    def feed_all(self, source: int) -> None:
        """Take every block from a source."""
        self._take({name: self._source(source) for name in self._all()})

    def reset(self) -> None:
        """Every block from the first source again; what no encoder reads, at the middle of its prior."""
        self._take(self._first())

    def random(self) -> None:
        """Every block from a random source, drawn with the mixer's own generator; what no encoder reads, drawn."""
        free = [group for group in self.groups if group.name not in self._locked]
        chosen = torch.randint(len(self.sources.codes), (len(free),), generator=self.rng).tolist()
        self._take({g.name: i if self._fed[g.name] else self._drawn(g) for g, i in zip(free, chosen)})

    def draw_again(self, block: str) -> None:
        """A new draw of a block that no encoder reads, from its prior."""
        group = group_named(self.groups, block)
        if all(row.block.inferred for row in group.rows):
            raise ValueError(f"an encoder reads '{block}', so it is fed from a source and not drawn")
        if group.name not in self._locked:
            self._take({group.name: self._drawn(group)})

    def lock(self, block: str, on: bool = True) -> None:
        """Keep a block, and those that travel with it, as it is; `on=False` lets it go."""
        name = group_named(self.groups, block).name
        (self._locked.add if on else self._locked.discard)(name)
        self._show_locks()

    def unlock_all(self) -> None:
        """Let every block go."""
        self._locked.clear()
        self._show_locks()

    # How a change travels: state -> marks, words and picture -> (at rest) sheet.
    def _take(self, changes: Mapping[str, int], last: Group | None = None) -> None:
        self._state |= {name: source for name, source in changes.items() if name not in self._locked}
        if last is not None and self._fed[last.name]:
            self._last = last
        self._show()

    def _first(self) -> dict[str, int]:
        return {name: 0 if fed else len(self.sources.codes) for name, fed in self._fed.items()}

    def _all(self) -> list[str]:
        return [name for name, fed in self._fed.items() if fed]

    def _feedable(self, block: str) -> Group:
        group = group_named(self.groups, block)
        if not self._fed[group.name]:
            raise ValueError(f"no encoder reads '{block}', so no picture can feed it; draw it again")
        return group

    def _mixed(self, state: Mapping[str, int]) -> Tensor:
        """The code (1, D) of a state."""
        if not isinstance(state, Mapping):
            raise ValueError(f"a state is a mapping {{block: source}}, as mixer.state, not {type(state).__name__}")
        given = self._first()
        for name, source in state.items():
            given[group_named(self.groups, name).name] = self._source(source, len(self._feeds))
        parts = {name: self._feeds[given[group]].code for name, group in self._group.items()}
        return assembled(self.model.codes, parts, self._feeds[given.get(REMAINDER, 0)].code)

    def _drawn(self, group: Group) -> int:
        """A new feed: what the group has now, its blocks that no encoder reads drawn from their priors."""
        now = self._feeds[self._state[group.name]]
        drawn, code = [row.block for row in group.rows if not row.block.inferred], now.code
        for block in drawn:
            code = block.write(code, block.prior(1, self.rng))
        if len(drawn) == len(group.rows):
            self._feeds.append(Feed(code, "drawn from the prior"))
        else:
            words = f"from picture {now.source + 1} with {listed([block.name for block in drawn])} drawn"
            self._feeds.append(Feed(code, words, now.source))
        return len(self._feeds) - 1

    def _show(self) -> None:
        with self._errors():
            self._mark()
            self.picture.value = images.png(images.enlarge(self.render(self._state), self._side))
        self._at_rest(self._show_slowly)

    def _show_slowly(self) -> None:
        if self._sheet_of is self._last and self._last is not None:
            return
        with self._errors(fresh=False):
            self.sheet_picture.value = images.png(self._sheet(self._last, ""))  # the mixer's title stands above it
            self._sheet_of = self._last

    def _mark(self) -> None:
        """Mark what feeds each block, and say it."""
        chosen = ((group.name, self._feeds[self._state[group.name]].source) for group in self.groups)
        self._look({f"{name} from {source + 1}": CHOSEN for name, source in chosen if source is not None})
        self._say_words()

    def _say_words(self) -> None:
        show_words(self.words_line, html.escape(self.words))

    def _show_locks(self) -> None:
        for name, lock in self.locks.items():
            on = name in self._locked
            caption, style = ("locked", "warning") if on else ("lock", "")
            with lock.hold_sync():
                lock.value, lock.description, lock.button_style = on, caption, style
        self._say_words()

    # What it looks like.
    def _layout(self) -> ipywidgets.Widget:
        self.picture, self.words_line = self._live(), ipywidgets.HTML()
        self.sheet_picture = sheet_image()
        self.mode = ipywidgets.ToggleButtons(
            options=[(caption, i) for i, (caption, _) in enumerate(MODES)], tooltips=[tip for _, tip in MODES],
            style={"button_width": "auto"}, layout={"width": "auto"},
        )  # fmt: skip
        self.mode.observe(lambda _: self._tell(), names="value")
        flex = {"flex": "1 1 0", "padding": "0"}
        buttons = [
            self._button("random", "random", "every block from a random picture", self.random, **flex),
            self._button("reset", "reset", "every block from picture 1", self.reset, **flex),
            self._button("unlock all", "unlock all", "let every locked block go", self.unlock_all, **flex),
        ]
        width = f"{max(int(self.picture.width), 228)}px"
        left = [self.picture, ipywidgets.HBox(buttons, layout={"width": width, "margin": "6px 0 0 0"})]
        left = ipywidgets.VBox(left, layout={"margin": "0 12px 0 0", "flex": "none"})
        middle = ipywidgets.HBox([left, self._matrix()], layout={"flex_flow": "row wrap", "overflow": "visible"})
        self._tell()
        return self._titled(middle, self.words_line, self.error_line, self.sheet_picture)

    def _matrix(self) -> ipywidgets.Widget:
        """Thumbnails as columns; below them a row per group: a button per source, a lock."""
        head, wide = numbered(self.sources.thumbs[:COLUMNS], THUMB)
        edge = min(label_width(self.groups), 220)
        cell = ipywidgets.Layout(width=f"{wide}px", height="26px", margin="1px 2px", padding="0")  # one for all
        rows = [labelled("", ipywidgets.HBox(head), edge)]
        rows += [labelled(group.label, self._row(group, len(head), wide, cell), edge) for group in self.groups]
        mode = labelled("a click feeds", self.mode, edge)
        left_out = len(self.sources.codes) - len(head)
        note = [labelled("", ipywidgets.Label(f"{left_out} more sources have no column"), edge)] if left_out else []
        return ipywidgets.VBox([mode, *rows, *note], layout={"flex": "1 1 auto"})

    def _row(self, group: Group, count: int, wide: int, cell: ipywidgets.Layout) -> ipywidgets.Widget:
        parts: list[ipywidgets.Widget] = []
        for j in range(count if self._fed[group.name] else 0):
            button = ipywidgets.Button(description=FREE[0], layout=cell)
            parts.append(self._acting(f"{group.name} from {j + 1}", button, partial(self._clicked, group, j)))
        lock = ipywidgets.ToggleButton(
            description="lock", tooltip=f"keep {group.words} as it is",
            layout={"width": f"{LOCK}px", "height": "26px", "margin": "1px 2px 1px 8px", "padding": "0"},
        )  # fmt: skip
        lock.observe(lambda change: self.lock(group.name, change["new"]), names="value")
        self.locks[group.name] = lock
        parts.append(lock)
        if any(not row.block.inferred for row in group.rows):  # in place of the buttons, or after the lock
            width = 96 if self._fed[group.name] else max(96, count * (wide + 4) - 4)
            look = {"width": f"{width}px", "height": "26px", "margin": "1px 2px"}
            tip = f"draw {group.words} from its prior; no encoder reads it"
            action = partial(self.draw_again, group.name)
            again = self._button(f"draw {group.name}", "draw again", tip, action, **look)
            parts.insert(len(parts) if self._fed[group.name] else 0, again)
        return ipywidgets.HBox(parts)

    def _clicked(self, group: Group, source: int) -> None:
        if self.mode.value == 2:
            self.feed_all(source)
        else:
            (self.feed, self.feed_all_but)[self.mode.value](group.name, source)

    def _tell(self) -> None:
        """Tooltips that say what a click feeds now."""
        before = ("", "all but ", "")[self.mode.value]
        for group in self.groups:
            what = "all blocks" if self.mode.value == 2 else f"{before}{group.words}"
            for j in range(min(COLUMNS, len(self.sources.codes)) if self._fed[group.name] else 0):
                self.buttons[f"{group.name} from {j + 1}"].tooltip = f"{what} from picture {j + 1}"

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {type(self.model).__name__}: {self.words}"
