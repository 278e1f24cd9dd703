"""Claims and exercises: the cells of a notebook that can fail.

    claim(text, holds)                         an identity, or a claim about a shipped run: asserted at every preset
    learned(text, value, at_least, preset)     a claim about the model just trained: asserted at every preset but smoke
    exercise(name, answer, ...)                untried (None) it says so and passes; tried, it asserts, with a hint
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def claim(text: str, holds: bool) -> None:
    """Print that `text` holds, or raise AssertionError."""
    assert bool(holds), f"this should hold, and does not: {text}"
    print(f"holds: {text}")


def learned(text: str, value: float, at_least: float, preset: str) -> None:
    """Assert that a model just trained reached a figure; at `smoke` nothing is learned, so nothing is judged."""
    if preset == "smoke":
        print(f"not judged at smoke: {text} ({value:.2f}, asked for {at_least:g})")
        return
    assert value >= at_least, f"{text}: {value:.3f}, asked for at least {at_least:g}"
    print(f"learned: {text} ({value:.2f}, asked for {at_least:g})")


def exercise(
    name: str,
    answer,
    expected=None,
    *,
    tolerance: float = 1e-4,
    hint: str = "",
    test: Callable[..., bool] | None = None,
) -> None:
    """Check an answer: near `expected` (numbers, arrays, tensors; same shape), or `test(answer)` true.

    None means not tried. Raises AssertionError with the hint for a wrong answer.
    """
    if answer is None:
        print(f"{name}: not tried yet")
        return
    if test is not None:
        assert test(answer), f"{name}: not yet. {hint}"
    else:
        ours, theirs = (_numbers(value) for value in (answer, expected))
        assert ours is not None, f"{name}: give a number, an array or a tensor, not {type(answer).__name__}. {hint}"
        assert ours.shape == theirs.shape, f"{name}: the shape is {ours.shape}, it should be {theirs.shape}. {hint}"
        off = float(np.abs(ours - theirs).max(initial=0))
        assert off <= tolerance, f"{name}: off by {off:.3g}, allowed is {tolerance:g}. {hint}"
    print(f"{name}: right")


def _numbers(value) -> np.ndarray | None:
    """The value as an array of float64, None where it is no number."""
    try:
        return np.asarray(torch.as_tensor(value).detach().cpu(), dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
