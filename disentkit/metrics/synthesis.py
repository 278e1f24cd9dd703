"""Zero-shot synthesis: a picture never seen, put together from providers of its attributes, beside the true one.

    code = [block 1 of provider 1, ..., block m of provider m]          picture = Dec(code)

The target is a tuple of attributes that the training law holds out; each provider comes from the training law and
shares exactly its own attribute with the target, so nothing but the right block can bring it. After the paper's measure
(Ge et al., ICLR 2021); that the targets are held out is ours. Any model does that has a block named after each
attribute.

PSNR is in decibels for pictures in [0, 1], -10 log10 of the mean squared error of one picture, averaged over pictures:
by Jensen's inequality at least the PSNR of the mean error. A picture with no error at all would be infinitely good, so
it counts `CAP`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from disentkit import models
from disentkit.data.base import ArrayData, Data
from disentkit.data.combinations import unseen
from disentkit.data.groups import Groups, Partners
from disentkit.metrics.arrays import whole
from disentkit.metrics.subsets import check_model

CAP = 60.0  # dB, what a mean squared error of 1e-6 and less counts: a tenth of the smallest step of 8 bits
CHUNK = 50  # targets at a time; with five providers of 64x64 pixels in colour 12 MB
KEPT = 16  # targets whose pictures are kept, for grids


@dataclass(frozen=True)
class Measured:
    """What came out for n targets of one law.

    mses, psnrs  of each synthesis, (n,)
    copies       {attribute: the mean PSNR of its provider, taken as it is for the synthesis}
    rebuilt      the mean PSNR of Dec(Enc(true picture)): what the code can hold, however well it is put together
    targets      the first KEPT tuples (k, m), as values
    providers    their providers (k, m, C, H, W), syntheses (k, C, H, W) and truths (k, C, H, W)
    """

    mses: Tensor
    psnrs: Tensor
    copies: dict[str, float]
    rebuilt: float
    targets: Tensor
    providers: Tensor
    syntheses: Tensor
    truths: Tensor

    @property
    def mse(self) -> float:
        """The mean squared error, averaged over pictures."""
        return float(self.mses.mean())

    @property
    def psnr(self) -> float:
        """The PSNR in dB, averaged over pictures."""
        return float(self.psnrs.mean())

    @property
    def best_provider(self) -> str:
        """The attribute whose provider is the best copy."""
        return max(self.copies, key=self.copies.get)

    @property
    def best_copy(self) -> float:
        """The mean PSNR in dB of copying that provider: the number to beat."""
        return self.copies[self.best_provider]


@dataclass(frozen=True)
class Synthesis(Measured):
    """What `zero_shot` found: that of the held-out targets, and beside it

    seen      the same for targets that the training law draws; where it is much better, the model knows combinations
    settings  targets, seed, carrier
    note      what to know when reading the numbers
    """

    seen: Measured
    settings: dict
    note: str

    def table(self) -> pd.DataFrame:
        """Mean PSNR in dB, and in the first row the mean error: rows of what, columns "held out" and "seen"."""
        columns = {"held out": self, "seen": self.seen}
        rows = {name: {"MSE": m.mse, "synthesis": m.psnr, "rebuilt": m.rebuilt}
                | {f"copy of the {attribute} provider": value for attribute, value in m.copies.items()}
                for name, m in columns.items()}  # fmt: skip
        return pd.DataFrame(rows)


def synthesise(model, providers: Tensor, attributes: Sequence[str], carrier: str | None = None) -> Tensor:
    """Pictures (n, C, H, W) whose block of attribute j comes from providers[:, j], of providers (n, m, C, H, W).

    attributes  names of m blocks, in the order of the providers
    carrier     the attribute from whose provider everything else comes: the blocks that are no attribute, such as the
                picture that StarGAN paints over; by default the first. Where every block is an attribute, no matter

    Raises ValueError for a model without an encoder or without one of these blocks, an unknown carrier, and providers
    of another shape.
    """
    attributes = list(attributes)
    first = check_blocks(model, attributes, carrier)
    if not hasattr(providers, "ndim") or providers.ndim != 5 or providers.shape[1] != len(attributes):
        shape = tuple(providers.shape) if hasattr(providers, "shape") else type(providers).__name__
        raise ValueError(f"providers are (n, {len(attributes)}, C, H, W), one per attribute, not {shape}")
    pictures = []
    for part in torch.as_tensor(providers).split(CHUNK):
        codes = models.encode(model, part.flatten(0, 1)).reshape(*part.shape[:2], -1)  # (n, m, D)
        code = codes[:, first]
        for j, name in enumerate(attributes):
            code = model.codes.swap(code, codes[:, j], name)
        if not code.isfinite().all():
            raise ValueError("the model's codes hold NaN or infinite numbers: its weights are broken")
        pictures.append(models.decode(model, code).clamp(0, 1))
        if not pictures[-1].isfinite().all():
            raise ValueError("the model's pictures hold NaN or infinite numbers: its weights are broken")
    return torch.cat(pictures)


def check_blocks(model, attributes: Sequence[str], carrier: str | None = None) -> int:
    """Raise ValueError where `model` cannot take each attribute from a provider of its own; the carrier's place."""
    if not models.can_encode(model):
        raise ValueError(f"{type(model).__name__} has no encoder, so no block can come from a provider")
    if not attributes or len(set(attributes)) < len(attributes):
        raise ValueError(f"give at least one attribute and each attribute once, not {list(attributes)}")
    for name in attributes:
        if name not in model.codes.names:
            known = ", ".join(model.codes.names)
            raise ValueError(f"no block is named after attribute '{name}'; this code has {known}")
        if not model.codes[name].inferred:
            raise ValueError(f"no encoder reads block '{name}', so no provider can give it")
    if carrier is not None and carrier not in attributes:
        raise ValueError(f"the carrier is one of {', '.join(attributes)}, not {carrier!r}")
    return attributes.index(carrier) if carrier else 0


def zero_shot(
    model, data: Data, target: Data | None = None, n: int = 500, carrier: str | None = None, seed: int = 0
) -> Synthesis:
    """Synthesise n targets that the law of `data` holds out, each from one provider per attribute, see above.

    data     the training data: every provider comes from it
    target   data whose law draws the targets, or for stored pictures the held-out ones; by default
             `combinations.unseen(data)`. Stored targets are different pictures, so there are at most as many as stored
    carrier  see `synthesise`

    The truth is rendered, or for stored pictures the stored one. `seen` repeats it for n targets from `data` itself.
    Targets that lack a provider for some attribute are left out, and counted in the note.

    Raises ValueError for data without factors, nothing held out, a target of other factors, targets that all lack a
    provider, and as `synthesise`.
    """
    check_model(model, data)
    names = list(data.space.names)
    place = check_blocks(model, names, carrier)
    n, rng = whole("n", n), torch.Generator().manual_seed(whole("seed", seed, least=0))
    data, target = sources(data, target)
    partners = Partners(data, reads=())
    new, known = (_measure(model, law, data, partners, n, names[place], rng) for law in (target, data))
    counts = [len(found.mses) for found in (new, known)]
    note = (
        f"{counts[0]} draws of what the training data '{data.name}' hold out and {counts[1]} of what they have; each "
        "provider is from the training data and shares exactly its own attribute with the target"
    )
    lost = [(min(n, len(law)) if isinstance(law, ArrayData) else n) - c for law, c in zip((target, data), counts)]
    if any(lost):
        note += f"; {lost[0]} and {lost[1]} more were left out, as for some attribute there is no such picture"
    settings = {"targets": counts[0], "seen": counts[1], "seed": seed, "carrier": names[place]}
    return Synthesis(**vars(new), seen=known, settings=settings, note=note)


def sources(data: Data, target: Data | None) -> tuple[Data, Data]:
    """(training data, what the targets come from), on the CPU, out of the wrapper that makes groups.

    Raises ValueError where there are no targets, or they have other factors or another shape.
    """
    data, target = (part.data if isinstance(part, Groups) else part for part in (data, target))
    target = _target_of(data, target)
    return data.to("cpu"), target.to("cpu")


def _target_of(data: Data, target: Data | None) -> Data:
    if target is None:
        if isinstance(data, ArrayData):
            raise ValueError(
                f"'{data.name}' holds stored pictures, and no law says which are held out: give those as target="
            )
        return unseen(data)
    if not isinstance(target, Data):
        raise ValueError(f"targets are drawn from a data set, not from {type(target).__name__}")
    if target.space != data.space or tuple(target.image_shape) != tuple(data.image_shape):
        raise ValueError(
            f"the targets are {target.space} {tuple(target.image_shape)}, the providers {data.space} "
            f"{tuple(data.image_shape)}: both must be alike"
        )
    return target


def psnr(mse: Tensor) -> Tensor:
    """Decibels of mean squared errors of pictures in [0, 1], at most CAP."""
    return (-10 * mse.double().log10()).clamp(max=CAP)


def partners_of(partners: Partners, targets: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(kept (k,) places, tuples (k, m, m)): a provider per attribute for each of the targets (n, m) that has them all.

    Raises ValueError where none has.
    """
    kept, tuples = [], []
    for place, target in enumerate(targets.split(1)):  # one by one, as a single target without would stop them all
        try:
            tuples.append(partners.partners(target, rng))
        except ValueError as e:
            lacking = e
        else:
            kept.append(place)
    if not kept:
        raise lacking
    return torch.tensor(kept), torch.cat(tuples)


def pictures_of(data: Data, tuples: Tensor, rng: torch.Generator) -> Tensor:
    """Pictures (k, m, C, H, W) of tuples (k, m, m): rendered, or of the stored ones with this tuple any one."""
    values = tuples.flatten(0, 1)
    if isinstance(data, ArrayData):
        stored, asked = (data.space.flat_of(data.space.to_grid(part)) for part in (data.factors, values))
        order = stored.argsort(stable=True)
        first, last = (torch.searchsorted(stored[order], asked, right=right) for right in (False, True))
        place = first + (torch.rand(len(asked), generator=rng) * (last - first)).long()
        x = data.rows(order[torch.minimum(place, last - 1)])["x"]
    else:
        x = data.render(values)
    return x.unflatten(0, tuples.shape[:2])


def _measure(model, law: Data, data: Data, partners: Partners, n: int, carrier: str, rng: torch.Generator) -> Measured:
    """Synthesise targets drawn from `law`, of providers drawn from `data`."""
    names, m = list(data.space.names), len(data.space)
    targets, truths = _targets(law, n, rng)
    places, tuples = partners_of(partners, targets, rng)
    errors, copies, rebuilt, kept = [], [], [], []
    for some, part in zip(places.split(CHUNK), tuples.split(CHUNK)):
        truth, providers = truths(some), pictures_of(data, part, rng)
        made = synthesise(model, providers, names, carrier)
        errors.append(_errors(made, truth))
        copies.append(_errors(providers.flatten(0, 1), truth.repeat_interleave(m, 0)).reshape(-1, m))
        rebuilt.append(_errors(models.decode(model, models.encode(model, truth)).clamp(0, 1), truth))
        kept = kept or [targets[some][:KEPT], *(x[:KEPT] for x in (providers, made, truth))]
    mses, of_copies = torch.cat(errors), psnr(torch.cat(copies)).mean(0).tolist()
    return Measured(mses, psnr(mses), dict(zip(names, of_copies)), float(psnr(torch.cat(rebuilt)).mean()), *kept)


def _targets(law: Data, n: int, rng: torch.Generator) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Tuples (n, m) and what gives the pictures of some of them: of stored ones n different, or all there are."""
    if isinstance(law, ArrayData):
        rows = torch.randperm(len(law), generator=rng)[:n]
        return law.factors[rows], lambda some: law.rows(rows[some])["x"]
    values = law.law.draw(law.space, n, rng)
    return values, lambda some: law.render(values[some])


def _errors(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared error (n,) of each of n pictures (n, C, H, W), float64."""
    return (a.double() - b.double()).square().flatten(1).mean(1)
