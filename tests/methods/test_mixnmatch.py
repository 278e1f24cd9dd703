"""MixNMatch: encoders, critics that see one code each, the penalty pair by pair, whose loss teaches whom, ablations."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from methods import test_finegan as base
from methods.family import draw, equal, rng, weights
from methods.test_finegan import batch, bce, descent, down, fit, plain_D_b, plain_G, same_weights
from test_toys import like_a_capture
from torch import nn

from disentkit import data as datasets
from disentkit import models
from disentkit.errors import UserError
from disentkit.methods import finegan, mixnmatch
from disentkit.methods.finegan import Codes
from disentkit.methods.mixnmatch import MixNMatch, Settings

KINDS = ("z", "b", "p", "c")


def build(**settings) -> MixNMatch:
    """A learner with the weights of seed 0, on 32 pixels; its own draws come from `rng(7)`."""
    return base.build(MixNMatch, Settings, **settings)


def drawn(learner, seed: int = 0, n: int = 4) -> Codes:
    return finegan.tied(n, learner.settings, rng(seed))


def inferred(learner, seen=None) -> Codes:
    return mixnmatch.soft(learner.sampler.read(2 * (seen or batch())["x"] - 1))


# ---- encoders


def test_encoders_share_nothing_and_codes_are_soft():
    learner = build()
    model, x = learner.model, batch()["x"]
    assert list(model.E) == list(KINDS)
    owned = [id(p) for k in KINDS for p in model.E[k].parameters()]
    assert len(set(owned)) == len(owned)
    codes = model.encode(x)
    for k, size in (("b", 4), ("p", 2), ("c", 4)):
        found = model.codes.read(codes, k)
        assert found.shape == (4, size) and 0 < found.min() and found.max() < 1  # never the largest alone
        torch.testing.assert_close(found.sum(1), torch.ones(4))
        torch.testing.assert_close(found, model.E[k](2 * x - 1).softmax(1))
    z = model.codes.read(codes, "z")
    torch.testing.assert_close(z, model.E["z"](2 * x - 1))
    assert z.abs().max() <= 4 and torch.equal(z, model.codes.read(codes, "z_b"))
    with torch.no_grad():
        model.E["z"].net[-2].weight.mul_(1e3)
    assert 3.9 < model.encode(x)[:, -4:].abs().max() <= 4


def test_blocks_are_those_of_finegan_and_inferred():
    model, plain = build().model, base.build().model
    assert model.codes.names == plain.codes.names and all(b.inferred for b in model.codes)
    assert [b.picker for b in model.codes] == [b.picker for b in plain.codes] and models.can_encode(model)
    x = batch()["x"]
    codes = models.encode(model, x)
    assert codes.shape == (4, model.codes.size) and models.decode(model, codes).shape == x.shape
    assert {name.split(".")[0] for name in model.state_dict()} == {"G", "E"}  # no discriminator goes into a run
    one = model.tied(3, rng())
    assert torch.equal(model.codes.read(one, "b"), model.codes.read(one, "c"))


def test_each_source_gives_its_own_part():
    """Background, shape, texture and pose of four pictures; the background brings its own z."""
    model = build().eval().model
    codes = models.encode(model, batch(1)["x"])
    sources = {"background": 0, "shape": 1, "texture": 2, "pose": 3}
    mixed = torch.cat([block.read(codes)[sources[block.picker]] for block in model.codes])[None]
    y = model.split(codes)
    wanted = model.G(y.z[:1], y.b[:1], y.z[3:], y.p[1:2], y.c[2:3])
    torch.testing.assert_close(models.decode(model, mixed), (wanted.C + 1) / 2)
    torch.testing.assert_close(model.stages(mixed)["background"], (wanted.B + 1) / 2)


# ---- critics


def test_a_critic_is_blind_to_the_other_codes():
    learner, x = build(), draw(4, 3, 32, 32).tanh()
    y = Codes(*(code.clone().requires_grad_() for code in drawn(learner)))
    codes = learner.codes_of(y)
    assert set(codes) == set(learner.critics) == set(KINDS)
    values = dict(zip(codes, learner.values(x, codes)))
    for k, other in itertools.product(KINDS, KINDS):
        (grad,) = torch.autograd.grad(values[k].sum(), [getattr(y, other)], retain_graph=True, allow_unused=True)
        assert (grad is not None and grad.abs().max() > 0) == (k == other)
    for k in KINDS:
        moved = y._replace(**{k: getattr(y, k).detach() + 1})
        learner.rng = rng(7)
        again = dict(zip(codes, learner.values(x, learner.codes_of(moved))))
        assert [n for n in KINDS if not torch.equal(values[n], again[n])] == [k]


def test_one_critic_of_all_codes_is_not():
    learner = build(critics="one")
    codes = learner.codes_of(drawn(learner))
    assert list(codes) == ["all"] == list(learner.critics) and codes["all"].shape == (4, 14)
    y = codes["all"].clone().requires_grad_()
    (value,) = learner.values(draw(4, 3, 32, 32), {"all": y})
    assert (torch.autograd.grad(value.sum(), y)[0].abs().amax(0) > 0).all()


def test_noise_blurs_codes_at_all_times():
    learner, x = build(), draw(4, 3, 32, 32)
    codes = learner.codes_of(drawn(learner))
    for mode in (True, False):
        learner.train(mode)
        one, two = learner.values(x, codes), learner.values(x, codes)
        assert all((a - b).abs().min() > 0 for a, b in zip(one, two))
    learner.rng = rng(5)
    one = learner.values(x, codes)
    learner.rng = rng(5)
    assert equal(one, learner.values(x, codes))


class Fixed(nn.Module):
    """f(x, y) = <u, x> + <v, y>, with gradients u and v everywhere."""

    def __init__(self, u: float, v: float, size: int):
        super().__init__()
        x, y = draw(3 * 32 * 32, seed=1), draw(size, seed=2)
        self.u, self.v = nn.Parameter(u * x / x.norm()), nn.Parameter(v * y / y.norm())

    def forward(self, x, y, rng):
        return x.flatten(1) @ self.u + y @ self.v


def test_penalty_of_linear_critics_is_known():
    learner = build()
    slopes = {"z": (0.5, 3.0), "b": (1.0, 1.0), "p": (2.0, 0.0), "c": (1.5, 1.25)}
    sizes = {"z": 4, "b": 4, "p": 2, "c": 4}
    learner.critics = nn.ModuleDict({k: Fixed(u, v, sizes[k]) for k, (u, v) in slopes.items()})
    real, seen = learner.codes_of(inferred(learner)), draw(4, 3, 32, 32)
    penalty = learner.penalty(seen, {k: v.detach() for k, v in real.items()}, -seen, learner.codes_of(drawn(learner)))
    wanted = sum((slope - 1) ** 2 for both in slopes.values() for slope in both)
    assert penalty.item() == pytest.approx(wanted, rel=1e-4)
    penalty.backward()
    assert all(p.grad.isfinite().all() for p in learner.critics.parameters())  # also where a gradient vanishes
    torch.testing.assert_close(
        learner.critics["p"].u.grad, 2 * learner.critics["p"].u.detach() / 2, rtol=1e-3, atol=1e-5
    )


def value_of(critic, x, y, noise) -> torch.Tensor:
    """D_k of one pair x (3, H, H), y (K,), written plainly, with its noise (3, hidden)."""
    for layer, std, drawn in zip(critic.code, (0.5, 0.3, 0.3), noise):
        y = F.leaky_relu(layer.weight @ y + layer.bias, 0.2) + std * drawn
    return critic.joint(torch.cat([critic.picture(x[None])[0], y]))[0]


def plain_penalty(critics, x, real, C, codes, draws) -> torch.Tensor:
    """All eight terms (two for each critic), pair by pair."""
    n, total = len(x), 0
    shares = [torch.rand(n, generator=draws) for _ in range(1 + len(real))]  # for each row and each tensor
    for k, share in zip(real, shares[1:]):
        critic = critics[k]
        noise = torch.randn(3, n, critic.code[0].out_features, generator=draws)
        for i in range(n):
            a = (shares[0][i] * x[i] + (1 - shares[0][i]) * C[i]).detach().requires_grad_()
            b = (share[i] * real[k][i] + (1 - share[i]) * codes[k][i]).detach().requires_grad_()
            value = value_of(critic, a, b, noise[:, i])
            for grad in torch.autograd.grad(value, [a, b], create_graph=True):
                total = total + (grad.square().sum().sqrt() - 1) ** 2 / n
    return total


@pytest.mark.parametrize("critics", ["four", "one"])
def test_penalty_is_that_of_a_loop_over_pairs(critics):
    learner, seen = build(critics=critics), draw(4, 3, 32, 32).tanh()
    real = {k: code.detach() for k, code in learner.codes_of(inferred(learner)).items()}
    codes, C = learner.codes_of(drawn(learner)), learner.G(*drawn(learner)).C.detach()
    learner.rng = rng(3)
    found = learner.penalty(seen, real, C, codes)
    wanted = plain_penalty(learner.critics, seen, real, C, codes, rng(3))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    params = list(learner.critics.parameters())
    grads = [torch.autograd.grad(loss, params, allow_unused=True) for loss in (found, wanted)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(*(torch.zeros(()) if g is None else g for g in (a, b)), rtol=1e-3, atol=1e-5)


# ---- a step, by hand


def plain_values(learner, x, y: Codes, C, drawn: Codes, draws) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(D_k(x, y^_k), D_k(x^, y_k)), (B,) each, for each critic."""
    found, n = [], len(x)
    for k, critic in learner.critics.items():
        pair = [torch.cat([c.z, c.b, c.p, c.c], 1) if k == "all" else getattr(c, k) for c in (y, drawn)]
        noise = torch.randn(3, 2 * n, critic.code[0].out_features, generator=draws)
        rows = zip(torch.cat([x, C]), torch.cat(pair))
        values = torch.stack([value_of(critic, a, b, noise[:, i]) for i, (a, b) in enumerate(rows)])
        found.append((values[:n], values[n:]))
    return found


STEPS = [  # what is changed, and who stands still: see test_finegan
    ({}, "D"), ({}, "G"), ({"pair": "log"}, "D"), ({"pair": "log"}, "G"), ({"critics": "one"}, "G"),
    ({"critics": "none"}, "D"), ({"pred": "tied"}, "D"), ({"lam_pred": 0.0}, "D"), ({"lam_aux": 0.0}, "D"),
    ({"lam_pred": 0.5, "lam_gp": 2.0, "lam_rec": 3.0, "boxes": False}, "D"),
    ({"lam_gp": 2.0, "boxes": False}, "G"),
]  # fmt: skip


@pytest.mark.parametrize("change, still", STEPS)
def test_step_equals_a_hand_written_reference(change, still):
    """With every setting of the ablations; nothing else than what the paper's terms say is in a step."""
    learner, reference, seen = build(**change), build(**change), batch()
    rates = dict.fromkeys(("D_b", "D_c", "critics") if still == "D" else ("G", "E"), 0.0)
    losses = learner.step(descent(learner, **rates), seen)

    s, G, E, D_c, draws = reference.settings, reference.G, reference.sampler.E, reference.D_c, rng(7)
    x, full = 2 * seen["x"] - 1, 2 * seen["full"] - 1
    z, c = torch.randn(4, 4, generator=draws), torch.randint(4, (4,), generator=draws)
    y = Codes(z, F.one_hot(c, 4).float(), z, F.one_hot(c // 2, 2).float(), F.one_hot(c, 4).float())
    made, logits = G(*y), {k: E[k](x) for k in KINDS}
    y_hat = Codes(logits["z"], logits["b"].softmax(1), logits["z"], logits["p"].softmax(1), logits["c"].softmax(1))
    wanted = {"loss_D_b": plain_D_b(reference.D_b, full, seen["box"], made.B.detach(), s.lam_b, s.boxes)}
    wanted["loss_D_c"] = bce(D_c(x), 1).mean() + bce(D_c(made.C.detach()), 0).mean()
    rate = {name: rates.get(name, 0.01) for name in ("D_b", "D_c", "critics", "G", "E")}
    down(wanted["loss_D_b"], reference.D_b.parameters(), rate["D_b"])
    down(wanted["loss_D_c"], [*D_c.trunk.parameters(), *D_c.real.parameters()], rate["D_c"])
    if s.critics != "none":
        fixed, C = Codes(*(code.detach() for code in y_hat)), made.C.detach()
        pairs = plain_values(reference, x, fixed, C, y, draws)
        wanted["gap_critics"] = sum(real.mean() - fake.mean() for real, fake in pairs)
        if s.pair == "log":
            loss = sum(bce(real, 1).mean() + bce(fake, 0).mean() for real, fake in pairs)
        else:
            penalty = plain_penalty(reference.critics, x, learner.codes_of(fixed), C, learner.codes_of(y), draws)
            loss = -wanted["gap_critics"] + s.lam_gp * penalty
        wanted["loss_critics"] = loss
        down(loss, reference.critics.parameters(), rate["critics"])
    terms = plain_G(reference, made, y)
    if s.critics != "none":
        pairs = plain_values(reference, x, y_hat, made.C, y, draws)
        log = sum(bce(real, 0).mean() + bce(fake, 1).mean() for real, fake in pairs)
        terms["L_pair"] = log if s.pair == "log" else sum(real.mean() - fake.mean() for real, fake in pairs)
    if s.lam_pred:
        z = torch.randn(4, 4, generator=draws)
        if s.pred == "free":
            b, p, c = (torch.randint(k, (4,), generator=draws) for k in (4, 2, 4))
        else:
            c = torch.randint(4, (4,), generator=draws)
            b, p = c, c // 2
        with torch.no_grad():
            picture = G(z, F.one_hot(b, 4).float(), z, F.one_hot(p, 2).float(), F.one_hot(c, 4).float()).C
        found = {k: E[k](picture) for k in KINDS}
        terms["L_pred_z"] = s.lam_pred * 5 * (found["z"] - z).abs().mean()
        for k, index, weight in (("b", b, 5), ("p", p, 10), ("c", c, 10)):
            of_its_own = found[k].log_softmax(1)[torch.arange(4), index]
            terms[f"L_pred_{k}"] = -s.lam_pred * weight * of_its_own.mean()
            wanted[f"accuracy_E_{k}"] = (found[k].argmax(1) == index).float().mean()
    if s.lam_rec:
        terms["L_rec"] = s.lam_rec * (G(*y_hat).C - x).abs().mean()
    players = {"G": [*G.parameters(), *reference.D_p.parameters(), *D_c.head.parameters()], "E": list(E.parameters())}
    grads = torch.autograd.grad(sum(terms.values()), players["G"] + players["E"], allow_unused=True)
    used = iter(grads)
    for name, params in players.items():
        for p, g in zip(params, used):
            p.data -= rate[name] * (0 if g is None else g)

    assert set(losses) == {*wanted, *terms, *base.GAUGES}
    assert ("critics" in learner.optimizers()) == (s.critics != "none")
    for name, value in (wanted | terms).items():
        torch.testing.assert_close(losses[name], value.detach(), rtol=1e-3, atol=1e-3, msg=name)
    same_weights(learner, reference, ("G", "D_b", "D_p", "D_c", "critics"))
    same_weights(learner.sampler, reference.sampler, "E")


# ---- whose loss teaches whom


def grads_of(loss, net) -> list:
    found = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
    return [g for g in found if g is not None and g.abs().max() > 0]


@pytest.mark.parametrize("pred", ["free", "tied"])
def test_relaxed_prediction_never_reaches_g(pred):
    learner = build(pred=pred)
    before = weights(learner)
    losses, _ = learner.losses_pred(4)
    assert list(losses) == [f"L_pred_{k}" for k in KINDS]
    sum(losses.values()).backward()
    others = [p for name, p in learner.named_parameters() if not name.startswith("sampler.E.")]
    assert all(p.grad is None for p in others) and equal(before, weights(learner))
    for k in KINDS:
        assert all(p.grad.isfinite().all() for p in learner.sampler.E[k].parameters())
        assert sum(p.grad.abs().sum() for p in learner.sampler.E[k].parameters()) > 0
    losses, _ = learner.losses_pred(4)
    for k in KINDS:  # to each encoder its own code
        assert [n for n in KINDS if grads_of(losses[f"L_pred_{k}"], learner.sampler.E[n])] == [k]


@pytest.mark.parametrize("pred", ["free", "tied"])
def test_what_is_predicted(pred, monkeypatch):
    seen, learner = [], build(pred=pred, wide=0.1)
    loss = mixnmatch.prediction_loss
    monkeypatch.setattr(mixnmatch, "prediction_loss", lambda found, y: seen.append(y) or loss(found, y))
    learner.losses_pred(64)
    b, p, c = (getattr(seen[0], k).argmax(1) for k in "bpc")
    assert torch.equal(b, c) == torch.equal(p, c // 2) == (pred == "tied")
    one, perfect = seen[0], Codes(*(100.0 * code for code in seen[0]))
    assert sum(loss(perfect._replace(z=one.z), one).values()) < 1e-5
    wrong = loss(perfect._replace(z=one.z + 2), one)
    assert wrong["L_pred_z"].item() == pytest.approx(10, rel=1e-4)
    flat = loss(Codes(one.z, 0 * one.b, one.z, 0 * one.p, 0 * one.c), one)
    known = {"b": 5 * 1.386294, "p": 10 * 0.693147, "c": 10 * 1.386294}
    assert {k: flat[f"L_pred_{k}"].item() for k in known} == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize("pair", mixnmatch.PAIR)
def test_pair_loss_teaches_g_and_every_encoder_but_no_critic(pair):
    learner = build(pair=pair)
    y, y_hat = drawn(learner), inferred(learner)
    (loss,) = learner.losses_pair(2 * batch()["x"] - 1, y_hat, learner.G(*y).C, y).values()
    assert loss.ndim == 0 and all(p.requires_grad for p in learner.critics.parameters())
    assert not grads_of(loss, learner.critics)
    assert len(grads_of(loss, learner.G)) == len(list(learner.G.parameters()))
    for k in KINDS:
        assert grads_of(loss, learner.sampler.E[k])


def test_updates_move_their_own_players_only():
    learner, seen = build(), batch()
    opt, x, y = descent(learner), 2 * seen["x"] - 1, drawn(learner)
    C, real = learner.G(*y).C.detach(), {k: v.detach() for k, v in learner.codes_of(inferred(learner)).items()}
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    found = learner.update_critics(opt["critics"], x, real, C, learner.codes_of(y))
    moved = {name.split(".")[0] for name, p in learner.named_parameters() if not torch.equal(before[name], p)}
    assert moved == {"critics"} and set(found) == {"loss_critics", "gap_critics"}
    owned = {name: {id(p) for p in o.param_groups[0]["params"]} for name, o in opt.items()}
    assert set(owned) == {"D_b", "D_c", "G", "E", "critics"}
    assert owned["E"] == {id(p) for p in learner.sampler.E.parameters()}
    assert owned["critics"] == {id(p) for p in learner.critics.parameters()}
    assert sum(map(len, owned.values())) == len(set().union(*owned.values()))
    every = {id(p) for p in learner.parameters()} - {id(p) for p in learner.sampler.G.parameters()}
    assert set().union(*owned.values()) == every


def test_critics_tell_pairs_apart_and_are_fooled():
    """The critics' loss falls on fixed pairs, and one step of G and E down L_pair lowers it."""
    learner, x = build(lr_pair=2e-3), 2 * batch()["x"] - 1
    y = drawn(learner)
    C, real = learner.G(*y).C.detach(), {k: v.detach() for k, v in learner.codes_of(inferred(learner)).items()}
    opt = learner.optimizers()
    gaps = [learner.update_critics(opt["critics"], x, real, C, learner.codes_of(y))["gap_critics"] for _ in range(15)]
    assert gaps[-1] > gaps[0] + 0.1
    players, found = [*learner.G.parameters(), *learner.sampler.E.parameters()], []
    for _ in range(2):
        learner.rng = rng(1)
        (loss,) = learner.losses_pair(x, inferred(learner), learner.G(*y).C, y).values()
        found.append(loss.item())
        grads = torch.autograd.grad(loss, players, allow_unused=True)
        with torch.no_grad():
            for p, g in zip(players, grads):
                p -= 1e-3 * (0 if g is None else g)
    assert found[1] < found[0]


def test_only_wgan_critics_stay_float32():
    assert set(build().full_precision) == {f"critics.{k}" for k in KINDS} <= set(build().networks())
    assert build(critics="one").full_precision == ("critics.all",)
    assert build(pair="log").full_precision == () == build(critics="none").full_precision


# ---- the average, a training, the live picture


def test_average_never_overwrites_the_live_g():
    learner = build(ema=0.9, lr=0.0)
    G, opt = weights(learner.G), learner.optimizers()
    with torch.no_grad():
        for p in learner.sampler.G.parameters():
            p.add_(1)
    slow = weights(learner.sampler.G)
    for t in range(2):
        learner.t.fill_(t)
        learner.step(opt, batch(t))
        decay = (1 + t) / (10 + t)
        slow = [decay * a + (1 - decay) * b for a, b in zip(slow, G)]
        learner.preview(batch())
    assert equal(G, weights(learner.G))
    for a, b in zip(learner.sampler.G.parameters(), slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_statistics_go_along():
    learner = build()
    learner.step(learner.optimizers(), batch())
    pairs = zip(learner.sampler.G.buffers(), learner.G.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) and learner.G.child_join.norm[0].running_var.std() > 0


@pytest.mark.parametrize("settings", [{}, {"pair": "log", "lam_rec": 1.0}])
def test_step_can_be_captured(settings):
    learner = build(**settings)
    opt, seen = learner.optimizers(), batch()
    learner.step(opt, seen)
    with like_a_capture():
        losses = learner.step(opt, seen)
    assert all(v.ndim == 0 and not v.requires_grad and v.isfinite() for v in losses.values())


def test_resumes_bit_for_bit(tmp_path):
    base.resumes(lambda: build(cosine=True), tmp_path)


@pytest.mark.parametrize("pair", mixnmatch.PAIR)
def test_losses_are_float32_under_bf16(pair, monkeypatch):
    seen = []
    for name in ("prediction_loss", "gradient_penalty"):
        f = getattr(mixnmatch, name)
        monkeypatch.setattr(mixnmatch, name, lambda *a, f=f: seen.append(f(*a)) or seen[-1])
    pairs = MixNMatch.losses_pair
    monkeypatch.setattr(MixNMatch, "losses_pair", lambda *a: seen.append(pairs(*a)) or seen[-1])
    fitted, _ = fit(build(pair=pair), steps=1, precision="bf16")
    found = [loss for entry in seen for loss in (entry.values() if isinstance(entry, dict) else [entry])]
    assert {loss.dtype for loss in found} == {torch.float32} and len(found) == (6 if pair == "wgan-gp" else 5)
    assert all(torch.isfinite(torch.tensor(v)) for row in fitted.rows for v in row.values())


def test_live_picture_shows_a_mix():
    learner = build().eval()
    x, model = batch()["x"], learner.model
    rows = learner.preview({"x": x})
    assert all(picture.shape == x.shape for picture in rows.values())
    codes = model.encode(x)
    torch.testing.assert_close(rows["reconstructions"], model.decode(codes))
    mixed = torch.stack([model.codes.swap(codes[i : i + 1], codes[i - 1 : i or None], "c")[0] for i in range(4)])
    torch.testing.assert_close(rows["texture of the left neighbour"], model.decode(mixed))
    torch.testing.assert_close(rows["child_mask"][:, :1], model.stages(codes)["child_mask"])


# ---- settings


@pytest.mark.parametrize("settings, message", [
    ({"pair": "hinge"}, "unknown pair 'hinge'. Known: wgan-gp, log"),
    ({"critics": "two"}, "unknown critics 'two'"),
    ({"pred": "all"}, "unknown pred 'all'"),
    ({"lam_pred": -1.0}, "lam_pred must be a number of 0 or more, not -1"),
    ({"children": 5}, "children=5 must be a multiple of parents=2"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_every_player_has_its_step_size():
    learner = build(lr=1e-3, lr_D=2e-3, lr_E=3e-3, lr_pair=4e-3)
    rates = {name: float(o.param_groups[0]["lr"]) for name, o in learner.optimizers().items()}
    assert rates == pytest.approx({"D_b": 2e-3, "D_c": 2e-3, "G": 1e-3, "E": 3e-3, "critics": 4e-3})


def test_presets_have_as_many_codes_as_the_data():
    for preset, options in (("quick", {"few": True}), ("course", {})):
        s, space = MixNMatch.PRESETS[preset, "emblems"], datasets.load("emblems", **options).space
        assert (s.parents, s.children) == (len(space["shape"]), len(space["texture"]))


def test_settings_of_the_released_code():
    paper = MixNMatch.PRESETS["paper", "boxed"]
    assert (paper.z, paper.parents, paper.children, paper.nets, paper.batch) == (100, 20, 200, "mixnmatch", 12)
    assert (paper.pair, paper.lam_gp, paper.lam_pred, paper.critics, paper.pred) == ("wgan-gp", 10, 1, "four", "free")
    assert (paper.lam_b, paper.lam_aux, paper.lam_area, paper.lam_rec, paper.boxes) == (10, 1, 0, 0, True)
    assert (paper.lam_sharp, paper.grey, paper.cosine) == (0, False, False)
    assert (paper.lr, paper.lr_D, paper.lr_E, paper.lr_pair, paper.ema) == (2e-4, 2e-4, 2e-4, 2e-4, 0.999)
    assert mixnmatch.WEIGHTS == {"z": 5, "b": 5, "p": 10, "c": 10} and mixnmatch.BOUND == 4
    assert {o.param_groups[0]["betas"] for o in build().optimizers().values()} == {(0.5, 0.999)}
