"""What the parts of direction_parts.py share: generators, instruments, trajectories, trainings that are kept.

`where` says which generator: {"model": "oracle", ...} with the arguments of `OracleGenerator`, or {"model": "gan"}, the
shipped BigGAN, whose instrument is the shipped segmenter of scenes. `learning` are settings of `learn`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor

try:
    from evidence import figures
except ImportError:  # as a script: the folder of this file is on the path
    import figures

from disentkit import judging, methods, segmenter, workbench
from disentkit.methods.directions import learn
from disentkit.methods.factor_model import Trajectories, explained, fit_direction
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.steered import Steered
from disentkit.metrics.instruments import NAMES, ExactMask, Saliency, Segmented

evidence = figures.evidence
SHIPPED = evidence.ROOT / "data"
GAN, FOUND = "runs/biggan-scenes-course-s0", "runs/directions-scenes-course-s0"  # the generator and its trajectories
CODES = 1000  # seed of the codes that are measured; none of them was followed
PAIRS = (("x", "zoom"), ("y", "brightness"))  # factors that are learned in one call


# ---- generators and instruments


def generator(where: dict):
    """The model that is steered."""
    options = {key: value for key, value in where.items() if key != "model"}
    return OracleGenerator(**options) if where["model"] == "oracle" else workbench.open_run(SHIPPED / GAN).model


def instruments(model, judged: bool = False) -> dict:
    """All that can read the model's pictures, the most exact first; with a judge the segmenter also reads its factors.

    Of the oracle's pictures the segmenter of scenes has never seen one.
    """
    size = model.image_shape[-1]
    masks = segmenter.open_segmenter(SHIPPED / f"judges/scenes-{size}-segmenter")
    judge = judging.open_judge(SHIPPED / f"judges/scenes-{size}") if judged else None
    found = {"exact": ExactMask(model)} if callable(getattr(model, "mask", None)) else {}
    return found | {"segmenter": Segmented(masks, judge), "saliency": Saliency()}


def instrument(model, judged: bool = False):
    """The most exact one; `judged` also reads what lies in no mask: on the oracle from the code."""
    if callable(getattr(model, "mask", None)):
        return Everything(model) if judged else ExactMask(model)
    return instruments(model, judged)["segmenter"]


class Everything(ExactMask):
    """Reads also the oracle's other factors, from the code."""

    names = (*NAMES, *OracleGenerator.factors[len(NAMES) :])

    def __call__(self, images: Tensor, codes: Tensor | None = None) -> Tensor:
        others = self.model.factor_values(self.model.codes.check(codes))[:, len(NAMES) :]
        return torch.cat([super().__call__(images, codes), others], dim=1)


def learned(model, names, learning: dict, loss="filtered") -> tuple[dict[str, Trajectories], float, float]:
    """({factor: trajectories}, seconds of the CPU, seconds of the clock)."""
    clocks = time.process_time, time.perf_counter
    begun = [clock() for clock in clocks]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* trajectories for .* latent dimensions")  # few are meant
        found = learn(model, names, loss=loss, bar=False, **learning).trajectories
    return found, *(clock() - start for clock, start in zip(clocks, begun))


def oracle_trajectories(home: Path, where: dict, names, learning: dict) -> tuple[dict[str, Trajectories], float, float]:
    """`learned` on the oracle, kept in `home`: several parts fit the same trajectories."""
    files = figures.files_behind("methods/directions.py", "methods/oracle.py")
    asked = [evidence.code((evidence.ROOT / "disentkit" / file).read_text()) for file in files]
    asked = hashlib.sha256(repr((asked, sorted(where.items()), names, sorted(learning.items()))).encode()).hexdigest()
    place = home / "trajectories" / f"{asked[:12]}.pt"
    if not place.exists():
        found, *seconds = learned(generator(where), names, learning)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(f".{os.getpid()}")
        torch.save(({name: vars(each) for name, each in found.items()}, *seconds), part)
        part.replace(place)
    found, *seconds = torch.load(place)
    return {name: Trajectories(**each) for name, each in found.items()}, *seconds


def trajectories(home: Path, where: dict, learning: dict) -> dict[str, Trajectories]:
    """Those of all four factors: the shipped ones of the GAN, the kept ones of the oracle."""
    if where["model"] == "gan":
        return workbench.open_run(SHIPPED / FOUND).model.trajectories
    found: dict[str, Trajectories] = {}
    for pair in PAIRS:
        found |= oracle_trajectories(home, where, pair, learning)[0]
    return found


def steered(home: Path, where: dict, learning: dict) -> Steered:
    """The generator with a direction for each factor, fitted as `Directions` does."""
    return Steered(generator(where), [fit_direction(each) for each in trajectories(home, where, learning).values()])


def ours(home: Path, where: dict, name: str, learning: dict):
    """(the direction of one factor, the factor's share of the seconds that its learning took)."""
    if where["model"] == "gan":
        run = workbench.open_run(SHIPPED / FOUND)
        return run.model.directions[name], run.card["seconds"] / len(run.model.directions)
    (pair,) = (pair for pair in PAIRS if name in pair)
    found, seconds, _ = oracle_trajectories(home, where, pair, learning)
    return fit_direction(found[name]), seconds / len(pair)


def halves(found: Trajectories) -> tuple[Trajectories, Trajectories]:
    n = found.z0.shape[0]
    return found.subset(torch.arange(0, n, 2)), found.subset(torch.arange(1, n, 2))


def held_out(found: Trajectories, **how) -> float:
    """R2 of the pairs of one half by a direction fitted to the other, the mean of both ways round."""
    a, b = halves(found)
    return (explained(fit_direction(a, **how), b) + explained(fit_direction(b, **how), a)) / 2


# ---- trainings


def trained(home: Path, method: str, data: str, preset: str, seed: int, name: str, data_options: dict, changes: dict):
    """A run, opened where it is finished, else trained."""
    os.environ["DISENTKIT_HOME"] = str(home / "trained" / training_version(method, data, preset, data_options["size"]))
    options = {"device": "cpu", "threads": 1, "bar": False, "live": False, "data_options": data_options}
    run = workbench.load_or_train(method, data=data, preset=preset, seed=seed, name=name, **options, **changes)
    if run.card["stopped"] == "interrupted":
        raise KeyboardInterrupt
    return run


@functools.cache
def training_version(method: str, data: str, preset: str, size: int) -> str:
    """Twelve hex digits for the code and the preset that a training depends on."""
    module = methods.METHODS[method][0].removeprefix("disentkit.").replace(".", "/") + ".py"
    files = figures.files_behind(module, f"data/{data}.py")
    return evidence.version(files, workbench.settings_of(method, data, preset, changes={"size": size}))


def horizon_options(rho: float) -> dict:
    """Options of the scenes that a GAN with a planted horizon is trained on."""
    return {"size": 32} | ({"rho": rho} if rho else {})
