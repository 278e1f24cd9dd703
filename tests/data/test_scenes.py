"""Scenes: what is measured in a picture is what was asked for, each factor does its own, and `Tied` ties two."""

import colorsys
import inspect
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from data.host_reads import NoHostReads

from disentkit import data
from disentkit.data import scenes
from disentkit.data.laws import Grid, HeldOut, Real
from disentkit.data.scenes import BACKGROUNDS, GRAIN, GRAINS, SHAPES, SIZES, SOFT, SPACE, Scenes, Tied
from disentkit.errors import UserError

SHAPE, X, Y, SCALE, HUE, BACKGROUND, HORIZON, LIGHT, GRAIN_OF = range(9)
PLAIN = dict(shape=0, x=0.5, y=0.5, scale=0.3, hue=0.0, background=0, horizon=0.55, light=1.0, grain=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n, law=None, seed=0):
    return (law or Real()).draw(SPACE, n, generator(seed))


def scene(**changes):
    """One tuple (1, 9): the plain scene with changes."""
    return torch.tensor([[float(v) for v in (PLAIN | changes).values()]])


def each(**changes):
    """Tuples (n, 9): the plain scene with one factor, or more, taking each value of a list."""
    return torch.cat([scene(**dict(zip(changes, row, strict=True))) for row in zip(*changes.values(), strict=True)])


def measured(mask):
    """Pixels of the object, and its barycentre in pixels from the left and from above, each (n,), of masks."""
    mask = mask[:, 0].double()
    place = torch.arange(mask.shape[-1]) + 0.5
    area = mask.sum((1, 2))
    return area, (mask.sum(1) * place).sum(1) / area, (mask.sum(2) * place).sum(1) / area


# ---- the object is where and as large as its factors say


@pytest.mark.parametrize("shape", range(4))
@pytest.mark.parametrize("size", SIZES)
def test_place_and_size_are_those_of_the_mask(size, shape):
    values = drawn(200, seed=size)
    values[:, SHAPE] = shape
    area, x, y = measured(Scenes(size).mask(values))
    assert (x - size * values[:, X]).abs().max() < 0.1 and (y - size * values[:, Y]).abs().max() < 0.1
    wanted = math.pi / 4 * (size * values[:, SCALE]) ** 2
    away = (area - wanted).abs()  # a smooth outline adds a quarter of a pixel, pi / 12
    assert away.max() < 1.2 and (away / wanted).mean() < 0.4 / size


def test_all_shapes_of_one_scale_have_one_area():
    for scale in (0.16, 0.25, 0.36):
        area = measured(Scenes(64).mask(each(shape=range(4), scale=[scale] * 4)))[0]
        assert area.max() / area.min() < 1.01


def test_the_object_is_whole_in_every_corner():
    """As large and as far out as it gets, it has as many pixels as in the middle."""
    ends = [(x, y) for x in (0.25, 0.75) for y in (0.25, 0.75)] + [(0.5, 0.5)]
    for shape in range(4):
        values = each(x=[e[0] for e in ends], y=[e[1] for e in ends], shape=[shape] * 5, scale=[0.36] * 5)
        for size in SIZES:
            area = measured(Scenes(size).mask(values))[0]
            assert torch.allclose(area[:4], area[4:], rtol=2e-3)


def corners(shape):
    """The corners (2 points, 2) of a shape before it is rounded, to the right and down, and the rounding's radius."""
    half, outer, along, across, rounding, turn = scenes._measures(*SHAPES[shape])
    places = []
    for k in range(round(math.pi / half)):
        for far, angle in ((outer, 2 * half * k), (math.hypot(along, across), (2 * k + 1) * half)):
            places.append((far * math.sin(angle - turn), -far * math.cos(angle - turn)))
    return torch.tensor(places, dtype=torch.float64), rounding


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "disc"])
def test_outlines_are_the_distance_to_the_polygon(shape):
    """Compared with every side of the star looked at, and inside told by how often a ray crosses the sides."""
    renderer, scale = Scenes(64), 0.3
    tables = renderer._pieces(scene())[0]
    found = scenes._outline(scene(shape=list(SHAPES).index(shape), x=0.47, y=0.52, scale=scale), tables)[0][0]
    place = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    points = torch.stack(torch.meshgrid(place - 0.47, place - 0.52, indexing="xy"), -1).view(-1, 1, 2) / scale
    ends, rounding = corners(shape)
    start, side = ends, ends.roll(-1, 0) - ends
    along = (((points - start) * side).sum(-1) / side.square().sum(-1)).clamp(0, 1)
    away = (points - start - along[..., None] * side).norm(dim=-1).amin(1)
    px, py = points[..., 0], points[..., 1]
    (ax, ay), (bx, by) = start.T, ends.roll(-1, 0).T
    crosses = ((ay > py) != (by > py)) & (px < (bx - ax) * (py - ay) / (by - ay) + ax)
    signed = torch.where(crosses.sum(1) % 2 == 1, -away, away) - rounding
    assert torch.allclose(found.flatten().double(), scale * signed, atol=1e-5)


def test_the_disc_is_a_disc():
    tables = Scenes(64)._pieces(scene())[0]
    found = scenes._outline(scene(scale=0.25), tables)[0][0]
    place = (torch.arange(64) + 0.5) / 64 - 0.5
    assert torch.allclose(found, torch.hypot(place, place[:, None]) - 0.125, atol=1e-6)


def test_moving_by_whole_pixels_moves_the_mask_by_them():
    renderer = Scenes(64)
    for shape in range(4):
        values = each(shape=[shape] * 3, x=[0.4, 0.4 + 5 / 64, 0.4], y=[0.5, 0.5, 0.5 - 7 / 64])
        start, right, up = renderer.mask(values)
        assert torch.allclose(right, start.roll(5, 2), atol=1e-4)
        assert torch.allclose(up, start.roll(-7, 1), atol=1e-4)


def test_tips_point_up():
    for shape in ("triangle", "star"):
        mask = Scenes(64).mask(scene(shape=list(SHAPES).index(shape)))[0, 0]
        rows = (mask > 0.5).any(1).nonzero()[:, 0]
        top, wide = rows[0], mask.sum(1).argmax()
        assert mask[top + 1].sum() < mask[wide].sum() / 3 and torch.allclose(mask, mask.flip(1), atol=1e-4)


# ---- each factor does its own


@pytest.mark.parametrize("size", [64, 32])
def test_what_lies_beside_the_object_does_not_know_of_it(size):
    renderer = Scenes(size)
    values, others = drawn(60, seed=1), drawn(60, seed=2)
    others[:, [BACKGROUND, HORIZON, LIGHT, GRAIN_OF]] = values[:, [BACKGROUND, HORIZON, LIGHT, GRAIN_OF]]
    free = (renderer.mask(values) == 0) & (renderer.mask(others) == 0)
    assert free.float().mean() > 0.7
    free = free.expand(-1, 3, -1, -1)
    assert torch.equal(renderer.render(values)[free], renderer.render(others)[free])


def test_the_object_is_in_front_of_everything():
    renderer = Scenes(64)
    values, others = drawn(60, seed=1), drawn(60, seed=2)
    others[:, : HUE + 1], others[:, LIGHT] = values[:, : HUE + 1], values[:, LIGHT]
    inside = (renderer.mask(values) == 1).expand(-1, 3, -1, -1)
    assert inside.float().mean() > 0.02
    assert torch.allclose(renderer.render(values)[inside], renderer.render(others)[inside], atol=1e-6)
    edge = (renderer.mask(values) > 0) & (renderer.mask(values) < 1)
    assert 0.005 < edge.float().mean() < 0.1, "edges are smooth, and thin"


def test_light_multiplies_the_picture():
    values = drawn(30)
    values[:, LIGHT] = 1
    full = Scenes(32).render(values)
    for light in (0.55, 0.8):
        values[:, LIGHT] = light
        assert torch.allclose(Scenes(32).render(values), light * full, atol=1e-6)


def test_hue_is_the_colour_of_every_pixel_of_the_object():
    hues = [k / 12 for k in range(12)]
    values = each(hue=hues, shape=[k % 4 for k in range(12)])
    pictures, masks = Scenes(64).render(values), Scenes(64).mask(values)
    for hue, picture, mask in zip(hues, pictures, masks, strict=True):
        colours = picture[:, mask[0] == 1].T
        found = [colorsys.rgb_to_hsv(*c.tolist()) for c in colours]
        for h, s, _ in found:
            assert abs((h - hue + 0.5) % 1 - 0.5) < 1e-3 and s > 0.8
        bright = [v for _, _, v in found]
        assert min(bright) < 0.5 * max(bright), "a dark rim"
    around = Scenes(32).render(each(hue=[0, 1, -0.25, 0.75]))
    assert torch.allclose(around[0], around[1], atol=1e-5) and torch.allclose(around[2], around[3], atol=1e-5)


def test_the_horizon_parts_sky_and_ground_at_its_height():
    """Above it the ground's grain never shows, below it always does, and halfway it does so by half."""
    renderer, rows = Scenes(128), (torch.arange(128) + 0.5) / 128
    for horizon in (0.35, 0.4781, 0.75):
        a, b = renderer.render(each(horizon=[horizon] * 2, grain=[3, 4], y=[0.6] * 2)).mean(1)
        shown = (a - b).abs()[:, :16].mean(1)  # beside the object
        assert (shown[rows < horizon - SOFT / 2] == 0).all()
        below = shown[rows > horizon + SOFT / 2]
        assert below.min() > 0.02
        edge = (rows - horizon).abs() < SOFT / 2
        wanted = ((rows - horizon) / SOFT + 0.5)[edge]
        assert (shown[edge] / below.mean() - wanted).abs().max() < 0.45
    top = renderer.render(each(horizon=[0.35, 0.75], background=[2, 2]))[:, :, 60, 5]
    assert (top[0] - top[1]).abs().max() > 0.2, "ground here, sky there"


@pytest.mark.parametrize("size", SIZES)
def test_grain_is_fine_faint_and_different_each_time(size):
    noise = scenes._noise(size)
    assert noise.shape == (GRAINS, size, size) and torch.equal(noise, scenes._noise(size))
    assert noise.mean((1, 2)).abs().max() < 1e-4, "none is brighter than another"
    assert torch.allclose(noise.std((1, 2)), torch.full((GRAINS,), GRAIN / math.sqrt(3)), rtol=1e-3)
    flat = F.normalize(noise.flatten(1))
    assert (flat @ flat.T - torch.eye(GRAINS)).abs().max() < 6 / size
    power = torch.fft.fft2(noise).abs().square().mean(0)
    waves = torch.fft.fftfreq(size)  # per pixel
    slow = torch.hypot(waves, waves[:, None]) < 0.1
    assert power[slow].mean() < 0.1 * power[~slow].mean()


def test_backgrounds_are_four():
    pictures = Scenes(32).render(each(background=range(4)))
    for a in range(4):
        for b in range(a):
            assert (pictures[a] - pictures[b]).abs().mean() > 0.05
    assert list(BACKGROUNDS) == list(SPACE["background"].labels)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_float_in_0_1_and_nothing_is_cut_off(size):
    count = 4 * GRAINS
    values = each(background=[k // GRAINS for k in range(count)], grain=[*range(GRAINS)] * 4, horizon=[0.35] * count)
    pictures = Scenes(size).render(values)
    assert pictures.shape == (128, 3, size, size) and pictures.dtype == torch.float32
    assert pictures.min() > 0 and pictures.max() < 1


def test_small_pictures_show_what_large_ones_do():
    values = drawn(40)
    for small, large in ((32, 64), (64, 128)):
        a, b = Scenes(small), Scenes(large)
        assert (a.mask(values) - F.avg_pool2d(b.mask(values), 2)).abs().max() < 0.2
        away = (a.render(values) - F.avg_pool2d(b.render(values), 2)).abs().mean((1, 2, 3))
        assert away.max() < 0.04, "but for the grain"


# ---- drawing


def test_drawing_is_pure_and_each_picture_stands_alone():
    values, renderer = drawn(40), Scenes()
    before, state = values.clone(), torch.random.get_rng_state()
    first, second = renderer.render(values), Scenes().render(values)
    assert torch.equal(first, second) and torch.equal(values, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    for k in (0, 15, 16, 39):
        assert torch.allclose(renderer.render(values[k : k + 1])[0], first[k], atol=1e-5)
    assert renderer.render(values[:0]).shape == (0, 3, 64, 64) and renderer.mask(values[:0]).shape == (0, 1, 64, 64)
    assert torch.equal(pickle.loads(pickle.dumps(renderer)).render(values), first)


def test_nothing_is_read_back_to_the_host():
    renderer = Scenes(32, Tied("y", "horizon", 0.5))
    renderer.mask(drawn(1))  # constants are made once
    with NoHostReads():
        batch = renderer.sample(2, generator())
        fixed = renderer.sample_fixed(Y, 2, generator(), groups=3)
        renderer.mask(batch["factors"])
    assert batch["x"].shape == (2, 3, 32, 32) and fixed["x"].shape == (6, 3, 32, 32)
    with NoHostReads(), pytest.raises(AssertionError, match="host"):
        bool(batch["x"].max() > 0)


def test_pictures_are_drawn_on_the_device_of_the_values():
    renderer = Scenes(32)
    images = renderer.render(torch.empty(2, 9, device="meta"))
    assert images.shape == (2, 3, 32, 32) and images.device.type == "meta"
    assert renderer.render(drawn(2)).device.type == "cpu", "after another device"


def test_the_picture_can_be_differentiated_by_the_place():
    """On average an object's moment grows with x by its area times the width, and with y not at all."""
    values = drawn(200).requires_grad_()
    masks = Scenes(64).mask(values)
    moment = (masks * (torch.arange(64) + 0.5)).sum()
    (slope,) = torch.autograd.grad(moment, values)
    slope /= 64 * masks.detach().sum((1, 2, 3))[:, None]
    assert abs(slope[:, X].mean() - 1) < 0.06 and abs(slope[:, Y].mean()) < 0.06
    values = scene(shape=3, x=0.47, y=0.53).requires_grad_()
    (slope,) = torch.autograd.grad(Scenes(64).render(values).sum(), values)
    assert torch.isfinite(slope).all() and (slope[0, [X, Y, SCALE, HORIZON, LIGHT]] != 0).all()


# ---- laws


@pytest.mark.parametrize("rho", [0.0, 0.7, 1.0])
def test_tied_factors_correlate_by_rho_and_stay_uniform(rho):
    values = drawn(20_000, Tied("y", "horizon", rho))
    found = torch.corrcoef(values.T)
    wanted = torch.eye(9)
    wanted[Y, HORIZON] = wanted[HORIZON, Y] = rho
    assert (found - wanted).abs().max() < 0.03
    for k, name in enumerate(SPACE.names):
        f, column = SPACE[name], values[:, k]
        if f.kind == "category":
            assert (torch.bincount(column.long()) / 20_000 * len(f) - 1).abs().max() < 0.15
        else:
            place = (column - f.low) / (f.high - f.low)
            assert place.min() >= 0 and place.max() <= 1 + 1e-6
            assert abs(place.mean() - 0.5) < 0.01 and abs(place.std() - 12**-0.5) < 0.01
    same = ((values[:, Y] - 0.25) / 0.5 - (values[:, HORIZON] - 0.35) / 0.4).abs() < 1e-5
    assert abs(same.float().mean() - rho) < 0.02


@pytest.mark.parametrize("fixed", ["y", "horizon", "x"])
def test_tied_factors_stay_tied_when_one_is_held(fixed):
    renderer = Scenes(32, Tied("y", "horizon", 0.7))
    values = renderer.sample_fixed(SPACE.index(fixed), 3, generator(), groups=1500)["factors"]
    held = values[:, SPACE.index(fixed)].view(-1, 3)
    assert torch.equal(held, held[:, :1].expand(-1, 3)) and held[:, 0].std() > 0.1
    assert float(torch.corrcoef(values[:, [Y, HORIZON]].T)[0, 1]) == pytest.approx(0.7, abs=0.05)


def test_a_rule_can_hold_tuples_out_of_tied_factors():
    law = HeldOut(Tied("y", "horizon", 0.5), lambda values: values[:, Y] > 0.5)
    assert Scenes(32, law).sample(50, generator())["factors"][:, Y].max() <= 0.5


def test_bad_laws():
    for strength in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="strength must lie in 0 ... 1"):
            Tied("y", "horizon", strength)
    with pytest.raises(ValueError, match="'shape' is a category: only real and cyclic factors can be tied"):
        drawn(2, Tied("shape", "y", 0.5))
    with pytest.raises(ValueError, match="no factor 'hight'"):
        drawn(2, Tied("y", "hight", 0.5))


# ---- as data and as model


def test_as_data_and_as_model():
    renderer = data.load("scenes", size=32)
    assert isinstance(renderer, Scenes) and renderer.name == "scenes" and renderer.image_shape == (3, 32, 32)
    assert renderer.law == Real() and data.load("scenes", rho=0.7).law == Tied("y", "horizon", 0.7)
    assert SPACE.names == tuple(PLAIN)
    batch = renderer.sample(20, generator(3))
    assert torch.equal(batch["x"], renderer.sample(20, generator(3))["x"])
    assert not torch.equal(batch["x"], renderer.sample(20, generator(4))["x"])
    assert torch.equal(SPACE.check(batch["factors"]), batch["factors"])
    assert torch.allclose(renderer.decode(renderer.code_of(batch["factors"])), batch["x"], atol=1e-5)


def test_fingerprints_are_stable_and_tell_what_is_drawn():
    """The text itself is pinned: pictures that a trained model has seen must still be known as the same."""
    renderer = Scenes(64)
    before = renderer.fingerprint()
    assert before.startswith("scenes (3, 64, 64)") and before.endswith("7c4e40b4ac598c5b")
    assert data.load("scenes", rho=0.7).fingerprint().endswith("50ab8c847f4e4267")
    others = [Scenes(32), Scenes(64), Scenes(64, Grid()), Scenes(64, Tied("y", "horizon", 0.7))]
    others += [Scenes(64, Tied("x", "horizon", 0.7)), Scenes(64, Tied("y", "horizon", 0.6))]
    assert len({d.fingerprint() for d in others}) == len(others)
    renderer.sample(3, generator())
    assert renderer.fingerprint() == before == renderer.to("cpu").fingerprint()


def test_what_is_measured_by_the_fingerprint_changes_it(monkeypatch):
    before = Scenes().fingerprint()
    monkeypatch.setattr(scenes, "GRAIN", 0.2)
    assert Scenes().fingerprint() != before


def test_values_out_of_range():
    far = Scenes(32).render(scene(x=-3, y=9, scale=2, horizon=0, light=7, grain=99, shape=5, background=-2))
    end = scene(x=0.25, y=0.75, scale=0.36, horizon=0.35, light=1, grain=31, shape=3, background=0)
    assert torch.equal(far, Scenes(32).render(end))
    for name, value in dict(shape=1.5, x=0.2, y=0.8, scale=0.4, hue=0.97, horizon=0.8, light=0.5, grain=32).items():
        with pytest.raises(ValueError, match=name):
            SPACE.check(scene(**{name: value}))
    for draw in (Scenes().render, Scenes().mask):
        with pytest.raises(ValueError, match=r"factors must be \(n, 9\) for shape, .*, not \(2, 5\)"):
            draw(torch.zeros(2, 5))


def test_bad_input():
    for size in (48, 16, 0, -64, 64.0, "64", None, True):
        with pytest.raises(UserError, match=f"64, 32 and 128 pixels, not {size!r}"):
            data.load("scenes", size=size)
    for rho in (-0.1, 1.2, float("nan"), "much", None, True):
        with pytest.raises(UserError, match=f"rho must be a number in 0 ... 1, not {rho!r}"):
            data.load("scenes", rho=rho)


def test_the_row_in_the_list_says_what_is_loaded():
    row = next(row for row in data.describe() if row["name"] == "scenes")
    assert row["factors"] == ", ".join(f"{f.name} {len(f)}" for f in SPACE)
    assert row["images"] == f"{SPACE.grid_size:,}"
    assert list(inspect.signature(scenes.load).parameters) == ["size", "rho"]
