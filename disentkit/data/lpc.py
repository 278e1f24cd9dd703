"""LPC characters: figures of the Liberated Pixel Cup, put together from drawn layers (sheets) that you have on disk.

The real artwork behind two sets of the literature: Reed et al.'s sprites (`data.sprites`) and the "Sprites" of Li and
Mandt (2018). Body, trousers, shirt and hair are chosen freely, so here the factors are what one sees and each covers
its own few pixels, while action, direction and frame move all of these together. What ties them: hair hides a part of
the face and some shirts a part of the trousers.

A sheet is 832x1344: 13 x 21 cells of 64x64. Rows 0-3 are spellcast, 8-11 walk, 12-15 slash, each seen from the back,
the left, the front, the right. Layers lie over each other on black in the order of `ORDER`. Which cells are the eight
frames of an action is that of Li and Mandt's generator (YingzhenLi/Sprites, random_character.py): spellcast has seven
cells and slash six, so a cell comes twice (`FRAMES`), and walk leaves out its standing one. Frame is therefore no
factor that could be read from a picture without error. Eyes are in no set of theirs; they are put under the hair here.

The art is CC-BY-SA 3.0 / GPL 3.0: whoever shows pictures made of it must name the artists. The folder's own attribution
goes along as `attribution`, and `data.export` writes it beside the pictures.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disentkit.data.base import Renderer
from disentkit.data.factors import FactorSpace, category
from disentkit.data.laws import Grid, HeldOut
from disentkit.errors import UserError, one_of

URL = "https://github.com/YingzhenLi/Sprites"
SIZES = (64, 60, 32)
CELL, COLUMNS, ROWS = 64, 13, 21
ORDER = ("body", "bottomwear", "topwear", "eyes", "hair", "shoes")  # from the lowest layer to the topmost
NEEDED = ("body", "bottomwear", "topwear", "hair")
SIX, SHOES = 6, 1  # the Sprites set: the first six sheets of the needed parts, and one pair of shoes for all
FRAMES = {  # the cells of a row that are the frames 0 ... 7
    "spellcast": (0, 1, 2, 3, 4, 5, 4, 6),
    "walk": (8, 1, 2, 3, 4, 5, 6, 7),
    "slash": (0, 1, 2, 3, 4, 5, 4, 0),
}
FIRST_ROW = {"spellcast": 0, "walk": 8, "slash": 12}
VIEWS = ("back", "left", "front", "right")  # as they follow each other in a sheet
DIRECTIONS = ("front", "left", "right", "back")
SPLITS = ("all", "train", "test")
CREDITS = ("attribution", "credits", "authors")  # names of the file that says who drew the layers
NOTICE = (
    "Pictures made by disentkit from layers of the Liberated Pixel Cup: cells cut out of the sheets, laid over each "
    "other on black, and cropped or shrunk where a size other than 64 was asked for.\nLicence: CC-BY-SA 3.0 "
    "(https://creativecommons.org/licenses/by-sa/3.0/) or GNU GPL 3.0 (https://www.gnu.org/licenses/gpl-3.0.html); "
    "pictures made from these keep the licence and this text.\nThe layers came with this attribution:\n\n"
)


class LPC(Renderer):
    """Characters laid together on any device from the sheets of a folder; arguments and errors as in `load`.

    attribution  who drew the layers and under which licence; belongs to every picture that is shown or handed on

    Kept in memory, and once on every device that renders, are the cells that can occur, RGBA in uint8: 25 sheets x 63
    cells x 16 KB = 26 MB for the Sprites set, 39 sheets x 84 cells = 54 MB for every sheet with the back view.
    """

    name = "lpc"

    def __init__(self, folder: Path, size: int = 64, law=None, parts: str = "sprites", back: bool = False):
        if not isinstance(size, int) or size not in SIZES:
            raise UserError(f"lpc comes in sizes {', '.join(map(str, SIZES))}, not {size!r}")
        one_of("parts of lpc", parts, ("sprites", "all"))
        if not isinstance(back, bool):
            raise UserError(f"back is true or false, not {back!r}")
        self.size, self.image_shape = size, (3, size, size)
        self.law = Grid() if law is None else law
        if not callable(getattr(self.law, "draw", None)):
            raise UserError(f"`law` says how tuples are drawn, one of disentkit.data.laws; {law!r} is none")
        self.attribution = _attribution(folder)
        sheets = _chosen(folder, parts)
        directions = DIRECTIONS if back else DIRECTIONS[:3]
        cells, table = _cells(directions)
        # What 60 leaves out is empty in all of YingzhenLi/Sprites.
        rows, columns = (slice(4, 64), slice(2, 62)) if size == 60 else (slice(None), slice(None))
        layers = [_layer(files, cells, part == "body")[..., rows, columns] for part, files in sheets.items()]
        layers = [layer.contiguous() for layer in layers]
        self.space = FactorSpace(
            [category(part, *(f.stem for f in files)) for part, files in sheets.items() if not _fixed(part, parts)]
            + [category("action", *FRAMES), category("direction", *directions)]
            + [category("frame", *map(str, range(8)))]
        )
        # For every layer the column of its factor; None: always its first sheet.
        self._columns = [None if _fixed(part, parts) else self.space.index(part) for part in sheets]
        self._kept = {torch.device("cpu"): (layers, table)}
        self._digest = hashlib.sha256(b"".join(layer.numpy().tobytes() for layer in layers)).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"LPC({self.size} pixels, {self.space}, {self.law}; CC-BY-SA 3.0 / GPL 3.0, see .attribution)"

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {self._digest}"  # every cell, also of a sheet that few pictures show

    def render(self, values: Tensor) -> Tensor:
        """Images (n, 3, size, size) float32 of values (n, K), each the index of a category; the nearest is taken.

        Raises ValueError for another number of columns.
        """
        if not isinstance(values, Tensor):
            raise ValueError(f"factors must be a tensor (n, {len(self.space)}), not {type(values).__name__}")
        if values.ndim != 2 or values.shape[1] != len(self.space):
            names = ", ".join(self.space.names)
            raise ValueError(f"factors must be (n, {len(self.space)}) for {names}, not {tuple(values.shape)}")
        if values.device not in self._kept:
            layers, table = self._kept[torch.device("cpu")]
            self._kept[values.device] = [layer.to(values.device) for layer in layers], table.to(values.device)
        layers, table = self._kept[values.device]
        # So many that their layers stay in a CPU's cache, or fit into any GPU's memory.
        pieces = self.space.to_grid(values).split(16 if values.device.type == "cpu" else 4096)
        return torch.cat([self._composed(piece, layers, table) for piece in pieces])

    def _composed(self, index: Tensor, layers: list[Tensor], table: Tensor) -> Tensor:
        """Images of grid indices (n, K): each layer over what lies under it, by its own alpha."""
        cell = table[index[:, -3], index[:, -2], index[:, -1]]  # (n,)
        picture = None
        for layer, column in zip(layers, self._columns, strict=True):
            place = cell if column is None else index[:, column] * layer.shape[1] + cell
            found = layer.flatten(0, 1).index_select(0, place).float().div_(255)  # (n, 4, S, S)
            color, alpha = found[:, :3], found[:, 3:]
            picture = color * alpha if picture is None else picture.lerp_(color, alpha)  # the ground is black
        return torch.nn.functional.avg_pool2d(picture, 2) if self.size == 32 else picture


@dataclass(frozen=True)
class OtherPart:
    """The rule that holds out the characters of the other part: of "train" the 296 of "test", and the reverse."""

    split: str

    def __call__(self, values: Tensor) -> Tensor:
        """Which tuples (n, 7) are held out, (n,) bool."""
        number = values[:, 0]
        for column in values[:, 1:4].T:
            number = number * SIX + column
        in_train = _in_train(values.device)[number.long()]
        return ~in_train if self.split == "train" else in_train


@functools.cache
def _in_train(device) -> Tensor:
    """Which of the 1,296 characters, hair fastest, are Li and Mandt's 1,000 for training (frame_to_npy.py)."""
    found = torch.zeros(SIX**4, dtype=torch.bool)
    found[np.random.RandomState(423).permutation(SIX**4)[:1000]] = True
    return found.to(device)


def load(
    path: str | Path | None = None,
    size: int = 64,
    law=None,
    parts: str = "sprites",
    back: bool = False,
    split: str = "all",
) -> LPC:
    """Characters made of the sheets in a folder: body/N.png, bottomwear/, topwear/, hair/ and, where there, shoes/.

    path   the folder, which also holds the attribution (ATTRIBUTION, CREDITS or AUTHORS; .md, .txt or .csv); without
           one, `datasets/lpc` in the kit's home
    size   64 as drawn; 60: the cell without its empty rim; 32: the average of every 2x2 pixels
    law    how tuples are drawn; `Grid()` without one
    parts  "sprites": the first six sheets of body, bottomwear, topwear and hair, everyone in shoes 1, no eyes, as in
           Li and Mandt's set; "all": every sheet, shoes and eyes as factors where they are there
    back   also the view from behind, which hides the eyes
    split  "all" of the characters, or the 1,000 of "train" or 296 of "test" of Li and Mandt: the law `HeldOut`

    Factors, all of them categories: the parts, action (spellcast, walk, slash), direction (front, left, right, back),
    frame (8). Raises UserError where the folder, a part or the attribution is missing, for sheets that are no PNG,
    damaged, of another size or without transparency, and for unknown options.
    """
    one_of("split of lpc", split, SPLITS)  # before 25 sheets are read
    found = LPC(_folder(path), size, law, parts, back)
    if split == "all":
        return found
    if found.space.sizes[:-3] != (SIX,) * 4:
        raise UserError(f"split='{split}' is of the 1,296 characters of six sheets a part; leave `split` out")
    return found.with_law(HeldOut(found.law, OtherPart(split)))


def fetch() -> Path:
    """Raise UserError that says where to get the layers."""
    raise UserError(_how(_folder(None)))


def _how(folder: Path) -> str:
    return (
        f"no LPC sheets in {folder}: put there the folders {', '.join(NEEDED)} and shoes of {URL}, and a file "
        "ATTRIBUTION.md that names the artists; or name another folder with path=..."
    )


def _folder(path: str | Path | None) -> Path:
    if path is None:
        from disentkit.data import folder_of

        return folder_of("lpc")
    if not isinstance(path, str | Path):
        raise UserError(f"`path` names the folder that holds body/, bottomwear/, topwear/ and hair/; {path!r} is none")
    return Path(path).expanduser()


def _attribution(folder: Path) -> str:
    """The notice, and what the folder says of its artists; raises UserError where it says nothing."""
    if not any((folder / part).is_dir() for part in NEEDED):
        raise UserError(_how(folder))
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and f.suffix.lower() in ("", ".md", ".txt", ".csv")]
    texts = []
    for file in (f for name in CREDITS for f in files if f.stem.lower() == name):
        try:
            texts.append(file.read_text(encoding="utf-8").strip())
        except (UnicodeDecodeError, OSError):
            raise UserError(f"{file} cannot be read as UTF-8 text; it must name the artists of the layers") from None
    if not any(texts):
        raise UserError(
            f"{folder} does not say who drew its layers, which their licence (CC-BY-SA 3.0 / GPL 3.0) asks of everyone "
            "who shows them: put an ATTRIBUTION.md there; the kit's data/README.md lists whom to name for usual sheets"
        )
    return NOTICE + "\n\n".join(text for text in texts if text) + "\n"


def _chosen(folder: Path, parts: str) -> dict[str, list[Path]]:
    """The sheets of every part, by number, in the order in which they are laid over each other."""
    found = {}
    for part in ORDER:
        files = [f for f in (folder / part).glob("*.png") if f.stem.isascii() and f.stem.isdecimal()]
        files.sort(key=lambda f: (int(f.stem), f.name))
        if parts == "sprites":
            files = {"eyes": [], "shoes": [f for f in files if int(f.stem) == SHOES]}.get(part, files[:SIX])
        if not files and part in NEEDED:
            raise UserError(f"no sheet {part}/0.png, {part}/1.png ... in {folder}; they come from {URL}")
        if files:
            found[part] = files
    return found


def _fixed(part: str, parts: str) -> bool:
    return part == "shoes" and parts == "sprites"


def _cells(directions: tuple[str, ...]) -> tuple[list[tuple[int, int]], Tensor]:
    """The cells (row, column) of a sheet that are used, and which of them (action, direction, frame) shows."""
    rows = [[FIRST_ROW[action] + VIEWS.index(d) for d in directions] for action in FRAMES]
    wanted = [[[(row, c) for c in FRAMES[a]] for row in part] for a, part in zip(FRAMES, rows, strict=True)]
    cells = sorted({cell for part in wanted for row in part for cell in row})
    return cells, torch.tensor([[[cells.index(cell) for cell in row] for row in part] for part in wanted])


def _layer(files: list[Path], cells: list[tuple[int, int]], filled: bool) -> Tensor:
    """The cells of a part's sheets, (sheets, cells, 4, 64, 64) uint8; raises UserError for what is no such sheet."""
    rows, columns = np.array(cells).T
    found = np.empty((len(files), len(cells), 4, CELL, CELL), np.uint8)
    for k, file in enumerate(files):
        sheet = _pixels(file).reshape(ROWS, CELL, COLUMNS, CELL, 4).transpose(0, 2, 4, 1, 3)
        found[k] = sheet[rows, columns]
        empty = ~found[k, :, 3].any((1, 2))
        if filled and empty.any():
            row, column = cells[int(empty.argmax())]
            raise UserError(f"{file} has no picture in row {row}, cell {column}, where LPC sheets have one")
    return torch.from_numpy(found)


def _pixels(file: Path) -> np.ndarray:
    """A sheet (1344, 832, 4) uint8."""
    try:
        with Image.open(file) as opened:
            if opened.format != "PNG":
                raise UserError(f"{file} is no PNG but {opened.format}; get it again from {URL}")
            if opened.size != (CELL * COLUMNS, CELL * ROWS):
                size = f"{opened.width}x{opened.height}"
                raise UserError(f"{file} is {size}, but an LPC sheet is 832x1344: 13 x 21 cells of 64x64")
            if not opened.has_transparency_data:
                raise UserError(f"{file} has no transparency, so it would cover every layer under it")
            return np.asarray(opened.convert("RGBA"))
    except UserError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for what is no picture or a torn one
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} cannot be read as a PNG ({why}); get it again from {URL}") from None
