"""Game characters: every factor shows in every picture, hue is the cloth's alone, and drawing is pure."""

import itertools
import time

import pytest
import torch
from test_toys import like_a_capture

from disentkit import data
from disentkit.data.characters import GROUND, SIZES, SPACE, Characters
from disentkit.data.laws import Grid, HeldOut, Real
from disentkit.errors import UserError

DIRECTION, HUE = SPACE.index("direction"), SPACE.index("hue")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n, law=None, seed=0, **fixed):
    """Values (n, 8) with some factors fixed, a category by its label."""
    values = (law or Grid()).draw(SPACE, n, generator(seed))
    for name, value in fixed.items():
        values[:, SPACE.index(name)] = SPACE[name].labels.index(value) if SPACE[name].labels else value
    return values


def changed(a, b, least=0.1):
    """How many pixels (n,) of each picture differ visibly in some channel."""
    return ((a - b).abs().amax(1) > least).flatten(1).sum(1)


# ---- what is seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", SPACE.names)
def test_every_change_of_a_factor_shows_in_every_picture(factor, size):
    values, renderer = drawn(200 if size == 32 else 30), Characters(size)
    pictures = {}
    for value in SPACE[factor].values:
        values[:, SPACE.index(factor)] = value
        pictures[value] = renderer.render(values)
    for a, b in itertools.combinations(pictures, 2):
        pixels = changed(pictures[a], pictures[b]) * (32 / size) ** 2
        assert pixels.min() >= 8, f"{factor} {a:g} or {b:g}: {pixels.min():g} of 1,024 pixels change in some picture"
        assert pixels.mean() >= 25, f"{factor} {a:g} or {b:g}: {pixels.mean():g} of 1,024 pixels change on average"


def test_how_much_of_a_picture_a_factor_changes():
    """The numbers that data/README.md and the docstring of `Characters` give."""
    told = dict(zip(SPACE.names, (90, 160, 80, 70, 80, 360, 290, 70), strict=True))
    values, renderer = drawn(600), Characters()
    pictures = renderer.render(values)
    for k, factor in enumerate(SPACE):
        grid = SPACE.to_grid(values)
        grid[:, k] += torch.randint(1, len(factor), (600,), generator=generator())  # another value, each equally likely
        pixels = changed(renderer.render(SPACE.from_grid(grid % torch.tensor(SPACE.sizes))), pictures).float().mean()
        assert abs(pixels - told[factor.name]) < 10, f"{factor.name}: {pixels:.0f}"


def test_the_figure_fills_the_height_and_the_ground_is_constant():
    images = Characters().render(drawn(300))
    ground = torch.tensor(GROUND)[:, None, None]
    figure = ((images - ground).abs().amax(1) > 0.05).any(2)  # (n, rows)
    height = figure.sum(1)
    assert height.min() >= 21 and height.float().mean() > 26, "the lowest is a bald one that crouches"
    edge = Characters().render(drawn(100, item="none"))[:, :, :, [0, -1]]
    assert torch.equal(edge, ground.expand_as(edge))


@pytest.mark.parametrize("pose", SPACE["pose"].labels)
def test_left_and_right_have_mirrored_outlines_and_the_item_stays_in_its_hand(pose):
    renderer, ground = Characters(), torch.tensor(GROUND)[:, None, None]

    def sides(**fixed):
        left, right = (renderer.render(drawn(100, pose=pose, direction=d, **fixed)) for d in ("left", "right"))
        return left, right.flip(3)

    outlines = [((x - ground).abs().amax(1) > 0.02) for x in sides(item="none")]
    assert (outlines[0] != outlines[1]).flatten(1).sum(1).max() <= 5, "of 300; a dark rim may meet the ground's colour"
    for item in SPACE["item"].labels:
        left, right = sides(item=item)
        assert changed(left, right).min() >= 2, "the other arm is the near one"
    # From the front the right hand is at the picture's left, from the back at its right.
    for direction, half in (("front", slice(0, 16)), ("back", slice(16, 32))):
        bare, armed = (renderer.render(drawn(50, pose=pose, direction=direction, item=i)) for i in ("none", "shield"))
        away = (bare - armed).abs().sum((0, 1, 2))
        assert away[half].sum() > 0.99 * away.sum()


def test_the_back_lacks_a_face():
    """Where a bald one stands, the front has eyes and the back has none; else the two heads are mirrored."""
    front, back = (
        Characters().render(drawn(60, hair="bald", item="none", pose="stand", direction=d)) for d in ("front", "back")
    )
    head = slice(0, 14)
    where = (front - back.flip(3)).abs().amax((0, 1))[head] > 0.02
    rows, columns = where.nonzero().T
    assert 8 <= len(rows) <= 50 and rows.min() >= 7 and columns.min() >= 11 and columns.max() <= 20


# ---- hue


def test_hue_goes_around_and_is_continuous():
    renderer, values = Characters(), drawn(50, Real())
    turned = values.clone()
    for turn in (1, -1, 3):
        turned[:, HUE] = values[:, HUE] + turn
        assert torch.allclose(renderer.render(turned), renderer.render(values), atol=1e-4)
    steps = torch.linspace(0, 1, 601)
    around = drawn(1).repeat(601, 1)
    around[:, HUE] = steps
    images = renderer.render(around)
    assert torch.allclose(images[0], images[-1], atol=1e-5)
    assert (images[1:] - images[:-1]).abs().max() < 6 / 600 * 0.75 + 1e-4, "one channel at a time, 6 rises and falls"
    assert (images[1:] - images[:-1]).abs().amax((1, 2, 3)).min() > 1e-3, "every hue between grid points is drawn"


def test_hue_changes_the_cloth_and_nothing_else():
    """Red, green and blue move by one and the same share of the cloth's colour, and only around the trunk."""
    renderer, values = Characters(), drawn(300)
    red, green, blue = (renderer.render(values.index_fill(1, torch.tensor(HUE), h / 3)) for h in range(3))
    full = 0.95 * 0.75  # between the brightest and the darkest a channel of cloth gets
    share = (red - green)[:, 0] / full
    assert share.min() >= -1e-6 and share.max() <= 1 + 1e-6 and share.flatten(1).sum(1).min() > 10
    for difference, channel in ((green - red, 1), (green - blue, 1), (blue - red, 2), (red - blue, 0)):
        assert torch.allclose(difference[:, channel] / full, share, atol=1e-5)
    assert torch.allclose(red[:, 2], green[:, 2], atol=1e-6), "no blue in either"
    standing = values[:, SPACE.index("pose")] == 0
    assert share[standing][:, :12].max() < 1e-6 and share[standing][:, 27:].max() < 1e-6, "neither head nor feet"


# ---- drawing


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_float_in_0_1_and_of_the_right_shape(size):
    images = Characters(size).render(drawn(50))
    assert images.shape == (50, 3, size, size) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1 and images.max() > 0.9


def test_sizes_show_one_figure():
    values = drawn(200)
    small, large = Characters(32).render(values), Characters(64).render(values)
    halved = large.unflatten(3, (32, 2)).mean(4).unflatten(2, (32, 2)).mean(3)
    assert (small - halved).abs().mean() < 0.004 and (small - halved).abs().max() < 0.35
    middle = torch.nn.functional.interpolate(large, size=48, mode="area")
    assert (Characters(48).render(values) - middle).abs().mean() < 0.02


def test_drawing_is_pure():
    values = drawn(64, Real())
    before, state = values.clone(), torch.random.get_rng_state()
    first, second = Characters().render(values), Characters().render(values)
    assert torch.equal(first, second) and torch.equal(values, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    one_by_one = torch.cat([Characters().render(row) for row in values.split(1)])
    assert torch.equal(one_by_one, first)
    assert Characters().render(values[:0]).shape == (0, 3, 32, 32)
    assert torch.equal(Characters().render(values.double()), first)


def test_a_category_between_its_values_is_the_nearest_one():
    values = drawn(100)
    near = values.clone()
    near[:, :HUE] += 0.8 * torch.rand(100, HUE, generator=generator()) - 0.4
    assert torch.equal(Characters().render(near), Characters().render(values))
    ends = torch.tensor([[0.0] * HUE, [len(f) - 1.0 for f in SPACE][:HUE]])
    far, hue = ends + torch.tensor([[-5.0], [5.0]]), torch.zeros(2, 1)
    assert torch.equal(*(Characters().render(torch.cat([v, hue], dim=1)) for v in (far, ends)))


def test_nothing_is_read_back_to_the_host():
    renderer, rng = Characters(), generator()
    renderer.sample(2, rng)  # makes the tables
    with like_a_capture():
        batch = renderer.sample(8, rng)
    assert batch["x"].shape == (8, 3, 32, 32)


def test_pictures_are_drawn_on_the_device_of_the_values():
    renderer = Characters()
    images = renderer.render(torch.empty(2, 8, device="meta"))
    assert images.shape == (2, 3, 32, 32) and images.device.type == "meta"
    assert renderer.render(drawn(2)).device.type == "cpu", "after another device"


def test_drawing_is_looking_up():
    """A batch takes no longer than some dozens of plain passes over as many numbers; drawing anew takes thousands."""
    renderer, values, numbers = Characters(), drawn(128), torch.rand(128, 3, 32, 32, generator=generator())

    def least(work):
        found = []
        for _ in range(10):
            began = time.process_time()
            work()
            found.append(time.process_time() - began)
        return min(found)

    renderer.render(values)
    assert least(lambda: renderer.render(values)) < 3 * least(lambda: [numbers + k for k in range(50)])


# ---- as data


def test_as_data_and_as_model():
    renderer = data.load("characters")
    assert isinstance(renderer, Characters) and renderer.name == "characters" and renderer.image_shape == (3, 32, 32)
    row = next(row for row in data.describe() if row["name"] == "characters")
    assert row["factors"] == ", ".join(f"{f.name} {len(f)}" for f in SPACE)
    assert row["images"] == f"{SPACE.grid_size:,}"
    batch = renderer.sample(20, generator(3))
    assert torch.equal(batch["x"], renderer.sample(20, generator(3))["x"])
    assert not torch.equal(batch["x"], renderer.sample(20, generator(4))["x"])
    assert torch.equal(renderer.decode(renderer.code_of(batch["factors"])), batch["x"])
    assert renderer.with_law(Real()).fingerprint() != renderer.fingerprint() != Characters(64).fingerprint()
    assert data.load("characters", size=64).fingerprint() == Characters(64).fingerprint()
    fixed = renderer.sample_fixed(DIRECTION, 10, generator(), groups=3)["factors"].reshape(3, 10, 8)
    assert (fixed[:, :, DIRECTION] == fixed[:, :1, DIRECTION]).all() and (fixed[:, :, 0] != fixed[:, :1, 0]).any()


def test_held_out_combinations_never_come():
    def green_with_lantern(values):
        return (values[:, 0] == 3) & (values[:, 4] == 4)

    renderer = Characters().with_law(HeldOut(Real(), green_with_lantern))
    values = renderer.sample(1000, generator())["factors"]
    assert not green_with_lantern(values).any()
    assert (values[:, 0] == 3).sum() > 150 and (values[:, 4] == 4).sum() > 100
    assert green_with_lantern(Characters().sample(1000, generator())["factors"]).sum() > 20


@pytest.mark.parametrize("size", [16, 33, 128, 32.0, "32", None])
def test_wrong_size(size):
    with pytest.raises(UserError, match="32, 48, 64 pixels, not") as caught:
        data.load("characters", size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(8,), (3, 7), (3, 9), (1, 3, 8)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"\(n, 8\) for body, hair, top"):
        Characters().render(torch.zeros(shape))
