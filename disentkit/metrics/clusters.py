"""Clusters: do the values of the one-hot codes stand for backgrounds, shapes and textures that nobody named?

The codes are unordered, so a block's argmax and a factor are compared as two ways to sort the same pictures: by
normalised mutual information, 2 I(a; b) / (H(a) + H(b)), and by accuracy under the best assignment of codes to values
(Hungarian). `code_clusters` asks the encoders about true pictures, `drawn_clusters` the generator about its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from disentkit import models
from disentkit.metrics.mixes import (
    CATEGORIES,
    Drawn,
    check_encoder,
    check_judge,
    draw_pictures,
    generator,
    independent,
    portions,
    read,
)
from disentkit.metrics.subsets import check_model

GOVERNS = {"p": "shape", "c": "texture", "b": "background"}  # {block: the factor that it should stand for}


@dataclass(frozen=True)
class Clusters:
    """What was found of the blocks among p, c, b that the model has; all in 0 ... 1.

    nmi       a row per block, a column per factor. Away from each block's own factor: what it says of others, such as
              a texture that is read from the background's code
    chance    the same table for one shuffle of the codes: few pictures of many codes agree by chance, and above 0
    accuracy  {block: share of pictures that its argmax sorts rightly, each code standing for one value of the block's
              own factor at most}. With 20 codes for 10 backgrounds about a half is all that can be had
    majority  {block: the same, where each code stands for the value that it comes with most often}
    used      {block: how many of its codes hold 1 % of the pictures or more}
    settings  pictures, seed, where the codes come from ("pictures" or "prior")
    """

    nmi: pd.DataFrame
    chance: pd.DataFrame
    accuracy: dict[str, float]
    majority: dict[str, float]
    used: dict[str, int]
    settings: dict


def code_clusters(model, data, n: int = 4000, seed: int = 0) -> Clusters:
    """The argmax of E_p(x), E_c(x), E_b(x) against the true shape, texture and background of n independent pictures.

    Raises ValueError for models without an encoder or without any of these blocks, and for data that are not rendered.
    """
    data = independent(data)
    check_encoder(model, data)
    blocks, rng, codes, classes = _blocks(model), generator(seed), [], []
    for count in portions(model, n):
        batch = data.sample(count, rng)
        codes.append(_argmax(model, models.encode(model, batch["x"]), blocks))
        classes.append(batch["factors"][:, [data.space.index(name) for name in CATEGORIES]])
    return _compared(blocks, codes, classes, {"pictures": n, "seed": seed, "codes": "pictures"})


def drawn_clusters(model, data, judge, n: int = 4000, seed: int = 0, made: Drawn | None = None) -> Clusters:
    """The p, c, b that n pictures were drawn with, independent of each other, against what the judge sees in them.

    This is what the codes govern in the generator, with or without an encoder. made: pictures made already, by
    `draw_pictures`, instead of n new ones. Raises ValueError for models that draw nothing or have none of these blocks,
    data that are not rendered, and a judge of other factors.
    """
    data = independent(data)
    check_model(model, data)
    check_judge(judge, data)
    blocks, made = _blocks(model), made or draw_pictures(model, n, seed)
    seen, settings = read(judge, made.x, CATEGORIES), {"pictures": len(made.x), "seed": seed, "codes": "prior"}
    return _compared(blocks, [_argmax(model, made.codes, blocks)], [seen], settings)


def hungarian(codes: np.ndarray, classes: np.ndarray) -> float:
    """The largest share of rows with f(code) = class, over all f that send no two codes to one class; both (N,) int."""
    from scipy.optimize import linear_sum_assignment  # here, since importing it takes half a second

    table = counts(codes, classes)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(codes))


def counts(codes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How many rows have each code that occurs (row) and each class that occurs (column)."""
    (rows, i), (columns, j) = (np.unique(labels, return_inverse=True) for labels in (codes, classes))
    table = np.zeros((len(rows), len(columns)), dtype=int)
    np.add.at(table, (i, j), 1)
    return table


def _blocks(model) -> list[str]:
    found = [name for name in GOVERNS if name in model.codes.names]
    if not found:
        raise ValueError(f"none of the blocks {', '.join(GOVERNS)} is in this code: {', '.join(model.codes.names)}")
    return found


def _argmax(model, codes: Tensor, blocks: list[str]) -> Tensor:
    return torch.stack([model.codes.read(codes, name).argmax(1) for name in blocks], dim=1)  # (n, blocks)


def _compared(blocks: list[str], codes: list[Tensor], classes: list[Tensor], settings: dict) -> Clusters:
    codes, factors = torch.cat(codes).numpy(), list(GOVERNS.values())
    classes = dict(zip(CATEGORIES, torch.cat(classes).long().T.numpy()))
    shuffled = np.random.default_rng(settings["seed"]).permutation(codes)
    nmi, chance = (
        pd.DataFrame([[_nmi(classes[factor], column) for factor in factors] for column in table.T], blocks, factors)
        for table in (codes, shuffled)
    )
    own = {block: (column, classes[GOVERNS[block]]) for block, column in zip(blocks, codes.T)}
    tables = {block: counts(*both) for block, both in own.items()}
    return Clusters(
        nmi,
        chance,
        {block: hungarian(*both) for block, both in own.items()},
        {block: float(table.max(1).sum() / table.sum()) for block, table in tables.items()},
        {block: int((table.sum(1) >= 0.01 * table.sum()).sum()) for block, table in tables.items()},
        settings,
    )


def _nmi(classes: np.ndarray, codes: np.ndarray) -> float:
    from sklearn.metrics import normalized_mutual_info_score  # here, since importing it takes a second

    return float(normalized_mutual_info_score(classes, codes))
