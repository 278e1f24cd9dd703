"""Directions: every trajectory for itself, what each setting does to the codes, whom the gradient reaches, bad bases,
and runs that stop, go on and open again."""

import math
import re
import warnings
from types import SimpleNamespace

import pytest
import torch
import toys
from methods.family import draw, equal, rng, weights
from test_toys import global_states, like_a_capture

from disentkit import models, workbench
from disentkit.codes import Block, CodeSpace, gaussian_blocks
from disentkit.data.base import Spec
from disentkit.data.factors import category
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import learner_class, settings_for
from disentkit.methods.biggan import Sampler
from disentkit.methods.biggan import Settings as GANSettings
from disentkit.methods.directions import Directions, Learned, Settings, Steered, Trajectories, learn, make_direction
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.reconstruction import filtered_error
from disentkit.methods.transforms import TRANSFORMS, Transform

SMALL = {"levels": 2, "batch": 8, "steps": 8, "size": 16}
oracle = OracleGenerator(16, d=8)


def build(model=oracle, transforms="x", z0=None, spec=None, own=None, **settings) -> Directions:
    """A learner whose z_0 come from seed 0, on 16 pixels."""
    s = Settings(**SMALL | ({} if z0 is None else {"batch": len(z0)}) | {"transforms": transforms} | settings)
    with seeded(0), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ trajectories for")
        return Directions(s, spec, SimpleNamespace(model=model), own, z0=z0)


def follow(learner: Directions, steps: int | None = None) -> torch.Tensor:
    """Take the steps; the codes (steps + 1, R, D) before, between and after them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ trajectories for")
        opt = learner.optimizers()
    seen = [learner.z.detach().clone()]
    for t in range(steps or learner.settings.steps):
        learner.t.fill_(t)
        learner.last = learner.step(opt)
        seen.append(learner.z.detach().clone())
    learner.opt = opt["z"]
    return torch.stack(seen)


def by_row(learner: Directions) -> torch.Tensor:
    """The paths (levels, F, 2, n, D)."""
    found = learner.model
    return found.paths.unflatten(1, (len(found.transforms), 2, len(found.z0)))


class Knobs(toys.Coder):
    """A generator with random weights and a block of every kind."""

    def __init__(self):
        blocks = [
            Block("kind", "onehot", (3,)), Block("c", "uniform", (2,), low=-1, high=1), Block("z", "gaussian", (4,)),
            Block("free", "free", (1,)), Block("map", "map", (1, 1, 2)),
        ]  # fmt: skip
        super().__init__(CodeSpace(blocks), norm=True)


def knobs() -> Knobs:
    with seeded(0):
        return Knobs()


class Broken(OracleGenerator):
    """NaN for codes whose last number is above 4, in the gradient too."""

    def decode(self, codes):
        return super().decode(codes) * torch.where(codes[:, -1] > 4, torch.nan, 1.0)[:, None, None, None]


# ---- trajectories


@pytest.mark.parametrize("settings", [{}, {"start": "direct", "moment": "coordinate"}, {"loss": "ssim"}], ids=str)
def test_no_trajectory_feels_another(settings):
    """All sides, factors and starts as one batch, or each start alone: the same paths."""
    z0 = draw(8, 8)
    whole = build(z0=z0, transforms="x, brightness", **settings)
    follow(whole)
    for i in (0, 3, 7):
        alone = build(z0=z0[i : i + 1], transforms="x, brightness", **settings)
        follow(alone)
        torch.testing.assert_close(by_row(whole)[:, :, :, i], by_row(alone)[:, :, :, 0], rtol=0, atol=1e-3)
    for name in ("x", "brightness"):
        one = build(z0=z0, transforms=name, **settings)
        follow(one)
        both = whole.model.trajectories[name]
        torch.testing.assert_close(both.z, one.model.trajectories[name].z, rtol=0, atol=1e-3)


@pytest.mark.parametrize("start", ["recursive", "direct"])
def test_a_pair_is_kept_with_the_error_it_was_evaluated_with(start):
    """Trajectories by their names, t ascending, and the errors those of the kept codes, targets made of I_0 alone."""
    learner = build(transforms="x, y, zoom", start=start, levels=3, steps=12)
    follow(learner)
    found = learner.model
    assert list(found.trajectories) == ["x", "y", "zoom"]
    x0 = models.decode(oracle, found.z0)
    for name, trajectories in found.trajectories.items():
        assert isinstance(trajectories, Trajectories) and trajectories.z.shape == (6, 8, 8)
        assert (trajectories.t.diff() > 0).all() and trajectories.unit == TRANSFORMS[name].unit
        for t, z, errors in zip(trajectories.t, trajectories.z, trajectories.errors, strict=True):
            target, mask = TRANSFORMS[name](x0, t)
            wanted = filtered_error(models.decode(oracle, z), target, mask, sigma=3 / 128 * 16)
            torch.testing.assert_close(errors, wanted, rtol=1e-3, atol=1e-7)


def test_t_is_what_the_transformation_really_does():
    """Whole pixels for shifts: 0.25 / 3 of 16 pixels is one pixel and not 1.33."""
    found = build(transforms="x, zoom", levels=3, steps=3).model
    assert found.trajectories["x"].t.tolist() == [-4 / 16, -3 / 16, -1 / 16, 1 / 16, 3 / 16, 4 / 16]
    assert found.trajectories["zoom"].t.tolist() == pytest.approx([-0.4, -0.8 / 3, -0.4 / 3, 0.4 / 3, 0.8 / 3, 0.4])
    assert build(transforms="zoom", reach=0.5).model.trajectories["zoom"].t.tolist() == pytest.approx(
        [-0.2, -0.1, 0.1, 0.2]
    )


def test_each_target_begins_where_the_last_ended_or_at_z0():
    """With one update a target, what is kept is where it began."""
    for start in ("recursive", "direct"):
        learner = build(start=start, levels=4, steps=4)
        seen = follow(learner)
        kept, z0 = learner.model.paths, learner.model.z0.repeat(2, 1)
        if start == "recursive":
            assert torch.equal(kept, seen[:4]) and (kept[1:] != kept[:-1]).any(-1).all()
        else:
            assert torch.equal(kept, z0.expand_as(kept))


@pytest.mark.parametrize("moment", ["trajectory", "coordinate"])
def test_adam_begins_afresh_at_every_target(moment):
    """Its first step has a length of its own whatever the gradient, and later ones have not."""
    learner = build(norm="free", moment=moment, levels=2, steps=7, lr=0.02)  # the second target begins at step 4
    steps = follow(learner).diff(dim=0)
    # Each coordinate goes by lr, or all of them by as much together.
    lengths = steps.abs().flatten(1) if moment == "coordinate" else steps.norm(dim=2) / math.sqrt(8)
    long = [k for k, of_rows in enumerate(lengths) if float(of_rows.median()) == pytest.approx(0.02, rel=1e-3)]
    assert long == [0, 4]
    assert all(float(value["step"]) == 3 for value in learner.opt.state.values())


def test_targets_take_turns_in_equal_shares():
    for levels, steps in ((2, 8), (5, 250), (3, 7), (4, 4), (7, 100)):
        learner = build(levels=levels, steps=steps)
        seen = []
        for t in range(steps):
            learner.t.fill_(t)
            level, first = learner.level()
            assert bool(first) == (not seen or int(level) != seen[-1])
            seen.append(int(level))
        counts = torch.tensor(seen).bincount(minlength=levels)
        assert seen == sorted(seen) and counts.max() - counts.min() <= 1 and len(counts) == levels


@pytest.mark.parametrize("norm", ["ball", "free"])
def test_the_ball_holds_all_codes_at_all_times(norm):
    z0 = torch.cat([3 * draw(4, 8), 0.1 * draw(4, 8)])
    learner = build(z0=z0, norm=norm, lr=0.5)
    length = follow(learner).norm(dim=-1)
    limit = math.sqrt(8) + 1e-5
    if norm == "free":
        assert torch.equal(learner.model.z0, z0) and length.max() > 2 * limit
    else:
        assert length.max() <= limit and learner.model.z0.norm(dim=1).max() <= limit
        torch.testing.assert_close(learner.model.z0[4:], z0[4:])  # a ball, and no sphere
        torch.testing.assert_close(learner.model.z0[:4], math.sqrt(8) * z0[:4] / z0[:4].norm(dim=1, keepdim=True))


def test_blocks_of_every_kind():
    """Uniform ones stay in their range, gaussian ones in their own ball, one-hot and map blocks where they were."""
    model = knobs()
    learner = build(model, transforms="brightness", lr=0.7, batch=10)
    codes, seen = model.codes, follow(learner)
    rows, z0 = seen.flatten(0, 1), learner.model.z0.repeat(2, 1)
    read = {name: codes.read(rows, name) for name in codes.names}
    assert read["c"].min() == -1 and read["c"].max() == 1
    assert 1.99 < read["z"].norm(dim=1).max() <= 2 + 1e-5  # sqrt(4): the others are no part of it
    assert read["free"].abs().max() > 2
    for step in seen:
        for name in ("kind", "map"):
            assert torch.equal(codes.read(step, name), codes.read(z0, name))
    assert set(codes.read(z0, "kind").flatten().tolist()) == {0.0, 1.0} and codes.read(z0, "kind").any(0).all()
    u = torch.tensor(learner.model.directions["brightness"].u)
    assert (u[:3] == 0).all() and (u[-2:] == 0).all() and (u[3:8] != 0).all()


def test_the_class_of_a_label():
    for label in (1, 3):
        z0 = build(knobs(), label=label).model.z0
        assert torch.equal(z0[:, :3], torch.eye(3)[label - 1].expand(8, 3))
    other = build(knobs()).model.z0
    assert torch.equal(other[:, 3:], z0[:, 3:])
    for model, has in ((knobs(), "3 classes"), (oracle, "no classes")):
        with pytest.raises(UserError, match=f"label=4, but the generator has {has}; 0 draws them from the prior"):
            build(model, label=4)


def test_a_loss_and_transformations_of_ones_own():
    """Contrast, with absolute error."""

    def contrast(x, t):
        return (0.5 + (x - 0.5) * t.exp()[:, None, None, None]).clamp(0, 1), torch.ones_like(x[:, :1])

    calls = []

    def absolute(x, target, mask):
        calls.append(x.shape)
        return (mask * (x - target)).abs().mean((1, 2, 3))

    own = Transform("contrast", "ln of the gain", 0.4, contrast)
    with pytest.raises(UserError, match="unknown loss 'mse'. Known: filtered, ssim"):
        learn(oracle, "x", loss="mse", bar=False, **SMALL)
    ssim = learn(oracle, "x", loss="ssim", bar=False, **SMALL)
    assert ssim.settings.loss == "ssim" and ssim.directions != learn(oracle, "x", bar=False, **SMALL).directions
    found = learn(oracle, [own, "x"], loss=absolute, bar=False, **SMALL)
    assert list(found.directions) == ["contrast", "x"] and calls == [(32, 3, 16, 16)] * 8
    assert found.trajectories["contrast"].t.tolist() == pytest.approx([-0.4, -0.2, 0.2, 0.4])
    x0, here = models.decode(oracle, found.z0), found.trajectories["contrast"]
    target, mask = own(x0, here.t[3])
    torch.testing.assert_close(here.errors[3], absolute(models.decode(oracle, here.z[3]), target, mask))


# ---- the base


def test_the_base_is_left_as_it_was():
    """The gradient goes through it to the codes and leaves nothing behind."""
    model = knobs().train()
    model.decoder[0].weight.requires_grad_(False)
    before, asked = weights(model), [p.requires_grad for p in model.parameters()]
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    found = learn(model, "brightness", bar=False, batch=12, levels=2, steps=6)
    assert (found.paths[-1] != found.paths[0]).any()
    assert equal(before, weights(model)) and [p.requires_grad for p in model.parameters()] == asked
    assert all(p.grad is None for p in model.parameters()) and all(m.training for m in model.modules())
    assert toys.same(buffers, dict(model.named_buffers())) == ""
    assert not list(found.parameters()) and set(found.state_dict()) == {"z0", "paths", "errors"}


def test_a_steered_base_is_its_generator():
    """Directions of what has directions already are found in the generator itself."""
    first = Steered(oracle, [make_direction("x", oracle.u("x"))])
    found = learn(first, "x", bar=False, **SMALL)
    assert found.base is oracle and found.codes.names == ("z", "x")
    assert found.directions["x"] == learn(oracle, "x", bar=False, **SMALL).directions["x"]


class Light:
    """A user's model of three lines."""

    codes, image_shape = gaussian_blocks(3), (1, 8, 8)

    def decode(self, codes):
        return (codes @ torch.tensor([1.0, 2.0, 2.0])).sigmoid().reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)


def test_three_lines_of_a_users_are_enough():
    found = learn(Light(), "brightness", bar=False, batch=20, levels=2, steps=60, lr=0.05)
    u = torch.tensor(found.directions["brightness"].u)
    assert float(u @ torch.tensor([1.0, 2.0, 2.0]) / 3) > 0.98
    assert isinstance(found, Learned) and found.codes.names == ("z0", "z1", "z2", "brightness")


def some_model(name: str):
    spec = Spec((1, 32, 32))
    with seeded(0):
        if name == "biggan":
            kind, tiny = category("kind", "a", "b"), GANSettings(chunk=2, embed=2, ch=1, attention=0, size=32)
            return Sampler(spec.image_shape, kind, tiny)
        model = learner_class(name)(settings_for(name, "dsprites", "smoke"), spec).model
    for parameter in model.parameters() if name == "infogan" else ():
        parameter.data.mul_(10)  # so small as they are drawn, all its pictures are of one grey
    return model


@pytest.mark.parametrize("name", ["infogan", "betavae", "biggan"])
def test_bases_of_the_house(name):
    """Untrained, three steps: every factor gets a direction that moves only what can be moved."""
    model = some_model(name)
    d = int(sum(b.size for b in model.codes if b.kind != "onehot"))
    found = learn(model, bar=False, batch=d, levels=1, steps=3)
    assert list(found.directions) == ["x", "y", "zoom", "brightness"]
    fixed = [i for block in model.codes if block.kind == "onehot" for i in block.at]
    for direction in found.directions.values():
        u = torch.tensor(direction.u)
        assert (u[fixed] == 0).all() and len(u) == model.codes.size
    z = found.prior(2, rng())
    assert models.decode(found, found.codes.traverse(z[0], "x", [-0.1, 0.1])).shape == (2, 1, 32, 32)


# ---- what goes wrong


def test_a_generator_that_gives_nan_here_and_there():
    """Those trajectories are left out with a warning, the others are the same to the bit."""
    z0 = draw(10, 8).clamp(-2, 2)
    z0[[2, 5, 6], -1] = 5.0
    few = {"z0": z0, "bar": False, "levels": 2, "steps": 8, "norm": "free"}
    whole = learn(oracle, ["x", "zoom"], **few)
    with pytest.warns(UserWarning, match="the generator gave NaN on 12 of 40 trajectories; they are left out"):
        found = learn(Broken(16, d=8), ["x", "zoom"], **few)
    good = [i for i in range(10) if i not in (2, 5, 6)]
    assert found.paths.isfinite().all()
    for name, trajectories in found.trajectories.items():
        assert toys.same(vars(trajectories.subset(good)), vars(whole.trajectories[name].subset(good))) == ""
        assert (trajectories.errors[:, [2, 5, 6]] == torch.inf).all() and not trajectories.kept()[:, [2, 5, 6]].any()
        assert torch.equal(trajectories.z[:, 2], z0[2].expand(4, 8))  # it stayed where it was
        assert found.directions[name].u != whole.directions[name].u
    learner = build(Broken(16, d=8), z0=z0, norm="free")
    follow(learner)
    assert float(learner.last["broken"]) == 6 and learner.last["error"].isfinite()


def test_a_code_that_runs_into_nan_goes_back_and_keeps_its_last_good_pair():
    """A generator with a wall: beyond it every number is NaN."""

    class Wall(Light):
        def decode(self, codes):
            beyond = (codes @ torch.tensor([1.0, 2.0, 2.0]) > 2.5)[:, None, None, None]
            return torch.where(beyond, torch.nan, super().decode(codes))

    z0 = torch.tensor([[0.0, 0.0, 1.0]] * 3 + [[0.0, 0.0, -1.0]] * 3)
    learner = build(Wall(), transforms="brightness", z0=z0, lr=0.1, levels=2, steps=20)
    seen = follow(learner)
    assert not Wall().decode(seen[-3:].flatten(0, 1)).isfinite().all()  # the wall was met
    found = learner.model.trajectories["brightness"]
    x0, pictures = Light().decode(z0), Wall().decode(found.z.flatten(0, 1)).unflatten(0, (4, 6))
    assert pictures.isfinite().all() and found.errors.isfinite().all()
    for t, x, errors in zip(found.t, pictures, found.errors, strict=True):
        target, mask = TRANSFORMS["brightness"](x0, t)
        torch.testing.assert_close(errors, filtered_error(x, target, mask, sigma=3 / 128 * 8), rtol=1e-3, atol=1e-7)


def test_a_generator_that_gives_nothing_but_nan():
    z0 = draw(8, 8)
    z0[:, -1] = 5.0
    with pytest.raises(UserError, match="Broken decodes every code to NaN: its weights are broken"):
        build(Broken(16, d=8), z0=z0, norm="free")


@pytest.mark.parametrize("start", ["recursive", "direct"])
def test_a_gradient_too_large_for_its_square_is_forgotten_at_the_next_target(start):
    """An infinite second moment holds a trajectory still, but not for good."""
    learner = build(z0=draw(8, 8), start=start)
    opt = learner.optimizers()
    learner.step(opt)
    opt["z"].state[learner.z]["exp_avg_sq"][3] = torch.inf
    before = learner.z.detach().clone()
    for t in range(1, 8):
        learner.t.fill_(t)
        learner.step(opt)
        assert learner.z.isfinite().all()
        assert torch.equal(learner.z[3], before[3]) == (t < 4)


@pytest.mark.parametrize("settings, message", [
    ({"transforms": "x, hue"}, "unknown transform 'hue'. Known: x, y, zoom, brightness"),
    ({"transforms": "x, y, x"}, "every factor once, and one at least, not: x, y, x"),
    ({"own": []}, "every factor once, and one at least, not: none"),
    ({"start": "warm"}, "unknown start 'warm'. Known: recursive, direct"),
    ({"norm": "sphere"}, "unknown norm 'sphere'. Known: ball, free"),
    ({"loss": "mse"}, "unknown loss 'mse'. Known: filtered, ssim"),
    ({"moment": "row"}, "unknown moment 'row'. Known: trajectory, coordinate"),
    ({"keep": 0.0}, "keep must lie in 0 ... 1 and reach be above 0, not 0.0 and 1.0"),
    ({"sigma": -1.0}, "sigma is a fraction of the picture's width, 0 or more and below 1, not -1"),
    ({"sigma": 3.0}, "sigma is a fraction of the picture's width, 0 or more and below 1, not 3"),
    ({"reach": 0.01}, "x moves no whole pixel at reach=0.01: take more"),
    ({"reach": 0.0}, "keep must lie in 0 ... 1 and reach be above 0, not 0.9 and 0.0"),
    ({"levels": 9}, "9 levels need 9 steps at least, not 8"),
    ({"reach": 4.0}, "transform 'x' at t = -1 leaves 0.0% of the picture defined; take a smaller t"),
    ({"spec": Spec((1, 16, 16))}, r"the data are \(1, 16, 16\), the base run makes \(3, 16, 16\)"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


@pytest.mark.parametrize("settings, message", [
    ({"stepz": 3}, "directions has no setting 'stepz'; it has transforms, reach, levels"),
    ({"steps": 2.5}, "setting steps of directions must be a whole number of 1 or more, not 2.5"),
    ({"levels": 0}, "setting levels of directions must be a whole number"),
    ({"batch": "7"}, "setting batch of directions must be a whole number of 1 or more, not '7'"),
    ({"lr": -1.0}, "setting lr of directions must be a finite number above 0, not -1"),
    ({"sigma": math.nan}, "setting sigma of directions must be a finite number, not nan"),
    ({"pieces": 0}, "setting pieces of directions must be a whole number of 1 or more"),
    ({"label": -1}, "setting label of directions must be a whole number of 0 or more"),
    ({"z0": torch.zeros(0, 8)}, "setting batch of directions must be a whole number of 1 or more, not 0"),
])  # fmt: skip
def test_learn_asks_its_settings_as_a_run_does(settings, message):
    with pytest.raises(UserError, match=message):
        learn(oracle, "x", bar=False, **settings)


def test_a_transformation_that_leaves_nothing_defined_is_named():
    gone = Transform("gone", "nothing", 1.0, lambda x, t: (x, torch.zeros_like(x[:, :1])))
    with pytest.raises(UserError, match="transform 'gone' at t = -1 leaves 0.0% of the picture defined"):
        build(own=["x", gone])
    wrong = Transform("wrong", "nothing", 1.0, lambda x, t: (x[:, :1], x))
    with pytest.raises(UserError, match=r"transform 'wrong' gave a target \(1, 1, 16, 16\)"):
        build(own=[wrong])


def test_no_base_and_bases_that_cannot_be():
    with pytest.raises(UserError, match="directions belong to a trained generator: give base=RUN"):
        Directions(Settings(), Spec((1, 16, 16)))

    class Fixed:
        codes, image_shape = CodeSpace([Block("kind", "onehot", (3,))]), (1, 4, 4)

        def decode(self, codes):
            return codes.sum(1).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    with pytest.raises(UserError, match=r"no block of Fixed can move: .*kind onehot\[3\]"):
        build(Fixed())

    class NoGradient(OracleGenerator):
        @torch.no_grad()
        def decode(self, codes):
            return super().decode(codes)

    with pytest.raises(UserError, match="NoGradient decodes without gradients: no code can be followed"):
        learn(NoGradient(16, d=8), "x", bar=False, **SMALL)

    class HasX(Light):
        codes = CodeSpace([Block("x", "gaussian", (1,)), Block("z", "gaussian", (2,))])

    with pytest.raises(UserError, match="HasX has a block 'x' already: rename the transformation"):
        learn(HasX(), ["brightness", "x"], bar=False, batch=3, steps=2, levels=1)
    with pytest.raises(ValueError, match=re.escape("codes must be (N, 8), not (3, 5)")):
        build(z0=torch.zeros(3, 5))


def test_fewer_trajectories_than_dimensions_are_told_with_both_numbers():
    with pytest.warns(UserWarning, match="5 trajectories for 8 latent dimensions: .* batch=8 or more is safer"):
        learn(oracle, "x", bar=False, **SMALL | {"batch": 5})
    with pytest.warns(UserWarning, match="5 trajectories for 7 latent dimensions"):  # one-hot and map do not count
        learn(knobs(), "brightness", bar=False, levels=1, steps=1, batch=5)


# ---- what is learned


def test_the_oracles_directions_are_found():
    model = OracleGenerator(32, d=16)
    found = learn(model, ["x", "brightness"], bar=False, batch=20, levels=2, steps=40, lr=0.04)
    for name, direction in found.directions.items():
        assert float(torch.tensor(direction.u) @ model.u(name)) > 0.95
    x, codes = found.directions["x"], model.prior(200, rng())
    near = codes[x.projection(codes).abs() < 1]
    moved = model.factor_values(x.move(near, 0.1)) - model.factor_values(near)
    assert float(moved[:, 0].mean()) == pytest.approx(0.1, abs=0.02) and moved[:, 0].std() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"start": "direct"}, {"loss": "ssim"}], ids=str)
def test_all_four_directions_at_course_length(settings):
    """The whole picture is shifted, so the direction of y is one of y and horizon together."""
    model = OracleGenerator(32, d=40)
    found = learn(model, bar=False, batch=60, **settings)
    cos = {name: model.directions @ torch.tensor(direction.u) for name, direction in found.directions.items()}
    for name, least in (("x", 0.95), ("zoom", 0.95), ("brightness", 0.85)):
        assert cos[name][model.factors.index(name)] > least
    y, horizon = (float(cos["y"][model.factors.index(name)]) for name in ("y", "horizon"))
    assert math.hypot(y, horizon) > 0.95 and min(y, horizon) > 0.3


def test_same_seed_same_numbers_other_seed_other_numbers():
    before = global_states()
    learned = []
    for seed, stray in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stray)
            learned.append(learn(oracle, "x", seed=seed, bar=False, **SMALL))
    assert toys.same(before, global_states()) == ""
    one, two, other = ({**found.state_dict()} for found in learned)
    assert toys.same(one, two) == "" and learned[0].directions == learned[1].directions
    assert not torch.equal(one["z0"], other["z0"]) and learned[0].directions != learned[2].directions


def test_refit_keeps_the_trajectories():
    found = learn(oracle, ["x", "zoom"], bar=False, **SMALL | {"pieces": 7})
    again, line, ridge = found.refit(), found.refit(pieces=1), found.refit(how="ridge", keep=1.0)
    assert again.directions == found.directions and again.base is oracle and len(again.directions["x"].s) == 8
    assert len(line.directions["x"].s) == 2 and line.directions["x"].u == found.directions["x"].u
    assert ridge.directions["x"].u != found.directions["x"].u and list(ridge.directions) == ["x", "zoom"]


def test_the_step_can_be_captured():
    for model, settings in ((oracle, {}), (knobs().eval(), {"start": "direct", "moment": "coordinate", "batch": 10})):
        learner = build(model, transforms="x, brightness", **settings)
        opt = learner.optimizers()
        learner.step(opt)
        for t in (1, 4):  # within a target, and at the first step of the next
            learner.t.fill_(t)
            with like_a_capture():
                losses = learner.step(opt)
        assert all(v.ndim == 0 and not v.requires_grad and v.isfinite() for v in losses.values())


def test_live_picture_shows_starts_targets_and_where_they_led():
    learner = build(transforms="x, y")
    follow(learner)
    rows = learner.preview({"x": torch.zeros(3, 3, 16, 16)})
    x0 = models.decode(oracle, learner.model.z0[:3])
    torch.testing.assert_close(rows["G(z0)"], x0)
    torch.testing.assert_close(rows["target of x"], TRANSFORMS["x"](x0, 0.25)[0])
    torch.testing.assert_close(rows["found"], models.decode(oracle, learner.model.trajectories["x"].z[-1, :3]))


def test_presets():
    for (preset, data), s in Directions.PRESETS.items():
        assert s.steps >= s.levels and (s.size <= 32) == (preset in ("smoke", "quick")), (preset, data)
        assert (s.moment == "coordinate") == (preset == "paper")
    paper = Directions.PRESETS["paper", "scenes"]
    far = build(batch=8, reach=paper.reach, levels=paper.levels, steps=paper.steps)
    assert far.model.trajectories["x"].t.abs().max() == 0.5


# ---- runs


@pytest.fixture
def base(toy_runs, monkeypatch):
    """A toy's run, in the home where it lies."""
    monkeypatch.setenv("DISENTKIT_HOME", str(toy_runs["EMA"].path.parent.parent))
    return workbench.open_run(toy_runs["EMA"].card["base"]["path"])


RUN = Settings(transforms="x, brightness", **SMALL)


def test_a_run_opens_with_the_same_directions(base, quick_pictures, tmp_path):
    before = weights(base.model)
    run = toys.train_run("directions", settings=RUN, base=base)
    assert run.card["base"]["weights"] == base.card["weights"] and equal(before, weights(base.model))
    opened = workbench.open_run(run.path)
    assert opened.model.directions == run.model.directions and list(opened.model.directions) == ["x", "brightness"]
    assert [b["name"] for b in run.card["blocks"]] == ["z0", "z1", "z2", "z3", "x", "brightness"]
    codes = run.model.prior(4, rng())
    for name in opened.model.directions:
        edited = opened.model.codes.write(codes, name, 0.05)
        assert torch.equal(models.decode(opened.model, edited), models.decode(run.model, edited))
    line = opened.model.refit(pieces=1)
    assert len(line.directions["x"].s) == 2 and line.directions["x"].u == run.model.directions["x"].u
    half = workbench.open_run(run.save(tmp_path / "half", half=True))
    u, v = (torch.tensor(model.directions["x"].u) for model in (run.model, half.model))
    assert float(u @ v) > 0.99
    assert toys.same(dict(opened.model.state_dict()), dict(run.model.state_dict())) == ""


def test_the_workbench_gives_what_learn_gives(base, quick_pictures):
    """A run and a call in a notebook: the same generator, the same starts, the same directions."""
    run = toys.train_run("directions", settings=RUN, base=base)
    found = learn(base.model, ["x", "brightness"], z0=run.model.z0, bar=False, **SMALL)
    torch.testing.assert_close(found.paths, run.model.paths, rtol=0, atol=1e-4)
    again = toys.train_run("directions", settings=RUN, base=base)
    assert toys.same(dict(again.model.state_dict()), dict(run.model.state_dict())) == ""


def test_runs_that_cannot_be(base, monkeypatch):
    with pytest.raises(UserError, match="directions belong to a trained generator: give base=RUN"):
        toys.train_run("directions", settings=RUN)
    with pytest.raises(UserError, match="directions has no setting 'level'; it has transforms"):
        toys.train_run("directions", settings=RUN, base=base, level=3)
    monkeypatch.setattr(base.model, "image_shape", (1, 32, 32))
    with pytest.raises(UserError, match=r"the data are \(1, 16, 16\), the base run makes \(1, 32, 32\)"):
        toys.train_run("directions", settings=RUN, base=base)


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [3, 5])
def test_stopped_and_resumed_it_gives_the_same_bits(at, tmp_path):
    """In the middle of a target and at the first step of the next; all of it comes from the checkpoint."""

    def stop(step, rows, learner):
        if step == at:
            raise Stop

    def learner(seed=0):
        with seeded(seed):
            return Directions(RUN, None, SimpleNamespace(model=oracle))

    _, whole = toys.fit(learner(), steps=8)
    often = {"folder": tmp_path, "checkpoint_seconds": 0, "watch_seconds": 0}
    with pytest.raises(Stop):
        toys.fit(learner(), steps=8, watch=stop, **often)
    resumed = learner(seed=9)
    fitted, again = toys.fit(resumed, steps=8, **often)
    assert fitted.started_at == at - 1 and toys.same(whole, again) == ""
    assert resumed.model.directions["x"].u == _directions(whole)["x"].u


def _directions(learned: dict) -> dict:
    found = build(transforms=RUN.transforms).model
    found.load_state_dict({key.removeprefix("found."): v for key, v in learned["weights"].items() if "found." in key})
    return found.directions


def test_stopped_early_it_gives_what_is_there():
    """Within the first target of two the far t have no errors yet, and the directions come of the near ones."""
    learner = build(transforms="x, brightness", steps=40)
    follow(learner, steps=15)
    trajectories = learner.model.trajectories["x"]
    assert trajectories.errors.isfinite().all(1).tolist() == [False, True, True, False]
    assert float(torch.tensor(learner.model.directions["x"].u) @ oracle.u("x")) > 0.9
