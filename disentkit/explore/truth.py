"""What the data say about a tuple that was asked for: its words, its true picture, whether training could show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from disentkit.data.base import Renderer
from disentkit.data.combinations import Rule, grid_of
from disentkit.data.factors import Factor, FactorSpace
from disentkit.data.groups import Groups
from disentkit.explore.swapping import Group

HELD_OUT = "held out: never in the training set"
KNOWN = "could have been in training"
NEVER = "no picture of the data is like this"


class Truth:
    """The ground truth of the tuples of a renderer.

    data  a Renderer, or the `Groups` of one
    seen  what training leaves out: a law with a rule, a renderer with such a law, or a rule values (n, K) -> (n,) bool
          that is True there; by default the law of `data`

    The rules of `data.combinations` tell what is held out of training whichever part their law draws; but for the part
    "all", of which nobody can say what a model was trained on. Raises ValueError for what is no renderer, law or rule.
    """

    def __init__(self, data, seen=None):
        data = data.data if isinstance(data, Groups) else data
        if not isinstance(data, Renderer):
            raise ValueError(f"the truth is a renderer of the data, such as fonts, not {type(data).__name__}")
        self.data, self.space, self.image_shape = data.to("cpu"), data.space, tuple(data.image_shape)
        self.rule = _rule_of(data if seen is None else seen)
        if isinstance(self.rule, Rule) and self.rule.space != self.space:
            raise ValueError(f"the rule of seen is about {self.rule.space}, the truth about {self.space}")
        if seen is not None and self.rule is None and not _holds_nothing(seen):
            raise ValueError(f"seen is a law with a rule, or a rule values -> bool, not {type(seen).__name__}")

    def picture(self, values: Tensor) -> Tensor:
        """The true picture (1, C, H, W) of a tuple (K,)."""
        return self.data.render(values[None]).clamp(0, 1)

    def words(self, values: Tensor) -> str:
        """A tuple (K,) in words: `letter R, large, red on blue, DejaVu Serif`."""
        return tuple_words(self.space, values)

    def held_out(self, values: Tensor) -> Tensor:
        """(n,) bool: which tuples (n, K) exist but were held out. Raises ValueError where nothing says it."""
        if self.rule is None:
            raise ValueError("no law says which combinations training leaves out; give it as seen=")
        if isinstance(self.rule, Rule):
            return self.rule.held(grid_of(self.space, values)) & ~self.never(values)
        return torch.as_tensor(self.rule(values)).bool().reshape(len(values))

    def verdict(self, values: Tensor) -> str:
        """HELD_OUT, KNOWN or NEVER for a tuple (K,); empty where nothing says it."""
        if self.rule is None:
            return ""
        if self.never(values[None]).item():
            return NEVER
        return HELD_OUT if self.held_out(values[None]).item() else KNOWN

    def never(self, values: Tensor) -> Tensor:
        """(n,) bool: which tuples (n, K) no picture of the data has, as far as the rule says it."""
        never = getattr(self.rule, "never", None)
        return torch.zeros(len(values), dtype=torch.bool) if never is None else never(values)


class Asked:
    """Which tuple of the truth's factors the rows of a board ask for.

    groups   the rows
    factors  (n, K) true values of the n pictures, or None
    truth    a Truth, or None
    columns  by row, the columns of the factors that its blocks, or their picker, are named after; what no row is named
             after belongs to the first row that is no attribute
    missing  why the tuple is not known; empty where it is

    Raises ValueError for factors that do not fit, and where no row is named after any factor of the truth.
    """

    def __init__(self, groups: Sequence[Group], n: int, factors, truth: Truth | None):
        self.factors, self.truth = _table(factors, n, truth), truth
        names = [] if truth is None else truth.space.names
        known = {g.name: {*g.names, *(row.block.picker for row in g.rows)} for g in groups}
        self.columns = {row: [k for k, name in enumerate(names) if name in known[row]] for row in known}
        if truth is not None and not any(self.columns.values()):
            blocks = ", ".join(name for g in groups for name in g.names or (g.name,))
            raise ValueError(f"no block is named after an attribute ({', '.join(names)}); there are {blocks}")
        given = {k for columns in self.columns.values() for k in columns}
        left = [k for k in range(len(names)) if k not in given]
        rest = next((row for row, columns in self.columns.items() if not columns), None)
        self._all = {row: left if row == rest else columns for row, columns in self.columns.items()}
        lacking = [what for what, value in (("factors= (their true values)", self.factors),
                                            ("truth= (a renderer of the data)", truth)) if value is None]  # fmt: skip
        self.missing = f"no ground truth: beside pictures give {' and '.join(lacking)}" if lacking else ""
        if left and rest is None and not lacking:
            self.missing = f"no ground truth: no block of the code is named after {', '.join(names[k] for k in left)}"

    def values(self, providers: Mapping[str, Tensor]) -> Tensor:
        """Values (n, K) of the tuples that providers (n,) of each row ask for."""
        values = torch.empty(len(next(iter(providers.values()))), len(self.truth.space))
        for row, chosen in providers.items():
            values[:, self._all[row]] = self.factors[chosen][:, self._all[row]]
        return values

    def differ(self, row: str, a: int, b: int) -> bool:
        """Whether two pictures ask for different tuples in this row; False where nothing is known."""
        return not self.missing and not torch.equal(*self.factors[[a, b]][:, self._all[row]])

    def words(self, row: str, picture: int) -> str:
        """The values that a picture gives in this row, `R`; empty where they are not known."""
        columns = [] if self.missing else self.columns[row]
        return ", ".join(value_words(self.truth.space.factors[k], self.factors[picture, k].item()) for k in columns)


def _table(factors, n: int, truth: Truth | None) -> Tensor | None:
    """The factors as (n, K), checked."""
    if factors is None:
        return None
    try:
        factors = torch.as_tensor(factors, dtype=torch.float32).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"factors are a table of numbers (n, K), not {type(factors).__name__}") from None
    if factors.ndim != 2 or len(factors) != n:
        raise ValueError(f"factors must be ({n}, K), a row for each picture, not {tuple(factors.shape)}")
    return factors if truth is None else truth.space.check(factors)


def _rule_of(seen) -> Callable[[Tensor], Tensor] | None:
    """The rule of a renderer, of a law, or the rule itself; None where there is none that says something."""
    law = seen.law if isinstance(seen, Renderer) else seen
    rule = getattr(law, "rule", law)
    if isinstance(rule, Rule):
        return None if rule.part == "all" else rule
    return rule if callable(rule) else None


def _holds_nothing(seen) -> bool:
    """Whether this is a law, though one that holds nothing out."""
    return isinstance(seen, Renderer) or (callable(getattr(seen, "draw", None)) and not isinstance(seen, type))


def tuple_words(space: FactorSpace, values: Tensor) -> str:
    """A tuple (K,) in words. A label that explains itself stands alone, others follow the name of their factor."""
    known = dict(zip(space.names, zip(space, values.tolist())))
    said = {name: _said(space, factor, value) for name, (factor, value) in known.items()}
    pair = [known.get(name) for name in ("colour", "background")]
    if all(found and found[0].labels for found in pair):
        said["colour"] = " on ".join(_label(*found) for found in pair)
        del said["background"]
    return ", ".join(said.values())


def value_words(factor: Factor, value: float) -> str:
    """One value in words: `R`, or `3 px` where it has no label."""
    return _label(factor, value) if factor.labels else f"{value:.3g} {factor.unit}".rstrip()


def _label(factor: Factor, value: float) -> str:
    return factor.labels[round(value)]


def _said(space: FactorSpace, factor: Factor, value: float) -> str:
    words = value_words(factor, value)
    shared = any(words in (other.labels or ()) for other in space if other is not factor)
    alone = factor.labels and not shared and len(words) > 1 and words[0].isalpha() and words != "none"
    return words if alone else f"{factor.name.replace('_', ' ')} {words}"
