"""doctor(): what this machine offers to the kit, and the preset to take.

    from disentkit.doctor import doctor
    doctor()

Nothing is changed and nothing is trained; it takes about a second.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
import torch

from disentkit import __version__, machine
from disentkit.errors import UserError
from disentkit.places import CHECKOUT, writable_home

GPU_ENOUGH = 3.0  # GB free: FactorVAE at 64 pixels with its discriminator, the CUDA context included
RAM_ENOUGH = 2.0  # GB free: a notebook's kernel with PyTorch, pictures and a training at 64 pixels
DISK_ENOUGH = 1.0  # GB free: runs and checkpoints; a checkpoint of `paper` is 65 MB


@dataclass(frozen=True)
class Report:
    """What was found. `rows`: (subject, finding); `problems`: what to put right, a line each; `preset` and why."""

    rows: list[tuple[str, str]]
    problems: list[str]
    preset: str
    why: str

    def __str__(self) -> str:
        rows = [*self.rows, ("take", f"preset '{self.preset}': {self.why}")]
        width = max(len(subject) for subject, _ in rows)
        lines = [f"{subject:<{width}}  {finding}" for subject, finding in rows]
        return "\n".join(lines + [f"! {problem}" for problem in self.problems])

    __repr__ = __str__


def doctor() -> Report:
    """Look at Python, PyTorch, the processor, the GPU, memory, the writable folder and the installed versions."""
    problems: list[str] = []
    gpu, free = _gpu(problems)
    rows = [
        ("Python", f"{platform.python_version()}, disentkit {__version__}, {platform.system()} {platform.machine()}"),
        ("PyTorch", f"{torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU'} build"),
        ("processor", _processor()),
        ("GPU", gpu),
        ("memory", _memory(problems)),
        ("your runs", _home(problems)),
        ("versions", _versions()),
    ]
    if sys.version_info[:2] < (3, 11):
        problems.insert(0, "Python 3.11 or newer is needed: make lab PYTHON=python3.12 builds .venv with it")
    preset, why = advice(free)
    return Report(rows, problems, preset, why)


def advice(gpu_free: float | None) -> tuple[str, str]:
    """(preset, why in one line) from the free GPU memory in GB, None without a GPU."""
    if gpu_free is None:
        return "quick", "no GPU; two to three minutes a training on two cores, scored"
    if gpu_free < GPU_ENOUGH:
        return "quick", f"the GPU has only {gpu_free:.1f} GB free, others may use it; take device='cpu'"
    return "course", "there is a GPU; 'course' takes an hour on a CPU, on a GPU it was not timed; 'paper' takes longest"


def _processor() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    idle = machine.idle_cores()
    name = str(torch.cpu.get_capabilities().get("cpu_name", "") or platform.processor() or "CPU")
    bf16 = "bf16: networks train in bf16" if machine.has_bf16(torch.device("cpu")) else "no bf16: training in float32"
    threads = "1 thread" if idle == 1 else f"{idle} threads"
    return f"{name}, {cores} cores; a training started now takes {threads}; {bf16}"


def _gpu(problems: list[str]) -> tuple[str, float | None]:
    """(finding, free GB or None)."""
    if torch.cuda.is_available():
        free, total = (size / 1e9 for size in torch.cuda.mem_get_info())
        bf16 = "bf16" if machine.has_bf16(torch.device("cuda")) else "no bf16"
        return f"{torch.cuda.get_device_name()}, {free:.0f} of {total:.0f} GB free, {bf16}", free
    if shutil.which("nvidia-smi"):
        build = torch.version.cuda is None
        cure = "make lab TORCH=cuda installs the CUDA build" if build else "its driver may be too old for this PyTorch"
        problems.append(f"nvidia-smi is here, but PyTorch finds no GPU; {cure}")
        return "not usable, see below", None
    if torch.backends.mps.is_available():
        return "Apple GPU: taken only when asked, device='mps' (not tested)", None
    return "none found", None


def _memory(problems: list[str]) -> str:
    memory = psutil.virtual_memory()
    free = memory.available / 1e9
    if free < RAM_ENOUGH:
        problems.append(f"only {free:.1f} GB of memory are free: close other kernels and programs before training")
    return f"{free:.1f} of {memory.total / 1e9:.1f} GB free"


def _home(problems: list[str]) -> str:
    try:
        folder = writable_home()
    except UserError as error:
        problems.append(str(error))
        return "cannot be written, see below"
    free = shutil.disk_usage(folder).free / 1e9
    if free < DISK_ENOUGH:
        problems.append(f"only {free:.1f} GB are free in {folder}: make room, for example with disentkit runs rm NAME")
    return f"{folder}, writable, {free:.0f} GB free"


def _versions(lock: Path | None = None) -> str:
    """How the installed packages compare with requirements.lock; a version of torch counts without its +cpu, +cu130."""
    lock = lock or CHECKOUT / "requirements.lock"
    if not lock.is_file():
        return "not compared: no checkout with a requirements.lock here"
    wanted = dict(line.split("==") for line in lock.read_text().split() if "==" in line)
    found = {name: _installed(name) for name in wanted}
    differ = [f"{n} {found[n]} (not {v})" for n, v in wanted.items() if found[n] not in (None, v)]
    missing = [name for name in wanted if found[name] is None]
    if not differ and not missing:
        return f"all {len(wanted)} packages as in requirements.lock"
    parts = [f"{len(wanted) - len(differ) - len(missing)} of {len(wanted)} packages as in requirements.lock"]
    parts += [f"different: {_few(differ)}"] if differ else []
    parts += [f"not installed: {_few(missing)}"] if missing else []
    return "; ".join(parts)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return None


def _few(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
