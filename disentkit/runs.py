"""A finished run on disk: `card.json`, `weights.safetensors`, `history.csv` and a picture, in one folder.

The card holds everything needed to trust or repeat the run: method, settings, data, seed, device, threads, precision,
versions, time, scores, block statistics and the base run. The weights are those that encode and decode need, no more.
A run appears by one rename: a folder that exists is whole.

    home()/runs/NAME      what the user trained; home() is DISENTKIT_HOME, else data/local in the checkout
    data/runs/NAME        what the kit ships, read only
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from disentkit.errors import UserError, one_of
from disentkit.places import SHIPPED, home

FORMAT = 1  # of the card; raised whenever an older kit could misread it
# What a card must hold for its run to be opened and shown.
NEEDED = (
    "method", "settings", "data", "image_shape", "factors", "seed", "base", "weights", "blocks", "steps", "seconds",
)  # fmt: skip


def weights_hash(path: Path) -> str:
    """Sixteen hex digits that name a weights file; cards name their base run by it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def save(folder: Path, model: torch.nn.Module, card: dict, history: pd.DataFrame, picture: bytes, half=False) -> Path:
    """Write a run and let it appear at `folder`, or at `folder-2`, `folder-3`, ... where that name is taken.

    half: store float16 weights, as shipped runs do. Raises UserError when the disk refuses; no half run is left.
    """
    draft = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
        # Copies, since safetensors refuses two names for one tensor (a network that stands in two places).
        weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
        if half:
            weights = {n: w.half() if w.is_floating_point() else w for n, w in weights.items()}
        save_file(weights, draft / "weights.safetensors")
        card = {"format": FORMAT, **card, "weights": weights_hash(draft / "weights.safetensors")}
        write_card(draft, card)
        history.to_csv(draft / "history.csv", index=False, float_format="%.6g")
        (draft / "picture.png").write_bytes(picture)
        draft.chmod(0o755)
        for number in range(1, 10_000):
            place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
            if place.exists():
                continue
            try:
                draft.rename(place)
                return place
            except OSError as e:  # another process took the name just now
                if e.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        raise UserError(f"{folder.parent} holds 9,999 runs of this name; remove some with: disentkit runs rm NAME")
    except (OSError, SafetensorError) as e:  # safetensors reports a full disk as its own error
        why = getattr(e, "strerror", None) or e
        raise UserError(f"the run could not be saved to {folder.parent}: {why}. Make room and save it again.") from None
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)


def write_card(folder: Path, card: dict) -> None:
    """Write a run's card by one rename."""
    draft = folder / ".card.json"
    try:
        draft.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
        draft.replace(folder / "card.json")
    except OSError:  # a full disk: the old card stays
        draft.unlink(missing_ok=True)
        raise


def read_card(folder: Path) -> dict:
    """The card of a run; raises UserError where it is missing, damaged or of another version."""
    path = folder / "card.json"
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} is not a run: it has no card.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is damaged ({e}): the run cannot be opened. Train it again or restore it.") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        written = card.get("format") if isinstance(card, dict) else None
        formats = f"has card format {written}, this kit reads {FORMAT}"
        raise UserError(f"{path} {formats}; open it with the kit that wrote it")
    if lacks := [key for key in NEEDED if key not in card]:
        raise UserError(f"{path} is damaged: it has no '{lacks[0]}'. Train the run again or restore the file.")
    return card


def read_weights(folder: Path, card: dict) -> dict[str, torch.Tensor]:
    """The weights of a run as float32; raises UserError where the file is missing, damaged or not the card's."""
    path = folder / "weights.safetensors"
    try:
        if weights_hash(path) != card["weights"]:
            raise UserError(f"{path} is not the file its card names: it was changed or cut short. Train the run again.")
        return {n: w.float() if w.is_floating_point() else w for n, w in load_file(path).items()}
    except FileNotFoundError:
        raise UserError(f"{folder} has no weights.safetensors; train the run again") from None
    except SafetensorError as e:
        raise UserError(f"{path} is damaged ({e}); train the run again") from None


def folders() -> list[Path]:
    """Every run's folder: the user's own, newest first, then the shipped ones."""
    own = [f for f in _runs_in(home() / "runs")]
    return sorted(own, key=lambda f: f.stat().st_mtime_ns, reverse=True) + sorted(_runs_in(SHIPPED))


def _runs_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [f for f in folder.iterdir() if (f / "card.json").is_file() and not f.name.startswith(".")]


def find(name: str | Path) -> Path:
    """A run's folder from its path, its name, or `own/NAME`, `shipped/NAME`; raises UserError where there is none."""
    if (Path(name) / "card.json").is_file():
        return Path(name)
    found = {}
    for folder in reversed(folders()):
        kind = "shipped" if folder.parent == SHIPPED else "own"
        found[folder.name] = found[f"{kind}/{folder.name}"] = folder
    if not found:
        raise UserError(f"no run '{name}': there are none. Train one with: disentkit train factorvae --preset quick")
    if str(name) in found:
        return found[str(name)]
    one_of("run", str(name), [n for n in found if "/" not in n])
    return found[str(name)]


def address(folder: Path) -> str:
    """What `find` finds a run by: `own/NAME` or `shipped/NAME` where it stands there, elsewhere its path."""
    for kind, place in (("own", home() / "runs"), ("shipped", SHIPPED)):
        if folder.resolve().parent == place.resolve():
            return f"{kind}/{folder.name}"
    return str(folder.resolve())


def base_of(folder: Path, card: dict) -> Path | None:
    """The folder of the run that a run builds on, beside it or where its card says; None where it builds on none.

    Raises UserError where it is missing or has other weights than the card names.
    """
    if card["base"] is None:
        return None
    said, found = card["base"]["path"], None
    for place in (folder.parent / Path(said).name, said):
        try:
            found = find(place)
            if read_card(found)["weights"] == card["base"]["weights"]:
                return found
        except UserError:
            continue
    if found:
        raise UserError(f"run '{folder.name}' builds on {said}, whose weights have changed since; train it again")
    raise UserError(f"run '{folder.name}' builds on {said}, which is not there or damaged; train or restore it first")


def remove(name: str) -> Path:
    """Delete one of the user's own runs and return where it was; shipped runs are refused."""
    folder = find(name)
    if folder.parent.resolve() != (home() / "runs").resolve():
        raise UserError(f"{folder} is not one of your own runs, so it stays")
    shutil.rmtree(folder)
    return folder
