"""Build or refresh the checkout's `.venv`: the locked packages, the right torch build, disentkit itself (editable).

    python tools/setup_env.py [--torch cpu|cuda] [--wheels FOLDER]

The Makefile calls this before everything else; it costs about a tenth of a second when there is nothing to do.
Without make (Windows): run it by hand, then `.venv\\Scripts\\disentkit lab`. The environment variables TORCH and
WHEELS, which make sets from its command line, mean the same as the two options.

Which torch: `cuda` if `nvidia-smi` answers, else `cpu`, unless told. On Linux the CPU build comes from PyTorch's own
index; where that cannot be reached, from pip's default index, and one line says so. On Windows and macOS the default
index holds the CPU build. With `--wheels` everything comes from that folder and nothing from the network.

Standard library only. The syntax stays old on purpose: an old Python must get as far as the line that says so.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class Problem(Exception):
    """Something the user can put right; shown as one line."""


def check_python(version=None):
    """Raise Problem if `version` (default: the running Python) is older than OLDEST."""
    version = tuple(version or sys.version_info)
    if version[:2] < OLDEST:
        raise Problem("disentkit needs Python %d.%d or newer, this is %d.%d: name a newer one, for example "
                      "make lab PYTHON=python3.12" % (OLDEST + version[:2]))


def gpu_answers():
    """True if `nvidia-smi` is there and answers."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        answer = subprocess.run([command, "-L"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def choose_torch(asked, platform=sys.platform):
    """The torch build to install, "cpu" or "cuda".

    asked: "cpu", "cuda", or empty to decide here. Raises Problem for any other word, and for "cuda" off Linux, where
    pip's default index has no CUDA build.
    """
    if asked not in ("", "cpu", "cuda"):
        raise Problem("TORCH is %r: take cpu or cuda, or leave it out to let nvidia-smi decide" % asked)
    if platform.startswith("linux"):
        return asked or ("cuda" if gpu_answers() else "cpu")
    if asked == "cuda":
        raise Problem("TORCH=cuda works on Linux only: install without TORCH, then replace torch in .venv by the "
                      "command that https://pytorch.org/get-started/locally/ gives for this system")
    return "cpu"


def torch_source(build, platform=sys.platform, reachable=None):
    """(pip options, line to print or None): where torch of this build comes from.

    reachable: a function of an address, for tests; default `answers`.
    """
    if build == "cuda" or not platform.startswith("linux"):
        return [], None
    if (reachable or answers)(CPU_INDEX + "/torch/"):
        return ["--index-url", CPU_INDEX], None
    return [], ("%s cannot be reached: torch comes from pip's default index instead "
                "(on Linux x86-64 that is the CUDA build, about 2.6 GB, unless your pip is set up with another source)"
                % CPU_INDEX)


def answers(address, seconds=8):
    """True if a plain GET of `address` succeeds."""
    try:
        with urllib.request.urlopen(address, timeout=seconds):
            return True
    except (OSError, ValueError):  # URLError and time-outs are OSErrors
        return False


def locked(name, lock):
    """The line `name==version` of the lock file's text."""
    for line in lock.splitlines():
        if line.startswith(name + "=="):
            return line.strip()
    raise Problem("requirements.lock has no line for %s" % name)


def fingerprint(root):
    """Hash of the files that say what has to be installed; if it changed, pip runs again."""
    text = (root / "pyproject.toml").read_bytes() + (root / "requirements.lock").read_bytes()
    return hashlib.sha256(text).hexdigest()


def read_stamp(path):
    """The stamp as a dict; empty if there is none or it is damaged."""
    try:
        stamp = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def make_venv(folder):
    """An empty virtual environment at `folder`, replacing what is there."""
    print("making %s with Python %d.%d" % ((folder,) + sys.version_info[:2]), flush=True)
    try:
        import ensurepip  # noqa: F401  (Debian ships Python without it)
        import venv
    except ImportError:
        raise Problem("this Python cannot make virtual environments: on Debian or Ubuntu, apt install python%d.%d-venv"
                      % sys.version_info[:2]) from None
    venv.create(str(folder), clear=True, with_pip=True, symlinks=os.name != "nt")


def pip(python, *options):
    """Run pip of the environment. Its chatter is shown on a terminal only. Raises Problem if it fails."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"] + quiet + list(options)
    if subprocess.run(command, cwd=str(ROOT)).returncode:
        raise Problem("pip could not finish (its message is above): put that right and give the same command again, "
                      "it goes on from there")


def setup(asked="", wheels="", root=ROOT):
    """Make `.venv` what requirements.lock says. Returns True if there was anything to do.

    asked: as in choose_torch; empty keeps the build that is installed. wheels: a folder of wheels that replaces every
    index, or empty. A finished environment is used as it is, whichever Python runs this script.
    """
    folder = root / ".venv"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    mark = folder / "disentkit-setup.json"
    found = read_stamp(mark)
    build = choose_torch(asked or found.get("torch", ""))
    # The folder counts because a virtual environment does not survive being moved.
    wanted = {"folder": str(root), "torch": build, "files": fingerprint(root)}
    if python.exists() and found == wanted:
        return False
    if wheels:
        wheels = str(Path(wheels).resolve())
        if not any(Path(wheels).glob("*.whl")):
            raise Problem("WHEELS=%s holds no .whl file" % wheels)

    if not python.exists() or found.get("folder") != wanted["folder"] or found.get("torch") != build:
        check_python()
        make_venv(folder)
    mark.write_text(json.dumps(dict(wanted, files="unfinished"), indent=1))  # so that a broken-off install goes on
    lock = (root / "requirements.lock").read_text()
    print("installing torch (%s), then the rest of requirements.lock: a minute or several" % build, flush=True)
    if wheels:
        source = ["--no-index", "--find-links", wheels]
    else:
        where, line = torch_source(build)
        if line:
            print(line, flush=True)
        pip(python, "--no-deps", *(where + [locked("torch", lock)]))
        source = []
    pip(python, *(source + ["-r", "requirements.lock"]))
    pip(python, *(source + ["--no-deps", "--no-build-isolation", "--editable", "."]))  # built by the lock's setuptools
    report(python, build)
    mark.write_text(json.dumps(wanted, indent=1))
    return True


def report(python, build):
    """Say which torch was installed, from what torch itself says."""
    code = "import torch; print(torch.__version__, torch.version.cuda or 'cpu')"
    answer = subprocess.run([str(python), "-c", code], stdout=subprocess.PIPE, universal_newlines=True)
    if answer.returncode:
        raise Problem("torch was installed but cannot be imported (its message is above)")
    version, cuda = answer.stdout.split()
    print(".venv is ready: torch %s, %s build" % (version, "CPU" if cuda == "cpu" else "CUDA " + cuda), flush=True)
    if build == "cuda" and cuda == "cpu":
        print("note: a CUDA build was wanted, but pip found this CPU build first; training will not use the GPU",
              flush=True)


def main(argv=None):
    """Entry point. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Build or refresh .venv from requirements.lock.")
    parser.add_argument("--torch", default=os.environ.get("TORCH", ""), help="cpu or cuda (default: ask nvidia-smi)")
    parser.add_argument("--wheels", default=os.environ.get("WHEELS", ""), help="install offline from this folder")
    args = parser.parse_args(argv)
    try:
        setup(args.torch, args.wheels)
    except Problem as problem:
        print("disentkit: %s" % problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
