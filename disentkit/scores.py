"""What `workbench.score` measures of a model where the factors are known.

A kind of block, a kind of measure; a model that has the first two kinds of blocks gets both.

    columns      scalar and one-hot blocks: FactorVAE score, beta-VAE score, MIG, and with `more` those of MORE
    wide blocks  and maps, of which no number has a meaning of its own: what can be read from each block (linear and
                 nearest-neighbour probes), what follows it when it is swapped (a judge reads the picture), and with
                 `more` retrieval
    attributes   where a block is named after each factor, as a method does that learned from labels: co-prediction, and
                 zero-shot synthesis where the data hold combinations out. No judge is needed: the true picture is known
    directions   of a generator: what is asked for against what an instrument measures, and what else moves
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from disentkit import judging, metrics, models
from disentkit.codes import CodeSpace
from disentkit.data.combinations import every, unseen
from disentkit.errors import UserError
from disentkit.probes import can_score

MORE = ("dci", "sap", "modularity", "explicitness", "irs")  # of columns, when asked


def wide(codes: CodeSpace) -> list[str]:
    """Names of the inferred blocks that are no column: of several numbers, or a map."""
    return [block.name for block in codes if block.inferred and not block.scalar and block.kind != "onehot"]


def measure(model, data, *, more: bool = False, history: pd.DataFrame | None = None, **options) -> dict:
    """The scores of a model as plain numbers for a card; `options` go to the FactorVAE score.

    {"factorvae_score", "betavae_score", "mig"} for columns, {"blocks": `measure_blocks`} for wide blocks; more: those
    of MORE, and {"retrieval": {block: {factor: mAP}}}. `measure_attributes` alone where blocks are attributes. history:
    of the training, for the gauge of living blocks. Raises UserError for data without factors.
    """
    if isinstance(getattr(model, "directions", None), Mapping):
        return measure_directions(model, data)
    if data.space is None:
        raise UserError(f"data set '{data.name}' has no factors, so there is nothing to score")
    if not models.can_encode(model):
        raise UserError("no code can be read from a picture here, so nothing is scored: train directions on this run")
    if by_attribute(model, data):
        return measure_attributes(model, data)
    found, has_wide = {}, bool(wide(model.codes))
    has_columns = any(block.inferred and block.scalar for block in model.codes) and can_score(data)
    if has_columns or not has_wide:
        found = {
            "factorvae_score": metrics.factorvae_score(model, data, **options),
            "betavae_score": metrics.betavae_score(model, data),
            "mig": metrics.mig(model, data),
        }
        if more:
            found |= {name: getattr(metrics, name)(model, data) for name in MORE}
    if has_wide:
        found["blocks"] = measure_blocks(model, data, history)
    if has_wide and more:
        found["retrieval"] = _table(metrics.retrieval(model, data))
    return found


def measure_blocks(model, data, history: pd.DataFrame | None = None) -> dict:
    """What the block metrics find, of all blocks, rounded to four digits.

    linear, nearest  {block: {factor: balanced accuracy}}, "all" and "chance" among the blocks
    follows, keeps   {block: {factor: share}}, see `metrics.swap_matrix`
    judge            {factor: its share of right answers on true pictures}
    best             {factor: {"block", "follows", "chance"}}, the block that the factor follows most
    followed         the factors whose best block beats twice chance
    alive, accuracy  blocks alive, and {block: accuracy} of the classifier at the end of the training, where it has one

    Raises ValueError for a model without an encoder. The judge is trained now, about a minute, where the data have none
    yet.
    """
    found = {kind: _table(metrics.block_probes(model, data, kind=kind)) for kind in ("linear", "nearest")}
    swaps = metrics.swap_matrix(model, data, judging.judge_of(data))
    follows = swaps.follows.drop(index=["all", "chance"])
    best = {
        name: {"block": column.idxmax(), "follows": _digits(column.max()), "chance": _digits(chance)}
        for (name, column), chance in zip(follows.items(), swaps.follows.loc["chance"])
    }
    return found | {
        "follows": _table(swaps.follows), "keeps": _table(swaps.keeps), "judge": _row(swaps.judge), "best": best,
        "followed": swaps.followed(), **gauge(model.codes, history), "settings": swaps.settings,
        "note": swaps.note,
    }  # fmt: skip


def by_attribute(model, data) -> bool:
    """Whether the model has an inferred block for each attribute of the data, by name, and more than columns."""
    blocks = {block.name: block for block in model.codes if block.inferred}
    return bool(wide(model.codes)) and models.can_encode(model) and set(data.space.names) <= set(blocks)


def measure_attributes(model, data) -> dict:
    """Co-prediction and zero-shot synthesis as plain numbers, rounded to four digits.

    co_prediction  accuracy {block: {attribute: share}}, "chance" among the blocks; diagonal, off_diagonal, leak
    zero_shot      psnr (dB) and mse, best_copy (dB) and best_provider, rebuilt, seen (dB), copies; left out where the
                   data hold nothing out
    """
    # Of all combinations: where some are missing, clean blocks predict each other.
    read = metrics.co_prediction(model, every(data))
    numbers = {name: _digits(getattr(read, name)) for name in ("diagonal", "off_diagonal", "leak")}
    found = {"co_prediction": {"accuracy": _table(read.accuracy), **numbers, "settings": read.settings}}
    try:
        target = unseen(data)
    except ValueError:  # nothing is held out
        return found
    made = metrics.zero_shot(model, data, target)
    numbers = {name: _digits(getattr(made, name)) for name in ("psnr", "mse", "best_copy", "rebuilt")}
    more = {"best_provider": made.best_provider, "seen": _digits(made.seen.psnr)}
    copies = {name: _digits(value) for name, value in made.copies.items()}
    return found | {"zero_shot": {**numbers, **more, "copies": copies, "settings": made.settings, "note": made.note}}


def measure_directions(model, data) -> dict:
    """How well each direction steers, as plain numbers, rounded to four digits.

    directions  {name: {"spearman", "slope", "r2", "std", "failures"}} of measured on requested values, for 200 codes
                and what the prior makes likely; failures is the share of pictures in which nothing was found. {} for a
                factor that the instrument does not measure
    leakage     {name: {measured factor: standard deviation along the path over that of samples}}
    instrument  its name
    """
    instrument, found = instrument_of(data), {}
    for name in model.directions:
        steered = metrics.steer(model, name, instrument) if name in instrument.names else None
        numbers = ("spearman", "slope", "r2")
        found[name] = {n: _digits(getattr(steered, n)()) for n in numbers} if steered else {}
        if steered:
            found[name] |= {"std": _digits(steered.spread()), "failures": _digits(float(steered.failures().mean()))}
    leaks = metrics.leakage(model, list(found), instrument)
    return {"directions": found, "leakage": _table(leaks), "instrument": type(instrument).__name__}


def instrument_of(data):
    """What measures objects in such pictures: a threshold where they are light on dark in one channel, a segmenter and
    a judge where the data know their masks (trained now, two minutes, where there are none yet), else saliency."""
    from disentkit.metrics import instruments
    from disentkit.segmenter import segmenter_of

    dark = data.to("cpu").sample(100, torch.Generator().manual_seed(0))["x"].mean() < 0.5
    if data.image_shape[0] == 1 and dark:
        return instruments.Threshold()
    if hasattr(data, "mask"):
        return instruments.Segmented(segmenter_of(data), judging.judge_of(data))
    return instruments.Saliency()


def gauge(codes: CodeSpace, history: pd.DataFrame | None) -> dict:
    """`alive` and {block: `accuracy`}, means over the last tenth of a training with a classifier of blocks, else {}."""
    columns = [f"accuracy_{i}" for i in range(len(codes))]
    if history is None or not {"step", "alive", *columns} <= set(history):
        return {}
    last = history[history["step"] > 0.9 * history["step"].max()]
    accuracy = last[columns].mean().set_axis(codes.names)
    return {"alive": _digits(last["alive"].mean()), "accuracy": _row(accuracy)}


def named(stats: Sequence[dict], codes: CodeSpace, scores: dict) -> list[dict]:
    """Block statistics (`run.stats`) in which wide blocks are called after the factor that follows them most.

    `correlation` is then how far it does, from chance (0) to certainty (1), see `metrics.name_blocks`. Columns keep the
    factor that they have.
    """
    if "blocks" not in scores:
        return list(stats)
    columns = {block.name for block in codes.scalars if block.inferred}
    rows = [row if row["name"] in columns else {**row, "factor": None, "correlation": None} for row in stats]
    return metrics.name_blocks(rows, pd.DataFrame.from_dict(scores["blocks"]["follows"], orient="index"))


def _table(frame: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    return {str(name): _row(row) for name, row in frame.iterrows()}


def _row(row: pd.Series) -> dict[str, float | None]:
    return {str(name): _digits(value) for name, value in row.items()}


def _digits(value: float) -> float | None:
    """Four digits after the point; None for what is not defined, since JSON has no NaN."""
    return None if math.isnan(value) else round(float(value), 4)
