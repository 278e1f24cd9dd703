"""The live picture of a training: reconstructions and curves in one image widget, redrawn every few seconds."""

from __future__ import annotations

import ipywidgets as widgets
import pandas as pd
from IPython.display import Image, display

from disentkit import models, plots


class Live:
    """Called by `fit` with (step, rows, learner); shows the learner's own preview of one fixed batch."""

    def __init__(self, batch: dict):
        self.batch = batch
        self.widget = widgets.Image(format="png", layout=widgets.Layout(width="100%", max_width="900px"))
        self.shown = False

    def __call__(self, step: int, rows: list[dict], learner) -> None:
        device = models.device_of(learner)
        with models.frozen(learner):
            rows_of_images = learner.preview({k: v.to(device) for k, v in self.batch.items()})
        rows_of_images = {name: images.float().cpu() for name, images in rows_of_images.items()}
        self.widget.value = plots.training_picture(rows_of_images, pd.DataFrame(rows))
        if not self.shown:
            display(self.widget)
            self.shown = True

    def finish(self, picture: bytes) -> None:
        """Leave a plain picture in place of the widget, so that an exported notebook shows it too."""
        self.widget.close()
        display(Image(data=picture))
