"""The evidence behind the numbers: `make evidence` trains over three seeds, scores, and writes tables with cards.

    python tests/evidence/run.py [--preset quick] [--seeds 0 1 2] [--home DIR] [--out DIR]

`factorvae_quick.csv` has one row per seed, `factorvae_quick.json` says how it came about and whether the gates hold.
It takes about three minutes a seed on two CPU cores and goes on where it stopped: trainings are kept in
data/local/evidence under the version of the code that made them, and only missing ones are made.

A table belongs to a *method version*: a hash over the code it depends on and the preset's settings. Comments,
docstrings, layout and the texts of errors do not count, so prose may be improved without training again.
tests/test_evidence.py checks that the committed table is of the present version.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import datetime
import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from disentkit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "data" / "results"
METHOD, DATA = "factorvae", "dsprites"
SEEDS = (0, 1, 2)
# What a trained model depends on, and what its scores depend on besides. `fit` is left out: the numbers of a short
# training are written down in tests/test_evidence.py, and fail there when it changes what it computes.
TRAINED_BY = (
    "methods/factorvae.py", "methods/vae.py", "nets/factorvae.py", "models.py", "data/dsprites.py", "data/base.py",
    "data/factors.py", "data/laws.py",
)  # fmt: skip
SCORED_BY = ("metrics/arrays.py", "metrics/factorvae.py", "metrics/betavae.py", "metrics/mig.py")
PLACES = ("x", "y", "scale")  # the factors that quick must find, each in one latent
LEAST_SCORE, LEAST_RANK = 0.55, 0.9  # perfect x, y and scale alone give a score of exactly 0.60
TABLES = {"PRESETS", "QUICK", "SMOKE", "PICTURES"}  # names of presets in the methods' files
POINTS = 10_000  # pictures for the rank correlations


# ---- the method version


def code(source: str):
    """The code of a Python file as nested tuples, without what changes no number.

    Left out: comments, docstrings, layout, the texts of errors, and `TABLES` (the settings in use are hashed apart).
    """
    return _plain(ast.parse(source))


def _plain(node):
    if isinstance(node, ast.Raise):
        return "raise"
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind"))
        # Empty fields go, since Python's versions differ in them.
        return type(node).__name__, *((name, value) for name, value in fields if value not in (None, (), "None"))
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not _is_prose(item))
    return repr(node)


def _is_prose(node) -> bool:
    """A docstring, or a table of presets."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id in TABLES for target in targets)


def version(files: tuple[str, ...], settings, without=()) -> str:
    """Twelve hex digits for the code of `files` (under disentkit/) and the settings but those named `without`."""
    parts = [code((ROOT / "disentkit" / file).read_text()) for file in files]
    return hashlib.sha256(repr((parts, settings_hash(settings, without))).encode()).hexdigest()[:12]


def method_version(preset: str) -> str:
    """The version that a table of this preset belongs to."""
    return version(TRAINED_BY + SCORED_BY, settings_of(preset))


def settings_of(preset: str):
    from disentkit.methods import settings_for

    return settings_for(METHOD, DATA, preset)


def settings_hash(settings, without=()) -> str:
    """Twelve hex digits for a settings dataclass, but for the settings named `without`."""
    values = {name: value for name, value in dataclasses.asdict(settings).items() if name not in without}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


# ---- training and measuring


def trained(preset: str, seed: int):
    """The finished run of this preset and seed under the present home: opened if it is there, else trained."""
    from disentkit import runs, workbench

    settings = dataclasses.asdict(settings_of(preset))
    for folder in runs.folders():
        card = runs.read_card(folder)
        if (card["method"], card["seed"], card["settings"], card["stopped"]) == (METHOD, seed, settings, "done"):
            if folder.parent != runs.SHIPPED:
                print(f"seed {seed}: {folder.name} is there", flush=True)
                return workbench.open_run(folder)
    run = workbench.train(METHOD, data=DATA, preset=preset, seed=seed, live=False)
    if run.card["stopped"] == "interrupted":
        raise KeyboardInterrupt
    return run


def rank_correlations(model, data, points: int = POINTS, seed: int = 0) -> dict[str, tuple[float, str]]:
    """For x, y and scale: the largest |Spearman's rho| with any living latent's posterior mean, and its name."""
    import torch
    from scipy.stats import spearmanr

    from disentkit import models
    from disentkit.codes import KL_DEAD, gaussian_kl

    batch = data.sample(points, torch.Generator().manual_seed(seed))
    mu, logvar = models.posterior(model, batch["x"])  # (points, d) each
    alive = (gaussian_kl(mu, logvar).mean(0) >= KL_DEAD).tolist()
    found = {}
    for name in PLACES:
        values = batch["factors"][:, data.space.index(name)].numpy()
        rho = [abs(float(spearmanr(z, values).statistic)) if lives else 0.0 for z, lives in zip(mu.T.numpy(), alive)]
        best = max(range(len(rho)), key=rho.__getitem__)
        found[name] = rho[best], model.codes.names[best]
    return found


def row(run, preset: str, votes: int) -> dict:
    """The table's row of a run."""
    from disentkit import metrics

    data, card = run.data(), run.card
    score = metrics.factorvae_score(run.model, data, votes=votes)
    found = {
        "seed": card["seed"], "method_version": method_version(preset), "settings": settings_hash(run.settings),
        "pruned": score["pruned"], "unpruned": score["unpruned"], "factors": len(score["factors"]),
        "surviving": score["surviving"], "dims": score["dims"], "mig": metrics.mig(run.model, data)["mig"],
        "betavae": metrics.betavae_score(run.model, data, votes=votes)["score"],
    }  # fmt: skip
    for name, (rho, latent) in rank_correlations(run.model, data).items():
        found |= {f"rank_{name}": rho, f"latent_{name}": latent}
    return found | {key: card[key] for key in ("steps", "seconds", "device", "threads", "precision")}


# ---- the table and its card


def gates(table: pd.DataFrame) -> list[dict]:
    """What must hold of the means over the seeds: {"gate", "needed", "value", "holds"} each."""
    pruned = float(table["pruned"].mean())
    holds = pruned >= LEAST_SCORE and bool((table["factors"] == 5).all())
    found = [("pruned FactorVAE score, all five factors, at least", LEAST_SCORE, pruned, holds)]
    for name in PLACES:
        rho = float(table[f"rank_{name}"].mean())
        found.append((f"rank correlation of {name} with its best latent, above", LEAST_RANK, rho, rho > LEAST_RANK))
    return [{"gate": g, "needed": n, "value": round(v, 4), "holds": h} for g, n, v, h in found]


def card_of(table: pd.DataFrame, preset: str, command: str, votes: int) -> dict:
    """How the table came about, and whether its gates hold."""
    import psutil

    from disentkit import workbench

    numbers = ["pruned", "unpruned", "surviving", "mig", "betavae", *(f"rank_{name}" for name in PLACES), "seconds"]
    held = gates(table)
    return {
        "what": f"FactorVAE at '{preset}' on {DATA}, one row per seed", "method_version": method_version(preset),
        "preset": preset, "settings": dataclasses.asdict(settings_of(preset)), "seeds": table["seed"].tolist(),
        "votes": votes, "means": {name: round(float(table[name].mean()), 4) for name in numbers},
        "gates": held, "all_hold": all(gate["holds"] for gate in held),
        "versions": workbench.versions(), "devices": sorted(set(table["device"])),
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "command": command, "date": datetime.date.today().isoformat(),
    }  # fmt: skip


@contextmanager
def home_put_back():
    """Leave DISENTKIT_HOME as it was before the block."""
    before = os.environ.get("DISENTKIT_HOME")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("DISENTKIT_HOME", None)
        else:
            os.environ["DISENTKIT_HOME"] = before


# ---- what the scripts of this folder share of a command line


def asked(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The arguments, with --preset and --out; data/results is kept for `quick`."""
    parser.add_argument("--preset", default="quick", help="%(default)s; smoke only tries this script out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the tables go (data/results)")
    args = parser.parse_args(argv)
    if args.preset != "quick" and args.out == RESULTS:
        parser.error("data/results is for the preset quick; give --out")
    return args


def ended(work: Callable[[], None]) -> int:
    """Do the work and put home back: 0, 2 after a mistake, which is told in a line, 130 interrupted."""
    try:
        with home_put_back():
            work()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where the gates hold (smoke has none), 1 where they do not, 2 after a mistake, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--home", type=Path, help="where trainings are kept (data/local/evidence)")
    args = asked(parser, argv)

    home = args.home or ROOT / "data" / "local" / "evidence"
    votes = 20 if args.preset == "smoke" else 800
    rows: list[dict] = []

    def train_and_measure() -> None:
        os.environ["DISENTKIT_HOME"] = str(home / version(TRAINED_BY, settings_of(args.preset)))
        rows.extend(row(trained(args.preset, seed), args.preset, votes) for seed in args.seeds)

    if code := ended(train_and_measure):
        return code
    table = pd.DataFrame(rows)
    command = f"python tests/evidence/run.py --preset {args.preset} --seeds {' '.join(map(str, args.seeds))}"
    card = card_of(table, args.preset, command, votes)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / f"factorvae_{args.preset}.csv", index=False, float_format="%.4f")
    text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    (args.out / f"factorvae_{args.preset}.json").write_text(text)

    print(table.drop(columns=["method_version", "settings", "device"]).to_string(index=False, float_format="%.3f"))
    if args.preset == "smoke":
        print("gates are not judged at smoke")
        return 0
    for gate in card["gates"]:
        print(f"{'holds' if gate['holds'] else 'FAILS'}  {gate['gate']} {gate['needed']}: {gate['value']:.3f}")
    return 0 if card["all_hold"] else 1


if __name__ == "__main__":
    sys.exit(main())
