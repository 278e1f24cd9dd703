"""Panels: drag sliders over the blocks of a model's code and watch the picture. Built on core ipywidgets only.

    Panel(model)            every block of one model; on a renderer it is the panel of true factors
    Compare(left, right)    two models side by side under one set of sliders

A panel knows a model (`codes`, `image_shape`, `decode`, perhaps `encode` and `prior`) and nothing else.
"""

from disentkit.explore.pair import Compare
from disentkit.explore.panel import Panel

__all__ = ["Compare", "Panel"]
