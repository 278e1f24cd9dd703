"""Mask IoU: pixel by pixel, of masks that fit, are moved, fill everything or nothing, in code and in feature mode."""

import math

import pytest
import torch
from metrics.mixing_oracles import FEATURE, LAYOUT, Finder, Generator, Mixer, Tiles

from disentkit.metrics import draw_pictures, mask_iou, masks

TILES = Tiles()


class Off(Mixer):
    """Its child's mask is moved by two pixels, its parent's soft."""

    def stages(self, codes):
        made = super().stages(codes)
        return made | {"child_mask": made["child_mask"].roll(2, 3), "parent_mask": 0.6 * made["parent_mask"] + 0.2}


def by_hand(a, b):
    both = either = 0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            p, q = float(a[i, j]) > 0.5, float(b[i, j]) > 0.5
            both, either = both + (p and q), either + (p or q)
    return both / either if either else math.nan


def test_iou_pixel_by_pixel():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 6, 1, 5, 7, generator=rng)
    a[3], b[4], a[5], b[5] = 0.1, 0.2, 0.5, 0.0  # one, the other, and both empty
    expected = [by_hand(a[i, 0], b[i, 0]) for i in range(6)]
    assert masks.iou(a, b)[:5].tolist() == pytest.approx(expected[:5]) and expected[3:5] == [0, 0]
    assert masks.iou(a, b)[5].isnan() and math.isnan(expected[5])
    assert torch.equal(masks.iou(a, a)[:3], torch.ones(3)) and torch.equal(masks.iou(a, b)[:5], masks.iou(b, a)[:5])


def test_a_perfect_model():
    found = mask_iou(Mixer(), TILES, Finder(), Mixer(FEATURE), n=60)
    assert [found[name] for name in ("generated", "parent", "code", "feature")] == [1, 1, 1, 1]
    made = draw_pictures(Mixer(), 60)
    area = TILES.mask(TILES.values_in(made.x)).mean()
    assert found["area"] == pytest.approx({"parent": float(area), "child": float(area)})
    assert found["bimodality"] == {"parent": 1, "child": 1}


class Nothing(Mixer):
    """It draws no object at all."""

    def stages(self, codes):
        made = super().stages(codes)
        return {name: torch.zeros_like(x) for name, x in made.items()}


def test_a_model_that_draws_nothing_has_iou_0():
    class Blind:
        def mask(self, x):
            return torch.zeros_like(x[:, :1])

    found = mask_iou(Nothing(), TILES, Blind(), n=8)
    assert found["generated"] == found["parent"] == found["code"] == 0 and found["area"]["child"] == 0


def test_masks_that_are_off():
    found = mask_iou(Off(), TILES, Finder(), n=40)
    made = draw_pictures(Off(), 40)
    true, moved = TILES.mask(TILES.values_in(made.x)), made.masks["child"]
    expected = sum(by_hand(moved[i, 0], true[i, 0]) for i in range(40)) / 40
    assert found["generated"] == pytest.approx(expected) and 0.2 < expected < 0.8 and found["parent"] == 1
    assert found["bimodality"]["parent"] == 0 and found["bimodality"]["child"] == 1
    assert found["area"]["parent"] == pytest.approx(0.2 + 0.6 * found["area"]["child"], abs=1e-3)
    assert 0.2 < found["code"] < 0.8


def test_feature_mode_keeps_the_outline_that_code_mode_loses():
    found = mask_iou(Mixer({**LAYOUT, "z": []}), TILES, Finder(), Mixer(FEATURE), n=60)
    assert found["feature"] == 1 and found["code"] < 0.6 and found["generated"] == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_collapsed_mask_shows_in_its_area(value):
    class Flat(Generator):
        def stages(self, codes):
            made = super().stages(codes)
            return made | {"child_mask": torch.full_like(made["child_mask"], value)}

    found = mask_iou(Flat(), TILES, Finder(), n=30)
    assert found["area"]["child"] == value and found["bimodality"]["child"] == 1
    assert found["generated"] == 0 if value == 0 else found["generated"] < 0.3


def test_what_a_model_cannot_do_is_left_out():
    looks = {"area", "bimodality"}
    assert set(mask_iou(Generator(), TILES, Finder(), n=10)) == {"generated", "parent", *looks}
    assert set(mask_iou(Mixer(FEATURE), TILES, Finder(), n=10)) == {"feature", *looks}
    assert set(mask_iou(Mixer(), TILES, n=10)) == {"code", *looks}  # nothing to compare drawn ones with


def test_pictures_made_already():
    made = draw_pictures(Off(), 30, seed=2)
    assert mask_iou(Off(), TILES, Finder(), n=30, made=made)["generated"] == pytest.approx(
        mask_iou(Off(), TILES, Finder(), n=30, seed=2)["generated"]
    )


def test_bad_input():
    class Plain:
        codes, image_shape, decode = Generator().codes, TILES.image_shape, Generator().decode

    with pytest.raises(ValueError, match="Plain has no masks: it offers no stages"):
        mask_iou(Plain(), TILES, Finder())
    with pytest.raises(ValueError, match="give segmenter.segmenter_of"):
        mask_iou(Generator(), TILES, object())
    with pytest.raises(ValueError, match="Generator has no encoder: give a segmenter"):
        mask_iou(Generator(), TILES)
    with pytest.raises(ValueError, match="'prior' or 'tied', not 'free'"):
        draw_pictures(Generator(), 10, draw="free")
    with pytest.raises(ValueError, match="draws no codes by 'tied'"):
        draw_pictures(Generator(), 10, draw="tied")
    bare = type("Bare", (Tiles,), {"mask": None})()
    with pytest.raises(ValueError, match="has no masks of its pictures"):
        mask_iou(Mixer(), bare, Finder())

    class Broken(Generator):
        def stages(self, codes):
            return {name: x / 0 for name, x in super().stages(codes).items()}

    with pytest.raises(ValueError, match="pictures hold NaN"):
        mask_iou(Broken(), TILES, Finder(), n=10)
