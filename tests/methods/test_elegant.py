"""ELEGANT: which segment is swapped and with what labels, losses against brute force, whose loss teaches whom."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import toys
from methods.family import equal, rng, weights
from methods.labelled import Squares, batches, descent
from test_toys import like_a_capture

from disentkit.data.base import Spec
from disentkit.data.factors import FactorSpace, category
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import elegant
from disentkit.methods.elegant import ELEGANT, Settings
from disentkit.methods.stargan import one_hots

SPACE = Squares.space


def build(spec: Spec | None = None, **settings) -> ELEGANT:
    """A learner with the weights of seed 0, on 16 pixels; its own draws come from `rng(7)`."""
    few = {"nets": "small", "wide": 0.125, "size": 16, "steps": 4, "batch": 6}
    settings = Settings(**few | settings)
    with seeded(0):
        learner = ELEGANT(settings, spec or Squares().spec)
    learner.rng = rng(7)
    return learner.train()


# ---- what is swapped


def test_an_attribute_is_drawn_among_those_that_differ():
    a = torch.tensor([[0, 0, 0]] * 300 + [[1, 1, 1]] * 4)
    b = torch.tensor([[1, 0, 2]] * 300 + [[1, 1, 1]] * 4)
    picked, weigh = elegant.draw_attributes(a, b, rng(0))
    assert (picked.sum(1) == 1).all() and (picked[:300, 1] == 0).all()
    assert 0.4 < picked[:300, 0].mean() < 0.6
    assert weigh.tolist() == [1.0] * 300 + [0.0] * 4


def test_exchange_swaps_the_segments_of_the_picked_attribute():
    a, b = torch.zeros(2, 5, 2, 2), torch.ones(2, 5, 2, 2)
    bits = elegant.spread(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [2, 3])
    assert bits.tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    c, d = elegant.exchange(a, b, bits)
    assert c[0, :, 0, 0].tolist() == [1, 1, 0, 0, 0] and c[1, :, 1, 1].tolist() == [0, 0, 1, 1, 1]
    assert torch.equal(d, 1 - c)
    again = elegant.exchange(c, d, bits)
    assert torch.equal(again[0], a) and torch.equal(again[1], b)


@pytest.mark.parametrize(
    "channels, m, wanted", [(512, 5, [102, 103, 102, 103, 102]), (6, 3, [2, 2, 2]), (3, 3, [1] * 3)]
)
def test_channels_are_shared_out_evenly(channels, m, wanted):
    assert elegant.shares(channels, tuple("abcde"[:m])) == wanted


def pieces(learner: ELEGANT, seen) -> dict:
    """The step's pictures and labels, pair by pair, as the paper says it; with the draws of `rng(7)`."""
    model, codes = learner.auto, learner.auto.codes
    classes = [SPACE.to_grid(batch["factors"]) for batch in seen]
    picked, weigh = elegant.draw_attributes(*classes, rng(7))
    A, B = (2 * batch["x"] - 1 for batch in seen)
    zA, zB = (model.encode(batch["x"]) for batch in seen)
    yA, yB = (one_hots(SPACE, batch["factors"]) for batch in seen)
    zC, zD, yC, yD = zA.clone(), zB.clone(), yA.clone(), yB.clone()
    runs = dict(zip(SPACE.names, ((0, 3), (3, 5), (5, 7))))
    for n in range(len(A)):
        name = SPACE.names[int(picked[n].argmax())]
        zC[n : n + 1] = codes.swap(zA[n : n + 1], zB[n : n + 1], name)
        zD[n : n + 1] = codes.swap(zB[n : n + 1], zA[n : n + 1], name)
        first, last = runs[name]
        yC[n, first:last], yD[n, first:last] = yB[n, first:last], yA[n, first:last]
    again, fake = [2 * torch.cat([model.decode(a), model.decode(b)]) - 1 for a, b in ((zA, zB), (zC, zD))]
    found = {"x": torch.cat([A, B]), "y": torch.cat([yA, yB]), "again": again, "fake": fake}
    return found | {"swapped": torch.cat([yC, yD]), "weights": torch.cat([weigh, weigh])}


def test_swaps_of_the_step_are_swaps_of_the_models_blocks():
    """What the step decodes is what the model decodes of codes with a block swapped, picture and skips its own."""
    learner, seen = build(), batches(6, 2)
    wanted = pieces(learner, seen)
    calls = {}
    learner.update_D = lambda opt, *a: calls.update(D=a) or {}
    learner.update_G = lambda opt, *a: calls.update(G=a) or {}
    learner.step(learner.optimizers(), *seen)
    x, y, fake, swapped, weigh = calls["D"]
    for name, found in {"x": x, "y": y, "fake": fake, "swapped": swapped, "weights": weigh}.items():
        torch.testing.assert_close(found, wanted[name], rtol=1e-4, atol=1e-5)
    assert not fake.requires_grad
    torch.testing.assert_close(calls["G"][1], wanted["again"], rtol=1e-4, atol=1e-5)
    assert calls["G"][2].requires_grad and torch.equal(calls["G"][2], fake)


# ---- the step


def bce(logits, truth):
    return F.binary_cross_entropy(logits.sigmoid()[:, 0], torch.full((len(logits),), truth), reduction="none")


def test_step_equals_a_hand_written_reference():
    learner, reference, seen = build(lam_rec=3.0), build(), batches(6, 2)
    seen[1]["factors"][0], seen[1]["x"][0] = seen[0]["factors"][0], seen[0]["x"][0]  # a pair that agrees in everything
    p = pieces(reference, seen)
    assert p["weights"].tolist() == ([0.0] + [1.0] * 5) * 2
    losses = learner.step(descent(learner), *seen)

    D1, D2, n = reference.D1, reference.D2, 6
    w, fake = p["weights"], p["fake"].detach()
    total = {D: (bce(D(p["x"], p["y"]), 1.0) + w * bce(D(fake, p["swapped"]), 0.0)).sum() / n for D in (D1, D2)}
    loss_D = (total[D1] + total[D2] / 2) / 4
    judges = [*D1.parameters(), *D2.parameters()]
    for q, g in zip(judges, torch.autograd.grad(loss_D, judges)):
        q.data -= 0.01 * g
    adv = [(w * bce(D(p["fake"], p["swapped"]), 1.0)).sum() / n for D in (D1, D2)]
    A, B = p["x"].chunk(2)
    recon = F.mse_loss(p["again"][:6], A) + F.mse_loss(p["again"][6:], B)
    players = list(reference.auto.parameters())
    grads = torch.autograd.grad(3 * recon + adv[0] + adv[1] / 2, players)
    for name, value in {"loss_D": loss_D, "recon": recon, "adv1": adv[0], "adv2": adv[1]}.items():
        torch.testing.assert_close(losses[name], value.detach(), rtol=1e-3, atol=1e-5)
    for q, theirs in zip([*learner.D1.parameters(), *learner.D2.parameters()], judges, strict=True):
        torch.testing.assert_close(q, theirs, rtol=1e-3, atol=1e-5)
    for q, before, g in zip(learner.auto.parameters(), players, grads, strict=True):
        torch.testing.assert_close(q, before - 0.01 * g, rtol=1e-3, atol=1e-4)


def test_each_update_moves_its_own_player_only():
    learner = build()
    opt = learner.optimizers()
    p = pieces(learner, batches(6, 2))
    nets = {"auto": learner.auto, "D1": learner.D1, "D2": learner.D2}
    before = {name: weights(net) for name, net in nets.items()}
    learner.update_D(opt["D"], p["x"], p["y"], p["fake"].detach(), p["swapped"], p["weights"])
    assert equal(before["auto"], weights(learner.auto)) and all(q.grad is None for q in learner.auto.parameters())
    assert not equal(before["D1"], weights(learner.D1)) and not equal(before["D2"], weights(learner.D2))
    before = {name: weights(net) for name, net in nets.items()}
    grads = [q.grad.clone() for q in learner.D1.parameters()]
    learner.update_G(opt["G"], p["x"], p["again"], p["fake"], p["swapped"], p["weights"])
    assert not equal(before["auto"], weights(learner.auto)) and all(q.requires_grad for q in learner.parameters())
    assert equal(before["D1"], weights(learner.D1)) and equal(before["D2"], weights(learner.D2))
    assert equal(grads, [q.grad for q in learner.D1.parameters()])
    owned = {id(q) for each in opt.values() for group in each.param_groups for q in group["params"]}
    assert owned == {id(q) for q in learner.parameters()}


def test_rates_fall_and_weights_decay():
    learner = build(fall=2, lr_G=1.0, lr_D=2.0)
    opt = learner.optimizers()
    for t, times in ((0, 1.0), (1, 1.0), (2, 0.97), (5, 0.97**2)):
        learner.t.fill_(t)
        learner.rates_fall(opt)
        found = [float(opt[name].param_groups[0]["lr"]) for name in ("G", "D")]
        assert found == pytest.approx([times, 2 * times])
    assert all(each.param_groups[0]["weight_decay"] == 1e-5 for each in opt.values())
    plain, decayed = build(decay=0.0), build(decay=100.0)
    for each in (plain, decayed):
        each.step(each.optimizers(), *batches(6, 2))
    assert not equal(weights(plain), weights(decayed))


def test_step_can_be_captured_and_repeats_itself():
    learner = build(fall=1)
    opt, same = learner.optimizers(), batches(6, 2)
    learner.step(opt, *same)
    with like_a_capture():
        losses = learner.step(opt, *same)
    assert all(v.ndim <= 1 and not v.requires_grad and v.isfinite().all() for v in losses.values())
    runs = [toys.fit(build(), steps=2, seed=seed, data=Squares())[1] for seed in (0, 0, 1)]
    assert toys.same(runs[0], runs[1]) == "" and toys.same(runs[0], runs[2]) != ""


# ---- the code


def test_code_is_the_picture_and_a_map_per_attribute():
    model, x = build().model, batches(6, 1)[0]["x"]
    codes = model.encode(x)
    assert model.codes.names == ("picture", "colour", "side", "ground")
    assert [block.shape for block in model.codes] == [(3, 16, 16), (5, 2, 2), (6, 2, 2), (5, 2, 2)]
    z, _ = model.enc(2 * x - 1)
    torch.testing.assert_close(model.codes.read(codes, "side"), z[:, 5:11])
    for block in model.codes:
        value = block.read(codes)
        assert torch.equal(block.write(codes, value), codes)
        assert torch.equal(block.read(block.write(codes, value.flip(0))), value.flip(0))


def test_a_swapped_block_changes_the_code_and_never_the_skips():
    model, x = build().model, batches(6, 1)[0]["x"]
    codes, seen = model.encode(x), []
    model.dec.register_forward_pre_hook(lambda _, args: seen.append(args))
    swapped = model.codes.swap(codes, codes.flip(0), "side")
    one, two = model.decode(codes), model.decode(swapped)
    assert (one - two).abs().max() > 1e-6 and one.min() >= 0 and one.max() <= 1
    (z, own, maps), (z2, own2, maps2) = seen
    torch.testing.assert_close(z, own)
    assert torch.equal(own, own2) and all(torch.equal(a, b) for a, b in zip(maps, maps2))
    assert torch.equal(z2[:, 5:11], z.flip(0)[:, 5:11]) and torch.equal(z2[:, :5], z[:, :5])


def test_decode_cuts_off_what_leaves_the_range():
    model, x = build().model, batches(6, 1)[0]["x"]
    codes = model.encode(x)
    loud = model.codes.write(codes, "picture", 3 * x - 1)
    assert torch.equal(model.decode(loud), model.decode(model.codes.write(codes, "picture", (3 * x - 1).clamp(0, 1))))
    found = model.decode(model.codes.prior(4, rng(0)))
    assert found.shape == (4, 3, 16, 16) and 0 <= found.min() and found.max() <= 1
    assert elegant.changed(torch.tensor([-0.9, 0.0, 0.9]), torch.tensor([-2.0, 0.5, 2.0])).tolist() == [-1.0, 0.5, 1.0]


def test_decoder_overfits_one_batch():
    learner = build(lr_G=4e-3)
    opt, same = learner.optimizers(), batches(6, 2)
    learner.auto.dec.last.bias.data.fill_(0.5)  # a change that has to be unlearned
    first = learner.step(opt, *same)["recon"]
    for _ in range(60):
        last = learner.step(opt, *same)["recon"]
    x = same[0]["x"]
    assert last < 0.2 * first and F.mse_loss(learner.model.decode(learner.model.encode(x)), x) < 0.02


def test_live_picture_shows_other_attributes():
    learner, x = build(), batches(6, 1)[0]["x"]
    codes = learner.model.encode(x)
    codes[:, 3 * 256 :] = codes[:, 3 * 256 :].roll(1, 0)
    wanted = learner.model.decode(codes)
    torch.testing.assert_close(learner.preview({"x": x})["attributes of the left neighbour"], wanted)


# ---- what it refuses


@pytest.mark.parametrize("settings, message", [
    ({"lam_rec": -1.0}, "lam_rec must be 0 or more, not -1"),
    ({"decay": -1.0}, "decay must be 0 or more, not -1"),
    ({"nets": "large"}, "unknown nets 'large'"),
    ({"wide": 0.01}, "a code of 2 channels cannot be shared out among 3 attributes: make wide larger"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


@pytest.mark.parametrize("spec, message", [
    (Spec((3, 16, 16)), "ELEGANT learns from labels, and these data have no factors"),
    (Spec((3, 16, 16), FactorSpace([category("picture", "a", "b")])), "a block of its code 'picture'"),
    (Spec((3, 20, 20), SPACE), "whose side 8 divides, not 20x20"),
])  # fmt: skip
def test_data_that_cannot_be_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        build(spec)


def test_presets_of_the_paper():
    paper = ELEGANT.PRESETS["paper", "fonts"]
    assert dataclasses.asdict(paper) == dataclasses.asdict(Settings()) and paper.nets == "paper"
    assert (paper.lr_G, paper.decay, paper.lam_rec, paper.fall, paper.batch) == (2e-4, 1e-5, 5, 3000, 16)
