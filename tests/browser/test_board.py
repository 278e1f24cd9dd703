"""A real browser: buttons, lists and sliders of the attribute board show exactly the synthesis and the true picture.

With DISENTKIT_SCREENSHOTS=FOLDER pictures of the boards are left there.
"""

from __future__ import annotations

import numpy as np
import pytest
from browser import lab

from disentkit.explore import images

MODEL = """
import torch
from dataclasses import replace
from disentkit.data import fonts
from disentkit.explore import AttributeBoard
from disentkit.methods import gzsnet, stargan

data = fonts.load(32)
batch = data.sample(8, torch.Generator().manual_seed(1))
pictures, factors = batch["x"], batch["factors"]

class Oracle:
    \"\"\"It knows these pictures by heart.\"\"\"
    codes, image_shape = data.codes, data.image_shape

    def encode(self, x):
        return data.code_of(factors[torch.cdist(x.flatten(1), pictures.flatten(1)).argmin(1)])

    def decode(self, codes):
        return data.decode(codes)

model = Oracle()
"""
SHOW = "board = AttributeBoard(model, pictures, factors, data, title='Fonts, by heart')\nboard"
MORE = """
torch.manual_seed(0)
nets = gzsnet.GroupAutoencoder(data.image_shape, data.space.names, replace(gzsnet.QUICK, wide=0.5))
AttributeBoard(nets, pictures, factors, data, title="GZS-Net, untrained")
"""
NO_TRUTH = """
nets = stargan.Translator(data.image_shape, data.space, replace(stargan.QUICK, wide=0.25))
AttributeBoard(nets, data.sample(20, torch.Generator().manual_seed(2))["x"], title="StarGAN, untrained")
"""


@pytest.mark.browser
@pytest.mark.slow
def test_the_board_shows_what_was_asked_for_in_the_browser(tmp_path):
    lab.chromium()
    here: dict = {}
    exec(MODEL + SHOW.removesuffix("board"), here)
    board = here["board"]  # the same model and board in this process
    board.title = ""  # a live board has its title above, so its sheet has none
    lab.write_notebook(tmp_path / "board.ipynb", MODEL, SHOW, MORE, NO_TRUTH)

    with lab.Lab(tmp_path, PYTHONPATH=str(lab.CHECKOUT)) as server, lab.browser(tmp_path) as context:
        page = lab.open_notebook(server, context, "board.ipynb")
        lab.run_all(page)
        outputs = [page.locator(".jp-CodeCell").nth(i).locator(".jp-OutputArea-output").first for i in (1, 2, 3)]
        shown = outputs[0]
        pictures = shown.locator("img.widget-image")  # synthesis, truth, eight thumbnails, the sheet
        pictures.nth(0).wait_for()

        def button(tip: str):
            return shown.locator(f'button[title="{tip}"]')

        def agree(what: str) -> None:
            """The words, both pictures, and at rest the sheet are those of the board here."""
            said = shown.get_by_role("status")
            lab.until(lambda: board.fed in said.inner_text(), what=f"the words after {what}")
            assert board.words in said.inner_text() and board.verdict in said.inner_text()
            for nth, picture in enumerate((board.synthesis(), board.truth_picture())):
                drawn = images.enlarge(images.to_uint8(picture)[0], 256)
                lab.until(lambda: np.array_equal(lab.pixels(pictures.nth(nth)), drawn), what=f"picture {nth}, {what}")
            expected = board.sheet()
            lab.until(lambda: np.array_equal(lab.pixels(pictures.nth(10)), expected), what=f"the sheet after {what}")

        agree("the start")
        button("letter from picture 4").click()
        board.pick("letter", 3)
        agree("a click")
        button("background from picture 6").focus()
        page.keyboard.press("Enter")
        board.pick("background", 5)
        agree("the Enter key")
        assert button("letter from picture 4").inner_text() == "●" and board.psnr == 60
        assert "PSNR 60 dB or more" in shown.get_by_role("status").inner_text()

        shown.locator("select").nth(2).select_option("7")
        board.towards("colour", 6, 0)
        agree("a second picture")
        handle = shown.locator(".noUi-handle").nth(2)
        lab.press(handle, "ArrowRight", times=3)
        t = float(shown.locator(".widget-readout").nth(2).inner_text())
        assert 0 < t < 0.5
        board.towards("colour", 6, t)
        agree("the arrow keys")
        assert board.between == ["colour"] and "no true picture" in shown.get_by_role("status").inner_text()
        lab.screenshot(page, "board.png", shown)
        handle.press("End")
        board.towards("colour", 6, 1)
        agree("the End key")
        button("random pictures whose combination was never in the training set").click()
        board.surprise()
        agree("a surprise")
        assert "held out: never in the training set" in shown.get_by_role("status").inner_text()
        shown.get_by_role("button", name="reset").click()
        board.reset()
        agree("a reset")

        for name, other in ("board_gzsnet.png", outputs[1]), ("board_stargan.png", outputs[2]):
            before = lab.pixels(other.locator("img.widget-image").nth(0))
            other.locator('button[title="background from picture 3"]').click()
            other.locator('button[title="letter from picture 2"]').click()
            live = other.locator("img.widget-image").nth(0)
            lab.until(lambda: not np.array_equal(lab.pixels(live), before), what="another picture")
            page.wait_for_timeout(1500)
            lab.screenshot(page, name, other)
        assert "no ground truth: beside pictures give factors=" in outputs[2].get_by_role("status").inner_text()
        assert page.locator("[role=alert]").count() == 0
