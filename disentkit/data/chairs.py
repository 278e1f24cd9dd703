"""3D Chairs (Aubry, Maturana, Efros, Russell, Sivic 2014): 1,393 models of chairs from 62 sides, from your own files.

Seen from all around, a chair's azimuth, legs, back and width ought to come apart; nobody labelled them, so what a
method finds is judged by eye. Backgrounds are white. The FactorVAE paper shows reconstruction errors (Figure 12) and
traversals; its crop, and whether it used colour, are not established. A public reimplementation
(YannDubs/disentangling-vae) sets out to keep the central 400x400 pixels and to make them grey; as its code stands the
crop comes to nothing and the whole picture is shrunk, which is crop=None here.
"""

from __future__ import annotations

from pathlib import Path

from disentkit.data.base import ArrayData
from disentkit.data.pictures import check_size, names_in, read_all
from disentkit.errors import UserError, whole

URL = "https://www.di.ens.fr/willow/research/seeing3Dchairs/data/rendered_chairs.tar"


def load(path: str | Path | None = None, size: int = 64, color: bool = True, crop: int | None = 400) -> ArrayData:
    """The rendered chairs, model by model, in the order of their names: images (N, 3 or 1, size, size) uint8.

    path   the folder that holds `rendered_chairs/`, or that one; without one, `datasets/chairs` in the kit's home. Any
           number of the 86,366 pictures will do; they are those in `MODEL/renders/`
    color  False makes them grey
    crop   side of the central square that is kept, in pixels of the original; None: all of the picture

    There are no factors. Pictures that cannot be read are left out and named in one warning. Raises UserError where
    there is no such picture.
    """
    check_size(size)
    if crop is not None:
        whole("crop", crop)
    folder = _folder(path)
    folder = folder / "rendered_chairs" if (folder / "rendered_chairs").is_dir() else folder
    names = [n for n in names_in(folder) if n.split("/")[-2:-1] == ["renders"]] if folder.is_dir() else []
    if not names:
        raise UserError(_how(folder))
    images, _ = read_all(folder, names, size, color, crop, "chairs")
    return ArrayData(images, name="chairs")


def fetch() -> Path:
    """Raise UserError that says where to get the chairs: no checksum is known to check a download by."""
    raise UserError(_how(_folder(None)))


def _how(folder: Path) -> str:
    return (
        f"no chairs in {folder}: unpack {URL} there, so that it holds rendered_chairs/MODEL/renders/*.png; or name "
        "another folder with path=..."
    )


def _folder(path: str | Path | None) -> Path:
    if path is None:
        from disentkit.data import folder_of

        return folder_of("chairs")
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names the folder that holds rendered_chairs/; {path!r} is none")
    return Path(path).expanduser()
