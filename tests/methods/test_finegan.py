"""FineGAN: ties between codes, losses by hand, whose loss teaches whom, boxes, the moving average, and its stages."""

import itertools

import pytest
import torch
import torch.nn.functional as F
import toys
from methods.family import equal, rng, weights
from test_toys import like_a_capture

from disentkit import models
from disentkit.data.base import Spec
from disentkit.data.emblems import Emblems
from disentkit.data.views import Views
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import finegan
from disentkit.methods.finegan import FineGAN, Settings

FEW = {"z": 4, "parents": 2, "children": 4, "wide": 0.25, "size": 32, "batch": 4, "steps": 4}
PLAYERS = ("G", "D_b", "D_p", "D_c")
GAUGES = {"accuracy_D_b", "accuracy_aux", "accuracy_D_c", "accuracy_p", "accuracy_c", "area_parent", "sharp_parent",
          "area_child", "sharp_child"}  # fmt: skip


def build(cls=FineGAN, kind=Settings, **settings) -> FineGAN:
    """A learner with the weights of seed 0, on 32 pixels; its own draws come from `rng(7)`."""
    with seeded(0):
        learner = cls(kind(**FEW | settings), Spec((3, 32, 32)))
    learner.rng = rng(7)
    return learner.train()


def batch(seed: int = 0, n: int = 4) -> dict:
    """Pictures of noise, with a box in the middle, one in a corner, all of the view, and none."""
    x, full = torch.rand(2, n, 3, 32, 32, generator=rng(seed))
    box = torch.tensor([[12, 9, 20.5, 22], [0, 0, 3, 6], [0, 0, 32, 32], [5, 5, 5, 9]])
    return {"x": x, "full": full, "box": box[torch.arange(n) % 4]}


def descent(learner, **rates: float) -> dict:
    """The learner's optimisers as plain descent, which makes no full step of a gradient that is only rounding."""
    made = learner.optimizers().items()
    return {name: torch.optim.SGD(opt.param_groups[0]["params"], rates.get(name, 0.01)) for name, opt in made}


def fit(learner, **options):
    return toys.fit(learner, data=Views(Emblems(32, few=True)), **options)


# ---- codes


@pytest.mark.parametrize("parents, children", [(2, 4), (5, 20), (4, 4), (1, 3)])
def test_tied_codes_keep_their_relations_and_children_are_uniform(parents, children):
    s = Settings(z=4, parents=parents, children=children)
    y = finegan.tied(8000, s, rng())
    assert y.z is y.z_b and torch.equal(y.b, y.c)
    for code, size in ((y.c, children), (y.p, parents)):
        assert code.shape == (8000, size) and code.dtype == torch.float32
        assert set(code.unique().tolist()) <= {0.0, 1.0} and (code.sum(1) == 1).all()
        assert (code.mean(0) - 1 / size).abs().max() < 0.02
    each = children // parents
    for c, p in zip(y.c.argmax(1)[:200].tolist(), y.p.argmax(1)[:200].tolist()):
        assert p == int(c * parents / children) == c // each  # in consecutive groups
    assert y.z.shape == (8000, 4) and abs(y.z.mean()) < 0.03 and abs(y.z.std() - 1) < 0.03


def test_free_codes_are_independent():
    y = finegan.free(20_000, Settings(z=4, parents=2, children=4), rng())
    assert y.z is y.z_b and abs(y.z.mean()) < 0.02 and abs(y.z.std() - 1) < 0.02
    for one, other in itertools.combinations((y.b, y.p, y.c), 2):
        joint = one.T @ other / 20_000
        assert (joint - 1 / joint.numel()).abs().max() < 0.01
    assert not torch.equal(y.b, y.c)


def test_children_must_be_shared_out_evenly():
    wanted = (
        "children=10 must be a multiple of parents=4, as every shape has equally many textures: take children=8 or 12"
    )
    with pytest.raises(UserError, match=wanted):
        build(parents=4, children=10)
    with pytest.raises(UserError, match="take children=5$"):
        build(parents=5, children=3)


def test_blocks_and_how_they_are_drawn():
    model = build().model
    assert model.codes.names == ("b", "z_b", "p", "c", "z")
    assert [b.picker for b in model.codes] == ["background", "background", "shape", "texture", "pose"]
    assert [b.kind for b in model.codes] == ["onehot", "gaussian", "onehot", "onehot", "gaussian"]
    assert not any(b.inferred for b in model.codes) and not models.can_encode(model)
    assert [b.size for b in model.codes] == [4, 4, 2, 4, 4]
    read = model.codes.read
    tied, free, prior = (getattr(model, name)(600, rng()) for name in ("tied", "free", "prior"))
    assert torch.equal(read(tied, "b"), read(tied, "c")) and not torch.equal(read(free, "b"), read(free, "c"))
    for drawn in (tied, free):
        assert torch.equal(read(drawn, "z"), read(drawn, "z_b")) and drawn.shape == (600, 18)
    assert (read(prior, "z") - read(prior, "z_b")).abs().min() > 0  # the background brings its own
    assert torch.equal(read(tied, "p").argmax(1), read(tied, "c").argmax(1) // 2)
    y = model.split(prior)
    assert torch.equal(model.join(y), prior) and torch.equal(y.c, read(prior, "c"))
    assert torch.equal(y.z_b, read(prior, "z_b")) and torch.equal(y.z, read(prior, "z"))


def test_stages_are_the_steps_of_decode():
    learner = build()
    learner.step(learner.optimizers(), batch())
    model = learner.eval().model
    codes = model.prior(5, rng())
    made, x = model.stages(codes), models.decode(model, codes)
    assert tuple(made) == finegan.STAGES == (
        "background", "parent_foreground", "parent_mask", "parent", "child_foreground", "child_mask", "child"
    )  # fmt: skip
    for name, picture in made.items():
        assert picture.shape == (5, 1 if name.endswith("mask") else 3, 32, 32)
        assert picture.min() >= 0 and picture.max() <= 1
    torch.testing.assert_close(made["child"], x)
    behind = made["background"]
    for stage in ("parent", "child"):
        mask = made[f"{stage}_mask"]
        behind = mask * made[f"{stage}_foreground"] + (1 - mask) * behind
        torch.testing.assert_close(made[stage], behind)
    moved = model.stages(model.codes.write(codes, "b", torch.eye(4)[0].expand(5, 4)))
    assert [name for name in made if not torch.equal(made[name], moved[name])] == ["background", "parent", "child"]


# ---- losses


def test_losses_of_logits():
    a = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    p, w = a.sigmoid(), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(finegan.real_loss(a), -p.log().mean())
    torch.testing.assert_close(finegan.fake_loss(a), -(1 - p).log().mean())
    torch.testing.assert_close(finegan.real_loss(a, w), -(p[0, 0].log() + p[1, 0].log()) / 2)
    assert finegan.real_loss(a, torch.zeros(2, 2)) == 0  # no patch of the batch is background


def test_masks_count_outside_their_ends_and_half_open():
    low, high = finegan.AREA
    areas = torch.tensor([low - 0.04, low, (low + high) / 2, high, 1.0])[:, None, None, None] * torch.ones(5, 1, 4, 4)
    assert 0.04 < low < high < 1
    assert finegan.area_loss(areas).item() == pytest.approx((0.04 + 1 - high) / 5, abs=1e-6)  # of each picture
    open_ = F.pad(torch.ones(5, 1, 4, 1), (0, 3))  # a quarter of each
    assert finegan.area_loss(open_) == 0 == finegan.sharp_loss(open_)
    shares = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])[:, None, None, None] * torch.ones(5, 1, 4, 4)
    assert finegan.sharp_loss(shares).item() == pytest.approx((0.75 + 1 + 0.75) / 5)


def bce(logit: torch.Tensor, label) -> torch.Tensor:
    p = logit.double().sigmoid()
    return (-(label * p.log() + (1 - label) * (1 - p).log())).float()


def plain_D_b(D_b, full, box, B, lam_b: float, boxes: bool = True) -> torch.Tensor:
    """Section 1.4 of the fact sheet; which patches are background is asked of each by itself."""
    (r, a), (r_fake, _) = D_b(full), D_b(B)
    w = torch.ones(len(full), 1, 24, 24)
    for k, i, j in itertools.product(range(len(full)), range(24), range(24)):
        x1, y1, x2, y2 = box[k].tolist()
        outside = x1 == x2 or y1 == y2 or i > y2 or i + 9 < y1 or j > x2 or j + 9 < x1
        w[k, 0, i, j] = float(outside or not boxes)
    return lam_b * ((w * bce(r, 1)).sum() / w.sum() + bce(r_fake, 0).mean()) + bce(a, w).mean()


def plain_G(learner, made, y) -> dict[str, torch.Tensor]:
    """G's weighted losses."""
    s, (r, a) = learner.settings, learner.D_b(made.B)
    p, c = learner.D_p(made.P_m * made.P_f), learner.D_c(made.C_m * made.C_f, code=True)
    return {
        "L_bg_adv": s.lam_b * bce(r, 1).mean(), "L_bg_aux": s.lam_aux * bce(a, 1).mean(),
        "L_p": -(p.log_softmax(1) * y.p).sum(1).mean(), "L_c_adv": bce(learner.D_c(made.C), 1).mean(),
        "L_c_info": -(c.log_softmax(1) * y.c).sum(1).mean(),
    }  # fmt: skip


@pytest.mark.parametrize("still", ["D", "G"])  # with new D's, small as they are here, G's gradient would be rounding
@pytest.mark.parametrize("settings", [{}, {"lam_b": 3.0, "lam_aux": 0.5, "boxes": False, "lam_sharp": 2.0}])
def test_step_equals_a_hand_written_reference(settings, still):
    learner, reference, seen = build(**settings), build(**settings), batch()
    rates = {"D_b": 0.0, "D_c": 0.0} if still == "D" else {"G": 0.0}
    learner.t.fill_(600)
    losses = learner.step(descent(learner, **rates), seen)

    s, G, D_b, D_c = reference.settings, reference.G, reference.D_b, reference.D_c
    x, full = 2 * seen["x"] - 1, 2 * seen["full"] - 1
    draws = rng(7)
    z, c = torch.randn(4, 4, generator=draws), torch.randint(4, (4,), generator=draws)
    c, p = F.one_hot(c, 4).float(), F.one_hot(c // 2, 2).float()
    y = finegan.Codes(z, c, z, p, c)
    made = G(*y)
    loss_D_b = plain_D_b(D_b, full, seen["box"], made.B.detach(), s.lam_b, s.boxes)
    loss_D_c = bce(D_c(x), 1).mean() + bce(D_c(made.C.detach()), 0).mean()
    down(loss_D_b, D_b.parameters(), rates.get("D_b", 0.01))
    down(loss_D_c, [*D_c.trunk.parameters(), *D_c.real.parameters()], rates.get("D_c", 0.01))
    terms = plain_G(reference, made, y)
    if s.lam_sharp:  # 600 of 1500 steps
        terms["L_sharp"] = 4 * 0.4 * s.lam_sharp * sum((m * (1 - m)).mean() for m in (made.P_m, made.C_m))
    wanted = terms | {"loss_D_b": loss_D_b, "loss_D_c": loss_D_c}
    players = [*G.parameters(), *reference.D_p.parameters(), *D_c.head.parameters()]
    down(sum(terms.values()), players, rates.get("G", 0.01))

    assert set(losses) == {*wanted, *GAUGES}
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name], value.detach(), rtol=1e-3, atol=1e-4, msg=name)
    same_weights(learner, reference)


def down(loss, players, lr: float) -> None:
    """One step of plain descent for these alone."""
    players = list(players)
    grads = torch.autograd.grad(loss, players, retain_graph=True)
    with torch.no_grad():
        for p, g in zip(players, grads, strict=True):
            p -= lr * g


def same_weights(learner, reference, names=PLAYERS) -> None:
    for name in names:
        for (key, p), q in zip(getattr(learner, name).named_parameters(), getattr(reference, name).parameters()):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-5, msg=f"{name}.{key}")


def test_gauges():
    learner, seen = build(), batch()
    with torch.no_grad():  # heads that say what they are told: real and background everywhere
        learner.D_b.heads.weight.zero_()
        learner.D_b.heads.bias.fill_(1)
    found = learner.update_D_b(descent(learner)["D_b"], seen["full"], seen["box"], seen["full"])
    w = learner.D_b.patches.valid(seen["box"])
    assert found["accuracy_D_b"] == 0.5 and found["accuracy_aux"] == pytest.approx(w.mean().item())
    made, y = learner.G(*finegan.tied(4, learner.settings, rng())), finegan.tied(4, learner.settings, rng())
    _, gauges = learner.losses_G(made, y)
    assert gauges["area_child"] == made.C_m.mean() and 0 <= gauges["sharp_parent"] < 0.2
    wrong = torch.tensor([[0.0, 3.0], [2.0, 1.0]])
    assert finegan.right(wrong, torch.eye(2)) == 0 and finegan.right(wrong.flip(1), torch.eye(2)) == 1


# ---- whose loss teaches whom


def test_each_update_moves_its_own_players_only():
    learner, seen = build(), batch()
    opt, x, full = descent(learner), 2 * seen["x"] - 1, 2 * seen["full"] - 1
    y = finegan.tied(4, learner.settings, rng())
    made = learner.G(*y)
    parts = {"G": learner.G, "D_b": learner.D_b, "D_p": learner.D_p, "trunk": learner.D_c.trunk,
             "real": learner.D_c.real, "head": learner.D_c.head, "average": learner.sampler.G}  # fmt: skip
    updates = {
        ("D_b",): lambda: learner.update_D_b(opt["D_b"], full, seen["box"], made.B.detach()),
        ("trunk", "real"): lambda: learner.update_D_c(opt["D_c"], x, made.C.detach()),
        ("G", "D_p", "head"): lambda: finegan.step(opt["G"], sum(learner.losses_G(made, y)[0].values())),
        ("average",): learner.follow,
    }
    for moved, update in updates.items():
        before = {name: weights(net) for name, net in parts.items()}
        update()
        assert {name for name, net in parts.items() if not equal(before[name], weights(net))} == set(moved)
    owned = [id(p) for o in opt.values() for p in o.param_groups[0]["params"]]
    assert len(set(owned)) == len(owned) == len(list(learner.parameters())) - len(weights(learner.sampler.G))
    players = [p for name in PLAYERS for p in getattr(learner, name).parameters()]
    assert all(p.requires_grad for p in players)  # after losses_G, too
    assert not any(p.requires_grad for p in learner.sampler.G.parameters())


def test_the_code_loss_never_moves_the_trunk_of_d_c():
    """Without the adversarial update the trunk stands still, while its head learns and G hears of the code."""
    learner, seen = build(), batch()
    opt = descent(learner, D_c=0.0)
    before = {name: weights(getattr(learner.D_c, name)) for name in ("trunk", "real", "head")}
    for _ in range(3):
        learner.step(opt, seen)
    after = {name: weights(getattr(learner.D_c, name)) for name in before}
    assert [name for name in before if not equal(before[name], after[name])] == ["head"]
    y = finegan.tied(4, learner.settings, rng())
    L_c_info = learner.losses_G(learner.G(*y), y)[0]["L_c_info"]
    child = list(learner.G.child_heads.parameters())
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(L_c_info, child))


def test_d_p_learns_from_its_code_alone_and_sees_the_masked_foreground():
    learner, y = build(), finegan.tied(4, rng=rng(), s=Settings(**FEW))
    made, seen = learner.G(*y), []
    learner.D_p.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    losses, _ = learner.losses_G(made, y)
    assert len(seen) == 1 and torch.equal(seen[0], made.P_m * made.P_f)
    D_p = list(learner.D_p.parameters())
    for name, loss in losses.items():
        grads = torch.autograd.grad(loss, D_p, retain_graph=True, allow_unused=True)
        assert all((g is not None) == (name == "L_p") for g in grads), name
    others = [p for net in (learner.D_b, learner.D_c.trunk, learner.D_c.real) for p in net.parameters()]
    grads = torch.autograd.grad(sum(losses.values()), others, retain_graph=True, allow_unused=True)
    assert all(g is None for g in grads)
    reach = {"L_bg_adv": "background", "L_bg_aux": "background", "L_p": "parent", "L_c_info": "child"}
    for name, part in reach.items():  # of G; the picture's own loss reaches all stages
        params = dict(learner.G.named_parameters())
        grads = dict(
            zip(params, torch.autograd.grad(losses[name], list(params.values()), retain_graph=True, allow_unused=True))
        )
        reached = {key.split("_")[0] for key, g in grads.items() if g is not None and g.abs().max() > 0}
        assert reached == ({part} if part != "child" else {"parent", "child"}), name
    reached = torch.autograd.grad(losses["L_c_adv"], list(learner.G.parameters()))
    assert all(g.abs().max() > 0 for g in reached)


def test_d_c_reads_codes_from_the_masked_foreground():
    learner, y, seen = build(), finegan.tied(4, Settings(**FEW), rng()), []
    made, call = learner.G(*y), learner.D_c.forward
    learner.D_c.forward = lambda x, code=False: seen.append((x, code)) or call(x, code)
    learner.losses_G(made, y)
    assert [code for _, code in seen] == [True, False]
    assert torch.equal(seen[0][0], made.C_m * made.C_f) and torch.equal(seen[1][0], made.C)


def terms_of(learner, y=None) -> tuple[dict, list]:
    y = y or finegan.tied(4, learner.settings, rng())
    losses, _ = learner.losses_G(learner.G(*y), y)
    return losses, torch.autograd.grad(sum(losses.values()), list(learner.G.parameters()))


def test_without_its_weight_the_auxiliary_head_teaches_g_nothing():
    full, none = build(), build(lam_aux=0.0)
    (losses, grads), (others, without) = terms_of(full), terms_of(none)
    assert others["L_bg_aux"] == 0 < losses["L_bg_aux"]
    assert all(torch.equal(losses[name], others[name]) for name in losses if name != "L_bg_aux")
    y = finegan.tied(4, full.settings, rng())
    aux = torch.autograd.grad(full.losses_G(full.G(*y), y)[0]["L_bg_aux"], list(full.G.parameters()), allow_unused=True)
    for g, w, a in zip(grads, without, aux):
        torch.testing.assert_close(g - w, torch.zeros_like(g) if a is None else a, rtol=1e-3, atol=1e-4)
    seen = batch()
    runs = [
        learner.update_D_b(descent(learner)["D_b"], seen["full"], seen["box"], seen["x"]) for learner in (full, none)
    ]
    assert torch.equal(runs[0]["loss_D_b"], runs[1]["loss_D_b"])  # D_b has both heads all the same
    same_weights(full, none)


def test_masks_are_judged_only_when_asked():
    plain, asked = build(), build(lam_area=2.0, lam_sharp=0.5)
    losses, more = terms_of(plain)[0], terms_of(asked)[0]
    assert set(more) - set(losses) == {"L_area", "L_sharp"}
    assert all(torch.equal(losses[name], more[name]) for name in losses)
    made = asked.G(*finegan.tied(4, asked.settings, rng()))
    asked.t.fill_(1e4)
    large = made._replace(P_m=0.2 * made.P_m + 0.8, C_m=0.1 * made.C_m + 0.9)
    found, _ = asked.losses_G(large, finegan.tied(4, asked.settings, rng()))
    torch.testing.assert_close(found["L_area"], 2 * (large.P_m.mean() + large.C_m.mean() - 2 * finegan.AREA[1]))
    both = torch.cat([large.P_m, large.C_m])
    torch.testing.assert_close(found["L_sharp"], 4 * (both * (1 - both)).mean())


def test_masks_are_told_to_be_sure_little_by_little():
    learner = build(lam_sharp=1.0, sharpen=200)
    y, found = finegan.tied(4, learner.settings, rng()), []
    for t in (0, 50, 200, 5000):
        learner.t.fill_(t)
        found.append(learner.losses_G(learner.G(*y), y)[0]["L_sharp"].item())
    assert found == pytest.approx([0, found[2] / 4, found[2], found[2]], rel=1e-5) and found[2] > 1


@pytest.mark.parametrize("cosine", [False, True])
def test_rates_fall_along_a_cosine(cosine):
    learner = build(cosine=cosine, steps=100, lr=1e-3, lr_D=5e-4)
    opt = learner.optimizers()
    for t, share in ((0, 1), (25, 0.853553), (50, 0.5), (100, 0), (130, 0)):
        learner.t.fill_(t)
        learner.rates_fall(opt)
        rates = {name: float(o.param_groups[0]["lr"]) for name, o in opt.items()}
        wanted = {"D_b": 5e-4, "D_c": 5e-4, "G": 1e-3}
        assert rates == pytest.approx({name: lr * (share if cosine else 1) for name, lr in wanted.items()}, abs=1e-9)
    G = weights(learner.G)
    learner.step(opt, batch())
    assert equal(G, weights(learner.G)) == cosine  # it is over


def test_a_grey_parent_goes_into_model_and_learner():
    learner = build(grey=True)
    learner.step(learner.optimizers(), batch())
    made = learner.eval().model.stages(learner.model.prior(2, rng()))["parent_foreground"]
    assert torch.equal(made, made[:, :1].expand_as(made)) and learner.G.parent_heads.colours == 1


def test_without_boxes_every_patch_is_background():
    learners, seen = [build(), build(boxes=False)], batch()
    found = [n.update_D_b(descent(n)["D_b"], seen["full"], seen["box"], seen["x"]) for n in learners]
    assert found[0]["loss_D_b"] != found[1]["loss_D_b"]
    none = seen | {"box": torch.zeros(4, 4)}
    again = build()
    without = again.update_D_b(descent(again)["D_b"], seen["full"], none["box"], seen["x"])
    for name in without:
        torch.testing.assert_close(found[1][name], without[name])
    same_weights(learners[1], again)


# ---- the moving average


def test_average_follows_the_recursion_and_takes_the_statistics_along():
    learner = build(ema=0.9)
    opt, slow = learner.optimizers(), weights(learner.sampler.G)
    assert equal(slow, weights(learner.G))  # the beginning
    for t in (0, 1, 50, 2000):
        learner.t.fill_(t)
        learner.step(opt, batch(t))
        decay = min(0.9, (1 + t) / (10 + t))
        fast = weights(learner.G)
        slow = [decay * a + (1 - decay) * b for a, b in zip(slow, fast)]
        for ours, wanted in zip(learner.sampler.G.parameters(), slow, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)
    assert not equal(slow, fast)
    pairs = list(zip(learner.sampler.G.named_buffers(), learner.G.buffers(), strict=True))
    assert len(pairs) > 10 and all(torch.equal(a, b) for (_, a), b in pairs)
    assert learner.G.background_trunk.first[1].num_batches_tracked == 4


def test_the_live_g_is_never_written_over():
    learner = build(lr=0.0)
    G, opt = weights(learner.G), learner.optimizers()
    with torch.no_grad():
        for p in learner.sampler.G.parameters():
            p.add_(1)
    slow = weights(learner.sampler.G)
    for _ in range(3):
        learner.step(opt, batch())
        learner.eval().preview(batch())
        learner.model.decode(learner.model.prior(2, rng()))
        learner.train()
    assert equal(G, weights(learner.G)) and not equal(slow, weights(learner.sampler.G))


def test_a_run_keeps_the_discriminators():
    learner = build()
    kept = {name.split(".")[0] for name in learner.model.state_dict()}
    assert kept == {"G", "D_b", "D_p", "D_c"} and learner.model.D_c is learner.D_c
    assert learner.model.G is not learner.G
    assert set(learner.networks()) >= {"sampler.G", "G"}


# ---- a training


def test_step_can_be_captured():
    learner = build(lam_area=1.0, lam_sharp=1.0, cosine=True)
    opt, seen = learner.optimizers(), batch()
    learner.step(opt, seen)
    with like_a_capture():
        losses = learner.step(opt, seen)
    assert all(v.ndim == 0 and not v.requires_grad and v.isfinite() for v in losses.values())


def resumes(make, folder) -> None:
    """Cut off at step 2 of 3 and resumed, the numbers are those of the training in one go."""

    class Stop(Exception):
        pass

    def stop(step, rows, learner):
        if step == 2:
            raise Stop

    _, whole = fit(make(), steps=3)
    often = {"folder": folder, "checkpoint_seconds": 0, "watch_seconds": 0}
    with pytest.raises(Stop):
        fit(make(), steps=3, watch=stop, **often)
    fitted, resumed = fit(make(), steps=3, **often)
    assert fitted.started_at == 1 and toys.same(whole, resumed) == ""


def test_resumes_bit_for_bit(tmp_path):
    resumes(lambda: build(cosine=True, lam_sharp=1.0), tmp_path)


def test_losses_are_float32_under_bf16(monkeypatch):
    seen = []
    for name in ("real_loss", "fake_loss"):
        f = getattr(finegan, name)
        monkeypatch.setattr(finegan, name, lambda *a, f=f: seen.append(f(*a)) or seen[-1])
    fitted, _ = fit(build(), steps=1, precision="bf16")
    assert {loss.dtype for loss in seen} == {torch.float32}
    assert all(torch.isfinite(torch.tensor(v)) for row in fitted.rows for v in row.values())


def test_live_picture_shows_the_same_codes_all_the_time():
    learner = build().eval()
    x = batch()["x"]
    rows = learner.preview({"x": x})
    assert list(rows) == ["pictures", "background", "parent_mask", "child_mask", "child"]
    assert all(picture.shape == x.shape for picture in rows.values())
    made = learner.model.stages(learner.model.tied(4, rng(0)))
    assert torch.equal(rows["child"], made["child"]) and torch.equal(rows["child_mask"][:, :1], made["child_mask"])
    assert toys.same(rows, learner.preview({"x": x})) == ""


def test_patches_are_told_apart_and_codes_are_read():
    """On one batch of emblems: real from made, background from object, and codes are read."""
    learner = build(wide=0.5, lr_D=1e-2, lr=5e-3)
    seen, opt = Views(Emblems(32, few=True)).sample(8, rng()), learner.optimizers()
    y = finegan.tied(8, learner.settings, rng())
    B = learner.G(*y).B.detach()
    for _ in range(25):
        found = learner.update_D_b(opt["D_b"], 2 * seen["full"] - 1, seen["box"], B)
    most = learner.D_b.patches.valid(seen["box"]).mean()  # always the same answer
    assert found["accuracy_D_b"] > 0.9 and found["accuracy_aux"] > max(most, 1 - most) + 0.03
    first = None
    for _ in range(6):
        losses, gauges = learner.losses_G(learner.G(*y), y)
        finegan.step(opt["G"], losses["L_p"] + losses["L_c_info"])
        first = first or losses
    assert gauges["accuracy_p"] == 1 and losses["L_p"] < 0.3 * first["L_p"]
    assert losses["L_c_info"] < 0.7 * first["L_c_info"]


# ---- settings


@pytest.mark.parametrize("settings, message", [
    ({"lam_area": -1.0}, "lam_area must be a number of 0 or more, not -1"),
    ({"sharpen": 0}, "sharpen must be"),
    ({"boxes": "segmenter"}, "boxes of a segmenter are an option of the data: data_options="),
    ({"cosine": "yes"}, "cosine is true or false, not 'yes'"),
    ({"wide": 1e9}, "take 16, 10,000 and 10,000 at most"),
    ({"batch": 1}, "batch norm needs two pictures: batch must be 2 or more, not 1"),
    ({"ema": 1.0}, "ema must be 0 or more and below 1, not 1.0"),
    ({"nets": "finegan"}, "no table 'finegan' for pictures of 32 pixels"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_settings_of_the_released_code():
    paper = FineGAN.PRESETS["paper", "boxed"]
    assert (paper.z, paper.parents, paper.children, paper.nets, paper.size) == (100, 20, 200, "finegan", 128)
    assert (paper.lam_b, paper.lam_aux, paper.boxes) == (10, 1, True)
    assert (paper.lam_area, paper.lam_sharp, paper.grey, paper.cosine) == (0, 0, False, False)
    assert (paper.lr, paper.lr_D, paper.ema, paper.batch) == (2e-4, 2e-4, 0.999, 16)
    assert {o.param_groups[0]["betas"] for o in build().optimizers().values()} == {(0.5, 0.999)}
    assert FineGAN.reads == ("x", "full", "box") and FineGAN.draws == 1
