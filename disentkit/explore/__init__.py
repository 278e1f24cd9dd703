"""Panels: move the blocks of a model's code and watch the picture. Built on core ipywidgets only.

    Panel(model)                         every block of one model; on a renderer it is the panel of true factors
    Compare(left, right)                 two models side by side under one set of sliders
    Mixer(model, sources)                the block explorer: which source feeds which block
    AttributeBoard(model, pictures)      the attribute board: one picture per attribute, the true picture beside it
    MixingBoard(model, pictures)         one picture per factor of its own, in code mode and in feature mode
    Steer(model, instrument)             the direction panel: sliders in real units, measured beside asked
    swap_sheet(model, top, left, block)  the sheet of swaps of one block, `swap_sheets` those of all: pictures
    sweep_sheet(model, pictures)         a row per factor, in each column that factor from another picture

A panel knows a model (`codes`, `image_shape`, `decode`, perhaps `encode` and `prior`) and nothing else; only the
attribute board knows data, since it draws the truth.
"""

from disentkit.explore.board import AttributeBoard
from disentkit.explore.mixer import Mixer
from disentkit.explore.mixing import MixingBoard
from disentkit.explore.pair import Compare
from disentkit.explore.panel import Panel
from disentkit.explore.steer import Steer
from disentkit.explore.swapping import swap_sheet, swap_sheets
from disentkit.explore.sweeps import sweep_sheet

__all__ = [
    "AttributeBoard",
    "Compare",
    "Mixer",
    "MixingBoard",
    "Panel",
    "Steer",
    "swap_sheet",
    "swap_sheets",
    "sweep_sheet",
]
