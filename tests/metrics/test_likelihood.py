"""The importance-weighted bound: between ELBO and ln p(x), rising with K, exact where ln p(x) is known."""
import json
import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal

from disentkit.codes import gaussian_blocks
from disentkit.data.base import ArrayData
from disentkit.machine import seeded
from disentkit.methods.vae import GaussianVAE, kl_per_latent, reconstruction_loss
from disentkit.metrics import likelihood
from disentkit.metrics.likelihood import bound, log_likelihood, log_weights
from disentkit.models import posterior


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def binary(n=40, size=2):
    return torch.bernoulli(torch.full((n, 1, size, size), 0.5), generator=rng())


def stored(x):
    return ArrayData(x.numpy())


class Sign:
    """p(x|z): every pixel is on with 0.8 where z0 > 0, else with 0.3. So p(x) is the mean of two known numbers."""

    image_shape, codes = (1, 2, 2), gaussian_blocks(2)

    def __init__(self, shift=0.0, logvar=0.0):
        self.shift, self.logvar = shift, logvar

    def posterior(self, x):
        return torch.full((len(x), 2), self.shift), torch.full((len(x), 2), self.logvar)

    def decode(self, codes):
        return torch.where(codes[:, 0] > 0, 0.8, 0.3)[:, None, None, None].expand(-1, 1, 2, 2)

    def exact(self, x):
        both = [Bernoulli(p).log_prob(x).flatten(1).sum(1).exp() for p in (torch.tensor(0.8), torch.tensor(0.3))]
        return (0.5 * both[0] + 0.5 * both[1]).log().mean().item()


class Blind(Sign):
    """The decoder ignores the code, and the posterior is the prior: every weight is p(x)."""

    def decode(self, codes):
        return torch.full((len(codes), 1, 2, 2), 0.7)


def vae(size=8):
    with seeded(0):
        return GaussianVAE((1, size, size), 3, 16)


def test_exact_where_the_code_says_nothing():
    x = binary()
    wanted = Bernoulli(0.7).log_prob(x).flatten(1).sum(1)
    for K in (1, 7, 50):
        torch.testing.assert_close(bound(log_weights(Blind(), x, K), K).float(), wanted)


def test_reaches_ln_p_from_below():
    """A posterior that is off: the ELBO is far away, many samples close the gap."""
    x, model = binary(), Sign(shift=0.3, logvar=-0.3)
    log_w = log_weights(model, x, 4_000)
    exact = model.exact(x)
    found = {k: bound(log_w, k).mean().item() for k in (1, 10, 100, 4_000)}
    assert found[1] < found[10] < found[100] < found[4_000]
    assert found[4_000] == pytest.approx(exact, abs=0.02) and found[1] < exact - 0.1


def test_one_sample_is_exact_only_where_q_is_the_true_posterior():
    """Then every weight is p(x); a posterior beside it makes them differ."""
    log_w = log_weights(Blind(), binary(5), 20)
    assert log_w.std(dim=1).max() < 1e-5
    assert log_weights(Blind(shift=0.5), binary(5), 20).std(dim=1).min() > 0.1


def test_weights_are_those_of_the_formula():
    model, x = vae(), binary(3, 8)
    found = log_weights(model, x, 5, seed=3)
    mu, logvar = posterior(model, x)
    noise = torch.randn(3, 5, 3, generator=rng(3))
    with torch.no_grad():
        for i in range(3):
            for k in range(5):
                z = mu[i] + (logvar[i] / 2).exp() * noise[i, k]
                pixels = Bernoulli(logits=model.decoder(z[None])[0]).log_prob(x[i]).sum()
                ratio = (Normal(0.0, 1.0).log_prob(z) - Normal(mu[i], (logvar[i] / 2).exp()).log_prob(z)).sum()
                assert found[i, k].item() == pytest.approx((pixels + ratio).item(), abs=1e-3)


def test_elbo_is_the_training_loss():
    """L_1 averaged over many samples is minus (reconstruction + KL) of the method's own terms."""
    model, x = vae(), binary(20, 8)
    mu, logvar = posterior(model, x)
    draws, recon = rng(9), 0.0
    with torch.no_grad():
        for _ in range(50):
            z = mu + (logvar / 2).exp() * torch.randn(mu.shape, generator=draws)
            recon += reconstruction_loss(model.decoder(z), x).item() / 50
    elbo = -(recon + kl_per_latent(mu, logvar).sum().item())
    assert bound(log_weights(model, x, 200), 1).mean().item() == pytest.approx(elbo, abs=0.05)


def test_bound_never_falls_with_K_and_never_is_below_the_elbo():
    found = log_likelihood(vae(), stored(binary(30, 8)), K=1_000, points=6)
    values = list(found["by_K"].values())
    assert list(found["by_K"]) == ["1", "10", "100", "1000"]
    assert all(a <= b for a, b in zip(values, values[1:]))
    assert values[0] == found["elbo"] <= found["log_likelihood"] == values[-1]
    assert 1 <= found["ess"] <= 1_000


@pytest.mark.parametrize("K, sizes", [(1, ["1"]), (25, ["1", "25"]), (50, ["1", "10", "50"])])
def test_group_sizes_divide_K(K, sizes):
    assert list(log_likelihood(Sign(), stored(binary()), K=K, points=4)["by_K"]) == sizes


def test_pieces_do_not_matter(monkeypatch):
    model, x = vae(), binary(4, 8)
    whole = log_weights(model, x, 10)
    monkeypatch.setattr(likelihood, "DECODED", 7)
    torch.testing.assert_close(log_weights(model, x, 10), whole)


def test_a_saturated_decoder_costs_a_finite_price_and_logits_are_preferred():
    class Sure(Blind):
        def decode(self, codes):
            return torch.ones(len(codes), 1, 2, 2)

    class Logits(Sure):
        def logits(self, codes):
            return torch.full((len(codes), 1, 2, 2), 50.0)

    black = stored(torch.zeros(10, 1, 2, 2))
    clamped = log_likelihood(Sure(), black, K=5, points=4)
    assert clamped["log_likelihood"] == pytest.approx(4 * math.log(1e-6), rel=1e-2)
    exact = log_likelihood(Logits(), black, K=5, points=4)
    assert exact["log_likelihood"] == pytest.approx(-200) and exact["settings"]["decoder"] == "logits"


def test_grey_pictures_are_noted():
    assert log_likelihood(Sign(), stored(binary()), K=5, points=4)["note"] is None
    note = log_likelihood(Sign(), stored(0.5 * binary()), K=5, points=4)["note"]
    assert note == "the pictures are grey: compare with the same pictures only"


def test_seed_json_and_global_generators():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    model, data = vae(), stored(binary(30, 8))
    one, again, other = (log_likelihood(model, data, K=10, points=5, seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state()) and (numpy_before == np.random.get_state()[1]).all()
    assert one == again == json.loads(json.dumps(one)) and one["elbo"] != other["elbo"]
    assert one["settings"]["K"] == 10 and one["settings"]["points"] == 5


def test_bad_input():
    def message(call):
        with pytest.raises(ValueError) as error:
            call()
        return str(error.value)

    data = stored(binary())
    assert message(lambda: log_likelihood(Sign(), data, K=0)) == "K must be a whole number of at least 1, got 0"
    assert message(lambda: log_likelihood(Sign(), data, points=1)).startswith("points must be")
    assert message(lambda: log_likelihood(data, data)) == "ArrayData has no posterior to draw importance samples from"
    assert "call it with (model, data)" in message(lambda: log_likelihood(Sign(), binary()))
    assert message(lambda: bound(torch.zeros(2, 10), 3)) == "10 samples do not fall into groups of 3"
