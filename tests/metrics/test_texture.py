"""Texture distance: identities of chi-square, histograms pixel by pixel, mixes that take their colours or do not."""

import math

import pytest
import torch
from metrics.mixing_oracles import FEATURE, LAYOUT, Finder, Mixer, Tiles

from disentkit.metrics import mix_pictures, texture, texture_distance

TILES = Tiles()


def test_chi_square():
    a, b = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a[:, :3], b[:, :3] = 0, torch.tensor([0.0, 0.5, 0.0])
    a, b = (part / part.sum(1, keepdim=True) for part in (a, b))
    d = texture.chi_square(a, b)
    for i in range(5):
        terms = [(p - q) ** 2 / (p + q) for p, q in zip(a[i].tolist(), b[i].tolist()) if p + q]
        assert float(d[i]) == pytest.approx(sum(terms) / 2)
    assert torch.equal(d, texture.chi_square(b, a)) and (texture.chi_square(a, a) == 0).all()
    one, other = torch.eye(8, dtype=torch.float64)[:2, None]
    assert texture.chi_square(one, other) == 1 and ((d > 0) & (d < 1)).all()


def test_histograms_pixel_by_pixel():
    rng = torch.Generator().manual_seed(1)
    x, mask = torch.rand(3, 3, 6, 6, generator=rng), torch.rand(3, 1, 6, 6, generator=rng)
    x[0, :, 0, 0], mask[0, 0, 0, 0] = 1.0, 1.0  # white belongs to the last level
    found = texture.histograms(x, mask)
    for n in range(3):
        expected = [0] * texture.BINS**3
        inside = [(i, j) for i in range(6) for j in range(6) if mask[n, 0, i, j] > 0.5]
        for i, j in inside:
            r, g, b = (min(int(float(v) * 4), 3) for v in x[n, :, i, j])
            expected[16 * r + 4 * g + b] += 1 / len(inside)
        assert found[n].tolist() == pytest.approx(expected)
    assert texture.histograms(x, torch.zeros_like(mask)).isnan().all()


@pytest.mark.parametrize("layout", [LAYOUT, FEATURE])
def test_a_perfect_mix_has_the_colours_of_its_source(layout):
    found = texture_distance(Mixer(layout), TILES, Finder(), n=60)
    assert found == {"mixed": 0, "same": 0, "other": 1, "apart": 1, "failures": 0}  # six plain colours


def test_a_mix_that_takes_its_colours_elsewhere():
    found = texture_distance(Mixer({**LAYOUT, "p": ["shape", "texture"], "c": []}), TILES, Finder(), n=60)
    assert found["mixed"] == 1 and found["other"] == 0  # the shape's source brought it
    assert (found["same"], found["apart"]) == (0, 1)
    constant = texture_distance(Mixer({**LAYOUT, "c": []}), TILES, Finder(), n=300)
    assert constant["mixed"] == pytest.approx(5 / 6, abs=0.07) == constant["other"]


def test_objects_that_are_not_found_are_left_out():
    class Blind(Finder):
        def mask(self, x):
            found = super().mask(x)
            found[::2] = 0
            return found

    found = texture_distance(Mixer(), TILES, Blind(), n=40)
    assert found["failures"] == 0.5 and found["mixed"] == 0
    nothing = type("Nothing", (Finder,), {"mask": lambda self, x: 0 * Finder.mask(self, x)})
    found = texture_distance(Mixer(), TILES, nothing(), n=10)
    assert found["failures"] == 1 and math.isnan(found["mixed"]) and found["apart"] == 1


def test_mixes_made_already():
    model = Mixer({**LAYOUT, "c": []})
    made = mix_pictures(model, TILES, 40, seed=5)
    found = texture_distance(model, TILES, Finder(), made=made)
    assert found == texture_distance(model, TILES, Finder(), n=40, seed=5)


def test_bad_input():
    with pytest.raises(ValueError, match="give segmenter.segmenter_of"):
        texture_distance(Mixer(), TILES, object())
    bare = type("Bare", (Tiles,), {"mask": None})()
    with pytest.raises(ValueError, match="data set 'tiles' has no masks of its pictures"):
        texture_distance(Mixer(), bare, Finder())
