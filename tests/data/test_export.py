"""Exports: what is written is what was drawn, comes back bit for bit, and is there whole or not at all."""

import re
import time

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit import cli, data
from disentkit.data.base import ArrayData
from disentkit.data.dsprites import DSprites
from disentkit.data.export import export, read
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Correlated, Grid, HeldOut
from disentkit.errors import UserError


class Few(DSprites):
    """dSprites with 24 of its tuples."""

    name = "few"
    space = FactorSpace(
        [
            category("shape", "square", "ellipse", "heart"),
            Factor("scale", "real", (0.5, 0.8)),
            Factor("orientation", "cyclic", (0.0, 1.1), unit="rad"),
            Factor("x", "real", (0.1, 0.9)),
            Factor("y", "real", (0.5,)),
        ]
    )


def in_order(space: FactorSpace) -> torch.Tensor:
    return space.from_grid(space.tuple_of(torch.arange(space.grid_size)))


def files(folder) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# ---- npz


def test_dsprites_comes_back_bit_for_bit(tmp_path):
    dsprites = data.load("dsprites")
    path = export(dsprites, tmp_path, images=300)
    assert path == tmp_path / "dsprites.npz"
    found = read(path)
    assert found.images.dtype == torch.uint8 and found.image_shape == (1, 64, 64) and found.space == dsprites.space
    x = found.rows(torch.arange(300))["x"]
    assert torch.equal(x, dsprites.render(found.factors)) and set(x.unique().tolist()) == {0.0, 1.0}
    assert len(found.factors.unique(dim=0)) == 300  # none twice
    with np.load(path, allow_pickle=False) as file:
        again = ArrayData(file["images"], file["factors"], dsprites.space, name="dsprites")
        assert again.fingerprint() == found.fingerprint()
        assert file["images"].shape == (300, 64, 64) and file["names"].tolist() == list(dsprites.space.names)


def test_a_whole_grid_comes_in_grid_order(tmp_path):
    few = Few(32)
    found = read(export(few, tmp_path))
    assert torch.equal(found.factors, in_order(few.space)) and found.space == few.space
    assert torch.equal(found.rows(torch.arange(24))["x"], few.render(found.factors))
    assert torch.equal(read(export(few, tmp_path / "same", images=24)).factors, found.factors)
    some = read(export(few, tmp_path / "some", images=20)).factors
    assert len(some.unique(dim=0)) == 20 and not torch.equal(some, found.factors[:20])


def test_the_same_export_gives_the_same_bytes_and_another_seed_others(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2e9)  # the date is not in them
    first = export(Few(16), tmp_path / "a", images=10).read_bytes()
    monkeypatch.undo()
    assert export(Few(16), tmp_path / "b", images=10).read_bytes() == first
    assert not torch.equal(read(export(Few(16), tmp_path / "c", images=10, seed=1)).factors,
                           read(tmp_path / "a" / "few.npz").factors)  # fmt: skip


def test_batches_join_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr("disentkit.data.export.BATCH", 7)
    few = Few(16)
    assert torch.equal(read(export(few, tmp_path)).factors, in_order(few.space))
    tied = few.with_law(Correlated("scale", "x", 1.0))
    found = read(export(tied, tmp_path / "law", images=30))
    assert torch.equal(found.rows(torch.arange(30))["x"], few.render(found.factors))


def test_a_law_is_kept(tmp_path):
    tied = Few(16).with_law(Correlated("scale", "x", 1.0))
    factors = read(export(tied, tmp_path, images=50)).factors
    assert torch.equal(factors[:, 1] > 0.6, factors[:, 3] > 0.5)
    held = Few(16).with_law(HeldOut(Grid(), lambda values: values[:, 0] == 2))
    assert read(export(held, tmp_path / "held", images=50)).factors[:, 0].max() == 1
    for unbounded in (tied, held):
        with pytest.raises(UserError, match="say how many images of 'few' to draw: no whole grid of it can be written"):
            export(unbounded, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_grid_beyond_reason_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("disentkit.data.export.LARGEST", 23)
    with pytest.raises(UserError, match="say how many images"):
        export(Few(16), tmp_path)
    assert len(read(export(Few(16), tmp_path, images=30))) == 30


@pytest.mark.parametrize("channels", [1, 3])
def test_stored_images_come_back(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (9, channels, 6, 7), dtype=np.uint8)
    found = read(export(ArrayData(images, name="my pictures / 2"), tmp_path))
    assert found.name == "my_pictures_2" and found.space is None
    assert np.array_equal(found.images, images)
    some = read(export(ArrayData(images), tmp_path, images=5)).images
    assert len({picture.numpy().tobytes() for picture in some} & {picture.tobytes() for picture in images}) == 5


def test_grey_levels_are_rounded_to_8_bits(tmp_path):
    digits = data.load("digits", size=8)
    found = read(export(digits, tmp_path))
    assert found.space == digits.space and torch.equal(found.factors, digits.factors)
    assert (found.images.float() / 255 - digits.images).abs().max() <= 0.5 / 255 + 1e-6


# ---- folders


def test_a_folder_comes_back(tmp_path):
    few = Few(32)
    path = export(few, tmp_path, "folder")
    assert path == tmp_path / "few" and files(path) == [*(f"{i:02}.png" for i in range(24)), "factors.csv"]
    found = data.load("folder", path=path, size=32, color=False)
    assert torch.equal(found.rows(torch.arange(24))["x"], few.render(in_order(few.space)))
    assert found.space.names == few.space.names and found.space["shape"].labels == ("ellipse", "heart", "square")
    words = [found.space["shape"].labels[int(v)] for v in found.factors[:, 0]]
    assert words == ["square"] * 8 + ["ellipse"] * 8 + ["heart"] * 8
    assert torch.equal(found.factors[:, 1:4], in_order(few.space)[:, 1:4])
    assert (path / "factors.csv").read_text().splitlines()[:2] == [
        "file,shape,scale,orientation,x,y", "00.png,square,0.5,0,0.1,0.5"
    ]  # fmt: skip


def test_a_large_folder_has_subfolders_and_keeps_its_order(tmp_path, monkeypatch):
    monkeypatch.setattr("disentkit.data.export.IN_ONE_FOLDER", 10)
    path = export(Few(16), tmp_path, "folder")
    assert (path / "0000" / "09.png").is_file() and (path / "0002" / "23.png").is_file()
    found = data.load("folder", path=path, size=16, color=False)
    assert torch.equal(found.rows(torch.arange(24))["x"], Few(16).render(in_order(Few.space)))


def test_a_folder_without_factors_has_no_table(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    path = export(ArrayData(images), tmp_path, "folder")
    assert files(path) == ["0.png", "1.png", "2.png"]
    assert np.array_equal(data.load("folder", path=path, size=8).images, images)


def test_words_with_commas_stay_words(tmp_path):
    space = FactorSpace([category("what, exactly", 'a "word", or two', "none")])
    path = export(ArrayData(np.zeros((2, 8, 8), np.uint8), [[1], [0]], space), tmp_path, "folder")
    found = data.load("folder", path=path, size=8)
    assert found.space == space and found.factors.tolist() == [[1], [0]]


# ---- whole or not at all


@pytest.mark.parametrize("format", ["npz", "folder"])
def test_nothing_is_overwritten(tmp_path, format):
    path = export(Few(16), tmp_path, format, images=2)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(UserError, match=f"{re.escape(str(path))} is there already"):
        export(Few(16), tmp_path, format, images=3)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


@pytest.mark.parametrize("format", ["npz", "folder"])
def test_a_full_disk_leaves_nothing(tmp_path, format):
    resource = pytest.importorskip("resource", reason="no limits on file sizes on this system")
    noise = ArrayData(np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for out in (tmp_path / "mine", tmp_path / "new" / "deep"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000 if format == "npz" else 150, limits[1]))
        try:
            with pytest.raises(UserError, match=r"could not be written \(File too large\), and nothing of it is left"):
                export(noise, out, format)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"] and files(tmp_path) == ["mine/notes.txt"]
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_what_is_no_data_set_or_path_is_told(tmp_path):
    with pytest.raises(UserError, match="only a data set can be exported, .* not str"):
        export("digits", tmp_path)
    for path in (None, 3, "a\0b"):
        with pytest.raises(UserError, match="a path names a file or a folder; "):
            export(DSprites(16), path, images=2)
        with pytest.raises(UserError, match="a path names a file or a folder; "):
            read(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["npz", "folder"])
def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch, format):
    monkeypatch.setattr("disentkit.data.export.BATCH", 10)
    render, seen = Few.render, []

    def interrupting(self, values):
        seen.extend(tmp_path.rglob("*"))
        if len(values) < 10:
            raise KeyboardInterrupt
        return render(self, values)

    monkeypatch.setattr(Few, "render", interrupting)
    with pytest.raises(KeyboardInterrupt):
        export(Few(16), tmp_path / "out", format)
    assert seen and all("/.draft-" in p.as_posix() for p in seen if p.name != "out")  # hidden while it is unfinished
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    cases = [
        ({"format": "pdf"}, "unknown format 'pdf'. Known: npz, folder, fonts."),
        ({"images": 25}, "'few' has 24 images, not 25; leave the number out for all of them"),
        ({"images": 0}, "images must be a whole number in 1 ... 100000000, not 0"),
        ({"images": 10**15}, "images must be a whole number in 1 ... 100000000, not 1000000000000000"),
        ({"seed": -1}, "seed must be a whole number of 0 or more, not -1"),
        ({"out": tmp_path / "file"}, r"could not be written \(File exists\)"),
        ({"out": tmp_path / "file" / "x"}, r"could not be written \(Not a directory\)"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            export(Few(16), **({"out": tmp_path / "out"} | options))
        assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["file"]


def test_reading_what_is_no_export(tmp_path):
    path = export(Few(16), tmp_path)
    whole = path.read_bytes()
    np.savez(tmp_path / "other.npz", pictures=np.zeros(3))
    path.write_bytes(whole[:-300])
    for name, message in (
        ("nowhere.npz", "no file .*nowhere.npz"),
        ("few.npz", "few.npz is no whole npz of `disentkit data export`"),
        ("other.npz", "other.npz is no whole npz of `disentkit data export`"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


# ---- the command


def call(capsys, *argv: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `disentkit data export ARGV`."""
    try:
        code = cli.main(("data", "export", *argv))
    except SystemExit as leaving:  # argparse
        code = leaving.code
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_command_writes_and_says_where(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert call(capsys, "dsprites", "--out", out, "--images", "20", "--size", "32", "--seed", "3") == (
        0, f"{tmp_path / 'out' / 'dsprites.npz'}\n", ""
    )  # fmt: skip
    found = read(tmp_path / "out" / "dsprites.npz")
    assert len(found) == 20 and torch.equal(found.rows(torch.arange(20))["x"], DSprites(32).render(found.factors))
    assert torch.equal(found.factors, read(export(DSprites(32), tmp_path, images=20, seed=3)).factors)


def test_options_of_the_loader(tmp_path, capsys):
    picture = np.zeros((30, 60, 3), np.uint8)
    picture[10:20, 25:35] = (255, 0, 0)
    (tmp_path / "img_align_celeba").mkdir()
    Image.fromarray(picture).save(tmp_path / "img_align_celeba" / "1.png")
    argv = ["celeba", "--format", "folder", "--set", f"path={tmp_path}", "--set", "size=8", "--set", "color=False"]
    assert call(capsys, *argv, "--set", "crop=10", "--out", str(tmp_path / "a"))[0] == 0
    assert np.asarray(Image.open(tmp_path / "a" / "celeba" / "0.png")).tolist() == [[76] * 8] * 8
    assert call(capsys, *argv, "--set", "crop=none", "--out", str(tmp_path / "b"))[0] == 0
    assert np.asarray(Image.open(tmp_path / "b" / "celeba" / "0.png"))[0].max() < 3


MISTAKES = {
    "digits": "required: --out",
    "digts --out x": "unknown data set 'digts'. Did you mean 'digits'?",
    "digits --out x --format nzp": "unknown format 'nzp'. Did you mean 'npz'?",
    "digits --out x --images 0": "'0' is not a whole number of 1 or more",
    "digits --out x --images 1798": "'digits' has 1,797 images, not 1,798",
    "digits --out x --set size": "--set takes NAME=VALUE, for example --set size=32, not 'size'",
    "digits --out x --set sise=8": "unknown option 'sise'. Did you mean 'size'?",
    "digits --out x --set size=small": "--set size: 'small' is not a whole number",
    "digits --out x --size 4": "digits come in 8 pixels or more, not 4",
    "dsprites --out x --set law=Real": "--set law: this option cannot be written on a command line",
    "dsprites --out x --set verify=maybe": "--set verify: 'maybe' is neither true nor false",
    "folder --out x": "data set 'folder' needs path=...",
    "folder --out x --set path=nowhere": "no folder nowhere",
    "chairs --out x": "no chairs in",
    "digits --out pyproject.toml": "could not be written (File exists)",
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_a_mistake_is_one_line(capsys, monkeypatch, tmp_path, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    code, out, err = call(capsys, *argv.split())
    assert code == 2 and MISTAKES[argv] in err and out == ""
    assert err.startswith("disentkit: ") and err.count("\n") == 1 and "Traceback" not in err
    assert files(tmp_path) == ["pyproject.toml"]


def test_the_help_says_what_it_does(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0 and "usage: disentkit data export" in out and "nothing is overwritten" in out
