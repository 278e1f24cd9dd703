"""3D Faces of one's own rendering: the array of every combination, or a folder of pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit import data
from disentkit.data.base import ArrayData, StoredGrid
from disentkit.data.laws import Correlated
from disentkit.errors import UserError

COUNTS = (2, 3, 4, 5)


def renderings(side: int = 8) -> np.ndarray:
    """(2, 3, 4, 5, side, side): every picture is one shade of its own, up to 119."""
    return np.broadcast_to(np.arange(120, dtype=np.uint8).reshape(*COUNTS, 1, 1), (*COUNTS, side, side)).copy()


def test_the_array_is_a_grid_with_its_factors(tmp_path):
    np.save(tmp_path / "faces.npy", renderings())
    found = data.load("faces", path=tmp_path, size=8)
    assert isinstance(found, StoredGrid) and found.name == "faces" and found.image_shape == (1, 8, 8)
    assert found.space.names == ("identity", "azimuth", "elevation", "light") and found.space.sizes == COUNTS
    assert found.images[:, 0, 0, 0].tolist() == list(range(120))
    batch = found.sample(50, torch.Generator().manual_seed(0))
    shade = found.space.flat_of(batch["factors"].long())
    assert torch.equal((batch["x"][:, 0, 0, 0] * 255).round().long(), shade)
    fixed = found.sample_fixed(1, 10, torch.Generator().manual_seed(0))
    assert len(fixed["factors"][:, 1].unique()) == 1 and len(fixed["factors"][:, 3].unique()) > 1
    law = Correlated("azimuth", "light", 1.0)
    tied = data.load("faces", path=tmp_path, size=8, law=law).sample(50, torch.Generator().manual_seed(0))["factors"]
    assert torch.equal(tied[:, 1] * 2, tied[:, 3])


def test_a_tensor_a_file_and_the_home_hold_the_same(tmp_path, home):
    np.save(tmp_path / "any.npy", renderings())
    (home / "datasets" / "faces").mkdir(parents=True)
    torch.save(torch.from_numpy(renderings()), home / "datasets" / "faces" / "basel_face_renders.pth")
    first, second = data.load("faces", path=tmp_path / "any.npy", size=8), data.load("faces", size=8)
    assert first.fingerprint() == second.fingerprint()


def test_other_sizes_are_resized(tmp_path):
    np.save(tmp_path / "faces.npy", renderings(side=32))
    found = data.load("faces", path=tmp_path, size=16)
    assert found.image_shape == (1, 16, 16) and found.images[:, 0, 3, 3].tolist() == list(range(120))


def test_a_folder_of_pictures_with_and_without_a_table(tmp_path):
    for i in range(4):
        Image.new("L", (8, 8), 10 * i).save(tmp_path / f"{i}.png")
    plain = data.load("faces", path=tmp_path, size=8)
    assert isinstance(plain, ArrayData) and plain.name == "faces" and plain.space is None
    assert plain.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    (tmp_path / "factors.csv").write_text(
        "file,azimuth,who\n" + "".join(f"{i}.png,{i - 1.5},{'ab'[i % 2]}\n" for i in range(4))
    )
    found = data.load("faces", path=tmp_path, size=8)
    assert found.factors.tolist() == [[-1.5, 0], [-0.5, 1], [0.5, 0], [1.5, 1]]
    assert [f.kind for f in found.space] == ["real", "category"] and found.space["who"].labels == ("a", "b")
    with pytest.raises(UserError, match="holds pictures, not the whole grid, so no law can draw from it"):
        data.load("faces", path=tmp_path, law=Correlated("azimuth", "who", 0.5))


class Runs:
    def __reduce__(self):
        return print, ("run",)


def test_arrays_that_are_none(tmp_path, capsys):
    wrong = "not uint8 .identity, azimuth, elevation, light, height, width."
    for array, message in (
        (renderings().astype(np.float32), f"holds float32 .2, 3, 4, 5, 8, 8., {wrong}"),
        (renderings().reshape(120, 8, 8), f"holds uint8 .120, 8, 8., {wrong}"),
        (np.zeros((0, 3, 4, 5, 8, 8), np.uint8), f"holds uint8 .0, 3, 4, 5, 8, 8., {wrong}"),
        (np.array([{}]), "is no array of numpy or torch"),
    ):
        np.save(tmp_path / "faces.npy", array)
        with pytest.raises(UserError, match=message) as caught:
            data.load("faces", path=tmp_path)
        assert "\n" not in str(caught.value)
    torn = tmp_path / "basel_face_renders.pth"
    for saved in (Runs(), {"images": 3}):
        torch.save(saved, torn)
        with pytest.raises(UserError, match="basel_face_renders.pth"):
            data.load("faces", path=tmp_path)
    torn.write_bytes(b"PK")
    with pytest.raises(UserError, match="basel_face_renders.pth is no array of numpy or torch"):
        data.load("faces", path=tmp_path)
    assert capsys.readouterr().out == ""  # nothing in the file was run


def test_nothing_to_load_says_what_to_put_where(tmp_path, home):
    (tmp_path / "empty").mkdir()
    where = "render the Basel face model and put there basel_face_renders.pth or faces.npy"
    cases = [
        ({}, f"no faces at {data.folder_of('faces')}: .*{where}"),
        ({"path": tmp_path / "nowhere"}, f"no faces at .*nowhere: .*{where}"),
        ({"path": tmp_path / "empty"}, f"no faces at .*empty: .*{where}"),
        ({"path": 3}, "`path` names a folder or file of faces; 3 is none"),
        ({"size": 0}, "size is a number of pixels, not 0"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            data.load("faces", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=where):
        data.fetch("faces")
