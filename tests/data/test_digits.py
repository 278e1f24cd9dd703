"""Real digits: scikit-learn's, and MNIST from the original files."""

import gzip
import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from disentkit import data
from disentkit.data import digits
from disentkit.errors import UserError


def test_the_bundled_digits_are_real_and_labelled():
    found, original = data.load("digits"), load_digits()
    assert found.image_shape == (1, 32, 32) and len(found) == 1797
    assert found.space.names == ("digit",) and found.space["digit"].labels == tuple("0123456789")
    assert found.factors[:, 0].tolist() == original.target.tolist()
    assert found.images.min() == 0 and found.images.max() == 1
    # Bilinear enlarging keeps the ink: means over 4x4 pixels correlate with the 8x8 originals picture by picture.
    small = torch.nn.functional.avg_pool2d(found.images, 4).flatten(1)
    real = torch.from_numpy(original.images / 16).float().flatten(1)
    assert torch.corrcoef(torch.stack([small.flatten(), real.flatten()]))[0, 1] > 0.95
    nearest = torch.cdist(small[::10], real).argmin(1)
    assert (nearest == torch.arange(1797)[::10]).float().mean() > 0.9


def test_digits_at_8_pixels_are_the_originals():
    found = data.load("digits", size=8)
    assert torch.equal(found.images[:, 0], torch.from_numpy(load_digits().images / 16).float())
    for size in (7, 32.5, "32"):
        with pytest.raises(UserError, match="8 pixels or more"):
            data.load("digits", size=size)


def test_a_batch_of_one_digit():
    batch = data.load("digits").sample_fixed(0, 20, torch.Generator().manual_seed(0), groups=3)
    assert batch["x"].shape == (60, 1, 32, 32)
    groups = batch["factors"].reshape(3, 20)
    assert (groups == groups[:, :1]).all() and not torch.equal(batch["x"][0], batch["x"][1])


def test_real_mnist(real_data):
    test = data.load("mnist", source=real_data / "mnist", split="test")
    assert test.images.shape == (10000, 1, 32, 32) and test.images.dtype == torch.uint8
    assert test.factors[:5, 0].tolist() == [7, 2, 1, 0, 4]  # the first labels everybody knows
    border = test.images.clone()
    border[:, :, 2:-2, 2:-2] = 0
    assert border.sum() == 0
    plain = data.load("mnist", source=real_data / "mnist", split="test", size=28)
    assert torch.equal(plain.images, test.images[:, :, 2:-2, 2:-2])
    assert abs(plain.images.float().mean() / 255 - 0.1325) < 0.0005


def test_real_mnist_training_half(real_data):
    train = data.load("mnist", source=real_data / "mnist", split="train", size=28)
    assert len(train) == 60000 and train.factors[:5, 0].tolist() == [5, 0, 4, 1, 9]
    assert train.factors[:, 0].long().bincount().tolist()[:2] == [5923, 6742]
    assert abs(train.images.float().mean() / 255 - 0.1307) < 0.0005


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder, images=None, labels=None):
    """A tiny test split in the original form; bytes replace a whole file."""
    pixels, numbers = np.arange(12 * 784, dtype=np.uint32).reshape(12, 28, 28) % 251, np.arange(12) % 10
    parts = (images, idx(pixels.astype(np.uint8))), (labels, idx(numbers.astype(np.uint8)))
    folder.mkdir(exist_ok=True)
    for name, (given, default) in zip(digits.SPLITS["test"], parts, strict=True):
        (folder / name).write_bytes(gzip.compress(default) if given is None else given)
    return folder


def test_files_in_the_original_form_are_read(tmp_path):
    found = data.load("mnist", source=write(tmp_path), split="test", size=28)
    assert found.images[0, 0, 0, :4].tolist() == [0, 1, 2, 3] and found.factors[11, 0] == 1


def test_broken_files_are_one_clear_line(tmp_path):
    whole = gzip.compress(idx(np.zeros((12, 28, 28), np.uint8)))
    labels = gzip.compress(idx(np.zeros(12, np.uint8)))
    longer = gzip.compress(idx(np.zeros((12, 28, 28), np.uint8)) + b"x")
    shorter = gzip.compress(idx(np.zeros((12, 28, 28), np.uint8))[:-1])
    cases = {
        "truncated": ({"images": whole[: len(whole) // 2]}, "no whole gzip file"),
        "damaged": ({"images": whole[:-8] + b"\0" * 8}, "no whole gzip file"),
        "web page": ({"images": b"<html>moved</html>"}, "no whole gzip file"),
        "empty": ({"images": gzip.compress(b"")}, "mark of an IDX file"),
        "swapped": ({"images": labels}, "mark of an IDX file, 00000803"),
        "labels swapped": ({"labels": whole}, "mark of an IDX file, 00000801"),
        "longer": ({"images": longer}, "holds 9409 bytes"),
        "shorter": ({"images": shorter}, "holds 9407 bytes"),
        "other size": ({"images": gzip.compress(idx(np.zeros((12, 27, 28), np.uint8)))}, "do not belong together"),
        "fewer labels": ({"labels": gzip.compress(idx(np.zeros(11, np.uint8)))}, "do not belong together"),
        "wrong labels": ({"labels": gzip.compress(idx(np.full(12, 10, np.uint8)))}, "do not belong together"),
    }
    for name, (parts, message) in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            data.load("mnist", source=write(tmp_path / name, **parts), split="test")
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_and_wrong_options(tmp_path, home):
    with pytest.raises(UserError, match="no file .*train-images.*disentkit data fetch mnist"):
        data.load("mnist", source=tmp_path)
    with pytest.raises(UserError, match="datasets.mnist.*disentkit data fetch mnist"):
        data.load("mnist")  # nothing fetched into this home
    with pytest.raises(UserError, match="train and test, not 'valid'"):
        data.load("mnist", source=tmp_path, split="valid")
    with pytest.raises(UserError, match="28 or 32"):
        data.load("mnist", source=tmp_path, size=64)


def test_fetched_files_are_found_without_a_source(home):
    folder = data.folder_of("mnist")
    folder.mkdir(parents=True)
    write(folder)
    assert folder.is_relative_to(home) and len(data.load("mnist", split="test")) == 12
