"""In which order a panel shows the blocks of a code, under which labels, over which range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from disentkit.codes import Block, CodeSpace


@dataclass(frozen=True)
class Ranked:
    """One block of a panel with what is known of it. `importance` is None where there are no statistics."""

    block: Block
    low: float
    high: float
    importance: float | None = None
    unit: str = ""  # of the importance
    factor: str | None = None
    correlation: float | None = None

    @property
    def name(self) -> str:
        """The block, its unit, and the factor found for it: `z3  x (0.98)`."""
        name = f"{self.block.name} [{self.block.unit}]" if self.block.unit else self.block.name
        if not self.factor:
            return name
        return f"{name}  {self.factor}" + ("" if self.correlation is None else f" ({self.correlation:.2f})")

    @property
    def weight(self) -> str:
        """The importance in words: `2.1 nats`, or empty."""
        if self.importance is None:
            return ""
        digits = f"{self.importance:.1f}" if self.unit == "nats" else f"{self.importance:.2g}"
        return f"{digits} {self.unit}".rstrip()

    @property
    def label(self) -> str:
        """`z3  x (0.98)  2.1 nats`."""
        return "  ".join(part for part in (self.name, self.weight) if part)


def ranked(codes: CodeSpace, stats: Sequence[dict] | None) -> list[Ranked]:
    """The blocks, most important first; those without statistics follow in code order.

    stats  dicts with `name` and any of `low`, `high`, `importance`, `unit` (of the importance; nats where it is left
           out), `factor`, `correlation`. Raises ValueError for a name that the code has not.
    """
    known = {stat["name"]: stat for stat in stats or ()}
    for name in known:
        codes[name]
    rows = []
    for block in codes:
        stat = known.get(block.name, {})
        low, high = stat.get("low", block.low), stat.get("high", block.high)
        if not low < high:  # a collapsed block: every picture has the same value
            low, high = block.low, block.high
        about = stat.get("importance"), stat.get("unit", "nats"), stat.get("factor"), stat.get("correlation")
        rows.append(Ranked(block, float(low), float(high), *about))
    return sorted(rows, key=lambda row: float("inf") if row.importance is None else -row.importance)
