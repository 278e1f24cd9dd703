"""The machine a training runs on: device, precision, idle cores, and seeds that leave the global generator alone."""

from __future__ import annotations

import os
from contextlib import contextmanager

import numpy as np
import psutil
import torch

from disentkit.errors import UserError


def pick_device(name: str) -> torch.device:
    """"auto" is CUDA, else the CPU; "mps" only when asked. Raises UserError where the machine has no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = str(name).split(":")[0]
    if kind not in usable:
        raise UserError(f"unknown device '{name}'; take auto, cpu, cuda or mps")
    if not usable[kind]:
        why = "this PyTorch is a CPU build" if kind == "cuda" and torch.version.cuda is None else "none was found"
        raise UserError(f"device '{name}' was asked for, but {why}. Take device='auto', or see: disentkit doctor")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device '{name}'; take auto, cpu, cuda or mps") from None
    if kind == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device '{name}' was asked for, but there are {count} GPUs, counted from cuda:0")
    return device


def has_bf16(device: torch.device) -> bool:
    """True where the hardware computes bf16: by CPU flags (AVX512-BF16 or AMX), by compute capability 8 on CUDA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The type the networks compute in. Raises UserError for an unknown name."""
    kinds = {"float32": torch.float32, "bf16": torch.bfloat16}
    kinds["auto"] = torch.bfloat16 if has_bf16(device) else torch.float32
    if name not in kinds:
        raise UserError(f"unknown precision '{name}'; take auto, float32 or bf16")
    return kinds[name]


def idle_cores(seconds: float = 0.3) -> int:
    """How many of this process's cores are idle, at least 1. Two busy threads on one core are far slower than one."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(psutil.cpu_count() or 1)
    usage = psutil.cpu_percent(seconds, percpu=True)
    busy = sum(usage[core] / 100 for core in mine if core < len(usage))
    return max(1, min(len(mine) - round(busy), torch.get_num_threads() or 1))


def streams(seed: int) -> tuple[int, int, int]:
    """Seeds of three streams of numbers that share nothing: for the weights, for the data, for the steps' own draws."""
    weights, data, step = (int(word) >> 1 for word in np.random.SeedSequence(seed).generate_state(3, np.uint64))
    return weights, data, step


@contextmanager
def seeded(seed: int):
    """Draws of the global generator, from which layers get their weights, come from `seed` and are undone after."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(streams(seed)[0])
        yield


