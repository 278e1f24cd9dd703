"""3D Shapes: the drawn pictures are the real ones, and each factor does its own."""

import numpy as np
import pytest
import shapes3d_real
import torch
from shapes3d_real import region
from torch.utils._python_dispatch import TorchDispatchMode

from disentkit import data
from disentkit.data import raycast, shapes3d
from disentkit.data.laws import Grid, Real
from disentkit.data.shapes3d import SPACE, Shapes3D
from disentkit.errors import UserError

FLOOR, WALL, OBJECT = 0, 1, 2
CUBE, CYLINDER, SPHERE, CAPSULE = range(4)
LEVEL = 1 / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n, law=None, seed=0):
    return (law or Real()).draw(SPACE, n, generator(seed))


def one(shape, scale=1.0, turn=0.0, hues=(0.0, 0.3, 0.6)):
    return torch.tensor([[*hues, scale, shape, turn]])


def box_of(mask):
    """First and last row and column (top, bottom, left, right) of a mask (h, w)."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return [int(v) for v in (rows[0], rows[-1], columns[0], columns[-1])]


# ---- the real pictures


@pytest.fixture(scope="session")
def real(real_data):
    """(images (50, 3, 64, 64), values (50, 6))."""
    return shapes3d_real.pictures(real_data)


def test_real_pictures_are_drawn_to_a_grey_level_or_two_in_every_region(real):
    away = shapes3d_real.away(*real)
    masks = shapes3d_real.regions(real[1])
    found = {name: float(away[mask].mean()) for name, mask in masks.items()}
    colours = {name: float(shapes3d_real.colours_away(*real, mask).mean()) for name, mask in masks.items()}
    each = away[:, :, shapes3d_real.INNER].mean((1, 2))
    found |= {"all": float(each.mean()), "worst picture": float(each.max())}
    limits = {"floor": 1.1, "walls": 0.9, "object": 1.6, "sky": 0.1, "all": 0.75, "worst picture": 1.2}
    assert all(found[name] < limit for name, limit in limits.items()), found
    limits = {"floor": 0.35, "walls": 0.25, "object": 0.65, "sky": 0.05}
    assert all(colours[name] < limit for name, limit in limits.items()), colours


def test_real_outlines_are_the_drawn_ones(real):
    overlap = shapes3d_real.outlines(*real)
    assert overlap.mean() > 0.98 and overlap.min() > 0.94, overlap


def test_no_other_measure_of_the_scene_fits_as_well(real):
    best = shapes3d_real.away(*real)[:, :, shapes3d_real.INNER].mean()
    for name, values in shapes3d_real.moved(0.02).items():
        for value in values:
            with shapes3d_real.changed(name.split()[0], value):
                assert shapes3d_real.away(*real)[:, :, shapes3d_real.INNER].mean() > best + 0.05, (name, value)


def test_no_neighbouring_scale_or_orientation_fits_a_real_picture_as_well(real):
    images, values = real
    index, renderer = SPACE.to_grid(values), Shapes3D()

    def away(index):
        return (renderer.render(SPACE.from_grid(index)) - images)[:, :, :, 1:63].abs().mean((1, 2, 3))

    best = away(index)
    for factor in ("scale", "orientation"):
        k = SPACE.index(factor)
        for step in (-1, 1):
            other = index.clone()
            other[:, k] = (index[:, k] + step).clamp(0, SPACE.sizes[k] - 1)
            moved = other[:, k] != index[:, k]
            assert (away(other) > best)[moved].all(), (factor, step)


def test_the_means_of_the_whole_set_are_the_published_ones():
    hues = torch.cartesian_prod(*[torch.arange(10)] * 3)  # every combination once, the rest at random
    index = torch.cat([hues, SPACE.to_grid(drawn(1000, Grid()))[:, 3:]], dim=1)
    means = Shapes3D(32).render(SPACE.from_grid(index)).mean((0, 2, 3))
    assert (means - torch.tensor([0.50258, 0.57876, 0.60345])).abs().max() < 0.004, means


# ---- drawing


@pytest.mark.parametrize("size", [64, 32])
def test_pictures_are_float_in_0_1_and_of_the_right_shape(size):
    images = Shapes3D(size).render(drawn(40))
    assert images.shape == (40, 3, size, size) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1 and torch.isfinite(images).all()
    sky = torch.tensor(shapes3d.SKY)[:, None, None]
    assert torch.allclose(images[:, :, : size // 64 * 4], sky.expand(3, size // 64 * 4, size))


def test_small_pictures_are_averages_of_large_ones():
    values = drawn(32)
    large = torch.nn.functional.avg_pool2d(Shapes3D().render(values), 2)
    away = (Shapes3D(32).render(values) - large).abs()
    assert away.mean() < 1.5 * LEVEL and (away > 0.1).float().mean() < 0.01


@pytest.mark.parametrize("factor", [FLOOR, WALL, OBJECT])
def test_a_hue_changes_its_own_surface_alone(factor):
    values = drawn(16, Grid(), seed=factor)
    values[:, :3] = torch.tensor([0.1, 0.4, 0.7])
    other = values.clone()
    other[:, factor] += 0.2
    before, after = Shapes3D().render(values), Shapes3D().render(other)
    changed = (before - after).abs().amax(1) > LEVEL  # (16, 64, 64)
    foreign = torch.stack([region(values, k) for k in range(3) if k != factor]).any(0) & ~region(values, factor)
    # What changes in another surface lies along its edge: within the filter's reach of three pixels.
    near = torch.nn.functional.max_pool2d(region(values, factor).float()[:, None], 7, 1, 3)[:, 0] > 0
    assert changed.flatten(1).sum(1).min() > 50
    assert not (changed & ~near).any()
    assert (changed & foreign).sum() < 0.35 * changed.sum()
    pure = shapes3d._Tables(64, "cpu").rgb(torch.tensor([0.0, 1 / 3, 2 / 3, 1 / 6, 1.0]))[:, :, 0, 0]
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0]]
    assert torch.allclose(pure, torch.tensor(expected).float(), atol=1e-6)


def test_hues_go_around():
    low, high = one(CUBE, hues=(0.0, 0.0, 0.0)), one(CUBE, hues=(1.0, 1.0, 1.0))
    assert torch.allclose(Shapes3D().render(low), Shapes3D().render(high), atol=1e-5)
    red = one(CUBE, hues=(0.97, 0.3, 0.6))
    assert (Shapes3D().render(red) - Shapes3D().render(one(CUBE))).abs().mean() < 0.03


@pytest.mark.parametrize("shape", [CUBE, CYLINDER, SPHERE, CAPSULE])
def test_scale_grows_upwards_from_the_floor(shape):
    values = torch.cat([one(shape, scale) for scale in SPACE["scale"].values])
    masks = region(values, OBJECT)
    boxes = [box_of(mask) for mask in masks]
    tops, bottoms, lefts, rights = zip(*boxes, strict=True)
    assert list(tops) == sorted(tops, reverse=True) and tops[0] - tops[-1] >= 8
    assert 0 <= bottoms[-1] - bottoms[0] <= 5, "the near edge of the base comes a little closer"
    assert list(lefts) == sorted(lefts, reverse=True) and list(rights) == sorted(rights)
    assert all(abs(left + right - 63) <= 1 for left, right in zip(lefts, rights, strict=True))
    areas = masks.sum((1, 2)).float()
    assert (areas.diff() > 0).all()
    assert 2.2 < areas[-1] / areas[0] < 4.2, "(1.25 / 0.75)^2 = 2.8 and more, since the front comes closer"


def test_sizes_follow_from_perspective():
    """Half a width w at distance d is seen as w / d in pictures of 2 tan 25 degrees."""
    pixels = 64 / (2 * np.tan(np.radians(25)))
    for scale in (0.75, 1.25):
        top, bottom, left, right = box_of(region(one(CUBE, scale), OBJECT)[0])
        half = 0.35 * scale
        assert abs((right - left + 1) - pixels * 2 * half / (2.5 - half)) < 1.6
        assert abs(bottom + 1 - (32 + pixels * 0.75 / (2.5 - half))) < 1.3
        top, bottom, left, right = box_of(region(one(SPHERE, scale), OBJECT)[0])
        radius = 0.425 * scale
        assert abs((right - left + 1) - pixels * 2 * radius / np.sqrt(2.5**2 - radius**2)) < 1.6
        mask = region(one(CAPSULE, scale), OBJECT)[0]
        top, bottom, left, right = box_of(mask)
        assert (bottom - top) > 1.8 * (right - left)


def test_orientation_moves_the_corner_from_right_to_left():
    """At -30 degrees the room's corner is seen on the right and a cube shows its left face, at 30 the other way."""
    low, middle, high = Shapes3D().render(torch.cat([one(CUBE, 1.0, turn) for turn in (-30.0, 0.0, 30.0)]))
    wall = [picture[1, 28].diff() for picture in (low, middle, high)]  # of the green wall, above the cube
    assert int(wall[0].argmin()) in range(42, 47) and wall[0].min() < -0.15, "bright, then dark"
    assert int(wall[2].argmax()) in range(17, 22) and wall[2].max() > 0.1, "dark, then bright"
    assert wall[1][2:61].abs().max() < 0.05, "one wall only"
    left, none, right = (box_of(region(one(CUBE, 1.0, turn), OBJECT)[0]) for turn in (-30.0, 0.0, 30.0))
    widths = [last - first for _, _, first, last in (left, none, right)]
    assert min(widths[0], widths[2]) > widths[1] + 1, "two faces are wider than one"
    # The lamp is on the left, so of the two faces that appear the left one is bright with gloss and the right one dark.
    assert low[0, 46, left[2] + 3] > 0.1 and high[2, 46, right[3] - 3] < 0.8 < high[2, 46, right[2] + 4]
    balls = region(torch.cat([one(SPHERE, 1.0, turn) for turn in (-30.0, 30.0)]), OBJECT)
    assert (balls[0] ^ balls[1]).sum() <= 4, "a ball keeps its outline"


def test_every_surface_is_lit_from_the_left():
    picture = Shapes3D().render(one(SPHERE, 1.25, 0.0, hues=(0.3, 0.3, 0.3)))[0]
    assert picture[0, 30, 20:26].mean() > picture[0, 30, 38:44].mean(), "the sphere"
    ground = picture[0, 62]
    assert ground[2:12].mean() > ground[52:62].mean(), "the floor"
    dark = (Shapes3D().render(one(SPHERE, 1.0))[0, 0] < 0.5)[50:58]  # red floor: the shadow
    columns = dark.any(0).nonzero()[:, 0]
    assert columns.float().mean() > 33, "the shadow lies to the right"


def test_the_object_is_seen_where_sampled_rays_meet_it():
    """The closed form of its edges, column by column, against the solid that also throws the shadow, ray by ray."""
    law = torch.cat([drawn(60), *(one(shape, scale, 30.0) for shape in range(4) for scale in (0.75, 1.25))])
    tables = shapes3d._Tables(64, "cpu")
    view, solid = shapes3d._View(law[:, 5], tables), shapes3d._Solid.of(law[:, 3], law[:, 4], tables)
    rays = view.samples(shapes3d.OBJECT)
    sides = solid.sides(rays)
    bottom, brim, top = solid.edges(rays, sides)
    slope = rays.direction[2]
    assert ((solid.gap(rays, sides) > 0) != ((slope > bottom) & (slope < top))).float().mean() < 1e-5
    enter, lid = raycast.both(*sides)[0], solid.floor_and_lid(rays)[0]
    seen = solid.flat & (solid.gap(rays, sides) > 0)
    assert ((lid > enter) != (slope > brim))[seen].float().mean() < 1e-5
    assert (brim == top)[~solid.flat.expand_as(top)].all()


def test_windows_cut_nothing_off(monkeypatch):
    values = torch.cat([one(shape, 1.25, turn) for shape in range(4) for turn in (-30.0, -13.0, 0.0, 21.0, 30.0)])
    narrow = [Shapes3D(size).render(values) for size in (64, 32)]
    whole = (0, 64, 0, 64)
    monkeypatch.setattr(shapes3d, "OBJECT", whole)
    monkeypatch.setattr(shapes3d, "SHADOW", shapes3d.GROUND)
    monkeypatch.setattr(shapes3d, "WALLS", whole)
    for size, before in zip((64, 32), narrow, strict=True):
        assert torch.allclose(Shapes3D(size).render(values), before, atol=1e-5)


def test_drawing_is_pure_and_each_picture_stands_alone():
    values = drawn(40)
    before, state = values.clone(), torch.random.get_rng_state()
    renderer = Shapes3D()
    first, second = renderer.render(values), Shapes3D().render(values)
    assert torch.equal(first, second) and torch.equal(values, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    for k in (0, 15, 16, 39):
        assert torch.allclose(renderer.render(values[k : k + 1])[0], first[k], atol=1e-5)
    order = torch.randperm(40, generator=generator())
    assert torch.allclose(renderer.render(values[order]), first[order], atol=1e-5)
    assert renderer.render(values[:0]).shape == (0, 3, 64, 64)


@pytest.mark.parametrize("factor", SPACE.names)
def test_values_between_grid_points_change_the_picture(factor):
    k, grid = SPACE.index(factor), SPACE[factor].values
    if SPACE[factor].kind == "category":
        pictures = Shapes3D().render(torch.cat([one(shape) for shape in range(4)]))
        assert (pictures[1:] - pictures[:-1]).abs().mean((1, 2, 3)).min() > 2 * LEVEL
        return
    values = one(CUBE, 1.0, 7.0).repeat(3, 1)
    low, high = grid[3], grid[4]
    values[:, k] = torch.tensor([low, (low + high) / 2, high])
    a, middle, b = Shapes3D().render(values)
    whole = (a - b).abs().mean()
    for end in (a, b):
        assert 0.2 * whole < (middle - end).abs().mean() < 0.9 * whole


def test_values_out_of_range():
    far = Shapes3D().render(torch.tensor([[0.1, 0.2, 0.3, 9.0, 7.0, -90.0]]))
    assert torch.equal(far, Shapes3D().render(torch.tensor([[0.1, 0.2, 0.3, 1.25, 3.0, -30.0]])))
    for values, message in {
        (0, 0, 0, 2.0, 0, 0): "scale",
        (0, 0, 0, 1.0, 1.5, 0): "shape",
        (0, 0, 0, 1.0, 4, 0): "shape",
        (0, 0, 0, 1.0, 0, 31): "orientation",
        (0.95, 0, 0, 1.0, 0, 0): "floor_hue",
        (0, 0, 0, float("nan"), 0, 0): "scale",
    }.items():
        with pytest.raises(ValueError, match=message):
            SPACE.check([values])
    with pytest.raises(ValueError, match=r"factors must be \(n, 6\) for floor_hue, .*, not \(2, 5\)"):
        Shapes3D().render(torch.zeros(2, 5))


def test_no_direction_is_special():
    """A ray that runs just along a wall or face must not leave holes: turns at which a sample's x or y is zero."""
    places = shapes3d._Tables(32, "cpu").raster.ahead(shapes3d.WALLS, 96)[0]
    values = one(CUBE).repeat(96, 1)
    values[:, 5] = torch.rad2deg(torch.atan(places))
    images, nudged = (Shapes3D(32).render(values + torch.tensor([0, 0, 0, 0, 0, by])) for by in (0, 1e-4))
    assert torch.isfinite(images).all()
    assert (images - nudged).abs().mean((1, 2, 3)).max() < 2 * LEVEL


class NoHostReads(TorchDispatchMode):
    """Raises where a tensor's value, or a shape that depends on one, is read back, as `.item()` and masks do."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "aten.equal.")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = "aten.index" in str(func) and any(
            i is not None and i.dtype == torch.bool for i in (args[1] if isinstance(args[1], (list, tuple)) else ())
        )
        if masked or any(word in str(func) for word in self.READS):
            raise AssertionError(f"{func} reads back to the host")
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back_to_the_host():
    with NoHostReads():
        batch = Shapes3D().sample(2, generator())
    assert batch["x"].shape == (2, 3, 64, 64)
    with NoHostReads(), pytest.raises(AssertionError, match="host"):
        bool(batch["x"].max() > 0)


def test_pictures_are_drawn_on_the_device_of_the_values():
    renderer = Shapes3D(32)
    images = renderer.render(torch.empty(2, 6, device="meta"))
    assert images.shape == (2, 3, 32, 32) and images.device.type == "meta"
    assert renderer.render(drawn(2)).device.type == "cpu", "after another device"


def test_as_data_and_as_model():
    renderer = data.load("shapes3d", size=32)
    assert isinstance(renderer, Shapes3D) and renderer.name == "shapes3d" and renderer.image_shape == (3, 32, 32)
    assert renderer.space.sizes == (10, 10, 10, 8, 4, 15) and renderer.space.grid_size == 480_000
    assert SPACE["scale"].low == 0.75 and SPACE["scale"].high == 1.25
    assert (SPACE["orientation"].low, SPACE["orientation"].values[7], SPACE["orientation"].high) == (-30, 0, 30)
    batch = renderer.sample(20, generator(3))
    assert torch.equal(batch["x"], renderer.sample(20, generator(3))["x"])
    assert not torch.equal(batch["x"], renderer.sample(20, generator(4))["x"])
    assert torch.equal(renderer.decode(renderer.code_of(batch["factors"])), batch["x"])
    assert renderer.with_law(Real()).fingerprint() != renderer.fingerprint() != Shapes3D(64).fingerprint()
    assert torch.equal(SPACE.from_grid(SPACE.to_grid(batch["factors"])), batch["factors"])


def test_wrong_size():
    for size in (48, 128, 0, -32, 64.0, "64", None, True):
        for options in ({}, {"source": "nowhere.h5"}):
            with pytest.raises(UserError, match=f"64 and 32 pixels, not {size!r}"):
                data.load("shapes3d", size=size, **options)


def test_the_row_in_the_list_says_what_is_loaded():
    row = next(row for row in data.describe() if row["name"] == "shapes3d")
    assert row["factors"] == ", ".join(f"{f.name} {len(f)}" for f in SPACE)
    assert row["images"] == f"{SPACE.grid_size:,}"
