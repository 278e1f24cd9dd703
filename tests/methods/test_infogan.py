"""InfoGAN: the bound to the letter, who is moved by which loss, what Q says of a picture, and its runs and panels."""

import math

import pytest
import torch
import toys
from methods.family import equal, resumes, rng, weights
from methods.gans import BOTH, batches, build, descent, pictures
from test_toys import global_states, like_a_capture
from torch.distributions import Categorical, Normal

from disentkit import models
from disentkit.codes import Block
from disentkit.errors import UserError
from disentkit.methods.infogan import code_space, entropy, log_q, lower_bound, recovered

both = pytest.mark.parametrize("name", BOTH)


# ---- the bound


def test_log_q_is_that_of_the_distributions():
    logits, mu = torch.randn(9, 4, generator=rng()), torch.randn(9, 1, generator=rng(1))
    picked = torch.arange(9) % 4
    one = torch.nn.functional.one_hot(picked, 4).float()
    category, number = Block("c", "onehot", (4,)), Block("c1", "uniform", low=-1, high=1)
    torch.testing.assert_close(log_q(category, logits, one), Categorical(logits=logits).log_prob(picked))
    c = torch.rand(9, 1, generator=rng(2))
    torch.testing.assert_close(log_q(number, mu, c), Normal(mu, 1.0).log_prob(c)[:, 0])
    assert entropy(category) == pytest.approx(math.log(4)) and entropy(number) == pytest.approx(math.log(2))


def test_the_bound_is_reached_by_a_q_that_knows_and_zero_for_one_that_guesses():
    """A category read without fail is worth ln K nats, one read with the prior's probabilities none."""
    model = build(continuous=0).model
    c = model.prior(50, rng())
    sure = 40 * model.codes.read(c, "category")
    assert lower_bound(model, sure, c).item() == pytest.approx(math.log(3), abs=1e-5)
    assert lower_bound(model, torch.zeros(50, 3), c).item() == pytest.approx(0, abs=1e-6)
    assert lower_bound(model, -sure, c) < -10


def test_the_bound_sums_over_codes_and_averages_over_the_batch():
    model = build().model
    c, q = model.prior(20, rng()), torch.randn(20, 5, generator=rng(1))
    parts = [(log_q(block, part, block.read(c)).mean() + entropy(block)).item() for block, part in model.parts(q)]
    assert [block.name for block, _ in model.parts(q)] == ["category", "c1", "c2"]  # never the noise
    assert lower_bound(model, q, c).item() == pytest.approx(sum(parts), abs=1e-5)
    twice = lower_bound(model, q.repeat(2, 1), c.repeat(2, 1))
    torch.testing.assert_close(twice, lower_bound(model, q, c))


def test_recovered_is_one_for_the_code_itself_and_none_for_a_guess():
    model = build().model
    c = model.prior(5000, rng())
    right = torch.cat([model.codes.read(c, name) for name in ("category", "c1", "c2")], 1)
    assert recovered(model, right, c).tolist() == pytest.approx([1, 1, 1])
    guess = recovered(model, torch.tensor([[1.0, 0, 0, 0, 0]]).expand(5000, 5), c)
    assert guess.tolist() == pytest.approx([1 / 3, 0, 0], abs=0.03)


# ---- codes


def test_code_spaces_of_the_paper():
    space = code_space(62, 10, 2)  # MNIST
    assert space.names == ("noise", "category", "c1", "c2") and space.size == 74
    assert [b.inferred for b in space] == [False, True, True, True]
    assert code_space(5, 3, 4).names == ("noise", "category", "c1", "c2", "c3", "c4")
    assert code_space(5, 0, 5).names == ("noise", "c1", "c2", "c3", "c4", "c5")
    assert code_space(0, 0, 1).names == ("c1",)
    with pytest.raises(UserError, match="categories=1 is no choice"):
        code_space(5, 1, 2)
    with pytest.raises(UserError, match="needs a code that Q reads"):
        code_space(5, 0, 0)


@both
@pytest.mark.parametrize("codes", [(62, 10, 2), (5, 0, 5), (0, 3, 4)])
def test_laws_of_the_code_space(name, codes):
    """write(c, read(c)) = c and read(write(c, v)) = v, and the prior keeps to its ranges."""
    space = build(name, **dict(zip(("noise", "categories", "continuous"), codes))).model.codes
    c, other = space.prior(30, rng()), space.prior(30, rng(1))
    for block in space:
        assert torch.equal(space.write(c, block.name, space.read(c, block.name)), c)
        value = space.read(other, block.name)
        assert torch.equal(space.read(space.write(c, block.name, value), block.name), value)
        if block.kind == "uniform":
            assert -1 <= block.read(c).min() < -0.8 and 0.8 < block.read(c).max() <= 1
        else:
            assert set(block.read(c).unique().tolist()) == {0.0, 1.0} and (block.read(c).sum(1) == 1).all()


@both
def test_encode_is_soft_and_leaves_the_noise_at_its_centre(name):
    learner = build(name)
    with models.frozen(learner):
        x = learner.model.decode(learner.model.prior(5, rng()))
        codes, q = learner.model.encode(x), learner.model.Q(learner.model.trunk(x))
    space = learner.model.codes
    assert x.shape == (5, 1, 16, 16) and 0 <= x.min() and x.max() <= 1 and codes.shape == (5, space.size)
    assert (space.read(codes, "noise") == 0).all()
    category = space.read(codes, "category")
    torch.testing.assert_close(category, q[:, :3].softmax(1))  # a point of the simplex, not a vertex
    torch.testing.assert_close(category.sum(1), torch.ones(5))
    assert ((0 < category) & (category < 1)).all()
    torch.testing.assert_close(torch.cat([space.read(codes, "c1"), space.read(codes, "c2")], 1), q[:, 3:])


# ---- who learns from what


def test_each_update_moves_its_own_player_only():
    learner = build()
    opt, gan = learner.optimizers(), learner.gan
    owners = {"D": [gan.trunk, learner.D, gan.Q], "G": [gan.G]}
    for name, nets in owners.items():
        owned = {id(p) for group in opt[name].param_groups for p in group["params"]}
        assert owned == {id(p) for net in nets for p in net.parameters()}
    before = {name: [weights(net) for net in nets] for name, nets in owners.items()}
    learner.update_D(opt["D"], pictures(0))
    assert all(p.grad is None for p in gan.G.parameters())
    assert equal(before["G"][0], weights(gan.G))
    for net, was in zip(owners["D"], before["D"]):
        assert not equal(was, weights(net))  # the trunk, D's head and Q's

    before["D"], grads = [weights(net) for net in owners["D"]], [p.grad.clone() for p in learner.D.parameters()]
    learner.update_G(opt["G"], 8)
    assert all(equal(was, weights(net)) for net, was in zip(owners["D"], before["D"]))
    assert equal(grads, [p.grad for p in learner.D.parameters()]) and not equal(before["G"][0], weights(gan.G))
    assert all(p.requires_grad for p in learner.parameters())  # thawed again


def test_both_updates_follow_the_bound_through_q():
    """L_I stands in both losses, as in the reference code: lambda scales its share of each player's gradient."""
    players = {"D": lambda gan: [*gan.Q.parameters(), *gan.trunk.parameters()], "G": lambda gan: gan.G.parameters()}
    for name, player in players.items():
        grads = []
        for lam in (0.0, 1.0, 2.0):
            learner = build(lam=lam)
            opt = learner.optimizers()
            learner.update_D(opt["D"], pictures(0)) if name == "D" else learner.update_G(opt["G"], 8)
            grads.append([p.grad if p.grad is not None else torch.zeros_like(p) for p in player(learner.gan)])
        assert not equal(grads[0], grads[1])
        for none, one, two in zip(*grads):
            torch.testing.assert_close(two - none, 2 * (one - none), rtol=1e-3, atol=1e-5)
        if name == "D":  # without the bound Q has nothing to learn
            quiet = grads[0][: len(list(build().gan.Q.parameters()))]
            assert all(g.abs().max() == 0 for g in quiet)


@pytest.mark.parametrize("nets", ["mnist", "dsprites"])
def test_step_equals_a_hand_written_reference(nets):
    """Two steps down, from logarithms of probabilities, softmax cross-entropy and squared errors."""
    learner, reference, lam = build(nets=nets, lam=0.7), build(nets=nets), 0.7
    gan, D = reference.gan, reference.D
    judges, G, draws = [*gan.trunk.parameters(), *D.parameters(), *gan.Q.parameters()], list(gan.G.parameters()), rng(7)
    # Plain descent: Adam makes a step of full length of the rounding errors where batch norm cancels a bias.
    opt = descent(learner)
    opt_D, opt_G = torch.optim.SGD(judges, lr=0.01), torch.optim.SGD(G, lr=0.01)

    def bound(c, q):
        picked = gan.codes.read(c, "category").argmax(1)
        cross = torch.nn.functional.cross_entropy(q[:, :3], picked)
        errors = sum(((gan.codes.read(c, f"c{i + 1}")[:, 0] - q[:, 3 + i]) ** 2).mean() / 2 for i in range(2))
        return math.log(3) - cross + 2 * (math.log(2) - math.log(2 * math.pi) / 2) - errors

    for _ in range(2):
        losses = learner.step(opt, {"x": pictures(3)})
        c = gan.prior(8, draws)
        x = torch.sigmoid(gan.G(c)).detach()
        real, features = torch.sigmoid(D(gan.trunk(pictures(3)))), gan.trunk(x)
        loss_D = -real.log().mean() - (1 - torch.sigmoid(D(features))).log().mean()
        for p, g in zip(judges, torch.autograd.grad(loss_D - lam * bound(c, gan.Q(features)), judges)):
            p.grad = g
        opt_D.step()
        c = gan.prior(8, draws)
        features = gan.trunk(torch.sigmoid(gan.G(c)))
        loss_G, L_I = -torch.sigmoid(D(features)).log().mean(), bound(c, gan.Q(features))
        for p, g in zip(G, torch.autograd.grad(loss_G - lam * L_I, G)):
            p.grad = g
        opt_G.step()
        for key, wanted in {"loss_D": loss_D, "loss_G": loss_G, "L_I": L_I}.items():
            torch.testing.assert_close(losses[key], wanted.detach(), rtol=1e-4, atol=1e-4)
    for p, wanted in zip(learner.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, wanted, rtol=1e-4, atol=1e-5)


def test_a_discriminator_without_opinion_starts_at_2_ln2():
    learner = build(nets="mnist")
    learner.D.weight.data.zero_()
    losses = learner.step(
        learner.optimizers() | {"D": torch.optim.SGD(learner.D.parameters(), lr=0.0)}, {"x": pictures(0)}
    )
    assert losses["loss_D"].item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert losses["loss_G"].item() == pytest.approx(math.log(2), abs=1e-6)


def test_real_and_generated_pictures_meet_batch_norm_apart():
    """One batch of both would tell D what kind it is looking at; the means must be those of each kind alone."""
    learner, seen = build(nets="mnist"), []
    norm = next(m for m in learner.gan.trunk if isinstance(m, torch.nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    learner.update_D(learner.optimizers()["D"], pictures(0))
    assert seen == [8, 8]


def test_codes_can_be_read_because_of_lambda():
    """G starts to draw each category in a way of its own, and Q to tell them apart; without lambda neither does."""
    accuracy = {}
    for lam in (0.0, 1.0):
        fitted, _ = toys.fit(build(wide=0.25, noise=3, lr_D=2e-3, lam=lam), steps=100, read_every=20)
        accuracy[lam] = fitted.rows[-1]["recovered_0"]
    assert accuracy[1.0] > 0.7 and accuracy[0.0] < 0.5


@both
def test_history_has_what_the_notebook_plots(name):
    learner = build(name)
    losses = learner.step(learner.optimizers(), *batches(learner))
    wanted = {
        "infogan": ["loss_D", "loss_G", "L_I", "accuracy_D"],
        "infowgan": ["distance", "penalty", "loss_G", "L_I"],
    }
    assert list(losses) == [*wanted[name], "recovered"]
    assert all(losses[key].ndim == 0 for key in wanted[name]) and losses["recovered"].shape == (3,)
    assert not any(value.requires_grad for value in losses.values())


# ---- the house's laws, as for the toys


@both
@pytest.mark.parametrize("nets", ["mnist", "dsprites"])
def test_step_stays_on_the_device(name, nets):
    learner = build(name, nets=nets)
    opt, seen = learner.optimizers(), batches(learner)
    learner.step(opt, *seen)  # a capture warms up first, too
    with like_a_capture():
        losses = learner.step(opt, *seen)
    assert losses and all(value.ndim <= 1 and not value.requires_grad for value in losses.values())


@both
def test_training_keeps_to_its_own_randomness(name):
    before = global_states()
    _, one = toys.fit(build(name), steps=2)
    assert toys.same(before, global_states()) == ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        _, two = toys.fit(build(name), steps=2)
    assert toys.same(one, two) == ""
    assert toys.same(one, toys.fit(build(name), steps=2, seed=1)[1]) != ""


@both
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_shorter_training_is_the_beginning_of_the_longer_one(name, precision):
    """Early stopping is `steps`: stopped at step 3, the weights are those that the longer training had there."""
    at_three, learner = {}, build(name)
    take = learner.step

    def watched(opt, *batches):
        if learner.t == 3:
            at_three.update({key: value.clone() for key, value in learner.state_dict().items()})
        return take(opt, *batches)

    learner.step = watched
    toys.fit(learner, steps=5, precision=precision)
    _, short = toys.fit(build(name), steps=3, precision=precision)
    assert toys.same(at_three, dict(short["weights"])) == ""


@both
def test_resumes(name, tmp_path):
    resumes(lambda settings, spec: build(name), None, tmp_path)
