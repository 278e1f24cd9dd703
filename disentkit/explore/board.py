"""The attribute board: one picture per attribute gives it, and the picture that makes stands beside the true one.

The state is a pick per row (see `Pick`): the picture that gives the row's block and, for a traversal, a second picture
and how far the block has gone towards it. `render` turns a state into a picture. Pictures are encoded once, so an event
costs one decode and one rendering of the truth. The sheet of traversals follows when nothing has moved for a moment.

People count pictures from 1; in Python they count from 0, as everywhere in the kit.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from disentkit import models
from disentkit.codes import Block
from disentkit.explore import images
from disentkit.explore.controls import Slider, labelled
from disentkit.explore.frame import CHOSEN, FREE, Frame, numbered, save, sheet_image, show_words, sources_of
from disentkit.explore.ranking import Ranked
from disentkit.explore.swapping import REMAINDER, Group, Pick, assembled, group_named, groups_of, share, who_feeds
from disentkit.explore.truth import Asked, Truth
from disentkit.metrics.synthesis import CAP, psnr

COLUMNS = 12  # pictures with a column of buttons, at most
THUMB = 44  # pixels: a thumbnail's height
HALF = ("◐", "")  # caption and style of the button of a traversal's other end
STEPS = 8  # of a traversal in the sheet
TRIES = 4096  # combinations tried for a held-out one
EDITED = "picture"  # the name of a block that holds the picture itself, as StarGAN's


class AttributeBoard(Frame):
    """A matrix of attributes and pictures over one model. As the last expression of a cell it shows itself.

    model     codes (N, D) <-> images (N, C, H, W), with a block named after each attribute. Blocks of one
              `Block.picker` are one row. A block that is no attribute, such as the picture that StarGAN paints over, is
              a row, too; one that no encoder reads is none and stays at the middle of its prior
    pictures  (n, C, H, W) in [0, 1]; the first 12 have a column
    factors   (n, K) their true values
    truth     a Renderer of the attributes' space. With it and `factors` the board knows which tuple is asked for, draws
              its true picture and tells the PSNR (see `metrics.synthesise`). An attribute without a row is that of the
              first row that is no attribute
    seen      what training left out: a law with a rule, or a rule values (n, K) -> (n,) bool, True for what was held
              out; by default the law of `truth`
    title     a line above
    seed      of the board's own draws

    A traversal moves a block on the straight way to that of a second picture, chosen from a list beside the slider, so
    that a click always means one thing. Between two pictures that differ in the attribute there is no true picture:
    shown is that of the nearer end, and no PSNR.

    Raises ValueError where pictures, factors, truth and model do not fit one another, and for a model without an
    encoder or, where truth is given, without a block of an attribute's name. What fails later, while someone clicks, is
    shown in a line of the board, and `board.error` holds it.
    """

    def __init__(self, model, pictures, factors=None, truth=None, seen=None, title: str = "", seed: int = 0):
        super().__init__(model, title, seed)
        if not models.can_encode(model):
            raise ValueError(f"{type(model).__name__} has no encoder, so no block can come from a picture")
        shape = tuple(getattr(pictures, "shape", ()))
        if len(shape) != 4:
            raise ValueError(f"a board takes pictures (n, C, H, W) in 0 ... 1, not {shape or type(pictures).__name__}")
        self.sources = sources_of(model, pictures, self.rng)
        self.truth = None if truth is None else Truth(truth, seen)
        if self.truth is not None and self.truth.image_shape != tuple(model.image_shape):
            raise ValueError(f"the truth draws pictures {self.truth.image_shape}, the model {tuple(model.image_shape)}")
        groups = [group for group in groups_of(model.codes) if group.held_by(self.sources)]
        if not groups:
            raise ValueError(f"no encoder reads a block of {type(model).__name__}, so there is nothing to pick")
        self._asked = Asked(groups, len(self.sources.codes), factors, self.truth)
        self.groups: list[Group] = sorted(groups, key=lambda group: not self._asked.columns[group.name])
        self._rows: dict[str, str | None] = dict.fromkeys(model.codes.names)  # by block; None where it is in no row
        self._rows |= {name: group.name for group in self.groups for name in group.names}
        self._state = self._first()
        # What people and notebooks reach for: a row's slider and the list of its other end; buttons are `size from 2`.
        self.sliders: dict[str, ipywidgets.FloatSlider] = {}
        self.others: dict[str, ipywidgets.Dropdown] = {}
        self._sliders: dict[str, Slider] = {}
        self.widget = self._layout()
        self._show()

    # The state and its pictures.
    @property
    def state(self) -> dict[str, Pick]:
        """By row, what is picked."""
        return dict(self._state)

    def render(self, state: Mapping[str, Pick | int]) -> np.ndarray:
        """The synthesis (H, W, 3) uint8 of a state, at the model's own size. Pure.

        state  by row, a pick as in `board.state` or the number of a provider; a row it leaves out is as after `reset`
        """
        return images.to_uint8(self._made(self._given(state)))[0]

    def synthesis(self) -> Tensor:
        """The picture (1, C, H, W) in [0, 1] that the model makes of what is picked."""
        return self._made(self._state)

    def truth_picture(self) -> Tensor | None:
        """The true picture (1, C, H, W) of `wanted`; None where it is not known."""
        wanted = self.wanted
        return None if wanted is None else self.truth.picture(wanted)

    @property
    def wanted(self) -> Tensor | None:
        """The values (K,) asked for, of the nearer end where a row is between two; None where they are not known."""
        if self.missing:
            return None
        return self._asked.values({name: torch.tensor([pick.nearer]) for name, pick in self._state.items()})[0]

    @property
    def missing(self) -> str:
        """Why only the synthesis can be shown; empty where nothing is missing."""
        return self._asked.missing

    @property
    def between(self) -> list[str]:
        """The rows that are between two values of their attribute, so that no true picture exists."""
        moving = [(name, pick) for name, pick in self._state.items() if pick.between]
        return [name for name, pick in moving if self._asked.differ(name, pick.provider, pick.other)]

    @property
    def psnr(self) -> float | None:
        """Decibels of the synthesis against the true picture, at most 60; None where there is no true picture."""
        return self._psnr(self.synthesis(), self.truth_picture())

    @property
    def words(self) -> str:
        """The tuple asked for, `letter R, large, red on blue, DejaVu Serif`; where it is not known, what feeds what."""
        return self.fed if self.missing else self.truth.words(self.wanted)

    @property
    def fed(self) -> str:
        """Which picture gives which attribute: `letter from picture 3, the other 4 blocks from picture 1`."""
        return who_feeds((group.words, self._state[group.name].words) for group in self.groups)

    @property
    def verdict(self) -> str:
        """Whether training could show the tuple asked for (see `truth.HELD_OUT`); empty where nothing says it."""
        return "" if self.missing else self.truth.verdict(self.wanted)

    def sheet(self) -> np.ndarray:
        """The sheet (H, W, 3) uint8: the providers, the synthesis and the truth; per row its traversal in 8 steps."""
        return self._sheet(self.title)

    def save(self, path: str | Path) -> Path:
        """Write the sheet as PNG and return its path. Raises UserError where it cannot be written."""
        return save(path, self.sheet())

    # What buttons and sliders do. Pictures count from 0 here.
    def pick(self, attribute: str, provider: int) -> None:
        """Take an attribute from a picture; a traversal of it ends."""
        name, provider = group_named(self.groups, attribute).name, self._source(provider)
        other = self._state[name].other
        self._take({name: Pick(provider, other if other != provider else self._other(name, provider))})

    def towards(self, attribute: str, provider: int, t: float) -> None:
        """Move an attribute towards that of a second picture, t from 0, the picture picked for it, to 1."""
        name = group_named(self.groups, attribute).name
        self._take({name: Pick(self._state[name].provider, self._source(provider), share(t))})

    def reset(self) -> None:
        """Every attribute from the first picture again."""
        self._take(self._first())

    def random(self) -> None:
        """Every attribute from a random picture of those shown, drawn with the board's own generator.

        A tuple that no picture of the data has, such as a letter in the colour of its ground, is drawn again.
        """
        tries, values = self._tries()
        exist = [] if values is None else (~self.truth.never(values)).nonzero()[:, 0].tolist()
        self._take_all(tries[exist[0] if exist else 0])

    def surprise(self) -> None:
        """Random pictures of those shown whose combination was held out; raises ValueError where none is found."""
        tries, values = self._tries()
        if values is None:
            raise ValueError(f"nothing says which tuple is asked for: {self.missing}")
        found = self.truth.held_out(values).nonzero()[:, 0]
        if not len(found):
            raise ValueError(f"none of {TRIES:,} combinations of these pictures that were tried is held out")
        self._take_all(tries[found[0]])

    def _tries(self) -> tuple[Tensor, Tensor | None]:
        """Random pictures (n, rows), and the tuples (n, K) they ask for."""
        tries = torch.randint(self._shown, (TRIES, len(self.groups)), generator=self.rng)
        chosen = {group.name: tries[:, i] for i, group in enumerate(self.groups)}
        return tries, None if self.missing else self._asked.values(chosen)

    def _psnr(self, made: Tensor, true: Tensor | None) -> float | None:
        if true is None or self.between:
            return None
        return psnr((made.double() - true.double()).square().mean()).item()

    # How a change travels: state -> marks, pictures and words -> (at rest) sheet.
    def _take(self, changes: Mapping[str, Pick]) -> None:
        self._state |= changes
        self._show()

    def _take_all(self, providers: Tensor) -> None:
        chosen = zip((group.name for group in self.groups), providers.tolist())
        self._take({name: Pick(i, self._other(name, i)) for name, i in chosen})

    def _first(self) -> dict[str, Pick]:
        return {group.name: Pick(0, self._other(group.name, 0)) for group in self.groups}

    def _other(self, name: str, provider: int) -> int:
        """The next picture shown with another value of the row's attribute, or just the next."""
        turn = [(provider + i) % self._shown for i in range(1, self._shown + 1)]
        return next((i for i in turn if self._asked.differ(name, provider, i)), turn[0])

    @property
    def _shown(self) -> int:
        return min(COLUMNS, len(self.sources.codes))

    def _given(self, state: Mapping[str, Pick | int]) -> dict[str, Pick]:
        """A state from outside, complete and checked."""
        if not isinstance(state, Mapping):
            raise ValueError(f"a state is a mapping {{row: pick}}, as board.state, not {type(state).__name__}")
        given = self._first()
        for name, pick in state.items():
            provider, other, t = pick if isinstance(pick, tuple) and len(pick) == 3 else (pick, pick, 0.0)
            given[group_named(self.groups, name).name] = Pick(self._source(provider), self._source(other), share(t))
        return given

    def _mixed(self, state: Mapping[str, Pick]) -> Tensor:
        """The code (1, D) of a state."""
        codes = self.sources.codes
        ways = {name: ((1 - p.t) * codes[p.provider] + p.t * codes[p.other])[None] for name, p in state.items()}
        ways |= {None: codes[:1]}  # blocks that no encoder reads have the middle of the prior in every code
        parts = {block: ways[row] for block, row in self._rows.items()}
        return assembled(self.model.codes, parts, ways.get(REMAINDER, ways[None]))

    def _made(self, state: Mapping[str, Pick]) -> Tensor:
        """The picture (1, C, H, W) of a state."""
        return models.decode(self.model, self._mixed(state)).clamp(0, 1)

    def _show(self) -> None:
        with self._errors():
            self._mark()
            made, true = self._made(self._state), self.truth_picture()
            self.picture.value = self._png(made)
            if true is not None:
                self.true_image.value = self._png(true)
            show_words(self.words_line, self._told(self._psnr(made, true)))
        self._at_rest(self._show_slowly)

    def _png(self, picture: Tensor) -> bytes:
        return images.png(images.enlarge(images.to_uint8(picture)[0], self._side))

    def _show_slowly(self) -> None:
        with self._errors(fresh=False):
            self.sheet_picture.value = images.png(self._sheet(""))  # the board's title stands above it

    def _told(self, decibels: float | None) -> str:
        """What is said beside the pictures, as HTML."""
        if self.missing:
            return f"{html.escape(self.fed)}<br><i>{html.escape(self.missing)}</i>"
        said = [self.verdict or "what training left out is not known", self._compared(decibels), self.fed]
        verdict, compared, fed = map(html.escape, said)
        asked = f"<b>{html.escape(self.words)}</b>"
        return "<br>".join([asked, verdict, compared, f"<span style='color: #5f5f5f'>{fed}</span>"])

    def _compared(self, decibels: float | None) -> str:
        """The PSNR in words, or why there is none."""
        if decibels is None:
            what = " and ".join(self.between)
            return f"{what}: between two values there is no true picture; this is the nearer end's, so no PSNR"
        return f"PSNR {decibels:.1f} dB" if decibels < CAP else f"PSNR {CAP:g} dB or more"

    def _mark(self) -> None:
        """Mark what feeds each row, and bring sliders and lists to it."""
        looks = {}
        for name, (provider, other, t) in self._state.items():
            looks[f"{name} from {other + 1}"] = CHOSEN if t == 1 else HALF if t else FREE
            looks[f"{name} from {provider + 1}"] = CHOSEN if t < 1 or other == provider else HALF
            if name in self.others:
                self.others[name].value = other
                self._sliders[name].show(torch.tensor([[t]]))
        self._look(looks)

    # The sheet.
    def _sheet(self, title: str) -> np.ndarray:
        state = self._state
        ways = torch.linspace(0, 1, STEPS).tolist()
        codes = [self._mixed(state)]
        for name, pick in state.items():
            codes += [self._mixed({**state, name: pick._replace(t=t)}) for t in ways]
        made = images.to_uint8(models.decode(self.model, torch.cat(codes)))
        providers = self.sources.thumbs[[pick.nearer for pick in state.values()]]
        rows = [(["providers", ", ".join(self._label(group) for group in self.groups)], providers)]
        if self.missing:
            rows.append((["synthesis"], made[:1]))
        else:
            compared = "between two values: no PSNR" if self.between else self._compared(self.psnr)
            pair = np.concatenate([made[:1], images.to_uint8(self.truth_picture())])
            rows.append((["synthesis and ground truth", self.words, self.verdict, compared], pair))
        for group, tiles in zip(self.groups, np.split(made[1:], len(self.groups))):
            rows.append(([self._label(group), self._reach(group.name)], tiles))
        return images.sheet([([line for line in lines if line], tiles) for lines, tiles in rows], title)

    def _reach(self, name: str) -> str:
        """From where to where a row's traversal goes: `A (picture 1) to R (picture 4)`."""
        ends = []
        for i in self._state[name][:2]:
            words = self._asked.words(name, i)
            ends.append(f"{words} (picture {i + 1})" if words else f"picture {i + 1}")
        return " to ".join(ends)

    def _label(self, group: Group) -> str:
        if group.name == EDITED and not self._asked.columns[EDITED]:
            return f"{group.words} to be edited"
        other = self.truth is not None and not self._asked.columns[group.name]
        return f"{group.words} (no attribute)" if other else group.words

    # What it looks like.
    def _layout(self) -> ipywidgets.Widget:
        self.picture, self.true_image = self._live(), self._live()
        self.words_line, self.sheet_picture = ipywidgets.HTML(), sheet_image()
        shown = [("synthesis", self.picture), *([] if self.missing else [("ground truth", self.true_image)])]
        look = {"margin": "0 12px 0 0", "flex": "none"}
        shown = [ipywidgets.VBox([ipywidgets.Label(caption), image], layout=look) for caption, image in shown]
        flex = {"width": "auto", "margin": "2px"}
        buttons = [self._button("random", "random", "every attribute from a random picture", self.random, **flex),
                   self._button("reset", "reset", "every attribute from picture 1", self.reset, **flex)]  # fmt: skip
        if not self.missing and self.truth.rule is not None:
            tip = "random pictures whose combination was never in the training set"
            buttons.insert(1, self._button("surprise", "surprise: a held-out combination", tip, self.surprise, **flex))
        right = [ipywidgets.HBox(buttons, layout={"flex_flow": "row wrap"}), self.words_line]
        right = ipywidgets.VBox(right, layout={"flex": "1 1 300px", "min_width": "300px"})
        top = ipywidgets.HBox([*shown, right], layout={"flex_flow": "row wrap", "overflow": "visible"})
        return self._titled(top, self.error_line, self._matrix(), self.sheet_picture)

    def _matrix(self) -> ipywidgets.Widget:
        """Thumbnails as columns; below them a row per group: a button per picture, the other end and the way there."""
        head, wide = numbered(self.sources.thumbs[:COLUMNS], THUMB)
        labels = [self._label(group) for group in self.groups]
        edge = min(max(60, *(8 * len(label) + 16 for label in labels)), 220)
        cell = ipywidgets.Layout(width=f"{wide}px", height="26px", margin="1px 2px", padding="0")  # one for all
        rows = [labelled("", ipywidgets.HBox(head), edge)]
        rows += [labelled(label, self._row(group, cell), edge) for label, group in zip(labels, self.groups)]
        left_out = len(self.sources.codes) - len(head)
        note = [labelled("", ipywidgets.Label(f"{left_out} more pictures have no column"), edge)] if left_out else []
        return ipywidgets.VBox([*rows, *note], layout={"margin": "6px 0 0 0"})

    def _row(self, group: Group, cell: ipywidgets.Layout) -> ipywidgets.Widget:
        name, parts = group.name, []
        for j in range(self._shown):
            tip = f"{group.words} from picture {j + 1}"
            button = ipywidgets.Button(description=FREE[0], tooltip=tip, layout=cell)
            parts.append(self._acting(f"{name} from {j + 1}", button, partial(self.pick, name, j)))
        if len(self.sources.codes) == 1:  # there is nowhere to go
            return ipywidgets.HBox(parts)
        other = ipywidgets.Dropdown(
            options=[(str(i + 1), i) for i in range(len(self.sources.codes))], value=self._state[name].other,
            description="towards", tooltip=f"the picture that {group.words} goes towards",
            style={"description_width": "52px"}, layout={"width": "112px", "margin": "1px 2px 1px 8px"},
        )  # fmt: skip
        way = Ranked(Block(f"{group.words}, 0 to 1", "uniform", low=0.0, high=1.0, at=(0,)), 0.0, 1.0)
        slider = Slider(way, lambda _, t: self._moved(name, t=round(t.item(), 6)), 0)
        slider.step = slider.widget.step = 0.01
        slider.widget.description, slider.widget.readout_format = "", ".2f"
        slider.widget.layout = {"width": "170px", "margin": "1px 2px"}
        other.observe(lambda change: self._moved(name, other=change["new"]), names="value")
        self.others[name], self.sliders[name], self._sliders[name] = other, slider.widget, slider
        return ipywidgets.HBox([*parts, other, slider.widget])

    def _moved(self, name: str, **change) -> None:
        with self._errors():
            if (pick := self._state[name]._replace(**change)) != self._state[name]:
                self._take({name: pick})

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {type(self.model).__name__}: {self.words}"
