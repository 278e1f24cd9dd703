"""Pose: what z knows, by ridge regression, and what else changes with it."""

import numpy as np
import pytest
import torch
from metrics.mixing_oracles import FEATURE, LAYOUT, Generator, Grey, Mixer, Reader, Tiles
from sklearn.linear_model import Ridge

from disentkit.metrics import pose, pose_invariance, pose_r2

TILES = Tiles()
TARGETS = ["sin rotation", "cos rotation", "x", "y", "log scale", "mean"]


def test_what_is_linear_is_read_to_the_end():
    found = pose_r2(Mixer(), TILES, n=600)
    assert list(found.index) == TARGETS and found[["x", "y"]].min() > 0.999
    assert found["sin rotation"] > 0.98 and found["log scale"] > 0.98  # nearly linear over their range
    assert abs(found["cos rotation"]) < 0.1  # even in the angle, so a line says nothing
    assert found["mean"] == pytest.approx(found.iloc[:5].mean())


def test_what_is_not_there_is_not_read():
    found = pose_r2(Mixer({**LAYOUT, "z": ["rotation", "x"], "p": ["shape", "y", "scale"]}), TILES, n=600)
    assert found["x"] > 0.99 and max(found["y"], found["log scale"]) < 0.02
    constant = pose_r2(Mixer({**LAYOUT, "z": []}), TILES, n=600)
    assert constant.abs().max() < 0.05  # no better than the mean


def test_ridge_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)) * [1, 5, 0.1, 1]
    y = x @ rng.normal(size=(4, 2)) + rng.normal(size=(200, 2))
    train, test = slice(50, 200), slice(0, 50)
    scaled = (x - x[train].mean(0)) / x[train].std(0)
    line = Ridge(alpha=150 * pose.RIDGE).fit(scaled[train], y[train])
    expected = 1 - ((y[test] - line.predict(scaled[test])) ** 2).sum(0) / ((y[test] - y[test].mean(0)) ** 2).sum(0)
    assert pose.ridge_r2(x[train], y[train], x[test], y[test]) == pytest.approx(expected)


def test_nothing_but_the_pose_changes_with_z():
    found = pose_invariance(Mixer(), TILES, Reader(), n=300)
    assert list(found.index) == ["background", "shape", "texture"] and found["same"].tolist() == [1, 1, 1]
    assert found["chance"].to_numpy() == pytest.approx([1 / 6, 1 / 4, 1 / 6], abs=0.04)


def test_a_texture_in_z_is_found_out():
    for model in (Mixer, Generator):  # from pictures, and from the prior
        found = pose_invariance(model({**LAYOUT, "c": [], "z": [*LAYOUT["z"], "texture"]}), TILES, Reader(), n=400)
        assert found.loc[["background", "shape"], "same"].tolist() == [1, 1]
        assert found.loc["texture", "same"] == pytest.approx(1 / 6, abs=0.07)


def test_a_model_that_always_shows_the_same():
    found = pose_invariance(Mixer({**LAYOUT, "p": []}), TILES, Reader(), n=50)
    assert found.loc["shape"].tolist() == [1, 1]  # no merit: chance says so
    random = pose_invariance(Grey(), TILES, Reader(), n=400)
    assert random["same"].to_numpy() == pytest.approx([1 / 6, 1 / 4, 1 / 6], abs=0.07)


def test_bad_input():
    with pytest.raises(ValueError, match="no block 'z' carries the pose; this code has b, z_b, c, F"):
        pose_r2(Mixer(FEATURE), TILES)
    with pytest.raises(ValueError, match="no block 'z'"):
        pose_invariance(Mixer(FEATURE), TILES, Reader())
    with pytest.raises(ValueError, match="no encoder"):
        pose_r2(Generator(), TILES)
    with pytest.raises(ValueError, match="20 pictures are too few"):
        pose_r2(Mixer(), TILES, n=20)
    for n in (None, "100", 99.5):
        with pytest.raises(ValueError, match="n must be a whole number"):
            pose_r2(Mixer(), TILES, n=n)


def test_same_seed_same_numbers():
    before = torch.get_rng_state()
    assert pose_r2(Mixer(), TILES, n=90).equals(pose_r2(Mixer(), TILES, n=90))
    assert torch.equal(before, torch.get_rng_state())
