"""Toys on a turntable: the ground turns with the toy, each factor does its own, and what is kept is what is cast."""

import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from disentkit import data
from disentkit.data import combinations, creature_parts, creatures
from disentkit.data.creature_toys import CREATURES, GROUNDS
from disentkit.data.creatures import EXPRESSIONS, SPACE, SPACE_WITH_EXPRESSION, Creatures
from disentkit.data.laws import Grid
from disentkit.data.raycast import Rays
from disentkit.errors import UserError

IDENTITY, POSE, BACKGROUND, EXPRESSION = range(4)
LEVEL = 1 / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n, space=SPACE, seed=0):
    return Grid().draw(space, n, generator(seed))


def one(identity, pose=0.0, background="road"):
    return torch.tensor([[SPACE["identity"].labels.index(identity), pose, list(GROUNDS).index(background)]])


@pytest.fixture(scope="module")
def every():
    """All pictures at 32 pixels, (10, 8, 10, 5, 3, 32, 32)."""
    space = SPACE_WITH_EXPRESSION
    pictures = Creatures(32, expression=True).render(space.from_grid(space.tuple_of(torch.arange(space.grid_size))))
    return pictures.view(*space.sizes, 3, 32, 32)


def changed(a, b, least=0.1):
    """How many pixels (...,) differ visibly in some channel."""
    return ((a - b).abs().amax(-3) > least).sum((-1, -2))


# ---- the ground turns


def ground_places(size):
    """Where the pixels' middles fall on the ground (size, size, 2), and which do so within three units of the toy.

    Worked out by hand, with the camera's own measures alone.
    """
    pixel = ((torch.arange(size) + 0.5) / size - 0.5) / creatures.FOCAL
    right, up = pixel.expand(size, size), -pixel[:, None].expand(size, size)
    sink = math.sin(creatures.DOWN) - math.cos(creatures.DOWN) * up  # per unit of depth
    depth = creatures.EYE[2] / sink
    ahead = depth * (math.cos(creatures.DOWN) + math.sin(creatures.DOWN) * up)
    places = torch.stack([depth * right, creatures.EYE[1] + ahead], dim=-1)
    return places, (sink > 0) & (places.norm(dim=-1) < 2.2)


def seen_at(places):
    """Positions (..., 2) in -1 ... 1 across the picture at which places (..., 2) of the ground are seen."""
    x, y, z = places[..., 0], places[..., 1] - creatures.EYE[1], -creatures.EYE[2]
    cos, sin = math.cos(creatures.DOWN), math.sin(creatures.DOWN)
    depth = cos * y - sin * z
    return torch.stack([x / depth, -(sin * y + cos * z) / depth], dim=-1) * (2 * creatures.FOCAL)


def turned(places, degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.stack([cos * places[..., 0] - sin * places[..., 1], sin * places[..., 0] + cos * places[..., 1]], -1)


@pytest.mark.parametrize("background", GROUNDS)
def test_the_ground_at_a_pose_is_that_of_pose_0_turned_with_the_toy(background):
    """Each ground pixel of a turned picture is looked up where its place was seen before the turn."""
    renderer, poses = Creatures(64), (0.0, 1.0, 3.5, 6.0)
    values = torch.cat([one("chick", pose, background) for pose in poses])
    free = (renderer.mask(values) == 0).float()
    pictures = renderer.cast(values) * free / renderer.shade(values)  # grounds without toy and shadow
    places, near = ground_places(64)
    for pose, picture, open_ in zip(poses[1:], pictures[1:], free[1:], strict=True):

        def away(degrees):
            back = seen_at(turned(places, -degrees))
            both = torch.cat([pictures[0], free[0]])[None]
            before = F.grid_sample(both, back[None], align_corners=False, padding_mode="zeros")[0]
            ok = near & (open_[0] == 1) & (before[3] == 1)
            assert ok.sum() > 150, "too little of the ground is seen in both"
            return (before[:3] - picture).abs().mean(0)[ok].mean()

        right = away(45 * pose)
        assert right < 0.05, (background, pose, right)
        for wrong in (0, -45 * pose, 45 * pose + 30, 45 * pose + 180):
            assert away(wrong) > 1.5 * right + 0.005, (background, pose, wrong, right)


def test_the_toy_turns_the_same_way_as_its_ground():
    """A toy looks along -y: at 90 degrees to the right, where its ground's -y is seen as well."""
    assert torch.allclose(turned(torch.tensor([0.0, -1.0]), 90), torch.tensor([1.0, 0.0]), atol=1e-6)
    renderer = Creatures(64)
    right, left = (renderer.cast(one("penguin", pose, "beach"))[0] for pose in (2.0, 6.0))
    for picture, side in ((right, 1), (left, -1)):
        beak = (picture[0] - picture[2] > 0.3) & (picture[1] < 0.75 * picture[0])  # orange, lit or not
        columns = (beak & (torch.arange(64) < 32)[:, None]).nonzero()[:, 1].float()  # in the upper half
        assert len(columns) > 2 and side * (columns.mean() - 31.5) > 4
    far, close = slice(25, 34), slice(56, 64)  # rows; the water, at +x, has gone behind, then before
    for picture, wet, dry in ((right, far, close), (left, close, far)):
        blue = (picture[2] - picture[0])[:, :8]
        assert blue[wet].mean() > 0.2 and blue[dry].mean() < -0.1


def test_backdrop_and_camera_stand_still(every):
    sky = every[0, :, :, 0, :, 0]  # (poses, backgrounds, 3, columns): the top row
    assert torch.equal(sky, sky[:1].expand_as(sky))


# ---- each factor does its own


def test_identity_changes_the_toy_and_its_shadow_and_nothing_else():
    renderer = Creatures(32)
    values = torch.cat([one(name, 1.0, "brick yard") for name in CREATURES])
    pictures, masks, shades = renderer.cast(values), renderer.mask(values), renderer.shade(values)
    bare = creatures._ground("brick yard", 45.0, 32)
    open_ = (masks == 0).expand_as(pictures)
    assert torch.allclose(pictures[open_], (bare * shades)[open_], atol=1e-6), "ground, darkened by the shadow alone"
    plain = open_ & (shades == 1)
    assert plain.float().mean() > 0.3 and torch.equal(pictures[plain], bare.expand_as(pictures)[plain])


def test_background_leaves_the_pixels_of_the_toy_alone():
    renderer = Creatures(32)
    values = torch.cat([one("dragon", 3.0, name) for name in GROUNDS])
    pictures, cover = renderer.cast(values), renderer.mask(values)
    assert torch.equal(cover, cover[:1].expand_as(cover)) and torch.equal(
        renderer.shade(values)[0], renderer.shade(values)[9]
    )
    whole = (cover == 1).expand_as(pictures)
    assert whole[0, 0].sum() > 100
    assert torch.equal(pictures[whole], pictures[:1].expand_as(pictures)[whole])
    for a, b in itertools.combinations(range(10), 2):
        assert (pictures[a] - pictures[b]).abs().mean(0)[cover[a, 0] == 0].mean() > 0.05


@pytest.mark.parametrize("k,least", [(IDENTITY, 150), (POSE, 150), (BACKGROUND, 250)])
def test_every_change_shows_in_every_picture(every, k, least):
    """With the means that data/README.md gives."""
    neutral, means = every[:, :, :, 0].movedim(k, 0), []
    for a, b in itertools.combinations(range(len(neutral)), 2):
        pixels = changed(neutral[a], neutral[b])
        assert pixels.min() >= least, (SPACE.names[k], a, b, int(pixels.min()))
        means.append(pixels.float().mean())
    assert abs(sum(means) / len(means) - (330, 440, 730)[k]) < 10


def test_no_ground_looks_the_same_from_two_sides():
    for name in GROUNDS:
        views = torch.stack([creatures._ground(name, 45.0 * k, 32) for k in range(8)])[:, :, 10:]
        away = [(views[a] - views[b]).abs().mean() for a, b in itertools.combinations(range(8), 2)]
        assert min(away) > 0.02, (name, min(away))


def test_expression_shows_from_the_front_and_never_from_behind(every):
    for a, b in itertools.combinations(range(len(EXPRESSIONS)), 2):
        pixels = changed(every[:, :, :, a], every[:, :, :, b])  # (identities, poses, backgrounds)
        names = EXPRESSIONS[a], EXPRESSIONS[b]
        assert pixels[:, 0].min() >= 12 and pixels[:, [1, 7]].min() >= 6, (*names, pixels[:, [0, 1, 7]].amin((1, 2)))
        assert torch.equal(every[:, 3:6, :, a], every[:, 3:6, :, b]), "seen from behind"
        flat = [SPACE["identity"].labels.index(name) for name in ("robot", "bus")]
        assert torch.equal(every[flat][:, [2, 6], :, a], every[flat][:, [2, 6], :, b])
    assert changed(every[..., 0, :, :, :], every[..., 2, :, :, :])[:, [2, 6]].float().mean() > 1, (
        "something, from a side"
    )


def test_expression_stays_in_the_mask():
    renderer, values = Creatures(32, expression=True), torch.tensor([[0.0, 0.0, 0.0, float(e)] for e in range(5)])
    pictures = renderer.cast(values)
    bare = (renderer.mask(values)[:1] == 0).expand_as(pictures)
    assert torch.equal(pictures[bare], pictures[:1].expand_as(pictures)[bare])


# ---- casting


@pytest.mark.parametrize("shape", creature_parts.SHAPES)
def test_solids_are_met_where_sampled_points_lie_inside(shape):
    """Intervals against points along the ray that are tried one by one; surfaces face outwards."""
    inside = {
        "ball": lambda x, y, z: x * x + y * y + z * z < 1,
        "box": lambda x, y, z: (x.abs() < 1) & (y.abs() < 1) & (z.abs() < 1),
        "drum": lambda x, y, z: (x * x + y * y < 1) & (z.abs() < 1),
        "horn": lambda x, y, z: (x * x + y * y < (1 - z) / 2) & (z > -1),
    }[shape]
    origin, towards = torch.randn(3, 400, generator=generator()) * 2, torch.rand(3, 400, generator=generator(1)) - 0.5
    way = towards - origin
    near, far = creature_parts.SHAPES[shape](Rays(tuple(origin), tuple(way)))
    t = torch.linspace(-3, 5, 4001)[:, None]
    within = inside(*(origin[:, None] + t * way[:, None]))  # (steps, rays)
    step = 8 / 4000
    met = (far - near > 2 * step) & (near > -3) & (far < 5)
    assert met.sum() > 150 and torch.equal(within.any(0)[met], torch.ones(int(met.sum()), dtype=torch.bool))
    first = t[within.int().argmax(0), 0]
    assert ((first - near).abs()[met] < 1.5 * step).all() and (
        (within.sum(0) * step - (far - near)).abs()[met] < 2 * step
    ).all()
    assert not within.any(0)[near >= far].any()

    points, into = (origin + near * way).T[met], way.T[met]
    normal = F.normalize(creature_parts.normals(shape, points), dim=1)
    assert (normal * into).sum(1).max() < 1e-3, "what is met first is seen from outside"
    sides = torch.stack([points + 1e-2 * normal, points - 1e-2 * normal])
    out, in_ = (inside(*side.T) for side in sides)
    assert not out.any() and in_.float().mean() > 0.95  # just inside, but for edges


def test_windows_cut_nothing_off(monkeypatch):
    narrow = [creatures._toy(name, 30.0, ("neutral",), 32) for name in CREATURES]
    monkeypatch.setattr(creatures, "_window", lambda part, turn, size: (slice(0, 128), slice(0, 128)))
    for name, (images, cover) in zip(CREATURES, narrow, strict=True):
        whole = creatures._toy(name, 30.0, ("neutral",), 32)
        assert torch.equal(cover, whole[1]) and torch.allclose(images, whole[0], atol=1e-5), name


def test_toys_stand_whole_in_the_picture():
    values = torch.tensor([[i, pose, 0.0] for i in range(10) for pose in (0.0, 1.5, 2.0, 4.0, 5.0, 6.0)])
    masks = Creatures(32).mask(values)[:, 0]
    assert masks.min() == 0 and masks.max() == 1
    rim = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], dim=1)
    assert rim.max() == 0, "the frame cuts a toy off"
    assert masks.mean((1, 2)).min() > 0.09 and masks.mean((1, 2)).max() < 0.4
    behind = masks[:, :14]  # a toy stands on the ground, so its lowest part lies below the horizon
    assert (masks.sum((1, 2)) > behind.sum((1, 2))).all()


def test_shadows_fall_to_the_right_and_end_before_the_square_they_are_found_on():
    values = torch.tensor([[i, pose, 0.0] for i in range(10) for pose in (0.0, 4.0)])
    shades, masks = Creatures(32).shade(values)[:, 0], Creatures(32).mask(values)[:, 0]
    assert shades.min() < 0.45 and shades.max() == 1
    dark, columns = (1 - shades) * (masks == 0), torch.arange(32) + 0.5
    middle = [(m.sum(1) * columns).sum(1) / m.sum((1, 2)) for m in (dark, masks)]
    assert (middle[0] > middle[1] + 0.8).all(), middle
    assert (dark.sum((1, 2)) > 8).all() and (shades[:, :4] == 1).all(), "none in the sky"
    ways, gives = creatures._lights()
    assert math.isclose(float(gives.sum()), sum(creatures.SHADE), rel_tol=1e-5) and (ways[:, 2] > 0).all()
    for name, parts in CREATURES.items():
        for part in parts:
            top = part.centre[2] + part.reach
            reach = math.hypot(*part.centre[:2]) + part.reach + top * (ways[:, :2].norm(dim=1) / ways[:, 2]).max()
            assert reach < creatures.REACH * 1.6, name  # balls around parts: a generous bound


@pytest.mark.parametrize("expression", [False, True])
def test_what_is_kept_is_what_is_cast(expression):
    renderer = Creatures(32, expression=expression)
    values = drawn(15, renderer.space)
    assert (renderer.render(values) - renderer.cast(values)).abs().max() <= 0.5 * LEVEL + 1e-5


def test_without_expression_every_face_is_neutral(every):
    values = drawn(50)
    i, p, b = values.long().T
    assert torch.equal(Creatures(32).render(values), every[i, p, b, 0])


def test_poses_between_those_of_the_grid():
    renderer = Creatures(32)
    values = torch.cat([one("bus", pose, "arrows") for pose in (1.0, 1.5, 2.0, 10.0, -6.0)])
    low, middle, high, *around = renderer.cast(values)
    whole = (low - high).abs().mean()
    assert min((middle - low).abs().mean(), (middle - high).abs().mean()) > 0.3 * whole
    assert all(torch.allclose(picture, high, atol=1e-4) for picture in around)
    assert torch.equal(renderer.render(values)[3], renderer.render(one("bus", 7.0, "arrows"))[0]), "kept to the range"


def test_drawing_is_pure_and_each_picture_stands_alone():
    values = drawn(40)
    before, state = values.clone(), torch.random.get_rng_state()
    first = Creatures(32).render(values)
    assert first.shape == (40, 3, 32, 32) and first.dtype == torch.float32 and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, Creatures(32).render(values)) and torch.equal(values, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    cast = Creatures(32).cast(values[:6])
    assert torch.equal(cast, Creatures(32).cast(values[:6])) and torch.equal(cast[3:4], Creatures(32).cast(values[3:4]))
    for draw in (Creatures(32).render, Creatures(32).cast):
        assert draw(values[:0]).shape == (0, 3, 32, 32)
    first.mul_(0)
    assert torch.equal(Creatures(32).cast(values[:6]), cast), "what is handed out is nobody's table"
    assert Creatures(32).render(values).max() > 0.5


def test_small_pictures_are_averages_of_large_ones():
    values = drawn(4, seed=3)
    large = F.avg_pool2d(Creatures(64).cast(values), 2)
    away = (Creatures(32).cast(values) - large).abs()
    assert away.mean() < 4 * LEVEL


def test_on_another_device():
    images = Creatures(32).render(torch.empty(2, 3, device="meta"))
    assert images.shape == (2, 3, 32, 32) and images.device.type == "meta"
    values = one("penguin")
    mask = Creatures(32).mask(values)
    with torch.device("meta"):  # as where a GPU is the default device
        assert torch.equal(Creatures(32).mask(values), mask)


# ---- as data


def test_training_lacks_exactly_the_held_out_combinations():
    for expression in (False, True):
        parts = {s: data.load("creatures", size=32, split=s, expression=expression) for s in ("train", "test", "all")}
        space = parts["train"].space
        seen = {s: {tuple(v) for v in d.law.allowed(d.space, "cpu").int().tolist()} for s, d in parts.items()}
        assert not seen["train"] & seen["test"] and seen["train"] | seen["test"] == seen["all"]
        assert len(seen["all"]) == space.grid_size and len(seen["test"]) == space.grid_size * 5 * 6 // 80
        assert seen["test"] == {v for v in seen["all"] if v[IDENTITY] >= 5 and v[POSE] >= 2}
        drawn_ = parts["train"].sample(300, generator())["factors"].int().tolist()
        assert {tuple(v) for v in drawn_} <= seen["train"]
        unseen = combinations.unseen(parts["train"])
        assert {tuple(v) for v in unseen.sample(200, generator())["factors"].int().tolist()} <= seen["test"]


def test_a_share_of_all_combinations_can_be_held_out_instead():
    train, test = (data.load("creatures", size=32, split=s, held_out=0.25) for s in ("train", "test"))
    counts = [len(d.law.allowed(SPACE, "cpu")) for d in (train, test)]
    assert sum(counts) == 800 and 150 < counts[1] < 250
    assert len(test.law.allowed(SPACE, "cpu")[:, IDENTITY].unique()) == 10


def test_as_data_and_as_model():
    renderer = data.load("creatures", size=32, split="all")
    assert isinstance(renderer, Creatures) and renderer.name == "creatures" and renderer.image_shape == (3, 32, 32)
    batch = renderer.sample(20, generator(3))
    assert torch.equal(batch["x"], renderer.sample(20, generator(3))["x"])
    assert torch.equal(renderer.decode(renderer.code_of(batch["factors"])), batch["x"])
    prints = {r.fingerprint() for r in (Creatures(32), Creatures(32, expression=True), data.load("creatures", size=32))}
    assert len(prints) == 3
    other = pickle.loads(pickle.dumps(renderer))
    assert torch.equal(other.sample(4, generator())["x"], renderer.sample(4, generator())["x"])
    assert len(pickle.dumps(renderer)) < 50_000, "pictures are not pickled"
    assert repr(Creatures(32, expression=True)) == "Creatures(32 pixels, expression, Grid())"


def test_bad_input():
    for size in (48, 0, 64.0, "64", None, True):
        for make in (Creatures, lambda size: data.load("creatures", size=size)):
            with pytest.raises(UserError, match=f"creatures come in 32, 64, 128 pixels, not {size!r}"):
                make(size)
    with pytest.raises(UserError, match="unknown split of creatures 'valid'.*train, test, all"):
        data.load("creatures", split="valid")
    with pytest.raises(UserError, match="held_out is 'unbalanced' or a share such as 0.2, not 'half'"):
        data.load("creatures", held_out="half")
    with pytest.raises(UserError, match="share must lie in 0 ... 1"):
        data.load("creatures", held_out=1.5)
    for draw in (Creatures(32).render, Creatures(32).cast, Creatures(32).mask, Creatures(32).shade):
        with pytest.raises(ValueError, match=r"factors must be \(n, 3\) for identity, pose, background, not \(2, 4\)"):
            draw(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"\(n, 4\) for identity, pose, background, expression, not \(3,\)"):
        Creatures(32, expression=True).render(torch.zeros(3))


def test_the_row_in_the_list_says_what_is_loaded():
    row = next(row for row in data.describe() if row["name"] == "creatures")
    assert row["factors"] == ", ".join(f"{f.name} {len(f)}" for f in SPACE)
    assert row["images"] == f"{SPACE.grid_size:,}, or {SPACE_WITH_EXPRESSION.grid_size:,} with expression"


@pytest.mark.slow
def test_large_pictures():
    renderer = Creatures(128)
    values = drawn(4)
    assert (renderer.render(values) - renderer.cast(values)).abs().max() <= 0.5 * LEVEL + 1e-5
    assert (F.avg_pool2d(renderer.cast(values), 2) - Creatures(64).cast(values)).abs().mean() < 4 * LEVEL


@pytest.mark.parametrize("share", [1, 1.0, -0.1, float("nan"), 0.99])
def test_creatures_speak_of_settings_as_fonts_do(share):
    with pytest.raises(UserError, match="creatures with held_out="):
        data.load("creatures", size=32, held_out=share)


@pytest.mark.parametrize("expression", ["no", "false", 0, 2, None])
def test_expression_is_true_or_false(expression):
    with pytest.raises(UserError, match="expression is true or false"):
        data.load("creatures", size=32, expression=expression)
