"""Mixed pictures, and what a judge sees in them: what the scores of FineGAN and MixNMatch share.

A picker is a group of blocks that travel together (`Block.picker`). A mix takes each picker's blocks from a picture of
its own; the judge, who was trained on true pictures and never met the model, reads what came out. No score is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from disentkit import models
from disentkit.codes import CodeSpace
from disentkit.data.base import Renderer
from disentkit.data.laws import Real
from disentkit.metrics.arrays import whole
from disentkit.metrics.instruments import expectation
from disentkit.metrics.subsets import check_model

CATEGORIES = ("background", "shape", "texture")
GIVEN_BY = {name: name for name in CATEGORIES} | {"rotation": "pose"}  # {attribute: the picker that should give it}
PIXELS = 2**16  # coded at a time: 16 pictures of 64x64. On a CPU what is in the works then stays near; on one core 128
#                 pictures at a time took twice as long. And codes that hold a feature map stay small
MASKS = {"parent": "parent_mask", "child": "child_mask"}  # {what: its key among a model's stages}


@dataclass(frozen=True)
class Mixed:
    """n mixes: values (n, P, K) of the source of each of P pickers, and the mixed pictures x (n, C, H, W)."""

    values: Tensor
    x: Tensor


@dataclass(frozen=True)
class Drawn:
    """n codes (n, D) that a model drew, their pictures x (n, C, H, W), and their `masks`, {"parent", "child"}: each
    (n, 1, H, W) float16 in [0, 1], where the model composes its pictures."""

    codes: Tensor
    x: Tensor
    masks: dict[str, Tensor] = field(default_factory=dict)


def independent(data) -> Renderer:
    """The renderer behind the data, on the CPU, with all factors independent.

    Raises ValueError for data that are not rendered and for data without the factors CATEGORIES.
    """
    inner = getattr(data, "data", data)  # without what wraps it
    if not isinstance(inner, Renderer):
        name = f"'{data.name}'" if hasattr(data, "name") else type(data).__name__
        raise ValueError(f"mixing is measured on true pictures of any combination of factors, and {name} draws none")
    for name in CATEGORIES:
        if name not in inner.space.names or inner.space[name].kind != "category":
            raise ValueError(
                f"mixing is read by {', '.join(CATEGORIES)}; data set '{data.name}' has no category '{name}', only "
                + ", ".join(inner.space.names)
            )
    inner = inner.independent() if callable(getattr(inner, "independent", None)) else inner.with_law(Real())
    return inner.to("cpu")


def attributes(data: Renderer) -> list[str]:
    """What the judge is asked for: CATEGORIES, and the rotation where the data have one."""
    return [name for name in GIVEN_BY if name in data.space.names]


def pickers(codes: CodeSpace) -> dict[str, list[str]]:
    """{picker: names of its blocks}, in the order of the blocks; a block without one is a picker by itself."""
    found: dict[str, list[str]] = {}
    for block in codes:
        found.setdefault(block.picker or block.name, []).append(block.name)
    return found


def different(data: Renderer, n: int, count: int, rng: torch.Generator) -> Tensor:
    """Values (n, count, K) by the data's law; the `count` pictures of a row differ in each of CATEGORIES.

    Raises ValueError for a category with fewer values.
    """
    values = data.law.draw(data.space, n * count, rng).reshape(n, count, -1)
    for name in CATEGORIES:
        size = len(data.space[name])
        if size < count:
            raise ValueError(f"'{name}' has {size} values, so {count} sources cannot all differ in it")
        values[:, :, data.space.index(name)] = torch.rand(n, size, generator=rng).argsort(1)[:, :count].float()
    return values


def mix_pictures(model, data, n: int = 500, seed: int = 0) -> Mixed:
    """Mix n times: picker j takes its blocks from the j-th of as many different pictures as there are pickers.

    data   a renderer; its factors are drawn independently here, whatever its law

    Raises ValueError for models without an encoder, for data that are not rendered or have fewer values of a category
    than there are pickers, and for codes or pictures that are not finite.
    """
    data = independent(data)
    check_encoder(model, data)
    groups, rng, values, x = list(pickers(model.codes).values()), generator(seed), [], []
    for count in portions(model, n):
        some = different(data, count, len(groups), rng)
        mixed = None
        for j, names in enumerate(groups):  # one source's codes at a time: a feature code has K s s numbers
            codes = models.encode(model, data.render(some[:, j]))
            mixed = codes if mixed is None else model.codes.swap(mixed, codes, names)
        values.append(some)
        x.append(pictures(model, mixed))
    return Mixed(torch.cat(values), torch.cat(x))


def draw_pictures(model, n: int = 500, seed: int = 0, draw: str = "prior") -> Drawn:
    """n pictures of a model's own codes: from `model.prior`, or from `model.tied`, where blocks belong together as in
    training.

    Raises ValueError for a model without such draws, one in feature mode among them (the maps that it could draw are
    its base's), and for pictures that are not finite.
    """
    rng, codes, x, masks = generator(seed), [], [], {name: [] for name in MASKS}
    staged = callable(getattr(model, "stages", None))
    for count in portions(model, n):
        codes.append(draw_codes(model, count, rng, draw))
        if staged:
            made = stages(model, codes[-1])
            x.append(made["child"])
            for name, key in MASKS.items():
                masks[name].append(made[key].half())
        else:
            x.append(pictures(model, codes[-1]))
    masks = {name: torch.cat(parts) for name, parts in masks.items()} if staged else {}
    return Drawn(torch.cat(codes), torch.cat(x), masks)


def draw_codes(model, n: int, rng: torch.Generator, draw: str = "prior") -> Tensor:
    """n codes (n, D) on the CPU, see `draw_pictures`."""
    if draw not in ("prior", "tied"):
        raise ValueError(f"codes are drawn by 'prior' or 'tied', not {draw!r}")
    law = getattr(model, draw, None)
    if not callable(law) or not draws(model):
        raise ValueError(f"{type(model).__name__} draws no codes by '{draw}': give a model in code mode")
    return law(n, rng).cpu()


def stages(model, codes: Tensor) -> dict[str, Tensor]:
    """All stages of codes (n, D) on the CPU, as `model.stages`; ValueError where they are not finite."""
    with models.frozen(model):
        made = {name: x.float().cpu() for name, x in model.stages(codes.to(models.device_of(model))).items()}
    if not all(x.isfinite().all() for x in made.values()):
        raise ValueError("the model's pictures hold NaN or infinite numbers: its weights are broken")
    return made


def portions(model, n: int) -> Iterator[int]:
    """How many pictures at a time, n in all."""
    most = max(1, PIXELS // (model.image_shape[-1] * model.image_shape[-2]))
    for start in range(0, whole("n", n, least=2), most):
        yield min(most, n - start)


def draws(model) -> bool:
    """Whether a model makes pictures of codes of its own: it has a prior, and no map among its blocks."""
    return callable(getattr(model, "prior", None)) and not in_feature_mode(model)


def in_feature_mode(model) -> bool:
    """Whether a feature map is among the blocks of a model's code."""
    return any(block.kind == "map" for block in model.codes)


def pictures(model, codes: Tensor) -> Tensor:
    """Pictures (n, C, H, W) in [0, 1]; ValueError where codes or pictures are not finite."""
    if not codes.isfinite().all():
        raise ValueError("the model's codes hold NaN or infinite numbers: its weights are broken")
    x = models.decode(model, codes).clamp(0, 1)
    if not x.isfinite().all():
        raise ValueError("the model's pictures hold NaN or infinite numbers: its weights are broken")
    return x


def read(judge, x: Tensor, names: Sequence[str]) -> Tensor:
    """What a judge sees of the named factors, (n, names): a category's number, of a real one the expected value."""
    device, rows = models.device_of(judge), []
    with models.frozen(judge):
        for part in x.split(256):
            logits = dict(zip(judge.space.names, judge.logits(part.to(device))))
            rows.append(torch.stack([expectation(judge.space[name], logits[name].cpu()) for name in names], dim=1))
    return torch.cat(rows)


def agreement(found: Tensor, true: Tensor, category: bool) -> float:
    """Of two columns (n,): the share of equal numbers, or the correlation; 0 where one of the two does not vary."""
    if category:
        return float((found == true).double().mean())
    a, b = (column.double() - column.double().mean() for column in (found, true))
    both = float(a.square().sum() * b.square().sum()) ** 0.5
    return float(a @ b) / both if both > 1e-9 else 0.0


def check_segmenter(segmenter) -> None:
    """Raise ValueError where `segmenter` finds no masks."""
    if isinstance(segmenter, type) or not callable(getattr(segmenter, "mask", None)):
        raise ValueError(f"give segmenter.segmenter_of(data.independent()), not {type(segmenter).__name__}")


def check_masks(data) -> None:
    """Raise ValueError where nobody knows the true masks."""
    if not callable(getattr(data, "mask", None)):
        raise ValueError(f"data set '{data.name}' has no masks of its pictures")


def check_encoder(model, data) -> None:
    """Raise ValueError where there is no model, or no code can be read from a picture."""
    check_model(model, data)
    lacking = [block.name for block in model.codes if not block.inferred]
    if not models.can_encode(model) or lacking:
        what = f"no encoder for {', '.join(lacking)}" if lacking else "no encoder"
        raise ValueError(f"{type(model).__name__} has {what}, so nothing can be taken from a picture")


def check_judge(judge, data) -> None:
    """Raise ValueError where `judge` cannot say how likely each value is, or reads other factors than the data's."""
    if isinstance(judge, type) or not callable(getattr(judge, "logits", None)) or not hasattr(judge, "space"):
        raise ValueError(f"a judge reads pictures: give judging.judge_of(data), not {type(judge).__name__}")
    if judge.space != data.space:
        raise ValueError(f"this judge reads {judge.space}, data set '{data.name}' has {data.space}: take its own judge")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(whole("seed", seed, least=0))
