"""3D Chairs from files of one's own, here a few pictures that the tests paint."""

import numpy as np
import pytest
from PIL import Image

from disentkit import data
from disentkit.errors import UserError


def chair(path, color, side=600):
    """White, with a coloured square in the middle that a 400 pixel crop just holds."""
    picture = np.full((side, side, 3), 255, np.uint8)
    picture[side // 6 : -(side // 6), side // 6 : -(side // 6)] = color
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chairs")
    for model, red in (("b", 200), ("a", 100)):
        for side in range(2):
            chair(folder / "rendered_chairs" / model / "renders" / f"image_{side:03}.png", (red + side, 0, 0))
    chair(folder / "rendered_chairs" / "a" / "thumbnail.png", (9, 9, 9))
    (folder / "rendered_chairs" / "all_chair_names.mat").write_bytes(b"not a picture")
    return folder


def test_the_renderings_model_by_model(small):
    found = data.load("chairs", path=small, size=16)
    assert found.name == "chairs" and found.image_shape == (3, 16, 16) and found.space is None
    assert found.images[:, 0, 8, 8].tolist() == [100, 101, 200, 201]
    assert found.images[:, 1:].max() == 0  # 400 x 400 is all chair, no white
    inside = data.load("chairs", path=small / "rendered_chairs", size=16)
    assert inside.fingerprint() == found.fingerprint()


def test_crop_and_colour(small):
    everything = data.load("chairs", path=small, size=60, crop=None).images[0]
    assert everything[:, :8].min() > 250 and everything[0, 30, 30] == 100
    grey = data.load("chairs", path=small, size=16, color=False)
    assert grey.image_shape == (1, 16, 16) and grey.images[2, 0, 8, 8] == 60  # the luma of red 200


def test_pictures_smaller_than_the_crop_are_taken_whole(tmp_path):
    chair(tmp_path / "a" / "renders" / "0.png", (5, 0, 0), side=60)
    found = data.load("chairs", path=tmp_path, size=60).images[0, 0]
    assert found[0, 0] == 255 and found[30, 30] == 5


def test_a_broken_picture_is_named(small, tmp_path):
    chair(tmp_path / "a" / "renders" / "0.png", (5, 0, 0))
    (tmp_path / "a" / "renders" / "1.png").write_bytes((tmp_path / "a" / "renders" / "0.png").read_bytes()[:200])
    with pytest.warns(UserWarning, match="left out 1 of 2 pictures that cannot be read: a/renders/1.png"):
        assert len(data.load("chairs", path=tmp_path, size=8)) == 1


def test_nothing_to_load_says_what_to_put_where(small, tmp_path, home):
    chair(tmp_path / "flat" / "0.png", (5, 0, 0), side=60)
    where = "unpack https://www.di.ens.fr/.*rendered_chairs.tar there, so that it holds rendered_chairs/MODEL/renders/"
    cases = [
        ({}, f"no chairs in {data.folder_of('chairs')}: {where}"),
        ({"path": tmp_path / "nowhere"}, f"no chairs in .*nowhere: {where}"),
        ({"path": tmp_path / "flat"}, f"no chairs in .*flat: {where}"),
        ({"path": 3}, "`path` names the folder that holds rendered_chairs/; 3 is none"),
        ({"path": small, "crop": -1}, "crop must be a whole number of 1 or more, not -1"),
        ({"path": small, "size": "64"}, "size is a number of pixels, not '64'"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            data.load("chairs", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=where):
        data.fetch("chairs")
