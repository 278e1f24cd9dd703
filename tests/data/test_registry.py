"""Data sets by name: what is known, what is refused, what is fetched."""

import hashlib
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from disentkit import data
from disentkit.data import digits, dsprites, shapes3d_file
from disentkit.data.base import Data
from disentkit.errors import UserError

ROOT = Path(__file__).parents[2]


def test_rows_say_what_the_list_shows():
    rows = data.describe()
    assert [row["name"] for row in rows] == data.names()
    assert {"dsprites", "digits", "mnist", "folder"} <= set(data.names())
    for row in rows:
        assert list(row) == ["name", "factors", "images", "size", "licence", "download", "note"]
        assert all(isinstance(value, str) and value for value in row.values())


@pytest.mark.parametrize("name", ["dsprites", "digits"])
def test_what_a_row_claims_is_what_is_loaded(name):
    found = data.load(name)
    row = next(row for row in data.describe() if row["name"] == name)
    assert isinstance(found, Data) and found.name == name
    assert row["factors"] == ", ".join(f"{f.name} {len(f)}" for f in found.space)
    count = found.space.grid_size if name == "dsprites" else len(found)
    assert row["images"] == f"{count:,}"
    x = found.sample(4, torch.Generator().manual_seed(0))["x"]
    assert x.shape == (4, *found.image_shape) and 0 <= x.min() and x.max() <= 1


def test_every_data_set_is_described_for_people():
    text = (ROOT / "data" / "README.md").read_text()
    for row in data.describe():
        assert f"## {row['name']}" in text
        assert row["licence"] in text and row["download"].split("; ")[-1].replace("real file ", "") in text
    shapes3d = shapes3d_file.URL, shapes3d_file.MD5
    for known in (dsprites.URL, dsprites.MD5, *shapes3d, digits.MIRROR, *digits.MD5, *digits.MD5.values()):
        assert known in text


def test_unknown_names_and_options_list_the_known_ones():
    with pytest.raises(UserError, match="'dsprite'.* Did you mean 'dsprites'.*dsprites, digits, mnist, folder"):
        data.load("dsprite")
    with pytest.raises(UserError, match="unknown option .*'dsprites'.*'siez'.*'size'.*size, law, source, verify"):
        data.load("dsprites", siez=64)
    with pytest.raises(UserError, match="'colour'.* Did you mean 'color'"):
        data.load("folder", path=".", colour=True)
    with pytest.raises(UserError, match="Did you mean 'mnist'"):
        data.fetch("minst")
    with pytest.raises(UserError, match="'digits' needs no download"):
        data.fetch("digits")


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys, disentkit.data as d; d.describe(); d.names();"
        "print([m for m in ('torch', 'sklearn', 'PIL', 'pooch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def server(tmp_path):
    """A web server on this machine over a folder: (address, folder)."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()


def test_fetching_puts_checked_files_into_the_home(server, home, monkeypatch):
    address, folder = server
    for name in digits.MD5:
        (folder / name).write_bytes(name.encode())
    monkeypatch.setattr(digits, "MIRROR", address)
    monkeypatch.setattr(digits, "MD5", {n: hashlib.md5(n.encode()).hexdigest() for n in digits.MD5})
    where = data.fetch("mnist")
    assert where == data.folder_of("mnist") and where.is_relative_to(home)
    assert sorted(p.name for p in where.iterdir()) == sorted(digits.MD5)
    for name in digits.MD5:
        (folder / name).unlink()
    assert data.fetch("mnist") == where  # what is there and whole is not fetched again


def test_a_wrong_file_from_the_net_is_refused(server, home, monkeypatch):
    address, folder = server
    (folder / dsprites.FILE).write_bytes(b"<html>moved</html>")
    monkeypatch.setattr(dsprites, "URL", address + dsprites.FILE)
    with pytest.raises(UserError, match="could not fetch .*by hand at") as caught:
        data.fetch("dsprites")
    assert "\n" not in str(caught.value) and not (data.folder_of("dsprites") / dsprites.FILE).exists()


@pytest.mark.parametrize("name", ["dsprites", "mnist"])
def test_offline_says_where_to_put_the_file(home, monkeypatch, name):
    nowhere = "http://127.0.0.1:9/"  # nothing listens there
    monkeypatch.setattr(dsprites, "URL", nowhere + dsprites.FILE)
    monkeypatch.setattr(digits, "MIRROR", nowhere)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(UserError, match="could not fetch http://127.0.0.1:9/.*by hand at") as caught:
        data.fetch(name)
    assert str(data.folder_of(name)) in str(caught.value) and "\n" not in str(caught.value)
