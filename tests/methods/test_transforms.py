"""Transformations: pixel by pixel against loops, what is undefined, whole pixels, and what `check` refuses."""

import math

import pytest
import torch
from methods.family import rng

from disentkit.errors import UserError
from disentkit.methods.transforms import TRANSFORMS, Transform, check, snap, transform

NAMES = ("x", "y", "zoom", "brightness")
each = pytest.mark.parametrize("name", NAMES)


def pictures(n: int = 5, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=rng())


def disc(radius: float, size: int = 64) -> torch.Tensor:
    """A soft white disc in the middle, (1, 1, size, size)."""
    place = torch.arange(size) - (size - 1) / 2
    return torch.sigmoid(radius - torch.hypot(place[:, None], place))[None, None]


def share(x: torch.Tensor) -> torch.Tensor:
    return x.mean((1, 2, 3))


@pytest.mark.parametrize("name, dim", [("x", 3), ("y", 2)])
def test_a_shift_moves_every_row_by_its_own_pixels(name, dim):
    x, t = pictures(5, height=12, width=20), torch.tensor([0.25, -0.1, 0.0, 0.5, -1.0])
    target, mask = TRANSFORMS[name](x, t)
    size = x.shape[dim]
    for row in range(5):
        by = round(float(t[row]) * size)
        for i in range(size):
            got, known = target[row].select(dim - 1, i), mask[row].select(dim - 1, i)
            if 0 <= i - by < size:
                assert torch.equal(got, x[row].select(dim - 1, i - by)) and (known == 1).all()
            else:
                assert (got == 0.5).all() and (known == 0).all()


def test_positive_is_to_the_right_and_down():
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = 1
    assert TRANSFORMS["x"](x, 0.25)[0][0, 0, 4, 6] == 1
    assert TRANSFORMS["y"](x, 0.25)[0][0, 0, 6, 4] == 1


@each
def test_no_change_is_no_change(name):
    x = pictures(height=12, width=20)
    target, mask = TRANSFORMS[name](x, torch.zeros(5))
    torch.testing.assert_close(target, x, rtol=0, atol=1e-6)
    assert (mask == 1).all()


@each
def test_rows_do_not_see_each_other(name):
    x, found = pictures(), TRANSFORMS[name]
    t = torch.linspace(-1, 1, 5) * found.reach
    target, mask = found(x, t)
    assert target.shape == x.shape and mask.shape == (5, 1, 16, 16)
    for row in range(5):
        alone = found(x[row : row + 1], t[row : row + 1])
        torch.testing.assert_close((target[row : row + 1], mask[row : row + 1]), alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(found(x, 0.1)[0], found(x, torch.full((5,), 0.1))[0])  # one number is for all rows


@each
def test_undefined_pixels_are_grey_and_gradients_leave_them_alone(name):
    x = pictures().requires_grad_()
    target, mask = TRANSFORMS[name](x, -TRANSFORMS[name].reach)
    assert (target[(mask == 0).expand_as(target)] == 0.5).all()
    (target * (mask == 0)).sum().backward()
    assert (x.grad == 0).all()


def test_zoom_scales_lengths_by_e_to_the_t():
    t = torch.tensor([-0.4, -0.1, 0.1, 0.4])
    target, mask = TRANSFORMS["zoom"](disc(12).expand(4, 1, 64, 64), t)
    seen = target - 0.5 * (1 - mask)  # with a black frame
    torch.testing.assert_close((share(seen) / share(disc(12))).log() / 2, t, rtol=0, atol=0.01)
    torch.testing.assert_close(mask.mean((1, 2, 3)), torch.exp(2 * t).clamp(max=1), rtol=0, atol=0.03)
    assert ((mask[0] > 0) & (mask[0] < 1)).any() and (mask[3] == 1).all()  # fractional at the edge of a smaller one


def test_zoom_agrees_with_bilinear_sampling():
    x, t = pictures(2, height=12, width=20), 0.3
    line = torch.nn.functional.affine_grid(torch.eye(2, 3).expand(2, 2, 3) * math.exp(-t), list(x.shape), False)
    wanted = torch.nn.functional.grid_sample(x, line, align_corners=False)
    torch.testing.assert_close(TRANSFORMS["zoom"](x, t)[0], wanted, rtol=0, atol=1e-5)


def test_brightness_is_added_and_cut_off():
    x = torch.tensor([0.1, 0.5, 0.95]).view(1, 1, 1, 3)
    target, mask = TRANSFORMS["brightness"](x, 0.2)
    torch.testing.assert_close(target.flatten(), torch.tensor([0.3, 0.7, 1.0]))
    assert (mask == 1).all() and TRANSFORMS["brightness"](x, -0.2)[0].min() == 0


def test_snap_gives_what_was_done():
    assert snap("x", 0.1, 64) == 6 / 64 and snap("y", -0.02, 16) == 0
    torch.testing.assert_close(snap("x", torch.tensor([0.1, -0.2]), 64), torch.tensor([6.0, -13.0]) / 64)
    assert snap("zoom", 0.123, 64) == 0.123 and snap("brightness", 0.1, 64) == 0.1
    x, t = pictures(), torch.linspace(-0.4, 0.4, 5)
    assert torch.equal(TRANSFORMS["x"](x, t)[0], TRANSFORMS["x"](x, snap("x", t, 16))[0])
    assert torch.equal(TRANSFORMS["x"](x, snap("x", t, 16))[1].sum((1, 2, 3)) / 256, 1 - snap("x", t, 16).abs())


def test_names_units_and_reaches():
    assert tuple(TRANSFORMS) == NAMES and all(found.name == name for name, found in TRANSFORMS.items())
    assert [TRANSFORMS[name].reach for name in NAMES] == [0.25, 0.25, 0.4, 0.2]
    assert all(found.unit for found in TRANSFORMS.values())
    with pytest.raises(UserError, match="unknown transform 'zom'. Did you mean 'zoom'"):
        transform("zom")


@each
def test_check_lets_the_ready_ones_pass(name):
    x, t = pictures(), torch.linspace(-1, 1, 5) * TRANSFORMS[name].reach
    for got, wanted in zip(check(name, x, t), TRANSFORMS[name](x, t), strict=True):
        assert torch.equal(got, wanted)


def own(function) -> Transform:
    return Transform("mine", "", 0.5, function)


def whole(x):
    return torch.ones_like(x[:, :1])


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda x, t: (x[:, :, 1:], whole(x)), r"gave a target \(2, 3, 15, 16\); it must be \(2, 3, 16, 16\)"),
        (lambda x, t: (x, torch.ones_like(x)), r"gave a mask \(2, 3, 16, 16\); it must be \(2, 1, 16, 16\)"),
        (lambda x, t: (x + t.view(-1, 1, 1, 1), whole(x)), "at t = 0.5 gave a target that reaches from .* to 1"),
        (lambda x, t: (x * float("nan"), whole(x)), "at t = 0 gave a target that reaches from nan"),
        (lambda x, t: (x, whole(x) * (1 + t).view(-1, 1, 1, 1)), "at t = 0.5 gave a mask that reaches from 1.5 to 1.5"),
        (lambda x, t: (x, whole(x) * (t < 0.1).view(-1, 1, 1, 1)), "at t = 0.5 leaves 0.0% of the picture defined"),
    ],
)
def test_check_names_what_a_transform_of_ones_own_did(wrong, says):
    with pytest.raises(ValueError, match="transform 'mine'.*" + says):
        check(own(wrong), pictures(2), torch.tensor([0.0, 0.5]))


def test_check_refuses_what_leaves_nothing():
    with pytest.raises(ValueError, match="transform 'x' at t = 1.2 leaves 0.0% of the picture defined"):
        check("x", pictures(2), torch.tensor([0.0, 1.2]))
    with pytest.raises(ValueError, match="transform 'zoom' at t = -3 leaves"):
        check("zoom", pictures(2), -3.0)
    with pytest.raises(ValueError, match="transform 'y' needs a finite t"):
        check("y", pictures(2), torch.tensor([0.0, float("nan")]))
    with pytest.raises(ValueError, match="transform 'x' at t = 0.1 was given a picture that reaches from -"):
        check("x", 2 * pictures(2) - 1, 0.1)
    with pytest.raises(
        ValueError, match=r"takes pictures \(n, C, H, W\) and t \(n,\), not \(2, 3, 16, 16\) and \(3,\)"
    ):
        check("x", pictures(2), torch.zeros(3))
