"""InfoWGAN-GP: the gradient penalty against brute force, and who is moved by which loss."""

import pytest
import torch
from methods.family import equal, rng, weights
from methods.gans import batches, build, descent, pictures
from torch import nn

from disentkit.methods.infogan import lower_bound
from disentkit.methods.infowgan_gp import InfoWGAN, Settings, gradient_penalty

# ---- the gradient penalty


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
def test_penalty_of_a_linear_critic_is_known(norm):
    """f(x) = <w, x> + b has the gradient w everywhere, so the penalty is (|w| - 1)^2 wherever it is taken."""
    f = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    w = torch.randn(1, 64, generator=rng())
    f[1].weight.data = norm * w / w.norm()
    penalty = gradient_penalty(f, pictures(0, 5, 8), pictures(1, 5, 8), rng(2))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)
    penalty.backward()
    assert f[1].weight.grad.isfinite().all()  # also where the gradient vanishes
    if norm:
        wanted = 2 * (norm - 1) * f[1].weight.data / norm
        torch.testing.assert_close(f[1].weight.grad, wanted, rtol=1e-4, atol=1e-5)


def test_penalty_of_a_curved_critic_is_that_of_finite_differences():
    """A small critic in float64: gradients by central differences, pixel by pixel, at the points the penalty takes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        f = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)).double()
    x, fake = pictures(0, 3, 4).double(), pictures(1, 3, 4).double()
    eps = torch.rand(3, 1, 1, 1, generator=rng(5))
    between, h = eps * x + (1 - eps) * fake, 1e-5
    slopes = torch.zeros_like(between)
    with torch.no_grad():
        for i in range(4):
            for j in range(4):
                step = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
                step[0, 0, i, j] = h
                slopes[:, 0, i, j] = (f(between + step) - f(between - step))[:, 0] / (2 * h)
    wanted = ((slopes.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
    assert gradient_penalty(f, x, fake, rng(5)).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_penalty_is_taken_between_the_two_pictures_one_share_a_pair():
    seen = []

    def f(x):
        seen.append(x.detach())
        return x.sum(dim=(1, 2, 3))

    gradient_penalty(f, torch.ones(50, 1, 4, 4), torch.zeros(50, 1, 4, 4), rng())
    shares = seen[0].flatten(1)
    assert (shares == shares[:, :1]).all() and len(shares[:, 0].unique()) == 50
    assert 0 <= shares.min() < 0.1 and 0.9 < shares.max() <= 1


# ---- who learns from what


def test_a_step_is_n_critic_critic_updates_and_one_of_the_generator():
    assert Settings().n_critic == 5 and Settings().eta == 10
    for n in (1, 3):
        learner, calls = build("infowgan", n_critic=n), []
        assert learner.draws == n
        D, G = learner.update_D, learner.update_G
        learner.update_D = lambda opt, x: calls.append(x) or D(opt, x)
        learner.update_G = lambda opt, m: calls.append(m) or G(opt, m)
        seen = batches(learner)
        learner.step(learner.optimizers(), *seen)
        assert calls[-1] == 8 and all(torch.equal(a, b["x"]) for a, b in zip(calls[:-1], seen, strict=True))


def test_each_update_moves_its_own_player_only():
    learner = build("infowgan")
    opt, gan = learner.optimizers(), learner.gan
    for name, net in {"D": learner.D, "G": gan}.items():
        owned = {id(p) for group in opt[name].param_groups for p in group["params"]}
        assert owned == {id(p) for p in net.parameters()}
        assert opt[name].param_groups[0]["betas"] == (0.0, 0.9)
    D, model = weights(learner.D), weights(gan)
    learner.update_D(opt["D"], pictures(0))
    assert equal(model, weights(gan)) and not equal(D, weights(learner.D))
    assert all(p.grad is None for p in gan.parameters())

    D, grads = weights(learner.D), [p.grad.clone() for p in learner.D.parameters()]
    parts = [weights(net) for net in (gan.G, gan.trunk, gan.Q)]
    learner.update_G(opt["G"], 8)
    assert equal(D, weights(learner.D)) and equal(grads, [p.grad for p in learner.D.parameters()])
    assert not any(equal(was, weights(net)) for was, net in zip(parts, (gan.G, gan.trunk, gan.Q)))
    assert all(p.requires_grad for p in learner.parameters())


def test_q_learns_from_the_bound_alone_and_the_critic_never_hears_of_it():
    grads = {}
    for lam in (0.0, 1.0, 2.0):
        learner = build("infowgan", lam=lam)
        opt = learner.optimizers()
        learner.update_D(opt["D"], pictures(0))
        D = weights(learner.D)
        learner.update_G(opt["G"], 8)
        gan = learner.gan
        grads[lam] = [[p.grad for p in net.parameters()] for net in (gan.G, gan.trunk, gan.Q)] + [D]
    assert all(g.abs().max() == 0 for net in (1, 2) for g in grads[0.0][net])
    assert any(g.abs().max() > 0 for g in grads[0.0][0])  # the critic still teaches G
    assert equal(grads[0.0][3], grads[2.0][3])
    for net in range(3):
        assert not equal(grads[0.0][net], grads[1.0][net])
        for none, one, two in zip(*(grads[lam][net] for lam in (0.0, 1.0, 2.0))):
            torch.testing.assert_close(two - none, 2 * (one - none), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("nets", ["mnist", "dsprites"])
def test_step_equals_a_hand_written_reference(nets):
    learner, reference = build("infowgan", nets=nets, lam=0.3), build("infowgan", nets=nets)
    gan, f, draws, opt = reference.gan, reference.D, rng(7), descent(learner)
    opt_f, opt_G = torch.optim.SGD(f.parameters(), lr=0.01), torch.optim.SGD(gan.parameters(), lr=0.01)
    seen = batches(learner)
    losses = learner.step(opt, *seen)
    for batch in seen:
        x, fake = batch["x"], torch.sigmoid(gan.G(gan.prior(8, draws))).detach()
        eps = torch.rand(8, 1, 1, 1, generator=draws)
        between = (eps * x + (1 - eps) * fake).requires_grad_()
        slopes = torch.stack([torch.autograd.grad(f(p[None]).squeeze(), p, create_graph=True)[0] for p in between])
        penalty = ((slopes.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()  # picture by picture
        distance = f(x).mean() - f(fake).mean()
        for p, g in zip(
            f.parameters(), torch.autograd.grad(10 * penalty - distance, list(f.parameters()), allow_unused=True)
        ):
            p.grad = torch.zeros_like(p) if g is None else g
        opt_f.step()
    c = gan.prior(8, draws)
    x = torch.sigmoid(gan.G(c))
    loss, L_I = -f(x).mean(), lower_bound(gan, gan.Q(gan.trunk(x)), c)
    for p, g in zip(gan.parameters(), torch.autograd.grad(loss - 0.3 * L_I, list(gan.parameters()))):
        p.grad = g
    opt_G.step()
    for key, wanted in {"distance": distance, "penalty": penalty, "loss_G": loss, "L_I": L_I}.items():
        torch.testing.assert_close(losses[key], wanted.detach(), rtol=1e-3, atol=1e-4)
    for p, wanted in zip(learner.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, wanted, rtol=1e-3, atol=5e-4)


def test_the_critic_stays_float32():
    """Its gradient is differentiated again; the other networks may compute in bf16."""
    learner = build("infowgan")
    assert InfoWGAN.full_precision == ("D",) and set(learner.networks()) == {"D", "gan.G", "gan.trunk", "gan.Q"}


def test_the_penalty_holds_the_critic_to_slope_one():
    """Two kinds of pictures that are easily told apart: without the penalty the slope grows, with it it ends near 1."""
    slopes = {}
    for eta in (0.0, 10.0):
        learner = build("infowgan", eta=eta, lr_D=2e-3)
        opt = learner.optimizers()["D"]
        x = pictures(0) * 0.2 + 0.8
        for _ in range(60):
            learner.update_D(opt, x)
        between = (0.5 * x + 0.25).requires_grad_()
        (slope,) = torch.autograd.grad(learner.D(between).sum(), between)
        slopes[eta] = slope.flatten(1).norm(dim=1).mean().item()
    assert slopes[10.0] == pytest.approx(1, abs=0.5) and slopes[0.0] > 10
