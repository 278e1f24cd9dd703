"""What a card says of software, device, data, factors and probes, in values that JSON keeps."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from disentkit import __version__, probes
from disentkit.data.factors import Factor, FactorSpace
from disentkit.errors import UserError

PATHS = ("path", "source", "faces")  # options of data sets that name files or folders


def versions() -> dict[str, str]:
    """What the card says about software."""
    python = platform.python_version()
    return {"disentkit": __version__, "python": python, "torch": torch.__version__, "numpy": np.__version__}


def device_name(device: torch.device) -> str:
    """The card's word for a device: the GPU's name, or cpu with the processor's."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    processor = str(torch.cpu.get_capabilities().get("cpu_name", "") or platform.processor())
    return f"{device.type}: {processor}".rstrip(": ")


def factors_to_card(space: FactorSpace | None) -> list[dict] | None:
    """The factors as plain dicts."""
    return None if space is None else plain([dataclasses.asdict(f) for f in space])


def factors_from_card(factors: list[dict] | None) -> FactorSpace | None:
    """The inverse of `factors_to_card`."""
    if factors is None:
        return None
    tuples = [{k: tuple(v) if isinstance(v, list) else v for k, v in f.items()} for f in factors]
    return FactorSpace(Factor(**f) for f in tuples)


def plain(value):
    """As it comes back from JSON: tuples are lists."""
    return json.loads(json.dumps(value))


def data_to_card(data, settings, options: dict | None) -> dict:
    """How a run finds its data again: {"name", "options"}, with options None for data that were handed in.

    Paths become absolute, so that the run finds its files from any folder. Raises UserError for an option that no card
    can keep.
    """
    if not isinstance(options, Mapping | None):
        raise UserError(f"data_options= maps names to values, as {{'few': True}}, not {options!r}")
    if isinstance(data, str):
        options = {"size": settings.size, **(options or {})}
        paths = {key: Path(options[key]) for key in PATHS if isinstance(options.get(key), str | Path)}
        options |= {key: str(path.expanduser().resolve()) for key, path in paths.items()}
        for key, value in options.items():
            if not isinstance(value, str | int | float | bool | None):
                raise UserError(f"a card cannot keep {key}={value}; give data=data.load('{data}', {key}=...) instead")
        return {"name": data, "options": options}
    return {"name": data.name, "options": None}


def probes_to_card(measures, every: int | None) -> dict | None:
    """What the card says of probes, None without any; raises UserError for an interval without a probe."""
    named = [measures] if isinstance(measures, str) or callable(measures) else list(measures)
    if every is not None and not named:
        raise UserError(f"probe_every={every} measures nothing: name the measures, for example probes=['scores']")
    return {"names": [probes.name_of(m) for m in named], "every": every} if named else None
