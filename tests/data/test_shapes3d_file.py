"""The official h5 of 3D Shapes: what is read is what it holds, and what is no such file is refused in one line."""

import hashlib
import warnings

import h5py
import numpy as np
import pytest
import torch

from disentkit import data
from disentkit.data import shapes3d_file
from disentkit.data.base import ArrayData, StoredGrid
from disentkit.data.laws import Grid, Real
from disentkit.data.shapes3d import SPACE, Shapes3D
from disentkit.errors import UserError

LEVEL = 1 / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def write(path, index, chunks=None, **other):
    """A small file in the official form; an entry given as None is left out."""
    values = SPACE.from_grid(index)
    images = (Shapes3D().render(values) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    entries = {"images": images.numpy(), "labels": values.double().numpy(), **other}
    with h5py.File(path, "w") as file:
        for key, entry in entries.items():
            if entry is not None:
                file.create_dataset(key, data=entry, chunks=chunks if key == "images" else None)
    return path


@pytest.fixture
def grid_index():
    """A grid of 1 x 2 x 1 x 2 x 4 x 1 tuples of 3D Shapes."""
    pick = [torch.tensor(p) for p in ([3], [0, 9], [5], [0, 7], [0, 1, 2, 3], [14])]
    return torch.cartesian_prod(*pick)


def test_a_file_in_the_official_form_is_read(tmp_path, monkeypatch, grid_index):
    path = write(tmp_path / shapes3d_file.FILE, grid_index, chunks=(5, 32, 64, 1))
    monkeypatch.setattr(shapes3d_file, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    read = data.load("shapes3d", source=tmp_path)  # the folder that holds it will do
    assert isinstance(read, StoredGrid) and read.space.sizes == (1, 2, 1, 2, 4, 1) and read.space.names == SPACE.names
    assert read.space["shape"].labels == ("cube", "cylinder", "sphere", "capsule")
    assert torch.equal(read.array.factors, SPACE.from_grid(grid_index))
    assert (read.render(read.array.factors) - Shapes3D().render(read.array.factors)).abs().max() <= 0.51 * LEVEL
    small = data.load("shapes3d", source=tmp_path, size=32)
    assert small.images.shape == (16, 3, 32, 32) and small.images.dtype == torch.uint8
    averages = torch.nn.functional.avg_pool2d(read.images.float(), 2)
    assert (small.images.float() - averages).abs().max() <= 0.5
    batch = read.with_law(Real()).sample(30, generator())
    assert torch.equal(read.render(batch["factors"]), batch["x"])


def test_long_files_are_read_in_pieces_of_whole_chunks(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, size=(50, 64, 64, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "long.h5", "w") as file:
        stored = file.create_dataset("images", data=images, chunks=(7, 64, 64, 3))
        monkeypatch.setattr(shapes3d_file, "STEP", 16)
        assert torch.equal(shapes3d_file._small_bytes(stored, 64), torch.from_numpy(images).permute(0, 3, 1, 2))


def test_a_part_that_is_no_grid_is_an_array(tmp_path, grid_index):
    path = write(tmp_path / "part.h5", grid_index[[0, 3, 5]])
    read = data.load("shapes3d", source=path, verify=False)
    assert isinstance(read, ArrayData) and len(read) == 3
    with pytest.raises(UserError, match="some tuples"):
        data.load("shapes3d", source=path, verify=False, law=Grid())
    with pytest.raises(UserError, match="md5"):
        data.load("shapes3d", source=path)
    shuffled = write(tmp_path / "shuffled.h5", grid_index.flip(0))
    assert isinstance(data.load("shapes3d", source=shuffled, verify=False), ArrayData)


def test_broken_files_are_one_clear_line(tmp_path, grid_index):
    whole = write(tmp_path / "whole.h5", grid_index)
    torn = tmp_path / "torn.h5"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text = tmp_path / "text.h5"
    text.write_text("<html>not found</html>")
    empty = tmp_path / "empty.h5"
    h5py.File(empty, "w").close()
    group = tmp_path / "group.h5"
    with h5py.File(group, "w") as file:
        file.create_group("images").create_group("labels")
    labels = SPACE.from_grid(grid_index).double().numpy()
    odd = labels.copy()
    odd[3, 3] = 0.8
    cases = {
        tmp_path / "missing.h5": "no file .*disentkit data fetch shapes3d",
        torn: "download it again",
        text: "download it again",
        empty: "no images and no labels.*it holds nothing",
        group: "no images and no labels.*it holds images",
        write(tmp_path / "bare.h5", grid_index, labels=None, classes=labels): "no labels, .*it holds classes, images",
        write(tmp_path / "float.h5", grid_index, images=np.zeros((16, 64, 64, 3))): "not 3D Shapes' images uint8",
        write(tmp_path / "first.h5", grid_index, images=np.zeros((16, 3, 64, 64), np.uint8)): "not 3D Shapes' images",
        write(tmp_path / "few.h5", grid_index, labels=labels[:15]): "not 3D Shapes' images",
        write(tmp_path / "narrow.h5", grid_index, labels=labels[:, :5]): "not 3D Shapes' images",
        write(tmp_path / "none.h5", grid_index[:0]): "not 3D Shapes' images",
        write(tmp_path / "scalar.h5", grid_index, images=np.uint8(3)): "not 3D Shapes' images",
        write(tmp_path / "words.h5", grid_index, labels=np.full((16, 6), b"red")): "not 3D Shapes' images",
        write(tmp_path / "odd.h5", grid_index, labels=odd): "labels hold scale 0.8, which 3D Shapes has not",
        write(tmp_path / "nan.h5", grid_index, labels=labels * np.nan): "labels hold floor_hue nan, which",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as caught, warnings.catch_warnings():
            warnings.simplefilter("error")
            data.load("shapes3d", source=path, verify=False)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="md5"):
        data.load("shapes3d", source=torn)
    for wrong in (3, ["3dshapes.h5"], True):
        with pytest.raises(UserError, match="`source` names 3dshapes.h5 or its folder"):
            data.load("shapes3d", source=wrong)


def test_a_damaged_chunk_is_one_clear_line(tmp_path, grid_index):
    path = tmp_path / "flipped.h5"
    with h5py.File(path, "w") as file:
        images = np.random.default_rng(0).integers(0, 256, size=(16, 64, 64, 3), dtype=np.uint8)
        file.create_dataset("images", data=images, chunks=(4, 64, 64, 3), compression="gzip")
        file.create_dataset("labels", data=SPACE.from_grid(grid_index).double().numpy())
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 400] = bytes(400)
    path.write_bytes(raw)
    with pytest.raises(UserError, match="no whole 3D Shapes h5 .*download it again"):
        data.load("shapes3d", source=path, verify=False)


def test_offline_says_where_to_put_the_file(home, monkeypatch):
    monkeypatch.setattr(shapes3d_file, "URL", f"http://127.0.0.1:9/{shapes3d_file.FILE}")  # nothing listens there
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(UserError, match="could not fetch http://127.0.0.1:9/.*by hand at") as caught:
        data.fetch("shapes3d")
    assert str(data.folder_of("shapes3d") / shapes3d_file.FILE) in str(caught.value)
