"""A real browser: sliders, locks, classes and seeds of the direction panel show exactly what the model decodes.

With DISENTKIT_SCREENSHOTS=FOLDER pictures of the panels are left there.
"""

from __future__ import annotations

import numpy as np
import pytest
from browser import lab

from disentkit.explore import images

MODEL = """
import torch
from disentkit.explore import Steer
from disentkit.methods.biggan import Sampler, Settings
from disentkit.data.factors import category
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.steered import Steered, make_direction
from disentkit.metrics.instruments import ExactMask

oracle, s = OracleGenerator(), torch.linspace(-4, 4, 26)
units = {"x": "fraction of the width", "y": "fraction of the height", "zoom": "ln of the scale"}
found = [make_direction(name, oracle.u(name), s, oracle.g(name, s), unit) for name, unit in units.items()]
slanted = make_direction("slanted", oracle.u("x") + oracle.u("y"))
model = Steered(oracle, [*found, slanted])
"""
SHOW = "panel = Steer(model, ExactMask(model), title='The oracle', seed=1, folder=FOLDER)\npanel"
MORE = """
torch.manual_seed(0)
shapes = category("shape", "disc", "square", "triangle", "star")
gan = Sampler((3, 32, 32), shapes, Settings(attention=0, size=32)).eval()
u = torch.randn(2, gan.codes.size)
u[:, :4] = 0
Steer(Steered(gan, [make_direction("x", u[0]), make_direction("y", u[1])]), title="BigGAN, untrained")
"""


def same(shown: np.ndarray, expected: np.ndarray) -> bool:
    """One of 255 is allowed: twenty steps of a slider round a code in another way than one."""
    return shown.shape == expected.shape and np.abs(shown.astype(int) - expected).max() <= 1


@pytest.mark.browser
@pytest.mark.slow
def test_the_panel_shows_what_was_asked_for_in_the_browser(tmp_path):
    lab.chromium()
    here: dict = {"FOLDER": str(tmp_path / "kept")}
    exec(MODEL + SHOW.removesuffix("panel"), here)
    panel = here["panel"]  # the same model and panel in this process
    panel.title = ""  # a live panel has its title above, so its sheet has none
    lab.write_notebook(tmp_path / "steer.ipynb", f"FOLDER = {here['FOLDER']!r}\n{MODEL}", SHOW, MORE)

    with lab.Lab(tmp_path, PYTHONPATH=str(lab.CHECKOUT)) as server, lab.browser(tmp_path) as context:
        page = lab.open_notebook(server, context, "steer.ipynb")
        lab.run_all(page)
        shown, other = (page.locator(".jp-CodeCell").nth(i).locator(".jp-OutputArea-output").first for i in (1, 2))
        live, sheet = (shown.locator("img.widget-image").nth(i) for i in (0, 1))
        live.wait_for()

        def said(name: str) -> str:
            return panel.rows[name].note.value.split("line-height: 18px'>")[1].split("<span")[0]

        def agree(what: str) -> None:
            """The picture, what is said below the sliders, and at rest the sheet are those of the panel here."""
            drawn = images.enlarge(panel.render(panel.code), 256)
            lab.until(lambda: same(lab.pixels(live), drawn), what=f"the picture after {what}")
            for name in panel.rows:
                panel.measured()
                panel._tell()
                lab.until(lambda: said(name) in shown.inner_text(), what=f"'{said(name)}' after {what}")
            expected = panel.sheet()
            lab.until(lambda: same(lab.pixels(sheet), expected), what=f"the sheet after {what}")

        lab.screenshot(page, "steer_start.png", shown)
        agree("the start")
        lab.press(lab.slider(page, "x"), "ArrowLeft", times=20)
        lab.until(lambda: abs(lab.readout(page, "x") - panel.t["x"]) > 0.01, what="the number beside the slider")
        page.wait_for_timeout(500)
        panel.set("x", lab.readout(page, "x"))
        agree("the arrow keys")
        assert "asked -0." in said("x") and "measured 0." in said("x")

        # y is locked: slanted moves along x alone.
        lock = shown.get_by_role("button", name="lock").nth(1)
        lock.click()
        panel.lock("y")
        lab.press(lab.slider(page, "slanted"), "ArrowLeft", times=25)
        page.wait_for_timeout(500)
        panel.set("slanted", lab.readout(page, "slanted"))
        agree("a move under a lock")
        assert "asked +0.00" in said("y") and "asked +0.00" not in said("x")
        lab.screenshot(page, "steer.png", shown)
        shown.get_by_role("button", name="lock", exact=True).nth(0).click()
        panel.lock("x")
        handle = lab.slider(page, "slanted")
        lab.press(handle, "ArrowRight", times=3)
        shown.get_by_role("alert").wait_for()
        assert "'slanted' cannot move while x, y stand still" in shown.get_by_role("alert").inner_text()
        agree("a move that cannot be")
        locked = shown.get_by_role("button", name="locked")
        for name, left in (("x", 1), ("y", 0)):
            locked.first.click()
            lab.until(lambda: locked.count() == left, what=f"the lock of {name} letting go")  # the kernel renames it
            panel.lock(name, False)

        shown.get_by_role("button", name="draw").click()  # the start was seed 1: the next one
        panel.draw()
        agree("a draw")
        shown.get_by_role("alert").wait_for(state="detached")
        seed = shown.locator("input[type=number]").first
        assert seed.input_value() == "2"
        seed.fill("7")
        seed.press("Enter")
        shown.get_by_role("button", name="draw").click()
        panel.draw(7)
        agree("a seed")
        shown.get_by_role("button", name="reset").click()
        panel.reset()
        agree("a reset")

        shown.locator("select").last.select_option("zoom")
        shown.locator("input[type=text]").last.fill("larger")
        shown.get_by_role("button", name="save direction").click()
        lab.until(lambda: "larger.json" in shown.get_by_role("status").inner_text(), what="the file's name")
        assert (tmp_path / "kept" / "larger.json").is_file()

        before = lab.pixels(other.locator("img.widget-image").nth(0))
        other.get_by_role("button", name="star").click()
        picture = other.locator("img.widget-image").nth(0)
        lab.until(lambda: not np.array_equal(lab.pixels(picture), before), what="another class")
        lab.press(lab.slider(page, "x", nth=1), "ArrowRight", times=10)
        page.wait_for_timeout(1500)
        lab.screenshot(page, "steer_gan.png", other)
        assert "no instrument was given" in other.inner_text()
        assert page.locator("[role=alert]").count() == 0
