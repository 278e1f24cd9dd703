"""Hard negatives: which codes are chosen, what is done with them, where training goes on from, runs, refusals."""

import copy
import types

import pytest
import torch
import toys
from methods.family import rng
from test_toys import like_a_capture

from disentkit import methods, models, plots, workbench
from disentkit.data import load
from disentkit.data.base import Data, Spec
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import finegan, mixnmatch
from disentkit.methods.hard_negatives import HardNegatives, Settings
from disentkit.metrics.blocks import block_stats

SPEC = Spec((3, 32, 32))
BASE = finegan.Settings(
    z=4, parents=2, children=4, lam_b=7.0, wide=0.5, ema=0.9, lr=1e-3, size=32, batch=4, steps=2
)  # fmt: skip


class Boxed(Data):
    """Noise with boxes: x and full (n, 3, 32, 32), box (n, 4)."""

    name = "boxed noise"
    image_shape = (3, 32, 32)

    def sample(self, n, rng):
        x, full = torch.rand(2, n, 3, 32, 32, generator=rng, device=rng.device)
        low = 16 * torch.rand(n, 2, generator=rng, device=rng.device)
        return {"x": x, "full": full, "box": torch.cat([low, low + 8], dim=1)}


def base_run(settings: finegan.Settings = BASE):
    """A base whose average and players are those of a few steps."""
    with seeded(3):
        learner = finegan.FineGAN(settings, SPEC)
    learner.rng = rng(1)
    learner.train().step(learner.optimizers(), Boxed().sample(4, rng(2)))
    return types.SimpleNamespace(model=learner.model.eval().requires_grad_(False))


def build(base=None, seed: int = 0, **settings) -> HardNegatives:
    """A learner with the weights of its base; its own draws come from `rng(7)`."""
    few = {"pool": 3, "lr": 1e-3, "lr_D": 1e-3, "size": 32, "batch": 4, "steps": 4}
    with seeded(seed):
        learner = HardNegatives(Settings(**few | settings), SPEC, base or base_run())
    learner.rng = rng(7)
    return learner.train()


def batches(n: int = 4) -> list[dict]:
    return [Boxed().sample(n, rng(10 + i)) for i in range(2)]


# ---- the choice


def test_those_of_lowest_probability_are_chosen():
    learner, reference, draws = build(pool=5), build(), rng(7)
    y, gauges = learner.hardest(4)
    found = []
    for _ in range(5):  # by hand, a batch at a time, since batch norms mix what is in it
        z, c = torch.randn(4, 4, generator=draws), torch.randint(4, (4,), generator=draws)
        codes = finegan.one_hot(c, 4)
        with torch.no_grad():
            made = reference.gan.G(z, codes, z, finegan.one_hot(c // 2, 2), codes)
            logits = reference.gan.D_c(made.C_m * made.C_f, code=True)
        for i in range(4):
            found.append((float(logits[i].softmax(0)[c[i]]), z[i], int(c[i])))
    assert len({p for p, _, _ in found}) == 20
    wanted = sorted(found, key=lambda one: one[0])[:4]
    for i, (_, z, c) in enumerate(wanted):
        assert torch.equal(y.z[i], z) and torch.equal(y.z_b[i], z)
        assert int(y.c[i].argmax()) == int(y.b[i].argmax()) == c and int(y.p[i].argmax()) == c // 2
    assert gauges["sure_of_hard"] == pytest.approx(sum(p for p, _, _ in wanted) / 4, rel=1e-4)
    assert gauges["sure_of_all"] == pytest.approx(sum(p for p, _, _ in found) / 20, rel=1e-4)
    assert not any(part.requires_grad for part in y)


def test_a_pool_of_one_batch_chooses_all_of_it():
    learner, draws = build(pool=1), rng(7)
    y, gauges = learner.hardest(4)
    drawn = finegan.tied(4, BASE, draws)
    order = [int((drawn.z == z).all(1).nonzero()[0]) for z in y.z]
    assert sorted(order) == [0, 1, 2, 3] and torch.equal(y.c, drawn.c[order])
    assert gauges["sure_of_hard"] == pytest.approx(gauges["sure_of_all"].item())


# ---- the updates


def test_an_ordinary_update_is_that_of_finegan():
    """Weights, statistics, optimisers and the average, to the bit."""
    learner, reference = build(), build().gan
    reference.rng = rng(7)
    opt, theirs, batch = learner.optimizers(), reference.optimizers(), batches()[0]
    found = learner.gan.learn(opt, batch, finegan.tied(4, learner.gan.settings, learner.rng))
    assert toys.same(found, reference.step(theirs, batch)) == ""
    assert toys.same(dict(learner.gan.state_dict()), dict(reference.state_dict())) == ""
    for name, one in opt.items():
        assert toys.same(one.state_dict(), theirs[name].state_dict()) == ""


def test_a_step_is_an_ordinary_update_and_a_hard_one():
    learner, reference = build(), build()
    opt, theirs, (usual, other) = learner.optimizers(), reference.optimizers(), batches()
    losses = learner.step(opt, usual, other)
    first = reference.gan.learn(theirs, usual, finegan.tied(4, BASE, reference.rng))
    y, gauges = reference.hardest(4)
    second = reference.gan.learn(theirs, other, y)
    assert toys.same(dict(learner.state_dict()), dict(reference.state_dict())) == ""
    assert toys.same(first | gauges, {name: losses[name] for name in first | gauges}) == ""
    hard = {name: value for name, value in losses.items() if name.startswith("hard_")}
    assert toys.same(hard, {f"hard_{name}": second[name] for name in second if name.startswith("L_")}) == ""
    assert {"hard_L_c_info", "hard_L_c_adv", "hard_L_p"} < set(hard) and learner.draws == 2


def test_it_goes_on_from_the_average_with_the_bases_players():
    base = base_run()
    before = copy.deepcopy(dict(base.model.state_dict()))
    learner = build(base)
    assert toys.same(before, dict(learner.model.state_dict())) == ""
    assert toys.same(dict(learner.gan.G.state_dict()), dict(base.model.G.state_dict())) == ""
    learner.step(learner.optimizers(), *batches())
    assert toys.same(before, dict(base.model.state_dict())) == ""  # weights of its own
    assert toys.same(before, dict(learner.model.state_dict())) != ""
    assert learner.gan.D_c is learner.model.D_c and learner.model.G is not learner.gan.G
    s = learner.gan.settings
    assert (s.parents, s.children, s.lam_b, s.ema, s.wide) == (2, 4, 7.0, 0.9, 0.5)  # the base's
    assert (s.lr, s.batch) == (1e-3, 4)


def test_the_average_has_no_warm_start():
    learner = build()
    slow = learner.model.G.background_head.weight.clone()
    learner.gan.learn(learner.optimizers(), batches()[0], finegan.tied(4, BASE, learner.rng))
    fast = learner.gan.G.background_head.weight
    torch.testing.assert_close(learner.model.G.background_head.weight, 0.9 * slow + 0.1 * fast.detach())


def test_step_can_be_captured_and_repeats_itself():
    learner = build()
    opt, same = learner.optimizers(), batches()
    learner.step(opt, *same)
    with like_a_capture():
        losses = learner.step(opt, *same)
    assert all(v.ndim == 0 and not v.requires_grad and v.isfinite() for v in losses.values())
    assert losses["sure_of_hard"] < losses["sure_of_all"]
    runs = [toys.fit(build(), steps=1, seed=seed, data=Boxed(), precision="bf16")[1] for seed in (0, 0, 1)]
    assert toys.same(runs[0], runs[1]) == "" and toys.same(runs[0], runs[2]) != ""


# ---- training, runs


def test_resumed_is_the_same_to_the_bit(tmp_path):
    kept = {"data": Boxed(), "read_every": 1, "folder": tmp_path}
    whole = toys.fit(build(), steps=3, data=Boxed(), read_every=1)[1]
    toys.fit(build(), steps=2, **kept)
    fitted, resumed = toys.fit(build(), steps=3, **kept)
    assert fitted.started_at == 2 and toys.same(whole, resumed) == ""


@pytest.fixture(scope="module")
def hard_runs(tmp_path_factory):
    """A short run of FineGAN, one of hard negatives on it, and one more on that, through the workbench."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISENTKIT_HOME", str(tmp_path_factory.mktemp("hard")))
        patch.setattr(plots, "training_picture", lambda rows, history: b"a picture that takes no time")
        patch.setattr(workbench, "block_stats", lambda model, data, **more: block_stats(model, data, n=70))
        quiet = {"device": "cpu", "threads": 1, "say": toys.quiet, "data": load("emblems", size=32, few=True)}
        base = workbench.train("finegan", settings=BASE, **quiet)
        own = Settings(pool=2, size=32, batch=4, steps=2)
        run = workbench.train("finegan_hard", settings=own, base=base, **quiet)
        return base, run, workbench.train("finegan_hard", settings=own, base=run, name="again", **quiet)


def test_run_opens_as_it_was_saved(hard_runs):
    base, run, again = hard_runs
    for one, from_ in ((run, base), (again, run)):
        opened = workbench.open_run(one.path)
        codes = one.model.prior(6, rng())
        assert torch.equal(models.decode(one.model, codes), models.decode(opened.model, codes))
        assert toys.same(dict(one.model.state_dict()), dict(opened.model.state_dict())) == ""
        assert toys.same(dict(one.model.state_dict()), dict(from_.model.state_dict())) != ""
        assert opened.settings == one.settings and type(opened.settings) is Settings
        assert opened.card["base"]["weights"] == from_.card["weights"]
    assert {"sure_of_hard", "sure_of_all", "hard_L_c_info"} <= set(run.history)


def test_pictures_of_a_training(hard_runs):
    learner, x = build(hard_runs[0]), Boxed().sample(4, rng())["x"]
    with models.frozen(learner):
        rows, theirs = learner.preview({"x": x}), learner.gan.preview({"x": x})
    assert toys.same(rows, theirs) == "" and torch.equal(rows["pictures"], x)


def test_presets():
    presets = HardNegatives.PRESETS
    assert (presets["paper", "emblems"].pool, presets["paper", "emblems"].steps) == (10, 750)
    for (preset, data), s in presets.items():
        assert s.size == methods.settings_for("finegan", data, preset).size and s.steps <= 750


# ---- what it refuses


def test_bases_and_settings_that_cannot_be(hard_runs):
    small = Settings(size=32)
    other = types.SimpleNamespace(
        model=mixnmatch.MixNMatchModel((3, 32, 32), mixnmatch.Settings(**vars(BASE))), card={"method": "mixnmatch"}
    )
    with pytest.raises(UserError, match="second stage of FineGAN: give base=RUN, a run of finegan"):
        HardNegatives(small, SPEC)
    with pytest.raises(UserError, match="build on a run of finegan, not on one of mixnmatch"):
        HardNegatives(small, SPEC, other)
    with pytest.raises(UserError, match=r"the data are \(3, 64, 64\), the base run makes \(3, 32, 32\)"):
        HardNegatives(Settings(size=64), Spec((3, 64, 64)), hard_runs[0])
    with pytest.raises(UserError, match="batch norm needs two pictures: batch must be 2 or more, not 1"):
        build(batch=1)
    with pytest.raises(UserError, match="setting pool of finegan_hard must be a whole number of 1 or more, not 0"):
        methods.changed_settings("finegan_hard", small, {"pool": 0})
