"""Two models under one set of sliders."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from explore.models_small import Bar, Blocks, Linear

from disentkit import models
from disentkit.explore import Compare, Panel, images, pair


def halves(picture: np.ndarray, parts: int) -> list[np.ndarray]:
    """The pictures (8, 8, 3) that stand side by side."""
    return [picture[:, i * (8 + images.GAP) :][:, :8] for i in range(parts)]


def test_a_true_factor_moves_the_true_picture_its_reconstruction_and_some_latents():
    bar, reader = Bar(), Linear()
    both = Compare(bar, reader, names=("true", "read"))
    assert both.error == "" and list(both.controls) == ["way", "x"]
    assert set(both.moved().values()) == {0.0}
    shown, bars = both.picture.value, both.bars.value
    both.controls["x"].value = 3.0
    true, read = halves(both.render(both.code), 2)
    x = bar.decode(both.code)
    assert np.array_equal(true, images.to_uint8(x)[0])
    assert np.array_equal(read, images.to_uint8(models.decode(reader, models.encode(reader, x)))[0])
    assert both.picture.value != shown and both.bars.value != bars
    expected = (models.encode(reader, x) - models.encode(reader, bar.decode(both.base[None])))[0] / 4  # range -2 ... 2
    assert np.allclose(list(both.moved().values()), expected, atol=1e-5) and abs(expected).max() > 0.05


def test_moves_count_from_where_the_present_slider_was_taken_up():
    both = Compare(Bar(), Linear())
    both.controls["x"].value = 3.0
    before = both.model.read(both.code)
    both.controls["way"].value = 1
    expected = (both.model.read(both.code) - before)[0] / 4
    assert np.allclose(list(both.moved().values()), expected, atol=1e-5)
    assert "<b>way</b>" in both.bars.value
    both.buttons["reset"].click()
    assert set(both.moved().values()) == {0.0}


def stats(*factors, importance=(3.0, 2.0, 1.0)):
    return [{"name": f"z{j}", "low": -2.0, "high": 2.0, "importance": importance[j], "factor": f, "correlation": 0.9}
            for j, f in enumerate(factors)]  # fmt: skip


def test_two_models_read_the_same_picture_and_share_a_slider_per_rank():
    left, right = Linear(), Linear(seed=1)
    pictures = models.decode(left, torch.tensor([[0.5, 0.0, -0.5], [1.0, 0.2, 0.3]]))
    both = Compare(left, right, stats("x", None, "y"), stats(None, "x", "y"), sources=pictures)
    names = list(both.controls)
    plain = [name.removesuffix(" mirrored") for name in names]
    assert plain == ["picture", "x: z0 | z1", "y: z2 | z2", "by rank: z1 | z0"]
    codes = [models.encode(m, pictures) for m in (left, right)]
    shown = halves(both.render(both.code), 3)
    assert np.array_equal(shown[0], images.to_uint8(pictures)[0])
    for side, model in enumerate((left, right)):  # at 0 each shows the picture as it read it
        assert np.array_equal(shown[side + 1], images.to_uint8(models.decode(model, codes[side][:1]))[0])

    both.controls["picture"].value = 1
    both.controls[names[1]].value = 0.5
    shown = halves(both.render(both.code), 3)
    sign = -1 if names[1].endswith("mirrored") else 1
    for side, (model, j, direction) in enumerate([(left, 0, 1), (right, 1, sign)]):
        code = codes[side][1:].clone()
        code[0, j] += direction * 0.5 * 2  # half of the range -2 ... 2 is 2
        assert np.abs(shown[side + 1].astype(int) - images.to_uint8(models.decode(model, code))[0]).max() <= 1
    assert both.error == ""


def test_a_weakly_followed_factor_pairs_nothing():
    weak = [stat | {"correlation": 0.2} for stat in stats("x", None, "y")]
    both = Compare(Linear(), Linear(seed=1), weak, stats(None, "x", "y"), sources=torch.full((1, 1, 8, 8), 0.5))
    names = [name.removesuffix(" mirrored") for name in both.controls]
    assert names == ["picture", "by rank: z0 | z0", "by rank: z1 | z1", "by rank: z2 | z2"]


def test_a_latent_of_opposite_sign_is_mirrored():
    left, right = Linear(), Linear()
    with torch.no_grad():
        right.weights[1] *= -1
    pictures = models.decode(left, torch.tensor([[0.5, 0.1, -0.5]]))
    both = Compare(left, right, sources=pictures)
    assert list(both.controls)[1:] == ["by rank: z0 | z0", "by rank: z1 | z1 mirrored", "by rank: z2 | z2"]
    both.controls["by rank: z1 | z1 mirrored"].value = 0.7
    _, a, b = halves(both.render(both.code), 3)
    assert np.abs(a.astype(int) - b).max() <= 1  # the same model but for the sign


def test_models_of_different_size_are_shown_at_one_height():
    left, right = Linear(8), Linear(16, seed=1)
    pictures = models.decode(right, torch.tensor([[0.5, 0.1, -0.5]]))
    both = Compare(left, right, sources=pictures)
    assert both.error == "" and both.render(both.code).shape == (16, 3 * 16 + 2 * images.GAP, 3)
    assert Compare(Bar(), right).render(both.base[:3]).shape == (16, 2 * 16 + images.GAP, 3)


def test_sheet_and_bundle():
    both = Compare(Bar(), Linear(), title="both")
    assert np.array_equal(both.sheet(), both.sheet(columns=5))
    assert base64.b64decode(both._repr_mimebundle_()["image/png"]).startswith(b"\x89PNG")


def test_latents_that_tell_next_to_nothing_are_not_compared():
    left, right = Linear(), Linear(seed=1)
    pictures = models.decode(left, torch.tensor([[0.5, 0.0, -0.5]]))
    dead = stats("x", "y", None, importance=(3.0, 2.0, 0.02))  # z2 of the left tells nothing
    both = Compare(left, right, dead, stats("y", None, "x"), sources=pictures)
    names = [name.removesuffix(" mirrored") for name in both.controls]
    assert names == ["picture", "x: z0 | z2", "y: z1 | z0"]  # right's z1 is left without a partner
    all_dead = stats(None, None, None, importance=(0.0, 0.0, 0.0))
    both = Compare(left, right, all_dead, None, sources=pictures)
    assert list(both.controls) == ["picture"] and both.error == ""
    assert Compare(left, right, sources=pictures).controls.keys() > {"picture"}  # nothing is known: all are paired


def test_the_sheet_says_who_drew_what():
    """Over every tile of three pictures stand the three names; the tiles stand apart and are as they were."""
    left, right = Linear(), Linear(seed=1)
    pictures = models.decode(left, torch.tensor([[0.5, 0.0, -0.5], [1.0, 0.2, 0.3]]))
    a, b = (Compare(left, right, sources=pictures, names=names) for names in [("mine", "theirs"), ("mine", "ours")])
    (sheet, other), plain = (both.sheet() for both in (a, b)), Panel._sheet(a, 5, "")
    step = a.model.image_shape[2] * (64 // 8) + images.GAP
    margin, top = plain.shape[1] - 5 * step, len(sheet) - len(plain)
    for i in range(5):
        at = margin + i * (step + pair.SPACE)
        assert np.array_equal(sheet[top:, at : at + step], plain[:, margin + i * step :][:, :step])
        assert (sheet[top:, at + step :][:, : pair.SPACE] == 255).all()
        third = step // 3
        heads = [part[:top, at : at + 3 * third] for part in (sheet, other)]
        changed = [bool((heads[0] != heads[1])[:, k * third : (k + 1) * third].any()) for k in range(3)]
        assert changed == [False, False, True]  # only the third name differs, and it stands over the third picture
        assert all((heads[0][:, k * third : (k + 1) * third] < 200).any() for k in range(3))


def test_long_names_are_wrapped_and_a_sheet_without_rows_is_the_picture():
    font = pair.ImageFont.load_default(11)
    lines = pair._wrapped("as the model drew it", font, 50)
    assert " ".join(lines) == "as the model drew it" and len(lines) > 1
    assert all(font.getlength(line) <= 50 for line in lines)
    assert pair._wrapped("reconstruction", font, 5) == ["reconstruction"] and pair._wrapped("", font, 5) == [""]


def test_a_broken_model_shows_its_error():
    reader = Linear()
    both = Compare(Bar(), reader)
    reader.broken = "weights are gone"
    both.controls["x"].value = 1.0
    assert both.error == "RuntimeError: weights are gone"


def test_pairs_that_cannot_be_compared():
    with pytest.raises(ValueError, match="Blocks has no encoder"):
        Compare(Linear(), Blocks())
    with pytest.raises(ValueError, match="need sources"):
        Compare(Linear(), Linear())
    with pytest.raises(ValueError, match="sources must be pictures"):
        Compare(Linear(), Linear(), sources=torch.zeros(2, 3))
