"""Reading pictures: crops, order, and the shrunk ones that are kept for the next time."""

import errno
import os

import numpy as np
import pytest
from PIL import Image

from disentkit import data
from disentkit.data import pictures
from disentkit.errors import UserError


def paint(path, color, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def test_a_crop_keeps_the_central_square_and_none_the_whole_picture():
    wide = np.zeros((20, 40), np.uint8)
    wide[8:12, 18:22] = 200
    picture = Image.fromarray(wide)
    assert (pictures.shrink(picture, 4, crop=4) == 200).all()
    assert np.array_equal(pictures.shrink(picture, 20), wide[None, :, 10:30])  # the largest square, bit for bit
    assert np.array_equal(pictures.shrink(picture, 20, crop=400), wide[None, :, 10:30])  # there is no larger one
    squeezed = pictures.shrink(picture, 20, crop=None)[0]
    assert max(squeezed[:, :8].max(), squeezed[:, 12:].max()) < 3 and squeezed[9:11, 9:11].min() > 190


def test_many_pictures_keep_their_order(tmp_path):
    for i in range(60):
        paint(tmp_path / f"{i % 3}" / f"{i:02}.png", (i, i, i))
    names = pictures.names_in(tmp_path)
    images, read = pictures.read_all(tmp_path, names, 4)
    assert read == names == sorted(names) and len(names) == 60
    assert images[:, 0, 0, 0].tolist() == [int(name[2:4]) for name in names]


def test_what_does_not_fit_into_memory_is_one_line(tmp_path, monkeypatch):
    def full(*args):
        raise MemoryError

    paint(tmp_path / "a.png", "red")
    monkeypatch.setattr(pictures.np, "empty", full)
    with pytest.raises(UserError, match="1 pictures of 64 pixels take 0.0 GB of memory; take a smaller size"):
        pictures.read_all(tmp_path, ["a.png"], 64)


# ---- kept pictures


@pytest.fixture
def large(monkeypatch, capsys):
    """Three pictures are a large set, so they are kept, and a bar is shown."""
    monkeypatch.setattr(pictures, "LARGE", 3)


@pytest.fixture
def decoded(monkeypatch):
    """A list that grows by one whenever pictures are decoded."""
    calls, decode = [], pictures._decode
    monkeypatch.setattr(pictures, "_decode", lambda *args: calls.append(args) or decode(*args))
    return calls


def three(folder):
    for i, color in enumerate(("red", "lime", "blue")):
        paint(folder / f"{i}.png", color)
    return folder


def kept(home):
    return sorted((home / "cache").iterdir())


def test_the_second_time_nothing_is_decoded(tmp_path, home, large, decoded):
    folder = three(tmp_path / "pictures")
    first, second = (data.load("folder", path=folder, size=8) for _ in range(2))
    assert len(decoded) == 1 and np.array_equal(first.images, second.images)
    (file,) = kept(home)
    assert file.name.startswith("folder-")
    grey = data.load("folder", path=folder, size=8, color=False)
    assert len(decoded) == 2 and grey.image_shape == (1, 8, 8) and len(kept(home)) == 2
    assert np.array_equal(data.load("folder", path=folder, size=8).images, first.images) and len(decoded) == 2


@pytest.mark.parametrize("change", ["paint", "add", "remove", "rename"])
def test_a_change_is_noticed(tmp_path, home, large, decoded, change):
    folder = three(tmp_path / "pictures")
    paint(folder / "3.png", "white")
    data.load("folder", path=folder, size=8)
    if change == "paint":
        before = os.stat(folder / "1.png")
        paint(folder / "1.png", "black")
        os.utime(folder / "1.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "add":
        paint(folder / "4.png", "black")
    elif change == "remove":
        (folder / "1.png").unlink()
    else:
        (folder / "1.png").rename(folder / "8.png")
    after = data.load("folder", path=folder, size=8)
    assert len(decoded) == 2 and len(kept(home)) == 1  # in the place of the older one
    names = pictures.names_in(folder)
    assert np.array_equal(after.images, np.stack([pictures.read(folder / name, 8) for name in names]))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_damaged_kept_file_is_made_anew(tmp_path, home, large, decoded, damage):
    folder = three(tmp_path / "pictures")
    first = data.load("folder", path=folder, size=8)
    (file,) = kept(home)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.rindex(b"\x93NUMPY") + 200] ^= 255  # one pixel
    file.write_bytes(bytes(flipped) if damage is None else damage)
    assert np.array_equal(data.load("folder", path=folder, size=8).images, first.images)
    assert len(decoded) == 2 and file.read_bytes() == whole


def test_broken_pictures_are_named_every_time(tmp_path, home, large, decoded):
    folder = three(tmp_path / "pictures")
    (folder / "1.png").write_text("<html>")
    (folder / "link.png").symlink_to("nowhere.png")
    for _ in range(2):
        with pytest.warns(UserWarning, match="left out 2 of 4 pictures that cannot be read: 1.png, link.png"):
            found = data.load("folder", path=folder, size=8)
        assert len(found) == 2
    assert len(decoded) == 1


def test_a_full_disk_costs_no_more_than_the_next_reading(tmp_path, home, large, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = three(tmp_path / "pictures")
    monkeypatch.setattr(pictures.np, "savez", full)
    with pytest.warns(UserWarning, match=r"could not be kept in .*cache \(No space left on device\)"):
        assert len(data.load("folder", path=folder, size=8)) == 3
    assert kept(home) == []


def test_a_home_that_cannot_be_written_keeps_nothing(tmp_path, large, decoded, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "file" / "home"))
    folder = three(tmp_path / "pictures")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"could not be kept in .*cache \(Not a directory\): next time"):
            assert len(data.load("folder", path=folder, size=8)) == 3
    assert len(decoded) == 2


def test_a_small_set_is_not_kept(tmp_path, home):
    data.load("folder", path=three(tmp_path / "pictures"), size=8)
    assert not home.exists()
