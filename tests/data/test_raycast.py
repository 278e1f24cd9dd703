"""Rays meet solids where marching along them finds the solids; lamps, cameras and filters do what they say."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit.data import raycast
from disentkit.data.raycast import Raster, Rays, Spot


def point(x, y, z):
    return tuple(torch.as_tensor(v, dtype=torch.float64) for v in (x, y, z))


def random_rays(n=1000, seed=0):
    """Rays from a shell of radius 3 around (0, 0, 0.5) towards points near the solids, so that about half hit."""
    rng = np.random.default_rng(seed)
    out = rng.normal(size=(n, 3))
    origin = 3 * out / np.linalg.norm(out, axis=1, keepdims=True) + [0, 0, 0.5]
    target = rng.uniform([-0.7, -0.7, -0.3], [0.7, 0.7, 1.6], size=(n, 3))
    direction = (target - origin) * rng.uniform(0.5, 2, size=(n, 1))  # of any length
    return Rays(point(*origin.T), point(*direction.T))


R, H = torch.tensor(0.4, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)


def box(rays):
    sides = [raycast.slab(o, d, -R, R) for o, d in zip(rays.origin[:2], rays.direction[:2], strict=True)]
    return raycast.both(*sides, raycast.slab(rays.origin[2], rays.direction[2], 0.0, H))


def cylinder(rays):
    return raycast.both(raycast.tube(rays, R), raycast.slab(rays.origin[2], rays.direction[2], 0.0, H))


def ball(rays):
    return raycast.ball(rays, 0.7, R)


def capsule(rays):
    return raycast.ball(rays, centre(rays), R)


def centre(rays, low=0.0, high=H):
    return raycast.capsule_centre(rays, raycast.tube(rays, R)[0], R, low, high)


def in_capsule(x, y, z):
    return x**2 + y**2 + (z - z.clamp(float(R), float(H - R))) ** 2 <= R**2


INSIDE = {
    box: lambda x, y, z: (x.abs() <= R) & (y.abs() <= R) & (z >= 0) & (z <= H),
    cylinder: lambda x, y, z: (x**2 + y**2 <= R**2) & (z >= 0) & (z <= H),
    ball: lambda x, y, z: x**2 + y**2 + (z - 0.7) ** 2 <= R**2,
    capsule: in_capsule,
}


@pytest.mark.parametrize("solid", INSIDE)
def test_solids_are_met_where_marching_along_the_ray_meets_them(solid):
    rays = random_rays()
    count = 2000
    steps = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    far = 6 / torch.stack(rays.direction).norm(dim=0)  # no solid reaches further than 6 from the origins
    t = far * steps[:, None]
    inside = INSIDE[solid](*rays.at(t))  # (steps, n)
    first = t[inside.float().argmax(0), torch.arange(t.shape[1])]
    near, end = solid(rays)
    step = far / count
    assert torch.isfinite(near).all() and torch.isfinite(end).all()
    hit = inside.any(0)
    assert 0.2 < hit.double().mean() < 0.9
    assert (near < end)[hit].all()
    grazed = (near < end) & ~hit  # so short inside that marching stepped over it
    assert grazed.sum() < 0.01 * len(hit)
    assert ((first - near)[hit] >= -1e-9).all() and ((first - near) <= step + 1e-9)[hit].all()
    on = [p[near < end] for p in rays.at(near)]
    nudge = 1e-6 * torch.stack(rays.direction)[:, near < end]
    assert INSIDE[solid](*(p + d for p, d in zip(on, nudge, strict=True)))[(end - near)[near < end] > 1e-4].all()


def test_the_gap_is_positive_just_where_the_ball_is_met():
    rays = random_rays(seed=1)
    for height in (0.7, centre(rays)):
        near, far = raycast.ball(rays, height, R)
        gap = raycast.ball_gap(rays, height, R)
        sure = gap.abs() > 1e-9
        assert sure.double().mean() > 0.99 and torch.equal((gap > 0)[sure], (near < far)[sure])


def test_closed_forms():
    down = Rays(point(0.1, 0.0, 5.0), point(0.0, 0.0, -2.0))
    near, far = raycast.both(*[raycast.slab(down.origin[2], down.direction[2], 0.0, H)])
    assert near == pytest.approx((5 - 1.3) / 2) and far == pytest.approx(5 / 2)
    ahead = Rays(point(0.0, -3.0, 0.7), point(0.0, 1.0, 0.0))
    assert [float(t) for t in raycast.ball(ahead, 0.7, R)] == pytest.approx([2.6, 3.4])
    assert [float(t) for t in raycast.tube(ahead, R)] == pytest.approx([2.6, 3.4])
    assert float(centre(ahead)) == pytest.approx(0.7)
    beside = Rays(point(0.5, -3.0, 0.7), point(0.0, 1.0, 0.0))
    assert [float(t) for t in raycast.tube(beside, R)] == pytest.approx([3, 3]), "a miss: where it comes closest"
    assert float(raycast.plane(ahead.origin[1], ahead.direction[1], 3.5)) == pytest.approx(6.5)
    assert float(raycast.plane(ahead.origin[1], ahead.direction[1], -4.0)) == pytest.approx(-1)


def test_a_capsule_as_high_as_wide_is_a_ball():
    rays = random_rays(seed=2)
    heights = centre(rays, 0.3, 0.3 + 2 * R)
    assert torch.allclose(heights, torch.full_like(heights, 0.3 + float(R)))


def test_positive():
    gap = torch.tensor([-torch.inf, -3.0, -1e-20, 0.0, 1e-20, 1e-3, 1e20, torch.inf])
    assert raycast.positive_(gap).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


# ---- camera and raster


def test_the_camera_looks_ahead_and_turns_to_the_left():
    raster = Raster(raycast.lanczos(8, 3), focal=0.5)
    right, up = raster.ahead((0, 64, 0, 64))
    assert torch.allclose(right, -right.flip(0)) and torch.allclose(up, -right)
    assert float(right[-1]) == pytest.approx((0.5 - 0.5 / 8) / 0.5)
    turn = torch.tensor([0.0, 0.4, math.pi / 2])
    x, y = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, -1.0, 3.0])
    rays = raycast.level_camera(x, y, 0.75, turn, right, up)
    assert [float(p[1]) for p in rays.origin] == [1.0, -1.0, 0.75]
    forward = torch.stack([-turn.sin(), turn.cos()])[:, :, None, None]
    depth = rays.direction[0] * forward[0] + rays.direction[1] * forward[1]
    assert torch.allclose(depth, torch.ones_like(depth), atol=1e-6), "t is the depth"
    left = Rays(tuple(o[2:] for o in rays.origin), (rays.direction[0][2:], rays.direction[1][2:], rays.direction[2]))
    assert torch.allclose(left.direction[0], -torch.ones(1, 1, 8), atol=1e-6), "a quarter turn looks along -x"
    assert torch.allclose(left.direction[1][0, 0], right, atol=1e-6), "and has +y at its right"


def test_windows_are_parts_of_the_picture():
    raster = Raster(raycast.lanczos(64, 3), focal=1.0)
    window = (8, 40, 16, 48)
    whole, part = raster.ahead((0, 64, 0, 64), 192), raster.ahead(window, 192)
    assert torch.equal(part[0], whole[0][48:144]) and torch.equal(part[1], whole[1][24:120])
    samples = torch.zeros(2, 192, 192)
    samples[:, 40:100, 70:120] = torch.rand(2, 60, 50, generator=torch.Generator().manual_seed(0))
    full = raster.shrink(samples, (0, 64, 0, 64))
    assert torch.allclose(raster.shrink(samples[:, 24:120, 48:144], window), full[:, 8:40, 16:48], atol=1e-6)


@pytest.mark.parametrize("window", [(0, 64, 0, 64), (8, 40, 16, 48)])
def test_strips_above_an_edge_are_what_samples_make(window):
    raster = Raster(raycast.lanczos(64, 3), focal=0.9)
    top, bottom, *columns = window
    right, up = raster.ahead((0, 64, *columns), 192)
    edge = 0.1 + 0.2 * torch.sin(5 * right + torch.tensor([0.0, 2.0])[:, None])[:, None]  # (2, 1, columns)
    edge[:, :, :5], edge[:, :, -5:] = -9.0, 9.0
    strips = raster.above(edge, window)
    assert strips.shape == (2, len(right), bottom - top)
    samples = (up[None, :, None] > edge).float()
    expected = raster.shrink(samples, (0, 64, *columns))[:, top:bottom]
    assert torch.allclose(raster.join(strips, window), expected, atol=1e-5)


def test_edges_of_a_ball_are_where_its_rays_begin_to_meet_it():
    right, up = torch.linspace(-0.5, 0.5, 101), torch.linspace(-0.6, 0.6, 4001)
    rays = raycast.level_camera(torch.tensor([0.2]), torch.tensor([-2.5]), 0.75, torch.tensor([0.1]), right, up)
    tube = raycast.tube(rays, R.float())
    for height in (0.4, 0.75, 1.2):
        low, high = raycast.ball_edges(rays, tube, height)
        met = raycast.ball_gap(rays, height, R.float()) > 0
        between = (up[:, None] > low[0]) & (up[:, None] < high[0])
        assert 0.02 < met.float().mean() < 0.9 and (met[0] != between).float().mean() < 1e-4


def test_the_filter_is_that_of_image_libraries():
    weights = raycast.lanczos(64, 3)
    assert torch.allclose(weights.sum(1), torch.ones(64), atol=1e-6)
    picture = np.random.default_rng(0).random((192, 192), dtype=np.float32)
    expected = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.LANCZOS))
    ours = Raster(weights, 1.0).shrink(torch.from_numpy(picture)[None], (0, 64, 0, 64))[0]
    assert np.abs(ours.numpy() - expected).max() < 1e-5


# ---- light


def test_a_spot_shines_by_the_cosines():
    lamp = Spot((1.0, 2.0, 4.0), (1.0, 2.0, 0.0), 3)
    below, aside = point(1.0, 2.0, 1.0), point(1.0 + 3.0 * math.sqrt(3), 2.0, 1.0)  # 60 degrees off the axis
    up, level = point(0.0, 0.0, 1.0), point(1.0, 0.0, 0.0)
    assert [float(v) for v in lamp.shine(below, up)] == pytest.approx([1, 1])
    assert [float(v) for v in lamp.shine(aside, up)] == pytest.approx([0.5, 0.5**3])
    facing, _ = lamp.shine(aside, level)
    assert float(facing) == pytest.approx(-math.sqrt(3) / 2), "this face looks away"
    above = point(1.0, 2.0, 7.0)
    assert float(lamp.shine(above, up)[1]) == 0, "no light behind the lamp"


def test_rays_to_a_point_end_there():
    lamp = Spot((1.0, 2.0, 4.0), (1.0, 2.0, 0.0), 3)
    target = tuple(torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))
    rays = lamp.rays_to(target)
    assert all(o.numel() == 1 for o in rays.origin)
    ends = rays.at(torch.ones(()))
    assert all(torch.allclose(e, p, atol=1e-6) for e, p in zip(ends, target, strict=True))
