"""What the panels share: sources that are checked once, buttons by name, an error line, parts that wait for rest.

A panel is a `Frame` with a model and a widget. Whatever its user does runs inside `_errors`, so that a failure is told
in a line on the page and never lost.
"""

from __future__ import annotations

import asyncio
import base64
import html
import numbers
import operator
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from disentkit import models
from disentkit.codes import Block
from disentkit.errors import UserError
from disentkit.explore import images

REST = 0.3  # seconds without a change after which sheets and text follow
SIDE = 256  # height of the live picture on the page, in pixels, at most
DRAWS = 256  # sources drawn from a prior, at most
FREE, CHOSEN = ("○", ""), ("●", "info")  # caption and style of a button under a source


class Frame:
    """A panel over one model: its buttons by name, its error line, its sheet for pages without a kernel.

    Subclasses set `widget` and write `sheet() -> (H, W, 3) uint8`. Raises ValueError for what is no model.
    """

    widget: ipywidgets.Widget
    sources: Sources

    def __init__(self, model, title: str, seed: int):
        self.model, self.title = checked(model), str(title or "")
        self.rng = torch.Generator().manual_seed(count("seed", seed))
        self.buttons: dict[str, ipywidgets.Button] = {}
        self.error_line = ipywidgets.HTML()
        self._error, self._changes = "", 0
        self._looks: dict[str, tuple[str, str]] = {}

    @property
    def error(self) -> str:
        """What the panel's error line says; empty while all is well."""
        return self._error

    def _at_rest(self, then: Callable[[], None]) -> None:
        """Run `then` once nothing has changed for REST seconds; at once where no event loop runs, so no front end."""
        self._changes += 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            then()
            return
        loop.call_later(REST, lambda seen: then() if seen == self._changes else None, self._changes)

    @contextmanager
    def _errors(self, fresh: bool = True):
        """Show what goes wrong in the panel: an exception in a widget's callback would vanish without a trace."""
        if fresh:
            self._say("")
        try:
            yield
        except Exception as e:
            self._say((f"{type(e).__name__}: {e}".strip().splitlines() or [""])[0][:300])

    def _say(self, error: str) -> None:
        self._error = error
        line = f"<div role='alert' style='{_ERROR}'><b>Error</b> {html.escape(error)}</div>" if error else ""
        if self.error_line.value != line:
            self.error_line.value = line

    def _button(self, name: str, caption: str, tooltip: str, action: Callable[[], None], **layout) -> ipywidgets.Button:
        button = ipywidgets.Button(description=caption, tooltip=tooltip, layout=layout)
        return self._acting(name, button, action)

    def _acting(self, name: str, button: ipywidgets.Button, action: Callable[[], None]) -> ipywidgets.Button:
        def clicked(_):
            with self._errors():
                action()

        button.on_click(clicked)
        self.buttons[name] = button
        return button

    def _look(self, looks: dict[str, tuple[str, str]]) -> None:
        """Give buttons a caption and a style, by name; all others marked before are FREE. Only changes are sent."""
        for name in self._looks.keys() | looks.keys():
            button, look = self.buttons.get(name), looks.get(name, FREE)
            if button is not None and self._looks.get(name, FREE) != look:
                with button.hold_sync():
                    button.description, button.button_style = look
        self._looks = looks

    def _live(self) -> ipywidgets.Image:
        """The image widget of the live picture, at the size it has on the page."""
        high, wide = self.model.image_shape[1:]
        times = self._side // high or self._side / high  # a picture larger than that is shown smaller
        high, wide = round(high * times), round(wide * times)
        # No tooltips on images: ipywidgets 8 fails in the browser for a widget with a tooltip but no description.
        return ipywidgets.Image(
            format="png", width=wide, height=high,
            layout={"width": f"{wide}px", "height": f"{high}px", "min_width": f"{wide}px", "object_fit": "contain"},
        )  # fmt: skip

    @property
    def _side(self) -> int:
        return SIDE

    def _source(self, source, most: int | None = None) -> int:
        """The number of a source as an int; raises ValueError where there is none of that number."""
        most = len(self.sources.codes) if most is None else most
        try:
            index = operator.index(source)
        except TypeError:
            index = -1
        if not 0 <= index < most:
            raise ValueError(f"no source {source!r}; there are {most}, counted from 0")
        return index

    def _titled(self, *parts: ipywidgets.Widget | None) -> ipywidgets.Widget:
        """The parts one below the other, the title above them."""
        title = ipywidgets.HTML(f"<b style='font-size: 110%'>{html.escape(self.title)}</b>") if self.title else None
        shown = [part for part in (title, *parts) if part is not None]
        return ipywidgets.VBox(shown, layout={"max_width": "980px", "padding": "4px"})

    def sheet(self) -> np.ndarray:
        """The panel's sheet (H, W, 3) uint8."""
        raise NotImplementedError(f"{type(self).__name__} must write sheet()")

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """The live widget, and a sheet as PNG for readers of a page without a kernel."""
        bundle = self.widget._repr_mimebundle_() | {"text/plain": repr(self)}
        try:
            bundle["image/png"] = base64.b64encode(images.png(self.sheet())).decode()
        except Exception:  # the panel's error line says it; displaying must not fail as well
            pass
        return bundle


_ERROR = "color: #b3261e; border-left: 4px solid #b3261e; padding-left: 8px; line-height: 20px; background: #fdf3f2"


def checked(model):
    """The model; raises ValueError for what is none."""
    if isinstance(model, type) or not isinstance(model, models.Model):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise ValueError(f"a panel takes a model (codes, image_shape, decode), not {kind}; a run's is run.model")
    return model


def count(what: str, value, least: int = 0) -> int:
    """`value` as an int of at least `least`; raises ValueError otherwise."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and least <= value < 2**63:
        return int(value)
    raise ValueError(f"{what} must be a whole number of {least} or more, not {value!r}")


def sheet_image() -> ipywidgets.Image:
    """The image widget of a sheet, as wide as the page at most."""
    look = {"max_width": "100%", "object_fit": "contain", "align_self": "flex-start"}
    return ipywidgets.Image(format="png", layout=look)


def thumbnails(pictures: np.ndarray, height: int) -> tuple[list[ipywidgets.Image], int]:
    """Image widgets of pictures (n, H, W, 3), n at least 1, and their size on the page: `height` by the width returned.

    The width is that of the picture's shape, but at least 36 pixels: a button of that width goes with each.
    """
    wide = max(36, round(pictures.shape[2] * height / pictures.shape[1]))
    look = {"width": f"{wide}px", "height": f"{height}px", "margin": "2px", "object_fit": "contain"}
    pictures = images.enlarge(pictures, height)
    return [ipywidgets.Image(value=images.png(picture), format="png", layout=look) for picture in pictures], wide


def numbered(pictures: np.ndarray, height: int) -> tuple[list[ipywidgets.Widget], int]:
    """The thumbnails of pictures (n, H, W, 3), each with its number below, and their width on the page."""
    thumbs, wide = thumbnails(pictures, height)
    look = {"width": f"{wide}px", "height": "16px", "margin": "0 2px"}
    numbers = [f"<div style='text-align: center; line-height: 16px'>{i}</div>" for i in range(1, len(thumbs) + 1)]
    pairs = [[thumb, ipywidgets.HTML(number, layout=look)] for thumb, number in zip(thumbs, numbers)]
    return [ipywidgets.VBox(pair) for pair in pairs], wide


def show_words(line: ipywidgets.HTML, words: str) -> None:
    """Show words (HTML) in a line that screen readers read out; sent only where they are new."""
    words = f"<div role='status' style='line-height: 20px; padding: 4px 0'>{words}</div>"
    if line.value != words:
        line.value = words


def save(path: str | Path, picture: np.ndarray) -> Path:
    """Write a picture (H, W, 3) as PNG and return its path. Raises UserError where it cannot be written."""
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names the file to write, for example 'sheet.png'; {path!r} is none")
    try:
        path = Path(path).expanduser()
    except RuntimeError as e:  # nobody has that home
        raise UserError(f"cannot save {path}: {e}; give another folder") from None
    if not path.parent.is_dir():
        raise UserError(f"cannot save {path.name}: there is no folder {path.parent}; make it first")
    try:
        path.write_bytes(images.png(picture))
    except (OSError, ValueError) as e:  # ValueError: a zero byte in the name
        raise UserError(f"cannot save {path}: {getattr(e, 'strerror', None) or e}") from None
    return path


class Sources(NamedTuple):
    """What exploring starts from: thumbnails (n, H, W, 3) uint8 and codes (n, D).

    encoded  True where an encoder read the codes from pictures, so that they hold nothing of blocks it does not read
    """

    thumbs: np.ndarray
    codes: Tensor
    encoded: bool = False

    def hold(self, block: Block) -> bool:
        """Whether the codes say anything about the block."""
        return len(self.codes) > 0 and (block.inferred or not self.encoded)


def sources_of(model, sources, rng: torch.Generator) -> Sources:
    """Sources from pictures (n, C, H, W), from codes (n, D), or from n: so many codes drawn from the model's prior.

    Raises ValueError for anything else, for numbers that are not finite, and for pictures where no encoder reads them.
    """
    others = f"codes (n, {model.codes.size}), or a number of draws from the prior"
    known = f"sources are pictures (n, C, H, W) or {others}"
    if isinstance(sources, numbers.Integral) and not isinstance(sources, bool):
        if not 1 <= sources <= DRAWS:
            raise ValueError(f"1 ... {DRAWS} sources can be drawn, not {sources}")
        sources = draw(model, int(sources), rng)
    try:
        sources = torch.as_tensor(sources).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{known}, not {type(sources).__name__}") from None
    if sources.dtype == torch.uint8 and sources.ndim == 4:
        sources = sources / 255
    sources = sources.float()
    if sources.ndim not in (2, 4):
        raise ValueError(f"{known}, not {tuple(sources.shape)}")
    if len(sources) == 0:
        raise ValueError("sources are empty; give at least one")
    if not torch.isfinite(sources).all():
        raise ValueError("sources hold NaN or infinite numbers")
    if sources.ndim == 2:
        codes = model.codes.check(sources)
        return Sources(images.to_uint8(models.decode(model, codes)), codes)
    if not (sources.min() >= -1e-3 and sources.max() <= 1 + 1e-3):
        reach = f"{sources.min():g} ... {sources.max():g}"
        raise ValueError(f"pictures lie in 0 ... 1, these reach {reach}; divide by 255?")
    if not models.can_encode(model):
        raise ValueError(f"{type(model).__name__} has no encoder, so it reads no pictures; give {others}")
    codes = model.codes.check(models.encode(model, sources.clamp(0, 1)))
    if len(codes) != len(sources):
        raise ValueError(f"{type(model).__name__}.encode gave {len(codes)} codes for {len(sources)} pictures")
    return Sources(images.to_uint8(sources), codes, encoded=True)


def draw(model, n: int, rng: torch.Generator) -> Tensor:
    """n codes (n, D) from the model's own prior, or from its blocks' priors where it has none."""
    return getattr(model, "prior", model.codes.prior)(n, rng).detach().cpu().float()
