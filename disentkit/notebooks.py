"""Notebooks from the command line: JupyterLab on them, or a run from top to bottom by papermill.

`prepare` and `execute` are also what the tests run notebooks with.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from disentkit.errors import UserError, one_of
from disentkit.places import CHECKOUT, writable_home

PRESETS = ("smoke", "quick", "course", "paper")
NOTEBOOKS = CHECKOUT / "notebooks"
# JupyterLab would ask every new user whether to fetch its news, in front of the first notebook.
NO_NEWS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


@dataclass(frozen=True)
class Executed:
    """Where the executed copy of a notebook and its HTML page lie."""

    notebook: Path
    html: Path


def folder() -> Path:
    """The checkout's notebooks; raises UserError where the kit was installed without a checkout."""
    if not NOTEBOOKS.is_dir():
        raise UserError(
            "the notebooks are not part of the installed package: clone the repository and install it from there with "
            "`pip install -e .` or `make lab`"
        )
    return NOTEBOOKS


def find(name: str | Path) -> Path:
    """A notebook from its path, its name (01_factorvae) or the start of its name (01)."""
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    known = {p.stem: p for p in sorted(folder().glob("*.ipynb"))}
    begins = [stem for stem in known if stem == path.stem or stem.startswith(f"{path.stem}_")]
    if len(begins) == 1:
        return known[begins[0]]
    if not known:
        raise UserError(f"there is no notebook '{name}': {NOTEBOOKS} holds none")
    return known[one_of("notebook", str(name), known)]


def build_folder() -> Path:
    """Where executed copies go: build/ in the checkout, or build/ under home() where that cannot be written."""
    if NOTEBOOKS.is_dir():
        try:
            place = CHECKOUT / "build" / "notebooks"
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError:
            pass  # a course install that only its owner may write
    place = writable_home() / "build" / "notebooks"
    place.mkdir(parents=True, exist_ok=True)
    return place


def prepare(notebook: str | Path, parameters: dict, build: Path | None = None) -> Path:
    """A copy of a notebook with its parameters set, not executed; see `execute`."""
    source, copy = _checked(notebook, parameters, build)
    import papermill

    papermill.execute_notebook(str(source), str(copy), parameters, prepare_only=True, progress_bar=False)
    return copy


def execute(notebook: str | Path, parameters: dict, build: Path | None = None) -> Executed:
    """Run a notebook from top to bottom, in its own folder, with these parameters.

    notebook    a path or a name, see `find`
    parameters  {name: value}; each must be a parameter of the notebook (papermill itself only warns)
    build       where the executed copy and its HTML page go; default `build_folder()`

    Raises UserError for unknown notebooks and parameters, and when a cell fails: the line says which cell, and the
    copy with everything up to it is kept.
    """
    source, copy = _checked(notebook, parameters, build)
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    failure = None
    try:
        papermill.execute_notebook(
            str(source), str(copy), parameters, kernel_name="python3", cwd=str(source.parent),
            progress_bar=sys.stderr.isatty(), store_widget_state=False,
        )  # fmt: skip
    except PapermillExecutionError as error:
        first = next((line for line in error.source.splitlines() if line.strip()), "")
        told = re.sub(r"\s+", " ", f"{error.ename}: {error.evalue}").strip()
        failure = f"cell [{error.exec_count}] failed, which begins with `{first.strip()}`: {told}"
    except DeadKernelError:
        failure = "the kernel died; most often the memory was full (see: disentkit doctor)"
    except NoSuchKernel:
        failure = f"there is no kernel python3; install it with: {sys.executable} -m ipykernel install --sys-prefix"
    if not copy.exists():
        raise UserError(f"{source.name}: {failure}")
    html = _page(copy)
    if failure:
        raise UserError(f"{source.name}: {failure}. The executed copy is {copy}")
    return Executed(copy, html)


def _checked(notebook: str | Path, parameters: dict, build: Path | None) -> tuple[Path, Path]:
    """(the notebook, the place of its copy) once the parameters have been compared with the notebook's own."""
    source = find(notebook)
    preset = parameters.get("preset")
    if preset is not None:
        one_of("preset", preset, PRESETS)
    import papermill

    try:
        known = papermill.inspect_notebook(str(source))
    except Exception as error:  # nbformat raises a dozen kinds, whichever the file happens to earn
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source} is not a readable notebook ({why[:80]})") from None
    for name in parameters:
        if not known:
            raise UserError(f"{source.name} has no parameters: no cell of it has the tag 'parameters'")
        one_of(f"parameter of {source.name}:", name, known)
    build = Path(build) if build else build_folder()
    build.mkdir(parents=True, exist_ok=True)
    stem = source.stem
    if source.parent != NOTEBOOKS:  # a student's copy: thirty of one name must not overwrite each other's pages
        stem += "-" + hashlib.sha256(str(source).encode()).hexdigest()[:6]
    copy = (build / (stem + (f"-{preset}" if preset else "") + ".ipynb")).resolve()
    if copy == source:
        raise UserError(f"{source} lies in the folder of the executed copies; move it elsewhere")
    for old in (copy, copy.with_suffix(".html")):
        old.unlink(missing_ok=True)  # what lies there afterwards is of this run
    return source, copy


def _page(copy: Path) -> Path:
    """The notebook as one HTML page beside it."""
    from nbconvert import HTMLExporter

    logging.getLogger("traitlets").setLevel(logging.ERROR)  # it warns of every picture without alternative text
    text, _ = HTMLExporter().from_filename(str(copy))
    page = copy.with_suffix(".html")
    page.write_text(text, encoding="utf-8")
    return page


def lab(arguments: list[str]) -> int:
    """JupyterLab of this Python on the notebooks, until it is stopped; `arguments` are JupyterLab's own."""
    place = folder()
    from jupyterlab.labapp import LabApp

    with tempfile.TemporaryDirectory(prefix="disentkit-lab-") as temporary:
        settings = Path(temporary) / "settings"
        settings.mkdir()
        (settings / "overrides.json").write_text(json.dumps(NO_NEWS))
        ours = [f"--ServerApp.root_dir={place}", f"--LabApp.app_settings_dir={settings}"]
        LabApp.launch_instance(argv=[*ours, *arguments])
    return 0
