"""Frechet distance: the closed forms of Gaussians, the textbook's matrix root, floors, and what moves it."""

import numpy as np
import pytest
import torch
from metrics.mixing_oracles import FEATURE, Generator, Mixer, Reader, Tiles
from scipy.linalg import sqrtm

from disentkit import judges
from disentkit.metrics import Drawn, draw_pictures, frechet, frechet_distance
from disentkit.metrics.frechet import features

TILES = Tiles()


def exactly(mean, covariance, n=400, seed=0):
    """n rows whose mean and covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_gaussians_with_axes_in_common():
    """(m1 - m2)^2 + (s1 - s2)^2, summed over the axes."""
    a, b = exactly([0, 1, 2], np.diag([1.0, 4.0, 9.0])), exactly([1, 1, 0], np.diag([4.0, 4.0, 1.0]), seed=1)
    assert frechet_distance(a, b) == pytest.approx(1 + 0 + 4 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2)


def test_gaussians_in_general():
    rng = np.random.default_rng(2)
    one, two = (m @ m.T + 0.1 * np.eye(4) for m in rng.normal(size=(2, 4, 4)))
    a, b = exactly(np.zeros(4), one), exactly(np.ones(4), two, seed=3)
    expected = 4 + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(a, b) == pytest.approx(expected) == frechet_distance(b, a)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert frechet_distance(a @ turn + 5, b @ turn + 5) == pytest.approx(expected)
    assert frechet_distance(torch.tensor(3 * a), torch.tensor(3 * b)) == pytest.approx(9 * expected)


def test_the_same_rows_and_features_that_do_not_move():
    a = np.random.default_rng(4).normal(size=(50, 3))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    still = np.hstack([a, np.ones((50, 2))])  # a dead unit of the judge
    assert frechet_distance(still, still + [1, 0, 0, 0, 2]) == pytest.approx(5)
    assert frechet_distance(a[:, :1], a[:, :1] + 2) == pytest.approx(4)


def test_features_are_the_last_hidden_layer():
    judge = judges.Judge(judges.Settings(width=4, fc=10, size=16), TILES.spec).eval()
    x = TILES.sample(5, torch.Generator().manual_seed(0))["x"]
    hidden = features(judge, x)
    assert hidden.shape == (5, 10) and (hidden >= 0).all()
    assert torch.allclose(judge.net[-1](hidden), torch.cat(judge.logits(x), dim=1), atol=1e-6)


def test_true_pictures_are_the_floor():
    judge = Reader()
    floor = frechet(TILES, TILES, judge, n=300)
    assert 0 < floor < 0.02 and frechet(TILES, TILES, judge, n=1200) < floor  # few pictures bias it upwards
    assert frechet(Generator(), TILES, judge, n=300) < 2 * floor

    class Dark(Generator):
        def decode(self, codes):
            return 0.5 * super().decode(codes)

        def stages(self, codes):
            return super().stages(codes) | {"child": self.decode(codes)}

    assert frechet(Dark(), TILES, judge, n=300) > 10 * floor


def test_tied_codes_are_held_against_data_that_are_tied():
    class Tied(Generator):
        """All factors at their first values but one."""

        def tied(self, n, rng):
            codes = self.prior(n, rng)
            return self.codes.write(codes, "c", torch.eye(6)[0])

    model, judge = Tied(), Reader()
    assert frechet(model, TILES, judge, n=300, draw="tied") > 2 * frechet(model, TILES, judge, n=300)


def test_pictures_made_already():
    model, judge = Generator(), Reader()
    made = draw_pictures(model, 100, seed=6)
    some = Drawn(made.codes[:64], made.x[:64])
    assert frechet(model, TILES, judge, n=100, seed=6, made=made) == frechet(model, TILES, judge, n=100, seed=6)
    assert frechet(model, TILES, judge, n=64, made=made) == frechet(model, TILES, judge, made=some)


def test_bad_input():
    with pytest.raises(ValueError, match="features are a judge's last hidden layer, and object has no layers"):
        frechet(Generator(), TILES, object())
    with pytest.raises(ValueError, match="draws no codes by 'prior'"):
        frechet(Mixer(FEATURE), TILES, Reader())
    large = Generator()
    large.image_shape = (3, 64, 64)
    with pytest.raises(ValueError, match=r"makes pictures \(3, 64, 64\), data set '.*: give the data that it was"):
        frechet(large, TILES, Reader())
    with pytest.raises(ValueError, match="codes are drawn by 'prior' or 'tied', not 'free'"):
        frechet(Generator(), TILES, Reader(), draw="free")
    with pytest.raises(ValueError, match="NaN or infinite"):
        frechet_distance(np.full((5, 2), np.nan), np.zeros((5, 2)))
