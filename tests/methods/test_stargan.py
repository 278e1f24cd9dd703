"""StarGAN: labels and losses against brute force, whose loss teaches whom, and what its code says."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import toys
from methods.family import equal, rng, weights
from methods.labelled import Squares, batches, descent
from test_toys import like_a_capture

from disentkit.data.base import Spec
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import stargan
from disentkit.methods.stargan import Settings, StarGAN, attributes_of

SPACE = Squares.space


def build(spec: Spec | None = None, **settings) -> StarGAN:
    """A learner with the weights of seed 0, on 16 pixels; its own draws come from `rng(7)`."""
    few = {"nets": "small", "wide": 0.125, "n_critic": 2, "size": 16, "steps": 4, "batch": 6}
    settings = Settings(**few | settings)
    with seeded(0):
        learner = StarGAN(settings, spec or Squares().spec)
    learner.rng = rng(7)
    return learner.train()


# ---- labels and their loss


def test_labels_are_the_one_hots_of_the_nearest_grid_values():
    values = torch.tensor([[2.0, 4.0, 0.0], [0.0, 8.0, 1.0], [1.0, 7.1, 1.0]])
    wanted = torch.cat([F.one_hot(c, k) for c, k in zip(SPACE.to_grid(values).T, SPACE.sizes)], 1).float()
    found = stargan.one_hots(SPACE, values)
    assert torch.equal(found, wanted)
    assert found.tolist() == [[0, 0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1, 0, 1]]


def test_classification_loss_is_the_sum_of_one_cross_entropy_per_attribute():
    logits, values = torch.randn(5, 7, generator=rng(0)), Squares().sample(5, rng(1))["factors"]
    labels = stargan.one_hots(SPACE, values)
    brute = 0.0
    for n in range(5):
        for first, last, k in ((0, 3, 0), (3, 5, 1), (5, 7, 2)):
            p = logits[n, first:last].exp() / logits[n, first:last].exp().sum()
            brute -= p[int(SPACE.to_grid(values)[n, k])].log() / 5
    torch.testing.assert_close(stargan.classification_loss(logits, labels, SPACE.sizes), brute)
    sure = stargan.accuracies(20 * labels, labels, SPACE.sizes)
    assert sure.tolist() == [1, 1, 1] and stargan.accuracies(-20 * labels, labels, SPACE.sizes).tolist() == [0, 0, 0]


# ---- the step


def test_step_equals_a_hand_written_reference():
    weigh = {"lam_cls": 0.7, "lam_rec": 3.0, "lam_gp": 2.0}
    learner, reference = build(**weigh), build(**weigh)
    seen, draws = batches(6, 2), rng(7)
    losses = learner.step(descent(learner), *seen)

    G, trunk, cls, src = reference.gan.G, reference.gan.trunk, reference.gan.cls, reference.src
    D = [*trunk.parameters(), *cls.parameters(), *src.parameters()]
    opt = torch.optim.SGD(D, lr=0.01)
    for batch in seen:
        x, c = 2 * batch["x"] - 1, stargan.one_hots(SPACE, batch["factors"])
        wanted = c[torch.rand(6, generator=draws).argsort()]
        fake = G(x, wanted).detach()
        between = torch.rand(6, 1, 1, 1, generator=draws)
        between = (between * x + (1 - between) * fake).requires_grad_()
        slopes = [torch.autograd.grad(src(trunk(p[None])).sum(), p, create_graph=True)[0] for p in between]
        penalty = torch.stack([(slope.square().sum().sqrt() - 1) ** 2 for slope in slopes]).mean()  # one by one
        loss_cls = sum(F.cross_entropy(part, k) for part, k in zip(
            cls(trunk(x)).split(SPACE.sizes, 1), SPACE.to_grid(batch["factors"]).T
        ))  # fmt: skip
        distance = src(trunk(x)).mean() - src(trunk(fake)).mean()
        for p, g in zip(D, torch.autograd.grad(0.7 * loss_cls + 2 * penalty - distance, D)):
            p.grad = g
        opt.step()
    fake = G(x, wanted)
    adv, rec = -src(trunk(fake)).mean(), (x - G(fake, c)).abs().mean()
    fake_cls = stargan.classification_loss(cls(trunk(fake)), wanted, SPACE.sizes)
    grads = torch.autograd.grad(adv + 0.7 * fake_cls + 3 * rec, list(G.parameters()))
    for name, value in {
        "distance": distance, "penalty": penalty, "cls_real": loss_cls, "loss_G": adv, "cls_fake": fake_cls,
        "recon": rec,
    }.items():  # fmt: skip
        torch.testing.assert_close(losses[name], value.detach(), rtol=1e-3, atol=1e-4)
    ours = [p for net in learner.judges() for p in net.parameters()]
    for p, theirs in zip(ours, D, strict=True):
        torch.testing.assert_close(p, theirs, rtol=1e-3, atol=1e-5)
    for p, before, g in zip(learner.gan.G.parameters(), G.parameters(), grads, strict=True):
        torch.testing.assert_close(p, before - 0.01 * g, rtol=1e-3, atol=1e-4)


def test_each_update_moves_its_own_player_only():
    learner = build()
    opt, G = learner.optimizers(), learner.gan.G
    (batch,) = batches(6, 1)
    x, c = 2 * batch["x"] - 1, stargan.one_hots(SPACE, batch["factors"])
    before, judges = weights(G), [weights(net) for net in learner.judges()]
    learner.update_D(opt["D"], x, c, c.flip(0))
    assert equal(before, weights(G)) and all(p.grad is None for p in G.parameters())
    assert not any(equal(was, weights(net)) for was, net in zip(judges, learner.judges()))
    judges = [weights(net) for net in learner.judges()]
    grads = [[p.grad.clone() for p in net.parameters()] for net in learner.judges()]
    learner.update_G(opt["G"], x, c, c.flip(0))
    assert not equal(before, weights(G)) and all(p.requires_grad for p in learner.parameters())
    for net, was, grad in zip(learner.judges(), judges, grads):
        assert equal(was, weights(net)) and equal(grad, [p.grad for p in net.parameters()])
    owned = {id(p) for each in opt.values() for group in each.param_groups for p in group["params"]}
    assert owned == {id(p) for p in learner.parameters()}


def test_a_step_is_n_critic_updates_of_d_and_one_of_g_on_the_last_batch():
    assert (Settings().n_critic, Settings().lam_rec, Settings().lam_gp, Settings().lam_cls) == (5, 10, 10, 1)
    learner, calls = build(n_critic=3), []
    D, G = learner.update_D, learner.update_G
    learner.update_D = lambda opt, *a: calls.append(a) or D(opt, *a)
    learner.update_G = lambda opt, *a: calls.append(a) or G(opt, *a)
    seen = batches(6, learner.draws)
    learner.step(learner.optimizers(), *seen)
    assert len(calls) == 4 and all(torch.equal(a, b) for a, b in zip(calls[2], calls[3]))
    for batch, (x, c, wanted) in zip(seen, calls):
        assert torch.equal(x, 2 * batch["x"] - 1) and torch.equal(c, stargan.one_hots(SPACE, batch["factors"]))
        assert sorted(wanted.tolist()) == sorted(c.tolist()) and not torch.equal(wanted, c)


def test_rates_fall_over_the_second_half():
    learner = build(steps=10, lr_G=1.0, lr_D=2.0)
    opt = learner.optimizers()
    for t, share in ((0, 1.0), (5, 1.0), (7, 0.6), (9, 0.2)):
        learner.t.fill_(t)
        learner.rates_fall(opt)
        found = [float(opt[name].param_groups[0]["lr"]) for name in ("G", "D")]
        assert found == pytest.approx([share, 2 * share])


def test_step_can_be_captured_and_repeats_itself():
    learner = build()
    opt, same = learner.optimizers(), batches(6, 2)
    learner.step(opt, *same)
    with like_a_capture():
        losses = learner.step(opt, *same)
    assert all(v.ndim <= 1 and not v.requires_grad and v.isfinite().all() for v in losses.values())
    runs = [toys.fit(build(), steps=2, seed=seed, data=Squares())[1] for seed in (0, 0, 1)]
    assert toys.same(runs[0], runs[1]) == "" and toys.same(runs[0], runs[2]) != ""


def test_the_critic_stays_float32():
    assert set(build().networks()) == {"gan.G", "gan.trunk", "gan.cls", "src"}
    assert set(StarGAN.full_precision) == {"gan.trunk", "src"}


# ---- the code


def test_code_is_the_picture_and_what_the_classifier_reads():
    model, x = build().model, batches(6, 1)[0]["x"]
    codes = model.encode(x)
    assert model.codes.names == ("picture", "colour", "side", "ground")
    assert model.codes["colour"].labels == ("red", "green", "blue") and model.codes["side"].labels == ("4", "8")
    assert torch.equal(model.codes.read(codes, "picture"), x)
    logits = model.cls(model.trunk(2 * x - 1))
    torch.testing.assert_close(model.codes.read(codes, "side"), logits[:, 3:5].softmax(1))
    for block in model.codes:
        value = block.read(codes)
        assert torch.equal(block.write(codes, value), codes)
        assert torch.equal(block.read(block.write(codes, value.flip(0))), value.flip(0))
        if block.kind == "onehot":
            torch.testing.assert_close(value.sum(1), torch.ones(6))


def test_decode_is_g_under_the_labels_of_the_code():
    model, batch = build().model, batches(6, 1)[0]
    batch["factors"][:, 0] = torch.tensor([0.0, 1.0, 2.0, 0.0, 2.0, 1.0])  # colours; backwards all are others
    codes = torch.cat([batch["x"].flatten(1), stargan.one_hots(SPACE, batch["factors"])], 1)
    wanted = (model.G(2 * batch["x"] - 1, stargan.one_hots(SPACE, batch["factors"])) + 1) / 2
    torch.testing.assert_close(model.decode(codes), wanted)
    swapped = model.codes.swap(codes, codes.flip(0), "colour")
    labels = stargan.one_hots(SPACE, batch["factors"])
    labels[:, :3] = labels.flip(0)[:, :3]
    torch.testing.assert_close(model.decode(swapped), (model.G(2 * batch["x"] - 1, labels) + 1) / 2)
    assert (model.decode(swapped) - model.decode(codes))[[0, 1, 4, 5]].flatten(1).abs().amax(1).min() > 1e-4
    loud = model.codes.write(codes, "picture", 3 * batch["x"] - 1)  # outside [0, 1]: cut off
    again = model.codes.write(codes, "picture", (3 * batch["x"] - 1).clamp(0, 1))
    assert torch.equal(model.decode(loud), model.decode(again))
    for found in (model.decode(loud), model.decode(model.codes.prior(4, rng(0)))):
        assert found.shape[1:] == (3, 16, 16) and 0 <= found.min() and found.max() <= 1


def test_generator_and_classifier_overfit_one_batch():
    learner = build(lr_G=4e-3, lr_D=4e-3, n_critic=1, steps=1000)
    opt, same = learner.optimizers(), batches(6, 1)
    first = learner.step(opt, *same)
    for _ in range(80):
        last = learner.step(opt, *same)
    assert last["recon"] < 0.6 * first["recon"] and last["cls_real"] < 0.2 * first["cls_real"]


def test_live_picture_shows_other_labels():
    learner, x = build(), batches(6, 1)[0]["x"]
    rows = learner.preview({"x": x})
    codes = learner.model.encode(x)
    codes[:, 3 * 256 :] = codes[:, 3 * 256 :].roll(1, 0)
    torch.testing.assert_close(rows["labels of the left neighbour"], learner.model.decode(codes))


# ---- what it refuses


@pytest.mark.parametrize("settings, message", [
    ({"lam_rec": -1.0}, "lam_rec must be 0 or more, not -1"),
    ({"nets": "large"}, "unknown nets 'large'"),
    ({"wide": -1.0}, "wide must be a finite number above 0"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


@pytest.mark.parametrize("spec, message", [
    (Spec((3, 16, 16)), "StarGAN learns from labels, and these data have no factors"),
    (Spec((3, 16, 16), FactorSpace([category("picture", "a", "b")])), "a block of its code 'picture'"),
    (Spec((3, 18, 18), SPACE), "16, 20 ... 128 pixels, not 18x18"),
])  # fmt: skip
def test_data_that_cannot_be_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        build(spec)


def test_presets_of_the_paper():
    paper = StarGAN.PRESETS["paper", "fonts"]
    assert dataclasses.asdict(paper) == dataclasses.asdict(Settings()) and paper.nets == "paper"
    assert (paper.lr_G, paper.lr_D, paper.batch, paper.steps * paper.n_critic) == (1e-4, 1e-4, 16, 200_000)


def test_a_real_factor_with_a_unit_keeps_it():
    block = stargan.attribute_block(Factor("angle", "cyclic", (0.0, 90.0, 180.5), unit="deg"))
    assert block.labels == ("0", "90", "180.5") and block.unit == "deg" and block.kind == "onehot"


@pytest.mark.parametrize("method", ["StarGAN", "ELEGANT"])
def test_an_attribute_of_one_value_is_refused(method):
    space = FactorSpace([category("kind", "a", "b"), category("size", "all")])
    with pytest.raises(UserError, match="attribute 'size' has one value only"):
        attributes_of(Spec((3, 16, 16), space), method)
