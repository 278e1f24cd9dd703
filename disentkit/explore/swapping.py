"""Blocks that travel together, and the swap sheet: what one block of a code carries from picture to picture.

The sheet is the paper's figure of attribute transfer (Hu et al., CVPR 2018): every picture of the top row gives one
block, every picture of the left column gives all the others.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from disentkit import models
from disentkit.codes import Block, CodeSpace
from disentkit.explore import images
from disentkit.explore.frame import Sources, checked, sources_of
from disentkit.explore.ranking import Ranked, ranked

REMAINDER = "the rest"  # the numbers of a code that lie in no block, as where blocks are directions in a latent


@dataclass(frozen=True)
class Group:
    """What is picked in one go: the blocks of one `Block.picker`, else one block; without rows, `REMAINDER`."""

    rows: tuple[Ranked, ...]

    @property
    def name(self) -> str:
        """The name of its first block, by which panels know it."""
        return self.rows[0].block.name if self.rows else REMAINDER

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(row.block.name for row in self.rows)

    @property
    def heading(self) -> str:
        """With what was found for it: `f3  hair (0.98)`, or `background: b, z` where blocks share a picker."""
        if len(self.rows) == 1:
            return self.rows[0].name
        return f"{self.rows[0].block.picker}: {', '.join(row.name for row in self.rows)}" if self.rows else REMAINDER

    @property
    def label(self) -> str:
        """The heading and the importance: `f3  hair (0.98)  0.02 change`."""
        return self.rows[0].label if len(self.rows) == 1 else self.heading

    @property
    def words(self) -> str:
        """As it stands in a sentence: `f3 hair`."""
        if len(self.rows) == 1:
            name, factor = self.rows[0].block.name, self.rows[0].factor
            return f"{name} {factor}" if factor and factor != name else name
        return self.rows[0].block.picker if self.rows else REMAINDER

    def held_by(self, sources: Sources) -> bool:
        """Whether the sources' codes say anything about these blocks."""
        return not self.rows or any(sources.hold(row.block) for row in self.rows)


class Pick(NamedTuple):
    """What a group's blocks are: those of `provider`, or on the straight way from them to `other`'s, t in 0 ... 1."""

    provider: int
    other: int
    t: float = 0.0

    @property
    def nearer(self) -> int:
        """The provider at the nearer end."""
        return self.other if self.t > 0.5 else self.provider

    @property
    def between(self) -> bool:
        return 0 < self.t < 1

    @property
    def words(self) -> str:
        if not self.between:
            return f"from picture {self.nearer + 1}"
        return f"{100 * self.t:.0f} % of the way from picture {self.provider + 1} to picture {self.other + 1}"


def groups_of(codes: CodeSpace, stats: Sequence[dict] | None = None) -> list[Group]:
    """The groups of a code, the most important first (see `ranked`), the numbers outside all blocks last."""
    together: dict[tuple, list[Ranked]] = {}
    for row in ranked(codes, stats):
        together.setdefault(_key(row.block), []).append(row)
    outside = set(range(codes.size)) - {i for b in codes if type(b).read is Block.read for i in b.at}
    return [Group(tuple(rows)) for rows in together.values()] + ([Group(())] if outside else [])


def _key(block: Block) -> tuple:
    return ("picker", block.picker) if block.picker else ("block", block.name)


def group_named(groups: Sequence[Group], name: str) -> Group:
    """The group of a block's name, or of a picker's; raises ValueError where there is none."""
    for group in groups:
        if name in (group.names or (REMAINDER,)):
            return group
    for group in groups:
        if any(name == row.block.picker for row in group.rows if row.block.picker):
            return group
    raise ValueError(f"no block '{name}'; there are {', '.join(n for g in groups for n in g.names or (g.name,))}")


def share(t) -> float:
    """t as a float; raises ValueError for what is no number in 0 ... 1."""
    if isinstance(t, numbers.Real) and not isinstance(t, bool) and 0 <= t <= 1:
        return float(t)
    raise ValueError(f"t is a number in 0 ... 1, the share of the way, not {t!r}")


def assembled(codes: CodeSpace, parts: Mapping[str, Tensor], outside: Tensor) -> Tensor:
    """The code (1, D) whose blocks come from a code each, by block name; what lies in no block comes from `outside`."""
    code = outside
    for block in codes:
        code = block.write(code, block.read(parts[block.name]))
    return code


def who_feeds(fed: Iterable[tuple[str, str]]) -> str:
    """Pairs (words of a group, words of what feeds it) as a sentence: `f1 hair from picture 3, the other 7 blocks ...`.

    What feeds most comes last.
    """
    groups: dict[str, list[str]] = {}
    for group, feed in fed:
        groups.setdefault(feed, []).append(group)
    most = max(groups, key=lambda feed: len(groups[feed]))
    rest = groups.pop(most)
    who = f"the other {len(rest)} blocks" if groups else f"all {len(rest)} blocks"
    said = [f"{listed(names)} {feed}" for feed, names in groups.items()]
    return ", ".join([*said, f"{who if len(rest) > 2 else listed(rest)} {most}"])


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def travel(codes: CodeSpace, into: Tensor, donor: Tensor, group: Group) -> Tensor:
    """Codes `into` (N, D) with a group's blocks taken from `donor` (N, D)."""
    if group.rows:
        return codes.swap(into, donor, group.names)
    return codes.swap(donor, into, codes.names)


def swap_sheet(model, top, left, block: str, title: str = "") -> np.ndarray:
    """The labelled swap sheet (H, W, 3) uint8 of one block: `grid[r][c] = Dec(left[r] with block from top[c])`.

    top, left  pictures (n, C, H, W) in [0, 1], codes (n, D), or a number of draws from the prior; shown as the top row
               and the left column
    block      its name, or that of a picker whose blocks travel together
    title      a line above, such as the attribute found for the block; left out, the block's name

    Raises ValueError for an unknown block, for sources that do not fit the model, and for a block that no encoder
    reads where the top row is pictures.
    """
    rng = torch.Generator().manual_seed(0)
    group = group_named(groups_of(checked(model).codes), block)
    return drawn_sheet(model, sources_of(model, top, rng), sources_of(model, left, rng), group, title)


def swap_sheets(model, top, left, stats: Sequence[dict] | None = None) -> dict[str, np.ndarray]:
    """One swap sheet per block, by name, titled with the block and what `stats` (as for a panel) found for it.

    The most important block comes first. Left out are blocks that no encoder reads where the top row is pictures:
    they would give nothing. Raises ValueError as `swap_sheet`.
    """
    rng = torch.Generator().manual_seed(0)
    above, beside = sources_of(checked(model), top, rng), sources_of(model, left, rng)
    shown = [group for group in groups_of(model.codes, stats) if group.held_by(above)]
    return {group.name: drawn_sheet(model, above, beside, group) for group in shown}


def drawn_sheet(model, top: Sources, left: Sources, group: Group, title: str = "") -> np.ndarray:
    """The swap sheet of sources that are read already."""
    if not group.held_by(top):
        raise ValueError(f"no encoder reads '{group.name}', so pictures cannot give it; use codes for the top row")
    rows, columns = len(left.codes), len(top.codes)
    donors = top.codes.repeat(rows, 1)  # (rows * columns, D)
    mixed = travel(model.codes, left.codes.repeat_interleave(columns, 0), donors, group)
    tiles = images.to_uint8(models.decode(model, mixed))
    caption = f"the top row gives {group.words}, the left column all else"
    grid = tiles.reshape(rows, columns, *tiles.shape[1:])
    return images.matrix(top.thumbs, left.thumbs, grid, str(title or group.heading), caption)
