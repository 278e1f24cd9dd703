"""Transfer: which source picture does each attribute of a mixed picture come from?

    picture 1 -> b, z_b     picture 2 -> p     picture 3 -> c     picture 4 -> z          mix = Dec(b, z_b, p, c, z)

The four pictures differ in background, shape and texture, and all factors are independent, so nothing but the right
block can bring an attribute along. A judge that was trained on true pictures reads the mix. In a table, attributes are
rows and sources columns: a perfect model has ones where they meet as they should. Elsewhere it has zeros, since the
sources differ; a model that shows whatever it likes has chance everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from disentkit import models
from disentkit.metrics.mixes import (
    CATEGORIES,
    GIVEN_BY,
    Mixed,
    agreement,
    attributes,
    check_encoder,
    check_judge,
    generator,
    independent,
    mix_pictures,
    pickers,
    pictures,
    portions,
    read,
)


@dataclass(frozen=True)
class Transfer:
    """What `transfer` found.

    matrix     a row per attribute that the judge reads, a column per picker; the share of mixes in which it reads the
               true value of this picker's source. Of `rotation` the correlation of what it expects with the true angle
    chance     per row, what a blind model has: one over the number of values, 0 of the rotation
    right      {attribute: the picker that should give it}
    all_right  the share of mixes whose background, shape and texture are all from their right sources
    settings   mixes, seed
    """

    matrix: pd.DataFrame
    chance: pd.Series
    right: dict[str, str]
    all_right: float
    settings: dict

    @property
    def diagonal(self) -> pd.Series:
        """Mixing accuracy: each attribute's entry at the picker that should give it."""
        return pd.Series({name: self.matrix.loc[name, picker] for name, picker in self.right.items()}, name="diagonal")

    @property
    def off_diagonal(self) -> pd.Series:
        """The mean of each attribute's other entries, those of sources that should have no say in it."""
        rows = {name: self.matrix.loc[name].drop(picker).mean() for name, picker in self.right.items()}
        return pd.Series(rows, name="off diagonal")


def transfer(model, data, judge, n: int = 1000, seed: int = 0, made: Mixed | None = None) -> Transfer:
    """Mix n times as many pictures as the model has pickers, one for each, and let the judge read the mixes.

    data   a renderer; its factors are drawn independently here, whatever its law
    judge  see `judging.judge_of(data.independent())`
    made   mixes made already, by `mix_pictures`, instead of n new ones

    A model in feature mode has three pickers, of which "shape and pose" should give two attributes. Raises ValueError
    for models without an encoder or without a picker for an attribute, for data that are not rendered or have fewer
    values of a category than there are pickers, and for a judge of other factors.
    """
    data = independent(data)
    check_encoder(model, data)
    check_judge(judge, data)
    names, columns = attributes(data), list(pickers(model.codes))
    right = {name: picker_of(name, columns) for name in names}
    made = made or mix_pictures(model, data, n, seed)
    found = read(judge, made.x, names)  # (n, attributes)
    true = made.values[:, :, [data.space.index(name) for name in names]]  # (n, pickers, attributes)
    rows = {
        name: [agreement(found[:, k], true[:, j, k], name in CATEGORIES) for j in range(len(columns))]
        for k, name in enumerate(names)
    }
    hits = [found[:, k] == true[:, columns.index(right[name]), k] for k, name in enumerate(names) if name in CATEGORIES]
    chance = {name: 1 / len(data.space[name]) if name in CATEGORIES else 0.0 for name in names}
    matrix = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    everything = float(torch.stack(hits).all(0).double().mean())
    return Transfer(matrix, pd.Series(chance, name="chance"), right, everything, {"mixes": len(found), "seed": seed})


def self_recombination(model, data, judge, n: int = 500, seed: int = 0) -> pd.Series:
    """All of the code from one picture: how often the judge reads the picture's own values in Dec(Enc(x)).

    Of n pictures with independent factors; of the rotation the correlation, as in `transfer`, whose diagonal can hardly
    be higher. Raises ValueError as that does.
    """
    data = independent(data)
    check_encoder(model, data)
    check_judge(judge, data)
    names, rng, found, true = attributes(data), generator(seed), [], []
    for count in portions(model, n):
        batch = data.sample(count, rng)
        found.append(read(judge, pictures(model, models.encode(model, batch["x"])), names))
        true.append(batch["factors"][:, [data.space.index(name) for name in names]])
    found, true = torch.cat(found), torch.cat(true)
    entries = {name: agreement(found[:, k], true[:, k], name in CATEGORIES) for k, name in enumerate(names)}
    return pd.Series(entries, name="self-recombination")


def picker_of(attribute: str, columns: list[str]) -> str:
    """The picker that should give an attribute: the one of its name, or the one that says it among others."""
    asked = GIVEN_BY[attribute]
    for column in columns:
        if asked in column.split(" and "):
            return column
    raise ValueError(f"no picker gives '{asked}'; this model has {', '.join(columns)}")
