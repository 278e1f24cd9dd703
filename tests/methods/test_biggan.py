"""BigGAN: losses by hand, whose loss teaches whom, the moving average, and what each part of its code reaches."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import toys
from methods.family import equal, rng, weights
from methods.labelled import Squares, batches
from test_toys import like_a_capture

from disentkit import models
from disentkit.data.base import Spec
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import biggan
from disentkit.methods.biggan import BigGAN, Settings
from disentkit.nets import biggan as nets

UNLABELLED = Spec((3, 16, 16), FactorSpace([Factor("x", "real", (0.0, 1.0))]))


def build(spec: Spec | None = None, **settings) -> BigGAN:
    """A learner with the weights of seed 0, on 16 pixels; its own draws come from `rng(7)`."""
    few = {"chunk": 4, "embed": 3, "ch": 1, "ch_D": 4, "attention": 0, "size": 16, "steps": 4, "batch": 6}
    with seeded(0):
        learner = BigGAN(Settings(**few | settings), spec or Squares().spec)
    learner.rng = rng(7)
    return learner.train()


# ---- losses and updates


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.25, -1.0]), torch.tensor([-3.0, -0.5, 1.0])
    assert biggan.hinge_D(real, fake).item() == pytest.approx((0 + 0.75 + 2) / 3 + (0 + 0.5 + 2) / 3)
    assert biggan.hinge_G(fake).item() == pytest.approx((3 + 0.5 - 1) / 3)
    assert biggan.hinge_D(torch.ones(4), -torch.ones(4)) == 0


def test_step_equals_a_hand_written_reference():
    learner, reference = build(n_critic=2, ema=0.05), build(n_critic=2, ema=0.05)
    seen, draws = batches(6, 2), rng(7)
    opt = {name: torch.optim.SGD(o.param_groups[0]["params"], lr=0.01) for name, o in learner.optimizers().items()}
    losses = learner.step(opt, *seen)

    G, D = reference.G, reference.D
    opt = {name: torch.optim.SGD(net.parameters(), lr=0.01) for name, net in (("G", G), ("D", D))}
    for batch in seen:
        c = F.one_hot(batch["factors"][:, 0].long(), 3).float()
        nets.power_iteration(G)
        fake = G(c, torch.randn(6, 12, generator=draws))
        nets.power_iteration(D)
        real, false = D(2 * batch["x"] - 1, c), D(fake.detach(), c)  # two passes: nothing in D mixes pictures
        loss_D = F.relu(1 - real).mean() + F.relu(1 + false).mean()
        opt["D"].zero_grad()
        loss_D.backward()
        opt["D"].step()
    loss_G = -D(fake, c).mean()
    opt["G"].zero_grad()
    loss_G.backward()
    opt["G"].step()
    torch.testing.assert_close(losses["loss_D"], loss_D.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["loss_G"], loss_G.detach(), rtol=1e-4, atol=1e-5)
    right = ((real > 0).float().mean() + (false < 0).float().mean()) / 2
    assert losses["accuracy_D"] == pytest.approx(right.item())
    for ours, theirs in ((learner.G, G), (learner.D, D)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    used = nets.used_weights(G)
    for name, slow in learner.average.G.named_parameters():
        before = dict(reference.average.G.named_parameters())[name]
        torch.testing.assert_close(slow, 0.05 * before + 0.95 * used[name], rtol=1e-3, atol=1e-5)


def test_each_update_moves_its_own_player_only():
    learner = build()
    opt, (batch,) = learner.optimizers(), batches(6, 1)
    x, c = 2 * batch["x"] - 1, learner.classes_of(batch)
    fake = learner.draw(c)
    G, D, average = (weights(net) for net in (learner.G, learner.D, learner.average))
    learner.update_D(opt["D"], x, fake.detach(), c)
    assert equal(G, weights(learner.G)) and all(p.grad is None for p in learner.G.parameters())
    assert not equal(D, weights(learner.D))
    D, grads = weights(learner.D), [p.grad.clone() for p in learner.D.parameters()]
    learner.update_G(opt["G"], fake, c)
    assert equal(D, weights(learner.D)) and equal(grads, [p.grad for p in learner.D.parameters()])
    assert not equal(G, weights(learner.G)) and equal(average, weights(learner.average))
    assert all(p.requires_grad for net in (learner.G, learner.D) for p in net.parameters())
    owned = [{id(p) for p in opt[name].param_groups[0]["params"]} for name in ("G", "D")]
    assert owned == [{id(p) for p in net.parameters()} for net in (learner.G, learner.D)]
    assert all(p.grad is None and not p.requires_grad for p in learner.average.parameters())


def test_a_step_is_n_critic_updates_of_d_and_one_of_g_with_the_last_pictures():
    learner, calls = build(n_critic=3), []
    D, G = learner.update_D, learner.update_G
    learner.update_D = lambda opt, *a: calls.append(a) or D(opt, *a)
    learner.update_G = lambda opt, *a: calls.append(a) or G(opt, *a)
    seen = batches(6, learner.draws)
    learner.step(learner.optimizers(), *seen)
    assert len(calls) == 4 and learner.draws == 3
    for batch, (x, fake, c) in zip(seen, calls):
        assert torch.equal(x, 2 * batch["x"] - 1) and not fake.requires_grad
        assert torch.equal(c, F.one_hot(batch["factors"][:, 0].long(), 3).float())
    assert torch.equal(calls[2][1], calls[3][0]) and calls[3][0].requires_grad and torch.equal(calls[2][2], calls[3][1])
    assert not torch.equal(calls[0][1], calls[1][1])


def test_step_can_be_captured_and_repeats_itself():
    learner = build(n_critic=2)
    opt, same = learner.optimizers(), batches(6, 2)
    learner.step(opt, *same)
    with like_a_capture():
        losses = learner.step(opt, *same)
    assert set(losses) == {"loss_D", "accuracy_D", "loss_G"}
    assert all(v.ndim == 0 and not v.requires_grad and v.isfinite() for v in losses.values())
    runs = [toys.fit(build(), steps=2, seed=seed, data=Squares())[1] for seed in (0, 0, 1)]
    assert toys.same(runs[0], runs[1]) == "" and toys.same(runs[0], runs[2]) != ""


def test_losses_are_float32_under_bf16(monkeypatch):
    seen = []
    monkeypatch.setattr(biggan, "hinge_D", lambda *a, f=biggan.hinge_D: seen.append(f(*a)) or seen[-1])
    toys.fit(build(), steps=1, precision="bf16", data=Squares())
    assert seen[0].dtype == torch.float32 and set(build().networks()) == {"average.G", "G", "D"}


def test_d_learns_to_tell_and_g_to_pass():
    learner = build(lr_D=4e-3, lr_G=4e-3)
    opt, (batch,) = learner.optimizers(), batches(6, 1)
    x, c = 2 * batch["x"] - 1, learner.classes_of(batch)
    fake = learner.draw(c).detach()
    losses = [learner.update_D(opt["D"], x, fake, c)["loss_D"] for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    losses = [learner.update_G(opt["G"], learner.draw(c), c) for _ in range(20)]
    assert losses[-1] < losses[0] - 0.2


# ---- the moving average


def test_average_follows_by_its_share():
    learner = build()
    slow, fast = weights(learner.average.G), nets.used_weights(learner.G)
    assert all(torch.equal(a, fast[n]) for n, a in learner.average.G.named_parameters())  # the beginning
    with torch.no_grad():
        for p in learner.G.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng(1)))
    fast = nets.used_weights(learner.G)
    learner.follow(torch.tensor(0.25))
    for (name, p), before in zip(learner.average.G.named_parameters(), slow):
        torch.testing.assert_close(p, 0.75 * before + 0.25 * fast[name])


@pytest.mark.parametrize("t, ema, share", [(0, 0.999, 0.9), (80, 0.999, 0.1), (1e6, 0.999, 0.001), (80, 0.5, 0.5)])
def test_warm_start(t, ema, share):
    learner, shares = build(ema=ema), []
    learner.t.fill_(t)
    learner.follow = shares.append
    learner.step(learner.optimizers(), *batches(6, 1))
    assert shares[0].item() == pytest.approx(share, rel=1e-3)


def test_average_holds_usable_weights():
    """With share 1 and G's statistics it draws G's pictures, though it has no spectral norm of its own."""
    learner = build()
    with torch.no_grad():
        for p in learner.G.parameters():
            p.mul_(3)
    learner.follow(1.0)
    for slow, fast in zip(learner.average.G.modules(), learner.G.modules(), strict=True):
        if isinstance(slow, torch.nn.BatchNorm2d):
            slow.running_mean.copy_(fast.running_mean)
    learner.eval()
    codes = learner.model.prior(5, rng(0))
    wanted = (learner.G(codes[:, :3], codes[:, 3:]) + 1) / 2
    torch.testing.assert_close(learner.model.decode(codes), wanted, rtol=1e-4, atol=1e-5)
    assert not any(name.endswith((".u", ".v")) for name in learner.model.state_dict())


def test_statistics_of_the_average_are_its_own():
    learner = build()
    with torch.no_grad():
        learner.G.first.bias.add_(50)  # G's first map is far away; the average has heard of it by a thousandth
    learner.follow = lambda share: None
    learner.step(learner.optimizers(), *batches(6, 1))
    slow, fast = (net.blocks[0].norm1.norm for net in (learner.average.G, learner.G))
    assert slow.num_batches_tracked == 1 and slow.running_mean.abs().max() < 0.5 < 4 < fast.running_mean.mean()


# ---- the model


@pytest.mark.parametrize("attention", [0, 8])
def test_decode_repeats_itself_and_pictures_are_alone(attention):
    learner = build(attention=attention)
    for _ in range(3):
        learner.step(learner.optimizers(), *batches(6, 1))
    model, codes = learner.model, learner.model.prior(6, rng(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = models.decode(model, codes)
    assert x.shape == (6, 3, 16, 16) and 0 <= x.min() and x.max() <= 1 and x.std() > 0.01
    assert torch.equal(x, models.decode(model, codes))
    torch.testing.assert_close(models.decode(model, codes[2:3]), x[2:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(models.decode(model, codes.flip(0)), x.flip(0), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    rows = learner.preview({"x": x})
    assert rows["samples"].shape == x.shape and rows["pictures"] is x


def test_code_is_a_class_and_a_chunk_per_level():
    codes = build().model.codes
    assert codes.names == ("class", "z1", "z2", "z3") and codes.size == 3 + 3 * 4
    assert codes["class"].kind == "onehot" and codes["class"].labels == ("red", "green", "blue")
    assert not any(block.inferred for block in codes) and not models.can_encode(build().model)
    assert all(block.kind == "gaussian" and block.shape == (4,) for block in codes if block.name != "class")
    assert [len(biggan.code_space((3, s, s), None, 16)) for s in (16, 32, 64, 128)] == [3, 4, 5, 6]


def test_class_is_the_first_category():
    space = FactorSpace(
        [Factor("x", "real", (0.0, 1.0)), category("only", "one"), category("kind", "a", "b", "c", "d")]
    )
    learner = build(Spec((3, 16, 16), space))
    assert learner.column == 2 and learner.model.codes["class"].labels == ("a", "b", "c", "d")
    batch = {"x": torch.rand(3, 3, 16, 16), "factors": torch.tensor([[0.3, 0, 2], [0.1, 0, 0], [0.9, 0, 3.0]])}
    assert learner.classes_of(batch).argmax(1).tolist() == [2, 0, 3] and learner.reads == ("x", "factors")


@pytest.mark.parametrize("spec", [Spec((3, 16, 16)), UNLABELLED])
def test_without_a_category_there_is_no_class(spec):
    learner = build(spec)
    assert learner.model.codes.names == ("z1", "z2", "z3") and learner.reads == ("x",) and learner.D.embed is None
    losses = learner.step(learner.optimizers(), {"x": torch.rand(6, 3, 16, 16)})
    assert all(value.isfinite() for value in losses.values())
    assert models.decode(learner.model, learner.model.prior(2, rng(0))).shape == (2, 3, 16, 16)


def test_first_layer_makes_the_first_map():
    model, seen = build().eval().model, []
    model.G.blocks[0].register_forward_hook(lambda m, a, out: seen.append(a[0]))
    codes = model.prior(5, rng(0))
    model.decode(codes)
    W, b, shape = model.first_layer()
    assert (W.shape, b.shape, shape) == ((16 * 16, 4), (256,), (16, 4, 4))
    made = (model.codes.read(codes, "z1") @ W.T + b).reshape(5, *shape)
    torch.testing.assert_close(made, seen[0], rtol=1e-4, atol=1e-5)


def test_level_weights_are_all_that_a_chunk_meets():
    learner = build()
    learner.step(learner.optimizers(), *batches(6, 1))
    model, codes = learner.eval().model, learner.model.prior(4, rng(0))
    found = model.level_weights()
    assert {name: tuple(w.shape) for name, w in found.items()} == {"z1": (256, 4), "z2": (64, 4), "z3": (48, 4)}
    for k, name in enumerate(("z2", "z3")):
        norms = [model.G.blocks[k].norm1, model.G.blocks[k].norm2]
        y = model.codes.read(codes, name)
        parts = [layer(torch.cat([torch.zeros(4, 3), y], 1)) for norm in norms for layer in (norm.gain, norm.bias)]
        torch.testing.assert_close(y @ found[name].T, torch.cat(parts, 1), rtol=1e-4, atol=1e-5)
        moved = model.codes.write(codes, name, y + 1)
        assert not torch.equal(model.decode(moved), model.decode(codes))
        for norm in norms:
            for layer in (norm.gain, norm.bias):
                layer.weight[:, -4:] = 0
        assert torch.equal(model.decode(moved), model.decode(codes))  # nothing else reads it


# ---- settings


@pytest.mark.parametrize("settings, message", [
    ({"ema": 1.0}, "ema must be 0 or more and below 1, not 1.0"),
    ({"batch": 1}, "batch must be 2 or more, not 1"),
    ({"attention": 4}, "attention is the side of a map"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_settings_of_the_released_code():
    paper, learner = BigGAN.PRESETS["paper", "scenes"], build()
    assert (paper.lr_G, paper.lr_D, paper.n_critic, paper.size) == (1e-4, 4e-4, 1, 64)
    assert all(o.param_groups[0]["betas"] == (0.0, 0.999) for o in learner.optimizers().values())
    assert dataclasses.asdict(BigGAN.PRESETS["course", "scenes"]) == dataclasses.asdict(biggan.COURSE)


def test_draws_are_normal():
    z = build().draw_z(4000)
    assert z.shape == (4000, 12) and abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
