"""What follows a block when it is swapped: a judge that was trained on true pictures reads the mixed ones.

    x3 = Dec(the receiver's code with this block from the donor)

If the judge reads the donor's hair in x3, the hair follows the block; if it reads the receiver's trousers, the block
keeps its hands off them. Unlike a probe this asks the decoder: a block may know a factor (a copy, a leak) without any
say in the picture. Works for every model that decodes, with and without an encoder.

Besides: the blocks named by what follows them, the ceilings of MIX's classifier as a gauge, and the round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from disentkit import models
from disentkit.data.base import ArrayData
from disentkit.data.factors import FactorSpace
from disentkit.metrics.arrays import whole
from disentkit.metrics.subsets import RESERVED, Blocks, check_model, classes_of, rows_of

CHUNK = 250  # pairs at a time
NAMED = 0.1  # of the way from chance to certainty, from which on a block may be named after a factor


@dataclass(frozen=True)
class Swaps:
    """What `swap_matrix` found; frames of shares in 0 ... 1, a column per factor.

    follows  a row per block or subset of blocks, "all" and "chance": the judge reads the donor's value
    keeps    the same rows: the judge reads the receiver's value
    judge    the judge's own share of right answers on true pictures, by factor; of stored pictures, on those that were
             held out from it, as its card says
    settings pairs, seed, where the codes come from ("pictures" or "prior"), factors left out
    note     what to know when reading the numbers
    """

    follows: pd.DataFrame
    keeps: pd.DataFrame
    judge: pd.Series
    settings: dict
    note: str

    def above_chance(self) -> pd.DataFrame:
        """How far each block is on the way from chance (0) to certainty (1), (follows - chance) / (1 - chance)."""
        return _above_chance(self.follows)

    def followed(self, times: float = 2.0) -> list[str]:
        """The factors whose best single row beats `times` chance; one with chance above 1 / times never can."""
        best = self.follows.drop(index=["all", "chance"]).max()
        return [name for name in self.follows.columns if best[name] > times * self.follows.loc["chance", name]]


def swap_matrix(model, data, judge, blocks: Blocks = None, n: int = 1000, seed: int = 0) -> Swaps:
    """Swap each block between n independent pairs of pictures and let the judge read the results.

    judge   anything with `read(x) -> (N, K)`: the grid number of each factor of `data.space`, see `judges.Judge`
    blocks  names, or {row: names} for blocks swapped together; by default every block, inferred or not

    Below the blocks stand "all", the picture decoded from the whole code of the donor (in `follows` the ceiling: how
    well the judge reads plain reconstructions), and "chance", what a dead block scores in `follows`: the probability
    sum_k p_k^2 that donor and receiver share the value. Factors with a single value are left out.

    The true values are those of the pictures that donors and receivers come from. A model that cannot infer its whole
    code from a picture has none: its donors and receivers are codes drawn from its prior, the values are those that the
    judge reads in their own pictures, and "all" is 1 by construction; a factor that never varies there has chance 1.
    The note says which it was.

    Raises ValueError for unknown blocks, data without factors and a judge of other factors.
    """
    check_model(model, data)
    rows, _ = rows_of(model.codes, blocks, inferred=False)
    check_judge(judge, data)
    n = whole("n", n, least=2)
    rng, data = torch.Generator().manual_seed(whole("seed", seed, least=0)), data.to("cpu")
    invented = not models.can_encode(model) or not all(block.inferred for block in model.codes)
    draw = _from_prior if invented else _from_pictures
    parts = [draw(model, data, judge, min(CHUNK, n - start), rng) for start in range(0, n, CHUNK)]
    donors, receivers, of_donors, of_receivers = (torch.cat(part) for part in zip(*parts))
    if not (donors.isfinite().all() and receivers.isfinite().all()):
        raise ValueError("the model's codes hold NaN or infinite numbers: its weights are broken")
    both = torch.cat([of_donors, of_receivers])
    if invented:  # a generator that always shows the same hair is a finding: chance is 1 there
        names, still = list(data.space.names), []
    else:
        _, names, still = classes_of(data, data.space.from_grid(both))
    kept = [data.space.index(name) for name in names]
    read = {row: _read(model, data, judge, receivers, donors, members)[:, kept] for row, members in rows.items()}
    whole_codes = [readings(judge, models.decode(model, part), data) for part in donors.split(CHUNK)]
    read["all"] = torch.cat(whole_codes)[:, kept]
    chance = _share_a_value(both[:, kept])
    follows, keeps = (
        pd.DataFrame(
            [*((r == true[:, kept]).double().mean(0).numpy() for r in read.values()), chance],
            index=[*read, "chance"],
            columns=names,
        )
        for true in (of_donors, of_receivers)
    )
    note = f"{n} pairs; the true values are those of the pictures that were encoded"
    if invented:
        why = "a block is not inferred from pictures" if models.can_encode(model) else "the model has no encoder"
        note = (
            f"{n} pairs of codes from the prior, since {why}; their values are what the judge reads in their pictures"
        )
    settings = {"pairs": n, "seed": seed, "codes": "prior" if invented else "pictures", "constant": still}
    stored = isinstance(data, ArrayData) and getattr(judge, "card", {}).get("accuracy")  # else it knows them by heart
    accuracy = pd.Series(stored, name="judge") if stored else judge_accuracy(judge, data, n, seed + 1)
    return Swaps(follows, keeps, accuracy[names], settings, note)


def readings(judge, x: Tensor, data) -> Tensor:
    """What a judge reads in pictures, (N, K); raises ValueError for pictures and answers that cannot be."""
    if not x.isfinite().all():
        raise ValueError("the pictures to be judged hold NaN or infinite numbers: the model or its codes are broken")
    found = judge.read(x)
    if not isinstance(found, Tensor) or found.shape != (len(x), len(data.space)):
        shape = tuple(found.shape) if hasattr(found, "shape") else type(found).__name__
        raise ValueError(f"a judge's read gives a tensor ({len(x)}, {len(data.space)}) of grid numbers, not {shape}")
    return found


def check_judge(judge, data) -> None:
    """Raise ValueError where `judge` cannot read, or reads other factors than those of the data."""
    if isinstance(judge, type) or not callable(getattr(judge, "read", None)):
        raise ValueError(f"a judge reads pictures: give judging.judge_of(data), not {type(judge).__name__}")
    space = getattr(judge, "space", data.space)
    if space != data.space:
        raise ValueError(f"this judge reads {space}, the data set '{data.name}' has {data.space}: take its own judge")


def judge_accuracy(judge, data, n: int = 1000, seed: int = 1) -> pd.Series:
    """The judge's share of right answers on n true pictures, by factor."""
    rng, right = torch.Generator().manual_seed(seed), []
    for start in range(0, n, CHUNK):
        batch = data.to("cpu").sample(min(CHUNK, n - start), rng)
        right.append(readings(judge, batch["x"], data) == data.space.to_grid(batch["factors"]))
    return pd.Series(torch.cat(right).double().mean(0).numpy(), index=list(data.space.names), name="judge")


def _from_pictures(model, data, judge, n: int, rng) -> list[Tensor]:
    """Codes of n donors and n receivers, and their true classes."""
    two = [data.sample(n, rng) for _ in range(2)]
    return [models.encode(model, b["x"]) for b in two] + [data.space.to_grid(b["factors"]) for b in two]


def _from_prior(model, data, judge, n: int, rng) -> list[Tensor]:
    """The same for codes that come from no picture: classes are what the judge reads."""
    prior = getattr(model, "prior", model.codes.prior)
    two = [prior(n, rng).cpu() for _ in range(2)]
    return two + [readings(judge, models.decode(model, codes), data) for codes in two]


def _read(model, data, judge, receivers: Tensor, donors: Tensor, names: Sequence[str]) -> Tensor:
    """What the judge reads, (n, K), in the pictures of the receivers with the named blocks of the donors."""
    parts = zip(receivers.split(CHUNK), donors.split(CHUNK))
    mixed = (models.decode(model, model.codes.swap(a, b, names)) for a, b in parts)
    return torch.cat([readings(judge, x, data) for x in mixed])


def _share_a_value(classes: Tensor) -> np.ndarray:
    """The probability (K,) that two rows of classes (n, K) share a value."""
    return np.array([(np.unique(c, return_counts=True)[1] ** 2).sum() / len(c) ** 2 for c in classes.T.numpy()])


def _above_chance(follows: pd.DataFrame) -> pd.DataFrame:
    """Rows of blocks only; a factor that never changes is 0."""
    if "chance" not in follows.index:
        raise ValueError("the frame has no row 'chance': give swap_matrix(...).follows")
    chance, rows = follows.loc["chance"], follows.drop(index=[row for row in RESERVED if row in follows.index])
    return ((rows - chance) / (1 - chance).where(chance < 1, np.inf)).clip(lower=0)


# ---- what the numbers are for: names, gauges


def found(follows: pd.DataFrame | Swaps, least: float = NAMED) -> dict[str, tuple[str, float]]:
    """{block: (the factor that follows it most, score)}, from `Swaps` or its frame `follows`.

    score   how far it is on the way from chance (0) to certainty (1): (follows - chance) / (1 - chance). Not the ratio
            to chance, by which no factor of two values could be found
    least   a block with a lower score is left out. With 1000 pairs chance alone scores 0.1 less than once in a thousand
            factors of two values, and hardly ever with more values

    One factor may be found for several blocks, if each has a say in it.
    """
    frame = follows.follows if isinstance(follows, Swaps) else follows
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"blocks are named by what swap_matrix found, not by {type(frame).__name__}")
    scores = _above_chance(frame)
    best = {block: (row.idxmax(), float(row.max())) for block, row in scores.iterrows()}
    return {block: (factor, score) for block, (factor, score) in best.items() if score >= least}


def name_blocks(stats: Sequence[dict], swaps: Swaps | pd.DataFrame) -> list[dict]:
    """Block statistics (`block_stats`, `run.stats`) with `factor` and `correlation` where they had none.

    The correlation of a block named here is its score by `found`, 0 ... 1 above chance. Panels print names from 0.3 on.
    Blocks with a factor of their own (scalars) keep it. The statistics given are left as they are.
    """
    names = found(swaps)
    rows = []
    for stat in stats:
        factor, score = names.get(stat["name"], (None, None))
        new = {} if stat.get("factor") or factor is None else {"factor": factor, "correlation": score}
        rows.append({**stat, **new})
    return rows


def accuracy_ceilings(space: FactorSpace, factors: Tensor | None = None) -> dict[str, float]:
    """{factor: the highest accuracy of MIX's classifier for a block that carries this factor and nothing else}.

    The classifier is to say whether a block of x3 came from x1 or x2. Where the two share the factor's value, with
    probability c = sum_k p_k^2, the picture does not tell and half of the guesses are right, so at most 1 - c/2 of all:
    0.75 for two equally likely values, 0.95 for ten. (Our derivation, not the paper's.) An accuracy above it says that
    the block carries more than this factor.

    factors  values (n, K) as they come, for the p_k of each factor; without them all grid values are equally likely.
             Real and cyclic factors count by their grid

    Raises ValueError for factors of another shape or range, and for none.
    """
    if not isinstance(space, FactorSpace):
        raise ValueError(f"ceilings are those of a FactorSpace, data.space, not of {type(space).__name__}")
    if factors is None:
        share = [1 / size for size in space.sizes]
    else:
        factors = space.check(factors)
        if not len(factors):
            raise ValueError("there are no factors to count: give at least one row")
        share = _share_a_value(space.to_grid(factors).cpu())
    return {name: 1 - float(c) / 2 for name, c in zip(space.names, share)}


def round_trip(model, data, n: int = 500, seed: int = 0) -> pd.Series:
    """How far each inferred block comes back from a mixed picture: ||Enc(x3)^i - f^i_src|| over n mixes, by block.

    x3 is decoded from a code whose blocks come from one or the other of two pictures, each by the toss of a coin; src
    is the one it came from. Mean distance over the typical distance between the two pictures' blocks: 0 comes back as
    it went in, 1 is as far off as another picture's. A block in which all pictures agree is NaN. Blocks that no encoder
    reads are left out and named in `attrs`.

    Raises ValueError for models that cannot encode.
    """
    check_model(model, data, factors=False)
    if not models.can_encode(model):
        raise ValueError(f"{type(model).__name__} has no encoder, so nothing comes back from its pictures")
    rng, data = torch.Generator().manual_seed(whole("seed", seed, least=0)), data.to("cpu")
    off, apart = {}, {}
    for start in range(0, whole("n", n), CHUNK):
        count = min(CHUNK, n - start)
        a, b = (models.encode(model, data.sample(count, rng)["x"]) for _ in range(2))
        mask = torch.rand(count, len(model.codes), generator=rng) < 0.5  # 1: from a
        mixed = model.codes.mix(a, b, mask)
        if not mixed.isfinite().all():
            raise ValueError("the model's codes hold NaN or infinite numbers: its weights are broken")
        back = models.encode(model, models.decode(model, mixed).clamp(0, 1))
        for block in model.codes:
            if block.inferred:
                off[block.name] = off.get(block.name, 0) + _distance(block.read(back), block.read(mixed))
                apart[block.name] = apart.get(block.name, 0) + _distance(block.read(a), block.read(b))
    series = pd.Series(
        {name: off[name] / apart[name] if apart[name] > 0 else np.nan for name in off}, name="round trip"
    )
    series.attrs = {"left_out": {block.name: "not inferred" for block in model.codes if not block.inferred}}
    return series


def _distance(a: Tensor, b: Tensor) -> float:
    """The L2 distance between values (n, *shape), summed over the rows."""
    return float((a - b).flatten(1).norm(dim=1).sum())
