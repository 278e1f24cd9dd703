"""Fonts: the sheet's colours to the byte, every factor changes what it should, nothing is cut off, drawing is pure."""

import csv
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from test_toys import like_a_capture

from disentkit import data
from disentkit.commands import _data_options
from disentkit.data import fonts, glyphs
from disentkit.data.fonts import COLOURS, EXTRAS, SIZES, Fonts, same_colours
from disentkit.data.laws import Grid
from disentkit.errors import UserError

LETTERS = glyphs.LETTERS
ALL = "position,rotation,texture"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(renderer, n, seed=0, **fixed):
    """Values (n, K) of visible glyphs, with some factors fixed by their labels."""
    values = Grid().draw(renderer.space, 2 * n, generator(seed))
    values = values[~same_colours(values)][:n]
    for name, label in fixed.items():
        values[:, renderer.space.index(name)] = renderer.space[name].labels.index(label)
    return values


def masks(size=64, **options):
    """The glyph masks (glyphs, 3, faces, size, size) of a renderer, 0 ... 255."""
    renderer = Fonts(size, **options)
    return glyphs.masks(*renderer._glyphs).view(*renderer.space.sizes[:2], -1, size, size)


# ---- colours


def test_the_colours_are_those_of_the_original():
    assert list(COLOURS.items()) == [
        ("red", (220, 20, 60)), ("orange", (255, 165, 0)), ("yellow", (255, 255, 0)), ("green", (0, 128, 0)),
        ("cyan", (0, 255, 255)), ("blue", (0, 0, 255)), ("purple", (128, 0, 128)), ("pink", (255, 192, 203)),
        ("chocolate", (210, 105, 30)), ("silver", (192, 192, 192)),
    ]  # fmt: skip


def test_glyph_and_ground_have_the_very_colours():
    renderer = Fonts(64)
    values = torch.tensor([[7.0, 2, a, b, 1] for a in range(10) for b in range(10)])  # a bold H
    levels = renderer.render(values) * 255
    assert torch.equal(levels[:, :, 0, 0].round(), torch.tensor(list(COLOURS.values())).float().repeat(10, 1))
    table = torch.tensor(list(COLOURS.values())) / 255
    inside = masks()[7, 2, 1] == 255
    assert inside.sum() > 500
    for row, image in zip(values.long().tolist(), levels / 255, strict=True):
        assert (image[:, inside] == table[row[2]][:, None]).all() or row[2] == row[3]
        assert torch.allclose(image[:, inside], table[row[2]][:, None].expand(-1, int(inside.sum())))


def test_real_pictures_have_these_colours_and_comparable_heights(real_data):
    folder = real_data / "fonts_samples"
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 31
    ours = (masks(128) >= 128).any(4).sum(3)  # (52, 3, faces) heights in pixels
    inside, sizes = 0, []
    for row in rows:
        pixels = np.asarray(Image.open(folder / row["file"]).convert("RGB")).astype(int)
        found, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
        ground, glyph = (tuple(found[i].tolist()) for i in counts.argsort()[:-3:-1])
        assert ground == COLOURS[row["back_color"]] and glyph == COLOURS[row["font_color"]], row["file"]
        way = np.subtract(glyph, ground)
        height = int(((pixels - ground) @ way >= way @ way / 2).any(1).sum())
        letter = ours[LETTERS.index(row["letter_by_eye"])]
        inside += bool(letter.min() <= height <= letter.max())
        sizes.append(int((letter.float().median(1).values - height).abs().argmin()))
    assert inside >= 28, "but for two Q and an f of faces that draw them small"
    assert min(sizes.count(s) for s in range(3)) >= 6, "heights of all three sizes are among the real ones"


# ---- what each factor changes


def test_colour_changes_the_glyph_alone_and_background_the_ground_alone():
    renderer = Fonts(64)
    values = drawn(renderer, 100)
    entry = values.long().T
    mask = masks()[entry[0], entry[1], entry[4]]  # (100, 64, 64)
    images = renderer.render(values)
    for column, where in ((2, mask > 0), (3, mask < 255)):
        other = values.clone()
        other[:, column] = (other[:, column] + 1) % 10
        changed = (renderer.render(other) != images).any(1)
        assert torch.equal(changed, where)


def test_letter_size_and_font_change_the_mask_alone():
    renderer = Fonts(64)
    values = drawn(renderer, 100, colour="red", background="cyan")  # no channel of red is one of cyan
    red, cyan = (torch.tensor(COLOURS[name])[:, None, None] / 255 for name in ("red", "cyan"))
    for column in (0, 1, 4):
        other = values.clone()
        other[:, column] = (other[:, column] + 1) % renderer.space.sizes[column]
        a, b = renderer.render(values), renderer.render(other)
        assert (a != b).flatten(1).any(1).all()
        for images in (a, b):
            share = (images / red)[:, :1]
            assert torch.allclose(images, cyan + share * (red - cyan), atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_equal_colours_give_a_flat_picture(size):
    renderer = Fonts(size)
    values = drawn(renderer, 20)
    values[:, 2] = values[:, 3]
    images = renderer.render(values)
    assert torch.equal(images, images[:, :, :1, :1].expand_as(images)) and same_colours(values).all()


def test_picture_sizes_show_one_figure():
    values = drawn(Fonts(32), 60)
    images = {size: Fonts(size).render(values) for size in SIZES}
    for size in (32, 64):
        halved = images[2 * size].unflatten(3, (size, 2)).mean(4).unflatten(2, (size, 2)).mean(3)
        assert (images[size] - halved).abs().max() < 0.008


# ---- extras


@pytest.mark.parametrize(("size", "words"), [(32, False), (64, True)])
def test_position_moves_every_glyph_to_the_borders(size, words):
    renderer = Fonts(size, extra="position", words=words)
    values = drawn(renderer, 60, colour="red", background="cyan")
    up, mid, down = (renderer.render(values.index_fill(1, torch.tensor([5]), p))[:, 0] for p in (0, 1, 2))
    apart = max(1, size // 64)
    for upright, moved in ((up.flip(1), up), (down, down)):
        rows = (upright > 0).any(2)
        assert rows[:, -apart - 1].all() and not rows[:, -apart:].any()
        for one, middle in zip(moved, mid, strict=True):
            assert not torch.equal(one, middle) and torch.equal(middle.roll(_first(one) - _first(middle), 0), one)


def _first(image):
    """The first row of a picture (h, w) that is not black."""
    return int((image > 0).any(1).int().argmax())


def test_rotation_turns_the_glyph_counter_clockwise():
    renderer = Fonts(64, extra="rotation")
    values = drawn(renderer, 40)
    plain = Fonts(64).render(values[:, :5])
    for k in range(4):
        values[:, 5] = k
        assert torch.equal(renderer.render(values), plain.rot90(k, (2, 3)))
    both = Fonts(32, extra="position,rotation")
    values = drawn(both, 60, colour="red", background="cyan")
    for position in range(3):
        values[:, 5] = position
        images = both.render(values)[:, 0]
        for row, image in zip(values, images, strict=True):
            still = row.clone()
            still[5], still[6] = 1, 0
            turned = both.render(still[None])[0, 0].rot90(int(row[6]), (0, 1))
            shift = _first(image) - _first(turned)
            assert torch.equal(turned.roll(shift, 0), image) and (shift > 0) - (shift < 0) == position - 1


@pytest.mark.parametrize("size", SIZES)
def test_textures_multiply_the_picture(size):
    renderer = Fonts(size, extra="texture")
    values = drawn(renderer, 30, texture="none")
    plain = renderer.render(values)
    assert torch.equal(plain, Fonts(size).render(values[:, :5]))
    patterns = fonts._textures(size)
    assert patterns.shape == (4, 1, size, size) and (patterns[0] == 1).all()
    for k in (1, 2, 3):
        values[:, 5] = k
        assert torch.allclose(renderer.render(values), plain * patterns[k])
        assert 0.38 < patterns[k].min() < 0.65 and 0.9 < patterns[k].max() <= 1 and 0.08 < patterns[k].std() < 0.25
        for other in range(k):
            assert (patterns[k] - patterns[other]).abs().mean() > 0.1
    coarse = fonts._textures(32)
    assert torch.allclose(patterns.unflatten(3, (32, -1)).mean(4).unflatten(2, (32, -1)).mean(3), coarse, atol=1e-6)


def test_extras_in_any_order_and_way_make_one_space():
    names = ("letter", "size", "colour", "background", "font", "position", "rotation", "texture")
    ways = (ALL, "texture, rotation,position", ("rotation", "texture", "position"), ["position", "texture", "rotation"])
    for way in ways:
        found = Fonts(32, extra=way)
        assert found.space.names == names and found.space == Fonts(32, extra=ALL).space
    assert found.space.grid_size == 52 * 3 * 10 * 10 * 21 * 3 * 4 * 4 == 15_724_800
    assert Fonts(32).space.names == names[:5] and Fonts(32, words=True).space.names == ("word", *names[1:5])
    for name, labels in EXTRAS.items():
        assert found.space[name].labels == labels and Fonts(32, extra=name).space.names == (*names[:5], name)
    assert len(set(glyphs.WORDS)) == 20 and all(len(word) == 3 for word in glyphs.WORDS)


# ---- drawing


@pytest.mark.parametrize(
    ("size", "options"), [(32, {}), (64, {}), (128, {}), (64, {"words": True}), (32, {"extra": ALL})], ids=str
)
def test_drawing_is_pure(size, options):
    renderer = Fonts(size, **options)
    values = drawn(renderer, 40)
    before, state = values.clone(), torch.random.get_rng_state()
    images = renderer.render(values)
    assert images.shape == (40, 3, size, size) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() == 1
    assert torch.equal(images, Fonts(size, **options).render(values)) and torch.equal(values, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(torch.cat([renderer.render(row) for row in values.split(1)]), images)
    assert torch.equal(torch.cat([renderer.render(rows) for rows in values.split(17)]), images)
    assert renderer.render(values[:0]).shape == (0, 3, size, size)
    assert torch.equal(renderer.render(values.double()), images)


def test_a_category_between_its_values_is_the_nearest_one():
    renderer = Fonts(32, extra=ALL)
    values = drawn(renderer, 60)
    near = values + 0.8 * torch.rand(values.shape, generator=generator()) - 0.4
    assert torch.equal(renderer.render(near), renderer.render(values))
    ends = torch.tensor([[0.0] * 8, [len(f) - 1.0 for f in renderer.space]])
    assert torch.equal(renderer.render(ends + torch.tensor([[-5.0], [5.0]])), renderer.render(ends))


@pytest.mark.parametrize("extra", ["", ALL])
def test_nothing_is_read_back_to_the_host(extra):
    renderer, rng = Fonts(32, extra=extra), generator()
    renderer.sample(2, rng)  # makes the tables
    with like_a_capture():
        batch = renderer.sample(8, rng)
    assert batch["x"].shape == (8, 3, 32, 32)


def test_pictures_are_drawn_on_the_device_of_the_values():
    renderer = Fonts(32, extra=ALL)
    images = renderer.render(torch.empty(2, 8, device="meta"))
    assert images.shape == (2, 3, 32, 32) and images.device.type == "meta"
    assert renderer.render(drawn(renderer, 2)).device.type == "cpu", "after another device"


# ---- as data


def test_as_data_and_as_model():
    renderer = data.load("fonts", size=32, split="all")
    assert isinstance(renderer, Fonts) and renderer.name == "fonts" and renderer.image_shape == (3, 32, 32)
    row = next(row for row in data.describe() if row["name"] == "fonts")
    assert row["factors"] == ", ".join(f"{f.name} {len(f)}" for f in renderer.space)
    assert row["images"] == f"{len(renderer.law.allowed(renderer.space, 'cpu')):,}"
    batch = renderer.sample(20, generator(3))
    assert torch.equal(batch["x"], renderer.sample(20, generator(3))["x"])
    assert torch.equal(renderer.decode(renderer.code_of(batch["factors"])), batch["x"])
    assert data.load("fonts").image_shape == (3, 64, 64)
    prints = [data.load("fonts", size=32, split=s, extra=e).fingerprint() for s in ("train", "test") for e in ("", ALL)]
    assert len(set(prints)) == 4, "the grid of all extras, 15.7 million tuples, is never listed"
    assert prints[0] == data.load("fonts", size=32).fingerprint()
    again = pickle.loads(pickle.dumps(renderer))
    assert torch.equal(again.sample(5, generator(1))["x"], renderer.sample(5, generator(1))["x"])


def test_splits_are_disjoint_and_never_in_equal_colours():
    found = {}
    for split in ("train", "test", "all"):
        renderer = data.load("fonts", size=32, split=split)
        allowed = renderer.law.allowed(renderer.space, "cpu")
        assert not same_colours(allowed).any()
        found[split] = set(renderer.space.flat_of(allowed.long()).tolist())
        batch = renderer.sample(500, generator())["factors"]
        assert set(renderer.space.flat_of(batch.long()).tolist()) <= found[split]
        fixed = renderer.sample_fixed(2, 10, generator(), groups=5)["factors"]
        assert not same_colours(fixed).any()
    assert not found["train"] & found["test"] and found["train"] | found["test"] == found["all"]
    assert len(found["all"]) == 52 * 3 * 90 * 21 == 294_840
    assert abs(len(found["test"]) / len(found["all"]) - 0.2) < 0.005
    whole = data.load("fonts", size=32, held_out=0)
    assert len(whole.law.allowed(whole.space, "cpu")) == 294_840


def test_the_command_line_and_a_card_can_give_the_options():
    known = data.options_of("fonts")
    pairs = ["size=32", "extra=position,rotation", "words=true", "held_out=0.1", "split=test", "faces=none"]
    options = _data_options(pairs, known)
    wanted = {"size": 32, "extra": "position,rotation", "words": True, "held_out": 0.1, "split": "test", "faces": None}
    assert options == wanted
    renderer = data.load("fonts", **options)
    assert renderer.space.names == ("word", "size", "colour", "background", "font", "position", "rotation")
    assert str(renderer).startswith("Fonts(words and position and rotation, 21 faces, 32 pixels, HeldOut(")


# ---- bad input


@pytest.mark.parametrize("size", [16, 48, 256, 64.0, "64", None])
def test_wrong_size(size):
    with pytest.raises(UserError, match="fonts come in 32, 64, 128 pixels, not") as caught:
        data.load("fonts", size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split": "valid"}, "unknown split 'valid'.* Known: train, test, all"),
        ({"held_out": 1.0}, "fonts with held_out=1.0: .*"),
        ({"held_out": "much"}, "fonts with held_out='much': .*"),
        ({"held_out": 0, "split": "test"}, "fonts with held_out=0: .*"),
        ({"held_out": 0.9999999}, "fonts with held_out=0.9999999: .*"),
        ({"extra": "rotatoin"}, "unknown extra 'rotatoin'. Did you mean 'rotation'.* Known: position, rotation"),
        ({"extra": 3}, "extra names factors, for example 'position,rotation', not 3"),
        ({"words": "yes"}, "words is true or false, not 'yes'"),
    ],
)
def test_wrong_options(options, told):
    with pytest.raises(UserError, match=told) as caught:
        data.load("fonts", size=32, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 6), (1, 3, 5)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"\(n, 5\) for letter, size, colour, background, font, not"):
        Fonts(32).render(torch.zeros(shape))


# ---- fewer letters and faces


def test_fewer_letters_and_faces():
    few = fonts.load(size=32, letters="QAb", pinned=3)
    every = fonts.Fonts(32)
    assert few.space["letter"].labels == ("Q", "A", "b") and len(few.faces) == 3
    assert (few.faces[0], few.faces[-1]) == (every.faces[0], every.faces[-1])
    there = [every.space["letter"].labels.index("A"), 1, 2, 3, len(every.faces) - 1]
    same = few.render(torch.tensor([[1.0, 1, 2, 3, 2]])), every.render(torch.tensor([there]).float())
    assert torch.equal(*same)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"letters": "AA"}, "a text of different letters"),
        ({"letters": "Aé"}, "a text of different letters"),
        ({"letters": 5}, "a text of different letters"),
        ({"letters": "A"}, "one letter is no choice"),
        ({"pinned": 1}, "pinned must be a whole number in 2"),
        ({"pinned": 99}, "pinned must be a whole number in 2"),
    ],
)
def test_letters_and_faces_that_cannot_be(options, words):
    with pytest.raises(UserError, match=words):
        fonts.load(size=32, **options)
