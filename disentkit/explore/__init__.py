"""Panels: move the blocks of a model's code and watch the picture. Built on core ipywidgets only.

    Panel(model)                         every block of one model; on a renderer it is the panel of true factors
    Compare(left, right)                 two models side by side under one set of sliders
    Mixer(model, sources)                the block explorer: which source feeds which block
    AttributeBoard(model, pictures)      the attribute board: one picture per attribute, the true picture beside it
    Steer(model, instrument)             the direction panel: sliders in real units, measured beside asked
    swap_sheet(model, top, left, block)  the sheet of swaps of one block, `swap_sheets` those of all: pictures

A panel knows a model (`codes`, `image_shape`, `decode`, perhaps `encode` and `prior`) and nothing else; only the
attribute board knows data, since it draws the truth.
"""

from disentkit.explore.board import AttributeBoard
from disentkit.explore.mixer import Mixer
from disentkit.explore.pair import Compare
from disentkit.explore.panel import Panel
from disentkit.explore.steer import Steer
from disentkit.explore.swapping import swap_sheet, swap_sheets

__all__ = ["AttributeBoard", "Compare", "Mixer", "Panel", "Steer", "swap_sheet", "swap_sheets"]
