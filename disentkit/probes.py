"""Measures that are light enough to take while a model trains: `(model, data) -> {name: number}` each.

    workbench.train("factorvae", probes=["scores", "tc"], probe_every=1_000)       # columns of the run's history
    sweeps.sweep("factorvae", {"gamma": [10, 40]}, measures=["scores"])            # columns of the sweep's table

A measure draws from a generator of its own, with the same seed each time, so every call sees the same pictures and no
training is changed by being measured. A function of your own may stand wherever a name does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from disentkit import models
from disentkit.data.base import Data
from disentkit.errors import UserError, one_of
from disentkit.metrics.arrays import ModelSource

Measure = Callable[[models.Model, Data], dict[str, float]]
FIXED = 1_000  # pictures for the reconstruction error
SURE = 1e-6  # a decoded pixel is no nearer to 0 or 1: float32 rounds a sure one to exactly 1, whose log is infinite


def scores(model, data) -> dict[str, float]:
    """FactorVAE score (pruned and unpruned, surviving latents), beta-VAE score and MIG from 10,000 encoded pictures.

    The metrics get arrays, so rows that share a factor value come from those pictures; pruning knows the standard
    deviation, not the KL. `workbench.score` renders fresh pictures for every vote and takes 40 times as many.
    """
    from disentkit import metrics

    src = ModelSource(model, data, onehot=True)
    plain = [j for j, discrete in enumerate(src.discrete) if not discrete]
    categorical = [j for j, discrete in enumerate(src.discrete) if discrete]
    f = metrics.factorvae_score(src.codes, src.classes, categorical=categorical)
    found = {"factorvae": f["pruned"], "factorvae_unpruned": f["unpruned"], "surviving": float(f["surviving"])}
    if plain:
        found["betavae"] = metrics.betavae_score(src.codes[:, plain], src.classes)["score"]
    return found | {"mig": metrics.mig(src.codes, src.classes, categorical=categorical)["mig"]}


def recon(model, data) -> dict[str, float]:
    """`recon_fixed`: -log p(x|z), Bernoulli, summed over pixels, averaged over 1,000 fixed pictures.

    z is drawn from q(z|x) with fixed noise where the model has a posterior, as in training; elsewhere it is encode(x).
    """
    rng = torch.Generator().manual_seed(0)
    x = data.to("cpu").sample(FIXED, rng)["x"]
    if callable(getattr(model, "posterior", None)):
        mu, logvar = models.posterior(model, x)
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=rng)
    else:
        z = models.encode(model, x)
    decoded = models.decode(model, z).clamp(SURE, 1 - SURE)
    return {"recon_fixed": float(F.binary_cross_entropy(decoded, x, reduction="sum")) / FIXED}


def tc(model, data) -> dict[str, float]:
    """`tc_true` of the aggregate posterior by Monte Carlo, with `mi_true` and `dwkl_true`; see `metrics.tc`."""
    from disentkit.metrics.tc import total_correlation

    split = total_correlation(model, data)
    return {f"{term}_true": split[term] for term in ("tc", "mi", "dwkl")}


READY: dict[str, Measure] = {"scores": scores, "recon": recon, "tc": tc}


def name_of(measure: str | Measure) -> str:
    """What a card calls a measure."""
    return measure if isinstance(measure, str) else getattr(measure, "__name__", type(measure).__name__)


def chosen(measures: Sequence[str | Measure], data: Data) -> list[Measure]:
    """The functions of names; raises UserError for an unknown name and for one that `data` has no factors for."""
    if isinstance(measures, str) or callable(measures):
        measures = [measures]
    found = [m if callable(m) else READY[one_of("measure", m, READY)] for m in measures]
    if scores in found and not can_score(data):
        raise UserError(f"scores need two factors or more that vary; data set '{data.name}' has {_factors(data)}")
    return found


def can_score(data: Data) -> bool:
    """True where the data have the two varying factors that the scores need."""
    return data.space is not None and sum(len(factor) > 1 for factor in data.space) > 1


def _factors(data: Data) -> str:
    return "none" if data.space is None else f"only {', '.join(data.space.names)}"


def probe(measures: Sequence[str | Measure], data: Data) -> Callable[[object], dict[str, float]] | None:
    """A probe for `training.fit` that takes all the measures of the learner's model; None for no measure."""
    functions = chosen(measures, data)

    def measure(learner) -> dict[str, float]:
        return {name: value for function in functions for name, value in function(learner.model, data).items()}

    return measure if functions else None
