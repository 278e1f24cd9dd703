"""The pictures of a training: the one a run keeps, and the moving one of a notebook."""

from __future__ import annotations

import pandas as pd
import torch

from disentkit import models
from disentkit.data.base import Data


def picture(model, data: Data, seed: int, rows: list[dict]) -> bytes:
    """PNG bytes: ten fixed pictures with what the model makes of them, and the curves of the history's rows."""
    from disentkit import plots

    return plots.training_picture(_preview(model, data, seed), pd.DataFrame(rows))


def _preview(model, data: Data, seed: int) -> dict[str, torch.Tensor]:
    """Ten fixed pictures and what the model makes of them; the training's generators are not touched.

    Samples where the model cannot reconstruct: it has no encoder, or a block (a GAN's noise) that no encoder reads.
    """
    x = data.to("cpu").sample(10, torch.Generator().manual_seed(seed))["x"]
    if not models.can_encode(model) or not all(block.inferred for block in model.codes):
        codes = model.prior(10, torch.Generator(models.device_of(model)).manual_seed(seed))
        return {"pictures": x, "samples": models.decode(model, codes)}
    return {"pictures": x, "reconstructions": models.decode(model, models.encode(model, x))}


def live_picture(data: Data, seed: int):
    """The picture that moves while `fit` trains, over the same ten pictures."""
    from disentkit.explore.live import Live

    return Live(data.to("cpu").sample(10, torch.Generator().manual_seed(seed)))


def in_notebook() -> bool:
    """True inside a Jupyter kernel."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None
