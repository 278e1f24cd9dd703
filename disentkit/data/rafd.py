"""RaFD, the Radboud Faces Database (Langner et al. 2010): people making faces for five cameras, from your own files.

67 people, eight expressions, three directions of gaze, five cameras at a time: 8,040 photographs. GZS-Net (Ge et al.
2021) takes the frontal gaze and five of the expressions. Who may have the pictures is decided by the database's own
people, who ask for a link to a university; they must not be handed on.

Everything is in the name of a file, as the database's FAQ says, wherever the file lies:

    Rafd090_01_Caucasian_female_angry_frontal.jpg    camera, number of the person, ethnicity, gender, expression, gaze

Cameras stand at 0, 45, 90, 135 and 180 degrees around the person, 90 in front.
"""

from __future__ import annotations

import re
from pathlib import Path

from disentkit.data.base import ArrayData
from disentkit.data.labelled import chosen, place_of, rows_in, to_array
from disentkit.data.pictures import check_size
from disentkit.errors import UserError, one_of

URL = "https://rafd.socsci.ru.nl"
LIKE = "Rafd090_01_Caucasian_female_angry_frontal.jpg"
POSES = ("000", "045", "090", "135", "180")
FIVE = "happy,neutral,surprised,disgusted,contemptuous"
EXPRESSIONS = (*FIVE.split(","), "angry", "fearful", "sad")
GAZES = ("frontal", "left", "right", "all")
_NAME = re.compile(r"rafd(\d{3})_(\d+)_[a-z]+_[a-z]+_([a-z]+)_([a-z]+)")


def load(path: str | Path | None = None, size: int = 64, gaze: str = "frontal", expressions: str = FIVE) -> ArrayData:
    """The photographs of a folder, subfolders included: images (N, 3, size, size) uint8.

    path         the folder; without one, `datasets/rafd` in the kit's home. Any number of the photographs will do
    size         the originals, 681x1024, are squeezed to a square of this side: the whole picture, not cropped
    gaze         "frontal", "left", "right", or "all" three, which then differ in what is no factor
    expressions  the five that GZS-Net takes, or others of the eight as "angry,sad", or "all"

    Factors, all of them categories: identity (the number of the person), expression, pose (the camera). Pictures that
    cannot be read, or have other names, are left out and named in a warning.

    Raises UserError where no photograph is named like this or has the gaze and expressions that are asked for.
    """
    check_size(size)
    one_of("gaze", gaze, GAZES)
    wanted = chosen("expressions", expressions, EXPRESSIONS)
    folder = place_of("rafd", path, LIKE)
    found = rows_in(folder, _parsed, LIKE, _how(folder))
    rows = {name: row[:3] for name, row in found.items() if row[1] in wanted and gaze in ("all", row[3])}
    if not rows:
        raise UserError(f"none of the {len(found)} photographs in {folder} has gaze={gaze} and one of {expressions}")
    return to_array(folder, rows, {"identity": (), "expression": EXPRESSIONS, "pose": POSES}, size, "rafd")


def fetch() -> Path:
    """Raise UserError that says whom to ask: the photographs are given to researchers, one by one."""
    raise UserError(_how(place_of("rafd", None, LIKE)))


def _how(folder: Path) -> str:
    return (
        f"no photographs in {folder}: ask for RaFD at {URL}, which gives it to researchers of universities, and put "
        f"{LIKE} and the others there; or name another folder with path=..."
    )


def _parsed(name: str) -> tuple[str, str, str, str] | None:
    """Identity, expression, pose and gaze; None where the name is another."""
    match = _NAME.fullmatch(name.rpartition("/")[2].rpartition(".")[0].lower())
    if not match or match[1] not in POSES or match[3] not in EXPRESSIONS or match[4] not in GAZES[:3]:
        return None
    return f"{int(match[2]):02}", match[3], match[1], match[4]
