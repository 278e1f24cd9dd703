"""The sweeps behind the stored figures of 01_factorvae: trained, measured while they train, and written as tables.

    python tests/evidence/figures.py [--only dsprites shapes3d gans] [--jobs N] [--preset quick] [--home DIR]
                                     [--out DIR]

For each of FIGURES, data/results gets `NAME_sweep.csv` (a row per run: what was asked, scores at the end, seconds),
`NAME_curves.csv` (a row per run and measurement: losses and probes against steps) and `NAME.json`, their card. Runs are
kept in data/local/evidence/figures, so the command goes on where it stopped. About an hour on two CPU cores.

As in run.py a table belongs to the version of the code that made it; tests/test_figures.py compares them.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import datetime
import json
import os
import sys
from pathlib import Path

import pandas as pd

try:
    from evidence import run as evidence
except ImportError:  # as a script: the folder of this file is on the path
    import run as evidence

from disentkit.errors import UserError

ROOT, RESULTS = evidence.ROOT, evidence.RESULTS
VAES = ("scores", "recon", "tc")  # probes of models that have a posterior
# name -> data set, probes, how often they measure, and (method, its grid, number of seeds) each. The seeds count from
# 0: none was chosen.
FIGURES = {
    "dsprites": ("dsprites", VAES, 5, [
        ("betavae", {"beta": [1.0, 2.0, 4.0, 8.0]}, 2),
        ("factorvae", {"gamma": [5.0, 20.0, 40.0]}, 2),
        ("betatcvae", {"beta": [4.0]}, 1),
        ("annealedvae", {"C_max": [15.0]}, 1),
        ("dipvae1", {"lambda_od": [10.0]}, 1),
        ("dipvae2", {"lambda_od": [10.0]}, 1),
        ("aae", {"noise": [0.0, 0.1]}, 1),
    ]),
    "shapes3d": ("shapes3d", VAES, 2, [
        ("betavae", {"beta": [1.0, 4.0]}, 1),
        ("factorvae", {"gamma": [5.0, 20.0]}, 1),
    ]),
    "gans": ("dsprites", ("scores",), 5, [
        ("infowgan", {"lam": [0.0, 0.2, 1.0]}, 1),
        ("infowgan", {"noise": [40]}, 1),
        ("infogan", {"lam": [0.05]}, 1),
    ]),
}  # fmt: skip
HARMLESS = {"codes.py", "errors.py", "places.py", "runs.py"}  # no number comes from them


def files_behind(*files: str) -> tuple[str, ...]:
    """The files of the kit that the given ones import, themselves included, as paths under disentkit/."""
    found, waiting = set(), list(files)
    while waiting:
        file = waiting.pop()
        if file in found or file in HARMLESS or file.endswith("__init__.py"):
            continue
        found.add(file)
        for node in ast.walk(ast.parse((ROOT / "disentkit" / file).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "disentkit":
                base = "/".join(node.module.split(".")[1:])
                names = [f"{base}.py"] if base else []
                names += [f"{base}/{alias.name}.py".lstrip("/") for alias in node.names]
                waiting += [name for name in names if (ROOT / "disentkit" / name).is_file()]
    return tuple(sorted(found))


def method_version(method: str, data: str, preset: str, swept=()) -> str:
    """Twelve hex digits for all code and settings that a method's rows depend on; `swept` stand in the rows."""
    from disentkit.methods import METHODS, settings_for

    module = METHODS[method][0].removeprefix("disentkit.").replace(".", "/") + ".py"
    return evidence.version(files_behind(module, f"data/{data}.py", "probes.py", *evidence.SCORED_BY),
                            settings_for(method, data, preset), swept)  # fmt: skip


def versions_of(name: str, preset: str) -> dict[str, str]:
    """{method: version} of a figure's table."""
    data, _, _, sweeps = FIGURES[name]
    swept = {method: {key for m, grid, _ in sweeps if m == method for key in grid} for method, *_ in sweeps}
    return {method: method_version(method, data, preset, keys) for method, keys in swept.items()}


def label(method: str, changes: dict) -> str:
    """What a row is called in a figure: "factorvae gamma=10"."""
    return " ".join([method, *(f"{key}={value:g}" for key, value in changes.items())])


def make(name: str, preset: str, jobs: int | None, home: Path, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train what is missing of a figure's sweeps and write its two tables and their card."""
    from disentkit import workbench
    from disentkit.sweeps import sweep

    data, probes, points, sweeps = FIGURES[name]
    tables, curves = [], []
    for method, grid, seeds in sweeps:
        version = versions_of(name, preset)[method]
        os.environ["DISENTKIT_HOME"] = str(home / version)
        steps = workbench.settings_of(method, data, preset).steps
        rows = sweep(method, grid, seeds=seeds, data=data, preset=preset, jobs=jobs, measures=["scores"], probes=probes,
                     probe_every=max(1, steps // points), device="cpu", data_options={})  # fmt: skip
        for _, row in rows.iterrows():
            if isinstance(row["failed"], str):
                raise UserError(f"{label(method, {key: row[key] for key in grid})}: {row['failed']}")
            known = {"method": method, "label": label(method, {key: row[key] for key in grid}), "seed": row["seed"]}
            known |= {"setting": next(iter(grid)), "value": row[next(iter(grid))]}
            history = workbench.open_run(row["run"]).history
            kl = history.filter(regex=r"^kl_\d+$")
            history = history.assign(kl=kl.sum(axis=1)) if len(kl.columns) else history
            measured = history[history["factorvae"].notna()].drop(columns=kl.columns)
            curves.append(pd.DataFrame(known, index=measured.index).join(measured))
            scores = {key: row[key] for key in ("factorvae", "factorvae_unpruned", "surviving", "betavae", "mig")}
            ends = {key: row[key] for key in ("recon", "kl") if key in row}
            taken = {key: row[key] for key in ("seconds", "threads", "precision", "device")}
            tables.append(known | {"method_version": version} | scores | ends | {"steps": steps} | taken)
    table, curve = pd.DataFrame(tables), pd.concat(curves, ignore_index=True)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / f"{name}_sweep.csv", index=False, float_format="%.5g")
    curve.to_csv(out / f"{name}_curves.csv", index=False, float_format="%.5g")
    card = card_of(name, table, preset)
    (out / f"{name}.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    return table, curve


def card_of(name: str, table: pd.DataFrame, preset: str) -> dict:
    """How a figure's tables came about."""
    import psutil

    from disentkit import workbench
    from disentkit.methods import settings_for

    data, probes, points, sweeps = FIGURES[name]
    return {
        "what": f"sweeps on {data} at '{preset}', a row per run and per measurement", "preset": preset, "data": data,
        "sweeps": [{"method": m, "grid": grid, "seeds": list(range(seeds))} for m, grid, seeds in sweeps],
        "settings": {m: dataclasses.asdict(settings_for(m, data, preset)) for m, *_ in sweeps},
        "method_versions": versions_of(name, preset), "probes": list(probes), "measurements": points,
        "runs": len(table),
        "seconds": round(float(table["seconds"].sum())), "devices": sorted(set(table["device"])),
        "versions": workbench.versions(),
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "command": f"python tests/evidence/figures.py --preset {preset} --only {name}",
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Returns 0, 2 after a mistake or a failed training, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--jobs", type=int, help="runs at the same time (the idle cores)")
    parser.add_argument("--home", type=Path, default=ROOT / "data" / "local" / "evidence" / "figures")
    args = evidence.asked(parser, argv)

    def make_all() -> None:
        for name in args.only:
            table, _ = make(name, args.preset, args.jobs, args.home, args.out)
            shown = table.drop(columns=["method", "setting", "value", "method_version", "threads", "precision"])
            print(shown.to_string(index=False, float_format="%.3f"))

    return evidence.ended(make_all)


if __name__ == "__main__":
    sys.exit(main())
