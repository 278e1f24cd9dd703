"""CelebA from files of one's own, here a few pictures that the tests paint."""

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit import data
from disentkit.errors import UserError

NAMES = [f"Attribute_{k}" for k in range(40)]
COUNT = 12


def signs() -> np.ndarray:
    return np.random.default_rng(0).choice([-1, 1], (COUNT, 40))


def attributes(comma: bool = False) -> list[str]:
    rows = [[f"{i + 1:06}.jpg", *map(str, row)] for i, row in enumerate(signs())]
    if comma:
        return [",".join(row) for row in [["image_id", *NAMES], *rows]]
    return [
        str(COUNT),
        " ".join(NAMES) + " ",
        *(f"{row[0]} {' '.join(f'{cell:>2}' for cell in row[1:])}" for row in rows),
    ]


def parts() -> list[str]:
    return [f"{i + 1:06}.jpg {'001012222222'[i]}" for i in range(COUNT)]


def write(folder, attributes=attributes(), parts=parts(), pictures="img_align_celeba"):
    """A small CelebA; picture i is grey of 20 i."""
    (folder / pictures).mkdir(parents=True)
    for i in range(COUNT):
        Image.new("RGB", (178, 218), (20 * i,) * 3).save(folder / pictures / f"{i + 1:06}.jpg", quality=95)
    for name, lines in (("list_attr_celeba.txt", attributes), ("list_eval_partition.txt", parts)):
        if lines is not None:
            (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def shades(found) -> list[int]:
    return found.images.float().mean((1, 2, 3)).div(20).round().int().tolist()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("celeba"))


def test_pictures_with_their_attributes(small):
    found = data.load("celeba", path=small, size=16)
    assert found.name == "celeba" and found.image_shape == (3, 16, 16) and found.images.dtype == torch.uint8
    assert shades(found) == list(range(COUNT))
    assert found.space.names == tuple(NAMES) and {f.labels for f in found.space} == {("no", "yes")}
    assert np.array_equal(found.factors.numpy(), signs() > 0)
    batch = found.sample_fixed(7, 5, torch.Generator().manual_seed(0), groups=4)
    assert (batch["factors"][:, 7].reshape(4, 5) == batch["factors"][::5, 7:8]).all()
    assert data.load("celeba", path=small, size=8, color=False).image_shape == (1, 8, 8)


def test_other_layouts_hold_the_same(small, tmp_path):
    known = data.load("celeba", path=small, size=8)
    twice = write(tmp_path / "twice", None, None, pictures="img_align_celeba/img_align_celeba")
    (twice / "list_attr_celeba.csv").write_text("\n".join(attributes(comma=True)))
    rows = ["image_id,partition", *(line.replace(" ", ",") for line in parts())]
    (twice / "list_eval_partition.csv").write_text("\n".join(rows))
    official = write(tmp_path / "official", None, None, pictures="Img/img_align_celeba")
    for sub, name, lines in (("Anno", "list_attr_celeba", attributes()), ("Eval", "list_eval_partition", parts())):
        (official / sub).mkdir()
        (official / sub / f"{name}.txt").write_text("\n".join(lines))
    for path in (small / "img_align_celeba", twice, official):
        found = data.load("celeba", path=path, size=8)
        assert found.fingerprint() == known.fingerprint()
        assert shades(data.load("celeba", path=path, size=8, split="valid")) == [2, 4]


def test_splits(small):
    parts = {split: data.load("celeba", path=small, size=8, split=split) for split in ("train", "valid", "test")}
    assert {split: shades(found) for split, found in parts.items()} == {
        "train": [0, 1, 3], "valid": [2, 4], "test": [5, 6, 7, 8, 9, 10, 11]
    }  # fmt: skip
    assert np.array_equal(parts["train"].factors.numpy(), signs()[[0, 1, 3]] > 0)


def test_without_the_list_there_are_no_factors(tmp_path):
    found = data.load("celeba", path=write(tmp_path, None, None), size=8)
    assert found.space is None and len(found) == COUNT
    with pytest.raises(UserError, match="split='test' needs list_eval_partition.txt, which is not in"):
        data.load("celeba", path=tmp_path, split="test")


def test_the_whole_picture_or_a_central_square(tmp_path):
    folder = write(tmp_path, None, None)
    picture = np.zeros((218, 178, 3), np.uint8)
    picture[35:-35, 15:-15] = 255  # the central 148 x 148
    Image.fromarray(picture).save(folder / "img_align_celeba" / "000001.jpg", quality=95)
    cropped = data.load("celeba", path=folder, size=16, crop=148).images[0]
    assert cropped.min() > 240
    whole = data.load("celeba", path=folder, size=16).images[0].float().mean(0)
    assert whole[:2].max() < 15 and whole[:, 0].max() < 60 and whole[4:12, 3:13].min() > 240


def test_broken_pictures_take_their_attributes_along(tmp_path):
    folder = write(tmp_path)
    (folder / "img_align_celeba" / "000003.jpg").write_bytes(b"\xff\xd8 torn")
    with pytest.warns(UserWarning, match="left out 1 of 12 pictures that cannot be read: 000003.jpg"):
        found = data.load("celeba", path=folder, size=8)
    left = [i for i in range(COUNT) if i != 2]
    assert shades(found) == left and np.array_equal(found.factors.numpy(), signs()[left] > 0)


def test_more_rows_than_pictures_are_fine(small, tmp_path):
    folder = write(tmp_path)
    for i in range(4, COUNT + 1):
        (folder / "img_align_celeba" / f"{i:06}.jpg").unlink()
    assert np.array_equal(data.load("celeba", path=folder, size=8).factors.numpy(), signs()[:3] > 0)


def changed(line: int, text: str | None):
    lines = attributes()
    lines[line : line + 1] = [] if text is None else [text]
    return lines


LISTS = {
    "39 names": (changed(1, " ".join(NAMES[:39])), "line 2 names 39 attributes, not 40"),
    "a name twice": (changed(1, " ".join([*NAMES[:39], NAMES[0]])), "two factors share one name"),
    "39 values": (changed(4, attributes()[4][:-2]), "line 5 is not a file and 40 of -1 1"),
    "41 values": (changed(4, attributes()[4] + " 1"), "line 5 is not a file and 40 of -1 1"),
    "a value of 0": (changed(4, "000003.jpg" + " 0" * 40), "line 5 is not a file and 40 of -1 1"),
    "a row too few": (changed(5, None), "says 12 pictures and holds 11: it was cut short"),
    "cut short": (attributes()[:2], "says 12 pictures and holds 0: it was cut short"),
    "another picture's row": (
        changed(5, "9" + attributes()[5][1:]),
        "no row for 1 of 12 pictures, 000004.jpg the first",
    ),
    "nothing": ([], "is empty"),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_wrong_list_of_attributes_is_one_clear_line(small, tmp_path, case):
    lines, message = LISTS[case]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines))
    (tmp_path / "img_align_celeba").symlink_to(small / "img_align_celeba")
    with pytest.raises(UserError, match=message) as caught:
        data.load("celeba", path=tmp_path, size=8)
    assert "list_attr_celeba.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_lists_of_the_other_kind(small, tmp_path):
    (tmp_path / "img_align_celeba").symlink_to(small / "img_align_celeba")
    for content, message in (
        (b"000001.jpg 3\n", "line 1 is not a file and 1 of 0 1 2"),
        (b"000001.jpg\n", "line 1 is not a file and 1 of 0 1 2"),
        (b"000001.jpg 0\n", "names none of the pictures in .* for split 'test'"),
        (b"\xff\xfe\x00", "is no text"),
    ):
        (tmp_path / "list_eval_partition.txt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            data.load("celeba", path=tmp_path, split="test")


def test_nothing_to_load_says_what_to_put_where(small, tmp_path, home):
    (tmp_path / "empty" / "img_align_celeba").mkdir(parents=True)
    where = "unpack img_align_celeba.zip .* from http://mmlab.* with list_attr_celeba.txt and list_eval_partition.txt"
    cases = [
        ({}, f"no img_align_celeba/ in {data.folder_of('celeba')}: {where}"),
        ({"path": tmp_path / "nowhere"}, f"no img_align_celeba/ in .*nowhere: {where}"),
        ({"path": tmp_path / "empty"}, "nothing to load from .*img_align_celeba: it holds no picture"),
        ({"path": 3}, "`path` names the folder that holds img_align_celeba/; 3 is none"),
        ({"path": small, "size": 0}, "size is a number of pixels, not 0"),
        ({"path": small, "crop": 0}, "crop must be a whole number of 1 or more, not 0"),
        ({"path": small, "split": "tests"}, "unknown split of celeba 'tests'. Did you mean 'test'?"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            data.load("celeba", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=where):
        data.fetch("celeba")


def test_its_place_in_the_home_is_found(home):
    write(data.folder_of("celeba"))
    assert len(data.load("celeba", size=8)) == COUNT
