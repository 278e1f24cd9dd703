"""The mixing board: background, shape, texture and pose from four pictures, and the picture that makes.

The state is a picture per row (see `sweeps`) and the mode: code mode takes every row from a picture of its own; feature
mode, a second model, takes shape and pose from one. Pictures are encoded once in each mode, in feature mode when it is
first asked for, so an event costs one decode. The strip that varies one row follows when nothing has moved for a
moment.

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
from disentkit.errors import UserError
from disentkit.explore import images, uploads
from disentkit.explore.controls import labelled
from disentkit.explore.frame import CHOSEN, FREE, Frame, Sources, numbered, save, sheet_image, show_words, sources_of
from disentkit.explore.sweeps import (
    Recipe,
    complete,
    drawn_sheet,
    drawn_stages,
    drawn_strip,
    feature_recipe,
    first_state,
    recipe,
)

COLUMNS = 12  # pictures at most, uploads among them
THUMB = 56  # pixels: a thumbnail's height
CODE, FEATURE = "code", "feature"
NONE = ""  # the value of the list of sweeps where none is shown
MESSAGE = 10  # MB: a notebook server drops what is larger without a word (its websocket_max_message_size)
FREE_NAMES = 1000  # numbers tried for a file that the save button writes


class MixingBoard(Frame):
    """A matrix of factors and pictures over one model. As the last expression of a cell it shows itself.

    model     codes (N, D) <-> images (N, C, H, W), with a `Block.picker` for each factor. With a method
              `stages(codes)` the pictures on the way to the mix can be shown, too
    pictures  (n, C, H, W) in [0, 1], at most 12, that the model encodes. For a generator without an encoder, such as
              FineGAN: codes (n, D), or a number of draws from its prior
    feature   a model of feature mode with the same pickers, but for one that takes two rows in one go, such as
              `shape and pose`: the first of them feeds it, the other one is greyed out in that mode
    title     a line above
    seed      of the board's own draws

    A reader's own picture, by the file button or `add_picture`, gets a column after the others. A file that is no
    picture, or has 50 megapixels or more, is named in the board's error line and changes nothing. Files of more than
    10 MB never arrive from a page, for the server drops them: those are for `add_picture`.

    Raises ValueError for a model without pickers, for pictures that do not fit it, and for a feature model that does
    not. What fails later, while someone clicks, is shown in a line of the board, and `board.error` holds it.
    """

    def __init__(self, model, pictures, feature=None, title: str = "", seed: int = 0):
        super().__init__(model, title, seed)
        self.sources = sources_of(model, pictures, self.rng)
        if len(self.sources.codes) > COLUMNS:
            raise ValueError(f"a board shows at most {COLUMNS} pictures, not {len(self.sources.codes)}; leave some out")
        self._ways: dict[str, Recipe] = {CODE: recipe(model, self.sources)}
        if feature is not None:
            self._ways[FEATURE] = feature_recipe(feature, self._ways[CODE])
        # As the models read them: what was given, not the bytes shown; of draws, the pictures they decode to.
        given = pictures if self.sources.encoded else self._ways[CODE].decode(self.sources.codes)
        given = torch.as_tensor(given).detach().cpu()
        self._pictures = given / 255 if given.dtype == torch.uint8 else given.float().clamp(0, 1)
        self.rows = tuple(self._ways[CODE].rows)
        self._mode, self._picks, self._note = CODE, first_state(self.rows, len(self._pictures)), ""
        self._lines: dict[str, tuple[ipywidgets.Label, ipywidgets.HBox, ipywidgets.HBox]] = {}
        self.widget = self._layout()
        self._switched()
        self._show()

    # The state and its pictures.
    @property
    def state(self) -> dict[str, int | str]:
        """By row the number of the picture that feeds it, from 0, and `mode`. Rows that are greyed out keep theirs."""
        return {**self._picks, "mode": self._mode}

    @property
    def mode(self) -> str:
        """`code` or `feature`. Setting it keeps the picks; ValueError for another one and without a feature model."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._way(_known(mode))  # encodes: where that fails nothing has changed
        self._mode, self._note = mode, ""
        self._switched()
        self._show()

    @property
    def words(self) -> str:
        """Who feeds what: `background from picture 1, shape from 2, texture from 3, pose from 4`."""
        return self._ways[self._mode].words(self._picks)

    def render(self, state: Mapping[str, int | str]) -> np.ndarray:
        """The mix (H, W, 3) uint8 of a state, at the model's own size. Pure.

        state  as `board.state`; a row it leaves out is as after `reset`, the mode is `code` where it names none
        """
        given = dict(state) if isinstance(state, Mapping) else state
        way = self._way(_known(given.pop("mode", CODE)) if isinstance(given, dict) else CODE)
        n = len(self._pictures)
        return images.to_uint8(way.decode(way.mixed(complete(given, first_state(self.rows, n), n))))[0]

    def stages(self) -> dict[str, Tensor]:
        """The pictures (1, 1 or 3, H, W) on the way to the mix by name, masks among them, the last one `child`.

        Raises ValueError where the model has none.
        """
        way = self._way()
        if not _has_stages(way.model):
            raise ValueError(f"{type(way.model).__name__} has no stages, so there are no intermediate pictures")
        return way.stages(way.mixed(self._picks))

    def stages_picture(self) -> np.ndarray:
        """They side by side, each with its name below, (H, W, 3) uint8."""
        return drawn_stages(self.stages())

    def sweep(self, factor: str) -> np.ndarray:
        """The strip (H, W, 3) uint8 that varies one factor: it comes from each picture in turn, all else is fixed."""
        return drawn_strip(self._way(), self.sources.thumbs, self._picks, self._row_named(factor))

    def sheet(self) -> np.ndarray:
        """The sheet (H, W, 3) uint8: the mix, the pictures, and per factor its sweep."""
        return drawn_sheet(self._way(), self.sources.thumbs, self._picks, self.title)

    def save(self, path: str | Path) -> Path:
        """Write the sheet as PNG and return its path. Raises UserError where it cannot be written."""
        return save(path, self.sheet())

    # What the buttons do. Pictures count from 0 here.
    def pick(self, factor: str, source: int) -> None:
        """Take a factor from a picture. Raises ValueError for a row that is greyed out in the present mode."""
        self._take({self._row_named(factor): self._source(source)})

    def reset(self) -> None:
        """Every factor from a picture of its own again, greyed ones too; the mode stays."""
        self._take(first_state(self.rows, len(self._pictures)))

    def random(self) -> None:
        """Every factor that is fed in this mode from a random picture, drawn with the board's own generator."""
        fed = self._ways[self._mode].rows
        self._take(dict(zip(fed, torch.randint(len(self._pictures), (len(fed),), generator=self.rng).tolist())))

    def add_picture(self, picture, name: str = "") -> int:
        """Give a picture a column and return its number, from 0. No pick changes.

        picture  the path of a file, the bytes of one, or an array (C, H, W) or (H, W, C); its central square is
                 resized to the model's size
        name     of the file, where it is known by bytes only

        Raises UserError for a file that cannot be read or has 50 megapixels or more, ValueError for an array that is
        none, where the board is full, and for a model without an encoder.
        """
        if reason := self._no_uploads():
            raise ValueError(reason)
        if isinstance(picture, bytes | str | Path):
            added = uploads.from_file(picture, tuple(self.model.image_shape), name)[None]
        else:
            added = uploads.from_array(picture, tuple(self.model.image_shape))[None]
        thumbs, codes, encoded = self.sources
        codes = torch.cat([codes, models.encode(self.model, added)])  # what can fail comes first
        if self._mode == FEATURE:
            self._read(torch.cat([self._pictures, added]))
        self.sources = Sources(np.concatenate([thumbs, images.to_uint8(added)]), codes, encoded)
        self._pictures = torch.cat([self._pictures, added])
        self._ways[CODE].codes = codes
        self._add_column()
        called = f"'{name or Path(picture).name}'" if isinstance(picture, str | Path) or name else "the picture"
        self._note = f"added {called} as picture {len(codes)}"
        self._show()
        return len(codes) - 1

    # How a change travels: state -> marks, words and pictures -> (at rest) strip.
    def _take(self, picks: Mapping[str, int]) -> None:
        self._picks, self._note = self._picks | picks, ""
        self._show()

    def _row_named(self, factor: str) -> str:
        """The row of a factor, known by its own name or by what the mode calls it; ValueError for a greyed one."""
        way = self._ways[self._mode]
        for name, row in way.rows.items():
            if factor in (name, row.label):
                return name
        if isinstance(factor, str) and factor in way.unused:
            raise ValueError(f"'{factor}' feeds nothing now: {way.unused[factor]}")
        raise ValueError(f"no factor '{factor}'; there are {', '.join(self.rows)}")

    def _way(self, mode: str | None = None) -> Recipe:
        """The recipe of a mode, by default the present one, with the codes of all pictures."""
        mode = self._mode if mode is None else mode
        if mode not in self._ways:
            raise ValueError("no feature model was given, so there is no feature mode: MixingBoard(..., feature=model)")
        if mode == FEATURE:
            self._read(self._pictures)
        return self._ways[mode]

    def _read(self, pictures: Tensor) -> None:
        """Let the feature model read the pictures that it has not read yet."""
        way = self._ways[FEATURE]
        if len(way.codes) < len(pictures):
            new = models.encode(way.model, pictures[len(way.codes) :])
            way.codes = torch.cat([way.codes, new]) if len(way.codes) else new

    def _no_uploads(self) -> str:
        """Why no picture can be added; empty where one can."""
        if not models.can_encode(self.model):
            return f"{type(self.model).__name__} has no encoder, so its sources are draws from the prior"
        if len(self._pictures) >= COLUMNS:
            return f"the board is full: it holds {COLUMNS} pictures at most"
        return ""

    def _show(self) -> None:
        with self._errors():
            self._look({f"{name} from {source + 1}": CHOSEN for name, source in self._picks.items()})
            note = f" <span style='color: #5f5f5f'>&#8211; {html.escape(self._note)}</span>" if self._note else ""
            show_words(self.words_line, html.escape(self.words) + note)
            way = self._way()
            on_the_way = self.intermediate.value and _has_stages(way.model)
            if on_the_way:
                parts = self.stages()
                made = parts["child"]  # the mix itself: there is no second decode
                self.stages_image.value = images.png(drawn_stages(parts))
            else:
                made = way.decode(way.mixed(self._picks))
            self.stages_image.layout.display = None if on_the_way else "none"
            self.picture.value = images.png(images.enlarge(images.to_uint8(made)[0], self._side))
        self._at_rest(self._show_slowly)

    def _show_slowly(self) -> None:
        with self._errors(fresh=False):
            if self.vary.value:
                self.strip_image.value = images.png(self.sweep(self.vary.value))
            self.strip_image.layout.display = None if self.vary.value else "none"

    def _switched(self) -> None:
        """Rows, lists and switch as the mode has them."""
        way = self._ways[self._mode]
        for name, (label, buttons, note) in self._lines.items():
            reason = way.unused.get(name, "")
            label.value = way.rows[name].label if name in way.rows else name
            label.style.text_color = "#767676" if reason else None
            note.children[1].value, note.layout.display = reason, None if reason else "none"
            for button in buttons.children:
                button.disabled = bool(reason)
        chosen = self.vary.value
        self.vary.options = [("none", NONE), *((row.label, name) for name, row in way.rows.items())]
        self.vary.value = chosen if chosen in way.rows else NONE
        if self.switch is not None:
            self.switch.value = self._mode

    # What the page's events do.
    def _mode_clicked(self, mode: str) -> None:
        if mode == self._mode:
            return
        with self._errors():
            try:
                self.mode = mode
            except Exception:
                self.switch.value = self._mode  # the switch goes back
                raise

    def _uploaded(self, files) -> None:
        if not files:
            return
        with self._errors():
            failed = []
            for file in files:
                try:
                    self.add_picture(bytes(file["content"]), file["name"])
                except Exception as e:  # the other files are added all the same
                    failed.append(e)
            self.upload.value = ()  # the same file can be sent again
            if failed:
                raise failed[0] if len(failed) == 1 else UserError("; ".join(map(str, failed)))

    def _save_clicked(self) -> None:
        free = (Path(f"mix{f'-{i}' if i else ''}.png") for i in range(FREE_NAMES))
        path = self.save(next((path for path in free if not path.exists()), Path("mix.png")))
        self._note = f"saved the sheet as {path} in {Path.cwd()}"
        self._show()

    # What it looks like.
    def _layout(self) -> ipywidgets.Widget:
        self.picture, self.words_line = self._live(), ipywidgets.HTML()
        self.stages_image, self.strip_image = sheet_image(), sheet_image()
        for image in (self.stages_image, self.strip_image):
            image.layout.display = "none"
        flex = {"width": "auto", "margin": "2px"}
        buttons = [
            self._button("random", "random", "every factor from a random picture", self.random, **flex),
            self._button("reset", "reset", "every factor from a picture of its own", self.reset, **flex),
            self._button(
                "save", "save", "write the sheet of sweeps as PNG into this folder", self._save_clicked, **flex
            ),
        ]
        self.upload = ipywidgets.FileUpload(
            accept="image/*", multiple=True, description="own picture", layout=flex,
            tooltip="add a picture of your own: PNG, JPEG, ..., less than 50 megapixels",
        )  # fmt: skip
        self.upload.observe(lambda change: self._uploaded(change["new"]), names="value")
        buttons += [self.upload, ipywidgets.Label(f"up to {MESSAGE} MB")]
        right = [ipywidgets.HBox(buttons, layout={"flex_flow": "row wrap"}), *self._settings()]
        right = ipywidgets.VBox([*right, self.words_line], layout={"flex": "1 1 400px", "min_width": "320px"})
        left = ipywidgets.VBox([self.picture], layout={"margin": "0 12px 0 0", "flex": "none"})
        top = ipywidgets.HBox([left, right], layout={"flex_flow": "row wrap", "overflow": "visible"})
        return self._titled(top, self.error_line, self._matrix(), self.stages_image, self.strip_image)

    def _settings(self) -> list[ipywidgets.Widget]:
        """Mode, sweep and intermediate pictures, one below the other; what the models cannot do is left out."""
        width, shown = 64, []
        self.switch = None
        if FEATURE in self._ways:
            self.switch = ipywidgets.ToggleButtons(
                options=[CODE, FEATURE], style={"button_width": "auto"}, layout={"width": "auto"},
                tooltips=["shape and pose from a picture each", "shape and pose, pixel by pixel, from one picture"],
            )  # fmt: skip
            self.switch.observe(lambda change: self._mode_clicked(change["new"]), names="value")
            shown.append(labelled("mode", self.switch, width))
        self.vary = ipywidgets.Dropdown(
            options=[("none", NONE)],
            tooltip="the factor that comes from each picture in turn",
            layout={"width": "160px"},
        )
        self.vary.observe(lambda _: self._at_rest(self._show_slowly), names="value")
        shown.append(labelled("vary", self.vary, width))
        self.intermediate = ipywidgets.Checkbox(
            False,
            description="intermediate pictures",
            indent=False,
            layout={"width": "auto", "margin": "2px 2px 2px 74px"},
        )
        self.intermediate.observe(lambda _: self._show(), names="value")
        return [*shown, self.intermediate] if any(_has_stages(way.model) for way in self._ways.values()) else shown

    def _matrix(self) -> ipywidgets.Widget:
        """Thumbnails as columns; below them a row per factor with a button per picture, and why it is greyed."""
        head, self._wide = numbered(self.sources.thumbs, THUMB)
        self._head = ipywidgets.HBox(head)
        labels = [row.label for way in self._ways.values() for row in way.rows.values()]
        edge = min(max(60, *(8 * len(label) + 16 for label in labels)), 220)
        rows = [labelled("", self._head, edge)]
        for name in self.rows:
            buttons = ipywidgets.HBox([self._cell(name, j) for j in range(len(head))])
            row, note = labelled(name, buttons, edge), labelled("", ipywidgets.Label(layout={"margin": "0"}), edge)
            note.children[1].style.text_color = "#5f5f5f"
            self._lines[name] = row.children[0], buttons, note
            rows += [row, note]
        self._full = labelled("", ipywidgets.Label(), edge)
        rows.append(self._full)
        self._allow_uploads()
        return ipywidgets.VBox(rows, layout={"margin": "6px 0 0 0"})

    def _cell(self, name: str, j: int) -> ipywidgets.Button:
        look = ipywidgets.Layout(width=f"{self._wide}px", height="26px", margin="1px 2px", padding="0")
        button = ipywidgets.Button(description=FREE[0], tooltip=f"{name} from picture {j + 1}", layout=look)
        button.disabled = name in self._ways[self._mode].unused
        return self._acting(f"{name} from {j + 1}", button, partial(self.pick, name, j))

    def _add_column(self) -> None:
        """A column for the picture that came last."""
        self._head.children += (numbered(self.sources.thumbs, THUMB)[0][-1],)
        for name, (_, buttons, _) in self._lines.items():
            buttons.children += (self._cell(name, len(self._head.children) - 1),)
        self._allow_uploads()

    def _allow_uploads(self) -> None:
        """The file button as the board has room, and where it is off a line that says why."""
        reason = self._no_uploads()
        self.upload.disabled, self._full.layout.display = bool(reason), None if reason else "none"
        self._full.children[1].value = f"no own pictures: {reason}"

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {type(self.model).__name__}: {self.words}"


def _known(mode: str) -> str:
    if mode not in (CODE, FEATURE):
        raise ValueError(f"a mode is '{CODE}' or '{FEATURE}', not {mode!r}")
    return mode


def _has_stages(model) -> bool:
    return callable(getattr(model, "stages", None))
