"""Glyph masks: every one is its own, none is cut off; and which faces of a user's folder are taken."""

import os
import shutil
import warnings
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch
from fontTools.ttLib import TTFont  # comes with matplotlib

from disentkit import data
from disentkit.data import glyphs
from disentkit.data.fonts import SIZES, Fonts
from disentkit.data.laws import Grid
from disentkit.errors import UserError

LETTERS = glyphs.LETTERS


def masks(size=64, **options):
    """The glyph masks (glyphs, 3, faces, size, size) of a renderer, 0 ... 255."""
    renderer = Fonts(size, **options)
    return glyphs.masks(*renderer._glyphs).view(*renderer.space.sizes[:2], -1, size, size)


def face_of(file):
    """The path of a file among matplotlib's faces."""
    return Path(glyphs.pinned()[0].path).parent / file


# ---- masks


@pytest.mark.parametrize(
    ("size", "options"), [*((size, {}) for size in SIZES), (64, {"words": True}), (32, {"extra": "position"})], ids=str
)
def test_no_two_masks_are_equal_and_nothing_is_cut_off(size, options):
    """Letter, size and face can be told from the mask alone; a pixel of 32 stays free at every border."""
    table = masks(size, **options)
    assert len({mask.tobytes() for mask in table.flatten(0, 2).numpy()}) == table.shape[:3].numel()
    assert table.flatten(3).amax(3).min() > 100, "none is empty or too faint"
    rim = size // 32
    assert not table[..., :rim, :].any() and not table[..., -rim:, :].any()
    assert not table[..., :rim].any() and not table[..., -rim:].any()


def test_sizes_keep_their_proportion_and_faces_that_do_not_fit_are_drawn_smaller():
    high = (masks(128) >= 128).any(4).sum(3).float()[LETTERS.index("H")]  # (3, faces)
    assert ((high[0] / high[2] - 80 / 120).abs() < 0.03).all() and ((high[1] / high[2] - 100 / 120).abs() < 0.03).all()
    label = [face.label for face in glyphs.pinned()]
    plain, bold = (label.index(f"DejaVu Serif{style}") for style in ("", " bold italic"))
    assert high[2, plain] == 86 and high[2, bold] == 76, "its W would be 145 of 128 pixels wide"


def test_glyphs_are_in_the_middle():
    ink = masks(128) > 0
    for axis in (3, 4):
        used = ink.any(axis).flatten(0, 2).int()
        before, after = used.argmax(1), used.flip(1).argmax(1)
        assert (before - after).abs().max() <= 1


def test_the_table_is_made_once_and_small():
    first, second = Fonts(64), Fonts(64).with_law(Grid())
    assert glyphs.masks(*first._glyphs) is glyphs.masks(*second._glyphs)
    table = glyphs.masks(*first._glyphs)
    assert table.dtype == torch.uint8 and table.shape == (52 * 3 * 21, 64 * 64)


# ---- faces of one's own


@pytest.fixture
def folder(tmp_path):
    """A folder with a face that can be used, and three that cannot."""
    found = tmp_path / "faces"
    (found / "more").mkdir(parents=True)
    shutil.copy(face_of("cmmi10.ttf"), found / "more" / "mine.TTF")
    shutil.copy(face_of("LastResortHE-Regular.ttf"), found)
    shutil.copy(face_of("STIXNonUni.ttf"), found / "signs.otf")
    (found / "torn.ttf").write_bytes(b"no face at all")
    (found / "notes.txt").write_text("no face either")
    return found


def test_a_folder_of_faces_extends_the_list(folder):
    with pytest.warns(UserWarning) as caught:
        renderer = data.load("fonts", size=32, faces=str(folder))
    text = str(caught[0].message)
    assert len(caught) == 1 and "\n" not in text and text.startswith(f"left out 3 of 4 faces in {folder}: ")
    assert "LastResortHE-Regular.ttf draws 'B' as 'A'" in text and "signs.otf draws nothing for 'A'" in text
    assert "torn.ttf cannot be opened (unknown file format)" in text
    labels = renderer.space["font"].labels
    assert labels == (*(face.label for face in glyphs.pinned()), "cmmi10")
    assert renderer.space.grid_size == Fonts(32).space.grid_size // 21 * 22
    rng = torch.Generator().manual_seed(0)
    assert renderer.sample(30, rng)["x"].shape == (30, 3, 32, 32)
    values = Grid().draw(renderer.space, 20, rng)
    values[:, 4] = 21
    images = renderer.render(values)
    assert not torch.equal(images, renderer.render(values.index_fill(1, torch.tensor([4]), 20)))
    values[:, 4] = 3
    assert torch.equal(renderer.render(values), Fonts(32).render(values))


def test_two_files_of_one_face_and_two_faces_of_one_name(folder):
    for file in folder.glob("*.*"):
        file.unlink()
    shutil.copy(face_of("cmmi10.ttf"), folder / "twice.ttf")
    shutil.copy(face_of("DejaVuSans.ttf"), folder / "known.ttf")
    font = TTFont(face_of("cmmi10.ttf"))
    for table in font["cmap"].tables:
        a, b = ord("a"), ord("b")
        table.cmap[a], table.cmap[b] = table.cmap[b], table.cmap[a]
    font.save(folder / "other.ttf")
    with pytest.warns(UserWarning, match="left out 2 of 4 .*: known.ttf draws what DejaVu Sans .*; twice.ttf d"):
        renderer = Fonts(32, faces=folder)
    assert renderer.space["font"].labels[21:] == ("cmmi10", "other")


def test_a_folder_without_a_usable_face(folder, tmp_path):
    (folder / "more" / "mine.TTF").unlink()
    for k in range(3):
        (folder / f"zz{k}.ttf").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            data.load("fonts", faces=folder)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"none of the 6 faces in {folder} can be used: LastResort")
    assert text.endswith("torn.ttf cannot be opened (unknown file format); and 3 more")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no face: no file ends in .ttf or .otf"):
        data.load("fonts", faces=tmp_path / "empty")
    with pytest.raises(UserError, match="no folder .*nowhere; `faces` names a folder"):
        data.load("fonts", faces=tmp_path / "nowhere")
    with pytest.raises(UserError, match="`faces` names a folder .*; 7 is none"):
        data.load("fonts", faces=7)


def test_a_face_that_lacks_a_letter(tmp_path):
    font = TTFont(face_of("cmr10.ttf"))
    for table in font["cmap"].tables:
        del table.cmap[ord("k")]
    font.save(tmp_path / "without.ttf")
    with pytest.raises(
        UserError, match="none of the 1 faces in .* can be used: without.ttf (has no|draws nothing for) 'k'"
    ):
        Fonts(32, faces=tmp_path)


# ---- the pinned faces


def test_a_matplotlib_without_a_face(monkeypatch):
    monkeypatch.setitem(glyphs.PINNED, "Gone", "Gone.ttf")
    glyphs.pinned.cache_clear()
    try:
        with pytest.raises(UserError, match="came without the face Gone.ttf in .*: install matplotlib anew"):
            Fonts(32)
    finally:
        glyphs.pinned.cache_clear()


def test_every_pinned_face_has_its_licence_beside_it():
    beside = {path.name for path in face_of("cmr10.ttf").parent.iterdir()}
    assert {"LICENSE_DEJAVU", "LICENSE_STIX"} <= beside and set(glyphs.PINNED.values()) <= beside
    assert all(file.startswith(("DejaVu", "STIX", "cm")) for file in glyphs.PINNED.values())
    assert len(set(glyphs.PINNED.values())) == 21
    (licence,) = (f for f in distribution("matplotlib").files if f.name == "LICENSE" and "dist-info" in str(f))
    assert "BaKoMa Fonts Licence" in licence.read_text()


def test_what_is_no_file_is_no_face(tmp_path):
    os.mkfifo(tmp_path / "pipe.ttf")
    (tmp_path / "folder.ttf").mkdir()
    with pytest.raises(UserError, match="holds no face"):
        glyphs.faces_in(tmp_path)
