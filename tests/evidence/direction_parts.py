"""What directions.py measures: a function for each kind of measurement, which returns {table: its rows}.

Every row is of one thread. `where` and `learning` are explained in direction_tools.py, the columns in directions.py.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

try:
    from evidence import direction_tools as tools
except ImportError:  # as a script: the folder of this file is on the path
    import direction_tools as tools

from disentkit import judging, models
from disentkit.codes import KL_DEAD, gaussian_kl
from disentkit.methods.factor_model import Trajectories, explained, fit_direction
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.reconstruction import Features, Filtered, lpips_error
from disentkit.methods.steered import Steered, make_direction, pictures, steerable
from disentkit.methods.transforms import GREY, transform
from disentkit.methods.walks import (
    closed_form_direction,
    follows,
    ganspace_best,
    linear_walk,
    random_direction,
    sefa_best,
)
from disentkit.metrics.instruments import NAMES, ExactMask, Threshold, agreement
from disentkit.metrics.reach import fine_energy, reach
from disentkit.metrics.readings import deviation, draw, measure
from disentkit.metrics.steering import compare, distribution, leakage, profile, steer, truth

CODES = tools.CODES
CHOICE = 2000  # seed of the codes by which a row of SeFa's or GANSpace's is chosen
BLUR = 3 / 128  # of the width: by this filtered error all reconstructions are compared
READ = 2000  # pictures that a VAE encodes
ZONES = {"within 2": (-2.0, -1.0, 0.0, 1.0, 2.0), "beyond 3": (-5.0, -4.0, -3.5, 3.5, 4.0, 5.0)}  # of alpha

generator, instrument, learned, held_out = tools.generator, tools.instrument, tools.learned, tools.held_out


def follows_request(path) -> dict:
    """Spearman, slope, R2 and mean standard deviation of what was measured, for the direction's own factor."""
    return {"spearman": path.spearman(), "slope": path.slope(), "r2": path.r2(), "std": path.spread()}


def true_cosine(model, direction, name: str) -> dict:
    """The cosine with the true direction of `name`; NaN where nobody knows it."""
    return {"cos": truth(direction, model.u(name)) if isinstance(model, OracleGenerator) else float("nan")}


# ---- part oracle


def oracle_rows(home: Path, where: dict, variant: str, names: list[str], learning: dict, n: int) -> dict:
    model = generator(where)
    found, seconds, wall = tools.oracle_trajectories(home, where, tuple(names), learning)
    rows = []
    for name, each in found.items():
        direction = fit_direction(each)
        path = steer(Steered(model, [direction]), name, ExactMask(model), n=n, seed=CODES)
        row = {"variant": variant, "seed": where["seed"], "factor": name, **true_cosine(model, direction, name)}
        row |= {"cos_horizon": true_cosine(model, direction, "horizon")["cos"], **follows_request(path)}
        rows.append(row | {"held_out": held_out(each), "seconds": seconds, "wall": wall})
    return {"oracle": rows}


# ---- part ablation


def ablation_rows(
    home: Path, where: dict, variant: str, changes: dict, seen_by: str, refits: dict, names: list[str], learning: dict,
    n: int,
) -> dict:  # fmt: skip
    """A learning with some `changes`; seen_by "ssim", "judge" or "lpips" in place of the filter.

    refits  {label: how} of further fits to the same trajectories
    """
    model = generator(where)
    loss = lpips_error() if seen_by == "lpips" else seen_by or "filtered"
    if seen_by == "judge":
        loss = Features(judging.open_judge(tools.SHIPPED / f"judges/scenes-{model.image_shape[-1]}"))
    asked = learning | changes
    found, seconds, _ = learned(model, names, asked, loss)
    reader, rows = instrument(model), []
    for name, each in found.items():
        far = reached(model, each)
        for label, how in ({variant: "mean"} | refits).items():
            direction = fit_direction(each, how=how)
            path = steer(Steered(model, [direction]), name, reader, n=n, seed=CODES)
            row = {"model": where["model"], "variant": label, "factor": name, **true_cosine(model, direction, name)}
            rows.append(row | follows_request(path) | far | {"steps": asked["steps"], "seconds": seconds})
    return {"ablation": rows}


def reached(model, found: Trajectories) -> dict:
    """What became of the pictures at the farthest targets, both sides: see `directions_ablation.csv`."""
    whole = found.errors[[0, -1]].isfinite().all(0)
    found = found.subset(whole)
    t = found.t[[0, -1]].repeat_interleave(len(found.z0))
    z0, z = found.z0.repeat(2, 1), torch.cat([found.z[0], found.z[-1]])
    moves = steerable(model.codes)
    start, x = pictures(model, z0), pictures(model, z)
    target, mask = transform(found.name)(start, t)
    a, b = (fine_energy(GREY + mask * (p - GREY)).mean() for p in (x, target))
    row = {"length": float(z[:, moves].norm(dim=1).mean()), "limit": float(moves.sum()) ** 0.5}
    row |= {"energy": a / b, "energy_start": fine_energy(x).mean() / fine_energy(start).mean()}
    texture = float("nan")
    if isinstance(model, OracleGenerator):
        k = model.factors.index("texture")
        texture = float((model.factor_values(z) - model.factor_values(z0))[:, k].mean())
    error = Filtered(BLUR * model.image_shape[-1])(x, target, mask).mean()
    return row | {"texture": texture, "error": float(error)}


# ---- part pieces


def pieces_rows(home: Path, where: dict, name: str, pieces: list[int], learning: dict, n: int) -> dict:
    model, found, rows = generator(where), tools.trajectories(home, where, learning)[name], []
    reader = instrument(model)
    for count in pieces:
        direction = fit_direction(found, pieces=count)
        path = steer(Steered(model, [direction]), name, reader, n=n, seed=CODES)
        row = {"model": where["model"], "factor": name, "pieces": count, "r2_fit": explained(direction, found)}
        rows.append(
            row | {"held_out": held_out(found, pieces=count), **follows_request(path), "as_asked": as_asked(path)}
        )
    return {"pieces": rows}


def as_asked(path) -> float:
    """R2 of measured by requested + a constant: the line's slope is not fitted, so g has to be right."""
    asked = np.broadcast_to(path.requested[:, None], path.of().shape)
    known = np.isfinite(path.of())
    missed = (path.of() - asked)[known]
    return float(1 - missed.var() / path.of()[known].var())


def quality_rows(home: Path, where: dict, name: str, how: str, shares: list[float], learning: dict, n: int) -> dict:
    model, rows = generator(where), []
    fitted, others = tools.halves(tools.trajectories(home, where, learning)[name])
    reader = instrument(model)
    for share in shares:
        some = max(2, round(share * len(fitted.z0)))
        direction = fit_direction(fitted.subset(torch.arange(some)), how=how)
        path = steer(Steered(model, [direction]), name, reader, n=n, seed=CODES)
        row = {"model": where["model"], "factor": name, "how": how, "share": share, "trajectories": some}
        row |= {"held_out": explained(direction, others), "spearman": path.spearman(), "r2": path.r2()}
        rows.append(row | true_cosine(model, direction, name))
    return {"quality": rows}


def held_out_tells(table: pd.DataFrame) -> dict:
    """{model: rank correlations of R2 on held-out pairs with Spearman and, on the oracle, with cos}, over all fits."""
    ranks = {model: rows[["held_out", "spearman", "cos"]].corr("spearman")["held_out"].drop("held_out").dropna()
             for model, rows in table.groupby("model")}  # fmt: skip
    return {model: found.round(4).to_dict() for model, found in ranks.items()}


# ---- part classes


def classes_rows(home: Path, where: dict, names: list[str], learning: dict, n: int) -> dict:
    model = generator(where)
    labels = model.codes["class"].labels
    found = {"pooled": learned(model, names, learning)[0]}
    found |= {label: learned(model, names, learning | {"label": i})[0] for i, label in enumerate(labels, 1)}
    drawn, reader = model.prior(n, torch.Generator().manual_seed(CODES)), instrument(model)
    rows, cosines = [], []
    for name in names:
        directions = {learned_on: fit_direction(each[name]) for learned_on, each in found.items()}
        for (learned_on, direction), (i, shown) in itertools.product(directions.items(), enumerate(labels)):
            codes = model.codes["class"].write(drawn, torch.eye(len(labels))[i])
            path = steer(Steered(model, [direction]), name, reader, codes=codes)
            rows.append({"factor": name, "learned": learned_on, "shown": shown} | follows_request(path))
        for a, b in itertools.combinations(directions, 2):
            cosines.append({"factor": name, "first": a, "second": b, "cosine": truth(directions[a], directions[b].u)})
    return {"classes": rows, "cosines": cosines}


# ---- part betas


def betas_rows(
    home: Path, beta: float, seed: int, preset: str, data_options: dict, names: list[str], learning: dict, n: int
) -> dict:
    run = tools.trained(
        home, "betavae", "dsprites", preset, seed, f"betavae-dsprites-b{beta:g}", data_options, {"beta": beta}
    )
    model, x = run.model, run.data().sample(READ, torch.Generator().manual_seed(0))["x"]
    kl = gaussian_kl(*models.posterior(model, x)).mean(0)
    known = {"kl": float(kl.sum()), "living": int((kl >= KL_DEAD).sum())}
    known["recon"] = float((models.decode(model, models.encode(model, x)) - x).square().mean())
    found, seconds, _ = learned(model, names, learning)
    rows, curves = [], []
    natural = deviation(measure(model, draw(model, n, CODES), Threshold()).T)  # of each factor
    for name, each in found.items():
        row = {"beta": beta, "seed": seed, "factor": name, "natural": natural[NAMES.index(name)]}
        try:
            direction = fit_direction(each)
        except ValueError:  # where every latent has collapsed nothing moves
            rows.append(row | known | {"seconds": seconds})
            continue
        path = steer(Steered(model, [direction]), name, Threshold(), n=n, seed=CODES)
        row |= {**follows_request(path), "change": path.change(), "failures": float(path.failures().mean())}
        rows.append(row | {"cos_best": max(map(abs, direction.u))} | known | {"seconds": seconds})
        curves += [{"beta": beta, "seed": seed} | point for point in curve(direction, path)]
    return {"betas": rows, "betas_curves": curves}


def curve(direction, path) -> list[dict]:
    """The paper's figure: median and standard deviation of what was measured at each request."""
    alphas = direction.inverse(torch.tensor(path.requested, dtype=torch.float32)).tolist()
    points = zip(alphas, path.requested, path.median(), path.std())
    return [{"factor": path.direction, "alpha": a, "t": t, "median": m, "std": s} for a, t, m, s in points]


# ---- part baselines


def baselines_rows(
    home: Path, where: dict, name: str, methods: list[str], learning: dict, walking: dict, n: int, chosen: int
) -> dict:
    """Directions of one factor by several methods, all with g(s) = s: asked for the same <z,u>."""
    model, rows = generator(where), []
    ours, seconds = tools.ours(home, where, name, learning)
    codes = model.prior(chosen, torch.Generator().manual_seed(CHOICE))
    score = follows(model, instrument(model), name, codes)
    ways = {
        "ours": lambda: torch.tensor(ours.u),
        "linear walk": lambda: linear_walk(model, name, **walking),
        "closed form": lambda: closed_form_direction(model, name),
        "SeFa": lambda: sefa_best(model, score, k=4),
        "GANSpace": lambda: ganspace_best(model, score),
        **{f"random {seed}": lambda seed=seed: random_direction(model, seed) for seed in range(3)},
    }
    for method in methods:
        begun = time.process_time()
        direction = make_direction(name, ways[method]())
        taken = seconds if method == "ours" else time.process_time() - begun
        found = compare(model, {method: direction}, tools.instrument(model, judged=True), name, n=n, seed=CODES)
        row = {"model": where["model"], "factor": name, "method": method, **found.loc[method].to_dict()}
        rows.append(row | true_cosine(model, direction, name) | {"seconds": taken})
    return {"baselines": rows}


def ours_rows(home: Path, where: dict, learning: dict, n: int) -> dict:
    """Our directions through their own g: curves, and what leaks into which factor beside a random direction's."""
    model, which = tools.steered(home, where, learning), {"model": where["model"]}
    curves = []
    for direction in model.directions.values():
        path = steer(model, direction, instrument(model.base), n=n, seed=CODES)
        curves += [which | point for point in curve(direction, path)]
    every = model.directions | {"random": make_direction("random", random_direction(model))}
    leaks = leakage(model, every, instrument(model.base, judged=True), n=n, seed=CODES)
    long = leaks.rename_axis("direction").reset_index().melt("direction", var_name="factor", value_name="leak")
    return {"curves": curves, "leakage": [which | row for row in long.to_dict("records")]}


# ---- part reach


def reach_rows(home: Path, where: dict, name: str, learning: dict, n: int) -> dict:
    model, rows, carries, apart = tools.steered(home, where, learning), [], [], []
    direction, readers = model.directions[name], tools.instruments(model.base)
    for label, reader in readers.items():
        known = {"model": where["model"], "direction": name, "instrument": label}
        found = reach(model, direction, reader, n=n, seed=CODES)
        rows += [known | row for row in found.frame().reset_index().to_dict("records")]
        carries.append(known | found.row())
    codes = model.prior(n, torch.Generator().manual_seed(CODES))
    for zone, alphas in ZONES.items():
        there = torch.cat([direction.write(codes, direction.g(torch.tensor(a))) for a in alphas])
        found = agreement(readers, models.decode(model, there), there)
        known = {"model": where["model"], "direction": name, "zone": zone}
        apart += [known | row for row in found.to_dict("records")]
    return {"reach": rows, "carries": carries, "agreement": apart}


# ---- part distribution


def distribution_rows(home: Path, where: dict, name: str, learning: dict, n: int) -> dict:
    """t uniform over g(-2) ... g(2), and over its upper half only."""
    model, rows = tools.steered(home, where, learning), []
    direction = model.directions[name]
    for asked, low in (("zone", direction.low), ("half", 0.0)):
        found = distribution(model, direction, instrument(model.base), low, direction.high, n=n, seed=CODES)
        row = {"model": where["model"], "factor": name, "asked": asked, "low": low, "high": direction.high}
        rows.append(row | {"before": found.before, "after": found.after, "offset": found.offset})
    return {"distribution": rows}


# ---- parts levels and horizon


def levels_rows(home: Path, where: dict, learning: dict) -> dict:
    model = tools.steered(home, where, learning)
    return {"levels": level_rows(tools.GAN.split("/")[1], model)}


def level_rows(run: str, model: Steered) -> list[dict]:
    """The share of |u|^2 in each block of the generator's code, for each direction."""
    return [
        {"run": run, "factor": name, "block": block, "share": share}
        for name in model.directions
        for block, share in profile(model, name).items()
    ]


def horizon_rows(home: Path, rho: float, preset: str, changes: dict, names: list[str], learning: dict, n: int) -> dict:
    """A GAN of 32 pixels whose pictures' horizon goes with y, or does not."""
    name, options = f"biggan-scenes-rho{10 * rho:g}", tools.horizon_options(rho)
    run = tools.trained(home, "biggan", "scenes", preset, 0, name, options, changes)
    model = Steered(run.model, [fit_direction(each) for each in learned(run.model, names, learning)[0].values()])
    reader = instrument(run.model, judged=True)
    path = steer(model, "y", reader, n=n, seed=CODES)
    y, horizon = (path.start[:, path.names.index(factor)] for factor in ("y", "horizon"))
    known = np.isfinite(y) & np.isfinite(horizon)
    random = leakage(model, make_direction("y", random_direction(model)), reader, n=n, seed=CODES).loc["y", "horizon"]
    row = {"run": name, "rho": rho, "correlation": np.corrcoef(y[known], horizon[known])[0, 1]}
    row |= {"spearman": path.spearman(), "slope": path.slope(), "leak": path.leaks()["horizon"], "leak_random": random}
    return {"horizon": [row | {"horizon": path.slope("horizon") / path.slope()}], "levels": level_rows(name, model)}
