"""beta-TCVAE: the estimators against brute-force loops, the weight matrix that most ports get wrong, the objective."""

import math

import pytest
import torch
import torch.nn.functional as F
from methods.family import batch, build, keeps_the_laws, one_step_down, posteriors, resumes, rng
from torch.distributions import Normal

from disentkit.errors import UserError
from disentkit.methods.betatcvae import (
    BetaTCVAE,
    Settings,
    kl_terms,
    log_density,
    log_weights,
    minibatch_tc,
    stratified_weights,
)
from disentkit.methods.vae import VAE


def small(**settings) -> Settings:
    return Settings(**{"d": 4, "fc": 16, "size": 16, "lr": 1e-3, "N": 1000} | settings)


# ---- the weight matrix


@pytest.mark.parametrize("m, N", [(2, 2), (2, 100), (5, 5), (64, 737_280)])
def test_rows_of_the_stratified_weights_sum_to_one(m, N):
    W, M = stratified_weights(m, N).double(), m - 1
    torch.testing.assert_close(W.sum(1), torch.ones(m).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(W.diagonal(), torch.full((m,), 1 / N).double())  # its own image: one of N
    for i in range(m):
        others = sorted(W[i, k].item() for k in range(m) if k != i)
        assert others == pytest.approx(sorted([(N - M) / (N * M)] + [1 / M] * (m - 2)), rel=1e-5)


def test_stratified_weights_estimate_q_without_bias():
    """Over all batches of 3 of 5 images that hold image 0, the mean of sum_k W_0k q(z|x_k) is q(z) of all 5."""
    density = torch.rand(5, generator=rng()).double()  # q(z|x_n) at one z
    estimates = []
    for a in range(1, 5):
        for b in range(1, 5):
            if a != b:
                estimates.append(stratified_weights(3, 5).double()[0] @ density[[0, a, b]])
    assert torch.stack(estimates).mean().item() == pytest.approx(density.mean().item(), rel=1e-6)


def brute_force(z, mu, logvar, weight):
    """(mi, tc, dwkl) by loops over the densities themselves; weight(i, k) -> W_ik."""
    m, d = z.shape
    mi, tc, dwkl = 0.0, 0.0, 0.0
    for i in range(m):
        p = [[Normal(mu[k, j], (logvar[k, j] / 2).exp()).log_prob(z[i, j]).exp().item() for j in range(d)]
             for k in range(m)]  # fmt: skip
        qz = sum(weight(i, k) * math.prod(p[k]) for k in range(m))
        qzj = math.prod(sum(weight(i, k) * p[k][j] for k in range(m)) for j in range(d))
        prior = math.prod(math.exp(-(z[i, j].item() ** 2) / 2) / math.sqrt(2 * math.pi) for j in range(d))
        mi += math.log(math.prod(p[i]) / qz) / m
        tc += math.log(qz / qzj) / m
        dwkl += math.log(qzj / prior) / m
    return mi, tc, dwkl


@pytest.mark.parametrize("m", [2, 6])
@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_estimators_are_those_of_the_formulas(estimator, m):
    z, mu, logvar = (v.double() for v in posteriors(m, 3))
    N, M = 50, m - 1

    def weight(i, k):
        if estimator == "mws":
            return 1 / (N * m)
        return 1 / N if k == i else (N - M) / (N * M) if k == (i + 1) % m else 1 / M

    found = [v.item() for v in kl_terms(z, mu, logvar, log_weights(estimator, m, N).double())]
    assert found == pytest.approx(brute_force(z, mu, logvar, weight), rel=1e-5)
    assert minibatch_tc(z, mu, logvar, N, estimator).item() == pytest.approx(found[1], rel=1e-5)


def test_log_density_is_of_every_code_under_every_posterior():
    z, mu, logvar = posteriors(4, 3)
    wanted = Normal(mu[None], (logvar / 2).exp()[None]).log_prob(z[:, None])  # axes i, k, j
    torch.testing.assert_close(log_density(z, mu, logvar), wanted)


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_the_three_terms_add_up_to_the_sampled_kl(estimator):
    z, mu, logvar = posteriors(16, 4)
    sampled = (Normal(mu, (logvar / 2).exp()).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1).mean()
    torch.testing.assert_close(sum(kl_terms(z, mu, logvar, log_weights(estimator, 16, 1000))), sampled)


def test_narrow_posteriors_far_apart_do_not_overflow():
    mu = 100 * torch.arange(8.0)[:, None].repeat(1, 3)
    logvar = torch.full_like(mu, -20.0)
    for estimator in ("mss", "mws"):
        assert all(v.isfinite() for v in kl_terms(mu, mu, logvar, log_weights(estimator, 8, 100)))


def in_columns(m: int, N: int) -> torch.Tensor:
    """The weights as many ports have them: special entries in columns 0 and 1, where they fit one row only."""
    M = m - 1
    W = torch.full((m, m), 1 / M)
    W[:, 0], W[:, 1] = 1 / N, (N - M) / (N * M)
    W[M - 1, 0] = (N - M) / (N * M)
    return W


def test_only_the_right_stratified_weights_see_the_tc_change_in_small_batches():
    """Two of five latents get a correlation of 0.8; batches of 64 of 20,000 images, sigma = 0.25.

    The true change is about +0.4 nats; of the three, only weights with 1/N on the diagonal show most of it.
    """
    draws, sigma, m, N = rng(), 0.25, 64, 20_000
    logvar = torch.full((m, 5), 2 * math.log(sigma))
    kinds = {"mss": stratified_weights(m, N), "columns": in_columns(m, N), "mws": torch.full((m, m), 1 / (N * m))}
    change = dict.fromkeys(kinds, 0.0)
    for _ in range(100):
        a, noise = torch.randn(2, m, 5, generator=draws)
        b = a.clone()
        b[:, 1] = 0.8 * a[:, 0] + 0.6 * a[:, 1]
        for kind, W in kinds.items():
            before, after = (kl_terms(mu + sigma * noise, mu, logvar, W.log())[1] for mu in (a, b))
            change[kind] += (after - before).item() / 100
    assert change["mss"] > 0.2
    assert abs(change["columns"]) < 0.1 and abs(change["mws"]) < 0.1


def test_the_constants_of_mws_shift_tc_and_leave_its_gradient():
    z, mu, logvar = posteriors(16, 4)
    mu.requires_grad_()
    found = []
    for N in (100, 10_000):
        tc = minibatch_tc(z, mu, logvar, N, "mws")
        found.append((tc.item(), *torch.autograd.grad(tc, mu)))
    assert found[1][0] - found[0][0] == pytest.approx((4 - 1) * math.log(100), rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


# ---- the learner


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_step_is_one_step_down_the_objective(estimator):
    x, chosen = batch()["x"], small(alpha=0.5, beta=6.0, gamma_dw=2.0, estimator=estimator)
    learner = build(BetaTCVAE, chosen)
    terms = []

    def objective(mu, logvar, z, logits):
        recon = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
        each = Normal(mu[None], (logvar / 2).exp()[None]).log_prob(z[:, None])  # (8, 8, 4)
        W = stratified_weights(8, 1000) if estimator == "mss" else torch.full((8, 8), 1 / 8000)
        log_qz = (W * each.sum(2).exp()).sum(1).log()
        log_qzj = (W[:, :, None] * each.exp()).sum(1).log().sum(1)
        log_qzx = torch.stack([each[i, i].sum() for i in range(8)])
        log_pz = Normal(0.0, 1.0).log_prob(z).sum(1)
        terms.extend([(log_qzx - log_qz).mean(), (log_qz - log_qzj).mean(), (log_qzj - log_pz).mean()])
        return recon + 0.5 * terms[0] + 6.0 * terms[1] + 2.0 * terms[2]

    losses = one_step_down(learner, x, objective)
    for name, wanted in zip(("mi", "tc", "dwkl"), terms, strict=True):
        torch.testing.assert_close(losses[name], wanted.detach(), rtol=1e-3, atol=1e-3)
    assert list(losses) == ["recon", "mi", "tc", "dwkl", "kl"] and losses["kl"].shape == (4,)


def test_with_all_weights_one_it_is_the_vae_up_to_sampling():
    """The bound is the VAE's; only the KL is that of the codes drawn, not the formula."""
    learner = build(BetaTCVAE, small(beta=1.0))
    losses = learner.step(learner.optimizers(), batch(n=64))
    total = losses["mi"] + losses["tc"] + losses["dwkl"]
    assert total.item() == pytest.approx(losses["kl"].sum().item(), abs=1.0)


def test_impossible_settings_are_refused():
    for wrong, message in [({"estimator": "msss"}, "unknown estimator 'msss'. Did you mean 'mss'"),
                           ({"batch": 1}, "2 <= batch <= N"), ({"N": 60}, "batch is 64 and N is 60")]:  # fmt: skip
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            build(BetaTCVAE, small(**wrong))
    with pytest.raises(UserError, match="unknown estimator"):
        minibatch_tc(*posteriors(4, 2), 10, "naive")


def test_presets_know_how_many_pictures_there_are():
    assert set(BetaTCVAE.PRESETS) == set(VAE.PRESETS)
    known = {data: s.N for (_, data), s in BetaTCVAE.PRESETS.items()}
    assert known == known | {"dsprites": 737_280, "shapes3d": 480_000, "mnist": 60_000, "digits": 1_797}
    assert all((s.alpha, s.beta, s.gamma_dw, s.estimator) == (1, 6, 1, "mss") for s in BetaTCVAE.PRESETS.values())


def test_laws_of_the_house(tmp_path):
    for estimator in ("mss", "mws"):
        keeps_the_laws(BetaTCVAE, small(estimator=estimator))
    resumes(BetaTCVAE, small(), tmp_path)
