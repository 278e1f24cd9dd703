"""Reed's sprites from a small archive that the tests write in the layout of the public loaders."""

import shutil

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from disentkit import data
from disentkit.data import sprites
from disentkit.errors import UserError

LENGTHS = [2 if k < 4 else 1 for k in range(21)]  # frames of the animations; the last of them is the extra
COUNT = 6


def labels_of(c: int) -> list[int]:
    """Seven labels; neighbours differ in the weapon only, as in the archive."""
    pair = c // 2
    return [pair, pair % 2, 5, pair, 0, 1, c % 2]


def pictures(c: int, k: int) -> np.ndarray:
    """The frames (n, 60, 60, 3) of a character's animation, upright, as grey levels 0 ... 255."""
    found = np.zeros((LENGTHS[k], 60, 60, 3), np.uint8)
    found[:, 3:9, 20:50, 0] = 10 * c + 5  # wide and near the top: turned over it would be noticed
    found[:, 40:44, 1:3, 1] = 3 * k
    for frame in range(LENGTHS[k]):
        found[frame, 50, 10 + frame, 2] = 255
    return found


def write_character(path, c, labels=None, animations=21, change=None, **other):
    """A character as MATLAB 7.3 stores it: cells are references, arrays are (last axis, ..., first axis)."""
    with h5py.File(path, "w") as file:
        refs = np.empty((animations, 1), dtype=h5py.ref_dtype)
        for k in range(animations):
            flat = pictures(c, k).astype(np.float64) / 255
            flat = flat.transpose(0, 3, 2, 1).reshape(len(flat), -1)  # (frames, 10800): MATLAB's columns, transposed
            flat = change(k, flat) if change else flat
            refs[k, 0] = file.create_dataset(f"#refs#/{k}", data=flat).ref
        labels = labels_of(c) if labels is None else labels
        labels = labels if isinstance(labels, bytes) else np.array([labels], float).T
        entries = {"sprites": refs, "masks": refs, "labels": labels, **other}
        for key, entry in entries.items():
            file.create_dataset(key, data=entry, dtype=h5py.ref_dtype if entry is refs else None)
    return path


def write(folder, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for c in range(COUNT):
        write_character(folder / f"sprites_{c + first}.mat", c)
    parts = {"trainidx": [[1, 2, 5]], "validx": [[3]], "testidx": [[4, 6]]}
    scipy.io.savemat(folder / "sprites_splits.mat", {k: np.array(v, float) for k, v in parts.items()})
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("archive") / "data" / "sprites")


@pytest.fixture
def own(small, tmp_path):
    """The same archive, to be spoilt."""
    return shutil.copytree(small, tmp_path / "own")


def characters(found) -> list[int]:
    return (((found.images[:, 0].amax((1, 2)).int() - 5) / 10).unique().int()).tolist()


def test_pictures_stand_upright_with_their_factors(small):
    found = data.load("sprites", path=small, split="all")
    assert found.name == "sprites" and found.image_shape == (3, 60, 60) and found.images.dtype == torch.uint8
    expected = np.concatenate([pictures(c, k) for c in range(COUNT) for k in range(20)])  # without the extra
    assert np.array_equal(found.images.permute(0, 2, 3, 1), expected)
    space = found.space
    assert space.names == (*(f"label_{k}" for k in range(1, 7)), "weapon", "action", "view", "frame")
    assert space.sizes == (3, 2, 1, 3, 1, 1, 3, 5, 4, 2)
    assert space["label_3"].labels == ("5",) and space["weapon"].labels == ("none", "0", "1")
    rows = iter(found.factors.int().tolist())
    for c in range(COUNT):
        for k in range(20):
            for frame in range(LENGTHS[k]):
                *labels, _, action, view, f = next(rows)
                known = labels_of(c)
                assert labels == [known[0], known[1], 0, known[3], 0, 0]
                assert (action, view, f) == (k // 4, k % 4, frame)


def test_a_weapon_is_what_is_seen_of_it(small):
    found = data.load("sprites", path=small, split="all")
    seen = {}
    for c in range(COUNT):
        rows = found.factors[found.images[:, 0].amax((1, 2)) == 10 * c + 5]
        for *_, weapon, action, view, _ in rows.int().tolist():
            seen.setdefault((c % 2, 4 * action + view + 1), set()).add(weapon)
    assert {number for (code, number), w in seen.items() if code == 0 and w == {1}} == set(range(17, 21))
    assert {number for (code, number), w in seen.items() if code == 1 and w == {2}} == set(range(5, 13))
    assert all(len(w) == 1 for w in seen.values())
    assert all(w == {0} for (code, k), w in seen.items() if k not in (range(17, 21), range(5, 13))[code])


@pytest.mark.parametrize("first", [0, 1])
def test_splits_count_from_one_and_files_from_either(tmp_path, first):
    folder = write(tmp_path, first)
    parts = {part: data.load("sprites", path=folder, split=part) for part in ("train", "valid", "test")}
    assert {part: characters(found) for part, found in parts.items()} == {
        "train": [0, 1, 4], "valid": [2], "test": [3, 5]
    }  # fmt: skip
    assert len(data.load("sprites", path=folder)) == len(parts["train"]) == 3 * 24
    spaces = [found.space for found in parts.values()]  # the labels of all characters, not only of the part's
    assert spaces[0] == spaces[1] == spaces[2] and spaces[0].sizes[0] == 3


def test_other_places_and_kinds_hold_the_same(small, own, home):
    known = data.load("sprites", path=small).fingerprint()
    with h5py.File(own / "sprites_splits.mat", "w") as file:  # the list as MATLAB 7.3 would store it
        for key, value in {"trainidx": [1, 2, 5], "validx": [3], "testidx": [4, 6]}.items():
            file[key] = np.array([value], float).T
    for path in (own, small.parent, small.parent.parent):
        assert data.load("sprites", path=path).fingerprint() == known
    shutil.copytree(small, data.folder_of("sprites"))
    assert data.load("sprites").fingerprint() == known


def test_other_sizes_are_resized(small):
    full = data.load("sprites", path=small, split="valid")
    half = data.load("sprites", path=small, split="valid", size=30)
    assert half.image_shape == (3, 30, 30) and torch.equal(half.factors, full.factors)
    picture = Image.fromarray(full.images[5].permute(1, 2, 0).numpy()).resize((30, 30), Image.Resampling.LANCZOS)
    assert np.array_equal(half.images[5].permute(1, 2, 0), picture)


def test_a_part_of_the_archive_will_do(own):
    (own / "sprites_4.mat").unlink()
    assert characters(data.load("sprites", path=own)) == [0, 1]
    (own / "sprites_2.mat").unlink()
    with pytest.raises(UserError, match="none of the 4 characters in .* belongs to split 'valid'"):
        data.load("sprites", path=own, split="valid")
    (own / "sprites_0.mat").unlink()
    with pytest.raises(UserError, match="neither sprites_0.mat nor sprites_6.mat, .* from 0 or from 1"):
        data.load("sprites", path=own)
    assert characters(data.load("sprites", path=own, split="all")) == [1, 3, 5]


def test_twenty_animations_bytes_and_unknown_weapons_are_taken(own):
    as_bytes = {"change": lambda k, flat: (flat * 255).round().astype(np.uint8)}
    write_character(own / "sprites_2.mat", 2, animations=20, **as_bytes)
    known = np.concatenate([pictures(2, k) for k in range(20)])
    assert np.array_equal(data.load("sprites", path=own, split="valid").images.permute(0, 2, 3, 1), known)
    write_character(own / "sprites_2.mat", 2, labels=[1, 1, 5, 1, 0, 1, 7])
    found = data.load("sprites", path=own, split="valid")
    assert found.space["weapon"].labels == ("none", "0", "1", "7") and set(found.factors[:, 6].tolist()) == {3.0}


def cases():
    def torn(path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def flat(path):
        write_character(path, 2, sprites=np.zeros((21, 10800)))

    def group(path):
        with h5py.File(path, "w") as file:
            file.create_group("sprites")

    def nowhere(path):
        write_character(path, 2, sprites=np.array([h5py.Reference()] * 21, dtype=h5py.ref_dtype))

    def changed(change):
        return lambda path: write_character(path, 2, change=change)

    def first(other):
        return changed(lambda k, flat: other(flat) if k == 0 else flat)

    return {
        "torn": (torn, "sprites_2.mat is no whole MATLAB 7.3 file"),
        "text": (lambda path: path.write_text("<html>"), "sprites_2.mat is no whole MATLAB 7.3 file"),
        "old": (lambda path: scipy.io.savemat(path, {"labels": np.zeros(7)}), "is no whole MATLAB 7.3 file"),
        "group": (group, "has no array 'labels', .* it holds sprites"),
        "flat": (flat, r"sprites is float64 \(21, 10800\), not a cell for each animation"),
        "nowhere": (nowhere, "sprites_2.mat is no whole MATLAB 7.3 file"),
        "few": (lambda path: write_character(path, 2, animations=7), "has 7 animations, not 21"),
        "wide": (first(lambda flat: flat[:, :-1]), r"animation 1 is float64 \(2, 10799\), not \(frames, 10800\)"),
        "turned": (first(lambda flat: flat.T), r"animation 1 is float64 \(10800, 2\)"),
        "levels": (first(lambda flat: flat * 255), "animation 1 reaches from 0 to 255, not from 0 to 1"),
        "nan": (first(lambda flat: flat * np.nan), "animation 1 reaches from nan to nan"),
        "labels": (lambda path: write_character(path, 2, labels=[1, 2]), r"labels is float64 \(2, 1\), not 7 whole"),
        "halves": (lambda path: write_character(path, 2, labels=[0.5] * 7), "not 7 whole numbers"),
        "words": (lambda path: write_character(path, 2, labels=b"red"), "not 7 whole numbers"),
    }


@pytest.mark.parametrize("case", list(cases()))
def test_a_broken_character_is_one_clear_line(own, case):
    spoil, message = cases()[case]
    spoil(own / "sprites_2.mat")
    with pytest.raises(UserError, match=message) as caught:
        data.load("sprites", path=own, split="all")
    assert "sprites_2.mat" in str(caught.value) and "\n" not in str(caught.value)


def test_broken_lists_of_parts_are_one_clear_line(own):
    path = own / "sprites_splits.mat"

    def saved(**parts):
        return lambda: scipy.io.savemat(path, parts)

    for spoil, message in (
        (lambda: path.write_bytes(path.read_bytes()[:150]), "sprites_splits.mat is no whole MATLAB file"),
        (lambda: path.write_text("trainidx 1 2 5"), "sprites_splits.mat is no whole MATLAB file"),
        (saved(other=[1]), "has none of trainidx, validx, testidx"),
        (saved(validx=[3]), "has no trainidx, .* it holds validx"),
        (saved(trainidx=[0, 1]), "trainidx must hold numbers of characters, counted from 1"),
        (saved(trainidx=[1.5]), "trainidx must hold numbers"),
        (saved(trainidx="abc"), "trainidx must hold numbers"),
        (path.unlink, "split='train' needs sprites_splits.mat, which is not in .*; take split='all' without it"),
    ):
        spoil()
        with pytest.raises(UserError, match=message) as caught:
            data.load("sprites", path=own)
        assert "\n" not in str(caught.value)


def test_nothing_to_load_says_what_to_put_where(small, tmp_path, home):
    where = "unpack http://www.scottreed.info/files/nips2015-analogy-data.tar.gz there"
    cases = [
        ({}, f"no sprites_<number>.mat in {data.folder_of('sprites')}: {where}"),
        ({"path": tmp_path}, f"no sprites_<number>.mat in .*: {where}"),
        ({"path": small / "sprites_0.mat"}, "no sprites_<number>.mat in"),
        ({"path": 3}, r"`path` names the folder that holds sprites_\*.mat; 3 is none"),
        ({"path": small, "split": "tests"}, "unknown split of sprites 'tests'. Did you mean 'test'"),
        ({"path": small, "size": 0}, "size is a number of pixels, not 0"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            data.load("sprites", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=where):
        data.fetch("sprites")


def test_names_of_the_labels_are_not_made_up():
    """Nothing at hand says what labels 1 to 6 mean."""
    row = next(row for row in data.describe() if row["name"] == "sprites")
    assert not any(word in row["factors"] + sprites.__doc__ for word in ("hair", "gender", "armour", "greaves"))
