"""The measurements behind 05_gzsnet: GZS-Net, its terms one by one, and its baselines on letters.

    python tests/evidence/gzsnet.py [--only seeds variants baselines augmentation] [--jobs N] [--preset quick]
                                    [--home DIR] [--out DIR]

data/results gets

    gzsnet_quick.csv, gzsnet_quick.json  a row per seed of GZS-Net and of AE+DS, and whether the gates hold
    gzsnet_variants.csv                  a row per training: zero-shot synthesis, co-prediction, what it took
    gzsnet_blocks.csv                    a row per training, block and attribute: co-prediction
    gzsnet_curves.csv                    losses against steps and seconds
    gzsnet.json                          how the last three came about
    gzsnet_augmentation.csv, .json       a classifier helped in four ways, on creatures

Every part is written when it is done. Runs and what was measured of them are kept in data/local/evidence/gzsnet under
the version of the code that made them, so the command goes on where it stopped. About 40 minutes on two CPU cores.

As in run.py a row belongs to the version of the code that made it; tests/test_gzsnet_evidence.py compares them. All
trainings are measured on the same targets. Ten letters, eight faces: more of them take longer than three minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import hashlib
import inspect
import io
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

from disentkit import metrics, workbench
from disentkit.errors import UserError
from disentkit.members import Member, Task, reason, train_members
from disentkit.methods import METHODS, exhaustive, settings_for
from disentkit.progress import duration
from disentkit.tables import FAILED

evidence = figures.evidence
ROOT, RESULTS = evidence.ROOT, evidence.RESULTS
DATA, AUGMENTED, SEEDS = "fonts", "creatures", (0, 1, 2)
DATA_OPTIONS = {"fonts": {"letters": "ABCDEFGHIJ", "pinned": 8}, "creatures": {}}
ATTRIBUTES, COMBINATIONS = 5, 17_402  # of these letters; combinations that training shows
ON_LETTERS = ("seeds", "variants", "baselines")
PARTS = (*ON_LETTERS, "augmentation")
RIVAL, REGROUPED = "AE+DS", ("betavae", "betatcvae")
DRAWS = {"targets": 500, "carriers": 100, "read": 3000, "searched": 3000}  # pictures, of each kind
AUGMENTATION = {"seeds": 3}
POINTS = 40  # of a curve
LOSSES = r"^(L_\w+|loss_[DG]|recon|distance|penalty|cls_real|cls_fake|adv[12])$"
MEANS = ("psnr", "mse", "seen", "diagonal", "off_diagonal", "leak", "seconds")  # over the seeds
LEAST_DB, LEAST_APART = 3.0, 0.2  # dB; share of right answers
TAKEN = ("steps", "seconds", "threads", "precision", "device")  # from a run's card


# ---- what is trained


@dataclass(frozen=True)
class Trial:
    """One training: its name in the tables, its method, the settings that are not the preset's, its seed, its data."""

    label: str
    method: str
    changes: dict = field(default_factory=dict)
    seed: int = 0
    data: str = DATA

    @property
    def words(self) -> str:
        return f"{self.label}, seed {self.seed}"

    def settings(self, preset: str):
        return replace(settings_for(self.method, self.data, preset), **self.changes)


def trials(preset: str, parts=PARTS) -> list[Trial]:
    """The trainings of the parts, in the order of the tables. No seed was chosen."""
    pairs = [[("GZS-Net", "gzsnet"), (RIVAL, "aeds")], [("StarGAN", "stargan"), ("ELEGANT", "elegant")]]
    # Side by side, so that both of a pair have the same machine.
    seeds, painters = ([Trial(*each, seed=seed) for seed in SEEDS for each in pair] for pair in pairs)
    vaes = [Trial("beta-VAE", "betavae"), Trial("beta-TCVAE", "betatcvae", {"N": COMBINATIONS})]
    augmented = [Trial(f"GZS-Net on {AUGMENTED}", "gzsnet", data=AUGMENTED)]
    found = zip(PARTS, (seeds, variants(preset), painters + vaes, augmented), strict=True)
    return [trial for part, members in found if part in parts for trial in members]


def variants(preset: str) -> list[Trial]:
    """GZS-Net with terms missing; those that the preset is already are left out."""
    plain = Trial("GZS-Net", "gzsnet").settings(preset)
    changes = {
        "no cover": {"lam_cover": 0.0},  # the paper's three steps
        "no cycle": {"lam_csr": 0.0},
        "released": {"lam_csr": 0.0, "lam_cover": 1.0, "loss": "L1"},  # the terms of the released code
        "autoencoder": {"lam_sr": 0.0, "lam_csr": 0.0, "lam_cover": 0.0},
    }
    return [Trial(label, "gzsnet", change) for label, change in changes.items() if replace(plain, **change) != plain]


def training_version(trial: Trial, preset: str, *scored: str) -> str:
    """Twelve hex digits for code, settings and data that a trial's training depends on, and the files `scored`."""
    module = METHODS[trial.method][0].removeprefix("disentkit.").replace(".", "/") + ".py"
    groups = ["data/groups.py"] if trial.method == "gzsnet" else []  # no file imports them, the workbench does
    code = _code_hash(module, f"data/{trial.data}.py", *groups, *scored)
    return _hash(code, (evidence.settings_hash(trial.settings(preset)), DATA_OPTIONS[trial.data]))


def method_version(trial: Trial, preset: str) -> str:
    """The same for its rows, which depend on the measures as well."""
    scored, asked = ["metrics/synthesis.py", "metrics/coprediction.py"], DRAWS
    if trial.method in REGROUPED:
        scored.append("methods/exhaustive.py")
    if trial.data == AUGMENTED:
        scored, asked = [*scored, "metrics/augmentation.py"], DRAWS | AUGMENTATION
    return _hash(training_version(trial, preset, *scored), _measuring(), asked)


def versions_of(preset: str, parts=PARTS) -> dict[str, str]:
    """{name in the tables: version}."""
    return {trial.label: method_version(trial, preset) for trial in trials(preset, parts)}


def _hash(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@functools.cache
def _code(file: str):
    return evidence.code((ROOT / "disentkit" / file).read_text())


@functools.cache
def _code_hash(*files: str) -> str:
    return _hash([_code(file) for file in figures.files_behind(*files)])


@functools.cache
def _measuring() -> str:
    """A hash of the functions of this file that measure."""
    found = (measure, with_attributes, best_carrier, read_blocks, curve)
    return _hash([evidence.code(inspect.getsource(function)) for function in found])


# ---- what is measured


def measure(model, data) -> tuple[dict, pd.DataFrame]:
    """(numbers of the model, its co-prediction: a row per block and attribute), on fixed draws.

    psnr, mse      of zero-shot synthesis, dB and squared error in [0, 1]: held-out targets
    seen, rebuilt  dB: targets that training shows; held-out pictures, encoded and decoded
    best_copy      dB: the best provider, taken as it is for the synthesis, and `best_provider`, whose it is
    carrier        whose provider's picture is painted over, where the method does that, else None
    diagonal, off_diagonal, leak  of the co-prediction matrix
    """
    model = with_attributes(model, data)
    carrier = best_carrier(model, data)
    made = metrics.zero_shot(model, data, n=DRAWS["targets"], carrier=carrier)
    numbers = {"psnr": made.psnr, "mse": made.mse, "seen": made.seen.psnr, "rebuilt": made.rebuilt}
    numbers |= {"best_copy": made.best_copy, "best_provider": made.best_provider, "carrier": carrier}
    read, blocks = read_blocks(model, data)
    return numbers | read, blocks


def with_attributes(model, data):
    """The model itself where its blocks are named after the attributes, else its latents shared out among them."""
    if set(data.space.names) <= set(model.codes.names):
        return model
    batch = data.sample(DRAWS["searched"], torch.Generator().manual_seed(1))  # pictures that training shows
    return exhaustive.search(model, batch["x"], batch["factors"], data.space)


def best_carrier(model, data) -> str | None:
    """The attribute whose provider carries best what is no attribute, found on other targets that training shows."""
    if set(model.codes.names) <= set(data.space.names):
        return None
    asked = {"target": data, "n": DRAWS["carriers"], "seed": 1}
    return max(data.space.names, key=lambda name: metrics.zero_shot(model, data, carrier=name, **asked).psnr)


def read_blocks(model, data) -> tuple[dict, pd.DataFrame]:
    """(means of the co-prediction matrix, the matrix as rows of block, attribute, accuracy, spread).

    Where blocks are labels that a classifier reads they say nothing of the pictures made: NaN, and no rows.
    """
    means = ("diagonal", "off_diagonal", "leak")
    if any(model.codes[name].kind == "onehot" for name in data.space.names):
        return dict.fromkeys(means, float("nan")), pd.DataFrame()
    read = metrics.co_prediction(model, data, n=DRAWS["read"])
    blocks = read.accuracy.stack().to_frame("accuracy").assign(spread=read.spread.stack())  # chance has no spread
    return {name: getattr(read, name) for name in means}, blocks.rename_axis(["block", "attribute"]).reset_index()


def curve(history: pd.DataFrame, seconds: float) -> pd.DataFrame:
    """Losses against steps: means over POINTS equal stretches, of which `step` and `seconds` are the end.

    seconds  of the whole training, whose steps count as equally long
    """
    stretch = np.ceil(history["step"] / history["step"].max() * POINTS)
    means = history.filter(regex=LOSSES).groupby(stretch).mean()
    step = history["step"].groupby(stretch).max()
    means.insert(0, "step", step)
    means.insert(1, "seconds", step * seconds / step.max())
    return means.reset_index(drop=True)


# ---- training


def place_of(trial: Trial, preset: str, home: Path) -> Path:
    """The file of what was measured of a trial, once it was."""
    return home / "measured" / f"{method_version(trial, preset)}-s{trial.seed}.json"


def train(wanted: list[Trial], preset: str, home: Path, jobs: int) -> None:
    """Train and measure those that were not yet, `jobs` at a time with a thread each.

    Raises UserError for the first that failed, when all others are done.
    """
    wanted = [trial for trial in wanted if not place_of(trial, preset, home).exists()]
    calls, failed, bar = [], [], jobs == 1 and sys.stderr.isatty()
    for t in wanted:
        options = {"device": "cpu", "threads": 1, "bar": bar, "data_options": DATA_OPTIONS[t.data]}
        kept = str(home / training_version(t, preset))  # each trial has its own
        task = Task(t.method, t.data, preset, options, (), kept, os.getpid())
        member = Member({"data": t.data, "seed": t.seed}, t.changes)
        calls.append(joblib.delayed(_train_one)(t.words, member, task, place_of(t, preset, home)))
    with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
        with closing(parallel(calls)) as results:
            for number, (words, said) in enumerate(results, 1):
                if said is None:
                    raise KeyboardInterrupt
                failed += [f"{words}: {said[FAILED]}"] if said[FAILED] else []
                print(f"{number} of {len(wanted)}: {words}: {said[FAILED] or _told(said)}", flush=True)
    if failed:
        raise UserError(failed[0])


def _train_one(words: str, member, task, place: Path) -> tuple[str, dict | None]:
    """In a process of its own, or with one job in this one: (words, what came of it), None where it was interrupted."""
    os.environ["DISENTKIT_HOME"] = task.home
    ((_, said),) = train_members([member], task)
    if said is None or said[FAILED]:
        return words, said
    try:
        run = workbench.open_run(said["run"])
        data = run.data()
        numbers, blocks = measure(run.model, data)
        row = {"settings": evidence.settings_hash(run.settings)} | numbers | {key: run.card[key] for key in TAKEN}
        found = {"row": row, "blocks": blocks, "curve": curve(run.history, run.card["seconds"])}
        if task.data == AUGMENTED:
            frame = metrics.augmentation(run.model, data, **AUGMENTATION)
            found |= {"augmentation": frame.rename_axis("way").reset_index(), "asked": frame.attrs["settings"]}
    except Exception as error:  # whatever it was, the other trials go on
        return words, said | {FAILED: f"trained, but not measured: {reason(error)}"}
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(found, default=lambda frame: frame.to_dict("records")))
    part.replace(place)
    return words, said | row


def _told(row: dict) -> str:
    numbers = [f"{key} {row[key]:.4g}" for key in ("rebuilt", "best_copy", *MEANS) if key != "seconds"]
    return ", ".join([duration(row["seconds"]), *numbers, f"carrier {row['carrier']}"])


# ---- the tables and their cards


def gather(preset: str, home: Path) -> tuple[dict[str, pd.DataFrame], list[str], dict]:
    """(tables, trainings on letters that are not measured yet, what the card of the augmentation says of it).

    Tables: "variants", a row per training; "blocks"; "curves"; "augmentation". Those that have rows, as stored.
    """
    tables: dict[str, list[dict]] = {"variants": [], "blocks": [], "curves": [], "augmentation": []}
    missing, about = [], {}
    for trial in trials(preset):
        place, known = place_of(trial, preset, home), {"variant": trial.label, "seed": trial.seed}
        version = {"method_version": method_version(trial, preset)}
        found = json.loads(place.read_text()) if place.exists() else None
        if trial.data == AUGMENTED:
            tables["augmentation"] += [row | version for row in found["augmentation"]] if found else []
            about = {"augmentation": found["asked"], "run": found["row"]} if found else {}
        elif found is None:
            missing.append(trial.words)
        else:
            tables["variants"].append(known | version | found["row"])
            tables["blocks"] += [known | row for row in found["blocks"]]
            tables["curves"] += [known | row for row in found["curve"] if trial.method not in REGROUPED]
    stored = {name: pd.read_csv(io.StringIO(_csv(pd.DataFrame(rows)))) for name, rows in tables.items() if rows}
    return stored, missing, about


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.5g")


def gates(table: pd.DataFrame) -> list[dict]:
    """What must hold of each seed: {"gate", "needed", "seeds", "mean", "holds"} each."""
    ours, rival = (table[table["variant"] == label].set_index("seed") for label in ("GZS-Net", RIVAL))
    found = []
    for words, needed, margin in (
        ("dB above the best copy of a provider, at least", LEAST_DB, ours["psnr"] - ours["best_copy"]),
        (f"dB above {RIVAL} of the same seed, at least", LEAST_DB, ours["psnr"] - rival["psnr"]),
        ("co-prediction, diagonal above the rest by", LEAST_APART, ours["diagonal"] - ours["off_diagonal"]),
    ):
        row = {"gate": words, "needed": needed, "seeds": margin.round(4).tolist(), "mean": round(margin.mean(), 4)}
        found.append(row | {"holds": bool((margin >= needed).all())})
    return found


def write(preset: str, home: Path, part: str, out: Path) -> list[dict]:
    """Write the tables that a part belongs to, of all that was measured, and their card; returns the gates."""
    frames, missing, about = gather(preset, home)
    name, parts, table = "gzsnet", ON_LETTERS, frames.get("variants")
    if part == "seeds":
        table = table[table["variant"].isin(["GZS-Net", RIVAL])].reset_index(drop=True)
        files, name, parts = {preset: table}, f"gzsnet_{preset}", [part]
        by, held = table.groupby("variant", sort=False), gates(table)
        card = {"what": f"GZS-Net and {RIVAL} at '{preset}' on {DATA}, one row per seed", "seeds": list(SEEDS)}
        card["means"] = {label: dict(row) for label, row in by[list(MEANS)].mean().round(4).iterrows()}
        card["seconds"] = {label: seconds.tolist() for label, seconds in by["seconds"]}
        card |= {"gates": held, "all_hold": all(gate["holds"] for gate in held)}
    elif part == "augmentation":
        table, name, parts = frames[part], f"gzsnet_{part}", [part]
        files, card = {part: table}, {"what": f"a classifier helped in four ways, by GZS-Net at '{preset}'", **about}
    else:
        files = {which: frame for which, frame in frames.items() if which != "augmentation"}
        card = {"what": f"GZS-Net, its terms and its baselines at '{preset}' on {DATA}", "missing": missing}
        card |= {"runs": len(table), "seconds": round(float(table["seconds"].sum()))}
    card |= made(preset, parts, {about["run"]["device"]} if part == "augmentation" else set(table["device"]))
    out.mkdir(parents=True, exist_ok=True)
    for which, frame in files.items():
        (out / f"gzsnet_{which}.csv").write_text(_csv(frame))
    (out / f"{name}.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    shown = table.drop(columns=["method_version", "settings", "threads", "precision", "device"], errors="ignore")
    print(shown.to_string(index=False, float_format="%.3g", na_rep="-"), flush=True)
    return card.get("gates", [])


def made(preset: str, parts, devices: set[str]) -> dict:
    """What every card says of the trainings, the measures and the machine."""
    wanted = trials(preset, parts)
    return {
        "preset": preset, "data": {"name": wanted[0].data, **DATA_OPTIONS[wanted[0].data]}, "draws": DRAWS,
        "variants": {t.label: {"method": t.method, "changes": t.changes} for t in wanted},
        "settings": {t.method: dataclasses.asdict(replace(t, changes={}).settings(preset)) for t in wanted},
        "method_versions": versions_of(preset, parts), "versions": workbench.versions(), "devices": sorted(devices),
        "chosen": "settings by the PSNR of held-out targets of this very split, seed 0; lam_cover is not the paper's",
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "command": f"python tests/evidence/gzsnet.py --preset {preset} --only {' '.join(parts)}",
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where the gates hold (smoke has none), 1 where they do not, 2 after a mistake, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts, each with its tables")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (%(default)s)")
    parser.add_argument("--home", type=Path, default=ROOT / "data" / "local" / "evidence" / "gzsnet")
    args = evidence.asked(parser, argv)
    held: list[dict] = []

    def make_parts() -> None:
        for part in (part for part in PARTS if part in args.only):
            train(trials(args.preset, [part]), args.preset, args.home, args.jobs)
            held.extend(write(args.preset, args.home, part, args.out))

    if code := evidence.ended(make_parts):
        return code
    for gate in held if args.preset != "smoke" else []:
        print(f"{'holds' if gate['holds'] else 'FAILS'}  {gate['gate']} {gate['needed']}: {gate['seeds']}")
    return 0 if args.preset == "smoke" or all(gate["holds"] for gate in held) else 1


if __name__ == "__main__":
    sys.exit(main())
