"""The command `disentkit`: what it prints, its exit codes, its one-line errors, notebooks run by papermill."""

import json
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest

from disentkit import cli, commands, notebooks, runs

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Every test has a home of its own, and no shipped runs."""
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "home"


def call(capsys, *argv: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `disentkit ARGV`."""
    try:
        code = cli.main(argv)
    except SystemExit as leaving:  # argparse
        code = leaving.code
    told = capsys.readouterr()
    return code, told.out, told.err


def write_run(folder: Path, **card) -> Path:
    """A folder with the card of a run, without the run."""
    folder.mkdir(parents=True)
    needed = dict.fromkeys(runs.NEEDED, "")
    ours = {"format": runs.FORMAT, "steps": 4000, "seconds": 150.0, "stopped": "done", "scores": {}}
    (folder / "card.json").write_text(json.dumps(needed | ours | card))
    return folder


# ---- help


@pytest.mark.parametrize("argv", [(), ("--help",)])
def test_the_help_teaches(capsys, argv):
    code, out, err = call(capsys, *argv)
    assert code == 0 and not err
    assert all(word in out for word in ("examples:", "disentkit train factorvae", "DISENTKIT_HOME", "smoke", "paper"))


ALL = ("lab", "run", "train", "score", "data", "data list", "data fetch", "data export", "sweep", "runs",
       "runs list", "runs rm", "doctor")  # fmt: skip


@pytest.mark.parametrize("argv", ALL)
def test_every_command_says_what_it_does(capsys, argv):
    code, out, _ = call(capsys, *argv.split(), "--help")
    assert code == 0
    assert len(out.splitlines()) > 5 and f"usage: disentkit {argv}" in out


def test_version(capsys):
    from disentkit import __version__

    assert call(capsys, "--version")[:2] == (0, f"disentkit {__version__}\n")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['disentkit', '--help']\n"
        "from disentkit import cli\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'pandas', 'papermill', 'matplotlib') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"


# ---- mistakes: one line, exit code 2

MISTAKES = {
    "nonsense": "invalid choice: 'nonsense'",
    "train": "required: METHOD",
    "train nope": "unknown method 'nope'",
    "train factorvaee": "Did you mean 'factorvae'?",
    "train factorvae --sed 1": "unknown argument: --sed 1",
    "train factorvae --seed -1": "'-1' is not a whole number of 0 or more",
    "train factorvae --minutes 0": "'0' is not above 0",
    "train factorvae --minutes nan": "'nan' is not a finite number",
    "train factorvae --threads 0": "'0' is not a whole number of 1 or more",
    "train factorvae --preset quik": "Did you mean 'quick'?",
    "train factorvae --data dsprite": "unknown data set 'dsprite'. Did you mean 'dsprites'?",
    "train factorvae --preset paper --data mnist": "no preset 'paper' for data 'mnist'",
    "train factorvae --preset smoke --device gpu": "unknown device 'gpu'",
    "train factorvae --preset smoke --precision f16": "unknown precision 'f16'",
    "train factorvae --preset smoke --path here": "unknown option for data set 'dsprites': 'path'",
    "train factorvae --preset smoke --set gamma": "--set takes NAME=VALUE",
    "train factorvae --preset smoke --set gama=1": "unknown setting 'gama'. Did you mean 'gamma'?",
    "train factorvae --preset smoke --set gamma=big": "--set gamma: 'big' is not a number",
    "train factorvae --preset smoke --set steps=0": "--set steps: '0' is not a whole number of 1 or more",
    "train factorvae --preset smoke --set size=48": "not 48",
    "train factorvae --preset smoke --seed 99999999999999999999": "seed must be a whole number in 0 ... ",
    "train vae --preset smoke --set fc=1000000000": "there is not enough memory for this",
    "score nope": "no run 'nope'",
    "runs": "required: COMMAND",
    "runs rm": "required: NAME",
    "runs rm nope": "no run 'nope'",
    "data fetch digits": "needs no download",
    "data fetch nope": "unknown data set 'nope'",
    "run nope.ipynb": "notebook 'nope",
    "doctor --fast": "unknown argument: --fast. See: disentkit doctor --help",
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_a_mistake_is_one_line(capsys, argv):
    code, out, err = call(capsys, *argv.split())
    assert code == 2
    assert MISTAKES[argv] in err
    assert err.startswith("disentkit: ") and err.count("\n") == 1 and "Traceback" not in err
    assert "\n" not in out.rstrip()


def test_cuda_that_is_not_there_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = call(capsys, "train", "factorvae", "--preset", "smoke", "--device", "cuda")
    assert code == 2 and "device 'cuda' was asked for" in err and err.count("\n") == 1


def test_a_home_that_cannot_be_written_is_one_line(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "file" / "home"))
    code, _, err = call(capsys, "train", "factorvae", "--preset", "smoke")
    assert code == 2 and "Set DISENTKIT_HOME" in err and err.count("\n") == 1
    assert call(capsys, "runs", "list")[0] == 0  # looking needs no writing


def test_control_c_is_130(capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "data_list", interrupted)
    assert call(capsys, "data", "list") == (130, "", "disentkit: interrupted\n")


# ---- train, score, runs, data


def test_train_score_list_remove(capsys, home, monkeypatch):
    monkeypatch.setattr("disentkit.workbench.score", fewer_votes)
    monkeypatch.setattr("disentkit.metrics.arrays.POINTS", 500)
    code, out, _ = call(capsys, "train", "factorvae", "--preset", "smoke", "--set", "steps=4", "--set", "gamma=2.5",
                        "--threads", "1", "--seed", "3")  # fmt: skip
    name = "factorvae-dsprites-smoke-s3"
    assert code == 0 and f"next: disentkit score {name}" in out
    card = json.loads((home / "runs" / name / "card.json").read_text())
    assert (card["settings"]["steps"], card["settings"]["gamma"], card["seed"]) == (4, 2.5, 3)

    code, out, _ = call(capsys, "score", name)
    assert code == 0 and "FactorVAE score  0." in out and "unpruned" in out and "follows" in out
    assert json.loads((home / "runs" / name / "card.json").read_text())["scores"]["mig"]["dims"] == 10

    code, out, _ = call(capsys, "runs", "list")
    assert code == 0 and re.search(rf"^{name}\s+own\s+4\s+.*done\s+0\.\d\d\s", out, re.M)

    code, out, _ = call(capsys, "runs", "rm", name)
    assert code == 0 and out.startswith(f"removed {home / 'runs' / name} (")
    assert not (home / "runs" / name).exists()


def test_train_on_a_base_run(capsys, home):
    assert call(capsys, "train", "vae", "--preset", "smoke", "--set", "steps=2", "--threads", "1")[0] == 0
    base = ("--base", "vae-dsprites-smoke-s0")
    few = ("--set", "steps=2", "--set", "transforms=x", "--threads", "1", "--preset", "smoke")
    code, out, err = call(capsys, "train", "directions", *base, *few)
    assert code == 0 and "next: disentkit score directions-dsprites-smoke-s0" in out, err
    card = json.loads((home / "runs" / "directions-dsprites-smoke-s0" / "card.json").read_text())
    assert card["base"]["path"].endswith("vae-dsprites-smoke-s0") and card["data"]["options"] == {"size": 32}
    code, out, _ = call(capsys, "score", "directions-dsprites-smoke-s0")
    assert code == 0 and "measured by Threshold" in out and re.search(r"^x +-?0\.\d{3} ", out, re.M)

    code, _, err = call(capsys, "train", "directions", *few)
    assert code == 2 and "give base=RUN" in err


def fewer_votes(run, more=False):
    from disentkit import metrics

    data = run.data()
    found = {
        "factorvae_score": metrics.factorvae_score(run.model, data, votes=10, L=5),
        "betavae_score": metrics.betavae_score(run.model, data, votes=10, L=2),
        "mig": metrics.mig(run.model, data),
    }
    runs.write_card(run.path, run.card | {"scores": found})
    return found


def test_an_interrupted_training_says_so_and_goes_on(capsys, home, monkeypatch):
    from disentkit.methods.factorvae import FactorVAE

    whole_step = FactorVAE.step

    def interrupting(self, opt, *batches):
        signal.raise_signal(signal.SIGINT)
        return whole_step(self, opt, *batches)

    argv = ("train", "factorvae", "--preset", "smoke", "--set", "steps=4", "--threads", "1")
    monkeypatch.setattr(FactorVAE, "step", interrupting)
    code, _, err = call(capsys, *argv)
    assert code == 130 and "the same command goes on from here" in err
    assert "interrupted" in call(capsys, "runs", "list")[1]

    monkeypatch.setattr(FactorVAE, "step", whole_step)
    code, out, _ = call(capsys, *argv)
    assert code == 0 and "going on where it was interrupted" in out
    assert not [f for f in (home / "working").iterdir() if f.is_dir()]  # a lock file may stay


def test_an_interrupted_training_can_be_removed(capsys, home):
    (home / "working" / "factorvae-dsprites-quick-s0").mkdir(parents=True)
    assert call(capsys, "runs", "rm", "working/factorvae-dsprites-quick-s0")[0] == 0
    assert not [f for f in (home / "working").iterdir() if f.is_dir()]  # a lock file may stay


def test_no_runs_yet(capsys):
    code, out, _ = call(capsys, "runs", "list")
    assert code == 0 and out.startswith("no runs yet")


def test_the_list_of_runs_is_aligned_and_survives_a_broken_card(capsys, home, tmp_path):
    write_run(home / "runs" / "mine", scores={"factorvae_score": {"pruned": 0.0}})
    write_run(home / "runs" / "a-much-longer-name", steps=300_000, stopped="minutes")
    (write_run(home / "runs" / "broken") / "card.json").write_text("{")
    write_run(tmp_path / "shipped" / "theirs")
    code, out, _ = call(capsys, "runs", "list")
    lines = out.splitlines()[:5]
    assert code == 0
    assert len({line.index("shipped" if "theirs" in line else "own") for line in lines[1:]}) == 1
    assert any("broken" in line and "card unreadable" in line for line in lines)
    assert any("300,000" in line and "minutes" in line for line in lines)
    assert any("mine" in line and "0.00" in line for line in lines)


def test_rm_removes_nothing_when_one_name_is_wrong_or_shipped(capsys, home, tmp_path):
    write_run(home / "runs" / "mine")
    write_run(tmp_path / "shipped" / "theirs")
    code, _, err = call(capsys, "runs", "rm", "mine", "yours")
    assert code == 2 and "unknown run 'yours'" in err and (home / "runs" / "mine").exists()
    code, _, err = call(capsys, "runs", "rm", "theirs")
    assert code == 2 and "so it stays" in err and (tmp_path / "shipped" / "theirs").exists()


def test_data_list_names_every_set(capsys):
    from disentkit import data

    code, out, _ = call(capsys, "data", "list")
    assert code == 0
    assert all(f"{name}:" in out for name in data.names())
    assert all(out.count(f"  {word}") == len(data.names()) for word in ("factors", "size", "licence", "download"))


def test_score_of_data_without_factors_is_one_line(capsys, monkeypatch):
    class Opened:
        def __repr__(self):
            return "Run(x)"

    def refuse(run, more=False):
        raise ValueError("this metric needs factors; 'folder' has none")

    monkeypatch.setattr("disentkit.workbench.open_run", lambda name: Opened())
    monkeypatch.setattr("disentkit.workbench.score", refuse)
    code, _, err = call(capsys, "score", "x")
    assert code == 2 and err == "disentkit: this metric needs factors; 'folder' has none\n"


# ---- notebooks


PARAMETERS = 'preset: str = "quick"  # how large\nseed: int = 0'


def notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    """Write a small notebook whose first cell holds the parameters."""
    made = [nbformat.v4.new_code_cell(source) for source in cells]
    if parameters is not None:
        made.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Executed copies go to a folder of the test's."""
    monkeypatch.setattr(notebooks, "CHECKOUT", tmp_path)
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "build" / "notebooks"


def test_run_keeps_an_executed_copy_and_a_page_without_widget_state(capsys, tmp_path, build):
    source = notebook(
        tmp_path / "notebooks" / "07_small.ipynb",
        "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider",
        "import os\nprint(preset, seed + 1, os.path.basename(os.getcwd()))",
    )
    before = source.read_bytes()
    code, out, _ = call(capsys, "run", "07", "--preset", "smoke", "--seed", "41")
    assert code == 0 and source.read_bytes() == before
    copy, page = build / "07_small-smoke.ipynb", build / "07_small-smoke.html"
    assert str(copy) in out and str(page) in out
    executed = nbformat.read(copy, 4)
    assert executed.cells[-1].outputs[0].text == "smoke 42 notebooks\n"
    assert "widgets" not in executed.metadata
    assert "smoke 42 notebooks" in page.read_text()


def test_a_failing_cell_is_named_and_the_copy_is_kept(capsys, tmp_path, build):
    notebook(tmp_path / "notebooks" / "08_bad.ipynb", "print('before')", "\n1 / 0", "print('after')")
    code, _, err = call(capsys, "run", "08_bad", "--preset", "smoke")
    copy = build / "08_bad-smoke.ipynb"
    assert code == 2 and err.count("\n") == 1
    assert "08_bad.ipynb: cell [4]" in err and "`1 / 0`" in err and "ZeroDivisionError: division by zero" in err
    assert str(copy) in err
    assert "before" in copy.read_text() and "ZeroDivisionError" in copy.with_suffix(".html").read_text()


@pytest.mark.parametrize(
    "argv, told",
    [
        (("--minutes", "3"), "unknown parameter of 09_x.ipynb: 'minutes'"),
        (("--preset", "huge"), "unknown preset 'huge'"),
        (("--preset", "smok"), "Did you mean 'smoke'?"),
    ],
)
def test_unknown_parameters_and_presets_are_errors(capsys, tmp_path, build, argv, told):
    notebook(tmp_path / "notebooks" / "09_x.ipynb", "open('ran', 'w')")
    code, _, err = call(capsys, "run", "09", *argv)
    assert code == 2 and told in err and err.count("\n") == 1
    assert not (tmp_path / "notebooks" / "ran").exists()


def test_a_notebook_without_parameters_says_so(capsys, tmp_path, build):
    notebook(tmp_path / "notebooks" / "10_y.ipynb", "1 + 1", parameters=None)
    code, _, err = call(capsys, "run", "10", "--preset", "smoke")
    assert code == 2 and "no cell of it has the tag 'parameters'" in err


@pytest.mark.parametrize("text", ["<html>", "", "3", '{"cells": 3, "nbformat": 4, "metadata": {}}'])
def test_a_file_that_is_no_notebook_is_one_line(capsys, tmp_path, build, text):
    (tmp_path / "no.ipynb").write_text(text)
    code, _, err = call(capsys, "run", str(tmp_path / "no.ipynb"), "--preset", "smoke")
    assert code == 2 and "is not a readable notebook" in err and err.count("\n") == 1


def test_an_older_copy_does_not_pass_for_this_run(tmp_path, build):
    source = notebook(tmp_path / "notebooks" / "11_z.ipynb", "x = 1")
    build.mkdir(parents=True)
    (build / "11_z-smoke.html").write_text("old")
    copy = notebooks.prepare(source, {"preset": "smoke"})
    assert copy == build / "11_z-smoke.ipynb" and not (build / "11_z-smoke.html").exists()
    assert 'preset = "smoke"' in nbformat.read(copy, 4).cells[1].source


def test_names_of_notebooks(tmp_path, build):
    from disentkit.errors import UserError

    place = tmp_path / "notebooks"
    for name in ("00_tour", "01_factorvae", "01_more"):
        notebook(place / f"{name}.ipynb")
    assert notebooks.find("00") == notebooks.find("00_tour.ipynb") == place / "00_tour.ipynb"
    assert notebooks.find("01_more") == place / "01_more.ipynb"
    with pytest.raises(UserError, match="unknown notebook '01'.*00_tour, 01_factorvae, 01_more"):
        notebooks.find("01")


def test_where_the_checkout_is_read_only_copies_go_home(tmp_path, build, home):
    (tmp_path / "build").write_text("in the way")
    assert notebooks.build_folder() == home / "build" / "notebooks"


def test_the_presets_are_those_of_the_methods():
    from disentkit.methods import METHODS, learner_class

    ours = [name for name, (module, _) in METHODS.items() if module.startswith("disentkit.")]  # toys join in tests
    assert {preset for name in ours for preset, _ in learner_class(name).PRESETS} == set(notebooks.PRESETS)


# ---- lab


def test_lab_passes_arguments_on_and_keeps_the_news_away(monkeypatch, tmp_path, build, capsys):
    from jupyterlab.labapp import LabApp

    seen = {}

    def launch(argv):
        options = dict(arg.split("=", 1) for arg in argv if "=" in arg)
        overrides = Path(options["--LabApp.app_settings_dir"]) / "overrides.json"
        seen.update(argv=argv, root=options["--ServerApp.root_dir"], overrides=json.loads(overrides.read_text()))

    monkeypatch.setattr(LabApp, "launch_instance", launch)
    assert call(capsys, "lab", "--no-browser", "--port", "8890")[0] == 0
    assert seen["argv"][-3:] == ["--no-browser", "--port", "8890"]
    assert seen["root"] == str(tmp_path / "notebooks")
    assert seen["overrides"]["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_lab_without_a_checkout_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "no")
    code, _, err = call(capsys, "lab")
    assert code == 2 and "clone the repository" in err and err.count("\n") == 1


def test_a_default_in_words_can_be_given(tmp_path):
    argv = ["data", "export", "creatures", "--out", str(tmp_path), "--images", "2", "--size", "32"]
    assert cli.main([*argv, "--set", "held_out=unbalanced"]) == 0


def test_warnings_are_one_line(tmp_path, capfd, monkeypatch):
    def warned(args):
        warnings.warn("left out 2 of 3 faces", stacklevel=1)
        return 0

    monkeypatch.setattr(commands, "doctor", warned)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main(["doctor"]) == 0
    assert capfd.readouterr().err == "disentkit: left out 2 of 3 faces\n"
