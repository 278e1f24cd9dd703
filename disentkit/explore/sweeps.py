"""One source per factor: which row feeds which blocks of a code, the mix that makes, and sheets that vary one factor.

A row is a factor: all blocks of one `Block.picker` (Li et al., CVPR 2020: background, shape, texture, pose). A state is
a source per row, by number from 0.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from disentkit import models
from disentkit.explore import images
from disentkit.explore.frame import Sources, checked, count, sources_of
from disentkit.explore.paths import captioned
from disentkit.metrics.mixes import pickers

STAGE = 128  # pixels: the height up to which an intermediate picture is enlarged
State = Mapping[str, int]


class Row(NamedTuple):
    """What a row is called where a recipe uses it, and the blocks that it feeds."""

    label: str
    blocks: tuple[str, ...]


@dataclass
class Recipe:
    """One way from sources to a picture: a model, by row the blocks it feeds, and the sources' codes.

    unused  by row that feeds nothing here, the reason
    """

    model: object
    rows: dict[str, Row]
    unused: dict[str, str]
    codes: Tensor  # (n, D)

    def mixed(self, state: State) -> Tensor:
        """The code (1, D) of a state; what no row feeds is that of the first source."""
        code = self.codes[:1]
        for name, row in self.rows.items():
            code = self.model.codes.swap(code, self.codes[state[name]][None], row.blocks)
        return code

    def swept(self, state: State, name: str) -> Tensor:
        """Codes (n, D): the row `name` from every source in turn, all else as in the state."""
        base = self.mixed(state).repeat(len(self.codes), 1)
        return self.model.codes.swap(base, self.codes, self.rows[name].blocks)

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures (N, C, H, W) of codes, in [0, 1]."""
        return models.decode(self.model, codes).clamp(0, 1)

    def stages(self, codes: Tensor) -> dict[str, Tensor]:
        """The pictures (N, 1 or 3, H, W) on the way to that of the codes, by name, the last one `child`."""
        with models.frozen(self.model):
            made = self.model.stages(codes.to(models.device_of(self.model)))
        return {name: picture.detach().float().cpu().clamp(0, 1) for name, picture in made.items()}

    def words(self, state: State) -> str:
        """Who feeds what: `background from picture 1, shape from 2, texture from 3, pose from 4`."""
        said = [f"{row.label} from {state[name] + 1}" for name, row in self.rows.items()]
        return ", ".join(said).replace(" from ", " from picture ", 1)


def recipe(model, sources: Sources) -> Recipe:
    """The recipe of a model with a row per picker, in the order of its blocks; a block without one is its own row.

    A row that the sources' codes say nothing about is left out. Raises ValueError for a model without pickers, and
    where no row is left.
    """
    if not any(block.picker for block in model.codes):
        raise ValueError(
            f"no block of {type(model).__name__} has a picker, so no factor can be fed; Mixer takes any model"
        )
    rows = {name: Row(name, tuple(blocks)) for name, blocks in pickers(model.codes).items()
            if any(sources.hold(model.codes[block]) for block in blocks)}  # fmt: skip
    if not rows:
        raise ValueError(f"no encoder reads a block of {type(model).__name__}, so there is nothing to mix")
    return Recipe(model, rows, {}, sources.codes)


def feature_recipe(model, base: Recipe) -> Recipe:
    """The recipe of a feature model, without codes: its picker `shape and pose` is fed by the row `shape`.

    Raises ValueError for a model of pictures of another size, for one that cannot encode, and for one with a picker
    that no row of the base can feed.
    """
    kind, shape, wanted = type(checked(model)).__name__, tuple(model.image_shape), tuple(base.model.image_shape)
    if shape != wanted:
        raise ValueError(f"the feature model makes pictures {shape}, the model {wanted}; they must be of one size")
    if not models.can_encode(model):
        raise ValueError(f"the feature model {kind} has no encoder, so it reads no pictures")
    feeds, unused = {}, {}
    for picker, blocks in pickers(model.codes).items():
        names = [name for name in ([picker] if picker in base.rows else picker.split(" and ")) if name in base.rows]
        if not names:
            have = ", ".join(base.rows)
            raise ValueError(f"no row feeds '{picker}' of the feature model {kind}; the model's rows are {have}")
        feeds[names[0]] = Row(picker, tuple(blocks))
        unused |= dict.fromkeys(names[1:], f"feature mode takes {picker} from one picture")
    unused |= {name: f"feature mode has no {name}" for name in base.rows if name not in feeds and name not in unused}
    rows = {name: feeds[name] for name in base.rows if name in feeds}
    return Recipe(model, rows, {name: unused[name] for name in base.rows if name in unused}, torch.zeros(0, 1))


def first_state(rows: Sequence[str], n: int) -> dict[str, int]:
    """Every row from a picture of its own, as far as there are so many."""
    return {name: i % n for i, name in enumerate(rows)}


def complete(state, first: State, n: int) -> dict[str, int]:
    """A state from outside over n pictures, what it leaves out as in `first`; raises ValueError for what is none."""
    if not isinstance(state, Mapping):
        raise ValueError(f"a state is a mapping {{row: picture}}, not {type(state).__name__}")
    for name in state:
        if name not in first:
            raise ValueError(f"no row '{name}'; there are {', '.join(first)}")
    for source in state.values():
        if not isinstance(source, numbers.Integral) or isinstance(source, bool) or not 0 <= source < n:
            raise ValueError(f"no source {source!r}; there are {n}, counted from 0")
    return {**first, **{name: int(source) for name, source in state.items()}}


def drawn_sheet(way: Recipe, thumbs: np.ndarray, state: State, title: str = "") -> np.ndarray:
    """The sheet (H, W, 3) uint8: the mix, the sources, and per row the mix with that row from every source."""
    made = images.to_uint8(way.decode(torch.cat([way.mixed(state), *(way.swept(state, name) for name in way.rows)])))
    rows = [(["mix"], made[:1]), _sources(thumbs)]
    for (name, row), tiles in zip(way.rows.items(), np.split(made[1:], len(way.rows))):
        rows.append(([row.label, f"in the mix from {state[name] + 1}"], tiles))
    words = way.words(state)
    return images.sheet(rows, f"{title}: {words}" if title else words)


def drawn_strip(way: Recipe, thumbs: np.ndarray, state: State, name: str) -> np.ndarray:
    """The strip (H, W, 3) uint8: the sources, and below each the mix with one row taken from it."""
    tiles = images.to_uint8(way.decode(way.swept(state, name)))
    return images.sheet([_sources(thumbs), ([way.rows[name].label, "from each in turn"], tiles)])


def drawn_stages(made: Mapping[str, Tensor]) -> np.ndarray:
    """The intermediate pictures (H, W, 3) uint8 of one mix side by side, each with its name below."""
    tiles = np.concatenate([images.enlarge(images.to_uint8(picture), STAGE) for picture in made.values()])
    return images.sheet([([], captioned(tiles, [[name.replace("_", " ")] for name in made]))])


def _sources(thumbs: np.ndarray) -> tuple[list[str], np.ndarray]:
    return ["pictures"], captioned(thumbs, [[str(i + 1)] for i in range(len(thumbs))])


def sweep_sheet(model, pictures, state: State | None = None, title: str = "", seed: int = 0) -> np.ndarray:
    """The sheet (H, W, 3) uint8 of sweeps: a row per factor, in each column that factor from another picture.

    model     with a `Block.picker` for each factor
    pictures  (n, C, H, W) in [0, 1]; or codes (n, D), or a number of draws from the prior, with `seed`
    state     by factor, the picture it has where another one is varied, from 0; left out, factor i has picture i

    Raises ValueError for a model without pickers, for pictures that do not fit it, and for unknown rows and pictures.
    """
    rng = torch.Generator().manual_seed(count("seed", seed))
    sources = sources_of(checked(model), pictures, rng)
    way = recipe(model, sources)
    n = len(sources.codes)
    state = complete({} if state is None else state, first_state(tuple(way.rows), n), n)
    return drawn_sheet(way, sources.thumbs, state, str(title or ""))
