"""What each command of `disentkit` does. Heavy imports stand inside, so that `disentkit --help` answers at once.

Every command takes the parsed arguments, prints to stdout and returns its exit code; mistakes are raised as UserError.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from disentkit.errors import UserError, one_of

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

    one_of("data set", args.data, data.names())
    changes = _changes(args.changes, settings_for(args.method, args.data, args.preset)) if args.changes else {}
    options = {"path": args.path} if args.path is not None else None
    try:
        run = workbench.train(
            args.method, data=args.data, preset=args.preset, seed=args.seed, device=args.device, minutes=args.minutes,
            threads=args.threads, precision=args.precision, resume=not args.anew, data_options=options, **changes,
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


def score(args) -> int:
    from disentkit import workbench

    run = workbench.open_run(args.run)
    print(run, flush=True)
    try:
        scores = workbench.score(run)
    except ValueError as error:  # data without factors, for example
        raise UserError(str(error).splitlines()[0]) from None
    f, gap = scores["factorvae_score"], scores["mig"]
    kept = f"{f['surviving']} of {f['dims']} latents survive pruning"
    print(table([
        ("FactorVAE score", f"{f['pruned']:.3f}", f"pruned; {kept}"),
        ("", f"{f['unpruned']:.3f}", f"unpruned; chance is {1 / len(f['factors']):.2f}"),
        ("beta-VAE score", f"{scores['betavae_score']['score']:.3f}", "a linear classifier; near 1 is normal"),
        ("MIG", f"{gap['mig']:.3f}", ", ".join(f"{k} {v:.2f} ({gap['best'][k]})" for k, v in gap["gaps"].items())),
    ]))  # fmt: skip
    blocks = sorted(run.stats, key=lambda block: -block["importance"])
    rows = [(b["name"], f"{b['importance']:.2f} {b['unit']}", b["factor"] or "-", f"{b['correlation']:.2f}"
             if b["factor"] else "-") for b in blocks]  # fmt: skip
    print("\n" + table(rows, ("block", "carries", "follows", "correlation")))
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


def runs_list(args) -> int:
    from disentkit import runs
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
        rows.append((f"working/{folder.name}", "own", "?", "?", "interrupted", "-", megabytes(folder)))
    if not rows:
        print("no runs yet. Train one with: disentkit train factorvae --preset quick")
        return 0
    print(table(rows, ("run", "whose", "steps", "time", "ended", "score", "size")))
    print(f"\nyours lie in {runs.home() / 'runs'}; score: FactorVAE, pruned")
    return 0


def runs_rm(args) -> int:
    import shutil

    from disentkit import runs

    working = {f"working/{folder.name}": folder for folder in _working(runs.home())}
    folders = {name: working.get(name) or runs.find(name) for name in args.names}  # all of them, before one is removed
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


def table(rows: Sequence[Sequence], header: Sequence[str] = ()) -> str:
    """Rows as aligned columns, numbers to the right; the last column is not padded."""
    lines = [tuple(str(cell) for cell in row) for row in [*([header] if header else []), *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    body = lines[bool(header) :]
    right = [all(line[i][:1].isdigit() or line[i] in "-?" for line in body) for i in range(len(widths))]
    padded = [[c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right)] for line in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


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
        kind = type(getattr(settings, one_of("setting", name, [f.name for f in fields(settings)])))
        try:
            changes[name] = count(text) if kind is int else number(text) if kind is float else text
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--set {name}: {error}") from None
    return changes


def number(text: str) -> float:
    """A finite number; like the three below, for argparse: raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a finite number")
    return value


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
