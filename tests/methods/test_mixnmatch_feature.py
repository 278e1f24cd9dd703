"""Feature mode: the base stands still, S takes the trunk's place, whose loss teaches whom, runs and what it refuses."""

import copy
import types

import pytest
import torch
import torch.nn.functional as F
import toys
from methods.family import equal, rng, weights
from test_toys import like_a_capture

from disentkit import methods, models, plots, previews, workbench
from disentkit.data import load
from disentkit.data.base import ArrayData, Spec
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import finegan, mixnmatch, mixnmatch_feature
from disentkit.methods.mixnmatch_feature import MixNMatchFeature, Settings
from disentkit.metrics.blocks import block_stats

SPEC = Spec((3, 32, 32))
BASE = {"z": 4, "parents": 2, "children": 4, "wide": 0.5, "size": 32, "batch": 4, "steps": 2}


def base_run(seed: int = 0, **settings):
    """A base with untrained weights, whose batch norms have seen a few pictures."""
    s = mixnmatch.Settings(**BASE | settings)
    with seeded(seed):
        model = mixnmatch.MixNMatchModel((3, s.size, s.size), s)
    with torch.no_grad():
        for _ in range(3):
            model.encode(model.decode(model.prior(8, rng(1))))
    return types.SimpleNamespace(model=model.eval().requires_grad_(False))


def build(base=None, seed: int = 0, **settings) -> MixNMatchFeature:
    """A learner with the weights of `seed`; its own draws come from `rng(7)`."""
    few = {"wide": 0.5, "lr": 1e-3, "lr_D": 1e-3, "size": 32, "batch": 4, "steps": 4}
    with seeded(seed):
        learner = MixNMatchFeature(Settings(**few | settings), SPEC, base or base_run())
    learner.rng = rng(7)
    return learner.train()


def pictures(seed: int = 0, n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=rng(seed))


def mine() -> ArrayData:
    """Feature mode itself needs neither boxes nor factors."""
    return ArrayData(pictures(9, 20).numpy(), name="mine")


def forbid(*modules) -> None:
    """From here on a call of these networks is an error."""
    for module in modules:
        module.register_forward_pre_hook(lambda *_: pytest.fail("this network was called"))


# ---- the model


def test_blocks_and_pickers():
    model = build().model
    assert model.codes.names == ("b", "z_b", "c", "F") and all(block.inferred for block in model.codes)
    assert [block.picker for block in model.codes] == ["background", "background", "texture", "shape and pose"]
    assert model.codes["F"].kind == "map" and model.codes["F"].shape == model.base.G.feature_shape
    assert model.codes.size == 4 + 4 + 4 + model.codes["F"].size


@pytest.mark.parametrize("size, wide", [(32, 0.5), (32, 1.0), (64, 0.25)])
def test_s_makes_maps_of_the_shape_of_the_parents(size, wide):
    base = base_run(size=size, wide=wide)
    with seeded(0):
        learner = MixNMatchFeature(Settings(size=size, wide=0.25), Spec((3, size, size)), base)
    learner.rng = rng(7)
    F_p, x = learner.draw(2)
    assert learner.mixer.S(x).shape == F_p.shape == (2, *base.model.G.feature_shape)


def test_with_the_parents_own_map_it_is_code_mode():
    """Codes of the prior decode as the base decodes those that they were made of, stage by stage."""
    model = build().model.eval()
    ours, theirs = model.prior(5, rng(3)), model.base.prior(5, rng(3))
    wanted = model.base.stages(theirs)
    assert list(wanted) == list(finegan.STAGES) == list(model.stages(ours))
    for name, made in model.stages(ours).items():
        torch.testing.assert_close(made, wanted[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(model.decode(ours), model.stages(ours)["child"])
    other = model.codes.swap(ours, ours.roll(1, 0), "F")
    assert not torch.allclose(model.decode(other), model.decode(ours), atol=1e-3)
    assert torch.equal(model.stages(other)["background"], model.stages(ours)["background"])


def test_encode_reads_as_the_base_does_and_shape_by_s():
    model, x = build().model.eval(), pictures()
    codes, theirs = model.encode(x), model.base.encode(x)
    for name in ("b", "z_b", "c"):
        assert torch.equal(model.codes.read(codes, name), model.base.codes.read(theirs, name))
    assert torch.equal(model.codes.read(codes, "F"), model.S(2 * x - 1))


def test_neither_trunk_nor_shape_encoder_is_asked():
    model, x = build().model.eval(), pictures()
    forbid(model.base.G.parent_trunk, model.base.G.parent_join, model.base.E["p"])
    made = model.stages(model.encode(x))
    assert torch.equal(model.decode(model.encode(x)), made["child"])
    with pytest.raises(pytest.fail.Exception, match="was called"):  # the hook is not blind
        model.base.decode(model.base.prior(1, rng()))


def test_the_base_goes_along_but_is_not_kept():
    model = build().model
    assert {name.split(".")[0] for name in model.state_dict()} == {"S"}
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.S.parameters()}
    moved = copy.deepcopy(model).to(torch.float64)
    assert moved.base is not model.base and moved.base.G.background_head.weight.dtype == torch.float64
    assert model.base.G.background_head.weight.dtype == torch.float32
    model.base.train()
    with models.frozen(model):
        assert not any(part.training for part in [*model.S.modules(), *model.base.modules()])
    assert model.base.G.training


# ---- losses and updates


def test_step_equals_a_hand_written_reference():
    learner, reference = build(lam_adv=0.5, lam_1=2.0, soft=1.0), build()
    x, draws = pictures(), rng(7)
    opt = {name: torch.optim.SGD(o.param_groups[0]["params"], lr=0.1) for name, o in learner.optimizers().items()}
    losses = learner.step(opt, {"x": x})

    S, D, base = reference.mixer.S, reference.D_f, reference.mixer.base
    with torch.no_grad():
        y = finegan.free(4, base.settings, draws)
        made = base.G(y.z, y.b, y.z, torch.randn(4, 2, generator=draws).softmax(1), y.c)
    one, none = torch.ones(4, 1, 24, 24), torch.zeros(4, 1, 24, 24)
    real, fake = D(made.F), D(S(2 * x - 1).detach())
    L_Df = F.binary_cross_entropy(real.sigmoid(), one) + F.binary_cross_entropy(fake.sigmoid(), none)
    torch.testing.assert_close(losses["L_Df"], L_Df.detach())
    right = torch.cat([real > 0, fake < 0]).float().mean()
    assert losses["accuracy_Df"] == pytest.approx(right.item())
    grads = torch.autograd.grad(L_Df, list(D.parameters()))
    with torch.no_grad():
        for p, g in zip(D.parameters(), grads, strict=True):
            p -= 0.1 * g
    reference.mixer.S.load_state_dict(build().mixer.S.state_dict())  # batch norms have seen x once, here twice
    L_adv = F.binary_cross_entropy(D(S(2 * x - 1)).sigmoid(), one)
    L_1 = F.l1_loss(S(made.C), made.F)
    torch.testing.assert_close(losses["L_adv"], L_adv.detach())
    torch.testing.assert_close(losses["L_1"], L_1.detach())
    grads = torch.autograd.grad(0.5 * L_adv + 2 * L_1, list(S.parameters()))
    with torch.no_grad():
        for p, g in zip(S.parameters(), grads, strict=True):
            p -= 0.1 * g
    for ours, theirs in ((learner.mixer.S, S), (learner.D_f, D)):
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_each_update_moves_its_own_player_only():
    learner = build()
    opt, x = learner.optimizers(), 2 * pictures() - 1
    F_p, x_drawn = learner.draw(4)
    assert not F_p.requires_grad and not x_drawn.requires_grad
    found = learner.mixer.S(x)
    S, D = weights(learner.mixer.S), weights(learner.D_f)
    learner.update_D(opt["D_f"], F_p, found.detach())
    assert equal(S, weights(learner.mixer.S)) and all(p.grad is None for p in learner.mixer.S.parameters())
    assert not equal(D, weights(learner.D_f))
    D, grads = weights(learner.D_f), [p.grad.clone() for p in learner.D_f.parameters()]
    learner.update_S(opt["S"], found, x_drawn, F_p)
    assert equal(D, weights(learner.D_f)) and equal(grads, [p.grad for p in learner.D_f.parameters()])
    assert not equal(S, weights(learner.mixer.S)) and all(p.requires_grad for p in learner.D_f.parameters())
    owned = [{id(p) for p in opt[name].param_groups[0]["params"]} for name in ("S", "D_f")]
    assert owned == [{id(p) for p in net.parameters()} for net in (learner.mixer.S, learner.D_f)]
    assert set(learner.networks()) == {"mixer.S", "D_f"}


def test_l1_alone_reaches_s_and_nobody_else():
    learner = build(lam_adv=0.0)
    F_p, x_drawn = learner.draw(4)
    learner.update_S(learner.optimizers()["S"], learner.mixer.S(pictures()), x_drawn, F_p)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learner.mixer.S.parameters())
    others = [*learner.D_f.parameters(), *learner.mixer.base.parameters()]
    assert all(p.grad is None or not p.grad.any() for p in others)


def test_the_base_is_the_same_to_the_bit_after_training():
    base = base_run()
    before = copy.deepcopy(base.model.state_dict())
    toys.fit(build(base), steps=2, data=mine())
    assert toys.same(dict(before), dict(base.model.state_dict())) == ""
    assert not any(part.training for part in base.model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in base.model.parameters())


@pytest.mark.parametrize("soft", [0.0, 0.2, 1.0])
def test_shapes_are_soft_in_that_share_of_batches(soft, monkeypatch):
    learner, seen = build(soft=soft), []
    none = types.SimpleNamespace(F=None, C=None)
    monkeypatch.setattr(learner.mixer.base.G, "forward", lambda z_b, b, z, p, c: seen.append((z_b, b, z, p, c)) or none)
    for _ in range(400):
        learner.draw(6)
    hard = [bool(((p == 0) | (p == 1)).all()) for _, _, _, p, _ in seen]
    assert 1 - sum(hard) / len(hard) == pytest.approx(soft, abs=0.06)
    for z_b, b, z, p, c in seen:
        torch.testing.assert_close(p.sum(1), torch.ones(6))
        assert z_b is z and torch.equal(b.amax(1), torch.ones(6)) and torch.equal(c.amax(1), torch.ones(6))
    b, c = (torch.cat([y[i] for y in seen]).argmax(1) for i in (1, 4))
    assert (b == c).float().mean() == pytest.approx(1 / 4, abs=0.04)  # free codes, not tied ones


def test_step_can_be_captured_and_repeats_itself():
    learner = build()
    opt, batch = learner.optimizers(), {"x": pictures()}
    learner.step(opt, batch)
    with like_a_capture():
        losses = learner.step(opt, batch)
    assert set(losses) == {"L_Df", "accuracy_Df", "L_adv", "L_1"}
    assert all(v.ndim == 0 and not v.requires_grad and v.isfinite() for v in losses.values())
    runs = [toys.fit(build(), steps=1, seed=seed, data=mine())[1] for seed in (0, 0, 1)]
    assert toys.same(runs[0], runs[1]) == "" and toys.same(runs[0], runs[2]) != ""


def test_losses_are_float32_under_bf16(monkeypatch):
    seen = []
    real_loss = finegan.real_loss
    monkeypatch.setattr(mixnmatch_feature, "real_loss", lambda logits: seen.append(logits) or real_loss(logits))
    _, learned = toys.fit(build(), steps=1, precision="bf16", data=mine())
    assert seen and all(logits.dtype == torch.float32 for logits in seen) and learned["rows"][0]["L_1"] > 0


def test_s_finds_the_maps_that_it_is_shown():
    learner = build(lr=3e-3)
    opt, x = learner.optimizers(), pictures()
    drawn = learner.draw(4)
    losses = [learner.update_S(opt["S"], learner.mixer.S(x), drawn[1], drawn[0])["L_1"] for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    losses = [learner.update_D(opt["D_f"], drawn[0], drawn[0] + 1) for _ in range(15)]
    assert losses[-1]["L_Df"] < 0.5 * losses[0]["L_Df"] and losses[-1]["accuracy_Df"] > 0.9


# ---- training, runs


def test_resumed_is_the_same_to_the_bit(tmp_path):
    kept = {"data": mine(), "read_every": 1, "folder": tmp_path}
    whole = toys.fit(build(), steps=3, data=mine(), read_every=1)[1]
    toys.fit(build(), steps=2, **kept)
    fitted, resumed = toys.fit(build(seed=5), steps=3, **kept)
    assert fitted.started_at == 2 and toys.same(whole, resumed) == ""


@pytest.fixture(scope="module")
def both_runs(tmp_path_factory):
    """A short run of MixNMatch and one of feature mode on it, through the workbench."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISENTKIT_HOME", str(tmp_path_factory.mktemp("feature")))
        patch.setattr(plots, "training_picture", lambda rows, history: b"a picture that takes no time")
        patch.setattr(workbench, "block_stats", lambda model, data, **more: block_stats(model, data, n=70))
        quiet = {"device": "cpu", "threads": 1, "say": toys.quiet, "data": load("emblems", size=32, few=True)}
        base = workbench.train("mixnmatch", settings=mixnmatch.Settings(**BASE), **quiet)
        kept = copy.deepcopy(dict(base.model.state_dict()))
        small = Settings(wide=0.5, size=32, batch=4, steps=2)
        run = workbench.train("mixnmatch_feature", settings=small, base=base, **quiet)
        assert toys.same(kept, dict(base.model.state_dict())) == ""
        return base, run


def test_run_opens_as_it_was_saved(both_runs):
    base, run = both_runs
    opened = workbench.open_run(run.path)
    codes, x = run.model.prior(6, rng()), pictures(0, 6)
    assert torch.equal(models.decode(run.model, codes), models.decode(opened.model, codes))
    assert torch.equal(models.encode(run.model, x), models.encode(opened.model, x))
    assert toys.same(dict(base.model.state_dict()), dict(opened.model.base.state_dict())) == ""
    assert {name.split(".")[0] for name in opened.model.state_dict()} == {"S"}  # the base is not kept twice
    assert opened.settings == run.settings and opened.card["base"]["weights"] == base.card["weights"]
    assert [row["name"] for row in opened.stats] == ["b", "z_b", "c", "F"]
    assert {"L_Df", "L_adv", "L_1", "accuracy_Df"} <= set(opened.history)


def test_pictures_of_a_training(both_runs):
    learner, x = build(both_runs[0]), pictures()
    with models.frozen(learner):
        before = learner.rng.get_state()
        rows = learner.preview({"x": x})
    assert list(rows) == ["pictures", "code mode", "feature mode", "child mask"]
    assert all(row.shape == x.shape and 0 <= row.min() and row.max() <= 1 for row in rows.values())
    base, model = both_runs[0].model, learner.model.eval()
    assert torch.equal(rows["code mode"], base.decode(base.encode(x)))
    assert torch.equal(rows["feature mode"], model.decode(model.encode(x)))
    assert torch.equal(before, learner.rng.get_state())
    kept = previews._preview(model, load("emblems", size=32, few=True), 0)
    assert list(kept) == ["pictures", "reconstructions"]


def test_presets():
    presets = MixNMatchFeature.PRESETS
    paper = presets["paper", "emblems"]
    assert (paper.lr, paper.lr_D, paper.lam_adv, paper.lam_1, paper.soft) == (2e-4, 2e-5, 1, 1, 0.2)
    assert (paper.batch, paper.steps, paper.size) == (12, 393_000, 128)
    for (preset, data), s in presets.items():
        assert s.size == methods.settings_for("mixnmatch", data, preset).size  # both stages with one preset


# ---- what it refuses


@pytest.mark.parametrize("settings, message", [
    ({"lam_1": -1.0}, "lam_1 must be 0 or more, not -1"),
    ({"lam_adv": -0.5}, "lam_adv must be 0 or more, not -0.5"),
    ({"soft": 1.5}, r"soft is a chance and lies in 0 \.\.\. 1, not 1.5"),
    ({"batch": 1}, "batch norm needs two pictures: batch must be 2 or more, not 1"),
])  # fmt: skip
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_bases_that_cannot_be(both_runs):
    small, other = Settings(size=32), types.SimpleNamespace(model=finegan.StagedGenerator((3, 32, 32), finegan.QUICK))
    with pytest.raises(UserError, match="second stage of MixNMatch: give base=RUN, a run of mixnmatch"):
        MixNMatchFeature(small, SPEC)
    with pytest.raises(UserError, match="builds on a run of mixnmatch, not on one of StagedGenerator"):
        MixNMatchFeature(small, SPEC, other)
    with pytest.raises(UserError, match="builds on a run of mixnmatch, not on one of mixnmatch_feature"):
        MixNMatchFeature(small, SPEC, both_runs[1])
    with pytest.raises(UserError, match=r"the data are \(3, 64, 64\), the base run makes \(3, 32, 32\)"):
        MixNMatchFeature(Settings(size=64), Spec((3, 64, 64)), base_run())
