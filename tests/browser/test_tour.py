"""A real browser: the whole of 00_tour in JupyterLab, and the shipped model's slider moved there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import lab

from disentkit import explore, workbench

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.browser
@pytest.mark.slow
def test_the_tour_runs_and_its_latent_slider_shows_decode_of_the_sliders(tmp_path):
    lab.chromium()
    notebook = Path(shutil.copy(CHECKOUT / "notebooks" / "00_tour.ipynb", tmp_path))
    run = workbench.open_run(re.search(r"shipped/[\w.-]+", notebook.read_text())[0])
    panel = explore.Panel(run.model, run.stats)  # the same model in this process
    top = panel.rows[0].block.name

    with lab.Lab(tmp_path, PYTHONPATH=str(CHECKOUT)) as server, lab.browser(tmp_path) as context:
        page = lab.open_notebook(server, context, "00_tour.ipynb")
        lab.run_all(page, seconds=240)
        shown = page.locator(".jp-OutputArea-output", has_text="latents of a FactorVAE").first
        shown.scroll_into_view_if_needed()
        field = shown.locator(".widget-text input").last
        live = shown.locator("img.widget-image").nth(12)  # after twelve thumbnails
        live.wait_for()

        def shows_its_code() -> bool:
            panel.text = field.input_value()
            times = lab.pixels(live).shape[0] // 64
            drawn = panel.render(panel.code).repeat(times, 0).repeat(times, 1)
            return bool((abs(lab.pixels(live).astype(int) - drawn) <= 1).all())  # the field rounds to five digits

        assert shows_its_code()
        before = lab.pixels(live)
        old = field.input_value()
        handle = shown.locator(".widget-hslider").first.locator(".noUi-handle")
        lab.press(handle, "ArrowRight" if float(panel.code[0, int(top[1:])]) < 0 else "ArrowLeft", times=30)
        lab.until(lambda: field.input_value() != old, what="the code following the slider")
        lab.until(shows_its_code, what="the picture of the sliders' code")
        assert np.abs(lab.pixels(live).astype(int) - before).max() > 20
        page.wait_for_timeout(1500)
        lab.screenshot(page, "tour.png", shown)
        assert page.locator("[role=alert]").count() == 0
