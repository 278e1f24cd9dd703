"""What the block metrics share: which blocks a row of their table stands for, and pictures, codes and factors at hand.

A row is a block, several blocks that the user picked together, or one of the words in `RESERVED`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from disentkit import models
from disentkit.codes import Block, CodeSpace
from disentkit.data.base import ArrayData, Data
from disentkit.metrics.arrays import whole

RESERVED = ("all", "chance", "pixels", "random")  # rows that are no choice of blocks
CHUNK = 500  # pictures in memory at a time, where they are not kept: 25 MB of 64x64 colour pictures

Rows = dict[str, list[str]]
Blocks = str | Iterable[str] | Mapping[str, str | Iterable[str]] | None


def check_model(model, data, factors: bool = True) -> None:
    """Raise ValueError where `model` is no model, or `data` is no data set, or has no factors where they are needed."""
    if hasattr(model, "model") and hasattr(model, "card"):
        raise ValueError("a run is measured through its model: give run.model")
    if not (hasattr(model, "codes") and hasattr(model, "decode")):
        raise ValueError(f"block metrics measure a model with codes and decode, got {type(model).__name__}")
    if not hasattr(data, "sample"):
        raise ValueError(f"a model is measured on a data set, got {type(data).__name__}")
    if factors and data.space is None:
        raise ValueError(f"this metric needs factors; data set '{data.name}' has none")


def rows_of(codes: CodeSpace, blocks: Blocks = None, inferred: bool = True) -> tuple[Rows, dict[str, str]]:
    """({row: names of its blocks}, {block left out: why}).

    blocks    None: a row per block; names: a row per name; a mapping {row: name or names}: subsets of blocks
    inferred  blocks that no encoder reads cannot have a row: left out by default, refused where they were asked for

    Raises ValueError for an unknown block, an empty choice, a block named twice, and a row called like a reserved one.
    """
    if blocks is None:
        rows = {b.name: [b.name] for b in codes if b.inferred or not inferred}
    elif isinstance(blocks, Mapping):
        rows = {str(row): [names] if isinstance(names, str) else list(names) for row, names in blocks.items()}
    elif isinstance(blocks, Iterable):
        rows = {name: [name] for name in ([blocks] if isinstance(blocks, str) else blocks)}
    else:
        raise ValueError(f"blocks are names, or {{row: names}}, not {type(blocks).__name__}")
    if not rows:
        raise ValueError("there is no block to measure: " + ("no encoder reads one" if blocks is None else "name one"))
    for row, names in rows.items():
        if row in RESERVED:
            raise ValueError(f"a row cannot be called '{row}': {', '.join(RESERVED)} are the table's own")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"row '{row}' takes at least one block and each block once, not {names}")
        for name in names:
            if inferred and not codes[name].inferred:
                raise ValueError(f"no encoder reads block '{name}', so it can only be measured by swaps")
    left_out = {b.name: "not inferred" for b in codes if inferred and not b.inferred} if blocks is None else {}
    return rows, left_out


def features(codes: CodeSpace, values: Tensor, names: Iterable[str]) -> np.ndarray:
    """The named blocks side by side, (N, m) float64, of code values (N, D): a map block as its mean over positions."""
    return np.hstack([_flat(codes[name], codes.read(values, name)) for name in names])


def _flat(block: Block, values: Tensor) -> np.ndarray:
    if block.kind == "map" and values.ndim > 2:
        values = values.flatten(2).mean(2)  # (N, C, H, W) -> (N, C)
    return values.flatten(1).double().numpy()


@dataclass(frozen=True)
class Seen:
    """Pictures of a data set as a model sees them.

    codes    (N, D)
    classes  (N, K), the grid number of each factor's value; factors with a single value are left out of K
    names    of the K factors
    still    names of the factors left out
    pixels   (N, C*H*W) where asked for
    """

    codes: Tensor
    classes: np.ndarray
    names: list[str]
    still: list[str]
    pixels: np.ndarray | None = None


def look(model, data: Data, n: int, seed: int, pixels: bool = False) -> Seen:
    """Encode n pictures drawn by the data's law; of stored pictures, n different ones, or all there are.

    Different ones, since a probe that met the same picture in training would know it by heart. Raises ValueError for
    models without an encoder, data without factors or with real-valued ones, and codes that are not finite.
    """
    check_model(model, data)
    if not models.can_encode(model):
        raise ValueError(
            f"{type(model).__name__} has no encoder: its blocks can only be measured by swaps, swap_matrix"
        )
    n, rng = whole("n", n, least=2), torch.Generator().manual_seed(whole("seed", seed, least=0))
    data = data.to("cpu")
    codes, factors, kept = [], [], []
    for batch in _batches(data, n, rng):
        codes.append(models.encode(model, batch["x"]))
        factors.append(batch["factors"])
        kept += [batch["x"].flatten(1).double().numpy()] if pixels else []
    codes = torch.cat(codes)
    if not codes.isfinite().all():
        raise ValueError("the model's codes hold NaN or infinite numbers")
    classes, names, still = classes_of(data, torch.cat(factors))
    return Seen(codes, classes, names, still, np.concatenate(kept) if pixels else None)


def _batches(data: Data, n: int, rng: torch.Generator):
    if isinstance(data, ArrayData):
        for rows in torch.randperm(len(data), generator=rng)[:n].split(CHUNK):
            yield data.rows(rows)
    else:
        for start in range(0, n, CHUNK):
            yield data.sample(min(CHUNK, n - start), rng)


def classes_of(data: Data, factors: Tensor) -> tuple[np.ndarray, list[str], list[str]]:
    """(grid numbers (N, K) of the factors that vary, their names, names of the others) of factor values (N, all).

    Raises ValueError where none varies, and for stored factors of which nearly every picture has a value of its own.
    """
    classes = data.space.to_grid(factors.cpu()).numpy()
    varies = (classes != classes[:1]).any(0)
    names = [name for name, v in zip(data.space.names, varies) if v]
    if not names:
        raise ValueError(f"no factor of '{data.name}' varies in {len(classes)} pictures, so there is nothing to read")
    for name, column in zip(names, classes[:, varies].T):
        count = len(np.unique(column))
        if count > max(2, len(column) / 2):
            raise ValueError(f"factor '{name}' has {count} different values in {len(column)} pictures: round it to "
                             "fewer, or give more pictures")  # fmt: skip
    return classes[:, varies], names, [name for name, v in zip(data.space.names, varies) if not v]
