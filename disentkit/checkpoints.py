"""Checkpoints of an unfinished training: written by one rename, the one before kept, damage noticed."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from disentkit.errors import UserError

CHECKPOINT = "checkpoint.pt"
BEFORE = "checkpoint-before.pt"
ANEW = "to start anew, train with resume=False (--anew) or delete that folder"
KEYS = {
    "identity", "step", "rows", "seconds", "threads", "dtype", "learner", "optimizers", "rng", "data_rng", "pending",
}  # of every checkpoint  # fmt: skip


def save_checkpoint(folder: Path, state: dict) -> str | None:
    """Write by one rename and keep the one before; returns why it failed, None when it did not."""
    draft = folder / (CHECKPOINT + ".draft")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, draft)
        if (folder / CHECKPOINT).exists():
            os.replace(folder / CHECKPOINT, folder / BEFORE)
        os.replace(draft, folder / CHECKPOINT)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as RuntimeError
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        why = getattr(e, "strerror", None) or str(e).splitlines()[0]
        return "the disk is full or refuses" if "inline_container" in why else why  # torch's word for a short write
    return None


def load_checkpoint(folder: Path, say=print) -> dict | None:
    """The newest readable checkpoint of a folder, None where there is none.

    A damaged newest one is said and the one before is taken; raises UserError where both are damaged.
    """
    damaged = []
    for name in (CHECKPOINT, BEFORE):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or KEYS - state.keys():
                raise ValueError("another file, or a checkpoint of another version")
            if damaged:
                say(f"{damaged[0]} is damaged; going on from the one before, step {state['step']}")
            return state
        except Exception:  # a damaged pickle raises whatever its bytes happen to say
            damaged.append(path)
    if damaged:
        raise UserError(f"{damaged[0]} is damaged and there is no readable one before it; {ANEW}")
    return None


def check_identity(then: dict | None, now: dict | None, folder: Path) -> None:
    """Raise UserError that names the first thing in which a checkpoint and its resume differ."""
    changed = [k for k in {**(then or {}), **(now or {})} if (then or {}).get(k) != (now or {}).get(k)]
    if changed:
        key = changed[0]
        raise UserError(
            f"the interrupted run in {folder} had {key} = {(then or {}).get(key)}, now it is {(now or {}).get(key)}. "
            f"Put it back to go on; {ANEW}."
        )


@contextmanager
def alone(folder: Path):
    """Raise UserError where a living process trains in `folder`; keep others out for the time of the block.

    Two trainings of one name would overwrite each other's checkpoints. The lock lies beside the folder and is the
    system's own, so a process that is killed holds it no longer.
    """
    lock = _lock(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"'{folder.name}' is being trained at this moment, by another process or notebook. Wait for it, stop it, "
            "or set DISENTKIT_HOME to another folder."
        ) from None
    except OSError:
        pass  # a disk that refuses the lock is no reason not to train
    try:
        yield
    finally:
        lock.release()


def is_trained(folder: Path) -> bool:
    """True while a living process trains in `folder`."""
    if not folder.parent.is_dir():
        return False
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _lock(folder: Path) -> FileLock:
    # Without the fallback to a marker file, which would outlive a killed process: a disk without locks raises OSError.
    return FileLock(folder.with_name(folder.name + ".lock"), thread_local=False, fallback_to_soft=False)
