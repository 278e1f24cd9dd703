"""A real browser: buttons, switches and uploads of the mixing board show exactly the mix that was asked for.

With DISENTKIT_SCREENSHOTS=FOLDER pictures of the boards are left there.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from browser import lab
from explore.models_mixing import pictures
from explore.test_uploads import header
from PIL import Image

from disentkit.explore import images

MODEL = f"""
import sys
sys.path.insert(0, {str(lab.CHECKOUT / "tests")!r})
import torch
from explore.models_mixing import Encoded, Feature, pictures
from disentkit.explore import MixingBoard
from disentkit.methods import finegan, mixnmatch
"""
SHOW = "board = MixingBoard(Encoded(), pictures(5), Feature(), title='Quarters', seed=4)\nboard"
MORE = """
torch.manual_seed(0)
nets = mixnmatch.MixNMatchModel((3, 64, 64), mixnmatch.COURSE)
MixingBoard(nets, torch.rand(12, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3), title="MixNMatch, untrained")
"""
DRAWS = """
torch.manual_seed(0)
MixingBoard(finegan.StagedGenerator((3, 64, 64), finegan.COURSE), 8, title="FineGAN, untrained")
"""


def picture(side: int) -> bytes:
    """A PNG of one's own."""
    art = images.to_uint8(pictures(9)[8:])[0].repeat(side // 16, 0).repeat(side // 16, 1)
    buffer = io.BytesIO()
    Image.fromarray(art).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.browser
@pytest.mark.slow
def test_the_board_shows_what_was_picked_in_the_browser(tmp_path):
    lab.chromium()
    here: dict = {}
    exec(MODEL + SHOW.removesuffix("board"), here)
    board = here["board"]  # the same models and board in this process
    lab.write_notebook(tmp_path / "mixing.ipynb", MODEL, SHOW, MORE, DRAWS)

    with lab.Lab(tmp_path, PYTHONPATH=str(lab.CHECKOUT)) as server, lab.browser(tmp_path) as context:
        page = lab.open_notebook(server, context, "mixing.ipynb")
        lab.run_all(page)
        outputs = [page.locator(".jp-CodeCell").nth(i).locator(".jp-OutputArea-output").first for i in (1, 2, 3)]
        shown = outputs[0]
        live = shown.locator("img.widget-image").first
        live.wait_for()
        columns = shown.locator("img.widget-image").filter(visible=True)  # the mix and the thumbnails, at first

        def button(tip: str):
            return shown.locator(f'button[title="{tip}"]')

        def agree(what: str) -> None:
            """The words and the mix are those of the board here."""
            said = shown.get_by_role("status")
            lab.until(lambda: board.words in said.inner_text(), what=f"the words after {what}")
            drawn = images.enlarge(board.render(board.state), 256)
            lab.until(lambda: np.array_equal(lab.pixels(live), drawn), what=f"the picture after {what}")

        def last(expected: np.ndarray, what: str) -> None:
            """The last picture on the board is this one."""
            lab.until(lambda: np.array_equal(lab.pixels(columns.last), expected), what=what)

        agree("the start")
        assert columns.count() == 6 and shown.get_by_role("alert").count() == 0
        lab.screenshot(page, "mixing_start.png", shown)
        button("texture from picture 5").click()
        board.pick("texture", 4)
        agree("a click")
        button("background from picture 5").focus()
        page.keyboard.press("Enter")
        board.pick("background", 4)
        agree("the Enter key")
        assert button("texture from picture 5").inner_text() == "●"

        vary = shown.locator("select")
        vary.select_option("shape")
        board.vary.value = "shape"
        last(board.sweep("shape"), "the strip")
        button("pose from picture 1").click()
        board.pick("pose", 0)
        agree("a click with a strip")
        last(board.sweep("shape"), "the strip after a click")
        vary.select_option("none")
        board.vary.value = ""
        lab.until(lambda: columns.count() == 6, what="the strip going")
        shown.get_by_label("intermediate pictures").click()
        board.intermediate.value = True
        last(board.stages_picture(), "the intermediate pictures")

        button("shape and pose, pixel by pixel, from one picture").click()
        board.mode = "feature"
        agree("feature mode")
        assert "shape and pose from 2" in shown.get_by_role("status").inner_text()
        last(board.stages_picture(), "the intermediate pictures of feature mode")
        reason = shown.get_by_text("feature mode takes shape and pose from one picture", exact=True)
        reason.wait_for()
        lab.until(lambda: button("pose from picture 2").is_disabled(), what="the greyed row")
        assert button("shape from picture 2").is_enabled()
        button("shape from picture 3").click()
        board.pick("shape", 2)
        agree("a click in feature mode")

        own = shown.get_by_role("button", name="own picture")

        def send(*files: dict) -> None:
            with page.expect_file_chooser() as chooser:
                own.click()
            chooser.value.set_files(list(files))

        good = {"name": "mine.png", "mimeType": "image/png", "buffer": picture(48)}
        send(good)
        board.add_picture(good["buffer"], "mine.png")
        lab.until(lambda: columns.count() == 8, what="the column of the upload")
        assert "added 'mine.png' as picture 6" in shown.get_by_role("status").inner_text()
        button("texture from picture 6").click()
        board.pick("texture", 5)
        agree("a click on an upload")
        for name, content, told in (
            ("diary.png", b"dear diary", "'diary.png' is no picture that can be read"),
            ("huge.png", header(10_000, 6_000), "'huge.png' has 60 megapixels; a picture has less than 50"),
        ):
            send({"name": name, "mimeType": "image/png", "buffer": content})
            shown.get_by_role("alert").filter(has_text=told).wait_for()
            agree(f"{name}, which was refused")
            assert columns.count() == 8
        lab.screenshot(page, "mixing_feature.png", shown)
        send(good)  # the same file once more
        board.add_picture(good["buffer"], "mine.png")
        lab.until(lambda: columns.count() == 9, what="the column of the second upload")
        shown.get_by_role("alert").wait_for(state="detached")

        button("shape and pose from a picture each").click()
        board.mode = "code"
        agree("code mode again")
        reason.wait_for(state="hidden")
        assert button("pose from picture 7").is_enabled()
        for name, action in (("random", board.random), ("reset", board.reset)):
            shown.get_by_role("button", name=name, exact=True).click()
            action()
            agree(name)
        shown.get_by_role("button", name="save", exact=True).click()
        lab.until(lambda: (tmp_path / "mix.png").exists(), what="the saved sheet")
        lab.until(lambda: "saved the sheet as mix.png" in shown.get_by_role("status").inner_text(), what="its words")
        assert np.array_equal(lab.unpack((tmp_path / "mix.png").read_bytes()), board.sheet())

        for name, other in ("mixing_mixnmatch.png", outputs[1]), ("mixing_finegan.png", outputs[2]):
            picture_there = other.locator("img.widget-image").first
            before = lab.pixels(picture_there)
            other.locator('button[title="background from picture 3"]').click()
            lab.until(lambda: not np.array_equal(lab.pixels(picture_there), before), what="another picture")
            other.get_by_label("intermediate pictures").click()
            other.locator("select").select_option("texture")
            visible = other.locator("img.widget-image").filter(visible=True)
            many = visible.count()
            lab.until(lambda: visible.count() >= many and visible.last.bounding_box()["width"] > 500, what="the strip")
            page.wait_for_timeout(1500)  # for the screenshot only
            lab.screenshot(page, name, other)
        assert outputs[2].get_by_role("button", name="own picture").is_disabled()
        assert "its sources are draws from the prior" in outputs[2].inner_text()
        assert page.locator("[role=alert]").count() == 0
