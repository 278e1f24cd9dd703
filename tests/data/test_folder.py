"""A folder of pictures of one's own: order, crop, colour, and files that cannot be read."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit import data
from disentkit.errors import UserError


def paint(path, color, size=(8, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


def test_pictures_come_in_the_order_of_their_names_from_all_subfolders(tmp_path):
    paint(tmp_path / "b.png", "red")
    paint(tmp_path / "a" / "z.JPG", "blue", quality=100, subsampling=0)
    paint(tmp_path / "c.bmp", "white")
    (tmp_path / "notes.txt").write_text("not a picture")
    paint(tmp_path / ".ipynb_checkpoints" / "b.png", "green")
    found = data.load("folder", path=tmp_path, size=16)
    assert found.image_shape == (3, 16, 16) and found.images.dtype == torch.uint8
    assert found.space is None and "factors" not in found.sample(2, torch.Generator().manual_seed(0))
    mean = found.images.float().mean((2, 3))
    assert (mean - torch.tensor([[0, 0, 255], [255, 0, 0], [255, 255, 255]])).abs().max() < 3


def test_grey(tmp_path):
    paint(tmp_path / "a.png", (255, 0, 0))
    found = data.load("folder", path=tmp_path, size=8, color=False)
    assert found.image_shape == (1, 8, 8) and found.images.unique().tolist() == [76]  # the luma of pure red


def test_the_central_square_is_kept(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200  # the centre is all that is bright
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2).copy()).save(tmp_path / "tall.png")
    found = data.load("folder", path=str(tmp_path), size=10)
    assert found.images.unique().tolist() == [200]


def test_pictures_are_turned_upright(tmp_path):
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8] = 255  # the top is bright as stored; the camera was held on its side
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    Image.fromarray(picture).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    shown = data.load("folder", path=tmp_path, size=16).images[0].float().mean(0)
    assert shown[:, 10:].mean() > 240 and shown[:, :6].mean() < 15


def test_kinds_of_pixels(tmp_path):
    paint(tmp_path / "0 clear.png", (255, 255, 255, 0), mode="RGBA")  # transparent white: black
    paint(tmp_path / "1 palette.gif", 3, mode="P")
    paint(tmp_path / "2 grey.png", 100, mode="L")
    Image.fromarray(np.full((8, 8), 128 * 256, np.uint16)).save(tmp_path / "3 deep.png")
    paint(tmp_path / "4 print.jpg", (0, 0, 0, 0), mode="CMYK")
    paint(tmp_path / "5 bit.png", 1, mode="1")
    images = data.load("folder", path=tmp_path, size=8).images.float().mean((1, 2, 3))
    assert len(images) == 6
    assert images[0] == 0 and images[2] == 100 and images[3] == 128 and images[4] > 250 and images[5] == 255


def test_broken_files_are_named_in_one_warning_and_left_out(tmp_path):
    paint(tmp_path / "good.png", "red", (40, 40))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for ending in ("png", "jpg"):
        Image.fromarray(noise).save(tmp_path / f"torn.{ending}")
        torn = tmp_path / f"torn.{ending}"
        torn.write_bytes(torn.read_bytes()[:600])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "page.png").write_text("<html>")
    (tmp_path / "empty.gif").touch()
    with pytest.warns(UserWarning) as caught:
        found = data.load("folder", path=tmp_path, size=8)
    (warning,) = caught
    assert len(found) == 1 and "4 of 5" in str(warning.message) and "\n" not in str(warning.message)
    for name in ("torn.png", "torn.jpg", "sub/page.png", "empty.gif"):
        assert name in str(warning.message)


def test_a_long_list_of_broken_files_is_cut(tmp_path):
    paint(tmp_path / "good.png", "red")
    for i in range(30):
        (tmp_path / f"bad{i:02}.png").touch()
    with pytest.warns(UserWarning, match="bad19.png and 10 more"):
        data.load("folder", path=tmp_path)


def test_nothing_to_load_is_one_clear_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").touch()
    paint(tmp_path / "good" / "a.png", "red")
    cases = [
        ({"path": tmp_path / "nowhere"}, "no folder .*nowhere"),
        ({"path": None}, "`path` names a folder of pictures; None is none"),
        ({"path": tmp_path / "good" / "a.png"}, "no folder .*a.png"),
        ({"path": tmp_path / "empty"}, "empty: it holds no picture; accepted endings are .png .jpg"),
        ({"path": tmp_path / "broken"}, "broken: none of its 1 pictures can be read; accepted endings are .png"),
        ({"path": tmp_path / "good", "size": 0}, "size is a number of pixels, not 0"),
        ({"path": tmp_path / "good", "size": "64"}, "size is a number of pixels, not '64'"),
        ({}, "data set 'folder' needs path=..."),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught, warnings.catch_warnings():
            warnings.simplefilter("error")
            data.load("folder", **options)
        assert "\n" not in str(caught.value)


def test_factors_come_from_the_table(tmp_path):
    for name in ("a.png", "b.png", "sub/c.png"):
        paint(tmp_path / name, "red")
    rows = [
        "file,shape,x,count",
        "sub/c.png,heart,0.1,2",
        "b.png,square,127.3,1",
        "gone.png,egg,5,3",
        "a.png,heart,-1,0",
    ]
    (tmp_path / "factors.csv").write_text("\n".join(rows))
    found = data.load("folder", path=tmp_path, size=8)
    assert found.space.names == ("shape", "x", "count")
    assert [f.kind for f in found.space] == ["category", "real", "category"]
    assert found.space["shape"].labels == ("heart", "square") and found.space["count"].labels is None
    assert torch.equal(found.factors, torch.tensor([[0, -1, 0], [1, 127.3, 1], [0, 0.1, 2]]))
    assert torch.equal(found.space.from_grid(found.space.to_grid(found.factors)), found.factors)


TABLES = {
    "": "must begin with the line file,FACTOR,..., not with ''",
    "name,x\na.png,1": "must begin with the line file,FACTOR,..., not with 'name,x'",
    "file\na.png": "must begin with the line file,FACTOR,..., not with 'file'",
    "file,x\na.png,1": "has no row for 1 of 2 pictures, b.png the first",
    "file,x\na.png,1\na.png,2\nb.png,3": "a.png has two rows",
    "file,x\na.png,1\nb.png,1,2": r"row 3 \(b.png\) has not one value for each of file, x",
    "file,x,y\na.png,1,2\nb.png,1,": r"row 3 \(b.png\) has not one value for each of file, x, y",
    "file,x\na.png,nan\nb.png,1": "factor 'x' holds NaN or infinite values",
    "file,x,x\na.png,1,1\nb.png,1,2": "two factors share one name",
    "file,x\na.png,1\nb.png,\xff": "is no table of comma-separated text",
}


@pytest.mark.parametrize("text", TABLES)
def test_a_wrong_table_is_one_clear_line(tmp_path, text):
    paint(tmp_path / "a.png", "red")
    paint(tmp_path / "b.png", "red")
    (tmp_path / "factors.csv").write_text(text, encoding="latin1")
    with pytest.raises(UserError, match=TABLES[text]) as caught:
        data.load("folder", path=tmp_path, size=8)
    assert "factors.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_broken_picture_takes_its_row_along(tmp_path):
    paint(tmp_path / "a.png", "red")
    (tmp_path / "b.png").touch()
    paint(tmp_path / "c.png", "red")
    (tmp_path / "factors.csv").write_text("file,x\na.png,5\nb.png,6\nc.png,7\n")
    with pytest.warns(UserWarning, match="b.png"):
        assert data.load("folder", path=tmp_path, size=8).factors.tolist() == [[5], [7]]
