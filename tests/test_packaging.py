"""The install files agree with each other, the import stays light, and nothing stray is committed."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
LOCK_LINES = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
HEAVY = ["ipywidgets", "matplotlib", "pandas", "sklearn", "scipy", "IPython"]
BIGGEST = 10_000_000  # bytes, of a committed file


def pins(lines) -> dict[str, Version]:
    """{canonical name: version} of the `name==version` lines among requirement lines."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\d[A-Za-z0-9.]*)", line.strip())
        if match:
            name = canonicalize_name(match[1])
            assert name not in found, f"{name} is pinned twice"
            found[name] = Version(match[2])
    return found


LOCK = pins(LOCK_LINES)


# --- the lock, pyproject and environment.yml --------------------------------------------------------------------------

def test_lock_holds_only_names_and_versions():
    lines = [line for line in LOCK_LINES if line.strip() and not line.startswith("#")]
    wrong = [line for line in lines if not pins([line])]  # a hash, an address, a marker, "+cpu" or an option
    assert not wrong
    assert lines == sorted(lines, key=str.lower)
    assert not [name for name in LOCK if name.startswith(("nvidia", "cuda", "triton"))]


def test_lock_satisfies_every_range():
    for need in DIRECT:
        assert need.specifier, f"{need.name} has no range in pyproject.toml"
        assert need.specifier.contains(LOCK[canonicalize_name(need.name)]), str(need)


def test_lock_is_complete():
    """Every package that a locked package needs here is locked too, in a version it accepts."""
    for name in LOCK:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # the next test asks for the ones that matter
        for need in map(Requirement, needs):
            if need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            if "python_version" in str(need.marker) or "platform" in str(need.marker) or "os_name" in str(need.marker):
                continue  # needed on some systems only, where pip adds it
            pinned = LOCK.get(canonicalize_name(need.name))
            assert pinned is not None, f"{name} needs {need}, which requirements.lock leaves out"
            assert need.specifier.contains(pinned), f"{name} needs {need}, requirements.lock has {pinned}"


def test_installed_is_what_is_locked():
    for need in DIRECT:
        installed = Version(importlib.metadata.version(need.name)).public  # without torch's +cpu
        locked = LOCK[canonicalize_name(need.name)]
        assert Version(installed) == locked, f"{need.name} {installed} is installed, {locked} is locked"


def test_conda_installs_the_same_set():
    text = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert set(text) == {"name", "channels", "dependencies"}
    assert text["name"] == PROJECT["name"]
    python, pip, section = text["dependencies"]
    assert pip == "pip"
    assert set(section) == {"pip"}

    series = re.fullmatch(r"python=(3\.\d+)\.\*", python)
    assert series and SpecifierSet(PROJECT["requires-python"]).contains(series[1] + ".0")

    lines, editable = [], False
    for line in section["pip"]:
        option, _, value = line.partition(" ")
        if option == "-r":
            lines += (ROOT / value).read_text(encoding="utf-8").splitlines()
        elif option == "-e":
            editable = value == "."
        elif option == "--extra-index-url":
            assert value == load_setup().CPU_INDEX
        else:
            lines.append(line)
            assert pins([line]), f"environment.yml: {line!r} is neither a known option nor name==version"
    assert editable
    assert pins(lines) == LOCK


def test_one_version_everywhere():
    import disentkit

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] == disentkit.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == PROJECT["license"] == "MIT"


# --- the import -------------------------------------------------------------------------------------------------------

def python(code: str) -> str:
    """What a fresh Python in the repository prints."""
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout


def test_import_pulls_in_nothing_heavy():
    loaded = set(python("import sys, disentkit; print(*sys.modules)").split())
    assert not loaded.intersection(HEAVY)


@pytest.mark.slow
def test_import_is_fast():
    code = "import torch, time; t = time.perf_counter(); import disentkit; print(time.perf_counter() - t)"
    seconds = min(float(python(code)) for _ in range(3))
    assert seconds < 0.3, f"import disentkit takes {seconds:.2f} s beyond torch"


# --- what is committed ------------------------------------------------------------------------------------------------

def git(*command: str) -> str:
    """Output of a git command on the index, so that a notebook someone ran in place does not count."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: what is committed cannot be listed")
    done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode in (0, 1), done.stderr  # 1: `git grep` found nothing
    return done.stdout


def tracked() -> list[str]:
    names = git("ls-files", "-z").split("\0")[:-1]
    assert "pyproject.toml" in names, "nothing is committed here yet"
    return names


def test_no_machine_paths():
    tracked()
    places = r"/[w]ork/|/[h]ome/[a-z]|/[r]oot/|/[U]sers/|[A-Z]:\\+[U]sers"  # [] so that it does not find itself
    assert git("grep", "--cached", "-nIE", rf"(^|[^A-Za-z0-9_.~-])({places})") == ""


def test_no_big_file_and_nothing_ignored():
    big = []
    for line in git("ls-files", "-s", "-z").split("\0")[:-1]:
        info, name = line.split("\t", 1)
        size = int(git("cat-file", "-s", info.split()[1]))
        if size > BIGGEST:
            big.append(f"{name}: {size / 1e6:.1f} MB")
    assert not big
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == ""


def test_notebooks_are_committed_clean():
    for name in (n for n in tracked() if n.endswith(".ipynb")):
        book = json.loads(git("show", f":{name}"))
        assert book["metadata"]["kernelspec"]["name"] == "python3", name
        assert "widgets" not in book["metadata"], f"{name}: saved widget state"
        for number, cell in enumerate(book["cells"]):
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None, f"{name}: output in cell {number}"


def test_ruff_has_nothing_to_say(tmp_path):
    """The code as it lies here, and the notebooks as committed: someone may have tried an exercise in place."""
    code = [name for name in tracked() if name.endswith(".py") and (ROOT / name).exists()]
    git("checkout-index", f"--prefix={tmp_path}/", "--", *(name for name in tracked() if name.endswith(".ipynb")))
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "--config"]
    done = subprocess.run([*command, "pyproject.toml", *code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- tools/setup_env.py, the Makefile, .ci/run ------------------------------------------------------------------------

SETUP = ROOT / "tools" / "setup_env.py"


def load_setup():
    spec = importlib.util.spec_from_file_location("setup_env", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A function that puts an `nvidia-smi` with the given exit code alone on the PATH; None: no such command."""
    if os.name == "nt":
        pytest.skip("the stand-in for nvidia-smi is a shell script")

    def put(code: int | None):
        folder = tmp_path / f"bin{code}"
        folder.mkdir()
        if code is not None:
            (folder / "nvidia-smi").write_text(f"#!/bin/sh\nexit {code}\n")
            (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


@pytest.mark.parametrize("code, build", [(0, "cuda"), (9, "cpu"), (None, "cpu")])
def test_nvidia_smi_decides(nvidia_smi, code, build):
    nvidia_smi(code)
    setup = load_setup()
    assert setup.choose_torch("", "linux") == build
    assert setup.choose_torch("cpu", "linux") == "cpu"
    assert setup.choose_torch("cuda", "linux") == "cuda"
    assert setup.choose_torch("", "win32") == setup.choose_torch("", "darwin") == "cpu"


def test_wrong_torch_is_one_line():
    setup = load_setup()
    with pytest.raises(setup.Problem, match="Linux only"):
        setup.choose_torch("cuda", "darwin")
    env = dict(os.environ, TORCH="banana")
    done = subprocess.run([sys.executable, str(SETUP)], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "disentkit: TORCH is 'banana': take cpu or cuda, or leave it out to let nvidia-smi decide\n"


def test_torch_comes_from_the_right_place():
    setup = load_setup()
    assert setup.torch_source("cpu", "linux", lambda address: True) == (["--index-url", setup.CPU_INDEX], None)
    options, line = setup.torch_source("cpu", "linux", lambda address: False)
    assert options == [] and "cannot be reached" in line and "\n" not in line
    for build, platform in (("cuda", "linux"), ("cpu", "darwin"), ("cpu", "win32")):
        assert setup.torch_source(build, platform, pytest.fail) == ([], None)
    assert not setup.answers("http://127.0.0.1:9/")  # nobody listens there
    assert setup.locked("torch", "\n".join(LOCK_LINES)) == f"torch=={LOCK['torch']}"


def test_old_python_gets_one_line():
    setup = load_setup()
    oldest = SpecifierSet(PROJECT["requires-python"])
    assert oldest.contains("%d.%d" % setup.OLDEST) and not oldest.contains("%d.%d" % (3, setup.OLDEST[1] - 1))
    setup.check_python((3, 14, 0))
    with pytest.raises(setup.Problem, match="needs Python 3.11 or newer, this is 3.8"):
        setup.check_python((3, 8, 10))
    ast.parse(SETUP.read_text(encoding="utf-8"), feature_version=(3, 6))  # and 3.6 can read the script


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """(setup module, folder, commands): a small checkout in which pip and venv only note that they were called."""
    setup, calls = load_setup(), []
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)

    def venv(folder):
        calls.append("venv")
        program = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch()

    monkeypatch.setattr(setup, "make_venv", venv)
    monkeypatch.setattr(setup, "pip", lambda python, *options: calls.append(" ".join(options)))
    monkeypatch.setattr(setup, "report", lambda python, build: None)
    monkeypatch.setattr(setup, "gpu_answers", lambda: False)
    monkeypatch.setattr(setup, "answers", lambda address: False)
    monkeypatch.setattr(setup, "sys", type("Sys", (), {"platform": "linux", "version_info": sys.version_info}))
    return setup, tmp_path, calls


def test_environment_is_rebuilt_only_when_it_must(checkout, capsys):
    setup, root, calls = checkout
    install = [f"--no-deps torch=={LOCK['torch']}", "-r requirements.lock",
               "--no-deps --no-build-isolation --editable ."]
    assert setup.setup(root=root) and calls == ["venv", *install]
    assert "cannot be reached" in capsys.readouterr().out
    calls.clear()
    assert not setup.setup(root=root) and not setup.setup("cpu", root=root) and calls == []

    (root / "requirements.lock").write_text("\n".join(LOCK_LINES) + "\n# changed\n")
    assert setup.setup(root=root) and calls == install  # refreshed in place
    calls.clear()
    assert setup.setup("cuda", root=root) and calls == ["venv", *install]  # the other torch: anew
    calls.clear()
    assert not setup.setup(root=root) and calls == []  # and it stays, though no GPU answers


def test_broken_off_install_goes_on(checkout, monkeypatch):
    setup, root, calls = checkout

    def broken(python, *options):
        raise setup.Problem("no network")

    with monkeypatch.context() as patch:
        patch.setattr(setup, "pip", broken)
        with pytest.raises(setup.Problem, match="no network"):
            setup.setup(root=root)
    calls.clear()
    assert setup.setup(root=root) and calls[-1].endswith("--editable .") and "venv" not in calls


def test_offline_wheels(checkout, tmp_path):
    setup, root, calls = checkout
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with pytest.raises(setup.Problem, match="holds no .whl file"):
        setup.setup(wheels=str(wheels), root=root)
    (wheels / "a-1-py3-none-any.whl").touch()
    assert setup.setup(wheels=str(wheels), root=root)
    offline = f"--no-index --find-links {wheels.resolve()}"
    assert calls == ["venv", f"{offline} -r requirements.lock",
                     f"{offline} --no-deps --no-build-isolation --editable ."]


@pytest.mark.parametrize("target, commands", [
    ("lab", [".venv/bin/disentkit lab --no-browser"]),
    ("test", [".venv/bin/python -m pytest tests --no-browser"]),
    ("evidence", [".venv/bin/python tests/evidence/figures.py", ".venv/bin/python tests/evidence/run.py --no-browser",
                  ".venv/bin/python tests/evidence/mix.py", ".venv/bin/python tests/evidence/mixnmatch.py",
                  ".venv/bin/python tests/evidence/gzsnet.py", ".venv/bin/python tests/evidence/directions.py"]),
])
def test_make_targets(target, commands):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shown = subprocess.run(["make", "-n", target, "ARGS=--no-browser", "PYTHON=some-python"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.splitlines()
    shown = [line for line in shown if not line.startswith("make")]  # a make above this one adds its own lines
    assert shown == ["some-python tools/setup_env.py", *commands]


def test_make_clean_keeps_runs():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nclean:\n")[1]
    assert "data" not in recipe and recipe.strip().startswith("rm -rf .venv build ")


def test_ci_script_reads():
    if os.name == "nt" or shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
