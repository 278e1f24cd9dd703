"""A real browser: the panel in JupyterLab, moved by the keyboard, shows exactly what its model decodes.

With DISENTKIT_SCREENSHOTS=FOLDER pictures of the panels are left there.
"""

from __future__ import annotations

import numpy as np
import pytest
from browser import lab

MODEL = """
import torch
from torch import nn
from disentkit.codes import gaussian_blocks
from disentkit.explore import Compare, Panel

class Waves(nn.Module):
    \"\"\"Three latents, three waves: fixed weights, so the test and the notebook have the same model.\"\"\"
    image_shape, codes = (1, 16, 16), gaussian_blocks(3)

    def waves(self):
        t = torch.linspace(0, 6.28, 16)
        down, across = t.sin()[:, None].expand(16, 16), t.cos()[None].expand(16, 16)
        return torch.stack([down, across, down * across])

    def decode(self, codes):
        return torch.einsum("nk,khw->nhw", codes, self.waves())[:, None].sigmoid()

    def encode(self, x):
        logits = x.clamp(1e-4, 1 - 1e-4).logit()[:, 0].flatten(1)  # (N, 256)
        return logits @ torch.linalg.pinv(self.waves().flatten(1))

    def prior(self, n, rng):
        return self.codes.prior(n, rng)

stats = [
    {"name": "z0", "importance": 0.02, "unit": "nats", "factor": None, "correlation": None},
    {"name": "z1", "importance": 2.1, "unit": "nats", "factor": "x", "correlation": 0.98, "low": -2.0, "high": 2.0},
    {"name": "z2", "importance": 1.4, "unit": "nats", "factor": "scale", "correlation": 0.87},
]
model = Waves()
start = torch.tensor([[0.123, -0.5, 0.777], [1.0, 1.0, 0.3], [-1.0, 0.4, -2.6], [0.0, -1.5, 1.0]])
"""
SHOW = "panel = Panel(model, stats, model.decode(start), title='Three waves')\npanel"
MORE = """
from disentkit import data
shapes = data.load("dsprites")
factors = Panel(shapes, title="dSprites: the true factors")
factors
"""
PAIR = "both = Compare(shapes, Reader(), names=('true factors', 'read by three waves'))\nboth.code = both.code\nboth"
READER = """
class Reader(Waves):
    \"\"\"Waves for 64-pixel pictures: the means over 4x4 pixels are read, and what is read is drawn large.\"\"\"
    image_shape = (1, 64, 64)

    def encode(self, x):
        return super().encode(torch.nn.functional.avg_pool2d(x, 4) * 0.8 + 0.1)

    def decode(self, codes):
        return super().decode(codes).repeat_interleave(4, 2).repeat_interleave(4, 3)
"""


@pytest.mark.browser
@pytest.mark.slow
def test_a_slider_moved_in_the_browser_shows_what_its_code_decodes_to(tmp_path):
    lab.chromium()
    here: dict = {}
    exec(MODEL + SHOW.removesuffix("panel"), here)
    panel = here["panel"]  # the same model and panel in this process
    panel.title = ""  # a live panel has its title above, so its sheet has none
    lab.write_notebook(tmp_path / "panel.ipynb", MODEL, SHOW, READER, MORE, PAIR)

    with lab.Lab(tmp_path, PYTHONPATH=str(lab.CHECKOUT)) as server, lab.browser(tmp_path) as context:
        page = lab.open_notebook(server, context, "panel.ipynb")
        lab.run_all(page)
        outputs = page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")
        images = outputs.locator("img.widget-image")
        live, sheet = images.nth(4), images.nth(5)  # after four thumbnails
        field = outputs.locator(".widget-text input").last
        live.wait_for()

        def shows(code_text: str) -> bool:
            panel.text = code_text
            times = lab.pixels(live).shape[0] // 16
            drawn = panel.render(panel.code).repeat(times, 0).repeat(times, 1)
            return np.array_equal(lab.pixels(live), drawn)

        # Shown as it is: the browser rounds what its sliders show, but the code keeps its digits.
        assert field.input_value() == panel.text and "0.12" in panel.text
        assert shows(field.input_value())

        before, sheet_before, old = lab.pixels(live), lab.pixels(sheet), field.input_value()
        lab.press(lab.slider(page, "z1"), "ArrowRight", times=40)  # by 0.02 each
        lab.until(lambda: "z1=0.3," in field.input_value(), what="the code following the slider")
        assert lab.readout(page, "z1") == 0.3
        assert shows(field.input_value()), f"the picture is not decode({field.input_value()})"
        assert abs(lab.pixels(live).astype(int) - before).max() > 20
        assert np.allclose(panel.code[0], [0.123, 0.3, 0.777], atol=1e-5)  # the others kept their digits

        # At rest the sheet follows, and it is the sheet of this code.
        expected = panel.sheet()
        assert not np.array_equal(expected, sheet_before)
        lab.until(lambda: np.array_equal(lab.pixels(sheet), expected), what="the sheet following at rest")

        outputs.get_by_role("button", name="reset").click()
        lab.until(lambda: field.input_value() == old, what="reset")
        assert np.array_equal(lab.pixels(live), before)
        # The sheet comes last: before it, what somebody types could still be overwritten by the kernel's messages.
        lab.until(lambda: np.array_equal(lab.pixels(sheet), sheet_before), what="the sheet following the reset")

        # A typed code, beyond the slider's range, and one that cannot be read.
        field.fill("z0=3.5")
        field.press("Enter")
        lab.until(lambda: field.input_value().startswith("z0=3.5,"), what="the typed code")
        assert shows(field.input_value())
        field.fill("z0=<b>")
        field.press("Enter")
        outputs.get_by_role("alert").wait_for()
        assert "'<b>' is not a number" in outputs.get_by_role("alert").inner_text()
        lab.screenshot(page, "panel_error.png", outputs.first)
        field.fill(old)
        field.press("Enter")
        outputs.get_by_role("alert").wait_for(state="detached")

        lab.until(lambda: np.array_equal(lab.pixels(sheet), sheet_before), what="the sheet of the first code")
        lab.screenshot(page, "panel.png", outputs.first)
        for cell, name in (3, "factors.png"), (4, "compare.png"):
            shown = page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output").first
            lab.press(shown.locator(".noUi-handle").nth(2), "ArrowRight", times=10)
            page.wait_for_timeout(1500)
            lab.screenshot(page, name, shown)
        assert page.locator("[role=alert]").count() == 0
