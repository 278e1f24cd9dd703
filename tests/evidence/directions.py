"""The measurements behind 03_continuous_directions: the oracle, beta-VAEs, a small BigGAN, baselines, ablations.

    python tests/evidence/directions.py [--only oracle ablation ...] [--jobs N] [--preset quick] [--home DIR]
                                        [--out DIR]

data/results gets these tables, and their card directions.json; directions_quick.json says whether the gates hold.
`model` is "oracle" or "gan"; `factor` is x, y, zoom or brightness, in their units (methods/transforms.py); alpha is
<z,u>; spearman, slope and r2 (of the line) are of measured on requested over |alpha| <= 2; std is the mean over the
requests of the standard deviation over codes; seconds are of one thread on the CPU, wall is what the clock said.

    part oracle
    directions_oracle.csv      variant (default, coordinate, tied), seed, factor, cos, cos_horizon, spearman, slope, r2,
                               std, held_out (R2 of pairs that the fit has not seen), seconds and wall (of the pair of
                               factors, x and zoom or y and brightness, that is learned in one call)
    part ablation
    directions_ablation.csv    model, variant, factor, cos (oracle), spearman, slope, r2, std, length (mean |z| at the
                               farthest target), limit (sqrt(d), the ball), energy (fine detail of the pictures found,
                               over that of their targets), energy_start (over that of the pictures begun with),
                               texture (oracle: mean change of the texture's amplitude), error (filtered at 3/128 of
                               the width, at the farthest target), steps, seconds
    part pieces
    directions_pieces.csv      model, factor, pieces (1, 5, 25, 101), r2_fit, held_out, spearman, slope, r2, std,
                               as_asked (R2 with the slope held at 1: whether g is right)
    directions_quality.csv     model, factor, how, share (of one half of the trajectories), trajectories, held_out,
                               spearman, r2, cos (oracle); the card says in `held_out_tells` how the ranks of held_out
                               go with those of spearman and of cos
    part classes
    directions_classes.csv     factor, learned (class or "pooled"), shown (class), spearman, slope, r2, std
    directions_cosines.csv     factor, first, second (class or "pooled"), cosine
    part betas
    directions_betas.csv       beta, seed, factor, spearman, slope, r2, std, change (of the median), natural (std of the
                               untouched pictures), failures, cos_best (largest |u| of one latent), kl (nats, sum),
                               living (latents), recon (squared error of a pixel), seconds
    directions_betas_curves.csv  beta, seed, factor, alpha, t, median, std
    part baselines
    directions_baselines.csv   model, factor, method (ours, linear walk, closed form, SeFa, GANSpace, random 0 ...),
                               spearman, slope, r2, change, std, leak, into, failures, cos (oracle), seconds;
                               all asked for the same alpha from -2 to 2, so slope and change are per <z,u>
    directions_leakage.csv     model, direction (a factor or "random"), factor, leak
    directions_curves.csv      model, factor, alpha, t, median, std: ours, through its own g
    part reach
    directions_reach.csv       model, direction, instrument (exact, segmenter, saliency), alpha, t, median, std, slope,
                               failures, broken, energy
    directions_carries.csv     model, direction, instrument, stops below, stops above, breaks below, breaks above,
                               carries below, carries above
    directions_agreement.csv   model, direction, zone ("within 2", "beyond 3"), first, second, factor, pictures,
                               correlation, slope, difference, disagree, one_only
    part distribution
    directions_distribution.csv  model, factor, asked (zone: g(-2) ... g(2), half: 0 ... g(2)), low, high, before and
                               after (KS distances), offset
    part levels
    directions_levels.csv      run, factor, block, share (of |u|^2)
    part horizon
    directions_horizon.csv     run, rho (planted), correlation (of y and horizon in the run's pictures), spearman,
                               slope, leak (of y into the horizon), leak_random (of a random direction), horizon (its
                               slope over that of y); the levels of these runs stand in directions_levels.csv

Every part is written when it is done. Each measurement is kept in data/local/evidence/directions under the version of
the code that made it, so the command goes on where it stopped. What needs a run or a reader that is not shipped is left
out and listed in the card. About an hour on two CPU cores.

As in run.py a measurement belongs to the version of the code that made it; tests/test_directions_evidence.py compares
them. direction_plan.py says what is measured, direction_parts.py how.
"""

from __future__ import annotations

import argparse
import ast
import collections
import datetime
import functools
import hashlib
import inspect
import io
import json
import os
import re
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path
from types import ModuleType

import joblib
import pandas as pd
import psutil
import torch

try:
    from evidence import direction_parts as measures
    from evidence.direction_plan import PARTS, SCALES, TABLES, Task, plan
except ImportError:  # as a script: the folder of this file is on the path
    import direction_parts as measures
    from direction_plan import PARTS, SCALES, TABLES, Task, plan

from disentkit import runs, workbench
from disentkit.errors import UserError
from disentkit.members import reason
from disentkit.progress import duration

tools, figures = measures.tools, measures.tools.figures
evidence = figures.evidence
ROOT, RESULTS = evidence.ROOT, evidence.RESULTS
LEAST_COS, LEAST_RANK, LEAST_RANK_GAN, MOST_SECONDS = 0.8, 0.9, 0.8, 60


# ---- the version of a measurement


def version(task: Task) -> str:
    """Twelve hex digits for the code, the arguments and the shipped weights that a measurement depends on."""
    trained = {"betas": ("betavae", "dsprites"), "horizon": ("biggan", "scenes")}.get(task.part)
    training = tools.training_version(*trained, task.args["preset"], 32) if trained else ""
    weights = [runs.read_card(tools.SHIPPED / need)["weights"] for need in task.needs if "/" in need]
    code = code_behind(task.function), [_code(file) for need in task.needs for file in _files_of(need)]
    return hashlib.sha256(repr((code, sorted(task.args.items()), weights, training)).encode()).hexdigest()[:12]


def versions_of(preset: str, parts=PARTS) -> dict[str, str]:
    """{measurement: version} of those that can be made."""
    return {task.words: version(task) for task in plan(preset, parts) if not task.lacks()}


def _files_of(need: str) -> tuple[str, ...]:
    """The code that a shipped run or reader runs through; what was trained is in its weights."""
    kinds = {"runs/biggan": ("methods/biggan.py", "nets/biggan.py"), "judges/": ("judges.py", "segmenter.py")}
    return next((files for start, files in kinds.items() if need.startswith(start)), ())


@functools.cache
def _code(file: str):
    return evidence.code((ROOT / "disentkit" / file).read_text())


_behind = functools.cache(figures.files_behind)


@functools.cache
def code_behind(function: str) -> str:
    """A hash of all code that a function of direction_parts.py goes through.

    Functions, classes and plain constants of direction_parts.py and direction_tools.py that it names, and those that
    these name; and of the kit the files of the functions and classes so named, with all that they import.
    """
    waiting, seen, files = [(function, getattr(measures, function))], {}, set()
    while waiting:
        name, value = waiting.pop()
        module = getattr(value, "__module__", "") or ""
        if name in seen:
            continue
        if isinstance(value, str | int | float | tuple | list | dict):
            seen[name] = repr(value)
        elif module.startswith("disentkit."):
            files.add(module.removeprefix("disentkit.").replace(".", "/") + ".py")
        elif module in (measures.__name__, tools.__name__):
            source = textwrap.dedent(inspect.getsource(value))
            seen[name] = evidence.code(source)
            waiting += _named(ast.parse(source), vars(sys.modules[module]))
    behind = [(file, _code(file)) for file in sorted({each for file in files for each in _behind(file)})]
    return hashlib.sha256(repr((sorted(seen.items(), key=lambda pair: pair[0]), behind)).encode()).hexdigest()


def _named(tree: ast.AST, there: dict) -> list[tuple[str, object]]:
    """What a piece of code names of a module's contents, and of direction_tools.py through `tools`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in there:
            found.append((node.id, there[node.id]))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tools":
            found.append((node.attr, getattr(tools, node.attr)))
    return [(name, value) for name, value in found if not isinstance(value, ModuleType)]


# ---- measuring


def place_of(task: Task, home: Path) -> Path:
    """The file of what was measured, once it was."""
    return home / version(task) / f"{re.sub(r'[^a-z0-9.]+', '-', task.words.lower())}.json"


def measure(wanted: list[Task], home: Path, jobs: int) -> list[str]:
    """Measure what was not yet, `jobs` at a time with a thread each; returns what went wrong, a line each."""
    lacking = collections.Counter(task.lacks() for task in wanted if task.lacks())
    for needs, count in lacking.items():
        print(f"{count} left out: there is no {', '.join(needs)}", flush=True)
    waiting = [task for task in wanted if not task.lacks() and not place_of(task, home).exists()]
    calls = [joblib.delayed(_measure_one)(task, home, place_of(task, home)) for task in waiting]
    failed = []
    with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
        with closing(parallel(calls)) as results:
            for number, (words, wrong, seconds) in enumerate(results, 1):
                failed += [f"{words}: {wrong}"] if wrong else []
                print(f"{number} of {len(waiting)}: {words}: {wrong or duration(seconds)}", flush=True)
    return failed


def _measure_one(task: Task, home: Path, place: Path) -> tuple[str, str, float]:
    """In a process of its own, or with one job in this one: (words, what went wrong, seconds of the CPU)."""
    begun, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tables = getattr(measures, task.function)(home, **task.args)
    except Exception as error:  # whatever it was, the others go on
        return task.words, reason(error), time.process_time() - begun
    finally:
        torch.set_num_threads(threads)
    seconds = time.process_time() - begun
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({"tables": tables, "seconds": seconds}, default=float))
    part.replace(place)
    return task.words, "", seconds


# ---- the tables and their cards


def gather(preset: str, home: Path) -> tuple[dict[str, pd.DataFrame], dict[str, str], list[str], float]:
    """(tables as they are stored, {measurement: version}, measurements that are not made yet, seconds of all)."""
    tables: dict[str, list[dict]] = {name: [] for names in TABLES.values() for name in names}
    versions, missing, seconds = {}, [], 0.0
    for task in plan(preset):
        place = None if task.lacks() else place_of(task, home)
        if place is None or not place.exists():
            missing.append(task.words)
            continue
        found = json.loads(place.read_text())
        versions[task.words], seconds = place.parent.name, seconds + found["seconds"]
        for name, rows in found["tables"].items():
            tables[name] += rows
    stored = {name: pd.read_csv(io.StringIO(_csv(rows))) for name, rows in tables.items() if rows}
    return stored, versions, missing, seconds


def _csv(rows: list[dict]) -> str:
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.5g")


def gates(tables: dict[str, pd.DataFrame]) -> list[dict]:
    """What must hold of the tables that are there: {"gate", "needed", "values", "mean", "holds"} each."""
    found = []

    def judge(words: str, needed: float, values: pd.Series, holds: bool) -> None:
        row = {"gate": words, "needed": needed, "values": values.round(4).tolist(), "mean": round(values.mean(), 4)}
        found.append(row | {"holds": bool(holds)})

    if "oracle" in tables:
        table = tables["oracle"].query("variant == 'default'")
        for name in ("x", "zoom"):
            rows = table[table["factor"] == name]
            cos, rank = rows["cos"], rows["spearman"]
            judge(f"oracle, {name}: mean cos with the truth, at least", LEAST_COS, cos, cos.mean() >= LEAST_COS)
            judge(f"oracle, {name}: Spearman, at least", LEAST_RANK, rank, (rank >= LEAST_RANK).all())
        seconds = table[table["factor"] == "x"]["seconds"]
        judge("oracle: seconds of the CPU for x and zoom, below", MOST_SECONDS, seconds, (seconds < MOST_SECONDS).all())
    if "baselines" in tables:
        rank = tables["baselines"].query("model == 'gan' and method == 'ours'").set_index("factor")["spearman"]
        for name in rank.index:
            one = rank[[name]]
            judge(f"GAN, {name}: Spearman, at least", LEAST_RANK_GAN, one, (one >= LEAST_RANK_GAN).all())
    return found


def write(preset: str, home: Path, parts, out: Path) -> list[dict]:
    """Write the tables of some parts, of all that was measured, and the cards; returns the gates."""
    tables, versions, missing, seconds = gather(preset, home)
    out.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(name for part in parts for name in TABLES[part]):
        if name in tables:
            tables[name].to_csv(out / f"directions_{name}.csv", index=False)
            print(
                f"{name}\n{tables[name].head(40).to_string(index=False, float_format='%.3g', na_rep='-')}", flush=True
            )
    card = {"what": "continuous directions on an oracle, beta-VAEs and a small BigGAN", "preset": preset}
    card |= {"scale": SCALES[preset], "versions": versions, "missing": missing, "seconds": round(seconds)}
    if "quality" in tables:
        card["held_out_tells"] = measures.held_out_tells(tables["quality"])
    made = {
        "packages": workbench.versions(), "device": "cpu", "threads": 1,
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "command": f"python tests/evidence/directions.py --preset {preset}",
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    held = gates(tables)
    judged = {"what": "what must hold of the directions", "preset": preset, "gates": held}
    judged |= {"all_hold": all(gate["holds"] for gate in held)}
    for name, found in (("directions", card | made), (f"directions_{preset}", judged | made)):
        (out / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return held


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where the gates hold (smoke has none), 1 where they do not, 2 after a mistake, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts, each with its tables")
    parser.add_argument("--jobs", type=int, default=2, help="measurements at the same time (%(default)s)")
    parser.add_argument("--home", type=Path, default=ROOT / "data" / "local" / "evidence" / "directions")
    args = evidence.asked(parser, argv)
    held: list[dict] = []

    def make_parts() -> None:
        failed = []
        for part in (part for part in PARTS if part in args.only):
            failed += measure(plan(args.preset, [part]), args.home, args.jobs)
            held[:] = write(args.preset, args.home, [part], args.out)
        if failed:
            raise UserError(failed[0])

    if code := evidence.ended(make_parts):
        return code
    for gate in held if args.preset != "smoke" else []:
        print(f"{'holds' if gate['holds'] else 'FAILS'}  {gate['gate']} {gate['needed']}: {gate['values']}")
    return 0 if args.preset == "smoke" or all(gate["holds"] for gate in held) else 1


if __name__ == "__main__":
    sys.exit(main())
