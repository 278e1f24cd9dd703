"""Swap sheets: every tile is decoded from the code mixed by the book, blocks that travel together too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from explore.models_small import QUARTER_STATS, Quarters, Scene, pictures

from disentkit import models
from disentkit.explore import images, swap_sheet, swap_sheets
from disentkit.explore.frame import sources_of


def tile(sheet: np.ndarray, row: int, column: int, times: int = 4) -> np.ndarray:
    """A picture of a sheet, whose pictures are enlarged so many times; row and column 0 are the given ones."""
    step = 64 + images.GAP
    at = [0 if i == 0 else images.ROOM + i * step for i in (row, column)]
    return sheet[images.HEAD + at[0] :, images.MARGIN + at[1] :][:64, :64][::times, ::times]


def test_the_swap_sheet_takes_one_block_from_above_and_the_rest_from_the_left():
    model, x = Quarters(), pictures(5)
    top, left = x[:3], x[3:]
    sheet = swap_sheet(model, top, left, "f2")
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    whole = images.to_uint8(x)
    for c in range(3):
        assert np.array_equal(tile(sheet, 0, c + 1), whole[c])
        for r in range(2):
            code = model.codes.swap(model.encode(left[r : r + 1]), model.encode(top[c : c + 1]), "f2")
            assert np.array_equal(tile(sheet, r + 1, c + 1), images.to_uint8(models.decode(model, code))[0])
            assert np.array_equal(tile(sheet, r + 1, 0), whole[3 + r])
    assert (tile(sheet, 0, 0)[:-3] == 255).all()  # the corner is empty
    assert (sheet[: images.HEAD] < 100).any() and not np.array_equal(sheet, swap_sheet(model, top, left, "f2", "hair"))


def test_a_sheet_of_a_picture_by_itself_is_the_picture():
    x = pictures(1)
    for block, sheet in swap_sheets(Quarters(), x, x).items():
        assert np.array_equal(tile(sheet, 1, 1), images.to_uint8(x)[0]), block


def test_swap_sheets_are_titled_with_what_was_found():
    model, x = Quarters(), pictures(3)
    sheets = swap_sheets(model, x, x[:2], QUARTER_STATS)
    assert list(sheets) == ["f3", "f1", "f2", "f4"]  # by importance
    here, right, wrong = (s[:20, :270] for s in (sheets["f3"], *(swap_sheet(model, x, x[:2], "f3", title)
                                                               for title in ("f3  hair (0.91)", "f3"))))  # fmt: skip
    assert np.array_equal(here, right) and not np.array_equal(here, wrong)
    with pytest.raises(ValueError, match="no block 'f9'"):
        swap_sheets(model, x, x, [{"name": "f9", "importance": 1.0}])
    with pytest.raises(ValueError, match="sources are empty"):
        swap_sheet(model, x[:0], x, "f1")
    with pytest.raises(ValueError, match="no block 'f9'; there are f1, f2, f3, f4"):
        swap_sheet(model, x, x, "f9")


def test_a_block_that_no_encoder_reads_comes_from_codes_only():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="no encoder reads 'jitter', so pictures cannot give it; use codes"):
        swap_sheet(Scene(), x, x, "jitter")
    assert list(swap_sheets(Scene(), x, x)) == ["b", "shape"]
    assert list(swap_sheets(Scene(), 2, x)) == ["b", "shape", "jitter"]


def test_blocks_of_one_picker_are_swapped_together():
    codes = Scene().codes.prior(2, torch.Generator().manual_seed(0))
    sheets = [swap_sheet(Scene(), codes, codes, name, "one title") for name in ("b", "z", "background")]
    assert np.array_equal(sheets[0], sheets[1]) and np.array_equal(sheets[0], sheets[2])
    made = images.to_uint8(models.decode(Scene(), Scene.codes.swap(codes[:1], codes[1:], ["b", "z"])))[0]
    assert np.array_equal(tile(sheets[0], 1, 2, times=8), made)


def test_what_is_no_model_or_no_block_is_told():
    model, x = Quarters(), pictures()
    for stranger, told in ((None, "not NoneType; a run's is run.model"), (Quarters, "not the class Quarters")):
        with pytest.raises(ValueError, match=told):
            swap_sheet(stranger, x, x, "f1")
        with pytest.raises(ValueError, match=told):
            swap_sheets(stranger, x, x)
    with pytest.raises(ValueError, match="no block 'None'; there are f1"):
        swap_sheet(model, x, x, None)
    model.encode = lambda x: torch.zeros(1, 256)
    with pytest.raises(ValueError, match="Quarters.encode gave 1 codes for 4 pictures"):
        swap_sheet(model, x, x, "f1")
    model.encode = lambda x: torch.zeros(len(x), 7)
    with pytest.raises(ValueError, match=r"codes must be \(N, 256\), not \(4, 7\)"):
        swap_sheet(model, x, x, "f1")


def test_codes_of_whole_numbers_are_no_pictures():
    codes = torch.full((2, 256), 3, dtype=torch.uint8)
    assert torch.equal(sources_of(Quarters(), codes, torch.Generator()).codes, codes.float())
