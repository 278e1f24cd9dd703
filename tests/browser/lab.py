"""JupyterLab in headless Chromium for tests: start it, open a notebook, run it, move a slider, read the pixels.

    from browser import lab  # pytest has tests/ on its path

    with lab.Lab(folder) as server, lab.browser(server.folder) as context:
        page = lab.open_notebook(server, context, "tour.ipynb")
        lab.run_all(page)
        lab.press(lab.slider(page, "z0"), "ArrowRight", times=3)
        pixels = lab.pixels(page.locator(".widget-image").first)

Everything keeps its settings in a folder of its own, and everything started is ended by its process id.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[2]
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync").split()  # fmt: skip
SETTINGS = {
    # The news pop-up would lie over the notebook.
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Every cell is in the page, so that prompts and pictures of cells out of sight can be found.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}


def chromium() -> str:
    """The path of Chromium. Without one the test is skipped with this reason; with CI=true it fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found:
        return found
    reason = "no chromium on this machine: install Debian's `chromium` (or Google Chrome) to run the browser tests"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    print(reason)
    pytest.skip(reason)


class Lab:
    """A JupyterLab server on `folder` while a `with` block lasts; `env` goes to its kernels."""

    def __init__(self, folder: Path, **env: str):
        self.folder, self.token = Path(folder), secrets.token_hex(16)
        self.own = self.folder / ".lab"  # settings, runtime files, log: Lab's file browser does not show it
        self.env = os.environ | {
            "JUPYTER_CONFIG_DIR": str(self.own / "config"),
            "JUPYTER_DATA_DIR": str(self.own / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.own / "runtime"),
            "IPYTHONDIR": str(self.own / "ipython"),
            **env,
        }

    def __enter__(self) -> Lab:
        for name, values in SETTINGS.items():
            place = self.own / "settings" / f"{name}.jupyterlab-settings"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(values))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.folder,
            "IdentityProvider.token": self.token,
            "LabApp.user_settings_dir": self.own / "settings",
            "LabApp.workspaces_dir": self.own / "workspaces",
        }
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
        with (self.own / "log").open("wb") as log:
            arguments = [f"--{name}={value}" for name, value in options.items()]
            self.process = subprocess.Popen(command + arguments, env=self.env, cwd=self.folder, stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        started = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        for process in started:  # kernels the server left behind
            if process.is_running():
                process.kill()
        psutil.wait_procs(started, 10)

    def _wait(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/api?token={self.token}", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        log = (self.own / "log").read_text()[-2000:]
        raise RuntimeError(f"JupyterLab did not start within {seconds:g} s; its log ends:\n{log}")


@contextmanager
def browser(folder: Path):
    """A fresh headless Chromium with an empty profile under `folder`; yields Playwright's browser context."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(Path(folder) / ".profile"), executable_path=path, args=FLAGS, headless=True,
            viewport={"width": 1400, "height": 1700},
        )  # fmt: skip
        try:
            yield context
        finally:
            context.close()


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.strip()) for c in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def open_notebook(server: Lab, context, name: str):
    """Open `name` (a path below the server's folder) and wait until its kernel is idle; returns the page.

    Run All before that would run the first cell only and drop the rest without a word.
    """
    page = context.new_page()
    page.goto(f"{server.url}/lab/tree/{name}?token={server.token}")
    page.locator(".jp-Notebook").wait_for(timeout=90_000)
    wait_idle(page, 90)
    return page


def wait_idle(page, seconds: float = 60) -> None:
    """Wait for `| Idle` in the status bar."""
    idle = "document.querySelector('#jp-main-statusbar')?.innerText.includes('| Idle')"
    page.wait_for_function(idle, timeout=1000 * seconds)


def run_all(page, seconds: float = 120) -> None:
    """Run every cell and wait until each code cell has its number; raises AssertionError with a cell's error."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    done = """() => {
        const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')];
        const errors = document.querySelector('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]');
        return errors || cells.length && cells.every(cell => !cell.querySelector('.cm-content').innerText.trim()
            || /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt').innerText));
    }"""
    page.wait_for_function(done, timeout=1000 * seconds)
    errors = page.locator('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
    assert not errors, f"a cell failed: {errors[0][-1500:]}"
    wait_idle(page)


def _row(page, label: str, nth: int):
    labels = page.locator(".widget-label").filter(has_text=re.compile(rf"^{re.escape(label)}(\s|$)"))
    return page.locator(".widget-hslider").filter(has=labels).nth(nth)


def slider(page, label: str, nth: int = 0):
    """The handle of the nth slider whose label begins with the word `label`."""
    return _row(page, label, nth).locator(".noUi-handle")


def readout(page, label: str, nth: int = 0) -> float:
    """The number a slider shows."""
    return float(_row(page, label, nth).locator(".widget-readout").inner_text().replace("\N{MINUS SIGN}", "-"))


def press(handle, key: str, times: int = 1) -> None:
    """Focus a slider's handle and press a key, as somebody without a mouse would."""
    handle.focus()
    for _ in range(times):
        handle.press(key)


def pixels(image) -> np.ndarray:
    """What an <img> shows, (H, W, 3) uint8 at its own size, read back through a canvas."""
    # A picture may be replaced at any moment, as a busy machine does while a slider moves: decode() then fails, or the
    # picture has no size although decode() was through. Both pass, and nothing can come between the test and the copy.
    url = image.evaluate("""async img => {
        const canvas = document.createElement('canvas');
        let why = 'it has no size';
        for (let tries = 0; tries < 50; tries++) {
            try {
                await img.decode();
                if (img.complete && img.naturalWidth > 0) {
                    canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
                    canvas.getContext('2d').drawImage(img, 0, 0);
                    return canvas.toDataURL('image/png');
                }
            } catch (error) { why = error; }
            await new Promise(later => setTimeout(later, 100));
        }
        throw new Error('no picture within 5 s: ' + why);
    }""")
    return unpack(base64.b64decode(url.partition(",")[2]))


def unpack(png: bytes) -> np.ndarray:
    """The pixels (H, W, 3) uint8 of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def until(condition, seconds: float = 30, what: str = "what the test waits for") -> None:
    """Poll `condition()` until it is true; raises AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.1)


def screenshot(page, name: str, locator=None) -> None:
    """Save a picture of the page, or of a part, as `name` in the folder DISENTKIT_SCREENSHOTS; nothing where unset."""
    folder = os.environ.get("DISENTKIT_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (locator or page).screenshot(path=str(Path(folder) / name))
