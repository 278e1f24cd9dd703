"""iLab and RaFD by their file names, in archives that the tests make in the documented layout."""

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit import data
from disentkit.data.groups import Groups
from disentkit.errors import UserError

KINDS = ("boat", "bus", "f1car")
EXPRESSIONS = ("happy", "neutral", "surprised", "disgusted", "contemptuous")


def paint(path, red, green, blue, size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, green, blue)).save(path)


def shades(found) -> torch.Tensor:
    """(N, 3): the colour of every picture, by tens."""
    return (found.images.float().mean((2, 3)) / 10).round().long()


# ---- iLab


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Six toys of three kinds, four backgrounds, eight rotations, camera 0; and camera 3 of one of them.

    Red says the toy, green the background, blue the rotation.
    """
    folder = tmp_path_factory.mktemp("ilab")
    for toy in range(6):
        kind = KINDS[toy // 2]
        for ground in range(4):
            for turn in range(8):
                name = f"{kind}-i{toy % 2 + 1:04}-b{ground + 9:04}-c00-r{turn:02}-l0-f1.png"
                paint(folder / "train" / kind / name, 10 * toy, 10 * ground, 10 * turn)
    paint(folder / "boat-i0001-b0009-c03-r05.png", 250, 250, 250)
    return folder


def test_names_say_toy_background_and_rotation(toys):
    found = data.load("ilab", path=toys, size=8)
    assert found.name == "ilab" and found.image_shape == (3, 8, 8) and len(found) == 6 * 4 * 6
    assert found.space.names == ("identity", "background", "pose") and {f.kind for f in found.space} == {"category"}
    assert found.space["identity"].labels == tuple(f"{kind}-i000{i}" for kind in KINDS for i in (1, 2))
    assert found.space["background"].labels == ("b0009", "b0010", "b0011", "b0012")
    assert found.space["pose"].labels == ("r01", "r02", "r03", "r04", "r06", "r07")
    turns = torch.tensor([1, 2, 3, 4, 6, 7])
    expected = found.factors.long()
    expected[:, 2] = turns[expected[:, 2]]
    assert torch.equal(shades(found), expected)
    one = data.load("ilab", path=toys, size=8, by="category")
    assert one.space.names == ("category", "background", "pose") and one.space["category"].labels == KINDS
    assert torch.equal(one.factors[:, 0], (found.factors[:, 0] / 2).floor())


def test_cameras_and_poses(toys):
    assert len(data.load("ilab", path=toys, size=8, poses="all")) == 6 * 4 * 8
    assert data.load("ilab", path=toys, size=8, poses="r5, r00").space["pose"].labels == ("r00", "r05")
    assert len(data.load("ilab", path=toys, size=8, cameras="c03", poses="all")) == 1
    assert len(data.load("ilab", path=toys, size=8, cameras="c00,c03", poses="r05")) == 6 * 4 + 1
    assert len(data.load("ilab", path=toys, size=8, cameras="all", poses="all")) == 6 * 4 * 8 + 1


def test_further_tokens_and_short_names_are_taken(tmp_path):
    names = ["car-i7-b2-c0-r1.jpg", "tank-x9-i0003-c00-b0002-r02-crop-l1.png", "mil-i0003-b0002-c00-r01-l0-f2.JPG"]
    for name in names:
        paint(tmp_path / name, 9, 9, 9)
    found = data.load("ilab", path=tmp_path, size=8)
    assert found.space["identity"].labels == ("car-i0007", "mil-i0003", "tank-i0003")
    assert found.space["background"].labels == ("b0002",) and found.space["pose"].labels == ("r01", "r02")


def test_the_whole_picture_is_kept(tmp_path):
    picture = np.zeros((10, 40, 3), np.uint8)
    picture[:, :10] = 200  # a crop would lose it
    Image.fromarray(picture).save(tmp_path / "car-i0001-b0001-c00-r01.png")
    found = data.load("ilab", path=tmp_path, size=8).images[0]
    assert found.shape == (3, 8, 8) and found[:, :, 0].min() > 180 and found[:, :, 4:].max() < 5


def test_other_names_are_named_and_left_out(tmp_path):
    paint(tmp_path / "car-i0001-b0001-c00-r01.png", 9, 9, 9)
    paint(tmp_path / "car-i0001-b0001-r01.png", 9, 9, 9)
    (tmp_path / "car-i0001-b0001-c00-r02.png").touch()
    for i in range(6):
        paint(tmp_path / f"holiday{i}.png", 9, 9, 9)
    other = r"left out 7 of 9 pictures that are not named like car-i0160-.*: car-i0001-b0001-r01.png, .* and 2 more$"
    broken = "left out 1 of 2 pictures that cannot be read: car-i0001-b0001-c00-r02.png"
    with pytest.warns(UserWarning, match=other), pytest.warns(UserWarning, match=broken):
        assert len(data.load("ilab", path=tmp_path, size=8)) == 1


# ---- RaFD


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Three people, six expressions, three cameras, two gazes; red says the person, green the camera, blue the gaze."""
    folder = tmp_path_factory.mktemp("rafd")
    people = (("01", "Caucasian_female"), ("71", "Moroccan_male"), ("8", "Kid_male"))
    for person, (number, kind) in enumerate(people):
        for expression in (*EXPRESSIONS, "angry"):
            for pose in (45, 90, 180):
                for gaze, blue in (("frontal", 0), ("left", 200)):
                    name = f"Rafd{pose:03}_{number}_{kind}_{expression}_{gaze}.jpg"
                    paint(folder / "files" / name, 50 * person, pose, blue, size=(6, 9))
    return folder


def test_names_say_person_expression_and_camera(faces):
    found = data.load("rafd", path=faces, size=8)
    assert found.name == "rafd" and found.image_shape == (3, 8, 8) and len(found) == 3 * 5 * 3
    assert found.space.names == ("identity", "expression", "pose") and {f.kind for f in found.space} == {"category"}
    assert [f.labels for f in found.space] == [("01", "08", "71"), EXPRESSIONS, ("045", "090", "180")]
    seen = found.images.float().mean((2, 3))
    assert (seen[:, 0] - torch.tensor([0.0, 100, 50])[found.factors[:, 0].long()]).abs().max() < 5
    assert (seen[:, 1] - torch.tensor([45.0, 90, 180])[found.factors[:, 2].long()]).abs().max() < 5
    assert seen[:, 2].max() < 5  # frontal
    assert len(found.factors.unique(dim=0)) == len(found)


def test_gaze_and_expressions(faces):
    assert data.load("rafd", path=faces, size=8, gaze="left").images[:, 2].float().mean() > 190
    assert len(data.load("rafd", path=faces, size=8, gaze="all")) == 3 * 5 * 3 * 2
    everything = data.load("rafd", path=faces, size=8, expressions="all")
    assert everything.space["expression"].labels == (*EXPRESSIONS, "angry")
    two = data.load("rafd", path=faces, size=8, expressions="angry, happy")
    assert two.space["expression"].labels == ("happy", "angry") and len(two) == 3 * 2 * 3


def test_other_photographs_are_named_and_left_out(tmp_path):
    paint(tmp_path / "Rafd090_01_Caucasian_female_sad_frontal.jpg", 9, 9, 9)
    for name in ("Rafd091_01_Caucasian_female_sad_frontal", "Rafd090_01_Caucasian_female_bored_frontal", "me"):
        paint(tmp_path / f"{name}.png", 9, 9, 9)
    with pytest.warns(
        UserWarning, match="left out 3 of 4 pictures .* like Rafd090_01_.*: Rafd090_01_.*bored.*, me.png$"
    ):
        assert len(data.load("rafd", path=tmp_path, size=8, expressions="all")) == 1


# ---- both


def test_partners_can_be_drawn(toys, faces):
    for name, path in (("ilab", toys), ("rafd", faces)):
        groups = Groups(data.load(name, path=path, size=8))
        batch = groups.sample(20, torch.Generator().manual_seed(0))
        assert batch["group"].shape == (20, 5, 3, 8, 8)
        factors = batch["group_factors"]
        shared = factors[:, 1:] == factors[:, :1]  # (20, 4, 3)
        wanted = torch.cat([torch.eye(3), torch.zeros(1, 3)]).bool()
        assert torch.equal(shared, wanted.expand(20, 4, 3))


def test_nothing_to_load_says_what_to_put_where(toys, faces, tmp_path, home):
    paint(tmp_path / "other" / "cat.png", 9, 9, 9)
    toy = "unpack iLab-6pose, which http://ilab.usc.edu/.* offers, .* named like car-i0160-b0001-c00-r01-l0-f1.png; or"
    face = "ask for RaFD at https://rafd.socsci.ru.nl, .* put Rafd090_01_.*frontal.jpg and the others there; or name"
    there = r"has cameras=c07 and poses=.*; there are cameras c00, c03 and poses r00, .*, r07$"
    cases = [
        ("ilab", {}, f"no pictures in {data.folder_of('ilab')}: {toy}"),
        ("ilab", {"path": tmp_path / "nowhere"}, f"no pictures in .*nowhere: {toy}"),
        ("ilab", {"path": tmp_path / "other"}, "none of the 1 pictures in .* is named like car-i0160-.*, cat.png the"),
        ("ilab", {"path": 3}, "`path` names the folder that holds car-i0160-.*; 3 is none"),
        ("ilab", {"path": toys, "size": 0}, "size is a number of pixels, not 0"),
        ("ilab", {"path": toys, "cameras": "c07"}, there),
        ("ilab", {"path": toys, "cameras": "7"}, "cameras are named like c00, several with commas .*, not '7'"),
        ("ilab", {"path": toys, "poses": ["r01"]}, "poses are named like r01, .* or 'all', not .'r01'."),
        ("ilab", {"path": toys, "by": "instance"}, "unknown by 'instance'.* Known: identity, category"),
        ("rafd", {}, f"no photographs in {data.folder_of('rafd')}: {face}"),
        ("rafd", {"path": tmp_path / "other"}, "none of the 1 pictures in .* is named like Rafd090.*, cat.png the"),
        ("rafd", {"path": faces, "gaze": "up"}, "unknown gaze 'up'"),
        ("rafd", {"path": faces, "expressions": "hapy"}, "unknown expressions 'hapy'. Did you mean 'happy'?"),
        ("rafd", {"path": faces, "expressions": 5}, "expressions are words separated by commas, .*, not 5"),
        (
            "rafd",
            {"path": faces, "expressions": "sad"},
            "none of the 108 photographs in .* has gaze=frontal and one of",
        ),
    ]
    for name, options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            data.load(name, **options)
        assert "\n" not in str(caught.value)
    for name, message in (("ilab", toy), ("rafd", face)):
        with pytest.raises(UserError, match=message):
            data.fetch(name)
