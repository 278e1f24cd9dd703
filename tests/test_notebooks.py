"""Every notebook: at smoke through papermill and nbval, twice in one kernel, and its exercises right and wrong."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from disentkit import notebooks

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
by_name = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)


def code_cells(notebook, tag):
    """The sources of the code cells whose tag begins with `tag`, by tag."""
    cells = [c for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    return {t: c.source for c in cells for t in c.metadata.get("tags", []) if t.startswith(tag)}


def execute(nb, notebook):
    """Run the cells in one kernel, in the notebook's own folder."""
    NotebookClient(
        nb, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(notebook.parent)}}
    ).execute()


def answers(notebook):
    number, name = notebook.stem.split("_", 1)
    return importlib.import_module(f"solutions.{name}_{number}").EXERCISES


@by_name
def test_begins_with_its_parameters_and_defaults_to_quick(notebook):
    import papermill

    parameters = papermill.inspect_notebook(str(notebook))
    assert list(parameters) == ["preset", "seed", "device", "minutes"]
    assert parameters["preset"]["default"] == '"quick"'
    assert all(p["inferred_type_name"] != "None" and p["help"] for p in parameters.values())


@by_name
def test_prose_between_code(notebook):
    """Never more than two code cells in a row, no cell longer than 24 lines, at least three exercises."""
    cells = nbformat.read(notebook, 4).cells
    kinds = [cell.cell_type for cell in cells]
    rows = re.findall(r"c+", "".join(k[0] for k in kinds))
    stubs = [cell for cell in cells if cell.metadata.get("tags")]
    assert max(map(len, rows)) <= 2 and kinds[0] == "markdown"
    assert max(len(cell.source.splitlines()) for cell in cells) <= 24
    assert len([s for s in stubs if s.metadata.tags[0].startswith("exercise-")]) >= 3
    assert len(answers(notebook)) == len(code_cells(notebook, "exercise-")) == len(code_cells(notebook, "check-"))


@pytest.mark.slow
@by_name
def test_smoke_by_papermill(notebook, tmp_path):
    done = notebooks.execute(notebook, {"preset": "smoke"}, build=tmp_path)
    executed = nbformat.read(done.notebook, 4)
    pictures = [o for c in executed.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 5 and "widgets" not in executed.metadata
    assert done.html.stat().st_size > 100_000  # the pictures are in it


@pytest.mark.slow
@by_name
def test_smoke_by_nbval(notebook):
    """nbval on a copy under build/ whose parameters papermill set; what must hold is asserted in its cells."""
    copy = notebooks.prepare(notebook, {"preset": "smoke"}, build=ROOT / "build" / "nbval")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-q"]
    command += ["-p", "no:cacheprovider", "--override-ini=addopts=", "-c", os.devnull]
    command += [f"--rootdir={copy.parent}", str(copy)]
    done = subprocess.run(command, cwd=copy.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d+ passed", done.stdout)


@pytest.mark.slow
@by_name
def test_all_cells_twice_in_one_kernel(notebook, tmp_path):
    nb = nbformat.read(notebooks.prepare(notebook, {"preset": "smoke"}, build=tmp_path), 4)
    nb.cells = nb.cells + [nbformat.from_dict({**cell, "id": f"again-{i}"}) for i, cell in enumerate(nb.cells)]
    execute(nb, notebook)
    said = "".join(o.get("text", "") for c in nb.cells for o in c.get("outputs", []))
    if "workbench.train(" in "".join(c.source for c in nb.cells):
        assert said.count("starting anew from seed 0") >= 2  # a finished training starts anew, and says so


@pytest.mark.slow
@by_name
def test_exercises_accept_right_answers_and_refuse_wrong_ones(notebook, tmp_path):
    """One kernel runs the notebook to its first exercise, then every answer with its check."""
    nb = nbformat.read(notebooks.prepare(notebook, {"preset": "smoke"}, build=tmp_path), 4)
    first = next(i for i, c in enumerate(nb.cells) if (c.metadata.get("tags") or [""])[0].startswith("exercise-"))
    checked = code_cells(notebook, "check-")
    stubs = code_cells(notebook, "exercise-")
    nb.cells = nb.cells[:first]
    for name, (right, *wrong) in answers(notebook).items():
        assert len(wrong) >= 2
        check = checked[f"check-{name}"]
        nb.cells += [nbformat.v4.new_code_cell(source) for source in (stubs[f"exercise-{name}"], check, right, check)]
        for answer in wrong:
            body = "\n".join("    " + line for line in check.splitlines())
            refused = f"try:\n{body}\nexcept AssertionError as error:\n    print('refused:', error)\n"
            refused += f"else:\n    raise RuntimeError('a wrong answer to {name} passed')"
            nb.cells += [nbformat.v4.new_code_cell(answer), nbformat.v4.new_code_cell(refused)]
    execute(nb, notebook)
    said = "".join(o.get("text", "") for c in nb.cells[first:] for o in c.get("outputs", []))
    assert said.count("not tried yet") == said.count(": right") == len(answers(notebook))
    assert said.count("refused:") == sum(len(wrong) for _, *wrong in answers(notebook).values())
