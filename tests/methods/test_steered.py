"""Directions as blocks, their files, and the model that has them."""

import dataclasses
import json
import math

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.family import draw, equal, rng, weights
from scipy import stats

from disentkit import models
from disentkit.codes import Block, CodeSpace, gaussian_blocks
from disentkit.errors import UserError
from disentkit.methods.oracle import FACTORS, OracleGenerator
from disentkit.methods.steered import (
    Direction,
    Steered,
    load_direction,
    make_direction,
    pictures,
    save_direction,
    steerable,
    still,
)

oracle = OracleGenerator(16, d=12)


def true(name: str, knots: int = 101) -> Direction:
    """The oracle's own direction of a factor."""
    s = torch.linspace(-4, 4, knots, dtype=torch.float64)
    return make_direction(name, oracle.u(name), s, FACTORS[name][1] * torch.erf(s / math.sqrt(2)), "in its unit")


def bent(name: str = "bent", d: int = 12, seed: int = 0, flat: float = 1.0) -> Direction:
    """A random u and a g of five pieces, of which the middle one has the slope `flat`."""
    return make_direction(
        name, draw(d, seed=seed), [-3, -2, -0.5, 1, 2, 4], torch.tensor([0, 1, 4, 4 + 1.5 * flat, 6, 9])
    )


def close(a, b, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=atol)


# ---- the laws


def check_laws(direction: Direction, codes: torch.Tensor, value: torch.Tensor) -> None:
    """write(c, read(c)) = c and read(write(c, v)) = v, as far as 32 bits can hold g's slopes."""
    along = torch.tensor(direction.along or direction.u)
    slopes = torch.tensor(direction.t).diff() / torch.tensor(direction.s).diff()
    kept, read = codes.clone(), direction.read(codes)
    rounding = 3e-6 * (1 + read.abs().max() + value.abs().max()) * (1 + along.norm())
    close(direction.write(codes, read), codes, float(rounding * (1 + 1 / slopes.min())))
    far = 1 + direction.inverse(value).abs().max() + codes.abs().max() * along.norm()
    close(direction.read(direction.write(codes, value)), value, float(rounding + 3e-6 * far * (1 + slopes.max())))
    assert read.shape == (len(codes), 1) and torch.equal(codes, kept)
    line = direction.write(codes, value) - codes  # an edit moves along one line
    close(line, line @ along[:, None] / along.square().sum() * along, float(rounding * 10 * far))


@st.composite
def directions(draw_) -> tuple[Direction, list[Direction]]:
    """A random direction, some of its code fixed, and others that it may have to leave alone."""
    d, pieces, seed = draw_(st.integers(2, 9)), draw_(st.integers(1, 7)), draw_(st.integers(0, 10_000))
    others = draw_(st.integers(0, d - 1))
    moves = torch.rand(d, generator=rng(seed)) < 0.8
    made = []
    for k in range(others + 1):
        widths = draw_(st.lists(st.floats(0.05, 3), min_size=pieces, max_size=pieces))
        rises = draw_(st.lists(st.sampled_from([0.002, 0.1, 1.0, 4.0]), min_size=pieces, max_size=pieces))
        s = torch.tensor([0.0, *widths]).double().cumsum(0) - sum(widths) * draw_(st.floats(0, 1))
        u = draw(d, seed=seed + k) * moves
        u[seed % d] += 1.0
        made.append(make_direction(f"d{k}", u, s, torch.tensor([0.0, *rises]).double().cumsum(0)))
    return made[0], made[1:]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(directions(), st.integers(1, 4), st.integers(0, 99))
def test_laws_of_random_directions(made, n, seed):
    direction, others = made
    codes, value = 2 * draw(n, len(direction.u), seed=seed), 2 * draw(n, 1, seed=seed + 1)
    check_laws(direction, codes, value)
    assert float(direction.g(torch.zeros(()))) == pytest.approx(0, abs=1e-6)
    try:
        held = direction.holding(others)
    except ValueError:
        return
    assert all(u != 0 or a == 0 or others for u, a in zip(direction.u, held.along or direction.u))
    check_laws(held, codes, value)
    moved, size = held.write(codes, value), torch.tensor(held.along or held.u).norm()
    for other in others:  # what they see of the code is what it was
        far = (moved - codes).abs().max() + codes.abs().max()
        close(other.projection(moved), other.projection(codes), float(3e-5 * (1 + far * size)))


@pytest.mark.parametrize("flat", [1.0, 1e-2, 1e-3])
def test_laws_where_g_is_nearly_flat(flat):
    direction = bent(flat=flat)
    check_laws(direction, draw(50, 12, seed=3), 3 * draw(50, 1, seed=4))


def test_g_and_its_inverse():
    direction = bent()
    s, t = torch.linspace(-9, 9, 60).reshape(3, 4, 5), torch.linspace(-20, 20, 60)
    assert direction.g(s).shape == s.shape and (direction.g(s.flatten()).diff() > 0).all()
    close(direction.inverse(direction.g(s)), s)
    close(direction.g(direction.inverse(t)), t)
    assert float(direction.g(torch.tensor(0.0))) == 0 == float(direction.inverse(torch.tensor(0.0)))
    for knot, value in zip(direction.s, direction.t):
        assert float(direction.g(torch.tensor(knot))) == pytest.approx(value, abs=1e-6)
    beyond = direction.g(torch.tensor([-13.0, -3.0, 4.0, 14.0])).diff()  # as steep as the first and the last piece
    close(beyond[[0, 2]], torch.tensor([10.0, 15.0]))


def test_low_and_high_are_what_the_prior_makes_likely():
    direction = true("x")
    ends = oracle.g("x", torch.tensor([-2.0, 2.0])).tolist()
    assert [direction.low, direction.high] == pytest.approx(ends, abs=1e-3)
    plain = make_direction("walk", torch.ones(4))
    assert (plain.low, plain.high) == (-2.0, 2.0) and math.hypot(*plain.u) == pytest.approx(1)
    s = torch.linspace(-9, 9, 7)
    close(plain.g(s), s)


def test_move_reads_so_much_more():
    direction, codes = bent(), draw(5, 12)
    before = direction.read(codes)
    for delta in (0.3, torch.full((5,), 0.3), torch.full((5, 1), 0.3)):
        close(direction.read(direction.move(codes, delta)), before + 0.3)
    each = torch.linspace(-1, 1, 5)
    close(direction.read(direction.move(codes, each))[:, 0], before[:, 0] + each)


def test_an_edit_leaves_what_is_orthogonal_to_u_alone():
    direction, codes = bent(), draw(6, 12)
    u = torch.tensor(direction.u)
    change = direction.write(codes, 1.5) - codes
    close(change - (change @ u)[:, None] * u, torch.zeros(6, 12))
    wanted = codes - (codes @ u)[:, None] * u + direction.inverse(torch.tensor(1.5)) * u  # the paper's formula
    close(direction.write(codes, 1.5), wanted)


@pytest.mark.parametrize("wanted", [stats.uniform(-0.2, 0.4), stats.norm(0.05, 0.04), stats.triang(0.2, -0.1, 0.3)])
def test_redistribute_gives_the_factor_another_distribution(wanted):
    """What the pictures' x follows afterwards, not what the direction reads."""
    codes = oracle.prior(4000, rng())

    def icdf(share):
        return torch.from_numpy(wanted.ppf(share.double().numpy())).float()

    def distance(z):
        return stats.kstest(oracle.factor_values(z)[:, 0].numpy() - 0.5, wanted.cdf).statistic

    made = true("x").redistribute(codes, icdf)
    assert distance(made) < 1.63 / math.sqrt(4000) < 0.1 < distance(codes)  # at the 1 % level
    u = oracle.u("x")
    close(made - (made @ u)[:, None] * u, codes - (codes @ u)[:, None] * u)


def test_redistributed_as_it_was_it_stays():
    """The factor's own distribution, uniform on +-0.3, changes no code."""
    codes = oracle.prior(200, rng())
    close(true("x", 401).redistribute(codes, lambda share: 0.6 * share - 0.3), codes, 0.01)


def test_holding_what_is_tied():
    """An edit of y that leaves the horizon where it is, where their directions are not orthogonal."""
    tied = OracleGenerator(16, d=12, tied=0.6)
    s = torch.linspace(-4, 4, 41)
    y, horizon = (make_direction(name, tied.u(name), s, tied.g(name, s)) for name in ("y", "horizon"))
    codes = draw(20, 12)
    free, held = (d.move(codes, 0.05) for d in (y, y.holding([horizon])))
    column = tied.factors.index("horizon")
    before, after, kept = (tied.factor_values(z)[:, column] for z in (codes, free, held))
    assert (after - before).abs().min() > 1e-3
    close(kept, before)
    close(y.read(held), y.read(codes) + 0.05)


def test_holding_in_the_span_of_the_others_is_refused():
    a, b = make_direction("a", [1.0, 0, 0]), make_direction("b", [0, 1.0, 0])
    both = make_direction("both", [1.0, 1.0, 0])
    with pytest.raises(ValueError, match="'both' cannot move while a, b stand still: unlock one of them"):
        both.holding([a, b])
    with pytest.raises(ValueError, match="'a' cannot move while a"):
        a.holding([a])
    held = both.holding([a, a])  # asked for twice, held once
    codes = draw(4, 3)
    close(a.read(held.write(codes, 1.0)), a.read(codes))
    assert held.holding([]) == both


def test_named_and_prior():
    direction = bent()
    assert direction.named("other") == dataclasses.replace(direction, name="other")
    drawn = direction.prior(4000, rng())
    assert drawn.shape == (4000, 1)
    assert stats.kstest(direction.inverse(drawn)[:, 0].numpy(), "norm").pvalue > 0.01


def test_low_and_high_under_a_prior_that_is_no_gaussian():
    """As far as uniform numbers reach, and not +-2."""

    class Bounded:
        codes = CodeSpace([Block("c", "uniform", (2,), low=-1, high=1), Block("z", "gaussian", (2,))])

    mixed = make_direction("c", [1.0, 1.0, 0, 0]).under(Bounded())
    reach = math.sqrt(2) * (1 - math.sqrt(2 * 0.023))  # P(a + b > 2 - w) = w^2 / 8 of two uniform numbers
    assert [mixed.low, mixed.high] == pytest.approx([-reach, reach], abs=0.05)
    assert dataclasses.replace(mixed, low=-2.0, high=2.0) == make_direction("c", [1.0, 1.0, 0, 0])
    gaussian = make_direction("z", [0, 0, 1.0, 1.0])
    assert gaussian.under(Bounded()) == gaussian


@pytest.mark.parametrize("make, message", [
    (lambda: make_direction("a", torch.zeros(3)), "direction 'a' has no length: u must hold finite numbers"),
    (lambda: make_direction("a", [1.0, math.nan]), "direction 'a' has no length"),
    (lambda: make_direction("a", [1.0, 0.0], [0, 1], [0, 1, 2]), "'a': g needs as many t as s, two or more"),
    (lambda: make_direction("a", [1.0, 0.0], [0], [0]), "two or more, both ascending"),
    (lambda: make_direction("a", [1.0, 0.0], [0, 1, 2], [0, 1, 1]), "both ascending"),
    (lambda: make_direction("a", [1.0, 0.0], [0, 2, 1], [0, 1, 2]), "both ascending"),
    (lambda: make_direction("a", [1.0, 0.0], [0, 1], [0, math.nan]), "direction 'a'|block 'a'"),
    (lambda: Direction("a", at=(0,), u=(1.0, 1.0)), "direction 'a': u must have length 1, not 1.41421"),
    (lambda: Direction("a", at=(0,), u=(1.0, 0.0), along=(1.0,)), "direction 'a': along has 1 numbers, u 2"),
])  # fmt: skip
def test_directions_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- files


def test_a_file_keeps_a_direction(tmp_path):
    direction = dataclasses.replace(true("x"), unit="fraction of the width, to the right")
    path = save_direction(tmp_path / "a folder" / "x.json", direction)
    again = load_direction(str(path), oracle.codes)
    assert (again.name, again.unit, again.at, again.along) == ("x", direction.unit, direction.at, ())
    for part in ("u", "s", "t", "low", "high"):
        assert getattr(again, part) == pytest.approx(getattr(direction, part), abs=1e-12)
    codes = draw(5, 12)
    close(again.write(codes, 0.1), direction.write(codes, 0.1))
    assert load_direction(path) == again and json.loads(path.read_text())["name"] == "x"


GOOD = {"name": "x", "unit": "", "u": [0.6, 0.8], "s": [-1, 1], "t": [-2, 2]}
BROKEN = {
    "empty": "",
    "no JSON": "{'name': 1}",
    "not UTF-8": b"\xff\xfe\x00",
    "cut off": json.dumps(GOOD)[:-9],
    "nested too deep": "[" * 100_000,
    "a number": "7",
    "a list": "[1, 2]",
    **{f"without {key}": json.dumps({k: v for k, v in GOOD.items() if k != key}) for key in GOOD},
    **{
        f"{key} = {value!r:.20}": json.dumps(GOOD | {key: value})
        for key, value in [
            ("u", []), ("u", [0, 0]), ("u", [1, "a"]), ("u", [[1, 0], [1]]), ("u", math.nan), ("u", [math.inf, 1]),
            ("u", None), ("u", "x"), ("u", {"a": 1}), ("u", [10**400]), ("s", None), ("t", None), ("s", [-1]),
            ("s", [1, -1]), ("s", [-1, 0, 1]), ("s", [[-1, 1], [2, 3]]), ("s", 3), ("t", [2, 2]),
            ("t", [-math.inf, 1]), ("t", [math.nan, 1]), ("t", "ab"), ("s", [True, None]), ("t", [0, 1e400]),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_told_in_one_line(text, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="x.json is no direction that the kit saved") as error:
        load_direction(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300 + len(str(path))


def test_files_that_are_not_there_or_belong_elsewhere(tmp_path):
    with pytest.raises(UserError, match="no direction can be read from .*none.json"):
        load_direction(tmp_path / "none.json")
    with pytest.raises(UserError, match="no direction can be read from"):
        load_direction(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written to .*; give another path"):
        save_direction(tmp_path / "file" / "x.json", bent())
    path = save_direction(tmp_path / "x.json", bent())
    with pytest.raises(
        UserError, match="codes of 12 numbers, and this model's have 4: it belongs to another generator"
    ):
        load_direction(path, gaussian_blocks(4))


# ---- a model with directions


def test_blocks_are_the_models_then_the_directions():
    model = Steered(oracle, [true("x"), true("y")])
    assert model.codes.names == ("z", "x", "y") and model.codes.size == 12
    assert [block.name for block in model.codes.scalars] == ["x", "y"]
    assert list(model.directions) == ["x", "y"] and model.base is oracle
    assert model.image_shape == oracle.image_shape and model.device.type == "cpu"
    codes = model.prior(5, rng())
    assert torch.equal(codes, oracle.prior(5, rng()))
    assert torch.equal(models.decode(model, codes), models.decode(oracle, codes))
    assert torch.equal(model.mask(codes), oracle.mask(codes))


def test_it_has_what_the_model_has():
    assert not models.can_encode(Steered(oracle)) and Steered(oracle).posterior is None
    coder = toys.Coder(gaussian_blocks(4))
    model, x = Steered(coder, [make_direction("a", torch.ones(4))]), toys.Dots().sample(3, rng())["x"]
    assert torch.equal(models.encode(model, x), models.encode(coder, x)) and model.mask is None
    read = model.codes.read(models.encode(model, x), "a")
    close(read[:, 0], models.encode(coder, x).sum(1) / 2)

    class Blurry(toys.Coder):
        def posterior(self, x):
            return self.encode(x), torch.zeros(len(x), 4)

    mu, logvar = models.posterior(Steered(Blurry(gaussian_blocks(4))), x)
    assert mu.shape == logvar.shape == (3, 4) and (logvar == 0).all()


def test_the_base_is_no_part_of_it():
    coder = toys.Coder(gaussian_blocks(4), norm=True)
    model = Steered(coder.eval(), [make_direction("a", torch.ones(4))])
    model.train()
    assert not coder.training and not list(model.parameters()) and not model.state_dict()


def test_the_operations_of_a_code_space_work_on_directions():
    """Swap, traverse, mix and interpolate by factor, seen in the oracle's true values."""
    model, (a, b) = Steered(oracle, [true("x"), true("zoom")]), draw(2, 6, 12)
    column = oracle.factors.index("x")
    swapped = model.codes.swap(a, b, "x")
    before, after, other = (oracle.factor_values(z) for z in (a, swapped, b))
    torch.testing.assert_close(after[:, column], other[:, column], rtol=0, atol=2e-3)
    rest = [k for k in range(8) if k != column]
    close(after[:, rest], before[:, rest])
    wanted = torch.linspace(-0.2, 0.2, 5)
    walk = oracle.factor_values(model.codes.traverse(a[0], "x", wanted))
    torch.testing.assert_close(walk[:, column] - 0.5, wanted, rtol=0, atol=2e-3)
    mixed = model.codes.mix(a, b, torch.tensor([1.0, 0.0, 1.0]))  # all from a, but x
    close(mixed, swapped)
    half = model.codes.interpolate(a[0], b[0], 3, ["zoom"])[1:2]
    zoom = model.codes["zoom"]
    close(zoom.read(half), (zoom.read(a[:1]) + zoom.read(b[:1])) / 2)


def test_drawn_by_its_blocks_every_direction_keeps_its_distribution():
    model = Steered(oracle, [true("x"), true("y")])
    codes = model.codes.prior(3000, rng())
    for direction in model.directions.values():
        assert stats.kstest(direction.projection(codes).numpy(), "norm").pvalue > 0.01


def test_more_directions():
    one = Steered(oracle, [true("x")])
    two = one.with_directions(true("y"), bent("walk"))
    assert list(one.directions) == ["x"] and list(two.directions) == ["x", "y", "walk"] and two.base is oracle
    other = two.with_directions(bent("x", seed=5))
    assert list(other.directions) == ["x", "y", "walk"] and other.directions["x"] != two.directions["x"]


def test_names_that_collide_and_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="two blocks share one name: z, z"):
        Steered(oracle, [bent("z")])
    with pytest.raises(ValueError, match="two blocks share one name: z, x, x"):
        Steered(oracle, [true("x"), bent("x")])
    with pytest.raises(ValueError, match="direction 'x' is for codes of 12 numbers, and the model's have 4"):
        Steered(toys.Coder(gaussian_blocks(4)), [true("x")])


def test_three_lines_of_a_users_are_enough():
    class Mine:
        codes, image_shape = gaussian_blocks(3), (1, 4, 4)

        def decode(self, codes):
            return codes.sum(1).sigmoid().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    model = Steered(Mine(), [make_direction("light", torch.ones(3))])
    codes = model.prior(2, rng())
    brighter = models.decode(model, model.directions["light"].move(codes, 1.0))
    assert (brighter > models.decode(model, codes)).all() and model.device.type == "cpu"


# ---- helpers


def test_what_can_be_steered():
    space = CodeSpace([
        Block("kind", "onehot", (2,)), Block("z", "gaussian", (2,)), Block("map", "map", (1, 1, 2)),
        Block("c", "uniform", low=-1, high=1), Block("free", "free", (1,)),
    ])  # fmt: skip
    assert steerable(space).int().tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    view = make_direction("v", [1.0, 0, 0])  # it lies at position 0, and does not make it movable
    fixed = CodeSpace([Block("kind", "onehot", (3,)), view], size=3)
    assert not steerable(fixed).any()


class Falls(Exception):
    pass


@pytest.mark.parametrize("falls", [False, True])
def test_still_is_undone_afterwards(falls):
    coder = toys.Coder(gaussian_blocks(4), norm=True)
    coder.encoder.eval()
    coder.encoder[0].weight.requires_grad_(False)
    modes = [m.training for m in coder.modules()]
    asked = [p.requires_grad for p in coder.parameters()]
    assert len(set(modes)) == len(set(asked)) == 2
    before, codes = weights(coder), draw(3, 4).requires_grad_()
    try:
        with still(coder) as model:
            assert model is coder and not any(m.training for m in coder.modules())
            coder.decode(codes).sum().backward()
            if falls:
                raise Falls
    except Falls:
        pass
    assert [m.training for m in coder.modules()] == modes
    assert [p.requires_grad for p in coder.parameters()] == asked
    assert all(p.grad is None for p in coder.parameters()) and (codes.grad != 0).any()
    assert equal(before, weights(coder))
    with still(toys.Dots()) as dots:  # a model without weights
        assert isinstance(dots, toys.Dots)


class Shows:
    """A model that decodes to what it is told."""

    codes, image_shape = gaussian_blocks(2), (1, 2, 2)

    def __init__(self, values):
        self.values = values

    def decode(self, codes):
        return torch.as_tensor(self.values, dtype=torch.float32).expand(len(codes), 1, 2, 2)


@pytest.mark.parametrize("model, message", [
    (Shows([[0.0, 2.0], [0.5, 1.0]]), "images lie in .0, 1., but Shows decodes to 0 ... 2: scale them"),
    (Shows([[-1.0, 1.0], [0.5, 1.0]]), r"Shows decodes to -1 ... 1: give \(x \+ 1\) / 2 of pictures in \[-1, 1\]"),
    (Shows([[-1.0, 255.0], [0.5, 1.0]]), "decodes to -1 ... 255: scale them"),
    (Shows([[math.nan, 0.0], [0.5, 1.0]]), "Shows decodes every code to NaN: its weights are broken"),
    (Shows([[math.inf, 0.0], [0.5, 1.0]]), "Shows decodes every code to NaN"),
])  # fmt: skip
def test_pictures_that_are_not_what_the_model_declares(model, message):
    with pytest.raises(UserError, match=message):
        pictures(model, torch.zeros(3, 2))


def test_pictures_of_another_shape():
    model = Shows([[0.0, 0.5], [0.5, 1.0]])
    model.image_shape = (3, 2, 2)
    with pytest.raises(UserError, match=r"Shows declares images \(3, 2, 2\), but decodes 3 codes to \(3, 1, 2, 2\)"):
        pictures(model, torch.zeros(3, 2))


def test_pictures_some_of_which_are_broken_pass():
    class Half(Shows):
        def decode(self, codes):
            return torch.where(codes[:, :1, None, None] > 0, torch.nan, super().decode(codes))

    x = pictures(Half([[0.0, 1.0005], [0.5, 1.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert x[0].isnan().all() and x[1].isfinite().all() and not x.requires_grad
    coder = toys.Coder(gaussian_blocks(2), norm=True).train()
    torch.testing.assert_close(pictures(coder, draw(4, 2)), models.decode(coder, draw(4, 2)))
    assert coder.training
