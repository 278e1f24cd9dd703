"""A real browser: buttons of the block explorer, clicked and pressed, show exactly what the mixed code decodes to.

With DISENTKIT_SCREENSHOTS=FOLDER pictures of the explorers are left there.
"""

from __future__ import annotations

import numpy as np
import pytest
from browser import lab

MODEL = """
import torch
from torch import nn
from disentkit.codes import Block, CodeSpace
from disentkit.explore import Mixer, Panel

class Quarters(nn.Module):
    \"\"\"A picture's four quarters are its blocks: no weights, so the test and the notebook have the same model.\"\"\"
    image_shape = (1, 16, 16)
    codes = CodeSpace([Block(f"f{i}", "free", (64,)) for i in (1, 2, 3, 4)])
    broken = False

    def encode(self, x):
        return x.reshape(len(x), 2, 8, 2, 8).transpose(2, 3).reshape(len(x), 256)

    def decode(self, codes):
        if self.broken:
            raise RuntimeError("<b> is broken")
        return codes.reshape(-1, 2, 2, 8, 8).transpose(2, 3).reshape(-1, 1, 16, 16)

stats = [{"name": "f3", "importance": 0.2, "unit": "change", "factor": "hair", "correlation": 0.91}]
model, pictures = Quarters(), torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
"""
SHOW = "mixer = Mixer(model, pictures, stats, title='Four quarters')\nmixer"
MORE = """
from disentkit.data.characters import Characters
people = Characters(size=64)
found = [{"name": name, "importance": 0.2 - 0.01 * i, "unit": "change"} for i, name in enumerate(people.codes.names)]
whole = Mixer(people, 8, found, title="Characters: the true factors", seed=3)
whole.feed("hair", 2)
whole.feed("body", 4)
whole.lock("pose")
whole
"""
NOISE = """
class Noisy(Quarters):
    codes = CodeSpace([Block("f1", "free", (64,), picker="top"), Block("f2", "free", (64,), picker="top"),
                       Block("f3", "free", (64,)), Block("f4", "gaussian", (64,), inferred=False)])

    def encode(self, x):
        return self.codes.write(super().encode(x), "f4", torch.full((len(x), 64), 0.5))

Mixer(Noisy(), pictures)
"""

WIDE = "Panel(model, stats, pictures, title='The same in an ordinary panel')"


@pytest.mark.browser
@pytest.mark.slow
def test_blocks_picked_in_the_browser_show_what_their_code_decodes_to(tmp_path):
    lab.chromium()
    here: dict = {}
    exec(MODEL + SHOW.removesuffix("mixer"), here)
    mixer = here["mixer"]  # the same model and mixer in this process
    mixer.title = ""  # a live mixer has its title above, so its sheet has none
    lab.write_notebook(tmp_path / "mixer.ipynb", MODEL, SHOW, MORE, NOISE, WIDE)

    with lab.Lab(tmp_path, PYTHONPATH=str(lab.CHECKOUT)) as server, lab.browser(tmp_path) as context:
        page = lab.open_notebook(server, context, "mixer.ipynb")
        lab.run_all(page)
        shown = page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")
        images = shown.locator("img.widget-image")
        live, sheet = images.nth(0), images.nth(6)  # five thumbnails between them
        live.wait_for()

        def cell(tip: str):
            return shown.locator(f'button[title="{tip}"]')

        def agree(what: str) -> None:
            """The words, the picture, and at rest the sheet are those of the mixer here."""
            lab.until(lambda: shown.get_by_role("status").inner_text() == mixer.words, what=f"the words after {what}")
            drawn = mixer.render(mixer.state).repeat(16, 0).repeat(16, 1)
            lab.until(lambda: np.array_equal(lab.pixels(live), drawn), what=f"the picture after {what}")
            expected = mixer.sheet()
            lab.until(lambda: np.array_equal(lab.pixels(sheet), expected), what=f"the sheet after {what}")

        agree("the start")
        cell("f3 hair from picture 2").click()
        mixer.feed("f3", 1)
        agree("a click")
        cell("f1 from picture 4").focus()
        page.keyboard.press("Enter")
        mixer.feed("f1", 3)
        agree("the Enter key")
        assert cell("f1 from picture 4").inner_text() == "●" and cell("f1 from picture 1").inner_text() == "○"

        cell("keep f1 as it is").click()
        mixer.lock("f1")
        agree("a lock")
        shown.get_by_role("button", name="all but this block").click()
        cell("all but f2 from picture 5").click()
        mixer.feed_all_but("f2", 4)
        agree("all but one")
        assert mixer.words == "f1 from picture 4, f2 from picture 1, f3 hair and f4 from picture 5; locked: f1"
        lab.screenshot(page, "mixer.png", shown.first)
        for name in ("unlock all", "reset"):
            shown.get_by_role("button", name=name).click()
        mixer.unlock_all()
        mixer.reset()
        agree("a reset")

        for number, name in (2, "mixer_characters.png"), (3, "mixer_noise.png"):
            other = page.locator(".jp-CodeCell").nth(number).locator(".jp-OutputArea-output").first
            if number == 3:
                other.locator('button[title^="draw f4"]').click()
            page.wait_for_timeout(1500)
            lab.screenshot(page, name, other)
        panel = page.locator(".jp-CodeCell").nth(4).locator(".jp-OutputArea-output").first
        panel.locator('button[title="f2 from picture 3"]').click()
        expected = mixer.render({"f2": 2}).repeat(16, 0).repeat(16, 1)
        live = panel.locator("img.widget-image").nth(5)  # after five thumbnails
        lab.until(lambda: np.array_equal(lab.pixels(live), expected), what="a source picked in a panel")
        lab.screenshot(page, "mixer_panel.png", panel)
        assert page.locator("[role=alert]").count() == 0
