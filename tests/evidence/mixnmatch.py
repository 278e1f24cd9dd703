"""The measurements behind 04_mixnmatch: FineGAN and MixNMatch over three seeds, what each part of MixNMatch is good
for, and the gates of the shipped runs.

    python tests/evidence/mixnmatch.py [--only quick variants shipped] [--jobs N] [--preset quick] [--home DIR]
                                       [--out DIR]

data/results gets

    mixnmatch_quick.csv, .json     a row per seed of MixNMatch and of FineGAN at the preset: gauges of the last tenth of
                                   the training, scores, seconds; the card says whether the gates hold
    mixnmatch_variants.csv, .json  a row per training of MixNMatch with something changed: scores
    mixnmatch_shipped.csv, .json   a row per gate of each shipped run, as its card has them; nothing is trained

Scores are those of `scores.measure_mixing`, on pictures with independent factors:

    mixing_...       share of mixes in which the judge reads the factor of the right source; all_right all three at once
    nmi_p, _c, _b    of the encoders' codes and the factor they should stand for; cross_b_texture, cross_c_background
                     and cross_p_texture of those that they should not
    pose_r2          mean R^2 of the pose, linear in E_z(x)
    iou_generated    of the child's mask and what a segmenter finds in the picture; iou_code of pictures encoded
    area             the mean share of the picture under the child's mask
    frechet          on the judge's features, of free codes; never to be compared with distances on other features

Every part is written when it is done. Runs and what was measured of them are kept in data/local/evidence/mixnmatch
under the version of the code that made them, so the command goes on where it stopped. Judge and segmenter are those
that are shipped, or trained first. mixnmatch_plan.py says what is trained, and for how long.

As in run.py a row belongs to the version of the code that made it; tests/test_mixnmatch_evidence.py compares them.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import inspect
import io
import json
import math
import os
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import joblib
import pandas as pd
import psutil
import torch

try:
    from evidence import mixnmatch_plan as plan
except ImportError:  # as a script: the folder of this file is on the path
    import mixnmatch_plan as plan

from disentkit import data as datasets
from disentkit import judges, judging, runs, scores, segmenter, workbench
from disentkit.data.views import Views
from disentkit.errors import UserError
from disentkit.members import Member, Task, reason, train_members
from disentkit.nets.finegan import patches
from disentkit.progress import duration
from disentkit.tables import FAILED

evidence = plan.evidence
ROOT, RESULTS = evidence.ROOT, evidence.RESULTS
SHIPPED = ("finegan", "finegan_hard", "mixnmatch", "mixnmatch_feature")  # methods whose shipped runs have gates
SCORES = (
    "mixing_background", "mixing_shape", "mixing_texture", "all_right", "nmi_p", "nmi_c", "nmi_b", "cross_b_texture",
    "cross_c_background", "cross_p_texture", "pose_r2", "iou_generated", "iou_code", "area", "frechet",
)  # fmt: skip
GAUGES = r"^accuracy_"  # columns of the history
# What a row depends on besides the training, and what stands in segmenter.py itself.
SCORED_BY = ("judges.py", *(f"metrics/{name}.py" for name in ("transfer", "clusters", "pose", "masks", "frechet")))
TAKEN = ("steps", "seconds", "threads", "precision", "device")  # from a run's card


# ---- the version of a row


def method_version(trial: plan.Trial, preset: str) -> str:
    """Twelve hex digits for what a trial's row depends on: its training, and the measures."""
    return plan.hashed(plan.training_version(trial, preset, *SCORED_BY), plan.code_of("segmenter.py"), _measuring())


def versions_of(preset: str, part: str) -> dict[str, str]:
    """{name in the tables: version}."""
    return {trial.label: method_version(trial, preset) for trial in plan.trials(preset, [part])}


@functools.cache
def _measuring() -> str:
    """A hash of the functions that measure, here and in scores.py, and of how much they draw."""
    found = (measure, ends, scores.measure_mixing, scores._of_drawn, scores._of_encoded, scores._clusters)
    drawn = (scores.MIXES, scores.DRAWN, scores.COMPARED, scores.CODES, scores.POSES, scores.MASKS)
    return plan.hashed([evidence.code(inspect.getsource(function)) for function in found], drawn)


# ---- what is measured


def measure(model, data) -> dict[str, float]:
    """The columns of SCORES; NaN for what a model without encoders has not."""
    found = scores.measure_mixing(model, data)
    right, nmi = found.get("transfer", {}), found.get("code_clusters", {}).get("nmi", {})
    ious = found["mask_iou"]
    row = {f"mixing_{name}": right.get("diagonal", {}).get(name) for name in ("background", "shape", "texture")}
    row["all_right"] = right.get("all_right")
    row |= {f"nmi_{k}": nmi.get(k, {}).get(name) for k, name in (("p", "shape"), ("c", "texture"), ("b", "background"))}
    others = (("b", "texture"), ("c", "background"), ("p", "texture"))
    row |= {f"cross_{k}_{name}": nmi.get(k, {}).get(name) for k, name in others}
    row["pose_r2"] = found.get("pose_r2", {}).get("mean")
    row |= {"iou_generated": ious["generated"], "iou_code": ious.get("code"), "area": ious["area"]["child"]}
    row["frechet"] = found["frechet"]["free"]
    return {name: math.nan if row[name] is None else row[name] for name in SCORES}


def ends(history: pd.DataFrame) -> dict:
    """`finite`, whether all losses ever were, and means of the accuracies over the last tenth of a training."""
    last = history[history["step"] > 0.9 * history["step"].max()].filter(regex=GAUGES).mean()
    losses = history.filter(regex=r"^(L_|loss_)")
    return {"finite": bool(losses.notna().all(axis=None) and (losses.abs() < math.inf).all(axis=None)), **last}


def chances(trial: plan.Trial, preset: str) -> dict[str, float]:
    """What each accuracy is where nothing is known: of the patches, that of the answer that is right more often."""
    s = trial.settings(preset)
    views = Views(datasets.load(plan.DATA, size=s.size, **plan.DATA_OPTIONS))
    box = views.sample(500, torch.Generator().manual_seed(0))["box"]
    valid = float(patches(s.size, s.nets).valid(box).mean())
    codes = {"p": 1 / s.parents, "c": 1 / s.children, "b": 1 / s.children}
    found = {"accuracy_D_b": 0.5, "accuracy_aux": max(valid, 1 - valid)} | {f"accuracy_{k}": codes[k] for k in "pc"}
    return found | ({f"accuracy_E_{k}": codes[k] for k in "bpc"} if trial.method == "mixnmatch" else {})


def readers(preset: str, home: Path) -> dict:
    """What the cards say of the judge and the segmenter: opened, or trained now so that no two processes do it.

    Small and bad ones at smoke. DISENTKIT_HOME is theirs afterwards.
    """
    os.environ["DISENTKIT_HOME"] = str(_readers_home(preset, home))
    size = plan.Trial("").settings(preset).size
    free = datasets.load(plan.DATA, size=size, **plan.DATA_OPTIONS).independent()
    judge, finder = None, None
    if preset == "smoke":
        judge, finder = judges.Settings(size=size, steps=20), segmenter.Settings(size=size, steps=20)
    asked = {"device": "cpu", "threads": 1}
    found = {
        "judge": judging.judge_of(free, settings=judge, **asked),
        "segmenter": segmenter.segmenter_of(free, settings=finder, **asked),
    }
    if any(each.card["stopped"] == "interrupted" for each in found.values()):
        raise KeyboardInterrupt
    told = ("name", "weights", "steps", "accuracy", "errors")
    return {name: {key: each.card[key] for key in told if key in each.card} for name, each in found.items()}


def _readers_home(preset: str, home: Path) -> Path:
    code = plan.code_behind("judges.py", "segmenter.py", f"data/{plan.DATA}.py")
    return home / f"readers-{plan.hashed(code, preset == 'smoke', plan.DATA_OPTIONS)}"


# ---- training


def place_of(trial: plan.Trial, preset: str, home: Path) -> Path:
    """The file of what was measured of a trial, once it was."""
    return home / "measured" / f"{method_version(trial, preset)}-s{trial.seed}.json"


def train(wanted: list[plan.Trial], preset: str, home: Path, jobs: int) -> None:
    """Train and measure those that were not yet, `jobs` at a time with a thread each.

    Raises UserError for the first that failed, when all others are done.
    """
    wanted = [trial for trial in wanted if not place_of(trial, preset, home).exists()]
    calls, failed, bar = [], [], jobs == 1 and sys.stderr.isatty()
    for t in wanted:
        options = {"device": "cpu", "threads": 1, "bar": bar, "data_options": t.data_options}
        kept = str(home / plan.training_version(t, preset))  # each trial has its own
        task = Task(t.method, plan.DATA, preset, options, (), kept, os.getpid())
        member = Member({"data": plan.DATA, "seed": t.seed}, t.changes)
        places = place_of(t, preset, home), _readers_home(preset, home)
        calls.append(joblib.delayed(_train_one)(t.words, member, task, *places))
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


def _train_one(words: str, member, task, place: Path, readers_home: Path) -> tuple[str, dict | None]:
    """In a process of its own, or with one job in this one: (words, what came of it), None where it was interrupted."""
    os.environ["DISENTKIT_HOME"] = task.home
    ((_, said),) = train_members([member], task)
    if said is None or said[FAILED]:
        return words, said
    try:
        run = workbench.open_run(said["run"])
        os.environ["DISENTKIT_HOME"] = str(readers_home)
        row = {"settings": evidence.settings_hash(run.settings)} | ends(run.history) | measure(run.model, run.data())
        row |= {key: run.card[key] for key in TAKEN}
    except Exception as error:  # whatever it was, the other trials go on
        return words, said | {FAILED: f"trained, but not measured: {reason(error)}"}
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(row))
    part.replace(place)
    return words, said | row


def _told(row: dict) -> str:
    return ", ".join(
        [duration(row["seconds"]), *(f"{name} {row[name]:.3g}" for name in SCORES if row[name] == row[name])]
    )


# ---- the tables and their cards


def gather(preset: str, home: Path, part: str) -> tuple[pd.DataFrame, list[str]]:
    """(the table of a part as it is stored, trainings that are not measured yet)."""
    rows, missing = [], []
    for trial in plan.trials(preset, [part]):
        place = place_of(trial, preset, home)
        if place.exists():
            known = {"variant": trial.label, "seed": trial.seed, "method_version": method_version(trial, preset)}
            rows.append(known | json.loads(place.read_text()))
        else:
            missing.append(trial.words)
    table = pd.DataFrame(rows)
    gauges = [name for name in table if name == "finite" or name.startswith("accuracy_")]  # FineGAN has fewer
    first = ["variant", "seed", "method_version", "settings", "steps", *(gauges if part == "quick" else [])]
    return pd.read_csv(io.StringIO(_csv(table[[*first, *SCORES, *TAKEN[1:]]]))), missing


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.4g")


def gates(table: pd.DataFrame, preset: str) -> list[dict]:
    """What must hold of each seed: {"gate", "needed", "seeds", "mean", "holds"} each."""
    found = []
    for label, method in plan.METHOD_OF.items():
        rows = table[table["variant"] == label]
        finite = rows["finite"].astype(bool)
        row = {"gate": f"{label}: all losses finite", "needed": 1, "seeds": finite.astype(int).tolist()}
        found.append(row | {"mean": round(float(finite.mean()), 4), "holds": bool(finite.all())})
        for name, chance in chances(plan.Trial(label, method, plan.CODES), preset).items():
            row = {"gate": f"{label}: {name} above chance,", "needed": round(chance, 4), "seeds": rows[name].tolist()}
            found.append(row | {"mean": round(rows[name].mean(), 4), "holds": bool((rows[name] > chance).all())})
    return found


def shipped_runs() -> list:
    """Folders of shipped runs that have gates, by name."""
    folders = sorted(folder for folder in runs.folders() if folder.parent == runs.SHIPPED)
    return [folder for folder in folders if runs.read_card(folder)["method"] in SHIPPED]


def shipped() -> pd.DataFrame:
    """A row per gate of each shipped run: run, weights, gate, asked, measured, met; as their cards have them.

    Empty where none is shipped. Raises UserError for a run whose card has no gates.
    """
    rows = []
    for folder in shipped_runs():
        card = runs.read_card(folder)
        if "gates" not in card["scores"]:
            raise UserError(f"the card of {folder.name} has no gates: score the run (workbench.score) before it ships")
        known = {"run": folder.name, "method": card["method"], "seed": card["seed"], "weights": card["weights"][:12]}
        rows += [known | {"gate": gate, **judged} for gate, judged in card["scores"]["gates"].items()]
    return pd.DataFrame(rows)


def write(preset: str, part: str, home: Path, out: Path, told: dict) -> list[dict]:
    """Write the table of a part, of all that was measured, and its card; returns the gates that must hold."""
    card = {"what": _WHAT[part].format(preset=preset, data=plan.DATA), "preset": preset}
    if part == "shipped":
        table = shipped()
        if table.empty:
            print("no run is shipped that has gates", flush=True)
            return []
        asked, preset = "", ", ".join(sorted({runs.read_card(folder)["preset"] for folder in shipped_runs()}))
        card |= {"preset": preset, "runs": sorted(set(table["run"])), "met": int(table["met"].sum()), "of": len(table)}
    else:
        asked, (table, missing) = f" --preset {preset}", gather(preset, home, part)
        wanted = plan.trials(preset, [part])
        card |= {
            "data": {"name": plan.DATA, **plan.DATA_OPTIONS}, "missing": missing,
            "method_versions": versions_of(preset, part),
            "variants": {t.label: {"method": t.method, "changes": t.changes, "data": t.options} for t in wanted},
            "settings": {t.method: dataclasses.asdict(replace(t, changes=plan.CODES).settings(preset)) for t in wanted},
            "readers": told, "devices": sorted(set(table["device"])), "seconds": round(float(table["seconds"].sum())),
        }  # fmt: skip
    if part == "quick":
        held = gates(table, preset)
        by = table.drop(columns=["method_version", "settings", "precision", "device"]).groupby("variant", sort=False)
        card["means"] = {label: row.dropna().round(4).to_dict() for label, row in by.mean().iterrows()}
        card |= {"seeds": list(plan.SEEDS), "gates": held, "all_hold": all(gate["holds"] for gate in held)}
    card |= {
        "versions": workbench.versions(),
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "command": f"python tests/evidence/mixnmatch.py{asked} --only {part}",
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    name = f"mixnmatch_{preset if part == 'quick' else part}"
    (out / f"{name}.csv").write_text(_csv(table))
    (out / f"{name}.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    shown = table.drop(
        columns=["method_version", "settings", "weights", "threads", "precision", "device"], errors="ignore"
    )
    print(shown.to_string(index=False, float_format="%.3g", na_rep="-"), flush=True)
    return card.get("gates", [])


_WHAT = {
    "quick": "FineGAN and MixNMatch at '{preset}' on {data}, one row per seed",
    "variants": "MixNMatch and its parts at '{preset}' on {data}, one row per training",
    "shipped": "the gates of the shipped runs, from their cards",
}


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where the gates hold (smoke has none), 1 where they do not, 2 after a mistake, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=plan.PARTS, default=list(plan.PARTS), help="parts, each with its table"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (%(default)s)")
    parser.add_argument("--home", type=Path, default=ROOT / "data" / "local" / "evidence" / "mixnmatch")
    args = evidence.asked(parser, argv)
    held: list[dict] = []

    def make_parts() -> None:
        trained = [part for part in plan.PARTS if part in args.only and part != "shipped"]
        told = readers(args.preset, args.home) if trained else {}
        for part in (part for part in plan.PARTS if part in args.only):
            if part in trained:
                train(plan.trials(args.preset, [part]), args.preset, args.home, args.jobs)
            held.extend(write(args.preset, part, args.home, args.out, told))

    if code := evidence.ended(make_parts):
        return code
    for gate in held if args.preset != "smoke" else []:
        print(f"{'holds' if gate['holds'] else 'FAILS'}  {gate['gate']} {gate['needed']}: {gate['seeds']}")
    return 0 if args.preset == "smoke" or all(gate["holds"] for gate in held) else 1


if __name__ == "__main__":
    sys.exit(main())
