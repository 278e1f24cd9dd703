"""What `workbench.score` measures of a model where the factors are known.

A kind of block, a kind of measure; a model that has the first two kinds of blocks gets both.

    columns      scalar and one-hot blocks: FactorVAE score, beta-VAE score, MIG, and with `more` those of MORE
    wide blocks  and maps, of which no number has a meaning of its own: what can be read from each block (linear and
                 nearest-neighbour probes), what follows it when it is swapped (a judge reads the picture), and with
                 `more` retrieval
    attributes   where a block is named after each factor, as a method does that learned from labels: co-prediction, and
                 zero-shot synthesis where the data hold combinations out. No judge is needed: the true picture is known
    directions   of a generator: what is asked for against what an instrument measures, and what else moves
    mixing       of a model in stages with masks, FineGAN and MixNMatch: which source picture gives what, where the
                 masks lie, what the codes stand for
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from disentkit import judging, metrics, models
from disentkit.codes import CodeSpace
from disentkit.data.combinations import every, unseen
from disentkit.data.views import boxes_iou
from disentkit.errors import UserError
from disentkit.metrics.mixes import attributes, draws, in_feature_mode, independent
from disentkit.metrics.swaps import judge_accuracy
from disentkit.probes import can_score

MORE = ("dci", "sap", "modularity", "explicitness", "irs")  # of columns, when asked

# Pictures for each score of mixing: a minute in all on one core, at 64 pixels. MIXES and DRAWN serve several scores, of
# DRAWN the Frechet distance takes as many as COMPARED, the size of its other samples.
MIXES, DRAWN, COMPARED = 400, 1200, 500
CODES, POSES, RECOMBINED, TURNED, MASKS, BOXES = 1500, 900, 200, 150, 200, 500

# What is asked of a run that is shipped. Ours: the papers have no such numbers.
GATES = {
    "mask IoU": 0.7,
    "mixing accuracy of background": 0.6,
    "mixing accuracy of shape": 0.6,
    "mixing accuracy of texture": 0.4,
    "NMI of E_p and shape": 0.6,
    "mask IoU, feature mode above code mode": 0.1,
}


def wide(codes: CodeSpace) -> list[str]:
    """Names of the inferred blocks that are no column: of several numbers, or a map."""
    return [block.name for block in codes if block.inferred and not block.scalar and block.kind != "onehot"]


def measure(model, data, *, more: bool = False, history: pd.DataFrame | None = None, **options) -> dict:
    """The scores of a model as plain numbers for a card; `options` go to the FactorVAE score.

    {"factorvae_score", "betavae_score", "mig"} for columns, {"blocks": `measure_blocks`} for wide blocks; more: those
    of MORE, and {"retrieval": {block: {factor: mAP}}}. `measure_attributes` alone where blocks are attributes,
    `measure_mixing` where a model has stages. history: of the training, for the gauge of living blocks. Raises
    UserError for data without factors.
    """
    if callable(getattr(model, "stages", None)):
        return measure_mixing(model, data)
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


def measure_mixing(model, data, code=None) -> dict:
    """How a model of stages mixes, as plain numbers rounded to four digits; what it cannot do is left out.

    model  in code mode or in feature mode, with an encoder or without
    code   of a model in feature mode, the one in code mode that it stands on; by default its own `base`

    boxes              where a segmenter finds the boxes of the training: their mean overlap with the true ones
    judge, segmenter   {factor: share of right answers}, {"iou", ...}: how far the others can be trusted, by their cards
    mask_iou           {"generated", "parent", "code", "feature", "area", "bimodality"}, see `metrics.mask_iou`
    frechet            {"free", "free_floor", "tied", "tied_floor"}, see `metrics.frechet`; a floor is what true
                       pictures have to each other. Free ones are held against pictures with independent factors, tied
                       ones against those of the training
    drawn_clusters     {"nmi", "chance", "accuracy", "majority", "used"}, see `metrics.drawn_clusters`
    pose_invariance    {attribute: {"same", "chance"}}
    transfer           {"matrix", "chance", "right", "diagonal", "off_diagonal", "all_right"}, see `metrics.transfer`
    self_recombination {attribute: share}
    code_clusters      as drawn_clusters, of the encoders
    pose_r2            {target: R^2}
    texture_distance   {"mixed", "other", "same", "apart", "failures"}
    gates              {gate: {"asked", "measured", "met"}} of those that apply

    Raises UserError for data that no renderer draws, or without these factors. Judge and segmenter are trained now, two
    minutes, where the data have none yet.
    """
    from disentkit import segmenter

    try:
        free = independent(data)
    except ValueError as e:
        raise UserError(str(e)) from None
    judge, finder = judging.judge_of(free), segmenter.segmenter_of(free)
    known = getattr(judge, "card", {}).get("accuracy") or judge_accuracy(judge, free)
    found = {"judge": {name: _digits(known[name]) for name in attributes(free)}}
    found["segmenter"] = dict(getattr(finder, "card", {}).get("errors", {}))
    if getattr(data, "boxes", "exact") == "segmenter":
        found["boxes"] = _digits(boxes_iou(data, BOXES, torch.Generator().manual_seed(0)))
    if draws(model):
        found |= _of_drawn(model, data, free, judge, finder)
    else:
        base = code if code is not None else getattr(model, "base", None)
        ious = metrics.mask_iou(model, free, n=MASKS)
        if base is not None:
            ious["code"] = metrics.mask_iou(base, free, n=MASKS)["code"]
        found["mask_iou"] = _plain(ious)
    if models.can_encode(model):
        found |= _of_encoded(model, free, judge, finder)
    found["settings"] = {
        "mixes": MIXES, "drawn": DRAWN, "compared": COMPARED, "codes": CODES, "poses": POSES,
        "recombined": RECOMBINED, "turned": TURNED, "masks": MASKS,
    }  # fmt: skip
    return found | {"gates": gates(found)}


def _of_drawn(model, data, free, judge, finder) -> dict:
    """What needs no encoder."""
    made = metrics.draw_pictures(model, DRAWN)
    distances = {
        "free": metrics.frechet(model, free, judge, COMPARED, made=made),
        "free_floor": metrics.frechet(free, free, judge, COMPARED),
    }
    if callable(getattr(model, "tied", None)):
        trained = getattr(data, "data", data)
        distances["tied"] = metrics.frechet(model, trained, judge, COMPARED, "tied")
        distances["tied_floor"] = metrics.frechet(trained, trained, judge, COMPARED)
    return {
        "mask_iou": _plain(metrics.mask_iou(model, free, finder, n=MASKS, made=made)),
        "frechet": _plain(distances),
        "drawn_clusters": _clusters(metrics.drawn_clusters(model, free, judge, made=made)),
        "pose_invariance": _plain(metrics.pose_invariance(model, free, judge, TURNED)),
    }


def _of_encoded(model, free, judge, finder) -> dict:
    """What begins with true pictures."""
    mixed = metrics.mix_pictures(model, free, MIXES)
    moved = metrics.transfer(model, free, judge, made=mixed)
    names = ("matrix", "chance", "right", "diagonal", "off_diagonal", "all_right")
    found = {
        "transfer": {name: _plain(getattr(moved, name)) for name in names},
        "self_recombination": _plain(metrics.self_recombination(model, free, judge, RECOMBINED)),
        "code_clusters": _clusters(metrics.code_clusters(model, free, CODES)),
        "texture_distance": _plain(metrics.texture_distance(model, free, finder, made=mixed)),
    }
    return found if in_feature_mode(model) else found | {"pose_r2": _plain(metrics.pose_r2(model, free, POSES))}


def gates(found: dict) -> dict[str, dict]:
    """{gate: {"asked", "measured", "met"}} of what `measure_mixing` found; gates that say nothing here are left out."""
    ious, right = found["mask_iou"], found.get("transfer", {}).get("diagonal", {})
    measured = {
        "mask IoU": ious.get("generated"),
        **{f"mixing accuracy of {name}": value for name, value in right.items()},
        "NMI of E_p and shape": found.get("code_clusters", {}).get("nmi", {}).get("p", {}).get("shape"),
    }
    if None not in (ious.get("code"), ious.get("feature")):
        measured["mask IoU, feature mode above code mode"] = _digits(ious["feature"] - ious["code"])
    return {
        name: {"asked": asked, "measured": measured[name], "met": measured[name] >= asked}
        for name, asked in GATES.items()
        if measured.get(name) is not None
    }


def _clusters(found: metrics.Clusters) -> dict:
    return {name: _plain(getattr(found, name)) for name in ("nmi", "chance", "accuracy", "majority", "used")}


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


def _plain(value):
    """Frames by row, series and dicts, as dicts of plain numbers with four digits."""
    if isinstance(value, pd.DataFrame):
        return {str(name): _plain(row) for name, row in value.iterrows()}
    if isinstance(value, pd.Series | Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return value if isinstance(value, str | int) else _digits(value)


def _digits(value: float) -> float | None:
    """Four digits after the point; None for what is not defined, since JSON has no NaN."""
    return None if math.isnan(value) else round(float(value), 4)
