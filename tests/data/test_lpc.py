"""LPC characters: laid together as Pillow would, from real sheets and from small painted ones; nobody goes unnamed."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit import data
from disentkit.data import lpc
from disentkit.data.export import export, read
from disentkit.data.laws import HeldOut
from disentkit.errors import UserError

CREDIT = "Layers by A. Painter, CC-BY-SA 3.0"
LEVEL = 1 / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def paint(file, color, box=(24, 20, 40, 60)):
    """A sheet with one box of a colour in each of its cells."""
    file.parent.mkdir(parents=True, exist_ok=True)
    left, top, right, bottom = box
    cells = np.zeros((21, 64, 13, 64, 4), np.uint8)
    cells[:, top:bottom, :, left:right] = color
    Image.fromarray(cells.reshape(1344, 832, 4)).save(file, compress_level=1)


PARTS = {"body": (24, 10, 40, 60), "bottomwear": (24, 40, 40, 60), "topwear": (20, 25, 44, 45), "hair": (22, 8, 42, 20)}


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    """A folder of two sheets a part, and one pair of shoes."""
    folder = tmp_path_factory.mktemp("sheets")
    for p, (part, box) in enumerate(PARTS.items()):
        for k in range(2):
            paint(folder / part / f"{k}.png", (40 * p + 20, 100 * k, 250 - 50 * p, (255, 128)[k]), box)
    paint(folder / "shoes" / "1.png", (9, 8, 7, 255), (24, 58, 40, 62))
    (folder / "ATTRIBUTION.md").write_text(CREDIT)
    return folder


@pytest.fixture
def own(sheets, tmp_path):
    """The same folder, to be spoilt."""
    return shutil.copytree(sheets, tmp_path / "own")


@pytest.fixture(scope="module")
def real(real_data):
    return lpc.load(real_data / "lpc_sprites")


# ---- what is drawn


def by_pillow(folder, values, names, size):
    """A picture by Pillow alone, each value looked up anew by the factor's label."""
    picked = dict(zip(names, values, strict=True))
    row = {"spellcast": 0, "walk": 8, "slash": 12}[picked["action"]]
    row += {"back": 0, "left": 1, "front": 2, "right": 3}[picked["direction"]]
    frame = int(picked["frame"])
    cell = {"spellcast": [0, 1, 2, 3, 4, 5, 4, 6], "walk": [8, *range(1, 8)], "slash": [0, 1, 2, 3, 4, 5, 4, 0]}
    column = cell[picked["action"]][frame]
    picture = Image.new("RGBA", (64, 64), "black")
    for part in ("body", "bottomwear", "topwear", "eyes", "hair", "shoes"):
        number = picked.get(part, "1" if part == "shoes" else None)
        if number is not None:
            box = (64 * column, 64 * row, 64 * column + 64, 64 * row + 64)
            with Image.open(folder / part / f"{number}.png") as sheet:
                picture = Image.alpha_composite(picture, sheet.convert("RGBA").crop(box))
    pixels = np.asarray(picture.convert("RGB")).astype(np.float32) / 255
    if size == 60:
        pixels = pixels[4:, 2:62]
    elif size == 32:
        pixels = pixels.reshape(32, 2, 32, 2, 3).mean((1, 3))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def differs(found, folder, count, seed=0) -> float:
    """The largest difference to Pillow's pictures over a few draws."""
    values = found.law.draw(found.space, count, generator(seed))
    drawn = found.render(values)
    assert drawn.dtype == torch.float32 and drawn.shape == (count, *found.image_shape)
    words = [[f.labels[int(v)] for f, v in zip(found.space, row, strict=True)] for row in values]
    expected = [by_pillow(folder, row, found.space.names, found.size) for row in words]
    return float((drawn - torch.stack(expected)).abs().max())


@pytest.mark.parametrize("size", [64, 60, 32])
def test_painted_sheets_lie_over_each_other_as_in_pillow(sheets, size):
    found = data.load("lpc", path=sheets, size=size)
    assert found.space.sizes == (2, 2, 2, 2, 3, 3, 8) and found.image_shape == (3, size, size)
    assert differs(found, sheets, 12) <= 2 * LEVEL  # Pillow rounds after every half transparent layer


@pytest.mark.parametrize("options", [{}, {"size": 32}, {"size": 60}, {"parts": "all", "back": True}])
def test_real_characters_are_pillows(real_data, options):
    folder = real_data / "lpc_sprites"
    found = lpc.load(folder, **options)
    assert differs(found, folder, 12) <= 1.01 * LEVEL


def test_the_set_of_li_and_mandt(real, real_data):
    assert real.name == "lpc" and real.space.grid_size == 6**4 * 3 * 3 * 8 == 93_312
    assert real.space.names == ("body", "bottomwear", "topwear", "hair", "action", "direction", "frame")
    assert real.space["action"].labels == ("spellcast", "walk", "slash")
    row = next(row for row in data.describe() if row["name"] == "lpc")
    assert row["images"] == f"{real.space.grid_size:,}"
    every = lpc.load(real_data / "lpc_sprites", parts="all", back=True)
    assert every.space.sizes == (7, 7, 7, 5, 10, 3, 3, 4, 8) and every.space["direction"].labels[3] == "back"


def test_every_factor_shows_and_the_doubled_frames_are_the_same(real):
    values = torch.tensor([[0, 0, 0, 0, action, 0, 1] for action in range(3)]).float()
    for k, factor in enumerate(real.space):
        other = values.clone()
        other[:, k] = (other[:, k] + 1) % len(factor)
        assert ((real.render(other) - real.render(values)).abs().amax((1, 2, 3)) > 0.1).all(), factor.name
    frames = real.render(torch.tensor([[1.0, 2, 3, 4, a, 1, f] for a in range(3) for f in range(8)])).unflatten(
        0, (3, 8)
    )
    same = [(a, i, j) for a in range(3) for i in range(8) for j in range(i) if torch.equal(frames[a, i], frames[a, j])]
    assert same == [(0, 6, 4), (2, 6, 4), (2, 7, 0)]


def test_nothing_is_cut_off_at_60(real, real_data):
    values = real.law.draw(real.space, 200, generator())
    cut = lpc.load(real_data / "lpc_sprites", size=60).render(values)
    assert torch.equal(torch.nn.functional.pad(cut, (2, 2, 4, 0)), real.render(values))


def test_parts_come_in_the_order_of_the_body(sheets, tmp_path):
    """Opaque layers of one colour each: where two overlap, the upper one is seen."""
    for part, color in {"body": 50, "bottomwear": 100, "topwear": 150, "hair": 200, "shoes": 250, "eyes": 25}.items():
        number = 1 if part == "shoes" else 0
        paint(tmp_path / part / f"{number}.png", (color, color, color, 255), PARTS.get(part, (24, 8, 40, 62)))
    (tmp_path / "CREDITS.csv").write_text(CREDIT)
    found = data.load("lpc", path=tmp_path, parts="all")
    assert found.space.sizes == (1, 1, 1, 1, 1, 1, 3, 3, 8)
    middle = (found.render(torch.zeros(1, 9))[0, 0, :, 30] * 255).round().int()
    assert set(middle[8:62].tolist()) == {250}  # the shoes painted here reach from head to feet
    without = data.load("lpc", path=tmp_path)  # no eyes, and the shoes 1 for all, on top
    assert without.space.names[:4] == lpc.NEEDED and without.space.sizes[:4] == (1, 1, 1, 1)
    shutil.rmtree(tmp_path / "shoes")
    middle = (data.load("lpc", path=tmp_path, parts="all").render(torch.zeros(1, 8))[0, 0, :, 30] * 255).round().int()
    assert [int(middle[y]) for y in (9, 30, 50, 61)] == [200, 25, 25, 25]  # hair over eyes, eyes over shirt
    shutil.rmtree(tmp_path / "eyes")
    middle = (data.load("lpc", path=tmp_path).render(torch.zeros(1, 7))[0, 0, :, 30] * 255).round().int()
    assert [int(middle[y]) for y in (9, 22, 30, 42, 50, 61)] == [200, 50, 150, 150, 100, 0]


# ---- a renderer like the others


def test_values_are_indices_and_strangers_are_refused(sheets):
    found = data.load("lpc", path=sheets)
    near = torch.tensor([[0.4, 1.0, 0.6, -3.0, 1.2, 9.0, 7.4]])
    assert torch.equal(found.render(near), found.render(torch.tensor([[0.0, 1, 1, 0, 1, 2, 7]])))
    assert found.render(torch.zeros(0, 7)).shape == (0, 3, 64, 64)
    many = found.law.draw(found.space, 40, generator())  # more than are drawn at a time
    assert torch.equal(found.render(many)[33:], found.render(many[33:]))
    for wrong in (torch.zeros(7), torch.zeros(2, 6)):
        with pytest.raises(ValueError, match=r"factors must be \(n, 7\) for body, .* not"):
            found.render(wrong)
    with pytest.raises(ValueError, match=r"factors must be a tensor \(n, 7\), not ndarray"):
        found.render(np.zeros((2, 7)))


def test_its_code_is_its_factors(sheets):
    found = data.load("lpc", path=sheets, size=32)
    values = found.law.draw(found.space, 9, generator())
    assert torch.equal(found.values(found.code_of(values)), values)
    assert torch.equal(found.decode(found.code_of(values)), found.render(values))


def test_the_fingerprint_sees_every_cell(own):
    first = data.load("lpc", path=own).fingerprint()
    assert data.load("lpc", path=own).fingerprint() == first != data.load("lpc", path=own, size=60).fingerprint()
    with Image.open(own / "hair" / "1.png") as opened:
        sheet = np.array(opened)
    sheet[64 * 13 + 10, 64 * 5 + 30] = 1, 2, 3, 255  # one pixel of slash from the left
    Image.fromarray(sheet).save(own / "hair" / "1.png")
    assert data.load("lpc", path=own).fingerprint() != first


def test_two_parts_of_the_characters(real_data):
    folder = real_data / "lpc_sprites"
    parts = {split: lpc.load(folder, split=split, size=32) for split in ("train", "test")}
    seen = {}
    for split, found in parts.items():
        assert isinstance(found.law, HeldOut)
        tuples = found.law.allowed(found.space, torch.device("cpu"))
        seen[split] = {tuple(row) for row in tuples[:, :4].int().unique(dim=0).tolist()}
        drawn = found.sample(300, generator())["factors"][:, :4].int().tolist()
        assert {tuple(row) for row in drawn} <= seen[split]
    assert len(seen["train"]) == 1000 and len(seen["test"]) == 296 and not seen["train"] & seen["test"]
    first = np.random.RandomState(423).permutation(1296)[0]  # the first of the published order
    assert tuple(int(first) // 6**p % 6 for p in (3, 2, 1, 0)) in seen["train"]
    assert parts["train"].fingerprint() != parts["test"].fingerprint()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same_and_reads_nothing_back(sheets):
    found = data.load("lpc", path=sheets)
    rng = torch.Generator("cuda").manual_seed(0)
    there = found.to("cuda")
    values = there.sample(50, rng)["factors"]  # the layers are there now
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = there.render(values)
        there.sample(50, rng)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (drawn.cpu() - found.render(values.cpu())).abs().max() < 1e-6


# ---- attribution


def test_the_attribution_goes_along(sheets, tmp_path):
    found = data.load("lpc", path=sheets, size=32)
    assert found.attribution.endswith(CREDIT + "\n") and "CC-BY-SA 3.0" in found.attribution
    assert "attribution" in repr(found) and found.with_law(found.law).to("cpu").attribution == found.attribution
    folder = export(found, tmp_path, "folder", images=3)
    assert (folder / "ATTRIBUTION.txt").read_text() == found.attribution
    assert len(data.load("folder", path=folder, size=32)) == 3
    back = read(export(found, tmp_path, "npz", images=3))
    assert back.attribution == found.attribution
    again = export(back, tmp_path / "again", "folder")
    assert (again / "ATTRIBUTION.txt").read_text() == found.attribution
    digits = export(data.load("digits", size=8), tmp_path, "npz", images=2)
    assert not hasattr(read(digits), "attribution")
    with np.load(digits) as file:
        assert "attribution" not in file


def test_every_file_of_credits_is_kept(own):
    (own / "Authors.txt").write_text("and by B. Painter")
    (own / "authorship.txt").write_text("not this")
    text = data.load("lpc", path=own).attribution
    assert text.endswith(f"{CREDIT}\n\nand by B. Painter\n")


# ---- what is refused


def spoil(name, file):
    with Image.open(file) as opened:
        sheet = opened.copy()
    raw = file.read_bytes()
    if name == "small":
        sheet.crop((0, 0, 832, 1280)).save(file)
    elif name == "jpeg":
        sheet.convert("RGB").save(file, format="JPEG")
    elif name == "text":
        file.write_text("<html>not found</html>")
    elif name == "torn":
        file.write_bytes(raw[: len(raw) // 2])
    elif name == "solid":
        sheet.convert("RGB").save(file)
    elif name == "empty":
        cells = np.asarray(sheet).copy()
        cells[64 * 9 : 64 * 10, 64 * 3 : 64 * 4] = 0
        Image.fromarray(cells).save(file)
    elif name == "gone":
        for other in file.parent.glob("*"):
            other.unlink()


@pytest.mark.parametrize(
    "part, name, message",
    [
        ("topwear", "small", "topwear/1.png is 832x1280, but an LPC sheet is 832x1344: 13 x 21 cells of 64x64"),
        ("hair", "jpeg", "hair/1.png is no PNG but JPEG"),
        ("shoes", "text", "shoes/1.png cannot be read as a PNG .*get it again from https://github.com/YingzhenLi"),
        ("bottomwear", "torn", "bottomwear/1.png cannot be read as a PNG"),
        ("body", "solid", "body/1.png has no transparency, so it would cover"),
        ("body", "empty", "body/1.png has no picture in row 9, cell 3"),
        ("hair", "gone", "no sheet hair/0.png, hair/1.png ... in .*own; they come from"),
    ],
)
def test_a_spoilt_sheet_is_one_clear_line(own, part, name, message):
    spoil(name, own / part / "1.png")
    with pytest.raises(UserError, match=message) as caught:
        data.load("lpc", path=own)
    assert "\n" not in str(caught.value)


def test_without_the_artists_nothing_is_shown(own):
    for content, message in ((None, "own does not say who drew its layers"), (b" \n", "does not say"),
                             (b"\xff\xfe\x00", "ATTRIBUTION.md cannot be read as UTF-8 text")):  # fmt: skip
        (own / "ATTRIBUTION.md").unlink(missing_ok=True)
        if content is not None:
            (own / "ATTRIBUTION.md").write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            data.load("lpc", path=own)
        assert "\n" not in str(caught.value)


def test_nothing_to_load_says_what_to_put_where(sheets, tmp_path, home):
    where = "put there the folders body, bottomwear, topwear, hair and shoes of https://.* ATTRIBUTION.md"
    cases = [
        ({}, f"no LPC sheets in {data.folder_of('lpc')}: {where}"),
        ({"path": tmp_path}, f"no LPC sheets in .*: {where}"),
        ({"path": sheets / "body" / "0.png"}, "no LPC sheets in .*0.png"),
        ({"path": 3}, "`path` names the folder that holds body/.*; 3 is none"),
        ({"path": sheets, "size": 48}, "lpc comes in sizes 64, 60, 32, not 48"),
        ({"path": sheets, "size": 64.0}, "lpc comes in sizes 64, 60, 32, not 64.0"),
        ({"path": sheets, "parts": "sprite"}, "unknown parts of lpc 'sprite'. Did you mean 'sprites'"),
        ({"path": sheets, "back": "no"}, "back is true or false, not 'no'"),
        ({"path": sheets, "law": "grid"}, "`law` says how tuples are drawn, .*; 'grid' is none"),
        ({"path": sheets, "split": "valid"}, "unknown split of lpc 'valid'"),
        ({"path": sheets, "split": "train"}, "split='train' is of the 1,296 characters of six sheets a part"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            data.load("lpc", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=where):
        data.fetch("lpc")


def test_its_place_in_the_home_is_found(home, sheets):
    shutil.copytree(sheets, data.folder_of("lpc"))
    assert data.load("lpc").space.sizes[:4] == (2, 2, 2, 2)
