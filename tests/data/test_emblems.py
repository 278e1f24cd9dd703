"""Emblems: boxes and masks are the object's, poses are unambiguous, and the law plants the tree that it names."""

import inspect
import math
import pickle
from dataclasses import FrozenInstanceError

import pytest
import torch
import torch.nn.functional as F
from data.host_reads import NoHostReads

from disentkit import data
from disentkit.data import emblem_parts as parts
from disentkit.data import emblems
from disentkit.data.emblems import BACKGROUNDS, FEW_SPACE, SIZES, SPACE, Emblems, Tree
from disentkit.data.laws import Grid, HeldOut, Real
from disentkit.errors import UserError

GROUND, SHAPE, TEXTURE, ROTATION, ASPECT, X, Y, SCALE, PHASE, PITCH, TINT = range(11)
PLAIN = dict(background=0, shape=0, texture=0, rotation=0, aspect=1, x=0.5, y=0.5, scale=0.7, phase=0, pitch=1, tint=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n, law=None, seed=0, space=SPACE):
    return (law or Real()).draw(space, n, generator(seed))


def emblem(**changes):
    """One tuple (1, 11): the plain emblem with changes."""
    return torch.tensor([[float(v) for v in (PLAIN | changes).values()]])


def each(**changes):
    """Tuples (n, 11): the plain emblem with one factor, or more, taking each value of a list."""
    return torch.cat([emblem(**dict(zip(changes, row, strict=True))) for row in zip(*changes.values(), strict=True)])


def extent(masks):
    """The outermost places (n, 4) where masks (n, 1, h, w) reach one half, in pixels, between pixels' centres."""
    ends = []
    for profile in (masks[:, 0].amax(1), masks[:, 0].amax(2)):
        for line in (profile, profile.flip(1)):
            at = (line >= 0.5).float().argmax(1, keepdim=True)
            inside, outside = line.gather(1, at), F.pad(line, (1, 0)).gather(1, at)
            end = at + 0.5 - ((inside - 0.5) / (inside - outside).clamp(min=1e-6)).clamp(0, 1)
            ends.append(end[:, 0] if line is profile else line.shape[1] - end[:, 0])
    return torch.stack(ends, 1)[:, [0, 2, 1, 3]]


# ---- the object is where and as large as its factors say


@pytest.mark.parametrize("size", SIZES)
def test_the_box_is_that_of_the_mask(size):
    """Its middle is (x, y) and its larger side scale, at all poses; a narrow tip ends a little before its outline."""
    values = drawn(200, seed=size)
    found = extent(Emblems(size).mask(values)) / size
    middle, sides = (found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]
    assert (middle - values[:, [X, Y]]).abs().max() < 0.7 / size
    away = (sides.amax(1) - values[:, SCALE]) * size
    assert away.abs().max() < 1.2 and away.abs().mean() < 0.5


@pytest.mark.parametrize("size", SIZES)
def test_the_object_is_whole_at_the_ends_of_all_factors(size):
    ends = [
        dict(shape=s, rotation=r, aspect=a, x=x, y=y, scale=0.8)
        for s in range(5) for r in (-60, 0, 60) for a in (0.8, 1.25) for x in (0.44, 0.56) for y in (0.44, 0.56)
    ]  # fmt: skip
    mask = Emblems(size).mask(torch.cat([emblem(**e) for e in ends]))[:, 0]
    border = torch.cat([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], 1)
    assert border.max() == 0 and mask.amax((1, 2)).min() == 1


@pytest.mark.parametrize("shape", range(5))
def test_outlines_are_distances_to_the_polygon(shape):
    """Compared with a thousand points on its sides; inside is where the outline turns once around."""
    corners = torch.tensor(list(parts.outlines().values())[shape], dtype=torch.float64)
    ends = corners.roll(-1, 0)
    along = torch.arange(40, dtype=torch.float64)[:, None, None] / 40
    outline = (corners + along * (ends - corners)).flatten(0, 1)
    place = torch.linspace(-parts.REACH, parts.REACH, parts.OUTLINE + 1, dtype=torch.float64)[::9]
    points = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1).view(-1, 1, 2)
    away = torch.cdist(points[:, 0], outline).amin(1)
    a, b = corners - points, ends - points
    turns = torch.atan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1)).sum(1) / (2 * math.pi)
    wanted = torch.where(turns.abs() > 0.5, -away, away) - parts.ROUND
    found = parts.distances()[shape, ::9, ::9].flatten()
    assert (found - wanted).abs().max() < 0.012 and found.min() < -0.1 and (found < 0).float().mean() > 0.05


def test_rotation_turns_the_object_clockwise_and_takes_its_filling_along():
    renderer, angle = Emblems(128), math.radians(25)
    around = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    place = (torch.arange(128) + 0.5) / 128
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1)
    for shape in range(5):
        values = each(shape=[shape] * 2, rotation=[0, 25], texture=[3] * 2)
        tables = renderer._pieces(values, 128)[0]
        unit = torch.linalg.det(emblems._pose(values, tables)[0]).sqrt()
        values[:, SCALE] = 0.8 * unit.min() / unit  # both as large, whatever their boxes are
        assert values[:, SCALE].min() > 0.62
        origin = values[:, [X, Y]] - emblems._pose(values, tables)[1]
        there = (grid - origin[0]) @ around.T + origin[1]
        mask = renderer.mask(values)
        for images in (mask, renderer.render(values) * mask):
            again = F.grid_sample(images[1:], 2 * there[None] - 1, align_corners=False)
            assert (again - images[:1]).abs().mean() < 0.006


def test_no_shape_looks_like_itself_when_turned_nor_like_another():
    tables = parts.distances()
    place = torch.linspace(-parts.REACH, parts.REACH, parts.OUTLINE + 1)
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1) / parts.REACH

    def turned(table, degrees):
        angle = math.radians(degrees)
        back = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return F.grid_sample(table[None, None], (grid @ back)[None], "bilinear", "border", align_corners=True)[0, 0] < 0

    def overlap(a, b):
        return float((a & b).sum() / (a | b).sum())

    for i, table in enumerate(tables):
        assert overlap(turned(table, 0), turned(table, 5)) > 0.8
        for degrees in range(45, 316, 15):
            assert overlap(turned(table, 0), turned(table, degrees)) < 0.8
        for other in tables[:i]:
            assert max(overlap(turned(table, 0), turned(other, d)) for d in range(0, 360, 15)) < 0.75


def test_aspect_stretches_at_equal_area():
    wide, tall = each(aspect=[1.25, 0.8], shape=[1] * 2)[:, None]
    renderer = Emblems(128)
    sides = []
    for values in (wide, tall):
        box = extent(renderer.mask(values))[0]
        sides.append(float((box[2] - box[0]) / (box[3] - box[1])))
    assert sides[0] / sides[1] == pytest.approx(1.25**2, rel=0.03)
    tables = renderer._pieces(wide, 128)[0]
    for values in (wide, tall):
        unit = torch.linalg.det(emblems._pose(values, tables)[0]).sqrt()
        area = renderer.mask(values).sum() / 128**2 / unit**2
        assert float(area) == pytest.approx(0.372, rel=0.02)


# ---- each factor does its own


@pytest.mark.parametrize("size", [64, 32])
def test_ground_and_object_know_nothing_of_each_other(size):
    renderer = Emblems(size)
    values, others = drawn(60, seed=1), drawn(60, seed=2)
    others[:, [GROUND, PHASE, PITCH, TINT]] = values[:, [GROUND, PHASE, PITCH, TINT]]
    free = ((renderer.mask(values) == 0) & (renderer.mask(others) == 0)).expand(-1, 3, -1, -1)
    assert free.float().mean() > 0.5
    assert torch.equal(renderer.render(values)[free], renderer.render(others)[free])
    others = drawn(60, seed=2)
    others[:, SHAPE : SCALE + 1] = values[:, SHAPE : SCALE + 1]
    inside = (renderer.mask(values) == 1).expand(-1, 3, -1, -1)
    assert inside.float().mean() > 0.1
    assert torch.allclose(renderer.render(values)[inside], renderer.render(others)[inside], atol=1e-6)
    edge = (renderer.mask(values) > 0) & (renderer.mask(values) < 1)
    assert 0.02 < edge.float().mean() < 0.15, "edges are smooth, and thin"


def test_a_textures_colours_are_its_hue_and_its_fill():
    renderer, share = Emblems(128), {}
    masks = renderer.mask(each(texture=range(20), scale=[0.8] * 20))
    pictures = renderer.render(each(texture=range(20), scale=[0.8] * 20))
    hues = parts.pure(torch.tensor(list(parts.HUES.values())))
    for t, (hue, fill) in enumerate(emblems.TEXTURES):
        deep = F.max_pool2d(1 - masks[t], 9, 1, 4)[0] < 0.01  # beyond the rim
        colours = pictures[t][:, deep].T
        strong, pale = hues[hue], hues[hue].lerp(torch.ones(3), emblems.PALE)
        place = ((colours - strong) @ (pale - strong)) / (pale - strong).square().sum()
        assert torch.allclose(strong + place[:, None] * (pale - strong), colours, atol=1e-4)
        share.setdefault(parts.FILLS[fill], []).append(float(place.mean()))
    assert max(share["plain"]) < 1e-4
    for fill in parts.FILLS[1:]:
        assert 0.15 < min(share[fill]) and max(share[fill]) < 0.7
    rim = renderer.render(emblem())[0].amin(0)[(renderer.mask(emblem())[0, 0] > 0.9)]
    assert rim.min() < 0.1, "a dark rim"


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_patterns_go_around_with_phase_and_repeat(name):
    renderer, k = Emblems(64), BACKGROUNDS.index(name)
    ground = [renderer.render(emblem(background=k, phase=p, scale=0.62)) for p in (0, 1, 0.23, -0.77)]
    assert torch.allclose(ground[0], ground[1], atol=1e-4) and torch.allclose(ground[2], ground[3], atol=1e-4)
    assert (ground[0] - ground[2]).abs().mean() > 0.02
    table, _ = (t[k] for t in parts.patterns())
    assert torch.equal(table[0], table[-1]) and torch.equal(table[:, 0], table[:, -1])
    jump = max(float((table - table.roll(1, d))[1:, 1:].abs().max()) for d in (0, 1))
    slope = 2.8 if name in parts.SCALES else 1.1  # but for noise it is a distance, which grows by one per one
    assert jump < slope * max(parts._period(name)) / parts.PATTERN, "no edge of the table shows"


def test_pitch_stretches_the_pattern():
    """A column of stripes: its period is 0.18 of the picture at pitch 1."""
    for pitch in (0.85, 1.0, 1.2):
        row = Emblems(128).render(emblem(background=0, pitch=pitch))[0].mean(0)[:, 2]
        row = row - row.mean()
        away = [float((row[:-k] * row[k:]).mean()) for k in range(14, 34)]
        assert 14 + max(range(20), key=away.__getitem__) == pytest.approx(0.18 * pitch * 128, abs=1)


@pytest.mark.parametrize(("size", "field"), [(32, 9), (64, 16)])
def test_every_patch_of_the_wider_view_shows_the_pattern(size, field):
    """Both colours of its background are in it, wherever it lies."""
    values = each(background=[k // 6 for k in range(60)], phase=[k / 6 for k in range(60)], pitch=[1.2] * 60)
    renderer = Emblems(size)
    ground, _ = renderer.window(values, torch.full((60, 2), 5.0), renderer.side)  # no object there
    grey = ground.mean(1, keepdim=True)
    contrast = F.max_pool2d(grey, field, 1) + F.max_pool2d(-grey, field, 1)
    clouds = values[:, GROUND] == BACKGROUNDS.index("clouds")
    assert contrast[~clouds].amin() > 0.07 and contrast[clouds].mean() > 0.1


def test_tint_turns_the_hue_a_little_and_leaves_the_grey():
    plain, left, right = Emblems(64).render(each(tint=[0, -1, 1], background=[1] * 3))[:, :, :8]
    assert torch.allclose(plain.mean(0), left.mean(0), atol=1e-5)
    for turned in (left, right):
        assert 0.01 < (turned - plain).abs().mean() < 0.06


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_float_in_0_1(size):
    values = each(background=[k % 10 for k in range(60)], texture=[k % 20 for k in range(60)], tint=[-1, 0, 1] * 20)
    pictures = Emblems(size).render(values)
    assert pictures.shape == (60, 3, size, size) and pictures.dtype == torch.float32
    assert pictures.min() >= 0 and pictures.max() <= 1 and pictures.isfinite().all()


def test_small_pictures_show_what_large_ones_do():
    values = drawn(40)
    for small, large in ((32, 64), (64, 128)):
        a, b = Emblems(small), Emblems(large)
        assert (a.mask(values) - F.avg_pool2d(b.mask(values), 2)).abs().max() < 0.35
        away = (a.render(values) - F.avg_pool2d(b.render(values), 2)).abs().mean((1, 2, 3))
        assert away.max() < 0.04


# ---- drawing


def test_drawing_is_pure_and_each_picture_stands_alone():
    values, renderer = drawn(40), Emblems()
    before, state = values.clone(), torch.random.get_rng_state()
    first, second = renderer.render(values), Emblems().render(values)
    assert torch.equal(first, second) and torch.equal(values, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    for k in (0, 15, 16, 39):
        assert torch.allclose(renderer.render(values[k : k + 1])[0], first[k], atol=1e-5)
    assert renderer.render(values[:0]).shape == (0, 3, 64, 64) and renderer.mask(values[:0]).shape == (0, 1, 64, 64)
    assert torch.equal(pickle.loads(pickle.dumps(renderer)).render(values), first)


def test_nothing_is_read_back_to_the_host():
    renderer = Emblems(32)
    renderer.mask(drawn(1))  # constants are made once
    with NoHostReads():
        batch = renderer.sample(2, generator())
        fixed = renderer.sample_fixed(GROUND, 2, generator(), groups=3)
        renderer.mask(batch["factors"])
        renderer.view(batch["factors"], generator())
    assert batch["x"].shape == (2, 3, 32, 32) and fixed["x"].shape == (6, 3, 32, 32)
    with NoHostReads(), pytest.raises(AssertionError, match="host"):
        bool(batch["x"].max() > 0)


def test_pictures_are_drawn_on_the_device_of_the_values():
    renderer = Emblems(32)
    images = renderer.render(torch.empty(2, 11, device="meta"))
    assert images.shape == (2, 3, 32, 32) and images.device.type == "meta"
    assert renderer.render(drawn(2)).device.type == "cpu", "after another device"


def test_the_picture_can_be_differentiated():
    values = emblem(shape=3, rotation=20, texture=6).requires_grad_()
    (slope,) = torch.autograd.grad(Emblems(64).render(values).square().sum(), values)
    assert torch.isfinite(slope).all()
    assert (slope[0, [ROTATION, ASPECT, X, Y, SCALE, PHASE, PITCH, TINT]] != 0).all()


# ---- as data and as model


def test_as_data_and_as_model():
    renderer = data.load("emblems", size=32)
    assert isinstance(renderer, Emblems) and renderer.name == "emblems" and renderer.image_shape == (3, 32, 32)
    assert renderer.law == Tree(0.75) and data.load("emblems", rho=0, tree=False).law == Tree(0.0, False)
    assert SPACE.names == tuple(PLAIN) and SPACE.sizes[:3] == (10, 5, 20) and FEW_SPACE.sizes[:3] == (4, 4, 8)
    batch = renderer.sample(20, generator(3))
    assert torch.equal(batch["x"], renderer.sample(20, generator(3))["x"])
    assert not torch.equal(batch["x"], renderer.sample(20, generator(4))["x"])
    assert torch.equal(SPACE.check(batch["factors"]), batch["factors"])
    assert torch.allclose(renderer.decode(renderer.code_of(batch["factors"])), batch["x"], atol=1e-5)


def test_few_shows_some_of_the_same():
    """Backgrounds, shapes and textures of the same names look the same."""
    few, many = Emblems(64, few=True), Emblems(64)
    assert few.name == "emblems_few" and FEW_SPACE["shape"].labels == emblems.SHAPES[:4]
    values = drawn(30, space=FEW_SPACE)
    same = values.clone()
    for k in range(3):
        names = SPACE.factors[k].labels
        at = torch.tensor([float(names.index(name)) for name in FEW_SPACE.factors[k].labels])
        same[:, k] = at[values[:, k].long()]
    assert torch.allclose(few.render(values), many.render(same), atol=1e-4)
    assert FEW_SPACE["background"].labels == emblems.FEW


def test_fingerprints_are_stable_and_tell_what_is_drawn():
    """The text itself is pinned: pictures that a trained model has seen must still be known as the same."""
    renderer = Emblems(64)
    before = renderer.fingerprint()
    assert before.startswith("emblems (3, 64, 64)") and before.endswith("18ee39adfb8f3819")
    assert renderer.independent().fingerprint().endswith("8aa047ba3aedd789")
    assert Emblems(32, few=True).independent().fingerprint().endswith("3ffd5d73b50efefc")
    others = [Emblems(32), Emblems(64), Emblems(64, Real()), Emblems(64, Grid()), Emblems(64, Tree(0.5))]
    others += [Emblems(64, Tree(0.75, False)), Emblems(64, few=True)]
    assert len({d.fingerprint() for d in others}) == len(others)
    renderer.sample(3, generator())
    assert renderer.fingerprint() == before == renderer.to("cpu").fingerprint()


def test_what_is_measured_by_the_fingerprint_changes_it(monkeypatch):
    before = Emblems().fingerprint()
    monkeypatch.setattr(emblems, "RIM", 0.03)
    assert Emblems().fingerprint() != before


def test_values_out_of_range():
    far = Emblems(32).render(
        emblem(background=99, shape=-3, rotation=400, aspect=9, x=-3, y=9, scale=2, pitch=0, tint=5)
    )
    end = emblem(background=9, shape=0, rotation=60, aspect=1.25, x=0.44, y=0.56, scale=0.8, pitch=0.85, tint=1)
    assert torch.equal(far, Emblems(32).render(end))
    for name, value in dict(shape=1.5, texture=20, rotation=61, x=0.4, scale=0.5, phase=0.97, tint=2).items():
        with pytest.raises(ValueError, match=name):
            SPACE.check(emblem(**{name: value}))
    for draw in (Emblems().render, Emblems().mask, lambda v: Emblems().view(v, generator())):
        with pytest.raises(ValueError, match=r"factors must be \(n, 11\) for background, .*, not \(2, 5\)"):
            draw(torch.zeros(2, 5))


def test_bad_input():
    for size in (48, 16, 0, -64, 64.0, "64", None, True):
        with pytest.raises(UserError, match=f"64, 32 and 128 pixels, not {size!r}"):
            data.load("emblems", size=size)
    for rho in (-0.1, 1.2, float("nan"), "much", None, True):
        with pytest.raises(UserError, match=f"rho must be a number in 0 ... 1, not {rho!r}"):
            data.load("emblems", rho=rho)
    for word in ("tree", "few"):
        with pytest.raises(UserError, match=f"{word} must be true or false, not 'no'"):
            data.load("emblems", **{word: "no"})
    with pytest.raises(UserError, match="unknown boxes 'exacct'. Did you mean 'exact'"):
        data.load("emblems", boxes="exacct")
    for rho in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="rho must lie in 0 ... 1"):
            Tree(rho)
    with pytest.raises(FrozenInstanceError):
        Tree(0.5).rho = 1
    with pytest.raises(ValueError, match="only be fixed under a held-out rule over the law Grid"):
        Emblems(32, HeldOut(Tree(0.5), lambda values: values[:, Y] > 0.5)).sample_fixed(0, 2, generator())
    with pytest.raises(ValueError, match="no factor 11"):
        Emblems(32).sample_fixed(11, 2, generator())


def test_the_row_in_the_list_says_what_is_loaded():
    row = next(row for row in data.describe() if row["name"] == "emblems")
    assert row["factors"] == ", ".join(f"{f.name} {len(f)}" for f in SPACE)
    assert row["images"] == f"{SPACE.grid_size:,}"
    assert list(inspect.signature(emblems.load).parameters) == ["size", "rho", "tree", "few", "boxes"]
