"""Augmentation: do synthesised pictures of missing combinations help a classifier that has to do without them?

The training law is unbalanced: half of the creatures, say, are only ever seen in two poses. A small classifier of one
attribute is trained on few pictures of that law, in four ways, and tested on combinations it never met:

    none     the real pictures alone
    classic  half of each mini-batch is worn: shifted, other brightness and contrast, a little noise, a patch erased. No
             picture is flipped, since pose is a matter of left and right
    gzs      half of each mini-batch shows missing combinations, put together by the model from providers among
             the same real pictures (`synthesis.synthesise`); the label is the provider's, who shares the attribute
    true     the ceiling: that half are true pictures of the same combinations

Same network, first weights, steps and number of pictures for all. After an experiment of the paper (GZS-Net, Ge et
al., ICLR 2021); network, sizes and the classic ways are ours.
"""

from __future__ import annotations

import math

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit import judges, machine, models
from disentkit.data.base import ArrayData, Data
from disentkit.data.groups import Partners
from disentkit.metrics.arrays import whole
from disentkit.metrics.subsets import check_model
from disentkit.metrics.synthesis import check_blocks, partners_of, pictures_of, sources, synthesise

WAYS = ("none", "classic", "gzs", "true")
STEPS, BATCH, LR = 300, 64, 2e-3  # the step size falls to zero along a cosine
TESTED = 1000  # pictures of each kind that accuracies are measured on
SIDE = 32  # pixels that the classifier sees at most; larger pictures are averaged down
DRAWS = 20_000  # from which the tuples of a law are listed
CHUNK = 250


def augmentation(
    model,
    data: Data,
    target: Data | None = None,
    attribute: str = "identity",
    n: int = 400,
    seed: int = 0,
    seeds: int = 2,
    steps: int = STEPS,
) -> pd.DataFrame:
    """Accuracy in 0 ... 1 of a classifier of `attribute` trained in each of WAYS (rows).

    data    the training data, a renderer whose law holds combinations out
    target  a renderer whose law draws the missing combinations; by default `combinations.unseen(data)`
    n       real pictures, and as many synthesised or true ones of missing combinations
    seeds   how often: each time other pictures, combinations, first weights and mini-batches, all drawn from `seed`

    Columns: "unseen", the mean over the seeds on missing combinations; "seen", on those of the training law; "unseen
    spread" and "seen spread", their standard deviations; and both for each seed, "unseen 0", "seen 0", ...

    Combinations are parted by lot: of the missing ones half are synthesised or shown and half tested, of the seen ones
    a fifth is tested. So no classifier meets a test picture in its training, nor is one a provider: these are the real
    pictures themselves. Combinations come as evenly as they can, each once before any comes again. Missing ones that
    lack a provider for some attribute are not shown, "shown" in `frame.attrs["settings"]` counts the others by seed.
    The global generator is left alone.

    The model is another matter. It was trained before, on the whole training law where nothing else was asked for: on
    more pictures than the n, those tested as "seen" among them, and on their attributes. What it learned there reaches
    a classifier through the synthesised pictures, as it would from any pretrained model. So "gzs" is what n labelled
    pictures and this model are worth, not n pictures alone; a missing combination the model has never met.

    Raises ValueError for an unknown attribute, data without factors, stored pictures, nothing held out, real pictures
    that can provide for no missing combination, and models that `zero_shot` refuses.
    """
    check_model(model, data)
    names = list(data.space.names)
    column = data.space.index(attribute)
    check_blocks(model, names)
    n, seeds, steps, seed = whole("n", n), whole("seeds", seeds), whole("steps", steps), whole("seed", seed, least=0)
    if isinstance(data, ArrayData) or isinstance(target, ArrayData):
        raise ValueError("augmentation asks for true pictures of any combination: give data that are rendered")
    data, target = sources(data, target)
    found, shown = [], []
    for number in range(seeds):
        parts = _pictures(model, data, target, n, column, torch.Generator().manual_seed(seed + number))
        shown.append(len(parts["gzs"][0]))
        found.append({way: _trained(way, parts, len(data.space[attribute]), steps, seed + number) for way in WAYS})
    each = {
        f"{kind} {i}": [run[way][kind] for way in WAYS] for i, run in enumerate(found) for kind in ("unseen", "seen")
    }
    frame = pd.DataFrame(each, index=list(WAYS))
    for place, kind in ((0, "unseen"), (2, "seen")):
        runs = frame[[f"{kind} {i}" for i in range(seeds)]]
        frame.insert(place, kind, runs.mean(axis=1))
        frame.insert(place + 1, f"{kind} spread", runs.std(axis=1, ddof=0))
    frame.attrs["settings"] = {
        "attribute": attribute, "pictures": n, "shown": shown, "tested": TESTED, "steps": steps, "batch": BATCH,
        "seeds": seeds, "seed": seed, "pixels": tuple(parts["real"][0].shape[-2:]),
        "chance": 1 / len(data.space[attribute]),
    }  # fmt: skip
    return frame


def _pictures(model, data: Data, target: Data, n: int, column: int, rng: torch.Generator) -> dict:
    """{"real", "gzs", "true", "seen", "unseen"}: pictures (n, C, h, w) with the classes (n,) of one attribute."""
    space, names = data.space, list(data.space.names)
    shown, unseen = _parted(target, 1 / 2, n, rng)
    real, seen = _parted(data, 1 / 5, n, rng)
    stored = ArrayData(torch.cat([data.render(part) for part in real.split(CHUNK)]), real, space)
    places, tuples = _providers(stored, shown, rng)
    shown, made = shown[places], []
    for part in tuples.split(CHUNK):
        made.append(_small(synthesise(model, pictures_of(stored, part, rng), names, names[column])))
    kinds = {"real": real, "true": shown, "seen": seen, "unseen": unseen}
    pictures = {kind: _rendered(data, values) for kind, values in kinds.items()}
    kinds["gzs"], pictures["gzs"] = shown, torch.cat(made)
    return {kind: (x, space.to_grid(kinds[kind])[:, column]) for kind, x in pictures.items()}


def _providers(real: ArrayData, shown: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(kept places, tuples) as `partners_of`, from the real pictures alone."""
    try:
        return partners_of(Partners(real, reads=()), shown, rng)
    except ValueError as e:
        raise ValueError(
            f"no missing combination finds a provider for every attribute among {len(real)} real pictures: give more, n"
        ) from e


def _rendered(data: Data, values: Tensor) -> Tensor:
    return torch.cat([_small(data.render(part)) for part in values.split(CHUNK)])


def _parted(data: Data, share: float, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """n tuples to train with and TESTED to test on, different tuples of the law in two parts; `share` are tested.

    Where a part has fewer tuples they come again, each as often as the others or once less. Of a large grid only those
    of DRAWS draws are looked at. Raises ValueError for a law with a single tuple.
    """
    space = data.space
    flat = space.flat_of(space.to_grid(data.law.draw(space, DRAWS, rng))).unique()
    if len(flat) < 2:
        raise ValueError("a single combination cannot be parted for training and test: hold out more")
    values = space.from_grid(space.tuple_of(flat[torch.randperm(len(flat), generator=rng)]))
    held = max(1, round(share * len(values)))
    parts = (values[held:], n), (values[:held], TESTED)
    return tuple(part[torch.arange(count) % len(part)] for part, count in parts)  # permuted already


def _small(x: Tensor) -> Tensor:
    """Pictures (n, C, H, W) averaged down to SIDE pixels at most."""
    longest = max(x.shape[-2:])
    if longest <= SIDE:
        return x
    return F.interpolate(x, [max(8, round(side * SIDE / longest)) for side in x.shape[-2:]], mode="area")


def _trained(way: str, parts: dict, values: int, steps: int, seed: int) -> dict[str, float]:
    """{"seen", "unseen"}: the accuracy of a classifier trained in one of WAYS."""
    real, labels = parts["real"]
    with machine.seeded(seed):
        net = judges.network(tuple(real.shape[1:]), 16, 64, values)
    picks, wear = (torch.Generator().manual_seed(word) for word in machine.streams(seed)[1:])
    opt, threads = models.adam(net.parameters(), LR), torch.get_num_threads()
    others, other_labels = parts[way] if way in ("gzs", "true") else parts["real"]
    try:
        torch.set_num_threads(1)  # two are slower on a busy machine, see `models.frozen`
        with torch.enable_grad():
            for step in range(steps):
                opt.param_groups[0]["lr"] = LR * (0.5 + 0.5 * math.cos(math.pi * step / steps))
                a, b = (torch.randint(len(of), (BATCH // 2,), generator=picks) for of in (real, others))
                second = worn(others[b], wear) if way == "classic" else others[b]
                logits = net(torch.cat([real[a], second]))
                loss = F.cross_entropy(logits, torch.cat([labels[a], other_labels[b]]))
                opt.zero_grad()
                loss.backward()
                opt.step()
    finally:
        torch.set_num_threads(threads)
    return {kind: _accuracy(net, *parts[kind]) for kind in ("seen", "unseen")}


def _accuracy(net: nn.Module, x: Tensor, classes: Tensor) -> float:
    with models.frozen(net):
        read = torch.cat([net(part).argmax(1) for part in x.split(CHUNK)])
    return float((read == classes).double().mean())


def worn(x: Tensor, rng: torch.Generator) -> Tensor:
    """Classic augmentation of pictures (n, C, H, W) in [0, 1], each by draws of its own; never flipped.

    Shifted by an eighth of the side at most, the edge repeated; contrast times 0.75 ... 1.25 about the picture's mean,
    brightness -0.15 ... 0.15; Gaussian noise of 0.03; a rectangle of an eighth to three eighths of either side filled
    with a grey of its own.
    """
    n, _, height, width = x.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=rng)

    lines = []
    for side in (height, width):
        shift = uniform(-side / 8, side / 8, 1).round().long()
        lines.append((torch.arange(side) + shift).clamp(0, side - 1))  # (n, side)
    rows, columns = lines
    x = x[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * uniform(0.75, 1.25, 1, 1, 1) + uniform(-0.15, 0.15, 1, 1, 1)
    x = x + 0.03 * torch.randn(x.shape, generator=rng)
    inside = []
    for side in (height, width):
        long = uniform(side / 8, 3 * side / 8, 1)
        start = uniform(0, 1, 1) * (side - long)
        at = torch.arange(side) + 0.5
        inside.append((at >= start) & (at < start + long))  # (n, side)
    patch = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]  # (n, 1, H, W)
    return torch.where(patch, uniform(0, 1, 1, 1, 1), x).clamp(0, 1)
