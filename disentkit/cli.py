"""The command `disentkit`: its arguments and its help. What the commands do is in `commands.py`.

Exit codes: 0 done, 1 done but something is wrong (doctor), 2 a mistake in what was asked (one line on stderr, no
traceback), 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from disentkit import __version__, commands
from disentkit.errors import UserError
from disentkit.methods import METHODS

ABOUT = """\
Learn disentangled representations: notebooks, models to train, sliders to drag.

A run is a trained model with its papers, kept in a folder under DISENTKIT_HOME (default: data/local in the checkout).

A preset says how large and how long: smoke (seconds, proves only that it runs), quick (two to three minutes on two
CPU cores, scored), course (64 pixels, an hour or two on a CPU), paper (the published size and length, for a GPU)."""

EXAMPLES = """\
examples:
  disentkit doctor                            what this machine can do, and the
                                              preset to take
  disentkit lab                               open the notebooks
  disentkit lab --no-browser --port 8890      the same on a server
  disentkit run 01 --preset quick             run notebooks/01_... from top to
                                              bottom, keep the page
  disentkit train factorvae --preset quick    train; Ctrl-C keeps the state, the
                                              same line goes on from there
  disentkit train factorvae --set gamma=40    the same with one setting changed
  disentkit score factorvae-dsprites-quick-s0
                                              how disentangled is it?
  disentkit runs list                         what was trained here or shipped

`disentkit COMMAND --help` says what it does, what it writes, how long it takes."""


LAB = """\
JupyterLab of this Python, on the checkout's notebooks/, until you stop it (Ctrl-C, twice). Every further argument is
JupyterLab's own, for example on a server:

  disentkit lab --no-browser --port 8890

Writes nothing but what you save there."""

RUN = """\
Runs the notebook with papermill and writes the executed copy and an HTML page to build/notebooks/ in the checkout; the
notebook itself stays as it is. When a cell fails, the copy is kept up to there. At most 45 s at smoke and 8 minutes at
quick on two CPU cores."""

TRAIN = """\
Says after a few steps how long it will take, then shows a progress line. Ctrl-C stops between two steps and keeps the
state: the same command goes on from there. Writes one folder under DISENTKIT_HOME/runs: card, weights, history,
picture. Takes seconds at smoke, two to three minutes at quick, an hour or two at course on a CPU.

  disentkit train factorvae --preset quick --seed 1
  disentkit train betavae --set beta=8 --set steps=2000
  disentkit train factorvae --preset paper --device cuda --minutes 60"""

SWEEP = """\
Trains and scores every combination of the values from every seed, and writes a table with a row per member, csv, which
grows while the sweep runs: by default DISENTKIT_HOME/sweeps/METHOD-DATA-PRESET.csv. Each member is an ordinary run.
The same command goes on where it stopped: nothing that is finished is done again, and what failed is tried again. On
the CPU every member takes one thread, so the numbers do not depend on --jobs. Takes as long as its trainings.

  disentkit sweep factorvae --set gamma=10,20,40 --seeds 10
  disentkit sweep betavae --set beta=1,4 --set lr=1e-4,1e-3 --seeds 0,1,4 --preset course --out table.csv
  disentkit sweep factorvae --set gamma=10,40 --seeds 3 --probe-every 500

measures: full (what `disentkit score` takes), scores (the same three from 10,000 encoded pictures, in seconds), recon
(reconstruction error on fixed pictures), tc (total correlation), none."""

SCORE = """\
FactorVAE score (pruned and unpruned), beta-VAE score, MIG (with --all five more), and for every latent the factor it
follows. Writes the scores into the run's card (not into a shipped one). Encodes about 400,000 pictures: half a minute
at 32 pixels, a few minutes at 64 on a CPU.

Of wide blocks: which factor follows a block when it is swapped, read by a judge that is trained first where the data
have none yet (about a minute), and which can be read from it (with --all retrieval, too). Of blocks that are named
after attributes instead: which attribute can be read from which block, and how near pictures of combinations that were
held out come to the true ones."""

FETCH = "Downloads to DISENTKIT_HOME/datasets, checks every file, and downloads nothing twice."

EXPORT = """\
For other programs: one npz (images, factors, names), or a folder of png pictures with factors.csv, which --data folder
reads again. The whole set is written, a drawn one in the order of its grid; --images N takes fewer, drawn with the
seed. It is called NAME.npz or NAME in DIR and appears only when it is whole; nothing is overwritten. A minute or two
for the 737,280 pictures of dsprites as npz, several times that as a folder.

  disentkit data export dsprites --out exports --images 10000 --size 32
  disentkit data export digits --out exports --format folder
  disentkit data export celeba --out exports --set path=CelebA --set crop=148"""

LIST = "Your own, newest first, then the shipped ones, then trainings that were interrupted. Writes nothing."

REMOVE = """\
Deletes the folders for good and says what became free. Interrupted trainings are named working/NAME. Shipped runs
stay."""

DOCTOR = """\
Python, PyTorch, processor, GPU, memory, the folder of your runs, versions against the lock. Takes some seconds and
changes nothing. Exit code 1 when something has to be put right."""


class Teaching(argparse.HelpFormatter):
    """Paragraphs are wrapped to the terminal; those with indented lines stay as they are written."""

    def _fill_text(self, text, width, indent):
        wrap = super()._fill_text
        parts = text.split("\n\n")
        return "\n\n".join(p if p.startswith(" ") or "\n  " in p else wrap(p, width, indent) for p in parts)


class Parser(argparse.ArgumentParser):
    """argparse with mistakes told in one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=Teaching, **kwargs)

    def error(self, message: str):
        self.exit(2, f"disentkit: {message}. See: {self.prog} --help\n")


def parser() -> Parser:
    """All commands and their help."""
    top = Parser(prog="disentkit", description=ABOUT, epilog=EXAMPLES)
    top.add_argument("--version", action="version", version=f"disentkit {__version__}")
    at = top.add_subparsers(metavar="COMMAND", title="commands", required=True)

    _add(at, "lab", commands.lab, "open the notebooks in JupyterLab", LAB)

    run = _add(at, "run", commands.run_notebook, "run a notebook from top to bottom", RUN)
    run.add_argument("notebook", metavar="NOTEBOOK", help="a path, or a name in notebooks/: 01_factorvae, or just 01")
    run.add_argument("--preset", metavar="P", help="smoke, quick, course or paper; left out, the notebook's own")
    run.add_argument("--seed", metavar="S", type=commands.whole, help="seed of everything the notebook draws")
    run.add_argument("--device", metavar="D", help="auto, cpu, cuda or mps")
    run.add_argument("--minutes", metavar="M", type=commands.positive, help="limit for each training in it")

    _train_arguments(_add(at, "train", commands.train, "train a method on a data set", TRAIN))

    sweep = _add(at, "sweep", commands.sweep, "train a method over settings and seeds, into one table", SWEEP)
    _sweep_arguments(sweep)

    score = _add(at, "score", commands.score, "measure how disentangled a run is", SCORE)
    score.add_argument("run", metavar="RUN", help="a run of `disentkit runs list`, or the path of its folder")
    score.add_argument("--all", action="store_true", help="DCI, SAP, modularity, explicitness and IRS, too: a minute")

    data = _add(at, "data", None, "list, fetch or export the data sets", "No download is needed to begin with.")
    data = data.add_subparsers(metavar="COMMAND", required=True)
    _add(data, "list", commands.data_list, "list the data sets", "Their factors, images, size, licence, download.")
    fetch = _add(data, "fetch", commands.data_fetch, "download the real files of a data set", FETCH)
    fetch.add_argument("name", metavar="NAME", help="dsprites or mnist; told for each of the others what it needs")

    export = _add(data, "export", commands.data_export, "write a data set to files for other programs", EXPORT)
    export.add_argument("name", metavar="NAME", help="a data set of `disentkit data list`")
    export.add_argument("--out", metavar="DIR", required=True, help="the folder to write into; made where missing")
    export.add_argument("--format", metavar="F", default="npz", help="npz, folder or fonts (%(default)s)")
    export.add_argument("--images", metavar="N", type=commands.count, help="so many, drawn; left out, all")
    export.add_argument("--size", metavar="S", type=commands.count, help="side of the pictures in pixels")
    export.add_argument("--seed", metavar="S", type=commands.whole, default=0, help="of the draw (%(default)s)")
    option = "an option of the set's loader, for example split=test; may be given several times"
    export.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], dest="options", help=option)

    runs = _add(at, "runs", None, "list the runs, remove some", "A run is a trained model with its papers.")
    runs = runs.add_subparsers(metavar="COMMAND", required=True)
    _add(runs, "list", commands.runs_list, "list the runs", LIST)
    remove = _add(runs, "rm", commands.runs_rm, "remove runs of your own", REMOVE)
    remove.add_argument("names", metavar="NAME", nargs="+", help="names of `disentkit runs list`")

    _add(at, "doctor", commands.doctor, "say what this machine offers, and the preset to take", DOCTOR)
    return top


def _add(parent, name: str, do, short: str, long: str) -> Parser:
    """One command; `do` is its function in commands.py, None where further commands follow."""
    made = parent.add_parser(name, help=short, description=f"{short[0].upper()}{short[1:]}.\n\n{long}")
    made.set_defaults(do=do, used=made)
    return made


def _train_arguments(train: Parser) -> None:
    add = train.add_argument
    add("method", metavar="METHOD", help=", ".join(METHODS))
    add("--data", metavar="D", help="a data set of `disentkit data list` (dsprites, or those of --base)")
    add("--base", metavar="RUN", help="a finished run to build on: `directions` steer its generator")
    add("--preset", metavar="P", default="quick", help="smoke, quick, course or paper (%(default)s)")
    add("--seed", metavar="S", type=commands.whole, default=0, help="of weights, data and steps (%(default)s)")
    add("--device", metavar="D", default="auto", help="auto (CUDA, else CPU), cpu, cuda or mps")
    add("--minutes", metavar="M", type=commands.positive, help="stop cleanly after so long; the card says so")
    add("--threads", metavar="N", type=commands.count, help="CPU threads; left out, as many as are idle now")
    add("--precision", metavar="P", help="auto (bf16 where the hardware has it; paper: float32), float32 or bf16")
    change = "change one setting of the preset, for example gamma=40; may be given several times"
    add("--set", metavar="NAME=VALUE", action="append", default=[], dest="changes", help=change)
    add("--anew", action="store_true", help="forget an interrupted training of this name")
    add("--path", metavar="FOLDER", help="your pictures, for --data folder, celeba, chairs, faces, lpc or sprites")


def _sweep_arguments(sweep: Parser) -> None:
    add = sweep.add_argument
    add("method", metavar="METHOD", help=", ".join(METHODS))
    values = "the values of one setting, for example gamma=10,20,40; may be given for several settings"
    add("--set", metavar="NAME=A,B,C", action="append", default=[], dest="grid", help=values)
    add("--seeds", metavar="N", type=commands.seeds, default=[0], help="10 for seeds 0 to 9, or a list: 0,1,4 (0)")
    add("--data", metavar="D", default="dsprites", help="a data set of `disentkit data list` (%(default)s)")
    add("--preset", metavar="P", default="quick", help="smoke, quick, course or paper (%(default)s)")
    add("--out", metavar="TABLE.csv", help="the table; several sweeps may share one")
    add("--measures", metavar="M,..", help="full, scores, recon, tc or none; left out, full where there are factors")
    add("--probe-every", metavar="K", type=commands.count, help="measure every K steps of each training, too")
    add("--probes", metavar="M,..", help="what to measure then: scores, recon, tc; left out, scores")
    add("--jobs", metavar="N", type=commands.count, help="members at the same time; left out, as many as idle cores")
    add("--together", metavar="N", type=commands.count, default=1, help="seeds side by side in one process, for a GPU")
    add("--backend", metavar="B", default="loky", help="loky (processes of this machine) or dask (%(default)s)")
    add("--scheduler", metavar="ADDRESS", help="of the dask cluster, for example tcp://node1:8786")
    add("--device", metavar="D", default="auto", help="auto (CUDA, else CPU), cpu, cuda or mps")
    add("--precision", metavar="P", help="auto (bf16 where the hardware has it; paper: float32), float32 or bf16")
    add("--path", metavar="FOLDER", help="your pictures, for --data folder, celeba, chairs, faces, lpc or sprites")


def _tell(message, *where, **more) -> None:
    """A warning as one line, without the place in the kit's code."""
    print(f"disentkit: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    top = parser()
    argv = sys.argv[1:] if argv is None else list(argv)
    args, further = top.parse_known_args(argv or ["--help"])
    if further and args.do is not commands.lab:
        args.used.error(f"unknown argument: {' '.join(further)}")
    try:
        args.further = further
        with warnings.catch_warnings():
            warnings.showwarning = _tell
            return args.do(args)
    except UserError as error:
        print(f"disentkit: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk or a folder that refuses
        print(f"disentkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("disentkit: interrupted", file=sys.stderr)
        return commands.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
