"""Own pictures: what a file holds arrives upright and square, and nothing large or broken is ever decoded."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit.data import pictures
from disentkit.errors import UserError
from disentkit.explore.uploads import from_array, from_file

SHAPE, GREY = (3, 8, 8), (1, 8, 8)


def packed(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def header(wide: int, high: int) -> bytes:
    """A PNG of that size that ends after its header: there is nothing to decode."""
    about = b"IHDR" + struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (about, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_picture_of_the_right_size_is_kept_bit_for_bit(tmp_path):
    art = pixels(8, 8, 3)
    expected = torch.from_numpy(art).permute(2, 0, 1) / 255
    path = tmp_path / "art.png"
    path.write_bytes(packed(Image.fromarray(art)))
    for source in (path, str(path), path.read_bytes(), packed(Image.fromarray(art), "WEBP", lossless=True)):
        assert torch.equal(from_file(source, SHAPE), expected)
    for array in (expected, expected[None], art, art.transpose(2, 0, 1), expected.numpy()):
        assert torch.equal(from_array(array, SHAPE), expected)


def test_the_shorter_side_is_scaled_and_the_centre_kept():
    art = np.zeros((16, 40, 3), np.uint8)
    art[:, 12:28] = (200, 40, 90)
    for made in (from_file(packed(Image.fromarray(art)), SHAPE), from_array(art, SHAPE)):
        assert made.shape == SHAPE and torch.equal(made, torch.tensor([200, 40, 90])[:, None, None].expand(SHAPE) / 255)
    assert from_file(packed(Image.fromarray(art[4:8, 4:8])), (3, 64, 64)).shape == (3, 64, 64)  # a small one grows


def test_a_photograph_on_its_side_is_put_upright():
    art = np.zeros((8, 8, 3), np.uint8)
    art[:4] = 255  # bright above
    about = Image.Exif()
    about[0x0112] = 6  # to be turned by 90 degrees clockwise: what is above comes to the right
    made = from_file(packed(Image.fromarray(art), exif=about), SHAPE)
    assert torch.equal(made, torch.from_numpy(np.rot90(art, -1).copy()).permute(2, 0, 1) / 255)


def test_every_mode_becomes_three_channels_or_one():
    art = pixels(8, 8, 4)
    rgba = from_file(packed(Image.fromarray(art, "RGBA")), SHAPE)
    share = art[..., 3:].astype(float) / 255
    assert np.abs(255 * rgba.permute(1, 2, 0).numpy() - art[..., :3] * share).max() < 1.5  # on black
    grey = from_file(packed(Image.fromarray(art[..., 0])), SHAPE)
    assert torch.equal(grey, (torch.from_numpy(art[..., 0]) / 255).expand(SHAPE))
    assert torch.equal(from_file(packed(Image.fromarray(art[..., 0])), GREY), grey[:1])
    assert from_array(art[..., :3], GREY).shape == GREY and from_array(art[..., :1], SHAPE).shape == SHAPE
    deep = from_file(packed(Image.fromarray(art[..., 0].astype(np.uint16) * 257)), GREY)
    assert torch.equal(deep, grey[:1])
    rgb = Image.fromarray(art[..., :3])
    for mode, kind in (("P", "PNG"), ("CMYK", "JPEG"), ("1", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("RGB", "TIFF")):
        made = from_file(packed((rgb if mode != "LA" else rgb.convert("L")).convert(mode), kind), SHAPE)
        assert made.shape == SHAPE and 0 <= made.min() and made.max() <= 1


@pytest.mark.parametrize(
    "size, told",
    [((10_000, 5_000), "has 50 megapixels"), ((1, 90_000_000), "has 90 megapixels"),
     ((100_000, 100_000), "has far more than 50 megapixels")],
)  # fmt: skip
def test_a_large_picture_is_refused_before_it_is_decoded(size, told, tmp_path, monkeypatch):
    decoded = []

    def decode(*_, **__):
        decoded.append(1)
        raise OSError("there is nothing to decode")

    monkeypatch.setattr(pictures, "read", decode)
    monkeypatch.setattr(Image.Image, "load", decode)
    path = tmp_path / "huge.png"
    path.write_bytes(header(*size))
    for source in (path, path.read_bytes()):
        with pytest.raises(UserError, match=f"^'huge.png' {told}; a picture has less than 50; make it smaller first$"):
            from_file(source, SHAPE, "huge.png")
    assert not decoded
    with pytest.raises(UserError, match="damaged"):
        from_file(header(9_999, 5_000), SHAPE)
    assert decoded  # below the limit it is


def cut(picture: bytes) -> bytes:
    return picture[: len(picture) // 2]


@pytest.mark.parametrize(
    "content, told",
    [
        (b"dear diary\n" * 50, "is no picture that can be read; PNG, JPEG"),
        (b"", "is no picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture"),  # no other program is started
        (packed(Image.new("RGB", (8, 8)), "PPM"), "is no picture"),
        (cut(packed(Image.fromarray(pixels(64, 64, 3)), "JPEG")), "is damaged or cut off, so it cannot be read"),
        (cut(packed(Image.fromarray(pixels(64, 64, 3)))), "is damaged or cut off"),
        (header(100, 100), "is damaged or cut off"),
        (packed(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "is damaged or cut off"),
    ],
)
def test_what_is_no_picture_is_named(content, told, tmp_path):
    path = tmp_path / "fine.png"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(UserError, match=f"^'fine.png' {told}") as error:
            from_file(source, SHAPE, "fine.png")
        assert "\n" not in str(error.value)


def test_what_holds_a_picture_is_taken_as_it_comes():
    content, x = packed(Image.fromarray(pixels(8, 8, 3))), np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for same in (bytearray(content), memoryview(content)):
        assert torch.equal(from_file(same, SHAPE), from_file(content, SHAPE))
    assert torch.equal(from_array(x[:, ::-1], SHAPE), from_array(x, SHAPE).flip(2))
    assert torch.equal(from_array(Image.fromarray(x), SHAPE), from_array(x, SHAPE))
    with pytest.raises(UserError, match="^'a b.png' is no picture"):  # one line, whatever the name
        from_file(b"none", SHAPE, "a\nb.png")


def test_files_and_arrays_that_are_none(tmp_path):
    for source in (tmp_path / "none.png", str(tmp_path / "none.png"), tmp_path, "~nobody-has-this/x.png", "n" * 5000):
        with pytest.raises(UserError, match="there is no file '.*' in .*; give the path of a picture"):
            from_file(source, SHAPE)
    for array, told in (
        (torch.rand(2, 3, 8, 8), "not \\(2, 3, 8, 8\\)"),
        (torch.rand(4, 8, 8), "not \\(4, 8, 8\\)"),
        (torch.rand(8, 8), "not \\(8, 8\\)"),
        (torch.rand(3, 0, 8), "not \\(3, 0, 8\\)"),
        (9 * torch.ones(3, 8, 8), "this one reaches from 9 to 9"),
        (torch.full((3, 8, 8), torch.nan), "this one reaches from nan"),
        (None, "or the path of a file, not NoneType"),
    ):
        with pytest.raises(ValueError, match=f"a picture is \\(C, H, W\\) with 1 or 3 channels.*{told}"):
            from_array(array, SHAPE)
    with pytest.raises(ValueError, match="brought to a square .*; this model reads \\(3, 8, 12\\)"):
        from_array(torch.rand(3, 8, 8), (3, 8, 12))
