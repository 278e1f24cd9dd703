"""In which order a panel shows the blocks of a code, under which labels, over which range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disentkit.codes import Block, CodeSpace

# A label is read as a finding. So it names no factor that the block follows more weakly than this, nor one of a latent
# that tells less than such a correlation takes: -ln(1 - 0.3^2) / 2 nats. Ranks see a pattern in any trembling.
WEAK, FEW_NATS = 0.3, 0.05


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
    def dead(self) -> bool:
        """True for a latent that tells next to nothing."""
        return self.unit == "nats" and self.importance is not None and self.importance < FEW_NATS

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
           out), `factor`, `correlation`. Raises ValueError for a name that the code has not, and for what is no
           such dict.

    A factor counts as found from a correlation of 0.3 on, in a block that tells at least 0.05 nats.
    """
    stats = () if stats is None else stats
    if not isinstance(stats, Sequence) or not all(isinstance(stat, Mapping) and "name" in stat for stat in stats):
        raise ValueError("statistics are a list of dicts, each with the name of a block, as a run's run.stats")
    known = {stat["name"]: stat for stat in stats}
    for name in known:
        codes[name]
    rows = []
    for block in codes:
        stat = known.get(block.name, {})
        low, high = _number(stat, "low", block.low), _number(stat, "high", block.high)
        if not -math.inf < low < high < math.inf:  # a collapsed block: all pictures have one value; or a broken one
            low, high = block.low, block.high
        importance, unit = _number(stat, "importance"), stat.get("unit", "nats")
        correlation = _number(stat, "correlation")
        found = (stat.get("factor"), correlation) if _found(importance, unit, correlation) else (None, None)
        rows.append(Ranked(block, low, high, importance, unit, *found))
    return sorted(rows, key=lambda row: float("inf") if row.importance is None else -row.importance)


def _number(stat: Mapping, key: str, otherwise: float | None = None) -> float | None:
    """A number of the statistics, `otherwise` where they have none."""
    try:
        return otherwise if stat.get(key) is None else float(stat[key])
    except (TypeError, ValueError):
        raise ValueError(f"statistics of '{stat['name']}': {key} must be a number, not {stat[key]!r}") from None


def _found(importance: float | None, unit: str, correlation: float | None) -> bool:
    """Whether the statistics carry the factor they name."""
    told = importance is None or unit != "nats" or importance >= FEW_NATS
    return told and (correlation is None or correlation >= WEAK)
