"""The measurements behind 02_mix: MIX and its variants on drawn characters, and four other methods beside them.

    python tests/evidence/mix.py [--only seeds variants] [--jobs N] [--preset quick] [--home DIR] [--out DIR]

data/results gets

    mix_quick.csv, mix_quick.json  a row per seed of MIX, and whether the gates hold
    mix_variants.csv               a row per training: reconstruction error, gauges, how many factors follow a block
    mix_blocks.csv                 a row per training, block and factor: probes, swaps, retrieval
    mix_curves.csv                 losses and gauges of MIX and its variants against steps
    mix.json                       how the last three came about

Runs and the judge are kept in data/local/evidence/mix under the version of the code that made them, so the command goes
on where it stopped. About half an hour on two CPU cores.

As in run.py a row belongs to the version of the code that made it; tests/test_mix_evidence.py compares them.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import hashlib
import json
import os
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import psutil
import torch

try:
    from evidence import figures
except ImportError:  # as a script: the folder of this file is on the path
    import figures

from disentkit import data as datasets
from disentkit import judges, judging, metrics, models, workbench
from disentkit.errors import UserError
from disentkit.members import Member, Task, train_members
from disentkit.methods import METHODS, settings_for
from disentkit.methods.mix import ALIVE
from disentkit.tables import FAILED
from disentkit.training import duration

evidence = figures.evidence
ROOT, RESULTS = evidence.ROOT, evidence.RESULTS
DATA, SEEDS = "characters", (0, 1, 2)
PARTS = ("seeds", "variants")
OTHERS = {"VAE": "vae", "beta-VAE": "betavae", "DIP-VAE-II": "dipvae2", "InfoGAN": "infogan"}  # by name in the tables
WIDTHS = (4, 64)  # of a block, beside the preset's
# What a row depends on besides the training. `judging` only trains and keeps the judge.
SCORED_BY = ("judges.py", "metrics/block_probes.py", "metrics/retrieval.py", "metrics/swaps.py")
DRAWS = {"pairs": 2000, "probed": 3000, "retrieved": 1000, "reconstructed": 1000, "changed": 250}  # pictures or pairs
POINTS = 40  # of a curve
LEAST_ALIVE, LEAST_FOLLOWED, TIMES = 3, 3, 2.0  # blocks; factors whose best block beats so many times chance
TAKEN = ("steps", "seconds", "threads", "precision", "device")  # from a run's card


# ---- what is trained


@dataclass(frozen=True)
class Trial:
    """One training: its name in the tables, its method, the settings that are not the preset's, its seed."""

    label: str
    method: str
    changes: dict = field(default_factory=dict)
    seed: int = 0

    def settings(self, preset: str):
        """The whole settings; raises UserError for a preset that the method has not."""
        return replace(settings_for(self.method, DATA, preset), **self.changes)


def variants(preset: str) -> list[Trial]:
    """MIX with something missing or of another width; those that the preset is already are left out."""
    plain = Trial("MIX", "mix").settings(preset)
    changes = {
        "no classifier": {"lam_C": 0.0},
        "no discriminator": {"lam_G": 0.0},
        "autoencoder": {"lam_M": 0.0, "lam_G": 0.0, "lam_C": 0.0, "lam_AE": plain.lam_AE or 10.0},
        "no noise": {"noise": 0.0},
    } | {f"d={d}": {"d": d} for d in WIDTHS}
    # A block that could hold the whole picture, and nothing against it.
    changes["no classifier, d=64"] = {"lam_C": 0.0, "d": 64}
    return [Trial(label, "mix", change) for label, change in changes.items() if replace(plain, **change) != plain]


def trials(preset: str, parts=PARTS) -> list[Trial]:
    """The trainings of the parts, in the order of the tables. No seed was chosen."""
    found = [Trial("MIX", "mix", seed=seed) for seed in SEEDS]
    if "variants" in parts:
        found += variants(preset) + [Trial(label, method) for label, method in OTHERS.items()]
    return found


def training_version(trial: Trial, preset: str, *scored: str) -> str:
    """Twelve hex digits for the code and the settings that a trial's training depends on, and the files `scored`."""
    module = METHODS[trial.method][0].removeprefix("disentkit.").replace(".", "/") + ".py"
    parts = _code_hash(module, f"data/{DATA}.py", *scored), evidence.settings_hash(trial.settings(preset))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@functools.cache
def _code_hash(*files: str) -> str:
    """A hash of the code behind the given files."""
    parts = [evidence.code((ROOT / "disentkit" / file).read_text()) for file in figures.files_behind(*files)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def method_version(trial: Trial, preset: str) -> str:
    """The same for its rows, which depend on the measures as well."""
    return training_version(trial, preset, *SCORED_BY)


def versions_of(preset: str, parts=PARTS) -> dict[str, str]:
    """{name in the tables: version}."""
    return {trial.label: method_version(trial, preset) for trial in trials(preset, parts)}


def train(wanted: list[Trial], preset: str, home: Path, jobs: int) -> list:
    """The runs of the trials, opened where they are finished, else trained, `jobs` at a time with a thread each."""
    options = {"device": "cpu", "threads": 1, "bar": jobs == 1}
    homes = [str(home / training_version(trial, preset)) for trial in wanted]
    members = [Member({"data": DATA, "seed": trial.seed}, trial.changes) for trial in wanted]
    tasks = [Task(t.method, DATA, preset, options, (), place, os.getpid()) for t, place in zip(wanted, homes)]
    names = {}
    with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
        with closing(parallel(map(joblib.delayed(_train_one), range(len(wanted)), members, tasks))) as found:
            for i, row in found:
                if row is None:
                    raise KeyboardInterrupt
                words = f"{wanted[i].label}, seed {wanted[i].seed}"
                if row[FAILED]:
                    raise UserError(f"{words}: {row[FAILED]}")
                names[i] = row["run"]
                print(f"{len(names)} of {len(wanted)}: {words}: {duration(row['seconds'])}", flush=True)
    runs = []
    for i, place in enumerate(homes):
        os.environ["DISENTKIT_HOME"] = place
        runs.append(workbench.open_run(names[i]))
    return runs


def _train_one(i: int, member, task) -> tuple[int, dict | None]:
    """In a process of its own, or with one job in this one: (i, the row of `train_members`)."""
    os.environ["DISENTKIT_HOME"] = task.home  # each trial has its own
    ((_, row),) = train_members([member], task)
    return i, row


# ---- what is measured


def judge_of(data, preset: str, home: Path):
    """The judge of the data, trained here if need be; a small and bad one at smoke."""
    settings = judges.Settings(size=data.image_shape[-1], **({"steps": 20} if preset == "smoke" else {}))
    version = evidence.version(figures.files_behind("judges.py", f"data/{DATA}.py"), settings)
    os.environ["DISENTKIT_HOME"] = str(home / f"judge-{version}")
    judge = judging.judge_of(data, settings=settings, device="cpu", threads=1)
    if judge.card["stopped"] == "interrupted":
        raise KeyboardInterrupt
    return judge


def measure(model, data, judge) -> tuple[dict, pd.DataFrame, dict]:
    """(numbers of the whole model, a row per block and factor, the best block of each factor), on fixed draws.

    The numbers: `codes` of the swaps ("pictures" or "prior"), `mse`, `largest`; `followed`, how many factors have a
    block that beats twice chance, and `distinct`, how many different blocks those are. The best blocks: `best_`,
    `follows_` and `chance_` with the factor's name.
    """
    swaps = metrics.swap_matrix(model, data, judge, n=DRAWS["pairs"])
    tables = {
        "linear": metrics.block_probes(model, data, kind="linear", n=DRAWS["probed"]),
        "nearest": metrics.block_probes(model, data, kind="nearest", n=DRAWS["probed"]),
        "follows": swaps.follows,
        "keeps": swaps.keeps,
        "retrieval": metrics.retrieval(model, data, n=DRAWS["retrieved"]).rename(index={"random": "chance"}),
    }
    order = list(dict.fromkeys([*swaps.follows.index, *tables["retrieval"].index]))
    blocks = pd.concat([_long(frame, name) for name, frame in tables.items()], axis=1)
    blocks = blocks.reindex(pd.MultiIndex.from_product([order, data.space.names], names=["block", "factor"]))
    follows = swaps.follows.drop(index=["all", "chance"])
    best, followed = follows.idxmax(), swaps.followed(TIMES)
    numbers = {"codes": swaps.settings["codes"], "mse": error(model, data), "followed": len(followed)}
    numbers |= {"distinct": best[followed].nunique(), "largest": largest_share(model, data)}
    found = {}
    for name in follows.columns:
        found |= {f"best_{name}": best[name], f"follows_{name}": follows[name].max()}
        found[f"chance_{name}"] = swaps.follows.loc["chance", name]
    return numbers, blocks.dropna(how="all").reset_index(), found


def _long(frame: pd.DataFrame, name: str) -> pd.Series:
    """A frame of blocks (rows) and factors (columns) as one column."""
    long = frame.rename_axis("block").reset_index().melt("block", var_name="factor", value_name=name)
    return long.set_index(["block", "factor"])[name]


def error(model, data) -> float:
    """Mean squared error of reconstructions, per pixel in [0, 1]; NaN where the code is not inferred as a whole."""
    if not all(block.inferred for block in model.codes):
        return float("nan")
    x = data.sample(DRAWS["reconstructed"], torch.Generator().manual_seed(0))["x"]
    return float(((models.decode(model, models.encode(model, x)) - x) ** 2).mean())


def largest_share(model, data) -> float:
    """What the block that changes most has of all change, in 1/n ... 1; 1 is the shortcut, one block for everything.

    A block's change: the mean absolute change of a pixel when the block alone is taken from another code.
    """
    rng, n = torch.Generator().manual_seed(0), DRAWS["changed"]
    if all(block.inferred for block in model.codes):
        a, b = (models.encode(model, data.sample(n, rng)["x"]) for _ in range(2))
    else:
        a, b = (model.prior(n, rng) for _ in range(2))
    before = models.decode(model, a)
    change = [(models.decode(model, model.codes.swap(a, b, name)) - before).abs().mean() for name in model.codes.names]
    return float(max(change) / sum(change)) if sum(change) > 0 else float("nan")


def gauges(history: pd.DataFrame) -> dict:
    """`accuracy_0` ..., the classifier's share of right answers, means over the last tenth of a training, and `alive`.

    Empty for a method without a classifier.
    """
    accuracy = history[history["step"] > 0.9 * history["step"].max()].filter(regex=r"^accuracy_\d+$").mean()
    return {"alive": int((accuracy > ALIVE).sum()), **accuracy} if len(accuracy) else {}


def curve(history: pd.DataFrame) -> pd.DataFrame:
    """Gauges and losses against steps: means over POINTS equal stretches, of which `step` is the end."""
    kept = history.filter(regex=r"^(L_[A-Z]+|loss_D|alive|accuracy_\d+)$")
    stretch = np.ceil(history["step"] / history["step"].max() * POINTS)
    means = kept.groupby(stretch).mean()
    means.insert(0, "step", history["step"].groupby(stretch).max())
    return means.reset_index(drop=True)


# ---- the tables and their cards


def make(preset: str, parts, home: Path, jobs: int) -> dict[str, pd.DataFrame]:
    """Train and measure what is missing: {"quick": a row per seed, "variants": ..., "blocks": ..., "curves": ...}.

    Each frame's `attrs` holds what its card says of the judge.
    """
    wanted, versions = trials(preset, parts), versions_of(preset, parts)  # now: the code may be edited meanwhile
    data = datasets.load(DATA, size=wanted[0].settings(preset).size)
    judge = judge_of(data, preset, home)
    tables: dict[str, list] = {"quick": [], "variants": [], "blocks": [], "curves": []}
    for trial, run in zip(wanted, train(wanted, preset, home, jobs)):
        print(f"measuring {trial.label}, seed {trial.seed}", flush=True)
        numbers, blocks, best = measure(run.model, data, judge)
        known = {"variant": trial.label, "seed": trial.seed}
        made = {"method_version": versions[trial.label], "settings": evidence.settings_hash(run.settings)}
        ends, taken = gauges(run.history), {key: run.card[key] for key in TAKEN}
        tables["variants"].append(known | made | numbers | ends | taken)
        tables["blocks"].append(blocks.assign(**known)[[*known, *blocks.columns]])
        if trial.method == "mix":
            points = curve(run.history)
            tables["curves"].append(points.assign(**known)[[*known, *points.columns]])
        if trial.label == "MIX":
            row = {"alive": ends.get("alive", float("nan"))} | numbers | best | taken
            tables["quick"].append({"seed": trial.seed} | made | row)
    kept = {key: judge.card[key] for key in ("name", "settings", "weights", "accuracy", "accuracy_on", "steps")}
    frames = {}
    for name, rows in tables.items():
        frames[name] = pd.DataFrame(rows) if isinstance(rows[0], dict) else pd.concat(rows, ignore_index=True)
        frames[name].attrs["judge"] = kept
    return frames


def gates(table: pd.DataFrame) -> list[dict]:
    """What must hold of each seed: {"gate", "needed", "seeds", "mean", "holds"} each."""
    found = []
    for column, needed, words in (
        ("alive", LEAST_ALIVE, "blocks that the classifier reads above 0.6, at least"),
        ("followed", LEAST_FOLLOWED, "factors whose best block beats twice chance when swapped, at least"),
    ):
        values = table[column].tolist()
        mean = round(float(table[column].mean()), 4)
        holds = all(value >= needed for value in values)
        found.append({"gate": words, "needed": needed, "seeds": values, "mean": mean, "holds": holds})
    return found


def quick_card(table: pd.DataFrame, preset: str) -> dict:
    """How the table of the seeds came about, and whether its gates hold."""
    numbers = ["alive", "followed", "distinct", "largest", "mse", "seconds"]
    numbers += [name for name in table.columns if name.startswith("follows_")]
    (version,) = versions_of(preset, ["seeds"]).values()
    held = gates(table)
    return {
        "what": f"MIX at '{preset}' on {DATA}, one row per seed", "method_version": version, "preset": preset,
        "settings": dataclasses.asdict(Trial("MIX", "mix").settings(preset)), "seeds": table["seed"].tolist(),
        "means": {name: round(float(table[name].mean()), 4) for name in numbers},
        "gates": held, "all_hold": all(gate["holds"] for gate in held), **_made(table, preset, "seeds"),
    }  # fmt: skip


def card_of(tables: dict[str, pd.DataFrame], preset: str) -> dict:
    """How the tables of the variants came about."""
    wanted = trials(preset)
    table = tables["variants"]
    return {
        "what": f"MIX, its variants and other methods at '{preset}' on {DATA}", "preset": preset,
        "variants": {t.label: {"method": t.method, "changes": t.changes} for t in wanted},
        "settings": {t.method: dataclasses.asdict(Trial("", t.method).settings(preset)) for t in wanted},
        "method_versions": versions_of(preset), "runs": len(table),
        "seconds": round(float(table["seconds"].sum())), **_made(table, preset, "variants"),
    }  # fmt: skip


def _made(table: pd.DataFrame, preset: str, part: str) -> dict:
    """What both cards say of the measures and of the machine."""
    return {
        "draws": DRAWS, "judge": table.attrs["judge"],
        "versions": workbench.versions(), "devices": sorted(set(table["device"])),
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "command": f"python tests/evidence/mix.py --preset {preset} --only {part}",
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def write(tables: dict[str, pd.DataFrame], preset: str, parts, out: Path) -> dict | None:
    """Write the tables and cards of the parts; returns the card of the seeds."""
    out.mkdir(parents=True, exist_ok=True)
    cards, frames = {}, {}
    if "seeds" in parts:
        cards[f"mix_{preset}"], frames[f"mix_{preset}"] = quick_card(tables["quick"], preset), tables["quick"]
    if "variants" in parts:
        cards["mix"] = card_of(tables, preset)
        frames |= {f"mix_{name}": tables[name] for name in ("variants", "blocks", "curves")}
    for name, frame in frames.items():
        frame.to_csv(out / f"{name}.csv", index=False, float_format="%.4g")
    for name, card in cards.items():
        (out / f"{name}.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    return cards.get(f"mix_{preset}")


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where the gates hold (smoke has none), 1 where they do not, 2 after a mistake, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="mix_quick, or the other tables")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (%(default)s)")
    parser.add_argument("--home", type=Path, default=ROOT / "data" / "local" / "evidence" / "mix")
    args = evidence.asked(parser, argv)
    tables: dict[str, pd.DataFrame] = {}
    if code := evidence.ended(lambda: tables.update(make(args.preset, args.only, args.home, args.jobs))):
        return code
    card = write(tables, args.preset, args.only, args.out)
    shown = tables["variants"].drop(columns=["method_version", "settings", "threads", "precision", "device"])
    print(shown.to_string(index=False, float_format="%.3g", na_rep="-"))
    if args.preset == "smoke":
        print("gates are not judged at smoke")
    elif card:
        for gate in card["gates"]:
            print(f"{'holds' if gate['holds'] else 'FAILS'}  {gate['gate']} {gate['needed']}: {gate['seeds']}")
    return 0 if args.preset == "smoke" or card is None or card["all_hold"] else 1


if __name__ == "__main__":
    sys.exit(main())
