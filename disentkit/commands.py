"""What each command of `disentkit` does. Heavy imports stand inside, so that `disentkit --help` answers at once.

Every command takes the parsed arguments, prints to stdout and returns its exit code; mistakes are raised as UserError.
"""

from __future__ import annotations

import argparse
import re
import sys

from disentkit.errors import UserError, one_of
from disentkit.score_tables import shown, table

INTERRUPTED = 130


def lab(args) -> int:
    from disentkit import notebooks

    return notebooks.lab(args.further)


def run_notebook(args) -> int:
    from disentkit import notebooks

    asked = {name: getattr(args, name) for name in ("preset", "seed", "device", "minutes")}
    done = notebooks.execute(args.notebook, {name: value for name, value in asked.items() if value is not None})
    print(table([("executed copy", done.notebook), ("page", done.html)]))
    return 0


def train(args) -> int:
    from disentkit import data, runs, workbench
    from disentkit.methods import settings_for

    base = workbench.open_run(args.base) if args.base is not None else None
    own = base is not None and args.data is None and args.path is None  # then the base's data, with their options
    name = args.data or (base.card["data"]["name"] if own else "dsprites")
    if own and base.card["data"]["options"] is None:
        raise UserError(f"run '{base.name}' was trained on arrays of your own; say which with --data")
    one_of("data set", name, data.names())
    changes = _changes(args.changes, settings_for(args.method, name, args.preset)) if args.changes else {}
    options = {"path": args.path} if args.path is not None else None
    if own:
        options, changes = base.card["data"]["options"], {"size": base.settings.size} | changes
    try:
        run = workbench.train(
            args.method, data=name, base=base, preset=args.preset, seed=args.seed, device=args.device,
            minutes=args.minutes, threads=args.threads, precision=args.precision, resume=not args.anew,
            data_options=options, **changes,
        )  # fmt: skip
    except ValueError as error:  # of the data or the networks: sizes and values that cannot be
        raise UserError(str(error).splitlines()[0]) from None
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise UserError("there is not enough memory for this; take smaller settings or the preset 'quick'") from None
    working = runs.home() / "working" / run.card["name"]
    goes_on = "the same command goes on from here" if any(working.glob("checkpoint*.pt")) else ""
    if run.card["stopped"] == "interrupted":
        then = f"{goes_on}, with --anew it starts anew" if goes_on else "nothing could be kept; make room first"
        print(f"disentkit: interrupted; {then}", file=sys.stderr)
        return INTERRUPTED
    if run.path is None:
        print(f"disentkit: not saved; {goes_on or 'no checkpoint is left'}", file=sys.stderr)
        return 2
    print(f"next: disentkit score {run.name}")
    return 0


def sweep(args) -> int:
    from disentkit import data, sweeps
    from disentkit.methods import settings_for

    one_of("data set", args.data, data.names())
    plain = settings_for(args.method, args.data, args.preset)
    grid = {}
    for pair in args.grid:
        name, equals, values = pair.partition("=")
        if name in grid:
            raise UserError(f"--set {name} is given twice; put all its values into one: --set {name}=10,20")
        pairs = [f"{name}={value}" for value in values.split(",")] if equals else [pair]
        grid |= {name: [_changes([one], plain)[name] for one in pairs]}
    if args.probes and not args.probe_every:
        raise UserError("--probes needs --probe-every K: how many steps lie between two measurements")
    asked = {"measures": args.measures, "probes": (args.probes or "scores") if args.probe_every else "none"}
    asked = {key: None if text is None else [m for m in text.split(",") if m != "none"] for key, text in asked.items()}
    out = args.out or sweeps.usual_place(args.method, args.data, args.preset)
    try:
        rows = sweeps.sweep(
            args.method, grid, seeds=args.seeds, data=args.data, preset=args.preset, out=out, jobs=args.jobs,
            backend=args.backend, scheduler=args.scheduler, together=args.together, probe_every=args.probe_every,
            device=args.device, precision=args.precision, **asked,
            data_options={"path": args.path} if args.path is not None else None,
        )  # fmt: skip
    except ValueError as error:  # of the data: sizes and values that cannot be
        raise UserError(str(error).splitlines()[0]) from None
    except KeyboardInterrupt:
        print("disentkit: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    means = sweeps.means(args.method, rows, list(grid))
    if len(means):
        print("\n" + table(means.values.tolist(), list(means.columns)))
    print(f"\nmean and, in brackets, standard deviation over the seeds; every row: {out}")
    failed = int(rows["failed"].notna().sum())
    if failed:
        print(f"disentkit: {failed} of {len(rows)} failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


def score(args) -> int:
    from disentkit import workbench

    run = workbench.open_run(args.run)
    print(run, flush=True)
    try:
        scores = workbench.score(run, more=args.all)
    except ValueError as error:  # data without factors, for example
        raise UserError(str(error).splitlines()[0]) from None
    parts = shown(scores)
    blocks = sorted(run.stats, key=lambda block: -block["importance"])
    rows = [(b["name"], f"{b['importance']:.2f} {b['unit']}", b["factor"] or "-", f"{b['correlation']:.2f}"
             if b["factor"] else "-") for b in blocks]  # fmt: skip
    print("\n\n".join([*parts, table(rows, ("block", "carries", "follows", "correlation"))]))
    return 0


def data_list(args) -> int:
    from disentkit import data

    shown = ("factors", "images", "size", "licence", "download")
    parts = [f"{row['name']}: {row['note']}\n" + table([("  " + k, row[k]) for k in shown]) for row in data.describe()]
    print("\n\n".join(parts))
    return 0


def data_fetch(args) -> int:
    from disentkit import data

    print(data.fetch(args.name))
    return 0


def data_export(args) -> int:
    from disentkit import data
    from disentkit.data.export import export

    pairs = [*args.options, *([f"size={args.size}"] if args.size is not None else [])]
    try:
        loaded = data.load(args.name, **_data_options(pairs, data.options_of(args.name)))
        print(export(loaded, args.out, args.format, args.images, args.seed))
    except ValueError as error:  # of the data: sizes and values that cannot be
        raise UserError(str(error).splitlines()[0]) from None
    return 0


def runs_list(args) -> int:
    from disentkit import runs
    from disentkit.checkpoints import is_trained
    from disentkit.training import duration

    rows = []
    for folder in runs.folders():
        where = "shipped" if folder.parent == runs.SHIPPED else "own"
        try:
            card = runs.read_card(folder)
            steps, spent = f"{card['steps']:,}", duration(card["seconds"])
            pruned = card["scores"].get("factorvae_score", {}).get("pruned")
            rows.append((folder.name, where, steps, spent, card["stopped"], "-" if pruned is None else f"{pruned:.2f}",
                         megabytes(folder)))  # fmt: skip
        except (UserError, KeyError, TypeError, ValueError):
            rows.append((folder.name, where, "?", "?", "card unreadable", "-", megabytes(folder)))
    for folder in _working(runs.home()):
        ended = "running" if is_trained(folder) else "interrupted"
        rows.append((f"working/{folder.name}", "own", "?", "?", ended, "-", megabytes(folder)))
    if not rows:
        print("no runs yet. Train one with: disentkit train factorvae --preset quick")
        return 0
    print(table(rows, ("run", "whose", "steps", "time", "ended", "score", "size")))
    print(f"\nyours lie in {runs.home() / 'runs'}; score: FactorVAE, pruned")
    return 0


def runs_rm(args) -> int:
    import shutil

    from disentkit import runs
    from disentkit.checkpoints import is_trained

    working = {f"working/{folder.name}": folder for folder in _working(runs.home())}
    folders = {name: working.get(name) or runs.find(name) for name in args.names}  # all of them, before one is removed
    if busy := [name for name in args.names if name in working and is_trained(working[name])]:
        raise UserError(f"{busy[0]} is being trained at this moment, so it stays; nothing was removed")
    for name, folder in folders.items():
        size = megabytes(folder)
        if name in working:
            shutil.rmtree(folder)
        else:
            runs.remove(name)
        print(f"removed {folder} ({size})")
    return 0


def doctor(args) -> int:
    from disentkit.doctor import doctor

    report = doctor()
    print(report)
    return 1 if report.problems else 0


# ---- small things


def megabytes(folder) -> str:
    """The size of a folder, "4.1 MB"."""
    return f"{sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.1f} MB"


def _working(home) -> list:
    """Folders of interrupted trainings, which hold checkpoints."""
    return sorted(f for f in (home / "working").glob("*") if f.is_dir())


def _changes(pairs: list[str], settings) -> dict:
    """{"gamma": 40.0} from ["gamma=40"], each of the type that the setting has."""
    from dataclasses import fields

    changes = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set takes NAME=VALUE, for example --set gamma=40, not '{pair}'")
        known = {f.name: f for f in fields(settings)}
        kind, least = type(getattr(settings, one_of("setting", name, known))), known[name].metadata.get("least", 1)
        try:
            changes[name] = whole(text, least) if kind is int else number(text) if kind is float else text
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--set {name}: {error}") from None
    return changes


def _number(text: str, kinds: list[str]) -> int | float | str:
    """A number, or the text itself where the option may be a text as well."""
    try:
        return count(text) if "int" in kinds else number(text)
    except argparse.ArgumentTypeError:
        if "str" in kinds:
            return text
        raise


def _data_options(pairs: list[str], parameters) -> dict:
    """{"size": 32, "color": False} from ["size=32", "color=false"], each of a type that the loader's parameter has."""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set takes NAME=VALUE, for example --set size=32, not '{pair}'")
        kinds = re.findall(r"\w+", str(parameters[one_of("option", name, parameters)].annotation))
        try:
            if text.lower() == "none" and "None" in kinds:
                options[name] = None
            elif "bool" in kinds:
                options[name] = {"true": True, "false": False}[text.lower()]
            elif "int" in kinds or "float" in kinds:
                options[name] = _number(text, kinds)
            elif "str" in kinds:
                options[name] = text
            else:
                raise UserError(f"--set {name}: this option cannot be written on a command line")
        except KeyError:
            raise UserError(f"--set {name}: '{text}' is neither true nor false") from None
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--set {name}: {error}") from None
    return options


def number(text: str) -> float:
    """A finite number; like the three below, for argparse: raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a finite number")
    return value


def seeds(text: str) -> list[int]:
    """[0, 1, 2] from "3", [0, 4] from "0,4", [7] from "7,"."""
    if "," in text:
        return [whole(part) for part in text.removesuffix(",").split(",")]
    return list(range(count(text)))


def positive(text: str) -> float:
    if (value := number(text)) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not above 0")
    return value


def whole(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of {least} or more")
    return int(text)


def count(text: str) -> int:
    return whole(text, least=1)
