"""Where things lie: the checkout, what it ships, and the folder of what the user makes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from disentkit.errors import UserError

CHECKOUT = Path(__file__).resolve().parent.parent
SHIPPED = CHECKOUT / "data" / "runs"


def home() -> Path:
    """Where what the user makes lies: DISENTKIT_HOME, else `data/local` in the checkout. It may be missing."""
    return Path(os.environ.get("DISENTKIT_HOME") or CHECKOUT / "data" / "local").expanduser()


def writable_home() -> Path:
    """`home()`, made when missing. Raises UserError where it cannot be written: nothing is trained to be lost."""
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise UserError(
            f"cannot write to {folder} ({e.strerror}). Set DISENTKIT_HOME to a folder of yours, for example "
            "DISENTKIT_HOME=~/disentkit."
        ) from None
    return folder
