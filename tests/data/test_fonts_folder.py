"""The layout of the published Fonts set: read, written by `export`, and read back."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit import data
from disentkit.data import fonts, fonts_folder, glyphs
from disentkit.data.base import ArrayData
from disentkit.data.export import export, read
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Grid, HeldOut
from disentkit.errors import UserError

FIVE = ("letter", "size", "colour", "background", "font")


def put(folder, *words, pixels=None, side=8):
    """A picture at its place in the layout, grey by default."""
    place = folder.joinpath(*words, "_".join(words) + ".png")
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), 90, np.uint8) if pixels is None else pixels).save(place)
    return place


def words_of(found) -> list[tuple[str, ...]]:
    """What every picture shows, in words."""
    return [tuple(f.labels[int(v)] for f, v in zip(found.space, row, strict=True)) for row in found.factors]


@pytest.fixture
def two_faces(monkeypatch):
    """Fonts with two faces: the masks of 21 take seconds."""
    some = glyphs.pinned()[::15]
    monkeypatch.setattr(glyphs, "pinned", lambda: some)
    return [face.label for face in some]


# ---- reading


def test_folders_say_the_factors(tmp_path):
    rows = [
        ("b", "large", "red", "Yellow", "old_style sans"),
        ("Z", "small", "Yellow", "silver", "mono"),
        ("A", "medium", "pink", "red", "mono"),
        ("7", "huge", "teal", "red", "mono"),
    ]
    for i, row in enumerate(rows):
        put(tmp_path / "release" / "fonts", *row, pixels=np.full((8, 8, 3), 10 * i, np.uint8))
    (tmp_path / "release" / "notes.txt").touch()
    found = data.load("fonts_folder", path=tmp_path, size=8)
    assert found.name == "fonts_folder" and found.image_shape == (3, 8, 8) and found.images.dtype == torch.uint8
    assert found.space.names == FIVE and {f.kind for f in found.space} == {"category"}
    assert [f.labels for f in found.space] == [
        ("A", "Z", "b", "7"), ("small", "medium", "large", "huge"), ("red", "yellow", "pink", "teal"),
        ("red", "yellow", "silver"), ("mono", "old_style sans"),
    ]  # fmt: skip
    shown = {int(image[0, 0, 0]) // 10: words for image, words in zip(found.images, words_of(found), strict=True)}
    assert shown == {i: tuple(word.replace("Yellow", "yellow") for word in row) for i, row in enumerate(rows)}


def test_the_real_samples(real_data, tmp_path):
    with (real_data / "fonts_samples" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    laid = {}
    for row in rows:  # size and font are not known of them: one size, and the file's own name for the font
        pair = [fonts_folder.WRITTEN.get(row[key], row[key]) for key in ("font_color", "back_color")]
        words = (row["letter_by_eye"], "medium", *pair, row["file"].replace("/", "_")[:-4])
        laid[words[-1]] = row
        put(tmp_path, *words, pixels=np.asarray(Image.open(real_data / "fonts_samples" / row["file"])))
    found = data.load("fonts_folder", path=tmp_path, size=None)
    assert len(found) == len(rows) == 31 and found.image_shape == (3, 128, 128)
    pixels = found.images.permute(0, 2, 3, 1).flatten(1, 2)  # (N, 16384, 3)
    for image, (letter, size, colour, background, font) in zip(pixels, words_of(found), strict=True):
        row = laid[font]
        assert (letter, size) == (row["letter_by_eye"], "medium")
        assert (colour, background) == (row["font_color"], row["back_color"])
        ground, ink = (torch.tensor(fonts.COLOURS[name], dtype=torch.uint8) for name in (background, colour))
        assert torch.equal(image[0], ground) and (image == ground).all(1).float().mean() > 0.7
        assert (image == ink).all(1).sum() > 30
        line = ink.double() - ground  # anti-aliased pixels lie on the line between the two colours
        share = ((image - ground.double()) @ line / line.square().sum())[:, None]
        assert share.min() > -0.02 and share.max() < 1.02
        assert (ground + share * line - image).abs().max() < 2


def test_sizes_of_pictures(tmp_path):
    put(tmp_path, "A", "small", "red", "blue", "x", side=16)
    put(tmp_path, "B", "small", "red", "blue", "x", side=16)
    assert data.load("fonts_folder", path=tmp_path, size=None).image_shape == (3, 16, 16)
    put(tmp_path, "C", "small", "red", "blue", "x", side=12)
    assert data.load("fonts_folder", path=tmp_path, size=8).image_shape == (3, 8, 8)
    with pytest.raises(UserError, match="C_small_red_blue_x.png in .* is 12x12, but A/.*_x.png 16x16: say .* size="):
        data.load("fonts_folder", path=tmp_path, size=None)
    put(tmp_path, "B", "small", "red", "blue", "x", pixels=np.zeros((6, 9, 3), np.uint8))
    with pytest.raises(UserError, match="B_small_red_blue_x.png in .* is 9x6, which is no square") as caught:
        data.load("fonts_folder", path=tmp_path, size=None)
    assert "\n" not in str(caught.value)


def test_so_many_at_most(tmp_path):
    for i, letter in enumerate(glyphs.LETTERS):
        put(tmp_path, letter, "small", "red", "blue", "x", pixels=np.full((4, 4, 3), i, np.uint8))
    some = data.load("fonts_folder", path=tmp_path, size=4, most=20)
    assert len(some) == 20 and len(some.images[:, 0, 0, 0].unique()) == 20
    assert [glyphs.LETTERS[int(i)] for i in some.images[:, 0, 0, 0]] == [words[0] for words in words_of(some)]
    assert data.load("fonts_folder", path=tmp_path, size=4, most=20).fingerprint() == some.fingerprint()
    assert len(data.load("fonts_folder", path=tmp_path, size=4, most=100)) == 52


def test_other_and_broken_pictures_are_named_and_left_out(tmp_path):
    put(tmp_path, "A", "small", "red", "blue", "x")
    put(tmp_path, "B", "small", "red", "blue", "x").write_bytes(b"\x89PNG torn")
    wrong = put(tmp_path, "C", "small", "red", "blue", "x")
    wrong.rename(wrong.with_name("C_small_red_pink_x.png"))
    Image.new("RGB", (8, 8)).save(tmp_path / "logo.png")
    other = r"left out 2 of 4 pictures that are not named like A/small/.*: C/small/.*/C_small_red_pink_x.png, logo.png$"
    broken = "left out 1 of 2 pictures that cannot be read: B/small/red/blue/x/B_small_red_blue_x.png"
    for size in (8, None):
        with pytest.warns(UserWarning, match=other), pytest.warns(UserWarning, match=broken):
            found = data.load("fonts_folder", path=tmp_path, size=size)
        assert words_of(found) == [("A", "small", "red", "blue", "x")]


def test_nothing_to_load_says_what_to_put_where(tmp_path, home):
    (tmp_path / "other").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "other" / "cat.png")
    put(tmp_path / "good", "A", "small", "red", "blue", "x")
    where = "unpack the Fonts set of http://ilab.usc.edu/datasets/fonts there, so that it holds A/small/red/blue/FONT/"
    cases = [
        ({}, f"no pictures in {data.folder_of('fonts_folder')}: {where}"),
        ({"path": tmp_path / "nowhere"}, f"no pictures in .*nowhere: {where}"),
        ({"path": tmp_path / "other"}, "none of the 1 pictures in .*other is named like A/small/.*, cat.png the first"),
        ({"path": 3}, "`path` names the folder that holds A/small/.*; 3 is none"),
        ({"path": tmp_path / "good", "size": "64"}, "size is a number of pixels, not '64'"),
        ({"path": tmp_path / "good", "most": 0}, "most must be a whole number of 1 or more, not 0"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            data.load("fonts_folder", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=where):
        data.fetch("fonts_folder")


# ---- writing


def test_an_export_comes_back(tmp_path, two_faces):
    drawn = data.load("fonts", size=32)
    path = export(drawn, tmp_path, "fonts", images=300)
    assert path == tmp_path / "fonts"
    found = data.load("fonts_folder", path=path, size=None)
    assert len(found) == 300 and found.space["font"].labels == tuple(sorted(two_faces))
    words = words_of(found)
    assert len(set(words)) == 300
    there = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    for letter, size, *colours, font in words:
        first, second = (colour.replace("yellow", "Yellow") for colour in colours)
        name = f"{letter}/{size}/{first}/{second}/{font}/{letter}_{size}_{first}_{second}_{font}.png"
        assert name in there and first != second
    labels = [factor.labels for factor in drawn.space]
    values = torch.tensor([[labels[k].index(word) for k, word in enumerate(row)] for row in words]).float()
    assert not drawn.law.rule(values).any()
    assert torch.equal(found.images, (drawn.render(values) * 255).round().to(torch.uint8))


def test_no_tuple_comes_twice_under_a_law(tmp_path, two_faces):
    few = fonts.Fonts(32, HeldOut(Grid(), lambda v: (v[:, 0] > 1) | (v[:, 2] > 2) | (v[:, 3] != 5)))  # 2 x 3 x 3 x 2
    assert len(data.load("fonts_folder", path=export(few, tmp_path, "fonts", images=36), size=8)) == 36
    with pytest.raises(UserError, match="the law of 'fonts' hardly draws more than 36 different images: take fewer"):
        export(few, tmp_path / "out", "fonts", images=37)
    assert not (tmp_path / "out").exists()


def space_of(**changes) -> FactorSpace:
    labels = {"letter": ("A", "a"), "size": ("small",), "colour": ("red", "yellow"), "background": ("blue",)}
    return FactorSpace(category(name, *({"font": ("x",)} | labels | changes)[name]) for name in FIVE)


def test_words_become_folders_that_every_system_takes(tmp_path):
    labels = ("a/b", "a:b", "A_B", "..", " x ", "old style_2")
    values = [[0, 0, 1, 0, f] for f in range(len(labels))]
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 3, 4, 4), dtype=np.uint8)
    path = export(ArrayData(images, values, space_of(font=labels), name="own"), tmp_path, "fonts")
    found = data.load("fonts_folder", path=path, size=None)
    written = ["a_b", "a_b_", "A_B__", "_", "x", "old style_2"]
    assert {words[-1] for words in words_of(found)} == set(written)
    for image, words in zip(found.images, words_of(found), strict=True):
        assert words[2] == "yellow" and np.array_equal(image, images[written.index(words[-1])])


def test_attribution_and_the_order_of_factors(tmp_path):
    space = FactorSpace(list(space_of())[::-1])
    stored = ArrayData(np.zeros((2, 3, 4, 4), np.uint8), [[0, 0, 1, 0, 1], [0, 0, 1, 0, 0]], space, name="own")
    stored.attribution = "drawn by A"
    path = export(stored, tmp_path, "fonts")
    assert (path / "ATTRIBUTION.txt").read_text() == "drawn by A"
    assert {words[0] for words in words_of(data.load("fonts_folder", path=path, size=4))} == {"A", "a"}


def test_what_has_no_place_in_the_layout_is_one_line(tmp_path):
    images = np.zeros((2, 3, 4, 4), np.uint8)
    twice = ArrayData(images, [[1, 0, 0, 0, 0]] * 2, space_of(), name="twice")
    real = FactorSpace([*list(space_of())[:4], Factor("font", "real", (0.0,))])
    cases = [
        (data.load("dsprites"), "format 'fonts' is for the categories letter, .*, font, but 'dsprites' has shape"),
        (ArrayData(images, name="bare"), "format 'fonts' is for .*, but 'bare' has no factors"),
        (ArrayData(images, np.zeros((2, 5)), real, name="r"), "format 'fonts' is for the categories .*, but 'r' has"),
        (twice, "two images would be a/small/red/blue/x/a_small_red_blue_x.png, and the layout has room for one"),
    ]
    for what, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            export(what, tmp_path / "out", "fonts")
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="but 'fonts' has letter, size, colour, background, font, position"):
        export(fonts.Fonts(32, extra="position"), tmp_path / "out", "fonts", images=3)
    export(twice, tmp_path)
    assert len(read(tmp_path / "twice.npz")) == 2  # other formats have room for both
